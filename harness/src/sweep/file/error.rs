//! What is wrong with a sweep's file.

use std::path::PathBuf;

/// What is wrong, and where; as a warning, what has no effect.
#[derive(Debug)]
pub struct FileError {
    /// The file, or `--backbone`.
    pub origin: String,
    /// From 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.origin, self.problem),
            None => write!(f, "{}: {}", self.origin, self.problem),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}

impl FileError {
    /// Names that may have been meant, best first.
    pub fn near(&self) -> &[String] {
        match &self.problem {
            Problem::Unknown { near, .. } => near,
            _ => &[],
        }
    }
}

/// What is wrong with a sweep's file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[source] std::io::Error),
    /// It is no TOML; the message has the line.
    #[error("{}", .0.to_string().trim_end())]
    Syntax(Box<toml::de::Error>),
    /// A name that is none of those there are.
    #[error("unknown {what} {name:?}; there are {known}")]
    Unknown {
        /// `axis`, `key`, `task`, `head` and so on.
        what: &'static str,
        /// As given.
        name: String,
        /// What there is.
        known: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// An axis outside of a table.
    #[error("{0} stands in no table: put it in [fixed], or its values in [grid]")]
    Misplaced(String),
    /// A name that is no folder's.
    #[error(
        "{0:?} is no name for a sweep: give one with name = \"...\", of letters, digits, - and _, beginning with a letter \
         or digit"
    )]
    Name(String),
    /// A value of another type or size.
    #[error("{axis}: expected {expected}, found {found}")]
    Value {
        /// The axis, table or key.
        axis: String,
        /// What it takes.
        expected: String,
        /// As the file spells it.
        found: String,
    },
    /// An axis without a value.
    #[error("{0} has no value")]
    NoValue(String),
    /// An axis that stands in two places.
    #[error(
        "{axis} stands here and in line {first}: an axis belongs in one of [fixed], [grid] and [zip]"
    )]
    Twice {
        /// The axis.
        axis: String,
        /// Line of the first.
        first: usize,
    },
    /// Two ways to say which blocks are read.
    #[error(
        "block and taps are both given: a head reads the blocks that end at block, or exactly taps"
    )]
    BlockAndTaps,
    /// Lists that cannot be taken together.
    #[error(
        "the lists of [zip] differ in length: {first} has {first_length}, {second} has {second_length}"
    )]
    Lengths {
        /// The first axis.
        first: String,
        /// How many values it has.
        first_length: usize,
        /// The axis of another length.
        second: String,
        /// How many values it has.
        second_length: usize,
    },
    /// `--backbone` where the file's backbones belong to other values.
    #[error("backbone is zipped with {0}: --backbone cannot replace it")]
    ZippedBackbone(String),
    /// A pattern that no file fits.
    #[error("no file or folder fits {0}")]
    NoFile(String),
    /// A folder that a pattern leads into.
    #[error("cannot look for {pattern} in {}: {source}", folder.display())]
    Folder {
        /// The pattern.
        pattern: String,
        /// The folder.
        folder: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No backbone.
    #[error("no backbone is given, in the file or as --backbone")]
    NoBackbone,
    /// No task.
    #[error("no task is given")]
    NoTask,
    /// A data set of several heads, and none is named.
    #[error("{dataset} has the heads {has}: say which with head, or as {dataset}/HEAD")]
    WhichHead {
        /// The data set.
        dataset: String,
        /// Its heads.
        has: String,
    },
    /// A data set for which no head is left.
    #[error("{dataset} has the heads {has}, and head is {given}")]
    NoHead {
        /// The data set.
        dataset: String,
        /// Its heads.
        has: String,
        /// The values of `head`.
        given: String,
    },
    /// A rule without a line.
    #[error("the rule [[{0}]] names no axis")]
    EmptyRule(&'static str),
    /// A rule without effect: a warning.
    #[error("the rule [[{0}]] matches no cell")]
    Unused(&'static str),
    /// The rules leave nothing.
    #[error("no cell is left of {combinations} combinations: {rules}")]
    NothingLeft {
        /// How many there were.
        combinations: u128,
        /// The rules, and how much each took.
        rules: String,
    },
    /// More than a command can hold.
    #[error("{combinations} combinations are more than {limit}, the most that one sweep can have")]
    TooMany {
        /// How many.
        combinations: u128,
        /// How many there may be.
        limit: u128,
    },
}
