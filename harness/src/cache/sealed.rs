//! Files that know whether they are whole: safetensors with the hash of their content.
//!
//! The hash, in the file's own metadata, is over what a reader gets: the set it belongs to and each
//! tensor's name, type, shape and bytes. A change of the file either changes one of these, and is
//! noticed, or changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use results::write_whole;
use safetensors::SafeTensors;
use schema::Fingerprint;

use super::{CacheError, fault};

const SET: &str = "set";
const HASH: &str = "blake3";

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// The bytes of a file.
///
/// # Errors
/// What candle or safetensors says of a tensor.
pub fn encode(set: &Fingerprint, tensors: &Tensors) -> Result<Vec<u8>, String> {
    let cpu = |(name, tensor): (&String, &Tensor)| {
        Ok((name.clone(), tensor.to_device(&Device::Cpu)?.contiguous()?))
    };
    let named: candle_core::Result<Vec<_>> = tensors.iter().map(cpu).collect();
    let named = named.map_err(|error| error.to_string())?;
    // Once for the hash, which is over the content as it is read back.
    let plain = safetensors::serialize(named.clone(), None).map_err(|error| error.to_string())?;
    let content = SafeTensors::deserialize(&plain).map_err(|error| error.to_string())?;
    let metadata = HashMap::from([
        (SET.to_owned(), set.to_string()),
        (HASH.to_owned(), hash(set, &content).to_hex().to_string()),
    ]);
    safetensors::serialize(named, Some(metadata)).map_err(|error| error.to_string())
}

/// The tensors of a file, on the CPU.
///
/// # Errors
/// In words, why it is not a whole file of this set.
pub fn decode(set: &Fingerprint, bytes: &[u8]) -> Result<Tensors, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let noted = |name: &str| {
        let metadata = header.metadata().as_ref();
        let value = metadata.and_then(|metadata| metadata.get(name));
        value.ok_or_else(|| format!("it has no {name}"))
    };
    if *noted(SET)? != set.to_string() {
        return Err("it is of another set".to_owned());
    }
    let content = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    if *noted(HASH)? != hash(set, &content).to_hex().as_str() {
        return Err("its hash is not the noted one".to_owned());
    }
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu);
    Ok(tensors.map_err(|error| error.to_string())?.into_iter().collect())
}

fn hash(set: &Fingerprint, content: &SafeTensors<'_>) -> blake3::Hash {
    let mut tensors = content.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = blake3::Hasher::new();
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&set.to_string());
    for (name, view) in &tensors {
        text(name);
        text(&format!("{:?} {:?}", view.dtype(), view.shape()));
    }
    for (_, view) in &tensors {
        hasher.update(view.data());
    }
    hasher.finalize()
}

/// The tensors of a file, if there is one.
pub(super) fn read(path: &Path, set: &Fingerprint) -> Result<Option<Tensors>, CacheError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(fault("read", path))?,
    };
    decode(set, &bytes).map(Some).map_err(fault("read", path))
}

/// Writes a file under a temporary name and renames it. Without `sync` a loss of power may leave a
/// file that is not whole, which its hash tells.
pub(super) fn write(path: &Path, bytes: &[u8], sync: bool) -> Result<(), CacheError> {
    if sync {
        return write_whole(path, bytes).map_err(fault("write", path));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    written().map_err(fault("write", path))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn every_flipped_byte_is_noticed_or_harmless() {
        let set: Fingerprint = blake3::hash(b"set").into();
        let tensor = |value: f32| Tensor::full(value, (2, 3), &Device::Cpu).unwrap();
        let half = tensor(0.5).to_dtype(DType::BF16).unwrap();
        let tensors = Tensors::from([("a".to_owned(), tensor(1.5)), ("b".to_owned(), half)]);
        let values = |tensors: &Tensors| -> Vec<(String, DType, Vec<usize>, Vec<f32>)> {
            let flat = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            let one = |(name, t): (&String, &Tensor)| {
                (name.clone(), t.dtype(), t.dims().to_vec(), flat(t).to_vec1().unwrap())
            };
            tensors.iter().map(one).collect()
        };
        let bytes = encode(&set, &tensors).unwrap();
        let whole = values(&decode(&set, &bytes).unwrap());
        assert_eq!(whole, values(&tensors));
        let mut harmless = 0;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(found) = decode(&set, &flipped) {
                    assert_eq!(values(&found), whole, "byte {at}, bit {bit}");
                    harmless += 1;
                }
            }
        }
        println!("{harmless} of {} flips change nothing", 8 * bytes.len());
        assert!(harmless < bytes.len());
        for len in 0..bytes.len() {
            assert!(decode(&set, &bytes[..len]).is_err(), "cut at {len}");
        }
        let other: Fingerprint = blake3::hash(b"other").into();
        assert_eq!(decode(&other, &bytes).unwrap_err(), "it is of another set");
    }
}
