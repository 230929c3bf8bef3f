//! What a dry run says: whether everything is there, what fits, and how the work is shared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use schema::Stages;
use serde::Serialize;
use tasks::data::Registry;

use super::SweepError;
use super::plan::{costs, schedule};
use super::schedule::{DeviceCost, Names, describe};
use crate::locate;
use crate::registry;
use crate::run::{Outline, Outlines, Request, RunError};

/// A run of a dry run, for programs.
#[derive(Debug, Serialize)]
pub struct DryCell {
    /// The command that runs it alone, but for where things are.
    pub command: Vec<String>,
    /// Data set and head.
    pub task: String,
    /// Backbone.
    pub backbone: String,
    /// Its protocol.
    pub protocol: String,
    /// The run's key.
    pub key: String,
    /// Runs of one stream share the encoder's passes.
    pub stream: String,
    /// Whether it is done already.
    pub done: bool,
    /// Estimated seconds of the encoder, which the runs of a stream share, and of the head.
    pub seconds: [f64; 2],
}

/// Every run that a request comes to.
pub fn cells(request: &Request, outlines: &Outlines) -> Vec<DryCell> {
    let cell = |run: &Outline| {
        let cell = request.cells[run.cell].clone().normalised();
        DryCell {
            command: cell.arguments(),
            task: run.plan.task.to_string(),
            backbone: run.plan.backbone.name.clone(),
            protocol: run.plan.protocol.name.clone(),
            key: run.plan.key().0,
            stream: run.stream.short().to_owned(),
            done: run.finished,
            seconds: [run.encode_seconds, run.head_seconds],
        }
    };
    outlines.runs.iter().map(cell).collect()
}

/// What was found, in words.
pub struct Preflight {
    /// For stdout.
    pub text: String,
    /// What keeps the work from starting.
    pub missing: Vec<String>,
}

/// Looks at everything a request needs.
pub fn preflight(
    request: &Request,
    outlines: &Outlines,
    devices: &[String],
) -> Result<Preflight, SweepError> {
    let (mut text, mut missing) = (String::new(), Vec::new());
    let done = outlines.runs.iter().filter(|run| run.finished).count();
    let _ = writeln!(text, "runs: {} ({done} done before)", outlines.runs.len());
    data(request, outlines, &mut text, &mut missing)?;
    backbones(outlines, &mut text);
    blocks(outlines, &mut text);
    disk(request, outlines, &mut text);
    let costs_of = vec![DeviceCost { speed: 1.0, memory: outlines.memory }; devices.len()];
    if done < outlines.runs.len() {
        let (plan, _, names) = schedule(outlines, &costs_of)?;
        let passes = costs(outlines, devices.len()).0.len();
        let measured = match outlines.rates.measured() {
            true => "measured on this device",
            false => "guessed from sizes",
        };
        let giga = |bytes: u64| bytes as f64 / 1e9;
        let largest = plan.units.iter().map(|unit| unit.memory).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "\n{passes} streams; times are {measured}; memory of the largest unit: about {:.1} GB\n",
            giga(largest)
        );
        text.push_str(&describe(&plan, &Names { streams: &names, devices }));
    }
    Ok(Preflight { text, missing })
}

fn data(
    request: &Request,
    outlines: &Outlines,
    text: &mut String,
    missing: &mut Vec<String>,
) -> Result<(), SweepError> {
    let registry = Registry::builtin().map_err(RunError::from)?;
    let names: BTreeSet<&String> = request.cells.iter().map(|cell| &cell.task.dataset).collect();
    text.push_str("\ndata\n");
    for name in names {
        let licence = registry.get(name).map_or("", |dataset| dataset.licence.as_str());
        let known = outlines.runs.iter().find(|run| run.plan.data.name == *name);
        let Some(run) = known else {
            let folder = locate::dataset(name, &request.data);
            let line = match folder.is_dir() || request.sample {
                true => format!("  {name}: cannot be run here (see above)"),
                false => format!("  {name}: NOT THERE, expected at {}", folder.display()),
            };
            text.push_str(&line);
            text.push('\n');
            missing.push(name.clone());
            continue;
        };
        let splits = run.plan.data.splits.iter().map(|(split, record)| match record.published {
            Some(published) if published != record.found => {
                format!("{split} {} (published: {published})", record.found)
            }
            _ => format!("{split} {}", record.found),
        });
        let splits: Vec<String> = splits.collect();
        let _ = writeln!(text, "  {name}: {}; {licence}", splits.join(", "));
    }
    Ok(())
}

fn backbones(outlines: &Outlines, text: &mut String) {
    if !outlines.runs.is_empty() {
        text.push_str("\nbackbones, found and checked\n");
    }
    let mut known = BTreeSet::new();
    for run in &outlines.runs {
        let backbone = &run.plan.backbone;
        if known.insert((backbone.name.clone(), backbone.identity.0.clone())) {
            let millions = backbone.parameters as f64 / 1e6;
            let untrained = if backbone.trained { "" } else { ", untrained" };
            let entry = registry::builtin().ok().and_then(|all| all.backbones.get(&backbone.name));
            let licence = entry.and_then(|entry| {
                let gate = if entry.gated { ", gated (access granted)" } else { "" };
                Some(format!("; {}{gate}", entry.licence.as_deref()?))
            });
            let _ = writeln!(
                text,
                "  {}: {millions:.1}M parameters, {} blocks, from {}{untrained}{}",
                backbone.name,
                backbone.blocks,
                backbone.source,
                licence.unwrap_or_default()
            );
        }
    }
}

/// What the heads read, where cells differ in it: 1 is the first block.
fn blocks(outlines: &Outlines, text: &mut String) {
    let mut read: BTreeMap<(String, String), BTreeSet<Vec<usize>>> = BTreeMap::new();
    for run in &outlines.runs {
        let blocks = match &run.plan.protocol.stages {
            Stages::Dense(dense) => dense.feature.blocks.clone(),
            Stages::Knn(knn) => vec![knn.feature.block],
            Stages::Policy(policy) => vec![policy.feature.block],
        };
        let key = (run.plan.backbone.name.clone(), run.plan.task.head.clone());
        read.entry(key).or_default().insert(blocks.iter().map(|block| block + 1).collect());
    }
    if read.values().all(|kinds| kinds.len() < 2) {
        return;
    }
    text.push_str("\nblocks read, counted from 1\n");
    for ((backbone, head), kinds) in read {
        let mut kinds: Vec<Vec<usize>> = kinds.into_iter().collect();
        kinds.sort_by_key(|blocks| blocks.last().copied());
        let kinds: Vec<String> = kinds
            .into_iter()
            .map(|blocks| {
                let all = blocks.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
                match blocks.as_slice() {
                    [_] => all,
                    [.., deepest] => format!("block {deepest} = {all}"),
                    [] => all,
                }
            })
            .collect();
        let _ = writeln!(text, "  {backbone} {head}: {}", kinds.join("; "));
    }
}

fn disk(request: &Request, outlines: &Outlines, text: &mut String) {
    let giga = |bytes: u64| bytes as f64 / 1e9;
    let (mut features, mut heads) = (0, 0);
    let mut banks = BTreeSet::new();
    for run in outlines.runs.iter().filter(|run| !run.finished) {
        match &run.plan.protocol.stages {
            Stages::Knn(knn) => {
                let bank = schema::fingerprint(&(&run.stream, &knn.feature));
                features += if banks.insert(bank.0) { run.features } else { 0 };
            }
            // The head at its last and best epoch, and two checkpoints of three times its size.
            Stages::Dense(_) => heads += run.memory.1,
            Stages::Policy(_) => {}
        }
    }
    let room = |folder: &Path| match locate::free(folder) {
        Some(bytes) => format!("{:.1} GB free", giga(bytes)),
        None => "free space unknown".to_owned(),
    };
    let cache = locate::cache();
    let _ = writeln!(
        text,
        "\ndisk\n  {}: about {:.1} GB of features, and at most {:.1} GB of validation windows; {}\n  {}: about \
         {:.1} GB of heads and checkpoints; {}",
        cache.display(),
        giga(features),
        giga(request.kept_bytes),
        room(&cache),
        request.out.display(),
        giga(heads),
        room(&request.out),
    );
}
