//! ImageNet's validation images lie in one folder as published. The development kit says which class each
//! has: a number a line, and in a MATLAB file the class of each number.

use std::collections::HashMap;

use super::PrepareError;
use super::mat::{self, Value};
use super::unpack::{Source, read_members};
use crate::progress::Reporter;

const LABELS: &str = "data/ILSVRC2012_validation_ground_truth.txt";
const CLASSES: &str = "data/meta.mat";
/// Bytes that either file may have; they have 200 KB and 140 KB.
const MOST: u64 = 64 << 20;

/// Where each validation image goes, by its name.
pub(super) fn places(
    kit: &Source<'_>,
    reporter: &Reporter,
) -> Result<HashMap<String, String>, PrepareError> {
    let (mut labels, mut classes) = (None, None);
    let of = |path: &str, name: &str| path == name || path.ends_with(&format!("/{name}"));
    let content = |member: &str, why: String| PrepareError::Content {
        archive: kit.path.to_path_buf(),
        member: member.to_owned(),
        why,
    };
    let wanted = |path: &str| of(path, LABELS) || of(path, CLASSES);
    let each = |path: &str, bytes: &[u8]| {
        if of(path, LABELS) {
            labels = Some(numbers(bytes).map_err(|why| content(path, why))?);
        } else {
            classes = Some(names(bytes).map_err(|why| content(path, why))?);
        }
        Ok(())
    };
    read_members(kit, MOST, &wanted, each, reporter)?;
    let nothing = |name: &str| PrepareError::Nothing {
        archive: kit.path.to_path_buf(),
        expected: name.to_owned(),
    };
    let labels = labels.ok_or_else(|| nothing(LABELS))?;
    let classes = classes.ok_or_else(|| nothing(CLASSES))?;
    let place = |(index, label): (usize, &u32)| {
        let class = classes.get(label).ok_or_else(|| {
            let line = index + 1;
            content(LABELS, format!("line {line}: expected the number of a class, found {label}"))
        })?;
        let name = format!("ILSVRC2012_val_{:08}.JPEG", index + 1);
        Ok((name.clone(), format!("val/{class}/{name}")))
    };
    labels.iter().enumerate().map(place).collect()
}

fn numbers(bytes: &[u8]) -> Result<Vec<u32>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let number = |(index, line): (usize, &str)| {
        let number = line.trim().parse();
        number.map_err(|_| format!("line {}: expected a number, found {line:?}", index + 1))
    };
    text.lines().enumerate().map(number).collect()
}

/// The class folder of each number.
fn names(bytes: &[u8]) -> Result<HashMap<u32, String>, String> {
    let arrays = mat::read(bytes).map_err(|error| error.to_string())?;
    let synsets = arrays.iter().find(|(name, _)| name == "synsets").map(|(_, value)| value);
    let synsets = synsets.ok_or("expected a struct array synsets, found none")?;
    let missing = |name: &str| format!("synsets: expected a field {name}, found none");
    let numbers = synsets.field("ILSVRC2012_ID").ok_or_else(|| missing("ILSVRC2012_ID"))?;
    let classes = synsets.field("WNID").ok_or_else(|| missing("WNID"))?;
    let one = |(number, class): (&Value, &Value)| {
        let whole = number.number().filter(|n| n.fract() == 0.0 && (1.0..1e6).contains(n));
        let number = whole.ok_or("synsets: expected whole numbers in ILSVRC2012_ID")? as u32;
        let class = class.text().unwrap_or_default();
        // It becomes the name of a folder.
        let digits = class.strip_prefix('n').unwrap_or_default();
        if digits.len() != 8 || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(format!(
                "synset {number}: expected a WNID such as n01440764, found {class:?}"
            ));
        }
        Ok((number, class.to_owned()))
    };
    numbers.zip(classes).map(one).collect()
}
