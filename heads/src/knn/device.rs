//! The search on a device of candle's: blocks of similarities by matrix products there, merged into the
//! nearest there; only these come back.

use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;

use candle_core::{Device, Tensor};

use super::error::KnnError;
use super::topk::TopK;
use super::{Features, OnProgress, Progress, Upload};

/// How the search is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Queries on the device at a time, with their nearest; the train set is uploaded once for them.
    pub held: usize,
    /// Queries in one matrix product.
    pub queries: usize,
    /// Train rows in one matrix product.
    pub train: usize,
}

/// Bytes of the queries on the device at a time, and of a block of train rows.
const HELD_BYTES: usize = 4 << 30;
const TRAIN_BYTES: usize = 128 << 20;
/// Multiplications between two looks at the device's progress: a fraction of a second.
const STRETCH: u64 = 1 << 42;

impl Blocks {
    /// Blocks of 4096 queries and up to 32768 train rows: 512 MiB of similarities. They depend on the sizes
    /// of the sets alone.
    pub fn of(train: Features<'_>, queries: usize, k: usize) -> Self {
        let row = train.dim() * size_of::<f32>();
        let rows = (TRAIN_BYTES / row).clamp(256, 32768);
        let blocks = Self {
            held: HELD_BYTES / (row + k * size_of::<i64>()),
            queries: queries.next_multiple_of(8).min(4096),
            train: train.rows().next_multiple_of(8).min(rows),
        };
        Self { held: blocks.held.max(blocks.queries), ..blocks }
    }

    /// Half as large in every way; none below sizes that are not worth a device.
    fn halved(self) -> Option<Self> {
        let half = |count: usize, least: usize| (count / 2).max(least).min(count);
        (self.queries > 64 || self.train > 256).then(|| Self {
            held: half(self.held, 64),
            queries: half(self.queries, 64),
            train: half(self.train, 256),
        })
    }
}

/// A search that goes on where it was when a block did not fit.
pub(super) struct DeviceSearch<'a> {
    pub device: &'a Device,
    pub upload: &'a Upload<'a>,
    pub train: Features<'a>,
    pub queries: Features<'a>,
    pub k: usize,
    pub blocks: Blocks,
}

/// Why a search stopped before its end.
pub(super) enum Stop {
    Interrupted(Progress),
    Failed(candle_core::Error),
}

impl From<candle_core::Error> for Stop {
    fn from(error: candle_core::Error) -> Self {
        Self::Failed(error)
    }
}

impl DeviceSearch<'_> {
    /// As [`Searcher::run`](super::search::Searcher::run). Where the device has too little memory, blocks
    /// are halved and the queries that were under way are searched again.
    pub fn run(
        mut self,
        progress: &mut OnProgress<'_>,
        consume: &mut dyn FnMut(&mut [TopK]),
    ) -> Result<(), KnnError> {
        let mut found = 0;
        loop {
            match (self.attempt(&mut found, progress, consume), self.blocks.halved()) {
                (Ok(()), _) => return Ok(()),
                (Err(Stop::Interrupted(reached)), _) => return Err(KnnError::Interrupted(reached)),
                (Err(Stop::Failed(error)), Some(halved)) if out_of_memory(&error) => {
                    self.blocks = halved;
                }
                (Err(Stop::Failed(error)), _) => return Err(KnnError::Device(error.to_string())),
            }
        }
    }

    /// Searches from query `found` on, which grows by what was consumed.
    fn attempt(
        &self,
        found: &mut usize,
        progress: &mut OnProgress<'_>,
        consume: &mut dyn FnMut(&mut [TopK]),
    ) -> Result<(), Stop> {
        let dim = self.queries.dim();
        let total = self.queries.rows() as u64 * self.train.rows() as u64;
        while *found < self.queries.rows() {
            let left = self.queries.values().get(*found * dim..).unwrap_or_default();
            let held = left.get(..self.blocks.held * dim).unwrap_or(left);
            let before = *found as u64 * self.train.rows() as u64;
            let nearest = self.pass(held, &mut |done| {
                let state = Progress { done: before + done, total };
                progress(state).map_break(|()| state)
            })?;
            for keys in nearest {
                let keys = keys.to_vec2::<i64>()?;
                let mut keys: Vec<TopK> =
                    keys.iter().map(|keys| TopK::of_keys(keys.iter().map(|&k| k as u64))).collect();
                *found += keys.len();
                consume(&mut keys);
            }
        }
        Ok(())
    }

    /// The keys of the nearest of some queries, block by block: one pass over the train set.
    ///
    /// Blocks are filled up with rows of zeros, so that all products are of one shape and sum alike. They
    /// are uploaded by a thread of their own, so that copies are made while products run.
    fn pass(
        &self,
        queries: &[f32],
        progress: &mut dyn FnMut(u64) -> ControlFlow<Progress>,
    ) -> Result<Vec<Tensor>, Stop> {
        let Self { device, upload, train, k, blocks, .. } = *self;
        let dim = train.dim();
        let uploaded = |values: &[f32], rows: usize| {
            let zeros = vec![0.0; (rows * dim).saturating_sub(values.len())];
            upload(&[values, &zeros], (rows, dim))
        };
        let hold = |block: &[f32]| {
            let keys = ops::no_neighbours(block.len() / dim, k, device)?;
            Ok((uploaded(block, blocks.queries)?, keys))
        };
        let held = queries
            .chunks(blocks.queries * dim)
            .map(hold)
            .collect::<candle_core::Result<Vec<(Tensor, Tensor)>>>()?;
        let count = (queries.len() / dim) as u64;
        let stretch = if device.is_cpu() { 0 } else { STRETCH };
        std::thread::scope(|scope| {
            let (send, uploads) = sync_channel(1);
            scope.spawn(move || {
                for block in train.values().chunks(blocks.train * dim) {
                    // The other end is gone after an interrupt or an error.
                    if send.send(uploaded(block, blocks.train)).is_err() {
                        return;
                    }
                }
            });
            let (mut first, mut pending) = (0, 0);
            for upload in uploads {
                let columns = upload?.t()?;
                let rows = blocks.train.min(train.rows() - first);
                for (queries, keys) in &held {
                    let similarities = queries.matmul(&columns)?.narrow(0, 0, keys.dim(0)?)?;
                    ops::merge_nearest(keys, &similarities, first as u32, rows)?;
                }
                first += rows;
                pending += rows as u64 * count * dim as u64;
                if pending >= stretch || first == train.rows() {
                    device.synchronize()?;
                    pending = 0;
                    if let ControlFlow::Break(state) = progress(first as u64 * count) {
                        return Err(Stop::Interrupted(state));
                    }
                }
            }
            Ok(())
        })?;
        Ok(held.into_iter().map(|(_, keys)| keys).collect())
    }
}

/// Parts one after another as one tensor, which is there on return.
pub(super) fn upload(
    parts: &[&[f32]],
    shape: (usize, usize),
    device: &Device,
) -> candle_core::Result<Tensor> {
    let tensor = match parts {
        [values, []] => Tensor::from_slice(values, shape, device),
        parts => Tensor::from_vec(parts.concat(), shape, device),
    }?;
    device.synchronize()?;
    Ok(tensor)
}

/// Whether a device had too little memory, which CUDA's libraries say in several ways.
fn out_of_memory(error: &candle_core::Error) -> bool {
    let text = error.to_string();
    ["OUT_OF_MEMORY", "out of memory", "ALLOC_FAILED"].iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_halve_until_they_are_small() {
        let values = vec![0.0; 1000 * 64];
        let train = Features::new(&values, 64).unwrap();
        let blocks = Blocks::of(train, 100_000, 10);
        assert_eq!((blocks.queries, blocks.train), (4096, 1000));
        assert_eq!(blocks.held, (4 << 30) / (256 + 80));
        let all: Vec<Blocks> =
            std::iter::successors(Some(blocks), |blocks| blocks.halved()).collect();
        assert_eq!(all.len(), 7);
        assert_eq!((all[1].queries, all[1].train), (2048, 500));
        assert_eq!((all[6].queries, all[6].train), (64, 256));
        assert!(all.iter().all(|blocks| blocks.held >= blocks.queries));
        // Few queries stay few.
        let few = Blocks::of(train, 8, 10);
        assert_eq!(few.halved().map(|blocks| blocks.queries), Some(8));
    }

    #[test]
    fn too_little_memory_is_told_from_other_failures() {
        let of = |text: &str| out_of_memory(&candle_core::Error::Msg(text.to_owned()));
        assert!(of("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
        assert!(of("CublasError(CUBLAS_STATUS_ALLOC_FAILED)"));
        assert!(!of("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"...\")"));
    }
}
