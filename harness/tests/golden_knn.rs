//! ImageNet k-NN through the command line against what the authors' code computes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{World, golden};

#[derive(serde::Deserialize)]
struct Golden {
    train_files: Vec<String>,
    val_files: Vec<String>,
    top1_top5: BTreeMap<String, [f64; 2]>,
}

#[derive(serde::Deserialize)]
struct Row {
    metric: String,
    value: f64,
    dataset: String,
    head: String,
}

fn run(world: &World, backbone: &str, more: &[&str]) -> Vec<Row> {
    let golden = golden();
    let data = format!("imagenet1k={}", golden.join("imagenet").display());
    let arch = golden.join("config.json");
    let backbone = golden.join(backbone);
    let (arch, backbone) = (arch.to_str().unwrap(), backbone.to_str().unwrap());
    let args = ["run", "imagenet1k/knn", "--backbone", backbone, "--arch", arch, "--data", &data];
    let args = [&args[..], &["--dtype", "f32", "--json"], more].concat();
    let ran = world.run(&args);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn expected() -> Golden {
    serde_json::from_slice(&fs::read(golden().join("golden.json")).unwrap()).unwrap()
}

#[test]
fn accuracies_equal_the_authors_for_every_k_from_both_containers() {
    for backbone in ["pixio_mini.pth", "."] {
        let rows = run(&World::new(), backbone, &["--k", "1,5,10,20,50"]);
        let expected = expected().top1_top5;
        assert_eq!(rows.len(), 2 * expected.len());
        for Row { metric, value, dataset, head } in rows {
            let (name, k) = metric.split_once('@').unwrap();
            let wanted = expected[k][usize::from(name == "top5")];
            assert_eq!(value, wanted, "{backbone} {dataset}/{head} {metric}");
        }
    }
}

/// Without `--k`, the protocol's list as far as the train set reaches.
#[test]
fn the_protocols_own_list_is_cut_to_the_train_set() {
    let rows = run(&World::new(), ".", &[]);
    let metrics: Vec<&str> = rows.iter().map(|row| row.metric.as_str()).collect();
    assert_eq!(metrics, ["top1@10", "top5@10", "top1@20", "top5@20"]);
    let expected = expected().top1_top5;
    for (row, (k, which)) in rows.iter().zip([("10", 0), ("10", 1), ("20", 0), ("20", 1)]) {
        assert_eq!(row.value, expected[k][which], "{}", row.metric);
    }
}

#[test]
fn features_equal_the_authors_to_1e_4() {
    let world = World::new();
    run(&world, ".", &["--k", "10"]);
    for split in ["train", "val"] {
        let found = &world.kept_features(split)[0];
        let stored = golden().join("golden.safetensors");
        let wanted = common::values(&stored, &format!("knn.{split}_features"));
        assert_eq!(found.len(), wanted.len());
        let furthest = found.iter().zip(wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("{split}: {furthest:.1e}");
        assert!(furthest <= 1e-4, "{split}: {furthest:e}");
    }
}

#[test]
fn samples_are_listed_in_the_authors_order() {
    let data = tasks::data::ImageNet::open(&golden().join("imagenet")).unwrap();
    let paths = |folder: &tasks::data::ImageFolder| -> Vec<String> {
        folder.samples().iter().map(|sample| sample.path.to_string()).collect()
    };
    assert_eq!(paths(&data.train), expected().train_files);
    assert_eq!(paths(&data.val), expected().val_files);
}
