//! The registry of families. A new family is one file beside this one and one line in [`FAMILIES`].

use std::sync::Arc;

use schema::{Fingerprint, Tokens};

use super::pixels;
use super::pixio::PixioConfig;
use super::{Backbone, Dimensions, Placement};
use crate::registry::KnnRecipe;
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

/// One supported family.
pub struct Family {
    /// `model_type` in config.json, and `family` in backbones.toml.
    pub name: &'static str,
    /// Its configuration reader.
    pub from_config: FromConfig,
    /// The image's feature for k-NN, for checkpoints without an entry in backbones.toml.
    pub knn: KnnRecipe,
    /// Whether checkpoints of it exist (the pixel floor has none).
    pub published: bool,
}

/// Every supported family.
pub static FAMILIES: &[Family] = &[
    Family {
        name: "pixio",
        from_config: |config| Ok(Arc::new(PixioConfig::from_transformers(config)?)),
        knn: KnnRecipe { tokens: Tokens::SummaryMean, final_norm: false },
        published: true,
    },
    Family {
        name: "pixels",
        from_config: |_| Ok(Arc::new(pixels::Make)),
        knn: KnnRecipe { tokens: Tokens::SummaryMean, final_norm: false },
        published: false,
    },
];

/// The family of that name.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}
