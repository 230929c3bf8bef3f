//! The operations on images and their gradients, against PyTorch, finite differences and plain f64 loops.

#![allow(clippy::unwrap_used)]

mod exact;
mod properties;
#[path = "../tensors/mod.rs"]
mod tensors;
mod vectors;

use candle_core::{Result, Tensor, Var};
use pixio_eval_ops::{Format, Images, Tape};
use tensors::{flat, random};

fn bits(t: &Tensor) -> Vec<u32> {
    flat(t).into_iter().map(f32::to_bits).collect()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    flat(a).iter().zip(flat(b)).map(|(&a, b)| f64::from(a) * f64::from(b)).sum()
}

/// Asserts that no element is further off than `tolerance` times the largest one (at least 1).
#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (flat(found), flat(expected));
    let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        let error = (f - e).abs() / scale;
        assert!(error <= tolerance, "{what}, element {i}: expected {e}, found {f}");
    }
}

/// An operation on images and parameters.
type Op<'a> = &'a dyn Fn(&mut Tape, &Images, &[Var]) -> Result<Images>;

/// An operation with candle's graph.
type Graph<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

fn vars(inputs: &[Tensor]) -> Result<Vec<Var>> {
    inputs.iter().map(Var::from_tensor).collect()
}

/// The result of an operation on an image and parameters.
fn result(op: Op, inputs: &[Tensor]) -> Result<Tensor> {
    let mut tape = Tape::new(Format::Planes, inputs[0].dtype());
    let x = tape.enter(&inputs[0])?;
    let made = op(&mut tape, &x, &vars(&inputs[1..])?)?;
    tape.leave(&made)
}

/// The gradients of `sum(op(inputs) gradient)`.
fn gradients(op: Op, inputs: &[Tensor], gradient: &Tensor) -> Result<Vec<Tensor>> {
    let vars = vars(inputs)?;
    let mut tape = Tape::recording(Format::Planes, inputs[0].dtype());
    let x = tape.enter_parameter(&vars[0])?;
    let made = op(&mut tape, &x, &vars[1..])?;
    let found = tape.gradients(&made, gradient)?;
    Ok(vars.iter().map(|var| found.of(var).unwrap().clone()).collect())
}

/// The result of an operation with candle's graph, and the gradient of `sum(op(x) gradient)`.
fn by_graph(op: Graph, x: &Tensor, gradient: Option<&Tensor>) -> Result<[Tensor; 2]> {
    let var = Var::from_tensor(x)?;
    let y = op(&var)?;
    let gradient = gradient.cloned().unwrap_or_else(|| random(y.dims(), 9));
    let store = (&y * gradient)?.sum_all()?.backward()?;
    Ok([y.detach(), store.get(&var).unwrap().clone()])
}

/// Central differences along a random direction of each input, of a step that `tolerance` suits.
fn check_differences(op: Op, inputs: &[Tensor], step: f64, tolerance: f64) -> Result<()> {
    let gradient = random(result(op, inputs)?.dims(), 77);
    let found = gradients(op, inputs, &gradient)?;
    for (i, found) in found.iter().enumerate() {
        let direction = random(inputs[i].dims(), 78 + i as u64);
        let at = |step: f64| -> Result<f64> {
            let mut moved = inputs.to_vec();
            moved[i] = (&moved[i] + (&direction * step)?)?;
            Ok(dot(&result(op, &moved)?, &gradient))
        };
        let expected = (at(step)? - at(-step)?) / (2.0 * step);
        let scale = dot(found, found).sqrt().max(1.0);
        let error = (dot(found, &direction) - expected).abs() / scale;
        assert!(error <= tolerance, "input {i}: {expected} along the direction, {error:.1e} off");
    }
    Ok(())
}
