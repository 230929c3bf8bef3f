//! A plan in words, for a preflight.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use super::Schedule;

/// Columns of a terminal that everything fits in.
const WIDTH: u16 = 80;
/// Columns of a name.
const COLUMN: usize = 42;
/// Streams that are listed by name.
const LISTED: usize = 20;

/// What streams and devices are called, by their index.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Streams.
    pub streams: &'a [String],
    /// Devices.
    pub devices: &'a [String],
}

impl Names<'_> {
    /// Without anything that could act on a terminal, and no longer than a column.
    fn of(names: &[String], kind: &str, index: usize) -> String {
        let Some(name) = names.get(index) else { return format!("{kind} {index}") };
        let name: Vec<char> =
            name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        match name.len() {
            0..=COLUMN => name.into_iter().collect(),
            // Names of checkpoints differ at their end, those of backbones at their beginning.
            length => {
                let (first, last) =
                    (&name[..COLUMN / 3], &name[length - (COLUMN - COLUMN / 3 - 1)..]);
                first.iter().chain(&['…']).chain(last).collect()
            }
        }
    }
}

/// The plan for a terminal of 80 columns: streams, devices, and how far the plan is from the bound.
pub fn describe(schedule: &Schedule, names: &Names) -> String {
    let cells: usize = schedule.units.iter().map(|unit| unit.probes.len()).sum();
    let mut out = format!(
        "{} in {} on {}, about {}.\n",
        counted(cells, "cell"),
        counted(schedule.units.len(), "unit"),
        counted(schedule.devices.len(), "device"),
        shown_time(schedule.makespan),
    );
    out += &format!(
        "{} of an encoder, {} if every cell ran alone.\n",
        match schedule.passes.shared {
            1 => "1 pass".to_owned(),
            more => format!("{more} passes"),
        },
        schedule.passes.alone
    );
    if schedule.lower_bound > 0.0 {
        let over = 100.0 * (schedule.makespan / schedule.lower_bound - 1.0);
        let bound = shown_time(schedule.lower_bound);
        out += &format!("No plan can take less than {bound}; this one takes {over:.0}% more.\n");
    }
    let oversized: Vec<_> = schedule.units.iter().filter(|unit| unit.oversized).collect();
    if let Some(largest) = oversized.iter().map(|unit| unit.memory).max() {
        let needs = if oversized.len() == 1 { "needs" } else { "need" };
        out += &format!(
            "warning: {} {needs} more memory than any device has, up to {:.1} GiB:\n",
            counted(oversized.len(), "unit"),
            largest as f64 / f64::from(1 << 30),
        );
        let mut streams: Vec<usize> = oversized.iter().map(|unit| unit.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        for &stream in streams.iter().take(LISTED) {
            out += &format!("  {}\n", Names::of(names.streams, "stream", stream));
        }
        if streams.len() > LISTED {
            out += &format!("  and {} more\n", streams.len() - LISTED);
        }
    }
    out += &table(["stream", "cells", "units", "time"], streams(schedule, names));
    out += &table(["device", "cells", "units", "ends", "busy"], devices(schedule, names));
    out
}

/// Rows of streams, the longest first; what is not listed shares the last.
fn streams(schedule: &Schedule, names: &Names) -> Vec<Vec<String>> {
    let count = schedule.units.iter().map(|unit| unit.stream + 1).max().unwrap_or(0);
    let mut rows: Vec<(usize, usize, usize, f64)> = (0..count).map(|i| (i, 0, 0, 0.0)).collect();
    for slot in schedule.devices.iter().flatten() {
        let unit = &schedule.units[slot.unit];
        let row = &mut rows[unit.stream];
        row.1 += unit.probes.len();
        row.2 += 1;
        row.3 += slot.end - slot.start;
    }
    rows.sort_by(|a, b| b.3.total_cmp(&a.3));
    // One more is no longer than the line that stands for it.
    let listed = if rows.len() <= LISTED + 1 { rows.len() } else { LISTED };
    let text = |name: String, (cells, units, seconds): (usize, usize, f64)| {
        vec![name, cells.to_string(), units.to_string(), shown_time(seconds)]
    };
    let (first, rest) = rows.split_at(listed);
    let mut out: Vec<_> = first
        .iter()
        .map(|&(i, cells, units, seconds)| {
            text(Names::of(names.streams, "stream", i), (cells, units, seconds))
        })
        .collect();
    if !rest.is_empty() {
        let sum =
            rest.iter().fold((0, 0, 0.0), |sum, row| (sum.0 + row.1, sum.1 + row.2, sum.2 + row.3));
        out.push(text(format!("{} more", rest.len()), sum));
    }
    out
}

fn devices(schedule: &Schedule, names: &Names) -> Vec<Vec<String>> {
    let row = |(device, slots): (usize, &Vec<super::Slot>)| {
        let cells: usize = slots.iter().map(|slot| schedule.units[slot.unit].probes.len()).sum();
        let busy: f64 = slots.iter().map(|slot| slot.end - slot.start).sum();
        let share = if schedule.makespan > 0.0 { 100.0 * busy / schedule.makespan } else { 0.0 };
        vec![
            Names::of(names.devices, "device", device),
            cells.to_string(),
            slots.len().to_string(),
            shown_time(slots.last().map_or(0.0, |slot| slot.end)),
            format!("{share:.0}%"),
        ]
    };
    schedule.devices.iter().enumerate().map(row).collect()
}

fn table<const N: usize>(header: [&str; N], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n", table.trim_fmt())
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Seconds with two or three figures, in the largest unit that keeps one before the point.
fn shown_time(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.0} min", s / 60.0),
        s if s < 99.95 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}
