//! The plain supervised ViT (Dosovitskiy et al., arXiv 2010.11929), as the classical baseline.
//!
//! Our own encoder: that of candle-transformers returns logits of a fixed size and no tokens of a
//! block, and without logits no other size. Positions are resized as by the authors' JAX code, linear between
//! corners; `"position_resize"` in config.json asks for `"transformers"` (bicubic by size) or `"timm"` (the same,
//! antialiased).
//!
//! ```text
//! pixio-eval features cat.jpg --backbone vit-b --out cat.safetensors
//! ```

use super::config::Fields;
use super::encoder::{Make, Positions};
use super::position::Resize;
use super::{mae, names};
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `vit`.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    let plain = mae::plain("vit", config, 1e-12, canonical)?;
    Ok(Make { positions: Positions::Table(resize(config)?), ..plain })
}

/// How positions are resized: as by the authors of ViT and SigLIP unless another code's way is asked for.
pub(super) fn resize(config: &serde_json::Value) -> Result<Resize, String> {
    Fields::of(config).choice(
        "position_resize",
        &[
            ("original", Resize::LinearCorners),
            ("transformers", Resize::Size),
            ("timm", Resize::SizeAntialias),
        ],
    )
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
