//! Softmax over the classes of every pixel, and its cross entropy. On the CPU both are one pass over
//! the logits, pixels side by side; elsewhere they are composed of ordinary operations.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::values;

/// Pixels computed side by side: their running values fit the first cache.
const PIXELS: usize = 256;

/// `-log softmax(logits)[label]` of every pixel, 0 where the label is not a class.
///
/// `logits` is `[B, C, H, W]` f32, `labels` `[B, H, W]`, row-major; the result `[B, H, W]`.
/// Differentiable.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn negative_log_likelihood(logits: &Tensor, labels: &Arc<[u8]>) -> Result<Tensor> {
    let logits = logits.contiguous()?;
    if logits.device().is_cpu() {
        return logits.apply_op1(Nll { labels: Arc::clone(labels) });
    }
    compose_nll(&logits, labels)
}

/// The same of ordinary operations.
fn compose_nll(logits: &Tensor, labels: &[u8]) -> Result<Tensor> {
    let (batch, classes, h, w) = logits.dims4()?;
    let known = |label: u8| usize::from(label) < classes;
    let class: Vec<u32> = labels.iter().map(|&l| if known(l) { l.into() } else { 0 }).collect();
    let counts: Vec<f32> = labels.iter().map(|&l| f32::from(u8::from(known(l)))).collect();
    let class = Tensor::from_vec(class, (batch, 1, h, w), logits.device())?;
    let counts = Tensor::from_vec(counts, (batch, h, w), logits.device())?;
    let z = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let total = z.exp()?.sum_keepdim(1)?.log()?;
    (total - z.gather(&class, 1)?)?.squeeze(1)? * counts
}

/// `softmax(logits)` over the classes: `[B, C, H, W]` f32 to the same. Carries no graph on the CPU.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn softmax(logits: &Tensor) -> Result<Tensor> {
    let logits = logits.contiguous()?;
    if logits.device().is_cpu() {
        return logits.apply_op1_no_bwd(&Softmax);
    }
    let z = logits.broadcast_sub(&logits.max_keepdim(1)?)?.exp()?;
    z.broadcast_div(&z.sum_keepdim(1)?)
}

struct Nll {
    labels: Arc<[u8]>,
}

struct NllGradient {
    labels: Arc<[u8]>,
}

struct Softmax;

/// `[B, C, H*W]` of a logits tensor.
fn sizes(layout: &Layout) -> Result<[usize; 3]> {
    let (batch, classes, h, w) = layout.shape().dims4()?;
    Ok([batch, classes, h * w])
}

/// Maximum and sum of exponentials of up to [`PIXELS`] pixels from `first` on, in one sample.
struct Totals {
    max: [f32; PIXELS],
    sum: [f32; PIXELS],
}

impl Totals {
    fn of(sample: &[f32], pixels: usize, first: usize, count: usize) -> Self {
        let mut totals = Self { max: [f32::NEG_INFINITY; PIXELS], sum: [0.0; PIXELS] };
        for plane in sample.chunks_exact(pixels) {
            for (max, &x) in totals.max.iter_mut().zip(&plane[first..first + count]) {
                // A NaN does not become the maximum, but the sum.
                *max = if x > *max { x } else { *max };
            }
        }
        for plane in sample.chunks_exact(pixels) {
            let row = plane[first..first + count].iter().zip(&totals.max);
            for (sum, (&x, &max)) in totals.sum.iter_mut().zip(row) {
                *sum += (x - max).exp();
            }
        }
        totals
    }
}

impl CustomOp1 for Nll {
    fn name(&self) -> &'static str {
        "negative-log-likelihood"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = values(storage, layout)?;
        let [batch, classes, pixels] = sizes(layout)?;
        let (_, _, h, w) = layout.shape().dims4()?;
        let mut losses = vec![0.0_f32; batch * pixels];
        losses.par_chunks_mut(pixels.max(1)).enumerate().for_each(|(b, losses)| {
            let sample = &logits[b * classes * pixels..][..classes * pixels];
            let labels = &self.labels[b * pixels..][..pixels];
            losses.par_chunks_mut(PIXELS).enumerate().for_each(|(block, losses)| {
                let first = block * PIXELS;
                let totals = Totals::of(sample, pixels, first, losses.len());
                for (i, loss) in losses.iter_mut().enumerate() {
                    let label = usize::from(labels[first + i]);
                    if label < classes {
                        let z = sample[label * pixels + first + i] - totals.max[i];
                        *loss = totals.sum[i].ln() - z;
                    }
                }
            });
        });
        Ok((CpuStorage::F32(losses), Shape::from((batch, h, w))))
    }

    fn bwd(&self, logits: &Tensor, losses: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = NllGradient { labels: Arc::clone(&self.labels) };
        logits.apply_op3_no_bwd(losses, &gradient.contiguous()?, &op).map(Some)
    }
}

impl CustomOp3 for NllGradient {
    fn name(&self) -> &'static str {
        "negative-log-likelihood-gradient"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        layout: &Layout,
        losses: &CpuStorage,
        losses_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let logits = values(logits, layout)?;
        let (losses, gradient) =
            (values(losses, losses_layout)?, values(gradient, gradient_layout)?);
        let [_, classes, pixels] = sizes(layout)?;
        let mut result = vec![0.0_f32; logits.len()];
        result.par_chunks_mut(pixels.max(1)).enumerate().for_each(|(plane, result)| {
            let (b, class) = (plane / classes, plane % classes);
            let sample = &logits[b * classes * pixels..][..classes * pixels];
            let at = b * pixels..(b + 1) * pixels;
            let labels = &self.labels[at.clone()];
            let row = losses[at.clone()].iter().zip(&gradient[at]).zip(labels);
            for (i, (result, ((&loss, &gradient), &label))) in
                result.iter_mut().zip(row).enumerate()
            {
                let label = usize::from(label);
                if label < classes {
                    // The loss is log sum exp minus the label's logit.
                    let log_p = sample[class * pixels + i] - sample[label * pixels + i] - loss;
                    let hit = f32::from(u8::from(label == class));
                    *result = (log_p.exp() - hit) * gradient;
                }
            }
        });
        Ok((CpuStorage::F32(result), layout.shape().clone()))
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax-of-classes"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = values(storage, layout)?;
        let [_, classes, pixels] = sizes(layout)?;
        let mut result = vec![0.0_f32; logits.len()];
        let size = (classes * pixels).max(1);
        result.par_chunks_mut(size).zip(logits.par_chunks(size)).for_each(|(result, sample)| {
            for first in (0..pixels).step_by(PIXELS) {
                let count = PIXELS.min(pixels - first);
                let totals = Totals::of(sample, pixels, first, count);
                let planes = result.chunks_exact_mut(pixels).zip(sample.chunks_exact(pixels));
                for (to, from) in planes {
                    let to = to[first..first + count].iter_mut();
                    for (i, (to, &x)) in to.zip(&from[first..first + count]).enumerate() {
                        *to = (x - totals.max[i]).exp() / totals.sum[i];
                    }
                }
            }
        });
        Ok((CpuStorage::F32(result), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, DType, Device, Var};

    use super::*;

    fn logits(batch: usize, classes: usize, h: usize, w: usize) -> Var {
        let wave = |i: usize| (i as f32 * 0.7).sin() * 4.0 + (i as f32 * 0.013).cos();
        let data: Vec<f32> = (0..batch * classes * h * w).map(wave).collect();
        Var::from_vec(data, (batch, classes, h, w), &Device::Cpu).unwrap()
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        d.max(D::Minus1).unwrap().to_dtype(DType::F32).unwrap().to_scalar().unwrap()
    }

    /// More pixels than one block, ignored labels among them; values and gradients.
    #[test]
    fn fused_and_composed_agree() {
        let (batch, classes, h, w) = (2, 7, 19, 17);
        let x = logits(batch, classes, h, w);
        let label = |i: usize| if i % 11 == 3 { 255 } else { (i * i % classes) as u8 };
        let labels: Arc<[u8]> = (0..batch * h * w).map(label).collect();
        let weights = Tensor::arange(0_f32, (batch * h * w) as f32, &Device::Cpu).unwrap();
        let weights = (weights.reshape((batch, h, w)).unwrap() * 1e-3).unwrap();
        let fused = negative_log_likelihood(&x, &labels).unwrap();
        let composed = compose_nll(&x, &labels).unwrap();
        assert!(largest_difference(&fused, &composed) < 2e-6);
        let ignored = fused.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(ignored.iter().zip(labels.iter()).all(|(&l, &k)| (k == 255) == (l == 0.0)));
        let gradient = |loss: &Tensor| {
            let sum = (loss * &weights).unwrap().sum_all().unwrap();
            sum.backward().unwrap().get(x.as_tensor()).unwrap().clone()
        };
        assert!(largest_difference(&gradient(&fused), &gradient(&composed)) < 2e-6);
    }

    #[test]
    fn probabilities_sum_to_one_and_are_the_likelihood() {
        let (classes, h, w) = (5, 23, 12);
        let x = logits(1, classes, h, w);
        let p = softmax(&x).unwrap();
        let ones = Tensor::ones((1, h, w), DType::F32, &Device::Cpu).unwrap();
        assert!(largest_difference(&p.sum(1).unwrap(), &ones) < 1e-6);
        for class in 0..classes {
            let labels: Arc<[u8]> = vec![class as u8; h * w].into();
            let likelihood =
                negative_log_likelihood(&x, &labels).unwrap().neg().unwrap().exp().unwrap();
            assert!(
                largest_difference(
                    &likelihood,
                    &p.narrow(1, class, 1).unwrap().squeeze(1).unwrap()
                ) < 1e-6
            );
        }
    }

    #[test]
    fn a_nan_logit_makes_its_pixel_nan_and_large_ones_do_not() {
        let x = Tensor::new(&[[[[1_f32, 900.0]], [[f32::NAN, -900.0]]]], &Device::Cpu).unwrap();
        let labels: Arc<[u8]> = vec![0, 1].into();
        let losses = negative_log_likelihood(&x, &labels).unwrap();
        let losses = losses.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(losses[0].is_nan());
        assert_eq!(losses[1], 1800.0);
    }
}
