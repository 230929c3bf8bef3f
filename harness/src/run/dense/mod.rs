//! Depth and segmentation: heads trained side by side on one stream of frozen features.
//!
//! All probes of a data set that read the same training samples share one encoder pass a batch. A
//! probe's result is what it would have got alone: samples depend on seed, data set, epoch and
//! index, and each probe has its own head, optimiser, schedule and checkpoints.

mod checkpoint;
mod evaluate;
mod features;
#[cfg(test)]
mod golden;
mod kept;
mod merge;
mod pictures;
mod protocol;
mod runner;
mod score;
mod step;
#[cfg(test)]
mod tests;
mod train;
mod trial;
mod windows;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use schema::{
    BackboneRecord, DataRecord, DenseProtocol, Direction, EpochRecord, Fingerprint, ListKind,
    MetricValue, Protocol, RunPlan, SampleRows, Selection, Stages,
};
use tasks::data::Dataset;
use tasks::dense::{PairedSet, TargetForm, list_kind, steps_per_epoch};
use tasks::files::Files;
use tasks::verify::{self, Finding};

use super::RunError;
use super::cell::{Cell, Settings};
use super::memory::{BatchSize, EncoderSize, ProbeSize};
use super::outline::Work;
use super::request::Request;
use super::session::{Host, Measured};
use super::wrong;
use crate::lists::{self, ListOptions};
use crate::locate;
use crate::progress::Reporter;
use crate::resolve::Resolved;

pub use checkpoint::CheckpointError;
pub(super) use checkpoint::{clear, hold, lock, write_head};
pub(super) use features::Recipe;
pub(super) use kept::Cache;
pub(super) use runner::Trained;
pub(super) use train::{Stream, run};
pub(crate) use trial::{Placed, Trial};
use windows::Windows;

/// A data set ready to train on.
pub(super) struct Opened {
    pub(super) dataset: Dataset,
    /// The samples, cut to `--limit`,
    pub(super) set: PairedSet,
    /// where that leaves any out.
    pub(super) limit: Option<usize>,
    pub(super) form: TargetForm,
    pub(super) record: DataRecord,
    /// What a reader of the numbers must know of the data.
    pub(super) notes: Vec<String>,
    /// Seed of order and crops.
    pub(super) stream_seed: u64,
}

/// Index of the best validated epoch of a curve: lowest rmse or highest miou, the first of equal ones.
pub(super) fn best(curve: &[EpochRecord]) -> Option<usize> {
    let primary = |line: &EpochRecord| {
        let rmse = line.metrics.get("rmse").map(|rmse| -rmse);
        rmse.or_else(|| line.metrics.get("miou").copied()).filter(|value| value.is_finite())
    };
    let validated = curve.iter().enumerate().filter_map(|(at, line)| Some((at, primary(line)?)));
    let better = |best: (usize, f64), next: (usize, f64)| if next.1 > best.1 { next } else { best };
    validated.reduce(better).map(|(at, _)| at)
}

/// Every metric of a finished run: of the last epoch, of the best one, and each at its own best.
pub(super) fn metrics(curve: &[EpochRecord]) -> Vec<MetricValue> {
    let Some(last) = curve.last() else { return Vec::new() };
    let value = |name: &String, value: f64, selection| MetricValue {
        name: name.clone(),
        value,
        ci_low: None,
        ci_high: None,
        selection,
    };
    let of = |line: &EpochRecord, selection| -> Vec<MetricValue> {
        line.metrics.iter().map(|(name, x)| value(name, *x, selection)).collect()
    };
    let mut all = of(last, Selection::Last);
    let trained = last.epoch > 0;
    let Some(best) = best(curve).filter(|_| trained) else { return all };
    all.extend(of(&curve[best], Selection::Best));
    for name in last.metrics.keys().filter(|name| !name.contains('/')) {
        let values = curve.iter().filter_map(|line| line.metrics.get(name).copied());
        let values = values.filter(|value| value.is_finite());
        let up = schema::describe(name).is_some_and(|d| d.direction == Direction::Up);
        let best = values.reduce(|a, b| if (b > a) == up && b != a { b } else { a });
        all.extend(best.map(|x| value(name, x, Selection::BestEach)));
    }
    all
}

/// Lists the data (fetching the published lists where those decide and are not kept yet), settles
/// how its targets are stored, and cuts it to `limit` samples a split.
pub(super) fn open(
    dataset: &Dataset,
    files: &Files,
    (request, settings): (&Request, &Settings),
    reporter: &Reporter,
) -> Result<Opened, RunError> {
    let pinned = match list_kind(dataset, files)? {
        ListKind::Pinned => {
            let options = ListOptions::from_env(request.source.offline);
            lists::obtain(dataset, &locate::cache(), &options, reporter)?
        }
        _ => None,
    };
    let refuse = |found: &[Finding]| wrong::refuse(dataset, files, found, &request.accepted);
    let set = PairedSet::open_with(dataset, files, pinned.as_ref());
    let mut found = verify::recognise(dataset, files, set.as_ref().err());
    refuse(&found)?;
    let set = set?;
    found.extend(verify::quick(dataset, &set, request.labels));
    refuse(&found)?;
    let form = set.target_form(dataset, request.labels)?;
    let mut accepted: Vec<String> =
        found.iter().map(|found| found.preparation.name().to_owned()).collect();
    accepted.sort_unstable();
    accepted.dedup();
    let sample = tasks::sample::is_sample(files.root()).is_some();
    let mut splits = set.records(dataset);
    if sample {
        splits.values_mut().for_each(|split| split.published = None);
    }
    let record = DataRecord {
        name: dataset.name.clone(),
        root: files.root().display().to_string(),
        fingerprint: set.fingerprint(),
        splits,
        classes: dataset.classes.unwrap_or(0),
        labels: match form {
            TargetForm::Labels { form, .. } => Some(form.name().to_owned()),
            TargetForm::Depth { .. } => None,
        },
        sample,
        container: files.container().map(str::to_owned),
        accepted,
    };
    let mut notes = if sample { Vec::new() } else { set.notes(dataset) };
    notes.extend(found.iter().map(|found| format!("{}: accepted as {found}", dataset.name)));
    let larger = |limit: &usize| *limit < set.train.pairs().len().max(set.val.pairs().len());
    let limit = settings.limit.filter(larger);
    let stream_seed = settings.stream_seed.unwrap_or(settings.seed);
    let set = match limit {
        Some(limit) => set.take(limit, stream_seed),
        None => set,
    };
    Ok(Opened { dataset: dataset.clone(), set, limit, form, record, notes, stream_seed })
}

/// Resolves the protocol of one head for one backbone on one copy of the data.
pub(super) fn plan(
    host: &Host<'_>,
    cell: &Cell,
    resolved: &Resolved,
    backbone: &BackboneRecord,
    data: &Opened,
) -> Result<RunPlan, RunError> {
    let (request, (dtype, standard_dtype)) = (host.request, host.dtypes());
    let (task, settings, dimensions) = (&cell.task, &cell.settings, resolved.dimensions());
    let asked = protocol::Asked {
        dataset: &data.dataset,
        head: &task.head,
        backbone,
        dimensions: &dimensions,
        preparation: &resolved.preparation,
        recipe: &resolved.recipe,
        dtype,
        limit: data.limit,
    };
    let (mut name, stages) = protocol::protocol(&asked, settings)?;
    if request.dtype.is_some_and(|asked| asked.as_str() != standard_dtype) {
        name.push_str(&format!("+dtype={dtype}"));
    }
    let head_weights = match &request.head_weights {
        Some(path) => Some(head_hash(path)?),
        None => None,
    };
    name.push_str(&resolved.departures);
    for accepted in &data.record.accepted {
        name.push_str(&format!("+data={accepted}"));
    }
    // Seed 0 of the stream is what sweeps have unless they vary it.
    if let Some(stream) = settings.stream_seed.filter(|&stream| stream != 0) {
        name.push_str(&format!("+stream-seed={stream}"));
    }
    if let Some(hash) = &head_weights {
        name.push_str(&format!("+head={}", hash.short()));
    }
    let training = &stages.training;
    let samples = data.set.train.pairs().len();
    if training.epochs > 0 && steps(&stages, samples) == 0 {
        return Err(RunError::TooFewSamples {
            dataset: task.dataset.clone(),
            samples,
            batch: training.groups * training.group_size,
        });
    }
    let micro_batch = match host.batch_size() {
        BatchSize::Images(images) => images,
        // What a DPT takes, whichever the head: heads that share a stream have one size.
        BatchSize::Auto => {
            let side = stages.sample.crop;
            let encoder = EncoderSize::of(backbone, &dimensions, side, host.dtype);
            let published = Settings { protocol: settings.protocol.clone(), ..Settings::default() };
            let dpt = protocol::Asked { head: "dpt", ..asked };
            ProbeSize::of(
                &protocol::protocol(&dpt, &published)?.1,
                backbone,
                &encoder,
                (host.dtype, &host.device),
            )
            .images(&encoder, host.memory)
        }
    };
    let protocol = Protocol { name, stages: Stages::Dense(stages) };
    Ok(RunPlan {
        task: task.clone(),
        backbone: backbone.clone(),
        protocol_fingerprint: protocol.fingerprint(),
        protocol,
        data: data.record.clone(),
        seed: settings.seed,
        stream_seed: settings.stream_seed,
        skip_bad_images: false,
        head_weights,
        micro_batch,
    })
}

/// What runs that train on one stream have in common, beside the data as it was opened.
pub(super) fn stream(plan: &RunPlan) -> Option<Fingerprint> {
    let Stages::Dense(protocol) = &plan.protocol.stages else { return None };
    let (training, evaluation) = (&protocol.training, &protocol.evaluation);
    let part = protocol.limit.map(|limit| (limit, plan.stream_seed()));
    let data = (&plan.data.name, &plan.data.fingerprint, &plan.data.labels, part);
    let encoder = (&plan.backbone.identity, &protocol.sample, &protocol.feature.dtype);
    let steps = (training.groups, training.group_size, plan.stream_seed());
    let windows = (evaluation.window, evaluation.stride);
    Some(schema::fingerprint(&(data, encoder, steps, windows, plan.micro_batch)))
}

/// What a run reads and trains on, for planning.
pub(super) fn work(plan: &RunPlan, data: &Opened) -> Result<Work, RunError> {
    let Stages::Dense(protocol) = &plan.protocol.stages else { return Ok(Work::default()) };
    let training = &protocol.training;
    let samples = data.set.train.pairs().len();
    let batch = training.groups * training.group_size;
    let trained = (training.epochs * steps(protocol, samples) * batch) as u64;
    let windows = Windows::about(data, &protocol.sample, &protocol.evaluation)? as u64;
    let every = protocol.evaluation.every.max(1);
    let validations = training.epochs.div_ceil(every).max(1) as u64;
    Ok(Work { trained, windows, validations })
}

/// A finished probe's numbers.
pub(super) fn measured(trained: Trained, data: &Opened) -> Measured {
    let Trained { curve, rows, spent, changes } = trained;
    let seconds = [
        ("encode", spent.encode),
        ("train", spent.train),
        ("validate", spent.validate),
        ("write", spent.write),
    ];
    let left_out = left_out(&curve, &rows);
    Measured {
        metrics: metrics(&curve),
        curve,
        rows,
        seconds: seconds.map(|(name, seconds)| (name.to_owned(), seconds)).into(),
        encoded: spent.images,
        encoding: Duration::from_secs_f64(spent.encode),
        skipped: Vec::new(),
        warnings: data.notes.iter().cloned().chain(changes).chain(left_out).collect(),
        counts: BTreeMap::new(),
    }
}

/// What was read and does not count for want of a valid pixel, a sentence each.
fn left_out(curve: &[EpochRecord], rows: &SampleRows) -> Vec<String> {
    let mut sentences = Vec::new();
    let groups: usize = curve.iter().map(|line| line.skipped_groups).sum();
    if groups > 0 && curve.iter().all(|line| line.loss.is_none()) {
        sentences.push("no training batch has a valid pixel: the head was not trained".to_owned());
    } else if groups > 0 {
        sentences
            .push(format!("loss groups without a valid pixel, left out of training: {groups}"));
    }
    if let SampleRows::Depth(rows) = rows {
        let images = rows.iter().filter(|row| row.metrics.is_none()).count();
        if images > 0 {
            let all = rows.len();
            sentences.push(format!(
                "validation images with too few valid pixels, not counted: {images} of {all}"
            ));
        }
    }
    sentences
}

fn head_hash(path: &Path) -> Result<Fingerprint, RunError> {
    let bytes = std::fs::read(path)
        .map_err(|source| RunError::HeadFile { path: path.to_path_buf(), source })?;
    Ok(blake3::hash(&bytes).into())
}

fn steps(protocol: &DenseProtocol, samples: usize) -> usize {
    steps_per_epoch(samples, protocol.training.groups, protocol.training.group_size)
}
