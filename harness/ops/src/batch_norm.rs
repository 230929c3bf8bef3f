//! Batch normalisation of images.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::storage::{Values, contiguous_f32, elements, filled, tensor};
use crate::{compose, simd};

/// Batch normalisation in training (Ioffe and Szegedy, arXiv 1502.03167, algorithm 1): each channel of
/// `x` `[B, C, H, W]` is normalised by the mean and biased variance of its `B x H x W` values, then scaled
/// by `weight` `[C]` and shifted by `bias` `[C]`.
///
/// Returns the result, the means `[C]`, and the unbiased variances `[C]` that running statistics take, all in
/// f32. Gradients reach `x`, `weight` and `bias` through the result only.
///
/// # Errors
/// If the shapes do not fit, or a channel has fewer than two values.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let [batch, channels, pixels] = check("batch_norm_train", x, &[weight, bias])?;
    let count = batch * pixels;
    if count < 2 {
        bail!("batch_norm_train: expected more than one value per channel, found {:?}", x.dims());
    }
    let [x, weight, bias] = [x, weight, bias].map(|t| t.to_dtype(DType::F32));
    let (x, weight, bias) = (x?, weight?, bias?);
    if ![&x, &weight, &bias].iter().all(|t| t.device().is_cpu()) {
        return compose::batch_norm_train(&x, &weight, &bias, eps);
    }
    let x = x.contiguous()?;
    let op = {
        let values = Values::lock(&x);
        BatchNorm::new(values.slice()?, [batch, channels, pixels], eps)
    };
    let unbiased = count as f64 / (count as f64 - 1.0);
    let f32s = |values: &[f64], factor: f64| {
        tensor(values.iter().map(|v| (v * factor) as f32).collect(), &[channels])
    };
    let (means, variances) = (f32s(&op.means, 1.0)?, f32s(&op.variances, unbiased)?);
    let y = x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?;
    Ok((y, means, variances))
}

/// Batch normalisation with given statistics, `(x - mean) / sqrt(variance + eps) * weight + bias`.
///
/// `x` is `[B, C, H, W]` and the others `[C]`; the result is f32. Differentiable.
///
/// # Errors
/// If the shapes do not fit.
pub fn batch_norm_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let parameters = [weight, bias, mean, variance];
    let sizes = check("batch_norm_eval", x, &parameters)?;
    let wide: Vec<Tensor> =
        parameters.iter().map(|t| t.to_dtype(DType::F32)).collect::<Result<_>>()?;
    let factor = (&wide[0] / (&wide[3] + eps)?.sqrt()?)?;
    let offset = (&wide[1] - (&wide[2] * &factor)?)?;
    let x = x.to_dtype(DType::F32)?;
    if ![&x, &factor, &offset].iter().all(|t| t.device().is_cpu() && !t.track_op()) {
        return compose::per_channel(&x, &factor, &offset);
    }
    let x = x.contiguous()?;
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

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (elements(weight, weight_layout)?, elements(bias, bias_layout)?);
        let factors: Vec<f64> =
            weight.iter().enumerate().map(|(c, &w)| f64::from(w) * self.inverse(c)).collect();
        let offsets: Vec<f32> = bias
            .iter()
            .zip(factors.iter().zip(&self.means))
            .map(|(&b, (factor, mean))| (f64::from(b) - mean * factor) as f32)
            .collect();
        let factors: Vec<f32> = factors.iter().map(|&f| f as f32).collect();
        let values = affine(elements(x, layout)?, &factors, &offsets, self.sizes);
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [batch, channels, pixels] = self.sizes;
        let gradient = contiguous_f32(gradient)?;
        let (x_values, weight_values, gradient) =
            (Values::lock(x), Values::lock(weight), Values::lock(&gradient));
        let (from, weights, gradient) =
            (x_values.slice()?, weight_values.slice()?, gradient.slice()?);
        let sums: Vec<(f64, f64)> =
            (0..channels).into_par_iter().map(|c| self.sums(from, gradient, c)).collect();
        let of_x = || {
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
        Ok((x.track_op().then(of_x).transpose()?, Some(of(|s| s.1)?), Some(of(|s| s.0)?)))
    }
}
