//! Page-locked staging for a GPU.
//!
//! What goes up is copied into one of a few page-locked buffers, from there on a stream of its own into a
//! buffer of the GPU, and from there, by the computing stream once the copy is done, into the tensor's
//! own memory: so copies run beside what computes, and every tensor is allocated, used and freed on one
//! stream. Streams of cudarc are not made here: its context would begin to guard every allocation with
//! events.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr,
    DriverError, PinnedHostSlice, result, sys,
};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice, WrapErr};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage,
    Tensor, WithDType,
};

/// Staging buffers: one is filled while others are copied.
const BUFFERS: usize = 3;
/// Page-locked buffers for what comes back that are kept for the next.
const KEPT: usize = 128;
/// Smallest buffer, bytes.
const LEAST: usize = 1 << 16;

type Driver<T> = std::result::Result<T, DriverError>;

/// What can be staged: plain numbers.
pub(crate) trait Staged: WithDType + DeviceRepr + CudaDType {}
impl<T: WithDType + DeviceRepr + CudaDType> Staged for T {}

/// The staging of one GPU.
pub(super) struct Staging {
    device: CudaDevice,
    compute: Arc<CudaStream>,
    /// Of this GPU, for operations that take one.
    anchor: Tensor,
    ring: Mutex<Ring>,
    back: Arc<Mutex<Vec<PinnedHostSlice<u8>>>>,
}

struct Ring {
    context: Arc<CudaContext>,
    copies: sys::CUstream,
    /// `copies`, borrowed.
    stream: Arc<CudaStream>,
    buffers: Vec<Buffer>,
    next: usize,
}

// SAFETY: a stream's handle may be used from any thread; the ring is behind a lock.
unsafe impl Send for Ring {}

struct Buffer {
    host: Option<PinnedHostSlice<u8>>,
    /// On the GPU, as long as `host`; 0 before there is one.
    there: sys::CUdeviceptr,
    /// The newest copy into `there`.
    copied: CudaEvent,
    /// The newest copy out of it.
    used: CudaEvent,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Staging {
    pub(super) fn new(device: &CudaDevice) -> Result<Self> {
        let compute = device.cuda_stream();
        let ring = Ring::new(compute.context()).w()?;
        // Slower without, but not wrong.
        let _ = keep_memory(compute.context());
        let anchor = Tensor::zeros(1, DType::U8, &Device::Cuda(device.clone()))?;
        let back = Arc::default();
        Ok(Self { device: device.clone(), compute, anchor, ring: Mutex::new(ring), back })
    }

    /// Parts one after another as one tensor.
    pub(super) fn upload<T: Staged>(&self, parts: &[&[T]], shape: &Shape) -> Result<Tensor> {
        let count: usize = parts.iter().map(|part| part.len()).sum();
        if count != shape.elem_count() {
            candle_core::bail!("{count} values do not fill a tensor of shape {shape:?}");
        }
        if count == 0 {
            return Tensor::zeros(shape, T::DTYPE, &Device::Cuda(self.device.clone()));
        }
        let bytes: Vec<&[u8]> = parts
            .iter()
            .map(|part| {
                // SAFETY: plain numbers are as many initialised bytes.
                unsafe { std::slice::from_raw_parts(part.as_ptr().cast(), size_of_val(*part)) }
            })
            .collect();
        // SAFETY: the copy below writes all of it on the stream that it is used on.
        let mut slice: CudaSlice<T> = unsafe { self.device.alloc(count) }?;
        locked(&self.ring).copy(&bytes, &mut slice, &self.compute).w()?;
        let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
        let made = Made { storage: Mutex::new(Some(storage)), shape: shape.clone() };
        self.anchor.apply_op1_no_bwd(&made)
    }

    /// A tensor of the CPU.
    pub(super) fn tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        let tensor = tensor.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cpu(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets())
        else {
            return tensor.to_device(&Device::Cuda(self.device.clone()));
        };
        let shape = layout.shape();
        match storage {
            CpuStorage::U8(values) => self.upload(&[&values[from..to]], shape),
            CpuStorage::U32(values) => self.upload(&[&values[from..to]], shape),
            CpuStorage::BF16(values) => self.upload(&[&values[from..to]], shape),
            CpuStorage::F16(values) => self.upload(&[&values[from..to]], shape),
            CpuStorage::F32(values) => self.upload(&[&values[from..to]], shape),
            _ => tensor.to_device(&Device::Cuda(self.device.clone())),
        }
    }

    /// Starts to copy a tensor of this GPU to the host.
    pub(super) fn read(&self, tensor: &Tensor) -> Result<Reading> {
        let tensor = tensor.contiguous()?;
        let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
        let kept = {
            let mut back = locked(&self.back);
            let fits = (0..back.len()).filter(|&place| back[place].len() >= bytes);
            let fits = fits.min_by_key(|&place| back[place].len());
            fits.map(|place| back.swap_remove(place))
        };
        let context = self.compute.context();
        let mut host = match kept {
            Some(host) => host,
            // SAFETY: it is read no further than what is copied into it.
            None => unsafe { context.alloc_pinned_with_flags(room(bytes), 0) }.w()?,
        };
        let event = context.new_event(Some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC)).w()?;
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("a tensor of {:?}, expected the GPU", tensor.device().location());
        };
        let from = pointer(storage, layout, &self.compute)?;
        if bytes > 0 {
            let host = host.as_mut_ptr().w()?;
            // SAFETY: the buffer holds that many bytes, and is neither read nor given away before
            // the event; the tensor's memory is freed on this stream, after the copy.
            unsafe {
                let host = std::slice::from_raw_parts_mut(host, bytes);
                result::memcpy_dtoh_async(host, from, self.compute.cu_stream()).w()?;
            }
        }
        event.record(&self.compute).w()?;
        Ok(Reading {
            host: Some(host),
            event,
            dtype: tensor.dtype(),
            shape: tensor.shape().clone(),
            bytes,
            back: Arc::clone(&self.back),
        })
    }

    /// Gives memory that is kept for allocations to come back to the system.
    pub(super) fn release(&self) -> Result<()> {
        self.compute.synchronize().w()?;
        // SAFETY: the context's device is there.
        unsafe {
            let pool =
                result::device::get_default_mem_pool(self.compute.context().cu_device()).w()?;
            result::mem_pool::trim_to(pool, 0).w()
        }
    }

    /// A point in the computing stream, with its time.
    pub(super) fn mark(&self) -> Result<CudaEvent> {
        self.compute.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).w()
    }
}

/// The address of a contiguous tensor's first value.
fn pointer(
    storage: &CudaStorage,
    layout: &Layout,
    stream: &CudaStream,
) -> Result<sys::CUdeviceptr> {
    let start = layout.start_offset() * storage.dtype().size_in_bytes();
    let first = match &storage.slice {
        CudaStorageSlice::U8(values) => values.device_ptr(stream).0,
        CudaStorageSlice::U32(values) => values.device_ptr(stream).0,
        CudaStorageSlice::I64(values) => values.device_ptr(stream).0,
        CudaStorageSlice::BF16(values) => values.device_ptr(stream).0,
        CudaStorageSlice::F16(values) => values.device_ptr(stream).0,
        CudaStorageSlice::F32(values) => values.device_ptr(stream).0,
        CudaStorageSlice::F64(values) => values.device_ptr(stream).0,
        _ => candle_core::bail!("a tensor of {:?} is not read back", storage.dtype()),
    };
    Ok(first + start as sys::CUdeviceptr)
}

/// A buffer's size for so many bytes: few sizes, so that buffers serve again.
fn room(bytes: usize) -> usize {
    bytes.max(LEAST).next_power_of_two()
}

/// Has the GPU's allocator keep what is freed for what is allocated next: by default it gives everything
/// back to the system whenever the host waits.
fn keep_memory(context: &CudaContext) -> Driver<()> {
    context.bind_to_thread()?;
    let mut all = u64::MAX;
    // SAFETY: the context's device is there, and the attribute is a 64-bit number.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, threshold, (&raw mut all).cast::<c_void>())
    }
}

impl Ring {
    fn new(context: &Arc<CudaContext>) -> Driver<Self> {
        context.bind_to_thread()?;
        let copies = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        // SAFETY: the stream is this context's and lives as long as the ring, which owns what borrows it.
        let stream = unsafe { context.wrap_borrowed_stream(copies) };
        let mut ring =
            Self { context: Arc::clone(context), copies, stream, buffers: Vec::new(), next: 0 };
        for _ in 0..BUFFERS {
            let event = |flags| context.new_event(Some(flags));
            ring.buffers.push(Buffer {
                host: None,
                there: 0,
                copied: event(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC)?,
                used: event(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
            });
        }
        Ok(ring)
    }

    /// Copies parts into `to`, in the order of `compute`.
    fn copy<T>(
        &mut self,
        parts: &[&[u8]],
        to: &mut CudaSlice<T>,
        compute: &Arc<CudaStream>,
    ) -> Driver<()> {
        self.context.bind_to_thread()?;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let buffer = &mut self.buffers[self.next];
        self.next = (self.next + 1) % BUFFERS;
        // The host's side is free once it is copied.
        buffer.copied.synchronize()?;
        buffer.reserve(&self.context, bytes)?;
        let Some(host) = &mut buffer.host else { return Ok(()) };
        let host = host.as_mut_ptr()?;
        // SAFETY: the buffer holds that many bytes, and no copy from it is under way.
        let host = unsafe { std::slice::from_raw_parts_mut(host, bytes) };
        let mut rest = &mut *host;
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        // The GPU's side is free once the computing stream has copied it.
        self.stream.wait(&buffer.used)?;
        // SAFETY: both sides hold that many bytes; the host's is not touched before `copied`.
        unsafe { result::memcpy_htod_async(buffer.there, host, self.copies)? };
        buffer.copied.record(&self.stream)?;
        compute.wait(&buffer.copied)?;
        let (to, _guard) = to.device_ptr_mut(compute);
        // SAFETY: `to` holds that many bytes, allocated on the stream of this copy.
        unsafe { result::memcpy_dtod_async(to, buffer.there, bytes, compute.cu_stream())? };
        buffer.used.record(compute)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Errors have nowhere to go: a GPU that is lost frees everything with its context.
        let _ = self.context.bind_to_thread();
        for buffer in &mut self.buffers {
            let _ = buffer.free();
        }
        // SAFETY: nothing is enqueued there any more, and what borrows it goes with the ring.
        let _ = unsafe { result::stream::destroy(self.copies) };
    }
}

impl Buffer {
    /// Has both sides hold so many bytes.
    fn reserve(&mut self, context: &Arc<CudaContext>, bytes: usize) -> Driver<()> {
        if self.host.as_ref().is_some_and(|host| host.len() >= bytes) {
            return Ok(());
        }
        self.free()?;
        let room = room(bytes);
        // SAFETY: the host's side is written before it is copied, and both before they are read. The
        // host only writes there, in order, which write-combined memory is for.
        unsafe {
            let host = context.alloc_pinned::<u8>(room)?;
            self.there = result::malloc_sync(room)?;
            self.host = Some(host);
        }
        Ok(())
    }

    fn free(&mut self) -> Driver<()> {
        self.copied.synchronize()?;
        self.used.synchronize()?;
        self.host = None;
        let there = std::mem::take(&mut self.there);
        if there == 0 {
            return Ok(());
        }
        // SAFETY: it was allocated here, and no copy to or from it is under way.
        unsafe { result::free_sync(there) }
    }
}

/// A tensor on its way back.
pub(super) struct Reading {
    host: Option<PinnedHostSlice<u8>>,
    /// The copy.
    event: CudaEvent,
    dtype: DType,
    shape: Shape,
    bytes: usize,
    back: Arc<Mutex<Vec<PinnedHostSlice<u8>>>>,
}

impl Reading {
    pub(super) fn wait(self) -> Result<Tensor> {
        self.event.synchronize().w()?;
        let Some(host) = &self.host else { candle_core::bail!("a reading without its buffer") };
        let host = host.as_ptr().w()?;
        // SAFETY: so many bytes were copied there, and the copy is done.
        let bytes = unsafe { std::slice::from_raw_parts(host, self.bytes) };
        Tensor::from_raw_buffer(bytes, self.dtype, self.shape.dims(), &Device::Cpu)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Nothing is copied into a buffer that another reading has.
        let done = self.event.synchronize().is_ok();
        let mut back = locked(&self.back);
        if let Some(host) = self.host.take().filter(|_| done && back.len() < KEPT) {
            back.push(host);
        }
    }
}

/// Makes a tensor of memory that is there: candle has no other way from outside.
struct Made {
    storage: Mutex<Option<CudaStorage>>,
    shape: Shape,
}

impl CustomOp1 for Made {
    fn name(&self) -> &'static str {
        "uploaded"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("an upload to the CPU")
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match locked(&self.storage).take() {
            Some(storage) => Ok((storage, self.shape.clone())),
            None => candle_core::bail!("an upload is one tensor"),
        }
    }
}
