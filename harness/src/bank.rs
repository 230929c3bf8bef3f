//! Extracted features on disk, so that an interrupted extraction continues and nothing is encoded
//! twice.
//!
//! ```text
//! CACHE/features-v1/KEY/
//!   bank.json                          what the key was made of
//!   train-00000000-00004096.safetensors   features [M, D] f32 and positions [M] u32 of samples 0..4096
//! ```
//!
//! Files are written under a temporary name and renamed. M is smaller than the range where images
//! were skipped.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use schema::{FeatureStage, Fingerprint, ImageStage, fingerprint};
use serde::Serialize;

use crate::files::write_atomically;

/// What decides a bank's content.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BankKey {
    /// Identity of the encoder.
    pub backbone: Fingerprint,
    /// From file to encoder input.
    pub image: ImageStage,
    /// From encoder input to feature.
    pub feature: FeatureStage,
    /// Fingerprint of the data set.
    pub data: Fingerprint,
    /// `limit` and the seed of its shuffle, when only a part is used.
    pub part: Option<(usize, u64)>,
    /// Whether unreadable images are left out.
    pub skip_bad_images: bool,
}

/// Why a bank cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("feature bank: {doing} {}: {why}", path.display())]
pub struct BankError {
    /// What was being done.
    pub doing: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What went wrong.
    pub why: String,
}

fn fault<E: std::fmt::Display>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> BankError {
    let path = path.to_path_buf();
    move |why| BankError { doing, path, why: why.to_string() }
}

/// Features of some samples of a split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// `[M, D]`, row-major.
    pub features: Vec<f32>,
    /// Position of each row's sample in the split.
    pub positions: Vec<u32>,
}

/// One bank.
pub struct Bank {
    folder: PathBuf,
}

impl Bank {
    /// Opens the bank of that key under a cache folder, creating it.
    pub fn open(cache: &Path, key: &BankKey) -> Result<Self, BankError> {
        let folder = cache.join("features-v1").join(fingerprint(key).short());
        fs::create_dir_all(&folder).map_err(fault("creating", &folder))?;
        let card = folder.join("bank.json");
        if !card.exists() {
            let json = serde_json::to_vec_pretty(key).map_err(fault("describing", &card))?;
            write_atomically(&card, &json).map_err(fault("writing", &card))?;
        }
        Ok(Self { folder })
    }

    /// Ranges of a split that are on disk, gapless from 0.
    pub fn filled(&self, split: &str) -> Result<Vec<Range<usize>>, BankError> {
        let mut ranges = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(fault("listing", &self.folder))? {
            let entry = entry.map_err(fault("listing", &self.folder))?;
            let name = entry.file_name();
            ranges.extend(name.to_str().and_then(|name| parse(name, split)));
        }
        ranges.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
        let mut gapless: Vec<Range<usize>> = Vec::new();
        for range in ranges {
            if range.start == gapless.last().map_or(0, |last| last.end) {
                gapless.push(range);
            }
        }
        Ok(gapless)
    }

    /// Adds the rows of a range.
    pub fn append(&self, split: &str, range: Range<usize>, rows: &Rows) -> Result<(), BankError> {
        let path = self.path(split, &range);
        let count = rows.positions.len();
        let dim = rows.features.len() / count.max(1);
        let features: Vec<u8> = rows.features.iter().flat_map(|x| x.to_le_bytes()).collect();
        let positions: Vec<u8> = rows.positions.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes);
        let tensors = [
            ("features", view(Dtype::F32, vec![count, dim], &features)),
            ("positions", view(Dtype::U32, vec![count], &positions)),
        ];
        let mut whole = Vec::new();
        for (name, tensor) in tensors {
            whole.push((name, tensor.map_err(fault("writing", &path))?));
        }
        let no_metadata: Option<HashMap<String, String>> = None;
        let bytes = safetensors::serialize(whole, no_metadata).map_err(fault("writing", &path))?;
        write_atomically(&path, &bytes).map_err(fault("writing", &path))
    }

    /// Reads the rows of ranges that [`Bank::filled`] named; `dim` is the features' width.
    pub fn read(
        &self,
        split: &str,
        ranges: &[Range<usize>],
        dim: usize,
    ) -> Result<Rows, BankError> {
        let mut rows = Rows::default();
        for range in ranges {
            let path = self.path(split, range);
            let bytes = fs::read(&path).map_err(fault("reading", &path))?;
            let file = SafeTensors::deserialize(&bytes).map_err(fault("reading", &path))?;
            let tensor = |name| file.tensor(name).map_err(fault("reading", &path));
            let (features, positions) = (tensor("features")?, tensor("positions")?);
            let count = positions.shape().first().copied().unwrap_or(0);
            let fits = features.shape() == [count, dim] || count == 0;
            if !fits || features.dtype() != Dtype::F32 || positions.dtype() != Dtype::U32 {
                let why = format!("expected [{count}, {dim}] f32, found {:?}", features.shape());
                return Err(fault("reading", &path)(why));
            }
            let words = |bytes: &[u8]| -> Vec<[u8; 4]> { bytes.as_chunks::<4>().0.to_vec() };
            rows.features.extend(words(features.data()).into_iter().map(f32::from_le_bytes));
            rows.positions.extend(words(positions.data()).into_iter().map(u32::from_le_bytes));
        }
        Ok(rows)
    }

    fn path(&self, split: &str, range: &Range<usize>) -> PathBuf {
        self.folder.join(format!("{split}-{:08}-{:08}.safetensors", range.start, range.end))
    }
}

fn parse(name: &str, split: &str) -> Option<Range<usize>> {
    let rest = name.strip_prefix(split)?.strip_prefix('-')?.strip_suffix(".safetensors")?;
    let (start, end) = rest.split_once('-')?;
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gapless_start_counts_as_filled() {
        let folder = tempfile::tempdir().unwrap();
        let bank = Bank { folder: folder.path().to_path_buf() };
        let rows = |range: Range<usize>| Rows {
            features: range.clone().flat_map(|i| [i as f32, -(i as f32)]).collect(),
            positions: range.map(|i| i as u32).collect(),
        };
        for range in [0..4, 4..6, 8..9] {
            bank.append("train", range.clone(), &rows(range)).unwrap();
        }
        bank.append("val", 0..1, &rows(0..1)).unwrap();
        fs::write(folder.path().join("train-00000006-00000008.tmp"), b"half").unwrap();
        let filled = bank.filled("train").unwrap();
        assert_eq!(filled, [0..4, 4..6]);
        assert_eq!(bank.read("train", &filled, 2).unwrap(), rows(0..6));
        let error = bank.read("train", &filled, 3).unwrap_err();
        assert!(error.to_string().contains("expected [4, 3] f32, found [4, 2]"), "{error}");
    }
}
