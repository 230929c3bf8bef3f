//! What is done with any bytes, by the fuzzer and by the test that replays its corpus.

use std::fs;
use std::sync::LazyLock;

use candle_core::{DType, Device};
use pixio_eval::weights::{Canonical, Element, Expected, Weights, open};

/// A file of weights, and a folder with an index and one of the shards it may name.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("sharded")).expect("a folder");
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let shard = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    fs::write(folder.path().join("sharded/a.safetensors"), shard).expect("a shard");
    folder
});

/// Opens `data` as safetensors, or as a shard index if it begins as one; reads and converts every
/// tensor. Whether there was one.
pub fn check(data: &[u8]) -> bool {
    let (file, opened) = match data.first() {
        Some(b'{') => ("sharded/model.safetensors.index.json", "sharded"),
        _ => ("one.safetensors", "one.safetensors"),
    };
    fs::write(FOLDER.path().join(file), data).expect("a file");
    let Ok(source) = open(&FOLDER.path().join(opened)) else { return false };
    let mut expected = Vec::new();
    for name in source.names() {
        let info = source.info(&name).expect("a name has a tensor");
        let bytes = source.bytes(&name).expect("an opened file has its tensors");
        if let Element::Real(dtype) = info.element {
            let count: usize = info.shape.iter().product();
            assert_eq!(bytes.len(), count * dtype.size_in_bytes());
            expected.push(Expected { name, shape: info.shape });
        }
    }
    let whole = |raw: &str| Canonical::Whole(raw.to_owned());
    let Ok(weights) = Weights::map(source, "any", &expected, whole) else { return false };
    weights.identity(&"any").expect("every tensor is there");
    let any = !expected.is_empty();
    for Expected { name, shape } in expected {
        let tensor = weights.load(&name, DType::F32, &Device::Cpu).expect("it converts");
        assert_eq!(tensor.dims(), shape);
    }
    any
}
