//! A layout's cells as rows: the columns of the long form, then what only a layout knows.

use polars::prelude::{
    Column, CsvWriter, DataFrame, ParquetCompression, ParquetWriter, PolarsResult, SerWriter,
};
use serde::Serialize;

use super::LayoutError;
use super::grid::{Cell, Grid};
use crate::frame::{COLUMNS, LongRow, frame};
use crate::table::disarm;

/// One cell at full precision.
#[derive(Serialize)]
struct CellRow<'a> {
    #[serde(flatten)]
    row: &'a LongRow,
    /// Standard deviation over seeds, where `value` is their mean.
    sd: Option<f64>,
    /// `run`, or the paper's table.
    source: &'a str,
    /// The paper's figure of the same backbone.
    published: Option<f64>,
    /// `value` less `published`.
    difference: Option<f64>,
    /// The cell's footnotes.
    notes: String,
}

fn rows(grids: &[Grid]) -> Vec<CellRow<'_>> {
    let row = |grid: &Grid, cell: &'_ Cell| -> String {
        let notes = cell.notes.iter().filter_map(|note| grid.notes.get(*note));
        notes.map(String::as_str).collect::<Vec<_>>().join("; ")
    };
    let mut all = Vec::new();
    for grid in grids {
        let cells = grid.groups.iter().flatten().flat_map(|row| row.cells.iter().flatten());
        all.extend(cells.map(|cell| {
            let long = &cell.long;
            CellRow {
                row: &long.row,
                sd: long.sd,
                source: &long.source,
                published: long.published,
                difference: long.published.map(|published| long.row.value - published),
                notes: row(grid, cell),
            }
        }));
    }
    all
}

fn to_frame(grids: &[Grid], text: fn(&mut String)) -> PolarsResult<DataFrame> {
    let rows = rows(grids);
    let texts = |name: &str, get: &dyn Fn(&CellRow<'_>) -> String| {
        let made = |row: &CellRow<'_>| {
            let mut made = get(row);
            text(&mut made);
            made
        };
        Column::new(name.into(), rows.iter().map(made).collect::<Vec<_>>())
    };
    let numbers = |name: &str, get: fn(&CellRow<'_>) -> Option<f64>| {
        Column::new(name.into(), rows.iter().map(get).collect::<Vec<_>>())
    };
    let mut long: Vec<LongRow> = rows.iter().map(|row| row.row.clone()).collect();
    for row in &mut long {
        row.texts_mut().into_iter().for_each(text);
    }
    let long = frame(&long)?;
    let mut columns: Vec<Column> =
        COLUMNS.iter().map(|name| long.column(name).cloned()).collect::<PolarsResult<_>>()?;
    columns.push(numbers("sd", |row| row.sd));
    columns.push(texts("source", &|row| row.source.to_owned()));
    columns.push(numbers("published", |row| row.published));
    columns.push(numbers("difference", |row| row.difference));
    columns.push(texts("notes", &|row| row.notes.clone()));
    DataFrame::new(rows.len(), columns)
}

pub(super) fn to_csv(grids: &[Grid]) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut to_frame(grids, disarm)?)?;
    Ok(bytes)
}

pub(super) fn to_json(grids: &[Grid]) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = serde_json::to_vec_pretty(&rows(grids))?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn to_parquet(grids: &[Grid]) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Snappy)
        .finish(&mut to_frame(grids, |_| ())?)?;
    Ok(bytes)
}
