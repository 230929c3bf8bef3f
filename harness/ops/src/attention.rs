//! Scaled dot-product attention, tile by tile, without ever storing the whole matrix of scores.

use std::cell::RefCell;

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::compose;
use crate::product::{Matrix, product};
use crate::simd::{self, LANES};
use crate::storage::{Shared, Values, filled, fusable, tensor};

/// Queries a task takes at most.
const TASK_QUERIES: usize = 288;
/// Keys whose scores are held at once at most: with [`TASK_QUERIES`] rows they stay in a 1 MiB L2.
const TILE_KEYS: usize = 640;

/// Multi-head self-attention from a packed projection.
///
/// `qkv` is `[B, N, 3 * D]`: the query, key and value thirds of the last dimension, each holding its `heads`
/// heads one after the other. The scale defaults to `1 / sqrt(D / heads)`. The result is `[B, N, D]`, heads
/// side by side, computed in f32 and returned in the dtype of `qkv`.
///
/// # Errors
/// If the last dimension is not a multiple of `3 * heads`, or there is no head.
pub fn attention(qkv: &Tensor, heads: usize, scale: Option<f64>) -> Result<Tensor> {
    let &[batch, tokens, width] = qkv.dims() else {
        bail!("attention: expected qkv [B, N, 3 * D], found {:?}", qkv.dims());
    };
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        bail!(
            "attention: expected a last dimension that is a multiple of 3 x {heads} heads, found {:?}",
            qkv.dims()
        );
    }
    let parts = qkv.reshape((batch, tokens, 3, heads, width / (3 * heads)))?;
    let part = |i: usize| parts.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
    attention_qkv(&part(0)?, &part(1)?, &part(2)?, scale)
}

/// Multi-head attention, `softmax(q k^T scale) v` (Vaswani et al., arXiv 1706.03762, section 3.2).
///
/// `q` is `[B, H, N, Dh]`, `k` `[B, H, M, Dh]`, `v` `[B, H, M, Dv]`, of any strides (transposed views are not
/// copied). The scale defaults to `1 / sqrt(Dh)`. The result is `[B, N, H * Dv]`, heads side by side,
/// computed in f32 and returned in the dtype of `q`.
///
/// # Errors
/// If the shapes do not fit, or there is no key or `Dh` is 0.
pub fn attention_qkv(q: &Tensor, k: &Tensor, v: &Tensor, scale: Option<f64>) -> Result<Tensor> {
    let shapes = [q.dims(), k.dims(), v.dims()];
    let [&[batch, heads, queries, depth], &[kb, kh, keys, kd], &[vb, vh, vn, values]] = shapes
    else {
        bail!("attention: expected q, k and v of four dimensions, found {shapes:?}");
    };
    if [kb, kh, kd] != [batch, heads, depth] || [vb, vh, vn] != [batch, heads, keys] {
        bail!(
            "attention: expected q [B, H, N, Dh], k [B, H, M, Dh] and v [B, H, M, Dv], found {shapes:?}"
        );
    }
    if keys == 0 || depth == 0 {
        bail!("attention: expected at least one key of at least one element, found {shapes:?}");
    }
    let scale = scale.unwrap_or(1.0 / (depth as f64).sqrt());
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::attention::attention(q, k, v, scale)? {
        return Ok(y);
    }
    if !fusable(&[q, k, v]) {
        return compose::attention(q, k, v, scale);
    }
    let (wide_q, wide_k, wide_v) = (rows_f32(q)?, rows_f32(k)?, rows_f32(v)?);
    let locks = (Values::lock(&wide_q), Values::lock(&wide_k), Values::lock(&wide_v));
    let call = Attention {
        batch,
        heads,
        queries,
        keys,
        depth,
        values,
        scale: scale as f32,
        q: Heads::new(locks.0.to_end()?, wide_q.stride()),
        k: Heads::new(locks.1.to_end()?, wide_k.stride()),
        v: Heads::new(locks.2.to_end()?, wide_v.stride()),
    };
    tensor(call.run(), &[batch, queries, heads * values])?.to_dtype(q.dtype())
}

/// `t` in f32 with adjacent elements in its last dimension.
fn rows_f32(t: &Tensor) -> Result<Tensor> {
    let t = t.to_dtype(DType::F32)?;
    if t.stride().last() == Some(&1) { Ok(t) } else { t.contiguous() }
}

/// One operand, `[B, H, N, D]` with these strides of its first three dimensions.
struct Heads<'a> {
    data: &'a [f32],
    strides: [usize; 3],
}

impl<'a> Heads<'a> {
    fn new(data: &'a [f32], strides: &[usize]) -> Self {
        Self { data, strides: [strides[0], strides[1], strides[2]] }
    }

    /// The rows of one head from token `first` on.
    fn head(&self, batch: usize, head: usize, first: usize) -> Matrix {
        let [b, h, row] = self.strides;
        Matrix { first: self.data[batch * b + head * h + first * row..].as_ptr(), row, column: 1 }
    }
}

struct Attention<'a> {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    values: usize,
    scale: f32,
    q: Heads<'a>,
    k: Heads<'a>,
    v: Heads<'a>,
}

/// A thread's scores, and the largest score and the sum of each query so far.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    rows: Vec<(f32, f32)>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Attention<'_> {
    fn run(&self) -> Vec<f32> {
        let width = self.heads * self.values;
        let query_tasks = self.queries.div_ceil(TASK_QUERIES);
        let task_queries = self.queries.div_ceil(query_tasks.max(1));
        let tasks = if width == 0 { 0 } else { self.batch * self.heads * query_tasks };
        // SAFETY: the tasks' blocks tile the result, and `block` writes its block whole.
        unsafe {
            filled(self.batch * self.queries * width, |to| {
                let to = Shared::new(to);
                (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
                    let (pair, part) = (task / query_tasks, task % query_tasks);
                    let first = part * task_queries;
                    let count = task_queries.min(self.queries.saturating_sub(first));
                    SCRATCH.with_borrow_mut(|scratch| {
                        self.block(
                            to,
                            pair / self.heads,
                            pair % self.heads,
                            [first, count],
                            scratch,
                        );
                    });
                });
            })
        }
    }

    /// Computes `count` queries from `first` on for one head of one sample.
    ///
    /// The softmax is that of Milakov and Gimelshein (arXiv 1805.02867): a later tile of keys with a larger
    /// score rescales what was summed before, and the division by the sum comes last.
    ///
    /// # Safety
    /// `to` must hold the whole result, and nothing else may access the block meanwhile.
    unsafe fn block(
        &self,
        to: Shared,
        batch: usize,
        head: usize,
        [first, count]: [usize; 2],
        scratch: &mut Scratch,
    ) {
        let width = self.heads * self.values;
        let at = |r: usize| (batch * self.queries + first + r) * width + head * self.values;
        let q = self.q.head(batch, head, first);
        let tile = self.keys.div_ceil(self.keys.div_ceil(TILE_KEYS));
        // Whole vectors to a row; the surplus scores are minus infinity and weigh nothing.
        let stride = tile.next_multiple_of(LANES);
        scratch.scores.resize(count * stride, 0.0);
        scratch.rows.clear();
        scratch.rows.resize(count, (f32::NEG_INFINITY, 0.0));
        for start in (0..self.keys).step_by(tile) {
            let keys = tile.min(self.keys - start);
            let (k, v) = (self.k.head(batch, head, start), self.v.head(batch, head, start));
            let scores = scratch.scores.as_mut_ptr();
            // SAFETY: the scratch holds `count` rows of `stride >= keys` scores, and `q` and `k` hold `depth`
            // values in each of their rows.
            unsafe {
                let shape = [count, keys, self.depth];
                product(shape, q, k.transposed(), self.scale, scores, stride, false);
            }
            for (r, (row, (largest, sum))) in
                scratch.scores.chunks_exact_mut(stride).zip(&mut scratch.rows).enumerate()
            {
                row[keys..].fill(f32::NEG_INFINITY);
                let (highest, added) = simd::exponentiate(row, *largest);
                if start > 0 && highest != *largest {
                    let factor = (*largest - highest).exp();
                    *sum *= factor;
                    // SAFETY: the row is ours, and the first tile has initialised it.
                    simd::scale(unsafe { self.row(to, at(r)) }, factor);
                }
                (*largest, *sum) = (highest, *sum + added);
            }
            let shares = Matrix { first: scratch.scores.as_ptr(), row: stride, column: 1 };
            // SAFETY: the block is ours, and from the second tile on initialised; `v` holds `values` values
            // in each of its rows, of which there are `keys`, as there are scores in a row.
            unsafe {
                let shape = [count, self.values, keys];
                product(shape, shares, v, 1.0, to.at(at(0)), width, start > 0);
            }
        }
        for (r, (_, sum)) in scratch.rows.iter().enumerate() {
            // SAFETY: the row is ours, and the tiles have initialised it.
            simd::scale(unsafe { self.row(to, at(r)) }, 1.0 / sum);
        }
    }

    /// The result's `values` values from `index` on.
    ///
    /// # Safety
    /// They must be in `to`, initialised, and accessed by nothing else while the slice lives.
    unsafe fn row<'a>(&self, to: Shared, index: usize) -> &'a mut [f32] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(to.at(index), self.values) }
    }
}
