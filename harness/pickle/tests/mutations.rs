//! Whatever the bytes, reading ends with a value or an error.
#![allow(clippy::unwrap_used, clippy::panic)]

mod forge;

use std::path::Path;
use std::sync::LazyLock;

use pixio_eval_pickle::{Array, Checkpoint, Limits, PLAIN_DATA, read};
use proptest::prelude::*;

/// Valid checkpoints, archives without checksums, so that damage is not noticed at once.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let names = ["zip_p2", "zip_p5", "legacy_p2", "legacy_p4", "flat", "nested", "big_endian"];
    names.map(|name| without_checksums(data(&format!("torch2/{name}.pth")))).to_vec()
});

fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn without_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    for at in 0..bytes.len().saturating_sub(20) {
        if bytes[at..].starts_with(b"PK\x01\x02") {
            bytes[at + 16..at + 20].fill(0);
        }
    }
    bytes
}

fn read_all(bytes: &[u8]) {
    let Ok(checkpoint) = Checkpoint::new(bytes) else { return };
    for name in checkpoint.names() {
        let info = checkpoint.info(name).unwrap();
        if let Ok(bytes) = checkpoint.bytes(name) {
            let count: usize = info.shape.iter().product();
            assert_eq!(bytes.len(), count * info.element.size());
        }
    }
}

fn read_arrays(bytes: &[u8]) {
    let Ok((pickle, _)) = read(bytes, &[PLAIN_DATA], &Limits::default()) else { return };
    for episode in pickle.list(pickle.root()).unwrap_or_default() {
        for (_, value) in pickle.pairs(*episode).unwrap_or_default() {
            let _ = Array::read(&pickle, *value);
        }
    }
}

/// Places and what is put there: a byte, a far number, or a cut.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..8), 1..8)
}

fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (index, byte, how) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = index.index(bytes.len());
        match how {
            0 => _ = bytes.remove(at),
            1 => bytes.insert(at, *byte),
            2 => bytes[at..].iter_mut().take(8).for_each(|b| *b = 0xff),
            3 => bytes[at..].iter_mut().take(8).for_each(|b| *b = 0),
            4 if *byte < 16 => bytes.truncate(at),
            _ => bytes[at] = *byte,
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
        read_all(&[forge::MAGIC, &bytes].concat());
        read_all(&forge::archive(&bytes, &[("0", &[0; 64])]));
        read_all(&forge::legacy(&bytes, &[("0", 4, &[0; 64])]));
        read_arrays(&bytes);
    }

    #[test]
    fn changed_checkpoints(which in any::<prop::sample::Index>(), changes in changes()) {
        read_all(&changed(which.get(&FILES).clone(), &changes));
    }

    #[test]
    fn changed_pickles_in_whole_archives(changes in changes()) {
        let mut a = forge::Assembler::new();
        a.byte(b'}').byte(b'(');
        for (name, strides) in [("a", [2, 1]), ("b", [1, 2]), ("c", [0, 0])] {
            a.text(name).tensor("FloatStorage", "0", 4, 0, &[2, 2], &strides);
        }
        let pickle = changed(a.byte(b'u').stop(), &changes);
        read_all(&forge::archive(&pickle, &[("0", &[7; 16])]));
    }

    #[test]
    fn changed_demonstrations(protocol in 2..=5, changes in changes()) {
        read_arrays(&changed(data(&format!("demonstration_p{protocol}.pkl")), &changes));
    }
}
