//! Where a run is, in its folder:
//!
//! ```text
//! checkpoint-policies-SSSS.safetensors  every policy and its optimiser, trained for evaluation S
//! checkpoint-progress.json              evaluation under way, rollouts made so far, losses
//! ```
//!
//! The progress is written after the policies it names, and again after every batch of rollouts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use heads::dense::{decode, encode};
use results::write_whole;
use schema::{EpisodeRow, Fingerprint};
use serde::{Deserialize, Serialize};

use super::train::Probe;
use crate::run::RunError;
use crate::run::dense::CheckpointError;

const PROGRESS: &str = "checkpoint-progress.json";

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The run it belongs to.
    pub(super) key: Option<Fingerprint>,
    /// Index of the evaluation that the policies are trained for.
    pub(super) evaluation: usize,
    /// BLAKE3 of the policies' file.
    pub(super) policies: Option<Fingerprint>,
    /// Every rollout made so far, in running order.
    pub(super) rows: Vec<EpisodeRow>,
    /// By evaluation: mean loss of the epochs before it, by policy.
    pub(super) losses: Vec<BTreeMap<String, f64>>,
    /// Seconds by stage, of all processes so far.
    pub(super) seconds: BTreeMap<String, f64>,
    /// Images encoded in rollouts.
    pub(super) images: u64,
    /// Rollout steps.
    pub(super) steps: u64,
    /// Workers replaced.
    pub(super) restarts: u64,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path, source }
}

fn content<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> CheckpointError {
    let path = path.to_path_buf();
    move |why| CheckpointError::Content { path, why: why.to_string() }
}

fn policies(folder: &Path, evaluation: usize) -> PathBuf {
    folder.join(format!("checkpoint-policies-{evaluation:04}.safetensors"))
}

impl Progress {
    /// What is there, with the policies' state; `None` where nothing is, or nothing whole.
    pub(super) fn load(
        folder: &Path,
        key: &Fingerprint,
        probes: &mut [Probe],
        names: &[String],
        epochs: impl Fn(&Probe, usize) -> usize,
    ) -> Result<Option<Self>, RunError> {
        let path = folder.join(PROGRESS);
        let Ok(text) = fs::read(&path) else { return Ok(None) };
        let progress: Self = serde_json::from_slice(&text).map_err(content(&path))?;
        if progress.key.as_ref() != Some(key) {
            let found = progress.key.map_or_else(String::new, |key| key.to_string());
            let expected = key.to_string();
            return Err(CheckpointError::OtherRun { path, expected, found }.into());
        }
        let file = policies(folder, progress.evaluation);
        let Ok(bytes) = fs::read(&file) else { return Ok(None) };
        if progress.policies != Some(blake3::hash(&bytes).into()) {
            return Ok(None);
        }
        let mut all = decode(&bytes).map_err(content(&file))?;
        for (probe, name) in probes.iter_mut().zip(names) {
            let prefix = format!("{name}/");
            let mine: Vec<String> =
                all.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
            let state: BTreeMap<String, Tensor> = mine
                .into_iter()
                .filter_map(|key| Some((key[prefix.len()..].to_owned(), all.remove(&key)?)))
                .collect();
            probe.policy.load_state(state)?;
            probe.epoch = epochs(probe, progress.evaluation);
        }
        Ok(Some(progress))
    }

    /// Keeps the policies, then itself, then forgets the policies before.
    pub(super) fn keep_policies(
        &mut self,
        folder: &Path,
        probes: &[Probe],
        names: &[String],
    ) -> Result<(), RunError> {
        let path = policies(folder, self.evaluation);
        let mut all = BTreeMap::new();
        for (probe, name) in probes.iter().zip(names) {
            for (key, tensor) in probe.policy.state()? {
                all.insert(format!("{name}/{key}"), tensor);
            }
        }
        let bytes = encode(&all).map_err(content(&path))?;
        write_whole(&path, &bytes).map_err(io(&path))?;
        self.policies = Some(blake3::hash(&bytes).into());
        self.keep(folder)?;
        if let Some(before) = self.evaluation.checked_sub(1) {
            let _ = fs::remove_file(policies(folder, before));
        }
        Ok(())
    }

    /// Adds seconds to a stage.
    pub(super) fn add(&mut self, stage: &str, seconds: f64) {
        *self.seconds.entry(stage.to_owned()).or_default() += seconds;
    }

    /// Writes itself.
    pub(super) fn keep(&self, folder: &Path) -> Result<(), RunError> {
        let path = folder.join(PROGRESS);
        let text = serde_json::to_vec(self).map_err(content(&path))?;
        write_whole(&path, &text).map_err(io(&path))?;
        Ok(())
    }
}

/// Removes the checkpoints of a run whose record is written.
pub(in crate::run) fn clear(folder: &Path) -> Result<(), CheckpointError> {
    for entry in fs::read_dir(folder).map_err(io(folder))?.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("checkpoint-p")) {
            fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
        }
    }
    Ok(())
}
