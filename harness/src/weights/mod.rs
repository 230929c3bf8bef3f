//! Weights: where tensors come from, and how a family's names are found among them.
//!
//! A [`TensorSource`] hands out raw tensors by the name they have in their file. A family's
//! [`NameMap`] turns such names into canonical ones; [`Weights::map`] checks the whole set at once,
//! so that one error lists everything that is missing, unexpected or mis-shaped.

mod likeness;
mod mapping;
mod pth;
mod random;
mod rename;
mod safetensors;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use candle_core::DType;

pub use likeness::Likeness;
pub use mapping::{Canonical, Expected, Mismatch, NameMap, Weights};
pub use random::RandomSource;
pub use rename::{Rule, RuleError, rename};
pub(crate) use safetensors::shard_names;

/// The type of a stored tensor's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// A weight's: f16, bf16, f32 or f64.
    Real(DType),
    /// Integers or truth values, by name: a counter, a table of indices, a mask.
    Whole(String),
    /// Anything else, by name.
    Other(String),
}

/// Shape and type of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type in the file.
    pub element: Element,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Named tensors in a container.
pub trait TensorSource: Send + Sync {
    /// Every tensor's name, in no particular order.
    fn names(&self) -> Vec<String>;
    /// Shape and type; `None` for an unknown name.
    fn info(&self, name: &str) -> Option<TensorInfo>;
    /// The elements, row-major, little-endian.
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError>;
    /// What to call the container in a message.
    fn describe(&self) -> String;
}

/// Everything that can be wrong with a set of weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened or mapped.
    #[error("cannot read weights {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a whole safetensors file.
    #[error("{} is not a complete safetensors file: {why}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        why: String,
    },
    /// Not a readable `.pth`.
    #[error("{} is not a readable PyTorch checkpoint: {source}", path.display())]
    Pth {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        source: pickle::CheckpointError,
    },
    /// The index of a sharded checkpoint is broken.
    #[error("{} is not a usable shard index: {why}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A tensor has a type that weights cannot have.
    #[error("tensor {name} in {source_name} has type {found}; expected f32, f64, f16 or bf16")]
    Dtype {
        /// Name in the file.
        name: String,
        /// The file.
        source_name: String,
        /// Its type.
        found: String,
    },
    /// The tensors do not make up the encoder.
    #[error("{source_name} does not fit {family}: {}\n{}", found.beside(wanted), mapping::list(.mismatches))]
    Mismatch {
        /// The file or folder.
        source_name: String,
        /// What was to be built.
        family: String,
        /// What it would look like.
        wanted: Likeness,
        /// What the tensors look like.
        found: Likeness,
        /// Everything that is wrong.
        mismatches: Vec<Mismatch>,
    },
    /// Two tensors became one.
    #[error("the rename rules give {first} and {second} the same name, {name}")]
    RenamedTwice {
        /// Name in the file.
        first: String,
        /// Name in the file.
        second: String,
        /// What both became.
        name: String,
    },
    /// A rule without use.
    #[error("rename rule {rule} matches no tensor of {source_name}, for example {}", some.join(", "))]
    RuleUnused {
        /// The rule.
        rule: String,
        /// The file or folder.
        source_name: String,
        /// Some names that are there.
        some: Vec<String>,
    },
    /// Conversion to the wanted type or device failed.
    #[error("cannot load tensor {name}: {source}")]
    Convert {
        /// Canonical name.
        name: String,
        /// Why.
        source: candle_core::Error,
    },
}

/// Opens a `.safetensors` file, a PyTorch checkpoint (`.pth`, `.pt`, `.bin`), or a folder holding
/// `model.safetensors`, the shards of `model.safetensors.index.json`, or else `pytorch_model.bin`.
pub fn open(path: &Path) -> Result<Box<dyn TensorSource>, WeightsError> {
    let is_pth = path.extension().is_some_and(|e| e == "pth" || e == "pt" || e == "bin");
    let pickled = path.join("pytorch_model.bin");
    if path.is_dir() && pickled.exists() && !safetensors::in_folder(path) {
        Ok(Box::new(pth::PthSource::open(&pickled)?))
    } else if path.is_dir() {
        Ok(Box::new(safetensors::Mapped::open_folder(path)?))
    } else if is_pth {
        Ok(Box::new(pth::PthSource::open(path)?))
    } else {
        Ok(Box::new(safetensors::Mapped::open_files(vec![path.to_path_buf()], path)?))
    }
}
