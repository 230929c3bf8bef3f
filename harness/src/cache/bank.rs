//! Features of a split, so that an interrupted extraction continues and nothing is encoded twice.
//!
//! ```text
//! train-00000000-00000256.safetensors  features [256, D] f32 of samples 0..256
//! ```
//!
//! Shards have fixed boundaries, given by the split's size and the micro-batch alone, so that
//! processes that extract the same bank write the same files, and each can take shards that no other
//! has claimed. Images that were left out leave no shard behind, so that they are tried again.

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use schema::{FeatureStage, Fingerprint, ImageStage};
use serde::Serialize;

use super::{CacheError, Claim, Kind, Set, Tensors, fault};

/// Images of one shard, at most: what an interruption may cost.
const SHARD: usize = 256;
/// Shards of a small split, at least.
const SHARDS: usize = 16;
const FEATURES: &str = "features";

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
    /// Whether features are as they come; else each has length 1.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
}

/// One bank.
pub struct Bank {
    set: Set,
    micro_batch: usize,
}

impl Bank {
    /// Opens the bank of that key under a cache folder, creating it; `about` says what it is.
    ///
    /// # Errors
    /// As [`Set::open`].
    pub fn open(cache: &Path, key: &BankKey, about: &str) -> Result<Self, CacheError> {
        let set = Set::open(cache, Kind::Features, key, about)?;
        Ok(Self { set, micro_batch: key.micro_batch.max(1) })
    }

    /// The shards of a split of `count` samples: whole micro-batches, the last one shorter.
    pub fn shards(&self, count: usize) -> Vec<Range<usize>> {
        shards(count, self.micro_batch)
    }

    /// The features of a shard, `[len, dim]` row-major, if it is on disk.
    ///
    /// # Errors
    /// A file that is not what it should be, with the reason.
    pub fn read(
        &self,
        split: &str,
        range: &Range<usize>,
        dim: usize,
    ) -> Result<Option<Vec<f32>>, CacheError> {
        let name = name(split, range);
        let path = self.set.folder().join(&name);
        let Some(mut tensors) = self.set.read(&name)? else { return Ok(None) };
        let expected = [range.len(), dim];
        let features = tensors.remove(FEATURES);
        match features {
            Some(features) if features.dims() == expected && features.dtype() == DType::F32 => {
                let values = features.flatten_all().and_then(|flat| flat.to_vec1());
                Ok(Some(values.map_err(fault("read", &path))?))
            }
            Some(other) => {
                let found = (other.dtype(), other.dims());
                Err(fault("read", &path)(format!("expected f32 {expected:?}, found {found:?}")))
            }
            None => Err(fault("read", &path)("it has no features")),
        }
    }

    /// Whether a shard's file is there, whatever is in it.
    pub fn has(&self, split: &str, range: &Range<usize>) -> bool {
        self.set.folder().join(name(split, range)).is_file()
    }

    /// Writes a whole shard.
    ///
    /// # Errors
    /// What the system says; nothing is then under the shard's name that was not there.
    pub fn write(
        &self,
        split: &str,
        range: &Range<usize>,
        features: &[f32],
    ) -> Result<(), CacheError> {
        let name = name(split, range);
        let shape = (range.len(), features.len() / range.len().max(1));
        let tensor = Tensor::from_slice(features, shape, &Device::Cpu);
        let tensor = tensor.map_err(fault("encode", &self.set.folder().join(&name)))?;
        let bytes = self.set.encode(&name, &Tensors::from([(FEATURES.to_owned(), tensor)]))?;
        self.set.write(&name, &bytes, true)
    }

    /// Takes the making of a shard, unless another process has it.
    pub fn claim(&self, split: &str, range: &Range<usize>) -> Option<Claim> {
        self.set.claim(&name(split, range))
    }
}

fn shards(count: usize, micro_batch: usize) -> Vec<Range<usize>> {
    let size = count.div_ceil(SHARDS).clamp(1, SHARD).next_multiple_of(micro_batch);
    (0..count).step_by(size).map(|start| start..count.min(start + size)).collect()
}

fn name(split: &str, range: &Range<usize>) -> String {
    format!("{split}-{:08}-{:08}.safetensors", range.start, range.end)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use schema::Tokens;

    use super::*;

    fn key() -> BankKey {
        let hash: Fingerprint = blake3::hash(b"x").into();
        BankKey {
            backbone: hash.clone(),
            image: crate::run::image_stage(256, [0.0; 3], [1.0; 3]),
            feature: FeatureStage {
                revision: 1,
                block: 0,
                tokens: Tokens::SummaryMean,
                class_tokens: None,
                final_norm: false,
                dtype: "f32".to_owned(),
            },
            data: hash,
            part: None,
            device: "cpu".to_owned(),
            micro_batch: 4,
            raw: false,
        }
    }

    proptest! {
        #[test]
        fn shards_tile_the_split_in_whole_micro_batches(count in 0usize..5000, batch in 1usize..600) {
            let shards = shards(count, batch);
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
        let cache = tempfile::tempdir().unwrap();
        let bank = Bank::open(cache.path(), &key(), "a test").unwrap();
        let features: Vec<f32> = (0..8).map(|i| i as f32 / 3.0).collect();
        assert!(bank.read("train", &(0..4), 2).unwrap().is_none());
        bank.write("train", &(0..4), &features).unwrap();
        assert_eq!(bank.read("train", &(0..4), 2).unwrap().unwrap(), features);
        assert!(bank.read("train", &(4..8), 2).unwrap().is_none());
        let error = bank.read("train", &(0..4), 3).unwrap_err().to_string();
        assert!(error.contains("expected f32 [4, 3], found (F32, [4, 2])"), "{error}");
        let file = bank.set.folder().join("train-00000000-00000004.safetensors");
        let bytes = fs::read(&file).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, flipped).unwrap();
            let read = bank.read("train", &(0..4), 2);
            assert!(read.is_err() || read.unwrap().unwrap() == features, "bit {bit}");
        }
        // A damaged card is written anew; it decides nothing.
        fs::write(&file, &bytes).unwrap();
        let card = bank.set.folder().join("card.json");
        let words = fs::read(&card).unwrap();
        fs::write(&card, "{").unwrap();
        let again = Bank::open(cache.path(), &key(), "a test").unwrap();
        assert_eq!(again.read("train", &(0..4), 2).unwrap().unwrap(), features);
        assert_eq!(fs::read(&card).unwrap(), words);
    }

    #[test]
    fn a_shard_is_claimed_by_one_at_a_time() {
        let cache = tempfile::tempdir().unwrap();
        let bank = Bank::open(cache.path(), &key(), "a test").unwrap();
        let claim = bank.claim("train", &(0..4)).unwrap();
        assert!(bank.claim("train", &(0..4)).is_none() && bank.claim("val", &(0..4)).is_some());
        drop(claim);
        assert!(bank.claim("train", &(0..4)).is_some());
    }
}
