//! Bytes that are read at any place, a file's or some in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::error::{Fault, Problem};

/// Bytes that are read at any place.
pub(super) trait Bytes: Sync {
    /// Their number.
    fn len(&self) -> u64;

    /// Reads some of the bytes at a place, none at the end.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Bytes for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// An open archive.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) len: u64,
}

impl Bytes for Opened {
    fn len(&self) -> u64 {
        self.len
    }

    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buffer, at)
    }

    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, buffer, at)
    }
}

/// Fills a buffer as far as there are bytes.
fn fill(bytes: &dyn Bytes, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match bytes.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// At most `n` bytes, fewer only at the end. Nothing is allocated for bytes that are not there.
pub(super) fn up_to(bytes: &dyn Bytes, at: u64, n: u64) -> Result<Vec<u8>, Fault> {
    let n = n.min(bytes.len().saturating_sub(at));
    let mut buffer = vec![0; n as usize];
    let filled = fill(bytes, &mut buffer, at)?;
    buffer.truncate(filled);
    Ok(buffer)
}

/// Exactly `n` bytes.
pub(super) fn exactly(bytes: &dyn Bytes, at: u64, n: u64) -> Result<Vec<u8>, Fault> {
    // Checked first: an absurd number of bytes is not allocated.
    if at.checked_add(n).is_none_or(|end| end > bytes.len()) {
        return Err(Problem::Truncated.into());
    }
    let read = up_to(bytes, at, n)?;
    if (read.len() as u64) < n { Err(Problem::Truncated.into()) } else { Ok(read) }
}

/// Reads small pieces through one buffer, with few calls of the system where they lie close together.
pub(super) struct Window<'a> {
    bytes: &'a dyn Bytes,
    ahead: usize,
    start: u64,
    buffer: Vec<u8>,
    position: u64,
}

impl<'a> Window<'a> {
    /// `ahead`: bytes read at once.
    pub(super) fn new(bytes: &'a dyn Bytes, ahead: usize) -> Self {
        Self { bytes, ahead, start: 0, buffer: Vec::new(), position: 0 }
    }

    pub(super) fn bytes(&self) -> &'a dyn Bytes {
        self.bytes
    }

    /// Where reading through [`Read`] stands.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The `n` bytes at a place, fewer only at the end. `n` is allocated: callers bound it.
    pub(super) fn slice(&mut self, at: u64, n: usize) -> io::Result<&[u8]> {
        let held = at >= self.start && at - self.start + n as u64 <= self.buffer.len() as u64;
        if !held {
            let rest = self.bytes.len().saturating_sub(at);
            let n = (n.max(self.ahead) as u64).min(rest) as usize;
            self.buffer.clear();
            self.buffer.resize(n, 0);
            self.start = at;
            let filled = fill(self.bytes, &mut self.buffer, at)?;
            self.buffer.truncate(filled);
        }
        let from = (at - self.start) as usize;
        let to = from.saturating_add(n).min(self.buffer.len());
        Ok(&self.buffer[from.min(to)..to])
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.ahead);
        let read = self.slice(self.position, n)?;
        let n = read.len();
        buffer[..n].copy_from_slice(read);
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
