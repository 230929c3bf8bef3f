//! Operations that do in one what others do in turn, against those.

#![allow(clippy::unwrap_used)]

mod reference;

use candle_core::{DType, Device, Result, Tensor};
use pixio_eval_ops::{
    Activation, activate, attention, attention_qkv, gelu, layer_norm, layer_norm_as,
    linear_residual, linear_residual_norm, rotate_heads,
};
use reference::{assert_close, values};

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn norms_in_another_dtype_are_rounded_ones() -> Result<()> {
    let (x, w, b) = (tensor(1, &[5, 37]), tensor(2, &[37]), tensor(3, &[37]));
    let exact = layer_norm(&x, &w, &b, 1e-6)?;
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let y = layer_norm_as(&x, &w, &b, 1e-6, dtype)?;
        assert_eq!(y.dtype(), dtype);
        assert_eq!(flat(&y), flat(&exact.to_dtype(dtype)?));
    }
    Ok(())
}

#[test]
fn stream_and_norm_are_those_of_the_two_operations() -> Result<()> {
    let (x, r) = (tensor(1, &[2, 3, 20]), tensor(2, &[2, 3, 31]));
    let (bias, scale, shift) = (tensor(4, &[31]), tensor(5, &[31]), tensor(6, &[31]));
    for dtype in [DType::F32, DType::BF16] {
        let w = tensor(3, &[31, 20]).to_dtype(dtype)?;
        let (stream, normalised) =
            linear_residual_norm(&x, &w, Some(&bias), &r, [&scale, &shift], 1e-5)?;
        let alone = linear_residual(&x, &w, Some(&bias), &r)?;
        assert_eq!(flat(&stream), flat(&alone));
        assert_eq!(normalised.dtype(), dtype);
        assert_eq!(flat(&normalised), flat(&layer_norm_as(&alone, &scale, &shift, 1e-5, dtype)?));
    }
    let short = tensor(5, &[30]);
    let w = tensor(3, &[31, 20]);
    assert!(linear_residual_norm(&x, &w, None, &r, [&short, &shift], 1e-5).is_err());
    Ok(())
}

#[test]
fn activations_are_their_formulas() -> Result<()> {
    let x = (tensor(1, &[3, 4, 10]) * 6.0)?;
    assert_eq!(flat(&activate(&x, Activation::Gelu)?), flat(&gelu(&x)?));
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    let each = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
        flat(&x).into_iter().map(|v| f(f64::from(v))).collect()
    };
    let found = activate(&x, Activation::QuickGelu)?;
    assert_close(&flat(&found), &each(&|v| v * sigmoid(1.702 * v)), 1e-6);
    let found = activate(&x, Activation::GeluTanh)?;
    let tanh = |v: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3));
        v / 2.0 * (1.0 + inner.tanh())
    };
    assert_close(&flat(&found), &each(&tanh), 1e-6);
    let found = activate(&x, Activation::SwiGlu)?;
    assert_eq!(found.dims(), [3, 4, 5]);
    let expected: Vec<f64> = flat(&x)
        .chunks(10)
        .flat_map(|row| {
            let gated = |i: usize| {
                let (a, b) = (f64::from(row[i]), f64::from(row[5 + i]));
                a * sigmoid(a) * b
            };
            (0..5).map(gated).collect::<Vec<_>>()
        })
        .collect();
    assert_close(&flat(&found), &expected, 1e-6);
    assert_eq!(activate(&x.to_dtype(DType::BF16)?, Activation::SwiGlu)?.dtype(), DType::BF16);
    let odd = tensor(1, &[2, 3]);
    let message = activate(&odd, Activation::SwiGlu).unwrap_err().to_string();
    assert!(message.contains("even last dimension, found [2, 3]"), "{message}");
    Ok(())
}

#[test]
fn heads_are_rotated_plane_by_plane() -> Result<()> {
    let (batch, tokens, heads, depth) = (2, 5, 3, 8);
    let qkv = tensor(1, &[batch, tokens, 3 * heads * depth]);
    let (cos, sin) = (tensor(2, &[tokens, depth]), tensor(3, &[tokens, depth]));
    let [q, k, v] = rotate_heads(&qkv, heads, &cos, &sin)?;
    let (data, c, s) = (flat(&qkv), flat(&cos), flat(&sin));
    for (part, found) in [&q, &k, &v].into_iter().enumerate() {
        assert_eq!(found.dims(), [batch, heads, tokens, depth]);
        let mut expected = Vec::new();
        for b in 0..batch {
            for h in 0..heads {
                for n in 0..tokens {
                    let first = (((b * tokens + n) * 3 + part) * heads + h) * depth;
                    let head: Vec<f64> =
                        data[first..first + depth].iter().map(|&v| f64::from(v)).collect();
                    expected.extend((0..depth).map(|i| {
                        let half = depth / 2;
                        let turned = if i < half { -head[i + half] } else { head[i - half] };
                        let at = n * depth + i;
                        match part {
                            2 => head[i],
                            _ => head[i] * f64::from(c[at]) + turned * f64::from(s[at]),
                        }
                    }));
                }
            }
        }
        assert_close(&flat(found), &expected, 1e-6);
    }
    // No turn at all: plain attention.
    let (one, zero) = (cos.ones_like()?, sin.zeros_like()?);
    let [q, k, v] = rotate_heads(&qkv, heads, &one, &zero)?;
    assert_eq!(flat(&attention_qkv(&q, &k, &v, None)?), flat(&attention(&qkv, heads, None)?));
    let message = rotate_heads(&qkv, heads, &cos, &tensor(3, &[4, 8])).unwrap_err().to_string();
    assert!(message.contains("expected cosines and sines [5, 8]"), "{message}");
    assert!(rotate_heads(&qkv, 24, &cos, &sin).is_err());
    Ok(())
}
