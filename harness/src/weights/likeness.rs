//! What a set of tensors looks like, from their names and shapes: which family, and of which size.

use std::fmt;

use super::TensorSource;

/// A guess at what some tensors are, for messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Likeness {
    /// The family, in words.
    pub kind: Option<&'static str>,
    /// Number of blocks.
    pub blocks: Option<usize>,
    /// Width of a token.
    pub width: Option<usize>,
    /// Side of a patch in pixels.
    pub patch: Option<usize>,
}

/// Names of which one alone tells a family; the first that is found decides.
const SIGNS: [(&str, &[&str]); 17] = [
    ("Theia", &["translator.translator_", "translator.backbone_adapter", "backbone.model.emb"]),
    ("Depth Anything", &["depth_head.", "neck.reassemble_stage"]),
    ("SAM", &["attn.rel_pos_h"]),
    ("R3M", &["convnet.layer1."]),
    ("a ResNet", &["layer4.0.bn1.weight", "encoder.stages.0.layers.0.layer.0.convolution"]),
    ("Swin", &["layers.0.blocks.0.attn.relative_position_bias_table"]),
    ("BEiT", &["relative_position_bias_table", "blocks.0.gamma_1", "layer.0.lambda_1"]),
    ("SigLIP", &["head.probe", "attn_pool.latent", "head.attention.in_proj_weight"]),
    ("CLIP", &["pre_layrnorm", "visual.transformer.resblocks", "embeddings.class_embedding"]),
    (
        "DINOv3",
        &["storage_tokens", "rope_embed", "layer.0.attention.q_proj", "layer.0.mlp.up_proj"],
    ),
    ("DeiT with a distillation token", &["dist_token", "distillation_token"]),
    ("ConvNeXt", &["dwconv.", "conv_dw."]),
    ("MAE", &["decoder_blocks.", "decoder.decoder_layers.", "decoder_embed"]),
    ("a supervised ViT", &["vit.pooler.", "vit.embeddings.", "pooler.dense."]),
    ("a diffusion model", &["down_blocks.0."]),
    ("a language model", &["word_embeddings", "embed_tokens", "transformer.h.0.", "wte."]),
    ("a plain ViT (MAE, VC-1, supervised)", &["cls_token"]),
];

impl Likeness {
    /// Of the tensors of a file or folder.
    pub(super) fn of_source(source: &dyn TensorSource) -> Self {
        let shape = |name: &str| source.info(name).map_or_else(Vec::new, |info| info.shape);
        let mut names = source.names();
        names.sort();
        Self::of(names.into_iter().map(|name| (name.clone(), shape(&name))))
    }

    /// Of tensors by name and shape.
    pub(super) fn of(tensors: impl Iterator<Item = (String, Vec<usize>)>) -> Self {
        let all: Vec<(String, Vec<usize>)> = tensors.collect();
        let has = |part: &str| all.iter().any(|(name, _)| name.contains(part));
        let scaled = has("lambda1") || has("ls1.gamma");
        let token = |names: &[&str]| {
            let of = |name: &str| names.contains(&name.rsplit('.').next().unwrap_or(name));
            let shape = all.iter().find(|(name, _)| of(name)).map(|(_, shape)| shape.as_slice());
            match shape {
                Some(&[.., count, _]) => count,
                _ => 0,
            }
        };
        let sign = SIGNS.iter().find(|(_, parts)| parts.iter().any(|part| has(part)));
        let kind = match sign {
            // A plain ViT by its names may be one of three by what else it has.
            Some((kind, parts)) if parts.contains(&"cls_token") => {
                Some(match token(&["cls_token"]) {
                    2.. => "Pixio",
                    _ if scaled && token(&["register_tokens", "reg_token"]) > 0 => {
                        "DINOv2 with registers"
                    }
                    _ if scaled => "DINOv2",
                    _ => kind,
                })
            }
            other => other.map(|(kind, _)| *kind),
        };
        let blocks = all.iter().filter_map(|(name, _)| numbered(name)).max().map(|last| last + 1);
        let patch = all.iter().find_map(|(name, shape)| match shape.as_slice() {
            &[width, 3, rows, columns] if rows == columns && is_patch(name) => Some((width, rows)),
            _ => None,
        });
        Self { kind, blocks, width: patch.map(|p| p.0), patch: patch.map(|p| p.1) }
    }

    /// What was expected, beside what this is.
    pub(super) fn beside(&self, wanted: &Self) -> String {
        let found = match (self.kind, self.blocks.or(self.width)) {
            (None, None) => "no family that is known".to_owned(),
            (None, _) => self.to_string(),
            (Some(kind), None) => format!("what looks like {kind}"),
            (Some(kind), _) => format!("what looks like {kind}, {self}"),
        };
        match wanted.blocks.or(wanted.width) {
            None => format!("found {found}"),
            Some(_) => format!("expected {wanted}; found {found}"),
        }
    }
}

/// The size alone.
impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = self.blocks.map(|blocks| format!("{blocks} blocks"));
        let width = self.width.map(|width| format!("of width {width}"));
        let parts: Vec<String> = blocks.into_iter().chain(width).collect();
        f.write_str(&parts.join(" "))?;
        match self.patch {
            Some(patch) => write!(f, ", patch {patch}"),
            None => Ok(()),
        }
    }
}

/// The number of the image encoder's block that a tensor belongs to.
fn numbered(name: &str) -> Option<usize> {
    let elsewhere = ["decoder", "text", "translator.", "neck.", "head.", "transformer.resblocks"];
    if elsewhere.iter().any(|part| name.starts_with(part)) {
        return None;
    }
    let mut parts = name.split('.');
    parts.find(|part| ["blocks", "layer", "layers", "resblocks"].contains(part))?;
    parts.next()?.parse().ok()
}

fn is_patch(name: &str) -> bool {
    name.contains("patch_embed") || name.ends_with("visual.conv1.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(tensors: &[(&str, &[usize])]) -> Likeness {
        Likeness::of(tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())))
    }

    #[test]
    fn each_family_is_told_by_its_own_tensors() {
        let token = ("cls_token", &[1, 1, 8][..]);
        for (expected, tensors) in [
            ("a plain ViT (MAE, VC-1, supervised)", vec![token]),
            ("Pixio", vec![("cls_token", &[1, 8, 8][..])]),
            ("DINOv2", vec![token, ("blocks.0.ls1.gamma", &[8])]),
            (
                "DINOv2 with registers",
                vec![token, ("blocks.0.ls1.gamma", &[8]), ("register_tokens", &[1, 4, 8])],
            ),
            ("MAE", vec![token, ("decoder_blocks.0.norm1.weight", &[8])]),
            ("a supervised ViT", vec![("vit.embeddings.cls_token", &[1, 1, 8])]),
            ("DINOv3", vec![token, ("storage_tokens", &[1, 4, 8])]),
            ("CLIP", vec![("visual.transformer.resblocks.0.ln_1.weight", &[8])]),
            ("SigLIP", vec![("vision_model.head.probe", &[1, 1, 8])]),
            ("SAM", vec![("vision_encoder.layers.0.attn.rel_pos_h", &[27, 8])]),
            ("R3M", vec![("module.convnet.layer1.0.conv1.weight", &[64, 64, 1, 1])]),
            ("Theia", vec![("backbone.model.embeddings.cls_token", &[1, 1, 8])]),
            ("Depth Anything", vec![("pretrained.cls_token", &[1, 1, 8]), ("depth_head.x", &[1])]),
            ("Swin", vec![("layers.0.blocks.0.attn.relative_position_bias_table", &[9, 3])]),
            ("a language model", vec![("model.embed_tokens.weight", &[9, 3])]),
        ] {
            assert_eq!(looks(&tensors).kind, Some(expected));
        }
        assert_eq!(looks(&[("weight", &[3, 3])]).kind, None);
    }

    #[test]
    fn the_message_says_both_sizes() {
        let found = looks(&[
            ("cls_token", &[1, 1, 8]),
            ("patch_embed.proj.weight", &[8, 3, 14, 14]),
            ("blocks.11.ls1.gamma", &[8]),
            ("decoder_blocks.20.norm1.weight", &[8]),
        ]);
        let wanted = Likeness { kind: None, blocks: Some(24), width: Some(16), patch: Some(16) };
        assert_eq!(
            found.beside(&wanted),
            "expected 24 blocks of width 16, patch 16; found what looks like MAE, 12 blocks of width \
             8, patch 14"
        );
        let nothing = looks(&[]);
        assert_eq!(nothing.beside(&nothing), "found no family that is known");
    }
}
