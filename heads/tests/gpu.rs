//! Heads on a GPU against the same on the CPU: losses and gradients, steps of training, predictions,
//! policies and neighbours. Without a GPU the tests say that they are skipped.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor, Var};
use common::{uniform, values};
use pixio_eval_heads::dense::{AdamW, Targets, Variable, loss, prediction};
use pixio_eval_heads::knn::{Features, Knn, l2_normalise};
use pixio_eval_heads::policy::{Policy, PolicyConfig, PolicyError};
use schema::{Objective, PolicyTraining};

fn gpu() -> Option<Device> {
    match Device::new_cuda_with_stream(0) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: no GPU ({error})");
            None
        }
    }
}

fn draw(stream: usize, shape: &[usize], scale: f64) -> Tensor {
    let count = shape.iter().product();
    let values = (0..count).map(|i| ((2.0 * uniform(stream, i) - 1.0) * scale) as f32).collect();
    Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
}

/// Largest difference, in units of the largest value expected.
fn off(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let wide = |t: &Tensor| values(&t.to_dtype(DType::F32).unwrap());
    let (found, expected) = (wide(found), wide(expected));
    let most = expected.iter().fold(f32::MIN_POSITIVE, |most, e| most.max(e.abs()));
    let pairs = found.iter().zip(&expected);
    pairs
        .map(|(f, e)| if f.is_nan() { f32::INFINITY } else { (f - e).abs() / most })
        .fold(0.0, f32::max)
}

const DEPTH: Objective = Objective::Depth { min: 0.001, max: 10.0 };

fn targets(objective: &Objective, shape: [usize; 3], device: &Device) -> Targets {
    let count: usize = shape.iter().product();
    let empty = count / 8;
    match *objective {
        Objective::Depth { .. } => {
            let metres = (0..count).map(|i| match i {
                i if i < empty || i % 9 == 0 => 0.0,
                i => (uniform(3, i) * 11.0) as f32,
            });
            Targets::depth_from_host(metres.collect(), shape, objective, device).unwrap()
        }
        Objective::Segmentation { classes, ignore } => {
            let label = |i: usize| match i {
                i if i < empty || i % 9 == 0 => ignore,
                i => (uniform(4, i) * classes as f64) as u8,
            };
            let labels: Vec<u8> = (0..count).map(label).collect();
            Targets::labels(labels, shape).on(device).unwrap()
        }
    }
}

#[test]
fn losses_gradients_and_predictions() {
    let Some(gpu) = gpu() else { return };
    let segmentation = |classes| Objective::Segmentation { classes, ignore: 255 };
    for (objective, outputs, from, to) in [
        (DEPTH, 1, 16, 256),
        (DEPTH, 1, 128, 256),
        (segmentation(7), 7, 16, 250),
        (segmentation(21), 21, 128, 256),
        (segmentation(150), 150, 64, 128),
    ] {
        let logits = draw(1, &[8, outputs, from, from], 4.0);
        for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::BF16, 5e-3)] {
            let of = |device: &Device| {
                let logits = logits.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap();
                let logits = logits.to_device(device).unwrap();
                let targets = targets(&objective, [8, to, to], device);
                let found = loss(&logits, &targets, &objective, 8).unwrap();
                assert_eq!(found.skipped, [0]);
                let value = found.value.clone().unwrap();
                let gradient = found.gradient(0.375).unwrap().unwrap();
                let map = prediction(&logits, &objective, (to, to)).unwrap();
                (value, gradient, map)
            };
            let (found, expected) = (of(&gpu), of(&Device::Cpu));
            let what = format!("{objective:?} {from} to {to} {dtype:?}");
            assert!(off(&found.0, &expected.0) < 1e-5, "value of {what}");
            let difference = off(&found.1, &expected.1);
            assert!(difference < tolerance, "gradient of {what}: {difference}");
            let difference = off(&found.2, &expected.2);
            assert!(difference < 2e-5, "prediction of {what}: {difference}");
            if outputs > 1 {
                let class = |map: &Tensor| ops::argmax_classes(map).unwrap();
                let same = class(&found.2).to_device(&Device::Cpu).unwrap();
                let same = same.eq(&class(&found.2.to_device(&Device::Cpu).unwrap())).unwrap();
                assert_eq!(
                    same.flatten_all().unwrap().min(0).unwrap().to_scalar::<u8>().unwrap(),
                    1
                );
            }
        }
    }
}

/// To the bit: the operations are the same and each is rounded.
#[test]
fn steps_of_adamw() {
    let Some(gpu) = gpu() else { return };
    let of = |device: &Device| {
        let shapes: [&[usize]; 3] = [&[300, 70], &[1], &[4097]];
        let parameters: Vec<Variable> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| Variable {
                name: format!("p{i}"),
                var: Var::from_tensor(&draw(i, shape, 1.0).to_device(device).unwrap()).unwrap(),
            })
            .collect();
        let mut adam = AdamW::new([0.9, 0.999], 1e-8, 0.01);
        for (step, rate) in [1e-2, 0.0, 3e-4].into_iter().enumerate() {
            let gradient =
                |(i, shape): (usize, &&[usize])| draw(10 * step + i, shape, 1.0).to_device(device);
            let gradients: Vec<_> =
                shapes.iter().enumerate().map(|of| Some(gradient(of).unwrap())).collect();
            adam.step(&parameters, &gradients, rate).unwrap();
        }
        parameters.iter().flat_map(|p| values(p.var.as_tensor())).collect::<Vec<f32>>()
    };
    assert!(of(&gpu) == of(&Device::Cpu));
    let tensors = [draw(1, &[300, 70], 1.0), draw(2, &[9000], 1.0)];
    let there = tensors.each_ref().map(|t| t.to_device(&gpu).unwrap());
    let norm = |tensors: &[Tensor; 2]| ops::norm_of(&tensors.each_ref()).unwrap();
    assert!(off(&norm(&there), &norm(&tensors)) < 1e-6);
}

#[test]
fn policies() {
    let Some(gpu) = gpu() else { return };
    let config = PolicyConfig { inputs: 300, actions: 4 };
    for input_norm in [None, Some(1.0)] {
        let training = PolicyTraining {
            revision: 1,
            hidden: vec![64, 32],
            input_norm,
            rate: 1e-3,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            batch: 32,
        };
        let mut both =
            [&gpu, &Device::Cpu].map(|device| Policy::new(config, &training, 5, device).unwrap());
        let [mut found, mut expected] = [Vec::new(), Vec::new()];
        for step in 0..20 {
            let (inputs, targets) = (draw(step, &[32, 300], 1.0), draw(100 + step, &[32, 4], 1.0));
            both[0].step_later(&inputs, &targets).unwrap();
            expected.push(both[1].step(&inputs, &targets).unwrap());
        }
        found.extend(both[0].losses().unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
        }
        let inputs = draw(7, &[9, 300], 1.0);
        let [a, b] = both.each_mut().map(|policy| policy.act(&inputs).unwrap());
        assert!(off(&a, &b) < 1e-3);

        // What is not finite changes nothing, nor do the steps after it.
        let policy = &mut both[0];
        let before = policy.state().unwrap();
        let spoilt = (draw(1, &[32, 300], 1.0) * f64::NAN).unwrap();
        let targets = draw(2, &[32, 4], 1.0);
        policy.step_later(&spoilt, &targets).unwrap();
        policy.step_later(&draw(3, &[32, 300], 1.0), &targets).unwrap();
        assert!(matches!(policy.losses(), Err(PolicyError::NonFinite { .. })));
        for (name, tensor) in policy.state().unwrap() {
            let bits = |t: &Tensor| values(&t.to_dtype(DType::F32).unwrap());
            assert!(bits(&tensor) == bits(&before[&name]), "{name}");
        }
    }
}

#[test]
fn neighbours() {
    let Some(gpu) = gpu() else { return };
    let (rows, count, dim, k) = (20_000, 700, 192, 200);
    let rows_of = |stream: usize, count: usize| {
        let mut values = values(&draw(stream, &[count, dim], 1.0));
        l2_normalise(&mut values, dim).unwrap();
        values
    };
    let (train, queries) = (rows_of(1, rows), rows_of(2, count));
    let labels = vec![0; rows];
    let features = Features::new(&train, dim).unwrap();
    let search = |device: &Device| {
        let knn = Knn::new(features, &labels, 1).unwrap().on(device);
        let queries = Features::new(&queries, dim).unwrap();
        knn.search(queries, k, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let (found, expected) = (search(&gpu), search(&Device::Cpu));
    let same = found.rows.iter().zip(&expected.rows).filter(|(a, b)| a == b).count();
    assert!(same as f64 > 0.999 * found.rows.len() as f64, "{same} of {}", found.rows.len());
    for (a, b) in found.similarities.iter().zip(&expected.similarities) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}
