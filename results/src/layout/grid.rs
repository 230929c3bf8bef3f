//! A layout filled in: rows of text, ranked and footnoted.

use std::collections::BTreeMap;

use schema::{Direction, MetricValue, RunPlan, RunRecord, Selection, Stages, describe};

use super::average::AVERAGE;
use super::published::{Published, PublishedRow};
use super::{Layout, LayoutColumn, LayoutOptions};
use crate::departures::differs;
use crate::frame::{LongRow, long_row};
use crate::headline::{chosen_by, is_policy};
use crate::statistics::mean_sd;
use crate::text::{shown_backbone, shown_protocol};

/// The protocol of the paper's tables.
const PROTOCOL: &str = "pixio";
/// What is said of a cell that has no interval in a table of intervals.
const NO_INTERVAL: &str =
    "no interval: fewer than two images, no spread, or no per-image rows of this epoch";
/// The same of policies.
const NO_EPISODES: &str = "no interval: a task of fewer than two episodes, or no spread";

/// One table.
pub(super) struct Grid {
    /// Whether the runs are on generated sample data.
    pub(super) sample: bool,
    /// Whether there are published rows.
    pub(super) published: bool,
    /// The epoch that is shown of a trained head.
    pub(super) selection: Selection,
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
    /// Behind the number, in smaller print: an interval, or a standard deviation over seeds.
    pub(super) spread: Option<Spread>,
    /// Difference to the published figure of the same backbone, with its sign.
    pub(super) difference: Option<String>,
    pub(super) notes: Vec<usize>,
    /// 1 the best of its column, 2 the second, 0 any other.
    pub(super) place: u8,
    /// What the long form says of it.
    pub(super) long: LongCell,
    /// The number shown, where it may be ranked: trained, whole data, the table's protocol.
    pub(super) ranked: Option<f64>,
}

pub(super) enum Spread {
    /// Both ends of a 95% interval over images.
    Interval(String, String),
    /// Standard deviation over seeds.
    Seeds(String),
}

/// A cell at full precision.
pub(super) struct LongCell {
    /// `run`, or the paper's table.
    pub(super) source: String,
    pub(super) row: LongRow,
    /// Standard deviation over seeds.
    pub(super) sd: Option<f64>,
    /// The paper's figure of the same backbone.
    pub(super) published: Option<f64>,
}

/// The table of real data, then the one of sample data; one without rows is left out.
pub(super) fn grids(
    layout: &Layout,
    records: &[RunRecord],
    published: &Published,
    options: LayoutOptions,
) -> Vec<Grid> {
    let paper = published.rows(layout);
    let grid = |sample: bool| {
        let records: Vec<_> = records.iter().filter(|r| r.plan.data.sample == sample).collect();
        let filling = Filling {
            layout,
            paper: if sample { &[] } else { &paper },
            options,
            selection: options.selection.or(layout.selection).unwrap_or(Selection::BestEach),
            seeds: records.iter().any(|record| record.plan.seed != 0),
            notes: Vec::new(),
        };
        filling.grid(&records, sample)
    };
    [grid(false), grid(true)].into_iter().filter(|grid| !grid.groups.is_empty()).collect()
}

/// A table that is being filled in.
pub(super) struct Filling<'a> {
    pub(super) layout: &'a Layout,
    paper: &'a [PublishedRow],
    pub(super) options: LayoutOptions,
    selection: Selection,
    /// Whether any run has another seed than 0.
    seeds: bool,
    pub(super) notes: Vec<String>,
}

impl Filling<'_> {
    fn grid(mut self, records: &[&RunRecord], sample: bool) -> Grid {
        let mut groups: Vec<Vec<Row>> = (self.paper.chunk_by(|a, b| a.table == b.table))
            .map(|rows| rows.iter().map(|row| published_row(self.layout, row)).collect())
            .collect();
        let ours = self.ours(records);
        if !ours.is_empty() {
            groups.push(ours);
        }
        for (at, column) in self.layout.columns.iter().enumerate() {
            match self.layout.published.len() > 1 {
                // Several tables of the paper stand above each other; each has its best.
                true => groups.iter_mut().for_each(|group| rank(group.iter_mut(), at, column)),
                false => rank(groups.iter_mut().flatten(), at, column),
            }
        }
        let (published, selection) = (!self.paper.is_empty(), self.selection);
        Grid { sample, published, selection, groups, notes: self.notes }
    }

    /// One row a backbone and seed, and a block where blocks are rows; runs of another protocol than
    /// the table's have a row of their own.
    fn ours(&mut self, records: &[&RunRecord]) -> Vec<Row> {
        type Key = (usize, String, String, String, Vec<usize>, u64);
        let mut lines: BTreeMap<Key, Vec<&RunRecord>> = BTreeMap::new();
        for record in records {
            let backbone = &record.plan.backbone;
            let known = &self.layout.backbones;
            let place = match known.iter().position(|name| *name == backbone.name) {
                Some(place) => place,
                None if known.is_empty() => 0,
                None => continue,
            };
            let identity = backbone.identity.0.clone();
            let blocks = if self.layout.blocks { blocks(&record.plan) } else { Vec::new() };
            let seed = if self.options.mean_over_seeds { 0 } else { record.plan.seed };
            let key = (
                place,
                backbone.name.clone(),
                self.row_protocol(&record.plan),
                identity,
                blocks,
                seed,
            );
            lines.entry(key).or_default().push(record);
        }
        let mut rows = Vec::new();
        for ((_, name, _, _, blocks, seed), records) in lines {
            let Some(backbone) = records.first().map(|record| &record.plan.backbone) else {
                continue;
            };
            let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            let at = match blocks.is_empty() {
                true => String::new(),
                false => format!("@block{}", blocks.join("+")),
            };
            let named = format!("{name}{at}");
            let twin = self.paper.iter().find(|row| row.backbone.eq_ignore_ascii_case(&named));
            let cells: Vec<Option<Cell>> = (self.layout.columns.iter().enumerate())
                .map(|(place, column)| {
                    let published = twin.and_then(|row| row.values.get(place).copied().flatten());
                    match &*column.dataset {
                        AVERAGE => self.average(&records, column, published),
                        _ => self.cell(&records, column, published),
                    }
                })
                .collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let mut shown = shown_backbone(backbone);
            if let Some(name) = self.layout.names.get(&name) {
                let marked = if backbone.trained { "" } else { " (untrained)" };
                shown = format!("{name}{marked}");
            }
            shown += &at;
            if !self.paper.is_empty() {
                shown += ", ours";
            }
            if self.seeds && !self.options.mean_over_seeds {
                shown += &format!(", seed {seed}");
            }
            rows.push(Row {
                backbone: shown,
                architecture: format!("{}, {} blocks", backbone.family, backbone.blocks),
                parameters: format!("{:.0}M", backbone.parameters as f64 / 1e6),
                cells,
            });
        }
        rows
    }

    /// The protocol's name, without the departure that is a row's own block.
    fn protocol(&self, plan: &RunPlan) -> String {
        let name = shown_protocol(plan);
        let chosen = |departure: &&str| {
            self.layout.blocks
                && ["block=", "blocks=", "taps="].iter().any(|word| departure.starts_with(word))
        };
        name.split('+').filter(|word| !chosen(word)).collect::<Vec<_>>().join("+")
    }

    /// What runs share that stand in one row. Suites of policies have simulators of their own, which make no
    /// row of their own.
    fn row_protocol(&self, plan: &RunPlan) -> String {
        let name = self.protocol(plan);
        let own = |word: &&str| {
            let seeds = self.options.mean_over_seeds && word.starts_with("stream-seed=");
            seeds || is_policy(plan) && word.starts_with("simulators=")
        };
        name.split('+').filter(|word| !own(word)).collect::<Vec<_>>().join("+")
    }

    /// The cell of a column: the last finished of its runs, or the mean over their seeds.
    pub(super) fn cell(
        &mut self,
        records: &[&RunRecord],
        column: &LayoutColumn,
        published: Option<f64>,
    ) -> Option<Cell> {
        // Order and crops are drawn anew with another seed of the stream: training again, too.
        let seeds = |plan: &RunPlan| match self.options.mean_over_seeds {
            true => (plan.seed, plan.stream_seed()),
            false => (plan.seed, 0),
        };
        let mut by_seed: BTreeMap<(u64, u64), (&RunRecord, usize)> = BTreeMap::new();
        for record in records.iter().filter(|record| {
            let task = &record.plan.task;
            (&task.dataset, &task.head) == (&column.dataset, &column.head)
        }) {
            let (shown, count) = by_seed.entry(seeds(&record.plan)).or_insert((record, 0));
            *count += 1;
            if record.outcome.finished > shown.outcome.finished {
                *shown = record;
            }
        }
        let found: Vec<(&RunRecord, &MetricValue)> = (by_seed.values())
            .filter_map(|(record, _)| Some((*record, self.metric(record, column)?)))
            .collect();
        let (record, metric) = *found.first()?;
        let mut said = Vec::new();
        for (record, metric) in &found {
            self.remarks(record, metric, column, &mut said);
        }
        let most = by_seed.values().map(|(_, count)| *count).max().unwrap_or(1);
        if most > 1 {
            said.push(format!("the last finished of {most} runs that differ in data or options"));
        }
        let mut row = long_row(&record.plan, metric);
        let (mut spread, mut sd) = (None, None);
        if found.len() > 1 {
            let values: Vec<f64> = found.iter().map(|(_, metric)| metric.value).collect();
            let (mean, deviation) = mean_sd(&values)?;
            (row.value, row.ci_low, row.ci_high, sd) = (mean, None, None, deviation);
            spread = deviation.map(|sd| Spread::Seeds(format!("{sd:.*}", column.decimals)));
            said.push(format!("mean and standard deviation over {} seeds", found.len()));
        } else if self.options.intervals {
            match row.ci_low.zip(row.ci_high) {
                Some(ends) => {
                    let [low, high] = [ends.0, ends.1].map(|x| format!("{x:.*}", column.decimals));
                    spread = Some(Spread::Interval(low, high));
                }
                None if is_policy(&record.plan) => said.push(NO_EPISODES.to_owned()),
                None => said.push(NO_INTERVAL.to_owned()),
            }
        }
        let real = |(record, _): &(&RunRecord, &MetricValue)| {
            let mut splits = record.plan.data.splits.values();
            record.plan.backbone.trained
                && self.protocol(&record.plan) == PROTOCOL
                && splits.all(|split| split.published.is_none_or(|count| count == split.found))
        };
        let text = format!("{:.*}", column.decimals, row.value);
        let real = found.iter().all(real);
        let ranked = text.parse().ok().filter(|value: &f64| real && value.is_finite());
        let published = published.filter(|_| ranked.is_some());
        let difference =
            published.map(|published| format!("{:+.*}", column.decimals, row.value - published));
        let notes = said.into_iter().map(|note| index_of(&mut self.notes, note)).collect();
        let long = LongCell { source: "run".to_owned(), row, sd, published };
        Some(Cell { text, spread, difference, notes, place: 0, long, ranked })
    }

    /// The column's metric at the epoch shown, or at the last where a run has no epochs.
    fn metric<'r>(&self, record: &'r RunRecord, column: &LayoutColumn) -> Option<&'r MetricValue> {
        let named = |m: &&MetricValue| {
            m.name == column.metric
                || m.name.split_once('@').is_some_and(|(name, _)| name == column.metric)
        };
        let at = |selection| {
            let metrics = record.outcome.metrics.iter();
            metrics.filter(move |m| m.selection == selection).find(named)
        };
        // Policies may have no epoch in common: their best is then each one's own.
        let best = self.selection != Selection::Last && is_policy(&record.plan);
        let other = if best { Selection::BestEach } else { Selection::Last };
        at(self.selection).or_else(|| at(other)).or_else(|| at(Selection::Last))
    }

    /// What a reader of the cell must know, each once.
    fn remarks(
        &self,
        record: &RunRecord,
        metric: &MetricValue,
        column: &LayoutColumn,
        said: &mut Vec<String>,
    ) {
        let mut say = |note: String| {
            if !said.contains(&note) {
                said.push(note);
            }
        };
        if let Some((_, k)) = metric.name.split_once('@').filter(|_| metric.name != column.metric) {
            say(format!("k = {k}"));
        }
        let trained = chosen_by(&record.plan).is_some();
        if trained && metric.selection == Selection::Last && self.selection != Selection::Last {
            let last = if is_policy(&record.plan) { "last evaluation" } else { "last epoch" };
            say(last.to_owned());
        }
        if self.selection == Selection::Best && metric.selection == Selection::BestEach {
            say("each policy at its best evaluation".to_owned());
        }
        let protocol = self.protocol(&record.plan);
        let base = protocol.split('+').next().unwrap_or_default();
        let plain = record.plan.data.sample && base == "sample" && base == protocol;
        if protocol != PROTOCOL && !plain {
            let differs = differs(&record.plan).map(|why| format!(": {why}"));
            say(format!("protocol {protocol}{}", differs.unwrap_or_default()));
        }
        for (name, split) in &record.plan.data.splits {
            if let Some(published) = split.published.filter(|published| *published != split.found) {
                say(format!("{name} has {} samples, published {published}", split.found));
            }
        }
        record.outcome.warnings.iter().cloned().for_each(say);
    }
}

/// The blocks whose tokens the head reads, from 1, as the paper counts them.
fn blocks(plan: &RunPlan) -> Vec<usize> {
    match &plan.protocol.stages {
        Stages::Knn(knn) => vec![knn.feature.block + 1],
        Stages::Dense(dense) => dense.feature.blocks.iter().map(|block| block + 1).collect(),
        Stages::Policy(policy) => vec![policy.feature.block + 1],
    }
}

fn published_row(layout: &Layout, row: &PublishedRow) -> Row {
    let cells = layout.columns.iter().zip(&row.values).map(|(column, value)| {
        let text = format!("{:.*}", column.decimals, (*value)?);
        let ranked = text.parse().ok();
        let long = LongRow {
            backbone: row.backbone.to_owned(),
            dataset: column.dataset.clone(),
            head: column.head.clone(),
            protocol: "published".to_owned(),
            seed: 0,
            metric: column.metric.clone(),
            value: (*value)?,
            ci_low: None,
            ci_high: None,
            selection: if column.head == "knn" { "last" } else { "best-each" },
        };
        let source = format!("Table {}", row.table);
        let long = LongCell { source, row: long, sd: None, published: None };
        let (spread, difference, notes) = (None, None, Vec::new());
        Some(Cell { text, spread, difference, notes, place: 0, long, ranked })
    });
    Row {
        backbone: row.backbone.to_owned(),
        architecture: row.vit.to_owned(),
        parameters: row.parameters.to_owned(),
        cells: cells.collect(),
    }
}

pub(super) fn index_of(notes: &mut Vec<String>, note: String) -> usize {
    notes.iter().position(|known| *known == note).unwrap_or_else(|| {
        notes.push(note);
        notes.len() - 1
    })
}

/// Marks the best and the second of a column by the digits shown.
fn rank<'a>(rows: impl Iterator<Item = &'a mut Row>, at: usize, column: &LayoutColumn) {
    let up = describe(column.described()).is_none_or(|metric| metric.direction == Direction::Up);
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
