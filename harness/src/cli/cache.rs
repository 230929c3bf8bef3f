use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::args::CacheCommand;
use super::backbones::trimmed;
use super::{CliError, EXIT_DONE, EXIT_FAILED, print, print_json};
use crate::cache::{self, Entry};
use crate::locate;
use crate::progress::Reporter;

#[derive(Serialize)]
struct Line {
    folder: String,
    about: String,
    bytes: u64,
    days_unused: u64,
    in_use: bool,
    current: bool,
}

#[derive(Serialize)]
struct Damaged {
    file: String,
    problem: String,
}

pub(super) fn cache(command: CacheCommand, reporter: &Reporter) -> Result<u8, CliError> {
    let folder = locate::cache();
    match command {
        CacheCommand::List { json } => {
            let lines: Vec<Line> = cache::list(&folder)?.iter().map(line).collect();
            if json {
                print_json(&lines)?;
            } else {
                print(table(&lines).as_bytes())?;
                let total: u64 = lines.iter().map(|line| line.bytes).sum();
                reporter.say(format!("{} in {}", size(total), folder.display()));
            }
        }
        CacheCommand::Verify { json, remove } => {
            let (files, damaged) = cache::verify(&folder)?;
            if remove {
                for one in &damaged {
                    cache::remove(&one.path)?;
                }
            }
            let lines: Vec<Damaged> = damaged
                .iter()
                .map(|one| Damaged {
                    file: one.path.display().to_string(),
                    problem: one.problem.clone(),
                })
                .collect();
            if json {
                print_json(&lines)?;
            } else {
                let text = lines.iter().map(|one| format!("{}: {}\n", one.file, one.problem));
                print(text.collect::<String>().as_bytes())?;
            }
            let removed = if remove && !lines.is_empty() { ", removed" } else { "" };
            reporter.say(format!("{files} files, {} damaged{removed}", lines.len()));
            if !lines.is_empty() && !remove {
                return Ok(EXIT_FAILED);
            }
        }
        CacheCommand::Prune { unused_days, dry_run } => {
            let unused = Duration::from_secs(unused_days.saturating_mul(24 * 3600));
            let removed: Vec<Line> =
                cache::prune(&folder, unused, dry_run)?.iter().map(line).collect();
            let total: u64 = removed.iter().map(|line| line.bytes).sum();
            print(
                removed
                    .iter()
                    .map(|line| format!("{}\n", line.folder))
                    .collect::<String>()
                    .as_bytes(),
            )?;
            let word = if dry_run { "would be removed" } else { "removed" };
            reporter.say(format!("{} sets, {}, {word}", removed.len(), size(total)));
        }
    }
    Ok(EXIT_DONE)
}

fn line(entry: &Entry) -> Line {
    let idle = SystemTime::now().duration_since(entry.last_used).unwrap_or_default();
    Line {
        folder: entry.folder.display().to_string(),
        about: entry.about.clone(),
        bytes: entry.bytes,
        days_unused: idle.as_secs() / (24 * 3600),
        in_use: entry.in_use,
        current: entry.current,
    }
}

fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["what", "size", "unused", "folder"]);
    for line in lines {
        let unused = match (line.in_use, line.days_unused) {
            (true, _) => "in use".to_owned(),
            (_, 0) => "today".to_owned(),
            (_, 1) => "1 day".to_owned(),
            (_, days) => format!("{days} days"),
        };
        let older = if line.current { "" } else { " (of an older version)" };
        let about = format!("{}{older}", line.about);
        table.add_row([about, size(line.bytes), unused, line.folder.clone()]);
    }
    format!("{}\n", trimmed(&table))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
