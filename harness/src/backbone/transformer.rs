//! The pre-norm transformer block that vision encoders share.

use candle_core::{DType, Device, Result, Tensor};
use serde::Serialize;

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

    /// `[.., D] -> [.., D]` for `layer` alone: rounded to its dtype, as it would do.
    fn forward_for(&self, x: &Tensor, layer: &Dense) -> Result<Tensor> {
        ops::layer_norm_as(x, &self.weight, &self.bias, self.eps, layer.weight.dtype())
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

    /// As [`Dense::load`], with every output multiplied by its element of the vector `scale`.
    fn load_scaled(
        weights: &Weights,
        name: &str,
        scale: &str,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let exact = Self::load(weights, name, true, DType::F32, device)?;
        let scale = weights.load(scale, DType::F32, device)?;
        let scaled = || -> Result<Self> {
            let weight = exact.weight.broadcast_mul(&scale.unsqueeze(1)?)?.to_dtype(dtype)?;
            let bias = match &exact.bias {
                Some(bias) => Some((bias * &scale)?.to_dtype(dtype)?),
                None => None,
            };
            Ok(Self { weight, bias })
        };
        scaled().map_err(|source| WeightsError::Convert { name: name.to_owned(), source })
    }

    /// `[.., in] -> [.., out]`, in the weight's dtype.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    /// `stream + forward(x)`, and that as `norm` leaves it for a layer of the same dtype.
    fn added(&self, x: &Tensor, stream: &Tensor, norm: &Norm) -> Result<(Tensor, Tensor)> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        let scale = [&norm.weight, &norm.bias];
        ops::linear_residual_norm(x, weight, bias, stream, scale, norm.eps)
    }

    pub(super) fn expected(name: &str, shape: &[usize], bias: bool, to: &mut Vec<Expected>) {
        to.push(Expected { name: format!("{name}.weight"), shape: shape.to_vec() });
        if bias {
            to.push(Expected { name: format!("{name}.bias"), shape: vec![shape[0]] });
        }
    }
}

/// Which parts of the joint query, key and value projection have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum QkvBias {
    /// None.
    None,
    /// All, in one tensor.
    Packed,
    /// Each on its own: `attn.q.bias`, `attn.k.bias`, `attn.v.bias`, where it has one.
    Split {
        /// The query.
        query: bool,
        /// The key.
        key: bool,
        /// The value.
        value: bool,
    },
}

impl QkvBias {
    fn split(self) -> Option<[(&'static str, bool); 3]> {
        match self {
            Self::Split { query, key, value } => Some([("q", query), ("k", key), ("v", value)]),
            _ => None,
        }
    }
}

/// The hidden layer of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Mlp {
    /// Exact (erf) GELU.
    Gelu,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
    /// GELU by the tanh approximation.
    GeluTanh,
    /// `silu(a) * b` of a projection to twice the width (Shazeer, arXiv 2002.05202).
    SwiGlu,
}

impl Mlp {
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::SwiGlu => ["mlp.w12", "mlp.w3"],
            _ => ["mlp.fc1", "mlp.fc2"],
        }
    }

    /// `[.., D] -> [.., hidden]`, in the weight's dtype.
    pub(super) fn hidden(self, x: &Tensor, layer: &Dense) -> Result<Tensor> {
        if self == Self::Gelu {
            return ops::linear_gelu(x, &layer.weight, layer.bias.as_ref());
        }
        let activation = match self {
            Self::Gelu => ops::Activation::Gelu,
            Self::QuickGelu => ops::Activation::QuickGelu,
            Self::GeluTanh => ops::Activation::GeluTanh,
            Self::SwiGlu => ops::Activation::SwiGlu,
        };
        ops::activate(&layer.forward(x)?, activation)
    }
}

/// Rotary position embedding (Su et al., arXiv 2104.09864) of some grid: cosines and sines
/// `[N, D / heads]` over all tokens, 1 and 0 for those without a place on the grid.
pub(super) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// `x + scale1 attention(norm1(x))`, then `x + scale2 mlp(norm2(x))`; the residual stream is f32. The
/// scales (LayerScale, Touvron et al., arXiv 2103.17239), where there are any, are multiplied into
/// the layers before them when those are loaded.
pub(super) struct Block {
    heads: usize,
    norm1: Norm,
    qkv: Dense,
    proj: Dense,
    norm2: Norm,
    mlp: Mlp,
    fc1: Dense,
    fc2: Dense,
}

/// What a block's tensors look like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct BlockShape {
    pub(super) width: usize,
    /// Width of the MLP's hidden layer (of SwiGLU's product).
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) qkv_bias: QkvBias,
    pub(super) mlp: Mlp,
    pub(super) layer_scale: bool,
    pub(super) eps: f64,
}

impl Block {
    /// The tensors of block `i`, by the names the Pixio, MAE and DINOv2 authors use.
    pub(super) fn expected(i: usize, shape: &BlockShape, to: &mut Vec<Expected>) {
        let BlockShape { width, hidden, qkv_bias, mlp, .. } = *shape;
        let at = |part: &str| format!("blocks.{i}.{part}");
        let vector = |part: &str| Expected { name: at(part), shape: vec![width] };
        Norm::expected(&at("norm1"), width, to);
        let packed = qkv_bias == QkvBias::Packed;
        Dense::expected(&at("attn.qkv"), &[3 * width, width], packed, to);
        let split = qkv_bias.split().into_iter().flatten().filter(|(_, there)| *there);
        to.extend(split.map(|(part, _)| vector(&format!("attn.{part}.bias"))));
        Dense::expected(&at("attn.proj"), &[width, width], true, to);
        Norm::expected(&at("norm2"), width, to);
        let [fc1, fc2] = mlp.names().map(at);
        let rows = if mlp == Mlp::SwiGlu { 2 * hidden } else { hidden };
        Dense::expected(&fc1, &[rows, width], true, to);
        Dense::expected(&fc2, &[width, hidden], true, to);
        if shape.layer_scale {
            to.extend(["ls1.gamma", "ls2.gamma"].map(vector));
        }
    }

    pub(super) fn load(
        weights: &Weights,
        i: usize,
        shape: &BlockShape,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let at = |part: &str| format!("blocks.{i}.{part}");
        let norm = |part| Norm::load(weights, &at(part), shape.eps, device);
        let scaled = |part: &str, scale: &str| match shape.layer_scale {
            true => Dense::load_scaled(weights, &at(part), &at(scale), dtype, device),
            false => Dense::load(weights, &at(part), true, dtype, device),
        };
        let packed = shape.qkv_bias == QkvBias::Packed;
        let mut qkv = Dense::load(weights, &at("attn.qkv"), packed, dtype, device)?;
        if let Some(parts) = shape.qkv_bias.split() {
            let convert = |source| WeightsError::Convert { name: at("attn.qkv.bias"), source };
            let mut biases = Vec::with_capacity(3);
            for (part, there) in parts {
                biases.push(match there {
                    true => weights.load(&at(&format!("attn.{part}.bias")), dtype, device)?,
                    false => Tensor::zeros(shape.width, dtype, device).map_err(convert)?,
                });
            }
            qkv.bias = Some(Tensor::cat(&biases, 0).map_err(convert)?);
        }
        let [fc1, fc2] = shape.mlp.names();
        Ok(Self {
            heads: shape.heads,
            norm1: norm("norm1")?,
            qkv,
            proj: scaled("attn.proj", "ls1.gamma")?,
            norm2: norm("norm2")?,
            mlp: shape.mlp,
            fc1: Dense::load(weights, &at(fc1), true, dtype, device)?,
            fc2: scaled(fc2, "ls2.gamma")?,
        })
    }

    /// The tokens after this block; normalised for `next`, where one is to follow, in the pass that adds
    /// this block's last layer to them.
    pub(super) fn forward(
        &self,
        tokens: &Tokens,
        rotation: Option<&Rotation>,
        next: Option<&Self>,
    ) -> Result<Tokens> {
        let normalised = match &tokens.normalised {
            Some(normalised) => normalised.clone(),
            None => self.norm1.forward_for(&tokens.x, &self.qkv)?,
        };
        let qkv = self.qkv.forward(&normalised)?;
        let attended = match rotation {
            None => ops::attention(&qkv, self.heads, None)?,
            Some(rotation) => {
                let [q, k, v] = ops::rotate_heads(&qkv, self.heads, &rotation.cos, &rotation.sin)?;
                ops::attention_qkv(&q, &k, &v, None)?
            }
        };
        let (x, normalised) = self.proj.added(&attended, &tokens.x, &self.norm2)?;
        let hidden = self.mlp.hidden(&normalised, &self.fc1)?;
        match next {
            Some(next) => {
                let (x, normalised) = self.fc2.added(&hidden, &x, &next.norm1)?;
                Ok(Tokens { x, normalised: Some(normalised) })
            }
            None => {
                let (weight, bias) = (&self.fc2.weight, self.fc2.bias.as_ref());
                ops::linear_residual(&hidden, weight, bias, &x).map(Tokens::from)
            }
        }
    }
}

/// What goes from block to block.
pub(super) struct Tokens {
    /// The residual stream, `[B, N, D]`, f32.
    pub(super) x: Tensor,
    /// The same as the next block's first norm leaves it, where that has been computed.
    normalised: Option<Tensor>,
}

impl From<Tensor> for Tokens {
    fn from(x: Tensor) -> Self {
        Self { x, normalised: None }
    }
}
