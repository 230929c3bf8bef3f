//! Batch norm of the input, as PyTorch's `BatchNorm1d`.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::rows;
use crate::dense::{Builder, Initial, LoadProblem};

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Scale, shift and running statistics, each `[inputs]`.
pub(super) struct Norm {
    weight: Var,
    bias: Var,
    mean: Var,
    var: Var,
}

/// A batch as training sees it.
pub(super) struct Normalised {
    /// With mean 0 and variance 1 in every column, `[B, inputs]`.
    pub(super) plain: Tensor,
    /// Scaled and shifted.
    pub(super) result: Tensor,
    /// What the running mean and variance become.
    pub(super) statistics: [Tensor; 2],
}

/// Gradients of the norm and of the weight of the linear layer that follows it.
pub(super) struct Gradients {
    pub(super) scale: Tensor,
    pub(super) shift: Tensor,
    pub(super) layer: Tensor,
}

impl Norm {
    /// With its scale at `scale` and its shift at 0.
    pub(super) fn build(
        from: &mut Builder<'_>,
        inputs: usize,
        scale: f32,
    ) -> std::result::Result<Self, LoadProblem> {
        let dims = [inputs];
        Ok(Self {
            weight: from.parameter("norm.weight".into(), &dims, Initial::Constant(scale))?,
            bias: from.parameter("norm.bias".into(), &dims, Initial::Constant(0.0))?,
            mean: from.statistic("norm.running_mean".into(), &dims, 0.0)?,
            var: from.statistic("norm.running_var".into(), &dims, 1.0)?,
        })
    }

    fn values(&self) -> [Tensor; 2] {
        [self.weight.as_detached_tensor(), self.bias.as_detached_tensor()]
    }

    /// By the running statistics, `[B, inputs]`.
    pub(super) fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        let (mean, var) = (self.mean.as_detached_tensor(), self.var.as_detached_tensor());
        let [_, result] = self.normalised(x, &mean, &var)?;
        Ok(result)
    }

    /// By the batch's own statistics, `[B, inputs]` of at least two rows.
    pub(super) fn train(&self, x: &Tensor) -> Result<Normalised> {
        let rows = x.dim(0)?;
        let [mean, squares] = self.moments(x)?;
        let [plain, result] = self.normalised(x, &mean, &(&squares / rows as f64)?)?;
        let moved = |running: &Var, batch: &Tensor| {
            (running.as_detached_tensor() * (1.0 - MOMENTUM))? + (batch * MOMENTUM)?
        };
        let unbiased = (squares / (rows - 1) as f64)?;
        let statistics = [moved(&self.mean, &mean)?, moved(&self.var, &unbiased)?];
        Ok(Normalised { plain, result, statistics })
    }

    /// Means of the columns, and the sums of squares of their deviations from them.
    fn moments(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        if !x.device().is_cpu() {
            return moments(x);
        }
        let [mean, squares] = rows::with([x], |[x]| rows::moments(x, self.mean.elem_count()))?;
        Ok([on_cpu(mean, &self.mean)?, on_cpu(squares, &self.mean)?])
    }

    /// With mean 0 and variance 1, and that scaled and shifted.
    fn normalised(&self, x: &Tensor, mean: &Tensor, var: &Tensor) -> Result<[Tensor; 2]> {
        let inverse = (var + EPS)?.sqrt()?.recip()?;
        let [scale, shift] = &self.values();
        if !x.device().is_cpu() {
            return normalised(x, [mean, &inverse, scale, shift]);
        }
        let [plain, result] =
            rows::with([x, mean, &inverse, scale, shift], |[x, mean, inverse, scale, shift]| {
                rows::normalised(x, [mean, inverse, scale, shift])
            })?;
        Ok([on_cpu(plain, x)?, on_cpu(result, x)?])
    }

    /// From the gradient of a following layer's result, `[B, outputs]`, and its weight `[outputs,
    /// inputs]`. The gradient of the norm's own result is never made: what is wanted of it follows
    /// from one product with the normalised batch.
    pub(super) fn backward(
        &self,
        plain: &Tensor,
        gradient: &Tensor,
        weight: &Tensor,
    ) -> Result<Gradients> {
        let product = gradient.t()?.matmul(plain)?;
        let sums = column_sums(gradient)?;
        let [scale, shift] = &self.values();
        if !plain.device().is_cpu() {
            return gradients(&product, weight, [scale, shift, &sums]);
        }
        let [of_scale, of_shift, layer] = rows::with(
            [&product, weight, scale, shift, &sums],
            |[product, weight, scale, shift, sums]| {
                rows::gradients(product, weight, [scale, shift, sums])
            },
        )?;
        Ok(Gradients {
            scale: on_cpu(of_scale, scale)?,
            shift: on_cpu(of_shift, shift)?,
            layer: on_cpu(layer, weight)?,
        })
    }
}

// The operations of `rows`, composed of ordinary ones.

fn moments(x: &Tensor) -> Result<[Tensor; 2]> {
    let mean = (column_sums(x)? / x.dim(0)? as f64)?;
    let squares = column_sums(&x.broadcast_sub(&mean)?.sqr()?)?;
    Ok([mean, squares])
}

fn normalised(x: &Tensor, [mean, inverse, scale, shift]: [&Tensor; 4]) -> Result<[Tensor; 2]> {
    let plain = x.broadcast_sub(mean)?.broadcast_mul(inverse)?;
    let result = plain.broadcast_mul(scale)?.broadcast_add(shift)?;
    Ok([plain, result])
}

fn gradients(
    product: &Tensor,
    weight: &Tensor,
    [scale, shift, sums]: [&Tensor; 3],
) -> Result<Gradients> {
    let row = sums.unsqueeze(0)?;
    let outer = row.t()?.matmul(&shift.unsqueeze(0)?)?;
    Ok(Gradients {
        scale: column_sums(&(weight * product)?)?,
        shift: row.matmul(weight)?.squeeze(0)?,
        layer: (product.broadcast_mul(scale)? + outer)?,
    })
}

/// `[rows, columns]` to `[columns]`, as a product with ones: a strided sum is far slower.
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    let ones = Tensor::ones((1, x.dim(0)?), DType::F32, x.device())?;
    ones.matmul(x)?.squeeze(0)
}

fn on_cpu(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.dims(), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense::Source;

    fn wave(rows: usize, columns: usize, step: f32) -> Tensor {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    #[track_caller]
    fn close(found: &Tensor, expected: &Tensor) {
        assert_eq!(found.dims(), expected.dims());
        let error = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap();
        let error = error.max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 2e-5, "{error}");
    }

    /// What runs on the CPU is what runs elsewhere, over more columns than one block.
    #[test]
    fn fused_and_composed_agree() {
        let (rows, columns, outputs) = (9, 300, 40);
        let mut draw = |_: usize, element: usize| (element as f64 * 0.37).fract();
        let mut from = Builder::new(Source::Draw(&mut draw), &Device::Cpu);
        let norm = Norm::build(&mut from, columns, 0.7).unwrap();
        norm.bias.set(&wave(1, columns, 0.2).squeeze(0).unwrap()).unwrap();
        let x = wave(rows, columns, 0.37);
        let fused = norm.train(&x).unwrap();
        let [mean, squares] = moments(&x).unwrap();
        close(&norm.moments(&x).unwrap()[0], &mean);
        close(&norm.moments(&x).unwrap()[1], &squares);
        let var = (squares / rows as f64).unwrap();
        let inverse = (var + EPS).unwrap().sqrt().unwrap().recip().unwrap();
        let [scale, shift] = &norm.values();
        let [plain, result] = normalised(&x, [&mean, &inverse, scale, shift]).unwrap();
        close(&fused.plain, &plain);
        close(&fused.result, &result);

        let (gradient, weight) = (wave(rows, outputs, 0.11), wave(outputs, columns, 0.23));
        let found = norm.backward(&plain, &gradient, &weight).unwrap();
        let product = gradient.t().unwrap().matmul(&plain).unwrap();
        let sums = column_sums(&gradient).unwrap();
        let expected = gradients(&product, &weight, [scale, shift, &sums]).unwrap();
        close(&found.scale, &expected.scale);
        close(&found.shift, &expected.shift);
        close(&found.layer, &expected.layer);
    }
}
