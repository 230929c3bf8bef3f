//! From what `--backbone` says to an architecture and checked weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schema::{BackboneRecord, Fingerprint};

use crate::backbone::families::{Architecture, FAMILIES, family, family_of_model_type};
use crate::backbone::{Backbone, Placement};
use crate::hub::{self, HubError, HubOptions, HubRef};
use crate::progress::Reporter;
use crate::registry::{self, Entry, Recipe, nearest};
use crate::weights::{self, Canonical, NameMap, RandomSource, Weights, WeightsError};

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
    #[error("unknown architecture {name:?}: not a name in backbones.toml, not a config.json")]
    UnknownArch {
        /// As given.
        name: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// A name without weights on the hub.
    #[error("{0} has no weights on the hub")]
    NoWeights(String),
    /// `hf:` or `random:` with something unreadable after it.
    #[error("{given:?} is not a backbone: expected {expected}")]
    Spelling {
        /// As given.
        given: String,
        /// The form.
        expected: &'static str,
    },
    /// backbones.toml itself.
    #[error("{0}")]
    Registry(String),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

/// How images are prepared for a backbone.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// Side of the evaluation image in pixels.
    pub resolution: usize,
    /// Mean of the normalisation, RGB.
    pub mean: [f32; 3],
    /// Standard deviation of the normalisation, RGB.
    pub std: [f32; 3],
}

/// A backbone, found and checked; not yet on a device.
pub struct Resolved {
    /// Name shown in tables.
    pub name: String,
    /// What the user asked for.
    pub source: String,
    /// How to build it.
    pub architecture: Arc<dyn Architecture>,
    /// How images are prepared for it.
    pub preparation: Preparation,
    /// Which tokens a head sees.
    pub recipe: Recipe,
    weights: Weights,
    revision: Option<String>,
    trained: bool,
}

impl Resolved {
    /// Hash over the mapped tensors and the architecture. Reads every weight once.
    pub fn identity(&self) -> Result<Fingerprint, WeightsError> {
        self.weights.identity(&self.architecture.fingerprint())
    }

    /// What a run's record says of it.
    pub fn record(&self) -> Result<BackboneRecord, WeightsError> {
        let dimensions = self.architecture.dimensions();
        Ok(BackboneRecord {
            name: self.name.clone(),
            source: self.source.clone(),
            family: self.architecture.family().to_owned(),
            identity: self.identity()?,
            revision: self.revision.clone(),
            trained: self.trained,
            parameters: self.weights.parameters(),
            blocks: dimensions.blocks,
            width: dimensions.width,
            positions: self.architecture.positions(),
        })
    }

    /// Loads it.
    pub fn load(&self, placement: &Placement) -> Result<Box<dyn Backbone>, WeightsError> {
        self.architecture.load(&self.weights, placement)
    }
}

/// Everything that finding a backbone may need.
pub struct Resolver<'a> {
    /// `--arch`.
    pub arch: Option<&'a str>,
    /// How to reach the hub.
    pub hub: HubOptions,
    /// Where progress goes.
    pub reporter: &'a Reporter,
}

impl Resolver<'_> {
    /// Finds what `spec` names, fetching it if need be, and checks its tensors.
    pub fn resolve(&self, spec: &str) -> Result<Resolved, ResolveError> {
        let registry = registry::builtin().map_err(ResolveError::Registry)?;
        if let Some(rest) = spec.strip_prefix("random:") {
            return random(spec, rest);
        }
        if let Some(rest) = spec.strip_prefix("hf:") {
            let reference = hub_ref(spec, rest)?;
            let (name, source) = (reference.repository.clone(), format!("hf:{reference}"));
            return self.on_hub(name, source, &reference, None);
        }
        if spec == "pixels" {
            let family = architecture_of("pixels", &serde_json::json!({}))?;
            let source = Box::new(RandomSource::new(0, &[]));
            return assemble(spec, spec, family, source, None);
        }
        if let Some(entry) = registry.backbones.get(spec) {
            return self.named(spec, entry);
        }
        let path = Path::new(spec);
        if path.is_dir() {
            return folder(spec, path);
        }
        if path.is_file() {
            return self.file(spec, path);
        }
        let names = registry.backbones.keys().map(String::as_str);
        let near = nearest(spec, names);
        Err(ResolveError::Unknown { name: spec.to_owned(), near })
    }

    fn named(&self, name: &str, entry: &Entry) -> Result<Resolved, ResolveError> {
        let Some(repository) = entry.repository.clone() else {
            return Err(ResolveError::NoWeights(name.to_owned()));
        };
        let revision = entry.revision.clone().unwrap_or_else(|| "main".to_owned());
        let reference = HubRef { repository, revision };
        let source = format!("hf:{reference}");
        self.on_hub(name.to_owned(), source, &reference, Some(entry))
    }

    fn on_hub(
        &self,
        name: String,
        source: String,
        reference: &HubRef,
        entry: Option<&Entry>,
    ) -> Result<Resolved, ResolveError> {
        let snapshot = hub::fetch(reference, entry.is_none(), &self.hub, self.reporter)?;
        let resolved = match entry {
            None => folder(&name, &snapshot.folder)?,
            Some(entry) => {
                let architecture = named_architecture(entry, &snapshot.folder.join("config.json"))?;
                let source = weights::open(&snapshot.folder)?;
                assemble(&name, &name, architecture, source, Some(entry))?
            }
        };
        Ok(Resolved { name, source, revision: Some(snapshot.commit), ..resolved })
    }

    fn file(&self, spec: &str, path: &Path) -> Result<Resolved, ResolveError> {
        let Some(arch) = self.arch else {
            return Err(ResolveError::NeedsArch(path.to_path_buf()));
        };
        let registry = registry::builtin().map_err(ResolveError::Registry)?;
        let (architecture, entry) = match registry.backbones.get(arch) {
            Some(entry) => (entry.architecture().map_err(ResolveError::Registry)?, Some(entry)),
            None if Path::new(arch).is_file() => (read_config(Path::new(arch))?, None),
            None => {
                let names = registry.backbones.keys().map(String::as_str);
                let near = nearest(arch, names);
                return Err(ResolveError::UnknownArch { name: arch.to_owned(), near });
            }
        };
        let source = weights::open(path)?;
        assemble(&stem(path), spec, architecture, source, entry)
    }
}

fn random(spec: &str, rest: &str) -> Result<Resolved, ResolveError> {
    let registry = registry::builtin().map_err(ResolveError::Registry)?;
    let (name, seed) = match rest.split_once('@') {
        None => (rest, 0),
        Some((name, seed)) => {
            let expected = "random:NAME or random:NAME@SEED";
            let given = spec.to_owned();
            (name, seed.parse().map_err(|_| ResolveError::Spelling { given, expected })?)
        }
    };
    let config = Path::new(name);
    if config.is_file() {
        let architecture = read_config(config)?;
        let name = format!("random:{}", stem(config));
        return untrained(&name, spec, seed, architecture, None);
    }
    let Some(entry) = registry.backbones.get(name) else {
        let names = registry.backbones.keys().map(String::as_str);
        let near = nearest(name, names).iter().map(|n| format!("random:{n}")).collect();
        return Err(ResolveError::Unknown { name: spec.to_owned(), near });
    };
    let architecture = entry.architecture().map_err(ResolveError::Registry)?;
    untrained(spec, spec, seed, architecture, Some(entry))
}

fn untrained(
    name: &str,
    spec: &str,
    seed: u64,
    architecture: Arc<dyn Architecture>,
    entry: Option<&Entry>,
) -> Result<Resolved, ResolveError> {
    let source = Box::new(RandomSource::new(seed, &architecture.expected()));
    // Made by canonical names, whatever names the family's files have.
    let names = |name: &str| Canonical::Whole(name.to_owned());
    let resolved = assemble_as(name, spec, architecture, source, entry, names)?;
    Ok(Resolved { trained: false, ..resolved })
}

fn folder(name: &str, folder: &Path) -> Result<Resolved, ResolveError> {
    let config = folder.join("config.json");
    if !config.is_file() {
        return Err(ResolveError::NoConfig(folder.to_path_buf()));
    }
    let architecture = read_config(&config)?;
    assemble(&stem(Path::new(name)), name, architecture, weights::open(folder)?, None)
}

fn assemble(
    name: &str,
    source_text: &str,
    architecture: Arc<dyn Architecture>,
    source: Box<dyn weights::TensorSource>,
    entry: Option<&Entry>,
) -> Result<Resolved, ResolveError> {
    let names = architecture.names();
    assemble_as(name, source_text, architecture, source, entry, names)
}

fn assemble_as(
    name: &str,
    source_text: &str,
    architecture: Arc<dyn Architecture>,
    source: Box<dyn weights::TensorSource>,
    entry: Option<&Entry>,
    names: NameMap,
) -> Result<Resolved, ResolveError> {
    let family_name = architecture.family();
    let weights = Weights::map(source, family_name, &architecture.expected(), names)?;
    let family = family(family_name)
        .ok_or_else(|| ResolveError::Registry(format!("no family {family_name}")))?;
    let (recipe, preparation) = match entry {
        Some(entry) => (entry.recipe, named_preparation(entry)?),
        None => {
            let resolution = architecture.dimensions().resolution;
            let preparation = Preparation { resolution, mean: family.mean, std: family.std };
            (family.recipe, preparation)
        }
    };
    Ok(Resolved {
        name: name.to_owned(),
        source: source_text.to_owned(),
        architecture,
        preparation,
        recipe,
        weights,
        revision: None,
        trained: true,
    })
}

/// What a named repository's config.json describes; what backbones.toml says, where there is none or
/// it is of another code than transformers.
fn named_architecture(entry: &Entry, config: &Path) -> Result<Arc<dyn Architecture>, ResolveError> {
    let own = || entry.architecture().map_err(ResolveError::Registry);
    if !config.is_file() {
        return own();
    }
    match read_config(config) {
        Ok(found) if found.family() == entry.family => Ok(found),
        Ok(_) | Err(ResolveError::UnsupportedFamily { .. }) => own(),
        Err(other) => Err(other),
    }
}

fn named_preparation(entry: &Entry) -> Result<Preparation, ResolveError> {
    entry.preparation().map_err(ResolveError::Registry)
}

fn architecture_of(
    name: &str,
    config: &serde_json::Value,
) -> Result<Arc<dyn Architecture>, ResolveError> {
    let family = family(name).ok_or_else(|| ResolveError::Registry(format!("no family {name}")))?;
    (family.from_config)(config).map_err(ResolveError::Registry)
}

fn read_config(path: &Path) -> Result<Arc<dyn Architecture>, ResolveError> {
    let bad = |why: String| ResolveError::BadConfig { path: path.to_path_buf(), why };
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let config: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let field = |name: &str| config.get(name).and_then(serde_json::Value::as_str);
    let class = || config.pointer("/architectures/0").and_then(serde_json::Value::as_str);
    let found = field("model_type").filter(|name| !name.is_empty()).or_else(class).unwrap_or("");
    let Some(family) = family_of_model_type(found) else {
        let supported: Vec<&str> =
            FAMILIES.iter().filter_map(|f| f.model_types.first().copied()).collect();
        return Err(ResolveError::UnsupportedFamily {
            path: path.to_path_buf(),
            found: found.to_owned(),
            supported: supported.join(", "),
        });
    };
    (family.from_config)(&config).map_err(bad)
}

fn hub_ref(given: &str, rest: &str) -> Result<HubRef, ResolveError> {
    let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let good = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part != "." && part != ".." && part.chars().all(plain)
    };
    let whole = repository.split_once('/').is_some_and(|(org, repo)| good(org) && good(repo));
    if !whole || revision.is_empty() {
        let expected = "hf:ORG/REPO or hf:ORG/REPO@REVISION";
        return Err(ResolveError::Spelling { given: given.to_owned(), expected });
    }
    Ok(HubRef { repository: repository.to_owned(), revision: revision.to_owned() })
}

/// A path's last part without the extension, for tables; a hub name stays whole.
fn stem(path: &Path) -> String {
    let canonical = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let part = if canonical.is_dir() { canonical.file_name() } else { canonical.file_stem() };
    part.map_or_else(|| path.display().to_string(), |s| s.to_string_lossy().into_owned())
}
