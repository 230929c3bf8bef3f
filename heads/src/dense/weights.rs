use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use ops::{Images, Tape};

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

/// A convolution.
pub(super) struct Conv {
    weight: Var,
    bias: Option<Var>,
    pub(super) stride: usize,
    padding: usize,
}

impl Conv {
    /// `[B, C, H, W]` in any float type to `[B, O, H/stride, W/stride]` in the tape's.
    pub(super) fn forward(&self, x: &Images, tape: &mut Tape) -> candle_core::Result<Images> {
        tape.conv2d(x, &self.weight, self.bias.as_ref(), self.stride, self.padding)
    }

    /// [`Conv::forward`] of the ReLU of `x`.
    pub(super) fn after_relu(&self, x: &Images, tape: &mut Tape) -> candle_core::Result<Images> {
        tape.relu_conv2d(x, &self.weight, self.bias.as_ref(), self.stride, self.padding)
    }
}

/// A transposed convolution whose kernel is its stride.
pub(super) struct Transposed {
    weight: Var,
    bias: Var,
    stride: usize,
}

impl Transposed {
    /// `[B, C, H, W]` in any float type to `[B, C, H*stride, W*stride]` in the tape's.
    pub(super) fn forward(&self, x: &Images, tape: &mut Tape) -> candle_core::Result<Images> {
        tape.conv_transpose2d(x, &self.weight, Some(&self.bias), self.stride)
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
        x: &Images,
        tape: &mut Tape,
    ) -> candle_core::Result<(Images, Vec<Tensor>)> {
        let (mean, var) = (self.mean.as_detached_tensor(), self.var.as_detached_tensor());
        if !tape.records() {
            let (weight, bias) = (self.weight.as_detached_tensor(), self.bias.as_detached_tensor());
            let y = tape.batch_norm_eval(x, [&weight, &bias, &mean, &var], Self::EPS)?;
            return Ok((y, vec![]));
        }
        let (y, batch_mean, batch_var) =
            tape.batch_norm_train(x, &self.weight, &self.bias, Self::EPS)?;
        let moved = |running: &Tensor, batch: &Tensor| {
            running.affine(1.0 - Self::MOMENTUM, 0.0)? + batch.affine(Self::MOMENTUM, 0.0)?
        };
        Ok((y, vec![moved(&mean, &batch_mean)?, moved(&var, &batch_var)?]))
    }
}
