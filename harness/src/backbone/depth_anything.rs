//! The encoder of Depth Anything V2 (Yang et al., arXiv 2406.09414): a DINOv2, trained further together with a
//! depth head, which is not part of it.
//!
//! Our own encoder, DINOv2's (see `dinov2.rs`): that of candle-transformers fixes the image at 518 pixels. Positions
//! are resized as by the authors' code, by the factor (new + 0.1) / old; `"position_resize": "transformers"` in
//! config.json asks for bicubic by size.
//!
//! ```text
//! pixio-eval features cat.jpg --backbone depth-anything-v2-s --out cat.safetensors
//! ```

use serde_json::Value;

use super::config::Fields;
use super::dinov2;
use super::encoder::Make;
use crate::weights::Canonical;

/// Reads transformers' `config.json` of `depth_anything`, whose encoder stands under `backbone_config`.
pub(super) fn from_transformers(config: &Value) -> Result<Make, String> {
    let inner = config.get("backbone_config").unwrap_or(config);
    match inner.get("model_type").and_then(Value::as_str) {
        None | Some("dinov2" | "depth_anything") => {}
        Some(other) => {
            return Err(format!("backbone_config.model_type is {other:?}; expected \"dinov2\""));
        }
    }
    let original = dinov2::original_resize(config)?;
    let make = dinov2::read(&Fields::of(inner), 0, (518, 14), original)?;
    Ok(Make { family: "depth_anything", names: canonical, ..make })
}

/// Names of transformers and of the authors' `.pth`.
fn canonical(raw: &str) -> Canonical {
    let outside = ["neck.", "head.", "depth_head."];
    if outside.iter().any(|start| raw.starts_with(start)) {
        return Canonical::Ignored;
    }
    let inner = ["backbone.", "pretrained."].iter().find_map(|start| raw.strip_prefix(start));
    dinov2::canonical(inner.unwrap_or(raw))
}
