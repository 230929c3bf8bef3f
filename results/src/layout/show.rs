//! A filled-in layout as text, Markdown, LaTeX or HTML.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use schema::{Direction, Selection, describe};

use super::grid::{Cell, Grid, Spread};
use super::{Layout, LayoutColumn};
use crate::table::{SAMPLE, escape_html, escape_latex, escape_markdown, letter};
use crate::text::{clean, wrap};

/// Columns of a terminal.
const WIDTH: usize = 100;

/// What stands above and below a table, in plain words.
fn caption(layout: &Layout, grid: &Grid) -> Vec<String> {
    let mut told = vec![layout.caption.clone()];
    told.extend(grid.sample.then(|| SAMPLE.to_owned()));
    if grid.published {
        let tables = match layout.published.as_slice() {
            [one] => format!("Table {one}"),
            many => format!("Tables {}", many.join(", ")),
        };
        told.push(format!("Published figures: {tables} of the Pixio paper (arXiv 2512.15715)."));
    }
    let cells = || grid.groups.iter().flatten().flat_map(|row| row.cells.iter().flatten());
    if cells().any(|cell| cell.difference.is_some()) {
        told.push("In brackets: difference to the published figure.".to_owned());
    }
    let of = |policy: bool| layout.columns.iter().any(|column| column.is_policy() == policy);
    if of(false) {
        let epoch = match grid.selection {
            Selection::Last => "the last epoch",
            Selection::Best => "the epoch chosen by rmse or mIoU",
            Selection::BestEach => "each metric at its own best epoch",
        };
        told.push(format!("Heads that are trained: {epoch}."));
    }
    if of(true) {
        let evaluation = match grid.selection {
            Selection::Last => "the last evaluation",
            Selection::Best => "the evaluation, the same for all, chosen by score",
            Selection::BestEach => "each at its best evaluation",
        };
        told.push(format!("Policies: {evaluation}."));
    }
    if cells().any(|cell| matches!(cell.spread, Some(Spread::Interval(..)))) {
        told.push(match (of(false), of(true)) {
            (_, false) => "In square brackets: 95% interval over validation images, at the epoch of the value."
                .to_owned(),
            (false, _) => "In square brackets: 95% interval over episodes of the evaluation shown, whose choice is \
                not in it.".to_owned(),
            (true, true) => "In square brackets: 95% interval over validation images, at the epoch of the value; of \
                policies over episodes of the evaluation shown, whose choice is not in it.".to_owned(),
        });
    }
    if cells().any(|cell| matches!(cell.spread, Some(Spread::Seeds(_)))) {
        told.push(
            "±: standard deviation over seeds, of training again and not of images.".to_owned(),
        );
    }
    told
}

fn arrow(column: &LayoutColumn) -> Option<Direction> {
    describe(column.described()).map(|metric| metric.direction)
}

const NAMES: [&str; 3] = ["backbone", "architecture", "parameters"];

/// The groups of the columns with the number of columns under each.
fn groups(layout: &Layout) -> Vec<(&str, usize)> {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for column in &layout.columns {
        match groups.last_mut() {
            Some((name, count)) if *name == column.group => *count += 1,
            _ => groups.push((&column.group, 1)),
        }
    }
    groups
}

/// What stands behind the number of a cell; `small` sets its spread in smaller print.
fn behind(cell: &Cell, small: impl Fn(&str) -> String) -> String {
    let spread = cell.spread.as_ref().map(|spread| match spread {
        Spread::Interval(low, high) => small(&format!("[{low}, {high}]")),
        Spread::Seeds(sd) => small(&format!("± {sd}")),
    });
    let difference = cell.difference.as_ref().map(|text| format!("({text})"));
    [spread, difference].into_iter().flatten().map(|part| format!(" {part}")).collect()
}

fn letters(cell: &Cell) -> Option<String> {
    let letters: Vec<String> = cell.notes.iter().map(|note| letter(*note)).collect();
    (!letters.is_empty()).then(|| letters.join(","))
}

/// For the terminal, which has no room for architectures.
pub(super) fn to_text(layout: &Layout, grid: &Grid) -> String {
    let mut table = Table::new();
    let arrow = |column: &LayoutColumn| match arrow(column) {
        Some(Direction::Up) => " ↑",
        Some(Direction::Down) => " ↓",
        None => "",
    };
    let heading = |c: &LayoutColumn| clean(&format!("{} {}{}", c.group, c.heading, arrow(c)));
    let headings = layout.columns.iter().map(heading);
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH as u16)
        .set_header(["backbone".to_owned()].into_iter().chain(headings));
    for row in grid.groups.iter().flatten() {
        let cell = |cell: &Option<Cell>| match cell {
            Some(cell) => {
                let behind = behind(cell, str::to_owned);
                format!("{}{behind}", cell.text)
                    + &letters(cell).map(|text| format!(" [{text}]")).unwrap_or_default()
            }
            None => "–".to_owned(),
        };
        table.add_row([clean(&row.backbone)].into_iter().chain(row.cells.iter().map(cell)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // The usual names are not broken.
    let rows = grid.groups.iter().flatten();
    let longest = rows.map(|row| row.backbone.chars().count()).max().unwrap_or(0).clamp(8, 20);
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(longest as u16 + 2)));
    }
    let mut out = format!(
        "{}\n{}\n",
        table.trim_fmt(),
        wrap(&clean(&caption(layout, grid).join(" ")), WIDTH)
    );
    for (i, note) in grid.notes.iter().enumerate() {
        out += &format!("{}\n", wrap(&clean(&format!("[{}] {note}", letter(i))), WIDTH));
    }
    out
}

pub(super) fn to_markdown(layout: &Layout, grid: &Grid) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let heading = |c: &LayoutColumn| {
        let arrow = match arrow(c) {
            Some(Direction::Up) => " ↑",
            Some(Direction::Down) => " ↓",
            None => "",
        };
        format!("{}{arrow}", escape_markdown(format!("{} {}", c.group, c.heading).trim()))
    };
    let mut out = format!("{}\n\n", escape_markdown(&caption(layout, grid).join(" ")));
    out += &line(
        NAMES.map(str::to_owned).into_iter().chain(layout.columns.iter().map(heading)).collect(),
    );
    let rules = (0..3 + layout.columns.len()).map(|at| if at < 2 { ":--" } else { "--:" });
    out += &line(rules.map(str::to_owned).collect());
    for row in grid.groups.iter().flatten() {
        let cell = |cell: &Option<Cell>| {
            let Some(cell) = cell else { return "–".to_owned() };
            let text = match cell.place {
                1 => format!("**{}**", cell.text),
                2 => format!("<u>{}</u>", cell.text),
                _ => cell.text.clone(),
            };
            let behind = behind(cell, str::to_owned);
            let notes = letters(cell).map(|text| format!(" <sup>{text}</sup>")).unwrap_or_default();
            format!("{text}{behind}{notes}")
        };
        let names =
            [&row.backbone, &row.architecture, &row.parameters].map(|text| escape_markdown(text));
        out += &line(names.into_iter().chain(row.cells.iter().map(cell)).collect());
    }
    for (i, note) in grid.notes.iter().enumerate() {
        out += &format!("\n<sup>{}</sup> {}\n", letter(i), escape_markdown(note));
    }
    out
}

pub(super) fn to_latex(layout: &Layout, grid: &Grid) -> String {
    let columns = "r".repeat(layout.columns.len());
    let mut out = format!(
        "% Needs \\usepackage{{booktabs}} in the preamble.\n\\begin{{table}}\n\\centering\n\
         \\caption{{{}}}\n\\vspace{{4pt}}\n\\begin{{tabular}}{{llr{columns}}}\n\\toprule\n",
        escape_latex(&caption(layout, grid).join(" "))
    );
    let (mut heads, mut rules, mut from) = (String::new(), String::new(), 4);
    for (name, width) in groups(layout) {
        heads += &format!(" & \\multicolumn{{{width}}}{{c}}{{{}}}", escape_latex(name));
        rules += &format!("\\cmidrule(lr){{{from}-{}}}", from + width - 1);
        from += width;
    }
    out += &format!(" & &{heads} \\\\\n{rules}\n{}", NAMES.join(" & "));
    for column in &layout.columns {
        let arrow = match arrow(column) {
            Some(Direction::Up) => " $\\uparrow$",
            Some(Direction::Down) => " $\\downarrow$",
            None => "",
        };
        out += &format!(" & {}{arrow}", escape_latex(&column.heading));
    }
    out += " \\\\\n";
    for group in &grid.groups {
        out += "\\midrule\n";
        for row in group {
            let names = [&row.backbone, &row.architecture, &row.parameters];
            // Braces: a name that starts with [ or * would be taken for an argument of the \\ before it.
            out += &names.map(|text| format!("{{{}}}", escape_latex(text))).join(" & ");
            for cell in &row.cells {
                let Some(cell) = cell else {
                    out += " & --";
                    continue;
                };
                let text = match cell.place {
                    1 => format!("\\textbf{{{}}}", cell.text),
                    2 => format!("\\underline{{{}}}", cell.text),
                    _ => cell.text.clone(),
                };
                let behind =
                    behind(cell, |spread| format!("{{\\scriptsize {}}}", escape_latex(spread)));
                let notes = letters(cell);
                let notes = notes.map(|text| format!("\\textsuperscript{{{text}}}"));
                out += &format!(" & {text}{behind}{}", notes.unwrap_or_default());
            }
            out += " \\\\\n";
        }
    }
    out += "\\bottomrule\n\\end{tabular}\n";
    for (i, note) in grid.notes.iter().enumerate() {
        // An empty line starts the paragraph that the note is.
        let note = escape_latex(note);
        out += &format!("\n\\footnotesize\\textsuperscript{{{}}} {note}\n", letter(i));
    }
    out + "\\end{table}\n"
}

pub(super) fn to_html(layout: &Layout, grid: &Grid) -> String {
    let caption = escape_html(&caption(layout, grid).join(" "));
    let mut out =
        format!("<table>\n<caption>{caption}</caption>\n<thead>\n<tr><td colspan=\"3\"></td>");
    for (name, width) in groups(layout) {
        out += &format!("<th colspan=\"{width}\" scope=\"colgroup\">{}</th>", escape_html(name));
    }
    out += "</tr>\n<tr>";
    out += &NAMES.map(|name| format!("<th scope=\"col\">{name}</th>")).concat();
    for column in &layout.columns {
        let arrow = match arrow(column) {
            Some(Direction::Up) => " ↑",
            Some(Direction::Down) => " ↓",
            None => "",
        };
        out += &format!("<th scope=\"col\">{}{arrow}</th>", escape_html(&column.heading));
    }
    out += "</tr>\n</thead>\n";
    for group in &grid.groups {
        out += "<tbody>\n";
        for row in group {
            out += &format!("<tr><th scope=\"row\">{}</th>", escape_html(&row.backbone));
            for text in [&row.architecture, &row.parameters] {
                out += &format!("<td>{}</td>", escape_html(text));
            }
            for cell in &row.cells {
                let Some(cell) = cell else {
                    out += "<td>–</td>";
                    continue;
                };
                let text = match cell.place {
                    1 => format!("<b>{}</b>", cell.text),
                    2 => format!("<u>{}</u>", cell.text),
                    _ => cell.text.clone(),
                };
                let behind = behind(cell, |spread| format!("<small>{spread}</small>"));
                let notes = letters(cell).map(|text| format!("<sup>{text}</sup>"));
                out += &format!("<td>{text}{behind}{}</td>", notes.unwrap_or_default());
            }
            out += "</tr>\n";
        }
        out += "</tbody>\n";
    }
    out += "</table>\n";
    for (i, note) in grid.notes.iter().enumerate() {
        out += &format!("<p><sup>{}</sup> {}</p>\n", letter(i), escape_html(note));
    }
    out
}
