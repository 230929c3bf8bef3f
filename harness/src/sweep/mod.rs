//! Sweeps: many cells, planned as passes of the encoder, and the processes that carry them out.

pub mod launch;
