//! What remains of a run: records, per-sample rows and tables.
//!
//! [`Store`] keeps run folders under one `--out` folder (the format is in the documentation of
//! [`schema::RunRecord`]), [`frame`] joins records into one long frame, [`render`] writes it in
//! the formats of [`Format`] and [`runs_table`] lists what is in the store. [`picture`] shows a
//! validation image with its truth, prediction and error.

mod font;
mod frame;
mod headline;
pub mod picture;
mod predictions;
mod runs;
mod store;
mod table;
mod text;

#[cfg(test)]
mod fixtures;

pub use frame::{COLUMNS, LongRow, frame, long_rows};
pub use predictions::{PredictionsError, read_rows, write_rows};
pub use runs::{RunLine, run_lines, runs_json, runs_table};
pub use store::{Listed, RunDir, Status, Store, StoreError, remove_unfinished, write_whole};
pub use table::{Exporter, Format, TableError, TableOptions, UnknownFormat, render};
