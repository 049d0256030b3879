//! From bytes to records.
//!
//! Read in this order: [`time`] and [`ip`] (the small nouns), [`unit`] (what is admitted once), [`flow`] (flow logs into
//! columns), [`cloudtrail`] (API calls).

pub mod cloudtrail;
pub mod flow;
pub mod inflate;
pub mod ip;
pub mod sniff;
pub mod time;
pub mod unit;

pub use cloudtrail::call::{ApiCall, Identity};
pub use flow::batch::{FlowBatch, Names};
pub use ip::Ip;
pub use time::{Day, EventTime, Hour};
pub use unit::{KeyFacts, Position, Reject, UnitId, escaped};
