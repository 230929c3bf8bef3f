//! Top-1 and top-5 against what the published evaluation code computes.
//!
//! `data/knn.safetensors` holds `knn.{train,val}_features` (encoder features of generated images,
//! L2-normalised) with the class of each image as `knn.{train,val}_labels`, and `knn.table.{train,
//! val}[_labels]` (a feature table, not normalised); `data/knn.json` the accuracies in percent:
//! `{name: {classes, temperature, top1_top5: {k: [top1, top5]}}}`.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use pixio_eval_heads::knn::{Features, Knn, l2_normalise};
use safetensors::SafeTensors;
use schema::VoteStage;

fn values<const N: usize, T>(file: &SafeTensors<'_>, name: &str, read: fn([u8; N]) -> T) -> Vec<T> {
    let tensor = file.tensor(name).unwrap();
    tensor.data().as_chunks::<N>().0.iter().map(|&bytes| read(bytes)).collect()
}

fn check(name: &str, prefix: &str, suffix: &str) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let bytes = std::fs::read(data.join("knn.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let split = |split: &str| {
        let features = format!("{prefix}{split}{suffix}");
        let dim = file.tensor(&features).unwrap().shape()[1];
        let mut features = values(&file, &features, f32::from_le_bytes);
        l2_normalise(&mut features, dim).unwrap();
        let labels = values(&file, &format!("{prefix}{split}_labels"), i64::from_le_bytes);
        (features, dim, labels.iter().map(|&label| label as u32).collect::<Vec<_>>())
    };
    let (train, dim, labels) = split("train");
    let (queries, _, query_labels) = split("val");

    let json = std::fs::read_to_string(data.join("knn.json")).unwrap();
    let expected = &serde_json::from_str::<serde_json::Value>(&json).unwrap()[name];
    let by_k: BTreeMap<usize, [f64; 2]> =
        serde_json::from_value(expected["top1_top5"].clone()).unwrap();
    let vote = VoteStage {
        revision: 1,
        k: by_k.keys().copied().collect(),
        temperature: expected["temperature"].as_f64().unwrap(),
    };
    let classes = expected["classes"].as_u64().unwrap() as usize;

    let knn = Knn::new(Features::new(&train, dim).unwrap(), &labels, classes).unwrap();
    let queries = Features::new(&queries, dim).unwrap();
    let found =
        knn.predict(queries, &query_labels, &vote, &mut |_| ControlFlow::Continue(())).unwrap();
    let found: BTreeMap<usize, [f64; 2]> =
        found.accuracy.iter().map(|found| (found.k, [found.top1, found.top5])).collect();
    assert!(found.len() >= 5);
    assert_eq!(found, by_k);
}

#[test]
fn encoder_features_for_every_k() {
    check("features", "knn.", "_features");
}

#[test]
fn feature_table_for_every_k() {
    check("table", "knn.table.", "");
}
