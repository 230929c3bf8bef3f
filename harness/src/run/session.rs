//! Carrying out what was prepared: backbone by backbone, one record a run.

#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use jiff::{Timestamp, Unit};
use results::{RunDir, Store};
use schema::{HostRecord, Outcome, RunPlan, RunRecord, SampleRows};

use super::memory::BatchSize;
use super::prepare::{Data, DataKey, DataSets, Planned, prepared};
use super::request::{Report, Request};
use super::{RunError, dense, knn, memory, policy};
use crate::backbone::{Backbone, BackboneError, Counted, Placement};
use crate::device;
use crate::fault::Fault;
use crate::progress::Reporter;
use crate::resolve::Resolved;
use crate::upload::Uploader;

/// Where a command works.
pub(super) struct Host<'a> {
    pub(super) request: &'a Request,
    pub(super) device: Device,
    /// Takes images there.
    pub(super) uploader: Uploader,
    pub(super) dtype: DType,
    pub(super) store: Store,
    pub(super) cache: PathBuf,
    /// Bytes of the device's memory to plan with.
    pub(super) memory: u64,
    pub(super) reporter: &'a Reporter,
}

/// An encoder that is loaded when its first run needs it.
pub(super) struct Lazy<'a> {
    pub(super) resolved: &'a Resolved,
    loaded: OnceCell<(Box<dyn Backbone>, Duration)>,
}

/// What a run has measured.
pub(super) struct Measured {
    pub(super) metrics: Vec<schema::MetricValue>,
    pub(super) curve: Vec<schema::EpochRecord>,
    pub(super) rows: SampleRows,
    pub(super) seconds: BTreeMap<String, f64>,
    pub(super) encoded: u64,
    pub(super) encoding: Duration,
    pub(super) skipped: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) counts: BTreeMap<String, u64>,
}

/// Carries a request out. Errors before any work end it; a run that fails is recorded, and the
/// others go on.
pub fn execute(request: &Request, reporter: &Reporter) -> Result<Report, RunError> {
    prepared(request, reporter, |host, prepared| {
        let mut report = Report::default();
        let mut planned = prepared.planned;
        for (at, resolved) in prepared.resolved.iter().enumerate() {
            let lazy = Lazy::of(resolved);
            let of_it = |planned: &mut Planned| planned.backbone == at;
            let plans = planned.extract_if(.., of_it).collect();
            host.carry_out(&lazy, &prepared.data, plans, &mut report)?;
            drop(lazy);
            resolved.release();
        }
        Ok(report)
    })
}

/// Makes the features that the request's k-NN cells need and does nothing else, sharing the work with other
/// processes that do the same.
pub fn extract(request: &Request, reporter: &Reporter) -> Result<(), RunError> {
    prepared(request, reporter, |host, prepared| {
        for (at, resolved) in prepared.resolved.iter().enumerate() {
            let lazy = Lazy::of(resolved);
            let plans: Vec<&Planned> =
                prepared.planned.iter().filter(|planned| planned.backbone == at).collect();
            for (first, planned) in plans.iter().enumerate() {
                let Some(Data::Images(data)) = prepared.data.get(&planned.data) else { continue };
                let stream = knn::stream(&planned.plan);
                let later = plans[first + 1..].iter().map(|planned| &planned.plan);
                let later: Vec<&RunPlan> =
                    later.filter(|plan| knn::stream(plan) == stream).collect();
                let extracted = knn::extract(host, &lazy, &planned.plan, &later, data);
                extracted.map_err(|error| error.on(&host.device))?;
            }
            drop(lazy);
            resolved.release();
        }
        Ok(())
    })
}

impl Host<'_> {
    /// Runs one backbone's plans: k-NN and policies cell by cell, dense heads stream by stream.
    fn carry_out(
        &self,
        lazy: &Lazy<'_>,
        data: &DataSets<'_>,
        plans: Vec<Planned>,
        report: &mut Report,
    ) -> Result<(), RunError> {
        let mut dense: BTreeMap<(String, String), (DataKey, Vec<Waiting>)> = BTreeMap::new();
        let mut waiting = VecDeque::new();
        for Planned { mut plan, data: key, .. } in plans {
            match self.begin(&mut plan) {
                Ok(Begun::Done(record)) => {
                    report.kept += 1;
                    report.done(*record, &plan);
                }
                Ok(Begun::Started(dir)) => waiting.push_back((plan, dir, key)),
                Err(error) => report.failed(&plan, error),
            }
        }
        while let Some((mut plan, dir, key)) = waiting.pop_front() {
            let at = (Timestamp::now(), Instant::now());
            match data.get(&key) {
                Some(Data::Images(data)) => {
                    let mut dir = dir;
                    let (measured, _held) = loop {
                        let stream = knn::stream(&plan);
                        // What runs of the same stream need is made in the same pass of the encoder.
                        let same = |plan: &RunPlan| knn::stream(plan) == stream;
                        let later = waiting.iter().map(|(plan, ..)| plan);
                        let later: Vec<&RunPlan> = later.filter(|plan| same(plan)).collect();
                        let measured =
                            dense::hold(dir.folder()).map_err(RunError::from).and_then(|lock| {
                                Ok((knn::run(self, lazy, &plan, &later, data)?, lock))
                            });
                        match measured {
                            Ok((measured, held)) => break (Ok(measured), Some(held)),
                            Err(error) => {
                                let later = waiting.iter_mut().map(|(plan, dir, _)| (plan, dir));
                                let later = later.filter(|(plan, _)| same(plan));
                                let runs = std::iter::once((&mut plan, &mut dir)).chain(later);
                                if !self.halve(runs.collect(), &error)? {
                                    break (Err(error), None);
                                }
                            }
                        }
                    };
                    self.end(lazy, plan, &dir, measured, at, report)?;
                }
                Some(Data::Robots(data)) => {
                    let measured = policy::run(self, lazy, &plan, data, &dir);
                    if self.end(lazy, plan, &dir, measured, at, report)? {
                        self.clear(dir.folder());
                    }
                }
                _ => {
                    let stream = dense::stream(&plan).map(|stream| stream.0).unwrap_or_default();
                    let name = plan.task.dataset.clone();
                    let place = dense.entry((name, stream)).or_insert_with(|| (key, Vec::new()));
                    place.1.push((plan, dir));
                }
            }
        }
        for ((name, _), (key, mut runs)) in dense {
            let Some(Data::Pairs(data)) = data.get(&key) else { continue };
            let images = runs.first().map_or(memory::STANDARD, |(plan, _)| plan.micro_batch);
            for stream in self.streams(lazy, &name, images, &runs) {
                let runs = runs.drain(..stream.len()).collect();
                self.dense(lazy, data, images, runs, report)?;
            }
        }
        Ok(())
    }

    /// Removes the checkpoints of a run whose record is written.
    pub(super) fn clear(&self, folder: &Path) {
        if let Err(error) = dense::clear(folder).and_then(|()| policy::clear(folder)) {
            self.reporter.warn(error.to_string());
        }
    }

    /// Starts a run, unless it is done already. One that was begun goes on with as many images at a
    /// time as it began with, unless a number is asked for: the last bits of a product depend on it.
    fn begin(&self, plan: &mut RunPlan) -> Result<Begun, RunError> {
        let label = label(plan);
        if let Some(record) = self.store.finished(plan)? {
            let folder = self.store.folder(plan)?;
            self.clear(&folder);
            self.reporter
                .say(format!("{label}: already done, nothing to do ({})", folder.display()));
            return Ok(Begun::Done(Box::new(record)));
        }
        if let Some(begun) = self.store.begun(plan)?.filter(|b| b.micro_batch != plan.micro_batch) {
            let (before, now) = (begun.micro_batch, plan.micro_batch);
            if let Some(BatchSize::Images(_)) = self.request.batch_size {
                self.reporter.say(format!(
                    "{label}: began with --batch-size {before} and goes on with {now}: last bits may \
                     differ"
                ));
            } else {
                plan.micro_batch = before;
            }
        }
        let dir = self.store.begin(plan)?;
        self.reporter.say(format!("{label}: protocol {}", plan.protocol.name));
        Ok(Begun::Started(dir))
    }

    /// Halves the images at a time of runs that go through the encoder together, where the device had no
    /// memory for them: whether they are to be tried again. Their plans say how many there were.
    pub(super) fn halve(
        &self,
        runs: Vec<(&mut RunPlan, &mut RunDir)>,
        error: &RunError,
    ) -> Result<bool, RunError> {
        let images = runs.first().map_or(0, |(plan, _)| plan.micro_batch);
        if error.fault() != Some(Fault::Memory) || images < 2 {
            return Ok(false);
        }
        self.uploader.release().map_err(BackboneError::Candle)?;
        for (place, (plan, dir)) in runs.into_iter().enumerate() {
            plan.micro_batch = images / 2;
            *dir = self.store.begin(plan)?;
            if place == 0 {
                self.reporter.warn(format!(
                    "{}: {} has no memory for {images} images at a time; it goes on with {}",
                    label(plan),
                    device::name(&self.device),
                    images / 2
                ));
            }
        }
        Ok(true)
    }

    /// Writes a run's record, or notes why it failed; whether it is finished. A failure does not end
    /// the others.
    pub(super) fn end(
        &self,
        lazy: &Lazy<'_>,
        plan: RunPlan,
        dir: &RunDir,
        measured: Result<Measured, RunError>,
        (started, began): (Timestamp, Instant),
        report: &mut Report,
    ) -> Result<bool, RunError> {
        let label = label(&plan);
        let measured = measured.map_err(|error| error.on(&self.device));
        let finished = measured.and_then(|measured| {
            let (outcome, rows) = self.outcome(lazy, measured, started, began);
            Ok(dir.finish(&outcome, &rows)?)
        });
        match finished {
            Ok(record) => {
                self.reporter.detail(format!("{label}: {}", dir.folder().display()));
                report.done(record, &plan);
                Ok(true)
            }
            Err(RunError::Interrupted) => Err(RunError::Interrupted),
            Err(error) => {
                let noted =
                    if error.leaves_no_note() { Ok(()) } else { dir.fail(&error.to_string()) };
                if let Err(unnoted) = noted {
                    self.reporter
                        .warn(format!("{label}: the failure could not be noted: {unnoted}"));
                }
                // Nothing that follows in this process would fare better.
                if error.fault() == Some(Fault::Lost) {
                    return Err(error);
                }
                report.failed(&plan, error);
                Ok(false)
            }
        }
    }

    fn outcome(
        &self,
        lazy: &Lazy<'_>,
        measured: Measured,
        started: Timestamp,
        began: Instant,
    ) -> (Outcome, SampleRows) {
        let mut seconds = measured.seconds;
        if let Some((_, load)) = lazy.loaded.get() {
            seconds.insert("load".to_owned(), load.as_secs_f64());
        }
        seconds.insert("total".to_owned(), began.elapsed().as_secs_f64());
        let rate = measured.encoded as f64 / measured.encoding.as_secs_f64().max(1e-9);
        let outcome = Outcome {
            metrics: measured.metrics,
            seconds,
            images_encoded: measured.encoded,
            images_per_second: (measured.encoded > 0).then_some(rate),
            curve: measured.curve,
            host: HostRecord {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: env!("PIXIO_EVAL_COMMIT").to_owned(),
                device: device::name(&self.device),
                cpu: device::cpu_model(),
                threads: device::threads(),
            },
            started: rfc3339(started),
            finished: rfc3339(Timestamp::now()),
            warnings: measured.warnings,
            counts: measured.counts,
            skipped_images: measured.skipped,
        };
        (outcome, measured.rows)
    }

    /// Type computed in, and the one that is standard on this device.
    pub(super) fn dtypes(&self) -> (&'static str, &'static str) {
        (self.dtype.as_str(), device::dtype(None, &self.device).as_str())
    }

    pub(super) fn batch_size(&self) -> BatchSize {
        // A GPU is idle with less than fits; a processor is not.
        let standard = match self.uploader.is_beside() {
            true => BatchSize::Auto,
            false => BatchSize::Images(memory::STANDARD),
        };
        self.request.batch_size.unwrap_or(standard)
    }

    pub(super) fn workers(&self) -> usize {
        self.request.workers.unwrap_or_else(device::threads)
    }
}

enum Begun {
    Done(Box<RunRecord>),
    Started(RunDir),
}

impl<'a> Lazy<'a> {
    pub(super) fn of(resolved: &'a Resolved) -> Self {
        Self { resolved, loaded: OnceCell::new() }
    }

    pub(super) fn get(&self, host: &Host<'_>) -> Result<&dyn Backbone, RunError> {
        if let Some((backbone, _)) = self.loaded.get() {
            return Ok(&**backbone);
        }
        let began = Instant::now();
        let placement = Placement { device: host.device.clone(), dtype: host.dtype };
        let backbone = self.resolved.load(&placement)?;
        let counted: Box<dyn Backbone> = Box::new(Counted(backbone));
        let (backbone, _) = self.loaded.get_or_init(|| (counted, began.elapsed()));
        Ok(&**backbone)
    }
}

type Waiting = (RunPlan, RunDir);

pub(super) fn label(plan: &RunPlan) -> String {
    format!("{} {}", plan.task, plan.backbone.name)
}

fn rfc3339(at: Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(at).to_string()
}
