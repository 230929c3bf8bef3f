//! One frozen pass for every probe: images to head inputs at the union of the probes' taps.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor};
use heads::dense::{assemble, concatenate};
use schema::{DenseFeatureStage, DenseProtocol, HeadStage};

use crate::backbone::{Backbone, BackboneError, Wanted};
use crate::run::RunError;
use crate::upload::{Intake, Pixels, Uploader};

/// An encoder and how it is run.
pub(super) struct Encoder<'a> {
    pub(super) backbone: &'a dyn Backbone,
    /// Union of the probes' taps, with the type that keeps all a probe sees of them.
    pub(super) blocks: BTreeMap<usize, DType>,
    /// How heads' inputs are made of each block's tokens.
    recipes: BTreeSet<(usize, Recipe)>,
    /// Whether any of them has summary tokens.
    pub(super) summary: bool,
    /// Images in one pass.
    pub(super) micro_batch: usize,
    /// Side of a square image.
    pub(super) side: usize,
}

/// What is joined to each patch: nothing, or the mean of the summary tokens, of that many if not of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::run) struct Recipe {
    summary: bool,
    class_tokens: Option<usize>,
}

impl Recipe {
    pub(in crate::run) fn of(feature: &DenseFeatureStage) -> Self {
        Self { summary: feature.summary, class_tokens: feature.class_tokens }
    }
}

/// Head inputs `[B, 2D, h, w]` by block and recipe.
pub(super) type Taps = BTreeMap<(usize, Recipe), Tensor>;

/// Tokens of one tap, after the final norm.
#[derive(Clone)]
pub(super) struct Tokens {
    /// `[B, h w, D]`, row-major over the grid.
    pub(super) patches: Tensor,
    /// `[B, S, D]`.
    pub(super) summary: Option<Tensor>,
    /// `(h, w)`.
    pub(super) grid: (usize, usize),
}

/// Tokens by block.
pub(super) type TokensByBlock = BTreeMap<usize, Tokens>;

impl<'a> Encoder<'a> {
    /// The encoder of probes that share a stream; `dtype` is their autocast type.
    pub(super) fn of<'p>(
        backbone: &'a dyn Backbone,
        dtype: DType,
        micro_batch: usize,
        protocols: impl Iterator<Item = &'p DenseProtocol>,
    ) -> Self {
        let mut encoder = Self {
            backbone,
            blocks: BTreeMap::new(),
            recipes: BTreeSet::new(),
            summary: false,
            micro_batch,
            side: 0,
        };
        for protocol in protocols {
            // Batch norm reads f32; a DPT's first convolutions round what they read.
            let sees = match protocol.head {
                HeadStage::Linear { .. } => DType::F32,
                HeadStage::Dpt { .. } => dtype,
            };
            for &block in &protocol.feature.blocks {
                let kept = encoder.blocks.entry(block).or_insert(sees);
                if sees == DType::F32 {
                    *kept = sees;
                }
                encoder.recipes.insert((block, Recipe::of(&protocol.feature)));
            }
            encoder.summary |= protocol.feature.summary;
            encoder.side = protocol.sample.crop;
        }
        encoder
    }

    /// Encodes images of `side` x `side` pixels in passes of `micro_batch`.
    pub(super) fn encode(&self, images: &[Pixels], intake: &Intake<'_>) -> Result<Taps, RunError> {
        let mut parts: BTreeMap<(usize, Recipe), Vec<Tensor>> = BTreeMap::new();
        for images in images.chunks(self.micro_batch) {
            let images = intake.batch(images, (self.side, self.side));
            let images = &images.map_err(BackboneError::Candle)?;
            for (tap, part) in self.taps(&self.tokens(images)?)? {
                parts.entry(tap).or_default().push(part);
            }
        }
        parts.into_iter().map(|(tap, parts)| Ok((tap, concatenate(&parts)?))).collect()
    }

    /// Every head's inputs of one pass.
    pub(super) fn taps(&self, tokens: &TokensByBlock) -> Result<Taps, RunError> {
        let tap = |&(block, recipe): &(usize, Recipe)| {
            let tokens = tokens.get(&block).ok_or_else(|| {
                RunError::Backbone(BackboneError::NoTokens(format!("block {block}")))
            })?;
            Ok(((block, recipe), tokens.tap(recipe)?))
        };
        self.recipes.iter().map(tap).collect()
    }

    /// Encodes normalised images `[B, 3, side, side]` in one pass.
    pub(super) fn tokens(&self, images: &Tensor) -> Result<TokensByBlock, RunError> {
        let wanted = Wanted { patches_norm: true, summary_norm: self.summary, ..Wanted::default() };
        let blocks: Vec<usize> = self.blocks.keys().copied().collect();
        let taps = self.backbone.forward(images, &blocks, wanted)?;
        let tokens = taps.into_iter().map(|tap| {
            let (Some(patches), Some(grid)) = (tap.patches_norm, tap.grid) else {
                return Err(BackboneError::NoTokens("patch tokens".to_owned()).into());
            };
            Ok((tap.block, Tokens { patches, summary: tap.summary_norm, grid }))
        });
        tokens.collect()
    }
}

impl Tokens {
    /// A head's input `[B, 2D, h, w]`; `[B, D, h, w]` where nothing is joined.
    fn tap(&self, recipe: Recipe) -> Result<Tensor, RunError> {
        let some = |summary: &Tensor| match recipe.class_tokens {
            Some(count) => summary.narrow(1, 0, count),
            None => Ok(summary.clone()),
        };
        let summary = self.summary.as_ref().filter(|_| recipe.summary).map(some);
        let summary = summary.transpose().map_err(BackboneError::Candle)?;
        Ok(assemble(&self.patches, summary.as_ref(), self.grid)?)
    }

    /// The tokens of `len` images from `start` on, on the device.
    pub(super) fn part(
        &self,
        start: usize,
        len: usize,
        uploader: &Uploader,
    ) -> Result<Self, RunError> {
        let part = |x: &Tensor| uploader.tensor(&x.narrow(0, start, len)?);
        let patches = part(&self.patches).map_err(BackboneError::Candle)?;
        let summary = self.summary.as_ref().map(part).transpose().map_err(BackboneError::Candle)?;
        Ok(Self { patches, summary, grid: self.grid })
    }

    /// The tokens of several passes as one.
    pub(super) fn join(parts: &[Self]) -> Result<Option<Self>, RunError> {
        let Some(first) = parts.first() else { return Ok(None) };
        let patches: Vec<Tensor> = parts.iter().map(|part| part.patches.clone()).collect();
        let summary: Vec<Tensor> = parts.iter().filter_map(|part| part.summary.clone()).collect();
        let summary = if summary.is_empty() { None } else { Some(joined(&summary)?) };
        Ok(Some(Self { patches: joined(&patches)?, summary, grid: first.grid }))
    }
}

fn joined(parts: &[Tensor]) -> Result<Tensor, RunError> {
    match parts {
        [one] => Ok(one.clone()),
        many => Ok(Tensor::cat(many, 0).map_err(BackboneError::Candle)?),
    }
}

/// The taps a head takes, shallow to deep.
pub(super) fn taps_of(taps: &Taps, feature: &DenseFeatureStage) -> Vec<Tensor> {
    let recipe = Recipe::of(feature);
    let blocks = feature.blocks.iter();
    blocks.filter_map(|&block| taps.get(&(block, recipe)).cloned()).collect()
}
