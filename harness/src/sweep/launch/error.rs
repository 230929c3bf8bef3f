use std::path::PathBuf;

/// What is wrong with a launcher's config file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{}:{line}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A key or table that means nothing here.
    #[error("{}:{line}: unknown key {key:?} in {table}; known: {known}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// As written.
        key: String,
        /// `[slurm]`, or `the file`.
        table: String,
        /// All names that would fit.
        known: String,
        /// Near names, best first.
        near: Vec<String>,
    },
    /// A value of the wrong type or outside what it may be.
    #[error("{}:{line}: {key}: expected {expected}, found {found}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The key.
        key: String,
        /// What fits.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// Why jobs could not be handed over, followed or cancelled.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The config file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A program of Slurm is not on the search path.
    #[error("{0} not found: is Slurm installed on this machine?")]
    Missing(&'static str),
    /// A launch id that does not fit file names and job names.
    #[error("launch id {0:?}: expected letters, digits, `-`, `_` and `.`, at most 40")]
    Id(String),
    /// A job that cannot be.
    #[error("job {stem}: {why}")]
    Job {
        /// Its number and kind.
        stem: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A folder that is already there.
    #[error("{} is there already: another launch has the same id", .0.display())]
    Taken(PathBuf),
    /// A state folder below which Slurm cannot write logs.
    #[error(
        "{}: Slurm gives %, \\ and control characters in the path of a log a meaning",
        .0.display()
    )]
    State(PathBuf),
    /// The file system.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was submitted is written in a form that cannot be read.
    #[error("{}: {why}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A job was not taken.
    #[error("job {stem} was not submitted: {why}{}", taken_back(cancelled, left))]
    Submit {
        /// Its number and kind.
        stem: String,
        /// What sbatch said.
        why: String,
        /// Ids of earlier jobs of this launch, cancelled again.
        cancelled: Vec<String>,
        /// Ids of earlier jobs that could not be cancelled.
        left: Vec<String>,
    },
    /// A program of Slurm failed.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Its exit status.
        status: String,
        /// What it wrote on stderr.
        said: String,
    },
}

fn taken_back(cancelled: &[String], left: &[String]) -> String {
    let list = |what: &str, ids: &[String]| match ids {
        [] => String::new(),
        ids => format!("; {what}: {}", ids.join(", ")),
    };
    list("cancelled again", cancelled) + &list("still in the queue", left)
}

impl LaunchError {
    /// What to do next, one line each.
    pub fn hints(&self) -> Vec<String> {
        let one = |hint: &str| vec![hint.to_owned()];
        match self {
            Self::Config(ConfigError::Unknown { near, .. }) => {
                near.first().map(|near| format!("did you mean {near:?}?")).into_iter().collect()
            }
            Self::Missing("sbatch") => vec![
                "--launcher local runs the sweep on this machine".to_owned(),
                "--launcher print writes scripts for another scheduler".to_owned(),
            ],
            Self::Missing(_) => one("run it where the jobs were submitted"),
            Self::State(_) => one("--out DIR chooses another folder for results"),
            Self::Submit { left, .. } => {
                let config = "account, partition, time and the like come from slurm.toml beside the \
                              sweep file, or from --launcher-config FILE";
                let left = (!left.is_empty()).then(|| format!("scancel {}", left.join(" ")));
                [config.to_owned()].into_iter().chain(left).collect()
            }
            _ => Vec::new(),
        }
    }
}
