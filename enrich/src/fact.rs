//! Facts: dated pieces of outside knowledge. A set of them; the same fact learned twice is one.

use flowtrail_ingest::{ApiCall, EventTime};
use serde::{Deserialize, Serialize};

/// One fact. `Ord` so that a set of facts has one order on every machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fact {
    /// When it held or happened; `None` for a snapshot without a date.
    pub at: Option<EventTime>,
    /// Account, where the fact says.
    pub account: Option<String>,
    /// Region, where the fact says.
    pub region: Option<String>,
}

/// Facts of one CloudTrail event: interface and function changes, invocations with `customerEniId`, and that
/// management events of this account, region and hour were delivered. None for a call that failed.
#[must_use]
pub fn facts_of_call(_call: &ApiCall<'_>) -> Vec<Fact> {
    Vec::new()
}

/// Facts of a file: describe-network-interfaces, list-functions, `collect` snapshot, AWS Config items.
/// `dated` is the date for snapshots that carry none (`--facts-at`).
///
/// # Errors
/// In words, when the file is recognised and cannot be read.
pub fn facts_of_file(_bytes: &[u8], _key: &str, _dated: Option<EventTime>) -> Result<Vec<Fact>, String> {
    Ok(Vec::new())
}
