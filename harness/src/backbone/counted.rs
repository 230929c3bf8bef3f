//! An encoder that counts what it encodes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use candle_core::Tensor;

use super::{Backbone, BackboneError, Dimensions, Tap, Wanted};

static PASSES: AtomicU64 = AtomicU64::new(0);
static IMAGES: AtomicU64 = AtomicU64::new(0);

/// Counts the passes of the encoder in it.
pub(crate) struct Counted(pub(crate) Box<dyn Backbone>);

/// Passes of encoders since the process began, and the images in them.
pub fn encoded() -> (u64, u64) {
    (PASSES.load(Relaxed), IMAGES.load(Relaxed))
}

impl Backbone for Counted {
    fn dimensions(&self) -> &Dimensions {
        self.0.dimensions()
    }

    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> Result<Vec<Tap>, BackboneError> {
        PASSES.fetch_add(1, Relaxed);
        IMAGES.fetch_add(images.dims().first().map_or(0, |&images| images as u64), Relaxed);
        self.0.forward(images, blocks, wanted)
    }
}
