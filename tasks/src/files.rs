//! Where the files of a data set are: in a folder, or in archives that are read without being
//! unpacked. Either way they are a tree of files under the paths of the folder layout, so that what
//! lists and loads samples does not know the difference.

use std::fs::{self, File};
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{ArchiveError, Archives};
use crate::data::{Container, DataError, Dataset, Layout};

/// A tree of files that is only read, also by many threads at once. Paths are relative, with `/` on every
/// system. A copy is cheap.
#[derive(Clone)]
pub struct Files {
    root: PathBuf,
    archives: Option<Arc<Archives>>,
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

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root && self.container() == other.container()
    }
}

impl Eq for Files {}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Files({}, {})", self.root.display(), self.container().unwrap_or("folder"))
    }
}

impl Files {
    /// The files below a folder. Nothing is looked at yet.
    pub fn folder(root: &Path) -> Self {
        Self { root: root.to_owned(), archives: None }
    }

    /// The files of a data set: those of the folder where it has the data set's own folders, else those in
    /// the archives there that the data set is read from in place. The index of the archives is kept in
    /// `indexes`, and made first where it is not there or they have changed; `told` hears how many bytes of
    /// how many that has been through, and ends it by returning false.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]. A folder with neither is no error here.
    pub fn open(
        dataset: &Dataset,
        root: &Path,
        indexes: &Path,
        told: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Self, ArchiveError> {
        let own = match dataset.layout {
            Layout::ImageFolder => "train",
            Layout::Ade20k => "images",
            Layout::Loveda => "Train",
            Layout::Nyuv2Bts | Layout::KittiEigen | Layout::Voc2012 | Layout::Demonstrations => "",
        };
        let unpacked = root.is_dir() && root.join(own).is_dir();
        let archives = match &dataset.in_place {
            Some(in_place) if !unpacked && root.exists() => {
                Archives::open(root, in_place, indexes, told)?
            }
            _ => None,
        };
        Ok(Self { root: root.to_owned(), archives: archives.map(Arc::new) })
    }

    /// The data folder, or the archive in its place.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kind of archives that these are read from; none for a folder.
    pub fn container(&self) -> Option<&'static str> {
        self.archives.as_ref().map(|archives| match archives.container() {
            Container::Webdataset => "webdataset",
            Container::Parquet => "parquet",
            Container::Zip => "zip",
            Container::Tar => "tar",
        })
    }

    /// Where a file is, for messages: below an archive if it is in one.
    pub fn place(&self, path: &str) -> PathBuf {
        match self.member(path) {
            Some((archives, member)) => archives.place(member),
            None => self.root.join(path),
        }
    }

    /// A file's place in the archives. What is not in them may lie beside them: split lists do.
    fn member(&self, path: &str) -> Option<(&Archives, usize)> {
        let archives = self.archives.as_deref()?;
        Some((archives, archives.find(path)?))
    }

    /// Whether there is anything at all.
    pub fn exist(&self) -> bool {
        self.archives.is_some() || self.root.is_dir()
    }

    /// Whether there is such a folder.
    pub fn is_dir(&self, path: &str) -> bool {
        match &self.archives {
            Some(archives) => !archives.below(path).is_empty(),
            None => self.root.join(path).is_dir(),
        }
    }

    /// Whether there is such a file.
    pub fn is_file(&self, path: &str) -> bool {
        self.member(path).is_some() || self.root.join(path).is_file()
    }

    /// Size of a file in bytes; `None` where there is no such file.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn size(&self, path: &str) -> io::Result<Option<u64>> {
        if let Some((archives, member)) = self.member(path) {
            return Ok(Some(archives.size(member)));
        }
        match fs::metadata(self.root.join(path)) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            // Not a directory: the root is an archive.
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole of a file.
    ///
    /// # Errors
    ///
    /// The system's, or what is wrong with an archive; [`io::ErrorKind::NotFound`] where there is no such
    /// file.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match self.member(path) {
            Some((archives, member)) => archives.read(member).map_err(io::Error::other),
            None => fs::read(self.root.join(path)),
        }
    }

    /// At least the first `bytes` of a file, or all of it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn head(&self, path: &str, bytes: usize) -> io::Result<Vec<u8>> {
        if let Some((archives, member)) = self.member(path) {
            return archives.head(member, bytes).map_err(io::Error::other);
        }
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

    /// Has the system fetch a file that will be read soon, where it is in an archive. Says nothing of errors:
    /// reading it will.
    pub fn prefetch(&self, path: &str) {
        if let Some((archives, member)) = self.member(path) {
            archives.prefetch(member);
        }
    }

    /// What a folder holds. Links are followed; a dangling one counts as a file.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`], [`DataError::NotUnicode`].
    pub fn entries(&self, folder: &str) -> Result<Entries, DataError> {
        match &self.archives {
            Some(archives) => Ok(members(archives, folder)),
            None => listed(&self.root.join(folder)),
        }
    }
}

/// Members sort by their whole paths, so that each folder is one range and is stepped over.
fn members(archives: &Archives, folder: &str) -> Entries {
    let mut found = Entries::default();
    let range = archives.below(folder);
    let prefix = if folder.is_empty() { 0 } else { folder.len() + 1 };
    let mut at = range.start;
    while at < range.end {
        let path = archives.path(at);
        match path[prefix..].split_once('/') {
            Some((name, _)) => {
                found.folders.push(name.to_owned());
                at = archives.below(&path[..prefix + name.len()]).end;
            }
            None => {
                found.files.push(path[prefix..].to_owned());
                found.sizes.push(archives.size(at));
                at += 1;
            }
        }
    }
    // `a-b/x` stands before `a/x`.
    found.folders.sort_unstable();
    found
}

fn listed(folder: &Path) -> Result<Entries, DataError> {
    let fail = |source: io::Error| DataError::Io { path: folder.to_owned(), source };
    let mut found = Entries::default();
    for entry in fs::read_dir(folder).map_err(fail)? {
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
