//! The simulators' own Python: a virtual environment with locked versions, made by pip.
//!
//! ```text
//! CACHE/simulators/env-HASH/       the environment; HASH is that of the list of versions
//! CACHE/simulators/package-HASH/   the workers' source, as it is in this program
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::SimulatorError;
use crate::progress::Reporter;

/// Every library with its version.
const LOCK: &str = include_str!("../../simulators/requirements.lock");

/// The file that says that an environment is whole.
const MARK: &str = "pixio-eval-installed";

// `FILES`: the workers' source, path and text.
include!(concat!(env!("OUT_DIR"), "/simulators.rs"));

/// Where the environment's interpreter is or will be: `PIXIO_EVAL_SIMULATORS`, else in the cache.
pub(super) fn interpreter(cache: &Path) -> PathBuf {
    match std::env::var_os("PIXIO_EVAL_SIMULATORS").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => environment(cache).join("bin/python"),
    }
}

fn environment(cache: &Path) -> PathBuf {
    cache.join("simulators").join(format!("env-{}", hash(&[("", LOCK)])))
}

fn hash(files: &[(&str, &str)]) -> String {
    schema::fingerprint(&files).short().to_owned()
}

/// The folder with the workers' source, written when it is not there yet.
pub(super) fn package(cache: &Path) -> Result<PathBuf, SimulatorError> {
    let folder = cache.join("simulators").join(format!("package-{}", hash(FILES)));
    if folder.is_dir() {
        return Ok(folder);
    }
    let fault = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SimulatorError::File { path, source }
    };
    let parent = cache.join("simulators");
    fs::create_dir_all(&parent).map_err(fault(&parent))?;
    let temporary =
        tempfile::Builder::new().prefix(".writing-").tempdir_in(&parent).map_err(fault(&parent))?;
    for (name, text) in FILES {
        let path = temporary.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fault(parent))?;
        }
        fs::write(&path, text).map_err(fault(&path))?;
    }
    match fs::rename(temporary.path(), &folder) {
        // Another process was faster.
        Err(_) if folder.is_dir() => {}
        result => result.map_err(fault(&folder))?,
    }
    Ok(folder)
}

/// Whether that environment is whole: its mark is made last.
pub(super) fn is_whole(cache: &Path) -> bool {
    environment(cache).join(MARK).is_file()
}

/// Makes the environment with the given Python, unless it is there. Nothing half made is left.
pub(super) fn install(
    cache: &Path,
    python: &str,
    reporter: &Reporter,
) -> Result<PathBuf, SimulatorError> {
    let folder = environment(cache);
    if is_whole(cache) {
        reporter.say(format!("the simulators are installed in {}", folder.display()));
        return Ok(folder);
    }
    let parent = cache.join("simulators");
    let fault = |source| SimulatorError::File { path: parent.clone(), source };
    fs::create_dir_all(&parent).map_err(fault)?;
    // An environment knows its own path, so it is made in its place; without its mark it counts as
    // nothing.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(fault)?;
    }
    let lock = parent.join("requirements.lock");
    results::write_whole(&lock, LOCK.as_bytes())
        .map_err(|source| SimulatorError::File { path: lock.clone(), source })?;
    reporter.say(format!("making a Python environment in {}", folder.display()));
    let made =
        step("python -m venv", Command::new(python).args(["-m", "venv"]).arg(&folder), reporter)
            .and_then(|()| {
                let pip = folder.join("bin/python");
                let mut command = Command::new(&pip);
                command.args([
                    "-m",
                    "pip",
                    "install",
                    "--no-input",
                    "--disable-pip-version-check",
                    "--no-deps",
                    "-r",
                ]);
                reporter.say("installing the simulators (1.4 GB on disk)");
                step("pip install", command.arg(&lock), reporter)
            })
            .and_then(|()| {
                let mark = folder.join(MARK);
                fs::write(&mark, LOCK).map_err(|source| SimulatorError::File { path: mark, source })
            });
    if let Err(error) = made {
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    reporter.say(format!("the simulators are installed in {}", folder.display()));
    Ok(folder)
}

/// Runs one program; its output is an error's text.
fn step(doing: &str, command: &mut Command, reporter: &Reporter) -> Result<(), SimulatorError> {
    let failed = |why: String| SimulatorError::Install { doing: doing.to_owned(), why };
    reporter.detail(format!("{command:?}"));
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("{}: {error}", command.get_program().display())))?;
    if crate::interrupt::requested() {
        return Err(SimulatorError::Interrupted);
    }
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.len().saturating_sub(12);
    Err(failed(format!("{}\n  {}", output.status, lines[last..].join("\n  "))))
}
