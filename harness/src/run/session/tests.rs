//! A device that has no memory for so many images, or is lost; and one that computes beside the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use schema::{RunRecord, TaskHead};
use tasks::data::Registry;
use tasks::files::Files;

use super::*;
use crate::backbone::{BackboneError, Dimensions, Tap, Wanted};
use crate::device::DeviceChoice;
use crate::progress::Verbosity;
use crate::resolve::{Resolver, SourceOptions};
use crate::run::{Cell, Settings};

const FULL: &str = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
const LOST: &str = "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access\")";

/// The golden encoder on a device that has memory for `most` images at a time and `left` passes to live.
struct Weak {
    backbone: Box<dyn Backbone>,
    most: usize,
    left: AtomicUsize,
}

impl Backbone for Weak {
    fn dimensions(&self) -> &Dimensions {
        self.backbone.dimensions()
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> Result<Vec<Tap>, BackboneError> {
        let fails = |text: &str| Err(candle_core::Error::Cuda(text.to_owned().into()).into());
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return fails(LOST);
        }
        if images.dim(0)? > self.most {
            return fails(FULL);
        }
        self.backbone.forward(images, blocks, wanted)
    }
}

struct World {
    folder: tempfile::TempDir,
    resolved: Resolved,
    reporter: Reporter,
}

/// How a request is carried out.
struct Way {
    out: &'static str,
    cells: &'static [(&'static str, &'static str)],
    images: usize,
    most: usize,
    passes: usize,
    beside: bool,
}

const DENSE: &[(&str, &str)] = &[("nyuv2", "linear"), ("nyuv2", "dpt")];
const KNN: &[(&str, &str)] = &[("imagenet1k", "knn")];
const WAY: Way =
    Way { out: "", cells: DENSE, images: 8, most: usize::MAX, passes: usize::MAX, beside: false };

impl World {
    fn new(datasets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for dataset in datasets {
            tasks::sample::write(dataset, &folder.path().join("data")).unwrap();
        }
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let reporter = Reporter::new(Verbosity::Quiet);
        let options = SourceOptions { offline: true, ..SourceOptions::default() };
        let resolved =
            Resolver::new(options, &reporter).unwrap().resolve(golden.to_str().unwrap()).unwrap();
        Self { folder, resolved, reporter }
    }

    fn request(&self, way: &Way) -> Request {
        let settings = Settings {
            protocol: "sample".to_owned(),
            epochs: (way.cells == DENSE).then_some(2),
            limit: Some(if way.cells == DENSE { 8 } else { 30 }),
            ..Settings::default()
        };
        let cell = |&(dataset, head): &(&str, &str)| Cell {
            backbone: self.resolved.source.clone(),
            overrides: Vec::new(),
            task: TaskHead { dataset: dataset.to_owned(), head: head.to_owned() },
            settings: settings.clone(),
        };
        Request {
            cells: way.cells.iter().map(cell).collect(),
            keys: Vec::new(),
            required: Vec::new(),
            data: Vec::new(),
            sample: true,
            out: self.folder.path().join(way.out),
            source: SourceOptions::default(),
            device: DeviceChoice::Cpu,
            dtype: None,
            batch_size: Some(BatchSize::Images(way.images)),
            memory: None,
            workers: Some(2),
            skip_bad_images: true,
            head_weights: None,
            labels: None,
            accepted: Vec::new(),
            kept_bytes: 0,
            pictures: 0,
        }
    }

    fn cache(&self, way: &Way) -> PathBuf {
        self.folder.path().join(format!("cache-{}", way.out))
    }

    fn run(&self, way: &Way) -> Result<Report, RunError> {
        let request = self.request(way);
        let host = Host {
            request: &request,
            device: Device::Cpu,
            uploader: match way.beside {
                true => Uploader::beside(),
                false => Uploader::new(&Device::Cpu).unwrap(),
            },
            dtype: DType::F32,
            store: Store::open(&request.out).unwrap(),
            cache: self.cache(way),
            memory: u64::MAX,
            reporter: &self.reporter,
        };
        let registry = Registry::builtin().unwrap();
        let (mut data, mut planned) = (DataSets::new(), Vec::new());
        let record = self.resolved.record().unwrap();
        for (at, cell) in request.cells.iter().enumerate() {
            let key = DataKey::of(cell);
            let dataset = registry.get(&cell.task.dataset).unwrap();
            let files = Files::folder(&self.folder.path().join("data").join(&cell.task.dataset));
            let opened = data.entry(key.clone()).or_insert_with(|| match cell.task.head.as_str() {
                "knn" => Data::Images(knn::open(dataset, &files, cell.settings.limit, 0).unwrap()),
                _ => {
                    let asked = (&request, &cell.settings);
                    Data::Pairs(dense::open(dataset, &files, asked, &self.reporter).unwrap())
                }
            });
            let plan = match opened {
                Data::Images(data) => knn::plan(&host, cell, &self.resolved, &record, data),
                Data::Pairs(data) => dense::plan(&host, cell, &self.resolved, &record, data),
                Data::Robots(_) => unreachable!(),
            };
            planned.push(Planned { cell: at, backbone: 0, data: key, plan: plan.unwrap() });
        }
        let placement = Placement { device: Device::Cpu, dtype: DType::F32 };
        let backbone = self.resolved.load(&placement).unwrap();
        let weak = Weak { backbone, most: way.most, left: AtomicUsize::new(way.passes) };
        let lazy = Lazy::of(&self.resolved);
        assert!(lazy.loaded.set((Box::new(weak), Duration::ZERO)).is_ok());
        let mut report = Report::default();
        host.carry_out(&lazy, &data, planned, &mut report)?;
        Ok(report)
    }
}

/// What a run came to: its metrics, its curve, and its rows as they are kept.
fn results(records: &[RunRecord]) -> Vec<(String, String, usize)> {
    let one = |record: &RunRecord| {
        let metrics = format!("{:?}", record.outcome.metrics);
        (metrics, format!("{:?}", record.outcome.curve), record.plan.micro_batch)
    };
    records.iter().map(one).collect()
}

/// Every file below a folder whose name ends so, by its path.
fn files(folder: &Path, ends: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ends));
        } else if path.to_str().unwrap().ends_with(ends) {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn what_does_not_fit_is_halved_until_it_does_and_the_record_says_so() {
    let world = World::new(&["nyuv2", "imagenet1k"]);
    for (cells, few, halved) in [(DENSE, "few-dense", "halved-dense"), (KNN, "few", "halved")] {
        let asked = Way { out: few, cells, images: 2, ..WAY };
        let expected = world.run(&asked).unwrap();
        let short = world.run(&Way { out: halved, cells, most: 3, ..WAY }).unwrap();
        assert!(short.failed.is_empty(), "{:?}", short.failed);
        assert_eq!(results(&short.records), results(&expected.records));
        assert!(short.records.iter().all(|record| record.plan.micro_batch == 2));
        // What is continued keeps its size: here there is nothing left to do.
        let again = world.run(&Way { out: halved, cells, most: 3, ..WAY }).unwrap();
        assert_eq!((again.kept, again.records.len()), (cells.len(), cells.len()));
    }
    let none = world.run(&Way { out: "none", most: 0, ..WAY }).unwrap();
    let error = &none.failed[0].error;
    assert!(matches!(error, RunError::OutOfMemory { device, .. } if device == "cpu"), "{error}");
}

#[test]
fn a_run_that_lost_its_device_is_continued_to_the_same_bits() {
    let world = World::new(&["nyuv2"]);
    let whole = world.run(&Way { out: "whole", ..WAY }).unwrap();
    let lost = world.run(&Way { out: "lost", passes: 7, ..WAY }).unwrap_err();
    let RunError::DeviceLost { device, why } = &lost else { panic!("{lost}") };
    assert!(device == "cpu" && why.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{lost}");
    let continued = world.run(&Way { out: "lost", ..WAY }).unwrap();
    assert_eq!(results(&continued.records), results(&whole.records));
    assert_eq!(continued.kept, 0);
}

/// One batch in flight, images as bytes, normalised on the device: the same features under the same
/// names, though images are left out and the device is lost in the midst of it.
#[test]
fn features_made_beside_the_host_are_the_hosts() {
    let world = World::new(&["imagenet1k"]);
    let images = files(&world.folder.path().join("data"), ".JPEG");
    fs::write(images.keys().nth(3).unwrap(), "no image").unwrap();
    let host = world.run(&Way { out: "host", cells: KNN, images: 4, ..WAY }).unwrap();
    let way = || Way { out: "beside", cells: KNN, images: 4, beside: true, ..WAY };
    let lost = world.run(&Way { passes: 3, ..way() }).unwrap_err();
    assert!(matches!(lost, RunError::DeviceLost { .. }), "{lost}");
    let beside = world.run(&way()).unwrap();
    assert_eq!(results(&beside.records), results(&host.records));
    let skipped = &host.records[0].outcome.skipped_images;
    assert_eq!(&beside.records[0].outcome.skipped_images, skipped);
    let shards = |out| {
        let folder = world.cache(&Way { out, ..WAY });
        let found = files(&folder, ".safetensors").into_iter();
        found.map(move |(path, bytes)| (path.strip_prefix(&folder).unwrap().to_owned(), bytes))
    };
    let (expected, found): (Vec<_>, Vec<_>) =
        (shards("host").collect(), shards("beside").collect());
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}
