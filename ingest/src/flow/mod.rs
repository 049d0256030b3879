//! Flow logs: text, Parquet and CloudWatch envelopes into columns.
//!
//! Read in this order: [`layout`] (which column stands where), [`batch`] (what comes out), `plain` (what a line means),
//! [`text`] (whole texts), `fast` (the same, sixty-four lines at a time), [`parquet`], [`envelope`], [`json`].

pub mod batch;
pub mod envelope;
mod fast;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod json;
pub mod layout;
mod names;
pub mod parquet;
pub mod plain;
pub mod text;

#[cfg(test)]
mod tests;

use batch::{FlowBatch, Names};
use layout::Layout;

use crate::unit::Reject;

/// One batch with all that is needed to read it; borrowed for the length of a call.
#[derive(Copy, Clone)]
pub struct FlowRows<'a> {
    /// The records.
    pub batch: &'a FlowBatch,
    /// The unit's dictionaries so far.
    pub names: &'a Names,
    /// The columns that `batch.cells` speaks of.
    pub layout: &'a Layout,
    /// What `batch.cells` points into: the text itself, or the values written out (Parquet).
    pub text: &'a [u8],
}

impl<'a> FlowRows<'a> {
    /// The text of one value; empty where it is absent (null, `-`) or cells were not asked for.
    #[must_use]
    #[inline]
    pub fn cell(&self, row: usize, column: usize) -> &'a [u8] {
        let range = self.batch.cells.get(row * self.layout.len() + column);
        let value = range.and_then(|(from, to)| self.text.get(*from as usize..*to as usize)).unwrap_or_default();
        if value == b"-" { &[] } else { value }
    }

    /// True where [`Self::cell`] is empty; without a look at the text of most others.
    #[must_use]
    #[inline]
    pub fn is_absent(&self, row: usize, column: usize) -> bool {
        match self.batch.cells.get(row * self.layout.len() + column) {
            Some((from, to)) if to.wrapping_sub(*from) > 1 => false,
            _ => self.cell(row, column).is_empty(),
        }
    }
}

/// Where a reader's records and rejects go.
pub(crate) struct Out<'a> {
    pub names: &'a mut Names,
    pub batch: &'a mut FlowBatch,
    pub on_batch: &'a mut dyn FnMut(FlowRows<'_>),
    pub on_reject: &'a mut dyn FnMut(Reject),
}
