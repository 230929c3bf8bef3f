//! What is trained or searched on frozen features. One module a head; a head knows features and
//! labels, not images, encoders or files.

pub mod dense;
pub mod knn;
pub mod policy;
