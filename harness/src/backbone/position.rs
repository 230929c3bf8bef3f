//! Bicubic resize of a position embedding, as `torch.nn.functional.interpolate(mode="bicubic",
//! align_corners=False, antialias=False)` computes it: cubic convolution with a = -0.75 and indices
//! clamped at the border (Keys, 1981).

use candle_core::{DType, Result, Tensor};

const A: f64 = -0.75;

/// Resizes `positions [1, H*W, D]` on a grid `from = (H, W)` to `to = (H', W')`: `[1, H'*W', D]`.
pub(super) fn resize(
    positions: &Tensor,
    from: (usize, usize),
    to: (usize, usize),
) -> Result<Tensor> {
    if from == to {
        return Ok(positions.clone());
    }
    let device = positions.device();
    let width = positions.dim(2)?;
    let rows = Tensor::from_vec(weights(from.0, to.0), (to.0, from.0), device)?;
    let columns = Tensor::from_vec(weights(from.1, to.1), (to.1, from.1), device)?;
    let x = positions.to_dtype(DType::F32)?;
    // [H, W*D] by rows, then [W, H'*D] by columns.
    let x = rows.matmul(&x.reshape((from.0, from.1 * width))?)?;
    let x = x.reshape((to.0, from.1, width))?.transpose(0, 1)?.contiguous()?;
    let x = columns.matmul(&x.reshape((from.1, to.0 * width))?)?;
    let x = x.reshape((to.1, to.0, width))?.transpose(0, 1)?.contiguous()?;
    x.reshape((1, to.0 * to.1, width))
}

/// `[output, input]` interpolation weights, row-major.
fn weights(input: usize, output: usize) -> Vec<f32> {
    let scale = input as f64 / output as f64;
    let mut matrix = vec![0f32; input * output];
    for (o, row) in matrix.chunks_exact_mut(input).enumerate() {
        let center = (o as f64 + 0.5) * scale - 0.5;
        let first = center.floor();
        let t = center - first;
        let taps = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        for (k, weight) in taps.into_iter().enumerate() {
            let index = (first as i64 - 1 + k as i64).clamp(0, input as i64 - 1);
            row[index as usize] += weight as f32;
        }
    }
    matrix
}

fn near(x: f64) -> f64 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

fn far(x: f64) -> f64 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_position_is_an_average() {
        for (input, output) in [(16, 32), (16, 24), (16, 7), (4, 4), (1, 5)] {
            for row in weights(input, output).chunks(input) {
                let sum: f32 = row.iter().sum();
                assert!((sum - 1.0).abs() < 1e-6, "{input} -> {output}: {sum}");
            }
        }
    }

    /// `interpolate(torch.tensor([[[[0., 1., 4., 9.]]]]), size=(1, 6), mode="bicubic")` of torch.
    #[test]
    fn a_row_matches_torch() {
        let weights = weights(4, 6);
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
