//! Flow-log text into batches: header, lines, batches, rejects.
//!
//! A text is cut into lines; runs of ordinary lines go through the fast path, the others one by one through the plain
//! one. Both give the same rows.

use super::FlowRows;
use super::batch::{BATCH_ROWS, FlowBatch, Names};
use super::layout::Layout;
use super::names::{Interner, NameIndex};
use super::plain::{self, Ask};
use crate::unit::Reject;

/// Texts are taken in pieces of at most this many bytes, cut at line ends: offsets inside a piece fit 32 bits.
const PIECE: usize = 1 << 30;

/// Reads the text of one unit, whole or in pieces that end at line ends.
///
/// Pure: the same bytes in the same pieces give the same batches. A header line, at the start or again later (joined
/// files), sets the layout for the lines after it and is no record.
pub struct TextReader {
    layout: Layout,
    ask: Ask,
    next_line: u64,
    index: NameIndex,
    fields: Vec<(u32, u32)>,
}

impl TextReader {
    /// Starts before the first line, which has the number `first_line`. `layout` holds until a header line comes.
    #[must_use]
    pub fn new(layout: Layout, first_line: u64, ask: Ask) -> Self {
        Self { layout, ask, next_line: first_line, index: NameIndex::default(), fields: Vec::new() }
    }

    /// The layout in force: after reading, that of the last line.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Lines read so far, plus the number of the first.
    #[must_use]
    pub fn next_line(&self) -> u64 {
        self.next_line
    }

    /// Reads whole lines; the last may lack its line end. `batch` is handed on when it is full, when the layout changes
    /// and at the end of `text`, and left empty.
    pub fn read(
        &mut self,
        text: &[u8],
        names: &mut Names,
        batch: &mut FlowBatch,
        on_batch: &mut dyn FnMut(FlowRows<'_>),
        on_reject: &mut dyn FnMut(Reject),
    ) {
        let mut rest = text;
        while !rest.is_empty() {
            let mut end = rest.len().min(PIECE);
            if end < rest.len() {
                end = memchr::memrchr(b'\n', &rest[..end])
                    .map_or_else(|| memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1), |at| at + 1);
            }
            let (piece, after) = rest.split_at(end);
            self.piece(piece, names, batch, on_batch, on_reject);
            rest = after;
        }
    }

    fn piece(
        &mut self,
        text: &[u8],
        names: &mut Names,
        batch: &mut FlowBatch,
        on_batch: &mut dyn FnMut(FlowRows<'_>),
        on_reject: &mut dyn FnMut(Reject),
    ) {
        let mut at = 0;
        while at < text.len() {
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |n| at + n);
            self.line(text, at, end, names, batch, on_batch, on_reject);
            at = end + 1;
        }
        self.hand_on(text, names, batch, on_batch);
    }

    /// One line by the plain path.
    #[allow(clippy::too_many_arguments)]
    fn line(
        &mut self,
        text: &[u8],
        from: usize,
        to: usize,
        names: &mut Names,
        batch: &mut FlowBatch,
        on_batch: &mut dyn FnMut(FlowRows<'_>),
        on_reject: &mut dyn FnMut(Reject),
    ) {
        let number = self.next_line;
        self.next_line += 1;
        let line = &text[from..to];
        // A line of many megabytes is no record, and its offsets would not fit.
        plain::split(&line[..line.len().min(PIECE)], &mut self.fields);
        if self.fields.is_empty() {
            return;
        }
        let header = |layout: &Layout| if layout.refuses_words() { None } else { Layout::of_header(line) };
        if let Some(layout) = header(&self.layout) {
            return self.switch(layout, text, names, batch, on_batch);
        }
        let mut interner = Interner { names, index: &mut self.index };
        match plain::read(line, &self.fields, &self.layout, self.ask.limit(), &mut interner) {
            Ok(row) => {
                row.push(u32::try_from(number).unwrap_or(u32::MAX), batch);
                if self.ask.cells {
                    batch.cells.extend(self.fields.iter().map(|(a, b)| (from as u32 + a, from as u32 + b)));
                }
                if batch.rows() >= BATCH_ROWS {
                    self.hand_on(text, names, batch, on_batch);
                }
            }
            Err(error) => match Layout::of_header(line) {
                Some(layout) => self.switch(layout, text, names, batch, on_batch),
                None => on_reject(Reject::new(number, error.to_string(), line)),
            },
        }
    }

    fn switch(&mut self, layout: Layout, text: &[u8], names: &Names, batch: &mut FlowBatch, on_batch: &mut dyn FnMut(FlowRows<'_>)) {
        if layout != self.layout {
            self.hand_on(text, names, batch, on_batch);
            self.layout = layout;
        }
    }

    fn hand_on(&self, text: &[u8], names: &Names, batch: &mut FlowBatch, on_batch: &mut dyn FnMut(FlowRows<'_>)) {
        if batch.rows() > 0 {
            on_batch(FlowRows { batch, names, layout: &self.layout, text });
            batch.clear();
        }
    }
}

/// Reads the whole text of one unit; see [`TextReader`]. `layout` is for text without a header (a configured format, or
/// [`Layout::default_for`] its first line).
#[allow(clippy::too_many_arguments)]
pub fn parse_text(
    text: &[u8],
    first_line: u64,
    layout: &Layout,
    ask: Ask,
    names: &mut Names,
    batch: &mut FlowBatch,
    on_batch: &mut dyn FnMut(FlowRows<'_>),
    on_reject: &mut dyn FnMut(Reject),
) {
    TextReader::new(layout.clone(), first_line, ask).read(text, names, batch, on_batch, on_reject);
}
