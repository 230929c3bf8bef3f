//! Checkpoints, zip and older, and demonstrations.
#![no_main]

#[path = "../src/bounded.rs"]
mod bounded;
#[path = "../src/pickle.rs"]
mod pickle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pickle::check(data));
