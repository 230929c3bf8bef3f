//! The members of zip, tar and gzipped tar archives, one after the other, with every promise of the
//! archive held against what is there.

use std::cell::Cell;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use tar::EntryType;
use zip::ZipArchive;

use super::PrepareError;
use super::member::{Danger, safe};

/// Bytes of headers before a member of a tar archive, long names among them.
const HEADERS: u64 = 1 << 20;
/// An archive may unpack to this many times its size, and to this much in any case.
const RATIO: u64 = 200;
const SMALL: u64 = 32 << 20;
const TERABYTE: u64 = 1 << 40;

/// Bytes that an archive of a size may unpack to.
pub(super) fn bound(size: u64) -> u64 {
    size.saturating_mul(RATIO).saturating_add(SMALL).min(TERABYTE).max(size)
}

/// Kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Zip,
    Tar,
    TarGz,
}

impl Format {
    /// By content; else what it looks like.
    pub fn of(path: &Path) -> io::Result<Result<Self, &'static str>> {
        let mut head = Vec::new();
        File::open(path)?.take(512).read_to_end(&mut head)?;
        let text = head.trim_ascii_start().to_ascii_lowercase();
        Ok(match head.as_slice() {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Ok(Self::Zip),
            [0x1f, 0x8b, ..] => Ok(Self::TarGz),
            head if head.get(257..262) == Some(b"ustar") => Ok(Self::Tar),
            [] => Err("an empty file"),
            _ if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") => {
                Err("a web page")
            }
            _ => Err("something else"),
        })
    }

    /// Why a file that nothing else checks is not a whole archive, as far as its ends tell.
    pub fn flaw(path: &Path) -> io::Result<Option<String>> {
        Ok(match Self::of(path)? {
            Err(found) => Some(found.to_owned()),
            Ok(Self::Zip) => match ZipArchive::new(BufReader::new(File::open(path)?)) {
                Ok(_) => None,
                Err(error) => match super::error::of_system(&error) {
                    Some(error) => return Err(error),
                    None => Some(format!("a damaged zip archive: {error}")),
                },
            },
            Ok(Self::Tar) => {
                let mut file = File::open(path)?;
                let size = file.metadata()?.len();
                let whole = ends_in_zeros(&mut file, 0, size)?;
                (!whole).then(|| "a tar archive without its end".to_owned())
            }
            // Its checksum is at its end: reading it all tells.
            Ok(Self::TarGz) => None,
        })
    }
}

/// Bytes that a file's chosen members say they unpack to; of a tar archive its own, of a gzipped one a
/// guess. Nothing of what is no archive: reading it will say so.
pub(super) fn estimate(path: &Path, chosen: &dyn Fn(&str) -> bool) -> u64 {
    let size = path.metadata().map_or(0, |found| found.len());
    match Format::of(path) {
        Ok(Ok(Format::Tar)) => size,
        Ok(Ok(Format::TarGz)) => size.saturating_mul(4),
        Ok(Ok(Format::Zip)) => {
            let file = File::open(path).ok();
            let Some(Ok(archive)) = file.map(|file| ZipArchive::new(BufReader::new(file))) else {
                return 0;
            };
            let of = |index| {
                let entry = archive.by_index_data(index).ok()?;
                let wanted = safe(entry.name_raw()).is_ok_and(|name| chosen(&name));
                wanted.then(|| entry.size())
            };
            let all = (0..archive.len()).filter_map(of).fold(0, u64::saturating_add);
            all.min(bound(size))
        }
        _ => 0,
    }
}

/// A member as the archive describes it.
pub(super) struct Member {
    /// With `/` between names; for one of an archive in the archive, behind that one's path.
    pub path: String,
    /// Unpacked.
    pub size: u64,
    pub kind: Kind,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A link or a device.
    Special(&'static str),
}

/// What is done with members.
pub(super) trait Visitor {
    /// Whether a member is an archive to be opened.
    fn inside(&self, path: &str) -> bool;
    /// Whether a member's bytes are wanted.
    fn wants(&mut self, member: &Member) -> Result<bool, PrepareError>;
    /// Takes the bytes of a wanted member: no more and no fewer than its size, or it is damaged.
    fn take(&mut self, member: &Member, bytes: &mut dyn Read) -> Result<(), PrepareError>;
    /// Told how far the archive has been read, in bytes.
    fn at(&mut self, byte: u64);
}

/// An archive; `checked` if a checksum says that it is whole.
pub(super) fn visit(
    path: &Path,
    checked: bool,
    visitor: &mut dyn Visitor,
) -> Result<(), PrepareError> {
    let reading = PrepareError::io("read", path);
    let format = Format::of(path).map_err(&reading)?;
    let format = format.map_err(|found| PrepareError::NoArchive {
        path: path.to_path_buf(),
        found: found.to_owned(),
    })?;
    let reading = Reading { path, checked };
    match format {
        Format::Zip => reading.zip(visitor),
        Format::Tar => reading.tar(visitor),
        Format::TarGz => reading.gzipped(visitor),
    }
}

struct Reading<'a> {
    path: &'a Path,
    checked: bool,
}

impl Reading<'_> {
    fn open(&self) -> Result<(File, u64), PrepareError> {
        let io = PrepareError::io("read", self.path);
        let file = File::open(self.path).map_err(&io)?;
        let size = file.metadata().map_err(&io)?.len();
        Ok((file, size))
    }

    fn damaged(&self, member: Option<&str>, why: &str) -> PrepareError {
        let (archive, member) = (self.path.to_path_buf(), member.map(str::to_owned));
        PrepareError::Damaged { archive, member, why: why.to_owned() }
    }

    fn unreadable(&self, error: impl Error + 'static) -> PrepareError {
        PrepareError::unreadable(self.path, None, &error)
    }

    /// A member's path, behind that of the archive that it is in.
    fn named(&self, outer: &str, raw: &[u8]) -> Result<String, PrepareError> {
        let named = safe(raw).map_err(|danger| PrepareError::Refused {
            archive: self.path.to_path_buf(),
            member: format!("{outer}{}", String::from_utf8_lossy(raw).escape_debug()),
            danger,
        })?;
        Ok(format!("{outer}{named}"))
    }

    fn zip(&self, visitor: &mut dyn Visitor) -> Result<(), PrepareError> {
        let (file, size) = self.open()?;
        let opened = ZipArchive::new(BufReader::new(file));
        let mut archive = opened.map_err(|error| self.unreadable(error))?;
        if archive.has_duplicate_names() {
            return Err(self.damaged(None, "its directory names a member twice"));
        }
        let mut passed = 0;
        for index in 0..archive.len() {
            let (member, packed) = {
                let entry = archive.by_index_data(index);
                let entry = entry.map_err(|error| self.unreadable(error))?;
                let raw = entry.name_raw();
                let kind = match entry.unix_mode().map_or(0, |mode| mode & 0o170_000) {
                    _ if raw.ends_with(b"/") => Kind::Folder,
                    0 | 0o100_000 => Kind::File,
                    0o040_000 => Kind::Folder,
                    0o120_000 => Kind::Special("a symbolic link"),
                    _ => Kind::Special("a device"),
                };
                let path = self.named("", raw)?;
                (Member { path, size: entry.size(), kind }, entry.compressed_size())
            };
            if visitor.wants(&member)? {
                let file = archive.by_index(index);
                let mut file = file.map_err(|error| {
                    PrepareError::unreadable(self.path, Some(&member.path), &error)
                })?;
                visitor.take(&member, &mut file)?;
            }
            passed += packed;
            visitor.at(passed.min(size));
        }
        Ok(())
    }

    fn tar(&self, visitor: &mut dyn Visitor) -> Result<(), PrepareError> {
        let (_, size) = self.open()?;
        self.tar_in(0, size, "", visitor)
    }

    /// A tar archive that is the file or a member of it.
    fn tar_in(
        &self,
        start: u64,
        size: u64,
        outer: &str,
        visitor: &mut dyn Visitor,
    ) -> Result<(), PrepareError> {
        let io = PrepareError::io("read", self.path);
        let (mut file, _) = self.open()?;
        if !self.checked && !ends_in_zeros(&mut file, start, size).map_err(&io)? {
            let what = if outer.is_empty() { None } else { Some(outer.trim_end_matches('/')) };
            return Err(self.damaged(what, "a tar archive without its end"));
        }
        let meter = Rc::new(Meter::new(u64::MAX));
        let section = Section::new(file, start, size).map_err(&io)?;
        let mut archive = tar::Archive::new(Metered { inner: section, meter: Rc::clone(&meter) });
        let entries = archive.entries_with_seek().map_err(|error| self.unreadable(error))?;
        self.entries(entries, &meter, false, (start, outer), visitor)
    }

    fn gzipped(&self, visitor: &mut dyn Visitor) -> Result<(), PrepareError> {
        let (file, size) = self.open()?;
        let passed = Rc::new(Cell::new(0));
        let counted = Counted { inner: BufReader::new(file), passed: Rc::clone(&passed) };
        let meter = Rc::new(Meter::new(bound(size)));
        let decoder = MultiGzDecoder::new(counted);
        let mut archive = tar::Archive::new(Metered { inner: decoder, meter: Rc::clone(&meter) });
        let entries = archive.entries().map_err(|error| self.unreadable(error))?;
        let mut told = Told { visitor, passed };
        self.entries(entries, &meter, true, (0, ""), &mut told)?;
        // To the end, where the checksum is.
        meter.left.set(u64::MAX);
        let end = io::copy(&mut archive.into_inner(), &mut io::sink());
        end.map_err(|error| self.unreadable(error)).map(drop)
    }

    fn entries<R: Read>(
        &self,
        mut entries: tar::Entries<'_, R>,
        meter: &Meter,
        stream: bool,
        (start, outer): (u64, &str),
        visitor: &mut dyn Visitor,
    ) -> Result<(), PrepareError> {
        loop {
            // A stream skips by reading.
            meter.left.set(meter.left.get().saturating_add(HEADERS));
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry.map_err(|error| self.unreadable(error))?;
            let kind = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => Kind::File,
                EntryType::Directory => Kind::Folder,
                EntryType::XGlobalHeader => continue,
                EntryType::Symlink => Kind::Special("a symbolic link"),
                EntryType::Link => Kind::Special("a hard link"),
                EntryType::GNUSparse => Kind::Special("a sparse file"),
                _ => Kind::Special("a device"),
            };
            let raw = entry.path_bytes().into_owned();
            if kind == Kind::Folder && safe(&raw) == Err(Danger::Empty) {
                continue;
            }
            let path = self.named(outer, &raw)?;
            let member = Member { path, size: entry.size(), kind };
            let at = start + entry.raw_file_position();
            meter.left.set(if stream { member.size.saturating_add(HEADERS) } else { HEADERS });
            if kind == Kind::File && !stream && outer.is_empty() && visitor.inside(&member.path) {
                let outer = format!("{}/", member.path);
                self.tar_in(at, member.size, &outer, visitor)?;
            } else if visitor.wants(&member)? {
                meter.left.set(member.size.saturating_add(HEADERS));
                visitor.take(&member, &mut entry)?;
            }
            visitor.at(at);
        }
    }
}

/// A tar archive ends in a block of zeros: without it, it may have been cut off.
fn ends_in_zeros(file: &mut File, start: u64, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(512) else { return Ok(false) };
    let mut block = [0; 512];
    file.seek(SeekFrom::Start(start + last))?;
    match file.read_exact(&mut block) {
        Ok(()) => Ok(block.iter().all(|&byte| byte == 0)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A part of a file.
struct Section {
    file: File,
    start: u64,
    size: u64,
    at: u64,
}

impl Section {
    fn new(mut file: File, start: u64, size: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { file, start, size, at: 0 })
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read(&mut buffer[..most])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        let absolute = at.and_then(|at| self.start.checked_add(at));
        let absolute = absolute.ok_or(io::ErrorKind::InvalidInput)?;
        self.file.seek(SeekFrom::Start(absolute))?;
        self.at = absolute - self.start;
        Ok(self.at)
    }
}

/// What may still be read: of headers, whose size the archive chooses, and in all.
struct Meter {
    left: Cell<u64>,
    all: Cell<u64>,
}

impl Meter {
    fn new(all: u64) -> Self {
        Self { left: Cell::new(0), all: Cell::new(all) }
    }
}

struct Metered<R> {
    inner: R,
    meter: Rc<Meter>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.left.get().min(self.meter.all.get());
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers, or all of it, are larger than they can be"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.meter.left.set(self.meter.left.get() - read as u64);
        self.meter.all.set(self.meter.all.get() - read as u64);
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

struct Counted<R> {
    inner: R,
    passed: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passed.set(self.passed.get() + read as u64);
        Ok(read)
    }
}

/// Tells a visitor of the place in the compressed file.
struct Told<'a> {
    visitor: &'a mut dyn Visitor,
    passed: Rc<Cell<u64>>,
}

impl Visitor for Told<'_> {
    fn inside(&self, path: &str) -> bool {
        self.visitor.inside(path)
    }

    fn wants(&mut self, member: &Member) -> Result<bool, PrepareError> {
        self.visitor.wants(member)
    }

    fn take(&mut self, member: &Member, bytes: &mut dyn Read) -> Result<(), PrepareError> {
        self.visitor.take(member, bytes)
    }

    fn at(&mut self, _: u64) {
        self.visitor.at(self.passed.get());
    }
}

#[cfg(test)]
mod tests {
    use super::super::make;
    use super::*;

    #[test]
    fn room_is_needed_for_what_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let members = [("in/a", vec![0; 1000]), ("in/b", vec![0; 200]), ("out/c", vec![0; 4000])];
        let chosen = |path: &str| path.starts_with("in/");
        std::fs::write(&path, make::zip(&members)).unwrap();
        assert!(path.metadata().unwrap().len() < 1000);
        assert_eq!(estimate(&path, &chosen), 1200);
        let tar = make::tar(&members);
        std::fs::write(&path, &tar).unwrap();
        assert_eq!(estimate(&path, &chosen), tar.len() as u64);
        std::fs::write(&path, "no archive").unwrap();
        assert_eq!(estimate(&path, &chosen), 0);
    }
}
