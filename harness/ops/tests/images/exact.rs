//! To the bit; and what is refused.

use candle_core::{DType, Device, Result, Tensor, Var};
use pixio_eval_ops::{Format, Images, Tape, conv2d, relu, relu_conv2d, resize_bilinear};

use super::{Op, assert_close, bits, by_graph, check_differences, flat, gradients, random, result};

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
        let fused = |tape: &mut Tape, x: &Images, t: &[Var]| {
            tape.relu_conv2d(x, &t[0], t.get(1), stride, padding)
        };
        let plain = |tape: &mut Tape, x: &Images, t: &[Var]| {
            tape.conv2d(x, &t[0], t.get(1), stride, padding)
        };
        let mut rectified = inputs.clone();
        rectified[0] = relu(&inputs[0])?;
        let (y, expected) = (result(&fused, &inputs)?, result(&plain, &rectified)?);
        assert!(bits(&y) == bits(&expected), "{channels} channels");
        let alone = relu_conv2d(&inputs[0], &inputs[1], inputs.get(2), stride, padding)?;
        assert!(bits(&y) == bits(&alone), "{channels} channels");
        let gradient = random(y.dims(), 4);
        let (found, mut expected) =
            (gradients(&fused, &inputs, &gradient)?, gradients(&plain, &rectified, &gradient)?);
        expected[0] = by_graph(&relu, &inputs[0], Some(&expected[0]))?[1].clone();
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
            let conv = |tape: &mut Tape, x: &Images, t: &[Var]| {
                tape.conv2d(x, &t[0], t.get(1), stride, kernel / 2)
            };
            let transposed =
                |tape: &mut Tape, x: &Images, t: &[Var]| tape.conv_transpose2d(x, &t[0], None, 2);
            let resize = |tape: &mut Tape, x: &Images, _: &[Var]| {
                tape.resize_bilinear(x, 2 * side, side + 3)
            };
            let norm = |tape: &mut Tape, x: &Images, t: &[Var]| {
                Ok(tape.batch_norm_train(x, &t[0], &t[1], 1e-5)?.0)
            };
            let normed = [inputs[0].clone(), statistics[0].clone(), statistics[1].clone()];
            let calls: [(Op, &[Tensor]); 4] = [
                (&conv, &inputs),
                (&transposed, &[inputs[0].clone(), up.clone()]),
                (&resize, &inputs[..1]),
                (&norm, &normed),
            ];
            found.extend(by_graph(&relu, &inputs[0], None)?.iter().map(bits));
            for (op, inputs) in calls {
                let y = result(op, inputs)?;
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
        let op = |tape: &mut Tape, x: &Images, t: &[Var]| tape.conv2d(x, &t[0], t.get(1), 1, 1);
        let gradient = random(expected.dims(), 4);
        let found = gradients(&op, &[x.clone(), weight.clone(), bias.clone()], &gradient)?;
        let exact = gradients(&op, &[wide(&x)?, wide(&weight)?, wide(&bias)?], &gradient)?;
        for (found, exact) in found.iter().zip(&exact) {
            assert_eq!(found.dtype(), dtype);
            assert_close(found, exact, 8e-3, "gradient");
        }
        let up = rounded(&[5, 3, 2, 2], 5)?;
        for y in [
            resize_bilinear(&x, 9, 4)?,
            result(&|tape, x, _| tape.resize_bilinear(x, 9, 4), std::slice::from_ref(&x))?,
            relu(&x)?,
            result(&|tape, x, t| tape.conv_transpose2d(x, &t[0], None, 2), &[x.clone(), up])?,
        ] {
            assert_eq!(y.dtype(), dtype);
        }
    }
    Ok(())
}

#[test]
fn strided_inputs_and_gradients_are_read_in_order() -> Result<()> {
    let (x, weight) = (random(&[2, 7, 6, 3], 1), random(&[3, 4, 3, 3], 2));
    let (x, weight) = (x.transpose(1, 3)?, weight.transpose(0, 1)?);
    let plain = [x.contiguous()?, weight.contiguous()?];
    let y = conv2d(&x, &weight, None, 1, 1)?;
    assert_eq!(flat(&y), flat(&conv2d(&plain[0], &plain[1], None, 1, 1)?));
    let op = |tape: &mut Tape, x: &Images, t: &[Var]| tape.conv2d(x, &t[0], None, 1, 1);
    let gradient = random(&[2, 4, 7, 6], 3).transpose(2, 3)?;
    let found = gradients(&op, &plain, &gradient)?;
    let expected = gradients(&op, &plain, &gradient.contiguous()?)?;
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(flat(found), flat(expected));
    }
    Ok(())
}

/// Images that several operations read get the sum of their gradients, and what nothing asks for gets none.
#[test]
fn gradients_add_up_where_paths_meet() -> Result<()> {
    let op = |tape: &mut Tape, x: &Images, t: &[Var]| {
        let y = tape.relu_conv2d(x, &t[0], None, 1, 1)?;
        let y = tape.conv2d(&y, &t[0], Some(&t[1]), 1, 1)?;
        let sum = tape.add(x, &y)?;
        tape.add(&sum, x)
    };
    let inputs = [random(&[2, 3, 5, 4], 1), random(&[3, 3, 3, 3], 2), random(&[3], 3)];
    check_differences(&op, &inputs, 1e-3, 1e-2)?;

    let (used, unused) = (Var::from_tensor(&inputs[1])?, Var::from_tensor(&inputs[1])?);
    let mut tape = Tape::recording(Format::Planes, DType::F32);
    let x = tape.enter(&inputs[0])?;
    let y = tape.conv2d(&x, &used, None, 1, 1)?;
    tape.conv2d(&x, &unused, None, 1, 1)?;
    let found = tape.gradients(&y, &inputs[0])?;
    assert!(found.of(&used).is_some() && found.of(&unused).is_none());
    let message = |found: Result<_>| found.err().unwrap().to_string();
    // The step of another tape is none of this one's.
    let mut other = Tape::recording(Format::Planes, DType::F32);
    assert!(other.add(&y, &x).unwrap_err().to_string().contains("images of this tape"));
    assert!(other.conv2d(&y, &used, None, 1, 1).is_err());
    assert!(message(other.gradients(&y, &inputs[0])).contains("images of this tape"));
    let mut tape = Tape::new(Format::Planes, DType::F32);
    let y = tape.conv2d(&x, &used, None, 1, 1)?;
    assert!(message(tape.gradients(&y, &inputs[0])).contains("a tape that records"));
    let mut tape = Tape::recording(Format::Planes, DType::F32);
    let y = tape.conv2d(&x, &used, None, 1, 1)?;
    assert!(message(tape.gradients(&y, &inputs[1])).contains("expected the shape of the result"));
    Ok(())
}

#[test]
fn a_nan_is_not_hidden() -> Result<()> {
    let x = Tensor::new(&[[[[f32::NAN, -1.0], [0.0, 2.0]]]], &Device::Cpu)?;
    let y = flat(&relu(&x)?);
    assert!(y[0].is_nan() && y[1..] == [0.0, 0.0, 2.0]);
    let weight = Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu)?;
    assert!(flat(&conv2d(&x, &weight, None, 1, 0)?)[0].is_nan());
    let (one, zero) = (Tensor::ones(1, DType::F32, &Device::Cpu)?, weight.flatten_all()?);
    let norm = |tape: &mut Tape, x: &Images, t: &[Var]| {
        Ok(tape.batch_norm_train(x, &t[0], &t[1], 1e-5)?.0)
    };
    assert!(flat(&result(&norm, &[x, one, zero])?).iter().all(|v| v.is_nan()));
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
    let transposed = |weight: Tensor| {
        message(result(
            &|tape, x, t| tape.conv_transpose2d(x, &t[0], None, 2),
            &[x.clone(), weight],
        ))
    };
    let found = transposed(weight([3, 2, 3, 3]));
    assert!(found.contains("kernel as large as the stride 2"), "{found}");
    let found = transposed(weight([2, 3, 2, 2]));
    assert!(found.contains("expected x [B, 2, H, W]"), "{found}");
    let found = message(resize_bilinear(&x, 0, 4));
    assert!(found.contains("sides of at least 1"), "{found}");
    let norm = |x: &Tensor, bias: Tensor| {
        let op = |tape: &mut Tape, x: &Images, t: &[Var]| {
            Ok(tape.batch_norm_train(x, &t[0], &t[1], 1e-5)?.0)
        };
        message(result(&op, &[x.clone(), random(&[3], 4), bias]))
    };
    let found = norm(&random(&[1, 3, 1, 1], 5), random(&[3], 4));
    assert!(found.contains("more than one value per channel"), "{found}");
    let found = norm(&x, random(&[4], 4));
    assert!(found.contains("parameters [3]") && found.contains("found [4]"), "{found}");
}
