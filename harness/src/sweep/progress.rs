//! How far a cell's work is, as claims tell it: a worker that died without getting further counts against it.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, UNIX_EPOCH};

use results::Store;

use super::plan::PlannedCell;
use crate::cache::Kind;
use crate::locate;

/// How long a count of kept features is good.
const FRESH: Duration = Duration::from_secs(20);

/// Counts kept features now and then: there may be thousands of files, on a server.
#[derive(Debug, Default)]
pub(super) struct Features {
    counted: Mutex<Option<(Instant, u64)>>,
}

impl Features {
    /// Files of kept features, of all sets: whoever extracts, it goes on.
    pub(super) fn kept(&self) -> u64 {
        let mut counted = self.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, files)) = *counted
            && at.elapsed() < FRESH
        {
            return files;
        }
        let sets = fs::read_dir(locate::cache().join(Kind::Features.folder()));
        let files = sets.into_iter().flatten().flatten().map(|set| shards(&set.path())).sum();
        *counted = Some((Instant::now(), files));
        files
    }

    /// How far a cell is: features for k-NN, else when something of its work was last written, in
    /// milliseconds by the file system's clock.
    pub(super) fn progress(&self, store: &Store, cell: &PlannedCell) -> u64 {
        match cell.plan.task.head.as_str() {
            "knn" => self.kept(),
            _ => store.folder(&cell.plan).map(|folder| newest(&folder)).unwrap_or(0),
        }
    }
}

fn shards(set: &Path) -> u64 {
    let files = fs::read_dir(set).into_iter().flatten().flatten();
    files.filter(|file| file.file_name().to_string_lossy().ends_with(".safetensors")).count() as u64
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
