//! Which process does which cell, on a folder that processes of several machines share. There is no
//! server: files in the sweep's state folder are all that the processes know of one another.
//!
//! ```text
//! STATE/workers/ID.json       a process: who it is, what it does, a counter that it raises (beats)
//! STATE/claims/KEY.g0001      who took the cell KEY first, and how it was given back
//! STATE/claims/KEY.g0002      who took it next; the highest generation is the one that counts
//! STATE/claims/log/ID.jsonl   what the process took, gave back and lost, a line an event
//! ```
//!
//! **Taking** a key is the creation of its next generation, which only one process can do. The file
//! is written whole under another name and linked to its own, so nobody reads a part of it.
//! Generations are never removed: with a gap, a process whose view of the folder is old could create
//! one a second time.
//!
//! **Held** is a key whose newest generation is not given back and whose holder lives. A holder is
//! dead where it wrote a final state, where its process is gone from this very machine, or where its
//! file did not change for [`EXPIRY`]. That time is measured by the observer's own clock between its
//! own looks (a gap between two looks counts for at most half of it), so clocks of two machines are
//! never compared and a wrong one does no harm. The key of a dead holder is taken over.
//!
//! **Lost** is a claim once its worker has not beaten for a third of that time, or once a higher
//! generation is there. Work on a cell asks [`Claim::still_mine`] between its steps and stops when it
//! is not.
//!
//! # What is assumed of the folder
//!
//! - Creating a link (or, where there are no hard links, a file with `O_EXCL`) fails where the name
//!   exists, whichever machine created it; a rename replaces a file as a whole. POSIX asks for both, and
//!   NFS keeps them across machines from version 3 on. Where they do not hold, two processes may take
//!   one generation and do a cell twice at the same time.
//! - A file or folder that is opened shows what other machines put there before (close-to-open, as
//!   Linux's NFS client does unless mounted with `nocto`), or at worst what was there a third of
//!   [`EXPIRY`] ago. Where views are older, a living holder may look dead and its cell be done twice at
//!   the same time. An old view alone never gives one generation to two processes.
//! - Between two calls of [`Claim::still_mine`] lies less than a third of [`EXPIRY`]. A process that is
//!   stopped longer (a suspended job, a server that does not answer) works on until its next call.
//!
//! A cell that is done twice is waste, not damage: results are written whole, and both are the same.
//! The log shows it: see [`overlaps`]. A killed process may leave a hidden temporary file behind,
//! which nothing reads.

mod claim;
mod files;
mod log;
mod observer;
mod process;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use claim::{Claim, Claims, GIVE_UP, Record, Released, Setback, Taken};
pub use log::{Event, Holding, Overlap, What, overlaps, read_log};
pub use observer::{Life, Observer, Watched};
pub use process::Process;
pub use worker::{State, Status, Worker, WorkerFile};

/// How often a worker rewrites its file.
pub const BEAT: Duration = Duration::from_secs(5);
/// How long a worker's file may stay the same before others take it for dead.
pub const EXPIRY: Duration = Duration::from_secs(60);

/// Version of the files of this module.
const FORMAT: u32 = 1;
/// Longest key or worker's name, in bytes.
const LONGEST_NAME: usize = 120;

/// How often a worker beats, and after what silence it counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time between two beats.
    pub beat: Duration,
    /// Silence after which others take over; at least six beats.
    pub expiry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { beat: BEAT, expiry: EXPIRY }
    }
}

/// Why a claim cannot be taken, kept or looked at.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The system does not let a file be read or written.
    #[error("claims: cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is there but is not what it should be.
    #[error("claims: {} is not {expected}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A key that is not fit for a file's name.
    #[error(
        "claims: a key is 1 to {LONGEST_NAME} letters, digits, '-' and '_' of ASCII; found {0:?}"
    )]
    Key(String),
    /// Beats and expiry that do not fit together.
    #[error(
        "claims: expected an expiry of at least six beats; found {expiry:?}, a beat each {beat:?}"
    )]
    Timing {
        /// Time between beats.
        beat: Duration,
        /// The expiry.
        expiry: Duration,
    },
    /// A worker of one sweep asks for a cell of another.
    #[error("claims: expected a worker of {}; found one of {}", claims.display(), worker.display())]
    OtherFolder {
        /// State folder of the claims.
        claims: PathBuf,
        /// State folder of the worker.
        worker: PathBuf,
    },
    /// Others may take this process for dead: it must take nothing new.
    #[error("claims: nothing is taken now: {0}")]
    NotBeating(String),
    /// No thread for the beats.
    #[error("claims: cannot start the thread that beats: {0}")]
    Thread(io::Error),
}

impl ClaimError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }
}

fn workers_folder(state: &Path) -> PathBuf {
    state.join("workers")
}

fn claims_folder(state: &Path) -> PathBuf {
    state.join("claims")
}

fn log_folder(state: &Path) -> PathBuf {
    claims_folder(state).join("log")
}

/// Whether a text can be a part of a file's name here.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(fits)
}

/// A thread that panicked leaves whole values behind here: each change is one assignment or push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time of day, for people.
fn wall() -> String {
    jiff::Timestamp::now().to_string()
}
