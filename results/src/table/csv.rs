//! The long form, comma-separated.

use polars::prelude::{CsvWriter, SerWriter};
use schema::RunRecord;

use super::{Exporter, TableError};
use crate::frame::{frame, long_rows};

pub(super) struct Csv;

impl Exporter for Csv {
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError> {
        let mut rows = long_rows(records.iter().copied());
        for row in &mut rows {
            row.texts_mut().into_iter().for_each(disarm);
        }
        let mut bytes = Vec::new();
        CsvWriter::new(&mut bytes).finish(&mut frame(&rows)?)?;
        Ok(bytes)
    }
}

/// A spreadsheet takes a text that starts with one of these for a formula; an apostrophe before it
/// says that it is text.
pub(crate) fn disarm(text: &mut String) {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        text.insert(0, '\'');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{record, records};

    fn csv(records: &[RunRecord]) -> String {
        String::from_utf8(Csv.export(&records.iter().collect::<Vec<_>>()).unwrap()).unwrap()
    }

    #[test]
    fn the_long_form_of_three_backbones_and_a_sample_run() {
        let mut records = records();
        records[3].outcome.metrics[0].ci_low = Some(39.5);
        records[3].outcome.metrics[0].ci_high = Some(40.5);
        insta::assert_snapshot!(csv(&records));
    }

    #[test]
    fn values_keep_every_digit() {
        for value in [100.0 / 3.0, 0.1 + 0.2, 1e-17, 1.797e308, -12.5, f64::NAN, f64::INFINITY] {
            let mut record = record("pixio-b", 0.0);
            record.outcome.metrics.truncate(1);
            record.outcome.metrics[0].value = value;
            let table = csv(&[record]);
            let cell = table.lines().nth(1).unwrap().split(',').nth(6).unwrap();
            let back: f64 = cell.parse().unwrap();
            assert!(back == value || (back.is_nan() && value.is_nan()), "{cell}");
        }
    }

    #[test]
    fn texts_are_quoted_and_are_no_formulas() {
        let first_cell = |name: &str| {
            let mut record = record(name, 0.0);
            record.outcome.metrics.truncate(1);
            let table = csv(&[record]);
            let (_, line) = table.split_once('\n').unwrap();
            line.split_once(",imagenet1k,").unwrap().0.to_owned()
        };
        assert_eq!(first_cell("a,b"), "\"a,b\"");
        assert_eq!(first_cell("a\"b"), "\"a\"\"b\"");
        assert_eq!(first_cell("a\nb"), "\"a\nb\"");
        assert_eq!(first_cell("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        for start in ['+', '-', '@', '\t'] {
            assert_eq!(first_cell(&format!("{start}1")), format!("'{start}1"));
        }
        assert_eq!(first_cell("\r=1"), "\"'\r=1\"");
    }
}
