//! The operations on images and their gradients, against PyTorch, finite differences and plain f64 loops.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use pixio_eval_ops::{
    batch_norm_eval, batch_norm_train, conv_transpose2d, conv2d, relu, relu_conv2d, resize_bilinear,
};
use proptest::prelude::*;

/// `shape` filled with values in [-1, 1) by a multiplicative generator.
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

/// An operation on tensors, the first of them the image.
type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// The gradients of `sum(op(inputs) gradient)`.
fn gradients(op: Op, inputs: &[Tensor], gradient: &Tensor) -> Result<Vec<Tensor>> {
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let store = (op(&tracked)? * gradient)?.sum_all()?.backward()?;
    Ok(vars.iter().map(|v| store.get(v.as_tensor()).unwrap().clone()).collect())
}

/// Central differences along a random direction of each input, of a step that `tolerance` suits.
fn check_differences(op: Op, inputs: &[Tensor], step: f64, tolerance: f64) -> Result<()> {
    let gradient = random(op(inputs)?.dims(), 77);
    let found = gradients(op, inputs, &gradient)?;
    for (i, found) in found.iter().enumerate() {
        let direction = random(inputs[i].dims(), 78 + i as u64);
        let at = |step: f64| -> Result<f64> {
            let mut moved = inputs.to_vec();
            moved[i] = (&moved[i] + (&direction * step)?)?;
            Ok(dot(&op(&moved)?, &gradient))
        };
        let expected = (at(step)? - at(-step)?) / (2.0 * step);
        let scale = dot(found, found).sqrt().max(1.0);
        let error = (dot(found, &direction) - expected).abs() / scale;
        assert!(error <= tolerance, "input {i}: {expected} along the direction, {error:.1e} off");
    }
    Ok(())
}

/// Cross-correlation in plain f64 loops.
fn conv2d_f64(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Tensor {
    let (batch, channels, height, width) = x.dims4().unwrap();
    let (out, _, kh, kw) = weight.dims4().unwrap();
    let (oh, ow) =
        ((height + 2 * padding - kh) / stride + 1, (width + 2 * padding - kw) / stride + 1);
    let (x, weight) = (flat(x), flat(weight));
    let mut y = Vec::new();
    for (b, o) in (0..batch).flat_map(|b| (0..out).map(move |o| (b, o))) {
        for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
            let mut sum = 0.0;
            for c in 0..channels {
                for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                    let (row, column) = (i * stride + ky, j * stride + kx);
                    if (padding..height + padding).contains(&row)
                        && (padding..width + padding).contains(&column)
                    {
                        let at = ((b * channels + c) * height + row - padding) * width + column;
                        let w = weight[((o * channels + c) * kh + ky) * kw + kx];
                        sum += f64::from(x[at - padding]) * f64::from(w);
                    }
                }
            }
            y.push(sum as f32);
        }
    }
    Tensor::from_vec(y, (batch, out, oh, ow), &Device::Cpu).unwrap()
}

/// The operation of a key of the vectors; `statistics` are a mean and a variance.
fn by_name(
    name: &str,
    n: &[usize],
    statistics: Option<(&Tensor, &Tensor)>,
    t: &[Tensor],
) -> Result<Tensor> {
    match name {
        "conv2d" => conv2d(&t[0], &t[1], t.get(2), n[7], n[8]),
        "conv_transpose2d" => conv_transpose2d(&t[0], &t[1], t.get(2), n[5]),
        "resize_bilinear" => resize_bilinear(&t[0], n[4], n[5]),
        "batch_norm_train" => Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-5)?.0),
        "batch_norm_eval" => {
            let (mean, variance) = statistics.unwrap();
            batch_norm_eval(&t[0], &t[1], &t[2], mean, variance, 1e-5)
        }
        "relu" => relu(&t[0]),
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
    for case in cases {
        let get = |tensor: &str| vectors.get(&format!("{case}.{tensor}"));
        let (name, integers) = case.split_once('.').unwrap();
        let integers: Vec<usize> = integers.split('_').map(|n| n.parse().unwrap()).collect();
        let statistics = get("mean").zip(get("variance"));
        let op = |t: &[Tensor]| by_name(name, &integers, statistics, t);
        let names: Vec<&str> =
            ["x", "weight", "bias"].into_iter().filter(|n| get(n).is_some()).collect();
        let inputs: Vec<Tensor> = names.iter().map(|n| get(n).unwrap().clone()).collect();
        // Two values to a channel lie at +-1, where the gradient of x nearly cancels.
        let tolerance = if case.ends_with("2_2_1_1") { 5e-5 } else { 2e-6 };
        assert_close(&op(&inputs)?, get("y").unwrap(), tolerance, case);
        let found = gradients(&op, &inputs, get("grad_y").unwrap())?;
        for (name, found) in names.iter().zip(&found) {
            let expected = get(&format!("grad_{name}")).unwrap();
            assert_close(found, expected, tolerance, &format!("{case}, gradient of {name}"));
        }
        if name == "batch_norm_train" {
            let (_, mean, variance) = batch_norm_train(&inputs[0], &inputs[1], &inputs[2], 1e-5)?;
            let (expected_mean, expected_variance) = statistics.unwrap();
            assert_close(&mean, expected_mean, 1e-6, case);
            assert_close(&variance, expected_variance, 1e-6, case);
        }
    }
    Ok(())
}

/// Deeper, with more channels and with more pixels than are packed, summed or computed at once.
#[test]
fn large_convolutions_match_f64() -> Result<()> {
    for (batch, channels, out, height, width, kernel, stride, padding) in [
        (2, 131, 101, 19, 17, 3, 1, 1),
        (1, 64, 66, 5, 150, 3, 1, 2),
        (2, 66, 64, 18, 19, 3, 1, 0),
        (1, 70, 7, 37, 29, 3, 2, 1),
        (3, 600, 50, 5, 3, 1, 1, 0),
        (1, 2, 3, 9, 700, 3, 1, 1),
    ] {
        let x = random(&[batch, channels, height, width], 1);
        let weight = random(&[out, channels, kernel, kernel], 2);
        let expected = conv2d_f64(&x, &weight, stride, padding);
        let what = format!("{:?} by {:?}", x.dims(), weight.dims());
        assert_close(&conv2d(&x, &weight, None, stride, padding)?, &expected, 1e-6, &what);
        let op = |t: &[Tensor]| conv2d(&t[0], &t[1], None, stride, padding);
        check_differences(&op, &[x, weight], 0.5, 1e-4)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn convolution_matches_f64_and_differences(
        batch in 0usize..4, channels in 1usize..20, out in 1usize..70, height in 1usize..14,
        width in 1usize..80, kernel in (1usize..5, 1usize..5), stride in 1usize..4,
        padding in 0usize..4, with_bias: bool, seed: u64,
    ) {
        prop_assume!(kernel.0 <= height + 2 * padding && kernel.1 <= width + 2 * padding);
        let x = random(&[batch, channels, height, width], seed);
        let weight = random(&[out, channels, kernel.0, kernel.1], seed ^ 1);
        let bias = random(&[out], seed ^ 2);
        let y = conv2d(&x, &weight, with_bias.then_some(&bias), stride, padding).unwrap();
        let mut expected = conv2d_f64(&x, &weight, stride, padding);
        if with_bias {
            expected = expected.broadcast_add(&bias.reshape((1, out, 1, 1)).unwrap()).unwrap();
        }
        assert_close(&y, &expected, 2e-6, "result");
        let mut inputs = vec![x, weight];
        inputs.extend(with_bias.then_some(bias));
        let op = |t: &[Tensor]| conv2d(&t[0], &t[1], t.get(2), stride, padding);
        // Linear in each input: a large step has no error but rounding.
        check_differences(&op, &inputs, 0.5, 1e-4).unwrap();
    }

    #[test]
    fn transposed_convolution_is_the_adjoint_of_the_strided(
        batch in 1usize..4, channels in 1usize..9, out in 1usize..9, height in 1usize..9,
        width in 1usize..20, stride in 1usize..5, seed: u64,
    ) {
        let x = random(&[batch, channels, height, width], seed);
        let weight = random(&[channels, out, stride, stride], seed ^ 1);
        let other = random(&[batch, out, height * stride, width * stride], seed ^ 2);
        let y = conv_transpose2d(&x, &weight, None, stride).unwrap();
        let back = conv2d(&other, &weight, None, stride, 0).unwrap();
        let scale = dot(&x, &x).sqrt() * dot(&back, &back).sqrt() + 1.0;
        prop_assert!((dot(&y, &other) - dot(&x, &back)).abs() / scale < 1e-6);
        let op = |t: &[Tensor]| conv_transpose2d(&t[0], &t[1], t.get(2), stride);
        check_differences(&op, &[x, weight, random(&[out], seed)], 0.5, 1e-4).unwrap();
    }

    #[test]
    fn resized_constants_stay_constant_and_ramps_straight(
        from in (1usize..40, 1usize..40), to in (1usize..70, 1usize..70), value in -9f32..9.0,
    ) {
        let x = Tensor::full(value, (2, 3, from.0, from.1), &Device::Cpu).unwrap();
        let y = resize_bilinear(&x, to.0, to.1).unwrap();
        prop_assert_eq!(y.dims(), &[2, 3, to.0, to.1]);
        prop_assert!(flat(&y).iter().all(|&v| v == value));
        let ramp = Tensor::arange(0f32, from.1 as f32, &Device::Cpu).unwrap();
        let ramp = ramp.reshape((1, 1, 1, from.1)).unwrap();
        let y = flat(&resize_bilinear(&ramp, 1, to.1).unwrap());
        let scale = if to.1 > 1 { (from.1 - 1) as f32 / (to.1 - 1) as f32 } else { 0.0 };
        for (i, v) in y.iter().enumerate() {
            prop_assert!((v - i as f32 * scale).abs() < 1e-4);
        }
        let x = random(&[2, 3, from.0, from.1], 5);
        check_differences(&|t| resize_bilinear(&t[0], to.0, to.1), &[x], 0.5, 1e-4).unwrap();
    }

    #[test]
    fn batch_norm_matches_differences(
        batch in 1usize..4, channels in 1usize..6, height in 2usize..9, width in 2usize..20, seed: u64,
    ) {
        let x = random(&[batch, channels, height, width], seed);
        let parameter = |i| random(&[channels], seed ^ i);
        let inputs = [x, parameter(1), parameter(2)];
        check_differences(&|t| Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-2)?.0), &inputs, 1e-2, 2e-3)
            .unwrap();
        let (mean, variance) = (parameter(3), (parameter(4).sqr().unwrap() + 0.1).unwrap());
        let eval = |t: &[Tensor]| batch_norm_eval(&t[0], &t[1], &t[2], &mean, &variance, 1e-5);
        check_differences(&eval, &inputs, 0.5, 1e-4).unwrap();
        // The fused path of untracked inputs.
        let y = eval(&inputs).unwrap();
        let tracked = Var::from_tensor(&inputs[0]).unwrap();
        let composed = eval(&[tracked.as_tensor().clone(), parameter(1), parameter(2)]).unwrap();
        assert_close(&y, &composed, 1e-6, "evaluation");
    }

    #[test]
    fn a_batch_is_its_images(
        batch in 2usize..5, channels in 1usize..40, out in 1usize..120, side in 1usize..20,
        stride in 1usize..3, seed: u64,
    ) {
        let x = random(&[batch, channels, side, side], seed);
        let weight = random(&[out, channels, 3, 3], seed ^ 1);
        let whole = conv2d(&x, &weight, None, stride, 1).unwrap();
        let gradient = random(whole.dims(), seed ^ 2);
        let op = |t: &[Tensor]| conv2d(&t[0], &t[1], None, stride, 1);
        let whole_gradients = gradients(&op, &[x.clone(), weight.clone()], &gradient).unwrap();
        let mut of_weight = whole_gradients[1].zeros_like().unwrap();
        for image in 0..batch {
            let part = |t: &Tensor| t.narrow(0, image, 1).unwrap().contiguous().unwrap();
            let y = op(&[part(&x), weight.clone()]).unwrap();
            assert_close(&y, &part(&whole), 1e-6, "result");
            let alone = gradients(&op, &[part(&x), weight.clone()], &part(&gradient)).unwrap();
            assert_close(&alone[0], &part(&whole_gradients[0]), 1e-6, "gradient of x");
            of_weight = (of_weight + &alone[1]).unwrap();
        }
        assert_close(&of_weight, &whole_gradients[1], 2e-6, "gradient of the weight");
    }
}

/// Fused with the convolution ReLU changes nothing: kernels and sizes of every path, and a NaN.
#[test]
fn rectified_convolutions_are_relu_and_convolution() -> Result<()> {
    for (channels, out, side, kernel, stride, padding) in
        [(66, 70, 17, 3, 1, 1), (5, 7, 9, 3, 2, 1), (70, 3, 8, 1, 1, 0), (6, 64, 5, 3, 1, 1)]
    {
        let inputs = [
            random(&[2, channels, side, side], 1),
            random(&[out, channels, kernel, kernel], 2),
            random(&[out], 3),
        ];
        let fused = |t: &[Tensor]| relu_conv2d(&t[0], &t[1], t.get(2), stride, padding);
        let apart = |t: &[Tensor]| conv2d(&relu(&t[0])?, &t[1], t.get(2), stride, padding);
        let (y, expected) = (fused(&inputs)?, apart(&inputs)?);
        assert!(bits(&y) == bits(&expected), "{channels} channels");
        let gradient = random(y.dims(), 4);
        let (found, expected) =
            (gradients(&fused, &inputs, &gradient)?, gradients(&apart, &inputs, &gradient)?);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(bits(found) == bits(expected), "{channels} channels");
        }
    }
    let nan = Tensor::full(f32::NAN, (1, 1, 1, 1), &Device::Cpu)?;
    assert!(flat(&relu_conv2d(&nan, &nan.ones_like()?, None, 1, 0)?)[0].is_nan());
    Ok(())
}

#[test]
fn threads_do_not_change_a_bit() -> Result<()> {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for (batch, channels, out, side, kernel, stride) in
        [(3, 70, 130, 17, 3, 1), (1, 256, 256, 8, 3, 2), (2, 96, 300, 33, 1, 1), (5, 3, 5, 4, 3, 1)]
    {
        let inputs = [
            random(&[batch, channels, side, side], 1),
            random(&[out, channels, kernel, kernel], 2),
            random(&[out], 3),
        ];
        let statistics = [random(&[channels], 4), random(&[channels], 5)];
        let up = random(&[channels, out, 2, 2], 6);
        let all = || -> Result<Vec<Vec<u32>>> {
            let mut found = Vec::new();
            let conv = |t: &[Tensor]| conv2d(&t[0], &t[1], t.get(2), stride, kernel / 2);
            let transposed = |t: &[Tensor]| conv_transpose2d(&t[0], &up, t.get(2), 2);
            let resize = |t: &[Tensor]| resize_bilinear(&t[0], 2 * side, side + 3);
            let norm = |t: &[Tensor]| Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-5)?.0);
            let normed = [inputs[0].clone(), statistics[0].clone(), statistics[1].clone()];
            let calls: [(Op, &[Tensor]); 5] = [
                (&conv, &inputs),
                (&transposed, &inputs[..1]),
                (&resize, &inputs[..1]),
                (&norm, &normed),
                (&|t| relu(&t[0]), &inputs[..1]),
            ];
            for (op, inputs) in calls {
                let y = op(inputs)?;
                found.push(bits(&y));
                let gradient = random(y.dims(), 9);
                found.extend(gradients(op, inputs, &gradient)?.iter().map(bits));
            }
            Ok(found)
        };
        let one = pool(1).install(all)?;
        for threads in [2, 3] {
            assert!(one == pool(threads).install(all)?, "{threads} threads, {channels} channels");
        }
    }
    Ok(())
}

#[test]
fn half_precision_rounds_the_inputs_and_the_result_once() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        let rounded = |shape: &[usize], seed| random(shape, seed).to_dtype(dtype);
        let (x, weight, bias) =
            (rounded(&[2, 5, 6, 7], 1)?, rounded(&[4, 5, 3, 3], 2)?, rounded(&[4], 3)?);
        let wide = |t: &Tensor| t.to_dtype(DType::F32);
        let expected = conv2d(&wide(&x)?, &wide(&weight)?, Some(&wide(&bias)?), 1, 1)?;
        // An f32 input is rounded to the weight's dtype.
        let noise = (wide(&x)? * (1.0 + 1e-6))?;
        for x in [&x, &noise] {
            let y = conv2d(x, &weight, Some(&wide(&bias)?), 1, 1)?;
            assert_eq!(y.dtype(), dtype);
            assert_eq!(flat(&y), flat(&expected.to_dtype(dtype)?));
        }
        let op = |t: &[Tensor]| conv2d(&t[0], &t[1], t.get(2), 1, 1)?.to_dtype(DType::F32);
        let gradient = random(expected.dims(), 4);
        let found = gradients(&op, &[x.clone(), weight.clone(), bias.clone()], &gradient)?;
        let exact = gradients(&op, &[wide(&x)?, wide(&weight)?, wide(&bias)?], &gradient)?;
        for (found, exact) in found.iter().zip(&exact) {
            assert_eq!(found.dtype(), dtype);
            assert_close(found, exact, 8e-3, "gradient");
        }
        for y in [
            resize_bilinear(&x, 9, 4)?,
            relu(&x)?,
            conv_transpose2d(&x, &rounded(&[5, 3, 2, 2], 5)?, None, 2)?,
        ] {
            assert_eq!(y.dtype(), dtype);
        }
    }
    Ok(())
}

#[test]
fn strided_inputs_and_gradients_are_read_in_order() -> Result<()> {
    let x = random(&[2, 7, 6, 3], 1);
    let op = |t: &[Tensor]| {
        let y = conv2d(&t[0].transpose(1, 3)?, &t[1].transpose(0, 1)?, None, 1, 1)?;
        // Its gradient arrives transposed.
        relu(&y)?.transpose(2, 3)?.contiguous()
    };
    let weight = random(&[3, 4, 3, 3], 2);
    let y = op(&[x.clone(), weight.clone()])?;
    let plain = conv2d(
        &x.transpose(1, 3)?.contiguous()?,
        &weight.transpose(0, 1)?.contiguous()?,
        None,
        1,
        1,
    )?;
    assert_eq!(flat(&y), flat(&plain.relu()?.transpose(2, 3)?));
    check_differences(&op, &[x, weight], 1e-3, 1e-2)
}

#[test]
fn a_nan_is_not_hidden() -> Result<()> {
    let x = Tensor::new(&[[[[f32::NAN, -1.0], [0.0, 2.0]]]], &Device::Cpu)?;
    let y = flat(&relu(&x)?);
    assert!(y[0].is_nan() && y[1..] == [0.0, 0.0, 2.0]);
    let weight = Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu)?;
    assert!(flat(&conv2d(&x, &weight, None, 1, 0)?)[0].is_nan());
    let (one, zero) = (Tensor::ones(1, DType::F32, &Device::Cpu)?, weight.flatten_all()?);
    assert!(flat(&batch_norm_train(&x, &one, &zero, 1e-5)?.0).iter().all(|v| v.is_nan()));
    Ok(())
}

#[test]
fn unfit_shapes_are_refused() {
    let x = random(&[2, 3, 4, 5], 1);
    let message = |r: Result<Tensor>| r.unwrap_err().to_string();
    let weight = |shape: [usize; 4]| random(&shape, 2);
    let found = message(conv2d(&x, &weight([6, 4, 3, 3]), None, 1, 1));
    assert!(found.contains("expected x [B, 4, H, W]") && found.contains("[2, 3, 4, 5]"), "{found}");
    let found = message(conv2d(&x, &weight([6, 3, 7, 7]), None, 1, 1));
    assert!(found.contains("kernel of 1 to 6 pixels"), "{found}");
    let found = message(conv2d(&x, &weight([6, 3, 3, 3]), None, 0, 1));
    assert!(found.contains("stride of at least 1"), "{found}");
    let found = message(conv2d(&x, &weight([6, 3, 3, 3]), Some(&random(&[5], 3)), 1, 1));
    assert!(found.contains("bias [6], found [5]"), "{found}");
    let found = message(conv2d(&random(&[3, 4, 5], 1), &weight([6, 3, 3, 3]), None, 1, 1));
    assert!(found.contains("expected x [B, C, H, W]"), "{found}");
    let found = message(conv_transpose2d(&x, &weight([3, 2, 3, 3]), None, 2));
    assert!(found.contains("kernel as large as the stride 2"), "{found}");
    let found = message(conv_transpose2d(&x, &weight([2, 3, 2, 2]), None, 2));
    assert!(found.contains("expected x [B, 2, H, W]"), "{found}");
    let found = message(resize_bilinear(&x, 0, 4));
    assert!(found.contains("sides of at least 1"), "{found}");
    let vector = random(&[3], 4);
    let single = random(&[1, 3, 1, 1], 5);
    let found = batch_norm_train(&single, &vector, &vector, 1e-5).unwrap_err().to_string();
    assert!(found.contains("more than one value per channel"), "{found}");
    let found = batch_norm_train(&x, &vector, &random(&[4], 4), 1e-5).unwrap_err().to_string();
    assert!(found.contains("parameters [3]") && found.contains("found [4]"), "{found}");
}
