//! The memory format of images.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::pixels::{conv, norm, resize};
use crate::{
    batch_norm_eval, batch_norm_train, conv_transpose2d, conv2d, relu_conv2d, resize_bilinear,
};

/// How the images of a computation lie in memory.
///
/// The operations on images have one method each here, which takes images of this format (the weights and
/// parameters are the same in both) and returns what the function of that name returns, but for the order of
/// sums.
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

    /// [`conv2d`] of images of this format.
    ///
    /// # Errors
    /// As [`conv2d`].
    pub fn conv2d(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: usize,
        padding: usize,
    ) -> Result<Tensor> {
        match self {
            Self::Planes => conv2d(x, weight, bias, stride, padding),
            Self::Pixels => conv::conv2d(x, weight, bias, [stride, padding], false),
        }
    }

    /// [`relu_conv2d`] of images of this format.
    ///
    /// # Errors
    /// As [`relu_conv2d`].
    pub fn relu_conv2d(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: usize,
        padding: usize,
    ) -> Result<Tensor> {
        match self {
            Self::Planes => relu_conv2d(x, weight, bias, stride, padding),
            Self::Pixels => conv::conv2d(x, weight, bias, [stride, padding], true),
        }
    }

    /// [`conv_transpose2d`] of images of this format.
    ///
    /// # Errors
    /// As [`conv_transpose2d`].
    pub fn conv_transpose2d(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: usize,
    ) -> Result<Tensor> {
        match self {
            Self::Planes => conv_transpose2d(x, weight, bias, stride),
            Self::Pixels => conv::conv_transpose2d(x, weight, bias, stride),
        }
    }

    /// [`resize_bilinear`] of images of this format.
    ///
    /// # Errors
    /// As [`resize_bilinear`].
    pub fn resize_bilinear(self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        match self {
            Self::Planes => resize_bilinear(x, height, width),
            Self::Pixels => resize::resize_bilinear(x, height, width),
        }
    }

    /// [`batch_norm_train`] of images of this format.
    ///
    /// # Errors
    /// As [`batch_norm_train`].
    pub fn batch_norm_train(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        match self {
            Self::Planes => batch_norm_train(x, weight, bias, eps),
            Self::Pixels => norm::batch_norm_train(x, weight, bias, eps),
        }
    }

    /// [`batch_norm_eval`] of images of this format.
    ///
    /// # Errors
    /// As [`batch_norm_eval`].
    pub fn batch_norm_eval(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        mean: &Tensor,
        variance: &Tensor,
        eps: f64,
    ) -> Result<Tensor> {
        match self {
            Self::Planes => batch_norm_eval(x, weight, bias, mean, variance, eps),
            Self::Pixels => norm::batch_norm_eval(x, [weight, bias, mean, variance], eps),
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
