//! Against PyTorch.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use pixio_eval_ops::{Format, Images, Tape, relu, resize_bilinear};

use super::{Graph, assert_close, by_graph, gradients, result, vars};

/// The operation of a key of the vectors, of those on a tape.
fn by_name(name: &str, n: &[usize], tape: &mut Tape, x: &Images, t: &[Var]) -> Result<Images> {
    match name {
        "conv2d" => tape.conv2d(x, &t[0], t.get(1), n[7], n[8]),
        "conv_transpose2d" => tape.conv_transpose2d(x, &t[0], t.get(1), n[5]),
        "resize_bilinear" => tape.resize_bilinear(x, n[4], n[5]),
        "batch_norm_train" => Ok(tape.batch_norm_train(x, &t[0], &t[1], 1e-5)?.0),
        other => candle_core::bail!("no operation {other}"),
    }
}

#[test]
fn results_and_gradients_are_those_of_pytorch() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/conv_vectors.safetensors");
    let vectors: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu)?;
    let mut cases: Vec<&str> = vectors.keys().filter_map(|k| k.strip_suffix(".y")).collect();
    cases.sort_unstable();
    assert_eq!(cases.len(), 25);
    let (mut on_tape, mut graphs) = (0, 0);
    for case in cases {
        let get = |tensor: &str| vectors.get(&format!("{case}.{tensor}"));
        let (name, integers) = case.split_once('.').unwrap();
        let n: Vec<usize> = integers.split('_').map(|n| n.parse().unwrap()).collect();
        let statistics = get("mean").zip(get("variance"));
        let names: Vec<&str> =
            ["x", "weight", "bias"].into_iter().filter(|n| get(n).is_some()).collect();
        let inputs: Vec<Tensor> = names.iter().map(|n| get(n).unwrap().clone()).collect();
        let (expected, gradient) = (get("y").unwrap(), get("grad_y").unwrap());
        // Two values to a channel lie at +-1, where the gradient of x nearly cancels.
        let tolerance = if case.ends_with("2_2_1_1") { 5e-5 } else { 2e-6 };
        let graph: Option<Graph> = match name {
            "relu" => Some(&relu),
            "resize_bilinear" => Some(&|x| resize_bilinear(x, n[4], n[5])),
            _ => None,
        };
        if let Some(op) = graph {
            graphs += 1;
            let [y, of_x] = by_graph(op, &inputs[0], Some(gradient))?;
            assert_close(&y, expected, tolerance, case);
            assert_close(&of_x, get("grad_x").unwrap(), tolerance, case);
        }
        if name == "batch_norm_eval" {
            on_tape += 1;
            let (mean, variance) = statistics.unwrap();
            let tape = Tape::new(Format::Planes, DType::F32);
            let parameters = [&inputs[1], &inputs[2], mean, variance];
            let y = tape.batch_norm_eval(&tape.enter(&inputs[0])?, parameters, 1e-5)?;
            assert_close(&tape.leave(&y)?, expected, tolerance, case);
        } else if name != "relu" {
            on_tape += 1;
            let op = |tape: &mut Tape, x: &Images, t: &[Var]| by_name(name, &n, tape, x, t);
            assert_close(&result(&op, &inputs)?, expected, tolerance, case);
            let found = gradients(&op, &inputs, gradient)?;
            for (name, found) in names.iter().zip(&found) {
                let expected = get(&format!("grad_{name}")).unwrap();
                assert_close(found, expected, tolerance, &format!("{case}, gradient of {name}"));
            }
        }
        if name == "batch_norm_train" {
            let mut tape = Tape::new(Format::Planes, DType::F32);
            let (x, t) = (tape.enter(&inputs[0])?, vars(&inputs[1..])?);
            let (_, mean, variance) = tape.batch_norm_train(&x, &t[0], &t[1], 1e-5)?;
            let (expected_mean, expected_variance) = statistics.unwrap();
            assert_close(&mean, expected_mean, 1e-6, case);
            assert_close(&variance, expected_variance, 1e-6, case);
        }
    }
    assert!(on_tape >= 20 && graphs >= 4, "{on_tape} {graphs}");
    Ok(())
}
