//! A hub on this machine: one model repository over HTTP/1.1, as much of it as a download needs.
//!
//! Like the real one it keeps weights apart: `resolve` of a safetensors file redirects to `/cdn/`,
//! with the file's size and SHA-256 in the redirect's headers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong when weights are sent; their headers stay right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// One bit of the last byte.
    Flipped,
    /// Ends early, after the whole length was announced.
    CutShort,
    /// Ends early, with no length announced.
    QuietlyShort,
    /// A page with this status.
    Page(u16),
    /// A page with status 503, this many times.
    Busy(usize),
}

pub struct State {
    pub repository: String,
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    pub fault: Fault,
    /// Status for requests without `authorization: Bearer TOKEN`.
    pub gate: Option<(u16, String)>,
    /// `METHOD PATH`, in order.
    pub requests: Vec<String>,
}

pub struct Hub {
    pub port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    /// Serves `test/mini`.
    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            repository: "test/mini".to_owned(),
            commit: COMMIT.to_owned(),
            files,
            fault: Fault::None,
            gate: None,
            requests: Vec::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // A client that hangs up is its own business.
                let _ = answer(stream.unwrap(), port, &shared);
            }
        });
        Self { port, state, stop, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// How often a path with this end was asked for with GET.
    pub fn sent(&self, end: &str) -> usize {
        let got = |line: &&String| line.starts_with("GET ") && line.ends_with(end);
        self.with(|state| state.requests.iter().filter(got).count())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "safetensors")
}

/// Weights have their SHA-256, small files a git object name of 40 digits.
pub fn etag(name: &str, bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    if is_large(name) { hash } else { hash[..40].to_owned() }
}

type Headers = Vec<(&'static str, String)>;

struct Answer {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

fn page(status: u16) -> Answer {
    let body = format!("<html>{status}</html>").into_bytes();
    Answer { status, headers: Vec::new(), body }
}

fn answer(stream: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut request = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = path.split('?').next().unwrap_or(path);
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{method} {path}"));
    let weights = path.starts_with("/cdn/");
    let answer = route(&state, path, port, &request);

    let fault = if weights { state.fault } else { Fault::None };
    drop(state);
    let length = match fault {
        Fault::QuietlyShort => String::new(),
        _ => format!("content-length: {}\r\n", answer.body.len()),
    };
    let mut head = format!("HTTP/1.1 {} x\r\n{length}connection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = match fault {
        _ if method == "HEAD" => &[],
        Fault::CutShort | Fault::QuietlyShort => &answer.body[..answer.body.len() / 2],
        _ => &answer.body[..],
    };
    let stream = reader.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(body)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    reader.take(1 << 16).read_to_end(&mut Vec::new()).map(|_| ())
}

fn route(state: &State, path: &str, port: u16, request: &BTreeMap<String, String>) -> Answer {
    if let Some(hash) = path.strip_prefix("/cdn/") {
        let found = state.files.values().find(|bytes| sha256(bytes) == hash);
        let mut body = found.cloned().unwrap_or_default();
        match state.fault {
            Fault::Page(status) => return page(status),
            Fault::Busy(times)
                if state.requests.iter().filter(|r| r.ends_with(path)).count() <= times =>
            {
                return page(503);
            }
            Fault::Flipped => *body.last_mut().unwrap() ^= 1,
            _ => {}
        }
        return Answer { status: 200, headers: Vec::new(), body };
    }
    let known = |revision: &str| revision == "main" || revision == state.commit;
    let info = format!("/api/models/{}/revision/", state.repository);
    if let Some(revision) = path.strip_prefix(&info) {
        let info = json!({ "_id": "0", "id": state.repository, "sha": state.commit });
        return if known(revision) { data(&info) } else { page(404) };
    }
    let tree = format!("/api/models/{}/tree/", state.repository);
    if let Some(revision) = path.strip_prefix(&tree) {
        return if known(revision) { listing(state) } else { page(404) };
    }
    let resolve = format!("/{}/resolve/", state.repository);
    let Some((revision, file)) = path.strip_prefix(&resolve).and_then(|p| p.split_once('/')) else {
        return page(404);
    };
    if let Some((status, token)) = &state.gate
        && request.get("authorization") != Some(&format!("Bearer {token}"))
    {
        return page(*status);
    }
    let commit = ("x-repo-commit", state.commit.clone());
    let Some(bytes) = state.files.get(file).filter(|_| known(revision)) else {
        return Answer { headers: vec![commit], ..page(404) };
    };
    let tag = format!("\"{}\"", etag(file, bytes));
    if request.get("if-none-match") == Some(&tag) {
        return Answer { status: 304, headers: vec![commit, ("etag", tag)], body: Vec::new() };
    }
    if is_large(file) {
        let headers = vec![
            commit,
            ("etag", "\"of the redirect\"".to_owned()),
            ("x-linked-etag", tag),
            ("x-linked-size", bytes.len().to_string()),
            ("location", format!("http://127.0.0.1:{port}/cdn/{}", sha256(bytes))),
        ];
        return Answer { status: 302, headers, body: b"Found".to_vec() };
    }
    Answer { status: 200, headers: vec![commit, ("etag", tag)], body: bytes.clone() }
}

fn listing(state: &State) -> Answer {
    let entry = |(name, bytes): (&String, &Vec<u8>)| {
        let (size, oid) = (bytes.len(), &sha256(bytes)[..40]);
        let mut entry = json!({ "type": "file", "oid": oid, "size": size, "path": name });
        if is_large(name) {
            let lfs = json!({ "oid": sha256(bytes), "size": size, "pointerSize": 134 });
            entry["lfs"] = lfs;
        }
        entry
    };
    let folder = json!({ "type": "directory", "oid": "0".repeat(40), "size": 0, "path": "images" });
    let entries: Vec<_> = state.files.iter().map(entry).chain([folder]).collect();
    data(&json!(entries))
}

fn data(value: &serde_json::Value) -> Answer {
    let body = serde_json::to_vec(value).unwrap();
    Answer { status: 200, headers: vec![("content-type", "application/json".to_owned())], body }
}
