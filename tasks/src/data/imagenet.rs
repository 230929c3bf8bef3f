//! ImageNet-1K, and every other folder of class folders.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use rayon::prelude::*;
use schema::{Fingerprint, SplitRecord};

use super::{DataError, Dataset, Names};
use crate::files::{Entries, Files};
use crate::random::shuffled;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Relative to the data folder, with `/` on every system: `train/n01440764/x.JPEG`.
    pub path: Box<str>,
    /// Class index: the place of its folder's name in sorted order.
    pub target: u32,
    /// Size of the file.
    pub bytes: u64,
}

/// One split: `ROOT/SPLIT/CLASS/.../IMAGE`, in the order of torchvision's `ImageFolder`.
///
/// Classes are the sorted names of the folders; within a class, folders are sorted by their whole
/// path and files by name. Names ending in jpg, jpeg, png, ppm, bmp, pgm, tif, tiff or webp, in any
/// case, are images; other files are left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFolder {
    files: Files,
    split: String,
    classes: Vec<String>,
    samples: Vec<Sample>,
    found: usize,
}

const EXTENSIONS: [&str; 9] =
    [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];
const DEEPEST: usize = 32;

impl ImageFolder {
    /// Lists a split, classes in parallel, with the size of every file.
    ///
    /// # Errors
    ///
    /// [`DataError`]; a class folder without an image is one.
    pub fn open(files: impl Into<Files>, split: &str) -> Result<Self, DataError> {
        let files = files.into();
        let classes = class_folders(&files, split)?;
        Self::list(files, split, classes)
    }

    fn list(files: Files, split: &str, classes: Vec<String>) -> Result<Self, DataError> {
        let by_class: Vec<Vec<Sample>> = classes
            .par_iter()
            .enumerate()
            .map(|(target, class)| class_samples(&files, split, class, target as u32))
            .collect::<Result<_, _>>()?;
        let empty = by_class.iter().zip(&classes).filter(|(samples, _)| samples.is_empty());
        let empty: Vec<String> = empty.map(|(_, class)| class.clone()).collect();
        if !empty.is_empty() {
            return Err(DataError::EmptyClass {
                folder: files.place(split),
                split: split.to_owned(),
                names: Names(empty),
            });
        }
        let samples: Vec<Sample> = by_class.into_iter().flatten().collect();
        let found = samples.len();
        Ok(Self { files, split: split.to_owned(), classes, samples, found })
    }

    /// Keeps `n` samples: the first `n` after a shuffle seeded with `seed` and the split's name,
    /// back in listing order. The choice depends on the number of samples, not on how they are
    /// listed; a larger `n` keeps what a smaller one kept.
    #[must_use]
    pub fn take(mut self, n: usize, seed: u64) -> Self {
        if n < self.samples.len() {
            let tag = format!("limit/{}", self.split);
            let mut kept = shuffled(seed, &tag, self.samples.len());
            kept.truncate(n);
            kept.sort_unstable();
            self.samples = kept.into_iter().map(|index| self.samples[index].clone()).collect();
        }
        self
    }

    /// The data folder, above the split.
    pub fn root(&self) -> &Path {
        self.files.root()
    }

    /// What it is read from; the paths of samples are its own.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// `train` or `val`.
    pub fn split(&self) -> &str {
        &self.split
    }

    /// Folder names; a target is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The images, after [`take`](Self::take).
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Number of images listed, before [`take`](Self::take).
    pub fn found(&self) -> usize {
        self.found
    }
}

/// Both splits, with the same classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageNet {
    /// What neighbours are searched in.
    pub train: ImageFolder,
    /// What is classified.
    pub val: ImageFolder,
}

impl ImageNet {
    /// Lists `ROOT/train` and `ROOT/val`.
    ///
    /// # Errors
    ///
    /// [`DataError`]; different class folders in the two splits are one.
    pub fn open(files: impl Into<Files>) -> Result<Self, DataError> {
        let files = files.into();
        let train = class_folders(&files, "train")?;
        let val = class_folders(&files, "val")?;
        let without = |these: &[String], those: &[String]| {
            Names(these.iter().filter(|name| those.binary_search(name).is_err()).cloned().collect())
        };
        let (missing, extra) = (without(&train, &val), without(&val, &train));
        if !missing.0.is_empty() || !extra.0.is_empty() {
            return Err(DataError::ClassesDiffer { val: files.place("val"), missing, extra });
        }
        Ok(Self {
            train: ImageFolder::list(files.clone(), "train", train)?,
            val: ImageFolder::list(files, "val", val)?,
        })
    }

    /// Keeps `n` samples of each split, see [`ImageFolder::take`].
    #[must_use]
    pub fn take(self, n: usize, seed: u64) -> Self {
        Self { train: self.train.take(n, seed), val: self.val.take(n, seed) }
    }

    /// Hash over both splits: name, number of samples, and path, target and size of each sample in
    /// order. File contents are not read. Taken over the samples as they are, so before
    /// [`take`](Self::take) it names the data and after it the choice.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        for split in [&self.train, &self.val] {
            hash_text(&mut hasher, &split.split);
            hasher.update(&(split.samples.len() as u64).to_le_bytes());
            for sample in &split.samples {
                hash_text(&mut hasher, &sample.path);
                hasher.update(&sample.target.to_le_bytes());
                hasher.update(&sample.bytes.to_le_bytes());
            }
        }
        hasher.finalize().into()
    }

    /// Counts found (before [`take`](Self::take)) beside the published ones, by split. Generated
    /// samples have no published counts: pass `None`.
    pub fn records(&self, published: Option<&Dataset>) -> BTreeMap<String, SplitRecord> {
        [&self.train, &self.val]
            .map(|split| {
                let published = published.and_then(|set| set.splits.get(&split.split).copied());
                (split.split.clone(), SplitRecord { found: split.found, published, list: None })
            })
            .into()
    }
}

fn hash_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// The sorted names of the folders in `ROOT/SPLIT`.
fn class_folders(files: &Files, split: &str) -> Result<Vec<String>, DataError> {
    let root = files.root();
    if !files.exist() {
        return Err(DataError::RootMissing { root: root.to_owned() });
    }
    if !files.is_dir(split) {
        return Err(DataError::SplitMissing { root: root.to_owned(), split: split.to_owned() });
    }
    let folder = files.place(split);
    let Entries { folders, files, .. } = files.entries(split)?;
    if !folders.is_empty() {
        return Ok(folders);
    }
    let mut images = files.into_iter().filter(|name| is_image(name));
    let split = split.to_owned();
    Err(match images.next() {
        Some(first) => DataError::Unsorted { folder, split, images: 1 + images.count(), first },
        None => DataError::Empty { folder, split },
    })
}

fn class_samples(
    tree: &Files,
    split: &str,
    class: &str,
    target: u32,
) -> Result<Vec<Sample>, DataError> {
    let mut folders = vec![(format!("{split}/{class}"), 0)];
    let mut listed: Vec<(String, Entries)> = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        if depth > DEEPEST {
            return Err(DataError::TooDeep { path: tree.place(&folder), limit: DEEPEST });
        }
        let inside = tree.entries(&folder)?;
        folders.extend(inside.folders.iter().map(|name| (format!("{folder}/{name}"), depth + 1)));
        listed.push((folder, inside));
    }
    // torchvision sorts the folders of a class as whole paths: `a-b` stands before `a/b`.
    listed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut samples = Vec::new();
    for (folder, inside) in listed {
        for (at, name) in inside.files.iter().enumerate().filter(|(_, name)| is_image(name)) {
            let path = format!("{folder}/{name}");
            let bytes = match inside.sizes.get(at) {
                Some(bytes) => Ok(*bytes),
                None => tree.size(&path).and_then(|size| size.ok_or(ErrorKind::NotFound.into())),
            };
            let bytes =
                bytes.map_err(|source| DataError::Io { path: tree.place(&path), source })?;
            samples.push(Sample { path: path.into(), target, bytes });
        }
    }
    Ok(samples)
}

fn is_image(name: &str) -> bool {
    let name = name.to_lowercase();
    EXTENSIONS.iter().any(|extension| name.ends_with(extension))
}
