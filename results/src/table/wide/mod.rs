//! The layout that Markdown, LaTeX and the terminal share: one row a backbone, protocol and seed,
//! one column a metric, grouped by data set and head. Where there is less room, one row a head too.

mod rank;

use std::collections::BTreeMap;

use schema::{Direction, Fingerprint, RunPlan, RunRecord, Selection, TaskHead, describe};

pub(crate) use rank::Rank;
use rank::rank;

use crate::departures::differs;
use crate::headline::chosen_by;
use crate::text::{legend, shown_backbone, shown_protocol, shown_value};

/// What the caption of a sample section says.
pub(crate) const SAMPLE: &str =
    "Sample data: generated scenes, not comparable with published results.";
/// What `(untrained)` behind a name means.
const UNTRAINED: &str = "untrained: seeded random weights, a floor and not a result.";

/// What stands behind values.
const INTERVALS: &str =
    "In square brackets: 95% interval over validation images, at the epoch of the value.";

/// The same where policies are among the columns, and where there is nothing else.
const WITH_EPISODES: &str = "In square brackets: 95% interval over validation images, at the epoch of the value; of \
    policies over episodes of the evaluation shown, whose choice is not in it.";
const EPISODES: &str = "In square brackets: 95% interval over episodes of the evaluation shown, whose choice is not \
    in it.";

/// What is a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A backbone, with a column group for each of its tasks.
    Backbones,
    /// A backbone with one head; the column groups are data sets.
    Heads,
}

/// One table. Runs on sample data have a section of their own.
pub(crate) struct Section {
    /// Whether these runs are on generated sample data.
    pub sample: bool,
    /// Column groups.
    pub groups: Vec<Group>,
    /// Rows, those of one protocol together.
    pub rows: Vec<Row>,
    /// Footnotes; a row refers to them by index.
    pub notes: Vec<String>,
    /// Which epoch the numbers of trained heads are of, if there are any.
    selection: Option<String>,
}

/// The columns of one task or data set.
pub(crate) struct Group {
    /// Data set and head, or the data set.
    pub heading: String,
    /// Names of the metrics.
    pub metrics: Vec<String>,
}

/// One backbone under one protocol and seed.
pub(crate) struct Row {
    /// Name as shown, marked when untrained.
    pub backbone: String,
    /// The head, of the first of them where a row has several.
    pub head: String,
    /// Whether the weights are trained.
    pub trained: bool,
    /// Protocol as shown.
    pub protocol: String,
    /// Seed of the head.
    pub seed: u64,
    /// Indices of the footnotes.
    pub notes: Vec<usize>,
    /// One entry a metric, group after group; none where the run or the metric is missing.
    pub cells: Vec<Option<Cell>>,
}

/// One number.
pub(crate) struct Cell {
    /// As shown.
    pub text: String,
    /// Its 95% interval over validation images, as shown.
    pub interval: Option<String>,
    /// Place among comparable rows.
    pub rank: Rank,
}

impl Cell {
    /// What stands behind the value, made `small`.
    pub fn behind(&self, small: impl Fn(&str) -> String) -> String {
        self.interval.as_deref().map_or_else(String::new, |text| format!(" {}", small(text)))
    }
}

/// Records of one row, by the heading of their columns.
type Line<'a> = BTreeMap<String, &'a RunRecord>;

/// Lays records out: the section of real data first, then the one of sample data; a section
/// without runs is left out.
pub(crate) fn sections(records: &[&RunRecord], layout: Layout) -> Vec<Section> {
    [false, true]
        .into_iter()
        .map(|sample| {
            records.iter().copied().filter(|r| r.plan.data.sample == sample).collect::<Vec<_>>()
        })
        .filter(|records| !records.is_empty())
        .map(|records| section(&records, layout))
        .collect()
}

impl Section {
    /// The columns, group after group: heading and metric.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.groups.iter().flat_map(|group| {
            group.metrics.iter().map(move |metric| (group.heading.as_str(), metric.as_str()))
        })
    }

    /// The head of all rows, if it is one.
    pub fn one_head(&self) -> Option<&str> {
        let (first, rest) = self.rows.split_first()?;
        rest.iter().all(|row| row.head == first.head).then_some(&first.head)
    }

    /// The protocol of all rows, if it is one.
    pub fn one_protocol(&self) -> Option<&str> {
        let (first, rest) = self.rows.split_first()?;
        rest.iter().all(|row| row.protocol == first.protocol).then_some(&first.protocol)
    }

    /// The seed of all rows, if it is one.
    pub fn one_seed(&self) -> Option<u64> {
        let (first, rest) = self.rows.split_first()?;
        rest.iter().all(|row| row.seed == first.seed).then_some(first.seed)
    }

    /// What the numbers are: unit, direction, selection and the meaning of `untrained`.
    pub fn legend(&self) -> Vec<String> {
        let units = legend(self.columns().map(|(_, metric)| metric));
        let untrained = self.rows.iter().any(|row| !row.trained).then(|| UNTRAINED.to_owned());
        let selection = self.selection.as_ref().map(|selection| format!("{selection}."));
        let mut cells = self.rows.iter().flat_map(|row| row.cells.iter().flatten());
        let policy = |metric: &str| metric == "score" || metric.starts_with("score/");
        let policies = self.columns().filter(|(_, metric)| policy(metric)).count();
        let told = match policies {
            0 => INTERVALS,
            all if all == self.columns().count() => EPISODES,
            _ => WITH_EPISODES,
        };
        let intervals = cells.any(|cell| cell.interval.is_some()).then(|| told.to_owned());
        units.into_iter().chain(selection).chain(intervals).chain(untrained).collect()
    }

    /// Whether any value stands out as the best.
    pub fn ranked(&self) -> bool {
        let mut cells = self.rows.iter().flat_map(|row| row.cells.iter().flatten());
        cells.any(|cell| cell.rank == Rank::First)
    }
}

/// The footnote's letter: a to z, then aa, ab and so on.
pub(crate) fn letter(mut note: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(char::from(b'a' + (note % 26) as u8));
        if note < 26 {
            return letters.into_iter().rev().collect();
        }
        note = note / 26 - 1;
    }
}

/// An arrow for the better direction, or nothing for a metric this version does not know.
pub(crate) fn direction(metric: &str) -> Option<Direction> {
    describe(metric).map(|metric| metric.direction)
}

/// The selection of a record's numbers, where a head was trained.
fn shown_selection(record: &RunRecord) -> Option<Selection> {
    chosen_by(&record.plan)?;
    record.outcome.metrics.first().map(|metric| metric.selection)
}

/// The selection that the caption tells: a record without epochs has only `last`, so any other
/// comes first. A row of another selection has a footnote.
fn main_selection(lines: &[Line<'_>]) -> Option<Selection> {
    let mut shown =
        lines.iter().flat_map(Line::values).filter_map(|record| shown_selection(record));
    let first = shown.next()?;
    Some(shown.fold(first, |main, other| if main == Selection::Last { other } else { main }))
}

/// A selection in words; `by` are the metrics that choose the best epoch.
fn told(selection: Selection, by: &[&str]) -> String {
    let meaning = match selection {
        Selection::Last => "the last epoch".to_owned(),
        Selection::Best => format!("epoch chosen by {}", by.join("/")),
        Selection::BestEach if by == ["score"] => "each policy at its best evaluation".to_owned(),
        Selection::BestEach => "each metric at its own best epoch".to_owned(),
    };
    format!("selection {}: {meaning}", selection.as_str())
}

fn section(records: &[&RunRecord], layout: Layout) -> Section {
    let lines = lines(records, layout);
    let mut groups: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for (heading, record) in lines.iter().flatten() {
        let metrics = groups.entry(heading).or_default();
        for metric in &record.outcome.metrics {
            if !metrics.contains(&metric.name) {
                metrics.push(metric.name.clone());
            }
        }
    }
    let groups: Vec<Group> = groups
        .into_iter()
        .map(|(heading, mut metrics)| {
            metrics.sort_by_key(|name| neighbours(name));
            Group { heading: heading.clone(), metrics }
        })
        .collect();

    let mut twins = BTreeMap::new();
    for record in records {
        *twins.entry(alias(&record.plan)).or_default() += 1;
    }
    let main = main_selection(&lines);
    let mut notes = Vec::new();
    let mut rows: Vec<Row> =
        lines.iter().filter_map(|line| row(line, &twins, &groups, main, &mut notes)).collect();
    rank(&mut rows, &lines, &groups);

    let mut by: Vec<&str> = Vec::new();
    for record in lines.iter().flat_map(Line::values).filter(|r| shown_selection(r) == main) {
        by.extend(chosen_by(&record.plan).filter(|name| !by.contains(name)));
    }
    Section {
        sample: records.iter().any(|r| r.plan.data.sample),
        groups,
        rows,
        notes,
        selection: main.map(|main| told(main, &by)),
    }
}

/// `K` of `top1@K`, so that runs with different lists of k share one ascending order.
fn neighbours(metric: &str) -> Option<u64> {
    metric.split_once('@').and_then(|(_, k)| k.parse().ok())
}

/// Records joined to rows. Runs that agree in backbone, protocol name and seed share a row unless
/// they are of the same task; those get a row each (and a footnote on what tells them apart).
fn lines<'a>(records: &[&'a RunRecord], layout: Layout) -> Vec<Line<'a>> {
    let heading = |task: &TaskHead| match layout {
        Layout::Backbones => task.to_string(),
        Layout::Heads => task.dataset.clone(),
    };
    let mut records = records.to_vec();
    records.sort_by_cached_key(|record| {
        let plan = &record.plan;
        (row_key(plan), plan.task.clone(), plan.key())
    });
    let mut lines: Vec<Line<'a>> = Vec::new();
    let mut above = None;
    let mut first = 0;
    for record in records {
        let key = row_key(&record.plan);
        if above.as_ref() != Some(&key) {
            above = Some(key);
            first = lines.len();
        }
        let heading = heading(&record.plan.task);
        let same_row = lines.get_mut(first..).unwrap_or_default();
        match same_row.iter_mut().find(|line| !line.contains_key(&heading)) {
            Some(line) => {
                line.insert(heading, record);
            }
            None => lines.push(Line::from([(heading, record)])),
        }
    }
    lines
}

/// What a row stands for, in the order rows are sorted by.
fn row_key(plan: &RunPlan) -> (String, bool, String, Fingerprint, u64) {
    let backbone = &plan.backbone;
    let name = backbone.name.clone();
    (shown_protocol(plan), !backbone.trained, name, backbone.identity.clone(), plan.seed)
}

/// What a reader of the table can tell two runs apart by.
type Alias<'a> = (&'a str, String, u64, &'a TaskHead);

fn alias(plan: &RunPlan) -> Alias<'_> {
    (&plan.backbone.name, shown_protocol(plan), plan.seed, &plan.task)
}

fn row(
    line: &Line<'_>,
    twins: &BTreeMap<Alias<'_>, usize>,
    groups: &[Group],
    main: Option<Selection>,
    notes: &mut Vec<String>,
) -> Option<Row> {
    let plan = &line.values().next()?.plan;
    let protocol = shown_protocol(plan);
    let mut said = Vec::new();
    if let Some((base, departures)) = protocol.split_once('+') {
        said.push(format!("departs from the protocol {base}: {departures}"));
    }
    for record in line.values() {
        let task = &record.plan.task;
        if let Some(other) = shown_selection(record).filter(|other| Some(*other) != main) {
            let by: Vec<&str> = chosen_by(&record.plan).into_iter().collect();
            said.push(format!("{task}: {}", told(other, &by)));
        }
        said.extend(remarks(record).into_iter().map(|remark| format!("{task}: {remark}")));
        if twins.get(&alias(&record.plan)).is_some_and(|count| *count > 1) {
            said.push(format!(
                "{task}: weights {}, protocol {}, data {}{}",
                record.plan.backbone.identity.short(),
                record.plan.protocol_fingerprint.short(),
                record.plan.data.fingerprint.short(),
                if record.plan.skip_bad_images { ", unreadable images left out" } else { "" },
            ));
        }
    }
    let cell = |heading: &String, name: &String| {
        let metric = line.get(heading)?.outcome.metrics.iter().find(|m| m.name == *name)?;
        let shown = |value| shown_value(name, value);
        let ends = metric.ci_low.zip(metric.ci_high);
        let interval = ends.map(|(low, high)| format!("[{}, {}]", shown(low), shown(high)));
        Some(Cell { text: shown(metric.value), interval, rank: Rank::Unranked })
    };
    Some(Row {
        backbone: shown_backbone(&plan.backbone),
        head: plan.task.head.clone(),
        trained: plan.backbone.trained,
        protocol,
        seed: plan.seed,
        notes: said.into_iter().map(|note| index_of(notes, note)).collect(),
        cells: groups
            .iter()
            .flat_map(|group| group.metrics.iter().map(|name| cell(&group.heading, name)))
            .collect(),
    })
}

fn index_of(notes: &mut Vec<String>, note: String) -> usize {
    notes.iter().position(|known| *known == note).unwrap_or_else(|| {
        notes.push(note);
        notes.len() - 1
    })
}

/// What a reader of this record's numbers must know.
fn remarks(record: &RunRecord) -> Vec<String> {
    let mut remarks = Vec::new();
    for (name, split) in &record.plan.data.splits {
        if let Some(published) = split.published.filter(|published| *published != split.found) {
            remarks.push(format!("{name} has {} samples, published {published}", split.found));
        }
    }
    // Of sample data the whole section says so.
    remarks.extend(differs(&record.plan).filter(|_| !record.plan.data.sample));
    if let Some(file) = &record.plan.head_weights {
        remarks.push(format!("head file {}", file.short()));
    }
    match record.outcome.skipped_images.len() {
        0 => {}
        1 => remarks.push("1 unreadable image left out".to_owned()),
        count => remarks.push(format!("{count} unreadable images left out")),
    }
    remarks.extend(record.outcome.warnings.iter().cloned());
    remarks
}

#[cfg(test)]
mod tests;
