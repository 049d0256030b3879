//! The address book: AWS's published ranges, the user's own networks, threat lists.

use flowtrail_ingest::{EventTime, Ip};
use serde::{Deserialize, Serialize};

use crate::names::PeerName;

/// A hit on a threat list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListHit {
    /// The list's name.
    pub list: String,
    /// `c2`, `mining_pool`, `tor`, `sinkhole`, `custom` …
    pub category: String,
    /// 0 to 1000.
    pub confidence_milli: u32,
    /// The listed range as text.
    pub range: String,
    /// When the entry began to hold.
    pub valid_from: Option<EventTime>,
    /// When it ceased to.
    pub valid_to: Option<EventTime>,
}

/// Names for addresses outside the organisation's interfaces.
#[derive(Clone, Debug, Default)]
pub struct AddressBook {}

impl AddressBook {
    /// Names an address by the user's networks, then AWS's ranges; `Private` or `Internet` when neither knows it.
    #[must_use]
    pub fn name(&self, ip: Ip) -> PeerName {
        let kind = if ip.is_private() { crate::names::PeerKind::Private } else { crate::names::PeerKind::Internet };
        let word = if ip.is_private() { "private" } else { "internet" };
        PeerName { kind, key: ip.to_string(), name: ip.to_string(), kind_word: word.to_owned() }
    }

    /// List entries that hold `ip` at `at`, sorted by (list, range).
    #[must_use]
    pub fn listed(&self, _ip: Ip, _at: EventTime) -> Vec<ListHit> {
        Vec::new()
    }
}
