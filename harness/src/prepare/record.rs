//! What a prepared folder says of itself.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file in the data folder.
pub const FILE: &str = "prepared.json";

/// `prepared.json` of a prepared data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Name in `datasets.toml`.
    pub dataset: String,
    /// The set of files that it was made from, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Version of this program.
    pub version: String,
    /// When, in RFC 3339.
    pub at: String,
    /// What it was made from.
    pub from: Vec<Origin>,
    /// Number of files beside this one.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether what was fetched for it was to be kept.
    #[serde(default)]
    pub archives_kept: bool,
}

/// A file that a data set was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// As published.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// `ALGORITHM:DIGITS`: the published one where there is one.
    pub checksum: String,
    /// Where it was fetched from, or `given`.
    pub source: String,
}

/// The record in a folder; `None` where there is none that can be read.
pub fn read(folder: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
}

/// Number and bytes of the files in a folder, but for the record.
pub(super) fn count(folder: &Path) -> io::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.is_dir() {
                folders.push(entry.path());
            } else if next != folder || entry.file_name() != FILE {
                files += 1;
                bytes += found.len();
            }
        }
    }
    Ok((files, bytes))
}
