//! Policies of every task and seed, trained side by side on the same kept vectors.

use candle_core::{Device, Tensor};
use heads::policy::{Policy, PolicyConfig};
use schema::{ObservationStage, PolicyTask, PolicyTraining};
use tasks::random::shuffled;

use super::inputs::Inputs;
use crate::backbone::BackboneError;
use crate::interrupt;
use crate::run::RunError;

/// One policy in training.
pub(super) struct Probe {
    /// Index of its task.
    pub(super) task: usize,
    pub(super) seed: u64,
    pub(super) policy: Policy,
    /// Epochs trained.
    pub(super) epoch: usize,
    /// Mean loss of each epoch since the last evaluation.
    pub(super) losses: Vec<f64>,
}

/// What the policies of one task are trained on.
pub(super) struct Lesson<'a> {
    pub(super) suite: &'a str,
    pub(super) task: &'a PolicyTask,
    pub(super) stage: &'a ObservationStage,
    pub(super) training: &'a PolicyTraining,
    pub(super) inputs: &'a Inputs,
    pub(super) device: &'a Device,
}

impl Lesson<'_> {
    pub(super) fn policy(&self, seed: u64) -> Result<Policy, RunError> {
        let inputs = self.inputs.input(self.stage, self.task.goal);
        let config = PolicyConfig { inputs, actions: self.inputs.action };
        Ok(Policy::new(config, self.training, seed, self.device)?)
    }

    /// Trains for an epoch: every frame of every demonstration once, in an order that depends on seed, task
    /// and epoch alone. The incomplete last batch counts, unless it is a single frame, of which batch norm
    /// cannot tell a variance.
    pub(super) fn train(&self, probe: &mut Probe) -> Result<(), RunError> {
        let tag = format!("policy/order/{}/{}/{}", self.suite, self.task.name, probe.epoch);
        let order = shuffled(probe.seed, &tag, self.inputs.len());
        for batch in order.chunks(self.training.batch.max(1)) {
            if batch.len() == 1 && self.training.input_norm.is_some() {
                continue;
            }
            if interrupt::requested() {
                return Err(RunError::Interrupted);
            }
            let (inputs, actions) = self.inputs.batch(self.stage, batch);
            let tensor = |values: Vec<f32>| {
                let shape = (batch.len(), values.len() / batch.len());
                Tensor::from_vec(values, shape, self.device).map_err(BackboneError::Candle)
            };
            probe.policy.step_later(&tensor(inputs)?, &tensor(actions)?)?;
        }
        let losses = probe.policy.losses()?;
        probe.epoch += 1;
        let sum = losses.iter().fold(0.0, |sum, &loss| sum + f64::from(loss));
        probe.losses.push(sum / losses.len().max(1) as f64);
        Ok(())
    }
}
