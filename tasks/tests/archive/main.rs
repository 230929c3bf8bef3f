//! Files in archives, against the files that were packed.

mod cached;
mod classes;
mod containers;
mod hostile;
mod make;
mod make_parquet;
mod parquet;
