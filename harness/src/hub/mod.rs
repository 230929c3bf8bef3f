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
mod data_set;
mod error;
mod layout;
mod listing;
pub(crate) mod lock;
mod token;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use self::data_set::DataSet;
pub use self::error::HubError;

use self::layout::Layout;
pub(crate) use self::listing::Listed;
use self::listing::Listing;
use self::transfer::Wanted;
use crate::download::{Digest, Partial};
use crate::progress::Reporter;
use crate::weights::shard_names;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What older repositories have alone.
const PICKLED: &str = "pytorch_model.bin";

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
    listing: Listing<'a>,
    reference: &'a HubRef,
    /// Whether config.json must be there.
    with_config: bool,
    layout: Layout,
    reporter: &'a Reporter,
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
        let listing = Listing::of_model(reference, reporter)?;
        let layout = Layout::new(&hf_hub::resolve_cache_dir(), &reference.repository);
        Ok(Self { listing, reference, with_config, layout, reporter })
    }

    fn online(&self) -> Result<Snapshot, HubError> {
        let commit = self.listing.commit()?;
        let listed = self.listing.files(&commit)?;
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
        let (etag, digest) = self.listing.digest(wanted, git.as_deref())?;
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
        let partial = self.layout.partial(&etag);
        let partial = Partial::open(&partial, *size).map_err(HubError::io(&partial))?;
        self.listing.fetch(wanted, &digest, partial, &blob)?;
        link().map_err(HubError::io(&pointer))
    }

    fn is_whole(&self, path: &Path, size: u64, digest: &Digest) -> Result<bool, HubError> {
        if !path.exists() {
            return Ok(false);
        }
        let difference = digest.difference(path, Some(size)).map_err(HubError::io(path))?;
        Ok(difference.is_none())
    }
}
