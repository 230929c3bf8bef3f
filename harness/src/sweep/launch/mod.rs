//! Where a sweep's jobs run when another program starts them: [`Slurm`] submits them as job arrays,
//! [`Print`] writes scripts for any other scheduler. The jobs meet in the sweep's state folder alone.

mod config;
mod error;
mod print;
mod records;
mod script;
mod slurm;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use config::{Config, Gpus, Resources};
pub use error::{ConfigError, LaunchError};
pub use print::Print;
pub use slurm::{Cancelled, QueueLine, Slurm, cancel, queue};

/// A file of this name in the state folder says that the sweep is cancelled: no task goes back into
/// the queue.
pub const CANCELLED: &str = "cancelled";

/// What a job does; also its table in the launcher's config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Fills the cache with features.
    Extract,
    /// Carries out cells.
    Probe,
    /// Writes the tables.
    Table,
}

impl JobKind {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 3] = [Self::Extract, Self::Probe, Self::Table];

    /// As in the config file and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Probe => "probe",
            Self::Table => "table",
        }
    }
}

/// Equal tasks that start together.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it does.
    pub kind: JobKind,
    /// The program's own path and its arguments; every task runs the same.
    pub command: Vec<OsString>,
    /// How many tasks, at least 1.
    pub tasks: usize,
    /// How many of them at once, at least 1; absent for all.
    pub most: Option<usize>,
    /// Index of the job that has to end first, however it ends.
    pub after: Option<usize>,
    /// Whether a task needs a GPU.
    pub gpu: bool,
    /// Estimated minutes of a task.
    pub minutes: Option<u64>,
    /// Memory of a task in GB.
    pub memory_gb: Option<u64>,
}

/// One start of a sweep.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The sweep's state folder. It is there.
    pub state: PathBuf,
    /// The sweep's name.
    pub name: String,
    /// Tells this start from every other of the same sweep: letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// The folder in which commands and setup lines run.
    pub directory: PathBuf,
}

/// What a launch has left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The folder with the scripts.
    pub folder: PathBuf,
    /// One script for each job, in order.
    pub scripts: Vec<PathBuf>,
    /// The scheduler's id of each job; empty where nothing was submitted.
    pub ids: Vec<String>,
}

/// Hands jobs over.
pub trait Launcher {
    /// Hands all of the jobs over, or none.
    ///
    /// # Errors
    /// [`LaunchError`]; what was handed over before is taken back, as far as the error says.
    fn launch(&self, launch: &Launch, jobs: &[Job]) -> Result<Launched, LaunchError>;
}

/// `1-extract`: the name of a job's files.
fn stem(index: usize, kind: JobKind) -> String {
    format!("{}-{}", index + 1, kind.name())
}

/// Only characters that neither a file name nor a scheduler's list of names has a meaning for.
fn plain(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.chars().map(|c| if fits(c) { c } else { '-' }).take(40).collect()
}

fn check(launch: &Launch, jobs: &[Job]) -> Result<(), LaunchError> {
    let id = &launch.id;
    if id.is_empty() || id.starts_with('.') || plain(id) != *id {
        return Err(LaunchError::Id(id.clone()));
    }
    for (index, job) in jobs.iter().enumerate() {
        let wrong = |why| Err(LaunchError::Job { stem: stem(index, job.kind), why });
        if job.command.is_empty() {
            return wrong("it has no command");
        }
        if job.tasks == 0 || job.most == Some(0) {
            return wrong("it has no tasks");
        }
        if job.after.is_some_and(|after| after >= index) {
            return wrong("it waits for a job that does not come before it");
        }
    }
    Ok(())
}

/// Makes `STATE/KIND/ID`, which must be new, and `STATE/logs`.
fn folder(launch: &Launch, kind: &str) -> Result<PathBuf, LaunchError> {
    let folder = absolute(&launch.state)?.join(kind).join(&launch.id);
    let fault = |path: &Path| {
        let path = path.to_path_buf();
        |source| LaunchError::Io { what: "make", path, source }
    };
    for parent in [folder.parent().unwrap_or(&folder), &launch.state.join("logs")] {
        std::fs::create_dir_all(parent).map_err(fault(parent))?;
    }
    match std::fs::create_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(LaunchError::Taken(folder))
        }
        made => made.map_err(fault(&folder)).map(|()| folder),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, LaunchError> {
    std::path::absolute(path).map_err(|source| LaunchError::Io {
        what: "find",
        path: path.to_path_buf(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), LaunchError> {
    results::write_whole(path, bytes).map_err(|source| LaunchError::Io {
        what: "write",
        path: path.to_path_buf(),
        source,
    })
}
