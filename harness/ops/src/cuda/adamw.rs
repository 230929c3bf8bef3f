//! AdamW and the norm of gradients: `kernels/adamw.cu`.

use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::launch::{Argument, Grid, Input, Output, device, launch};
use crate::adamw::AdamwStep;

const THREADS: usize = 256;
/// Values of a block.
const CHUNK: usize = 4096;
/// Parameters of a launch: as many as its arguments have room for.
const AT_ONCE: usize = 64;

/// As in the kernel.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Parameter {
    /// Value, first moment, second moment, gradient.
    addresses: [CUdeviceptr; 4],
    length: i64,
    block: i64,
}

/// As in the kernel.
#[derive(Clone, Copy)]
#[repr(C)]
struct Parameters {
    of: [Parameter; AT_ONCE],
    count: i32,
}

/// Whether kernels take these: all on one GPU, f32 and contiguous.
fn served<'a>(mut tensors: impl Iterator<Item = &'a Tensor>) -> bool {
    let Some(first) = tensors.next() else { return false };
    let takes = |tensor: &Tensor| {
        tensor.device().is_cuda()
            && tensor.device().same_device(first.device())
            && tensor.dtype() == DType::F32
            && tensor.is_contiguous()
    };
    takes(first) && tensors.all(takes)
}

/// Calls `run` with the table and the number of blocks of up to [`AT_ONCE`] parameters at a time.
fn in_launches(
    device: &CudaDevice,
    parameters: &[[&Tensor; 4]],
    mut run: impl FnMut(Parameters, usize) -> Result<()>,
) -> Result<()> {
    let stream = device.cuda_stream();
    for part in parameters.chunks(AT_ONCE) {
        let locked: Vec<[Input<'_>; 4]> =
            part.iter().map(|tensors| tensors.map(Input::lock)).collect();
        let mut table = Parameters { of: [Parameter::default(); AT_ONCE], count: 0 };
        let (mut guards, mut blocks) = (Vec::with_capacity(4 * part.len()), 0);
        for ((place, tensors), locked) in table.of.iter_mut().zip(part).zip(&locked) {
            let length = tensors[0].elem_count();
            if tensors.iter().any(|tensor| tensor.elem_count() != length) {
                bail!("adamw: a value's moments and gradient are not of its size, {length}");
            }
            for (address, input) in place.addresses.iter_mut().zip(locked) {
                let (found, guard) = input.pointer(&stream)?;
                *address = found;
                guards.push(guard);
            }
            (place.length, place.block) = (length as i64, blocks as i64);
            blocks += length.div_ceil(CHUNK);
            table.count += 1;
        }
        run(table, blocks)?;
    }
    Ok(())
}

/// [`crate::adamw`].
pub(crate) fn step(
    step: &AdamwStep,
    parameters: &[[&Tensor; 4]],
    guard: Option<&Tensor>,
) -> Result<bool> {
    let all = parameters.iter().flatten().copied().chain(guard);
    if parameters.is_empty() || !served(all) {
        return Ok(false);
    }
    let device = device(parameters[0][0])?;
    let stream = device.cuda_stream();
    let guard = guard.map(Input::lock);
    let (watched, _guard) = match &guard {
        Some(guard) => guard.pointer(&stream).map(|(address, guard)| (address, Some(guard)))?,
        None => (0, None),
    };
    in_launches(&device, parameters, |table, blocks| {
        let arguments: [&dyn Argument; 3] = [&table, step, &watched];
        // SAFETY: the table has the addresses and length of each parameter's four tensors, which no one
        // else writes: they are locked for reading, and their owner calls this alone.
        unsafe { launch(&device, "adamw", "adamw", Grid::row(blocks, THREADS), &arguments) }
    })?;
    Ok(true)
}

/// [`crate::norm_of`], if kernels serve.
pub(crate) fn norm(tensors: &[&Tensor]) -> Result<Option<Tensor>> {
    if !served(tensors.iter().copied()) {
        return Ok(None);
    }
    let device = device(tensors[0])?;
    let stream = device.cuda_stream();
    let count: usize = tensors.iter().map(|tensor| tensor.elem_count().div_ceil(CHUNK)).sum();
    // SAFETY: the first kernel writes every sum (f64 in the room of i64), the second the root.
    let (mut sums, mut root) =
        unsafe { (Output::new(&device, DType::I64, count)?, Output::new(&device, DType::F32, 1)?) };
    let (sum_address, _sums) = sums.pointer(&stream)?;
    let fourfold: Vec<[&Tensor; 4]> = tensors.iter().map(|&tensor| [tensor; 4]).collect();
    let mut offset = 0_i64;
    in_launches(&device, &fourfold, |table, blocks| {
        let arguments: [&dyn Argument; 3] = [&table, &sum_address, &offset];
        // SAFETY: the table has the address and length of each tensor, and there is a sum to each block.
        unsafe { launch(&device, "adamw", "squares", Grid::row(blocks, THREADS), &arguments)? };
        offset += blocks as i64;
        Ok(())
    })?;
    let (root_address, written) = root.pointer(&stream)?;
    let arguments: [&dyn Argument; 3] = [&sum_address, &(count as i64), &root_address];
    // SAFETY: the kernel reads `count` sums and writes one f32.
    unsafe { launch(&device, "adamw", "root_of_sum", Grid::row(1, THREADS), &arguments)? };
    drop(written);
    Ok(Some(root.tensor(&[])))
}
