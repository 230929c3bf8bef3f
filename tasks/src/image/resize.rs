//! Bicubic resize, antialiased when shrinking, as Pillow up to 12 computes it on 8-bit images:
//! separable, horizontal pass first, weights rounded to 22 fractional bits, the result of each pass
//! rounded to 8 bits.

use ndarray::{Array3, ArrayView3, s};

/// Fractional bits of a weight: 32 less the 8 of a sample and 2 for overshoot.
const PRECISION: u32 = 22;
const HALF: i32 = 1 << (PRECISION - 1);
/// Half the width of the bicubic kernel, in samples of the coarser grid.
const SUPPORT: f64 = 2.0;
/// Rows that the horizontal pass filters at once, to have independent sums in flight.
const ROWS: usize = 4;
/// Bytes of a row that the vertical pass sums at once: their sums stay in registers.
const LANES: usize = 32;

/// Part of a resized image, in its pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// Resizes `[H, W, 3]` to `[height, width, 3]`. A side that keeps its length is not filtered. An
/// empty image, or an empty target, gives zeros.
pub fn resize(image: ArrayView3<'_, u8>, height: usize, width: usize) -> Array3<u8> {
    resize_region(image, height, width, Region { top: 0, left: 0, height, width })
}

/// The pixels of `region` of `resize(image, height, width)`, and the work for those alone. The
/// region lies inside.
pub(crate) fn resize_region(
    image: ArrayView3<'_, u8>,
    height: usize,
    width: usize,
    region: Region,
) -> Array3<u8> {
    let (in_height, in_width, channels) = image.dim();
    assert_eq!(channels, 3, "an RGB image has three channels");
    let (rows, columns) =
        (region.top..region.top + region.height, region.left..region.left + region.width);
    let mut out = Array3::zeros((region.height, region.width, 3));
    if out.is_empty() || image.is_empty() {
        return out;
    }
    let down = (in_height != height).then(|| Weights::new(in_height, height, rows.clone()));
    let across = (in_width != width).then(|| Weights::new(in_width, width, columns.clone()));
    let needed = down.as_ref().map_or(rows, Weights::inputs);
    let image = image.slice_move(s![needed.clone(), .., ..]);

    let middle = match &across {
        Some(weights) => {
            let image = image.as_standard_layout();
            let mut middle = Array3::zeros((needed.len(), region.width, 3));
            if let (Some(source), Some(target)) = (image.as_slice(), middle.as_slice_mut()) {
                horizontal(source, in_width, weights, target);
            }
            middle
        }
        None => image.slice(s![.., columns, ..]).to_owned(),
    };
    let Some(weights) = &down else { return middle };
    if let (Some(source), Some(target)) = (middle.as_slice(), out.as_slice_mut()) {
        vertical(source, needed.start, region.width * 3, weights, target);
    }
    out
}

/// For each output sample of one axis, which inputs it is the weighted sum of.
struct Weights {
    /// First input and number of inputs, by output.
    spans: Vec<(usize, usize)>,
    /// `stride` weights an output, of which the span's number is used.
    values: Vec<i32>,
    stride: usize,
}

impl Weights {
    fn new(input: usize, output: usize, outputs: std::ops::Range<usize>) -> Self {
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let stride = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(outputs.len());
        let mut values = vec![0; outputs.len() * stride];
        let mut exact = Vec::with_capacity(stride);
        for (index, rounded) in outputs.zip(values.chunks_exact_mut(stride)) {
            let center = (index as f64 + 0.5) * scale;
            // Saturating at zero is the clamp to the image.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let step = 1.0 / filter_scale;
            exact.clear();
            exact.extend(
                (0..end - first).map(|k| bicubic((k as f64 + first as f64 - center + 0.5) * step)),
            );
            // Added in order, from the left: the last bit decides some weights.
            let sum = exact.iter().fold(0.0, |sum, weight| sum + weight);
            for (target, weight) in rounded.iter_mut().zip(&exact) {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                let fixed = weight * f64::from(1 << PRECISION);
                *target = if weight < 0.0 { fixed - 0.5 } else { fixed + 0.5 } as i32;
            }
            spans.push((first, exact.len()));
        }
        Self { spans, values, stride }
    }

    /// The inputs that any output needs.
    fn inputs(&self) -> std::ops::Range<usize> {
        let start = self.spans.first().map_or(0, |span| span.0);
        start..self.spans.last().map_or(0, |span| span.0 + span.1)
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let values = self.values.chunks_exact(self.stride);
        self.spans.iter().zip(values).map(|(&(first, count), values)| (first, &values[..count]))
    }
}

/// Keys' cubic convolution with a = -0.5 (Keys 1981, "Cubic convolution interpolation for digital
/// image processing").
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Filters every row of `source` (rows of `width` pixels) into one of `weights.spans.len()` pixels.
fn horizontal(source: &[u8], width: usize, weights: &Weights, target: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { horizontal_avx2(source, width, weights, target) };
    }
    horizontal_any(source, width, weights, target);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn horizontal_avx2(source: &[u8], width: usize, weights: &Weights, target: &mut [u8]) {
    horizontal_any(source, width, weights, target);
}

#[inline(always)]
fn horizontal_any(source: &[u8], width: usize, weights: &Weights, target: &mut [u8]) {
    let (row, out_row) = (width * 3, weights.spans.len() * 3);
    // One byte more than a row, so that a pixel can be read as four bytes: one vector of sums.
    let stride = row + 1;
    let mut padded = vec![0; stride * ROWS];
    for (rows, lines) in source.chunks(row * ROWS).zip(target.chunks_mut(out_row * ROWS)) {
        for (padded, row) in padded.chunks_exact_mut(stride).zip(rows.chunks_exact(row)) {
            padded[..row.len()].copy_from_slice(row);
        }
        for (x, (first, weights)) in weights.iter().enumerate() {
            let windows: [&[u8]; ROWS] =
                std::array::from_fn(|r| &padded[r * stride + first * 3..][..weights.len() * 3 + 1]);
            let mut sums = [[HALF; 4]; ROWS];
            for (k, weight) in weights.iter().enumerate() {
                for (sums, window) in sums.iter_mut().zip(windows) {
                    for (sum, &value) in sums.iter_mut().zip(&window[k * 3..k * 3 + 4]) {
                        *sum += weight * i32::from(value);
                    }
                }
            }
            for (line, [r, g, b, _]) in lines.chunks_exact_mut(out_row).zip(sums) {
                line[x * 3..x * 3 + 3].copy_from_slice(&[to_byte(r), to_byte(g), to_byte(b)]);
            }
        }
    }
}

/// Sums rows of `row` bytes; the first one in `source` is row `offset` of the image.
fn vertical(source: &[u8], offset: usize, row: usize, weights: &Weights, target: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { vertical_avx2(source, offset, row, weights, target) };
    }
    vertical_any(source, offset, row, weights, target);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn vertical_avx2(source: &[u8], offset: usize, row: usize, weights: &Weights, target: &mut [u8]) {
    vertical_any(source, offset, row, weights, target);
}

#[inline(always)]
fn vertical_any(source: &[u8], offset: usize, row: usize, weights: &Weights, target: &mut [u8]) {
    for ((first, weights), line) in weights.iter().zip(target.chunks_exact_mut(row)) {
        let rows = &source[(first - offset) * row..][..weights.len() * row];
        let (blocks, rest) = line.as_chunks_mut::<LANES>();
        for (index, block) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; LANES];
            for (values, weight) in rows.chunks_exact(row).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(&values[index * LANES..][..LANES]) {
                    *sum += weight * i32::from(value);
                }
            }
            *block = sums.map(to_byte);
        }
        let start = row - rest.len();
        for (index, byte) in rest.iter_mut().enumerate() {
            let column = rows.chunks_exact(row).map(|values| i32::from(values[start + index]));
            *byte = to_byte(column.zip(weights).fold(HALF, |sum, (value, w)| sum + w * value));
        }
    }
}
