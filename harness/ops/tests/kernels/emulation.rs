//! The emulation itself: barriers, shuffles, rounding, products of fragments.

use half::{bf16, f16};

use crate::host::{kernels, values};

#[test]
fn barriers_order_the_threads_of_a_block() {
    let Some(kernels) = kernels("emulation") else { return };
    let (blocks, threads) = (3, 97);
    let x: Vec<i32> = (0..blocks * threads).map(|i| (i * 7 % 23) as i32).collect();
    let mut y = vec![0i32; x.len()];
    kernels.launch(
        "running_sums",
        [blocks as u32, 1, 1],
        [threads as u32, 1, 1],
        threads * 4,
        &[&x.as_ptr(), &y.as_mut_ptr()],
    );
    for (block, found) in y.chunks(threads).enumerate() {
        let mut sum = 0;
        for (i, &found) in found.iter().enumerate() {
            sum += x[block * threads + i];
            assert_eq!(found, sum, "block {block}, thread {i}");
        }
    }
}

/// Mistakes do not pass: a missing barrier, one that some threads skip, memory that was not asked for.
#[test]
fn mistakes_show() {
    let Some(kernels) = kernels("emulation") else { return };
    let x: Vec<i32> = (0..64).collect();
    let mut y = vec![0i32; 64];
    let arguments: [&dyn crate::host::Argument; 2] = [&x.as_ptr(), &y.as_mut_ptr()];
    kernels.launch("unordered", [1, 1, 1], [64, 1, 1], 256, &arguments);
    assert_ne!(y[31], 30 + 32);
    let error =
        kernels.try_launch("divided", [1, 1, 1], [64, 1, 1], 0, &[&y.as_mut_ptr()]).unwrap_err();
    assert!(error.contains("waits in __syncthreads"), "{error}");
    let error =
        kernels.try_launch("running_sums", [1, 1, 1], [64, 1, 1], 200, &arguments).unwrap_err();
    assert!(error.contains("past its dynamic shared memory"), "{error}");
    assert!(kernels.try_launch("divided", [1, 1, 1], [257, 1, 1], 0, &[&y.as_mut_ptr()]).is_err());
}

#[test]
fn lanes_exchange_values() {
    let Some(kernels) = kernels("emulation") else { return };
    let x = values(64, 3);
    let mut y = vec![0f32; 5 * 64];
    let arguments: [&dyn crate::host::Argument; 2] = [&x.as_ptr(), &y.as_mut_ptr()];
    kernels.launch("shuffles", [1, 1, 1], [64, 1, 1], 0, &arguments);
    for lane in 0..64 {
        let first = lane / 32 * 32;
        let warp = &x[first..first + 32];
        let within = lane - first;
        let mut sums = warp.to_vec();
        while sums.len() > 1 {
            let half = sums.len() / 2;
            sums = (0..half).map(|i| sums[i] + sums[i + half]).collect();
        }
        let largest = warp.iter().copied().fold(f32::MIN, f32::max);
        let expected = [
            warp[within ^ 5],
            warp[if within + 3 < 32 { within + 3 } else { within }],
            warp[7],
            warp.iter().filter(|v| **v > 0.0).count() as f32,
        ];
        assert_eq!(y[5 * lane..5 * lane + 4], expected, "lane {lane}");
        assert!((y[5 * lane + 4] - (sums[0] + largest)).abs() < 1e-5);
    }
}

/// Every rounding of the two types: ties, subnormal numbers, overflow, infinities.
#[test]
fn rounding_is_to_nearest_even() {
    let Some(kernels) = kernels("emulation") else { return };
    let mut x: Vec<f32> = (0..=u16::MAX).map(|i| f16::from_bits(i).to_f32()).collect();
    let steps: Vec<f32> = x.windows(2).map(|w| (w[0] + w[1]) / 2.0).collect();
    x.extend(steps);
    x.extend((0..20_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x0003_5821))));
    x.extend([65519.9, 65520.0, 3.4e38, 1e-8, 2.98e-8, 2.980_232_2e-8, 2.99e-8, f32::INFINITY]);
    x.retain(|v| !v.is_nan());
    let (mut wide, mut narrow) = (vec![0f32; x.len()], vec![0f32; x.len()]);
    kernels.launch(
        "round_trip",
        [x.len().div_ceil(256) as u32, 1, 1],
        [256, 1, 1],
        0,
        &[&x.as_ptr(), &wide.as_mut_ptr(), &narrow.as_mut_ptr(), &(x.len() as i32)],
    );
    for ((&x, wide), narrow) in x.iter().zip(wide).zip(narrow) {
        assert_eq!(wide.to_bits(), bf16::from_f32(x).to_f32().to_bits(), "bf16 of {x}");
        assert_eq!(narrow.to_bits(), f16::from_f32(x).to_f32().to_bits(), "f16 of {x}");
    }
}

#[test]
fn fragments_multiply_as_matrices() {
    let Some(kernels) = kernels("emulation") else { return };
    let (a, b) = (values(256, 1), values(128, 2));
    let mut y = vec![0f32; 128];
    for name in ["product_bf16", "product_f16"] {
        let round = |v: &[f32]| -> (Vec<u16>, Vec<f32>) {
            v.iter()
                .map(|&v| match name {
                    "product_bf16" => (bf16::from_f32(v).to_bits(), bf16::from_f32(v).to_f32()),
                    _ => (f16::from_f32(v).to_bits(), f16::from_f32(v).to_f32()),
                })
                .unzip()
        };
        let ((a_bits, a), (b_bits, b)) = (round(&a), round(&b));
        let arguments: [&dyn crate::host::Argument; 3] =
            [&a_bits.as_ptr(), &b_bits.as_ptr(), &y.as_mut_ptr()];
        kernels.launch(name, [1, 1, 1], [32, 1, 1], 1024, &arguments);
        for i in 0..16 {
            for j in 0..8 {
                let sum: f64 =
                    (0..16).map(|k| f64::from(a[16 * i + k]) * f64::from(b[8 * k + j])).sum();
                assert!((f64::from(y[8 * i + j]) - sum).abs() < 1e-6, "{name} {i} {j}");
            }
        }
    }
    // Rows of 32 bytes: eight of them share four groups of banks.
    assert!(kernels.shared_conflicts() > 0);
}
