//! Weights in safetensors files and shard indices.
#![no_main]

#[path = "../../pickle/fuzz/src/bounded.rs"]
mod bounded;
#[path = "../src/weights.rs"]
mod weights;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weights::check(data);
});
