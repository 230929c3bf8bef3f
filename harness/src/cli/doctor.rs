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
        gpu(),
        folder("cache", &locate::cache()),
        hub_cache(),
        token(),
    ];
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

fn gpu() -> Check {
    let name = "gpu";
    if !candle_core::utils::cuda_is_available() {
        let found = "this build has no GPU support (build with --features cuda)".to_owned();
        return Check { name, ok: false, found };
    }
    match device::open(device::DeviceChoice::Cuda(0)) {
        Ok(device) => Check { name, ok: true, found: device::name(&device) },
        Err(error) => Check { name, ok: false, found: error.to_string() },
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
