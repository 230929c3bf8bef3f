//! The operations in plain f64 loops.

// Each file of tests uses some of them.
#![allow(dead_code)]

use candle_core::DType;

/// `len` values in [-1, 1) by a multiplicative hash of their index and `seed`.
pub fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// `erf`: its Taylor series below 3, the continued fraction of erfc above.
fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let a = x.abs();
    let fraction = (1..=60).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (a + tail));
    let complement = (-a * a).exp() / (a + fraction) / std::f64::consts::PI.sqrt();
    (1.0 - complement).copysign(x)
}

pub fn gelu_f64(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// `x [rows, inputs]` by `w [out, inputs]`, transposed, plus the bias.
pub fn linear_f64(
    x: &[f32],
    w: &[f32],
    bias: Option<&Vec<f32>>,
    [rows, inputs, out]: [usize; 3],
) -> Vec<f64> {
    let dot = |r: usize, o: usize| -> f64 {
        (0..inputs).map(|i| f64::from(x[r * inputs + i]) * f64::from(w[o * inputs + i])).sum()
    };
    (0..rows * out)
        .map(|i| dot(i / out, i % out) + bias.map_or(0.0, |b| f64::from(b[i % out])))
        .collect()
}

pub fn layer_norm_f64(x: &[f32], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f64> {
    let width = weight.len();
    x.chunks_exact(width)
        .flat_map(|row| {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
            let variance =
                row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
            row.iter().zip(weight).zip(bias).map(move |((&v, &w), &b)| {
                (f64::from(v) - mean) / (variance + eps).sqrt() * f64::from(w) + f64::from(b)
            })
        })
        .collect()
}

/// Attention from packed `qkv [batch, tokens, 3 * heads * depth]`.
pub fn attention_f64(
    qkv: &[f32],
    [batch, tokens, heads, depth]: [usize; 4],
    scale: Option<f64>,
) -> Vec<f64> {
    let width = heads * depth;
    let scale = scale.unwrap_or(1.0 / (depth as f64).sqrt());
    let at = |b: usize, n: usize, third: usize, h: usize, d: usize| {
        f64::from(qkv[(b * tokens + n) * 3 * width + third * width + h * depth + d])
    };
    let mut result = vec![0.0; batch * tokens * width];
    for (b, h, n) in
        (0..batch * heads * tokens).map(|i| (i / tokens / heads, i / tokens % heads, i % tokens))
    {
        let scores: Vec<f64> = (0..tokens)
            .map(|m| scale * (0..depth).map(|d| at(b, n, 0, h, d) * at(b, m, 1, h, d)).sum::<f64>())
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        for d in 0..depth {
            result[(b * tokens + n) * width + h * depth + d] =
                (0..tokens).map(|m| powers[m] * at(b, m, 2, h, d)).sum::<f64>() / sum;
        }
    }
    result
}

/// Asserts that every value is within `tolerance` of the expected one, times the larger of 1 and that.
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs() / e.abs().max(1.0);
        assert!(error <= tolerance, "element {i}: expected {e}, found {f}, {error:.1e} off");
    }
}

/// Asserts that every value is the expected one rounded once to `dtype`: half a unit in the last place, and
/// what f32 sums are off.
#[track_caller]
pub fn assert_rounded(found: &[f32], expected: &[f64], dtype: DType) {
    assert_eq!(found.len(), expected.len());
    let (bits, smallest) = if dtype == DType::F16 { (10, -14) } else { (7, -126) };
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let exponent = (e.abs().max(1e-300).log2().floor() as i32).max(smallest);
        let half_unit = 2f64.powi(exponent - bits - 1);
        let error = (f64::from(f) - e).abs();
        assert!(
            error <= half_unit + 4e-6,
            "element {i}: expected {e} rounded to {dtype:?}, found {f}"
        );
    }
}
