//! Attention pooling (SigLIP, arXiv 2303.15343): one learned query attends to all patches, then an
//! MLP with a residual.

use candle_core::{DType, Device, Result, Tensor};

use super::transformer::{BlockShape, Dense, Mlp, Norm};
use crate::weights::{Expected, Weights, WeightsError};

/// The head.
pub(super) struct Pooling {
    heads: usize,
    /// `[1, 1, D]`.
    probe: Tensor,
    qkv: Dense,
    proj: Dense,
    norm: Norm,
    mlp: Mlp,
    fc1: Dense,
    fc2: Dense,
}

impl Pooling {
    pub(super) fn expected(shape: &BlockShape, to: &mut Vec<Expected>) {
        let BlockShape { width, hidden, .. } = *shape;
        to.push(Expected { name: "head.probe".to_owned(), shape: vec![1, 1, width] });
        Dense::expected("head.qkv", &[3 * width, width], true, to);
        Dense::expected("head.proj", &[width, width], true, to);
        Norm::expected("head.norm", width, to);
        Dense::expected("head.mlp.fc1", &[hidden, width], true, to);
        Dense::expected("head.mlp.fc2", &[width, hidden], true, to);
    }

    pub(super) fn load(
        weights: &Weights,
        shape: &BlockShape,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let dense = |name| Dense::load(weights, name, true, dtype, device);
        Ok(Self {
            heads: shape.heads,
            probe: weights.load("head.probe", DType::F32, device)?,
            qkv: dense("head.qkv")?,
            proj: dense("head.proj")?,
            norm: Norm::load(weights, "head.norm", shape.eps, device)?,
            mlp: shape.mlp,
            fc1: dense("head.mlp.fc1")?,
            fc2: dense("head.mlp.fc2")?,
        })
    }

    /// Final-norm patches `[B, N, D] -> [B, 1, D]`, f32.
    pub(super) fn forward(&self, patches: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = patches.dims3()?;
        let part = |x: &Tensor, i: usize| -> Result<Tensor> {
            let weight = self.qkv.weight.narrow(0, i * width, width)?.contiguous()?;
            let bias = match &self.qkv.bias {
                Some(bias) => Some(bias.narrow(0, i * width, width)?.contiguous()?),
                None => None,
            };
            let y = ops::linear(x, &weight, bias.as_ref())?;
            let (batch, tokens, _) = y.dims3()?;
            y.reshape((batch, tokens, self.heads, width / self.heads))?.transpose(1, 2)
        };
        let probe = self.probe.expand((batch, 1, width))?.contiguous()?;
        let (q, k, v) = (part(&probe, 0)?, part(patches, 1)?, part(patches, 2)?);
        let attended = ops::attention_qkv(&q, &k, &v, None)?;
        let x = self.proj.forward(&attended)?.to_dtype(DType::F32)?;
        let hidden = self.mlp.hidden(&self.norm.forward(&x)?, &self.fc1)?;
        ops::linear_residual(&hidden, &self.fc2.weight, self.fc2.bias.as_ref(), &x)
    }
}
