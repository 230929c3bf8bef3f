//! What transformer blocks do element by element.

use half::{bf16, f16};

use crate::host::{Argument, Kernels, assert_close, kernels, values};

/// A launch with the name of a type, the address of the inputs and that of the results.
type Launch<'a> = &'a dyn Fn(&str, &dyn Argument, &dyn Argument);
/// A check of the results of these inputs, to a tolerance.
type Check<'a> = &'a dyn Fn(&[f32], &[f32], f64);

/// Runs a kernel in each type on these values, and checks what comes of the rounded ones.
fn in_each_type(x: &[f32], results: usize, run: Launch, check: Check) {
    let mut y = vec![f32::NAN; results];
    run("f32", &x.as_ptr(), &y.as_mut_ptr());
    check(x, &y, 2e-6);
    let narrow: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
    let mut y = vec![bf16::NAN; results];
    run("bf16", &narrow.as_ptr(), &y.as_mut_ptr());
    let wide = |v: &[bf16]| -> Vec<f32> { v.iter().map(|v| v.to_f32()).collect() };
    check(&wide(&narrow), &wide(&y), 4e-3);
    let narrow: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
    let mut y = vec![f16::NAN; results];
    run("f16", &narrow.as_ptr(), &y.as_mut_ptr());
    let wide = |v: &[f16]| -> Vec<f32> { v.iter().map(|v| v.to_f32()).collect() };
    check(&wide(&narrow), &wide(&y), 5e-4);
}

fn blocks(threads: usize) -> u32 {
    threads.div_ceil(256) as u32
}

/// An odd number of values past a whole number of blocks, and fewer than a thread takes.
const COUNTS: [usize; 3] = [3, 1024, 2085];

fn activation(kernels: Kernels, name: &str, f: fn(f64) -> f64) {
    for count in COUNTS {
        let x: Vec<f32> = values(count, 3).iter().map(|v| v * 8.0).collect();
        in_each_type(
            &x,
            count,
            &|kind, x, y| {
                let kernel = format!("{name}_{kind}");
                let arguments: [&dyn Argument; 3] = [x, y, &(count as i64)];
                kernels.launch(
                    &kernel,
                    [blocks(count.div_ceil(4)), 1, 1],
                    [256, 1, 1],
                    0,
                    &arguments,
                );
            },
            &|x, y, tolerance| {
                let expected: Vec<f64> = x.iter().map(|&v| f(f64::from(v))).collect();
                assert_close(y, &expected, tolerance);
            },
        );
    }
}

/// The Gauss error function by its series and, far out, as 1.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn activations_are_their_formulas() {
    let Some(kernels) = kernels("tokens") else { return };
    activation(kernels, "gelu", |x| x / 2.0 * (1.0 + erf(x / 2f64.sqrt())));
    activation(kernels, "quick_gelu", |x| x / (1.0 + (-1.702 * x).exp()));
    activation(kernels, "gelu_tanh", |x| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        x / 2.0 * (1.0 + inner.tanh())
    });
}

/// Results may take the place of what they are computed from.
#[test]
fn activations_work_in_place() {
    let Some(kernels) = kernels("tokens") else { return };
    let x = values(1000, 9);
    let mut apart = vec![0f32; 1000];
    let mut place = x.clone();
    let grid = [blocks(250), 1, 1];
    let arguments: [&dyn Argument; 3] = [&x.as_ptr(), &apart.as_mut_ptr(), &1000i64];
    kernels.launch("gelu_f32", grid, [256, 1, 1], 0, &arguments);
    let arguments: [&dyn Argument; 3] = [&place.as_ptr(), &place.as_mut_ptr(), &1000i64];
    kernels.launch("gelu_f32", grid, [256, 1, 1], 0, &arguments);
    assert_eq!(place, apart);
}

#[test]
fn gates_multiply_the_other_half() {
    let Some(kernels) = kernels("tokens") else { return };
    for (rows, width) in [(1, 1), (5, 24), (3, 1100), (70_000, 2)] {
        let x = values(rows * 2 * width, 4);
        in_each_type(
            &x,
            rows * width,
            &|kind, x, y| {
                let arguments: [&dyn Argument; 4] = [x, y, &(rows as i64), &(width as i64)];
                let grid = [blocks(width.div_ceil(4)), rows.min(200) as u32, 1];
                let threads = if rows > 1000 { 1 } else { 256 };
                kernels.launch(&format!("swiglu_{kind}"), grid, [threads, 1, 1], 0, &arguments);
            },
            &|x, y, tolerance| {
                let silu = |v: f64| v / (1.0 + (-v).exp());
                let expected: Vec<f64> = x
                    .chunks(2 * width)
                    .flat_map(|row| {
                        let (a, b) = row.split_at(width);
                        a.iter().zip(b).map(move |(&a, &b)| silu(f64::from(a)) * f64::from(b))
                    })
                    .collect();
                assert_close(y, &expected, tolerance);
            },
        );
    }
}

#[test]
fn streams_are_added_to() {
    let Some(kernels) = kernels("tokens") else { return };
    for count in COUNTS {
        let (stream, x) = (values(count, 1), values(count, 2));
        let sums = std::cell::RefCell::new(vec![f32::NAN; count]);
        in_each_type(
            &x,
            0,
            &|kind, x, _| {
                let to = sums.borrow_mut().as_mut_ptr();
                let arguments: [&dyn Argument; 4] = [&stream.as_ptr(), x, &to, &(count as i64)];
                let grid = [blocks(count.div_ceil(8)), 1, 1];
                kernels.launch(&format!("add_{kind}"), grid, [256, 1, 1], 0, &arguments);
            },
            &|x, _, _| {
                for ((sum, stream), x) in sums.borrow().iter().zip(&stream).zip(x) {
                    assert_eq!(*sum, stream + x);
                }
            },
        );
    }
}

/// Halves of a head are the coordinates of planes; whole 16-byte pieces and others, values left alone.
#[test]
fn queries_and_keys_are_rotated() {
    let Some(kernels) = kernels("tokens") else { return };
    for [batch, tokens, heads, depth] in [[2, 3, 2, 64], [1, 5, 3, 6], [1, 2, 1, 8], [2, 1, 2, 80]]
    {
        let qkv = values(batch * tokens * 3 * heads * depth, 6);
        let (cosines, sines) = (values(tokens * depth, 7), values(tokens * depth, 8));
        let results = batch * tokens * 2 * heads * depth;
        in_each_type(
            &qkv,
            results,
            &|kind, x, y| {
                let arguments: [&dyn Argument; 8] = [
                    x,
                    &cosines.as_ptr(),
                    &sines.as_ptr(),
                    y,
                    &((batch * tokens) as i64),
                    &(tokens as i32),
                    &(heads as i32),
                    &(depth as i32),
                ];
                let grid = [blocks(heads * depth), 2, 1];
                kernels.launch(&format!("rotate_{kind}"), grid, [256, 1, 1], 0, &arguments);
            },
            &|x, y, tolerance| {
                let mut expected = Vec::with_capacity(results);
                for (row, parts) in x.chunks(3 * heads * depth).enumerate() {
                    for head in parts[..2 * heads * depth].chunks(depth) {
                        for i in 0..depth {
                            let angle = row % tokens * depth + i;
                            let half = depth / 2;
                            let turned = if i < half { -head[i + half] } else { head[i - half] };
                            expected.push(
                                f64::from(head[i]) * f64::from(cosines[angle])
                                    + f64::from(turned) * f64::from(sines[angle]),
                            );
                        }
                    }
                }
                assert_close(y, &expected, tolerance);
            },
        );
    }
}
