//! Attention: a kernel of tiles for 16-bit heads, and products with a softmax between them for the rest.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Tensor, bail};

use crate::cuda::launch::{Argument, Grid, Input, Output, device, launch, serves};

/// Queries of a block of the kernel.
const QUERIES: usize = 128;
/// The head sizes of the kernel; others are padded to the next.
const SIZES: [usize; 5] = [32, 64, 80, 96, 128];
/// Blocks of a grid in its second and third dimension.
const MOST_BLOCKS: usize = 65_535;
/// Scores that are held at once where they are held: 256 MiB.
const MOST_SCORES: usize = 64 << 20;

/// Elements between batches, heads and tokens, as the kernel takes them.
#[derive(Clone, Copy)]
#[repr(C)]
struct Strides {
    batch: i64,
    head: i64,
    token: i64,
}

/// [`attention_qkv`](crate::attention_qkv) of operands whose shapes have been checked.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Option<Tensor>> {
    let (batch, heads, queries, depth) = q.dims4()?;
    let (_, _, keys, values) = v.dims4()?;
    if !serves(&[q, k, v]) || batch * heads * queries * values == 0 {
        return Ok(None);
    }
    let dtype = q.dtype();
    let size = SIZES.into_iter().find(|&size| depth <= size);
    let tiled = matches!(dtype, DType::BF16 | DType::F16)
        && [k.dtype(), v.dtype()] == [dtype; 2]
        && depth == values
        && depth.is_multiple_of(8)
        && scale > 0.0
        && heads.max(batch) <= MOST_BLOCKS
        && queries.max(keys) < i32::MAX as usize - QUERIES;
    match size {
        Some(size) if tiled => tiles(q, k, v, scale, size).map(Some),
        _ => products(q, k, v, scale).map(Some),
    }
}

/// `t` itself where the kernel can read it, otherwise a copy.
fn readable(t: &Tensor) -> Result<Tensor> {
    let aligned = |n: usize| n.is_multiple_of(8);
    let &[ref strides @ .., last] = t.stride() else { bail!("attention: a scalar operand") };
    match last == 1 && strides.iter().all(|&s| aligned(s)) && aligned(t.layout().start_offset()) {
        true => Ok(t.clone()),
        false => t.force_contiguous(),
    }
}

fn tiles(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, size: usize) -> Result<Tensor> {
    let (batch, heads, queries, depth) = q.dims4()?;
    let keys = k.dim(2)?;
    let dtype = q.dtype();
    let operands = [readable(q)?, readable(k)?, readable(v)?];
    let strides = operands.each_ref().map(|t| {
        let s = t.stride();
        Strides { batch: s[0] as i64, head: s[1] as i64, token: s[2] as i64 }
    });
    let device = device(q)?;
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes every value.
    let mut to = unsafe { Output::new(&device, dtype, batch * queries * heads * depth)? };
    {
        let stored = operands.each_ref().map(Input::lock);
        let ((q, _q), (k, _k), (v, _v)) =
            (stored[0].pointer(&stream)?, stored[1].pointer(&stream)?, stored[2].pointer(&stream)?);
        let (out, _out) = to.pointer(&stream)?;
        let factor = (scale * std::f64::consts::LOG2_E) as f32;
        let arguments: [&dyn Argument; 11] = [
            &q,
            &k,
            &v,
            &out,
            &strides[0],
            &strides[1],
            &strides[2],
            &(queries as i32),
            &(keys as i32),
            &(depth as i32),
            &factor,
        ];
        // As in the kernel: two stages of a tile of keys and one of values, and the queries if they are not
        // kept in registers.
        let (row, tile) = (((size / 8) | 1) * 16, if size == 128 { 32 } else { 64 });
        let shared = 4 * tile * row + if size > 64 { QUERIES * row } else { 0 };
        let grid = Grid { blocks: [queries.div_ceil(QUERIES), heads, batch], threads: 128, shared };
        let name = if dtype == DType::BF16 { "bf16" } else { "f16" };
        let kernel = format!("attention_{name}_{size}");
        // SAFETY: these are the kernel's arguments, of tensors held here; strides, addresses and depth are
        // aligned as it asks.
        unsafe { launch(&device, "attention", &kernel, grid, &arguments)? };
    }
    Ok(to.tensor(&[batch, queries, heads * depth]))
}

/// In f32, as many heads at once as have room for their scores.
fn products(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let (batch, heads, queries, _) = q.dims4()?;
    let (_, _, keys, values) = v.dims4()?;
    let wide = |t: &Tensor| t.to_dtype(DType::F32)?.contiguous()?.flatten(0, 1);
    let (wide_q, wide_k, wide_v) = (wide(q)?, wide(k)?, wide(v)?);
    let at_once = (MOST_SCORES / (queries * keys)).clamp(1, batch * heads);
    let mut parts = Vec::new();
    for first in (0..batch * heads).step_by(at_once) {
        let count = at_once.min(batch * heads - first);
        let part = |t: &Tensor| t.narrow(0, first, count);
        let scores = part(&wide_q)?.matmul(&part(&wide_k)?.t()?)?;
        scores.inplace_op1(&Softmax { scale: scale as f32 })?;
        parts.push(scores.matmul(&part(&wide_v)?)?);
    }
    let merged = Tensor::cat(&parts, 0)?.reshape((batch, heads, queries, values))?;
    merged.transpose(1, 2)?.contiguous()?.flatten_from(2)?.to_dtype(q.dtype())
}

/// softmax(x scale) of the last dimension of contiguous f32 `x`, in place.
struct Softmax {
    scale: f32,
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("softmax in place: expected a tensor on a GPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let (Some((0, count)), Some(&width)) = (layout.contiguous_offsets(), layout.dims().last())
        else {
            bail!("softmax in place: expected a whole contiguous tensor, found {layout:?}");
        };
        let device = storage.device().clone();
        let stream = device.cuda_stream();
        let scores = storage.as_cuda_slice_mut::<f32>()?;
        use candle_core::cuda_backend::cudarc::driver::DevicePtrMut;
        let (pointer, _guard) = scores.device_ptr_mut(&stream);
        let arguments: [&dyn Argument; 3] = [&pointer, &(width as i64), &self.scale];
        let grid = Grid::row(count / width, 256);
        // SAFETY: these are the kernel's arguments; the rows lie in the storage.
        unsafe { launch(&device, "attention", "softmax_f32", grid, &arguments) }
    }
}
