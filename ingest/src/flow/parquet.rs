//! Flow logs in Parquet: the same rows as from text.
//!
//! Strings are read as dictionaries, so that an address or an ENI id is parsed once per distinct value and not once per
//! record. Integers may have any width (AWS's own documents disagree), and a missing value is null or `-`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field as ArrowField, Int32Type, Int64Type, Schema, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::FlowRows;
use super::batch::{BATCH_ROWS, FlowBatch, Names};
use super::layout::{Hot, Layout, LayoutError, field};
use super::names::{Interner, NameIndex};
use super::plain::{Ask, FlowLineError, Values};
use crate::unit::Reject;

/// Why a Parquet file gives no (more) records.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// Damaged, cut off, or of a kind the reader does not know.
    #[error("parquet file cannot be read: {0}")]
    Parquet(#[from] ParquetError),
    /// Damaged inside a batch.
    #[error("parquet file cannot be read: {0}")]
    Arrow(#[from] ArrowError),
    /// Parquet, but not of flow logs.
    #[error("parquet file is no flow log: {0}")]
    NotFlowLog(#[from] LayoutError),
    /// The reader library gave up on a damaged file.
    #[error("parquet file cannot be read: the decoder stopped: {0}")]
    Decoder(String),
}

/// Reads one Parquet object. Positions are row numbers, from 0. Batches before damage are handed on.
///
/// # Errors
/// When the file is damaged or no flow log.
pub fn parse_parquet(
    object: Bytes,
    ask: Ask,
    names: &mut Names,
    batch: &mut FlowBatch,
    on_batch: &mut dyn FnMut(FlowRows<'_>),
    on_reject: &mut dyn FnMut(Reject),
) -> Result<Layout, FlowError> {
    let mut work = || read(object.clone(), ask, names, batch, on_batch, on_reject);
    // The decoder has panicked on damaged files before; that must not take down what reads a million others.
    quietly(|| catch_unwind(AssertUnwindSafe(&mut work))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(FlowError::Decoder(text.unwrap_or("unknown").chars().take(200).collect()))
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` without the panic message on standard error: the damage is told as an error.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = work();
    QUIET.set(false);
    result
}

fn read(
    object: Bytes,
    ask: Ask,
    names: &mut Names,
    batch: &mut FlowBatch,
    on_batch: &mut dyn FnMut(FlowRows<'_>),
    on_reject: &mut dyn FnMut(Reject),
) -> Result<Layout, FlowError> {
    let metadata = ArrowReaderMetadata::load(&object, ArrowReaderOptions::new().with_skip_arrow_metadata(true))?;
    let schema = Schema::new(metadata.schema().fields().iter().map(|f| as_dictionary(f)).collect::<Vec<_>>());
    let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    // Every file could be stretched to a layout; ours have to have a name that only flow logs have.
    if !columns.iter().any(|c| {
        field(c).is_some_and(|f| {
            f.hot.is_some() && !matches!(f.hot, Some(Hot::Version | Hot::Start | Hot::End | Hot::Action)) || c.contains("tgw")
        })
    }) {
        return Err(LayoutError::NoKnownField(columns.join(" ").chars().take(120).collect()).into());
    }
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(Arc::new(schema.clone()));
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(object.clone(), ArrowReaderMetadata::load(&object, options)?);
    let whole = Layout::of_names(columns.iter().copied())?;
    let wanted: Vec<usize> = (0..whole.len()).filter(|at| ask.cells || whole.hot_at(*at).is_some()).collect();
    let layout = Layout::of_names(wanted.iter().filter_map(|at| columns.get(*at).copied()))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;

    let mut reading = Reading { layout, ask, index: NameIndex::default(), columns: Vec::new(), row: 0, text: Vec::new() };
    for records in reader {
        reading.records(&records?, names, batch, on_batch, on_reject);
    }
    Ok(reading.layout)
}

/// Words for "no value": AWS's own, and those of tools that wrote every column as text.
fn is_absent(value: &[u8]) -> bool {
    matches!(value, b"" | b"-" | b"None" | b"null" | b"NULL" | b"NaN" | b"nan")
}

/// Strings as dictionaries, whatever the file's own hints say.
fn as_dictionary(field: &ArrowField) -> ArrowField {
    let strings = |ty: DataType| DataType::Dictionary(Box::new(DataType::Int32), Box::new(ty));
    let ty = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => strings(DataType::Utf8),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => strings(DataType::Binary),
        other => other.clone(),
    };
    ArrowField::new(field.name(), ty, field.is_nullable())
}

struct Reading {
    layout: Layout,
    ask: Ask,
    index: NameIndex,
    columns: Vec<Column>,
    row: u64,
    text: Vec<u8>,
}

/// One column of a record batch, ready to be asked for row after row.
enum Column {
    Integers(ArrayRef),
    Strings {
        indices: ArrayRef,
        values: ArrayRef,
    },
    /// Lists, maps, decimals: not of AWS's making. Counted as absent.
    Other,
}

impl Column {
    fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Dictionary(_, _) => match array.as_any().downcast_ref::<DictionaryArray<Int32Type>>() {
                Some(dictionary) => Self::Strings { indices: Arc::new(dictionary.keys().clone()), values: dictionary.values().clone() },
                None => Self::Other,
            },
            DataType::Timestamp(unit, _) => {
                let ticks = match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                };
                match arrow::compute::cast(array, &DataType::Int64) {
                    Ok(times) => Self::Integers(Arc::new(times.as_primitive::<Int64Type>().unary::<_, Int64Type>(|t| t.div_euclid(ticks)))),
                    Err(_) => Self::Other,
                }
            }
            ty if ty.is_integer() => arrow::compute::cast(array, &DataType::Int64).map_or(Self::Other, Self::Integers),
            _ => Self::Other,
        }
    }

    /// The value's text, `None` where it is null.
    fn bytes<'a>(&'a self, row: usize, number: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        use std::io::Write;
        match self {
            Self::Integers(array) if array.is_valid(row) => {
                number.clear();
                let _ = write!(number, "{}", array.as_primitive::<Int64Type>().value(row));
                Some(number)
            }
            Self::Strings { indices, values } if indices.is_valid(row) => {
                let at = usize::try_from(indices.as_primitive::<Int32Type>().value(row)).ok()?;
                if at >= values.len() || values.is_null(at) {
                    return None;
                }
                match values.data_type() {
                    DataType::Utf8 => Some(values.as_string::<i32>().value(at).as_bytes()),
                    _ => values.as_binary_opt::<i32>().map(|v| v.value(at)),
                }
            }
            _ => None,
        }
    }
}

impl Reading {
    fn records(
        &mut self,
        records: &RecordBatch,
        names: &mut Names,
        batch: &mut FlowBatch,
        on_batch: &mut dyn FnMut(FlowRows<'_>),
        on_reject: &mut dyn FnMut(Reject),
    ) {
        self.columns = records.columns().iter().map(Column::of).collect();
        self.text.clear();
        let limit = self.ask.limit();
        for row in 0..records.num_rows() {
            let number = self.row;
            self.row += 1;
            let from = batch.cells.len();
            match self.record(row, limit, names, batch) {
                Ok(parsed) => parsed.push(u32::try_from(number).unwrap_or(u32::MAX), batch),
                Err(error) => {
                    batch.cells.truncate(from);
                    on_reject(Reject::new(number, error.to_string(), &self.sample(row)));
                }
            }
        }
        if batch.rows() > 0 {
            on_batch(FlowRows { batch, names, layout: &self.layout, text: &self.text });
            batch.clear();
        }
    }

    fn record(&mut self, row: usize, limit: i64, names: &mut Names, batch: &mut FlowBatch) -> Result<super::plain::Row, FlowLineError> {
        // A row's hot values as text, side by side, so that text and Parquet share one meaning.
        let mut numbers: Vec<Vec<u8>> = vec![Vec::new(); self.columns.len()];
        let mut values = Values::default();
        for (at, (column, number)) in self.columns.iter().zip(numbers.iter_mut()).enumerate() {
            let bytes = column.bytes(row, number).filter(|v| !is_absent(v));
            if self.ask.cells {
                let start = self.text.len() as u32;
                self.text.extend_from_slice(bytes.unwrap_or_default());
                batch.cells.push((start, self.text.len() as u32));
            }
            if let (Some(bytes), Some(hot), Some(field)) = (bytes, self.layout.hot_at(at), self.layout.columns()[at].field()) {
                values.set(hot, field.column, bytes, limit)?;
            }
        }
        Ok(values.row(&mut Interner { names, index: &mut self.index }))
    }

    /// The record as text, for a reject.
    fn sample(&self, row: usize) -> Vec<u8> {
        let mut line = Vec::new();
        let mut number = Vec::new();
        for column in &self.columns {
            line.extend_from_slice(column.bytes(row, &mut number).unwrap_or(b"-"));
            line.push(b' ');
        }
        line.pop();
        line
    }
}
