//! Where a probe is in its training, in its run folder:
//!
//! ```text
//! checkpoint-SSSSSSSS.safetensors  head, optimiser and step after S steps
//! checkpoint-SSSSSSSS.json         the curve so far and the hash of the tensors; written last
//! best.safetensors                 the head at its best epoch so far
//! ```
//!
//! The newest two are kept; one whose tensors do not have the noted hash is passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use heads::dense::{HeadError, decode, encode};
use results::write_whole;
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
    /// BLAKE3 of the tensors' file.
    pub(super) tensors: Fingerprint,
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
pub(super) fn write_head(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<(), CheckpointError> {
    let bytes = encode(tensors).map_err(content(path))?;
    write_whole(path, &bytes).map_err(io(path))
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
    for old in steps(folder)?.into_iter().rev().skip(2) {
        remove(folder, old)?;
    }
    Ok(())
}

/// The newest whole checkpoint of this run, if there is one.
pub(super) fn newest(folder: &Path, key: &Fingerprint) -> Result<Option<Saved>, CheckpointError> {
    for step in steps(folder)?.into_iter().rev() {
        let stem = folder.join(format!("checkpoint-{step:08}"));
        let read = |extension: &str| fs::read(stem.with_extension(extension));
        let (Ok(json), Ok(bytes)) = (read("json"), read("safetensors")) else { continue };
        let Ok(progress) = serde_json::from_slice::<Progress>(&json) else { continue };
        if progress.key != *key || progress.tensors != blake3::hash(&bytes).into() {
            continue;
        }
        let tensors = decode(&bytes)
            .map_err(|problem| HeadError::Load { origin: stem.clone(), problem })
            .map_err(content(&stem))?;
        return Ok(Some((progress, tensors)));
    }
    Ok(None)
}

/// Removes every checkpoint: the run is finished.
pub(super) fn clear(folder: &Path) -> Result<(), CheckpointError> {
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
                curve: Vec::new(),
                tensors: key.clone(),
            };
            (BTreeMap::from([("w".to_owned(), value)]), progress)
        };
        assert!(newest(folder.path(), &key).unwrap().is_none());
        for step in [1, 2, 30] {
            let (state, mut progress) = at(step);
            write(folder.path(), &state, &mut progress).unwrap();
        }
        assert_eq!(steps(folder.path()).unwrap(), [2, 30]);
        let (progress, tensors) = newest(folder.path(), &key).unwrap().unwrap();
        assert_eq!((progress.step, progress.losses), (30, (0.1 + 0.2, 3)));
        assert_eq!(tensors["w"].to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap(), [30.0; 3]);

        let file = folder.path().join("checkpoint-00000030.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(newest(folder.path(), &key).unwrap().unwrap().0.step, 2);
        assert!(newest(folder.path(), &blake3::hash(b"other").into()).unwrap().is_none());
        clear(folder.path()).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
