//! The operations on a GPU against those on the CPU; skipped where there is none.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod reference;

use candle_core::{DType, Device, Result, Tensor};
use pixio_eval_ops::{
    Activation, activate, add_window, attention, attention_qkv, gelu, layer_norm_as, linear,
    linear_gelu, linear_residual, linear_residual_norm, rotate_heads,
};
use reference::values;

fn gpu() -> Option<Device> {
    // Where the driver's library is missing, loading it panics.
    let found = std::panic::catch_unwind(|| Device::new_cuda_with_stream(0).ok()).ok().flatten();
    if found.is_none() {
        eprintln!("skipped: no GPU");
    }
    found
}

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
}

/// What `op` gives of `inputs` in `dtype`, on the CPU and on the GPU, must agree: by the size of its largest
/// element, to one part in 10^5 in f32 and to a rounding and a half in 16 bits.
#[track_caller]
fn compare(
    gpu: &Device,
    dtype: DType,
    inputs: &[Tensor],
    op: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>,
) {
    let cpu: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
    let there: Vec<Tensor> = cpu.iter().map(|t| t.to_device(gpu).unwrap()).collect();
    let (expected, found) = (op(&cpu).unwrap(), op(&there).unwrap());
    let tolerance = |dtype: DType| match dtype {
        DType::BF16 => 1.2e-2f32,
        DType::F16 => 1.5e-3,
        _ => 1e-5,
    };
    assert_eq!(expected.len(), found.len());
    for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
        assert_eq!((expected.dims(), expected.dtype()), (found.dims(), found.dtype()));
        let tolerance = tolerance(dtype).max(tolerance(found.dtype()));
        let flat = |t: &Tensor| -> Vec<f32> {
            let t = t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            t.flatten_all().unwrap().to_vec1().unwrap()
        };
        let (expected, found) = (flat(expected), flat(found));
        let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
        for (at, (e, f)) in expected.iter().zip(&found).enumerate() {
            assert!(
                (e - f).abs() <= tolerance * scale,
                "{dtype:?}, result {i}, element {at}: {e} on the CPU, {f} on the GPU"
            );
        }
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

#[test]
fn products_agree() {
    let Some(gpu) = gpu() else { return };
    // Sizes that are and are not multiples of what tensor cores take.
    for (rows, inputs, out) in [(1, 64, 64), (130, 768, 2304), (33, 30, 17), (257, 1024, 100)] {
        let small = |seed, shape: &[usize]| (tensor(seed, shape) * 0.1).unwrap();
        let inputs = [
            tensor(1, &[rows, inputs]),
            small(2, &[out, inputs]),
            tensor(3, &[out]),
            tensor(4, &[rows, out]),
            tensor(5, &[out]),
            tensor(6, &[out]),
        ];
        for dtype in DTYPES {
            compare(&gpu, dtype, &inputs, &|t| {
                let (sum, normal) =
                    linear_residual_norm(&t[0], &t[1], Some(&t[2]), &t[3], [&t[4], &t[5]], 1e-3)?;
                Ok(vec![
                    linear(&t[0], &t[1], Some(&t[2]))?,
                    linear(&t[0], &t[1], None)?,
                    linear_gelu(&t[0], &t[1], Some(&t[2]))?,
                    linear_residual(&t[0], &t[1], Some(&t[2]), &t[3])?,
                    sum,
                    normal,
                ])
            });
        }
    }
}

#[test]
fn norms_and_activations_agree() {
    let Some(gpu) = gpu() else { return };
    for (rows, width) in [(1, 4), (5, 768), (70, 1408), (3, 2050), (4, 62)] {
        let inputs = [tensor(1, &[2, rows, width]), tensor(2, &[width]), tensor(3, &[width])];
        for dtype in DTYPES {
            compare(&gpu, dtype, &inputs, &|t| {
                let kinds = [
                    Activation::Gelu,
                    Activation::QuickGelu,
                    Activation::GeluTanh,
                    Activation::SwiGlu,
                ];
                let mut all = vec![gelu(&t[0])?];
                for kind in kinds {
                    all.push(activate(&t[0], kind)?);
                }
                for to in DTYPES {
                    all.push(layer_norm_as(&t[0], &t[1], &t[2], 1e-3, to)?);
                }
                Ok(all)
            });
        }
    }
}

#[test]
fn attention_agrees() {
    let Some(gpu) = gpu() else { return };
    // The kernel's head sizes and ones that it pads; then such as it does not take.
    for depth in [32, 64, 72, 80, 88, 96, 128, 20, 136] {
        for tokens in [1, 40, 264, 515] {
            let inputs = [tensor(1, &[2, tokens, 3 * 3 * depth])];
            for dtype in DTYPES {
                compare(&gpu, dtype, &inputs, &|t| {
                    let heads = t[0].reshape((2, tokens, 9, depth))?.transpose(1, 2)?;
                    let part = |i: usize| heads.narrow(1, 3 * i, 3);
                    let few = part(0)?.narrow(2, 0, 1)?;
                    Ok(vec![
                        attention(&t[0], 3, None)?,
                        attention(&t[0], 3, Some(1.0))?,
                        attention_qkv(&few, &part(1)?, &part(2)?, None)?,
                    ])
                });
            }
        }
    }
}

#[test]
fn rotated_heads_agree() {
    let Some(gpu) = gpu() else { return };
    for depth in [64, 12] {
        let inputs =
            [tensor(1, &[2, 37, 9 * depth]), tensor(2, &[37, depth]), tensor(3, &[37, depth])];
        for dtype in DTYPES {
            compare(&gpu, dtype, &inputs, &|t| {
                let (cos, sin) = (t[1].to_dtype(DType::F32)?, t[2].to_dtype(DType::F32)?);
                let [q, k, v] = rotate_heads(&t[0], 3, &cos, &sin)?;
                let y = attention_qkv(&q, &k, &v, None)?;
                Ok(vec![q.contiguous()?, k.contiguous()?, y])
            });
        }
    }
}

/// Sums of windows are those of the CPU to the bit, and their places.
#[test]
fn windows_are_added_alike() {
    let Some(gpu) = gpu() else { return };
    for channels in [1, 7, 150, 8] {
        let windows = tensor(1, &[3, 6, 6, channels]);
        let sums = |device: &Device| {
            let sums = tensor(2, &[9, 11, channels]).to_device(device).unwrap();
            let windows = windows.to_device(device).unwrap();
            for (i, (place, size)) in
                [([0, 0], [6, 6]), ([3, 5], [6, 6]), ([2, 8], [5, 3])].into_iter().enumerate()
            {
                add_window(&sums, &windows.get(i).unwrap(), place, size).unwrap();
            }
            sums.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert!(sums(&gpu) == sums(&Device::Cpu), "{channels} channels");
    }
}

/// Two runs give the same bits.
#[test]
fn results_repeat() {
    let Some(gpu) = gpu() else { return };
    let x = tensor(1, &[4, 264, 768]).to_device(&gpu).unwrap();
    let w = tensor(2, &[2304, 768]).to_device(&gpu).unwrap().to_dtype(DType::BF16).unwrap();
    let run = || {
        let y = attention(&linear(&x, &w, None).unwrap(), 12, None).unwrap();
        let y = y.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        y.to_vec1::<f32>().unwrap()
    };
    assert_eq!(run(), run());
}
