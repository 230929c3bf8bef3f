//! One frozen pass for every probe: images to head inputs at the union of the probes' taps.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use heads::dense::assemble;

use crate::backbone::{Backbone, BackboneError, Wanted};
use crate::run::RunError;

/// An encoder and how it is run.
pub(super) struct Encoder<'a> {
    pub(super) backbone: &'a dyn Backbone,
    pub(super) device: &'a Device,
    /// Union of the probes' taps, ascending.
    pub(super) blocks: Vec<usize>,
    /// Whether the summary mean is joined to each patch.
    pub(super) summary: bool,
    /// Images in one pass.
    pub(super) micro_batch: usize,
    /// Side of a square image.
    pub(super) side: usize,
}

/// Head inputs `[B, 2D, h, w]` by block.
pub(super) type Taps = BTreeMap<usize, Tensor>;

impl Encoder<'_> {
    /// Encodes normalised images, each `[3, side, side]`, in passes of `micro_batch`.
    pub(super) fn encode(&self, images: &[Vec<f32>]) -> Result<Taps, RunError> {
        let mut parts: BTreeMap<usize, Vec<Tensor>> = BTreeMap::new();
        for images in images.chunks(self.micro_batch) {
            for (block, tap) in self.pass(images)? {
                parts.entry(block).or_default().push(tap);
            }
        }
        let join = |(block, parts): (usize, Vec<Tensor>)| match parts.as_slice() {
            [one] => Ok((block, one.clone())),
            many => Ok((block, Tensor::cat(many, 0).map_err(BackboneError::Candle)?)),
        };
        parts.into_iter().map(join).collect()
    }

    fn pass(&self, images: &[Vec<f32>]) -> Result<Vec<(usize, Tensor)>, RunError> {
        let shape = (images.len(), 3, self.side, self.side);
        let images = Tensor::from_vec(images.concat(), shape, self.device);
        let images = images.map_err(BackboneError::Candle)?;
        let wanted = Wanted { patches_norm: true, summary_norm: self.summary, ..Wanted::default() };
        let taps = self.backbone.forward(&images, &self.blocks, wanted)?;
        let assembled = taps.into_iter().map(|tap| {
            let (Some(patches), Some(grid)) = (&tap.patches_norm, tap.grid) else {
                return Err(BackboneError::NoTokens("patch tokens".to_owned()).into());
            };
            Ok((tap.block, assemble(patches, tap.summary_norm.as_ref(), grid)?))
        });
        assembled.collect()
    }
}

/// The taps a head takes, shallow to deep.
pub(super) fn taps_of(taps: &Taps, blocks: &[usize]) -> Vec<Tensor> {
    blocks.iter().filter_map(|block| taps.get(block).cloned()).collect()
}
