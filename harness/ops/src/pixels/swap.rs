//! The exchange of two dimensions, which turns weights and blocks of pixels round.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::host::{rounded, wide};

/// `[A, M, N, V]` to `[A, N, M, V]`, contiguous; no copy where one of M and N is 1.
pub(crate) fn swap(x: &Tensor) -> Result<Tensor> {
    let (a, m, n, v) = x.dims4()?;
    if m == 1 || n == 1 {
        return x.contiguous()?.reshape((a, n, m, v));
    }
    x.contiguous()?.apply_op1_no_bwd(&Swap)
}

struct Swap;

impl CustomOp1 for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, m, n, v) = layout.shape().dims4()?;
        let from = wide(x, layout)?;
        let mut to = Vec::with_capacity(from.len());
        for place in 0..a * n * m {
            let (a, n, m_of) = (place / m / n, place / m % n, place % m);
            to.extend_from_slice(&from[((a * m + m_of) * layout.dims()[2] + n) * v..][..v]);
        }
        Ok((rounded(to, x.dtype())?, Shape::from((a, n, m, v))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::images::swap((x, layout))
    }
}
