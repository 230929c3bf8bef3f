//! Resize of a position embedding to another grid, as PyTorch's `interpolate(mode="bicubic",
//! align_corners=False)` computes it: cubic convolution (Keys, 1981), with a = -0.75 and indices
//! clamped at the border, or, antialiased, with a = -0.5 and weights normalised over what is inside; or
//! linear between corners, as SciPy's `zoom(order=1)` does.

use candle_core::{DType, Result, Tensor};
use serde::Serialize;

/// How positions are fitted to a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Resize {
    /// By the sizes of the grids.
    Size,
    /// By the sizes of the grids, antialiased.
    SizeAntialias,
    /// By the factor (new + 0.1) / old, as the authors of DINOv2 do.
    FactorOffset,
    /// Linear, corners onto corners, as the authors of ViT and SigLIP do.
    LinearCorners,
}

impl Resize {
    /// In words.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Size => "bicubic by size",
            Self::SizeAntialias => "bicubic by size, antialiased",
            Self::FactorOffset => "bicubic by the factor (new + 0.1) / old",
            Self::LinearCorners => "linear between corners",
        }
    }

    /// `[output, input]` interpolation weights, row-major.
    fn weights(self, input: usize, output: usize) -> Vec<f32> {
        match self {
            Self::Size => plain(input, output, input as f64 / output as f64),
            Self::SizeAntialias => antialiased(input, output),
            Self::FactorOffset => plain(input, output, input as f64 / (output as f64 + 0.1)),
            Self::LinearCorners => linear(input, output, |o| {
                o as f64 * (input - 1) as f64 / (output.max(2) - 1) as f64
            }),
        }
    }
}

/// Resizes `positions [1, H*W, D]` on a grid `from = (H, W)` to `to = (H', W')`: `[1, H'*W', D]`.
pub(super) fn resize(
    positions: &Tensor,
    from: (usize, usize),
    to: (usize, usize),
    how: Resize,
) -> Result<Tensor> {
    if from == to {
        return Ok(positions.clone());
    }
    let device = positions.device();
    let width = positions.dim(2)?;
    let rows = Tensor::from_vec(how.weights(from.0, to.0), (to.0, from.0), device)?;
    let columns = Tensor::from_vec(how.weights(from.1, to.1), (to.1, from.1), device)?;
    let x = positions.to_dtype(DType::F32)?;
    // [H, W*D] by rows, then [W, H'*D] by columns.
    let x = rows.matmul(&x.reshape((from.0, from.1 * width))?)?;
    let x = x.reshape((to.0, from.1, width))?.transpose(0, 1)?.contiguous()?;
    let x = columns.matmul(&x.reshape((from.1, to.0 * width))?)?;
    let x = x.reshape((to.1, to.0, width))?.transpose(0, 1)?.contiguous()?;
    x.reshape((1, to.0 * to.1, width))
}

/// Weights for a step of `scale` inputs an output.
fn plain(input: usize, output: usize, scale: f64) -> Vec<f32> {
    const A: f64 = -0.75;
    let mut matrix = vec![0f32; input * output];
    for (o, row) in matrix.chunks_exact_mut(input).enumerate() {
        let center = (o as f64 + 0.5) * scale - 0.5;
        let first = center.floor();
        let t = center - first;
        let taps = [t + 1.0, t, 1.0 - t, 2.0 - t].map(|x| cubic(A, x));
        for (k, weight) in taps.into_iter().enumerate() {
            let index = (first as i64 - 1 + k as i64).clamp(0, input as i64 - 1);
            row[index as usize] += weight as f32;
        }
    }
    matrix
}

/// Weights with a kernel that is widened where the result is smaller.
fn antialiased(input: usize, output: usize) -> Vec<f32> {
    const A: f64 = -0.5;
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let mut matrix = vec![0f32; input * output];
    for (o, row) in matrix.chunks_exact_mut(input).enumerate() {
        let center = (o as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        let weight = |i: usize| cubic(A, (i as f64 - center + 0.5) / stretch);
        let sum: f64 = (first..end).map(weight).sum();
        for (i, slot) in row.iter_mut().enumerate().take(end).skip(first) {
            *slot = (weight(i) / sum) as f32;
        }
    }
    matrix
}

/// Weights of the two inputs around the place `at(o)` of each output, clamped to the inputs.
fn linear(input: usize, output: usize, at: impl Fn(usize) -> f64) -> Vec<f32> {
    let mut matrix = vec![0f32; input * output];
    for (o, row) in matrix.chunks_exact_mut(input).enumerate() {
        let place = at(o).clamp(0.0, (input - 1) as f64);
        let first = place.floor();
        let second = (first as usize + 1).min(input - 1);
        row[first as usize] += (1.0 - (place - first)) as f32;
        row[second] += (place - first) as f32;
    }
    matrix
}

/// Resizes a table `[L, D]` over distances to `[L', D]`, linear by size, as PyTorch's
/// `interpolate(mode="linear", align_corners=False)` computes it.
pub(super) fn resize_distances(table: &Tensor, to: usize) -> Result<Tensor> {
    let from = table.dim(0)?;
    if from == to {
        return Ok(table.clone());
    }
    let step = from as f64 / to as f64;
    let weights = linear(from, to, |o| (o as f64 + 0.5) * step - 0.5);
    Tensor::from_vec(weights, (to, from), table.device())?.matmul(table)
}

/// Keys' kernel at `x`.
fn cubic(a: f64, x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_position_is_an_average() {
        for (input, output) in [(16, 32), (16, 24), (16, 7), (4, 4), (1, 5)] {
            for how in
                [Resize::Size, Resize::SizeAntialias, Resize::FactorOffset, Resize::LinearCorners]
            {
                for row in how.weights(input, output).chunks(input) {
                    let sum: f32 = row.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-6, "{how:?} {input} -> {output}: {sum}");
                }
            }
        }
    }

    /// `interpolate(torch.tensor([[[[0., 1., 4., 9.]]]]), size=(1, 6), mode="bicubic")` of torch.
    #[test]
    fn a_row_matches_torch() {
        let weights = Resize::Size.weights(4, 6);
        let row = |o: usize| -> f32 {
            weights[o * 4..o * 4 + 4].iter().zip([0.0, 1.0, 4.0, 9.0]).map(|(w, x)| w * x).sum()
        };
        let torch = TORCH_ROW;
        for (o, expected) in torch.into_iter().enumerate() {
            assert!((row(o) - expected).abs() < 1e-5, "{o}: {} {expected}", row(o));
        }
    }
    const TORCH_ROW: [f32; 6] =
        [-0.086_805_58, 0.21875, 1.430_555, 3.152_777_7, 6.78125, 9.434_029];
}
