//! Sweeps: many cells, one (backbone, head, settings) each, on several devices and machines.

pub mod claims;
