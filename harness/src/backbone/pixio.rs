//! Pixio (arXiv 2512.15715): a plain pre-norm ViT with eight class tokens, pre-trained by masked
//! autoencoding at 256x256 with patch 16.
//!
//! Our own encoder: candle-transformers has no Pixio. Positions are resized as by the authors' code, bicubic by
//! size, which is also what transformers does.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone pixio-l --out cat.safetensors
//! ```

use schema::Fingerprint;
use serde::{Deserialize, Serialize};

use super::config::Fields;
use super::encoder::{Encoder, Make, Positions};
use super::families::Architecture;
use super::position::Resize;
use super::transformer::{BlockShape, Mlp, QkvBias};
use super::{Backbone, Dimensions, Placement, names};
use crate::weights::{Canonical, Expected, NameMap, Weights, WeightsError};

/// What decides a Pixio encoder's computation; hashed into its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixioConfig {
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the hidden layer of a block's MLP.
    pub hidden: usize,
    /// Number of class tokens.
    pub class_tokens: usize,
    /// Side of the pre-training image in pixels.
    pub image: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Epsilon of every layer norm.
    pub eps: f64,
    /// Whether qkv has a bias.
    pub qkv_bias: bool,
}

impl PixioConfig {
    /// Reads transformers' `config.json`; the message names the field that does not fit.
    pub fn from_transformers(config: &serde_json::Value) -> Result<Self, String> {
        let fields = Fields::of(config);
        fields.choice("hidden_act", &[("gelu", ())])?;
        let (image, patch) = fields.sides(256, 16)?;
        let (width, heads) = fields.width(None)?;
        Ok(Self {
            width,
            blocks: fields.size("num_hidden_layers", None)?,
            heads,
            hidden: (fields.number("mlp_ratio", 4.0)? * width as f64) as usize,
            class_tokens: fields.size("n_cls_tokens", Some(8))?,
            image,
            patch,
            eps: fields.number("layer_norm_eps", 1e-6)?,
            qkv_bias: fields.flag("qkv_bias", true)?,
        })
    }

    fn make(&self) -> Make {
        Make {
            family: "pixio",
            blocks: self.blocks,
            block: BlockShape {
                width: self.width,
                hidden: self.hidden,
                heads: self.heads,
                qkv_bias: if self.qkv_bias { QkvBias::Packed } else { QkvBias::None },
                mlp: Mlp::Gelu,
                layer_scale: false,
                eps: self.eps,
            },
            image: self.image,
            patch: self.patch,
            patch_bias: true,
            class_tokens: self.class_tokens,
            registers: 0,
            positions: Positions::Table(Resize::Size),
            pre_norm: false,
            pooling: false,
            flat_tokens: false,
            names: canonical,
        }
    }
}

impl Architecture for PixioConfig {
    fn family(&self) -> &'static str {
        "pixio"
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions { resolution: self.image, ..self.make().dimensions() }
    }

    fn expected(&self) -> Vec<Expected> {
        self.make().expected()
    }

    fn names(&self) -> NameMap {
        canonical
    }

    fn fingerprint(&self) -> Fingerprint {
        schema::fingerprint(&("pixio", self))
    }

    fn positions(&self) -> String {
        self.make().positions()
    }

    fn flops(&self, height: usize, width: usize) -> Option<f64> {
        self.make().flops(height, width)
    }

    fn load(
        &self,
        weights: &Weights,
        placement: &Placement,
    ) -> Result<Box<dyn Backbone>, WeightsError> {
        Ok(Box::new(Encoder::load(&self.make(), weights, placement)?))
    }
}

/// Names of the authors' `.pth` and of both transformers generations, with or without the prefix of
/// a backbone class, to the authors' names.
pub fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("module.").unwrap_or(raw);
    // A backbone class wraps the encoder and has a final norm of its own, which is the one it applies.
    for wrapper in ["pixio.", "encoder."] {
        if let Some(inner) = name.strip_prefix(wrapper) {
            if inner.starts_with("layernorm.") {
                return Canonical::Ignored;
            }
            let inside = ["embeddings.", "encoder.layer.", "layers."];
            if inside.iter().any(|start| inner.starts_with(start)) {
                return canonical(inner);
            }
        }
    }
    names::vit(name)
}

#[cfg(test)]
mod tests;
