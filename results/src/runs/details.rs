//! One run in full, and what tells two runs apart.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use schema::{MetricValue, Outcome, RunRecord};
use serde::Serialize;
use serde_json::Value;

use crate::headline::is_policy;
use crate::store::{Listed, Status};
use crate::text::{clean, shown_value};

use super::line;

/// Two runs and where they differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunDiff {
    /// Folder of the first.
    pub a: String,
    /// Folder of the second.
    pub b: String,
    /// Entries of the resolved plans that differ, by their path in `plan.json`.
    pub configuration: Vec<Difference>,
    /// Version, commit and machine where they differ.
    pub host: Vec<Difference>,
    /// The metrics that both have.
    pub metrics: Vec<MetricPair>,
}

/// An entry that differs; null where it is missing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where it is, for example `protocol.stages.training.epochs`.
    pub key: String,
    /// In the first.
    pub a: Value,
    /// In the second.
    pub b: Value,
}

/// One metric of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricPair {
    /// Name.
    pub metric: String,
    /// `last`, `best` or `best-each`.
    pub selection: &'static str,
    /// Of the first.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// `b - a`.
    pub difference: f64,
}

/// The entries of a JSON value by their path; lists are one entry.
fn entries(value: &Value) -> BTreeMap<String, Value> {
    fn walk(path: String, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(format!("{path}{dot}{name}"), value, into);
                }
            }
            value => {
                into.insert(path, value.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(String::new(), value, &mut found);
    found
}

fn of<T: Serialize>(value: Option<&T>) -> BTreeMap<String, Value> {
    // What came from JSON goes back to it.
    value.map(|value| entries(&serde_json::to_value(value).unwrap_or_default())).unwrap_or_default()
}

fn record(run: &Listed) -> Option<&RunRecord> {
    match &run.status {
        Status::Finished(record) => Some(record),
        _ => None,
    }
}

fn differences(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> Vec<Difference> {
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    let value = |of: &BTreeMap<String, Value>, key| of.get(key).cloned().unwrap_or_default();
    keys.into_iter()
        .map(|key| Difference { key: key.clone(), a: value(a, key), b: value(b, key) })
        .filter(|entry| entry.a != entry.b)
        .collect()
}

/// Sets two runs against each other.
pub fn diff_runs(a: &Listed, b: &Listed) -> RunDiff {
    let [first, second] = [record(a), record(b)];
    let host = |record: Option<&RunRecord>| of(record.map(|record| &record.outcome.host));
    let metrics = |record: Option<&RunRecord>| -> Vec<MetricValue> {
        record.map(|record| record.outcome.metrics.clone()).unwrap_or_default()
    };
    let others = metrics(second);
    let pair = |metric: MetricValue| {
        let same = |other: &&MetricValue| {
            (&other.name, other.selection) == (&metric.name, metric.selection)
        };
        let other = others.iter().find(same)?;
        Some(MetricPair {
            metric: metric.name.clone(),
            selection: metric.selection.as_str(),
            a: metric.value,
            b: other.value,
            difference: other.value - metric.value,
        })
    };
    RunDiff {
        a: a.folder.display().to_string(),
        b: b.folder.display().to_string(),
        configuration: differences(&of(a.plan()), &of(b.plan())),
        host: match (first, second) {
            (Some(_), Some(_)) => differences(&host(first), &host(second)),
            _ => Vec::new(),
        },
        metrics: metrics(first).into_iter().filter_map(pair).collect(),
    }
}

fn value_text(value: &Value) -> String {
    clean(&match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// Metrics by class are too many to read; a suite's tasks are few.
fn by_class(name: &str) -> bool {
    name.contains('/') && !name.starts_with("score/")
}

impl RunDiff {
    /// For the terminal.
    pub fn text(&self) -> String {
        let mut out = format!("A: {}\nB: {}\n", clean(&self.a), clean(&self.b));
        let entries: Vec<&Difference> = self.configuration.iter().chain(&self.host).collect();
        if entries.is_empty() {
            out += "The plans are the same.\n";
        } else {
            let mut table = plain(&["differs", "A", "B"]);
            for entry in entries {
                table.add_row([clean(&entry.key), value_text(&entry.a), value_text(&entry.b)]);
            }
            out += &format!("{}\n", table.trim_fmt());
        }
        let shown: Vec<&MetricPair> =
            self.metrics.iter().filter(|pair| !by_class(&pair.metric)).collect();
        if !shown.is_empty() {
            let mut table = plain(&["metric", "epoch", "A", "B", "B - A"]);
            for pair in shown {
                let difference = shown_value(&pair.metric, pair.difference);
                let plus = if pair.difference > 0.0 { "+" } else { "" };
                table.add_row([
                    clean(&pair.metric),
                    pair.selection.to_owned(),
                    shown_value(&pair.metric, pair.a),
                    shown_value(&pair.metric, pair.b),
                    format!("{plus}{difference}"),
                ]);
            }
            numbers(&mut table, 2);
            out += &format!("{}\n", table.trim_fmt());
        }
        out
    }
}

/// One run for the terminal: its state, its resolved plan, what came out.
pub fn show_run(run: &Listed) -> String {
    let state = line(run);
    let mut out = format!("{}: {}\n", state.status, clean(&state.folder));
    if let Some(message) = &state.message {
        message.lines().for_each(|line| out += &format!("  {}\n", clean(line)));
    }
    let mut table = plain(&["plan", ""]);
    let mut rows = 0;
    let mut add = |entries: BTreeMap<String, Value>, under: &str| {
        for (key, value) in entries {
            table.add_row([clean(&format!("{under}{key}")), value_text(&value)]);
            rows += 1;
        }
    };
    add(of(run.plan()), "");
    if let Some(record) = record(run) {
        let Outcome { host, seconds, counts, .. } = &record.outcome;
        add(of(Some(host)), "host.");
        add(of(Some(seconds)), "seconds.");
        // Without counts there is no entry, not an empty one.
        add(of(Some(counts).filter(|counts| !counts.is_empty())), "counts.");
        add(of(Some(&record.outcome.started)), "started");
        add(of(Some(&record.outcome.finished)), "finished");
    }
    if rows > 0 {
        out += &format!("{}\n", table.trim_fmt());
    }
    if let Some(record) = record(run) {
        out += &outcome(&record.outcome, is_policy(&record.plan));
    }
    out
}

fn outcome(outcome: &Outcome, policy: bool) -> String {
    let over = if policy { "95% interval over episodes" } else { "95% interval over images" };
    let mut table = plain(&["metric", "epoch", "value", over]);
    let mut classes = 0;
    for metric in &outcome.metrics {
        if by_class(&metric.name) {
            classes += 1;
            continue;
        }
        let shown = |value: f64| shown_value(&metric.name, value);
        let interval = metric.ci_low.zip(metric.ci_high);
        table.add_row([
            clean(&metric.name),
            metric.selection.as_str().to_owned(),
            shown(metric.value),
            interval
                .map_or("–".to_owned(), |(low, high)| format!("{} {}", shown(low), shown(high))),
        ]);
    }
    numbers(&mut table, 2);
    let mut out = format!("{}\n", table.trim_fmt());
    if classes > 0 {
        out += &format!("{classes} values by class are in record.json.\n");
    }
    for warning in &outcome.warnings {
        out += &format!("note: {}\n", clean(warning));
    }
    out
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

fn numbers(table: &mut Table, texts: usize) {
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
