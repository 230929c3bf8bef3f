//! DINOv2 (Oquab et al., arXiv 2304.07193), without and with registers (Darcet et al., arXiv
//! 2309.16588): LayerScale, and SwiGLU in the giant size.
//!
//! Our own encoder: that of candle-transformers fixes the image at 518 pixels and resizes positions
//! by nearest neighbour. Positions are resized as by the authors' code: by the factor
//! (new + 0.1) / old without registers, by size and antialiased with them. transformers resizes both
//! by size; `"position_resize": "transformers"` in config.json asks for that.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone dinov2-l --out cat.safetensors
//! ```

use super::config::Fields;
use super::encoder::{Make, Positions};
use super::names;
use super::position::Resize;
use super::transformer::{BlockShape, Mlp, QkvBias};
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `dinov2`.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    read(config, 0, 14)
}

/// Reads transformers' `config.json` of `dinov2_with_registers`.
pub(super) fn with_registers(config: &serde_json::Value) -> Result<Make, String> {
    read(config, Fields::of(config).count("num_register_tokens", 4)?, 16)
}

fn read(config: &serde_json::Value, registers: usize, patch: usize) -> Result<Make, String> {
    let fields = Fields::of(config);
    let (width, heads) = fields.width(Some((768, 12)))?;
    let (image, patch) = fields.sides(224, patch)?;
    let hidden = (fields.number("mlp_ratio", 4.0)? * width as f64) as usize;
    let gated = fields.flag("use_swiglu_ffn", false)?;
    let original =
        fields.choice("position_resize", &[("original", true), ("transformers", false)])?;
    let resize = match (registers > 0, original) {
        (true, _) => Resize::SizeAntialias,
        (false, true) => Resize::FactorOffset,
        (false, false) => Resize::Size,
    };
    let biased = fields.flag("qkv_bias", true)?;
    Ok(Make {
        family: if registers > 0 { "dinov2_with_registers" } else { "dinov2" },
        blocks: fields.size("num_hidden_layers", Some(12))?,
        block: BlockShape {
            width,
            // The authors keep two thirds of the hidden width, rounded up to a multiple of 8.
            hidden: if gated { (hidden * 2 / 3).div_ceil(8) * 8 } else { hidden },
            heads,
            qkv_bias: if biased { QkvBias::Packed } else { QkvBias::None },
            mlp: if gated { Mlp::SwiGlu } else { fields.activation(Mlp::Gelu)? },
            layer_scale: true,
            eps: fields.number("layer_norm_eps", 1e-6)?,
        },
        image,
        patch,
        patch_bias: true,
        class_tokens: 1,
        registers,
        positions: Positions::Table(resize),
        pre_norm: false,
        pooling: false,
        flat_tokens: false,
        names: canonical,
    })
}

/// Names of the authors' `.pth` and of transformers, with or without the prefix of a model around
/// the encoder.
fn canonical(raw: &str) -> Canonical {
    let inner = ["dinov2_with_registers.", "dinov2."].iter().find_map(|p| raw.strip_prefix(p));
    match inner.unwrap_or(raw) {
        name if name.starts_with("classifier.") => Canonical::Ignored,
        name => names::vit(name),
    }
}
