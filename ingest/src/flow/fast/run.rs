//! A run of lines, as the columns' loops see it.

use std::ops::Range;

use super::ROWS;

/// Up to [`ROWS`] lines with one number of columns.
#[derive(Copy, Clone)]
pub(in crate::flow) struct Run<'a> {
    /// The text that positions refer to.
    pub text: &'a [u8],
    /// The separator before the first line, then those of all lines: `rows * columns + 1` positions.
    pub separators: &'a [u32],
    /// Columns in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl<'a> Run<'a> {
    /// Calls `on` with number, begin and end of the columns `first..=last` of every line.
    #[inline(always)]
    pub(super) fn each(self, first: usize, last: usize, mut on: impl FnMut(usize, usize, usize)) {
        let mut at = first;
        for row in 0..self.rows.min(ROWS) {
            let Some([before, .., after]) = self.separators.get(at..at + (last - first) + 2) else { return };
            on(row, before.wrapping_add(1) as usize, *after as usize);
            at += self.columns;
        }
    }

    /// The 64 bytes from `from` on; zeros where the text has not so many.
    #[inline(always)]
    pub(super) fn block(self, from: usize) -> &'a [u8; 64] {
        self.text.get(from..from + 64).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 64])
    }

    /// Where one column of one line begins and ends.
    pub(in crate::flow) fn span(self, row: usize, column: usize) -> (usize, usize) {
        let at = row * self.columns + column;
        let position = |at: usize| self.separators.get(at).copied().unwrap_or_default();
        (position(at).wrapping_add(1) as usize, position(at + 1) as usize)
    }

    /// One column of one line.
    pub(super) fn field(self, row: usize, column: usize) -> &'a [u8] {
        let (from, to) = self.span(row, column);
        self.text.get(from..to).unwrap_or_default()
    }

    /// Appends where every column of some lines begins and ends.
    pub(in crate::flow) fn cells(self, rows: Range<usize>, cells: &mut Vec<(u32, u32)>) {
        let inside = self.separators.get(rows.start * self.columns..=rows.end * self.columns).unwrap_or_default();
        cells.extend(inside.windows(2).map(|pair| (pair[0].wrapping_add(1), pair[1])));
    }
}

/// `N` bytes of the text; zeros, which are no value of any kind, where it has not so many.
#[inline(always)]
pub(super) fn bytes<const N: usize>(text: &[u8], at: usize) -> [u8; N] {
    text.get(at..at.wrapping_add(N)).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}
