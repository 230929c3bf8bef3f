use std::path::PathBuf;

use crate::hub::HubError;
use crate::python::WorkerError;
use crate::registry::RegistryError;
use crate::weights::WeightsError;

/// Why a backbone cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Neither a name nor a path.
    #[error("unknown backbone {name:?}: not a name in backbones.toml, not a file, not a folder")]
    Unknown {
        /// As given.
        name: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// A folder without config.json.
    #[error("{} has no config.json; expected config.json beside model.safetensors", .0.display())]
    NoConfig(PathBuf),
    /// config.json does not describe an encoder.
    #[error("{} does not describe a backbone: {why}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// config.json is of another family.
    #[error("{} is of family {found:?}; supported: {supported}", path.display())]
    UnsupportedFamily {
        /// The file.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
        /// Names of the supported families.
        supported: String,
    },
    /// A single file without an architecture.
    #[error("{} holds weights alone; its architecture must be given", .0.display())]
    NeedsArch(PathBuf),
    /// `--arch` is neither a name nor a config.json.
    #[error(
        "unknown architecture {name:?}: not a name in backbones.toml, not a family, not a config.json"
    )]
    UnknownArch {
        /// As given.
        name: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// A name without weights on the hub.
    #[error("{0} has no weights on the hub")]
    NoWeights(String),
    /// `hf:`, `random:` or `py:` with something unreadable after it.
    #[error("{given:?} is not a backbone: expected {expected}")]
    Spelling {
        /// As given.
        given: String,
        /// The form.
        expected: &'static str,
    },
    /// An override that does not fit.
    #[error("--override {given}: {why}")]
    Override {
        /// As given.
        given: String,
        /// What is wrong.
        why: String,
    },
    /// An image that does not divide into patches.
    #[error("{name}: resolution {resolution} is no multiple of the patch, {patch}")]
    Resolution {
        /// The backbone.
        name: String,
        /// Side of the image in pixels.
        resolution: usize,
        /// Side of a patch in pixels.
        patch: usize,
    },
    /// A recipe of tokens that the encoder does not have.
    #[error("{name}: the recipe's tokens are {tokens:?}, and the encoder has none such")]
    NoTokens {
        /// The backbone.
        name: String,
        /// The recipe's.
        tokens: schema::Tokens,
    },
    /// Rules or overrides for a backbone that takes none.
    #[error("{what} does not apply to {backbone}: {why}")]
    NotFor {
        /// The option.
        what: &'static str,
        /// The backbone.
        backbone: String,
        /// Why.
        why: &'static str,
    },
    /// backbones.toml, or the user's file.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A Python backbone.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}
