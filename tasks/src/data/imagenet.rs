//! ImageNet-1K, and every other folder of class folders.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schema::{Fingerprint, SplitRecord};

use super::{DataError, Dataset, Names};
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
    root: PathBuf,
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
    pub fn open(root: &Path, split: &str) -> Result<Self, DataError> {
        let classes = class_folders(root, split)?;
        Self::list(root, split, classes)
    }

    fn list(root: &Path, split: &str, classes: Vec<String>) -> Result<Self, DataError> {
        let by_class: Vec<Vec<Sample>> = classes
            .par_iter()
            .enumerate()
            .map(|(target, class)| class_samples(root, split, class, target as u32))
            .collect::<Result<_, _>>()?;
        let empty = by_class.iter().zip(&classes).filter(|(samples, _)| samples.is_empty());
        let empty: Vec<String> = empty.map(|(_, class)| class.clone()).collect();
        if !empty.is_empty() {
            return Err(DataError::EmptyClass {
                folder: root.join(split),
                split: split.to_owned(),
                names: Names(empty),
            });
        }
        let samples: Vec<Sample> = by_class.into_iter().flatten().collect();
        let found = samples.len();
        Ok(Self { root: root.to_owned(), split: split.to_owned(), classes, samples, found })
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
        &self.root
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

    /// Where a sample's file is.
    pub fn path(&self, sample: &Sample) -> PathBuf {
        self.root.join(&*sample.path)
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
    pub fn open(root: &Path) -> Result<Self, DataError> {
        let train = class_folders(root, "train")?;
        let val = class_folders(root, "val")?;
        let without = |these: &[String], those: &[String]| {
            Names(these.iter().filter(|name| those.binary_search(name).is_err()).cloned().collect())
        };
        let (missing, extra) = (without(&train, &val), without(&val, &train));
        if !missing.0.is_empty() || !extra.0.is_empty() {
            return Err(DataError::ClassesDiffer { val: root.join("val"), missing, extra });
        }
        Ok(Self {
            train: ImageFolder::list(root, "train", train)?,
            val: ImageFolder::list(root, "val", val)?,
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
fn class_folders(root: &Path, split: &str) -> Result<Vec<String>, DataError> {
    if !root.is_dir() {
        return Err(DataError::RootMissing { root: root.to_owned() });
    }
    let folder = root.join(split);
    if !folder.is_dir() {
        return Err(DataError::SplitMissing { root: root.to_owned(), split: split.to_owned() });
    }
    let Entries { folders, files } = entries(&folder)?;
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
    root: &Path,
    split: &str,
    class: &str,
    target: u32,
) -> Result<Vec<Sample>, DataError> {
    let mut folders = vec![(format!("{split}/{class}"), 0)];
    let mut listed: Vec<(String, Vec<String>)> = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        let path = root.join(&folder);
        if depth > DEEPEST {
            return Err(DataError::TooDeep { path, limit: DEEPEST });
        }
        let inside = entries(&path)?;
        folders.extend(inside.folders.iter().map(|name| (format!("{folder}/{name}"), depth + 1)));
        listed.push((folder, inside.files));
    }
    // torchvision sorts the folders of a class as whole paths: `a-b` stands before `a/b`.
    listed.sort_unstable();
    let mut samples = Vec::new();
    for (folder, files) in listed {
        for name in files.into_iter().filter(|name| is_image(name)) {
            let path = format!("{folder}/{name}");
            let file = root.join(&path);
            let bytes =
                fs::metadata(&file).map_err(|source| DataError::Io { path: file, source })?.len();
            samples.push(Sample { path: path.into(), target, bytes });
        }
    }
    Ok(samples)
}

/// What a folder holds, each sorted by name.
struct Entries {
    folders: Vec<String>,
    files: Vec<String>,
}

fn entries(folder: &Path) -> Result<Entries, DataError> {
    let fail = |source: io::Error| DataError::Io { path: folder.to_owned(), source };
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        // Links are followed, as torchvision does; a dangling one counts as a file.
        let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
        match entry.file_name().into_string() {
            Ok(name) if is_folder => folders.push(name),
            Ok(name) => files.push(name),
            Err(_) => return Err(DataError::NotUnicode { path: entry.path() }),
        }
    }
    // Bytes of UTF-8 sort as code points do, which is Python's order.
    folders.sort_unstable();
    files.sort_unstable();
    Ok(Entries { folders, files })
}

fn is_image(name: &str) -> bool {
    let name = name.to_lowercase();
    EXTENSIONS.iter().any(|extension| name.ends_with(extension))
}
