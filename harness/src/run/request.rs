//! What a command asks for, and what it did.

use std::path::PathBuf;

use candle_core::DType;
use schema::{Fingerprint, RunPlan, RunRecord};
use tasks::dense::LabelForm;

use super::memory::BatchSize;
use super::{Cell, RunError};
use crate::device::DeviceChoice;
use crate::resolve::SourceOptions;

/// What a command asks for, resolved from its flags.
#[derive(Clone, Debug)]
pub struct Request {
    /// Cells to run.
    pub cells: Vec<Cell>,
    /// Keys of the runs that the cells must come to, in their order, where they were planned before.
    pub keys: Vec<Fingerprint>,
    /// Data sets that must be there; others are left out when they are not.
    pub required: Vec<String>,
    /// Folders of data sets, by name.
    pub data: Vec<(String, PathBuf)>,
    /// Whether generated sample data stands in for every data set.
    pub sample: bool,
    /// Folder for results.
    pub out: PathBuf,
    /// What decides which encoders they are, beside their text.
    pub source: SourceOptions,
    /// `--device`.
    pub device: DeviceChoice,
    /// `--dtype`.
    pub dtype: Option<DType>,
    /// `--batch-size`.
    pub batch_size: Option<BatchSize>,
    /// `--memory-gb`, in bytes.
    pub memory: Option<u64>,
    /// Decoding threads.
    pub workers: Option<usize>,
    /// `--skip-bad-images`.
    pub skip_bad_images: bool,
    /// `--head-weights`.
    pub head_weights: Option<PathBuf>,
    /// `--labels`.
    pub labels: Option<LabelForm>,
    /// `--accept-data`: wrong preparations that are not refused, by name.
    pub accepted: Vec<String>,
    /// `--cache-gb`, in bytes: kept validation features of all data sets.
    pub kept_bytes: u64,
    /// `--pictures`: validation images to picture.
    pub pictures: usize,
}

/// What a command did.
#[derive(Debug, Default)]
pub struct Report {
    /// Records of every cell that is finished now, in running order.
    pub records: Vec<RunRecord>,
    /// How many of them were finished before.
    pub kept: usize,
    /// Runs that failed.
    pub failed: Vec<Failed>,
}

/// A run that failed.
#[derive(Debug)]
pub struct Failed {
    /// Task and backbone.
    pub label: String,
    /// The run's key.
    pub key: Fingerprint,
    /// Why.
    pub error: RunError,
}

impl Report {
    /// Takes a failed run.
    pub(crate) fn failed(&mut self, plan: &RunPlan, error: RunError) {
        let label = format!("{} {}", plan.task, plan.backbone.name);
        self.failed.push(Failed { label, key: plan.key(), error });
    }

    /// Takes a finished run, shown under the name asked for now, which may differ for the same
    /// weights.
    pub(crate) fn done(&mut self, mut record: RunRecord, plan: &RunPlan) {
        record.plan.backbone = plan.backbone.clone();
        self.records.push(record);
    }
}
