//! The inputs that fuzzing found worth keeping, once each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/src/bank.rs"]
mod bank;
#[path = "../fuzz/src/weights.rs"]
mod weights;

fn replay(target: &str, check: fn(&[u8]) -> bool) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let (mut files, mut whole) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        whole += usize::from(check(&std::fs::read(entry.unwrap().path()).unwrap()));
        files += 1;
    }
    // With none that is right, a change of format has left the corpus behind.
    assert!(files >= 10 && whole > 0, "{target}: {whole} of {files} files");
}

#[test]
fn the_corpora_are_read_without_a_panic() {
    replay("weights", weights::check);
    replay("bank", bank::check);
}
