//! From a sweep to its cells.

use std::collections::HashSet;

use schema::TaskHead;

use super::axes::Change;
use super::{Block, FileError, Problem, Rule, Sweep, pattern};
use crate::run::{Cell, Settings};

/// The most combinations that one sweep can have: their cells are held in memory.
const LIMIT: u128 = 10_000_000;

/// The cells of a sweep, and what became of its combinations: `combinations` is the sum of the cells, of
/// `without_head`, `excluded` and `merged`.
#[derive(Debug)]
pub struct Expanded {
    /// All different, without the settings that their head does not have.
    pub cells: Vec<Cell>,
    /// How many the file describes.
    pub combinations: usize,
    /// Those of a head that the data set does not have.
    pub without_head: usize,
    /// Those that the rules left out.
    pub excluded: usize,
    /// Those that are an earlier cell again.
    pub merged: usize,
    /// Rules without effect.
    pub warnings: Vec<FileError>,
}

/// Rules of one kind, and how many combinations each matches.
struct Rules<'a> {
    kind: &'static str,
    rules: &'a [Rule],
    hits: Vec<usize>,
}

impl<'a> Rules<'a> {
    fn new(kind: &'static str, rules: &'a [Rule]) -> Self {
        Self { kind, rules, hits: vec![0; rules.len()] }
    }

    /// Whether any matches.
    fn match_any(&mut self, picked: &[&Change], task: &TaskHead) -> bool {
        let mut any = false;
        for (rule, hits) in self.rules.iter().zip(&mut self.hits) {
            let hit = rule.matches(picked, task);
            *hits += usize::from(hit);
            any |= hit;
        }
        any
    }

    fn unused(&self) -> impl Iterator<Item = (usize, Problem)> {
        let unused = self.rules.iter().zip(&self.hits).filter(|(_, hits)| **hits == 0);
        unused.map(|(rule, _)| (rule.line, Problem::Unused(self.kind)))
    }

    fn told(&self) -> impl Iterator<Item = String> {
        let kind = self.kind;
        let told = move |(rule, hits): (&Rule, &usize)| {
            format!("[[{kind}]] of line {} matches {hits}", rule.line)
        };
        self.rules.iter().zip(&self.hits).map(told)
    }
}

impl Rule {
    fn matches(&self, picked: &[&Change], task: &TaskHead) -> bool {
        let fits = |value: &Change| match value {
            Change::Task(wanted) => {
                let head = wanted.head.as_ref();
                wanted.dataset == task.dataset && head.is_none_or(|head| *head == task.head)
            }
            Change::Head(head) => *head == task.head,
            Change::Backbone(wanted) => picked
                .iter()
                .any(|have| matches!(have, Change::Backbone(name) if pattern::fits(wanted, name))),
            value => picked.contains(&value),
        };
        self.lines.iter().all(|values| values.iter().any(fits))
    }
}

impl Block {
    fn combinations(&self) -> u128 {
        let lengths = self.dimensions.iter().map(|dimension| dimension.len() as u128);
        lengths.fold(1, u128::saturating_mul)
    }

    /// The values of each combination, the last dimension fastest.
    fn each(&self, mut visit: impl FnMut(&[&Change])) {
        let mut at = vec![0; self.dimensions.len()];
        loop {
            let columns = self.dimensions.iter().zip(&at);
            let columns = columns.flat_map(|(d, &i)| d.columns.iter().map(move |c| (c, i)));
            let picked: Vec<&Change> = columns.filter_map(|(c, i)| c.values.get(i)).collect();
            visit(&picked);
            let more = |i: &usize| at[*i] + 1 < self.dimensions[*i].len();
            let Some(last) = (0..at.len()).rev().find(more) else { return };
            at[last] += 1;
            at[last + 1..].fill(0);
        }
    }

    fn task(&self, picked: &[&Change]) -> Option<TaskHead> {
        let head = picked.iter().find_map(|change| match change {
            Change::Head(head) => Some(head.as_str()),
            _ => None,
        });
        let task = picked.iter().find_map(|change| match change {
            Change::Task(task) => Some(task),
            _ => None,
        })?;
        let head = self.head(task, head)?.to_owned();
        Some(TaskHead { dataset: task.dataset.clone(), head })
    }
}

/// The cell of a combination.
fn cell(picked: &[&Change], task: TaskHead) -> Cell {
    let (backbone, overrides) = (String::new(), Vec::new());
    let mut cell = Cell { backbone, overrides, task, settings: Settings::default() };
    picked.iter().for_each(|change| change.apply(&mut cell));
    // Their order in the file makes no other cell.
    cell.overrides.sort_by(|a, b| a.key().cmp(b.key()));
    cell.settings.set.sort_by(|a, b| a.key().cmp(b.key()));
    cell.normalised()
}

impl Sweep {
    /// How many cells the file describes, before rules and before equal ones fall together; nothing is
    /// expanded for it. A number beyond `u128` is its largest.
    pub fn combinations(&self) -> u128 {
        self.blocks.iter().map(Block::combinations).fold(0, u128::saturating_add)
    }

    /// The cells.
    ///
    /// # Errors
    /// No cell is left by the rules, or there are too many combinations.
    pub fn cells(&self) -> Result<Expanded, FileError> {
        let wrong = |line, problem| FileError { origin: self.origin.clone(), line, problem };
        let combinations = self.combinations();
        if combinations > LIMIT {
            return Err(wrong(None, Problem::TooMany { combinations, limit: LIMIT }));
        }
        let mut exclude = Rules::new("exclude", &self.exclude);
        let mut include = Rules::new("include", &self.include);
        let mut seen = HashSet::new();
        let mut cells = Vec::new();
        let (mut all, mut without_head, mut excluded, mut merged) = (0, 0, 0, 0);
        for block in &self.blocks {
            block.each(|picked| {
                all += 1;
                let Some(task) = block.task(picked) else {
                    without_head += 1;
                    return;
                };
                let out = exclude.match_any(picked, &task);
                let stays = include.match_any(picked, &task) || include.rules.is_empty();
                if out || !stays {
                    excluded += 1;
                    return;
                }
                let cell = cell(picked, task);
                // A digest, not the text: a sweep of a million cells is to fit in little memory.
                let text = serde_json::to_vec(&cell);
                match text.is_ok_and(|text| !seen.insert(*blake3::hash(&text).as_bytes())) {
                    true => merged += 1,
                    false => cells.push(cell),
                }
            });
        }
        if cells.is_empty() {
            let rules: Vec<String> = exclude.told().chain(include.told()).collect();
            let rules = rules.join(", ");
            return Err(wrong(None, Problem::NothingLeft { combinations, rules }));
        }
        let unused = exclude.unused().chain(include.unused());
        let warnings = unused.map(|(line, problem)| wrong(Some(line), problem)).collect();
        Ok(Expanded { cells, combinations: all, without_head, excluded, merged, warnings })
    }
}
