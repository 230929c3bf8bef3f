//! `STATE/slurm/LAUNCH/jobs.json`: what was submitted.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{JobKind, LaunchError, write};

const FILE: &str = "jobs.json";
const FORMAT: u32 = 1;

/// One launch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    pub launch: String,
    pub jobs: Vec<Entry>,
}

/// One job of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub kind: JobKind,
    /// Its name in the queue, which no other job has.
    pub name: String,
    pub tasks: usize,
    /// Absent until sbatch has answered; the job may be in the queue all the same.
    pub id: Option<String>,
    /// Where sbatch named one.
    pub cluster: Option<String>,
}

impl Record {
    pub fn new(launch: String, jobs: Vec<Entry>) -> Self {
        Self { format: FORMAT, launch, jobs }
    }

    pub fn write(&self, folder: &Path) -> Result<(), LaunchError> {
        let path = folder.join(FILE);
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| LaunchError::Record { path: path.clone(), why: error.to_string() })?;
        bytes.push(b'\n');
        write(&path, &bytes)
    }
}

/// Every launch of a sweep, in the order of their ids.
pub(super) fn read(state: &Path) -> Result<Vec<Record>, LaunchError> {
    let folder = state.join("slurm");
    let fault = |what, path: PathBuf| move |source| LaunchError::Io { what, path, source };
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fault("read", folder.clone()))?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(fault("read", folder.clone()))?.path().join(FILE);
        let bytes = match std::fs::read(&path) {
            // A launch that has not submitted anything yet, or a file of somebody else's.
            Err(_) if !path.is_file() => continue,
            bytes => bytes.map_err(fault("read", path.clone()))?,
        };
        let wrong = |why: String| LaunchError::Record { path: path.clone(), why };
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if record.format != FORMAT {
            return Err(wrong(format!("expected format {FORMAT}, found {}", record.format)));
        }
        records.push(record);
    }
    records.sort_by(|a, b| a.launch.cmp(&b.launch));
    Ok(records)
}
