//! Fused candle operations that backbones and heads share.
//!
//! | function | result |
//! |---|---|
//! | [`linear`] | `x W^T + b` |
//! | [`linear_gelu`] | `gelu(x W^T + b)` |
//! | [`linear_residual`] | `r + x W^T + b` |
//! | [`gelu`] | exact (erf) GELU |
//! | [`layer_norm`] | normalisation of the last dimension |
//! | [`attention`], [`attention_qkv`] | softmax(q k^T scale) v |
//!
//! # Two paths
//! On the CPU an operation reads the tensors' storage and runs one fused f32 kernel. On any other device,
//! and wherever an input tracks gradients, it is composed of ordinary candle operations, so that it stays
//! differentiable. The fused path's results carry no graph.
//!
//! # Precision
//! Mixed precision follows PyTorch's autocast. The dtype of a weight (f32, bf16 or f16) is the dtype of
//! its product: the input, weight and bias are rounded to it, the sum is kept in f32, and the result is
//! rounded once. GELU and attention compute in f32 and return the dtype they were given; [`layer_norm`]
//! and the residual stream of [`linear_residual`] are f32.
//!
//! # Determinism
//! Work is divided by shape alone, so the number of threads never changes a bit of a result. The
//! instruction set (AVX-512, AVX2 with FMA, or neither) and the cache sizes may.

mod attention;
mod compose;
mod gelu;
mod linear;
mod norm;
#[cfg(target_arch = "x86_64")]
mod panels;
mod product;
mod simd;
mod storage;

pub use attention::{attention, attention_qkv};
pub use gelu::gelu;
pub use linear::{linear, linear_gelu, linear_residual};
pub use norm::layer_norm;
