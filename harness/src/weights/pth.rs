use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use candle_core::{DType, Tensor};

use super::{TensorInfo, TensorSource, WeightsError};

/// A PyTorch zip checkpoint through candle's reader, which interprets opcodes and runs no code.
///
/// The state dict may stand at the top or under `model` or `state_dict`; optimizer state, `args`
/// and other entries beside it are skipped.
pub(super) struct PthSource {
    path: PathBuf,
    tensors: PthTensors,
}

impl PthSource {
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        std::fs::File::open(path)
            .map_err(|source| WeightsError::Io { path: path.to_path_buf(), source })?;
        let bad = |why: String| WeightsError::Pth { path: path.to_path_buf(), why };
        // A nested state dict first: beside one, the top level may hold tensors of its own.
        let mut reason = "it holds no tensors".to_owned();
        for key in [Some("model"), Some("state_dict"), None] {
            match guarded(|| PthTensors::new(path, key)) {
                Ok(tensors) if !tensors.tensor_infos().is_empty() => {
                    return Ok(Self { path: path.to_path_buf(), tensors });
                }
                Err(why) if key.is_none() => reason = why,
                _ => {}
            }
        }
        Err(bad(reason))
    }
}

/// candle's pickle reader panics on some malformed input; here that is an error like any other.
fn guarded<T>(read: impl FnOnce() -> candle_core::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its pickle is malformed".to_owned()),
    }
}

impl TensorSource for PthSource {
    fn names(&self) -> Vec<String> {
        self.tensors.tensor_infos().keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.tensors.tensor_infos().get(name)?;
        Some(TensorInfo { dtype: info.dtype, shape: info.layout.dims().to_vec() })
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError> {
        let bad = |why: String| WeightsError::Pth {
            path: self.path.clone(),
            why: format!("tensor {name}: {why}"),
        };
        let tensor = guarded(|| self.tensors.get(name)).map_err(bad)?;
        let tensor = tensor.ok_or_else(|| bad("not there".to_owned()))?;
        little_endian(&tensor).map(Cow::Owned).map_err(|e| bad(e.to_string()))
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

fn little_endian(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match flat.dtype() {
        DType::F32 => flat.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => flat.to_vec1::<half::f16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::BF16 => flat.to_vec1::<half::bf16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        other => candle_core::bail!("type {other:?} is not a weight's"),
    })
}
