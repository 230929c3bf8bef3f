//! The long form: one row a metric.

use polars::prelude::{Column, DataFrame, PolarsResult};
use schema::{MetricValue, RunPlan, RunRecord};
use serde::Serialize;

use crate::text::{shown_backbone, shown_protocol};

/// Columns of the long form, in order. Scripts depend on them.
pub const COLUMNS: [&str; 10] = [
    "backbone",
    "dataset",
    "head",
    "protocol",
    "seed",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "selection",
];

/// One row of the long form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LongRow {
    /// Backbone; untrained ones are `random:NAME`, any other name is followed by ` (untrained)`.
    pub backbone: String,
    /// Data set.
    pub dataset: String,
    /// Head.
    pub head: String,
    /// Name of the protocol; `sample`, or `sample` with departures, for generated sample data.
    pub protocol: String,
    /// Seed of the head.
    pub seed: u64,
    /// Name of the metric.
    pub metric: String,
    /// Value in the metric's unit, at full precision.
    pub value: f64,
    /// Lower end of the 95% interval, where there is one.
    pub ci_low: Option<f64>,
    /// Upper end of the 95% interval, where there is one.
    pub ci_high: Option<f64>,
    /// `last`, `best` or `best-each`.
    pub selection: &'static str,
}

/// The long form of records, sorted by data set, head, protocol, backbone, seed and, where runs
/// differ in nothing of that, by key. Metrics of one run keep the order of its record.
pub fn long_rows<'a>(records: impl IntoIterator<Item = &'a RunRecord>) -> Vec<LongRow> {
    let mut records: Vec<&RunRecord> = records.into_iter().collect();
    records.sort_by_cached_key(|record| {
        let plan = &record.plan;
        let names = (shown_protocol(plan), plan.backbone.name.clone());
        (plan.task.clone(), names, plan.seed, plan.key())
    });
    records.into_iter().flat_map(rows_of).collect()
}

impl LongRow {
    /// The texts that came from a record's author.
    pub(crate) fn texts_mut(&mut self) -> [&mut String; 5] {
        [
            &mut self.backbone,
            &mut self.dataset,
            &mut self.head,
            &mut self.protocol,
            &mut self.metric,
        ]
    }
}

fn rows_of(record: &RunRecord) -> impl Iterator<Item = LongRow> {
    record.outcome.metrics.iter().map(|metric| long_row(&record.plan, metric))
}

/// One metric of a run.
pub(crate) fn long_row(plan: &RunPlan, metric: &MetricValue) -> LongRow {
    LongRow {
        backbone: if plan.backbone.name.starts_with("random:") {
            plan.backbone.name.clone()
        } else {
            shown_backbone(&plan.backbone)
        },
        dataset: plan.task.dataset.clone(),
        head: plan.task.head.clone(),
        protocol: shown_protocol(plan),
        seed: plan.seed,
        metric: metric.name.clone(),
        value: metric.value,
        ci_low: metric.ci_low,
        ci_high: metric.ci_high,
        selection: metric.selection.as_str(),
    }
}

/// The long form as a frame with the columns [`COLUMNS`]: text as strings, `seed` as u64, numbers
/// as f64, intervals null where absent.
///
/// # Errors
/// When polars cannot hold the rows.
pub fn frame(rows: &[LongRow]) -> PolarsResult<DataFrame> {
    let text = |name: &str, get: fn(&LongRow) -> &str| {
        Column::new(name.into(), rows.iter().map(get).collect::<Vec<_>>())
    };
    let interval = |name: &str, get: fn(&LongRow) -> Option<f64>| {
        Column::new(name.into(), rows.iter().map(get).collect::<Vec<_>>())
    };
    let columns = vec![
        text("backbone", |row| &row.backbone),
        text("dataset", |row| &row.dataset),
        text("head", |row| &row.head),
        text("protocol", |row| &row.protocol),
        Column::new("seed".into(), rows.iter().map(|row| row.seed).collect::<Vec<_>>()),
        text("metric", |row| &row.metric),
        Column::new("value".into(), rows.iter().map(|row| row.value).collect::<Vec<_>>()),
        interval("ci_low", |row| row.ci_low),
        interval("ci_high", |row| row.ci_high),
        text("selection", |row| row.selection),
    ];
    DataFrame::new(rows.len(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{on_sample_data, record, records, untrained};

    #[test]
    fn the_frame_has_the_promised_columns_and_types() {
        let frame = frame(&long_rows(&records())).unwrap();
        assert_eq!(frame.get_column_names(), COLUMNS);
        let types: Vec<_> = frame.dtypes().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(types.join(" "), @"str str str str u64 str f64 f64 f64 str");
        assert_eq!(frame.height(), 4 * 8);
        assert_eq!(frame.column("ci_low").unwrap().null_count(), frame.height());
        assert_eq!(super::frame(&[]).unwrap().get_column_names(), COLUMNS);
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_of_the_records() {
        let mut turned = records();
        turned.reverse();
        assert_eq!(long_rows(&records()), long_rows(&turned));
        let first = &long_rows(&turned)[0];
        assert_eq!((first.backbone.as_str(), first.metric.as_str()), ("pixio-b", "top1@10"));
    }

    #[test]
    fn sample_and_untrained_rows_are_told_apart_whatever_they_were_called() {
        let mut odd = on_sample_data(untrained(record("my-model", 1.0)));
        odd.plan.protocol.name = "pixio+limit=9".to_owned();
        let row = &long_rows([&odd])[0];
        assert_eq!(row.backbone, "my-model (untrained)");
        assert_eq!(row.protocol, "sample+limit=9");
        assert_eq!(long_rows(&records()[..1])[0].backbone, "random:pixio-nano");
    }
}
