//! From records to findings: pure, synchronous code over values. No I/O, no clock, no randomness.
//!
//! Read in this order: [`hour`] (the atom of judging), [`finding`] (what is said), [`judge`] (how it is called).

pub mod hour;
pub mod ports;
mod prefetch;
pub mod block;
pub mod sum;
pub mod merge;
pub mod finding;
pub mod judge;

pub use block::{Block, BlockError};
pub use finding::{EvidenceRef, Finding, Observation, ProfileRow, Severity, Term};
pub use hour::{AccountHour, ApiRow, Conversation, Traffic, UnitRef};
pub use merge::{CallCounts, merge};
pub use judge::{AccountProfiles, Facts, Fleet, FleetDelta, JudgeConfig, Learning, Suppression, Verdict};
pub use sum::{FlowCounts, Summer, UnitContext};
