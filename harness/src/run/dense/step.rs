//! One step of every probe that is at it, and when its loss is looked at: on the CPU at once, on a device
//! that computes beside the host once for many steps, so that it never waits for the host.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor};
use heads::dense::{Deferred, HeadError, Targets};
use rayon::prelude::*;
use schema::Objective;
use tasks::dense::Target;

use super::features::{Encoder, Taps, taps_of};
use super::runner::Runner;
use super::train::{Slot, Stream};
use crate::backbone::BackboneError;
use crate::run::RunError;
use crate::upload::{Intake, Mark, Pixels};

/// A training crop and its target.
pub(super) struct Crop {
    pub(super) pixels: Pixels,
    pub(super) target: Target,
}

/// What a step is taken on.
pub(super) struct Batch<'a> {
    pub(super) step: u64,
    pub(super) crops: Vec<Crop>,
    /// Places of the samples in the split.
    pub(super) files: &'a [usize],
}

/// A step whose loss nobody has looked at.
pub(super) struct Taken {
    deferred: Deferred,
    files: Rc<[usize]>,
    /// The beginning of the step, and the end of its encoding.
    encoded: Rc<(Mark, Rc<Mark>)>,
    /// Where the probe's own work begins and ends.
    trained: (Rc<Mark>, Rc<Mark>),
}

impl Taken {
    /// Loss groups without a valid pixel.
    pub(super) fn skipped_groups(&self) -> usize {
        self.deferred.skipped_groups()
    }
}

fn candle(error: candle_core::Error) -> RunError {
    BackboneError::Candle(error).into()
}

/// A probe leaves with such an error, unless the device failed: that is the stream's matter.
fn leaving(slot: &mut Slot<'_>, error: RunError) -> Result<(), RunError> {
    if error.fault().is_some() {
        return Err(error);
    }
    slot.leave(error);
    Ok(())
}

impl Stream<'_> {
    /// One step of every probe that is at it. A probe that fails leaves the stream; the others go on.
    pub(super) fn step(
        &self,
        slots: &mut [Slot<'_>],
        batch: Batch<'_>,
        encoder: &Encoder<'_>,
        intake: &Intake<'_>,
        objective: &Objective,
        named: &dyn Fn(&[usize]) -> Vec<String>,
    ) -> Result<(), RunError> {
        let Batch { step, crops, files } = batch;
        let (pixels, targets): (Vec<_>, Vec<_>) =
            crops.into_iter().map(|crop| (crop.pixels, crop.target)).unzip();
        let (began, start) = (Instant::now(), self.uploader.mark().map_err(candle)?);
        let taps: Taps = encoder.encode(&pixels, intake)?;
        let targets = self.targets(&targets, objective).map_err(candle)?;
        if self.uploader.read_every() == 1 {
            self.device.synchronize().map_err(candle)?;
        }
        let encoding = began.elapsed().as_secs_f64();
        let mut from = Rc::new(self.uploader.mark().map_err(candle)?);
        let encoded = Rc::new((start, Rc::clone(&from)));
        let places: Rc<[usize]> = files.into();
        for slot in slots.iter_mut() {
            let waits = |runner: &&mut Runner<'_>| runner.progress.step == step && !runner.done();
            let Some(runner) = slot.live_mut().filter(waits) else { continue };
            let taps = taps_of(&taps, &runner.protocol.feature);
            if self.uploader.read_every() > 1 {
                match runner.probe.train_step_deferred(&taps, &targets) {
                    Ok(deferred) => {
                        let to = Rc::new(self.uploader.mark().map_err(candle)?);
                        let trained = (std::mem::replace(&mut from, Rc::clone(&to)), to);
                        let (files, encoded) = (Rc::clone(&places), Rc::clone(&encoded));
                        runner.take_step(Taken { deferred, files, encoded, trained });
                    }
                    Err(error) => leaving(slot, error.into())?,
                }
                continue;
            }
            let began = Instant::now();
            let failed = match runner.probe.train_step(&taps, &targets) {
                Ok(report) => {
                    runner.note(&report);
                    let spent = &mut runner.progress.spent;
                    spent.encode += encoding;
                    spent.train += began.elapsed().as_secs_f64();
                    spent.images += pixels.len() as u64;
                    continue;
                }
                Err(source @ HeadError::NonFinite { .. }) => {
                    RunError::Diverged { source, files: named(files) }
                }
                Err(error) => error.into(),
            };
            leaving(slot, failed)?;
        }
        Ok(())
    }

    /// Looks at the steps that nobody has looked at, in one transfer. A probe that has diverged leaves.
    pub(super) fn settle(
        &self,
        slots: &mut [Slot<'_>],
        named: &dyn Fn(&[usize]) -> Vec<String>,
    ) -> Result<(), RunError> {
        let live = slots.iter().filter_map(Slot::live);
        let waiting: Vec<&Tensor> =
            live.flat_map(|runner| &runner.taken).filter_map(|t| t.deferred.values()).collect();
        let values: Vec<f32> = match waiting.is_empty() {
            true => Vec::new(),
            false => Tensor::cat(&waiting, 0)
                .and_then(|all| self.uploader.read(&all.to_dtype(DType::F32)?)?.values())
                .map_err(candle)?,
        };
        let mut rest = values.as_slice();
        for slot in slots {
            let Some(runner) = slot.live_mut() else { continue };
            let mut failed = None;
            for Taken { deferred, files, encoded, trained } in std::mem::take(&mut runner.taken) {
                let count = deferred.values().map_or(0, Tensor::elem_count);
                let (mine, others) = rest.split_at(count.min(rest.len()));
                rest = others;
                if failed.is_some() {
                    continue;
                }
                match deferred.report(mine) {
                    Ok(report) => runner.note_loss(report.loss),
                    Err(source) => {
                        failed = Some(RunError::Diverged { source, files: named(&files) });
                    }
                }
                let spent = &mut runner.progress.spent;
                let (start, end) = &*encoded;
                spent.encode += start.seconds_to(end).unwrap_or_default();
                spent.train += trained.0.seconds_to(&trained.1).unwrap_or_default();
                spent.images += files.len() as u64;
            }
            if let Some(error) = failed {
                slot.leave(error);
            }
        }
        Ok(())
    }

    /// Targets of a batch. On a device beside the host they are there for every probe, and the host knows
    /// which samples have a valid pixel.
    fn targets(&self, targets: &[Target], objective: &Objective) -> candle_core::Result<Targets> {
        let (height, width) = targets.first().map_or((0, 0), Target::dim);
        let shape = [targets.len(), height, width];
        let (mut metres, mut labels) = (Vec::new(), Vec::new());
        for target in targets {
            match target {
                Target::Depth(map) => metres.extend(map.as_slice()),
                Target::Labels(map) => labels.extend(map.as_slice()),
            }
        }
        if let (Objective::Depth { min, max }, true) = (objective, labels.is_empty()) {
            let (min, max) = (*min as f32, *max as f32);
            let within = |metres: &f32| (min..=max).contains(metres);
            let valid = self.uploader.is_beside().then(|| -> Arc<[bool]> {
                let samples = metres.par_iter().map(|sample| sample.iter().any(within));
                samples.collect::<Vec<_>>().into()
            });
            return Ok(Targets::Depth {
                metres: self.uploader.concat(&metres, &shape[..])?,
                valid,
            });
        }
        let uploaded = match self.uploader.is_beside() {
            true => Some(self.uploader.concat(&labels, &shape[..])?),
            false => None,
        };
        Ok(Targets::Labels { labels: labels.concat().into(), shape, uploaded })
    }
}
