//! JPEG and PNG, as images, depth maps and masks.
#![no_main]

#[path = "../../../harness/pickle/fuzz/src/bounded.rs"]
mod bounded;
#[path = "../src/images.rs"]
mod images;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = images::check(data);
});
