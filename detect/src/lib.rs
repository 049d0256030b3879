//! From records to findings: pure, synchronous code over values. No I/O, no clock, no randomness.
//!
//! Read in this order: [`hour`] (the atom of judging), [`finding`] (what is said), [`judge`] (how it is called),
//! [`window`] (the entities' hours), [`profile`] (what is known of them), [`detectors`] (the questions).

pub mod api_row;
pub mod block;
mod calls;
pub mod contact;
pub mod detectors;
pub mod entity;
pub mod escalation;
pub mod event_id;
pub mod finding;
pub mod fleet;
mod full_map;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hour;
pub mod incident;
pub mod judge;
mod key_counts;
pub mod merge;
pub mod novelty;
mod packed;
mod pool;
pub mod ports;
pub mod profile;
pub mod sum;
pub mod suppression;
pub mod surprise;
#[cfg(test)]
mod testing;
pub mod text;
mod tries;
pub mod window;

pub use api_row::api_row;
pub use block::{Block, BlockError, BlockView};
pub use entity::{EntityId, EntityKind};
pub use event_id::EventId;
pub use finding::{EvidenceRef, Finding, Observation, ProfileRow, Severity, Term};
pub use hour::{AccountHour, ApiRow, Conversation, Traffic, UnitRef};
pub use incident::Incidents;
pub use judge::{AccountProfiles, Facts, Fleet, FleetDelta, JudgeConfig, Learning, Suppression, Verdict};
pub use judge::{judge, judge_and_learn_window, judge_window, learn, learn_window};
pub use merge::{CallCounts, merge, merge_into};
pub use sum::{FlowCounts, Summer, UnitContext};
pub use window::Window;
