//! One probe's run in a stream: its place, its curve, its files.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Instant;

use heads::dense::{
    Architecture, Expected, HeadConfig, HeadKind, Probe, StepReport, initialise, load,
};
use results::RunDir;
use schema::{DenseProtocol, EpochRecord, HeadStage, RunPlan, SampleRows};
use tasks::dense::Target;
use tasks::random;

use super::checkpoint::{self, Progress, Spent};
use super::pictures;
use super::score::Validation;
use super::step::Taken;
use super::steps;
use super::train::Stream;
use crate::run::RunError;

/// What a probe's run came to.
pub(in crate::run) struct Trained {
    pub(in crate::run) curve: Vec<EpochRecord>,
    pub(in crate::run) rows: SampleRows,
    pub(in crate::run) spent: Spent,
    /// What changed while it was interrupted, a sentence each.
    pub(in crate::run) changes: Vec<String>,
}

/// One probe's run in a stream.
pub(super) struct Runner<'a> {
    pub(super) protocol: &'a DenseProtocol,
    dir: &'a RunDir,
    /// For messages: the cell and the backbone.
    label: String,
    /// Held, with its lock, as long as this process works on the run.
    _lock: File,
    /// Step of the newest checkpoint.
    written: Option<u64>,
    pub(super) probe: Probe,
    pub(super) progress: Progress,
    /// Steps that were taken and that nobody has looked at.
    pub(super) taken: Vec<Taken>,
    /// Steps of one epoch.
    pub(super) epoch: u64,
    /// Of the newest validation in this process,
    pub(super) rows: Option<SampleRows>,
    /// and what was predicted for the pictured images.
    maps: BTreeMap<usize, Target>,
}

impl<'a> Runner<'a> {
    fn total(&self) -> u64 {
        self.protocol.training.epochs as u64 * self.epoch
    }

    /// Whether the steps of an epoch (or of none, for a head that is not trained) are done and its
    /// line of the curve is not.
    pub(super) fn closes(&self) -> bool {
        let lines = self.progress.curve.len() as u64;
        match self.total() {
            0 => lines == 0,
            _ => self.progress.step == (lines + 1) * self.epoch,
        }
    }

    pub(super) fn done(&self) -> bool {
        self.progress.step == self.total() && !self.closes()
    }

    /// Whether the epoch under way ends with a validation.
    pub(super) fn validates(&self) -> bool {
        self.protocol.training.epochs == 0 || self.validated(self.progress.curve.len() + 1)
    }

    /// How often it is still validated.
    pub(super) fn validations(&self) -> usize {
        let left = self.progress.curve.len() + 1..=self.protocol.training.epochs;
        left.filter(|&epoch| self.validated(epoch)).count().max(1)
    }

    fn validated(&self, epoch: usize) -> bool {
        let last = self.protocol.training.epochs;
        epoch == last || epoch.is_multiple_of(self.protocol.evaluation.every.max(1))
    }

    pub(super) fn note(&mut self, report: &StepReport) {
        self.progress.step += 1;
        self.progress.skipped_groups += report.skipped_groups.len();
        self.note_loss(report.loss);
    }

    pub(super) fn note_loss(&mut self, loss: Option<f64>) {
        if let Some(loss) = loss {
            let (sum, count) = self.progress.losses;
            self.progress.losses = (sum + loss, count + 1);
        }
    }

    /// Takes a step whose loss will be looked at later.
    pub(super) fn take_step(&mut self, taken: Taken) {
        self.progress.step += 1;
        self.progress.skipped_groups += taken.skipped_groups();
        self.taken.push(taken);
    }

    /// This epoch's mean loss so far and the rate of the next step, for showing.
    pub(super) fn loss_and_rate(&self) -> Option<String> {
        let (sum, count) = self.progress.losses;
        let rate = self.probe.schedule().rate(self.progress.step);
        let head = self.protocol.head.name();
        (count > 0).then(|| format!("{head} loss {:.4} rate {rate:.1e}", sum / count as f64))
    }

    /// Ends an epoch: its line of the curve, the best head so far, a checkpoint.
    pub(super) fn close(&mut self, validation: Option<Validation>) -> Result<(), RunError> {
        let (sum, count) = std::mem::replace(&mut self.progress.losses, (0.0, 0));
        let trained = self.total() > 0;
        let mut line = EpochRecord {
            epoch: if trained { self.progress.curve.len() + 1 } else { 0 },
            loss: (count > 0).then(|| sum / count as f64),
            skipped_groups: std::mem::take(&mut self.progress.skipped_groups),
            ..EpochRecord::default()
        };
        if let Some(validation) = validation {
            line.metrics = self.take(validation);
        }
        self.progress.curve.push(line);
        let newest = self.progress.curve.len() - 1;
        if trained && super::best(&self.progress.curve) == Some(newest) {
            let began = Instant::now();
            let head = self.probe.head().tensors()?;
            checkpoint::write_head(&self.dir.folder().join("best.safetensors"), &head)?;
            self.rows.as_ref().map_or(Ok(()), |rows| self.dir.keep_best(rows))?;
            self.progress.spent.write += began.elapsed().as_secs_f64();
        }
        self.write()
    }

    /// Takes a validation's rows and maps; returns its metrics.
    pub(super) fn take(&mut self, validation: Validation) -> BTreeMap<String, f64> {
        let Validation { metrics, rows, maps } = validation;
        self.rows = Some(rows);
        self.maps = maps;
        metrics
    }

    /// Writes a checkpoint, unless the newest one is of this step, or the probe is not known to be sound:
    /// a step failed half-way, or nobody could look at the last ones.
    pub(super) fn checkpoint(&mut self) -> Result<(), RunError> {
        let together = self.probe.step() == self.progress.step;
        let sound = self.taken.is_empty() && self.probe.is_whole() && together;
        if self.written == Some(self.progress.step) || !sound {
            return Ok(());
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), RunError> {
        if self.total() > 0 {
            let began = Instant::now();
            checkpoint::write(self.dir.folder(), &self.probe.state()?, &mut self.progress)?;
            self.written = Some(self.progress.step);
            self.progress.spent.write += began.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// Writes the head and the pictures. Checkpoints stay until the record is written.
    pub(super) fn finish(self, stream: &Stream<'_>) -> Result<Trained, RunError> {
        let began = Instant::now();
        let head = self.probe.head().tensors()?;
        let folder = self.dir.folder();
        checkpoint::write_head(&folder.join("head.safetensors"), &head)?;
        let rows = self.rows.ok_or(RunError::Interrupted)?;
        for (&place, map) in &self.maps {
            let (data, protocol) = (stream.data, self.protocol);
            // A result does not fail for want of a picture.
            if let Err(problem) =
                pictures::write(folder, &self.label, data, protocol, (place, map), &rows)
            {
                stream.reporter.warn(format!("{}: no picture: {problem}", self.label));
            }
        }
        let Progress { curve, mut spent, changes, .. } = self.progress;
        spent.write += began.elapsed().as_secs_f64();
        Ok(Trained { curve, rows, spent, changes })
    }

    /// A probe at its newest checkpoint, or new.
    pub(super) fn start(
        stream: &Stream<'_>,
        plan: &'a RunPlan,
        protocol: &'a DenseProtocol,
        dir: &'a RunDir,
    ) -> Result<Self, RunError> {
        let epoch = steps(protocol, stream.data.set.train.pairs().len()) as u64;
        let total = protocol.training.epochs as u64 * epoch;
        let joined = if protocol.feature.summary { 2 } else { 1 };
        let width = joined * plan.backbone.width;
        let architecture = Architecture::from(&protocol.head);
        let outputs = heads::dense::outputs(&protocol.objective);
        let head = match stream.head_weights {
            Some(file) => {
                let kind = match protocol.head {
                    HeadStage::Linear { .. } => HeadKind::Linear,
                    HeadStage::Dpt { .. } => HeadKind::Dpt,
                };
                load(file, Expected { kind, width, outputs }, stream.dtype, stream.device)?
            }
            None => {
                let tag = format!("head/{}", plan.task.head);
                let draws = random::Stream::tagged(plan.seed, &tag);
                let mut draw = |tensor: usize, element: usize| {
                    draws.uniform([element as u32, (element >> 32) as u32, tensor as u32, 0])
                };
                let config = HeadConfig { architecture, width, outputs };
                initialise(&config, stream.dtype, stream.device, &mut draw)?
            }
        };
        let mut probe = Probe::new(head, protocol.objective.clone(), &protocol.training, total)?
            .in_parts_of(stream.micro_batch);
        let key = plan.key();
        let mut progress = Progress {
            key: key.clone(),
            step: 0,
            losses: (0.0, 0),
            skipped_groups: 0,
            curve: Vec::new(),
            environment: stream.environment(),
            changes: Vec::new(),
            spent: Spent::default(),
            tensors: key.clone(),
        };
        let folder = dir.folder();
        let lock = checkpoint::lock(folder)?;
        let label = format!("{} {}", plan.task, plan.backbone.name);
        let (saved, passed) = checkpoint::newest(folder, &key)?;
        for problem in passed {
            stream.reporter.warn(format!("{label}: passed over: {problem}"));
        }
        let written = saved.as_ref().map(|(progress, _)| progress.step);
        if let Some((found, state)) = saved {
            probe.load_state(state)?;
            let step = found.step;
            stream.reporter.say(format!("{label}: continues at step {step} of {total}"));
            let before = std::mem::replace(&mut progress, found).environment;
            let now = stream.environment();
            if before != now {
                progress.changes.push(format!(
                    "from step {step} of {total} on computed with {now}, before with {before}: the last \
                     bits are those of neither"
                ));
                progress.environment = now;
            }
        }
        Ok(Self {
            protocol,
            dir,
            label,
            _lock: lock,
            written,
            probe,
            progress,
            taken: Vec::new(),
            epoch,
            rows: None,
            maps: BTreeMap::new(),
        })
    }
}
