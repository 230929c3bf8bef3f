//! Whether a data set is there.

use std::path::{Path, PathBuf};

use schema::ListKind;
use serde::Serialize;

use super::{Dataset, ImageNet, Layout};
use crate::dense::find::{Names, listed};
use crate::dense::{DenseError, ListSource, PairedSet, PinnedLists, list_kind};
use crate::files::Files;
use crate::robot;
use crate::sample::{SampleMark, is_sample};

/// What was found in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Name in `datasets.toml`.
    pub dataset: String,
    /// The folder looked at.
    pub root: PathBuf,
    /// In a word.
    pub state: State,
    /// What decides which samples belong to a split; data sets of pairs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lists: Option<ListOrigin>,
    /// By split, where samples could be counted: `train`, then `val`.
    pub splits: Vec<SplitStatus>,
    /// What is missing or wrong, one sentence each.
    pub problems: Vec<String>,
    /// The generator's mark, where the data is generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleMark>,
}

/// Whether a data set can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No folder.
    Absent,
    /// Everything found, as many samples as published (or as the folder's own lists name, or as
    /// were generated).
    Complete,
    /// Readable, but with other counts than published.
    CountsDiffer,
    /// Something is missing, see [`Status::problems`].
    Incomplete,
    /// There, without split lists of its own and before the published ones were fetched; nothing
    /// more is known about it.
    NoSplitLists,
}

/// What decides which samples belong to a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListOrigin {
    /// The folder's own `train.txt` and `val.txt`.
    Own,
    /// Lists that are part of the layout.
    Layout,
    /// The published lists, which are on this machine.
    Pinned,
    /// The published lists, which a run would fetch.
    PinnedNotFetched,
    /// Everything in the split's folder.
    Folder,
}

/// Counts of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SplitStatus {
    /// `train` or `val`.
    pub split: String,
    /// Samples found, with both files where there are two.
    pub found: usize,
    /// Samples expected: published, listed in the folder or generated.
    pub expected: usize,
    /// The list (or, for a published one, its address) or the folder that was counted by; none for
    /// data sets of one folder a class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
}

/// What is wrong with a split list or the files that it names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairProblem {
    /// Only one of the two lists is there.
    #[error("{there} is there and {missing} is not")]
    OneList {
        /// The list that is there.
        there: String,
        /// The one that is not.
        missing: String,
    },
    /// The list could not be read.
    #[error("cannot read {list}: {reason}")]
    Unreadable {
        /// The list.
        list: String,
        /// The system's reason.
        reason: String,
    },
    /// No lines.
    #[error("{list} names no samples")]
    Empty {
        /// The list.
        list: String,
    },
    /// Not `image target` with one space.
    #[error("{list}, line {line}: expected `image target` with one space, found {found:?}")]
    Line {
        /// The list.
        list: String,
        /// Counted from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// Files that are not there.
    #[error("{list} names files that are not there ({count}), the first on line {line}: {first}")]
    Missing {
        /// The list.
        list: String,
        /// Number of files.
        count: usize,
        /// Line of the first, counted from 1.
        line: usize,
        /// The first.
        first: String,
    },
}

/// Looks for a data set in a folder: reads folder names, sizes and split lists, no images. `pinned`
/// are its published lists where they are on this machine.
pub fn status(dataset: &Dataset, files: &Files, pinned: Option<&PinnedLists>) -> Status {
    let mut status = Status {
        dataset: dataset.name.clone(),
        root: files.root().to_owned(),
        state: State::Absent,
        lists: None,
        splits: Vec::new(),
        problems: Vec::new(),
        sample: is_sample(files.root()).filter(|mark| mark.dataset == dataset.name),
    };
    if files.exist() {
        match dataset.layout {
            Layout::ImageFolder => image_folder(dataset, files, &mut status),
            Layout::Nyuv2Bts
            | Layout::KittiEigen
            | Layout::Ade20k
            | Layout::Voc2012
            | Layout::Loveda => paired(dataset, files, pinned, &mut status),
            Layout::Demonstrations => demonstrations(dataset, files.root(), &mut status),
        }
    }
    status
}

fn image_folder(dataset: &Dataset, files: &Files, status: &mut Status) {
    let data = match ImageNet::open(files) {
        Ok(data) => data,
        Err(error) => {
            status.state = State::Incomplete;
            status.problems.push(error.to_string());
            return;
        }
    };
    for folder in [&data.train, &data.val] {
        let generated = status.sample.as_ref().map(|mark| &mark.splits);
        let expected = generated.unwrap_or(&dataset.splits).get(folder.split()).copied();
        status.splits.push(SplitStatus {
            split: folder.split().to_owned(),
            found: folder.found(),
            expected: expected.unwrap_or(folder.found()),
            list: None,
        });
    }
    let as_expected = status.splits.iter().all(|split| split.found == split.expected);
    status.state = if as_expected { State::Complete } else { State::CountsDiffer };
}

fn demonstrations(dataset: &Dataset, root: &Path, status: &mut Status) {
    let Some(suite) = robot::suite(&dataset.name) else { return };
    let (mut found, mut missing) = (0, Vec::new());
    for task in suite.setup(robot::Variant::Published).tasks {
        match robot::Demonstrations::open(suite, &task.name, root) {
            Ok(Some(demonstrations)) => found += demonstrations.len().min(task.demonstrations),
            Ok(None) => missing.push(task.name),
            Err(error) => status.problems.push(error.to_string()),
        }
    }
    if !missing.is_empty() {
        status.problems.push(format!("no demonstrations of {}", missing.join(", ")));
    }
    let expected = dataset.splits.get("train").copied().unwrap_or(found);
    status.splits.push(SplitStatus { split: "train".to_owned(), found, expected, list: None });
    status.state = match (status.problems.is_empty(), found == expected) {
        (false, _) => State::Incomplete,
        (true, true) => State::Complete,
        (true, false) => State::CountsDiffer,
    };
}

fn paired(dataset: &Dataset, files: &Files, pinned: Option<&PinnedLists>, status: &mut Status) {
    let kind = match list_kind(dataset, files) {
        Ok(kind) => kind,
        Err(error) => {
            status.state = State::Incomplete;
            status.problems.push(problem(error));
            return;
        }
    };
    status.lists = Some(match (kind, pinned) {
        (ListKind::Own, _) => ListOrigin::Own,
        (ListKind::Layout, _) => ListOrigin::Layout,
        (ListKind::Folder, _) => ListOrigin::Folder,
        (ListKind::Pinned, Some(_)) => ListOrigin::Pinned,
        (ListKind::Pinned, None) => ListOrigin::PinnedNotFetched,
    });
    match kind {
        ListKind::Layout | ListKind::Folder => return by_layout(dataset, files, status),
        ListKind::Pinned if pinned.is_none() => {
            status.state = State::NoSplitLists;
            return;
        }
        ListKind::Own | ListKind::Pinned => {}
    }
    for split in ["train", "val"] {
        match listed(dataset, files, split, kind, pinned) {
            Ok((source, pairs)) => {
                let (found, missing) = count(files, &source, &pairs);
                status.problems.extend(missing.map(|missing| missing.to_string()));
                status.splits.push(SplitStatus {
                    split: split.to_owned(),
                    found,
                    expected: pairs.len(),
                    list: Some(source.name().to_owned()),
                });
            }
            Err(error) => status.problems.push(problem(error)),
        }
    }
    let complete = status.problems.is_empty();
    status.state = if complete { State::Complete } else { State::Incomplete };
}

/// What is wrong, without the folder where that is known from [`Status::root`].
fn problem(error: DenseError) -> String {
    match error {
        DenseError::List { problem, .. } => problem.to_string(),
        other => other.to_string(),
    }
}

/// Counts what the layout alone makes of the folder.
fn by_layout(dataset: &Dataset, files: &Files, status: &mut Status) {
    let set = match PairedSet::open(dataset, files) {
        Ok(set) => set,
        Err(error) => {
            status.state = State::Incomplete;
            status.problems.push(error.to_string());
            return;
        }
    };
    for split in [&set.train, &set.val] {
        let (name, found) = (split.split(), split.found());
        status.splits.push(SplitStatus {
            split: name.to_owned(),
            found,
            expected: dataset.splits.get(name).copied().unwrap_or(found),
            list: Some(split.source().name().to_owned()),
        });
    }
    let as_published = status.splits.iter().all(|split| split.found == split.expected);
    status.state = if as_published { State::Complete } else { State::CountsDiffer };
}

/// Pairs with both files, and what is missing.
fn count(files: &Files, source: &ListSource, pairs: &[Names]) -> (usize, Option<PairProblem>) {
    let (mut found, mut missing, mut first_missing) = (0, 0, None);
    for (index, (image, target)) in pairs.iter().enumerate() {
        let absent = [image, target].into_iter().filter(|path| !files.is_file(path));
        let absent: Vec<_> = absent.collect();
        found += usize::from(absent.is_empty());
        missing += absent.len();
        if let (Some(path), None) = (absent.first(), &first_missing) {
            first_missing = Some((index + 1, path.to_string()));
        }
    }
    let problem = first_missing.map(|(line, first)| PairProblem::Missing {
        list: source.name().to_owned(),
        count: missing,
        line,
        first,
    });
    (found, problem)
}
