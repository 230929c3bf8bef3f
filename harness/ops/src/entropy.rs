//! Classes of pixels: grouped cross entropy and softmax on a GPU, and the largest class.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::storage::elements;

/// A loss on a device, and how its gradient is made.
pub struct DeviceLoss {
    /// A scalar, f32.
    pub value: Tensor,
    /// From a factor to the gradient of so many times the loss by the logits, `[B, C, h, w]` in their dtype or f32.
    pub gradient: Box<dyn FnOnce(f64) -> Result<Tensor> + Send + Sync>,
}

/// Cross entropy of logits `[B, C, h, w]`, resized (bilinear, corners aligned) to `labels` `[B, H, W]` u8.
/// The batch is cut into `groups` runs of as many samples; the mean is taken over the pixels of each whose
/// label is a class and not `ignore`, and then over the groups that have such a pixel (NaN if none has).
///
/// Made by kernels of a GPU without waiting for it; none unless the tensors are on one GPU and the classes at
/// most 256.
///
/// # Errors
/// If the shapes do not fit, or the GPU refuses.
pub fn cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    ignore: u8,
    groups: usize,
) -> Result<Option<DeviceLoss>> {
    check_groups("cross_entropy", logits, labels, groups)?;
    #[cfg(feature = "cuda")]
    {
        crate::cuda::losses::cross_entropy(logits, labels, ignore, groups)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = ignore;
        Ok(None)
    }
}

/// Softmax over the classes of logits `[B, C, h, w]`, resized as in [`cross_entropy`] to `(H, W)`:
/// `[B, C, H, W]` f32 without a graph, channels-last in memory; none where [`cross_entropy`] is none.
///
/// # Errors
/// If the GPU refuses.
pub fn resized_softmax(logits: &Tensor, size: (usize, usize)) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    {
        crate::cuda::losses::softmax(logits, size)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (logits, size);
        Ok(None)
    }
}

/// Refuses logits and targets whose batches differ, and batches that do not divide into groups.
pub(crate) fn check_groups(op: &str, logits: &Tensor, of: &Tensor, groups: usize) -> Result<()> {
    let (&[batch, ..], &[targets, _, _]) = (logits.dims(), of.dims()) else {
        bail!("{op}: expected logits [B, C, h, w] and targets [B, H, W], found {:?}", of.dims());
    };
    if logits.dims().len() != 4 || batch != targets || groups == 0 || !batch.is_multiple_of(groups)
    {
        bail!(
            "{op}: expected logits [B, C, h, w], targets [B, H, W] and groups that divide B, found {:?}, {:?} \
             and {groups}",
            logits.dims(),
            of.dims()
        );
    }
    Ok(())
}

/// The class with the largest value of every pixel, `[B, C, H, W]` f32 to `[B, H, W]` u8: the lowest of
/// several. A NaN is passed over.
///
/// # Errors
/// If `x` does not have four dimensions, or not 1 to 256 classes.
pub fn argmax_classes(x: &Tensor) -> Result<Tensor> {
    let (_, classes, _, _) = x.dims4()?;
    if !(1..=256).contains(&classes) {
        bail!("argmax_classes: expected 1 to 256 classes, found {:?}", x.dims());
    }
    let x = x.detach().to_dtype(DType::F32)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::losses::argmax(&x);
    }
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op1_no_bwd(&Argmax);
    }
    x.argmax(1)?.to_dtype(DType::U8)
}

struct Argmax;

/// Pixels computed side by side.
const PIXELS: usize = 1024;

impl CustomOp1 for Argmax {
    fn name(&self) -> &'static str {
        "argmax-of-classes"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, classes, h, w) = layout.shape().dims4()?;
        let (x, pixels) = (elements(storage, layout)?, h * w);
        let mut result = vec![0_u8; batch * pixels];
        for (sample, result) in
            x.chunks((classes * pixels).max(1)).zip(result.chunks_mut(pixels.max(1)))
        {
            result.par_chunks_mut(PIXELS).enumerate().for_each(|(block, result)| {
                let mut most = [f32::NEG_INFINITY; PIXELS];
                for (class, plane) in (0_u8..=u8::MAX).zip(sample.chunks_exact(pixels)) {
                    let plane = &plane[block * PIXELS..];
                    for ((best, most), &value) in result.iter_mut().zip(&mut most).zip(plane) {
                        if value > *most {
                            (*most, *best) = (value, class);
                        }
                    }
                }
            });
        }
        Ok((CpuStorage::U8(result), Shape::from((batch, h, w))))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_largest_class_is_the_lowest_of_several() {
        let (batch, classes, h, w) = (2, 256, 30, 41);
        let value = |i: usize| ((i * 7919 % 5) as f32) - 2.0;
        let mut values: Vec<f32> = (0..batch * classes * h * w).map(value).collect();
        values[5] = f32::NAN;
        let x = Tensor::from_vec(values.clone(), (batch, classes, h, w), &Device::Cpu).unwrap();
        let found = argmax_classes(&x).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
        for (i, found) in found.into_iter().enumerate() {
            let of = |class: usize| values[(i / (h * w) * classes + class) * h * w + i % (h * w)];
            let best = (0..classes).fold(None, |best: Option<usize>, class| match best {
                Some(best) if of(class) <= of(best) => Some(best),
                best if of(class).is_nan() => best,
                _ => Some(class),
            });
            assert_eq!(Some(usize::from(found)), best, "pixel {i}");
        }
        let last = x.transpose(2, 3).unwrap();
        let turned = argmax_classes(&last).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
        let straight = argmax_classes(&x).unwrap();
        assert_eq!(turned.to_vec3::<u8>().unwrap(), straight.to_vec3::<u8>().unwrap());
        assert!(
            argmax_classes(&Tensor::zeros((1, 257, 2, 2), DType::F32, &Device::Cpu).unwrap())
                .is_err()
        );
    }
}
