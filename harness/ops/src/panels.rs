//! An AVX-512 matrix product for linear layers: `x W^T` with what follows it applied on the way out.
//!
//! The scheme is that of Goto and van de Geijn (Anatomy of high-performance matrix multiplication, 2008): the
//! weights of up to [`PANEL`] outputs are packed into a panel that stays in L2, and a kernel keeps a
//! [`ROWS`] by [`PANEL`] tile of the result in registers while it runs down the panel. Only the weights are
//! packed; the rows of `x` are read where they are.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

use crate::simd;

const LANES: usize = 16;
const VECTORS: usize = 3;
/// Outputs in a panel: three vectors.
const PANEL: usize = VECTORS * LANES;
/// Rows of `x` in a tile: with three vectors each, 24 of the 32 registers are sums.
const ROWS: usize = 8;
/// Inputs packed at once at most: two panels of this depth take 576 KiB.
const DEPTH: usize = 768;

/// Whether this processor runs [`Block::compute`].
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// A block of `gelu?(residual + x W^T + bias)`.
pub(crate) struct Block<'a> {
    /// `[rows, inputs]`.
    pub x: &'a [f32],
    /// `[columns, inputs]`.
    pub weight: &'a [f32],
    pub inputs: usize,
    /// `[columns]`.
    pub bias: Option<&'a [f32]>,
    /// From the block's first element on, its rows as far apart as those of the result.
    pub residual: Option<&'a [f32]>,
    pub gelu: bool,
}

impl Block<'_> {
    /// Writes the block to `to`, whose rows are `stride` apart.
    ///
    /// An element's sum runs over the inputs in an order that depends on their number alone.
    ///
    /// # Safety
    /// [`available`] must hold, `to` must be valid for `rows` rows of `columns` elements `stride` apart, and
    /// nothing else may access them meanwhile. They need not be initialised, and are afterwards.
    pub(crate) unsafe fn compute(&self, [rows, columns]: [usize; 2], to: *mut f32, stride: usize) {
        assert!(self.x.len() >= rows * self.inputs && self.weight.len() >= columns * self.inputs);
        assert!(self.bias.is_none_or(|b| b.len() >= columns));
        let spanned = rows.saturating_sub(1) * stride + columns;
        assert!(self.residual.is_none_or(|r| rows == 0 || r.len() >= spanned));
        let panels = columns.div_ceil(PANEL);
        let depth = self.inputs.div_ceil(self.inputs.div_ceil(DEPTH).max(1)).max(1);
        let mut packed = vec![0.0; panels * depth * PANEL];
        let mut start = 0;
        loop {
            let length = depth.min(self.inputs - start);
            let last = start + length == self.inputs;
            self.pack(&mut packed, columns, start, length);
            for row in (0..rows).step_by(ROWS) {
                let tile_rows = ROWS.min(rows - row);
                for (p, panel) in
                    packed.chunks_exact(length.max(1) * PANEL).take(panels).enumerate()
                {
                    let column = p * PANEL;
                    let tile = Tile {
                        panel: panel.as_ptr(),
                        depth: length,
                        x: self.x[row * self.inputs + start..].as_ptr(),
                        x_stride: self.inputs,
                        masks: masks(columns - column),
                        bias: self.bias.map(|b| b[column..].as_ptr()),
                        residual: self.residual.map(|r| r[row * stride + column..].as_ptr()),
                        to: to.wrapping_add(row * stride + column),
                        stride,
                    };
                    // SAFETY: the processor has AVX-512; the asserts above bound what the tile reads, the
                    // masks keep it inside the block, and an earlier pass has initialised what it adds to.
                    unsafe { tile.compute_rows(tile_rows, start == 0) };
                }
                if last && self.gelu {
                    for r in row..row + tile_rows {
                        let first = to.wrapping_add(r * stride);
                        // SAFETY: this row of the block is complete, and ours.
                        simd::gelu_in_place(unsafe {
                            std::slice::from_raw_parts_mut(first, columns)
                        });
                    }
                }
            }
            start += length;
            if last {
                break;
            }
        }
    }

    /// Packs `length` inputs from `start` on: panel by panel, input by input, the weights of [`PANEL`]
    /// outputs. Outputs past the last keep what they held, which never reaches the result.
    fn pack(&self, packed: &mut [f32], columns: usize, start: usize, length: usize) {
        if length == 0 {
            return;
        }
        for (p, panel) in packed.chunks_exact_mut(length * PANEL).enumerate() {
            let (inputs, _) = panel.as_chunks_mut::<PANEL>();
            let outputs = PANEL.min(columns.saturating_sub(p * PANEL));
            // Few inputs at a time, so that the lines written stay in L1.
            for (part, lines) in inputs.chunks_mut(LANES).enumerate() {
                for output in 0..outputs {
                    let first = (p * PANEL + output) * self.inputs + start + part * LANES;
                    for (line, &w) in lines.iter_mut().zip(&self.weight[first..]) {
                        line[output] = w;
                    }
                }
            }
        }
    }
}

/// Which lanes of each vector of a panel hold one of `columns` outputs.
fn masks(columns: usize) -> [u16; VECTORS] {
    std::array::from_fn(|v| match columns.saturating_sub(v * LANES) {
        rest if rest >= LANES => u16::MAX,
        rest => (1 << rest) - 1,
    })
}

/// Up to [`ROWS`] rows of one panel.
struct Tile {
    panel: *const f32,
    depth: usize,
    x: *const f32,
    x_stride: usize,
    masks: [u16; VECTORS],
    bias: Option<*const f32>,
    residual: Option<*const f32>,
    to: *mut f32,
    stride: usize,
}

impl Tile {
    /// # Safety
    /// As for [`Tile::compute`].
    #[target_feature(enable = "avx512f")]
    unsafe fn compute_rows(&self, rows: usize, first: bool) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => self.compute::<1>(first),
                2 => self.compute::<2>(first),
                3 => self.compute::<3>(first),
                4 => self.compute::<4>(first),
                5 => self.compute::<5>(first),
                6 => self.compute::<6>(first),
                7 => self.compute::<7>(first),
                _ => self.compute::<ROWS>(first),
            }
        }
    }

    /// Stores the tile with bias and residual if `first`, else adds it to what is there.
    ///
    /// # Safety
    /// The processor must have AVX-512. `panel` must hold `depth` inputs of [`PANEL`] weights, `x` `R` rows
    /// of `depth` values, and bias, residual and `to` the lanes that the masks name; those of `to` must be
    /// initialised unless `first`.
    #[target_feature(enable = "avx512f")]
    unsafe fn compute<const R: usize>(&self, first: bool) {
        // SAFETY: the caller's; prefetched addresses need not be valid.
        unsafe {
            for r in 0..R {
                for v in 0..VECTORS {
                    let line = self.to.wrapping_add(r * self.stride + v * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(line.cast_const().cast());
                }
            }
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
            for input in 0..self.depth {
                let line = self.panel.add(input * PANEL);
                let mut weights = [_mm512_setzero_ps(); VECTORS];
                for (v, w) in weights.iter_mut().enumerate() {
                    *w = _mm512_loadu_ps(line.add(v * LANES));
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(8 * PANEL + v * LANES).cast());
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*self.x.add(r * self.x_stride + input));
                    for (sum, w) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_fmadd_ps(x, w, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    self.store(r, v, sum, first);
                }
            }
        }
    }

    /// # Safety
    /// As for [`Tile::compute`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(&self, r: usize, v: usize, sum: __m512, first: bool) {
        let (mask, at) = (self.masks[v], r * self.stride + v * LANES);
        let add = |sum, from: *const f32| {
            // SAFETY: the caller's; lanes outside the mask are not read.
            unsafe { _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, from)) }
        };
        let mut sum = sum;
        if first {
            if let Some(bias) = self.bias {
                sum = add(sum, bias.wrapping_add(v * LANES));
            }
            if let Some(residual) = self.residual {
                sum = add(sum, residual.wrapping_add(at));
            }
        } else {
            sum = add(sum, self.to.wrapping_add(at));
        }
        // SAFETY: the caller's; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(self.to.wrapping_add(at), mask, sum) };
    }
}
