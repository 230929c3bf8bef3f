//! The steps of `pixels/` on a GPU: `kernels/images.cu`.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::DevicePtrMut;
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, bail};

use super::launch::{Argument, Grid, Output, address, launch};
use crate::pixels::place::Rows;
use crate::pixels::sums::columns;

/// An argument of a custom operation, contiguous.
pub(crate) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// The file of the kernels.
pub(super) const FILE: &str = "images";
/// The most blocks in the second direction of a grid.
const LINES: usize = 65535;
/// Parts of the rows that are summed on their own at most, and rows in a part at least.
const PARTS: usize = 1024;
const PART: usize = 64;

/// A kernel for rows of `width` values of `dtype`, and how many of them it takes at once: 16 bytes where the rows
/// and all addresses allow that.
pub(super) fn kernel(
    name: &str,
    dtype: DType,
    width: usize,
    addresses: &[CUdeviceptr],
) -> Result<(String, usize)> {
    let (suffix, most) = match dtype {
        DType::F32 => ("f32", 4),
        DType::BF16 => ("bf16", 8),
        DType::F16 => ("f16", 8),
        other => bail!("{name}: expected f32, bf16 or f16, found {other:?}"),
    };
    let aligned = width.is_multiple_of(most) && addresses.iter().all(|a| a.is_multiple_of(16));
    let group = if aligned { most } else { 1 };
    Ok((format!("{name}_{suffix}_{group}"), group))
}

/// Refuses arguments that are not contiguous.
pub(super) fn check(operands: &[Operand<'_>]) -> Result<()> {
    match operands.iter().find(|(_, layout)| !layout.is_contiguous()) {
        Some((_, layout)) => bail!("expected contiguous tensors, found {layout:?}"),
        None => Ok(()),
    }
}

/// A size for a kernel's argument.
pub(super) fn int(size: usize) -> Result<i32> {
    i32::try_from(size).map_err(candle_core::Error::wrap)
}

/// `[A, M, N, V]` to `[A, N, M, V]`.
pub(crate) fn swap(x: Operand<'_>) -> Result<(CudaStorage, Shape)> {
    check(&[x])?;
    let (a, m, n, v) = x.1.shape().dims4()?;
    let (device, dtype) = (x.0.device(), x.0.dtype());
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes every element.
    let mut y = unsafe { Output::new(device, dtype, a * m * n * v)? };
    {
        let ((from, _x), (to, _y)) = (address(x.0, x.1, &stream)?, y.pointer(&stream)?);
        let (name, group) = kernel("swap", dtype, v, &[from, to])?;
        let units = m * n * (v / group);
        int(units)?;
        let blocks = [units.div_ceil(256), a.min(LINES), 1];
        let (m, n, groups) = (int(m)?, int(n)?, int(v / group)?);
        let arguments: [&dyn Argument; 6] = [&from, &to, &(a as i64), &m, &n, &groups];
        let grid = Grid { blocks, threads: 256, shared: 0 };
        // SAFETY: both tensors have the elements that the sizes say.
        unsafe { launch(device, FILE, &name, grid, &arguments)? };
    }
    Ok((y.storage(), Shape::from((a, n, m, v))))
}

/// `[B, N, D]` and f32 `[B, E]` to f32 `[B, N, D + E]`.
pub(crate) fn join(x: Operand<'_>, row: Operand<'_>) -> Result<(CudaStorage, Shape)> {
    check(&[x, row])?;
    let (batch, tokens, width) = x.1.shape().dims3()?;
    let more = row.1.shape().dims2()?.1;
    let device = x.0.device();
    let stream = device.cuda_stream();
    let shape = Shape::from((batch, tokens, width + more));
    // SAFETY: the kernel writes every element.
    let mut y = unsafe { Output::new(device, DType::F32, shape.elem_count())? };
    {
        let ((from, _x), (row, _row)) =
            (address(x.0, x.1, &stream)?, address(row.0, row.1, &stream)?);
        let (to, _y) = y.pointer(&stream)?;
        let name = match x.0.dtype() {
            DType::F32 => "join_f32",
            DType::BF16 => "join_bf16",
            DType::F16 => "join_f16",
            other => bail!("join_rows: expected f32, bf16 or f16, found {other:?}"),
        };
        let (width, more) = (int(width)?, int(more)?);
        let arguments: [&dyn Argument; 6] = [&from, &row, &to, &(tokens as i64), &width, &more];
        // SAFETY: the tensors have the elements that the sizes say.
        unsafe { launch(device, FILE, name, Grid::row(batch * tokens, 256), &arguments)? };
    }
    Ok((y.storage(), shape))
}

/// As [`Rows`].
pub(crate) fn add_rows(
    rows: &Rows,
    (sums, sums_layout): (&mut CudaStorage, &Layout),
    window: Operand<'_>,
) -> Result<()> {
    let &Rows { first, steps: [to_step, step], count, width } = rows;
    check(&[(sums, sums_layout), window])?;
    if (sums.dtype(), window.0.dtype()) != (DType::F32, DType::F32) {
        bail!("add_window: expected f32, found {:?} and {:?}", sums.dtype(), window.0.dtype());
    }
    let device = sums.device().clone();
    let stream = device.cuda_stream();
    let CudaStorageSlice::F32(slice) = &mut sums.slice else { bail!("add_window: expected f32") };
    let ((to, _to), (from, _from)) =
        (slice.device_ptr_mut(&stream), address(window.0, window.1, &stream)?);
    let to = to + (4 * (sums_layout.start_offset() + first)) as CUdeviceptr;
    // What divides all of them divides this.
    let common = first | to_step | step | width;
    let (name, group) = kernel("add_rows", DType::F32, common, &[to, from])?;
    let [to_step, step, groups] = [to_step, step, width].map(|values| (values / group) as i64);
    let arguments: [&dyn Argument; 5] = [&to, &from, &to_step, &step, &groups];
    let grid = Grid { blocks: [(width / group).div_ceil(256), count, 1], threads: 256, shared: 0 };
    // SAFETY: the caller has compared the rows with both shapes.
    unsafe { launch(&device, FILE, &name, grid, &arguments) }
}

/// As [`ColumnSums`](crate::pixels::sums::ColumnSums).
pub(crate) fn column_sums(
    x: Operand<'_>,
    centre: Option<Operand<'_>>,
    other: Option<Operand<'_>>,
) -> Result<(CudaStorage, Shape)> {
    check(&[x])?;
    let (device, dtype) = (x.0.device(), x.0.dtype());
    let stream = device.cuda_stream();
    let width = columns(x.1);
    let rows = x.1.shape().elem_count() / width.max(1);
    for extra in [centre, other].into_iter().flatten() {
        check(&[extra])?;
        if (dtype, extra.0.dtype()) != (DType::F32, DType::F32) {
            bail!("column_sums: expected f32, found {dtype:?} and {:?}", extra.0.dtype());
        }
    }
    let [part, parts] = division(rows);
    // SAFETY: the kernel writes the sums of every part and column.
    let mut sums = unsafe { Output::new(device, DType::F32, parts * width)? };
    {
        let (from, _x) = address(x.0, x.1, &stream)?;
        let centre = centre.map(|(s, l)| address(s, l, &stream)).transpose()?;
        let other = other.map(|(s, l)| address(s, l, &stream)).transpose()?;
        let centre_at: CUdeviceptr = centre.as_ref().map_or(0, |centre| centre.0);
        let other_at: CUdeviceptr = other.as_ref().map_or(0, |other| other.0);
        let (to, _sums) = sums.pointer(&stream)?;
        let (name, group) = kernel("column_sums", dtype, width, &[from])?;
        let (groups, count) = (int(width / group)?, rows as i64);
        let arguments: [&dyn Argument; 7] =
            [&from, &centre_at, &other_at, &to, &count, &groups, &(part as i64)];
        let blocks = [(width / group).div_ceil(32), parts, 1];
        let grid = Grid { blocks, threads: 256, shared: 0 };
        // SAFETY: the tensors have the elements that the sizes say; without a centre no more are read.
        unsafe { launch(device, FILE, &name, grid, &arguments)? };
    }
    Ok((total(sums, [parts, width])?, Shape::from(width)))
}

/// The sums over the rows of `x` `[rows, width]` (of its ReLU if `rectify`), each times its weight; f32.
///
/// # Safety
/// The addresses must be those of `x` and the weights.
pub(super) unsafe fn weighted_sums(
    device: &CudaDevice,
    dtype: DType,
    [x, weights]: [CUdeviceptr; 2],
    [rows, width]: [usize; 2],
    rectify: bool,
) -> Result<CudaStorage> {
    let [part, parts] = division(rows);
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes the sums of every part and column.
    let mut sums = unsafe { Output::new(device, DType::F32, parts * width)? };
    {
        let (to, _sums) = sums.pointer(&stream)?;
        let (name, group) = kernel("weighted_sums", dtype, width, &[x])?;
        let (count, groups, rectify) = (rows as i64, int(width / group)?, i32::from(rectify));
        let arguments: [&dyn Argument; 7] =
            [&x, &weights, &to, &count, &groups, &(part as i64), &rectify];
        let blocks = [(width / group).div_ceil(32), parts, 1];
        let grid = Grid { blocks, threads: 256, shared: 0 };
        // SAFETY: the caller's.
        unsafe { launch(device, FILE, &name, grid, &arguments)? };
    }
    total(sums, [parts, width])
}

/// Rows in a part that is summed on its own, and how many such parts there are.
fn division(rows: usize) -> [usize; 2] {
    let part = rows.div_ceil(PARTS).max(PART);
    [part, rows.div_ceil(part).max(1)]
}

/// The sums over the parts, from f32 `[parts, width]`.
fn total(partial: Output, [parts, width]: [usize; 2]) -> Result<CudaStorage> {
    let (partial, layout) = (partial.storage(), Layout::contiguous((parts, width)));
    if parts == 1 {
        return Ok(partial);
    }
    let device = partial.device();
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes the sum of every column.
    let mut sums = unsafe { Output::new(device, DType::F32, width)? };
    {
        let ((from, _x), (to, _y)) = (address(&partial, &layout, &stream)?, sums.pointer(&stream)?);
        let (name, group) = kernel("column_sums", DType::F32, width, &[from])?;
        let (groups, rows, null) = (int(width / group)?, parts as i64, 0 as CUdeviceptr);
        let arguments: [&dyn Argument; 7] = [&from, &null, &null, &to, &rows, &groups, &rows];
        let grid = Grid::row((width / group).div_ceil(32), 256);
        // SAFETY: as above.
        unsafe { launch(device, FILE, &name, grid, &arguments)? };
    }
    Ok(sums.storage())
}

/// As [`Blend`](crate::pixels::sums::Blend).
pub(crate) fn blend(
    x: Operand<'_>,
    z: Option<Operand<'_>>,
    factors: Operand<'_>,
) -> Result<(CudaStorage, Shape)> {
    check(&[x, factors])?;
    let device = x.0.device();
    let stream = device.cuda_stream();
    for (storage, layout) in [Some(x), z, Some(factors)].into_iter().flatten() {
        if storage.dtype() != DType::F32 || !layout.is_contiguous() {
            bail!(
                "blend_columns: expected contiguous f32, found {:?}, {layout:?}",
                storage.dtype()
            );
        }
    }
    let width = columns(x.1);
    let rows = x.1.shape().elem_count() / width.max(1);
    // SAFETY: the kernel writes every element.
    let mut y = unsafe { Output::new(device, DType::F32, rows * width)? };
    {
        let (from, _x) = address(x.0, x.1, &stream)?;
        let (table, _factors) = address(factors.0, factors.1, &stream)?;
        let other = z.map(|(s, l)| address(s, l, &stream)).transpose()?;
        let z: CUdeviceptr = other.as_ref().map_or(0, |z| z.0);
        let (to, _y) = y.pointer(&stream)?;
        let (name, group) = kernel("blend", DType::F32, width, &[from, table, z, to])?;
        let (count, groups) = (rows as i64, int(width / group)?);
        let arguments: [&dyn Argument; 6] = [&from, &z, &table, &to, &count, &groups];
        // SAFETY: the tensors have the elements that the sizes say; without `z` none of it is read.
        unsafe { launch(device, FILE, &name, Grid::row(rows.div_ceil(64), 256), &arguments)? };
    }
    Ok((y.storage(), x.1.shape().clone()))
}

/// `[B, H, W, C]` of the first grid to the second, or with `back` the transpose from the second to the first.
pub(crate) fn resize(
    x: Operand<'_>,
    first: [usize; 2],
    second: [usize; 2],
    back: bool,
) -> Result<(CudaStorage, Shape)> {
    check(&[x])?;
    let (batch, _, _, channels) = x.1.shape().dims4()?;
    let (device, dtype) = (x.0.device(), x.0.dtype());
    let stream = device.cuda_stream();
    let [height, width] = if back { first } else { second };
    let shape = Shape::from((batch, height, width, channels));
    // SAFETY: the kernel writes every element.
    let mut y = unsafe { Output::new(device, dtype, shape.elem_count())? };
    {
        let ((from, _x), (to, _y)) = (address(x.0, x.1, &stream)?, y.pointer(&stream)?);
        let name = if back { "resize_back" } else { "resize" };
        let (name, group) = kernel(name, dtype, channels, &[from, to])?;
        let groups = channels / group;
        int(second[1].max(first[1]) * groups)?;
        let [a, b, c, d] = [int(first[0])?, int(first[1])?, int(second[0])?, int(second[1])?];
        let (batch_of, groups_of) = (int(batch)?, int(groups)?);
        let arguments: [&dyn Argument; 8] = [&from, &to, &batch_of, &a, &b, &c, &d, &groups_of];
        let blocks = [(width * groups).div_ceil(256), (batch * height).min(LINES), 1];
        let grid = Grid { blocks, threads: 256, shared: 0 };
        // SAFETY: both tensors have the elements that the sizes say.
        unsafe { launch(device, FILE, &name, grid, &arguments)? };
    }
    Ok((y.storage(), shape))
}
