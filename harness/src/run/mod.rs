//! Running cells of the benchmark: plan everything, then carry it out, one record a cell.

mod calibrate;
mod cell;
mod dense;
mod embed;
mod extract;
mod knn;
mod memory;
mod outline;
mod policy;
mod prepare;
mod request;
mod session;
mod set;
mod streams;
mod wrong;

use std::path::PathBuf;

use schema::TaskHead;

use crate::backbone::BackboneError;
use crate::cache::CacheError;
use crate::device::DeviceError;
use crate::hub::HubError;
use crate::lists::ListError;
use crate::python::WorkerError;
use crate::registry::nearest;
use crate::resolve::ResolveError;
use crate::simulators::SimulatorError;
use crate::weights::WeightsError;

pub use calibrate::Rates;
pub use cell::{Cell, Settings, TokenChoice, datasets};
pub use dense::CheckpointError;
pub(crate) use dense::{Placed, Trial};
pub use embed::image_stage;
pub use memory::{BatchSize, STANDARD};
pub(crate) use outline::streams;
pub use outline::{Outline, Outlines, outline};
pub use request::{Failed, Report, Request};
pub use session::{execute, extract};
pub use wrong::WrongData;

/// Every cell this version can run, as data set and head.
pub static CELLS: &[(&str, &str)] = &[
    ("imagenet1k", "knn"),
    ("nyuv2", "linear"),
    ("nyuv2", "dpt"),
    ("kitti", "linear"),
    ("kitti", "dpt"),
    ("ade20k", "linear"),
    ("ade20k", "dpt"),
    ("voc2012", "linear"),
    ("voc2012", "dpt"),
    ("loveda", "linear"),
    ("loveda", "dpt"),
    ("adroit", "policy"),
    ("dmc", "policy"),
    ("metaworld", "policy"),
    ("trifinger", "policy"),
];

/// Why a command could not run, or a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No `--backbone`.
    #[error("no backbone given")]
    NoBackbone,
    /// A data set or head that this version does not measure.
    #[error("unknown {what} {name:?}; this version runs {known}")]
    Unknown {
        /// `task`, `data set` or `head`.
        what: &'static str,
        /// As given.
        name: String,
        /// What there is.
        known: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// A data set that was asked for is not there.
    #[error("data set {name} is not at {}", folder.display())]
    NoData {
        /// Name in datasets.toml.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Nothing but dense tasks for an encoder without patch tokens.
    #[error("{backbone} has no token grid, which {tasks} needs")]
    NoGrid {
        /// Its name.
        backbone: String,
        /// The tasks.
        tasks: String,
    },
    /// What is wrong with one of several cells.
    #[error("{cell}: {source}")]
    Cell {
        /// Task and backbone.
        cell: String,
        /// What is wrong.
        source: Box<RunError>,
    },
    /// A cell that comes to another run than the one that was planned.
    #[error(
        "{cell} was planned as run {expected} and is run {found} here: the backbone's weights, the data, the type \
         to compute in or the program differ"
    )]
    Moved {
        /// Task and backbone.
        cell: String,
        /// Key in the plan.
        expected: String,
        /// Key here.
        found: String,
    },
    /// A setting that does not go with the backbone or the head.
    #[error("{what} {value}: {why}")]
    Setting {
        /// As on the command line, without dashes.
        what: &'static str,
        /// As given.
        value: String,
        /// What is there.
        why: String,
    },
    /// `--set` with a value that the protocol does not have.
    #[error("--set {given}: {why}")]
    Set {
        /// As given.
        given: String,
        /// What is wrong.
        why: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// More neighbours than train samples.
    #[error("k = {k} is larger than the train set of {train} samples in {}", folder.display())]
    KTooLarge {
        /// As asked for.
        k: usize,
        /// Samples in the train split, after `--limit`.
        train: usize,
        /// The data set.
        folder: PathBuf,
    },
    /// Every image of a split was left out.
    #[error("no image of the {split} split could be read")]
    NothingLeft {
        /// The split.
        split: &'static str,
    },
    /// A training split that does not fill one batch.
    #[error("{dataset} has {samples} training samples: fewer than one batch of {batch}")]
    TooFewSamples {
        /// The data set.
        dataset: String,
        /// Training samples, after `--limit`.
        samples: usize,
        /// Samples of a batch.
        batch: usize,
    },
    /// No validation image with enough valid pixels.
    #[error("no validation image of {dataset} has enough valid pixels to count")]
    NothingValid {
        /// The data set.
        dataset: String,
    },
    /// `--head-weights` with more than one head to give them to.
    #[error("--head-weights belongs to one TASK/HEAD and one backbone")]
    OneHead,
    /// The head file cannot be read.
    #[error("cannot read head {}: {source}", path.display())]
    HeadFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A loss or gradient that is not finite.
    #[error("{source}; the batch was {}", files.join(", "))]
    Diverged {
        /// Which, and at which step.
        source: heads::dense::HeadError,
        /// Images of the batch.
        files: Vec<String>,
    },
    /// A head whose predictions are not finite.
    #[error("the head's prediction for {image} is not finite")]
    NotFinite {
        /// The validation image.
        image: String,
    },
    /// The device has too little memory, even for the least at a time.
    #[error("{device} has no memory left: {why}")]
    OutOfMemory {
        /// `cuda:N` or `cpu`.
        device: String,
        /// As it answered.
        why: String,
    },
    /// The device failed in a way after which this process cannot use it any more.
    #[error("{device} was lost: {why}")]
    DeviceLost {
        /// `cuda:N` or `cpu`.
        device: String,
        /// As it answered.
        why: String,
    },
    /// A robot simulator.
    #[error(transparent)]
    Simulator(SimulatorError),
    /// Demonstrations.
    #[error(transparent)]
    Demonstrations(#[from] tasks::robot::DemoError),
    /// Demonstrations that do not go with this protocol.
    #[error("demonstrations in {}: {why}", folder.display())]
    Unfit {
        /// The suite's folder.
        folder: PathBuf,
        /// What was expected and found.
        why: String,
    },
    /// A task that the true state is not a backbone for.
    #[error("\"state\" is the simulator's true state, which {0} does not have")]
    NoState(String),
    /// A policy or its training.
    #[error(transparent)]
    Policy(#[from] heads::policy::PolicyError),
    /// What ended a stream that this run shared.
    #[error("{0}")]
    Stream(String),
    /// A head, its file, or its training.
    #[error(transparent)]
    Head(#[from] heads::dense::HeadError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A pair of image and target.
    #[error(transparent)]
    Dense(#[from] tasks::dense::DenseError),
    /// The published split lists.
    #[error(transparent)]
    Lists(ListError),
    /// A label that is no class.
    #[error(transparent)]
    Label(#[from] tasks::metrics::LabelOutside),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The data set.
    #[error(transparent)]
    Data(#[from] tasks::data::DataError),
    /// Another preparation of the data than the protocol's.
    #[error(transparent)]
    WrongData(Box<WrongData>),
    /// Archives that cannot be read in place.
    #[error(transparent)]
    Archives(tasks::archive::ArchiveError),
    /// datasets.toml.
    #[error(transparent)]
    Registry(#[from] tasks::data::RegistryError),
    /// Generating sample data.
    #[error(transparent)]
    Sample(#[from] tasks::sample::SampleError),
    /// An image.
    #[error(transparent)]
    Image(#[from] tasks::image::ImageError),
    /// The backbone.
    #[error(transparent)]
    Resolve(ResolveError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The encoder.
    #[error(transparent)]
    Backbone(BackboneError),
    /// Kept features.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The search or the vote.
    #[error(transparent)]
    Knn(#[from] heads::knn::KnnError),
    /// The results.
    #[error(transparent)]
    Store(#[from] results::StoreError),
    /// The table.
    #[error(transparent)]
    Table(#[from] results::TableError),
}

impl From<SimulatorError> for RunError {
    fn from(error: SimulatorError) -> Self {
        match error {
            SimulatorError::Interrupted => Self::Interrupted,
            error => Self::Simulator(error),
        }
    }
}

impl From<ListError> for RunError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Interrupted => Self::Interrupted,
            error => Self::Lists(error),
        }
    }
}

impl From<ResolveError> for RunError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Hub(HubError::Interrupted)
            | ResolveError::Worker(WorkerError::Interrupted) => Self::Interrupted,
            error => Self::Resolve(error),
        }
    }
}

impl From<BackboneError> for RunError {
    fn from(error: BackboneError) -> Self {
        match error {
            BackboneError::Python(WorkerError::Interrupted) => Self::Interrupted,
            error => Self::Backbone(error),
        }
    }
}

impl From<tasks::archive::ArchiveError> for RunError {
    fn from(error: tasks::archive::ArchiveError) -> Self {
        match error {
            tasks::archive::ArchiveError::Interrupted => Self::Interrupted,
            error => Self::Archives(error),
        }
    }
}

impl RunError {
    /// What is wrong, without which cell it is wrong with.
    pub fn inner(&self) -> &Self {
        match self {
            Self::Cell { source, .. } => source.inner(),
            error => error,
        }
    }

    /// Whether another process works on the run.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Checkpoint(CheckpointError::InUse { .. }))
    }

    /// Whether the run's folder is another process's, or the run merely stopped.
    fn leaves_no_note(&self) -> bool {
        self.is_in_use() || matches!(self, Self::Interrupted)
    }
}

/// A cell as it is given on the command line.
fn shown(cell: &str) -> String {
    match cell.strip_suffix("/policy") {
        Some(suite) => format!("cortexbench/{suite}"),
        None => cell.to_owned(),
    }
}

/// Reads `TASK/HEAD`, or `cortexbench/SUITE`.
pub fn parse_cell(text: &str) -> Result<TaskHead, RunError> {
    let known = || CELLS.iter().map(|(dataset, head)| format!("{dataset}/{head}"));
    let robot = text.strip_prefix("cortexbench/").map(|suite| format!("{suite}/policy"));
    let text = robot.as_deref().unwrap_or(text);
    if known().any(|cell| cell == text) {
        let (dataset, head) = text.split_once('/').unwrap_or((text, ""));
        return Ok(TaskHead { dataset: dataset.to_owned(), head: head.to_owned() });
    }
    let all: Vec<String> = known().map(|cell| shown(&cell)).collect();
    let text = &shown(text);
    let near = nearest(text, all.iter().map(String::as_str));
    Err(RunError::Unknown { what: "task", name: text.to_owned(), near, known: all.join(", ") })
}

/// The cells of the named data sets and heads; an empty list stands for all.
pub fn select_cells(datasets: &[String], heads: &[String]) -> Result<Vec<TaskHead>, RunError> {
    let check = |what, names: &[String], known: Vec<&str>| -> Result<(), RunError> {
        let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) else {
            return Ok(());
        };
        let near = nearest(name, known.iter().copied());
        Err(RunError::Unknown { what, name: name.clone(), near, known: known.join(", ") })
    };
    check("data set", datasets, CELLS.iter().map(|(dataset, _)| *dataset).collect())?;
    check("head", heads, CELLS.iter().map(|(_, head)| *head).collect())?;
    let wanted = |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let chosen = CELLS.iter().filter(|(d, h)| wanted(datasets, d) && wanted(heads, h));
    Ok(chosen.map(|(d, h)| TaskHead { dataset: (*d).to_owned(), head: (*h).to_owned() }).collect())
}
