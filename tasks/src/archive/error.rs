use std::io;
use std::path::{Path, PathBuf};

/// Why archives cannot be read: what was expected, what was found, and where.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An archive's name is not Unicode.
    #[error("the name of the archive {} is not Unicode; rename it", path.display())]
    NotUnicode {
        /// The archive.
        path: PathBuf,
    },
    /// An archive as a whole is not what its name says.
    #[error("{}: {problem}", archive.display())]
    Archive {
        /// The archive.
        archive: PathBuf,
        /// What is wrong.
        problem: Problem,
    },
    /// A member cannot be used.
    #[error("{}: member {member}: {problem}", archive.display())]
    Member {
        /// The archive.
        archive: PathBuf,
        /// The member's name, as the archive has it.
        member: String,
        /// What is wrong.
        problem: Problem,
    },
    /// Two members would be the same file.
    #[error(
        "{path} is twice in the archives, in {} and in {}; expected every file once: move one of them away",
        first.display(), second.display()
    )]
    Duplicate {
        /// The file, as the data set's folder layout names it.
        path: String,
        /// An archive that has it.
        first: PathBuf,
        /// The archive that has it too.
        second: PathBuf,
    },
    /// A class number goes with two WordNet identifiers.
    #[error(
        "class {class} is {first} in some keys and {second} in others; expected one WordNet identifier a class \
         number: are shards of two data sets in this folder?"
    )]
    ClassHasTwoNames {
        /// The class number.
        class: u32,
        /// A WordNet identifier that it goes with.
        first: String,
        /// Another one.
        second: String,
    },
    /// A WordNet identifier goes with two class numbers.
    #[error(
        "{name} is class {first} in some samples and class {second} in others; expected one class number: are \
         shards of two data sets in this folder?"
    )]
    NameHasTwoClasses {
        /// The WordNet identifier.
        name: String,
        /// A class number that it goes with.
        first: u32,
        /// Another one.
        second: u32,
    },
    /// A class number goes with no WordNet identifier although others do.
    #[error(
        "no image of class {class} has a WordNet identifier in its key, those of other classes do; \
         expected it for every class or for none"
    )]
    ClassWithoutName {
        /// The class number.
        class: u32,
    },
    /// An archive was written to after its members were listed.
    #[error(
        "{} changed since it was listed ({listed} bytes then, {found} now, or another time of change); \
         start again to have it listed anew",
        archive.display()
    )]
    Changed {
        /// The archive.
        archive: PathBuf,
        /// Its size when it was listed, in bytes.
        listed: u64,
        /// Its size now.
        found: u64,
    },
    /// More members than an index can hold.
    #[error(
        "{members} members with {names} bytes of names; an index holds at most 4294967294 of each"
    )]
    TooMany {
        /// Members.
        members: u64,
        /// Bytes of their paths.
        names: u64,
    },
    /// No index can be kept.
    #[error("cannot write the index {}: {source}; PIXIO_EVAL_CACHE chooses another folder for it", path.display())]
    Write {
        /// The index or its folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The index was written and cannot be read back.
    #[error("the index {} was written and cannot be read back; is its disk full or failing?", path.display())]
    Index {
        /// The index.
        path: PathBuf,
    },
    /// Interrupted while an index was built; nothing of it is kept.
    #[error("interrupted while the members of archives were listed")]
    Interrupted,
}

/// What is wrong with an archive or a member of it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Its bytes would lie beyond the end of the archive.
    #[error("reaches beyond the end of the archive: it is truncated; fetch or copy it again")]
    Truncated,
    /// Larger than anything expected.
    #[error("has {bytes} bytes unpacked; at most {limit} are read")]
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// Encrypted.
    #[error("is encrypted; expected a plain archive")]
    Encrypted,
    /// A form of storage that is not read.
    #[error("is stored as {found}; expected {expected}")]
    Unsupported {
        /// What was found.
        found: String,
        /// What is read.
        expected: &'static str,
    },
    /// Its content is not what was packed.
    #[error("has the CRC-32 {found:08x}; expected {expected:08x}: it is damaged")]
    Checksum {
        /// The checksum in the archive.
        expected: u32,
        /// That of the content.
        found: u32,
    },
    /// Not what the format says.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// A name that could not be a file's in a data folder.
    #[error("its name {0}")]
    Name(&'static str),
    /// An image without a class.
    #[error(
        "is an image without a .cls file under the same key; expected one for every image. A tar that is no \
         WebDataset shard must lie elsewhere"
    )]
    NoClass,
    /// Two images under one key.
    #[error("is the second image under its key; expected one")]
    TwoImages,
    /// A class that is no class number.
    #[error("has the class {0}; expected a number from 0 to 9999")]
    Class(String),
    /// An archive of both splits.
    #[error(
        "has both train and val in its name; expected one of them, which is the split of its images"
    )]
    BothSplits,
    /// A row without an image.
    #[error("has no image bytes; expected them in the column image.bytes")]
    NoBytes,
}

/// Why an archive could not be listed or a member not be read, before it is known which.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    Problem(Problem),
    Member(String, Problem),
    Interrupted,
}

impl Fault {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Problem(Problem::Damaged(what.into()))
    }

    /// The same, about a member of this name. Names are shown with control characters escaped.
    pub(super) fn of(self, member: &str) -> Self {
        const SHOWN: usize = 200;
        match self {
            Self::Problem(problem) => {
                let shown = member.chars().take(SHOWN).flat_map(char::escape_debug).collect();
                Self::Member(shown, problem)
            }
            other => other,
        }
    }

    pub(super) fn at(self, archive: &Path) -> ArchiveError {
        let archive = archive.to_owned();
        match self {
            Self::Io(source) => ArchiveError::Io { path: archive, source },
            Self::Problem(problem) => ArchiveError::Archive { archive, problem },
            Self::Member(member, problem) => ArchiveError::Member { archive, member, problem },
            Self::Interrupted => ArchiveError::Interrupted,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
