//! What is measured: data sets, image transforms, protocols and metrics.
//!
//! Nothing here knows an encoder or a head. [`files`] reads the files of a data set wherever they are,
//! [`data`] finds its samples, [`mod@image`]
//! turns their files into encoder input, [`dense`] does both for images with a depth or a class a
//! pixel, [`robot`] has demonstrations of robot tasks, [`random`] decides every draw, and [`sample`] generates small data sets to try all of it
//! on.

pub mod archive;
pub mod data;
pub mod dense;
pub mod files;
pub mod image;
pub mod metrics;
pub mod robot;
pub mod sample;
pub mod verify;

pub use schema::random;
