//! How much fits: images in one pass, and heads on one stream, within the memory there is.

use std::collections::BTreeSet;

use candle_core::{DType, Device};
use heads::dense::{Architecture, HeadConfig, TrainingMemory, outputs};
use ops::Format;
use schema::{BackboneRecord, DenseProtocol};

use super::dense::Recipe;
use crate::backbone::Dimensions;

/// Images in one encoder pass where nothing else is asked for.
pub const STANDARD: usize = 16;
/// Largest pass that `auto` chooses: more gains nothing.
const LARGEST: usize = 128;

/// What `--batch-size` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// Images that go through the encoder, and through a head that is trained, at a time.
    Images(usize),
    /// As many as memory allows.
    Auto,
}

/// An encoder, as far as its memory goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncoderSize {
    weights: u64,
    /// Of one image in a pass.
    activations: u64,
    /// Bytes of one image's head input from one block.
    tap: u64,
    grid: usize,
}

impl EncoderSize {
    pub(super) fn of(
        record: &BackboneRecord,
        dimensions: &Dimensions,
        side: usize,
        dtype: DType,
    ) -> Self {
        let grid = side / dimensions.patch.max(1);
        let tokens = grid * grid + dimensions.summary_tokens + dimensions.registers;
        // The residual stream, its norm, queries, keys and values, and the MLP's four-fold width with
        // what it is made from; similarities of all heads, where they are held at once.
        let wide = 16 * tokens * record.width;
        let similarities = tokens * tokens * record.width.div_ceil(64);
        Self {
            weights: record.parameters * dtype.size_in_bytes() as u64,
            activations: 4 * (wide + similarities) as u64,
            tap: (4 * 2 * record.width * grid * grid) as u64,
            grid,
        }
    }

    /// Rows and columns of the grid.
    pub(super) fn grid(&self) -> (usize, usize) {
        (self.grid, self.grid)
    }

    /// Bytes of the encoder with `images` in a pass.
    pub(super) fn pass(&self, images: usize) -> u64 {
        self.weights + images as u64 * self.activations
    }

    /// Images that an encoder alone, as for k-NN, takes in a pass within `memory` bytes.
    pub(super) fn images(&self, memory: u64) -> usize {
        let fit = memory.saturating_sub(self.weights) / self.activations.max(1);
        (fit as usize).clamp(1, LARGEST)
    }
}

/// A trained head, as far as its memory goes.
#[derive(Clone, Debug)]
pub(super) struct ProbeSize {
    head: TrainingMemory,
    divisible: bool,
    /// Samples of a loss group, and of a batch.
    group: usize,
    batch: usize,
    /// Head inputs, which probes with the same ones share.
    taps: BTreeSet<(usize, Recipe)>,
    /// Bytes of one validation window's prediction, as it is resized, weighed and read back.
    predicted: u64,
}

impl ProbeSize {
    pub(super) fn of(
        protocol: &DenseProtocol,
        record: &BackboneRecord,
        encoder: &EncoderSize,
        (dtype, device): (DType, &Device),
    ) -> Self {
        let joined = if protocol.feature.summary { 2 } else { 1 };
        let architecture = Architecture::from(&protocol.head);
        let (width, outputs) = (joined * record.width, outputs(&protocol.objective));
        let config = HeadConfig { architecture, width, outputs };
        let grid = (encoder.grid, encoder.grid);
        let training = &protocol.training;
        Self {
            head: config.training_memory(grid, protocol.sample.crop, dtype, Format::of(device)),
            divisible: config.divisible(),
            group: training.group_size.max(1),
            batch: training.groups * training.group_size,
            taps: {
                let recipe = Recipe::of(&protocol.feature);
                protocol.feature.blocks.iter().map(|&block| (block, recipe)).collect()
            },
            predicted: (3 * 4 * outputs * protocol.evaluation.window.pow(2)) as u64,
        }
    }

    /// Bytes within a training step or a pass of validation, with `images` at a time.
    fn step(&self, images: usize) -> u64 {
        let at_once = match self.divisible {
            true => {
                (images / self.group * self.group).clamp(self.group, self.batch.max(self.group))
            }
            false => self.batch,
        };
        // Without gradients about half of the maps are held at once.
        let window = self.predicted + self.head.per_sample / 2;
        (at_once as u64 * self.head.per_sample).max(images as u64 * window)
    }

    /// Bytes of what a stream takes for one such probe, and of what each further one adds: about, as
    /// taps that probes share are counted for each.
    pub(super) fn parts(&self, encoder: &EncoderSize, images: usize) -> (u64, u64) {
        let taps = 2 * self.taps.len() as u64 * self.batch as u64 * encoder.tap;
        let own = self.head.fixed + taps;
        (self.alone(encoder, images).saturating_sub(own), own)
    }

    /// Bytes of one image's head inputs.
    pub(super) fn tap_bytes(&self, encoder: &EncoderSize) -> u64 {
        self.taps.len() as u64 * encoder.tap / 2
    }

    /// Bytes of this probe alone on a stream, with `images` at a time.
    pub(super) fn alone(&self, encoder: &EncoderSize, images: usize) -> u64 {
        stream(std::slice::from_ref(self), encoder, images)
    }

    /// Images at a time that this probe takes on a stream of its own within `memory` bytes: whole loss
    /// groups, at least one.
    pub(super) fn images(&self, encoder: &EncoderSize, memory: u64) -> usize {
        let most = self.batch.clamp(self.group, LARGEST.max(self.group));
        let groups = (1..=most / self.group).rev().map(|groups| groups * self.group);
        groups.into_iter().find(|&n| self.alone(encoder, n) <= memory).unwrap_or(self.group)
    }
}

/// Bytes of probes that share a stream: they step one after the other, so that all are held and what the
/// largest step holds comes on top.
fn stream(probes: &[ProbeSize], encoder: &EncoderSize, images: usize) -> u64 {
    let held: u64 = probes.iter().map(|probe| probe.head.fixed).sum();
    let largest = |of: &dyn Fn(&ProbeSize) -> u64| probes.iter().map(of).max().unwrap_or(0);
    let taps: BTreeSet<_> = probes.iter().flat_map(|probe| &probe.taps).collect();
    let taps = taps.len() as u64 * largest(&|probe| probe.batch as u64) * encoder.tap;
    let passes = images as u64 * encoder.activations;
    let step = largest(&|probe| probe.head.workspace + probe.step(images));
    encoder.weights + held + 2 * taps + step.max(passes)
}

/// Splits probes, in order, into streams that each fit into `memory` bytes, as few as possible in that
/// order; a probe that does not fit alone has a stream of its own.
pub(super) fn streams(
    probes: &[ProbeSize],
    encoder: &EncoderSize,
    images: usize,
    memory: u64,
) -> Vec<std::ops::Range<usize>> {
    let mut streams = Vec::new();
    let mut start = 0;
    for end in 1..=probes.len() {
        if end - start > 1 && stream(&probes[start..end], encoder, images) > memory {
            streams.push(start..end - 1);
            start = end - 1;
        }
    }
    if start < probes.len() {
        streams.push(start..probes.len());
    }
    streams
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENCODER: EncoderSize = EncoderSize { weights: 1000, activations: 10, tap: 1, grid: 16 };

    fn taps() -> BTreeSet<(usize, Recipe)> {
        let feature = schema::DenseFeatureStage {
            revision: 1,
            blocks: vec![0],
            summary: true,
            class_tokens: None,
            dtype: "f32".to_owned(),
        };
        [(0, Recipe::of(&feature))].into()
    }

    fn probe(fixed: u64, per_sample: u64, divisible: bool) -> ProbeSize {
        let head = TrainingMemory { fixed, workspace: 0, per_sample };
        ProbeSize { head, divisible, group: 4, batch: 32, taps: taps(), predicted: 0 }
    }

    #[test]
    fn the_largest_pass_of_whole_groups_is_chosen() {
        let dpt = probe(500, 100, true);
        // 1000 of weights, 500 held, 64 of taps, 100 a sample.
        for (memory, images) in [(0, 4), (1964, 4), (2363, 4), (2364, 8), (4764, 32), (1 << 40, 32)]
        {
            assert_eq!(dpt.images(&ENCODER, memory), images, "{memory}");
        }
        assert!(probe(500, 100, false).alone(&ENCODER, 4) >= 3200);
        assert_eq!((ENCODER.images(0), ENCODER.images(1055), ENCODER.images(1 << 40)), (1, 5, 128));
    }

    proptest! {
        #[test]
        fn every_probe_has_one_stream_and_streams_fit(
            sizes in proptest::collection::vec((1u64..5000, 0u64..100, any::<bool>()), 1..8),
            memory in 0u64..20_000,
        ) {
            let probes: Vec<ProbeSize> = sizes.iter().map(|&(f, s, d)| probe(f, s, d)).collect();
            let split = streams(&probes, &ENCODER, 8, memory);
            let mut next = 0;
            for one in &split {
                prop_assert_eq!(one.start, next);
                prop_assert!(one.len() == 1 || stream(&probes[one.clone()], &ENCODER, 8) <= memory);
                next = one.end;
                // No stream could have taken the next probe too.
                let longer = one.start..(one.end + 1).min(probes.len());
                prop_assert!(longer == *one || stream(&probes[longer], &ENCODER, 8) > memory);
            }
            prop_assert_eq!(next, probes.len());
        }
    }
}
