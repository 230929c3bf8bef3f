//! Other sizes of images and maps.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3};

/// The pixels of `0..from` that pixel `index` of `0..to` covers, with how much of each, in `to`-ths.
fn covered(index: usize, from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let (start, end) = (index * from, (index + 1) * from);
    (start / to..end.div_ceil(to))
        .map(move |pixel| (pixel, end.min((pixel + 1) * to) - start.max(pixel * to)))
}

/// Each pixel is the mean of what it covers, without NaN; NaN where it covers nothing else.
pub(super) fn mean(map: ArrayView2<'_, f32>, (height, width): (usize, usize)) -> Array2<f32> {
    let (rows, columns) = map.dim();
    Array2::from_shape_fn((height, width), |(y, x)| {
        let (mut sum, mut weights) = (0.0, 0);
        for (row, high) in covered(y, rows, height) {
            for (column, wide) in covered(x, columns, width) {
                let value = map[[row, column]];
                if !value.is_nan() {
                    sum += f64::from(value) * (high * wide) as f64;
                    weights += high * wide;
                }
            }
        }
        if weights == 0 { f32::NAN } else { (sum / weights as f64) as f32 }
    })
}

/// The mean of each channel.
pub(super) fn image(image: ArrayView3<'_, u8>, (height, width): (usize, usize)) -> Array3<u8> {
    let (rows, columns, channels) = image.dim();
    Array3::from_shape_fn((height, width, channels), |(y, x, channel)| {
        let (mut sum, mut weights) = (0, 0);
        for (row, high) in covered(y, rows, height) {
            for (column, wide) in covered(x, columns, width) {
                sum += usize::from(image[[row, column, channel]]) * high * wide;
                weights += high * wide;
            }
        }
        ((sum + weights / 2) / weights.max(1)) as u8
    })
}

/// The pixel under the middle of each.
pub(super) fn nearest(labels: ArrayView2<'_, u8>, (height, width): (usize, usize)) -> Array2<u8> {
    let (rows, columns) = labels.dim();
    Array2::from_shape_fn((height, width), |(y, x)| {
        labels[[(2 * y + 1) * rows / (2 * height), (2 * x + 1) * columns / (2 * width)]]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn means_weigh_by_area_and_leave_out_what_is_missing() {
        let map = array![[0.0, 3.0, 6.0], [f32::NAN, f32::NAN, 9.0]];
        let shrunk = mean(map.view(), (2, 2));
        assert_eq!(shrunk.row(0).to_vec(), [1.0, 5.0], "2/3 of one and 1/3 of the next");
        assert!(shrunk[[1, 0]].is_nan());
        assert_eq!(shrunk[[1, 1]], 9.0);
        assert_eq!(mean(map.view(), (1, 1))[[0, 0]], 4.5);
    }

    #[test]
    fn enlarged_maps_repeat_their_pixels() {
        let map = array![[1.0_f32, 2.0]];
        assert_eq!(mean(map.view(), (2, 4)), array![[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]);
        assert_eq!(nearest(array![[1, 2]].view(), (1, 6)), array![[1, 1, 1, 2, 2, 2]]);
    }

    #[test]
    fn labels_are_never_mixed() {
        let labels = array![[0, 9, 0, 9, 0]];
        assert_eq!(nearest(labels.view(), (1, 1)), array![[0]]);
        assert_eq!(nearest(labels.view(), (1, 3)), array![[0, 0, 0]]);
    }

    #[test]
    fn images_are_averaged_by_channel() {
        let pixels = array![[[0, 10, 255], [1, 30, 255]]];
        assert_eq!(image(pixels.view(), (1, 1)), array![[[1, 20, 255]]]);
    }
}
