//! The members of a tar archive: old, ustar, GNU (long names) and PAX.

use tar::{EntryType, Header, PaxExtensions};

use super::error::{Fault, Problem};
use super::found::{Found, Method, Place, Progress};
use super::names;
use super::source::{Bytes, Window};

const BLOCK: u64 = 512;
/// Bytes read at once: a header, and often the small members that stand between two images.
const AHEAD: usize = 4096;
/// Bytes of the longest extended header that is read.
const LONGEST_HEADER: u64 = 1 << 20;
/// Members between two looks at whether to go on.
const STRIDE: u32 = 1024;

/// A regular file in an archive.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) at: u64,
    pub(super) size: u64,
}

/// Walks over the regular files of an archive, from header to header.
pub(super) struct Walk<'a> {
    pub(super) window: Window<'a>,
    next: u64,
    told: u64,
    seen: u32,
    progress: &'a Progress<'a>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a dyn Bytes, progress: &'a Progress<'a>) -> Self {
        Self { window: Window::new(bytes, AHEAD), next: 0, told: 0, seen: 0, progress }
    }

    /// The next file. Folders, links and devices are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Fault> {
        let (mut long_name, mut pax) = (None, Pax::default());
        loop {
            self.seen += 1;
            if self.seen.is_multiple_of(STRIDE) {
                self.tell(self.next)?;
            }
            let Some(header) = self.header()? else {
                self.tell(self.window.bytes().len())?;
                return Ok(None);
            };
            let at = self.next + BLOCK;
            let kind = header.entry_type();
            let extends = matches!(
                kind,
                EntryType::GNULongName
                    | EntryType::GNULongLink
                    | EntryType::XHeader
                    | EntryType::XGlobalHeader
            );
            let size = header.entry_size().map_err(|error| Fault::damaged(error.to_string()))?;
            let size = if extends { size } else { pax.size.unwrap_or(size) };
            let named = |long_name: Option<Vec<u8>>, pax: Pax| {
                pax.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned())
            };
            let end = at.checked_add(size).filter(|&end| end <= self.window.bytes().len());
            let Some(end) = end else {
                let name = named(long_name, pax);
                return Err(Fault::from(Problem::Truncated).of(&String::from_utf8_lossy(&name)));
            };
            self.next = end.next_multiple_of(BLOCK);
            match kind {
                EntryType::GNULongName => long_name = Some(self.long_name(at, size)?),
                EntryType::XHeader => pax = self.pax(at, size)?,
                EntryType::Regular | EntryType::Continuous => {
                    let sparse = pax.sparse;
                    let name = named(long_name, pax);
                    let name = String::from_utf8(name).map_err(|error| {
                        let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
                        Fault::from(Problem::Name("is not UTF-8")).of(&shown)
                    })?;
                    if sparse {
                        return Err(sparse_file(&name));
                    }
                    return Ok(Some(Entry { name, at, size }));
                }
                EntryType::GNUSparse => {
                    return Err(sparse_file(&String::from_utf8_lossy(&named(long_name, pax))));
                }
                EntryType::GNULongLink | EntryType::XGlobalHeader => {}
                _ => (long_name, pax) = (None, Pax::default()),
            }
        }
    }

    fn tell(&mut self, position: u64) -> Result<(), Fault> {
        self.progress.advance(position.saturating_sub(self.told))?;
        self.told = position;
        Ok(())
    }

    /// The header at `next`. None at the end: no bytes are left, or a block of zeros.
    fn header(&mut self) -> Result<Option<Header>, Fault> {
        let at = self.next;
        let block = self.window.slice(at, BLOCK as usize)?;
        if block.is_empty() || block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if block.len() < BLOCK as usize {
            return Err(Problem::Truncated.into());
        }
        let header = Header::from_byte_slice(block);
        // The checksum's own eight bytes count as spaces.
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        let own: u32 = block[148..156].iter().map(|&byte| u32::from(byte)).sum();
        if header.cksum().ok() != Some(sum - own + 8 * u32::from(b' ')) {
            return Err(Fault::damaged(format!("expected a tar header at byte {at}")));
        }
        Ok(Some(header.clone()))
    }

    fn extension(&mut self, at: u64, size: u64) -> Result<&[u8], Fault> {
        if size > LONGEST_HEADER {
            return Err(Problem::TooLarge { bytes: size, limit: LONGEST_HEADER }.into());
        }
        Ok(self.window.slice(at, size as usize)?)
    }

    fn long_name(&mut self, at: u64, size: u64) -> Result<Vec<u8>, Fault> {
        let name = self.extension(at, size)?;
        Ok(name.split(|&byte| byte == 0).next().unwrap_or_default().to_owned())
    }

    fn pax(&mut self, at: u64, size: u64) -> Result<Pax, Fault> {
        let mut pax = Pax::default();
        for record in PaxExtensions::new(self.extension(at, size)?) {
            let record = record.map_err(|error| Fault::damaged(error.to_string()))?;
            match record.key_bytes() {
                b"path" => pax.path = Some(record.value_bytes().to_owned()),
                b"size" => {
                    let size = record.value().ok().and_then(|size| size.parse().ok());
                    pax.size = Some(size.ok_or_else(|| Fault::damaged("a PAX size is no number"))?);
                }
                key => pax.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(pax)
    }
}

/// What an extended header says of the next member.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

fn sparse_file(name: &str) -> Fault {
    let expected = "an ordinary file (tar without --sparse)";
    Fault::from(Problem::Unsupported { found: "a sparse file".to_owned(), expected }).of(name)
}

/// Lists the files of an archive.
pub(super) fn scan(
    bytes: &dyn Bytes,
    strip: &str,
    progress: &Progress<'_>,
) -> Result<Found, Fault> {
    let mut found = Found::default();
    let mut walk = Walk::new(bytes, progress);
    while let Some(Entry { name, at, size }) = walk.next()? {
        let kept = names::canonical(&name, strip).map_err(|problem| Fault::from(problem).of(&name));
        if let Some(path) = kept? {
            let place = Place::new(Method::Plain, at, size).map_err(|fault| fault.of(&name))?;
            found.push(&path, place)?;
        }
    }
    Ok(found)
}
