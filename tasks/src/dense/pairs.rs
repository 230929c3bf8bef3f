//! The samples of a dense data set.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use schema::{Fingerprint, SplitRecord};

use super::find::{self, ListSource, Names, PinnedLists};
use super::{DenseError, LabelForm, TargetForm};
use crate::data::{DataError, Dataset};
use crate::files::Files;
use crate::random::shuffled;

/// One image and its depth map or mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The image, relative to the data folder, with `/` on every system.
    pub image: Box<str>,
    /// The depth map or mask.
    pub target: Box<str>,
    /// Size of the image's file.
    pub image_bytes: u64,
    /// Size of the target's file.
    pub target_bytes: u64,
}

/// One split of a dense data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSplit {
    files: Files,
    split: &'static str,
    source: ListSource,
    pairs: Vec<Pair>,
    found: usize,
}

impl PairSplit {
    fn new(
        files: &Files,
        split: &'static str,
        (source, names): (ListSource, Vec<Names>),
    ) -> Result<Self, DenseError> {
        let pairs: Vec<Pair> = names
            .into_par_iter()
            .enumerate()
            .map(|(index, names)| stat(files, names, || source.place(index)))
            // The first in order, however many there are.
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<_, _>>()?;
        let found = pairs.len();
        Ok(Self { files: files.clone(), split, source, pairs, found })
    }

    /// Keeps `n` pairs: the first `n` after a shuffle seeded with `seed` and the split's name, back
    /// in listing order. A larger `n` keeps what a smaller one kept.
    #[must_use]
    pub fn take(mut self, n: usize, seed: u64) -> Self {
        if n < self.pairs.len() {
            let tag = format!("limit/{}", self.split);
            let mut kept = shuffled(seed, &tag, self.pairs.len());
            kept.truncate(n);
            kept.sort_unstable();
            self.pairs = kept.into_iter().map(|index| self.pairs[index].clone()).collect();
        }
        self
    }

    /// The data folder.
    pub fn root(&self) -> &Path {
        self.files.root()
    }

    /// What it is read from; the paths of pairs are its own.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// `train` or `val`.
    pub fn split(&self) -> &'static str {
        self.split
    }

    /// What decided which pairs belong to the split.
    pub fn source(&self) -> &ListSource {
        &self.source
    }

    /// The pairs, after [`take`](Self::take), in the order of the list, or by name where a folder's
    /// content decides (LoveDA: rural before urban).
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Number of pairs listed, before [`take`](Self::take).
    pub fn found(&self) -> usize {
        self.found
    }

    fn published(&self, dataset: &Dataset) -> Option<usize> {
        match self.source {
            ListSource::Own { .. } => None,
            ListSource::Names { .. } | ListSource::Pinned { .. } | ListSource::Content { .. } => {
                dataset.splits.get(self.split).copied()
            }
        }
    }

    fn note(&self, dataset: &Dataset) -> Option<String> {
        let (name, split, found) = (&dataset.name, self.split, self.found);
        let Some(published) = self.published(dataset) else {
            let ListSource::Own { list } = &self.source else { return None };
            return Some(format!(
                "{name}, {split}: the folder's own {list} decides ({found} listed); the number is not compared with the published one"
            ));
        };
        let from = self.source.name();
        let (difference, reason) = match found.cmp(&published) {
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Less => (
                format!("{} fewer", published - found),
                "the copy is incomplete, or another release",
            ),
            std::cmp::Ordering::Greater => (
                format!("{} more", found - published),
                "files were added to it, or it is another release",
            ),
        };
        Some(format!(
            "{name}, {split}: found {found} in {from}, {difference} than the {published} of the published protocol: \
             {reason}, and results are not comparable with published ones"
        ))
    }
}

/// Both splits of a dense data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairedSet {
    /// What heads are trained on.
    pub train: PairSplit,
    /// What they are measured on.
    pub val: PairSplit,
}

impl PairedSet {
    /// Lists the pairs of both splits and looks at the size of every file, in parallel; no image is
    /// read.
    ///
    /// `train.txt` and `val.txt` in the folder win (one `image target` a line, one space, relative
    /// to the folder). Without them ADE20K and LoveDA are everything in their folders and Pascal
    /// VOC what `ImageSets/Segmentation/{trainaug,val}.txt` name, if both are there; NYUv2 and KITTI
    /// need the lists, or the published ones of [`open_with`](Self::open_with).
    ///
    /// # Errors
    ///
    /// [`DenseError`]; a pair of which a file is missing is one.
    pub fn open(dataset: &Dataset, files: impl Into<Files>) -> Result<Self, DenseError> {
        Self::open_with(dataset, files, None)
    }

    /// [`open`](Self::open), with the published lists for the folders that need them, which
    /// [`list_kind`](super::list_kind) tells. VOC's masks are taken from `SegmentationClassAug`
    /// where there is such a folder, also by the published lists, which name `SegmentationClass`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(
        dataset: &Dataset,
        files: impl Into<Files>,
        pinned: Option<&PinnedLists>,
    ) -> Result<Self, DenseError> {
        let files = &files.into();
        if !files.exist() {
            return Err(DataError::RootMissing { root: files.root().to_owned() }.into());
        }
        if dataset.depth.is_none() && dataset.labels.is_none() {
            return Err(DenseError::NotPaired { dataset: dataset.name.clone() });
        }
        let kind = find::list_kind(dataset, files)?;
        let open = |split| {
            PairSplit::new(files, split, find::listed(dataset, files, split, kind, pinned)?)
        };
        Ok(Self { train: open("train")?, val: open("val")? })
    }

    /// Keeps `n` pairs of each split, see [`PairSplit::take`].
    #[must_use]
    pub fn take(self, n: usize, seed: u64) -> Self {
        Self { train: self.train.take(n, seed), val: self.val.take(n, seed) }
    }

    /// Whether the splits are those of the folder's own `train.txt` and `val.txt`.
    pub fn own_lists(&self) -> bool {
        matches!(self.train.source, ListSource::Own { .. })
    }

    /// Hash over both splits: name, number of pairs, and both paths and sizes of each pair in
    /// order. File contents are not read. Taken over the pairs as they are, so before
    /// [`take`](Self::take) it names the data and after it the choice.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        let text = |hasher: &mut blake3::Hasher, text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for split in [&self.train, &self.val] {
            text(&mut hasher, split.split);
            hasher.update(&(split.pairs.len() as u64).to_le_bytes());
            for pair in &split.pairs {
                text(&mut hasher, &pair.image);
                text(&mut hasher, &pair.target);
                hasher.update(&pair.image_bytes.to_le_bytes());
                hasher.update(&pair.target_bytes.to_le_bytes());
            }
        }
        hasher.finalize().into()
    }

    /// Counts found (before [`take`](Self::take)) by split, beside the published ones unless the
    /// folder's own lists decided, and what decided.
    pub fn records(&self, dataset: &Dataset) -> BTreeMap<String, SplitRecord> {
        [&self.train, &self.val]
            .map(|split| {
                let (published, list) = (split.published(dataset), Some(split.source.record()));
                (split.split.to_owned(), SplitRecord { found: split.found, published, list })
            })
            .into()
    }

    /// What a reader of the results has to know about the splits, a sentence each: lists of the
    /// folder's own, and counts that are not the published ones.
    pub fn notes(&self, dataset: &Dataset) -> Vec<String> {
        [&self.train, &self.val].into_iter().filter_map(|split| split.note(dataset)).collect()
    }

    /// How the targets are stored, as [`load`](super::load) needs it. `chosen` is the user's word
    /// on the labels; without it the masks decide (see [`LabelForm::detect`]), where there are two
    /// forms. To be called before [`take`](Self::take), so that a limit does not hide what decides.
    ///
    /// # Errors
    ///
    /// [`DenseError`]: masks that cannot be read, contradict each other or decide nothing.
    pub fn target_form(
        &self,
        dataset: &Dataset,
        chosen: Option<LabelForm>,
    ) -> Result<TargetForm, DenseError> {
        if let Some(depth) = dataset.depth {
            return Ok(TargetForm::Depth { steps_per_metre: depth.steps_per_metre });
        }
        let (Some(labels), Some(classes)) = (&dataset.labels, dataset.classes) else {
            return Err(DenseError::NotPaired { dataset: dataset.name.clone() });
        };
        let form = match (chosen, &labels.original) {
            (Some(LabelForm::Original), None) => {
                return Err(DenseError::NoOriginalForm { dataset: dataset.name.clone() });
            }
            (Some(form), _) => form,
            (None, None) => LabelForm::Shifted,
            (None, Some(_)) => LabelForm::detect(self, dataset)?,
        };
        Ok(TargetForm::Labels { form, classes })
    }
}

/// Sizes of both files.
fn stat(
    files: &Files,
    (image, target): Names,
    named_by: impl Fn() -> String,
) -> Result<Pair, DenseError> {
    let bytes = |name: &str, what: &'static str| match files.size(name) {
        Ok(Some(bytes)) => Ok(bytes),
        Err(source) => Err(DataError::Io { path: files.place(name), source }.into()),
        Ok(None) => Err(DenseError::PairIncomplete {
            root: files.root().to_owned(),
            named_by: named_by(),
            image: image.clone(),
            target: target.clone(),
            missing: what,
        }),
    };
    let (image_bytes, target_bytes) = (bytes(&image, "image")?, bytes(&target, "target")?);
    Ok(Pair { image, target, image_bytes, target_bytes })
}
