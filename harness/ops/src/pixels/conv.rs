//! Convolutions of images whose channels lie side by side.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::host::{rounded, wide};
use super::sums::column_sums;
use super::swap::swap;
use super::window::Window;
use crate::convolution::geometry;
use crate::transposed;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;

/// [`conv2d`](crate::conv2d()) of `[B, H, W, C]`, of its ReLU if `rectify`; the result is `[B, H, W, O]`.
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [stride, padding]: [usize; 2],
    rectify: bool,
) -> Result<Tensor> {
    let &[batch, height, width, channels] = x.dims() else {
        bail!("conv2d: expected x [B, H, W, C], found {:?}", x.dims());
    };
    let sizes = geometry(&[batch, channels, height, width], weight.dims(), stride, padding)?;
    if let Some(bias) = bias
        && bias.dims() != [weight.dims()[0]]
    {
        bail!("conv2d: expected a bias [{}], found {:?}", weight.dims()[0], bias.dims());
    }
    let window = Window::new(&sizes, [stride, padding], rectify);
    // [O, C, taps] to [O, taps, C].
    let weight = swap(&weight.flatten_from(2)?.unsqueeze(3)?)?.flatten_from(1)?;
    run(window, x, &weight, bias)
}

/// [`conv_transpose2d`](crate::conv_transpose2d()) of `[B, H, W, C]`; the result is `[B, k H, k W, O]`.
pub(crate) fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
) -> Result<Tensor> {
    let &[batch, height, width, channels] = x.dims() else {
        bail!("conv_transpose2d: expected x [B, H, W, C], found {:?}", x.dims());
    };
    let out = transposed::outputs(channels, weight, bias, stride)?;
    let area = stride * stride;
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
    let blocks = run(window, x, &weight, bias.as_ref())?;
    // [B H, W, k, k O] to [B H, k, W, k O].
    swap(&blocks.reshape((batch * height, width, stride, stride * out))?)?.reshape((
        batch,
        height * stride,
        width * stride,
        out,
    ))
}

/// The convolution with a weight `[O, taps C]`.
fn run(window: Window, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, weight) = (x.to_dtype(weight.dtype())?.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => {
            let bias = bias.to_dtype(weight.dtype())?.contiguous()?;
            x.apply_op3(&weight, &bias, Forward(window))
        }
        None => x.apply_op2(&weight, Forward(window)),
    }
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

    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let of_x = || gradient.apply_op3_no_bwd(weight, x, &OfInput(self.0));
        let of_weight = || x.apply_op2_no_bwd(gradient, &OfWeight(self.0));
        Ok([x.track_op().then(of_x).transpose()?, weight.track_op().then(of_weight).transpose()?])
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

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [of_x, of_weight] = self.backward(x, weight, &gradient.contiguous()?)?;
        Ok((of_x, of_weight))
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

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let [of_x, of_weight] = self.backward(x, weight, &gradient)?;
        let of_bias = bias.track_op().then(|| column_sums(&gradient)?.to_dtype(bias.dtype()));
        Ok((of_x, of_weight, of_bias.transpose()?))
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
