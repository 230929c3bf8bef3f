//! Bilinear resizing whose corners stay where they are.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::storage::{Values, contiguous_f32, elements, filled, tensor};
use crate::tape::Backward;
use crate::{compose, simd};

/// Bilinear interpolation of `[B, C, H, W]` to `[B, C, height, width]`, as PyTorch's `interpolate` with
/// `align_corners=True`: the first and last pixels' centres of both grids coincide.
///
/// Computed in f32 and returned in the dtype of `x`; differentiable.
///
/// # Errors
/// If `x` does not have four dimensions, or a side is empty on one grid only.
pub fn resize_bilinear(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let op = Resize::new(x, [height, width])?;
    let wide = x.to_dtype(DType::F32)?;
    if !x.device().is_cpu() {
        return compose::resize(&wide, &op.rows.matrix(), &op.columns.matrix())?
            .to_dtype(x.dtype());
    }
    wide.contiguous()?.apply_op1(op)?.to_dtype(x.dtype())
}

/// [`resize_bilinear`] on the CPU, and its gradient.
pub(crate) fn resized(x: &Tensor, height: usize, width: usize) -> Result<(Tensor, Backward)> {
    let op = Resize::new(x, [height, width])?;
    let (dtype, from) = (x.dtype(), x.dims().to_vec());
    let wide = contiguous_f32(x)?;
    let y = op.forward(Values::lock(&wide).slice()?);
    let y = tensor(y, &[from[0], from[1], height, width])?.to_dtype(dtype)?;
    let backward = move |gradient: &Tensor, _: bool| {
        let gradient = contiguous_f32(gradient)?;
        let of_x = op.backward(Values::lock(&gradient).slice()?);
        Ok([Some(tensor(of_x, &from)?.to_dtype(dtype)?), None, None])
    };
    Ok((y, Box::new(backward)))
}

/// Refuses a resize of `x` from or to a grid with an empty side.
pub(crate) fn check_sides(x: &Tensor, from: [usize; 2], [height, width]: [usize; 2]) -> Result<()> {
    if from.contains(&0) || [height, width].contains(&0) {
        bail!(
            "resize_bilinear: expected sides of at least 1, found {:?} to {height} x {width}",
            x.dims()
        );
    }
    Ok(())
}

/// The two neighbours of every place on a line and their weights.
pub(crate) struct Taps {
    from: usize,
    /// Left neighbour, right neighbour, weight of the right one.
    pub places: Vec<(usize, usize, f32)>,
}

impl Taps {
    pub(crate) fn new(from: usize, to: usize) -> Self {
        let scale = if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 };
        let place = |i: usize| {
            let at = scale * i as f32;
            let left = (at as usize).min(from - 1);
            (left, (left + 1).min(from - 1), (at - left as f32).clamp(0.0, 1.0))
        };
        Self { from, places: (0..to).map(place).collect() }
    }

    fn to(&self) -> usize {
        self.places.len()
    }

    /// `[to, from]`, row by row.
    fn matrix(&self) -> (Vec<f32>, [usize; 2]) {
        let mut matrix = vec![0.0; self.to() * self.from];
        for (row, &(left, right, share)) in matrix.chunks_exact_mut(self.from).zip(&self.places) {
            row[left] += 1.0 - share;
            row[right] += share;
        }
        (matrix, [self.to(), self.from])
    }
}

struct Resize {
    rows: Taps,
    columns: Taps,
}

impl Resize {
    /// From the size of `x` to another.
    fn new(x: &Tensor, [height, width]: [usize; 2]) -> Result<Self> {
        let &[_, _, from_height, from_width] = x.dims() else {
            bail!("resize_bilinear: expected x [B, C, H, W], found {:?}", x.dims());
        };
        check_sides(x, [from_height, from_width], [height, width])?;
        Ok(Self { rows: Taps::new(from_height, height), columns: Taps::new(from_width, width) })
    }

    fn plane(&self) -> usize {
        self.rows.to() * self.columns.to()
    }

    /// Each plane's columns are interpolated line by line into `between`, then its lines.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (plane, width) = (self.plane(), self.columns.to());
        let from_plane = self.rows.from * self.columns.from;
        // SAFETY: the chunks cover the buffer, and each line of a chunk is written whole.
        unsafe {
            filled(x.len() / from_plane * plane, |to| {
                to.par_chunks_mut(plane).zip(x.par_chunks(from_plane)).for_each_init(
                    || vec![0.0; self.rows.from * width],
                    |between, (to, from)| {
                        for (to, from) in between
                            .chunks_exact_mut(width)
                            .zip(from.chunks_exact(self.columns.from))
                        {
                            for (to, &(left, right, share)) in
                                to.iter_mut().zip(&self.columns.places)
                            {
                                *to = from[left] + share * (from[right] - from[left]);
                            }
                        }
                        for (to, &(above, below, share)) in
                            to.chunks_exact_mut(width).zip(&self.rows.places)
                        {
                            let (above, below) = (
                                &between[above * width..][..width],
                                &between[below * width..][..width],
                            );
                            simd::mix_into(above, below, share, to);
                        }
                    },
                );
            })
        }
    }

    /// The transpose of [`Resize::forward`]: lines first, then columns.
    fn backward(&self, gradient: &[f32]) -> Vec<f32> {
        let (plane, width) = (self.plane(), self.columns.to());
        let from_plane = self.rows.from * self.columns.from;
        let mut result = vec![0.0; gradient.len() / plane * from_plane];
        result.par_chunks_mut(from_plane).zip(gradient.par_chunks(plane)).for_each_init(
            || vec![0.0; self.rows.from * width],
            |between, (to, from)| {
                between.fill(0.0);
                for (from, &(above, below, share)) in
                    from.chunks_exact(width).zip(&self.rows.places)
                {
                    simd::add_scaled(from, 1.0 - share, &mut between[above * width..][..width]);
                    simd::add_scaled(from, share, &mut between[below * width..][..width]);
                }
                for (to, from) in
                    to.chunks_exact_mut(self.columns.from).zip(between.chunks_exact(width))
                {
                    for (&v, &(left, right, share)) in from.iter().zip(&self.columns.places) {
                        to[left] += (1.0 - share) * v;
                        to[right] += share * v;
                    }
                }
            },
        );
        result
    }
}

impl CustomOp1 for Resize {
    fn name(&self) -> &'static str {
        "resize_bilinear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, ..) = layout.shape().dims4()?;
        let shape = Shape::from((batch, channels, self.rows.to(), self.columns.to()));
        Ok((CpuStorage::F32(self.forward(elements(x, layout)?)), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = contiguous_f32(gradient)?;
        let values = Values::lock(&gradient);
        tensor(self.backward(values.slice()?), x.dims()).map(Some)
    }
}
