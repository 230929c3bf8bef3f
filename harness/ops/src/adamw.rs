//! AdamW on a GPU, and the norm of gradients.

use candle_core::{DType, Result, Tensor};

/// The scalars of one step of AdamW, which changes each parameter p with gradient g and moments m and v in
/// this order of operations (PyTorch's), each rounded to f32:
///
/// ```text
/// m += first_weight (g - m)
/// v = v second_keep + second_weight g g
/// p = p keep + step m / (sqrt(v) / correction + eps)
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AdamwStep {
    /// 1 - rate x weight decay.
    pub keep: f32,
    /// 1 - beta1.
    pub first_weight: f32,
    /// beta2.
    pub second_keep: f32,
    /// 1 - beta2.
    pub second_weight: f32,
    /// -rate / (1 - beta1^n) at step n.
    pub step: f32,
    /// sqrt(1 - beta2^n).
    pub correction: f32,
    /// Added to the root.
    pub eps: f32,
}

/// Takes a step with many parameters at once, each given as value, first moment, second moment and gradient,
/// all f32 of one shape and contiguous; the first three are changed in place. Nothing is changed where
/// `guard`, one f32, is given and not finite; it is not waited for.
///
/// Returns whether it was done: not unless all is on one GPU.
///
/// # Errors
/// If the GPU refuses, or shapes do not fit.
pub fn adamw(
    step: &AdamwStep,
    parameters: &[[&Tensor; 4]],
    guard: Option<&Tensor>,
) -> Result<bool> {
    #[cfg(feature = "cuda")]
    {
        crate::cuda::adamw::step(step, parameters, guard)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (step, parameters, guard);
        Ok(false)
    }
}

/// The L2 norm over f32 tensors as one f32 on their device, which is not waited for; 0 of none. Squares are
/// summed in f32 by tensor (on a GPU by 4096 elements) and in f64 over them.
///
/// # Errors
/// If a tensor operation fails.
pub fn norm_of(tensors: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = tensors.first() else {
        return Tensor::new(0_f32, &candle_core::Device::Cpu);
    };
    #[cfg(feature = "cuda")]
    if let Some(norm) = crate::cuda::adamw::norm(tensors)? {
        return Ok(norm);
    }
    let sum = |tensor: &&Tensor| tensor.detach().contiguous()?.sqr()?.sum_all();
    let sums = tensors.iter().map(sum).collect::<Result<Vec<_>>>()?;
    let total = Tensor::stack(&sums, 0)?.to_dtype(DType::F64)?.sum_all()?;
    total.sqrt()?.to_dtype(DType::F32)?.to_device(first.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_norm_is_that_of_all_tensors_joined() {
        let a = Tensor::new(&[[3_f32, 0.0], [0.0, -4.0]], &Device::Cpu).unwrap();
        let b = Tensor::new(&[12_f32], &Device::Cpu).unwrap();
        assert_eq!(norm_of(&[&a.t().unwrap(), &b]).unwrap().to_scalar::<f32>().unwrap(), 13.0);
        assert_eq!(norm_of(&[]).unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
}
