//! Any Parquet file that the library reads, through Arrow: slower than [`super::columns`], and what a file means.
//!
//! Strings are read as dictionaries, so that an address or an ENI id is parsed once per distinct value and not once per
//! record. Integers may have any width (AWS's own documents disagree), and a missing value is null or `-`.

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Field as ArrowField, Int32Type, Int64Type, Schema, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::super::batch::{ABSENT, BATCH_ROWS, FlowBatch, Names, marks};
use super::super::layout::{HOT, Hot, Layout, THERE};
use super::super::names::{Interner, NameIndex};
use super::super::plain::{self, Ask, FlowLineError, Row, Values};
use super::super::{FlowRows, Out};
use super::{Asked, FlowError, is_absent, max_of};
use crate::ip::Ip;
use crate::unit::Reject;

/// A file with Arrow's view of it.
pub(super) struct File {
    object: Bytes,
    metadata: ArrowReaderMetadata,
}

impl File {
    pub(super) fn open(object: Bytes) -> Result<Self, FlowError> {
        let metadata = ArrowReaderMetadata::load(&object, ArrowReaderOptions::new().with_skip_arrow_metadata(true))?;
        let schema = Schema::new(metadata.schema().fields().iter().map(|f| as_dictionary(f)).collect::<Vec<_>>());
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(Arc::new(schema));
        let metadata = ArrowReaderMetadata::load(&object, options)?;
        Ok(Self { object, metadata })
    }

    /// Reads row group `number` from its row `from` on; its first row has the number `first_row` in the file.
    #[allow(clippy::too_many_arguments)] // One place in one file, and where it goes.
    pub(super) fn group(
        &self,
        number: usize,
        from: u64,
        first_row: u64,
        asked: &Asked,
        ask: Ask,
        index: &mut NameIndex,
        out: &mut Out<'_>,
    ) -> Result<(), FlowError> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.object.clone(), self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), asked.roots.iter().copied());
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS).with_row_groups(vec![number]);
        let reader = if from > 0 { builder.with_offset(usize::try_from(from).unwrap_or(usize::MAX)) } else { builder }.build()?;
        let mut reading = Reading {
            layout: &asked.layout,
            ask,
            index,
            row: first_row + from,
            text: Vec::new(),
            meanings: asked.roots.iter().map(|_| Meanings::default()).collect(),
            scratch: Scratch::default(),
        };
        for records in reader {
            reading.records(&records?, out);
        }
        Ok(())
    }
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

/// A row of text longer than this is no record.
const ROW_MAX: usize = 1 << 20;

/// Values written out for a batch before it is handed on, in bytes.
const TEXT_MAX: usize = 64 << 20;

struct Reading<'a> {
    layout: &'a Layout,
    ask: Ask,
    index: &'a mut NameIndex,
    row: u64,
    text: Vec<u8>,
    /// What the strings of each column's dictionary mean; kept while the dictionary is the same.
    meanings: Vec<Meanings>,
    scratch: Scratch,
}

/// The hot columns of a record batch, by row.
#[derive(Default)]
struct Scratch {
    /// Rows that the slow way has to read.
    bad: Vec<bool>,
    /// One bit for each hot column that has a value.
    there: Vec<u32>,
    /// For each hot column its values: numbers, addresses, marks of words, numbers of names; 0 where there is none.
    values: [Vec<u64>; HOT],
}

/// What one string of a dictionary means to its column.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Unseen,
    Absent,
    /// An address, a number, the marks of a word, the number of a name.
    Value(u64),
    /// Something for the slow way.
    Odd,
}

#[derive(Default)]
struct Meanings {
    dictionary: Option<ArrayRef>,
    of: Vec<Meaning>,
}

/// One column of a record batch.
enum Column {
    Integers(PrimitiveArray<Int64Type>),
    Strings {
        keys: PrimitiveArray<Int32Type>,
        values: ArrayRef,
    },
    /// Lists, maps, decimals: not of AWS's making. Counted as absent.
    Other,
}

impl Column {
    fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Dictionary(_, _) => match array.as_any().downcast_ref::<DictionaryArray<Int32Type>>() {
                Some(dictionary) => Self::Strings { keys: dictionary.keys().clone(), values: dictionary.values().clone() },
                None => Self::Other,
            },
            DataType::Timestamp(unit, _) => {
                let ticks = match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                };
                let times = arrow::compute::cast(array, &DataType::Int64);
                times.map_or(Self::Other, |t| Self::Integers(t.as_primitive::<Int64Type>().unary(|t| t.div_euclid(ticks))))
            }
            ty if ty.is_integer() => {
                let integers = arrow::compute::cast(array, &DataType::Int64);
                integers.map_or(Self::Other, |i| Self::Integers(i.as_primitive::<Int64Type>().clone()))
            }
            _ => Self::Other,
        }
    }

    /// The value's text; `None` where it is absent.
    fn bytes<'a>(&'a self, row: usize, number: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        match self {
            Self::Integers(array) if array.is_valid(row) => {
                number.clear();
                let _ = write!(number, "{}", array.value(row));
                Some(number)
            }
            Self::Strings { keys, values } if keys.is_valid(row) => string(values, keys.value(row)).filter(|v| !is_absent(v)),
            _ => None,
        }
    }
}

/// A string of a dictionary.
fn string(values: &ArrayRef, key: i32) -> Option<&[u8]> {
    let at = usize::try_from(key).ok().filter(|at| *at < values.len() && values.is_valid(*at))?;
    match values.data_type() {
        DataType::Utf8 => values.as_string_opt::<i32>().map(|v| v.value(at).as_bytes()),
        _ => values.as_binary_opt::<i32>().map(|v| v.value(at)),
    }
}

impl Reading<'_> {
    fn records(&mut self, records: &RecordBatch, out: &mut Out<'_>) {
        let columns: Vec<Column> = records.columns().iter().map(Column::of).collect();
        let rows = records.num_rows();
        self.scratch.empty(rows);
        for (at, column) in columns.iter().enumerate() {
            if let Some(hot) = self.layout.hot_at(at) {
                self.meanings[at].renew(column);
                if matches!(hot, Hot::Account | Hot::Interface) {
                    continue;
                }
                self.scratch.take(hot, column, &mut self.meanings[at], self.ask.limit());
            }
        }
        let mut interner = Interner { names: out.names, index: self.index };
        for (at, column) in columns.iter().enumerate() {
            if let Some(hot @ (Hot::Account | Hot::Interface)) = self.layout.hot_at(at) {
                self.scratch.take_names(hot, column, &mut self.meanings[at], &mut interner);
            }
        }
        let mut row = 0;
        while row < rows {
            // Rows with cells go one by one: their text may fill up.
            let most = if self.ask.cells { 1 } else { rows - row };
            let good = self.scratch.bad[row..row + most].iter().take_while(|bad| !**bad).count();
            let line = self.row;
            let (cells, text) = (out.batch.cells.len(), self.text.len());
            let read = self.cells(&columns, row, out.batch).and_then(|()| match good {
                0 => self.slow(&columns, row, out.names).map(|read| read.push(u32::try_from(line).unwrap_or(u32::MAX), out.batch)),
                _ => {
                    self.scratch.push(row..row + good, line, out.batch);
                    Ok(())
                }
            });
            if let Err(error) = read {
                out.batch.cells.truncate(cells);
                self.text.truncate(text);
                (out.on_reject)(Reject::new(line, error.to_string(), &sample(&columns, row)));
            }
            row += good.max(1);
            self.row += good.max(1) as u64;
            if self.text.len() > TEXT_MAX {
                self.hand_on(out);
            }
        }
        self.hand_on(out);
    }

    fn hand_on(&mut self, out: &mut Out<'_>) {
        if out.batch.rows() > 0 {
            (out.on_batch)(FlowRows { batch: out.batch, names: out.names, layout: self.layout, text: &self.text });
            out.batch.clear();
        }
        self.text.clear();
    }

    /// Writes out all values of a row, if they were asked for.
    fn cells(&mut self, columns: &[Column], row: usize, batch: &mut FlowBatch) -> Result<(), FlowLineError> {
        if !self.ask.cells {
            return Ok(());
        }
        let (before, mut number) = (self.text.len(), Vec::new());
        for column in columns {
            let value = column.bytes(row, &mut number).unwrap_or_default();
            let bytes = self.text.len() - before + value.len();
            if bytes > ROW_MAX {
                return Err(FlowLineError::TooLong { bytes });
            }
            let from = self.text.len() as u32;
            self.text.extend_from_slice(value);
            batch.cells.push((from, self.text.len() as u32));
        }
        Ok(())
    }

    /// One row by its values' text, as the plain path reads a line.
    fn slow(&mut self, columns: &[Column], row: usize, names: &mut Names) -> Result<Row, FlowLineError> {
        let mut numbers = vec![Vec::new(); columns.len()];
        let mut values = Values::default();
        for (at, (column, number)) in columns.iter().zip(&mut numbers).enumerate() {
            let field = self.layout.columns()[at].field();
            if let (Some(bytes), Some(hot), Some(field)) = (column.bytes(row, number), self.layout.hot_at(at), field) {
                values.set(hot, field.column, bytes, self.ask.limit())?;
            }
        }
        Ok(values.row(&mut Interner { names, index: self.index }))
    }
}

/// A record as text, for a reject.
fn sample(columns: &[Column], row: usize) -> Vec<u8> {
    let (mut line, mut number) = (Vec::new(), Vec::new());
    for column in columns {
        let value = column.bytes(row, &mut number).unwrap_or(b"-");
        line.extend_from_slice(&value[..value.len().min(256)]);
        line.push(b' ');
    }
    line.pop();
    line
}

impl Meanings {
    /// Forgets what another dictionary's strings meant.
    fn renew(&mut self, column: &Column) {
        match (column, &self.dictionary) {
            (Column::Strings { values, .. }, Some(before)) if Arc::ptr_eq(values, before) => {}
            (Column::Strings { values, .. }, _) => {
                self.of.clear();
                self.of.resize(values.len(), Meaning::Unseen);
                self.dictionary = Some(values.clone());
            }
            _ => {}
        }
    }
}

impl Scratch {
    fn empty(&mut self, rows: usize) {
        fn zero<T: Clone + Default>(column: &mut Vec<T>, rows: usize) {
            column.clear();
            column.resize(rows, T::default());
        }
        zero(&mut self.bad, rows);
        zero(&mut self.there, rows);
        self.values.iter_mut().for_each(|c| zero(c, rows));
    }

    /// Takes a column that is no name.
    fn take(&mut self, hot: Hot, column: &Column, meanings: &mut Meanings, limit: i64) {
        let bit = 1u32 << hot as u32;
        let max = max_of(hot, limit);
        let meaning = |text: &[u8]| -> Meaning {
            let value = match hot {
                Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst => plain::address("", text).ok().and_then(Ip::as_v4).map(u64::from),
                Hot::Action => plain::action(text).map(u64::from),
                Hot::LogStatus => plain::log_status(text).map(u64::from),
                Hot::Direction => Some(u64::from(plain::direction(text))),
                _ => plain::number("", text, u64::MAX).ok().filter(|v| max.is_some_and(|max| *v <= max)),
            };
            value.map_or(Meaning::Odd, Meaning::Value)
        };
        let out = self.values[hot as usize].iter_mut().zip(&mut self.there).zip(&mut self.bad);
        match (column, max) {
            (Column::Integers(array), Some(max)) => {
                let nulls = array.nulls();
                for (row, (value, ((out, there), bad))) in array.values().iter().zip(out).enumerate() {
                    // Negative ones are far out of range. A null's value may be anything.
                    let (value, valid) = (*value as u64, nulls.is_none_or(|n| n.is_valid(row)));
                    let good = value <= max;
                    *out = if good & valid { value } else { 0 };
                    *there |= bit * u32::from(good & valid);
                    *bad |= !good & valid;
                }
            }
            (Column::Integers(_), None) => self.bad.fill(true),
            (Column::Strings { keys, values }, _) => {
                let nulls = keys.nulls();
                for (row, (key, ((out, there), bad))) in keys.values().iter().zip(out).enumerate() {
                    if nulls.is_some_and(|n| n.is_null(row)) {
                        continue;
                    }
                    let Some(known) = meanings.of.get_mut(*key as usize) else { continue };
                    if *known == Meaning::Unseen {
                        *known = string(values, *key).filter(|v| !is_absent(v)).map_or(Meaning::Absent, meaning);
                    }
                    match *known {
                        Meaning::Value(value) => (*out, *there) = (value, *there | bit),
                        Meaning::Absent => {}
                        _ => *bad = true,
                    }
                }
            }
            (Column::Other, _) => {}
        }
    }

    /// Takes the accounts or interfaces of the rows that are not bad.
    fn take_names(&mut self, hot: Hot, column: &Column, meanings: &mut Meanings, interner: &mut Interner<'_>) {
        let (keys, values) = match column {
            Column::Strings { keys, values } => (keys, values),
            // An account as a number, say: read as text, the slow way.
            Column::Integers(_) => return self.bad.fill(true),
            Column::Other => return,
        };
        let bit = 1u32 << hot as u32;
        for (row, key) in keys.values().iter().enumerate() {
            if keys.is_null(row) || self.bad[row] {
                continue;
            }
            let Some(known) = usize::try_from(*key).ok().and_then(|at| meanings.of.get_mut(at)) else { continue };
            if *known == Meaning::Unseen {
                *known = match string(values, *key).filter(|v| !is_absent(v)).map(|v| plain::text("", v)) {
                    None => Meaning::Absent,
                    Some(Ok("unknown")) if hot == Hot::Account => Meaning::Absent,
                    Some(Ok(name)) if hot == Hot::Account => Meaning::Value(interner.account(Some(name)).into()),
                    Some(Ok(name)) => Meaning::Value(interner.interface(Some(name)).into()),
                    Some(Err(_)) => Meaning::Odd,
                };
            }
            match *known {
                Meaning::Value(number) => (self.values[hot as usize][row], self.there[row]) = (number, self.there[row] | bit),
                Meaning::Absent => {}
                _ => self.bad[row] = true,
            }
        }
    }

    /// Appends rows to the batch of which none is bad.
    fn push(&self, rows: Range<usize>, line: u64, batch: &mut FlowBatch) {
        let column = |hot: Hot| &self.values[hot as usize][rows.clone()];
        let has = |there: u32, a: Hot, b: Hot| there >> a as u32 & there >> b as u32 & 1 == 1;
        for row in rows.clone() {
            let there = self.there[row];
            let value = |hot: Hot| self.values[hot as usize][row];
            let mut bits = (value(Hot::Action) | value(Hot::LogStatus) | value(Hot::Direction)) as u16;
            for (mark, a, b) in THERE {
                bits |= if has(there, a, b) { mark } else { 0 };
            }
            let addresses = bits & marks::ADDRS != 0;
            let (src, dst) = if addresses { (value(Hot::Src), value(Hot::Dst)) } else { (0, 0) };
            let inner = |outer: u64, hot: Hot| if has(there, hot, hot) { value(hot) } else { outer };
            let pair = (inner(src, Hot::PktSrc), inner(dst, Hot::PktDst));
            if addresses && pair != (src, dst) {
                bits |= marks::PKT;
                batch.packet_addrs.push((batch.marks.len() as u32, Ip::v4(pair.0 as u32), Ip::v4(pair.1 as u32)));
            }
            batch.marks.push(bits);
            batch.src.push(src as u32);
            batch.dst.push(dst as u32);
            batch.account.push(if has(there, Hot::Account, Hot::Account) { value(Hot::Account) as u32 } else { ABSENT });
            batch.interface.push(if has(there, Hot::Interface, Hot::Interface) { value(Hot::Interface) as u32 } else { ABSENT });
        }
        batch.line.extend((0..rows.len() as u64).map(|n| u32::try_from(line + n).unwrap_or(u32::MAX)));
        batch.ports.extend(column(Hot::SrcPort).iter().zip(column(Hot::DstPort)).map(|(s, d)| (*s as u32) << 16 | *d as u32));
        batch.protocol.extend(column(Hot::Protocol).iter().map(|n| *n as u8));
        batch.tcp_flags.extend(column(Hot::TcpFlags).iter().map(|n| *n as u8));
        batch.packets.extend_from_slice(column(Hot::Packets));
        batch.bytes.extend_from_slice(column(Hot::Bytes));
        batch.start.extend(column(Hot::Start).iter().map(|n| *n as i64));
        batch.end.extend(column(Hot::End).iter().map(|n| *n as i64));
    }
}
