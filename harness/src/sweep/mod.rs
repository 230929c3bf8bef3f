//! Sweeps: grids of cells that share passes of an encoder.

pub mod file;
