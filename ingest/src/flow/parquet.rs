//! Flow logs in Parquet: the same rows as from text.
//!
//! Strings are read as dictionaries, so that an address or an ENI id is parsed once per distinct value and not once per
//! record. Integers may have any width (AWS's own documents disagree), and a missing value is null or `-`.

use std::cell::Cell;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Field as ArrowField, Int32Type, Int64Type, Schema, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::batch::{ABSENT, BATCH_ROWS, FlowBatch, Names, marks};
use super::layout::{Hot, Layout, LayoutError, field};
use super::names::{Interner, NameIndex};
use super::plain::{self, Ask, FlowLineError, Row, SECONDS_MAX, Values};
use super::{FlowRows, Out};
use crate::ip::Ip;
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

    let meanings = wanted.iter().map(|_| Meanings::default()).collect();
    let mut reading = Reading { layout, ask, index: NameIndex::default(), row: 0, text: Vec::new(), meanings, scratch: Scratch::default() };
    let mut out = Out { names, batch, on_batch, on_reject };
    for records in reader {
        reading.records(&records?, &mut out);
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

/// A row of text longer than this is no record.
const ROW_MAX: usize = 1 << 20;

/// Values written out for a batch before it is handed on, in bytes.
const TEXT_MAX: usize = 64 << 20;

struct Reading {
    layout: Layout,
    ask: Ask,
    index: NameIndex,
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
    words: Vec<u16>,
    addresses: [Vec<u32>; 4],
    numbers: [Vec<u64>; 8],
    names: [Vec<u32>; 2],
}

/// What one string of a dictionary means to its column.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Unseen,
    Absent,
    /// An address, a number, the marks of a word.
    Value(u64),
    /// A number in [`Names`].
    Name(u32),
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

impl Reading {
    fn records(&mut self, records: &RecordBatch, out: &mut Out<'_>) {
        let columns: Vec<Column> = records.columns().iter().map(Column::of).collect();
        let rows = records.num_rows();
        self.scratch.empty(rows);
        for (at, column) in columns.iter().enumerate() {
            if let Some(hot) = self.layout.hot_at(at) {
                self.meanings[at].renew(column);
                self.scratch.take(hot, column, &mut self.meanings[at], self.ask.limit());
            }
        }
        let mut interner = Interner { names: out.names, index: &mut self.index };
        for (at, column) in columns.iter().enumerate() {
            if let Some(hot @ (Hot::Account | Hot::Interface)) = self.layout.hot_at(at) {
                self.scratch.take_names(hot, column, &mut self.meanings[at], &mut interner);
            }
        }
        let mut number = Vec::new();
        for row in 0..rows {
            let line = self.row;
            self.row += 1;
            let (cells, text) = (out.batch.cells.len(), self.text.len());
            let read = self.cells(&columns, row, &mut number, out.batch).and_then(|()| {
                if self.scratch.bad[row] {
                    let row = self.slow(&columns, row, out.names)?;
                    row.push(u32::try_from(line).unwrap_or(u32::MAX), out.batch);
                } else {
                    self.scratch.push(row, u32::try_from(line).unwrap_or(u32::MAX), out.batch);
                }
                Ok(())
            });
            if let Err(error) = read {
                out.batch.cells.truncate(cells);
                self.text.truncate(text);
                (out.on_reject)(Reject::new(line, error.to_string(), &sample(&columns, row)));
            }
            if self.text.len() > TEXT_MAX {
                self.hand_on(out);
            }
        }
        self.hand_on(out);
    }

    fn hand_on(&mut self, out: &mut Out<'_>) {
        if out.batch.rows() > 0 {
            (out.on_batch)(FlowRows { batch: out.batch, names: out.names, layout: &self.layout, text: &self.text });
            out.batch.clear();
        }
        self.text.clear();
    }

    /// Writes out all values of a row, if they were asked for.
    fn cells(&mut self, columns: &[Column], row: usize, number: &mut Vec<u8>, batch: &mut FlowBatch) -> Result<(), FlowLineError> {
        if !self.ask.cells {
            return Ok(());
        }
        let before = self.text.len();
        for column in columns {
            let value = column.bytes(row, number).unwrap_or_default();
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
        Ok(values.row(&mut Interner { names, index: &mut self.index }))
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
        zero(&mut self.words, rows);
        self.addresses.iter_mut().for_each(|c| zero(c, rows));
        self.numbers.iter_mut().for_each(|c| zero(c, rows));
        for column in &mut self.names {
            column.clear();
            column.resize(rows, ABSENT);
        }
    }

    /// Takes a column that is no name.
    fn take(&mut self, hot: Hot, column: &Column, meanings: &mut Meanings, limit: i64) {
        let bit = 1u32 << hot as u32;
        let fits = |value: u64| match hot {
            Hot::Version => value <= i32::MAX as u64,
            Hot::SrcPort | Hot::DstPort | Hot::TcpFlags => value <= u64::from(u16::MAX),
            Hot::Protocol => value <= u64::from(u8::MAX),
            Hot::Start | Hot::End => i64::try_from(value).is_ok_and(|v| v <= limit.min(SECONDS_MAX)),
            _ => value <= i64::MAX as u64,
        };
        let meaning = |text: &[u8]| -> Meaning {
            let value = match hot {
                Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst => plain::address("", text).ok().and_then(Ip::as_v4).map(u64::from),
                Hot::Action => plain::action(text).map(u64::from),
                Hot::LogStatus => plain::log_status(text).map(u64::from),
                Hot::Direction => Some(u64::from(plain::direction(text))),
                Hot::Account | Hot::Interface => None,
                _ => plain::number("", text, u64::MAX).ok().filter(|v| fits(*v)),
            };
            value.map_or(Meaning::Odd, Meaning::Value)
        };
        let (bad, there) = (&mut self.bad, &mut self.there);
        let mut set = |row: usize, value: u64| {
            there[row] |= bit;
            match hot {
                Hot::Src => self.addresses[0][row] = value as u32,
                Hot::Dst => self.addresses[1][row] = value as u32,
                Hot::PktSrc => self.addresses[2][row] = value as u32,
                Hot::PktDst => self.addresses[3][row] = value as u32,
                Hot::Action | Hot::LogStatus | Hot::Direction => self.words[row] |= value as u16,
                Hot::Version | Hot::Account | Hot::Interface => {}
                _ => self.numbers[number_slot(hot)][row] = value,
            }
        };
        match column {
            Column::Integers(array) => {
                for (row, value) in array.values().iter().enumerate() {
                    if array.is_null(row) {
                        continue;
                    }
                    // Negative ones are far out of range.
                    match *value as u64 {
                        value if fits(value) && is_number(hot) => set(row, value),
                        _ => bad[row] = true,
                    }
                }
            }
            Column::Strings { keys, values } => {
                for (row, key) in keys.values().iter().enumerate() {
                    if keys.is_null(row) {
                        continue;
                    }
                    let Some(known) = usize::try_from(*key).ok().and_then(|at| meanings.of.get_mut(at)) else { continue };
                    if *known == Meaning::Unseen {
                        *known = string(values, *key).filter(|v| !is_absent(v)).map_or(Meaning::Absent, meaning);
                    }
                    match *known {
                        Meaning::Value(value) => set(row, value),
                        Meaning::Absent => {}
                        _ => bad[row] = true,
                    }
                }
            }
            Column::Other => {}
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
        let column = usize::from(hot == Hot::Interface);
        for (row, key) in keys.values().iter().enumerate() {
            if keys.is_null(row) || self.bad[row] {
                continue;
            }
            let Some(known) = usize::try_from(*key).ok().and_then(|at| meanings.of.get_mut(at)) else { continue };
            if !matches!(known, Meaning::Name(_) | Meaning::Absent) {
                *known = match string(values, *key).filter(|v| !is_absent(v)).map(|v| plain::text("", v)) {
                    None => Meaning::Absent,
                    Some(Ok("unknown")) if hot == Hot::Account => Meaning::Absent,
                    Some(Ok(name)) if hot == Hot::Account => Meaning::Name(interner.account(Some(name))),
                    Some(Ok(name)) => Meaning::Name(interner.interface(Some(name))),
                    Some(Err(_)) => Meaning::Odd,
                };
            }
            match *known {
                Meaning::Name(number) => self.names[column][row] = number,
                Meaning::Absent => {}
                _ => self.bad[row] = true,
            }
        }
    }

    /// Appends a row to the batch.
    fn push(&self, row: usize, line: u32, batch: &mut FlowBatch) {
        let there = self.there[row];
        let has = |a: Hot, b: Hot| there >> a as u32 & there >> b as u32 & 1 == 1;
        let mut bits = self.words[row];
        let mut mark = |there: bool, bit: u16| bits |= if there { bit } else { 0 };
        let addresses = has(Hot::Src, Hot::Dst);
        mark(addresses, marks::ADDRS);
        mark(has(Hot::SrcPort, Hot::DstPort), marks::PORTS);
        mark(has(Hot::Protocol, Hot::Protocol), marks::PROTOCOL);
        mark(has(Hot::TcpFlags, Hot::TcpFlags), marks::TCP_FLAGS);
        mark(has(Hot::Start, Hot::End), marks::TIMES);
        let number = |hot: Hot| self.numbers[number_slot(hot)][row];
        let [src, dst, pkt_src, pkt_dst] = self.addresses.each_ref().map(|column| column[row]);
        if addresses {
            let inner =
                (if has(Hot::PktSrc, Hot::PktSrc) { pkt_src } else { src }, if has(Hot::PktDst, Hot::PktDst) { pkt_dst } else { dst });
            if inner != (src, dst) {
                mark(true, marks::PKT);
                batch.packet_addrs.push((batch.marks.len() as u32, Ip::v4(inner.0), Ip::v4(inner.1)));
            }
        }
        batch.line.push(line);
        batch.marks.push(bits);
        batch.account.push(self.names[0][row]);
        batch.interface.push(self.names[1][row]);
        batch.src.push(if addresses { src } else { 0 });
        batch.dst.push(if addresses { dst } else { 0 });
        batch.ports.push((number(Hot::SrcPort) as u32) << 16 | number(Hot::DstPort) as u32);
        batch.protocol.push(number(Hot::Protocol) as u8);
        batch.tcp_flags.push(number(Hot::TcpFlags) as u8);
        batch.packets.push(number(Hot::Packets));
        batch.bytes.push(number(Hot::Bytes));
        batch.start.push(number(Hot::Start) as i64);
        batch.end.push(number(Hot::End) as i64);
    }
}

/// Index into `Scratch::numbers`.
const fn number_slot(hot: Hot) -> usize {
    match hot {
        Hot::SrcPort => 0,
        Hot::DstPort => 1,
        Hot::Protocol => 2,
        Hot::Packets => 3,
        Hot::Bytes => 4,
        Hot::Start => 5,
        Hot::End => 6,
        _ => 7, // tcp-flags
    }
}

fn is_number(hot: Hot) -> bool {
    use Hot::{Bytes, DstPort, End, Packets, Protocol, SrcPort, Start, TcpFlags, Version};
    matches!(hot, Version | SrcPort | DstPort | Protocol | Packets | Bytes | Start | End | TcpFlags)
}

#[cfg(test)]
mod tests;
