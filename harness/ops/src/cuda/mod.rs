//! The operations on an NVIDIA GPU: kernels of our own (`kernels/*.cu`) and NVIDIA's libraries.
//!
//! Everything runs on candle's stream of the device and returns before it is done. A function that returns
//! `Option` gives none for inputs that it does not serve (elsewhere, tracked, of other dtypes or shapes).

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod conv;
#[cfg(feature = "cudnn")]
mod cudnn;
pub(crate) mod images;
pub(crate) mod launch;
pub(crate) mod losses;
pub(crate) mod product;
pub(crate) mod tokens;
pub(crate) mod topk;
