//! The index of archives, as a file that is mapped.
//!
//! Little-endian: a header of 96 bytes, 24 bytes an archive, 32 bytes a member in the order of paths, the names
//! of archives, the paths of members. The header has a checksum of everything else, and everything is checked
//! when it is opened, so that any bytes at all are either an index or none.

use std::fs;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::found::{LARGEST, Method, Place};
use super::list::{Listed, Set, Stamp};
use super::names;
use crate::data::Container;

const MAGIC: [u8; 8] = *b"pixioarc";
const VERSION: u32 = 1;
const HEADER: usize = 96;
/// Part of the header that the checksum is over.
const SUMMED: usize = 64;
const ARCHIVE: usize = 24;
const RECORD: usize = 32;

/// What an index is of: a hash of folder, kind of archives and leading folder.
pub(super) type Key = [u8; 32];

/// The key of a set of archives.
pub(super) fn key(set: &Set, strip: &str) -> Key {
    let mut hasher = blake3::Hasher::new();
    let root = set.root.as_os_str().as_encoded_bytes();
    let container = container_number(set.container).to_le_bytes();
    for part in [b"archives", root, strip.as_bytes(), &container] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Indexed members; `B` are the bytes of an index.
pub(super) struct Index<B> {
    bytes: B,
    container: Container,
    archives: usize,
    members: usize,
    names: Range<usize>,
    archive_names: Range<usize>,
    key: Key,
}

impl<B: AsRef<[u8]> + Sync> Index<B> {
    /// None: the bytes are no index, of this version and undamaged.
    pub(super) fn parse(bytes: B) -> Option<Self> {
        let all = bytes.as_ref();
        let header = all.get(..HEADER)?;
        if header[..8] != MAGIC || u32_at(header, 8)? != VERSION {
            return None;
        }
        let container = container(u32_at(header, 12)?)?;
        let [archives, members, archive_names, names] =
            [16, 20, 24, 28].map(|at| u32_at(header, at).map(|n| n as usize));
        let (archives, members) = (archives?, members?);
        let records = HEADER + archives.checked_mul(ARCHIVE)?;
        let archive_names_at = records.checked_add(members.checked_mul(RECORD)?)?;
        let names_at = archive_names_at.checked_add(archive_names?)?;
        let end = names_at.checked_add(names?)?;
        if end != all.len() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header[..SUMMED]).update_rayon(&all[HEADER..]);
        if *hasher.finalize().as_bytes() != header[SUMMED..] {
            return None;
        }
        let key = header[32..SUMMED].try_into().ok()?;
        let archive_names = archive_names_at..names_at;
        let index =
            Self { bytes, container, archives, members, names: names_at..end, archive_names, key };
        index.is_sound().then_some(index)
    }

    fn is_sound(&self) -> bool {
        const AT_ONCE: usize = 1 << 14;
        let archives = (0..self.archives).all(|i| self.archive(i).is_some());
        // In order and canonical, so that they are unique and below the data folder.
        let member = |i: usize| {
            let Some(path) = self.checked_path(i) else { return false };
            let before = if i == 0 { Some("") } else { self.checked_path(i - 1) };
            before.is_some_and(|before| before < path)
                && names::is_canonical(path)
                && self.place(i).is_some_and(|(archive, _)| archive < self.archives)
        };
        archives && (0..self.members).into_par_iter().with_min_len(AT_ONCE).all(member)
    }

    pub(super) fn container(&self) -> Container {
        self.container
    }

    pub(super) fn len(&self) -> usize {
        self.members
    }

    /// Whether it is of these archives as they are now.
    pub(super) fn is_of(&self, key: &Key, set: &Set) -> bool {
        let same = |(i, listed): (usize, &Listed)| {
            self.archive(i) == Some((listed.name.as_str(), listed.stamp))
        };
        self.key == *key
            && self.container == set.container
            && self.archives == set.archives.len()
            && set.archives.iter().enumerate().all(same)
    }

    /// Name and stamp of an archive.
    pub(super) fn archive(&self, i: usize) -> Option<(&str, Stamp)> {
        let all = self.bytes.as_ref();
        let at = HEADER + (i < self.archives).then_some(i)? * ARCHIVE;
        let start = if i == 0 { 0 } else { u32_at(all, at - ARCHIVE)? };
        let name = text(all, &self.archive_names, start, u32_at(all, at)?)?;
        let modified = u64_at(all, at + 16)? as i64;
        Some((name, Stamp { size: u64_at(all, at + 8)?, modified }))
    }

    /// The number of the archive that a member is in, and where its bytes are there.
    pub(super) fn place(&self, i: usize) -> Option<(usize, Place)> {
        let record = self.record(i)?;
        let [size, packed, extra, method] = [16, 20, 24, 28].map(|at| u32_at(record, at));
        let place = Place {
            method: *Method::ALL.get(method? as usize)?,
            offset: u64_at(record, 8)?,
            size: size?,
            packed: packed?,
            extra: extra?,
        };
        (u64::from(place.size) <= LARGEST).then_some((u32_at(record, 4)? as usize, place))
    }

    /// A member's path; empty beyond the last.
    pub(super) fn path(&self, i: usize) -> &str {
        self.checked_path(i).unwrap_or_default()
    }

    fn checked_path(&self, i: usize) -> Option<&str> {
        let start = u32_at(self.record(i)?, 0)?;
        let end = if i + 1 == self.members {
            self.names.len() as u32
        } else {
            u32_at(self.record(i + 1)?, 0)?
        };
        text(self.bytes.as_ref(), &self.names, start, end)
    }

    fn record(&self, i: usize) -> Option<&[u8]> {
        let at = HEADER + self.archives * ARCHIVE + (i < self.members).then_some(i)? * RECORD;
        self.bytes.as_ref().get(at..at + RECORD)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Part of a block of names, in bytes.
fn text<'a>(bytes: &'a [u8], block: &Range<usize>, start: u32, end: u32) -> Option<&'a str> {
    std::str::from_utf8(bytes.get(block.clone())?.get(start as usize..end as usize)?).ok()
}

const CONTAINERS: [Container; 4] =
    [Container::Webdataset, Container::Parquet, Container::Zip, Container::Tar];

fn container(number: u32) -> Option<Container> {
    CONTAINERS.get(number as usize).copied()
}

fn container_number(container: Container) -> u32 {
    CONTAINERS.iter().position(|&known| known == container).unwrap_or_default() as u32
}

/// Members in the order of their paths: path, number of the archive, place.
pub(super) type Members<'a> = dyn Iterator<Item = (&'a str, u32, Place)> + 'a;

/// Writes an index beside its place and renames it, so that it is whole or not there.
pub(super) fn write<'a>(
    path: &Path,
    key: &Key,
    set: &Set,
    members: u32,
    names: u32,
    list: &dyn Fn() -> Box<Members<'a>>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".archive-");
    // As any other file, not for its writer alone: caches are shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    let archive_names: usize = set.archives.iter().map(|archive| archive.name.len()).sum();
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    let container = container_number(set.container);
    let archives = set.archives.len() as u32;
    for number in [VERSION, container, archives, members, archive_names as u32, names] {
        header.extend(number.to_le_bytes());
    }
    header.extend(key);

    let mut hasher = blake3::Hasher::new();
    hasher.update(&header);
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    out.write_all(&header)?;
    out.write_all(&[0; HEADER - SUMMED])?;
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        out.write_all(bytes)
    };
    let mut end = 0_u64;
    for Listed { name, stamp } in &set.archives {
        end += name.len() as u64;
        put(&end.to_le_bytes())?;
        put(&stamp.size.to_le_bytes())?;
        put(&stamp.modified.to_le_bytes())?;
    }
    let mut start = 0_u32;
    for (name, archive, place) in list() {
        let mut record = [0; RECORD];
        record[..4].copy_from_slice(&start.to_le_bytes());
        record[4..8].copy_from_slice(&archive.to_le_bytes());
        record[8..16].copy_from_slice(&place.offset.to_le_bytes());
        let method = Method::ALL.iter().position(|&known| known == place.method);
        let numbers = [place.size, place.packed, place.extra, method.unwrap_or_default() as u32];
        for (number, at) in numbers.iter().zip((16..).step_by(4)) {
            record[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        put(&record)?;
        start += name.len() as u32;
    }
    for Listed { name, .. } in &set.archives {
        put(name.as_bytes())?;
    }
    for (name, _, _) in list() {
        put(name.as_bytes())?;
    }
    out.seek(SeekFrom::Start(SUMMED as u64))?;
    out.write_all(hasher.finalize().as_bytes())?;
    out.flush()?;
    drop(out);
    file.persist(path)?;
    Ok(())
}
