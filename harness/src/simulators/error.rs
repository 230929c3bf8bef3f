use std::path::PathBuf;
use std::time::Duration;

/// Why there is no simulator, or no answer from one.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// Nothing is installed.
    #[error("the simulators are not installed: {} is not there", python.display())]
    NotInstalled {
        /// The interpreter that was looked for.
        python: PathBuf,
    },
    /// A step of the installation.
    #[error("cannot install the simulators: {doing}: {why}")]
    Install {
        /// Which step.
        doing: String,
        /// The program's or the system's answer.
        why: String,
    },
    /// A file of the installation.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The interpreter does not start.
    #[error("cannot start {}: {source}", python.display())]
    Start {
        /// The interpreter.
        python: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It ended.
    #[error("the simulator died while {doing} ({status}){}", tail(said))]
    Died {
        /// What it was asked for.
        doing: String,
        /// Its exit status.
        status: String,
        /// Its last lines on stderr.
        said: Vec<String>,
    },
    /// It gave no answer in time.
    #[error("the simulator gave no answer in {} s while {doing}{}", after.as_secs(), tail(said))]
    Hung {
        /// What it was asked for.
        doing: String,
        /// How long it was waited for.
        after: Duration,
        /// Its last lines on stderr.
        said: Vec<String>,
    },
    /// It says that it could not.
    #[error("the simulator failed while {doing}: {why}")]
    Fault {
        /// What it was asked for.
        doing: String,
        /// In its words.
        why: String,
    },
    /// An answer that is none.
    #[error("the simulator's answer while {doing} is not usable: {why}")]
    Answer {
        /// What it was asked for.
        doing: String,
        /// What was expected and found.
        why: String,
    },
    /// The same thing went wrong on one worker after another.
    #[error("gave up after {tries} workers in a row: {last}")]
    GaveUp {
        /// Workers that failed.
        tries: usize,
        /// The last one's error.
        last: Box<SimulatorError>,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

fn tail(said: &[String]) -> String {
    match said {
        [] => String::new(),
        lines => format!("; it said last:\n  {}", lines.join("\n  ")),
    }
}
