//! Per-sample rows as Parquet: `path` (string), `label` (u32) and for every k of the protocol
//! `pred@K` (u32), `top1@K` and `top5@K` (bool), in the protocol's order.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use polars::prelude::{
    Column, DataFrame, ParquetCompression, ParquetReader, ParquetWriter, PolarsError, SerReader,
};
use schema::{KPrediction, PredictionRow};

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
    /// The rows could not be encoded.
    #[error("the rows cannot be written as Parquet: {0}")]
    Encode(#[from] PolarsError),
}

/// Writes rows as Parquet.
///
/// # Errors
/// [`PredictionsError::MixedK`], or when the writer fails.
pub fn write_predictions(to: impl Write, rows: &[PredictionRow]) -> Result<(), PredictionsError> {
    let ks = |row: &PredictionRow| row.by_k.iter().map(|by| by.k).collect::<Vec<_>>();
    let expected = rows.first().map(ks).unwrap_or_default();
    if let Some((row, odd)) = rows.iter().enumerate().find(|(_, row)| ks(row) != expected) {
        let (path, found) = (odd.path.clone(), ks(odd));
        return Err(PredictionsError::MixedK { row, path, expected, found });
    }

    let mut columns = vec![
        column("path", rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>()),
        column("label", rows.iter().map(|row| row.label).collect::<Vec<_>>()),
    ];
    for (i, k) in expected.iter().enumerate() {
        let by = || rows.iter().filter_map(move |row| row.by_k.get(i));
        columns.push(column(format!("pred@{k}"), by().map(|b| b.predicted).collect::<Vec<_>>()));
        columns.push(column(format!("top1@{k}"), by().map(|b| b.top1).collect::<Vec<_>>()));
        columns.push(column(format!("top5@{k}"), by().map(|b| b.top5).collect::<Vec<_>>()));
    }
    let mut frame = DataFrame::new(rows.len(), columns)?;
    // Snappy is the one compression that the build has anyway.
    ParquetWriter::new(to).with_compression(ParquetCompression::Snappy).finish(&mut frame)?;
    Ok(())
}

/// Reads rows written by [`write_predictions`].
///
/// # Errors
/// When the file cannot be opened, is truncated, or lacks a column or a value.
pub fn read_predictions(path: &Path) -> Result<Vec<PredictionRow>, PredictionsError> {
    let file = File::open(path)
        .map_err(|source| PredictionsError::Io { path: path.to_owned(), source })?;
    let parquet = |source| PredictionsError::Parquet { path: path.to_owned(), source };
    let frame = ParquetReader::new(file).finish().map_err(parquet)?;
    let get = |name: &str| frame.column(name).map_err(parquet);

    let paths = get("path")?;
    let paths = values(path, paths, paths.str().map_err(parquet)?.iter())?;
    let labels = get("label")?;
    let labels = values(path, labels, labels.u32().map_err(parquet)?.iter())?;
    let mut rows: Vec<PredictionRow> = paths
        .into_iter()
        .zip(labels)
        .map(|(path, label)| PredictionRow { path: path.to_owned(), label, by_k: Vec::new() })
        .collect();

    let names = frame.get_column_names();
    let ks = names.iter().filter_map(|name| name.strip_prefix("pred@")?.parse::<u32>().ok());
    for k in ks {
        let predicted = get(&format!("pred@{k}"))?;
        let predicted = values(path, predicted, predicted.u32().map_err(parquet)?.iter())?;
        let top1 = get(&format!("top1@{k}"))?;
        let top1 = values(path, top1, top1.bool().map_err(parquet)?.iter())?;
        let top5 = get(&format!("top5@{k}"))?;
        let top5 = values(path, top5, top5.bool().map_err(parquet)?.iter())?;
        for (((row, predicted), top1), top5) in rows.iter_mut().zip(predicted).zip(top1).zip(top5) {
            row.by_k.push(KPrediction { k, predicted, top1, top5 });
        }
    }
    Ok(rows)
}

fn column<T, P: ?Sized>(name: impl Into<String>, values: T) -> Column
where
    polars::prelude::Series: polars::prelude::NamedFrom<T, P>,
{
    Column::new(name.into().into(), values)
}

fn values<T>(
    path: &Path,
    column: &Column,
    cells: impl IntoIterator<Item = Option<T>>,
) -> Result<Vec<T>, PredictionsError> {
    let missing = |row| PredictionsError::Missing {
        path: path.to_owned(),
        column: column.name().to_string(),
        row,
    };
    cells.into_iter().enumerate().map(|(row, cell)| cell.ok_or_else(|| missing(row))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::prediction_rows;

    fn round_trip(rows: &[PredictionRow]) -> Vec<PredictionRow> {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_predictions(file.as_file(), rows).unwrap();
        read_predictions(file.path()).unwrap()
    }

    #[test]
    fn rows_come_back_and_the_columns_are_the_documented_ones() {
        let rows = prediction_rows(3);
        assert_eq!(round_trip(&rows), rows);
        assert_eq!(round_trip(&[]), []);

        let mut bytes = Vec::new();
        write_predictions(&mut bytes, &rows).unwrap();
        let frame = ParquetReader::new(io::Cursor::new(bytes)).finish().unwrap();
        let columns: Vec<_> =
            frame.columns().iter().map(|c| format!("{} {}", c.name(), c.dtype())).collect();
        insta::assert_snapshot!(columns.join(", "), @"path str, label u32, pred@10 u32, top1@10 bool, top5@10 bool, pred@20 u32, top1@20 bool, top5@20 bool");
    }

    #[test]
    fn a_row_with_another_k_is_refused() {
        let mut rows = prediction_rows(3);
        rows[1].by_k.pop();
        let error = write_predictions(Vec::new(), &rows).unwrap_err();
        insta::assert_snapshot!(error, @"row 1 (val/n0001/1.png) has k = [10], the first row has [10, 20]");
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let mut bytes = Vec::new();
        write_predictions(&mut bytes, &prediction_rows(50)).unwrap();
        for length in (0..bytes.len()).step_by(17) {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().write_all(&bytes[..length]).unwrap();
            let error = read_predictions(file.path()).unwrap_err();
            assert!(error.to_string().contains("not a complete predictions file"), "{error}");
        }
    }

    #[test]
    fn a_foreign_table_names_the_column_that_is_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut frame = DataFrame::new(1, vec![column("path", vec!["a.png"])]).unwrap();
        ParquetWriter::new(file.as_file())
            .with_compression(ParquetCompression::Snappy)
            .finish(&mut frame)
            .unwrap();
        let error = read_predictions(file.path()).unwrap_err();
        assert!(error.to_string().contains("label"), "{error}");
    }

    proptest! {
        #[test]
        fn any_rows_come_back(
            rows in proptest::collection::vec((any::<String>(), any::<u32>(), any::<[(u32, bool, bool); 2]>()), 0..20),
        ) {
            let rows: Vec<PredictionRow> = rows
                .into_iter()
                .map(|(path, label, by)| {
                    let by_k = [10, 20].into_iter().zip(by).map(|(k, (predicted, top1, top5))| {
                        KPrediction { k, predicted, top1, top5 }
                    });
                    PredictionRow { path, label, by_k: by_k.collect() }
                })
                .collect();
            prop_assert_eq!(round_trip(&rows), rows);
        }
    }
}
