//! The worker behind [`Backbone`]: images and tokens go through the shared memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::json;

use super::{BATCH, Line, Worker, WorkerError, onto, patience};
use crate::backbone::{Backbone, BackboneError, Dimensions, Tap, Wanted, check};

pub(super) struct PythonBackbone {
    worker: Arc<Worker>,
    device: Device,
}

impl PythonBackbone {
    pub(super) fn new(worker: Arc<Worker>, device: Device) -> Self {
        Self { worker, device }
    }
}

#[derive(Deserialize)]
struct Taps {
    taps: Vec<BTreeMap<String, Place>>,
}

#[derive(Deserialize)]
struct Place {
    offset: usize,
    shape: Vec<usize>,
}

/// Some of a tap's tokens: their name, how many there are, and what helps where they are missing.
struct Part {
    name: &'static str,
    tokens: usize,
    required: bool,
    help: &'static str,
}

const NORM: &str = "; return them, or declare norm, the final norm";

/// The wanted parts that the encoder has.
fn parts(wanted: Wanted, dimensions: &Dimensions, patches: usize) -> Vec<Part> {
    let summary = dimensions.summary_tokens;
    let grid = dimensions.patches;
    let part = |wanted: bool, name, tokens: usize, required: bool, help| {
        (wanted && tokens > 0).then_some(Part { name, tokens, required, help })
    };
    let n = if grid { patches } else { 0 };
    [
        part(wanted.patches, "patches", n, true, ""),
        part(wanted.patches_norm, "patches_norm", n, true, NORM),
        part(wanted.summary, "summary", summary, true, ""),
        part(wanted.summary_norm, "summary_norm", summary, true, NORM),
        part(wanted.pooled, "pooled", 1, false, ""),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Backbone for PythonBackbone {
    fn dimensions(&self) -> &Dimensions {
        self.worker.dimensions()
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> Result<Vec<Tap>, BackboneError> {
        let dimensions = self.worker.dimensions();
        let (batch, channels, height, width) = images.dims4()?;
        let grid = match dimensions.patches {
            true => check(images, blocks, dimensions)?,
            false => (0, 0),
        };
        let parts = parts(wanted, dimensions, grid.0 * grid.1);
        let pixels = images.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let start = 4 * pixels.len();
        let tokens: usize = parts.iter().map(|part| part.tokens).sum();
        let limit = start + 4 * batch * tokens * dimensions.width * blocks.len();

        let mut line = self.worker.line();
        line.shared(limit)?.put(&pixels);
        let request = json!({
            "do": "forward",
            "shape": [batch, channels, height, width],
            "blocks": blocks,
            "wanted": parts.iter().map(|part| part.name).collect::<Vec<_>>(),
            "offset": start,
            "limit": limit,
        });
        let answer: Taps = line.process.ask("encoding a batch", &request, patience(BATCH))?;
        if answer.taps.len() != blocks.len() {
            return Err(self.unreadable(format!("{} taps", answer.taps.len())).into());
        }
        let mut taps = Vec::with_capacity(blocks.len());
        for (&block, places) in blocks.iter().zip(&answer.taps) {
            let mut found = BTreeMap::new();
            for part in &parts {
                if let Some(values) = self.read(&line, part, block, places, batch)? {
                    let shape = [batch, part.tokens, dimensions.width];
                    found.insert(part.name, onto(values, shape, &self.device)?);
                }
            }
            taps.push(Tap {
                block,
                grid: dimensions.patches.then_some(grid),
                patches: found.remove("patches"),
                patches_norm: found.remove("patches_norm"),
                summary: found.remove("summary"),
                summary_norm: found.remove("summary_norm"),
                pooled: found.remove("pooled"),
            });
        }
        Ok(taps)
    }
}

impl PythonBackbone {
    fn name(&self, line: &Line) -> String {
        line.process.backbone.clone()
    }

    fn unreadable(&self, why: String) -> WorkerError {
        let backbone = self.worker.declared().name.clone();
        WorkerError::Answer { backbone, doing: "encoding a batch", why }
    }

    /// One part of one tap, checked.
    fn read(
        &self,
        line: &Line,
        part: &Part,
        block: usize,
        places: &BTreeMap<String, Place>,
        batch: usize,
    ) -> Result<Option<Vec<f32>>, WorkerError> {
        let name = part.name;
        let Some(place) = places.get(name) else {
            let (backbone, why) = (self.name(line), part.help);
            return match part.required {
                true => Err(WorkerError::Missing { backbone, part: name, block, why }),
                false => Ok(None),
            };
        };
        let expected = vec![batch, part.tokens, self.worker.dimensions().width];
        if place.shape != expected {
            let (backbone, found) = (self.name(line), place.shape.clone());
            return Err(WorkerError::Shape { backbone, part: name, block, found, expected });
        }
        let count = expected.iter().product();
        let values = line.shared.as_ref().and_then(|shared| shared.get(place.offset, count));
        let values = values.ok_or_else(|| self.unreadable(format!("offset {}", place.offset)))?;
        if values.iter().any(|x| !x.is_finite()) {
            return Err(WorkerError::NotFinite { backbone: self.name(line), part: name, block });
        }
        Ok(Some(values))
    }
}
