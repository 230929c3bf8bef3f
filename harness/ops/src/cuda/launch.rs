//! From tensors to the memory of a GPU, and to kernels that run there.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::sys::{CUdeviceptr, CUfunction_attribute_enum};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr,
    SyncOnDrop, result,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{
    CudaDevice, CudaStorage, DType, Layout, Result, Storage, StorageRef, Tensor, bail,
};
use half::{bf16, f16};

/// The binaries that the build made: the name of a file of `kernels/` without its extension, and its code.
static BINARIES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Shared memory that a kernel may have without asking for it.
const PLAIN_SHARED: usize = 48 << 10;

/// What an argument of a kernel can be: plain data and addresses on the device.
pub(crate) trait Argument {
    /// The address of the argument's value.
    fn address(&self) -> *mut c_void;
}

impl<T: Copy> Argument for T {
    fn address(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// The blocks of a launch, their threads, and the bytes of dynamic shared memory of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub blocks: [usize; 3],
    pub threads: usize,
    pub shared: usize,
}

impl Grid {
    /// `blocks` in a row without dynamic shared memory.
    pub(crate) fn row(blocks: usize, threads: usize) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// Runs `kernel` of `kernels/{file}.cu` on the device's stream; a grid without a block does nothing.
///
/// # Errors
/// If the device refuses, or the build has no such kernel.
///
/// # Safety
/// The arguments must be those that the kernel takes, in order, and their addresses valid for what it reads
/// and writes.
pub(crate) unsafe fn launch(
    device: &CudaDevice,
    file: &'static str,
    kernel: &str,
    grid: Grid,
    arguments: &[&dyn Argument],
) -> Result<()> {
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    let failed = |error: candle_core::Error| error.context(format!("kernel {kernel}: {grid:?}"));
    let narrow = |n: usize| u32::try_from(n).map_err(|e| failed(candle_core::Error::wrap(e)));
    let [x, y, z] = grid.blocks;
    let blocks = (narrow(x)?, narrow(y)?, narrow(z)?);
    let (threads, shared) = (narrow(grid.threads)?, narrow(grid.shared)?);
    let function = function(device, file, kernel, grid.shared).map_err(failed)?;
    let stream = device.cuda_stream();
    let mut addresses: Vec<*mut c_void> =
        arguments.iter().map(|a| <dyn Argument>::address(*a)).collect();
    stream.context().bind_to_thread().w()?;
    // SAFETY: the function belongs to the stream's context; the caller vouches for the arguments.
    unsafe {
        result::launch_kernel(
            function.cu_function(),
            blocks,
            (threads, 1, 1),
            shared,
            stream.cu_stream(),
            &mut addresses,
        )
    }
    .w()
    .map_err(failed)
}

/// What has been loaded into one context. A module keeps its context, whose address is thus not used again.
#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    /// With the dynamic shared memory that each was allowed.
    functions: HashMap<(&'static str, String), (CudaFunction, usize)>,
}

fn function(
    device: &CudaDevice,
    file: &'static str,
    kernel: &str,
    shared: usize,
) -> Result<CudaFunction> {
    static CONTEXTS: Mutex<Option<HashMap<usize, Loaded>>> = Mutex::new(None);
    let stream = device.cuda_stream();
    let context = stream.context();
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let Loaded { modules, functions } =
        contexts.get_or_insert_default().entry(context.cu_ctx() as usize).or_default();
    let key = (file, kernel.to_owned());
    let (function, allowed) = match functions.entry(key) {
        std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
        std::collections::hash_map::Entry::Vacant(place) => {
            let module = match modules.get(file) {
                Some(module) => module,
                None => {
                    let Some((_, binary)) = BINARIES.iter().find(|(name, _)| *name == file) else {
                        bail!("this build has no kernels {file}");
                    };
                    let module = context.load_module(Ptx::from_binary(binary.to_vec())).w()?;
                    modules.entry(file).or_insert(module)
                }
            };
            place.insert((module.load_function(kernel).w()?, PLAIN_SHARED))
        }
    };
    if shared > *allowed {
        context.bind_to_thread().w()?;
        function
            .set_attribute(
                CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                i32::try_from(shared).map_err(candle_core::Error::wrap)?,
            )
            .w()?;
        *allowed = shared;
    }
    Ok(function.clone())
}

/// The device of a tensor on a GPU.
///
/// # Errors
/// If the tensor is elsewhere.
pub(crate) fn device(tensor: &Tensor) -> Result<CudaDevice> {
    tensor.device().as_cuda_device().cloned()
}

/// Whether kernels serve these inputs: all on one GPU, none tracking gradients.
pub(crate) fn serves(inputs: &[&Tensor]) -> bool {
    let Some(first) = inputs.first() else { return false };
    first.device().is_cuda()
        && inputs.iter().all(|t| t.device().same_device(first.device()) && !t.track_op())
}

/// A read-locked tensor on a GPU.
pub(crate) struct Input<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Input<'a> {
    /// Locks `tensor`, whatever its strides.
    pub(crate) fn lock(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The address of the first element. The guard must live until what reads it has been launched.
    ///
    /// # Errors
    /// If the tensor is not on a GPU, or of a dtype that kernels do not read.
    pub(crate) fn pointer<'b>(
        &'b self,
        stream: &'b CudaStream,
    ) -> Result<(CUdeviceptr, SyncOnDrop<'b>)> {
        let Storage::Cuda(storage) = &*self.storage else { bail!("expected a tensor on a GPU") };
        address(storage, self.layout, stream)
    }
}

/// The address of the first element of an argument of a custom operation. The guard must live until what reads
/// it has been launched.
///
/// # Errors
/// If the argument is of a dtype that kernels do not read.
pub(crate) fn address<'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
    stream: &'a CudaStream,
) -> Result<(CUdeviceptr, SyncOnDrop<'a>)> {
    let (base, guard) = match &storage.slice {
        CudaStorageSlice::F32(s) => s.device_ptr(stream),
        CudaStorageSlice::BF16(s) => s.device_ptr(stream),
        CudaStorageSlice::F16(s) => s.device_ptr(stream),
        CudaStorageSlice::U8(s) => s.device_ptr(stream),
        CudaStorageSlice::U32(s) => s.device_ptr(stream),
        CudaStorageSlice::I64(s) => s.device_ptr(stream),
        _ => bail!("expected a dtype that kernels read, found {:?}", storage.dtype()),
    };
    let offset = layout.start_offset() * storage.dtype().size_in_bytes();
    Ok((base + offset as CUdeviceptr, guard))
}

/// Memory that a kernel is about to fill.
pub(crate) struct Output {
    slice: CudaStorageSlice,
    device: CudaDevice,
}

impl Output {
    /// Unset memory for `count` elements.
    ///
    /// # Errors
    /// If there is not enough, or the dtype is none that kernels write.
    ///
    /// # Safety
    /// Every element must be written before it is read.
    pub(crate) unsafe fn new(device: &CudaDevice, dtype: DType, count: usize) -> Result<Self> {
        /// # Safety
        /// As for [`Output::new`].
        unsafe fn memory<T: DeviceRepr + CudaDType>(
            device: &CudaDevice,
            count: usize,
        ) -> Result<CudaSlice<T>> {
            // An empty allocation is refused.
            // SAFETY: the caller's.
            unsafe { device.alloc::<T>(count.max(1)) }
        }
        // SAFETY: the caller's.
        let slice = unsafe {
            match dtype {
                DType::F32 => CudaStorageSlice::F32(memory(device, count)?),
                DType::BF16 => CudaStorageSlice::BF16(memory::<bf16>(device, count)?),
                DType::F16 => CudaStorageSlice::F16(memory::<f16>(device, count)?),
                DType::U8 => CudaStorageSlice::U8(memory(device, count)?),
                DType::U32 => CudaStorageSlice::U32(memory(device, count)?),
                DType::I64 => CudaStorageSlice::I64(memory(device, count)?),
                other => bail!("expected a dtype that kernels write, found {other:?}"),
            }
        };
        Ok(Self { slice, device: device.clone() })
    }

    /// The address of the first element. The guard must live until what writes it has been launched.
    pub(crate) fn pointer<'b>(
        &'b mut self,
        stream: &'b CudaStream,
    ) -> Result<(CUdeviceptr, SyncOnDrop<'b>)> {
        Ok(match &mut self.slice {
            CudaStorageSlice::F32(s) => s.device_ptr_mut(stream),
            CudaStorageSlice::BF16(s) => s.device_ptr_mut(stream),
            CudaStorageSlice::F16(s) => s.device_ptr_mut(stream),
            CudaStorageSlice::U8(s) => s.device_ptr_mut(stream),
            CudaStorageSlice::U32(s) => s.device_ptr_mut(stream),
            CudaStorageSlice::I64(s) => s.device_ptr_mut(stream),
            _ => bail!("expected a dtype that kernels write"),
        })
    }

    /// The result of a custom operation.
    pub(crate) fn storage(self) -> CudaStorage {
        CudaStorage { slice: self.slice, device: self.device }
    }

    /// The tensor of this shape, with no graph.
    pub(crate) fn tensor(self, shape: &[usize]) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage()), shape, BackpropOp::none(), false)
    }
}
