//! What is done with any bytes, by the fuzzer and by the test that replays its corpus.

use pixio_eval_pickle::{Array, Checkpoint, Limits, PLAIN_DATA, read};

/// Reads `data` as a checkpoint, every tensor, and as a demonstration, every array.
pub fn check(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::new(data) {
        for name in checkpoint.names() {
            let info = checkpoint.info(name).expect("a name has a tensor");
            if let Ok(bytes) = checkpoint.bytes(name) {
                let count: usize = info.shape.iter().product();
                assert_eq!(bytes.len(), count * info.element.size());
            }
        }
    }
    if let Ok((pickle, length)) = read(data, &[PLAIN_DATA], &Limits::default()) {
        assert!(length <= data.len());
        let (root, episodes) = (pickle.root(), pickle.list(pickle.root()).unwrap_or_default());
        for value in episodes.iter().chain([&root]) {
            for (_, value) in pickle.pairs(*value).unwrap_or_default() {
                if let Ok(array) = Array::read(&pickle, *value) {
                    let count: usize = array.shape.iter().product();
                    assert_eq!(array.bytes.len(), count * array.element.size());
                }
            }
        }
    }
}
