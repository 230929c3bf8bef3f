use std::collections::BTreeMap;

use schema::Selection;

use super::{Looks, groups, kept, names, nothing, over_seeds, value_of};
use crate::plot::axis::Scale;
use crate::plot::figure::{Figure, Key, Panel};
use crate::plot::rows::{Row, Rows, Value};
use crate::plot::{Kind, PlotError, PlotOptions, Run};

/// One panel a segmentation task and protocol: a row a class, the best first, a point a backbone.
pub(super) fn find(runs: &[Run<'_>], options: &PlotOptions) -> Result<Figure, PlotError> {
    let with_classes = |run: &&Run<'_>| {
        run.record.outcome.metrics.iter().any(|metric| metric.name.starts_with("iou/"))
    };
    let runs: Vec<Run<'_>> = runs.iter().filter(with_classes).copied().collect();
    let groups = groups(&runs, None, true);
    let mut notes = Vec::new();
    let kept = kept(&groups, options, &mut notes);
    let mut looks = Looks::default();
    let mut panels = Vec::new();
    for group in &groups {
        let names = names(&group.runs);
        let mut found: BTreeMap<&str, BTreeMap<usize, Vec<f64>>> = BTreeMap::new();
        for run in &group.runs {
            let identity = &run.record.plan.backbone.identity.0;
            let Some(name) = names.get(identity).filter(|_| kept.contains(identity)) else {
                continue;
            };
            let look = looks.of(name);
            let classes = run.record.outcome.metrics.iter().filter(|m| m.name.starts_with("iou/"));
            for metric in classes {
                let Some(shown) = value_of(run.record, &metric.name, Selection::Best) else {
                    continue;
                };
                if shown.selection == metric.selection {
                    let class = metric.name.trim_start_matches("iou/");
                    found.entry(class).or_default().entry(look).or_default().push(metric.value);
                }
            }
        }
        let mut rows: Vec<Row> = found
            .into_iter()
            .map(|(class, by_look)| Row {
                name: class.to_owned(),
                values: by_look
                    .into_iter()
                    .map(|(look, seeds)| {
                        let value = over_seeds(&seeds).0;
                        Value { look, value, ends: None, text: String::new() }
                    })
                    .collect(),
            })
            .collect();
        // Classes without a name are numbers; 2 comes before 10.
        rows.sort_by_key(|row| (row.name.parse::<u64>().ok(), row.name.clone()));
        let mean = |row: &Row| {
            over_seeds(&row.values.iter().map(|value| value.value).collect::<Vec<_>>()).0
        };
        super::best_first(&mut rows, schema::Direction::Up, mean);
        let values = rows.iter().flat_map(|row| row.values.iter().map(|value| value.value));
        let scale = Scale::from_zero(values);
        let title = format!("{}: IoU by class in %, higher is better", group.task);
        panels.push(Panel::Rows(Rows { title, below: group.below(), scale, rows, dots: true }));
    }
    if panels.is_empty() {
        return Err(nothing(Kind::Classes, "no chosen run is of a segmentation task"));
    }
    Ok(Figure {
        title: "IoU by class".to_owned(),
        panels,
        columns: 1,
        legend: looks.legend(),
        key: Key::Mark,
        notes,
    })
}
