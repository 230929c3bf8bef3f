//! What is measured: data sets, image transforms, protocols and metrics.
//!
//! Nothing here knows an encoder or a head. [`data`] finds the samples of a data set, [`mod@image`]
//! turns their files into encoder input, [`random`] decides every draw, and [`sample`] generates
//! small data sets to try all of it on.

pub mod data;
pub mod image;
pub mod random;
pub mod sample;
