//! Backbones against each other on the same images, for `pixio-eval compare`.

mod show;
mod standings;

use std::collections::BTreeMap;
use std::path::Path;

use schema::{Direction, RunPlan, RunRecord, SampleRows, Selection, describe};
use serde::Serialize;

use crate::headline::{chosen_by, is_policy};
use crate::read_rows;
use crate::statistics::{Interval, Samples, fits, holm, paired};
use crate::store::{BEST, Listed, PREDICTIONS, Status};
use crate::text::{shown_backbone, shown_protocol};
use standings::{over_seeds, standings};

/// Level that a corrected p-value is held against.
const ALPHA: f64 = 0.05;

/// What is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompareOptions {
    /// Two or more backbones by their recorded name.
    pub backbones: Vec<String>,
    /// Data sets, or data sets with a head as `nyuv2/dpt`; empty for all.
    pub tasks: Vec<String>,
    /// The metric; none for each task's first: `top1@K` of the smallest k, rmse, mIoU, score.
    pub metric: Option<String>,
    /// The epoch compared, `last` or `best`; none for the best one where every run of a cell has its
    /// per-image rows. A run that has no epochs has only `last`. Of policies, the best is each one's own
    /// evaluation.
    pub selection: Option<Selection>,
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Fewer than two different backbones.
    #[error("compare takes two or more different backbones, found {0}")]
    TooFew(usize),
    /// No finished run of a backbone.
    #[error("no finished run has backbone `{wanted}`; there are: {}", known.join(", "))]
    UnknownBackbone {
        /// As asked for.
        wanted: String,
        /// What the runs have instead.
        known: Vec<String>,
    },
    /// No finished run of a task.
    #[error("no finished run has task `{wanted}`; there are: {}", known.join(", "))]
    UnknownTask {
        /// As asked for.
        wanted: String,
        /// What the runs have instead.
        known: Vec<String>,
    },
    /// The backbones have no task in common under one protocol, seed and data.
    #[error(
        "no two of these backbones have a run of the same task, protocol, seed and data{}",
        reasons(notes)
    )]
    NothingInCommon {
        /// Why runs were left out.
        notes: Vec<String>,
    },
}

fn reasons(notes: &[String]) -> String {
    notes.iter().map(|note| format!("\n  {note}")).collect()
}

/// What [`compare`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// One line a pair of backbones and task they share.
    pub pairs: Vec<PairLine>,
    /// One line a backbone, best average rank first.
    pub standings: Vec<Standing>,
    /// Pairs of one task and protocol over the seeds they share, where there are two or more.
    pub seeds: Vec<SeedLine>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Two backbones on the same images of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairLine {
    /// First backbone, as shown in tables.
    pub a: String,
    /// Second backbone.
    pub b: String,
    /// Data set and head.
    pub task: String,
    /// Protocol of both runs.
    pub protocol: String,
    /// Seed of both heads.
    pub seed: u64,
    /// The metric.
    pub metric: String,
    /// The epoch of both heads: `last` or `best`, `best-each` of policies.
    pub selection: &'static str,
    /// Images in both runs; of policies, episodes.
    pub images: usize,
    /// Value of the first.
    pub value_a: f64,
    /// Value of the second.
    pub value_b: f64,
    /// `value_a - value_b`.
    pub difference: f64,
    /// 95% interval of the difference over images.
    pub interval: Option<Interval>,
    /// Two-sided p-value of the paired permutation test.
    pub p: f64,
    /// The p-value after Holm's correction over the lines of this pair.
    pub p_holm: f64,
    /// Which backbone is better at a corrected p below 0.05: `a`, `b` or `tie`.
    pub better: &'static str,
}

/// One backbone among all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The backbone, as shown in tables.
    pub backbone: String,
    /// Lines it is better in.
    pub wins: usize,
    /// Lines without a significant difference.
    pub ties: usize,
    /// Lines it is worse in.
    pub losses: usize,
    /// Mean of its ranks over the tasks that every backbone has; equal values share a rank.
    pub average_rank: Option<f64>,
    /// Number of those tasks, each seed counted.
    pub ranked_in: usize,
}

/// Spread of a difference over seeds: of training again, not of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedLine {
    /// First backbone.
    pub a: String,
    /// Second backbone.
    pub b: String,
    /// Data set and head.
    pub task: String,
    /// Protocol.
    pub protocol: String,
    /// The metric.
    pub metric: String,
    /// Number of seeds.
    pub seeds: usize,
    /// Mean of the differences.
    pub mean: f64,
    /// Their standard deviation.
    pub sd: f64,
}

/// What two runs must share to be compared: task, protocol, seed and data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    task: String,
    protocol: String,
    seed: u64,
    data: String,
}

struct Run {
    record: RunRecord,
    last: Samples,
    /// Of the best epoch, where its rows are kept.
    best: Option<Samples>,
}

impl Run {
    fn samples(&self, selection: Selection) -> Option<&Samples> {
        match selection {
            Selection::Last => Some(&self.last),
            Selection::Best | Selection::BestEach => self.best.as_ref(),
        }
    }
}

/// One cell's runs by backbone, and the epoch they are compared at.
struct Runs {
    selection: Selection,
    by_name: BTreeMap<String, Run>,
}

/// Compares backbones pairwise on every task, protocol, seed and data they share. Runs that are not
/// finished, or whose per-image rows cannot be read, are left out and noted.
///
/// # Errors
/// [`CompareError`] when there is nothing to compare.
pub fn compare(listed: &[Listed], options: &CompareOptions) -> Result<Comparison, CompareError> {
    let mut names: Vec<String> = Vec::new();
    for name in &options.backbones {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if names.len() < 2 {
        return Err(CompareError::TooFew(names.len()));
    }
    let mut notes = Vec::new();
    let mut cells = cells(listed, &names, options, &mut notes)?;
    let mut pairs = Vec::new();
    for (first, a) in names.iter().enumerate() {
        for b in &names[first + 1..] {
            let from = pairs.len();
            for (cell, runs) in &cells {
                if let (Some(a), Some(b)) = (runs.by_name.get(a), runs.by_name.get(b)) {
                    pairs.extend(line(cell, [a, b], runs.selection, options, &mut notes));
                }
            }
            decide(&mut pairs[from..]);
        }
    }
    if pairs.is_empty() {
        return Err(CompareError::NothingInCommon { notes });
    }
    // Seeds of a task have the same to say.
    notes.dedup();
    cells.retain(|_, runs| names.iter().all(|name| runs.by_name.contains_key(name)));
    let standings = standings(&pairs, &names, &cells, options);
    Ok(Comparison { seeds: over_seeds(&pairs), pairs, standings, notes })
}

/// The runs to compare, by what they must share and by backbone.
fn cells(
    listed: &[Listed],
    names: &[String],
    options: &CompareOptions,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<Cell, Runs>, CompareError> {
    let finished = || {
        listed.iter().filter_map(|run| match &run.status {
            Status::Finished(record) => Some((run.folder.as_path(), record.as_ref())),
            _ => None,
        })
    };
    let known = |get: fn(&RunPlan) -> String| {
        let mut known: Vec<String> = finished().map(|(_, record)| get(&record.plan)).collect();
        known.sort();
        known.dedup();
        known
    };
    let unknown = |name: &&String| !finished().any(|(_, r)| r.plan.backbone.name == **name);
    if let Some(wanted) = names.iter().find(unknown) {
        let known = known(|plan| plan.backbone.name.clone());
        return Err(CompareError::UnknownBackbone { wanted: wanted.clone(), known });
    }
    let matches = |plan: &RunPlan, task: &String| {
        plan.task.dataset == *task || plan.task.to_string() == *task
    };
    let unknown = |task: &&String| !finished().any(|(_, record)| matches(&record.plan, task));
    if let Some(wanted) = options.tasks.iter().find(unknown) {
        let known = known(|plan| plan.task.to_string());
        return Err(CompareError::UnknownTask { wanted: wanted.clone(), known });
    }

    let mut chosen: BTreeMap<(Cell, &String), (&Path, &RunRecord)> = BTreeMap::new();
    for (folder, record) in finished() {
        let plan = &record.plan;
        let Some(name) = names.iter().find(|name| plan.backbone.name == **name) else { continue };
        if !options.tasks.is_empty() && !options.tasks.iter().any(|task| matches(plan, task)) {
            continue;
        }
        let cell = Cell {
            task: plan.task.to_string(),
            protocol: shown_protocol(plan),
            seed: plan.seed,
            data: plan.data.fingerprint.0.clone(),
        };
        match chosen.entry((cell, name)) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert((folder, record));
            }
            std::collections::btree_map::Entry::Occupied(mut taken) => {
                if record.outcome.finished > taken.get().1.outcome.finished {
                    taken.insert((folder, record));
                }
                notes.push(format!(
                    "{name} has several runs of {}, protocol {}, seed {}: the last finished counts",
                    plan.task,
                    shown_protocol(plan),
                    plan.seed
                ));
            }
        }
    }
    let mut cells: BTreeMap<Cell, BTreeMap<String, Run>> = BTreeMap::new();
    for ((cell, name), (folder, record)) in chosen {
        match read(folder, record, options) {
            Ok(run) => {
                cells.entry(cell).or_default().insert(name.clone(), run);
            }
            Err(problem) => notes.push(format!("left out: {problem}")),
        }
    }
    let settle = |(cell, by_name): (Cell, BTreeMap<String, Run>)| {
        let without = by_name.iter().find(|(_, run)| run.best.is_none());
        let selection = match without {
            None if by_name.values().any(|run| is_policy(&run.record.plan)) => Selection::BestEach,
            None => Selection::Best,
            Some((name, run)) => {
                let trained = chosen_by(&run.record.plan).is_some();
                if trained && by_name.len() > 1 && options.selection != Some(Selection::Last) {
                    notes.push(format!(
                        "{}: the last epoch is compared, as {name} has kept no per-image rows of its \
                         best epoch",
                        cell.task
                    ));
                }
                Selection::Last
            }
        };
        (cell, Runs { selection, by_name })
    };
    Ok(cells.into_iter().map(settle).collect())
}

/// A run with the rows that may be compared; those of the best epoch are there where they are
/// wanted and kept.
fn read(folder: &Path, record: &RunRecord, options: &CompareOptions) -> Result<Run, String> {
    let rows = |name: &str| read_rows(&folder.join(name)).map_err(|error| error.to_string());
    let wanted = options.selection != Some(Selection::Last);
    let last = rows(PREDICTIONS)?;
    let (best, selection) = match &last {
        SampleRows::Policy(_) if wanted => {
            (Some(Samples::at(&last, Selection::BestEach)), Selection::BestEach)
        }
        _ if wanted && folder.join(BEST).is_file() => {
            (Some(Samples::new(&rows(BEST)?)), Selection::Best)
        }
        _ => (None, Selection::Last),
    };
    let best = best.filter(|best| fits(&record.outcome.metrics, selection, best));
    Ok(Run { record: record.clone(), last: Samples::new(&last), best })
}

/// The metric two runs are compared by.
fn metric(run: &Run, options: &CompareOptions) -> Option<String> {
    let first = || chosen_by(&run.record.plan).or_else(|| run.last.metrics().next());
    options.metric.clone().or_else(|| first().map(str::to_owned))
}

fn line(
    cell: &Cell,
    [a, b]: [&Run; 2],
    selection: Selection,
    options: &CompareOptions,
    notes: &mut Vec<String>,
) -> Option<PairLine> {
    let metric = metric(a, options)?;
    let [name_a, name_b] = [a, b].map(|run| shown_backbone(&run.record.plan.backbone));
    let (first, second) = (a.samples(selection)?, b.samples(selection)?);
    let found = match paired(first, second, &metric) {
        Ok(found) => found,
        Err(error) => {
            notes.push(format!("{name_a} and {name_b} on {}: {error}", cell.task));
            return None;
        }
    };
    if found.images < 2 {
        notes.push(format!("{name_a} and {name_b} on {}: one image has no interval", cell.task));
    }
    Some(PairLine {
        a: name_a,
        b: name_b,
        task: cell.task.clone(),
        protocol: cell.protocol.clone(),
        seed: cell.seed,
        metric,
        selection: selection.as_str(),
        images: found.images,
        value_a: found.a,
        value_b: found.b,
        difference: found.a - found.b,
        interval: found.interval,
        p: found.p,
        p_holm: f64::NAN,
        better: "tie",
    })
}

fn direction(metric: &str) -> Direction {
    describe(metric).map_or(Direction::Up, |metric| metric.direction)
}

/// Corrects the p-values of one pair's lines and says who is better.
fn decide(lines: &mut [PairLine]) {
    let corrected = holm(&lines.iter().map(|line| line.p).collect::<Vec<_>>());
    for (line, p_holm) in lines.iter_mut().zip(corrected) {
        line.p_holm = p_holm;
        let up = direction(&line.metric) == Direction::Up;
        line.better = match line.p_holm < ALPHA && line.difference != 0.0 {
            false => "tie",
            true if (line.difference > 0.0) == up => "a",
            true => "b",
        };
    }
}

#[cfg(test)]
mod tests;
