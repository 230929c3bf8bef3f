//! Each operation composed of ordinary candle operations: any device, differentiable.
//!
//! Shapes are checked by the callers.

use candle_core::{D, DType, Result, Tensor};

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
    x.to_dtype(DType::F32)?.gelu_erf()?.to_dtype(x.dtype())
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
