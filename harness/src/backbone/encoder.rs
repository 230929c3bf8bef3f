//! A vision transformer put together from the parts its family names: class and register tokens,
//! positions (a table or a rotation), a norm before the blocks, a pooling head after them.

use std::collections::HashMap;
use std::f64::consts::TAU;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use schema::Fingerprint;
use serde::Serialize;

use super::families::Architecture;
use super::pooling::Pooling;
use super::position::{self, Resize};
use super::transformer::{Block, BlockShape, Dense, Norm, Rotation, Tokens};
use super::{Backbone, BackboneError, Dimensions, Placement, Tap, Wanted, check};
use crate::weights::{Expected, NameMap, Weights, WeightsError};

/// Where a patch's place enters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Positions {
    /// Added before the first block, from a table over class tokens and the trained grid.
    Table(Resize),
    /// Queries and keys of patches turned in every block; the base of its periods.
    Rotary(f64),
}

/// What an encoder is made of. Everything that decides its computation beside the weights is in it
/// and is hashed into its identity.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Make {
    pub(super) family: &'static str,
    pub(super) blocks: usize,
    pub(super) block: BlockShape,
    /// Side of the pre-training image in pixels.
    pub(super) image: usize,
    /// Side of a patch in pixels.
    pub(super) patch: usize,
    pub(super) patch_bias: bool,
    pub(super) class_tokens: usize,
    pub(super) registers: usize,
    pub(super) positions: Positions,
    pub(super) pre_norm: bool,
    pub(super) pooling: bool,
    /// Whether files hold the class token as `[D]` and positions as `[N, D]`.
    pub(super) flat_tokens: bool,
    #[serde(skip)]
    pub(super) names: NameMap,
}

impl Make {
    fn grid(&self) -> usize {
        self.image / self.patch
    }

    fn width(&self) -> usize {
        self.block.width
    }
}

/// Side of the image of patch size `patch` that makes for the tokens of a patch-16 encoder at 256
/// (224 for patch 14), where that divides.
pub(crate) fn evaluation_side(patch: usize) -> usize {
    if 256 % patch == 0 { 256 } else { 16 * patch }
}

impl Architecture for Make {
    fn family(&self) -> &'static str {
        self.family
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            blocks: self.blocks,
            width: self.width(),
            patch: self.patch,
            resolution: evaluation_side(self.patch),
            summary_tokens: self.class_tokens,
            registers: self.registers,
            patches: true,
            pooled: self.pooling.then_some(self.width()),
        }
    }

    fn expected(&self) -> Vec<Expected> {
        let mut all = Vec::new();
        let width = self.width();
        let mut tokens = |name: &str, count: usize, flat: &[usize]| {
            let shape = if self.flat_tokens { flat.to_vec() } else { vec![1, count, width] };
            all.push(Expected { name: name.to_owned(), shape });
        };
        if self.class_tokens > 0 {
            tokens("cls_token", self.class_tokens, &[width]);
        }
        if let Positions::Table(_) = self.positions {
            let count = self.class_tokens + self.grid().pow(2);
            tokens("pos_embed", count, &[count, width]);
        }
        if self.registers > 0 {
            tokens("register_tokens", self.registers, &[self.registers, width]);
        }
        let kernel = [width, 3, self.patch, self.patch];
        Dense::expected("patch_embed.proj", &kernel, self.patch_bias, &mut all);
        if self.pre_norm {
            Norm::expected("norm_pre", width, &mut all);
        }
        for i in 0..self.blocks {
            Block::expected(i, &self.block, &mut all);
        }
        Norm::expected("norm", width, &mut all);
        if self.pooling {
            Pooling::expected(&self.block, &mut all);
        }
        all
    }

    fn names(&self) -> NameMap {
        self.names
    }

    fn fingerprint(&self) -> Fingerprint {
        schema::fingerprint(self)
    }

    fn positions(&self) -> String {
        match self.positions {
            Positions::Table(how) => format!("table, resized {}", how.describe()),
            Positions::Rotary(base) => format!("rotary over patches, base {base}"),
        }
    }

    /// Matrix products alone: every weight of a block meets every token, and every token every other.
    fn flops(&self, height: usize, width: usize) -> Option<f64> {
        let patches = ((height / self.patch) * (width / self.patch)) as f64;
        let tokens = patches + (self.class_tokens + self.registers) as f64;
        let mut blocks = Vec::new();
        Block::expected(0, &self.block, &mut blocks);
        let matrices = blocks.iter().filter(|e| e.shape.len() == 2);
        let weights: usize = matrices.map(|e| e.shape.iter().product::<usize>()).sum();
        let attention = 2.0 * tokens * tokens * self.width() as f64;
        let embedding = patches * (3 * self.patch.pow(2) * self.width()) as f64;
        let all = self.blocks as f64 * (tokens * weights as f64 + attention) + embedding;
        Some(2.0 * all)
    }

    fn load(
        &self,
        weights: &Weights,
        placement: &Placement,
    ) -> Result<Box<dyn Backbone>, WeightsError> {
        Ok(Box::new(Encoder::load(self, weights, placement)?))
    }
}

/// Positions on a grid, made on first use.
#[derive(Clone)]
enum Places {
    Added(Tensor),
    Turned(std::sync::Arc<Rotation>),
}

/// The encoder.
pub(super) struct Encoder {
    make: Make,
    dimensions: Dimensions,
    patch: Dense,
    /// Class tokens with their positions, then registers: `[1, S + R, D]`.
    prefix: Option<Tensor>,
    /// Positions of the trained grid, `[1, N, D]`.
    table: Option<Tensor>,
    pre_norm: Option<Norm>,
    blocks: Vec<Block>,
    norm: Norm,
    pooling: Option<Pooling>,
    places: Mutex<HashMap<(usize, usize), Places>>,
    device: Device,
}

impl Encoder {
    /// Loads every tensor, one at a time, in the placement's type.
    pub(super) fn load(
        make: &Make,
        weights: &Weights,
        placement: &Placement,
    ) -> Result<Self, WeightsError> {
        let Placement { device, dtype } = placement;
        let (width, eps) = (make.width(), make.block.eps);
        let tokens = |name: &str, count: usize| -> Result<Tensor, WeightsError> {
            let convert = |source| WeightsError::Convert { name: name.to_owned(), source };
            weights.load(name, DType::F32, device)?.reshape((1, count, width)).map_err(convert)
        };
        let mut prefix = Vec::new();
        let mut table = None;
        if make.class_tokens > 0 {
            prefix.push(tokens("cls_token", make.class_tokens)?);
        }
        if let Positions::Table(_) = make.positions {
            let count = make.grid().pow(2);
            let all = tokens("pos_embed", make.class_tokens + count)?;
            let convert = |source| WeightsError::Convert { name: "pos_embed".to_owned(), source };
            let part = |start, len| all.narrow(1, start, len)?.contiguous();
            table = Some(part(make.class_tokens, count).map_err(convert)?);
            for class in &mut prefix {
                *class = part(0, make.class_tokens).and_then(|p| &*class + p).map_err(convert)?;
            }
        }
        if make.registers > 0 {
            prefix.push(tokens("register_tokens", make.registers)?);
        }
        let convert = |source| WeightsError::Convert { name: "cls_token".to_owned(), source };
        let prefix = match prefix.as_slice() {
            [] => None,
            parts => Some(Tensor::cat(parts, 1).map_err(convert)?),
        };
        let blocks = (0..make.blocks)
            .map(|i| Block::load(weights, i, &make.block, *dtype, device))
            .collect::<Result<_, _>>()?;
        let pre_norm = make.pre_norm.then(|| Norm::load(weights, "norm_pre", eps, device));
        let pooling = make
            .pooling
            .then(|| Pooling::load(weights, &make.block, *dtype, device))
            .transpose()?;
        Ok(Self {
            dimensions: make.dimensions(),
            patch: Dense::load(weights, "patch_embed.proj", make.patch_bias, *dtype, device)?,
            prefix,
            table,
            pre_norm: pre_norm.transpose()?,
            blocks,
            norm: Norm::load(weights, "norm", eps, device)?,
            pooling,
            places: Mutex::new(HashMap::new()),
            device: device.clone(),
            make: make.clone(),
        })
    }

    fn prefix_tokens(&self) -> usize {
        self.make.class_tokens + self.make.registers
    }

    fn places(&self, grid: (usize, usize)) -> candle_core::Result<Option<Places>> {
        let mut known = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.get(&grid) {
            return Ok(Some(places.clone()));
        }
        let made = match (self.make.positions, &self.table) {
            (Positions::Table(how), Some(table)) => {
                let side = self.make.grid();
                Places::Added(position::resize(table, (side, side), grid, how)?)
            }
            (Positions::Rotary(base), _) => {
                let depth = self.make.width() / self.make.block.heads;
                let turned = rotation(grid, self.prefix_tokens(), depth, base, &self.device)?;
                Places::Turned(std::sync::Arc::new(turned))
            }
            (Positions::Table(_), None) => return Ok(None),
        };
        known.insert(grid, made.clone());
        Ok(Some(made))
    }

    /// `[B, 3, H, W] -> [B, S + R + N, D]`: class tokens, registers, patches in row-major order.
    fn embed(
        &self,
        images: &Tensor,
        grid: (usize, usize),
        places: Option<&Places>,
    ) -> candle_core::Result<Tensor> {
        let batch = images.dim(0)?;
        let patches = patches(images, grid, self.make.patch)?;
        let mut x = self.patch.forward(&patches)?.to_dtype(DType::F32)?;
        if let Some(Places::Added(positions)) = places {
            x = x.broadcast_add(positions)?;
        }
        if let Some(prefix) = &self.prefix {
            let prefix = prefix.expand((batch, prefix.dim(1)?, self.make.width()))?;
            x = Tensor::cat(&[&prefix, &x], 1)?;
        }
        match &self.pre_norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }

    fn tap(
        &self,
        block: usize,
        x: &Tensor,
        grid: (usize, usize),
        wanted: Wanted,
    ) -> candle_core::Result<Tap> {
        let (s, first, n) = (self.make.class_tokens, self.prefix_tokens(), grid.0 * grid.1);
        let take = |start, len| x.narrow(1, start, len)?.contiguous();
        // The norm is per token, so a part of the tokens can be normalised alone.
        let normed = |start, len| self.norm.forward(&take(start, len)?);
        let when = |wanted: bool, make: &dyn Fn() -> candle_core::Result<Tensor>| {
            wanted.then(make).transpose()
        };
        let pooled = match &self.pooling {
            Some(pooling) if wanted.pooled => Some(pooling.forward(&normed(first, n)?)?),
            _ => None,
        };
        Ok(Tap {
            block,
            grid: Some(grid),
            patches: when(wanted.patches, &|| take(first, n))?,
            patches_norm: when(wanted.patches_norm, &|| normed(first, n))?,
            summary: when(wanted.summary && s > 0, &|| take(0, s))?,
            summary_norm: when(wanted.summary_norm && s > 0, &|| normed(0, s))?,
            pooled,
        })
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
    ) -> Result<Vec<Tap>, BackboneError> {
        let grid = check(images, blocks, &self.dimensions)?;
        let Some(&last) = blocks.iter().max() else { return Ok(Vec::new()) };
        let places = self.places(grid)?;
        let rotation = match &places {
            Some(Places::Turned(rotation)) => Some(&**rotation),
            _ => None,
        };
        let mut tokens = Tokens::from(self.embed(images, grid, places.as_ref())?);
        let mut taps: Vec<Option<Tap>> = blocks.iter().map(|_| None).collect();
        let needed = &self.blocks[..=last];
        for (i, block) in needed.iter().enumerate() {
            let next = needed.get(i + 1);
            tokens = block.forward(&tokens, rotation, next)?;
            for (slot, _) in taps.iter_mut().zip(blocks).filter(|(_, tapped)| **tapped == i) {
                *slot = Some(self.tap(i, &tokens.x, grid, wanted)?);
            }
        }
        Ok(taps.into_iter().flatten().collect())
    }
}

/// `[B, 3, h p, w p] -> [B, h w, 3 p p]`: patches in row-major order, flattened as a convolution's kernel is.
pub(super) fn patches(
    images: &Tensor,
    (height, width): (usize, usize),
    side: usize,
) -> candle_core::Result<Tensor> {
    let (batch, channels, _, _) = images.dims4()?;
    images
        .reshape(&[batch, channels, height, side, width, side])?
        .permute([0, 2, 4, 1, 3, 5])?
        .reshape((batch, height * width, channels * side * side))
}

/// Rotation of patches by the place of their centre, row and column in -1..1 whatever the grid
/// (DINOv3, arXiv 2508.10104, section 3.2): a quarter of the depth turns with the row, a quarter with
/// the column, and the other half repeats them. Evaluation never shifts, jitters or rescales them.
fn rotation(
    grid: (usize, usize),
    prefix: usize,
    depth: usize,
    base: f64,
    device: &Device,
) -> candle_core::Result<Rotation> {
    let quarter = depth / 4;
    let place = |i: usize, count: usize| 2.0 * (i as f64 + 0.5) / count as f64 - 1.0;
    let tokens = prefix + grid.0 * grid.1;
    let mut angles = vec![0f64; prefix * depth];
    for row in 0..grid.0 {
        for column in 0..grid.1 {
            let place = [place(row, grid.0), place(column, grid.1)];
            for i in 0..depth {
                let period = base.powf((i % quarter) as f64 / quarter as f64);
                angles.push(TAU * place[i / quarter % 2] / period);
            }
        }
    }
    let of = |f: fn(f64) -> f64| {
        let values: Vec<f32> = angles.iter().map(|&angle| f(angle) as f32).collect();
        Tensor::from_vec(values, (tokens, depth), device)
    };
    Ok(Rotation { cos: of(f64::cos)?, sin: of(f64::sin)? })
}
