//! Bilinear resizing of images whose channels lie side by side.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::host::{rounded, wide};
use crate::resize::{Taps, check_sides};
use crate::tape::Backward;

/// [`resize_bilinear`](crate::resize_bilinear()) of `[B, H, W, C]`, and its gradient.
pub(crate) fn resize_bilinear(
    x: &Tensor,
    height: usize,
    width: usize,
) -> Result<(Tensor, Backward)> {
    let &[_, from_height, from_width, _] = x.dims() else {
        bail!("resize_bilinear: expected x [B, H, W, C], found {:?}", x.dims());
    };
    let (small, large, dtype) = ([from_height, from_width], [height, width], x.dtype());
    check_sides(x, small, large)?;
    let run = move |x: &Tensor, back: bool| {
        let x = match dtype {
            DType::F32 | DType::BF16 | DType::F16 => x.to_dtype(dtype)?,
            _ => x.to_dtype(DType::F32)?,
        };
        x.contiguous()?.apply_op1_no_bwd(&Resize { small, large, back })?.to_dtype(dtype)
    };
    let backward = move |gradient: &Tensor, _: bool| Ok([Some(run(gradient, true)?), None, None]);
    Ok((run(x, false)?, Box::new(backward)))
}

/// The resize from one grid to the other, or its transpose.
struct Resize {
    small: [usize; 2],
    large: [usize; 2],
    /// Whether it goes from the second grid to the first, as gradients do.
    back: bool,
}

impl CustomOp1 for Resize {
    fn name(&self) -> &'static str {
        "resize_bilinear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, .., channels) = layout.shape().dims4()?;
        let (from, [to_height, to_width]) =
            (wide(x, layout)?, if self.back { self.small } else { self.large });
        let ([height, width], [wide_height, wide_width]) = (self.small, self.large);
        let (lines, pixels) = (Taps::new(height, wide_height), Taps::new(width, wide_width));
        let mut to = vec![0.0f32; batch * to_height * to_width * channels];
        for place in 0..batch * wide_height * wide_width {
            let (image, line, pixel) = (
                place / wide_width / wide_height,
                place / wide_width % wide_height,
                place % wide_width,
            );
            let (above, below, down) = lines.places[line];
            let (left, right, along) = pixels.places[pixel];
            let at = |y: usize, x: usize| ((image * height + y) * width + x) * channels;
            for channel in 0..channels {
                let [a, b, c, d] =
                    [at(above, left), at(above, right), at(below, left), at(below, right)]
                        .map(|place| place + channel);
                let place = place * channels + channel;
                if self.back {
                    let (top, bottom) = ((1.0 - down) * from[place], down * from[place]);
                    to[a] += (1.0 - along) * top;
                    to[b] += along * top;
                    to[c] += (1.0 - along) * bottom;
                    to[d] += along * bottom;
                } else {
                    let top = from[a] + along * (from[b] - from[a]);
                    let bottom = from[c] + along * (from[d] - from[c]);
                    to[place] = top + down * (bottom - top);
                }
            }
        }
        let shape = Shape::from((batch, to_height, to_width, channels));
        Ok((rounded(to, x.dtype())?, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::images::resize((x, layout), self.small, self.large, self.back)
    }
}
