//! Where a probe is in its training, in its run folder:
//!
//! ```text
//! checkpoint-SSSSSSSS.safetensors  head, optimiser and step after S steps
//! checkpoint-SSSSSSSS.json         the curve so far and the hash of the tensors; written last
//! best.safetensors                 the head at its best epoch so far
//! predictions-best.parquet         its per-image rows
//! .lock                            locked while a process works on the run
//! ```
//!
//! The newest two are kept; one whose tensors do not have the noted hash is passed over and removed.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use heads::dense::{HeadError, decode, encode};
use results::{LOCK, write_whole};
use schema::{EpochRecord, Fingerprint};
use serde::{Deserialize, Serialize};

/// What a probe knows beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The run it belongs to.
    pub(super) key: Fingerprint,
    /// Steps taken.
    pub(super) step: u64,
    /// Sum of the losses of the epoch under way, and their number.
    pub(super) losses: (f64, u64),
    /// Groups without a valid pixel in the epoch under way.
    pub(super) skipped_groups: usize,
    /// The finished epochs.
    pub(super) curve: Vec<EpochRecord>,
    /// What the last bits of a product belong to: kind of device, images at a time.
    pub(super) environment: String,
    /// Where that changed, a sentence each.
    pub(super) changes: Vec<String>,
    /// By all processes so far.
    pub(super) spent: Spent,
    /// BLAKE3 of the tensors' file.
    pub(super) tensors: Fingerprint,
}

/// Seconds by stage; shared stages count for every probe of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::run) struct Spent {
    pub(in crate::run) encode: f64,
    pub(in crate::run) train: f64,
    pub(in crate::run) validate: f64,
    /// Checkpoints, heads and pictures.
    #[serde(default)]
    pub(in crate::run) write: f64,
    pub(in crate::run) images: u64,
}

/// A checkpoint: progress and the probe's state.
pub(super) type Saved = (Progress, BTreeMap<String, Tensor>);

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("checkpoint {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The tensors or the progress do not fit.
    #[error("checkpoint {}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A checkpoint of another protocol, backbone, data set or seed.
    #[error("checkpoint {} belongs to run {found}, expected {expected}", path.display())]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// Key of the run that was to be continued.
        expected: String,
        /// Key in the file.
        found: String,
    },
    /// Another process has the run.
    #[error("another process is working on {}", folder.display())]
    InUse {
        /// The run folder.
        folder: PathBuf,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path, source }
}

fn content<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> CheckpointError {
    let path = path.to_path_buf();
    move |why| CheckpointError::Content { path, why: why.to_string() }
}

/// Writes a head file.
pub(in crate::run) fn write_head(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<(), CheckpointError> {
    let bytes = encode(tensors).map_err(content(path))?;
    write_whole(path, &bytes).map_err(io(path))
}

/// Takes a run's folder for this process, until the file is dropped, and removes what a killed one
/// was writing.
pub(in crate::run) fn lock(folder: &Path) -> Result<File, CheckpointError> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).append(true).open(&path).map_err(io(&path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            return Err(CheckpointError::InUse { folder: folder.to_owned() });
        }
        // Where there are no locks, users take care themselves.
        Err(TryLockError::Error(_)) | Ok(()) => {}
    }
    results::remove_unfinished(folder).map_err(io(folder))?;
    Ok(file)
}

/// Keeps a run from being deleted until the file is dropped. Processes that share the work of one
/// k-NN run all hold it.
pub(in crate::run) fn hold(folder: &Path) -> Result<File, CheckpointError> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).append(true).open(&path).map_err(io(&path))?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse { folder: folder.to_owned() }),
        Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
    }
}

/// Writes a checkpoint and removes all but the newest two.
pub(super) fn write(
    folder: &Path,
    state: &BTreeMap<String, Tensor>,
    progress: &mut Progress,
) -> Result<(), CheckpointError> {
    let stem = folder.join(format!("checkpoint-{:08}", progress.step));
    let (tensors, json) = (stem.with_extension("safetensors"), stem.with_extension("json"));
    let bytes = encode(state).map_err(content(&tensors))?;
    progress.tensors = blake3::hash(&bytes).into();
    write_whole(&tensors, &bytes).map_err(io(&tensors))?;
    let text = serde_json::to_vec_pretty(progress).map_err(content(&json))?;
    write_whole(&json, &text).map_err(io(&json))?;
    let whole = |step: &u64| folder.join(format!("checkpoint-{step:08}.json")).is_file();
    let (whole, parts): (Vec<u64>, _) = steps(folder)?.into_iter().rev().partition(whole);
    let kept = |step: &u64| *step == progress.step;
    let old = whole.into_iter().skip(2).chain(parts).filter(|step| !kept(step));
    old.into_iter().try_for_each(|step| remove(folder, step))
}

/// The newest whole checkpoint of this run, if there is one, and what is wrong with those that were
/// passed over: these are removed.
pub(super) fn newest(
    folder: &Path,
    key: &Fingerprint,
) -> Result<(Option<Saved>, Vec<CheckpointError>), CheckpointError> {
    let mut passed = Vec::new();
    for step in steps(folder)?.into_iter().rev() {
        match read(folder, step) {
            Ok(Some((progress, tensors))) if progress.key == *key => {
                return Ok((Some((progress, tensors)), passed));
            }
            Ok(Some((progress, _))) => {
                return Err(CheckpointError::OtherRun {
                    path: folder.join(format!("checkpoint-{step:08}.json")),
                    expected: key.short().to_owned(),
                    found: progress.key.short().to_owned(),
                });
            }
            Ok(None) => remove(folder, step)?,
            Err(error) => {
                passed.push(error);
                remove(folder, step)?;
            }
        }
    }
    Ok((None, passed))
}

/// A checkpoint; none where a kill left only a part of one.
fn read(folder: &Path, step: u64) -> Result<Option<Saved>, CheckpointError> {
    let stem = folder.join(format!("checkpoint-{step:08}"));
    let (tensors, json) = (stem.with_extension("safetensors"), stem.with_extension("json"));
    if !tensors.is_file() || !json.is_file() {
        return Ok(None);
    }
    let text = fs::read(&json).map_err(io(&json))?;
    let progress: Progress = serde_json::from_slice(&text).map_err(content(&json))?;
    let bytes = fs::read(&tensors).map_err(io(&tensors))?;
    if progress.tensors != blake3::hash(&bytes).into() {
        return Err(content(&tensors)("its hash is not the noted one"));
    }
    let state = decode(&bytes)
        .map_err(|problem| HeadError::Load { origin: tensors.clone(), problem })
        .map_err(content(&tensors))?;
    Ok(Some((progress, state)))
}

/// Removes every checkpoint: the run is finished.
pub(in crate::run) fn clear(folder: &Path) -> Result<(), CheckpointError> {
    steps(folder)?.into_iter().try_for_each(|step| remove(folder, step))
}

fn remove(folder: &Path, step: u64) -> Result<(), CheckpointError> {
    // The JSON first: without it the tensors are no checkpoint.
    for extension in ["json", "safetensors"] {
        let path = folder.join(format!("checkpoint-{step:08}.{extension}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io(&path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Steps of the checkpoints in a folder, ascending, whole or not.
fn steps(folder: &Path) -> Result<Vec<u64>, CheckpointError> {
    let mut steps = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let name = entry.map_err(io(folder))?.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("checkpoint-"));
        let step = step
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(step, _)| step.parse::<u64>().ok());
        steps.extend(step);
    }
    steps.sort_unstable();
    steps.dedup();
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn the_newest_whole_checkpoint_of_the_run_is_used_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let key: Fingerprint = blake3::hash(b"run").into();
        let at = |step: u64| {
            let value = Tensor::full(step as f32, 3, &Device::Cpu).unwrap();
            let progress = Progress {
                key: key.clone(),
                step,
                losses: (0.1 + 0.2, 3),
                skipped_groups: 0,
                curve: vec![EpochRecord {
                    metrics: BTreeMap::from([("rmse".to_owned(), f64::NAN)]),
                    ..EpochRecord::default()
                }],
                environment: "cpu".to_owned(),
                changes: Vec::new(),
                spent: Spent::default(),
                tensors: key.clone(),
            };
            (BTreeMap::from([("w".to_owned(), value)]), progress)
        };
        let newest = || newest(folder.path(), &key);
        let found = || newest().unwrap().0.map(|(progress, _)| progress.step);
        assert_eq!(found(), None);
        for step in [1, 2, 30] {
            let (state, mut progress) = at(step);
            write(folder.path(), &state, &mut progress).unwrap();
        }
        assert_eq!(steps(folder.path()).unwrap(), [2, 30]);
        let (progress, tensors) = newest().unwrap().0.unwrap();
        assert_eq!((progress.step, progress.losses), (30, (0.1 + 0.2, 3)));
        assert!(progress.curve[0].metrics["rmse"].is_nan());
        assert_eq!(tensors["w"].to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap(), [30.0; 3]);

        // A damaged one and a part of one give way to an older one, and do not come back.
        let file = folder.path().join("checkpoint-00000030.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        fs::write(folder.path().join("checkpoint-00000040.safetensors"), "half").unwrap();
        let (saved, passed) = newest().unwrap();
        assert_eq!((saved.unwrap().0.step, passed.len()), (2, 1));
        assert!(passed[0].to_string().ends_with("its hash is not the noted one"));
        assert_eq!(steps(folder.path()).unwrap(), [2]);
        for step in [3, 4] {
            let (state, mut progress) = at(step);
            write(folder.path(), &state, &mut progress).unwrap();
        }
        assert_eq!(found(), Some(4));

        let other: Fingerprint = blake3::hash(b"other").into();
        let refused = super::newest(folder.path(), &other).unwrap_err();
        assert!(matches!(refused, CheckpointError::OtherRun { .. }), "{refused}");
        assert_eq!(steps(folder.path()).unwrap(), [3, 4]);
        clear(folder.path()).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_run_belongs_to_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(matches!(lock(folder.path()), Err(CheckpointError::InUse { .. })));
        let torn = folder.path().join(".writing-abc");
        fs::write(&torn, "torn").unwrap();
        drop(held);
        lock(folder.path()).unwrap();
        assert!(!torn.exists());
    }
}
