//! Zip, tar, WebDataset and Parquet archives, and their indexes.
#![no_main]

#[path = "../src/archives.rs"]
mod archives;
#[path = "../../../harness/pickle/fuzz/src/bounded.rs"]
mod bounded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = archives::check(data);
});
