//! The image encoder of SigLIP (Zhai et al., arXiv 2303.15343) and of SigLIP 2 at fixed resolution
//! (Tschannen et al., arXiv 2502.14786): no class token; a head pools the patches by attention.
//!
//! Our own encoder: that of candle-transformers has neither taps nor other image sizes than its own.
//! Positions are resized as by the authors' JAX code, linear between corners; `"position_resize"` in
//! config.json asks for `"transformers"` (bicubic by size) or `"timm"` (the same, antialiased).
//!
//! ```text
//! pixio-eval features cat.jpg --backbone siglip2-l --out cat.safetensors
//! ```

use super::config::Fields;
use super::encoder::{Make, Positions};
use super::transformer::{BlockShape, Mlp, QkvBias};
use super::{clip, vit};
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `siglip` or `siglip_vision_model`.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    let fields = Fields::of(config);
    let (width, heads) = fields.width(Some((768, 12)))?;
    let (image, patch) = fields.sides(224, 16)?;
    Ok(Make {
        family: "siglip",
        blocks: fields.size("num_hidden_layers", Some(12))?,
        block: BlockShape {
            width,
            hidden: fields.size("intermediate_size", Some(3072))?,
            heads,
            qkv_bias: QkvBias::Packed,
            mlp: fields.activation(Mlp::GeluTanh)?,
            layer_scale: false,
            eps: fields.number("layer_norm_eps", 1e-6)?,
        },
        image,
        patch,
        patch_bias: true,
        class_tokens: 0,
        registers: 0,
        positions: Positions::Table(vit::resize(config)?),
        pre_norm: false,
        pooling: fields.flag("vision_use_head", true)?,
        flat_tokens: true,
        names: canonical,
    })
}

/// Names of transformers, of the image encoder alone or of the model of images and texts.
fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("vision_model.").unwrap_or(raw);
    if matches!(name, "logit_scale" | "logit_bias") {
        return Canonical::Ignored;
    }
    let Some(part) = name.strip_prefix("head.") else { return clip::tower(name) };
    let renamed = match part {
        "probe" => "probe".to_owned(),
        "attention.in_proj_weight" => "qkv.weight".to_owned(),
        "attention.in_proj_bias" => "qkv.bias".to_owned(),
        part => match part.rsplit_once('.') {
            Some(("attention.out_proj", leaf)) => format!("proj.{leaf}"),
            Some(("layernorm", leaf)) => format!("norm.{leaf}"),
            Some((mlp @ ("mlp.fc1" | "mlp.fc2"), leaf)) => format!("{mlp}.{leaf}"),
            _ => return Canonical::Unknown,
        },
    };
    Canonical::Whole(format!("head.{renamed}"))
}
