//! DINOv3 ViT (Siméoni et al., arXiv 2508.10104): rotary positions of patches, registers,
//! LayerScale, keys without a bias, SwiGLU in the sizes S+, H+ and 7B.
//!
//! Our own encoder: that of candle-transformers has no tokens of single blocks. Shifting, jittering and
//! rescaling of positions belong to training and are never applied.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone dinov3-l --out cat.safetensors
//! ```

use super::config::Fields;
use super::encoder::{Make, Positions};
use super::names;
use super::transformer::{BlockShape, Mlp, QkvBias};
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `dinov3_vit`.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    let fields = Fields::of(config);
    let (width, heads) = fields.width(Some((384, 6)))?;
    if width / heads % 4 != 0 {
        return Err(format!(
            "hidden_size {width} makes heads of {}; expected a multiple of 4",
            width / heads
        ));
    }
    let (image, patch) = fields.sides(224, 16)?;
    for key in ["proj_bias", "mlp_bias"] {
        if !fields.flag(key, true)? {
            return Err(format!("{key} is false; expected true"));
        }
    }
    let gated = fields.flag("use_gated_mlp", false)?;
    let mlp = match gated {
        true => fields.choice("hidden_act", &[("silu", Mlp::SwiGlu)])?,
        false => fields.activation(Mlp::Gelu)?,
    };
    Ok(Make {
        family: "dinov3_vit",
        blocks: fields.size("num_hidden_layers", Some(12))?,
        block: BlockShape {
            width,
            hidden: fields.size("intermediate_size", Some(1536))?,
            heads,
            qkv_bias: QkvBias::Split {
                query: fields.flag("query_bias", true)?,
                key: fields.flag("key_bias", false)?,
                value: fields.flag("value_bias", true)?,
            },
            mlp,
            layer_scale: true,
            eps: fields.number("layer_norm_eps", 1e-5)?,
        },
        image,
        patch,
        patch_bias: true,
        class_tokens: 1,
        registers: fields.count("num_register_tokens", 0)?,
        positions: Positions::Rotary(fields.number("rope_theta", 100.0)?),
        pre_norm: false,
        pooling: false,
        flat_tokens: false,
        names: if gated { gated_names } else { plain_names },
    })
}

fn gated_names(raw: &str) -> Canonical {
    canonical(raw, true)
}

fn plain_names(raw: &str) -> Canonical {
    canonical(raw, false)
}

/// Names of transformers and of the authors' `.pth`.
fn canonical(raw: &str, gated: bool) -> Canonical {
    let name = raw.strip_prefix("model.").unwrap_or(raw);
    // The authors' rotation, the mask that silences keys' biases, and a norm of training alone.
    let outside = ["rope_embed.periods", "local_cls_norm.weight", "local_cls_norm.bias"];
    if outside.contains(&name) || name.ends_with(".attn.qkv.bias_mask") {
        return Canonical::Ignored;
    }
    if let Some(block) = name.strip_suffix(".attn.qkv.bias") {
        let part = |part: &str| Some(format!("{block}.attn.{part}.bias"));
        return Canonical::Split(vec![part("q"), None, part("v")]);
    }
    if let Some(leaf) = name.strip_prefix("embeddings.patch_embeddings.") {
        return Canonical::Whole(format!("patch_embed.proj.{leaf}"));
    }
    let Some(rest) = name.strip_prefix("layer.") else { return names::vit(name) };
    if let Some((number, part)) = rest.split_once('.') {
        let at = |name: &str| Canonical::Whole(format!("blocks.{number}.{name}"));
        match part {
            "attention.q_proj.bias" => return at("attn.q.bias"),
            "attention.k_proj.bias" => return at("attn.k.bias"),
            "attention.v_proj.bias" => return at("attn.v.bias"),
            _ => {}
        }
        if let (false, Some((mlp, leaf))) = (gated, part.rsplit_once('.')) {
            match mlp {
                "mlp.up_proj" => return at(&format!("mlp.fc1.{leaf}")),
                "mlp.down_proj" => return at(&format!("mlp.fc2.{leaf}")),
                _ => {}
            }
        }
    }
    names::block(rest)
}
