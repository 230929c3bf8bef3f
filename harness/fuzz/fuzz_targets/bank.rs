//! Files of the feature bank, and its cards.
#![no_main]

#[path = "../src/bank.rs"]
mod bank;
#[path = "../../pickle/fuzz/src/bounded.rs"]
mod bounded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bank::check(data);
});
