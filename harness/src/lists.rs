//! The published split lists that datasets.toml pins: fetched once, checked, kept in the cache.
//!
//! A list is used only if its size, SHA-256 and number of lines are the pinned ones, whoever sent it
//! and however long it has been in the cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use results::write_whole;
use sha2::{Digest, Sha256};
use tasks::data::{Dataset, PinnedList};
use tasks::dense::PinnedLists;

use crate::http;
use crate::hub::HubOptions;
use crate::progress::Reporter;

/// Folder in the cache. A file is named after its SHA-256.
const FOLDER: &str = "splits-v1";

/// How to reach the lists.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Never use the network.
    pub offline: bool,
    /// A copy of the servers that lists are pinned on: what stands before the path of an address is
    /// replaced by this.
    pub mirror: Option<String>,
}

impl ListOptions {
    /// `HF_HUB_OFFLINE` counts like `--offline`; the mirror is `PIXIO_EVAL_LISTS`.
    pub fn from_env(offline: bool) -> Self {
        let mirror = std::env::var("PIXIO_EVAL_LISTS").ok().filter(|mirror| !mirror.is_empty());
        Self { offline: HubOptions::from_env(offline).offline, mirror }
    }
}

/// Why a published list is not there.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Not in the cache, and the network must not be used.
    #[error(
        "the published {split} list of {dataset} is not in the cache ({}), and this run is offline; it is {url} with \
         SHA-256 {sha256}",
        file.display()
    )]
    Offline {
        /// Name of the data set.
        dataset: String,
        /// `train` or `val`.
        split: &'static str,
        /// Where the list is.
        url: String,
        /// What it hashes to.
        sha256: String,
        /// Where it was looked for.
        file: PathBuf,
    },
    /// No answer, or one that breaks off.
    #[error("cannot fetch {url}: {why}")]
    Fetch {
        /// What was asked for.
        url: String,
        /// The innermost cause.
        why: String,
    },
    /// An answer that is no file.
    #[error("cannot fetch {url}: expected HTTP status 200, found {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// What came.
        status: u16,
    },
    /// A file with other content.
    #[error(
        "{url} is not the published list: expected {expected}, found {found}; nothing was kept"
    )]
    Mismatch {
        /// What was asked for.
        url: String,
        /// The pinned size, hash or number of lines.
        expected: String,
        /// The one that came.
        found: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// The published lists of a data set, from the cache or, the first time, from where they are
/// published; `None` for a data set without such lists.
///
/// # Errors
///
/// [`ListError`]; nothing is then kept of the list.
pub fn obtain(
    dataset: &Dataset,
    cache: &Path,
    options: &ListOptions,
    reporter: &Reporter,
) -> Result<Option<PinnedLists>, ListError> {
    let list = |split| {
        let entry = dataset.list.pinned.get(split);
        entry.map(|entry| one(&dataset.name, split, entry, cache, options, reporter)).transpose()
    };
    let (Some(train), Some(val)) = (list("train")?, list("val")?) else { return Ok(None) };
    Ok(Some(PinnedLists { train, val }))
}

/// The same from the cache alone; `None` also where a list is not there or damaged.
pub fn cached(dataset: &Dataset, cache: &Path) -> Option<PinnedLists> {
    let list = |split| {
        let entry = dataset.list.pinned.get(split)?;
        verified(entry, fs::read(file(cache, entry)).ok()?).ok()
    };
    Some(PinnedLists { train: list("train")?, val: list("val")? })
}

fn file(cache: &Path, entry: &PinnedList) -> PathBuf {
    cache.join(FOLDER).join(format!("{}.txt", entry.sha256))
}

fn one(
    dataset: &str,
    split: &'static str,
    entry: &PinnedList,
    cache: &Path,
    options: &ListOptions,
    reporter: &Reporter,
) -> Result<String, ListError> {
    let path = file(cache, entry);
    match fs::read(&path) {
        Ok(bytes) => match verified(entry, bytes) {
            Ok(text) => return Ok(text),
            Err(_) => reporter.warn(format!("{} is damaged and not used", path.display())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(ListError::Cache { path, source }),
    }
    let url = http::mirrored(&entry.url, options.mirror.as_deref());
    if options.offline {
        let (dataset, sha256) = (dataset.to_owned(), entry.sha256.clone());
        return Err(ListError::Offline { dataset, split, url, sha256, file: path });
    }
    reporter.say(format!("{dataset}: fetching the published {split} list, {url}"));
    let bytes = download(&url, entry.bytes)?;
    let text = verified(entry, bytes).map_err(|(expected, found)| ListError::Mismatch {
        url,
        expected,
        found,
    })?;
    let folder = cache.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|source| ListError::Cache { path: folder, source })?;
    write_whole(&path, text.as_bytes()).map_err(|source| ListError::Cache { path, source })?;
    Ok(text)
}

/// The text, or what was expected and what was found.
fn verified(entry: &PinnedList, bytes: Vec<u8>) -> Result<String, (String, String)> {
    if bytes.len() as u64 != entry.bytes {
        return Err((format!("{} bytes", entry.bytes), format!("{} bytes", bytes.len())));
    }
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if hash != entry.sha256 {
        return Err((format!("SHA-256 {}", entry.sha256), hash));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| ("text in UTF-8".to_owned(), error.utf8_error().to_string()))?;
    let lines = text.lines().count();
    if lines != entry.lines {
        return Err((format!("{} lines", entry.lines), format!("{lines} lines")));
    }
    Ok(text)
}

/// Fetches a file, of which no more than one byte beyond `limit` is kept in memory.
fn download(url: &str, limit: u64) -> Result<Vec<u8>, ListError> {
    let failed = |why| ListError::Fetch { url: url.to_owned(), why };
    let fail = |error: reqwest::Error| failed(http::cause(&error));
    let work = async {
        let client = http::client(url).build().map_err(fail)?;
        let mut response = client.get(url).send().await.map_err(fail)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(ListError::Status { url: url.to_owned(), status });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(fail)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                let (expected, found) = (format!("{limit} bytes"), "more".to_owned());
                return Err(ListError::Mismatch { url: url.to_owned(), expected, found });
            }
        }
        Ok(bytes)
    };
    http::block_on(work)
        .map_err(|error| failed(error.to_string()))?
        .ok_or(ListError::Interrupted)?
}
