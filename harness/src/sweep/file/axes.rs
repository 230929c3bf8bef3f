//! What can vary, and how one value of it is read.

use schema::TaskHead;
use toml::de::DeValue;

use super::Problem;
use crate::registry::nearest;
use crate::resolve::Override;
use crate::run::{CELLS, Cell, TokenChoice, parse_cell};

/// Axes by their name; beside them there are paths of a protocol, and of a backbone behind `override.`.
const AXES: [&str; 17] = [
    "backbone",
    "task",
    "head",
    "protocol",
    "block",
    "taps",
    "tokens",
    "class-tokens",
    "resolution",
    "learning-rate",
    "weight-decay",
    "epochs",
    "seed",
    "stream-seed",
    "limit",
    "k",
    "temperature",
];
/// Where paths of a protocol begin.
const STAGES: [&str; 10] = [
    "image",
    "feature",
    "vote",
    "observation",
    "training",
    "rollout",
    "sample",
    "head",
    "objective",
    "evaluation",
];
/// Where paths of a backbone begin.
const FIELDS: [&str; 5] = ["resolution", "mean", "std", "recipe", "config"];
const OVERRIDE: &str = "override.";
const PROTOCOLS: [&str; 3] = ["pixio", "cortexbench-lite", "sample"];

/// A data set, and its head where the file names it with the data set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub(super) dataset: String,
    pub(super) head: Option<String>,
}

impl Task {
    /// The heads it can have.
    pub(super) fn heads(&self) -> Vec<&str> {
        match &self.head {
            Some(head) => vec![head],
            None => CELLS.iter().filter(|(d, _)| *d == self.dataset).map(|(_, h)| *h).collect(),
        }
    }

    /// Its head in a combination with `head`, one of `all`; none if it has no such head.
    pub(super) fn choose<'a>(
        &'a self,
        head: Option<&'a str>,
        all: &[impl AsRef<str>],
    ) -> Option<&'a str> {
        let has = self.heads();
        match all.iter().any(|head| has.contains(&head.as_ref())) {
            true => head.filter(|head| has.contains(head)),
            false if has.len() == 1 => has.first().copied(),
            false => None,
        }
    }
}

/// A value of an axis: what it changes in a cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Backbone(String),
    Task(Task),
    Head(String),
    Protocol(String),
    Block(usize),
    Taps(Vec<usize>),
    Tokens(TokenChoice),
    ClassTokens(usize),
    LearningRate(f64),
    WeightDecay(f64),
    Epochs(usize),
    Seed(u64),
    StreamSeed(u64),
    Limit(usize),
    K(Vec<usize>),
    Temperature(f64),
    Override(Override),
    Set(Override),
}

impl Change {
    pub(super) fn apply(&self, cell: &mut Cell) {
        let settings = &mut cell.settings;
        match self {
            Self::Backbone(name) => cell.backbone.clone_from(name),
            // Only both together make a cell's task.
            Self::Task(_) | Self::Head(_) => {}
            Self::Protocol(name) => settings.protocol.clone_from(name),
            Self::Block(block) => settings.block = Some(*block),
            Self::Taps(taps) => settings.taps = Some(taps.clone()),
            Self::Tokens(tokens) => settings.tokens = Some(*tokens),
            Self::ClassTokens(count) => settings.class_tokens = Some(*count),
            Self::LearningRate(rate) => settings.learning_rate = Some(*rate),
            Self::WeightDecay(decay) => settings.weight_decay = Some(*decay),
            Self::Epochs(epochs) => settings.epochs = Some(*epochs),
            Self::Seed(seed) => settings.seed = *seed,
            Self::StreamSeed(seed) => settings.stream_seed = Some(*seed),
            Self::Limit(limit) => settings.limit = Some(*limit),
            Self::K(k) => settings.k.clone_from(k),
            Self::Temperature(temperature) => settings.temperature = Some(*temperature),
            Self::Override(change) => cell.overrides.push(change.clone()),
            Self::Set(change) => settings.set.push(change.clone()),
        }
    }
}

fn is_axis(key: &str) -> bool {
    AXES.contains(&key)
}

/// Whether a table under `key` holds paths that begin with it, and is no value.
pub(super) fn is_root(key: &str) -> bool {
    !is_axis(key) || STAGES.contains(&key)
}

/// Whether one value can be a list.
pub(super) fn takes_list(axis: &str) -> bool {
    matches!(axis, "taps" | "k") || axis.contains('.')
}

/// Whether its values can be a range.
pub(super) fn takes_range(axis: &str) -> bool {
    matches!(
        axis,
        "block" | "class-tokens" | "resolution" | "epochs" | "seed" | "stream-seed" | "limit"
    )
}

/// The value of an axis whose values are whole numbers.
pub(super) fn counted(axis: &str, number: u64) -> Option<Change> {
    let size = usize::try_from(number).ok()?;
    Some(match (axis, number) {
        ("epochs", _) => Change::Epochs(size),
        ("seed", _) => Change::Seed(number),
        ("stream-seed", _) => Change::StreamSeed(number),
        (_, 0) => return None,
        ("block", _) => Change::Block(size),
        ("class-tokens", _) => Change::ClassTokens(size),
        ("limit", _) => Change::Limit(size),
        ("resolution", _) => Change::Override(format!("resolution={number}").parse().ok()?),
        _ => return None,
    })
}

/// The axis that a key stands for.
pub(super) fn axis(key: &str) -> Result<String, Problem> {
    if is_axis(key) {
        return Ok(key.to_owned());
    }
    let (path, roots) = match key.strip_prefix(OVERRIDE) {
        Some("resolution") => return Ok("resolution".to_owned()),
        Some(path) => (path, &FIELDS[..]),
        None => (key, &STAGES[..]),
    };
    let (root, rest) = path.split_once('.').unwrap_or((path, ""));
    let whole = !rest.is_empty() && rest.split('.').all(|part| !part.is_empty());
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    // A backbone's field may be a value itself.
    let whole = whole || (path != key && rest.is_empty() && !path.ends_with('.'));
    if whole && plain && roots.contains(&root) {
        return Ok(key.to_owned());
    }
    let stages = STAGES.map(|stage| format!("{stage}."));
    let (near, known) = match key.strip_prefix(OVERRIDE) {
        Some(path) => {
            let near = nearest(path, FIELDS.into_iter());
            let near = near.iter().map(|field| format!("{OVERRIDE}{field}")).collect();
            (near, FIELDS.map(|field| format!("{OVERRIDE}{field}")).join(", "))
        }
        None => {
            let all =
                || AXES.into_iter().chain([OVERRIDE]).chain(stages.iter().map(String::as_str));
            let near = Some(nearest(key, all())).filter(|near| !near.is_empty());
            let near = near.unwrap_or_else(|| nearest(root, all()));
            let known = match key.contains('.') {
                true => format!("paths that begin with {OVERRIDE}, {}", stages.join(", ")),
                false => format!(
                    "{}; paths of a protocol, such as \"training.warmup\"; and fields of a backbone, \
                     such as \"override.mean\"",
                    AXES.join(", ")
                ),
            };
            (near, known)
        }
    };
    Err(Problem::Unknown { what: "axis", name: key.to_owned(), known, near })
}

/// One value of an axis.
pub(super) struct Value<'a> {
    /// As [`axis`] gives it.
    pub(super) axis: &'a str,
    pub(super) value: &'a DeValue<'a>,
    /// As the file spells it.
    pub(super) found: String,
}

impl Value<'_> {
    pub(super) fn change(&self) -> Result<Change, Problem> {
        Ok(match self.axis {
            "backbone" => Change::Backbone(self.word()?.to_owned()),
            "task" => Change::Task(self.task()?),
            "head" => {
                let mut heads: Vec<&str> = CELLS.iter().map(|(_, head)| *head).collect();
                heads.sort_unstable();
                heads.dedup();
                Change::Head(self.one_of("head", &heads)?.to_owned())
            }
            "protocol" => Change::Protocol(self.one_of("protocol", &PROTOCOLS)?.to_owned()),
            "tokens" => {
                let name = self.one_of("tokens", &TokenChoice::ALL.map(TokenChoice::name))?;
                let choice = TokenChoice::ALL.into_iter().find(|choice| choice.name() == name);
                Change::Tokens(choice.ok_or_else(|| self.expected("patch, class or both"))?)
            }
            "taps" => Change::Taps(self.wholes(0)?),
            "k" => Change::K(self.wholes(1)?),
            "learning-rate" => Change::LearningRate(self.number(true)?),
            "temperature" => Change::Temperature(self.number(true)?),
            "weight-decay" => Change::WeightDecay(self.number(false)?),
            axis if takes_range(axis) => {
                let change = whole(self.value).and_then(|number| counted(axis, number));
                change.ok_or_else(|| match counted(axis, 0) {
                    Some(_) => self.expected("a whole number"),
                    None => self.expected("a whole number above 0"),
                })?
            }
            path => match path.strip_prefix(OVERRIDE) {
                Some(field) => Change::Override(self.any(field)?),
                None => Change::Set(self.any(path)?),
            },
        })
    }

    pub(super) fn expected(&self, expected: &str) -> Problem {
        let (axis, expected) = (self.axis.to_owned(), expected.to_owned());
        Problem::Value { axis, expected, found: self.found.clone() }
    }

    fn word(&self) -> Result<&str, Problem> {
        let word = self.value.as_str().filter(|word| !word.is_empty());
        word.ok_or_else(|| self.expected("a name in quotes"))
    }

    fn one_of(&self, what: &'static str, known: &[&str]) -> Result<&str, Problem> {
        let name = self.word()?;
        if known.contains(&name) {
            return Ok(name);
        }
        let near = nearest(name, known.iter().copied());
        Err(Problem::Unknown { what, name: name.to_owned(), known: known.join(", "), near })
    }

    fn task(&self) -> Result<Task, Problem> {
        let name = self.word()?;
        if CELLS.iter().any(|(dataset, _)| *dataset == name) {
            return Ok(Task { dataset: name.to_owned(), head: None });
        }
        if let Ok(TaskHead { dataset, head }) = parse_cell(name) {
            return Ok(Task { dataset, head: Some(head) });
        }
        let mut known: Vec<String> = Vec::new();
        for (dataset, head) in CELLS {
            let robot = *head == "policy";
            let short =
                if robot { format!("cortexbench/{dataset}") } else { (*dataset).to_owned() };
            if known.last() != Some(&short) {
                known.push(short);
            }
        }
        let long = CELLS.iter().filter(|(_, head)| *head != "policy");
        let long: Vec<String> = long.map(|(dataset, head)| format!("{dataset}/{head}")).collect();
        let near = nearest(name, known.iter().chain(&long).map(String::as_str));
        let known = format!("{}; or DATASET/HEAD", known.join(", "));
        Err(Problem::Unknown { what: "task", name: name.to_owned(), known, near })
    }

    fn wholes(&self, least: u64) -> Result<Vec<usize>, Problem> {
        let single = || whole(self.value).map(|number| vec![Some(number)]);
        let list = || self.value.as_array().map(|l| l.iter().map(|n| whole(n.get_ref())).collect());
        let numbers: Option<Vec<usize>> = single().or_else(list).and_then(|numbers| {
            let fit = |n: Option<u64>| usize::try_from(n.filter(|&n| n >= least)?).ok();
            numbers.into_iter().map(fit).collect()
        });
        let numbers = numbers.filter(|numbers| !numbers.is_empty());
        numbers.ok_or_else(|| match least {
            0 => self.expected("whole numbers"),
            _ => self.expected("whole numbers above 0"),
        })
    }

    fn number(&self, above_zero: bool) -> Result<f64, Problem> {
        let number = match self.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(_) => integer(self.value).map(|number| number as f64),
            _ => None,
        };
        let fits = |x: &f64| x.is_finite() && if above_zero { *x > 0.0 } else { *x >= 0.0 };
        number.filter(fits).ok_or_else(|| match above_zero {
            true => self.expected("a number above 0"),
            false => self.expected("a number, 0 or above"),
        })
    }

    fn any(&self, key: &str) -> Result<Override, Problem> {
        let spelled = spelled(self.value, false).ok_or_else(|| {
            self.expected("a number, text, true or false, or a list of such values")
        })?;
        self.pair(key, &spelled)
    }

    fn pair(&self, key: &str, value: &str) -> Result<Override, Problem> {
        format!("{key}={value}").parse().map_err(|expected: String| self.expected(&expected))
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

pub(super) fn whole(value: &DeValue<'_>) -> Option<u64> {
    integer(value).and_then(|number| u64::try_from(number).ok())
}

/// A value as `--set` takes it: one spelling for equal values, so that equal cells are seen to be.
fn spelled(value: &DeValue<'_>, quoted: bool) -> Option<String> {
    Some(match value {
        DeValue::Integer(_) => integer(value)?.to_string(),
        DeValue::Float(float) => {
            let number: f64 = float.as_str().parse().ok().filter(|x: &f64| x.is_finite())?;
            match number.fract() == 0.0 && number.abs() < 1e15 {
                true => (number as i64).to_string(),
                false => format!("{number:?}"),
            }
        }
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::String(text) => {
            let plain = format!("key={text}").parse::<Override>();
            let plain = plain.is_ok_and(|parsed| parsed.value().as_str() == Some(text.as_ref()));
            match plain && !quoted {
                true => text.to_string(),
                false => toml::Value::String(text.to_string()).to_string(),
            }
        }
        DeValue::Array(items) => {
            let items: Option<Vec<String>> =
                items.iter().map(|item| spelled(item.get_ref(), true)).collect();
            format!("[{}]", items?.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_protocol_have_one_spelling() {
        for (given, want) in [
            ("0", "0"),
            ("0.0", "0"),
            ("1e-4", "0.0001"),
            ("0.00010", "0.0001"),
            ("1e300", "1e300"),
            ("0x1F", "31"),
            ("1_000", "1000"),
            ("-2.5", "-2.5"),
            ("[5, 50.0]", "[5,50]"),
            ("true", "true"),
            ("'batch'", "batch"),
            ("'7'", "\"7\""),
            ("' a'", "\" a\""),
            ("''", "\"\""),
            ("['a', 'b c']", "[\"a\",\"b c\"]"),
        ] {
            let value = DeValue::parse(given).unwrap();
            let told = spelled(value.get_ref(), false).unwrap();
            assert_eq!(told, want);
            // What is spelled is what is read.
            let read: Override = format!("training.x={told}").parse().unwrap();
            let document: toml::Table = toml::from_str(&format!("x = {given}")).unwrap();
            let plain = serde_json::to_value(&document["x"]).unwrap();
            let numbers = |value: &serde_json::Value| match value.as_f64() {
                Some(number) => vec![number],
                None => value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(serde_json::Value::as_f64)
                    .collect(),
            };
            assert_eq!(numbers(read.value()), numbers(&plain), "{given}");
            assert!(read.value().is_string() == plain.is_string(), "{given}");
        }
        for none in ["1979-05-27", "{ a = 1 }", "nan", "[inf]"] {
            assert_eq!(spelled(DeValue::parse(none).unwrap().get_ref(), false), None, "{none}");
        }
    }
}
