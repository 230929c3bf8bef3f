//! For the terminal: a box a data set, so that any number of tasks stays readable. Its heads are rows.

use std::collections::BTreeMap;

use comfy_table::{
    Cell as Field, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets,
};
use schema::RunRecord;

use super::wide::{Cell, Layout, Row, SAMPLE, Section, letter, sections};
use super::{Exporter, TableError};
use crate::headline::chosen_by;
use crate::text::{clean, wrap};

/// Columns of a terminal that everything fits in where the names allow it.
const WIDTH: u16 = 100;

pub(super) struct Text;

impl Exporter for Text {
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError> {
        let mut tables = Vec::new();
        for ((dataset, _), records) in boxes(records) {
            let sections = sections(&records, Layout::Heads);
            tables.extend(sections.iter().map(|section| table(dataset, section)));
        }
        Ok(tables.join("\n").into_bytes())
    }
}

/// Records by data set and kind of task: k-NN and a trained head have no metric in common.
fn boxes<'a>(
    records: &[&'a RunRecord],
) -> BTreeMap<(&'a str, Option<&'static str>), Vec<&'a RunRecord>> {
    let mut boxes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in records {
        let kind = chosen_by(&record.plan);
        boxes.entry((record.plan.task.dataset.as_str(), kind)).or_default().push(*record);
    }
    boxes
}

fn table(dataset: &str, section: &Section) -> String {
    let head = section.one_head();
    let (protocol, seed) = (section.one_protocol(), section.one_seed());
    let mut header = vec!["backbone".to_owned()];
    header.extend(head.is_none().then(|| "head".to_owned()));
    header.extend(protocol.is_none().then(|| "protocol".to_owned()));
    header.extend(seed.is_none().then(|| "seed".to_owned()));
    let texts = header.len() - usize::from(seed.is_none());
    header.extend(section.columns().map(|(_, metric)| heading(metric)));

    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header);
    for row in &section.rows {
        let mut cells = vec![backbone(row)];
        cells.extend(head.is_none().then(|| clean(&row.head)));
        cells.extend(protocol.is_none().then(|| clean(&row.protocol)));
        cells.extend(seed.is_none().then(|| row.seed.to_string()));
        let shown = |cell: &Option<Cell>| match cell {
            None => "–".to_owned(),
            Some(Cell { text, interval: Some(interval), .. }) => format!("{text}\n{interval}"),
            Some(cell) => cell.text.clone(),
        };
        cells.extend(row.cells.iter().map(shown));
        table.add_row(cells.into_iter().map(Field::new).collect::<Vec<_>>());
    }
    // Numbers are never broken; names are, where there is no room.
    for column in table.column_iter_mut().skip(texts) {
        column.set_constraint(ColumnConstraint::ContentWidth);
        column.set_cell_alignment(CellAlignment::Right);
    }

    let mut caption = Vec::new();
    let mut shared: Vec<String> =
        protocol.map(|name| format!("protocol {}", clean(name))).into_iter().collect();
    shared.extend(seed.map(|seed| format!("seed {seed}")));
    if !shared.is_empty() {
        caption.push(format!("{}.", shared.join(", ")));
    }
    caption.extend(section.legend());

    let mut out = clean(dataset);
    out.extend(head.map(|head| format!("/{}", clean(head))));
    if section.sample {
        out += &format!("\n{SAMPLE}");
    }
    out += &format!("\n{}\n{}\n", table.trim_fmt(), wrap(&caption.join(" "), WIDTH.into()));
    for (i, note) in section.notes.iter().enumerate() {
        out += &format!("{}\n", wrap(&clean(&format!("[{}] {note}", letter(i))), WIDTH.into()));
    }
    out
}

/// `top1@10` in two short lines, so that eight metrics fit beside a name.
fn heading(metric: &str) -> String {
    match metric.split_once('@') {
        Some((name, k)) => {
            format!("{}\n@{k}", clean(&name.replacen("top", "top-", 1)), k = clean(k))
        }
        None => clean(metric),
    }
}

fn backbone(row: &Row) -> String {
    let mut name = clean(&row.backbone);
    for note in &row.notes {
        name += &format!(" [{}]", letter(*note));
    }
    name
}

#[cfg(test)]
mod tests {
    use schema::Selection;

    use super::*;
    use crate::fixtures::{
        dense_record, mixed_records, on_sample_data, record, records, untrained, without_epochs,
    };
    use crate::{Format, TableOptions, render};

    fn text(records: &[RunRecord]) -> String {
        String::from_utf8(Text.export(&records.iter().collect::<Vec<_>>()).unwrap()).unwrap()
    }

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap()
    }

    #[test]
    fn the_table_of_three_backbones_and_a_sample_run() {
        let text = text(&records());
        insta::assert_snapshot!(text);
        assert!(widest(&text) <= 100);
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
        let bytes = render(&records, Format::Text, &TableOptions::default()).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        insta::assert_snapshot!(text);
        assert!(widest(&text) <= 100);
    }

    #[test]
    fn protocols_and_seeds_that_differ_get_columns() {
        let mut records = records();
        records[2].plan.seed = 1;
        records[3].plan.protocol.name = "pixio+limit=100".to_owned();
        records[3].outcome.warnings = vec![
            "one class has no image in the val split of this data set and another has two"
                .to_owned(),
        ];
        let text = text(&records);
        insta::assert_snapshot!(text);
        assert!(widest(&text) <= 100);
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        let mut records = mixed_records();
        records.truncate(5);
        records.push(without_epochs(dense_record("pixio-b", "ade20k", "dpt", 20.0)));
        let options = TableOptions {
            selection: Some(Selection::BestEach),
            metrics: ["rmse", "silog", "miou", "iou/wall"].map(str::to_owned).into(),
            ..TableOptions::default()
        };
        let text = String::from_utf8(render(&records, Format::Text, &options).unwrap()).unwrap();
        insta::assert_snapshot!(text);
        assert!(widest(&text) <= 100);
    }

    #[test]
    fn a_long_or_hostile_name_breaks_no_line() {
        let name = format!("\u{1b}[2J{}", "checkpoints/".repeat(20));
        let text = text(&[record(&name, 1.0)]);
        assert!(widest(&text) <= 100, "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
