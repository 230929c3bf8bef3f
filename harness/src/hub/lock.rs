//! The lock on a blob: flock on the file that Python's filelock uses, so that all programs wait for
//! one another. It ends with its holder, however that ends; the file stays, as Python leaves it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::HubError;
use crate::interrupt;
use crate::progress::Reporter;

const POLL: Duration = Duration::from_millis(100);

/// Held until dropped.
pub(super) struct Lock(File);

/// Takes the lock, for as long as another holds it. Meanwhile the growth of what the other fetches
/// is shown: files beside `blob` whose names begin with its name and end in `.incomplete`.
pub(super) fn wait(
    path: &Path,
    file: &str,
    blob: &Path,
    size: u64,
    reporter: &Reporter,
) -> Result<Lock, HubError> {
    let io = HubError::io(path);
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(&io)?;
    let mut bar = None;
    loop {
        let lock = open(path).map_err(&io)?;
        match lock.try_lock() {
            // Whoever deletes the file while it is open leaves a lock that guards nothing.
            Ok(()) if is_at(&lock, path) => return Ok(Lock(lock)),
            Ok(()) => continue,
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                reporter.warn(format!(
                    "no locks on the file system of {}: let no other program fetch {file} now",
                    path.display()
                ));
                return Ok(Lock(lock));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        if interrupt::requested() {
            return Err(HubError::Interrupted);
        }
        let bar = bar.get_or_insert_with(|| {
            let who = holder(&lock).unwrap_or_else(|| "another program".to_owned());
            reporter.say(format!(
                "{file}: waiting for {who}, which fetches it and holds {}",
                path.display()
            ));
            reporter.bytes(&format!("{file} (waiting)"), size)
        });
        bar.set(fetched(blob));
        std::thread::sleep(POLL);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// The file of a lock, made if need be, and shared with a group.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Others who share the cache wait for it too.
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let _ = file.set_permissions(fs::Permissions::from_mode(0o664));
            }
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
            opened => opened,
        },
        failed => failed,
    }
}

/// Whether a lock's file is still the one of this name: a deleted one guards nothing.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |data: fs::Metadata| (data.dev(), data.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => identity(open) == identity(there),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// The process that has locked a file, where /proc tells.
#[cfg(target_os = "linux")]
pub(crate) fn holder(file: &File) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let process = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let held = words.get(1) == Some(&"FLOCK") && words.get(5)?.ends_with(&inode);
        held.then(|| words.get(4).copied())?
    })?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(format!("process {process} ({})", name.trim()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn holder(_: &File) -> Option<String> {
    None
}

/// Bytes that are there of a blob that some program fetches.
fn fetched(blob: &Path) -> u64 {
    let (Some(folder), Some(name)) = (blob.parent(), blob.file_name().and_then(|n| n.to_str()))
    else {
        return 0;
    };
    let part = |entry: fs::DirEntry| {
        let found = entry.file_name();
        let found = found.to_str()?;
        let of_it = found.starts_with(name) && found.ends_with(".incomplete");
        of_it.then(|| entry.metadata().ok())?.map(|data| data.len())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(part).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Verbosity;

    fn take(path: &Path) -> Lock {
        wait(path, "f", Path::new("blobs/e"), 1, &Reporter::new(Verbosity::Quiet)).unwrap()
    }

    #[test]
    fn a_lock_is_waited_for_and_freed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repo/e.lock");
        let first = take(&path);
        let other = open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        #[cfg(target_os = "linux")]
        assert!(holder(&other).unwrap().contains(&std::process::id().to_string()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let there = path.clone();
        let waiting = std::thread::spawn(move || {
            let _lock = take(&there);
            sender.send(()).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(400)).is_err());
        drop(first);
        receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        waiting.join().unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn a_lock_whose_file_was_deleted_guards_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.lock");
        let first = take(&path);
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&first.0, &path));
        let second = take(&path);
        assert!(is_at(&second.0, &path) && !is_at(&first.0, &path));
    }

    #[test]
    fn what_others_fetch_is_seen_under_each_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("abc");
        assert_eq!(fetched(&blob), 0);
        fs::write(folder.path().join("abc.incomplete"), [0; 3]).unwrap();
        fs::write(folder.path().join("abc.12ab34cd.incomplete"), [0; 7]).unwrap();
        fs::write(folder.path().join("abd.incomplete"), [0; 9]).unwrap();
        assert_eq!(fetched(&blob), 7);
    }
}
