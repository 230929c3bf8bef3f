//! The matrix product that convolutions are built on: a few rows read in place times a packed panel.
//!
//! The scheme is that of Goto and van de Geijn (Anatomy of high-performance matrix multiplication, 2008), as
//! for linear layers, but here the panel may be walked in steps: the weight gradient of every tap of a
//! convolution reads one and the same transposed image.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

use crate::product::{Matrix, product};

/// Columns of a panel: four vectors of AVX-512.
pub(crate) const PANEL: usize = 64;
/// Rows of a tile: with four vectors each, 24 of the 32 registers are sums.
pub(crate) const ROWS: usize = 6;
#[cfg(target_arch = "x86_64")]
const LANES: usize = 16;

/// Whether this processor runs the AVX-512 kernels.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// How many of `rows` rows [`Product::compute`] takes best at once.
pub(crate) fn rows_at_once(rows: usize) -> usize {
    if available() { ROWS } else { rows.max(1) }
}

/// How the depth of a product runs through its operands: for each of some groups, `segments` times `length`
/// lines of the panel that lie `step` elements apart, with `jump` elements more from a segment's end to the
/// next one. The elements of `a` are adjacent within a group.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    pub groups: usize,
    pub segments: usize,
    pub length: usize,
    pub step: usize,
    pub jump: usize,
    /// From a group's first element of `a` to the next one's.
    pub a_group: usize,
    /// From a group's first line of the panel to the next one's.
    pub panel_group: usize,
}

impl Walk {
    /// `length` packed lines.
    pub(crate) fn packed(length: usize) -> Self {
        Self { groups: 1, segments: 1, length, step: PANEL, jump: 0, a_group: 0, panel_group: 0 }
    }
}

/// What the product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Nothing.
    Zero,
    /// One value for each row.
    Bias(*const f32),
    /// What the result holds.
    Result,
}

/// `to = start + a panel`.
pub(crate) struct Product {
    /// Rows as long as the walk, `a_row` apart.
    pub a: *const f32,
    pub a_row: usize,
    /// Lines of at least `columns` elements, rounded up to 16.
    pub panel: *const f32,
    pub walk: Walk,
    /// At most [`PANEL`].
    pub columns: usize,
    pub start: Start,
    pub to: *mut f32,
    pub to_row: usize,
}

impl Product {
    /// Computes `rows` rows. An element's sum runs in an order that the walk alone decides.
    ///
    /// # Safety
    /// The operands must be valid for what the fields describe; nothing else may access the result
    /// meanwhile, which must be initialised if the start is [`Start::Result`] and is afterwards.
    pub(crate) unsafe fn compute(&self, rows: usize) {
        #[cfg(target_arch = "x86_64")]
        if available() {
            // SAFETY: the processor has AVX-512; the rest is the caller's.
            unsafe { self.by_tiles(rows) };
            return;
        }
        // SAFETY: the caller's.
        unsafe { self.plain(rows) };
    }

    /// What [`Product::compute`] does, on any processor.
    ///
    /// # Safety
    /// As for [`Product::compute`].
    unsafe fn plain(&self, rows: usize) {
        for r in 0..rows {
            let start = match self.start {
                Start::Zero => 0.0,
                // SAFETY: there is one value for each row.
                Start::Bias(bias) => unsafe { *bias.add(r) },
                Start::Result => break,
            };
            for c in 0..self.columns {
                // SAFETY: the element lies in the result.
                unsafe { self.to.add(r * self.to_row + c).write(start) };
            }
        }
        let Walk { groups, segments, length, step, jump, a_group, panel_group } = self.walk;
        for (g, s) in (0..groups).flat_map(|g| (0..segments).map(move |s| (g, s))) {
            let first = self.a.wrapping_add(g * a_group + s * length);
            let a = Matrix { first, row: self.a_row, column: 1 };
            let first = self.panel.wrapping_add(g * panel_group + s * (length * step + jump));
            let panel = Matrix { first, row: step, column: 1 };
            // SAFETY: the caller's; the result was initialised above.
            unsafe {
                product([rows, self.columns, length], a, panel, 1.0, self.to, self.to_row, true);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Product {
    /// # Safety
    /// As for [`Product::compute`], and the processor must have AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn by_tiles(&self, rows: usize) {
        for row in (0..rows).step_by(ROWS) {
            // SAFETY: the caller's.
            unsafe {
                match self.columns.div_ceil(LANES) {
                    0 => {}
                    1 => self.tile_rows::<1>(row, rows - row),
                    2 => self.tile_rows::<2>(row, rows - row),
                    3 => self.tile_rows::<3>(row, rows - row),
                    _ => self.tile_rows::<4>(row, rows - row),
                }
            }
        }
    }

    /// # Safety
    /// As for [`Product::by_tiles`].
    #[target_feature(enable = "avx512f")]
    unsafe fn tile_rows<const V: usize>(&self, row: usize, rows: usize) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => self.tile::<V, 1>(row),
                2 => self.tile::<V, 2>(row),
                3 => self.tile::<V, 3>(row),
                4 => self.tile::<V, 4>(row),
                5 => self.tile::<V, 5>(row),
                _ => self.tile::<V, ROWS>(row),
            }
        }
    }

    /// `R` rows from `row` on, of `V` vectors each.
    ///
    /// # Safety
    /// As for [`Product::by_tiles`].
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const V: usize, const R: usize>(&self, row: usize) {
        /// Lines fetched ahead.
        const AHEAD: usize = 8;
        let to = self.to.wrapping_add(row * self.to_row);
        let Walk { groups, segments, length, step, jump, a_group, panel_group } = self.walk;
        // SAFETY: the caller's; prefetched addresses need not be valid.
        unsafe {
            for r in 0..R {
                for v in 0..V {
                    let line = to.wrapping_add(r * self.to_row + v * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(line.cast_const().cast());
                }
            }
            let mut sums = [[_mm512_setzero_ps(); V]; R];
            for group in 0..groups {
                let mut a = self.a.wrapping_add(row * self.a_row + group * a_group);
                let mut line = self.panel.wrapping_add(group * panel_group);
                for _ in 0..segments {
                    for _ in 0..length {
                        let mut values = [_mm512_setzero_ps(); V];
                        for (v, value) in values.iter_mut().enumerate() {
                            *value = _mm512_loadu_ps(line.add(v * LANES));
                            let ahead = line.wrapping_add(AHEAD * step + v * LANES);
                            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        }
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let factor = _mm512_set1_ps(*a.add(r * self.a_row));
                            for (sum, value) in sums.iter_mut().zip(values) {
                                *sum = _mm512_fmadd_ps(factor, value, *sum);
                            }
                        }
                        a = a.wrapping_add(1);
                        line = line.wrapping_add(step);
                    }
                    line = line.wrapping_add(jump);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let mask = lanes(self.columns - v * LANES);
                    let at = to.wrapping_add(r * self.to_row + v * LANES);
                    let start = self.start_of(row + r, at, mask);
                    _mm512_mask_storeu_ps(at, mask, _mm512_add_ps(start, sum));
                }
            }
        }
    }

    /// # Safety
    /// As for [`Product::by_tiles`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn start_of(&self, row: usize, at: *const f32, mask: __mmask16) -> __m512 {
        match self.start {
            Start::Zero => _mm512_setzero_ps(),
            // SAFETY: there is one value for each row.
            Start::Bias(bias) => _mm512_set1_ps(unsafe { *bias.add(row) }),
            // SAFETY: the caller's; lanes outside the mask are not read.
            Start::Result => unsafe { _mm512_maskz_loadu_ps(mask, at) },
        }
    }
}

/// The mask of the first `count` lanes, at most all.
#[cfg(target_arch = "x86_64")]
pub(crate) fn lanes(count: usize) -> __mmask16 {
    if count >= LANES { __mmask16::MAX } else { (1 << count) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processors without AVX-512 compute the same, for every shape of a tile.
    #[test]
    fn both_products_agree() {
        let wave = |len: usize, step: f32| -> Vec<f32> {
            (0..len).map(|i| (i as f32 * step).sin()).collect()
        };
        let walk = Walk {
            groups: 2,
            segments: 3,
            length: 7,
            step: 2 * PANEL,
            jump: 5 * PANEL,
            a_group: 400,
            panel_group: 60 * PANEL,
        };
        let (a, bias) = (wave(2 * 400, 0.37), wave(13, 0.7));
        let panel = wave(2 * 60 * PANEL, 0.11);
        for columns in 0..=PANEL {
            for (rows, start) in
                [(1, Start::Zero), (13, Start::Bias(bias.as_ptr())), (10, Start::Result)]
            {
                let (mut tiles, mut plain) = (wave(13 * 70, 0.9), wave(13 * 70, 0.9));
                let mut call = Product {
                    a: a.as_ptr(),
                    a_row: 30,
                    panel: panel.as_ptr(),
                    walk,
                    columns,
                    start,
                    to: tiles.as_mut_ptr(),
                    to_row: 70,
                };
                // SAFETY: the buffers hold what the fields describe.
                unsafe { call.compute(rows) };
                call.to = plain.as_mut_ptr();
                // SAFETY: as above.
                unsafe { call.plain(rows) };
                for (i, (x, y)) in tiles.iter().zip(&plain).enumerate() {
                    assert!((x - y).abs() < 1e-5, "{rows} x {columns}, element {i}: {x}, {y}");
                }
            }
        }
    }
}
