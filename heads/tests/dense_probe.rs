//! Probes: resumed equals uninterrupted, together equals alone, and what goes wrong changes nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use common::{Batch, RUNS, STEPS, Vectors, labels};
use pixio_eval_heads::dense::{HeadError, Probe, Targets, decode, encode};

/// Everything that training changes, as the bytes of a checkpoint.
fn bytes(probe: &Probe) -> Vec<u8> {
    encode(&probe.state().unwrap()).unwrap()
}

fn train(probe: &mut Probe, run: &str, batch: &Batch) {
    probe.train_step(batch.taps(run), &batch.targets(run)).unwrap();
}

fn trained_alone(vectors: &Vectors, run: &str) -> Vec<u8> {
    let mut probe = vectors.probe(run);
    (0..STEPS).for_each(|step| train(&mut probe, run, &vectors.batch(step)));
    bytes(&probe)
}

#[test]
fn resumed_equals_uninterrupted() {
    let vectors = Vectors::read();
    for run in RUNS {
        let mut probe = vectors.probe(run);
        for step in 0..2 {
            train(&mut probe, run, &vectors.batch(step));
        }
        let saved = bytes(&probe);
        let mut resumed = vectors.probe(run);
        resumed.load_state(decode(&saved).unwrap()).unwrap();
        assert_eq!(resumed.step(), 2);
        assert_eq!(bytes(&resumed), saved);
        for step in 2..STEPS {
            train(&mut resumed, run, &vectors.batch(step));
        }
        assert_eq!(bytes(&resumed), trained_alone(&vectors, run), "{run}");
        // The saved copy does not move with the probe.
        assert_ne!(bytes(&resumed), saved);
    }
}

#[test]
fn a_state_can_be_loaded_twice() {
    let vectors = Vectors::read();
    let run = "depth.linear";
    let mut probe = vectors.probe(run);
    train(&mut probe, run, &vectors.batch(0));
    let state = probe.state().unwrap();
    let after = || {
        let mut probe = vectors.probe(run);
        probe.load_state(state.clone()).unwrap();
        train(&mut probe, run, &vectors.batch(1));
        bytes(&probe)
    };
    assert_eq!(after(), after());
}

#[test]
fn together_equals_alone_with_any_number_of_threads() {
    let vectors = Vectors::read();
    let alone: Vec<Vec<u8>> = RUNS.iter().map(|run| trained_alone(&vectors, run)).collect();
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let together = pool.install(|| {
            let mut probes = RUNS.map(|run| vectors.probe(run));
            for step in 0..STEPS {
                let batch = vectors.batch(step);
                for (run, probe) in RUNS.iter().zip(&mut probes) {
                    train(probe, run, &batch);
                    probe.predict(batch.taps(run), batch.size()).unwrap();
                }
            }
            probes.map(|probe| bytes(&probe))
        });
        assert!(together.iter().eq(&alone), "{threads} threads");
    }
}

#[test]
fn a_loss_that_is_not_a_number_leaves_the_probe_as_it_was() {
    let vectors = Vectors::read();
    for run in RUNS {
        let mut probe = vectors.probe(run);
        train(&mut probe, run, &vectors.batch(0));
        let before = bytes(&probe);
        let mut batch = vectors.batch(1);
        for tap in &mut batch.taps {
            let mut values = common::values(tap);
            values[7] = f32::NAN;
            *tap = Tensor::from_vec(values, tap.dims(), &Device::Cpu).unwrap();
        }
        let error = probe.train_step(batch.taps(run), &batch.targets(run)).unwrap_err();
        assert_eq!(error.to_string(), "step 1: the loss is NaN", "{run}");
        assert_eq!(bytes(&probe), before, "{run}");
        train(&mut probe, run, &vectors.batch(1));
        (2..STEPS).for_each(|step| train(&mut probe, run, &vectors.batch(step)));
        assert_eq!(bytes(&probe), trained_alone(&vectors, run), "{run}");
    }
}

/// SiLog of a perfect prediction is 0, where the square root has no gradient.
#[test]
fn a_gradient_that_is_not_a_number_leaves_the_probe_as_it_was() {
    let vectors = Vectors::read();
    let run = "depth.linear";
    let zeros = |(name, t): (String, Tensor)| (name, t.zeros_like().unwrap());
    let weights = vectors.weights(run, "init").into_iter().map(zeros).collect();
    let mut probe = vectors.probe(run);
    let mut state = probe.state().unwrap();
    let weights: BTreeMap<String, Tensor> = weights;
    state.extend(weights.into_iter().map(|(name, t)| (format!("head.{name}"), t)));
    probe.load_state(state).unwrap();
    let before = bytes(&probe);
    let target = Targets::depth(Tensor::full(5_f32, (4, 18, 20), &Device::Cpu).unwrap());
    let error = probe.train_step(vectors.batch(0).taps(run), &target).unwrap_err();
    assert!(
        matches!(error, HeadError::NonFinite { step: 0, quantity: "gradient norm", .. }),
        "{error}"
    );
    assert_eq!(bytes(&probe), before);
}

#[test]
fn a_batch_without_a_valid_pixel_moves_the_step_alone() {
    let vectors = Vectors::read();
    for run in RUNS {
        let mut probe = vectors.probe(run);
        let mut expected = probe.state().unwrap();
        let mut batch = vectors.batch(0);
        batch.depth = batch.depth.zeros_like().unwrap();
        batch.labels = Tensor::full(255_u8, batch.labels.dims(), &Device::Cpu).unwrap();
        let report = probe.train_step(batch.taps(run), &batch.targets(run)).unwrap();
        assert_eq!((report.loss, report.grad_norm), (None, None));
        assert_eq!(report.skipped_groups, [0, 1]);
        expected.insert("step".to_owned(), Tensor::new(1_i64, &Device::Cpu).unwrap());
        assert_eq!(bytes(&probe), encode(&expected).unwrap(), "{run}");
    }
}

/// As under autocast: near the f32 result, not equal to it, and the parameters stay f32.
#[test]
fn half_precision_convolutions_train() {
    let vectors = Vectors::read();
    for run in RUNS {
        let batch = vectors.batch(0);
        let origin = std::path::Path::new(run);
        let (weights, expected) = (vectors.weights(run, "init"), vectors.expected(run));
        let head = pixio_eval_heads::dense::from_tensors(
            origin,
            weights,
            expected,
            DType::BF16,
            &Device::Cpu,
        );
        let mut half =
            Probe::new(head.unwrap(), vectors.objective(run), &vectors.training(run), 4).unwrap();
        let found = half.train_step(batch.taps(run), &batch.targets(run)).unwrap();
        let full = vectors.probe(run).train_step(batch.taps(run), &batch.targets(run)).unwrap();
        let ratio = |a: Option<f64>, b: Option<f64>| (a.unwrap() / b.unwrap() - 1.0).abs();
        let (loss, norm) = (ratio(found.loss, full.loss), ratio(found.grad_norm, full.grad_norm));
        assert!(loss > 0.0 && loss < 5e-3, "{run}: {loss}");
        assert!(norm > 0.0 && norm < 3e-2, "{run}: {norm}");
        assert!(half.state().unwrap().values().all(|t| t.dtype() != DType::BF16));
    }
}

#[test]
fn bad_states_are_refused_and_change_nothing() {
    let vectors = Vectors::read();
    let run = "depth.linear";
    let mut probe = vectors.probe(run);
    train(&mut probe, run, &vectors.batch(0));
    let before = bytes(&probe);
    let mut refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut state = probe.state().unwrap();
        change(&mut state);
        let error = probe.load_state(state).unwrap_err();
        assert!(matches!(error, HeadError::State(_)), "{error}");
        assert_eq!(bytes(&probe), before);
        error.to_string()
    };
    let number = |value: i64| Tensor::new(value, &Device::Cpu).unwrap();
    let messages = [
        refused(&|s| drop(s.remove("step"))),
        refused(&|s| drop(s.insert("step".into(), number(-1)))),
        refused(&|s| drop(s.remove("head.1.weight"))),
        refused(&|s| drop(s.insert("head.2.weight".into(), number(0)))),
        refused(&|s| drop(s.insert("head.1.bias".into(), number(0)))),
        refused(&|s| drop(s.remove("optimiser.second.1.bias"))),
        refused(&|s| drop(s.insert("optimiser.first.0.bias".into(), number(0)))),
        refused(&|s| drop(s.insert("optimiser.third.0.bias".into(), number(0)))),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    the saved state does not fit this probe: tensor step is missing
    the saved state does not fit this probe: counter step is -1: expected 0 or more
    the saved state does not fit this probe: tensor head.1.weight is missing
    the saved state does not fit this probe: unexpected tensors: head.2.weight
    the saved state does not fit this probe: tensor head.1.bias has shape [], expected [1]
    the saved state does not fit this probe: tensor optimiser.second.1.bias is missing
    the saved state does not fit this probe: tensor optimiser.first.0.bias has shape [], expected [24]
    the saved state does not fit this probe: unexpected tensors: optimiser.third.0.bias
    ");
}

#[test]
fn objectives_and_taps_that_do_not_fit_are_named() {
    let vectors = Vectors::read();
    let (linear, dpt) = ("depth.linear", "depth.dpt");
    let batch = vectors.batch(0);
    let classes = vectors.objective("segmentation.linear");
    let outputs = Probe::new(vectors.head(linear), classes, &vectors.training(linear), 4);
    let few = vectors.probe(dpt).predict(&batch.taps[1..], (8, 8)).unwrap_err();
    let narrow: Vec<Tensor> = batch.taps.iter().map(|tap| tap.narrow(1, 0, 12).unwrap()).collect();
    let narrow = vectors.probe(dpt).predict(&narrow, (8, 8)).unwrap_err();
    let kind = vectors.probe(linear).train_step(batch.taps(linear), &labels(&batch.labels));
    insta::assert_snapshot!(
        [outputs.err().unwrap(), few, narrow, kind.unwrap_err()].map(|e| e.to_string()).join("\n"),
        @r"
    the objective needs 5 outputs, the head has 1
    the head takes 4 taps, found 3
    expected features of shape [B, 24, h, w] alike in every tap, found [4, 12, 4, 4]
    the objective needs depth as targets, found labels
    "
    );
}

/// A batch that goes through a head in parts gives the gradient of the whole, also where a group has
/// no valid pixel, but for the order of sums.
#[test]
fn parts_equal_the_whole() {
    let vectors = Vectors::read();
    for run in RUNS {
        for empty in [None, Some(1)] {
            let step = |samples: usize| {
                let mut probe = vectors.probe(run).in_parts_of(samples);
                let batch = vectors.batch(0);
                let targets = emptied(batch.targets(run), empty, vectors.training(run).groups);
                let report = probe.train_step(batch.taps(run), &targets).unwrap();
                (report, probe.state().unwrap())
            };
            let (whole, state) = step(usize::MAX);
            assert_eq!(whole.skipped_groups, empty.into_iter().collect::<Vec<_>>());
            for samples in [0, 1, 2, 3] {
                let (parts, parted) = step(samples);
                let near = |a: Option<f64>, b: Option<f64>| {
                    let (a, b) = (a.unwrap(), b.unwrap());
                    (a - b).abs() <= 1e-5 * b.abs()
                };
                assert_eq!(parts.skipped_groups, whole.skipped_groups);
                assert!(near(parts.loss, whole.loss), "{run} {samples}: {parts:?} {whole:?}");
                assert!(near(parts.grad_norm, whole.grad_norm), "{run} {samples}");
                for (name, moment) in &state {
                    if !name.starts_with("optimiser.first") {
                        continue;
                    }
                    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    let (a, b) = (values(&parted[name]), values(moment));
                    let scale = b.iter().fold(0f32, |most, x| most.max(x.abs()));
                    let off = a.iter().zip(&b).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
                    assert!(off <= 2e-5 * scale, "{run} {samples} {name}: {off} of {scale}");
                }
                if run.ends_with("linear") {
                    assert_eq!(encode(&parted).unwrap(), encode(&state).unwrap(), "{run}");
                }
            }
        }
    }
}

/// Targets with one group that has nothing valid.
fn emptied(targets: Targets, empty: Option<usize>, groups: usize) -> Targets {
    let Some(empty) = empty else { return targets };
    let [batch, h, w] = targets.shape().unwrap();
    let of_group = |i: usize| i / (batch / groups * h * w) == empty;
    match targets {
        Targets::Depth { metres, .. } => {
            let values = metres.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let values = values.into_iter().enumerate();
            let values: Vec<f32> = values.map(|(i, x)| if of_group(i) { 0.0 } else { x }).collect();
            Targets::depth(Tensor::from_vec(values, (batch, h, w), &Device::Cpu).unwrap())
        }
        Targets::Labels { labels, shape, .. } => {
            let labels = labels.iter().enumerate();
            let labels = labels.map(|(i, &label)| if of_group(i) { 255 } else { label });
            Targets::labels(labels.collect::<Vec<_>>(), shape)
        }
    }
}

/// Steps that nobody looks at are the same steps, and what they came to is the same when it is read.
#[test]
fn deferred_steps_are_the_same_steps() {
    let vectors = Vectors::read();
    for run in RUNS {
        for samples in [usize::MAX, 1] {
            let probe = || vectors.probe(run).in_parts_of(samples);
            let (mut looked, mut deferred) = (probe(), probe());
            let (mut reports, mut waiting) = (Vec::new(), Vec::new());
            for batch in 0..2 {
                let batch = vectors.batch(batch);
                let targets = batch.targets(run);
                reports.push(looked.train_step(batch.taps(run), &targets).unwrap());
                waiting.push(deferred.train_step_deferred(batch.taps(run), &targets).unwrap());
            }
            assert_eq!(bytes(&deferred), bytes(&looked), "{run}");
            for (waiting, report) in waiting.into_iter().zip(reports) {
                let values = waiting.values().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(waiting.report(&values).unwrap(), report, "{run}");
            }
            assert!(deferred.is_whole());
        }
    }
}

/// What is not finite is found late, at the step where it was.
#[test]
fn a_deferred_step_that_is_not_finite_is_named() {
    let vectors = Vectors::read();
    let run = "depth.linear";
    let mut probe = vectors.probe(run);
    let batch = vectors.batch(0);
    let shape = batch.depth.dims().to_vec();
    let broken = |tap: &Tensor| (tap * f64::NAN).unwrap();
    let taps: Vec<Tensor> = batch.taps(run).iter().map(broken).collect();
    let targets = batch.targets(run);
    let mut steps = vec![probe.train_step_deferred(batch.taps(run), &targets).unwrap()];
    steps.push(probe.train_step_deferred(&taps, &targets).unwrap());
    // A batch without a valid pixel has nothing to read.
    let nothing = Targets::depth(Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    steps.push(probe.train_step_deferred(batch.taps(run), &nothing).unwrap());
    let found: Vec<_> = steps
        .into_iter()
        .map(|step| {
            let values = step.values().map(|values| values.to_vec1::<f32>().unwrap());
            step.report(&values.unwrap_or_default())
        })
        .collect();
    assert!(found[0].is_ok() && found[2].as_ref().unwrap().loss.is_none());
    let error = found[1].as_ref().unwrap_err();
    assert!(matches!(error, HeadError::NonFinite { step: 1, quantity: "loss", .. }), "{error}");
}
