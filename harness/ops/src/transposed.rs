//! Transposed convolution whose kernel is as large as its stride.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::convolution::convolve;
use crate::storage::{Values, contiguous_f32, filled, tensor};
use crate::tape::Backward;

/// [`Tape::conv_transpose2d`](crate::Tape::conv_transpose2d) on the CPU, and its gradients.
pub(crate) fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
) -> Result<(Tensor, Backward)> {
    let &[batch, channels, height, width] = x.dims() else {
        bail!("conv_transpose2d: expected x [B, C, H, W], found {:?}", x.dims());
    };
    let out = outputs(channels, weight, bias, stride)?;
    let (area, shape, dtype) = (stride * stride, weight.shape().clone(), weight.dtype());
    // Each pixel of a block is an output channel of its own, with its channel's bias.
    let weight = weight.flatten_from(1)?.t()?.reshape((out * area, channels, 1, 1))?;
    let bias =
        bias.map(|b| b.unsqueeze(1)?.broadcast_as((out, area))?.reshape(out * area)).transpose()?;
    let (blocks, of_blocks) = convolve(x, &weight, bias.as_ref(), [1, 0], false)?;
    let grid = Grid { height, width, stride };
    let moved = move |from: &Tensor, by: fn(Grid, &[f32]) -> Vec<f32>, dims: [usize; 4]| {
        let from = contiguous_f32(from)?;
        tensor(by(grid, Values::lock(&from).slice()?), &dims)?.to_dtype(dtype)
    };
    let y = moved(&blocks, Grid::spread, [batch, out, height * stride, width * stride])?;
    let backward = move |gradient: &Tensor, of_x: bool| {
        let gradient = moved(gradient, Grid::gather, [batch, out * area, height, width])?;
        let [of_x, of_weight, of_bias] = of_blocks(&gradient, of_x)?;
        let turned = |of: Tensor| of.reshape((out * area, channels))?.t()?.reshape(&shape);
        let summed = |of: Tensor| of.reshape((out, area))?.sum(1);
        Ok([of_x, of_weight.map(turned).transpose()?, of_bias.map(summed).transpose()?])
    };
    Ok((y, Box::new(backward)))
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
            "conv_transpose2d: expected x [B, {inputs}, H, W] and a bias [{out}] for weight {:?}, \
             found {channels} channels, {:?}",
            weight.dims(),
            bias.map(Tensor::dims)
        );
    }
    Ok(out)
}

/// The pixels of an image, each of which becomes a block of `stride x stride`.
#[derive(Clone, Copy)]
struct Grid {
    height: usize,
    width: usize,
    stride: usize,
}

impl Grid {
    /// Values of a plane of blocks, at least 1.
    fn area(self) -> usize {
        (self.height * self.width * self.stride * self.stride).max(1)
    }

    /// From `[B, O k k, H, W]` to `[B, O, k H, k W]`.
    fn spread(self, from: &[f32]) -> Vec<f32> {
        let Self { height, width, stride } = self;
        // SAFETY: the chunks cover the buffer, and the `stride` passes over a line write all of it.
        unsafe {
            filled(from.len(), |to| {
                to.par_chunks_mut(self.area()).zip(from.par_chunks(self.area())).for_each(
                    |(to, from)| {
                        for (y, line) in to.chunks_exact_mut(width * stride).enumerate() {
                            for dx in 0..stride {
                                let block = (y % stride) * stride + dx;
                                let from = &from[(block * height + y / stride) * width..][..width];
                                for (to, &v) in line[dx..].iter_mut().step_by(stride).zip(from) {
                                    to.write(v);
                                }
                            }
                        }
                    },
                );
            })
        }
    }

    /// The transpose of [`Grid::spread`].
    fn gather(self, from: &[f32]) -> Vec<f32> {
        let Self { height, width, stride } = self;
        // SAFETY: the chunks cover the buffer, and each line of a plane is written whole.
        unsafe {
            filled(from.len(), |to| {
                to.par_chunks_mut(self.area()).zip(from.par_chunks(self.area())).for_each(
                    |(to, from)| {
                        for (block, to) in to.chunks_exact_mut(height * width).enumerate() {
                            for (y, to) in to.chunks_exact_mut(width).enumerate() {
                                let line = (y * stride + block / stride) * width * stride;
                                let from = &from[line + block % stride..];
                                for (to, &v) in to.iter_mut().zip(from.iter().step_by(stride)) {
                                    to.write(v);
                                }
                            }
                        }
                    },
                );
            })
        }
    }
}
