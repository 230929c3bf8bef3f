//! What `torch.save` wrote before 1.6: pickles one after the other, then the storages' bytes.

use std::collections::BTreeMap;

use super::Storage;
use super::error::{CheckpointError, StorageFault};
use super::globals::ALLOWED;
use super::tensor::storage;
use crate::machine::{Limits, read};
use crate::shown;
use crate::value::{Node, Pickle, Value};

/// PyTorch's number for its files, 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version of this layout.
const VERSION: i64 = 1001;

/// For the pickles beside the one that counts, so that all of them together stay bounded: a number
/// or a dict of few, and the list of the storages' keys.
const FEW: Limits = Limits { memory: 1 << 16, objects: 1 << 10, memo: 1 << 10, depth: 8 };
const KEYS: Limits = Limits { memory: 24 << 20, objects: 1, memo: 1 << 18, depth: 1 };

/// The pickled value of an older checkpoint, and where its storages lie.
///
/// The bytes of storages are little-endian whatever machine wrote them.
pub(super) fn read_legacy<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(Pickle<'a>, BTreeMap<String, Storage>), CheckpointError> {
    let mut at = 0;
    let mut next = |limits: &Limits| -> Result<Pickle<'a>, CheckpointError> {
        let (pickle, length) = read(&bytes[at..], ALLOWED, limits).map_err(|mut error| {
            error.offset += at;
            error
        })?;
        at += length;
        Ok(pickle)
    };
    match next(&FEW) {
        Ok(first) if first.root() == Value::Long(MAGIC) => {}
        _ => return Err(CheckpointError::NotACheckpoint),
    }
    let version = next(&FEW)?;
    if version.root() != Value::Int(VERSION) {
        let found = version.kind(version.root());
        return Err(CheckpointError::Legacy { expected: "version 1001", found });
    }
    next(&FEW)?; // Byte order and sizes of types on the machine that wrote it.
    let pickle = next(limits)?;
    let keys = next(&KEYS)?;
    let keys = keys.list(keys.root()).ok_or_else(|| CheckpointError::Legacy {
        expected: "the list of storages",
        found: keys.kind(keys.root()),
    })?;
    let storages = locate(bytes, at, keys, &element_sizes(&pickle)?)?;
    Ok((pickle, storages))
}

/// Bytes of an element of each storage that the pickle refers to.
fn element_sizes<'a>(pickle: &Pickle<'a>) -> Result<BTreeMap<&'a str, usize>, CheckpointError> {
    let mut sizes = BTreeMap::new();
    for node in pickle.nodes() {
        let Node::Persistent(reference) = node else { continue };
        // A reference to something else ("module", source code) is no storage.
        let Ok(found) = storage(pickle, *reference) else { continue };
        let size = found.element.map_or(1, super::ElementType::size);
        let first = *sizes.entry(found.key).or_insert(size);
        if first != size {
            let fault = StorageFault::Types(first, size);
            return Err(CheckpointError::Storage { key: shown(found.key), fault });
        }
    }
    Ok(sizes)
}

/// Each listed storage: its length as eight bytes, then its elements.
fn locate(
    bytes: &[u8],
    mut at: usize,
    keys: &[Value<'_>],
    sizes: &BTreeMap<&str, usize>,
) -> Result<BTreeMap<String, Storage>, CheckpointError> {
    let mut storages = BTreeMap::new();
    for key in keys {
        let Value::Str(key) = *key else {
            let (expected, found) = ("the key of a storage", "something else");
            return Err(CheckpointError::Legacy { expected, found });
        };
        let wrong = |fault| CheckpointError::Storage { key: shown(key), fault };
        let size = *sizes.get(key).ok_or_else(|| wrong(StorageFault::Unused))?;
        let left = &bytes[at..];
        let (count, rest) = left
            .split_first_chunk::<8>()
            .ok_or_else(|| wrong(StorageFault::Size { expected: 8, found: left.len() as u64 }))?;
        let expected = u64::from_le_bytes(*count).saturating_mul(size as u64);
        let length = usize::try_from(expected).ok().filter(|length| *length <= rest.len());
        let length = length
            .ok_or_else(|| wrong(StorageFault::Size { expected, found: rest.len() as u64 }))?;
        let data = at + 8..at + 8 + length;
        at = data.end;
        if storages.insert(key.to_owned(), Storage::new(data, None)).is_some() {
            return Err(wrong(StorageFault::Duplicate));
        }
    }
    match bytes.len() - at {
        0 => Ok(storages),
        more => Err(CheckpointError::Trailing(more)),
    }
}
