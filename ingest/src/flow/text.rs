//! Flow-log text into batches: header, lines, batches, rejects.
//!
//! Runs of ordinary lines go through the fast path, the others one by one through the plain one. Both give the same rows.

use super::batch::{BATCH_ROWS, FlowBatch, Names};
use super::fast::{Fast, Isa, MARGIN, ROWS, Run, WINDOW};
use super::layout::Layout;
use super::names::{Interner, NameIndex};
use super::plain::{self, Ask, FlowLineError};
use super::{FlowRows, Out};
use crate::unit::Reject;

/// Texts are taken in pieces of at most this many bytes, cut at line ends: offsets inside a piece fit 32 bits.
const PIECE: usize = 1 << 30;

/// No record is longer, tags and all; a longer line is set aside unread.
const LINE_MAX: usize = 1 << 20;

/// Reads the text of one unit, whole or in pieces that end at line ends.
///
/// Pure: the same bytes in the same pieces give the same batches. A header line, at the start or again later (joined
/// files), sets the layout for the lines after it and is no record.
pub struct TextReader {
    layout: Layout,
    /// Counts the layouts, so that whoever is in the middle of something sees a change.
    layouts: u64,
    ask: Ask,
    next_line: u64,
    index: NameIndex,
    fields: Vec<(u32, u32)>,
    /// Absent where only the plain path is wanted, and while a window is being read.
    fast: Option<Box<Fast>>,
}

impl TextReader {
    /// Starts before the first line, which has the number `first_line`. `layout` holds until a header line comes.
    #[must_use]
    pub fn new(layout: Layout, first_line: u64, ask: Ask) -> Self {
        Self::with(layout, first_line, ask, Some(Isa::best()))
    }

    /// With the fast path of this instruction set, or without any.
    pub(super) fn with(layout: Layout, first_line: u64, ask: Ask, isa: Option<Isa>) -> Self {
        let fast = isa.map(|isa| Box::new(Fast::new(isa)));
        Self { layout, layouts: 1, ask, next_line: first_line, index: NameIndex::default(), fields: Vec::new(), fast }
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
        let mut out = Out { names, batch, on_batch, on_reject };
        let mut rest = text;
        while !rest.is_empty() {
            let mut end = rest.len();
            if end > PIECE {
                let cut = memchr::memrchr(b'\n', &rest[..PIECE]).or_else(|| memchr::memchr(b'\n', rest));
                end = cut.map_or(end, |at| at + 1);
            }
            let (piece, after) = rest.split_at(end);
            self.piece(piece, &mut out);
            rest = after;
        }
    }

    fn piece(&mut self, text: &[u8], out: &mut Out<'_>) {
        let mut at = 0;
        while at < text.len() {
            at = self.window(text, at, out).unwrap_or_else(|| {
                let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |n| at + n);
                self.line(text, at, end, out);
                end + 1
            });
        }
        self.hand_on(text, out);
    }

    /// Reads the lines of a window of text that begins at `at`. Returns where to go on, or `None` if there is no fast way
    /// to read even one line.
    fn window(&mut self, text: &[u8], at: usize, out: &mut Out<'_>) -> Option<usize> {
        let to = (at + WINDOW).min(text.len().saturating_sub(MARGIN));
        if at < MARGIN || to <= at {
            return None;
        }
        let mut fast = self.fast.take()?;
        fast.plan_for(&self.layout, self.layouts);
        let next = self.lines(&mut fast, text, at, to, out);
        self.fast = Some(fast);
        next
    }

    fn lines(&mut self, fast: &mut Fast, text: &[u8], at: usize, to: usize, out: &mut Out<'_>) -> Option<usize> {
        let columns = fast.plan.as_ref()?.columns;
        let scanned = fast.window.scan(fast.isa, text, at, to);
        if scanned.lines == 0 {
            return None;
        }
        // Both are indices of line ends in the list of separators: the one before the run, and before the line.
        let (mut run, mut before) = (0, 0);
        for line in 0..scanned.lines {
            let end = fast.window.ends[line] as usize;
            if end - before == columns && !scanned.odd {
                before = end;
                if before - run < columns * ROWS && line + 1 < scanned.lines {
                    continue;
                }
            }
            if before > run
                && let stopped @ Some(_) = self.run(fast, text, run, (before - run) / columns, out)
            {
                return stopped;
            }
            if before < end {
                let (from, to) = (fast.window.separators[before].wrapping_add(1) as usize, fast.window.separators[end] as usize);
                let layouts = self.layouts;
                self.line(text, from, to, out);
                if self.layouts != layouts {
                    return Some(to + 1);
                }
            }
            (run, before) = (end, end);
        }
        Some(fast.window.separators[before] as usize + 1)
    }

    /// Reads lines of the expected length: `rows` of them after the separator with index `first`. Returns where to go on
    /// if one of them turned out to be a header line that changes the layout.
    fn run(&mut self, fast: &mut Fast, text: &[u8], mut first: usize, mut rows: usize, out: &mut Out<'_>) -> Option<usize> {
        let plan = fast.plan.as_ref()?;
        while rows > 0 {
            let taken = rows.min(ROWS).min(BATCH_ROWS.saturating_sub(out.batch.rows()).max(1));
            let separators = fast.window.separators.get(first..=first + taken * plan.columns)?;
            let run = Run { text, separators, columns: plan.columns, rows: taken };
            fast.chunk.convert(fast.isa, plan, run, self.ask.limit());
            let mut row = 0;
            while row < taken {
                let good = ((fast.chunk.bad >> row).trailing_zeros() as usize).min(taken - row);
                let mut interner = Interner { names: out.names, index: &mut self.index };
                let good = fast.chunk.append(plan, run, row..row + good, self.next_line, &mut interner, out.batch);
                if self.ask.cells {
                    run.cells(row..row + good, &mut out.batch.cells);
                }
                self.next_line += good as u64;
                row += good;
                if row < taken {
                    let (from, _) = run.span(row, 0);
                    let (_, to) = run.span(row, plan.columns - 1);
                    let layouts = self.layouts;
                    self.line(text, from, to, out);
                    if self.layouts != layouts {
                        return Some(to + 1);
                    }
                    row += 1;
                }
            }
            if out.batch.rows() >= BATCH_ROWS {
                self.hand_on(text, out);
            }
            first += taken * plan.columns;
            rows -= taken;
        }
        None
    }

    /// One line by the plain path.
    fn line(&mut self, text: &[u8], from: usize, to: usize, out: &mut Out<'_>) {
        let number = self.next_line;
        self.next_line += 1;
        let line = &text[from..to];
        if line.len() > LINE_MAX {
            let error = FlowLineError::TooLong { bytes: line.len() };
            return (out.on_reject)(Reject::new(number, error.to_string(), line));
        }
        plain::split(line, &mut self.fields);
        if self.fields.is_empty() {
            return;
        }
        if !self.layout.refuses_words()
            && let Some(layout) = Layout::of_header(line)
        {
            return self.switch(layout, text, out);
        }
        let mut interner = Interner { names: out.names, index: &mut self.index };
        match plain::read(line, &self.fields, &self.layout, self.ask.limit(), &mut interner) {
            Ok(row) => {
                row.push(u32::try_from(number).unwrap_or(u32::MAX), out.batch);
                if self.ask.cells {
                    out.batch.cells.extend(self.fields.iter().map(|(a, b)| (from as u32 + a, from as u32 + b)));
                }
                if out.batch.rows() >= BATCH_ROWS {
                    self.hand_on(text, out);
                }
            }
            Err(error) => match Layout::of_header(line) {
                Some(layout) => self.switch(layout, text, out),
                None => (out.on_reject)(Reject::new(number, error.to_string(), line)),
            },
        }
    }

    fn switch(&mut self, layout: Layout, text: &[u8], out: &mut Out<'_>) {
        if layout != self.layout {
            self.hand_on(text, out);
            self.layout = layout;
            self.layouts += 1;
        }
    }

    fn hand_on(&self, text: &[u8], out: &mut Out<'_>) {
        if out.batch.rows() > 0 {
            (out.on_batch)(FlowRows { batch: out.batch, names: out.names, layout: &self.layout, text });
            out.batch.clear();
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
