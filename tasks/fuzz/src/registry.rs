//! What is done with any bytes as `datasets.toml`, by the fuzzer and by the test that replays its corpus.

use pixio_eval_tasks::data::Registry;

/// Reads `data` as a registry; whether it is one.
pub fn check(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let parsed = Registry::parse(&text, "datasets.toml");
    match &parsed {
        Ok(registry) => {
            for dataset in registry.datasets() {
                assert_eq!(registry.get(&dataset.name), Some(dataset));
                assert!(dataset.citations.iter().all(|citation| citation.entry().is_ok()));
            }
        }
        Err(error) => assert!(error.to_string().starts_with("datasets.toml")),
    }
    parsed.is_ok()
}
