//! Robot simulators: Python workers behind pipes, with an environment of their own.
//!
//! The workers' source is in `harness/simulators`; it is part of this program and written out when it
//! is needed. [`Pool`] spreads environments over workers and replaces those that fail.

pub mod demonstrate;
mod error;
mod exchange;
mod install;
mod pool;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

pub use error::SimulatorError;
pub use exchange::{Ask, Environment, Observed, Space, Spent};
pub use pool::Pool;

use crate::progress::Reporter;
use worker::{Worker, unusable};

/// Version of the way workers are talked to.
const PROTOCOL: u32 = 1;
/// How often a worker is started before that is given up.
const TRIES: usize = 3;
/// How long starting Python may take.
const HELLO: Duration = Duration::from_secs(120);

/// An installation that answers.
pub struct Simulators<'a> {
    python: PathBuf,
    package: PathBuf,
    versions: BTreeMap<String, String>,
    reporter: &'a Reporter,
}

#[derive(Deserialize)]
struct Hello {
    protocol: u32,
    versions: BTreeMap<String, String>,
    #[serde(default)]
    gl: String,
}

impl<'a> Simulators<'a> {
    /// Finds the installation and asks it for its versions.
    ///
    /// # Errors
    /// [`SimulatorError::NotInstalled`], and whatever keeps a worker from starting.
    pub fn find(cache: &Path, reporter: &'a Reporter) -> Result<Self, SimulatorError> {
        let python = install::interpreter(cache);
        let own = std::env::var_os("PIXIO_EVAL_SIMULATORS").is_some_and(|path| !path.is_empty());
        if !own && !install::is_whole(cache) {
            return Err(SimulatorError::NotInstalled { python });
        }
        let package = install::package(cache)?;
        let mut found = Self { python, package, versions: BTreeMap::new(), reporter };
        let (_, hello) = found.start()?;
        found.versions = hello.versions;
        // What renders decides pixels as a library's version does.
        found.versions.insert("gl".to_owned(), hello.gl);
        Ok(found)
    }

    /// Makes the environment.
    ///
    /// # Errors
    /// What Python or pip answered; nothing half made is left.
    pub fn install(
        cache: &Path,
        python: &str,
        reporter: &Reporter,
    ) -> Result<PathBuf, SimulatorError> {
        install::install(cache, python, reporter)
    }

    /// Libraries that decide physics and images, as `name version`, sorted.
    pub fn versions(&self) -> Vec<String> {
        self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect()
    }

    /// The library that decides a suite's physics, as `name-version`.
    pub fn short(&self, suite: &str) -> String {
        let library = if suite == "trifinger" { "pybullet" } else { "mujoco" };
        let version = self.versions.get(library).map_or("unknown", String::as_str);
        format!("{library}-{version}")
    }

    /// A new worker; one that dies at once is tried again.
    fn worker(&self) -> Result<Worker, SimulatorError> {
        let mut last = match self.start() {
            Ok((worker, _)) => return Ok(worker),
            Err(error) => error,
        };
        for _ in 1..TRIES {
            if matches!(last, SimulatorError::Interrupted | SimulatorError::Start { .. }) {
                return Err(last);
            }
            last = match self.start() {
                Ok((worker, _)) => return Ok(worker),
                Err(error) => error,
            };
        }
        Err(last)
    }

    fn start(&self) -> Result<(Worker, Hello), SimulatorError> {
        const DOING: &str = "starting";
        let mut worker = Worker::start(&self.python, &self.package)?;
        let (value, _) = worker.ask(DOING, &json!({ "do": "hello" }), HELLO)?;
        let hello: Hello =
            serde_json::from_value(value).map_err(|error| unusable(DOING, error.to_string()))?;
        if hello.protocol != PROTOCOL {
            let found = hello.protocol;
            return Err(unusable(DOING, format!("protocol {found}; expected {PROTOCOL}")));
        }
        Ok((worker, hello))
    }

    fn note(&self, what: &str) {
        self.reporter.warn(what);
    }
}
