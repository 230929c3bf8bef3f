//! Convolution in two dimensions, with its gradients.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::gather::Gather;
use crate::storage::{Values, contiguous_f32, elements, filled, tensor};
use crate::weights::WeightGradient;
use crate::winograd::{Winograd, worth};
use crate::{Format, compose, pixels, simd};

/// Values a task of an element-wise pass takes.
const TASK: usize = 1 << 15;

/// Cross-correlation of an image with a kernel, as PyTorch's `conv2d`: one group, no dilation.
///
/// `x` is `[B, C, H, W]`, `weight` `[O, C, kh, kw]`, `bias` `[O]`; `padding` zeros surround the image. The
/// result is `[B, O, (H + 2 padding - kh) / stride + 1, ..]` in the weight's dtype (see
/// [the precision rules](crate#precision)). Gradients reach all three tensors; on the CPU the two of the
/// products are sums in f32.
///
/// # Errors
/// If the shapes do not fit, the stride is 0, the kernel is empty or larger than the padded image, or the
/// devices differ.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    run(Convolution { stride, padding, rectify: false }, x, weight, bias)
}

/// [`conv2d`] of [`relu`](crate::relu())`(x)`, of which no copy is kept for the backward pass.
///
/// Shapes, dtypes and errors are those of [`conv2d`]; so is every bit of the result and of the gradients of the two
/// operations one after the other.
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
    run(Convolution { stride, padding, rectify: true }, x, weight, bias)
}

fn run(op: Convolution, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    geometry(x.dims(), weight.dims(), op.stride, op.padding)?;
    if let Some(bias) = bias
        && bias.dims() != [weight.dims()[0]]
    {
        bail!("conv2d: expected a bias [{}], found {:?}", weight.dims()[0], bias.dims());
    }
    let dtype = weight.dtype();
    let (x, bias) = (x.to_dtype(dtype)?, bias.map(|b| b.to_dtype(dtype)).transpose()?);
    let on_cpu =
        [Some(&x), Some(weight), bias.as_ref()].into_iter().flatten().all(|t| t.device().is_cpu());
    let float = matches!(dtype, DType::F32 | DType::BF16 | DType::F16);
    if x.device().is_cuda() && float {
        // candle's own would let f32 become TF32, and round a result before its bias is added.
        let sizes = [op.stride, op.padding];
        let pixels = Format::Pixels.enter(&x)?;
        let y = pixels::conv::conv2d(&pixels, weight, bias.as_ref(), sizes, op.rectify)?;
        return Format::Pixels.leave(&y)?.contiguous();
    }
    if !on_cpu || !float {
        let x = if op.rectify { x.relu()? } else { x };
        return compose::conv2d(&x, weight, bias.as_ref(), op.stride, op.padding);
    }
    let (x, weight) = (contiguous_f32(&x)?, contiguous_f32(weight)?);
    let y = match bias {
        Some(bias) => x.apply_op3(&weight, &contiguous_f32(&bias)?, op)?,
        None => x.apply_op2(&weight, op)?,
    };
    y.to_dtype(dtype)
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

/// The sizes of a convolution of `[B, C, H, W]` with `[O, C, kh, kw]`, if they fit.
pub(crate) fn geometry(
    x: &[usize],
    weight: &[usize],
    stride: usize,
    padding: usize,
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
    Ok(Geometry {
        batch,
        from: [channels, height, width],
        to: [out, size(height, kernel_height)?, size(width, kernel_width)?],
        kernel: [kernel_height, kernel_width],
    })
}

impl Convolution {
    fn forward(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let Geometry { batch, from, to, kernel } =
            geometry(x.1.dims(), weight.1.dims(), self.stride, self.padding)?;
        let shape = Shape::from((batch, to[0], to[1], to[2]));
        let bias = bias.map(|(storage, layout)| elements(storage, layout)).transpose()?;
        let (x, weight) = (elements(x.0, x.1)?, elements(weight.0, weight.1)?);
        let rectify = self.rectify;
        if kernel == [3, 3] && self.stride == 1 && worth(from, to) {
            let origin = -(self.padding as isize);
            let call = Winograd { batch, from, to, origin, x, weight, rectify, bias };
            return Ok((CpuStorage::F32(call.run()), shape));
        }
        let offset = |k: usize| k as isize - self.padding as isize;
        let taps: Vec<_> = (0..kernel[0] * kernel[1])
            .map(|tap| (offset(tap / kernel[1]), offset(tap % kernel[1])))
            .collect();
        let stride = self.stride;
        let call = Gather { batch, from, to, stride, taps: &taps, x, weight, rectify, bias };
        Ok((CpuStorage::F32(call.run()), shape))
    }

    /// The gradients of `x`, `weight` and bias, as far as each is wanted.
    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let geometry = geometry(x.dims(), weight.dims(), self.stride, self.padding)?;
        let gradient = contiguous_f32(gradient)?;
        let gradient = Values::lock(&gradient);
        let gradient = gradient.slice()?;
        let of_x = || {
            let weight_values = Values::lock(weight);
            let mut values = self.of_input(&geometry, weight_values.slice()?, gradient);
            if self.rectify {
                let x = Values::lock(x);
                values
                    .par_chunks_mut(TASK)
                    .zip(x.slice()?.par_chunks(TASK))
                    .for_each(|(values, x)| simd::clear_unless_positive(x, values));
            }
            tensor(values, x.dims())
        };
        let of_weight = || {
            let x = Values::lock(x);
            let Geometry { batch, from, to, kernel } = geometry;
            let (stride, padding) = (self.stride, self.padding);
            let call = WeightGradient {
                batch,
                from,
                to,
                kernel,
                stride,
                padding,
                x: x.slice()?,
                rectify: self.rectify,
                y: gradient,
            };
            tensor(call.run(), weight.dims())
        };
        Ok([
            x.track_op().then(of_x).transpose()?,
            weight.track_op().then(of_weight).transpose()?,
            bias.filter(|bias| bias.track_op())
                .map(|bias| tensor(channel_sums(gradient, &geometry), bias.dims()))
                .transpose()?,
        ])
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

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((x, x_layout), (weight, weight_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, weight, _] = self.backward(x, weight, None, gradient)?;
        Ok((x, weight))
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((x, x_layout), (weight, weight_layout), Some((bias, bias_layout)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, weight, bias] = self.backward(x, weight, Some(bias), gradient)?;
        Ok((x, weight, bias))
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
