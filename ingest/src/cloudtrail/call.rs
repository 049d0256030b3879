//! One CloudTrail record with the fields that flowtrail reads, borrowed from the object's text.

use std::borrow::Cow;

use crate::time::EventTime;

/// A string of the record: borrowed where it has no escapes.
pub type Text<'a> = Cow<'a, str>;

/// One CloudTrail event. Fields that are absent, null or of an odd type are `None`; `raw` always has all of it.
#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Debug, Default)]
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

    /// `iam` of `iam.amazonaws.com`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.event_source.split('.').next().unwrap_or(&self.event_source)
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
        let of_principal = self.identity.principal_id.as_deref().and_then(|p| p.split_once(':')).map(|(_, s)| s);
        of_principal.or_else(|| self.identity.arn.as_deref().and_then(|a| a.rsplit('/').next()))
    }
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
}
