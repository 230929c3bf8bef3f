//! Features of a split: read from the bank as far as they are there, encoded where not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use schema::{KnnProtocol, Tokens};
use tasks::image::ImageError;

use super::RunError;
use crate::backbone::{Backbone, BackboneError, Tap, Wanted};
use crate::bank::{Bank, Rows};
use crate::interrupt;
use crate::progress::Reporter;
use crate::stream::ordered;

/// A shard is written at the latest after this many images, or this long, so that little is lost.
const SHARD_IMAGES: usize = 8192;
const SHARD_TIME: Duration = Duration::from_secs(60);

/// What encoding a split needs.
pub(super) struct Extraction<'a> {
    pub(super) backbone: &'a dyn Backbone,
    pub(super) device: &'a Device,
    pub(super) protocol: &'a KnnProtocol,
    pub(super) bank: &'a Bank,
    pub(super) root: &'a Path,
    pub(super) micro_batch: usize,
    pub(super) workers: usize,
    pub(super) skip_bad_images: bool,
    pub(super) reporter: &'a Reporter,
}

/// A split's features, L2-normalised, and what it took.
#[derive(Debug, Default)]
pub(super) struct Extracted {
    pub(super) rows: Rows,
    pub(super) encoded: u64,
    pub(super) elapsed: Duration,
    /// Paths of images that were left out, in order.
    pub(super) skipped: Vec<String>,
}

impl Extraction<'_> {
    /// Features of the samples at `paths` (relative to the root), in order.
    pub(super) fn split(&self, split: &'static str, paths: &[&str]) -> Result<Extracted, RunError> {
        let width = self.backbone.dimensions().width;
        let began = Instant::now();
        let filled = self.bank.filled(split)?;
        let known = filled.last().map_or(0, |range| range.end).min(paths.len());
        if known > 0 {
            self.reporter.say(format!("{split}: {known} of {} features are kept", paths.len()));
        }
        if known < paths.len() {
            self.encode(split, paths, known)?;
        }
        let filled = self.bank.filled(split)?;
        let rows = self.bank.read(split, &filled, width)?;
        if rows.positions.is_empty() {
            return Err(RunError::NothingLeft { split });
        }
        let mut kept = rows.positions.iter().copied().peekable();
        let mut skipped = Vec::new();
        for (position, path) in paths.iter().enumerate() {
            if kept.next_if_eq(&(position as u32)).is_none() {
                skipped.push((*path).to_owned());
            }
        }
        let encoded = (paths.len() - known) as u64;
        Ok(Extracted { rows, encoded, elapsed: began.elapsed(), skipped })
    }

    fn encode(&self, split: &'static str, paths: &[&str], from: usize) -> Result<(), RunError> {
        let stage = &self.protocol.image;
        let side = stage.crop;
        let bar = self.reporter.items(&format!("encoding {split}"), paths.len() as u64, "images");
        let make = |i: usize| -> Result<Vec<f32>, ImageError> {
            let path: PathBuf = self.root.join(paths[i]);
            let image = tasks::image::decode(&path)?;
            let image = tasks::image::prepare(image.view(), stage);
            let mut pixels = vec![0f32; 3 * side * side];
            tasks::image::normalise_into(image.view(), stage.mean, stage.std, &mut pixels);
            Ok(pixels)
        };
        let mut shard = Shard { start: from, rows: Rows::default(), began: Instant::now() };
        let (mut pixels, mut positions) = (Vec::new(), Vec::new());
        let ahead = 2 * self.micro_batch.max(self.workers);
        let take = |i: usize, image: Result<Vec<f32>, ImageError>| -> Result<(), RunError> {
            match image {
                Ok(image) => {
                    pixels.extend_from_slice(&image);
                    positions.push(i as u32);
                }
                Err(error) if self.skip_bad_images => self.reporter.warn(error.to_string()),
                Err(error) => return Err(error.into()),
            }
            // Batches start at multiples of the micro-batch wherever an extraction was interrupted,
            // so that each image is encoded in the same company.
            let last = i + 1 == paths.len();
            if (i + 1) % self.micro_batch != 0 && !last {
                return Ok(());
            }
            if !positions.is_empty() {
                let features = self.features(std::mem::take(&mut pixels), positions.len())?;
                shard.rows.features.extend(features);
                shard.rows.positions.append(&mut positions);
            }
            bar.set(i as u64 + 1);
            let stop = interrupt::requested();
            let due = i + 1 - shard.start >= SHARD_IMAGES || shard.began.elapsed() > SHARD_TIME;
            if last || stop || due {
                self.bank.append(split, shard.start..i + 1, &shard.rows)?;
                shard = Shard { start: i + 1, rows: Rows::default(), began: Instant::now() };
            }
            if stop && !last { Err(RunError::Interrupted) } else { Ok(()) }
        };
        ordered(from..paths.len(), self.workers, ahead, make, take)
    }

    /// `[B * width]` normalised features of `batch` images.
    fn features(&self, pixels: Vec<f32>, batch: usize) -> Result<Vec<f32>, RunError> {
        let stage = &self.protocol.feature;
        let side = self.protocol.image.crop;
        let candle = BackboneError::Candle;
        let images =
            Tensor::from_vec(pixels, (batch, 3, side, side), self.device).map_err(candle)?;
        let wanted = match (stage.tokens, stage.final_norm) {
            (Tokens::SummaryMean, false) => Wanted { summary: true, ..Wanted::default() },
            (Tokens::SummaryMean, true) => Wanted { summary_norm: true, ..Wanted::default() },
            (Tokens::PatchMean, false) => Wanted { patches: true, ..Wanted::default() },
            (Tokens::PatchMean, true) => Wanted { patches_norm: true, ..Wanted::default() },
        };
        let taps = self.backbone.forward(&images, &[stage.block], wanted)?;
        let tokens = taps.into_iter().find_map(|tap: Tap| {
            tap.summary.or(tap.summary_norm).or(tap.patches).or(tap.patches_norm)
        });
        let tokens =
            tokens.ok_or_else(|| BackboneError::NoTokens(format!("{:?}", stage.tokens)))?;
        let mean = |tokens: &Tensor| tokens.mean(1)?.flatten_all()?.to_vec1::<f32>();
        let mut features = mean(&tokens).map_err(candle)?;
        heads::knn::l2_normalise(&mut features, self.backbone.dimensions().width)?;
        Ok(features)
    }
}

struct Shard {
    start: usize,
    rows: Rows,
    began: Instant,
}
