//! From an image to one vector.

use std::collections::BTreeSet;

use candle_core::Tensor;
use ndarray::ArrayView3;
use schema::{BackboneRecord, FeatureStage, ImageStage, Tokens};

use super::{RunError, Settings};
use crate::backbone::{Backbone, BackboneError, Dimensions, Tap, Wanted};
use crate::resolve::Resolved;
use crate::upload::{Intake, Pixels, Reading, Uploader};

/// How an image becomes a vector.
pub(super) struct Embedder<'a> {
    intake: Intake<'a>,
    pub(super) image: &'a ImageStage,
    pub(super) feature: &'a FeatureStage,
    /// Width of a vector.
    pub(super) width: usize,
    /// Whether vectors are divided by their length.
    normalise: bool,
}

/// Vectors on their way from the device, one reading a kind.
pub(super) struct Embedding {
    /// With the width of a vector, if it is divided by its length.
    readings: Vec<(Reading, Option<usize>)>,
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

/// Has vectors made of the same encoder inputs, one of each kind.
///
/// One pass of the encoder gives them all; each is what it would be alone.
pub(super) fn embed(
    backbone: &dyn Backbone,
    images: &[Pixels],
    kinds: &[&Embedder<'_>],
) -> Result<Embedding, RunError> {
    let Some(first) = kinds.first() else { return Ok(Embedding { readings: Vec::new() }) };
    let side = first.image.crop;
    let images = first.intake.batch(images, (side, side)).map_err(candle)?;
    let blocks: BTreeSet<usize> = kinds.iter().map(|kind| kind.feature.block).collect();
    let blocks: Vec<usize> = blocks.into_iter().collect();
    let wanted = kinds.iter().fold(Wanted::default(), |all, kind| all.and(kind.wanted()));
    let taps = backbone.forward(&images, &blocks, wanted)?;
    let tap = |block| taps.iter().find(|tap| tap.block == block);
    let reading = |kind: &&Embedder<'_>| {
        let missing = || BackboneError::NoTokens(format!("{:?}", kind.feature.tokens));
        let vectors = kind.mean(tap(kind.feature.block).ok_or_else(missing)?)?;
        let reading = first.intake.uploader.read(&vectors).map_err(candle)?;
        Ok((reading, kind.normalise.then_some(kind.width)))
    };
    Ok(Embedding { readings: kinds.iter().map(reading).collect::<Result<_, RunError>>()? })
}

fn candle(error: candle_core::Error) -> RunError {
    BackboneError::Candle(error).into()
}

impl Embedding {
    /// Waits for the vectors: `[B, width]` of each kind, row-major.
    pub(super) fn wait(self) -> Result<Vec<Vec<f32>>, RunError> {
        let vectors = |(reading, normalise): (Reading, Option<usize>)| {
            let mut vectors = reading.values().map_err(candle)?;
            if let Some(width) = normalise {
                heads::knn::l2_normalise(&mut vectors, width)?;
            }
            Ok(vectors)
        };
        self.readings.into_iter().map(vectors).collect()
    }
}

impl<'a> Embedder<'a> {
    /// Vectors of that width, on the uploader's device; divided by their length if `normalise`.
    pub(super) fn new(
        uploader: &'a Uploader,
        image: &'a ImageStage,
        feature: &'a FeatureStage,
        width: usize,
        normalise: bool,
    ) -> Result<Self, RunError> {
        let intake = Intake::new(uploader, |pixels, out: &mut [f32]| {
            tasks::image::normalise_into(pixels, image.mean, image.std, out);
        });
        Ok(Self { intake: intake.map_err(candle)?, image, feature, width, normalise })
    }

    /// What an encoder sees of an image `[H, W, 3]`: the resized square.
    pub(super) fn pixels(&self, image: ArrayView3<'_, u8>) -> Pixels {
        self.intake.pixels(tasks::image::prepare(image, self.image))
    }

    /// A square whose vector nobody reads.
    pub(super) fn blank(&self) -> Pixels {
        self.intake.blank((self.image.crop, self.image.crop))
    }

    /// What takes data to the device of the encoder, and of what is done with the vectors.
    pub(super) fn uploader(&self) -> &Uploader {
        self.intake.uploader
    }

    /// Batches that are enqueued before the vectors of the last one are waited for.
    pub(super) fn ahead(&self) -> usize {
        self.intake.uploader.ahead()
    }

    /// Vectors `[B, width]`, row-major, of images one after another.
    pub(super) fn embed(
        &self,
        backbone: &dyn Backbone,
        images: &[Pixels],
    ) -> Result<Vec<f32>, RunError> {
        Ok(embed(backbone, images, &[self])?.wait()?.pop().unwrap_or_default())
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

    /// `[B, width]` f32.
    fn mean(&self, tap: &Tap) -> Result<Tensor, RunError> {
        let feature = self.feature;
        let (patches, summary) = match feature.final_norm {
            true => (&tap.patches_norm, &tap.summary_norm),
            false => (&tap.patches, &tap.summary),
        };
        let there = |tokens: &Option<Tensor>| {
            let missing = || BackboneError::NoTokens(format!("{:?}", feature.tokens));
            tokens.clone().ok_or_else(missing)
        };
        let summary = || -> Result<Tensor, RunError> {
            let tokens = there(summary)?;
            let first = feature.class_tokens.map(|count| tokens.narrow(1, 0, count));
            first.unwrap_or(Ok(tokens)).and_then(|tokens| tokens.mean(1)).map_err(candle)
        };
        let patches = || there(patches)?.mean(1).map_err(candle);
        match feature.tokens {
            Tokens::SummaryMean => summary(),
            Tokens::PatchMean => patches(),
            Tokens::PatchAndSummaryMean => {
                Tensor::cat(&[patches()?, summary()?], 1).map_err(candle)
            }
            Tokens::Pooled => there(&tap.pooled)?.mean(1).map_err(candle),
        }
    }
}
