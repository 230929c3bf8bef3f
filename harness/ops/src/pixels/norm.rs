//! Batch normalisation of images whose channels lie side by side.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, Storage};

use super::host::wide;
use super::sums::{Blend, ColumnSums, column_sums};
use crate::storage::Values;

/// [`batch_norm_train`](crate::batch_norm_train()) of `[B, H, W, C]`.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let [pixels, channels] = check("batch_norm_train", x, &[weight, bias])?;
    if pixels < 2 {
        bail!("batch_norm_train: expected more than one value per channel, found {:?}", x.dims());
    }
    let wide = |t: &Tensor| t.to_dtype(DType::F32)?.contiguous();
    let (x, weight, bias) = (wide(x)?, wide(weight)?, wide(bias)?);
    let count = pixels as f64;
    let means = (column_sums(&x)? / count)?;
    let squares = x.apply_op2_no_bwd(&means, &ColumnSums)?;
    let inverse = ((&squares / count)? + eps)?.sqrt()?.recip()?;
    let unbiased = (squares / (count - 1.0))?;
    let factor = (weight.detach() * &inverse)?;
    let offset = (bias.detach() - (&means * &factor)?)?;
    let factors = Tensor::stack(&[&factor, &factor, &offset], 0)?;
    let op = BatchNorm { count, channels, means: means.clone(), inverse, factors };
    Ok((x.apply_op3(&weight, &bias, op)?, means, unbiased))
}

/// [`batch_norm_eval`](crate::batch_norm_eval()) of `[B, H, W, C]`; the parameters are weight, bias, mean and
/// variance.
pub(crate) fn batch_norm_eval(x: &Tensor, parameters: [&Tensor; 4], eps: f64) -> Result<Tensor> {
    check("batch_norm_eval", x, &parameters)?;
    let [weight, bias, mean, variance] = parameters.map(|t| t.to_dtype(DType::F32));
    let (weight, bias, mean, variance) = (weight?, bias?, mean?, variance?);
    let factor = (weight / (variance + eps)?.sqrt()?)?;
    let offset = (bias - (mean * &factor)?)?;
    let x = x.to_dtype(DType::F32)?;
    if [&x, &factor, &offset].iter().any(|t| t.track_op()) {
        return x.broadcast_mul(&factor)?.broadcast_add(&offset);
    }
    let factors = Tensor::stack(&[&factor, &factor, &offset], 0)?;
    x.contiguous()?.apply_op2_no_bwd(&factors, &Blend)
}

/// Pixels and channels of `x`, if the parameters fit.
fn check(op: &str, x: &Tensor, parameters: &[&Tensor]) -> Result<[usize; 2]> {
    let &[batch, height, width, channels] = x.dims() else {
        bail!("{op}: expected x [B, H, W, C], found {:?}", x.dims());
    };
    if let Some(other) = parameters.iter().find(|t| t.dims() != [channels]) {
        bail!(
            "{op}: expected parameters [{channels}] for x {:?}, found {:?}",
            x.dims(),
            other.dims()
        );
    }
    Ok([batch * height * width, channels])
}

/// The normalisation of one batch: `x`, the weight and the bias to the result, which their values decide already.
struct BatchNorm {
    /// Pixels of the batch.
    count: f64,
    channels: usize,
    means: Tensor,
    /// `1 / sqrt(variance + eps)`.
    inverse: Tensor,
    /// What the result is of `x`, for [`Blend`].
    factors: Tensor,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let values = Blend::cpu(&wide(x, layout)?, None, Values::lock(&self.factors).slice()?);
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (factors, factors_layout) = self.factors.storage_and_layout();
        match &*factors {
            Storage::Cuda(factors) => {
                crate::cuda::images::blend((x, layout), None, (factors, factors_layout))
            }
            _ => bail!("batch_norm: expected parameters on the device of x"),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let wanted = x.track_op();
        let (x, weight, gradient) = (x.detach(), weight.detach(), gradient.contiguous()?);
        let of_bias = column_sums(&gradient)?;
        let of_weight = (x.apply_op3_no_bwd(&self.means, &gradient, &ColumnSums)? * &self.inverse)?;
        let of_x = || {
            let factor = (&weight * &self.inverse)?;
            let share = (&factor * (-1.0 / self.count))?;
            let slope = ((&share * &of_weight)? * &self.inverse)?;
            let offset = ((&share * &of_bias)? - (&slope * &self.means)?)?;
            let factors = Tensor::stack(&[&factor, &slope, &offset], 0)?;
            gradient.apply_op3_no_bwd(&x, &factors.reshape((3, self.channels))?, &Blend)
        };
        Ok((wanted.then(of_x).transpose()?, Some(of_weight), Some(of_bias)))
    }
}
