//! Convolutions on a GPU: columns and cuBLAS, or cuDNN where the build has it and it has a deterministic way.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, bail};

use super::images::{FILE, Operand, check, int, kernel, weighted_sums};
use super::launch::{Argument, Grid, Output, address, launch};
use crate::pixels::window::Window;

/// Values of columns that are made at a time: those of a few images.
const COLUMNS: usize = 1 << 27;

/// Images whose columns are made at a time.
fn images(window: &Window) -> usize {
    let one = window.to[0] * window.to[1] * window.depth();
    (COLUMNS / one.max(1)).clamp(1, window.batch.max(1))
}

/// The convolution of `x` with a weight `[O, taps C]`.
pub(crate) fn forward(
    window: &Window,
    x: Operand<'_>,
    weight: Operand<'_>,
    bias: Option<Operand<'_>>,
) -> Result<(CudaStorage, Shape)> {
    check(&[x, weight])?;
    let (device, dtype) = (x.0.device(), x.0.dtype());
    let stream = device.cuda_stream();
    let (rows, out) = (window.rows(), window.to[2]);
    // SAFETY: the products below write every element, or cuDNN does.
    let mut y = unsafe { Output::new(device, dtype, rows * out)? };
    {
        let ((x, _x), (w, _w)) =
            (address(x.0, x.1, &stream)?, address(weight.0, weight.1, &stream)?);
        let bias = bias.map(|(s, l)| address(s, l, &stream)).transpose()?;
        let bias = bias.as_ref().map(|bias| bias.0);
        let (y, _y) = y.pointer(&stream)?;
        // SAFETY: the tensors have the elements that the window says.
        unsafe {
            if by_cudnn(Pass::Forward, window, device, dtype, [x, w, y])? {
                if let Some(bias) = bias {
                    add_bias(device, dtype, [y, bias], [rows, out], true)?;
                }
            } else {
                if let Some(bias) = bias {
                    add_bias(device, dtype, [y, bias], [rows, out], false)?;
                }
                each_columns(window, device, dtype, x, |columns, first, rows| {
                    let to = y + (first * out * dtype.size_in_bytes()) as u64;
                    let (a, b) = (Factor(columns, false), Factor(w, true));
                    let sizes = [rows, out, window.depth()];
                    product(device, sizes, [a, b], dtype, (to, dtype), bias.is_some())
                })?;
            }
        }
    }
    Ok((y.storage(), Shape::from(window.result().to_vec())))
}

/// The gradient of `x`, from that of the result and the weight.
pub(crate) fn of_input(
    window: &Window,
    gradient: Operand<'_>,
    weight: Operand<'_>,
    x: Operand<'_>,
) -> Result<(CudaStorage, Shape)> {
    check(&[gradient, weight, x])?;
    let (device, dtype) = (x.0.device(), x.0.dtype());
    let stream = device.cuda_stream();
    let (count, size) = (x.1.shape().elem_count(), dtype.size_in_bytes());
    // SAFETY: the product or the gathering below writes every element, or cuDNN does.
    let mut to = unsafe { Output::new(device, dtype, count)? };
    {
        let (dy, _dy) = address(gradient.0, gradient.1, &stream)?;
        let ((w, _w), (x, _x)) =
            (address(weight.0, weight.1, &stream)?, address(x.0, x.1, &stream)?);
        let (to, _to) = to.pointer(&stream)?;
        let (depth, out) = (window.depth(), window.to[2]);
        // SAFETY: the tensors have the elements that the window says.
        unsafe {
            if by_cudnn(Pass::OfInput, window, device, dtype, [to, w, dy])? {
                if window.rectify {
                    relu(device, dtype, [x, to], count, true)?;
                }
            } else if window.is_product() {
                let (a, b) = (Factor(dy, false), Factor(w, false));
                product(device, [window.rows(), depth, out], [a, b], dtype, (to, dtype), false)?;
                if window.rectify {
                    relu(device, dtype, [x, to], count, true)?;
                }
            } else {
                let step = images(window);
                let (pixels, image) = (window.to[0] * window.to[1], count / window.batch.max(1));
                for first in (0..window.batch).step_by(step) {
                    let some = step.min(window.batch - first);
                    let rows = some * pixels;
                    let mut columns = Output::new(device, DType::F32, rows * depth)?;
                    let (columns, _columns) = columns.pointer(&stream)?;
                    let dy = dy + (first * pixels * out * size) as u64;
                    let (a, b) = (Factor(dy, false), Factor(w, false));
                    product(
                        device,
                        [rows, depth, out],
                        [a, b],
                        dtype,
                        (columns, DType::F32),
                        false,
                    )?;
                    let at = (first * image * size) as u64;
                    gather(window, device, dtype, [columns, x + at, to + at], some)?;
                }
            }
        }
    }
    Ok((to.storage(), x.1.shape().clone()))
}

/// The gradient of the weight, `[O, taps C]`, from `x` and the result's gradient.
pub(crate) fn of_weight(
    window: &Window,
    x: Operand<'_>,
    gradient: Operand<'_>,
) -> Result<(CudaStorage, Shape)> {
    check(&[x, gradient])?;
    let (device, dtype) = (x.0.device(), x.0.dtype());
    let stream = device.cuda_stream();
    let (out, depth) = (window.to[2], window.depth());
    let shape = Shape::from((out, depth));
    if window.rows() == 0 {
        return Ok((device.zeros_impl(&shape, dtype)?, shape));
    }
    let ((x, _x), (dy, _dy)) =
        (address(x.0, x.1, &stream)?, address(gradient.0, gradient.1, &stream)?);
    if window.is_product() && out == 1 {
        let sizes = [window.rows(), depth];
        // SAFETY: the tensors have the elements that the window says.
        let sums = unsafe { weighted_sums(device, dtype, [x, dy], sizes, window.rectify)? };
        return Ok((sums.to_dtype(&Layout::contiguous(depth), dtype)?, shape));
    }
    let multiply = |columns, first: usize, rows, to, add| {
        let dy = dy + (first * out * dtype.size_in_bytes()) as u64;
        let factors = [Factor(dy, true), Factor(columns, false)];
        // SAFETY: the tensors have the elements that the window says.
        unsafe { product(device, [out, depth, rows], factors, dtype, to, add) }
    };
    // SAFETY: cuDNN or the product writes every element.
    let mut to = unsafe { Output::new(device, dtype, out * depth)? };
    let done = {
        let (to, _to) = to.pointer(&stream)?;
        // SAFETY: the tensors have the elements that the window says.
        unsafe {
            if by_cudnn(Pass::OfWeight, window, device, dtype, [x, to, dy])? {
                true
            } else if window.is_product() || images(window) >= window.batch {
                each_columns(window, device, dtype, x, |columns, first, rows| {
                    multiply(columns, first, rows, (to, dtype), false)
                })?;
                true
            } else {
                false
            }
        }
    };
    if done {
        return Ok((to.storage(), shape));
    }
    // The sum over parts of the batch, rounded once.
    drop(to);
    // SAFETY: the first product writes every element.
    let mut sums = unsafe { Output::new(device, DType::F32, out * depth)? };
    {
        let (to, _to) = sums.pointer(&stream)?;
        // SAFETY: the tensors have the elements that the window says.
        unsafe {
            each_columns(window, device, dtype, x, |columns, first, rows| {
                multiply(columns, first, rows, (to, DType::F32), first > 0)
            })?;
        }
    }
    let sums = sums.storage().to_dtype(&Layout::contiguous((out, depth)), dtype)?;
    Ok((sums, shape))
}

/// What a convolution computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    /// The result.
    Forward,
    /// The gradient of the image.
    OfInput,
    /// The gradient of the weight.
    OfWeight,
}

/// Has cuDNN compute one of image, weight and result (or their gradients) from the other two, if it serves; the
/// ReLU of the image is taken here unless it is what is computed.
///
/// # Safety
/// The addresses must be those of tensors of the window's sizes, in that order.
#[cfg(feature = "cudnn")]
unsafe fn by_cudnn(
    pass: Pass,
    window: &Window,
    device: &CudaDevice,
    dtype: DType,
    [x, weight, y]: [CUdeviceptr; 3],
) -> Result<bool> {
    let aligned = [x, weight, y].iter().all(|address| address.is_multiple_of(16));
    if !aligned || !super::cudnn::serves(window, dtype) {
        return Ok(false);
    }
    let stream = device.cuda_stream();
    let count = window.input().iter().product();
    // SAFETY: the caller's; the kernel writes all of the ReLU before cuDNN reads it.
    unsafe {
        if window.rectify && pass != Pass::OfInput {
            let mut rectified = Output::new(device, dtype, count)?;
            let (to, _to) = rectified.pointer(&stream)?;
            relu(device, dtype, [x, to], count, false)?;
            return super::cudnn::run(pass, window, device, dtype, [to, weight, y]);
        }
        super::cudnn::run(pass, window, device, dtype, [x, weight, y])
    }
}

/// Nothing is served by cuDNN in a build without it.
///
/// # Safety
/// None is needed; the other has requirements.
#[cfg(not(feature = "cudnn"))]
unsafe fn by_cudnn(
    _: Pass,
    _: &Window,
    _: &CudaDevice,
    _: DType,
    _: [CUdeviceptr; 3],
) -> Result<bool> {
    Ok(false)
}

/// Calls `f` with the columns of some images at a time, and their first row and number of rows.
///
/// # Safety
/// `x` must be the address of a tensor of the window's sizes.
unsafe fn each_columns(
    window: &Window,
    device: &CudaDevice,
    dtype: DType,
    x: CUdeviceptr,
    mut f: impl FnMut(CUdeviceptr, usize, usize) -> Result<()>,
) -> Result<()> {
    let stream = device.cuda_stream();
    let image = window.from.iter().product::<usize>();
    if window.is_product() {
        if !window.rectify {
            return f(x, 0, window.rows());
        }
        let count = image * window.batch;
        // SAFETY: the kernel writes every element, and the caller vouches for `x`.
        let mut rectified = unsafe { Output::new(device, dtype, count)? };
        let (to, _to) = rectified.pointer(&stream)?;
        // SAFETY: as above.
        unsafe { relu(device, dtype, [x, to], count, false)? };
        return f(to, 0, window.rows());
    }
    let (step, pixels) = (images(window), window.to[0] * window.to[1]);
    for first in (0..window.batch).step_by(step) {
        let rows = step.min(window.batch - first) * pixels;
        let x = x + (first * image * dtype.size_in_bytes()) as u64;
        // SAFETY: the kernel writes every element, and the caller vouches for `x`.
        let mut columns = unsafe { Output::new(device, dtype, rows * window.depth())? };
        let (to, _to) = columns.pointer(&stream)?;
        let (name, group) = kernel("columns", dtype, window.from[2], &[x, to])?;
        let sizes = sizes(window, group)?;
        let mut arguments: Vec<&dyn Argument> = vec![&x, &to];
        arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
        // SAFETY: as above.
        unsafe { launch(device, FILE, &name, Grid::row(rows, 128), &arguments)? };
        f(to, first * pixels, rows)?;
    }
    Ok(())
}

/// The arguments of kernels that go through a window: height, width and groups of the image, lines and pixels of
/// the result, width of the kernel and its taps, stride, padding, and whether the ReLU is meant.
fn sizes(window: &Window, group: usize) -> Result<[i32; 10]> {
    let [height, width, channels] = window.from;
    int(window.depth())?;
    Ok([
        int(height)?,
        int(width)?,
        int(channels / group)?,
        int(window.to[0])?,
        int(window.to[1])?,
        int(window.kernel[1])?,
        int(window.taps())?,
        int(window.stride)?,
        int(window.padding)?,
        i32::from(window.rectify),
    ])
}

/// The transpose of the columns of `images` images: f32 columns, the images (for the ReLU) and their gradient.
///
/// # Safety
/// The addresses must be those of tensors of the window's sizes, but for the batch.
unsafe fn gather(
    window: &Window,
    device: &CudaDevice,
    dtype: DType,
    [columns, x, to]: [CUdeviceptr; 3],
    images: usize,
) -> Result<()> {
    let (name, group) = kernel("gather", dtype, window.from[2], &[columns, x, to])?;
    let sizes = sizes(window, group)?;
    let mut arguments: Vec<&dyn Argument> = vec![&columns, &x, &to];
    arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
    let blocks = images * window.from[0] * window.from[1];
    // SAFETY: the caller's.
    unsafe { launch(device, FILE, &name, Grid::row(blocks, 128), &arguments) }
}

/// Writes the bias to every row, or adds it.
///
/// # Safety
/// The addresses must be those of `[rows, width]` and `[width]`.
unsafe fn add_bias(
    device: &CudaDevice,
    dtype: DType,
    [y, bias]: [CUdeviceptr; 2],
    [rows, width]: [usize; 2],
    add: bool,
) -> Result<()> {
    let (name, group) = kernel("bias", dtype, width, &[y, bias])?;
    let (count, groups, add) = (rows as i64, int(width / group)?, i32::from(add));
    let arguments: [&dyn Argument; 5] = [&y, &bias, &count, &groups, &add];
    // SAFETY: the caller's.
    unsafe { launch(device, FILE, &name, Grid::row(rows.div_ceil(64), 256), &arguments) }
}

/// The ReLU of `x`, or with `mask` the gradient at the second address where `x` is above 0.
///
/// # Safety
/// The addresses must be those of `count` values.
unsafe fn relu(
    device: &CudaDevice,
    dtype: DType,
    [x, y]: [CUdeviceptr; 2],
    count: usize,
    mask: bool,
) -> Result<()> {
    let (name, group) = kernel("relu", dtype, count, &[x, y])?;
    let (groups, mask) = ((count / group) as i64, i32::from(mask));
    let arguments: [&dyn Argument; 4] = [&x, &y, &groups, &mask];
    let blocks = (count / group).div_ceil(1024);
    // SAFETY: the caller's.
    unsafe { launch(device, FILE, &name, Grid::row(blocks, 256), &arguments) }
}

/// A matrix of a product, row by row, and whether its transpose is meant.
#[derive(Clone, Copy)]
struct Factor(CUdeviceptr, bool);

/// `to = a b`, or `to += a b` if `add`: `a` is `[m, k]` and `b` `[k, n]` of `dtype`, and `to` is `[m, n]` of its
/// own; the sum is f32, and not TF32 of f32.
///
/// # Safety
/// The addresses must be those of matrices of these sizes, and `to` be set if `add`.
unsafe fn product(
    device: &CudaDevice,
    [m, n, k]: [usize; 3],
    [a, b]: [Factor; 2],
    dtype: DType,
    (to, to_dtype): (CUdeviceptr, DType),
    add: bool,
) -> Result<()> {
    if m * n * k == 0 {
        return Ok(());
    }
    let data = |dtype| {
        Ok(match dtype {
            DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
            DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
            DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
            other => bail!("expected f32, bf16 or f16, found {other:?}"),
        })
    };
    let turn = |factor: Factor| match factor.1 {
        true => sys::cublasOperation_t::CUBLAS_OP_T,
        false => sys::cublasOperation_t::CUBLAS_OP_N,
    };
    let (row_a, row_b) = (if a.1 { m } else { k }, if b.1 { k } else { n });
    let (alpha, beta) = (1f32, if add { 1f32 } else { 0.0 });
    let blas = device.cublas_handle();
    device.cuda_stream().context().bind_to_thread().w()?;
    // SAFETY: the caller's. cuBLAS goes column by column, so that it computes the transpose of every matrix.
    unsafe {
        // Parts of a 16-bit sum would otherwise be added in 16 bits.
        let mode = sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        sys::cublasSetMathMode(*blas.handle(), mode).result().w()?;
        result::gemm_ex(
            *blas.handle(),
            turn(b),
            turn(a),
            int(n)?,
            int(m)?,
            int(k)?,
            std::ptr::from_ref(&alpha).cast(),
            b.0 as *const _,
            data(dtype)?,
            int(row_b)?,
            a.0 as *const _,
            data(dtype)?,
            int(row_a)?,
            std::ptr::from_ref(&beta).cast(),
            to as *mut _,
            data(to_dtype)?,
            int(n)?,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()
}
