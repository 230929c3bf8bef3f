//! The plain supervised ViT (Dosovitskiy et al., arXiv 2010.11929), as the classical baseline.
//!
//! Our own encoder: that of candle-transformers returns logits of a fixed size and no tokens of a
//! block. Positions are resized as transformers does, bicubic by size; the authors' JAX code
//! resizes them linearly.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone vit-b --out cat.safetensors
//! ```

use super::encoder::Make;
use super::{mae, names};
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `vit`.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    mae::plain("vit", config, canonical)
}

/// Names of transformers and of timm. Classifier and pooler read the class token after the final
/// norm; they are not part of the encoder.
fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("vit.").unwrap_or(raw);
    let outside = ["classifier.", "pooler.", "head."];
    match outside.iter().any(|start| name.starts_with(start)) {
        true => Canonical::Ignored,
        false => names::vit(name),
    }
}
