//! What is done with any bytes, by the fuzzer and by the test that replays its corpus.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use candle_core::Device;
use pixio_eval::cache;
use schema::Fingerprint;

struct Bank {
    cache: tempfile::TempDir,
    set: Fingerprint,
    folder: PathBuf,
}

static BANK: LazyLock<Bank> = LazyLock::new(|| {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let set: Fingerprint = blake3::hash(b"fuzz").into();
    let folder = cache.path().join("features-v2").join(set.short());
    fs::create_dir_all(&folder).expect("a folder");
    Bank { cache, set, folder }
});

/// Reads `data` as a shard, or as a set's card if it begins as one, alone and as part of the cache;
/// whether it is a whole shard.
pub fn check(data: &[u8]) -> bool {
    let card = data.first() == Some(&b'{');
    let name = if card { "card.json" } else { "train-00000000-00000004.safetensors" };
    fs::write(BANK.folder.join(name), data).expect("a file");
    assert_eq!(cache::list(BANK.cache.path()).expect("the cache is there").len(), 1);
    let (_, damaged) = cache::verify(BANK.cache.path()).expect("the cache is there");
    if card {
        return false;
    }
    let decoded = cache::decode(&BANK.set, data);
    assert_eq!(decoded.is_err(), !damaged.is_empty());
    if let Ok(tensors) = &decoded {
        let again = cache::encode(&BANK.set, tensors).expect("what was read can be written");
        let again = cache::decode(&BANK.set, &again).expect("what was written can be read");
        assert!(again.keys().eq(tensors.keys()));
    }
    // What a file with the right hash would be given to.
    let _ = candle_core::safetensors::load_buffer(data, &Device::Cpu);
    decoded.is_ok()
}
