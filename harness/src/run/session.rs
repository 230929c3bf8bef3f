//! One command's runs: find everything, plan everything, then carry it out.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use jiff::{Timestamp, Unit};
use results::{RunDir, Store};
use schema::{HostRecord, Outcome, RunPlan, RunRecord, SampleRows, TaskHead};
use tasks::dense::LabelForm;

use super::memory::BatchSize;
use super::{RunError, dense, knn, memory, policy};
use crate::backbone::{Backbone, Placement};
use crate::cache;
use crate::device::{self, DeviceChoice};
use crate::interrupt;
use crate::locate;
use crate::progress::Reporter;
use crate::resolve::{Resolved, Resolver, SourceOptions};
use crate::simulators::SimulatorError;

/// What a command asks for, resolved from its flags.
#[derive(Clone, Debug)]
pub struct Request {
    /// Backbones as given.
    pub backbones: Vec<String>,
    /// Cells to run.
    pub cells: Vec<TaskHead>,
    /// Data sets that must be there; others are left out when they are not.
    pub required: Vec<String>,
    /// Folders of data sets, by name.
    pub data: Vec<(String, PathBuf)>,
    /// Whether generated sample data stands in for every data set.
    pub sample: bool,
    /// Name of the protocol that departures are told from: `pixio` or `sample`.
    pub protocol: String,
    /// Folder for results.
    pub out: PathBuf,
    /// What decides which encoders they are, beside their text.
    pub source: SourceOptions,
    /// `--device`.
    pub device: DeviceChoice,
    /// `--dtype`.
    pub dtype: Option<DType>,
    /// `--batch-size`.
    pub batch_size: Option<BatchSize>,
    /// `--memory-gb`, in bytes.
    pub memory: Option<u64>,
    /// Decoding threads.
    pub workers: Option<usize>,
    /// `--seed`.
    pub seed: u64,
    /// `--limit`.
    pub limit: Option<usize>,
    /// `--k`; empty for the protocol's list.
    pub k: Vec<usize>,
    /// `--temperature`.
    pub temperature: Option<f64>,
    /// `--skip-bad-images`.
    pub skip_bad_images: bool,
    /// `--epochs`, for trained heads.
    pub epochs: Option<usize>,
    /// `--head-weights`.
    pub head_weights: Option<PathBuf>,
    /// `--labels`.
    pub labels: Option<LabelForm>,
    /// `--cache-gb`, in bytes: kept validation features of all data sets.
    pub kept_bytes: u64,
    /// `--pictures`: validation images to picture.
    pub pictures: usize,
}

/// What a command did.
#[derive(Debug, Default)]
pub struct Report {
    /// Records of every cell that is finished now, in running order.
    pub records: Vec<RunRecord>,
    /// How many of them were finished before.
    pub kept: usize,
    /// Cells that failed, with the reason.
    pub failed: Vec<(String, RunError)>,
}

/// Where a command works.
pub(super) struct Host<'a> {
    pub(super) request: &'a Request,
    pub(super) device: Device,
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

/// A data set of either kind, ready to run on.
enum Data<'a> {
    Images(knn::Opened),
    Pairs(dense::Opened),
    Robots(Box<policy::Opened<'a>>),
}

/// Carries a request out. Errors before any work end it; a run that fails is recorded, and the
/// others go on.
pub fn execute(request: &Request, reporter: &Reporter) -> Result<Report, RunError> {
    if request.backbones.is_empty() {
        return Err(RunError::NoBackbone);
    }
    if request.head_weights.is_some() && (request.cells.len(), request.backbones.len()) != (1, 1) {
        return Err(RunError::OneHead);
    }
    let store = Store::open(&request.out)?;
    store.check_writable()?;
    let folder = locate::cache();
    cache::check_writable(&folder)?;
    let device = device::open(request.device)?;
    let dtype = device::dtype(request.dtype, &device);
    let memory = request.memory.unwrap_or_else(|| device::free_memory(&device) / 10 * 9);
    let host = Host { request, device, dtype, store, cache: folder, memory, reporter };
    let present = host.present()?;
    if present.is_empty() {
        return Ok(Report::default());
    }
    let resolver = Resolver::new(request.source.clone(), reporter)?;
    let resolved: Vec<Resolved> =
        request.backbones.iter().map(|spec| resolver.resolve(spec)).collect::<Result<_, _>>()?;
    for resolved in &resolved {
        host.check_grid(resolved, &present)?;
    }
    let data = host.open(present)?;
    let plans: Vec<(Lazy<'_>, Vec<RunPlan>)> = resolved
        .iter()
        .map(|resolved| {
            Ok((Lazy { resolved, loaded: OnceCell::new() }, host.plan(resolved, &data)?))
        })
        .collect::<Result<_, RunError>>()?;
    let mut report = Report::default();
    for (lazy, plans) in plans {
        host.carry_out(&lazy, &data, plans, &mut report)?;
        drop(lazy.loaded);
        lazy.resolved.release();
    }
    Ok(report)
}

impl Host<'_> {
    /// The request's data sets that are there, with their folders; sample data is made later.
    fn present(&self) -> Result<BTreeMap<String, PathBuf>, RunError> {
        let request = self.request;
        let mut present = BTreeMap::new();
        let cells = request.cells.iter().map(|cell| &cell.dataset);
        let names: BTreeSet<&String> = cells.chain(&request.required).collect();
        for name in names {
            let folder = locate::dataset(name, &request.data);
            if request.sample || folder.is_dir() {
                present.insert(name.clone(), folder);
            } else if request.required.contains(name) {
                return Err(RunError::NoData { name: name.clone(), folder });
            } else {
                self.reporter.say(format!("{name}: skipped, not at {}", folder.display()));
            }
        }
        Ok(present)
    }

    /// Says which cells an encoder without a token grid is left out of; an error if those are all.
    fn check_grid(
        &self,
        resolved: &Resolved,
        present: &BTreeMap<String, PathBuf>,
    ) -> Result<(), RunError> {
        if resolved.is_state() {
            return self.check_state(present);
        }
        // The floor is there for k-NN alone, which is no news.
        if resolved.dimensions().patches || resolved.source == "pixels" {
            return Ok(());
        }
        let cells = self.request.cells.iter().filter(|cell| present.contains_key(&cell.dataset));
        let needs = |cell: &&TaskHead| matches!(cell.head.as_str(), "linear" | "dpt");
        let (dense, others): (Vec<&TaskHead>, Vec<&TaskHead>) = cells.partition(needs);
        let tasks: Vec<String> = dense.iter().map(ToString::to_string).collect();
        let (backbone, tasks) = (resolved.name.clone(), tasks.join(", "));
        match (dense.is_empty(), others.is_empty()) {
            (true, _) => {}
            (false, true) => return Err(RunError::NoGrid { backbone, tasks }),
            (false, false) => {
                self.reporter.say(format!("{backbone}: {tasks} skipped, it has no token grid"));
            }
        }
        Ok(())
    }

    /// Says which cells the simulators' true state is left out of; an error if those are all.
    fn check_state(&self, present: &BTreeMap<String, PathBuf>) -> Result<(), RunError> {
        let cells = self.request.cells.iter().filter(|cell| present.contains_key(&cell.dataset));
        let (robots, others): (Vec<&TaskHead>, Vec<&TaskHead>) =
            cells.partition(|cell| cell.head == "policy");
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let others = others.join(", ");
        if robots.is_empty() {
            return Err(RunError::NoState(others));
        }
        if !others.is_empty() {
            self.reporter.say(format!("state: {others} skipped, they have images alone"));
        }
        Ok(())
    }

    /// Lists the data sets of the request's cells, by name.
    fn open(
        &self,
        present: BTreeMap<String, PathBuf>,
    ) -> Result<BTreeMap<String, Data<'_>>, RunError> {
        let request = self.request;
        let mut open = BTreeMap::new();
        for (name, folder) in present {
            let Some(cell) = request.cells.iter().find(|cell| cell.dataset == name) else {
                continue;
            };
            if interrupt::requested() {
                return Err(RunError::Interrupted);
            }
            if cell.head == "policy" {
                if let Some(opened) = self.open_robots(&name, &folder)? {
                    open.insert(name, Data::Robots(Box::new(opened)));
                }
                continue;
            }
            let folder = match request.sample {
                true => locate::sample(&name, &self.cache, self.reporter)?,
                false => folder,
            };
            let opened = match cell.head.as_str() {
                "knn" => Data::Images(knn::open(&name, &folder, request.limit, request.seed)?),
                _ => Data::Pairs(dense::open(&name, &folder, request, self.reporter)?),
            };
            open.insert(name, opened);
        }
        Ok(open)
    }

    /// A suite of robot tasks, unless nothing simulates it here and it was not asked for by name.
    fn open_robots(
        &self,
        suite: &str,
        folder: &Path,
    ) -> Result<Option<policy::Opened<'_>>, RunError> {
        let asked = self.request.required.iter().any(|name| name == suite);
        let opened = match self.request.sample {
            true => policy::open_sample(self, suite),
            false => policy::open(self, suite, folder),
        };
        match opened {
            Err(RunError::Simulator(SimulatorError::NotInstalled { .. })) if !asked => {
                self.reporter.say(format!(
                    "{suite}: skipped, the simulators are not installed: `pixio-eval simulators install`"
                ));
                Ok(None)
            }
            Err(RunError::Simulator(error)) if !asked => {
                self.reporter.warn(format!("{suite}: skipped, {error}"));
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn plan(
        &self,
        resolved: &Resolved,
        data: &BTreeMap<String, Data<'_>>,
    ) -> Result<Vec<RunPlan>, RunError> {
        let record = resolved.record()?;
        let mut plans = Vec::new();
        for cell in &self.request.cells {
            let plan = match data.get(&cell.dataset) {
                None => continue,
                Some(Data::Robots(data)) => policy::plan(self, cell, resolved, &record, data)?,
                Some(Data::Images(_)) if resolved.is_state() => continue,
                Some(Data::Images(data)) => knn::plan(self, cell, resolved, &record, data)?,
                Some(Data::Pairs(_)) if !resolved.dimensions().patches => continue,
                Some(Data::Pairs(data)) => dense::plan(self, cell, resolved, &record, data)?,
            };
            plans.push(plan);
        }
        Ok(plans)
    }

    /// Runs one backbone's plans: k-NN and policies cell by cell, dense heads data set by data set.
    fn carry_out(
        &self,
        lazy: &Lazy<'_>,
        data: &BTreeMap<String, Data<'_>>,
        plans: Vec<RunPlan>,
        report: &mut Report,
    ) -> Result<(), RunError> {
        let mut waiting: BTreeMap<(String, usize), Vec<(RunPlan, RunDir)>> = BTreeMap::new();
        for mut plan in plans {
            let begun = match self.begin(&mut plan) {
                Ok(Begun::Done(record)) => {
                    report.kept += 1;
                    report.done(*record, &plan);
                    continue;
                }
                Ok(Begun::Started(dir)) => dir,
                Err(error) => {
                    report.failed.push((label(&plan), error));
                    continue;
                }
            };
            match data.get(&plan.task.dataset) {
                Some(Data::Images(data)) => {
                    let at = (Timestamp::now(), Instant::now());
                    let measured = dense::hold(begun.folder())
                        .map_err(RunError::from)
                        .and_then(|held| Ok((knn::run(self, lazy, &plan, data)?, held)));
                    let (measured, _held) = match measured {
                        Ok((measured, held)) => (Ok(measured), Some(held)),
                        Err(error) => (Err(error), None),
                    };
                    self.end(lazy, plan, &begun, measured, at, report)?;
                }
                Some(Data::Robots(data)) => {
                    let at = (Timestamp::now(), Instant::now());
                    let measured = policy::run(self, lazy, &plan, data, &begun);
                    if self.end(lazy, plan, &begun, measured, at, report)? {
                        self.clear(begun.folder());
                    }
                }
                _ => {
                    let stream = (plan.task.dataset.clone(), plan.micro_batch);
                    waiting.entry(stream).or_default().push((plan, begun));
                }
            }
        }
        for ((name, images), mut runs) in waiting {
            let Some(Data::Pairs(data)) = data.get(&name) else { continue };
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
                report.failed.push((label, error));
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
        self.request.batch_size.unwrap_or(BatchSize::Images(memory::STANDARD))
    }

    pub(super) fn workers(&self) -> usize {
        self.request.workers.unwrap_or_else(device::threads)
    }
}

enum Begun {
    Done(Box<RunRecord>),
    Started(RunDir),
}

impl Report {
    /// Takes a finished run, shown under the name asked for now, which may differ for the same
    /// weights.
    fn done(&mut self, mut record: RunRecord, plan: &RunPlan) {
        record.plan.backbone = plan.backbone.clone();
        self.records.push(record);
    }
}

impl Lazy<'_> {
    pub(super) fn get(&self, host: &Host<'_>) -> Result<&dyn Backbone, RunError> {
        if let Some((backbone, _)) = self.loaded.get() {
            return Ok(&**backbone);
        }
        let began = Instant::now();
        let placement = Placement { device: host.device.clone(), dtype: host.dtype };
        let backbone = self.resolved.load(&placement)?;
        let (backbone, _) = self.loaded.get_or_init(|| (backbone, began.elapsed()));
        Ok(&**backbone)
    }
}

pub(super) fn label(plan: &RunPlan) -> String {
    format!("{} {}", plan.task, plan.backbone.name)
}

fn rfc3339(at: Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(at).to_string()
}
