//! Reading and creating files of a folder that other machines change too.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{ClaimError, FORMAT};

/// Temporary files start with a dot; readers pass over such names.
const TEMPORARY: &str = ".claiming-";
/// Without hard links a file is seen before it is whole, for a moment.
const TRIES: usize = 10;
const WAIT: Duration = Duration::from_millis(50);

/// Makes the next look-ups of names in a folder true: NFS remembers which names are there, and which
/// are not, until the folder is opened.
pub(super) fn refresh(folder: &Path) {
    let _ = File::open(folder);
}

/// The value in a file; `None` where there is no file.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
) -> Result<Option<T>, ClaimError> {
    let mut tries = 0;
    loop {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(ClaimError::io("read", path))?,
        };
        match parse(&bytes) {
            Ok(value) => return Ok(Some(value)),
            Err(_) if tries < TRIES => {}
            Err(why) => {
                return Err(ClaimError::Unreadable { path: path.to_path_buf(), expected, why });
            }
        }
        tries += 1;
        std::thread::sleep(WAIT);
    }
}

/// The value that JSON of this module stands for. The version is looked at first, so that a newer
/// file is named as such whatever else it holds.
///
/// # Errors
/// In words, why it stands for none.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version.format != FORMAT {
        return Err(format!(
            "it has format {}; this version of the program knows {FORMAT}",
            version.format
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// JSON of a value, with an end of line.
pub(super) fn encode<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Creates a file unless there is one of that name; whether it did. `bytes` are unlike what any other
/// process would write there.
pub(super) fn create(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    create_by(path, bytes, |from, to| fs::hard_link(from, to))
}

fn create_by(
    path: &Path,
    bytes: &[u8],
    link: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    // Other users may help.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut whole = builder.tempfile_in(folder)?;
    whole.write_all(bytes)?;
    whole.as_file().sync_all()?;
    let Err(error) = link(whole.path(), path) else { return Ok(true) };
    // An answer of the server that got lost: the link is there, and the repeated request failed.
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(true);
    }
    match error.kind() {
        ErrorKind::AlreadyExists => Ok(false),
        ErrorKind::Unsupported | ErrorKind::PermissionDenied => create_without_links(path, bytes),
        _ => Err(error),
    }
}

fn create_without_links(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut file = match File::options().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        file => file?,
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.map(|()| true)
}

/// Files of a folder that have a name in UTF-8 and are not hidden.
pub(super) fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, ClaimError> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(ClaimError::io("list", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(ClaimError::io("list", folder))?;
        match entry.file_name().into_string() {
            Ok(name) if !name.starts_with('.') => found.push((name, entry.path())),
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsupported(_: &Path, _: &Path) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    #[test]
    fn a_file_is_created_once_with_and_without_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        assert!(create(&a, b"first").unwrap());
        assert!(!create(&a, b"second").unwrap());
        assert!(!create_by(&a, b"third", unsupported).unwrap());
        assert_eq!(fs::read(&a).unwrap(), b"first");
        assert!(create_by(&b, b"first", unsupported).unwrap());
        assert!(!create_by(&b, b"second", unsupported).unwrap());
        assert!(!create(&b, b"second").unwrap());
        assert_eq!(fs::read(&b).unwrap(), b"first");
        let missing = folder.path().join("none/c");
        assert_eq!(create(&missing, b"").unwrap_err().kind(), ErrorKind::NotFound);
        // Nothing temporary is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_answer_that_got_lost_is_not_taken_for_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let forgetful = |from: &Path, to: &Path| {
            fs::hard_link(from, to)?;
            fs::hard_link(from, to)
        };
        assert!(create_by(&path, b"mine", forgetful).unwrap());
        let broken = |_: &Path, _: &Path| Err(io::Error::other("the server is gone"));
        let error = create_by(&folder.path().join("b"), b"mine", broken).unwrap_err();
        assert_eq!(error.to_string(), "the server is gone");
    }
}
