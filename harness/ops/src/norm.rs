//! Layer normalisation.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::storage::{Values, contiguous_f32, filled, fusable, tensor};
use crate::{compose, simd};

/// Values a task takes, rounded up to whole rows.
const TASK: usize = 1 << 15;

/// Layer normalisation (Ba et al., arXiv 1607.06450) of the last dimension:
/// `(x - mean) / sqrt(variance + eps) * weight + bias`, with the biased variance.
///
/// `x` is `[.., D]`, `weight` and `bias` are `[D]`; any floating dtype. The result is f32 `[.., D]`, and so
/// are the statistics.
///
/// # Errors
/// If the shapes do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    layer_norm_as(x, weight, bias, eps, DType::F32)
}

/// [`layer_norm`], its result rounded to `dtype`: the same bits as rounding it afterwards. For what only feeds
/// products in that dtype.
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_norm_as(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dtype: DType,
) -> Result<Tensor> {
    let Some(&width) = x.dims().last() else {
        bail!("layer_norm: expected an input [.., D], found a scalar");
    };
    if width == 0 || weight.dims() != [width] || bias.dims() != [width] {
        bail!(
            "layer_norm: expected weight and bias [{width}] of at least one element for input {:?}, \
             found {:?} and {:?}",
            x.dims(),
            weight.dims(),
            bias.dims()
        );
    }
    #[cfg(feature = "cuda")]
    {
        use crate::cuda::tokens::{Norm, layer_norm};
        if let Some(y) = layer_norm(x, Norm { weight, bias, eps }, dtype)? {
            return Ok(y);
        }
    }
    if !fusable(&[x, weight, bias]) {
        return compose::layer_norm(x, weight, bias, eps)?.to_dtype(dtype);
    }
    let (wide, weight, bias) = (contiguous_f32(x)?, contiguous_f32(weight)?, contiguous_f32(bias)?);
    let (values, weight, bias) = (Values::lock(&wide), Values::lock(&weight), Values::lock(&bias));
    let (from, weight, bias) = (values.slice()?, weight.slice()?, bias.slice()?);
    let task = TASK.div_ceil(width) * width;
    // SAFETY: the chunks are whole rows and cover the buffer, and the kernel writes each row whole.
    let data = unsafe {
        filled(from.len(), |to| {
            to.par_chunks_mut(task)
                .zip(from.par_chunks(task))
                .for_each(|(to, from)| simd::layer_norm_rows(from, weight, bias, eps, to));
        })
    };
    tensor(data, x.dims())?.to_dtype(dtype)
}
