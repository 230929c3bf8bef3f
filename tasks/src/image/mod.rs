//! Images as the published evaluation sees them: 8-bit RGB pixels equal, byte for byte, to what
//! Pillow 12.0 with libjpeg-turbo 3 gives for the same file.
//!
//! [`decode`] is `Image.open(path).convert("RGB")` (EXIF orientation is not applied), [`resize`] is
//! `Image.resize` with the bicubic filter, [`prepare`] the whole of an [`schema::ImageStage`] up to
//! [`normalise_into`]. All of them work on one thread: images are decoded side by side. JPEG is always decoded
//! at full size: decoding at a fraction of it, as Pillow's `draft` does, gives other pixels.
//!
//! Two places are stricter than Pillow, and refuse a damaged file instead of filling in: PNG
//! checksums are verified, and PNG data with missing rows is [`ImageError::Truncated`].

#[cfg(target_arch = "x86_64")]
mod dct;
mod error;
mod jpeg;
mod png;
mod prepare;
mod resize;

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};

use crate::files::Files;

pub use error::{Format, ImageError, MAX_PIXELS};
pub use prepare::{center_crop, normalise_into, prepare, shorter_side};
pub use resize::resize;
pub(crate) use resize::{Region, resize_region};

/// Decodes a JPEG or PNG file to RGB, `[H, W, 3]`. The format is told from the content, not from
/// the file's name.
///
/// # Errors
/// See [`ImageError`]; every variant names the file.
pub fn decode(path: &Path) -> Result<Array3<u8>, ImageError> {
    decode_at(&read(path)?, path)
}

/// [`decode`] for bytes in memory; errors name the path `(memory)`.
///
/// # Errors
/// See [`ImageError`].
pub fn decode_bytes(bytes: &[u8]) -> Result<Array3<u8>, ImageError> {
    decode_at(bytes, Path::new("(memory)"))
}

/// Reads a single-channel 16-bit PNG as it is stored, `[H, W]`: depth maps.
///
/// # Errors
/// [`ImageError::Layout`] for any other kind of PNG, else as [`decode`].
pub fn decode_gray16(path: &Path) -> Result<Array2<u16>, ImageError> {
    decode_gray16_at(&read(path)?, path)
}

/// Reads the stored values of an 8-bit grey PNG or the palette indices of a palette PNG (1, 2, 4 or
/// 8 bits), `[H, W]`: label masks.
///
/// # Errors
/// [`ImageError::Layout`] for any other kind of PNG, else as [`decode`].
pub fn decode_mask(path: &Path) -> Result<Array2<u8>, ImageError> {
    decode_mask_at(&read(path)?, path)
}

/// [`decode`] for a file of a data set.
///
/// # Errors
/// As [`decode`].
pub fn decode_in(files: &Files, path: &str) -> Result<Array3<u8>, ImageError> {
    let (bytes, place) = read_in(files, path)?;
    decode_at(&bytes, &place)
}

/// [`decode_gray16`] for a file of a data set.
///
/// # Errors
/// As [`decode_gray16`].
pub fn decode_gray16_in(files: &Files, path: &str) -> Result<Array2<u16>, ImageError> {
    let (bytes, place) = read_in(files, path)?;
    decode_gray16_at(&bytes, &place)
}

/// [`decode_mask`] for a file of a data set.
///
/// # Errors
/// As [`decode_mask`].
pub fn decode_mask_in(files: &Files, path: &str) -> Result<Array2<u8>, ImageError> {
    let (bytes, place) = read_in(files, path)?;
    decode_mask_at(&bytes, &place)
}

/// Height and width of a PNG, a file of a data set, from its header.
///
/// # Errors
/// As [`decode`], where the header tells.
pub fn png_size_in(files: &Files, path: &str) -> Result<(usize, usize), ImageError> {
    let place = files.place(path);
    let head = files.head(path, HEAD);
    let head = head.map_err(|source| ImageError::Io { path: place.clone(), source })?;
    png::size(png_bytes(&head, &place)?, &place)
}

/// Enough of a PNG for its signature and header chunk.
const HEAD: usize = 64;

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|source| ImageError::Io { path: path.to_owned(), source })
}

/// A file of a data set and its place, which errors of the `_at` functions name.
pub(crate) fn read_in(files: &Files, path: &str) -> Result<(Vec<u8>, PathBuf), ImageError> {
    let place = files.place(path);
    match files.read(path) {
        Ok(bytes) => Ok((bytes, place)),
        Err(source) => Err(ImageError::Io { path: place, source }),
    }
}

/// [`decode`] for the bytes of a file.
pub(crate) fn decode_at(bytes: &[u8], path: &Path) -> Result<Array3<u8>, ImageError> {
    match Format::of(bytes) {
        Some(Format::Jpeg) => jpeg::decode(bytes, path),
        Some(Format::Png) => png::rgb(bytes, path),
        None => Err(ImageError::unrecognised(bytes, path)),
    }
}

/// [`decode_gray16`] for the bytes of a file.
pub(crate) fn decode_gray16_at(bytes: &[u8], path: &Path) -> Result<Array2<u16>, ImageError> {
    png::gray16(png_bytes(bytes, path)?, path)
}

/// [`decode_mask`] for the bytes of a file.
pub(crate) fn decode_mask_at(bytes: &[u8], path: &Path) -> Result<Array2<u8>, ImageError> {
    png::mask(png_bytes(bytes, path)?, path)
}

fn png_bytes<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a [u8], ImageError> {
    match Format::of(bytes) {
        Some(Format::Png) => Ok(bytes),
        Some(Format::Jpeg) => Err(ImageError::Layout {
            path: path.to_owned(),
            expected: "a PNG",
            found: "a JPEG image".to_owned(),
        }),
        None => Err(ImageError::unrecognised(bytes, path)),
    }
}
