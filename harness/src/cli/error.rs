use results::plot::PlotError;
use tasks::image::ImageError;

use crate::backbone::BackboneError;
use crate::device::DeviceError;
use crate::prepare::PrepareError;
use crate::resolve::ResolveError;
use crate::run::{CheckpointError, RunError};
use crate::simulators::SimulatorError;
use crate::sweep::SweepError;
use crate::weights::WeightsError;

use super::hints::{
    device_hints, list_hints, plot_hints, resolve_hints, simulator_hints, sweep_hints,
    worker_hints, wrong_data_hints,
};
use super::{EXIT_FAILED, EXIT_USAGE};
use crate::interrupt::EXIT_INTERRUPTED;

/// Everything a command can end with.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Ctrl-C in a command that keeps nothing.
    #[error("interrupted, nothing was written")]
    Interrupted,
    /// An image given on the command line.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Running, planning, or reading results.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A name that datasets.toml does not have.
    #[error("unknown data set {name:?}")]
    UnknownDataset {
        /// As given.
        name: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// A name that backbones.toml does not have.
    #[error("unknown backbone {name:?}: not a name in backbones.toml")]
    UnknownBackbone {
        /// As given.
        name: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// An embedded table is broken.
    #[error("{0}")]
    Embedded(String),
    /// An image side that the encoder cannot take.
    #[error("--size {0} does not fit the backbone: {1}")]
    Size(String, BackboneError),
    /// Something could not be written.
    #[error("cannot write {what}: {why}")]
    Output {
        /// The file, or `stdout`.
        what: String,
        /// Why.
        why: String,
    },
    /// Nothing to compare.
    #[error(transparent)]
    Compare(#[from] results::compare::CompareError),
    /// No table in the layout.
    #[error(transparent)]
    Layout(#[from] results::LayoutError),
    /// A data set that was not prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// No model card.
    #[error(transparent)]
    Card(#[from] results::CardError),
    /// An id that names no run.
    #[error(transparent)]
    RunId(#[from] results::RunIdError),
    /// Exporting or importing runs.
    #[error(transparent)]
    Archive(#[from] results::ArchiveError),
    /// A sweep's file.
    #[error(transparent)]
    SweepFile(#[from] crate::sweep::file::FileError),
    /// A sweep.
    #[error(transparent)]
    Sweep(SweepError),
    /// Starting jobs elsewhere.
    #[error(transparent)]
    Launch(#[from] crate::sweep::launch::LaunchError),
    /// The file that says how.
    #[error(transparent)]
    LaunchConfig(#[from] crate::sweep::launch::ConfigError),
    /// A sweep so large that it may be a slip.
    #[error("the sweep has {0} combinations")]
    ManyCells(u128),
    /// An argument that a plan cannot keep.
    #[error("expected arguments in UTF-8, found {0:?}")]
    NotText(std::ffi::OsString),
    /// A time that is none.
    #[error("{name}: expected seconds, at least 1, found {found:?}")]
    Expiry {
        /// The variable.
        name: &'static str,
        /// Its value.
        found: String,
    },
    /// Something that a run needs is not there.
    #[error("not there: {0}")]
    Preflight(String),
    /// Deleting where nobody can be asked.
    #[error("deleting runs needs --yes where there is no terminal to ask at")]
    NeedsYes,
    /// What has no place in the layout of everything.
    #[error("{0} needs a layout, for example --layout depth")]
    NeedsLayout(&'static str),
    /// No plot.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// No report.
    #[error(transparent)]
    Report(#[from] results::report::ReportError),
    /// A picture's file name that names no format.
    #[error("{0} ends in none of .svg, .png and .pdf")]
    PictureFormat(String),
    /// A format that is no text goes to a file.
    #[error("--format {0} is not text; it needs --output FILE")]
    NeedsFile(results::Format),
}

impl From<SweepError> for CliError {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::Run(error) => Self::Run(error),
            error => Self::Sweep(error),
        }
    }
}

impl CliError {
    /// Exit status: 130 interrupted, 1 failed while running, 2 anything that kept it from running.
    pub fn status(&self) -> u8 {
        match self {
            Self::Run(RunError::Interrupted) | Self::Interrupted => EXIT_INTERRUPTED as u8,
            Self::Prepare(error) if error.is_interruption() => EXIT_INTERRUPTED as u8,
            Self::Prepare(error) if error.is_usage() => EXIT_USAGE,
            Self::Image(_)
            | Self::Run(RunError::DeviceLost { .. })
            | Self::Output { .. }
            | Self::Archive(_)
            | Self::Prepare(_)
            | Self::Sweep(SweepError::NoWorker { .. })
            | Self::Launch(_) => EXIT_FAILED,
            _ => EXIT_USAGE,
        }
    }

    /// What to do next, one line each.
    pub fn hints(&self) -> Vec<String> {
        let near = |near: &[String], list: &str| {
            let mut hints = Vec::new();
            if let Some(first) = near.first() {
                hints.push(format!("did you mean {first:?}?"));
            }
            hints.push(list.to_owned());
            hints
        };
        let one = |hint: &str| vec![hint.to_owned()];
        match self {
            Self::UnknownDataset { near: names, .. } => {
                near(names, "`pixio-eval data list` shows every data set")
            }
            Self::UnknownBackbone { near: names, .. } => {
                near(names, "`pixio-eval backbones list` shows every name")
            }
            Self::Prepare(error) => error.hints(),
            Self::RunId(_) => {
                one("`pixio-eval runs` lists every run; its id ends its folder's name")
            }
            Self::Run(error) => match error.inner() {
                RunError::Interrupted => one("the same command continues where this one stopped"),
                RunError::OutOfMemory { .. } => one(
                    "--batch-size N takes fewer images at a time; what is done is kept, the same command continues",
                ),
                RunError::DeviceLost { .. } => vec![
                    "what is done is kept: the same command continues where this one stopped".to_owned(),
                    "`pixio-eval doctor` shows whether the GPU is back; --device cpu with the same --dtype continues \
                     without it"
                        .to_owned(),
                ],
                RunError::Cache(_) => {
                    one("PIXIO_EVAL_CACHE chooses another folder for kept features")
                }
                RunError::NoBackbone => {
                    one("give --backbone B, for example --backbone pixio-l, or try --sample")
                }
                RunError::Unknown { near: names, .. } => match names.first() {
                    Some(first) => vec![format!("did you mean {first:?}?")],
                    None => Vec::new(),
                },
                RunError::NoData { name, .. } => vec![
                    format!(
                        "say where it is with --data {name}=DIR, or set PIXIO_EVAL_DATA to the folder \
                         that holds {name}"
                    ),
                    format!("`pixio-eval data prepare {name}` makes it from what is published"),
                ],
                RunError::NoGrid { .. } => one(
                    "dense heads need a token grid; imagenet1k/knn and CortexBench take any backbone",
                ),
                RunError::Set { near: names, .. } => match names.first() {
                    Some(first) => vec![format!("did you mean {first:?}?")],
                    None => Vec::new(),
                },
                RunError::Moved { .. } => one("the sweep's command plans it again"),
                RunError::KTooLarge { .. } => one("give smaller numbers with --k"),
                RunError::WrongData(wrong) => wrong_data_hints(wrong),
                RunError::Archives(_) => {
                    one("fetch or copy the archive again; `pixio-eval data card NAME` says from where")
                }
                RunError::Lists(error) => list_hints(error),
                RunError::Data(_) => {
                    one("`pixio-eval data status --data NAME=DIR` shows what is there and missing")
                }
                RunError::Simulator(error) => simulator_hints(error),
                RunError::Unfit { .. } => vec![
                    "`pixio-eval demos list` shows what is there; `pixio-eval demos make SUITE/TASK` \
                     makes more"
                        .to_owned(),
                    "--protocol cortexbench-lite and --limit N take fewer".to_owned(),
                ],
                RunError::NoState(_) => one("the state is for cortexbench/... tasks"),
                RunError::Image(ImageError::Io { .. }) => Vec::new(),
                RunError::Image(_) => one("--skip-bad-images leaves such files out and says so"),
                RunError::Resolve(error) => resolve_hints(error),
                RunError::Backbone(BackboneError::Python(error)) => worker_hints(error),
                RunError::Device(error) => device_hints(error),
                RunError::Store(_) => one("--out DIR chooses another folder for results"),
                RunError::Checkpoint(CheckpointError::OtherRun { .. }) => {
                    one("move it elsewhere, and this run begins anew")
                }
                RunError::Weights(_) => {
                    one("the checkpoint may be damaged: fetch or copy it again")
                }
                _ => Vec::new(),
            },
            Self::SweepFile(error) => {
                let near = error.near().first();
                near.map(|name| format!("did you mean {name:?}?")).into_iter().collect()
            }
            Self::Sweep(error) => sweep_hints(error),
            Self::Launch(error) => error.hints(),
            Self::ManyCells(_) => one("--yes runs it all the same; [[exclude]] leaves cells out"),
            Self::Preflight(_) => one("--data NAME=DIR says where a data set is"),
            Self::Compare(_) => one("`pixio-eval runs` lists every run under --out"),
            Self::Plot(error) => plot_hints(error),
            Self::PictureFormat(_) => one("LaTeX takes .pdf, a web page .svg, a slide .png"),
            Self::Interrupted => Vec::new(),
            Self::Image(_) => one("features takes JPEG and PNG files"),
            _ => Vec::new(),
        }
    }
}

macro_rules! through_run {
    ($($error:ty),*) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Run(error.into())
            }
        }
    )*};
}

through_run!(
    SimulatorError,
    tasks::robot::DemoError,
    ResolveError,
    WeightsError,
    DeviceError,
    BackboneError,
    crate::cache::CacheError,
    results::StoreError,
    results::TableError,
    tasks::sample::SampleError,
    tasks::data::DataError,
    tasks::data::RegistryError
);
