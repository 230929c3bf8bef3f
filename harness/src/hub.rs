//! The Hugging Face Hub: which files a repository has, and those files on disk.
//!
//! hf-hub lists, resolves revisions and keeps the cache layout it shares with Python's
//! huggingface_hub. Every file it hands over is checked here against the size and SHA-256 that the
//! repository lists; a file that fails is removed from the cache before the error is returned.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClientBuilder, HFError, HFRepositorySync, split_id};
use sha2::{Digest, Sha256};

use crate::progress::{Bar, Reporter};
use crate::weights::shard_names;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

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
    /// 401 or 403.
    #[error("no access to {repository} (the hub answered {status})")]
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
    #[error("cannot fetch {reference}: {source}")]
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
    let other = |source: HFError| classify(reference, source);
    let client = HFClientBuilder::new().build_sync().map_err(other)?;
    let (owner, name) = split_id(&reference.repository);
    let cache = hf_hub::resolve_cache_dir();
    let repository = client.model(owner, name);
    let session = Session { repository, reference, cache, reporter };
    if options.offline { session.cached() } else { session.online() }
}

impl Session<'_> {
    fn cached(&self) -> Result<Snapshot, HubError> {
        let config = self.local(CONFIG, &self.reference.revision)?;
        let commit = commit_of(&config).unwrap_or_else(|| self.reference.revision.clone());
        for file in self.weight_files(|file| self.local(file, &commit).ok())? {
            self.local(&file, &commit)?;
        }
        Ok(Snapshot { folder: parent(&config), commit })
    }

    fn local(&self, file: &str, revision: &str) -> Result<PathBuf, HubError> {
        let found = self.repository.download_file().filename(file).revision(revision);
        found.local_files_only(true).send().map_err(|_| HubError::Offline {
            reference: self.reference.clone(),
            cache: self.cache.clone(),
        })
    }

    fn online(&self) -> Result<Snapshot, HubError> {
        let other = |source: HFError| classify(self.reference, source);
        // By the revision's name, so that the cache notes which commit the name stands for.
        let config = self.repository.download_file().filename(CONFIG);
        let config = config.revision(&self.reference.revision).send().map_err(other)?;
        let commit = commit_of(&config).unwrap_or_else(|| self.reference.revision.clone());
        let listed = self.repository.list_tree().revision(&commit).send().map_err(other)?;
        self.checked(&config, CONFIG, &listed, true)?;
        let has = |file: &str| listed.iter().any(|e| entry(e).is_some_and(|f| f.path == file));
        let files = self.weight_files(|file| {
            if !has(file) {
                None
            } else if file == INDEX {
                self.download(file, &commit, &listed).ok()
            } else {
                Some(PathBuf::from(file))
            }
        })?;
        for file in files {
            self.download(&file, &commit, &listed)?;
        }
        Ok(Snapshot { folder: parent(&config), commit })
    }

    /// `model.safetensors`, else the shards its index names. `available` gives a file's path, when it
    /// is there.
    fn weight_files(
        &self,
        available: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Vec<String>, HubError> {
        if available(SINGLE).is_some() {
            return Ok(vec![SINGLE.to_owned()]);
        }
        let reference = || self.reference.clone();
        let index = available(INDEX)
            .ok_or_else(|| HubError::NoFile { reference: reference(), file: SINGLE.to_owned() })?;
        let text = std::fs::read_to_string(&index)
            .map_err(|source| HubError::Io { path: index, source })?;
        shard_names(&text).map_err(|why| HubError::Index { reference: reference(), why })
    }

    fn download(
        &self,
        file: &str,
        commit: &str,
        listed: &[RepoTreeEntry],
    ) -> Result<PathBuf, HubError> {
        let other = |source: HFError| classify(self.reference, source);
        let at = |local: bool| {
            self.repository.download_file().filename(file).revision(commit).local_files_only(local)
        };
        // A known file was checked when it came; its size is checked each time.
        let known: Result<PathBuf, HFError> = at(true).send();
        if let Ok(path) = known {
            self.checked(&path, file, listed, false)?;
            return Ok(path);
        }
        let size = listed.iter().filter_map(entry).find(|f| f.path == file).map_or(0, |f| f.size);
        let bar = self.reporter.bytes(file, size);
        let path = at(false).progress(Arc::new(Download(bar))).send().map_err(other)?;
        self.checked(&path, file, listed, true)?;
        Ok(path)
    }

    /// Compares a file with what the repository lists; removes it from the cache when they differ.
    fn checked(
        &self,
        path: &Path,
        file: &str,
        listed: &[RepoTreeEntry],
        hash: bool,
    ) -> Result<(), HubError> {
        let reference = || self.reference.clone();
        let Some(listed) = listed.iter().filter_map(entry).find(|f| f.path == file) else {
            return Err(HubError::NoFile { reference: reference(), file: file.to_owned() });
        };
        match verify(path, listed.size, listed.sha256.as_deref().filter(|_| hash)) {
            Ok(()) => Ok(()),
            Err(Err(source)) => Err(HubError::Io { path: path.to_path_buf(), source }),
            Err(Ok((expected, found))) => {
                discard(path);
                let (reference, file) = (reference(), file.to_owned());
                Err(HubError::Corrupt { reference, file, expected, found })
            }
        }
    }
}

struct Listed<'a> {
    path: &'a str,
    size: u64,
    sha256: Option<String>,
}

fn entry(entry: &RepoTreeEntry) -> Option<Listed<'_>> {
    match entry {
        RepoTreeEntry::File { path, size, lfs, .. } => {
            let sha256 = lfs.as_ref().and_then(|lfs| lfs.sha256.clone());
            Some(Listed { path, size: *size, sha256 })
        }
        RepoTreeEntry::Directory { .. } => None,
    }
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

/// Expected and found, or the I/O error that kept us from knowing.
type Problem = Result<(String, String), std::io::Error>;

fn verify(path: &Path, size: u64, sha256: Option<&str>) -> Result<(), Problem> {
    let found = std::fs::metadata(path).map_err(Err)?.len();
    if found != size {
        return Err(Ok((format!("{size} bytes"), format!("{found} bytes"))));
    }
    let Some(expected) = sha256 else { return Ok(()) };
    let mut file = File::open(path).map_err(Err)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Err)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected { Ok(()) } else { Err(Ok((format!("SHA-256 {expected}"), found))) }
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

/// The cache keeps a snapshot in a folder named after its commit.
fn commit_of(path: &Path) -> Option<String> {
    path.parent()?.file_name()?.to_str().map(str::to_owned)
}

fn classify(reference: &HubRef, source: HFError) -> HubError {
    let status = match &source {
        HFError::AuthRequired { context } | HFError::Forbidden { context } => {
            Some(context.status.as_u16())
        }
        HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => {
            return HubError::NotFound(reference.clone());
        }
        HFError::EntryNotFound { path, .. } => {
            return HubError::NoFile { reference: reference.clone(), file: path.clone() };
        }
        _ => None,
    };
    match status {
        Some(status) => {
            let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|e| !e.is_empty());
            let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
            let page = format!("{}/{}", endpoint.trim_end_matches('/'), reference.repository);
            HubError::Gated { repository: reference.repository.clone(), page, status }
        }
        None => HubError::Other { reference: reference.clone(), source: Box::new(source) },
    }
}
