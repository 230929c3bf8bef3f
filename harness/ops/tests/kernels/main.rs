//! The CUDA kernels, run on the processor by the emulation in `kernels/host`, against plain computations.

#![allow(clippy::unwrap_used, clippy::panic)]

mod adamw;
mod attention;
mod emulation;
mod host;
mod images;
mod losses;
mod norm;
mod tokens;
mod topk;
