//! `slurm.toml`: what each job asks for. `[slurm]` holds for all of them, `[slurm.extract]`,
//! `[slurm.probe]` and `[slurm.table]` over it for one kind.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, Job, JobKind};
use crate::registry::nearest;

/// The file beside a sweep's that is read where none is given.
const FILE: &str = "slurm.toml";

const KEYS: [&str; 12] = [
    "account",
    "partition",
    "qos",
    "gpus-per-task",
    "cpus-per-task",
    "memory-gb",
    "time",
    "warning",
    "constraint",
    "mail-user",
    "extra",
    "setup",
];

/// Options that scripts write themselves: with another value jobs could be neither found again nor told.
const RESERVED: [&str; 7] = ["--array", "-a", "--job-name", "-J", "--dependency", "-d", "--signal"];

/// Seconds between Slurm's signal and the time limit.
const WARNING: u64 = 120;
/// Slurm may send it so many seconds earlier than asked for.
const EARLY: u64 = 60;

/// GPUs of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// So many of any kind.
    Number(u64),
    /// As `--gres` takes it, for example `gpu:a100:1`.
    Resource(String),
}

#[derive(Clone, Debug)]
struct Limit {
    seconds: u64,
    line: usize,
}

/// One table of the file.
#[derive(Clone, Debug, Default)]
struct Set {
    account: Option<String>,
    partition: Option<String>,
    qos: Option<String>,
    gpus: Option<Gpus>,
    cpus: Option<u64>,
    memory_gb: Option<u64>,
    time: Option<Limit>,
    warning: Option<u64>,
    constraint: Option<String>,
    mail_user: Option<String>,
    extra: Option<Vec<String>>,
    setup: Option<Vec<String>>,
}

/// A launcher's config file. The default asks for nothing but what the jobs need.
#[derive(Clone, Debug, Default)]
pub struct Config {
    general: Set,
    kinds: [Set; 3],
}

/// What a job asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Who pays.
    pub account: Option<String>,
    /// Where it runs.
    pub partition: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Absent where it needs none.
    pub gpus: Option<Gpus>,
    /// CPUs of a task.
    pub cpus: Option<u64>,
    /// Memory of a task in GB.
    pub memory_gb: Option<u64>,
    /// Longest time of a task in seconds, after which it goes on in a new turn.
    pub time: Option<u64>,
    /// Seconds before the time limit at which a task is told.
    pub warning: u64,
    /// Features that a node must have.
    pub constraint: Option<String>,
    /// Who is written to.
    pub mail_user: Option<String>,
    /// Further options of sbatch, each as it stands in a script.
    pub extra: Vec<String>,
    /// Shell lines before the command.
    pub setup: Vec<String>,
}

impl Config {
    /// Reads `given`, else `slurm.toml` beside `sweep` where it is there.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn find(given: Option<&Path>, sweep: &Path) -> Result<Self, ConfigError> {
        let beside = sweep.parent().unwrap_or(Path::new("")).join(FILE);
        match given {
            Some(path) => Self::read(path),
            None if beside.is_file() => Self::read(&beside),
            None => Ok(Self::default()),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Reader { path, text: &text }.config()
    }

    /// What a job asks for: what the file says, else what the job needs.
    pub fn resources(&self, job: &Job) -> Resources {
        let (own, all) = (&self.kinds[job.kind as usize], &self.general);
        fn pick<T: Clone>(own: &Option<T>, all: &Option<T>) -> Option<T> {
            own.clone().or_else(|| all.clone())
        }
        // What the file says of GPUs in general is no reason to give one to a job that needs none.
        let gpus = match (&own.gpus, job.gpu) {
            (Some(gpus), _) => Some(gpus.clone()),
            (None, true) => Some(all.gpus.clone().unwrap_or(Gpus::Number(1))),
            (None, false) => None,
        };
        let warning = own.warning.or(all.warning).unwrap_or(WARNING);
        // Twice the estimate: what is not done by then costs a turn in the queue, no work.
        let estimate = |minutes: u64| (120 * minutes).max(1800).max(4 * warning);
        let limit = pick(&own.time, &all.time).map(|limit| limit.seconds);
        Resources {
            account: pick(&own.account, &all.account),
            partition: pick(&own.partition, &all.partition),
            qos: pick(&own.qos, &all.qos),
            gpus: gpus.filter(|gpus| *gpus != Gpus::Number(0)),
            cpus: own.cpus.or(all.cpus),
            memory_gb: own.memory_gb.or(all.memory_gb).or(job.memory_gb),
            time: limit.or(job.minutes.map(estimate)),
            warning,
            constraint: pick(&own.constraint, &all.constraint),
            mail_user: pick(&own.mail_user, &all.mail_user),
            extra: pick(&own.extra, &all.extra).unwrap_or_default(),
            setup: pick(&own.setup, &all.setup).unwrap_or_default(),
        }
    }
}

type Key<'a> = (&'a str, usize);

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let file = DeTable::parse(self.text).map_err(|error| ConfigError::Form {
            path: self.path(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            why: error.message().trim().to_owned(),
        })?;
        let mut config = Config::default();
        for (key, value) in file.get_ref() {
            if key.get_ref() != "slurm" {
                return Err(self.unknown(key, "the file", &["slurm"]));
            }
            let key = (&**key.get_ref(), self.line(value.span().start));
            for (name, value) in self.table(key, value)? {
                let kind = JobKind::ALL.into_iter().find(|kind| kind.name() == name.get_ref());
                let Some(kind) = kind else {
                    let known = KEYS.into_iter().chain(JobKind::ALL.map(JobKind::name));
                    let known: Vec<&str> = known.collect();
                    self.set(&mut config.general, name, value, "[slurm]", &known)?;
                    continue;
                };
                let table = format!("[slurm.{}]", kind.name());
                let key = (kind.name(), self.line(name.span().start));
                for (name, value) in self.table(key, value)? {
                    self.set(&mut config.kinds[kind as usize], name, value, &table, &KEYS)?;
                }
            }
        }
        self.check(&config)?;
        Ok(config)
    }

    /// A limit so short that every turn would begin with the signal to end.
    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        for own in &config.kinds {
            let warning = own.warning.or(config.general.warning).unwrap_or(WARNING);
            let Some(limit) = own.time.as_ref().or(config.general.time.as_ref()) else { continue };
            if limit.seconds <= warning + EARLY {
                let expected = format!(
                    "more than {} (a task is told {warning} s before its end, and Slurm may be \
                     {EARLY} s early)",
                    time(warning + EARLY)
                );
                return Err(self.value(("time", limit.line), &expected, &time(limit.seconds)));
            }
        }
        Ok(())
    }

    fn set(
        &self,
        set: &mut Set,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        table: &str,
        known: &[&str],
    ) -> Result<(), ConfigError> {
        let key: Key<'_> = (name.get_ref(), self.line(value.span().start));
        let found = value.get_ref();
        match key.0 {
            "account" => set.account = Some(self.word(key, found)?),
            "partition" => set.partition = Some(self.word(key, found)?),
            "qos" => set.qos = Some(self.word(key, found)?),
            "constraint" => set.constraint = Some(self.word(key, found)?),
            "mail-user" => set.mail_user = Some(self.word(key, found)?),
            "cpus-per-task" => set.cpus = Some(self.number(key, found, 1)?),
            "memory-gb" => set.memory_gb = Some(self.number(key, found, 1)?),
            "warning" => set.warning = Some(self.number(key, found, 1)?),
            "gpus-per-task" => {
                set.gpus = Some(match found {
                    DeValue::String(_) => Gpus::Resource(self.word(key, found)?),
                    _ => Gpus::Number(self.number(key, found, 0)?),
                });
            }
            "time" => {
                let form = "\"HH:MM:SS\" or \"D-HH:MM:SS\", in quotes";
                let seconds = found.as_str().and_then(seconds);
                let seconds = seconds.ok_or_else(|| self.value(key, form, &shown(found)))?;
                set.time = Some(Limit { seconds, line: key.1 });
            }
            "extra" => {
                let lines = self.lines(key, found)?;
                for line in &lines {
                    let option = line.split(['=', ' ']).next().unwrap_or_default();
                    if !line.starts_with('-') || line.contains(char::is_control) {
                        let form = "options of sbatch, for example \"--reservation=x\"";
                        return Err(self.value(key, form, &format!("{line:?}")));
                    }
                    if RESERVED.contains(&option) {
                        let form = "options that the program does not write itself";
                        return Err(self.value(key, form, &format!("{line:?}")));
                    }
                }
                set.extra = Some(lines);
            }
            "setup" => set.setup = Some(self.lines(key, found)?),
            _ => return Err(self.unknown(name, table, known)),
        }
        Ok(())
    }

    fn table<'v, 'i>(
        &self,
        key: Key<'_>,
        value: &'v Spanned<DeValue<'i>>,
    ) -> Result<&'v DeTable<'i>, ConfigError> {
        let found = value.get_ref();
        found.as_table().ok_or_else(|| self.value(key, "a table", &shown(found)))
    }

    fn word(&self, key: Key<'_>, found: &DeValue<'_>) -> Result<String, ConfigError> {
        let fits = |word: &&str| !word.is_empty() && !word.contains(char::is_control);
        let word = found.as_str().filter(fits);
        word.map(str::to_owned).ok_or_else(|| self.value(key, "text in one line", &shown(found)))
    }

    fn number(&self, key: Key<'_>, found: &DeValue<'_>, least: u64) -> Result<u64, ConfigError> {
        let number = found.as_integer();
        let number = number.and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        number.filter(|n| (least..=1_000_000).contains(n)).ok_or_else(|| {
            self.value(key, &format!("a whole number, at least {least}"), &shown(found))
        })
    }

    fn lines(&self, key: Key<'_>, found: &DeValue<'_>) -> Result<Vec<String>, ConfigError> {
        let wrong = |found: &DeValue<'_>| self.value(key, "an array of texts", &shown(found));
        let items = found.as_array().ok_or_else(|| wrong(found))?;
        let text = |item: &Spanned<DeValue<'_>>| {
            // A script cannot hold a NUL.
            let text = item.get_ref().as_str().filter(|text| !text.contains('\0'));
            text.map(str::to_owned).ok_or_else(|| wrong(item.get_ref()))
        };
        items.iter().map(text).collect()
    }

    fn value(&self, (key, line): Key<'_>, expected: &str, found: &str) -> ConfigError {
        ConfigError::Value {
            path: self.path(),
            line,
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }

    fn unknown(
        &self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        table: &str,
        known: &[&str],
    ) -> ConfigError {
        ConfigError::Unknown {
            path: self.path(),
            line: self.line(key.span().start),
            key: key.get_ref().to_string(),
            table: table.to_owned(),
            known: known.join(", "),
            near: nearest(key.get_ref(), known.iter().copied()),
        }
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(answer) => answer.to_string(),
        DeValue::Datetime(time) => format!("the TOML time {time}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Seconds of `HH:MM:SS` or `D-HH:MM:SS`.
fn seconds(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let number = |text: &str| {
        let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let mut parts = clock.split(':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || minutes > 59 || seconds > 59 || (text.contains('-') && hours > 23)
    {
        return None;
    }
    Some(((number(days)? * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// Seconds as Slurm takes them.
pub(super) fn time(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let mut text = String::new();
    if hours >= 24 {
        let _ = write!(text, "{}-", hours / 24);
    }
    let _ = write!(text, "{:02}:{:02}:{:02}", hours % 24, minutes % 60, seconds % 60);
    text
}
