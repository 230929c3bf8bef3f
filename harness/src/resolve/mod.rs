//! From what `--backbone` says to an architecture and checked weights.

mod error;
mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schema::{BackboneRecord, Fingerprint, Tokens};

pub use error::ResolveError;
pub use model::Override;
use model::{Changed, Model};

use crate::backbone::families::{Architecture, FAMILIES, family};
use crate::backbone::{Backbone, Dimensions, Placement};
use crate::hub::{self, HubOptions, HubRef};
use crate::progress::Reporter;
use crate::python::{Target, Worker};
use crate::registry::{self, Entry, Recipe, Registry, nearest};
use crate::weights::{self, Canonical, RandomSource, Rule, TensorSource, Weights, rename};

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

/// What decides which encoder a `--backbone` stands for, beside its own text.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// `--arch`: architecture of weights files.
    pub arch: Option<String>,
    /// `--override`.
    pub overrides: Vec<Override>,
    /// `--rename`.
    pub rename: Vec<Rule>,
    /// `--backbones`: a file of the user's own.
    pub own: Option<PathBuf>,
    /// `--offline`.
    pub offline: bool,
}

/// A backbone, found and checked; not yet on a device.
pub struct Resolved {
    /// Name shown in tables.
    pub name: String,
    /// What the user asked for.
    pub source: String,
    /// How images are prepared for it.
    pub preparation: Preparation,
    /// Which tokens a head sees.
    pub recipe: Recipe,
    /// How overrides make it depart from its protocol, behind the protocol's name.
    pub departures: String,
    made: Made,
    revision: Option<String>,
    trained: bool,
}

/// What computes.
enum Made {
    /// Our encoder over checked weights.
    Native { architecture: Arc<dyn Architecture>, weights: Weights },
    /// A Python process.
    Python(Arc<Worker>),
}

impl Resolved {
    /// Whether it is the simulator's true state, and no encoder.
    pub fn is_state(&self) -> bool {
        matches!(&self.made, Made::Native { architecture, .. } if architecture.family() == "state")
    }

    /// Size and make.
    pub fn dimensions(&self) -> Dimensions {
        match &self.made {
            Made::Native { architecture, .. } => architecture.dimensions(),
            Made::Python(worker) => worker.dimensions().clone(),
        }
    }

    /// Floating-point operations of one image `[3, height, width]` through the encoder (a
    /// multiplication and an addition are two), where they can be counted.
    pub fn flops(&self, height: usize, width: usize) -> Result<Option<f64>, ResolveError> {
        match &self.made {
            Made::Native { architecture, .. } => Ok(architecture.flops(height, width)),
            Made::Python(worker) => Ok(worker.flops(height, width)?),
        }
    }

    /// Hash over the mapped tensors and the architecture. Reads every weight once.
    pub fn identity(&self) -> Result<Fingerprint, ResolveError> {
        match &self.made {
            Made::Native { architecture, weights } => {
                Ok(weights.identity(&architecture.fingerprint())?)
            }
            Made::Python(worker) => Ok(worker.identity()),
        }
    }

    /// What a run's record says of it.
    pub fn record(&self) -> Result<BackboneRecord, ResolveError> {
        let dimensions = self.dimensions();
        let (family, parameters, positions) = match &self.made {
            Made::Native { architecture, weights } => {
                (architecture.family(), weights.parameters(), architecture.positions())
            }
            Made::Python(worker) => ("python", worker.parameters(), "its own".to_owned()),
        };
        Ok(BackboneRecord {
            name: self.name.clone(),
            source: self.source.clone(),
            family: family.to_owned(),
            identity: self.identity()?,
            revision: self.revision.clone(),
            trained: self.trained,
            parameters,
            blocks: dimensions.blocks,
            width: dimensions.width,
            positions,
            versions: match &self.made {
                Made::Native { .. } => BTreeMap::new(),
                Made::Python(worker) => worker.versions().clone(),
            },
        })
    }

    /// Whether its weights were trained.
    pub fn trained(&self) -> bool {
        self.trained
    }

    /// Loads it.
    pub fn load(&self, placement: &Placement) -> Result<Box<dyn Backbone>, ResolveError> {
        match &self.made {
            Made::Native { architecture, weights } => Ok(architecture.load(weights, placement)?),
            Made::Python(worker) => Ok(Worker::place(worker, placement)?),
        }
    }

    /// Gives back what a Python process holds, once every run on it is over.
    pub fn release(&self) {
        if let Made::Python(worker) = &self.made {
            worker.stop();
        }
    }
}

/// Everything that finding a backbone may need.
pub struct Resolver<'a> {
    registry: Registry,
    options: SourceOptions,
    hub: HubOptions,
    reporter: &'a Reporter,
}

impl<'a> Resolver<'a> {
    /// Reads the user's file, if one is named, and `HF_HUB_OFFLINE`.
    pub fn new(options: SourceOptions, reporter: &'a Reporter) -> Result<Self, ResolveError> {
        let registry = registry::with_own(options.own.as_deref())?;
        let hub = HubOptions::from_env(options.offline);
        Ok(Self { registry, options, hub, reporter })
    }

    /// Finds what `spec` names, fetching it if need be, and checks its tensors.
    pub fn resolve(&self, spec: &str) -> Result<Resolved, ResolveError> {
        if let Some(rest) = spec.strip_prefix("random:") {
            return self.random(spec, rest);
        }
        if let Some(rest) = spec.strip_prefix("hf:") {
            let reference = hub_ref(spec, rest)?;
            let (name, source) = (reference.repository.clone(), format!("hf:{reference}"));
            return self.on_hub(name, source, &reference, None);
        }
        if let Some(rest) = spec.strip_prefix("py:") {
            let target = rest.parse().map_err(|()| ResolveError::Spelling {
                given: spec.to_owned(),
                expected: "py:FILE.py:FUNCTION",
            })?;
            return self.python(None, spec, &target);
        }
        if let ("pixels" | "state", Some(family)) = (spec, family(spec)) {
            let model = Model::of_family(family, serde_json::json!({}));
            let source = Box::new(RandomSource::new(0, &[]));
            // What has no encoder stays what it is beside backbones that are changed.
            return assemble(spec, spec, Changed::not(model), source, Names::Canonical);
        }
        if let Some(entry) = self.registry.backbones.get(spec) {
            return self.named(spec, entry);
        }
        let path = Path::new(spec);
        if path.is_dir() {
            let model = config_of(path)?;
            return self.weights(&stem(path), spec, model, path, &[]);
        }
        if path.is_file() {
            return self.file(spec, path);
        }
        let names = self.registry.backbones.keys().map(String::as_str);
        let near = nearest(spec, names);
        Err(ResolveError::Unknown { name: spec.to_owned(), near })
    }

    fn named(&self, name: &str, entry: &Entry) -> Result<Resolved, ResolveError> {
        if let Some(python) = &entry.python {
            let target: Target = python.parse().map_err(|()| ResolveError::Spelling {
                given: python.clone(),
                expected: "python = \"FILE.py:FUNCTION\"",
            })?;
            return self.python(Some(name), &format!("py:{python}"), &target);
        }
        if let Some(path) = &entry.path {
            let model = Model::of_entry(entry, &self.registry.defaults)?;
            let source = path.display().to_string();
            return self.weights(name, &source, model, path, &entry.rename);
        }
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
        let (model, rules) = match entry {
            None => (config_of(&snapshot.folder)?, &[][..]),
            Some(entry) => {
                let config = snapshot.folder.join("config.json");
                let model = Model::of_repository(entry, &self.registry.defaults, &config)?;
                (model, entry.rename.as_slice())
            }
        };
        let resolved = self.weights(&name, &source, model, &snapshot.folder, rules)?;
        Ok(Resolved { revision: Some(snapshot.commit), ..resolved })
    }

    fn file(&self, spec: &str, path: &Path) -> Result<Resolved, ResolveError> {
        let Some(arch) = self.options.arch.as_deref() else {
            return Err(ResolveError::NeedsArch(path.to_path_buf()));
        };
        let published = || FAMILIES.iter().filter(|family| family.published);
        let (model, rules) = if let Some(entry) = self.registry.backbones.get(arch) {
            (Model::of_entry(entry, &self.registry.defaults)?, entry.rename.as_slice())
        } else if let Some(family) = published().find(|family| family.name == arch) {
            (Model::of_family(family, serde_json::json!({})), &[][..])
        } else if Path::new(arch).is_file() {
            (Model::of_config(Path::new(arch))?, &[][..])
        } else {
            let names = self.registry.backbones.keys().map(String::as_str);
            let near = nearest(arch, names.chain(published().map(|family| family.name)));
            return Err(ResolveError::UnknownArch { name: arch.to_owned(), near });
        };
        self.weights(&stem(path), spec, model, path, rules)
    }

    fn random(&self, spec: &str, rest: &str) -> Result<Resolved, ResolveError> {
        let (name, seed) = match rest.split_once('@') {
            None => (rest, 0),
            Some((name, seed)) => {
                let expected = "random:NAME or random:NAME@SEED";
                let given = spec.to_owned();
                (name, seed.parse().map_err(|_| ResolveError::Spelling { given, expected })?)
            }
        };
        let config = Path::new(name);
        let (shown, model) = if config.is_file() {
            (format!("random:{}", stem(config)), Model::of_config(config)?)
        } else if let Some(entry) = self.registry.backbones.get(name).filter(|e| e.python.is_none())
        {
            (spec.to_owned(), Model::of_entry(entry, &self.registry.defaults)?)
        } else {
            let names = self.registry.backbones.keys().map(String::as_str);
            let near = nearest(name, names).iter().map(|n| format!("random:{n}")).collect();
            return Err(ResolveError::Unknown { name: spec.to_owned(), near });
        };
        let changed = self.change(&shown, model)?;
        let expected = changed.model.architecture()?.expected();
        let source = Box::new(RandomSource::new(seed, &expected));
        let resolved = assemble(&shown, spec, changed, source, Names::Canonical)?;
        Ok(Resolved { trained: false, ..resolved })
    }

    fn python(
        &self,
        name: Option<&str>,
        source: &str,
        target: &Target,
    ) -> Result<Resolved, ResolveError> {
        let given = [
            ("--override", !self.options.overrides.is_empty()),
            ("--rename", !self.options.rename.is_empty()),
        ];
        if let Some((what, _)) = given.iter().find(|(_, given)| *given) {
            let why = "a Python backbone declares its own make, recipe and names";
            return Err(ResolveError::NotFor { what, backbone: source.to_owned(), why });
        }
        let worker = Worker::start(target, self.reporter)?;
        let declared = worker.declared();
        Ok(Resolved {
            name: name.map_or_else(|| declared.name.clone(), str::to_owned),
            source: source.to_owned(),
            preparation: declared.preparation.clone(),
            recipe: declared.recipe,
            departures: String::new(),
            revision: None,
            trained: declared.trained,
            made: Made::Python(Arc::new(worker)),
        })
    }

    /// A backbone whose tensors are in a file or folder.
    fn weights(
        &self,
        name: &str,
        source_text: &str,
        model: Model,
        path: &Path,
        rules: &[Rule],
    ) -> Result<Resolved, ResolveError> {
        let rules: Vec<Rule> = rules.iter().chain(&self.options.rename).cloned().collect();
        let source = rename(weights::open(path)?, &rules)?;
        assemble(name, source_text, self.change(name, model)?, source, Names::OfFiles)
    }

    /// Applies the overrides and says which of them change nothing.
    fn change(&self, name: &str, model: Model) -> Result<Changed, ResolveError> {
        let changed = model.with(&self.options.overrides)?;
        for idle in &changed.idle {
            self.reporter.warn(format!("{name}: --override {idle} changes nothing"));
        }
        Ok(changed)
    }
}

fn assemble(
    name: &str,
    source_text: &str,
    changed: Changed,
    source: Box<dyn TensorSource>,
    names: Names,
) -> Result<Resolved, ResolveError> {
    let Changed { model, departures, .. } = changed;
    let architecture = model.architecture()?;
    let map = match names {
        Names::OfFiles => architecture.names(),
        Names::Canonical => |name: &str| Canonical::Whole(name.to_owned()),
    };
    let weights = Weights::map(source, model.family(), &architecture.expected(), map)?;
    checked(Resolved {
        name: name.to_owned(),
        source: source_text.to_owned(),
        preparation: model.preparation(&*architecture),
        recipe: model.recipe(),
        departures,
        revision: None,
        trained: true,
        made: Made::Native { architecture, weights },
    })
}

/// By which names a source has its tensors.
#[derive(Clone, Copy)]
enum Names {
    /// Those of a family's published files.
    OfFiles,
    /// Our own.
    Canonical,
}

/// Checks that the evaluation image divides into patches and that the recipe's tokens are there.
fn checked(resolved: Resolved) -> Result<Resolved, ResolveError> {
    let (dimensions, name) = (resolved.dimensions(), &resolved.name);
    let (resolution, patch) = (resolved.preparation.resolution, dimensions.patch);
    if resolution == 0 || (dimensions.patches && resolution % patch != 0) {
        return Err(ResolveError::Resolution { name: name.clone(), resolution, patch });
    }
    let there = match resolved.recipe.knn.tokens {
        Tokens::SummaryMean => dimensions.summary_tokens > 0,
        Tokens::PatchMean => dimensions.patches,
        Tokens::PatchAndSummaryMean => dimensions.patches && dimensions.summary_tokens > 0,
        Tokens::Pooled => dimensions.pooled.is_some(),
    };
    if !there {
        let tokens = resolved.recipe.knn.tokens;
        return Err(ResolveError::NoTokens { name: name.clone(), tokens });
    }
    Ok(resolved)
}

fn config_of(folder: &Path) -> Result<Model, ResolveError> {
    let config = folder.join("config.json");
    if !config.is_file() {
        return Err(ResolveError::NoConfig(folder.to_path_buf()));
    }
    Model::of_config(&config)
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
