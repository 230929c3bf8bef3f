//! Against plain f64 loops and finite differences, and what holds for any sizes.

use candle_core::{DType, Device, Result, Tensor, Var};
use pixio_eval_ops::{Format, Images, Tape, conv2d, resize_bilinear};
use proptest::prelude::*;

use super::{
    assert_close, bits, by_graph, check_differences, dot, flat, gradients, random, result,
};

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
        let op =
            |tape: &mut Tape, x: &Images, t: &[Var]| tape.conv2d(x, &t[0], None, stride, padding);
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
        let op = |tape: &mut Tape, x: &Images, t: &[Var]| {
            tape.conv2d(x, &t[0], t.get(1), stride, padding)
        };
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
        let op = |tape: &mut Tape, x: &Images, t: &[Var]| {
            tape.conv_transpose2d(x, &t[0], t.get(1), stride)
        };
        let y = result(&op, &[x.clone(), weight.clone()]).unwrap();
        let back = conv2d(&other, &weight, None, stride, 0).unwrap();
        let scale = dot(&x, &x).sqrt() * dot(&back, &back).sqrt() + 1.0;
        prop_assert!((dot(&y, &other) - dot(&x, &back)).abs() / scale < 1e-6);
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
        let op = |tape: &mut Tape, x: &Images, _: &[Var]| tape.resize_bilinear(x, to.0, to.1);
        check_differences(&op, std::slice::from_ref(&x), 0.5, 1e-4).unwrap();
        // With candle's graph it is the same to the bit.
        let gradient = random(&[2, 3, to.0, to.1], 6);
        let [y, of_x] =
            by_graph(&|x| resize_bilinear(x, to.0, to.1), &x, Some(&gradient)).unwrap();
        let inputs = [x];
        prop_assert!(bits(&y) == bits(&result(&op, &inputs).unwrap()));
        prop_assert!(bits(&of_x) == bits(&gradients(&op, &inputs, &gradient).unwrap()[0]));
    }

    #[test]
    fn batch_norm_matches_differences(
        batch in 1usize..4, channels in 1usize..6, height in 2usize..9, width in 2usize..20, seed: u64,
    ) {
        let x = random(&[batch, channels, height, width], seed);
        let parameter = |i| random(&[channels], seed ^ i);
        let inputs = [x, parameter(1), parameter(2)];
        let op = |tape: &mut Tape, x: &Images, t: &[Var]| {
            Ok(tape.batch_norm_train(x, &t[0], &t[1], 1e-2)?.0)
        };
        check_differences(&op, &inputs, 1e-2, 2e-3).unwrap();
        let (mean, variance) = (parameter(3), (parameter(4).sqr().unwrap() + 0.1).unwrap());
        let tape = Tape::new(Format::Planes, DType::F32);
        let statistics = [&inputs[1], &inputs[2], &mean, &variance];
        let y = tape.batch_norm_eval(&tape.enter(&inputs[0]).unwrap(), statistics, 1e-5).unwrap();
        let wide = statistics.map(|t| t.reshape((1, channels, 1, 1)).unwrap());
        let normal = inputs[0].broadcast_sub(&wide[2]).unwrap();
        let normal = normal.broadcast_div(&(&wide[3] + 1e-5).unwrap().sqrt().unwrap()).unwrap();
        let expected = normal.broadcast_mul(&wide[0]).unwrap().broadcast_add(&wide[1]).unwrap();
        assert_close(&tape.leave(&y).unwrap(), &expected, 2e-6, "evaluation");
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
        let op = |tape: &mut Tape, x: &Images, t: &[Var]| tape.conv2d(x, &t[0], None, stride, 1);
        let whole_gradients = gradients(&op, &[x.clone(), weight.clone()], &gradient).unwrap();
        let mut of_weight = whole_gradients[1].zeros_like().unwrap();
        for image in 0..batch {
            let part = |t: &Tensor| t.narrow(0, image, 1).unwrap().contiguous().unwrap();
            let y = result(&op, &[part(&x), weight.clone()]).unwrap();
            assert_close(&y, &part(&whole), 1e-6, "result");
            let alone = gradients(&op, &[part(&x), weight.clone()], &part(&gradient)).unwrap();
            assert_close(&alone[0], &part(&whole_gradients[0]), 1e-6, "gradient of x");
            of_weight = (of_weight + &alone[1]).unwrap();
        }
        assert_close(&of_weight, &whole_gradients[1], 2e-6, "gradient of the weight");
    }
}
