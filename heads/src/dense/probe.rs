use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use schema::{Objective, TrainingStage};

use super::adamw::take_counter;
use super::loss::{self, Loss, Targets, outputs};
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
}

/// Gradients of a batch's loss.
#[derive(Default)]
struct Backward {
    loss: Option<f64>,
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
        let Backward { loss, skipped, gradients, statistics } = self.backward(taps, targets)?;
        let mut report = StepReport { loss: None, rate, grad_norm: None, skipped_groups: skipped };
        if let Some(loss) = loss {
            report.loss = Some(self.finite("loss", loss)?);
            let norm = gradient_norm(&gradients)?;
            report.grad_norm = Some(self.finite("gradient norm", norm)?);
            self.optimiser.step(self.head.parameters(), &gradients, rate)?;
            for (statistic, moved) in self.head.statistics().iter().zip(&statistics) {
                statistic.var.set(moved)?;
            }
        }
        self.step += 1;
        Ok(report)
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
            let narrow = |tap: &Tensor| tap.narrow(0, start, len)?.contiguous();
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
        let Loss { value, skipped } =
            loss::loss(&forward.logits, targets, &self.objective, groups)?;
        let statistics = forward.statistics;
        let Some(value) = value else {
            return Ok(Backward { skipped, statistics, ..Backward::default() });
        };
        let value = if share == 1.0 { value } else { (value * share)? };
        let loss = Some(f64::from(value.to_scalar::<f32>()?));
        let store = value.backward()?;
        let gradient = |parameter: &Variable| store.get(parameter.var.as_tensor()).cloned();
        let gradients = self.head.parameters().iter().map(gradient).collect();
        Ok(Backward { loss, skipped, gradients, statistics })
    }

    fn finite(&self, quantity: &'static str, value: f64) -> Result<f64, HeadError> {
        if value.is_finite() {
            return Ok(value);
        }
        Err(HeadError::NonFinite { step: self.step, quantity, value })
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
        self.loss = match (self.loss, part.loss) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
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

/// L2 norm over all gradients; squares are summed in f32 by parameter and in f64 over them.
fn gradient_norm(gradients: &[Option<Tensor>]) -> candle_core::Result<f64> {
    let sums: Vec<Tensor> = gradients
        .iter()
        .flatten()
        .map(|gradient| gradient.contiguous()?.sqr()?.sum_all())
        .collect::<candle_core::Result<_>>()?;
    if sums.is_empty() {
        return Ok(0.0);
    }
    let sums = Tensor::stack(&sums, 0)?.to_vec1::<f32>()?;
    Ok(sums.into_iter().map(f64::from).sum::<f64>().sqrt())
}
