//! Pages: their headers (Thrift's compact protocol, parquet-format's `parquet.thrift`) and their content.

use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use super::FlowError;
use crate::inflate::Inflater;
use crate::leb128;

/// What a page header says, as far as it is needed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    /// Bytes after decompression, as claimed.
    pub content: usize,
    /// Bytes in the file.
    pub stored: usize,
    /// Values, nulls included.
    pub values: usize,
    /// Parquet's number of the encoding.
    pub encoding: i64,
    /// Of the definition levels (version 1).
    pub level_encoding: i64,
    /// Bytes of levels before the values (version 2): repetition, definition.
    pub level_bytes: [usize; 2],
    /// Version 2: the values are not compressed, whatever the column is.
    pub bare: bool,
}

/// What a page is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    DataV2,
    Dictionary,
    /// An index, or something newer.
    #[default]
    Other,
}

/// A page's content beyond this size must not be more than [`RATIO`] times what is stored, as with gzip objects.
const CONTENT_FREE: usize = 64 << 20;
const RATIO: usize = 200;

/// True for a page that no honest writer makes.
fn is_bomb(header: &Header) -> bool {
    header.content > CONTENT_FREE && header.content / RATIO > header.stored
}

/// The bytes of a column chunk.
pub(super) fn chunk<'a>(object: &'a [u8], column: &ColumnChunkMetaData) -> Option<&'a [u8]> {
    let data = column.data_page_offset();
    // Some writers leave 0 where there is no dictionary.
    let start = column.dictionary_page_offset().filter(|at| *at > 0 && *at < data).unwrap_or(data);
    let start = usize::try_from(start).ok()?;
    object.get(start..start.checked_add(usize::try_from(column.compressed_size()).ok()?)?)
}

/// Refuses a row group with pages that claim to be far larger than they can be. What is otherwise wrong with it is for
/// the reader to say.
pub(super) fn check(object: &[u8], group: &RowGroupMetaData, leaves: &[usize]) -> Result<(), FlowError> {
    for column in leaves.iter().filter_map(|leaf| group.columns().get(*leaf)) {
        let mut rest = chunk(object, column).unwrap_or_default();
        while let Some((header, body)) = header(rest) {
            if is_bomb(&header) {
                return Err(FlowError::Bomb { bytes: header.stored, claim: format!("a page of {} bytes", header.content) });
            }
            rest = body.get(header.stored..).unwrap_or_default();
        }
    }
    Ok(())
}

/// The header that `bytes` begin with, and what follows it.
pub(super) fn header(bytes: &[u8]) -> Option<(Header, &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let mut thrift = Thrift { bytes, at: 0 };
    let mut header = Header::default();
    let size = |n: i64| usize::try_from(n).ok();
    thrift.fields(0, &mut |id, kind, t| {
        match (id, kind) {
            (1, I32) => {
                header.kind = match t.zigzag()? {
                    0 => Kind::Data,
                    2 => Kind::Dictionary,
                    3 => Kind::DataV2,
                    _ => Kind::Other,
                }
            }
            (2, I32) => header.content = size(t.zigzag()?)?,
            (3, I32) => header.stored = size(t.zigzag()?)?,
            (5 | 7, STRUCT) => t.fields(1, &mut |inner, kind, t| {
                match (inner, kind) {
                    (1, I32) => header.values = size(t.zigzag()?)?,
                    (2, I32) => header.encoding = t.zigzag()?,
                    (3, I32) if id == 5 => header.level_encoding = t.zigzag()?,
                    _ => return t.skip(kind, 2),
                }
                Some(())
            })?,
            (8, STRUCT) => t.fields(1, &mut |inner, kind, t| {
                match (inner, kind) {
                    (1, I32) => header.values = size(t.zigzag()?)?,
                    (4, I32) => header.encoding = t.zigzag()?,
                    (5, I32) => header.level_bytes[1] = size(t.zigzag()?)?,
                    (6, I32) => header.level_bytes[0] = size(t.zigzag()?)?,
                    (7, TRUE | FALSE) => header.bare = kind == FALSE,
                    _ => return t.skip(kind, 2),
                }
                Some(())
            })?,
            _ => return t.skip(kind, 1),
        }
        Some(())
    })?;
    Some((header, bytes.get(thrift.at..)?))
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const STRUCT: u8 = 12;
/// Deeper than any header is.
const DEPTH_MAX: u8 = 8;

/// Thrift's compact protocol, from the front.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let (value, length) = leb128::take(self.bytes.get(self.at..)?)?;
        self.at += length;
        Some(value)
    }

    fn zigzag(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// Reads a struct: `take` is called with each field's number and type, and has to read or skip it.
    fn fields(&mut self, depth: u8, take: &mut dyn FnMut(i64, u8, &mut Self) -> Option<()>) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = if head >> 4 == 0 { self.zigzag()? } else { id + i64::from(head >> 4) };
            take(id, head & 0x0f, self)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            TRUE | FALSE => {}
            3 => self.at += 1,
            4..=6 => drop(self.varint()?),
            7 => self.at += 8,
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.at = self.at.checked_add(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..count {
                    // Inside a list a truth value takes a byte.
                    self.skip(if matches!(head & 0x0f, TRUE | FALSE) { 3 } else { head & 0x0f }, depth + 1)?;
                    if self.at > self.bytes.len() {
                        return None;
                    }
                }
            }
            STRUCT => self.fields(depth + 1, &mut |_, kind, t| t.skip(kind, depth + 1))?,
            _ => return None,
        }
        (self.at <= self.bytes.len() && depth <= DEPTH_MAX).then_some(())
    }
}

/// Decompresses pages. Only what flow logs are seen with; other codecs are left to the plain way.
#[derive(Default)]
pub(super) struct Unpacker {
    gzip: Inflater,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    snappy: snap::raw::Decoder,
}

impl Unpacker {
    pub(super) fn knows(codec: Compression) -> bool {
        matches!(codec, Compression::UNCOMPRESSED | Compression::GZIP(_) | Compression::ZSTD(_) | Compression::SNAPPY)
    }

    /// Appends the content of a page's stored bytes to `out`; exactly `length` bytes, or none is right.
    pub(super) fn unpack(&mut self, codec: Compression, stored: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
        let before = out.len();
        match codec {
            _ if length == 0 => {}
            Compression::UNCOMPRESSED => out.extend_from_slice(stored),
            Compression::GZIP(_) => self.gzip.exactly(stored, length, out)?,
            Compression::ZSTD(_) => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().ok()?),
                };
                out.resize(before + length, 0);
                let written = zstd.decompress_to_buffer(stored, &mut out[before..]).ok()?;
                out.truncate(before + written);
            }
            Compression::SNAPPY => {
                out.resize(before + length, 0);
                let written = self.snappy.decompress(stored, &mut out[before..]).ok()?;
                out.truncate(before + written);
            }
            _ => return None,
        }
        (out.len() == before + length).then_some(())
    }

    /// The content of a page, levels first, in `out`, with [`super::hybrid::SLACK`] zero bytes behind it that readers may
    /// look at. `None` for what is damaged, too large to be true, or not for this way.
    pub(super) fn content(&mut self, codec: Compression, header: &Header, stored: &[u8], out: &mut Vec<u8>) -> Option<()> {
        out.clear();
        if is_bomb(header) {
            return None;
        }
        if header.kind == Kind::DataV2 {
            let levels = header.level_bytes[0].checked_add(header.level_bytes[1])?;
            let length = header.content.checked_sub(levels)?;
            out.extend_from_slice(stored.get(..levels)?);
            self.unpack(if header.bare { Compression::UNCOMPRESSED } else { codec }, &stored[levels..], length, out)?;
        } else {
            self.unpack(codec, stored, header.content, out)?;
        }
        out.extend_from_slice(&[0; super::hybrid::SLACK]);
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_past_what_is_not_needed() {
        // type 0, content 300, stored 200, crc, data header {values 7, encoding 8, levels 3, 3, statistics {"a", "b", 1}}
        let bytes = [
            0x15, 0, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x15, 9, 0x1c, 0x15, 14, 0x15, 16, 0x15, 6, 0x15, 6, 0x1c, 0x18, 1, b'a', 0x18, 1,
            b'b', 0x16, 2, 0, 0, 0, 42,
        ];
        let (header, rest) = header(&bytes).unwrap();
        let wanted = Header { kind: Kind::Data, content: 300, stored: 200, values: 7, encoding: 8, level_encoding: 3, ..Header::default() };
        assert_eq!((header, rest), (wanted, &[42u8][..]));
        for cut in 0..bytes.len() - 1 {
            assert_eq!(super::header(&bytes[..cut]), None, "cut to {cut}");
        }
    }

    #[test]
    fn a_page_that_claims_too_much_is_refused() {
        let honest = Header { content: CONTENT_FREE, stored: 10, ..Header::default() };
        assert!(!is_bomb(&honest) && is_bomb(&Header { content: CONTENT_FREE + 200, ..honest }));
        let large = Header { content: 2 << 30, stored: 11 << 20, ..honest };
        assert!(!is_bomb(&large) && is_bomb(&Header { stored: 10 << 20, ..large }));
    }

    proptest! {
        #[test]
        fn hostile_headers_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some((_, rest)) = header(&bytes) {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
