//! From rollouts to numbers.

use std::collections::BTreeMap;

use schema::{EpochRecord, EpisodeRow, MetricValue, PolicyProtocol, Selection};

use super::progress::Progress;

/// Mean score of each policy at each of its evaluations.
struct Scores<'a> {
    protocol: &'a PolicyProtocol,
    /// Sum and number of the scores, by task, seed and epoch.
    of: BTreeMap<(&'a str, u64, usize), (f64, usize)>,
}

impl<'a> Scores<'a> {
    fn new(protocol: &'a PolicyProtocol, rows: &'a [EpisodeRow]) -> Self {
        let mut of: BTreeMap<_, (f64, usize)> = BTreeMap::new();
        for row in rows {
            let one = of.entry((row.task.as_str(), row.seed, row.epoch as usize)).or_default();
            one.0 += row.score;
            one.1 += 1;
        }
        Self { protocol, of }
    }

    /// A policy's mean score at an epoch.
    fn at(&self, task: &'a str, seed: u64, epoch: usize) -> Option<f64> {
        self.of.get(&(task, seed, epoch)).map(|(sum, count)| sum / *count as f64)
    }

    /// Mean over seeds of what `of` says about a policy.
    fn over_seeds(&self, of: impl Fn(u64) -> Option<f64>) -> Option<f64> {
        let scores: Option<Vec<f64>> = self.protocol.seeds.iter().map(|&seed| of(seed)).collect();
        scores.filter(|scores| !scores.is_empty()).map(|scores| mean(&scores))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
