use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::SweepError;

/// Folder of sweeps under a folder of results; hidden, so that it is none of its runs.
const SWEEPS: &str = ".sweeps";

/// A sweep's state folder, `OUT/.sweeps/NAME`, which everything that works on it shares.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// That of a sweep's name; nothing is created.
    pub fn of(out: &Path, name: &str) -> Self {
        Self { folder: out.join(SWEEPS).join(name) }
    }

    /// One that is there already.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// The sweeps under a folder of results, by name.
    pub fn known(out: &Path) -> Result<Vec<String>, SweepError> {
        let folder = out.join(SWEEPS);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(SweepError::io("read", &folder))?,
        };
        let there = entries.flatten().filter(|entry| entry.path().join("plan.json").is_file());
        let mut names: Vec<String> =
            there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The plan.
    pub fn plan(&self) -> PathBuf {
        self.folder.join("plan.json")
    }

    /// The plan of a launch.
    pub fn plan_of(&self, launch: &str) -> PathBuf {
        self.folder.join("plans").join(format!("{launch}.json"))
    }

    /// Says that the sweep is to stop, as long as it is there.
    pub fn cancelled(&self) -> PathBuf {
        self.folder.join("cancelled")
    }

    /// What workers say.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// What was extracted, a file a unit.
    pub fn extracted(&self) -> PathBuf {
        self.folder.join("extracted")
    }

    /// What units took, a file of lines a worker.
    pub fn units(&self) -> PathBuf {
        self.folder.join("units")
    }

    /// Makes the folder and those in it.
    pub fn create(&self) -> Result<(), SweepError> {
        for folder in [self.logs(), self.extracted(), self.units(), self.folder.join("plans")] {
            fs::create_dir_all(&folder).map_err(SweepError::io("create", &folder))?;
        }
        Ok(())
    }

    /// Whether somebody asked for the sweep to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled().exists()
    }
}
