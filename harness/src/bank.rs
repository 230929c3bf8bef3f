//! Extracted features on disk, so that an interrupted extraction continues and nothing is encoded
//! twice.
//!
//! ```text
//! CACHE/features-v1/KEY/
//!   bank.json                            what the key was made of
//!   train-00000000-00000256.safetensors  features [256, D] f32 of samples 0..256
//! ```
//!
//! Shards have fixed boundaries, given by the split's size and the micro-batch alone, so that
//! processes that extract the same bank write the same files. A shard is written under a temporary
//! name and renamed, and only when it is whole: images that were left out leave no shard behind, so
//! that they are tried again.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use results::write_whole;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use schema::{FeatureStage, Fingerprint, ImageStage, fingerprint};
use serde::Serialize;

/// Images of one shard, at most: what an interruption may cost.
const SHARD: usize = 256;
/// Shards of a small split, at least.
const SHARDS: usize = 16;

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
    /// Kind of device, for example `cpu-avx512`: the last bits of a product belong to it.
    pub device: String,
    /// Images in one encoder pass, for the same reason.
    pub micro_batch: usize,
}

/// Why a bank cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("feature bank: cannot {doing} {}: {why}", path.display())]
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

/// Checks that a cache folder can be written to, creating it.
pub fn check_writable(cache: &Path) -> Result<(), BankError> {
    fs::create_dir_all(cache).map_err(fault("create", cache))?;
    tempfile::tempfile_in(cache).map(drop).map_err(fault("write to", cache))
}

/// One bank.
pub struct Bank {
    folder: PathBuf,
    micro_batch: usize,
}

impl Bank {
    /// Opens the bank of that key under a cache folder, creating it.
    pub fn open(cache: &Path, key: &BankKey) -> Result<Self, BankError> {
        let folder = cache.join("features-v1").join(fingerprint(key).short());
        fs::create_dir_all(&folder).map_err(fault("create", &folder))?;
        let card = folder.join("bank.json");
        let json = serde_json::to_vec_pretty(key).map_err(fault("describe", &card))?;
        match fs::read(&card) {
            Ok(found) if found == json => {}
            Ok(_) => return Err(fault("use", &card)("it is of other features; move it away")),
            Err(_) => write_whole(&card, &json).map_err(fault("write", &card))?,
        }
        Ok(Self { folder, micro_batch: key.micro_batch.max(1) })
    }

    /// The shards of a split of `count` samples: whole micro-batches, the last one shorter.
    pub fn shards(&self, count: usize) -> Vec<Range<usize>> {
        let size = count.div_ceil(SHARDS).clamp(1, SHARD).next_multiple_of(self.micro_batch);
        (0..count).step_by(size).map(|start| start..count.min(start + size)).collect()
    }

    /// The features of a shard, `[len, dim]` row-major, if it is on disk. A file that is not what it
    /// should be counts as absent, with the reason.
    pub fn read(
        &self,
        split: &str,
        range: &Range<usize>,
        dim: usize,
    ) -> Result<Option<Vec<f32>>, BankError> {
        let path = self.path(split, range);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(fault("read", &path))?,
        };
        let file = SafeTensors::deserialize(&bytes).map_err(fault("read", &path))?;
        let features = file.tensor("features").map_err(fault("read", &path))?;
        let expected = [range.len(), dim];
        if features.shape() != expected || features.dtype() != Dtype::F32 {
            let found = (features.dtype(), features.shape().to_vec());
            return Err(fault("read", &path)(format!(
                "expected f32 {expected:?}, found {found:?}"
            )));
        }
        let words = features.data().as_chunks::<4>().0;
        Ok(Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect()))
    }

    /// Writes a whole shard.
    pub fn write(
        &self,
        split: &str,
        range: &Range<usize>,
        features: &[f32],
    ) -> Result<(), BankError> {
        let path = self.path(split, range);
        let bytes: Vec<u8> = features.iter().flat_map(|x| x.to_le_bytes()).collect();
        let shape = vec![range.len(), features.len() / range.len().max(1)];
        let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(fault("write", &path))?;
        let file = safetensors::serialize([("features", view)], None);
        write_whole(&path, &file.map_err(fault("write", &path))?).map_err(fault("write", &path))
    }

    fn path(&self, split: &str, range: &Range<usize>) -> PathBuf {
        self.folder.join(format!("{split}-{:08}-{:08}.safetensors", range.start, range.end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bank(folder: &Path, micro_batch: usize) -> Bank {
        Bank { folder: folder.to_path_buf(), micro_batch }
    }

    proptest! {
        #[test]
        fn shards_tile_the_split_in_whole_micro_batches(count in 0usize..5000, batch in 1usize..600) {
            let shards = bank(Path::new(""), batch).shards(count);
            let mut next = 0;
            for shard in &shards {
                prop_assert_eq!(shard.start, next);
                prop_assert!(shard.len() % batch == 0 || shard.end == count);
                prop_assert!(!shard.is_empty() && shard.len() <= SHARD.max(batch) + batch);
                next = shard.end;
            }
            prop_assert_eq!(next, count);
        }
    }

    #[test]
    fn a_shard_comes_back_as_it_was_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let bank = bank(folder.path(), 4);
        let features: Vec<f32> = (0..8).map(|i| i as f32 / 3.0).collect();
        assert!(bank.read("train", &(0..4), 2).unwrap().is_none());
        bank.write("train", &(0..4), &features).unwrap();
        assert_eq!(bank.read("train", &(0..4), 2).unwrap().unwrap(), features);
        assert!(bank.read("train", &(4..8), 2).unwrap().is_none());
        let error = bank.read("train", &(0..4), 3).unwrap_err().to_string();
        assert!(error.contains("expected f32 [4, 3], found (F32, [4, 2])"), "{error}");
        let file = folder.path().join("train-00000000-00000004.safetensors");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(bank.read("train", &(0..4), 2).is_err());
    }
}
