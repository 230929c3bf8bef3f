//! Metrics of dense predictions, image by image, and the sliding windows they are predicted in.

mod depth;
mod segmentation;
mod windows;

pub use depth::{depth_metrics, mean};
pub use segmentation::{ClassCounts, LabelOutside};
pub use windows::{Window, windows};
