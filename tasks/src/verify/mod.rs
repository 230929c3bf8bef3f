//! Whether the files of a data set are what they should be, and if not, what they are.
//!
//! [`verify`] looks at everything and reports; [`quick`] looks at a few targets before a run, for wrong
//! preparations alone; [`recognise`] tells those that do not even open.

mod demonstrations;
mod duplicates;
mod evidence;
mod header;
mod images;
mod known;
mod look;
mod names;
mod paired;
mod preparation;
mod report;

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

pub use names::recognise;
pub use paired::quick;
pub use preparation::{Finding, Preparation};
pub use report::{Check, Looked, Report, Subject, Verdict};

use crate::data::{DataError, Dataset, Layout};
use crate::dense::{LabelForm, PinnedLists};
use crate::files::Files;
use crate::sample::is_sample;

/// Samples of a split that are decoded unless all are, spread over its list.
pub const LOOKED_AT: usize = 64;

/// How to verify.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Decode every file, and compare every image for training with those for validation.
    pub full: bool,
    /// The user's word on the form of the labels.
    pub labels: Option<LabelForm>,
    /// The published lists, where they decide.
    pub pinned: Option<&'a PinnedLists>,
    /// Told what is being looked at, how much of it is done, and of how much.
    pub progress: &'a (dyn Fn(&str, usize, usize) + Sync),
    /// Asked whether to stop.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Stopped.
    #[error("interrupted")]
    Interrupted,
    /// No data to look at.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Looks at a data set. Files are decoded in parallel and dropped again, so that memory does not grow
/// with their number. What is wrong with the data is in the report, not an error.
///
/// # Errors
///
/// [`VerifyError`]: nothing is there, or the work was stopped.
pub fn verify(
    dataset: &Dataset,
    files: &Files,
    options: &Options<'_>,
) -> Result<Report, VerifyError> {
    if !files.exist() {
        return Err(DataError::RootMissing { root: files.root().to_owned() }.into());
    }
    let generated = is_sample(files.root()).filter(|mark| mark.dataset == dataset.name);
    let mut report = Report {
        dataset: dataset.name.clone(),
        root: files.root().to_owned(),
        verdict: Verdict::Good,
        full: options.full,
        generated: generated.is_some(),
        splits: Vec::new(),
        findings: Vec::new(),
        checks: Vec::new(),
    };
    let published = generated.map_or_else(|| dataset.splits.clone(), |mark| mark.splits);
    let form = match dataset.layout {
        Layout::ImageFolder => {
            images::verify(dataset, files, options, &published, &mut report)?;
            None
        }
        Layout::Demonstrations => {
            demonstrations::verify(dataset, files, options, &published, &mut report)?;
            None
        }
        Layout::Nyuv2Bts
        | Layout::KittiEigen
        | Layout::Ade20k
        | Layout::Voc2012
        | Layout::Loveda => paired::verify(dataset, files, options, &published, &mut report)?,
    };
    known::verify(dataset, files, (options, form), &mut report)?;
    Ok(report)
}

/// Indices spread over a list: all of them, or `count`.
fn spread(length: usize, count: usize) -> Vec<usize> {
    let count = count.min(length);
    (0..count).map(|place| place * length / count.max(1)).collect()
}

/// Adds up what `look` finds at each of some indices, in parallel.
fn sum<T: Default + Send>(
    indices: &[usize],
    what: &str,
    options: &Options<'_>,
    look: impl Fn(&mut T, usize) + Sync,
    merge: impl Fn(&mut T, T) + Sync,
) -> Result<T, VerifyError> {
    let done = AtomicUsize::new(0);
    (options.progress)(what, 0, indices.len());
    let found = indices
        .par_iter()
        .fold(T::default, |mut found, &index| {
            if !(options.stopped)() {
                look(&mut found, index);
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                (options.progress)(what, done, indices.len());
            }
            found
        })
        .reduce(T::default, |mut found, other| {
            merge(&mut found, other);
            found
        });
    if (options.stopped)() { Err(VerifyError::Interrupted) } else { Ok(found) }
}

/// A number of samples beside the published one.
fn counted(report: &mut Report, split: &str, found: usize, published: Option<usize>) {
    let generated = report.generated;
    let by = if generated { "generated" } else { "published" };
    let (verdict, said) = match published {
        None => (Verdict::Good, format!("{found} by the folder's own list")),
        Some(published) if found == published => (Verdict::Good, format!("{found}, as {by}")),
        Some(published) if found < published => (
            Verdict::Wrong,
            format!("{found}, {} fewer than the {published} {by}", published - found),
        ),
        Some(published) => (
            Verdict::Note,
            format!("{found}, {} more than the {published} {by}", found - published),
        ),
    };
    report.check(Subject::Counts, Some(split)).is(verdict, said);
}

/// How many were decoded, and how many files of them could not be.
fn decoded(looked_at: usize, found: usize, what: &str, bad: usize) -> String {
    let of = match looked_at == found {
        true => format!("all {}", number(found, what)),
        false => format!("{looked_at} of {}", number(found, what)),
    };
    match bad {
        0 => format!("{of} decoded"),
        bad => format!("{of} looked at, {} not readable", number(bad, "file")),
    }
}

/// A number and its noun.
fn number(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
