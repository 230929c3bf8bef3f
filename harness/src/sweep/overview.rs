//! What the workers of a sweep are at: a line each on a terminal, plain lines now and then elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::claims::{Life, State, Watched};
use crate::progress::Reporter;

/// How often a line is said where there is no terminal, though nothing but numbers changed.
const PLAIN: Duration = Duration::from_secs(30);

/// A live overview.
pub struct Overview<'a> {
    reporter: &'a Reporter,
    bars: Option<MultiProgress>,
    lines: BTreeMap<String, Line>,
}

struct Line {
    bar: Option<ProgressBar>,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

impl<'a> Overview<'a> {
    /// One that shows nothing yet.
    pub fn new(reporter: &'a Reporter) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { reporter, bars, lines: BTreeMap::new() }
    }

    /// Shows the workers of a launch that have not ended, on this machine and on others.
    pub fn show(&mut self, workers: &[Watched], launch: &str) {
        for worker in workers {
            let id = worker.file.id.clone();
            let over = !matches!(worker.life, Life::Alive);
            if over {
                if let Some(Line { bar: Some(bar), .. }) = self.lines.remove(&id) {
                    bar.finish_and_clear();
                }
                continue;
            }
            let other = if worker.file.launch == launch { "" } else { " (another launch)" };
            let text = format!("{}{other}", line(worker));
            let bars = &self.bars;
            let shown = self.lines.entry(id).or_insert_with(|| Line {
                bar: bars.as_ref().map(|bars| {
                    let style = ProgressStyle::with_template("{msg}");
                    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                    bars.add(ProgressBar::new(1).with_style(style))
                }),
                said: None,
            });
            if let Some(bar) = &shown.bar {
                bar.set_message(text);
                continue;
            }
            let what = format!("{}: {}", worker.file.device, worker.file.status.label);
            let again = match &shown.said {
                None => !worker.file.status.label.is_empty(),
                Some((before, at)) => *before != what || at.elapsed() > PLAIN,
            };
            if again {
                self.reporter.say(&text);
                shown.said = Some((what, Instant::now()));
            }
        }
    }

    /// Takes everything off the terminal.
    pub fn clear(&mut self) {
        for (_, line) in std::mem::take(&mut self.lines) {
            if let Some(bar) = line.bar {
                bar.finish_and_clear();
            }
        }
    }
}

/// What one worker is at.
pub fn line(worker: &Watched) -> String {
    let (file, status) = (&worker.file, &worker.file.status);
    let place = format!("{} {}", file.process.host, file.device);
    let what = match (worker.life, file.state) {
        (Life::Dead, _) => "dead".to_owned(),
        (Life::Ended(State::Interrupted), _) => "stopped".to_owned(),
        (Life::Ended(_), _) => "ended".to_owned(),
        (Life::Alive, _) if status.label.is_empty() => "starts".to_owned(),
        (Life::Alive, State::Idle) => "waits for others".to_owned(),
        (Life::Alive, _) if status.total > 0 => {
            let share = 100 * status.done.min(status.total) / status.total;
            format!("{}: {} {share}%", status.label, status.note)
        }
        (Life::Alive, _) => status.label.clone(),
    };
    let quiet = match worker.quiet > Duration::from_secs(15) && worker.life == Life::Alive {
        true => format!(", silent for {} s", worker.quiet.as_secs()),
        false => String::new(),
    };
    format!("{place}: {what}{quiet}")
}
