//! Batch normalisation of images.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::simd;
use crate::storage::{Values, contiguous_f32, filled, tensor};
use crate::tape::Backward;

/// What a batch normalisation in training made: the result, the means `[C]` and the unbiased variances `[C]`,
/// all f32, and the gradients of the result.
pub(crate) type Normalised = ([Tensor; 3], Backward);

/// [`Tape::batch_norm_train`](crate::Tape::batch_norm_train) on the CPU.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Normalised> {
    let [batch, channels, pixels] = check("batch_norm_train", x, &[weight, bias])?;
    let count = batch * pixels;
    if count < 2 {
        bail!("batch_norm_train: expected more than one value per channel, found {:?}", x.dims());
    }
    let (x, weight, bias) = (contiguous_f32(x)?, contiguous_f32(weight)?, contiguous_f32(bias)?);
    let op = BatchNorm::new(Values::lock(&x).slice()?, [batch, channels, pixels], eps);
    let unbiased = count as f64 / (count as f64 - 1.0);
    let f32s = |values: &[f64], factor: f64| {
        tensor(values.iter().map(|v| (v * factor) as f32).collect(), &[channels])
    };
    let (means, variances) = (f32s(&op.means, 1.0)?, f32s(&op.variances, unbiased)?);
    let y = {
        let (x, weight, bias) = (Values::lock(&x), Values::lock(&weight), Values::lock(&bias));
        op.forward(x.slice()?, weight.slice()?, bias.slice()?)
    };
    let y = tensor(y, x.dims())?;
    let backward = move |gradient: &Tensor, of_x: bool| {
        let gradient = contiguous_f32(gradient)?;
        op.backward(&x, &weight, &gradient, of_x)
    };
    Ok(([y, means, variances], Box::new(backward)))
}

/// [`Tape::batch_norm_eval`](crate::Tape::batch_norm_eval) on the CPU.
pub(crate) fn batch_norm_eval(x: &Tensor, parameters: [&Tensor; 4], eps: f64) -> Result<Tensor> {
    let sizes = check("batch_norm_eval", x, &parameters)?;
    let [weight, bias, mean, variance] = parameters.map(contiguous_f32);
    let factor = (weight? / (variance? + eps)?.sqrt()?)?;
    let offset = (bias? - (mean? * &factor)?)?;
    let x = contiguous_f32(x)?;
    let (values, factor, offset) = (Values::lock(&x), Values::lock(&factor), Values::lock(&offset));
    tensor(affine(values.slice()?, factor.slice()?, offset.slice()?, sizes), x.dims())
}

/// Batch, channels and pixels of `x`, if the parameters fit.
fn check(op: &str, x: &Tensor, parameters: &[&Tensor]) -> Result<[usize; 3]> {
    let &[batch, channels, height, width] = x.dims() else {
        bail!("{op}: expected x [B, C, H, W], found {:?}", x.dims());
    };
    if let Some(other) = parameters.iter().find(|t| t.dims() != [channels]) {
        bail!(
            "{op}: expected parameters [{channels}] for x {:?}, found {:?}",
            x.dims(),
            other.dims()
        );
    }
    Ok([batch, channels, height * width])
}

/// `x factor + offset`, channel by channel.
fn affine(
    x: &[f32],
    factor: &[f32],
    offset: &[f32],
    [_, channels, pixels]: [usize; 3],
) -> Vec<f32> {
    let pixels = pixels.max(1);
    // SAFETY: the chunks cover the buffer, and the kernel writes each whole.
    unsafe {
        filled(x.len(), |to| {
            to.par_chunks_mut(pixels).zip(x.par_chunks(pixels)).enumerate().for_each(
                |(plane, (to, from))| {
                    let channel = plane % channels;
                    simd::affine_into(from, factor[channel], offset[channel], to);
                },
            );
        })
    }
}

/// The normalisation of one batch.
struct BatchNorm {
    /// Batch, channels, pixels.
    sizes: [usize; 3],
    eps: f64,
    means: Vec<f64>,
    /// Biased.
    variances: Vec<f64>,
}

impl BatchNorm {
    fn new(x: &[f32], sizes: [usize; 3], eps: f64) -> Self {
        let [batch, channels, pixels] = sizes;
        let count = (batch * pixels) as f64;
        let (means, variances) = (0..channels)
            .into_par_iter()
            .map(|channel| {
                let planes = || planes(x, sizes, channel);
                let mean = planes().map(|p| f64::from(simd::sum_of(p))).sum::<f64>() / count;
                let centre = mean as f32;
                let squares = planes().map(|p| f64::from(simd::squares_of(p, centre))).sum::<f64>();
                let shift = mean - f64::from(centre);
                (mean, (squares / count - shift * shift).max(0.0))
            })
            .unzip();
        Self { sizes, eps, means, variances }
    }

    fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let factors: Vec<f64> =
            weight.iter().enumerate().map(|(c, &w)| f64::from(w) * self.inverse(c)).collect();
        let offsets: Vec<f32> = bias
            .iter()
            .zip(factors.iter().zip(&self.means))
            .map(|(&b, (factor, mean))| (f64::from(b) - mean * factor) as f32)
            .collect();
        let factors: Vec<f32> = factors.iter().map(|&f| f as f32).collect();
        affine(x, &factors, &offsets, self.sizes)
    }

    /// The gradients of `x`, where it is wanted, of the weight and of the bias.
    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        gradient: &Tensor,
        of_x: bool,
    ) -> Result<[Option<Tensor>; 3]> {
        let [batch, channels, pixels] = self.sizes;
        let (x_values, weight_values, gradient) =
            (Values::lock(x), Values::lock(weight), Values::lock(gradient));
        let (from, weights, gradient) =
            (x_values.slice()?, weight_values.slice()?, gradient.slice()?);
        let sums: Vec<(f64, f64)> =
            (0..channels).into_par_iter().map(|c| self.sums(from, gradient, c)).collect();
        let input = || {
            let count = (batch * pixels) as f64;
            // SAFETY: the chunks cover the buffer, and the kernel writes each whole.
            let values = unsafe {
                filled(from.len(), |to| {
                    to.par_chunks_mut(pixels)
                        .zip(from.par_chunks(pixels).zip(gradient.par_chunks(pixels)))
                        .enumerate()
                        .for_each(|(plane, (to, (from, gradient)))| {
                            let c = plane % channels;
                            let factor = f64::from(weights[c]) * self.inverse(c);
                            let slope = -factor * sums[c].1 * self.inverse(c) / count;
                            let offset = -factor * sums[c].0 / count - slope * self.means[c];
                            let factors = [factor, slope, offset].map(|v| v as f32);
                            simd::combine_into(gradient, from, factors, to);
                        });
                })
            };
            tensor(values, x.dims())
        };
        let of = |pick: fn(&(f64, f64)) -> f64| {
            tensor(sums.iter().map(|s| pick(s) as f32).collect(), &[channels])
        };
        Ok([of_x.then(input).transpose()?, Some(of(|s| s.1)?), Some(of(|s| s.0)?)])
    }

    /// `1 / sqrt(variance + eps)`.
    fn inverse(&self, channel: usize) -> f64 {
        1.0 / (self.variances[channel] + self.eps).sqrt()
    }

    /// The sum of a channel's gradients, and of their products with the normalised values.
    fn sums(&self, x: &[f32], gradient: &[f32], channel: usize) -> (f64, f64) {
        let centre = self.means[channel] as f32;
        let mut sums = (0.0, 0.0);
        for (x, gradient) in
            planes(x, self.sizes, channel).zip(planes(gradient, self.sizes, channel))
        {
            sums.0 += f64::from(simd::sum_of(gradient));
            sums.1 += f64::from(simd::products_of(x, centre, gradient));
        }
        (sums.0, sums.1 * self.inverse(channel))
    }
}

/// The images of one channel.
fn planes(
    values: &[f32],
    [batch, channels, pixels]: [usize; 3],
    channel: usize,
) -> impl Iterator<Item = &[f32]> {
    (0..batch).map(move |image| &values[(image * channels + channel) * pixels..][..pixels])
}
