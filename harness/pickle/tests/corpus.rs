//! The inputs that fuzzing found worth keeping, once each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/src/pickle.rs"]
mod pickle;

#[test]
fn the_corpus_is_read_without_a_panic() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/pickle");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        pickle::check(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 20, "{files} files");
}
