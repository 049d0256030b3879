//! The plain twin of [`super::scan`]: serde_json finds the members, each field is then read from its raw value.
//!
//! Nothing runs this but tests and fuzzers, which hold the fast scanner against it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::call::{ApiCall, Identity, Text};
use super::scan::DEPTH_MAX;
use crate::time::EventTime;

/// The members of an object, the last of equal keys, each value as raw JSON; and whether any of them is a list of
/// records, which makes the object an envelope.
struct Members<'a>(BTreeMap<String, &'a str>, bool);

/// A string as bytes: half a surrogate pair, which `String` cannot hold, comes as three bytes.
struct Bytes(Vec<u8>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut members, mut list) = (BTreeMap::new(), false);
                while let Some((key, value)) = map.next_entry::<Bytes, &'de RawValue>()? {
                    let key = key.text();
                    list |= matches!(key.as_str(), "Records" | "Events" | "events") && value.get().starts_with('[');
                    members.insert(key, value.get());
                }
                Ok(Members(members, list))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visit)
    }
}

impl Bytes {
    fn text(self) -> String {
        let mut out = String::new();
        let mut rest = self.0.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    return out;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(good));
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = bad.get(3..).unwrap_or_default();
                }
            }
        }
    }
}

fn members(raw: &str) -> BTreeMap<String, &str> {
    serde_json::from_str::<Members<'_>>(raw).map(|m| m.0).unwrap_or_default()
}

fn text<'a>(members: &BTreeMap<String, &'a str>, key: &str) -> Option<Text<'a>> {
    let raw = members.get(key).filter(|raw| raw.starts_with('"'))?;
    serde_json::from_str::<Bytes>(raw).ok().map(|bytes| Cow::Owned(bytes.text()))
}

fn raw_of<'a>(members: &BTreeMap<String, &'a str>, key: &str, open: char) -> Option<&'a [u8]> {
    members.get(key).filter(|raw| raw.starts_with(open)).map(|raw| raw.as_bytes())
}

fn boolean(members: &BTreeMap<String, &str>, key: &str) -> Option<bool> {
    match *members.get(key)? {
        "true" | "\"true\"" => Some(true),
        "false" | "\"false\"" => Some(false),
        _ => None,
    }
}

fn within<'a>(outer: &BTreeMap<String, &'a str>, key: &str) -> BTreeMap<String, &'a str> {
    outer.get(key).map(|raw| members(raw)).unwrap_or_default()
}

/// How deep brackets nest in valid JSON.
fn depth(raw: &[u8]) -> usize {
    let (mut depth, mut deepest, mut string, mut escaped) = (0usize, 0, false, false);
    for c in raw {
        match c {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => string = !string,
            b'{' | b'[' if !string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// As [`super::scan::record`].
#[must_use]
pub fn record(raw: &[u8]) -> Option<ApiCall<'_>> {
    let object = serde_json::from_slice::<&RawValue>(raw).ok()?.get();
    if !object.starts_with('{') || depth(object.as_bytes()) > DEPTH_MAX {
        return None;
    }
    let Members(top, list) = serde_json::from_str(object).ok()?;
    if list {
        return None;
    }
    let user = within(&top, "userIdentity");
    let issuer = within(&within(&user, "sessionContext"), "sessionIssuer");
    let scope = within(&user, "inScopeOf");
    let time_text = text(&top, "eventTime").unwrap_or_default();
    Some(ApiCall {
        raw: object.as_bytes(),
        index: 0,
        time: EventTime::parse(&time_text).unwrap_or_default(),
        time_text,
        version: text(&top, "eventVersion"),
        event_id: text(&top, "eventID"),
        event_source: text(&top, "eventSource").unwrap_or_default(),
        event_name: text(&top, "eventName").unwrap_or_default(),
        event_type: text(&top, "eventType"),
        category: text(&top, "eventCategory"),
        region: text(&top, "awsRegion"),
        source_address: text(&top, "sourceIPAddress"),
        user_agent: text(&top, "userAgent"),
        error_code: text(&top, "errorCode"),
        error_message: text(&top, "errorMessage"),
        recipient_account: text(&top, "recipientAccountId"),
        request_id: text(&top, "requestID"),
        shared_event_id: text(&top, "sharedEventID"),
        vpc_endpoint: text(&top, "vpcEndpointId"),
        read_only: boolean(&top, "readOnly"),
        management: boolean(&top, "managementEvent"),
        replaces: text(&within(&top, "addendum"), "originalEventID"),
        identity: Identity {
            kind: text(&user, "type"),
            arn: text(&user, "arn"),
            account: text(&user, "accountId"),
            principal_id: text(&user, "principalId"),
            access_key: text(&user, "accessKeyId").filter(|key| !key.is_empty()),
            user_name: text(&user, "userName"),
            invoked_by: text(&user, "invokedBy"),
            issuer_arn: text(&issuer, "arn"),
            issuer_name: text(&issuer, "userName"),
            scope_issuer: text(&scope, "issuerType"),
            scope_issued_to: text(&scope, "credentialsIssuedTo"),
        },
        request: raw_of(&top, "requestParameters", '{'),
        response: raw_of(&top, "responseElements", '{'),
        additional: raw_of(&top, "additionalEventData", '{'),
        resources: raw_of(&top, "resources", '['),
        service_details: raw_of(&top, "serviceEventDetails", '{'),
        identity_raw: raw_of(&top, "userIdentity", '{'),
    })
}
