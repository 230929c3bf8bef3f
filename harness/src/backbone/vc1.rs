//! VC-1 (Majumdar et al., arXiv 2303.18240): a plain ViT pre-trained by masked autoencoding on videos of
//! people and on images, for robots. Policies see its class token after the final norm.
//!
//! Our own encoder, MAE's: candle-transformers has none. Positions are resized as by the authors' code,
//! bicubic by size. The authors' checkpoint (a state dict under `model`) has MAE's names; its repository has no
//! `config.json` of transformers, so that the size comes from backbones.toml.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone vc1-b --out cat.safetensors
//! ```

use super::encoder::Make;
use super::mae;

/// Reads a configuration in the form of transformers' `vit_mae`, with the authors' epsilon.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    mae::plain("vc1", config, 1e-6, mae::canonical)
}
