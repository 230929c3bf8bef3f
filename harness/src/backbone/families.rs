//! The registry of families. A new family is one file beside this one and one line in [`FAMILIES`].

use std::sync::Arc;

use schema::{Fingerprint, IMAGENET_MEAN, IMAGENET_STD, Tokens};

use super::pixio::PixioConfig;
use super::{
    Backbone, Dimensions, Placement, clip, depth_anything, dinov2, dinov3, mae, pixels, r3m, sam,
    siglip, state, theia, vc1, vit,
};
use crate::registry::{KnnRecipe, Recipe};
use crate::weights::{Expected, NameMap, Weights, WeightsError};

/// A family's make, read from a configuration: enough to check weights and to build the encoder.
pub trait Architecture: Send + Sync {
    /// Name of the family.
    fn family(&self) -> &'static str;
    /// Size and make.
    fn dimensions(&self) -> Dimensions;
    /// Every tensor the encoder needs.
    fn expected(&self) -> Vec<Expected>;
    /// From the names in files to those of [`Architecture::expected`].
    fn names(&self) -> NameMap;
    /// Hash over everything that decides the computation beside the weights.
    fn fingerprint(&self) -> Fingerprint;
    /// How it knows where a patch is, in words.
    fn positions(&self) -> String;
    /// Floating-point operations of an image of that size, up to the last block; a multiplication and
    /// an addition are two.
    fn flops(&self, height: usize, width: usize) -> Option<f64>;
    /// Loads the encoder.
    fn load(
        &self,
        weights: &Weights,
        placement: &Placement,
    ) -> Result<Box<dyn Backbone>, WeightsError>;
}

/// Reads a configuration in transformers' `config.json` form; the message names the field that does
/// not fit.
pub type FromConfig = fn(&serde_json::Value) -> Result<Arc<dyn Architecture>, String>;

/// One supported family. What a checkpoint without an entry in backbones.toml is given is here too.
pub struct Family {
    /// `family` in backbones.toml.
    pub name: &'static str,
    /// `model_type` in config.json, or the model's class where it has none.
    pub model_types: &'static [&'static str],
    /// Its configuration reader.
    pub from_config: FromConfig,
    /// Which tokens a head sees.
    pub recipe: Recipe,
    /// Mean of the normalisation, RGB.
    pub mean: [f32; 3],
    /// Standard deviation of the normalisation, RGB.
    pub std: [f32; 3],
    /// Whether checkpoints of it exist (the pixel floor has none).
    pub published: bool,
}

impl Family {
    /// A family with images normalised by ImageNet's statistics, and the class token after the final
    /// norm as an image's feature.
    const fn new(
        name: &'static str,
        model_types: &'static [&'static str],
        from: FromConfig,
    ) -> Self {
        Self {
            name,
            model_types,
            from_config: from,
            recipe: recipe(Tokens::SummaryMean, true, true),
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            published: true,
        }
    }
}

const fn recipe(tokens: Tokens, final_norm: bool, dense_summary: bool) -> Recipe {
    Recipe { knn: KnnRecipe { tokens, final_norm }, dense_summary }
}

/// Every supported family.
pub static FAMILIES: &[Family] = &[
    Family {
        recipe: recipe(Tokens::SummaryMean, false, true),
        ..Family::new("pixio", &["pixio"], |config| {
            Ok(Arc::new(PixioConfig::from_transformers(config)?))
        })
    },
    Family::new("mae", &["vit_mae"], |config| Ok(Arc::new(mae::from_transformers(config)?))),
    Family::new("dinov2", &["dinov2"], |config| Ok(Arc::new(dinov2::from_transformers(config)?))),
    Family::new("dinov2_with_registers", &["dinov2_with_registers"], |config| {
        Ok(Arc::new(dinov2::with_registers(config)?))
    }),
    Family {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        ..Family::new("clip", &["clip", "clip_vision_model"], |config| {
            Ok(Arc::new(clip::from_transformers(config)?))
        })
    },
    Family {
        recipe: recipe(Tokens::Pooled, true, false),
        mean: [0.5; 3],
        std: [0.5; 3],
        ..Family::new("siglip", &["siglip", "siglip_vision_model"], |config| {
            Ok(Arc::new(siglip::from_transformers(config)?))
        })
    },
    Family {
        mean: [0.5; 3],
        std: [0.5; 3],
        ..Family::new("vit", &["vit"], |config| Ok(Arc::new(vit::from_transformers(config)?)))
    },
    Family {
        recipe: recipe(Tokens::SummaryMean, true, false),
        ..Family::new("dinov3_vit", &["dinov3_vit"], |config| {
            Ok(Arc::new(dinov3::from_transformers(config)?))
        })
    },
    Family::new("vc1", &["vc1"], |config| Ok(Arc::new(vc1::from_transformers(config)?))),
    Family {
        recipe: recipe(Tokens::SummaryMean, true, false),
        ..Family::new("r3m", &["r3m"], |config| Ok(Arc::new(r3m::from_config(config)?)))
    },
    Family {
        recipe: recipe(Tokens::PatchMean, true, false),
        ..Family::new("theia", &["theia", "TheiaModel"], |config| {
            Ok(Arc::new(theia::from_config(config)?))
        })
    },
    Family {
        recipe: recipe(Tokens::Pooled, true, false),
        ..Family::new("sam", &["sam", "sam_vision_model"], |config| {
            Ok(Arc::new(sam::from_transformers(config)?))
        })
    },
    Family::new("depth_anything", &["depth_anything"], |config| {
        Ok(Arc::new(depth_anything::from_transformers(config)?))
    }),
    Family {
        recipe: recipe(Tokens::SummaryMean, false, true),
        published: false,
        ..Family::new("pixels", &[], |_| Ok(Arc::new(pixels::Make)))
    },
    Family { published: false, ..Family::new("state", &[], |_| Ok(Arc::new(state::Make))) },
];

/// The family of that name in backbones.toml.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}

/// The family of that `model_type` in config.json.
pub fn family_of_model_type(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.model_types.contains(&name))
}
