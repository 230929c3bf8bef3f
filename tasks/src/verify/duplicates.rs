//! Images for training that are also among those for validation.

use std::collections::{HashMap, HashSet};

use blake3::Hash;

use super::report::Problems;
use super::{Options, Report, Subject, Verdict, VerifyError, number, spread, sum};
use crate::files::Files;

/// Images for validation that are compared unless all are.
const COMPARED: usize = 256;

/// Most images for training that are read for that.
const READ: usize = 2048;

/// Share of the images for validation that may have been published in both splits: single ones occur in
/// data sets collected from the web.
const ACCEPTED: f64 = 0.01;

/// One image: its path and size in bytes.
pub(super) type Image<'a> = (&'a str, u64);

/// Compares contents, byte for byte: images of the same size first, then the hashes of those.
pub(super) fn verify(
    files: &Files,
    train: &[Image<'_>],
    val: &[Image<'_>],
    options: &Options<'_>,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let compared = if options.full { val.len() } else { COMPARED };
    let compared: Vec<Image<'_>> =
        spread(val.len(), compared).into_iter().map(|at| val[at]).collect();
    let sizes: HashSet<u64> = compared.iter().map(|image| image.1).collect();
    let mut alike: Vec<Image<'_>> =
        train.iter().filter(|image| sizes.contains(&image.1)).copied().collect();
    if !options.full && alike.len() > READ {
        alike = spread(alike.len(), READ).into_iter().map(|at| alike[at]).collect();
    }
    let sizes: HashSet<u64> = alike.iter().map(|image| image.1).collect();
    let hash = |path: &str| files.read(path).ok().map(|bytes| blake3::hash(&bytes));
    let all: Vec<usize> = (0..alike.len()).collect();
    let look = |found: &mut Vec<(Hash, usize)>, at: usize| {
        found.extend(hash(alike[at].0).map(|hash| (hash, at)));
    };
    let mut hashes: Vec<(Hash, usize)> =
        sum(&all, "comparing train with val", options, look, Extend::extend)?;
    // The first of several that are the same.
    hashes.sort_unstable_by_key(|&(_, at)| std::cmp::Reverse(at));
    let hashes: HashMap<Hash, usize> = hashes.into_iter().collect();
    let again = |problems: &mut Problems, at: usize| {
        let (path, size) = compared[at];
        let hash = sizes.contains(&size).then(|| hash(path)).flatten();
        if let Some(&twin) = hash.and_then(|hash| hashes.get(&hash)) {
            problems.add(at, || format!("{path} is {}", alike[twin].0));
        }
    };
    let all: Vec<usize> = (0..compared.len()).collect();
    let problems: Problems =
        sum(&all, "comparing val with train", options, again, Problems::merge)?;
    let of = match compared.len() == val.len() {
        true => number(compared.len(), "image"),
        false => format!("{} of {}", compared.len(), number(val.len(), "image")),
    };
    let said = match problems.count {
        0 => format!("none of {of} for validation is also for training"),
        count => format!("{count} of {of} for validation are also for training"),
    };
    let many = problems.count as f64 > ACCEPTED * compared.len() as f64;
    let verdict = problems.verdict(if many { Verdict::Wrong } else { Verdict::Note });
    report.check(Subject::Duplicates, None).with(verdict, said, &problems);
    Ok(())
}
