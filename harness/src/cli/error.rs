use results::plot::PlotError;
use tasks::image::ImageError;

use crate::backbone::BackboneError;
use crate::device::DeviceError;
use crate::hub::HubError;
use crate::lists::ListError;
use crate::prepare::PrepareError;
use crate::python::WorkerError;
use crate::registry::RegistryError;
use crate::resolve::ResolveError;
use crate::run::{CheckpointError, RunError, WrongData};
use crate::simulators::SimulatorError;
use crate::sweep::SweepError;
use crate::weights::WeightsError;

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

fn sweep_hints(error: &SweepError) -> Vec<String> {
    let hint = match error {
        SweepError::OtherProtocol { .. } => {
            "--name NEW or another --out keeps both; results of the older one stay what they are"
        }
        SweepError::Plan { .. } => "planning it again with `pixio-eval sweep` replaces it",
        SweepError::NeedsType => {
            "--dtype bf16 plans for GPUs, --device cpu for the processor; --memory-gb says what a GPU has"
        }
        SweepError::Devices { .. } => "for example --devices 0,1,2,3 or --devices cpu*4",
        SweepError::NoWorker { .. } => "`pixio-eval doctor` shows what this machine has",
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

fn simulator_hints(error: &SimulatorError) -> Vec<String> {
    let hint = match error {
        SimulatorError::NotInstalled { .. } => {
            "`pixio-eval simulators install` makes a Python environment with them"
        }
        SimulatorError::Install { .. } => {
            "nothing half made is left; --python PATH chooses another Python (3.11 has every suite)"
        }
        SimulatorError::GaveUp { last, .. } => return simulator_hints(last),
        SimulatorError::Hung { .. } => "PIXIO_EVAL_SIMULATOR_TIMEOUT=SECONDS gives it longer",
        _ => "`pixio-eval simulators check` tries each of them",
    };
    vec![hint.to_owned()]
}

fn device_hints(error: &DeviceError) -> Vec<String> {
    let hint = match error {
        DeviceError::NotBuilt(_) => {
            "build with `cargo build --release --features cuda`, or use --device cpu"
        }
        #[cfg(feature = "cuda")]
        DeviceError::Driver { source, .. } => driver_hint(source),
        DeviceError::Open { .. } => "`pixio-eval doctor` shows what this machine has",
    };
    vec![hint.to_owned()]
}

#[cfg(feature = "cuda")]
fn driver_hint(error: &libcuda::DriverError) -> &'static str {
    use libcuda::DriverError;
    match error {
        DriverError::Missing(missing) if missing.iter().any(|m| m.file.starts_with("libcuda.")) => {
            "install NVIDIA's driver, or use --device cpu"
        }
        DriverError::Missing(_) => {
            "put the folders with CUDA's libraries on LD_LIBRARY_PATH; a Python environment with PyTorch has \
             them in site-packages/nvidia/*/lib"
        }
        DriverError::Old { .. } => {
            "update the driver, or build with a CUDA toolkit no newer than it; --device cpu needs neither"
        }
        DriverError::NoSuchGpu { .. } => {
            "`nvidia-smi -L` lists the GPUs; CUDA_VISIBLE_DEVICES hides and renumbers them"
        }
        DriverError::Capability { .. } => {
            "build with CUDA_COMPUTE_CAP=80 for this and every newer GPU (8.0 is the oldest)"
        }
        DriverError::Failed { .. } => {
            "`nvidia-smi` and `pixio-eval doctor` show whether the driver works"
        }
    }
}

fn worker_hints(error: &WorkerError) -> Vec<String> {
    let hint = match error {
        WorkerError::NoFile(_) => "expected py:FILE.py:FUNCTION",
        WorkerError::Start { .. } => "PIXIO_EVAL_PYTHON=PATH chooses the interpreter",
        WorkerError::Fault { why, .. } if why.contains("ModuleNotFoundError") => {
            "PIXIO_EVAL_PYTHON=PATH chooses an interpreter that has the module"
        }
        WorkerError::Hung { .. } => "PIXIO_EVAL_PYTHON_TIMEOUT=SECONDS gives it longer",
        WorkerError::Died { .. } => "what is done is kept: the same command continues",
        WorkerError::Memory { .. } => "a smaller --batch-size needs less shared memory",
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

fn plot_hints(error: &PlotError) -> Vec<String> {
    let hint = match error {
        PlotError::Runs(_) => "`pixio-eval runs` lists every run under --out",
        PlotError::Nothing { kind: "curves", .. } => {
            "heads with --epochs 1 or more leave curves, for example nyuv2/linear"
        }
        PlotError::Nothing { .. } => "`pixio-eval runs` lists every run under --out",
        PlotError::OnePoint { .. } => {
            "runs that differ in it are needed; several --out DIR are read together"
        }
        PlotError::UnknownSetting { .. } | PlotError::WhichSetting { .. } => {
            "name one with --x, and a second with --y for a heat map"
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

fn wrong_data_hints(wrong: &WrongData) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for finding in &wrong.findings {
        let instead = finding.instead.trim();
        if !instead.is_empty() && !hints.iter().any(|hint| hint == instead) {
            hints.push(instead.to_owned());
        }
    }
    let (name, root) = (&wrong.dataset, wrong.root.display());
    hints.push(format!("`pixio-eval data verify {name} --data {name}={root}` says more"));
    if wrong.findings.iter().all(|finding| finding.preparation.is_readable()) {
        let mut flags: Vec<String> = wrong
            .findings
            .iter()
            .map(|finding| format!("--accept-data {}", finding.preparation.name()))
            .collect();
        flags.dedup();
        let flags = flags.join(" ");
        hints.push(format!("{flags} runs on it all the same, and the result says so"));
    }
    hints
}

fn list_hints(error: &ListError) -> Vec<String> {
    let own = "or put train.txt and val.txt into the data folder, each line `image target`";
    let other = match error {
        ListError::Offline { .. } => {
            "run it once where there is a network: the lists are then kept for later runs"
        }
        ListError::Cache { .. } => "PIXIO_EVAL_CACHE chooses another folder",
        _ => {
            "check the network; PIXIO_EVAL_LISTS=URL asks a mirror, with the same path and checksum"
        }
    };
    vec![other.to_owned(), own.to_owned()]
}

fn resolve_hints(error: &ResolveError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    let names = "`pixio-eval backbones list` shows every name";
    match error {
        ResolveError::Unknown { near, .. } | ResolveError::UnknownArch { near, .. } => {
            let suggestion = near.first().map(|first| format!("did you mean {first:?}?"));
            suggestion.into_iter().chain([names.to_owned()]).collect()
        }
        ResolveError::NoConfig(_) => {
            one("a single weights file is given by its own path, with --arch NAME")
        }
        ResolveError::NeedsArch(_) => one("add --arch NAME, for example --arch pixio-l"),
        ResolveError::NoWeights(name) => vec![format!(
            "use random:{name} for random weights, or a checkpoint of it: --backbone FILE --arch {name}"
        )],
        ResolveError::UnsupportedFamily { .. } | ResolveError::BadConfig { .. } => one(names),
        ResolveError::Weights(WeightsError::Mismatch { .. }) => vec![
            "check that config.json or --arch belongs to these weights".to_owned(),
            "--rename FROM=TO gives tensors the names that the family knows".to_owned(),
        ],
        ResolveError::Weights(WeightsError::RuleUnused { .. }) => {
            one("a rule matches a whole name: * stands for the rest, as in model.*=*")
        }
        ResolveError::Weights(WeightsError::RenamedTwice { .. }) => {
            one("an empty TO leaves a tensor out, as in --rename 'ema.*='")
        }
        ResolveError::Weights(WeightsError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            one(
                "a folder needs model.safetensors, or model.safetensors.index.json and its shards; a \
                 .pth or .bin file is given by its own path, with --arch NAME",
            )
        }
        ResolveError::Weights(WeightsError::Pth { source, .. }) => one(pth_hint(source)),
        ResolveError::Weights(_) => one("the file may be damaged: fetch or copy it again"),
        ResolveError::Hub(error) => hub_hints(error),
        ResolveError::Registry(RegistryError::Entry { near, .. }) => {
            near.first().map(|first| format!("did you mean {first:?}?")).into_iter().collect()
        }
        ResolveError::Resolution { patch, .. } => {
            let fits = [16 * patch, 32 * patch].map(|side| side.to_string()).join(" or ");
            vec![format!("--override resolution={fits} would fit")]
        }
        ResolveError::NoTokens { .. } => one(
            "--override recipe.knn.tokens=... takes other tokens: summary-mean, patch-mean or pooled",
        ),
        ResolveError::Worker(error) => worker_hints(error),
        _ => Vec::new(),
    }
}

fn pth_hint(error: &pickle::CheckpointError) -> &'static str {
    use pickle::{CheckpointError as E, Fault, PickleError};
    match error {
        E::Pickle(PickleError { fault: Fault::Global { .. }, .. })
        | E::Tensor { .. }
        | E::Storage { .. }
        | E::Key(_)
        | E::Duplicate(_)
        | E::TooMuch { .. } => {
            "nothing a file asks for is run; if you trust this one, load it with torch and save the \
             model's state_dict() alone"
        }
        E::NoTensors(_) => {
            "expected a state dict at the top or under model, state_dict, module or r3m"
        }
        E::NotACheckpoint => {
            "readable is what torch.save writes, of any version; is it another format?"
        }
        _ => "the file may be damaged: fetch or copy it again",
    }
}

fn hub_hints(error: &HubError) -> Vec<String> {
    let hint = match error {
        HubError::Gated { page, .. } => &format!(
            "ask for access at {page}, then set HF_TOKEN (or log in with the Hugging Face CLI)"
        ),
        HubError::NotFound(_) => "check the spelling: hf:ORG/REPO or hf:ORG/REPO@REVISION",
        HubError::Offline { .. } => {
            "run `pixio-eval backbones pull` where there is a network; hf:ORG/REPO@COMMIT names a \
             cached commit"
        }
        HubError::Unreachable { .. } => "check the network, or HF_ENDPOINT",
        HubError::GaveUp { .. } => "the same command continues from there",
        HubError::Corrupt { .. } => "nothing of it was kept: the same command fetches it again",
        HubError::Damaged { .. } => {
            "`pixio-eval backbones pull`, where there is a network, fetches it again"
        }
        HubError::XetOnly { .. } => {
            "fetch it with the Hugging Face CLI: this program finds it in the same cache"
        }
        HubError::Redirects { .. } | HubError::Answer { .. } | HubError::Unverifiable { .. } => {
            "check HF_ENDPOINT, and proxies on the way"
        }
        HubError::Io { .. } => "HF_HUB_CACHE or HF_HOME chooses another folder",
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
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
