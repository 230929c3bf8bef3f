//! Each operation composed of ordinary candle operations: any device, differentiable.
//!
//! Shapes are checked by the callers.

use candle_core::{D, DType, Result, Tensor};

use crate::Activation;

/// `x W^T + b` in the weight's dtype.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, inputs) = weight.dims2()?;
    let dtype = weight.dtype();
    let rows = x.elem_count() / inputs.max(1);
    let y = x.to_dtype(dtype)?.reshape((rows, inputs))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(dtype)?)?,
        None => y,
    };
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    y.reshape(shape)
}

/// GELU in f32, returned in the dtype of `x`.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    activate(x, Activation::Gelu)
}

/// An activation in f32, returned in the dtype of `x`.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let y = match activation {
        Activation::Gelu => wide.gelu_erf()?,
        Activation::QuickGelu => ((&wide * 1.702)?.silu()? * (1.0 / 1.702))?,
        Activation::GeluTanh => wide.gelu()?,
        Activation::SwiGlu => {
            let parts = wide.chunk(2, D::Minus1)?;
            (parts[0].contiguous()?.silu()? * parts[1].contiguous()?)?
        }
    };
    y.to_dtype(x.dtype())
}

/// The rotation of `x [B, H, N, Dh]` in f32, returned in the dtype of `x`.
pub(crate) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?.contiguous()?;
    let half = wide.dim(3)? / 2;
    let turned = Tensor::cat(&[&wide.narrow(3, half, half)?.neg()?, &wide.narrow(3, 0, half)?], 3)?;
    (wide.broadcast_mul(cos)? + turned.broadcast_mul(sin)?)?.to_dtype(x.dtype())
}

/// Layer normalisation of the last dimension in f32.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred
        .broadcast_div(&(variance + eps)?.sqrt()?)?
        .broadcast_mul(&weight.to_dtype(DType::F32)?)?
        .broadcast_add(&bias.to_dtype(DType::F32)?)
}

/// softmax(q k^T scale) v in f32 for `[B, H, N, Dh]`, merged to `[B, N, H * Dv]` in the dtype of `q`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let wide = |t: &Tensor| t.to_dtype(DType::F32)?.contiguous();
    let scores = (wide(q)?.matmul(&wide(k)?.t()?)? * scale)?;
    let powers = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let shares = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
    let merged = shares.matmul(&wide(v)?)?.transpose(1, 2)?.contiguous()?;
    merged.flatten_from(2)?.to_dtype(q.dtype())
}

/// `rows x columns^T` for every image and channel of f32 `x`; the matrices are `[to, from]`.
pub(crate) fn resize(
    x: &Tensor,
    rows: &(Vec<f32>, [usize; 2]),
    columns: &(Vec<f32>, [usize; 2]),
) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let matrix = |(values, shape): &(Vec<f32>, [usize; 2])| {
        Tensor::from_slice(values, &shape[..], x.device())
    };
    let (to_height, to_width) = (rows.1[0], columns.1[0]);
    let wide = x.reshape((batch * channels * height, width))?.matmul(&matrix(columns)?.t()?)?;
    let planes = wide.reshape((batch * channels, height, to_width))?;
    let rows = matrix(rows)?.unsqueeze(0)?;
    let rows = rows.broadcast_as((batch * channels, to_height, height))?.contiguous()?;
    rows.matmul(&planes)?.reshape((batch, channels, to_height, to_width))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::resize_bilinear;

    fn wave(shape: &[usize], step: f64) -> Tensor {
        let data = (0..shape.iter().product()).map(|i: usize| (i as f64 * step).sin() as f32);
        Tensor::from_vec(data.collect(), shape, &Device::Cpu).unwrap()
    }

    /// The result of `op`, and the gradients of a weighted sum of it.
    fn all(op: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Vec<Tensor> {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = op(&tracked).unwrap();
        let loss = (&y * wave(y.dims(), 0.3)).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let mut found = vec![y];
        found.extend(vars.iter().map(|v| gradients.get(v.as_tensor()).unwrap().clone()));
        found
    }

    #[track_caller]
    fn assert_same(
        composed: &dyn Fn(&[Tensor]) -> Result<Tensor>,
        fused: &dyn Fn(&[Tensor]) -> Result<Tensor>,
        inputs: &[Tensor],
    ) {
        for (i, (a, b)) in all(composed, inputs).iter().zip(&all(fused, inputs)).enumerate() {
            assert_eq!(a.dims(), b.dims());
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (a, b) = (flat(a), flat(b));
            let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() / scale < 5e-6, "tensor {i}: {a}, {b}");
            }
        }
    }

    /// Devices without the fused resize compute the same.
    #[test]
    fn composed_and_fused_resizes_agree() {
        let image = wave(&[2, 3, 4, 5], 0.7);
        // Rows and columns of the doubled grid: 3 steps in 7, and 4 in 9.
        let matrix = |from: usize, to: usize| {
            let mut values = vec![0.0; from * to];
            for i in 0..to {
                let at = i as f32 * (from - 1) as f32 / (to - 1) as f32;
                let left = (at as usize).min(from - 2);
                values[i * from + left] = 1.0 - (at - left as f32);
                values[i * from + left + 1] = at - left as f32;
            }
            (values, [to, from])
        };
        assert_same(
            &|t| resize(&t[0], &matrix(4, 8), &matrix(5, 10)),
            &|t| resize_bilinear(&t[0], 8, 10),
            std::slice::from_ref(&image),
        );
    }
}
