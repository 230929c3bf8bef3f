//! Transposed convolution whose kernel is as large as its stride.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::convolution::conv2d;
use crate::storage::{Values, contiguous_f32, elements, filled, tensor};

/// Transposed convolution with non-overlapping kernels, as PyTorch's `conv_transpose2d` without padding.
///
/// `x` is `[B, C, H, W]`, `weight` `[C, O, k, k]`, `bias` `[O]`, and `k` is the stride: each input pixel
/// becomes a block of `k x k` pixels, a matrix product and a rearrangement. The result is `[B, O, k H, k W]`
/// in the weight's dtype; gradients reach all three tensors.
///
/// # Errors
/// If the shapes do not fit, the kernel is not as large as the stride, or the devices differ.
pub fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
) -> Result<Tensor> {
    let &[_, channels, ..] = x.dims() else {
        bail!("conv_transpose2d: expected x [B, C, H, W], found {:?}", x.dims());
    };
    let out = outputs(channels, weight, bias, stride)?;
    let area = stride * stride;
    // Each pixel of a block is an output channel of its own, with its channel's bias.
    let weight = weight.flatten_from(1)?.t()?.reshape((out * area, channels, 1, 1))?;
    let bias =
        bias.map(|b| b.unsqueeze(1)?.broadcast_as((out, area))?.reshape(out * area)).transpose()?;
    let blocks = conv2d(x, &weight, bias.as_ref(), 1, 0)?;
    spread(&blocks, stride)
}

/// Output channels, if weight and bias fit an image of `channels`.
pub(crate) fn outputs(
    channels: usize,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
) -> Result<usize> {
    let &[inputs, out, kernel_height, kernel_width] = weight.dims() else {
        bail!("conv_transpose2d: expected a weight [C, O, k, k], found {:?}", weight.dims());
    };
    if stride == 0 || [kernel_height, kernel_width] != [stride; 2] {
        bail!(
            "conv_transpose2d: expected a kernel as large as the stride {stride}, found weight {:?}",
            weight.dims()
        );
    }
    if inputs != channels || bias.is_some_and(|b| b.dims() != [out]) {
        bail!(
            "conv_transpose2d: expected x of {inputs} channels and a bias [{out}] for weight {:?}, \
             found {channels} channels, {:?}",
            weight.dims(),
            bias.map(Tensor::dims)
        );
    }
    Ok(out)
}

/// From `[B, O k k, H, W]` to `[B, O, k H, k W]`.
fn spread(blocks: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(blocks.clone());
    }
    if blocks.device().is_cpu() {
        return contiguous_f32(blocks)?.apply_op1(Spread { stride })?.to_dtype(blocks.dtype());
    }
    let (batch, channels, height, width) = blocks.dims4()?;
    let out = channels / (stride * stride);
    blocks
        .reshape(&[batch, out, stride, stride, height, width][..])?
        .permute([0, 1, 4, 2, 5, 3])?
        .contiguous()?
        .reshape((batch, out, height * stride, width * stride))
}

struct Spread {
    stride: usize,
}

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn cpu_fwd(&self, blocks: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let (stride, from) = (self.stride, elements(blocks, layout)?);
        let to_width = width * stride;
        let shape = Shape::from((batch, channels / (stride * stride), height * stride, to_width));
        if from.is_empty() {
            return Ok((CpuStorage::F32(Vec::new()), shape));
        }
        let plane = height * width;
        // SAFETY: the chunks cover the buffer, and the `stride` passes over a line write all of it.
        let values = unsafe {
            filled(from.len(), |to| {
                to.par_chunks_mut(plane * stride * stride)
                    .zip(from.par_chunks(plane * stride * stride))
                    .for_each(|(to, from)| {
                        for (y, line) in to.chunks_exact_mut(to_width).enumerate() {
                            for dx in 0..stride {
                                let block = (y % stride) * stride + dx;
                                let from = &from[block * plane + y / stride * width..][..width];
                                for (to, &v) in line[dx..].iter_mut().step_by(stride).zip(from) {
                                    to.write(v);
                                }
                            }
                        }
                    });
            })
        };
        Ok((CpuStorage::F32(values), shape))
    }

    fn bwd(&self, blocks: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = blocks.dims4()?;
        let (stride, plane) = (self.stride, height * width);
        if blocks.elem_count() == 0 {
            return Ok(None);
        }
        let gradient = contiguous_f32(gradient)?;
        let values = Values::lock(&gradient);
        let from = values.slice()?;
        // SAFETY: the chunks cover the buffer, and each line of a plane is written whole.
        let result = unsafe {
            filled(from.len(), |to| {
                to.par_chunks_mut(plane * stride * stride)
                    .zip(from.par_chunks(plane * stride * stride))
                    .for_each(|(to, from)| {
                        for (block, to) in to.chunks_exact_mut(plane).enumerate() {
                            for (y, to) in to.chunks_exact_mut(width).enumerate() {
                                let line = (y * stride + block / stride) * width * stride;
                                let from = &from[line + block % stride..];
                                for (to, &v) in to.iter_mut().zip(from.iter().step_by(stride)) {
                                    to.write(v);
                                }
                            }
                        }
                    });
            })
        };
        tensor(result, blocks.dims()).map(Some)
    }
}
