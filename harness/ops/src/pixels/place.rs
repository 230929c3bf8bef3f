//! The sum of overlapping windows of an image.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};

/// Adds the first `height` lines and `width` pixels of a window `[side, side, C]`, f32, to `sums`
/// `[H, W, C]`, f32 and contiguous, in place, with its first pixel at line `top` and pixel `left`.
///
/// # Errors
/// If the shapes do not fit, or the devices differ.
pub fn add_window(
    sums: &Tensor,
    window: &Tensor,
    [top, left]: [usize; 2],
    [height, width]: [usize; 2],
) -> Result<()> {
    let (&[lines, pixels, channels], &[from_lines, from_pixels, of]) = (sums.dims(), window.dims())
    else {
        bail!(
            "add_window: expected sums [H, W, C] and a window [side, side, C], found {:?}, {:?}",
            sums.dims(),
            window.dims()
        );
    };
    let inside = top + height <= lines && left + width <= pixels;
    if channels != of || height > from_lines || width > from_pixels || !inside {
        bail!(
            "add_window: expected {height} x {width} pixels at {top}, {left} to lie in both, found {:?}, {:?}",
            sums.dims(),
            window.dims()
        );
    }
    if !sums.is_contiguous() {
        bail!("add_window: expected contiguous sums, found strides {:?}", sums.stride());
    }
    let rows = Rows {
        first: (top * pixels + left) * channels,
        steps: [pixels * channels, from_pixels * channels],
        count: height,
        width: width * channels,
    };
    sums.inplace_op2(&window.contiguous()?, &rows)
}

/// Rows of values that are added to others.
pub(crate) struct Rows {
    /// The place of the first value in what is added to.
    pub first: usize,
    /// From a row to the next, in what is added to and in what is added.
    pub steps: [usize; 2],
    pub count: usize,
    /// Values of a row.
    pub width: usize,
}

impl InplaceOp2 for Rows {
    fn name(&self) -> &'static str {
        "add_window"
    }

    fn cpu_fwd(
        &self,
        sums: &mut CpuStorage,
        sums_layout: &Layout,
        window: &CpuStorage,
        window_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(sums), CpuStorage::F32(window)) = (sums, window) else {
            bail!("add_window: expected f32");
        };
        let to = &mut sums[sums_layout.start_offset() + self.first..];
        let from = &window[window_layout.start_offset()..];
        for row in 0..self.count {
            let to = &mut to[row * self.steps[0]..][..self.width];
            for (to, from) in to.iter_mut().zip(&from[row * self.steps[1]..]) {
                *to += from;
            }
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        sums: &mut CudaStorage,
        sums_layout: &Layout,
        window: &CudaStorage,
        window_layout: &Layout,
    ) -> Result<()> {
        crate::cuda::images::add_rows(self, (sums, sums_layout), (window, window_layout))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        let zeros = |shape: [usize; 3]| Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap();
        let (sums, window) = (zeros([4, 5, 2]), zeros([3, 3, 2]));
        add_window(&sums, &window, [1, 2], [3, 3]).unwrap();
        for (window, place, size) in [
            (&window, [2, 2], [3, 3]),
            (&window, [0, 3], [1, 3]),
            (&window, [0, 0], [4, 1]),
            (&zeros([3, 3, 1]), [0, 0], [1, 1]),
        ] {
            let found = add_window(&sums, window, place, size).unwrap_err().to_string();
            assert!(found.contains("to lie in both"), "{found}");
        }
        let turned = sums.transpose(0, 1).unwrap();
        assert!(add_window(&turned, &window, [0, 0], [1, 1]).is_err());
    }
}
