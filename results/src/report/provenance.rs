//! Where every number comes from: what a run's details show, as the page's data. What many runs share
//! (protocol, backbone, data set, machine) is written once.

use std::collections::HashMap;

use schema::{EpochRecord, RunRecord};
use serde_json::{Map, Value, json};

use crate::headline::chosen_by;
use crate::plot::Run;
use crate::text::{shown_backbone, shown_protocol, shown_value};

/// Above this many runs the IoU of single classes is left to `table --format csv` and `plot classes`.
const EVERY_METRIC: usize = 200;

/// Things that several runs share, by what tells them apart.
#[derive(Default)]
struct Shared {
    places: HashMap<String, usize>,
    values: Vec<Value>,
}

impl Shared {
    fn place(&mut self, key: String, value: impl FnOnce() -> Value) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        self.values.push(value());
        self.places.insert(key, self.values.len() - 1);
        self.values.len() - 1
    }
}

/// The data of the page, as JSON: `runs` in the order of the tables' rows.
pub(super) fn data(runs: &[Run<'_>]) -> Result<String, serde_json::Error> {
    let [mut protocols, mut backbones, mut data, mut hosts] = [(); 4].map(|()| Shared::default());
    let mut told = Vec::new();
    for run in runs {
        let (plan, outcome) = (&run.record.plan, &run.record.outcome);
        let protocol = serde_json::to_value(&plan.protocol)?;
        let p = protocols.place(serde_json::to_string(&protocol)?, || protocol);
        let b = backbones.place(serde_json::to_string(&plan.backbone)?, || backbone(run.record));
        let d = data.place(serde_json::to_string(&plan.data)?, || dataset(run.record));
        let h = hosts.place(serde_json::to_string(&outcome.host)?, || host(run.record));
        let seconds: Map<String, Value> =
            outcome.seconds.iter().map(|(name, s)| (name.clone(), json!(rounded(*s)))).collect();
        told.push(json!({
            "backbone": shown_backbone(&plan.backbone),
            "dataset": plan.task.dataset,
            "head": plan.task.head,
            "protocol": shown_protocol(plan),
            "fingerprint": plan.protocol_fingerprint.0,
            "key": plan.key().0,
            "seed": plan.seed.to_string(),
            "p": p, "b": b, "d": d, "h": h,
            "started": outcome.started,
            "finished": outcome.finished,
            "seconds": seconds,
            "counts": outcome.counts,
            "speed": outcome.images_per_second.map(rounded),
            "batch": plan.micro_batch,
            "folder": run.folder.display().to_string(),
            "head_weights": plan.head_weights.as_ref().map(|hash| hash.0.clone()),
            "warnings": outcome.warnings,
            "skipped": outcome.skipped_images.join(", "),
            "metrics": metrics(run.record, runs.len() <= EVERY_METRIC),
            "curve": curve(run.record),
        }));
    }
    serde_json::to_string(&json!({
        "runs": told,
        "protocols": protocols.values,
        "backbones": backbones.values,
        "data": data.values,
        "hosts": hosts.values,
    }))
}

fn backbone(record: &RunRecord) -> Value {
    let backbone = &record.plan.backbone;
    let versions = backbone.versions.iter().map(|(name, version)| format!("{name} {version}"));
    let versions: Vec<String> = versions.collect();
    json!({
        "backbone source": backbone.source,
        "backbone family": backbone.family,
        "backbone weights": backbone.identity.0,
        "backbone revision": backbone.revision.as_deref().unwrap_or("none"),
        "trained": if backbone.trained { "yes" } else { "no: seeded random weights" },
        "parameters": backbone.parameters.to_string(),
        "blocks and width": format!("{}, {}", backbone.blocks, backbone.width),
        "positions": backbone.positions,
        "Python libraries": versions.join(", "),
    })
}

fn dataset(record: &RunRecord) -> Value {
    let data = &record.plan.data;
    let splits = data.splits.iter().map(|(name, split)| {
        let published = split.published.map(|n| format!(" (published {n})")).unwrap_or_default();
        let list = split.list.as_ref().map(|list| {
            let sha = list.sha256.as_deref().map(|sha| format!(" {sha}")).unwrap_or_default();
            let kind = serde_json::to_value(list.kind).unwrap_or_default();
            format!(", list: {}{sha}", kind.as_str().unwrap_or_default())
        });
        format!("{name} {}{published}{}", split.found, list.unwrap_or_default())
    });
    json!({
        "data set": data.name,
        "data": if data.sample { "generated sample data" } else { "real" },
        "data folder": data.root,
        "data fingerprint": data.fingerprint.0,
        "splits": splits.collect::<Vec<_>>().join("; "),
        "classes": data.classes.to_string(),
        "labels": data.labels.as_deref().unwrap_or("as they are"),
    })
}

fn host(record: &RunRecord) -> Value {
    let host = &record.outcome.host;
    json!({
        "version": format!("{} ({})", host.version, host.commit),
        "device": host.device,
        "processor and threads": format!("{}, {}", host.cpu, host.threads),
    })
}

/// Name, epoch, value and ends of the interval, as shown.
fn metrics(record: &RunRecord, every: bool) -> Value {
    let shown = record.outcome.metrics.iter().filter(|m| every || !m.name.contains('/'));
    let told = shown.map(|metric| {
        let text = |value| shown_value(&metric.name, value);
        json!([
            metric.name,
            metric.selection.as_str(),
            text(metric.value),
            metric.ci_low.map(text),
            metric.ci_high.map(text)
        ])
    });
    Value::Array(told.collect())
}

/// Loss and the metric that chooses the epoch.
fn curve(record: &RunRecord) -> Value {
    let curve = &record.outcome.curve;
    if curve.is_empty() {
        return Value::Null;
    }
    let line = |name: &str, get: &dyn Fn(&EpochRecord) -> Option<f64>| {
        let values: Vec<Option<f64>> = curve.iter().map(|e| get(e).map(rounded)).collect();
        json!([name, values])
    };
    let mut lines = vec![line("training loss", &|epoch| epoch.loss)];
    if let Some(metric) = chosen_by(&record.plan) {
        lines.push(line(metric, &|epoch| epoch.metrics.get(metric).copied()));
    }
    json!({ "epochs": curve.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), "lines": lines })
}

/// Five digits: what a picture and a reader need.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}
