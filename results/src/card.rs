//! A backbone's results as the metadata of a Hugging Face model card: the `model-index` that the hub
//! reads from the head of a repository's README.md.

use schema::{RunRecord, Stages};

use crate::headline::{default_metrics, selection};
use crate::text::{clean, shown_protocol};

/// Why there is no card.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// No finished run of the backbone.
    #[error("no finished run has backbone `{wanted}`; there are: {}", known.join(", "))]
    UnknownBackbone {
        /// As asked for.
        wanted: String,
        /// What the runs have instead.
        known: Vec<String>,
    },
    /// Nothing that may be published as a result.
    #[error(
        "every finished run of `{0}` is untrained, on sample data or without a finite value: none is a result to publish"
    )]
    NoResult(String),
}

/// The metadata of a backbone's runs on real data, between `---` lines, and how many of its runs are
/// left out: those of random weights and on sample data. `title` gives a data set's full name.
///
/// # Errors
/// [`CardError`] when there is nothing to publish.
pub fn model_card(
    records: &[&RunRecord],
    backbone: &str,
    title: impl Fn(&str) -> Option<String>,
) -> Result<(String, usize), CardError> {
    let mut own: Vec<&RunRecord> =
        records.iter().copied().filter(|record| record.plan.backbone.name == backbone).collect();
    if own.is_empty() {
        let mut known: Vec<String> =
            records.iter().map(|record| record.plan.backbone.name.clone()).collect();
        known.sort();
        known.dedup();
        return Err(CardError::UnknownBackbone { wanted: backbone.to_owned(), known });
    }
    let all = own.len();
    own.retain(|record| record.plan.backbone.trained && !record.plan.data.sample);
    own.sort_by_cached_key(|record| {
        let plan = &record.plan;
        (plan.task.clone(), shown_protocol(plan), plan.seed, plan.key())
    });
    let results: Vec<String> = own.iter().filter_map(|record| result(record, &title)).collect();
    if results.is_empty() {
        return Err(CardError::NoResult(backbone.to_owned()));
    }
    let left_out = all - results.len();
    let name = quoted(backbone);
    let results = results.concat();
    Ok((format!("---\nmodel-index:\n- name: {name}\n  results:\n{results}---\n"), left_out))
}

/// One run: a task, a data set and its metrics; none without a finite one.
fn result(record: &RunRecord, title: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let plan = &record.plan;
    let (kind, said) = match &plan.protocol.stages {
        Stages::Knn(_) => ("image-classification", "k-NN on frozen features".to_owned()),
        Stages::Dense(dense) => match dense.objective {
            schema::Objective::Depth { .. } => {
                ("depth-estimation", format!("{} head on frozen features", plan.task.head))
            }
            schema::Objective::Segmentation { .. } => {
                ("image-segmentation", format!("{} head on frozen features", plan.task.head))
            }
        },
        // A policy that sees the simulator's state says nothing of the backbone.
        Stages::Policy(policy) if policy.observation.source == schema::Source::State => {
            return None;
        }
        Stages::Policy(_) => ("robotics", "behaviour cloning on frozen features".to_owned()),
    };
    let shown = selection(record, None);
    let asked = default_metrics(plan);
    let metrics = record.outcome.metrics.iter().filter(|metric| {
        metric.selection == shown
            && metric.value.is_finite()
            && (asked.is_empty() || asked.contains(&&*metric.name))
    });
    let metrics: Vec<String> = metrics
        .map(|metric| {
            let mut text = format!(
                "    - type: {}\n      value: {}\n      name: {}\n      args:\n        protocol: {}\n        \
                 seed: {}\n        epoch: {}\n        version: {}\n",
                quoted(metric.name.split('@').next().unwrap_or(&metric.name)),
                number(metric.value),
                quoted(&metric.name),
                quoted(&shown_protocol(plan)),
                plan.seed,
                shown.as_str(),
                quoted(&format!("pixio-eval {}", record.outcome.host.version)),
            );
            if let Some((low, high)) = metric.ci_low.zip(metric.ci_high)
                && low.is_finite()
                && high.is_finite()
            {
                let [low, high] = [low, high].map(number);
                text += &format!("        interval_95: [{low}, {high}]\n");
            }
            text
        })
        .collect();
    if metrics.is_empty() {
        return None;
    }
    let dataset = &plan.task.dataset;
    Some(format!(
        "  - task:\n      type: {kind}\n      name: {}\n    dataset:\n      type: {}\n      name: {}\n      split: \
         validation\n    metrics:\n{}",
        quoted(&said),
        quoted(dataset),
        quoted(&title(dataset).unwrap_or_else(|| dataset.clone())),
        metrics.concat(),
    ))
}

/// A YAML float, which needs a point: without exponent, which not every reader takes for a number.
fn number(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

/// A text in double quotes, as JSON has it: YAML reads that alike.
fn quoted(text: &str) -> String {
    let printable = clean(text).replace(['\u{fffe}', '\u{ffff}', '\u{feff}'], "\u{fffd}");
    serde_json::Value::String(printable).to_string()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::fixtures::{dense_record, mixed_records, on_sample_data, record, untrained};

    const HOSTILE: &str =
        "a: [b] #c \"d\" '--- \u{1b}\n- x {y} \u{2028} \u{ffff} 模型 \\n %z &w *v !u |";

    fn title(name: &str) -> Option<String> {
        (name == "nyuv2").then(|| "NYU Depth V2".to_owned())
    }

    fn card(records: &[RunRecord], name: &str) -> Result<(String, usize), CardError> {
        model_card(&records.iter().collect::<Vec<_>>(), name, title)
    }

    #[test]
    fn the_card_has_the_runs_of_one_backbone() {
        let mut records = mixed_records();
        records[2].outcome.metrics[14].ci_low = Some(0.45);
        records[2].outcome.metrics[14].ci_high = Some(0.625);
        records.push(on_sample_data(record("pixio-b", 99.0)));
        let (card, left_out) = card(&records, "pixio-b").unwrap();
        insta::assert_snapshot!(card);
        assert_eq!(left_out, 1);
        assert!(!card.contains("99.0"), "{card}");
    }

    #[test]
    fn what_is_no_result_is_not_published() {
        let records = [
            untrained(record("random:pixio-b", 1.0)),
            on_sample_data(record("pixio-b", 1.0)),
            record("odd", f64::NAN),
        ];
        insta::assert_snapshot!(card(&records, "pixio-b").unwrap_err(), @"every finished run of `pixio-b` is untrained, on sample data or without a finite value: none is a result to publish");
        assert!(matches!(card(&records, "random:pixio-b"), Err(CardError::NoResult(_))));
        assert!(matches!(card(&records, "odd"), Err(CardError::NoResult(_))));
        insta::assert_snapshot!(card(&records, "pixio-h").unwrap_err(), @"no finished run has backbone `pixio-h`; there are: odd, pixio-b, random:pixio-b");
    }

    /// The hub's own reader finds every value.
    #[test]
    fn the_hubs_reader_takes_it() {
        let python = |script: &str, args: &[&str]| {
            Command::new("python3").arg("-c").arg(script).args(args).output()
        };
        if !python("import huggingface_hub, yaml", &[]).is_ok_and(|ran| ran.status.success()) {
            println!("skipped: python3 has no huggingface_hub");
            return;
        }
        let mut records = mixed_records();
        records.push(record(HOSTILE, 12.0));
        records.push(dense_record(HOSTILE, "nyuv2", "dpt", 1e-7));
        let last = records.len() - 2;
        records[last].plan.protocol.name = format!("pixio+{HOSTILE}");
        let script = r#"
import json, sys
from huggingface_hub import ModelCard
card = ModelCard(open(sys.argv[1], encoding="utf-8", newline="").read(), ignore_metadata_errors=False)
print(json.dumps([card.data.model_name, [
    [r.task_type, r.dataset_type, r.dataset_name, r.metric_type, r.metric_name, r.metric_value, r.metric_args["protocol"]]
    for r in card.data.eval_results]]))
"#;
        for name in ["pixio-b", HOSTILE] {
            let (card, _) = card(&records, name).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("README.md");
            std::fs::write(&file, &card).unwrap();
            let ran = python(script, &[file.to_str().unwrap()]).unwrap();
            assert!(ran.status.success(), "{}\n{card}", String::from_utf8_lossy(&ran.stderr));
            let found: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
            let values: Vec<f64> =
                found[1].as_array().unwrap().iter().map(|row| row[5].as_f64().unwrap()).collect();
            let mut expected: Vec<f64> = Vec::new();
            for record in records.iter().filter(|record| record.plan.backbone.name == name) {
                let asked = default_metrics(&record.plan);
                let shown = selection(record, None);
                let metrics = record.outcome.metrics.iter().filter(|m| m.selection == shown);
                let metrics = metrics.filter(|m| asked.is_empty() || asked.contains(&&*m.name));
                expected.extend(metrics.map(|metric| metric.value));
            }
            let sorted = |mut values: Vec<f64>| {
                values.sort_by(f64::total_cmp);
                values
            };
            assert_eq!(sorted(values), sorted(expected));
            let model = found[0].as_str().unwrap();
            assert!(name != "pixio-b" || model == name, "{model}");
        }
    }
}
