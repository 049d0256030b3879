//! Facts of files: what `aws ec2 describe-network-interfaces`, `aws lambda list-functions`, `flowtrail collect` and AWS
//! Config wrote.
//!
//! A snapshot that is complete also proves absence. It is taken as complete for each account and region that occurs in
//! it, unless it was cut (`NextToken`, `NextMarker`) and no later page in the same file ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowtrail_ingest::{EventTime, KeyFacts, escaped};
use serde_json::Value;

use crate::arn::{account_of, region_of};
use crate::fact::{Fact, FactKind, Interface, Word};
use crate::shape::{function, get, interface, interface_region, text, time};

/// Members that only files of facts have at the top, in their first kilobytes.
const SIGNS: [&str; 6] = [
    "\"NetworkInterfaces\"",
    "\"Functions\"",
    "\"flowtrail_snapshot\"",
    "\"configurationItems\"",
    "\"NetworkInterfaceId\"",
    "\"FunctionArn\"",
];

/// True if text that begins so may be a file of facts: JSON with one of their members near the top. CloudTrail records,
/// which may name interfaces too, are not.
fn looks_like_facts(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    if !matches!(head.iter().find(|c| !c.is_ascii_whitespace()), Some(b'{' | b'[')) {
        return false;
    }
    let head = String::from_utf8_lossy(&head[..head.len().min(4096)]);
    SIGNS.iter().any(|sign| head.contains(sign)) && !head.contains("\"Records\"") && !head.contains("\"eventSource\"")
}

/// Facts of a file: describe-network-interfaces, list-functions, `collect` snapshot, AWS Config items; one JSON document
/// or several in a row. `dated` is the date for snapshots that carry none (`--facts-at`). A document that is none of
/// these gives no facts.
///
/// # Errors
/// In words, when the file is recognised and cannot be read.
pub fn facts_of_file(bytes: &[u8], key: &str, dated: Option<EventTime>) -> Result<Vec<Fact>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = Reader { dated, key: KeyFacts::of_key(key), facts: BTreeSet::new(), pages: BTreeMap::new() };
    let documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    for document in documents {
        match document {
            Ok(document) => reader.document(&document),
            Err(_) if reader.facts.is_empty() && !looks_like_facts(bytes) => return Ok(Vec::new()),
            Err(error) => return Err(format!("not readable as JSON: {error}")),
        }
    }
    Ok(reader.finish())
}

/// What one list or snapshot is about: kind, time, account, region.
type Place = (bool, EventTime, String, String);

struct Reader {
    dated: Option<EventTime>,
    key: KeyFacts,
    facts: BTreeSet<Fact>,
    /// Whether the last page seen of a place ended it, and whether it had published versions.
    pages: BTreeMap<Place, (bool, bool)>,
}

impl Reader {
    fn document(&mut self, value: &Value) {
        if let Some(items) = value.as_array() {
            // A bare array: part of a snapshot, of which nobody says that it is all.
            items.iter().for_each(|item| self.single(item));
            return;
        }
        let mut known = false;
        if let Some(items) = get(value, "NetworkInterfaces").and_then(Value::as_array) {
            known = true;
            self.interfaces(value, items);
        }
        if let Some(items) = get(value, "Functions").and_then(Value::as_array) {
            known = true;
            self.functions(value, items);
        }
        if let Some(items) = get(value, "ConfigurationItems").and_then(Value::as_array) {
            known = true;
            items.iter().for_each(|item| self.config_item(item));
        }
        if !known {
            self.single(value);
        }
    }

    fn single(&mut self, value: &Value) {
        if value.get("configurationItemCaptureTime").is_some() {
            self.config_item(value);
        } else if let Some(item) = value.get("configurationItem") {
            // Config's notices wrap one item.
            self.config_item(item);
        } else if value.get("NetworkInterfaceId").is_some() {
            self.interface(value, self.dated, None, None);
        } else if value.get("FunctionArn").is_some() {
            self.function(value, self.dated, "", "");
        }
    }

    /// Account and region that the snapshot itself names, and its date.
    fn envelope(&self, value: &Value) -> (Option<String>, Option<String>, Option<EventTime>) {
        let own = |name: &str| value.get(name).and_then(Value::as_str).filter(|s| !s.is_empty()).map(|s| escaped(s.as_bytes()));
        (own("account_id"), own("region"), value.get("taken_at").and_then(time).or(self.dated))
    }

    fn interfaces(&mut self, value: &Value, items: &[Value]) {
        let (account, region, at) = self.envelope(value);
        let mut places = BTreeSet::new();
        places.extend(account.clone().zip(region.clone()));
        for item in items {
            if let Some(place) = self.interface(item, at, account.as_deref(), region.as_deref()) {
                places.insert(place);
            }
        }
        self.page(true, at, places, value, false);
    }

    fn functions(&mut self, value: &Value, items: &[Value]) {
        let (account, region, at) = self.envelope(value);
        let mut places = BTreeSet::new();
        places.extend(account.clone().zip(region.clone()));
        let mut versions = false;
        for item in items {
            if let Some((place, version)) = self.function(item, at, account.as_deref().unwrap_or(""), region.as_deref().unwrap_or("")) {
                versions |= version;
                places.insert(place);
            }
        }
        self.page(false, at, places, value, versions);
    }

    /// Notes that a page of these places was read, and whether it was the last.
    fn page(&mut self, interfaces: bool, at: Option<EventTime>, places: BTreeSet<(String, String)>, value: &Value, versions: bool) {
        let Some(at) = at else { return };
        let cut = ["NextToken", "NextMarker"].iter().any(|n| get(value, n).is_some_and(|t| t.as_str() != Some("")));
        for (account, region) in places {
            let page = self.pages.entry((interfaces, at, account, region)).or_insert((false, false));
            *page = (!cut, page.1 || versions);
        }
    }

    fn interface(&mut self, value: &Value, at: Option<EventTime>, account: Option<&str>, region: Option<&str>) -> Option<(String, String)> {
        let seen = interface(value)?;
        let account = text(value, "OwnerId").map(|a| a.to_string()).or_else(|| account.map(str::to_owned));
        let region = region.map(str::to_owned).or_else(|| interface_region(value)).or_else(|| self.key.region.clone());
        let place = account.clone().zip(region.clone());
        self.facts.insert(Fact { at, account, region, kind: FactKind::InterfaceSeen(Arc::new(seen)) });
        place
    }

    fn function(&mut self, value: &Value, at: Option<EventTime>, account: &str, region: &str) -> Option<((String, String), bool)> {
        let seen = function(value, account, region)?;
        let place = account_of(&seen.function)?.to_owned();
        let place = (place, region_of(&seen.function)?.to_owned());
        let versioned = seen.version.is_some();
        let kind = FactKind::FunctionSeen(Arc::new(seen));
        self.facts.insert(Fact { at, account: Some(place.0.clone()), region: Some(place.1.clone()), kind });
        Some((place, versioned))
    }

    fn config_item(&mut self, item: &Value) {
        let Some(at) = get(item, "ConfigurationItemCaptureTime").and_then(time).or(self.dated) else { return };
        let account =
            text(item, "AwsAccountId").or_else(|| text(item, "AccountId")).map(|a| a.to_string()).or_else(|| self.key.account.clone());
        let region = text(item, "AwsRegion").map(|r| r.to_string()).or_else(|| self.key.region.clone());
        let status = text(item, "ConfigurationItemStatus");
        let gone = status.as_deref().is_some_and(|s| s.starts_with("ResourceDeleted"));
        if status.as_deref() == Some("ResourceNotRecorded") {
            return;
        }
        // In the advanced query and API forms the configuration is a string of JSON.
        let inner = get(item, "Configuration");
        let unpacked = inner.and_then(Value::as_str).and_then(|s| serde_json::from_str::<Value>(s).ok());
        let configuration = unpacked.as_ref().or(inner);
        let kind = match text(item, "ResourceType").as_deref() {
            Some("AWS::EC2::NetworkInterface") => {
                let Some(eni) = text(item, "ResourceId").or_else(|| configuration.and_then(|c| text(c, "NetworkInterfaceId"))) else {
                    return;
                };
                if gone {
                    FactKind::InterfaceDeleted { eni }
                } else {
                    let mut seen = configuration.and_then(interface).unwrap_or_else(|| Interface { eni, ..Interface::default() });
                    seen.name = seen.name.or_else(|| get(item, "Tags").and_then(|t| text(t, "Name")));
                    FactKind::InterfaceSeen(Arc::new(seen))
                }
            }
            Some("AWS::Lambda::Function") => {
                let (a, r) = (account.as_deref().unwrap_or(""), region.as_deref().unwrap_or(""));
                let named = text(item, "Arn").or_else(|| text(item, "ARN")).or_else(|| text(item, "ResourceId"));
                let of_item = || named.and_then(|n| crate::arn::function_arn(&n, a, r)).map(|(arn, _)| Word::from(arn));
                if gone {
                    let Some(function) = of_item() else { return };
                    FactKind::FunctionDeleted { function, version: None }
                } else {
                    let Some(seen) = configuration.and_then(|c| function(c, a, r)) else { return };
                    FactKind::FunctionSeen(Arc::new(seen))
                }
            }
            _ => return,
        };
        self.facts.insert(Fact { at: Some(at), account, region, kind });
    }

    fn finish(mut self) -> Vec<Fact> {
        for ((interfaces, at, account, region), (ended, versions)) in self.pages {
            if ended {
                let kind = if interfaces { FactKind::InterfacesComplete } else { FactKind::FunctionsComplete { all_versions: versions } };
                self.facts.insert(Fact { at: Some(at), account: Some(account), region: Some(region), kind });
            }
        }
        self.facts.into_iter().collect()
    }
}
