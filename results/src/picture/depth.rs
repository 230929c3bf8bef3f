//! Pictures of depth.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Zip};

use super::canvas::Canvas;
use super::layout::Layout;
use super::scale::{ColourMap, Scale, magma, viridis};
use super::{PictureError, Rgb, common_size, sample};

/// No measurement.
pub(super) const MISSING: Rgb = [190, 190, 190];
/// A prediction that is no number: a colour of neither map.
pub(super) const NOT_FINITE: Rgb = [255, 0, 200];

/// One image and its depths.
#[derive(Clone, Copy, Debug)]
pub struct DepthPicture<'a> {
    /// First line, bold; shortened in its middle where it is wider than the picture.
    pub title: &'a str,
    /// Second line, such as this image's metrics; may be empty.
    pub caption: &'a str,
    /// The image `[H, W, 3]`, sRGB.
    pub image: ArrayView3<'a, u8>,
    /// Measured depth `[H, W]` in metres; not finite, not positive or outside `range`: none.
    pub truth: ArrayView2<'a, f32>,
    /// Predicted depth `[H, W]` in metres.
    pub prediction: ArrayView2<'a, f32>,
    /// The depths that the protocol evaluates, in metres, both ends included.
    pub range: (f64, f64),
}

/// The picture as PNG.
///
/// Truth and prediction share one scale (viridis), over the measured depths up to round numbers;
/// predictions beyond have the colours of its ends, marked with ≤ and ≥. The error is
/// |prediction - truth| in metres where there is truth (magma), from 0 to the 99th percentile up to
/// a round number. Pixels without measurement are grey; predictions that are not finite are magenta.
/// Without any measurement the scale is over the predictions.
///
/// # Errors
///
/// An image that is empty or not RGB, a map of another size, or an empty range.
pub fn depth(picture: &DepthPicture<'_>) -> Result<Vec<u8>, PictureError> {
    let &DepthPicture { image, truth, prediction, range: (low, high), .. } = picture;
    let maps = [("truth", truth.dim()), ("prediction", prediction.dim())];
    let (height, width) = common_size(&image, maps)?;
    // Also where either end is NaN.
    if !(low < high && high > 0.0) {
        return Err(PictureError::Range { low, high });
    }
    let truth = truth.mapv(|depth| {
        let metres = f64::from(depth);
        let valid = depth > 0.0 && metres.is_finite() && metres >= low && metres <= high;
        if valid { depth } else { f32::NAN }
    });
    let finite = prediction.mapv(|depth| if depth.is_finite() { depth } else { f32::NAN });
    let error = Zip::from(&truth).and(&finite).map_collect(|truth, depth| (depth - truth).abs());
    let no_number = finite.mapv(|depth| f32::from(u8::from(depth.is_nan())));
    let no_error = Zip::from(&truth)
        .and(&no_number)
        .map_collect(|truth, &bad| if truth.is_nan() { 0.0 } else { bad });

    let depths = depth_scale(&truth, &finite, (low, high));
    let errors = Scale::over(0.0, percentile_99(&error).unwrap_or(1.0).max(0.01));
    let beyond = |map: &Array2<f32>, scale: &Scale| {
        let values = || map.iter().map(|&value| f64::from(value));
        (values().any(|v| v < scale.low() - 1e-6), values().any(|v| v > scale.high() + 1e-6))
    };

    let layout = Layout::of(height, width);
    let mut keys = Vec::new();
    if truth.iter().any(|depth| depth.is_nan()) {
        keys.push((MISSING, "no measurement"));
    }
    if no_number.iter().any(|&bad| bad > 0.0) {
        keys.push((NOT_FINITE, "not a finite depth"));
    }
    let mut canvas = Canvas::with_head(
        &layout,
        layout.depth_height(keys.len()),
        picture.title,
        picture.caption,
    )?;
    let [input, first, second, third] = layout.panels;
    let size = (input.height, input.width);
    let nothing = Array2::zeros((height, width));
    canvas.panel(input, sample::image(image, size).view());
    let shown = [
        (first, &truth, &nothing, &depths, viridis as ColourMap),
        (second, &finite, &no_number, &depths, viridis),
        (third, &error, &no_error, &errors, magma),
    ];
    for (place, map, bad, scale, colours) in shown {
        let values = sample::mean(map.view(), size);
        let bad = sample::mean(bad.view(), size);
        let pixels = Array3::from_shape_fn((size.0, size.1, 3), |(y, x, channel)| {
            let value = values[[y, x]];
            let colour = if bad[[y, x]] > 0.0 {
                NOT_FINITE
            } else if value.is_nan() {
                MISSING
            } else {
                colours(scale.position(f64::from(value)))
            };
            colour[channel]
        });
        canvas.panel(place, pixels.view());
    }
    let title =
        if layout.one_row { "depth in metres" } else { "depth in metres, truth and prediction" };
    canvas.bar(layout.depth_bar(), &depths, viridis, title, beyond(&finite, &depths));
    let title = "absolute error in metres";
    canvas.bar(layout.error_bar(), &errors, magma, title, beyond(&error, &errors));
    let (x, top) = layout.depth_keys();
    for (line, (colour, meaning)) in keys.into_iter().enumerate() {
        canvas.key((x, top + line * layout.ems(1.5)), colour, meaning);
    }
    canvas.png()
}

/// Over the measured depths, else the predicted ones that would count, else the range.
fn depth_scale(truth: &Array2<f32>, finite: &Array2<f32>, (low, high): (f64, f64)) -> Scale {
    let extent = |map: &Array2<f32>| {
        let inside = map.iter().map(|&v| f64::from(v)).filter(|v| (low..=high).contains(v));
        inside.fold(None, |extent: Option<(f64, f64)>, v| {
            Some(extent.map_or((v, v), |(least, most)| (least.min(v), most.max(v))))
        })
    };
    let range = (low.max(0.0), if high.is_finite() { high } else { low.max(0.0) + 1.0 });
    let (least, most) = extent(truth).or_else(|| extent(finite)).unwrap_or(range);
    Scale::over(least, most)
}

fn percentile_99(map: &Array2<f32>) -> Option<f64> {
    let mut values: Vec<f32> = map.iter().copied().filter(|value| !value.is_nan()).collect();
    let rank = (values.len() * 99).div_ceil(100).checked_sub(1)?;
    let (_, &mut value, _) = values.select_nth_unstable_by(rank, f32::total_cmp);
    Some(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_percentile_leaves_out_the_worst_hundredth() {
        let map = Array2::from_shape_fn((2, 100), |(y, x)| (y * 100 + x) as f32);
        assert_eq!(percentile_99(&map), Some(197.0));
        assert_eq!(percentile_99(&array![[f32::NAN, 3.0]]), Some(3.0));
        assert_eq!(percentile_99(&array![[f32::NAN]]), None);
    }

    #[test]
    fn the_scale_follows_the_truth_then_the_prediction_then_the_range() {
        let none = array![[f32::NAN, f32::NAN]];
        let ends = |scale: Scale| (scale.low(), scale.high());
        let range = (0.001, 10.0);
        assert_eq!(ends(depth_scale(&array![[1.2, 3.4]], &none, range)), (1.0, 3.5));
        assert_eq!(
            ends(depth_scale(&none, &array![[2.0, 99.0]], range)),
            ends(Scale::over(2.0, 2.0))
        );
        assert_eq!(ends(depth_scale(&none, &none, range)), (0.0, 10.0));
        assert_eq!(ends(depth_scale(&none, &none, (0.0, f64::INFINITY))), (0.0, 1.0));
    }
}
