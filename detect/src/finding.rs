//! Findings and observations: what a detector says, ready for the tables (design/interface.md section 3).

use std::sync::Arc;

use flowtrail_enrich::Candidate;
use flowtrail_ingest::{EventTime, Ip};
use serde::{Deserialize, Serialize};

/// How loud. The numbers are OCSF's `severity_id`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// 1
    #[default]
    Informational = 1,
    /// 2
    Low = 2,
    /// 3
    Medium = 3,
    /// 4
    High = 4,
    /// 5
    Critical = 5,
}

impl Severity {
    /// The word of the tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Where a raw record is. `source` and `key` are filled from the unit ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EvidenceRef {
    /// Name of the source: `folder`, `s3`, `kafka`, or the list or snapshot.
    pub source: Arc<str>,
    /// Object key, path, or `topic/partition`. Shared: thousands of findings point into the same few objects.
    pub key: Arc<str>,
    /// Line number, index in `Records`, Parquet row or Kafka offset.
    pub position: u64,
    /// CloudTrail `eventID`.
    pub event_id: Option<String>,
}

/// One term of the score: `{"kind","s","says"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// `novelty`, `prevalence`, `port`, `list`, `identity`, `timing`, `rate`, `bytes`, `change`, `walk`, `pattern`.
    pub kind: String,
    /// Surprise, in thousandths.
    pub s_milli: i64,
    /// The term in words.
    pub says: String,
}

/// One finding: (detector, entity, subject, UTC day). Everything but `revision`, `status`, `sealed`, `seen_at` and
/// `delivered_at` is a function of the journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// BLAKE3-128 of (detector, entity, subject, UTC day), in hex.
    pub finding_id: String,
    /// `new_peer`, `new_api_call`, `threat_list`, `scan`, `privilege_escalation`, …
    pub detector: String,
    /// Version of the detector's formula.
    pub detector_version: i32,
    /// For Sigma and user rules.
    pub rule_id: Option<String>,
    /// Level.
    pub severity: Severity,
    /// Surprise in thousandths.
    pub score_milli: i64,
    /// One line.
    pub title: String,
    /// The full text.
    pub explanation: String,
    /// How to check and contain.
    pub next_steps: String,
    /// Account.
    pub account_id: String,
    /// Its name, where known.
    pub account_name: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// `function`, `network`, `interface`, `principal`, `source`, `account`.
    pub entity_kind: String,
    /// ARN, region/VPC/security groups, or ENI id.
    pub entity_id: String,
    /// Name for people.
    pub entity_name: String,
    /// `exact`, `candidates`, `other`, `unheld`, `unknown`.
    pub attribution: String,
    /// Who may have done it.
    pub candidates: Vec<Candidate>,
    /// `peer`, `action`, `port`, `rule`, `target`, …
    pub subject_kind: String,
    /// What was asked about: an address, `iam:CreateAccessKey`, a pattern.
    pub subject: String,
    /// Readable name of it.
    pub subject_name: String,
    /// Peer address.
    pub peer_ip: Option<Ip>,
    /// Peer port.
    pub peer_port: Option<i32>,
    /// IANA protocol.
    pub protocol: Option<i32>,
    /// `out` or `in`.
    pub direction: Option<String>,
    /// For API findings.
    pub event_source: Option<String>,
    /// For API findings.
    pub event_name: Option<String>,
    /// Start of the first hour.
    pub window_start: EventTime,
    /// End of the last hour.
    pub window_end: EventTime,
    /// First record that speaks for it.
    pub first_seen: EventTime,
    /// Last record.
    pub last_seen: EventTime,
    /// Flows, calls or contacts.
    pub count: i64,
    /// Bytes from the entity.
    pub bytes_out: i64,
    /// Bytes to the entity.
    pub bytes_in: i64,
    /// ATT&CK tactic ids, `TA….`
    pub tactics: Vec<String>,
    /// ATT&CK technique ids, `T….`
    pub techniques: Vec<String>,
    /// What was known, a JSON object.
    pub learned: String,
    /// Terms of the score.
    pub evidence_terms: Vec<Term>,
    /// Thresholds in force, a JSON object.
    pub parameters: String,
    /// Where the raw records are; at most 10, the smallest by (time, id).
    #[serde(with = "by_object")]
    pub evidence: Vec<EvidenceRef>,
    /// Share of expected input that was there, in thousandths.
    pub coverage_milli: i64,
    /// Which suppression muted the notice.
    pub suppressed_by: Option<String>,
}

/// One row of the `observations` table: worth keeping, not worth waking anybody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When.
    pub time: EventTime,
    /// Account.
    pub account_id: String,
    /// Region.
    pub region: Option<String>,
    /// `function`, `principal`, …
    pub entity_kind: String,
    /// ARN or id.
    pub entity_id: String,
    /// Name for people.
    pub entity_name: String,
    /// `code_change`, `configuration_change`, `signal`, `outage`, …
    pub kind: String,
    /// Kind of subject.
    pub subject_kind: String,
    /// Subject.
    pub subject: String,
    /// Readable name of it.
    pub subject_name: String,
    /// Surprise in thousandths.
    pub score_milli: i64,
    /// Where the raw records are.
    pub evidence: Vec<EvidenceRef>,
}

/// One row of the `profiles` table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileRow {
    /// Account.
    pub account_id: String,
    /// Region.
    pub region: Option<String>,
    /// Kind of entity.
    pub entity_kind: String,
    /// ARN or id.
    pub entity_id: String,
    /// Name for people.
    pub entity_name: String,
    /// Days since first seen.
    pub age_days: i32,
    /// Hours with activity.
    pub active_hours: i64,
    /// `learning n of m` or `active`.
    pub state: String,
    /// Known peers, JSON.
    pub peers: String,
    /// Known actions, JSON.
    pub actions: String,
    /// Known ports, JSON.
    pub ports: String,
    /// Rates, JSON.
    pub rates: String,
}

/// Evidence in the state: what lies one behind the other in the same object names it once. A day's findings are mostly
/// evidence, and that is mostly keys.
pub(crate) mod by_object {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::EvidenceRef;

    /// (source, key, positions and event ids)
    type Object<T> = (T, T, Vec<(u64, Option<T>)>);

    pub fn serialize<S: Serializer>(evidence: &[EvidenceRef], to: S) -> Result<S::Ok, S::Error> {
        let objects = evidence.chunk_by(|a, b| (&a.source, &a.key) == (&b.source, &b.key)).map(|same| -> Object<&str> {
            let places = same.iter().map(|e| (e.position, e.event_id.as_deref())).collect();
            (&same[0].source, &same[0].key, places)
        });
        objects.collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EvidenceRef>, D::Error> {
        let mut evidence = Vec::new();
        for (source, key, places) in Vec::<Object<String>>::deserialize(from)? {
            let (source, key): (Arc<str>, Arc<str>) = (source.into(), key.into());
            evidence.extend(places.into_iter().map(|(position, event_id)| EvidenceRef {
                source: Arc::clone(&source),
                key: Arc::clone(&key),
                position,
                event_id,
            }));
        }
        Ok(evidence)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn evidence_comes_back_in_its_order(places in prop::collection::vec((0u8..2, 0u8..3, 0u64..4, prop::option::of("[a-f]{3}")), 0..12)) {
            let evidence: Vec<EvidenceRef> = places.into_iter().map(|(source, key, position, event_id)| EvidenceRef {
                source: ["folder", "s3"][usize::from(source)].into(),
                key: format!("an/object/with/a/long/key/{key}").into(),
                position,
                event_id,
            }).collect();
            let objects = evidence.chunk_by(|a, b| (&a.source, &a.key) == (&b.source, &b.key)).count();
            let finding = Finding { evidence, ..Finding::default() };
            let bytes = postcard::to_stdvec(&finding).unwrap();
            prop_assert_eq!(bytes.windows(7).filter(|w| w == b"an/obje").count(), objects);
            prop_assert_eq!(postcard::from_bytes::<Finding>(&bytes).unwrap(), finding);
        }
    }
}
