//! GitHub's Markdown: wide, best value bold.

use schema::{Direction, RunRecord};

use super::wide::{Cell, Layout, Rank, Row, SAMPLE, Section, direction, letter, sections};
use super::{Exporter, TableError};
use crate::text::clean;

pub(super) struct Markdown;

impl Exporter for Markdown {
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError> {
        let tables: Vec<String> = sections(records, Layout::Backbones).iter().map(table).collect();
        Ok(tables.join("\n").into_bytes())
    }
}

fn table(section: &Section) -> String {
    let mut out = String::new();
    if section.sample {
        out += &format!("**{SAMPLE}**\n\n");
    }
    let mut header = vec!["backbone".to_owned(), "protocol".to_owned(), "seed".to_owned()];
    header.extend(section.columns().map(|(heading, metric)| {
        let arrow = match direction(metric) {
            Some(Direction::Up) => " ↑",
            Some(Direction::Down) => " ↓",
            None => "",
        };
        format!("{}{arrow}", escape(&format!("{heading} {metric}")))
    }));
    out += &line(&header);
    let rule = (0..header.len()).map(|i| if i < 2 { ":--" } else { "--:" }.to_owned());
    out += &line(&rule.collect::<Vec<_>>());
    for row in &section.rows {
        out += &line(&cells(row));
    }
    let mut caption: Vec<String> = section.legend().iter().map(|text| escape(text)).collect();
    if section.ranked() {
        caption.push("**Bold**: best of the trained backbones under one protocol.".to_owned());
    }
    if !caption.is_empty() {
        out += &format!("\n{}\n", caption.join(" "));
    }
    for (i, note) in section.notes.iter().enumerate() {
        out += &format!("\n<sup>{}</sup> {}\n", letter(i), escape(note));
    }
    out
}

fn cells(row: &Row) -> Vec<String> {
    let notes: Vec<String> = row.notes.iter().map(|note| letter(*note)).collect();
    let notes = match notes.is_empty() {
        true => String::new(),
        false => format!(" <sup>{}</sup>", notes.join(",")),
    };
    let mut cells = vec![
        format!("{}{notes}", escape(&row.backbone)),
        escape(&row.protocol),
        row.seed.to_string(),
    ];
    cells.extend(row.cells.iter().map(|cell| {
        let Some(cell) = cell else { return "–".to_owned() };
        let Cell { text, rank, .. } = cell;
        let value = if *rank == Rank::First { format!("**{text}**") } else { text.clone() };
        value + &cell.behind(escape)
    }));
    cells
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Text that Markdown and the HTML in it show as it is.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '~' | '$' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{
        dense_record, mixed_records, on_sample_data, record, records, untrained,
    };
    use crate::{Format, TableOptions, render};

    fn markdown(records: &[RunRecord]) -> String {
        String::from_utf8(Markdown.export(&records.iter().collect::<Vec<_>>()).unwrap()).unwrap()
    }

    #[test]
    fn the_table_of_three_backbones_and_a_sample_run() {
        let mut records = records();
        records[3].plan.protocol.name = "pixio+limit=100".to_owned();
        records.push(record("pixio-s", 30.0));
        insta::assert_snapshot!(markdown(&records));
    }

    #[test]
    fn the_table_of_knn_depth_and_segmentation() {
        let mut records = mixed_records();
        records.push(on_sample_data(untrained(dense_record(
            "random:pixio-nano",
            "nyuv2",
            "dpt",
            2.5,
        ))));
        let bytes = render(&records, Format::Markdown, &TableOptions::default()).unwrap();
        let table = String::from_utf8(bytes).unwrap();
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_name_stays_in_its_cell() {
        assert_eq!(escape(r"a|b\|c"), r"a\|b\\\|c");
        assert_eq!(escape("<b>&*_`[x](y)~$\n"), "&lt;b&gt;&amp;\\*\\_\\`\\[x\\](y)\\~\\$\u{fffd}");

        let table = markdown(&[record("a|b\n| c |", 1.0)]);
        let columns = |line: &str| line.replace(r"\|", "").matches('|').count();
        let lines: Vec<_> = table.lines().take(3).map(columns).collect();
        assert_eq!(lines, [12, 12, 12], "{table}");
    }
}
