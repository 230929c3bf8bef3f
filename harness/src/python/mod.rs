//! Any PyTorch backbone, without porting it: `py:FILE.py:FUNCTION` runs in a Python process that
//! returns tapped tokens. The function returns a dict:
//!
//! ```text
//! module          a torch.nn.Module (or, for arrays: state, a mapping of names to arrays)
//! tokens          tokens(images [B, 3, H, W], blocks) -> a dict for each block with any of
//!                 patches [B, N, D], summary [B, S, D], patches_norm, summary_norm, pooled [B, 1, D]
//! norm            the final norm, where tokens returns none of the _norm
//! blocks, width, patch                           required
//! summary_tokens (1), registers (0), patches (True)
//! resolution (256, or 16 patches), mean, std (ImageNet's)
//! knn ("summary-mean", "patch-mean", "pooled"), final_norm (True), dense_summary (True)
//! name, trained (True)
//! ```
//!
//! Its identity is the hash of the state, of the file with what it imports from beside it, and of
//! what is declared.

mod backbone;
mod error;
mod memory;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, DeviceLocation};
use schema::{Fingerprint, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use error::WorkerError;

use crate::backbone::{Backbone, Dimensions, Placement, evaluation_side};
use crate::progress::Reporter;
use crate::registry::{KnnRecipe, Recipe};
use crate::resolve::Preparation;
use backbone::PythonBackbone;
use memory::Shared;
use process::{Process, patience};

/// Seconds that making a backbone may take: weights may be downloaded.
const MAKING: u64 = 3600;
/// Seconds that a batch may take.
const BATCH: u64 = 600;

/// `FILE.py:FUNCTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    file: PathBuf,
    function: String,
}

impl FromStr for Target {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (file, function) = text.rsplit_once(':').ok_or(())?;
        let name = |c: char| c.is_alphanumeric() || c == '_';
        let whole = file.ends_with(".py") && !function.is_empty() && function.chars().all(name);
        whole.then(|| Self { file: file.into(), function: function.to_owned() }).ok_or(())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "py:{}:{}", self.file.display(), self.function)
    }
}

/// What the function declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Name shown in tables.
    pub name: String,
    /// How images are prepared for it.
    pub preparation: Preparation,
    /// Which tokens a head sees.
    pub recipe: Recipe,
    /// Whether it was trained.
    pub trained: bool,
}

/// A Python process with a backbone.
pub struct Worker {
    line: Mutex<Line>,
    declared: Declared,
    dimensions: Dimensions,
    identity: Fingerprint,
    parameters: u64,
    versions: BTreeMap<String, String>,
}

/// The way to the process.
struct Line {
    process: Process,
    shared: Option<Shared>,
}

#[derive(Deserialize)]
struct Hello {
    declared: Raw,
    state: String,
    sources: String,
    parameters: u64,
    versions: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(skip_serializing)]
    name: Option<String>,
    blocks: usize,
    width: usize,
    patch: usize,
    summary_tokens: usize,
    registers: usize,
    patches: bool,
    resolution: Option<usize>,
    mean: [f32; 3],
    std: [f32; 3],
    knn: Tokens,
    final_norm: bool,
    dense_summary: bool,
    #[serde(skip_serializing)]
    trained: bool,
}

impl Worker {
    /// Starts Python and makes the backbone there.
    pub fn start(target: &Target, reporter: &Reporter) -> Result<Self, WorkerError> {
        reporter.detail(format!("{target}: starting Python"));
        let mut process = Process::start(target)?;
        let hello: Hello = process.answer("making the backbone", patience(MAKING))?;
        let versions: Vec<String> =
            hello.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        reporter.detail(format!("{target}: {}", versions.join(", ")));
        let raw = hello.declared;
        let wrong = |what: String| WorkerError::Declared { backbone: target.to_string(), what };
        if let Some((what, _)) =
            [("blocks", raw.blocks), ("width", raw.width), ("patch", raw.patch)]
                .iter()
                .find(|(_, number)| *number == 0)
        {
            return Err(wrong(format!("{what} = 0; expected at least 1")));
        }
        let numbers = raw.mean.iter().chain(&raw.std);
        if numbers.chain(&raw.std).any(|x| !x.is_finite()) || raw.std.contains(&0.0) {
            let (mean, std) = (raw.mean, raw.std);
            return Err(wrong(format!(
                "mean {mean:?} and std {std:?}; expected finite, std not 0"
            )));
        }
        let resolution = raw.resolution.unwrap_or_else(|| evaluation_side(raw.patch));
        if raw.patches && !resolution.is_multiple_of(raw.patch) {
            let patch = raw.patch;
            return Err(wrong(format!(
                "resolution = {resolution}; expected a multiple of the patch, {patch}"
            )));
        }
        if raw.knn == Tokens::SummaryMean && raw.summary_tokens == 0 {
            let others = "expected \"patch-mean\" or \"pooled\"";
            return Err(wrong(format!("no summary tokens and knn = \"summary-mean\"; {others}")));
        }
        let identity = schema::fingerprint(&("python", 1, &hello.state, &hello.sources, &raw));
        Ok(Self {
            declared: Declared {
                name: raw.name.clone().unwrap_or_else(|| target.function.clone()),
                preparation: Preparation { resolution, mean: raw.mean, std: raw.std },
                recipe: Recipe {
                    knn: KnnRecipe { tokens: raw.knn, final_norm: raw.final_norm },
                    dense_summary: raw.dense_summary,
                },
                trained: raw.trained,
            },
            dimensions: Dimensions {
                blocks: raw.blocks,
                width: raw.width,
                patch: raw.patch,
                resolution,
                summary_tokens: raw.summary_tokens,
                registers: raw.registers,
                patches: raw.patches,
                pooled: (raw.knn == Tokens::Pooled).then_some(raw.width),
            },
            identity,
            parameters: hello.parameters,
            versions: hello.versions,
            line: Mutex::new(Line { process, shared: None }),
        })
    }

    /// What it declares.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Its size and make.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// Hash over its state, its source and what it declares.
    pub fn identity(&self) -> Fingerprint {
        self.identity.clone()
    }

    /// Versions of Python and of what it loaded.
    pub fn versions(&self) -> &BTreeMap<String, String> {
        &self.versions
    }

    /// Number of its parameters.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Operations of one image, as PyTorch counts them; `None` for a backbone of arrays.
    pub fn flops(&self, height: usize, width: usize) -> Result<Option<f64>, WorkerError> {
        #[derive(Deserialize)]
        struct Counted {
            flops: Option<f64>,
        }
        let request = json!({ "do": "flops", "height": height, "width": width });
        let counted: Counted =
            self.line().process.ask("counting operations", &request, patience(BATCH))?;
        Ok(counted.flops)
    }

    /// Ends the process.
    pub fn stop(&self) {
        self.line().process.end();
    }

    /// Puts it on a device.
    pub fn place(
        worker: &Arc<Self>,
        placement: &Placement,
    ) -> Result<Box<dyn Backbone>, WorkerError> {
        let device = match placement.device.location() {
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { .. } => "mps".to_owned(),
            DeviceLocation::Cpu => "cpu".to_owned(),
        };
        let dtype = match placement.dtype {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        };
        let request = json!({ "do": "place", "device": device, "dtype": dtype });
        let _: serde_json::Value =
            worker.line().process.ask("going to its device", &request, patience(BATCH))?;
        Ok(Box::new(PythonBackbone::new(Arc::clone(worker), placement.device.clone())))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Memory of at least `size` bytes that the worker has mapped too.
    fn shared(&mut self, size: usize) -> Result<&mut Shared, WorkerError> {
        if self.shared.as_ref().is_none_or(|shared| shared.size() < size) {
            let backbone = self.process.backbone.clone();
            let mut shared =
                Shared::new(size).map_err(|source| WorkerError::Memory { backbone, source })?;
            let request = json!({ "do": "map", "path": shared.path(), "size": shared.size() });
            let _: serde_json::Value =
                self.process.ask("sharing memory", &request, patience(BATCH))?;
            shared.forget_name();
            self.shared = Some(shared);
        }
        self.shared.as_mut().ok_or_else(|| WorkerError::Memory {
            backbone: self.process.backbone.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }
}

/// Where tensors are on this side.
fn onto(
    values: Vec<f32>,
    shape: [usize; 3],
    device: &Device,
) -> candle_core::Result<candle_core::Tensor> {
    candle_core::Tensor::from_vec(values, &shape[..], device)
}
