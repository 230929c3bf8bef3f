//! Every operation against a plain f64 computation, in odd shapes.

#![allow(clippy::unwrap_used)]

mod reference;

use candle_core::{DType, Device, IndexOp, Result, Tensor, Var};
use pixio_eval_ops::{
    attention, attention_qkv, gelu, layer_norm, linear, linear_gelu, linear_residual,
};
use proptest::prelude::*;
use reference::{
    assert_close, assert_rounded, attention_f64, gelu_f64, layer_norm_f64, linear_f64, values,
};

fn tensor(data: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(data, shape, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    flat(t).into_iter().map(f32::to_bits).collect()
}

/// `data` rounded to `dtype` and widened again.
fn round(data: &[f32], dtype: DType) -> Vec<f32> {
    flat(&tensor(data, &[data.len()]).to_dtype(dtype).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn linear_matches_f64(
        rows in 0usize..70, inputs in 1usize..150, out in 1usize..230, with_bias: bool, seed: u64,
    ) {
        let (x, w) = (values(rows * inputs, seed), values(out * inputs, seed + 1));
        let (b, r) = (values(out, seed + 2), values(rows * out, seed + 3));
        let bias = with_bias.then(|| tensor(&b, &[out]));
        let expected = linear_f64(&x, &w, with_bias.then_some(&b), [rows, inputs, out]);
        let (xt, wt) = (tensor(&x, &[1, rows, inputs]), tensor(&w, &[out, inputs]));
        let tolerance = 1e-6 * (inputs as f64).sqrt().max(2.0);

        let y = linear(&xt, &wt, bias.as_ref()).unwrap();
        prop_assert_eq!(y.dims(), &[1, rows, out]);
        assert_close(&flat(&y), &expected, tolerance);

        let activated: Vec<f64> = expected.iter().map(|&v| gelu_f64(v)).collect();
        assert_close(&flat(&linear_gelu(&xt, &wt, bias.as_ref()).unwrap()), &activated, 1.2 * tolerance);

        let residual = tensor(&r, &[1, rows, out]);
        let summed: Vec<f64> = expected.iter().zip(&r).map(|(e, &r)| e + f64::from(r)).collect();
        let y = linear_residual(&xt, &wt, bias.as_ref(), &residual).unwrap();
        assert_close(&flat(&y), &summed, tolerance);
    }

    #[test]
    fn layer_norm_matches_f64(rows in 1usize..40, width in 1usize..200, offset in -50f32..50.0, seed: u64) {
        let x: Vec<f32> = values(rows * width, seed).iter().map(|v| v + offset).collect();
        let (w, b) = (values(width, seed + 1), values(width, seed + 2));
        let y = layer_norm(&tensor(&x, &[rows, width]), &tensor(&w, &[width]), &tensor(&b, &[width]), 1e-6);
        // The mean is rounded to f32: half a unit of the offset, over the standard deviation of about 0.6.
        let tolerance = if width < 8 { 1e-2 } else { 2e-6 + 4e-7 * f64::from(offset.abs()) };
        assert_close(&flat(&y.unwrap()), &layer_norm_f64(&x, &w, &b, 1e-6), tolerance);
    }

    #[test]
    fn attention_matches_f64(
        batch in 1usize..3, tokens in 1usize..80, heads in 1usize..4, depth in 1usize..70,
        scale in prop::option::of(-1f64..2.0), seed: u64,
    ) {
        let width = heads * depth;
        let qkv = values(batch * tokens * 3 * width, seed);
        let y = attention(&tensor(&qkv, &[batch, tokens, 3 * width]), heads, scale).unwrap();
        prop_assert_eq!(y.dims(), &[batch, tokens, width]);
        let expected = attention_f64(&qkv, [batch, tokens, heads, depth], scale);
        // An f32 score is off by its rounding, which the exponential passes on.
        let steep = scale.map_or(1.0, |s| s.abs() * depth as f64 / 16.0);
        assert_close(&flat(&y), &expected, 2e-6 * steep.max(1.0));
    }

    #[test]
    fn low_precision_rounds_inputs_and_result_once(
        rows in 1usize..20, inputs in 1usize..90, out in 1usize..110, half: bool, seed: u64,
    ) {
        let dtype = if half { DType::F16 } else { DType::BF16 };
        let (x, w) = (values(rows * inputs, seed), values(out * inputs, seed + 1));
        let (b, r) = (values(out, seed + 2), values(rows * out, seed + 3));
        let exact = linear_f64(
            &round(&x, dtype), &round(&w, dtype), Some(&round(&b, dtype)), [rows, inputs, out],
        );
        let (xt, bt) = (tensor(&x, &[rows, inputs]), tensor(&b, &[out]));
        let wt = tensor(&w, &[out, inputs]).to_dtype(dtype).unwrap();

        let y = linear(&xt, &wt, Some(&bt)).unwrap();
        prop_assert_eq!(y.dtype(), dtype);
        assert_rounded(&flat(&y), &exact, dtype);

        let activated = linear_gelu(&xt, &wt, Some(&bt)).unwrap();
        prop_assert_eq!(activated.dtype(), dtype);
        let expected: Vec<f64> = flat(&y).iter().map(|&v| gelu_f64(f64::from(v))).collect();
        assert_rounded(&flat(&activated), &expected, dtype);

        let summed = linear_residual(&xt, &wt, Some(&bt), &tensor(&r, &[rows, out])).unwrap();
        prop_assert_eq!(summed.dtype(), DType::F32);
        let expected: Vec<f32> = flat(&y).iter().zip(&r).map(|(y, r)| r + y).collect();
        prop_assert_eq!(flat(&summed), expected);
    }

    #[test]
    fn low_precision_attention_rounds_the_result_only(
        tokens in 1usize..40, heads in 1usize..3, depth in 1usize..40, half: bool, seed: u64,
    ) {
        let dtype = if half { DType::F16 } else { DType::BF16 };
        let qkv = round(&values(tokens * 3 * heads * depth, seed), dtype);
        let packed = tensor(&qkv, &[1, tokens, 3 * heads * depth]).to_dtype(dtype).unwrap();
        let y = attention(&packed, heads, None).unwrap();
        prop_assert_eq!(y.dtype(), dtype);
        assert_rounded(&flat(&y), &attention_f64(&qkv, [1, tokens, heads, depth], None), dtype);
    }
}

#[test]
fn gelu_is_exact_to_one_in_a_million() {
    let x: Vec<f32> =
        (-120_000..=120_000).map(|i| i as f32 * 1e-4).chain([100.0, -100.0, 3e38]).collect();
    let y = gelu(&tensor(&x, &[x.len()])).unwrap();
    for (&x, y) in x.iter().zip(flat(&y)) {
        let error = (f64::from(y) - gelu_f64(f64::from(x))).abs() / f64::from(x.abs().max(1.0));
        assert!(error <= 1e-6, "gelu({x}) = {y} is {error} off");
    }
    assert!(flat(&gelu(&tensor(&[f32::NAN], &[1])).unwrap())[0].is_nan());
}

#[test]
fn layer_norm_survives_an_outlying_channel() {
    let mut x = values(3 * 768, 5);
    for row in x.chunks_exact_mut(768) {
        row[17] = 900.0;
    }
    let (w, b) = (vec![1.0; 768], vec![0.0; 768]);
    let y =
        layer_norm(&tensor(&x, &[3, 768]), &tensor(&w, &[768]), &tensor(&b, &[768]), 1e-6).unwrap();
    assert_close(&flat(&y), &layer_norm_f64(&x, &w, &b, 1e-6), 1e-6);
}

/// More queries and keys than one tile holds, and scores whose maximum keeps growing from tile to tile.
#[test]
fn attention_over_several_tiles_matches_f64() {
    let (tokens, depth) = (1500, 24);
    let mut qkv = values(tokens * 3 * depth, 9);
    for (i, row) in qkv.chunks_exact_mut(3 * depth).enumerate() {
        row[0] = 3.0;
        row[depth] = i as f32 * 0.01;
    }
    let y = attention(&tensor(&qkv, &[1, tokens, 3 * depth]), 1, None).unwrap();
    assert_close(&flat(&y), &attention_f64(&qkv, [1, tokens, 1, depth], None), 4e-6);
}

#[test]
fn attention_takes_strided_parts_and_other_numbers_of_keys() -> Result<()> {
    let packed = tensor(&values(2 * 33 * 3 * 40, 3), &[2, 33, 120]);
    let part = |i: usize| packed.narrow(2, 40 * i, 40)?.reshape((2, 33, 5, 8))?.transpose(1, 2);
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    assert_eq!(bits(&attention_qkv(&q, &k, &v, None)?), bits(&attention(&packed, 5, None)?));
    let last_dim_strided = q.transpose(2, 3)?.contiguous()?.transpose(2, 3)?;
    assert_eq!(
        bits(&attention_qkv(&last_dim_strided, &k, &v, None)?),
        bits(&attention(&packed, 5, None)?)
    );
    // A query's result does not depend on the other queries.
    let few = attention_qkv(&q.narrow(2, 4, 3)?, &k, &v, None)?;
    assert_close(&flat(&few), &widen(&flat(&attention(&packed, 5, None)?.narrow(1, 4, 3)?)), 1e-6);
    Ok(())
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The path of ordinary operations, taken where gradients are tracked, computes the same.
#[test]
fn both_paths_agree() -> Result<()> {
    let (x, w) =
        (tensor(&values(2 * 7 * 60, 1), &[2, 7, 60]), tensor(&values(90 * 60, 2), &[90, 60]));
    let (b, r) = (tensor(&values(90, 3), &[90]), tensor(&values(2 * 7 * 90, 4), &[2, 7, 90]));
    let (s, t) = (tensor(&values(60, 5), &[60]), tensor(&values(60, 6), &[60]));
    let tracked = Var::from_tensor(&x)?;
    let check = |fused: Result<Tensor>, composed: Result<Tensor>| -> Result<()> {
        let (fused, composed) = (fused?, composed?);
        assert!(!fused.track_op() && composed.track_op());
        assert_eq!(fused.dims(), composed.dims());
        assert_eq!(fused.dtype(), composed.dtype());
        assert_close(&flat(&composed), &widen(&flat(&fused)), 3e-6);
        let gradients = composed.sum_all()?.backward()?;
        assert!(gradients.get(&tracked).is_some());
        Ok(())
    };
    check(linear(&x, &w, Some(&b)), linear(&tracked, &w, Some(&b)))?;
    check(linear(&x, &w, None), linear(&tracked, &w, None))?;
    check(linear_gelu(&x, &w, Some(&b)), linear_gelu(&tracked, &w, Some(&b)))?;
    check(linear_residual(&x, &w, Some(&b), &r), linear_residual(&tracked, &w, Some(&b), &r))?;
    check(gelu(&x), gelu(&tracked))?;
    check(layer_norm(&x, &s, &t, 1e-6), layer_norm(&tracked, &s, &t, 1e-6))?;
    check(attention(&x, 4, None), attention(&tracked, 4, None))?;
    check(attention(&x, 4, Some(0.3)), attention(&tracked, 4, Some(0.3)))
}

#[test]
fn threads_do_not_change_a_bit() -> Result<()> {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    // Rows that are split among many threads, and a last group of columns narrower than the others.
    for (rows, inputs, heads) in
        [(300, 192, 3), (777, 640, 5), (1000, 60, 2), (65, 768, 12), (1, 192, 3)]
    {
        let width = 3 * inputs;
        let (x, w) = (values(rows * inputs, 1), values(width * inputs, 2));
        let (x, w) = (tensor(&x, &[rows, inputs]), tensor(&w, &[width, inputs]));
        let (b, r) =
            (tensor(&values(width, 3), &[width]), tensor(&values(rows * width, 4), &[rows, width]));
        let (s, t) = (tensor(&values(inputs, 5), &[inputs]), tensor(&values(inputs, 6), &[inputs]));
        let all = || -> Result<Vec<Vec<u32>>> {
            let qkv = linear(&x, &w, Some(&b))?.reshape((1, rows, width))?;
            Ok(vec![
                bits(&qkv),
                bits(&linear_gelu(&x, &w, Some(&b))?),
                bits(&linear_residual(&x, &w, Some(&b), &r)?),
                bits(&layer_norm(&x, &s, &t, 1e-6)?),
                bits(&gelu(&x)?),
                bits(&attention(&qkv, heads, None)?),
            ])
        };
        let one = pool(1).install(all)?;
        for threads in [2, 3, 16] {
            assert_eq!(pool(threads).install(all)?, one, "{rows} x {inputs}, {threads} threads");
        }
    }
    Ok(())
}

/// A sample's result is the same alone as in a batch.
#[test]
fn batches_do_not_change_a_bit() -> Result<()> {
    let (x, w) = (
        tensor(&values(4 * 264 * 192, 1), &[4, 264, 192]),
        tensor(&values(576 * 192, 2), &[576, 192]),
    );
    let batched = attention(&linear(&x, &w, None)?, 6, None)?;
    for i in 0..4 {
        let alone = attention(&linear(&x.i(i..=i)?, &w, None)?, 6, None)?;
        assert_eq!(bits(&alone), bits(&batched.i(i)?), "sample {i}");
    }
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_refused() -> Result<()> {
    let x = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let (w, b) = (x(&[5, 4])?, x(&[5])?);
    let says = |result: Result<Tensor>, words: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    says(linear(&x(&[2, 3])?, &w, None), "expected an input [.., 4]");
    says(linear(&x(&[])?, &w, None), "found a scalar");
    says(linear(&x(&[2, 4])?, &b, None), "expected a weight [out, in]");
    says(linear_gelu(&x(&[2, 4])?, &w, Some(&x(&[4])?)), "expected a bias [5]");
    says(linear_residual(&x(&[2, 4])?, &w, Some(&b), &x(&[2, 4])?), "expected a residual [2, 5]");
    says(layer_norm(&x(&[2, 5])?, &b, &x(&[4])?, 1e-6), "expected weight and bias [5]");
    says(attention(&x(&[1, 2, 9])?, 2, None), "multiple of 3 x 2 heads");
    says(attention(&x(&[1, 2, 9])?, 0, None), "multiple of 3 x 0 heads");
    says(attention(&x(&[2, 9])?, 1, None), "expected qkv [B, N, 3 * D]");
    let q = x(&[1, 2, 3, 4])?;
    says(attention_qkv(&q, &x(&[1, 2, 3, 5])?, &q, None), "found [[1, 2, 3, 4], [1, 2, 3, 5]");
    says(attention_qkv(&q, &x(&[1, 2, 0, 4])?, &x(&[1, 2, 0, 4])?, None), "at least one key");
    Ok(())
}
