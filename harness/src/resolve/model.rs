//! What decides an encoder and its input beside the weights, and how `--override` changes it.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Preparation, ResolveError};
use crate::backbone::families::{Architecture, FAMILIES, Family, family, family_of_model_type};
use crate::registry::{Defaults, Entry, Recipe, RegistryError, merge, nearest};

/// `--override KEY=VALUE`: a field of a backbone's table in another value, in TOML's spelling.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    key: String,
    value: Value,
    given: String,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "expected KEY=VALUE, for example resolution=224 or config.patch_size=14";
        let (key, value) = text.split_once('=').ok_or_else(|| form().to_owned())?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || key.split('.').any(str::is_empty) || value.is_empty() {
            return Err(form().to_owned());
        }
        // A word needs no quotes.
        let parsed: Result<toml::Table, _> = toml::from_str(&format!("value = {value}"));
        let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
        let value = match parsed.map(serde_json::to_value) {
            Some(Ok(value)) => value,
            _ => Value::String(value.to_owned()),
        };
        Ok(Self { key: key.to_owned(), value, given: text.to_owned() })
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.given)
    }
}

impl Serialize for Override {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.given)
    }
}

impl<'de> Deserialize<'de> for Override {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Override {
    /// A number in another one's place.
    pub fn number(key: &str, value: f64) -> Self {
        let given = format!("{key}={value}");
        Self { key: key.to_owned(), value: serde_json::json!(value), given }
    }

    /// What is changed, for example `resolution`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it becomes.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Whether it changes the encoder rather than what goes in and comes out.
    fn is_config(&self) -> bool {
        self.key.starts_with("config.")
    }

    /// `{ "a": { "b": VALUE } }` for the key `a.b`.
    fn nested(&self) -> Value {
        let keys = self.key.rsplit('.');
        keys.fold(self.value.clone(), |inner, key| serde_json::json!({ key: inner }))
    }
}

/// A backbone's make, recipe and preparation.
#[derive(Clone)]
pub(super) struct Model {
    family: &'static Family,
    choices: Choices,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choices {
    resolution: Option<usize>,
    mean: [f32; 3],
    std: [f32; 3],
    recipe: Recipe,
    config: Value,
}

const KEYS: &str = "resolution, mean, std, recipe.knn.tokens, recipe.knn.final_norm, \
                    recipe.dense_summary, and config.FIELD";

impl Model {
    /// What a table says.
    pub(super) fn of_entry(entry: &Entry, defaults: &Defaults) -> Result<Self, ResolveError> {
        let family = family(&entry.family).ok_or_else(|| {
            RegistryError::Embedded(format!(
                "family {:?} of backbones.toml is unknown",
                entry.family
            ))
        })?;
        let Preparation { resolution, mean, std } = entry.preparation(defaults);
        let (recipe, config) = (entry.recipe, entry.config.clone());
        let resolution = Some(resolution);
        Ok(Self { family, choices: Choices { resolution, mean, std, recipe, config } })
    }

    /// A family's own choices over a configuration.
    pub(super) fn of_family(family: &'static Family, config: Value) -> Self {
        let Family { recipe, mean, std, .. } = *family;
        Self { family, choices: Choices { resolution: None, mean, std, recipe, config } }
    }

    /// What a config.json describes.
    pub(super) fn of_config(path: &Path) -> Result<Self, ResolveError> {
        let bad = |why: String| ResolveError::BadConfig { path: path.to_path_buf(), why };
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let config: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let field = |name: &str| config.get(name).and_then(Value::as_str);
        let class = || config.pointer("/architectures/0").and_then(Value::as_str);
        let named = field("model_type").filter(|name| !name.is_empty());
        let found = named.or_else(class).unwrap_or("");
        let Some(family) = family_of_model_type(found) else {
            let supported: Vec<&str> =
                FAMILIES.iter().filter_map(|f| f.model_types.first().copied()).collect();
            return Err(ResolveError::UnsupportedFamily {
                path: path.to_path_buf(),
                found: found.to_owned(),
                supported: supported.join(", "),
            });
        };
        (family.from_config)(&config).map_err(bad)?;
        Ok(Self::of_family(family, config))
    }

    /// A named repository's table over what its config.json describes; the table alone, where there
    /// is none or it is of another code than transformers.
    pub(super) fn of_repository(
        entry: &Entry,
        defaults: &Defaults,
        config: &Path,
    ) -> Result<Self, ResolveError> {
        let mut model = Self::of_entry(entry, defaults)?;
        if !config.is_file() {
            return Ok(model);
        }
        match Self::of_config(config) {
            Ok(found) if found.family.name == entry.family => {
                model.choices.config = found.choices.config;
                merge(&mut model.choices.config, entry.own_config.clone());
                Ok(model)
            }
            Ok(_) | Err(ResolveError::UnsupportedFamily { .. }) => Ok(model),
            Err(other) => Err(other),
        }
    }

    /// With overrides, one after the other.
    pub(super) fn with(self, overrides: &[Override]) -> Result<Changed, ResolveError> {
        let mut before = self.architecture()?.fingerprint();
        let (mut model, mut departures, mut idle) = (self, String::new(), Vec::new());
        for one in overrides {
            let wrong = |why: String| ResolveError::Override { given: one.given.clone(), why };
            let mut changed =
                serde_json::to_value(&model.choices).map_err(|e| wrong(e.to_string()))?;
            merge(&mut changed, one.nested());
            let choices: Choices = serde_json::from_value(changed).map_err(|error| {
                let why = error.to_string();
                match why.strip_prefix("unknown field ") {
                    Some(_) => {
                        let key = &one.key;
                        let keys = KEYS.split([' ', ',']).filter(|word| word.len() > 3);
                        let near = nearest(key, keys);
                        let near = near.first().map(|n| format!(", did you mean {n}?"));
                        wrong(format!("unknown key{} (keys: {KEYS})", near.unwrap_or_default()))
                    }
                    None => wrong(why),
                }
            })?;
            let next = Self { family: model.family, choices };
            let after = next.architecture().map_err(|error| match error {
                ResolveError::BadConfig { why, .. } => wrong(why),
                error => error,
            })?;
            let after = after.fingerprint();
            if one.is_config() {
                if after == before {
                    idle.push(one.given.clone());
                }
            } else if next.choices != model.choices {
                departures.push_str(&format!("+{}", one.given.replace(' ', "")));
            }
            (model, before) = (next, after);
        }
        Ok(Changed { model, departures, idle })
    }

    /// Its architecture.
    pub(super) fn architecture(&self) -> Result<Arc<dyn Architecture>, ResolveError> {
        let bad = |why| ResolveError::BadConfig { path: self.family.name.into(), why };
        (self.family.from_config)(&self.choices.config).map_err(bad)
    }

    /// The family's name.
    pub(super) fn family(&self) -> &'static str {
        self.family.name
    }

    pub(super) fn recipe(&self) -> Recipe {
        self.choices.recipe
    }

    /// How images are prepared for it.
    pub(super) fn preparation(&self, architecture: &dyn Architecture) -> Preparation {
        let Choices { resolution, mean, std, .. } = self.choices;
        let resolution = resolution.unwrap_or_else(|| architecture.dimensions().resolution);
        Preparation { resolution, mean, std }
    }
}

/// A model and what overrides did to it.
pub(super) struct Changed {
    pub(super) model: Model,
    /// What of it stands behind a protocol's name.
    pub(super) departures: String,
    /// Overrides that changed nothing.
    pub(super) idle: Vec<String>,
}

impl Changed {
    /// A model that overrides are not for.
    pub(super) fn not(model: Model) -> Self {
        Self { model, departures: String::new(), idle: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::builtin;

    fn with(name: &str, overrides: &[&str]) -> Result<Changed, String> {
        let registry = builtin().unwrap();
        let model = Model::of_entry(&registry.backbones[name], &registry.defaults).unwrap();
        let parsed: Vec<Override> = overrides.iter().map(|o| o.parse().unwrap()).collect();
        model.with(&parsed).map_err(|error| error.to_string())
    }

    #[test]
    fn overrides_change_what_they_name_and_are_told() {
        let Changed { model, departures, idle } = with(
            "mae-b",
            &["resolution=224", "config.num_hidden_layers=3", "recipe.knn.tokens=patch-mean"],
        )
        .unwrap();
        let architecture = model.architecture().unwrap();
        assert_eq!(architecture.dimensions().blocks, 3);
        assert_eq!(model.preparation(&*architecture).resolution, 224);
        assert_eq!(model.recipe().knn.tokens, schema::Tokens::PatchMean);
        assert_eq!(departures, "+resolution=224+recipe.knn.tokens=patch-mean");
        assert!(idle.is_empty());
        let Changed { departures, idle, .. } =
            with("mae-b", &["resolution=256", "config.hiden_size=3"]).unwrap();
        assert_eq!((departures.as_str(), idle.len()), ("", 1));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |text| with("mae-b", &[text]).err().unwrap();
        let text = error("resolutoin=224");
        assert!(text.contains("unknown key, did you mean resolution?"), "{text}");
        let text = error("resolution=large");
        assert!(text.starts_with("--override resolution=large: invalid type: string"), "{text}");
        let text = error("config.patch_size=15");
        assert_eq!(
            text,
            "--override config.patch_size=15: image_size 224 is not a multiple of patch_size 15"
        );
        assert!("resolution".parse::<Override>().is_err());
    }
}
