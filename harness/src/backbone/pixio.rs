//! Pixio (arXiv 2512.15715): a plain pre-norm ViT with eight class tokens, pre-trained by masked
//! autoencoding at 256x256 with patch 16.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone pixio-l --out cat.safetensors
//! ```

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::{DType, Tensor};
use schema::Fingerprint;
use serde::{Deserialize, Serialize};

use super::families::Architecture;
use super::transformer::{Block, BlockShape, Dense, Norm};
use super::{Backbone, BackboneError, Dimensions, Placement, Tap, Wanted, check, position};
use crate::weights::{Canonical, Expected, NameMap, Weights, WeightsError};

/// What decides a Pixio encoder's computation; hashed into its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixioConfig {
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the hidden layer of a block's MLP.
    pub hidden: usize,
    /// Number of class tokens.
    pub class_tokens: usize,
    /// Side of the pre-training image in pixels.
    pub image: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Epsilon of every layer norm.
    pub eps: f64,
    /// Whether qkv has a bias.
    pub qkv_bias: bool,
}

impl PixioConfig {
    /// Reads transformers' `config.json`; the message names the field that does not fit.
    pub fn from_transformers(config: &serde_json::Value) -> Result<Self, String> {
        let size = |key: &str, default: Option<usize>| match config.get(key) {
            None | Some(serde_json::Value::Null) => default.ok_or(format!("{key} is missing")),
            Some(value) => match value.as_u64() {
                Some(number) if number > 0 => Ok(number as usize),
                _ => Err(format!("{key} is {value}; expected a positive whole number")),
            },
        };
        let number = |key: &str, default: f64| match config.get(key) {
            None | Some(serde_json::Value::Null) => Ok(default),
            Some(value) => value.as_f64().ok_or(format!("{key} is {value}; expected a number")),
        };
        let activation = config.get("hidden_act").and_then(|v| v.as_str()).unwrap_or("gelu");
        if activation != "gelu" {
            return Err(format!("hidden_act is {activation:?}; expected \"gelu\""));
        }
        let channels = size("num_channels", Some(3))?;
        if channels != 3 {
            return Err(format!("num_channels is {channels}; expected 3"));
        }
        let width = size("hidden_size", None)?;
        let heads = size("num_attention_heads", None)?;
        if width % heads != 0 {
            return Err(format!("hidden_size {width} is not a multiple of {heads} heads"));
        }
        let (image, patch) = (size("image_size", Some(256))?, size("patch_size", Some(16))?);
        if image % patch != 0 {
            return Err(format!("image_size {image} is not a multiple of patch_size {patch}"));
        }
        Ok(Self {
            width,
            blocks: size("num_hidden_layers", None)?,
            heads,
            hidden: (number("mlp_ratio", 4.0)? * width as f64) as usize,
            class_tokens: size("n_cls_tokens", Some(8))?,
            image,
            patch,
            eps: number("layer_norm_eps", 1e-6)?,
            qkv_bias: config.get("qkv_bias").and_then(serde_json::Value::as_bool).unwrap_or(true),
        })
    }

    fn block(&self) -> BlockShape {
        BlockShape {
            width: self.width,
            hidden: self.hidden,
            heads: self.heads,
            qkv_bias: self.qkv_bias,
            eps: self.eps,
        }
    }

    fn grid(&self) -> usize {
        self.image / self.patch
    }
}

impl Architecture for PixioConfig {
    fn family(&self) -> &'static str {
        "pixio"
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            blocks: self.blocks,
            width: self.width,
            patch: self.patch,
            resolution: self.image,
            summary_tokens: self.class_tokens,
            patches: true,
        }
    }

    fn expected(&self) -> Vec<Expected> {
        let mut all = Vec::new();
        let tokens = |name: &str, count: usize| Expected {
            name: name.to_owned(),
            shape: vec![1, count, self.width],
        };
        all.push(tokens("cls_token", self.class_tokens));
        all.push(tokens("pos_embed", self.class_tokens + self.grid().pow(2)));
        let kernel = [self.width, 3, self.patch, self.patch];
        Dense::expected("patch_embed.proj", &kernel, true, &mut all);
        for i in 0..self.blocks {
            Block::expected(i, &self.block(), &mut all);
        }
        Norm::expected("norm", self.width, &mut all);
        all
    }
    fn names(&self) -> NameMap {
        canonical
    }

    fn fingerprint(&self) -> Fingerprint {
        schema::fingerprint(&("pixio", self))
    }

    fn load(
        &self,
        weights: &Weights,
        placement: &Placement,
    ) -> Result<Box<dyn Backbone>, WeightsError> {
        Ok(Box::new(Pixio::load(self, weights, placement)?))
    }
}

/// Names of the authors' `.pth` and of both transformers generations, with or without the prefix of
/// a backbone class, to the authors' names.
pub fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("module.").unwrap_or(raw);
    // A backbone class wraps the encoder and has a final norm of its own, which is the one it applies.
    for wrapper in ["pixio.", "encoder."] {
        if let Some(inner) = name.strip_prefix(wrapper) {
            if inner.starts_with("layernorm.") {
                return Canonical::Ignored;
            }
            let inside = ["embeddings.", "encoder.layer.", "layers."];
            if inside.iter().any(|start| inner.starts_with(start)) {
                return canonical(inner);
            }
        }
    }
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
        "patch_embed.proj.weight" | "patch_embed.proj.bias" => return whole(name),
        "norm.weight" | "layernorm.weight" => return whole("norm.weight"),
        "norm.bias" | "layernorm.bias" => return whole("norm.bias"),
        _ => {}
    }
    let starts = ["blocks.", "encoder.layer.", "layers."];
    let Some(rest) = starts.iter().find_map(|start| name.strip_prefix(start)) else {
        return Canonical::Unknown;
    };
    let Some((number, rest)) = rest.split_once('.') else { return Canonical::Unknown };
    let Some((part, leaf)) = rest.rsplit_once('.') else { return Canonical::Unknown };
    if number.parse::<usize>().is_err() || !matches!(leaf, "weight" | "bias") {
        return Canonical::Unknown;
    }
    let at = |part: &str| format!("blocks.{number}.{part}.{leaf}");
    let third = |index| Canonical::Part { name: at("attn.qkv"), index, of: 3 };
    match part {
        "norm1" | "layernorm_before" => Canonical::Whole(at("norm1")),
        "norm2" | "layernorm_after" => Canonical::Whole(at("norm2")),
        "attn.qkv" => Canonical::Whole(at("attn.qkv")),
        "attention.attention.query" | "attention.q_proj" => third(0),
        "attention.attention.key" | "attention.k_proj" => third(1),
        "attention.attention.value" | "attention.v_proj" => third(2),
        "attn.proj" | "attention.output.dense" | "attention.o_proj" => {
            Canonical::Whole(at("attn.proj"))
        }
        "mlp.fc1" | "intermediate.dense" => Canonical::Whole(at("mlp.fc1")),
        "mlp.fc2" | "output.dense" => Canonical::Whole(at("mlp.fc2")),
        _ => Canonical::Unknown,
    }
}

/// The encoder.
pub struct Pixio {
    config: PixioConfig,
    dimensions: Dimensions,
    class_tokens: Tensor,
    positions: Tensor,
    patch: Dense,
    blocks: Vec<Block>,
    norm: Norm,
    /// Patch positions by grid, resized on first use.
    resized: Mutex<HashMap<(usize, usize), Tensor>>,
}

impl Pixio {
    /// Loads every tensor, one at a time, in the placement's type.
    pub fn load(
        config: &PixioConfig,
        weights: &Weights,
        placement: &Placement,
    ) -> Result<Self, WeightsError> {
        let Placement { device, dtype } = placement;
        let shape = config.block();
        let blocks = (0..config.blocks)
            .map(|i| Block::load(weights, i, &shape, *dtype, device))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            dimensions: config.dimensions(),
            class_tokens: weights.load("cls_token", DType::F32, device)?,
            positions: weights.load("pos_embed", DType::F32, device)?,
            patch: Dense::load(weights, "patch_embed.proj", true, *dtype, device)?,
            blocks,
            norm: Norm::load(weights, "norm", config.eps, device)?,
            resized: Mutex::new(HashMap::new()),
            config: config.clone(),
        })
    }

    fn patch_positions(&self, grid: (usize, usize)) -> candle_core::Result<Tensor> {
        let mut resized = self.resized.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = resized.get(&grid) {
            return Ok(known.clone());
        }
        let side = self.config.grid();
        let patches = self.positions.narrow(1, self.config.class_tokens, side * side)?;
        let fitted = position::resize(&patches.contiguous()?, (side, side), grid)?;
        resized.insert(grid, fitted.clone());
        Ok(fitted)
    }

    /// `[B, 3, H, W] -> [B, S + N, D]`: class tokens, then patches in row-major order.
    fn embed(&self, images: &Tensor, grid: (usize, usize)) -> candle_core::Result<Tensor> {
        let (batch, channels, _, _) = images.dims4()?;
        let (p, s) = (self.config.patch, self.config.class_tokens);
        let patches = images
            .reshape(&[batch, channels, grid.0, p, grid.1, p])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((batch, grid.0 * grid.1, channels * p * p))?;
        let patches = ops::linear(&patches, &self.patch.weight, self.patch.bias.as_ref())?
            .to_dtype(DType::F32)?
            .broadcast_add(&self.patch_positions(grid)?)?;
        let class = (&self.class_tokens + self.positions.narrow(1, 0, s)?)?;
        Tensor::cat(&[&class.expand((batch, s, self.config.width))?, &patches], 1)
    }

    fn tap(
        &self,
        block: usize,
        x: &Tensor,
        grid: (usize, usize),
        wanted: Wanted,
    ) -> candle_core::Result<Tap> {
        let (s, n) = (self.config.class_tokens, grid.0 * grid.1);
        let take = |x: &Tensor, start, len| x.narrow(1, start, len)?.contiguous();
        // The norm is per token, so a part of the tokens can be normalised alone.
        let normed = |start, len| self.norm.forward(&take(x, start, len)?);
        let when = |wanted: bool, make: &dyn Fn() -> candle_core::Result<Tensor>| {
            wanted.then(make).transpose()
        };
        Ok(Tap {
            block,
            grid: Some(grid),
            patches: when(wanted.patches, &|| take(x, s, n))?,
            patches_norm: when(wanted.patches_norm, &|| normed(s, n))?,
            summary: when(wanted.summary, &|| take(x, 0, s))?,
            summary_norm: when(wanted.summary_norm, &|| normed(0, s))?,
        })
    }
}

impl Backbone for Pixio {
    fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> Result<Vec<Tap>, BackboneError> {
        let grid = check(images, blocks, &self.dimensions)?;
        let Some(&last) = blocks.iter().max() else { return Ok(Vec::new()) };
        let mut x = self.embed(images, grid)?;
        let mut taps: Vec<Option<Tap>> = blocks.iter().map(|_| None).collect();
        for (i, block) in self.blocks.iter().enumerate().take(last + 1) {
            x = block.forward(&x)?;
            for (slot, _) in taps.iter_mut().zip(blocks).filter(|(_, tapped)| **tapped == i) {
                *slot = Some(self.tap(i, &x, grid, wanted)?);
            }
        }
        Ok(taps.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
