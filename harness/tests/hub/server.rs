//! A hub on this machine: one repository over HTTP/1.1, as much of it as a download needs.
//!
//! Like the real one it keeps weights apart, on another host: `resolve` of a safetensors file
//! redirects to `/cdn/` of `localhost` (the hub is `127.0.0.1`), with the file's size and SHA-256 in
//! the redirect's headers, and a signature in the address.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SIGNATURE: &str = "Signature=verysecret";

/// What goes wrong when weights are sent; what the hub says about them stays right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// One bit of the last byte.
    Flipped,
    /// One bit of the first byte, in answers that begin there, this many times.
    FlippedStart(usize),
    /// One bit of config.json.
    FlippedConfig,
    /// Ends in the middle of the file, after the whole length was announced.
    CutShort,
    /// Ends in the middle of the file, with no length announced.
    QuietlyShort,
    /// Ends after a fifth of the file, this many times.
    Flaky(usize),
    /// A page with this status.
    Page(u16),
    /// The same from the hub, to GET alone.
    Door(u16),
    /// A page with status 503, this many times.
    Busy(usize),
    /// The same, with `Retry-After: 2`.
    AskedToWait(usize),
    /// A page with this status, which says it is all right.
    FalsePage,
    /// Never a range: always the whole file.
    WholeAlways,
    /// Ranges that begin at the wrong byte.
    WrongRange,
    /// Ranges that are refused.
    NoRange,
    /// Ranges of at most 300,000 bytes.
    SmallRanges,
    /// A redirect to itself.
    Loop,
    /// A Xet hash, and no way to the file.
    XetAlone,
    /// An ETag that is no hash.
    OddTag,
    /// 503 to every question about the repository.
    Down,
}

pub struct Seen {
    pub method: String,
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub authorized: bool,
}

pub struct State {
    /// `models` or `datasets`.
    pub kind: &'static str,
    pub repository: String,
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    pub fault: Fault,
    /// Status for requests without `authorization: Bearer TOKEN`.
    pub gate: Option<(u16, String)>,
    /// Bytes of weights a second.
    pub pace: Option<usize>,
    /// Bytes of weights that were sent.
    pub bytes: usize,
    /// How often weights were sent to their end.
    pub ends: usize,
    /// Requests, in order.
    pub seen: Vec<Seen>,
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
            kind: "models",
            repository: "test/mini".to_owned(),
            commit: COMMIT.to_owned(),
            files,
            fault: Fault::None,
            gate: None,
            pace: None,
            bytes: 0,
            ends: 0,
            seen: Vec::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A client that hangs up is its own business.
                    let _ = answer(stream.unwrap(), port, &shared);
                });
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
        let got = |seen: &&Seen| seen.method == "GET" && seen.path.ends_with(end);
        self.with(|state| state.seen.iter().filter(got).count())
    }

    /// The first bytes of the ranges of weights that were asked for.
    pub fn ranges(&self) -> Vec<u64> {
        let weights = |seen: &&Seen| seen.path.starts_with("/cdn/");
        let first = |seen: &Seen| begin(seen.range.as_deref()?);
        self.with(|state| state.seen.iter().filter(weights).filter_map(first).collect())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn begin(range: &str) -> Option<u64> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The name of a git object.
pub fn git(bytes: &[u8]) -> String {
    let header = Sha1::new().chain_update(format!("blob {}\0", bytes.len()));
    hex(&header.chain_update(bytes).finalize())
}

fn is_large(name: &str) -> bool {
    let large = ["safetensors", "bin", "parquet", "tar"];
    Path::new(name).extension().is_some_and(|e| large.iter().any(|&large| e == large))
}

/// Weights have their SHA-256, small files the name of their git object.
pub fn etag(name: &str, bytes: &[u8]) -> String {
    if is_large(name) { sha256(bytes) } else { git(bytes) }
}

type Headers = Vec<(&'static str, String)>;

struct Answer {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
    /// Whether the length of the body is announced.
    announced: bool,
    /// Where the body ends early.
    end: usize,
}

impl Answer {
    fn new(status: u16, headers: Headers, body: Vec<u8>) -> Self {
        Self { status, headers, end: body.len(), body, announced: true }
    }
}

fn page(status: u16) -> Answer {
    Answer::new(status, Vec::new(), format!("<html>{status}</html>").into_bytes())
}

/// The first line of a request, and its headers by their names in lower case.
pub fn request(reader: &mut impl BufRead) -> std::io::Result<(String, BTreeMap<String, String>)> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut request = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Ok((first, request))
}

fn answer(stream: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let (first, request) = request(&mut reader)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let weights = path.starts_with("/cdn/");
    let (answer, pace) = {
        let mut state = state.lock().unwrap();
        state.seen.push(Seen {
            method: method.to_owned(),
            path: path.to_owned(),
            host: request.get("host").cloned().unwrap_or_default(),
            range: request.get("range").cloned(),
            authorized: request.contains_key("authorization"),
        });
        let answer = match path.strip_prefix("/cdn/") {
            Some(_) if query != SIGNATURE => page(403),
            Some(hash) => sent(&state, path, hash, &request),
            None => route(&state, method, path, port, &request),
        };
        (answer, state.pace.filter(|_| weights))
    };
    let length = match answer.announced {
        true => format!("content-length: {}\r\n", answer.body.len()),
        false => String::new(),
    };
    let mut head = format!("HTTP/1.1 {} x\r\n{length}connection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = if method == "HEAD" { &[] } else { &answer.body[..answer.end] };
    let stream = reader.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    for chunk in body.chunks(1 << 16) {
        if let Some(pace) = pace {
            std::thread::sleep(Duration::from_secs_f64(chunk.len() as f64 / pace as f64));
        }
        stream.write_all(chunk)?;
        if weights {
            state.lock().unwrap().bytes += chunk.len();
        }
    }
    if weights {
        state.lock().unwrap().ends += 1;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    reader.take(1 << 16).read_to_end(&mut Vec::new()).map(|_| ())
}

/// Weights, or a range of them.
fn sent(state: &State, path: &str, hash: &str, request: &BTreeMap<String, String>) -> Answer {
    let found = state.files.values().find(|bytes| sha256(bytes) == hash);
    let mut body = found.cloned().unwrap_or_default();
    let (size, middle) = (body.len(), body.len() / 2);
    let times = state.seen.iter().filter(|seen| seen.path == path).count();
    let asked = request.get("range").and_then(|range| begin(range)).map(|from| from as usize);
    match state.fault {
        Fault::Page(status) => return page(status),
        Fault::FalsePage => return Answer::new(200, Vec::new(), b"<html>login</html>".to_vec()),
        Fault::Busy(busy) if times <= busy => return page(503),
        Fault::AskedToWait(busy) if times <= busy => {
            return Answer { headers: vec![("retry-after", "2".to_owned())], ..page(429) };
        }
        Fault::NoRange if asked.is_some() => return page(416),
        Fault::Flipped => *body.last_mut().unwrap() ^= 1,
        Fault::FlippedStart(bad) if times <= bad => body[0] ^= 1,
        _ => {}
    }
    let asked = asked.filter(|_| state.fault != Fault::WholeAlways);
    let from = asked.unwrap_or(0).min(size);
    let named = if state.fault == Fault::WrongRange { from.saturating_sub(1) } else { from };
    let to = match state.fault {
        Fault::SmallRanges if asked.is_some() => size.min(from + 300_000),
        _ => size,
    };
    let mut answer = match asked {
        None => Answer::new(200, Vec::new(), body),
        Some(_) => {
            let range = format!("bytes {named}-{}/{size}", to - 1);
            Answer::new(206, vec![("content-range", range)], body[from..to].to_vec())
        }
    };
    match state.fault {
        Fault::CutShort | Fault::QuietlyShort => answer.end = middle.saturating_sub(from),
        Fault::Flaky(bad) if times <= bad => answer.end = (size / 5).min(size - from),
        Fault::FlippedStart(bad) if times <= bad => answer.end = middle.saturating_sub(from),
        Fault::SmallRanges if from == 0 => answer.end = 300_000,
        _ => {}
    }
    answer.announced = state.fault != Fault::QuietlyShort;
    answer
}

fn route(
    state: &State,
    method: &str,
    path: &str,
    port: u16,
    request: &BTreeMap<String, String>,
) -> Answer {
    if state.fault == Fault::Down && path.starts_with("/api/") {
        return page(503);
    }
    let known = |revision: &str| revision == "main" || revision == state.commit;
    let info = format!("/api/{}/{}/revision/", state.kind, state.repository);
    if let Some(revision) = path.strip_prefix(&info) {
        let info = json!({ "_id": "0", "id": state.repository, "sha": state.commit });
        return if known(revision) { data(&info) } else { page(404) };
    }
    let tree = format!("/api/{}/{}/tree/", state.kind, state.repository);
    if let Some(revision) = path.strip_prefix(&tree) {
        return if known(revision) { listing(state) } else { page(404) };
    }
    let kind = if state.kind == "models" { "" } else { "/datasets" };
    let resolve = format!("{kind}/{}/resolve/", state.repository);
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
    if !is_large(file) {
        let tag = format!("\"{}\"", etag(file, bytes));
        let mut bytes = bytes.clone();
        if state.fault == Fault::FlippedConfig {
            bytes[0] ^= 1;
        }
        return Answer::new(200, vec![commit, ("etag", tag)], bytes);
    }
    match state.fault {
        Fault::Door(status) if method == "GET" => return page(status),
        Fault::XetAlone if method == "GET" => {
            return Answer { headers: vec![("x-xet-hash", "1".repeat(64))], ..page(406) };
        }
        _ => {}
    }
    let tag = match state.fault {
        Fault::OddTag => "\"odd\"".to_owned(),
        _ => format!("\"{}\"", etag(file, bytes)),
    };
    let location = match state.fault {
        Fault::Loop => path.to_owned(),
        _ => format!("http://localhost:{port}/cdn/{}?{SIGNATURE}", sha256(bytes)),
    };
    let headers = vec![
        commit,
        ("etag", "\"of the redirect\"".to_owned()),
        ("x-linked-etag", tag),
        ("x-linked-size", bytes.len().to_string()),
        ("location", location),
    ];
    Answer::new(302, headers, b"Found".to_vec())
}

fn listing(state: &State) -> Answer {
    let entry = |(name, bytes): (&String, &Vec<u8>)| {
        let size = bytes.len();
        let mut entry = json!({ "type": "file", "oid": git(bytes), "size": size, "path": name });
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
    Answer::new(200, vec![("content-type", "application/json".to_owned())], body)
}
