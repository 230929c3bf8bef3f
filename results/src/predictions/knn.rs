use polars::prelude::Column;
use schema::{KPrediction, PredictionRow};

use super::{PredictionsError, Table, column};

/// The column that only k-NN has.
pub(super) const KIND: &str = "label";

pub(super) fn columns(rows: &[PredictionRow]) -> Result<Vec<Column>, PredictionsError> {
    let ks = |row: &PredictionRow| row.by_k.iter().map(|by| by.k).collect::<Vec<_>>();
    let expected = rows.first().map(ks).unwrap_or_default();
    if let Some((row, odd)) = rows.iter().enumerate().find(|(_, row)| ks(row) != expected) {
        let (path, found) = (odd.path.clone(), ks(odd));
        return Err(PredictionsError::MixedK { row, path, expected, found });
    }

    let mut columns = vec![
        column("path", rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>()),
        column(KIND, rows.iter().map(|row| row.label).collect::<Vec<_>>()),
    ];
    for (i, k) in expected.iter().enumerate() {
        let by = || rows.iter().filter_map(move |row| row.by_k.get(i));
        columns.push(column(format!("pred@{k}"), by().map(|b| b.predicted).collect::<Vec<_>>()));
        columns.push(column(format!("top1@{k}"), by().map(|b| b.top1).collect::<Vec<_>>()));
        columns.push(column(format!("top5@{k}"), by().map(|b| b.top5).collect::<Vec<_>>()));
    }
    Ok(columns)
}

pub(super) fn rows(table: &Table<'_>) -> Result<Vec<PredictionRow>, PredictionsError> {
    let numbers = |name: &str| table.values(name, |column| Ok(column.u32()?.iter().collect()));
    let flags = |name: &str| table.values(name, |column| Ok(column.bool()?.iter().collect()));

    let mut rows: Vec<PredictionRow> = table
        .texts("path")?
        .into_iter()
        .zip(numbers(KIND)?)
        .map(|(path, label)| PredictionRow { path, label, by_k: Vec::new() })
        .collect();
    let names = table.frame.get_column_names();
    for k in names.iter().filter_map(|name| name.strip_prefix("pred@")?.parse::<u32>().ok()) {
        let predicted = numbers(&format!("pred@{k}"))?;
        let top1 = flags(&format!("top1@{k}"))?;
        let top5 = flags(&format!("top5@{k}"))?;
        for (row, ((predicted, top1), top5)) in
            rows.iter_mut().zip(predicted.into_iter().zip(top1).zip(top5))
        {
            row.by_k.push(KPrediction { k, predicted, top1, top5 });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::SampleRows;

    use super::super::tests::{round_trip, types};
    use super::super::write_rows;
    use super::*;
    use crate::fixtures::prediction_rows;

    #[test]
    fn rows_come_back_and_the_columns_are_the_documented_ones() {
        let rows = SampleRows::Knn(prediction_rows(3));
        assert_eq!(round_trip(&rows), rows);
        assert_eq!(round_trip(&SampleRows::Knn(Vec::new())), SampleRows::Knn(Vec::new()));
        insta::assert_snapshot!(types(&rows), @"path str, label u32, pred@10 u32, top1@10 bool, top5@10 bool, pred@20 u32, top1@20 bool, top5@20 bool");
    }

    #[test]
    fn a_row_with_another_k_is_refused() {
        let mut rows = prediction_rows(3);
        rows[1].by_k.pop();
        let error = write_rows(Vec::new(), &SampleRows::Knn(rows)).unwrap_err();
        insta::assert_snapshot!(error, @"row 1 (val/n0001/1.png) has k = [10], the first row has [10, 20]");
    }

    proptest! {
        #[test]
        fn any_rows_come_back(
            rows in proptest::collection::vec((any::<String>(), any::<u32>(), any::<[(u32, bool, bool); 2]>()), 0..20),
        ) {
            let rows = rows
                .into_iter()
                .map(|(path, label, by)| {
                    let by_k = [10, 20].into_iter().zip(by).map(|(k, (predicted, top1, top5))| {
                        KPrediction { k, predicted, top1, top5 }
                    });
                    PredictionRow { path, label, by_k: by_k.collect() }
                })
                .collect();
            let rows = SampleRows::Knn(rows);
            prop_assert_eq!(round_trip(&rows), rows);
        }
    }
}
