//! Column chunks written straight from dictionary indices.
//!
//! The `flows` table is the one whose rows count in billions. Arrow's writer hashes every string of every row to find
//! its place in the Parquet dictionary; our rows already carry indices, so here they are packed as they are, and small
//! integers (ports, protocols, the seconds of an hour) get a dictionary through a table instead of a hash.
//! Dictionary page, data pages of version 1, RLE levels and zstd as in Parquet 1.0; positions alone are written as differences
//! (`DELTA_BINARY_PACKED`), which no dictionary could shorten.

use bytes::Bytes;
use flowtrail_ingest::leb128;
use hashbrown::HashMap;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescPtr;

/// Rows of a data page: small enough for readers that skip pages, large enough to compress.
const PAGE_ROWS: usize = 32_768;
/// Integers in such a range have their dictionary entry looked up in a table, others in a map.
const RANGE_MAX: i64 = 1 << 16;
/// Strings over this length get no minimum and maximum: the footer is read by every query.
const STATISTICS_BYTES_MAX: usize = 64;

/// Small integers with more different values than this are noise.
const NOISY_MIN: usize = 4096;

/// "No value" among indices.
pub(super) const ABSENT: u32 = u32::MAX;
/// "No value" among integers.
pub(super) const NO_INT: i64 = i64::MIN;

/// A finished chunk, for `SerializedRowGroupWriter::append_column`.
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) close: ColumnCloseResult,
}

/// Writes chunks with one compression context and reused buffers.
pub(super) struct ChunkWriter {
    zstd: zstd::bulk::Compressor<'static>,
    zstd_level: Compression,
    body: Vec<u8>,
    packed: Vec<u8>,
    indices: Vec<u32>,
    local: Local,
}

/// Value or global index → index in the chunk's dictionary. The numbers of later chunks are greater, so that a new chunk
/// need not clear a table that may be far longer than the chunk.
#[derive(Default)]
struct Local {
    /// 0, or `base` and an entry.
    slots: Vec<u32>,
    base: u32,
    entries: u32,
}

impl Local {
    /// A new chunk, of values below `len`.
    fn begin(&mut self, len: usize) {
        if self.slots.len() < len {
            self.slots.resize(len, 0);
        }
        let next = u64::from(self.base) + u64::from(self.entries).max(1);
        self.entries = 0;
        self.base = if next > u64::from(u32::MAX / 2) {
            self.slots.fill(0);
            1
        } else {
            next as u32
        };
    }

    /// The entry of `at`, and whether it is new.
    #[inline]
    fn entry(&mut self, at: usize) -> (u32, bool) {
        let slot = &mut self.slots[at];
        if *slot >= self.base {
            return (*slot - self.base, false);
        }
        *slot = self.base + self.entries;
        self.entries += 1;
        (self.entries - 1, true)
    }
}

/// What a chunk's pages hold.
enum Values<'a> {
    /// Indices into the dictionary page, `ABSENT` for none.
    Indices { indices: &'a [u32], nulls: bool, entries: u32, dictionary: Vec<u8> },
    /// Integers, none of them absent, as differences.
    Rising { values: &'a [u32] },
    /// Little-endian integers of 4 or 8 bytes, `NO_INT` for none.
    Plain { values: &'a [i64], nulls: bool, width: usize },
    /// No value in any row.
    Nothing,
}

/// The dictionary of a column of strings, and its least and greatest where they are short.
struct Strings {
    dictionary: Vec<u8>,
    entries: u32,
    bounds: Option<(ByteArray, ByteArray)>,
}

impl Strings {
    /// From symbols below `symbols_len`, which are overwritten with entries; others become `ABSENT`.
    fn of<'t>(local: &mut Local, symbols: &mut [u32], symbols_len: usize, text: impl Fn(u32) -> &'t str) -> Self {
        local.begin(symbols_len);
        let mut dictionary = Vec::new();
        let mut bounds: Option<(&str, &str)> = None;
        // The symbol before, and its entry: many columns say the same for long.
        let mut last = (ABSENT, ABSENT);
        for symbol in symbols {
            if *symbol == last.0 {
                *symbol = last.1;
                continue;
            }
            if *symbol as usize >= symbols_len {
                *symbol = ABSENT;
                continue;
            }
            let (entry, new) = local.entry(*symbol as usize);
            last = (*symbol, entry);
            if new {
                let value = text(*symbol);
                dictionary.extend_from_slice(&(value.len() as u32).to_le_bytes());
                dictionary.extend_from_slice(value.as_bytes());
                bounds = Some(bounds.map_or((value, value), |(least, most)| (least.min(value), most.max(value))));
            }
            *symbol = entry;
        }
        let bounds = bounds.filter(|(least, most)| least.len().max(most.len()) <= STATISTICS_BYTES_MAX);
        Self { dictionary, entries: local.entries, bounds: bounds.map(|(least, most)| (ByteArray::from(least), ByteArray::from(most))) }
    }
}

impl ChunkWriter {
    pub(super) fn new(level: i32) -> Result<Self> {
        let zstd = zstd::bulk::Compressor::new(level).map_err(|e| ParquetError::External(Box::new(e)))?;
        let zstd_level = Compression::ZSTD(ZstdLevel::try_new(level)?);
        Ok(Self { zstd, zstd_level, body: Vec::new(), packed: Vec::new(), indices: Vec::new(), local: Local::default() })
    }

    /// A column without values; also a leaf of a map that no row has.
    pub(super) fn nothing(&mut self, descr: &ColumnDescPtr, rows: usize) -> Result<Chunk> {
        self.chunk(descr, rows, &Values::Nothing, None)
    }

    /// Strings: `symbols` are indices into a table of `symbols_len` strings that `text` reads, or `ABSENT`. They are
    /// overwritten with indices into the chunk's own dictionary.
    pub(super) fn texts<'t>(
        &mut self,
        descr: &ColumnDescPtr,
        symbols: &mut [u32],
        symbols_len: usize,
        text: impl Fn(u32) -> &'t str,
    ) -> Result<Chunk> {
        let dictionary = Strings::of(&mut self.local, symbols, symbols_len, text);
        let nulls = symbols.iter().filter(|s| **s == ABSENT).count();
        self.strings(descr, symbols.len(), symbols, nulls as u64, dictionary)
    }

    /// Replaces numbers below `len` by those of a dense numbering in the same order, and returns what each stands for.
    /// Numbers beyond become `ABSENT`.
    pub(super) fn renumber(&mut self, numbers: &mut [u32], len: usize) -> Vec<u32> {
        let mut new_of = std::mem::take(&mut self.indices);
        new_of.clear();
        new_of.resize(len, ABSENT);
        for number in &*numbers {
            if let Some(new) = new_of.get_mut(*number as usize) {
                *new = 0;
            }
        }
        let mut known = Vec::new();
        for (number, new) in new_of.iter_mut().enumerate().filter(|(_, new)| **new == 0) {
            *new = known.len() as u32;
            known.push(number as u32);
        }
        for number in numbers {
            *number = new_of.get(*number as usize).copied().unwrap_or(ABSENT);
        }
        self.indices = new_of;
        known
    }

    /// Strings that follow from a key: each row has a place in `symbols`, or `ABSENT`, unless `every_row` has one. Every one
    /// of `symbols` is used; they are overwritten with entries.
    pub(super) fn texts_by_key<'t>(
        &mut self,
        descr: &ColumnDescPtr,
        (keys, every_row): (&[u32], bool),
        symbols: &mut [u32],
        symbols_len: usize,
        text: impl Fn(u32) -> &'t str,
    ) -> Result<Chunk> {
        let dictionary = Strings::of(&mut self.local, symbols, symbols_len, text);
        let every_row = every_row && !symbols.contains(&ABSENT);
        if every_row && dictionary.entries == 1 {
            return self.strings(descr, keys.len(), &[], 0, dictionary);
        }
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        let mut nulls = 0;
        if every_row {
            indices.extend(keys.iter().map(|key| symbols[*key as usize]));
        } else {
            indices.extend(keys.iter().map(|key| symbols.get(*key as usize).copied().unwrap_or(ABSENT)));
            nulls = indices.iter().filter(|i| **i == ABSENT).count() as u64;
        }
        let chunk = self.strings(descr, keys.len(), &indices, nulls, dictionary);
        self.indices = indices;
        chunk
    }

    /// Some of a few words, each row with the place of its own.
    pub(super) fn words(&mut self, descr: &ColumnDescPtr, places: impl Iterator<Item = u32>, words: &[Option<&str>]) -> Result<Chunk> {
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        indices.extend(places);
        let used = indices.iter().fold(0u64, |used, place| used | 1 << (place & 63));
        let mut symbols: Vec<u32> = (0..words.len() as u32).filter(|n| used >> n & 1 == 1 && words[*n as usize].is_some()).collect();
        let mut entry_of = [ABSENT; 64];
        for (entry, place) in symbols.iter().enumerate() {
            entry_of[*place as usize & 63] = entry as u32;
        }
        let mut nulls = 0;
        for place in &mut indices {
            *place = entry_of[*place as usize & 63];
            nulls += u64::from(*place == ABSENT);
        }
        let dictionary = Strings::of(&mut self.local, &mut symbols, words.len(), |n| words[n as usize].unwrap_or_default());
        let chunk = self.strings(descr, indices.len(), &indices, nulls, dictionary);
        self.indices = indices;
        chunk
    }

    /// `indices` may be empty where all rows have the one entry there is.
    fn strings(&mut self, descr: &ColumnDescPtr, rows: usize, indices: &[u32], nulls: u64, strings: Strings) -> Result<Chunk> {
        let Strings { dictionary, entries, bounds } = strings;
        let (least, most) = bounds.unzip();
        let statistics = Statistics::byte_array(least, most, None, Some(nulls), false);
        let values = if entries == 0 { Values::Nothing } else { Values::Indices { indices, nulls: nulls > 0, entries, dictionary } };
        self.chunk(descr, rows, &values, Some(statistics))
    }

    /// 32-bit integers below 2^16, `ABSENT` for none. Thousands of different ones are not compressed: what zstd saves of
    /// packed ports, a quarter to a third, is a tenth of the file and a quarter of zstd's time.
    pub(super) fn small(&mut self, descr: &ColumnDescPtr, values: impl Iterator<Item = u32>) -> Result<Chunk> {
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        let local = &mut self.local;
        local.begin(RANGE_MAX as usize);
        let (mut least, mut most, mut nulls, mut dictionary) = (u32::MAX, 0, 0u64, Vec::new());
        indices.extend(values.map(|value| {
            if i64::from(value) >= RANGE_MAX {
                debug_assert!(value == ABSENT, "{value} is not small");
                nulls += 1;
                return ABSENT;
            }
            let (entry, new) = local.entry(value as usize);
            if new {
                dictionary.extend_from_slice(&value.to_le_bytes());
                (least, most) = (least.min(value), most.max(value));
            }
            entry
        }));
        let entries = local.entries;
        let chunk = if entries == 0 {
            self.chunk(descr, indices.len(), &Values::Nothing, None)
        } else {
            let statistics = Statistics::int32(Some(least as i32), Some(most as i32), None, Some(nulls), false);
            let values = Values::Indices { indices: &indices, nulls: nulls > 0, entries, dictionary };
            let compression = if entries as usize > NOISY_MIN { Compression::UNCOMPRESSED } else { self.zstd_level };
            self.chunk_as(compression, descr, indices.len(), &values, Some(statistics))
        };
        self.indices = indices;
        chunk
    }

    /// 64-bit integers that mostly rise by little, every row with one.
    pub(super) fn rising(&mut self, descr: &ColumnDescPtr, values: &[u32]) -> Result<Chunk> {
        let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) else { return self.nothing(descr, 0) };
        let statistics = Statistics::int64(Some(i64::from(*least)), Some(i64::from(*most)), None, Some(0), false);
        self.chunk_as(Compression::UNCOMPRESSED, descr, values.len(), &Values::Rising { values }, Some(statistics))
    }

    /// Integers of `width` 4 or 8 bytes, `NO_INT` for none.
    pub(super) fn ints(&mut self, descr: &ColumnDescPtr, values: &[i64], width: usize) -> Result<Chunk> {
        let (mut least, mut most, mut there) = (i64::MAX, i64::MIN, 0usize);
        for value in values {
            let absent = *value == NO_INT;
            least = least.min(if absent { i64::MAX } else { *value });
            // `NO_INT` is the least of all.
            most = most.max(*value);
            there += usize::from(!absent);
        }
        if there == 0 {
            return self.chunk(descr, values.len(), &Values::Nothing, None);
        }
        let nulls = (values.len() - there) as u64;
        let statistics = if width == 4 {
            Statistics::int32(Some(least as i32), Some(most as i32), None, Some(nulls), false)
        } else {
            Statistics::int64(Some(least), Some(most), None, Some(nulls), false)
        };
        let mut indices = std::mem::take(&mut self.indices);
        let pages = match self.entries(values, least, there, width, &mut indices) {
            Some((entries, dictionary)) => Values::Indices { indices: &indices, nulls: nulls > 0, entries, dictionary },
            None => Values::Plain { values, nulls: nulls > 0, width },
        };
        let chunk = self.chunk(descr, values.len(), &pages, Some(statistics));
        self.indices = indices;
        chunk
    }

    /// A dictionary of integers and the indices into it, unless it were long enough to cost more than it saves.
    fn entries(&mut self, values: &[i64], least: i64, there: usize, width: usize, indices: &mut Vec<u32>) -> Option<(u32, Vec<u8>)> {
        let local = &mut self.local;
        local.begin(RANGE_MAX as usize);
        let mut far: HashMap<i64, u32> = HashMap::new();
        let mut dictionary = Vec::new();
        indices.clear();
        // Page by page, so that a column of ever new numbers is given up early.
        for page in values.chunks(PAGE_ROWS) {
            indices.extend(page.iter().map(|value| {
                if *value == NO_INT {
                    return ABSENT;
                }
                let above = value.wrapping_sub(least);
                let (entry, new) = if (0..RANGE_MAX).contains(&above) {
                    local.entry(above as usize)
                } else {
                    let next = local.entries;
                    let entry = *far.entry(*value).or_insert(next);
                    local.entries += u32::from(entry == next);
                    (entry, entry == next)
                };
                if new {
                    dictionary.extend_from_slice(&value.to_le_bytes()[..width]);
                }
                entry
            }));
            if local.entries as usize > there / 2 {
                return None;
            }
        }
        Some((local.entries, dictionary))
    }

    fn chunk(&mut self, descr: &ColumnDescPtr, rows: usize, values: &Values<'_>, statistics: Option<Statistics>) -> Result<Chunk> {
        self.chunk_as(self.zstd_level, descr, rows, values, statistics)
    }

    /// `compression` is of the level of `self`, or none.
    fn chunk_as(
        &mut self,
        compression: Compression,
        descr: &ColumnDescPtr,
        rows: usize,
        values: &Values<'_>,
        statistics: Option<Statistics>,
    ) -> Result<Chunk> {
        let nested = descr.max_rep_level() > 0;
        debug_assert!(matches!(values, Values::Nothing) || !nested, "only flat columns have values here");
        let mut bytes = Vec::new();
        let mut uncompressed = 0;
        let mut dictionary_at = None;
        if let Values::Indices { entries, dictionary, .. } = values {
            uncompressed += self.page(&mut bytes, compression, PageKind::Dictionary, *entries, Encoding::PLAIN, dictionary)?;
            dictionary_at = Some(0);
        }
        let data_at = bytes.len();
        let mut start = 0;
        loop {
            let count = PAGE_ROWS.min(rows - start);
            let encoding = self.page_body(values, nested, start, count);
            let body = std::mem::take(&mut self.body);
            uncompressed += self.page(&mut bytes, compression, PageKind::Data, count as u32, encoding, &body)?;
            self.body = body;
            start += count;
            if start >= rows {
                break;
            }
        }
        let mut metadata = ColumnChunkMetaData::builder(descr.clone())
            .set_compression(compression)
            .set_encodings(match values {
                Values::Indices { .. } => vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY],
                Values::Rising { .. } => vec![Encoding::RLE, Encoding::DELTA_BINARY_PACKED],
                _ => vec![Encoding::PLAIN, Encoding::RLE],
            })
            .set_num_values(rows as i64)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_data_page_offset(data_at as i64)
            .set_dictionary_page_offset(dictionary_at);
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok(Chunk { bytes: Bytes::from(bytes), close })
    }

    /// Header and body of a page behind `chunk`; its size before compression.
    fn page(
        &mut self,
        chunk: &mut Vec<u8>,
        compression: Compression,
        kind: PageKind,
        values: u32,
        encoding: Encoding,
        body: &[u8],
    ) -> Result<usize> {
        let stored = if compression == Compression::UNCOMPRESSED {
            body
        } else {
            self.packed.clear();
            self.packed.reserve(zstd::zstd_safe::compress_bound(body.len()));
            self.zstd.compress_to_buffer(body, &mut self.packed).map_err(|e| ParquetError::External(Box::new(e)))?;
            &self.packed
        };
        let at = chunk.len();
        page_header(chunk, kind, [body.len(), stored.len(), values as usize], encoding);
        let header = chunk.len() - at;
        chunk.extend_from_slice(stored);
        Ok(header + body.len())
    }

    /// Levels and values of some rows into `body`.
    fn page_body(&mut self, values: &Values<'_>, nested: bool, start: usize, count: usize) -> Encoding {
        let body = &mut self.body;
        body.clear();
        if nested {
            // Repetition levels come first: no list goes on, as there is none.
            run(body, 0, count as u64, 1);
            let length = (body.len() as u32).to_le_bytes();
            body.splice(0..0, length);
        }
        // Definition levels: length in four bytes, then runs. The length is filled in below.
        let at = body.len();
        body.extend_from_slice(&[0; 4]);

        match values {
            Values::Nothing => {
                run(body, 0, count as u64, 1);
                level_length(&mut body[at..]);
                Encoding::PLAIN
            }
            Values::Rising { values } => {
                run(body, 1, count as u64, 1);
                level_length(&mut body[at..]);
                differences(body, &values[start..start + count]);
                Encoding::DELTA_BINARY_PACKED
            }
            Values::Plain { values, nulls, width } => {
                let rows = &values[start..start + count];
                levels(body, rows, *nulls, NO_INT);
                level_length(&mut body[at..]);
                body.reserve(rows.len() * width);
                if *width == 8 {
                    body.extend(rows.iter().filter(|value| **value != NO_INT).flat_map(|value| value.to_le_bytes()));
                } else {
                    body.extend(rows.iter().filter(|value| **value != NO_INT).flat_map(|value| (*value as i32).to_le_bytes()));
                }
                Encoding::PLAIN
            }
            Values::Indices { nulls: false, entries: 1, .. } => {
                run(body, 1, count as u64, 1);
                level_length(&mut body[at..]);
                // Indices of no width, all zero.
                body.push(0);
                run(body, 0, count as u64, 0);
                Encoding::RLE_DICTIONARY
            }
            Values::Indices { indices, nulls, entries, .. } => {
                let rows = &indices[start..start + count];
                levels(body, rows, *nulls, ABSENT);
                level_length(&mut body[at..]);
                let width = u32::BITS - entries.saturating_sub(1).leading_zeros();
                body.push(width as u8);
                if *nulls && rows.contains(&ABSENT) {
                    hybrid(body, &present(rows, ABSENT), width);
                } else {
                    hybrid(body, rows, width);
                }
                Encoding::RLE_DICTIONARY
            }
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum PageKind {
    Dictionary,
    Data,
}

/// A page header in Thrift's compact protocol (parquet.thrift, `PageHeader`): the library's own writer copies each page
/// twice more. `sizes` are those of the body before and after compression, and the number of values.
fn page_header(out: &mut Vec<u8>, kind: PageKind, [uncompressed, compressed, values]: [usize; 3], encoding: Encoding) {
    // A field is the step from the number of the one before, and its type; numbers are zigzag varints.
    const INT: u8 = 5;
    const STRUCT: u8 = 12;
    const END: u8 = 0;
    let int = |out: &mut Vec<u8>, value: usize| {
        out.push(1 << 4 | INT);
        leb128::put(out, (value as u64) << 1);
    };
    // DATA_PAGE is 0, DICTIONARY_PAGE 2.
    int(out, if kind == PageKind::Data { 0 } else { 2 });
    int(out, uncompressed);
    int(out, compressed);
    // Field 5 is the header of a data page, 7 that of a dictionary.
    out.push(if kind == PageKind::Data { 2 << 4 } else { 4 << 4 } | STRUCT);
    int(out, values);
    int(out, encoding as usize);
    if kind == PageKind::Data {
        // Definition and repetition levels.
        int(out, Encoding::RLE as usize);
        int(out, Encoding::RLE as usize);
    }
    out.extend_from_slice(&[END, END]);
}

fn level_length(body: &mut [u8]) {
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&length.to_le_bytes());
}

/// Levels of values that may be `absent`, 1 where they are not: groups of eight bits, and runs where many are equal.
fn levels<T: Copy + PartialEq>(body: &mut Vec<u8>, values: &[T], nulls: bool, absent: T) {
    if !nulls {
        return run(body, 1, values.len() as u64, 1);
    }
    let byte = |group: &[T]| group.iter().enumerate().fold(0u8, |byte, (n, value)| byte | u8::from(*value != absent) << n);
    let (whole, rest) = values.split_at(values.len() & !7);
    let mut bytes: Vec<u8> = Vec::with_capacity(whole.len() / 8);
    // Mostly there are none among many.
    for many in whole.chunks(64) {
        if many.contains(&absent) {
            bytes.extend(many.chunks(8).map(byte));
        } else {
            bytes.resize(bytes.len() + many.len() / 8, 0xff);
        }
    }
    let is_run = |byte: u8| byte == 0 || byte == 0xff;
    for alike in bytes.chunk_by(|a, b| if is_run(*a) { a == b } else { !is_run(*b) }) {
        if is_run(alike[0]) {
            run(body, u32::from(alike[0] & 1), 8 * alike.len() as u64, 1);
        } else {
            leb128::put(body, (alike.len() as u64) << 1 | 1);
            body.extend_from_slice(alike);
        }
    }
    if !rest.is_empty() {
        leb128::put(body, 1 << 1 | 1);
        body.push(byte(rest));
    }
}

/// The values that are not `absent`.
fn present<T: Copy + PartialEq>(values: &[T], absent: T) -> Vec<T> {
    let mut present = Vec::with_capacity(values.len());
    for many in values.chunks(64) {
        if many.contains(&absent) {
            present.extend(many.iter().copied().filter(|value| *value != absent));
        } else {
            present.extend_from_slice(many);
        }
    }
    present
}

/// Parquet's hybrid of runs and bit-packed groups (parquet-format, Encodings.md, "RLE / Bit-Packing Hybrid").
fn hybrid(body: &mut Vec<u8>, values: &[u32], width: u32) {
    let mut from = 0;
    // Where the header of the packed groups under way stands, and where they begin.
    while from < values.len() {
        let repeats = repeats(&values[from..]);
        if repeats >= 16 || from + repeats == values.len() {
            run(body, values[from], repeats as u64, width);
            from += repeats;
            continue;
        }
        // Whole groups until a run of two groups comes, or the end.
        let mut to = from;
        while to < values.len() && !is_run(&values[to..]) {
            to = (to + 8).min(values.len());
        }
        let groups = (to - from).div_ceil(8);
        leb128::put(body, (groups as u64) << 1 | 1);
        pack(body, &values[from..to], width);
        from = to;
    }
}

fn repeats(values: &[u32]) -> usize {
    let Some(first) = values.first() else { return 0 };
    let same = |values: &&[u32]| values.iter().fold(true, |same, v| same & (v == first));
    let whole = if values.get(1) == Some(first) { values.chunks(32).take_while(same).map(<[u32]>::len).sum() } else { 1 };
    whole + values[whole..].iter().take_while(|v| *v == first).count()
}

fn is_run(values: &[u32]) -> bool {
    values.len() >= 16 && values[0] == values[15] && values[..16].iter().all(|v| *v == values[0])
}

fn run(body: &mut Vec<u8>, value: u32, count: u64, width: u32) {
    leb128::put(body, count << 1);
    body.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
}

/// Groups of eight values of `width` bits, least bit first; values missing in the last one are zero.
fn pack(body: &mut Vec<u8>, values: &[u32], width: u32) {
    let mut at = body.len();
    let bytes = width as usize;
    // Whole words are written and overlap; the last reach beyond the end, which is cut.
    body.resize(at + values.len().div_ceil(8) * bytes + 32, 0);
    let mut put = |[a, b, c, d, e, f, g, h]: [u32; 8]| {
        let four = |a: u32, b: u32, c: u32, d: u32| {
            let two = |a: u32, b: u32| u64::from(a) | u64::from(b) << width;
            u128::from(two(a, b)) | u128::from(two(c, d)) << (2 * width)
        };
        let (low, high) = (four(a, b, c, d), four(e, f, g, h));
        let shift = 4 * width;
        let first = low | high.checked_shl(shift).unwrap_or(0);
        body[at..at + 16].copy_from_slice(&first.to_le_bytes());
        if width > 16 {
            // What of the upper four the first word did not hold; from its 16th byte on.
            let second = high >> (128 - shift);
            body[at + 16..at + 32].copy_from_slice(&second.to_le_bytes());
        }
        at += bytes;
    };
    let (groups, rest) = values.as_chunks::<8>();
    for group in groups {
        put(*group);
    }
    if !rest.is_empty() {
        let mut group = [0; 8];
        group[..rest.len()].copy_from_slice(rest);
        put(group);
    }
    body.truncate(at);
}

/// Values of a block of `DELTA_BINARY_PACKED`, and of each of its parts, which have widths of their own.
const BLOCK: usize = 128;
const PART: usize = 32;

/// `DELTA_BINARY_PACKED` (parquet-format, Encodings.md).
fn differences(body: &mut Vec<u8>, values: &[u32]) {
    let zigzag = |n: i64| (n << 1 ^ n >> 63) as u64;
    leb128::put(body, BLOCK as u64);
    leb128::put(body, (BLOCK / PART) as u64);
    leb128::put(body, values.len() as u64);
    let mut last = i64::from(values.first().copied().unwrap_or(0));
    leb128::put(body, zigzag(last));
    let mut steps = [0i64; BLOCK];
    let mut packed = [0u32; PART];
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        let mut least = i64::MAX;
        for (step, value) in steps.iter_mut().zip(block) {
            *step = i64::from(*value) - last;
            last = i64::from(*value);
            least = least.min(*step);
        }
        leb128::put(body, zigzag(least));
        let widths = body.len();
        body.extend_from_slice(&[0; BLOCK / PART]);
        for (n, part) in steps[..block.len()].chunks(PART).enumerate() {
            // Two differences of 32-bit numbers are less than 2^33 apart: one more bit than fits, for which see below.
            let most = part.iter().map(|step| (step - least) as u64).max().unwrap_or(0);
            let width = u64::BITS - most.leading_zeros();
            body[widths + n] = width as u8;
            if width > 32 {
                pack_wide(body, part, least);
                continue;
            }
            packed.fill(0);
            for (to, step) in packed.iter_mut().zip(part) {
                *to = (step - least) as u32;
            }
            pack(body, &packed, width);
        }
    }
}

/// A part of 33 bits to a value: where positions both rise and fall by more than 2^31, which no unit's lines do.
fn pack_wide(body: &mut Vec<u8>, part: &[i64], least: i64) {
    let (mut bits, mut held) = (0u128, 0);
    for n in 0..PART {
        bits |= (part.get(n).map_or(0, |step| (step - least) as u64) as u128) << held;
        held += 33;
        while held >= 8 {
            body.push(bits as u8);
            bits >>= 8;
            held -= 8;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use proptest::prelude::*;

    use super::*;

    /// One column of each kind through the chunk writer, and what an independent reader sees.
    struct Read {
        texts: Vec<Option<String>>,
        by_key: Vec<Option<String>>,
        words: Vec<Option<String>>,
        longs: Vec<Option<i64>>,
        ints: Vec<Option<i32>>,
        small: Vec<Option<i32>>,
        rising: Vec<Option<i64>>,
    }

    const WORDS: [Option<&str>; 4] = [None, Some("one"), Some("two"), None];

    fn word(text: Option<u16>) -> u32 {
        text.map_or(0, |n| 1 + u32::from(n) % 3)
    }

    /// Numbers that rise and fall by all that 32 bits have room for.
    fn position(int: Option<i64>, row: usize) -> u32 {
        match int {
            None => u32::MAX - row as u32,
            Some(n) if n % 2 == 0 => row as u32,
            Some(n) => n as u32,
        }
    }

    fn round_trip(texts: &[Option<u16>], ints: &[Option<i64>]) -> Read {
        let schema = "message m { optional binary t (STRING); optional binary k (STRING); optional binary w (STRING); optional int64 l;
            optional int32 i; optional int32 s; optional int64 p; optional binary n (STRING); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut file =
            SerializedFileWriter::new(Vec::new(), schema, Arc::new(super::super::properties(1).set_offset_index_disabled(true).build()))
                .unwrap();
        let columns = file.schema_descr().columns().to_vec();
        static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| (0..=u16::MAX).map(|n| format!("name {n}")).collect());
        let name = |n: u32| NAMES[n as usize].as_str();
        let mut symbols: Vec<u32> = texts.iter().map(|t| t.map_or(ABSENT, u32::from)).collect();
        let longs: Vec<i64> = ints.iter().map(|i| i.unwrap_or(NO_INT)).collect();
        let ints_32: Vec<i64> = longs.iter().map(|i| if *i == NO_INT { NO_INT } else { i64::from(*i as i32) }).collect();
        let positions: Vec<u32> = ints.iter().enumerate().map(|(row, int)| position(*int, row)).collect();
        let mut chunks = ChunkWriter::new(1).unwrap();
        // Keys of another numbering, every seventh of them without a text.
        let mut keys: Vec<u32> = symbols.iter().map(|s| if *s == ABSENT { ABSENT } else { 3 * s }).collect();
        let known = chunks.renumber(&mut keys, 3 << 16);
        let mut of_keys: Vec<u32> = known.iter().map(|k| if k / 3 % 7 == 6 { ABSENT } else { k / 3 }).collect();
        let small = symbols.clone();
        let mut group = file.next_row_group().unwrap();
        for chunk in [
            chunks.texts(&columns[0], &mut symbols, NAMES.len(), name),
            chunks.texts_by_key(&columns[1], (&keys, !keys.contains(&ABSENT)), &mut of_keys, NAMES.len(), name),
            chunks.words(&columns[2], texts.iter().map(|t| word(*t)), &WORDS),
            chunks.ints(&columns[3], &longs, 8),
            chunks.ints(&columns[4], &ints_32, 4),
            chunks.small(&columns[5], small.iter().copied()),
            chunks.rising(&columns[6], &positions),
            chunks.nothing(&columns[7], texts.len()),
        ] {
            let chunk = chunk.unwrap();
            group.append_column(&chunk.bytes, chunk.close).unwrap();
        }
        group.close().unwrap();
        let bytes = Bytes::from(file.into_inner().unwrap());
        let (mut strings, mut longs, mut ints): ([Vec<_>; 3], [Vec<_>; 2], [Vec<_>; 2]) = Default::default();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            for (n, column) in strings.iter_mut().enumerate() {
                column.extend(batch.column(n).as_string::<i32>().iter().map(|s| s.map(str::to_owned)));
            }
            for (n, column) in [3, 6].into_iter().zip(&mut longs) {
                column.extend(batch.column(n).as_primitive::<Int64Type>().iter());
            }
            for (n, column) in [4, 5].into_iter().zip(&mut ints) {
                column.extend(batch.column(n).as_primitive::<Int32Type>().iter());
            }
            assert_eq!(batch.column(7).null_count(), batch.num_rows());
        }
        let ([texts, by_key, words], [longs, rising], [ints, small]) = (strings, longs, ints);
        Read { texts, by_key, words, longs, ints, small, rising }
    }

    fn check(texts: &[Option<u16>], ints: &[Option<i64>]) {
        let read = round_trip(texts, ints);
        let name = |n: u16| format!("name {n}");
        assert_eq!(read.texts, texts.iter().map(|t| t.map(name)).collect::<Vec<_>>());
        assert_eq!(read.by_key, texts.iter().map(|t| t.filter(|n| n % 7 != 6).map(name)).collect::<Vec<_>>());
        assert_eq!(read.words, texts.iter().map(|t| WORDS[word(*t) as usize].map(str::to_owned)).collect::<Vec<_>>());
        assert_eq!(read.longs, ints);
        assert_eq!(read.ints, ints.iter().map(|n| n.map(|n| n as i32)).collect::<Vec<_>>());
        assert_eq!(read.small, texts.iter().map(|t| t.map(i32::from)).collect::<Vec<_>>());
        let positions = ints.iter().enumerate().map(|(row, int)| Some(i64::from(position(*int, row))));
        assert_eq!(read.rising, positions.collect::<Vec<_>>());
    }

    #[test]
    fn long_columns_of_every_kind() {
        let rows = 3 * PAGE_ROWS + 11;
        let mix = |n: usize| twox_hash::XxHash3_64::oneshot(&(n as u64).to_le_bytes());
        for (name, texts, ints) in [
            (
                "constant",
                Box::new(|_| Some(7u16)) as Box<dyn Fn(usize) -> Option<u16>>,
                Box::new(|_| Some(7i64)) as Box<dyn Fn(usize) -> Option<i64>>,
            ),
            ("runs", Box::new(|n| Some((n / 23) as u16)), Box::new(|n| Some((n / 1000) as i64))),
            ("noise", Box::new(move |n| Some(mix(n) as u16)), Box::new(move |n| Some(mix(n) as i64 >> 1))),
            (
                "nulls in runs",
                Box::new(move |n| (n / 50 % 2 == 0).then_some(mix(n) as u16 & 7)),
                Box::new(|n| (n / 9 % 3 == 0).then_some(n as i64 % 60)),
            ),
            (
                "nulls at random",
                Box::new(move |n| (mix(n) & 1 == 0).then_some(mix(n) as u16 >> 3)),
                Box::new(move |n| (mix(n) & 3 == 0).then_some(-(n as i64))),
            ),
            (
                // A heavy tail: most in the table of small ones, some in the map.
                "far and near",
                Box::new(|n| Some(if n % 9 == 0 { n as u16 } else { 7 })),
                Box::new(move |n| Some(if mix(n) % 20 == 0 { 1 << (mix(n) >> 59) } else { mix(n) as i64 & 0xff })),
            ),
            ("nothing", Box::new(|_| None), Box::new(|_| None)),
        ] {
            println!("{name}");
            check(&(0..rows).map(texts).collect::<Vec<_>>(), &(0..rows).map(ints).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn any_column_comes_back(rows in proptest::collection::vec((proptest::option::of(0u16..300), proptest::option::of(prop_oneof![any::<i64>().prop_map(|n| n.max(i64::MIN + 1)), 0i64..40]), 1usize..30), 1..40)) {
            let (mut texts, mut ints) = (Vec::new(), Vec::new());
            for (text, int, count) in rows {
                texts.extend(std::iter::repeat_n(text, count));
                ints.extend(std::iter::repeat_n(int, count));
            }
            check(&texts, &ints);
        }
    }
}
