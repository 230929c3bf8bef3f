//! The long form as an array of JSON objects.

use schema::RunRecord;

use super::{Exporter, TableError};
use crate::frame::long_rows;

pub(super) struct Json;

impl Exporter for Json {
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError> {
        let mut bytes = serde_json::to_vec_pretty(&long_rows(records.iter().copied()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::COLUMNS;
    use crate::fixtures::{record, records};

    #[test]
    fn rows_are_objects_with_the_columns_as_keys() {
        let records = records();
        let bytes = Json.export(&records.iter().collect::<Vec<_>>()).unwrap();
        let rows: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(&bytes).unwrap();
        assert_eq!(rows.len(), 4 * 8);
        for row in &rows {
            assert_eq!(row.len(), COLUMNS.len());
            assert!(COLUMNS.iter().all(|column| row.contains_key(*column)));
        }
        let text = String::from_utf8(bytes).unwrap();
        insta::assert_snapshot!(text.lines().take(13).collect::<Vec<_>>().join("\n"), @r#"
        [
          {
            "backbone": "pixio-b",
            "dataset": "imagenet1k",
            "head": "knn",
            "protocol": "pixio",
            "seed": 0,
            "metric": "top1@10",
            "value": 40.0,
            "ci_low": null,
            "ci_high": null,
            "selection": "last"
          },
        "#);
    }

    #[test]
    fn a_number_that_is_none_is_null() {
        let bytes = Json.export(&[&record("pixio-b", f64::NAN)]).unwrap();
        assert!(String::from_utf8(bytes).unwrap().contains("\"value\": null"));
    }
}
