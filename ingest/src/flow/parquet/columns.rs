//! The fast way: flat columns straight from their pages into the batch.
//!
//! Every hot column becomes one array of numbers for a block of rows: counts and times as they are, addresses as their
//! bits, words as their [`marks`], names as their number in the unit's dictionary. Two values stand outside: [`NONE`],
//! and [`ODD`] for all that the plain way has to judge. A block with an odd value is not handed on; the rest of its row
//! group goes the plain way, as does a column that this module cannot read. So it decides nothing by itself.

use parquet::basic::{Compression, ConvertedType, LogicalType, Type as Physical};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::ColumnDescriptor;

use super::super::batch::{ABSENT, BATCH_ROWS, FlowBatch, marks};
use super::super::layout::{HOT, Hot, Layout, THERE};
use super::super::names::{Interner, NameIndex};
use super::super::plain::{self, Ask};
use super::super::{FlowRows, Out};
use super::hybrid::{Hybrid, Run, SLACK};
use super::page::{self, Kind, Unpacker};
use super::{Asked, is_absent, max_of};
use crate::ip::Ip;

/// Rows taken from every column in turn: all their numbers stay in the first-level and second-level caches.
const BLOCK: usize = 1024;

/// No value.
const NONE: u64 = u64::MAX;
/// A value for the plain way to judge.
const ODD: u64 = u64::MAX - 1;
/// Among addresses: the number of an IPv6 address, not the bits of an IPv4 one.
const V6: u64 = 1 << 32;

// Encodings by their number in parquet.thrift.
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const RLE_DICTIONARY: i64 = 8;

/// The row group ends here for the fast way; the plain way goes on.
pub(super) struct Stopped {
    /// So many of its rows were handed on.
    pub after: u64,
}

/// The columns of the file at hand, and the memory they use again.
#[derive(Default)]
pub(super) struct Columns {
    columns: Vec<Column>,
    unpacker: Unpacker,
    packed: Vec<u8>,
    /// For each hot field its numbers in the block at hand; `NONE` all over where the file has no such column.
    values: Vec<[u64; BLOCK]>,
    /// IPv6 addresses of the row group, by number.
    v6: Vec<u128>,
}

/// One column while its pages are read.
struct Column {
    hot: Hot,
    leaf: usize,
    meaning: Meaning,
    bytes: usize,
    optional: bool,
    codec: Compression,
    /// What is left of the chunk in the file.
    rest: std::ops::Range<usize>,
    /// What the entries of the dictionary mean, and what kinds are among them.
    dictionary: Vec<u64>,
    in_dictionary: Seen,
    /// What may be among the values filled in last.
    seen: Seen,
    /// The page under way, and how many of its values are left.
    content: Vec<u8>,
    left: usize,
    levels: Option<Hybrid>,
    values: Encoded,
}

/// How the values of a page lie there.
#[derive(Copy, Clone, Debug)]
enum Encoded {
    /// One after the other, from here on.
    Plain(usize),
    Indices(Hybrid),
}

/// How a value becomes a number.
#[derive(Copy, Clone, Debug)]
struct Meaning {
    hot: Hot,
    /// Of fields that are numbers.
    max: Option<u64>,
}

/// Bytes of a string's length in `bytes`: strings have no width of their own.
const STRING: usize = 0;

/// What kinds of values were seen.
#[derive(Copy, Clone, Debug, Default)]
struct Seen {
    none: bool,
    odd: bool,
    v6: bool,
}

impl Seen {
    fn with(self, other: Self) -> Self {
        Self { none: self.none | other.none, odd: self.odd | other.odd, v6: self.v6 | other.v6 }
    }

    fn any(self) -> bool {
        self.none | self.odd | self.v6
    }

    /// One pass without branches over values in the first-level cache.
    fn in_values(hot: Hot, values: &[u64]) -> Self {
        let mut seen = Self::default();
        for value in values {
            seen.none |= *value == NONE;
            seen.odd |= *value == ODD;
            seen.v6 |= *value & V6 != 0;
        }
        seen.v6 &= matches!(hot, Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst);
        seen
    }
}

impl Columns {
    /// Gets ready for a file. False if it has a column that only the plain way reads.
    pub(super) fn prepare(&mut self, metadata: &ParquetMetaData, asked: &Asked, ask: Ask) -> bool {
        let schema = metadata.file_metadata().schema_descr();
        if asked.leaves.len() != asked.roots.len() {
            return false;
        }
        self.values.resize(HOT, [NONE; BLOCK]);
        self.values.iter_mut().for_each(|column| column.fill(NONE));
        let mut kept = std::mem::take(&mut self.columns);
        for (at, leaf) in asked.leaves.iter().copied().enumerate() {
            let Some(hot) = asked.layout.hot_at(at) else { continue };
            let meaning = Meaning { hot, max: max_of(hot, ask.limit()) };
            let Some(bytes) = width(&schema.column(leaf), meaning) else { return false };
            // The buffers of an earlier file are as good as new ones.
            let (mut content, mut dictionary) = kept.pop().map(|c| (c.content, c.dictionary)).unwrap_or_default();
            content.clear();
            dictionary.clear();
            let optional = schema.column(leaf).max_def_level() > 0;
            let codec = Compression::UNCOMPRESSED;
            self.columns.push(Column {
                hot,
                leaf,
                meaning,
                bytes,
                optional,
                codec,
                rest: 0..0,
                dictionary,
                in_dictionary: Seen::default(),
                seen: Seen::default(),
                content,
                left: 0,
                levels: None,
                values: Encoded::Plain(0),
            });
        }
        true
    }

    /// Reads a row group; its first row has the number `first_row` in the file.
    pub(super) fn group(
        &mut self,
        object: &[u8],
        group: &RowGroupMetaData,
        first_row: u64,
        layout: &Layout,
        index: &mut NameIndex,
        out: &mut Out<'_>,
    ) -> Result<(), Stopped> {
        self.v6.clear();
        let rows = group.num_rows().max(0) as u64;
        for column in &mut self.columns {
            column.begin(object, group).ok_or(Stopped { after: 0 })?;
        }
        let mut done = 0;
        while done < rows {
            // A batch is handed on whole, or not at all: then the plain way begins with its first row.
            let batch_rows = (rows - done).min(BATCH_ROWS as u64) as usize;
            let mut filled = 0;
            while filled < batch_rows {
                let take = (batch_rows - filled).min(BLOCK);
                let row = first_row + done + filled as u64;
                if self.block(object, take, row, index, out).is_none() {
                    out.batch.clear();
                    return Err(Stopped { after: done });
                }
                filled += take;
            }
            (out.on_batch)(FlowRows { batch: out.batch, names: out.names, layout, text: &[] });
            out.batch.clear();
            done += batch_rows as u64;
        }
        Ok(())
    }

    /// Appends the next `rows` rows to the batch; `None` if the fast way ends here.
    fn block(&mut self, object: &[u8], rows: usize, first_row: u64, index: &mut NameIndex, out: &mut Out<'_>) -> Option<()> {
        let Self { columns, unpacker, packed, values, v6 } = self;
        let mut seen = Seen::default();
        let mut interner = Interner { names: out.names, index };
        let mut there = 0u32;
        for column in columns.iter_mut() {
            let into = values.get_mut(column.hot as usize)?.get_mut(..rows)?;
            column.fill(object, into, unpacker, packed, &mut interner, v6)?;
            seen = seen.with(column.seen);
            there |= 1 << column.hot as u32;
        }
        if seen.odd {
            return None;
        }
        let block = Taken { values, v6, rows, first_row };
        // Without nulls and IPv6, columns are moved as they are.
        if !seen.none && !seen.v6 && there & (1 << Hot::PktSrc as u32 | 1 << Hot::PktDst as u32) == 0 {
            block.push_whole(there, out.batch);
        } else {
            block.push_rows(out.batch);
        }
        Some(())
    }
}

/// Bytes of a value in PLAIN encoding, [`STRING`] for strings; `None` for what the plain way has to read.
fn width(descr: &ColumnDescriptor, meaning: Meaning) -> Option<usize> {
    let flat = descr.max_rep_level() == 0 && descr.max_def_level() <= 1 && descr.path().parts().len() == 1;
    if !flat {
        return None;
    }
    let signed = match descr.logical_type_ref() {
        None => matches!(descr.converted_type(), ConvertedType::NONE | ConvertedType::INT_32 | ConvertedType::INT_64),
        Some(LogicalType::Integer(int)) => matches!(int.bit_width, 32 | 64) && int.is_signed,
        Some(_) => false,
    };
    let text = match descr.logical_type_ref() {
        None => matches!(descr.converted_type(), ConvertedType::NONE | ConvertedType::UTF8),
        Some(LogicalType::String) => true,
        Some(_) => false,
    };
    match descr.physical_type() {
        Physical::INT32 if signed && meaning.max.is_some() => Some(4),
        Physical::INT64 if signed && meaning.max.is_some() => Some(8),
        Physical::BYTE_ARRAY if text => Some(STRING),
        _ => None,
    }
}

impl Meaning {
    fn number(self, value: u64) -> u64 {
        // Negative numbers are far above every maximum.
        if self.max.is_some_and(|max| value <= max) { value } else { ODD }
    }

    fn text(self, value: &[u8], interner: &mut Interner<'_>, v6: &mut Vec<u128>) -> u64 {
        if is_absent(value) {
            return NONE;
        }
        let found = match self.hot {
            Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst => plain::address("", value).ok().map(|ip| match ip.as_v4() {
                Some(bits) => u64::from(bits),
                None => {
                    v6.push(ip.0);
                    V6 | (v6.len() as u64 - 1)
                }
            }),
            Hot::Action => plain::action(value).map(u64::from),
            Hot::LogStatus => plain::log_status(value).map(u64::from),
            Hot::Direction => Some(u64::from(plain::direction(value))),
            Hot::Account => plain::text("", value).ok().map(|name| match name {
                "unknown" => NONE,
                _ => u64::from(interner.account(Some(name))),
            }),
            Hot::Interface => plain::text("", value).ok().map(|name| u64::from(interner.interface(Some(name)))),
            _ => plain::number("", value, u64::MAX).ok().map(|n| self.number(n)),
        };
        found.unwrap_or(ODD)
    }
}

impl Column {
    /// Goes to this column's chunk of a row group.
    fn begin(&mut self, object: &[u8], group: &RowGroupMetaData) -> Option<()> {
        let column = group.columns().get(self.leaf)?;
        self.codec = column.compression();
        if !Unpacker::knows(self.codec) || column.file_path().is_some() {
            return None;
        }
        let chunk = page::chunk(object, column)?;
        let start = chunk.as_ptr() as usize - object.as_ptr() as usize;
        self.rest = start..start + chunk.len();
        self.dictionary.clear();
        self.left = 0;
        Some(())
    }

    /// Fills `out` with the next values.
    fn fill(
        &mut self,
        object: &[u8],
        out: &mut [u64],
        unpacker: &mut Unpacker,
        packed: &mut Vec<u8>,
        interner: &mut Interner<'_>,
        v6: &mut Vec<u128>,
    ) -> Option<()> {
        self.seen = Seen::default();
        let mut done = 0;
        while done < out.len() {
            if self.left == 0 {
                self.page(object, unpacker, packed, interner, v6)?;
                continue;
            }
            let most = (out.len() - done).min(self.left);
            let Some(levels) = &mut self.levels else {
                self.values(&mut out[done..done + most], interner, v6)?;
                (done, self.left) = (done + most, self.left - most);
                continue;
            };
            let taken = match levels.next(&self.content, most)? {
                Run::Same { value: 0, left } => {
                    out[done..done + left].fill(NONE);
                    self.seen.none = true;
                    left
                }
                Run::Same { left, .. } => {
                    self.values(&mut out[done..done + left], interner, v6)?;
                    left
                }
                Run::Packed { bit, left } => {
                    let (mut bits, mut count) = ([false; BLOCK], 0);
                    levels.unpack(&self.content, bit, left, |n, level| {
                        if let Some(there) = bits.get_mut(n) {
                            (*there, count) = (level != 0, count + usize::from(level != 0));
                        }
                    })?;
                    self.seen.none = true;
                    let mut found = [NONE; BLOCK];
                    self.values(found.get_mut(..count)?, interner, v6)?;
                    let mut found = found.into_iter();
                    for (out, there) in out[done..done + left].iter_mut().zip(bits) {
                        *out = if there { found.next()? } else { NONE };
                    }
                    left
                }
            };
            if taken == 0 {
                return None;
            }
            (done, self.left) = (done + taken, self.left - taken);
        }
        Some(())
    }

    /// The next values that are there.
    fn values(&mut self, out: &mut [u64], interner: &mut Interner<'_>, v6: &mut Vec<u128>) -> Option<()> {
        let Self { content, dictionary, in_dictionary, seen, meaning, bytes, values, .. } = self;
        match values {
            Encoded::Indices(indices) => {
                let mut done = 0;
                while done < out.len() {
                    match indices.next(content, out.len() - done)? {
                        Run::Same { value, left } => {
                            out[done..done + left].fill(*dictionary.get(value as usize)?);
                            done += left;
                        }
                        Run::Packed { bit, left } => {
                            let into = out.get_mut(done..done + left)?;
                            let mut inside = true;
                            indices.unpack(content, bit, left, |n, index| {
                                let value = dictionary.get(index as usize);
                                inside &= value.is_some();
                                into[n] = value.copied().unwrap_or(ODD);
                            })?;
                            if !inside {
                                return None;
                            }
                            done += left;
                        }
                    }
                }
                if in_dictionary.any() {
                    *seen = seen.with(Seen::in_values(meaning.hot, out));
                }
            }
            Encoded::Plain(at) => {
                *at = plain_values(content, *at, *bytes, *meaning, out, interner, v6)?;
                *seen = seen.with(Seen::in_values(meaning.hot, out));
            }
        }
        Some(())
    }

    /// Goes to the next page with values.
    fn page(
        &mut self,
        object: &[u8],
        unpacker: &mut Unpacker,
        packed: &mut Vec<u8>,
        interner: &mut Interner<'_>,
        v6: &mut Vec<u128>,
    ) -> Option<()> {
        while self.left == 0 {
            let bytes = object.get(self.rest.clone())?;
            let (header, body) = page::header(bytes)?;
            let stored = body.get(..header.stored)?;
            self.rest.start = self.rest.end - (body.len() - header.stored);
            match header.kind {
                Kind::Other => {}
                Kind::Dictionary => {
                    if !matches!(header.encoding, PLAIN | PLAIN_DICTIONARY) || !self.dictionary.is_empty() {
                        return None;
                    }
                    unpacker.content(self.codec, &header, stored, packed)?;
                    // Each entry has a byte at least, so a false number asks for no memory.
                    let entries = header.values.min(packed.len());
                    self.dictionary.resize(entries, NONE);
                    plain_values(packed, 0, self.bytes, self.meaning, &mut self.dictionary, interner, v6)?;
                    self.in_dictionary = Seen::in_values(self.hot, &self.dictionary);
                }
                Kind::Data | Kind::DataV2 => {
                    unpacker.content(self.codec, &header, stored, &mut self.content)?;
                    let end = self.content.len() - SLACK;
                    let mut at = 0;
                    self.levels = None;
                    if header.kind == Kind::DataV2 {
                        let [repetition, definition] = header.level_bytes;
                        at = repetition.checked_add(definition)?;
                        if self.optional {
                            self.levels = Some(Hybrid::new(repetition, at, 1));
                        }
                    } else if self.optional {
                        if header.level_encoding != RLE {
                            return None;
                        }
                        let length = u32::from_le_bytes(*self.content.first_chunk()?) as usize;
                        at = 4usize.checked_add(length).filter(|at| *at <= end)?;
                        self.levels = Some(Hybrid::new(4, at, 1));
                    }
                    self.values = match header.encoding {
                        PLAIN => Encoded::Plain(at),
                        PLAIN_DICTIONARY | RLE_DICTIONARY => {
                            // A page of nulls alone may end here.
                            let width = if at < end { u32::from(self.content[at]) } else { 0 };
                            if width > 32 {
                                return None;
                            }
                            Encoded::Indices(Hybrid::new(at + 1, end, width))
                        }
                        _ => return None,
                    };
                    self.left = header.values;
                }
            }
        }
        Some(())
    }
}

/// Values in PLAIN encoding from `at` on; where they end.
fn plain_values(
    content: &[u8],
    at: usize,
    bytes: usize,
    meaning: Meaning,
    out: &mut [u64],
    interner: &mut Interner<'_>,
    v6: &mut Vec<u128>,
) -> Option<usize> {
    let end = content.len() - SLACK;
    match bytes {
        4 => {
            let to = at.checked_add(out.len().checked_mul(4)?).filter(|to| *to <= end)?;
            for (out, value) in out.iter_mut().zip(content[at..to].as_chunks::<4>().0) {
                *out = meaning.number(i64::from(i32::from_le_bytes(*value)) as u64);
            }
            Some(to)
        }
        8 => {
            let to = at.checked_add(out.len().checked_mul(8)?).filter(|to| *to <= end)?;
            for (out, value) in out.iter_mut().zip(content[at..to].as_chunks::<8>().0) {
                *out = meaning.number(u64::from_le_bytes(*value));
            }
            Some(to)
        }
        _ => {
            let mut at = at;
            for out in out {
                let length = u32::from_le_bytes(*content.get(at..end)?.first_chunk()?) as usize;
                let value = content.get(at + 4..end)?.get(..length)?;
                *out = meaning.text(value, interner, v6);
                at += 4 + length;
            }
            Some(at)
        }
    }
}

/// A block whose values are all known.
struct Taken<'a> {
    values: &'a [[u64; BLOCK]],
    v6: &'a [u128],
    rows: usize,
    first_row: u64,
}

impl Taken<'_> {
    fn column(&self, hot: Hot) -> &[u64] {
        &self.values[hot as usize][..self.rows]
    }

    /// All rows, each with a value in every column of `there`, and without IPv6 or inner addresses.
    fn push_whole(&self, there: u32, batch: &mut FlowBatch) {
        let has = |hot: Hot| there >> hot as u32 & 1 == 1;
        let mut bits = 0;
        for (mark, a, b) in THERE {
            bits |= if has(a) && has(b) { mark } else { 0 };
        }
        let words: Vec<&[u64]> =
            [Hot::Action, Hot::LogStatus, Hot::Direction].into_iter().filter(|h| has(*h)).map(|h| self.column(h)).collect();
        batch.marks.extend((0..self.rows).map(|row| words.iter().fold(bits, |bits, column| bits | column[row] as u16)));
        let or_zero = |hot: Hot| has(hot).then(|| self.column(hot));
        fn push<T: Copy>(into: &mut Vec<T>, rows: usize, column: Option<&[u64]>, absent: T, cast: impl Fn(u64) -> T) {
            match column {
                Some(column) => into.extend(column.iter().map(|n| cast(*n))),
                None => into.resize(into.len() + rows, absent),
            }
        }
        let addresses = bits & marks::ADDRS != 0;
        push(&mut batch.src, self.rows, or_zero(Hot::Src).filter(|_| addresses), 0, |n| n as u32);
        push(&mut batch.dst, self.rows, or_zero(Hot::Dst).filter(|_| addresses), 0, |n| n as u32);
        push(&mut batch.account, self.rows, or_zero(Hot::Account), ABSENT, |n| n as u32);
        push(&mut batch.interface, self.rows, or_zero(Hot::Interface), ABSENT, |n| n as u32);
        match (or_zero(Hot::SrcPort), or_zero(Hot::DstPort)) {
            (Some(s), Some(d)) => batch.ports.extend(s.iter().zip(d).map(|(s, d)| (*s as u32) << 16 | *d as u32)),
            (s, d) => {
                let one = |column: Option<&[u64]>, row: usize| column.map_or(0, |c| c[row] as u32);
                batch.ports.extend((0..self.rows).map(|row| one(s, row) << 16 | one(d, row)));
            }
        }
        push(&mut batch.protocol, self.rows, or_zero(Hot::Protocol), 0, |n| n as u8);
        push(&mut batch.tcp_flags, self.rows, or_zero(Hot::TcpFlags), 0, |n| n as u8);
        push(&mut batch.packets, self.rows, or_zero(Hot::Packets), 0, |n| n);
        push(&mut batch.bytes, self.rows, or_zero(Hot::Bytes), 0, |n| n);
        push(&mut batch.start, self.rows, or_zero(Hot::Start), 0, |n| n as i64);
        push(&mut batch.end, self.rows, or_zero(Hot::End), 0, |n| n as i64);
        self.push_lines(batch);
    }

    fn push_lines(&self, batch: &mut FlowBatch) {
        batch.line.extend((0..self.rows as u64).map(|n| u32::try_from(self.first_row + n).unwrap_or(u32::MAX)));
    }

    fn address(&self, value: u64) -> Ip {
        if value & V6 == 0 { Ip::v4(value as u32) } else { Ip(self.v6.get((value & !V6) as usize).copied().unwrap_or_default()) }
    }

    /// Row by row, whatever is there.
    fn push_rows(&self, batch: &mut FlowBatch) {
        for row in 0..self.rows {
            let value = |hot: Hot| Some(self.values[hot as usize][row]).filter(|v| *v != NONE);
            let number = |hot: Hot| value(hot).unwrap_or(0);
            let mut bits = (number(Hot::Action) | number(Hot::LogStatus) | number(Hot::Direction)) as u16;
            for (mark, a, b) in THERE {
                bits |= if value(a).is_some() && value(b).is_some() { mark } else { 0 };
            }
            let (mut src, mut dst) = (0, 0);
            if bits & marks::ADDRS != 0 {
                (src, dst) = (number(Hot::Src), number(Hot::Dst));
                let inner = (value(Hot::PktSrc).unwrap_or(src), value(Hot::PktDst).unwrap_or(dst));
                // Numbers of IPv6 addresses are not unique, so addresses are compared.
                let (outer, inner) = ((self.address(src), self.address(dst)), (self.address(inner.0), self.address(inner.1)));
                if inner != outer {
                    bits |= marks::PKT;
                    batch.packet_addrs.push((batch.marks.len() as u32, inner.0, inner.1));
                }
                if (src | dst) & V6 != 0 {
                    bits |= marks::V6;
                    src = batch.v6.len() as u64;
                    dst = src + 1;
                    batch.v6.extend([outer.0.0, outer.1.0]);
                }
            }
            batch.marks.push(bits);
            batch.src.push(src as u32);
            batch.dst.push(dst as u32);
            batch.account.push(value(Hot::Account).map_or(ABSENT, |n| n as u32));
            batch.interface.push(value(Hot::Interface).map_or(ABSENT, |n| n as u32));
            batch.ports.push((number(Hot::SrcPort) as u32) << 16 | number(Hot::DstPort) as u32);
            batch.protocol.push(number(Hot::Protocol) as u8);
            batch.tcp_flags.push(number(Hot::TcpFlags) as u8);
            batch.packets.push(number(Hot::Packets));
            batch.bytes.push(number(Hot::Bytes));
            batch.start.push(number(Hot::Start) as i64);
            batch.end.push(number(Hot::End) as i64);
        }
        self.push_lines(batch);
    }
}
