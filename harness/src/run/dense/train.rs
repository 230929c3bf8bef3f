//! The shared stream: each batch is encoded once, and every probe takes its step on it.

use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use results::RunDir;
use schema::{DenseProtocol, RunPlan};
use tasks::dense::{self, DenseError, Draws, EpochOrder, normalise_into, train_sample};

use super::Opened;
use super::evaluate::Validator;
use super::features::Encoder;
use super::kept::{Cache, Kept};
use super::pictures;
use super::runner::{Runner, Trained};
use super::score::Validation;
use super::step::{Batch, Crop};
use super::windows::Windows;
use crate::backbone::{Backbone, BackboneError};
use crate::device;
use crate::interrupt;
use crate::progress::{Bar, Reporter};
use crate::run::RunError;
use crate::stream::{READAHEAD, ordered};
use crate::upload::{Intake, Uploader};

/// A checkpoint is written at the end of every epoch and, within one, at least this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

/// What the probes of a stream share.
pub(in crate::run) struct Stream<'a> {
    pub(in crate::run) backbone: &'a dyn Backbone,
    pub(in crate::run) device: &'a Device,
    pub(in crate::run) uploader: &'a Uploader,
    pub(in crate::run) dtype: DType,
    pub(in crate::run) data: &'a Opened,
    /// Images that go through the encoder, and through a head that allows it, at a time.
    pub(in crate::run) micro_batch: usize,
    pub(in crate::run) workers: usize,
    pub(in crate::run) head_weights: Option<&'a Path>,
    /// Where validation tokens are kept, and in how many bytes at most.
    pub(in crate::run) cache: Cache<'a>,
    /// How many validation images are pictured.
    pub(in crate::run) pictures: usize,
    pub(in crate::run) reporter: &'a Reporter,
}

/// What every validation of a stream reads.
struct Ground<'a> {
    windows: Windows,
    kept: Option<Kept<'a>>,
    pictured: Vec<usize>,
}

/// A probe's place in a stream: its run, or why it left.
pub(super) struct Slot<'a> {
    dir: &'a RunDir,
    runner: Result<Runner<'a>, RunError>,
}

impl<'a> Slot<'a> {
    pub(super) fn live(&self) -> Option<&Runner<'a>> {
        self.runner.as_ref().ok()
    }

    pub(super) fn live_mut(&mut self) -> Option<&mut Runner<'a>> {
        self.runner.as_mut().ok()
    }

    /// The probe leaves; the others go on.
    pub(super) fn leave(&mut self, error: RunError) {
        note(self.dir, &error);
        self.runner = Err(error);
    }
}

/// Says in a run's folder why it failed, as soon as it did: what ends the stream later may be a kill.
fn note(dir: &RunDir, error: &RunError) {
    if !error.leaves_no_note() {
        // Noted again, with its own errors, when the stream has ended.
        let _ = dir.fail(&error.to_string());
    }
}

/// Trains and validates one probe for each plan, all on one stream; one result a plan, in order. What
/// ends the stream ends every probe that is not done, with its checkpoint written.
pub(in crate::run) fn run(
    stream: &Stream<'_>,
    plans: &[(&RunPlan, &DenseProtocol, &RunDir)],
) -> Vec<Result<Trained, RunError>> {
    let start = |&(plan, protocol, dir): &(_, _, _)| {
        let runner = Runner::start(stream, plan, protocol, dir);
        runner.as_ref().map_or_else(|error| note(dir, error), |_| ());
        Slot { dir, runner }
    };
    let mut slots: Vec<Slot<'_>> = plans.iter().map(start).collect();
    let worked = stream.ground(plans, &slots).and_then(|ground| stream.work(&ground, &mut slots));
    let mut ended = worked.err();
    let interrupted = matches!(ended, Some(RunError::Interrupted));
    let why = ended.as_ref().map(ToString::to_string).unwrap_or_default();
    let results = slots.into_iter().map(|slot| {
        let mut runner = slot.runner?;
        if runner.done() && runner.rows.is_some() {
            return runner.finish(stream);
        }
        runner.checkpoint()?;
        Err(match ended.take() {
            Some(error) if !interrupted => error,
            _ if interrupted => RunError::Interrupted,
            _ => RunError::Stream(why.clone()),
        })
    });
    results.collect()
}

impl<'s> Stream<'s> {
    fn ground(
        &self,
        plans: &[(&RunPlan, &DenseProtocol, &RunDir)],
        slots: &[Slot<'_>],
    ) -> Result<Ground<'s>, RunError> {
        let live = || slots.iter().filter_map(Slot::live);
        let protocols = live().map(|runner| runner.protocol);
        let encoder = self.encoder(protocols);
        let pictured = pictures::places(self.pictures, self.data.set.val.pairs().len());
        let (plan, protocol) = match plans.first() {
            Some((plan, protocol, _)) => (plan, protocol),
            None => return Ok(Ground { windows: Windows::none(), kept: None, pictured }),
        };
        let (sample, evaluation) = (&protocol.sample, &protocol.evaluation);
        let windows = Windows::of(self.data, sample, evaluation, self.micro_batch)?;
        let left = live().map(Runner::validations).max().unwrap_or(0);
        let kept = self.cache.open(self, (plan, protocol), &windows, &encoder, left)?;
        Ok(Ground { windows, kept, pictured })
    }

    /// Steps and validates until every probe is done or has failed. A probe that is behind catches
    /// up first; the others wait for it.
    fn work(&self, ground: &Ground<'_>, slots: &mut [Slot<'_>]) -> Result<(), RunError> {
        loop {
            if slots.iter().filter_map(Slot::live).any(Runner::closes) {
                self.close(ground, slots)?;
                continue;
            }
            let waiting = slots.iter().filter_map(Slot::live).filter(|runner| !runner.done());
            let Some(runner) = waiting.min_by_key(|runner| runner.progress.step) else {
                break;
            };
            let (from, epoch) = (runner.progress.step, runner.epoch);
            self.train(slots, from, (from / epoch + 1) * epoch)?;
        }
        // A run that was interrupted after its last epoch still needs its rows.
        for (at, validation) in self.validate(ground, slots, |runner| runner.rows.is_none())? {
            if let Some(runner) = slots[at].live_mut() {
                runner.take(validation);
            }
        }
        Ok(())
    }

    /// Closes the epoch of every probe that has reached its end, validating together.
    fn close(&self, ground: &Ground<'_>, slots: &mut [Slot<'_>]) -> Result<(), RunError> {
        let closing = |runner: &Runner<'_>| runner.closes() && runner.validates();
        // A validation may take longer than the epoch.
        let live = slots.iter_mut().filter_map(Slot::live_mut);
        live.filter(|runner| closing(runner)).try_for_each(Runner::checkpoint)?;
        let mut found = self.validate(ground, slots, closing)?;
        for (at, slot) in slots.iter_mut().enumerate() {
            let Some(runner) = slot.live_mut().filter(|runner| runner.closes()) else { continue };
            let validation = found.iter().position(|(place, _)| *place == at);
            let validation = validation.map(|place| found.swap_remove(place).1);
            runner.close(validation)?;
        }
        Ok(())
    }

    /// Validates the probes that `wanted` picks, with one encoder pass over the windows. A probe that
    /// fails leaves the stream.
    fn validate(
        &self,
        ground: &Ground<'_>,
        slots: &mut [Slot<'_>],
        wanted: impl Fn(&Runner<'_>) -> bool,
    ) -> Result<Vec<(usize, Validation)>, RunError> {
        let began = Instant::now();
        let live = slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.live()?)));
        let (places, probes): (Vec<usize>, Vec<_>) = live
            .filter(|(_, runner)| wanted(runner))
            .map(|(at, runner)| (at, (&runner.probe, runner.protocol)))
            .unzip();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let encoder = self.encoder(probes.iter().map(|(_, protocol)| *protocol));
        let validator = Validator {
            data: self.data,
            windows: &ground.windows,
            kept: ground.kept.as_ref(),
            pictured: &ground.pictured,
            workers: self.workers,
            uploader: self.uploader,
            reporter: self.reporter,
        };
        let results = validator.validate(&encoder, &probes)?;
        let mut found = Vec::new();
        for (at, result) in places.into_iter().zip(results) {
            match result {
                Ok(validation) => found.push((at, validation)),
                Err(error) => slots[at].leave(error),
            }
            if let Some(runner) = slots[at].live_mut() {
                runner.progress.spent.validate += began.elapsed().as_secs_f64();
            }
        }
        Ok(found)
    }

    /// What the last bits of a product belong to.
    pub(super) fn environment(&self) -> String {
        format!("{}, {} images at a time", device::kind(self.device), self.micro_batch)
    }

    fn encoder<'p>(&self, protocols: impl Iterator<Item = &'p DenseProtocol>) -> Encoder<'s> {
        Encoder::of(self.backbone, self.dtype, self.micro_batch, protocols)
    }

    /// Steps `from..to`, within one epoch, for every probe that is at the step's index.
    fn train(&self, slots: &mut [Slot<'_>], from: u64, to: u64) -> Result<(), RunError> {
        let first = slots.iter().find_map(Slot::live).map(|runner| (runner.protocol, runner.epoch));
        let Some((protocol, steps)) = first else { return Ok(()) };
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
        let (files, form) = (self.data.set.train.files(), self.data.form);
        let intake = Intake::new(self.uploader, |image, out: &mut [f32]| {
            normalise_into(image, form, sample, out);
        });
        let intake = intake.map_err(BackboneError::Candle)?;
        let make = |i: usize| -> Result<Crop, DenseError> {
            if let Some(later) = indices.get(i + READAHEAD).map(|&later| &pairs[later]) {
                files.prefetch(&later.image);
                files.prefetch(&later.target);
            }
            let index = indices[i];
            let pair = &pairs[index];
            let (image, target) = dense::load(files, pair, sample.border, self.data.form)?;
            let draw = draws.at(epoch, index, target.dim(), sample);
            let file = files.place(&pair.image);
            let (image, target) = train_sample(&file, image.view(), &target, &draw, sample)?;
            Ok(Crop { pixels: intake.pixels(image), target })
        };
        let live =
            slots.iter().filter_map(Slot::live).filter(|r| r.progress.step < to && !r.done());
        let encoder = self.encoder(live.map(|r| r.protocol));
        let epochs = slots.iter().filter_map(Slot::live).map(|r| r.protocol.training.epochs).max();
        let label = format!("{name} epoch {}/{}", epoch + 1, epochs.unwrap_or(training.epochs));
        let bar = self.reporter.items(&label, steps * batch as u64, "images");
        let mut crops = Vec::with_capacity(batch);
        let mut written = Instant::now();
        let objective = protocol.objective.clone();
        let named = |files: &[usize]| -> Vec<String> {
            files.iter().map(|&index| pairs[index].image.to_string()).collect()
        };
        // An error, or none when no probe is left to take these steps.
        let take = |i: usize, crop: Result<Crop, DenseError>| -> Result<(), Option<RunError>> {
            crops.push(crop.map_err(RunError::from)?);
            if crops.len() < batch {
                return Ok(());
            }
            let step = from + (i / batch) as u64;
            let crops = std::mem::take(&mut crops);
            let taken = Batch { step, crops, files: &indices[i + 1 - batch..=i] };
            self.step(slots, taken, &encoder, &intake, &objective, &named)?;
            let checkpoint = written.elapsed() > CHECKPOINT_EVERY;
            if checkpoint || (step + 1).is_multiple_of(self.uploader.read_every() as u64) {
                self.settle(slots, &named)?;
            }
            self.show(&bar, slots, (step % steps + 1) * batch as u64);
            if checkpoint {
                slots.iter_mut().filter_map(Slot::live_mut).try_for_each(Runner::checkpoint)?;
                written = Instant::now();
            }
            if interrupt::requested() {
                return Err(Some(RunError::Interrupted));
            }
            let left = |slot: &Slot<'_>| slot.live().is_some_and(|r| r.progress.step == step + 1);
            if slots.iter().any(left) { Ok(()) } else { Err(None) }
        };
        let ended = ordered(0..indices.len(), self.workers, 2 * batch, make, take);
        // What follows, whatever it is, may write checkpoints.
        let settled = self.settle(slots, &named);
        match ended {
            Err(Some(error)) => Err(error),
            Ok(()) | Err(None) => settled,
        }
    }

    fn show(&self, bar: &Bar, slots: &[Slot<'_>], done: u64) {
        let notes = slots.iter().filter_map(Slot::live).filter_map(Runner::loss_and_rate);
        bar.note(&notes.collect::<Vec<_>>().join(", "));
        bar.set(done);
    }
}
