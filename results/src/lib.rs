//! What remains of a run: records, per-sample rows and tables.
//!
//! [`Store`] keeps run folders under one `--out` folder (the format is in the documentation of
//! [`schema::RunRecord`]), [`frame`] joins records into one long frame, [`render`] writes it in
//! the formats of [`Format`] and [`runs_table`] lists what is in the store. [`picture`] shows a
//! validation image with its truth, prediction and error. [`statistics`] puts intervals around a run's
//! numbers when it is finished, and [`compare`] sets backbones against each other on the same images.

mod card;
pub mod compare;
mod departures;
mod font;
mod frame;
mod headline;
mod layout;
pub mod picture;
pub mod plot;
mod predictions;
pub mod report;
mod runs;
pub mod statistics;
mod store;
mod table;
mod text;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod many_runs;

pub use card::{CardError, model_card};
pub use frame::{COLUMNS, LongRow, frame, long_rows};
pub use layout::{Layout, LayoutError, LayoutOptions};
pub use predictions::{PredictionsError, read_rows, write_rows};
pub use runs::{
    Difference, MetricPair, RunDiff, RunFilter, RunIdError, RunLine, diff_runs, find_run, left_out,
    run_lines, runs_json, runs_table, show_run,
};
pub use store::{
    ArchiveError, Imported, LOCK, Listed, RunDir, Status, Store, StoreError, delete_run,
    export_runs, import_runs, remove_unfinished, write_whole,
};
pub use table::{Exporter, Format, TableError, TableOptions, UnknownFormat, choose, render};
