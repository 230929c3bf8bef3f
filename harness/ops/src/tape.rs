//! Operations on images that remember what their gradients take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Result, Tensor, TensorId, Var, bail};

use crate::pixels::{conv, norm, resize};
use crate::{Format, batch_norm, convolution, transposed};

/// From the gradient of a result to those of the image, which is taken only if asked for, of the weight and of
/// the bias, as far as there are such: each in the dtype in which the operation computed.
pub(crate) type Backward =
    Box<dyn FnOnce(&Tensor, bool) -> Result<[Option<Tensor>; 3]> + Send + Sync>;

/// A computation on images, from parameters to a result, that can be gone through in reverse.
///
/// Images lie in memory as the [`Format`] says, convolutions compute in one dtype, as under PyTorch's autocast,
/// and batch norm in f32. Parameters are of any floating type; their gradients have their dtype.
///
/// candle's own backward pass starts every sum of gradients from zeros and keeps what the forward pass made to
/// its end. This one moves a gradient where there is but one, and drops what a step has used.
pub struct Tape {
    /// What tells it from other tapes.
    number: u64,
    format: Format,
    dtype: DType,
    /// What was done, in order; none where nothing is to be remembered.
    steps: Option<Vec<Step>>,
}

/// Images on a [`Tape`], of which they remember how they were made.
#[derive(Clone, Debug)]
pub struct Images {
    values: Tensor,
    /// The tape and its step that made them; none where no parameter had a part in it.
    made: Option<(u64, usize)>,
}

/// What takes the gradient of a step's result to what it was made from.
type Step = Box<dyn FnOnce(Tensor, &mut Sums) -> Result<()> + Send + Sync>;

/// Gradients so far.
struct Sums {
    /// Of each step's result.
    steps: Vec<Option<Tensor>>,
    parameters: HashMap<TensorId, Tensor>,
}

impl Sums {
    fn add_to_step(&mut self, step: usize, gradient: Tensor) -> Result<()> {
        let sum = &mut self.steps[step];
        *sum = Some(match sum.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
        Ok(())
    }

    fn add_to_parameter(&mut self, parameter: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.parameters.remove(&parameter) {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        };
        self.parameters.insert(parameter, sum);
        Ok(())
    }
}

/// Gradients of parameters.
#[derive(Debug)]
pub struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// The gradient of a parameter, in its dtype; none if it had no part in the result.
    pub fn of(&self, parameter: &Var) -> Option<&Tensor> {
        self.0.get(&parameter.id())
    }
}

impl Tape {
    /// A computation without gradients, of images in `format` and convolutions in `dtype`.
    pub fn new(format: Format, dtype: DType) -> Self {
        static TAPES: AtomicU64 = AtomicU64::new(0);
        let number = TAPES.fetch_add(1, Ordering::Relaxed);
        Self { number, format, dtype, steps: None }
    }

    /// A computation as [`Tape::new`]'s, of which [`Tape::gradients`] can be asked.
    pub fn recording(format: Format, dtype: DType) -> Self {
        Self { steps: Some(Vec::new()), ..Self::new(format, dtype) }
    }

    /// A computation on `device`, in the format in which it is fast, with gradients if `record`.
    pub fn on(device: &Device, dtype: DType, record: bool) -> Self {
        let new = if record { Self::recording } else { Self::new };
        new(Format::of(device), dtype)
    }

    /// Whether it remembers what its gradients take.
    pub fn records(&self) -> bool {
        self.steps.is_some()
    }

    /// `[B, C, H, W]` images that are given; no copy where they lie in the format already.
    ///
    /// # Errors
    /// If `images` does not have four dimensions, or the device fails.
    pub fn enter(&self, images: &Tensor) -> Result<Images> {
        Ok(Images { values: self.format.enter(&images.detach())?, made: None })
    }

    /// `[B, C, H, W]` images that are a parameter.
    ///
    /// # Errors
    /// As [`Tape::enter`].
    pub fn enter_parameter(&mut self, images: &Var) -> Result<Images> {
        let (entered, id, format) = (self.enter(images)?, images.id(), self.format);
        let step = move |gradient: Tensor, sums: &mut Sums| {
            sums.add_to_parameter(id, format.leave(&gradient)?)
        };
        Ok(self.made(entered.values, Box::new(step)))
    }

    /// Images as `[B, C, H, W]`, without a copy and without a graph.
    ///
    /// # Errors
    /// None for images of a tape.
    pub fn leave(&self, images: &Images) -> Result<Tensor> {
        self.format.leave(&images.values)
    }

    /// Height and width of images.
    ///
    /// # Errors
    /// None for images of a tape.
    pub fn size(&self, images: &Images) -> Result<(usize, usize)> {
        self.format.size(&images.values)
    }

    /// The convolution of [`conv2d`](crate::conv2d()), of images in any floating type to the tape's.
    ///
    /// # Errors
    /// As [`conv2d`](crate::conv2d()).
    pub fn conv2d(
        &mut self,
        x: &Images,
        weight: &Var,
        bias: Option<&Var>,
        stride: usize,
        padding: usize,
    ) -> Result<Images> {
        self.convolution(x, weight, bias, [stride, padding], false)
    }

    /// [`Tape::conv2d`] of the ReLU of the images, of which no copy is kept; it changes no bit. The gradient at 0
    /// is 0.
    ///
    /// # Errors
    /// As [`conv2d`](crate::conv2d()).
    pub fn relu_conv2d(
        &mut self,
        x: &Images,
        weight: &Var,
        bias: Option<&Var>,
        stride: usize,
        padding: usize,
    ) -> Result<Images> {
        self.convolution(x, weight, bias, [stride, padding], true)
    }

    fn convolution(
        &mut self,
        x: &Images,
        weight: &Var,
        bias: Option<&Var>,
        sizes: [usize; 2],
        rectify: bool,
    ) -> Result<Images> {
        let convolve = match self.format {
            Format::Planes => convolution::convolve,
            Format::Pixels => conv::conv2d,
        };
        let (w, b) = (self.cast(weight)?, bias.map(|bias| self.cast(bias)).transpose()?);
        let made = convolve(&x.values, &w, b.as_ref(), sizes, rectify)?;
        self.record(x, [Some(weight), bias], made)
    }

    /// Transposed convolution with non-overlapping kernels, as PyTorch's `conv_transpose2d` without padding, of
    /// images in any floating type to the tape's.
    ///
    /// `x` is `[B, C, H, W]`, `weight` `[C, O, k, k]`, `bias` `[O]`, and `k` is the stride: each input pixel
    /// becomes a block of `k x k` pixels, a matrix product and a rearrangement. The result is `[B, O, k H, k W]`.
    ///
    /// # Errors
    /// If the shapes do not fit, the kernel is not as large as the stride, or the devices differ.
    pub fn conv_transpose2d(
        &mut self,
        x: &Images,
        weight: &Var,
        bias: Option<&Var>,
        stride: usize,
    ) -> Result<Images> {
        let convolve = match self.format {
            Format::Planes => transposed::conv_transpose2d,
            Format::Pixels => conv::conv_transpose2d,
        };
        let (w, b) = (self.cast(weight)?, bias.map(|bias| self.cast(bias)).transpose()?);
        let made = convolve(&x.values, &w, b.as_ref(), stride)?;
        self.record(x, [Some(weight), bias], made)
    }

    /// [`resize_bilinear`](crate::resize_bilinear()) of images, computed in f32 and returned in their dtype.
    ///
    /// # Errors
    /// As [`resize_bilinear`](crate::resize_bilinear()).
    pub fn resize_bilinear(&mut self, x: &Images, height: usize, width: usize) -> Result<Images> {
        let resize = match self.format {
            Format::Planes => crate::resize::resized,
            Format::Pixels => resize::resize_bilinear,
        };
        let made = resize(&x.values, height, width)?;
        self.record(x, [None, None], made)
    }

    /// Batch normalisation in training (Ioffe and Szegedy, arXiv 1502.03167, algorithm 1): each channel of
    /// `x` `[B, C, H, W]` is normalised by the mean and biased variance of its `B x H x W` values, then scaled
    /// by `weight` `[C]` and shifted by `bias` `[C]`.
    ///
    /// Returns the result, the means `[C]`, and the unbiased variances `[C]` that running statistics take, all in
    /// f32. Gradients reach `x`, `weight` and `bias` through the result only.
    ///
    /// # Errors
    /// If the shapes do not fit, or a channel has fewer than two values.
    pub fn batch_norm_train(
        &mut self,
        x: &Images,
        weight: &Var,
        bias: &Var,
        eps: f64,
    ) -> Result<(Images, Tensor, Tensor)> {
        let normalise = match self.format {
            Format::Planes => batch_norm::batch_norm_train,
            Format::Pixels => norm::batch_norm_train,
        };
        let (w, b) = (weight.as_detached_tensor(), bias.as_detached_tensor());
        let ([y, means, variances], backward) = normalise(&x.values, &w, &b, eps)?;
        Ok((self.record(x, [Some(weight), Some(bias)], (y, backward))?, means, variances))
    }

    /// Batch normalisation with given statistics, `(x - mean) / sqrt(variance + eps) * weight + bias`.
    ///
    /// `x` is `[B, C, H, W]`, and the parameters, weight, bias, mean and variance, are `[C]`; the result is f32.
    /// It has no gradients.
    ///
    /// # Errors
    /// If the shapes do not fit, or `x` wants a gradient.
    pub fn batch_norm_eval(
        &self,
        x: &Images,
        parameters: [&Tensor; 4],
        eps: f64,
    ) -> Result<Images> {
        let normalise = match self.format {
            Format::Planes => batch_norm::batch_norm_eval,
            Format::Pixels => norm::batch_norm_eval,
        };
        if x.made.is_some() {
            bail!("batch_norm_eval: expected images that no trained parameter had a part in");
        }
        Ok(Images { values: normalise(&x.values, parameters, eps)?, made: None })
    }

    /// The sum of images of one shape and dtype.
    ///
    /// # Errors
    /// If they differ in these, or the device fails.
    pub fn add(&mut self, a: &Images, b: &Images) -> Result<Images> {
        let values = (&a.values + &b.values)?;
        let steps = [self.step(a)?, self.step(b)?];
        if steps == [None; 2] {
            return Ok(Images { values, made: None });
        }
        let step = move |gradient: Tensor, sums: &mut Sums| {
            steps.into_iter().flatten().try_for_each(|to| sums.add_to_step(to, gradient.clone()))
        };
        Ok(self.made(values, Box::new(step)))
    }

    /// Gradients of the parameters from that of `result`, `[B, C, H, W]` in any floating type and memory format:
    /// of the sum of their product.
    ///
    /// # Errors
    /// If the tape does not record, the result is another tape's, or the shapes differ.
    pub fn gradients(self, result: &Images, gradient: &Tensor) -> Result<Gradients> {
        let last = self.step(result)?;
        let Some(mut steps) = self.steps else {
            bail!("gradients: expected a tape that records");
        };
        let gradient = self.format.enter(&gradient.detach())?.to_dtype(result.values.dtype())?;
        if gradient.dims() != result.values.dims() {
            let (expected, found) = (result.values.dims(), gradient.dims());
            bail!("gradients: expected the shape of the result, {expected:?}, found {found:?}");
        }
        let mut sums = Sums {
            steps: vec![None; steps.len()],
            parameters: HashMap::with_capacity(steps.len()),
        };
        if let Some(last) = last {
            sums.add_to_step(last, gradient)?;
        }
        while let Some(step) = steps.pop() {
            if let Some(gradient) = sums.steps.pop().flatten() {
                step(gradient, &mut sums)?;
            }
        }
        Ok(Gradients(sums.parameters))
    }

    /// A parameter in the dtype of convolutions.
    fn cast(&self, parameter: &Var) -> Result<Tensor> {
        parameter.as_detached_tensor().to_dtype(self.dtype)
    }

    /// The step that made images.
    fn step(&self, images: &Images) -> Result<Option<usize>> {
        match images.made {
            Some((tape, _)) if tape != self.number => bail!("expected images of this tape"),
            made => Ok(made.map(|(_, step)| step)),
        }
    }

    /// The result of an operation on `x` and two parameters.
    fn record(
        &mut self,
        x: &Images,
        parameters: [Option<&Var>; 2],
        (values, backward): (Tensor, Backward),
    ) -> Result<Images> {
        let (to, x_dtype) = (self.step(x)?, x.values.dtype());
        if to.is_none() && parameters.iter().all(Option::is_none) {
            return Ok(Images { values, made: None });
        }
        let parameters = parameters.map(|of| of.map(|of| (of.id(), of.dtype())));
        let step = move |gradient: Tensor, sums: &mut Sums| {
            let [of_x, of_weight, of_bias] = backward(&gradient, to.is_some())?;
            if let (Some(to), Some(gradient)) = (to, of_x) {
                sums.add_to_step(to, gradient.to_dtype(x_dtype)?)?;
            }
            for (parameter, gradient) in parameters.into_iter().zip([of_weight, of_bias]) {
                if let (Some((id, dtype)), Some(gradient)) = (parameter, gradient) {
                    sums.add_to_parameter(id, gradient.to_dtype(dtype)?)?;
                }
            }
            Ok(())
        };
        Ok(self.made(values, Box::new(step)))
    }

    fn made(&mut self, values: Tensor, step: Step) -> Images {
        let number = self.number;
        let made = self.steps.as_mut().map(|steps| {
            steps.push(step);
            (number, steps.len() - 1)
        });
        Images { values, made }
    }
}
