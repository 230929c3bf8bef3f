//! CortexBench's overall number.

use schema::RunRecord;

use super::LayoutColumn;
use super::grid::{Cell, Filling, LongCell, index_of};

/// The data set that the column is given for.
pub(super) const AVERAGE: &str = "cortexbench-average";
/// What it is the mean of.
const SUITES: [&str; 4] = ["adroit", "dmc", "metaworld", "trifinger"];

impl Filling<'_> {
    /// The plain mean of the four suites; none where the row lacks one. The row's runs are of one
    /// backbone and protocol.
    pub(super) fn average(
        &mut self,
        records: &[&RunRecord],
        column: &LayoutColumn,
        published: Option<f64>,
    ) -> Option<Cell> {
        let has = |suite: &str| {
            records.iter().any(|record| {
                let task = &record.plan.task;
                (&*task.dataset, &task.head) == (suite, &column.head)
            })
        };
        if !SUITES.iter().all(|suite| has(suite)) {
            return None;
        }
        let mut suite = |suite: &&str| {
            let column = LayoutColumn { dataset: (*suite).to_owned(), ..column.clone() };
            self.cell(records, &column, None)
        };
        let cells: Vec<Cell> = SUITES.iter().map(&mut suite).collect::<Option<_>>()?;
        let value = cells.iter().map(|cell| cell.long.row.value).sum::<f64>() / cells.len() as f64;
        let text = format!("{value:.*}", column.decimals);
        let ranked = cells.iter().all(|cell| cell.ranked.is_some());
        let ranked = text.parse().ok().filter(|_| ranked);
        let published = published.filter(|_| ranked.is_some());
        let mut notes: Vec<usize> = Vec::new();
        for note in cells.iter().flat_map(|cell| &cell.notes) {
            if !notes.contains(note) {
                notes.push(*note);
            }
        }
        if self.options.intervals {
            notes.push(index_of(&mut self.notes, "no interval: a mean of suites".to_owned()));
        }
        let mut row = cells.into_iter().next()?.long.row;
        row.dataset = AVERAGE.to_owned();
        (row.value, row.ci_low, row.ci_high) = (value, None, None);
        let difference =
            published.map(|published| format!("{:+.*}", column.decimals, value - published));
        let long = LongCell { source: "run".to_owned(), row, sd: None, published };
        Some(Cell { text, spread: None, difference, notes, place: 0, long, ranked })
    }
}
