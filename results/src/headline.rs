//! Which of a run's numbers stand for it where there is no room for all.

use schema::{MetricValue, Objective, RunPlan, RunRecord, Selection, Stages};

/// Metrics of the wide layout; empty for all.
pub(crate) fn default_metrics(plan: &RunPlan) -> &'static [&'static str] {
    match &plan.protocol.stages {
        Stages::Knn(_) => &[],
        Stages::Dense(dense) => match dense.objective {
            Objective::Depth { .. } => &["delta1", "abs_rel", "rmse"],
            Objective::Segmentation { .. } => &["miou", "pixel_acc"],
        },
        Stages::Policy(_) => &["score"],
    }
}

/// The metric that chooses the best epoch; none where no head is trained.
pub(crate) fn chosen_by(plan: &RunPlan) -> Option<&'static str> {
    match &plan.protocol.stages {
        Stages::Knn(_) => None,
        Stages::Dense(dense) => Some(match dense.objective {
            Objective::Depth { .. } => "rmse",
            Objective::Segmentation { .. } => "miou",
        }),
        Stages::Policy(_) => Some("score"),
    }
}

/// The selection shown: the one asked for, else `best`. A run that has no epochs has only `last`.
/// Policies whose tasks are evaluated at different epochs have no `best`: theirs is `best-each`.
pub(crate) fn selection(record: &RunRecord, asked: Option<Selection>) -> Selection {
    let asked = asked.unwrap_or(Selection::Best);
    let there = |selection| record.outcome.metrics.iter().any(|m| m.selection == selection);
    match asked {
        asked if there(asked) => asked,
        Selection::Best if there(Selection::BestEach) => Selection::BestEach,
        _ => Selection::Last,
    }
}

/// Whether the run is of policies, whose samples are episodes and not images.
pub(crate) fn is_policy(plan: &RunPlan) -> bool {
    matches!(plan.protocol.stages, Stages::Policy(_))
}

/// The one number that stands for a run: the metric its best epoch is chosen by, else the first.
pub(crate) fn headline(record: &RunRecord) -> Option<&MetricValue> {
    let (name, selection) = (chosen_by(&record.plan), selection(record, None));
    let metrics = &record.outcome.metrics;
    let chosen = |m: &&MetricValue| Some(m.name.as_str()) == name && m.selection == selection;
    metrics.iter().find(chosen).or(metrics.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{dense_record, policy_record, record, without_epochs};

    #[test]
    fn a_run_without_epochs_shows_the_last_whatever_is_asked() {
        let trained = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
        assert_eq!(selection(&trained, None), Selection::Best);
        assert_eq!(selection(&trained, Some(Selection::Last)), Selection::Last);
        assert_eq!(selection(&trained, Some(Selection::BestEach)), Selection::BestEach);
        let policies = policy_record("pixio-b", "metaworld", 80.0);
        assert_eq!(selection(&policies, None), Selection::BestEach);
        assert_eq!(selection(&policies, Some(Selection::Last)), Selection::Last);
        for record in [record("pixio-b", 40.0), without_epochs(trained)] {
            assert_eq!(selection(&record, None), Selection::Last);
            assert_eq!(selection(&record, Some(Selection::BestEach)), Selection::Last);
        }
    }

    #[test]
    fn the_headline_is_the_metric_that_chooses_the_epoch() {
        let headline = |record: &RunRecord| {
            let metric = headline(record).unwrap();
            (metric.name.clone(), metric.selection, metric.value)
        };
        let depth = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
        assert_eq!(headline(&depth), ("rmse".to_owned(), Selection::Best, 0.5));
        let masks = dense_record("pixio-b", "ade20k", "dpt", 40.0);
        assert_eq!(headline(&masks), ("miou".to_owned(), Selection::Best, 40.0));
        assert_eq!(
            headline(&record("pixio-b", 40.0)),
            ("top1@10".to_owned(), Selection::Last, 40.0)
        );
        let policy = policy_record("pixio-b", "metaworld", 80.0);
        assert_eq!(headline(&policy), ("score".to_owned(), Selection::BestEach, 75.0));
    }
}
