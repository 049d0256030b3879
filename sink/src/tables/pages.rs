//! Column chunks written straight from dictionary indices.
//!
//! The `flows` table is the one whose rows count in billions. Arrow's writer hashes every string of every row to find
//! its place in the Parquet dictionary; our rows already carry indices, so here they are packed as they are, and integers
//! of a small range (ports, protocols, the seconds of an hour) get a dictionary through a table instead of a hash.
//! Everything is plain Parquet 1.0: dictionary page, data pages of version 1, RLE levels, zstd.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// Rows of a data page: small enough for readers that skip pages, large enough to compress.
const PAGE_ROWS: usize = 32_768;
/// Integers within such a range may get a dictionary.
const RANGE_MAX: i64 = 1 << 16;
/// Strings over this length get no minimum and maximum: the footer is read by every query.
const STATISTICS_BYTES_MAX: usize = 64;

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
    level: i32,
    body: Vec<u8>,
    packed: Vec<u8>,
    indices: Vec<u32>,
    local: Local,
}

/// Value or global index → index in the chunk's dictionary. Entries carry the number of their chunk, so that a new
/// chunk need not clear a table that may be far longer than the chunk.
#[derive(Default)]
struct Local {
    slots: Vec<(u32, u32)>,
    chunk: u32,
    entries: u32,
}

impl Local {
    fn begin(&mut self, len: usize) {
        if self.slots.len() < len {
            self.slots.resize(len, (0, 0));
        }
        if self.chunk == u32::MAX {
            self.slots.fill((0, 0));
            self.chunk = 0;
        }
        self.chunk += 1;
        self.entries = 0;
    }

    /// The entry of `at`, and whether it is new.
    #[inline]
    fn entry(&mut self, at: usize) -> (u32, bool) {
        let slot = &mut self.slots[at];
        if slot.0 == self.chunk {
            return (slot.1, false);
        }
        *slot = (self.chunk, self.entries);
        self.entries += 1;
        (slot.1, true)
    }
}

/// What a chunk's pages hold.
enum Values<'a> {
    /// Indices into the dictionary page, `ABSENT` for none.
    Indices { indices: &'a [u32], nulls: bool, entries: u32, dictionary: Vec<u8> },
    /// Little-endian integers of 4 or 8 bytes, `NO_INT` for none.
    Plain { values: &'a [i64], nulls: bool, width: usize },
    /// No value in any row.
    Nothing,
}

impl ChunkWriter {
    pub(super) fn new(level: i32) -> Result<Self> {
        let zstd = zstd::bulk::Compressor::new(level).map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(Self { zstd, level, body: Vec::new(), packed: Vec::new(), indices: Vec::new(), local: Local::default() })
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
        let local = &mut self.local;
        local.begin(symbols_len);
        let (mut dictionary, mut nulls) = (Vec::new(), 0u64);
        let (mut least, mut most): (Option<&str>, Option<&str>) = (None, None);
        // The symbol before, and its entry: many columns say the same for long.
        let mut last = (ABSENT, ABSENT);
        for symbol in symbols.iter_mut() {
            if *symbol == last.0 && *symbol != ABSENT {
                *symbol = last.1;
                continue;
            }
            if *symbol as usize >= symbols_len {
                *symbol = ABSENT;
                nulls += 1;
                continue;
            }
            let (entry, new) = local.entry(*symbol as usize);
            last = (*symbol, entry);
            if new {
                let value = text(*symbol);
                dictionary.extend_from_slice(&(value.len() as u32).to_le_bytes());
                dictionary.extend_from_slice(value.as_bytes());
                least = Some(least.map_or(value, |l| l.min(value)));
                most = Some(most.map_or(value, |m| m.max(value)));
            }
            *symbol = entry;
        }
        let entries = local.entries;
        let bounds = least.zip(most).filter(|(l, m)| l.len().max(m.len()) <= STATISTICS_BYTES_MAX);
        let statistics = Statistics::byte_array(
            bounds.map(|(l, _)| ByteArray::from(l)),
            bounds.map(|(_, m)| ByteArray::from(m)),
            None,
            Some(nulls),
            false,
        );
        let values =
            if entries == 0 { Values::Nothing } else { Values::Indices { indices: symbols, nulls: nulls > 0, entries, dictionary } };
        self.chunk(descr, symbols.len(), &values, Some(statistics))
    }

    /// 32-bit integers below 2^16, `ABSENT` for none. They are overwritten with indices into the chunk's dictionary.
    pub(super) fn small(&mut self, descr: &ColumnDescPtr, values: &mut [u32]) -> Result<Chunk> {
        let local = &mut self.local;
        local.begin(RANGE_MAX as usize);
        let (mut least, mut most, mut nulls, mut dictionary) = (u32::MAX, 0, 0u64, Vec::new());
        for value in values.iter_mut() {
            if i64::from(*value) >= RANGE_MAX {
                debug_assert!(*value == ABSENT, "{value} is not small");
                *value = ABSENT;
                nulls += 1;
                continue;
            }
            let (entry, new) = local.entry(*value as usize);
            if new {
                dictionary.extend_from_slice(&value.to_le_bytes());
                (least, most) = (least.min(*value), most.max(*value));
            }
            *value = entry;
        }
        let entries = local.entries;
        if entries == 0 {
            return self.chunk(descr, values.len(), &Values::Nothing, None);
        }
        let statistics = Statistics::int32(Some(least as i32), Some(most as i32), None, Some(nulls), false);
        let indices = Values::Indices { indices: values, nulls: nulls > 0, entries, dictionary };
        self.chunk(descr, values.len(), &indices, Some(statistics))
    }

    /// Integers of `width` 4 or 8 bytes, `NO_INT` for none.
    pub(super) fn ints(&mut self, descr: &ColumnDescPtr, values: &[i64], width: usize) -> Result<Chunk> {
        let (mut least, mut most, mut there) = (i64::MAX, i64::MIN, 0usize);
        for value in values {
            if *value != NO_INT {
                least = least.min(*value);
                most = most.max(*value);
                there += 1;
            }
        }
        if there == 0 {
            return self.chunk(descr, values.len(), &Values::Nothing, None);
        }
        let nulls = Some((values.len() - there) as u64);
        let some_nulls = nulls != Some(0);
        let statistics = if width == 4 {
            Statistics::int32(Some(least as i32), Some(most as i32), None, nulls, false)
        } else {
            Statistics::int64(Some(least), Some(most), None, nulls, false)
        };
        let range = most.saturating_sub(least);
        if range >= RANGE_MAX {
            return self.chunk(descr, values.len(), &Values::Plain { values, nulls: some_nulls, width }, Some(statistics));
        }
        let mut indices = std::mem::take(&mut self.indices);
        let local = &mut self.local;
        local.begin(range as usize + 1);
        indices.clear();
        let mut dictionary = Vec::new();
        for value in values {
            if *value == NO_INT {
                indices.push(ABSENT);
                continue;
            }
            let (entry, new) = local.entry((*value - least) as usize);
            if new {
                dictionary.extend_from_slice(&value.to_le_bytes()[..width]);
            }
            indices.push(entry);
        }
        let entries = local.entries;
        // A dictionary about as long as the column costs more than it saves.
        let chunk = if (entries as usize) * 2 > there {
            self.chunk(descr, values.len(), &Values::Plain { values, nulls: some_nulls, width }, Some(statistics))
        } else {
            self.chunk(
                descr,
                values.len(),
                &Values::Indices { indices: &indices, nulls: some_nulls, entries, dictionary },
                Some(statistics),
            )
        };
        self.indices = indices;
        chunk
    }

    fn chunk(&mut self, descr: &ColumnDescPtr, rows: usize, values: &Values<'_>, statistics: Option<Statistics>) -> Result<Chunk> {
        let nested = descr.max_rep_level() > 0;
        debug_assert!(matches!(values, Values::Nothing) || !nested, "only flat columns have values here");
        let mut sink = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut sink);
        let (mut compressed, mut uncompressed) = (0u64, 0u64);
        let mut dictionary_at = None;
        if let Values::Indices { entries, dictionary, .. } = values {
            let buf = self.compress(dictionary)?;
            let page = Page::DictionaryPage { buf, num_values: *entries, encoding: Encoding::PLAIN, is_sorted: false };
            let spec = writer.write_page(CompressedPage::new(page, dictionary.len()))?;
            (compressed, uncompressed) = (compressed + spec.compressed_size as u64, uncompressed + spec.uncompressed_size as u64);
            dictionary_at = Some(0);
        }
        let data_at = compressed;
        let mut start = 0;
        loop {
            let count = PAGE_ROWS.min(rows - start);
            let encoding = self.page_body(values, nested, start, count);
            let body = std::mem::take(&mut self.body);
            let page = Page::DataPage {
                buf: self.compress(&body)?,
                num_values: count as u32,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let spec = writer.write_page(CompressedPage::new(page, body.len()))?;
            self.body = body;
            (compressed, uncompressed) = (compressed + spec.compressed_size as u64, uncompressed + spec.uncompressed_size as u64);
            start += count;
            if start >= rows {
                break;
            }
        }
        let mut metadata = ColumnChunkMetaData::builder(descr.clone())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(self.level)?))
            .set_encodings(match values {
                Values::Indices { .. } => vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY],
                _ => vec![Encoding::PLAIN, Encoding::RLE],
            })
            .set_num_values(rows as i64)
            .set_total_compressed_size(compressed as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_data_page_offset(data_at as i64)
            .set_dictionary_page_offset(dictionary_at);
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: compressed,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        let bytes = Bytes::from(sink.into_inner()?);
        Ok(Chunk { bytes, close })
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
            Values::Plain { values, nulls, width } => {
                let rows = &values[start..start + count];
                levels(body, rows.len(), *nulls, |n| rows[n] != NO_INT);
                level_length(&mut body[at..]);
                body.reserve(rows.len() * width);
                if *width == 8 {
                    body.extend(rows.iter().filter(|value| **value != NO_INT).flat_map(|value| value.to_le_bytes()));
                } else {
                    body.extend(rows.iter().filter(|value| **value != NO_INT).flat_map(|value| (*value as i32).to_le_bytes()));
                }
                Encoding::PLAIN
            }
            Values::Indices { indices, nulls, entries, .. } => {
                let rows = &indices[start..start + count];
                levels(body, rows.len(), *nulls, |n| rows[n] != ABSENT);
                level_length(&mut body[at..]);
                let width = u32::BITS - entries.saturating_sub(1).leading_zeros();
                body.push(width as u8);
                if *nulls && rows.contains(&ABSENT) {
                    let present: Vec<u32> = rows.iter().copied().filter(|i| *i != ABSENT).collect();
                    hybrid(body, &present, width);
                } else {
                    hybrid(body, rows, width);
                }
                Encoding::RLE_DICTIONARY
            }
        }
    }

    fn compress(&mut self, bytes: &[u8]) -> Result<Bytes> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        self.zstd.compress_to_buffer(bytes, &mut self.packed).map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(Bytes::copy_from_slice(&self.packed))
    }
}

fn level_length(body: &mut [u8]) {
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&length.to_le_bytes());
}

/// Levels 1 and 0 as runs: nulls come in long runs or not at all.
fn levels(body: &mut Vec<u8>, count: usize, nulls: bool, there: impl Fn(usize) -> bool) {
    if !nulls {
        return run(body, 1, count as u64, 1);
    }
    let mut from = 0;
    while from < count {
        let value = there(from);
        let mut to = from + 1;
        while to < count && there(to) == value {
            to += 1;
        }
        if to - from >= 8 || to == count {
            run(body, u32::from(value), (to - from) as u64, 1);
            from = to;
            continue;
        }
        // Short runs: groups of eight bits until a long one comes.
        let mut bits = Vec::new();
        while from < count {
            let group = (count - from).min(8);
            let byte = (0..group).fold(0u8, |b, n| b | (u8::from(there(from + n)) << n));
            if group == 8 && (byte == 0 || byte == 0xff) {
                break;
            }
            bits.push(byte);
            from += group;
        }
        varint(body, (bits.len() as u64) << 1 | 1);
        body.extend_from_slice(&bits);
    }
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
        varint(body, (groups as u64) << 1 | 1);
        for group in values[from..to].chunks(8) {
            pack(body, group, width);
        }
        from = to;
    }
}

fn repeats(values: &[u32]) -> usize {
    let Some(first) = values.first() else { return 0 };
    values.iter().position(|v| v != first).unwrap_or(values.len())
}

fn is_run(values: &[u32]) -> bool {
    values.len() >= 16 && values[0] == values[15] && values[..16].iter().all(|v| *v == values[0])
}

fn run(body: &mut Vec<u8>, value: u32, count: u64, width: u32) {
    varint(body, count << 1);
    body.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
}

/// Up to eight values of `width` bits, least bit first; missing ones are zero.
fn pack(body: &mut Vec<u8>, group: &[u32], width: u32) {
    if width <= 16
        && let [a, b, c, d, e, f, g, h] = *group
    {
        let four = |a: u32, b: u32, c: u32, d: u32| {
            u64::from(a) | u64::from(b) << width | u64::from(c) << (2 * width) | u64::from(d) << (3 * width)
        };
        let bits = u128::from(four(a, b, c, d)) | u128::from(four(e, f, g, h)) << (4 * width);
        body.extend_from_slice(&bits.to_le_bytes()[..width as usize]);
        return;
    }
    let (mut bits, mut held, mut written) = (0u64, 0, 0);
    for value in group.iter().copied().chain(std::iter::repeat_n(0, 8 - group.len())) {
        bits |= u64::from(value) << held;
        held += width;
        while held >= 8 {
            body.push(bits as u8);
            bits >>= 8;
            held -= 8;
            written += 1;
        }
    }
    debug_assert_eq!(written, width);
}

fn varint(body: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        body.push(value as u8 | 0x80);
        value >>= 7;
    }
    body.push(value as u8);
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

    /// Three columns through the chunk writer, and what an independent reader sees.
    fn round_trip(texts: &[Option<u16>], ints: &[Option<i64>]) -> (Vec<Option<String>>, Vec<Option<i64>>, Vec<Option<i32>>) {
        let schema = Arc::new(
            parse_message_type("message m { optional binary t (STRING); optional int64 l; optional int32 i; optional binary n (STRING); }")
                .unwrap(),
        );
        let mut file =
            SerializedFileWriter::new(Vec::new(), schema, Arc::new(super::super::properties(1).set_offset_index_disabled(true).build()))
                .unwrap();
        let columns = file.schema_descr().columns().to_vec();
        static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| (0..=u16::MAX).map(|n| format!("name {n}")).collect());
        let names = &*NAMES;
        let mut symbols: Vec<u32> = texts.iter().map(|t| t.map_or(ABSENT, u32::from)).collect();
        let longs: Vec<i64> = ints.iter().map(|i| i.unwrap_or(NO_INT)).collect();
        let small: Vec<i64> = longs.iter().map(|i| if *i == NO_INT { NO_INT } else { i64::from(*i as i32) }).collect();
        let mut chunks = ChunkWriter::new(1).unwrap();
        let mut group = file.next_row_group().unwrap();
        for chunk in [
            chunks.texts(&columns[0], &mut symbols, names.len(), |n| names[n as usize].as_str()),
            chunks.ints(&columns[1], &longs, 8),
            chunks.ints(&columns[2], &small, 4),
            chunks.nothing(&columns[3], texts.len()),
        ] {
            let chunk = chunk.unwrap();
            group.append_column(&chunk.bytes, chunk.close).unwrap();
        }
        group.close().unwrap();
        let bytes = Bytes::from(file.into_inner().unwrap());
        let (mut t, mut l, mut i) = (Vec::new(), Vec::new(), Vec::new());
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            t.extend(batch.column(0).as_string::<i32>().iter().map(|s| s.map(str::to_owned)));
            l.extend(batch.column(1).as_primitive::<Int64Type>().iter());
            i.extend(batch.column(2).as_primitive::<Int32Type>().iter());
            assert_eq!(batch.column(3).null_count(), batch.num_rows());
        }
        (t, l, i)
    }

    fn check(texts: &[Option<u16>], ints: &[Option<i64>]) {
        let (t, l, i) = round_trip(texts, ints);
        assert_eq!(t, texts.iter().map(|n| n.map(|n| format!("name {n}"))).collect::<Vec<_>>());
        assert_eq!(l, ints);
        assert_eq!(i, ints.iter().map(|n| n.map(|n| n as i32)).collect::<Vec<_>>());
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
