//! The image encoder of Segment Anything (Kirillov et al., arXiv 2304.02643), a ViTDet (Li et al., arXiv
//! 2203.16527): attention within windows but for a few blocks, decomposed relative positions (Li et al., arXiv
//! 2112.01526) in all, no class token, and a neck of two convolutions in place of a final norm.
//!
//! A tap gives the residual stream, which has no final norm (`patches_norm` is `patches`), and what the neck
//! makes of it (`pooled`). The authors' code takes one image size. Here the table of positions is resized as by
//! ViTDet's, bicubic by size, and tables of relative positions as by both, linear.
//!
//! Our own encoder: that of candle-transformers takes one image size and has no taps. The relative positions join
//! queries and keys, so that the fused attention serves: with a query's products with the embeddings of the rows
//! and columns on its one side, and the row and column of a key as ones among zeros on its other,
//! `q' k' = scale q k + rows(q)[row of k] + columns(q)[column of k]`.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone sam-b --out cat.safetensors
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{D, DType, Device, Result, Tensor};
use schema::Fingerprint;
use serde::Serialize;
use serde_json::Value;

use super::config::Fields;
use super::encoder::evaluation_side;
use super::families::Architecture;
use super::position::{self, Resize};
use super::transformer::{Dense, Mlp, Norm};
use super::{Backbone, BackboneError, Dimensions, Placement, Tap, Wanted, check, names};
use crate::weights::{Canonical, Expected, NameMap, Weights, WeightsError};

type Loaded<T> = std::result::Result<T, WeightsError>;

/// Epsilon of the neck's norms, which no configuration changes.
const NECK_EPS: f64 = 1e-6;

/// How it is made.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Make {
    width: usize,
    hidden: usize,
    heads: usize,
    blocks: usize,
    image: usize,
    patch: usize,
    /// Side of a window in patches.
    window: usize,
    /// Blocks that attend to the whole image.
    global: Vec<usize>,
    /// Channels of the neck.
    neck: usize,
    mlp: Mlp,
    qkv_bias: bool,
    eps: f64,
}

/// Reads transformers' `config.json` of `sam` or `sam_vision_model`.
pub(super) fn from_transformers(config: &Value) -> std::result::Result<Make, String> {
    let fields = Fields::of(config);
    let (width, heads) = fields.width(Some((768, 12)))?;
    let (image, patch) = fields.sides(1024, 16)?;
    for key in ["use_abs_pos", "use_rel_pos"] {
        if !fields.flag(key, true)? {
            return Err(format!("{key} is false; expected true"));
        }
    }
    let blocks = fields.size("num_hidden_layers", Some(12))?;
    let ratio = (fields.number("mlp_ratio", 4.0)? * width as f64) as usize;
    Ok(Make {
        width,
        hidden: fields.size("mlp_dim", Some(ratio))?,
        heads,
        blocks,
        image,
        patch,
        window: fields.size("window_size", Some(14))?,
        global: fields.indices("global_attn_indexes", &[2, 5, 8, 11], blocks)?,
        neck: fields.size("output_channels", Some(256))?,
        mlp: fields.activation(Mlp::Gelu)?,
        qkv_bias: fields.flag("qkv_bias", true)?,
        eps: fields.number("layer_norm_eps", 1e-6)?,
    })
}

impl Make {
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    /// Side of what block `i` attends to where it was trained, in patches.
    fn reach(&self, i: usize) -> usize {
        if self.global.contains(&i) { self.image / self.patch } else { self.window }
    }
}

impl Architecture for Make {
    fn family(&self) -> &'static str {
        "sam"
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            blocks: self.blocks,
            width: self.width,
            patch: self.patch,
            resolution: evaluation_side(self.patch),
            summary_tokens: 0,
            registers: 0,
            patches: true,
            pooled: Some(self.neck),
        }
    }

    fn expected(&self) -> Vec<Expected> {
        let mut all = Vec::new();
        let (width, grid) = (self.width, self.image / self.patch);
        let tensor = |name: String, shape: &[usize]| Expected { name, shape: shape.to_vec() };
        all.push(tensor("pos_embed".to_owned(), &[1, grid, grid, width]));
        Dense::expected("patch_embed.proj", &[width, 3, self.patch, self.patch], true, &mut all);
        for i in 0..self.blocks {
            let at = |part: &str| format!("blocks.{i}.{part}");
            Norm::expected(&at("norm1"), width, &mut all);
            Dense::expected(&at("attn.qkv"), &[3 * width, width], self.qkv_bias, &mut all);
            Dense::expected(&at("attn.proj"), &[width, width], true, &mut all);
            let distances = [2 * self.reach(i) - 1, self.depth()];
            all.push(tensor(at("attn.rel_pos_h"), &distances));
            all.push(tensor(at("attn.rel_pos_w"), &distances));
            Norm::expected(&at("norm2"), width, &mut all);
            Dense::expected(&at("mlp.fc1"), &[self.hidden, width], true, &mut all);
            Dense::expected(&at("mlp.fc2"), &[width, self.hidden], true, &mut all);
        }
        Dense::expected("neck.0", &[self.neck, width, 1, 1], false, &mut all);
        Norm::expected("neck.1", self.neck, &mut all);
        Dense::expected("neck.2", &[self.neck, self.neck, 3, 3], false, &mut all);
        Norm::expected("neck.3", self.neck, &mut all);
        all
    }

    fn names(&self) -> NameMap {
        canonical
    }

    fn fingerprint(&self) -> Fingerprint {
        schema::fingerprint(&("sam", self))
    }

    fn positions(&self) -> String {
        let table = Resize::Size.describe();
        format!("table, resized {table}; relative in every block, resized linear by size")
    }

    fn flops(&self, height: usize, width: usize) -> Option<f64> {
        let (rows, columns) = (height / self.patch, width / self.patch);
        let tokens = (rows * columns) as f64;
        let one = |i: usize| {
            // Windows are padded, and what is padded is computed; products of keys and of values, and with
            // embeddings of rows and columns.
            let (windows, side) = match self.global.contains(&i) {
                true => (1.0, (rows, columns)),
                false => {
                    let windows = rows.div_ceil(self.window) * columns.div_ceil(self.window);
                    (windows as f64, (self.window, self.window))
                }
            };
            let inside = (side.0 * side.1) as f64;
            let attention = windows * inside * (2.0 * inside + (side.0 + side.1) as f64);
            let qkv = windows * inside * 3.0 * self.width as f64;
            let rest = tokens * (self.width + 2 * self.hidden) as f64;
            (attention + qkv + rest) * self.width as f64
        };
        let embedding = tokens * (3 * self.patch.pow(2) * self.width) as f64;
        Some(2.0 * ((0..self.blocks).map(one).sum::<f64>() + embedding))
    }

    fn load(&self, weights: &Weights, placement: &Placement) -> Loaded<Box<dyn Backbone>> {
        let Placement { device, dtype } = placement;
        let convert = |source| WeightsError::Convert { name: "pos_embed".to_owned(), source };
        let table = weights.load("pos_embed", DType::F32, device)?;
        let table = table.reshape((1, (), self.width)).map_err(convert)?;
        let blocks = (0..self.blocks).map(|i| Block::load(weights, i, self, placement));
        Ok(Box::new(Encoder {
            patch: Dense::load(weights, "patch_embed.proj", true, *dtype, device)?,
            table,
            blocks: blocks.collect::<Loaded<_>>()?,
            neck: Neck {
                narrow: Dense::load(weights, "neck.0", false, *dtype, device)?,
                norm1: Norm::load(weights, "neck.1", NECK_EPS, device)?,
                kernel: weights.load("neck.2.weight", *dtype, device)?,
                norm2: Norm::load(weights, "neck.3", NECK_EPS, device)?,
            },
            places: Mutex::new(HashMap::new()),
            dimensions: self.dimensions(),
            make: self.clone(),
        }))
    }
}

/// Names of transformers and of the authors' `.pth`, of the encoder alone or of the whole model.
fn canonical(raw: &str) -> Canonical {
    let outside =
        ["prompt_encoder.", "mask_decoder.", "shared_image_embedding.", "pixel_mean", "pixel_std"];
    if outside.iter().any(|start| raw.starts_with(start)) {
        return Canonical::Ignored;
    }
    let inner = ["vision_encoder.", "image_encoder."].iter().find_map(|p| raw.strip_prefix(p));
    let name = inner.unwrap_or(raw);
    let renamed = [
        ("patch_embed.projection.", "patch_embed.proj."),
        ("neck.conv1.", "neck.0."),
        ("neck.layer_norm1.", "neck.1."),
        ("neck.conv2.", "neck.2."),
        ("neck.layer_norm2.", "neck.3."),
        ("neck.", "neck."),
    ];
    if let Some((to, leaf)) =
        renamed.iter().find_map(|(from, to)| Some((to, name.strip_prefix(from)?)))
    {
        return Canonical::Whole(format!("{to}{leaf}"));
    }
    let Some(rest) = ["layers.", "blocks."].iter().find_map(|start| name.strip_prefix(start))
    else {
        return names::vit(name);
    };
    if rest.ends_with(".attn.rel_pos_h") || rest.ends_with(".attn.rel_pos_w") {
        return Canonical::Whole(format!("blocks.{rest}"));
    }
    names::block(&rest.replace("mlp.lin1.", "mlp.fc1.").replace("mlp.lin2.", "mlp.fc2."))
}

struct Block {
    norm1: Norm,
    qkv: Dense,
    proj: Dense,
    /// Embeddings of distances in rows and in columns, `[2 reach - 1, D / heads]`, f32.
    distances: [Tensor; 2],
    norm2: Norm,
    mlp: Mlp,
    fc1: Dense,
    fc2: Dense,
    heads: usize,
    /// Side of a window; `None` where the block attends to the whole image.
    window: Option<usize>,
}

impl Block {
    fn load(weights: &Weights, i: usize, make: &Make, placement: &Placement) -> Loaded<Self> {
        let Placement { device, dtype } = placement;
        let at = |part: &str| format!("blocks.{i}.{part}");
        let norm = |part| Norm::load(weights, &at(part), make.eps, device);
        let dense = |part, bias| Dense::load(weights, &at(part), bias, *dtype, device);
        let distances = |part| weights.load(&at(part), DType::F32, device);
        Ok(Self {
            norm1: norm("norm1")?,
            qkv: dense("attn.qkv", make.qkv_bias)?,
            proj: dense("attn.proj", true)?,
            distances: [distances("attn.rel_pos_h")?, distances("attn.rel_pos_w")?],
            norm2: norm("norm2")?,
            mlp: make.mlp,
            fc1: dense("mlp.fc1", true)?,
            fc2: dense("mlp.fc2", true)?,
            heads: make.heads,
            window: (!make.global.contains(&i)).then_some(make.window),
        })
    }

    /// `[B, h w, D] -> [B, h w, D]`, f32.
    fn forward(&self, x: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        let y = self.norm1.forward(x)?;
        let y = match self.window {
            None => self.attend(&y, grid)?,
            Some(side) => {
                let windows = self.attend(&split(&y, grid, side)?, (side, side))?;
                join(&windows, x.dim(0)?, grid, side)?
            }
        };
        let x = ops::linear_residual(&y, &self.proj.weight, self.proj.bias.as_ref(), x)?;
        let hidden = self.mlp.hidden(&self.norm2.forward(&x)?, &self.fc1)?;
        ops::linear_residual(&hidden, &self.fc2.weight, self.fc2.bias.as_ref(), &x)
    }

    /// Attention among the tokens of a grid, `[B, h w, D] -> [B, h w, D]`, before the projection.
    fn attend(&self, x: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let (heads, depth) = (self.heads, width / self.heads);
        let qkv = self.qkv.forward(x)?.reshape((batch, tokens, 3, heads, depth))?;
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let dtype = q.dtype();
        let both = (batch * heads, grid.0, grid.1, depth);
        let rows = self.relative(&q.reshape(both)?, 1)?;
        let columns = self.relative(&q.reshape(both)?, 2)?;
        let of = |x: Tensor| x.to_dtype(dtype)?.reshape((batch, heads, tokens, ()));
        let scaled = (q * (1.0 / (depth as f64).sqrt()))?;
        let q = Tensor::cat(&[&scaled, &of(rows)?, &of(columns)?], D::Minus1)?;
        let places = places(grid, x.device())?.to_dtype(dtype)?;
        let places = places.expand((batch, heads, tokens, grid.0 + grid.1))?.contiguous()?;
        ops::attention_qkv(&q, &Tensor::cat(&[&k, &places], D::Minus1)?, &v, Some(1.0))
    }

    /// Products of queries `[N, h, w, Dh]` with the embeddings of their distances to all rows (axis 1) or
    /// columns (axis 2): `[N, h, w, h]` or `[N, h, w, w]`, f32.
    fn relative(&self, q: &Tensor, axis: usize) -> Result<Tensor> {
        let (n, height, width, depth) = q.dims4()?;
        let side = if axis == 1 { height } else { width };
        let table = position::resize_distances(&self.distances[axis - 1], 2 * side - 1)?;
        let index = |a: usize, b: usize| (a + side - 1 - b) as u32;
        let all: Vec<u32> = (0..side).flat_map(|a| (0..side).map(move |b| index(a, b))).collect();
        let index = Tensor::from_vec(all, side * side, q.device())?;
        let embeddings = table.index_select(&index, 0)?.reshape((side, side, depth))?;
        let embeddings = embeddings.transpose(1, 2)?.contiguous()?;
        // One product for each row, or column, that a query stands in.
        let first = q.to_dtype(DType::F32)?.transpose(0, axis)?.contiguous()?;
        let shape = first.dims().to_vec();
        let products =
            first.reshape((side, n * height * width / side, depth))?.matmul(&embeddings)?;
        products.reshape((shape[0], shape[1], shape[2], side))?.transpose(0, axis)?.contiguous()
    }
}

/// Row and column of each token of a grid as ones among zeros, `[h w, h + w]`.
fn places(grid: (usize, usize), device: &Device) -> Result<Tensor> {
    let (height, width) = grid;
    let mut ones = vec![0f32; height * width * (height + width)];
    for (token, place) in ones.chunks_exact_mut(height + width).enumerate() {
        place[token / width] = 1.0;
        place[height + token % width] = 1.0;
    }
    Tensor::from_vec(ones, (height * width, height + width), device)
}

/// `[B, h w, D]` to windows `[B n, side side, D]`; what is outside the grid is 0.
fn split(x: &Tensor, (height, width): (usize, usize), side: usize) -> Result<Tensor> {
    let (batch, _, depth) = x.dims3()?;
    let (rows, columns) = (height.div_ceil(side), width.div_ceil(side));
    let x = x.reshape((batch, height, width, depth))?;
    let x = x.pad_with_zeros(1, 0, rows * side - height)?;
    let x = x.pad_with_zeros(2, 0, columns * side - width)?;
    let x = x.reshape(&[batch, rows, side, columns, side, depth])?.permute([0, 1, 3, 2, 4, 5])?;
    x.reshape((batch * rows * columns, side * side, depth))
}

/// The reverse of [`split`].
fn join(
    windows: &Tensor,
    batch: usize,
    (height, width): (usize, usize),
    side: usize,
) -> Result<Tensor> {
    let depth = windows.dim(2)?;
    let (rows, columns) = (height.div_ceil(side), width.div_ceil(side));
    let x = windows.reshape(&[batch, rows, columns, side, side, depth])?;
    let x = x.permute([0, 1, 3, 2, 4, 5])?;
    let x = x.reshape((batch, rows * side, columns * side, depth))?;
    x.narrow(1, 0, height)?.narrow(2, 0, width)?.reshape((batch, height * width, depth))
}

/// 1x1 and 3x3 convolution, each with a norm over channels.
struct Neck {
    narrow: Dense,
    norm1: Norm,
    kernel: Tensor,
    norm2: Norm,
}

impl Neck {
    /// `[B, h w, D] -> [B, h w, C]`, f32.
    fn forward(&self, x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
        let x = self.norm1.forward(&self.narrow.forward(x)?.to_dtype(DType::F32)?)?;
        let (batch, tokens, channels) = x.dims3()?;
        let map = x.transpose(1, 2)?.reshape((batch, channels, height, width))?;
        let map = ops::conv2d(&map, &self.kernel, None, 1, 1)?.to_dtype(DType::F32)?;
        let x = map.reshape((batch, channels, tokens))?.transpose(1, 2)?.contiguous()?;
        self.norm2.forward(&x)
    }
}

/// The encoder.
struct Encoder {
    make: Make,
    dimensions: Dimensions,
    patch: Dense,
    /// Positions of the trained grid, `[1, N, D]`.
    table: Tensor,
    blocks: Vec<Block>,
    neck: Neck,
    /// Positions of other grids, made on first use.
    places: Mutex<HashMap<(usize, usize), Tensor>>,
}

impl Encoder {
    fn positions(&self, grid: (usize, usize)) -> Result<Tensor> {
        let mut known = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(positions) = known.get(&grid) {
            return Ok(positions.clone());
        }
        let side = self.make.image / self.make.patch;
        let positions = position::resize(&self.table, (side, side), grid, Resize::Size)?;
        known.insert(grid, positions.clone());
        Ok(positions)
    }

    fn embed(&self, images: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        let patches = super::encoder::patches(images, grid, self.make.patch)?;
        let x = self.patch.forward(&patches)?.to_dtype(DType::F32)?;
        x.broadcast_add(&self.positions(grid)?)
    }
}

impl Backbone for Encoder {
    fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> std::result::Result<Vec<Tap>, BackboneError> {
        let grid = check(images, blocks, &self.dimensions)?;
        let Some(&last) = blocks.iter().max() else { return Ok(Vec::new()) };
        let mut x = self.embed(images, grid)?;
        let mut taps: Vec<Option<Tap>> = blocks.iter().map(|_| None).collect();
        for (i, block) in self.blocks.iter().enumerate().take(last + 1) {
            x = block.forward(&x, grid)?;
            for (slot, _) in taps.iter_mut().zip(blocks).filter(|(_, tapped)| **tapped == i) {
                let pooled = wanted.pooled.then(|| self.neck.forward(&x, grid)).transpose()?;
                *slot = Some(Tap {
                    block: i,
                    grid: Some(grid),
                    patches: wanted.patches.then(|| x.clone()),
                    patches_norm: wanted.patches_norm.then(|| x.clone()),
                    summary: None,
                    summary_norm: None,
                    pooled,
                });
            }
        }
        Ok(taps.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
