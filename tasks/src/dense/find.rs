//! Which files make up a split.

use std::fs;
use std::io;
use std::path::{Component, Path};

use serde::Serialize;

use super::DenseError;
use crate::data::{DataError, Dataset, Layout, PairProblem};

/// What decided which pairs belong to a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ListSource {
    /// `train.txt` or `val.txt` in the data folder, which wins over everything else. Its counts are
    /// not compared with the published ones.
    Own {
        /// The list's name.
        list: String,
    },
    /// A list of names that is part of the layout.
    Names {
        /// Relative to the data folder.
        list: String,
    },
    /// Everything in a folder.
    Content {
        /// Relative to the data folder.
        folder: String,
    },
}

impl ListSource {
    /// Where the pair at `index` is named: the list and its line, or the folder.
    pub(super) fn place(&self, index: usize) -> String {
        match self {
            Self::Own { list } | Self::Names { list } => format!("{list}, line {}", index + 1),
            Self::Content { folder } => folder.clone(),
        }
    }
}

/// Image and target, relative to the data folder.
pub(super) type Names = (Box<str>, Box<str>);

/// Whether the folder has its own two lists.
pub(super) fn has_own_lists(root: &Path) -> Result<bool, DenseError> {
    let [train, val] = ["train.txt", "val.txt"].map(|list| root.join(list).is_file());
    if train == val {
        return Ok(train);
    }
    let (there, missing) = if train { ("train.txt", "val.txt") } else { ("val.txt", "train.txt") };
    let problem = PairProblem::OneList { there: there.to_owned(), missing: missing.to_owned() };
    Err(DenseError::List { root: root.to_owned(), problem })
}

/// The pairs that `SPLIT.txt` in the data folder names.
pub(super) fn own_list(root: &Path, split: &str) -> Result<(ListSource, Vec<Names>), DenseError> {
    let list = format!("{split}.txt");
    let fail = |problem| DenseError::List { root: root.to_owned(), problem };
    let text = fs::read_to_string(root.join(&list)).map_err(|error| {
        fail(PairProblem::Unreadable { list: list.clone(), reason: error.to_string() })
    })?;
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let names = line
            .split_once(' ')
            .filter(|(image, target)| !image.is_empty() && !target.is_empty())
            .filter(|(_, target)| !target.contains(' '));
        let Some((image, target)) = names else {
            let (list, found) = (list.clone(), line.to_owned());
            return Err(fail(PairProblem::Line { list, line: line_number, found }));
        };
        if let Some(path) = [image, target].into_iter().find(|path| !is_inside(path)) {
            let (list, found) = (root.join(&list), path.to_owned());
            return Err(DenseError::NotRelative { list, line: line_number, found });
        }
        pairs.push((image.into(), target.into()));
    }
    if pairs.is_empty() {
        return Err(fail(PairProblem::Empty { list }));
    }
    Ok((ListSource::Own { list }, pairs))
}

/// A relative path that never leaves its folder.
fn is_inside(path: &str) -> bool {
    Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The pairs of a split without lists of the folder's own.
pub(super) fn published(
    dataset: &Dataset,
    root: &Path,
    split: &str,
) -> Result<(ListSource, Vec<Names>), DenseError> {
    let train = split == "train";
    match dataset.layout {
        Layout::ImageFolder => Err(DenseError::NotPaired { dataset: dataset.name.clone() }),
        Layout::Nyuv2Bts | Layout::KittiEigen => Err(lists_needed(dataset, root)),
        Layout::Ade20k => {
            let folder = if train { "training" } else { "validation" };
            let images = format!("images/{folder}");
            let pairs = content(dataset, root, (&images, "jpg"), &format!("annotations/{folder}"))?;
            Ok((ListSource::Content { folder: images }, pairs))
        }
        Layout::Loveda => {
            let folder = if train { "Train" } else { "Val" };
            let mut pairs = Vec::new();
            for scene in ["Rural", "Urban"] {
                let images = format!("{folder}/{scene}/images_png");
                let masks = format!("{folder}/{scene}/masks_png");
                pairs.extend(content(dataset, root, (&images, "png"), &masks)?);
            }
            Ok((ListSource::Content { folder: folder.to_owned() }, pairs))
        }
        Layout::Voc2012 => {
            let name = if train { "trainaug" } else { "val" };
            let list = format!("ImageSets/Segmentation/{name}.txt");
            let pair = |name: &str| {
                let target = format!("SegmentationClassAug/{name}.png");
                (format!("JPEGImages/{name}.jpg").into(), target.into())
            };
            let pairs = names(dataset, root, &list)?.iter().map(|name| pair(name)).collect();
            Ok((ListSource::Names { list }, pairs))
        }
    }
}

fn lists_needed(dataset: &Dataset, root: &Path) -> DenseError {
    let file = |split: &str| {
        let lines = dataset.splits.get(split).copied().unwrap_or_default();
        format!("{split}.txt with {lines} lines")
    };
    DenseError::ListsNeeded {
        dataset: dataset.name.clone(),
        root: root.to_owned(),
        files: format!("{} and {}", file("train"), file("val")),
        notes: dataset.list.notes.clone(),
    }
}

fn missing(dataset: &Dataset, root: &Path, path: &str) -> DenseError {
    DenseError::Missing {
        dataset: dataset.name.clone(),
        path: root.join(path),
        layout: dataset.layout_on_disk.trim_end().to_owned(),
    }
}

/// A list of one name a line.
fn names(dataset: &Dataset, root: &Path, list: &str) -> Result<Vec<String>, DenseError> {
    let path = root.join(list);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(missing(dataset, root, list));
        }
        Err(source) => return Err(DataError::Io { path, source }.into()),
    };
    let mut names = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.contains(|c: char| c.is_whitespace() || "/\\".contains(c)) {
            return Err(DenseError::Name { list: path, line: index + 1, found: line.to_owned() });
        }
        names.push(line.to_owned());
    }
    if names.is_empty() {
        let problem = PairProblem::Empty { list: list.to_owned() };
        return Err(DenseError::List { root: root.to_owned(), problem });
    }
    Ok(names)
}

/// Every image of a folder with the mask of the same name, sorted by name. A mask without an image
/// is an error here, an image without a mask where the files are looked at.
fn content(
    dataset: &Dataset,
    root: &Path,
    (images, extension): (&str, &'static str),
    masks: &str,
) -> Result<Vec<Names>, DenseError> {
    let stems = stems(dataset, root, images, extension)?;
    if stems.is_empty() {
        return Err(DenseError::Empty { folder: root.join(images), extension });
    }
    let pair = |stem: &str| -> Names {
        (format!("{images}/{stem}.{extension}").into(), format!("{masks}/{stem}.png").into())
    };
    let without_image = self::stems(dataset, root, masks, "png")?
        .into_iter()
        .find(|stem| stems.binary_search(stem).is_err());
    if let Some(stem) = without_image {
        let (image, target) = pair(&stem);
        return Err(DenseError::PairIncomplete {
            root: root.to_owned(),
            named_by: masks.to_owned(),
            image,
            target,
            missing: "image",
        });
    }
    Ok(stems.iter().map(|stem| pair(stem)).collect())
}

/// Sorted names of the files with an extension, without it.
fn stems(
    dataset: &Dataset,
    root: &Path,
    folder: &str,
    extension: &str,
) -> Result<Vec<String>, DenseError> {
    let path = root.join(folder);
    if !path.is_dir() {
        return Err(missing(dataset, root, folder));
    }
    let fail = |source| DataError::Io { path: path.clone(), source };
    let mut stems = Vec::new();
    for entry in fs::read_dir(&path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(DataError::NotUnicode { path: entry.path() }.into());
        };
        // Names with a leading dot are what systems and tools leave beside the data.
        let stem = name.strip_suffix(extension).and_then(|stem| stem.strip_suffix('.'));
        stems.extend(
            stem.filter(|stem| !name.starts_with('.') && !stem.is_empty()).map(str::to_owned),
        );
    }
    stems.sort_unstable();
    Ok(stems)
}
