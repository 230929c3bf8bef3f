//! One Python process: a frame for each request, a frame for each answer, in order.
//!
//! A frame is the length of a JSON object (u32, little-endian), the object, then its payload of
//! `bytes` bytes.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::SimulatorError;
use crate::interrupt;

/// Longest JSON object of a frame, in bytes.
const HEADER: u32 = 1 << 20;
/// Longest payload, in bytes.
const PAYLOAD: u64 = 1 << 28;
/// Lines of stderr kept for an error.
const KEPT: usize = 15;
const LINE: u64 = 1 << 16;
const POLL: Duration = Duration::from_millis(50);
/// How long an interrupted request may still take.
const GRACE: Duration = Duration::from_secs(5);

/// A running worker. It ends when this is dropped.
pub(super) struct Worker {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<io::Result<Frame>>,
    said: Arc<Mutex<VecDeque<String>>>,
}

/// An answer.
pub(super) struct Frame {
    header: Value,
    pub(super) payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    ok: Option<Value>,
    fault: Option<String>,
}

impl Worker {
    /// Starts `python -m pixio_simulators` with the package's folder on its path.
    pub(super) fn start(python: &Path, package: &Path) -> Result<Self, SimulatorError> {
        let mut command = Command::new(python);
        command
            .args(["-u", "-m", "pixio_simulators"])
            .env("PYTHONPATH", package)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let start = |source| SimulatorError::Start { python: python.to_path_buf(), source };
        let mut child = command.spawn().map_err(start)?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || keep_last(stderr, &said));
        }
        let (sender, answers) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut stdout = BufReader::with_capacity(1 << 18, stdout);
                loop {
                    let frame = match read_frame(&mut stdout) {
                        Ok(None) => return,
                        Ok(Some(frame)) => Ok(frame),
                        Err(error) => Err(error),
                    };
                    let last = frame.is_err();
                    if sender.send(frame).is_err() || last {
                        return;
                    }
                }
            });
        }
        let requests = child.stdin.take();
        Ok(Self { child, requests, answers, said })
    }

    /// Sends a request without waiting for its answer.
    pub(super) fn send(
        &mut self,
        doing: &str,
        request: &Value,
        payload: &[u8],
    ) -> Result<(), SimulatorError> {
        let mut request = request.clone();
        if !payload.is_empty() {
            request["bytes"] = json!(payload.len());
        }
        let text = request.to_string();
        let sent = self.requests.as_mut().map(|pipe| {
            pipe.write_all(&(text.len() as u32).to_le_bytes())?;
            pipe.write_all(text.as_bytes())?;
            pipe.write_all(payload)?;
            pipe.flush()
        });
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.died(doing)),
        }
    }

    /// Waits for the next answer.
    pub(super) fn receive(
        &mut self,
        doing: &str,
        patience: Duration,
    ) -> Result<(Value, Vec<u8>), SimulatorError> {
        let began = Instant::now();
        let mut stopping: Option<Instant> = None;
        let frame = loop {
            match self.answers.recv_timeout(POLL) {
                Ok(Ok(frame)) => break frame,
                Ok(Err(error)) => {
                    self.end();
                    return Err(unusable(doing, error.to_string()));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(doing)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if interrupt::requested() {
                let since = stopping.get_or_insert_with(Instant::now);
                if since.elapsed() > GRACE {
                    self.end();
                    return Err(SimulatorError::Interrupted);
                }
            }
            if began.elapsed() > patience {
                self.end();
                return Err(SimulatorError::Hung {
                    doing: doing.to_owned(),
                    after: patience,
                    said: self.said(),
                });
            }
        };
        let header: Header = serde_json::from_value(frame.header)
            .map_err(|error| unusable(doing, error.to_string()))?;
        match (header.ok, header.fault) {
            (Some(value), None) => Ok((value, frame.payload)),
            (_, Some(why)) => Err(SimulatorError::Fault { doing: doing.to_owned(), why }),
            (None, None) => Err(unusable(doing, "neither ok nor fault".to_owned())),
        }
    }

    /// Asks and waits.
    pub(super) fn ask(
        &mut self,
        doing: &str,
        request: &Value,
        patience: Duration,
    ) -> Result<(Value, Vec<u8>), SimulatorError> {
        self.send(doing, request, &[])?;
        self.receive(doing, patience)
    }

    /// Tells it that nothing more is asked: it ends when it has closed its renderers.
    pub(super) fn close(&mut self) {
        self.requests = None;
    }

    fn died(&mut self, doing: &str) -> SimulatorError {
        // Its pipes close a moment before it can be waited for.
        let began = Instant::now();
        let mut status = None;
        while status.is_none() && began.elapsed() < Duration::from_secs(2) {
            status = self.child.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(10));
        }
        self.end();
        // The pipe closes before everything said is read.
        std::thread::sleep(Duration::from_millis(20));
        let status = status.map_or_else(|| "its pipe closed".to_owned(), |s| s.to_string());
        SimulatorError::Died { doing: doing.to_owned(), status, said: self.said() }
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

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker closes its renderers when its input ends; one that does not is killed.
        self.requests = None;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => break,
            }
        }
        self.end();
    }
}

pub(super) fn unusable(doing: &str, why: String) -> SimulatorError {
    SimulatorError::Answer { doing: doing.to_owned(), why }
}

/// The next frame; `None` at the end.
fn read_frame(input: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut length = [0; 4];
    if input.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length);
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if length > HEADER {
        return Err(bad(format!("a header of {length} bytes; expected at most {HEADER}")));
    }
    let mut text = vec![0; length as usize];
    input.read_exact(&mut text)?;
    let header: Value = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let bytes = header.get("bytes").map_or(Some(0), Value::as_u64);
    let bytes = bytes
        .filter(|&bytes| bytes <= PAYLOAD)
        .ok_or_else(|| bad(format!("a payload of {}; at most {PAYLOAD}", header["bytes"])))?;
    let mut payload = vec![0; bytes as usize];
    input.read_exact(&mut payload)?;
    Ok(Some(Frame { header, payload }))
}

fn keep_last(stderr: impl Read, said: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut reader).take(LINE).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT {
            said.pop_front();
        }
        said.push_back(text);
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &str, payload: &[u8]) -> Vec<u8> {
        [&(header.len() as u32).to_le_bytes(), header.as_bytes(), payload].concat()
    }

    #[test]
    fn frames_are_read_one_after_another() {
        let bytes = [frame(r#"{"ok":{},"bytes":3}"#, b"abc"), frame(r#"{"fault":"no"}"#, b"")];
        let bytes = bytes.concat();
        let mut input = bytes.as_slice();
        assert_eq!(read_frame(&mut input).unwrap().unwrap().payload, b"abc");
        assert_eq!(read_frame(&mut input).unwrap().unwrap().header["fault"], "no");
        assert!(read_frame(&mut input).unwrap().is_none());
    }

    #[test]
    fn torn_and_oversized_frames_are_refused() {
        let whole = frame(r#"{"ok":{},"bytes":3}"#, b"abc");
        for cut in 1..whole.len() {
            assert!(read_frame(&mut &whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read_frame(&mut &u32::MAX.to_le_bytes()[..]).is_err());
        assert!(read_frame(&mut frame(r#"{"bytes":99999999999}"#, b"").as_slice()).is_err());
        assert!(read_frame(&mut frame(r#"{"bytes":-1}"#, b"").as_slice()).is_err());
        assert!(read_frame(&mut frame("not json", b"").as_slice()).is_err());
    }
}
