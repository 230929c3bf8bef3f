//! How far a cell's work is, as claims tell it: a worker that died without getting further counts against it.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use results::Store;

use super::plan::PlannedCell;
use crate::cache::{self, Kind};
use crate::locate;

/// How far a cell is: when something of its work was last written, in milliseconds by the file system's
/// clock.
pub(super) fn progress(store: &Store, cell: &PlannedCell) -> u64 {
    let kept = if cell.plan.task.head == "knn" { kept_features() } else { 0 };
    let folder = store.folder(&cell.plan).map(|folder| newest(&folder)).unwrap_or(0);
    kept.max(folder)
}

/// When features were last kept.
pub(super) fn kept_features() -> u64 {
    let sets = cache::sets(&locate::cache(), Kind::Features);
    sets.iter().map(|set| newest(&set.folder)).max().unwrap_or(0)
}

fn newest(folder: &Path) -> u64 {
    // What is written before any work is no progress.
    let counts = |name: &str| !matches!(name, "plan.json" | "failed.txt" | ".lock");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let times =
        entries.filter(|entry| counts(&entry.file_name().to_string_lossy())).filter_map(|entry| {
            let time = entry.metadata().ok()?.modified().ok()?;
            Some(time.duration_since(UNIX_EPOCH).ok()?.as_millis() as u64)
        });
    times.max().unwrap_or(0)
}
