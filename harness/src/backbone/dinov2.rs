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
    let original = original_resize(config)?;
    read(&Fields::of(config), 0, (224, 14), original)
}

/// Reads transformers' `config.json` of `dinov2_with_registers`.
pub(super) fn with_registers(config: &serde_json::Value) -> Result<Make, String> {
    let registers = Fields::of(config).count("num_register_tokens", 4)?;
    read(&Fields::of(config), registers, (224, 16), original_resize(config)?)
}

/// Whether positions are resized as by the authors (the default) or as by transformers.
pub(super) fn original_resize(config: &serde_json::Value) -> Result<bool, String> {
    Fields::of(config).choice("position_resize", &[("original", true), ("transformers", false)])
}

/// Reads the fields of a DINOv2; `sides` are image and patch where the configuration has none.
pub(super) fn read(
    fields: &Fields<'_>,
    registers: usize,
    sides: (usize, usize),
    original: bool,
) -> Result<Make, String> {
    let (width, heads) = fields.width(Some((768, 12)))?;
    let (image, patch) = fields.sides(sides.0, sides.1)?;
    let hidden = (fields.number("mlp_ratio", 4.0)? * width as f64) as usize;
    let gated = fields.flag("use_swiglu_ffn", false)?;
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
        names: if gated { gated_names } else { canonical },
    })
}

/// As [`canonical`]; timm calls the two layers of SwiGLU as those of any other MLP.
fn gated_names(raw: &str) -> Canonical {
    match canonical(raw) {
        Canonical::Whole(name) => {
            let name = name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.");
            Canonical::Whole(name)
        }
        other => other,
    }
}

/// Names of the authors' `.pth`, of timm and of transformers, with or without the prefix of a model
/// around the encoder.
pub(super) fn canonical(raw: &str) -> Canonical {
    let inner = ["dinov2_with_registers.", "dinov2."].iter().find_map(|p| raw.strip_prefix(p));
    match inner.unwrap_or(raw) {
        name if name.starts_with("classifier.") => Canonical::Ignored,
        name => names::vit(name),
    }
}
