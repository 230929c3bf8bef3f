//! Names of tensors in published checkpoints, to those the authors of MAE and DINOv2 use; timm's are the
//! same for a plain encoder.

use crate::weights::Canonical;

/// A tensor of a plain vision transformer, by the authors' name or by that of either transformers
/// generation.
pub(super) fn vit(name: &str) -> Canonical {
    let whole = |name: &str| Canonical::Whole(name.to_owned());
    if name.starts_with("decoder") || name.ends_with("mask_token") {
        return Canonical::Ignored;
    }
    if let Some(leaf) = name.strip_prefix("embeddings.patch_embeddings.projection.") {
        return Canonical::Whole(format!("patch_embed.proj.{leaf}"));
    }
    match name {
        "cls_token" | "embeddings.cls_token" => return whole("cls_token"),
        "pos_embed" | "embeddings.position_embeddings" => return whole("pos_embed"),
        "register_tokens" | "reg_token" | "storage_tokens" | "embeddings.register_tokens" => {
            return whole("register_tokens");
        }
        "patch_embed.proj.weight" | "patch_embed.proj.bias" => return whole(name),
        "norm.weight" | "layernorm.weight" => return whole("norm.weight"),
        "norm.bias" | "layernorm.bias" => return whole("norm.bias"),
        _ => {}
    }
    let starts = ["blocks.", "encoder.layer.", "layers."];
    match starts.iter().find_map(|start| name.strip_prefix(start)) {
        Some(rest) => block(rest),
        None => Canonical::Unknown,
    }
}

/// A tensor of a numbered block, without what stands before the number: `3.mlp.fc1.weight`.
pub(super) fn block(rest: &str) -> Canonical {
    let Some((number, rest)) = rest.split_once('.') else { return Canonical::Unknown };
    let Some((part, leaf)) = rest.rsplit_once('.') else { return Canonical::Unknown };
    if number.parse::<usize>().is_err() {
        return Canonical::Unknown;
    }
    let at = |part: &str| format!("blocks.{number}.{part}.{leaf}");
    let whole = |part: &str| Canonical::Whole(at(part));
    let piece = |part: &str, index, of| Canonical::Part { name: at(part), index, of };
    match (part, leaf) {
        ("ls1", "gamma") | ("layer_scale1", "lambda1") => {
            return Canonical::Whole(format!("blocks.{number}.ls1.gamma"));
        }
        ("ls2", "gamma") | ("layer_scale2", "lambda1") => {
            return Canonical::Whole(format!("blocks.{number}.ls2.gamma"));
        }
        (_, "weight" | "bias") => {}
        _ => return Canonical::Unknown,
    }
    match part {
        "norm1" | "layernorm_before" | "layer_norm1" => whole("norm1"),
        "norm2" | "layernorm_after" | "layer_norm2" => whole("norm2"),
        "attn.qkv" => whole("attn.qkv"),
        "attention.attention.query" | "attention.q_proj" | "self_attn.q_proj" => {
            piece("attn.qkv", 0, 3)
        }
        "attention.attention.key" | "attention.k_proj" | "self_attn.k_proj" => {
            piece("attn.qkv", 1, 3)
        }
        "attention.attention.value" | "attention.v_proj" | "self_attn.v_proj" => {
            piece("attn.qkv", 2, 3)
        }
        "attn.proj" | "attention.output.dense" | "attention.o_proj" | "self_attn.out_proj" => {
            whole("attn.proj")
        }
        "mlp.fc1" | "intermediate.dense" => whole("mlp.fc1"),
        "mlp.fc2" | "output.dense" => whole("mlp.fc2"),
        "mlp.w12" | "mlp.weights_in" => whole("mlp.w12"),
        "mlp.gate_proj" | "mlp.w1" => piece("mlp.w12", 0, 2),
        "mlp.up_proj" | "mlp.w2" => piece("mlp.w12", 1, 2),
        "mlp.w3" | "mlp.weights_out" | "mlp.down_proj" => whole("mlp.w3"),
        _ => Canonical::Unknown,
    }
}
