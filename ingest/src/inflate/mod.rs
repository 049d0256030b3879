//! From the bytes of an object to its content: gzip, whole or in pieces, within bounds.
//!
//! Whole objects go through libdeflate, twice as fast as anything that streams. It gives nothing at all of a broken
//! member, so what comes before a break is salvaged with zlib-rs, and objects too large to be held whole are streamed.

mod deflate;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::io::Read;

/// How much an object may become.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Content up to this size is held in memory whole, in bytes; above it, only [`Inflater::stream`] gives it.
    pub whole: usize,
    /// Content above this size is refused, in bytes.
    pub total: u64,
}

impl Default for Limits {
    /// 192 MiB whole (AWS closes a flow-log file at 75 MB), 8 GiB in all.
    fn default() -> Self {
        Self { whole: 192 << 20, total: 8 << 30 }
    }
}

/// Deflate cannot do better than 1032:1, logs do 7 to 30:1, and a file of one line over and over about 190:1. Past the
/// first [`RATIO_FROM`] bytes, content that is more than this many times its source is a bomb.
const RATIO: u64 = 200;

/// Small objects may have any ratio: they cost nothing.
const RATIO_FROM: u64 = 64 << 20;

/// Content is streamed in pieces of about this size.
const PIECE: usize = 8 << 20;

/// What became of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inflated {
    /// Gzip members read to their end.
    pub members: u32,
    /// Why the content ends before the object does: broken or truncated gzip. What came before is there.
    pub broken: Option<String>,
    /// Bytes after the last member that are not gzip (padding, as some tools write): left out.
    pub trailing: usize,
}

/// Why an object gives no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Larger than [`Limits::whole`]: stream it.
    #[error("content is larger than {0} bytes, too large to be read whole")]
    OverWhole(usize),
    /// Larger than [`Limits::total`].
    #[error("content is larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// A decompression bomb.
    #[error("{source_bytes} bytes inflate to more than {content_bytes}, over {RATIO}:1")]
    Bomb {
        /// Source read so far.
        source_bytes: u64,
        /// Content so far.
        content_bytes: u64,
    },
}

/// True if the bytes begin like gzip.
#[must_use]
pub fn is_gzip(raw: &[u8]) -> bool {
    raw.starts_with(&[0x1f, 0x8b])
}

/// Inflates object after object with memory that is used again. One to a thread.
#[derive(Default)]
pub struct Inflater {
    deflate: deflate::Decompressor,
    piece: Vec<u8>,
}

impl Inflater {
    /// The content of a gzip object, whole, in `out` (emptied first).
    ///
    /// All members are read. Bytes without gzip's magic give no member and empty content: the object is its own content.
    ///
    /// # Errors
    /// When the content is larger than `limits` allow.
    pub fn inflate(&mut self, raw: &[u8], out: &mut Vec<u8>, limits: Limits) -> Result<Inflated, InflateError> {
        out.clear();
        let mut done = Inflated::default();
        let mut rest = raw;
        while is_gzip(rest) {
            match self.member(rest, out, limits)? {
                Member::Whole { source } => {
                    done.members += 1;
                    rest = rest.get(source..).unwrap_or_default();
                }
                Member::Broken => {
                    let before = out.len();
                    let mut over = None;
                    let mut keep = |piece: &[u8]| {
                        if out.len() + piece.len() > limits.whole {
                            over = Some(InflateError::OverWhole(limits.whole));
                        } else {
                            out.extend_from_slice(piece);
                        }
                        over.is_none()
                    };
                    let salvaged = stream(raw, raw.len() - rest.len(), limits, before as u64, &mut self.piece, &mut keep)?;
                    if let Some(error) = over {
                        return Err(error);
                    }
                    done.members += salvaged.members;
                    done.broken = salvaged.broken;
                    done.trailing = salvaged.trailing;
                    return Ok(done);
                }
            }
        }
        if done.members > 0 {
            done.trailing = rest.len();
        }
        Ok(done)
    }

    /// Appends the content of one gzip member to `out` if it has exactly `length` bytes; else nothing useful, and `None`.
    pub fn exactly(&mut self, raw: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
        let wanted = out.len().checked_add(length)?;
        match self.deflate.gzip(raw, out, length) {
            deflate::Outcome::Done { .. } if out.len() == wanted => Some(()),
            _ => None,
        }
    }

    /// The content of a gzip object in pieces that end at line ends (but for the last, and lines longer than a piece),
    /// for content over [`Limits::whole`].
    ///
    /// # Errors
    /// When the content is larger than `limits` allow; pieces may have been handed on before.
    pub fn stream(&mut self, raw: &[u8], limits: Limits, on_piece: &mut dyn FnMut(&[u8])) -> Result<Inflated, InflateError> {
        let mut lines: Vec<u8> = Vec::with_capacity(PIECE * 2);
        // Bytes of `lines` up to and with its last line end.
        let mut whole_lines = 0;
        let mut take = |piece: &[u8]| {
            if let Some(at) = memchr::memrchr(b'\n', piece) {
                whole_lines = lines.len() + at + 1;
            }
            lines.extend_from_slice(piece);
            if lines.len() >= PIECE && whole_lines > 0 {
                on_piece(&lines[..whole_lines]);
                lines.drain(..whole_lines);
                whole_lines = 0;
            } else if lines.len() >= limits.whole {
                // No line is that long; its reader will say so.
                on_piece(&lines);
                lines.clear();
            }
            true
        };
        let done = stream(raw, 0, limits, 0, &mut self.piece, &mut take)?;
        if !lines.is_empty() {
            on_piece(&lines);
        }
        Ok(done)
    }

    /// The first `most` bytes of the content (fewer where it ends or breaks before), to tell what kind it is when it is too
    /// large to be read whole.
    #[must_use]
    pub fn head(&mut self, raw: &[u8], most: usize) -> Vec<u8> {
        let mut head = Vec::new();
        let mut take = |piece: &[u8]| {
            head.extend_from_slice(&piece[..piece.len().min(most - head.len())]);
            head.len() < most
        };
        // An error says that the content is too large for more than this, which is known.
        let _ = stream(raw, 0, Limits::default(), 0, &mut self.piece, &mut take);
        head
    }

    /// Appends one member to `out`.
    fn member(&mut self, raw: &[u8], out: &mut Vec<u8>, limits: Limits) -> Result<Member, InflateError> {
        let room_left = limits.whole.saturating_sub(out.len());
        // The last four bytes say how long the (last) member's content is. That is a hint and may lie, so it asks for
        // no more than an honest log of this size can become; and memory that is not written to costs nothing.
        let hint = raw.last_chunk().map_or(0, |b| u32::from_le_bytes(*b) as usize);
        let likely = raw.len().saturating_mul(8).max(1 << 16);
        let mut room = if hint >= raw.len() && hint <= raw.len().saturating_mul(64) { hint } else { likely }.min(room_left);
        loop {
            give_back(out, room);
            out.reserve(room);
            match self.deflate.gzip(raw, out, room) {
                deflate::Outcome::Done { source } => return Ok(Member::Whole { source }),
                deflate::Outcome::BadData => return Ok(Member::Broken),
                deflate::Outcome::NoRoom => {
                    // Growing begins the member anew; past a bound it is cheaper, and safer, to stream.
                    if room >= room_left || room as u64 >= RATIO_FROM {
                        return Err(InflateError::OverWhole(limits.whole));
                    }
                    room = room.saturating_mul(2).min(room_left);
                }
            }
        }
    }
}

enum Member {
    Whole { source: usize },
    Broken,
}

/// A buffer that one large object blew up goes back to the system before a small one.
fn give_back(out: &mut Vec<u8>, room: usize) {
    if out.is_empty() && out.capacity() > (32 << 20) && out.capacity() / 4 > room {
        *out = Vec::new();
    }
}

/// Reads all members from byte `from` of the object on as a stream and gives what it can, until `take` says stop. `before`
/// is how much content the members before had.
fn stream(
    raw: &[u8],
    from: usize,
    limits: Limits,
    before: u64,
    piece: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Inflated, InflateError> {
    piece.resize(1 << 16, 0);
    let mut done = Inflated::default();
    let mut content = before;
    let mut rest = raw.get(from..).unwrap_or_default();
    while is_gzip(rest) {
        // One member at a time, so that bytes after the last one are told from a broken member.
        let mut member = flate2::bufread::GzDecoder::new(rest);
        loop {
            match member.read(piece) {
                Ok(0) => break,
                Ok(n) => {
                    content += n as u64;
                    let source = (raw.len() - member.get_ref().len()) as u64;
                    if content > RATIO_FROM && content / RATIO > source {
                        return Err(InflateError::Bomb { source_bytes: source, content_bytes: content });
                    }
                    if content > limits.total {
                        return Err(InflateError::TooLarge(limits.total));
                    }
                    if !take(&piece[..n]) {
                        return Ok(done);
                    }
                }
                Err(error) => {
                    let at = raw.len() - member.get_ref().len();
                    done.broken = Some(format!("gzip breaks at byte {at} of {}: {error}", raw.len()));
                    return Ok(done);
                }
            }
        }
        done.members += 1;
        rest = member.into_inner();
    }
    // Without any member there is nothing that could trail: the object is no gzip.
    if done.members > 0 {
        done.trailing = rest.len();
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
