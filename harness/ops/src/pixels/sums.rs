//! Sums over the rows of a matrix, and what is done to its columns with them.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::host::wide;

/// Sums over all dimensions but the last, `[.., C]` to f32 `[C]`.
pub(crate) fn column_sums(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&ColumnSums)
}

/// Column by column, f32 `[C]`: of `x` the sum of its values; of f32 `x` and `centre` the sum of
/// `(x - centre)^2`; of f32 `x`, `centre` and `other` the sum of `(x - centre) other`.
pub(crate) struct ColumnSums;

/// `term` of every element's place and column, summed by column.
fn sums(len: usize, columns: usize, term: impl Fn(usize, usize) -> f64) -> (CpuStorage, Shape) {
    let mut sums = vec![0.0; columns];
    for place in 0..len {
        sums[place % columns] += term(place, place % columns);
    }
    (CpuStorage::F32(sums.into_iter().map(|sum| sum as f32).collect()), Shape::from(columns))
}

/// Values in the last dimension.
pub(crate) fn columns(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1)
}

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "column_sums"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = wide(x, layout)?;
        Ok(sums(x.len(), columns(layout), |place, _| f64::from(x[place])))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::images::column_sums((x, layout), None, None)
    }
}

impl CustomOp2 for ColumnSums {
    fn name(&self) -> &'static str {
        "column_squares"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        centre: &CpuStorage,
        centre_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, centre) = (wide(x, x_layout)?, wide(centre, centre_layout)?);
        Ok(sums(x.len(), columns(x_layout), |place, column| {
            f64::from(x[place] - centre[column]).powi(2)
        }))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        centre: &CudaStorage,
        centre_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::images::column_sums((x, x_layout), Some((centre, centre_layout)), None)
    }
}

impl CustomOp3 for ColumnSums {
    fn name(&self) -> &'static str {
        "column_products"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        centre: &CpuStorage,
        centre_layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, centre) = (wide(x, x_layout)?, wide(centre, centre_layout)?);
        let other = wide(other, other_layout)?;
        Ok(sums(x.len(), columns(x_layout), |place, column| {
            f64::from(x[place] - centre[column]) * f64::from(other[place])
        }))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        centre: &CudaStorage,
        centre_layout: &Layout,
        other: &CudaStorage,
        other_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (centre, other) = ((centre, centre_layout), (other, other_layout));
        crate::cuda::images::column_sums((x, x_layout), Some(centre), Some(other))
    }
}

/// Of f32 `x` and factors `[3, C]`: `factors[0] x + factors[2]`, column by column; with another f32 `z` as large
/// as `x`, `factors[0] x + factors[1] z + factors[2]`.
pub(crate) struct Blend;

impl Blend {
    fn cpu(x: &[f32], z: Option<&[f32]>, factors: &[f32]) -> Vec<f32> {
        let columns = factors.len() / 3;
        let value = |(place, &x): (usize, &f32)| {
            let factor = |row: usize| factors[row * columns + place % columns];
            let more = z.map_or(0.0, |z| factor(1) * z[place]);
            factor(0) * x + more + factor(2)
        };
        x.iter().enumerate().map(value).collect()
    }
}

impl CustomOp2 for Blend {
    fn name(&self) -> &'static str {
        "scale_columns"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        factors: &CpuStorage,
        factors_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        debug_assert_eq!(x.dtype(), candle_core::DType::F32);
        let values = Self::cpu(&wide(x, x_layout)?, None, &wide(factors, factors_layout)?);
        Ok((CpuStorage::F32(values), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        factors: &CudaStorage,
        factors_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::images::blend((x, x_layout), None, (factors, factors_layout))
    }
}

impl CustomOp3 for Blend {
    fn name(&self) -> &'static str {
        "blend_columns"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        z: &CpuStorage,
        z_layout: &Layout,
        factors: &CpuStorage,
        factors_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, z) = (wide(x, x_layout)?, wide(z, z_layout)?);
        let values = Self::cpu(&x, Some(&*z), &wide(factors, factors_layout)?);
        Ok((CpuStorage::F32(values), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        z: &CudaStorage,
        z_layout: &Layout,
        factors: &CudaStorage,
        factors_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (z, factors) = ((z, z_layout), (factors, factors_layout));
        crate::cuda::images::blend((x, x_layout), Some(z), factors)
    }
}
