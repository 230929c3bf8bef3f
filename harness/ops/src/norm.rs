//! Layer normalisation.

use candle_core::{Result, Tensor, bail};
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
    if !fusable(&[x, weight, bias]) {
        return compose::layer_norm(x, weight, bias, eps);
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
    tensor(data, x.dims())
}
