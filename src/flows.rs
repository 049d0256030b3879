//! The `flows` table, when asked for: every record, written by the reader straight from the batch.

use flowtrail_ingest::UnitId;
use flowtrail_ingest::flow::FlowRows;

use crate::lane::Lane;
use crate::reader::UnitMeta;
use crate::setup::Setup;

/// The table of one call.
pub struct FlowsTable {}

impl FlowsTable {
    /// The table, if it is wanted.
    ///
    /// # Errors
    /// When its files cannot be begun.
    pub fn of(_setup: &Setup, _lane: &Lane) -> anyhow::Result<Option<Self>> {
        Ok(None)
    }

    /// A writer of one unit's rows.
    pub fn writer(&self, _id: UnitId) -> impl FnMut(&UnitMeta, FlowRows<'_>) {
        |_, _| {}
    }
}
