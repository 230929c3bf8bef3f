//! A publisher's server on this machine: files over HTTP/1.1, with what goes wrong in order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the next GET is answered.
#[derive(Clone, Debug)]
pub enum Step {
    /// So many bytes of what was asked for, and then the end of the connection.
    Cut(usize),
    /// The same, with no length announced.
    Quiet(usize),
    /// An empty answer with this status and this header.
    Status(u16, &'static str, String),
    /// The whole file, whatever range was asked for.
    Whole,
    /// A page that says it is all right.
    Page,
}

#[derive(Clone)]
pub struct Content {
    pub bytes: Vec<u8>,
    /// ETag and Last-Modified.
    pub etag: Option<String>,
    pub modified: Option<String>,
}

pub struct Seen {
    pub path: String,
    pub host: String,
    /// First byte of the range asked for.
    pub from: Option<usize>,
    pub if_range: Option<String>,
    pub authorized: bool,
}

#[derive(Default)]
pub struct State {
    pub files: BTreeMap<String, Content>,
    pub steps: VecDeque<Step>,
    pub seen: Vec<Seen>,
    /// Bytes a second.
    pub pace: Option<usize>,
    pub sent: usize,
    /// Ranges whatever If-Range says.
    pub lax: bool,
    /// The next answer has a wrong first byte.
    pub flip_once: bool,
}

pub struct Server {
    pub port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A client that hangs up is its own business.
                std::thread::spawn(move || drop(answer(stream.unwrap(), &shared)));
            }
        });
        Self { port, state, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Puts a file there, with a strong ETag of its content.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let etag = Some(format!("\"{}\"", crate::sha256(bytes)));
        let content = Content { bytes: bytes.to_vec(), etag, modified: None };
        self.with(|state| state.files.insert(path.to_owned(), content));
    }

    /// First bytes of what was asked for, request by request.
    pub fn ranges(&self) -> Vec<Option<usize>> {
        self.with(|state| state.seen.iter().map(|seen| seen.from).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let (first, request) = crate::hub::request(&mut reader)?;
    let path = first.split(' ').nth(1).unwrap_or("").split('?').next().unwrap_or("").to_owned();
    let range = request
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (content, step, pace, lax, flip) = {
        let mut state = state.lock().unwrap();
        state.seen.push(Seen {
            path: path.clone(),
            host: request.get("host").cloned().unwrap_or_default(),
            from: range,
            if_range: request.get("if-range").cloned(),
            authorized: request.contains_key("authorization"),
        });
        let flip = std::mem::take(&mut state.flip_once);
        let content = state.files.get(&path).cloned();
        (content, state.steps.pop_front(), state.pace, state.lax, flip)
    };
    let mut headers = vec!["connection: close".to_owned()];
    let (mut status, mut body, mut announced, mut end) = (404, Vec::new(), true, usize::MAX);
    match (&step, content) {
        (Some(Step::Status(code, name, value)), _) => {
            status = *code;
            headers.push(format!("{name}: {value}"));
        }
        (Some(Step::Page), _) => {
            (status, body) = (200, b"<html>Please log in</html>".to_vec());
            headers.push("content-type: text/html".to_owned());
        }
        (_, None) => {}
        (step, Some(content)) => {
            let size = content.bytes.len();
            let validators = [content.etag.as_ref(), content.modified.as_ref()];
            let same =
                lax || request.get("if-range").is_none_or(|sent| validators.contains(&Some(sent)));
            let whole = matches!(step, Some(Step::Whole));
            match range.filter(|from| same && !whole && *from < size) {
                Some(from) => {
                    status = 206;
                    headers.push(format!("content-range: bytes {from}-{}/{size}", size - 1));
                    body = content.bytes[from..].to_vec();
                }
                None => (status, body) = (200, content.bytes),
            }
            headers.extend(content.etag.map(|etag| format!("etag: {etag}")));
            headers.extend(content.modified.map(|date| format!("last-modified: {date}")));
            match step {
                Some(Step::Cut(bytes)) => end = *bytes,
                Some(Step::Quiet(bytes)) => (announced, end) = (false, *bytes),
                _ => {}
            }
        }
    }
    if announced {
        headers.push(format!("content-length: {}", body.len()));
    }
    if flip {
        body[0] ^= 1;
    }
    let stream = reader.get_mut();
    stream
        .write_all(format!("HTTP/1.1 {status} x\r\n{}\r\n\r\n", headers.join("\r\n")).as_bytes())?;
    for chunk in body[..end.min(body.len())].chunks(1 << 13) {
        if let Some(pace) = pace {
            std::thread::sleep(Duration::from_secs_f64(chunk.len() as f64 / pace as f64));
        }
        stream.write_all(chunk)?;
        state.lock().unwrap().sent += chunk.len();
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    reader.take(1 << 16).read_to_end(&mut Vec::new()).map(|_| ())
}
