//! PNG of every colour type and depth. Samples are taken as stored and widened here, since the rules
//! (which follow Pillow's `convert("RGB")`) are not those of a PNG viewer: alpha and `tRNS` are
//! dropped, 16-bit colour keeps its high byte, 16-bit grey saturates at 255.

use std::io::{Cursor, ErrorKind};
use std::path::Path;

use ::png::{BitDepth, ColorType, Decoder, DecodingError, Limits};
use ndarray::{Array2, Array3};

use super::error::{Format, ImageError};

/// For what the decoder keeps besides the pixels: rows, palette, text.
const SCRATCH_BYTES: usize = 256 << 20;

/// Decodes to `[H, W, 3]`.
pub fn rgb(bytes: &[u8], path: &Path) -> Result<Array3<u8>, ImageError> {
    let stored = Stored::read(bytes, path)?;
    let mut out = vec![0; stored.height * stored.width * 3];
    let rows = stored.samples.chunks_exact(stored.stride);
    match stored.color {
        ColorType::Indexed => {
            let palette = stored.palette(path)?;
            for (row, line) in rows.zip(out.chunks_exact_mut(stored.width * 3)) {
                for (index, pixel) in unpack(row, stored.depth).zip(line.as_chunks_mut().0) {
                    *pixel = palette[usize::from(index)];
                }
            }
        }
        ColorType::Grayscale if stored.depth == BitDepth::Sixteen => {
            for (value, pixel) in stored.samples.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                *pixel = [u16::from_be_bytes(*value).min(255) as u8; 3];
            }
        }
        ColorType::Grayscale => {
            let scale = match stored.depth {
                BitDepth::One => 255,
                BitDepth::Two => 85,
                BitDepth::Four => 17,
                BitDepth::Eight | BitDepth::Sixteen => 1,
            };
            for (row, line) in rows.zip(out.chunks_exact_mut(stored.width * 3)) {
                for (value, pixel) in unpack(row, stored.depth).zip(line.as_chunks_mut().0) {
                    *pixel = [value * scale; 3];
                }
            }
        }
        color => {
            // The first (high) byte of each sample.
            let step = if stored.depth == BitDepth::Sixteen { 2 } else { 1 };
            let (channels, green, blue) = match color {
                ColorType::GrayscaleAlpha => (2, 0, 0),
                ColorType::Rgba => (4, 1, 2),
                _ => (3, 1, 2),
            };
            let pixels = stored.samples.chunks_exact(channels * step);
            for (sample, pixel) in pixels.zip(out.as_chunks_mut().0) {
                *pixel = [sample[0], sample[green * step], sample[blue * step]];
            }
        }
    }
    Array3::from_shape_vec((stored.height, stored.width, 3), out)
        .map_err(|error| corrupt(path, error.to_string()))
}

/// The stored values of a 16-bit grey PNG, `[H, W]`.
pub fn gray16(bytes: &[u8], path: &Path) -> Result<Array2<u16>, ImageError> {
    let stored = Stored::read(bytes, path)?;
    if (stored.color, stored.depth) != (ColorType::Grayscale, BitDepth::Sixteen) {
        return Err(stored.layout("a 16-bit single-channel PNG", path));
    }
    let values = stored.samples.as_chunks().0.iter().map(|v| u16::from_be_bytes(*v)).collect();
    Array2::from_shape_vec((stored.height, stored.width), values)
        .map_err(|error| corrupt(path, error.to_string()))
}

/// Height and width, from the first bytes of a PNG.
pub fn size(head: &[u8], path: &Path) -> Result<(usize, usize), ImageError> {
    let mut decoder = Decoder::new(Cursor::new(head));
    let header = decoder.read_header_info().map_err(|error| failure(error, head.len(), path))?;
    ImageError::check_size(header.width, header.height, path)?;
    Ok((header.height as usize, header.width as usize))
}

/// The stored values of an 8-bit grey PNG or the indices of a palette PNG, `[H, W]`.
pub fn mask(bytes: &[u8], path: &Path) -> Result<Array2<u8>, ImageError> {
    let stored = Stored::read(bytes, path)?;
    match (stored.color, stored.depth) {
        (ColorType::Indexed, _) | (ColorType::Grayscale, BitDepth::Eight) => {}
        _ => return Err(stored.layout("an 8-bit single-channel or palette PNG", path)),
    }
    let rows = stored.samples.chunks_exact(stored.stride);
    let values = rows.flat_map(|row| unpack(row, stored.depth).take(stored.width)).collect();
    Array2::from_shape_vec((stored.height, stored.width), values)
        .map_err(|error| corrupt(path, error.to_string()))
}

/// Samples as the file holds them: rows of `stride` bytes, big endian, leftmost in the high bits.
struct Stored {
    width: usize,
    height: usize,
    color: ColorType,
    depth: BitDepth,
    stride: usize,
    samples: Vec<u8>,
    palette: Option<Vec<u8>>,
}

impl Stored {
    fn read(bytes: &[u8], path: &Path) -> Result<Self, ImageError> {
        let failed = |error| failure(error, bytes.len(), path);
        let limits = Limits { bytes: SCRATCH_BYTES };
        let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let header = decoder.read_header_info().map_err(failed)?;
        ImageError::check_size(header.width, header.height, path)?;
        let mut reader = decoder.read_info().map_err(failed)?;
        let Some(size) = reader.output_buffer_size() else {
            return Err(corrupt(path, "its samples do not fit in memory".to_owned()));
        };
        let mut samples = vec![0; size];
        let frame = reader.next_frame(&mut samples).map_err(failed)?;
        Ok(Self {
            width: frame.width as usize,
            height: frame.height as usize,
            color: frame.color_type,
            depth: frame.bit_depth,
            stride: frame.line_size,
            samples,
            palette: reader.info().palette.as_ref().map(|palette| palette.to_vec()),
        })
    }

    /// All 256 entries; those that the file does not define are black, as in Pillow.
    fn palette(&self, path: &Path) -> Result<[[u8; 3]; 256], ImageError> {
        let stored = self
            .palette
            .as_ref()
            .ok_or_else(|| corrupt(path, "a palette image without palette".to_owned()))?;
        let mut palette = [[0; 3]; 256];
        for (entry, color) in palette.iter_mut().zip(stored.as_chunks().0) {
            *entry = *color;
        }
        Ok(palette)
    }

    fn layout(&self, expected: &'static str, path: &Path) -> ImageError {
        let kind = match self.color {
            ColorType::Grayscale => "single-channel",
            ColorType::Rgb => "RGB",
            ColorType::Indexed => "palette",
            ColorType::GrayscaleAlpha => "grey and alpha",
            ColorType::Rgba => "RGBA",
        };
        let found = format!("a {}-bit {kind} PNG", self.depth as u8);
        ImageError::Layout { path: path.to_owned(), expected, found }
    }
}

/// Samples of 1, 2, 4 or 8 bits, one a byte. Yields the row's padding too.
fn unpack(row: &[u8], depth: BitDepth) -> impl Iterator<Item = u8> {
    let bits = (depth as u8).min(8);
    let mask = u8::MAX >> (8 - bits);
    row.iter()
        .flat_map(move |&byte| (1..=8 / bits).map(move |place| (byte >> (8 - place * bits)) & mask))
}

fn corrupt(path: &Path, reason: String) -> ImageError {
    ImageError::Corrupt { path: path.to_owned(), format: Format::Png, reason }
}

fn failure(error: DecodingError, bytes: usize, path: &Path) -> ImageError {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated {
                path: path.to_owned(),
                format: Format::Png,
                bytes,
                at: "before its last row".to_owned(),
            }
        }
        error => corrupt(path, error.to_string()),
    }
}
