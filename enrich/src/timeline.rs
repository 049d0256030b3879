//! ENI timelines: who held which interface and address when, from dated facts.
//!
//! Invariant: equal sets of facts make equal timelines, in whatever order they were learned.

use std::collections::BTreeSet;

use flowtrail_ingest::{EventTime, Ip};

use crate::fact::Fact;
use crate::names::{Attributed, EniOwnerRow, NetworkEntity, PeerName};

/// All that is known about interfaces and functions of the organisation, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Timelines {}

impl Timelines {
    /// Builds the timelines from a set of facts.
    #[must_use]
    pub fn build(_facts: &BTreeSet<Fact>) -> Self {
        Self {}
    }

    /// Who held `eni` of `account` over `[first, last]`: for Lambda over `[first - 15 min, last]`, as an invocation can last 15 min.
    #[must_use]
    pub fn attribute(&self, _account: &str, _eni: &str, _first: EventTime, _last: EventTime) -> Attributed {
        Attributed::default()
    }

    /// The entity that the behaviour of `eni` at `at` is learned for.
    #[must_use]
    pub fn entity(&self, _account: &str, eni: &str, _at: EventTime) -> NetworkEntity {
        NetworkEntity::Interface { eni: eni.to_owned() }
    }

    /// True if the timeline gives `ip` to `eni` at some time in `[first, last]` (primary, secondary or by prefix).
    #[must_use]
    pub fn holds(&self, _account: &str, _eni: &str, _ip: Ip, _first: EventTime, _last: EventTime) -> bool {
        false
    }

    /// Region and VPC of an interface at `at`, where known.
    #[must_use]
    pub fn place(&self, _account: &str, _eni: &str, _at: EventTime) -> Option<(String, String)> {
        None
    }

    /// The one holder of `ip`, seen from `eni` of `account` (its VPC first, then the organisation where unambiguous),
    /// over all of `[first, last]`.
    #[must_use]
    pub fn peer(&self, _account: &str, _eni: &str, _ip: Ip, _first: EventTime, _last: EventTime) -> Option<PeerName> {
        None
    }

    /// Every function ARN known for `account` and the rows of `eni_owners`, as of `as_of`.
    #[must_use]
    pub fn owner_rows(&self, _as_of: EventTime) -> Vec<EniOwnerRow> {
        Vec::new()
    }
}
