//! From decoded pixels to encoder input: the shorter side, the centre crop, normalisation.

use ndarray::{Array3, ArrayView3, s};
use schema::ImageStage;

use super::resize::{Region, resize, resize_region};

/// The size `(height, width)` at which the shorter side of an `h` x `w` image is `size`; the longer
/// is `size * long / short`, truncated. Both stay as they are for an empty image.
pub fn shorter_side(h: usize, w: usize, size: usize) -> (usize, usize) {
    let (short, long) = (h.min(w), h.max(w));
    if short == 0 {
        return (h, w);
    }
    let long = (size as u128 * long as u128 / short as u128) as usize;
    if h <= w { (size, long) } else { (long, size) }
}

/// The central `size` x `size` pixels of `[H, W, 3]`; offsets are half the margin, halves rounded to
/// even. A smaller image is first padded with zeros, the odd pixel right and below, as torchvision
/// does.
pub fn center_crop(image: ArrayView3<'_, u8>, size: usize) -> Array3<u8> {
    let (height, width, channels) = image.dim();
    let (rows, columns) = (Span::new(height, size), Span::new(width, size));
    let mut out = Array3::zeros((size, size, channels));
    out.slice_mut(s![rows.to..rows.to + rows.length, columns.to..columns.to + columns.length, ..])
        .assign(&image.slice(s![
            rows.from..rows.from + rows.length,
            columns.from..columns.from + columns.length,
            ..
        ]));
    out
}

/// Which pixels of one axis end up where in the crop.
struct Span {
    from: usize,
    to: usize,
    length: usize,
}

impl Span {
    fn new(have: usize, want: usize) -> Self {
        if have < want {
            return Self { from: 0, to: (want - have) / 2, length: have };
        }
        let margin = have - want;
        // Half of an odd margin lies between two integers: the even one of them.
        let half = margin / 2;
        let from = if margin % 2 == 1 { half + half % 2 } else { half };
        Self { from, to: 0, length: want }
    }
}

/// Resizes the shorter side and crops the centre (PROTOCOL section 2): `[H, W, 3]` to
/// `[crop, crop, 3]`. Only the pixels inside the crop are computed.
pub fn prepare(image: ArrayView3<'_, u8>, stage: &ImageStage) -> Array3<u8> {
    let (h, w, _) = image.dim();
    let (height, width) = shorter_side(h, w, stage.resize);
    let (rows, columns) = (Span::new(height, stage.crop), Span::new(width, stage.crop));
    if rows.length < stage.crop || columns.length < stage.crop {
        return center_crop(resize(image, height, width).view(), stage.crop);
    }
    let region =
        Region { top: rows.from, left: columns.from, height: stage.crop, width: stage.crop };
    resize_region(image, height, width, region)
}

/// Writes `[H, W, 3]` bytes as `[3, H, W]` floats, `(x / 255 - mean) / std` in f32, one rounding an
/// operation as torchvision does.
///
/// # Panics
/// When `out` does not hold exactly 3 H W values.
pub fn normalise_into(image: ArrayView3<'_, u8>, mean: [f32; 3], std: [f32; 3], out: &mut [f32]) {
    let (height, width, channels) = image.dim();
    assert_eq!(channels, 3, "an RGB image has three channels");
    assert_eq!(out.len(), 3 * height * width, "the output holds one value a sample");
    if out.is_empty() {
        return;
    }
    let (red, rest) = out.split_at_mut(height * width);
    let (green, blue) = rest.split_at_mut(height * width);
    let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| {
        std::array::from_fn(|x| (x as f32 / 255.0 - mean[channel]) / std[channel])
    });
    let image = image.as_standard_layout();
    let pixels = image.as_slice().unwrap_or_default().as_chunks::<3>().0;
    for (((&[r, g, b], red), green), blue) in pixels.iter().zip(red).zip(green).zip(blue) {
        *red = tables[0][usize::from(r)];
        *green = tables[1][usize::from(g)];
        *blue = tables[2][usize::from(b)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_truncated() {
        assert_eq!(shorter_side(375, 500, 256), (256, 341));
        assert_eq!(shorter_side(500, 375, 256), (341, 256));
        assert_eq!(shorter_side(7, 7, 256), (256, 256));
        assert_eq!(shorter_side(1, 4000, 256), (256, 1_024_000));
    }

    #[test]
    fn odd_margins_round_to_the_even_offset() {
        let from: Vec<usize> = (256..264).map(|have| Span::new(have, 256).from).collect();
        assert_eq!(from, [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn normalisation_is_planar() {
        let image = Array3::from_shape_fn((2, 3, 3), |(y, x, c)| (y * 9 + x * 3 + c) as u8);
        let mut out = [0.0; 18];
        normalise_into(image.view(), [0.5; 3], [0.25; 3], &mut out);
        assert_eq!(out[6 + 4], (13.0_f32 / 255.0 - 0.5) / 0.25);
    }
}
