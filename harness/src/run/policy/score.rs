//! From rollouts to a record's numbers.

use std::collections::{BTreeMap, BTreeSet};

use schema::{EpisodeRow, EpochRecord, MetricValue, PolicyProtocol, Selection};
use tasks::robot::Scores;

use super::progress::Progress;

/// `score` and `score/TASK` at the last evaluation, at the best one for all, and with each policy at its
/// own best, which is the published figure.
pub(super) fn metrics(protocol: &PolicyProtocol, rows: &[EpisodeRow]) -> Vec<MetricValue> {
    let scores = Scores::new(protocol, rows);
    let chosen = [
        (Selection::Last, scores.last()),
        (Selection::Best, scores.best()),
        (Selection::BestEach, scores.best_each()),
    ];
    let mut all = Vec::new();
    for (selection, tasks) in chosen.into_iter().filter_map(|(s, tasks)| Some((s, tasks?))) {
        let value = |name: String, value: f64| MetricValue {
            name,
            value,
            ci_low: None,
            ci_high: None,
            selection,
        };
        all.push(value("score".to_owned(), Scores::suite(&tasks)));
        all.extend(tasks.into_iter().map(|(task, score)| value(format!("score/{task}"), score)));
    }
    all
}

/// One line an epoch at which a task was evaluated: its score over seeds, and the suite's where every
/// task was.
pub(super) fn curve(protocol: &PolicyProtocol, progress: &Progress) -> Vec<EpochRecord> {
    let scores = Scores::new(protocol, &progress.rows);
    let epochs: BTreeSet<usize> =
        protocol.tasks.iter().flat_map(|task| task.evaluations.iter().copied()).collect();
    let line = |epoch: usize| {
        let mut metrics = BTreeMap::new();
        let (mut losses, mut all) = (Vec::new(), BTreeMap::new());
        for task in &protocol.tasks {
            let Some(at) = task.evaluations.iter().position(|&e| e == epoch) else { continue };
            if let Some(score) = scores.task(&task.name, epoch) {
                metrics.insert(format!("score/{}", task.name), score);
                all.insert(task.name.clone(), score);
            }
            let of = progress.losses.get(at).into_iter().flatten();
            let prefix = format!("{}/", task.name);
            losses.extend(of.filter(|(name, _)| name.starts_with(&prefix)).map(|(_, loss)| *loss));
        }
        if all.len() == protocol.tasks.len() {
            metrics.insert("score".to_owned(), Scores::suite(&all));
        }
        let loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        EpochRecord {
            epoch,
            loss: (!losses.is_empty()).then_some(loss),
            skipped_groups: 0,
            metrics,
        }
    };
    epochs.into_iter().map(line).collect()
}
