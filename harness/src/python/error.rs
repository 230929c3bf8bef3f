use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong with a Python backbone.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No such file.
    #[error("{} is not a Python file", .0.display())]
    NoFile(PathBuf),
    /// Python does not start.
    #[error("cannot start {python}: {source}")]
    Start {
        /// The interpreter.
        python: String,
        /// Why.
        source: std::io::Error,
    },
    /// The shared memory cannot be had.
    #[error("cannot share memory with {backbone}: {source}")]
    Memory {
        /// The backbone.
        backbone: String,
        /// Why.
        source: std::io::Error,
    },
    /// The user's code raised or returned something else than expected.
    #[error("{backbone}: {why}")]
    Fault {
        /// The backbone.
        backbone: String,
        /// A sentence, or Python's traceback.
        why: String,
    },
    /// The process ended.
    #[error("the Python process of {backbone} ended while {doing} ({status}){}", tail(.said))]
    Died {
        /// The backbone.
        backbone: String,
        /// What it was asked to do.
        doing: &'static str,
        /// How it ended.
        status: String,
        /// The last lines of its stderr.
        said: Vec<String>,
    },
    /// No answer in time.
    #[error(
        "the Python process of {backbone} gave no answer in {} s while {doing}{}",
        after.as_secs(), tail(.said)
    )]
    Hung {
        /// The backbone.
        backbone: String,
        /// What it was asked to do.
        doing: &'static str,
        /// How long it was waited for.
        after: Duration,
        /// The last lines of its stderr.
        said: Vec<String>,
    },
    /// An answer that is not of the protocol.
    #[error("{backbone} answered something unreadable while {doing}: {why}")]
    Answer {
        /// The backbone.
        backbone: String,
        /// What it was asked to do.
        doing: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Something declared that cannot be.
    #[error("{backbone} declares {what}")]
    Declared {
        /// The backbone.
        backbone: String,
        /// What, and what was expected.
        what: String,
    },
    /// Tokens of another shape than declared.
    #[error(
        "{backbone} returned {part} of shape {found:?} for block {block}; expected {expected:?} \
         (images, tokens, width)"
    )]
    Shape {
        /// The backbone.
        backbone: String,
        /// Which tokens.
        part: &'static str,
        /// Which block.
        block: usize,
        /// As returned.
        found: Vec<usize>,
        /// As declared.
        expected: Vec<usize>,
    },
    /// Tokens that are declared and not returned.
    #[error("{backbone} returned no {part} for block {block}{why}")]
    Missing {
        /// The backbone.
        backbone: String,
        /// Which tokens.
        part: &'static str,
        /// Which block.
        block: usize,
        /// What would help.
        why: &'static str,
    },
    /// Tokens that are no numbers.
    #[error("{backbone} returned {part} that are not finite for block {block}")]
    NotFinite {
        /// The backbone.
        backbone: String,
        /// Which tokens.
        part: &'static str,
        /// Which block.
        block: usize,
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
