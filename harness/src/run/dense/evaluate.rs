//! Validation: sliding windows over whole images, encoded once for every probe (PROTOCOL section 3).
//!
//! On the CPU windows are cut, encoded, predicted and merged pass by pass. On a device that computes
//! beside the host, an image goes up once, as bytes; windows are cut and merged there; and a pass is
//! enqueued before what the last one came to is read and scored.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use candle_core::Tensor;
use heads::dense::Probe;
use rayon::prelude::*;
use schema::{DenseProtocol, Objective};
use tasks::dense::{DenseError, Target, load, load_target, normalise_into};
use tasks::metrics::Window;

use super::Opened;
use super::features::{Encoder, Tokens, TokensByBlock, taps_of};
use super::kept::Kept;
use super::merge::Merge;
use super::score::{Canvas, Predicted, Score, Scored, Validation, shaped};
use super::windows::Windows;
use crate::backbone::BackboneError;
use crate::interrupt;
use crate::progress::Reporter;
use crate::run::RunError;
use crate::stream::ordered;
use crate::upload::{Intake, Pixels, Reading, Uploader};

/// Sums of an image's windows that are held on a device, in bytes; those of a larger one are merged on
/// the host.
const LARGEST_MERGE: usize = 2 << 30;

/// What validating takes, whichever the probes.
pub(super) struct Validator<'a> {
    pub(super) data: &'a Opened,
    pub(super) windows: &'a Windows,
    /// Where tokens are kept, if they are.
    pub(super) kept: Option<&'a Kept<'a>>,
    /// Places in the split of the images whose predictions are wanted.
    pub(super) pictured: &'a [usize],
    pub(super) workers: usize,
    pub(super) uploader: &'a Uploader,
    pub(super) reporter: &'a Reporter,
}

/// The images of a pass, and either their tokens or what they are made from.
struct Pass {
    targets: Vec<Target>,
    tokens: Option<TokensByBlock>,
    /// The images; none where there are tokens.
    pixels: Vec<Pixels>,
}

/// A pass whose results nobody has read yet.
struct Enqueued {
    images: Range<usize>,
    targets: Vec<Target>,
    /// Of every image, by probe; none for a probe that had failed.
    merged: Vec<Vec<Merged>>,
    /// Tokens that are to be kept, by block and then by chunk.
    tokens: BTreeMap<usize, Vec<ReadTokens>>,
}

/// What the windows of an image came to.
enum Merged {
    Here(Canvas),
    /// Sums, on their way.
    Sums(Reading),
    /// Labels and whether they are finite, on their way.
    Labels(Reading),
}

/// Tokens on their way to the host.
struct ReadTokens {
    patches: Reading,
    summary: Option<Reading>,
    grid: (usize, usize),
}

fn candle(error: candle_core::Error) -> RunError {
    BackboneError::Candle(error).into()
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
        let (sample, form) = (&protocol.sample, self.data.form);
        let intake = Intake::new(self.uploader, |image, out: &mut [f32]| {
            normalise_into(image, form, sample, out);
        });
        let intake = intake.map_err(candle)?;
        let passes = &self.windows.passes;
        let mut scores: Vec<Result<Score, RunError>> =
            probes.iter().map(|(_, protocol)| Ok(Score::new(protocol))).collect();
        let images = self.data.set.val.pairs().len() as u64;
        let bar = self.reporter.items("validating", images, "images");
        let mut enqueued = VecDeque::new();
        let make = |i: usize| self.load(&passes[i], encoder, protocol, &intake);
        let take = |i: usize, pass: Result<Pass, DenseError>| -> Result<(), RunError> {
            enqueued.push_back(self.enqueue(&passes[i], pass?, encoder, probes, &scores, &intake)?);
            while enqueued.len() > self.uploader.ahead() {
                let Some(pass) = enqueued.pop_front() else { break };
                let done = pass.images.end as u64;
                self.finish(pass, encoder, &mut scores)?;
                bar.set(done);
            }
            if interrupt::requested() { Err(RunError::Interrupted) } else { Ok(()) }
        };
        // A pass of kept tokens is large, and read faster than it is used.
        let ahead = if self.kept.is_some() { self.workers.min(4) } else { 2 * self.workers };
        ordered(0..passes.len(), self.workers, ahead, make, take)?;
        for pass in enqueued {
            self.finish(pass, encoder, &mut scores)?;
        }
        bar.set(images);
        let finish = |score: Result<Score, RunError>| score?.finish(&self.data.record.name);
        Ok(scores.into_iter().map(finish).collect())
    }

    fn load(
        &self,
        images: &Range<usize>,
        encoder: &Encoder<'_>,
        protocol: &DenseProtocol,
        intake: &Intake<'_>,
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
            pixels.push(intake.pixels(image));
            targets.push(target);
        }
        Ok(Pass { targets, tokens, pixels })
    }

    /// Encodes, predicts and merges the windows of a pass.
    fn enqueue(
        &self,
        images: &Range<usize>,
        pass: Pass,
        encoder: &Encoder<'_>,
        probes: &[(&Probe, &DenseProtocol)],
        scores: &[Result<Score<'_>, RunError>],
        intake: &Intake<'_>,
    ) -> Result<Enqueued, RunError> {
        let side = self.windows.side();
        let places: Vec<(usize, Window)> = images
            .clone()
            .enumerate()
            .flat_map(|(at, image)| self.windows.at(image).into_iter().map(move |w| (at, w)))
            .collect();
        // None for a probe that has failed.
        let mut sums: Vec<Vec<Sums>> = scores
            .iter()
            .map(|score| match score {
                Ok(score) => images.clone().map(|image| self.sums(score, image)).collect(),
                Err(_) => Ok(Vec::new()),
            })
            .collect::<Result<_, _>>()?;
        let placed = self.placed(images, &pass.pixels, intake)?;
        let keep = self.kept.is_some_and(|kept| pass.tokens.is_none() && kept.wants());
        let mut read: BTreeMap<usize, Vec<ReadTokens>> = BTreeMap::new();
        // Chunks of nearly one size.
        let chunks = places.len().div_ceil(encoder.micro_batch).max(1);
        let size = places.len().div_ceil(chunks).max(1);
        for (chunk, places) in places.chunks(size).enumerate() {
            let tokens = match &pass.tokens {
                Some(tokens) => {
                    let part = |(&block, tokens): (&usize, &Tokens)| {
                        let start = chunk * size;
                        Ok((block, tokens.part(start, places.len(), self.uploader)?))
                    };
                    tokens.iter().map(part).collect::<Result<TokensByBlock, RunError>>()?
                }
                None => encoder.tokens(&self.cut(images, places, &pass.pixels, &placed)?)?,
            };
            let taps = encoder.taps(&tokens)?;
            if keep {
                for (&block, tokens) in &tokens {
                    let dtype = encoder.blocks.get(&block).copied();
                    read.entry(block).or_default().push(self.read(tokens, dtype)?);
                }
            }
            let live = probes.iter().zip(&mut sums).filter(|(_, sums)| !sums.is_empty());
            for ((probe, protocol), sums) in live {
                let taps = taps_of(&taps, &protocol.feature);
                let predicted = probe.predict(&taps, (side, side))?;
                add(sums, places, &predicted, side)?;
            }
        }
        let read_back = |(sums, (_, protocol)): (Vec<Sums>, &(&Probe, &DenseProtocol))| {
            sums.into_iter().map(|sums| self.merged(sums, &protocol.objective)).collect()
        };
        let merged =
            sums.into_iter().zip(probes).map(read_back).collect::<Result<_, RunError>>()?;
        Ok(Enqueued { images: images.clone(), targets: pass.targets, merged, tokens: read })
    }

    /// Images on the device, padded so that every window lies inside; none where the host cuts.
    fn placed(
        &self,
        images: &Range<usize>,
        pixels: &[Pixels],
        intake: &Intake<'_>,
    ) -> Result<Vec<Tensor>, RunError> {
        if !self.uploader.is_beside() {
            return Ok(Vec::new());
        }
        let side = self.windows.side();
        let place = |(image, pixels): (usize, &Pixels)| {
            let (height, width) = self.windows.size(image);
            let windows = self.windows.at(image);
            let below = |end: usize, size: usize| (end + side).saturating_sub(size);
            let bottom = below(windows.iter().map(|w| w.top).max().unwrap_or(0), height);
            let right = below(windows.iter().map(|w| w.left).max().unwrap_or(0), width);
            let image = intake.batch(std::slice::from_ref(pixels), (height, width))?.squeeze(0)?;
            image.pad_with_zeros(1, 0, bottom)?.pad_with_zeros(2, 0, right)
        };
        images.clone().zip(pixels).map(place).collect::<Result<_, _>>().map_err(candle)
    }

    /// Windows `[B, 3, side, side]`, cut on the host or on the device.
    fn cut(
        &self,
        images: &Range<usize>,
        places: &[(usize, Window)],
        pixels: &[Pixels],
        placed: &[Tensor],
    ) -> Result<Tensor, RunError> {
        let side = self.windows.side();
        if self.uploader.is_beside() {
            let cut = |(at, place): &(usize, Window)| {
                placed[*at].narrow(1, place.top, side)?.narrow(2, place.left, side)
            };
            let cut: Result<Vec<Tensor>, _> = places.iter().map(cut).collect();
            return cut.and_then(|cut| Tensor::stack(&cut, 0)).map_err(candle);
        }
        let mut values = Vec::with_capacity(places.len() * 3 * side * side);
        for (at, place) in places {
            if let Some(Pixels::Values(image)) = pixels.get(*at) {
                values.extend(window(image, self.windows.size(images.start + at), place, side));
            }
        }
        let shape = (places.len(), 3, side, side);
        self.uploader.concat(&[&values], shape).map_err(candle)
    }

    fn sums(&self, score: &Score<'_>, image: usize) -> Result<Sums, RunError> {
        let (channels, size) = (score.channels(), self.windows.size(image));
        let bytes = 4 * channels * size.0 * size.1;
        if self.uploader.is_beside() && bytes <= LARGEST_MERGE {
            return Ok(Sums::There(
                Merge::new(channels, size, self.uploader.device()).map_err(candle)?,
            ));
        }
        Ok(Sums::Here(Canvas::new(channels, size)))
    }

    /// What is to be read of an image's sums.
    fn merged(&self, sums: Sums, objective: &Objective) -> Result<Merged, RunError> {
        let merge = match sums {
            Sums::Here(canvas) => return Ok(Merged::Here(canvas)),
            Sums::There(merge) => merge,
        };
        let merged = match objective {
            Objective::Depth { .. } => {
                merge.sums().and_then(|sums| self.uploader.read(&sums)).map(Merged::Sums)
            }
            Objective::Segmentation { .. } => {
                merge.labels().and_then(|labels| self.uploader.read(&labels)).map(Merged::Labels)
            }
        };
        merged.map_err(candle)
    }

    fn predicted(&self, merged: Merged, image: usize) -> Result<Predicted, RunError> {
        let size = self.windows.size(image);
        match merged {
            Merged::Here(canvas) => Ok(Predicted::Sums(canvas)),
            Merged::Sums(reading) => {
                let sums = reading.values().map_err(candle)?;
                Ok(Predicted::Sums(Canvas::of(sums, &self.windows.at(image), size)))
            }
            Merged::Labels(reading) => {
                let mut labels: Vec<u8> = reading.values().map_err(candle)?;
                let finite = labels.pop() == Some(1);
                Ok(Predicted::Labels(shaped(size, labels)?, finite))
            }
        }
    }

    /// Starts to read tokens back in the type that they are kept in.
    fn read(
        &self,
        tokens: &Tokens,
        dtype: Option<candle_core::DType>,
    ) -> Result<ReadTokens, RunError> {
        let read = |tokens: &Tensor| self.uploader.read(tokens);
        let patches = match dtype {
            Some(dtype) => tokens.patches.to_dtype(dtype).and_then(|patches| read(&patches)),
            None => read(&tokens.patches),
        };
        Ok(ReadTokens {
            patches: patches.map_err(candle)?,
            summary: tokens.summary.as_ref().map(read).transpose().map_err(candle)?,
            grid: tokens.grid,
        })
    }

    /// Keeps the tokens of a pass, and scores its images.
    fn finish(
        &self,
        pass: Enqueued,
        encoder: &Encoder<'_>,
        scores: &mut [Result<Score<'_>, RunError>],
    ) -> Result<(), RunError> {
        let Enqueued { images, targets, merged, tokens } = pass;
        if let Some(kept) = self.kept.filter(|_| !tokens.is_empty()) {
            let joined = tokens.into_iter().filter_map(|(block, parts)| {
                let parts = parts.into_iter().map(ReadTokens::wait).collect::<Result<Vec<_>, _>>();
                let joined = parts.and_then(|parts| Tokens::join(&parts));
                joined.map(|whole| Some((block, whole?))).transpose()
            });
            kept.write(images.start, &joined.collect::<Result<_, _>>()?, &encoder.blocks);
        }
        let pairs = &self.data.set.val.pairs()[images.clone()];
        for (slot, merged) in scores.iter_mut().zip(merged) {
            let Ok(score) = slot else { continue };
            let predicted = images.clone().zip(merged);
            let predicted: Vec<Predicted> = predicted
                .map(|(image, merged)| self.predicted(merged, image))
                .collect::<Result<_, _>>()?;
            let whole = predicted.into_par_iter().zip(pairs).zip(&targets);
            let scored: Result<Vec<Scored>, RunError> = whole
                .map(|((predicted, pair), target)| score.score(&pair.image, predicted, target))
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

/// Sums of an image's windows.
enum Sums {
    Here(Canvas),
    There(Merge),
}

/// Adds the predictions `[B, channels, side, side]` of some windows.
fn add(
    sums: &mut [Sums],
    places: &[(usize, Window)],
    predicted: &Tensor,
    side: usize,
) -> Result<(), RunError> {
    let here = sums.iter().any(|sums| matches!(sums, Sums::Here(_)));
    let values = match here {
        true => predicted.flatten_all().and_then(|all| all.to_vec1::<f32>()).map_err(candle)?,
        false => Vec::new(),
    };
    let size = values.len() / places.len().max(1);
    for (i, (at, place)) in places.iter().enumerate() {
        match &mut sums[*at] {
            Sums::Here(canvas) => canvas.add(place, &values[i * size..(i + 1) * size], side),
            Sums::There(merge) => {
                predicted.get(i).and_then(|one| merge.add(place, &one)).map_err(candle)?;
            }
        }
    }
    Ok(())
}

impl ReadTokens {
    fn wait(self) -> Result<Tokens, RunError> {
        let patches = self.patches.wait().map_err(candle)?;
        let summary = self.summary.map(Reading::wait).transpose().map_err(candle)?;
        Ok(Tokens { patches, summary, grid: self.grid })
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
