use std::path::Path;

use results::Store;
use serde::Serialize;

use super::args::DoctorArgs;
use super::{CliError, EXIT_DONE, print, print_json};
use crate::device;
use crate::locate;
use crate::progress::Reporter;
use crate::run::CELLS;
use crate::simulators::{SimulatorError, Simulators};

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    found: String,
}

/// Says what is here; nothing it finds is an error of its own, so that it always ends with 0.
pub(super) fn doctor(args: &DoctorArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let mut checks = vec![
        Check {
            name: "version",
            ok: true,
            found: format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("PIXIO_EVAL_COMMIT")),
        },
        cpu(),
    ];
    checks.extend(gpus(reporter));
    checks.extend([folder("cache", &locate::cache()), hub_cache(), token()]);
    checks.extend(simulators(reporter));
    let mut names: Vec<&str> = CELLS.iter().map(|(dataset, _)| *dataset).collect();
    names.dedup();
    for name in names {
        let folder = locate::dataset(name, &args.data);
        let found = folder.is_dir();
        let word = if found { "" } else { "not at " };
        let found_text = format!("{name}: {word}{}", folder.display());
        checks.push(Check { name: "data", ok: found, found: found_text });
    }
    if args.json {
        print_json(&checks)?;
    } else {
        for Check { name, ok, found } in &checks {
            let mark = if *ok { "ok" } else { "--" };
            print(format!("{mark}  {name:<10} {found}\n").as_bytes())?;
        }
    }
    Ok(EXIT_DONE)
}

fn cpu() -> Check {
    let threads = device::threads();
    let kernels = kernels();
    let found = format!("{}, {threads} threads, {kernels}", device::cpu_model());
    Check { name: "cpu", ok: true, found }
}

#[cfg(target_arch = "x86_64")]
fn kernels() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "AVX-512 kernels"
    } else if std::arch::is_x86_feature_detected!("avx2") {
        "AVX2 kernels"
    } else {
        "plain kernels (slow: no AVX2)"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn kernels() -> &'static str {
    "plain kernels"
}

#[cfg(not(feature = "cuda"))]
fn gpus(_: &Reporter) -> Vec<Check> {
    let found = "this build has no GPU support (build with --features cuda)".to_owned();
    vec![Check { name: "gpu", ok: false, found }]
}

/// The driver, CUDA's libraries, and each GPU: whether this build runs on it and how much memory is free.
#[cfg(feature = "cuda")]
fn gpus(reporter: &Reporter) -> Vec<Check> {
    let check = |name, ok, found| Check { name, ok, found };
    let release = libcuda::driver_release().map_or(String::new(), |r| format!("release {r}, "));
    let driver = match libcuda::driver_version() {
        None => check("gpu driver", false, "none".to_owned()),
        Some(version) => {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            let found = format!("{release}supports CUDA {major}.{minor}");
            check("gpu driver", true, found)
        }
    };
    let mut checks = vec![driver];
    checks.extend(libcuda::libraries().into_iter().map(|library| match library {
        Ok(libcuda::Found { file, path }) => {
            check("gpu files", true, path.map_or(file, |path| path.display().to_string()))
        }
        Err(missing) if missing.needed => check("gpu files", false, missing.to_string()),
        Err(missing) => check("gpu files", true, format!("{missing} (seldom needed)")),
    }));
    match libcuda::devices() {
        Ok(gpus) if gpus.is_empty() => {
            checks.push(check("gpu", false, "the driver sees none".to_owned()));
        }
        Ok(gpus) => checks.extend(gpus.into_iter().map(|gpu| one_gpu(&gpu, reporter))),
        Err(error) => checks.push(check("gpu", false, error.to_string())),
    }
    checks
}

#[cfg(feature = "cuda")]
fn one_gpu(gpu: &libcuda::Gpu, reporter: &Reporter) -> Check {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let (major, minor) = gpu.capability;
    let told = format!("cuda:{} {}, capability {major}.{minor}", gpu.index, gpu.name);
    match device::open(device::DeviceChoice::Cuda(gpu.index), reporter) {
        Ok(opened) => {
            let free = gib(device::free_memory(&opened));
            let memory = format!("{free:.1} of {:.1} GiB free", gib(gpu.memory));
            let found = format!("{told}, {memory}; built for {}", libcuda::built_for());
            Check { name: "gpu", ok: true, found }
        }
        Err(error) => Check { name: "gpu", ok: false, found: format!("{told}: {error}") },
    }
}

/// Whether the simulators answer and, for each suite, a frame and a step of its first task.
fn simulators(reporter: &Reporter) -> Vec<Check> {
    let name = "simulators";
    let found = match Simulators::find(&locate::cache(), reporter) {
        Ok(found) => found,
        Err(SimulatorError::NotInstalled { .. }) => {
            let found = "not installed (`pixio-eval simulators install`)".to_owned();
            return vec![Check { name, ok: false, found }];
        }
        Err(error) => return vec![Check { name, ok: false, found: error.to_string() }],
    };
    let mut checks = vec![Check { name, ok: true, found: found.versions().join(", ") }];
    for suite in tasks::robot::SUITES {
        for task in suite.tasks().take(1) {
            let (ok, told) = match super::simulators::one(&found, suite, task) {
                Ok(told) => (true, told),
                Err(error) => (false, error.to_string()),
            };
            checks.push(Check { name, ok, found: format!("{}/{task}: {told}", suite.name) });
        }
    }
    checks
}

fn folder(name: &'static str, path: &Path) -> Check {
    let writable = Store::open(path).and_then(|store| store.check_writable());
    let found = match &writable {
        Ok(()) => path.display().to_string(),
        Err(error) => error.to_string(),
    };
    Check { name, ok: writable.is_ok(), found }
}

fn hub_cache() -> Check {
    let path = hf_hub::resolve_cache_dir();
    let found = match path.is_dir() {
        true => path.display().to_string(),
        false => format!("{} (made at the first download)", path.display()),
    };
    Check { name: "hub cache", ok: true, found }
}

/// Whether a token is set; never the token.
fn token() -> Check {
    let set = std::env::var_os("HF_TOKEN").is_some_and(|token| !token.is_empty());
    let file = hf_hub::hf_home().join("token").is_file();
    let found = match (set, file) {
        (true, _) => "set in HF_TOKEN",
        (false, true) => "stored by the Hugging Face CLI",
        (false, false) => "none (gated backbones such as pixio-l need one)",
    };
    Check { name: "hub token", ok: set || file, found: found.to_owned() }
}
