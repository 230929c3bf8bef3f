use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a data set cannot be read: what was expected, what was found, and where.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No folder at the place given.
    #[error("no folder at {}", root.display())]
    RootMissing {
        /// The place.
        root: PathBuf,
    },
    /// A split's folder is missing.
    #[error(
        "{} has no folder {split}; expected train/<class>/<image> and val/<class>/<image>",
        root.display()
    )]
    SplitMissing {
        /// The data folder.
        root: PathBuf,
        /// `train` or `val`.
        split: String,
    },
    /// Images lie in the split's folder itself.
    #[error(
        "{} has {images} images and no class folders (the first is {first}); expected {split}/<class>/<image>: \
         sort them into one folder a class, named as in train",
        folder.display()
    )]
    Unsorted {
        /// The split's folder.
        folder: PathBuf,
        /// The split.
        split: String,
        /// Number of images lying there.
        images: usize,
        /// The first of them in sorted order.
        first: String,
    },
    /// No class folders and no images.
    #[error("{} is empty: expected {split}/<class>/<image>", folder.display())]
    Empty {
        /// The split's folder.
        folder: PathBuf,
        /// The split.
        split: String,
    },
    /// Class folders without an image.
    #[error("{} of {split} without an image: {names} (in {})", count(names, "class folder"), folder.display())]
    EmptyClass {
        /// The split's folder.
        folder: PathBuf,
        /// The split.
        split: String,
        /// The class folders.
        names: Names,
    },
    /// `train` and `val` do not have the same classes.
    #[error("{}", classes_differ(val, missing, extra))]
    ClassesDiffer {
        /// The folder `val`.
        val: PathBuf,
        /// Classes of `train` that `val` lacks.
        missing: Names,
        /// Classes of `val` that `train` lacks.
        extra: Names,
    },
    /// A name that is not Unicode.
    #[error("the name {} is not Unicode, so results could not refer to it", path.display())]
    NotUnicode {
        /// The file or folder.
        path: PathBuf,
    },
    /// Folders without an end, as a link to a parent makes them.
    #[error("{} is nested more than {limit} folders deep; does a link point back up?", path.display())]
    TooDeep {
        /// The folder.
        path: PathBuf,
        /// The most that is followed.
        limit: usize,
    },
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A list of names that shows the first five and the rest as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        f.write_str(&self.0[..self.0.len().min(SHOWN)].join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn count(names: &Names, what: &str) -> String {
    match names.0.len() {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

fn classes_differ(val: &std::path::Path, missing: &Names, extra: &Names) -> String {
    let mut parts = Vec::new();
    if !missing.0.is_empty() {
        parts.push(format!("lacks {} of train: {missing}", count(missing, "class folder")));
    }
    if !extra.0.is_empty() {
        parts.push(format!("has {} that train lacks: {extra}", count(extra, "class folder")));
    }
    format!("{} {}", val.display(), parts.join(", and "))
}
