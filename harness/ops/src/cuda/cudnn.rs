//! Convolutions of 16-bit images by cuDNN.
//!
//! Of the ways that cuDNN's heuristics offer, the first is taken whose sums have a fixed order. Ways and
//! descriptors are kept by the sizes of a convolution; a thread has a handle of its own, as cuDNN wants it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ptr;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::{CudaDevice, DType, Result, bail};

use super::conv::Pass;
use super::images::int;
use super::launch::Output;
use crate::pixels::window::Window;

/// Bytes of memory that a way may take besides.
const WORKSPACE: usize = 1 << 30;
/// More than the ways of any pass.
const WAYS: usize = 16;

/// Whether cuDNN is asked: its matrix units take 16-bit channels by eights. Products alone are cuBLAS's.
pub(super) fn serves(window: &Window, dtype: DType) -> bool {
    let count = |shape: [usize; 4]| shape.iter().product::<usize>();
    matches!(dtype, DType::BF16 | DType::F16)
        && !window.is_product()
        && window.from[2].is_multiple_of(8)
        && window.to[2].is_multiple_of(8)
        && (1..1 << 31).contains(&count(window.input()))
        && (1..1 << 31).contains(&count(window.result()))
}

/// Computes one of image, weight and result (or their gradients) from the other two; false if cuDNN has no
/// deterministic way, or is not on this machine.
///
/// # Safety
/// The addresses must be those of tensors of the window's sizes, in that order.
pub(super) unsafe fn run(
    pass: Pass,
    window: &Window,
    device: &CudaDevice,
    dtype: DType,
    addresses: [CUdeviceptr; 3],
) -> Result<bool> {
    thread_local! {
        static HANDLES: RefCell<HashMap<usize, Option<Handle>>> = RefCell::default();
    }
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    HANDLES.with_borrow_mut(|handles| {
        let handle = match handles.entry(stream.context().cu_ctx() as usize) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                let handle = |raw| Handle { raw, plans: HashMap::default() };
                place.insert(match result::create_handle() {
                    Ok(raw) => Some(handle(raw)),
                    // The library is not there.
                    Err(result::CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_INITIALIZED)) => {
                        None
                    }
                    Err(error) => return Err(error.into()),
                })
            }
        };
        let Some(handle) = handle else { return Ok(false) };
        // SAFETY: handle and stream are alive, and of one context.
        unsafe { result::set_stream(handle.raw, stream.cu_stream() as *mut _)? };
        let plan = match handle.plans.entry((pass, *window, dtype)) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(Plan::new(handle.raw, pass, window, dtype)?),
        };
        let Some(planned) = plan else { return Ok(false) };
        // SAFETY: workspace need not be set; the caller vouches for the rest.
        let ran = unsafe {
            let mut memory = Output::new(device, DType::U8, planned.workspace)?;
            let (memory, _memory) = memory.pointer(&stream)?;
            planned.run(handle.raw, addresses, memory)
        };
        match ran {
            Ok(()) => Ok(true),
            Err(result::CudnnError(status)) if not_begun(status as u32) => {
                *plan = None;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Whether a status says that nothing was begun: a parameter that is refused, something not supported, or a part of
/// the library or of its compiler that is not there.
fn not_begun(status: u32) -> bool {
    const SUBLIBRARY_LOADING_FAILED: u32 = 1008;
    const EXECUTION_FAILED_CUDA_COMPILER: u32 = 4001;
    (2000..4000).contains(&status)
        || [SUBLIBRARY_LOADING_FAILED, EXECUTION_FAILED_CUDA_COMPILER].contains(&status)
}

/// One thread's access to cuDNN on one GPU. It ends with the process: cuDNN may be gone when a thread's locals are.
struct Handle {
    raw: sys::cudnnHandle_t,
    plans: HashMap<(Pass, Window, DType), Option<Plan>>,
}

/// How a convolution is computed. Descriptors are kept as long as their handle.
struct Plan {
    x: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    way: Way,
    workspace: usize,
}

#[derive(Clone, Copy)]
enum Way {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    OfInput(sys::cudnnConvolutionBwdDataAlgo_t),
    OfWeight(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// The deterministic ones of the ways found, best first, with their kind of arithmetic.
macro_rules! ways {
    ($find:path, $kind:path, $handle:expr, $($descriptor:expr),+) => {{
        // SAFETY: numbers and enumerations with a value 0; cuDNN sets as many as it says.
        let mut found = [unsafe { std::mem::zeroed() }; WAYS];
        let mut count = 0;
        // SAFETY: handle and descriptors are alive, and there is room for as many ways.
        unsafe {
            $find($handle, $($descriptor),+, WAYS as i32, &raw mut count, found.as_mut_ptr())
        }
        .map(|()| {
            let found = found.iter().take(usize::try_from(count).unwrap_or(0));
            let sound = found.filter(|way| {
                way.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                    && way.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
            });
            sound.map(|way| ($kind(way.algo), way.mathType)).collect::<Vec<(Way, _)>>()
        })
    }};
}

impl Plan {
    /// None if cuDNN has no deterministic way.
    fn new(
        handle: sys::cudnnHandle_t,
        pass: Pass,
        window: &Window,
        dtype: DType,
    ) -> Result<Option<Self>> {
        let data = match dtype {
            DType::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            DType::F16 => sys::cudnnDataType_t::CUDNN_DATA_HALF,
            other => bail!("expected bf16 or f16, found {other:?}"),
        };
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let size = |[batch, height, width, channels]: [usize; 4]| -> Result<[i32; 4]> {
            Ok([int(batch)?, int(channels)?, int(height)?, int(width)?])
        };
        let [lines, pixels] = window.kernel;
        let kernel = size([window.to[2], lines, pixels, window.from[2]])?;
        let (padding, stride) = (int(window.padding)?, int(window.stride)?);
        let (image, map) = (size(window.input())?, size(window.result())?);
        let mut plan = Self {
            x: result::create_tensor_descriptor()?,
            weight: result::create_filter_descriptor()?,
            y: result::create_tensor_descriptor()?,
            convolution: result::create_convolution_descriptor()?,
            way: Way::Forward(
                sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
            ),
            workspace: 0,
        };
        // SAFETY: the descriptors were made just now.
        unsafe {
            result::set_tensor4d_descriptor(plan.x, format, data, image)?;
            result::set_filter4d_descriptor(plan.weight, data, format, kernel)?;
            result::set_tensor4d_descriptor(plan.y, format, data, map)?;
            result::set_convolution2d_descriptor(
                plan.convolution,
                padding,
                padding,
                stride,
                stride,
                1,
                1,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )?;
            let matrix_units = sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH;
            result::set_convolution_math_type(plan.convolution, matrix_units)?;
        }
        let (x, w, y, conv) = (plan.x, plan.weight, plan.y, plan.convolution);
        let ways = match pass {
            Pass::Forward => {
                ways!(
                    result::get_convolution_forward_algorithm,
                    Way::Forward,
                    handle,
                    x,
                    w,
                    conv,
                    y
                )
            }
            Pass::OfInput => ways!(
                result::get_convolution_backward_data_algorithm,
                Way::OfInput,
                handle,
                w,
                y,
                conv,
                x
            ),
            Pass::OfWeight => ways!(
                result::get_convolution_backward_filter_algorithm,
                Way::OfWeight,
                handle,
                x,
                y,
                conv,
                w
            ),
        };
        let Ok(ways) = ways else { return Ok(None) };
        for (way, arithmetic) in ways {
            // SAFETY: handle and descriptors are alive.
            let workspace = unsafe {
                result::set_convolution_math_type(conv, arithmetic)?;
                match way {
                    Way::Forward(way) => {
                        result::get_convolution_forward_workspace_size(handle, x, w, conv, y, way)
                    }
                    Way::OfInput(way) => result::get_convolution_backward_data_workspace_size(
                        handle, w, y, conv, x, way,
                    ),
                    Way::OfWeight(way) => result::get_convolution_backward_filter_workspace_size(
                        handle, x, y, conv, w, way,
                    ),
                }
            };
            if let Ok(workspace) = workspace
                && workspace <= WORKSPACE
            {
                (plan.way, plan.workspace) = (way, workspace);
                return Ok(Some(plan));
            }
        }
        Ok(None)
    }

    /// # Safety
    /// The addresses must be those of image, weight and result of the plan's sizes, and of its workspace.
    unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        [x, weight, y]: [CUdeviceptr; 3],
        memory: CUdeviceptr,
    ) -> std::result::Result<(), result::CudnnError> {
        let (one, zero) = (1f32, 0f32);
        let (one, zero) = (ptr::from_ref(&one).cast(), ptr::from_ref(&zero).cast());
        let Self { x: of_x, weight: of_weight, y: of_y, convolution, workspace, .. } = *self;
        let (x, weight, y) = (x as *mut _, weight as *mut _, y as *mut _);
        let memory = if workspace == 0 { ptr::null_mut() } else { memory as *mut _ };
        // SAFETY: the caller's; the descriptors say what the addresses hold.
        unsafe {
            match self.way {
                Way::Forward(way) => result::convolution_forward(
                    handle,
                    one,
                    of_x,
                    x,
                    of_weight,
                    weight,
                    convolution,
                    way,
                    memory,
                    workspace,
                    zero,
                    of_y,
                    y,
                ),
                Way::OfInput(way) => result::convolution_backward_data(
                    handle,
                    one,
                    of_weight,
                    weight,
                    of_y,
                    y,
                    convolution,
                    way,
                    memory,
                    workspace,
                    zero,
                    of_x,
                    x,
                ),
                Way::OfWeight(way) => result::convolution_backward_filter(
                    handle,
                    one,
                    of_x,
                    x,
                    of_y,
                    y,
                    convolution,
                    way,
                    memory,
                    workspace,
                    zero,
                    of_weight,
                    weight,
                ),
            }
        }
    }
}
