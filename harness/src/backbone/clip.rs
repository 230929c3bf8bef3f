//! The image encoder of CLIP (Radford et al., arXiv 2103.00020): quick GELU, a norm before the
//! blocks, a patch projection without bias.
//!
//! Our own encoder: that of candle-transformers takes one image size. transformers' pooled output
//! is the class token of the last block after the final norm; the projection to the space of texts is
//! not part of the encoder. The authors' code resizes no positions: ours does as transformers, bicubic
//! by size, or as timm, antialiased, with `"position_resize": "timm"` in config.json.
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
        positions: Positions::Table(fields.choice(
            "position_resize",
            &[("transformers", Resize::Size), ("timm", Resize::SizeAntialias)],
        )?),
        pre_norm: true,
        pooling: false,
        flat_tokens: true,
        names: canonical,
    })
}

/// Names of transformers, of the image encoder alone or of the model of images and texts; of the
/// authors' code; and of timm.
fn canonical(raw: &str) -> Canonical {
    if let Some(name) = raw.strip_prefix("visual.") {
        return original(name);
    }
    // The authors' encoder of texts.
    let texts = ["transformer.", "token_embedding.", "ln_final."];
    if raw == "positional_embedding" || texts.iter().any(|start| raw.starts_with(start)) {
        return Canonical::Ignored;
    }
    let name = raw.strip_prefix("vision_model.").unwrap_or(raw);
    match name {
        "embeddings.class_embedding" => return Canonical::Whole("cls_token".to_owned()),
        "logit_scale" | "text_projection" => return Canonical::Ignored,
        _ => {}
    }
    if let Some(leaf) = name.strip_prefix("pre_layrnorm.") {
        return Canonical::Whole(format!("norm_pre.{leaf}"));
    }
    match tower(name) {
        Canonical::Unknown => timm(name),
        known => known,
    }
}

/// Names of timm; its classifier is a projection to the space of texts.
fn timm(name: &str) -> Canonical {
    match name {
        "norm_pre.weight" | "norm_pre.bias" => Canonical::Whole(name.to_owned()),
        "head.weight" | "head.bias" => Canonical::Ignored,
        name => names::vit(name),
    }
}

/// Names of the authors' code, inside its image encoder.
fn original(name: &str) -> Canonical {
    let whole = |name: &str| Canonical::Whole(name.to_owned());
    match name {
        "proj" => return Canonical::Ignored,
        "conv1.weight" => return whole("patch_embed.proj.weight"),
        "class_embedding" => return whole("cls_token"),
        "positional_embedding" => return whole("pos_embed"),
        _ => {}
    }
    for (from, to) in [("ln_pre.", "norm_pre."), ("ln_post.", "norm.")] {
        if let Some(leaf) = name.strip_prefix(from) {
            return whole(&format!("{to}{leaf}"));
        }
    }
    let Some(rest) = name.strip_prefix("transformer.resblocks.") else {
        return Canonical::Unknown;
    };
    let Some((number, part)) = rest.split_once('.') else { return Canonical::Unknown };
    let renamed = [
        ("ln_1.", "norm1."),
        ("ln_2.", "norm2."),
        ("attn.in_proj_", "attn.qkv."),
        ("attn.out_proj.", "attn.proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    let known = renamed.iter().find_map(|(from, to)| Some((to, part.strip_prefix(from)?)));
    known.map_or(Canonical::Unknown, |(to, leaf)| names::block(&format!("{number}.{to}{leaf}")))
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
