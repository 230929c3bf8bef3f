//! Whole validation images of the golden data through the code that runs validate with, beside what
//! the authors' code predicts for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use heads::dense::{Expected, HeadKind, Probe, from_tensors, outputs};
use ndarray::Array2;
use schema::{DenseProtocol, SampleRows};
use serde_json::Value;
use tasks::data::Registry;
use tasks::dense::{PairedSet, Target};
use tasks::image::decode_mask;

use super::evaluate::Validator;
use super::features::Encoder;
use super::score::Validation;
use super::windows::Windows;
use super::{Opened, protocol};
use crate::backbone::Placement;
use crate::progress::{Reporter, Verbosity};
use crate::resolve::{Resolver, SourceOptions};
use crate::run::Settings;
use crate::upload::Uploader;

const DEVICE: Device = Device::Cpu;
const HEADS: [&str; 2] = ["linear", "dpt"];
/// Windows that are encoded together.
const MICRO_BATCH: usize = 8;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

struct Golden {
    json: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read() -> Self {
        let json = std::fs::read(folder().join("dense.json")).unwrap();
        let tensors =
            candle_core::safetensors::load(folder().join("dense.safetensors"), &DEVICE).unwrap();
        Self {
            json: serde_json::from_slice(&json).unwrap(),
            tensors: tensors.into_iter().collect(),
        }
    }

    fn probe(&self, set: &str, head: &str, kind: &str, protocol: &DenseProtocol) -> Probe {
        let prefix = format!("{set}.{head}.{kind}.");
        let named = self.tensors.iter();
        let weights =
            named.filter_map(|(k, t)| Some((k.strip_prefix(&prefix)?.to_owned(), t.clone())));
        let kind = if head == "linear" { HeadKind::Linear } else { HeadKind::Dpt };
        let expected = Expected { kind, width: 192, outputs: outputs(&protocol.objective) };
        let head =
            from_tensors(Path::new(&prefix), weights.collect(), expected, DType::F32, &DEVICE);
        Probe::new(head.unwrap(), protocol.objective.clone(), &protocol.training, 1).unwrap()
    }

    /// Validates the first image of a set with both heads at each of `kinds`, all in one pass: by head,
    /// then by kind. With the number of windows of every image.
    fn validate(
        &self,
        set: &str,
        kinds: &[&str],
        uploader: &Uploader,
    ) -> (Vec<Validation>, Vec<usize>) {
        let data = opened(set);
        let reporter = Reporter::new(Verbosity::Quiet);
        let options = SourceOptions { offline: true, ..SourceOptions::default() };
        let resolver = Resolver::new(options, &reporter).unwrap();
        let resolved = resolver.resolve(folder().to_str().unwrap()).unwrap();
        let record = resolved.record().unwrap();
        let backbone = resolved.load(&Placement { device: DEVICE, dtype: DType::F32 }).unwrap();
        let protocols = HEADS.map(|head| {
            let changes =
                Settings { protocol: "pixio".to_owned(), epochs: Some(0), ..Settings::default() };
            let asked = protocol::Asked {
                dataset: &data.dataset,
                head,
                backbone: &record,
                dimensions: &resolved.dimensions(),
                preparation: &resolved.preparation,
                recipe: &resolved.recipe,
                dtype: "f32",
                limit: None,
            };
            protocol::protocol(&asked, &changes).unwrap().1
        });
        let cells = HEADS.iter().zip(&protocols);
        let probes: Vec<(Probe, &DenseProtocol)> = cells
            .flat_map(|(head, protocol)| kinds.iter().map(move |kind| (head, *kind, protocol)))
            .map(|(head, kind, protocol)| (self.probe(set, head, kind, protocol), protocol))
            .collect();
        let (sample, evaluation) = (&protocols[0].sample, &protocols[0].evaluation);
        let mut windows = Windows::of(&data, sample, evaluation, MICRO_BATCH).unwrap();
        let images = data.set.val.pairs().len();
        let counts = (0..images).map(|image| windows.at(image).len()).collect();
        assert_eq!(windows.passes[0], 0..1);
        windows.passes.truncate(1);
        let validator = Validator {
            data: &data,
            windows: &windows,
            kept: None,
            pictured: &[0],
            workers: 2,
            uploader,
            reporter: &reporter,
        };
        let encoder = Encoder::of(&*backbone, DType::F32, MICRO_BATCH, protocols.iter());
        let probes: Vec<_> = probes.iter().map(|(probe, protocol)| (probe, *protocol)).collect();
        let found = validator.validate(&encoder, &probes).unwrap();
        (found.into_iter().map(Result::unwrap).collect(), counts)
    }
}

fn host() -> Uploader {
    Uploader::new(&DEVICE).unwrap()
}

/// Whether the path of a device beside the host came to the same: metrics, rows and maps, to the bit.
fn alike(host: &[Validation], beside: &[Validation]) -> bool {
    let same = |(a, b): (&Validation, &Validation)| {
        a.rows == b.rows
            && a.maps == b.maps
            && format!("{:?}", a.metrics) == format!("{:?}", b.metrics)
    };
    host.len() == beside.len() && host.iter().zip(beside).all(same)
}

fn opened(set: &str) -> Opened {
    let registry = Registry::builtin().unwrap();
    let dataset = registry.get(set).unwrap().clone();
    let root = folder().join(set);
    let set = PairedSet::open(&dataset, &root).unwrap();
    let form = set.target_form(&dataset, None).unwrap();
    let record = schema::DataRecord {
        name: dataset.name.clone(),
        root: root.display().to_string(),
        fingerprint: set.fingerprint(),
        splits: BTreeMap::new(),
        classes: dataset.classes.unwrap_or(0),
        labels: None,
        sample: false,
        container: None,
        accepted: Vec::new(),
    };
    Opened { dataset, set, limit: None, form, record, notes: Vec::new(), stream_seed: 0 }
}

#[test]
fn depth_by_sliding_window_is_the_authors_to_a_millimetre() {
    let golden = Golden::read();
    for set in ["nyuv2", "kitti"] {
        let (validations, windows) = golden.validate(set, &["final"], &host());
        let (beside, _) = golden.validate(set, &["final"], &Uploader::beside());
        assert!(alike(&validations, &beside), "{set}");
        for (head, validation) in HEADS.into_iter().zip(&validations) {
            let Some(Target::Depth(map)) = validation.maps.get(&0) else { panic!("{set}/{head}") };
            let expected = &golden.tensors[&format!("{set}.{head}.val0.prediction_sub8")];
            let expected = expected.to_vec2::<f32>().unwrap();
            let (height, width) = map.dim();
            let grid = (height.div_ceil(8), width.div_ceil(8));
            assert_eq!(grid, (expected.len(), expected[0].len()), "{set}/{head}");
            let mut furthest = 0f32;
            for (row, line) in expected.iter().enumerate() {
                for (column, metres) in line.iter().enumerate() {
                    let error = (map[[8 * row, 8 * column]] - metres).abs();
                    // Not max(): it would pass over a NaN.
                    assert!(error <= 1e-3, "{set}/{head} {row}, {column}: {error} m off");
                    furthest = furthest.max(error);
                }
            }
            println!("{set}/{head}: {furthest:.1e} m");

            let results = &golden.json[set][head];
            let images = results["per_image"].as_array().unwrap();
            assert_eq!(windows.len(), images.len());
            let mean = windows.iter().sum::<usize>() as f64 / windows.len() as f64;
            assert_eq!(results["mean"]["windows"].as_f64(), Some(mean), "{set}/{head}");
        }
    }
}

#[test]
fn labels_by_sliding_window_are_the_authors() {
    let golden = Golden::read();
    let kinds = ["init", "final", "fitted"];
    let (validations, _) = golden.validate("ade20k", &kinds, &host());
    let (beside, _) = golden.validate("ade20k", &kinds[1..2], &Uploader::beside());
    assert!(alike(&validations[1..2], &beside[..1]) && alike(&validations[4..5], &beside[1..]));
    let cells = HEADS.iter().flat_map(|head| kinds.map(|kind| (head, kind)));
    for ((head, kind), validation) in cells.zip(&validations) {
        let what = format!("ade20k/{head} {kind}");
        let Some(Target::Labels(map)) = validation.maps.get(&0) else { panic!("{what}") };
        let expected = match kind {
            "init" => decode_mask(&folder().join(format!("initial/{head}.png"))).unwrap(),
            _ => {
                let name = if kind == "final" { "labels" } else { "labels_fitted" };
                let stored = &golden.tensors[&format!("ade20k.{head}.val0.{name}")];
                let labels = stored.flatten_all().unwrap().to_vec1().unwrap();
                Array2::from_shape_vec(stored.dims2().unwrap(), labels).unwrap()
            }
        };
        assert_eq!(map.dim(), expected.dim(), "{what}");
        let differ = map.iter().zip(&expected).filter(|(a, b)| a != b).count();
        println!("{what}: {differ} of {} pixels differ", map.len());
        assert!(differ * 1000 <= map.len(), "{what}: {differ} of {} differ", map.len());
        // A map of one class would agree by chance.
        let classes = expected.iter().collect::<BTreeSet<_>>().len();
        assert!(classes > 1, "{what}: {classes}");

        // The counted pixels are those of the map.
        let SampleRows::Segmentation(rows) = &validation.rows else { panic!("{what}") };
        let pixels = |counts: &[u64]| counts.iter().sum::<u64>();
        assert_eq!(pixels(&rows[0].predicted), pixels(&rows[0].target), "{what}");
    }
}
