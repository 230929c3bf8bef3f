//! The operations on images whose channels lie side by side are those on planes, on the CPU and on a GPU where the
//! build and the machine have one.

#![allow(clippy::unwrap_used)]

mod tensors;

use candle_core::{DType, Device, Result, Tensor, Var};
use pixio_eval_ops::{Format, Images, Tape, join_rows};
use tensors::{flat, random};

/// Where images may have their channels side by side.
fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Cpu];
    if cfg!(feature = "cuda") {
        // Where the driver's library is missing, loading it may panic.
        let gpu = std::panic::catch_unwind(|| Device::new_cuda_with_stream(0).ok()).ok().flatten();
        if gpu.is_none() {
            eprintln!("skipped on a GPU: none is there");
        }
        devices.extend(gpu);
    }
    devices
}

/// An operation on images and parameters.
type Op<'a> = &'a dyn Fn(&mut Tape, &Images, &[Var]) -> Result<Images>;

fn vars(inputs: &[Tensor], device: &Device) -> Vec<Var> {
    inputs.iter().map(|t| Var::from_tensor(&t.to_device(device).unwrap()).unwrap()).collect()
}

/// The result of an operation on an image and parameters, and the gradients of all of them.
fn all(format: Format, device: &Device, op: Op, inputs: &[Tensor]) -> Vec<Tensor> {
    let vars = vars(inputs, device);
    let mut tape = Tape::recording(format, inputs[0].dtype());
    let x = tape.enter_parameter(&vars[0]).unwrap();
    let made = op(&mut tape, &x, &vars[1..]).unwrap();
    let y = tape.leave(&made).unwrap();
    let weights = random(y.dims(), 99).to_device(device).unwrap();
    let gradients = tape.gradients(&made, &weights).unwrap();
    let mut found = vec![y];
    found.extend(vars.iter().map(|var| gradients.of(var).unwrap().clone()));
    found
}

#[track_caller]
fn assert_same(what: &str, op: Op, inputs: &[Tensor], tolerance: f32) {
    let planes = all(Format::Planes, &Device::Cpu, op, inputs);
    for device in devices() {
        let pixels = all(Format::Pixels, &device, op, inputs);
        for (i, (expected, found)) in planes.iter().zip(&pixels).enumerate() {
            let kind = |t: &Tensor| (t.dims().to_vec(), t.dtype());
            assert_eq!(kind(expected), kind(found), "{what} {i}");
            let (expected, found) = (flat(expected), flat(found));
            let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (e, f) in expected.iter().zip(&found) {
                let off = (e - f).abs() / scale;
                assert!(off <= tolerance, "{what}, tensor {i}: {e}, {f} on {device:?}");
            }
        }
        // Sums have a fixed order.
        let again = all(Format::Pixels, &device, op, inputs);
        for (once, again) in pixels.iter().zip(&again) {
            assert!(
                flat(once).iter().map(|v| v.to_bits()).eq(flat(again).iter().map(|v| v.to_bits()))
            );
        }
    }
}

#[test]
fn convolutions_do_not_depend_on_the_format() {
    for (channels, out, kernel, stride, padding) in [
        (5, 4, 1, 1, 0),
        (5, 4, 3, 1, 1),
        (5, 4, 3, 2, 1),
        (5, 4, 2, 2, 0),
        (5, 4, 3, 3, 2),
        (16, 24, 3, 1, 1),
        (24, 16, 3, 2, 1),
        (16, 1, 1, 1, 0),
    ] {
        for bias in [true, false] {
            for dtype in [DType::F32, DType::BF16] {
                let mut inputs = vec![
                    random(&[2, channels, 9, 6], 1),
                    random(&[out, channels, kernel, kernel], 2),
                ];
                inputs.extend(bias.then(|| random(&[out], 3)));
                let inputs: Vec<Tensor> =
                    inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
                let tolerance = if dtype == DType::F32 { 3e-6 } else { 1e-2 };
                let what = format!("{channels} {out} {kernel} {stride} {padding} {dtype:?}");
                assert_same(
                    &what,
                    &|tape, x, t| tape.conv2d(x, &t[0], t.get(1), stride, padding),
                    &inputs,
                    tolerance,
                );
                assert_same(
                    &what,
                    &|tape, x, t| tape.relu_conv2d(x, &t[0], t.get(1), stride, padding),
                    &inputs,
                    tolerance,
                );
            }
        }
    }
    for stride in [1, 2, 4] {
        let inputs =
            [random(&[2, 3, 4, 5], 1), random(&[3, 6, stride, stride], 2), random(&[6], 3)];
        assert_same(
            &format!("transposed {stride}"),
            &|tape, x, t| tape.conv_transpose2d(x, &t[0], t.get(1), stride),
            &inputs,
            2e-6,
        );
    }
}

#[test]
fn resizes_do_not_depend_on_the_format() {
    for (height, width) in [(6, 10), (4, 5), (1, 7), (9, 1), (3, 2), (31, 17)] {
        let x = random(&[2, 3, 4, 5], 1);
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::BF16, 1e-2)] {
            assert_same(
                &format!("{height} x {width} {dtype:?}"),
                &|tape, x, _| tape.resize_bilinear(x, height, width),
                &[x.to_dtype(dtype).unwrap()],
                tolerance,
            );
        }
    }
}

#[test]
fn normalisation_does_not_depend_on_the_format() {
    let inputs = [random(&[2, 3, 4, 5], 1), random(&[3], 2), random(&[3], 3)];
    let inputs = [(&inputs[0] + 2.0).unwrap(), inputs[1].clone(), inputs[2].clone()];
    assert_same(
        "training",
        &|tape, x, t| Ok(tape.batch_norm_train(x, &t[0], &t[1], 1e-5)?.0),
        &inputs,
        5e-6,
    );
    let all = |format: Format, device: &Device| {
        let mut tape = Tape::new(format, DType::F32);
        let parameters = vars(&inputs[1..], device);
        let x = tape.enter(&inputs[0].to_device(device).unwrap()).unwrap();
        let (_, mean, variance) =
            tape.batch_norm_train(&x, &parameters[0], &parameters[1], 1e-5).unwrap();
        let (weight, bias) = (parameters[0].as_tensor(), parameters[1].as_tensor());
        let y = tape.batch_norm_eval(&x, [weight, bias, &mean, &variance], 1e-5).unwrap();
        [mean, variance, tape.leave(&y).unwrap()].map(|t| flat(&t))
    };
    let expected = all(Format::Planes, &Device::Cpu);
    for device in devices() {
        for (a, b) in expected.iter().zip(&all(Format::Pixels, &device)) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 5e-6), "{device:?}");
        }
    }
}

#[test]
fn formats_are_views_of_one_another() {
    let x = random(&[2, 3, 4, 5], 1);
    let pixels = Format::Pixels.enter(&x).unwrap();
    assert_eq!(pixels.dims(), [2, 4, 5, 3]);
    assert_eq!(
        (Format::Pixels.size(&pixels).unwrap(), Format::Planes.size(&x).unwrap()),
        ((4, 5), (4, 5))
    );
    let back = Format::Pixels.leave(&pixels).unwrap();
    assert_eq!(flat(&back), flat(&x));
    assert!(!back.is_contiguous() && Format::Pixels.enter(&back).unwrap().is_contiguous());
    assert_eq!(Format::of(&Device::Cpu), Format::Planes);
}

#[test]
fn rows_are_joined_to_tokens_that_fit() {
    let (x, row) = (random(&[2, 3, 4], 1), random(&[2, 5], 2));
    let joined = join_rows(&x.to_dtype(DType::BF16).unwrap(), &row).unwrap();
    assert_eq!((joined.dims(), joined.dtype()), (&[2, 3, 9][..], DType::F32));
    let token = joined.get(1).unwrap().get(2).unwrap();
    assert_eq!(flat(&token.narrow(0, 4, 5).unwrap()), flat(&row.get(1).unwrap()));
    let found = join_rows(&x, &random(&[3, 5], 2)).unwrap_err().to_string();
    assert!(found.contains("expected x [B, N, D] and a row [B, E]"), "{found}");
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let mut tape = Tape::new(Format::Pixels, DType::F32);
    let x = tape.enter(&random(&[1, 3, 4, 5], 1)).unwrap();
    let var = |shape: &[usize]| Var::from_tensor(&random(shape, 2)).unwrap();
    let (weight, bias) = (var(&[2, 4, 3, 3]), var(&[3]));
    let norm = [bias.as_tensor(), &bias, &bias, &weight];
    for (found, expected) in [
        (tape.conv2d(&x, &weight, None, 1, 1), "expected x [B, 4, H, W]"),
        (tape.conv2d(&x, &var(&[2, 3, 3, 3]), Some(&bias), 1, 1), "a bias [2]"),
        (tape.conv_transpose2d(&x, &var(&[3, 2, 3, 3]), None, 2), "the stride 2"),
        (tape.resize_bilinear(&x, 0, 2), "sides of at least 1"),
        (tape.batch_norm_eval(&x, norm, 1e-5), "parameters [3]"),
    ] {
        let found = found.unwrap_err().to_string();
        assert!(found.contains(expected), "{found}");
    }
}
