//! What is done to matrices element by element on the CPU, each in as few passes as it takes. Work is
//! divided by shape alone.

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Columns that a thread sums at a time: 256 lines of them stay in L2.
const COLUMNS: usize = 256;
/// Values that a thread takes at a time otherwise.
const CHUNK: usize = 1 << 14;

/// Calls `with` on the elements of contiguous f32 tensors on the CPU.
pub(super) fn with<const N: usize, R>(
    tensors: [&Tensor; N],
    with: impl FnOnce([&[f32]; N]) -> R,
) -> Result<R> {
    let held = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&held) {
        *slice = match (&**storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => &data[start..end],
            (other, _) => bail!("expected contiguous f32 on the CPU, found {:?}", other.dtype()),
        };
    }
    Ok(with(slices))
}

/// The mean of each column, and the sum of squares of its deviations from it.
pub(super) fn moments(values: &[f32], columns: usize) -> [Vec<f32>; 2] {
    let (mut means, mut squares) = (vec![0.0; columns], vec![0.0; columns]);
    let share = 1.0 / (values.len() / columns) as f32;
    means.par_chunks_mut(COLUMNS).zip(squares.par_chunks_mut(COLUMNS)).enumerate().for_each(
        |(block, (means, squares))| {
            let at = block * COLUMNS;
            for row in values.chunks_exact(columns) {
                means.iter_mut().zip(&row[at..]).for_each(|(mean, value)| *mean += value);
            }
            means.iter_mut().for_each(|mean| *mean *= share);
            for row in values.chunks_exact(columns) {
                for ((square, mean), value) in squares.iter_mut().zip(&*means).zip(&row[at..]) {
                    *square += (value - mean) * (value - mean);
                }
            }
        },
    );
    [means, squares]
}

/// `(x - mean) inverse`, and that scaled and shifted.
pub(super) fn normalised(
    values: &[f32],
    [mean, inverse, scale, shift]: [&[f32]; 4],
) -> [Vec<f32>; 2] {
    let columns = mean.len();
    let (mut plain, mut result) = (vec![0.0; values.len()], vec![0.0; values.len()]);
    plain
        .par_chunks_mut(columns)
        .zip(result.par_chunks_mut(columns))
        .zip(values.par_chunks(columns))
        .for_each(|((plain, result), values)| {
            for (i, value) in values.iter().enumerate() {
                plain[i] = (value - mean[i]) * inverse[i];
                result[i] = plain[i] * scale[i] + shift[i];
            }
        });
    [plain, result]
}

/// What [`Norm::backward`](super::norm::Norm::backward) wants, from the product `gradient^T plain`, the
/// layer's weight, the norm's scale and shift, and the gradient's column sums: the gradients of the
/// scale, the shift and the layer's weight.
pub(super) fn gradients(
    product: &[f32],
    weight: &[f32],
    [scale, shift, sums]: [&[f32]; 3],
) -> [Vec<f32>; 3] {
    let columns = scale.len();
    let (mut of_scale, mut of_shift) = (vec![0.0; columns], vec![0.0; columns]);
    of_scale.par_chunks_mut(COLUMNS).zip(of_shift.par_chunks_mut(COLUMNS)).enumerate().for_each(
        |(block, (of_scale, of_shift))| {
            let at = block * COLUMNS;
            let rows = product.chunks_exact(columns).zip(weight.chunks_exact(columns));
            for ((product, weight), sum) in rows.zip(sums) {
                let pairs = product[at..].iter().zip(&weight[at..]);
                for ((scale, shift), (product, weight)) in
                    of_scale.iter_mut().zip(&mut *of_shift).zip(pairs)
                {
                    *scale += product * weight;
                    *shift += sum * weight;
                }
            }
        },
    );
    let mut layer = vec![0.0; product.len()];
    layer.par_chunks_mut(columns).zip(product.par_chunks(columns)).zip(sums).for_each(
        |((layer, product), sum)| {
            for (i, product) in product.iter().enumerate() {
                layer[i] = product * scale[i] + sum * shift[i];
            }
        },
    );
    [of_scale, of_shift, layer]
}

/// `values` where `of` is above 0, else 0.
pub(super) fn where_positive(of: &[f32], values: &[f32]) -> Vec<f32> {
    let mut kept = vec![0.0; values.len()];
    kept.par_chunks_mut(CHUNK).zip(of.par_chunks(CHUNK).zip(values.par_chunks(CHUNK))).for_each(
        |(kept, (of, values))| {
            for (kept, (of, value)) in kept.iter_mut().zip(of.iter().zip(values)) {
                *kept = if *of > 0.0 { *value } else { 0.0 };
            }
        },
    );
    kept
}

/// Squares are summed in f32 over eight lanes of a chunk, and in f64 over them.
pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    const LANES: usize = 8;
    let sums: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| {
            let (whole, rest) = chunk.as_chunks::<LANES>();
            let mut lanes = [0.0_f32; LANES];
            for values in whole {
                lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane += value * value);
            }
            let rest = rest.iter().map(|value| value * value);
            lanes.into_iter().chain(rest).map(f64::from).sum()
        })
        .collect();
    sums.into_iter().sum()
}
