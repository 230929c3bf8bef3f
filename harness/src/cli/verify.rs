//! `pixio-eval data verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use schema::ListKind;
use tasks::archive::ArchiveError;
use tasks::data::{Dataset, Registry};
use tasks::dense::{LabelForm, list_kind};
use tasks::files::Files;
use tasks::verify::{Check, Finding, Options, Report, Subject, Verdict, VerifyError, verify};

use super::data::known;
use super::options::{label_form, named_folder};
use super::{CliError, EXIT_DONE, EXIT_FAILED, print, print_json};
use crate::interrupt;
use crate::lists::{self, ListOptions};
use crate::locate;
use crate::progress::Reporter;
use crate::run::RunError;
use crate::verified;

/// `pixio-eval data verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Data sets (default: all that are here)
    names: Vec<String>,
    /// Decode every file and compare every image, instead of some
    #[arg(long)]
    full: bool,
    /// Folder of a data set (default: $PIXIO_EVAL_DATA/NAME, else data/NAME); repeatable
    #[arg(long, value_name = "NAME=DIR", value_parser = named_folder)]
    data: Vec<(String, PathBuf)>,
    /// How masks are stored when they do not tell: shifted (classes from 0) or original (from 1)
    #[arg(long, value_name = "FORM", value_parser = label_form)]
    labels: Option<LabelForm>,
    /// Never use the network
    #[arg(long)]
    offline: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn verified(
    args: &VerifyArgs,
    registry: &Registry,
    reporter: &Reporter,
) -> Result<u8, CliError> {
    for (name, _) in &args.data {
        known(registry, std::slice::from_ref(name))?;
    }
    let mut reports = Vec::new();
    for dataset in known(registry, &args.names)? {
        let root = locate::dataset(&dataset.name, &args.data);
        if root.exists() {
            reports.push(match locate::files(dataset, &root, &locate::cache(), reporter) {
                Ok(files) => one(dataset, &files, args, reporter)?,
                Err(ArchiveError::Interrupted) => return Err(CliError::Interrupted),
                Err(error) => unread(dataset, &root, args, &error),
            });
        } else if args.names.contains(&dataset.name)
            || args.data.iter().any(|(name, _)| *name == dataset.name)
        {
            let name = dataset.name.clone();
            return Err(RunError::NoData { name, folder: root }.into());
        }
    }
    if args.json {
        print_json(&reports)?;
    } else if reports.is_empty() {
        reporter.warn("no data set is here; --data NAME=DIR says where one is");
    } else {
        let text: Vec<String> = reports.iter().map(paragraph).collect();
        print(text.join("\n").as_bytes())?;
    }
    let wrong = reports.iter().any(|report| report.verdict == Verdict::Wrong);
    Ok(if wrong { EXIT_FAILED } else { EXIT_DONE })
}

/// The report on archives that cannot be read.
fn unread(dataset: &Dataset, root: &Path, args: &VerifyArgs, error: &ArchiveError) -> Report {
    let check = Check {
        subject: Subject::Files,
        split: None,
        verdict: Verdict::Wrong,
        said: error.to_string(),
        files: Vec::new(),
        more: 0,
    };
    Report {
        dataset: dataset.name.clone(),
        root: root.to_owned(),
        verdict: Verdict::Wrong,
        full: args.full,
        generated: false,
        splits: Vec::new(),
        findings: Vec::new(),
        checks: vec![check],
    }
}

fn one(
    dataset: &Dataset,
    files: &Files,
    args: &VerifyArgs,
    reporter: &Reporter,
) -> Result<Report, CliError> {
    let cache = locate::cache();
    let by_list = !dataset.list.pinned.is_empty();
    let pinned = match by_list.then(|| list_kind(dataset, files)) {
        Some(Ok(ListKind::Pinned)) => {
            let options = ListOptions::from_env(args.offline);
            lists::obtain(dataset, &cache, &options, reporter).map_err(RunError::from)?
        }
        _ => None,
    };
    let bar = std::sync::Mutex::new(None);
    let progress = |what: &str, done: usize, of: usize| {
        let mut bar = bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if done == 0 {
            *bar = Some(reporter.items(what, of as u64, "files"));
        } else if let Some(bar) = bar.as_ref() {
            bar.set(done as u64);
        }
    };
    let options = Options {
        full: args.full,
        labels: args.labels,
        pinned: pinned.as_ref(),
        progress: &progress,
        stopped: &interrupt::requested,
    };
    let report = verify(dataset, files, &options).map_err(|error| match error {
        VerifyError::Interrupted => CliError::Interrupted,
        VerifyError::Data(error) => CliError::from(RunError::from(error)),
    })?;
    let fingerprint = verified::fingerprint(dataset, files, pinned.as_ref());
    if let Err((path, error)) = verified::keep(&cache, &report, fingerprint) {
        reporter.warn(format!("`data status` will not know of it: {}: {error}", path.display()));
    }
    Ok(report)
}

/// A report for people: the outcome, what was recognised, then every check.
fn paragraph(report: &Report) -> String {
    let outcome = match (report.verdict, report.full) {
        (Verdict::Good, true) => "right",
        (Verdict::Good, false) => "right, as far as was looked",
        (Verdict::Note, _) => "usable, with notes",
        (Verdict::Wrong, _) => "wrong",
    };
    let generated = if report.generated { ", generated sample data" } else { "" };
    let root = report.root.display();
    let mut text = format!("{}: {outcome}{generated} ({root})\n", report.dataset);
    for (index, finding) in report.findings.iter().enumerate() {
        let again = |next: &Finding| next.preparation == finding.preparation;
        let last = !report.findings[index + 1..].iter().any(again);
        text.push_str(&recognised(finding, last));
    }
    report.checks.iter().for_each(|check| text.push_str(&checked(check)));
    let some = report.splits.iter().any(|split| split.looked_at < split.found);
    if some && !report.full {
        text.push_str("  --full decodes every file and compares every image\n");
    }
    text
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Note => "note",
        Verdict::Wrong => "wrong",
    }
}

/// What was recognised; what it is and what to do stand once, after the last split's evidence.
fn recognised(finding: &Finding, last: bool) -> String {
    let mut text = format!("  {:<5}  {finding}\n", mark(finding.verdict));
    if last {
        for line in [&finding.about, &finding.instead] {
            text.push_str(&indented(9, line));
        }
    }
    text
}

fn checked(check: &Check) -> String {
    let split = check.split.as_deref().unwrap_or_default();
    let (mark, subject) = (mark(check.verdict), check.subject.name());
    let said = indented(16, &check.said);
    let mut text = format!("  {mark:<5}  {split:<5}  {subject:<10} {}", said.trim_start());
    check.files.iter().for_each(|file| text.push_str(&indented(16, file)));
    if check.more > 0 {
        text.push_str(&indented(16, &format!("and {} more", check.more)));
    }
    text
}

fn indented(by: usize, text: &str) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}
