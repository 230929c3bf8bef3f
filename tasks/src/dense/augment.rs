//! Training crops: rescale, pad, crop, flip.

use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis, s};
use schema::SampleStage;

use super::{DenseError, Draw, IGNORE, Target};
use crate::image::{Region, resize_region};

/// The size `(height, width)` at which the longer side of an image is `long_side`: the shorter is
/// `short * long_side / long`, rounded half up (PROTOCOL section 4), at least 1.
pub fn rescaled(height: usize, width: usize, long_side: usize) -> (usize, usize) {
    let (short, long) = (height.min(width), height.max(width));
    let short = if long == 0 {
        0
    } else {
        // In floating point, as the published code rounds.
        ((short as f64 * long_side as f64 / long as f64 + 0.5) as usize).max(1)
    };
    if height > width { (long_side, short) } else { (short, long_side) }
}

/// Resizes `[H, W]` to `[height, width]` by Pillow's nearest neighbour: for masks, whose values
/// are not to be mixed. An empty map gives an empty one.
pub fn resize_nearest<T: Copy>(map: ArrayView2<'_, T>, height: usize, width: usize) -> Array2<T> {
    if map.is_empty() {
        return map.to_owned();
    }
    let (rows, columns) = (nearest(map.nrows(), height), nearest(map.ncols(), width));
    Array2::from_shape_fn((height, width), |(row, column)| map[[rows[row], columns[column]]])
}

/// For each output of one axis its input. Pillow adds the scale up in double precision and
/// truncates, so that some pixels differ from `floor((i + 0.5) * scale)`.
fn nearest(input: usize, output: usize) -> Vec<usize> {
    let scale = input as f64 / output as f64;
    let mut position = scale * 0.5;
    let mut inputs = Vec::with_capacity(output);
    for _ in 0..output {
        inputs.push((position as usize).min(input.saturating_sub(1)));
        position += scale;
    }
    inputs
}

/// Makes the training crop that `draw` describes from a loaded pair: `[crop, crop, 3]` and
/// `[crop, crop]`, not normalised yet.
///
/// With a `long_side`, the image is resized by bicubic and the target by nearest neighbour first.
/// Images with labels that are smaller than the crop are padded right and below, the image with 0
/// (black, before normalisation) and the labels with [`IGNORE`]; depth is not padded. `file` is the
/// image's path, for messages.
///
/// # Errors
///
/// [`DenseError::TooSmall`] for depth smaller than the crop, [`DenseError::CropOutside`] for a draw
/// that was made for another image.
pub fn train_sample(
    file: &Path,
    image: ArrayView3<'_, u8>,
    target: &Target,
    draw: &Draw,
    stage: &SampleStage,
) -> Result<(Array3<u8>, Target), DenseError> {
    let (image_height, image_width, _) = image.dim();
    let (height, width) = draw.long_side.map_or((image_height, image_width), |long_side| {
        rescaled(image_height, image_width, long_side)
    });
    let crop = stage.crop;
    if matches!(target, Target::Depth(_)) && (height < crop || width < crop) {
        return Err(DenseError::TooSmall { file: file.to_owned(), height, width, crop });
    }
    let (padded_height, padded_width) = (height.max(crop), width.max(crop));
    let fits = |from: usize, length: usize| from <= length - crop;
    if !fits(draw.top, padded_height) || !fits(draw.left, padded_width) {
        return Err(DenseError::CropOutside {
            file: file.to_owned(),
            height: padded_height,
            width: padded_width,
            crop,
            top: draw.top,
            left: draw.left,
        });
    }
    let window = Window {
        rows: draw.top..(draw.top + crop).min(height),
        columns: draw.left..(draw.left + crop).min(width),
        crop,
        flip: draw.flip,
    };
    let size = (height, width);
    let pixels = if size == (image_height, image_width) {
        window.pixels(image)
    } else {
        window.resized(image, size)
    };
    let target = match target {
        Target::Depth(depth) => Target::Depth(window.values(depth.view(), size, 0.0)),
        Target::Labels(labels) => Target::Labels(window.values(labels.view(), size, IGNORE)),
    };
    Ok((pixels, target))
}

/// The part of a rescaled image that is inside the crop, and what becomes of it.
struct Window {
    rows: Range<usize>,
    columns: Range<usize>,
    crop: usize,
    flip: bool,
}

impl Window {
    /// The crop of an image that is rescaled to `size` on the way, with the work for the crop alone.
    fn resized(&self, image: ArrayView3<'_, u8>, (height, width): (usize, usize)) -> Array3<u8> {
        let region = Region {
            top: self.rows.start,
            left: self.columns.start,
            height: self.rows.len(),
            width: self.columns.len(),
        };
        self.placed(resize_region(image, height, width, region).view())
    }

    /// The crop of an image of its own size.
    fn pixels(&self, image: ArrayView3<'_, u8>) -> Array3<u8> {
        self.placed(image.slice(s![self.rows.clone(), self.columns.clone(), ..]))
    }

    fn placed(&self, inside: ArrayView3<'_, u8>) -> Array3<u8> {
        let mut out = Array3::zeros((self.crop, self.crop, inside.dim().2));
        let mut drawn = out.view_mut();
        if self.flip {
            drawn.invert_axis(Axis(1));
        }
        drawn.slice_mut(s![..self.rows.len(), ..self.columns.len(), ..]).assign(&inside);
        out
    }

    /// The crop of a map that is rescaled to `size` on the way, for the pixels of the crop alone.
    fn values<T: Copy>(&self, map: ArrayView2<'_, T>, size: (usize, usize), fill: T) -> Array2<T> {
        let mut out = Array2::from_elem((self.crop, self.crop), fill);
        if map.is_empty() {
            return out;
        }
        let (rows, columns) = (nearest(map.nrows(), size.0), nearest(map.ncols(), size.1));
        let mut drawn = out.view_mut();
        if self.flip {
            drawn.invert_axis(Axis(1));
        }
        for (mut line, &row) in drawn.rows_mut().into_iter().zip(&rows[self.rows.clone()]) {
            for (value, &column) in line.iter_mut().zip(&columns[self.columns.clone()]) {
                *value = map[[row, column]];
            }
        }
        out
    }
}
