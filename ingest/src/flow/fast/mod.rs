//! Up to sixty-four lines at a time: the fast path of flow-log text.
//!
//! 1. **Scan** ([`window`]). A window of text is searched for spaces and line ends, 64 bytes at a step, into one list of
//!    positions. Lines with the right number of separators stand in it at equal distances: a run. A window with anything
//!    odd in it (two separators in a row, control characters) is left to the plain path, and so is a line of another
//!    length.
//! 2. **Columns** ([`chunk`]). For up to 64 lines of a run, one column after the other is converted: short loops without
//!    branches, that only note which rows failed. A failed value that is `-` is absent; any other makes its row *bad*.
//! 3. **Append.** Rows between bad ones are copied to the batch, the bad ones are read again by the plain path, which
//!    accepts them (IPv6, times in milliseconds) or says what is wrong.
//!
//! So every line has exactly the meaning that [`super::plain`] gives it; this path decides nothing but how fast. Only the
//! columns somebody reads are converted: a long custom format costs little more than its scan.
//!
//! What the machine can do is asked once ([`isa`]); each instruction set has a plain twin, and tests hold all of them
//! against each other.

mod chunk;
pub(super) mod isa;
mod plan;
mod run;
mod window;

pub(super) use isa::Isa;
pub(super) use run::Run;

use chunk::Chunk;
use plan::Plan;
use window::Window;

use super::layout::Layout;

/// Text scanned at a step, in bytes: it, its separators and columns stay in the first-level cache.
pub(super) const WINDOW: usize = 16 << 10;

/// Rows converted at a step: one bit each in a word.
pub(super) const ROWS: usize = 64;

/// Loads reach this far before and behind a field; lines nearer to an edge of the text go the plain path.
pub(super) const MARGIN: usize = 64;

/// The fast path's memory, used again window after window.
pub(super) struct Fast {
    pub isa: Isa,
    pub window: Window,
    pub chunk: Chunk,
    /// The work of the layout in force; `None` if only the plain path will do.
    pub plan: Option<Plan>,
    planned: u64,
}

impl Fast {
    pub(super) fn new(isa: Isa) -> Self {
        Self { isa, window: Window::new(), chunk: Chunk::new(), plan: None, planned: 0 }
    }

    /// Makes the plan of a layout, unless it is the one it was last made for.
    pub(super) fn plan_for(&mut self, layout: &Layout, number: u64) {
        if self.planned != number {
            self.plan = Plan::of(layout);
            self.chunk = Chunk::new();
            self.planned = number;
        }
    }
}
