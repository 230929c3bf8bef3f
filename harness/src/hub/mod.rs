//! The Hugging Face Hub: which files a repository has, and those files on disk.
//!
//! hf-hub lists repositories, resolves revisions and says where the cache is, which is shared with
//! Python's huggingface_hub: a file that either fetched is found by the other, and they wait for one
//! another. The bytes are fetched here, because hf-hub 1.0.0 keeps whatever came, an error page
//! included:
//!
//! - into a `.incomplete` file beside the blob, which a later attempt continues by Range;
//! - under its final name only once its size is the repository's, its SHA-256 (of a file in LFS or
//!   Xet) or git object (of a small one) is right, and the disk has it;
//! - never after that without the same check: a file in the cache, whoever put it there, is hashed
//!   before every use.
//!
//! The token goes to the endpoint's host alone. Files that are stored in Xet are fetched over plain
//! HTTP, for which the hub keeps a bridge; a file without one is an error.

mod cached;
mod digest;
mod error;
mod layout;
mod lock;
mod partial;
mod token;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClientBuilder, HFClientSync, HFError, HFRepositorySync, split_id};
use reqwest::Url;

pub use self::error::HubError;

use self::digest::{Difference, Digest};
use self::layout::{Layout, is_commit};
use self::partial::Partial;
use self::token::Token;
use self::transfer::{LONGEST_PAUSE, Transfer, Wanted, shown};
use crate::http;
use crate::progress::Reporter;
use crate::weights::shard_names;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What older repositories have alone.
const PICKLED: &str = "pytorch_model.bin";

/// Waits of 0.2, 0.4 and 0.8 s at most, when the hub is busy or cannot be reached.
const RETRIES: usize = 3;
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often a hub that says when to come back is listened to.
const RATE_WAITS: usize = 3;

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

/// How to reach the hub. What else is set is read from the environment: `HF_ENDPOINT`, `HF_HOME`,
/// `HF_HUB_CACHE`, and `HF_TOKEN` (or the file of `hf auth login`), which is never printed.
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
    client: HFClientSync,
    repository: HFRepositorySync<RepoTypeModel>,
    transfer: Transfer<'a>,
    endpoint: Url,
    token: Option<Token>,
    reference: &'a HubRef,
    /// Whether config.json must be there.
    with_config: bool,
    layout: Layout,
    reporter: &'a Reporter,
}

/// What the repository says of one of its files.
struct Listed {
    path: String,
    size: u64,
    /// Name of the git object, of a file that git itself holds.
    git: Option<String>,
}

/// Makes config.json and the weights of a repository available on disk; the former may be missing unless
/// `with_config`. Where the hub cannot be
/// reached, what is cached of the revision is used, with a warning.
///
/// # Errors
/// [`HubError`]; nothing is then under a final name that is not whole and right.
pub fn fetch(
    reference: &HubRef,
    with_config: bool,
    options: &HubOptions,
    reporter: &Reporter,
) -> Result<Snapshot, HubError> {
    let session = Session::open(reference, with_config, reporter)?;
    if options.offline {
        let cache = session.layout.cache().to_path_buf();
        return session.cached()?.ok_or_else(|| HubError::Offline {
            reference: reference.clone(),
            cache,
            cached: session.in_cache(),
        });
    }
    match session.online() {
        Err(HubError::Unreachable { reference, why, .. }) => match session.cached()? {
            Some(snapshot) => {
                let Snapshot { commit, .. } = &snapshot;
                reporter.warn(format!(
                    "cannot reach the hub ({why}): using commit {commit} of {reference} from the cache"
                ));
                Ok(snapshot)
            }
            None => {
                let cached = session.in_cache();
                Err(HubError::Unreachable { reference, why, cached })
            }
        },
        done => done,
    }
}

impl<'a> Session<'a> {
    fn open(
        reference: &'a HubRef,
        with_config: bool,
        reporter: &'a Reporter,
    ) -> Result<Self, HubError> {
        let other = |why| HubError::Other { reference: reference.clone(), why };
        let address = std::env::var("HF_ENDPOINT").ok().filter(|set| !set.is_empty());
        let address = address.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = Url::parse(&address).ok();
        let endpoint = endpoint.filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = endpoint.ok_or_else(|| {
            other("HF_ENDPOINT is no address: expected http:// or https:// and a host".to_owned())
        })?;
        let cache = hf_hub::resolve_cache_dir();
        let token = Token::from_env();
        let broken = |error: reqwest::Error| other(http::cause(&error));
        let listing = http::client(endpoint.as_str()).build().map_err(broken)?;
        let mut builder = HFClientBuilder::new()
            .endpoint(endpoint.as_str())
            .client(listing)
            .cache_dir(&cache)
            .retry_max_attempts(RETRIES)
            .retry_base_delay(RETRY_DELAY);
        if let Some(token) = &token {
            builder = builder.token(token.reveal());
        }
        let client = builder.build_sync().map_err(|error| other(error.to_string()))?;
        let (owner, name) = split_id(&reference.repository);
        let transfer = Transfer::new(endpoint.clone(), token.clone(), reference, reporter);
        Ok(Self {
            repository: client.model(owner, name),
            client,
            transfer: transfer.map_err(broken)?,
            endpoint,
            token,
            reference,
            with_config,
            layout: Layout::new(&cache, &reference.repository),
            reporter,
        })
    }

    fn online(&self) -> Result<Snapshot, HubError> {
        let commit = self.commit()?;
        let listed = self.listed(&commit)?;
        let get = |file: &str| match listed.iter().find(|listed| listed.path == file) {
            Some(listed) => self.download(&commit, listed).map(Some),
            None => Ok(None),
        };
        if get(CONFIG)?.is_none() && self.with_config {
            return Err(self.no_file(CONFIG));
        }
        for shard in self.shards(get)?.ok_or_else(|| self.no_file(SINGLE))? {
            get(&shard)?.ok_or_else(|| self.no_file(&shard))?;
        }
        // Only now: offline, the note decides what the revision stands for.
        let folder = self.layout.snapshot(&commit);
        self.layout
            .note(&self.reference.revision, &commit)
            .map_err(HubError::io(&self.layout.repository()))?;
        Ok(Snapshot { folder, commit })
    }

    /// The commit that the revision stands for today.
    fn commit(&self) -> Result<String, HubError> {
        let revision = &self.reference.revision;
        if is_commit(revision) {
            return Ok(revision.clone());
        }
        self.asked(|| {
            let info = self.repository.info().revision(revision).expand(vec!["sha".to_owned()]);
            let commit = info.send()?.sha.filter(|sha| is_commit(sha));
            commit.ok_or_else(|| HFError::malformed_response(format!("the commit of {revision}")))
        })
    }

    fn listed(&self, commit: &str) -> Result<Vec<Listed>, HubError> {
        let tree = self.asked(|| self.repository.list_tree().revision(commit).send())?;
        let file = |entry| match entry {
            RepoTreeEntry::File { oid, size, path, lfs, .. } => {
                Some(Listed { path, size, git: lfs.is_none().then_some(oid) })
            }
            RepoTreeEntry::Directory { .. } => None,
        };
        Ok(tree.into_iter().filter_map(file).collect())
    }

    /// Asks hf-hub, and waits as long as the hub wants it, within bounds.
    fn asked<T>(&self, ask: impl Fn() -> Result<T, HFError>) -> Result<T, HubError> {
        for _ in 0..RATE_WAITS {
            let wait = match ask() {
                Err(HFError::RateLimited { retry_after: Some(wait), .. }) => wait,
                answer => return answer.map_err(|error| self.classify(error)),
            };
            let wait = wait.min(LONGEST_PAUSE);
            self.reporter.say(format!("the hub asks to wait {} s", wait.as_secs()));
            http::block_on(async { tokio::time::sleep(wait).await })
                .map_err(HubError::io(self.layout.cache()))?
                .ok_or(HubError::Interrupted)?;
        }
        ask().map_err(|error| self.classify(error))
    }

    fn no_file(&self, file: &str) -> HubError {
        HubError::NoFile { reference: self.reference.clone(), file: file.to_owned() }
    }

    /// The shards that the index names; none beside weights in one file, safetensors or else
    /// `pytorch_model.bin`; `None` when there are no weights. `get` makes a file available, if it
    /// exists.
    fn shards(
        &self,
        get: impl Fn(&str) -> Result<Option<PathBuf>, HubError>,
    ) -> Result<Option<Vec<String>>, HubError> {
        if get(SINGLE)?.is_some() {
            return Ok(Some(Vec::new()));
        }
        let Some(index) = get(INDEX)? else { return Ok(get(PICKLED)?.map(|_| Vec::new())) };
        let text = fs::read_to_string(&index).map_err(HubError::io(&index))?;
        let broken = |why| HubError::Index { reference: self.reference.clone(), why };
        shard_names(&text).map(Some).map_err(broken)
    }

    /// A file's place in the snapshot, with the right bytes behind it.
    fn download(&self, commit: &str, listed: &Listed) -> Result<PathBuf, HubError> {
        let Listed { path: file, size, git } = listed;
        let pointer = self.layout.pointer(commit, file);
        let digest = |etag: &str| Digest::new(etag, git.as_deref());
        if let Some(digest) = Layout::etag(&pointer).as_deref().and_then(digest)
            && self.is_whole(&pointer, *size, &digest)?
        {
            return Ok(pointer);
        }
        let wanted = Wanted { commit, file, size: *size };
        let etag = self.transfer.etag(wanted)?;
        let digest = digest(&etag).ok_or_else(|| HubError::Unverifiable {
            reference: self.reference.clone(),
            file: file.clone(),
            etag: etag.clone(),
        })?;
        let blob = self.layout.blob(&etag);
        let lock = self.layout.lock(&etag);
        let _lock = lock::wait(&lock, file, &blob, *size, self.reporter)?;
        // Another may have fetched it meanwhile, or for another commit; and Python puts the file
        // itself where the link belongs if there are no links.
        let copied = fs::symlink_metadata(&pointer).is_ok_and(|found| found.is_file());
        let place = if copied { &pointer } else { &blob };
        let link = || self.layout.link(commit, file, &etag);
        if fs::symlink_metadata(place).is_ok() {
            if self.is_whole(place, *size, &digest)? {
                let linked = if copied { Ok(pointer.clone()) } else { link() };
                return linked.map_err(HubError::io(&pointer));
            }
            self.reporter.warn(format!("{} is damaged: fetching it again", place.display()));
            fs::remove_file(place).map_err(HubError::io(place))?;
        }
        self.transferred(wanted, &digest, &etag, &blob)?;
        link().map_err(HubError::io(&pointer))
    }

    fn is_whole(&self, path: &Path, size: u64, digest: &Digest) -> Result<bool, HubError> {
        if !path.exists() {
            return Ok(false);
        }
        let difference = digest.difference(path, Some(size)).map_err(HubError::io(path))?;
        Ok(difference.is_none())
    }

    /// Fetches a blob; the caller holds its lock.
    fn transferred(
        &self,
        wanted: Wanted<'_>,
        digest: &Digest,
        etag: &str,
        blob: &Path,
    ) -> Result<(), HubError> {
        let (path, size) = (self.layout.partial(etag), Some(wanted.size));
        let io = HubError::io(&path);
        let bar = self.reporter.bytes(wanted.file, wanted.size);
        let mut partial = Partial::open(&path, wanted.size).map_err(&io)?;
        // What an earlier attempt left may be wrong, as may be one of several pieces.
        let mut in_pieces = partial.len() > 0;
        loop {
            match self.transfer.fill(wanted, &mut partial, &bar) {
                Ok(pieces) => in_pieces |= pieces > 1,
                // Of no use to a later attempt.
                Err(error @ HubError::Corrupt { .. }) => {
                    partial.discard().map_err(&io)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            partial.sync().map_err(&io)?;
            let Some(Difference { expected, found }) =
                digest.difference(&path, size).map_err(&io)?
            else {
                return partial.finish(blob).map_err(HubError::io(blob));
            };
            if !in_pieces {
                partial.discard().map_err(&io)?;
                let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
                return Err(HubError::Corrupt { reference, file, expected, found });
            }
            self.reporter.warn(format!(
                "{} in pieces is not what the hub has: fetching it whole",
                wanted.file
            ));
            partial.restart().map_err(&io)?;
            in_pieces = false;
        }
    }

    fn classify(&self, error: HFError) -> HubError {
        let reference = self.reference.clone();
        let status = match &error {
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::RateLimited { context, .. }
            | HFError::Http { context } => context.status.as_u16(),
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => 404,
            _ => 0,
        };
        match (status, error) {
            (401 | 403, _) => gated(&reference.repository, &self.endpoint, status),
            (404, _) => HubError::NotFound(reference),
            (408 | 429 | 500..=599, _) => HubError::Unreachable {
                reference,
                why: format!("it answered {status}"),
                cached: String::new(),
            },
            (_, HFError::Request { source, .. }) if !source.is_redirect() => {
                HubError::Unreachable {
                    reference,
                    why: http::cause(&source),
                    cached: String::new(),
                }
            }
            (_, error) => {
                let why = match &error {
                    HFError::Request { source, .. } => http::cause(source),
                    error => error.to_string(),
                };
                let why = self.token.as_ref().map_or(why.clone(), |token| token.hidden_in(&why));
                HubError::Other { reference, why }
            }
        }
    }
}

fn gated(repository: &str, endpoint: &Url, status: u16) -> HubError {
    let page = format!("{}/{repository}", shown(endpoint).trim_end_matches('/'));
    HubError::Gated { repository: repository.to_owned(), page, status }
}
