use schema::TaskHead;

use super::args::{AllArgs, RunArgs};
use super::options::{CommonOptions, RunOptions};
use super::{CliError, EXIT_DONE, EXIT_FAILED, print, print_json};
use crate::device;
use crate::progress::Reporter;
use crate::run::{Cell, Report, Request, RunError, execute, outline, parse_cell, select_cells};
use crate::sweep::preflight::{cells, preflight};

/// The backbone of `--sample` when none is given.
const SAMPLE_BACKBONE: &str = "random:pixio-nano";
/// The suite of robot tasks of `all --sample`.
const SAMPLE_SUITE: &str = "metaworld";
/// The floor beside it.
const FLOOR: &str = "pixels";

pub(super) fn all(args: AllArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let mut cells = select_cells(&args.tasks, &args.heads)?;
    let options = &args.options;
    let sample = options.common.sample;
    if sample && args.tasks.is_empty() {
        // One suite stands for the four.
        cells.retain(|cell| cell.head != "policy" || cell.dataset == SAMPLE_SUITE);
    }
    let named = options.common.data.iter().map(|(name, _)| name.clone());
    let required = args.tasks.iter().cloned().chain(named).collect();
    let floor = sample.then_some(FLOOR);
    carry_out(&request(options, &cells, required, floor)?, options, reporter)
}

pub(super) fn run(args: RunArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let cells = args.cells.iter().map(|cell| parse_cell(cell)).collect::<Result<Vec<_>, _>>()?;
    let required = cells.iter().map(|cell| cell.dataset.clone()).collect();
    carry_out(&request(&args.options, &cells, required, None)?, &args.options, reporter)
}

fn carry_out(request: &Request, options: &RunOptions, reporter: &Reporter) -> Result<u8, CliError> {
    if options.common.dry_run {
        let request = Request { required: Vec::new(), ..request.clone() };
        let device = device::choose(request.device).map_err(RunError::from)?.to_string();
        return dry_run(&request, &[device], options.common.json, reporter);
    }
    let report = execute(request, reporter)?;
    finish(report, &options.common, reporter)
}

/// Says what would be run, and whether everything is there; status 2 where it is not.
pub(super) fn dry_run(
    request: &Request,
    devices: &[String],
    json: bool,
    reporter: &Reporter,
) -> Result<u8, CliError> {
    let outlines = outline(request, true, reporter)?;
    let found = preflight(request, &outlines, devices)?;
    match json {
        true => print_json(&cells(request, &outlines))?,
        false => print(found.text.as_bytes())?,
    }
    match found.missing.is_empty() {
        true => Ok(EXIT_DONE),
        false => Err(CliError::Preflight(found.missing.join(", "))),
    }
}

fn request(
    options: &RunOptions,
    tasks: &[TaskHead],
    required: Vec<String>,
    floor: Option<&str>,
) -> Result<Request, CliError> {
    let settings = options.settings();
    let mut backbones = options.cell.backbone.clone();
    if backbones.is_empty() && options.common.sample {
        backbones.push(SAMPLE_BACKBONE.to_owned());
    }
    if let Some(floor) = floor.filter(|floor| !backbones.iter().any(|spec| spec == floor)) {
        backbones.push(floor.to_owned());
    }
    let cell = |backbone: &String, task: &TaskHead| Cell {
        backbone: backbone.clone(),
        overrides: Vec::new(),
        task: task.clone(),
        settings: settings.clone(),
    };
    let cells: Vec<Cell> =
        backbones.iter().flat_map(|b| tasks.iter().map(move |task| cell(b, task))).collect();
    for change in &settings.set {
        if !cells.iter().any(|cell| cell.clone().normalised().settings.set.contains(change)) {
            let why = "no task of this command has such a value".to_owned();
            return Err(RunError::Set { given: change.to_string(), why, near: Vec::new() }.into());
        }
    }
    let mut request = options.common.request(cells, required)?;
    if backbones.is_empty() {
        return Err(RunError::NoBackbone.into());
    }
    request.head_weights.clone_from(&options.cell.head_weights);
    Ok(request)
}

/// Prints the table of this command's runs and says where they are.
pub(super) fn finish(
    report: Report,
    options: &CommonOptions,
    reporter: &Reporter,
) -> Result<u8, CliError> {
    if report.records.is_empty() && options.json {
        print(b"[]\n")?;
    }
    if report.records.is_empty() && report.failed.is_empty() {
        reporter.say(
            "nothing to run: give --data NAME=DIR, or --sample for generated data; `pixio-eval data \
             status` shows what is looked for",
        );
    }
    if !report.records.is_empty() {
        let format = if options.json { results::Format::Json } else { results::Format::Text };
        print(&results::render(&report.records, format, &results::TableOptions::default())?)?;
        let out = options.out.display();
        if report.kept == report.records.len() && report.failed.is_empty() {
            reporter.say(format!("everything was done before: nothing was run ({out})"));
        } else {
            reporter.say(format!(
                "results are in {out}; `pixio-eval table --out {out}` shows them, and `pixio-eval report \
                 --out {out}` writes one page with tables, plots and pictures"
            ));
        }
    }
    let status = if report.failed.is_empty() { EXIT_DONE } else { EXIT_FAILED };
    for failed in report.failed {
        let error = CliError::Run(failed.error);
        eprintln!("error: {} failed: {error}", failed.label);
        error.hints().iter().for_each(|hint| eprintln!("hint: {hint}"));
    }
    Ok(status)
}
