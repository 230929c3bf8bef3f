//! Files in archives, read where they are: zip, tar, WebDataset shards and Parquet files.
//!
//! A folder of archives looks like the data set's folder layout: members have the paths that their files would
//! have there, whatever the archives call them. An index says where the bytes of each are. It is built once by
//! reading headers, not contents, kept in a cache, mapped into memory, and built again when an archive changed.
//! Anything may be in an archive or in an index: what is wrong becomes an error, or a new index.

mod build;
mod error;
mod found;
mod handles;
mod index;
mod list;
pub mod memory;
mod names;
mod parquet;
mod read;
mod source;
mod tar;
mod webdataset;
mod zip;

use std::fs::{self, File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memmap2::Mmap;

pub use error::{ArchiveError, Problem};

use crate::data::{Container, InPlace};
use error::Fault;
use found::Place;
use handles::Handles;
use index::{Index, Key};
use list::Set;
use source::Opened;

/// The members of archives in a folder, as files of a data set. Shared by threads, which read at once.
///
/// At most 128 archives are open at a time, and one more a thread. A member has at most 1 GiB.
pub struct Archives {
    base: PathBuf,
    index: Index<Mmap>,
    handles: Handles,
}

impl Archives {
    /// The archives in a folder, or one archive, of the first of the kinds in `in_place` of which there are any.
    /// None: there are none.
    ///
    /// `cache` is the folder of indexes, made if it is missing. While an index is built, `told` hears how many
    /// bytes of how many are done, from several threads; it ends the work by returning false. While another
    /// process builds it, `told` hears 0 of 0.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; an index that is damaged or of other archives is none, it is built anew.
    pub fn open(
        root: &Path,
        in_place: &InPlace,
        cache: &Path,
        told: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Option<Self>, ArchiveError> {
        let Some(set) = list::find(root, in_place)? else { return Ok(None) };
        let strip = in_place.strip.trim_matches('/');
        let key = index::key(&set, strip);
        let name = blake3::Hash::from(key).to_hex();
        let path = cache.join(format!("archive-{}.index", &name[..32]));
        let index = match load(&path, &key, &set) {
            Some(index) => index,
            None => {
                let _lock = lock(cache, &path, told)?;
                // Another process may have made it meanwhile.
                match load(&path, &key, &set) {
                    Some(index) => index,
                    None => {
                        build::build(&set, strip, &path, &key, told)?;
                        load(&path, &key, &set).ok_or(ArchiveError::Index { path })?
                    }
                }
            }
        };
        Ok(Some(Self { base: set.base, index, handles: Handles::new(handles::MOST) }))
    }

    /// The kind of the archives.
    pub fn container(&self) -> Container {
        self.index.container()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A member's path in the data set's folder layout: relative, with `/`, never with `..`. Paths ascend with
    /// `i` by bytes, each is there once; beyond the last member it is empty.
    pub fn path(&self, i: usize) -> &str {
        self.index.path(i)
    }

    /// Bytes of a member, unpacked; 0 beyond the last.
    pub fn size(&self, i: usize) -> u64 {
        self.index.place(i).map_or(0, |(_, place)| place.size.into())
    }

    /// The member with a path.
    pub fn find(&self, path: &str) -> Option<usize> {
        let i = self.first(|known| known < path);
        (i < self.len() && self.path(i) == path).then_some(i)
    }

    /// The members in a folder and in those below it; all of them, if its path is empty.
    pub fn below(&self, folder: &str) -> Range<usize> {
        if folder.is_empty() {
            return 0..self.len();
        }
        // `0` is the byte after `/`: the paths in the folder lie between the two.
        let [start, end] = [b'/', b'0']
            .map(|last| self.first(|known| known.bytes().lt(folder.bytes().chain([last]))));
        start..end
    }

    /// The first member of whose path `before` is false; it is true of those before it.
    fn first(&self, before: impl Fn(&str) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.path(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// A member's content. That of a zip archive is checked against its CRC-32; tar and Parquet have none.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`], with archive and member; an archive that changed since it was listed is one.
    pub fn read(&self, i: usize) -> Result<Vec<u8>, ArchiveError> {
        self.member(i, None)
    }

    /// A member's first bytes: `bytes` of them, or all if it has fewer. Little more is read, but of Zstandard in
    /// Parquet.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn head(&self, i: usize, bytes: usize) -> Result<Vec<u8>, ArchiveError> {
        self.member(i, Some(bytes))
    }

    fn member(&self, i: usize, head: Option<usize>) -> Result<Vec<u8>, ArchiveError> {
        let (archive, place) = self.locate(i)?;
        read::member(&*archive, &place, head)
            .map_err(|fault| fault.of(self.path(i)).at(&self.archive_path(i)))
    }

    fn locate(&self, i: usize) -> Result<(Arc<Opened>, Place), ArchiveError> {
        let place = self.index.place(i);
        let place = place.and_then(|(archive, place)| {
            let (name, stamp) = self.index.archive(archive)?;
            Some((archive, self.base.join(name), stamp, place))
        });
        let Some((archive, path, stamp, place)) = place else {
            let missing = Fault::damaged(format!("no member {i} of {}", self.len()));
            return Err(missing.at(&self.base));
        };
        Ok((self.handles.get(archive, &path, stamp)?, place))
    }

    /// Has the system read a member ahead, where it takes such advice. Errors show when the member is read.
    pub fn prefetch(&self, i: usize) {
        #[cfg(target_os = "linux")]
        if let Ok((archive, place)) = self.locate(i) {
            use rustix::fs::{Advice, fadvise};
            let len = read::span(&place);
            // Advice only: nothing depends on it.
            let _ = fadvise(&archive.file, place.offset, len.try_into().ok(), Advice::WillNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = i;
    }

    /// Where a member is, for messages: its path below that of its archive.
    pub fn place(&self, i: usize) -> PathBuf {
        self.archive_path(i).join(self.path(i))
    }

    fn archive_path(&self, i: usize) -> PathBuf {
        let archive = self.index.place(i).and_then(|(archive, _)| self.index.archive(archive));
        self.base.join(archive.map_or("", |(name, _)| name))
    }
}

impl std::fmt::Debug for Archives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Archives");
        shown.field("base", &self.base).field("container", &self.container());
        shown.field("len", &self.len()).finish_non_exhaustive()
    }
}

/// How often a lock that another process holds is tried.
const POLL: Duration = Duration::from_millis(100);

/// The right to list, given back when dropped.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever waits for the file that is gone finds the index, or lists too.
        let _ = fs::remove_file(&self.path);
    }
}

/// Held until dropped: of processes that start together, one lists the members and the others wait for it.
/// Where the file system knows no locks, each lists them.
fn lock(
    cache: &Path,
    index: &Path,
    told: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<Option<Lock>, ArchiveError> {
    let fail = |source| ArchiveError::Write { path: cache.to_owned(), source };
    fs::create_dir_all(cache).map_err(fail)?;
    let path = index.with_extension("lock");
    let file = File::create(&path).map_err(fail)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Lock { path, _file: file })),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if !told(0, 0) => return Err(ArchiveError::Interrupted),
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
        }
    }
}

/// The index at a path, if it is one of these archives.
fn load(path: &Path, key: &Key, set: &Set) -> Option<Index<Mmap>> {
    let file = File::open(path).ok()?;
    // SAFETY: indexes are renamed into their place and never written to there; what is read of one is checked
    // again whenever it is used as text.
    let map = unsafe { Mmap::map(&file) }.ok()?;
    Index::parse(map).filter(|index| index.is_of(key, set))
}
