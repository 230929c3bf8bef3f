//! The gradient of a convolution's weight: a matrix product over the pixels of all images.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::simd::rectified;
use crate::storage::{Shared, filled};
use crate::tile::{PANEL, Product, Start, Walk, rows_at_once};
use crate::winograd::worth;

/// Pixels summed at once, rounded to whole lines of the image.
const PIXELS: usize = 512;
/// Tasks wanted; output channels are only divided to reach it, since each part transposes the image again.
pub(crate) const TASKS: usize = 16;
/// Output channels of a task at least.
pub(crate) const TASK_ROWS: usize = 48;

/// `g[o, c, t] = sum over b, i, j of y[b, o, i, j] x[b, c, i stride + ky_t - padding, j stride + kx_t - padding]`,
/// where `x` is zero outside its borders and `y` is the gradient of the result.
pub(crate) struct WeightGradient<'a> {
    pub batch: usize,
    /// Channels, height and width of `x`.
    pub from: [usize; 3],
    /// Channels, height and width of `y`.
    pub to: [usize; 3],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: usize,
    pub x: &'a [f32],
    /// Whether it is the ReLU of `x` that was convolved.
    pub rectify: bool,
    pub y: &'a [f32],
}

thread_local! {
    /// A transposed part of an image.
    static SCRATCH: RefCell<Vec<f32>> = RefCell::default();
}

impl WeightGradient<'_> {
    /// `g`, `[to channels, from channels, kernel]`.
    pub(crate) fn run(&self) -> Vec<f32> {
        if self.kernel == [3, 3] && self.stride == 1 && worth(self.from, self.to) && self.batch > 0
        {
            return self.run_by_tiles();
        }
        self.run_by_pixels()
    }

    /// What [`WeightGradient::run`] returns, for any kernel.
    pub(crate) fn run_by_pixels(&self) -> Vec<f32> {
        let ([channels, ..], [rows, height, width]) = (self.from, self.to);
        let taps = self.kernel[0] * self.kernel[1];
        let len = rows * taps * channels;
        if self.batch * height * width == 0 || len == 0 {
            return vec![0.0; len];
        }
        let blocks = channels.div_ceil(PANEL);
        let parts = TASKS.div_ceil(blocks).min(rows / TASK_ROWS).max(1);
        // SAFETY: the tasks' blocks tile the result, and `block` writes its block whole.
        let by_tap = unsafe {
            filled(len, |to| {
                let to = Shared::new(to);
                (0..blocks * parts).into_par_iter().with_max_len(1).for_each(|task| {
                    let (block, part) = (task / parts, task % parts);
                    let channel = block * PANEL;
                    let columns = [channel, PANEL.min(channels - channel)];
                    let rows = [part * rows / parts, (part + 1) * rows / parts];
                    SCRATCH.with_borrow_mut(|scratch| self.block(to, columns, rows, scratch));
                });
            })
        };
        if taps == 1 { by_tap } else { taps_last(&by_tap, taps, channels) }
    }

    /// Computes `columns` input channels from `channel` on of the output channels from `first` to `end`, to
    /// `[to channels, taps, from channels]`.
    ///
    /// # Safety
    /// `to` must hold the whole result, and nothing else may access the block meanwhile.
    unsafe fn block(
        &self,
        to: Shared,
        [channel, columns]: [usize; 2],
        [first, end]: [usize; 2],
        scratch: &mut Vec<f32>,
    ) {
        let ([channels, ..], [all_rows, height, width]) = (self.from, self.to);
        let [kernel_height, kernel_width] = self.kernel;
        let taps = kernel_height * kernel_width;
        let padded_width = (width - 1) * self.stride + kernel_width;
        let lines = (PIXELS / width).clamp(1, height);
        // Small images are summed several at once.
        let images = if lines < height { 1 } else { (PIXELS / (height * width)).max(1) };
        let step = rows_at_once(end - first);
        let image_lines = |lines: usize| (lines - 1) * self.stride + kernel_height;
        let image_len = image_lines(lines) * padded_width * PANEL;
        let wanted = scratch.len().max(images.min(self.batch) * image_len);
        scratch.resize(wanted, 0.0);
        for image in (0..self.batch).step_by(images) {
            let images = images.min(self.batch - image);
            for line in (0..height).step_by(lines) {
                let count = lines.min(height - line);
                let origin = (line * self.stride) as isize - self.padding as isize;
                for (i, buffer) in scratch.chunks_exact_mut(image_len).take(images).enumerate() {
                    let buffer = &mut buffer[..image_lines(count) * padded_width * PANEL];
                    self.transpose(image + i, [channel, columns], origin, padded_width, buffer);
                }
                let start = if image == 0 && line == 0 { Start::Zero } else { Start::Result };
                for row in (first..end).step_by(step) {
                    let rows = step.min(end - row);
                    let y = ((image * all_rows + row) * height + line) * width;
                    for tap in 0..taps {
                        let offset = tap / kernel_width * padded_width + tap % kernel_width;
                        let call = Product {
                            a: self.y[y..].as_ptr(),
                            a_row: height * width,
                            panel: scratch[offset * PANEL..].as_ptr(),
                            walk: Walk {
                                groups: images,
                                segments: count,
                                length: width,
                                step: self.stride * PANEL,
                                jump: self.stride * (padded_width - width) * PANEL,
                                a_group: all_rows * height * width,
                                panel_group: image_len,
                            },
                            columns,
                            start,
                            to: to.at((row * taps + tap) * channels + channel),
                            to_row: taps * channels,
                        };
                        // SAFETY: `y` holds `count * width` values in each of `rows` rows of each image, and
                        // the scratch the parts of them that the taps of these pixels read; the block is
                        // ours, and the first lines of the first images have initialised it.
                        unsafe { call.compute(rows) };
                    }
                }
            }
        }
    }

    /// Fills `buffer`, `[lines, padded_width, PANEL]`, with the channels of the padded image side by side,
    /// from line `origin` of the image on. Lanes past the last channel keep what they held.
    pub(crate) fn transpose(
        &self,
        image: usize,
        [channel, columns]: [usize; 2],
        origin: isize,
        padded_width: usize,
        buffer: &mut [f32],
    ) {
        let [channels, height, width] = self.from;
        let left = self.padding.min(padded_width);
        let inside = width.min(padded_width - left);
        for (line, y) in buffer.chunks_exact_mut(padded_width * PANEL).zip(origin..) {
            if !(0..height as isize).contains(&y) {
                line.fill(0.0);
                continue;
            }
            line[..left * PANEL].fill(0.0);
            line[(left + inside) * PANEL..].fill(0.0);
            let (pixels, _) = line[left * PANEL..][..inside * PANEL].as_chunks_mut::<PANEL>();
            let first = (image * channels + channel) * height * width + y as usize * width;
            // Few pixels at a time, so that the lines written stay in L1.
            for (part, pixels) in pixels.chunks_mut(16).enumerate() {
                for lane in 0..columns {
                    let from = &self.x[first + lane * height * width + part * 16..];
                    for (pixel, &v) in pixels.iter_mut().zip(from) {
                        pixel[lane] = if self.rectify { rectified(v) } else { v };
                    }
                }
            }
        }
    }
}

/// From `[rows, taps, channels]` to `[rows, channels, taps]`.
fn taps_last(by_tap: &[f32], taps: usize, channels: usize) -> Vec<f32> {
    // SAFETY: the chunks cover the buffer, and each element of a chunk is written.
    unsafe {
        filled(by_tap.len(), |to| {
            to.par_chunks_mut(taps * channels).zip(by_tap.par_chunks(taps * channels)).for_each(
                |(to, from)| {
                    for (channel, to) in to.chunks_exact_mut(taps).enumerate() {
                        for (tap, to) in to.iter_mut().enumerate() {
                            to.write(from[tap * channels + channel]);
                        }
                    }
                },
            );
        })
    }
}
