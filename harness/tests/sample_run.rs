//! The first command a newcomer types: its table, what it says the second time, and that it can be
//! interrupted.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
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

fn values(path: &Path, name: &str) -> Vec<f32> {
    let file = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    file[name].flatten_all().unwrap().to_vec1().unwrap()
}

/// The k-NN accuracies of the sample are committed: a change of pixels, encoder, recipe or vote
/// that moves them must be meant.
#[test]
fn the_sample_table_is_the_committed_one_and_the_second_time_nothing_runs() {
    let world = World::new();
    let first = world.run(&["all", "--sample"]);
    assert_eq!(first.status, Some(0), "{}", first.stderr);
    insta::assert_snapshot!("sample_table", first.stdout);

    let written = |world: &World| -> Vec<_> {
        let files = record_folders(world).into_iter().map(|folder| folder.join("record.json"));
        files.map(|file| (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap())).collect()
    };
    let before = written(&world);
    let second = world.run(&["all", "--sample"]);
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
    chance(&world);
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
    let mut banks = 0;
    for bank in fs::read_dir(world.path("cache/features-v1")).unwrap() {
        let bank = bank.unwrap().path();
        let file = |split: &str, n: usize| bank.join(format!("{split}-00000000-{n:08}.safetensors"));
        let train = values(&file("train", train_labels.len()), "features");
        let val = values(&file("val", val_labels.len()), "features");
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
        banks += 1;
    }
    assert_eq!(banks, 2);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130_and_the_same_command_continues_to_the_same_result() {
    let args = ["run", "imagenet1k/knn", "--sample", "--backbone", "random:pixio-nano"];
    let args = [&args[..], &["--batch-size", "4"]].concat();
    let world = World::new();
    let made = world.run(&["data", "sample", "imagenet1k", "--to", "cache/samples-v1"]);
    assert_eq!(made.status, Some(0), "{}", made.stderr);

    let mut child = world.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("protocol sample") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "ended early");
    }
    std::thread::sleep(Duration::from_millis(700));
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    insta::assert_snapshot!("interrupted", rest);
    assert!(world.run(&["runs"]).stdout.contains("unfinished"));

    let continued = world.run(&args);
    assert_eq!(continued.status, Some(0), "{}", continued.stderr);
    assert!(continued.stderr.contains("features are kept"), "{}", continued.stderr);

    let undisturbed = World::new();
    let whole = undisturbed.run(&args);
    assert_eq!(whole.stdout, continued.stdout);
    let features = |world: &World, split: &str| -> Vec<f32> {
        let bank = fs::read_dir(world.path("cache/features-v1")).unwrap().next().unwrap();
        let mut files: Vec<PathBuf> = fs::read_dir(bank.unwrap().path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(split))
            .collect();
        files.sort();
        files.iter().flat_map(|file| values(file, "features")).collect()
    };
    for split in ["train", "val"] {
        assert_eq!(features(&world, split), features(&undisturbed, split), "{split}");
    }
    let rows = |world: &World| fs::read(record_folders(world)[0].join("predictions.parquet")).unwrap();
    assert_eq!(rows(&world), rows(&undisturbed));
}
