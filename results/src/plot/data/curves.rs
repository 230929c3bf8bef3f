use super::{Looks, groups, kept, names, nothing, policies, words};
use crate::headline::is_policy;
use crate::plot::axis::{Scale, plain};
use crate::plot::figure::{Figure, Key, Panel};
use crate::plot::xy::{Series, Xy};
use crate::plot::{Kind, PlotError, PlotOptions, Run};

/// Two panels a task and protocol: loss and validation metric by epoch, a line a run. Policies have a
/// panel a run too, with a line a task.
pub(super) fn find(runs: &[Run<'_>], options: &PlotOptions) -> Result<Figure, PlotError> {
    let trained: Vec<Run<'_>> =
        runs.iter().filter(|run| !run.record.outcome.curve.is_empty()).copied().collect();
    let groups = groups(&trained, options.metric.as_deref(), true);
    let mut notes = Vec::new();
    let kept = kept(&groups, options, &mut notes);
    let mut looks = Looks::default();
    let mut panels = Vec::new();
    for group in &groups {
        let names = names(&group.runs);
        let (mut losses, mut values) = (Vec::new(), Vec::new());
        let mut by_task = Vec::new();
        for run in &group.runs {
            let plan = &run.record.plan;
            let identity = &plan.backbone.identity.0;
            let Some(name) = names.get(identity).filter(|_| kept.contains(identity)) else {
                continue;
            };
            let name = match plan.seed {
                0 => name.clone(),
                seed => format!("{name}, seed {seed}"),
            };
            let look = looks.of(&name);
            if is_policy(plan) {
                by_task.push((*run, name));
            }
            let line = |points: Vec<(f64, f64)>| Series {
                look,
                points,
                joined: true,
                marked: Some(false),
                name: None,
            };
            let curve = &run.record.outcome.curve;
            let at = |epoch: usize, value: Option<f64>| Some((epoch as f64, value?));
            let metric = &group.metric;
            losses.push(line(curve.iter().filter_map(|e| at(e.epoch, e.loss)).collect()));
            values.push(line(
                curve.iter().filter_map(|e| at(e.epoch, e.metrics.get(metric).copied())).collect(),
            ));
        }
        // What one run has to say is in the panel of its tasks.
        if by_task.len() == 1 {
            values.clear();
        }
        let told = [("training loss".to_owned(), losses), (words(&group.metric), values)];
        for (what, series) in told {
            let points = || series.iter().flat_map(|line| line.points.iter());
            if points().any(|(_, y)| y.is_finite()) {
                panels.push(Panel::Xy(Xy {
                    title: format!("{}: {what}", group.task),
                    below: group.below(),
                    x_name: "epoch".to_owned(),
                    x: Scale::around(points().map(|(x, _)| *x)),
                    y: Scale::around(points().map(|(_, y)| *y)),
                    number: plain,
                    x_ticks: whole(points().map(|(x, _)| *x)),
                    series,
                    bands: Vec::new(),
                    bars: Vec::new(),
                    rule: None,
                    front: Vec::new(),
                    flat: 1.0,
                }));
            }
        }
        panels.extend(policies::panels(group, &by_task, &mut looks, &mut notes));
    }
    if panels.is_empty() {
        return Err(nothing(Kind::Curves, "no chosen run trained a head for an epoch or more"));
    }
    Ok(Figure {
        title: "Training loss and validation metric by epoch".to_owned(),
        panels,
        columns: 2,
        legend: looks.legend(),
        key: Key::Line,
        notes,
    })
}

/// Whole numbers for the axis where there are few; else the axis finds its own.
pub(super) fn whole(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    if values.len() <= 12 { values } else { Vec::new() }
}
