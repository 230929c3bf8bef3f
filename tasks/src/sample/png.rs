//! Writing PNG.

use png::{BitDepth, ColorType, Compression, EncodingError};

/// What the samples of a PNG are.
pub(super) enum Pixels<'a> {
    /// `[height, width, 3]`.
    Rgb(&'a [u8]),
    /// `[height, width]`.
    Grey(&'a [u8]),
    /// `[height, width]`, 16-bit.
    Grey16(&'a [u16]),
    /// `[height, width]`, shown in the 256 colours of Pascal VOC.
    VocPalette(&'a [u8]),
}

/// Encodes a picture of `width` x `height`.
///
/// # Errors
///
/// Where the number of samples does not fit the size.
pub(super) fn encode(
    width: usize,
    height: usize,
    pixels: &Pixels,
) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_compression(Compression::Balanced);
    let wide;
    let (colour, depth, data) = match pixels {
        Pixels::Rgb(data) => (ColorType::Rgb, BitDepth::Eight, *data),
        Pixels::Grey(data) => (ColorType::Grayscale, BitDepth::Eight, *data),
        Pixels::VocPalette(data) => {
            encoder.set_palette(voc_palette());
            (ColorType::Indexed, BitDepth::Eight, *data)
        }
        Pixels::Grey16(data) => {
            wide = data.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<_>>();
            (ColorType::Grayscale, BitDepth::Sixteen, &wide[..])
        }
    };
    encoder.set_color(colour);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(data)?;
    writer.finish()?;
    Ok(bytes)
}

/// The colour map of the Pascal VOC development kit: the bits of the index are dealt out to red,
/// green and blue in turn, each from its highest bit down.
fn voc_palette() -> Vec<u8> {
    (0..=255_u8)
        .flat_map(|index| {
            [0, 1, 2].map(|channel| {
                (0..8).fold(0, |value: u8, step| {
                    let shift = 3 * step + channel;
                    let bit = if shift < 8 { index >> shift & 1 } else { 0 };
                    value | bit << (7 - step)
                })
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_voc_palette_has_its_known_colours() {
        let palette = voc_palette();
        let colour = |index: usize| &palette[3 * index..3 * index + 3];
        assert_eq!(colour(0), [0, 0, 0]);
        assert_eq!(colour(1), [128, 0, 0]);
        assert_eq!(colour(15), [192, 128, 128]);
        assert_eq!(colour(20), [0, 64, 128]);
        assert_eq!(colour(255), [224, 224, 192]);
    }

    #[test]
    fn sixteen_bits_survive_and_a_wrong_size_is_refused() {
        let data = [0_u16, 1, 256, 65535, 4000, 12345];
        let bytes = encode(3, 2, &Pixels::Grey16(&data)).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut raw = vec![0; 12];
        reader.next_frame(&mut raw).unwrap();
        let read: Vec<u16> =
            raw.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        assert_eq!(read, data);
        assert!(encode(4, 2, &Pixels::Grey16(&data)).is_err());
    }
}
