//! One Python process: a JSON line for each request, a JSON line for each answer.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Target, WorkerError};
use crate::interrupt;

const SCRIPT: &str = include_str!("worker.py");
/// Lines of stderr kept for an error.
const KEPT: usize = 15;
/// How long an interrupted request may still take.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Longest answer; an answer is a few shapes, or a traceback.
const LONGEST: u64 = 1 << 20;

/// A running worker. It ends when this is dropped.
pub(super) struct Process {
    pub(super) backbone: String,
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    said: Arc<Mutex<VecDeque<String>>>,
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
        let mut child = Command::new(&python)
            .args(["-u", "-c", SCRIPT])
            .arg(&target.file)
            .arg(&target.function)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| WorkerError::Start { python, source })?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || keep_last(stderr, &said));
        }
        let (sender, answers) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                while let Ok(1..) = (&mut stdout).take(LONGEST).read_line(&mut line) {
                    if sender.send(std::mem::take(&mut line)).is_err() {
                        return;
                    }
                }
            });
        }
        let requests = child.stdin.take();
        Ok(Self { backbone: target.to_string(), child, requests, answers, said })
    }

    /// Asks for something and waits for the answer.
    pub(super) fn ask<T: DeserializeOwned>(
        &mut self,
        doing: &'static str,
        request: &Value,
        patience: Duration,
    ) -> Result<T, WorkerError> {
        let line = format!("{request}\n");
        let sent = self
            .requests
            .as_mut()
            .map(|pipe| pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush()));
        match sent {
            Some(Ok(())) => self.answer(doing, patience),
            _ => Err(self.died(doing)),
        }
    }

    /// Waits for an answer.
    pub(super) fn answer<T: DeserializeOwned>(
        &mut self,
        doing: &'static str,
        patience: Duration,
    ) -> Result<T, WorkerError> {
        let began = Instant::now();
        let mut stopping: Option<Instant> = None;
        let line = loop {
            match self.answers.recv_timeout(POLL) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(doing)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if interrupt::requested() {
                let since = stopping.get_or_insert_with(Instant::now);
                if since.elapsed() > GRACE {
                    self.end();
                    return Err(WorkerError::Interrupted);
                }
            }
            if began.elapsed() > patience {
                self.end();
                return Err(WorkerError::Hung {
                    backbone: self.backbone.clone(),
                    doing,
                    after: patience,
                    said: self.said(),
                });
            }
        };
        let unreadable =
            |why: String| WorkerError::Answer { backbone: self.backbone.clone(), doing, why };
        match serde_json::from_str(&line).map_err(|e| unreadable(e.to_string()))? {
            Answer::Ok(value) => {
                serde_json::from_value(value).map_err(|e| unreadable(e.to_string()))
            }
            Answer::Fault(why) => Err(WorkerError::Fault { backbone: self.backbone.clone(), why }),
        }
    }

    fn died(&mut self, doing: &'static str) -> WorkerError {
        // Its pipes close a moment before it can be waited for.
        let began = Instant::now();
        let mut status = None;
        while status.is_none() && began.elapsed() < Duration::from_secs(2) {
            status = self.child.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(10));
        }
        self.end();
        let status = status.map_or_else(|| "its pipe closed".to_owned(), |s| s.to_string());
        let (backbone, said) = (self.backbone.clone(), self.said());
        WorkerError::Died { backbone, doing, status, said }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Ends the process and waits for it.
    pub(super) fn end(&mut self) {
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn keep_last(stderr: impl Read, said: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut reader).take(LONGEST).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT {
            said.pop_front();
        }
        said.push_back(text);
        line.clear();
    }
}
