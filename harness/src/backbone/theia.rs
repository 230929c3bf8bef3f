//! Theia (Shang et al., arXiv 2407.20179): a plain ViT (DeiT's sizes) into which several vision models were
//! distilled through their patch features, for robots. Heads see its patch tokens; the class token was
//! never taught.
//!
//! Our own encoder, the supervised ViT's (see `vit.rs`). The translators to the teachers' features are not part
//! of it. Positions are resized by the factor (new + 0.1) / old, as by the authors' code;
//! `"position_resize": "transformers"` in config.json asks for bicubic by size, as transformers resizes those of a
//! ViT today.
//!
//! ```text
//! pixio-eval features robot.jpg --backbone theia-b --out robot.safetensors
//! ```

use serde_json::{Value, json};

use super::config::Fields;
use super::encoder::{Make, Positions};
use super::position::Resize;
use super::{mae, names};
use crate::weights::Canonical;

/// Reads the authors' `config.json`, which names a DeiT, or one with that DeiT's own fields.
pub(super) fn from_config(config: &Value) -> Result<Make, String> {
    let fields = Fields::of(config);
    if fields.count("num_reg_tokens", 0)? > 0 {
        return Err("num_reg_tokens is not 0: a Theia with registers is not supported".to_owned());
    }
    let resize = fields.choice(
        "position_resize",
        &[("original", Resize::FactorOffset), ("transformers", Resize::Size)],
    )?;
    let plain = match config.get("backbone").and_then(Value::as_str) {
        None => mae::plain("theia", config, 1e-12, canonical)?,
        Some(name) => {
            let sizes = [("tiny", 192, 3), ("small", 384, 6), ("base", 768, 12)];
            let size = sizes.iter().find(|s| name == format!("facebook/deit-{}-patch16-224", s.0));
            let &(_, width, heads) = size.ok_or_else(|| {
                format!(
                    "backbone is {name:?}; expected facebook/deit-{{tiny,small,base}}-patch16-224"
                )
            })?;
            let deit = json!({
                "hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width
            });
            mae::plain("theia", &deit, 1e-12, canonical)?
        }
    };
    Ok(Make { positions: Positions::Table(resize), ..plain })
}

/// Names of the authors' model around transformers' ViT.
fn canonical(raw: &str) -> Canonical {
    let name = raw.strip_prefix("backbone.model.").unwrap_or(raw);
    let outside = ["translator.", "neck.", "pooler."];
    match outside.iter().any(|start| name.starts_with(start)) {
        true => Canonical::Ignored,
        false => names::vit(name),
    }
}
