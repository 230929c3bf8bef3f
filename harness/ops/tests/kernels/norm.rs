//! Layer normalisation.

use half::{bf16, f16};

use crate::host::{Argument, assert_close, kernels, values};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` of every row.
fn expected(x: &[f32], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f64> {
    let width = weight.len();
    x.chunks(width)
        .flat_map(|row| {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
            let variance =
                row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
            let affine = weight.iter().zip(bias);
            let scaled = row.iter().zip(affine).map(move |(&v, (&w, &b))| {
                (f64::from(v) - mean) / (variance + eps).sqrt() * f64::from(w) + f64::from(b)
            });
            scaled.collect::<Vec<_>>()
        })
        .collect()
}

fn grid(kind: &str, rows: usize) -> [u32; 3] {
    [if kind == "any" { rows } else { rows.div_ceil(4) } as u32, 1, 1]
}

const CASES: [(&str, usize, usize); 8] = [
    ("1024", 1, 4),
    ("1024", 5, 768),
    ("1024", 7, 1024),
    ("2048", 3, 1028),
    ("2048", 6, 2048),
    ("any", 3, 1),
    ("any", 2, 131),
    ("any", 2, 2050),
];

#[test]
fn rows_are_normalised() {
    let Some(kernels) = kernels("norm") else { return };
    for (kind, rows, width) in CASES {
        let x: Vec<f32> = values(rows * width, 1).iter().map(|v| v * 3.0 + 2.0).collect();
        let (weight, bias) = (values(width, 2), values(width, 3));
        let (count, columns, eps) = (rows as i64, width as i32, 1e-6f32);
        let launch = |types: &str, x: &dyn Argument, y: &dyn Argument| {
            let name = format!("layer_norm_{kind}_{types}");
            let arguments: [&dyn Argument; 7] =
                [x, &weight.as_ptr(), &bias.as_ptr(), y, &count, &columns, &eps];
            kernels.launch(&name, grid(kind, rows), [128, 1, 1], 0, &arguments);
        };
        let mut y = vec![f32::NAN; rows * width];
        launch("f32_f32", &x.as_ptr(), &y.as_mut_ptr());
        assert_close(&y, &expected(&x, &weight, &bias, 1e-6), 2e-6);

        // Written in 16 bits: the f32 result, rounded.
        let mut rounded = vec![0u16; rows * width];
        launch("f32_bf16", &x.as_ptr(), &rounded.as_mut_ptr());
        assert!(rounded.iter().zip(&y).all(|(&r, &y)| r == bf16::from_f32(y).to_bits()));
        launch("f32_f16", &x.as_ptr(), &rounded.as_mut_ptr());
        assert!(rounded.iter().zip(&y).all(|(&r, &y)| r == f16::from_f32(y).to_bits()));

        let half: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
        let wide: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
        launch("bf16_f32", &half.as_ptr(), &y.as_mut_ptr());
        assert_close(&y, &expected(&wide, &weight, &bias, 1e-6), 2e-6);
        launch("bf16_bf16", &half.as_ptr(), &rounded.as_mut_ptr());
        assert!(rounded.iter().zip(&y).all(|(&r, &y)| r == bf16::from_f32(y).to_bits()));
        let half: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
        let wide: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
        launch("f16_f32", &half.as_ptr(), &y.as_mut_ptr());
        assert_close(&y, &expected(&wide, &weight, &bias, 1e-6), 2e-6);
        launch("f16_f16", &half.as_ptr(), &rounded.as_mut_ptr());
        assert!(rounded.iter().zip(&y).all(|(&r, &y)| r == f16::from_f32(y).to_bits()));
    }
}

#[test]
fn the_stream_is_added_to_and_normalised() {
    let Some(kernels) = kernels("norm") else { return };
    for (kind, rows, width) in CASES {
        let stream = values(rows * width, 1);
        let x: Vec<bf16> = values(rows * width, 4).iter().map(|&v| bf16::from_f32(v)).collect();
        let (weight, bias) = (values(width, 2), values(width, 3));
        let mut sum = vec![f32::NAN; rows * width];
        let mut y = vec![bf16::ZERO; rows * width];
        let arguments: [&dyn Argument; 9] = [
            &stream.as_ptr(),
            &x.as_ptr(),
            &weight.as_ptr(),
            &bias.as_ptr(),
            &sum.as_mut_ptr(),
            &y.as_mut_ptr(),
            &(rows as i64),
            &(width as i32),
            &1e-6f32,
        ];
        let name = format!("add_layer_norm_{kind}_bf16");
        kernels.launch(&name, grid(kind, rows), [128, 1, 1], 0, &arguments);
        for ((sum, stream), x) in sum.iter().zip(&stream).zip(&x) {
            assert_eq!(*sum, stream + x.to_f32());
        }
        // As the normalisation of the sum on its own.
        let mut alone = vec![bf16::ZERO; rows * width];
        let arguments: [&dyn Argument; 7] = [
            &sum.as_ptr(),
            &weight.as_ptr(),
            &bias.as_ptr(),
            &alone.as_mut_ptr(),
            &(rows as i64),
            &(width as i32),
            &1e-6f32,
        ];
        let name = format!("layer_norm_{kind}_f32_bf16");
        kernels.launch(&name, grid(kind, rows), [128, 1, 1], 0, &arguments);
        assert!(alone == y, "{kind} {rows} {width}");
    }
}
