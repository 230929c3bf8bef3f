//! The exact Gaussian error linear unit.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::storage::{Values, contiguous_f32, filled, fusable, tensor};
use crate::{compose, simd};

/// Values a task takes: small enough to share the work, large enough for its cost to vanish.
const TASK: usize = 1 << 15;

/// GELU, `x/2 (1 + erf(x / sqrt 2))` (Hendrycks and Gimpel, arXiv 1606.08415), of every element.
///
/// Any shape; computed in f32 and returned in the dtype of `x`. The absolute error before that rounding is
/// at most 1e-6 times the larger of 1 and |x|.
///
/// # Errors
/// If the device fails, or `x` is not of a floating type.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::tokens::activate(x, crate::Activation::Gelu)? {
        return Ok(y);
    }
    if !fusable(&[x]) {
        return compose::gelu(x);
    }
    let wide = contiguous_f32(x)?;
    let values = Values::lock(&wide);
    let from = values.slice()?;
    // SAFETY: the chunks cover the buffer, and the kernel writes each whole.
    let data = unsafe {
        filled(from.len(), |to| {
            to.par_chunks_mut(TASK)
                .zip(from.par_chunks(TASK))
                .for_each(|(to, from)| simd::gelu_into(from, to));
        })
    };
    tensor(data, x.dims())?.to_dtype(x.dtype())
}
