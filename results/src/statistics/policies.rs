//! The evaluations that a score of policies is of.

use std::collections::BTreeMap;

use schema::{EpisodeRow, Selection};

/// Sum of the scores and number of the episodes, by epoch.
type Evaluations = BTreeMap<u32, (f64, f64)>;
type Policies<'a> = BTreeMap<(&'a str, u64), Evaluations>;

/// The rollouts of one evaluation of each policy (task and seed), in their order: of the last; for
/// [`Selection::Best`] of the one, the same for all, at which the suite's score is best; for
/// [`Selection::BestEach`], and where policies were not evaluated at the same epochs, of each policy's own
/// best by mean score. Of equal ones the first.
pub(crate) fn selected(rows: &[EpisodeRow], selection: Selection) -> Vec<&EpisodeRow> {
    let mut policies = Policies::new();
    for row in rows {
        let evaluations = policies.entry((&row.task, row.seed)).or_default();
        let (sum, count) = evaluations.entry(row.epoch).or_default();
        *sum += row.score;
        *count += 1.0;
    }
    let common = (selection == Selection::Best).then(|| best_of_all(&policies)).flatten();
    let chosen = |evaluations: Evaluations| match selection {
        Selection::Last => evaluations.into_keys().next_back(),
        Selection::Best | Selection::BestEach => common.or_else(|| {
            first_best(evaluations.into_iter().map(|(epoch, (sum, n))| (epoch, sum / n)))
        }),
    };
    let epochs: BTreeMap<(&str, u64), Option<u32>> =
        policies.into_iter().map(|(policy, of)| (policy, chosen(of))).collect();
    let of_it = |row: &&EpisodeRow| epochs.get(&(&*row.task, row.seed)) == Some(&Some(row.epoch));
    rows.iter().filter(of_it).collect()
}

/// The epoch of the best suite's score; none where policies have other epochs than one another.
fn best_of_all(policies: &Policies<'_>) -> Option<u32> {
    let first = policies.values().next()?;
    if policies.values().any(|other| !other.keys().eq(first.keys())) {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let suite = |epoch: &u32| {
        let mut tasks: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for ((task, _), of) in policies {
            tasks.entry(task).or_default().extend(of.get(epoch).map(|(sum, count)| sum / count));
        }
        mean(&tasks.values().map(|scores| mean(scores)).collect::<Vec<_>>())
    };
    first_best(first.keys().map(|epoch| (*epoch, suite(epoch))))
}

fn first_best(scores: impl Iterator<Item = (u32, f64)>) -> Option<u32> {
    scores.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(epoch, _)| epoch)
}

#[cfg(test)]
mod tests {
    use schema::SampleRows;

    use super::*;
    use crate::fixtures::{episode_rows, policy_metrics};
    use crate::statistics::{Samples, attach};

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
        // For all, the later one; where one has none in common with the others, its own.
        let expected: Vec<_> = policies([11, 11, 11, 11]);
        assert_eq!(epochs(&rows, Selection::Best), expected);
        let score =
            |selection| Samples::at(&SampleRows::Policy(rows.clone()), selection).values()[0];
        assert_eq!([Selection::Best, Selection::BestEach].map(score), [65.0, 70.0]);
        let mut other = rows.clone();
        other.iter_mut().filter(|row| row.seed == 100 && row.epoch == 6).for_each(|r| r.epoch = 5);
        let expected: Vec<_> = policies([11, 11, 11, 6]);
        assert_eq!(epochs(&other, Selection::Best), expected);
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
