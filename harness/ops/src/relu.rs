//! The rectified linear unit.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::simd;
use crate::storage::{Values, contiguous_f32, elements, filled, tensor};

/// Values a task takes.
const TASK: usize = 1 << 15;

/// `max(x, 0)` of every element, in the dtype of `x`; the gradient at 0 is 0, as in PyTorch.
///
/// # Errors
/// If the device fails, or `x` is not of a floating type.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.relu();
    }
    contiguous_f32(x)?.apply_op1(Relu)?.to_dtype(x.dtype())
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let from = elements(x, layout)?;
        // SAFETY: the chunks cover the buffer, and the kernel writes each whole.
        let values = unsafe {
            filled(from.len(), |to| {
                to.par_chunks_mut(TASK)
                    .zip(from.par_chunks(TASK))
                    .for_each(|(to, from)| simd::relu_into(from, to));
            })
        };
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = contiguous_f32(gradient)?;
        let (result, gradient) = (Values::lock(result), Values::lock(&gradient));
        let (result, gradient) = (result.slice()?, gradient.slice()?);
        // SAFETY: the chunks cover the buffer, and the kernel writes each whole.
        let values = unsafe {
            filled(gradient.len(), |to| {
                to.par_chunks_mut(TASK)
                    .zip(gradient.par_chunks(TASK).zip(result.par_chunks(TASK)))
                    .for_each(|(to, (gradient, result))| {
                        simd::where_positive(result, gradient, to);
                    });
            })
        };
        tensor(values, x.dims()).map(Some)
    }
}
