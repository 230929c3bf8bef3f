use std::collections::BTreeMap;

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use super::LoadProblem;
use super::storage::{values, values_mut};
use super::weights::{Variable, check_shape};

/// Values a thread updates at a time.
const CHUNK: usize = 1 << 14;

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) in the order of PyTorch's operations.
///
/// Weight decay reaches every parameter that has a gradient, biases and norms included. Parameters
/// without a gradient are not touched and have no moments.
pub struct AdamW {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    /// Steps taken.
    updates: u64,
    /// First and second moments, by parameter.
    moments: BTreeMap<String, [Tensor; 2]>,
}

const UPDATES: &str = "optimiser.updates";
const MOMENTS: [&str; 2] = ["optimiser.first.", "optimiser.second."];

impl AdamW {
    /// With decays of the two moments, what is added to the root of the second, and the decoupled
    /// weight decay; the rate is given at every step.
    pub fn new(betas: [f64; 2], eps: f64, weight_decay: f64) -> Self {
        Self { betas, eps, weight_decay, updates: 0, moments: BTreeMap::new() }
    }

    /// Moves every parameter that has a gradient, given in the parameters' order. At rate 0 only the
    /// moments move.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn step(
        &mut self,
        parameters: &[Variable],
        gradients: &[Option<Tensor>],
        rate: f64,
    ) -> Result<()> {
        self.step_if_finite(parameters, gradients, rate, None)
    }

    /// The same on a GPU only if `guard`, one f32 there, is finite, without waiting for it: what the guard
    /// is can be read later. Elsewhere there is nothing to wait for, and `guard` is not looked at.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn step_if_finite(
        &mut self,
        parameters: &[Variable],
        gradients: &[Option<Tensor>],
        rate: f64,
        guard: Option<&Tensor>,
    ) -> Result<()> {
        self.updates += 1;
        let update = Update::new(self, rate);
        for (Variable { name, var }, gradient) in parameters.iter().zip(gradients) {
            if gradient.is_some() && !self.moments.contains_key(name) {
                self.moments.insert(name.clone(), [var.zeros_like()?, var.zeros_like()?]);
            }
        }
        if update.together(parameters, &self.moments, gradients, guard)? {
            return Ok(());
        }
        for (Variable { name, var }, gradient) in parameters.iter().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            if let Some(moments) = self.moments.get_mut(name) {
                let gradient = gradient.contiguous()?;
                if var.device().is_cpu() {
                    update.fused(var.as_tensor(), moments, &gradient)?;
                } else {
                    let (value, moved) =
                        update.composed(&var.as_detached_tensor(), moments, &gradient)?;
                    var.set(&value)?;
                    *moments = moved;
                }
            }
        }
        Ok(())
    }

    /// Uncounts the last `steps`, which a guard stopped.
    pub(crate) fn take_back(&mut self, steps: u64) {
        self.updates = self.updates.saturating_sub(steps);
    }

    /// Steps taken.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moments and the number of steps, as `optimiser.*`, copied.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let updates = Tensor::new(self.updates as i64, &candle_core::Device::Cpu)?;
        let mut state = BTreeMap::from([(UPDATES.to_owned(), updates)]);
        for (name, moments) in &self.moments {
            for (prefix, moment) in MOMENTS.iter().zip(moments) {
                state.insert(format!("{prefix}{name}"), moment.copy()?);
            }
        }
        Ok(state)
    }

    /// The optimiser continuing from `state`, with this one's settings.
    ///
    /// # Errors
    /// If `state` is not one of [`AdamW::state`] over these parameters.
    pub(crate) fn continued(
        &self,
        parameters: &[Variable],
        mut state: BTreeMap<String, Tensor>,
    ) -> std::result::Result<Self, LoadProblem> {
        let updates = take_counter(&mut state, UPDATES)?;
        let mut moments = BTreeMap::new();
        for Variable { name, var } in parameters {
            let names = MOMENTS.map(|prefix| format!("{prefix}{name}"));
            let [first, second] = &names;
            let (first, second) = match (state.remove(first), state.remove(second)) {
                (Some(first), Some(second)) => (first, second),
                (None, None) => continue,
                (found, _) => {
                    let [first, second] = names;
                    let name = if found.is_none() { first } else { second };
                    return Err(LoadProblem::Missing { name });
                }
            };
            let place = |moment: &Tensor, label: &str| {
                check_shape(label, var.dims(), moment)?;
                // A copy, since moments are updated in place.
                Ok::<_, LoadProblem>(moment.to_dtype(var.dtype())?.to_device(var.device())?.copy()?)
            };
            moments.insert(name.clone(), [place(&first, &names[0])?, place(&second, &names[1])?]);
        }
        if !state.is_empty() {
            return Err(LoadProblem::Unexpected { names: state.into_keys().collect() });
        }
        let &Self { betas, eps, weight_decay, .. } = self;
        Ok(Self { betas, eps, weight_decay, updates, moments })
    }
}

/// Removes a counter from a saved state.
pub(super) fn take_counter(
    state: &mut BTreeMap<String, Tensor>,
    name: &str,
) -> std::result::Result<u64, LoadProblem> {
    let missing = || LoadProblem::Missing { name: name.to_owned() };
    let counter = state.remove(name).ok_or_else(missing)?;
    check_shape(name, &[], &counter)?;
    let found = counter.to_dtype(candle_core::DType::I64)?.to_scalar::<i64>()?;
    u64::try_from(found).map_err(|_| LoadProblem::Counter { name: name.to_owned(), found })
}

/// The scalars of one step, in f64 and rounded once where they meet f32, as PyTorch's.
#[derive(Clone, Copy)]
struct Update {
    keep: f64,
    first_weight: f64,
    second_keep: f64,
    second_weight: f64,
    step_size: f64,
    second_correction: f64,
    eps: f64,
}

impl Update {
    fn new(adam: &AdamW, rate: f64) -> Self {
        let [beta1, beta2] = adam.betas;
        let updates = adam.updates as f64;
        Self {
            keep: 1.0 - rate * adam.weight_decay,
            first_weight: 1.0 - beta1,
            second_keep: beta2,
            second_weight: 1.0 - beta2,
            step_size: rate / (1.0 - beta1.powf(updates)),
            second_correction: (1.0 - beta2.powf(updates)).sqrt(),
            eps: adam.eps,
        }
    }

    /// All parameters at once, in place, if all is on one GPU.
    fn together(
        self,
        parameters: &[Variable],
        moments: &BTreeMap<String, [Tensor; 2]>,
        gradients: &[Option<Tensor>],
        guard: Option<&Tensor>,
    ) -> Result<bool> {
        if parameters.first().is_none_or(|first| first.var.device().is_cpu()) {
            return Ok(false);
        }
        let gradients = gradients
            .iter()
            .map(|gradient| gradient.as_ref().map(Tensor::contiguous).transpose())
            .collect::<Result<Vec<_>>>()?;
        let all =
            parameters.iter().zip(&gradients).filter_map(|(Variable { name, var }, gradient)| {
                let [first, second] = moments.get(name)?;
                Some([var.as_tensor(), first, second, gradient.as_ref()?])
            });
        ops::adamw(&self.scalars(), &all.collect::<Vec<_>>(), guard)
    }

    fn scalars(self) -> ops::AdamwStep {
        ops::AdamwStep {
            keep: self.keep as f32,
            first_weight: self.first_weight as f32,
            second_keep: self.second_keep as f32,
            second_weight: self.second_weight as f32,
            step: -self.step_size as f32,
            correction: self.second_correction as f32,
            eps: self.eps as f32,
        }
    }

    /// In place, in one pass over each of the three; the tensors are contiguous f32 on the CPU.
    fn fused(self, value: &Tensor, moments: &[Tensor; 2], gradient: &Tensor) -> Result<()> {
        let [first, second] = moments;
        first.inplace_op2(gradient, &First(self))?;
        second.inplace_op2(gradient, &Second(self))?;
        value.inplace_op3(first, second, &Value(self))
    }

    /// The same of ordinary operations: the new value and moments.
    fn composed(
        self,
        value: &Tensor,
        [first, second]: &[Tensor; 2],
        gradient: &Tensor,
    ) -> Result<(Tensor, [Tensor; 2])> {
        let first = (first + ((gradient - first)? * self.first_weight)?)?;
        let squared = ((gradient * self.second_weight)? * gradient)?;
        let second = ((second * self.second_keep)? + squared)?;
        let denominator = ((second.sqrt()? / self.second_correction)? + self.eps)?;
        let moved = ((&first * -self.step_size)? / denominator)?;
        Ok((((value * self.keep)? + moved)?, [first, second]))
    }
}

fn in_chunks(to: &mut [f32], from: &[f32], update: impl Fn(&mut f32, f32) + Sync) {
    to.par_chunks_mut(CHUNK)
        .zip(from.par_chunks(CHUNK))
        .for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, &from)| update(to, from)));
}

struct First(Update);

impl InplaceOp2 for First {
    fn name(&self) -> &'static str {
        "adamw-first-moment"
    }

    fn cpu_fwd(
        &self,
        moment: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let weight = self.0.first_weight as f32;
        let gradient = values(gradient, gradient_layout)?;
        in_chunks(values_mut(moment, layout)?, gradient, |m, g| *m += weight * (g - *m));
        Ok(())
    }
}

struct Second(Update);

impl InplaceOp2 for Second {
    fn name(&self) -> &'static str {
        "adamw-second-moment"
    }

    fn cpu_fwd(
        &self,
        moment: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let (keep, weight) = (self.0.second_keep as f32, self.0.second_weight as f32);
        let gradient = values(gradient, gradient_layout)?;
        in_chunks(values_mut(moment, layout)?, gradient, |v, g| *v = *v * keep + weight * g * g);
        Ok(())
    }
}

struct Value(Update);

impl InplaceOp3 for Value {
    fn name(&self) -> &'static str {
        "adamw-value"
    }

    fn cpu_fwd(
        &self,
        value: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let Update { keep, step_size, second_correction, eps, .. } = self.0;
        let [keep, step, correction, eps] =
            [keep, -step_size, second_correction, eps].map(|scalar| scalar as f32);
        let (first, second) = (values(first, first_layout)?, values(second, second_layout)?);
        values_mut(value, layout)?
            .par_chunks_mut(CHUNK)
            .zip(first.par_chunks(CHUNK).zip(second.par_chunks(CHUNK)))
            .for_each(|(value, (first, second))| {
                for (p, (&m, &v)) in value.iter_mut().zip(first.iter().zip(second)) {
                    *p = *p * keep + step * m / (v.sqrt() / correction + eps);
                }
            });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn wave(len: usize, step: f32) -> Tensor {
        let values: Vec<f32> = (0..len).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, len, &Device::Cpu).unwrap()
    }

    fn adam() -> AdamW {
        AdamW::new([0.9, 0.999], 1e-8, 0.01)
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.to_vec1().unwrap()
    }

    /// What runs on the CPU is what runs elsewhere, over more values than one chunk and several rates.
    #[test]
    fn fused_and_composed_agree() {
        let len = CHUNK + 77;
        let (mut adam, fused) = (adam(), wave(len, 0.3));
        let moments = [fused.zeros_like().unwrap(), fused.zeros_like().unwrap()];
        let (mut value, mut moved) = (fused.copy().unwrap(), moments.clone());
        moved = moved.map(|moment| moment.copy().unwrap());
        for (step, rate) in [1e-2, 0.0, 3e-3, 1e-4].into_iter().enumerate() {
            let gradient = wave(len, 0.11 + step as f32);
            adam.updates += 1;
            let update = Update::new(&adam, rate);
            update.fused(&fused, &moments, &gradient).unwrap();
            (value, moved) = update.composed(&value, &moved, &gradient).unwrap();
            let pairs = [(&fused, &value), (&moments[0], &moved[0]), (&moments[1], &moved[1])];
            for (a, b) in pairs {
                for (a, b) in values(a).into_iter().zip(values(b)) {
                    assert!((a - b).abs() <= 3e-7 * a.abs().max(1e-2), "step {step}: {a}, {b}");
                }
            }
        }
    }

    /// One step from zero moments is p (1 - rate decay) - rate sign(g), but for eps; a step at rate 0
    /// moves the moments alone.
    #[test]
    fn the_first_step_is_the_gradients_sign_and_a_rate_of_zero_moves_the_moments() {
        let var = Var::new(&[2_f32, -1.0, 0.5], &Device::Cpu).unwrap();
        let parameters = [Variable { name: "w".into(), var: var.clone() }];
        let step = |adam: &mut AdamW, rate| {
            let slope = Tensor::new(&[3_f32, -0.25, 8.0], &Device::Cpu).unwrap();
            let loss = (var.as_tensor() * slope).unwrap().sum_all().unwrap();
            let gradient = loss.backward().unwrap().get(var.as_tensor()).cloned();
            adam.step(&parameters, &[gradient], rate).unwrap();
        };
        let mut adam = adam();
        step(&mut adam, 0.0);
        assert_eq!(values(&var), [2.0, -1.0, 0.5]);
        let state = adam.state().unwrap();
        for (name, expected) in [
            ("optimiser.first.w", [0.3, -0.025, 0.8]),
            ("optimiser.second.w", [9e-3, 6.25e-5, 6.4e-2]),
        ] {
            for (found, expected) in values(&state[name]).into_iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{name} {found}");
            }
        }
        step(&mut adam, 0.1);
        for (found, expected) in values(&var).into_iter().zip([1.898, -0.899, 0.3995]) {
            assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
        }
    }
}
