//! Split lists of a data folder.
#![no_main]

#[path = "../../../harness/pickle/fuzz/src/bounded.rs"]
mod bounded;
#[path = "../src/lists.rs"]
mod lists;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = lists::check(data);
});
