//! Units: what is admitted once. One S3 object or file, or one Kafka record.

use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::time::EventTime;

/// Identity of a unit: XXH3-128, specified so that it may be stored (design/guarantees.md section 4).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId(pub u128);

impl UnitId {
    /// Of an object or file whose key has an `AWSLogs/` element: the key from there on, so that history copied to
    /// a folder and the bucket itself are the same unit. `None` without that element.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        let at = if key.starts_with("AWSLogs/") { 0 } else { key.find("/AWSLogs/")? + 1 };
        Some(Self(XxHash3_128::oneshot(&key.as_bytes()[at..])))
    }
    /// Of anything else: a file's bytes, or `bucket/key`.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(bytes))
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What an AWS log object's key says about it (domain/flow-logs.md section 6, domain/cloudtrail.md section 1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// The account in the key: for flow logs the one that created the flow log.
    pub account: Option<String>,
    /// The region in the key.
    pub region: Option<String>,
    /// `fl-…` of a flow log.
    pub flow_log: Option<String>,
    /// `vpcflowlogs`, `CloudTrail`, `CloudTrail-Digest`, `Config`, …
    pub service: Option<String>,
    /// The time in the file name: when AWS closed the object.
    pub time: Option<EventTime>,
}

impl KeyFacts {
    /// Reads the key, plain or Hive style. What is not there stays `None`; nothing fails.
    #[must_use]
    pub fn of_key(key: &str) -> Self {
        let mut facts = Self::default();
        let at = if key.starts_with("AWSLogs/") { Some(0) } else { key.find("/AWSLogs/").map(|n| n + 1) };
        let name = key.rsplit('/').next().unwrap_or(key);
        if let Some(at) = at {
            let mut parts = key[at..].split('/').skip(1);
            let mut first = parts.next();
            if first.is_some_and(|p| p.starts_with("o-")) {
                first = parts.next();
            }
            if let Some(value) = first.and_then(|p| p.strip_prefix("aws-account-id=")) {
                facts.account = Some(value.to_owned());
                for part in parts {
                    if let Some(v) = part.strip_prefix("aws-service=") {
                        facts.service = Some(v.to_owned());
                    } else if let Some(v) = part.strip_prefix("aws-region=") {
                        facts.region = Some(v.to_owned());
                    }
                }
            } else {
                facts.account = first.filter(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_digit())).map(str::to_owned);
                facts.service = parts.next().map(str::to_owned);
                facts.region = parts.next().filter(|p| p.contains('-')).map(str::to_owned);
            }
        }
        for piece in name.split(['_', '.']) {
            if piece.starts_with("fl-") {
                facts.flow_log = Some(piece.to_owned());
            } else if facts.time.is_none() && piece.len() >= 14 && piece.as_bytes()[8] == b'T' && piece.ends_with('Z') && piece.is_ascii() {
                // 20160811T2215Z or with seconds
                let digits = &piece[..piece.len() - 1];
                let full = if digits.len() == 13 { format!("{digits}00Z") } else { format!("{digits}Z") };
                facts.time = EventTime::parse(&full);
            }
        }
        facts
    }
}

/// Where a record stands in its unit.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

/// A line or record that could not be read: set aside with its place and reason; the unit goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Line number (text, from 1, the header counted), index in `Records` (from 0), or row (Parquet, from 0).
    pub position: Position,
    /// Lower case, with the offending value.
    pub reason: String,
    /// The first 256 bytes, control characters escaped.
    pub sample: String,
}

impl Reject {
    /// Makes a reject of raw bytes: sample cut to 256 bytes, control characters and invalid UTF-8 escaped.
    #[must_use]
    pub fn new(position: u64, reason: impl Into<String>, raw: &[u8]) -> Self {
        Self { position: Position(position), reason: reason.into(), sample: escaped(&raw[..raw.len().min(256)]) }
    }
}

/// Bytes as text that is safe on a terminal and in a table: control characters become `\u{..}` or `\n`-like escapes,
/// bytes that are not UTF-8 become `\x..`.
#[must_use]
pub fn escaped(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Bidirectional overrides can make a terminal show another text than the one stored.
            if c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}
