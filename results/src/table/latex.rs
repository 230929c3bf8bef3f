//! LaTeX with booktabs: wide, best value bold, second underlined.

use schema::{Direction, RunRecord};

use super::wide::{Cell, Layout, Rank, Row, SAMPLE, Section, direction, letter, sections};
use super::{Exporter, TableError};
use crate::text::clean;

pub(super) struct Latex;

impl Exporter for Latex {
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError> {
        let mut out = "% Needs \\usepackage{booktabs} in the preamble.\n".to_owned();
        for section in sections(records, Layout::Backbones) {
            out += &table(&section);
        }
        Ok(out.into_bytes())
    }
}

fn table(section: &Section) -> String {
    let columns = "r".repeat(section.columns().count());
    let mut out = format!(
        "\\begin{{table}}\n\\centering\n\\caption{{{}}}\n\\vspace{{4pt}}\n\\begin{{tabular}}{{llr{columns}}}\n\\toprule\n",
        caption(section)
    );
    // The tasks, each over its metrics with a rule of its own.
    let (mut tasks, mut rules, mut from) = (String::new(), String::new(), 4);
    for group in &section.groups {
        let width = group.metrics.len();
        if width == 0 {
            continue;
        }
        let task = escape(&group.heading);
        tasks += &format!(" & \\multicolumn{{{width}}}{{c}}{{{task}}}");
        rules += &format!("\\cmidrule(lr){{{from}-{}}}", from + width - 1);
        from += width;
    }
    out += &format!(" & &{tasks} \\\\\n{rules}\n");
    let metrics = section.columns().map(|(_, metric)| {
        let arrow = match direction(metric) {
            Some(Direction::Up) => " $\\uparrow$",
            Some(Direction::Down) => " $\\downarrow$",
            None => "",
        };
        format!(" & {}{arrow}", escape(metric))
    });
    out += &format!("backbone & protocol & seed{} \\\\\n", metrics.collect::<String>());

    let mut above = None;
    for row in &section.rows {
        if above != Some(&row.protocol) {
            out += "\\midrule\n";
            above = Some(&row.protocol);
        }
        out += &format!("{} \\\\\n", cells(row).join(" & "));
    }
    out += "\\bottomrule\n\\end{tabular}\n";
    for (i, note) in section.notes.iter().enumerate() {
        // An empty line starts the paragraph that the note is.
        out += &format!("\n\\footnotesize\\textsuperscript{{{}}} {}\n", letter(i), escape(note));
    }
    out + "\\end{table}\n"
}

fn caption(section: &Section) -> String {
    let mut parts: Vec<String> = Vec::new();
    if section.sample {
        parts.push(escape(SAMPLE));
    }
    parts.extend(section.legend().iter().map(|text| escape(text)));
    if section.ranked() {
        parts.push(
            "\\textbf{Bold}: best, \\underline{underlined}: second, of the trained backbones under \
             one protocol."
                .to_owned(),
        );
    }
    parts.join(" ")
}

fn cells(row: &Row) -> Vec<String> {
    let notes: Vec<String> = row.notes.iter().map(|note| letter(*note)).collect();
    let notes = match notes.is_empty() {
        true => String::new(),
        false => format!("\\textsuperscript{{{}}}", notes.join(",")),
    };
    let mut cells = vec![
        // Braces: a name that starts with [ or * would be taken for an argument of the \\ before it.
        format!("{{{}}}{notes}", escape(&row.backbone)),
        escape(&row.protocol),
        row.seed.to_string(),
    ];
    cells.extend(row.cells.iter().map(|cell| {
        let Some(cell) = cell else { return "--".to_owned() };
        let Cell { text, rank, .. } = cell;
        let value = match rank {
            Rank::First => format!("\\textbf{{{text}}}"),
            Rank::Second => format!("\\underline{{{text}}}"),
            _ => text.clone(),
        };
        value + &cell.behind(|interval| format!("{{\\scriptsize {interval}}}"))
    }));
    cells
}

/// Letters beyond ASCII that LaTeX sets without a package.
const LETTERS: &str = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿœŒšŠžŽ";

/// Text that LaTeX sets as it is; a letter that its fonts lack is written as its code point.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '<' => out += "\\textless{}",
            '>' => out += "\\textgreater{}",
            '|' => out += "\\textbar{}",
            // Two dashes in a row would join to a longer one.
            '-' if out.ends_with('-') => out += "{}-",
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            'δ' => out += "$\\delta$",
            '±' => out += "$\\pm$",
            '×' => out += "$\\times$",
            '–' => out += "--",
            '\u{fffd}' => out.push('?'),
            // What LaTeX's own fonts have; any other letter stops pdflatex.
            c if c.is_ascii() || LETTERS.contains(c) => out.push(c),
            c => out += &format!("U+{:04X}", u32::from(c)),
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

    fn latex(records: &[RunRecord]) -> String {
        String::from_utf8(Latex.export(&records.iter().collect::<Vec<_>>()).unwrap()).unwrap()
    }

    #[test]
    fn the_table_of_three_backbones_and_a_sample_run() {
        let mut records = records();
        records.push(record("pixio-s", 30.0));
        records[0].outcome.warnings = vec!["100% made up".to_owned()];
        insta::assert_snapshot!(latex(&records));
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
        let bytes = render(&records, Format::Latex, &TableOptions::default()).unwrap();
        let table = String::from_utf8(bytes).unwrap();
        insta::assert_snapshot!(table);
    }

    #[test]
    fn no_character_of_a_name_is_a_command() {
        insta::assert_snapshot!(escape(r#"\input{/x}&%$#_^~<|>""#), @r#"\textbackslash{}input\{/x\}\&\%\$\#\_\textasciicircum{}\textasciitilde{}\textless{}\textbar{}\textgreater{}""#);
        assert_eq!(escape("a\nb"), "a?b");
        assert_eq!(escape("a--b---c"), "a-{}-b-{}-{}-c");
        let table = latex(&[record("[2em] & \\\\ x", 1.0)]);
        assert!(
            table.contains("\n{[2em] \\& \\textbackslash{}\\textbackslash{} x} & pixio"),
            "{table}"
        );
    }
}
