//! Which archives of a folder belong to a data set.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::{ArchiveError, Problem};
use crate::data::{Container, InPlace};

/// An archive: its name below the folder, and what tells that it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) stamp: Stamp,
}

/// Size in bytes and time of change in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) modified: i64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified =
            metadata.modified().ok().map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
                Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
                Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
            });
        Self { size: metadata.len(), modified }
    }
}

/// Archives of one kind, sorted by name.
pub(super) struct Set {
    /// What was opened: the folder, or one archive.
    pub(super) root: PathBuf,
    /// The folder that names of archives are below.
    pub(super) base: PathBuf,
    pub(super) container: Container,
    pub(super) archives: Vec<Listed>,
}

/// The archives of the first kind of `in_place` of which there are any.
pub(super) fn find(root: &Path, in_place: &InPlace) -> Result<Option<Set>, ArchiveError> {
    let fail = |source| ArchiveError::Io { path: root.to_owned(), source };
    let root = fs::canonicalize(root).map_err(fail)?;
    let (base, names) = if root.is_dir() {
        let mut names = names_in(&root, "")?;
        if in_place.containers.contains(&Container::Parquet) && root.join("data").is_dir() {
            names.extend(names_in(&root.join("data"), "data/")?);
        }
        names.sort_unstable();
        (root.clone(), names)
    } else {
        let name = root.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| ArchiveError::NotUnicode { path: root.clone() })?.to_owned();
        (root.parent().map(Path::to_owned).unwrap_or_default(), vec![name])
    };
    for &container in &in_place.containers {
        let chosen: Vec<_> = names.iter().filter(|name| belongs(container, name)).collect();
        if chosen.is_empty() {
            continue;
        }
        let mut archives = Vec::with_capacity(chosen.len());
        for name in chosen {
            let path = base.join(name);
            let metadata =
                fs::metadata(&path).map_err(|source| ArchiveError::Io { path, source })?;
            if metadata.is_file() {
                archives.push(Listed { name: name.clone(), stamp: Stamp::of(&metadata) });
            }
        }
        if !archives.is_empty() {
            return Ok(Some(Set { root, base, container, archives }));
        }
    }
    Ok(None)
}

fn names_in(folder: &Path, prefix: &str) -> Result<Vec<String>, ArchiveError> {
    let fail = |source| ArchiveError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        match entry.file_name().into_string() {
            // Hidden files are what systems leave beside copied ones.
            Ok(name) if name.starts_with('.') => {}
            Ok(name) => names.push(format!("{prefix}{name}")),
            Err(name) => {
                let ending = Path::new(&name).extension();
                let ours = ["zip", "tar", "parquet"].iter().any(|e| ending == Some(e.as_ref()));
                if ours {
                    return Err(ArchiveError::NotUnicode { path: entry.path() });
                }
            }
        }
    }
    Ok(names)
}

fn belongs(container: Container, name: &str) -> bool {
    let inside_data = name.starts_with("data/");
    match container {
        Container::Zip => !inside_data && name.ends_with(".zip"),
        Container::Tar => !inside_data && name.ends_with(".tar"),
        Container::Webdataset => {
            !inside_data
                && name.ends_with(".tar")
                && (name.contains("train") || name.contains("val"))
        }
        Container::Parquet => {
            let name = name.strip_prefix("data/").unwrap_or(name);
            name.ends_with(".parquet")
                && ["train-", "validation-", "val-"].iter().any(|split| name.starts_with(split))
        }
    }
}

/// The split that an archive of labelled images belongs to.
pub(super) fn split(name: &str) -> Result<&'static str, Problem> {
    let name = name.strip_prefix("data/").unwrap_or(name);
    match (name.contains("train"), name.contains("val")) {
        (true, true) => Err(Problem::BothSplits),
        (true, false) => Ok("train"),
        (false, _) => Ok("val"),
    }
}
