//! One Python process: a JSON line for each request, a JSON line for each answer.

use std::io::{BufRead, Read};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Target, WorkerError};
use crate::subprocess::{Silence, Subprocess};

const SCRIPT: &str = include_str!("worker.py");
/// How long an interrupted request may still take.
const GRACE: Duration = Duration::from_secs(10);
/// Longest answer; an answer is a few shapes, or a traceback.
const LONGEST: u64 = 1 << 20;

/// A running worker. It ends when this is dropped.
pub(super) struct Process {
    pub(super) backbone: String,
    process: Subprocess<String>,
}

/// What the worker says.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Fault(String),
}

/// The interpreter: `PIXIO_EVAL_PYTHON`, else `python3`.
fn interpreter() -> String {
    std::env::var("PIXIO_EVAL_PYTHON").ok().filter(|p| !p.is_empty()).unwrap_or("python3".into())
}

/// How long a request may take: `PIXIO_EVAL_PYTHON_TIMEOUT` seconds, else `standard`.
pub(super) fn patience(standard: u64) -> Duration {
    let set = std::env::var("PIXIO_EVAL_PYTHON_TIMEOUT").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(set.filter(|&seconds| seconds > 0).unwrap_or(standard))
}

impl Process {
    /// Starts Python on the target.
    pub(super) fn start(target: &Target) -> Result<Self, WorkerError> {
        if !target.file.is_file() {
            return Err(WorkerError::NoFile(target.file.clone()));
        }
        let python = interpreter();
        let mut command = Command::new(&python);
        command.args(["-u", "-c", SCRIPT]).arg(&target.file).arg(&target.function);
        let process = Subprocess::start(&mut command, |stdout| {
            let mut line = String::new();
            matches!(stdout.take(LONGEST).read_line(&mut line), Ok(1..)).then_some(line)
        });
        let process = process.map_err(|source| WorkerError::Start { python, source })?;
        Ok(Self { backbone: target.to_string(), process })
    }

    /// Asks for something and waits for the answer.
    pub(super) fn ask<T: DeserializeOwned>(
        &mut self,
        doing: &'static str,
        request: &Value,
        patience: Duration,
    ) -> Result<T, WorkerError> {
        let line = format!("{request}\n");
        self.process
            .send(&[line.as_bytes()])
            .map_err(|silence| self.silent(silence, doing, patience))?;
        self.answer(doing, patience)
    }

    /// Waits for an answer.
    pub(super) fn answer<T: DeserializeOwned>(
        &mut self,
        doing: &'static str,
        patience: Duration,
    ) -> Result<T, WorkerError> {
        let line = self.process.receive(patience, GRACE);
        let line = line.map_err(|silence| self.silent(silence, doing, patience))?;
        let unreadable =
            |why: String| WorkerError::Answer { backbone: self.backbone.clone(), doing, why };
        match serde_json::from_str(&line).map_err(|e| unreadable(e.to_string()))? {
            Answer::Ok(value) => {
                serde_json::from_value(value).map_err(|e| unreadable(e.to_string()))
            }
            Answer::Fault(why) => Err(WorkerError::Fault { backbone: self.backbone.clone(), why }),
        }
    }

    fn silent(&self, silence: Silence, doing: &'static str, after: Duration) -> WorkerError {
        let (backbone, said) = (self.backbone.clone(), self.process.said());
        match silence {
            Silence::Died(status) => WorkerError::Died { backbone, doing, status, said },
            Silence::Hung => WorkerError::Hung { backbone, doing, after, said },
            Silence::Interrupted => WorkerError::Interrupted,
        }
    }

    /// Ends the process and waits for it.
    pub(super) fn end(&mut self) {
        self.process.end();
    }
}
