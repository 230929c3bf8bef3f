//! Convolutions of images whose channels lie side by side.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::host::{rounded, wide};
use super::sums::column_sums;
use super::swap::swap;
use super::window::Window;
use crate::convolution::geometry;
use crate::tape::Backward;
use crate::transposed;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;

/// [`conv2d`](crate::conv2d()) of `[B, H, W, C]`, of its ReLU if `rectify`, with stride and padding `by`; the
/// result is `[B, H, W, O]`.
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    by: [usize; 2],
    rectify: bool,
) -> Result<(Tensor, Backward)> {
    let &[batch, height, width, channels] = x.dims() else {
        bail!("conv2d: expected x [B, H, W, C], found {:?}", x.dims());
    };
    let sizes = geometry(&[batch, channels, height, width], weight.dims(), bias, by)?;
    let window = Window::new(&sizes, by, rectify);
    let (out, taps, shape) = (sizes.to[0], window.taps(), weight.shape().clone());
    // [O, C, taps] to [O, taps, C].
    let weight = swap(&weight.reshape((out, channels, taps, 1))?)?.flatten_from(1)?;
    let (y, backward) = run(window, x, &weight, bias)?;
    let turned = move |gradient: &Tensor, of_x: bool| {
        let [of_x, of_weight, of_bias] = backward(gradient, of_x)?;
        let back = |of: Tensor| swap(&of.reshape((out, taps, channels, 1))?)?.reshape(&shape);
        Ok([of_x, of_weight.map(back).transpose()?, of_bias])
    };
    Ok((y, Box::new(turned)))
}

/// [`Tape::conv_transpose2d`](crate::Tape::conv_transpose2d) of `[B, H, W, C]`; the result is `[B, k H, k W, O]`.
pub(crate) fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
) -> Result<(Tensor, Backward)> {
    let &[batch, height, width, channels] = x.dims() else {
        bail!("conv_transpose2d: expected x [B, H, W, C], found {:?}", x.dims());
    };
    let out = transposed::outputs(channels, weight, bias, stride)?;
    let (area, shape) = (stride * stride, weight.shape().clone());
    // Each pixel of a block has output channels of its own: [C, O, k k] to [C, k k, O] to [k k O, C].
    let weight = swap(&weight.reshape((channels, out, area, 1))?)?;
    let weight = swap(&weight.reshape((1, channels, area * out, 1))?)?;
    let weight = weight.reshape((area * out, channels))?;
    let bias =
        bias.map(|b| b.broadcast_as((area, out))?.contiguous()?.flatten_all()).transpose()?;
    let window = Window {
        batch,
        from: [height, width, channels],
        to: [height, width, area * out],
        kernel: [1, 1],
        stride: 1,
        padding: 0,
        rectify: false,
    };
    let (blocks, of_blocks) = run(window, x, &weight, bias.as_ref())?;
    // [B H, W, k, k O] to [B H, k, W, k O].
    let y = swap(&blocks.reshape((batch * height, width, stride, stride * out))?)?;
    let y = y.reshape((batch, height * stride, width * stride, out))?;
    let backward = move |gradient: &Tensor, of_x: bool| {
        let gradient = gradient.reshape((batch * height, stride, width, stride * out))?;
        let gradient = swap(&gradient)?.reshape((batch, height, width, area * out))?;
        let [of_x, of_weight, of_bias] = of_blocks(&gradient, of_x)?;
        let turned = |of: Tensor| {
            let of = swap(&of.reshape((1, area * out, channels, 1))?)?;
            swap(&of.reshape((channels, area, out, 1))?)?.reshape(&shape)
        };
        let summed = |of: Tensor| of.reshape((area, out))?.sum(0);
        Ok([of_x, of_weight.map(turned).transpose()?, of_bias.map(summed).transpose()?])
    };
    Ok((y, Box::new(backward)))
}

/// The convolution with a weight `[O, taps C]`.
fn run(
    window: Window,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Backward)> {
    let dtype = weight.dtype();
    let (x, weight) = (x.detach().to_dtype(dtype)?.contiguous()?, weight.contiguous()?);
    let y = match bias {
        Some(bias) => {
            let bias = bias.to_dtype(dtype)?.contiguous()?;
            x.apply_op3_no_bwd(&weight, &bias, &Forward(window))
        }
        None => x.apply_op2_no_bwd(&weight, &Forward(window)),
    }?;
    let biased = bias.is_some();
    let backward = move |gradient: &Tensor, of_x: bool| {
        let gradient = gradient.to_dtype(dtype)?.contiguous()?;
        let of_input = || gradient.apply_op3_no_bwd(&weight, &x, &OfInput(window));
        let of_weight = x.apply_op2_no_bwd(&gradient, &OfWeight(window))?;
        let of_bias = || column_sums(&gradient)?.to_dtype(dtype);
        let of_x = of_x.then(of_input).transpose()?;
        Ok([of_x, Some(of_weight), biased.then(of_bias).transpose()?])
    };
    Ok((y, Box::new(backward)))
}

/// `x`, the weight and a bias to the result.
struct Forward(Window);

impl Forward {
    fn cpu(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = bias.map(|(storage, layout)| wide(storage, layout)).transpose()?;
        let y = self.0.forward(&wide(x.0, x.1)?, &wide(weight.0, weight.1)?, bias.as_deref());
        Ok((rounded(y, x.0.dtype())?, Shape::from(self.0.result().to_vec())))
    }
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu((x, x_layout), (weight, weight_layout), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::conv::forward(&self.0, (x, x_layout), (weight, weight_layout), None)
    }
}

impl CustomOp3 for Forward {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu((x, x_layout), (weight, weight_layout), Some((bias, bias_layout)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let bias = Some((bias, bias_layout));
        crate::cuda::conv::forward(&self.0, (x, x_layout), (weight, weight_layout), bias)
    }
}

/// The result's gradient, the weight and `x` to the gradient of `x`.
struct OfInput(Window);

impl CustomOp3 for OfInput {
    fn name(&self) -> &'static str {
        "conv2d_of_input"
    }

    fn cpu_fwd(
        &self,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gradient, weight) = (wide(gradient, gradient_layout)?, wide(weight, weight_layout)?);
        let values = self.0.of_input(&gradient, &weight, &wide(x, x_layout)?);
        Ok((rounded(values, x.dtype())?, x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        x: &CudaStorage,
        x_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (gradient, weight) = ((gradient, gradient_layout), (weight, weight_layout));
        crate::cuda::conv::of_input(&self.0, gradient, weight, (x, x_layout))
    }
}

/// `x` and the result's gradient to that of the weight, `[O, taps C]`.
struct OfWeight(Window);

impl CustomOp2 for OfWeight {
    fn name(&self) -> &'static str {
        "conv2d_of_weight"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let values = self.0.of_weight(&wide(x, x_layout)?, &wide(gradient, gradient_layout)?);
        Ok((rounded(values, x.dtype())?, Shape::from((self.0.to[2], self.0.depth()))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::conv::of_weight(&self.0, (x, x_layout), (gradient, gradient_layout))
    }
}
