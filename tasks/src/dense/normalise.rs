//! From bytes to the encoder's numbers.

use ndarray::{ArrayView3, Axis};
use schema::SampleStage;

use super::TargetForm;
use crate::image;

/// Writes `[H, W, 3]` bytes as `[3, H, W]` floats, `(x / 255 - mean) / std`, to the last bit as the
/// published code of each task does: for segmentation in single precision, rounding every
/// operation, for depth in double precision, rounding the result (they differ by up to 1.2e-7).
///
/// # Panics
/// When `out` does not hold exactly 3 H W values.
pub fn normalise_into(
    image: ArrayView3<'_, u8>,
    form: TargetForm,
    stage: &SampleStage,
    out: &mut [f32],
) {
    if matches!(form, TargetForm::Labels { .. }) {
        return image::normalise_into(image, stage.mean, stage.std, out);
    }
    let (height, width, channels) = image.dim();
    assert_eq!(channels, 3, "an RGB image has three channels");
    assert_eq!(out.len(), 3 * height * width, "the output holds one value a sample");
    for channel in 0..channels {
        let (mean, std) = (as_written(stage.mean[channel]), as_written(stage.std[channel]));
        let table: [f32; 256] = std::array::from_fn(|x| ((x as f64 / 255.0 - mean) / std) as f32);
        let plane = &mut out[channel * height * width..][..height * width];
        for (&value, target) in image.index_axis(Axis(2), channel).iter().zip(plane) {
            *target = table[usize::from(value)];
        }
    }
}

/// The double that the same decimal gives: 0.485 for the single next to it, and not its other
/// digits.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
