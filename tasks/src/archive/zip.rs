//! The members of a zip archive.

use zip::CompressionMethod;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use super::error::{Fault, Problem};
use super::found::{Found, Method, Place, Progress};
use super::names;
use super::source::{Bytes, Window};

/// Bytes of the central directory read at once.
const AHEAD: usize = 1 << 18;
/// Members between two looks at whether to go on.
const STRIDE: usize = 4096;
/// The most that deflate makes of one byte.
const DEFLATE_RATIO: u64 = 1032;

/// Lists the files of an archive, by its central directory.
pub(super) fn scan(
    bytes: &dyn Bytes,
    strip: &str,
    progress: &Progress<'_>,
) -> Result<Found, Fault> {
    let window = Window::new(bytes, AHEAD);
    // One entry at a time: no more is allocated than the archive has entries.
    let mut archive = ZipIterable::try_new(window, zip::read::Config::default()).map_err(fault)?;
    let mut found = Found::default();
    for (i, entry) in archive.files().map_err(fault)?.enumerate() {
        if i.is_multiple_of(STRIDE) {
            progress.advance(0)?;
        }
        let entry = entry.map_err(fault)?;
        if entry.is_symlink() {
            continue;
        }
        let name = entry.name().map_err(fault)?;
        let place = |place: Place| {
            if entry.encrypted() {
                return Err(Problem::Encrypted);
            }
            let method = match entry.compression() {
                CompressionMethod::Stored => Method::ZipStored,
                CompressionMethod::DEFLATE => Method::ZipDeflated,
                other => {
                    let expected = "stored or deflated";
                    return Err(Problem::Unsupported { found: other.to_string(), expected });
                }
            };
            let (size, packed) = (entry.size(), entry.compressed_size());
            let possible = match method {
                Method::ZipStored => packed == size,
                _ => size <= packed.saturating_mul(DEFLATE_RATIO),
            };
            if !possible {
                let what = format!("{packed} bytes cannot unpack to {size}");
                return Err(Problem::Damaged(what));
            }
            let end = place.offset.checked_add(packed);
            let packed = u32::try_from(packed).ok();
            let (Some(packed), Some(true)) = (packed, end.map(|end| end <= bytes.len())) else {
                return Err(Problem::Truncated);
            };
            Ok(Place { method, packed, extra: entry.crc32(), ..place })
        };
        let mut member = || {
            let Some(path) = names::canonical(&name, strip)? else { return Ok(()) };
            let sized = Place::new(Method::ZipStored, entry.header_start(), entry.size())?;
            found.push(&path, place(sized)?)
        };
        member().map_err(|fault: Fault| fault.of(&name))?;
    }
    progress.advance(bytes.len())?;
    Ok(found)
}

fn fault(error: ZipError) -> Fault {
    match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => error.into(),
        ZipError::Io(_) => Problem::Truncated.into(),
        other => Fault::damaged(other.to_string()),
    }
}
