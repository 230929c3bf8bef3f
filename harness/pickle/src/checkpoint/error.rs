use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::error::PickleError;

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else than a checkpoint.
    #[error("it is neither a zip archive nor a pickle with PyTorch's number")]
    NotACheckpoint,
    /// The archive is not whole.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file that a checkpoint's archive has is not there.
    #[error("the archive has no entry {0}")]
    NoEntry(String),
    /// The byte order's record says neither little nor big.
    #[error("byte order {0}; expected little or big")]
    ByteOrder(String),
    /// A pickle cannot be read.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// Bytes after the pickle.
    #[error("{0} bytes follow the checkpoint's end")]
    Trailing(usize),
    /// A file from before 1.6 whose parts are not what they should be.
    #[error("older checkpoint: expected {expected}, found {found}")]
    Legacy {
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: &'static str,
    },
    /// A storage that cannot be what it says.
    #[error("storage {key}: {fault}")]
    Storage {
        /// Its key.
        key: String,
        /// What is wrong.
        fault: StorageFault,
    },
    /// A tensor that cannot be what it says.
    #[error("tensor {name}: {fault}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        fault: TensorFault,
    },
    /// A name that does not exist.
    #[error("no tensor {0}")]
    NoTensor(String),
    /// Nothing to read.
    #[error("it holds no tensors{}", entries(.0))]
    NoTensors(Vec<String>),
    /// Two tensors of one name.
    #[error("tensor {0} stands there twice")]
    Duplicate(String),
    /// A tensor under a key that makes no name.
    #[error("a tensor stands under a key that is {0}; expected text or an integer")]
    Key(&'static str),
    /// More names than a checkpoint can have.
    #[error("its dicts nest to more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// What is allowed.
        limit: usize,
    },
}

fn entries(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!("; its entries are {}", keys.join(", ")) }
}

/// What is wrong with a storage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageFault {
    /// It is referred to and not in the file.
    #[error("not in the file")]
    Missing,
    /// It is listed twice.
    #[error("listed twice")]
    Duplicate,
    /// It is listed, and nothing says of which type it is.
    #[error("listed, and never used")]
    Unused,
    /// Two tensors see it as different types.
    #[error("used with elements of {0} and of {1} bytes")]
    Types(usize, usize),
    /// Its size in the file is not the one a tensor was given.
    #[error("{found} bytes in the file, expected {expected}")]
    Size {
        /// Bytes by the pickle.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
}

/// What is wrong with a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorFault {
    /// A function that does not make a dense tensor.
    #[error("{0} does not make a dense tensor")]
    Function(String),
    /// An argument is missing or of the wrong kind.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// Which.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A class that is no storage, or a type that is none.
    #[error("{0} is not a type of elements")]
    Type(String),
    /// A size, stride, offset or count below zero.
    #[error("{what} is {value}; expected 0 or more")]
    Negative {
        /// Which.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// Sizes and strides do not pair up, or there are too many.
    #[error("{sizes} sizes and {strides} strides; expected as many, at most {most}")]
    Dimensions {
        /// How many sizes.
        sizes: usize,
        /// How many strides.
        strides: usize,
        /// PyTorch's limit.
        most: usize,
    },
    /// Its sizes multiply beyond 64 bits.
    #[error("its sizes and strides exceed 64 bits")]
    Overflow,
    /// It reaches beyond its storage.
    #[error("it reaches to element {needs} of a storage of {holds}")]
    OutOfBounds {
        /// Elements it needs.
        needs: usize,
        /// Elements there are.
        holds: usize,
    },
    /// An expanded tensor that would take far more memory than the file has.
    #[error("it repeats its storage to {bytes} bytes; expected at most {limit}")]
    Expanded {
        /// Bytes it would take.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It is a conjugate or negative view, or has other metadata.
    #[error("it has metadata that changes its values")]
    Metadata,
}
