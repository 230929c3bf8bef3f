//! A head in one memory format is the head in the other.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use ops::{Format, Tape};

use super::input::assemble_in;
use super::{Architecture, HeadConfig, Variable, initialise};

/// Numbers in [-1, 1) that depend on two counters.
fn noise(tensor: usize, element: usize) -> f64 {
    let mut z = ((tensor as u64) << 40 | element as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z ^ (z >> 32)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

fn tensor(index: usize, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|i| noise(index, i) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Logits, statistics and the gradient of every parameter, in one format.
fn all(config: &HeadConfig, dtype: DType, format: Format, train: bool) -> BTreeMap<String, Tensor> {
    let (batch, grid, dim) = (3, (5, 4), config.width / 2);
    let taps: Vec<Tensor> = (0..config.taps())
        .map(|i| {
            let patches = tensor(100 + i, &[batch, grid.0 * grid.1, dim]);
            let summary = tensor(200 + i, &[batch, 2, dim]);
            assemble_in(format, &patches, Some(&summary), grid).unwrap()
        })
        .collect();
    let mut draw = |tensor, element| noise(tensor, element) / 2.0 + 0.5;
    let head = initialise(config, dtype, &Device::Cpu, &mut draw).unwrap();
    let tape = if train { Tape::recording } else { Tape::new };
    let forward = head.forward_on(&taps, tape(format, dtype)).unwrap();
    assert_eq!(forward.logits.dims()[..2], [batch, config.outputs]);
    let mut found = BTreeMap::from([("logits".to_owned(), forward.logits.clone())]);
    for (i, statistic) in forward.statistics.iter().enumerate() {
        found.insert(format!("statistic {i}"), statistic.clone());
    }
    if train {
        let of_logits = tensor(300, forward.logits.dims());
        let gradients = forward.gradients(&of_logits).unwrap();
        for Variable { name, var } in head.parameters() {
            if let Some(gradient) = gradients.of(var) {
                assert_eq!((gradient.dims(), gradient.dtype()), (var.dims(), DType::F32));
                found.insert(name.clone(), gradient.clone());
            }
        }
    }
    found
}

#[test]
fn heads_do_not_depend_on_the_format() {
    let dpt = Architecture::Dpt { channels: [8, 6, 12, 10], features: 7 };
    for (architecture, tensors) in [(Architecture::Linear, 7), (dpt, 59)] {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::BF16, 2e-2)] {
            for train in [true, false] {
                let config = HeadConfig { architecture, width: 18, outputs: 5 };
                let planes = all(&config, dtype, Format::Planes, train);
                let pixels = all(&config, dtype, Format::Pixels, train);
                assert_eq!(planes.len(), if train { tensors } else { 1 });
                assert!(planes.keys().eq(pixels.keys()));
                for (name, expected) in &planes {
                    let found = &pixels[name];
                    assert_eq!(found.dims(), expected.dims(), "{name}");
                    let flat = |t: &Tensor| {
                        let t = t.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
                        t.to_vec1::<f32>().unwrap()
                    };
                    let (found, expected) = (flat(found), flat(expected));
                    let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
                    for (f, e) in found.iter().zip(&expected) {
                        assert!((f - e).abs() <= tolerance * scale, "{name}: {e}, {f} of {scale}");
                    }
                }
            }
        }
    }
}

#[test]
fn pixels_of_taps_are_the_tokens() {
    let (patches, summary) = (tensor(1, &[2, 6, 3]), tensor(2, &[2, 4, 3]));
    for summary in [Some(&summary), None] {
        let planes = assemble_in(Format::Planes, &patches, summary, (2, 3)).unwrap();
        let pixels = assemble_in(Format::Pixels, &patches, summary, (2, 3)).unwrap();
        assert!(planes.is_contiguous());
        assert!(pixels.permute((0, 2, 3, 1)).unwrap().is_contiguous());
        let off = (planes - pixels).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(off.to_scalar::<f32>().unwrap(), 0.0);
    }
}
