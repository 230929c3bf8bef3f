//! A metric against what a sweep varied.

use std::collections::{BTreeMap, BTreeSet};

use schema::{RunRecord, Selection};
use serde_json::Value as Json;

use super::{LOOKS, Looks, metric_of, names, nothing, over_seeds, value_of, words};
use crate::plot::axis::{Scale, plain};
use crate::plot::figure::{Figure, Key, Panel};
use crate::plot::matrix::Matrix;
use crate::plot::xy::{Series, Xy};
use crate::plot::{Kind, PlotError, PlotOptions, Run};

/// The settings of a run by their path in its protocol, for example `training.learning_rate`.
type Settings = BTreeMap<String, String>;

/// The setting that stands for `feature.block` and `feature.blocks`: the deepest tapped block, the
/// first being 1.
const BLOCK: &str = "block";
/// The setting that is no setting of a run but in the names of its metrics.
const K: &str = "k";

/// A metric's values at one place of a line or map, over seeds.
type Places = BTreeMap<(Level, Level), Vec<f64>>;

/// A value of a setting, in order: numbers first.
#[derive(Clone, Debug, PartialEq)]
enum Level {
    Number(f64),
    Word(String),
}

impl Eq for Level {}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Word(a), Self::Word(b)) => a.cmp(b),
            (Self::Number(_), Self::Word(_)) => std::cmp::Ordering::Less,
            (Self::Word(_), Self::Number(_)) => std::cmp::Ordering::Greater,
        }
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Level {
    fn new(text: &str) -> Self {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Self::Number(number),
            _ => Self::Word(text.to_owned()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Number(number) => plain(*number),
            Self::Word(word) => word.clone(),
        }
    }
}

/// One panel a task (line) or a backbone and task (heat map).
pub(super) fn find(
    runs: &[Run<'_>],
    options: &PlotOptions,
    x: Option<&str>,
) -> Result<Figure, PlotError> {
    let kind = if x == Some(BLOCK) && options.x.is_none() { Kind::Blocks } else { Kind::Setting };
    let told: Vec<(Run<'_>, Settings)> =
        runs.iter().map(|run| (*run, settings(run.record))).collect();
    let known = varied(&told);
    let (x, y) = match (x, options.y.as_deref(), known.as_slice()) {
        (Some(x), y, _) => (x, y),
        (None, None, [one]) => (one.as_str(), None),
        (None, None, [one, two]) => (one.as_str(), Some(two.as_str())),
        _ => return Err(PlotError::WhichSetting { known }),
    };
    let [x, y] = [Some(x), y].map(|wanted| wanted.map(|wanted| path(&told, wanted, &known)));
    let (Some(x), y) = (x.transpose()?, y.transpose()?) else {
        return Err(PlotError::WhichSetting { known });
    };

    // Lines: runs that are alike but for the axes and the seed.
    let mut lines = Lines::new();
    for (run, settings) in &told {
        let plan = &run.record.plan;
        let mut rest = settings.clone();
        let at = |rest: &mut Settings, name: &str| rest.remove(name).map(|text| Level::new(&text));
        let second = match &y {
            Some(y) => at(&mut rest, y),
            None => Some(Level::Number(0.0)),
        };
        let first = if x == K { Some(Level::Number(0.0)) } else { at(&mut rest, &x) };
        rest.remove("seed");
        let (Some(first), Some(second)) = (first, second) else { continue };
        for (name, first, value) in values(run.record, &x, first, options.metric.as_deref()) {
            let data = plan.data.fingerprint.short().to_owned();
            let panel = (plan.data.sample, plan.task.to_string(), name, data);
            let line = (plan.backbone.identity.0.clone(), rest.clone());
            let places = lines.entry(panel).or_default().entry(line).or_default();
            places.entry((first, second.clone())).or_default().push(value);
        }
    }
    // One place is no line, and different backbones' own places make none.
    let alone: Option<String> = lines
        .values()
        .flat_map(BTreeMap::values)
        .find_map(|places| places.keys().next().map(|(first, _)| first.text()));
    let all = lines.values().map(BTreeMap::len).sum::<usize>();
    for by_line in lines.values_mut() {
        by_line.retain(|_, places| places.len() > 1);
    }
    lines.retain(|_, by_line| !by_line.is_empty());
    let kept = lines.values().map(BTreeMap::len).sum::<usize>();
    if let Some(value) = alone.filter(|_| kept == 0) {
        return Err(PlotError::OnePoint { setting: x, value });
    }
    let places = || lines.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys);
    let levels: [BTreeSet<Level>; 2] = [
        places().map(|(first, _)| first.clone()).collect(),
        places().map(|(_, second)| second.clone()).collect(),
    ];
    let [first, second] = &levels;
    for (setting, levels) in [(&x, first)].into_iter().chain(y.iter().map(|y| (y, second))) {
        match levels.first() {
            None => return Err(nothing(kind, "no chosen run has the metric and the setting")),
            Some(value) if levels.len() == 1 => {
                return Err(PlotError::OnePoint { setting: setting.clone(), value: value.text() });
            }
            Some(_) => {}
        }
    }
    let names = names(runs);
    let mut figure = match y {
        Some(y) => maps(&lines, &names, [&x, &y], &levels),
        None => drawn(&lines, &names, &x, first),
    };
    if kept < all {
        figure.notes.push(format!("{} lines of one point are left out.", all - kept));
    }
    Ok(figure)
}

/// The whole path of a setting: as given, or the one path that ends so.
fn path(told: &[(Run<'_>, Settings)], wanted: &str, known: &[String]) -> Result<String, PlotError> {
    let has_k = || {
        told.iter().any(|(run, _)| run.record.outcome.metrics.iter().any(|m| m.name.contains('@')))
    };
    if wanted == K && has_k() {
        return Ok(K.to_owned());
    }
    let paths: BTreeSet<&String> = told.iter().flat_map(|(_, settings)| settings.keys()).collect();
    let ends = |path: &&&String| path.rsplit('.').next() == Some(wanted);
    let mut found = paths.iter().filter(ends);
    match (paths.iter().find(|path| **path == wanted), found.next(), found.next()) {
        (Some(path), ..) => Ok((**path).clone()),
        (None, Some(path), None) => Ok((**path).clone()),
        _ => Err(PlotError::UnknownSetting { wanted: wanted.to_owned(), known: known.to_vec() }),
    }
}

/// Names, places and values of a run's metrics on the axis `x`.
fn values(
    record: &RunRecord,
    x: &str,
    at: Level,
    asked: Option<&str>,
) -> Vec<(String, Level, f64)> {
    let Some(metric) = metric_of(record, asked) else { return Vec::new() };
    if x != K {
        let value = value_of(record, &metric, Selection::Best).map(|metric| metric.value);
        return value.map(|value| (metric, at, value)).into_iter().collect();
    }
    let base = metric.split('@').next().unwrap_or_default();
    let at_k = record.outcome.metrics.iter().filter_map(|metric| {
        let (name, k) = metric.name.split_once('@').filter(|(name, _)| *name == base)?;
        Some((format!("{name}@k"), Level::Number(k.parse().ok()?), metric.value))
    });
    at_k.collect()
}

/// Everything of a protocol that has a value, and the seed.
fn settings(record: &RunRecord) -> Settings {
    fn walk(path: &str, value: &Json, found: &mut Settings) {
        match value {
            Json::Object(fields) => {
                for (name, value) in fields {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, value, found);
                }
            }
            Json::String(text) => {
                found.insert(path.to_owned(), text.clone());
            }
            Json::Null => {}
            value => {
                found.insert(path.to_owned(), value.to_string());
            }
        }
    }
    let mut found = Settings::new();
    let stages = serde_json::to_value(&record.plan.protocol.stages).unwrap_or_default();
    walk("", &stages, &mut found);
    found.insert("seed".to_owned(), record.plan.seed.to_string());
    let feature = stages.get("feature");
    let blocks = feature.and_then(|feature| feature.get("blocks"));
    let deepest = match blocks.and_then(Json::as_array) {
        Some(blocks) => blocks.iter().filter_map(Json::as_u64).max(),
        None => feature.and_then(|feature| feature.get("block")).and_then(Json::as_u64),
    };
    if let Some(deepest) = deepest {
        found.remove("feature.block");
        found.remove("feature.blocks");
        found.insert(BLOCK.to_owned(), (deepest + 1).to_string());
    }
    found
}

/// Settings with more than one value among the runs of one backbone, task and data set.
fn varied(told: &[(Run<'_>, Settings)]) -> Vec<String> {
    let mut seen: BTreeMap<(String, &str, &str), Settings> = BTreeMap::new();
    let mut varied = BTreeSet::new();
    for (run, settings) in told {
        let plan = &run.record.plan;
        let key = (
            plan.task.to_string(),
            plan.backbone.identity.0.as_str(),
            plan.data.fingerprint.0.as_str(),
        );
        let first = seen.entry(key).or_insert_with(|| settings.clone());
        for name in first.keys().chain(settings.keys()) {
            if first.get(name) != settings.get(name) {
                varied.insert(name.clone());
            }
        }
    }
    varied.into_iter().collect()
}

/// What distinguishes lines beside their backbones: settings that are not the same for all.
fn differing<'a>(all: impl Iterator<Item = &'a Settings> + Clone) -> Vec<String> {
    let names: BTreeSet<&String> = all.clone().flat_map(BTreeMap::keys).collect();
    let differs = |name: &&&String| {
        let values: BTreeSet<Option<&String>> = all.clone().map(|s| s.get(**name)).collect();
        values.len() > 1
    };
    names.iter().filter(differs).map(|name| (*name).clone()).collect()
}

fn told(settings: &Settings, differing: &[String]) -> String {
    let told = differing.iter().filter_map(|name| {
        let value = settings.get(name)?;
        Some(format!(", {} {value}", name.rsplit('.').next().unwrap_or(name)))
    });
    told.collect()
}

/// By panel (sample data, task, metric, data), then by backbone and everything else.
type Lines = BTreeMap<(bool, String, String, String), BTreeMap<(String, Settings), Places>>;

fn drawn(
    lines: &Lines,
    names: &BTreeMap<String, String>,
    x: &str,
    levels: &BTreeSet<Level>,
) -> Figure {
    let words_only: Vec<String> = levels.iter().map(Level::text).collect();
    let numbers: Option<Vec<f64>> = levels
        .iter()
        .map(|level| match level {
            Level::Number(number) => Some(*number),
            Level::Word(_) => None,
        })
        .collect();
    let place = |level: &Level| match (&numbers, level) {
        (Some(_), Level::Number(number)) => *number,
        _ => levels.iter().position(|known| known == level).unwrap_or(0) as f64,
    };
    let mut looks = Looks::default();
    let mut left_out = 0;
    let panels = lines.iter().map(|((sample, task, metric, _), by_line)| {
        let differing = differing(by_line.keys().map(|(_, settings)| settings));
        let mut series = Vec::new();
        for ((identity, settings), places) in by_line {
            let name =
                names.get(identity).cloned().unwrap_or_default() + &told(settings, &differing);
            let look = looks.of(&name);
            if look >= LOOKS {
                left_out += 1;
                continue;
            }
            let points =
                places.iter().map(|((first, _), values)| (place(first), over_seeds(values).0));
            let points = points.collect();
            series.push(Series { look, points, joined: true, marked: Some(false), name: None });
        }
        let points = || series.iter().flat_map(|line: &Series| &line.points);
        Panel::Xy(Xy {
            title: format!("{task}: {}", words(&metric.replace("@k", "@1")).replace("@1", "@k")),
            below: if *sample { vec![super::ON_SAMPLE.to_owned()] } else { Vec::new() },
            x_name: match x {
                BLOCK => "deepest tapped block (1 is the first)".to_owned(),
                x => x.to_owned(),
            },
            x: match &numbers {
                Some(numbers) if x == BLOCK => Scale::around(numbers.iter().copied()),
                Some(numbers) => Scale::spread(numbers.iter().copied()),
                None => Scale::Names(words_only.clone()),
            },
            y: Scale::around(points().map(|(_, y)| *y)),
            number: plain,
            x_ticks: numbers.clone().filter(|numbers| numbers.len() <= 12).unwrap_or_default(),
            series,
            bands: Vec::new(),
            bars: Vec::new(),
            rule: None,
            front: Vec::new(),
            flat: 1.0,
        })
    });
    let panels = panels.collect();
    let mut legend = looks.legend();
    legend.truncate(LOOKS);
    let mut notes = vec!["Several seeds: their mean.".to_owned()];
    if left_out > 0 {
        notes.push(format!("{left_out} lines more than {LOOKS} are left out."));
    }
    Figure {
        title: format!("Results against {x}"),
        panels,
        columns: 2,
        legend,
        key: Key::Line,
        notes,
    }
}

fn maps(
    lines: &Lines,
    names: &BTreeMap<String, String>,
    [x, y]: [&str; 2],
    [first, second]: &[BTreeSet<Level>; 2],
) -> Figure {
    let mut panels = Vec::new();
    for ((sample, task, metric, _), by_line) in lines {
        let differing = differing(by_line.keys().map(|(_, settings)| settings));
        for ((identity, settings), places) in by_line {
            let at = |row: &Level, column: &Level| {
                places.get(&(column.clone(), row.clone())).map(|values| over_seeds(values).0)
            };
            let cells: Vec<Vec<Option<f64>>> = second
                .iter()
                .map(|row| first.iter().map(|column| at(row, column)).collect())
                .collect();
            let values = || cells.iter().flatten().flatten().copied().filter(|v| v.is_finite());
            let ends = (
                values().fold(f64::INFINITY, f64::min),
                values().fold(f64::NEG_INFINITY, f64::max),
            );
            let name = names.get(identity).cloned().unwrap_or_default();
            panels.push(Panel::Matrix(Matrix {
                title: format!("{task}: {}", words(metric)),
                below: [
                    format!("{name}{}", told(settings, &differing)),
                    format!("rows: {y}; columns: {x}"),
                ]
                .into_iter()
                .chain(sample.then(|| super::ON_SAMPLE.to_owned()))
                .collect(),
                rows: second.iter().map(Level::text).collect(),
                columns: first.iter().map(Level::text).collect(),
                cells,
                ends: if ends.0 <= ends.1 { ends } else { (0.0, 1.0) },
                number: if ends.1 < 10.0 {
                    |value| format!("{value:.3}")
                } else {
                    |value| format!("{value:.2}")
                },
            }));
        }
    }
    Figure {
        title: format!("Results against {x} and {y}"),
        panels,
        columns: 2,
        legend: Vec::new(),
        key: Key::Line,
        notes: vec!["Several seeds: their mean.".to_owned()],
    }
}
