//! The directory of a zip archive whose entries are stored as they are.
//!
//! Only what `torch.save` writes is read: no compression, no encryption, one file. Every entry must
//! lie inside the file, before the directory, and apart from every other entry.

use std::collections::HashSet;
use std::ops::Range;

use crate::shown;

/// What is wrong with a zip archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// No end record: not a whole zip archive.
    #[error("the zip archive has no end record: it is cut short or not a zip archive")]
    NoEnd,
    /// The end record and the directory do not agree.
    #[error("the zip archive's directory is broken: {0}")]
    Directory(&'static str),
    /// An entry that cannot be what it says.
    #[error("zip entry {name}: {why}")]
    Entry {
        /// The entry.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// An entry's bytes are not the ones that were written.
    #[error("zip entry {name} is damaged: its checksum is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// The entry.
        name: String,
        /// As recorded.
        expected: u32,
        /// As computed.
        found: u32,
    },
}

/// One stored file.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    /// Its path in the archive.
    pub name: &'a str,
    /// Where its bytes lie in the file.
    pub data: Range<usize>,
    /// Its CRC-32; none where the writer left it out.
    pub crc: Option<u32>,
}

/// More than any checkpoint has: entries, and bytes of the directory, names included.
const MOST_ENTRIES: u64 = 1 << 17;
const MOST_BYTES: usize = 16 << 20;

const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// The little-endian number in `bytes[at..at + N]`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(N)?;
    Some(bytes.get(at..end)?.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn has(bytes: &[u8], at: usize, signature: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(signature))
}

/// Every entry, in the directory's order.
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, ArchiveError> {
    let (directory, count) = directory(bytes)?;
    let broken = ArchiveError::Directory;
    if count > MOST_ENTRIES || directory.len() > MOST_BYTES {
        return Err(broken("more entries than a checkpoint can have"));
    }
    let mut entries = Vec::new();
    let mut spans = Vec::new();
    let mut names = HashSet::new();
    let mut at = directory.start;
    for _ in 0..count {
        let record = &bytes[at..directory.end];
        let (entry, span, length) =
            entry(bytes, record, directory.start)?.ok_or(broken("it is cut short"))?;
        if !names.insert(entry.name) {
            let name = shown(entry.name);
            return Err(ArchiveError::Entry { name, why: "two entries have this name" });
        }
        spans.push((span.start, span.end, entries.len()));
        entries.push(entry);
        at += length;
    }
    if at != directory.end {
        return Err(broken("it holds more than its entries"));
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if pair[0].1 > pair[1].0 {
            let name = shown(entries[pair[1].2].name);
            return Err(ArchiveError::Entry { name, why: "it overlaps another entry" });
        }
    }
    Ok(entries)
}

/// Where the directory lies, and how many entries it has.
fn directory(bytes: &[u8]) -> Result<(Range<usize>, u64), ArchiveError> {
    const LENGTH: usize = 22;
    // The record ends with a comment of at most 65535 bytes that ends the file.
    let last = bytes.len().checked_sub(LENGTH).ok_or(ArchiveError::NoEnd)?;
    let ends_file = |at: usize| number::<2>(bytes, at + 20) == Some((last - at) as u64);
    let end = (last.saturating_sub(0xffff)..=last)
        .rev()
        .find(|&at| has(bytes, at, END) && ends_file(at))
        .ok_or(ArchiveError::NoEnd)?;
    let broken = ArchiveError::Directory;
    let short = || broken("its end record is cut short");

    let locator = end.checked_sub(20).filter(|&at| has(bytes, at, LOCATOR64));
    let (disks, count, size, start, limit) = match locator {
        None => {
            let field = |at| number::<2>(bytes, end + at).ok_or_else(short);
            let disks = field(4)? | field(6)? | (field(8)? ^ field(10)?);
            let size = number::<4>(bytes, end + 12).ok_or_else(short)?;
            let start = number::<4>(bytes, end + 16).ok_or_else(short)?;
            (disks, field(10)?, size, start, end)
        }
        Some(locator) => {
            let at = number::<8>(bytes, locator + 8).and_then(|at| usize::try_from(at).ok());
            let at = at
                .filter(|&at| at < locator && has(bytes, at, END64))
                .ok_or(broken("its 64-bit end record is not where it should be"))?;
            let field = |offset| number::<8>(bytes, at + offset).ok_or_else(short);
            let disks = number::<8>(bytes, at + 16).ok_or_else(short)?;
            (disks | (field(24)? ^ field(32)?), field(32)?, field(40)?, field(48)?, at)
        }
    };
    if disks != 0 {
        return Err(broken("it is spread over several files"));
    }
    let range = usize::try_from(start).ok().zip(usize::try_from(size).ok());
    let range = range.and_then(|(start, size)| Some(start..start.checked_add(size)?));
    let range = range.filter(|range| range.end <= limit);
    Ok((range.ok_or(broken("it lies outside the file"))?, count))
}

type Found<'a> = Option<(Entry<'a>, Range<usize>, usize)>;

/// The entry that `record`, the rest of the directory, begins with, the bytes it takes with its
/// header, and its record's length; `None` where the record is cut short.
fn entry<'a>(bytes: &'a [u8], record: &'a [u8], limit: usize) -> Result<Found<'a>, ArchiveError> {
    const LENGTH: usize = 46;
    if !record.starts_with(CENTRAL) || record.len() < LENGTH {
        return Ok(None);
    }
    let two = |at| number::<2>(record, at).unwrap_or_default();
    let four = |at| number::<4>(record, at).unwrap_or_default();
    let (name_length, extra_length) = (two(28) as usize, two(30) as usize);
    let length = LENGTH + name_length + extra_length + two(32) as usize;
    let Some(record) = record.get(LENGTH..length) else { return Ok(None) };
    let (raw_name, rest) = record.split_at(name_length);
    let wrong = |why| ArchiveError::Entry { name: shown(&String::from_utf8_lossy(raw_name)), why };
    let name = str::from_utf8(raw_name).map_err(|_| wrong("its name is not UTF-8"))?;

    let (flags, method, crc) = (two(8), two(10), four(16) as u32);
    if flags & 1 != 0 {
        return Err(wrong("it is encrypted"));
    }
    if method != 0 {
        return Err(wrong("it is compressed; expected entries stored as torch.save stores them"));
    }
    // A 32-bit field with all bits set stands in the extra field as 64 bits, in this order.
    let mut wide = extra64(&rest[..extra_length]).unwrap_or_default();
    let mut field = |at: usize| match four(at) {
        0xffff_ffff => {
            let value = number::<8>(wide, 0);
            wide = wide.get(8..).unwrap_or_default();
            value.ok_or_else(|| wrong("its 64-bit size or place is missing"))
        }
        value => Ok(value),
    };
    let (size, packed, place) = (field(24)?, field(20)?, field(42)?);
    if size != packed {
        return Err(wrong("its stored size is not its size"));
    }
    let outside = || wrong("it lies outside the file");
    let header = usize::try_from(place).map_err(|_| outside())?;
    if !has(bytes, header, LOCAL) {
        return Err(wrong("its header is not where the directory says"));
    }
    let local = |at| number::<2>(bytes, header.saturating_add(at)).ok_or_else(outside);
    let (local_name, local_extra) = (local(26)? as usize, local(28)? as usize);
    let name_at = header + 30;
    if bytes.get(name_at..name_at + local_name) != Some(raw_name) {
        return Err(wrong("its header has another name"));
    }
    let start = name_at + local_name + local_extra;
    let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
    let end = end.filter(|end| *end <= limit).ok_or_else(outside)?;
    let crc = Some(crc).filter(|crc| *crc != 0);
    Ok(Some((Entry { name, data: start..end, crc }, header..end, length)))
}

/// The 64-bit part of an extra field.
fn extra64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let length = number::<2>(extra, 2)? as usize;
        let body = extra.get(4..)?;
        if number::<2>(extra, 0)? == 1 {
            return body.get(..length);
        }
        extra = body.get(length..)?;
    }
}
