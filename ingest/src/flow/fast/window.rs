//! A window of text and its separators.

use super::WINDOW;
use super::isa::{Isa, Job, Lanes};
use crate::prefetch::prefetch;

/// Positions are written many at a time, so the lists have room to spare.
const SLACK: usize = 80;

/// Bytes that the scan asks for ahead: an object's text is larger than the caches, and what the machine fetches by itself
/// stops at the end of every page.
const AHEAD: usize = 8 << 10;

/// What a scan found.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::flow) struct Scanned {
    /// Line ends in the window.
    pub lines: usize,
    /// Two separators in a row, or a control character, somewhere.
    pub odd: bool,
}

/// The separators of a window; its memory is used again.
pub(in crate::flow) struct Window {
    /// Positions in the text of every space and line end; the first entry is the byte before the window.
    pub separators: Vec<u32>,
    /// For each line end its index in `separators`.
    pub ends: Vec<u32>,
}

impl Window {
    pub(in crate::flow) fn new() -> Self {
        Self { separators: vec![0; 1 + WINDOW + SLACK], ends: vec![0; WINDOW + SLACK] }
    }

    /// Finds the separators of `text[from..to]`, at most [`WINDOW`] bytes that begin a line and 64 bytes or more before
    /// the end of the text.
    pub(in crate::flow) fn scan(&mut self, isa: Isa, text: &[u8], from: usize, to: usize) -> Scanned {
        debug_assert!(from <= to && to + 64 <= text.len() && to - from <= WINDOW);
        isa.run(Scan { window: self, text, from, to })
    }
}

struct Scan<'a> {
    window: &'a mut Window,
    text: &'a [u8],
    from: usize,
    to: usize,
}

impl Job for Scan<'_> {
    type Done = Scanned;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Scanned {
        let Self { window, text, from, to } = self;
        let (separators, ends) = (&mut window.separators[..], &mut window.ends[..]);
        separators[0] = (from as u32).wrapping_sub(1);
        let (mut count, mut lines, mut odd) = (1usize, 0usize, 0u64);
        // A separator at the very start of a line is a second one in a row.
        let mut carry = 1u64;
        let mut at = from;
        while at < to {
            prefetch(text, at + AHEAD);
            let Some(block) = text.get(at..at + 64).and_then(<[u8]>::first_chunk) else { break };
            let (mut spaces, mut newlines, mut controls) = lanes.classify(block);
            if to - at < 64 {
                let inside = (1u64 << (to - at)) - 1;
                (spaces, newlines, controls) = (spaces & inside, newlines & inside, controls & inside);
            }
            let both = spaces | newlines;
            odd |= controls | (both & (both << 1 | carry));
            carry = both >> 63;

            // More than there are may be written: the next block writes over the surplus.
            let Some(out) = separators.get_mut(count..).and_then(<[u32]>::first_chunk_mut) else { break };
            lanes.positions(both, at as u32, out);

            // Mostly there is one line end or none, which is not worth guessing: one is written in any case.
            let below = newlines & newlines.wrapping_neg();
            ends[lines] = (count + (both & below.wrapping_sub(1)).count_ones() as usize) as u32;
            lines += usize::from(newlines != 0);
            let mut left = newlines ^ below;
            while left != 0 {
                let below = left & left.wrapping_neg();
                ends[lines] = (count + (both & (below - 1)).count_ones() as usize) as u32;
                lines += 1;
                left ^= below;
            }
            count += both.count_ones() as usize;
            at += 64;
        }
        Scanned { lines, odd: odd != 0 }
    }
}
