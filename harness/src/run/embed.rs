//! From an image to one vector.

use candle_core::{Device, Tensor};
use ndarray::ArrayView3;
use schema::{BackboneRecord, FeatureStage, ImageStage, Tokens};

use super::RunError;
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

/// How a backbone's recipe makes a vector of an image.
pub(super) fn stages(
    resolved: &Resolved,
    backbone: &BackboneRecord,
    dtype: &str,
) -> (ImageStage, FeatureStage) {
    let preparation = &resolved.preparation;
    let image = image_stage(preparation.resolution, preparation.mean, preparation.std);
    let feature = FeatureStage {
        revision: 1,
        block: backbone.blocks - 1,
        tokens: resolved.recipe.knn.tokens,
        final_norm: resolved.recipe.knn.final_norm,
        dtype: dtype.to_owned(),
    };
    (image, feature)
}

/// Width of the vector that a recipe makes of an encoder's tokens.
pub(super) fn width(tokens: Tokens, dimensions: &Dimensions) -> usize {
    match tokens {
        Tokens::Pooled => dimensions.pooled.unwrap_or(dimensions.width),
        Tokens::SummaryMean | Tokens::PatchMean => dimensions.width,
    }
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
        let (stage, side) = (self.feature, self.image.crop);
        let candle = |error| RunError::Backbone(BackboneError::Candle(error));
        let images =
            Tensor::from_vec(pixels, (batch, 3, side, side), self.device).map_err(candle)?;
        let wanted = match (stage.tokens, stage.final_norm) {
            (Tokens::SummaryMean, false) => Wanted::SUMMARY,
            (Tokens::SummaryMean, true) => Wanted { summary_norm: true, ..Wanted::default() },
            (Tokens::PatchMean, false) => Wanted { patches: true, ..Wanted::default() },
            (Tokens::PatchMean, true) => Wanted { patches_norm: true, ..Wanted::default() },
            (Tokens::Pooled, _) => Wanted { pooled: true, ..Wanted::default() },
        };
        let taps = backbone.forward(&images, &[stage.block], wanted)?;
        let tokens = taps.into_iter().find_map(|tap: Tap| {
            tap.summary.or(tap.summary_norm).or(tap.patches).or(tap.patches_norm).or(tap.pooled)
        });
        let tokens =
            tokens.ok_or_else(|| BackboneError::NoTokens(format!("{:?}", stage.tokens)))?;
        let mean = |tokens: &Tensor| tokens.mean(1)?.flatten_all()?.to_vec1::<f32>();
        let mut features = mean(&tokens).map_err(candle)?;
        if self.normalise {
            heads::knn::l2_normalise(&mut features, self.width)?;
        }
        Ok(features)
    }
}
