//! Rows into columns: each call adds one column, name, type and values together.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use flowtrail_ingest::EventTime;

use super::{Table, TableError};

/// Columns under construction.
///
/// All columns are nullable: a reader that is older or newer than a file sees nulls where it has no column.
#[derive(Default)]
pub struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    /// No columns yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, name: &str, array: ArrayRef) -> &mut Self {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
        self
    }

    /// Strings that are always there.
    pub fn text<'a>(&mut self, name: &str, values: impl Iterator<Item = &'a str>) -> &mut Self {
        self.add(name, Arc::new(StringArray::from_iter_values(values)))
    }

    /// Strings that may be absent.
    pub fn maybe_text<S: AsRef<str>>(&mut self, name: &str, values: impl Iterator<Item = Option<S>>) -> &mut Self {
        self.add(name, Arc::new(values.collect::<StringArray>()))
    }

    /// 32-bit integers.
    pub fn int(&mut self, name: &str, values: impl Iterator<Item = Option<i32>>) -> &mut Self {
        self.add(name, Arc::new(values.collect::<Int32Array>()))
    }

    /// 64-bit integers.
    pub fn long(&mut self, name: &str, values: impl Iterator<Item = Option<i64>>) -> &mut Self {
        self.add(name, Arc::new(values.collect::<Int64Array>()))
    }

    /// Counts, which never reach 2^63.
    pub fn count(&mut self, name: &str, values: impl Iterator<Item = u64>) -> &mut Self {
        self.long(name, values.map(|n| Some(i64::try_from(n).unwrap_or(i64::MAX))))
    }

    /// Thousandths as a double.
    pub fn milli(&mut self, name: &str, values: impl Iterator<Item = i64>) -> &mut Self {
        self.add(name, Arc::new(Float64Array::from_iter_values(values.map(from_milli))))
    }

    /// Booleans.
    pub fn flag(&mut self, name: &str, values: impl Iterator<Item = bool>) -> &mut Self {
        self.add(name, Arc::new(BooleanArray::from_iter(values.map(Some))))
    }

    /// Timestamps, microseconds UTC.
    pub fn time(&mut self, name: &str, values: impl Iterator<Item = Option<EventTime>>) -> &mut Self {
        let micros: TimestampMicrosecondArray = values.map(|t| t.map(|t| super::clamped(t).micros())).collect();
        self.add(name, Arc::new(micros.with_timezone("UTC")))
    }

    /// Lists of strings.
    pub fn texts<'a>(&mut self, name: &str, values: impl Iterator<Item = &'a [String]>) -> &mut Self {
        let (mut lengths, mut all) = (Vec::new(), Vec::new());
        for list in values {
            lengths.push(list.len());
            all.extend(list.iter().map(String::as_str));
        }
        self.add(name, list(Arc::new(StringArray::from_iter_values(all)), lengths))
    }

    /// Lists of structs: `build` makes the members' columns of all elements, one after the other.
    pub fn structs<'a, T: 'a>(
        &mut self,
        name: &str,
        values: impl Iterator<Item = &'a [T]>,
        build: impl FnOnce(&[&'a T]) -> Columns,
    ) -> &mut Self {
        let (mut lengths, mut all) = (Vec::new(), Vec::new());
        for list in values {
            lengths.push(list.len());
            all.extend(list);
        }
        let members = build(&all).into_struct(None);
        self.add(name, list(members, lengths))
    }

    /// A struct, null where `there` says so.
    pub fn group(&mut self, name: &str, there: Vec<bool>, members: Columns) -> &mut Self {
        let members = members.into_struct(Some(NullBuffer::from(there)));
        self.add(name, members)
    }

    fn into_struct(self, nulls: Option<NullBuffer>) -> ArrayRef {
        let rows = self.arrays.first().map_or(0, Array::len);
        let fields = Fields::from(self.fields);
        match StructArray::try_new(fields.clone(), self.arrays, nulls) {
            Ok(array) => Arc::new(array),
            // Columns of unequal length: a bug, which `batch` reports when the lengths differ from those of the others.
            Err(_) => Arc::new(StructArray::new_null(fields, rows)),
        }
    }

    /// Names and types.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields.clone()))
    }

    /// The finished batch.
    ///
    /// # Errors
    /// When columns have different lengths.
    pub fn batch(self, table: Table) -> Result<RecordBatch, TableError> {
        super::batch(table, self.schema(), self.arrays)
    }
}

/// Three-level lists with the name `element`, as Athena and the Parquet specification want them.
fn list(values: ArrayRef, lengths: Vec<usize>) -> ArrayRef {
    let field = Arc::new(Field::new("element", values.data_type().clone(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, None))
}

/// Thousandths as a double: the nearest one to the decimal fraction.
pub(crate) fn from_milli(milli: i64) -> f64 {
    milli as f64 / 1000.0
}

/// And back.
pub(crate) fn to_milli(value: f64) -> i64 {
    (value * 1000.0).round() as i64
}
