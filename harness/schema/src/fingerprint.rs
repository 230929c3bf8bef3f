use serde::{Deserialize, Serialize};

/// A BLAKE3 hash in lower-case hex (64 characters). Two things with the same fingerprint are the
/// same thing as far as a result is concerned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl Fingerprint {
    /// The first twelve characters: enough for folder names and messages.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<blake3::Hash> for Fingerprint {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }
}

/// Hashes a value through its JSON form. Field order is the declaration order, so the result is
/// stable for a given type; a changed type needs a raised revision in the stage it describes.
pub fn fingerprint<T: Serialize>(value: &T) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    // Protocols hold finite numbers, strings, lists and string-keyed maps: their JSON cannot fail.
    if let Err(error) = serde_json::to_writer(&mut hasher, value) {
        hasher.update(error.to_string().as_bytes());
    }
    hasher.finalize().into()
}
