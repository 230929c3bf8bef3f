//! Convolution in two dimensions, with its gradients.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::gather::Gather;
use crate::storage::{Values, contiguous_f32, filled, tensor};
use crate::tape::Backward;
use crate::weights::WeightGradient;
use crate::winograd::{Winograd, worth};
use crate::{Format, pixels, simd};

/// Values a task of an element-wise pass takes.
const TASK: usize = 1 << 15;

/// Cross-correlation of an image with a kernel, as PyTorch's `conv2d`: one group, no dilation.
///
/// `x` is `[B, C, H, W]`, `weight` `[O, C, kh, kw]`, `bias` `[O]`; `padding` zeros surround the image. The
/// result is `[B, O, (H + 2 padding - kh) / stride + 1, ..]` in the weight's dtype (see
/// [the precision rules](crate#precision)), and carries no graph: [`Tape::conv2d`](crate::Tape::conv2d) has
/// gradients.
///
/// # Errors
/// If the shapes do not fit, the stride is 0, the kernel is empty or larger than the padded image, or the
/// tensors are not on one CPU or GPU, the weight in f32, bf16 or f16.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    run(x, weight, bias, [stride, padding], false)
}

/// [`conv2d`] of [`relu`](crate::relu())`(x)`, of which no copy is made.
///
/// Shapes, dtypes and errors are those of [`conv2d`]; so is every bit of the result of the two operations one
/// after the other.
///
/// # Errors
/// As [`conv2d`].
pub fn relu_conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    run(x, weight, bias, [stride, padding], true)
}

fn run(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    sizes: [usize; 2],
    rectify: bool,
) -> Result<Tensor> {
    if x.device().is_cuda() {
        let y = pixels::conv::conv2d(&Format::Pixels.enter(x)?, weight, bias, sizes, rectify)?.0;
        return Format::Pixels.leave(&y)?.contiguous();
    }
    Ok(convolve(x, weight, bias, sizes, rectify)?.0)
}

/// [`conv2d`] on the CPU, of the ReLU of `x` if `rectify`, and its gradients.
pub(crate) fn convolve(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [stride, padding]: [usize; 2],
    rectify: bool,
) -> Result<(Tensor, Backward)> {
    let op = Convolution { stride, padding, rectify };
    let geometry = geometry(x.dims(), weight.dims(), bias, [stride, padding])?;
    let dtype = weight.dtype();
    if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
        bail!("conv2d: expected a weight in f32, bf16 or f16, found {dtype:?}");
    }
    let (x, weight) = (contiguous_f32(&x.detach().to_dtype(dtype)?)?, contiguous_f32(weight)?);
    let bias = bias.map(|bias| contiguous_f32(&bias.to_dtype(dtype)?)).transpose()?;
    let y = {
        let bias = bias.as_ref().map(Values::lock);
        let bias = bias.as_ref().map(Values::slice).transpose()?;
        let (x, weight) = (Values::lock(&x), Values::lock(&weight));
        op.forward(&geometry, x.slice()?, weight.slice()?, bias)
    };
    let [out, height, width] = geometry.to;
    let y = tensor(y, &[geometry.batch, out, height, width])?.to_dtype(dtype)?;
    let biased = bias.is_some();
    let backward = move |gradient: &Tensor, of_x: bool| {
        let gradient = contiguous_f32(gradient)?;
        let gradients = op.backward(&geometry, [&x, &weight, &gradient], [of_x, biased])?;
        let rounded = |of: Option<Tensor>| of.map(|of| of.to_dtype(dtype)).transpose();
        let [of_x, of_weight, of_bias] = gradients.map(rounded);
        Ok([of_x?, of_weight?, of_bias?])
    };
    Ok((y, Box::new(backward)))
}

struct Convolution {
    stride: usize,
    padding: usize,
    /// Whether the ReLU of the input is convolved.
    rectify: bool,
}

/// The sizes of a convolution.
pub(crate) struct Geometry {
    pub batch: usize,
    /// Channels, height and width of the input.
    pub from: [usize; 3],
    /// Channels, height and width of the result.
    pub to: [usize; 3],
    /// Height and width.
    pub kernel: [usize; 2],
}

/// The sizes of a convolution of `[B, C, H, W]` with `[O, C, kh, kw]` and a bias `[O]`, if they fit.
pub(crate) fn geometry(
    x: &[usize],
    weight: &[usize],
    bias: Option<&Tensor>,
    [stride, padding]: [usize; 2],
) -> Result<Geometry> {
    let (&[batch, channels, height, width], &[out, inputs, kernel_height, kernel_width]) =
        (x, weight)
    else {
        bail!("conv2d: expected x [B, C, H, W] and weight [O, C, kh, kw], found {x:?}, {weight:?}");
    };
    if inputs != channels {
        bail!("conv2d: expected x [B, {inputs}, H, W] for weight {weight:?}, found {x:?}");
    }
    if stride == 0 {
        bail!("conv2d: expected a stride of at least 1, found 0");
    }
    let size = |image: usize, kernel: usize| {
        let padded = image + 2 * padding;
        if kernel == 0 || kernel > padded {
            bail!(
                "conv2d: expected a kernel of 1 to {padded} pixels for x {x:?} with padding {}, \
                 found weight {weight:?}",
                padding
            );
        }
        Ok((padded - kernel) / stride + 1)
    };
    let geometry = Geometry {
        batch,
        from: [channels, height, width],
        to: [out, size(height, kernel_height)?, size(width, kernel_width)?],
        kernel: [kernel_height, kernel_width],
    };
    match bias {
        Some(bias) if bias.dims() != [out] => {
            bail!("conv2d: expected a bias [{out}], found {:?}", bias.dims())
        }
        _ => Ok(geometry),
    }
}

impl Convolution {
    fn forward(
        &self,
        geometry: &Geometry,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        let &Geometry { batch, from, to, kernel } = geometry;
        let (stride, rectify) = (self.stride, self.rectify);
        if kernel == [3, 3] && stride == 1 && worth(from, to) {
            let origin = -(self.padding as isize);
            return Winograd { batch, from, to, origin, x, weight, rectify, bias }.run();
        }
        let offset = |k: usize| k as isize - self.padding as isize;
        let taps: Vec<_> = (0..kernel[0] * kernel[1])
            .map(|tap| (offset(tap / kernel[1]), offset(tap % kernel[1])))
            .collect();
        Gather { batch, from, to, stride, taps: &taps, x, weight, rectify, bias }.run()
    }

    /// The gradients of `x` and a bias, as far as each is wanted, and of the weight.
    fn backward(
        &self,
        geometry: &Geometry,
        [x, weight, gradient]: [&Tensor; 3],
        [of_x, of_bias]: [bool; 2],
    ) -> Result<[Option<Tensor>; 3]> {
        let (x_values, weight_values) = (Values::lock(x), Values::lock(weight));
        let gradient = Values::lock(gradient);
        let (from, gradient) = (x_values.slice()?, gradient.slice()?);
        let input = || {
            let mut values = self.of_input(geometry, weight_values.slice()?, gradient);
            if self.rectify {
                values
                    .par_chunks_mut(TASK)
                    .zip(from.par_chunks(TASK))
                    .for_each(|(values, x)| simd::clear_unless_positive(x, values));
            }
            tensor(values, x.dims())
        };
        let of_input = of_x.then(input).transpose()?;
        let &Geometry { batch, from: sizes, to, kernel } = geometry;
        let (stride, padding, rectify) = (self.stride, self.padding, self.rectify);
        let call = WeightGradient {
            batch,
            from: sizes,
            to,
            kernel,
            stride,
            padding,
            x: from,
            rectify,
            y: gradient,
        };
        let of_weight = tensor(call.run(), weight.dims())?;
        let sums = || tensor(channel_sums(gradient, geometry), &geometry.to[..1]);
        Ok([of_input, Some(of_weight), of_bias.then(sums).transpose()?])
    }

    /// The gradient of the input.
    ///
    /// An input pixel is reached by the taps that fall on it at a whole number of strides, so the pixels of
    /// each residue modulo the stride are a convolution of their own, of stride 1.
    fn of_input(&self, geometry: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
        let &Geometry { batch, from: [channels, height, width], to, kernel } = geometry;
        let stride = self.stride;
        if kernel == [3, 3] && stride == 1 && worth(to, geometry.from) {
            let turned = [8, 7, 6, 5, 4, 3, 2, 1, 0];
            let call = Winograd {
                batch,
                from: to,
                to: geometry.from,
                origin: self.padding as isize - 2,
                x: gradient,
                weight: &transposed_weight(weight, [to[0], channels], 9, &turned),
                rectify: false,
                bias: None,
            };
            return call.run();
        }
        let size = |length: usize, residue: usize| length.saturating_sub(residue).div_ceil(stride);
        let mut phases = Vec::with_capacity(stride * stride);
        for phase in 0..stride * stride {
            let residues = [phase / stride, phase % stride];
            let (mut offsets, mut taps) = (Vec::new(), Vec::new());
            for tap in 0..kernel[0] * kernel[1] {
                let distance = |residue: usize, k: usize| {
                    let distance = (residue + self.padding) as isize - k as isize;
                    (distance % stride as isize == 0).then_some(distance / stride as isize)
                };
                if let (Some(dy), Some(dx)) =
                    (distance(residues[0], tap / kernel[1]), distance(residues[1], tap % kernel[1]))
                {
                    offsets.push((dy, dx));
                    taps.push(tap);
                }
            }
            let call = Gather {
                batch,
                from: to,
                to: [channels, size(height, residues[0]), size(width, residues[1])],
                stride: 1,
                taps: &offsets,
                x: gradient,
                weight: &transposed_weight(weight, [to[0], channels], kernel[0] * kernel[1], &taps),
                rectify: false,
                bias: None,
            };
            phases.push((residues, call.to[2], call.run()));
        }
        if stride == 1
            && let Some((.., whole)) = phases.pop()
        {
            return whole;
        }
        let mut result = vec![0.0; batch * channels * height * width];
        if result.is_empty() {
            return result;
        }
        result.par_chunks_mut(height * width).enumerate().for_each(|(plane, to)| {
            for ([y, x], columns, values) in &phases {
                let lines = size(height, *y);
                for line in 0..lines {
                    let from = &values[(plane * lines + line) * columns..][..*columns];
                    let to = &mut to[(y + line * stride) * width..][..width];
                    for (to, &v) in to.iter_mut().skip(*x).step_by(stride).zip(from) {
                        *to = v;
                    }
                }
            }
        });
        result
    }
}

/// Some taps of a weight `[rows, channels, count]` as `[channels, rows, taps]`.
fn transposed_weight(
    weight: &[f32],
    [rows, channels]: [usize; 2],
    count: usize,
    taps: &[usize],
) -> Vec<f32> {
    /// Read side by side.
    const CHANNELS: usize = 16;
    let width = rows * taps.len();
    if width == 0 {
        return Vec::new();
    }
    // SAFETY: the chunks cover the buffer, and each element of a chunk is written.
    unsafe {
        filled(channels * width, |to| {
            to.par_chunks_mut(CHANNELS * width).enumerate().for_each(|(block, to)| {
                for row in 0..rows {
                    let from = &weight[(row * channels + block * CHANNELS) * count..];
                    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(count)) {
                        for (to, &tap) in to[row * taps.len()..].iter_mut().zip(taps) {
                            to.write(from[tap]);
                        }
                    }
                }
            });
        })
    }
}

/// The sum of each channel of the result's gradient over images and pixels.
fn channel_sums(gradient: &[f32], geometry: &Geometry) -> Vec<f32> {
    let [channels, height, width] = geometry.to;
    let pixels = height * width;
    (0..channels)
        .into_par_iter()
        .map(|channel| {
            let planes = (0..geometry.batch).map(|image| {
                f64::from(simd::sum_of(
                    &gradient[(image * channels + channel) * pixels..][..pixels],
                ))
            });
            planes.sum::<f64>() as f32
        })
        .collect()
}
