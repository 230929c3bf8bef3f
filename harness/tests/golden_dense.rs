//! Dense heads on the real encoder against what the authors' code computes: training steps crop by
//! crop, and whole validation runs through the command line.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{World, golden as golden_folder};
use heads::dense::{Expected, HeadKind, Probe, Targets, assemble, encode, from_tensors};
use pixio_eval::backbone::{Backbone, Placement, Wanted};
use pixio_eval::progress::{Reporter, Verbosity};
use pixio_eval::resolve::{Resolver, SourceOptions};
use schema::{IMAGENET_MEAN, IMAGENET_STD, Objective, SampleStage, TrainingStage};
use serde_json::Value;
use tasks::data::Registry;
use tasks::dense::{Draw, PairedSet, Target, TargetForm, load, normalise_into, train_sample};

const DEVICE: Device = Device::Cpu;

struct Golden {
    json: Value,
    tensors: BTreeMap<String, Tensor>,
    encoder: Box<dyn Backbone>,
}

fn read() -> Golden {
    let json =
        serde_json::from_slice(&fs::read(golden_folder().join("dense.json")).unwrap()).unwrap();
    let tensors =
        candle_core::safetensors::load(golden_folder().join("dense.safetensors"), &DEVICE);
    let reporter = Reporter::new(Verbosity::Quiet);
    let options = SourceOptions { offline: true, ..SourceOptions::default() };
    let resolver = Resolver::new(options, &reporter).unwrap();
    let resolved = resolver.resolve(golden_folder().to_str().unwrap()).unwrap();
    let encoder = resolved.load(&Placement { device: DEVICE, dtype: DType::F32 }).unwrap();
    Golden { json, tensors: tensors.unwrap().into_iter().collect(), encoder }
}

/// One data set and head of the golden data.
struct Case<'a> {
    golden: &'a Golden,
    set: &'a str,
    head: &'a str,
    pairs: PairedSet,
    form: TargetForm,
    objective: Objective,
    stage: SampleStage,
}

impl<'a> Case<'a> {
    fn new(golden: &'a Golden, set: &'a str, head: &'a str) -> Self {
        let registry = Registry::builtin().unwrap();
        let dataset = registry.get(set).unwrap();
        let pairs = PairedSet::open(dataset, &golden_folder().join(set)).unwrap();
        let form = pairs.target_form(dataset, None).unwrap();
        let objective = match &dataset.depth {
            Some(depth) => Objective::Depth { min: depth.min_metres, max: depth.max_metres },
            None => Objective::Segmentation { classes: dataset.classes.unwrap(), ignore: 255 },
        };
        let stage = SampleStage {
            revision: 1,
            border: (set == "nyuv2").then_some([45, 471, 41, 601]),
            scale: None,
            crop: 256,
            flip: 0.5,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        };
        Self { golden, set, head, pairs, form, objective, stage }
    }

    fn results(&self) -> &'a Value {
        &self.golden.json[self.set][self.head]
    }

    fn blocks(&self) -> &'static [usize] {
        if self.head == "linear" { &[7] } else { &[1, 3, 5, 7] }
    }

    /// Tensors under `SET.HEAD.KIND.`, without the prefix.
    fn weights(&self, kind: &str) -> BTreeMap<String, Tensor> {
        let prefix = format!("{}.{}.{kind}.", self.set, self.head);
        let named = self.golden.tensors.iter();
        named.filter_map(|(k, t)| Some((k.strip_prefix(&prefix)?.to_owned(), t.clone()))).collect()
    }

    fn probe(&self, kind: &str, steps: u64, groups: usize) -> Probe {
        let head = if self.head == "linear" { HeadKind::Linear } else { HeadKind::Dpt };
        let outputs = heads::dense::outputs(&self.objective);
        let expected = Expected { kind: head, width: 192, outputs };
        let head = from_tensors(Path::new(kind), self.weights(kind), expected, DType::F32, &DEVICE);
        let depth = matches!(self.objective, Objective::Depth { .. });
        let training = TrainingStage {
            revision: 1,
            epochs: 1,
            groups,
            group_size: 2,
            learning_rate: if self.head == "linear" { 2e-4 } else { 1e-4 },
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            eps: 1e-8,
            warmup: if depth { 0.4 } else { 0.0 },
            power: 0.9,
        };
        Probe::new(head.unwrap(), self.objective.clone(), &training, steps).unwrap()
    }

    fn batch(&self, crops: &Value) -> (Vec<Vec<f32>>, Targets) {
        let number = |crop: &Value, key: &str| crop[key].as_u64().map(|n| n as usize);
        let mut images = Vec::new();
        let (mut metres, mut labels) = (Vec::new(), Vec::<u8>::new());
        for crop in crops.as_array().unwrap() {
            let pair = &self.pairs.train.pairs()[number(crop, "index").unwrap()];
            let files = self.pairs.train.files();
            let (image, target) = load(files, pair, self.stage.border, self.form).unwrap();
            let draw = Draw {
                top: number(crop, "top").unwrap(),
                left: number(crop, "left").unwrap(),
                flip: crop["flip"].as_bool().unwrap(),
                long_side: number(crop, "long_side"),
            };
            let (image, target) =
                train_sample(files.root(), image.view(), &target, &draw, &self.stage).unwrap();
            images.push(self.normalised(&image));
            match target {
                Target::Depth(map) => metres.extend(map),
                Target::Labels(map) => labels.extend(map),
            }
        }
        let shape = [images.len(), 256, 256];
        let targets = match self.objective {
            Objective::Depth { .. } => {
                Targets::depth(Tensor::from_vec(metres, shape.to_vec(), &DEVICE).unwrap())
            }
            Objective::Segmentation { .. } => Targets::labels(labels, shape),
        };
        (images, targets)
    }

    fn normalised(&self, image: &ndarray::Array3<u8>) -> Vec<f32> {
        let mut pixels = vec![0f32; image.len()];
        normalise_into(image.view(), self.form, &self.stage, &mut pixels);
        pixels
    }

    fn taps(&self, images: Vec<Vec<f32>>) -> Vec<Tensor> {
        let shape = (images.len(), 3, 256, 256);
        let images = Tensor::from_vec(images.concat(), shape, &DEVICE).unwrap();
        let wanted = Wanted { patches_norm: true, summary_norm: true, ..Wanted::default() };
        let taps = self.golden.encoder.forward(&images, self.blocks(), wanted).unwrap();
        let input = |tap: &pixio_eval::backbone::Tap| {
            assemble(tap.patches_norm.as_ref().unwrap(), tap.summary_norm.as_ref(), (16, 16))
        };
        taps.iter().map(|tap| input(tap).unwrap()).collect()
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()))
}

fn close(found: f64, expected: f64, relative: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1e-12);
    assert!(error <= relative, "{what}: {found} instead of {expected} ({error:.1e})");
}

const CASES: [(&str, &str); 6] = [
    ("nyuv2", "linear"),
    ("nyuv2", "dpt"),
    ("kitti", "linear"),
    ("kitti", "dpt"),
    ("ade20k", "linear"),
    ("ade20k", "dpt"),
];

#[test]
fn the_initial_head_predicts_what_the_authors_head_does() {
    let golden = read();
    for (set, head) in CASES.into_iter().filter(|(set, _)| *set != "ade20k") {
        let case = Case::new(&golden, set, head);
        let pair = &case.pairs.val.pairs()[0];
        let (image, target) =
            load(case.pairs.val.files(), pair, case.stage.border, case.form).unwrap();
        let draw = Draw { top: 10, left: 20, flip: false, long_side: None };
        let (image, _) =
            train_sample(Path::new(""), image.view(), &target, &draw, &case.stage).unwrap();
        let taps = case.taps(vec![case.normalised(&image)]);
        let predicted = flat(&case.probe("init", 5, 1).predict(&taps, (256, 256)).unwrap());
        let Objective::Depth { max, .. } = case.objective else { panic!() };
        let expected: Vec<f32> = flat(&golden.tensors[&format!("{set}.{head}.forward0")]);
        let predicted: Vec<f32> = predicted.iter().map(|x| x / max as f32).collect();
        let error = furthest(&predicted, &expected);
        println!("{set}/{head} forward0: {error:.1e}");
        assert!(error <= 1e-5, "{set}/{head}: {error:e}");
    }
}

#[test]
fn five_training_steps_are_the_authors_steps() {
    let golden = read();
    for (set, head) in CASES {
        let case = Case::new(&golden, set, head);
        let mut probe = case.probe("init", 5, 1);
        let results = case.results();
        let mut rates = 0.0;
        for (step, crops) in golden.json[set]["crops"].as_array().unwrap().iter().enumerate() {
            let (images, targets) = case.batch(crops);
            let report = probe.train_step(&case.taps(images), &targets).unwrap();
            let what = format!("{set}/{head} step {step}");
            let number = |key: &str| results[key][step].as_f64();
            assert_eq!(report.rate, number("lr_used").unwrap(), "{what}");
            close(report.loss.unwrap(), number("losses").unwrap(), 1e-4, &what);
            if let Some(norm) = number("grad_norms") {
                close(report.grad_norm.unwrap(), norm, 1e-3, &what);
            }
            rates += report.rate;
        }
        weights(&case, &probe, rates as f32);
    }
}

/// The golden data's rule: all but 0.1% of elements within 1e-4 of the tensor's scale, the rest within
/// twice the sum of the rates (Adam turns rounding noise into steps of about the rate).
fn weights(case: &Case<'_>, probe: &Probe, rates: f32) {
    let expected = case.weights("final");
    let found = probe.head().tensors().unwrap();
    let (mut elements, mut off) = (0, 0);
    for (name, expected) in expected.iter().filter(|(name, _)| !name.contains("num_batches")) {
        let (found, expected) = (flat(&found[name]), flat(expected));
        let scale = expected.iter().fold(0f32, |m, x| m.max(x.abs())).max(1e-6);
        let what = format!("{}/{} {name}", case.set, case.head);
        for (a, b) in found.iter().zip(&expected) {
            let error = (a - b).abs();
            elements += 1;
            off += usize::from(error > 1e-4 * scale);
            assert!(error <= (2.0 * rates).max(1e-4 * scale), "{what}: {a} instead of {b}");
        }
    }
    println!("{}/{}: {off} of {elements} weights beyond 1e-4", case.set, case.head);
    assert!(off * 1000 <= elements, "{off} of {elements}");
}

#[test]
fn the_loss_over_groups_is_the_mean_of_theirs() {
    let golden = read();
    let case = Case::new(&golden, "nyuv2", "linear");
    let grouped = &golden.json["grouped"];
    let (images, targets) = case.batch(&grouped["crops"]);
    let taps = case.taps(images);
    let strip = |name: &str| golden.tensors[&format!("grouped.init.{name}")].clone();
    let names: Vec<String> = case.weights("init").into_keys().collect();
    let tensors = names.iter().map(|name| (name.clone(), strip(name))).collect();
    let expected = Expected { kind: HeadKind::Linear, width: 192, outputs: 1 };
    let head = from_tensors(Path::new("grouped"), tensors, expected, DType::F32, &DEVICE).unwrap();
    let forward = head.forward(&taps, true).unwrap();
    let logits = forward.logits.clone();
    let whole = heads::dense::loss(&logits, &targets, &case.objective, 4).unwrap();
    let value = whole.value.clone().unwrap();
    close(
        f64::from(value.to_scalar::<f32>().unwrap()),
        grouped["loss"].as_f64().unwrap(),
        1e-5,
        "loss",
    );
    // Each group's own, and what is not to be: one loss over the whole batch.
    let number = |value: &Value| value.as_f64().unwrap();
    for (group, expected) in grouped["group_losses"].as_array().unwrap().iter().enumerate() {
        let crops = grouped["crops"].as_array().unwrap()[2 * group..][..2].to_vec();
        let (_, targets) = case.batch(&Value::Array(crops));
        let logits = logits.narrow(0, 2 * group, 2).unwrap();
        let loss = heads::dense::loss(&logits, &targets, &case.objective, 1).unwrap();
        let loss = loss.value.unwrap().to_scalar::<f32>().unwrap();
        close(f64::from(loss), number(expected), 1e-5, &format!("group {group}"));
    }
    let pooled = heads::dense::loss(&logits, &targets, &case.objective, 1).unwrap();
    let pooled = pooled.value.unwrap().to_scalar::<f32>().unwrap();
    close(f64::from(pooled), number(&grouped["pooled_loss"]), 1e-5, "pooled");
    let gradients = forward.gradients(&whole.gradient(1.0).unwrap().unwrap()).unwrap();
    let squares = head.parameters().iter().map(|parameter| {
        let gradient = flat(gradients.of(&parameter.var).unwrap());
        gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
    });
    let norm = squares.sum::<f64>().sqrt();
    close(norm, number(&grouped["grad_norm"]), 1e-3, "gradient norm");
    let weight = head.parameters().iter().find(|p| p.name == "1.weight").unwrap();
    let found = flat(gradients.of(&weight.var).unwrap());
    // The stored gradient is one 32-bit run, 6e-5 of its scale from the 64-bit value; ours has to be
    // near both.
    let exact = common::values(&golden_folder().join("grouped64.safetensors"), "grad.1.weight");
    let stored = flat(&golden.tensors["grouped.grad.1.weight"]);
    let scale = stored.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (expected, bound) in [(exact, 1e-5), (stored, 1e-4)] {
        let error = furthest(&found, &expected) / scale;
        println!("grouped gradient: {error:.1e}");
        assert!(error <= bound, "{error:e}");
    }
}

/// Runs a saved head on the golden validation images through the command line.
fn validate(
    world: &World,
    case: &Case<'_>,
    kind: &str,
) -> (BTreeMap<String, f64>, schema::SampleRows) {
    let file = world.path("head.safetensors");
    let tensors = case.weights(kind);
    fs::write(&file, encode(&tensors).unwrap()).unwrap();
    let cell = format!("{}/{}", case.set, case.head);
    let data = format!("{}={}", case.set, golden_folder().join(case.set).display());
    let (file, backbone) = (file.to_str().unwrap().to_owned(), golden_folder());
    let backbone = backbone.to_str().unwrap();
    let args = ["run", &cell, "--backbone", backbone, "--data", &data, "--head-weights", &file];
    let out = world.path("out");
    let more = ["--epochs", "0", "--pictures", "0", "--json", "--out", out.to_str().unwrap()];
    let ran = world.run(&[&args[..], &more].concat());
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let value =
        |row: &Value| (row["metric"].as_str().unwrap().to_owned(), row["value"].as_f64().unwrap());
    let metrics = rows.iter().map(value).collect();
    let runs = fs::read_dir(out.join(case.set).join(case.head)).unwrap();
    let newest = runs
        .map(|run| run.unwrap().path())
        .max_by_key(|run| fs::metadata(run.join("record.json")).unwrap().modified().unwrap());
    let rows = results::read_rows(&newest.unwrap().join("predictions.parquet")).unwrap();
    (metrics, rows)
}

#[test]
fn depth_metrics_of_the_trained_head_are_the_authors_image_by_image() {
    let golden = read();
    let world = World::new();
    for (set, head) in CASES.into_iter().filter(|(set, _)| *set != "ade20k") {
        let case = Case::new(&golden, set, head);
        let (metrics, rows) = validate(&world, &case, "final");
        let schema::SampleRows::Depth(rows) = rows else { panic!() };
        let images = case.results()["per_image"].as_array().unwrap();
        assert_eq!(rows.len(), images.len());
        let theirs = |name: &str| match name.strip_prefix("delta") {
            Some(power) => (format!("d{power}"), 100.0),
            None => (name.to_owned(), 1.0),
        };
        for (row, image) in rows.iter().zip(images) {
            for (name, found) in row.metrics.unwrap().named() {
                let (key, scale) = theirs(name);
                let expected = scale * image[&key].as_f64().unwrap();
                close(found, expected, 1e-3, &format!("{set}/{head} {} {name}", row.path));
            }
        }
        for (name, found) in metrics {
            let (key, scale) = theirs(&name);
            let expected = scale * case.results()["mean"][&key].as_f64().unwrap();
            close(found, expected, 1e-3, &format!("{set}/{head} {name}"));
        }
    }
}

#[test]
fn segmentation_counts_are_the_authors_within_the_pixels_that_differ() {
    let golden = read();
    let world = World::new();
    let initial = fs::read(golden_folder().join("initial/scores.json")).unwrap();
    let initial: Value = serde_json::from_slice(&initial).unwrap();
    for head in ["linear", "dpt"] {
        let case = Case::new(&golden, "ade20k", head);
        let kinds = [
            ("init", &initial[head]),
            ("final", case.results()),
            ("fitted", &case.results()["fitted"]),
        ];
        for (kind, results) in kinds {
            let (metrics, rows) = validate(&world, &case, kind);
            let schema::SampleRows::Segmentation(rows) = rows else { panic!() };
            let sum = |pick: &dyn Fn(&schema::SegmentationRow) -> &Vec<u64>| -> Vec<i64> {
                (0..150).map(|c| rows.iter().map(|r| pick(r)[c] as i64).sum()).collect()
            };
            let (both, predicted, target) =
                (sum(&|r| &r.intersection), sum(&|r| &r.predicted), sum(&|r| &r.target));
            let pixels: i64 = target.iter().sum();
            let theirs = |key: &str| -> Vec<i64> {
                let values = results[key].as_array().unwrap();
                values.iter().map(|v| v.as_f64().unwrap() as i64).collect()
            };
            let (their_both, their_union) = (theirs("intersection"), theirs("union"));
            // A pixel that differs moves at most one intersection and two unions.
            let off =
                |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<i64>();
            let union: Vec<i64> = (0..150).map(|c| predicted[c] + target[c] - both[c]).collect();
            let (moved, moved_union) = (off(&both, &their_both), off(&union, &their_union));
            println!("ade20k/{head} {kind}: {moved} and {moved_union} of {pixels} pixels");
            assert!(moved <= pixels / 1000 && moved_union <= 2 * pixels / 1000);
            let iou = |both: i64, union: i64| both as f64 / (union as f64 + 1e-6) * 100.0;
            let explained = (0..150)
                .map(|c| {
                    (iou(both[c], union[c]) - iou(their_both[c], their_union[c])).abs() / 150.0
                })
                .sum::<f64>();
            let miou = results["miou"].as_f64().unwrap();
            let off = (metrics["miou"] - miou).abs();
            assert!(off <= explained + 1e-6 * miou, "{head} {kind}: {off:e}, {explained:e}");
        }
    }
}
