//! k-NN on ImageNet-1K (PROTOCOL section 2): plan it, extract features, search, vote.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::Device;
use heads::knn::{Features, Knn, KnnError};
use schema::{
    BackboneRecord, DataRecord, FeatureStage, Fingerprint, KnnProtocol, MetricValue, PredictionRow,
    Protocol, RunPlan, SampleRows, Selection, Stages, VoteStage,
};
use tasks::data::{Dataset, ImageFolder, ImageNet, Sample};
use tasks::files::Files;

use super::cell::{Cell, Settings};
use super::embed::{self, Embedder};
use super::extract::{self, Extracted, Extraction, Load};
use super::memory::{BatchSize, EncoderSize};
use super::outline::Work;
use super::session::{Host, Lazy, Measured};
use super::{RunError, set};
use crate::backbone::Dimensions;
use crate::cache::{Bank, BankKey};
use crate::device;
use crate::interrupt;
use crate::progress::Reporter;
use crate::resolve::Resolved;

/// Numbers of neighbours of the published protocol.
const PUBLISHED_K: [usize; 4] = [10, 20, 100, 200];
/// Numbers of neighbours on the generated sample data, which has fewer than 200 train images.
const SAMPLE_K: [usize; 4] = [1, 5, 10, 20];
const PUBLISHED_TEMPERATURE: f64 = 0.07;
/// Name of the protocol of the generated sample data.
pub(super) const SAMPLE: &str = "sample";

/// Resolves the protocol for one backbone on one copy of the data.
pub(super) fn plan(
    host: &Host<'_>,
    cell: &Cell,
    resolved: &Resolved,
    backbone: &BackboneRecord,
    data: &Opened,
) -> Result<RunPlan, RunError> {
    let (request, (dtype, standard_dtype)) = (host.request, host.dtypes());
    let settings = &cell.settings;
    let mut name = settings.protocol.clone();
    let vote = vote(settings, data, &mut name, host.reporter)?;
    if request.dtype.is_some_and(|asked| asked.as_str() != standard_dtype) {
        name.push_str(&format!("+dtype={dtype}"));
    }
    if let Some(limit) = data.limit {
        name.push_str(&format!("+limit={limit}"));
    }
    if request.skip_bad_images {
        name.push_str("+skip-bad-images");
    }
    name.push_str(&resolved.departures);
    let (image, feature, departs) = embed::stages(resolved, backbone, dtype, settings)?;
    name.push_str(&departs);
    let stages = Stages::Knn(KnnProtocol { image, feature, vote, limit: data.limit });
    let (stages, departs) = set::apply_with(stages, [None; 2], [""; 2], &settings.set)?;
    name.push_str(&departs);
    if let Stages::Knn(protocol) = &stages {
        heads::knn::check_vote(&protocol.vote, data.images.train.samples().len())?;
    }
    let protocol = Protocol { name, stages };
    let micro_batch = match host.batch_size() {
        BatchSize::Images(images) => images,
        BatchSize::Auto => {
            let dimensions = resolved.dimensions();
            let side = resolved.preparation.resolution;
            EncoderSize::of(backbone, &dimensions, side, host.dtype).images(host.memory)
        }
    };
    Ok(RunPlan {
        task: cell.task.clone(),
        backbone: backbone.clone(),
        protocol_fingerprint: protocol.fingerprint(),
        protocol,
        data: data.record.clone(),
        seed: settings.seed,
        stream_seed: settings.stream_seed,
        skip_bad_images: request.skip_bad_images,
        head_weights: None,
        micro_batch,
    })
}

/// The vote stage; a list asked for must fit the train set, the protocol's own list is cut to it.
fn vote(
    request: &Settings,
    data: &Opened,
    name: &mut String,
    reporter: &Reporter,
) -> Result<VoteStage, RunError> {
    let train = data.images.train.samples().len();
    let standard = if request.protocol == SAMPLE { SAMPLE_K } else { PUBLISHED_K };
    let too_large =
        |k| RunError::KTooLarge { k, train, folder: data.images.train.root().to_path_buf() };
    let mut k = request.k.clone();
    k.sort_unstable();
    k.dedup();
    if let Some(&largest) = k.last().filter(|&&k| k > train) {
        return Err(too_large(largest));
    }
    if k.is_empty() {
        k = standard.into_iter().filter(|&k| k <= train).collect();
        let cut: Vec<String> =
            standard.iter().filter(|&&k| k > train).map(usize::to_string).collect();
        if k.is_empty() {
            return Err(too_large(standard[0]));
        }
        if !cut.is_empty() {
            let left_out = cut.join(", ");
            reporter.warn(format!("k = {left_out} left out: the train set has {train} samples"));
        }
    }
    let list: Vec<String> = k.iter().map(usize::to_string).collect();
    if k != standard {
        name.push_str(&format!("+k={}", list.join(",")));
    }
    let temperature = request.temperature.unwrap_or(PUBLISHED_TEMPERATURE);
    if temperature != PUBLISHED_TEMPERATURE {
        name.push_str(&format!("+temperature={temperature}"));
    }
    Ok(VoteStage { revision: 1, k, temperature })
}

/// The key of the features this run needs.
fn bank_key(plan: &RunPlan, protocol: &KnnProtocol, device: &Device) -> BankKey {
    BankKey {
        backbone: plan.backbone.identity.clone(),
        image: protocol.image.clone(),
        feature: protocol.feature.clone(),
        data: plan.data.fingerprint.clone(),
        part: protocol.limit.map(|limit| (limit, plan.stream_seed())),
        device: device::kind(device).to_owned(),
        micro_batch: plan.micro_batch,
        raw: false,
    }
}

/// What runs whose vectors can be made in one pass of the encoder have in common.
pub(super) fn stream(plan: &RunPlan) -> Option<Fingerprint> {
    let Stages::Knn(protocol) = &plan.protocol.stages else { return None };
    let part = protocol.limit.map(|limit| (limit, plan.stream_seed()));
    let data = (&plan.data.name, &plan.data.fingerprint, part);
    let encoder = (&plan.backbone.identity, &protocol.image, &protocol.feature.dtype);
    Some(schema::fingerprint(&(data, encoder, plan.micro_batch, plan.skip_bad_images)))
}

/// What a run reads and searches, for planning.
pub(super) fn work(data: &Opened) -> Work {
    let split = |split: &ImageFolder| split.samples().len() as u64;
    let (train, val) = (split(&data.images.train), split(&data.images.val));
    Work { trained: train, windows: val, validations: 1 }
}

/// Extracts what is missing and searches. What `later` runs of the same stream will need is extracted in
/// the same pass.
pub(super) fn run(
    host: &Host<'_>,
    lazy: &Lazy<'_>,
    plan: &RunPlan,
    later: &[&RunPlan],
    data: &Opened,
) -> Result<Measured, RunError> {
    with_extraction(host, lazy, plan, later, |extraction, protocol| {
        measure(extraction, &protocol.vote, &data.images, &mut || lazy.get(host), host.reporter)
    })
}

/// Extracts what is missing, as [`run`] does before it searches.
pub(super) fn extract(
    host: &Host<'_>,
    lazy: &Lazy<'_>,
    plan: &RunPlan,
    later: &[&RunPlan],
    data: &Opened,
) -> Result<(), RunError> {
    with_extraction(host, lazy, plan, later, |extraction, _| {
        for (split, folder) in [("train", &data.images.train), ("val", &data.images.val)] {
            split_features(extraction, split, folder, &mut || lazy.get(host))?;
        }
        Ok(())
    })
}

fn split_features(
    extraction: &Extraction<'_>,
    split: &'static str,
    folder: &ImageFolder,
    load: &mut Load<'_>,
) -> Result<Extracted, RunError> {
    let paths = folder.samples().iter().map(|sample| &*sample.path).collect();
    extraction.split(split, &extract::Files { tree: folder.files(), paths }, load)
}

fn with_extraction<T>(
    host: &Host<'_>,
    lazy: &Lazy<'_>,
    plan: &RunPlan,
    later: &[&RunPlan],
    then: impl FnOnce(&Extraction<'_>, &KnnProtocol) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let wrong = || RunError::Stream("a dense protocol on class folders".to_owned());
    let Stages::Knn(protocol) = &plan.protocol.stages else { return Err(wrong()) };
    let dimensions = lazy.resolved.dimensions();
    let bank = |plan: &RunPlan, protocol: &KnnProtocol| {
        let (data, backbone) = (&plan.data.name, &plan.backbone.name);
        let about = format!("{data}, k-NN features, {backbone}, {}", protocol.feature.dtype);
        Bank::open(&host.cache, &bank_key(plan, protocol, &host.device), &about)
    };
    let embedder = |protocol| embedder(host, protocol, &dimensions);
    let mut others: Vec<(Embedder<'_>, Bank)> = Vec::new();
    for plan in later {
        let Stages::Knn(other) = &plan.protocol.stages else { return Err(wrong()) };
        let known = |stage: &FeatureStage| *stage == other.feature;
        if !known(&protocol.feature) && !others.iter().any(|(kind, _)| known(kind.feature)) {
            others.push((embedder(other)?, bank(plan, other)?));
        }
    }
    let extraction = Extraction {
        embedder: &embedder(protocol)?,
        bank: &bank(plan, protocol)?,
        others: &others,
        micro_batch: plan.micro_batch,
        workers: host.workers(),
        skip_bad_images: host.request.skip_bad_images,
        reporter: host.reporter,
    };
    then(&extraction, protocol)
}

fn embedder<'a>(
    host: &'a Host<'_>,
    protocol: &'a KnnProtocol,
    dimensions: &Dimensions,
) -> Result<Embedder<'a>, RunError> {
    let width = embed::width(protocol.feature.tokens, dimensions);
    Embedder::new(&host.uploader, &protocol.image, &protocol.feature, width, true)
}

fn measure(
    extraction: &Extraction<'_>,
    vote: &VoteStage,
    data: &ImageNet,
    load: &mut Load<'_>,
    reporter: &Reporter,
) -> Result<Measured, RunError> {
    let (train_samples, val_samples) = (data.train.samples(), data.val.samples());
    let train = split_features(extraction, "train", &data.train, load)?;
    let val = split_features(extraction, "val", &data.val, load)?;
    let began = Instant::now();
    let labels = |positions: &[u32], samples: &[Sample]| -> Vec<u32> {
        positions.iter().map(|&at| samples[at as usize].target).collect()
    };
    let train_labels = labels(&train.positions, train_samples);
    let val_labels = labels(&val.positions, val_samples);
    let classes = data.train.classes().len();
    let width = extraction.embedder.width;
    let uploader = extraction.embedder.uploader();
    let upload = |rows: &[&[f32]], shape: (usize, usize)| uploader.concat(rows, shape);
    let knn = Knn::new(Features::new(&train.features, width)?, &train_labels, classes)?
        .on(uploader.device())
        .uploading(&upload);
    let queries = Features::new(&val.features, width)?;
    let bar = reporter.items("searching", 100, "%");
    let mut progress = |progress: heads::knn::Progress| {
        bar.set(progress.done * 100 / progress.total.max(1));
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let predictions = match knn.predict(queries, &val_labels, vote, &mut progress) {
        Err(KnnError::Interrupted(_)) => return Err(RunError::Interrupted),
        other => other?,
    };
    let search = began.elapsed();
    let value = |name: String, value| MetricValue {
        name,
        value,
        ci_low: None,
        ci_high: None,
        selection: Selection::Last,
    };
    let metrics = predictions.accuracy.iter().flat_map(|at| {
        [value(format!("top1@{}", at.k), at.top1), value(format!("top5@{}", at.k), at.top5)]
    });
    let rows = predictions.by_query.into_iter().zip(&val.positions).zip(&val_labels);
    let rows = rows.map(|((by_k, &at), &label)| PredictionRow {
        path: val_samples[at as usize].path.to_string(),
        label,
        by_k,
    });
    let encoding = train.encoding + val.encoding;
    let seconds = [("encode", encoding), ("search", search)];
    Ok(Measured {
        metrics: metrics.collect(),
        rows: SampleRows::Knn(rows.collect()),
        curve: Vec::new(),
        warnings: Vec::new(),
        counts: BTreeMap::new(),
        seconds: seconds.map(|(name, time)| (name.to_owned(), time.as_secs_f64())).into(),
        encoded: train.encoded + val.encoded,
        encoding,
        skipped: [train.skipped, val.skipped].concat(),
    })
}

/// A data set ready to run on.
pub(super) struct Opened {
    /// The samples, cut to `--limit`.
    pub(super) images: ImageNet,
    pub(super) record: DataRecord,
    /// `--limit`, where it leaves samples out.
    limit: Option<usize>,
}

/// Lists the data and cuts it to `limit` samples a split; the fingerprint is that of the whole.
pub(super) fn open(
    dataset: &Dataset,
    files: &Files,
    limit: Option<usize>,
    seed: u64,
) -> Result<Opened, RunError> {
    let images = ImageNet::open(files)?;
    let sample = tasks::sample::is_sample(files.root()).is_some();
    let record = DataRecord {
        name: dataset.name.clone(),
        root: files.root().display().to_string(),
        fingerprint: images.fingerprint(),
        splits: images.records((!sample).then_some(dataset)),
        classes: images.train.classes().len(),
        labels: None,
        sample,
        container: files.container().map(str::to_owned),
        accepted: Vec::new(),
    };
    let larger =
        |limit: &usize| *limit < images.train.samples().len().max(images.val.samples().len());
    let limit = limit.filter(larger);
    let images = match limit {
        Some(limit) => images.take(limit, seed),
        None => images,
    };
    Ok(Opened { images, record, limit })
}
