//! The image encoder of CLIP (Radford et al., arXiv 2103.00020): quick GELU, a norm before the
//! blocks, a patch projection without bias.
//!
//! Our own encoder: that of candle-transformers takes one image size. transformers' pooled output
//! is the class token of the last block after the final norm; the projection to the space of texts is
//! not part of the encoder. The authors' code resizes no positions: ours does as transformers,
//! bicubic by size.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone clip-l14 --out cat.safetensors
//! ```

use super::config::Fields;
use super::encoder::{Make, Positions};
use super::names;
use super::position::Resize;
use super::transformer::{BlockShape, Mlp, QkvBias};
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `clip` or `clip_vision_model`.
pub(super) fn from_transformers(config: &serde_json::Value) -> Result<Make, String> {
    let fields = Fields::of(config);
    let (width, heads) = fields.width(Some((768, 12)))?;
    let (image, patch) = fields.sides(224, 32)?;
    Ok(Make {
        family: "clip",
        blocks: fields.size("num_hidden_layers", Some(12))?,
        block: BlockShape {
            width,
            hidden: fields.size("intermediate_size", Some(3072))?,
            heads,
            qkv_bias: QkvBias::Packed,
            mlp: fields.activation(Mlp::QuickGelu)?,
            layer_scale: false,
            eps: fields.number("layer_norm_eps", 1e-5)?,
        },
        image,
        patch,
        patch_bias: false,
        class_tokens: 1,
        registers: 0,
        positions: Positions::Table(Resize::Size),
        pre_norm: true,
        pooling: false,
        flat_tokens: true,
        names: canonical,
    })
}

/// Names of transformers, of the image encoder alone or of the model of images and texts.
fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("vision_model.").unwrap_or(raw);
    match name {
        "embeddings.class_embedding" => return Canonical::Whole("cls_token".to_owned()),
        "logit_scale" => return Canonical::Ignored,
        _ => {}
    }
    if let Some(leaf) = name.strip_prefix("pre_layrnorm.") {
        return Canonical::Whole(format!("norm_pre.{leaf}"));
    }
    tower(name)
}

/// A tensor of a tower as CLIP and SigLIP share it in transformers.
pub(super) fn tower(name: &str) -> Canonical {
    let outside = ["text_model.", "text_projection.", "visual_projection."];
    if outside.iter().any(|start| name.starts_with(start)) || name.ends_with("position_ids") {
        return Canonical::Ignored;
    }
    let renamed =
        [("embeddings.patch_embedding.", "patch_embed.proj."), ("post_layernorm.", "norm.")];
    for (from, to) in renamed {
        if let Some(leaf) = name.strip_prefix(from) {
            return Canonical::Whole(format!("{to}{leaf}"));
        }
    }
    if name == "embeddings.position_embedding.weight" {
        return Canonical::Whole("pos_embed".to_owned());
    }
    name.strip_prefix("encoder.layers.").map_or(Canonical::Unknown, names::block)
}
