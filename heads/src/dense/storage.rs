use candle_core::{CpuStorage, Layout, Result, backend::BackendStorage, bail};

/// The elements of a contiguous f32 tensor on the CPU.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        (other, _) => bail!("expected contiguous f32, found {:?} {layout:?}", other.dtype()),
    }
}

/// As [`values`], to write.
pub(super) fn values_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&mut data[start..end]),
        (other, _) => bail!("expected contiguous f32, found {:?} {layout:?}", other.dtype()),
    }
}
