//! What transformer blocks do token by token.

use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{CudaDevice, DType, Result, Tensor};

use crate::Activation;
use crate::cuda::launch::{Argument, Grid, Input, Output, device, launch, serves};
use crate::cuda::product::product;

/// Threads of a block of the elementwise kernels.
const THREADS: usize = 256;

/// The name by which kernels know a dtype.
fn name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::BF16 => Some("bf16"),
        DType::F16 => Some("f16"),
        _ => None,
    }
}

/// Values in 16 bytes, which such kernels take at once.
fn at_once(dtype: DType) -> usize {
    16 / dtype.size_in_bytes().max(1)
}

/// `tensor` in this dtype, contiguous.
fn prepared(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    tensor.to_dtype(dtype)?.contiguous()
}

fn some<'a>(tensors: &[Option<&'a Tensor>]) -> Vec<&'a Tensor> {
    tensors.iter().copied().flatten().collect()
}

/// The shape of `x` with the last dimension `out`.
fn shape(x: &Tensor, out: usize) -> Vec<usize> {
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    shape
}

/// [`linear`](crate::linear)'s product, not yet a tensor.
fn affine(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Output>> {
    let dtype = weight.dtype();
    if name(dtype).is_none() || x.elem_count() == 0 || weight.elem_count() == 0 {
        return Ok(None);
    }
    let bias = bias.map(|b| prepared(b, dtype)).transpose()?;
    product(&prepared(x, dtype)?, &prepared(weight, dtype)?, bias.as_ref())
}

/// [`linear`](crate::linear).
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    if !serves(&some(&[Some(x), Some(weight), bias])) {
        return Ok(None);
    }
    let y = affine(x, weight, bias)?;
    Ok(y.map(|y| y.tensor(&shape(x, weight.dims()[0]))))
}

/// [`linear_gelu`](crate::linear_gelu): the product is rounded, then replaced by its GELU.
pub(crate) fn linear_gelu(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    if !serves(&some(&[Some(x), Some(weight), bias])) {
        return Ok(None);
    }
    let Some(mut y) = affine(x, weight, bias)? else { return Ok(None) };
    let shape = shape(x, weight.dims()[0]);
    let count: usize = shape.iter().product();
    let device = device(x)?;
    if let Some(dtype) = name(weight.dtype()) {
        let stream = device.cuda_stream();
        let (pointer, _guard) = y.pointer(&stream)?;
        let arguments: [&dyn Argument; 3] = [&pointer, &pointer, &(count as i64)];
        let each = at_once(weight.dtype());
        elementwise(&device, &format!("gelu_{dtype}"), count, each, &arguments)?;
    }
    Ok(Some(y.tensor(&shape)))
}

/// Runs a kernel of `tokens.cu` over `count` values, of which a thread takes `each`.
fn elementwise(
    device: &CudaDevice,
    kernel: &str,
    count: usize,
    each: usize,
    arguments: &[&dyn Argument],
) -> Result<()> {
    let grid = Grid::row(count.div_ceil(each).div_ceil(THREADS), THREADS);
    // SAFETY: the callers pass what the kernel takes, of tensors of `count` values that they hold.
    unsafe { launch(device, "tokens", kernel, grid, arguments) }
}

/// [`linear_residual`](crate::linear_residual).
pub(crate) fn linear_residual(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: &Tensor,
) -> Result<Option<Tensor>> {
    if !serves(&some(&[Some(x), Some(weight), bias, Some(residual)])) {
        return Ok(None);
    }
    let Some(mut y) = affine(x, weight, bias)? else { return Ok(None) };
    let Some(dtype) = name(weight.dtype()) else { return Ok(None) };
    let residual = prepared(residual, DType::F32)?;
    let count = residual.elem_count();
    let device = device(x)?;
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes every value.
    let mut to = unsafe { Output::new(&device, DType::F32, count)? };
    {
        let stored = Input::lock(&residual);
        let (from, _from) = stored.pointer(&stream)?;
        let (added, _added) = y.pointer(&stream)?;
        let (sum, _sum) = to.pointer(&stream)?;
        let arguments: [&dyn Argument; 4] = [&from, &added, &sum, &(count as i64)];
        elementwise(&device, &format!("add_{dtype}"), count, 8, &arguments)?;
    }
    Ok(Some(to.tensor(residual.dims())))
}

/// Weight and bias of a layer norm and what is added to a variance.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    pub eps: f64,
}

/// [`linear_residual_norm`](crate::linear_residual_norm): the addition and the normalisation in one pass.
pub(crate) fn linear_residual_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: &Tensor,
    norm: Norm,
) -> Result<Option<(Tensor, Tensor)>> {
    let inputs = [Some(x), Some(weight), bias, Some(residual), Some(norm.weight), Some(norm.bias)];
    if !serves(&some(&inputs)) {
        return Ok(None);
    }
    let Some(mut y) = affine(x, weight, bias)? else { return Ok(None) };
    let Some(dtype) = name(weight.dtype()) else { return Ok(None) };
    let residual = prepared(residual, DType::F32)?;
    let (scale, shift) = (prepared(norm.weight, DType::F32)?, prepared(norm.bias, DType::F32)?);
    let (count, width) = (residual.elem_count(), weight.dims()[0]);
    let rows = count / width;
    let device = device(x)?;
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes every value of both.
    let (mut sum, mut normal) = unsafe {
        (Output::new(&device, DType::F32, count)?, Output::new(&device, weight.dtype(), count)?)
    };
    {
        let stored = [&residual, &scale, &shift].map(Input::lock);
        let ((from, _from), (scale, _scale), (shift, _shift)) =
            (stored[0].pointer(&stream)?, stored[1].pointer(&stream)?, stored[2].pointer(&stream)?);
        let (added, _added) = y.pointer(&stream)?;
        let (sum, _sum) = sum.pointer(&stream)?;
        let (normal, _normal) = normal.pointer(&stream)?;
        let (kind, blocks) = norm_kernel(rows, width, &[from, added, scale, shift]);
        let arguments: [&dyn Argument; 9] = [
            &from,
            &added,
            &scale,
            &shift,
            &sum,
            &normal,
            &(rows as i64),
            &(width as i32),
            &(norm.eps as f32),
        ];
        let kernel = format!("add_layer_norm_{kind}_{dtype}");
        // SAFETY: these are the kernel's arguments, of tensors of `rows` x `width` values held here.
        unsafe { launch(&device, "norm", &kernel, Grid::row(blocks, 128), &arguments)? };
    }
    Ok(Some((sum.tensor(residual.dims()), normal.tensor(residual.dims()))))
}

/// The kernel for rows of this width at these addresses, and its number of blocks.
fn norm_kernel(rows: usize, width: usize, addresses: &[u64]) -> (&'static str, usize) {
    let whole = width.is_multiple_of(4) && addresses.iter().all(|a| a.is_multiple_of(16));
    match width {
        0..=1024 if whole => ("1024", rows.div_ceil(4)),
        1025..=2048 if whole => ("2048", rows.div_ceil(4)),
        _ => ("any", rows),
    }
}

/// [`layer_norm_as`](crate::layer_norm_as): one pass, rounded once.
pub(crate) fn layer_norm(x: &Tensor, norm: Norm, to: DType) -> Result<Option<Tensor>> {
    if !serves(&[x, norm.weight, norm.bias]) || x.elem_count() == 0 {
        return Ok(None);
    }
    let Some(to_name) = name(to) else { return Ok(None) };
    // From 16 bits the kernels go to the same 16 bits or to f32.
    let from = match x.dtype() {
        from if name(from).is_some() && (to == from || to == DType::F32) => from,
        _ => DType::F32,
    };
    let Some(from_name) = name(from) else { return Ok(None) };
    let x = prepared(x, from)?;
    let (scale, shift) = (prepared(norm.weight, DType::F32)?, prepared(norm.bias, DType::F32)?);
    let width = scale.elem_count();
    let rows = x.elem_count() / width;
    let device = device(&x)?;
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes every value.
    let mut y = unsafe { Output::new(&device, to, x.elem_count())? };
    {
        let stored = [&x, &scale, &shift].map(Input::lock);
        let ((x, _x), (scale, _scale), (shift, _shift)) =
            (stored[0].pointer(&stream)?, stored[1].pointer(&stream)?, stored[2].pointer(&stream)?);
        let (y, _y) = y.pointer(&stream)?;
        let (kind, blocks) = norm_kernel(rows, width, &[x, scale, shift]);
        let arguments: [&dyn Argument; 7] =
            [&x, &scale, &shift, &y, &(rows as i64), &(width as i32), &(norm.eps as f32)];
        let kernel = format!("layer_norm_{kind}_{from_name}_{to_name}");
        // SAFETY: as above.
        unsafe { launch(&device, "norm", &kernel, Grid::row(blocks, 128), &arguments)? };
    }
    Ok(Some(y.tensor(x.dims())))
}

/// [`activate`](crate::activate).
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Option<Tensor>> {
    let Some(dtype) = name(x.dtype()) else { return Ok(None) };
    if !serves(&[x]) || x.elem_count() == 0 {
        return Ok(None);
    }
    let x = x.contiguous()?;
    let device = device(&x)?;
    let stream = device.cuda_stream();
    let kernel = match activation {
        Activation::Gelu => "gelu",
        Activation::QuickGelu => "quick_gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::SwiGlu => return gated(&device, &stream, &x, dtype).map(Some),
    };
    let count = x.elem_count();
    // SAFETY: the kernel writes every value.
    let mut y = unsafe { Output::new(&device, x.dtype(), count)? };
    {
        let stored = Input::lock(&x);
        let (from, _from) = stored.pointer(&stream)?;
        let (to, _to) = y.pointer(&stream)?;
        let arguments: [&dyn Argument; 3] = [&from, &to, &(count as i64)];
        elementwise(&device, &format!("{kernel}_{dtype}"), count, at_once(x.dtype()), &arguments)?;
    }
    Ok(Some(y.tensor(x.dims())))
}

fn gated(device: &CudaDevice, stream: &CudaStream, x: &Tensor, dtype: &str) -> Result<Tensor> {
    let shape = shape(x, x.dims().last().copied().unwrap_or_default() / 2);
    let count: usize = shape.iter().product();
    let width = shape.last().copied().unwrap_or_default();
    let rows = count / width.max(1);
    // SAFETY: the kernel writes every value.
    let mut y = unsafe { Output::new(device, x.dtype(), count)? };
    {
        let stored = Input::lock(x);
        let (from, _from) = stored.pointer(stream)?;
        let (to, _to) = y.pointer(stream)?;
        let along = width.div_ceil(at_once(x.dtype())).div_ceil(THREADS);
        let blocks = [along, rows.min(MOST_BLOCKS), 1];
        let arguments: [&dyn Argument; 4] = [&from, &to, &(rows as i64), &(width as i64)];
        let grid = Grid { blocks, threads: THREADS, shared: 0 };
        // SAFETY: these are the kernel's arguments, of tensors of `rows` x `width` values held here.
        unsafe { launch(device, "tokens", &format!("swiglu_{dtype}"), grid, &arguments)? };
    }
    Ok(y.tensor(&shape))
}

/// Blocks of a grid in its second dimension.
const MOST_BLOCKS: usize = 65_535;

/// The rotated queries and keys of [`rotate_heads`](crate::rotate_heads), `[B, N, 2, H, D]`.
pub(crate) fn rotate(
    qkv: &Tensor,
    heads: usize,
    cos: &Tensor,
    sin: &Tensor,
) -> Result<Option<Tensor>> {
    let Some(dtype) = name(qkv.dtype()) else { return Ok(None) };
    let (batch, tokens, width) = qkv.dims3()?;
    if !serves(&[qkv, cos, sin]) || qkv.elem_count() == 0 {
        return Ok(None);
    }
    let depth = width / (3 * heads);
    let (qkv, cos, sin) =
        (qkv.contiguous()?, prepared(cos, DType::F32)?, prepared(sin, DType::F32)?);
    let device = device(&qkv)?;
    let stream = device.cuda_stream();
    let rows = batch * tokens;
    // SAFETY: the kernel writes every value.
    let mut y = unsafe { Output::new(&device, qkv.dtype(), rows * 2 * heads * depth)? };
    {
        let stored = [&qkv, &cos, &sin].map(Input::lock);
        let ((from, _from), (cos, _cos), (sin, _sin)) =
            (stored[0].pointer(&stream)?, stored[1].pointer(&stream)?, stored[2].pointer(&stream)?);
        let (to, _to) = y.pointer(&stream)?;
        let arguments: [&dyn Argument; 8] = [
            &from,
            &cos,
            &sin,
            &to,
            &(rows as i64),
            &(tokens as i32),
            &(heads as i32),
            &(depth as i32),
        ];
        // Pieces are whole where the addresses are aligned, as those of our own memory are; otherwise each
        // thread takes one value of a half.
        let piece = at_once(qkv.dtype());
        let aligned = [from, cos, sin, to].iter().all(|a| a.is_multiple_of(16));
        let each = if aligned && (depth / 2).is_multiple_of(piece) { piece } else { 1 };
        let pieces = heads * depth / each;
        let threads = pieces.next_multiple_of(32).min(THREADS);
        let blocks = [pieces.div_ceil(threads), rows.min(MOST_BLOCKS), 1];
        let grid = Grid { blocks, threads, shared: 0 };
        // SAFETY: these are the kernel's arguments, of tensors held here.
        unsafe { launch(&device, "tokens", &format!("rotate_{dtype}"), grid, &arguments)? };
    }
    Ok(Some(y.tensor(&[batch, tokens, 2, heads, depth])))
}
