use std::collections::{BTreeMap, BTreeSet};

use schema::{Direction, Selection};

use super::{Group, LOOKS, Looks, groups, names, nothing, over_seeds, value_of, words};
use crate::plot::axis::{Scale, counted, plain};
use crate::plot::figure::{Figure, Key, Panel};
use crate::plot::xy::{Series, Xy};
use crate::plot::{Cost, Kind, PlotError, PlotOptions, Run};

/// Points of one backbone's runs.
struct Point {
    name: String,
    cost: f64,
    value: f64,
    trained: bool,
}

/// The look of the many: a grey circle.
const PLAIN: usize = 15;

/// Names beside points up to this many; more are told by the legend alone.
const NAMED: usize = 12;

/// One panel a task and protocol; a point a backbone, the mean of its seeds.
pub(super) fn find(runs: &[Run<'_>], options: &PlotOptions) -> Result<Figure, PlotError> {
    let groups = groups(runs, options.metric.as_deref(), true);
    let mut notes = Vec::new();
    let mut looks = Looks::default();
    let (mut without, mut alone) = (0, 0);
    let (mut found, mut panels) = (Vec::new(), Vec::new());
    for group in &groups {
        let names = names(&group.runs);
        let mut by_backbone: BTreeMap<&str, Vec<(f64, f64, bool)>> = BTreeMap::new();
        for run in &group.runs {
            let plan = &run.record.plan;
            let cost = match options.cost {
                Cost::Parameters => Some(plan.backbone.parameters as f64),
                Cost::Speed => run.record.outcome.images_per_second.filter(|speed| *speed > 0.0),
            };
            let metric = value_of(run.record, &group.metric, Selection::Best);
            let metric = metric.filter(|metric| metric.value.is_finite());
            let identity = plan.backbone.identity.0.as_str();
            match cost.zip(metric) {
                Some((cost, metric)) => {
                    let point = (cost, metric.value, plan.backbone.trained);
                    by_backbone.entry(identity).or_default().push(point);
                }
                None => without += 1,
            }
        }
        let mean =
            |values: &mut dyn Iterator<Item = f64>| over_seeds(&values.collect::<Vec<_>>()).0;
        let points = by_backbone.into_iter().map(|(identity, seeds)| Point {
            name: names.get(identity).cloned().unwrap_or_default(),
            cost: mean(&mut seeds.iter().map(|(cost, ..)| *cost)),
            value: mean(&mut seeds.iter().map(|(_, value, _)| *value)),
            trained: seeds.iter().any(|(.., trained)| *trained),
        });
        let mut points: Vec<Point> = points.collect();
        points.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.name.cmp(&b.name)));
        if points.iter().filter(|point| point.cost > 0.0).count() > 2 {
            points.retain(|point| {
                point.cost > 0.0 || {
                    notes.push(format!("{} has no parameters and is left out.", point.name));
                    false
                }
            });
        }
        alone += usize::from(points.len() == 1);
        if points.len() > 1 {
            let front = front(&points, options.cost, group.direction());
            found.push((group, points, front));
        }
    }
    // Where not every backbone can have a look, those on a front have one.
    let all: BTreeSet<&String> =
        found.iter().flat_map(|(_, p, _)| p.iter().map(|p| &p.name)).collect();
    let few = all.len() <= LOOKS;
    for (group, points, front) in &found {
        let look = |point: &Point| {
            let on_front = front.contains(&(point.cost, point.value));
            if few || on_front && looks.0.len() < LOOKS { looks.of(&point.name) } else { PLAIN }
        };
        panels.push(panel(group, points, front, options.cost, look));
    }
    if !few {
        notes.push("Hollow grey circles: backbones that are on no front.".to_owned());
    }
    if panels.is_empty() {
        let why = match options.cost {
            _ if alone > 0 => "one backbone is one point: a front takes two or more of one task",
            Cost::Parameters => "no chosen run has a finite value of the metric",
            Cost::Speed => {
                "no chosen run has a finite value and a measured speed: features that are kept are not encoded again"
            }
        };
        return Err(nothing(Kind::Pareto, why));
    }
    if without > 0 && options.cost == Cost::Speed {
        notes.push(format!(
            "{without} runs without a measured speed or a finite value are left out."
        ));
    }
    notes.dedup();
    notes.insert(
        0,
        "Filled marks and the line: the Pareto front, which no trained backbone beats in both."
            .to_owned(),
    );
    Ok(Figure {
        title: "Quality against cost, with the Pareto front".to_owned(),
        panels,
        columns: 2,
        legend: looks.legend(),
        key: Key::Mark,
        notes,
    })
}

/// The points that no other beats in both, in the order of the horizontal axis.
fn front(points: &[Point], cost: Cost, direction: Direction) -> Vec<(f64, f64)> {
    let trained = points.iter().any(|point| point.trained);
    let mut front: Vec<(f64, f64)> = Vec::new();
    let ahead = |a: f64, b: f64| if direction == Direction::Up { a > b } else { a < b };
    let mut sorted: Vec<&Point> = points.iter().filter(|p| p.trained || !trained).collect();
    // The cheapest first; of equal cost the best.
    sorted.sort_by(|a, b| {
        let by_cost = match cost {
            Cost::Parameters => a.cost.total_cmp(&b.cost),
            Cost::Speed => b.cost.total_cmp(&a.cost),
        };
        by_cost.then_with(|| match direction {
            Direction::Up => b.value.total_cmp(&a.value),
            Direction::Down => a.value.total_cmp(&b.value),
        })
    });
    for point in sorted {
        if front.last().is_none_or(|(_, best)| ahead(point.value, *best)) {
            front.push((point.cost, point.value));
        }
    }
    front
}

fn panel(
    group: &Group<'_>,
    points: &[Point],
    front: &[(f64, f64)],
    cost: Cost,
    mut look: impl FnMut(&Point) -> usize,
) -> Panel {
    let series = points.iter().map(|point| Series {
        look: look(point),
        points: vec![(point.cost, point.value)],
        joined: false,
        marked: Some(!front.contains(&(point.cost, point.value))),
        name: (points.len() <= NAMED).then(|| point.name.clone()),
    });
    let series: Vec<Series> = series.collect();
    Panel::Xy(Xy {
        title: format!("{}: {}", group.task, words(&group.metric)),
        below: group.below(),
        x_name: match cost {
            Cost::Parameters => "parameters of the encoder".to_owned(),
            Cost::Speed => "images a second while encoding, as the runs measured it".to_owned(),
        },
        x: Scale::spread(points.iter().map(|point| point.cost)),
        y: Scale::around(points.iter().map(|point| point.value)),
        number: if cost == Cost::Parameters { counted } else { plain },
        x_ticks: Vec::new(),
        series,
        bands: Vec::new(),
        bars: Vec::new(),
        rule: None,
        front: front.to_vec(),
        flat: 1.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_beats_in_both() {
        let point = |cost, value, trained| Point { name: String::new(), cost, value, trained };
        let points = [
            point(1.0, 30.0, true),
            point(2.0, 20.0, true),
            point(2.0, 40.0, true),
            point(3.0, 40.0, true),
            point(0.5, 90.0, false),
            point(4.0, 41.0, true),
        ];
        let up = front(&points, Cost::Parameters, Direction::Up);
        assert_eq!(up, [(1.0, 30.0), (2.0, 40.0), (4.0, 41.0)]);
        let down = front(&points, Cost::Parameters, Direction::Down);
        assert_eq!(down, [(1.0, 30.0), (2.0, 20.0)]);
        assert_eq!(front(&points, Cost::Speed, Direction::Up), [(4.0, 41.0)]);
        assert_eq!(front(&points[4..5], Cost::Speed, Direction::Up), [(0.5, 90.0)]);
    }
}
