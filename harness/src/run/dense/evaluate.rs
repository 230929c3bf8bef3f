//! Validation: sliding windows over whole images, encoded once for every probe (PROTOCOL section 3).

use std::collections::BTreeMap;
use std::ops::Range;

use heads::dense::Probe;
use rayon::prelude::*;
use schema::DenseProtocol;
use tasks::dense::{DenseError, Target, load, load_target, normalise_into};
use tasks::metrics::Window;

use super::Opened;
use super::features::{Encoder, Tokens, TokensByBlock, taps_of};
use super::kept::Kept;
use super::score::{Canvas, Score, Scored, Validation};
use super::windows::Windows;
use crate::backbone::BackboneError;
use crate::interrupt;
use crate::progress::Reporter;
use crate::run::RunError;
use crate::stream::ordered;

/// What validating takes, whichever the probes.
pub(super) struct Validator<'a> {
    pub(super) data: &'a Opened,
    pub(super) windows: &'a Windows,
    /// Where tokens are kept, if they are.
    pub(super) kept: Option<&'a Kept<'a>>,
    /// Places in the split of the images whose predictions are wanted.
    pub(super) pictured: &'a [usize],
    pub(super) workers: usize,
    pub(super) reporter: &'a Reporter,
}

/// The images of a pass, and either their tokens or what they are made from.
struct Pass {
    targets: Vec<Target>,
    tokens: Option<TokensByBlock>,
    /// Normalised pixels `[3, H, W]` of each image; none where there are tokens.
    pixels: Vec<Vec<f32>>,
}

impl Validator<'_> {
    /// Validates every probe on the whole validation split, in one pass over its windows; one result a
    /// probe.
    pub(super) fn validate(
        &self,
        encoder: &Encoder<'_>,
        probes: &[(&Probe, &DenseProtocol)],
    ) -> Result<Vec<Result<Validation, RunError>>, RunError> {
        let Some((_, protocol)) = probes.first() else { return Ok(Vec::new()) };
        let passes = &self.windows.passes;
        let mut scores: Vec<Result<Score, RunError>> =
            probes.iter().map(|(_, protocol)| Ok(Score::new(protocol))).collect();
        let images = self.data.set.val.pairs().len() as u64;
        let bar = self.reporter.items("validating", images, "images");
        let make = |i: usize| self.load(&passes[i], encoder, protocol);
        let take = |i: usize, pass: Result<Pass, DenseError>| -> Result<(), RunError> {
            self.pass(&passes[i], &pass?, encoder, probes, &mut scores)?;
            bar.set(passes[i].end as u64);
            if interrupt::requested() { Err(RunError::Interrupted) } else { Ok(()) }
        };
        // A pass of kept tokens is large, and read faster than it is used.
        let ahead = if self.kept.is_some() { self.workers.min(4) } else { 2 * self.workers };
        ordered(0..passes.len(), self.workers, ahead, make, take)?;
        let finish = |score: Result<Score, RunError>| score?.finish(&self.data.record.name);
        Ok(scores.into_iter().map(finish).collect())
    }

    fn load(
        &self,
        images: &Range<usize>,
        encoder: &Encoder<'_>,
        protocol: &DenseProtocol,
    ) -> Result<Pass, DenseError> {
        let (val, form) = (&self.data.set.val, self.data.form);
        let count = self.windows.count(images);
        let tokens = self
            .kept
            .and_then(|kept| kept.read(images.start, (&encoder.blocks, encoder.summary), count));
        let (mut targets, mut pixels) = (Vec::new(), Vec::new());
        for pair in &val.pairs()[images.clone()] {
            let border = protocol.sample.border;
            if tokens.is_some() {
                targets.push(load_target(val.files(), pair, border, form)?);
                continue;
            }
            let (image, target) = load(val.files(), pair, border, form)?;
            let mut normalised = vec![0f32; image.len()];
            normalise_into(image.view(), form, &protocol.sample, &mut normalised);
            pixels.push(normalised);
            targets.push(target);
        }
        Ok(Pass { targets, tokens, pixels })
    }

    fn pass(
        &self,
        images: &Range<usize>,
        pass: &Pass,
        encoder: &Encoder<'_>,
        probes: &[(&Probe, &DenseProtocol)],
        scores: &mut [Result<Score<'_>, RunError>],
    ) -> Result<(), RunError> {
        let side = self.windows.side();
        let places: Vec<(usize, Window)> = images
            .clone()
            .enumerate()
            .flat_map(|(at, image)| self.windows.at(image).into_iter().map(move |w| (at, w)))
            .collect();
        let canvas = |score: &Score<'_>, image| score.canvas(self.windows.size(image));
        // None for a probe that has failed.
        let mut canvases: Vec<Vec<Canvas>> = scores
            .iter()
            .map(|score| score.iter().flat_map(|s| images.clone().map(|i| canvas(s, i))).collect())
            .collect();
        let keep = self.kept.filter(|kept| pass.tokens.is_none() && kept.wants());
        let mut encoded: BTreeMap<usize, Vec<Tokens>> = BTreeMap::new();
        // Chunks of nearly one size.
        let chunks = places.len().div_ceil(encoder.micro_batch).max(1);
        let size = places.len().div_ceil(chunks).max(1);
        for (chunk, places) in places.chunks(size).enumerate() {
            let tokens = match &pass.tokens {
                Some(tokens) => {
                    let part = |(&block, tokens): (&usize, &Tokens)| {
                        let start = chunk * size;
                        Ok((block, tokens.part(start, places.len(), encoder.device)?))
                    };
                    tokens.iter().map(part).collect::<Result<TokensByBlock, RunError>>()?
                }
                None => {
                    let cut = places.iter().map(|(at, place)| {
                        let size = self.windows.size(images.start + at);
                        window(&pass.pixels[*at], size, place, side)
                    });
                    encoder.tokens(&cut.collect::<Vec<_>>())?
                }
            };
            let taps = encoder.taps(&tokens)?;
            if keep.is_some() {
                for (block, tokens) in tokens {
                    encoded.entry(block).or_default().push(tokens);
                }
            }
            let live =
                probes.iter().zip(&mut canvases).filter(|(_, canvases)| !canvases.is_empty());
            for ((probe, protocol), canvases) in live {
                let taps = taps_of(&taps, &protocol.feature);
                let predicted = probe.predict(&taps, (side, side))?;
                let predicted = predicted.flatten_all().and_then(|p| p.to_vec1::<f32>());
                let predicted = predicted.map_err(BackboneError::Candle)?;
                let windows = predicted.chunks(predicted.len() / places.len());
                for ((at, place), predicted) in places.iter().zip(windows) {
                    canvases[*at].add(place, predicted, side);
                }
            }
        }
        if let Some(kept) = keep {
            let joined = encoded.into_iter().filter_map(|(block, parts)| {
                Tokens::join(&parts).map(|whole| Some((block, whole?))).transpose()
            });
            kept.write(images.start, &joined.collect::<Result<_, _>>()?, &encoder.blocks);
        }
        let pairs = &self.data.set.val.pairs()[images.clone()];
        for (slot, canvases) in scores.iter_mut().zip(canvases) {
            let Ok(score) = slot else { continue };
            let whole = canvases.into_par_iter().zip(pairs).zip(&pass.targets);
            let scored: Result<Vec<Scored>, RunError> = whole
                .map(|((canvas, pair), target)| score.score(&pair.image, canvas, target))
                .collect();
            match scored {
                Ok(scored) => {
                    for (image, scored) in images.clone().zip(scored) {
                        let keep = self.pictured.contains(&image).then_some(image);
                        score.add(scored, keep);
                    }
                }
                Err(error) => *slot = Err(error),
            }
        }
        Ok(())
    }
}

/// A window of a normalised image `[3, H, W]` as `[3, side, side]`; what lies beyond the edge is 0.
fn window(pixels: &[f32], size: (usize, usize), place: &Window, side: usize) -> Vec<f32> {
    let (height, width) = size;
    let mut cut = vec![0f32; 3 * side * side];
    for channel in 0..3 {
        for row in 0..place.height {
            let from = (channel * height + place.top + row) * width + place.left;
            let to = (channel * side + row) * side;
            cut[to..to + place.width].copy_from_slice(&pixels[from..from + place.width]);
        }
    }
    cut
}
