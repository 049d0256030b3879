//! `flows`: every flow record with AWS's own column names and types, and the names of both ends beside them.
//!
//! Rows go straight from the parser's batch into columns, one open buffer to an hour of record ends; strings are numbers
//! ([`Symbols`]) from here to the Parquet dictionary, and what many rows have in common is one number ([`Pairs`]). A full
//! buffer becomes one file of one row group, sorted by end.

mod order;
mod pairs;
mod small;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, MapArray, StringArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use flowtrail_ingest::EventTime;
use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::layout::{Column, FIELDS, Hot, Layout, Type};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};

use self::order::{Order, Span, by_second, gather};
pub use self::pairs::Pairs;
use self::pairs::text;
use self::small::Small;
use super::pages::{ABSENT, ChunkWriter, NO_INT};
use super::symbols::{Symbol, Symbols};
use super::{Table, TableError, TableFile};

/// Rows kept over all open hours, unless the caller says otherwise: some 60 MB of the default format.
pub const ROWS_MAX: usize = 1 << 19;
/// Strings and pairs kept, and the bytes of strings; beyond, all buffers are written.
const SYMBOLS_MAX: usize = 1 << 21;
const PAIRS_MAX: usize = 1 << 20;
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
    /// The source's address as text; only for [`Pairs::add`], since other records bear it as they were written.
    pub src: Symbol,
    /// The destination's.
    pub dst: Symbol,
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
    /// The same but for the sides, which the caller knows how to name: source is destination.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_name: self.dst_name,
            src_kind: self.dst_kind,
            dst_name: self.src_name,
            dst_kind: self.src_kind,
            ..self
        }
    }

    /// As the columns of the table stand.
    fn symbols(&self) -> [u32; pairs::SOURCE_KEY - pairs::NAMES] {
        let Self { src: _, dst: _, src_name, src_kind, dst_name, dst_kind, own_side, function_arn, attribution } = *self;
        [src_name, src_kind, dst_name, dst_kind, own_side, function_arn, attribution].map(|symbol| symbol.0)
    }
}

/// The rows of one hour, column by column; a column that no row had a value for is empty, a short one ends in nulls.
#[derive(Default)]
struct Buffer {
    rows: usize,
    spans: Vec<Span>,
    pairs: Vec<u32>,
    /// See [`small`].
    small: Vec<u64>,
    /// The other fields, by their place in `FIELDS`: numbers, `NO_INT` for none.
    ints: Vec<Vec<i64>>,
    /// Strings, `ABSENT` for none.
    texts: Vec<Vec<u32>>,
    positions: Vec<u32>,
    /// (row, name, value) of unknown columns.
    extra: Vec<(u32, u32, u32)>,
}

impl Buffer {
    fn new() -> Self {
        Self { ints: vec![Vec::new(); FIELDS.len()], texts: vec![Vec::new(); FIELDS.len()], ..Self::default() }
    }

    /// Without rows, its memory kept.
    fn emptied(mut self) -> Self {
        self.rows = 0;
        self.spans.clear();
        self.pairs.clear();
        self.small.clear();
        self.ints.iter_mut().for_each(Vec::clear);
        self.texts.iter_mut().for_each(Vec::clear);
        self.positions.clear();
        self.extra.clear();
        self
    }
}

/// Where a column of a layout goes.
#[derive(Copy, Clone, PartialEq)]
enum Target {
    /// `FIELDS[n]`, into a column of its own.
    Field(usize),
    /// `extra`, under this name.
    Extra(u32),
    /// Told by the pair or the small numbers; or nowhere, as the second column of that name.
    Elsewhere,
}

/// Appends the number of its pair for each row of a batch.
pub type PairRows<'a> = dyn FnMut(&mut Pairs, &mut Vec<u32>) + 'a;

/// Writes the `flows` table. One to a thread.
pub struct FlowsWriter {
    rows_max: usize,
    rows: usize,
    buffers: BTreeMap<i64, Buffer>,
    spare: Vec<Buffer>,
    pairs: Pairs,
    chunks: Option<ChunkWriter>,
    cells: Cells,
    scratch: Scratch,
    order: Order,
    layout: Option<(Layout, Vec<Target>, Small)>,
    source_key: String,
    fallback: EventTime,
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
            pairs: Pairs::default(),
            chunks: None,
            cells: Cells::default(),
            scratch: Scratch::default(),
            order: Order::default(),
            layout: None,
            source_key: String::new(),
            fallback: EventTime::default(),
        }
    }

    /// Begins a unit: the batches that follow are its own. `fallback` is the time of rows that have none.
    pub fn begin(&mut self, source_key: &str, fallback: EventTime) {
        source_key.clone_into(&mut self.source_key);
        self.pairs.begin(source_key);
        self.fallback = fallback;
    }

    /// Takes in all rows of a batch that was read with all cells. `pair` is asked for their pairs, whose numbers it
    /// appends, one for each row. Returns the files that became full.
    ///
    /// # Errors
    /// When a file cannot be encoded, which no input should bring about.
    pub fn push(&mut self, rows: FlowRows<'_>, pair: &mut PairRows<'_>) -> Result<Vec<TableFile>, TableError> {
        let mut full = Vec::new();
        let strings = self.pairs.texts();
        if strings.len() > SYMBOLS_MAX || strings.bytes() > SYMBOL_BYTES_MAX || self.pairs.len() > PAIRS_MAX {
            full = self.finish()?;
        }
        if self.layout.is_none() {
            self.pairs.begin(&self.source_key);
        }
        self.compile(rows.layout);
        self.order.put(rows.batch, self.fallback);
        let Self { buffers, spare, pairs, scratch: Scratch { numbers: pair_of, .. }, cells, order, layout, .. } = self;
        pair_of.clear();
        pair(pairs, pair_of);
        pair_of.resize(rows.batch.rows(), ABSENT);
        if let Some((_, targets, small)) = layout {
            cells.read(rows, targets, small, pairs.symbols());
            for (hour, of_hour) in order.hours() {
                let buffer = buffers.entry(hour).or_insert_with(|| spare.pop().unwrap_or_else(Buffer::new));
                order.spans(of_hour, buffer.rows, &mut buffer.spans);
                take(buffer, rows, of_hour, targets, cells, pairs.symbols());
                buffer.pairs.extend(of_hour.iter().map(|row| pair_of[*row as usize]));
            }
        }
        self.rows += rows.batch.rows();
        while self.rows > self.rows_max {
            let Some(hour) = self.buffers.iter().max_by_key(|(_, b)| b.rows).map(|(h, _)| *h) else { break };
            full.extend(self.write(hour)?);
        }
        Ok(full)
    }

    /// Writes what is open, and forgets all pairs.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self) -> Result<Vec<TableFile>, TableError> {
        let hours: Vec<i64> = self.buffers.keys().copied().collect();
        let mut files = Vec::with_capacity(hours.len());
        for hour in hours {
            files.extend(self.write(hour)?);
        }
        self.pairs.empty();
        self.layout = None;
        Ok(files)
    }

    fn compile(&mut self, layout: &Layout) {
        if self.layout.as_ref().is_some_and(|(known, ..)| known == layout) {
            return;
        }
        let mut seen = vec![false; FIELDS.len()];
        let mut targets = Vec::with_capacity(layout.len());
        for column in layout.columns() {
            targets.push(match column {
                Column::Known(field) => match FIELDS.iter().position(|f| f.column == field.column) {
                    Some(n) if !seen[n] && !is_elsewhere(field.hot) => {
                        seen[n] = true;
                        Target::Field(n)
                    }
                    _ => Target::Elsewhere,
                },
                Column::Unknown(name) => {
                    let symbol = Target::Extra(self.pairs.symbols().intern(name).0);
                    if targets.contains(&symbol) { Target::Elsewhere } else { symbol }
                }
            });
        }
        self.pairs.compile(layout);
        self.layout = Some((layout.clone(), targets, Small::of(layout)));
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
        let bytes = encode(&mut buffer, &self.pairs, &mut chunks, &mut self.scratch).map_err(failed)?;
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

/// The fields that are told by [`Pairs`] or [`small`].
fn is_elsewhere(hot: Option<Hot>) -> bool {
    matches!(
        hot,
        Some(
            Hot::Account
                | Hot::Interface
                | Hot::Src
                | Hot::Dst
                | Hot::SrcPort
                | Hot::DstPort
                | Hot::Protocol
                | Hot::TcpFlags
                | Hot::Action
                | Hot::LogStatus
        )
    )
}

/// Where a layout has a field, if it has it: the first column of that name.
fn column_of(layout: &Layout, hot: Hot) -> Option<usize> {
    layout.columns().iter().position(|column| matches!(column, Column::Known(field) if field.hot == Some(hot)))
}

/// What the cells of a batch became, row by row: read in the order they stand in memory, before rows are put in order.
#[derive(Default)]
struct Cells {
    /// By field, as in [`Buffer`].
    texts: Vec<Vec<u32>>,
    ints: Vec<Vec<i64>>,
    small: Vec<u64>,
}

impl Cells {
    fn read(&mut self, rows: FlowRows<'_>, targets: &[Target], small: &Small, symbols: &mut Symbols) {
        self.texts.resize(FIELDS.len(), Vec::new());
        self.ints.resize(FIELDS.len(), Vec::new());
        let all = 0..rows.batch.rows();
        for (at, target) in targets.iter().enumerate() {
            let Target::Field(n) = *target else { continue };
            let field = &FIELDS[n];
            // The cell before, and what it became: most say the same for long.
            let mut last: &[u8] = &[];
            if field.ty == Type::Text {
                self.texts[n].clear();
                let mut symbol = ABSENT;
                self.texts[n].extend(all.clone().map(|row| {
                    let cell = rows.cell(row, at);
                    if !same(cell, last) {
                        (last, symbol) = (cell, text(cell, symbols));
                    }
                    symbol
                }));
            } else if !is_typed(field.hot) {
                self.ints[n].clear();
                let mut value = NO_INT;
                self.ints[n].extend(all.clone().map(|row| {
                    let cell = rows.cell(row, at);
                    if !same(cell, last) {
                        (last, value) = (cell, parse(cell, field.ty));
                    }
                    value
                }));
            }
        }
        self.small.clear();
        self.small.extend(all.map(|row| small.pack(rows, row)));
    }
}

/// Numbers that the parser has put into the batch.
fn is_typed(hot: Option<Hot>) -> bool {
    matches!(hot, Some(Hot::Packets | Hot::Bytes | Hot::Start | Hot::End))
}

/// Rows of one hour into its buffer, column after column; all but their pairs.
fn take(buffer: &mut Buffer, rows: FlowRows<'_>, of_hour: &[u32], targets: &[Target], cells: &Cells, symbols: &mut Symbols) {
    let batch = rows.batch;
    let base = buffer.rows;
    let order = of_hour.iter().map(|row| *row as usize);
    for (at, target) in targets.iter().enumerate() {
        let n = match *target {
            Target::Field(n) => n,
            Target::Elsewhere => continue,
            Target::Extra(key) => {
                for (n, row) in order.clone().enumerate() {
                    let cell = rows.cell(row, at);
                    if !cell.is_empty() {
                        buffer.extra.push(((base + n) as u32, key, text(cell, symbols)));
                    }
                }
                continue;
            }
        };
        let field = &FIELDS[n];
        if field.ty == Type::Text {
            let column = &mut buffer.texts[n];
            column.resize(base, ABSENT);
            column.extend(order.clone().map(|row| cells.texts[n][row]));
            continue;
        }
        let column = &mut buffer.ints[n];
        column.resize(base, NO_INT);
        // A zero may stand for "absent", which the cell knows.
        let absent = |row: usize| !batch.cells.is_empty() && rows.is_absent(row, at);
        let large = |row: usize, value: i64| if value == 0 && absent(row) { NO_INT } else { value };
        match field.hot {
            Some(Hot::Packets) => column.extend(order.clone().map(|row| large(row, batch.packets[row] as i64))),
            Some(Hot::Bytes) => column.extend(order.clone().map(|row| large(row, batch.bytes[row] as i64))),
            Some(Hot::Start) => column.extend(order.clone().map(|row| large(row, batch.start[row]))),
            Some(Hot::End) => column.extend(order.clone().map(|row| large(row, batch.end[row]))),
            _ => {
                column.extend(order.clone().map(|row| cells.ints[n][row]));
                for (n, row) in order.clone().enumerate().filter(|(n, _)| column[base + n] == NO_INT) {
                    let cell = rows.cell(row, at);
                    if !cell.is_empty() {
                        // Not the number that the documentation promises: kept as it is.
                        let (key, value) = (symbols.intern(field.column).0, text(cell, symbols));
                        buffer.extra.push(((base + n) as u32, key, value));
                    }
                }
            }
        }
    }
    buffer.small.extend(order.clone().map(|row| cells.small[row]));
    buffer.positions.extend(order.map(|row| batch.line[row]));
    buffer.rows += of_hour.len();
}

/// Equality, without a call for the single digits of `version`.
fn same(a: &[u8], b: &[u8]) -> bool {
    match (a, b) {
        ([a], [b]) => a == b,
        _ => a == b,
    }
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

/// Columns in the order of the file. Their memory is used again.
#[derive(Default)]
struct Scratch {
    of_row: Vec<u32>,
    of_pairs: [Vec<u32>; pairs::COLUMNS],
    small: Vec<u64>,
    longs: Vec<i64>,
    numbers: Vec<u32>,
}

fn encode(buffer: &mut Buffer, pairs: &Pairs, chunks: &mut ChunkWriter, scratch: &mut Scratch) -> Result<Vec<u8>, ParquetError> {
    let Scratch { of_row, of_pairs, small, longs, numbers } = scratch;
    let rows = buffer.rows;
    let spans = by_second(&buffer.spans);
    let symbols = pairs.texts();
    let text = |number| symbols.text(Symbol(number));
    let schema = ArrowSchemaConverter::new().convert(&schema())?;
    let mut file = SerializedFileWriter::new(Vec::with_capacity(rows * 24), schema.root_schema_ptr(), properties())?;
    let leaves = schema.columns();
    let mut group = file.next_row_group()?;

    gather(&mut buffer.pairs, &spans, rows, ABSENT, of_row);
    let known = chunks.renumber(of_row, pairs.len());
    let every_row = !of_row.contains(&ABSENT);
    of_pairs.iter_mut().for_each(Vec::clear);
    // A few at a time, so that each is fetched but once.
    for some in known.chunks(256) {
        for (n, column) in of_pairs.iter_mut().enumerate() {
            column.extend(some.iter().map(|pair| pairs.get(*pair)[n]));
        }
    }
    gather(&mut buffer.small, &spans, rows, 0, small);
    let any_small = small.iter().fold(0, |any, bits| any | bits);

    for (n, field) in FIELDS.iter().enumerate() {
        let leaf = &leaves[n];
        let pair = match field.hot {
            Some(Hot::Account) => Some(pairs::ACCOUNT),
            Some(Hot::Interface) => Some(pairs::INTERFACE),
            Some(Hot::Src) => Some(pairs::SRC),
            Some(Hot::Dst) => Some(pairs::DST),
            _ => None,
        };
        let chunk = match field.hot {
            _ if let Some(column) = pair => chunks.texts_by_key(leaf, (of_row, every_row), &mut of_pairs[column], symbols.len(), text)?,
            Some(Hot::Action) => chunks.words(leaf, small.iter().map(|bits| small::action(*bits)), &small::ACTIONS)?,
            Some(Hot::LogStatus) => chunks.words(leaf, small.iter().map(|bits| small::status(*bits)), &small::STATUSES)?,
            Some(hot) if is_elsewhere(Some(hot)) && !small::has(any_small, hot) => chunks.nothing(leaf, rows)?,
            Some(hot) if is_elsewhere(Some(hot)) => chunks.small(leaf, small.iter().map(|bits| small::number(*bits, hot)))?,
            _ if buffer.texts[n].is_empty() && buffer.ints[n].is_empty() => chunks.nothing(leaf, rows)?,
            _ if field.ty == Type::Text => {
                gather(&mut buffer.texts[n], &spans, rows, ABSENT, numbers);
                chunks.texts(leaf, numbers, symbols.len(), text)?
            }
            _ => {
                gather(&mut buffer.ints[n], &spans, rows, NO_INT, longs);
                chunks.ints(leaf, longs, if field.ty == Type::Int32 { 4 } else { 8 })?
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
        append_extra(&mut group, std::mem::take(&mut buffer.extra), &spans, symbols)?;
        leaf += 2;
    }
    for column in &mut of_pairs[pairs::NAMES..] {
        let chunk = chunks.texts_by_key(&leaves[leaf], (of_row, every_row), column, symbols.len(), text)?;
        group.append_column(&chunk.bytes, chunk.close)?;
        leaf += 1;
    }
    gather(&mut buffer.positions, &spans, rows, 0, numbers);
    let chunk = chunks.rising(&leaves[leaf], numbers)?;
    group.append_column(&chunk.bytes, chunk.close)?;
    group.close()?;
    file.into_inner()
}

/// Unknown columns are rare, so they take arrow's way: a file of this one column, whose chunks are taken over.
fn append_extra(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    mut extra: Vec<(u32, u32, u32)>,
    spans: &[Span],
    symbols: &Symbols,
) -> Result<(), ParquetError> {
    // By row; within a row in the order of its columns, which the stable sort keeps.
    extra.sort_by_key(|(row, ..)| *row);
    let (mut keys, mut values) = (Vec::with_capacity(extra.len()), Vec::with_capacity(extra.len()));
    let mut lengths = Vec::new();
    for row in spans.iter().flat_map(|span| span.range()) {
        let row = row as u32;
        let from = extra.partition_point(|(r, ..)| *r < row);
        let of_row = extra[from..].iter().take_while(|(r, ..)| *r == row);
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
    use flowtrail_ingest::flow::batch::{FlowBatch, Names};
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
        let (mut names, mut batch) = (Names::default(), FlowBatch::default());
        let layout = Layout::compile(format).unwrap();
        let ask = Ask::all(EventTime(4_000_000_000));
        let mut on_batch = |rows: FlowRows<'_>| {
            let mut pair = |pairs: &mut Pairs, into: &mut Vec<u32>| {
                for row in 0..rows.batch.rows() {
                    let names = FlowNames {
                        src_name: pairs.symbols().maybe((row % 2 == 0).then_some("orders")),
                        src_kind: pairs.symbols().intern("lambda"),
                        own_side: pairs.symbols().intern("src"),
                        ..FlowNames::default()
                    };
                    into.push(pairs.find(rows, row, names));
                }
            };
            files.extend(writer.push(rows, &mut pair).unwrap());
        };
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
}
