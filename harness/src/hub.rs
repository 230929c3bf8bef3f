//! The Hugging Face Hub: which files a repository has, and those files on disk.
//!
//! hf-hub lists, resolves revisions and keeps the cache layout it shares with Python's
//! huggingface_hub. Every file it hands over is checked here, because hf-hub 1.0.0 keeps whatever
//! bytes came, an error page included: its size against the repository's tree, and its SHA-256
//! against the hub's ETag, which is the name of the blob. (The tree has that hash too, but hf-hub
//! drops it. The small files that git itself holds have none: their size is checked.) A file that
//! fails is removed from the cache before the error is returned.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClientBuilder, HFError, HFRepositorySync, split_id};
use sha2::{Digest, Sha256};

use crate::progress::{Bar, Reporter};
use crate::weights::shard_names;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Waits of 0.2, 0.4 and 0.8 s at most, when the hub is busy or cannot be reached.
const RETRIES: usize = 3;
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A repository and a revision of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRef {
    /// `ORG/REPO`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl std::fmt::Display for HubRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.repository, self.revision)
    }
}

/// A snapshot on disk: a folder with config.json and weights.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The folder.
    pub folder: PathBuf,
    /// The commit it is of.
    pub commit: String,
}

/// What can go wrong between the hub and the disk.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// 401 or 403. The hub says 401 also for a repository that does not exist.
    #[error(
        "no access to {repository}: it is gated, private, or does not exist (the hub answered \
         {status})"
    )]
    Gated {
        /// `ORG/REPO`.
        repository: String,
        /// Page where access is asked for.
        page: String,
        /// HTTP status.
        status: u16,
    },
    /// 404 for the repository or the revision.
    #[error("the hub has no {0}")]
    NotFound(HubRef),
    /// The repository lacks a file that a backbone needs.
    #[error("{reference} has no {file}")]
    NoFile {
        /// The repository.
        reference: HubRef,
        /// What was looked for.
        file: String,
    },
    /// Not in the cache, and the network must not be used.
    #[error("{reference} is not in the cache {}, and this run is offline", cache.display())]
    Offline {
        /// The repository.
        reference: HubRef,
        /// The cache folder.
        cache: PathBuf,
    },
    /// A file is not what the repository lists.
    #[error("{file} of {reference} is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// The repository.
        reference: HubRef,
        /// The file.
        file: String,
        /// Size or hash that is listed.
        expected: String,
        /// Size or hash of what came.
        found: String,
    },
    /// The shard index of the repository is broken.
    #[error("{INDEX} of {reference} is not usable: {why}")]
    Index {
        /// The repository.
        reference: HubRef,
        /// What is wrong.
        why: String,
    },
    /// Reading back a downloaded file failed.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else the hub or the network said.
    #[error("cannot fetch {reference}: {}", reason(.source))]
    Other {
        /// The repository.
        reference: HubRef,
        /// Why.
        source: Box<HFError>,
    },
}

/// How to reach the hub. The token (`HF_TOKEN`, or the file of `hf auth login`) is read by hf-hub and
/// never printed.
#[derive(Clone, Debug, Default)]
pub struct HubOptions {
    /// Never use the network (`--offline`, `HF_HUB_OFFLINE=1`).
    pub offline: bool,
}

impl HubOptions {
    /// Takes `HF_HUB_OFFLINE` into account.
    pub fn from_env(offline: bool) -> Self {
        let set = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
        let on = matches!(set.to_ascii_uppercase().as_str(), "1" | "TRUE" | "YES" | "ON");
        Self { offline: offline || on }
    }
}

struct Session<'a> {
    repository: HFRepositorySync<RepoTypeModel>,
    reference: &'a HubRef,
    cache: PathBuf,
    reporter: &'a Reporter,
}

/// Makes config.json and the weights of a repository available on disk.
pub fn fetch(
    reference: &HubRef,
    options: &HubOptions,
    reporter: &Reporter,
) -> Result<Snapshot, HubError> {
    let cache = hf_hub::resolve_cache_dir();
    let client = HFClientBuilder::new()
        .endpoint(endpoint())
        .cache_dir(&cache)
        .retry_max_attempts(RETRIES)
        .retry_base_delay(RETRY_DELAY)
        .build_sync()
        .map_err(|source| classify(reference, source))?;
    let (owner, name) = split_id(&reference.repository);
    let repository = client.model(owner, name);
    let session = Session { repository, reference, cache, reporter };
    if options.offline { session.cached() } else { session.online() }
}

impl Session<'_> {
    fn cached(&self) -> Result<Snapshot, HubError> {
        let absent =
            || HubError::Offline { reference: self.reference.clone(), cache: self.cache.clone() };
        let config = self.local(CONFIG, &self.reference.revision).ok_or_else(absent)?;
        let commit = self.commit(&config);
        let local = |file: &str| self.local(file, &commit);
        let files = self.weight_files(|file| Ok(local(file)))?.ok_or_else(absent)?;
        if files.iter().any(|file| local(file).is_none()) {
            return Err(absent());
        }
        Ok(Snapshot { folder: parent(&config), commit })
    }

    fn local(&self, file: &str, revision: &str) -> Option<PathBuf> {
        let found = self.repository.download_file().filename(file).revision(revision);
        found.local_files_only(true).send().ok()
    }

    fn online(&self) -> Result<Snapshot, HubError> {
        // By the revision's name, so that the cache notes which commit the name stands for.
        let config = self.repository.download_file().filename(CONFIG);
        let config = match config.revision(&self.reference.revision).send() {
            Err(HFError::EntryNotFound { .. }) => {
                self.list(&self.reference.revision)?;
                return Err(self.no_file(CONFIG));
            }
            config => config.map_err(|source| classify(self.reference, source))?,
        };
        let commit = self.commit(&config);
        let listed = self.list(&commit)?;
        self.check(&config, size_of(&listed, CONFIG).ok_or_else(|| self.no_file(CONFIG))?)?;
        let download = |file: &str| match size_of(&listed, file) {
            Some(size) => self.download(file, &commit, size).map(Some),
            None => Ok(None),
        };
        let files = self.weight_files(download)?.ok_or_else(|| self.no_file(SINGLE))?;
        for file in &files {
            download(file)?.ok_or_else(|| self.no_file(file))?;
        }
        Ok(Snapshot { folder: parent(&config), commit })
    }

    fn list(&self, revision: &str) -> Result<Vec<RepoTreeEntry>, HubError> {
        let listed = self.repository.list_tree().revision(revision).send();
        listed.map_err(|source| classify(self.reference, source))
    }

    /// The cache keeps a snapshot in a folder named after its commit.
    fn commit(&self, config: &Path) -> String {
        let folder = config.parent().and_then(Path::file_name);
        folder.map_or_else(|| self.reference.revision.clone(), |f| f.to_string_lossy().into_owned())
    }

    fn no_file(&self, file: &str) -> HubError {
        HubError::NoFile { reference: self.reference.clone(), file: file.to_owned() }
    }

    /// `model.safetensors`, else the shards its index names, else nothing. `get` gives a file's path,
    /// when there is such a file.
    fn weight_files(
        &self,
        get: impl Fn(&str) -> Result<Option<PathBuf>, HubError>,
    ) -> Result<Option<Vec<String>>, HubError> {
        if get(SINGLE)?.is_some() {
            return Ok(Some(vec![SINGLE.to_owned()]));
        }
        let Some(index) = get(INDEX)? else { return Ok(None) };
        let text = std::fs::read_to_string(&index)
            .map_err(|source| HubError::Io { path: index, source })?;
        let broken = |why| HubError::Index { reference: self.reference.clone(), why };
        shard_names(&text).map(Some).map_err(broken)
    }

    fn download(&self, file: &str, commit: &str, size: u64) -> Result<PathBuf, HubError> {
        // What is there was checked when it came, or came through another program.
        if let Some(path) = self.local(file, commit) {
            if std::fs::metadata(&path).is_ok_and(|found| found.len() == size) {
                return Ok(path);
            }
            self.reporter.warn(format!("{} is not whole: fetching it again", path.display()));
            discard(&path);
        }
        let bar = Arc::new(Download(self.reporter.bytes(file, size)));
        let request = self.repository.download_file().filename(file).revision(commit);
        let path = request.progress(bar).send().map_err(|e| classify(self.reference, e))?;
        self.check(&path, size)?;
        Ok(path)
    }

    /// Removes a file from the cache when its bytes are not the repository's.
    fn check(&self, path: &Path, size: u64) -> Result<(), HubError> {
        let io = |source| HubError::Io { path: path.to_path_buf(), source };
        let Some((expected, found)) = difference(path, size).map_err(io)? else { return Ok(()) };
        discard(path);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Err(HubError::Corrupt { reference: self.reference.clone(), file, expected, found })
    }
}

fn size_of(listed: &[RepoTreeEntry], file: &str) -> Option<u64> {
    listed.iter().find_map(|entry| match entry {
        RepoTreeEntry::File { path, size, .. } if path == file => Some(*size),
        _ => None,
    })
}

struct Download(Bar);

impl ProgressHandler for Download {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Download(DownloadEvent::Progress { files }) => {
                if let Some(file) = files.last() {
                    self.0.set(file.bytes_completed);
                }
            }
            ProgressEvent::Download(DownloadEvent::AggregateProgress {
                bytes_completed, ..
            }) => self.0.set(*bytes_completed),
            _ => {}
        }
    }
}

/// What was expected and what was found, when they differ.
fn difference(path: &Path, size: u64) -> std::io::Result<Option<(String, String)>> {
    let blob = std::fs::canonicalize(path)?;
    let found = std::fs::metadata(&blob)?.len();
    if found != size {
        return Ok(Some((format!("{size} bytes"), format!("{found} bytes"))));
    }
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    if name.len() != 64 || !name.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut file = File::open(&blob)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let same = found.eq_ignore_ascii_case(&name);
    Ok((!same).then(|| (format!("SHA-256 {name}"), found)))
}

/// Removes a snapshot's pointer and the blob behind it.
fn discard(pointer: &Path) {
    if let Ok(blob) = std::fs::canonicalize(pointer) {
        let _ = std::fs::remove_file(blob);
    }
    let _ = std::fs::remove_file(pointer);
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn endpoint() -> String {
    let set = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    set.unwrap_or_else(|| "https://huggingface.co".to_owned())
}

fn classify(reference: &HubRef, source: HFError) -> HubError {
    let status = match &source {
        HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::Http { context } => context.status.as_u16(),
        HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => 404,
        HFError::EntryNotFound { path, .. } => {
            return HubError::NoFile { reference: reference.clone(), file: path.clone() };
        }
        _ => 0,
    };
    match status {
        401 | 403 => {
            let repository = reference.repository.clone();
            let page = format!("{}/{repository}", endpoint().trim_end_matches('/'));
            HubError::Gated { repository, page, status }
        }
        404 => HubError::NotFound(reference.clone()),
        _ => HubError::Other { reference: reference.clone(), source: Box::new(source) },
    }
}

/// reqwest says which request failed; only the end of its chain says why.
fn reason(error: &HFError) -> String {
    let HFError::Request { source, .. } = error else { return error.to_string() };
    let mut cause: &dyn std::error::Error = source;
    while let Some(next) = cause.source() {
        cause = next;
    }
    format!("{source}: {cause}")
}
