//! Segments: state in frames, each with length, version and hash, so that a torn or foreign file is an error with a
//! place and never a wrong answer or a huge allocation.
//!
//! ```text
//! "FTSG"  frame*  end frame
//! frame = kind u8 | flags u8 | version u16 | stored length u32 | length u32 | XXH3-64 u64 | stored bytes     (little endian)
//! ```
//! The hash covers the header before it and the stored bytes. A frame holds at most 1 MiB; what is longer goes on in
//! the next frame (`MORE`). The end frame counts the frames, so a file cut at a frame's edge is seen too.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use twox_hash::XxHash3_64;

/// Version of the frame layout and of what is in frames and runs. 3: known keys in columns, evidence by object.
pub const VERSION: u16 = 3;
/// Bytes in one frame at most, before and after compression.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 4] = b"FTSG";
const HEADER: usize = 20;
const END: u8 = 0xff;
const ZSTD: u8 = 1;
const MORE: u8 = 2;
/// zstd's bound for a megabyte, rounded up: what compression cannot shrink is stored raw, so nothing honest is longer.
const STORED_MAX: usize = FRAME_BYTES_MAX;

/// Why a segment cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Damaged, cut, or not a segment.
    #[error("{file}, frame {frame}: {why}")]
    Frame {
        /// Key of the file.
        file: String,
        /// Frame, from 0.
        frame: u32,
        /// What is wrong with it.
        why: String,
    },
    /// A value that does not fit into frames, or cannot be serialised.
    #[error("cannot encode a value of kind {kind}: {why}")]
    Encode {
        /// Kind of the frame.
        kind: u8,
        /// What is wrong with it.
        why: String,
    },
}

/// Builds a segment in memory. Equal calls make equal bytes.
pub struct SegmentWriter {
    bytes: Vec<u8>,
    frames: u32,
    /// A frame's bytes before they are compressed, and after.
    plain: Vec<u8>,
    packed: Vec<u8>,
    /// Made when first needed.
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl Default for SegmentWriter {
    fn default() -> Self {
        Self { bytes: MAGIC.to_vec(), frames: 0, plain: Vec::new(), packed: Vec::new(), compressor: None }
    }
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter").field("bytes", &self.bytes.len()).field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl SegmentWriter {
    /// An empty segment.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Writes a value in postcard, compressed. `kind` is the caller's, below 255.
    ///
    /// Frame by frame as it is serialised: state can be large, and is not held a second time.
    ///
    /// # Errors
    /// When the value cannot be serialised.
    pub fn value<T: Serialize + ?Sized>(&mut self, kind: u8, value: &T) -> Result<(), SegmentError> {
        debug_assert!(kind != END, "kind 255 is the end frame");
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        plain.reserve_exact(FRAME_BYTES_MAX);
        let before = (self.bytes.len(), self.frames);
        let done = postcard::serialize_with_flavor(value, Frames { writer: self, kind, plain });
        done.map_err(|e| {
            self.bytes.truncate(before.0);
            self.frames = before.1;
            SegmentError::Encode { kind, why: e.to_string() }
        })
    }

    /// Writes bytes, compressed where that helps.
    pub fn bytes(&mut self, kind: u8, payload: &[u8]) {
        self.frames_of(kind, payload, true);
    }

    /// Writes bytes as they are: for runs that are compact already.
    pub fn raw(&mut self, kind: u8, payload: &[u8]) {
        self.frames_of(kind, payload, false);
    }

    fn frames_of(&mut self, kind: u8, payload: &[u8], compress: bool) {
        debug_assert!(kind != END, "kind 255 is the end frame");
        if payload.is_empty() {
            self.frame(kind, 0, &[], 0);
        }
        let mut pieces = payload.chunks(FRAME_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let more = if pieces.peek().is_some() { MORE } else { 0 };
            if compress {
                self.packed_frame(kind, more, piece);
            } else {
                self.frame(kind, more, piece, piece.len());
            }
        }
    }

    /// One frame, compressed where that helps.
    fn packed_frame(&mut self, kind: u8, more: u8, piece: &[u8]) {
        if piece.len() > 64 {
            if self.compressor.is_none() {
                // Level 1: state is written often and read seldom.
                self.compressor = zstd::bulk::Compressor::new(1).ok();
            }
            let mut packed = std::mem::take(&mut self.packed);
            packed.resize(piece.len(), 0);
            // No room for the result means that it did not shrink.
            let length = self.compressor.as_mut().and_then(|c| c.compress_to_buffer(piece, packed.as_mut_slice()).ok());
            if let Some(bytes) = length.and_then(|n| packed.get(..n)) {
                self.frame(kind, ZSTD | more, bytes, piece.len());
            }
            self.packed = packed;
            if length.is_some() {
                return;
            }
        }
        self.frame(kind, more, piece, piece.len());
    }

    /// One frame as told: the hash is right, whatever the rest claims.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stored: &[u8], len: usize) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&VERSION.to_le_bytes());
        self.bytes.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
        let hash = hash(&self.bytes[at..], stored);
        self.bytes.extend_from_slice(&hash.to_le_bytes());
        self.bytes.extend_from_slice(stored);
        self.frames = self.frames.saturating_add(1);
    }

    /// The finished segment.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let count = self.frames.to_le_bytes();
        self.frame(END, 0, &count, count.len());
        self.bytes
    }
}

/// A value's bytes on their way into frames.
struct Frames<'w> {
    writer: &'w mut SegmentWriter,
    kind: u8,
    /// The frame at hand; it is written when it is full and more comes.
    plain: Vec<u8>,
}

impl Frames<'_> {
    fn next_frame(&mut self) {
        self.writer.packed_frame(self.kind, MORE, &self.plain);
        self.plain.clear();
    }
}

impl postcard::ser_flavors::Flavor for Frames<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.plain.len() == FRAME_BYTES_MAX {
            self.next_frame();
        }
        self.plain.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, mut bytes: &[u8]) -> postcard::Result<()> {
        while self.plain.len() + bytes.len() > FRAME_BYTES_MAX {
            let (now, later) = bytes.split_at(FRAME_BYTES_MAX - self.plain.len());
            self.plain.extend_from_slice(now);
            self.next_frame();
            bytes = later;
        }
        self.plain.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        if self.plain.is_empty() {
            self.writer.frame(self.kind, 0, &[], 0);
        } else {
            self.writer.packed_frame(self.kind, 0, &self.plain);
        }
        self.writer.plain = self.plain;
        Ok(())
    }
}

fn hash(header: &[u8], stored: &[u8]) -> u64 {
    // Two parts in one: the seed of the second is the hash of the first.
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(header), stored)
}

/// One record of a segment: what one call of the writer wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The caller's kind.
    pub kind: u8,
    /// The payload; borrowed from the file where it was stored raw in one frame.
    pub bytes: Cow<'a, [u8]>,
    /// Its first frame, for messages.
    pub frame: u32,
}

/// Reads a segment record by record. Allocates no more than one frame ahead of what the file really holds.
#[derive(Debug)]
pub struct SegmentReader<'a> {
    file: &'a str,
    rest: &'a [u8],
    frame: u32,
    done: bool,
}

struct Frame<'a> {
    kind: u8,
    more: bool,
    bytes: Cow<'a, [u8]>,
}

impl<'a> SegmentReader<'a> {
    /// Over the bytes of a file; `file` is its key, for messages.
    ///
    /// # Errors
    /// When it does not begin as a segment does.
    pub fn new(file: &'a str, bytes: &'a [u8]) -> Result<Self, SegmentError> {
        match bytes.strip_prefix(MAGIC) {
            Some(rest) => Ok(Self { file, rest, frame: 0, done: false }),
            None => Err(SegmentError::Frame {
                file: file.to_owned(),
                frame: 0,
                why: format!("not a segment: {} bytes that do not begin with FTSG", bytes.len()),
            }),
        }
    }

    fn error(&self, why: impl Into<String>) -> SegmentError {
        SegmentError::Frame { file: self.file.to_owned(), frame: self.frame, why: why.into() }
    }

    /// Decodes a record's value.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    pub fn value<T: DeserializeOwned>(&self, record: &Record<'_>) -> Result<T, SegmentError> {
        postcard::from_bytes(&record.bytes).map_err(|e| SegmentError::Frame {
            file: self.file.to_owned(),
            frame: record.frame,
            why: format!("{} bytes of kind {} are not what they should be: {e}", record.bytes.len(), record.kind),
        })
    }

    fn frame(&mut self) -> Result<Frame<'a>, SegmentError> {
        let Some((header, rest)) = self.rest.split_at_checked(HEADER) else {
            return Err(self.error(format!("cut off: {} bytes left, a header has {HEADER}", self.rest.len())));
        };
        let (Some(&[kind, flags]), Some(version), Some(stored_len), Some(len), Some(wanted)) =
            (header.first_chunk::<2>(), le::<2>(header, 2), le::<4>(header, 4), le::<4>(header, 8), le::<8>(header, 12))
        else {
            return Err(self.error("cut off in its header"));
        };
        let (version, stored_len, len) =
            (u16::from_le_bytes(version), u32::from_le_bytes(stored_len) as usize, u32::from_le_bytes(len) as usize);
        if version != VERSION {
            return Err(self.error(format!(
                "version {version}, this flowtrail reads {VERSION}: delete the state with the tables beside it, and replay the logs"
            )));
        }
        if stored_len > STORED_MAX || len > FRAME_BYTES_MAX {
            return Err(self.error(format!("claims {stored_len} stored and {len} real bytes, a frame has at most {FRAME_BYTES_MAX}")));
        }
        let Some((stored, rest)) = rest.split_at_checked(stored_len) else {
            return Err(self.error(format!("cut off: {} of {stored_len} bytes are there", rest.len())));
        };
        let found = hash(&header[..12], stored);
        if found.to_le_bytes() != wanted {
            return Err(self.error(format!("damaged: hash {found:016x}, written was {:016x}", u64::from_le_bytes(wanted))));
        }
        let bytes = if flags & ZSTD == 0 {
            Cow::Borrowed(stored)
        } else {
            Cow::Owned(zstd::bulk::decompress(stored, len).map_err(|e| self.error(format!("cannot be decompressed: {e}")))?)
        };
        if bytes.len() != len {
            return Err(self.error(format!("holds {} bytes, its header says {len}", bytes.len())));
        }
        self.rest = rest;
        Ok(Frame { kind, more: flags & MORE != 0, bytes })
    }

    fn record(&mut self) -> Result<Option<Record<'a>>, SegmentError> {
        let first = self.frame;
        let Frame { kind, mut more, mut bytes } = self.frame()?;
        if kind == END {
            if bytes[..] != self.frame.to_le_bytes() {
                return Err(self.error("end frame with another number of frames: some are missing"));
            }
            if !self.rest.is_empty() {
                return Err(self.error(format!("{} bytes after the end", self.rest.len())));
            }
            return Ok(None);
        }
        self.frame = self.frame.saturating_add(1);
        while more {
            let next = self.frame()?;
            if next.kind != kind {
                return Err(self.error(format!("kind {} where a record of kind {kind} goes on", next.kind)));
            }
            bytes.to_mut().extend_from_slice(&next.bytes);
            more = next.more;
            self.frame = self.frame.saturating_add(1);
        }
        Ok(Some(Record { kind, bytes, frame: first }))
    }
}

impl<'a> Iterator for SegmentReader<'a> {
    type Item = Result<Record<'a>, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let record = self.record().transpose();
        // After an error nothing that follows can be trusted.
        self.done = !matches!(record, Some(Ok(_)));
        record
    }
}

fn le<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, SegmentError> {
        SegmentReader::new("0/1.seg", bytes)?.map(|r| r.map(|r| (r.kind, r.bytes.into_owned()))).collect()
    }

    fn noise(n: usize) -> Vec<u8> {
        (0..n as u64).map(|i| XxHash3_64::oneshot(&i.to_le_bytes()) as u8).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let long = noise(2 * FRAME_BYTES_MAX + 17);
        let even = vec![7u8; 3 * FRAME_BYTES_MAX];
        let write = || {
            let mut w = SegmentWriter::new();
            w.value(1, &("lane", 7u64)).unwrap();
            w.bytes(2, &even);
            w.bytes(3, &long);
            w.raw(4, &long);
            w.raw(5, &[]);
            w.finish()
        };
        let bytes = write();
        assert_eq!(bytes, write(), "equal calls must make equal bytes");
        assert!(bytes.len() < 2 * long.len() + 10_000, "even data did not shrink: {}", bytes.len());
        let got = records(&bytes).unwrap();
        assert_eq!(got.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert!(got[1].1 == even && got[2].1 == long && got[3].1 == long && got[4].1.is_empty());
        let reader = SegmentReader::new("f", &bytes).unwrap();
        let first = Record { kind: 1, bytes: Cow::Borrowed(&got[0].1), frame: 0 };
        assert_eq!(reader.value::<(String, u64)>(&first).unwrap(), ("lane".to_owned(), 7));
        let wrong = reader.value::<Vec<String>>(&first).unwrap_err().to_string();
        assert!(wrong.starts_with("f, frame 0"), "{wrong}");
    }

    #[test]
    fn a_value_in_pieces_is_the_value_in_one() {
        // Around the bounds of frames, in one long text and number by number.
        for length in [
            0,
            1,
            FRAME_BYTES_MAX - 4,
            FRAME_BYTES_MAX - 3,
            FRAME_BYTES_MAX - 2,
            FRAME_BYTES_MAX,
            2 * FRAME_BYTES_MAX - 3,
            2 * FRAME_BYTES_MAX + 9,
        ] {
            let value = ("x".repeat(length), noise(length), [length as u64; 3]);
            let (mut pieces, mut one) = (SegmentWriter::new(), SegmentWriter::new());
            pieces.value(1, &value.0).unwrap();
            pieces.value(2, &value).unwrap();
            pieces.value(3, &()).unwrap();
            one.bytes(1, &postcard::to_stdvec(&value.0).unwrap());
            one.bytes(2, &postcard::to_stdvec(&value).unwrap());
            one.bytes(3, &[]);
            assert!(pieces.finish() == one.finish(), "{length} bytes");
        }
    }

    #[test]
    fn a_value_that_cannot_be_written_leaves_nothing() {
        // A sequence of unknown length has no place in postcard; it comes after more than a frame.
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_seq(None).map(|_| unreachable!("postcard wants a length"))
            }
        }
        let (mut written, mut clean) = (SegmentWriter::new(), SegmentWriter::new());
        assert!(matches!(written.value(1, &(noise(FRAME_BYTES_MAX + 1), Endless)), Err(SegmentError::Encode { kind: 1, .. })));
        for writer in [&mut written, &mut clean] {
            writer.value(2, &7u64).unwrap();
        }
        assert_eq!(written.finish(), clean.finish());
    }

    #[test]
    fn every_damage_is_seen_and_placed() {
        let mut w = SegmentWriter::new();
        w.bytes(1, &noise(300));
        w.bytes(1, &[5; 300]);
        w.raw(2, b"tail");
        let good = w.finish();
        assert_eq!(records(&good).unwrap().len(), 3);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let error = records(&bad).expect_err("a flipped bit went unseen").to_string();
            assert!(error.starts_with("0/1.seg, frame "), "{error}");
            assert!(records(&good[..at]).is_err(), "cut to {at} bytes and not seen");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(records(&longer).is_err());
        let mut foreign = good;
        foreign[6] = 9;
        assert!(records(&foreign).unwrap_err().to_string().contains(&format!("version 9, this flowtrail reads {VERSION}")));
    }

    proptest! {
        #[test]
        fn hostile_bytes_neither_panic_nor_pass(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in any::<bool>(), sane in any::<bool>()) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(MAGIC);
            }
            if sane && bytes.len() >= 24 {
                // a header that passes all but the hash, with an enormous length now and then
                bytes[6..8].copy_from_slice(&VERSION.to_le_bytes());
            }
            prop_assert!(records(&bytes).is_err());
        }

        #[test]
        fn honest_headers_around_hostile_payload(payload in proptest::collection::vec(any::<u8>(), 0..200), flags in 0u8..4, len in any::<u32>(), kind in any::<u8>()) {
            // the hash is right, so only the inner checks stand between this and the allocator
            let mut w = SegmentWriter::new();
            w.frame(kind, flags, &payload, len as usize);
            let _ = records(&w.finish());
        }

        #[test]
        fn any_records_round_trip(wanted in proptest::collection::vec((0u8..255, proptest::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 0..8)) {
            let mut w = SegmentWriter::new();
            for (kind, bytes, raw) in &wanted {
                if *raw { w.raw(*kind, bytes) } else { w.bytes(*kind, bytes) }
            }
            let got = records(&w.finish()).unwrap();
            prop_assert_eq!(got, wanted.into_iter().map(|(k, b, _)| (k, b)).collect::<Vec<_>>());
        }
    }
}
