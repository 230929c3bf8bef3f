//! Weighted k-NN classification on frozen features (Wu et al., arXiv 1805.01978, section 3.4; the
//! Pixio paper, arXiv 2512.15715, evaluates ImageNet-1K with it).
//!
//! **Search.** Exact: the cosine similarity of every query with every train row, both
//! L2-normalised, in 32-bit floats. Neighbours are ordered by similarity descending, equal
//! similarities by train row ascending, so that the result is one list whatever the number of
//! threads. A query's neighbours do not depend on the other queries. (The last bits of a similarity
//! belong to the processor: its vector width and cache sizes decide how the product is summed.)
//!
//! **On a GPU** ([`Knn::on`]) the products are cuBLAS's, in true 32-bit floats, and the order is the same;
//! equal similarities go by train row there too. But the last bits of a similarity differ from the
//! processor's, by up to about 1e-6 at width 1024: neighbours closer to each other than that may change
//! places, and with them the one at place k.
//!
//! **Vote.** Each neighbour gives its class exp(similarity / temperature). Classes are ranked by
//! the sum descending, equal sums (also classes without votes, whose sum is 0) by class ascending;
//! top-5 looks at the first min(5, k). Weights and sums are 64-bit, taken in neighbour order: the
//! published code's 32-bit weights overflow below a temperature of about 0.012, these below about
//! 0.0015, where an error says so instead of a ranking among infinities.
//!
//! **Memory.** Beside the two feature sets (which may be memory maps; the train set is read once
//! for every 8192 queries) a search needs at most [`working_bytes`]`(k)`, whatever the sizes of the
//! sets: 8192 queries x (8 bytes x (k + max(k, 64) + 32) + 40) for the running neighbours and
//! 8192 x 1008 x 4 bytes of similarities; 59 MiB at k = 200. The matrix product's own packing takes
//! about one L2 cache a thread. [`Knn::predict`] returns 12 bytes a query and k (and 24 a query),
//! [`Knn::search`] 8 bytes a query and neighbour.
//! For ImageNet-1K (1,281,167 train rows and 50,000 queries of width 1024: 5.1 GiB of features) that
//! is 59 MiB for the search and 3.4 MiB for the predictions of four k.

mod device;
mod error;
mod features;
mod search;
mod topk;
mod vote;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use schema::{KPrediction, VoteStage};

use device::{Blocks, DeviceSearch};
pub use error::{KnnError, Set};
pub use features::{Features, l2_normalise};
use search::{Plan, Searcher};
use topk::TopK;
use vote::Vote;
pub use vote::check_vote;

/// How far a search is, in similarities (queries x train rows).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Similarities computed.
    pub done: u64,
    /// Similarities to compute.
    pub total: u64,
}

/// Called on the calling thread after every block of train rows, several times a second;
/// [`ControlFlow::Break`] ends the search with [`KnnError::Interrupted`].
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Bytes of a search's buffers beyond features and results, at most; see the [module](self).
pub fn working_bytes(k: usize) -> usize {
    Plan::DEFAULT.bytes(k)
}

/// Labelled train features to search.
pub struct Knn<'a> {
    train: Features<'a>,
    labels: &'a [u32],
    classes: usize,
    plan: Plan,
    /// Where to search, if not by the processor's own kernels.
    device: Option<Place<'a>>,
}

/// Takes parts of rows, one after another, to a device as one tensor `[rows, dim]`. It is called from a thread
/// beside the one that computes, and may return before the rows are there.
pub type Upload<'a> = dyn Fn(&[&[f32]], (usize, usize)) -> candle_core::Result<Tensor> + Sync + 'a;

/// A device to search on.
struct Place<'a> {
    device: Device,
    /// In which blocks, if not in the usual ones.
    blocks: Option<Blocks>,
    /// What takes rows there, if not candle.
    upload: Option<&'a Upload<'a>>,
}

/// The nearest train rows of each query, row-major `[queries, k]`, nearest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Neighbours a query.
    pub k: usize,
    /// Cosine similarities.
    pub similarities: Vec<f32>,
    /// Train rows.
    pub rows: Vec<u32>,
}

/// What the vote came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// For each query, one prediction for each k, in the order of the protocol's list.
    pub by_query: Vec<Vec<KPrediction>>,
    /// For each k, in the same order, the shares of queries predicted right.
    pub accuracy: Vec<KAccuracy>,
}

/// Accuracy for one k.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KAccuracy {
    /// Number of neighbours.
    pub k: usize,
    /// Percent of queries whose class is ranked first.
    pub top1: f64,
    /// Percent of queries whose class is among the first min(5, k).
    pub top5: f64,
}

impl<'a> Knn<'a> {
    /// Takes L2-normalised train features `[n, dim]` with one label in `0..classes` a row. Reads
    /// every feature once to check it.
    ///
    /// # Errors
    /// An empty set, a count of labels other than `n`, a label outside the classes, a feature that
    /// is not finite, a row that is not normalised.
    pub fn new(train: Features<'a>, labels: &'a [u32], classes: usize) -> Result<Self, KnnError> {
        if u32::try_from(train.rows()).is_err() {
            return Err(KnnError::TooManyRows { rows: train.rows() });
        }
        check_labels(Set::Train, train.rows(), labels, classes)?;
        train.check(Set::Train)?;
        Ok(Self { train, labels, classes, plan: Plan::DEFAULT, device: None })
    }

    /// Searches on `device` from now on, if that is a GPU and for up to [`ops::MOST_NEIGHBOURS`] neighbours.
    /// It then holds there up to 4 GiB of queries and their neighbours (8 bytes each), three blocks of 128
    /// MiB of train rows and 512 MiB of similarities; half of each, and half again, if that does not fit. What
    /// uploads them may hold as many blocks.
    #[must_use]
    pub fn on(mut self, device: &Device) -> Self {
        let place = || Place { device: device.clone(), blocks: None, upload: None };
        self.device = (!device.is_cpu()).then(place);
        self
    }

    /// Rows go to the device by `upload` from now on, as one that copies beside what is computed there.
    #[must_use]
    pub fn uploading(mut self, upload: &'a Upload<'a>) -> Self {
        if let Some(place) = &mut self.device {
            place.upload = Some(upload);
        }
        self
    }

    /// Finds the `k` nearest train rows of each L2-normalised query `[n, dim]`.
    ///
    /// # Errors
    /// `k` of 0 or above the train set, no queries, another width, a feature that is not finite, a
    /// row that is not normalised, an interrupt.
    pub fn search(
        &self,
        queries: Features<'_>,
        k: usize,
        progress: &mut OnProgress<'_>,
    ) -> Result<Neighbours, KnnError> {
        if k == 0 {
            return Err(KnnError::KZero);
        }
        if k > self.train.rows() {
            return Err(KnnError::KTooLarge { k, train: self.train.rows() });
        }
        let mut found = Neighbours {
            k,
            similarities: Vec::with_capacity(queries.rows() * k),
            rows: Vec::with_capacity(queries.rows() * k),
        };
        self.nearest(queries, k, progress, &mut |nearest| {
            for (similarity, row) in nearest.iter_mut().flat_map(TopK::sorted) {
                found.similarities.push(similarity);
                found.rows.push(row);
            }
        })?;
        Ok(found)
    }

    /// Classifies L2-normalised queries `[n, dim]` for every k of the vote's list, from one search,
    /// and compares with `labels`, one in `0..classes` a query.
    ///
    /// # Errors
    /// As [`Self::search`]; and a list of k that is empty or not ascending, a temperature that is
    /// not positive or too small, a count of labels other than `n`, a label outside the classes.
    pub fn predict(
        &self,
        queries: Features<'_>,
        labels: &[u32],
        vote: &VoteStage,
        progress: &mut OnProgress<'_>,
    ) -> Result<Predictions, KnnError> {
        let ks = &vote.k;
        let vote = Vote::new(vote, self.train.rows())?;
        check_labels(Set::Query, queries.rows(), labels, self.classes)?;
        let mut by_query: Vec<Vec<KPrediction>> = Vec::with_capacity(labels.len());
        self.nearest(queries, vote.k_max, progress, &mut |nearest| {
            let labels = labels.get(by_query.len()..).unwrap_or_default();
            let predict = |scores: &mut Vec<f64>, (nearest, &label): (&mut TopK, &u32)| {
                let classes = nearest.sorted().filter_map(|(similarity, row)| {
                    Some((similarity, *self.labels.get(row as usize)?))
                });
                vote.predict(classes, label, scores)
            };
            by_query.par_extend(
                nearest.par_iter_mut().zip(labels).map_init(|| vec![0.0; self.classes], predict),
            );
        })?;
        let percent = |right: fn(&KPrediction) -> bool, place: usize| {
            let count = by_query.iter().filter_map(|by_k| by_k.get(place)).filter(|p| right(p));
            100.0 * count.count() as f64 / by_query.len() as f64
        };
        let accuracy = ks.iter().enumerate().map(|(place, &k)| KAccuracy {
            k,
            top1: percent(|prediction| prediction.top1, place),
            top5: percent(|prediction| prediction.top5, place),
        });
        Ok(Predictions { accuracy: accuracy.collect(), by_query })
    }

    fn nearest(
        &self,
        queries: Features<'_>,
        k: usize,
        progress: &mut OnProgress<'_>,
        consume: &mut dyn FnMut(&mut [TopK]),
    ) -> Result<(), KnnError> {
        if queries.dim() != self.train.dim() {
            return Err(KnnError::DimensionMismatch {
                train: self.train.dim(),
                query: queries.dim(),
            });
        }
        queries.check(Set::Query)?;
        if let Some(place) = self.device.as_ref().filter(|_| k <= ops::MOST_NEIGHBOURS) {
            let Place { device, blocks, upload } = place;
            let blocks = blocks.unwrap_or_else(|| Blocks::of(self.train, queries.rows(), k));
            let plain = |parts: &[&[f32]], shape| device::upload(parts, shape, device);
            let upload: &Upload<'_> = upload.unwrap_or(&plain);
            let search = DeviceSearch { device, upload, train: self.train, queries, k, blocks };
            return search.run(progress, consume);
        }
        let mut searcher = Searcher::new(self.train, queries.rows(), k, self.plan);
        match searcher.run(queries, progress, consume) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(reached) => Err(KnnError::Interrupted(reached)),
        }
    }
}

fn check_labels(set: Set, rows: usize, labels: &[u32], classes: usize) -> Result<(), KnnError> {
    if labels.len() != rows {
        return Err(KnnError::LabelCount { set, rows, labels: labels.len() });
    }
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(row) => Err(KnnError::LabelOutside { set, row, label: labels[row], classes }),
        None => Ok(()),
    }
}
