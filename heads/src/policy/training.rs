use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use schema::PolicyTraining;
use schema::random::Stream;

use super::PolicyError;
use super::later::{Later, unless_nan};
use super::network::{Network, Pass};
use crate::dense::{AdamW, Builder, LoadProblem, Source, Variable, check_shape};

/// Rows that are evaluated together, always as many: products of one shape sum in one order, so that
/// no row depends on how many others there are.
const ROWS: usize = 16;

const POLICY: &str = "policy.";

/// What a policy goes from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Width of an observation.
    pub inputs: usize,
    /// Width of an action.
    pub actions: usize,
}

/// A multilayer perceptron from observations to actions, in training by the mean squared error to
/// demonstrated actions. Everything is f32.
///
/// Its tensors are `layers.N.weight` `[out, in]` and `layers.N.bias`, from the input on, and with an
/// input norm `norm.{weight,bias,running_mean,running_var}`.
pub struct Policy {
    config: PolicyConfig,
    network: Network,
    optimiser: AdamW,
    rate: f64,
    device: Device,
    /// What was not read yet of [`Policy::step_later`].
    later: Later,
}

impl Policy {
    /// A new policy, initialised as PyTorch's linear layers: uniform within 1/sqrt(fan_in), drawn by
    /// counter from `seed`.
    ///
    /// # Errors
    /// [`PolicyError::Widths`] if a width is 0.
    pub fn new(
        config: PolicyConfig,
        training: &PolicyTraining,
        seed: u64,
        device: &Device,
    ) -> Result<Self, PolicyError> {
        let draws = Stream::tagged(seed, "head/policy");
        let mut draw = |tensor: usize, element: usize| {
            draws.uniform([element as u32, (element >> 32) as u32, tensor as u32, 0])
        };
        let from = Builder::new(Source::Draw(&mut draw), device);
        Self::build("a new policy".as_ref(), config, training, from, device)
    }

    /// A policy from the tensors of [`Policy::tensors`], of any float type; `origin` says in errors
    /// where they came from. Its optimiser is a new one.
    ///
    /// # Errors
    /// [`PolicyError::Load`], naming the origin and what is wrong with the tensors.
    pub fn from_tensors(
        origin: &Path,
        tensors: BTreeMap<String, Tensor>,
        config: PolicyConfig,
        training: &PolicyTraining,
        device: &Device,
    ) -> Result<Self, PolicyError> {
        let from = Builder::new(Source::Saved(tensors), device);
        Self::build(origin, config, training, from, device)
    }

    fn build(
        origin: &Path,
        config: PolicyConfig,
        training: &PolicyTraining,
        from: Builder<'_>,
        device: &Device,
    ) -> Result<Self, PolicyError> {
        let mut widths = vec![config.inputs];
        widths.extend(&training.hidden);
        widths.push(config.actions);
        if widths.contains(&0) {
            return Err(PolicyError::Widths { widths });
        }
        let network = Network::build(&widths, training.input_norm, from)
            .map_err(|problem| PolicyError::Load { origin: origin.into(), problem })?;
        let &PolicyTraining { betas, eps, weight_decay, rate, .. } = training;
        let optimiser = AdamW::new(betas, eps, weight_decay);
        Ok(Self {
            config,
            network,
            optimiser,
            rate,
            device: device.clone(),
            later: Later::default(),
        })
    }

    /// What the policy goes from and to.
    pub fn config(&self) -> PolicyConfig {
        self.config
    }

    /// Steps of training taken.
    pub fn updates(&self) -> u64 {
        self.optimiser.updates()
    }

    /// Trains on one batch, observations `[B, inputs]` and actions `[B, actions]`, and returns the
    /// mean squared error over both dimensions before the step.
    ///
    /// # Errors
    /// [`PolicyError::NonFinite`] if the loss or the gradient is NaN or infinite,
    /// [`PolicyError::OneRow`] if an input norm is given one row, and [`PolicyError::Shape`]. After an
    /// error from what was given the policy is as it was before.
    pub fn step(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<f32, PolicyError> {
        self.step_later(inputs, targets)?;
        Ok(self.losses()?.pop().unwrap_or_default())
    }

    /// As [`Policy::step`], with the loss to be had from [`Policy::losses`]. On a GPU nothing is waited for,
    /// and [`PolicyError::NonFinite`] comes only then: the step that found it and those after it change
    /// nothing.
    ///
    /// # Errors
    /// As [`Policy::step`].
    pub fn step_later(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<(), PolicyError> {
        let inputs = self.checked_inputs(inputs)?;
        let rows = inputs.dim(0)?;
        if targets.dims() != [rows, self.config.actions] {
            let expected = format!("[{rows}, {}]", self.config.actions);
            return Err(shape("target actions", expected, targets));
        }
        if rows == 1 && !self.network.statistics.is_empty() {
            return Err(PolicyError::OneRow);
        }
        let targets = targets.to_device(&self.device)?.to_dtype(DType::F32)?.contiguous()?;
        let pass = self.network.train(&inputs, &targets)?;
        if !self.device.is_cpu() {
            return Ok(self.move_unless_nan(pass)?);
        }
        let loss = pass.loss.to_scalar::<f32>()?;
        self.finite("loss", f64::from(loss))?;
        self.finite("gradient norm", pass.gradient_norm()?)?;
        for statistic in &pass.statistics {
            self.finite_sum("sum of the input's statistics", statistic)?;
        }
        self.optimiser.step(&self.network.parameters, &pass.gradients, self.rate)?;
        for (statistic, moved) in self.network.statistics.iter().zip(&pass.statistics) {
            statistic.var.set(moved)?;
        }
        self.later.know(loss);
        Ok(())
    }

    fn move_unless_nan(&mut self, pass: Pass) -> candle_core::Result<()> {
        let Pass { loss, gradients, statistics } = pass;
        let all: Vec<&Tensor> = gradients.iter().flatten().collect();
        let mut others = vec![ops::norm_of(&all)?];
        for statistic in &statistics {
            others.push(statistic.sum_all()?);
        }
        let watch = self.later.watch(loss, &others)?;
        let parameters = &self.network.parameters;
        self.optimiser.step_if_finite(parameters, &gradients, self.rate, Some(&watch))?;
        for (statistic, moved) in self.network.statistics.iter().zip(&statistics) {
            let before = statistic.var.as_detached_tensor();
            statistic.var.set(&unless_nan(&watch, moved, &before)?)?;
        }
        Ok(())
    }

    /// The losses of the steps since this was last called, in order.
    ///
    /// # Errors
    /// [`PolicyError::NonFinite`] if the loss or gradient of one was NaN or infinite; the policy is then as
    /// before that step.
    pub fn losses(&mut self) -> Result<Vec<f32>, PolicyError> {
        match self.later.read()? {
            Ok(losses) => Ok(losses),
            Err(failed) => {
                self.optimiser.take_back(failed.steps);
                self.finite("loss", f64::from(failed.loss))?;
                // The loss was finite: something that follows from it was not.
                Err(PolicyError::NonFinite {
                    updates: self.updates(),
                    quantity: "gradient norm",
                    value: f64::NAN,
                })
            }
        }
    }

    /// Actions `[B, actions]` for observations `[B, inputs]`, by the running statistics of the input.
    /// A row's action does not depend on the other rows, to the bit on the CPU.
    ///
    /// # Errors
    /// [`PolicyError::Shape`], or [`PolicyError::NonFinite`] if the observations hold NaN or infinity.
    pub fn act(&self, inputs: &Tensor) -> Result<Tensor, PolicyError> {
        let inputs = self.checked_inputs(inputs)?;
        self.finite_sum("sum of the inputs", &inputs)?;
        let rows = inputs.dim(0)?;
        let inputs = inputs.pad_with_zeros(0, 0, rows.next_multiple_of(ROWS) - rows)?;
        let parts = (0..rows)
            .step_by(ROWS)
            .map(|start| self.network.evaluate(&inputs.narrow(0, start, ROWS)?.contiguous()?))
            .collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?.narrow(0, 0, rows)?.contiguous()?)
    }

    fn checked_inputs(&self, inputs: &Tensor) -> Result<Tensor, PolicyError> {
        if !matches!(inputs.dims(), &[rows, width] if rows > 0 && width == self.config.inputs) {
            let expected = format!("[B, {}]", self.config.inputs);
            return Err(shape("observations", expected, inputs));
        }
        Ok(inputs.to_device(&self.device)?.to_dtype(DType::F32)?.contiguous()?)
    }

    fn finite(&self, quantity: &'static str, value: f64) -> Result<(), PolicyError> {
        if value.is_finite() {
            return Ok(());
        }
        Err(PolicyError::NonFinite { updates: self.updates(), quantity, value })
    }

    fn finite_sum(&self, quantity: &'static str, of: &Tensor) -> Result<(), PolicyError> {
        self.finite(quantity, f64::from(of.sum_all()?.to_scalar::<f32>()?))
    }

    /// Every tensor that acting needs, by name, copied.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>, PolicyError> {
        self.variables().map(|v| Ok((v.name.clone(), v.var.as_detached_tensor().copy()?))).collect()
    }

    /// Everything that training changes, by name, copied: `policy.*` and `optimiser.*`. What
    /// [`encode`](crate::dense::encode) makes of it restores the policy to the bit.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>, PolicyError> {
        let own = self.tensors()?.into_iter().map(|(name, t)| (format!("{POLICY}{name}"), t));
        Ok(own.chain(self.optimiser.state()?).collect())
    }

    /// Continues from a [`Policy::state`] of a policy of the same widths and training.
    ///
    /// # Errors
    /// [`PolicyError::State`] if `state` is not one; the policy is then as it was.
    pub fn load_state(&mut self, state: BTreeMap<String, Tensor>) -> Result<(), PolicyError> {
        let (tensors, optimiser) = self.checked(state).map_err(PolicyError::State)?;
        for (variable, tensor) in self.variables().zip(&tensors) {
            variable.var.set(tensor)?;
        }
        self.optimiser = optimiser;
        self.later = Later::default();
        Ok(())
    }

    fn checked(
        &self,
        mut state: BTreeMap<String, Tensor>,
    ) -> Result<(Vec<Tensor>, AdamW), LoadProblem> {
        let mut tensors = Vec::new();
        for variable in self.variables() {
            let name = format!("{POLICY}{}", variable.name);
            let Some(tensor) = state.remove(&name) else {
                return Err(LoadProblem::Missing { name });
            };
            check_shape(&name, variable.var.dims(), &tensor)?;
            tensors.push(tensor.to_dtype(DType::F32)?.to_device(&self.device)?.contiguous()?);
        }
        Ok((tensors, self.optimiser.continued(&self.network.parameters, state)?))
    }

    fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.network.parameters.iter().chain(&self.network.statistics)
    }
}

fn shape(what: &'static str, expected: String, found: &Tensor) -> PolicyError {
    PolicyError::Shape { what, expected, found: found.dims().to_vec() }
}
