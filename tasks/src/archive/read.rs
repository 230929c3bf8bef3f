//! The bytes of a member.

use std::io::{self, Read};

use flate2::read::DeflateDecoder;

use super::error::{Fault, Problem};
use super::found::{LARGEST, Method, Place};
use super::parquet;
use super::source::{self, Bytes};

/// Bytes of a local header without name and extra field.
const LOCAL: usize = 30;
/// Room for its name and extra field in the first read; longer ones cost a second one.
const NAMES: u64 = 512;

/// A whole member, or at least its first `head` bytes where it has as many.
pub(super) fn member(
    bytes: &dyn Bytes,
    place: &Place,
    head: Option<usize>,
) -> Result<Vec<u8>, Fault> {
    let size = place.size as usize;
    if u64::from(place.size) > LARGEST {
        return Err(Problem::TooLarge { bytes: place.size.into(), limit: LARGEST }.into());
    }
    let wanted = head.map_or(size, |head| head.min(size));
    match place.method {
        Method::Plain => source::exactly(bytes, place.offset, wanted as u64),
        Method::ZipStored | Method::ZipDeflated => zipped(bytes, place, wanted),
        Method::Snappy => {
            // Literals take their own length and a little more, copies less.
            let needed = place.extra as usize + wanted;
            let enough = needed + needed / 6 + 64;
            let unpack = |packed: u64| {
                let packed = source::exactly(bytes, place.offset, packed)?;
                Ok::<_, Fault>(parquet::unpack_snappy(&packed, place.extra as usize, wanted))
            };
            let packed = u64::from(place.packed);
            let first = unpack(packed.min(enough as u64))?;
            let whole = if first.is_none() { unpack(packed)? } else { first };
            whole.ok_or_else(|| Fault::damaged("its Snappy data"))
        }
        Method::Zstd => {
            let packed = source::exactly(bytes, place.offset, place.packed.into())?;
            let fail = |error: io::Error| Fault::damaged(format!("its Zstandard data: {error}"));
            let mut frame = zstd::stream::read::Decoder::with_buffer(&packed[..]).map_err(fail)?;
            let before = u64::from(place.extra);
            io::copy(&mut frame.by_ref().take(before), &mut io::sink()).map_err(fail)?;
            let mut member = Vec::new();
            frame.take(wanted as u64).read_to_end(&mut member).map_err(fail)?;
            if member.len() < wanted {
                return Err(Fault::damaged("its Zstandard data are too short"));
            }
            Ok(member)
        }
    }
}

/// Bytes of an archive that reading a member takes, from its offset on.
#[cfg(target_os = "linux")]
pub(super) fn span(place: &Place) -> u64 {
    match place.method {
        Method::Plain => place.size.into(),
        Method::ZipStored | Method::ZipDeflated => LOCAL as u64 + NAMES + u64::from(place.packed),
        Method::Snappy | Method::Zstd => place.packed.into(),
    }
}

fn zipped(bytes: &dyn Bytes, place: &Place, wanted: usize) -> Result<Vec<u8>, Fault> {
    let packed = u64::from(place.packed);
    let whole = wanted == place.size as usize;
    // Deflated data are hardly ever longer than what they unpack to.
    let needed = if whole { packed } else { packed.min(wanted as u64 + wanted as u64 / 64 + 256) };
    let first = source::up_to(bytes, place.offset, LOCAL as u64 + NAMES + needed)?;
    let header = first.get(..LOCAL).ok_or(Problem::Truncated)?;
    let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let method = if place.method == Method::ZipStored { 0 } else { 8 };
    if &header[..4] != b"PK\x03\x04" || number(8) != method {
        return Err(Fault::damaged(format!("expected its header at byte {}", place.offset)));
    }
    let start = LOCAL + usize::from(number(26)) + usize::from(number(28));
    let again;
    let data = match first.get(start..start + needed as usize) {
        Some(data) => data,
        None => {
            again = source::exactly(bytes, place.offset + start as u64, needed)?;
            &again
        }
    };
    let read = match place.method {
        Method::ZipStored => data.get(..wanted).ok_or(Problem::Truncated)?.to_owned(),
        _ if whole => inflate(data, wanted)?,
        _ => match inflate(data, wanted) {
            Ok(head) => head,
            Err(_) => {
                let all = source::exactly(bytes, place.offset + start as u64, packed)?;
                inflate(&all, wanted)?
            }
        },
    };
    if whole {
        let (expected, found) = (place.extra, crc32fast::hash(&read));
        if expected != found {
            return Err(Problem::Checksum { expected, found }.into());
        }
    }
    Ok(read)
}

/// The first `wanted` bytes.
fn inflate(data: &[u8], wanted: usize) -> Result<Vec<u8>, Fault> {
    // Grows from here on, so that a wrong size allocates nothing.
    let mut out = Vec::with_capacity(wanted.min(data.len().saturating_mul(4)));
    let read = DeflateDecoder::new(data).take(wanted as u64).read_to_end(&mut out);
    match read {
        Err(error) => Err(Fault::damaged(format!("its deflated data: {error}"))),
        Ok(_) if out.len() < wanted => Err(Fault::damaged("its deflated data are too short")),
        Ok(_) => Ok(out),
    }
}
