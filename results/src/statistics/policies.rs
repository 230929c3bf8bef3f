//! The evaluations that a score of policies is of.

use std::collections::BTreeMap;

use schema::{EpisodeRow, MetricValue, SampleRows, Selection};

use super::Samples;

/// The rollouts of one evaluation of each policy (task and seed), in their order: of the last for
/// [`Selection::Last`], else of the policy's best by mean score, the first of equal ones.
pub fn selected(rows: &[EpisodeRow], selection: Selection) -> Vec<&EpisodeRow> {
    /// Sum of the scores and number of the episodes, by epoch.
    type Evaluations = BTreeMap<u32, (f64, f64)>;
    let mut policies: BTreeMap<(&str, u64), Evaluations> = BTreeMap::new();
    for row in rows {
        let evaluations = policies.entry((&row.task, row.seed)).or_default();
        let (sum, count) = evaluations.entry(row.epoch).or_default();
        *sum += row.score;
        *count += 1.0;
    }
    let chosen = |evaluations: Evaluations| match selection {
        Selection::Last => evaluations.into_keys().next_back(),
        // Of equal ones the last found is the greatest: backwards, the first evaluation.
        Selection::Best | Selection::BestEach => {
            let means = evaluations.into_iter().rev().map(|(epoch, (sum, n))| (epoch, sum / n));
            means.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(epoch, _)| epoch)
        }
    };
    let epochs: BTreeMap<(&str, u64), Option<u32>> =
        policies.into_iter().map(|(policy, of)| (policy, chosen(of))).collect();
    let of_it = |row: &&EpisodeRow| epochs.get(&(&*row.task, row.seed)) == Some(&Some(row.epoch));
    rows.iter().filter(of_it).collect()
}

/// The metrics of policies, without intervals: `score`, the mean over tasks of the mean over seeds of
/// the mean over episodes, and `score/TASK`, at the last evaluation (`last`) and at each policy's best
/// (`best-each`, as CortexBench reports it). Tasks in the order of their first rows.
pub fn policy_metrics(rows: &[EpisodeRow]) -> Vec<MetricValue> {
    let rows = SampleRows::Policy(rows.to_vec());
    let at = |selection| {
        let samples = Samples::at(&rows, selection);
        let named = samples.metrics().map(str::to_owned).zip(samples.values());
        let metric =
            |(name, value)| MetricValue { name, value, ci_low: None, ci_high: None, selection };
        named.map(metric).collect::<Vec<_>>()
    };
    [Selection::Last, Selection::BestEach].map(at).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::episode_rows;
    use crate::statistics::attach;

    fn epochs(rows: &[EpisodeRow], selection: Selection) -> Vec<(String, u64, u32)> {
        let mut found: Vec<_> = selected(rows, selection)
            .into_iter()
            .map(|row| (row.task.clone(), row.seed, row.epoch))
            .collect();
        found.dedup();
        found
    }

    #[test]
    fn each_policy_has_its_own_best_evaluation() {
        let policies = |of: [u32; 4]| {
            let names = [("drawer-open", 100), ("drawer-open", 200), ("assembly", 100)];
            let names = names.into_iter().chain([("assembly", 200)]);
            names.zip(of).map(|((task, seed), epoch)| (task.to_owned(), seed, epoch)).collect()
        };
        let mut rows = episode_rows(5);
        let expected: Vec<_> = policies([11, 11, 11, 11]);
        assert_eq!(epochs(&rows, Selection::Last), expected);
        let expected: Vec<_> = policies([11, 11, 11, 6]);
        assert_eq!(epochs(&rows, Selection::BestEach), expected);
        // Of equal ones the first.
        rows.iter_mut().for_each(|row| row.score = 50.0);
        let expected: Vec<_> = policies([6, 6, 6, 6]);
        assert_eq!(epochs(&rows, Selection::Best), expected);
    }

    #[test]
    fn each_selection_has_intervals_of_its_own_episodes() {
        let mut rows = episode_rows(10);
        // Both evaluations have the same score, of episodes that are more alike at the last.
        for row in rows.iter_mut().filter(|row| row.task == "drawer-open") {
            row.score = match row.epoch {
                6 => f64::from(row.episode % 2) * 100.0,
                _ => 45.0 + f64::from(row.episode % 2) * 10.0,
            };
        }
        let mut metrics = policy_metrics(&rows);
        attach(&mut metrics, &SampleRows::Policy(rows));
        let width = |at: usize| metrics[at].ci_high.unwrap() - metrics[at].ci_low.unwrap();
        assert_eq!((metrics[1].value, metrics[4].value), (50.0, 50.0));
        assert_eq!(metrics[1].name, "score/drawer-open");
        assert!(width(1) < 10.0 && width(4) > 40.0, "{metrics:?}");
    }
}
