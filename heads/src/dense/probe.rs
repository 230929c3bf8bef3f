use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use schema::{Objective, TrainingStage};

use super::adamw::take_counter;
use super::loss::{self, Targets, outputs};
use super::weights::check_shape;
use super::{AdamW, DenseHead, HeadError, LoadProblem, Schedule, Variable};

/// A head in training: with its optimiser, its schedule and its place in it.
///
/// A probe depends on nothing but what it is given: probes that take turns on the same batches are, bit
/// for bit on one device, what each would be alone.
pub struct Probe {
    head: Box<dyn DenseHead>,
    objective: Objective,
    groups: usize,
    optimiser: AdamW,
    schedule: Schedule,
    step: u64,
    /// Samples that go through the head at a time; all of a batch if none.
    samples: Option<usize>,
    /// Whether the last step changed all that it changes.
    whole: bool,
}

/// Gradients of a batch's loss.
#[derive(Default)]
struct Backward {
    /// The loss is their sum; none without a valid pixel.
    losses: Vec<Tensor>,
    skipped: Vec<usize>,
    /// By parameter.
    gradients: Vec<Option<Tensor>>,
    /// What the running statistics become.
    statistics: Vec<Tensor>,
}

/// What a training step came to.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The loss before the step; none if no pixel of the batch was valid.
    pub loss: Option<f64>,
    /// The rate the step ran at.
    pub rate: f64,
    /// L2 norm over the gradients of all parameters; none if no pixel of the batch was valid.
    pub grad_norm: Option<f64>,
    /// Loss groups without a valid pixel, left out of the mean.
    pub skipped_groups: Vec<usize>,
}

/// A step that was taken and whose loss and gradients nobody has looked at: they are on the device.
#[derive(Debug)]
pub struct Deferred {
    step: u64,
    rate: f64,
    skipped: Vec<usize>,
    /// Of how many parts the loss is the sum.
    parts: usize,
    /// The losses of the parts, then the squared norms of the parameters' gradients, `[n]` f32.
    values: Option<Tensor>,
}

impl Deferred {
    /// What is to be read back for [`Deferred::report`], `[n]` f32 on the device; none if no pixel of
    /// the batch was valid.
    pub fn values(&self) -> Option<&Tensor> {
        self.values.as_ref()
    }

    /// Loss groups without a valid pixel.
    pub fn skipped_groups(&self) -> usize {
        self.skipped.len()
    }

    /// What the step came to, given its values.
    ///
    /// # Errors
    /// [`HeadError::NonFinite`] if the loss or the gradient is NaN or infinite: the probe is of no use
    /// any more.
    pub fn report(self, values: &[f32]) -> Result<StepReport, HeadError> {
        let Self { step, rate, skipped, parts, values: there } = self;
        let mut report = StepReport { loss: None, rate, grad_norm: None, skipped_groups: skipped };
        if there.is_some() {
            let (losses, squares) = values.split_at(parts.min(values.len()));
            report.loss = Some(finite(step, "loss", sum(losses))?);
            report.grad_norm = Some(finite(step, "gradient norm", sum(squares).sqrt())?);
        }
        Ok(report)
    }
}

const STEP: &str = "step";
const HEAD: &str = "head.";

impl Probe {
    /// A probe at step 0 of `steps`, with the groups, optimiser and schedule of `training`.
    ///
    /// # Errors
    /// [`HeadError::Outputs`] if the head does not have the objective's outputs.
    pub fn new(
        head: Box<dyn DenseHead>,
        objective: Objective,
        training: &TrainingStage,
        steps: u64,
    ) -> Result<Self, HeadError> {
        let (expected, found) = (outputs(&objective), head.config().outputs);
        if expected != found {
            return Err(HeadError::Outputs { expected, found });
        }
        Ok(Self {
            head,
            objective,
            groups: training.groups,
            optimiser: AdamW::new(training.betas, training.eps, training.weight_decay),
            schedule: Schedule::of(training, steps),
            step: 0,
            samples: None,
            whole: true,
        })
    }

    /// Limits the samples that go through the head at a time, to as many whole loss groups as that
    /// holds and at least one: their gradients are summed. The result is that of the whole batch, but
    /// for the order of sums. Heads with batch norm see every batch whole all the same.
    #[must_use]
    pub fn in_parts_of(mut self, samples: usize) -> Self {
        self.samples = Some(samples);
        self
    }

    /// Trains the head on one batch: features of its taps, each `[B, width, h, w]`, and targets.
    ///
    /// A batch without a valid pixel changes nothing but the step counter.
    ///
    /// # Errors
    /// [`HeadError::NonFinite`] if the loss or the gradient is NaN or infinite, and others if the
    /// features or targets do not fit. After an error from what was given the probe is as it was before.
    pub fn train_step(
        &mut self,
        taps: &[Tensor],
        targets: &Targets,
    ) -> Result<StepReport, HeadError> {
        let rate = self.schedule.rate(self.step);
        let made = self.backward(taps, targets)?;
        let mut report =
            StepReport { loss: None, rate, grad_norm: None, skipped_groups: made.skipped.clone() };
        if !made.losses.is_empty() {
            let losses: Vec<f32> =
                made.losses.iter().map(Tensor::to_scalar).collect::<candle_core::Result<_>>()?;
            report.loss = Some(finite(self.step, "loss", sum(&losses))?);
            let squares = squares(&made.gradients)?.map(|squares| squares.to_vec1::<f32>());
            let norm = sum(&squares.transpose()?.unwrap_or_default()).sqrt();
            report.grad_norm = Some(finite(self.step, "gradient norm", norm)?);
            self.apply(&made, rate)?;
        }
        self.step += 1;
        Ok(report)
    }

    /// The same step without looking at what it came to, so that the host does not wait for the device:
    /// a loss or gradient that is not finite is found by [`Deferred::report`], and the probe is spoilt
    /// by then.
    ///
    /// # Errors
    /// If the features or targets do not fit; the probe is then as it was before.
    pub fn train_step_deferred(
        &mut self,
        taps: &[Tensor],
        targets: &Targets,
    ) -> Result<Deferred, HeadError> {
        let (step, rate) = (self.step, self.schedule.rate(self.step));
        let made = self.backward(taps, targets)?;
        let mut deferred = Deferred {
            step,
            rate,
            skipped: made.skipped.clone(),
            parts: made.losses.len(),
            values: None,
        };
        if !made.losses.is_empty() {
            let losses = made.losses.iter().map(|loss| loss.reshape(1));
            let mut values = losses.collect::<candle_core::Result<Vec<_>>>()?;
            values.extend(squares(&made.gradients)?);
            deferred.values = Some(Tensor::cat(&values, 0)?);
            self.apply(&made, rate)?;
        }
        self.step += 1;
        Ok(deferred)
    }

    fn apply(&mut self, made: &Backward, rate: f64) -> Result<(), HeadError> {
        self.whole = false;
        self.optimiser.step(self.head.parameters(), &made.gradients, rate)?;
        for (statistic, moved) in self.head.statistics().iter().zip(&made.statistics) {
            statistic.var.set(moved)?;
        }
        self.whole = true;
        Ok(())
    }

    /// Whether the probe is as its last step left it. A step that failed half-way, as where a device has
    /// no memory left, leaves some parameters moved and some not: such a probe is not to be saved.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    fn backward(&self, taps: &[Tensor], targets: &Targets) -> Result<Backward, HeadError> {
        let [batch, ..] = targets.shape()?;
        let groups = self.groups;
        if groups == 0 || !batch.is_multiple_of(groups) {
            return Err(HeadError::Groups { batch, groups });
        }
        let size = batch / groups;
        let at_once = match self.samples {
            Some(samples) if self.head.config().divisible() => samples / size.max(1),
            _ => groups,
        };
        if at_once >= groups {
            return self.part(taps, targets, groups, 1.0);
        }
        let valid = loss::valid_groups(targets, &self.objective, groups)?;
        let share = |groups: &[bool]| groups.iter().filter(|&&valid| valid).count() as f64;
        let mut whole = Backward::default();
        for (part, groups) in valid.chunks(at_once.max(1)).enumerate() {
            let first = part * at_once.max(1);
            if share(groups) == 0.0 {
                whole.skipped.extend(first..first + groups.len());
                continue;
            }
            let (start, len) = (first * size, groups.len() * size);
            let narrow = |tap: &Tensor| tap.narrow(0, start, len);
            let taps = taps.iter().map(narrow).collect::<candle_core::Result<Vec<_>>>()?;
            let targets = targets.part(start, len)?;
            let share = share(groups) / share(&valid);
            let part =
                self.part(&taps, &targets, groups.len(), share).map_err(|error| match error {
                    HeadError::Label { sample, label, classes, ignore } => {
                        HeadError::Label { sample: sample + start, label, classes, ignore }
                    }
                    error => error,
                })?;
            whole.add(part, first)?;
        }
        Ok(whole)
    }

    /// The gradients of `share` times the loss of some whole groups.
    fn part(
        &self,
        taps: &[Tensor],
        targets: &Targets,
        groups: usize,
        share: f64,
    ) -> Result<Backward, HeadError> {
        let forward = self.head.forward(taps, true)?;
        let loss = loss::loss(&forward.logits, targets, &self.objective, groups)?;
        let (skipped, statistics) = (loss.skipped.clone(), forward.statistics.clone());
        let (Some(value), Some(of_logits)) = (loss.value.clone(), loss.gradient(share)?) else {
            return Ok(Backward { skipped, statistics, ..Backward::default() });
        };
        let value = if share == 1.0 { value } else { (value * share)? };
        let gradients = forward.gradients(&of_logits)?;
        let gradient = |parameter: &Variable| gradients.of(&parameter.var).cloned();
        let gradients = self.head.parameters().iter().map(gradient).collect();
        Ok(Backward { losses: vec![value], skipped, gradients, statistics })
    }

    /// What sliding windows sum, at `size` = (H, W), in evaluation mode: depth in metres
    /// `[B, 1, H, W]`, or class probabilities `[B, classes, H, W]`; f32.
    ///
    /// # Errors
    /// If the taps do not fit the head.
    pub fn predict(&self, taps: &[Tensor], size: (usize, usize)) -> Result<Tensor, HeadError> {
        loss::prediction(&self.head.forward(taps, false)?.logits, &self.objective, size)
    }

    /// The head.
    pub fn head(&self) -> &dyn DenseHead {
        &*self.head
    }

    /// The objective.
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Everything that training changes, by name, copied: `head.*`, `optimiser.*`, `step`. What
    /// [`encode`](super::encode) makes of it restores the probe to the bit.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>, HeadError> {
        let step = Tensor::new(self.step as i64, &Device::Cpu)?;
        let head = self.head.tensors()?.into_iter().map(|(name, t)| (format!("{HEAD}{name}"), t));
        let optimiser = self.optimiser.state()?;
        Ok(head.chain(optimiser).chain([(STEP.to_owned(), step)]).collect())
    }

    /// Continues from a [`Probe::state`] of a probe with the same head, objective and training.
    ///
    /// # Errors
    /// [`HeadError::State`] if `state` is not one; the probe is then as it was.
    pub fn load_state(&mut self, state: BTreeMap<String, Tensor>) -> Result<(), HeadError> {
        let (head, optimiser, step) = self.checked(state).map_err(HeadError::State)?;
        for (variable, tensor) in self.variables().zip(&head) {
            variable.var.set(tensor)?;
        }
        self.optimiser = optimiser;
        self.step = step;
        self.whole = true;
        Ok(())
    }

    fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.head.parameters().iter().chain(self.head.statistics())
    }

    fn checked(
        &self,
        mut state: BTreeMap<String, Tensor>,
    ) -> Result<(Vec<Tensor>, AdamW, u64), LoadProblem> {
        let step = take_counter(&mut state, STEP)?;
        let mut head = Vec::new();
        for variable in self.variables() {
            let name = format!("{HEAD}{}", variable.name);
            let Some(tensor) = state.remove(&name) else {
                return Err(LoadProblem::Missing { name });
            };
            check_shape(&name, variable.var.dims(), &tensor)?;
            let var = &variable.var;
            head.push(tensor.to_dtype(var.dtype())?.to_device(var.device())?.contiguous()?);
        }
        let optimiser = self.optimiser.continued(self.head.parameters(), state)?;
        Ok((head, optimiser, step))
    }
}

impl Backward {
    /// Adds the part that begins with group `first`.
    fn add(&mut self, part: Self, first: usize) -> candle_core::Result<()> {
        self.skipped.extend(part.skipped.into_iter().map(|group| first + group));
        self.losses.extend(part.losses);
        if self.gradients.is_empty() {
            self.gradients = part.gradients;
            return Ok(());
        }
        for (sum, more) in self.gradients.iter_mut().zip(part.gradients) {
            *sum = match (sum.take(), more) {
                (Some(sum), Some(more)) => Some((sum + more)?),
                (sum, more) => sum.or(more),
            };
        }
        Ok(())
    }
}

/// Squared L2 norm of each parameter's gradient, `[n]` f32, or on a GPU of all of them, `[1]`; none without
/// gradients.
fn squares(gradients: &[Option<Tensor>]) -> candle_core::Result<Option<Tensor>> {
    if gradients.iter().flatten().any(|gradient| gradient.device().is_cuda()) {
        let all = gradients.iter().flatten().map(Tensor::contiguous);
        let all = all.collect::<candle_core::Result<Vec<_>>>()?;
        let norm = ops::norm_of(&all.iter().collect::<Vec<_>>())?;
        return norm.sqr()?.reshape(1).map(Some);
    }
    let sums: Vec<Tensor> = gradients
        .iter()
        .flatten()
        .map(|gradient| gradient.contiguous()?.sqr()?.sum_all())
        .collect::<candle_core::Result<_>>()?;
    if sums.is_empty() {
        return Ok(None);
    }
    Tensor::stack(&sums, 0).map(Some)
}

/// In f64.
fn sum(values: &[f32]) -> f64 {
    values.iter().copied().map(f64::from).sum()
}

fn finite(step: u64, quantity: &'static str, value: f64) -> Result<f64, HeadError> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(HeadError::NonFinite { step, quantity, value })
}
