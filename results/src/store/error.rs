use std::io;
use std::path::{Path, PathBuf};

use schema::FORMAT;

use crate::PredictionsError;

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, for example `read`.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file stands where the out folder should be.
    #[error("{} is not a folder: the out folder must be one, or not be there yet", path.display())]
    NotAFolder {
        /// The path given for the out folder.
        path: PathBuf,
    },
    /// Nothing can be written to the out folder.
    #[error("cannot write to the out folder {}: {source}", path.display())]
    NotWritable {
        /// The out folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A plan or record that is not valid JSON of the expected shape. serde_json's own words end
    /// with the line and column.
    #[error("{} cannot be read: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A plan or record holds something its file could not give back.
    #[error("{} was not written, it could not be read back: {source}", path.display())]
    NotRepresentable {
        /// The file that would have been written.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// Written by a newer version of the program.
    #[error(
        "{} has record format {found}, this version reads up to {FORMAT}: use a newer pixio-eval",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format it states.
        found: u32,
    },
    /// A format number that no version has written.
    #[error("{} has record format {found}, expected 1 to {FORMAT}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The format it states.
        found: u32,
    },
    /// The folder's name promises one run and its content is another.
    #[error("{} holds run {found}, expected {expected}: move it away", folder.display())]
    KeyMismatch {
        /// The run folder.
        folder: PathBuf,
        /// Key of the plan asked for.
        expected: schema::Fingerprint,
        /// Key of the plan stored there.
        found: schema::Fingerprint,
    },
    /// The run was to be started, and its record is there.
    #[error("{} already holds the finished run", folder.display())]
    AlreadyFinished {
        /// The run folder.
        folder: PathBuf,
    },
    /// A process works on the run.
    #[error("{} is being worked on by another process", folder.display())]
    InUse {
        /// The run folder.
        folder: PathBuf,
    },
    /// A run folder without its plan and its record.
    #[error("{} holds neither plan.json nor record.json", folder.display())]
    NoPlan {
        /// The run folder.
        folder: PathBuf,
    },
    /// The per-sample rows could not be encoded.
    #[error("cannot write {}: {source}", path.display())]
    Predictions {
        /// The file that would have been written.
        path: PathBuf,
        /// What is wrong with the rows.
        source: PredictionsError,
    },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
