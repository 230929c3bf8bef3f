//! A user's own backbones: `[backbone.NAME]` tables in the form of backbones.toml, and a few keys more.

use std::path::{Path, PathBuf};

use schema::Tokens;
use serde::Deserialize;
use serde_json::Value;

use super::{Entry, KnnRecipe, Recipe, Registry, RegistryError, nearest};
use crate::backbone::families::{FAMILIES, family};
use crate::weights::{Expected, Rule};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    backbone: toml::Table,
}

/// One table. Paths are relative to the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    /// A name of backbones.toml whose choices hold where this table makes none.
    base: Option<String>,
    family: Option<String>,
    /// Weights on this machine.
    path: Option<PathBuf>,
    repository: Option<String>,
    revision: Option<String>,
    #[serde(default)]
    gated: bool,
    /// `FILE.py:FUNCTION`.
    python: Option<String>,
    /// Pairs of names, as in `--rename`.
    #[serde(default)]
    rename: Vec<[String; 2]>,
    title: Option<String>,
    licence: Option<String>,
    source: Option<String>,
    resolution: Option<usize>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    config: Option<Value>,
    recipe: Option<Recipe>,
}

/// Adds the backbones of `file`.
pub(super) fn add(registry: &mut Registry, file: &Path) -> Result<(), RegistryError> {
    let io = |source| RegistryError::Io { path: file.to_path_buf(), source };
    let form = |why: String| RegistryError::Form { path: file.to_path_buf(), why };
    let text = std::fs::read_to_string(file).map_err(io)?;
    let tables: File = toml::from_str(&text).map_err(|error| form(error.to_string()))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    for (name, table) in tables.backbone {
        let wrong = |(why, near)| RegistryError::Entry {
            path: file.to_path_buf(),
            name: name.clone(),
            why,
            near,
        };
        if registry.backbones.contains_key(&name) {
            return Err(wrong(("the name is taken".to_owned(), Vec::new())));
        }
        let own: Own = table
            .try_into()
            .map_err(|e: toml::de::Error| wrong((e.message().trim().to_owned(), Vec::new())))?;
        let entry = complete(registry, &name, own, folder).map_err(wrong)?;
        registry.backbones.insert(name, entry);
    }
    Ok(())
}

type Wrong = (String, Vec<String>);

/// In the place of a recipe that the Python function declares.
const DECLARED: Recipe = Recipe {
    knn: KnnRecipe { tokens: Tokens::SummaryMean, final_norm: false },
    dense_summary: true,
};

fn complete(registry: &Registry, name: &str, own: Own, folder: &Path) -> Result<Entry, Wrong> {
    let plain = |why: &str| (why.to_owned(), Vec::new());
    let sources = [own.path.is_some(), own.repository.is_some(), own.python.is_some()];
    if sources.iter().filter(|&&given| given).count() > 1 {
        return Err(plain("expected one of path, repository and python"));
    }
    let source = own.source.unwrap_or_else(|| "the user's file".to_owned());
    let title = own.title.unwrap_or_else(|| name.to_owned());
    if let Some(python) = own.python {
        let declared = [own.base.is_some(), own.family.is_some(), own.config.is_some()];
        let recipe = [own.recipe.is_some(), own.resolution.is_some(), own.mean.is_some()];
        if declared.contains(&true) || recipe.contains(&true) || own.std.is_some() {
            return Err(plain("a Python backbone declares its own make, recipe and preparation"));
        }
        return Ok(Entry {
            title,
            family: "python".to_owned(),
            repository: None,
            revision: None,
            gated: false,
            licence: own.licence,
            parameters: None,
            resolution: None,
            mean: None,
            std: None,
            config: Value::Null,
            own_config: Value::Null,
            elsewhere: None,
            recipe: DECLARED,
            source,
            path: None,
            rename: Vec::new(),
            python: Some(folder.join(&python).display().to_string()),
        });
    }
    let base = match own.base {
        None => None,
        Some(base) => match registry.backbones.get(&base) {
            Some(entry) => Some(entry),
            None => {
                let near = nearest(&base, registry.backbones.keys().map(String::as_str));
                return Err((format!("base {base:?} is no name in backbones.toml"), near));
            }
        },
    };
    let Some(family_name) = own.family.or_else(|| base.map(|base| base.family.clone())) else {
        return Err(plain("expected family = \"...\" or base = \"...\""));
    };
    let Some(family) = family(&family_name).filter(|family| family.published) else {
        let names = FAMILIES.iter().filter(|family| family.published).map(|family| family.name);
        let near = nearest(&family_name, names.clone());
        let known: Vec<&str> = names.collect();
        return Err((format!("unknown family {family_name:?}; known: {}", known.join(", ")), near));
    };
    let mut config = base.map_or_else(|| serde_json::json!({}), |base| base.config.clone());
    let own_config = own.config.unwrap_or_else(|| serde_json::json!({}));
    merge(&mut config, own_config.clone());
    let architecture =
        (family.from_config)(&config).map_err(|why| (format!("config: {why}"), Vec::new()))?;
    let elements: u64 = architecture.expected().iter().map(Expected::parameters).sum();
    let mut rename = Vec::new();
    for [from, to] in own.rename {
        rename.push(Rule::new(&from, &to).map_err(|e| (format!("rename: {e}"), Vec::new()))?);
    }
    let side = || base.and_then(|b| b.resolution).unwrap_or(architecture.dimensions().resolution);
    Ok(Entry {
        title,
        repository: own.repository,
        revision: own.revision,
        gated: own.gated,
        licence: own.licence.or_else(|| base.and_then(|base| base.licence.clone())),
        parameters: Some((elements as f64 / 1e5).round() / 10.0),
        resolution: Some(own.resolution.unwrap_or_else(side)),
        mean: Some(own.mean.or(base.and_then(|b| b.mean)).unwrap_or(family.mean)),
        std: Some(own.std.or(base.and_then(|b| b.std)).unwrap_or(family.std)),
        recipe: own.recipe.or(base.map(|base| base.recipe)).unwrap_or(family.recipe),
        family: family_name,
        config,
        own_config,
        elsewhere: None,
        source,
        path: own.path.map(|path| folder.join(path)),
        rename,
        python: None,
    })
}

/// Puts the fields of `over` into `config`.
pub(crate) fn merge(config: &mut Value, over: Value) {
    match (config, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (key, value) in over {
                merge(fields.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (config, over) => *config = over,
    }
}
