//! Attention.

use half::{bf16, f16};

use crate::host::{Argument, Kernels, assert_close, kernels, values};

#[derive(Clone, Copy)]
#[repr(C)]
struct Strides {
    batch: i64,
    head: i64,
    token: i64,
}

/// A 16-bit type.
struct Type {
    name: &'static str,
    tolerance: f64,
    bits: fn(f32) -> u16,
    wide: fn(u16) -> f32,
}

const TYPES: [Type; 2] = [
    Type {
        name: "bf16",
        tolerance: 8e-3,
        bits: |x| bf16::from_f32(x).to_bits(),
        wide: |x| bf16::from_bits(x).to_f32(),
    },
    Type {
        name: "f16",
        tolerance: 1e-3,
        bits: |x| f16::from_f32(x).to_bits(),
        wide: |x| f16::from_bits(x).to_f32(),
    },
];

/// `tokens` of `[B, H, D]` in memory `[B, tokens + 2, H, D]`, the surplus NaN.
fn operand(t: &Type, [batch, heads, tokens, depth]: [usize; 4], seed: u64) -> (Vec<u16>, Strides) {
    let token = heads * depth;
    let mut data: Vec<u16> =
        values(batch * (tokens + 2) * token, seed).iter().map(|&v| (t.bits)(v)).collect();
    for sample in data.chunks_mut((tokens + 2) * token) {
        sample[tokens * token..].fill((t.bits)(f32::NAN));
    }
    let strides =
        Strides { batch: ((tokens + 2) * token) as i64, head: depth as i64, token: token as i64 };
    (data, strides)
}

fn check(kernels: Kernels, t: &Type, size: usize, shape: [usize; 5], scale: f64) {
    let [batch, heads, queries, keys, depth] = shape;
    let (q, qs) = operand(t, [batch, heads, queries, depth], 1);
    let (k, ks) = operand(t, [batch, heads, keys, depth], 2);
    let (v, vs) = operand(t, [batch, heads, keys, depth], 3);
    let untouched = (t.bits)(7.0);
    let mut out = vec![untouched; batch * queries * heads * depth + 8];
    let (row, tile) = (((size / 8) | 1) * 16, if size == 128 { 32 } else { 64 });
    let shared = 4 * tile * row + if size > 64 { 128 * row } else { 0 };
    let factor = (scale * std::f64::consts::LOG2_E) as f32;
    let arguments: [&dyn Argument; 11] = [
        &q.as_ptr(),
        &k.as_ptr(),
        &v.as_ptr(),
        &out.as_mut_ptr(),
        &qs,
        &ks,
        &vs,
        &(queries as i32),
        &(keys as i32),
        &(depth as i32),
        &factor,
    ];
    let grid = [queries.div_ceil(128) as u32, heads as u32, batch as u32];
    let kernel = format!("attention_{}_{size}", t.name);
    kernels.launch(&kernel, grid, [128, 1, 1], shared, &arguments);
    assert_eq!(kernels.shared_conflicts(), 0, "{kernel}");
    let at = |data: &[u16], s: Strides, b: usize, h: usize, n: usize, d: usize| {
        let index = b * s.batch as usize + h * s.head as usize + n * s.token as usize + d;
        f64::from((t.wide)(data[index]))
    };
    let mut expected = Vec::new();
    for b in 0..batch {
        for n in 0..queries {
            for h in 0..heads {
                let scores: Vec<f64> = (0..keys)
                    .map(|m| {
                        let dot =
                            (0..depth).map(|d| at(&q, qs, b, h, n, d) * at(&k, ks, b, h, m, d));
                        dot.sum::<f64>() * scale
                    })
                    .collect();
                let highest = scores.iter().copied().fold(f64::MIN, f64::max);
                let powers: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
                let sum: f64 = powers.iter().sum();
                expected.extend((0..depth).map(|d| {
                    let mixed = (0..keys).map(|m| powers[m] * at(&v, vs, b, h, m, d));
                    mixed.sum::<f64>() / sum
                }));
            }
        }
    }
    let (found, beyond) = out.split_at(expected.len());
    assert!(beyond.iter().all(|&v| v == untouched), "{kernel} wrote past its result");
    let found: Vec<f32> = found.iter().map(|&v| (t.wide)(v)).collect();
    assert_close(&found, &expected, t.tolerance);
}

/// Every head size, exact and padded, with numbers of tokens around the tiles.
#[test]
fn tiles_attend_as_the_formula_does() {
    let Some(kernels) = kernels("attention") else { return };
    for t in &TYPES {
        for (size, shape) in [
            (32, [1, 2, 1, 1, 32]),
            (64, [2, 1, 33, 65, 64]),
            (80, [1, 1, 5, 70, 80]),
            (96, [1, 2, 4, 20, 88]),
            (128, [1, 1, 3, 70, 128]),
        ] {
            check(kernels, t, size, shape, 1.0);
        }
    }
    let t = &TYPES[0];
    for (size, shape) in [
        (32, [1, 1, 3, 17, 24]),
        (64, [1, 1, 130, 129, 64]),
        (64, [1, 3, 2, 128, 40]),
        (80, [1, 1, 140, 16, 72]),
        (96, [2, 1, 17, 130, 96]),
        (128, [1, 2, 65, 33, 104]),
    ] {
        check(kernels, t, size, shape, 0.3);
    }
}

/// Scores far from zero: the largest of a row comes in a late tile.
#[test]
fn large_scores_do_not_overflow() {
    let Some(kernels) = kernels("attention") else { return };
    check(kernels, &TYPES[0], 64, [1, 1, 20, 200, 64], 30.0);
}

#[test]
fn rows_become_shares() {
    let Some(kernels) = kernels("attention") else { return };
    for width in [1usize, 31, 256, 700] {
        let x: Vec<f32> = values(3 * width, 5).iter().map(|v| v * 100.0).collect();
        let mut y = x.clone();
        let arguments: [&dyn Argument; 3] = [&y.as_mut_ptr(), &(width as i64), &0.5f32];
        kernels.launch("softmax_f32", [3, 1, 1], [256, 1, 1], 0, &arguments);
        let expected: Vec<f64> = x
            .chunks(width)
            .flat_map(|row| {
                let highest = row.iter().copied().fold(f32::MIN, f32::max);
                let powers: Vec<f64> =
                    row.iter().map(|v| (f64::from(v - highest) * 0.5).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(move |p| p / sum)
            })
            .collect();
        assert_close(&y, &expected, 2e-6);
    }
}
