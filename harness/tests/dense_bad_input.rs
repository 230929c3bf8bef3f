//! What a user of depth and segmentation runs sees when data, heads, numbers or checkpoints are wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use common::{Ran, World, golden};
use heads::dense::{Architecture, HeadConfig, encode, initialise};
use png::{BitDepth, ColorType};
use schema::{DepthRow, SampleRows};
use serde_json::Value;

/// A world with samples of some data sets and the golden encoder.
fn world(sets: &[&str]) -> World {
    let world = World::new();
    let made = world.run(&[&["data", "sample"], sets, &["--to", "samples"]].concat());
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    let mini = world.path("mini");
    fs::create_dir(&mini).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden().join(file), mini.join(file)).unwrap();
    }
    world
}

/// The golden encoder on the samples in this world, one epoch of two steps if nothing else is said.
fn run_with(world: &World, cells: &[&str], backbone: &str, more: &[&str]) -> Ran {
    let args = args(world, cells, backbone, more);
    world.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn run(world: &World, cells: &[&str], more: &[&str]) -> Ran {
    run_with(world, cells, "mini", more)
}

fn args(world: &World, cells: &[&str], backbone: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec!["run".to_owned()];
    args.extend(cells.iter().map(ToString::to_string));
    for entry in fs::read_dir(world.path("samples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        args.extend(["--data".to_owned(), format!("{name}=samples/{name}")]);
    }
    let rest = ["--backbone", backbone, "--protocol", "sample", "--pictures", "0"];
    let epochs = if more.contains(&"--epochs") { &[][..] } else { &["--epochs", "1"] };
    args.extend([&rest, epochs, more].concat().into_iter().map(str::to_owned));
    args
}

/// Exit status and stderr as one text, without hashes; nothing may have gone to stdout.
fn seen(ran: &Ran) -> String {
    assert_eq!(ran.stdout, "", "an error must not print data");
    without_hashes(&format!("exit {}\n{}", ran.status.unwrap(), ran.stderr))
}

fn without_hashes(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_hex) {
        let run = rest[start..].find(|c| !is_hex(c)).unwrap_or(rest.len() - start);
        out += &rest[..start];
        let hex = &rest[start..start + run];
        out += if run == 12 && hex.contains(|c: char| c.is_ascii_digit()) { "HASH" } else { hex };
        rest = &rest[start + run..];
    }
    out + rest
}

fn good(ran: &Ran) {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

/// Image and target of a sample, as paths.
fn pair(world: &World, set: &str, split: &str, index: usize) -> (PathBuf, PathBuf) {
    let root = world.path("samples").join(set);
    let list = fs::read_to_string(root.join(format!("{split}.txt"))).unwrap();
    let (image, target) = list.lines().nth(index).unwrap().split_once(' ').unwrap();
    (root.join(image), root.join(target))
}

fn samples(world: &World, set: &str, split: &str) -> usize {
    let list = world.path("samples").join(set).join(format!("{split}.txt"));
    fs::read_to_string(list).unwrap().lines().count()
}

fn write_png(
    path: &Path,
    (width, height): (u32, u32),
    (color, depth): (ColorType, BitDepth),
    bytes: &[u8],
) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
}

const GREY: (ColorType, BitDepth) = (ColorType::Grayscale, BitDepth::Eight);
const RGB: (ColorType, BitDepth) = (ColorType::Rgb, BitDepth::Eight);
const DEPTH: (ColorType, BitDepth) = (ColorType::Grayscale, BitDepth::Sixteen);
const NYUV2: (u32, u32) = (640, 480);

fn without_measurement(target: &Path, (width, height): (u32, u32)) {
    write_png(target, (width, height), DEPTH, &vec![0; 2 * (width * height) as usize]);
}

/// The folders of a cell's runs.
fn folders(world: &World, cell: &str) -> Vec<PathBuf> {
    let runs = fs::read_dir(world.path("runs").join(cell));
    let mut folders: Vec<PathBuf> =
        runs.into_iter().flatten().map(|run| run.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The record of the only finished run of a cell.
fn record(world: &World, cell: &str) -> Value {
    let records = folders(world, cell).into_iter().map(|run| run.join("record.json"));
    let records: Vec<PathBuf> = records.filter(|record| record.is_file()).collect();
    assert_eq!(records.len(), 1, "{records:?}");
    serde_json::from_slice(&fs::read(&records[0]).unwrap()).unwrap()
}

#[test]
fn depth_maps_of_another_kind_or_size() {
    let world = world(&["nyuv2"]);
    let (_, target) = pair(&world, "nyuv2", "train", 3);
    let whole = fs::read(&target).unwrap();
    write_png(&target, NYUV2, GREY, &vec![9; 640 * 480]);
    insta::assert_snapshot!("depth_of_8_bits", seen(&run(&world, &["nyuv2/linear"], &[])));
    without_measurement(&target, (480, 640));
    insta::assert_snapshot!("depth_of_another_size", seen(&run(&world, &["nyuv2/linear"], &[])));
    fs::write(&target, whole).unwrap();

    let (_, target) = pair(&world, "nyuv2", "val", 1);
    without_measurement(&target, (641, 480));
    let ran = run(&world, &["nyuv2/linear"], &[]);
    insta::assert_snapshot!("depth_of_another_size_in_val", seen(&ran));
}

#[test]
fn training_depth_without_a_measurement_trains_nothing_and_says_so() {
    let world = world(&["nyuv2"]);
    for index in 0..samples(&world, "nyuv2", "train") {
        without_measurement(&pair(&world, "nyuv2", "train", index).1, NYUV2);
    }
    let cells = ["nyuv2/linear", "nyuv2/dpt"];
    let ran = run(&world, &cells, &[]);
    good(&ran);
    for cell in cells {
        let record = record(&world, cell);
        let line = &record["outcome"]["curve"][0];
        // Two steps of two groups.
        assert_eq!((&line["loss"], &line["skipped_groups"]), (&Value::Null, &4.into()), "{cell}");
        assert!(line["metrics"]["rmse"].as_f64().unwrap().is_finite());
        let said = record["outcome"]["warnings"][0].as_str().unwrap();
        insta::allow_duplicates!(
            insta::assert_snapshot!(said, @"no training batch has a valid pixel: the head was not trained")
        );
        assert!(ran.stdout.contains(said), "{}", ran.stdout);
    }
}

#[test]
fn validation_depth_without_a_measurement_does_not_count() {
    let world = world(&["nyuv2"]);
    without_measurement(&pair(&world, "nyuv2", "val", 2).1, NYUV2);
    let ran = run(&world, &["nyuv2/linear"], &["--epochs", "2"]);
    good(&ran);
    let record = record(&world, "nyuv2/linear");
    let file = folders(&world, "nyuv2/linear")[0].join("predictions.parquet");
    let SampleRows::Depth(rows) = results::read_rows(&file).unwrap() else { panic!() };
    assert_eq!(rows.len(), samples(&world, "nyuv2", "val"));
    let counted: Vec<&DepthRow> = rows.iter().filter(|row| row.metrics.is_some()).collect();
    assert_eq!((counted.len(), rows[2].metrics.is_none()), (rows.len() - 1, true));
    let mean = counted.iter().map(|row| row.metrics.unwrap().rmse).sum::<f64>() / 3.0;
    let metrics = record["outcome"]["metrics"].as_array().unwrap();
    let last = |metric: &&Value| metric["name"] == "rmse" && metric["selection"] == "last";
    let found = metrics.iter().find(last).unwrap()["value"].as_f64().unwrap();
    assert!((found - mean).abs() <= 1e-12 * mean, "{found} instead of {mean}");
    insta::assert_snapshot!(record["outcome"]["warnings"][0].as_str().unwrap(), @"validation images with too few valid pixels, not counted: 1 of 4");
    assert!(ran.stdout.contains("not counted: 1 of 4"), "{}", ran.stdout);

    for index in 0..samples(&world, "nyuv2", "val") {
        without_measurement(&pair(&world, "nyuv2", "val", index).1, NYUV2);
    }
    insta::assert_snapshot!("nothing_valid", seen(&run(&world, &["nyuv2/linear"], &[])));
}

#[test]
fn labels_outside_the_classes() {
    let world = world(&["voc2012"]);
    let (_, mask) = pair(&world, "voc2012", "val", 0);
    let labels = tasks::image::decode_mask(&mask).unwrap();
    let size = (labels.ncols() as u32, labels.nrows() as u32);
    let mut labels = labels.into_raw_vec_and_offset().0;
    labels[2 * size.0 as usize + 7] = 21;
    write_png(&mask, size, GREY, &labels);
    let ran = run(&world, &["voc2012/linear"], &[]);
    insta::assert_snapshot!("label_outside_the_classes", seen(&ran));
}

#[test]
fn images_smaller_than_the_crop_are_padded_with_labels_and_refused_with_depth() {
    let world = world(&["voc2012", "kitti", "nyuv2"]);
    let small = (90, 70);
    let shrink = |set: &str, split: &str, kind| {
        let (image, target) = pair(&world, set, split, 1);
        let pixels = (small.0 * small.1) as usize;
        write_png(&image, small, RGB, &vec![77; 3 * pixels]);
        let deep = kind == DEPTH;
        write_png(&target, small, kind, &vec![3; if deep { 2 * pixels } else { pixels }]);
    };
    shrink("voc2012", "train", GREY);
    shrink("voc2012", "val", GREY);
    good(&run(&world, &["voc2012/linear", "voc2012/dpt"], &[]));
    // A window over the edge of a validation image is padded whatever the task.
    shrink("kitti", "val", DEPTH);
    good(&run(&world, &["kitti/linear"], &[]));
    shrink("kitti", "train", DEPTH);
    let ran = run(&world, &["kitti/linear"], &["--seed", "1"]);
    insta::assert_snapshot!("depth_smaller_than_the_crop", seen(&ran));
    shrink("nyuv2", "train", DEPTH);
    let ran = run(&world, &["nyuv2/linear"], &[]);
    insta::assert_snapshot!("depth_smaller_than_its_border", seen(&ran));
}

#[test]
fn a_missing_image_or_mask() {
    let world = world(&["voc2012"]);
    let (image, mask) = pair(&world, "voc2012", "train", 2);
    let kept = fs::read(&mask).unwrap();
    fs::remove_file(&mask).unwrap();
    insta::assert_snapshot!("missing_mask", seen(&run(&world, &["voc2012/linear"], &[])));
    fs::write(&mask, kept).unwrap();
    fs::remove_file(&image).unwrap();
    insta::assert_snapshot!("missing_image", seen(&run(&world, &["voc2012/linear"], &[])));
}

/// Writes a head of a width and outputs, with every drawn weight at its bound.
fn write_head(path: &Path, architecture: Architecture, width: usize, change: f32) {
    let config = HeadConfig { architecture, width, outputs: 1 };
    let head = initialise(&config, DType::F32, &Device::Cpu, &mut |_, _| 0.75).unwrap();
    let mut tensors = head.tensors().unwrap();
    let name = if architecture == Architecture::Linear { "1.bias" } else { "projects.0.bias" };
    let bias = tensors.get_mut(name).unwrap();
    *bias = Tensor::full(change, bias.shape(), &Device::Cpu).unwrap();
    fs::write(path, encode(&tensors).unwrap()).unwrap();
}

#[test]
fn heads_of_another_width() {
    let world = world(&["nyuv2"]);
    let dpt = Architecture::Dpt { channels: [16, 32, 64, 64], features: 16 };
    for (cell, architecture) in [("nyuv2/linear", Architecture::Linear), ("nyuv2/dpt", dpt)] {
        let given = |width| {
            write_head(&world.path("head.safetensors"), architecture, width, 0.0);
            let head = ["--head-weights", "head.safetensors", "--epochs", "0"];
            run(&world, &[cell], &head)
        };
        let name = format!("{}_of_another_width", cell.replace('/', "_"));
        insta::assert_snapshot!(name, seen(&given(384)));
        good(&given(192));
    }
}

#[test]
fn a_head_that_is_not_finite() {
    let world = world(&["nyuv2"]);
    write_head(&world.path("head.safetensors"), Architecture::Linear, 192, f32::NAN);
    let head = |epochs| ["--head-weights", "head.safetensors", "--epochs", epochs];
    for (name, epochs) in [("training_a_head_of_nan", "1"), ("evaluating_a_head_of_nan", "0")] {
        let ran = run(&world, &["nyuv2/linear"], &head(epochs));
        insta::assert_snapshot!(name, seen(&ran));
    }
    assert!(world.run(&["runs"]).stdout.contains("failed"));
}

/// An encoder whose features are finite, but too large for the sums of a batch norm.
#[test]
fn a_loss_that_is_not_finite_stops_its_probe_and_no_other() {
    let world = world(&["nyuv2"]);
    let file = world.path("mini/model.safetensors");
    let mut tensors: BTreeMap<String, Tensor> =
        candle_core::safetensors::load(&file, &Device::Cpu).unwrap().into_iter().collect();
    let scale = tensors.get_mut("layernorm.weight").unwrap();
    *scale = (&*scale * 1e36).unwrap();
    fs::write(&file, encode(&tensors).unwrap()).unwrap();

    let cells = ["nyuv2/linear", "nyuv2/dpt"];
    let ran = run(&world, &cells, &["--epochs", "2", "--json"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    insta::assert_snapshot!("a_loss_that_is_not_finite", without_hashes(&ran.stderr));
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["head"] == "dpt"), "{}", ran.stdout);
    assert_eq!(record(&world, "nyuv2/dpt")["outcome"]["curve"].as_array().unwrap().len(), 2);

    // The failure is noted in the run's folder, with the batch's files, all in the training list.
    let folder = folders(&world, "nyuv2/linear").remove(0);
    let said = fs::read_to_string(folder.join("failed.txt")).unwrap();
    let list = fs::read_to_string(world.path("samples/nyuv2/train.txt")).unwrap();
    let images = list.lines().map(|line| line.split_once(' ').unwrap().0);
    assert_eq!(images.filter(|image| said.contains(image)).count(), 4, "{said}");
    assert!(!folder.join("record.json").exists());

    // Again: what is done stays, what failed is tried again and fails with the same words.
    let again = run(&world, &cells, &["--epochs", "2", "--json"]);
    assert_eq!((again.status, &again.stdout), (Some(1), &ran.stdout), "{}", again.stderr);
    assert!(again.stderr.contains("nyuv2/dpt mini: already done"), "{}", again.stderr);
    let error = |ran: &Ran| {
        ran.stderr.lines().find(|line| line.starts_with("error")).map(str::to_owned).unwrap()
    };
    assert_eq!(error(&again), error(&ran));
}

/// A run that was killed with a checkpoint: its folder and its checkpoint's files by name.
fn killed(world: &World, backbone: &str, more: &[&str]) -> (PathBuf, BTreeMap<String, Vec<u8>>) {
    let before = folders(world, "nyuv2/linear");
    let args = args(world, &["nyuv2/linear"], backbone, more);
    let mut command = world.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let found = loop {
        let new = folders(world, "nyuv2/linear").into_iter().find(|run| !before.contains(run));
        if let Some(run) = new.filter(|run| checkpoints(run).keys().any(|n| n.ends_with("json"))) {
            break run;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!found.join("record.json").exists(), "the run was done before it was killed");
    let files = checkpoints(&found);
    (found, files)
}

/// The files of a run's checkpoints, by name. Those that vanish meanwhile are left out.
fn checkpoints(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(run).into_iter().flatten().map(|file| file.unwrap().path());
    files
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            name.starts_with("checkpoint-").then(|| Some((name, fs::read(&path).ok()?)))?
        })
        .collect()
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    const EPOCHS: [&str; 2] = ["--epochs", "12"];
    let world = world(&["nyuv2"]);
    let (folder, own) = killed(&world, "mini", &EPOCHS);
    let others = [
        ("protocol", killed(&world, "mini", &["--epochs", "13"]).1),
        ("backbone", killed(&world, "random:pixio-nano", &EPOCHS).1),
        ("seed", killed(&world, "mini", &[&EPOCHS[..], &["--seed", "1"]].concat()).1),
    ];
    let clear = || {
        for name in checkpoints(&folder).keys() {
            fs::remove_file(folder.join(name)).unwrap();
        }
    };
    let place = |files: &BTreeMap<String, Vec<u8>>| {
        clear();
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).unwrap();
        }
    };
    let steps = |text: &str| {
        // Which step a kill came after is chance.
        let (start, end) = text.split_once("checkpoint-").unwrap();
        format!("{start}checkpoint-STEP{}", &end[8..])
    };
    for (what, files) in &others {
        place(files);
        let ran = run(&world, &["nyuv2/linear"], &EPOCHS);
        insta::allow_duplicates!(insta::assert_snapshot!(
            "checkpoint_of_another_run",
            steps(&seen(&ran))
        ));
        assert!(checkpoints(&folder) == *files, "the checkpoint of another {what} was touched");
        assert!(!folder.join("record.json").exists(), "{what}");
    }
    place(&own);
    let ran = run(&world, &["nyuv2/linear"], &EPOCHS);
    good(&ran);
    assert!(ran.stderr.contains("continues at step"), "{}", ran.stderr);
}

/// Rewrites every mask of the ADE20K sample.
fn relabel(world: &World, change: impl Fn(&str, usize, u8) -> u8) {
    for split in ["train", "val"] {
        for index in 0..samples(world, "ade20k", split) {
            let (_, mask) = pair(world, "ade20k", split, index);
            let labels = tasks::image::decode_mask(&mask).unwrap();
            let size = (labels.ncols() as u32, labels.nrows() as u32);
            let labels: Vec<u8> = labels.iter().map(|&x| change(split, index, x)).collect();
            write_png(&mask, size, GREY, &labels);
        }
    }
}

#[test]
fn the_form_of_labels_is_asked_for_where_the_masks_do_not_tell() {
    let world = world(&["ade20k"]);
    let cell = ["ade20k/linear"];
    let neutral = |label: u8| if label == 0 || label > 149 { 120 } else { label };
    relabel(&world, |split, index, label| match (split, index, neutral(label)) {
        ("train", 1, 120) => 255,
        ("train", 2, 120) => 150,
        (_, _, label) => label,
    });
    // What lies overhead tells which labels are off by one; accepted, the files that contradict are named.
    let run = |more: &[&str]| {
        let accepted =
            ["--accept-data", "unshifted-labels", "--accept-data", "twice-shifted-labels"];
        run(&world, &cell, &[&accepted[..], more].concat())
    };
    insta::assert_snapshot!("labels_of_both_forms", seen(&run(&[])));
    // Then one of them is wrong, and is named.
    let ran = run(&["--labels", "original"]);
    insta::assert_snapshot!("labels_that_are_not_original", seen(&ran));
    let ran = run(&["--labels", "shifted"]);
    insta::assert_snapshot!("labels_that_are_not_shifted", seen(&ran));

    relabel(&world, |_, _, label| neutral(label));
    insta::assert_snapshot!("labels_of_neither_form", seen(&run(&[])));
    for form in ["original", "shifted"] {
        good(&run(&["--labels", form]));
    }
    // They are different data: two results.
    let records = folders(&world, "ade20k/linear").into_iter().map(|run| run.join("record.json"));
    let records = records.filter_map(|file| fs::read(file).ok());
    let mut forms: Vec<String> = records
        .map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap())
        .map(|record| record["plan"]["data"]["labels"].as_str().unwrap().to_owned())
        .collect();
    forms.sort();
    assert_eq!(forms, ["original", "shifted"]);
}

#[test]
fn a_set_without_an_original_form_has_none() {
    let world = world(&["voc2012"]);
    let ran = run(&world, &["voc2012/linear"], &["--labels", "original"]);
    insta::assert_snapshot!("no_original_form", seen(&ran));
}
