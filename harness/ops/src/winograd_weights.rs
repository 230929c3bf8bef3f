//! The gradient of a 3 x 3 convolution's weight by minimal filtering, the transpose of [`crate::winograd`]:
//! `g = G^T [sum over tiles of (A y A^T) * (B^T d B)] G`.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::simd::multiversion;
use crate::storage::{Shared, filled};
use crate::tile::{PANEL, Product, ROWS, Start, Walk};
use crate::weights::{TASK_ROWS, TASKS, WeightGradient};
use crate::winograd::{PARTS, spread};

/// Tiles summed at once, rounded to whole lines of tiles.
const TILES: usize = 64;

#[derive(Default)]
struct Scratch {
    /// `[lines, pixels, PANEL]`: part of an image, channels side by side.
    image: Vec<f32>,
    /// `[PARTS, tiles, PANEL]`: `B^T d B`.
    tiles: Vec<f32>,
    /// `[PARTS, rows, tiles]`: `A y A^T`.
    gradients: Vec<f32>,
    /// `[PARTS, rows, PANEL]`.
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl WeightGradient<'_> {
    /// What [`WeightGradient::run`] returns, for a 3 x 3 kernel and stride 1.
    pub(crate) fn run_by_tiles(&self) -> Vec<f32> {
        let ([channels, ..], [rows, ..]) = (self.from, self.to);
        let blocks = channels.div_ceil(PANEL);
        let parts = TASKS.div_ceil(blocks).min(rows / TASK_ROWS).max(1);
        // SAFETY: the tasks' blocks tile the result, and `block_by_tiles` writes its block whole.
        unsafe {
            filled(rows * channels * 9, |to| {
                let to = Shared::new(to);
                (0..blocks * parts).into_par_iter().with_max_len(1).for_each(|task| {
                    let (block, part) = (task / parts, task % parts);
                    let channel = block * PANEL;
                    let columns = [channel, PANEL.min(channels - channel)];
                    let rows = [part * rows / parts, (part + 1) * rows / parts];
                    SCRATCH.with_borrow_mut(|scratch| {
                        self.block_by_tiles(to, columns, rows, scratch);
                    });
                });
            })
        }
    }

    /// Computes `columns` input channels from `channel` on of the output channels from `first` to `end`.
    ///
    /// # Safety
    /// `to` must hold the whole result, and nothing else may access the block meanwhile.
    unsafe fn block_by_tiles(
        &self,
        to: Shared,
        [channel, columns]: [usize; 2],
        [first, end]: [usize; 2],
        Scratch { image, tiles, gradients, sums }: &mut Scratch,
    ) {
        let ([channels, ..], [all_rows, height, width]) = (self.from, self.to);
        let rows = end - first;
        let across = width.div_ceil(2);
        let down = height.div_ceil(2);
        let lines = (TILES / across).clamp(1, down);
        let most = lines * across;
        let line_len = (2 * across + 2) * PANEL;
        image.resize(image.len().max((2 * lines + 2) * line_len), 0.0);
        tiles.resize(tiles.len().max(PARTS * most * PANEL), 0.0);
        gradients.resize(gradients.len().max(PARTS * rows * most), 0.0);
        sums.resize(sums.len().max(PARTS * rows * PANEL), 0.0);
        let mut start = Start::Zero;
        for b in 0..self.batch {
            for line in (0..down).step_by(lines) {
                let count = lines.min(down - line);
                // The last two lines of the part before are the first two of this one.
                let kept = if line == 0 { 0 } else { 2 };
                image.copy_within(2 * lines * line_len..(2 * lines + kept) * line_len, 0);
                let wanted = &mut image[kept * line_len..(2 * count + 2) * line_len];
                let origin = (2 * line + kept) as isize - self.padding as isize;
                self.transpose(b, [channel, columns], origin, 2 * across + 2, wanted);
                transform_pixels(&image[..], [count, across], tiles);
                for row in 0..rows {
                    let y = (b * all_rows + first + row) * height * width;
                    let plane = &self.y[y + 2 * line * width..y + height * width];
                    let part = rows * count * across;
                    let to = &mut gradients[row * count * across..];
                    transform_gradients(plane, width, [count, across], part, to);
                }
                let depth = count * across;
                for part in 0..PARTS {
                    for row in (0..rows).step_by(ROWS) {
                        let call = Product {
                            a: gradients[(part * rows + row) * depth..].as_ptr(),
                            a_row: depth,
                            panel: tiles[part * depth * PANEL..].as_ptr(),
                            walk: Walk::packed(depth),
                            columns,
                            start,
                            to: sums[(part * rows + row) * PANEL..].as_mut_ptr(),
                            to_row: PANEL,
                        };
                        // SAFETY: the scratch holds both operands and the sums, which the first tiles set.
                        unsafe { call.compute(ROWS.min(rows - row)) };
                    }
                }
                start = Start::Result;
            }
        }
        let mut kernels = [0.0; 9 * PANEL];
        for row in 0..rows {
            restore_kernels(&sums[row * PANEL..], rows * PANEL, &mut kernels);
            let at = to.at(((first + row) * channels + channel) * 9);
            // SAFETY: these kernels lie in the block, which is ours.
            unsafe { at.copy_from_nonoverlapping(kernels.as_ptr(), 9 * columns) };
        }
    }
}

#[inline(always)]
fn transform_pixels_body<const FMA: bool>(
    image: &[f32],
    [lines, across]: [usize; 2],
    to: &mut [f32],
) {
    let (pixels, _) = image.as_chunks::<PANEL>();
    let (to, _) = to.as_chunks_mut::<PANEL>();
    let part = lines * across;
    let width = 2 * across + 2;
    for line in 0..lines {
        for column in 0..across {
            // By column of the tile.
            let mut tall = [[[0.0; PANEL]; 4]; 4];
            for (x, tall) in tall.iter_mut().enumerate() {
                let at = 2 * line * width + 2 * column + x;
                let (d0, d1) = (&pixels[at], &pixels[at + width]);
                let (d2, d3) = (&pixels[at + 2 * width], &pixels[at + 3 * width]);
                let [t0, t1, t2, t3] = tall;
                for i in 0..PANEL {
                    [t0[i], t1[i], t2[i], t3[i]] = spread([d0[i], d1[i], d2[i], d3[i]]);
                }
            }
            for y in 0..4 {
                let [d0, d1, d2, d3] = [&tall[0][y], &tall[1][y], &tall[2][y], &tall[3][y]];
                let (t0, rest) = to[4 * y * part + line * across + column..].split_at_mut(part);
                let (t1, rest) = rest.split_at_mut(part);
                let (t2, t3) = rest.split_at_mut(part);
                let (t0, t1, t2, t3) = (&mut t0[0], &mut t1[0], &mut t2[0], &mut t3[0]);
                for i in 0..PANEL {
                    [t0[i], t1[i], t2[i], t3[i]] = spread([d0[i], d1[i], d2[i], d3[i]]);
                }
            }
        }
    }
}

multiversion! {
    /// `B^T d B` of lines of tiles, from `[2 lines + 2, 2 across + 2, PANEL]` to `[PARTS, tiles, PANEL]`.
    fn transform_pixels = transform_pixels_body(image: &[f32], tiles: [usize; 2], to: &mut [f32])
}

/// `A y` of a vector `y`.
#[inline(always)]
fn widen([a, b]: [f32; 2]) -> [f32; 4] {
    [a, a + b, a - b, -b]
}

#[inline(always)]
fn transform_gradients_body<const FMA: bool>(
    plane: &[f32],
    width: usize,
    [lines, across]: [usize; 2],
    part: usize,
    to: &mut [f32],
) {
    // Tiles computed side by side.
    const SOME: usize = 64;
    for line in 0..lines {
        for column in (0..across).step_by(SOME) {
            let count = SOME.min(across - column);
            // By line and column of the tile.
            let mut values = [[[0.0; SOME]; 2]; 2];
            for (y, [even, odd]) in values.iter_mut().enumerate() {
                let at = (2 * line + y) * width;
                if at >= plane.len() {
                    break;
                }
                let from = &plane[at..][2 * column..width.min(2 * (column + count))];
                let (pairs, last) = from.as_chunks::<2>();
                for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
                    (*even, *odd) = (pair[0], pair[1]);
                }
                if let [last] = last {
                    even[pairs.len()] = *last;
                }
            }
            let [[a, b], [c, d]] = &values;
            let mut tall = [[[0.0; SOME]; 2]; 4];
            for (x, (upper, lower)) in [(a, c), (b, d)].into_iter().enumerate() {
                let [t0, t1, t2, t3] = &mut tall;
                let (t0, t1, t2, t3) = (&mut t0[x], &mut t1[x], &mut t2[x], &mut t3[x]);
                for i in 0..SOME {
                    [t0[i], t1[i], t2[i], t3[i]] = widen([upper[i], lower[i]]);
                }
            }
            for (y, [a, b]) in tall.iter().enumerate() {
                let (t0, rest) = to[4 * y * part + line * across + column..].split_at_mut(part);
                let (t1, rest) = rest.split_at_mut(part);
                let (t2, t3) = rest.split_at_mut(part);
                let (t0, t1) = (&mut t0[..count], &mut t1[..count]);
                let (t2, t3) = (&mut t2[..count], &mut t3[..count]);
                for i in 0..count {
                    [t0[i], t1[i], t2[i], t3[i]] = widen([a[i], b[i]]);
                }
            }
        }
    }
}

multiversion! {
    /// `A y A^T` of lines of tiles, from the rest of a plane of `width` columns on, to [`PARTS`] runs of tiles
    /// that lie `part` elements apart.
    fn transform_gradients = transform_gradients_body(
        plane: &[f32],
        width: usize,
        tiles: [usize; 2],
        part: usize,
        to: &mut [f32],
    )
}

/// `G^T m` of a vector `m`.
#[inline(always)]
fn narrow([a, b, c, d]: [f32; 4]) -> [f32; 3] {
    let half = 0.5 * (b + c);
    [a + half, 0.5 * (b - c), half + d]
}

#[inline(always)]
fn restore_kernels_body<const FMA: bool>(sums: &[f32], part: usize, to: &mut [f32; 9 * PANEL]) {
    for (i, kernel) in to.as_chunks_mut::<9>().0.iter_mut().enumerate() {
        let mut wide = [[0.0; 4]; 3];
        for column in 0..4 {
            let at = column * part + i;
            let tall =
                narrow([sums[at], sums[4 * part + at], sums[8 * part + at], sums[12 * part + at]]);
            for (wide, v) in wide.iter_mut().zip(tall) {
                wide[column] = v;
            }
        }
        for (to, wide) in kernel.as_chunks_mut::<3>().0.iter_mut().zip(wide) {
            *to = narrow(wide);
        }
    }
}

multiversion! {
    /// `G^T m G` of [`PANEL`] kernels, whose [`PARTS`] values lie `part` elements apart.
    fn restore_kernels =
        restore_kernels_body(sums: &[f32], part: usize, to: &mut [f32; 9 * PANEL])
}
