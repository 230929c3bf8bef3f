//! A k-NN search with its vote.

use std::ops::ControlFlow;

use heads::knn::{Features, Knn, KnnError, l2_normalise};
use rayon::prelude::*;
use schema::VoteStage;
use schema::random::Stream;

use super::{Bench, Row};
use crate::interrupt;
use crate::run::RunError;

/// Classes of ImageNet-1K.
const CLASSES: usize = 1000;
/// Train rows and queries on a GPU: ImageNet-1K's,
const LARGE: [usize; 2] = [1_281_167, 50_000];
/// and on the CPU.
const SMALL: [usize; 2] = [100_000, 2_000];

/// Sizes of the search.
#[derive(Clone, Debug)]
pub struct Search {
    /// Train rows; none is a number that suits the device.
    pub train: Option<usize>,
    /// Queries; none is a number that suits the device.
    pub queries: Option<usize>,
    /// Width of a feature.
    pub width: usize,
    /// Numbers of neighbours, ascending.
    pub k: Vec<usize>,
}

impl Bench<'_> {
    /// From features in the host's memory to predictions, as a run does it.
    pub(super) fn search(&mut self) -> Result<(), RunError> {
        let Search { train, queries, width, k } = &self.options.search;
        let standard = if self.device.is_cuda() { LARGE } else { SMALL };
        let rows = train.unwrap_or(standard[0]);
        let count = queries.unwrap_or(standard[1]);
        self.reporter.say(format!("knn: {count} queries in {rows} rows of width {width}"));
        let (train, queries) = (features(rows, *width, 1)?, features(count, *width, 2)?);
        let labels =
            |count: usize| (0..count as u32).map(|i| i % CLASSES as u32).collect::<Vec<_>>();
        let (train_labels, query_labels) = (labels(rows), labels(count));
        let vote = VoteStage { revision: 1, k: k.clone(), temperature: 0.07 };
        let upload = |rows: &[&[f32]], shape: (usize, usize)| self.uploader.concat(rows, shape);
        let times = self.timer().time(1, || {
            let knn = Knn::new(Features::new(&train, *width)?, &train_labels, CLASSES)?
                .on(&self.device)
                .uploading(&upload);
            let mut go_on = |_| match interrupt::requested() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let queries = Features::new(&queries, *width)?;
            match knn.predict(queries, &query_labels, &vote, &mut go_on) {
                Err(KnnError::Interrupted(_)) => return Err(RunError::Interrupted),
                found => std::hint::black_box(found?),
            };
            Ok(())
        })?;
        let flops = 2.0 * (rows * width) as f64 * count as f64;
        // The search is f32 whatever the encoder's type, whose peak says nothing about it.
        self.rows
            .push(Row::new("knn".to_owned(), count, "search", times).counted(Some(flops), None));
        Ok(())
    }
}

/// Rows of uniform numbers from a seed, L2-normalised.
fn features(rows: usize, width: usize, seed: u64) -> Result<Vec<f32>, RunError> {
    let stream = Stream::tagged(seed, "bench");
    let mut values = vec![0f32; rows * width];
    values.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, values)| {
        for (at, values) in values.chunks_mut(4).enumerate() {
            let words = stream.at([row as u32, at as u32, 0, 0]);
            values.iter_mut().zip(words).for_each(|(value, word)| *value = word as i32 as f32);
        }
    });
    l2_normalise(&mut values, width)?;
    Ok(values)
}
