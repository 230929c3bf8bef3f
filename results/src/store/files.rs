//! Single files of a run folder: atomic writing, versioned reading, folder names.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use schema::{FORMAT, RunPlan};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;

pub(super) const PLAN: &str = "plan.json";
pub(crate) const PREDICTIONS: &str = "predictions.parquet";
/// The rows of the best epoch, where a head is trained.
pub(crate) const BEST: &str = "predictions-best.parquet";
pub(super) const RECORD: &str = "record.json";
pub(super) const FAILED: &str = "failed.txt";

/// Temporary files start with a dot; readers pass over such names.
const TEMPORARY: &str = ".writing-";

/// Longest part of a folder name taken from a user's text, in bytes: with the key it stays well
/// under the 255 that file systems allow.
const LONGEST_NAME: usize = 100;

/// Content of `plan.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct PlanFile {
    pub(super) format: u32,
    pub(super) plan: RunPlan,
}

/// A text of the user's as one folder name: letters, digits, `.`, `_` and `-`, never hidden, never
/// `..`, never empty. Two texts may share a name; the key tells their runs apart.
pub(crate) fn folder_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .take(LONGEST_NAME)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect();
    if name.is_empty() || name.starts_with('.') {
        name.replace_range(..name.len().min(1), "_");
    }
    name
}

/// Whether a folder's name ends as a run folder's does: `-` and twelve hex digits.
pub(super) fn ends_with_key(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, key)| {
        key.len() == 12 && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A new temporary file in `folder`, deleted when dropped, with the permissions a plainly created
/// file would have.
pub(super) fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Removes what killed processes were writing in a folder. For use by the only process that writes
/// there.
///
/// # Errors
/// What the system says.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file so that its name never shows a part of it.
pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let path = folder.join(name);
    write_whole(&path, bytes).map_err(StoreError::io("write", &path))
}

/// Writes a file under a temporary name beside it, syncs it and renames it, so that nobody ever sees
/// a part of it under its own name.
///
/// # Errors
/// What the system says; the file is then as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = temporary(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // Makes the new name itself durable. Some file systems cannot sync a folder; the rename is
    // atomic there all the same.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Writes a value as JSON, after a check that the same type can be read back from it.
pub(super) fn write_json<T: Serialize + DeserializeOwned>(
    folder: &Path,
    name: &str,
    value: &T,
) -> Result<(), StoreError> {
    let encoded = serde_json::to_vec_pretty(value).and_then(|mut bytes| {
        serde_json::from_slice::<T>(&bytes)?;
        bytes.push(b'\n');
        Ok(bytes)
    });
    let path = || folder.join(name);
    write(
        folder,
        name,
        &encoded.map_err(|source| StoreError::NotRepresentable { path: path(), source })?,
    )
}

/// Reads a versioned JSON file; `None` when there is none. The version is looked at first, so that
/// a newer file is named as such whatever else it holds.
pub(super) fn read_json<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
) -> Result<Option<T>, StoreError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = folder.join(name);
    let Some(bytes) = read(folder, name)? else { return Ok(None) };
    let parse = |source| StoreError::Json { path: path.clone(), source };
    match serde_json::from_slice::<Version>(&bytes).map_err(parse)?.format {
        found if found > FORMAT => Err(StoreError::NewerFormat { path, found }),
        0 => Err(StoreError::UnknownFormat { path, found: 0 }),
        _ => serde_json::from_slice(&bytes).map(Some).map_err(parse),
    }
}

/// Reads a file; `None` when there is none.
pub(super) fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let path = folder.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_harmless_folder_name() {
        for (text, name) in [
            ("pixio-b", "pixio-b"),
            ("random:pixio-nano", "random_pixio-nano"),
            ("hf:facebook/pixio-vitl16@main", "hf_facebook_pixio-vitl16_main"),
            ("../../etc", "_._.._etc"),
            ("..", "_."),
            (".", "_"),
            ("", "_"),
            ("/", "_"),
            ("a\0b\nc", "a_b_c"),
            ("模型", "__"),
        ] {
            assert_eq!(folder_name(text), name, "{text:?}");
        }
        assert_eq!(folder_name(&"x".repeat(5000)).len(), LONGEST_NAME);
    }

    #[test]
    fn a_failed_write_leaves_nothing_and_a_good_one_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(write_whole(&path.join("below a file"), b"three").is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn run_folders_are_known_by_their_key() {
        assert!(ends_with_key("pixio-b-0123456789ab"));
        assert!(!ends_with_key("pixio-b"));
        assert!(!ends_with_key("pixio-b-0123456789AB"));
        assert!(!ends_with_key("0123456789ab"));
    }
}
