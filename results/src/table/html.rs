//! HTML tables: wide, best value bold.

use schema::{Direction, RunRecord};

use super::wide::{Cell, Layout, Rank, SAMPLE, Section, direction, letter, sections};
use super::{Exporter, TableError};
use crate::text::clean;

pub(super) struct Html;

impl Exporter for Html {
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError> {
        let tables: Vec<String> = sections(records, Layout::Backbones).iter().map(table).collect();
        Ok(tables.join("\n").into_bytes())
    }
}

fn table(section: &Section) -> String {
    let mut caption: Vec<String> = section.sample.then(|| SAMPLE.to_owned()).into_iter().collect();
    caption.extend(section.legend());
    if section.ranked() {
        caption.push("Bold: best of the trained backbones under one protocol.".to_owned());
    }
    let mut out = format!(
        "<table>\n<caption>{}</caption>\n<thead>\n<tr><td colspan=\"3\"></td>",
        escape(&caption.join(" "))
    );
    for group in section.groups.iter().filter(|group| !group.metrics.is_empty()) {
        let (width, task) = (group.metrics.len(), escape(&group.heading));
        out += &format!("<th colspan=\"{width}\" scope=\"colgroup\">{task}</th>");
    }
    out += "</tr>\n<tr>";
    out += &["backbone", "protocol", "seed"]
        .map(|name| format!("<th scope=\"col\">{name}</th>"))
        .concat();
    for (_, metric) in section.columns() {
        let arrow = match direction(metric) {
            Some(Direction::Up) => " ↑",
            Some(Direction::Down) => " ↓",
            None => "",
        };
        out += &format!("<th scope=\"col\">{}{arrow}</th>", escape(metric));
    }
    out += "</tr>\n</thead>\n<tbody>\n";
    for row in &section.rows {
        let notes: Vec<String> = row.notes.iter().map(|note| letter(*note)).collect();
        let notes = match notes.is_empty() {
            true => String::new(),
            false => format!("<sup>{}</sup>", notes.join(",")),
        };
        out += &format!(
            "<tr><th scope=\"row\">{}{notes}</th><td>{}</td><td>{}</td>",
            escape(&row.backbone),
            escape(&row.protocol),
            row.seed
        );
        for cell in &row.cells {
            let Some(cell) = cell else {
                out += "<td>–</td>";
                continue;
            };
            let Cell { text, rank, .. } = cell;
            let interval = cell.behind(|interval| format!("<small>{interval}</small>"));
            out += &match rank {
                Rank::First => format!("<td><b>{text}</b>{interval}</td>"),
                _ => format!("<td>{text}{interval}</td>"),
            };
        }
        out += "</tr>\n";
    }
    out += "</tbody>\n</table>\n";
    for (i, note) in section.notes.iter().enumerate() {
        out += &format!("<p><sup>{}</sup> {}</p>\n", letter(i), escape(note));
    }
    out
}

/// Text that HTML shows as it is, in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{mixed_records, on_sample_data, record};
    use crate::{Format, TableOptions, render};

    #[test]
    fn no_name_is_markup() {
        let escaped = escape("<script a='b' c=\"d\">&amp;\n");
        assert_eq!(escaped, "&lt;script a=&#39;b&#39; c=&quot;d&quot;&gt;&amp;amp;\u{fffd}");
    }

    #[test]
    fn the_table_of_real_and_sample_runs() {
        let mut records = mixed_records();
        records.push(on_sample_data(record("<b>&", 1.0)));
        let bytes = render(&records, Format::Html, &TableOptions::default()).unwrap();
        insta::assert_snapshot!(String::from_utf8(bytes).unwrap());
    }
}
