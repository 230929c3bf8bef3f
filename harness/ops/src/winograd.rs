//! Convolution with kernels of 3 x 3 by minimal filtering: 16 products where the sum over taps takes 36.
//!
//! Winograd's F(2x2, 3x3) as in Lavin and Gray (Fast algorithms for convolutional neural networks, arXiv
//! 1509.09308): `y = A^T [(G g G^T) * (B^T d B)] A` for each tile of 2 x 2 results and the 4 x 4 values it reads.
//! The elementwise products of many tiles, summed over channels, are 16 matrix products. Its transforms
//! only add, subtract and halve, which keeps f32 sums nearly as exact as the direct ones.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::simd::{multiversion, rectified};
use crate::storage::{Shared, filled};
use crate::tile::{PANEL, Product, ROWS, Start, Walk};

/// Values of a transformed tile or kernel.
pub(crate) const PARTS: usize = 16;
/// Channels transformed at once at most: 512 KiB, which stay in L2.
const DEPTH: usize = 128;
/// Results' channels of a task at most, and at least: where there are too few tiles for [`TASKS`], they are
/// divided, though each part transforms the tiles again.
const TASK_ROWS: [usize; 2] = [256, 48];
/// Tasks wanted.
const TASKS: usize = 16;
/// Channels and tiles of an image that repay the transforms.
const WORTH: usize = 64;

/// `y[b, o, i, j] = bias[o] + sum over c, k, l of w[o, c, k, l] x[b, c, i + k + origin, j + l + origin]`,
/// where `x` is zero outside its borders.
pub(crate) struct Winograd<'a> {
    pub batch: usize,
    /// Channels, height and width of `x`.
    pub from: [usize; 3],
    /// Channels, height and width of `y`.
    pub to: [usize; 3],
    pub origin: isize,
    pub x: &'a [f32],
    /// `[to channels, from channels, 3, 3]`.
    pub weight: &'a [f32],
    /// Whether the ReLU of `x` is convolved.
    pub rectify: bool,
    pub bias: Option<&'a [f32]>,
}

/// Adjacent tiles of one line of tiles, from lane `lane` of a panel on.
#[derive(Clone, Copy)]
struct Run {
    lane: usize,
    /// Line and column of tiles.
    place: [usize; 2],
    count: usize,
}

#[derive(Default)]
struct Scratch {
    /// `[PARTS, DEPTH, PANEL]`: the transformed tiles.
    tiles: Vec<f32>,
    /// `[PARTS, rows, PANEL]`.
    products: Vec<f32>,
    runs: Vec<Run>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Whether a 3 x 3 convolution of stride 1 is faster so. The batch does not matter, so that an image's result
/// does not depend on its company.
pub(crate) fn worth([channels, ..]: [usize; 3], [rows, height, width]: [usize; 3]) -> bool {
    channels >= WORTH && rows >= WORTH && height.div_ceil(2) * width.div_ceil(2) >= WORTH
}

impl Winograd<'_> {
    /// `y`, `[batch, to]`, none of whose sides is 0.
    pub(crate) fn run(&self) -> Vec<f32> {
        let [rows, height, width] = self.to;
        let kernels = transformed_kernels(self.weight, self.from[0], rows);
        let tiles = height.div_ceil(2) * width.div_ceil(2);
        let per_image = tiles.div_ceil(PANEL);
        let blocks = self.batch * per_image;
        let parts =
            TASKS.div_ceil(blocks.max(1)).min(rows / TASK_ROWS[1]).max(rows.div_ceil(TASK_ROWS[0]));
        // A part begins where a block of transformed kernels does.
        let part_rows = rows.div_ceil(parts).next_multiple_of(ROWS);
        let parts = rows.div_ceil(part_rows);
        // SAFETY: the tasks' blocks tile the result, and `block` writes its block whole.
        unsafe {
            filled(self.batch * rows * height * width, |to| {
                let to = Shared::new(to);
                (0..blocks * parts).into_par_iter().with_max_len(1).for_each(|task| {
                    let (block, first) = (task / parts, task % parts * part_rows);
                    let tile = block % per_image * PANEL;
                    let tiles = [tile, PANEL.min(tiles - tile)];
                    let rows = [first, rows.min(first + part_rows)];
                    SCRATCH.with_borrow_mut(|scratch| {
                        self.block(to, block / per_image, tiles, rows, &kernels, scratch);
                    });
                });
            })
        }
    }

    /// Computes the rows (channels of `y`) from `first` to `end` of `count` tiles of an image.
    ///
    /// # Safety
    /// `to` must hold the whole result, and nothing else may access the block meanwhile.
    unsafe fn block(
        &self,
        to: Shared,
        image: usize,
        [tile, count]: [usize; 2],
        [first, end]: [usize; 2],
        kernels: &[f32],
        Scratch { tiles, products, runs }: &mut Scratch,
    ) {
        let ([channels, in_height, in_width], [all_rows, height, width]) = (self.from, self.to);
        let rows = end - first;
        let depth = channels.div_ceil(channels.div_ceil(DEPTH));
        tiles.resize(tiles.len().max(PARTS * DEPTH * PANEL), 0.0);
        products.resize(products.len().max(PARTS * rows * PANEL), 0.0);
        runs_of(tile, count, width.div_ceil(2), runs);
        let plane = in_height * in_width;
        for start in (0..channels).step_by(depth) {
            let length = depth.min(channels - start);
            let source = Source {
                planes: &self.x[(image * channels + start) * plane..][..length * plane],
                size: [in_height, in_width],
                origin: self.origin,
                rectify: self.rectify,
                runs,
            };
            transform_tiles(&source, &mut tiles[..PARTS * length * PANEL]);
            for part in 0..PARTS {
                for row in (0..rows).step_by(ROWS) {
                    let kernel = ((first + row) * PARTS + part * ROWS) * channels + start;
                    let call = Product {
                        a: kernels[kernel..].as_ptr(),
                        a_row: channels,
                        panel: tiles[part * length * PANEL..].as_ptr(),
                        walk: Walk::packed(length),
                        columns: PANEL,
                        start: if start == 0 { Start::Zero } else { Start::Result },
                        to: products[(part * rows + row) * PANEL..].as_mut_ptr(),
                        to_row: PANEL,
                    };
                    // SAFETY: the kernels hold `ROWS` rows of `channels` values in each block, the last one
                    // included, and the scratch the panel and the products.
                    unsafe { call.compute(ROWS.min(rows - row)) };
                }
            }
        }
        for row in 0..rows {
            let bias = self.bias.map_or(0.0, |bias| bias[first + row]);
            let y = (image * all_rows + first + row) * height * width;
            for run in runs.iter() {
                let mut lines = [[0.0; 2 * PANEL]; 2];
                let at = row * PANEL + run.lane;
                restore_run(&products[at..], rows * PANEL, run.count, bias, &mut lines);
                let [line, column] = run.place.map(|place| 2 * place);
                let len = (2 * run.count).min(width - column);
                for (i, values) in lines.iter().enumerate().take(height - line) {
                    let at = to.at(y + (line + i) * width + column);
                    // SAFETY: the pixels lie in the result, and in this task's tiles.
                    unsafe { at.copy_from_nonoverlapping(values.as_ptr(), len) };
                }
            }
        }
    }
}

/// The lines of tiles that `count` tiles from `tile` on lie in.
fn runs_of(tile: usize, count: usize, line: usize, runs: &mut Vec<Run>) {
    runs.clear();
    let mut lane = 0;
    while lane < count {
        let place = [(tile + lane) / line, (tile + lane) % line];
        let run = Run { lane, place, count: (line - place[1]).min(count - lane) };
        runs.push(run);
        lane += run.count;
    }
}

/// What tiles are transformed from.
struct Source<'a> {
    /// Some channels of an image.
    planes: &'a [f32],
    /// Height and width of a channel.
    size: [usize; 2],
    /// Line and column at which the first tile begins.
    origin: isize,
    rectify: bool,
    runs: &'a [Run],
}

impl Source<'_> {
    /// The even and the odd columns of a line of a channel that the tiles of a run read.
    #[inline(always)]
    fn columns(&self, line: &[f32], run: &Run, to: &mut [[f32; PANEL + 1]; 2]) {
        let mut values = [0.0; 2 * PANEL + 2];
        let len = 2 * run.count + 2;
        let first = 2 * run.place[1] as isize + self.origin;
        let left = (-first).clamp(0, len as isize) as usize;
        let begin = first.max(0) as usize;
        let inside = line.len().saturating_sub(begin).min(len - left);
        if inside > 0 {
            values[left..left + inside].copy_from_slice(&line[begin..begin + inside]);
        }
        if self.rectify {
            for v in &mut values {
                *v = rectified(*v);
            }
        }
        let [even, odd] = to;
        for ((even, odd), pair) in even.iter_mut().zip(odd).zip(values.as_chunks::<2>().0) {
            (*even, *odd) = (pair[0], pair[1]);
        }
    }
}

/// `B^T d` of a vector `d`.
#[inline(always)]
pub(crate) fn spread([a, b, c, d]: [f32; 4]) -> [f32; 4] {
    [a - c, b + c, c - b, b - d]
}

#[inline(always)]
fn transform_tiles_body<const FMA: bool>(source: &Source, to: &mut [f32]) {
    let [height, width] = source.size;
    let part = to.len() / PARTS;
    let mut columns = [[0.0; PANEL + 1]; 2];
    // By line and column of the tile.
    let mut wide = [[[0.0; PANEL]; 4]; 4];
    for (channel, plane) in source.planes.chunks_exact(height * width).enumerate() {
        for run in source.runs {
            let n = run.count;
            for (i, wide) in wide.iter_mut().enumerate() {
                let y = (2 * run.place[0] + i) as isize + source.origin;
                if !(0..height as isize).contains(&y) {
                    wide.iter_mut().for_each(|part| part[..n].fill(0.0));
                    continue;
                }
                source.columns(&plane[y as usize * width..][..width], run, &mut columns);
                let [even, odd] = &columns;
                let [w0, w1, w2, w3] = wide;
                let (w0, w1, w2, w3) = (&mut w0[..n], &mut w1[..n], &mut w2[..n], &mut w3[..n]);
                let (e0, o0, e1, o1) = (&even[..n], &odd[..n], &even[1..=n], &odd[1..=n]);
                for i in 0..n {
                    [w0[i], w1[i], w2[i], w3[i]] = spread([e0[i], o0[i], e1[i], o1[i]]);
                }
            }
            for column in 0..4 {
                let at = column * part + channel * PANEL + run.lane;
                let [d0, d1, d2, d3] = &wide;
                let (d0, d1) = (&d0[column][..n], &d1[column][..n]);
                let (d2, d3) = (&d2[column][..n], &d3[column][..n]);
                let (t0, rest) = to[at..].split_at_mut(4 * part);
                let (t1, rest) = rest.split_at_mut(4 * part);
                let (t2, t3) = rest.split_at_mut(4 * part);
                let (t0, t1, t2, t3) = (&mut t0[..n], &mut t1[..n], &mut t2[..n], &mut t3[..n]);
                for i in 0..n {
                    [t0[i], t1[i], t2[i], t3[i]] = spread([d0[i], d1[i], d2[i], d3[i]]);
                }
            }
        }
    }
}

multiversion! {
    /// `B^T d B` of each tile of some channels, to `[PARTS, channels, PANEL]`.
    fn transform_tiles = transform_tiles_body(source: &Source, to: &mut [f32])
}

#[inline(always)]
fn restore_run_body<const FMA: bool>(
    products: &[f32],
    part: usize,
    count: usize,
    bias: f32,
    lines: &mut [[f32; 2 * PANEL]; 2],
) {
    // By line of the results and column of the tile.
    let mut tall = [[[0.0; PANEL]; 4]; 2];
    for column in 0..4 {
        let [upper, lower] = &mut tall;
        let (upper, lower) = (&mut upper[column][..count], &mut lower[column][..count]);
        let (p0, p1) = (&products[column * part..], &products[(4 + column) * part..]);
        let (p2, p3) = (&products[(8 + column) * part..], &products[(12 + column) * part..]);
        let (p0, p1, p2, p3) = (&p0[..count], &p1[..count], &p2[..count], &p3[..count]);
        for i in 0..count {
            upper[i] = p0[i] + p1[i] + p2[i];
            lower[i] = p1[i] - p2[i] - p3[i];
        }
    }
    for (line, tall) in lines.iter_mut().zip(&tall) {
        let [t0, t1, t2, t3] = tall;
        for (i, pair) in line.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *pair = [t0[i] + t1[i] + t2[i] + bias, t1[i] - t2[i] - t3[i] + bias];
        }
    }
}

multiversion! {
    /// `A^T m A` of `count` tiles, whose [`PARTS`] values lie `part` elements apart, plus `bias`: two lines.
    fn restore_run = restore_run_body(
        products: &[f32],
        part: usize,
        count: usize,
        bias: f32,
        lines: &mut [[f32; 2 * PANEL]; 2],
    )
}

/// `G g G^T` of every kernel, to `[rows / ROWS, PARTS, ROWS, channels]`; rows past the last are 0.
fn transformed_kernels(weight: &[f32], channels: usize, rows: usize) -> Vec<f32> {
    let block = PARTS * ROWS * channels;
    // SAFETY: the chunks cover the buffer, and each row of a chunk is written in all its parts.
    unsafe {
        filled(rows.div_ceil(ROWS) * block, |to| {
            to.par_chunks_mut(block).enumerate().for_each(|(block, to)| {
                for row in 0..ROWS {
                    let at = (block * ROWS + row) * channels * 9;
                    let kernels = weight.get(at..at + channels * 9).unwrap_or_default();
                    transform_kernels(kernels, channels, &mut to[row * channels..]);
                }
            });
        })
    }
}

#[inline(always)]
fn transform_kernels_body<const FMA: bool>(
    kernels: &[f32],
    channels: usize,
    to: &mut [MaybeUninit<f32>],
) {
    const SOME: usize = 16;
    let part = ROWS * channels;
    for start in (0..channels).step_by(SOME) {
        let count = SOME.min(channels - start);
        let mut taps = [[0.0; SOME]; 9];
        let some = kernels.as_chunks::<9>().0.iter().skip(start).take(count);
        for (i, kernel) in some.enumerate() {
            for (taps, &v) in taps.iter_mut().zip(kernel) {
                taps[i] = v;
            }
        }
        let mut parts = [[0.0; SOME]; PARTS];
        for i in 0..SOME {
            // `G g`, then its product with `G^T`.
            let mut tall = [[0.0; 4]; 3];
            for (x, tall) in tall.iter_mut().enumerate() {
                *tall = widen([taps[x][i], taps[3 + x][i], taps[6 + x][i]]);
            }
            for y in 0..4 {
                let wide = widen([tall[0][y], tall[1][y], tall[2][y]]);
                for x in 0..4 {
                    parts[y * 4 + x][i] = wide[x];
                }
            }
        }
        for (index, values) in parts.iter().enumerate() {
            let to = &mut to[index * part + start..][..count];
            for (to, &v) in to.iter_mut().zip(values) {
                to.write(v);
            }
        }
    }
}

/// `G g` of a vector `g`.
#[inline(always)]
fn widen([a, b, c]: [f32; 3]) -> [f32; 4] {
    let half = 0.5 * (a + c);
    [a, half + 0.5 * b, half - 0.5 * b, c]
}

multiversion! {
    /// `G g G^T` of the kernels of a row (none: zeros), to the first of [`ROWS`] rows of [`PARTS`] parts.
    fn transform_kernels = transform_kernels_body(
        kernels: &[f32],
        channels: usize,
        to: &mut [MaybeUninit<f32>],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::Gather;
    use crate::weights::WeightGradient;

    /// Without the regularity of a wave, whose sums cancel.
    fn chirp(len: usize, step: f64) -> Vec<f32> {
        (0..len).map(|i| ((i * i) as f64 * step).sin() as f32).collect()
    }

    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= 2e-6 * scale, "{what}, element {i}: {a}, {b} of {scale}");
        }
    }

    /// Tiles and channels that fill no panel, one and several; odd sides; every border; with and without bias.
    #[test]
    fn filtering_is_the_sum_over_taps() {
        for (batch, channels, rows, height, width, padding) in [
            (1, 1, 1, 3, 3, 0),
            (2, 5, 7, 9, 11, 1),
            (1, 70, 13, 6, 131, 2),
            (3, 129, 67, 18, 17, 1),
            (1, 64, 300, 16, 16, 1),
        ] {
            let from = [channels, height, width];
            let to = [rows, height + 2 * padding - 2, width + 2 * padding - 2];
            let x = chirp(batch * channels * height * width, 0.37);
            let (weight, bias) = (chirp(rows * channels * 9, 0.11), chirp(rows, 0.7));
            let origin = -(padding as isize);
            let taps: Vec<_> = (0..9).map(|tap| (tap / 3 + origin, tap % 3 + origin)).collect();
            let what = format!("{from:?} to {to:?}");
            for bias in [None, Some(&*bias)] {
                let call = Winograd {
                    batch,
                    from,
                    to,
                    origin,
                    x: &x,
                    weight: &weight,
                    rectify: false,
                    bias,
                };
                let direct = Gather {
                    batch,
                    from,
                    to,
                    stride: 1,
                    taps: &taps,
                    x: &x,
                    weight: &weight,
                    rectify: false,
                    bias,
                };
                assert_close(&call.run(), &direct.run(), &what);
            }
            let y = chirp(batch * to.iter().product::<usize>(), 0.23);
            let call = WeightGradient {
                batch,
                from,
                to,
                kernel: [3, 3],
                stride: 1,
                padding,
                x: &x,
                rectify: false,
                y: &y,
            };
            assert_close(&call.run_by_tiles(), &call.run_by_pixels(), &what);
        }
    }
}
