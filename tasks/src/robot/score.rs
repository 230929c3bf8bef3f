//! From rollouts to a suite's score.

use std::collections::BTreeMap;

use schema::{EpisodeRow, PolicyProtocol, PolicyTask};

/// Mean scores (0 to 100) of every policy at every evaluation of its own.
///
/// A suite's score is the mean over tasks of the mean over seeds of a policy's score.
#[derive(Debug)]
pub struct Scores<'a> {
    tasks: &'a [PolicyTask],
    seeds: &'a [u64],
    /// Sum and number of scores, by task, seed and epoch.
    of: BTreeMap<(&'a str, u64, usize), (f64, usize)>,
}

impl<'a> Scores<'a> {
    /// Of the rollouts that were made.
    pub fn new(protocol: &'a PolicyProtocol, rows: &'a [EpisodeRow]) -> Self {
        let mut of: BTreeMap<_, (f64, usize)> = BTreeMap::new();
        for row in rows {
            let one = of.entry((row.task.as_str(), row.seed, row.epoch as usize)).or_default();
            one.0 += row.score;
            one.1 += 1;
        }
        Self { tasks: &protocol.tasks, seeds: &protocol.seeds, of }
    }

    /// A policy's mean score after so many epochs; `None` where it was not evaluated.
    pub fn policy(&self, task: &str, seed: u64, epoch: usize) -> Option<f64> {
        self.of.get(&(task, seed, epoch)).map(|(sum, count)| sum / *count as f64)
    }

    /// A task's score after so many epochs, over seeds.
    pub fn task(&self, task: &str, epoch: usize) -> Option<f64> {
        mean(self.seeds.iter().map(|&seed| self.policy(task, seed, epoch)))
    }

    /// Each task with its score at its last evaluation.
    pub fn last(&self) -> Option<BTreeMap<String, f64>> {
        self.tasks.iter().map(|task| self.named(task, self.task(&task.name, task.epochs))).collect()
    }

    /// Each task with the mean over seeds of a policy's best evaluation: the published figure.
    pub fn best_each(&self) -> Option<BTreeMap<String, f64>> {
        let best = |task: &PolicyTask, seed: u64| {
            let at = task.evaluations.iter();
            at.filter_map(|&epoch| self.policy(&task.name, seed, epoch)).reduce(f64::max)
        };
        let of = |task: &PolicyTask| mean(self.seeds.iter().map(|&seed| best(task, seed)));
        self.tasks.iter().map(|task| self.named(task, of(task))).collect()
    }

    /// Each task with its score at the one evaluation, the same for all, at which the suite's is best,
    /// the first of equal ones; `None` where tasks are evaluated at different epochs.
    pub fn best(&self) -> Option<BTreeMap<String, f64>> {
        let first = self.tasks.first()?;
        if self.tasks.iter().any(|task| task.evaluations != first.evaluations) {
            return None;
        }
        let at = |epoch: usize| -> Option<BTreeMap<String, f64>> {
            self.tasks.iter().map(|task| self.named(task, self.task(&task.name, epoch))).collect()
        };
        let all = first.evaluations.iter().filter_map(|&epoch| at(epoch));
        all.reduce(|best, next| if Self::suite(&next) > Self::suite(&best) { next } else { best })
    }

    /// A suite's score from its tasks'.
    pub fn suite(tasks: &BTreeMap<String, f64>) -> f64 {
        tasks.values().sum::<f64>() / tasks.len().max(1) as f64
    }

    fn named(&self, task: &PolicyTask, score: Option<f64>) -> Option<(String, f64)> {
        Some((task.name.clone(), score?))
    }
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
