//! The pre-norm transformer block that vision encoders share.

use candle_core::{DType, Device, Result, Tensor};

use crate::weights::{Expected, Weights, WeightsError};

/// Scale and shift of a layer norm, f32.
pub(super) struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    pub(super) fn load(
        weights: &Weights,
        name: &str,
        eps: f64,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let get = |part| weights.load(&format!("{name}.{part}"), DType::F32, device);
        Ok(Self { weight: get("weight")?, bias: get("bias")?, eps })
    }

    pub(super) fn expected(name: &str, width: usize, to: &mut Vec<Expected>) {
        for part in ["weight", "bias"] {
            to.push(Expected { name: format!("{name}.{part}"), shape: vec![width] });
        }
    }

    /// `[.., D] -> [.., D]`, f32.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// A dense layer's weight `[out, in]` in the autocast type, and bias `[out]`.
pub(super) struct Dense {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

impl Dense {
    pub(super) fn load(
        weights: &Weights,
        name: &str,
        bias: bool,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let weight = weights.load(&format!("{name}.weight"), dtype, device)?;
        let weight = match weight.dims() {
            [_, _] => weight,
            // A patch convolution, seen as a dense layer on flattened patches.
            _ => weight
                .flatten_from(1)
                .map_err(|source| WeightsError::Convert { name: name.to_owned(), source })?,
        };
        let bias = match bias {
            true => Some(weights.load(&format!("{name}.bias"), dtype, device)?),
            false => None,
        };
        Ok(Self { weight, bias })
    }

    pub(super) fn expected(name: &str, shape: &[usize], bias: bool, to: &mut Vec<Expected>) {
        to.push(Expected { name: format!("{name}.weight"), shape: shape.to_vec() });
        if bias {
            to.push(Expected { name: format!("{name}.bias"), shape: vec![shape[0]] });
        }
    }
}

/// `x + attention(norm1(x))`, then `x + mlp(norm2(x))`, with exact GELU; the residual stream is f32.
pub(super) struct Block {
    heads: usize,
    norm1: Norm,
    qkv: Dense,
    proj: Dense,
    norm2: Norm,
    fc1: Dense,
    fc2: Dense,
}

/// What a block's tensors look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockShape {
    pub(super) width: usize,
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) qkv_bias: bool,
    pub(super) eps: f64,
}

impl Block {
    /// The tensors of block `i`, by the names the Pixio, MAE and DINOv2 authors use.
    pub(super) fn expected(i: usize, shape: &BlockShape, to: &mut Vec<Expected>) {
        let BlockShape { width, hidden, qkv_bias, .. } = *shape;
        let at = |part: &str| format!("blocks.{i}.{part}");
        Norm::expected(&at("norm1"), width, to);
        Dense::expected(&at("attn.qkv"), &[3 * width, width], qkv_bias, to);
        Dense::expected(&at("attn.proj"), &[width, width], true, to);
        Norm::expected(&at("norm2"), width, to);
        Dense::expected(&at("mlp.fc1"), &[hidden, width], true, to);
        Dense::expected(&at("mlp.fc2"), &[width, hidden], true, to);
    }

    pub(super) fn load(
        weights: &Weights,
        i: usize,
        shape: &BlockShape,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let at = |part: &str| format!("blocks.{i}.{part}");
        let dense = |part, bias| Dense::load(weights, &at(part), bias, dtype, device);
        let norm = |part| Norm::load(weights, &at(part), shape.eps, device);
        Ok(Self {
            heads: shape.heads,
            norm1: norm("norm1")?,
            qkv: dense("attn.qkv", shape.qkv_bias)?,
            proj: dense("attn.proj", true)?,
            norm2: norm("norm2")?,
            fc1: dense("mlp.fc1", true)?,
            fc2: dense("mlp.fc2", true)?,
        })
    }

    /// `[B, N, D] -> [B, N, D]`, f32.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = ops::linear(&self.norm1.forward(x)?, &self.qkv.weight, self.qkv.bias.as_ref())?;
        let attended = ops::attention(&qkv, self.heads, None)?;
        let x = ops::linear_residual(&attended, &self.proj.weight, self.proj.bias.as_ref(), x)?;
        let hidden =
            ops::linear_gelu(&self.norm2.forward(&x)?, &self.fc1.weight, self.fc1.bias.as_ref())?;
        ops::linear_residual(&hidden, &self.fc2.weight, self.fc2.bias.as_ref(), &x)
    }
}
