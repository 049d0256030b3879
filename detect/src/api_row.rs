//! One CloudTrail event as a row of the account-hour.
//!
//! Runs once per event of the input: it looks at names and short fields only; JSON inside the event is parsed for the
//! few actions that are steps of an escalation or change a function.

use std::borrow::Cow;
use std::sync::LazyLock;

use flowtrail_ingest::ApiCall;
use memchr::memmem::Finder;

use crate::entity::unqualified;
use crate::escalation;
use crate::event_id::EventId;
use crate::hour::{ApiRow, NONE, call_marks};

/// Makes the row of `call`; `unit` and `position` stay 0 for the caller to set. `intern` gives each text its index in the
/// account-hour's dictionary. `id` is the event's identity (design/guarantees.md section 4).
pub fn api_row(call: &ApiCall<'_>, id: u128, intern: &mut dyn FnMut(&str) -> u32) -> ApiRow {
    let event_id = EventId::of(call.event_id.as_deref().unwrap_or_default(), &mut *intern);
    let mut optional = |text: Option<&str>| text.filter(|t| !t.is_empty()).map_or(NONE, &mut *intern);
    let function = function_of(call);
    let mut row = ApiRow {
        time: call.time,
        id,
        event_id,
        replaces: optional(call.replaces.as_deref()),
        principal: optional(principal_of(call).as_deref()),
        function: optional(function),
        service: optional(Some(call.service())),
        action: optional(Some(call.action())),
        region: optional(call.region.as_deref()),
        source: optional(call.source_address.as_deref()),
        access_key: optional(call.identity.access_key.as_deref()),
        error: optional(call.error_code.as_deref()),
        step: NONE,
        target: NONE,
        detail: NONE,
        marks: marks_of(call),
        unit: 0,
        position: 0,
    };
    if let Some(step) = escalation::step_of(call) {
        row.step = optional(Some(step.kind.as_str()));
        row.target = optional(step.target.as_deref());
        row.detail = optional(step.detail.as_deref());
        if step.dry_run {
            row.marks |= call_marks::DRY_RUN;
        }
    }
    row
}

/// The function whose code made the call: only what CloudTrail itself says (`inScopeOf`).
#[must_use]
pub fn function_of<'a>(call: &'a ApiCall<'_>) -> Option<&'a str> {
    if call.identity.scope_issuer.as_deref() != Some("AWS::Lambda::Function") {
        return None;
    }
    call.identity.scope_issued_to.as_deref().and_then(unqualified)
}

/// Role or user behind the call: the session issuer's ARN for sessions, else the identity's ARN, else `service:NAME` or
/// `account:ID`. All sessions of one role are one principal.
#[must_use]
pub fn principal_of<'a>(call: &'a ApiCall<'_>) -> Option<Cow<'a, str>> {
    let identity = &call.identity;
    if let Some(issuer) = identity.issuer_arn.as_deref().filter(|a| !a.is_empty()) {
        return Some(Cow::Borrowed(issuer));
    }
    if let Some(arn) = identity.arn.as_deref().filter(|a| !a.is_empty()) {
        return Some(role_of_session(arn).map_or(Cow::Borrowed(arn), Cow::Owned));
    }
    if let Some(service) = identity.invoked_by.as_deref().filter(|s| !s.is_empty()) {
        return Some(Cow::Owned(["service:", service].concat()));
    }
    identity.account.as_deref().filter(|a| !a.is_empty()).map(|a| Cow::Owned(format!("account:{a}")))
}

/// `arn:aws:sts::1:assumed-role/ci/session` → `arn:aws:iam::1:role/ci`, for records that lack the session's issuer.
fn role_of_session(arn: &str) -> Option<String> {
    let (head, path) = arn.split_once(":assumed-role/")?;
    let (partition, account) = head.strip_prefix("arn:")?.split_once(":sts::")?;
    let role = path.split('/').next().filter(|r| !r.is_empty())?;
    Some(format!("arn:{partition}:iam::{account}:role/{role}"))
}

/// What the runtimes of Lambda put into the SDKs' user agents, which are long: the search is prepared once.
static LAMBDA_AGENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("exec-env/AWS_Lambda_"));

fn marks_of(call: &ApiCall<'_>) -> u16 {
    let mut marks = 0;
    let mut set = |bit, on| {
        if on {
            marks |= bit;
        }
    };
    set(call_marks::READ_ONLY, call.read_only == Some(true));
    set(call_marks::MANAGEMENT, call.management == Some(true));
    set(call_marks::INVOKED_BY, call.identity.invoked_by.is_some());
    set(call_marks::LAMBDA_AGENT, call.user_agent.as_deref().is_some_and(|a| LAMBDA_AGENT.find(a.as_bytes()).is_some()));
    set(call_marks::DATA, call.category.as_deref() == Some("Data"));
    set(call_marks::NETWORK_ACTIVITY, call.category.as_deref() == Some("NetworkActivity"));
    set(
        call_marks::DRY_RUN,
        call.error_code.as_deref().is_some_and(|e| matches!(e, "Client.DryRunOperation" | "DryRunOperationException" | "DryRunOperation")),
    );
    set(call_marks::SERVICE_CALL, is_service_call(call));
    marks
}

/// Calls that bear a function's role and are not made by its code (domain/cloudtrail.md section 3). Counting them would
/// make every cold start look like new behaviour.
fn is_service_call(call: &ApiCall<'_>) -> bool {
    const LAMBDA: &str = "lambda.amazonaws.com";
    if call.identity.invoked_by.as_deref() == Some(LAMBDA) || call.source_address.as_deref() == Some(LAMBDA) {
        return true;
    }
    match (call.service(), call.action()) {
        ("logs", "CreateLogStream" | "CreateLogGroup") => call.user_agent.as_deref().is_some_and(|a| a.starts_with("awslambda-worker")),
        ("kms", "Decrypt") => call.request.is_some_and(|r| contains(r, b"\"aws:lambda:FunctionArn\"")),
        // Lambda creates and checks interfaces with the function's role, under session names of its own.
        ("ec2", _) => call.session_name().is_some_and(is_lambda_session),
        _ => call.session_name().is_some_and(|s| s.starts_with("awslambda_") && is_lambda_session(s)),
    }
}

/// `awslambda_{n}_{yyyyMMddHHmmssSSS}` or twelve digits.
fn is_lambda_session(session: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|c| c.is_ascii_digit());
    if let Some(rest) = session.strip_prefix("awslambda_") {
        return rest.split_once('_').is_some_and(|(n, stamp)| digits(n) && digits(stamp));
    }
    session.len() == 12 && digits(session)
}

/// True if `needle` stands somewhere in `hay`.
pub(crate) fn contains(hay: &[u8], needle: &[u8]) -> bool {
    find(hay, needle).is_some()
}

/// Where `needle` first stands in `hay`. Needles here begin with a quote, which is rare enough for a plain search.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = hay.get(from..)?.iter().position(|b| *b == first) {
        if hay[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowtrail_ingest::Identity;

    fn texts(call: &ApiCall<'_>) -> (ApiRow, Vec<String>) {
        let mut dictionary: Vec<String> = Vec::new();
        let row = api_row(call, 7, &mut |text| {
            let at = dictionary.iter().position(|t| t == text).unwrap_or_else(|| {
                dictionary.push(text.to_owned());
                dictionary.len() - 1
            });
            at as u32
        });
        (row, dictionary)
    }

    #[test]
    fn the_function_is_what_the_credentials_were_issued_to() {
        let call = ApiCall {
            event_source: "dynamodb.amazonaws.com".into(),
            event_name: "DescribeTable".into(),
            read_only: Some(true),
            user_agent: Some("Boto3/1.40 exec-env/AWS_Lambda_python3.12".into()),
            identity: Identity {
                kind: Some("AssumedRole".into()),
                principal_id: Some("AROAX:orders-worker".into()),
                issuer_arn: Some("arn:aws:iam::111122223333:role/orders-worker-role".into()),
                scope_issuer: Some("AWS::Lambda::Function".into()),
                scope_issued_to: Some("arn:aws:lambda:us-west-2:111122223333:function:orders-worker:3".into()),
                ..Identity::default()
            },
            ..ApiCall::default()
        };
        let (row, texts) = texts(&call);
        assert_eq!(texts[row.function as usize], "arn:aws:lambda:us-west-2:111122223333:function:orders-worker");
        assert_eq!(texts[row.principal as usize], "arn:aws:iam::111122223333:role/orders-worker-role");
        assert_eq!((texts[row.service as usize].as_str(), texts[row.action as usize].as_str()), ("dynamodb", "DescribeTable"));
        assert_eq!(row.marks, call_marks::READ_ONLY | call_marks::LAMBDA_AGENT);
        assert_eq!((row.step, row.error), (NONE, NONE));
    }

    #[test]
    fn calls_of_the_lambda_service_are_marked() {
        let session = |source: &'static str, name: &'static str, session: &'static str| ApiCall {
            event_source: source.into(),
            event_name: name.into(),
            identity: Identity {
                kind: Some("AssumedRole".into()),
                principal_id: Some(format!("AROAX:{session}").into()),
                ..Identity::default()
            },
            ..ApiCall::default()
        };
        let worker =
            |agent: &'static str| ApiCall { user_agent: Some(agent.into()), ..session("logs.amazonaws.com", "CreateLogStream", "orders") };
        let decrypt = |request: &'static [u8]| ApiCall { request: Some(request), ..session("kms.amazonaws.com", "Decrypt", "orders") };
        let invoked = ApiCall {
            identity: Identity { invoked_by: Some("lambda.amazonaws.com".into()), ..Identity::default() },
            ..session("kms.amazonaws.com", "CreateGrant", "x")
        };
        for (call, expected) in [
            (session("ec2.amazonaws.com", "CreateNetworkInterface", "awslambda_12_20260105100000123"), true),
            (session("ec2.amazonaws.com", "CreateNetworkInterface", "014658394185"), true),
            (session("ec2.amazonaws.com", "CreateNetworkInterface", "orders"), false),
            (session("s3.amazonaws.com", "GetObject", "014658394185"), false),
            (session("s3.amazonaws.com", "GetObject", "awslambda_x"), false),
            (worker("awslambda-worker/1.0"), true),
            (worker("Boto3/1.40"), false),
            (decrypt(br#"{"encryptionContext":{"aws:lambda:FunctionArn":"arn:x"}}"#), true),
            (decrypt(br#"{"encryptionContext":{"PARAMETER_ARN":"arn:x"}}"#), false),
            (invoked, true),
        ] {
            assert_eq!(is_service_call(&call), expected, "{call:?}");
        }
    }

    #[test]
    fn principals_are_roles_users_services_or_accounts() {
        let identity = |identity| ApiCall { identity, ..ApiCall::default() };
        for (call, expected) in [
            (identity(Identity { arn: Some("arn:aws:iam::1:user/eve".into()), ..Identity::default() }), Some("arn:aws:iam::1:user/eve")),
            (
                identity(Identity { arn: Some("arn:aws:sts::1:assumed-role/ci/job-7".into()), ..Identity::default() }),
                Some("arn:aws:iam::1:role/ci"),
            ),
            (
                identity(Identity { invoked_by: Some("ec2.amazonaws.com".into()), account: Some("1".into()), ..Identity::default() }),
                Some("service:ec2.amazonaws.com"),
            ),
            (identity(Identity { account: Some("1".into()), ..Identity::default() }), Some("account:1")),
            (identity(Identity::default()), None),
        ] {
            assert_eq!(principal_of(&call).as_deref(), expected);
        }
    }
}
