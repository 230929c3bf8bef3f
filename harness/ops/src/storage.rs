//! From tensors to slices and back.

use std::mem::MaybeUninit;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, StorageRef, Tensor, bail};

/// Whether the fused CPU path serves these inputs: all on the CPU, none tracking gradients.
pub(crate) fn fusable(inputs: &[&Tensor]) -> bool {
    inputs.iter().all(|t| t.device().is_cpu() && !t.track_op())
}

/// A read-locked f32 tensor on the CPU.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Values<'a> {
    /// Locks `tensor`, whatever its strides.
    pub(crate) fn lock(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The elements from the tensor's first one to the end of its storage.
    ///
    /// # Errors
    /// If the tensor is not f32 on the CPU.
    pub(crate) fn to_end(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => Ok(&data[self.layout.start_offset()..]),
            other => bail!("expected f32 on the CPU, found {:?} elsewhere", other.dtype()),
        }
    }

    /// The elements of a contiguous tensor in row-major order.
    ///
    /// # Errors
    /// If the tensor is not contiguous, or not f32 on the CPU.
    pub(crate) fn slice(&self) -> Result<&[f32]> {
        if !self.layout.is_contiguous() {
            bail!("expected a contiguous tensor, found strides {:?}", self.layout.stride());
        }
        Ok(&self.to_end()?[..self.layout.shape().elem_count()])
    }
}

/// The elements of an argument of a custom operation in row-major order.
///
/// # Errors
/// If the argument is not contiguous, or not f32.
pub(crate) fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        (other, _) => bail!("expected contiguous f32, found {:?}, {layout:?}", other.dtype()),
    }
}

/// `tensor` as contiguous f32; no copy if it is that already.
pub(crate) fn contiguous_f32(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(DType::F32)?.contiguous()
}

/// A CPU tensor of `shape` around `data`, without a copy.
pub(crate) fn tensor(data: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// A vector of `len` elements that `fill` writes without their being zeroed first.
///
/// # Safety
/// `fill` must initialise every element.
pub(crate) unsafe fn filled(len: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut data = Vec::with_capacity(len);
    fill(&mut data.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the caller vouches that `fill` initialised it.
    unsafe { data.set_len(len) };
    data
}

/// A buffer of which several tasks write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: the pointer is only dereferenced in unsafe code, whose authors keep the parts disjoint.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Shares `buffer`, which must outlive every use of the pointers taken from the result.
    pub(crate) fn new(buffer: &mut [MaybeUninit<f32>]) -> Self {
        Self(buffer.as_mut_ptr().cast())
    }

    /// The address of element `index`.
    pub(crate) fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}
