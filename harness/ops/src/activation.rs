//! What stands between the two layers of an MLP.

use candle_core::{Result, Tensor, bail};

use crate::{compose, gelu};

/// The nonlinearity of an MLP's hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU with the error function, as [`gelu`](crate::gelu()).
    Gelu,
    /// `x sigmoid(1.702 x)` (Hendrycks and Gimpel, arXiv 1606.08415).
    QuickGelu,
    /// GELU by the tanh approximation.
    GeluTanh,
    /// `silu(a) * b` of the halves `a` and `b` of the last dimension (Shazeer, arXiv 2002.05202).
    SwiGlu,
}

/// The activation of `x` `[.., D]`, computed in f32 and returned in the dtype of `x`: `[.., D]`, or
/// `[.., D / 2]` of [`Activation::SwiGlu`].
///
/// # Errors
/// If `x` is a scalar or its last dimension odd where it is halved, not of a floating type, or the device
/// fails.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::SwiGlu && !x.dims().last().is_some_and(|d| d.is_multiple_of(2)) {
        bail!("activate: expected an even last dimension, found {:?}", x.dims());
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::tokens::activate(x, activation)? {
        return Ok(y);
    }
    match activation {
        Activation::Gelu => gelu(x),
        other => compose::activate(x, other),
    }
}
