//! One Python process: a frame for each request, a frame for each answer, in order.
//!
//! A frame is the length of a JSON object (u32, little-endian), the object, then its payload of
//! `bytes` bytes.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::SimulatorError;
use crate::subprocess::{Silence, Subprocess};

/// Longest JSON object of a frame, in bytes.
const HEADER: u32 = 1 << 20;
/// Longest payload, in bytes.
const PAYLOAD: u64 = 1 << 28;
/// How long an interrupted request may still take.
const GRACE: Duration = Duration::from_secs(5);

/// A running worker. It ends when this is dropped.
pub(super) struct Worker {
    process: Subprocess<io::Result<Frame>>,
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
            .env("PYTHONDONTWRITEBYTECODE", "1");
        // After a frame that cannot be read nothing more can.
        let mut torn = false;
        let process = Subprocess::start(&mut command, move |stdout| {
            if torn {
                return None;
            }
            let frame = read_frame(stdout).transpose();
            torn = matches!(frame, Some(Err(_)));
            frame
        });
        let start = |source| SimulatorError::Start { python: python.to_path_buf(), source };
        Ok(Self { process: process.map_err(start)? })
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
        let length = (text.len() as u32).to_le_bytes();
        let sent = self.process.send(&[&length, text.as_bytes(), payload]);
        sent.map_err(|silence| self.silent(silence, doing, Duration::ZERO))
    }

    /// Waits for the next answer.
    pub(super) fn receive(
        &mut self,
        doing: &str,
        patience: Duration,
    ) -> Result<(Value, Vec<u8>), SimulatorError> {
        let frame = self.process.receive(patience, GRACE);
        let frame = frame.map_err(|silence| self.silent(silence, doing, patience))?;
        let frame = frame.map_err(|error| {
            self.end();
            unusable(doing, error.to_string())
        })?;
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
        self.process.close();
    }

    fn silent(&self, silence: Silence, doing: &str, after: Duration) -> SimulatorError {
        let (doing, said) = (doing.to_owned(), self.process.said());
        match silence {
            Silence::Died(status) => SimulatorError::Died { doing, status, said },
            Silence::Hung => SimulatorError::Hung { doing, after, said },
            Silence::Interrupted => SimulatorError::Interrupted,
        }
    }

    /// Ends the process and waits for it.
    pub(super) fn end(&mut self) {
        self.process.end();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker closes its renderers when its input ends; one that does not is killed.
        self.close();
        self.process.wait(Duration::from_secs(2));
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
