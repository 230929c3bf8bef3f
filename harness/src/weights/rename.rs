//! Rules that give a checkpoint's tensors the names its family knows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use super::{TensorInfo, TensorSource, WeightsError};

/// One rule: `FROM=TO`. `*` in FROM stands for any characters, as few as possible; the same number of
/// `*` in TO puts them back in order. An empty TO leaves the tensor out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    from: String,
    to: String,
}

/// Why a rule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No `=`, or nothing before it.
    #[error("{0:?} is no rule: expected FROM=TO, for example module.*=* or head.*=")]
    Form(String),
    /// A `*` too many or too few.
    #[error("{from}={to}: FROM has {found} `*` and TO has {put}; expected as many, or an empty TO")]
    Stars {
        /// The pattern.
        from: String,
        /// What it becomes.
        to: String,
        /// `*` in FROM.
        found: usize,
        /// `*` in TO.
        put: usize,
    },
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (from, to) = text.split_once('=').ok_or_else(|| RuleError::Form(text.to_owned()))?;
        Self::new(from, to)
    }
}

impl Rule {
    /// The rule that turns `from` into `to`.
    pub fn new(from: &str, to: &str) -> Result<Self, RuleError> {
        let (from, to) = (from.trim().to_owned(), to.trim().to_owned());
        if from.is_empty() {
            return Err(RuleError::Form(format!("{from}={to}")));
        }
        let (found, put) = (from.matches('*').count(), to.matches('*').count());
        if !to.is_empty() && found != put {
            return Err(RuleError::Stars { from, to, found, put });
        }
        Ok(Self { from, to })
    }

    /// The name it gives, empty to leave the tensor out; `None` where FROM does not match.
    fn apply(&self, name: &str) -> Option<String> {
        let pieces: Vec<&str> = self.from.split('*').collect();
        let (first, rest) = pieces.split_first()?;
        let tail = name.strip_prefix(first)?;
        let between = captures(rest, tail)?;
        let mut parts = self.to.split('*');
        let mut made = parts.next().unwrap_or_default().to_owned();
        for (part, text) in parts.zip(between) {
            made.push_str(text);
            made.push_str(part);
        }
        Some(made)
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.from, self.to)
    }
}

/// What stands before each of `pieces` so that together they make up `text`, each as short as can be.
fn captures<'a>(pieces: &[&str], text: &'a str) -> Option<Vec<&'a str>> {
    let Some((piece, rest)) = pieces.split_first() else {
        return text.is_empty().then(Vec::new);
    };
    if rest.is_empty() {
        return text.strip_suffix(piece).map(|before| vec![before]);
    }
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    for at in starts.filter(|&at| text[at..].starts_with(piece)) {
        if let Some(mut later) = captures(rest, &text[at + piece.len()..]) {
            later.insert(0, &text[..at]);
            return Some(later);
        }
    }
    None
}

/// A source whose tensors go by other names.
struct Renamed {
    inner: Box<dyn TensorSource>,
    /// New name to the one in the file.
    names: BTreeMap<String, String>,
}

/// Gives the tensors of `source` the names that `rules`, each applied to what those before it made,
/// lead to.
pub fn rename(
    source: Box<dyn TensorSource>,
    rules: &[Rule],
) -> Result<Box<dyn TensorSource>, WeightsError> {
    if rules.is_empty() {
        return Ok(source);
    }
    let mut all = source.names();
    all.sort();
    let mut used = vec![false; rules.len()];
    let mut names = BTreeMap::new();
    for raw in &all {
        let mut name = raw.clone();
        for (rule, used) in rules.iter().zip(&mut used) {
            if let Some(made) = rule.apply(&name) {
                *used = true;
                name = made;
            }
            if name.is_empty() {
                break;
            }
        }
        if name.is_empty() {
            continue;
        }
        if let Some(first) = names.insert(name.clone(), raw.clone()) {
            return Err(WeightsError::RenamedTwice { first, second: raw.clone(), name });
        }
    }
    if let Some((rule, _)) = rules.iter().zip(used).find(|(_, used)| !used) {
        return Err(WeightsError::RuleUnused {
            rule: rule.to_string(),
            source_name: source.describe(),
            some: all.into_iter().take(3).collect(),
        });
    }
    Ok(Box::new(Renamed { inner: source, names }))
}

impl TensorSource for Renamed {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.inner.info(self.names.get(name)?)
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError> {
        self.inner.bytes(self.names.get(name).map_or(name, String::as_str))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::super::RandomSource;
    use super::super::mapping::Expected;
    use super::*;

    fn apply(rule: &str, name: &str) -> Option<String> {
        rule.parse::<Rule>().unwrap().apply(name)
    }

    #[test]
    fn stars_are_put_back_in_order() {
        let block = "encoder.layer.*.attn.*=blocks.*.attn.*";
        assert_eq!(
            apply(block, "encoder.layer.11.attn.qkv.bias").unwrap(),
            "blocks.11.attn.qkv.bias"
        );
        assert_eq!(apply(block, "encoder.layer.11.mlp.fc1.bias"), None);
        assert_eq!(apply("module.*=*", "module.module.norm").unwrap(), "module.norm");
        assert_eq!(apply("cls=cls_token", "cls").unwrap(), "cls_token");
        assert_eq!(apply("cls=cls_token", "cls2"), None);
        assert_eq!(apply("head*=", "head.bias").unwrap(), "");
        assert_eq!(apply("*.a.a=*", "a.a.a.a").unwrap(), "a.a");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        assert!(matches!("module".parse::<Rule>(), Err(RuleError::Form(_))));
        assert!(matches!("=x".parse::<Rule>(), Err(RuleError::Form(_))));
        let error = "a.*.b.*=c.*".parse::<Rule>().unwrap_err().to_string();
        assert_eq!(
            error,
            "a.*.b.*=c.*: FROM has 2 `*` and TO has 1; expected as many, or an empty TO"
        );
    }

    fn source(names: &[&str]) -> Box<dyn TensorSource> {
        let expected = |name: &&str| Expected { name: (*name).to_owned(), shape: vec![2, 2] };
        Box::new(RandomSource::new(0, &names.iter().map(expected).collect::<Vec<_>>()))
    }

    fn renamed(names: &[&str], rules: &[&str]) -> Result<Box<dyn TensorSource>, WeightsError> {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        rename(source(names), &rules)
    }

    #[test]
    fn rules_follow_one_another_and_keep_the_bytes() {
        let raw = ["module.enc.w", "module.enc.b", "head.w"];
        let all = renamed(&raw, &["module.*=*", "enc.*=*", "head.*="]).unwrap();
        assert_eq!(all.names(), ["b", "w"]);
        assert_eq!(all.bytes("w").unwrap(), source(&raw).bytes("module.enc.w").unwrap());
        assert!(matches!(all.info("b").unwrap().element, super::super::Element::Real(DType::F32)));
        assert!(all.info("head.w").is_none());
    }

    #[test]
    fn two_tensors_of_one_name_and_rules_without_use_are_named() {
        let error = renamed(&["a.w", "b.w"], &["a.*=*", "b.*=*"]).err().unwrap().to_string();
        assert_eq!(error, "the rename rules give a.w and b.w the same name, w");
        let error = renamed(&["a.w"], &["x.*=*"]).err().unwrap().to_string();
        assert!(error.contains("x.*=* matches no tensor of"), "{error}");
        assert!(error.contains("for example a.w"), "{error}");
    }

    proptest! {
        #[test]
        fn a_prefix_taken_away_and_put_back_is_no_change(name in "[a-z.*]{0,3}[a-z.0-9]{1,12}") {
            prop_assume!(!name.contains('*'));
            let there: Rule = "*=p.*".parse().unwrap();
            let back: Rule = "p.*=*".parse().unwrap();
            prop_assert_eq!(back.apply(&there.apply(&name).unwrap()).unwrap(), name);
        }
    }
}
