//! Several files of one table into one, for compaction: the same rows, sorted by time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::{Table, TableError, write};

/// Merges files; those whose columns differ (an older version wrote fewer) come out as files of their own. Each with its
/// number of rows.
///
/// # Errors
/// When a file is not one of flowtrail's tables, or cannot be written.
pub fn merge_files(table: Table, files: Vec<Vec<u8>>) -> Result<Vec<(Vec<u8>, u64)>, TableError> {
    let mut kinds: Vec<(SchemaRef, Vec<RecordBatch>)> = Vec::new();
    for bytes in files {
        for batch in read(bytes)? {
            match kinds.iter_mut().find(|(schema, _)| *schema == batch.schema()) {
                Some((_, batches)) => batches.push(batch),
                None => kinds.push((batch.schema(), vec![batch])),
            }
        }
    }
    let bad = |e: arrow::error::ArrowError| TableError::Write { table: table.name(), why: e.to_string() };
    kinds
        .into_iter()
        .map(|(schema, batches)| {
            let all = concat_batches(&schema, &batches).map_err(bad)?;
            let sorted = take_record_batch(&all, &by_time(&all)).map_err(bad)?;
            Ok((write(table, &sorted)?, sorted.num_rows() as u64))
        })
        .collect()
}

fn read(bytes: Vec<u8>) -> Result<Vec<RecordBatch>, TableError> {
    let bad = |why: String| TableError::Read { why };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(Bytes::from(bytes), options)
        .and_then(|b| b.with_batch_size(1 << 16).build())
        .map_err(|e| bad(e.to_string()))?;
    reader
        .map(|batch| {
            let batch = batch.map_err(|e| bad(e.to_string()))?;
            // The file's key-value pairs are the writer's to give, once.
            let schema = Arc::new(Schema::new(batch.schema().fields().clone()));
            batch.with_schema(schema).map_err(|e| bad(e.to_string()))
        })
        .collect()
}

/// The order of rows by the first column that is a time; rows of one time stay as they were.
fn by_time(batch: &RecordBatch) -> UInt32Array {
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    let is_time = |c: &&Arc<dyn Array>| matches!(c.data_type(), arrow::datatypes::DataType::Timestamp(TimeUnit::Microsecond, _));
    if let Some(times) = batch.columns().iter().find(is_time) {
        let times = times.as_primitive::<TimestampMicrosecondType>();
        order.sort_by_key(|row| times.is_valid(*row as usize).then(|| times.value(*row as usize)));
    }
    order.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use flowtrail_ingest::EventTime;

    use super::*;
    use crate::tables::{RejectRow, encode, read_rows};

    fn file(times: &[i64]) -> Vec<u8> {
        let row =
            |t: &i64| RejectRow { time: EventTime(*t), key: format!("k{t}"), position: (t % 2 == 0).then_some(7), ..RejectRow::default() };
        encode(times.iter().map(row).collect()).unwrap()
    }

    #[test]
    fn the_same_rows_in_order_of_time() {
        let merged = merge_files(Table::Rejects, vec![file(&[5, 1]), file(&[3]), file(&[2, 9])]).unwrap();
        let [(bytes, rows)] = merged.as_slice() else { panic!("{} files", merged.len()) };
        assert_eq!(*rows, 5);
        assert_eq!(read_rows(bytes.clone()).unwrap(), read_rows(file(&[1, 2, 3, 5, 9])).unwrap());
        assert_eq!(bytes, &file(&[1, 2, 3, 5, 9]), "a merged file is the file of all rows");
    }

    #[test]
    fn damage_is_an_error() {
        let mut bad = file(&[1]);
        bad.truncate(bad.len() / 2);
        assert!(merge_files(Table::Rejects, vec![file(&[1]), bad]).is_err());
    }
}
