//! One CloudTrail record with the fields that flowtrail reads, borrowed from the object's text.

use std::borrow::Cow;

use twox_hash::XxHash3_128;

use super::tree::one_line;
use crate::time::EventTime;

/// A string of the record: borrowed where it has no escapes.
pub type Text<'a> = Cow<'a, str>;

/// One CloudTrail event. Fields that are absent, null or of an odd type are `None`; `raw` always has all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiCall<'a> {
    /// The record as it came, without its envelope: one JSON object.
    pub raw: &'a [u8],
    /// Index in `Records`, line, or event of the envelope; from 0.
    pub index: u64,
    /// `eventTime`, whole seconds.
    pub time: EventTime,
    /// `eventTime` as written.
    pub time_text: Text<'a>,
    /// `eventVersion`.
    pub version: Option<Text<'a>>,
    /// `eventID`.
    pub event_id: Option<Text<'a>>,
    /// `eventSource`, e.g. `lambda.amazonaws.com`.
    pub event_source: Text<'a>,
    /// `eventName` as written, e.g. `UpdateFunctionCode20150331v2`.
    pub event_name: Text<'a>,
    /// `eventType`, e.g. `AwsApiCall`.
    pub event_type: Option<Text<'a>>,
    /// `eventCategory`: `Management`, `Data`, `NetworkActivity`.
    pub category: Option<Text<'a>>,
    /// `awsRegion`.
    pub region: Option<Text<'a>>,
    /// `sourceIPAddress`: an address, a service name or `AWS Internal`.
    pub source_address: Option<Text<'a>>,
    /// `userAgent`.
    pub user_agent: Option<Text<'a>>,
    /// `errorCode`.
    pub error_code: Option<Text<'a>>,
    /// `errorMessage`.
    pub error_message: Option<Text<'a>>,
    /// `recipientAccountId`.
    pub recipient_account: Option<Text<'a>>,
    /// `requestID`.
    pub request_id: Option<Text<'a>>,
    /// `sharedEventID`.
    pub shared_event_id: Option<Text<'a>>,
    /// `vpcEndpointId`.
    pub vpc_endpoint: Option<Text<'a>>,
    /// `readOnly`; CloudTrail writes a JSON boolean, older records the string.
    pub read_only: Option<bool>,
    /// `managementEvent`.
    pub management: Option<bool>,
    /// `addendum.originalEventID`: this record corrects and replaces that event.
    pub replaces: Option<Text<'a>>,
    /// `userIdentity`, taken apart.
    pub identity: Identity<'a>,
    /// `requestParameters` as raw JSON, when it is an object.
    pub request: Option<&'a [u8]>,
    /// `responseElements` as raw JSON, when it is an object.
    pub response: Option<&'a [u8]>,
    /// `additionalEventData` as raw JSON, when it is an object.
    pub additional: Option<&'a [u8]>,
    /// `resources` as raw JSON, when it is an array.
    pub resources: Option<&'a [u8]>,
    /// `serviceEventDetails` as raw JSON, when it is an object.
    pub service_details: Option<&'a [u8]>,
    /// `userIdentity` as raw JSON, when it is an object.
    pub identity_raw: Option<&'a [u8]>,
}

/// `userIdentity` of a record (domain/cloudtrail.md section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity<'a> {
    /// `type`, e.g. `AssumedRole`; may be missing.
    pub kind: Option<Text<'a>>,
    /// `arn`.
    pub arn: Option<Text<'a>>,
    /// `accountId`.
    pub account: Option<Text<'a>>,
    /// `principalId`, e.g. `AROA…:session`.
    pub principal_id: Option<Text<'a>>,
    /// `accessKeyId`; an empty one is `None`.
    pub access_key: Option<Text<'a>>,
    /// `userName`.
    pub user_name: Option<Text<'a>>,
    /// `invokedBy`, e.g. `lambda.amazonaws.com`.
    pub invoked_by: Option<Text<'a>>,
    /// `sessionContext.sessionIssuer.arn`: the role behind a session.
    pub issuer_arn: Option<Text<'a>>,
    /// `sessionContext.sessionIssuer.userName`: the role's name.
    pub issuer_name: Option<Text<'a>>,
    /// `inScopeOf.issuerType`.
    pub scope_issuer: Option<Text<'a>>,
    /// `inScopeOf.credentialsIssuedTo`: with issuer `AWS::Lambda::Function` the function's exact ARN.
    pub scope_issued_to: Option<Text<'a>>,
}

impl<'a> ApiCall<'a> {
    /// The event name without Lambda's version suffix (`UpdateFunctionCode20150331v2` → `UpdateFunctionCode`):
    /// `^(.+?)(20\d{6})(v\d+)?$`.
    #[must_use]
    pub fn action(&self) -> &str {
        base_name(&self.event_name)
    }

    /// What the event is counted by: its `eventType`, or `unknown`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.event_type.as_deref().unwrap_or("unknown")
    }

    /// `iam` of `iam.amazonaws.com`.
    #[must_use]
    pub fn service(&self) -> &str {
        let end = self.event_source.bytes().position(|c| c == b'.');
        end.and_then(|end| self.event_source.get(..end)).unwrap_or(&self.event_source)
    }

    /// The account the record belongs to: `recipientAccountId`, else the identity's account.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.recipient_account.as_deref().or(self.identity.account.as_deref()).filter(|a| !a.is_empty())
    }

    /// The session name of an assumed role: the part of `principalId` after the colon, else the last element of the ARN.
    #[must_use]
    pub fn session_name(&self) -> Option<&str> {
        if self.identity.kind.as_deref() != Some("AssumedRole") {
            return None;
        }
        let of_principal = self.identity.principal_id.as_deref().and_then(|p| p.get(memchr::memchr(b':', p.as_bytes())? + 1..));
        of_principal.or_else(|| self.identity.arn.as_deref().and_then(|a| a.rsplit('/').next()))
    }
}

/// Identity of an event, however often it is delivered: XXH3-128 over `recipientAccountId`, `eventID`, `eventTime` as
/// written and `eventName` with a NUL after each but the last; without `eventID` over the record's bytes, white space
/// between tokens left out (design/guarantees.md section 4).
#[must_use]
pub fn call_id(call: &ApiCall<'_>) -> u128 {
    let Some(event_id) = call.event_id.as_deref().filter(|id| !id.is_empty()) else {
        return XxHash3_128::oneshot(&one_line(call.raw));
    };
    let parts = [call.recipient_account.as_deref().unwrap_or_default(), event_id, &call.time_text, &call.event_name];
    // Real ids come to some 110 bytes; only odd ones take the allocation.
    let mut joined = [0u8; 256];
    let mut at = 0;
    for part in parts {
        match joined.get_mut(at..at + part.len()) {
            Some(place) => place.copy_from_slice(part.as_bytes()),
            None => return XxHash3_128::oneshot(parts.join("\0").as_bytes()),
        }
        at += part.len() + 1;
    }
    XxHash3_128::oneshot(joined.get(..at - 1).unwrap_or_default())
}

/// Cuts Lambda's API version off an event name.
#[must_use]
pub fn base_name(name: &str) -> &str {
    let b = name.as_bytes();
    let mut end = b.len();
    // an optional v\d+
    let digits = b.iter().rev().take_while(|c| c.is_ascii_digit()).count();
    if digits > 0 && digits < b.len() && b[b.len() - digits - 1] == b'v' && digits < 8 {
        end = b.len() - digits - 1;
    }
    if end > 8 && b[end - 8..end].iter().all(u8::is_ascii_digit) && &b[end - 8..end - 6] == b"20" { &name[..end - 8] } else { name }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lambda_names_lose_their_version() {
        for (name, base) in [
            ("UpdateFunctionCode20150331v2", "UpdateFunctionCode"),
            ("CreateFunction20150331", "CreateFunction"),
            ("Invoke", "Invoke"),
            ("GetObjectV2", "GetObjectV2"),
            ("20150331", "20150331"),
        ] {
            assert_eq!(super::base_name(name), base);
        }
    }

    #[test]
    fn ids_are_of_four_fields_else_of_the_bytes() {
        let id = |raw: &str| super::call_id(&crate::cloudtrail::scan::record(raw.as_bytes()).unwrap_or_default());
        let of = |text: &str| twox_hash::XxHash3_128::oneshot(text.as_bytes());
        let fields = r#"{"recipientAccountId":"1","eventID":"e","eventTime":"2023-07-10 11:45:12","eventName":"Invoke"}"#;
        assert_eq!(id(fields), of("1\0e\x002023-07-10 11:45:12\0Invoke"));
        assert_eq!(id(r#"{"eventID":"e"}"#), of("\0e\0\0"));
        for len in [200, 250, 251, 252, 253, 254, 255, 256, 257, 5000] {
            let long = "x".repeat(len);
            assert_eq!(id(&format!(r#"{{"eventID":"{long}"}}"#)), of(&format!("\0{long}\0\0")));
        }
        assert_eq!(id("{ \"eventID\": \"\" }"), of("{\"eventID\":\"\"}"));
    }
}
