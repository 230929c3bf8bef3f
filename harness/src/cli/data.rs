use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use tasks::archive::ArchiveError;
use tasks::data::{Dataset, ListOrigin, Registry, State, Status, status};
use tasks::sample;
use tasks::verify::Verdict;

use super::args::DataCommand;
use super::backbones::trimmed;
use super::verify::verified;
use super::{CliError, EXIT_DONE, data_card, prepare, print, print_json};
use crate::lists;
use crate::locate;
use crate::progress::Reporter;
use crate::registry::nearest;
use crate::run::CELLS;
use crate::verified::{self, Mark};

pub(super) fn data(command: DataCommand, reporter: &Reporter) -> Result<u8, CliError> {
    let registry = Registry::builtin()?;
    match command {
        DataCommand::List { json: true } => print_json(&registry.datasets())?,
        DataCommand::List { json: false } => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.set_header(["name", "title", "task", "splits", "heads"]);
            for set in registry.datasets() {
                table.add_row(line(set));
            }
            print(format!("{}\n", trimmed(&table)).as_bytes())?;
        }
        DataCommand::Status { names, data, json } => {
            for (name, _) in &data {
                known(&registry, std::slice::from_ref(name))?;
            }
            let cache = locate::cache();
            let found: Vec<Shown> = known(&registry, &names)?
                .into_iter()
                .map(|set| shown(set, &locate::dataset(&set.name, &data), &cache, reporter))
                .collect::<Result<_, CliError>>()?;
            if json {
                print_json(&found)?;
            } else {
                let text: String = found.iter().map(paragraph).collect();
                print(text.as_bytes())?;
            }
        }
        DataCommand::Card { names, bibtex, json } => {
            let sets = known(&registry, &names)?;
            if json {
                print_json(&sets)?;
            } else if bibtex {
                print(data_card::bibtex(sets).as_bytes())?;
            } else {
                let cards: Vec<String> = sets.into_iter().map(data_card::text).collect();
                print(cards.join("\n").as_bytes())?;
            }
        }
        DataCommand::Verify(args) => return verified(&args, &registry, reporter),
        DataCommand::Prepare(args) => {
            let found = known(&registry, std::slice::from_ref(&args.name))?;
            let Some(set) = found.first() else { return Ok(EXIT_DONE) };
            return prepare::run(args, set, reporter);
        }
        DataCommand::Sample { names, to } => {
            let all: Vec<String> = sample::NAMES.iter().map(|&name| name.to_owned()).collect();
            for set in known(&registry, if names.is_empty() { &all } else { &names })? {
                let folder: PathBuf = sample::write(&set.name, &to)?;
                reporter.detail(format!("{}: written", set.name));
                print(format!("{}={}\n", set.name, folder.display()).as_bytes())?;
            }
        }
    }
    Ok(EXIT_DONE)
}

/// The named data sets, or all of them.
pub(super) fn known<'a>(
    registry: &'a Registry,
    names: &[String],
) -> Result<Vec<&'a Dataset>, CliError> {
    if names.is_empty() {
        return Ok(registry.datasets().iter().collect());
    }
    let find = |name: &String| {
        registry.get(name).ok_or_else(|| {
            let near = nearest(name, registry.names());
            CliError::UnknownDataset { name: name.clone(), near }
        })
    };
    names.iter().map(find).collect()
}

fn line(set: &Dataset) -> [String; 5] {
    let splits: Vec<String> = set.splits.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let heads: Vec<&str> =
        CELLS.iter().filter(|(name, _)| *name == set.name).map(|(_, head)| *head).collect();
    let heads = if heads.is_empty() { "-".to_owned() } else { heads.join(", ") };
    let task = set.task.name().to_owned();
    [set.name.clone(), set.title.clone(), task, splits.join(", "), heads]
}

/// A data set's state, and what the last verification of it found.
#[derive(serde::Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Mark>,
    /// Whether the files were others then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    changed_since: bool,
}

/// Archives that cannot be read are that data set's state, and no reason to be silent about the others.
fn shown(set: &Dataset, root: &Path, cache: &Path, reporter: &Reporter) -> Result<Shown, CliError> {
    let pinned = lists::cached(set, cache);
    let verified = verified::last(cache, &set.name, root);
    let files = match locate::files(set, root, cache, reporter) {
        Ok(files) => files,
        Err(ArchiveError::Interrupted) => return Err(CliError::Interrupted),
        Err(error) => {
            let status = Status {
                dataset: set.name.clone(),
                root: root.to_owned(),
                state: State::Incomplete,
                lists: None,
                splits: Vec::new(),
                problems: vec![error.to_string()],
                sample: None,
            };
            return Ok(Shown { status, changed_since: verified.is_some(), verified });
        }
    };
    let changed_since = verified.as_ref().is_some_and(|mark| {
        mark.fingerprint != verified::fingerprint(set, &files, pinned.as_ref())
    });
    Ok(Shown { status: status(set, &files, pinned.as_ref()), verified, changed_since })
}

fn paragraph(shown: &Shown) -> String {
    let Shown { status, verified, changed_since } = shown;
    let word = match status.state {
        State::Absent => "absent",
        State::Complete => "complete",
        State::CountsDiffer => "counts differ from the published ones",
        State::Incomplete => "incomplete",
        State::NoSplitLists => {
            "there, its published split lists not fetched yet (a run fetches them)"
        }
    };
    let generated = if status.sample.is_some() { ", generated sample data" } else { "" };
    let mut text = format!("{}: {word}{generated} ({})\n", status.dataset, status.root.display());
    for split in &status.splits {
        let from = match (&split.list, status.lists) {
            (Some(_), Some(ListOrigin::Pinned)) => ", by the published list".to_owned(),
            (Some(list), _) => format!(", by {list}"),
            (None, _) => String::new(),
        };
        text.push_str(&format!(
            "  {:<6} {} of {}{from}\n",
            split.split, split.found, split.expected
        ));
    }
    for problem in &status.problems {
        text.push_str(&format!("  {problem}\n"));
    }
    if let Some(mark) = verified.as_ref().filter(|_| status.state != State::Absent) {
        text.push_str(&format!("  {}\n", last_verified(mark, *changed_since)));
    }
    text
}

fn last_verified(mark: &Mark, changed: bool) -> String {
    let how = if mark.full { "verified in full" } else { "verified" };
    let day = mark.at.split('T').next().unwrap_or_default();
    let outcome = match mark.verdict {
        _ if changed => "other files than now".to_owned(),
        Verdict::Good => "nothing wrong".to_owned(),
        Verdict::Note => "usable, with notes".to_owned(),
        Verdict::Wrong if mark.recognised.is_empty() => "wrong".to_owned(),
        Verdict::Wrong => format!("wrong: {}", mark.recognised.join(", ")),
    };
    format!("{how} on {day}: {outcome}")
}
