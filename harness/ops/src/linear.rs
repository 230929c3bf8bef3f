//! Affine maps, with what follows them in a transformer block.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::panels::{Block, available as panels_available};
use crate::product::{Matrix, product};
use crate::storage::{Shared, Values, contiguous_f32, filled, fusable, tensor};
use crate::{compose, gelu, simd};

/// Columns of the result a task computes: two panels or tiles of the AVX-512 products.
const TASK_COLUMNS: usize = 96;
/// Rows a task computes at most; packing the weights is paid once in each.
const TASK_ROWS: usize = 2304;
/// Rows are not split below this for want of tasks: above 64 rows the product's order of summation does not
/// depend on their number, so that however many threads there are, the result is the same.
const SPLIT_ROWS: usize = 128;

/// `x W^T + b`.
///
/// `x` is `[.., in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[.., out]` in the weight's dtype
/// (see [the precision rules](crate#precision)).
///
/// # Errors
/// If the shapes do not fit or the devices differ.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    check("linear", x, weight, bias, None)?;
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::tokens::linear(x, weight, bias)? {
        return Ok(y);
    }
    if !fused(x, weight, bias, None) {
        return compose::linear(x, weight, bias);
    }
    rounded(x, weight, bias)
}

/// `gelu(x W^T + b)` with the exact GELU of [`gelu`](crate::gelu()).
///
/// Shapes, dtypes and errors are those of [`linear`]. In bf16 and f16 the product is rounded before GELU and
/// the result after it.
///
/// # Errors
/// As [`linear`].
pub fn linear_gelu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    check("linear_gelu", x, weight, bias, None)?;
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::tokens::linear_gelu(x, weight, bias)? {
        return Ok(y);
    }
    if !fused(x, weight, bias, None) {
        return compose::gelu(&compose::linear(x, weight, bias)?);
    }
    if weight.dtype() == DType::F32 {
        return affine(x, weight, bias, None, true);
    }
    gelu(&rounded(x, weight, bias)?)
}

/// `residual + (x W^T + b)`.
///
/// `residual` is `[.., out]`; otherwise the shapes and errors are those of [`linear`]. The result is f32: a
/// product in bf16 or f16 is rounded and then added to the residual stream in f32.
///
/// # Errors
/// As [`linear`].
pub fn linear_residual(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: &Tensor,
) -> Result<Tensor> {
    check("linear_residual", x, weight, bias, Some(residual))?;
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::tokens::linear_residual(x, weight, bias, residual)? {
        return Ok(y);
    }
    if fused(x, weight, bias, Some(residual)) && weight.dtype() == DType::F32 {
        return affine(x, weight, bias, Some(residual), false);
    }
    residual.to_dtype(DType::F32)? + linear(x, weight, bias)?.to_dtype(DType::F32)?
}

/// [`linear_residual`], and [`layer_norm_as`](crate::layer_norm_as) of it in the dtype of `weight`:
/// `(stream, normalised)`.
///
/// `norm` is the weight and bias of the normalisation, `[out]` each, and `eps` what it adds to a variance.
///
/// # Errors
/// As [`linear_residual`] and [`layer_norm_as`](crate::layer_norm_as).
pub fn linear_residual_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: &Tensor,
    norm: [&Tensor; 2],
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let [scale, shift] = norm;
    #[cfg(feature = "cuda")]
    {
        check("linear_residual_norm", x, weight, bias, Some(residual))?;
        let out = &weight.dims()[..1];
        let norm = crate::cuda::tokens::Norm { weight: scale, bias: shift, eps };
        if scale.dims() == out
            && shift.dims() == out
            && let Some(both) =
                crate::cuda::tokens::linear_residual_norm(x, weight, bias, residual, norm)?
        {
            return Ok(both);
        }
    }
    let stream = linear_residual(x, weight, bias, residual)?;
    let normalised = crate::layer_norm_as(&stream, scale, shift, eps, weight.dtype())?;
    Ok((stream, normalised))
}

fn check(
    op: &str,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
) -> Result<()> {
    let &[out, inputs] = weight.dims() else {
        bail!("{op}: expected a weight [out, in], found {:?}", weight.dims());
    };
    let Some((&last, leading)) = x.dims().split_last() else {
        bail!("{op}: expected an input [.., {inputs}], found a scalar");
    };
    if last != inputs {
        bail!(
            "{op}: expected an input [.., {inputs}] for weight {:?}, found {:?}",
            weight.dims(),
            x.dims()
        );
    }
    if let Some(bias) = bias
        && bias.dims() != [out]
    {
        bail!("{op}: expected a bias [{out}], found {:?}", bias.dims());
    }
    if let Some(residual) = residual
        && residual.dims() != [leading, &[out]].concat()
    {
        bail!(
            "{op}: expected a residual {:?}, found {:?}",
            [leading, &[out]].concat(),
            residual.dims()
        );
    }
    Ok(())
}

fn fused(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> bool {
    let inputs: Vec<&Tensor> =
        [Some(x), Some(weight), bias, residual].into_iter().flatten().collect();
    fusable(&inputs) && matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16)
}

/// The affine map with every input and the result rounded to the weight's dtype, summed in f32.
fn rounded(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let dtype = weight.dtype();
    let bias = bias.map(|b| b.to_dtype(dtype)).transpose()?;
    affine(&x.to_dtype(dtype)?, weight, bias.as_ref(), None, false)?.to_dtype(dtype)
}

/// `residual + x W^T + b`, then GELU if asked, all in f32.
fn affine(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    gelu: bool,
) -> Result<Tensor> {
    let (out, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    let rows = shape[..shape.len() - 1].iter().product();
    let (x, weight) = (contiguous_f32(x)?, contiguous_f32(weight)?);
    let bias = bias.map(contiguous_f32).transpose()?;
    let residual = residual.map(contiguous_f32).transpose()?;
    let (x, weight) = (Values::lock(&x), Values::lock(&weight));
    let (bias, residual) = (bias.as_ref().map(Values::lock), residual.as_ref().map(Values::lock));
    let call = Affine {
        rows,
        inputs,
        out,
        x: x.slice()?,
        weight: weight.slice()?,
        bias: bias.as_ref().map(Values::slice).transpose()?,
        residual: residual.as_ref().map(Values::slice).transpose()?,
        gelu,
    };
    tensor(call.run(), &shape)
}

/// Whether the AVX-512 product serves `rows` rows: it is there, and they repay the packing of the weights.
fn panels_serve(rows: usize) -> bool {
    rows >= 16 && panels_available()
}

#[cfg(not(target_arch = "x86_64"))]
fn panels_available() -> bool {
    false
}

struct Affine<'a> {
    rows: usize,
    inputs: usize,
    out: usize,
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    gelu: bool,
}

impl Affine<'_> {
    fn run(&self) -> Vec<f32> {
        let column_tasks = self.out.div_ceil(TASK_COLUMNS).max(1);
        let wanted = (2 * rayon::current_num_threads()).div_ceil(column_tasks);
        let row_tasks =
            wanted.min(self.rows / SPLIT_ROWS).max(self.rows.div_ceil(TASK_ROWS)).max(1);
        // SAFETY: the tasks' blocks tile the result, and `block` writes its block whole.
        unsafe {
            filled(self.rows * self.out, |to| {
                let to = Shared::new(to);
                (0..row_tasks * column_tasks).into_par_iter().with_max_len(1).for_each(|task| {
                    let part = task / column_tasks;
                    let row = part * self.rows / row_tasks;
                    let rows = (part + 1) * self.rows / row_tasks - row;
                    let column = task % column_tasks * TASK_COLUMNS;
                    let columns = TASK_COLUMNS.min(self.out - column);
                    if panels_serve(self.rows) {
                        self.block_by_panels(to, [row, rows], [column, columns]);
                    } else {
                        self.block(to, [row, rows], [column, columns]);
                    }
                });
            })
        }
    }

    /// What [`Affine::block`] does, with the AVX-512 product.
    ///
    /// # Safety
    /// As for [`Affine::block`], and [`panels_serve`] must hold.
    #[cfg(target_arch = "x86_64")]
    unsafe fn block_by_panels(
        &self,
        to: Shared,
        [row, rows]: [usize; 2],
        [column, columns]: [usize; 2],
    ) {
        let first = row * self.out + column;
        let block = Block {
            x: &self.x[row * self.inputs..][..rows * self.inputs],
            weight: &self.weight[column * self.inputs..][..columns * self.inputs],
            inputs: self.inputs,
            bias: self.bias.map(|b| &b[column..][..columns]),
            residual: self.residual.map(|r| &r[first..]),
            gelu: self.gelu,
        };
        // SAFETY: the caller's.
        unsafe { block.compute([rows, columns], to.at(first), self.out) };
    }

    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn block_by_panels(&self, to: Shared, rows: [usize; 2], columns: [usize; 2]) {
        // SAFETY: the caller's.
        unsafe { self.block(to, rows, columns) };
    }

    /// Computes `rows` rows from `row` on and `columns` columns from `column` on.
    ///
    /// # Safety
    /// `to` must hold the whole result, and nothing else may access the block meanwhile.
    unsafe fn block(&self, to: Shared, [row, rows]: [usize; 2], [column, columns]: [usize; 2]) {
        let at = |r: usize| (row + r) * self.out + column;
        let bias = self.bias.map(|b| &b[column..][..columns]);
        for r in 0..rows {
            // The product is then added in the same pass in which it would be stored.
            match (bias, self.residual.map(|d| &d[at(r)..][..columns])) {
                (None, None) => break,
                (Some(start), None) | (None, Some(start)) => {
                    // SAFETY: `start` and this row of the block are `columns` long and do not overlap.
                    unsafe { to.at(at(r)).copy_from_nonoverlapping(start.as_ptr(), columns) };
                }
                (Some(bias), Some(residual)) => {
                    for (c, (b, d)) in bias.iter().zip(residual).enumerate() {
                        // SAFETY: the element lies in the block.
                        unsafe { to.at(at(r) + c).write(b + d) };
                    }
                }
            }
        }
        let x = Matrix { first: self.x[row * self.inputs..].as_ptr(), row: self.inputs, column: 1 };
        let weight = Matrix {
            first: self.weight[column * self.inputs..].as_ptr(),
            row: self.inputs,
            column: 1,
        };
        let started = bias.is_some() || self.residual.is_some();
        // SAFETY: the block is ours, holds `rows` by `columns`, and was initialised above if `started`; `x`
        // and `weight` hold `inputs` values for each of its rows and columns.
        unsafe {
            let shape = [rows, columns, self.inputs];
            product(shape, x, weight.transposed(), 1.0, to.at(at(0)), self.out, started);
        }
        if self.gelu {
            for r in 0..rows {
                // SAFETY: the row lies in the block and the product has initialised it.
                simd::gelu_in_place(unsafe {
                    std::slice::from_raw_parts_mut(to.at(at(r)), columns)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processors without AVX-512 compute the same: depths of several packings, and panels cut short.
    #[test]
    fn both_products_agree() {
        let wave = |len: usize, step: f32| -> Vec<f32> {
            (0..len).map(|i| (i as f32 * step).sin()).collect()
        };
        for (rows, inputs, out) in
            [(16, 1, 1), (17, 767, 95), (41, 769, 97), (23, 1600, 48), (19, 0, 5)]
        {
            let (x, weight) = (wave(rows * inputs, 0.37), wave(out * inputs, 0.11));
            let (bias, residual) = (wave(out, 0.7), wave(rows * out, 0.9));
            for (bias, residual) in
                [(None, None), (Some(&*bias), None), (Some(&*bias), Some(&*residual))]
            {
                for gelu in [false, true] {
                    let call =
                        Affine { rows, inputs, out, x: &x, weight: &weight, bias, residual, gelu };
                    let panels = call.run();
                    // SAFETY: each column block is written whole, one after the other.
                    let plain = unsafe {
                        filled(rows * out, |to| {
                            let to = Shared::new(to);
                            for column in (0..out).step_by(TASK_COLUMNS) {
                                let columns = TASK_COLUMNS.min(out - column);
                                call.block(to, [0, rows], [column, columns]);
                            }
                        })
                    };
                    for (i, (a, b)) in panels.iter().zip(&plain).enumerate() {
                        assert!(
                            (a - b).abs() < 3e-4,
                            "{rows} {inputs} {out} element {i}: {a}, {b}"
                        );
                    }
                }
            }
        }
    }
}
