//! Depth of pixels: grouped SiLog and metres on a GPU.

use candle_core::{Result, Tensor};

use crate::entropy::{DeviceLoss, check_groups};

/// SiLog of logits `[B, 1, h, w]`, resized (bilinear, corners aligned) to `metres` `[B, H, W]` f32: with
/// prediction p = sigmoid(logit) x most and d = log metres - log max(p, least), sqrt(mean(d^2) -
/// mean(d)^2 / 2) over pixels with least <= metres <= most of each of `groups` runs of samples, averaged over
/// the groups that have such a pixel (NaN if none has). `range` is `[least, most]`.
///
/// Made by kernels of a GPU without waiting for it; none unless the tensors are on one GPU.
///
/// # Errors
/// If the shapes do not fit, or the GPU refuses.
pub fn silog(
    logits: &Tensor,
    metres: &Tensor,
    range: [f64; 2],
    groups: usize,
) -> Result<Option<DeviceLoss>> {
    check_groups("silog", logits, metres, groups)?;
    #[cfg(feature = "cuda")]
    {
        crate::cuda::losses::silog(logits, metres, range.map(|metres| metres as f32), groups)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = range;
        Ok(None)
    }
}

/// Metres, sigmoid x `most`, of logits `[B, 1, h, w]` resized as in [`silog`] to `(H, W)`: `[B, 1, H, W]` f32
/// without a graph; none where [`silog`] is none.
///
/// # Errors
/// If the GPU refuses.
pub fn resized_depth(logits: &Tensor, size: (usize, usize), most: f64) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    {
        crate::cuda::losses::depth(logits, size, most as f32)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (logits, size, most);
        Ok(None)
    }
}
