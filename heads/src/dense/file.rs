use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::LoadProblem;

/// Named tensors as the bytes of a safetensors file, the same bytes for the same tensors. Counters
/// (i64) stay what they are; everything else is written as f32.
///
/// # Errors
/// If a tensor cannot be read from its device.
pub fn encode(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, LoadProblem> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let flat = tensor.flatten_all()?;
        let (dtype, bytes): (_, Vec<u8>) = if tensor.dtype() == DType::I64 {
            (Dtype::I64, flat.to_vec1::<i64>()?.into_iter().flat_map(i64::to_le_bytes).collect())
        } else {
            let values = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            (Dtype::F32, values.into_iter().flat_map(f32::to_le_bytes).collect())
        };
        parts.push((name, dtype, tensor.dims().to_vec(), bytes));
    }
    let views = parts
        .iter()
        .map(|(name, dtype, dims, bytes)| Ok((name, TensorView::new(*dtype, dims.clone(), bytes)?)))
        .collect::<Result<Vec<_>, LoadProblem>>()?;
    Ok(safetensors::serialize(views, None)?)
}

/// Named tensors, on the CPU, from the bytes of a safetensors file.
///
/// # Errors
/// If the bytes are no safetensors file, or hold other types than floats and i64.
pub fn decode(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, LoadProblem> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            Dtype::I64 => DType::I64,
            other => {
                let found = format!("{other:?}");
                return Err(LoadProblem::Dtype { name: name.to_owned(), found });
            }
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}
