//! The operations on images whose channels lie side by side are those on planes, on the CPU and on a GPU where the
//! build and the machine have one.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Result, Tensor, Var};
use pixio_eval_ops::{Format, join_rows};

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..shape.iter().product()).map(next).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

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

/// The result of an operation on an image and parameters, and the gradients of all of them.
fn all(
    format: Format,
    device: &Device,
    op: &dyn Fn(Format, &[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
) -> Vec<Tensor> {
    let vars: Vec<Var> =
        inputs.iter().map(|t| Var::from_tensor(&t.to_device(device).unwrap()).unwrap()).collect();
    let mut tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    tracked[0] = format.enter(&tracked[0]).unwrap();
    let y = format.leave(&op(format, &tracked).unwrap()).unwrap();
    let weights = random(y.dims(), 99).to_dtype(y.dtype()).unwrap().to_device(device).unwrap();
    let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let mut found = vec![y];
    found.extend(vars.iter().map(|v| gradients.get(v.as_tensor()).unwrap().clone()));
    found
}

#[track_caller]
fn assert_same(
    what: &str,
    op: &dyn Fn(Format, &[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    tolerance: f32,
) {
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
                    &|format, t| format.conv2d(&t[0], &t[1], t.get(2), stride, padding),
                    &inputs,
                    tolerance,
                );
                assert_same(
                    &what,
                    &|format, t| format.relu_conv2d(&t[0], &t[1], t.get(2), stride, padding),
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
            &|format, t| format.conv_transpose2d(&t[0], &t[1], t.get(2), stride),
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
                &|format, t| format.resize_bilinear(&t[0], height, width),
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
    let train = |format: Format, t: &[Tensor]| format.batch_norm_train(&t[0], &t[1], &t[2], 1e-5);
    assert_same("training", &|format, t| Ok(train(format, t)?.0), &inputs, 5e-6);
    let planes = train(Format::Planes, &inputs).unwrap();
    let x = Format::Pixels.enter(&inputs[0]).unwrap();
    let pixels = train(Format::Pixels, &[x.clone(), inputs[1].clone(), inputs[2].clone()]).unwrap();
    for (a, b) in [(&planes.1, &pixels.1), (&planes.2, &pixels.2)] {
        assert!(flat(a).iter().zip(flat(b)).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    let (mean, variance) = (&planes.1, &planes.2);
    let eval = |format: Format, t: &[Tensor]| {
        let [mean, variance] = [mean, variance].map(|of| of.to_device(t[0].device()).unwrap());
        format.batch_norm_eval(&t[0], &t[1], &t[2], &mean, &variance, 1e-5)
    };
    assert_same("evaluation", &eval, &inputs, 5e-6);
    // Without a graph.
    let composed = eval(Format::Planes, &inputs).unwrap();
    let fused = eval(Format::Pixels, &[x, inputs[1].clone(), inputs[2].clone()]).unwrap();
    let fused = Format::Pixels.leave(&fused).unwrap();
    assert!(flat(&composed).iter().zip(flat(&fused)).all(|(a, b)| (a - b).abs() < 5e-6));
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
    let x = Format::Pixels.enter(&random(&[1, 3, 4, 5], 1)).unwrap();
    let (weight, bias) = (random(&[2, 4, 3, 3], 2), random(&[3], 3));
    for (found, expected) in [
        (Format::Pixels.conv2d(&x, &weight, None, 1, 1), "expected x [B, 4, H, W]"),
        (Format::Pixels.conv2d(&x, &random(&[2, 3, 3, 3], 2), Some(&bias), 1, 1), "a bias [2]"),
        (Format::Pixels.conv_transpose2d(&x, &random(&[3, 2, 3, 3], 2), None, 2), "the stride 2"),
        (Format::Pixels.resize_bilinear(&x, 0, 2), "sides of at least 1"),
        (Format::Pixels.batch_norm_eval(&x, &bias, &bias, &bias, &weight, 1e-5), "parameters [3]"),
    ] {
        let found = found.unwrap_err().to_string();
        assert!(found.contains(expected), "{found}");
    }
}
