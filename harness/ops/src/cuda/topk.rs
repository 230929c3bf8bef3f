//! Nearest neighbours: `kernels/topk.cu`.

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CudaStorage, Layout, Result, bail};

use super::launch::{Grid, launch};
use crate::topk::Merge;

const THREADS: usize = 256;

/// [`crate::merge_nearest`], whose callers have checked the shapes.
pub(crate) fn merge(
    merge: &Merge,
    (keys, keys_layout): (&mut CudaStorage, &Layout),
    (similarities, layout): (&CudaStorage, &Layout),
) -> Result<()> {
    let (Some((key, _)), Some((from, _))) =
        (keys_layout.contiguous_offsets(), layout.contiguous_offsets())
    else {
        bail!("merge_nearest: expected contiguous tensors");
    };
    let queries = layout.shape().dims2()?.0;
    let narrow = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
    let (k, columns, rows) = (narrow(merge.k)?, narrow(merge.columns)?, narrow(merge.rows)?);
    let device = similarities.device.clone();
    let stream = device.cuda_stream();
    let (keys, _written) = keys.as_cuda_slice_mut::<i64>()?.device_ptr_mut(&stream);
    let (values, _read) = similarities.as_cuda_slice::<f32>()?.device_ptr(&stream);
    let keys = keys + (key * size_of::<i64>()) as u64;
    let values = values + (from * size_of::<f32>()) as u64;
    let grid = Grid::row(queries, THREADS);
    // SAFETY: the kernel reads `rows` of `columns` values and writes `k` keys of every query, which is what
    // the tensors hold; k is at most what its shared memory is made for.
    unsafe {
        launch(
            &device,
            "topk",
            "topk_merge",
            grid,
            &[&keys, &values, &k, &columns, &rows, &merge.first],
        )
    }
}
