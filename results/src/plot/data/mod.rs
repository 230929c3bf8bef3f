//! From runs to figures: which numbers stand where. No place and no colour is decided here.

mod bars;
mod classes;
mod curves;
mod images;
mod pareto;
mod policies;
mod settings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schema::{Direction, MetricValue, RunRecord, Selection, Unit, describe};

use super::figure::Figure;
use super::{Kind, PlotError, PlotOptions, Run};
use crate::headline::{chosen_by, selection};
use crate::statistics::mean_sd;
use crate::table::SAMPLE;
use crate::text::{shown_backbone, shown_protocol};

/// How the line below the title of a panel on sample data begins.
const ON_SAMPLE: &str = "protocol sample";

/// How many series have a look of their own.
const LOOKS: usize = 40;

/// What a kind of plot shows of chosen runs.
pub(super) fn find(
    runs: &[Run<'_>],
    kind: Kind,
    options: &PlotOptions,
) -> Result<Figure, PlotError> {
    let mut figure = match kind {
        Kind::Bars => bars::find(runs, options),
        Kind::Blocks => settings::find(runs, options, Some("block")),
        Kind::Setting => settings::find(runs, options, options.x.as_deref()),
        Kind::Pareto => pareto::find(runs, options),
        Kind::Curves => curves::find(runs, options),
        Kind::Classes => classes::find(runs, options),
        Kind::Errors => images::errors(runs, options),
        Kind::Wins => images::wins(runs, options),
    }?;
    let texts = figure.texts();
    if texts.iter().any(|text| text.starts_with(ON_SAMPLE)) {
        figure.notes.insert(0, SAMPLE.to_owned());
    }
    if texts.iter().any(|text| text.contains("(untrained)")) {
        figure.notes.push("untrained: seeded random weights, a floor and not a result.".to_owned());
    }
    Ok(figure)
}

fn nothing(kind: Kind, why: impl Into<String>) -> PlotError {
    PlotError::Nothing { kind: kind.as_str(), why: why.into() }
}

/// Runs that can stand in one chart: of one task and metric, under one protocol, on the same data.
struct Group<'a> {
    task: String,
    protocol: String,
    /// First characters of the data's fingerprint, where another group differs in nothing else.
    data: Option<String>,
    metric: String,
    runs: Vec<Run<'a>>,
}

impl Group<'_> {
    /// What stands below a panel's title.
    fn below(&self) -> Vec<String> {
        let data = self.data.as_ref().map(|data| format!(", data {data}")).unwrap_or_default();
        vec![format!("protocol {}{data}", self.protocol)]
    }

    fn direction(&self) -> Direction {
        direction(&self.metric)
    }
}

/// Higher is better unless the metric says otherwise.
fn direction(metric: &str) -> Direction {
    describe(metric).map_or(Direction::Up, |metric| metric.direction)
}

/// The metric a run is told by, or the one asked for; none where it has none.
fn metric_of(record: &RunRecord, asked: Option<&str>) -> Option<String> {
    let metrics = &record.outcome.metrics;
    let wanted = asked.or(chosen_by(&record.plan));
    match wanted {
        Some(name) => metrics.iter().find(|metric| metric.name == name),
        None => metrics.first(),
    }
    .map(|metric| metric.name.clone())
}

/// Groups of runs; real data first. `by_head` keeps heads apart.
fn groups<'a>(runs: &[Run<'a>], metric: Option<&str>, by_head: bool) -> Vec<Group<'a>> {
    let mut found: BTreeMap<(bool, String, String, String, String), Vec<Run<'a>>> = BTreeMap::new();
    for run in runs {
        let plan = &run.record.plan;
        let Some(metric) = metric_of(run.record, metric) else { continue };
        let task = if by_head { plan.task.to_string() } else { plan.task.dataset.clone() };
        let data = plan.data.fingerprint.short().to_owned();
        let key = (plan.data.sample, task, shown_protocol(plan), metric, data);
        found.entry(key).or_default().push(*run);
    }
    let keys: Vec<_> = found.keys().cloned().collect();
    let alike = |key: &(bool, String, String, String, String)| {
        let (sample, task, protocol, metric, _) = key;
        let same = |other: &&(bool, String, String, String, String)| {
            (&other.0, &other.1, &other.2, &other.3) == (sample, task, protocol, metric)
        };
        keys.iter().filter(same).count() > 1
    };
    let group = |(key, runs): ((bool, String, String, String, String), Vec<Run<'a>>)| {
        let several = alike(&key);
        let (_, task, protocol, metric, data) = key;
        Group { task, protocol, data: several.then_some(data), metric, runs }
    };
    found.into_iter().map(group).collect()
}

/// A run's value of a metric, of the epoch that stands for the run.
fn value_of<'a>(record: &'a RunRecord, metric: &str, asked: Selection) -> Option<&'a MetricValue> {
    let selection = selection(record, Some(asked));
    record.outcome.metrics.iter().find(|m| m.name == metric && m.selection == selection)
}

/// Backbones by identity with the name each is shown by; two of one name also by their hash.
fn names<'a>(runs: impl IntoIterator<Item = &'a Run<'a>>) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for run in runs {
        let backbone = &run.record.plan.backbone;
        shown.entry(backbone.identity.0.clone()).or_insert_with(|| shown_backbone(backbone));
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    shown.values().for_each(|name| *seen.entry(name.clone()).or_default() += 1);
    for (identity, name) in &mut shown {
        if seen.get(name).is_some_and(|count| *count > 1) {
            let short: String = identity.chars().take(6).collect();
            *name = format!("{name} [{short}]");
        }
    }
    shown
}

/// A metric in words: name, unit, direction.
fn words(metric: &str) -> String {
    let Some(told) = describe(metric) else { return metric.to_owned() };
    let unit = match told.unit {
        Unit::Percent => " in %",
        Unit::Metres => " in m",
        Unit::None => "",
    };
    let better = match told.direction {
        Direction::Up => "higher is better",
        Direction::Down => "lower is better",
    };
    format!("{metric}{unit}, {better}")
}

/// Mean and, of two and more, standard deviation.
fn over_seeds(values: &[f64]) -> (f64, Option<f64>) {
    mean_sd(values).unwrap_or((f64::NAN, None))
}

/// Sorts the best first by a value; what has none or no number comes last.
fn best_first<T>(items: &mut [T], direction: Direction, value: impl Fn(&T) -> f64) {
    items.sort_by(|a, b| {
        let (a, b) = (value(a), value(b));
        let order = match direction {
            Direction::Up => b.partial_cmp(&a),
            Direction::Down => a.partial_cmp(&b),
        };
        order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    });
}

/// Names in the order of their looks.
#[derive(Default)]
struct Looks(Vec<String>);

impl Looks {
    fn of(&mut self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        })
    }

    fn legend(self) -> Vec<(usize, String)> {
        self.0.into_iter().enumerate().collect()
    }
}

/// The backbones that a figure with looks shows: all, or the best of each group in turn.
fn kept<'a>(
    groups: &[Group<'a>],
    options: &PlotOptions,
    notes: &mut Vec<String>,
) -> BTreeSet<String> {
    let most = options.most.unwrap_or(LOOKS).min(LOOKS);
    let ranked = groups.iter().map(|group| {
        let mut runs: Vec<&Run<'a>> = group.runs.iter().collect();
        best_first(&mut runs, group.direction(), |run| {
            value_of(run.record, &group.metric, Selection::Best).map_or(f64::NAN, |m| m.value)
        });
        runs.into_iter().map(|run| run.record.plan.backbone.identity.0.clone()).collect()
    });
    let mut ranked: Vec<VecDeque<String>> = ranked.collect();
    let all: BTreeSet<String> = ranked.iter().flatten().cloned().collect();
    let mut kept = BTreeSet::new();
    while kept.len() < most && ranked.iter().any(|group| !group.is_empty()) {
        for group in &mut ranked {
            if let Some(next) = group.pop_front().filter(|_| kept.len() < most) {
                kept.insert(next);
            }
        }
    }
    if all.len() > kept.len() {
        notes.push(format!("The best of each task: {} of {} backbones.", kept.len(), all.len()));
    }
    kept
}
