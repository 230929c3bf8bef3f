//! Frames as an animated PNG.

use png::{BlendOp, DisposeOp};

use super::layout::Rect;

/// An animated PNG (8-bit RGB) of `frames`, `height * width * 3` bytes each, at least one. Each is shown
/// for `delay` seconds as a fraction, the last for a second; the whole `plays` times, 0 without end.
/// After the first, only what changes is kept.
pub(crate) fn animated(
    (height, width): (usize, usize),
    frames: &[&[u8]],
    delay: (u16, u16),
    plays: u32,
) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_animated(frames.len() as u32, plays)?;
    encoder.set_frame_delay(delay.0, delay.1)?;
    encoder.set_blend_op(BlendOp::Source)?;
    encoder.set_dispose_op(DisposeOp::None)?;
    let mut writer = encoder.write_header()?;
    let mut shown: Option<&[u8]> = None;
    for (at, frame) in frames.iter().enumerate() {
        if at + 1 == frames.len() {
            writer.set_frame_delay(1, 1)?;
        }
        match shown {
            None => writer.write_image_data(frame)?,
            Some(shown) => {
                let Rect { x, y, width: wide, height: high } = changed(shown, frame, width);
                // Back to the corner first: a place is checked against the size of the frame before.
                writer.reset_frame_position()?;
                writer.set_frame_dimension(wide as u32, high as u32)?;
                writer.set_frame_position(x as u32, y as u32)?;
                let rows = frame.chunks_exact(3 * width).skip(y).take(high);
                let part: Vec<u8> =
                    rows.flat_map(|row| &row[3 * x..3 * (x + wide)]).copied().collect();
                writer.write_image_data(&part)?;
            }
        }
        shown = Some(frame);
    }
    writer.finish()?;
    Ok(bytes)
}

/// The smallest rectangle with every pixel that differs; one pixel where none does.
fn changed(before: &[u8], after: &[u8], width: usize) -> Rect {
    let rows = before.chunks_exact(3 * width).zip(after.chunks_exact(3 * width)).enumerate();
    let (mut top, mut bottom, mut left, mut right) = (usize::MAX, 0, usize::MAX, 0);
    for (y, (before, after)) in rows.filter(|(_, (before, after))| before != after) {
        (top, bottom) = (top.min(y), y);
        let pixels = before.chunks_exact(3).zip(after.chunks_exact(3));
        let differs: Vec<bool> = pixels.map(|(before, after)| before != after).collect();
        left = left.min(differs.iter().position(|&differs| differs).unwrap_or(left));
        right = right.max(differs.iter().rposition(|&differs| differs).unwrap_or(right));
    }
    match top {
        usize::MAX => Rect { x: 0, y: 0, width: 1, height: 1 },
        _ => Rect { x: left, y: top, width: right - left + 1, height: bottom - top + 1 },
    }
}

/// At most `most` of `count` places, evenly spread, with both ends where there are two or more.
pub(crate) fn evenly(count: usize, most: usize) -> Vec<usize> {
    match count <= most || most < 2 {
        true => (0..count.min(most)).collect(),
        false => (0..most).map(|i| (i * (count - 1) + (most - 1) / 2) / (most - 1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_evenly_spread_with_both_ends() {
        assert_eq!(evenly(5, 8), [0, 1, 2, 3, 4]);
        assert_eq!(evenly(15, 8), [0, 2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(evenly(501, 3), [0, 250, 500]);
        assert_eq!(evenly(9, 1), [0]);
        assert!(evenly(0, 8).is_empty());
        for count in 8..200 {
            let places = evenly(count, 8);
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{count}: {places:?}");
            assert_eq!((places[0], places[7]), (0, count - 1));
        }
    }

    #[test]
    fn only_what_changes_is_told() {
        let before = vec![0; 4 * 5 * 3];
        let mut after = before.clone();
        let told = |after: &[u8]| {
            let Rect { x, y, width, height } = changed(&before, after, 5);
            (x, y, width, height)
        };
        assert_eq!(told(&after), (0, 0, 1, 1));
        after[(5 + 2) * 3 + 1] = 9;
        assert_eq!(told(&after), (2, 1, 1, 1));
        after[(3 * 5 + 4) * 3] = 9;
        assert_eq!(told(&after), (2, 1, 3, 3));
    }
}
