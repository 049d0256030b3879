//! From records to findings: pure, synchronous code over values. No I/O, no clock, no randomness.
//!
//! Read in this order: [`hour`] (the atom of judging), [`finding`] (what is said), [`judge`] (how it is called).

pub mod finding;
pub mod hour;
pub mod judge;

pub use finding::{EvidenceRef, Finding, Observation, ProfileRow, Severity, Term};
pub use hour::{AccountHour, ApiRow, Conversation, Traffic, UnitRef};
pub use judge::{AccountProfiles, Facts, Fleet, FleetDelta, JudgeConfig, Learning, Suppression, Verdict};
