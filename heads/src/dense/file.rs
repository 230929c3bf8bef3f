use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::LoadProblem;

/// Named tensors as the bytes of a safetensors file, the same bytes for the same tensors. Counters
/// (i64) stay what they are; everything else is written as f32.
///
/// # Errors
/// If a tensor cannot be read from its device.
pub fn encode(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, LoadProblem> {
    let written = |tensor: &Tensor| {
        let counter = tensor.dtype() == DType::I64;
        let tensor = if counter { tensor.clone() } else { tensor.to_dtype(DType::F32)? };
        tensor.to_device(&Device::Cpu)?.contiguous()
    };
    let named: Vec<(&String, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, written(tensor)?)))
        .collect::<candle_core::Result<_>>()?;
    Ok(safetensors::serialize(named, None)?)
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
