//! Removing a run, unless a process works on it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use super::StoreError;

/// A process that works on a run holds this file of its folder locked, shared or alone.
pub const LOCK: &str = ".lock";

/// Removes a run folder. It loses its name before its files go, so that no part of it is ever found.
///
/// # Errors
/// [`StoreError::InUse`] while a process works on it, or what the system says.
pub fn delete_run(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(LOCK);
    let file = match File::options().create(true).append(true).open(&path) {
        Ok(file) => file,
        Err(error) => return Err(StoreError::io("lock", &path)(error)),
    };
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(StoreError::InUse { folder: folder.to_owned() });
    }
    let parent = folder.parent().unwrap_or(folder);
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let hidden = parent.join(format!(".deleted-{name}"));
    match fs::remove_dir_all(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &hidden)(error));
        }
        _ => {}
    }
    fs::rename(folder, &hidden).map_err(StoreError::io("remove", folder))?;
    fs::remove_dir_all(&hidden).map_err(StoreError::io("remove", &hidden))?;
    // The folders of head and data set go with their last run.
    for above in folder.ancestors().skip(1).take(2) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}
