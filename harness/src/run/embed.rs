//! From an image to one vector.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use ndarray::ArrayView3;
use schema::{BackboneRecord, FeatureStage, ImageStage, Tokens};

use super::{RunError, Settings};
use crate::backbone::{Backbone, BackboneError, Dimensions, Tap, Wanted};
use crate::resolve::Resolved;

/// How an image becomes a vector.
pub(super) struct Embedder<'a> {
    pub(super) device: &'a Device,
    pub(super) image: &'a ImageStage,
    pub(super) feature: &'a FeatureStage,
    /// Width of a vector.
    pub(super) width: usize,
    /// Whether vectors are divided by their length.
    pub(super) normalise: bool,
}

/// From file to a square encoder input of that side.
pub fn image_stage(side: usize, mean: [f32; 3], std: [f32; 3]) -> ImageStage {
    let filter = "pillow-bicubic".to_owned();
    ImageStage { revision: 1, resize: side, crop: side, filter, mean, std }
}

/// How a vector is made of an image, by the backbone's recipe or by what a cell sets in its place; and
/// how that departs from it.
pub(super) fn stages(
    resolved: &Resolved,
    backbone: &BackboneRecord,
    dtype: &str,
    settings: &Settings,
) -> Result<(ImageStage, FeatureStage, String), RunError> {
    let (preparation, dimensions) = (&resolved.preparation, resolved.dimensions());
    let image = image_stage(preparation.resolution, preparation.mean, preparation.std);
    let (blocks, mut departs) = settings.blocks(backbone, vec![backbone.blocks - 1])?;
    let (tokens, class_tokens, other) =
        settings.vector_tokens(&resolved.recipe, &resolved.name, &dimensions)?;
    departs.push_str(&other);
    if let (Tokens::Pooled, Some(&[block])) =
        (tokens, blocks.get(..1).filter(|_| blocks != [backbone.blocks - 1]))
    {
        let why = format!(
            "{} makes its vector with an output head behind the last block; give tokens too",
            resolved.name
        );
        return Err(RunError::Setting { what: "block", value: (block + 1).to_string(), why });
    }
    let feature = FeatureStage {
        revision: 1,
        block: blocks.first().copied().unwrap_or(backbone.blocks - 1),
        tokens,
        class_tokens,
        final_norm: resolved.recipe.knn.final_norm,
        dtype: dtype.to_owned(),
    };
    Ok((image, feature, departs))
}

/// Width of the vector that a recipe makes of an encoder's tokens.
pub(super) fn width(tokens: Tokens, dimensions: &Dimensions) -> usize {
    match tokens {
        Tokens::Pooled => dimensions.pooled.unwrap_or(dimensions.width),
        Tokens::SummaryMean | Tokens::PatchMean => dimensions.width,
        Tokens::PatchAndSummaryMean => 2 * dimensions.width,
    }
}

/// Vectors of the same encoder inputs, one of each kind: `[B, width]` each, row-major.
///
/// One pass of the encoder gives them all; each is what it would be alone.
pub(super) fn embed(
    backbone: &dyn Backbone,
    pixels: Vec<f32>,
    batch: usize,
    kinds: &[&Embedder<'_>],
) -> Result<Vec<Vec<f32>>, RunError> {
    let Some(first) = kinds.first() else { return Ok(Vec::new()) };
    let candle = |error| RunError::Backbone(BackboneError::Candle(error));
    let side = first.image.crop;
    let images = Tensor::from_vec(pixels, (batch, 3, side, side), first.device).map_err(candle)?;
    let blocks: BTreeSet<usize> = kinds.iter().map(|kind| kind.feature.block).collect();
    let blocks: Vec<usize> = blocks.into_iter().collect();
    let wanted = kinds.iter().fold(Wanted::default(), |all, kind| all.and(kind.wanted()));
    let taps = backbone.forward(&images, &blocks, wanted)?;
    let tap = |block| taps.iter().find(|tap| tap.block == block);
    kinds
        .iter()
        .map(|kind| {
            let missing = || BackboneError::NoTokens(format!("{:?}", kind.feature.tokens));
            let mut vectors = kind.mean(tap(kind.feature.block).ok_or_else(missing)?)?;
            if kind.normalise {
                heads::knn::l2_normalise(&mut vectors, kind.width)?;
            }
            Ok(vectors)
        })
        .collect()
}

impl Embedder<'_> {
    /// Encoder input `[3, S, S]` of an image `[H, W, 3]`.
    pub(super) fn pixels(&self, image: ArrayView3<'_, u8>) -> Vec<f32> {
        let stage = self.image;
        let image = tasks::image::prepare(image, stage);
        let mut pixels = vec![0f32; 3 * stage.crop * stage.crop];
        tasks::image::normalise_into(image.view(), stage.mean, stage.std, &mut pixels);
        pixels
    }

    /// Vectors `[B, width]`, row-major, of `batch` encoder inputs one after another.
    pub(super) fn embed(
        &self,
        backbone: &dyn Backbone,
        pixels: Vec<f32>,
        batch: usize,
    ) -> Result<Vec<f32>, RunError> {
        Ok(embed(backbone, pixels, batch, &[self])?.pop().unwrap_or_default())
    }

    fn wanted(&self) -> Wanted {
        let (before, after) = (!self.feature.final_norm, self.feature.final_norm);
        let none = Wanted::default();
        match self.feature.tokens {
            Tokens::SummaryMean => Wanted { summary: before, summary_norm: after, ..none },
            Tokens::PatchMean => Wanted { patches: before, patches_norm: after, ..none },
            Tokens::PatchAndSummaryMean => Wanted {
                patches: before,
                patches_norm: after,
                summary: before,
                summary_norm: after,
                ..none
            },
            Tokens::Pooled => Wanted { pooled: true, ..none },
        }
    }

    fn mean(&self, tap: &Tap) -> Result<Vec<f32>, RunError> {
        let feature = self.feature;
        let (patches, summary) = match feature.final_norm {
            true => (&tap.patches_norm, &tap.summary_norm),
            false => (&tap.patches, &tap.summary),
        };
        let there = |tokens: &Option<Tensor>| {
            let missing = || BackboneError::NoTokens(format!("{:?}", feature.tokens));
            tokens.clone().ok_or_else(missing)
        };
        let candle = |error| RunError::Backbone(BackboneError::Candle(error));
        let summary = || -> Result<Tensor, RunError> {
            let tokens = there(summary)?;
            let first = feature.class_tokens.map(|count| tokens.narrow(1, 0, count));
            first.unwrap_or(Ok(tokens)).and_then(|tokens| tokens.mean(1)).map_err(candle)
        };
        let patches = || there(patches)?.mean(1).map_err(candle);
        let vectors = match feature.tokens {
            Tokens::SummaryMean => summary()?,
            Tokens::PatchMean => patches()?,
            Tokens::PatchAndSummaryMean => {
                Tensor::cat(&[patches()?, summary()?], 1).map_err(candle)?
            }
            Tokens::Pooled => there(&tap.pooled)?.mean(1).map_err(candle)?,
        };
        vectors.flatten_all().and_then(|all| all.to_vec1()).map_err(candle)
    }
}
