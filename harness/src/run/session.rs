//! One command's runs: find everything, plan everything, then carry it out cell by cell.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use jiff::{Timestamp, Unit};
use results::Store;
use schema::{HostRecord, Outcome, RunPlan, RunRecord, Stages, TaskHead};

use super::extract::Extraction;
use super::knn::Opened;
use super::{RunError, knn};
use crate::backbone::{Backbone, Placement};
use crate::bank::{self, Bank};
use crate::device::{self, DeviceChoice};
use crate::hub::HubOptions;
use crate::interrupt;
use crate::locate;
use crate::progress::Reporter;
use crate::resolve::{Resolved, Resolver};

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
    /// `--arch`.
    pub arch: Option<String>,
    /// `--offline`.
    pub offline: bool,
    /// `--device`.
    pub device: DeviceChoice,
    /// `--dtype`.
    pub dtype: Option<DType>,
    /// Images in one encoder pass.
    pub batch_size: usize,
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

struct Host {
    device: Device,
    dtype: DType,
    store: Store,
    cache: PathBuf,
}

/// An encoder that is loaded when its first run needs it.
struct Lazy<'a> {
    resolved: &'a Resolved,
    loaded: OnceCell<(Box<dyn Backbone>, Duration)>,
}

/// Carries a request out. Errors before any work end it; a run that fails is recorded, and the
/// others go on.
pub fn execute(request: &Request, reporter: &Reporter) -> Result<Report, RunError> {
    if request.backbones.is_empty() {
        return Err(RunError::NoBackbone);
    }
    let store = Store::open(&request.out)?;
    store.check_writable()?;
    let cache = locate::cache();
    bank::check_writable(&cache)?;
    let device = device::open(request.device)?;
    let dtype = device::dtype(request.dtype, &device);
    let host = Host { device, dtype, store, cache };
    let present = present(request, reporter)?;
    if present.is_empty() {
        return Ok(Report::default());
    }
    let hub = HubOptions::from_env(request.offline);
    let resolver = Resolver { arch: request.arch.as_deref(), hub, reporter };
    let resolved: Vec<Resolved> =
        request.backbones.iter().map(|spec| resolver.resolve(spec)).collect::<Result<_, _>>()?;
    let data = open_data(request, present, &host.cache, reporter)?;
    let mut plans = Vec::new();
    for resolved in &resolved {
        let record = resolved.record()?;
        let cells = request.cells.iter().filter_map(|cell| Some((cell, data.get(&cell.dataset)?)));
        let dtype = (dtype.as_str(), device::dtype(None, &host.device).as_str());
        let cells: Vec<(RunPlan, &Opened)> = cells
            .map(|(cell, data)| {
                let plan = knn::plan(request, cell, resolved, &record, data, dtype, reporter)?;
                Ok((plan, data))
            })
            .collect::<Result<_, RunError>>()?;
        plans.push((Lazy { resolved, loaded: OnceCell::new() }, cells));
    }
    let mut report = Report::default();
    for (lazy, cells) in plans {
        for (plan, data) in cells {
            carry_out(request, &host, &lazy, plan, data, reporter, &mut report)?;
        }
    }
    Ok(report)
}

/// Runs one cell, unless it is done already. A run that fails is noted and does not end the others.
fn carry_out(
    request: &Request,
    host: &Host,
    lazy: &Lazy<'_>,
    plan: RunPlan,
    data: &Opened,
    reporter: &Reporter,
    report: &mut Report,
) -> Result<(), RunError> {
    let label = format!("{} {}", plan.task, plan.backbone.name);
    match one_unless_done(request, host, lazy, &plan, data, reporter, &label) {
        Ok((mut record, kept)) => {
            // Shown under the name asked for now, which may differ for the same weights.
            record.plan.backbone = plan.backbone;
            report.records.push(record);
            report.kept += usize::from(kept);
        }
        Err(RunError::Interrupted) => return Err(RunError::Interrupted),
        Err(error) => report.failed.push((label, error)),
    }
    Ok(())
}

/// The record of a cell, and whether it was there before.
fn one_unless_done(
    request: &Request,
    host: &Host,
    lazy: &Lazy<'_>,
    plan: &RunPlan,
    data: &Opened,
    reporter: &Reporter,
    label: &str,
) -> Result<(RunRecord, bool), RunError> {
    if let Some(record) = host.store.finished(plan)? {
        let folder = host.store.folder(plan)?;
        reporter.say(format!("{label}: already done, nothing to do ({})", folder.display()));
        return Ok((record, true));
    }
    let dir = host.store.begin(plan)?;
    reporter.say(format!("{label}: protocol {}", plan.protocol.name));
    let outcome = one(request, host, lazy, plan, data, reporter);
    let finished = outcome.and_then(|(outcome, rows)| Ok(dir.finish(&outcome, &rows)?));
    match &finished {
        Ok(_) => reporter.detail(format!("{label}: {}", dir.folder().display())),
        Err(RunError::Interrupted) => {}
        Err(error) => {
            if let Err(unnoted) = dir.fail(&error.to_string()) {
                reporter.warn(format!("{label}: the failure could not be noted: {unnoted}"));
            }
        }
    }
    Ok((finished?, false))
}

fn one(
    request: &Request,
    host: &Host,
    lazy: &Lazy<'_>,
    plan: &RunPlan,
    data: &Opened,
    reporter: &Reporter,
) -> Result<(Outcome, Vec<schema::PredictionRow>), RunError> {
    let (started, began) = (Timestamp::now(), Instant::now());
    let Stages::Knn(protocol) = &plan.protocol.stages;
    let device = device::name(&host.device);
    let bank = Bank::open(&host.cache, &knn::bank_key(plan, &device))?;
    let extraction = Extraction {
        device: &host.device,
        protocol,
        width: plan.backbone.width,
        bank: &bank,
        root: data.images.train.root(),
        micro_batch: request.batch_size,
        workers: request.workers.unwrap_or_else(device::threads),
        skip_bad_images: request.skip_bad_images,
        reporter,
    };
    let mut load = || lazy.get(host);
    let measured = knn::measure(&extraction, &data.images, &mut load, reporter)?;
    let mut seconds: BTreeMap<String, f64> = measured.seconds;
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
        host: HostRecord {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("PIXIO_EVAL_COMMIT").to_owned(),
            device,
            cpu: device::cpu_model(),
            threads: device::threads(),
        },
        started: rfc3339(started),
        finished: rfc3339(Timestamp::now()),
        warnings: Vec::new(),
        skipped_images: measured.skipped,
    };
    Ok((outcome, measured.rows))
}

impl Lazy<'_> {
    fn get(&self, host: &Host) -> Result<&dyn Backbone, RunError> {
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

fn rfc3339(at: Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(at).to_string()
}

/// The request's data sets that are there, with their folders; sample data is made later.
fn present(request: &Request, reporter: &Reporter) -> Result<BTreeMap<String, PathBuf>, RunError> {
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
            reporter.say(format!("{name}: skipped, not at {}", folder.display()));
        }
    }
    Ok(present)
}

/// Lists the data sets, by name.
fn open_data(
    request: &Request,
    present: BTreeMap<String, PathBuf>,
    cache: &Path,
    reporter: &Reporter,
) -> Result<BTreeMap<String, Opened>, RunError> {
    let mut open = BTreeMap::new();
    let measured = |name: &String| request.cells.iter().any(|cell| cell.dataset == *name);
    for (name, folder) in present.into_iter().filter(|(name, _)| measured(name)) {
        let folder = match request.sample {
            true => locate::sample(&name, cache, reporter)?,
            false => folder,
        };
        if interrupt::requested() {
            return Err(RunError::Interrupted);
        }
        let opened = knn::open(&name, &folder, request.limit, request.seed)?;
        open.insert(name, opened);
    }
    Ok(open)
}
