//! Whether a data set is there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Dataset, ImageNet, Layout};
use crate::dense::{DenseError, PairedSet};
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
    /// There, without the `train.txt` and `val.txt` that this data set needs; nothing more is known
    /// about it.
    NoSplitLists,
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
    /// The folder's own list, where that is what `expected` was counted from.
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

/// Looks for a data set in a folder: reads folder names, sizes and split lists, no images.
pub fn status(dataset: &Dataset, root: &Path) -> Status {
    let mut status = Status {
        dataset: dataset.name.clone(),
        root: root.to_owned(),
        state: State::Absent,
        splits: Vec::new(),
        problems: Vec::new(),
        sample: is_sample(root).filter(|mark| mark.dataset == dataset.name),
    };
    if root.is_dir() {
        match dataset.layout {
            Layout::ImageFolder => image_folder(dataset, root, &mut status),
            Layout::Nyuv2Bts
            | Layout::KittiEigen
            | Layout::Ade20k
            | Layout::Voc2012
            | Layout::Loveda => paired(dataset, root, &mut status),
        }
    }
    status
}

fn image_folder(dataset: &Dataset, root: &Path, status: &mut Status) {
    let data = match ImageNet::open(root) {
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

fn paired(dataset: &Dataset, root: &Path, status: &mut Status) {
    let lists = ["train", "val"].map(|split| (split, format!("{split}.txt")));
    let there = lists.each_ref().map(|(_, list)| root.join(list).is_file());
    match there {
        [false, false] => return by_layout(dataset, root, status),
        [true, true] => {}
        [train, _] => {
            let [(_, first), (_, second)] = lists;
            let (there, missing) = if train { (first, second) } else { (second, first) };
            status.state = State::Incomplete;
            status.problems.push(PairProblem::OneList { there, missing }.to_string());
            return;
        }
    }
    for (split, list) in lists {
        match pairs(root, &list) {
            Ok((found, expected, problem)) => {
                status.problems.extend(problem.map(|problem| problem.to_string()));
                let split = split.to_owned();
                status.splits.push(SplitStatus { split, found, expected, list: Some(list) });
            }
            Err(problem) => status.problems.push(problem.to_string()),
        }
    }
    let complete = status.problems.is_empty();
    status.state = if complete { State::Complete } else { State::Incomplete };
}

/// Counts what the layout alone makes of the folder.
fn by_layout(dataset: &Dataset, root: &Path, status: &mut Status) {
    let set = match PairedSet::open(dataset, root) {
        Ok(set) => set,
        Err(DenseError::ListsNeeded { .. }) => {
            status.state = State::NoSplitLists;
            return;
        }
        Err(error) => {
            status.state = State::Incomplete;
            status.problems.push(error.to_string());
            return;
        }
    };
    for (split, record) in set.records(dataset) {
        let (found, expected) = (record.found, record.published.unwrap_or(record.found));
        status.splits.push(SplitStatus { split, found, expected, list: None });
    }
    let as_published = status.splits.iter().all(|split| split.found == split.expected);
    status.state = if as_published { State::Complete } else { State::CountsDiffer };
}

/// Pairs with both files, pairs listed, and what is missing.
fn pairs(root: &Path, list: &str) -> Result<(usize, usize, Option<PairProblem>), PairProblem> {
    let text = fs::read_to_string(root.join(list)).map_err(|error| PairProblem::Unreadable {
        list: list.to_owned(),
        reason: error.to_string(),
    })?;
    let (mut found, mut listed, mut missing) = (0, 0, 0);
    let mut first_missing = None;
    for (index, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (line_number, pair) = (index + 1, fields.as_slice());
        if pair.len() != 2 || pair.iter().any(|field| field.is_empty()) {
            return Err(PairProblem::Line {
                list: list.to_owned(),
                line: line_number,
                found: line.to_owned(),
            });
        }
        listed += 1;
        let absent: Vec<&&str> = pair.iter().filter(|path| !root.join(path).is_file()).collect();
        found += usize::from(absent.is_empty());
        missing += absent.len();
        if let (Some(path), None) = (absent.first(), &first_missing) {
            first_missing = Some((line_number, (**path).to_owned()));
        }
    }
    if listed == 0 {
        return Err(PairProblem::Empty { list: list.to_owned() });
    }
    let problem = first_missing.map(|(line, first)| PairProblem::Missing {
        list: list.to_owned(),
        count: missing,
        line,
        first,
    });
    Ok((found, listed, problem))
}
