use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use super::member::Danger;
use crate::hub::HubError;
use crate::lists::ListError;

/// Why a data set was not prepared. Nothing is then at its place that was not there before.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Nothing says where it comes from.
    #[error("datasets.toml does not say which files {0} is made from")]
    NoSource(String),
    /// A set of files that there is not.
    #[error("{dataset} has no set {found:?} of files: expected {}", sets.join(" or "))]
    Set {
        /// Name of the data set.
        dataset: String,
        /// As given.
        found: String,
        /// The ones there are.
        sets: Vec<String>,
    },
    /// A `--to` that is no folder's name.
    #[error("{} names no folder", .0.display())]
    NoFolder(PathBuf),
    /// A given file or folder that cannot be used.
    #[error("cannot use {}, given with --from: {source}", path.display())]
    Given {
        /// As given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A given file that nothing is made from.
    #[error("{} is none of the files that {dataset} is made from: {}", path.display(), names.join(", "))]
    Unused {
        /// As given.
        path: PathBuf,
        /// Name of the data set.
        dataset: String,
        /// What the files are called.
        names: Vec<String>,
    },
    /// Something is there already.
    #[error("{} is there, not empty and not what this command made ({found}); nothing was changed", path.display())]
    Occupied {
        /// The data folder.
        path: PathBuf,
        /// What is there, in words.
        found: String,
    },
    /// It was prepared, and is no longer what it was.
    #[error(
        "{} was prepared with {expected} files of {expected_bytes} bytes, and has {found} of {found_bytes} now",
        path.display()
    )]
    Changed {
        /// The data folder.
        path: PathBuf,
        /// Files that were made.
        expected: u64,
        /// Their bytes.
        expected_bytes: u64,
        /// Files that are there.
        found: u64,
        /// Their bytes.
        found_bytes: u64,
    },
    /// What a person must fetch.
    #[error("{}", by_hand(dataset, items, then))]
    ByHand {
        /// Name of the data set.
        dataset: String,
        /// All of it.
        items: Vec<ByHand>,
        /// What this command then fetches itself.
        then: Vec<String>,
        /// The command that continues.
        command: String,
    },
    /// Files are needed from elsewhere.
    #[error("this run is offline, and {dataset} needs {}", names.join(", "))]
    Offline {
        /// Name of the data set.
        dataset: String,
        /// The files, and where they are.
        names: Vec<String>,
    },
    /// Two commands for one folder.
    #[error("{by} is preparing this data set in {}", path.display())]
    Busy {
        /// The working folder.
        path: PathBuf,
        /// Which process.
        by: String,
    },
    /// Too little room.
    #[error("{what} needs {needed} bytes in {}, where {free} are free", path.display())]
    Space {
        /// What for.
        what: String,
        /// The folder.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// A file was not fetched.
    #[error("cannot fetch {name} from {url}: {why}")]
    Download {
        /// The file.
        name: String,
        /// Where from, without a query.
        url: String,
        /// What happened.
        why: String,
    },
    /// From the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The repository does not have what datasets.toml says.
    #[error("{repository} has {found} files {name}, expected {expected}")]
    Listing {
        /// `ORG/REPO`.
        repository: String,
        /// Pattern.
        name: String,
        /// How many, in words.
        expected: String,
        /// How many match.
        found: usize,
    },
    /// Which drives are needed is not known.
    #[error(transparent)]
    Lists(#[from] ListError),
    /// A file that is not the published one.
    #[error("{} is not the published file: expected {expected}, found {found}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Size or hash.
        expected: String,
        /// The one it has.
        found: String,
    },
    /// No archive at all.
    #[error("{} is not an archive: expected zip, tar or gzipped tar, found {found}", path.display())]
    NoArchive {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// An archive that is not whole.
    #[error("{}{} is damaged: {why}", archive.display(), member.as_ref().map_or(String::new(), |member| format!(", member {member},")))]
    Damaged {
        /// The archive.
        archive: PathBuf,
        /// Where in it, if that is known.
        member: Option<String>,
        /// What is wrong.
        why: String,
    },
    /// An archive that would do harm.
    #[error("{}: member {member} is refused: {danger}", archive.display())]
    Refused {
        /// The archive.
        archive: PathBuf,
        /// Its path there.
        member: String,
        /// Why.
        danger: Danger,
    },
    /// An archive of something else.
    #[error("{}: expected {expected}, found none", archive.display())]
    Nothing {
        /// The archive.
        archive: PathBuf,
        /// What belongs in it.
        expected: String,
    },
    /// A file in an archive that cannot be made use of.
    #[error("{}, member {member}: {why}", archive.display())]
    Content {
        /// The archive.
        archive: PathBuf,
        /// Its path there.
        member: String,
        /// What was expected and what was found.
        why: String,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// In words.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Files that a person must fetch, from one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// Names of the files; one with `*` where they are not known.
    pub names: Vec<String>,
    /// Where.
    pub page: String,
    /// What to do there.
    pub how: String,
    /// Checksum, where it is published.
    pub checksum: Option<String>,
}

fn by_hand(dataset: &str, items: &[ByHand], then: &[String]) -> String {
    let mut text = format!("{dataset} needs files that only a person can get; nothing was fetched");
    for item in items {
        // A String takes all.
        let _ = write!(text, "\n\n  {}", item.names.join("\n  "));
        if item.names.len() > 1 {
            let _ = write!(text, "\n  ({} files)", item.names.len());
        }
        let _ = write!(text, "\n    {}\n    {}", item.page, item.how);
        if let Some(checksum) = &item.checksum {
            let _ = write!(text, "\n    {checksum}");
        }
    }
    if !then.is_empty() {
        let _ = write!(text, "\n\nOnce they are there, this is fetched: {}", then.join(", "));
    }
    text.push('\n');
    text
}

impl PrepareError {
    /// The error of an operation on this path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Io { action, path: path.to_path_buf(), source },
        }
    }

    /// Whether it is the word of whoever asked that is wrong, before any work.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NoSource(_)
                | Self::Set { .. }
                | Self::NoFolder(_)
                | Self::Given { .. }
                | Self::Unused { .. }
                | Self::Occupied { .. }
                | Self::Changed { .. }
                | Self::ByHand { .. }
                | Self::Offline { .. }
                | Self::Busy { .. }
                | Self::Space { .. }
                | Self::Hub(_)
                | Self::Lists(_)
        ) && !self.is_interruption()
    }

    /// Whether Ctrl-C ended it.
    pub fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Interrupted
                | Self::Hub(HubError::Interrupted)
                | Self::Lists(ListError::Interrupted)
        )
    }

    /// The archive that cannot be used, whatever is done with it.
    pub(super) fn bad_archive(&self) -> Option<&Path> {
        match self {
            Self::NoArchive { path, .. } | Self::Mismatch { path, .. } => Some(path),
            Self::Damaged { archive, .. }
            | Self::Refused { archive, .. }
            | Self::Nothing { archive, .. }
            | Self::Content { archive, .. } => Some(archive),
            _ => None,
        }
    }

    /// What to do next, one line each.
    pub fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::NoSource(_) => {
                "`pixio-eval data list --json` shows each data set's page".to_owned()
            }
            Self::Unused { .. } => {
                "a folder given with --from may hold other files, too".to_owned()
            }
            Self::Occupied { .. } => "--to DIR makes it elsewhere".to_owned(),
            Self::Changed { .. } => {
                "move the folder elsewhere, and the same command makes it again".to_owned()
            }
            Self::ByHand { command, .. } => format!("then continue with: {command}"),
            Self::Offline { .. } => {
                "--from FILE_OR_FOLDER gives files that were fetched elsewhere".to_owned()
            }
            Self::Busy { .. } => {
                "wait for it, or end it: the same command then continues".to_owned()
            }
            Self::Space { .. } => "--to DIR makes it on another disk".to_owned(),
            Self::Download { .. } => {
                "the same command continues; or fetch the file in another way, and \
                                      give it with --from"
                    .to_owned()
            }
            Self::Hub(HubError::Gated { page, .. }) => format!(
                "accept the terms at {page}, then set HF_TOKEN (or log in with the Hugging Face CLI)"
            ),
            Self::Hub(HubError::Unreachable { .. }) => {
                "check the network, or HF_ENDPOINT".to_owned()
            }
            Self::Lists(_) => "run it once where there is a network".to_owned(),
            Self::Mismatch { .. } | Self::NoArchive { .. } | Self::Damaged { .. } => {
                "fetch the file again".to_owned()
            }
            Self::Refused { .. } => {
                "an honest archive has no such member: get the file from its publisher".to_owned()
            }
            Self::Nothing { .. } | Self::Content { .. } => {
                "is it the file that datasets.toml names?".to_owned()
            }
            Self::Interrupted | Self::Hub(HubError::Interrupted) => {
                "the same command continues where this one stopped".to_owned()
            }
            _ => return Vec::new(),
        };
        vec![hint]
    }
}
