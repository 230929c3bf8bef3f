use super::args::{AllArgs, RunArgs};
use super::options::RunOptions;
use super::{CliError, EXIT_DONE, EXIT_FAILED, print};
use crate::progress::Reporter;
use crate::registry::nearest;
use crate::run::{Cell, Report, Request, RunError, execute, parse_cell, select_cells};

/// The backbone of `--sample` when none is given.
const SAMPLE_BACKBONE: &str = "random:pixio-nano";
/// The suite of robot tasks of `all --sample`.
const SAMPLE_SUITE: &str = "metaworld";
/// The floor beside it.
const FLOOR: &str = "pixels";

pub(super) fn all(args: AllArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let mut cells = select_cells(&args.tasks, &args.heads)?;
    if args.options.sample && args.tasks.is_empty() {
        // One suite stands for the four.
        cells.retain(|cell| cell.head != "policy" || cell.dataset == SAMPLE_SUITE);
    }
    let named = args.options.data.iter().map(|(name, _)| name.clone());
    let required = args.tasks.iter().cloned().chain(named).collect();
    let floor = args.options.sample.then_some(FLOOR);
    let request = request(args.options.clone(), &cells, required, floor)?;
    finish(execute(&request, reporter)?, &args.options, reporter)
}

pub(super) fn run(args: RunArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let cells = args.cells.iter().map(|cell| parse_cell(cell)).collect::<Result<Vec<_>, _>>()?;
    let required = cells.iter().map(|cell| cell.dataset.clone()).collect();
    let request = request(args.options.clone(), &cells, required, None)?;
    finish(execute(&request, reporter)?, &args.options, reporter)
}

fn request(
    options: RunOptions,
    tasks: &[schema::TaskHead],
    required: Vec<String>,
    floor: Option<&str>,
) -> Result<Request, CliError> {
    let known = tasks::data::Registry::builtin()?;
    for (name, _) in &options.data {
        if known.get(name).is_none() {
            let near = nearest(name, known.names());
            return Err(CliError::UnknownDataset { name: name.clone(), near });
        }
    }
    let settings = options.settings();
    let mut backbones = options.backbone;
    if backbones.is_empty() && options.sample {
        backbones.push(SAMPLE_BACKBONE.to_owned());
    }
    if backbones.is_empty() {
        return Err(RunError::NoBackbone.into());
    }
    if let Some(floor) = floor.filter(|floor| !backbones.iter().any(|spec| spec == floor)) {
        backbones.push(floor.to_owned());
    }
    let cell = |backbone: &String, task: &schema::TaskHead| Cell {
        backbone: backbone.clone(),
        overrides: Vec::new(),
        task: task.clone(),
        settings: settings.clone(),
    };
    let cells = backbones.iter().flat_map(|b| tasks.iter().map(move |task| cell(b, task)));
    Ok(Request {
        cells: cells.collect(),
        required,
        data: options.data,
        sample: options.sample,
        out: options.out,
        source: options.source.options(),
        device: options.compute.device,
        dtype: options.compute.dtype,
        batch_size: options.batch_size,
        memory: options.memory_gb.map(|gigabytes| (gigabytes * 1e9) as u64),
        workers: options.compute.workers,
        skip_bad_images: options.skip_bad_images,
        head_weights: options.head_weights,
        labels: options.labels,
        kept_bytes: (options.cache_gb * 1e9) as u64,
        pictures: options.pictures,
    })
}

/// Prints the table of this command's runs and says where they are.
fn finish(report: Report, options: &RunOptions, reporter: &Reporter) -> Result<u8, CliError> {
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
    for (label, error) in report.failed {
        let error = CliError::Run(error);
        eprintln!("error: {label} failed: {error}");
        error.hints().iter().for_each(|hint| eprintln!("hint: {hint}"));
    }
    Ok(status)
}
