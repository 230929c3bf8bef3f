//! What a file must hash to. The hub names a file that LFS or Xet keeps after its SHA-256, and a
//! file that git itself keeps after its git object: the SHA-1 of `blob LEN`, a zero byte, and the
//! bytes. Data sets are published with MD5, SHA-1 or SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use tasks::data::{Algorithm, Checksum};

use crate::interrupt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256(String),
    GitBlob(String),
    Sha1(String),
    Md5(String),
}

/// What was expected and what was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, digits) = match self {
            Self::Sha256(digits) => ("sha256", digits),
            Self::GitBlob(digits) => ("git", digits),
            Self::Sha1(digits) => ("sha1", digits),
            Self::Md5(digits) => ("md5", digits),
        };
        write!(f, "{name}:{digits}")
    }
}

impl Digest {
    /// Of a file with this ETag, which the repository lists as this git object; `None` when neither
    /// says what its bytes are.
    pub fn new(etag: &str, git: Option<&str>) -> Option<Self> {
        let is_hex =
            |text: &str, len| text.len() == len && text.bytes().all(|c| c.is_ascii_hexdigit());
        if is_hex(etag, 64) {
            return Some(Self::Sha256(etag.to_ascii_lowercase()));
        }
        let git = git.unwrap_or(etag);
        is_hex(git, 40).then(|| Self::GitBlob(git.to_ascii_lowercase()))
    }

    /// A published one.
    pub fn published(checksum: &Checksum) -> Self {
        let digits = checksum.digits.clone();
        match checksum.algorithm {
            Algorithm::Md5 => Self::Md5(digits),
            Algorithm::Sha1 => Self::Sha1(digits),
            Algorithm::Sha256 => Self::Sha256(digits),
        }
    }

    /// The SHA-256 of a file. Ctrl-C is an error of kind `Interrupted`.
    pub fn sha256(path: &Path) -> io::Result<String> {
        hash(Sha256::new(), &mut File::open(path)?)
    }

    /// How a file differs from what it must be. Ctrl-C is an error of kind `Interrupted`.
    pub fn difference(&self, path: &Path, size: Option<u64>) -> io::Result<Option<Difference>> {
        let mut file = File::open(path)?;
        let found = file.metadata()?.len();
        if let Some(size) = size.filter(|size| *size != found) {
            let (expected, found) = (format!("{size} bytes"), format!("{found} bytes"));
            return Ok(Some(Difference { expected, found }));
        }
        let (kind, expected, found) = match self {
            Self::Sha256(expected) => ("SHA-256", expected, hash(Sha256::new(), &mut file)?),
            Self::GitBlob(expected) => {
                let header = Sha1::new().chain_update(format!("blob {found}\0"));
                ("git object", expected, hash(header, &mut file)?)
            }
            Self::Sha1(expected) => ("SHA-1", expected, hash(Sha1::new(), &mut file)?),
            Self::Md5(expected) => ("MD5", expected, hash(Md5::new(), &mut file)?),
        };
        let expected_text = format!("{kind} {expected}");
        Ok((*expected != found).then_some(Difference { expected: expected_text, found }))
    }
}

fn hash(mut hasher: impl sha2::Digest, file: &mut File) -> io::Result<String> {
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        if interrupt::requested() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_say_what_a_file_must_be() {
        let (long, short, other) = ("A1".repeat(32), "b2".repeat(20), "c3".repeat(20));
        let sha256 = Some(Digest::Sha256(long.to_ascii_lowercase()));
        assert_eq!(Digest::new(&long, None), sha256);
        assert_eq!(Digest::new(&long, Some(&short)), sha256);
        assert_eq!(Digest::new(&short, None), Some(Digest::GitBlob(short.clone())));
        assert_eq!(Digest::new("d41d8cd9", Some(&other)), Some(Digest::GitBlob(other)));
        assert_eq!(Digest::new("d41d8cd9-12", None), None);
    }

    #[test]
    fn files_are_held_against_published_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object` and `sha256sum` of "hello\n".
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for hash in [git, sha256] {
            let digest = Digest::new(hash, None).unwrap();
            assert_eq!(digest.difference(&path, Some(6)).unwrap(), None);
            assert_eq!(digest.difference(&path, None).unwrap(), None);
            let sizes = digest.difference(&path, Some(7)).unwrap().unwrap();
            assert_eq!((sizes.expected.as_str(), sizes.found.as_str()), ("7 bytes", "6 bytes"));
        }
        // `md5sum` and `sha1sum`.
        for text in [
            "md5:b1946ac92492d2347c6235b4d2611184",
            "sha1:f572d396fae9206628714fb2ce00f72e94f2258f",
            "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let digest = Digest::published(&Checksum::try_from(text.to_owned()).unwrap());
            assert_eq!(digest.difference(&path, None).unwrap(), None, "{text}");
        }
        assert_eq!(Digest::sha256(&path).unwrap(), sha256);
        let other = Digest::new(&git.replace('c', "d"), None).unwrap();
        assert_eq!(other.difference(&path, Some(6)).unwrap().unwrap().found, git);
    }
}
