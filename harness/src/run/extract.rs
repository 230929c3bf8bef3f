//! Features of a split: read from the bank where they are there, encoded where not.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use ndarray::Array3;
use tasks::image::ImageError;

use super::RunError;
use super::embed::{Embedder, Embedding, embed};
use crate::backbone::Backbone;
use crate::cache::{Bank, Claim};
use crate::interrupt;
use crate::progress::{Bar, Reporter};
use crate::stream::{READAHEAD, ordered};
use crate::upload::Pixels;

/// A process claims an eighth of the missing shards at a time, and at most eight: few enough to share
/// them, enough to decode ahead.
const SHARES: usize = 8;
/// How often shards of other processes are looked for.
const POLL: Duration = Duration::from_millis(50);

/// Where an encoder comes from: it is loaded when the first feature is missing.
pub(super) type Load<'a> = dyn FnMut() -> Result<&'a dyn Backbone, RunError> + 'a;

/// The images of a split, by position.
pub(super) trait Images: Sync {
    /// How many.
    fn count(&self) -> usize;
    /// One image's name for people.
    fn name(&self, at: usize) -> Cow<'_, str>;
    /// One image, `[H, W, 3]`.
    fn image(&self, at: usize) -> Result<Array3<u8>, RunError>;
    /// Has the system fetch an image that will be asked for soon.
    fn prefetch(&self, _at: usize) {}
}

/// Files of a data set.
pub(super) struct Files<'a> {
    pub(super) tree: &'a tasks::files::Files,
    /// In the tree.
    pub(super) paths: Vec<&'a str>,
}

impl Images for Files<'_> {
    fn count(&self) -> usize {
        self.paths.len()
    }

    fn name(&self, at: usize) -> Cow<'_, str> {
        self.paths[at].into()
    }

    fn image(&self, at: usize) -> Result<Array3<u8>, RunError> {
        Ok(tasks::image::decode_in(self.tree, self.paths[at])?)
    }

    fn prefetch(&self, at: usize) {
        self.tree.prefetch(self.paths[at]);
    }
}

/// What encoding a split needs.
pub(super) struct Extraction<'a> {
    pub(super) embedder: &'a Embedder<'a>,
    pub(super) bank: &'a Bank,
    /// Vectors of other kinds that are made of the same images, and where they are kept: a pass of the
    /// encoder makes them too.
    pub(super) others: &'a [(Embedder<'a>, Bank)],
    pub(super) micro_batch: usize,
    pub(super) workers: usize,
    pub(super) skip_bad_images: bool,
    pub(super) reporter: &'a Reporter,
}

/// A split's features and what it took.
#[derive(Debug, Default)]
pub(super) struct Extracted {
    /// `[M, width]`, row-major.
    pub(super) features: Vec<f32>,
    /// Position of each row's sample in the split, ascending.
    pub(super) positions: Vec<u32>,
    /// Images encoded now.
    pub(super) encoded: u64,
    /// Time spent encoding, decoding included.
    pub(super) encoding: Duration,
    /// Paths of images that were left out, in order.
    pub(super) skipped: Vec<String>,
}

impl Extraction<'_> {
    /// Features of the images, in order.
    pub(super) fn split(
        &self,
        split: &'static str,
        images: &dyn Images,
        load: &mut Load<'_>,
    ) -> Result<Extracted, RunError> {
        let (count, width) = (images.count(), self.embedder.width);
        let mut rows = Rows { features: vec![0f32; count * width], width };
        let mut missing = Vec::new();
        for shard in self.bank.shards(count) {
            match self.bank.read(split, &shard, self.embedder.width) {
                Ok(Some(features)) => rows.put(shard.start, &features),
                Ok(None) => missing.push(shard),
                Err(error) => {
                    self.reporter.warn(format!("{error}; encoding these images again"));
                    missing.push(shard);
                }
            }
        }
        let known = count - missing.iter().map(Range::len).sum::<usize>();
        if known > 0 {
            self.reporter.say(format!("{split}: {known} of {count} features are kept"));
        }
        let (mut left_out, mut encoding) = (Filled::default(), Duration::ZERO);
        if !missing.is_empty() {
            let backbone = load()?;
            let began = Instant::now();
            left_out = self.fill(backbone, split, missing, images, &mut rows)?;
            encoding = began.elapsed();
        }
        let Filled { mut left_out, encoded } = left_out;
        left_out.sort_unstable();
        if left_out.len() == count {
            return Err(RunError::NothingLeft { split });
        }
        let positions = (0..count).filter(|at| left_out.binary_search(at).is_err());
        let positions: Vec<u32> = positions.map(|at| at as u32).collect();
        Ok(Extracted {
            features: rows.only(&positions),
            encoded,
            encoding,
            skipped: left_out.into_iter().map(|at| images.name(at).into_owned()).collect(),
            positions,
        })
    }

    /// Fills the missing shards of `rows`, sharing the work with other processes that extract the same
    /// bank: each takes shards that no other has claimed, and reads what others have made.
    fn fill(
        &self,
        backbone: &dyn Backbone,
        split: &'static str,
        missing: Vec<Range<usize>>,
        images: &dyn Images,
        rows: &mut Rows,
    ) -> Result<Filled, RunError> {
        let total: usize = missing.iter().map(Range::len).sum();
        let bar = self.reporter.items(&format!("encoding {split}"), total as u64, "images");
        let mut filled = Filled::default();
        let (mut done, mut waiting, mut told) = (0, missing, false);
        while !waiting.is_empty() {
            let most = waiting.len().div_ceil(SHARES).min(SHARES);
            let (mut mine, mut claims, mut others) = (Vec::new(), Vec::new(), Vec::new());
            for shard in std::mem::take(&mut waiting) {
                if mine.len() == most {
                    others.push(shard);
                    continue;
                }
                let claim = self.bank.claim(split, &shard);
                match self.bank.read(split, &shard, self.embedder.width) {
                    // Made by another process since it was looked for.
                    Ok(Some(features)) => {
                        rows.put(shard.start, &features);
                        done += shard.len();
                        bar.set(done as u64);
                    }
                    _ => match claim {
                        Some(claim) => {
                            mine.push(shard);
                            claims.push(claim);
                        }
                        None => others.push(shard),
                    },
                }
            }
            waiting = others;
            if mine.is_empty() && !waiting.is_empty() {
                if !std::mem::replace(&mut told, true) {
                    self.reporter
                        .say(format!("{split}: the rest is being encoded by other processes"));
                }
                std::thread::sleep(POLL);
                if interrupt::requested() {
                    return Err(RunError::Interrupted);
                }
                continue;
            }
            let left_out =
                self.encode(backbone, split, (&mine, &mut claims), images, rows, (&bar, done))?;
            let taken: usize = mine.iter().map(Range::len).sum();
            done += taken;
            filled.encoded += (taken - left_out.len()) as u64;
            filled.left_out.extend(left_out);
        }
        Ok(filled)
    }

    /// Encodes claimed shards into `rows`, keeping each that is whole in the bank and giving its claim
    /// back; returns the positions that were left out, ascending.
    fn encode(
        &self,
        backbone: &dyn Backbone,
        split: &'static str,
        (missing, claims): (&[Range<usize>], &mut Vec<Claim>),
        images: &dyn Images,
        rows: &mut Rows,
        (bar, done): (&Bar, usize),
    ) -> Result<Vec<usize>, RunError> {
        let wanted: Vec<usize> = missing.iter().cloned().flatten().collect();
        let make = |i: usize| -> Result<Pixels, RunError> {
            if let Some(&later) = wanted.get(i + READAHEAD) {
                images.prefetch(later);
            }
            Ok(self.embedder.pixels(images.image(wanted[i])?.view()))
        };
        let mut shards = missing.iter();
        let mut shard = shards.next().cloned().unwrap_or_default();
        let (mut pixels, mut batch) = (Vec::new(), Vec::new());
        let mut kinds = self.kinds(split, &shard);
        let mut left_out = Vec::new();
        let mut work = Work { of: self, split, rows, claims, bar, vectors: BTreeMap::new() };
        let mut enqueued: VecDeque<Enqueued> = VecDeque::new();
        let mut take = |i: usize, image: Result<Pixels, RunError>| -> Result<(), RunError> {
            let at = wanted[i];
            match image {
                Ok(image) => {
                    pixels.push(image);
                    batch.push(at);
                }
                // A file that the system would not read is not an unreadable image.
                Err(error) if self.skip_bad_images && unreadable(&error) => {
                    self.reporter.warn(format!("left out: {error}"));
                    left_out.push(at);
                }
                Err(error) => return Err(error),
            }
            // Batches start at multiples of the micro-batch from the shard's start, so that each
            // image is encoded in the same company wherever an extraction was interrupted.
            let shard_ends = at + 1 == shard.end;
            if !(at + 1 - shard.start).is_multiple_of(self.micro_batch) && !shard_ends {
                return Ok(());
            }
            let made = match batch.is_empty() {
                true => None,
                false => {
                    let others = kinds.iter().map(|&place| &self.others[place].0);
                    let all: Vec<&Embedder<'_>> =
                        std::iter::once(self.embedder).chain(others).collect();
                    Some(embed(backbone, &std::mem::take(&mut pixels), &all)?)
                }
            };
            let whole = left_out.last().is_none_or(|&last| last < shard.start);
            let ends = shard_ends.then(|| (shard.clone(), whole));
            let (positions, kinds_made) = (std::mem::take(&mut batch), kinds.clone());
            let done = (done + i) as u64 + 1;
            enqueued.push_back(Enqueued { made, positions, kinds: kinds_made, ends, done });
            while enqueued.len() > self.embedder.ahead() {
                let Some(next) = enqueued.pop_front() else { break };
                work.finish(next).inspect_err(|_| enqueued.clear())?;
            }
            if shard_ends {
                shard = shards.next().cloned().unwrap_or_default();
                kinds = self.kinds(split, &shard);
            }
            let last = i + 1 == wanted.len();
            if interrupt::requested() && !last { Err(RunError::Interrupted) } else { Ok(()) }
        };
        let ahead = 2 * self.micro_batch.max(self.workers);
        let ended = ordered(0..wanted.len(), self.workers, ahead, make, &mut take);
        // What was enqueued before an error, or before Ctrl-C, is kept as if it had been waited for.
        let finished = enqueued.into_iter().try_for_each(|next| work.finish(next));
        ended.and(finished)?;
        Ok(left_out)
    }

    /// Places of the other kinds of vectors that a shard lacks.
    fn kinds(&self, split: &'static str, shard: &Range<usize>) -> Vec<usize> {
        let others = self.others.iter().enumerate();
        others.filter(|(_, (_, bank))| !bank.has(split, shard)).map(|(place, _)| place).collect()
    }
}

/// A batch whose vectors nobody has waited for.
struct Enqueued {
    /// None where every image was left out.
    made: Option<Embedding>,
    /// Positions of its images.
    positions: Vec<usize>,
    /// Places of the other kinds of vectors.
    kinds: Vec<usize>,
    /// The shard that it ends, and whether no image of that was left out.
    ends: Option<(Range<usize>, bool)>,
    /// Images taken by then.
    done: u64,
}

/// Where vectors go.
struct Work<'a> {
    of: &'a Extraction<'a>,
    split: &'static str,
    rows: &'a mut Rows,
    claims: &'a mut Vec<Claim>,
    bar: &'a Bar,
    /// Vectors of other kinds of the shard under way.
    vectors: BTreeMap<usize, Vec<f32>>,
}

impl Work<'_> {
    /// Waits for a batch, and keeps the shard that it ends if that is whole.
    fn finish(&mut self, batch: Enqueued) -> Result<(), RunError> {
        let Enqueued { made, positions, kinds, ends, done } = batch;
        let (width, split) = (self.of.embedder.width, self.split);
        for &kind in &kinds {
            self.vectors.entry(kind).or_default();
        }
        if let Some(made) = made {
            let mut made = made.wait()?.into_iter();
            let features = made.next().unwrap_or_default();
            for (at, row) in positions.into_iter().zip(features.chunks_exact(width)) {
                self.rows.put(at, row);
            }
            for (kind, made) in kinds.into_iter().zip(made) {
                self.vectors.entry(kind).or_default().extend(made);
            }
        }
        self.bar.set(done);
        let Some((shard, whole)) = ends else { return Ok(()) };
        let vectors = std::mem::take(&mut self.vectors);
        if whole {
            // The claimed shard last: whoever finds it finds the others too.
            for (kind, vectors) in &vectors {
                self.of.others[*kind].1.write(split, &shard, vectors)?;
            }
            self.of.bank.write(split, &shard, self.rows.of(&shard))?;
        }
        drop(self.claims.remove(0));
        Ok(())
    }
}

fn unreadable(error: &RunError) -> bool {
    matches!(error, RunError::Image(error) if !matches!(error, ImageError::Io { .. }))
}

/// What filling the missing shards took.
#[derive(Default)]
struct Filled {
    /// Images encoded by this process.
    encoded: u64,
    /// Positions that were left out.
    left_out: Vec<usize>,
}

/// `[N, width]` features, row-major, one row a sample of the split.
struct Rows {
    features: Vec<f32>,
    width: usize,
}

impl Rows {
    fn put(&mut self, at: usize, features: &[f32]) {
        let start = at * self.width;
        self.features[start..start + features.len()].copy_from_slice(features);
    }

    fn of(&self, range: &Range<usize>) -> &[f32] {
        &self.features[range.start * self.width..range.end * self.width]
    }

    /// The rows at these positions, ascending.
    fn only(mut self, positions: &[u32]) -> Vec<f32> {
        for (row, &at) in positions.iter().enumerate() {
            let from = at as usize * self.width;
            if row != at as usize {
                self.features.copy_within(from..from + self.width, row * self.width);
            }
        }
        self.features.truncate(positions.len() * self.width);
        self.features
    }
}
