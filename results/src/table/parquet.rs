//! The long form as Parquet.

use polars::prelude::{ParquetCompression, ParquetWriter};
use schema::RunRecord;

use super::{Exporter, TableError};
use crate::frame::{frame, long_rows};

pub(super) struct Parquet;

impl Exporter for Parquet {
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError> {
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes)
            .with_compression(ParquetCompression::Snappy)
            .finish(&mut frame(&long_rows(records.iter().copied()))?)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use polars::prelude::{ParquetReader, SerReader};

    use super::*;
    use crate::fixtures::records;

    #[test]
    fn the_frame_comes_back() {
        let records = records();
        let bytes = Parquet.export(&records.iter().collect::<Vec<_>>()).unwrap();
        let back = ParquetReader::new(Cursor::new(bytes)).finish().unwrap();
        assert!(back.equals_missing(&frame(&long_rows(&records)).unwrap()));
    }
}
