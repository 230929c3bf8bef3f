//! What is in a store, for `pixio-eval runs`.

mod details;
mod find;

use comfy_table::{Table, presets};
use schema::{RunPlan, RunRecord};
use serde::Serialize;

use crate::headline::headline;
use crate::store::{Listed, Status};
use crate::text::{clean, shown_backbone, shown_protocol, shown_value};

pub use details::{Difference, MetricPair, RunDiff, diff_runs, show_run};
pub use find::{RunFilter, RunIdError, find_run};

/// One run folder in a few words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunLine {
    /// `finished`, `unfinished`, `failed`, `newer-format` or `unreadable`.
    pub status: &'static str,
    /// The run folder.
    pub folder: String,
    /// `DATASET/HEAD`; like everything below, absent where nothing could be read.
    pub task: Option<String>,
    /// Backbone, ` (untrained)` behind the name of random weights.
    pub backbone: Option<String>,
    /// Name of the protocol; begins with `sample` on generated sample data.
    pub protocol: Option<String>,
    /// Seed of the head.
    pub seed: Option<u64>,
    /// Name of a finished run's first metric; where a head is trained, of the one its best epoch is
    /// chosen by.
    pub metric: Option<String>,
    /// Its value, of the best epoch where there are epochs; null in JSON when it is not finite.
    pub value: Option<f64>,
    /// When the run finished, RFC 3339, UTC.
    pub finished: Option<String>,
    /// Why the run failed or cannot be read.
    pub message: Option<String>,
}

/// The lines of listed runs, in their order.
pub fn run_lines(listed: &[Listed]) -> Vec<RunLine> {
    listed.iter().map(line).collect()
}

/// The lines as a JSON array of objects.
///
/// # Errors
/// When serde_json cannot write them.
pub fn runs_json(listed: &[Listed]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&run_lines(listed))
}

/// The lines as a table for the terminal, with the reasons of failed and unreadable runs below.
pub fn runs_table(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "There is no run; `pixio-eval all --sample` makes one.\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "status", "task", "backbone", "protocol", "seed", "metric", "finished", "folder",
    ]);
    let mut reasons = String::new();
    for line in run_lines(listed) {
        let metric = line
            .metric
            .zip(line.value)
            .map(|(name, value)| format!("{name} {}", shown_value(&name, value)));
        let cells = [
            Some(line.status.to_owned()),
            line.task,
            line.backbone,
            line.protocol,
            line.seed.map(|seed| seed.to_string()),
            metric,
            line.finished,
            Some(line.folder.clone()),
        ];
        table.add_row(cells.map(|cell| cell.map_or("–".to_owned(), |text| clean(&text))));
        if let Some(message) = line.message {
            let first = message.lines().next().unwrap_or_default();
            reasons += &format!("{} {}: {}\n", line.status, clean(&line.folder), clean(first));
        }
    }
    format!("{}\n{reasons}", table.trim_fmt())
}

/// How many runs a table over these leaves out, by state; none where all are finished.
pub fn left_out(listed: &[Listed]) -> Option<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for run in run_lines(listed).iter().filter(|run| run.status != "finished") {
        let status = if run.status == "newer-format" { "of a newer format" } else { run.status };
        match counts.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => counts.push((status, 1)),
        }
    }
    let told: Vec<_> = counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
    (!told.is_empty()).then(|| format!("runs left out: {}", told.join(", ")))
}

fn line(listed: &Listed) -> RunLine {
    let empty = |status| RunLine {
        status,
        folder: listed.folder.display().to_string(),
        task: None,
        backbone: None,
        protocol: None,
        seed: None,
        metric: None,
        value: None,
        finished: None,
        message: None,
    };
    let planned = |status, plan: &RunPlan| RunLine {
        task: Some(plan.task.to_string()),
        backbone: Some(shown_backbone(&plan.backbone)),
        protocol: Some(shown_protocol(plan)),
        seed: Some(plan.seed),
        ..empty(status)
    };
    match &listed.status {
        Status::Finished(record) => done(record, planned("finished", &record.plan)),
        Status::Unfinished(plan) => planned("unfinished", plan),
        Status::Failed(plan, why) => {
            RunLine { message: Some(why.clone()), ..planned("failed", plan) }
        }
        Status::NewerFormat { found } => RunLine {
            message: Some(format!(
                "record format {found}, this version reads up to {}",
                schema::FORMAT
            )),
            ..empty("newer-format")
        },
        Status::Unreadable { why } => RunLine { message: Some(why.clone()), ..empty("unreadable") },
    }
}

fn done(record: &RunRecord, line: RunLine) -> RunLine {
    let metric = headline(record);
    RunLine {
        metric: metric.map(|metric| metric.name.clone()),
        value: metric.map(|metric| metric.value),
        finished: Some(record.outcome.finished.clone()),
        ..line
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod line_tests {
    use super::*;
    use crate::fixtures::{dense_record, on_sample_data, plan, record, untrained};

    #[test]
    fn what_a_table_leaves_out_is_counted_by_state() {
        insta::assert_snapshot!(left_out(&listed()).unwrap(), @"runs left out: 1 unfinished, 1 failed, 1 of a newer format, 1 unreadable");
        assert_eq!(left_out(&listed()[..2]), None);
    }

    fn listed() -> Vec<Listed> {
        let sample = on_sample_data(untrained(record("random:pixio-nano", 31.25)));
        [
            ("runs/imagenet1k/knn/pixio-b-0", Status::Finished(Box::new(record("pixio-b", 40.0)))),
            ("runs/imagenet1k/knn/random_pixio-nano-1", Status::Finished(Box::new(sample))),
            ("runs/imagenet1k/knn/pixio-l-2", Status::Unfinished(Box::new(plan("pixio-l")))),
            (
                "runs/imagenet1k/knn/pixio-h-3",
                Status::Failed(
                    Box::new(plan("pixio-h")),
                    "out of memory\nin the encoder".to_owned(),
                ),
            ),
            ("runs/imagenet1k/knn/pixio-x-4", Status::NewerFormat { found: 7 }),
            (
                "runs/imagenet1k/knn/pixio-y-5",
                Status::Unreadable { why: "no plan\u{1b}[2J".to_owned() },
            ),
        ]
        .map(|(folder, status)| Listed { folder: folder.into(), status })
        .into()
    }

    #[test]
    fn every_state_has_a_line() {
        insta::assert_snapshot!(runs_table(&listed()));
        insta::assert_snapshot!(runs_table(&[]), @"There is no run; `pixio-eval all --sample` makes one.");
    }

    #[test]
    fn a_trained_head_is_told_by_the_metric_of_its_best_epoch() {
        let record = Box::new(dense_record("pixio-b", "nyuv2", "dpt", 0.4375));
        let lines =
            run_lines(&[Listed { folder: "runs/x".into(), status: Status::Finished(record) }]);
        assert_eq!((lines[0].metric.as_deref(), lines[0].value), (Some("rmse"), Some(0.4375)));
    }

    #[test]
    fn the_json_form_has_the_same_lines() {
        let json = runs_json(&listed()).unwrap();
        let lines: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0]["value"], 40.0);
        assert_eq!(lines[3]["message"], "out of memory\nin the encoder");
        insta::assert_snapshot!(serde_json::to_string_pretty(&lines[1]).unwrap(), @r#"
        {
          "backbone": "random:pixio-nano (untrained)",
          "finished": "2026-01-01T00:01:00Z",
          "folder": "runs/imagenet1k/knn/random_pixio-nano-1",
          "message": null,
          "metric": "top1@10",
          "protocol": "sample",
          "seed": 0,
          "status": "finished",
          "task": "imagenet1k/knn",
          "value": 31.25
        }
        "#);
    }
}
