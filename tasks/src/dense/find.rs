//! Which files make up a split.

use std::io;
use std::path::{Component, Path};

use schema::{ListKind, ListRecord};
use serde::Serialize;

use super::DenseError;
use crate::data::{DataError, Dataset, Layout, PairProblem};
use crate::files::Files;

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
    /// A published list of datasets.toml.
    Pinned {
        /// Where it is published.
        url: String,
        /// Its SHA-256.
        sha256: String,
    },
    /// Everything in a folder.
    Content {
        /// Relative to the data folder.
        folder: String,
    },
}

impl ListSource {
    /// The list or folder, as messages name it.
    pub fn name(&self) -> &str {
        match self {
            Self::Own { list } | Self::Names { list } => list,
            Self::Pinned { url, .. } => url,
            Self::Content { folder } => folder,
        }
    }

    /// The same for a run's record.
    pub fn record(&self) -> ListRecord {
        let (kind, sha256) = match self {
            Self::Own { .. } => (ListKind::Own, None),
            Self::Names { .. } => (ListKind::Layout, None),
            Self::Pinned { sha256, .. } => (ListKind::Pinned, Some(sha256.clone())),
            Self::Content { .. } => (ListKind::Folder, None),
        };
        ListRecord { kind, sha256 }
    }

    /// Where the pair at `index` is named: the list and its line, or the folder.
    pub(super) fn place(&self, index: usize) -> String {
        match self {
            Self::Content { folder } => folder.clone(),
            _ => format!("{}, line {}", self.name(), index + 1),
        }
    }
}

/// The published lists of a data set: the text whose size and hash datasets.toml gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedLists {
    /// Of what heads are trained on.
    pub train: String,
    /// Of what they are measured on.
    pub val: String,
}

/// What decides which pairs belong to the splits of a data set in a folder, told from names alone:
/// the folder's own two lists, else those of its layout, else published ones, else its content.
///
/// # Errors
///
/// [`DenseError::List`] where the folder has one of its own two lists.
pub fn list_kind(dataset: &Dataset, files: &Files) -> Result<ListKind, DenseError> {
    if has_own_lists(files)? {
        return Ok(ListKind::Own);
    }
    let voc_lists = || ["train", "val"].iter().all(|split| files.is_file(voc_list(split)));
    Ok(match dataset.layout {
        Layout::Nyuv2Bts | Layout::KittiEigen => ListKind::Pinned,
        Layout::Voc2012 if voc_lists() => ListKind::Layout,
        Layout::Voc2012 => ListKind::Pinned,
        Layout::ImageFolder | Layout::Ade20k | Layout::Loveda | Layout::Demonstrations => {
            ListKind::Folder
        }
    })
}

/// Image and target, relative to the data folder.
pub(crate) type Names = (Box<str>, Box<str>);

/// Whether the folder has its own two lists.
fn has_own_lists(files: &Files) -> Result<bool, DenseError> {
    let [train, val] = ["train.txt", "val.txt"].map(|list| files.is_file(list));
    if train == val {
        return Ok(train);
    }
    let (there, missing) = if train { ("train.txt", "val.txt") } else { ("val.txt", "train.txt") };
    let problem = PairProblem::OneList { there: there.to_owned(), missing: missing.to_owned() };
    Err(DenseError::List { root: files.root().to_owned(), problem })
}

/// The pairs of a split, from what decides on them.
pub(crate) fn listed(
    dataset: &Dataset,
    files: &Files,
    split: &str,
    kind: ListKind,
    pinned: Option<&PinnedLists>,
) -> Result<(ListSource, Vec<Names>), DenseError> {
    match (kind, pinned) {
        (ListKind::Own, _) => own_list(files, split),
        (ListKind::Pinned, Some(lists)) => pinned_list(dataset, files, split, lists),
        _ => by_layout(dataset, files, split),
    }
}

/// The pairs that `SPLIT.txt` in the data folder names.
fn own_list(files: &Files, split: &str) -> Result<(ListSource, Vec<Names>), DenseError> {
    let list = format!("{split}.txt");
    let fail = |problem| DenseError::List { root: files.root().to_owned(), problem };
    let text = files.text(&list).map_err(|error| {
        fail(PairProblem::Unreadable { list: list.clone(), reason: error.to_string() })
    })?;
    let pairs = lines(files.root(), (&list, &files.place(&list)), &text)?;
    Ok((ListSource::Own { list }, pairs))
}

/// The pairs that a published list names.
fn pinned_list(
    dataset: &Dataset,
    files: &Files,
    split: &str,
    lists: &PinnedLists,
) -> Result<(ListSource, Vec<Names>), DenseError> {
    let Some(entry) = dataset.list.pinned.get(split) else {
        return Err(lists_needed(dataset, files));
    };
    let text = if split == "train" { &lists.train } else { &lists.val };
    let mut pairs = lines(files.root(), (&entry.url, Path::new(&entry.url)), text)?;
    if dataset.layout == Layout::Voc2012 {
        let masks =
            voc_masks(dataset, files, split, pairs.iter().map(|(_, mask)| file_name(mask)))?;
        for (_, mask) in &mut pairs {
            *mask = format!("{masks}/{}", file_name(mask)).into();
        }
    }
    Ok((ListSource::Pinned { url: entry.url.clone(), sha256: entry.sha256.clone() }, pairs))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The pairs of a list's text; `name` and `path` are the list's in messages.
fn lines(root: &Path, (name, path): (&str, &Path), text: &str) -> Result<Vec<Names>, DenseError> {
    let fail = |problem| DenseError::List { root: root.to_owned(), problem };
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let names = line
            .split_once(' ')
            .filter(|(image, target)| !image.is_empty() && !target.is_empty())
            .filter(|(_, target)| !target.contains(' '));
        let Some((image, target)) = names else {
            let (list, found) = (name.to_owned(), line.to_owned());
            return Err(fail(PairProblem::Line { list, line: line_number, found }));
        };
        if let Some(outside) = [image, target].into_iter().find(|path| !is_inside(path)) {
            let (list, found) = (path.to_owned(), outside.to_owned());
            return Err(DenseError::NotRelative { list, line: line_number, found });
        }
        pairs.push((image.into(), target.into()));
    }
    if pairs.is_empty() {
        return Err(fail(PairProblem::Empty { list: name.to_owned() }));
    }
    Ok(pairs)
}

/// A relative path that never leaves its folder.
fn is_inside(path: &str) -> bool {
    Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The pairs of a split without lists of the folder's own and published ones.
fn by_layout(
    dataset: &Dataset,
    files: &Files,
    split: &str,
) -> Result<(ListSource, Vec<Names>), DenseError> {
    let train = split == "train";
    match dataset.layout {
        Layout::ImageFolder | Layout::Demonstrations => {
            Err(DenseError::NotPaired { dataset: dataset.name.clone() })
        }
        Layout::Nyuv2Bts | Layout::KittiEigen => Err(lists_needed(dataset, files)),
        Layout::Ade20k => {
            let folder = if train { "training" } else { "validation" };
            let images = format!("images/{folder}");
            let pairs =
                content(dataset, files, (&images, "jpg"), &format!("annotations/{folder}"))?;
            Ok((ListSource::Content { folder: images }, pairs))
        }
        Layout::Loveda => {
            let folder = if train { "Train" } else { "Val" };
            // The archives hold a folder of their own name.
            let nested = format!("{folder}/{folder}");
            let folder = if files.is_dir(&nested) { nested } else { folder.to_owned() };
            let mut pairs = Vec::new();
            for scene in ["Rural", "Urban"] {
                let images = format!("{folder}/{scene}/images_png");
                let masks = format!("{folder}/{scene}/masks_png");
                pairs.extend(content(dataset, files, (&images, "png"), &masks)?);
            }
            Ok((ListSource::Content { folder }, pairs))
        }
        Layout::Voc2012 => {
            let list = voc_list(split).to_owned();
            let names = names(dataset, files, &list)?;
            let masks: Vec<String> = names.iter().map(|name| format!("{name}.png")).collect();
            let masks = voc_masks(dataset, files, split, masks.iter().map(String::as_str))?;
            let pair = |name: &String| -> Names {
                (format!("JPEGImages/{name}.jpg").into(), format!("{masks}/{name}.png").into())
            };
            Ok((ListSource::Names { list }, names.iter().map(pair).collect()))
        }
    }
}

fn voc_list(split: &str) -> &'static str {
    match split {
        "train" => "ImageSets/Segmentation/trainaug.txt",
        _ => "ImageSets/Segmentation/val.txt",
    }
}

/// The folder of VOC's masks. The official one does not have those of the augmented list unless they
/// were added to it, which is looked at here because nothing else would say why they are missing.
fn voc_masks<'a>(
    dataset: &Dataset,
    files: &Files,
    split: &str,
    masks: impl Iterator<Item = &'a str>,
) -> Result<&'static str, DenseError> {
    const AUGMENTED: &str = "SegmentationClassAug";
    const OFFICIAL: &str = "SegmentationClass";
    if files.is_dir(AUGMENTED) {
        return Ok(AUGMENTED);
    }
    if !files.is_dir(OFFICIAL) {
        return Err(missing(dataset, files, AUGMENTED));
    }
    if split == "train" {
        let (mut listed, mut missing, mut first) = (0, 0, None);
        for file in masks {
            listed += 1;
            if !files.is_file(&format!("{OFFICIAL}/{file}")) {
                missing += 1;
                first.get_or_insert_with(|| format!("{OFFICIAL}/{file}"));
            }
        }
        if let Some(first) = first {
            let root = files.root().to_owned();
            return Err(DenseError::AugmentedMasks { root, listed, missing, first });
        }
    }
    Ok(OFFICIAL)
}

fn lists_needed(dataset: &Dataset, files: &Files) -> DenseError {
    let file = |split: &str| {
        let lines = dataset.splits.get(split).copied().unwrap_or_default();
        format!("{split}.txt with {lines} lines")
    };
    DenseError::ListsNeeded {
        dataset: dataset.name.clone(),
        root: files.root().to_owned(),
        files: format!("{} and {}", file("train"), file("val")),
        notes: dataset.list.notes.clone(),
    }
}

fn missing(dataset: &Dataset, files: &Files, path: &str) -> DenseError {
    DenseError::Missing {
        dataset: dataset.name.clone(),
        path: files.place(path),
        layout: dataset.layout_on_disk.trim_end().to_owned(),
    }
}

/// A list of one name a line.
fn names(dataset: &Dataset, files: &Files, list: &str) -> Result<Vec<String>, DenseError> {
    let path = files.place(list);
    let text = match files.text(list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(missing(dataset, files, list));
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
        return Err(DenseError::List { root: files.root().to_owned(), problem });
    }
    Ok(names)
}

/// Every image of a folder with the mask of the same name, sorted by name. A mask without an image
/// is an error here, an image without a mask where the files are looked at.
fn content(
    dataset: &Dataset,
    files: &Files,
    (images, extension): (&str, &'static str),
    masks: &str,
) -> Result<Vec<Names>, DenseError> {
    let stems = stems(dataset, files, images, extension)?;
    if stems.is_empty() {
        return Err(DenseError::Empty { folder: files.place(images), extension });
    }
    let pair = |stem: &str| -> Names {
        (format!("{images}/{stem}.{extension}").into(), format!("{masks}/{stem}.png").into())
    };
    let without_image = self::stems(dataset, files, masks, "png")?
        .into_iter()
        .find(|stem| stems.binary_search(stem).is_err());
    if let Some(stem) = without_image {
        let (image, target) = pair(&stem);
        return Err(DenseError::PairIncomplete {
            root: files.root().to_owned(),
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
    files: &Files,
    folder: &str,
    extension: &str,
) -> Result<Vec<String>, DenseError> {
    if !files.is_dir(folder) {
        return Err(missing(dataset, files, folder));
    }
    let mut stems = Vec::new();
    for name in files.entries(folder)?.files {
        // Names with a leading dot are what systems and tools leave beside the data.
        let stem = name.strip_suffix(extension).and_then(|stem| stem.strip_suffix('.'));
        stems.extend(
            stem.filter(|stem| !name.starts_with('.') && !stem.is_empty()).map(str::to_owned),
        );
    }
    stems.sort_unstable();
    Ok(stems)
}
