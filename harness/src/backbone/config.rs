//! Fields of transformers' `config.json`; every message names the field that does not fit.

use serde_json::Value;

use super::transformer::Mlp;

/// A configuration, field by field.
pub(super) struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    /// The fields of `config`, or of the vision part of a model of images and text.
    pub(super) fn of(config: &'a Value) -> Self {
        Self(config.get("vision_config").unwrap_or(config))
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A positive whole number.
    pub(super) fn size(&self, key: &str, default: Option<usize>) -> Result<usize, String> {
        match self.get(key) {
            None => default.ok_or(format!("{key} is missing")),
            Some(value) => match value.as_u64() {
                Some(number) if number > 0 => Ok(number as usize),
                _ => Err(format!("{key} is {value}; expected a positive whole number")),
            },
        }
    }

    /// A whole number, zero allowed.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize, String> {
        match self.get(key) {
            Some(value) if value.as_u64() == Some(0) => Ok(0),
            _ => self.size(key, Some(default)),
        }
    }

    /// Whole numbers below `end`.
    pub(super) fn indices(
        &self,
        key: &str,
        default: &[usize],
        end: usize,
    ) -> Result<Vec<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(default.to_vec()) };
        let numbers: Option<Vec<usize>> = serde_json::from_value(value.clone()).ok();
        numbers
            .filter(|numbers| numbers.iter().all(|number| *number < end))
            .ok_or_else(|| format!("{key} is {value}; expected whole numbers below {end}"))
    }

    /// A number.
    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or(format!("{key} is {value}; expected a number")),
        }
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or(format!("{key} is {value}; expected true or false"))
            }
        }
    }

    /// One of `choices` by its name; the default is the first.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, String> {
        let Some(value) = self.get(key) else {
            return choices.first().map(|c| c.1).ok_or(format!("{key} is missing"));
        };
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            format!("{key} is {value}; expected {}", names.join(" or "))
        })
    }

    /// The MLP that `hidden_act` names; `default` where it names none.
    pub(super) fn activation(&self, default: Mlp) -> Result<Mlp, String> {
        match self.get("hidden_act") {
            None => Ok(default),
            Some(_) => self.choice(
                "hidden_act",
                &[
                    ("gelu", Mlp::Gelu),
                    ("quick_gelu", Mlp::QuickGelu),
                    ("gelu_pytorch_tanh", Mlp::GeluTanh),
                ],
            ),
        }
    }

    /// Sides of the pre-training image and of a patch, which must divide it.
    pub(super) fn sides(&self, image: usize, patch: usize) -> Result<(usize, usize), String> {
        let channels = self.size("num_channels", Some(3))?;
        if channels != 3 {
            return Err(format!("num_channels is {channels}; expected 3"));
        }
        let (image, patch) =
            (self.size("image_size", Some(image))?, self.size("patch_size", Some(patch))?);
        if image % patch != 0 {
            return Err(format!("image_size {image} is not a multiple of patch_size {patch}"));
        }
        Ok((image, patch))
    }

    /// Width and number of heads, which must divide it.
    pub(super) fn width(&self, defaults: Option<(usize, usize)>) -> Result<(usize, usize), String> {
        let width = self.size("hidden_size", defaults.map(|d| d.0))?;
        let heads = self.size("num_attention_heads", defaults.map(|d| d.1))?;
        if width % heads != 0 {
            return Err(format!("hidden_size {width} is not a multiple of {heads} heads"));
        }
        Ok((width, heads))
    }
}
