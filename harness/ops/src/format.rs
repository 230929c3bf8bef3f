//! The memory format of images.

use candle_core::{DType, Device, Result, Tensor, bail};

/// How the images of a computation lie in memory. Results do not depend on it but for the order of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `[B, C, H, W]`: each channel is a plane. What vector units of a CPU do best with.
    Planes,
    /// `[B, H, W, C]`: the channels of a pixel lie side by side, as the matrix units of a GPU want them, and as
    /// an encoder's tokens already do.
    Pixels,
}

impl Format {
    /// The format in which `device` is fast.
    pub fn of(device: &Device) -> Self {
        if device.is_cuda() { Self::Pixels } else { Self::Planes }
    }

    /// `[B, C, H, W]` images as images of this format, contiguous; no copy where they lie so already.
    ///
    /// # Errors
    /// If `images` does not have four dimensions, or the device fails.
    pub fn enter(self, images: &Tensor) -> Result<Tensor> {
        match self {
            Self::Planes => images.contiguous(),
            Self::Pixels => images.permute((0, 2, 3, 1))?.contiguous(),
        }
    }

    /// Images of this format as `[B, C, H, W]`, without a copy: those of [`Format::Pixels`] become a view.
    ///
    /// # Errors
    /// If `images` does not have four dimensions.
    pub fn leave(self, images: &Tensor) -> Result<Tensor> {
        match self {
            Self::Planes => Ok(images.clone()),
            Self::Pixels => images.permute((0, 3, 1, 2)),
        }
    }

    /// Height and width of images of this format.
    ///
    /// # Errors
    /// If `images` does not have four dimensions.
    pub fn size(self, images: &Tensor) -> Result<(usize, usize)> {
        let (_, a, b, c) = images.dims4()?;
        Ok(match self {
            Self::Planes => (b, c),
            Self::Pixels => (a, b),
        })
    }

    /// Bytes that a convolution of images of this format takes besides its tensors, about and at most: the
    /// columns of some images, or what cuDNN asks for. A single image whose columns are larger takes more.
    pub fn workspace(self) -> u64 {
        match self {
            Self::Planes => 0,
            Self::Pixels if cfg!(feature = "cudnn") => 1 << 30,
            Self::Pixels => 1 << 29,
        }
    }
}

/// Joins a row to every token of its image: `x` `[B, N, D]` and `row` `[B, E]` to `[B, N, D + E]`, f32 and
/// without a graph.
///
/// # Errors
/// If the shapes do not fit, or the devices differ.
pub fn join_rows(x: &Tensor, row: &Tensor) -> Result<Tensor> {
    match (x.dims(), row.dims()) {
        (&[batch, _, _], &[rows, _]) if batch == rows => {}
        (x, row) => bail!("join_rows: expected x [B, N, D] and a row [B, E], found {x:?}, {row:?}"),
    }
    let x = match x.dtype() {
        DType::F32 | DType::BF16 | DType::F16 => x.contiguous()?,
        _ => x.to_dtype(DType::F32)?.contiguous()?,
    };
    let row = row.to_dtype(DType::F32)?.contiguous()?;
    x.apply_op2_no_bwd(&row, &crate::pixels::join::Join)
}
