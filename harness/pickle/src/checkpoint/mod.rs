//! PyTorch checkpoints: which tensors a file holds, and one tensor's bytes at a time.

mod element;
mod error;
mod gather;
mod globals;
mod legacy;
mod state_dict;
mod tensor;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use memmap2::Mmap;

use crate::archive::{self, ArchiveError, Entry};
use crate::machine::{Limits, read};
use crate::shown;
use crate::value::Pickle;
pub use element::ElementType;
pub use error::{CheckpointError, StorageFault, TensorFault};
pub(crate) use gather::gather;
use tensor::Described;

/// An expanded tensor may take more memory than its storage, up to this.
const MOST_EXPANDED: usize = 64 << 20;

/// Type and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of its elements.
    pub element: ElementType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Bytes of the file that tensors are views of.
struct Storage {
    data: Range<usize>,
    /// The archive's checksum, where it has one.
    crc: Option<u32>,
    checked: OnceLock<()>,
}

impl Storage {
    fn new(data: Range<usize>, crc: Option<u32>) -> Self {
        Self { data, crc, checked: OnceLock::new() }
    }
}

/// A tensor that was held against its storage: all it needs is there.
struct Stored {
    info: TensorInfo,
    /// In elements, one a dimension.
    strides: Vec<usize>,
    storage: String,
    /// First element in the storage.
    first: usize,
    /// Number of elements.
    count: usize,
}

/// An opened checkpoint: the tensors of its state dict by name, every one checked to lie in the file.
///
/// `D` is what holds the file's bytes. Nothing of them is copied until a tensor is asked for.
pub struct Checkpoint<D = Mmap> {
    data: D,
    big_endian: bool,
    root: Option<&'static str>,
    tensors: BTreeMap<String, Stored>,
    storages: BTreeMap<String, Storage>,
}

impl Checkpoint {
    /// Maps the file at `path` and reads what it holds.
    ///
    /// # Errors
    /// [`CheckpointError`] for a file that is no checkpoint, asks for a name that is not known to be
    /// harmless, is damaged, or holds no tensor.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this process; weights are not edited in place
        // while a run reads them (a truncation by another process would end this one with SIGBUS).
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::new(map)
    }
}

impl<D: AsRef<[u8]>> Checkpoint<D> {
    /// Reads what `data`, a whole checkpoint, holds.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn new(data: D) -> Result<Self, CheckpointError> {
        let (pickle, storages, big_endian) = parts(data.as_ref())?;
        let (root, described) = state_dict::find(&pickle)?;
        drop(pickle);
        let mut tensors = BTreeMap::new();
        for (name, described) in described {
            let stored = place(described, &storages, &name)?;
            if tensors.contains_key(&name) {
                return Err(CheckpointError::Duplicate(shown(&name)));
            }
            tensors.insert(name, stored);
        }
        Ok(Self { data, big_endian, root, tensors, storages })
    }

    /// The entry that the state dict stands under; `None`: it is the top level.
    pub fn root(&self) -> Option<&'static str> {
        self.root
    }

    /// Every tensor's name, in order. Nested dicts are joined by dots.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type and shape; `None` for an unknown name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|stored| &stored.info)
    }

    /// A tensor's elements, row-major, little-endian: borrowed where they lie so in the file.
    ///
    /// # Errors
    /// [`CheckpointError::NoTensor`], or [`ArchiveError::Checksum`] where the tensor's storage is not
    /// what was written.
    pub fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let missing = || CheckpointError::NoTensor(shown(name));
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        let storage = self.storages.get(&stored.storage).ok_or_else(missing)?;
        let data = self.data.as_ref().get(storage.data.clone()).ok_or_else(missing)?;
        if storage.checked.get().is_none() {
            check(&stored.storage, data, storage.crc)?;
            let _ = storage.checked.set(());
        }
        if stored.count == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let element = stored.info.element;
        let mut bytes =
            gather(data, element.size(), &stored.info.shape, &stored.strides, stored.first)
                .ok_or_else(missing)?;
        if self.big_endian && element.word() > 1 {
            bytes.to_mut().chunks_exact_mut(element.word()).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }
}

fn check(name: &str, data: &[u8], crc: Option<u32>) -> Result<(), ArchiveError> {
    let Some(expected) = crc else { return Ok(()) };
    match crc32fast::hash(data) {
        found if found == expected => Ok(()),
        found => Err(ArchiveError::Checksum { name: shown(name), expected, found }),
    }
}

/// What `torch.save` wrote into `bytes`, where that is plain data rather than tensors: the value is read
/// as [`read`] reads a pickle's, with the names on [`PLAIN_DATA`](crate::PLAIN_DATA) and PyTorch's own.
///
/// # Errors
/// As [`Checkpoint::open`], but for tensors, which need not be there.
pub fn read_saved(bytes: &[u8]) -> Result<Pickle<'_>, CheckpointError> {
    parts(bytes).map(|(pickle, ..)| pickle)
}

fn parts(bytes: &[u8]) -> Result<Parts<'_>, CheckpointError> {
    let limits = Limits::default();
    if bytes.starts_with(b"PK") {
        return read_archive(bytes, &limits);
    }
    let (pickle, storages) = legacy::read_legacy(bytes, &limits)?;
    Ok((pickle, storages, false))
}

type Parts<'a> = (Pickle<'a>, BTreeMap<String, Storage>, bool);

/// The pickled value of a zip checkpoint, its storages, and whether they are big-endian.
fn read_archive<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Parts<'a>, CheckpointError> {
    let entries = archive::entries(bytes)?;
    // Every entry lies in one folder, named after the file it was first saved to.
    let folder = entries.iter().find_map(|entry| entry.name.split_once('/')).map_or("", |(f, _)| f);
    let inside =
        |entry: &Entry<'a>| entry.name.strip_prefix(folder).and_then(|n| n.strip_prefix('/'));
    let whole = |name: &str| -> Result<Option<&'a [u8]>, CheckpointError> {
        let Some(entry) = entries.iter().find(|entry| inside(entry) == Some(name)) else {
            return Ok(None);
        };
        let data = &bytes[entry.data.clone()];
        check(entry.name, data, entry.crc)?;
        Ok(Some(data))
    };
    let big_endian = match whole("byteorder")? {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(other) => {
            return Err(CheckpointError::ByteOrder(shown(&String::from_utf8_lossy(other))));
        }
    };
    let data = whole("data.pkl")?.ok_or_else(|| CheckpointError::NoEntry("data.pkl".to_owned()))?;
    let (pickle, length) = read(data, globals::ALLOWED, limits)?;
    if length != data.len() {
        return Err(CheckpointError::Trailing(data.len() - length));
    }
    let mut storages = BTreeMap::new();
    for entry in &entries {
        if let Some(key) = inside(entry).and_then(|name| name.strip_prefix("data/")) {
            storages.insert(key.to_owned(), Storage::new(entry.data.clone(), entry.crc));
        }
    }
    Ok((pickle, storages, big_endian))
}

/// Holds a described tensor against its storage.
fn place(
    described: Described<'_>,
    storages: &BTreeMap<String, Storage>,
    name: &str,
) -> Result<Stored, CheckpointError> {
    let reference = &described.storage;
    let wrong = |fault| CheckpointError::Storage { key: shown(reference.key), fault };
    let storage = storages.get(reference.key).ok_or_else(|| wrong(StorageFault::Missing))?;

    let unit = reference.element.map_or(1, ElementType::size);
    let expected = (reference.count as u64).saturating_mul(unit as u64);
    let found = storage.data.len() as u64;
    // A storage of another type's tensor may have a few bytes more than whole elements.
    if found < expected || found - expected >= unit as u64 {
        return Err(wrong(StorageFault::Size { expected, found }));
    }
    let fit = |fault| CheckpointError::Tensor { name: shown(name), fault };
    let size = described.element.size();
    let declared = reference.count * unit / size;
    let (base, holds) = match reference.view {
        None => (0, declared),
        Some((offset, length)) => match offset.checked_add(length) {
            Some(end) if end <= declared => (offset, length),
            _ => {
                let needs = offset.saturating_add(length);
                return Err(fit(TensorFault::OutOfBounds { needs, holds: declared }));
            }
        },
    };
    let overflow = || fit(TensorFault::Overflow);
    let count = described.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    let count = match count {
        Some(count) => count,
        None if described.shape.contains(&0) => 0,
        None => return Err(overflow()),
    };
    let dimensions = described.shape.iter().zip(&described.strides);
    let mut last = described.offset;
    for (size, stride) in dimensions {
        let reach = size.saturating_sub(1).checked_mul(*stride).ok_or_else(overflow)?;
        last = last.checked_add(reach).ok_or_else(overflow)?;
    }
    let needs = if count == 0 { 0 } else { last.checked_add(1).ok_or_else(overflow)? };
    if needs > holds {
        return Err(fit(TensorFault::OutOfBounds { needs, holds }));
    }
    let bytes = count.checked_mul(size).ok_or_else(overflow)?;
    let limit = MOST_EXPANDED.max(storage.data.len());
    if bytes > limit {
        return Err(fit(TensorFault::Expanded { bytes, limit }));
    }
    Ok(Stored {
        info: TensorInfo { element: described.element, shape: described.shape },
        strides: described.strides,
        storage: reference.key.to_owned(),
        first: if count == 0 { 0 } else { base + described.offset },
        count,
    })
}
