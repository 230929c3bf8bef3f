//! What `data verify` found the last time, kept in the cache for `data status`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Unit};
use results::write_whole;
use schema::Fingerprint;
use serde::{Deserialize, Serialize};
use tasks::data::{Dataset, ImageNet, Layout};
use tasks::dense::{PairedSet, PinnedLists};
use tasks::files::Files;
use tasks::verify::{Report, Verdict};

/// Folder in the cache. A file is named after the data set and a hash of where it is.
const FOLDER: &str = "verified-v1";

/// The outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When, in UTC, to the second: `2026-01-31T12:00:00Z`.
    pub at: String,
    /// Whether every file was decoded.
    pub full: bool,
    /// The worst that was found.
    pub verdict: Verdict,
    /// Wrong preparations that were recognised, by name.
    pub recognised: Vec<String>,
    /// Hash over paths and sizes of what was there, if it could be listed.
    pub fingerprint: Option<Fingerprint>,
}

/// Hash over paths and sizes of the files of a data set; none for one that cannot be listed.
pub fn fingerprint(
    dataset: &Dataset,
    files: &Files,
    pinned: Option<&PinnedLists>,
) -> Option<Fingerprint> {
    match dataset.layout {
        Layout::ImageFolder => Some(ImageNet::open(files).ok()?.fingerprint()),
        Layout::Demonstrations => None,
        _ => Some(PairedSet::open_with(dataset, files, pinned).ok()?.fingerprint()),
    }
}

/// Keeps the outcome of a verification. One of some files does not replace one of all of them that found the
/// same of the same files.
///
/// # Errors
///
/// The system's, with the file or folder.
pub fn keep(
    cache: &Path,
    report: &Report,
    fingerprint: Option<Fingerprint>,
) -> Result<(), (PathBuf, io::Error)> {
    if let Some(last) = last(cache, &report.dataset, &report.root) {
        let same = last.fingerprint == fingerprint && last.verdict == report.verdict;
        if same && last.full && !report.full {
            return Ok(());
        }
    }
    let mut recognised: Vec<String> =
        report.findings.iter().map(|finding| finding.preparation.to_string()).collect();
    recognised.sort_unstable();
    recognised.dedup();
    let now = Timestamp::now();
    let mark = Mark {
        at: now.round(Unit::Second).unwrap_or(now).to_string(),
        full: report.full,
        verdict: report.verdict,
        recognised,
        fingerprint,
    };
    let folder = cache.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|error| (folder, error))?;
    let path = file(cache, &report.dataset, &report.root);
    let json = serde_json::to_vec_pretty(&mark).map_err(|error| (path.clone(), error.into()))?;
    write_whole(&path, &json).map_err(|error| (path, error))
}

/// The outcome of the last verification of a data set at a place.
pub fn last(cache: &Path, dataset: &str, root: &Path) -> Option<Mark> {
    serde_json::from_slice(&fs::read(file(cache, dataset, root)).ok()?).ok()
}

fn file(cache: &Path, dataset: &str, root: &Path) -> PathBuf {
    let place = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let hash = blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex();
    cache.join(FOLDER).join(format!("{dataset}-{}.json", &hash[..16]))
}
