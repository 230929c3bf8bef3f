//! Files of the form of datasets.toml.
#![no_main]

#[path = "../../../harness/pickle/fuzz/src/bounded.rs"]
mod bounded;
#[path = "../src/registry.rs"]
mod registry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = registry::check(data);
});
