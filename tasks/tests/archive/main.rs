//! Files in archives, against the files that were packed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cached;
mod classes;
mod containers;
mod hostile;
mod make;
mod make_parquet;
mod parquet;
