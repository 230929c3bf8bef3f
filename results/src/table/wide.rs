//! The layout that Markdown, LaTeX and the terminal share: one row a backbone, protocol and seed,
//! one column a metric, grouped by data set and head.

use std::collections::BTreeMap;

use schema::{Direction, Fingerprint, RunPlan, RunRecord, TaskHead, describe};

use crate::text::{legend, shown_backbone, shown_protocol, shown_value};

/// What the caption of a sample section says.
pub(crate) const SAMPLE: &str =
    "Sample data: generated scenes, not comparable with published results.";
/// What `(untrained)` behind a name means.
const UNTRAINED: &str = "untrained: seeded random weights, a floor and not a result.";

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
}

/// The columns of one task.
pub(crate) struct Group {
    /// Data set and head.
    pub task: TaskHead,
    /// Names of the metrics.
    pub metrics: Vec<String>,
}

/// One backbone under one protocol and seed.
pub(crate) struct Row {
    /// Name as shown, marked when untrained.
    pub backbone: String,
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
    /// Place among comparable rows.
    pub rank: Rank,
}

/// Place of a value in its column among comparable rows: trained, same protocol, same data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// The best, or shown with the same digits as the best.
    First,
    /// The next.
    Second,
    /// Any other, and everything where nothing can be compared.
    Unranked,
}

/// Records of one row, by task.
type Line<'a> = BTreeMap<&'a TaskHead, &'a RunRecord>;

/// Lays records out: the section of real data first, then the one of sample data; a section
/// without runs is left out.
pub(crate) fn sections(records: &[&RunRecord]) -> Vec<Section> {
    [false, true]
        .into_iter()
        .map(|sample| {
            records.iter().copied().filter(|r| r.plan.data.sample == sample).collect::<Vec<_>>()
        })
        .filter(|records| !records.is_empty())
        .map(|records| section(&records))
        .collect()
}

impl Section {
    /// The columns, group after group.
    pub fn columns(&self) -> impl Iterator<Item = (&TaskHead, &str)> {
        self.groups.iter().flat_map(|group| {
            group.metrics.iter().map(move |metric| (&group.task, metric.as_str()))
        })
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

    /// What the numbers are: unit, direction and the meaning of `untrained`.
    pub fn legend(&self) -> Vec<String> {
        let units = legend(self.columns().map(|(_, metric)| metric));
        let untrained = self.rows.iter().any(|row| !row.trained).then(|| UNTRAINED.to_owned());
        units.into_iter().chain(untrained).collect()
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

fn section(records: &[&RunRecord]) -> Section {
    let lines = lines(records);
    let mut groups: BTreeMap<&TaskHead, Vec<String>> = BTreeMap::new();
    for (task, record) in lines.iter().flatten() {
        let metrics = groups.entry(task).or_default();
        for metric in &record.outcome.metrics {
            if !metrics.contains(&metric.name) {
                metrics.push(metric.name.clone());
            }
        }
    }
    let groups: Vec<Group> = groups
        .into_iter()
        .map(|(task, mut metrics)| {
            metrics.sort_by_key(|name| neighbours(name));
            Group { task: task.clone(), metrics }
        })
        .collect();

    let mut twins = BTreeMap::new();
    for record in records {
        *twins.entry(alias(&record.plan)).or_default() += 1;
    }
    let mut notes = Vec::new();
    let mut rows: Vec<Row> =
        lines.iter().filter_map(|line| row(line, &twins, &groups, &mut notes)).collect();
    rank(&mut rows, &lines, &groups);
    Section { sample: records.iter().any(|r| r.plan.data.sample), groups, rows, notes }
}

/// `K` of `top1@K`, so that runs with different lists of k share one ascending order.
fn neighbours(metric: &str) -> Option<u64> {
    metric.split_once('@').and_then(|(_, k)| k.parse().ok())
}

/// Records joined to rows. Runs that agree in backbone, protocol name and seed share a row unless
/// they are of the same task; those get a row each (and a footnote on what tells them apart).
fn lines<'a>(records: &[&'a RunRecord]) -> Vec<Line<'a>> {
    let mut records = records.to_vec();
    records.sort_by_cached_key(|record| (row_key(&record.plan), record.plan.key()));
    let mut lines: Vec<Line<'a>> = Vec::new();
    let mut above = None;
    let mut first = 0;
    for record in records {
        let key = row_key(&record.plan);
        if above.as_ref() != Some(&key) {
            above = Some(key);
            first = lines.len();
        }
        let same_row = lines.get_mut(first..).unwrap_or_default();
        match same_row.iter_mut().find(|line| !line.contains_key(&record.plan.task)) {
            Some(line) => {
                line.insert(&record.plan.task, record);
            }
            None => lines.push(Line::from([(&record.plan.task, record)])),
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
    notes: &mut Vec<String>,
) -> Option<Row> {
    let plan = &line.values().next()?.plan;
    let protocol = shown_protocol(plan);
    let mut said = Vec::new();
    if let Some((base, departures)) = protocol.split_once('+') {
        said.push(format!("departs from the protocol {base}: {departures}"));
    }
    for (task, record) in line {
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
    let cell = |task, name: &String| {
        let metric = line.get(task)?.outcome.metrics.iter().find(|m| m.name == *name)?;
        Some(Cell { text: shown_value(name, metric.value), rank: Rank::Unranked })
    };
    Some(Row {
        backbone: shown_backbone(&plan.backbone),
        trained: plan.backbone.trained,
        protocol,
        seed: plan.seed,
        notes: said.into_iter().map(|note| index_of(notes, note)).collect(),
        cells: groups
            .iter()
            .flat_map(|group| group.metrics.iter().map(|name| cell(&group.task, name)))
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
    match record.outcome.skipped_images.len() {
        0 => {}
        1 => remarks.push("1 unreadable image left out".to_owned()),
        count => remarks.push(format!("{count} unreadable images left out")),
    }
    remarks.extend(record.outcome.warnings.iter().cloned());
    remarks
}

/// Marks first and second per column among rows that can be compared. Places go by the digits
/// shown: two values that look alike share one.
fn rank(rows: &mut [Row], lines: &[Line<'_>], groups: &[Group]) {
    let columns = groups.iter().flat_map(|g| g.metrics.iter().map(move |name| (&g.task, name)));
    for (column, (task, name)) in columns.enumerate() {
        let Some(direction) = direction(name) else { continue };
        // (protocol, data) -> (row, value as shown)
        let mut comparable: BTreeMap<_, Vec<(usize, f64)>> = BTreeMap::new();
        for (i, (row, line)) in rows.iter().zip(lines).enumerate() {
            let (Some(Some(cell)), Some(record)) = (row.cells.get(column), line.get(task)) else {
                continue;
            };
            match cell.text.parse::<f64>() {
                Ok(value) if row.trained && value.is_finite() => {
                    let key = (row.protocol.clone(), &record.plan.data.fingerprint);
                    comparable.entry(key).or_default().push((i, value));
                }
                _ => {}
            }
        }
        for values in comparable.into_values() {
            let mut places: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
            places.sort_by(|a, b| match direction {
                Direction::Up => b.total_cmp(a),
                Direction::Down => a.total_cmp(b),
            });
            places.dedup();
            // One row, or rows that all look alike: nobody is ahead.
            let [first, second, ..] = places.as_slice() else { continue };
            for (i, value) in values {
                let rank = match value {
                    value if value == *first => Rank::First,
                    value if value == *second => Rank::Second,
                    _ => continue,
                };
                if let Some(Some(cell)) = rows.get_mut(i).and_then(|r| r.cells.get_mut(column)) {
                    cell.rank = rank;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{on_sample_data, record, records, untrained};

    fn one_section(records: &[RunRecord]) -> Section {
        let mut sections = sections(&records.iter().collect::<Vec<_>>());
        assert_eq!(sections.len(), 1);
        sections.remove(0)
    }

    fn ranks(section: &Section) -> Vec<(&str, Rank)> {
        let first = |row: &Row| row.cells[0].as_ref().unwrap().rank;
        section.rows.iter().map(|row| (row.backbone.as_str(), first(row))).collect()
    }

    #[test]
    fn sample_runs_have_a_section_of_their_own() {
        let records = records();
        let sections = sections(&records.iter().collect::<Vec<_>>());
        let rows = |s: &Section| s.rows.iter().map(|r| r.backbone.clone()).collect::<Vec<_>>();
        assert_eq!(rows(&sections[0]), ["pixio-b", "pixio-l", "random:pixio-nano (untrained)"]);
        assert_eq!(rows(&sections[1]), ["random:pixio-nano (untrained)"]);
        assert_eq!((sections[0].sample, sections[1].sample), (false, true));
    }

    #[test]
    fn only_trained_rows_of_one_protocol_and_data_set_are_ranked() {
        let mut short = record("pixio-h", 99.0);
        short.plan.protocol.name = "pixio+limit=100".to_owned();
        let mut elsewhere = record("pixio-own", 98.0);
        elsewhere.plan.data.fingerprint = Fingerprint("e".repeat(64));
        let section = one_section(&[
            record("pixio-b", 40.0),
            record("pixio-l", 50.0),
            record("pixio-s", 30.0),
            untrained(record("random:pixio-l", 90.0)),
            record("pixio-broken", f64::NAN),
            short,
            elsewhere,
        ]);
        assert_eq!(
            ranks(&section),
            [
                ("pixio-b", Rank::Second),
                ("pixio-broken", Rank::Unranked),
                ("pixio-l", Rank::First),
                ("pixio-own", Rank::Unranked),
                ("pixio-s", Rank::Unranked),
                ("random:pixio-l (untrained)", Rank::Unranked),
                ("pixio-h", Rank::Unranked),
            ]
        );
        assert_eq!(section.notes, ["departs from the protocol pixio: limit=100"]);
    }

    #[test]
    fn values_that_look_alike_share_a_place() {
        let close = [record("a", 40.001), record("b", 40.002), record("c", 39.0)];
        let section = one_section(&close);
        assert_eq!(ranks(&section), [("a", Rank::First), ("b", Rank::First), ("c", Rank::Second)]);
        assert_eq!(ranks(&one_section(&close[..2]))[0].1, Rank::Unranked);
        assert!(!one_section(&close[..1]).ranked());
    }

    #[test]
    fn tasks_of_one_backbone_share_a_row_and_variants_of_one_run_do_not() {
        let mut other_task = record("pixio-b", 60.0);
        other_task.plan.task.dataset = "another".to_owned();
        let mut half = record("pixio-b", 39.0);
        half.plan.protocol_fingerprint = Fingerprint("b".repeat(64));
        let section = one_section(&[record("pixio-b", 40.0), other_task.clone()]);
        assert_eq!((section.rows.len(), section.notes.len()), (1, 0));
        assert_eq!(section.rows[0].cells.iter().flatten().count(), 16);

        let section = one_section(&[record("pixio-b", 40.0), half, other_task]);
        assert_eq!(section.rows.len(), 2);
        assert_eq!(section.notes.len(), 2);
        assert!(
            section.notes.iter().any(|n| n.contains("protocol bbbbbbbbbbbb")),
            "{:?}",
            section.notes
        );
    }

    #[test]
    fn lists_of_k_are_joined_in_ascending_order() {
        let mut few = record("pixio-l", 50.0);
        for (metric, name) in few.outcome.metrics.iter_mut().zip(["top1@5", "top5@5", "top1@50"]) {
            metric.name = name.to_owned();
        }
        few.outcome.metrics.truncate(3);
        let section = one_section(&[record("pixio-b", 40.0), few]);
        let names: Vec<_> = section.columns().map(|(_, metric)| metric).collect();
        assert_eq!(names[..5], ["top1@5", "top5@5", "top1@10", "top5@10", "top1@20"]);
        assert_eq!(section.rows[1].cells.iter().flatten().count(), 3);
    }

    #[test]
    fn what_a_reader_must_know_is_a_footnote() {
        let mut odd = on_sample_data(record("pixio-b", 40.0));
        odd.outcome.skipped_images = vec!["a.png".to_owned(), "b.png".to_owned()];
        odd.outcome.warnings = vec!["one class has no image".to_owned()];
        odd.plan.data.splits.get_mut("val").unwrap().published = Some(50_000);
        insta::assert_snapshot!(one_section(&[odd]).notes.join("\n"), @r"
        imagenet1k/knn: val has 40 samples, published 50000
        imagenet1k/knn: 2 unreadable images left out
        imagenet1k/knn: one class has no image
        ");
    }

    #[test]
    fn footnotes_are_lettered_beyond_z() {
        assert_eq!([0, 25, 26, 27, 701, 702].map(letter), ["a", "z", "aa", "ab", "zz", "aaa"]);
    }
}
