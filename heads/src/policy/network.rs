//! The layers, their results and their gradients.

use candle_core::{Result, Tensor, Var};

use super::norm::{Norm, Normalised, column_sums};
use super::rows;
use crate::dense::{Builder, Initial, LoadProblem, Variable};

/// Linear layers with ReLU between them, behind a norm of the input or not.
pub(super) struct Network {
    layers: Vec<Layer>,
    norm: Option<Norm>,
    /// In the order in which they are drawn.
    pub(super) parameters: Vec<Variable>,
    pub(super) statistics: Vec<Variable>,
}

struct Layer {
    weight: Var,
    bias: Var,
}

/// What a batch of training computed.
pub(super) struct Pass {
    /// Mean squared error before the step, a scalar.
    pub(super) loss: Tensor,
    /// By parameter.
    pub(super) gradients: Vec<Option<Tensor>>,
    /// What the running statistics become.
    pub(super) statistics: Vec<Tensor>,
}

impl Network {
    /// `widths` from the input to the action; `norm` is the scale that the input's norm begins with.
    pub(super) fn build(
        widths: &[usize],
        norm: Option<f32>,
        mut from: Builder<'_>,
    ) -> std::result::Result<Self, LoadProblem> {
        let mut layers = Vec::new();
        for (index, pair) in widths.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let initial = Initial::Uniform { fan_in: inputs };
            let weight = format!("layers.{index}.weight");
            let bias = format!("layers.{index}.bias");
            layers.push(Layer {
                weight: from.parameter(weight, &[outputs, inputs], initial)?,
                bias: from.parameter(bias, &[outputs], initial)?,
            });
        }
        let norm = norm.map(|scale| Norm::build(&mut from, widths[0], scale)).transpose()?;
        from.finish()?;
        let Builder { parameters, statistics, .. } = from;
        Ok(Self { layers, norm, parameters, statistics })
    }

    /// `[B, inputs]` to `[B, actions]` by the running statistics.
    pub(super) fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = match &self.norm {
            Some(norm) => norm.evaluate(x)?,
            None => x.clone(),
        };
        for (index, layer) in self.layers.iter().enumerate() {
            x = if index == 0 { layer.forward(&x)? } else { layer.forward(&ops::relu(&x)?)? };
        }
        Ok(x)
    }

    /// The mean squared error of a batch and its gradients; nothing is changed.
    pub(super) fn train(&self, x: &Tensor, targets: &Tensor) -> Result<Pass> {
        let normalised = self.norm.as_ref().map(|norm| norm.train(x)).transpose()?;
        // What each layer is given.
        let mut inputs = vec![normalised.as_ref().map_or(x, |n| &n.result).clone()];
        let mut result = x.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                inputs.push(ops::relu(&result)?);
            }
            result = layer.forward(&inputs[index])?;
        }
        let error = (result - targets)?;
        let loss = error.sqr()?.mean_all()?;

        let mut gradient = (&error * (2.0 / error.elem_count() as f64))?;
        let mut reversed = Vec::new();
        let mut norm_gradients = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let weight = layer.weight.as_detached_tensor();
            let input = &inputs[index];
            reversed.push(column_sums(&gradient)?);
            match (&self.norm, &normalised) {
                (Some(norm), Some(Normalised { plain, .. })) if index == 0 => {
                    let found = norm.backward(plain, &gradient, &weight)?;
                    reversed.push(found.layer);
                    norm_gradients = vec![found.scale, found.shift];
                }
                _ => reversed.push(gradient.t()?.matmul(input)?),
            }
            if index > 0 {
                let through = gradient.matmul(&weight)?;
                gradient = where_positive(input, &through)?;
            }
        }
        let gradients: Vec<Tensor> = reversed.into_iter().rev().chain(norm_gradients).collect();
        Ok(Pass {
            loss,
            gradients: gradients.into_iter().map(Some).collect(),
            statistics: normalised.map(|n| n.statistics.to_vec()).unwrap_or_default(),
        })
    }
}

impl Pass {
    /// L2 norm over all gradients, on the CPU.
    pub(super) fn gradient_norm(&self) -> Result<f64> {
        let sum = |gradient| rows::with([gradient], |[gradient]| rows::sum_of_squares(gradient));
        Ok(self.gradients.iter().flatten().map(sum).sum::<Result<f64>>()?.sqrt())
    }
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.weight.as_detached_tensor(), self.bias.as_detached_tensor());
        ops::linear(x, &weight, Some(&bias))
    }
}

/// `values` where `of` is above 0, else 0.
fn where_positive(of: &Tensor, values: &Tensor) -> Result<Tensor> {
    if !of.device().is_cpu() {
        return of.gt(0.0)?.where_cond(values, &values.zeros_like()?);
    }
    let kept = rows::with([of, values], |[of, values]| rows::where_positive(of, values))?;
    Tensor::from_vec(kept, values.dims(), of.device())
}
