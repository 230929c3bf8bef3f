//! A comparison in words.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::{ALPHA, Comparison, PairLine};
use crate::text::{clean, shown_value, wrap};

/// Columns of a terminal that everything fits in where the names allow it.
const WIDTH: u16 = 100;

impl Comparison {
    /// Tables for the terminal. The pairs are shown for two backbones, and for more where
    /// `all_pairs` is set; the standings for more than two.
    pub fn text(&self, all_pairs: bool) -> String {
        let several = self.standings.len() > 2;
        let mut out = String::new();
        if several {
            out += &self.standings_text();
        }
        if !several || all_pairs {
            for (i, lines) in self.pairs.chunk_by(|x, y| x.a == y.a && x.b == y.b).enumerate() {
                if several || i > 0 {
                    out.push('\n');
                }
                out += &pair_text(lines);
            }
        }
        for seeds in self.seeds.iter().filter(|_| !several || all_pairs) {
            let told = format!(
                "{} - {}, {} {} over {} seeds: mean {}, standard deviation {} (of training again, \
                 not of images)",
                clean(&seeds.a),
                clean(&seeds.b),
                clean(&seeds.task),
                clean(&seeds.metric),
                seeds.seeds,
                signed(&seeds.metric, seeds.mean),
                shown_value(&seeds.metric, seeds.sd),
            );
            out += &format!("{}\n", wrap(&told, WIDTH.into()));
        }
        for note in &self.notes {
            out += &format!("{}\n", wrap(&format!("note: {}", clean(note)), WIDTH.into()));
        }
        out
    }

    fn standings_text(&self) -> String {
        let mut table = table(&["backbone", "average rank", "wins", "ties", "losses"]);
        for standing in &self.standings {
            table.add_row([
                clean(&standing.backbone),
                standing.average_rank.map_or("–".to_owned(), |rank| format!("{rank:.2}")),
                standing.wins.to_string(),
                standing.ties.to_string(),
                standing.losses.to_string(),
            ]);
        }
        align(&mut table, 1);
        let ranked = self.standings.first().map_or(0, |standing| standing.ranked_in);
        let told = format!(
            "Ranks: mean over the {ranked} tasks and seeds that every backbone has. Wins and losses: \
             pairs of runs that differ at p < {ALPHA} after Holm's correction within each pair of \
             backbones."
        );
        format!("{}\n{}\n", table.trim_fmt(), wrap(&told, WIDTH.into()))
    }
}

/// One pair of backbones over their tasks.
fn pair_text(lines: &[PairLine]) -> String {
    let Some(first) = lines.first() else { return String::new() };
    let protocol = lines.iter().any(|line| line.protocol != first.protocol);
    let seed = lines.iter().any(|line| line.seed != first.seed);
    let mut header = vec!["task"];
    header.extend(protocol.then_some("protocol"));
    header.extend(seed.then_some("seed"));
    // Policies are told apart by their metric.
    let policy = |line: &&PairLine| line.metric.split('/').next() == Some("score");
    let episodes = lines.iter().filter(policy).count();
    let count = if episodes == lines.len() { "episodes" } else { "images" };
    header.extend(["metric", count, "A", "B", "A - B", "95% interval", "p", "Holm", "better"]);
    let texts = 2 + usize::from(protocol) + usize::from(seed);
    let mut table = table(&header);
    for line in lines {
        let mut cells = vec![clean(&line.task)];
        cells.extend(protocol.then(|| clean(&line.protocol)));
        cells.extend(seed.then(|| line.seed.to_string()));
        let interval = line.interval.map_or("–".to_owned(), |interval| {
            let [low, high] = [interval.low, interval.high].map(|x| signed(&line.metric, x));
            format!("{low} {high}")
        });
        cells.extend([
            clean(&line.metric),
            line.images.to_string(),
            shown_value(&line.metric, line.value_a),
            shown_value(&line.metric, line.value_b),
            signed(&line.metric, line.difference),
            interval,
            p_text(line.p),
            p_text(line.p_holm),
            match line.better {
                "a" => "A".to_owned(),
                "b" => "B".to_owned(),
                other => other.to_owned(),
            },
        ]);
        table.add_row(cells);
    }
    align(&mut table, texts);
    // A task's name is not broken where it has the usual length.
    let longest = lines.iter().map(|line| line.task.chars().count()).max().unwrap_or(0);
    if let (Some(tasks), 1..=24) = (table.column_mut(0), longest) {
        tasks.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(longest as u16 + 2)));
    }
    let over = match episodes {
        0 => "images",
        all if all == lines.len() => "episodes",
        _ => "images (of policies: episodes)",
    };
    let mut told = String::new();
    if !protocol {
        told += &format!("protocol {}", clean(&first.protocol));
    }
    if !seed {
        told += &format!("{}seed {}", if told.is_empty() { "" } else { ", " }, first.seed);
    }
    if !told.is_empty() {
        told += ". ";
    }
    told += &format!(
        "{} Intervals: bootstrap over {over}; p: paired permutation over {over}; Holm: corrected over \
         the rows; better at {ALPHA}.",
        epoch(lines)
    );
    if episodes > 0 {
        told += " An episode is one start of a task, for all seeds together; neither training again nor \
                 the choice of an evaluation is in the intervals.";
    }
    format!(
        "A: {}\nB: {}\n{}\n{}\n",
        clean(&first.a),
        clean(&first.b),
        table.trim_fmt(),
        wrap(&told, WIDTH.into())
    )
}

/// Which epoch the values and intervals are of.
fn epoch(lines: &[PairLine]) -> String {
    let at_last: Vec<&str> =
        lines.iter().filter(|line| line.selection == "last").map(|line| &*line.task).collect();
    match at_last.len() {
        0 if lines.iter().all(|line| line.selection == "best-each") => {
            "Best evaluation of each policy.".to_owned()
        }
        0 => "Best epoch of each run.".to_owned(),
        all if all == lines.len() => "Last epoch.".to_owned(),
        _ => format!("Best epoch of each run; {}: last epoch.", clean(&at_last.join(", "))),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header.iter().copied());
    table
}

/// Numbers stand on the right.
fn align(table: &mut Table, texts: usize) {
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn signed(metric: &str, value: f64) -> String {
    let text = shown_value(metric, value);
    if value > 0.0 { format!("+{text}") } else { text }
}

fn p_text(p: f64) -> String {
    match p {
        p if p.is_nan() => "–".to_owned(),
        p if p < 1e-3 => format!("{p:.0e}"),
        p => format!("{p:.3}"),
    }
}
