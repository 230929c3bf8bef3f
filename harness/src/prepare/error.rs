use std::error::Error;
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
    /// It was prepared of other files than are asked for.
    #[error("{} was prepared from the set {set}, not {asked}; nothing was changed", path.display())]
    OtherSet {
        /// The data folder.
        path: PathBuf,
        /// The set that is asked for.
        asked: String,
        /// The one that it was made from.
        set: String,
    },
    /// No folder can get this name.
    #[error("cannot make {}: {found}", path.display())]
    Place {
        /// The data folder.
        path: PathBuf,
        /// What is there.
        found: &'static str,
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

/// The system's own error, where that is what is behind this one. A place that cannot be, which a damaged
/// archive may lead to, is none.
pub(super) fn of_system(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let Some(io) = error.downcast_ref::<io::Error>() else {
            next = error.source();
            continue;
        };
        if let Some(code) = io.raw_os_error() {
            let impossible = io.kind() == io::ErrorKind::InvalidInput;
            return (!impossible).then(|| io::Error::from_raw_os_error(code));
        }
        // Its source would be that of what it wraps.
        next = io.get_ref().map(|inner| inner as &(dyn Error + 'static));
    }
    None
}

impl PrepareError {
    /// The error of an operation on this path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Io { action, path: path.to_path_buf(), source },
        }
    }

    /// Why an archive could not be read: it is damaged, unless the system says that it is the disk.
    pub(super) fn unreadable(
        archive: &Path,
        member: Option<&str>,
        error: &(dyn Error + 'static),
    ) -> Self {
        if let Some(error) = of_system(error) {
            return Self::io("read", archive)(error);
        }
        let (archive, member) = (archive.to_path_buf(), member.map(str::to_owned));
        Self::Damaged { archive, member, why: error.to_string() }
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
                | Self::OtherSet { .. }
                | Self::Place { .. }
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
            Self::Occupied { .. } | Self::OtherSet { .. } => {
                "--to DIR makes it elsewhere".to_owned()
            }
            Self::Place { .. } => "--to DIR, of a folder that is not there yet".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_disk_is_no_damaged_archive() {
        let path = Path::new("a.zip");
        let told = |error: &(dyn Error + 'static)| PrepareError::unreadable(path, None, error);
        // EIO, as it is, in an error of zip archives, and in one that a reader made of it.
        let disk = || io::Error::from_raw_os_error(5);
        let wrapped = io::Error::other(zip::result::ZipError::Io(disk()));
        for error in [disk(), wrapped] {
            let told = told(&error);
            assert!(told.bad_archive().is_none(), "{told}");
            assert!(matches!(told, PrepareError::Io { .. }), "{told:?}");
        }
        assert!(told(&zip::result::ZipError::Io(disk())).bad_archive().is_none());
        // EINVAL is what a seek to nowhere gives.
        for error in [io::Error::from_raw_os_error(22), io::Error::other("a wrong checksum")] {
            assert!(told(&error).bad_archive().is_some());
        }
    }
}
