use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use ops::Format;

use super::LoadProblem;

/// Uniform numbers in `[0, 1)` by counter: `draw(tensor, element)` is asked once for every drawn
/// element, `tensor` counting the head's parameters in order and `element` their elements in
/// row-major order.
pub type Draw<'a> = dyn FnMut(usize, usize) -> f64 + 'a;

/// A named f32 tensor of a head that changes in training.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name in files.
    pub name: String,
    /// Its value.
    pub var: Var,
}

/// Where a head's tensors come from.
pub(crate) enum Source<'a> {
    /// PyTorch's default initialisation.
    Draw(&'a mut Draw<'a>),
    /// Saved tensors.
    Saved(BTreeMap<String, Tensor>),
}

/// How a tensor starts.
#[derive(Clone, Copy)]
pub(crate) enum Initial {
    /// Uniform within 1/sqrt(fan_in), as PyTorch's convolutions and linear layers.
    Uniform {
        fan_in: usize,
    },
    Constant(f32),
}

/// Makes a head's tensors one after the other and keeps a list of them.
pub(crate) struct Builder<'a> {
    source: Source<'a>,
    device: Device,
    pub(crate) parameters: Vec<Variable>,
    pub(crate) statistics: Vec<Variable>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(source: Source<'a>, device: &Device) -> Self {
        Self { source, device: device.clone(), parameters: Vec::new(), statistics: Vec::new() }
    }

    /// Refuses saved tensors that nothing asked for.
    pub(crate) fn finish(&self) -> Result<(), LoadProblem> {
        match &self.source {
            Source::Saved(left) if !left.is_empty() => {
                Err(LoadProblem::Unexpected { names: left.keys().cloned().collect() })
            }
            _ => Ok(()),
        }
    }

    fn make(&mut self, name: &str, dims: &[usize], initial: Initial) -> Result<Var, LoadProblem> {
        let index = self.parameters.len();
        let tensor = match (&mut self.source, initial) {
            (Source::Saved(tensors), _) => {
                let missing = || LoadProblem::Missing { name: name.to_owned() };
                let found = tensors.remove(name).ok_or_else(missing)?;
                check_shape(name, dims, &found)?;
                found.to_dtype(DType::F32)?.to_device(&self.device)?
            }
            (Source::Draw(draw), Initial::Uniform { fan_in }) => {
                let bound = 1.0 / (fan_in as f64).sqrt();
                let values: Vec<f32> = (0..dims.iter().product())
                    .map(|element| ((2.0 * draw(index, element) - 1.0) * bound) as f32)
                    .collect();
                Tensor::from_vec(values, dims, &self.device)?
            }
            (Source::Draw(_), Initial::Constant(value)) => Tensor::full(value, dims, &self.device)?,
        };
        Ok(Var::from_tensor(&tensor)?)
    }

    /// A tensor that is trained.
    pub(crate) fn parameter(
        &mut self,
        name: String,
        dims: &[usize],
        initial: Initial,
    ) -> Result<Var, LoadProblem> {
        let var = self.make(&name, dims, initial)?;
        self.parameters.push(Variable { name, var: var.clone() });
        Ok(var)
    }

    /// A running statistic.
    pub(crate) fn statistic(
        &mut self,
        name: String,
        dims: &[usize],
        start: f32,
    ) -> Result<Var, LoadProblem> {
        let var = self.make(&name, dims, Initial::Constant(start))?;
        self.statistics.push(Variable { name, var: var.clone() });
        Ok(var)
    }

    /// A `kernel` x `kernel` convolution of stride 1 that keeps the size, with a bias.
    pub(super) fn conv(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
    ) -> Result<Conv, LoadProblem> {
        let mut conv = self.conv_without_bias(name, [inputs, outputs], kernel)?;
        let initial = Initial::Uniform { fan_in: inputs * kernel * kernel };
        conv.bias = Some(self.parameter(format!("{name}.bias"), &[outputs], initial)?);
        Ok(conv)
    }

    /// A convolution as [`Builder::conv`]'s, without a bias.
    pub(super) fn conv_without_bias(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
    ) -> Result<Conv, LoadProblem> {
        let initial = Initial::Uniform { fan_in: inputs * kernel * kernel };
        let dims = [outputs, inputs, kernel, kernel];
        let weight = self.parameter(format!("{name}.weight"), &dims, initial)?;
        Ok(Conv { weight, bias: None, stride: 1, padding: kernel / 2 })
    }

    /// A transposed convolution that enlarges `stride` times (kernel = stride), with a bias.
    pub(super) fn transposed(
        &mut self,
        name: &str,
        channels: usize,
        stride: usize,
    ) -> Result<Transposed, LoadProblem> {
        let initial = Initial::Uniform { fan_in: channels * stride * stride };
        let dims = [channels, channels, stride, stride];
        let weight = self.parameter(format!("{name}.weight"), &dims, initial)?;
        let bias = self.parameter(format!("{name}.bias"), &[channels], initial)?;
        Ok(Transposed { weight, bias, stride })
    }

    /// A batch norm: scale 1, shift 0, running mean 0, running variance 1.
    pub(super) fn batch_norm(
        &mut self,
        name: &str,
        channels: usize,
    ) -> Result<BatchNorm, LoadProblem> {
        let dims = [channels];
        Ok(BatchNorm {
            weight: self.parameter(format!("{name}.weight"), &dims, Initial::Constant(1.0))?,
            bias: self.parameter(format!("{name}.bias"), &dims, Initial::Constant(0.0))?,
            mean: self.statistic(format!("{name}.running_mean"), &dims, 0.0)?,
            var: self.statistic(format!("{name}.running_var"), &dims, 1.0)?,
        })
    }
}

/// Refuses a tensor of another shape than `dims`.
pub(crate) fn check_shape(name: &str, dims: &[usize], found: &Tensor) -> Result<(), LoadProblem> {
    if found.dims() == dims {
        return Ok(());
    }
    Err(LoadProblem::Shape {
        name: name.to_owned(),
        expected: dims.to_vec(),
        found: found.dims().to_vec(),
    })
}

/// How a head computes: with a graph or without, in which type its convolutions are, and in which format its
/// images lie in memory.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    pub(super) train: bool,
    pub(super) dtype: DType,
    pub(super) format: Format,
}

impl Mode {
    /// The format is the one the taps' device is fast in.
    pub(super) fn new(train: bool, dtype: DType, taps: &[Tensor]) -> Self {
        let format = taps.first().map_or(Format::Planes, |tap| Format::of(tap.device()));
        Self { train, dtype, format }
    }

    /// `var` with its gradient tracked when training.
    fn value(self, var: &Var) -> Tensor {
        if self.train { var.as_tensor().clone() } else { var.as_detached_tensor() }
    }

    /// `var` in the convolutions' type.
    fn cast(self, var: &Var) -> candle_core::Result<Tensor> {
        self.value(var).to_dtype(self.dtype)
    }
}

/// A convolution.
pub(super) struct Conv {
    weight: Var,
    bias: Option<Var>,
    pub(super) stride: usize,
    padding: usize,
}

impl Conv {
    /// `[B, C, H, W]` in any float type to `[B, O, H/stride, W/stride]` in the mode's; both in the order of the
    /// mode's format, here and below.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| mode.cast(bias)).transpose()?;
        let x = x.to_dtype(mode.dtype)?;
        let weight = mode.cast(&self.weight)?;
        mode.format.conv2d(&x, &weight, bias.as_ref(), self.stride, self.padding)
    }

    /// [`Conv::forward`] of the ReLU of `x`.
    pub(super) fn after_relu(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| mode.cast(bias)).transpose()?;
        let x = x.to_dtype(mode.dtype)?;
        let weight = mode.cast(&self.weight)?;
        mode.format.relu_conv2d(&x, &weight, bias.as_ref(), self.stride, self.padding)
    }
}

/// A transposed convolution whose kernel is its stride.
pub(super) struct Transposed {
    weight: Var,
    bias: Var,
    stride: usize,
}

impl Transposed {
    /// `[B, C, H, W]` in any float type to `[B, C, H*stride, W*stride]` in the mode's.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let bias = mode.cast(&self.bias)?;
        let x = x.to_dtype(mode.dtype)?;
        mode.format.conv_transpose2d(&x, &mode.cast(&self.weight)?, Some(&bias), self.stride)
    }
}

/// Batch norm of eps 1e-5 and momentum 0.1, always in f32.
pub(super) struct BatchNorm {
    weight: Var,
    bias: Var,
    mean: Var,
    var: Var,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// `[B, C, H, W]` normalised, and when training what the running mean and variance become.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        mode: Mode,
    ) -> candle_core::Result<(Tensor, Vec<Tensor>)> {
        let x = x.to_dtype(DType::F32)?;
        let (weight, bias) = (mode.value(&self.weight), mode.value(&self.bias));
        let (mean, var) = (self.mean.as_detached_tensor(), self.var.as_detached_tensor());
        if !mode.train {
            let y = mode.format.batch_norm_eval(&x, &weight, &bias, &mean, &var, Self::EPS)?;
            return Ok((y, vec![]));
        }
        let (y, batch_mean, batch_var) =
            mode.format.batch_norm_train(&x, &weight, &bias, Self::EPS)?;
        let moved = |running: &Tensor, batch: &Tensor| {
            running.affine(1.0 - Self::MOMENTUM, 0.0)?
                + batch.detach().affine(Self::MOMENTUM, 0.0)?
        };
        Ok((y, vec![moved(&mean, &batch_mean)?, moved(&var, &batch_var)?]))
    }
}
