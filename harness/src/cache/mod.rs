//! What is kept between runs because it was expensive to make.
//!
//! ```text
//! CACHE/features-v2/KEY/   features of a split for k-NN, in shards: see `bank`
//! CACHE/windows-v2/KEY/    tokens of validation windows: see `run::dense`
//!   card.json              what the key was made of; locked while a process uses the set
//! CACHE/splits-v1/         published split lists, named by their hash
//! CACHE/samples-v1/        generated sample data
//! CACHE/indexes-v1/        members of archives that are read in place: see `tasks::archive`
//! CACHE/verified-v1/       what `data verify` found, by data set and place
//! ```
//!
//! The last four are small or few, and made again where they are removed; `cache` lists and prunes the first two.
//!
//! A set's files carry the set's fingerprint and the hash of their content, so that a damaged, torn or
//! foreign file is noticed when it is read, and made again.

mod bank;
mod list;
mod sealed;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schema::{Fingerprint, fingerprint};
use serde::Serialize;

pub use bank::{Bank, BankKey};
pub use list::{Entry, Verified, list, prune, remove, sets, verify};
pub use sealed::{Tensors, decode, encode, seal};

/// Kinds of kept sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Features for k-NN.
    Features,
    /// Tokens of validation windows.
    Windows,
}

impl Kind {
    /// Name of its folder, with the version of its format.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Features => "features-v2",
            Self::Windows => "windows-v2",
        }
    }
}

const CARD: &str = "card.json";
/// Files that are being written; a kill leaves them behind.
const TEMPORARY: &str = ".writing-";
/// Files whose lock says that a process is making what they are named after.
const CLAIM: &str = ".claim-";

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cache: cannot {doing} {}: {why}", path.display())]
pub struct CacheError {
    /// What was being done.
    pub doing: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What went wrong.
    pub why: String,
}

fn fault<E: std::fmt::Display>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> CacheError {
    let path = path.to_path_buf();
    move |why| CacheError { doing, path, why: why.to_string() }
}

/// Checks that a cache folder can be written to, creating it.
pub fn check_writable(cache: &Path) -> Result<(), CacheError> {
    fs::create_dir_all(cache).map_err(fault("create", cache))?;
    tempfile::tempfile_in(cache).map(drop).map_err(fault("write to", cache))
}

/// One kept set, in use by this process.
pub struct Set {
    folder: PathBuf,
    fingerprint: Fingerprint,
    /// Held, with its lock, as long as the set is used.
    _card: File,
}

/// What stands in a set's card.
#[derive(Serialize)]
struct Card<'a, K> {
    /// For people.
    about: &'a str,
    key: &'a K,
}

/// A file that this process alone is making.
pub struct Claim {
    path: PathBuf,
    _file: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Whoever waited looks for the file itself next.
        let _ = fs::remove_file(&self.path);
    }
}

impl Set {
    /// Opens the set of a key, creating it. `about` says in a line what it is.
    ///
    /// # Errors
    /// Where the folder or its card cannot be written.
    pub fn open<K: Serialize>(
        cache: &Path,
        kind: Kind,
        key: &K,
        about: &str,
    ) -> Result<Self, CacheError> {
        let fingerprint = fingerprint(key);
        let folder = cache.join(kind.folder()).join(fingerprint.short());
        fs::create_dir_all(&folder).map_err(fault("create", &folder))?;
        let path = folder.join(CARD);
        let text = serde_json::to_vec_pretty(&Card { about, key });
        let text = text.map_err(fault("describe", &path))?;
        let card = || -> std::io::Result<File> {
            let mut card = File::options().create(true).append(true).read(true).open(&path)?;
            // Systems without locks do without: at worst the set is removed and made again.
            let _ = card.try_lock_shared();
            let mut found = Vec::new();
            card.read_to_end(&mut found)?;
            // Its words are for people; a damaged card is written anew.
            if found != text {
                card.set_len(0)?;
                card.write_all(&text)?;
            }
            card.set_modified(SystemTime::now())?;
            Ok(card)
        };
        let card = card().map_err(fault("write", &path))?;
        Ok(Self { folder, fingerprint, _card: card })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its fingerprint, which its files carry.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The tensors of a file, if it is there.
    ///
    /// # Errors
    /// A file that is not whole, or cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Tensors>, CacheError> {
        sealed::read(&self.folder.join(name), &self.fingerprint)
    }

    /// The bytes of a file of this set.
    ///
    /// # Errors
    /// If a tensor cannot be encoded.
    pub fn encode(&self, name: &str, tensors: &Tensors) -> Result<Vec<u8>, CacheError> {
        encode(&self.fingerprint, tensors).map_err(fault("encode", &self.folder.join(name)))
    }

    /// Writes a file's bytes; with `sync`, durably.
    ///
    /// # Errors
    /// What the system says; the file is then as it was.
    pub fn write(&self, name: &str, bytes: &[u8], sync: bool) -> Result<(), CacheError> {
        sealed::write(&self.folder.join(name), bytes, sync)
    }

    /// Takes the making of a file, unless another process has it.
    pub fn claim(&self, name: &str) -> Option<Claim> {
        let path = self.folder.join(format!("{CLAIM}{name}"));
        let file = File::options().create(true).append(true).open(&path).ok()?;
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => None,
            // Without locks two processes may make the same file, which is the same bytes.
            Err(fs::TryLockError::Error(_)) | Ok(()) => Some(Claim { path, _file: file }),
        }
    }
}
