//! `x W^T + b` by cuBLASLt.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DevicePtrMut};
use candle_core::{DType, Error, Result, Tensor};

use crate::cuda::launch::{Input, Output, device};

/// Memory that an algorithm may ask for.
const MOST_WORKSPACE: usize = 32 << 20;

/// `x W^T + b` for contiguous `x` `[.., in]`, `weight` `[out, in]` and `bias` `[out]` of one dtype (f32, bf16
/// or f16) on one GPU, none of them empty: summed in f32 (never TF32), and rounded once. None if cuBLASLt has
/// no algorithm for it.
///
/// # Errors
/// If the library or the device fails, or memory runs out.
pub(crate) fn product(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Option<Output>> {
    let (out, inputs) = weight.dims2()?;
    let rows = x.elem_count() / inputs;
    let dtype = weight.dtype();
    let device = device(x)?;
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: the product writes every element.
    let mut to = unsafe { Output::new(&device, dtype, rows * out)? };
    {
        let (x, weight) = (Input::lock(x), Input::lock(weight));
        let bias = bias.map(Input::lock);
        let (x, _x) = x.pointer(&stream)?;
        let (weight, _weight) = weight.pointer(&stream)?;
        let bias = bias.as_ref().map(|b| b.pointer(&stream)).transpose()?;
        let (y, _y) = to.pointer(&stream)?;
        let shape = Shape {
            out,
            rows,
            inputs,
            dtype,
            bias: bias.is_some(),
            alignments: [weight, x, y, bias.as_ref().map_or(y, |(p, _)| *p)]
                .map(|p| 1 << p.trailing_zeros().min(8)),
        };
        let failed = |error| Error::wrap(error).context(format!("cuBLASLt: {shape:?}"));
        let call = Call::new(shape, bias.as_ref().map(|(p, _)| *p)).map_err(failed)?;
        let (handle, plan) = plan(stream.context(), shape, &call)?;
        let Some(plan) = plan else { return Ok(None) };
        let mut workspace = match plan.workspace {
            0 => None,
            // SAFETY: the library does not read what it has not written.
            bytes => Some(unsafe { device.alloc::<u8>(bytes)? }),
        };
        let workspace = workspace.as_mut().map(|w| w.device_ptr_mut(&stream));
        let pointer = workspace.as_ref().map_or(0, |(p, _)| *p);
        let (one, zero) = (1f32, 0f32);
        // SAFETY: the addresses are those of tensors of the shapes in `call`, held until the end of this block;
        // the workspace is as large as the plan says, and freed in the stream's order.
        unsafe {
            result::matmul(
                handle.0,
                call.description.0,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&zero).cast(),
                weight as *const c_void,
                call.weight.0,
                x as *const c_void,
                call.x.0,
                y as *const c_void,
                call.y.0,
                y as *mut c_void,
                call.y.0,
                &raw const plan.algorithm,
                pointer as *mut c_void,
                plan.workspace,
                stream.cu_stream().cast(),
            )
        }
        .map_err(failed)?;
    }
    Ok(Some(to))
}

/// What an algorithm is chosen by. Alignments are those of the weight, the input, the result and the
/// bias in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    out: usize,
    rows: usize,
    inputs: usize,
    dtype: DType,
    bias: bool,
    alignments: [u32; 4],
}

/// The algorithm for a shape, and the memory it needs.
#[derive(Clone, Copy)]
struct Plan {
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace: usize,
}

#[derive(Clone, Copy)]
struct Handle(sys::cublasLtHandle_t);

// SAFETY: the library's functions may be called on a handle from several threads at once.
unsafe impl Send for Handle {}

/// The library in one context, which is kept so that its address is not used again.
struct Library {
    _context: Arc<CudaContext>,
    handle: Handle,
    plans: HashMap<Shape, Option<Plan>>,
}

fn plan(context: &Arc<CudaContext>, shape: Shape, call: &Call) -> Result<(Handle, Option<Plan>)> {
    static LIBRARIES: Mutex<Option<HashMap<usize, Library>>> = Mutex::new(None);
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match libraries.get_or_insert_default().entry(context.cu_ctx() as usize) {
        std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
        std::collections::hash_map::Entry::Vacant(place) => {
            let handle = Handle(result::create_handle().map_err(Error::wrap)?);
            place.insert(Library { _context: context.clone(), handle, plans: HashMap::new() })
        }
    };
    if let Some(plan) = library.plans.get(&shape) {
        return Ok((library.handle, *plan));
    }
    let plan = match call.search(library.handle, shape) {
        Ok(found) => Some(Plan { algorithm: found.algo, workspace: found.workspaceSize }),
        Err(CublasError(
            sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED
            | sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE,
        )) => None,
        Err(error) => return Err(Error::wrap(error).context(format!("cuBLASLt: {shape:?}"))),
    };
    library.plans.insert(shape, plan);
    Ok((library.handle, plan))
}

/// A product's description. The library's matrices are column by column, so that ours, row by row, are their
/// transposes: `y^T [out, rows] = W [out, in] x^T [in, rows]`.
struct Call {
    description: Description,
    weight: Matrix,
    x: Matrix,
    y: Matrix,
}

impl Call {
    fn new(shape: Shape, bias: Option<u64>) -> std::result::Result<Self, CublasError> {
        let kind = match shape.dtype {
            DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
            DType::F16 => sys::cudaDataType::CUDA_R_16F,
            _ => sys::cudaDataType::CUDA_R_32F,
        };
        let matrix = |rows: usize, columns: usize| {
            let layout =
                result::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64);
            layout.map(Matrix)
        };
        let description = Description(result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )?);
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // cublasOperation_t's CUBLAS_OP_T.
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        if let Some(bias) = bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        Ok(Self {
            description,
            weight: matrix(shape.inputs, shape.out)?,
            x: matrix(shape.inputs, shape.rows)?,
            y: matrix(shape.out, shape.rows)?,
        })
    }

    /// The algorithm that the library expects to be fastest.
    fn search(
        &self,
        handle: Handle,
        shape: Shape,
    ) -> std::result::Result<sys::cublasLtMatmulHeuristicResult_t, CublasError> {
        let preference = Preference(result::create_matmul_pref()?);
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &MOST_WORKSPACE)?;
        // Parts of a sum are added in f32, or there are none.
        let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes)?;
        let [weight, x, y, bias] = &shape.alignments;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, weight)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y)?;
        // The bias is read like the result.
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y.min(bias))?;
        // SAFETY: the descriptions live as long as `self` and `preference`.
        unsafe {
            result::get_matmul_algo_heuristic(
                handle.0,
                self.description.0,
                self.weight.0,
                self.x.0,
                self.y.0,
                self.y.0,
                preference.0,
            )
        }
    }
}

struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> std::result::Result<(), CublasError> {
        let (from, size) = (std::ptr::from_ref(value).cast(), size_of::<T>());
        // SAFETY: the description lives, and the library copies `size` bytes of the value.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, from, size) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `Call::new`, and dropped once. A failure leaves nothing to do.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Matrix(sys::cublasLtMatrixLayout_t);

impl Drop for Matrix {
    fn drop(&mut self) {
        // SAFETY: as for `Description`.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> std::result::Result<(), CublasError> {
        let (from, size) = (std::ptr::from_ref(value).cast(), size_of::<T>());
        // SAFETY: the preference lives, and the library copies `size` bytes of the value.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, from, size) }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: as for `Description`.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
