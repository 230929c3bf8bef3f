//! Training steps of both heads on both tasks against PyTorch.

#![allow(clippy::unwrap_used)]

mod common;

use common::{RUNS, STEPS, Vectors, values};

fn numbers(json: &serde_json::Value) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(found: f64, expected: f64, relative: f64, what: &str) {
    assert!((found - expected).abs() <= relative * expected.abs(), "{what}: {found}, {expected}");
}

#[test]
fn the_first_prediction_is_pytorchs() {
    let vectors = Vectors::read();
    for run in RUNS {
        let batch = vectors.batch(0);
        let found = vectors.probe(run).predict(batch.taps(run), batch.size()).unwrap();
        // Stored before the multiplication by the largest depth.
        let scale = if run.starts_with("depth") { 0.1 } else { 1.0 };
        let found = values(&(found.narrow(0, 0, 1).unwrap() * scale).unwrap());
        let expected = values(&vectors.tensors[&format!("{run}.forward0")]);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{run}: {found}, {expected}");
        }
    }
}

/// Losses, rates, gradient norms, then weights and running statistics. Adam turns rounding noise into
/// steps of about the rate, so one weight in a thousand may be off by twice the sum of the rates.
#[test]
fn four_steps_are_pytorchs() {
    let vectors = Vectors::read();
    for run in RUNS {
        let record = &vectors.json["runs"][run];
        let [losses, rates, norms] = ["losses", "rates", "grad_norms"].map(|k| numbers(&record[k]));
        let mut probe = vectors.probe(run);
        for step in 0..STEPS {
            let batch = vectors.batch(step);
            let report = probe.train_step(batch.taps(run), &batch.targets(run)).unwrap();
            let at = format!("{run} step {step}");
            close(report.loss.unwrap(), losses[step], 1e-4, &at);
            close(report.grad_norm.unwrap(), norms[step], 1e-3, &at);
            assert_eq!(report.rate, rates[step], "{at}");
            assert_eq!(report.skipped_groups, [0_usize; 0]);
        }
        let found = probe.head().tensors().unwrap();
        let expected = vectors.weights(run, "final");
        assert!(found.keys().eq(expected.keys()), "{run}");
        let (mut off, mut total) = (0, 0);
        for (name, expected) in &expected {
            let (found, expected) = (values(&found[name]), values(expected));
            let scale = expected.iter().fold(0_f32, |max, v| max.max(v.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                let error = (found - expected).abs();
                total += 1;
                off += usize::from(error > 1e-4 * scale);
                let bound = if name.contains("running") {
                    1e-4 * scale
                } else {
                    (1e-4 * scale).max(2.0 * rates.iter().sum::<f64>() as f32)
                };
                assert!(error <= bound, "{run} {name}: {found}, {expected}");
            }
        }
        assert!(off * 1000 <= total, "{run}: {off} of {total} weights are off");
    }
}

#[test]
fn tensors_without_gradient_are_not_touched() {
    let vectors = Vectors::read();
    let run = "depth.dpt";
    let mut probe = vectors.probe(run);
    let batch = vectors.batch(0);
    probe.train_step(batch.taps(run), &batch.targets(run)).unwrap();
    let (before, state) = (vectors.weights(run, "init"), probe.state().unwrap());
    let mut untouched = 0;
    for (name, before) in &before {
        let unused = name.starts_with("scratch.refinenet4.resConfUnit1.");
        untouched += usize::from(unused);
        assert_eq!(values(&state[&format!("head.{name}")]) == values(before), unused, "{name}");
        assert_eq!(state.contains_key(&format!("optimiser.first.{name}")), !unused, "{name}");
    }
    assert_eq!(untouched, 4);
}
