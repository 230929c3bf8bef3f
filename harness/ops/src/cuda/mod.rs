//! The operations on an NVIDIA GPU: kernels of our own (`kernels/*.cu`) and NVIDIA's libraries.
//!
//! Everything runs on candle's stream of the device and returns before it is done.

pub(crate) mod adamw;
pub(crate) mod launch;
pub(crate) mod losses;
pub(crate) mod topk;
