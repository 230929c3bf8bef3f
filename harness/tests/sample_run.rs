//! The first command a newcomer types: its table, what it says the second time, and that it can be
//! interrupted.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use common::World;
use heads::knn::{Features, Knn};
use schema::VoteStage;

fn record_folders(world: &World) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(world.path("runs/imagenet1k/knn"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    folders
}

/// The k-NN accuracies of the sample are committed: a change of pixels, encoder, recipe or vote
/// that moves them must be meant.
#[test]
fn the_sample_table_is_the_committed_one_and_the_second_time_nothing_runs() {
    let world = World::new();
    let first = world.run(&["all", "--sample", "--tasks", "imagenet1k"]);
    assert_eq!(first.status, Some(0), "{}", first.stderr);
    insta::assert_snapshot!("sample_table", first.stdout);

    let written = |world: &World| -> Vec<_> {
        let files = record_folders(world).into_iter().map(|folder| folder.join("record.json"));
        files
            .map(|file| {
                (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap())
            })
            .collect()
    };
    let before = written(&world);
    let second = world.run(&["all", "--sample", "--tasks", "imagenet1k"]);
    assert_eq!((second.status, &second.stdout), (Some(0), &first.stdout));
    insta::assert_snapshot!("sample_second_time", second.stderr);
    assert_eq!(written(&world), before);

    // The same runs, in every other way to see them.
    assert_eq!(world.run(&["table"]).stdout, first.stdout);
    insta::assert_snapshot!("sample_table_md", world.run(&["table", "--format", "md"]).stdout);
    let csv = world.run(&["table", "--format", "csv"]).stdout;
    assert_eq!(csv.lines().count(), 1 + 2 * 8, "{csv}");
    let parquet = world.run(&["table", "--format", "parquet", "--output", "table.parquet"]);
    assert_eq!(parquet.status, Some(0), "{}", parquet.stderr);
    assert!(fs::read(world.path("table.parquet")).unwrap().starts_with(b"PAR1"));
    assert!(csv.lines().skip(1).any(|row| !row.contains(",,")), "no interval: {csv}");
    let compared = world.run(&["compare", "random:pixio-nano", "pixels"]);
    assert_eq!(compared.status, Some(0), "{}", compared.stderr);
    insta::assert_snapshot!("sample_compare", compared.stdout);
    chance(&world);
}

/// The whole of `all --sample`: every cell gives a result. Training on another processor may end a
/// little elsewhere, so these numbers are compared with the committed ones, not spelled out.
#[test]
fn every_cell_of_the_sample_gives_its_committed_result() {
    let world = World::new();
    let ran = world.run(&["all", "--sample", "--json"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&ran.stdout).unwrap();
    let mut cells = std::collections::BTreeMap::new();
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        let metric = text("metric");
        if text("backbone") != "pixels" && text("selection") == "last" && !metric.contains('/') {
            let name = format!("{}/{} {metric}", text("dataset"), text("head"));
            cells.insert(name, row["value"].as_f64().unwrap());
        }
    }
    let committed: std::collections::BTreeMap<String, f64> =
        serde_json::from_str(include_str!("golden/sample.json")).unwrap();
    if std::env::var_os("PIXIO_EVAL_WRITE_SAMPLE").is_some() {
        let file = common::golden().join("sample.json");
        fs::write(file, serde_json::to_string_pretty(&cells).unwrap() + "\n").unwrap();
        return;
    }
    assert_eq!(cells.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>());
    for (name, found) in &cells {
        let expected = committed[name];
        let allowed = 0.3 + 0.02 * expected.abs();
        assert!((found - expected).abs() <= allowed, "{name}: {found} instead of {expected}");
    }
}

/// With shuffled train labels the k-NN is chance: the mean over shuffles lies within three standard
/// errors of 1/8. Uses the features the run above has kept.
fn chance(world: &World) {
    let labels = |split: &str| -> Vec<u32> {
        let root = world.path("cache/samples-v1/imagenet1k");
        let data = tasks::data::ImageFolder::open(&root, split).unwrap();
        data.samples().iter().map(|sample| sample.target).collect()
    };
    let (train_labels, val_labels) = (labels("train"), labels("val"));
    let vote = VoteStage { revision: 1, k: vec![10], temperature: 0.07 };
    let banks: Vec<_> =
        world.kept_features("train").into_iter().zip(world.kept_features("val")).collect();
    assert_eq!(banks.len(), 2);
    for (train, val) in banks {
        let dim = train.len() / train_labels.len();
        let top1 = |labels: &[u32]| {
            let knn = Knn::new(Features::new(&train, dim).unwrap(), labels, 8).unwrap();
            let queries = Features::new(&val, dim).unwrap();
            let mut go_on = |_| ControlFlow::Continue(());
            knn.predict(queries, &val_labels, &vote, &mut go_on).unwrap().accuracy[0].top1
        };
        let shuffles: Vec<f64> = (0..200)
            .map(|seed| {
                let order = tasks::random::shuffled(seed, "labels", train_labels.len());
                top1(&order.iter().map(|&i| train_labels[i]).collect::<Vec<_>>())
            })
            .collect();
        let n = shuffles.len() as f64;
        let mean = shuffles.iter().sum::<f64>() / n;
        let variance = shuffles.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let error = (variance / n).sqrt();
        println!("shuffled labels: {mean:.2} +- {error:.2}, chance 12.5");
        assert!((mean - 12.5).abs() <= 3.0 * error, "{mean} +- {error}");
        assert!(error < 1.0 && top1(&train_labels) != mean);
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130_and_the_same_command_continues_to_the_same_result() {
    let world = World::new();
    let args = SLOW;
    let mut command = world.command(&args);
    // One thread, so that the run is still going when its first shard is there.
    command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while !world.path("cache/features-v2").exists() || world.kept_features("train")[0].is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = world.plain(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    insta::assert_snapshot!("interrupted", stderr);
    assert!(world.run(&["runs"]).stdout.contains("unfinished"));

    let continued = world.run(&args);
    assert_eq!(continued.status, Some(0), "{}", continued.stderr);
    assert!(continued.stderr.contains("features are kept"), "{}", continued.stderr);
    same(&world, &undisturbed(), &continued.stdout);
}

/// The sample with an encoder that takes a few seconds.
const SLOW: [&str; 5] = ["run", "imagenet1k/knn", "--sample", "--backbone", "random:pixio-nano"];

fn undisturbed() -> (World, String) {
    let world = World::new();
    let ran = world.run(&SLOW);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    (world, ran.stdout)
}

/// Table, features and per-sample rows are those of the undisturbed run, bit for bit.
fn same(world: &World, (whole, stdout): &(World, String), found: &str) {
    assert_eq!(found, stdout);
    for split in ["train", "val"] {
        assert_eq!(world.kept_features(split), whole.kept_features(split), "{split}");
    }
    let rows = |world: &World| fs::read(record_folders(world)[0].join("predictions.parquet"));
    assert_eq!(rows(world).unwrap(), rows(whole).unwrap());
}

#[test]
fn two_processes_on_one_run_and_a_damaged_shard_change_nothing() {
    let world = World::new();
    let spawn = || {
        let mut command = world.command(&SLOW);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // The sample data first, so that the two meet in the bank and not before it.
    world.run(&["data", "sample", "imagenet1k", "--to", "cache/samples-v1"]);
    let (first, second) = (spawn(), spawn());
    let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
    for output in [&first, &second] {
        assert_eq!(output.status.code(), Some(0), "{}", world.plain(&output.stderr));
    }
    let whole = undisturbed();
    same(&world, &whole, &world.plain(&first.stdout));
    same(&world, &whole, &world.plain(&second.stdout));

    // A shard cut short, another gone, the record lost: all of it is made again.
    let bank = fs::read_dir(world.path("cache/features-v2")).unwrap().next().unwrap().unwrap();
    let shard = |start: usize, end: usize| {
        bank.path().join(format!("train-{start:08}-{end:08}.safetensors"))
    };
    let bytes = fs::read(shard(16, 32)).unwrap();
    fs::write(shard(16, 32), &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(shard(64, 80)).unwrap();
    fs::remove_file(record_folders(&world)[0].join("predictions.parquet")).unwrap();
    let again = world.run(&SLOW);
    assert_eq!(again.status, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("train: 160 of 192 features are kept"), "{}", again.stderr);
    assert!(again.stderr.contains("encoding these images again"), "{}", again.stderr);
    same(&world, &whole, &again.stdout);
}
