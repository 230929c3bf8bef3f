//! Operations on images whose channels lie side by side, `[B, H, W, C]` ([`Format::Pixels`](crate::Format)).
//!
//! Each is put together from a few steps: custom operations with kernels on a GPU and plain loops on the CPU, so
//! that the gradients, which are made of the same steps, are tested on any machine. Values are in the dtype of
//! the weight, sums in f32, and a step's result is rounded once.

pub(crate) mod conv;
pub(crate) mod host;
pub(crate) mod join;
pub(crate) mod norm;
pub(crate) mod place;
pub(crate) mod resize;
pub(crate) mod sums;
pub(crate) mod swap;
pub(crate) mod window;
