//! From TOML to blocks and rules.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::axes::{Change, Value, axis, counted, is_root, takes_list, takes_range, whole};
use super::{Block, Column, Dimension, FileError, Given, Problem, Rule, Sweep, pattern};
use crate::registry::nearest;

const KEYS: [&str; 7] = ["name", "fixed", "grid", "zip", "cell", "exclude", "include"];
/// The most values that a range can have.
const RANGE: u64 = 1_000_000;

/// How the values of a table are read.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// One for each axis: `[fixed]` and `[[cell]]`.
    One,
    /// Lists: `[grid]` and `[zip]`.
    Many,
    /// Lists whose patterns look for no file: rules.
    Rule,
}

pub(super) fn read(text: &str, origin: &str, given: &Given) -> Result<Sweep, FileError> {
    let mut reader = Reader { text, origin, given: Vec::new() };
    for backbone in &given.backbones {
        let wrong = |problem| FileError { origin: "--backbone".to_owned(), line: None, problem };
        reader.given.extend(backbones(backbone).map_err(wrong)?);
    }
    let document =
        DeTable::parse(text).map_err(|e| reader.wrong(0, Problem::Syntax(Box::new(e))))?;
    let top = document.get_ref();
    for (key, _) in top {
        let (name, line) = (key.get_ref().as_ref(), reader.line(&key.span()));
        if !KEYS.contains(&name) {
            return Err(reader.wrong(line, unknown_key(name)));
        }
    }
    let name = reader.name(top)?;
    let fixed = reader.columns(reader.table(top, "fixed")?, Mode::One)?;
    let grid = reader.columns(reader.table(top, "grid")?, Mode::Many)?;
    let zip = reader.columns(reader.table(top, "zip")?, Mode::Many)?;
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for Column { axis, line, .. } in fixed.iter().chain(&grid).chain(&zip) {
        if let Some(&first) = lines.get(axis.as_str()) {
            return Err(reader.wrong(*line, Problem::Twice { axis: axis.clone(), first }));
        }
        lines.insert(axis, *line);
    }
    let cells = reader.tables(top, "cell")?;
    let mut blocks = Vec::new();
    if cells.is_empty() || !grid.is_empty() || !zip.is_empty() {
        let single = |column: &Column| Dimension { columns: vec![column.clone()] };
        let mut varied: Vec<Dimension> = grid.iter().map(single).collect();
        varied.extend(reader.zipped(zip)?);
        varied.sort_by_key(|dimension| dimension.columns.first().map_or(0, |column| column.line));
        let dimensions = fixed.iter().map(single).chain(varied).collect();
        blocks.push(reader.block(None, dimensions, given)?);
    }
    for (line, table) in cells {
        let mut columns = reader.columns(Some(table), Mode::One)?;
        let on_top: Vec<String> = columns.iter().map(|column| column.axis.clone()).collect();
        columns.extend(fixed.iter().filter(|column| !on_top.contains(&column.axis)).cloned());
        let dimensions = columns.into_iter().map(|column| Dimension { columns: vec![column] });
        blocks.push(reader.block(Some(line), dimensions.collect(), given)?);
    }
    let [exclude, include] = ["exclude", "include"].map(|kind| reader.rules(top, kind));
    Ok(Sweep { name, origin: origin.to_owned(), blocks, exclude: exclude?, include: include? })
}

fn unknown_key(name: &str) -> Problem {
    if axis(name).is_ok() {
        return Problem::Misplaced(name.to_owned());
    }
    let (known, near) = (KEYS.join(", "), nearest(name, KEYS.into_iter()));
    Problem::Unknown { what: "key", name: name.to_owned(), known, near }
}

fn backbones(name: &str) -> Result<Vec<Change>, Problem> {
    let names = match pattern::is_pattern(name) {
        true => pattern::find(name)?,
        false => vec![name.to_owned()],
    };
    Ok(names.into_iter().map(Change::Backbone).collect())
}

struct Reader<'a> {
    text: &'a str,
    origin: &'a str,
    /// Backbones of the command line.
    given: Vec<Change>,
}

type Entry<'a> = (String, Range<usize>, &'a Spanned<DeValue<'a>>);

impl<'a> Reader<'a> {
    fn line(&self, span: &Range<usize>) -> usize {
        self.text.bytes().take(span.start).filter(|&byte| byte == b'\n').count() + 1
    }

    fn wrong(&self, line: usize, problem: Problem) -> FileError {
        let line = Some(line).filter(|&line| line > 0);
        FileError { origin: self.origin.to_owned(), line, problem }
    }

    /// The first line of what stands in the file, not too long.
    fn found(&self, value: &Spanned<DeValue<'_>>) -> String {
        let all = self.text.get(value.span()).unwrap_or_default();
        let first: String = all.lines().next().unwrap_or_default().chars().take(40).collect();
        if first.len() < all.len() { format!("{first}...") } else { first }
    }

    fn unfit(&self, axis: &str, expected: &str, value: &Spanned<DeValue<'_>>) -> FileError {
        let (axis, expected) = (axis.to_owned(), expected.to_owned());
        let problem = Problem::Value { axis, expected, found: self.found(value) };
        self.wrong(self.line(&value.span()), problem)
    }

    fn name(&self, top: &DeTable<'_>) -> Result<String, FileError> {
        let stem = || Path::new(self.origin).file_stem().map(|stem| stem.to_string_lossy());
        let (name, line) = match top.get("name") {
            None => (stem().unwrap_or_default().into_owned(), 0),
            Some(value) => match value.get_ref().as_str() {
                Some(name) => (name.to_owned(), self.line(&value.span())),
                None => return Err(self.unfit("name", "text", value)),
            },
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        match name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            true => Ok(name),
            false => Err(self.wrong(line, Problem::Name(name))),
        }
    }

    fn table<'t>(
        &self,
        top: &'t DeTable<'t>,
        name: &str,
    ) -> Result<Option<&'t DeTable<'t>>, FileError> {
        let Some(value) = top.get(name) else { return Ok(None) };
        let table = value.get_ref().as_table();
        table.map(Some).ok_or_else(|| self.unfit(name, &format!("a table, [{name}]"), value))
    }

    /// The tables of a list, and where they stand.
    fn tables<'t>(
        &self,
        top: &'t DeTable<'t>,
        name: &str,
    ) -> Result<Vec<(usize, &'t DeTable<'t>)>, FileError> {
        let Some(value) = top.get(name) else { return Ok(Vec::new()) };
        let all = value.get_ref().as_array().and_then(|list| {
            let table = |item: &'t Spanned<DeValue<'t>>| {
                Some((self.line(&item.span()), item.get_ref().as_table()?))
            };
            list.iter().map(table).collect()
        });
        all.ok_or_else(|| self.unfit(name, &format!("a list of tables, [[{name}]]"), value))
    }

    /// Axes and their values, in the order of the file.
    fn columns(&self, table: Option<&DeTable<'_>>, mode: Mode) -> Result<Vec<Column>, FileError> {
        let mut entries = Vec::new();
        if let Some(table) = table {
            gather(table, "", &mut entries);
        }
        entries.sort_by_key(|(_, span, _)| span.start);
        let mut columns: Vec<Column> = Vec::new();
        for (key, span, value) in entries {
            let line = self.line(&span);
            let axis = axis(&key).map_err(|problem| self.wrong(line, problem))?;
            if let Some(column) = columns.iter().find(|column| column.axis == axis) {
                return Err(self.wrong(line, Problem::Twice { axis, first: column.line }));
            }
            let values = match axis.as_str() {
                "backbone" if mode != Mode::Rule && !self.given.is_empty() => self.given.clone(),
                _ => self.values(&axis, value, mode)?,
            };
            if values.is_empty() {
                return Err(self.wrong(line, Problem::NoValue(axis)));
            }
            columns.push(Column { axis, line, values });
        }
        Ok(columns)
    }

    fn values(
        &self,
        axis: &str,
        value: &Spanned<DeValue<'_>>,
        mode: Mode,
    ) -> Result<Vec<Change>, FileError> {
        match value.get_ref() {
            DeValue::Array(items) if mode != Mode::One => {
                let all: Result<Vec<_>, _> =
                    items.iter().map(|item| self.value(axis, item, mode)).collect();
                Ok(all?.into_iter().flatten().collect())
            }
            DeValue::Array(_) if !takes_list(axis) => {
                Err(self.unfit(axis, "one value here; a list belongs in [grid]", value))
            }
            DeValue::Table(_) if mode == Mode::One && takes_range(axis) => {
                Err(self.unfit(axis, "one value here; a range belongs in [grid]", value))
            }
            DeValue::Table(table) if takes_range(axis) => self.range(axis, value, table),
            _ => self.value(axis, value, mode),
        }
    }

    /// One value; of a pattern, what it finds.
    fn value(
        &self,
        axis: &str,
        value: &Spanned<DeValue<'_>>,
        mode: Mode,
    ) -> Result<Vec<Change>, FileError> {
        let wrong = |problem| self.wrong(self.line(&value.span()), problem);
        let one = Value { axis, value: value.get_ref(), found: self.found(value) };
        match one.change().map_err(wrong)? {
            Change::Backbone(name) if mode != Mode::Rule => backbones(&name).map_err(wrong),
            change => Ok(vec![change]),
        }
    }

    /// `{ from = A, to = B, step = C }`, both ends included.
    fn range(
        &self,
        axis: &str,
        value: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
    ) -> Result<Vec<Change>, FileError> {
        let form = "a range { from = A, to = B } of whole numbers, A no more than B, with step = C above 0 \
                    where it is not 1";
        let unfit = |expected| self.unfit(axis, expected, value);
        let known = |key: &str| ["from", "to", "step"].contains(&key);
        if !table.keys().all(|key| known(key.get_ref().as_ref())) {
            return Err(unfit(form));
        }
        let number = |key: &str| table.get(key).map(|number| whole(number.get_ref()));
        let (from, to) = (number("from").flatten(), number("to").flatten());
        let (Some(from), Some(to), Some(step)) = (from, to, number("step").unwrap_or(Some(1)))
        else {
            return Err(unfit(form));
        };
        if step == 0 || to < from {
            return Err(unfit(form));
        }
        if (to - from) / step >= RANGE {
            return Err(unfit("a range of at most 1000000 values"));
        }
        let numbers = (0..=(to - from) / step).map(|i| from + i * step);
        let changes = numbers.map(|number| counted(axis, number));
        changes.collect::<Option<_>>().ok_or_else(|| unfit("whole numbers above 0"))
    }

    /// `[zip]` as one dimension.
    fn zipped(&self, columns: Vec<Column>) -> Result<Option<Dimension>, FileError> {
        let Some(first) = columns.first() else { return Ok(None) };
        let backbone = columns.iter().find(|column| column.axis == "backbone");
        if let (Some(backbone), false, [_, _, ..]) = (backbone, self.given.is_empty(), &columns[..])
        {
            let others = columns.iter().map(|c| c.axis.as_str()).filter(|axis| *axis != "backbone");
            let others = others.collect::<Vec<_>>().join(", ");
            return Err(self.wrong(backbone.line, Problem::ZippedBackbone(others)));
        }
        let length = first.values.len();
        if let Some(second) = columns.iter().find(|column| column.values.len() != length) {
            let problem = Problem::Lengths {
                first: first.axis.clone(),
                first_length: length,
                second: second.axis.clone(),
                second_length: second.values.len(),
            };
            return Err(self.wrong(second.line, problem));
        }
        Ok(Some(Dimension { columns }))
    }

    /// Dimensions with what they leave out, checked together.
    fn block(
        &self,
        line: Option<usize>,
        dimensions: Vec<Dimension>,
        given: &Given,
    ) -> Result<Block, FileError> {
        let single = |axis: &str, values: Vec<Change>| Dimension {
            columns: vec![Column { axis: axis.to_owned(), line: 0, values }],
        };
        let has = |axis: &str| {
            dimensions.iter().any(|d| d.columns.iter().any(|column| column.axis == axis))
        };
        let mut all = Vec::new();
        let wrong = |problem| self.wrong(line.unwrap_or(0), problem);
        match (has("backbone"), self.given.is_empty()) {
            (false, true) => return Err(wrong(Problem::NoBackbone)),
            (false, false) => all.push(single("backbone", self.given.clone())),
            (true, _) => {}
        }
        if !has("task") {
            return Err(wrong(Problem::NoTask));
        }
        for (axis, value) in [
            ("protocol", Change::Protocol(given.protocol.clone())),
            ("seed", Change::Seed(0)),
            ("stream-seed", Change::StreamSeed(0)),
        ] {
            if !has(axis) {
                all.push(single(axis, vec![value]));
            }
        }
        all.extend(dimensions);
        let columns = || all.iter().flat_map(|dimension| &dimension.columns);
        let at =
            |axis: &str| columns().find(|column| column.axis == axis).map(|column| column.line);
        if let (Some(block), Some(taps)) = (at("block"), at("taps")) {
            return Err(self.wrong(block.max(taps), Problem::BlockAndTaps));
        }
        let mut heads = Vec::new();
        for value in columns().flat_map(|column| &column.values) {
            if let Change::Head(head) = value {
                heads.push(head.clone());
            }
        }
        let paired = all.iter().any(|d| {
            let axes = || d.columns.iter().map(|column| column.axis.as_str());
            axes().any(|axis| axis == "task") && axes().any(|axis| axis == "head")
        });
        let block = Block { dimensions: all, heads, paired };
        self.check_heads(&block)?;
        Ok(block)
    }

    /// Whether each task has a head.
    fn check_heads(&self, block: &Block) -> Result<(), FileError> {
        let columns = || block.dimensions.iter().flat_map(|dimension| &dimension.columns);
        for Column { line, values, .. } in columns() {
            for (i, value) in values.iter().enumerate() {
                let Change::Task(task) = value else { continue };
                let beside: Vec<&str> = match block.paired {
                    true => block.heads.get(i).map(String::as_str).into_iter().collect(),
                    false => block.heads.iter().map(String::as_str).collect(),
                };
                let found = match beside.is_empty() {
                    true => block.head(task, None).is_some(),
                    false => beside.iter().any(|head| block.head(task, Some(head)).is_some()),
                };
                if found {
                    continue;
                }
                let (dataset, has) = (task.dataset.clone(), task.heads().join(", "));
                let problem = match beside.is_empty() {
                    true => Problem::WhichHead { dataset, has },
                    false => Problem::NoHead { dataset, has, given: beside.join(", ") },
                };
                return Err(self.wrong(*line, problem));
            }
        }
        Ok(())
    }

    fn rules(&self, top: &DeTable<'_>, kind: &'static str) -> Result<Vec<Rule>, FileError> {
        let rule = |(line, table)| {
            let columns = self.columns(Some(table), Mode::Rule)?;
            match columns.is_empty() {
                true => Err(self.wrong(line, Problem::EmptyRule(kind))),
                false => {
                    let lines = columns.into_iter().map(|column| column.values).collect();
                    Ok(Rule { line, lines })
                }
            }
        };
        self.tables(top, kind)?.into_iter().map(rule).collect()
    }
}

/// The values of a table by their key; those of inner tables by their path.
fn gather<'t>(table: &'t DeTable<'t>, path: &str, found: &mut Vec<Entry<'t>>) {
    for (key, value) in table {
        let name = key.get_ref();
        let name = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        match value.get_ref() {
            DeValue::Table(inner) if is_root(&name) && !inner.is_empty() => {
                gather(inner, &name, found);
            }
            _ => found.push((name, key.span(), value)),
        }
    }
}
