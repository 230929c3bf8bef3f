//! MAE (He et al., arXiv 2111.06377): a plain ViT pre-trained by masked autoencoding. As a frozen
//! encoder it sees every patch, in order: masking and shuffling belong to pre-training.
//!
//! Our own encoder: candle-transformers has no MAE. Positions are resized as by the authors'
//! fine-tuning code, bicubic by size, which is also what transformers does.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone mae-l --out cat.safetensors
//! ```

use super::config::Fields;
use super::encoder::{Make, Positions};
use super::names;
use super::position::Resize;
use super::transformer::{BlockShape, Mlp, QkvBias};
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `vit_mae`.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    plain("mae", config, 1e-12, canonical)
}

/// A plain ViT with one class token, as MAE and the supervised ViT are; `eps` of its norms where the
/// configuration has none.
pub(super) fn plain(
    family: &'static str,
    config: &serde_json::Value,
    eps: f64,
    names: fn(&str) -> Canonical,
) -> Result<Make, String> {
    let fields = Fields::of(config);
    let (width, heads) = fields.width(Some((768, 12)))?;
    let (image, patch) = fields.sides(224, 16)?;
    let biased = fields.flag("qkv_bias", true)?;
    Ok(Make {
        family,
        blocks: fields.size("num_hidden_layers", Some(12))?,
        block: BlockShape {
            width,
            hidden: fields.size("intermediate_size", Some(3072))?,
            heads,
            qkv_bias: if biased { QkvBias::Packed } else { QkvBias::None },
            mlp: fields.activation(Mlp::Gelu)?,
            layer_scale: false,
            eps: fields.number("layer_norm_eps", eps)?,
        },
        image,
        patch,
        patch_bias: true,
        class_tokens: 1,
        registers: 0,
        positions: Positions::Table(Resize::Size),
        pre_norm: false,
        pooling: false,
        flat_tokens: false,
        names,
    })
}

/// Names of the authors' `.pth` and of transformers, with or without the prefix of a model around
/// the encoder. The decoder and a fine-tuned head are not part of it.
pub(super) fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("module.").unwrap_or(raw);
    match name.strip_prefix("vit.").unwrap_or(name) {
        "head.weight" | "head.bias" | "fc_norm.weight" | "fc_norm.bias" => Canonical::Ignored,
        name => names::vit(name),
    }
}
