use polars::prelude::{
    Column, DataType, IntoColumn, ListBuilderTrait, ListPrimitiveChunkedBuilder, PolarsResult,
    UInt64Type,
};
use schema::SegmentationRow;

use super::{PredictionsError, Table, column};

/// A column that only segmentation has.
pub(super) const KIND: &str = "intersection";

type Counts = fn(&SegmentationRow) -> &[u64];
const COUNTS: [(&str, Counts); 3] = [
    (KIND, |row| &row.intersection),
    ("predicted", |row| &row.predicted),
    ("target", |row| &row.target),
];

pub(super) fn columns(rows: &[SegmentationRow]) -> Result<Vec<Column>, PredictionsError> {
    same_classes(rows)?;
    let mut columns =
        vec![column("path", rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>())];
    for (name, counts) in COUNTS {
        let total = rows.iter().map(|row| counts(row).len()).sum();
        let mut lists = ListPrimitiveChunkedBuilder::<UInt64Type>::new(
            name.into(),
            rows.len(),
            total,
            DataType::UInt64,
        );
        for row in rows {
            lists.append_slice(counts(row));
        }
        columns.push(lists.finish().into_column());
    }
    Ok(columns)
}

pub(super) fn rows(table: &Table<'_>) -> Result<Vec<SegmentationRow>, PredictionsError> {
    let lists = |name: &str| -> Result<Vec<Vec<u64>>, PredictionsError> {
        let lists = table.values(name, |column| {
            let cells = column.list()?.series_iter().map(|list| {
                list.map(|list| Ok(list.u64()?.iter().collect::<Vec<Option<u64>>>())).transpose()
            });
            cells.collect::<PolarsResult<Vec<_>>>()
        })?;
        let rows = lists.into_iter().enumerate().map(|(row, counts)| {
            let counts: Option<Vec<u64>> = counts.into_iter().collect();
            counts.ok_or_else(|| table.missing(name, row))
        });
        rows.collect()
    };
    let [(intersection, _), (predicted, _), (target, _)] = COUNTS;
    let (intersection, predicted) = (lists(intersection)?, lists(predicted)?);
    let rows: Vec<SegmentationRow> = table
        .texts("path")?
        .into_iter()
        .zip(intersection.into_iter().zip(predicted).zip(lists(target)?))
        .map(|(path, ((intersection, predicted), target))| SegmentationRow {
            path,
            intersection,
            predicted,
            target,
        })
        .collect();
    same_classes(&rows).map_err(|source| PredictionsError::Inconsistent {
        path: table.path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(rows)
}

fn same_classes(rows: &[SegmentationRow]) -> Result<(), PredictionsError> {
    let expected = rows.first().map_or(0, |row| row.intersection.len());
    for (i, row) in rows.iter().enumerate() {
        for (column, counts) in COUNTS {
            let found = counts(row).len();
            if found != expected {
                let (row, path) = (i, row.path.clone());
                return Err(PredictionsError::MixedClasses { row, path, column, expected, found });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::SampleRows;

    use super::super::tests::{refusal, round_trip, types};
    use super::super::write_rows;
    use super::*;
    use crate::fixtures::segmentation_rows;

    #[test]
    fn rows_come_back_and_the_columns_are_the_documented_ones() {
        let mut rows = segmentation_rows(4, 21);
        rows[2].path = "val/straße 街道 🛣/rgb.jpg".to_owned();
        rows[3].target.fill(u64::MAX);
        let rows = SampleRows::Segmentation(rows);
        assert_eq!(round_trip(&rows), rows);
        insta::assert_snapshot!(types(&rows), @"path str, intersection list[u64], predicted list[u64], target list[u64]");

        for rows in [Vec::new(), segmentation_rows(3, 0)] {
            let rows = SampleRows::Segmentation(rows);
            assert_eq!(round_trip(&rows), rows);
        }
    }

    #[test]
    fn a_row_with_other_classes_is_refused() {
        let told = |rows: Vec<SegmentationRow>| {
            write_rows(Vec::new(), &SampleRows::Segmentation(rows)).unwrap_err().to_string()
        };
        let mut rows = segmentation_rows(3, 7);
        rows[1].target.pop();
        insta::assert_snapshot!(told(rows), @"row 1 (validation/00000001.jpg) has 6 classes in target, expected 7");
        let mut rows = segmentation_rows(1, 7);
        rows[0].predicted.clear();
        insta::assert_snapshot!(told(rows), @"row 0 (validation/00000000.jpg) has 0 classes in predicted, expected 7");
    }

    #[test]
    fn a_file_without_a_count_is_refused() {
        let good = columns(&segmentation_rows(2, 2)).unwrap();
        let refused = |last: Option<Vec<Option<u64>>>| {
            let mut lists = ListPrimitiveChunkedBuilder::<UInt64Type>::new(
                "target".into(),
                2,
                4,
                DataType::UInt64,
            );
            lists.append_slice(&[1, 2]);
            match last {
                Some(counts) => lists.append_iter(counts.into_iter()),
                None => lists.append_null(),
            }
            let mut columns = good.clone();
            columns[3] = lists.finish().into_column();
            refusal(columns)
        };
        insta::assert_snapshot!(refused(Some(vec![Some(1), None])), @"FILE has no value in column target, row 1");
        insta::assert_snapshot!(refused(Some(vec![Some(1)])), @"FILE: row 1 (validation/00000001.jpg) has 1 classes in target, expected 2");
        insta::assert_snapshot!(refused(None), @"FILE has no value in column target, row 1");
    }

    proptest! {
        #[test]
        fn any_rows_come_back(
            (classes, rows) in (0_usize..5).prop_flat_map(|classes| {
                let counts = proptest::collection::vec(any::<[u64; 3]>(), classes);
                (Just(classes), proptest::collection::vec((any::<String>(), counts), 0..20))
            }),
        ) {
            let rows: Vec<SegmentationRow> = rows
                .into_iter()
                .map(|(path, counts)| SegmentationRow {
                    path,
                    intersection: counts.iter().map(|c| c[0]).collect(),
                    predicted: counts.iter().map(|c| c[1]).collect(),
                    target: counts.iter().map(|c| c[2]).collect(),
                })
                .collect();
            prop_assert!(rows.iter().all(|row| row.target.len() == classes));
            let rows = SampleRows::Segmentation(rows);
            prop_assert_eq!(round_trip(&rows), rows);
        }
    }
}
