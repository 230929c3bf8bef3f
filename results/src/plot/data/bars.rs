use std::collections::BTreeMap;

use schema::Selection;

use super::{Group, best_first, groups, names, nothing, over_seeds, value_of, words};
use crate::headline::is_policy;
use crate::plot::axis::Scale;
use crate::plot::figure::{Figure, Key, Panel};
use crate::plot::rows::{Row, Rows, Value};
use crate::plot::{Kind, PlotError, PlotOptions, Run};
use crate::text::shown_value;

/// One panel a data set, protocol and metric; a row a backbone, a bar a head. Values of the best
/// epoch, all of one head's metrics of the same: its per-image rows are kept, and so it has intervals.
pub(super) fn find(runs: &[Run<'_>], options: &PlotOptions) -> Result<Figure, PlotError> {
    let groups = groups(runs, options.metric.as_deref(), false);
    let mut heads: Vec<String> = runs.iter().map(|run| run.record.plan.task.head.clone()).collect();
    // k-NN, linear, DPT: what is trained least comes first.
    heads.sort_by_key(|head| {
        (["knn", "linear", "dpt"].iter().position(|h| h == head).unwrap_or(3), head.clone())
    });
    heads.dedup();
    let mut notes = Vec::new();
    let panels: Vec<Panel> =
        groups.iter().filter_map(|group| panel(group, &heads, options, &mut notes)).collect();
    if panels.is_empty() {
        return Err(nothing(Kind::Bars, "no chosen run has a metric of its best epoch"));
    }
    notes.insert(0, whiskers(&groups));
    Ok(Figure {
        title: "Results by backbone, with intervals".to_owned(),
        panels,
        columns: 2,
        legend: if heads.len() > 1 { heads.into_iter().enumerate().collect() } else { Vec::new() },
        key: Key::Bar,
        notes,
    })
}

fn whiskers(groups: &[Group<'_>]) -> String {
    let metrics =
        || groups.iter().flat_map(|g| g.runs.iter().flat_map(|run| &run.record.outcome.metrics));
    let trained =
        groups.iter().flat_map(|g| &g.runs).any(|run| !run.record.outcome.curve.is_empty());
    let epoch = if trained { "Best epoch. " } else { "" };
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let policies = runs().filter(|run| is_policy(&run.record.plan)).count();
    let over = match policies {
        0 => "images",
        all if all == runs().count() => "episodes",
        _ => "images (of policies: episodes)",
    };
    match metrics().any(|metric| metric.ci_low.is_some()) {
        true => format!(
            "{epoch}Whiskers: 95% interval over {over}; of several seeds, mean and standard deviation."
        ),
        false => format!(
            "{epoch}These runs recorded no intervals over {over}; whiskers of several seeds are standard deviations."
        ),
    }
}

fn panel(
    group: &Group<'_>,
    heads: &[String],
    options: &PlotOptions,
    notes: &mut Vec<String>,
) -> Option<Panel> {
    let names = names(&group.runs);
    // By backbone, then by head: values and intervals of every seed.
    type Seeds = Vec<(f64, Option<(f64, f64)>)>;
    let mut found: BTreeMap<&str, BTreeMap<usize, Seeds>> = BTreeMap::new();
    for run in &group.runs {
        let plan = &run.record.plan;
        // What is not trained has no best epoch.
        let at = |selection| value_of(run.record, &group.metric, selection);
        let Some(metric) = at(Selection::Best).or_else(|| at(Selection::Last)) else { continue };
        let Some(head) = heads.iter().position(|head| *head == plan.task.head) else { continue };
        let seeds = found.entry(&plan.backbone.identity.0).or_default().entry(head).or_default();
        seeds.push((metric.value, metric.ci_low.zip(metric.ci_high)));
    }
    let mut rows: Vec<Row> = found
        .into_iter()
        .map(|(identity, by_head)| Row {
            name: names.get(identity).cloned().unwrap_or_default(),
            values: by_head.into_iter().map(|(head, seeds)| value(group, head, &seeds)).collect(),
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let direction = group.direction();
    best_first(&mut rows, direction, |row| {
        let mut values: Vec<f64> = row.values.iter().map(|value| value.value).collect();
        best_first(&mut values, direction, |value| *value);
        values.first().copied().unwrap_or(f64::NAN)
    });
    if let Some(most) = options.most.filter(|most| *most < rows.len()) {
        notes.push(format!("{}: the best {most} of {} backbones.", group.task, rows.len()));
        rows.truncate(most);
    }
    let values = rows.iter().flat_map(|row| &row.values);
    let ends = values.flat_map(|v| {
        [Some(v.value), v.ends.map(|(low, _)| low), v.ends.map(|(_, high)| high)]
            .into_iter()
            .flatten()
    });
    let scale = Scale::from_zero(ends);
    let title = format!("{}: {}", group.task, words(&group.metric));
    (!rows.is_empty())
        .then(|| Panel::Rows(Rows { title, below: group.below(), scale, rows, dots: false }))
}

fn value(group: &Group<'_>, look: usize, seeds: &[(f64, Option<(f64, f64)>)]) -> Value {
    if let [(value, ends)] = seeds {
        let text = shown_value(&group.metric, *value);
        return Value { look, value: *value, ends: *ends, text };
    }
    let values: Vec<f64> = seeds.iter().map(|(value, _)| *value).collect();
    let (mean, sd) = over_seeds(&values);
    let sd = sd.unwrap_or(f64::NAN);
    let shown = |value| shown_value(&group.metric, value);
    Value {
        look,
        value: mean,
        ends: Some((mean - sd, mean + sd)),
        text: format!("{} ± {}", shown(mean), shown(sd)),
    }
}
