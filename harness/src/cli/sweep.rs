//! `pixio-eval sweep`, and the worker that it starts.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser};
use results::{Store, TableOptions, write_whole};

use super::args::{Cli, Command};
use super::options::{CommonOptions, positive};
use super::run::{dry_run, finish};
use super::{CliError, EXIT_DONE, EXIT_FAILED, confirmed, print};
use crate::device::{self, Chosen, DeviceChoice};
use crate::progress::Reporter;
use crate::run::{Outlines, Report, Request, RunError, datasets, outline, streams};
use crate::sweep::claims::Timing;
use crate::sweep::file::{self, Given, Sweep};
use crate::sweep::launch::{self, Config, Job, JobKind, Launch, Launcher};
use crate::sweep::local::{self, Device, Local, parse_devices};
use crate::sweep::plan::{SweepPlan, schedule};
use crate::sweep::schedule::DeviceCost;
use crate::sweep::work::{Ended, Work, work};
use crate::sweep::{State, SweepError};

/// Combinations above which a sweep is confirmed.
const MANY: u128 = 10_000;
/// Seconds of silence after which a worker counts as dead.
const EXPIRY_SECONDS: &str = "PIXIO_EVAL_CLAIM_EXPIRY";

/// `pixio-eval sweep`.
#[derive(Args, Clone, Debug)]
pub struct SweepArgs {
    /// A TOML file of axes, or the name of a ready-made sweep (without either: what there is)
    #[arg(value_name = "FILE|NAME")]
    pub file: Option<String>,
    /// Backbones in place of the file's; repeatable
    #[arg(long, value_name = "B")]
    pub backbone: Vec<String>,
    /// Name of the sweep's folder (default: the file's)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// In every cell, use N samples of each split
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// In every cell, N passes over the training data
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// One worker each: GPU indices, cuda:N, cpu, or cpu*N for N workers, with commas (default: --device)
    #[arg(long, value_name = "LIST")]
    pub devices: Option<String>,
    /// Who starts the workers: local (this command), slurm (sbatch), or print (scripts for another
    /// scheduler)
    #[arg(long, value_name = "NAME", default_value = "local", value_parser = ["local", "slurm", "print"])]
    pub launcher: String,
    /// Account, resources and setup of jobs (default: slurm.toml beside the sweep's file, if there)
    #[arg(long, value_name = "FILE")]
    pub launcher_config: Option<PathBuf>,
    /// Workers that a launcher starts (default: one for each stream of cells that share their images, at
    /// most 64)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub jobs: Option<usize>,
    /// Do not ask before a very large sweep
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    /// Where and how.
    pub common: CommonOptions,
}

/// `pixio-eval work`.
#[derive(Args, Clone, Debug)]
pub struct WorkArgs {
    /// State folder of a sweep
    pub state: PathBuf,
    /// The launch it belongs to
    #[arg(long, value_name = "ID")]
    pub launch: Option<String>,
    /// Device (default: the sweep's)
    #[arg(long)]
    pub device: Option<DeviceChoice>,
    /// Name of the device in overviews
    #[arg(long = "as", value_name = "NAME")]
    pub named: Option<String>,
    /// Make k-NN features alone
    #[arg(long)]
    pub extract: bool,
    /// Write the table of the finished cells and end
    #[arg(long, conflicts_with = "extract")]
    pub table: bool,
    /// Workers that share this machine's memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub share: u64,
    /// Process whose end ends this one
    #[arg(long, value_name = "ID")]
    pub parent: Option<u32>,
}

pub(super) fn sweep(args: &SweepArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let Some(given) = &args.file else { return list() };
    let source = file::source(given)?;
    let standard = if args.common.sample { "sample" } else { "pixio" };
    let asked = Given { backbones: args.backbone.clone(), protocol: standard.to_owned() };
    let sweep = Sweep::parse(&source.text, &source.origin, &asked)?;
    confirm(sweep.combinations(), args.yes)?;
    let mut expanded = sweep.cells()?;
    for warning in &expanded.warnings {
        reporter.warn(warning.to_string());
    }
    for cell in &mut expanded.cells {
        cell.settings.limit = args.limit.or(cell.settings.limit);
        if cell.task.head != "knn" {
            cell.settings.epochs = args.epochs.or(cell.settings.epochs);
        }
    }
    let why = [
        (expanded.without_head, "of heads that a data set does not have"),
        (expanded.excluded, "left out by rules"),
        (expanded.merged, "that a head does not tell apart"),
    ];
    let why: Vec<String> = why
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("{count} {why}"))
        .collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
    reporter.say(format!(
        "{}: {} cells of {} combinations{why}",
        sweep.name,
        expanded.cells.len(),
        expanded.combinations
    ));
    let required = datasets(&expanded.cells);
    let mut request = args.common.request(expanded.cells, required)?;
    let devices = match &args.devices {
        Some(devices) => parse_devices(devices)?,
        None => vec![this_device(args.common.compute.device)],
    };
    if args.devices.is_some() {
        request.device = devices[0].choice;
    }
    let names: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
    if args.common.dry_run {
        request.required.clear();
        return dry_run(&request, &names, args.common.json, reporter);
    }
    let gpus = cfg!(feature = "cuda") && request.device == DeviceChoice::Auto;
    if args.launcher != "local" && gpus && request.dtype.is_none() {
        let here = device::choose(request.device).map_err(RunError::from)?;
        if matches!(here, Chosen::Cpu { .. }) {
            return Err(SweepError::NeedsType.into());
        }
    }
    let outlines = outline(&request, false, reporter)?;
    let name = args.name.clone().unwrap_or_else(|| sweep.name.clone());
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(SweepError::Name(name).into());
    }
    let expiry = timing()?.expiry;
    let state = State::of(&absolute(&request.out), &name);
    state.create()?;
    let slots = match args.launcher.as_str() {
        "local" => devices.len(),
        // A task a stream: more would encode a stream's images more than once.
        _ => args.jobs.unwrap_or_else(|| streams(&outlines.runs).len().clamp(1, 64)),
    };
    let share = devices.first().map_or(1, |device| device.share) as u64;
    let costs = vec![DeviceCost { speed: 1.0, memory: outlines.memory / share }; slots];
    let (paper, units, _) = schedule(&outlines, &costs)?;
    let words = std::env::args_os().skip(1).map(std::ffi::OsString::into_string);
    let arguments = words.collect::<Result<Vec<String>, _>>().map_err(CliError::NotText)?;
    let mut plan = SweepPlan::new(&name, arguments, &request.cells, &outlines, units);
    plan.launch = launch_id();
    if let Some(before) = SweepPlan::read(&state)? {
        plan.check_before(&before, &state.plan())?;
    }
    let cancelled = state.cancelled();
    if state.is_cancelled() {
        fs::remove_file(&cancelled).map_err(SweepError::io("remove", &cancelled))?;
    }
    plan.write(&state)?;
    forget_failures(&plan, &outlines, &request)?;
    reporter.say(format!(
        "{name}: {} units, {} passes of an encoder over its data ({} if every cell ran alone); {}",
        plan.units.len(),
        paper.passes.shared,
        paper.passes.alone,
        state.folder().display()
    ));
    let program = std::env::current_exe()
        .map_err(|error| CliError::Output { what: "workers".to_owned(), why: error.to_string() })?;
    if args.launcher != "local" {
        return launched(args, &source.origin, &plan, &state, (program, slots), reporter);
    }
    if !plan.units.is_empty() {
        let (launch, devices) = (plan.launch.as_str(), &devices);
        Local { state: &state, launch, devices, program, expiry, reporter }.run()?;
    }
    let report = report(&plan, &outlines, &request)?;
    if report.records.len() + report.failed.len() < plan.cells.len() {
        return Err(RunError::Interrupted.into());
    }
    finish(report, &args.common, reporter)
}

/// The ready-made sweeps.
fn list() -> Result<u8, CliError> {
    let mut text = String::new();
    for (name, sweep) in file::READY {
        text += &format!("{name:<16} {}\n", file::title(sweep));
    }
    print(text.as_bytes())?;
    Ok(EXIT_DONE)
}

fn confirm(combinations: u128, yes: bool) -> Result<(), CliError> {
    if combinations <= MANY || yes {
        return Ok(());
    }
    let asked = std::io::stdin().is_terminal();
    match asked && confirmed(&format!("the sweep has {combinations} combinations: go on?")) {
        true => Ok(()),
        false => Err(CliError::ManyCells(combinations)),
    }
}

fn this_device(choice: DeviceChoice) -> Device {
    Device { name: choice.to_string(), choice, threads: None, share: 1 }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// A name that no other launch has: the time, and this process.
fn launch_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    format!("{now}-{}", std::process::id())
}

/// Beats and expiry: `$PIXIO_EVAL_CLAIM_EXPIRY` seconds, else a minute.
pub(super) fn timing() -> Result<Timing, CliError> {
    let Ok(text) = std::env::var(EXPIRY_SECONDS) else { return Ok(Timing::default()) };
    let expiry = text.parse::<f64>().ok().filter(|seconds| *seconds >= 1.0);
    let expiry = expiry.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let expiry = expiry.ok_or(CliError::Expiry { name: EXPIRY_SECONDS, found: text })?;
    Ok(Timing { beat: expiry / 12, expiry })
}

/// Hands the plan to a scheduler.
fn launched(
    args: &SweepArgs,
    origin: &str,
    plan: &SweepPlan,
    state: &State,
    (program, most): (PathBuf, usize),
    reporter: &Reporter,
) -> Result<u8, CliError> {
    let config = Config::find(args.launcher_config.as_deref(), Path::new(origin))?;
    let gpu = cfg!(feature = "cuda") && args.common.compute.device != DeviceChoice::Cpu;
    let command = |more: &[&str]| {
        let program = program.clone().into_os_string();
        let state = state.folder().as_os_str().to_owned();
        let mut all = vec![program, "work".into(), state, "--launch".into()];
        all.push(plan.launch.clone().into());
        all.extend(more.iter().map(|word| (*word).into()));
        all
    };
    let extracts = plan.units.iter().filter(|unit| unit.extract).count();
    let probes = plan.units.len() - extracts;
    let mut jobs: Vec<Job> = Vec::new();
    let mut add = |kind, command, tasks: usize, gpu| {
        if tasks > 0 {
            let after = jobs.len().checked_sub(1);
            let most = Some(most).filter(|&most| most < tasks);
            jobs.push(Job {
                kind,
                command,
                tasks,
                most,
                after,
                gpu,
                minutes: None,
                memory_gb: None,
            });
        }
    };
    add(JobKind::Extract, command(&["--extract"]), extracts, gpu);
    add(JobKind::Probe, command(&[]), probes.min(most), gpu);
    add(JobKind::Table, command(&["--table"]), 1, false);
    let launch = Launch {
        state: state.folder().to_path_buf(),
        name: plan.name.clone(),
        id: plan.launch.clone(),
        directory: plan.folder.clone(),
    };
    let launcher: Box<dyn Launcher> = match args.launcher.as_str() {
        "slurm" => Box::new(launch::Slurm { search: search_path(), config }),
        _ => Box::new(launch::Print { config }),
    };
    let launched = launcher.launch(&launch, &jobs)?;
    for script in &launched.scripts {
        print(format!("{}\n", script.display()).as_bytes())?;
    }
    if !launched.ids.is_empty() {
        reporter.say(format!("jobs {}", launched.ids.join(", ")));
    }
    let out = args.common.out.display();
    reporter.say(format!(
        "`pixio-eval runs watch {name} --out {out}` follows them, `pixio-eval runs cancel {name} --out {out}` \
         ends them",
        name = plan.name
    ));
    Ok(EXIT_DONE)
}

pub(super) fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// What failed before is tried again: old words must not pass for new ones.
fn forget_failures(
    plan: &SweepPlan,
    outlines: &Outlines,
    request: &Request,
) -> Result<(), CliError> {
    let store = Store::open(&request.out).map_err(RunError::from)?;
    for (cell, _) in plan.cells.iter().zip(&outlines.runs).filter(|(_, run)| !run.finished) {
        let folder = store.folder(&cell.plan).map_err(RunError::from)?;
        let _ = fs::remove_file(folder.join("failed.txt"));
    }
    Ok(())
}

/// What became of a plan's cells.
fn report(plan: &SweepPlan, outlines: &Outlines, request: &Request) -> Result<Report, CliError> {
    let store = Store::open(&request.out).map_err(RunError::from)?;
    let mut report = Report::default();
    for (cell, run) in plan.cells.iter().zip(&outlines.runs) {
        if let Some(record) = store.finished(&cell.plan).map_err(RunError::from)? {
            report.kept += usize::from(run.finished);
            report.done(record, &cell.plan);
            continue;
        }
        let folder = store.folder(&cell.plan).map_err(RunError::from)?;
        if let Ok(why) = fs::read_to_string(folder.join("failed.txt")) {
            report.failed(&cell.plan, RunError::Stream(why.trim_end().to_owned()));
        }
    }
    Ok(report)
}

/// A worker of a sweep.
pub(super) fn work_on(args: &WorkArgs, reporter: Reporter) -> Result<u8, CliError> {
    let state = State::at(&absolute(&args.state));
    let launch = args.launch.clone().unwrap_or_else(launch_id);
    let plan = SweepPlan::of_launch(&state, &launch)?;
    // Paths of the sweep's command start there.
    if !plan.folder.is_dir() {
        return Err(SweepError::NoFolder { folder: plan.folder }.into());
    }
    std::env::set_current_dir(&plan.folder).map_err(SweepError::io("go to", &plan.folder))?;
    let name = std::iter::once("pixio-eval".to_owned());
    let parsed = Cli::try_parse_from(name.chain(plan.arguments.iter().cloned()));
    let Ok(Cli { command: Command::Sweep(sweep), .. }) = parsed else {
        let why = "its arguments are those of another version".to_owned();
        return Err(SweepError::Plan { path: state.plan(), why }.into());
    };
    let mut request = sweep.common.request(Vec::new(), Vec::new())?;
    if let Some(device) = args.device {
        request.device = device;
    }
    if args.share > 1 {
        let device = device::open(request.device, &reporter).map_err(RunError::from)?;
        let memory = request.memory.unwrap_or_else(|| device::free_memory(&device) / 10 * 9);
        request.memory = Some(memory / args.share);
    }
    if args.table {
        return table(&plan, &state, &request);
    }
    let device = args.named.clone().unwrap_or_else(|| request.device.to_string());
    let ended = work(
        &Work {
            state: &state,
            launch: &launch,
            device: &device,
            request,
            extract_only: args.extract,
            parent: args.parent,
            timing: timing()?,
        },
        reporter,
    )?;
    match ended {
        Ended::Done => Ok(EXIT_DONE),
        Ended::Failed(_) => Ok(local::FAILED),
        Ended::Stopped => Err(RunError::Interrupted.into()),
    }
}

/// Writes `table.txt` and `table.csv` into the state folder; status 1 where cells are missing.
fn table(plan: &SweepPlan, state: &State, request: &Request) -> Result<u8, CliError> {
    let store = Store::open(&request.out).map_err(RunError::from)?;
    let mut records = Vec::new();
    for cell in &plan.cells {
        records.extend(store.finished(&cell.plan).map_err(RunError::from)?);
    }
    for (format, name) in
        [(results::Format::Text, "table.txt"), (results::Format::Csv, "table.csv")]
    {
        let path = state.folder().join(name);
        let bytes = match records.is_empty() {
            true => Vec::new(),
            false => results::render(&records, format, &TableOptions::default())
                .map_err(RunError::from)?,
        };
        write_whole(&path, &bytes).map_err(SweepError::io("write", &path))?;
        if name == "table.txt" {
            print(&bytes)?;
        }
    }
    let left = plan.cells.len() - records.len();
    if left > 0 {
        eprintln!("{left} of {} cells are not done: the same command continues", plan.cells.len());
        return Ok(EXIT_FAILED);
    }
    Ok(EXIT_DONE)
}
