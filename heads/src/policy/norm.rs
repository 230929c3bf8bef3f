//! Batch norm of the input, as PyTorch's `BatchNorm1d`.

use candle_core::{DType, Result, Tensor, Var};

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

/// Gradients of the norm and of the linear layer that follows it.
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

    fn scaled(&self, plain: &Tensor) -> Result<Tensor> {
        plain
            .broadcast_mul(&self.weight.as_detached_tensor())?
            .broadcast_add(&self.bias.as_detached_tensor())
    }

    /// By the running statistics, `[B, inputs]`.
    pub(super) fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        let (mean, var) = (self.mean.as_detached_tensor(), self.var.as_detached_tensor());
        self.scaled(&x.broadcast_sub(&mean)?.broadcast_mul(&inverse_root(&var)?)?)
    }

    /// By the batch's own statistics, `[B, inputs]` of at least two rows.
    pub(super) fn train(&self, x: &Tensor) -> Result<Normalised> {
        let rows = x.dim(0)?;
        let mean = (column_sums(x)? / rows as f64)?;
        let centred = x.broadcast_sub(&mean)?;
        let squares = column_sums(&centred.sqr()?)?;
        let plain = centred.broadcast_mul(&inverse_root(&(&squares / rows as f64)?)?)?;
        let moved = |running: &Var, batch: &Tensor| {
            (running.as_detached_tensor() * (1.0 - MOMENTUM))? + (batch * MOMENTUM)?
        };
        let unbiased = (squares / (rows - 1) as f64)?;
        let statistics = [moved(&self.mean, &mean)?, moved(&self.var, &unbiased)?];
        Ok(Normalised { result: self.scaled(&plain)?, plain, statistics })
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
        let sums = column_sums(gradient)?.unsqueeze(0)?;
        let bias = self.bias.as_detached_tensor().unsqueeze(0)?;
        Ok(Gradients {
            scale: column_sums(&(weight * &product)?)?,
            shift: sums.matmul(weight)?.squeeze(0)?,
            layer: (product.broadcast_mul(&self.weight.as_detached_tensor())?
                + sums.t()?.matmul(&bias)?)?,
        })
    }
}

fn inverse_root(var: &Tensor) -> Result<Tensor> {
    (var + EPS)?.sqrt()?.recip()
}

/// `[rows, columns]` to `[columns]`, as a product with ones: a strided sum is far slower.
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    let ones = Tensor::ones((1, x.dim(0)?), DType::F32, x.device())?;
    ones.matmul(x)?.squeeze(0)
}
