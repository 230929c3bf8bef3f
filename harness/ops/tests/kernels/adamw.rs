//! Steps of AdamW and the norm of gradients.

use crate::host::{Argument, kernels, values};

#[derive(Clone, Copy)]
#[repr(C)]
struct Parameter {
    addresses: [*const f32; 4],
    length: i64,
    block: i64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Parameters {
    of: [Parameter; 64],
    count: i32,
}

/// Parameters of these lengths, as value, moments and gradient.
fn tensors(lengths: &[usize]) -> Vec<[Vec<f32>; 4]> {
    let of = |(seed, &length): (usize, &usize)| {
        let seed = 4 * seed as u64;
        let second = values(length, seed + 3).iter().map(|v| v.abs()).collect();
        [values(length, seed + 1), values(length, seed + 2), second, values(length, seed + 4)]
    };
    lengths.iter().enumerate().map(of).collect()
}

/// The kernel's table, and its blocks.
fn table(tensors: &mut [[Vec<f32>; 4]]) -> (Parameters, u32) {
    let empty = Parameter { addresses: [std::ptr::null(); 4], length: 0, block: 0 };
    let mut table = Parameters { of: [empty; 64], count: tensors.len() as i32 };
    let mut block = 0;
    for (place, tensors) in table.of.iter_mut().zip(tensors) {
        let length = tensors[0].len() as i64;
        let addresses = tensors.each_mut().map(|tensor| tensor.as_mut_ptr().cast_const());
        *place = Parameter { addresses, length, block };
        block += (length + 4095) / 4096;
    }
    (table, block as u32)
}

const LENGTHS: [usize; 6] = [1, 4096, 4097, 31, 9000, 255];
/// keep, first weight, second keep, second weight, step, correction, eps.
const STEP: [f32; 7] = [0.99999, 0.1, 0.999, 0.001, -3e-4, 0.0316, 1e-8];

/// To the bit what the operations give one by one.
#[test]
fn a_step_changes_every_parameter_in_the_order_of_pytorch() {
    let Some(kernels) = kernels("adamw") else { return };
    let mut found = tensors(&LENGTHS);
    let [keep, first_weight, second_keep, second_weight, step, correction, eps] = STEP;
    let mut expected = found.clone();
    for [value, first, second, gradient] in &mut expected {
        for (i, &g) in gradient.iter().enumerate() {
            first[i] += first_weight * (g - first[i]);
            second[i] = second[i] * second_keep + second_weight * g * g;
            value[i] = value[i] * keep + step * first[i] / (second[i].sqrt() / correction + eps);
        }
    }
    let before = found.clone();
    let mut launch = |guard: Option<f32>| {
        let guard = guard.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (table, blocks) = table(&mut found);
        let arguments: [&dyn Argument; 3] = [&table, &STEP, &guard];
        kernels.launch("adamw", [blocks, 1, 1], [256, 1, 1], 0, &arguments);
        found.clone()
    };
    for stopped in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(launch(Some(stopped)) == before);
    }
    let found = launch(Some(3.0));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(found == expected, "parameter {i}");
    }
    assert!(launch(None) != found);
}

#[test]
fn the_norm_is_that_of_all_gradients() {
    let Some(kernels) = kernels("adamw") else { return };
    let mut all = tensors(&LENGTHS);
    let squares = all.iter().flat_map(|[.., gradient]| gradient).map(|&g| f64::from(g).powi(2));
    let expected = squares.sum::<f64>().sqrt();
    let (front, back) = all.split_at_mut(2);
    let (mut sums, mut offset) = (vec![f64::NAN; 9], 0_i64);
    for part in [front, back] {
        let (table, blocks) = table(part);
        let arguments: [&dyn Argument; 3] = [&table, &sums.as_mut_ptr(), &offset];
        kernels.launch("squares", [blocks, 1, 1], [256, 1, 1], 0, &arguments);
        offset += i64::from(blocks);
    }
    assert_eq!(offset, sums.len() as i64);
    let mut root = f32::NAN;
    let arguments: [&dyn Argument; 3] = [&sums.as_ptr(), &offset, &std::ptr::from_mut(&mut root)];
    kernels.launch("root_of_sum", [1, 1, 1], [256, 1, 1], 0, &arguments);
    assert!((f64::from(root) / expected - 1.0).abs() < 1e-6, "{root}, {expected}");
}
