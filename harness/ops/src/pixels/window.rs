//! What a convolution reads of an image whose channels lie side by side.

use crate::convolution::Geometry;
use crate::product::{Matrix, product};

/// The sizes of a convolution of `[B, H, W, C]`.
///
/// Its columns are a matrix with a row for every pixel of the result, and in it the channels of the pixel under
/// each tap, taps in row-major order; beside the image they are 0. With the weight as `[O, taps, C]` a
/// convolution is `columns weight^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub batch: usize,
    /// Height, width and channels of the input.
    pub from: [usize; 3],
    /// Height, width and channels of the result.
    pub to: [usize; 3],
    /// Height and width.
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: usize,
    /// Whether the ReLU of the input is convolved.
    pub rectify: bool,
}

impl Window {
    pub(crate) fn new(sizes: &Geometry, [stride, padding]: [usize; 2], rectify: bool) -> Self {
        let last = |[channels, height, width]: [usize; 3]| [height, width, channels];
        Self {
            batch: sizes.batch,
            from: last(sizes.from),
            to: last(sizes.to),
            kernel: sizes.kernel,
            stride,
            padding,
            rectify,
        }
    }

    /// `[B, H, W, C]`.
    #[cfg(feature = "cudnn")]
    pub(crate) fn input(&self) -> [usize; 4] {
        let [h, w, c] = self.from;
        [self.batch, h, w, c]
    }

    /// `[B, H, W, O]`.
    pub(crate) fn result(&self) -> [usize; 4] {
        let [h, w, c] = self.to;
        [self.batch, h, w, c]
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Rows of the columns: pixels of the result.
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.to[0] * self.to[1]
    }

    /// Values in a row of the columns.
    pub(crate) fn depth(&self) -> usize {
        self.taps() * self.from[2]
    }

    /// Whether the columns are the image itself.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_product(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == 0
    }

    /// Calls `f` with the places of the channels in the columns and in the image, for every tap that falls on it.
    fn each(&self, mut f: impl FnMut(usize, usize)) {
        let [[height, width, channels], [lines, pixels, _]] = [self.from, self.to];
        for row in 0..self.rows() {
            let (image, line, pixel) = (row / pixels / lines, row / pixels % lines, row % pixels);
            for tap in 0..self.taps() {
                let y = (line * self.stride + tap / self.kernel[1]).wrapping_sub(self.padding);
                let x = (pixel * self.stride + tap % self.kernel[1]).wrapping_sub(self.padding);
                if y < height && x < width {
                    let place = ((image * height + y) * width + x) * channels;
                    f((row * self.taps() + tap) * channels, place);
                }
            }
        }
    }

    fn columns(&self, x: &[f32]) -> Vec<f32> {
        let channels = self.from[2];
        let mut columns = vec![0.0; self.rows() * self.depth()];
        self.each(|to, from| {
            for (to, &v) in columns[to..][..channels].iter_mut().zip(&x[from..]) {
                *to = if self.rectify && v < 0.0 { 0.0 } else { v };
            }
        });
        columns
    }

    /// The convolution of `x` with a weight `[O, taps, C]`.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let (columns, out) = (self.columns(x), self.to[2]);
        let mut y: Vec<f32> = match bias {
            Some(bias) => bias.repeat(self.rows()),
            None => vec![0.0; self.rows() * out],
        };
        let sizes = [self.rows(), out, self.depth()];
        let [a, b] = [rows(&columns, self.depth()), rows(weight, self.depth()).transposed()];
        multiply(sizes, a, b, &mut y);
        y
    }

    /// The gradient of `x`, from that of the result.
    pub(crate) fn of_input(&self, gradient: &[f32], weight: &[f32], x: &[f32]) -> Vec<f32> {
        let (out, channels) = (self.to[2], self.from[2]);
        let mut columns = vec![0.0; self.rows() * self.depth()];
        let sizes = [self.rows(), self.depth(), out];
        multiply(sizes, rows(gradient, out), rows(weight, self.depth()), &mut columns);
        let mut result = vec![0.0; x.len()];
        self.each(|from, to| {
            for (to, v) in result[to..][..channels].iter_mut().zip(&columns[from..]) {
                *to += v;
            }
        });
        if self.rectify {
            for (to, &x) in result.iter_mut().zip(x) {
                *to = if x > 0.0 { *to } else { 0.0 };
            }
        }
        result
    }

    /// The gradient of the weight, `[O, taps, C]`.
    pub(crate) fn of_weight(&self, x: &[f32], gradient: &[f32]) -> Vec<f32> {
        let (columns, out) = (self.columns(x), self.to[2]);
        let mut result = vec![0.0; out * self.depth()];
        let sizes = [out, self.depth(), self.rows()];
        multiply(
            sizes,
            rows(gradient, out).transposed(),
            rows(&columns, self.depth()),
            &mut result,
        );
        result
    }
}

/// A matrix of rows of `width` values.
fn rows(values: &[f32], width: usize) -> Matrix {
    Matrix { first: values.as_ptr(), row: width, column: 1 }
}

/// `to += a b`, where `a` is `[m, k]` and `b` `[k, n]`.
fn multiply([m, n, k]: [usize; 3], a: Matrix, b: Matrix, to: &mut [f32]) {
    debug_assert_eq!(to.len(), m * n);
    if m * n * k > 0 {
        // SAFETY: callers pass matrices of these sizes, and `to` is `[m, n]`, initialised and theirs alone.
        unsafe { product([m, n, k], a, b, 1.0, to.as_mut_ptr(), n, true) };
    }
}
