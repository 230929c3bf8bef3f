//! Per-sample rows as Parquet, one row a validation sample. Each kind of task has its columns; the
//! first below tells the kinds apart:
//!
//! - k-NN: `label` (u32); for every k of the protocol `pred@K` (u32), `top1@K`, `top5@K` (bool)
//! - depth: `delta1` to `delta3` (percent), `abs_rel`, `sq_rel`, `rmse`, `rmse_log`, `log10`, `silog`
//!   (f64), all null where the image did not count
//! - segmentation: `intersection`, `predicted`, `target` (list of u64: pixels by class)
//!
//! all after `path` (string), relative to the data folder. Policies have a row a rollout instead, of
//! every evaluation: `task` (string), `seed` (u64), `epoch`, `episode` (u32), `score` (f64, 0 to 100),
//! `reward` (f64, sum over the steps), `success` (bool, null where the suite does not say), `steps`
//! (u32).

mod depth;
mod knn;
mod policy;
mod segmentation;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use polars::prelude::{
    Column, DataFrame, ParquetCompression, ParquetReader, ParquetWriter, PolarsError, PolarsResult,
    SerReader,
};
use schema::SampleRows;

/// Why per-sample rows could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PredictionsError {
    /// One row was voted with other numbers of neighbours than the first.
    #[error("row {row} ({path}) has k = {found:?}, the first row has {expected:?}")]
    MixedK {
        /// Index of the row.
        row: usize,
        /// Its image.
        path: String,
        /// The first row's numbers of neighbours.
        expected: Vec<u32>,
        /// This row's.
        found: Vec<u32>,
    },
    /// One row counts other classes than the first row's intersection.
    #[error("row {row} ({path}) has {found} classes in {column}, expected {expected}")]
    MixedClasses {
        /// Index of the row.
        row: usize,
        /// Its image.
        path: String,
        /// `intersection`, `predicted` or `target`.
        column: &'static str,
        /// Classes of the first row's intersection.
        expected: usize,
        /// Classes found.
        found: usize,
    },
    /// A rollout's score is not finite.
    #[error("row {row} ({which}) has the score {found}, expected a number from 0 to 100")]
    Score {
        /// Index of the row.
        row: usize,
        /// Its task, seed, epoch and episode.
        which: String,
        /// The score.
        found: f64,
    },
    /// Two rows of one rollout.
    #[error("row {row} ({which}) is the second of this rollout")]
    EpisodeTwice {
        /// Index of the row.
        row: usize,
        /// Its task, seed, epoch and episode.
        which: String,
    },
    /// The file could not be opened.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not the Parquet file it should be.
    #[error("{} is not a complete predictions file: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader met.
        source: PolarsError,
    },
    /// A table of no known kind.
    #[error(
        "{} has the columns {}; expected label (k-NN), delta1 (depth), intersection \
         (segmentation) or episode (policies) among them",
        path.display(), found.join(", ")
    )]
    UnknownKind {
        /// The file.
        path: PathBuf,
        /// Its columns.
        found: Vec<String>,
    },
    /// A cell without a value.
    #[error("{} has no value in column {column}, row {row}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Index of the row.
        row: usize,
    },
    /// The file's rows do not fit together.
    #[error("{}: {source}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What is wrong with the rows.
        source: Box<PredictionsError>,
    },
    /// The rows could not be encoded.
    #[error("the rows cannot be written as Parquet: {0}")]
    Encode(#[from] PolarsError),
}

/// Writes rows as Parquet.
///
/// # Errors
/// [`PredictionsError::MixedK`], [`PredictionsError::MixedClasses`], [`PredictionsError::Score`],
/// [`PredictionsError::EpisodeTwice`], or when the writer fails.
pub fn write_rows(to: impl Write, rows: &SampleRows) -> Result<(), PredictionsError> {
    let (height, columns) = match rows {
        SampleRows::Knn(rows) => (rows.len(), knn::columns(rows)?),
        SampleRows::Depth(rows) => (rows.len(), depth::columns(rows)),
        SampleRows::Segmentation(rows) => (rows.len(), segmentation::columns(rows)?),
        SampleRows::Policy(rows) => (rows.len(), policy::columns(rows)?),
    };
    let mut frame = DataFrame::new(height, columns)?;
    // Snappy is the one compression that the build has anyway.
    ParquetWriter::new(to).with_compression(ParquetCompression::Snappy).finish(&mut frame)?;
    Ok(())
}

/// Reads rows written by [`write_rows`]. The shares of depth rows, kept as percentages, come back
/// within a rounding; everything else as it was.
///
/// # Errors
/// When the file cannot be opened, is truncated or of no known kind, or lacks a column or a value.
pub fn read_rows(path: &Path) -> Result<SampleRows, PredictionsError> {
    let file = File::open(path)
        .map_err(|source| PredictionsError::Io { path: path.to_owned(), source })?;
    let frame = ParquetReader::new(file)
        .finish()
        .map_err(|source| PredictionsError::Parquet { path: path.to_owned(), source })?;
    let table = Table { path, frame };
    let found: Vec<String> =
        table.frame.get_column_names().iter().map(ToString::to_string).collect();
    let has = |column: &str| found.iter().any(|name| name == column);
    if has(knn::KIND) {
        knn::rows(&table).map(SampleRows::Knn)
    } else if has(depth::KIND) {
        depth::rows(&table).map(SampleRows::Depth)
    } else if has(segmentation::KIND) {
        segmentation::rows(&table).map(SampleRows::Segmentation)
    } else if has(policy::KIND) {
        policy::rows(&table).map(SampleRows::Policy)
    } else {
        Err(PredictionsError::UnknownKind { path: path.to_owned(), found })
    }
}

/// A frame and the file it came from.
struct Table<'a> {
    path: &'a Path,
    frame: DataFrame,
}

impl Table<'_> {
    fn fails(&self, source: PolarsError) -> PredictionsError {
        PredictionsError::Parquet { path: self.path.to_owned(), source }
    }

    fn missing(&self, column: &str, row: usize) -> PredictionsError {
        PredictionsError::Missing { path: self.path.to_owned(), column: column.to_owned(), row }
    }

    /// The cells of a column, as `get` reads them.
    fn cells<'c, T>(
        &'c self,
        name: &str,
        get: impl FnOnce(&'c Column) -> PolarsResult<Vec<Option<T>>>,
    ) -> Result<Vec<Option<T>>, PredictionsError> {
        self.frame.column(name).and_then(get).map_err(|source| self.fails(source))
    }

    /// The cells of a column in which every row has a value.
    fn values<'c, T>(
        &'c self,
        name: &str,
        get: impl FnOnce(&'c Column) -> PolarsResult<Vec<Option<T>>>,
    ) -> Result<Vec<T>, PredictionsError> {
        let cells = self.cells(name, get)?.into_iter().enumerate();
        cells.map(|(row, cell)| cell.ok_or_else(|| self.missing(name, row))).collect()
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, PredictionsError> {
        let text = |cell: Option<&str>| cell.map(str::to_owned);
        self.values(name, |column| Ok(column.str()?.iter().map(text).collect()))
    }
}

fn column<T, P: ?Sized>(name: impl Into<String>, values: T) -> Column
where
    polars::prelude::Series: polars::prelude::NamedFrom<T, P>,
{
    Column::new(name.into().into(), values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{depth_rows, episode_rows, prediction_rows, segmentation_rows};

    pub(super) fn round_trip(rows: &SampleRows) -> SampleRows {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_rows(file.as_file(), rows).unwrap();
        read_rows(file.path()).unwrap()
    }

    /// Names and types of the columns as they stand in the file.
    pub(super) fn types(rows: &SampleRows) -> String {
        let mut bytes = Vec::new();
        write_rows(&mut bytes, rows).unwrap();
        let frame = ParquetReader::new(io::Cursor::new(bytes)).finish().unwrap();
        let columns = frame.columns().iter().map(|c| format!("{} {}", c.name(), c.dtype()));
        columns.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        for rows in [
            SampleRows::Knn(prediction_rows(50)),
            SampleRows::Depth(depth_rows(50)),
            SampleRows::Segmentation(segmentation_rows(50, 7)),
            SampleRows::Policy(episode_rows(10)),
        ] {
            let mut bytes = Vec::new();
            write_rows(&mut bytes, &rows).unwrap();
            for length in (0..bytes.len()).step_by(17) {
                let file = tempfile::NamedTempFile::new().unwrap();
                file.as_file().write_all(&bytes[..length]).unwrap();
                let error = read_rows(file.path()).unwrap_err();
                assert!(error.to_string().contains("not a complete predictions file"), "{error}");
            }
        }
    }

    /// Why a file with these columns is refused, without its name.
    pub(super) fn refusal(columns: Vec<Column>) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let height = columns[0].len();
        let mut frame = DataFrame::new(height, columns).unwrap();
        ParquetWriter::new(file.as_file())
            .with_compression(ParquetCompression::Snappy)
            .finish(&mut frame)
            .unwrap();
        let error = read_rows(file.path()).unwrap_err().to_string();
        error.replace(file.path().to_str().unwrap(), "FILE")
    }

    #[test]
    fn a_foreign_table_is_told_what_is_missing() {
        let path = || column("path", vec!["a.png"]);
        insta::assert_snapshot!(refusal(vec![path(), column("size", vec![1_u32])]), @"FILE has the columns path, size; expected label (k-NN), delta1 (depth), intersection (segmentation) or episode (policies) among them");
        insta::assert_snapshot!(refusal(vec![path(), column("label", vec!["one"])]), @"FILE is not a complete predictions file: invalid series dtype: expected `UInt32`, got `str` for series with name `label`");
        insta::assert_snapshot!(refusal(vec![path(), column("delta1", vec![Some(1.0)])]), @r#"FILE is not a complete predictions file: not found: "delta2" not found"#);
    }
}
