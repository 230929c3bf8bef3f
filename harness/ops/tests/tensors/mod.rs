//! Tensors of made-up values, and their values.

use candle_core::{DType, Device, Tensor};

/// `shape` filled with values in [-1, 1) by a multiplicative generator.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..shape.iter().product()).map(next).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// The values in row-major order, in f32.
pub fn flat(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
