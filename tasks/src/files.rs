//! Where the files of a data set are: in a folder, or in archives that are read without being
//! unpacked. Either way they are a tree of files under the paths of the folder layout, so that what
//! lists and loads samples does not know the difference.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::data::DataError;

/// A tree of files that is only read. Paths are relative, with `/` on every system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    root: PathBuf,
}

/// What a folder holds, each sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Names of folders.
    pub folders: Vec<String>,
    /// Names of files.
    pub files: Vec<String>,
    /// Their sizes in bytes, where nobody has to be asked for each: in archives. Else empty.
    pub sizes: Vec<u64>,
}

impl From<&Path> for Files {
    fn from(root: &Path) -> Self {
        Self::folder(root)
    }
}

impl From<&PathBuf> for Files {
    fn from(root: &PathBuf) -> Self {
        Self::folder(root)
    }
}

impl From<&Self> for Files {
    fn from(files: &Self) -> Self {
        files.clone()
    }
}

impl Files {
    /// The files below a folder. Nothing is looked at yet.
    pub fn folder(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The data folder, or the archive in its place.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kind of archives that these are read from; none for a folder.
    pub fn container(&self) -> Option<&'static str> {
        None
    }

    /// Where a file is, for messages: below an archive if it is in one.
    pub fn place(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether there is anything at all.
    pub fn exist(&self) -> bool {
        self.root.is_dir()
    }

    /// Whether there is such a folder.
    pub fn is_dir(&self, path: &str) -> bool {
        self.root.join(path).is_dir()
    }

    /// Whether there is such a file.
    pub fn is_file(&self, path: &str) -> bool {
        self.root.join(path).is_file()
    }

    /// Size of a file in bytes; `None` where there is no such file.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn size(&self, path: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.root.join(path)) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole of a file.
    ///
    /// # Errors
    ///
    /// The system's; [`io::ErrorKind::NotFound`] where there is no such file.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.root.join(path))
    }

    /// At least the first `bytes` of a file, or all of it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn head(&self, path: &str, bytes: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::with_capacity(bytes);
        File::open(self.root.join(path))?.take(bytes as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    /// A file as text.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); [`io::ErrorKind::InvalidData`] where it is not UTF-8.
    pub fn text(&self, path: &str) -> io::Result<String> {
        let text = String::from_utf8(self.read(path)?);
        text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
    }

    /// What a folder holds. Links are followed; a dangling one counts as a file.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`], [`DataError::NotUnicode`].
    pub fn entries(&self, folder: &str) -> Result<Entries, DataError> {
        let folder = self.root.join(folder);
        let fail = |source: io::Error| DataError::Io { path: folder.clone(), source };
        let mut found = Entries::default();
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let kind = entry.file_type().map_err(fail)?;
            let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            match entry.file_name().into_string() {
                Ok(name) if is_folder => found.folders.push(name),
                Ok(name) => found.files.push(name),
                Err(_) => return Err(DataError::NotUnicode { path: entry.path() }),
            }
        }
        // Bytes of UTF-8 sort as code points do, which is Python's order.
        found.folders.sort_unstable();
        found.files.sort_unstable();
        Ok(found)
    }
}
