//! What must hold of a stream: a probe ends as if it had been alone, whatever its company, wherever
//! it was stopped, however many threads work, and whether or not validation features are kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use results::Store;
use schema::{DenseProtocol, HeadStage, Protocol, RunPlan, SampleRows, Stages, TaskHead};
use tasks::data::Registry;
use tasks::dense::PairedSet;

use super::train::{Stream, run};
use super::{Cache, Opened, protocol};
use crate::backbone::{Backbone, BackboneError, Dimensions, Placement, Tap, Wanted};
use crate::progress::{Reporter, Verbosity};
use crate::resolve::{Resolved, Resolver, SourceOptions};
use crate::run::Settings;
use crate::upload::Uploader;

const DEVICE: Device = Device::Cpu;
const EPOCHS: usize = 3;

/// Sample NYUv2, the golden encoder, and plans for both.
struct World {
    folder: tempfile::TempDir,
    data: Opened,
    resolved: Resolved,
    uploader: Uploader,
    reporter: Reporter,
}

/// The golden encoder, which fails after some passes.
struct Failing<'a> {
    backbone: &'a dyn Backbone,
    left: AtomicUsize,
}

impl Backbone for Failing<'_> {
    fn dimensions(&self) -> &Dimensions {
        self.backbone.dimensions()
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> Result<Vec<Tap>, BackboneError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(BackboneError::NoTokens("a failing encoder".to_owned()));
        }
        self.backbone.forward(images, blocks, wanted)
    }
}

/// One probe's outcome: its rows and curve or its error, and every file of its folder.
#[derive(Debug, PartialEq)]
struct Ended {
    result: Result<(String, SampleRows), String>,
    files: BTreeMap<String, Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = tasks::sample::write("nyuv2", folder.path()).unwrap();
        let registry = Registry::builtin().unwrap();
        let dataset = registry.get("nyuv2").unwrap().clone();
        let whole = PairedSet::open(&dataset, &root).unwrap();
        let form = whole.target_form(&dataset, None).unwrap();
        let record = schema::DataRecord {
            name: "nyuv2".to_owned(),
            root: root.display().to_string(),
            fingerprint: whole.fingerprint(),
            splits: BTreeMap::new(),
            classes: 0,
            labels: None,
            sample: true,
            container: None,
            accepted: Vec::new(),
        };
        let set = PairedSet { train: whole.train.take(8, 0), val: whole.val.take(3, 0) };
        let data = Opened {
            dataset,
            set,
            limit: Some(8),
            form,
            record,
            notes: Vec::new(),
            stream_seed: 0,
        };
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let reporter = Reporter::new(Verbosity::Quiet);
        let options = SourceOptions { offline: true, ..SourceOptions::default() };
        let resolver = Resolver::new(options, &reporter).unwrap();
        let resolved = resolver.resolve(golden.to_str().unwrap()).unwrap();
        let uploader = Uploader::new(&DEVICE).unwrap();
        Self { folder, data, resolved, uploader, reporter }
    }

    fn backbone(&self, dtype: DType) -> Box<dyn Backbone> {
        self.resolved.load(&Placement { device: DEVICE, dtype }).unwrap()
    }

    /// A short schedule, validated after every epoch.
    fn plan(
        &self,
        head: &str,
        seed: u64,
        dtype: DType,
        change: &dyn Fn(&mut DenseProtocol),
    ) -> RunPlan {
        let backbone = self.resolved.record().unwrap();
        let changes =
            Settings { protocol: "sample".to_owned(), epochs: Some(EPOCHS), ..Settings::default() };
        let asked = protocol::Asked {
            dataset: &self.data.dataset,
            head,
            backbone: &backbone,
            dimensions: &self.resolved.dimensions(),
            preparation: &self.resolved.preparation,
            recipe: &self.resolved.recipe,
            dtype: dtype.as_str(),
            limit: Some(8),
        };
        let (name, mut stages) = protocol::protocol(&asked, &changes).unwrap();
        stages.evaluation.every = 1;
        change(&mut stages);
        let protocol = Protocol { name, stages: Stages::Dense(stages) };
        RunPlan {
            task: TaskHead { dataset: "nyuv2".to_owned(), head: head.to_owned() },
            backbone,
            protocol_fingerprint: protocol.fingerprint(),
            protocol,
            data: self.data.record.clone(),
            seed,
            stream_seed: None,
            skip_bad_images: false,
            head_weights: None,
            micro_batch: 3,
        }
    }

    /// Four probes with taps and rates of their own; the third one's rate is beyond any float.
    fn four(&self) -> Vec<RunPlan> {
        let tapped = |blocks: &'static [usize], rate: f64| {
            move |protocol: &mut DenseProtocol| {
                protocol.feature.blocks = blocks.to_vec();
                protocol.training.learning_rate = rate;
            }
        };
        vec![
            self.plan("linear", 0, DType::F32, &tapped(&[3], 2e-3)),
            self.plan("dpt", 1, DType::F32, &tapped(&[0, 1, 2, 3], 1e-3)),
            self.plan("linear", 2, DType::F32, &tapped(&[1], 3e38)),
            self.plan("linear", 3, DType::F32, &tapped(&[2], 5e-4)),
        ]
    }

    fn stream<'a>(&'a self, backbone: &'a dyn Backbone, dtype: DType, limit: u64) -> Stream<'a> {
        Stream {
            backbone,
            device: &DEVICE,
            uploader: &self.uploader,
            dtype,
            data: &self.data,
            micro_batch: 3,
            workers: 2,
            head_weights: None,
            cache: Cache { folder: self.folder.path(), limit },
            pictures: 2,
            reporter: &self.reporter,
        }
    }

    fn run(&self, stream: &Stream<'_>, out: &str, plans: &[RunPlan]) -> Vec<Ended> {
        let store = Store::open(&self.out(out)).unwrap();
        let dirs: Vec<_> = plans.iter().map(|plan| store.begin(plan).unwrap()).collect();
        let probes: Vec<_> = plans
            .iter()
            .zip(&dirs)
            .map(|(plan, dir)| match &plan.protocol.stages {
                Stages::Dense(protocol) => (plan, protocol, dir),
                Stages::Knn(_) | Stages::Policy(_) => unreachable!(),
            })
            .collect();
        let results = run(stream, &probes);
        let ended = results.into_iter().zip(&dirs).map(|(result, dir)| Ended {
            result: match result {
                Ok(trained) => Ok((format!("{:?}", trained.curve), trained.rows)),
                Err(error) => Err(error.to_string()),
            },
            files: files(dir.folder()),
        });
        ended.collect()
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Every file of a run folder but its plan, without times.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let inner = files(&path).into_iter();
            found.extend(inner.map(|(inside, bytes)| (format!("{name}/{inside}"), bytes)));
        } else if name.starts_with("checkpoint-") && name.ends_with(".json") {
            let mut progress: serde_json::Value =
                serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            progress.as_object_mut().unwrap().remove("spent").unwrap();
            found.insert(name, progress.to_string().into_bytes());
        } else if name != "plan.json" {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn four_probes_share_a_stream_as_if_alone_though_one_diverges_and_one_resumes() {
    let world = World::new();
    let backbone = world.backbone(DType::F32);
    let plans = world.four();
    let stream = world.stream(&*backbone, DType::F32, 0);
    let alone: Vec<Ended> = plans
        .iter()
        .flat_map(|plan| world.run(&stream, "alone", std::slice::from_ref(plan)))
        .collect();
    let diverged = alone[2].result.as_ref().unwrap_err();
    assert!(diverged.contains("rgb_") && diverged.contains("the batch was"), "{diverged}");
    for place in [0, 1, 3] {
        assert!(alone[place].result.is_ok(), "{:?}", alone[place].result);
        let names: Vec<&String> = alone[place].files.keys().collect();
        let wanted = ["best.safetensors", "head.safetensors", "predictions-best.parquet"];
        assert!(wanted.iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
        assert_eq!(names.iter().filter(|name| name.starts_with("checkpoint-")).count(), 4);
    }

    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = format!("shared-{threads}");
        let shared = pool.install(|| {
            // The last probe is well into its second epoch when its company arrives.
            let left = AtomicUsize::new(13);
            let failing = Failing { backbone: &*backbone, left };
            let stream = Stream { workers: threads, ..world.stream(&failing, DType::F32, 0) };
            let stopped = world.run(&stream, &out, &plans[3..]);
            assert!(stopped[0].result.as_ref().unwrap_err().contains("failing"));
            let stream = Stream { workers: threads, ..world.stream(&*backbone, DType::F32, 0) };
            world.run(&stream, &out, &plans)
        });
        for (shared, alone) in shared.iter().zip(&alone) {
            assert_eq!(shared.result, alone.result);
            assert_eq!(
                shared.files.keys().collect::<Vec<_>>(),
                alone.files.keys().collect::<Vec<_>>()
            );
            for (name, bytes) in &shared.files {
                assert!(*bytes == alone.files[name], "{threads} threads: {name} differs");
            }
        }
    }
}

/// The path of a device beside the host, taken on the CPU: losses are looked at once an epoch, when all
/// steps of one that diverged are taken, images travel as bytes, windows are merged there.
#[test]
fn a_device_beside_the_host_comes_to_the_same() {
    let world = World::new();
    let backbone = world.backbone(DType::F32);
    let plans = world.four();
    let host = world.run(&world.stream(&*backbone, DType::F32, 1 << 30), "host", &plans);
    fs::remove_dir_all(world.out("windows-v2")).unwrap();
    let beside = Uploader::beside();
    let stream = Stream { uploader: &beside, ..world.stream(&*backbone, DType::F32, 1 << 30) };
    assert_eq!(world.run(&stream, "beside", &plans), host);
    assert!(
        host[2].result.as_ref().unwrap_err().contains("step 1: the loss is NaN"),
        "{:?}",
        host[2].result
    );
    // With windows encoded once and read from disk; and stopped in an epoch, with steps not looked at.
    assert!(bytes(&world.out("windows-v2")) > 0);
    let failing = Failing { backbone: &*backbone, left: AtomicUsize::new(13) };
    let failing = Stream { uploader: &beside, ..world.stream(&failing, DType::F32, 0) };
    let stopped = world.run(&failing, "resumed", &plans[3..]);
    assert!(stopped[0].result.as_ref().unwrap_err().contains("failing"));
    let resumed = world.run(&stream, "resumed", &plans[3..]);
    assert_eq!(resumed[0], host[3]);
}

#[test]
fn kept_validation_features_change_nothing() {
    let world = World::new();
    for dtype in [DType::F32, DType::BF16] {
        let backbone = world.backbone(dtype);
        let same = |_: &mut DenseProtocol| {};
        let plans = vec![world.plan("linear", 0, dtype, &same), world.plan("dpt", 0, dtype, &same)];
        let windows = world.out("windows-v2");
        let validated = |out: &str, limit: u64| {
            let began = bytes(&windows);
            let counting = Failing { backbone: &*backbone, left: AtomicUsize::new(usize::MAX) };
            let stream = world.stream(&counting, dtype, limit);
            let ended = world.run(&stream, &format!("{out}-{}", dtype.as_str()), &plans);
            (ended, usize::MAX - counting.left.into_inner(), bytes(&windows) - began)
        };
        let (encoded, every, none) = validated("encoded", 0);
        let (kept, once, grown) = validated("kept", 1 << 30);
        let (again, never, still) = validated("again", 1 << 30);
        fs::remove_dir_all(&windows).unwrap();
        let (part, some, few) = validated("part", grown / 2);
        for other in [&kept, &part, &again] {
            assert!(encoded == *other);
        }
        assert!(encoded.iter().all(|ended| ended.result.is_ok()));
        // Two of three validations are read, then all three.
        assert_eq!((every - never) * 2, (every - once) * 3, "{every} {once} {never} passes");
        assert!(once < some && some < every, "{once} {some} {every} passes");
        assert!(none == 0 && still == 0, "{none} {still} bytes");
        assert!(few > 0 && few <= grown / 2 + 1000, "{few} of {grown} bytes");
    }
}

fn bytes(folder: &Path) -> u64 {
    if !folder.is_dir() {
        return 0;
    }
    files(folder).values().map(|bytes| bytes.len() as u64).sum()
}

#[test]
fn what_a_linear_head_reads_is_kept_whole_and_the_rest_as_a_dpt_rounds_it() {
    let world = World::new();
    let backbone = world.backbone(DType::BF16);
    let same = |_: &mut DenseProtocol| {};
    let of = |heads: &[&str]| {
        let plans = heads.iter().map(|head| world.plan(head, 0, DType::BF16, &same));
        let protocols: Vec<DenseProtocol> = plans
            .filter_map(|plan| match plan.protocol.stages {
                Stages::Dense(protocol) => Some(protocol),
                Stages::Knn(_) | Stages::Policy(_) => None,
            })
            .collect();
        assert!(matches!(protocols[0].head, HeadStage::Dpt { .. } | HeadStage::Linear { .. }));
        super::features::Encoder::of(&*backbone, DType::BF16, 3, protocols.iter()).blocks
    };
    let (half, full) = (DType::BF16, DType::F32);
    assert_eq!(of(&["dpt"]), BTreeMap::from([(1, half), (3, half), (5, half), (7, half)]));
    assert_eq!(
        of(&["linear", "dpt"]),
        BTreeMap::from([(1, half), (3, half), (5, half), (7, full)])
    );
    assert_eq!(of(&["linear"]), BTreeMap::from([(7, full)]));
}
