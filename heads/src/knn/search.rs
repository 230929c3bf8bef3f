use std::{borrow::Cow, ops::ControlFlow};

use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use super::{Features, Progress, topk::TopK};

/// The matrix product rounds differently for very small shapes (matrix-vector and horizontal
/// kernels). Blocks are filled up with zero rows to at least these sizes, so that a similarity
/// depends on its two rows alone: not on the block they fall into, nor on the other queries.
const MIN_TRAIN_ROWS: usize = 65;
const MIN_QUERY_ROWS: usize = 4;

/// How the search is cut. Constants, so that the same data are always cut in the same way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Queries that share one pass over the train set. Many, because the matrix product arranges
    /// each train block anew for its kernels.
    pub query_chunk: usize,
    /// Train rows in one matrix product. Not a power of two: rows of the result would compete for
    /// the same cache sets.
    pub train_block: usize,
}

impl Plan {
    pub const DEFAULT: Self = Self { query_chunk: 8192, train_block: 1008 };

    /// Bytes of the buffers of a search, see [`super::working_bytes`].
    pub fn bytes(&self, k: usize) -> usize {
        let nearest = TopK::capacity(k) * size_of::<u64>() + size_of::<TopK>();
        self.query_chunk * (nearest + self.train_block * size_of::<f32>())
    }
}

/// Buffers of a search, used again for every chunk of queries.
pub(super) struct Searcher<'a> {
    train: Features<'a>,
    plan: Plan,
    nearest: Vec<TopK>,
    similarities: Vec<f32>,
}

impl<'a> Searcher<'a> {
    pub(super) fn new(train: Features<'a>, queries: usize, k: usize, plan: Plan) -> Self {
        let nearest = (0..queries.min(plan.query_chunk)).map(|_| TopK::new(k)).collect();
        Self { train, plan, nearest, similarities: Vec::new() }
    }

    /// Finds the nearest train rows of every query. `consume` gets the results of one chunk of
    /// queries after another, in order; `progress` is asked after every matrix product.
    pub(super) fn run(
        &mut self,
        queries: Features<'_>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
        consume: &mut dyn FnMut(&mut [TopK]),
    ) -> ControlFlow<Progress> {
        let total = queries.rows() as u64 * self.train.rows() as u64;
        let mut state = Progress { done: 0, total };
        for chunk in queries.values().chunks(self.plan.query_chunk * queries.dim()) {
            let count = chunk.len() / queries.dim();
            self.nearest.iter_mut().for_each(TopK::clear);
            self.pass(chunk, &mut |similarities| {
                state.done += similarities;
                progress(state).map_break(|()| state)
            })?;
            if let Some(nearest) = self.nearest.get_mut(..count) {
                consume(nearest);
            }
        }
        ControlFlow::Continue(())
    }

    /// One pass of one chunk of queries over the train set.
    fn pass(
        &mut self,
        queries: &[f32],
        progress: &mut dyn FnMut(u64) -> ControlFlow<Progress>,
    ) -> ControlFlow<Progress> {
        let dim = self.train.dim();
        let count = queries.len() / dim;
        let queries = padded(queries, MIN_QUERY_ROWS, dim);
        let blocks = self.train.values().chunks(self.plan.train_block * dim);
        for (first, block) in (0..).step_by(self.plan.train_block).zip(blocks) {
            let rows = block.len() / dim;
            let block = padded(block, MIN_TRAIN_ROWS, dim);
            let width = products(&block, &queries, dim, &mut self.similarities);
            self.similarities
                .par_chunks(width)
                .zip(&mut self.nearest)
                .take(count)
                .with_min_len(8)
                .for_each(|(row, nearest)| nearest.offer(first, row.get(..rows).unwrap_or(row)));
            progress(rows as u64 * count as u64)?;
        }
        ControlFlow::Continue(())
    }
}

/// Rows, copied and filled up with zero rows where there are too few.
fn padded(rows: &[f32], minimum: usize, dim: usize) -> Cow<'_, [f32]> {
    let mut rows = Cow::Borrowed(rows);
    if rows.len() < minimum * dim {
        rows.to_mut().resize(minimum * dim, 0.0);
    }
    rows
}

/// Dot products of every query with every block row to the front of `out`, `[queries, block rows]`;
/// returns the number of block rows. Every product is summed in one order whatever the number of
/// threads.
fn products(block: &[f32], queries: &[f32], dim: usize, out: &mut Vec<f32>) -> usize {
    let (m, n) = (block.len() / dim, queries.len() / dim);
    if out.len() < m * n {
        out.resize(m * n, 0.0);
    }
    // SAFETY: `block` is `[m, dim]`, `queries` is `[n, dim]` and `out` begins with `[n, m]`, all
    // row-major; the strides below address no element outside of them. `out` is borrowed mutably
    // and overlaps neither.
    unsafe {
        gemm(
            m,
            n,
            dim,
            out.as_mut_ptr(),
            m as isize,
            1,
            false,
            block.as_ptr(),
            1,
            dim as isize,
            queries.as_ptr(),
            dim as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
    m
}
