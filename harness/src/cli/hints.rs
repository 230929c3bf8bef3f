//! What to do next, after an error: the `hint:` lines.

use results::plot::PlotError;

use crate::device::DeviceError;
use crate::fault::Fault;
use crate::hub::HubError;
use crate::lists::ListError;
use crate::python::WorkerError;
use crate::registry::RegistryError;
use crate::resolve::ResolveError;
use crate::run::WrongData;
use crate::simulators::SimulatorError;
use crate::sweep::SweepError;
use crate::weights::WeightsError;

pub(super) fn sweep_hints(error: &SweepError) -> Vec<String> {
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

pub(super) fn simulator_hints(error: &SimulatorError) -> Vec<String> {
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

pub(super) fn device_hints(error: &DeviceError) -> Vec<String> {
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
            "build with CUDA_COMPUTE_CAP=80, and without PIXIO_EVAL_CUDA_ARCHS, for every GPU from capability 8.0 on"
        }
        DriverError::Failed { .. } => {
            "`nvidia-smi` and `pixio-eval doctor` show whether the driver works"
        }
    }
}

pub(super) fn worker_hints(error: &WorkerError) -> Vec<String> {
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

pub(super) fn plot_hints(error: &PlotError) -> Vec<String> {
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

pub(super) fn wrong_data_hints(wrong: &WrongData) -> Vec<String> {
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

pub(super) fn list_hints(error: &ListError) -> Vec<String> {
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

pub(super) fn resolve_hints(error: &ResolveError) -> Vec<String> {
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
        ResolveError::Weights(error) => one(match Fault::of(&error.to_string()) {
            Some(Fault::Memory) => {
                "the encoder does not fit: `nvidia-smi` shows who else uses the GPU; --dtype bf16 takes half of what \
                 f32 does"
            }
            Some(Fault::Lost) => "`pixio-eval doctor` shows whether the GPU is back",
            None => "the file may be damaged: fetch or copy it again",
        }),
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
