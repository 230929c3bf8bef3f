use std::path::{Path, PathBuf};

/// Why a file was not fetched. No message holds a token or a signed address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// Redirects without an end.
    #[error("more than {limit} redirects, last to {url}")]
    Redirects {
        /// How many are followed.
        limit: usize,
        /// Where the last one led, without its query.
        url: String,
    },
    /// An address that begins with https led to one that does not, and nothing checks what comes.
    #[error("{url} is not secure, and no checksum is published: expected https")]
    Insecure {
        /// Where it led, without its query.
        url: String,
    },
    /// An answer that is neither the file nor a reason to wait.
    #[error("{url} answered {status}")]
    Answer {
        /// What was asked for, without its query.
        url: String,
        /// HTTP status.
        status: u16,
        /// Whether it came from where the file is said to be, and not from where that led.
        own: bool,
        /// Whether the file is offered by Xet's own protocol.
        xet: bool,
    },
    /// What came is not what it should be.
    #[error("expected {expected}, found {found}")]
    Corrupt {
        /// Size or hash.
        expected: String,
        /// Size or hash of what came.
        found: String,
    },
    /// The same trouble again and again, with no byte gained.
    #[error("{why}, {tries} times in a row, at byte {at}{}", of(*size))]
    GaveUp {
        /// The last trouble.
        why: String,
        /// How often.
        tries: u32,
        /// Bytes that are there.
        at: u64,
        /// Bytes that the file has, if that is known.
        size: Option<u64>,
    },
    /// The file cannot be written or read.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No request could be made at all.
    #[error("{0}")]
    Client(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

fn of(size: Option<u64>) -> String {
    size.map_or(String::new(), |size| format!(" of {size}"))
}

impl DownloadError {
    /// The error of an operation on this path.
    pub fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Io { path: path.to_path_buf(), source },
        }
    }
}
