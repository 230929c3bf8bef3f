//! Tokens of validation windows on disk, so that each epoch's validation runs the heads alone.
//!
//! ```text
//! CACHE/windows-v1/KEY/
//!   card.json                  what the key was made of; locked while a process uses the set
//!   00000012-block11-f32       tokens of the pass that begins with image 12: a safetensors file,
//!                              then its BLAKE3
//! ```
//!
//! What a linear head reads is kept as f32, what only a DPT reads in the run's type, which its first
//! convolutions round it to: either way a validation from kept tokens is, to the bit, the one that
//! encodes. All sets together stay within a limit; sets that no process uses make room, those that
//! were used longest ago first, and what still does not fit is encoded every time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use candle_core::{DType, Device, Tensor};
use schema::{DenseProtocol, Fingerprint, RunPlan, SampleStage, fingerprint};
use serde::Serialize;

use super::features::{Encoder, Tokens, TokensByBlock};
use super::train::Stream;
use super::windows::Windows;
use crate::bank::BankError;
use crate::device;
use crate::progress::Reporter;

const CARD: &str = "card.json";
const HASH: usize = blake3::OUT_LEN;

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
    ) -> Result<Option<Kept<'s>>, BankError> {
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
            part: protocol.limit.map(|limit| (limit, plan.seed)),
        };
        let kept = Kept::open(self.folder, &key, (self.limit, left > 1), stream.reporter)?;
        if left > 1 {
            let count: usize = windows.passes.iter().map(|pass| windows.count(pass)).sum();
            let size = (count as u64 * bytes_of_a_window(encoder)) as f64 / 1e9;
            stream.reporter.say(format!(
                "{}: features of {count} validation windows, {size:.1} GB, are kept in {} (at most {} \
                 GB of all data sets, --cache-gb)",
                plan.data.name,
                kept.folder.display(),
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
    folder: PathBuf,
    /// Held, with its lock, as long as this process uses the set.
    _card: File,
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
        key: &KeptKey<'_>,
        (limit, write): (u64, bool),
        reporter: &'a Reporter,
    ) -> Result<Self, BankError> {
        let all = cache.join("windows-v1");
        let folder = all.join(fingerprint(key).short());
        let fault = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |why: std::io::Error| BankError { doing, path, why: why.to_string() }
        };
        fs::create_dir_all(&folder).map_err(fault("create", &folder))?;
        let path = folder.join(CARD);
        let describe = |why| BankError { doing: "describe", path: path.clone(), why };
        let text = serde_json::to_vec_pretty(key).map_err(|error| describe(error.to_string()))?;
        let write_card = || -> std::io::Result<File> {
            let mut card = File::options().create(true).append(true).read(true).open(&path)?;
            // Systems without locks do without: at worst another process makes room here.
            let _ = card.try_lock_shared();
            if card.metadata()?.len() == 0 {
                card.write_all(&text)?;
            }
            card.set_modified(SystemTime::now())?;
            Ok(card)
        };
        let card = write_card().map_err(fault("write", &path))?;
        let used = sets(&all).iter().map(|set| set.bytes).sum();
        let (used, writing) = (AtomicU64::new(used), AtomicBool::new(write));
        Ok(Self { folder, _card: card, limit, used, writing, reporter })
    }

    /// The tokens of the pass that begins with image `first`, of every block, on the CPU; none
    /// unless all are whole.
    pub(super) fn read(
        &self,
        first: usize,
        blocks: &BTreeMap<usize, DType>,
        windows: usize,
    ) -> Option<TokensByBlock> {
        let one = |(&block, &dtype): (&usize, &DType)| {
            let exact = std::iter::once(dtype).chain((dtype != DType::F32).then_some(DType::F32));
            let mut found = exact.filter_map(|dtype| read(&self.path(first, block, dtype)));
            found.find(|tokens| tokens.patches.dims().first() == Some(&windows)).map(|t| (block, t))
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
            Ok((self.path(first, block, dtype), encode(tokens, dtype)?))
        });
        if let Err(why) = made.collect::<Result<Vec<_>, _>>().and_then(|files| self.put(&files)) {
            let folder = self.folder.display();
            self.reporter.warn(format!("{folder}: {why}; no more validation features are kept"));
            self.writing.store(false, Relaxed);
        }
    }

    /// Writes all files or, without room, none.
    fn put(&self, files: &[(PathBuf, Vec<u8>)]) -> Result<(), String> {
        let more = files.iter().map(|(path, bytes)| {
            let replaced = fs::metadata(path).map_or(0, |file| file.len());
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
        for (path, bytes) in files {
            let io = |error: std::io::Error| error.to_string();
            let mut file = tempfile::Builder::new()
                .prefix(".writing-")
                .tempfile_in(&self.folder)
                .map_err(io)?;
            // Not synced: what a loss of power leaves behind does not have its hash.
            file.write_all(bytes).map_err(io)?;
            file.persist(path).map_err(|error| error.error.to_string())?;
        }
        self.used.fetch_add(more, Relaxed);
        Ok(())
    }

    /// Whether there is room for `more` bytes, after removing other sets if need be.
    fn room(&self, more: u64) -> bool {
        if self.used.load(Relaxed) + more <= self.limit {
            return true;
        }
        let Some(all) = self.folder.parent() else { return false };
        let mut others = sets(all);
        others.retain(|set| set.folder != self.folder);
        others.sort_by_key(|set| set.last_used);
        for set in others {
            if self.used.load(Relaxed) + more <= self.limit {
                break;
            }
            let unused =
                File::open(set.folder.join(CARD)).is_ok_and(|card| card.try_lock().is_ok());
            if unused && fs::remove_dir_all(&set.folder).is_ok() {
                self.used.fetch_sub(set.bytes.min(self.used.load(Relaxed)), Relaxed);
            }
        }
        self.used.load(Relaxed) + more <= self.limit
    }

    fn path(&self, first: usize, block: usize, dtype: DType) -> PathBuf {
        self.folder.join(format!("{first:08}-block{block:02}-{}", dtype.as_str()))
    }
}

struct Set {
    folder: PathBuf,
    bytes: u64,
    last_used: SystemTime,
}

fn sets(all: &Path) -> Vec<Set> {
    let files = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let set = |folder: PathBuf| {
        let card = fs::metadata(folder.join(CARD)).ok()?;
        let kept = files(&folder).filter(|file| file.file_name() != CARD);
        let sizes = kept.filter_map(|file| Some(file.metadata().ok()?.len()));
        let (bytes, last_used) = (sizes.sum(), card.modified().ok()?);
        Some(Set { folder, bytes, last_used })
    };
    files(all).filter_map(|entry| set(entry.path())).collect()
}

fn encode(tokens: &Tokens, dtype: DType) -> Result<Vec<u8>, String> {
    let (h, w) = tokens.grid;
    let grid = Tensor::new(&[h as u32, w as u32], &Device::Cpu);
    let mut named = vec![("patches", tokens.patches.to_dtype(dtype)), ("grid", grid)];
    named.extend(tokens.summary.clone().map(|summary| ("summary", Ok(summary))));
    let cpu = |(name, tensor): (&'static str, candle_core::Result<Tensor>)| {
        Ok((name, tensor?.to_device(&Device::Cpu)?))
    };
    let named: candle_core::Result<Vec<_>> = named.into_iter().map(cpu).collect();
    let named = named.map_err(|error| error.to_string())?;
    let mut bytes = safetensors::serialize(named, None).map_err(|error| error.to_string())?;
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    Ok(bytes)
}

/// The tokens of a file, if it is whole.
fn read(path: &Path) -> Option<Tokens> {
    let bytes = fs::read(path).ok()?;
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    if blake3::hash(content).as_bytes() != hash {
        return None;
    }
    let mut named = candle_core::safetensors::load_buffer(content, &Device::Cpu).ok()?;
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
        let kept = Kept::open(cache.path(), &key(&data), (1 << 30, true), &reporter).unwrap();
        let blocks = BTreeMap::from([(3, DType::BF16), (11, DType::F32)]);
        let made = tokens(3);
        assert!(kept.read(0, &blocks, 3).is_none());
        kept.write(0, &made, &blocks);
        let found = kept.read(0, &blocks, 3).unwrap();
        assert_eq!(bits(&found[&11].patches), bits(&made[&11].patches));
        assert_eq!(
            bits(found[&3].summary.as_ref().unwrap()),
            bits(made[&3].summary.as_ref().unwrap())
        );
        let rounded = made[&3].patches.to_dtype(DType::BF16).unwrap();
        assert_eq!(bits(&found[&3].patches), bits(&rounded));
        assert_eq!((found[&3].patches.dtype(), found[&3].grid), (DType::BF16, (2, 2)));
        // More precise tokens serve, less precise ones do not.
        assert!(kept.read(0, &BTreeMap::from([(11, DType::BF16)]), 3).is_some());
        assert!(kept.read(0, &BTreeMap::from([(3, DType::F32)]), 3).is_none());
        assert!(kept.read(0, &blocks, 4).is_none() && kept.read(3, &blocks, 3).is_none());

        let path = kept.path(0, 11, DType::F32);
        let mut bytes = fs::read(&path).unwrap();
        bytes[200] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(kept.read(0, &blocks, 3).is_none());
        fs::write(&path, &bytes[..20]).unwrap();
        assert!(kept.read(0, &blocks, 3).is_none());
        kept.write(0, &made, &blocks);
        assert!(kept.read(0, &blocks, 3).is_some());
    }

    #[test]
    fn the_limit_holds_and_unused_sets_make_room() {
        let cache = tempfile::tempdir().unwrap();
        let reporter = Reporter::new(Verbosity::Quiet);
        let blocks = BTreeMap::from([(3, DType::F32), (11, DType::F32)]);
        let name = |text: &str| -> Fingerprint { blake3::hash(text.as_bytes()).into() };
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let open =
            |data, limit| Kept::open(cache.path(), &key(data), (limit, true), &reporter).unwrap();
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
        assert!(open(&a, limit).read(0, &blocks, 3).is_none());
        assert!(used.read(0, &blocks, 3).is_some() && third.read(0, &blocks, 3).is_some());
        third.write(1, &tokens(3), &blocks);
        assert!(third.read(1, &blocks, 3).is_none() && !third.wants());
        let total: u64 = sets(&cache.path().join("windows-v1")).iter().map(|set| set.bytes).sum();
        assert!(total <= limit, "{total} of {limit}");
    }
}
