//! Table files back into rows: for `explain`, `entity` and whoever wants JSON.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use flowtrail_ingest::EventTime;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::TableError;

/// The rows of a file as JSON objects: names and order of the columns, times in RFC 3339, nulls kept.
///
/// # Errors
/// When the bytes are not such a file.
pub fn read_rows(bytes: Vec<u8>) -> Result<Vec<Map<String, Value>>, TableError> {
    let bad = |why: String| TableError::Read { why };
    // A file damaged on disk can trip the reader over its own assertions; that is still only a bad file.
    catch_unwind(AssertUnwindSafe(|| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
            .and_then(|b| b.with_batch_size(8192).build())
            .map_err(|e| bad(e.to_string()))?;
        let mut rows = Vec::new();
        for batch in reader {
            rows.extend(rows_json(&batch.map_err(|e| bad(e.to_string()))?));
        }
        Ok(rows)
    }))
    .unwrap_or_else(|_| Err(bad("its pages contradict its footer".to_owned())))
}

/// The rows of a batch as JSON objects.
#[must_use]
pub fn rows_json(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = batch.schema();
    let named = |row: usize| schema.fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), value(c, row))).collect();
    (0..batch.num_rows()).map(named).collect()
}

fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            EventTime(array.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(1_000_000)).to_string().into()
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|n| value(&items, n)).collect()
        }
        DataType::Struct(fields) => {
            let members = array.as_struct();
            fields.iter().zip(members.columns()).map(|(f, c)| (f.name().clone(), value(c, row))).collect::<Map<_, _>>().into()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let pair = |n| (value(keys, n).as_str().unwrap_or_default().to_owned(), value(values, n));
            (0..entries.len()).map(pair).collect::<Map<_, _>>().into()
        }
        // No table has another type; a newer file may.
        other => Value::String(format!("<{other}>")),
    }
}
