use std::io;
use std::path::{Path, PathBuf};

use super::claims::ClaimError;
use super::schedule::ScheduleError;
use crate::run::RunError;

/// Why a sweep cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The system refused.
    #[error("sweep: cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A plan that is none.
    #[error("sweep: {} is no plan of this version: {why}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No sweep of that name.
    #[error("no sweep {name:?} under {}; there {}", out.display(), shown(known))]
    Unknown {
        /// As asked for.
        name: String,
        /// Folder of results.
        out: PathBuf,
        /// Sweeps that are there.
        known: Vec<String>,
    },
    /// Another protocol under the same name.
    #[error(
        "sweep: {} was planned by version {} with another protocol of {cell}: {} then, {} in this version {}",
        path.display(), before.0, before.1, now.1, now.0
    )]
    OtherProtocol {
        /// The older plan.
        path: PathBuf,
        /// A cell of both.
        cell: String,
        /// Version of the program, and the protocol's fingerprint, of the older plan
        before: (String, String),
        /// and of this one.
        now: (String, String),
    },
    /// The folder that a sweep's paths start from is not on this machine.
    #[error("sweep: its paths start from {}, which is not there", folder.display())]
    NoFolder {
        /// Working folder of the sweep's command.
        folder: PathBuf,
    },
    /// A name that is no folder's.
    #[error("--name {0:?}: expected letters, digits, - and _")]
    Name(String),
    /// Nothing starts.
    #[error("sweep: workers on {device} end with errors or before they take a cell: {why} (log: {})", log.display())]
    NoWorker {
        /// The device.
        device: String,
        /// Its last words.
        why: String,
        /// Their log.
        log: PathBuf,
    },
    /// `--devices` that says nothing.
    #[error("--devices {given}: {why}")]
    Devices {
        /// As given.
        given: String,
        /// What was expected.
        why: &'static str,
    },
    /// A plan for GPUs that this machine does not have.
    #[error("this machine has no GPU, and the type to compute in is planned here")]
    NeedsType,
    /// Claims.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Planning or carrying out cells.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl SweepError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }
}

fn shown(known: &[String]) -> String {
    match known {
        [] => "is none".to_owned(),
        known => format!("are {}", known.join(", ")),
    }
}
