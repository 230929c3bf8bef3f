//! Convolution as a matrix product whose right operand, the image's columns, is packed panel by panel.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::simd::{multiversion, rectified};
use crate::storage::{Shared, filled};
use crate::tile::{PANEL, Product, Start, Walk, rows_at_once};

/// Depth packed at once at most, and
const DEPTH: usize = 576;
/// panels packed at once at most: together 288 KiB, which stay in L2.
const PANELS: usize = 2;
/// Tasks wanted; rows are only divided to reach it, since each part packs the panels again.
const TASKS: usize = 16;
/// Rows of a task at least.
const TASK_ROWS: usize = 48;

/// `y[b, o, i, j] = bias[o] + sum over c, t of w[o, c, t] x[b, c, i stride + dy_t, j stride + dx_t]`, where
/// `x` is zero outside its borders.
///
/// The forward pass of a convolution is one of these, and the gradient of its input is `stride * stride`.
pub(crate) struct Gather<'a> {
    pub batch: usize,
    /// Channels, height and width of `x`.
    pub from: [usize; 3],
    /// Channels, height and width of `y`.
    pub to: [usize; 3],
    pub stride: usize,
    /// `(dy, dx)` of each tap.
    pub taps: &'a [(isize, isize)],
    pub x: &'a [f32],
    /// `[to channels, from channels, taps]`.
    pub weight: &'a [f32],
    /// Whether the ReLU of `x` is convolved.
    pub rectify: bool,
    pub bias: Option<&'a [f32]>,
}

/// Some pixels of one image that lie side by side in `y`.
#[derive(Clone, Copy)]
struct Pixels {
    image: usize,
    first: usize,
    count: usize,
}

/// `len` values of a line of a panel from lane `lane` on that come from `from` on in a channel.
struct Run {
    lane: usize,
    from: usize,
    len: usize,
}

#[derive(Default)]
struct Scratch {
    panels: Vec<f32>,
    runs: Vec<Run>,
    taps: Vec<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Gather<'_> {
    /// `y`, `[batch, to]`.
    pub(crate) fn run(&self) -> Vec<f32> {
        let [rows, height, width] = self.to;
        let pixels = height * width;
        let per_image = pixels.div_ceil(PANEL);
        let panels = self.batch * per_image;
        let blocks = panels.div_ceil(PANELS);
        let parts = TASKS.div_ceil(blocks.max(1)).min(rows / TASK_ROWS).max(1);
        let tasks = if rows == 0 { 0 } else { blocks * parts };
        // SAFETY: the tasks' blocks tile the result, and `block` writes its block whole.
        unsafe {
            filled(self.batch * rows * pixels, |to| {
                let to = Shared::new(to);
                (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
                    let (block, part) = (task / parts, task % parts);
                    let mut panel_pixels = [Pixels { image: 0, first: 0, count: 0 }; PANELS];
                    let count = PANELS.min(panels - block * PANELS);
                    for (i, place) in panel_pixels[..count].iter_mut().enumerate() {
                        let panel = block * PANELS + i;
                        let first = panel % per_image * PANEL;
                        let count = PANEL.min(pixels - first);
                        *place = Pixels { image: panel / per_image, first, count };
                    }
                    let rows = [part * rows / parts, (part + 1) * rows / parts];
                    SCRATCH.with_borrow_mut(|scratch| {
                        self.block(to, &panel_pixels[..count], rows, scratch);
                    });
                });
            })
        }
    }

    /// Computes the rows (channels of `y`) from `first` to `end` of some panels.
    ///
    /// # Safety
    /// `to` must hold the whole result, and nothing else may access the block meanwhile.
    unsafe fn block(
        &self,
        to: Shared,
        panels: &[Pixels],
        [first, end]: [usize; 2],
        scratch: &mut Scratch,
    ) {
        let inputs = self.from[0] * self.taps.len();
        let pixels = self.to[1] * self.to[2];
        let depth = inputs.div_ceil(inputs.div_ceil(DEPTH).max(1));
        let step = rows_at_once(end - first);
        scratch.panels.resize(scratch.panels.len().max(panels.len() * depth * PANEL), 0.0);
        let mut start = 0;
        loop {
            let length = depth.min(inputs - start);
            for (i, &pixels) in panels.iter().enumerate() {
                self.pack(pixels, [start, length], i * depth * PANEL, scratch);
            }
            for row in (first..end).step_by(step) {
                let rows = step.min(end - row);
                for (i, place) in panels.iter().enumerate() {
                    let at = (place.image * self.to[0] + row) * pixels + place.first;
                    let call = Product {
                        a: self.weight[row * inputs + start..].as_ptr(),
                        a_row: inputs,
                        panel: scratch.panels[i * depth * PANEL..].as_ptr(),
                        walk: Walk::packed(length),
                        columns: place.count,
                        start: match self.bias {
                            _ if start > 0 => Start::Result,
                            Some(bias) => Start::Bias(bias[row..end].as_ptr()),
                            None => Start::Zero,
                        },
                        to: to.at(at),
                        to_row: pixels,
                    };
                    // SAFETY: the weight holds `rows` rows of `length` inputs and the scratch a panel as deep; the
                    // block is ours, and the first pass has initialised it.
                    unsafe { call.compute(rows) };
                }
            }
            start += length;
            if start == inputs {
                break;
            }
        }
    }

    /// Packs the lines of `length` inputs from `start` on for some pixels.
    fn pack(&self, pixels: Pixels, [start, length]: [usize; 2], at: usize, scratch: &mut Scratch) {
        let Scratch { panels, runs, taps, .. } = scratch;
        runs.clear();
        taps.clear();
        for &tap in self.taps {
            taps.push(runs.len());
            self.runs(pixels, tap, runs);
        }
        taps.push(runs.len());
        let [channels, height, width] = self.from;
        let plane = height * width;
        let packing = Packing {
            planes: &self.x[pixels.image * channels * plane..][..channels * plane],
            plane,
            stride: self.stride,
            rectify: self.rectify,
            runs,
            taps,
        };
        pack_lines(&packing, start, panels[at..][..length * PANEL].as_chunks_mut().0);
    }

    /// The runs in which a tap reads `x` for some pixels; what is between them lies outside its borders.
    fn runs(&self, pixels: Pixels, (dy, dx): (isize, isize), runs: &mut Vec<Run>) {
        let ([_, height, width], out_width) = (self.from, self.to[2]);
        let stride = self.stride as isize;
        // Columns j of y with 0 <= j stride + dx < width.
        let inside = (-dx).max(0).div_ceil_by(stride);
        let outside = (width as isize - dx).max(0).div_ceil_by(stride);
        let mut lane = 0;
        while lane < pixels.count {
            let pixel = pixels.first + lane;
            let (i, j) = (pixel / out_width, pixel % out_width);
            let len = (out_width - j).min(pixels.count - lane);
            let y = i as isize * stride + dy;
            let (begin, end) = (j.max(inside), (j + len).min(outside));
            if (0..height as isize).contains(&y) && begin < end {
                let x = begin as isize * stride + dx;
                let from = y as usize * width + x as usize;
                runs.push(Run { lane: lane + begin - j, from, len: end - begin });
            }
            lane += len;
        }
    }
}

/// Division of a non-negative number, rounded up.
trait DivCeil {
    fn div_ceil_by(self, divisor: isize) -> usize;
}

impl DivCeil for isize {
    fn div_ceil_by(self, divisor: isize) -> usize {
        ((self + divisor - 1) / divisor) as usize
    }
}

/// What the lines of a panel are packed from.
struct Packing<'a> {
    /// An image.
    planes: &'a [f32],
    /// Pixels of a channel.
    plane: usize,
    stride: usize,
    rectify: bool,
    runs: &'a [Run],
    /// Where each tap's runs begin, and where the last one's end.
    taps: &'a [usize],
}

#[inline(always)]
fn pack_lines_body<const FMA: bool>(from: &Packing, first: usize, lines: &mut [[f32; PANEL]]) {
    let taps = from.taps.len() - 1;
    let (mut channel, mut tap) = (first / taps.max(1), first % taps.max(1));
    for line in lines {
        let runs = &from.runs[from.taps[tap]..from.taps[tap + 1]];
        let plane = &from.planes[channel * from.plane..][..from.plane];
        if runs.iter().map(|run| run.len).sum::<usize>() < PANEL {
            *line = [0.0; PANEL];
        }
        for run in runs {
            let to = &mut line[run.lane..][..run.len];
            if from.stride == 1 {
                copy(&plane[run.from..][..run.len], to);
            } else {
                for (to, &v) in to.iter_mut().zip(plane[run.from..].iter().step_by(from.stride)) {
                    *to = v;
                }
            }
        }
        if from.rectify {
            for v in line {
                *v = rectified(*v);
            }
        }
        tap += 1;
        if tap == taps {
            (channel, tap) = (channel + 1, 0);
        }
    }
}

multiversion! {
    /// Packs the lines of the inputs from `first` on.
    fn pack_lines = pack_lines_body(from: &Packing, first: usize, lines: &mut [[f32; PANEL]])
}

/// Copies up to [`PANEL`] values: without the call that a longer copy is worth.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    #[inline(always)]
    fn by<const N: usize>(from: &[f32], to: &mut [f32]) -> bool {
        let len = to.len();
        if len < N || from.len() != len {
            return false;
        }
        for (to, from) in to.as_chunks_mut::<N>().0.iter_mut().zip(from.as_chunks::<N>().0) {
            *to = *from;
        }
        // The rest, with some of the last chunk again.
        if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
            *to = *from;
        }
        true
    }
    if !(by::<16>(from, to) || by::<4>(from, to)) {
        for (to, &v) in to.iter_mut().zip(from) {
            *to = v;
        }
    }
}
