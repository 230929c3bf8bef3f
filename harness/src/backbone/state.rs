//! No encoder at all: policies see the simulator's true state. What is lost when they see a backbone's
//! features instead is the backbone's part; what is missing here is the cloning's own.

use candle_core::Tensor;
use schema::Fingerprint;

use super::families::Architecture;
use super::{Backbone, BackboneError, Dimensions, Placement, Tap, Wanted};
use crate::weights::{Canonical, Expected, NameMap, Weights, WeightsError};

struct State {
    dimensions: Dimensions,
}

/// How it is made: there is nothing to configure and nothing to load.
pub(super) struct Make;

impl Architecture for Make {
    fn family(&self) -> &'static str {
        "state"
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            blocks: 1,
            width: 1,
            patch: 256,
            resolution: 256,
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
        schema::fingerprint(&"state")
    }

    fn positions(&self) -> String {
        "none".to_owned()
    }

    fn flops(&self, _: usize, _: usize) -> Option<f64> {
        None
    }

    fn load(&self, _: &Weights, _: &Placement) -> Result<Box<dyn Backbone>, WeightsError> {
        Ok(Box::new(State { dimensions: self.dimensions() }))
    }
}

impl Backbone for State {
    fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    fn forward(&self, _: &Tensor, _: &[usize], _: Wanted) -> Result<Vec<Tap>, BackboneError> {
        Err(BackboneError::NoTokens("the true state".to_owned()))
    }
}
