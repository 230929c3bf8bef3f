//! A layout filled in: rows of text, ranked and footnoted.

use std::collections::BTreeMap;

use schema::{Direction, RunRecord, Selection, describe};

use super::published::{Published, PublishedRow};
use super::{Layout, LayoutColumn};
use crate::headline::chosen_by;
use crate::text::{shown_backbone, shown_protocol};

/// The protocol of the paper's tables.
const PROTOCOL: &str = "pixio";

/// One table.
pub(super) struct Grid {
    /// Whether the runs are on generated sample data.
    pub(super) sample: bool,
    /// Whether there are published rows.
    pub(super) published: bool,
    /// Rows, in groups with a rule between them: one a published table, then ours.
    pub(super) groups: Vec<Vec<Row>>,
    /// Footnotes; cells refer to them by index.
    pub(super) notes: Vec<String>,
}

pub(super) struct Row {
    pub(super) backbone: String,
    pub(super) architecture: String,
    pub(super) parameters: String,
    /// One entry a column.
    pub(super) cells: Vec<Option<Cell>>,
}

pub(super) struct Cell {
    pub(super) text: String,
    /// Difference to the published figure of the same backbone, with its sign.
    pub(super) difference: Option<String>,
    pub(super) notes: Vec<usize>,
    /// 1 the best of its column, 2 the second, 0 any other.
    pub(super) place: u8,
    /// The number shown, where it may be ranked: trained, whole data, the table's protocol.
    ranked: Option<f64>,
}

/// The table of real data, then the one of sample data; one without rows is left out.
pub(super) fn grids(layout: &Layout, records: &[RunRecord], published: &Published) -> Vec<Grid> {
    let paper = published.rows(layout);
    let grid = |sample: bool| {
        let records: Vec<_> = records.iter().filter(|r| r.plan.data.sample == sample).collect();
        grid(layout, &records, if sample { &[] } else { &paper }, sample)
    };
    [grid(false), grid(true)].into_iter().filter(|grid| !grid.groups.is_empty()).collect()
}

fn grid(layout: &Layout, records: &[&RunRecord], paper: &[PublishedRow], sample: bool) -> Grid {
    let mut groups: Vec<Vec<Row>> = (paper.chunk_by(|a, b| a.table == b.table))
        .map(|rows| rows.iter().map(|row| published_row(layout, row)).collect())
        .collect();
    let mut notes = Vec::new();
    let ours = ours(layout, records, paper, &mut notes);
    if !ours.is_empty() {
        groups.push(ours);
    }
    for (at, column) in layout.columns.iter().enumerate() {
        match layout.published.len() > 1 {
            // Several tables of the paper stand above each other; each has its best.
            true => groups.iter_mut().for_each(|group| rank(group.iter_mut(), at, column)),
            false => rank(groups.iter_mut().flatten(), at, column),
        }
    }
    Grid { sample, published: !paper.is_empty(), groups, notes }
}

fn published_row(layout: &Layout, row: &PublishedRow) -> Row {
    let cells = layout.columns.iter().zip(&row.values).map(|(column, value)| {
        let text = format!("{:.*}", column.decimals, (*value)?);
        let ranked = text.parse().ok();
        Some(Cell { text, difference: None, notes: Vec::new(), place: 0, ranked })
    });
    Row {
        backbone: row.backbone.to_owned(),
        architecture: row.vit.to_owned(),
        parameters: row.parameters.to_owned(),
        cells: cells.collect(),
    }
}

/// One row a backbone and seed; runs of another protocol than the table's have a row of their own.
fn ours(
    layout: &Layout,
    records: &[&RunRecord],
    paper: &[PublishedRow],
    notes: &mut Vec<String>,
) -> Vec<Row> {
    type Key = (usize, String, String, String, u64);
    let mut lines: BTreeMap<Key, Vec<&RunRecord>> = BTreeMap::new();
    for record in records {
        let backbone = &record.plan.backbone;
        let place = match layout.backbones.iter().position(|name| *name == backbone.name) {
            Some(place) => place,
            None if layout.backbones.is_empty() => 0,
            None => continue,
        };
        let protocol = shown_protocol(&record.plan);
        let identity = backbone.identity.0.clone();
        let key = (place, backbone.name.clone(), protocol, identity, record.plan.seed);
        lines.entry(key).or_default().push(record);
    }
    let seeds = records.iter().any(|record| record.plan.seed != 0);
    let mut rows = Vec::new();
    for ((_, name, protocol, _, seed), records) in lines {
        let twin = paper.iter().find(|row| row.backbone.eq_ignore_ascii_case(&name));
        let cells: Vec<Option<Cell>> = (layout.columns.iter().enumerate())
            .map(|(at, column)| {
                let record = latest(&records, column)?;
                let published = twin.and_then(|row| row.values.get(at).copied().flatten());
                cell(record, column, published, &protocol, notes)
            })
            .collect();
        let Some(backbone) = records.first().map(|record| &record.plan.backbone) else { continue };
        if cells.iter().any(Option::is_some) {
            let mut shown = shown_backbone(backbone);
            if !paper.is_empty() {
                shown += ", ours";
            }
            if seeds {
                shown += &format!(", seed {seed}");
            }
            rows.push(Row {
                backbone: shown,
                architecture: format!("{}, {} blocks", backbone.family, backbone.blocks),
                parameters: format!("{:.0}M", backbone.parameters as f64 / 1e6),
                cells,
            });
        }
    }
    rows
}

/// The run of a column; of several, the last finished.
fn latest<'a>(records: &[&'a RunRecord], column: &LayoutColumn) -> Option<&'a RunRecord> {
    let of = |record: &&&RunRecord| {
        let task = &record.plan.task;
        (&task.dataset, &task.head) == (&column.dataset, &column.head)
    };
    let finished = |record: &&RunRecord| record.outcome.finished.clone();
    records.iter().filter(of).copied().max_by_key(finished)
}

fn cell(
    record: &RunRecord,
    column: &LayoutColumn,
    published: Option<f64>,
    protocol: &str,
    notes: &mut Vec<String>,
) -> Option<Cell> {
    // The paper's figures are each metric's best epoch.
    let metrics = &record.outcome.metrics;
    let named = |m: &&schema::MetricValue| {
        m.name == column.metric || m.name.split_once('@').is_some_and(|(n, _)| n == column.metric)
    };
    let best = metrics.iter().filter(|m| m.selection == Selection::BestEach).find(named);
    let last = || metrics.iter().filter(|m| m.selection == Selection::Last).find(named);
    let metric = best.or_else(last)?;
    let mut said = Vec::new();
    if let Some((_, k)) = metric.name.split_once('@').filter(|_| metric.name != column.metric) {
        said.push(format!("k = {k}"));
    }
    if chosen_by(&record.plan).is_some() && metric.selection == Selection::Last {
        said.push("last epoch".to_owned());
    }
    let base = protocol.split('+').next().unwrap_or_default();
    if protocol != PROTOCOL && !(record.plan.data.sample && base == "sample" && base == protocol) {
        said.push(format!("protocol {protocol}"));
    }
    for (name, split) in &record.plan.data.splits {
        if let Some(published) = split.published.filter(|published| *published != split.found) {
            said.push(format!("{name} has {} samples, published {published}", split.found));
        }
    }
    said.extend(record.outcome.warnings.iter().cloned());
    let whole = record.plan.data.splits.values().all(|s| s.published.is_none_or(|p| p == s.found));
    let text = format!("{:.*}", column.decimals, metric.value);
    let real = record.plan.backbone.trained && protocol == PROTOCOL && whole;
    let ranked = text.parse().ok().filter(|value: &f64| real && value.is_finite());
    let difference = published
        .filter(|_| ranked.is_some())
        .map(|published| format!("{:+.*}", column.decimals, metric.value - published));
    let notes = said.into_iter().map(|note| index_of(notes, note)).collect();
    Some(Cell { text, difference, notes, place: 0, ranked })
}

fn index_of(notes: &mut Vec<String>, note: String) -> usize {
    notes.iter().position(|known| *known == note).unwrap_or_else(|| {
        notes.push(note);
        notes.len() - 1
    })
}

/// Marks the best and the second of a column by the digits shown.
fn rank<'a>(rows: impl Iterator<Item = &'a mut Row>, at: usize, column: &LayoutColumn) {
    let name = if column.metric.starts_with("top") { "top1@1" } else { &column.metric };
    // CortexBench's score is the one metric without a descriptor yet; more of it is better.
    let up = describe(name).is_none_or(|metric| metric.direction == Direction::Up);
    let mut cells: Vec<(f64, &mut Cell)> = rows
        .filter_map(|row| row.cells.get_mut(at)?.as_mut())
        .filter_map(|cell| Some((cell.ranked?, cell)))
        .collect();
    let mut values: Vec<f64> = cells.iter().map(|(value, _)| *value).collect();
    values.sort_by(|a, b| if up { b.total_cmp(a) } else { a.total_cmp(b) });
    values.dedup();
    // One row, or rows that all look alike: nobody is ahead.
    let [first, second, ..] = values.as_slice() else { return };
    for (value, cell) in &mut cells {
        cell.place = if value == first { 1 } else { u8::from(value == second) * 2 };
    }
}
