//! From bytes to records.
//!
//! Read in this order: [`time`] and [`ip`] (the small nouns), [`unit`] (what is admitted once), [`flow`] (flow logs into
//! columns), [`cloudtrail`] (API calls), [`source`] (where the bytes come from).

pub mod cloudtrail;
pub mod flow;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod inflate;
pub mod ip;
pub mod leb128;
pub mod prefetch;
pub mod sniff;
pub mod source;
pub mod time;
pub mod unit;

pub use cloudtrail::{ApiCall, Identity, Item};
pub use flow::batch::{FlowBatch, Names};
pub use ip::Ip;
pub use time::{Day, EventTime, Hour};
pub use unit::{KeyFacts, Position, Reject, UnitId, escaped};
