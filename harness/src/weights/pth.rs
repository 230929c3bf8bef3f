use std::borrow::Cow;
use std::path::{Path, PathBuf};

use candle_core::DType;
use pickle::{Checkpoint, CheckpointError, ElementType};

use super::{Element, TensorInfo, TensorSource, WeightsError};

/// A memory-mapped PyTorch checkpoint; the state dict stands at the top or under `model`,
/// `state_dict`, `module` or `r3m`. What stands beside it is skipped.
pub(super) struct PthSource {
    path: PathBuf,
    checkpoint: Checkpoint,
}

impl PthSource {
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let path = path.to_path_buf();
        match Checkpoint::open(&path) {
            Ok(checkpoint) => Ok(Self { path, checkpoint }),
            Err(CheckpointError::Io { source, .. }) => Err(WeightsError::Io { path, source }),
            Err(source) => Err(WeightsError::Pth { path, source }),
        }
    }
}

fn element(of: ElementType) -> Element {
    use ElementType as E;
    match of {
        E::F16 => Element::Real(DType::F16),
        E::BF16 => Element::Real(DType::BF16),
        E::F32 => Element::Real(DType::F32),
        E::F64 => Element::Real(DType::F64),
        E::Bool | E::U8 | E::I8 | E::U16 | E::I16 | E::U32 | E::I32 | E::U64 | E::I64 => {
            Element::Whole(of.to_string())
        }
        E::F8E4M3 | E::F8E5M2 | E::Complex64 | E::Complex128 => Element::Other(of.to_string()),
    }
}

impl TensorSource for PthSource {
    fn names(&self) -> Vec<String> {
        self.checkpoint.names().map(str::to_owned).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.checkpoint.info(name)?;
        Some(TensorInfo { element: element(info.element), shape: info.shape.clone() })
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError> {
        let bytes = self.checkpoint.bytes(name);
        bytes.map_err(|source| WeightsError::Pth { path: self.path.clone(), source })
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
