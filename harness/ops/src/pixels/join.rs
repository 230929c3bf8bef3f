//! A row joined to every token of its image.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape};

use super::host::wide;

/// `[B, N, D]` of any floating type and f32 `[B, E]` to f32 `[B, N, D + E]`.
pub(crate) struct Join;

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join_rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        row: &CpuStorage,
        row_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, tokens, width) = x_layout.shape().dims3()?;
        let more = row_layout.dims()[1];
        let (x, row) = (wide(x, x_layout)?, wide(row, row_layout)?);
        let mut to = Vec::with_capacity(batch * tokens * (width + more));
        for token in 0..batch * tokens {
            to.extend_from_slice(&x[token * width..][..width]);
            to.extend_from_slice(&row[token / tokens * more..][..more]);
        }
        Ok((CpuStorage::F32(to), Shape::from((batch, tokens, width + more))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        row: &CudaStorage,
        row_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::images::join((x, x_layout), (row, row_layout))
    }
}
