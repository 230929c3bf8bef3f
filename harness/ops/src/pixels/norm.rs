//! Batch normalisation of images whose channels lie side by side.

use candle_core::{DType, Result, Tensor, bail};

use super::sums::{Blend, ColumnSums, column_sums};
use crate::batch_norm::Normalised;

/// [`Tape::batch_norm_train`](crate::Tape::batch_norm_train) of `[B, H, W, C]`.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Normalised> {
    let [pixels, channels] = check("batch_norm_train", x, &[weight, bias])?;
    if pixels < 2 {
        bail!("batch_norm_train: expected more than one value per channel, found {:?}", x.dims());
    }
    let wide = |t: &Tensor| t.detach().to_dtype(DType::F32)?.contiguous();
    let (x, weight, bias) = (wide(x)?, wide(weight)?, wide(bias)?);
    let count = pixels as f64;
    let means = (column_sums(&x)? / count)?;
    let squares = x.apply_op2_no_bwd(&means, &ColumnSums)?;
    let inverse = ((&squares / count)? + eps)?.sqrt()?.recip()?;
    let unbiased = (squares / (count - 1.0))?;
    let factor = (&weight * &inverse)?;
    let offset = (bias - (&means * &factor)?)?;
    let y = x.apply_op2_no_bwd(&Tensor::stack(&[&factor, &factor, &offset], 0)?, &Blend)?;
    let made = [y, means.clone(), unbiased];
    let backward = move |gradient: &Tensor, of_x: bool| {
        let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
        let of_bias = column_sums(&gradient)?;
        let of_weight = (x.apply_op3_no_bwd(&means, &gradient, &ColumnSums)? * &inverse)?;
        let of_input = || {
            let share = (&factor * (-1.0 / count))?;
            let slope = ((&share * &of_weight)? * &inverse)?;
            let offset = ((&share * &of_bias)? - (&slope * &means)?)?;
            let factors = Tensor::stack(&[&factor, &slope, &offset], 0)?;
            gradient.apply_op3_no_bwd(&x, &factors.reshape((3, channels))?, &Blend)
        };
        Ok([of_x.then(of_input).transpose()?, Some(of_weight), Some(of_bias)])
    };
    Ok((made, Box::new(backward)))
}

/// [`Tape::batch_norm_eval`](crate::Tape::batch_norm_eval) of `[B, H, W, C]`; the parameters are weight, bias, mean
/// and variance.
pub(crate) fn batch_norm_eval(x: &Tensor, parameters: [&Tensor; 4], eps: f64) -> Result<Tensor> {
    check("batch_norm_eval", x, &parameters)?;
    let [weight, bias, mean, variance] = parameters.map(|t| t.to_dtype(DType::F32));
    let (weight, bias, mean, variance) = (weight?, bias?, mean?, variance?);
    let factor = (weight / (variance + eps)?.sqrt()?)?;
    let offset = (bias - (mean * &factor)?)?;
    let factors = Tensor::stack(&[&factor, &factor, &offset], 0)?;
    x.to_dtype(DType::F32)?.contiguous()?.apply_op2_no_bwd(&factors, &Blend)
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
