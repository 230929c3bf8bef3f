//! Tokens of validation windows on disk, so that each epoch's validation runs the heads alone.
//!
//! ```text
//! 00000012-block11-f32.safetensors  tokens of the pass that begins with image 12
//! ```
//!
//! What a linear head reads is kept as f32, what only a DPT reads in the run's type, which its first
//! convolutions round it to: either way a validation from kept tokens is, to the bit, the one that
//! encodes. All sets together stay within a limit; sets that no process uses make room, those that
//! were used longest ago first, and what still does not fit is encoded every time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use candle_core::{DType, Device, Tensor};
use schema::{DenseProtocol, Fingerprint, RunPlan, SampleStage};
use serde::Serialize;

use super::features::{Encoder, Tokens, TokensByBlock};
use super::train::Stream;
use super::windows::Windows;
use crate::cache::{self, CacheError, Kind, Set, Tensors};
use crate::device;
use crate::progress::Reporter;

/// What decides the tokens of a set.
#[derive(Debug, Serialize)]
pub(super) struct KeptKey<'a> {
    pub(super) backbone: &'a Fingerprint,
    /// Autocast type of the encoder.
    pub(super) dtype: &'static str,
    /// The last bits of a product belong to the kind of device,
    pub(super) device: &'static str,
    /// to the program that has the kernels,
    pub(super) version: &'static str,
    /// and to the images of a pass.
    pub(super) micro_batch: usize,
    /// Revision of the stage from pixels to tokens.
    pub(super) feature_revision: u32,
    pub(super) sample: &'a SampleStage,
    /// Side and stride of windows.
    pub(super) windows: (usize, usize),
    /// Of the data set.
    pub(super) data: &'a Fingerprint,
    /// `--limit` and the seed of its shuffle.
    pub(super) part: Option<(usize, u64)>,
}

/// Where tokens are kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::run) struct Cache<'a> {
    pub(in crate::run) folder: &'a Path,
    /// Bytes of all sets together; 0 keeps none.
    pub(in crate::run) limit: u64,
}

impl Cache<'_> {
    /// The set of a run's validation tokens. They are worth writing if they are read again: with two
    /// or more validations `left`.
    pub(super) fn open<'s>(
        &self,
        stream: &Stream<'s>,
        (plan, protocol): (&RunPlan, &DenseProtocol),
        windows: &Windows,
        encoder: &Encoder<'_>,
        left: usize,
    ) -> Result<Option<Kept<'s>>, CacheError> {
        if self.limit == 0 || encoder.blocks.is_empty() {
            return Ok(None);
        }
        let key = KeptKey {
            backbone: &plan.backbone.identity,
            dtype: stream.dtype.as_str(),
            device: device::kind(stream.device),
            version: env!("CARGO_PKG_VERSION"),
            micro_batch: stream.micro_batch,
            feature_revision: protocol.feature.revision,
            sample: &protocol.sample,
            windows: (protocol.evaluation.window, protocol.evaluation.stride),
            data: &plan.data.fingerprint,
            part: protocol.limit.map(|limit| (limit, plan.stream_seed())),
        };
        let (data, backbone) = (&plan.data.name, &plan.backbone.name);
        let about = format!("{data}, validation windows, {backbone}, {}", key.dtype);
        let write = (self.limit, left > 1);
        let kept = Kept::open(self.folder, (&key, &about), write, stream.reporter)?;
        if left > 1 {
            let count: usize = windows.passes.iter().map(|pass| windows.count(pass)).sum();
            let size = (count as u64 * bytes_of_a_window(encoder)) as f64 / 1e9;
            stream.reporter.say(format!(
                "{}: features of {count} validation windows, {size:.1} GB, are kept in {} (at most {} \
                 GB of all data sets, --cache-gb)",
                plan.data.name,
                kept.set.folder().display(),
                self.limit as f64 / 1e9,
            ));
        }
        Ok(Some(kept))
    }
}

fn bytes_of_a_window(encoder: &Encoder<'_>) -> u64 {
    let dimensions = encoder.backbone.dimensions();
    let grid = encoder.side / dimensions.patch.max(1);
    let summary =
        if encoder.summary { dimensions.summary_tokens * DType::F32.size_in_bytes() } else { 0 };
    let block = |dtype: &DType| grid * grid * dtype.size_in_bytes() + summary;
    (encoder.blocks.values().map(block).sum::<usize>() * dimensions.width) as u64
}

/// One set of kept tokens.
pub(super) struct Kept<'a> {
    set: Set,
    cache: PathBuf,
    limit: u64,
    /// Bytes of all sets.
    used: AtomicU64,
    /// Whether new tokens are still written.
    writing: AtomicBool,
    reporter: &'a Reporter,
}

impl<'a> Kept<'a> {
    /// Opens the set of that key under a cache folder, creating it. All sets together may take
    /// `limit` bytes; new tokens are written if `write`.
    pub(super) fn open(
        cache: &Path,
        (key, about): (&KeptKey<'_>, &str),
        (limit, write): (u64, bool),
        reporter: &'a Reporter,
    ) -> Result<Self, CacheError> {
        let set = Set::open(cache, Kind::Windows, key, about)?;
        let used = cache::sets(cache, Kind::Windows).iter().map(|set| set.bytes).sum();
        let (used, writing) = (AtomicU64::new(used), AtomicBool::new(write));
        Ok(Self { set, cache: cache.to_owned(), limit, used, writing, reporter })
    }

    /// The tokens of the pass that begins with image `first`, of every block, on the CPU; none
    /// unless all are whole.
    pub(super) fn read(
        &self,
        first: usize,
        (blocks, summary): (&BTreeMap<usize, DType>, bool),
        windows: usize,
    ) -> Option<TokensByBlock> {
        let one = |(&block, &dtype): (&usize, &DType)| {
            let exact = std::iter::once(dtype).chain((dtype != DType::F32).then_some(DType::F32));
            // A damaged file is as good as none: its pass is encoded and written again.
            let read = |dtype| tokens(self.set.read(&name(first, block, dtype)).ok()??);
            let mut found = exact.filter_map(read);
            // Tokens that were kept for heads without a summary do not do for one with it.
            let whole = |tokens: &Tokens| {
                let joined = !summary || tokens.summary.is_some();
                joined && tokens.patches.dims().first() == Some(&windows)
            };
            found.find(whole).map(|tokens| (block, tokens))
        };
        blocks.iter().map(one).collect()
    }

    /// Whether tokens of a pass are wanted by [`Kept::write`].
    pub(super) fn wants(&self) -> bool {
        self.writing.load(Relaxed)
    }

    /// Keeps the tokens of a pass, if there is room.
    pub(super) fn write(
        &self,
        first: usize,
        tokens: &TokensByBlock,
        blocks: &BTreeMap<usize, DType>,
    ) {
        let made = tokens.iter().map(|(&block, tokens)| {
            let dtype = blocks.get(&block).copied().unwrap_or(DType::F32);
            let name = name(first, block, dtype);
            let tensors = tensors(tokens, dtype).map_err(|error| error.to_string())?;
            let bytes = self.set.encode(&name, &tensors).map_err(|error| error.to_string())?;
            Ok((name, bytes))
        });
        let put = |files: Vec<(String, Vec<u8>)>| self.put(&files).map_err(|e| e.to_string());
        if let Err(why) = made.collect::<Result<Vec<_>, String>>().and_then(put) {
            self.reporter.warn(format!("{why}; no more validation features are kept"));
            self.writing.store(false, Relaxed);
        }
    }

    /// Writes all files or, without room, none.
    fn put(&self, files: &[(String, Vec<u8>)]) -> Result<(), CacheError> {
        let more = files.iter().map(|(name, bytes)| {
            let replaced = fs::metadata(self.set.folder().join(name)).map_or(0, |file| file.len());
            (bytes.len() as u64).saturating_sub(replaced)
        });
        let more = more.sum();
        if !self.room(more) {
            self.writing.store(false, Relaxed);
            let limit = self.limit as f64 / 1e9;
            self.reporter.say(format!(
                "kept validation features: the limit of {limit} GB is reached, the rest is encoded \
                 every time (--cache-gb)"
            ));
            return Ok(());
        }
        for (name, bytes) in files {
            self.set.write(name, bytes, false)?;
        }
        self.used.fetch_add(more, Relaxed);
        Ok(())
    }

    /// Whether there is room for `more` bytes, after removing other sets if need be.
    fn room(&self, more: u64) -> bool {
        if self.used.load(Relaxed) + more <= self.limit {
            return true;
        }
        let mut others = cache::sets(&self.cache, Kind::Windows);
        others.retain(|set| set.folder != self.set.folder() && !set.in_use);
        others.sort_by_key(|set| set.last_used);
        for other in others {
            if self.used.load(Relaxed) + more <= self.limit {
                break;
            }
            if fs::remove_dir_all(&other.folder).is_ok() {
                self.used.fetch_sub(other.bytes.min(self.used.load(Relaxed)), Relaxed);
            }
        }
        self.used.load(Relaxed) + more <= self.limit
    }
}

fn name(first: usize, block: usize, dtype: DType) -> String {
    format!("{first:08}-block{block:02}-{}.safetensors", dtype.as_str())
}

fn tensors(tokens: &Tokens, dtype: DType) -> candle_core::Result<Tensors> {
    let (h, w) = tokens.grid;
    let grid = Tensor::new(&[h as u32, w as u32], &Device::Cpu)?;
    let mut named = Tensors::from([("grid".to_owned(), grid)]);
    named.insert("patches".to_owned(), tokens.patches.to_dtype(dtype)?);
    named.extend(tokens.summary.clone().map(|summary| ("summary".to_owned(), summary)));
    Ok(named)
}

fn tokens(mut named: Tensors) -> Option<Tokens> {
    let grid = named.remove("grid")?.to_vec1::<u32>().ok()?;
    let &[h, w] = grid.as_slice() else { return None };
    let (patches, summary) = (named.remove("patches")?, named.remove("summary"));
    Some(Tokens { patches, summary, grid: (h as usize, w as usize) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Verbosity;

    fn key(data: &Fingerprint) -> KeptKey<'_> {
        static SAMPLE: std::sync::OnceLock<SampleStage> = std::sync::OnceLock::new();
        let sample = SAMPLE.get_or_init(|| SampleStage {
            revision: 1,
            border: None,
            scale: None,
            crop: 32,
            flip: 0.5,
            mean: [0.0; 3],
            std: [1.0; 3],
        });
        KeptKey {
            backbone: data,
            dtype: "bf16",
            device: "cpu",
            version: "0",
            micro_batch: 4,
            feature_revision: 1,
            sample,
            windows: (32, 21),
            data,
            part: None,
        }
    }

    fn tokens(windows: usize) -> TokensByBlock {
        let make = |shape: (usize, usize, usize)| Tensor::randn(0f32, 1.0, shape, &Device::Cpu);
        let one = |_| Tokens {
            patches: make((windows, 4, 8)).unwrap(),
            summary: Some(make((windows, 2, 8)).unwrap()),
            grid: (2, 2),
        };
        [3, 11].into_iter().map(|block| (block, one(block))).collect()
    }

    fn bits(tensor: &Tensor) -> Vec<u32> {
        let flat = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        flat.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn tokens_come_back_as_a_head_sees_them_or_not_at_all() {
        let cache = tempfile::tempdir().unwrap();
        let reporter = Reporter::new(Verbosity::Quiet);
        let data: Fingerprint = blake3::hash(b"data").into();
        let kept =
            Kept::open(cache.path(), (&key(&data), "a"), (1 << 30, true), &reporter).unwrap();
        let blocks = BTreeMap::from([(3, DType::BF16), (11, DType::F32)]);
        let made = tokens(3);
        assert!(kept.read(0, (&blocks, false), 3).is_none());
        kept.write(0, &made, &blocks);
        let found = kept.read(0, (&blocks, false), 3).unwrap();
        assert_eq!(bits(&found[&11].patches), bits(&made[&11].patches));
        assert_eq!(
            bits(found[&3].summary.as_ref().unwrap()),
            bits(made[&3].summary.as_ref().unwrap())
        );
        let rounded = made[&3].patches.to_dtype(DType::BF16).unwrap();
        assert_eq!(bits(&found[&3].patches), bits(&rounded));
        assert_eq!((found[&3].patches.dtype(), found[&3].grid), (DType::BF16, (2, 2)));
        // More precise tokens serve, less precise ones do not.
        assert!(kept.read(0, (&BTreeMap::from([(11, DType::BF16)]), false), 3).is_some());
        assert!(kept.read(0, (&BTreeMap::from([(3, DType::F32)]), false), 3).is_none());
        assert!(
            kept.read(0, (&blocks, false), 4).is_none()
                && kept.read(3, (&blocks, false), 3).is_none()
        );

        let path = kept.set.folder().join(name(0, 11, DType::F32));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(kept.read(0, (&blocks, false), 3).is_none());
        fs::write(&path, &bytes[..20]).unwrap();
        assert!(kept.read(0, (&blocks, false), 3).is_none());
        kept.write(0, &made, &blocks);
        assert!(kept.read(0, (&blocks, false), 3).is_some());
    }

    #[test]
    fn the_limit_holds_and_unused_sets_make_room() {
        let cache = tempfile::tempdir().unwrap();
        let reporter = Reporter::new(Verbosity::Quiet);
        let blocks = BTreeMap::from([(3, DType::F32), (11, DType::F32)]);
        let hashed = |text: &str| -> Fingerprint { blake3::hash(text.as_bytes()).into() };
        let (a, b, c) = (hashed("a"), hashed("b"), hashed("c"));
        let open = |data, limit| {
            Kept::open(cache.path(), (&key(data), "a"), (limit, true), &reporter).unwrap()
        };
        let first = open(&a, 1 << 30);
        first.write(0, &tokens(3), &blocks);
        let one = first.used.load(Relaxed);
        let limit = 2 * one + one / 4;
        drop(first);
        let used = open(&b, limit);
        used.write(0, &tokens(3), &blocks);
        let third = open(&c, limit);
        third.write(0, &tokens(3), &blocks);
        // The set that nobody uses has made room, the one in use has not.
        assert!(open(&a, limit).read(0, (&blocks, false), 3).is_none());
        assert!(
            used.read(0, (&blocks, false), 3).is_some()
                && third.read(0, (&blocks, false), 3).is_some()
        );
        third.write(1, &tokens(3), &blocks);
        assert!(third.read(1, (&blocks, false), 3).is_none() && !third.wants());
        let all = cache::sets(cache.path(), Kind::Windows);
        let total: u64 = all.iter().map(|set| set.bytes).sum();
        assert!(total <= limit, "{total} of {limit}");
    }
}
