//! What a run says while it works: to stderr, as bars on a terminal and as plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors and warnings alone.
    Quiet,
    /// Progress and what was done.
    Normal,
    /// Also how.
    Verbose,
}

/// The way to stderr that keeps bars and lines apart.
pub struct Reporter {
    bars: MultiProgress,
    terminal: bool,
    verbosity: Verbosity,
    plain_every: Duration,
    watcher: Option<Arc<Watcher>>,
}

/// Told a bar's label, how much is done, and of how much.
type Watcher = dyn Fn(&str, u64, u64) + Send + Sync;

impl Reporter {
    /// Bars when stderr is a terminal.
    pub fn new(verbosity: Verbosity) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = match terminal && verbosity > Verbosity::Quiet {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        let plain_every = Duration::from_secs(10);
        Self { bars, terminal, verbosity, plain_every, watcher: None }
    }

    /// Also tells `watcher` each bar's label, how much is done, and of how much.
    #[must_use]
    pub fn watched(mut self, watcher: impl Fn(&str, u64, u64) + Send + Sync + 'static) -> Self {
        self.watcher = Some(Arc::new(watcher));
        self
    }

    /// A line, unless quiet.
    pub fn say(&self, line: impl AsRef<str>) {
        if self.verbosity >= Verbosity::Normal {
            self.line(line.as_ref());
        }
    }

    /// A line under `-v`.
    pub fn detail(&self, line: impl AsRef<str>) {
        if self.verbosity >= Verbosity::Verbose {
            self.line(line.as_ref());
        }
    }

    /// A line even when quiet.
    pub fn warn(&self, line: impl AsRef<str>) {
        self.line(&format!("warning: {}", line.as_ref()));
    }

    fn line(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }

    /// Progress over `total` items; `unit` is what the rate counts.
    pub fn items(&self, label: &str, total: u64, unit: &'static str) -> Bar {
        let template = "{msg:<28} {wide_bar:.cyan/dim} {pos}/{len} {per_sec} eta {eta}";
        self.bar(label, total, unit, template)
    }

    /// Progress over `total` bytes.
    pub fn bytes(&self, label: &str, total: u64) -> Bar {
        let template =
            "{msg:<28} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
        self.bar(label, total, "bytes", template)
    }

    fn bar(&self, label: &str, total: u64, unit: &'static str, template: &str) -> Bar {
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━━─");
        let bar = self.bars.add(ProgressBar::new(total).with_style(style));
        bar.set_message(label.to_owned());
        let plain = (!self.terminal && self.verbosity >= Verbosity::Normal).then(|| {
            Mutex::new(Plain {
                label: label.to_owned(),
                unit,
                total,
                began: Instant::now(),
                first: None,
                last: Instant::now(),
                every: self.plain_every,
            })
        });
        let watcher = self.watcher.clone();
        Bar { label: label.to_owned(), total, bar, plain, watcher }
    }
}

struct Plain {
    label: String,
    unit: &'static str,
    total: u64,
    began: Instant,
    first: Option<u64>,
    last: Instant,
    every: Duration,
}

/// One line of progress; it disappears when dropped.
pub struct Bar {
    label: String,
    total: u64,
    bar: ProgressBar,
    plain: Option<Mutex<Plain>>,
    watcher: Option<Arc<Watcher>>,
}

impl Bar {
    /// Says more behind the label, for example the losses so far.
    pub fn note(&self, note: &str) {
        match &self.plain {
            None => self.bar.set_message(format!("{} {note}", self.label)),
            Some(plain) => {
                let mut plain = plain.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                plain.label = format!("{} {note}", self.label);
            }
        }
    }

    /// Sets how much is done.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
        if let Some(watcher) = &self.watcher {
            watcher(&self.label, done, self.total);
        }
        let Some(plain) = &self.plain else { return };
        let mut plain = plain.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = *plain.first.get_or_insert(done);
        if plain.last.elapsed() < plain.every {
            return;
        }
        plain.last = Instant::now();
        let rate = done.saturating_sub(first) as f64 / plain.began.elapsed().as_secs_f64();
        let left = plain.total.saturating_sub(done) as f64 / rate;
        let left = if rate > 0.0 { format!("{left:.0}") } else { "?".to_owned() };
        let Plain { label, unit, total, .. } = &*plain;
        eprintln!("{label}: {done}/{total} {unit}, {rate:.1} {unit}/s, {left} s left");
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
