//! `flows`: every flow record with AWS's own column names and types, and the names of both ends beside them.
//!
//! Rows go straight from the parser's batch into columns, one open buffer to an hour of record ends; strings are numbers
//! ([`Symbols`]) from here to the Parquet dictionary. A full buffer becomes one file of one row group, sorted by end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, MapArray, StringArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use flowtrail_ingest::EventTime;
use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::batch::{ABSENT as NO_NAME, FlowBatch, marks};
use flowtrail_ingest::flow::layout::{Column, FIELDS, Hot, Layout, Type};
use hashbrown::HashMap;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};

use super::pages::{ABSENT, ChunkWriter, NO_INT};
use super::symbols::{Symbol, Symbols};
use super::{Table, TableError, TableFile, clamped};

/// Rows kept over all open hours, unless the caller says otherwise: some 60 MB of the default format.
pub const ROWS_MAX: usize = 1 << 19;
/// Strings kept, and their bytes; beyond, all buffers are written and the table of strings begins anew.
const SYMBOLS_MAX: usize = 1 << 21;
const SYMBOL_BYTES_MAX: usize = 128 << 20;
/// zstd level: the columns are packed already, and this table is about volume.
const LEVEL: i32 = 1;

/// Columns beside AWS's own, after `extra` and before `position`.
const NAMES: [&str; 8] = ["src_name", "src_kind", "dst_name", "dst_kind", "own_side", "function_arn", "attribution", "source_key"];
/// Emptied buffers whose memory is kept for the next hour.
const SPARE_MAX: usize = 2;

/// What is known of the two ends of a record; `Symbol::NONE` becomes null.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowNames {
    /// Name of the source for people.
    pub src_name: Symbol,
    /// Kind of its owner: `lambda`, `rds`, `aws_service`, `internet`, …
    pub src_kind: Symbol,
    /// Name of the destination for people.
    pub dst_name: Symbol,
    /// Kind of its owner.
    pub dst_kind: Symbol,
    /// Which side the interface is: `src`, `dst`.
    pub own_side: Symbol,
    /// The function, where one is proven.
    pub function_arn: Symbol,
    /// `exact`, `candidates`, `other`, `unheld`, `unknown`.
    pub attribution: Symbol,
}

impl FlowNames {
    fn columns(self) -> [u32; NAMES.len() - 1] {
        let Self { src_name, src_kind, dst_name, dst_kind, own_side, function_arn, attribution } = self;
        [src_name.0, src_kind.0, dst_name.0, dst_kind.0, own_side.0, function_arn.0, attribution.0]
    }
}

/// The rows of one hour, column by column; a column that no row had a value for is empty, a short one ends in nulls.
/// Narrow where the values are: putting rows in order is bound by memory.
#[derive(Default)]
struct Buffer {
    rows: usize,
    /// By field: numbers of any size.
    ints: Vec<Vec<i64>>,
    /// By field: strings, and the numbers of [`is_small`] fields; `ABSENT` for none.
    narrow: Vec<Vec<u32>>,
    names: Vec<FlowNames>,
    source_keys: Vec<u32>,
    positions: Vec<u32>,
    /// (row, name, value) of unknown columns.
    extra: Vec<(u32, u32, u32)>,
}

impl Buffer {
    fn new() -> Self {
        Self { ints: vec![Vec::new(); FIELDS.len()], narrow: vec![Vec::new(); FIELDS.len()], ..Self::default() }
    }

    /// Without rows, its memory kept.
    fn emptied(mut self) -> Self {
        self.rows = 0;
        self.ints.iter_mut().for_each(Vec::clear);
        self.narrow.iter_mut().for_each(Vec::clear);
        self.names.clear();
        self.source_keys.clear();
        self.positions.clear();
        self.extra.clear();
        self
    }
}

/// Where a column of a layout goes.
#[derive(Copy, Clone, PartialEq)]
enum Target {
    /// `FIELDS[n]`.
    Field(usize),
    /// `extra`, under this name.
    Extra(u32),
    /// Nowhere: the second column of that name.
    Nowhere,
}

/// Appends the names of a run of rows of a batch.
pub type NameRows<'a> = dyn FnMut(Range<usize>, &mut Symbols, &mut Vec<FlowNames>) + 'a;

/// Writes the `flows` table. One to a thread.
pub struct FlowsWriter {
    rows_max: usize,
    rows: usize,
    buffers: BTreeMap<i64, Buffer>,
    spare: Vec<Buffer>,
    symbols: Symbols,
    chunks: Option<ChunkWriter>,
    /// The symbols of IPv4 addresses.
    addresses: HashMap<u32, u32>,
    layout: Option<(Layout, Vec<Target>)>,
    source_key: String,
    fallback: EventTime,
    interfaces: Vec<u32>,
    accounts: Vec<u32>,
}

impl Default for FlowsWriter {
    fn default() -> Self {
        Self::new(ROWS_MAX)
    }
}

impl FlowsWriter {
    /// Keeps at most about `rows_max` rows in memory.
    #[must_use]
    pub fn new(rows_max: usize) -> Self {
        Self {
            rows_max,
            rows: 0,
            buffers: BTreeMap::new(),
            spare: Vec::new(),
            symbols: Symbols::default(),
            chunks: None,
            addresses: HashMap::new(),
            layout: None,
            source_key: String::new(),
            fallback: EventTime::default(),
            interfaces: Vec::new(),
            accounts: Vec::new(),
        }
    }

    /// The strings of this writer, for names that the caller looks up ahead. See [`Symbols::generation`].
    pub fn symbols(&mut self) -> &mut Symbols {
        &mut self.symbols
    }

    /// Begins a unit: the batches that follow are its own. `fallback` is the time of rows that have none.
    pub fn begin(&mut self, source_key: &str, fallback: EventTime) {
        source_key.clone_into(&mut self.source_key);
        self.fallback = fallback;
        self.interfaces.clear();
        self.accounts.clear();
    }

    /// Takes in all rows of a batch that was read with all cells. `name` is asked for the names of a run of rows, which it
    /// appends, one for each. Returns the files that became full.
    ///
    /// # Errors
    /// When a file cannot be encoded, which no input should bring about.
    pub fn push(&mut self, rows: FlowRows<'_>, name: &mut NameRows<'_>) -> Result<Vec<TableFile>, TableError> {
        let mut full = Vec::new();
        if self.symbols.len() > SYMBOLS_MAX || self.symbols.bytes() > SYMBOL_BYTES_MAX {
            full = self.finish()?;
        }
        self.compile(rows.layout);
        let hours: Vec<i64> = (0..rows.batch.rows()).map(|row| hour_of(rows.batch, row, self.fallback)).collect();
        let mut from = 0;
        for run in hours.chunk_by(|a, b| a == b) {
            self.take(run[0], rows, from..from + run.len(), name);
            from += run.len();
        }
        while self.rows > self.rows_max {
            let Some(hour) = self.buffers.iter().max_by_key(|(_, b)| b.rows).map(|(h, _)| *h) else { break };
            full.extend(self.write(hour)?);
        }
        Ok(full)
    }

    /// Writes what is open, and forgets all strings.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self) -> Result<Vec<TableFile>, TableError> {
        let hours: Vec<i64> = self.buffers.keys().copied().collect();
        let mut files = Vec::with_capacity(hours.len());
        for hour in hours {
            files.extend(self.write(hour)?);
        }
        self.symbols.empty();
        self.addresses.clear();
        self.layout = None;
        self.interfaces.clear();
        self.accounts.clear();
        Ok(files)
    }

    fn compile(&mut self, layout: &Layout) {
        if self.layout.as_ref().is_some_and(|(known, _)| known == layout) {
            return;
        }
        let mut seen = vec![false; FIELDS.len()];
        let mut targets = Vec::with_capacity(layout.len());
        for column in layout.columns() {
            targets.push(match column {
                Column::Known(field) => match FIELDS.iter().position(|f| f.column == field.column) {
                    Some(n) if !seen[n] => {
                        seen[n] = true;
                        Target::Field(n)
                    }
                    _ => Target::Nowhere,
                },
                Column::Unknown(name) => {
                    let symbol = Target::Extra(self.symbols.intern(name).0);
                    if targets.contains(&symbol) { Target::Nowhere } else { symbol }
                }
            });
        }
        self.layout = Some((layout.clone(), targets));
    }

    /// Rows of one hour into its buffer, column after column.
    fn take(&mut self, hour: i64, rows: FlowRows<'_>, run: Range<usize>, name: &mut NameRows<'_>) {
        let Self { buffers, spare, symbols, addresses, layout, interfaces, accounts, source_key, .. } = self;
        let Some((_, targets)) = layout else { return };
        let batch = rows.batch;
        let buffer = buffers.entry(hour).or_insert_with(|| spare.pop().unwrap_or_else(Buffer::new));
        let base = buffer.rows;
        for (at, target) in targets.iter().enumerate() {
            let n = match *target {
                Target::Field(n) => n,
                Target::Nowhere => continue,
                Target::Extra(key) => {
                    for row in run.clone() {
                        let cell = rows.cell(row, at);
                        if !cell.is_empty() {
                            let value = symbols.intern(&String::from_utf8_lossy(cell)).0;
                            buffer.extra.push(((base + row - run.start) as u32, key, value));
                        }
                    }
                    continue;
                }
            };
            let field = &FIELDS[n];
            // A zero may stand for "absent", which the cell knows.
            let absent = |row: usize| rows.cell(row, at).is_empty() && !batch.cells.is_empty();
            if is_small(field.hot) {
                let column = &mut buffer.narrow[n];
                column.resize(base, ABSENT);
                let small = |row: usize, value: u32| if value == 0 && absent(row) { ABSENT } else { value };
                match field.hot {
                    Some(Hot::SrcPort) => column.extend(run.clone().map(|row| small(row, batch.ports[row] >> 16))),
                    Some(Hot::DstPort) => column.extend(run.clone().map(|row| small(row, batch.ports[row] & 0xffff))),
                    Some(Hot::Protocol) => column.extend(run.clone().map(|row| small(row, batch.protocol[row].into()))),
                    _ => column.extend(run.clone().map(|row| small(row, batch.tcp_flags[row].into()))),
                }
                continue;
            }
            if field.ty != Type::Text {
                let column = &mut buffer.ints[n];
                column.resize(base, NO_INT);
                let large = |row: usize, value: i64| if value == 0 && absent(row) { NO_INT } else { value };
                match field.hot {
                    Some(Hot::Packets) => column.extend(run.clone().map(|row| large(row, batch.packets[row] as i64))),
                    Some(Hot::Bytes) => column.extend(run.clone().map(|row| large(row, batch.bytes[row] as i64))),
                    Some(Hot::Start) => column.extend(run.clone().map(|row| large(row, batch.start[row]))),
                    Some(Hot::End) => column.extend(run.clone().map(|row| large(row, batch.end[row]))),
                    _ => {
                        for row in run.clone() {
                            let cell = rows.cell(row, at);
                            let value = parse(cell, field.ty);
                            if value == NO_INT && !cell.is_empty() {
                                // Not the number that the documentation promises: kept as it is.
                                let (key, value) = (symbols.intern(field.column).0, symbols.intern(&String::from_utf8_lossy(cell)).0);
                                buffer.extra.push(((base + row - run.start) as u32, key, value));
                            }
                            column.push(value);
                        }
                    }
                }
                continue;
            }
            let column = &mut buffer.narrow[n];
            column.resize(base, ABSENT);
            match field.hot {
                Some(hot @ (Hot::Interface | Hot::Account)) => {
                    let (numbers, list, known) = match hot {
                        Hot::Interface => (&batch.interface, &rows.names.interfaces, &mut *interfaces),
                        _ => (&batch.account, &rows.names.accounts, &mut *accounts),
                    };
                    column.extend(run.clone().map(|row| match numbers[row] {
                        // AWS writes `unknown` for accounts of some service interfaces: no name to judge by, but a value.
                        NO_NAME => text(rows.cell(row, at), symbols),
                        number => named(number, list, known, symbols),
                    }));
                }
                Some(hot @ (Hot::Src | Hot::Dst)) => {
                    let bits = if hot == Hot::Src { &batch.src } else { &batch.dst };
                    for row in run.clone() {
                        let symbol = if batch.marks[row] & (marks::ADDRS | marks::V6) == marks::ADDRS {
                            *addresses.entry(bits[row]).or_insert_with(|| symbols.intern(dotted(bits[row], &mut [0; 15])).0)
                        } else {
                            text(rows.cell(row, at), symbols)
                        };
                        column.push(symbol);
                    }
                }
                // The parser has checked these words, so a mark says which it is and the cell only whether it is there.
                Some(Hot::Action) => {
                    let words = ["ACCEPT", "REJECT"].map(|word| symbols.intern(word).0);
                    let word = |row: usize| words[usize::from(batch.marks[row] & marks::REJECT != 0)];
                    column.extend(run.clone().map(|row| if absent(row) { ABSENT } else { word(row) }));
                }
                Some(Hot::LogStatus) => {
                    let words = ["OK", "NODATA", "SKIPDATA"].map(|word| symbols.intern(word).0);
                    let word = |mark: u16| words[usize::from(mark & marks::NODATA != 0) + 2 * usize::from(mark & marks::SKIPDATA != 0)];
                    column.extend(run.clone().map(|row| if absent(row) { ABSENT } else { word(batch.marks[row]) }));
                }
                _ => {
                    let mut last: (&[u8], u32) = (&[], ABSENT);
                    for row in run.clone() {
                        let cell = rows.cell(row, at);
                        if cell != last.0 {
                            last = (cell, text(cell, symbols));
                        }
                        column.push(last.1);
                    }
                }
            }
        }
        let key = symbols.intern(source_key).0;
        name(run.clone(), symbols, &mut buffer.names);
        buffer.names.resize(base + run.len(), FlowNames::default());
        buffer.source_keys.resize(base + run.len(), key);
        buffer.positions.extend_from_slice(&batch.line[run.clone()]);
        buffer.rows += run.len();
        self.rows += run.len();
    }

    /// One hour's buffer as a file.
    fn write(&mut self, hour: i64) -> Result<Option<TableFile>, TableError> {
        let Some(mut buffer) = self.buffers.remove(&hour).filter(|b| b.rows > 0) else { return Ok(None) };
        self.rows -= buffer.rows;
        let rows = buffer.rows as u64;
        let mut chunks = match self.chunks.take() {
            Some(chunks) => chunks,
            None => ChunkWriter::new(LEVEL).map_err(failed)?,
        };
        let bytes = encode(&mut buffer, &self.symbols, &mut chunks).map_err(failed)?;
        self.chunks = Some(chunks);
        if self.spare.len() < SPARE_MAX {
            self.spare.push(buffer.emptied());
        }
        Ok(Some(TableFile { folder: Table::Flows.folder(EventTime(hour.saturating_mul(3600))), bytes, rows }))
    }
}

fn failed(error: ParquetError) -> TableError {
    TableError::Write { table: Table::Flows.name(), why: error.to_string() }
}

fn hour_of(batch: &FlowBatch, row: usize, fallback: EventTime) -> i64 {
    let time = match (batch.end[row], batch.start[row]) {
        (0, 0) => fallback.0,
        (0, start) => start,
        (end, _) => end,
    };
    clamped(EventTime(time)).0.div_euclid(3600)
}

/// Fields whose numbers are below 2^16, and typed in the batch.
fn is_small(hot: Option<Hot>) -> bool {
    matches!(hot, Some(Hot::SrcPort | Hot::DstPort | Hot::Protocol | Hot::TcpFlags))
}

fn parse(cell: &[u8], ty: Type) -> i64 {
    if let [digit @ b'0'..=b'9'] = cell {
        return i64::from(digit - b'0');
    }
    let value: Option<i64> = std::str::from_utf8(cell).ok().and_then(|t| t.parse().ok());
    match (value, ty) {
        (Some(n), Type::Int32) if i32::try_from(n).is_err() => NO_INT,
        (Some(n), _) => n,
        (None, _) => NO_INT,
    }
}

fn text(cell: &[u8], symbols: &mut Symbols) -> u32 {
    match std::str::from_utf8(cell) {
        Ok("") => ABSENT,
        Ok(text) => symbols.intern(text).0,
        Err(_) => symbols.intern(&String::from_utf8_lossy(cell)).0,
    }
}

/// The symbol of a name of the unit's dictionary, through a list that grows with it.
fn named(number: u32, names: &[Box<str>], known: &mut Vec<u32>, symbols: &mut Symbols) -> u32 {
    while known.len() <= number as usize {
        let Some(name) = names.get(known.len()) else { return ABSENT };
        known.push(if name.is_empty() || **name == *"-" { ABSENT } else { symbols.intern(name).0 });
    }
    known[number as usize]
}

fn dotted(bits: u32, out: &mut [u8; 15]) -> &str {
    let mut at = 0;
    for (n, octet) in bits.to_be_bytes().into_iter().enumerate() {
        if n > 0 {
            out[at] = b'.';
            at += 1;
        }
        for (digit, needed) in [(octet / 100, octet >= 100), (octet / 10 % 10, octet >= 10), (octet % 10, true)] {
            if needed {
                out[at] = b'0' + digit;
                at += 1;
            }
        }
    }
    std::str::from_utf8(&out[..at]).unwrap_or_default()
}

/// Columns and types of the table.
pub(super) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields: Vec<Field> = Vec::new();
        for field in FIELDS {
            let kind = match field.ty {
                Type::Int32 => DataType::Int32,
                Type::Int64 => DataType::Int64,
                Type::Text => DataType::Utf8,
            };
            fields.push(Field::new(field.column, kind, true));
        }
        fields.push(extra_field());
        fields.extend(NAMES.map(|name| Field::new(name, DataType::Utf8, true)));
        fields.push(Field::new("position", DataType::Int64, true));
        Arc::new(Schema::new(fields))
    });
    SCHEMA.clone()
}

/// Without an index of pages: the parquet crate wants it for all columns of a file or for none, and ours have none.
fn properties() -> WriterPropertiesPtr {
    Arc::new(super::properties(LEVEL).set_offset_index_disabled(true).build())
}

fn extra_members() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)])
}

fn extra_field() -> Field {
    let entries = Field::new("key_value", DataType::Struct(extra_members()), false);
    Field::new("extra", DataType::Map(Arc::new(entries), false), true)
}

fn encode(buffer: &mut Buffer, symbols: &Symbols, chunks: &mut ChunkWriter) -> Result<Vec<u8>, ParquetError> {
    let rows = buffer.rows;
    let order = by_end(buffer);
    let schema = ArrowSchemaConverter::new().convert(&schema())?;
    let mut file = SerializedFileWriter::new(Vec::with_capacity(rows * 24), schema.root_schema_ptr(), properties())?;
    let leaves = schema.columns();
    let mut group = file.next_row_group()?;
    let mut longs: Vec<i64> = Vec::with_capacity(rows);
    let mut numbers: Vec<u32> = Vec::with_capacity(rows);
    let text = |number| symbols.text(Symbol(number));
    for (n, field) in FIELDS.iter().enumerate() {
        let chunk = match field.ty {
            _ if buffer.narrow[n].is_empty() && buffer.ints[n].is_empty() => chunks.nothing(&leaves[n], rows)?,
            Type::Text => {
                gather(&mut buffer.narrow[n], &order, ABSENT, &mut numbers);
                chunks.texts(&leaves[n], &mut numbers, symbols.len(), text)?
            }
            _ if is_small(field.hot) => {
                gather(&mut buffer.narrow[n], &order, ABSENT, &mut numbers);
                chunks.small(&leaves[n], &mut numbers)?
            }
            ty => {
                gather(&mut buffer.ints[n], &order, NO_INT, &mut longs);
                chunks.ints(&leaves[n], &longs, if ty == Type::Int32 { 4 } else { 8 })?
            }
        };
        group.append_column(&chunk.bytes, chunk.close)?;
    }
    let mut leaf = FIELDS.len();
    if buffer.extra.is_empty() {
        for _ in 0..2 {
            let chunk = chunks.nothing(&leaves[leaf], rows)?;
            group.append_column(&chunk.bytes, chunk.close)?;
            leaf += 1;
        }
    } else {
        append_extra(&mut group, std::mem::take(&mut buffer.extra), &order, symbols)?;
        leaf += 2;
    }
    // One walk for all of them: a row's names lie side by side.
    let mut names: [Vec<u32>; NAMES.len() - 1] = std::array::from_fn(|_| Vec::with_capacity(rows));
    for row in &order {
        let of_row = buffer.names.get(*row as usize).copied().unwrap_or_default().columns();
        for (column, number) in names.iter_mut().zip(of_row) {
            column.push(number);
        }
    }
    for mut column in names {
        let chunk = chunks.texts(&leaves[leaf], &mut column, symbols.len(), text)?;
        group.append_column(&chunk.bytes, chunk.close)?;
        leaf += 1;
    }
    gather(&mut buffer.source_keys, &order, ABSENT, &mut numbers);
    let chunk = chunks.texts(&leaves[leaf], &mut numbers, symbols.len(), text)?;
    group.append_column(&chunk.bytes, chunk.close)?;
    longs.clear();
    longs.extend(order.iter().map(|row| buffer.positions.get(*row as usize).map_or(NO_INT, |p| i64::from(*p))));
    let chunk = chunks.ints(&leaves[leaf + 1], &longs, 8)?;
    group.append_column(&chunk.bytes, chunk.close)?;
    group.close()?;
    file.into_inner()
}

/// Rows in order of their end, those of one second as they came: a counting sort over the seconds of the hour.
fn by_end(buffer: &Buffer) -> Vec<u32> {
    let ends = FIELDS.iter().position(|f| f.hot == Some(Hot::End)).map_or(&[][..], |n| &buffer.ints[n]);
    // A row without an end stands first.
    let second = |row: usize| ends.get(row).filter(|e| **e != NO_INT).map_or(0, |e| 1 + e.rem_euclid(3600) as usize);
    let mut starts = vec![0u32; 3602];
    for row in 0..buffer.rows {
        starts[second(row) + 1] += 1;
    }
    for n in 1..starts.len() {
        starts[n] += starts[n - 1];
    }
    let mut order = vec![0u32; buffer.rows];
    for row in 0..buffer.rows {
        let at = &mut starts[second(row)];
        order[*at as usize] = row as u32;
        *at += 1;
    }
    order
}

/// A column in the order of the file; rows past its end have no value.
fn gather<T: Copy + PartialEq>(column: &mut Vec<T>, order: &[u32], absent: T, out: &mut Vec<T>) {
    column.resize(order.len(), absent);
    out.clear();
    match column.first() {
        // Whatever the order: a version, an account, a status.
        Some(first) if column.iter().all(|value| value == first) => out.extend_from_slice(column),
        _ => out.extend(order.iter().map(|row| column[*row as usize])),
    }
}

/// Unknown columns are rare, so they take arrow's way: a file of this one column, whose chunks are taken over.
fn append_extra(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    mut extra: Vec<(u32, u32, u32)>,
    order: &[u32],
    symbols: &Symbols,
) -> Result<(), ParquetError> {
    // By row; within a row in the order of its columns, which the stable sort keeps.
    extra.sort_by_key(|(row, ..)| *row);
    let (mut keys, mut values) = (Vec::with_capacity(extra.len()), Vec::with_capacity(extra.len()));
    let mut lengths = Vec::with_capacity(order.len());
    for row in order {
        let from = extra.partition_point(|(r, ..)| r < row);
        let of_row = extra[from..].iter().take_while(|(r, ..)| r == row);
        let before = keys.len();
        for (_, key, value) in of_row {
            keys.push(symbols.text(Symbol(*key)));
            values.push(symbols.text(Symbol(*value)));
        }
        lengths.push(keys.len() - before);
    }
    let there: Vec<bool> = lengths.iter().map(|n| *n > 0).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(keys)), Arc::new(StringArray::from(values))];
    let entries = StructArray::try_new(extra_members(), columns, None)?;
    let field = extra_field();
    let DataType::Map(entry_field, _) = field.data_type() else { return Err(ParquetError::General("extra is a map".into())) };
    let map = MapArray::try_new(entry_field.clone(), OffsetBuffer::from_lengths(lengths), entries, Some(NullBuffer::from(there)), false)?;
    let map: ArrayRef = Arc::new(map);
    let schema: SchemaRef = Arc::new(Schema::new(vec![field.clone()]));
    let parquet = ArrowSchemaConverter::new().convert(&schema)?;
    let alone = SerializedFileWriter::new(Vec::<u8>::new(), parquet.root_schema_ptr(), properties())?;
    let writers = ArrowRowGroupWriterFactory::new(&alone, schema).create_column_writers(0)?;
    for (mut writer, leaf) in writers.into_iter().zip(compute_leaves(&field, &map)?) {
        writer.write(&leaf)?;
        writer.close()?.append_to_row_group(group)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use flowtrail_ingest::flow::batch::Names;
    use flowtrail_ingest::flow::plain::Ask;
    use flowtrail_ingest::flow::text::parse_text;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::tables::read_rows;

    /// All files of a text, with plain names.
    fn table(format: &str, text: &str, rows_max: usize) -> Vec<TableFile> {
        let mut writer = FlowsWriter::new(rows_max);
        writer.begin("logs/a.log.gz", EventTime(1_700_000_000));
        let mut files = Vec::new();
        let mut name = |run: Range<usize>, symbols: &mut Symbols, into: &mut Vec<FlowNames>| {
            into.extend(run.map(|row| FlowNames {
                src_name: symbols.maybe((row % 2 == 0).then_some("orders")),
                src_kind: symbols.intern("lambda"),
                own_side: symbols.intern("src"),
                ..FlowNames::default()
            }));
        };
        let (mut names, mut batch) = (Names::default(), FlowBatch::default());
        let layout = Layout::compile(format).unwrap();
        let ask = Ask::all(EventTime(4_000_000_000));
        let mut on_batch = |rows: FlowRows<'_>| files.extend(writer.push(rows, &mut name).unwrap());
        parse_text(text.as_bytes(), 1, &layout, ask, &mut names, &mut batch, &mut on_batch, &mut |r| panic!("{r:?}"));
        files.extend(writer.finish().unwrap());
        files
    }

    fn rows(files: &[TableFile]) -> Vec<Map<String, Value>> {
        files.iter().flat_map(|f| read_rows(f.bytes.clone()).unwrap()).collect()
    }

    const V2: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";

    #[test]
    fn a_record_keeps_its_values_and_types() {
        let text = "2 111122223333 eni-1 10.0.0.5 203.0.113.255 40001 443 6 20 4249 1418530010 1418530070 ACCEPT OK\n\
                    2 unknown eni-2 2001:db8::1 2001:db8::2 0 0 58 1 0 1418530000 1418530060 REJECT OK\n\
                    2 111122223333 eni-1 - - - - - - - 1418533700 1418533710 - NODATA\n";
        let files = table(V2, text, ROWS_MAX);
        let folders: Vec<_> = files.iter().map(|f| (f.folder.as_str(), f.rows)).collect();
        assert_eq!(folders, [("flows/dt=2014-12-14/hour=04", 2), ("flows/dt=2014-12-14/hour=05", 1)]);
        let rows = rows(&files);
        // sorted by end
        assert_eq!(rows[0]["srcaddr"], "2001:db8::1");
        assert_eq!(
            (&rows[0]["account_id"], &rows[0]["srcport"], &rows[0]["bytes"], &rows[0]["action"]),
            (&json!("unknown"), &json!(0), &json!(0), &json!("REJECT"))
        );
        let wanted = [
            ("version", json!(2)),
            ("interface_id", json!("eni-1")),
            ("srcaddr", json!("10.0.0.5")),
            ("dstaddr", json!("203.0.113.255")),
            ("srcport", json!(40001)),
            ("dstport", json!(443)),
            ("protocol", json!(6)),
            ("packets", json!(20)),
            ("bytes", json!(4249)),
            ("start", json!(1_418_530_010)),
            ("end", json!(1_418_530_070)),
            ("action", json!("ACCEPT")),
            ("log_status", json!("OK")),
            ("tcp_flags", Value::Null),
            ("extra", Value::Null),
            ("src_name", json!("orders")),
            ("dst_name", Value::Null),
            ("own_side", json!("src")),
            ("source_key", json!("logs/a.log.gz")),
            ("position", json!(1)),
        ];
        for (name, value) in wanted {
            assert_eq!(rows[1][name], value, "{name}");
        }
        for name in ["srcaddr", "srcport", "protocol", "packets", "bytes", "action"] {
            assert_eq!(rows[2][name], Value::Null, "{name}");
        }
        assert_eq!((&rows[2]["log_status"], &rows[2]["position"]), (&json!("NODATA"), &json!(3)));
        assert_eq!(rows[0].keys().collect::<Vec<_>>(), Table::Flows.schema().fields().iter().map(|f| f.name()).collect::<Vec<_>>());
    }

    #[test]
    fn unknown_columns_and_odd_numbers_are_kept() {
        let format = "interface-id shoe-size end encryption-status tgw-id favourite-colour";
        let text = "eni-1 46 1418530070 1 tgw-1 -\neni-2 - 1418530071 nitro - red\neni-3 - 1418530072 - - -\n";
        let rows = rows(&table(format, text, ROWS_MAX));
        assert_eq!(rows[0]["extra"], json!({"shoe-size": "46"}));
        assert_eq!(rows[1]["extra"], json!({"encryption_status": "nitro", "favourite-colour": "red"}));
        assert_eq!(rows[2]["extra"], Value::Null);
        assert_eq!(rows.iter().map(|r| r["encryption_status"].clone()).collect::<Vec<_>>(), [json!(1), Value::Null, Value::Null]);
        assert_eq!((&rows[0]["tgw_id"], &rows[1]["tgw_id"]), (&json!("tgw-1"), &Value::Null));
    }

    #[test]
    fn memory_has_a_bound_and_nothing_is_lost() {
        // The hours come mixed, so that many buffers are open at once.
        let mixed = |n: u64| n * 7919 % 20_000;
        let line = |n| {
            let m = mixed(n);
            let (src, end) = (format!("10.0.{}.{}", m / 256 % 256, m % 256), 1 + m * 3);
            format!("2 1 eni-{} {src} 10.1.0.1 {m} 443 6 1 {} {} {end} ACCEPT OK\n", m % 7, m * 37, m * 3)
        };
        let text: String = (0..20_000).map(line).collect();
        let files = table(V2, &text, 5_000);
        assert!(files.len() > 30, "{}", files.len());
        assert!(files == table(V2, &text, 5_000), "equal rows must make equal files");
        let rows = rows(&files);
        let mut positions: Vec<u64> = rows.iter().map(|r| r["position"].as_u64().unwrap()).collect();
        positions.sort_unstable();
        assert!(positions.into_iter().eq(1..=20_000));
        for row in &rows {
            let n = mixed(row["position"].as_u64().unwrap() - 1);
            assert_eq!((row["bytes"].as_u64(), row["end"].as_u64()), (Some(n * 37), Some(1 + n * 3)));
            assert_eq!(row["srcaddr"], json!(format!("10.0.{}.{}", n / 256 % 256, n % 256)));
            assert_eq!(row["interface_id"], json!(format!("eni-{}", n % 7)));
        }
    }

    #[test]
    fn addresses_are_written_as_usual() {
        for bits in [0, 0x0100_0a63, 0xffff_ffff, 0x0a00_0001, 0x6409_0a00, 0xc0a8_6465] {
            assert_eq!(dotted(bits, &mut [0; 15]), std::net::Ipv4Addr::from(bits).to_string());
        }
    }
}
