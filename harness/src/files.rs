//! Files that are whole or not there.

use std::fs::Permissions;
use std::io::{self, Write};
use std::path::Path;

/// Writes a file under a temporary name beside it, syncs it and renames it, so that nobody ever sees
/// a part of it under its own name.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".pixio-eval-");
    // As an ordinary new file, not as a private temporary one.
    #[cfg(unix)]
    let readable: Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    let builder = builder.permissions(readable);
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing_and_a_good_one_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert!(write_atomically(&path.join("below a file"), b"three").is_err());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }
}
