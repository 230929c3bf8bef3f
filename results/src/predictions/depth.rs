use polars::prelude::Column;
use schema::{DepthMetrics, DepthRow};

use super::{PredictionsError, Table, column};

/// A column that only depth has.
pub(super) const KIND: &str = "delta1";

pub(super) fn columns(rows: &[DepthRow]) -> Vec<Column> {
    let mut cells: [Vec<Option<f64>>; 9] = Default::default();
    for row in rows {
        let values = row.metrics.map(|metrics| metrics.named());
        for (i, cells) in cells.iter_mut().enumerate() {
            cells.push(values.map(|values| values[i].1));
        }
    }
    let path = column("path", rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>());
    let metrics = names().into_iter().zip(cells).map(|(name, cells)| column(name, cells));
    std::iter::once(path).chain(metrics).collect()
}

pub(super) fn rows(table: &Table<'_>) -> Result<Vec<DepthRow>, PredictionsError> {
    let names = names();
    let mut columns: Vec<Vec<Option<f64>>> = Vec::new();
    for name in names {
        columns.push(table.cells(name, |column| Ok(column.f64()?.iter().collect()))?);
    }
    let row = |(row, path): (usize, String)| {
        let cells: [Option<f64>; 9] =
            std::array::from_fn(|i| columns.get(i)?.get(row).copied().flatten());
        let metrics = match cells.iter().position(Option::is_none) {
            None => Some(from_cells(cells.map(Option::unwrap_or_default))),
            Some(_) if cells.iter().all(Option::is_none) => None,
            Some(i) => return Err(table.missing(names[i], row)),
        };
        Ok(DepthRow { path, metrics })
    };
    table.texts("path")?.into_iter().enumerate().map(row).collect()
}

fn names() -> [&'static str; 9] {
    DepthMetrics::default().named().map(|(name, _)| name)
}

/// The inverse of [`DepthMetrics::named`].
fn from_cells(cells: [f64; 9]) -> DepthMetrics {
    let [delta1, delta2, delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog] = cells;
    let [delta1, delta2, delta3] = [delta1, delta2, delta3].map(|percent| percent / 100.0);
    DepthMetrics { delta1, delta2, delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::SampleRows;

    use super::super::tests::{refusal, round_trip, types};
    use super::*;
    use crate::fixtures::depth_rows;

    #[test]
    fn rows_come_back_and_the_columns_are_the_documented_ones() {
        let mut rows = depth_rows(4);
        rows[1].metrics = None;
        rows[2].path = "val/küche 厨房 🍳/rgb.jpg".to_owned();
        let rows = SampleRows::Depth(rows);
        assert_eq!(round_trip(&rows), rows);
        assert_eq!(round_trip(&SampleRows::Depth(Vec::new())), SampleRows::Depth(Vec::new()));
        insta::assert_snapshot!(types(&rows), @"path str, delta1 f64, delta2 f64, delta3 f64, abs_rel f64, sq_rel f64, rmse f64, rmse_log f64, log10 f64, silog f64");
    }

    #[test]
    fn shares_are_kept_as_percentages() {
        let columns = columns(&depth_rows(1));
        let delta1 = columns[1].f64().unwrap().get(0);
        assert_eq!((columns[1].name().as_str(), delta1), ("delta1", Some(50.0)));
    }

    #[test]
    fn a_row_half_there_is_refused() {
        let mut columns = columns(&depth_rows(2));
        columns[6] = column("rmse", vec![Some(1.0), None]);
        insta::assert_snapshot!(refusal(columns), @"FILE has no value in column rmse, row 1");
    }

    proptest! {
        #[test]
        fn any_rows_come_back(
            rows in proptest::collection::vec(
                (any::<String>(), any::<Option<([f64; 3], [u64; 6])>>()), 0..20
            ),
        ) {
            let rows: Vec<DepthRow> = rows
                .into_iter()
                .map(|(path, metrics)| DepthRow {
                    path,
                    metrics: metrics.map(|(shares, bits)| {
                        let [abs_rel, sq_rel, rmse, rmse_log, log10, silog] = bits.map(f64::from_bits);
                        let [delta1, delta2, delta3] = shares.map(|share| share.abs().fract());
                        DepthMetrics {
                            delta1, delta2, delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog,
                        }
                    }),
                })
                .collect();
            let SampleRows::Depth(back) = round_trip(&SampleRows::Depth(rows.clone())) else {
                return Err(TestCaseError::fail("another kind came back"));
            };
            prop_assert_eq!(back.len(), rows.len());
            for (back, row) in back.iter().zip(&rows) {
                prop_assert_eq!(&back.path, &row.path);
                prop_assert_eq!(back.metrics.is_some(), row.metrics.is_some());
                let Some((back, row)) = back.metrics.zip(row.metrics) else { continue };
                let cells = back.named().into_iter().zip(row.named());
                for ((name, back), (_, row)) in cells {
                    let same = back.to_bits() == row.to_bits() || (back.is_nan() && row.is_nan());
                    let close = (back - row).abs() <= 4.0 * f64::EPSILON * row.abs();
                    prop_assert!(same || (name.starts_with("delta") && close), "{name}: {back} {row}");
                }
            }
        }
    }
}
