//! The judge of one lane: profiles of every entity, the fleet's tables, the day's findings.
//!
//! `judge = pure(profiles through the hour before, merged hour, facts)`. The drivers only decide when to call it.

use flowtrail_enrich::{AddressBook, Timelines};
use flowtrail_ingest::{Day, EventTime};
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Observation, ProfileRow};
use crate::hour::AccountHour;

/// `[[suppression]]`: mutes the notice, keeps the signal; must end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// Detector, or `*`.
    pub detector: String,
    /// Pattern over entity ids and candidates' ARNs, `*` matches any run of characters.
    pub entity: String,
    /// First moment at which it no longer mutes, by the finding's `first_seen`.
    pub until: EventTime,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
}

/// What changes findings and is the user's to set. Written into every commit by its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeConfig {
    /// -1, 0 or +1: shifts all thresholds (detectors.md 0.2).
    pub sensitivity: i8,
    /// Mutes.
    pub suppressions: Vec<Suppression>,
}

/// Everything outside the hour that judging may ask.
pub struct Facts<'a> {
    /// Who held what.
    pub timelines: &'a Timelines,
    /// Names of addresses, lists.
    pub book: &'a AddressBook,
}

/// One account's profiles. Owned by one thread at a time; no account reads another's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountProfiles {}

/// The fleet's tables: integer sums over all accounts of day D, used from day D+2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fleet {}

/// What one account adds to the fleet's tables on one day. Merging is commutative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetDelta {}

/// What judging one account-hour gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Findings of this hour alone; [`crate::incident`] joins those of one day.
    pub findings: Vec<Finding>,
    /// Observations.
    pub observations: Vec<Observation>,
    /// Flow records by attribution of their own end: exact, candidates, other, unheld, unknown; of all and of those marked new.
    pub attribution: [u64; 5],
    /// … of those that are new in this call.
    pub attribution_new: [u64; 5],
}

/// Per detector with a warm-up: how many entities it knows and how many are past it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learning {
    /// `new_peer`, …
    pub detector: String,
    /// Entities known.
    pub entities: u64,
    /// Entities past warm-up.
    pub ready: u64,
    /// Oldest entity's day of warm-up, and the days it takes, for the sentence "day 1 of 14".
    pub day: u32,
    /// Days of warm-up.
    pub of: u32,
}

/// Judges one hour of one account against its profiles. Changes nothing.
#[must_use]
pub fn judge(_config: &JudgeConfig, _profiles: &AccountProfiles, _fleet: &Fleet, _hour: &AccountHour, _facts: &Facts<'_>) -> Verdict {
    Verdict::default()
}

/// Learns one hour: once, at the seal, hour after hour.
pub fn learn(_config: &JudgeConfig, _profiles: &mut AccountProfiles, _delta: &mut FleetDelta, _hour: &AccountHour, _facts: &Facts<'_>) {}

impl Fleet {
    /// Takes in day `day`'s sums of all accounts, to be used from `day + 2`.
    pub fn close_day(&mut self, _day: Day, _deltas: &[FleetDelta]) {}
}

impl AccountProfiles {
    /// Rows of the `profiles` table as of the end of `day`.
    #[must_use]
    pub fn rows(&self, _account: &str, _day: Day) -> Vec<ProfileRow> {
        Vec::new()
    }
    /// Warm-up state per detector.
    #[must_use]
    pub fn learning(&self, _day: Day) -> Vec<Learning> {
        Vec::new()
    }
}
