//! The grouped losses against their formulas in 64 bits.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{Device, Tensor};
use common::{labels, values};
use pixio_eval_heads::dense::{HeadError, Targets, loss};
use schema::Objective;

const SIZE: [usize; 3] = [6, 9, 7];
const DEPTH: Objective = Objective::Depth { min: 0.5, max: 10.0 };
const CLASSES: Objective = Objective::Segmentation { classes: 3, ignore: 255 };

fn wave(len: usize, step: f64) -> Vec<f64> {
    (0..len).map(|i| (i as f64 * step).sin()).collect()
}

fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Mean over the groups with a valid pixel of `of(group's range of pixels)`.
fn grouped(groups: usize, of: impl Fn(std::ops::Range<usize>) -> Option<f64>) -> f64 {
    let each = SIZE.iter().product::<usize>() / groups;
    let losses: Vec<f64> = (0..groups).filter_map(|g| of(g * each..(g + 1) * each)).collect();
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn silog(logits: &[f64], target: &[f64], groups: usize) -> f64 {
    grouped(groups, |pixels| {
        let d: Vec<f64> = pixels
            .filter(|&i| (0.5..=10.0).contains(&target[i]))
            .map(|i| target[i].ln() - (10.0 / (1.0 + (-logits[i]).exp())).max(0.5).ln())
            .collect();
        let mean = |f: fn(f64) -> f64| d.iter().map(|&d| f(d)).sum::<f64>() / d.len() as f64;
        (!d.is_empty()).then(|| (mean(|d| d * d) - 0.5 * mean(|d| d).powi(2)).sqrt())
    })
}

fn cross_entropy(logits: &[f64], target: &[u8], groups: usize) -> f64 {
    let (pixels, classes) = (SIZE[1] * SIZE[2], 3);
    grouped(groups, |range| {
        let losses: Vec<f64> = range
            .filter(|&i| target[i] != 255)
            .map(|i| {
                let at = |c: usize| logits[(i / pixels * classes + c) * pixels + i % pixels];
                (0..classes).map(|c| at(c).exp()).sum::<f64>().ln() - at(target[i].into())
            })
            .collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    })
}

/// Compares value and gradient (by central differences of the formula) for 1, 2, 3 and 6 groups.
fn check(
    objective: &Objective,
    targets: &Targets,
    skipped: &[usize],
    formula: &dyn Fn(&[f64], usize) -> f64,
) {
    let [batch, h, w] = SIZE;
    let outputs = pixio_eval_heads::dense::outputs(objective);
    // At the targets' size, so that the resize is the identity.
    let logits: Vec<f64> =
        wave(batch * outputs * h * w, 0.37).iter().map(|v| v * 4.0 - 0.5).collect();
    let logits: Vec<f64> = f32s(&logits).into_iter().map(f64::from).collect();
    let given = Tensor::from_vec(f32s(&logits), (batch, outputs, h, w), &Device::Cpu).unwrap();
    for groups in [1, 2, 3, 6] {
        let made = loss(&given, targets, objective, groups).unwrap();
        assert_eq!(made.skipped, if groups == 6 { skipped } else { &[] });
        let value = made.value.clone().unwrap();
        let expected = formula(&logits, groups);
        let found = f64::from(value.to_scalar::<f32>().unwrap());
        assert!((found - expected).abs() < 1e-6 * expected, "{groups} groups: {found}, {expected}");
        let gradient = values(&made.gradient(1.0).unwrap().unwrap());
        for (i, found) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut logits = logits.clone();
                logits[i] += by;
                formula(&logits, groups)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let error = (f64::from(found) - expected).abs();
            assert!(error < 1e-7 + 1e-5 * expected.abs(), "element {i}: {found}, {expected}");
        }
    }
}

#[test]
fn silog_is_taken_over_each_group_and_averaged() {
    let count = SIZE.iter().product();
    // About a third lies outside 0.5 to 10; samples 0 and 4 have no valid pixel.
    let mut target: Vec<f64> = wave(count, 0.61).iter().map(|v| 5.0 + v * 7.0).collect();
    let sample = SIZE[1] * SIZE[2];
    target[..sample].fill(0.0);
    target[4 * sample..5 * sample].fill(f64::NAN);
    let depth = Tensor::from_vec(f32s(&target), &SIZE, &Device::Cpu).unwrap();
    let target: Vec<f64> = f32s(&target).into_iter().map(f64::from).collect();
    check(&DEPTH, &Targets::depth(depth), &[0, 4], &|logits, groups| {
        silog(logits, &target, groups)
    });
}

#[test]
fn cross_entropy_is_taken_over_each_group_and_averaged() {
    let count = SIZE.iter().product();
    let mut target: Vec<u8> = wave(count, 0.43).iter().map(|v| ((v + 1.0) * 1.9) as u8).collect();
    target.iter_mut().filter(|label| **label == 3).for_each(|label| *label = 255);
    let sample = SIZE[1] * SIZE[2];
    target[5 * sample..].fill(255);
    let tensor = Tensor::from_slice(&target, &SIZE, &Device::Cpu).unwrap();
    check(&CLASSES, &labels(&tensor), &[5], &|logits, groups| {
        cross_entropy(logits, &target, groups)
    });
}

#[test]
fn a_batch_without_a_valid_pixel_has_no_loss() {
    let logits =
        |outputs| Tensor::zeros((2, outputs, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    let depth = Tensor::zeros((2, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    let found = loss(&logits(1), &Targets::depth(depth), &DEPTH, 2).unwrap();
    assert!(found.value.is_none());
    assert_eq!(found.skipped, [0, 1]);
    let ignored = Tensor::full(255_u8, (2, 4, 4), &Device::Cpu).unwrap();
    let found = loss(&logits(3), &labels(&ignored), &CLASSES, 1).unwrap();
    assert!(found.value.is_none());
    assert_eq!(found.skipped, [0]);
}

/// Predictions far below the nearest depth have no gradient, and none that is not a number.
#[test]
fn extreme_logits_stay_finite() {
    let logits = vec![-1000_f32, -90.0, -60.0, -20.0, 90.0, 1000.0];
    let logits = Tensor::from_vec(logits, (1, 1, 2, 3), &Device::Cpu).unwrap();
    let target = Targets::depth(Tensor::full(2_f32, (1, 2, 3), &Device::Cpu).unwrap());
    let made = loss(&logits, &target, &DEPTH, 1).unwrap();
    let value = made.value.clone().unwrap();
    let d: Vec<f64> = [[4_f64; 4].as_slice(), &[0.2; 2]].concat().iter().map(|r| r.ln()).collect();
    let mean = |power: i32| d.iter().map(|d| d.powi(power)).sum::<f64>() / 6.0;
    let expected = (mean(2) - 0.5 * mean(1).powi(2)).sqrt();
    assert!((f64::from(value.to_scalar::<f32>().unwrap()) - expected).abs() < 1e-6);
    let gradients = values(&made.gradient(1.0).unwrap().unwrap());
    assert!(gradients.iter().all(|g| g.abs() < 1e-30), "{gradients:?}");
}

#[test]
fn what_does_not_fit_is_named() {
    let logits = |batch, outputs| {
        Tensor::zeros((batch, outputs, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap()
    };
    let depth =
        || Targets::depth(Tensor::ones((4, 8, 8), candle_core::DType::F32, &Device::Cpu).unwrap());
    let classes = |label: u8| {
        let values: Vec<u8> = (0..4 * 64).map(|i| if i == 130 { label } else { 2 }).collect();
        Targets::labels(values, [4, 8, 8])
    };
    let message = |logits: &Tensor, targets: &Targets, objective, groups| {
        loss(logits, targets, objective, groups).err().unwrap().to_string()
    };
    insta::assert_snapshot!(
        [
            message(&logits(4, 1), &depth(), &DEPTH, 3),
            message(&logits(4, 1), &depth(), &DEPTH, 0),
            message(&logits(4, 2), &depth(), &DEPTH, 1),
            message(&logits(3, 1), &depth(), &DEPTH, 1),
            message(&logits(4, 1), &classes(0), &DEPTH, 1),
            message(&logits(4, 3), &depth(), &CLASSES, 1),
            message(&logits(4, 3), &classes(3), &CLASSES, 1),
        ]
        .join("\n"),
        @r"
    a batch of 4 samples does not divide into 3 loss groups
    a batch of 4 samples does not divide into 0 loss groups
    expected logits of shape [4, 1, h, w], found [4, 2, 4, 4]
    expected logits of shape [4, 1, h, w], found [3, 1, 4, 4]
    the objective needs depth as targets, found labels
    the objective needs labels as targets, found depth
    sample 2 of the batch has label 3: expected 0 to 3 - 1, or 255 (ignored)
    "
    );
    assert!(loss(&logits(4, 3), &classes(255), &CLASSES, 2).is_ok());
    let short = Targets::labels(vec![0; 5], [4, 8, 8]);
    let error = loss(&logits(4, 3), &short, &CLASSES, 1).err().unwrap();
    assert!(matches!(error, HeadError::Shape { .. }), "{error}");
}
