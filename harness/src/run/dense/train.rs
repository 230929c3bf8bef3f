//! The shared stream: each batch is encoded once, and every probe takes its step on it.

use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use heads::dense::{
    Architecture, Expected, HeadConfig, HeadError, HeadKind, Probe, StepReport, Targets,
    initialise, load,
};
use results::RunDir;
use schema::{DenseProtocol, EpochRecord, HeadStage, RunPlan, SampleRows};
use tasks::dense::{self, DenseError, Draws, EpochOrder, Target, normalise_into, train_sample};
use tasks::random;

use super::checkpoint::{self, Progress};
use super::evaluate::{Validation, validate};
use super::features::{Encoder, Taps, taps_of};
use super::{Opened, steps};
use crate::backbone::{Backbone, BackboneError};
use crate::interrupt;
use crate::progress::{Bar, Reporter};
use crate::run::RunError;
use crate::stream::ordered;

/// A checkpoint is written at the end of every epoch and, within one, at least this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

/// What the probes of a stream share.
pub(in crate::run) struct Stream<'a> {
    pub(in crate::run) backbone: &'a dyn Backbone,
    pub(in crate::run) device: &'a Device,
    pub(in crate::run) dtype: DType,
    pub(in crate::run) data: &'a Opened,
    pub(in crate::run) micro_batch: usize,
    pub(in crate::run) workers: usize,
    pub(in crate::run) head_weights: Option<&'a Path>,
    pub(in crate::run) reporter: &'a Reporter,
}

/// Seconds of this process, by stage; shared stages count for every probe of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::run) struct Spent {
    pub(in crate::run) encode: Duration,
    pub(in crate::run) train: Duration,
    pub(in crate::run) validate: Duration,
    pub(in crate::run) images: u64,
}

/// What a probe's run came to.
pub(in crate::run) struct Trained {
    pub(in crate::run) curve: Vec<EpochRecord>,
    pub(in crate::run) rows: SampleRows,
    pub(in crate::run) spent: Spent,
}

/// One probe's run in a stream.
struct Runner<'a> {
    protocol: &'a DenseProtocol,
    folder: &'a Path,
    probe: Probe,
    progress: Progress,
    /// Steps of one epoch.
    epoch: u64,
    rows: Option<SampleRows>,
    spent: Spent,
}

type Slot<'a> = Result<Runner<'a>, RunError>;

/// Trains and validates one probe for each plan, all on one stream; one result a plan, in order. An
/// interruption ends all of them, with their checkpoints written.
pub(in crate::run) fn run(
    stream: &Stream<'_>,
    plans: &[(&RunPlan, &DenseProtocol, &RunDir)],
) -> Result<Vec<Result<Trained, RunError>>, RunError> {
    let mut slots: Vec<Slot<'_>> =
        plans.iter().map(|(plan, protocol, dir)| stream.start(plan, protocol, dir)).collect();
    let worked = stream.work(&mut slots);
    if matches!(worked, Err(RunError::Interrupted)) {
        slots.iter_mut().flatten().try_for_each(Runner::checkpoint)?;
    }
    worked?;
    Ok(slots.into_iter().map(|slot| slot.and_then(Runner::finish)).collect())
}

impl<'a> Runner<'a> {
    fn total(&self) -> u64 {
        self.protocol.training.epochs as u64 * self.epoch
    }

    /// Whether the steps of an epoch (or of none, for a head that is not trained) are done and its
    /// line of the curve is not.
    fn closes(&self) -> bool {
        let lines = self.progress.curve.len() as u64;
        match self.total() {
            0 => lines == 0,
            _ => self.progress.step == (lines + 1) * self.epoch,
        }
    }

    fn done(&self) -> bool {
        self.progress.step == self.total() && !self.closes()
    }

    fn validates(&self) -> bool {
        let epochs = self.protocol.training.epochs;
        let next = self.progress.curve.len() + 1;
        epochs == 0 || next == epochs || next.is_multiple_of(self.protocol.evaluation.every.max(1))
    }

    fn note(&mut self, report: &StepReport) {
        self.progress.step += 1;
        self.progress.skipped_groups += report.skipped_groups.len();
        if let Some(loss) = report.loss {
            let (sum, count) = self.progress.losses;
            self.progress.losses = (sum + loss, count + 1);
        }
    }

    /// Ends an epoch: its line of the curve, the best head so far, a checkpoint.
    fn close(&mut self, validation: Option<Validation>) -> Result<(), RunError> {
        let (sum, count) = std::mem::replace(&mut self.progress.losses, (0.0, 0));
        let trained = self.total() > 0;
        let mut line = EpochRecord {
            epoch: if trained { self.progress.curve.len() + 1 } else { 0 },
            loss: (count > 0).then(|| sum / count as f64),
            skipped_groups: std::mem::take(&mut self.progress.skipped_groups),
            ..EpochRecord::default()
        };
        if let Some(Validation { metrics, rows }) = validation {
            line.metrics = metrics;
            self.rows = Some(rows);
        }
        self.progress.curve.push(line);
        let newest = self.progress.curve.len() - 1;
        if trained && super::best(&self.progress.curve) == Some(newest) {
            let head = self.probe.head().tensors()?;
            checkpoint::write_head(&self.folder.join("best.safetensors"), &head)?;
        }
        self.checkpoint()
    }

    fn checkpoint(&mut self) -> Result<(), RunError> {
        if self.total() == 0 {
            return Ok(());
        }
        Ok(checkpoint::write(self.folder, &self.probe.state()?, &mut self.progress)?)
    }

    fn finish(self) -> Result<Trained, RunError> {
        let head = self.probe.head().tensors()?;
        checkpoint::write_head(&self.folder.join("head.safetensors"), &head)?;
        checkpoint::clear(self.folder)?;
        let rows = self.rows.ok_or(RunError::Interrupted)?;
        Ok(Trained { curve: self.progress.curve, rows, spent: self.spent })
    }
}

impl Stream<'_> {
    /// A probe at its newest checkpoint, or new.
    fn start<'a>(
        &self,
        plan: &'a RunPlan,
        protocol: &'a DenseProtocol,
        dir: &'a RunDir,
    ) -> Result<Runner<'a>, RunError> {
        let epoch = steps(protocol, self.data.set.train.pairs().len()) as u64;
        let total = protocol.training.epochs as u64 * epoch;
        let joined = if protocol.feature.summary { 2 } else { 1 };
        let width = joined * plan.backbone.width;
        let architecture = Architecture::from(&protocol.head);
        let outputs = heads::dense::outputs(&protocol.objective);
        let head = match self.head_weights {
            Some(file) => {
                let kind = match protocol.head {
                    HeadStage::Linear { .. } => HeadKind::Linear,
                    HeadStage::Dpt { .. } => HeadKind::Dpt,
                };
                load(file, Expected { kind, width, outputs }, self.dtype, self.device)?
            }
            None => {
                let tag = format!("head/{}", plan.task.head);
                let draws = random::Stream::tagged(plan.seed, &tag);
                let mut draw = |tensor: usize, element: usize| {
                    draws.uniform([element as u32, (element >> 32) as u32, tensor as u32, 0])
                };
                let config = HeadConfig { architecture, width, outputs };
                initialise(&config, self.dtype, self.device, &mut draw)?
            }
        };
        let mut probe = Probe::new(head, protocol.objective.clone(), &protocol.training, total)?;
        let key = plan.key();
        let mut progress = Progress {
            key: key.clone(),
            step: 0,
            losses: (0.0, 0),
            skipped_groups: 0,
            curve: Vec::new(),
            tensors: key.clone(),
        };
        if let Some((found, state)) = checkpoint::newest(dir.folder(), &key)? {
            probe.load_state(state)?;
            let label = format!("{} {}", plan.task, plan.backbone.name);
            self.reporter.say(format!("{label}: continues at step {} of {total}", found.step));
            progress = found;
        }
        let spent = Spent::default();
        Ok(Runner { protocol, folder: dir.folder(), probe, progress, epoch, rows: None, spent })
    }

    /// Steps and validates until every probe is done or has failed. A probe that is behind catches
    /// up first; the others wait for it.
    fn work(&self, slots: &mut [Slot<'_>]) -> Result<(), RunError> {
        loop {
            if slots.iter().flatten().any(Runner::closes) {
                self.close(slots)?;
                continue;
            }
            let waiting = slots.iter().flatten().filter(|runner| !runner.done());
            let Some(runner) = waiting.min_by_key(|runner| runner.progress.step) else {
                break;
            };
            let (from, epoch) = (runner.progress.step, runner.epoch);
            self.train(slots, from, (from / epoch + 1) * epoch)?;
        }
        // A run that was interrupted after its last epoch still needs its rows.
        let lacking = |slot: &Slot<'_>| slot.as_ref().is_ok_and(|runner| runner.rows.is_none());
        if slots.iter().any(lacking) {
            let found = self.validate(slots, |runner| runner.rows.is_none())?;
            for (slot, validation) in found {
                if let Ok(runner) = &mut slots[slot] {
                    runner.rows = Some(validation.rows);
                }
            }
        }
        Ok(())
    }

    /// Closes the epoch of every probe that has reached its end, validating together.
    fn close(&self, slots: &mut [Slot<'_>]) -> Result<(), RunError> {
        let mut found = self.validate(slots, |runner| runner.closes() && runner.validates())?;
        for (at, slot) in slots.iter_mut().enumerate() {
            let Ok(runner) = slot else { continue };
            if runner.closes() {
                let validation = found.iter().position(|(slot, _)| *slot == at);
                let validation = validation.map(|place| found.swap_remove(place).1);
                runner.close(validation)?;
            }
        }
        Ok(())
    }

    /// Validates the probes that `wanted` picks, with one encoder pass over the windows.
    fn validate(
        &self,
        slots: &mut [Slot<'_>],
        wanted: impl Fn(&Runner<'_>) -> bool,
    ) -> Result<Vec<(usize, Validation)>, RunError> {
        let began = Instant::now();
        let picked: Vec<(usize, &Runner<'_>)> = slots
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| Some((at, slot.as_ref().ok().filter(|r| wanted(r))?)))
            .collect();
        if picked.is_empty() {
            return Ok(Vec::new());
        }
        let probes: Vec<_> = picked.iter().map(|(_, r)| (&r.probe, r.protocol)).collect();
        let encoder = self.encoder(probes.iter().map(|(_, protocol)| *protocol));
        let found = validate(&encoder, self.data, &probes, self.workers, self.reporter)?;
        let found: Vec<_> = picked.iter().map(|(at, _)| *at).zip(found).collect();
        for (at, _) in &found {
            if let Ok(runner) = &mut slots[*at] {
                runner.spent.validate += began.elapsed();
            }
        }
        Ok(found)
    }

    fn encoder<'p>(&self, protocols: impl Iterator<Item = &'p DenseProtocol>) -> Encoder<'_> {
        let protocols: Vec<&DenseProtocol> = protocols.collect();
        let mut blocks: Vec<usize> =
            protocols.iter().flat_map(|p| p.feature.blocks.iter().copied()).collect();
        blocks.sort_unstable();
        blocks.dedup();
        Encoder {
            backbone: self.backbone,
            device: self.device,
            blocks,
            summary: protocols.iter().any(|p| p.feature.summary),
            micro_batch: self.micro_batch,
            side: protocols.first().map_or(0, |p| p.sample.crop),
        }
    }

    /// Steps `from..to`, within one epoch, for every probe that is at the step's index.
    fn train(&self, slots: &mut [Slot<'_>], from: u64, to: u64) -> Result<(), RunError> {
        let Some((protocol, steps)) = slots.iter().flatten().next().map(|r| (r.protocol, r.epoch))
        else {
            return Ok(());
        };
        let (sample, training) = (&protocol.sample, &protocol.training);
        let batch = training.groups * training.group_size;
        let epoch = (from / steps) as usize;
        let (seed, name) = (self.data.stream_seed, self.data.record.name.as_str());
        let pairs = self.data.set.train.pairs();
        let (groups, size) = (training.groups, training.group_size);
        let order = EpochOrder::new(seed, name, epoch, pairs.len(), groups, size);
        let draws = Draws::new(seed, name);
        let indices: Vec<usize> =
            (from..to).filter_map(|g| order.step((g % steps) as usize)).flatten().collect();
        let root = self.data.set.train.root();
        let make = |i: usize| -> Result<Crop, DenseError> {
            let index = indices[i];
            let pair = &pairs[index];
            let (image, target) = dense::load(root, pair, sample.border, self.data.form)?;
            let draw = draws.at(epoch, index, target.dim(), sample);
            let file = root.join(&*pair.image);
            let (image, target) = train_sample(&file, image.view(), &target, &draw, sample)?;
            let mut pixels = vec![0f32; image.len()];
            normalise_into(image.view(), self.data.form, sample, &mut pixels);
            Ok(Crop { pixels, target })
        };
        let live = slots.iter().flatten().filter(|r| r.progress.step < to);
        let encoder = self.encoder(live.map(|r| r.protocol));
        let label = format!("{name} epoch {}/{}", epoch + 1, training.epochs);
        let bar = self.reporter.items(&label, steps * batch as u64, "images");
        let mut crops = Vec::with_capacity(batch);
        let mut written = Instant::now();
        let take = |i: usize, crop: Result<Crop, DenseError>| -> Result<(), RunError> {
            crops.push(crop?);
            if crops.len() < batch {
                return Ok(());
            }
            let step = from + (i / batch) as u64;
            let files = &indices[i + 1 - batch..=i];
            self.step(slots, step, std::mem::take(&mut crops), &encoder, &|| {
                files.iter().map(|&index| pairs[index].image.to_string()).collect()
            })?;
            self.show(&bar, slots, (step % steps + 1) * batch as u64);
            if written.elapsed() > CHECKPOINT_EVERY {
                slots.iter_mut().flatten().try_for_each(Runner::checkpoint)?;
                written = Instant::now();
            }
            if interrupt::requested() { Err(RunError::Interrupted) } else { Ok(()) }
        };
        ordered(0..indices.len(), self.workers, 2 * batch, make, take)
    }

    /// One step of every probe that is at it. A probe that fails leaves the stream; the others go on.
    fn step(
        &self,
        slots: &mut [Slot<'_>],
        step: u64,
        crops: Vec<Crop>,
        encoder: &Encoder<'_>,
        files: &dyn Fn() -> Vec<String>,
    ) -> Result<(), RunError> {
        let began = Instant::now();
        let (pixels, targets): (Vec<_>, Vec<_>) =
            crops.into_iter().map(|crop| (crop.pixels, crop.target)).unzip();
        let taps: Taps = encoder.encode(&pixels)?;
        let targets = self.targets(targets)?;
        let encoding = began.elapsed();
        for slot in slots.iter_mut() {
            let Ok(runner) = slot else { continue };
            if runner.progress.step != step || runner.done() {
                continue;
            }
            let began = Instant::now();
            let taps = taps_of(&taps, &runner.protocol.feature.blocks);
            match runner.probe.train_step(&taps, &targets) {
                Ok(report) => {
                    runner.note(&report);
                    runner.spent.encode += encoding;
                    runner.spent.train += began.elapsed();
                    runner.spent.images += pixels.len() as u64;
                }
                Err(source @ HeadError::NonFinite { .. }) => {
                    *slot = Err(RunError::Diverged { source, files: files() });
                }
                Err(error) => *slot = Err(error.into()),
            }
        }
        Ok(())
    }

    fn targets(&self, targets: Vec<Target>) -> Result<Targets, RunError> {
        let (height, width) = targets.first().map_or((0, 0), Target::dim);
        let shape = [targets.len(), height, width];
        let (mut metres, mut labels) = (Vec::<f32>::new(), Vec::<u8>::new());
        for target in targets {
            match target {
                Target::Depth(map) => metres.extend(map.iter()),
                Target::Labels(map) => labels.extend(map.iter()),
            }
        }
        if labels.is_empty() {
            let depth = Tensor::from_vec(metres, shape.to_vec(), self.device);
            return Ok(Targets::Depth(depth.map_err(BackboneError::Candle)?));
        }
        Ok(Targets::Labels { labels: labels.into(), shape })
    }

    fn show(&self, bar: &Bar, slots: &[Slot<'_>], done: u64) {
        let losses = slots.iter().flatten().filter_map(|runner| {
            let (sum, count) = runner.progress.losses;
            (count > 0).then(|| format!("{:.4}", sum / count as f64))
        });
        bar.note(&losses.collect::<Vec<_>>().join(" "));
        bar.set(done);
    }
}

/// A training crop: normalised pixels `[3, crop, crop]` and its target.
struct Crop {
    pixels: Vec<f32>,
    target: Target,
}
