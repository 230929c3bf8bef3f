//! From storage of the floating types to f32 and back, for the loops on the CPU.

use std::borrow::Cow;

use candle_core::{CpuStorage, DType, Layout, Result, WithDType, backend::BackendStorage, bail};

/// The elements of a contiguous argument in row-major order, in f32.
///
/// # Errors
/// If it is not contiguous, or not of a floating type.
pub(crate) fn wide<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("expected a contiguous tensor, found {layout:?}");
    };
    Ok(match storage {
        CpuStorage::F32(values) => Cow::Borrowed(&values[start..end]),
        CpuStorage::BF16(values) => values[start..end].iter().map(|v| v.to_f32()).collect(),
        CpuStorage::F16(values) => values[start..end].iter().map(|v| v.to_f32()).collect(),
        other => bail!("expected f32, bf16 or f16, found {:?}", other.dtype()),
    })
}

/// `values` rounded to `dtype`.
///
/// # Errors
/// If `dtype` is none of f32, bf16 and f16.
pub(crate) fn rounded(values: Vec<f32>, dtype: DType) -> Result<CpuStorage> {
    fn all<T: WithDType>(values: &[f32]) -> Vec<T> {
        values.iter().map(|&v| T::from_f64(f64::from(v))).collect()
    }
    Ok(match dtype {
        DType::F32 => CpuStorage::F32(values),
        DType::BF16 => CpuStorage::BF16(all(&values)),
        DType::F16 => CpuStorage::F16(all(&values)),
        other => bail!("expected f32, bf16 or f16, found {other:?}"),
    })
}
