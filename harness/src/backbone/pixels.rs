//! The floor: no encoder at all. An image's pixels, averaged over 8x8 squares, are its one summary
//! token. What a backbone adds to k-NN is what it scores above this.

use candle_core::{DType, Tensor};
use schema::Fingerprint;

use super::families::Architecture;
use super::{Backbone, BackboneError, Dimensions, Placement, Tap, Wanted, check};
use crate::weights::{Canonical, Expected, NameMap, Weights, WeightsError};

const SQUARE: usize = 8;
const SIDE: usize = 256;

/// Raw pixels as a backbone: one block, one summary token of width 3 * 32 * 32 at 256x256.
struct Pixels {
    dimensions: Dimensions,
}

/// How the floor is made: there is nothing to configure and nothing to load.
pub(super) struct Make;

impl Architecture for Make {
    fn family(&self) -> &'static str {
        "pixels"
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            blocks: 1,
            width: 3 * (SIDE / SQUARE).pow(2),
            patch: SIDE,
            resolution: SIDE,
            summary_tokens: 1,
            registers: 0,
            patches: false,
            pooled: None,
        }
    }

    fn expected(&self) -> Vec<Expected> {
        Vec::new()
    }

    fn names(&self) -> NameMap {
        |_| Canonical::Unknown
    }

    fn fingerprint(&self) -> Fingerprint {
        schema::fingerprint(&("pixels", SIDE, SQUARE))
    }

    fn positions(&self) -> String {
        "none".to_owned()
    }

    fn flops(&self, height: usize, width: usize) -> Option<f64> {
        Some((3 * height * width) as f64)
    }

    fn load(&self, _: &Weights, _: &Placement) -> Result<Box<dyn Backbone>, WeightsError> {
        Ok(Box::new(Pixels { dimensions: self.dimensions() }))
    }
}

impl Backbone for Pixels {
    fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> Result<Vec<Tap>, BackboneError> {
        check(images, blocks, &self.dimensions)?;
        let (batch, _, height, width) = images.dims4()?;
        if (height, width) != (SIDE, SIDE) {
            return Err(BackboneError::NotPatches { height, width, patch: SIDE });
        }
        let token = images.to_dtype(DType::F32)?.avg_pool2d(SQUARE)?;
        let token = token.reshape((batch, 1, self.dimensions.width))?;
        let summary = || Some(token.clone());
        let tap = |&block: &usize| Tap {
            block,
            grid: None,
            patches: None,
            patches_norm: None,
            summary: wanted.summary.then(summary).flatten(),
            summary_norm: wanted.summary_norm.then(summary).flatten(),
            pooled: None,
        };
        Ok(blocks.iter().map(tap).collect())
    }
}
