//! The Hugging Face Hub: which files a repository has, and those files on disk.
//!
//! hf-hub lists, resolves revisions and keeps the cache layout it shares with Python's
//! huggingface_hub. Every file it hands over is checked here, because hf-hub 1.0.0 keeps whatever
//! bytes came, an error page included: its size against the repository's tree, and its SHA-256
//! against the hub's ETag, which is the name of the blob. (The tree has that hash too, but hf-hub
//! drops it. The small files that git itself holds have none: their size is checked.) A file that
//! fails is removed from the cache before the error is returned.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClientBuilder, HFError, HFRepositorySync, split_id};
use sha2::{Digest, Sha256};

use crate::interrupt;
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
    /// The cache cannot be read or written.
    #[error("cannot use {} in the hub's cache: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else the hub or the network said.
    #[error("cannot fetch {what}: {}", reason(.source))]
    Other {
        /// The repository, or a file of it.
        what: String,
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
        .map_err(|source| classify(reference, None, source))?;
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
        // A snapshot stands in a folder named after its commit.
        let commit = parent(&config).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let local = |file: &str| self.local(file, &commit);
        let shards = self.shards(|file| Ok(local(file)))?.ok_or_else(absent)?;
        if shards.iter().any(|file| local(file).is_none()) {
            return Err(absent());
        }
        Ok(Snapshot { folder: parent(&config), commit })
    }

    fn local(&self, file: &str, revision: &str) -> Option<PathBuf> {
        let found = self.repository.download_file().filename(file).revision(revision);
        found.local_files_only(true).send().ok()
    }

    fn online(&self) -> Result<Snapshot, HubError> {
        let other = |source| classify(self.reference, None, source);
        let commit = self.commit().map_err(other)?;
        let listed = self.repository.list_tree().revision(&commit).send().map_err(other)?;
        let whole = self.is_noted(&commit);
        let download = |file: &str| match size_of(&listed, file) {
            Some(size) => self.download(file, &commit, size, whole).map(Some),
            None => Ok(None),
        };
        let config = download(CONFIG)?.ok_or_else(|| self.no_file(CONFIG))?;
        for shard in self.shards(download)?.ok_or_else(|| self.no_file(SINGLE))? {
            download(&shard)?.ok_or_else(|| self.no_file(&shard))?;
        }
        if !whole {
            self.note(&commit)?;
        }
        Ok(Snapshot { folder: parent(&config), commit })
    }

    /// The commit that the revision stands for today. hf-hub would ask only whether config.json has
    /// changed, and stay with the older commit when other files have.
    fn commit(&self) -> Result<String, HFError> {
        let revision = &self.reference.revision;
        if is_commit(revision) {
            return Ok(revision.clone());
        }
        let info = self.repository.info().revision(revision).expand(vec!["sha".to_owned()]);
        let commit = info.send()?.sha.filter(|sha| is_commit(sha));
        commit.ok_or_else(|| HFError::malformed_response(format!("the commit of {revision}")))
    }

    /// The cache's file that says which commit a revision stands for. A revision cannot lead out of
    /// the folder of such files.
    fn note_path(&self) -> Option<PathBuf> {
        let revision = Path::new(&self.reference.revision);
        let plain = revision.components().all(|part| matches!(part, Component::Normal(_)));
        let folder = format!("models--{}", self.reference.repository.replace('/', "--"));
        plain.then(|| self.cache.join(folder).join("refs").join(revision))
    }

    fn is_noted(&self, commit: &str) -> bool {
        self.note_path().and_then(|path| fs::read_to_string(path).ok()).as_deref() == Some(commit)
    }

    /// Notes that all of the commit is there and was checked; offline, the note is what counts.
    fn note(&self, commit: &str) -> Result<(), HubError> {
        let Some(path) = self.note_path() else { return Ok(()) };
        fs::create_dir_all(parent(&path))
            .and_then(|()| fs::write(&path, commit))
            .map_err(|source| HubError::Io { path, source })
    }

    fn no_file(&self, file: &str) -> HubError {
        HubError::NoFile { reference: self.reference.clone(), file: file.to_owned() }
    }

    /// The shards that the index names; none beside `model.safetensors`; `None` when there are no
    /// weights. `get` makes a file available, if it exists.
    fn shards(
        &self,
        get: impl Fn(&str) -> Result<Option<PathBuf>, HubError>,
    ) -> Result<Option<Vec<String>>, HubError> {
        if get(SINGLE)?.is_some() {
            return Ok(Some(Vec::new()));
        }
        let Some(index) = get(INDEX)? else { return Ok(None) };
        let text =
            fs::read_to_string(&index).map_err(|source| HubError::Io { path: index, source })?;
        let broken = |why| HubError::Index { reference: self.reference.clone(), why };
        shard_names(&text).map(Some).map_err(broken)
    }

    fn download(
        &self,
        file: &str,
        commit: &str,
        size: u64,
        whole: bool,
    ) -> Result<PathBuf, HubError> {
        // Unless the commit is noted as whole, a run may have ended between a file and its check.
        if let Some(path) = self.local(file, commit) {
            if let Ok(None) = difference(&path, size, !whole) {
                return Ok(path);
            }
            self.reporter.warn(format!("{} is damaged: fetching it again", path.display()));
            discard(&path);
        }
        let bar = Arc::new(Download(self.reporter.bytes(file, size)));
        let request = self.repository.download_file().filename(file).revision(commit);
        let path =
            request.progress(bar).send().map_err(|e| classify(self.reference, Some(file), e))?;
        self.check(&path, size)?;
        Ok(path)
    }

    /// Removes a file from the cache when its bytes are not the repository's.
    fn check(&self, path: &Path, size: u64) -> Result<(), HubError> {
        let io = |source| HubError::Io { path: path.to_path_buf(), source };
        let Some((expected, found)) = difference(path, size, true).map_err(io)? else {
            return Ok(());
        };
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
        // hf-hub cannot be told to stop; what it leaves behind is under no final name.
        if interrupt::requested() {
            eprintln!(
                "error: interrupted while downloading\nhint: the same command fetches the rest"
            );
            std::process::exit(interrupt::EXIT_INTERRUPTED);
        }
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
fn difference(path: &Path, size: u64, hashed: bool) -> std::io::Result<Option<(String, String)>> {
    let blob = fs::canonicalize(path)?;
    let found = fs::metadata(&blob)?.len();
    if found != size {
        return Ok(Some((format!("{size} bytes"), format!("{found} bytes"))));
    }
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    if !hashed || name.len() != 64 || !name.bytes().all(|c| c.is_ascii_hexdigit()) {
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
    if let Ok(blob) = fs::canonicalize(pointer) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(pointer);
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn endpoint() -> String {
    let set = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    set.unwrap_or_else(|| "https://huggingface.co".to_owned())
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|c| c.is_ascii_hexdigit())
}

fn classify(reference: &HubRef, file: Option<&str>, source: HFError) -> HubError {
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
        _ => {
            let of = |file| format!("{file} of {reference}");
            let what = file.map_or_else(|| reference.to_string(), of);
            HubError::Other { what, source: Box::new(source) }
        }
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
