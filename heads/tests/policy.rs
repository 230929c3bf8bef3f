//! Policies: against PyTorch, row by row, saved and continued, and with what they refuse.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{uniform, values};
use pixio_eval_heads::dense::{decode, encode};
use pixio_eval_heads::policy::{Policy, PolicyConfig, PolicyError, fuse};
use schema::PolicyTraining;
use serde_json::Value;

/// The vectors of `data/policy.json`, which `scripts/make_policy_vectors.py` makes.
struct Vectors(Value);

fn numbers(json: &Value) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn draw(stream: usize, count: usize, bound: f64) -> Vec<f32> {
    (0..count).map(|i| ((2.0 * uniform(stream, i) - 1.0) * bound) as f32).collect()
}

impl Vectors {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/policy.json");
        Self(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }

    fn size(&self, name: &str) -> usize {
        self.0[name].as_u64().unwrap() as usize
    }

    fn config(&self) -> PolicyConfig {
        let inputs = 3 * self.size("features") + self.size("proprio");
        PolicyConfig { inputs, actions: self.size("actions") }
    }

    fn training(&self, run: &str) -> PolicyTraining {
        let run = &self.0["runs"][run];
        PolicyTraining {
            revision: 1,
            hidden: numbers(&run["hidden"]).into_iter().map(|width| width as usize).collect(),
            input_norm: run["input_norm"].as_f64().map(|scale| scale as f32),
            rate: run["rate"].as_f64().unwrap(),
            weight_decay: run["weight_decay"].as_f64().unwrap(),
            betas: [0.9, 0.999],
            eps: 1e-8,
            batch: self.size("batch"),
        }
    }

    fn policy(&self, run: &str) -> Policy {
        let (config, training) = (self.config(), self.training(run));
        let mut widths = vec![config.inputs];
        widths.extend(&training.hidden);
        widths.push(config.actions);
        let mut tensors = BTreeMap::new();
        let mut insert = |name: String, values: Vec<f32>, dims: &[usize]| {
            tensors.insert(name, Tensor::from_vec(values, dims, &Device::Cpu).unwrap());
        };
        for (index, pair) in widths.windows(2).enumerate() {
            let bound = 1.0 / (pair[0] as f64).sqrt();
            let weight = draw(2 * index, pair[0] * pair[1], bound);
            insert(format!("layers.{index}.weight"), weight, &[pair[1], pair[0]]);
            let bias = draw(2 * index + 1, pair[1], bound);
            insert(format!("layers.{index}.bias"), bias, &[pair[1]]);
        }
        if let Some(scale) = training.input_norm {
            for (name, start) in
                [("weight", scale), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
            {
                insert(format!("norm.{name}"), vec![start; config.inputs], &[config.inputs]);
            }
        }
        Policy::from_tensors(Path::new(run), tensors, config, &training, &Device::Cpu).unwrap()
    }

    fn observations(&self, start: usize, count: usize) -> Tensor {
        let (features, proprio) = (self.size("features"), self.size("proprio"));
        let frames = [0, 1, 2].map(|i| draw(100 + start + i, count * features, 1.0));
        let mut own = draw(103 + start, count * proprio, 1.0);
        let mut all = Vec::new();
        for (row, own) in own.chunks_exact_mut(proprio).enumerate() {
            (own[0], own[1]) = (0.25, 0.0);
            let of = |frame: usize| &frames[frame][row * features..][..features];
            fuse(&[of(0), of(1), of(2)], &mut all);
            all.extend_from_slice(own);
        }
        Tensor::from_vec(all, (count, self.config().inputs), &Device::Cpu).unwrap()
    }

    /// The batches of an epoch, the last one short.
    fn batches(&self) -> Vec<(Tensor, Tensor)> {
        let (frames, batch, actions) =
            (self.size("frames"), self.size("batch"), self.size("actions"));
        let inputs = self.observations(0, frames);
        let noise =
            Tensor::from_vec(draw(104, frames * actions, 0.5), (frames, actions), &Device::Cpu);
        let signal = (inputs.narrow(1, 0, actions).unwrap() * 3.0).unwrap().sin().unwrap();
        let targets = (signal + noise.unwrap()).unwrap();
        (0..frames)
            .step_by(batch)
            .map(|start| {
                let len = batch.min(frames - start);
                (inputs.narrow(0, start, len).unwrap(), targets.narrow(0, start, len).unwrap())
            })
            .collect()
    }
}

#[track_caller]
fn close(found: &[f32], expected: &[f64], absolute: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= absolute, "{what} {i}: {found}, {expected}");
    }
}

#[test]
fn fused_frames_are_the_differences_and_the_last() {
    let vectors = Vectors::read();
    let expected = numbers(&vectors.0["probes"]);
    let count = expected.len() / vectors.config().inputs;
    close(&values(&vectors.observations(50, count)), &expected, 0.0, "fused");
    let mut alone = vec![7.0];
    fuse(&[&[1.0, 2.0]], &mut alone);
    assert_eq!(alone, [7.0, 1.0, 2.0]);
}

#[test]
fn two_hundred_steps_are_pytorchs() {
    let vectors = Vectors::read();
    let batches = vectors.batches();
    for run in ["norm", "plain", "decay"] {
        let record = &vectors.0["runs"][run];
        let mut policy = vectors.policy(run);
        let losses = numbers(&record["losses"]);
        assert_eq!(losses.len(), 200);
        let mut worst = 0.0_f64;
        for (step, expected) in losses.iter().enumerate() {
            let (inputs, targets) = &batches[step % batches.len()];
            let loss = f64::from(policy.step(inputs, targets).unwrap());
            worst = worst.max((loss - expected).abs() / expected);
            assert!(worst <= 1e-4, "{run} step {step}: {loss}, {expected}");
        }
        // Both of the same batch.
        assert!(losses[199] < 0.95 * losses[4], "{run}: nothing was learnt");
        println!("{run}: losses within {worst:.1e}");
        let expected = numbers(&record["actions"]);
        let probes = vectors.observations(50, expected.len() / vectors.config().actions);
        close(&values(&policy.act(&probes).unwrap()), &expected, 1e-5, run);
        let tensors = policy.tensors().unwrap();
        for name in ["running_mean", "running_var"] {
            if let Some(found) = tensors.get(&format!("norm.{name}")) {
                close(&values(found), &numbers(&record[name]), 1e-6, name);
            }
        }
    }
}

#[test]
fn an_action_depends_on_its_own_row_alone() {
    let vectors = Vectors::read();
    let (mut wide, config) = (vectors.training("norm"), vectors.config());
    wide.hidden = vec![300, 130];
    for run in ["norm", "plain", "wide"] {
        let mut policy = match run {
            "wide" => Policy::new(config, &wide, 3, &Device::Cpu).unwrap(),
            run => vectors.policy(run),
        };
        for (inputs, targets) in vectors.batches() {
            policy.step(&inputs, &targets).unwrap();
        }
        let probes = vectors.observations(60, 40);
        let alone: Vec<Vec<f32>> = (0..40)
            .map(|row| values(&policy.act(&probes.narrow(0, row, 1).unwrap()).unwrap()))
            .collect();
        for (start, count) in [(0, 16), (3, 16), (0, 40), (5, 7), (21, 17)] {
            let together = policy.act(&probes.narrow(0, start, count).unwrap()).unwrap();
            assert_eq!(together.dims(), [count, config.actions]);
            let together = values(&together);
            for (i, action) in together.chunks_exact(config.actions).enumerate() {
                assert_eq!(action, alone[start + i], "{run}: row {i} of {count} from {start}");
            }
        }
    }
}

#[test]
fn a_saved_policy_continues_to_the_bit() {
    let vectors = Vectors::read();
    let batches = vectors.batches();
    for run in ["norm", "plain"] {
        let mut policy = vectors.policy(run);
        for (inputs, targets) in &batches {
            policy.step(inputs, targets).unwrap();
        }
        let state = encode(&policy.state().unwrap()).unwrap();
        let (config, training) = (vectors.config(), vectors.training(run));
        let mut other = Policy::new(config, &training, 1, &Device::Cpu).unwrap();
        other.load_state(decode(&state).unwrap()).unwrap();
        assert_eq!(other.updates(), batches.len() as u64);
        for (inputs, targets) in batches.iter().rev() {
            let losses = [&mut policy, &mut other].map(|p| p.step(inputs, targets).unwrap());
            assert_eq!(losses[0].to_bits(), losses[1].to_bits(), "{run}");
        }
        let states = [&policy, &other].map(|p| encode(&p.state().unwrap()).unwrap());
        assert!(states[0] == states[1], "{run}");

        let saved = decode(&encode(&policy.tensors().unwrap()).unwrap()).unwrap();
        let read =
            Policy::from_tensors(Path::new("p"), saved, config, &training, &Device::Cpu).unwrap();
        let probes = vectors.observations(60, 9);
        let actions = [&policy, &read].map(|p| values(&p.act(&probes).unwrap()));
        assert_eq!(actions[0], actions[1], "{run}");
    }
}

#[test]
fn a_new_policy_is_drawn_from_its_seed_within_pytorchs_bounds() {
    let vectors = Vectors::read();
    let (config, training) = (vectors.config(), vectors.training("norm"));
    let new = |seed| Policy::new(config, &training, seed, &Device::Cpu).unwrap().tensors().unwrap();
    let (first, again, other) = (new(100), new(100), new(200));
    for (name, tensor) in &first {
        let found = values(tensor);
        assert_eq!(found, values(&again[name]), "{name}");
        let Some(layer) = name.strip_prefix("layers.") else { continue };
        assert_ne!(found, values(&other[name]), "{name}");
        let fan_in = if layer.starts_with('0') { config.inputs } else { 32 };
        let bound = 1.0 / (fan_in as f32).sqrt();
        assert!(found.iter().all(|v| v.abs() <= bound), "{name}");
        if found.len() > 100 {
            // A uniform distribution's deviation is its bound over the root of 3.
            let square = found.iter().map(|v| v * v).sum::<f32>() / found.len() as f32;
            assert!((square.sqrt() * 3_f32.sqrt() / bound - 1.0).abs() < 0.1, "{name}: {square}");
        }
    }
    assert_eq!(values(&first["norm.weight"]), vec![0.01; config.inputs]);
    assert_eq!(values(&first["norm.bias"]), vec![0.0; config.inputs]);
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "layers.0.bias",
            "layers.0.weight",
            "layers.1.bias",
            "layers.1.weight",
            "layers.2.bias",
            "layers.2.weight",
            "layers.3.bias",
            "layers.3.weight",
            "norm.bias",
            "norm.running_mean",
            "norm.running_var",
            "norm.weight"
        ]
    );
}

#[test]
fn a_bad_batch_is_refused_and_changes_nothing() {
    let vectors = Vectors::read();
    let (inputs, targets) = vectors.batches().remove(0);
    let (rows, width) = inputs.dims2().unwrap();
    let spoilt = |tensor: &Tensor, value: f32| {
        let mut all = values(tensor);
        all[width / 2] = value;
        Tensor::from_vec(all, tensor.shape(), &Device::Cpu).unwrap()
    };
    for run in ["norm", "plain"] {
        let mut policy = vectors.policy(run);
        policy.step(&inputs, &targets).unwrap();
        let before = encode(&policy.state().unwrap()).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
            let error = policy.step(&spoilt(&inputs, bad), &targets).unwrap_err();
            assert!(matches!(error, PolicyError::NonFinite { updates: 1, .. }), "{run}: {error}");
            let error = policy.step(&inputs, &spoilt(&targets, bad)).unwrap_err();
            assert!(
                matches!(error, PolicyError::NonFinite { quantity: "loss", .. }),
                "{run}: {error}"
            );
        }
        let error = policy.act(&spoilt(&inputs, f32::NAN)).unwrap_err();
        let expected =
            "after 1 steps of training: the sum of the inputs is NaN; the policy is left as it was";
        assert_eq!(error.to_string(), expected);
        let narrow = inputs.narrow(1, 0, width - 1).unwrap();
        let error = policy.step(&narrow, &targets).unwrap_err();
        assert_eq!(error.to_string(), "expected observations of shape [B, 64], found [16, 63]");
        let error = policy.step(&inputs, &targets.narrow(0, 0, rows - 1).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "expected target actions of shape [16, 4], found [15, 4]");
        let empty = Tensor::zeros((0, width), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(policy.act(&empty), Err(PolicyError::Shape { .. })));
        let one = policy.step(&inputs.narrow(0, 0, 1).unwrap(), &targets.narrow(0, 0, 1).unwrap());
        if run == "norm" {
            assert!(matches!(one, Err(PolicyError::OneRow)));
            assert!(before == encode(&policy.state().unwrap()).unwrap());
        } else {
            one.unwrap();
        }
    }
}

#[test]
fn another_policys_state_is_refused_and_changes_nothing() {
    let vectors = Vectors::read();
    let (inputs, targets) = vectors.batches().remove(0);
    let mut policy = vectors.policy("norm");
    policy.step(&inputs, &targets).unwrap();
    let state = policy.state().unwrap();
    let before = encode(&state).unwrap();
    let mut wrong = Vec::new();
    wrong.push(vectors.policy("plain").state().unwrap());
    for name in ["policy.norm.running_var", "optimiser.second.layers.1.bias", "optimiser.updates"] {
        let mut less = state.clone();
        less.remove(name).unwrap();
        wrong.push(less);
    }
    let mut more = state.clone();
    more.insert("policy.extra".into(), inputs.clone());
    wrong.push(more);
    let mut reshaped = state.clone();
    reshaped.insert("policy.layers.1.bias".into(), inputs.clone());
    wrong.push(reshaped);
    for wrong in wrong {
        let error = policy.load_state(wrong).unwrap_err();
        assert!(matches!(error, PolicyError::State(_)), "{error}");
        assert!(before == encode(&policy.state().unwrap()).unwrap());
    }
    let plain = vectors.policy("plain").tensors().unwrap();
    let (config, training) = (vectors.config(), vectors.training("norm"));
    let error =
        Policy::from_tensors(Path::new("a/p.safetensors"), plain, config, &training, &Device::Cpu);
    let error = error.err().unwrap().to_string();
    assert!(
        error.starts_with("a/p.safetensors: tensor layers.0.weight has shape [48, 64]"),
        "{error}"
    );
    let none = PolicyConfig { actions: 0, ..config };
    let error = Policy::new(none, &training, 0, &Device::Cpu).err().unwrap().to_string();
    assert!(error.ends_with("found widths [64, 32, 32, 32, 0]"), "{error}");
}
