use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DepthMetrics, EpisodeRow, Fingerprint, MetricValue, Protocol, fingerprint};

/// Version of the record format. A reader refuses newer ones by name instead of guessing.
pub const FORMAT: u32 = 1;

/// A cell of the benchmark: which data set, which head.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskHead {
    /// Data set, for example `imagenet1k`.
    pub dataset: String,
    /// Head, for example `knn`.
    pub head: String,
}

impl std::fmt::Display for TaskHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.dataset, self.head)
    }
}

/// A run folder holds:
///
/// ```text
/// OUT/DATASET/HEAD/BACKBONE-KEY/
///   plan.json            { "format": 1, "plan": RunPlan }, written before any work
///   predictions.parquet  one row a validation sample; of the last epoch, where a head is trained
///   record.json          { "format": 1, "plan": RunPlan, "outcome": Outcome }, written last
///   failed.txt           the error, when the run failed
/// ```
///
/// and, where a head is trained, what only the training and a reader of pictures look at:
///
/// ```text
///   checkpoint-EEEE.json, checkpoint-EEEE.safetensors  the state after epoch EEEE, the newest two
///   head.safetensors     the last epoch's head
///   best.safetensors     the best epoch's head
///   predictions-best.parquet  its per-image rows; not in folders of early versions
///   pictures/            input, truth, prediction and error of a few validation images
/// ```
///
/// `KEY` is the first twelve characters of [`RunPlan::key`]. A folder with `record.json` is
/// finished; without it, the same command continues it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`FORMAT`] at the time of writing.
    pub format: u32,
    /// What was to be done.
    pub plan: RunPlan,
    /// What came out.
    pub outcome: Outcome,
}

/// What is to be done, complete before any work starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunPlan {
    /// Data set and head.
    pub task: TaskHead,
    /// The encoder.
    pub backbone: BackboneRecord,
    /// The resolved protocol.
    pub protocol: Protocol,
    /// [`Protocol::fingerprint`] of it.
    pub protocol_fingerprint: Fingerprint,
    /// The data.
    pub data: DataRecord,
    /// Seed of the head.
    pub seed: u64,
    /// Seed of the stream (order, crops, `limit`'s shuffle), where it is not the head's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_seed: Option<u64>,
    /// Whether unreadable images are left out (and listed in the outcome) instead of ending the run.
    #[serde(default)]
    pub skip_bad_images: bool,
    /// BLAKE3 of the head file that was evaluated or trained further, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_weights: Option<Fingerprint>,
    /// Images in one encoder pass; not part of the key.
    pub micro_batch: usize,
}

impl RunPlan {
    /// Hash over what decides the result: task, backbone identity, protocol, data fingerprint and
    /// seeds. Device, micro-batch and paths are not part of it.
    pub fn key(&self) -> Fingerprint {
        let decides = (
            &self.task,
            &self.backbone.identity,
            &self.protocol_fingerprint,
            &self.data.fingerprint,
            &self.data.labels,
            self.seed,
            self.skip_bad_images,
            &self.head_weights,
        );
        match self.stream_seed {
            None => fingerprint(&decides),
            // Keys of runs with one seed stay what they were before there were two.
            Some(stream) => fingerprint(&(decides, stream)),
        }
    }

    /// Seed of the stream: order, crops, `limit`'s shuffle.
    pub fn stream_seed(&self) -> u64 {
        self.stream_seed.unwrap_or(self.seed)
    }
}

/// Which encoder, and where its weights came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackboneRecord {
    /// Name shown in tables.
    pub name: String,
    /// What the user asked for, for example `hf:facebook/pixio-vitl16@main`.
    pub source: String,
    /// Family, for example `pixio`.
    pub family: String,
    /// Hash over the mapped tensors (name, shape, dtype, bytes), the same for every container.
    pub identity: Fingerprint,
    /// Commit of the hub repository, where the weights came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// False for seeded random weights.
    pub trained: bool,
    /// Number of parameters of the encoder.
    pub parameters: u64,
    /// Number of blocks.
    pub blocks: usize,
    /// Width of a token.
    pub width: usize,
    /// How it knows where a patch is, and how that is fitted to another grid, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub positions: String,
    /// Versions of Python and its libraries, where it runs there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
}

/// Which data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Name in datasets.toml.
    pub name: String,
    /// Folder it was read from.
    pub root: String,
    /// Hash over relative paths, sizes in bytes and targets of every sample, in order.
    pub fingerprint: Fingerprint,
    /// Split name to counts.
    pub splits: BTreeMap<String, SplitRecord>,
    /// Number of classes.
    pub classes: usize,
    /// How the masks were read, where there are two ways: `shifted` or `original`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Whether the images are generated sample data.
    pub sample: bool,
    /// The kind of archives that it was read from in place: `webdataset`, `parquet`, `zip` or `tar`; none
    /// for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Wrong preparations that were recognised in it and accepted by the user (`--accept-data`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
}

/// One split's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// Samples found (before `limit`).
    pub found: usize,
    /// Samples the published protocol has, where the comparison makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<usize>,
    /// What decided which samples belong to it; absent for data sets of one folder a class, which
    /// have no lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ListRecord>,
}

/// What decided which samples belong to a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRecord {
    /// Kind of list.
    pub kind: ListKind,
    /// SHA-256 of a published list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Kinds of things that decide which samples belong to a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListKind {
    /// The data folder's own `train.txt` and `val.txt`.
    Own,
    /// Lists that are part of the data set's layout.
    Layout,
    /// The published lists named in datasets.toml.
    Pinned,
    /// Everything in the split's folder.
    Folder,
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Every metric, in display order.
    pub metrics: Vec<MetricValue>,
    /// Seconds by stage: `load`, `encode`, `search`, `total`.
    pub seconds: BTreeMap<String, f64>,
    /// Images encoded in this run (kept features are not encoded again).
    pub images_encoded: u64,
    /// Images a second while encoding, decoding included; absent when nothing was encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Training and validation, epoch by epoch; empty for heads that are not trained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<EpochRecord>,
    /// Where it ran.
    pub host: HostRecord,
    /// RFC 3339, UTC.
    pub started: String,
    /// RFC 3339, UTC.
    pub finished: String,
    /// Images left out because they could not be read, relative to the data folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_images: Vec<String>,
    /// What a reader of the numbers must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What else was counted: `rollout-steps`, `simulator-restarts`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
}

/// One epoch of a trained head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epochs trained so far: 1 after the first; 0 is the head as it started.
    pub epoch: usize,
    /// Mean loss over the epoch's steps, if any step had a valid pixel.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::real::option")]
    pub loss: Option<f64>,
    /// Steps and groups without a valid pixel, left out of the losses.
    #[serde(default)]
    pub skipped_groups: usize,
    /// Validation metrics by name, in the metric's unit; empty when this epoch was not validated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "crate::real::map")]
    pub metrics: BTreeMap<String, f64>,
}

/// Per-sample rows of a run, by kind of task.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleRows {
    /// Predicted classes.
    Knn(Vec<PredictionRow>),
    /// Depth metrics of one epoch's head.
    Depth(Vec<DepthRow>),
    /// Class counts of one epoch's head.
    Segmentation(Vec<SegmentationRow>),
    /// Every rollout of every evaluation.
    Policy(Vec<EpisodeRow>),
}

/// One validation image of a depth run.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthRow {
    /// Path relative to the data folder.
    pub path: String,
    /// Its metrics; `None` with too few valid pixels to count.
    pub metrics: Option<DepthMetrics>,
}

/// One validation image of a segmentation run: pixels by class, `[classes]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentationRow {
    /// Path relative to the data folder.
    pub path: String,
    /// Predicted and true.
    pub intersection: Vec<u64>,
    /// Predicted.
    pub predicted: Vec<u64>,
    /// True.
    pub target: Vec<u64>,
}

/// Where and with what a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Version of pixio-eval.
    pub version: String,
    /// Git commit it was built from, or `unknown`.
    pub commit: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Processor model as the system names it.
    pub cpu: String,
    /// Worker threads.
    pub threads: usize,
}

/// What one validation sample was predicted to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionRow {
    /// Path relative to the data folder.
    pub path: String,
    /// True class index.
    pub label: u32,
    /// One entry for each k of the protocol, in its order.
    pub by_k: Vec<KPrediction>,
}

/// The prediction for one k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KPrediction {
    /// Number of neighbours.
    pub k: u32,
    /// Class with the highest vote.
    pub predicted: u32,
    /// Whether the true class is first.
    pub top1: bool,
    /// Whether the true class is among the first min(5, k).
    pub top5: bool,
}
