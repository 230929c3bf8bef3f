use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::DType;
use memmap2::Mmap;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::{Element, TensorInfo, TensorSource, WeightsError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

struct Shard {
    path: PathBuf,
    map: Mmap,
    data_start: usize,
    metadata: Metadata,
}

/// One or more memory-mapped safetensors files.
pub(super) struct Mapped {
    shards: Vec<Shard>,
    at: BTreeMap<String, usize>,
    root: PathBuf,
}

/// Whether a folder has weights in this form.
pub(super) fn in_folder(folder: &Path) -> bool {
    folder.join(SINGLE).exists() || folder.join(INDEX).exists()
}

impl Mapped {
    /// `model.safetensors`, else the shards that `model.safetensors.index.json` names.
    pub(super) fn open_folder(folder: &Path) -> Result<Self, WeightsError> {
        let single = folder.join(SINGLE);
        let index = folder.join(INDEX);
        if single.exists() || !index.exists() {
            return Self::open_files(vec![single], folder);
        }
        let bad = |why: String| WeightsError::Index { path: index.clone(), why };
        let text = std::fs::read_to_string(&index)
            .map_err(|source| WeightsError::Io { path: index.clone(), source })?;
        let shards = shard_names(&text).map_err(bad)?;
        let files = shards.iter().map(|name| folder.join(name)).collect();
        Self::open_files(files, folder)
    }

    pub(super) fn open_files(files: Vec<PathBuf>, root: &Path) -> Result<Self, WeightsError> {
        let mut shards = Vec::with_capacity(files.len());
        let mut at = BTreeMap::new();
        for path in files {
            let shard = open_shard(path)?;
            for name in shard.metadata.tensors().keys() {
                if at.insert(name.clone(), shards.len()).is_some() {
                    let why = format!("tensor {name} stands in two shards");
                    return Err(WeightsError::Safetensors { path: shard.path, why });
                }
            }
            shards.push(shard);
        }
        Ok(Self { shards, at, root: root.to_path_buf() })
    }
}

/// The file names a shard index lists, each once.
///
/// A name must be a plain file name: an index must not reach outside its folder.
pub(crate) fn shard_names(index: &str) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = serde_json::from_str(index).map_err(|e| e.to_string())?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if names.is_empty() {
        return Err("its weight_map is empty".to_owned());
    }
    for name in &names {
        let plain = Path::new(name).file_name().is_some_and(|f| f == name.as_str());
        if !plain || name.contains('\\') {
            return Err(format!("shard {name:?} is not a plain file name"));
        }
    }
    Ok(names.into_iter().collect())
}

fn open_shard(path: PathBuf) -> Result<Shard, WeightsError> {
    let io = |source| WeightsError::Io { path: path.clone(), source };
    let file = File::open(&path).map_err(io)?;
    // SAFETY: the map is read-only and private to this process; weights are not edited in place
    // while a run reads them (a truncation by another process would end this one with SIGBUS).
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let bad = |why: String| WeightsError::Safetensors { path: path.clone(), why };
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| bad(e.to_string()))?;
    let data_start = header + 8;
    let expected = data_start + metadata.data_len();
    if map.len() != expected {
        return Err(bad(format!("expected {expected} bytes, found {}", map.len())));
    }
    Ok(Shard { path, map, data_start, metadata })
}

fn element(of: Dtype) -> Element {
    use Dtype as D;
    match of {
        D::F16 => Element::Real(DType::F16),
        D::BF16 => Element::Real(DType::BF16),
        D::F32 => Element::Real(DType::F32),
        D::F64 => Element::Real(DType::F64),
        D::BOOL | D::U8 | D::I8 | D::U16 | D::I16 | D::U32 | D::I32 | D::U64 | D::I64 => {
            Element::Whole(of.to_string().to_lowercase())
        }
        _ => Element::Other(of.to_string().to_lowercase()),
    }
}

impl TensorSource for Mapped {
    fn names(&self) -> Vec<String> {
        self.at.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.shards[*self.at.get(name)?].metadata.info(name)?;
        Some(TensorInfo { element: element(info.dtype), shape: info.shape.clone() })
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError> {
        let found = self.at.get(name).and_then(|&i| {
            let shard = &self.shards[i];
            let info = shard.metadata.info(name)?;
            let (start, end) = info.data_offsets;
            shard.map.get(shard.data_start + start..shard.data_start + end)
        });
        found.map(Cow::Borrowed).ok_or_else(|| WeightsError::Safetensors {
            path: self.root.clone(),
            why: format!("no tensor {name}"),
        })
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}
