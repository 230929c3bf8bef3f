use std::path::{Path, PathBuf};

use super::{HubRef, INDEX};

/// What can go wrong between the hub and the disk. No message and no field holds the token or a
/// signed address.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// 401 or 403. The hub says 401 also for a repository that does not exist.
    #[error(
        "no access to {repository}: it is gated, private, or does not exist (the hub answered \
         {status})"
    )]
    Gated {
        /// `ORG/REPO`.
        repository: String,
        /// Page where access is asked for.
        page: String,
        /// HTTP status.
        status: u16,
    },
    /// 404 for the repository or the revision.
    #[error("the hub has no {0}")]
    NotFound(HubRef),
    /// The repository lacks a file that a backbone needs.
    #[error("{reference} has no {file}")]
    NoFile {
        /// The repository.
        reference: HubRef,
        /// What was looked for.
        file: String,
    },
    /// Not in the cache, and the network must not be used.
    #[error("{reference} is not in the cache {}, and this run is offline; {cached}", cache.display())]
    Offline {
        /// The repository.
        reference: HubRef,
        /// The cache folder.
        cache: PathBuf,
        /// What the cache has instead, in words.
        cached: String,
    },
    /// No answer, and the revision is not in the cache.
    #[error("cannot reach the hub for {reference}: {why}; {cached}")]
    Unreachable {
        /// The repository.
        reference: HubRef,
        /// The innermost cause, or the status of a hub that is down.
        why: String,
        /// What the cache has instead, in words.
        cached: String,
    },
    /// What came is not what the repository lists.
    #[error("{file} of {reference} is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// The repository.
        reference: HubRef,
        /// The file.
        file: String,
        /// Size or hash that is listed.
        expected: String,
        /// Size or hash of what came.
        found: String,
    },
    /// A file in the cache has changed, and the network must not or cannot be used.
    #[error("{} is damaged: expected {expected}, found {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Hash that it is named after.
        expected: String,
        /// Hash of its bytes.
        found: String,
    },
    /// Nothing to check a file with.
    #[error(
        "{file} of {reference} cannot be verified: expected an ETag that is a SHA-256 or a git \
         object, found {etag:?}"
    )]
    Unverifiable {
        /// The repository.
        reference: HubRef,
        /// The file.
        file: String,
        /// What the server sent.
        etag: String,
    },
    /// A file that is handed out by Xet's own protocol alone.
    #[error("{file} of {reference} is offered over Xet alone, which is not spoken here")]
    XetOnly {
        /// The repository.
        reference: HubRef,
        /// The file.
        file: String,
    },
    /// Redirects without an end.
    #[error("cannot fetch {file} of {reference}: more than {limit} redirects, last to {url}")]
    Redirects {
        /// The repository.
        reference: HubRef,
        /// The file.
        file: String,
        /// How many are followed.
        limit: usize,
        /// Where the last one led, without its query.
        url: String,
    },
    /// An answer that is neither the file nor a reason to wait.
    #[error("cannot fetch {file} of {reference}: {url} answered {found}")]
    Answer {
        /// The repository.
        reference: HubRef,
        /// The file.
        file: String,
        /// What was asked for, without its query.
        url: String,
        /// The status, or what is wrong with the answer.
        found: String,
    },
    /// The same trouble again and again, with no byte gained.
    #[error(
        "cannot fetch {file} of {reference}: {why}, {tries} times in a row, at byte {at} of {size}"
    )]
    GaveUp {
        /// The repository.
        reference: HubRef,
        /// The file.
        file: String,
        /// The last trouble.
        why: String,
        /// How often.
        tries: u32,
        /// Bytes that are there.
        at: u64,
        /// Bytes that the file has.
        size: u64,
    },
    /// The shard index of the repository is broken.
    #[error("{INDEX} of {reference} is not usable: {why}")]
    Index {
        /// The repository.
        reference: HubRef,
        /// What is wrong.
        why: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use {} in the hub's cache: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Anything else the hub said.
    #[error("cannot list {reference}: {why}")]
    Other {
        /// The repository.
        reference: HubRef,
        /// Why.
        why: String,
    },
}

impl HubError {
    /// The error of an operation on this path.
    pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Io { path: path.to_path_buf(), source },
        }
    }
}
