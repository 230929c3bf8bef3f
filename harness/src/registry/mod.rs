//! backbones.toml: every backbone that has a name; and a user's own file of more.

mod own;

pub(crate) use own::merge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use schema::Tokens;
use serde::{Deserialize, Serialize};

use crate::backbone::families::{Architecture, family};
use crate::resolve::Preparation;
use crate::weights::Rule;

static EMBEDDED: &str = include_str!("../../../backbones.toml");

/// What is wrong with a file of backbones.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file this program was built with.
    #[error("{0}")]
    Embedded(String),
    /// The user's file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not of the form.
    #[error("{}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// One of its tables.
    #[error("{}: backbone {name:?}: {why}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The table.
        name: String,
        /// What is wrong.
        why: String,
        /// Names that may have been meant, best first.
        near: Vec<String>,
    },
}

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// What entries leave out.
    pub defaults: Defaults,
    /// Entries by name.
    #[serde(rename = "backbone")]
    pub backbones: BTreeMap<String, Entry>,
}

/// What entries leave out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Side of the evaluation image in pixels.
    pub resolution: usize,
    /// Mean of the normalisation, RGB.
    pub mean: [f32; 3],
    /// Standard deviation of the normalisation, RGB.
    pub std: [f32; 3],
}

/// One backbone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// In words.
    pub title: String,
    /// Name in [`crate::backbone::families::FAMILIES`].
    pub family: String,
    /// `ORG/REPO` on the hub; absent when no weights are published.
    pub repository: Option<String>,
    /// Where the weights are when they are not on the hub, in words.
    pub elsewhere: Option<String>,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// Whether access must be asked for.
    #[serde(default)]
    pub gated: bool,
    /// Licence of the weights.
    pub licence: Option<String>,
    /// Millions, as published; of an own backbone, where they are known without its weights.
    pub parameters: Option<f64>,
    /// Side of the evaluation image in pixels, where it is not the default.
    pub resolution: Option<usize>,
    /// Mean of the normalisation, where it is not the default.
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of the normalisation, where it is not the default.
    pub std: Option<[f32; 3]>,
    /// In the form of config.json.
    pub config: serde_json::Value,
    /// Which tokens a head sees.
    pub recipe: Recipe,
    /// Where these choices come from.
    pub source: String,
    /// What a user's table says over a repository's config.json: an object.
    #[serde(skip)]
    pub own_config: serde_json::Value,
    /// Weights on this machine: a file, or a folder.
    #[serde(skip)]
    pub path: Option<PathBuf>,
    /// Names of its tensors, made into those of the family.
    #[serde(skip)]
    pub rename: Vec<Rule>,
    /// `FILE.py:FUNCTION` that makes it in Python.
    #[serde(skip)]
    pub python: Option<String>,
}

/// Which tokens a head sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The image's feature for k-NN.
    pub knn: KnnRecipe,
    /// Whether a dense head sees each patch joined with the mean summary token, where there is one.
    #[serde(default = "joined")]
    pub dense_summary: bool,
}

fn joined() -> bool {
    true
}

/// The image's feature for k-NN, from the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnnRecipe {
    /// Which tokens.
    pub tokens: Tokens,
    /// Whether the final norm is applied first.
    pub final_norm: bool,
}

static PARSED: LazyLock<Result<Registry, String>> = LazyLock::new(|| parse(EMBEDDED));

fn parse(text: &str) -> Result<Registry, String> {
    toml::from_str(text).map_err(|error| format!("backbones.toml: {error}"))
}

/// The registry this program was built with.
pub fn builtin() -> Result<&'static Registry, RegistryError> {
    PARSED.as_ref().map_err(|why| RegistryError::Embedded(why.clone()))
}

/// That registry, and the backbones of a user's file.
pub fn with_own(file: Option<&Path>) -> Result<Registry, RegistryError> {
    let mut registry = builtin()?.clone();
    if let Some(file) = file {
        own::add(&mut registry, file)?;
    }
    Ok(registry)
}

impl Entry {
    /// The architecture its configuration describes.
    pub fn architecture(&self) -> Result<Arc<dyn Architecture>, String> {
        let family = family(&self.family)
            .ok_or_else(|| format!("family {:?} of backbones.toml is unknown", self.family))?;
        (family.from_config)(&self.config)
    }

    /// How images are prepared for it, with what it leaves out from `defaults`.
    pub fn preparation(&self, defaults: &Defaults) -> Preparation {
        Preparation {
            resolution: self.resolution.unwrap_or(defaults.resolution),
            mean: self.mean.unwrap_or(defaults.mean),
            std: self.std.unwrap_or(defaults.std),
        }
    }
}

/// The candidates nearest to a mistyped name, best first.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut scored: Vec<(f64, &str)> = candidates
        .map(|candidate| (strsim::jaro_winkler(&lower, candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, candidate)| candidate.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Expected;

    #[test]
    fn every_entry_builds_an_architecture_of_its_published_size() {
        let registry = builtin().unwrap();
        assert!(registry.backbones.len() >= 6);
        for (name, entry) in &registry.backbones {
            let architecture = entry.architecture().unwrap();
            let elements: u64 = architecture.expected().iter().map(Expected::parameters).sum();
            let millions = elements as f64 / 1e6;
            assert!((millions - entry.parameters.unwrap()).abs() < 0.6, "{name}: {millions}");
        }
    }

    #[test]
    fn a_near_name_is_suggested() {
        let names = || builtin().unwrap().backbones.keys().map(String::as_str);
        assert_eq!(nearest("pixio-xl", names())[0], "pixio-l");
        assert!(nearest("zzz", names()).is_empty());
    }
}
