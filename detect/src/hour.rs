//! The account-hour: everything that happened in one account in one UTC hour, merged. The atom of judging.
//!
//! Conversations are sums of flow records; calls are a set. Whose side of a conversation is "ours" and who held an
//! address is not in here: it is asked when judging.

use std::sync::Arc;

use flowtrail_ingest::{EventTime, Hour, Ip, UnitId};
use serde::{Deserialize, Serialize};

use crate::event_id::EventId;

/// "Not there" in a column of indices.
pub const NONE: u32 = u32::MAX;

/// One direction of a conversation, summed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Traffic {
    /// Flow records.
    pub flows: u32,
    /// OR of TCP flags.
    pub flags: u8,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Where a conversation was seen: up to 3 (index into [`AccountHour::units`], first line), the smallest by unit identity.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Sorted; those that are not in use are zero, so that equal places compare equal.
    places: [(u32, u32); 3],
    count: u8,
}

/// All flow records of one hour between a client and a service port of a server, seen at one ENI by one flow log.
///
/// An hour can hold millions, each pass over them costs memory traffic: so it is plain data of two and a half cache lines.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conversation {
    /// Index into [`AccountHour::strings`]: the ENI.
    pub eni: u32,
    /// Index into [`AccountHour::strings`]: flow-log id, or [`NONE`].
    pub flow_log: u32,
    /// REJECT.
    pub rejected: bool,
    /// IANA protocol.
    pub protocol: u8,
    /// True: `client` opened the connection and `client_port` is 0. False: the side is to be settled at the look, both
    /// ports are here, and `client` is only the smaller (address, port).
    pub settled: bool,
    /// Who asked.
    pub client: Ip,
    /// Who served.
    pub server: Ip,
    /// 0 when settled.
    pub client_port: u16,
    /// The service port.
    pub server_port: u16,
    /// Index into [`AccountHour::packet_addrs`] plus 1, where they differ from the outer ones; else 0.
    pub packet_addrs: u32,
    /// Client to server.
    pub ahead: Traffic,
    /// Server to client.
    pub back: Traffic,
    /// First second of the first record.
    pub first: EventTime,
    /// Last second of the last record.
    pub last: EventTime,
    /// `flow-direction` called the client's side ours in some record.
    pub ours_client: bool,
    /// … the server's side.
    pub ours_server: bool,
    /// Flow records that came with this call (of `replay`), for its summary.
    pub new_flows: u32,
    /// Where it was seen.
    pub seen: Seen,
}

/// One API call: a row of the account-hour. Strings are indices into [`AccountHour::strings`], [`NONE`] when absent.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiRow {
    /// `eventTime`.
    pub time: EventTime,
    /// XXH3-128 of recipientAccountId, eventID, eventTime, eventName; without eventID of the raw bytes.
    pub id: u128,
    /// `eventID`.
    pub event_id: EventId,
    /// Role or user ARN: the session issuer's ARN for sessions, else the identity's ARN, else `service:NAME` or `account:ID`.
    pub principal: u32,
    /// Function ARN without qualifier, from `inScopeOf.credentialsIssuedTo`.
    pub function: u32,
    /// Service, `iam`.
    pub service: u32,
    /// Action without version suffix, `CreateAccessKey`.
    pub action: u32,
    /// Region.
    pub region: u32,
    /// Address or service name the call came from.
    pub source: u32,
    /// Access key id.
    pub access_key: u32,
    /// `errorCode`.
    pub error: u32,
    /// Escalation step, one word of `detect::escalation`, or [`NONE`].
    pub step: u32,
    /// What the step or change was done to: user, role, policy, function ARN.
    pub target: u32,
    /// Detail of the step that the detector needs as text (JSON object), e.g. the policy's ARN, the principal of a permission.
    pub detail: u32,
    /// `eventID` of the event that this one corrects and replaces (`addendum.originalEventID`), as text.
    pub replaces: u32,
    /// Bits of [`call_marks`].
    pub marks: u16,
    /// Index into [`AccountHour::units`].
    pub unit: u32,
    /// Index in `Records`, line or Kafka offset.
    pub position: u64,
}

/// Bits of [`ApiRow::marks`].
pub mod call_marks {
    /// `readOnly` is true.
    pub const READ_ONLY: u16 = 1;
    /// Made by the Lambda service with the role, not by the function's code (domain/cloudtrail.md section 3).
    pub const SERVICE_CALL: u16 = 1 << 1;
    /// A dry run.
    pub const DRY_RUN: u16 = 1 << 2;
    /// `invokedBy` is set: an AWS service on somebody's behalf.
    pub const INVOKED_BY: u16 = 1 << 3;
    /// The user agent has `exec-env/AWS_Lambda_`.
    pub const LAMBDA_AGENT: u16 = 1 << 4;
    /// `eventCategory` is Data.
    pub const DATA: u16 = 1 << 5;
    /// `eventCategory` is NetworkActivity.
    pub const NETWORK_ACTIVITY: u16 = 1 << 6;
    /// The row came with this call of `replay`.
    pub const NEW: u16 = 1 << 7;
    /// `managementEvent` is true.
    pub const MANAGEMENT: u16 = 1 << 8;
}

/// A unit that the hour's records came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnitRef {
    /// Identity.
    pub id: UnitId,
    /// `folder`, `s3`, `kafka`.
    pub source: Arc<str>,
    /// Key, path or `topic/partition`.
    pub key: Arc<str>,
}

/// One account's UTC hour, merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountHour {
    /// Account id, as the records have it.
    pub account: String,
    /// The hour.
    pub hour: Hour,
    /// Region of the flow logs, by ENI string index, where the key says: sorted.
    pub eni_region: Vec<(u32, u32)>,
    /// Dictionary of all text, sorted, so that the order of indices is the order of texts.
    pub strings: Vec<Box<str>>,
    /// Units, sorted by identity.
    pub units: Vec<UnitRef>,
    /// `(pkt address on the client's side, on the server's side)` of conversations, sorted, each once.
    pub packet_addrs: Vec<(Ip, Ip)>,
    /// Sorted by [`Conversation::order`], as `strings` is sorted: all of an ENI's stand together.
    pub conversations: Vec<Conversation>,
    /// Sorted by (time, id); no id twice; replaced events are gone.
    pub calls: Vec<ApiRow>,
}

impl Conversation {
    /// What makes two conversations of one account-hour the same, in the order they are kept in.
    #[must_use]
    #[allow(clippy::type_complexity)]
    pub fn order(&self) -> (u32, u32, bool, bool, Ip, u16, u8, bool, Ip, u16, u32) {
        (
            self.eni,
            self.flow_log,
            !self.client.is_v4() || !self.server.is_v4(),
            self.rejected,
            self.server,
            self.server_port,
            self.protocol,
            self.settled,
            self.client,
            self.client_port,
            self.packet_addrs,
        )
    }

    /// Adds another conversation with the same [`Self::order`]. Commutative and associative but for `seen`, whose unit
    /// indices must follow the order of unit identities.
    pub fn add(&mut self, other: &Self) {
        self.ahead.add(&other.ahead);
        self.back.add(&other.back);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.ours_client |= other.ours_client;
        self.ours_server |= other.ours_server;
        self.new_flows = self.new_flows.saturating_add(other.new_flows);
        for &(unit, line) in other.seen.iter() {
            self.seen.add(unit, line);
        }
    }

    /// Flow records in both directions.
    #[must_use]
    pub fn flows(&self) -> u64 {
        u64::from(self.ahead.flows) + u64::from(self.back.flows)
    }
}

impl Seen {
    /// One place.
    #[must_use]
    #[inline]
    pub fn at(unit: u32, line: u32) -> Self {
        Self { places: [(unit, line), (0, 0), (0, 0)], count: 1 }
    }

    /// Takes a place in: of one unit the first line, of all units the three smallest.
    #[inline]
    pub fn add(&mut self, unit: u32, line: u32) {
        let count = usize::from(self.count);
        let at = self.places[..count].iter().position(|p| unit <= p.0).unwrap_or(count);
        if at < count && self.places[at].0 == unit {
            self.places[at].1 = self.places[at].1.min(line);
        } else if at < self.places.len() {
            self.places.copy_within(at..2, at + 1);
            self.places[at] = (unit, line);
            self.count = (self.count + 1).min(3);
        }
    }

    /// The same places with other indices of units, in the same order.
    #[must_use]
    pub fn map(mut self, unit: impl Fn(u32) -> u32) -> Self {
        for place in &mut self.places[..usize::from(self.count)] {
            place.0 = unit(place.0);
        }
        self
    }
}

impl std::ops::Deref for Seen {
    type Target = [(u32, u32)];
    fn deref(&self) -> &[(u32, u32)] {
        &self.places[..usize::from(self.count)]
    }
}

impl Traffic {
    /// Adds another sum; saturating, so that no input can make it wrap.
    pub fn add(&mut self, other: &Self) {
        self.flows = self.flows.saturating_add(other.flows);
        self.flags |= other.flags;
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What [`Conversation::packet_addrs`] says of a pair, of all pairs sorted.
pub(crate) fn place_of(pairs: &[(Ip, Ip)], pair: &(Ip, Ip)) -> u32 {
    pairs.binary_search(pair).map_or(0, |at| at as u32 + 1)
}

impl AccountHour {
    /// Text of an index; empty for [`NONE`].
    #[must_use]
    pub fn text(&self, index: u32) -> &str {
        self.strings.get(index as usize).map_or("", |s| s)
    }

    /// Text of an index, `None` for [`NONE`].
    #[must_use]
    pub fn opt(&self, index: u32) -> Option<&str> {
        self.strings.get(index as usize).map(AsRef::as_ref)
    }
}
