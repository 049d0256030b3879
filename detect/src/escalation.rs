//! Steps: the calls that take part in an escalation or change a function, with what the judge needs of their content.
//!
//! [`step_of`] looks at the action's name first, so that an ordinary call costs a comparison; only a step's request and
//! response are parsed. What could not be read is left out of the detail; nothing here fails.

use flowtrail_ingest::ApiCall;
use serde_json::{Map, Value, json};

use crate::api_row::find;
use crate::entity::unqualified;

macro_rules! step_kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What a step does. The words are stored.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum StepKind { $($(#[$doc])* $name,)* }
        impl StepKind {
            /// The stored word.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $word,)* } }
            /// Reads the stored word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> { match word { $($word => Some(Self::$name),)* _ => None } }
        }
    };
}

step_kinds! {
    /// `Attach{User,Role,Group}Policy`.
    AttachPolicy = "attach_policy",
    /// `Put{User,Role,Group}Policy`.
    PutPolicy = "put_policy",
    /// `CreatePolicyVersion` with `setAsDefault`.
    PolicyVersion = "policy_version",
    /// `SetDefaultPolicyVersion`.
    DefaultVersion = "default_version",
    /// `AddUserToGroup`.
    AddToGroup = "add_to_group",
    /// `CreateAccessKey`.
    AccessKey = "access_key",
    /// `CreateLoginProfile`, `UpdateLoginProfile`.
    LoginProfile = "login_profile",
    /// `CreateUser`.
    CreateUser = "create_user",
    /// `CreateRole`.
    CreateRole = "create_role",
    /// `UpdateAssumeRolePolicy`.
    UpdateTrust = "update_trust",
    /// `sts:AssumeRole` by somebody who is no AWS service.
    AssumeRole = "assume_role",
    /// `lambda:AddPermission`.
    AddPermission = "add_permission",
    /// `lambda:CreateFunctionUrlConfig`, `UpdateFunctionUrlConfig`.
    FunctionUrl = "function_url",
    /// `lambda:AddLayerVersionPermission`.
    LayerPermission = "layer_permission",
    /// `lambda:CreateFunction`.
    CreateFunction = "create_function",
    /// `lambda:UpdateFunctionCode`.
    UpdateCode = "update_code",
    /// `lambda:UpdateFunctionConfiguration`.
    UpdateConfiguration = "update_configuration",
    /// `lambda:PublishVersion`.
    PublishVersion = "publish_version",
    /// `lambda:CreateAlias`, `UpdateAlias`.
    Alias = "alias",
    /// `lambda:PublishLayerVersion`.
    PublishLayer = "publish_layer",
    /// `lambda:CreateEventSourceMapping`.
    EventSource = "event_source",
    /// `lambda:DeleteFunction`.
    DeleteFunction = "delete_function",
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// To what: user, role, group or policy as named in the call; a function as its ARN.
    pub target: Option<String>,
    /// What the judge needs of its content: a JSON object.
    pub detail: Option<String>,
    /// The request said that nothing should be changed.
    pub dry_run: bool,
}

/// The step that `call` is, if it is one.
#[must_use]
pub fn step_of(call: &ApiCall<'_>) -> Option<Step> {
    let action = call.action();
    let kind = match call.event_source.as_ref() {
        "iam.amazonaws.com" => match action {
            "AttachUserPolicy" | "AttachRolePolicy" | "AttachGroupPolicy" => StepKind::AttachPolicy,
            "PutUserPolicy" | "PutRolePolicy" | "PutGroupPolicy" => StepKind::PutPolicy,
            "CreatePolicyVersion" => StepKind::PolicyVersion,
            "SetDefaultPolicyVersion" => StepKind::DefaultVersion,
            "AddUserToGroup" => StepKind::AddToGroup,
            "CreateAccessKey" => StepKind::AccessKey,
            "CreateLoginProfile" | "UpdateLoginProfile" => StepKind::LoginProfile,
            "CreateUser" => StepKind::CreateUser,
            "CreateRole" => StepKind::CreateRole,
            "UpdateAssumeRolePolicy" => StepKind::UpdateTrust,
            _ => return None,
        },
        "lambda.amazonaws.com" => match action {
            "AddPermission" => StepKind::AddPermission,
            "CreateFunctionUrlConfig" | "UpdateFunctionUrlConfig" => StepKind::FunctionUrl,
            "AddLayerVersionPermission" => StepKind::LayerPermission,
            "CreateFunction" => StepKind::CreateFunction,
            "UpdateFunctionCode" => StepKind::UpdateCode,
            "UpdateFunctionConfiguration" => StepKind::UpdateConfiguration,
            "PublishVersion" => StepKind::PublishVersion,
            "CreateAlias" | "UpdateAlias" => StepKind::Alias,
            "PublishLayerVersion" => StepKind::PublishLayer,
            "CreateEventSourceMapping" => StepKind::EventSource,
            "DeleteFunction" => StepKind::DeleteFunction,
            _ => return None,
        },
        "sts.amazonaws.com" if action == "AssumeRole" => return assume_role(call),
        _ => return None,
    };
    Some(read(kind, call))
}

/// AssumeRole is among the commonest events there are: the role is picked out of the text, nothing is parsed.
fn assume_role(call: &ApiCall<'_>) -> Option<Step> {
    if call.identity.kind.as_deref() == Some("AWSService") || call.identity.invoked_by.is_some() {
        return None;
    }
    let request = call.request?;
    let at = find(request, b"\"roleArn\"")? + b"\"roleArn\"".len();
    let rest = request.get(at..)?;
    let open = rest.iter().position(|b| *b == b'"').filter(|n| *n <= 8)?;
    let text = rest.get(open + 1..)?;
    let close = text.iter().take(2048).position(|b| matches!(b, b'"' | b'\\'))?;
    let role = std::str::from_utf8(text.get(..close)?).ok()?;
    Some(Step { kind: StepKind::AssumeRole, target: Some(role.to_owned()), detail: None, dry_run: false })
}

fn read(kind: StepKind, call: &ApiCall<'_>) -> Step {
    let parse = |raw: Option<&[u8]>| raw.and_then(|r| serde_json::from_slice::<Value>(r).ok()).unwrap_or(Value::Null);
    let (request, response) = (parse(call.request), parse(call.response));
    let account = call.account().unwrap_or("");
    let mut detail = Map::new();
    let target = match kind {
        StepKind::AttachPolicy | StepKind::PutPolicy => {
            if let Some(policy) = word(&request, "policyArn") {
                detail.insert("policy".into(), policy.into());
                detail.insert("admin".into(), admin_policy_name(policy).into());
            }
            if let Some(document) = word(&request, "policyDocument") {
                detail.insert("policy".into(), word(&request, "policyName").unwrap_or("inline").into());
                detail.insert("admin".into(), admin_document(document).into());
            }
            of_any(&request, &["userName", "roleName", "groupName"])
        }
        StepKind::PolicyVersion => {
            detail.insert("default".into(), truth(&request, "setAsDefault").into());
            if let Some(document) = word(&request, "policyDocument") {
                detail.insert("admin".into(), admin_document(document).into());
            }
            of_any(&request, &["policyArn"])
        }
        StepKind::DefaultVersion => {
            if let Some(version) = word(&request, "versionId") {
                detail.insert("version".into(), version.into());
            }
            of_any(&request, &["policyArn"])
        }
        StepKind::AddToGroup => {
            if let Some(group) = word(&request, "groupName") {
                detail.insert("group".into(), group.into());
            }
            of_any(&request, &["userName"])
        }
        StepKind::AccessKey | StepKind::LoginProfile | StepKind::CreateUser => {
            let created = response.get("accessKey").or_else(|| response.get("loginProfile")).unwrap_or(&Value::Null);
            let user = of_any(&request, &["userName"]).or_else(|| of_any(created, &["userName"]));
            // Without a user name IAM takes the caller's own.
            let own = call.identity.user_name.as_deref();
            let itself = match (user.as_deref(), own) {
                (None, _) => call.error_code.is_none(),
                (Some(user), own) => own == Some(user) || call.session_name() == Some(user),
            };
            detail.insert("self".into(), itself.into());
            if let Some(key) = word(created, "accessKeyId") {
                detail.insert("key".into(), key.into());
            }
            user.or_else(|| if itself { own.map(str::to_owned) } else { None })
        }
        StepKind::CreateRole | StepKind::UpdateTrust => {
            let document = word(&request, "assumeRolePolicyDocument").or_else(|| word(&request, "policyDocument"));
            if let Some(trust) = document.map(|d| trusted(d, account)) {
                detail.insert("public".into(), trust.public.into());
                detail.insert("conditional".into(), trust.conditional.into());
                detail.insert("foreign".into(), trust.foreign.into());
            }
            of_any(&request, &["roleName"])
        }
        StepKind::AddPermission | StepKind::LayerPermission => {
            let principal = word(&request, "principal").map(str::to_owned).or_else(|| statement_principal(&response));
            if let Some(principal) = principal {
                detail.insert("public".into(), (principal == "*").into());
                detail.insert("foreign".into(), foreign_account(&principal, account).into());
                detail.insert("principal".into(), principal.into());
            }
            if let Some(organization) = of_any(&request, &["principalOrgID", "principalOrgId", "organizationId"]) {
                detail.insert("organization".into(), organization.into());
            }
            if let Some(source) = of_any(&request, &["sourceArn", "sourceAccount", "eventSourceToken"]) {
                detail.insert("source".into(), source.into());
            }
            if kind == StepKind::LayerPermission {
                of_any(&request, &["layerName", "layerArn"])
            } else {
                function_target(&request, &response, call)
            }
        }
        StepKind::FunctionUrl => {
            if let Some(auth) = word(&request, "authType").or_else(|| word(&response, "authType")) {
                detail.insert("auth".into(), auth.into());
            }
            function_target(&request, &response, call)
        }
        StepKind::EventSource => {
            if let Some(source) = word(&request, "eventSourceArn") {
                detail.insert("source".into(), source.into());
            }
            function_target(&request, &response, call)
        }
        StepKind::CreateFunction
        | StepKind::UpdateCode
        | StepKind::UpdateConfiguration
        | StepKind::PublishVersion
        | StepKind::Alias
        | StepKind::DeleteFunction => {
            for (key, name) in [("codeSha256", "code_sha256"), ("version", "version"), ("runtime", "runtime")] {
                if let Some(text) = word(&response, key) {
                    detail.insert(name.into(), text.into());
                }
            }
            if let Some(role) = word(&request, "role") {
                detail.insert("role".into(), role.into());
            }
            // Memory and time-outs change nothing about what runs.
            let runs = ["handler", "runtime", "role", "layers", "environment", "imageConfig"].iter().any(|key| request.get(key).is_some());
            if kind == StepKind::UpdateConfiguration && runs {
                detail.insert("runs".into(), true.into());
            }
            if let Some(alias) = (kind == StepKind::Alias).then(|| word(&request, "name")).flatten() {
                detail.insert("alias".into(), alias.into());
            }
            let layers: Vec<String> = request.get("layers").map(strings).unwrap_or_default();
            if !layers.is_empty() {
                let foreign: Vec<&String> = layers.iter().filter(|l| foreign_account(l, account)).collect();
                if !foreign.is_empty() {
                    detail.insert("foreign_layers".into(), json!(foreign));
                }
                detail.insert("layers".into(), json!(layers));
            }
            function_target(&request, &response, call)
        }
        StepKind::PublishLayer => {
            if let Some(version) = word(&response, "layerVersionArn") {
                detail.insert("layer_version".into(), version.into());
            }
            of_any(&request, &["layerName"]).or_else(|| of_any(&response, &["layerArn"]))
        }
        StepKind::AssumeRole => None,
    };
    // A denied call often comes without its request; the error then names the resource.
    let target = target.or_else(|| call.error_message.as_deref().and_then(denied_resource).map(str::to_owned));
    let dry_run = request.get("dryRun").and_then(Value::as_bool) == Some(true);
    Step { kind, target, detail: (!detail.is_empty()).then(|| Value::Object(detail).to_string()), dry_run }
}

fn word<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str).filter(|t| !t.is_empty())
}

fn of_any(object: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| word(object, key)).map(str::to_owned)
}

fn truth(object: &Value, key: &str) -> bool {
    match object.get(key) {
        Some(Value::Bool(on)) => *on,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

/// A string, or the strings of an array.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(|v| v.as_str().or_else(|| word(v, "arn"))).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// `… on resource: user bob because …` of an AccessDenied message.
fn denied_resource(message: &str) -> Option<&str> {
    let rest = message.split_once("on resource: ")?.1;
    let end = rest.find(" because ").or_else(|| rest.find(" with an explicit")).unwrap_or(rest.len());
    let name = rest[..end].trim().trim_end_matches('.');
    let name = name.rsplit(['/', ' ']).next().unwrap_or(name);
    (!name.is_empty() && name != "*").then_some(name)
}

/// The function's ARN from a request or response that names it by name, partial or full ARN.
fn function_target(request: &Value, response: &Value, call: &ApiCall<'_>) -> Option<String> {
    if let Some(arn) = word(response, "functionArn").and_then(unqualified) {
        return Some(arn.to_owned());
    }
    let named = word(request, "functionName").or_else(|| word(request, "functionArn"))?;
    if let Some(arn) = unqualified(named) {
        return Some(arn.to_owned());
    }
    let (account, name) = match named.split_once(":function:") {
        Some((account, name)) => (account.rsplit(':').next().unwrap_or(account), name),
        None => (call.account()?, named),
    };
    let region = call.region.as_deref()?;
    let partition = if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    };
    let name = name.split(':').next().unwrap_or(name);
    Some(format!("arn:{partition}:lambda:{region}:{account}:function:{name}"))
}

/// How much a policy's name says: 2 an administrator policy of AWS, 1 a policy that calls itself admin, 0 neither.
fn admin_policy_name(arn: &str) -> u8 {
    let name = arn.rsplit('/').next().unwrap_or(arn);
    if arn.contains(":iam::aws:policy/") {
        return if matches!(name, "AdministratorAccess" | "IAMFullAccess") { 2 } else { 0 };
    }
    let lower = name.to_ascii_lowercase();
    if lower == "administratoraccess" { 2 } else { u8::from(lower.contains("admin")) }
}

/// A policy document as CloudTrail has it: JSON text, in some events percent-encoded.
fn document(text: &str) -> Option<Value> {
    let decoded;
    let text = if text.trim_start().starts_with('%') {
        decoded = percent_decoded(text);
        &decoded
    } else {
        text
    };
    serde_json::from_str(text).ok()
}

fn percent_decoded(text: &str) -> String {
    let hex = |b: u8| (b as char).to_digit(16);
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let pair = (bytes[at] == b'%').then(|| Some((hex(*bytes.get(at + 1)?)?, hex(*bytes.get(at + 2)?)?))).flatten();
        match pair {
            Some((high, low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn statements(document: &Value) -> Vec<&Value> {
    match document.get("Statement") {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(one @ Value::Object(_)) => vec![one],
        _ => Vec::new(),
    }
}

/// 2 if the document allows everything, or all of IAM, on every resource; 0 if not or unreadable.
fn admin_document(text: &str) -> u8 {
    let Some(document) = document(text) else { return 0 };
    let admin = statements(&document).iter().any(|s| {
        let all = |key: &str, wanted: &[&str]| {
            s.get(key).map(strings).unwrap_or_default().iter().any(|a| wanted.iter().any(|w| a.eq_ignore_ascii_case(w)))
        };
        word(s, "Effect") == Some("Allow")
            && (all("Action", &["*", "*:*", "iam:*"]) || s.get("NotAction").is_some())
            && all("Resource", &["*"])
    });
    if admin { 2 } else { 0 }
}

struct Trust {
    public: bool,
    conditional: bool,
    foreign: Vec<String>,
}

/// Whom a trust policy lets in that is not of `account`. Services and identity providers are not foreign accounts.
fn trusted(text: &str, account: &str) -> Trust {
    let mut trust = Trust { public: false, conditional: true, foreign: Vec::new() };
    let Some(document) = document(text) else { return trust };
    for statement in statements(&document) {
        if word(statement, "Effect") != Some("Allow") {
            continue;
        }
        let principals = match statement.get("Principal") {
            Some(Value::String(all)) => vec![all.clone()],
            Some(Value::Object(kinds)) => kinds.get("AWS").map(strings).unwrap_or_default(),
            _ => Vec::new(),
        };
        let free = statement.get("Condition").and_then(Value::as_object).is_none_or(Map::is_empty);
        for principal in principals {
            if principal == "*" {
                trust.public = true;
            } else if !foreign_account(&principal, account) {
                continue;
            }
            trust.conditional &= !free;
            trust.foreign.push(principal);
        }
    }
    trust.conditional &= !trust.foreign.is_empty();
    trust.foreign.sort();
    trust.foreign.dedup();
    trust
}

/// True for an account id or ARN of another account than `own`. Services (`s3.amazonaws.com`) are nobody's account.
fn foreign_account(principal: &str, own: &str) -> bool {
    let account = if principal.starts_with("arn:") { principal.split(':').nth(4).unwrap_or("") } else { principal };
    account.len() == 12 && account.bytes().all(|c| c.is_ascii_digit()) && !own.is_empty() && account != own
}

/// The principal of `responseElements.statement`, a JSON text inside JSON.
fn statement_principal(response: &Value) -> Option<String> {
    let statement: Value = serde_json::from_str(word(response, "statement")?).ok()?;
    match statement.get("Principal")? {
        Value::String(all) => Some(all.clone()),
        Value::Object(kinds) => kinds.get("AWS").map(strings).and_then(|s| s.into_iter().next()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use flowtrail_ingest::Identity;

    fn call<'a>(source: &'a str, name: &'a str, request: &'a str) -> ApiCall<'a> {
        ApiCall {
            event_source: source.into(),
            event_name: name.into(),
            region: Some("eu-west-1".into()),
            recipient_account: Some("111122223333".into()),
            request: Some(request.as_bytes()),
            identity: Identity { kind: Some("IAMUser".into()), user_name: Some("alice".into()), ..Identity::default() },
            ..ApiCall::default()
        }
    }

    #[test]
    fn steps_carry_target_and_detail() {
        for (source, name, request, kind, target, detail) in [
            (
                "iam.amazonaws.com",
                "AttachUserPolicy",
                r#"{"policyArn":"arn:aws:iam::aws:policy/AdministratorAccess","userName":"eve"}"#,
                "attach_policy",
                "eve",
                r#""admin":2"#,
            ),
            (
                "iam.amazonaws.com",
                "AttachRolePolicy",
                r#"{"policyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess","roleName":"r"}"#,
                "attach_policy",
                "r",
                r#""admin":0"#,
            ),
            (
                "iam.amazonaws.com",
                "PutRolePolicy",
                r#"{"roleName":"r","policyName":"p","policyDocument":"{\"Statement\":{\"Effect\":\"Allow\",\"Action\":[\"*\"],\"Resource\":\"*\"}}"}"#,
                "put_policy",
                "r",
                r#""admin":2"#,
            ),
            ("iam.amazonaws.com", "CreateAccessKey", r#"{"userName":"bob"}"#, "access_key", "bob", r#""self":false"#),
            ("iam.amazonaws.com", "CreateAccessKey", r#"{"userName":"alice"}"#, "access_key", "alice", r#""self":true"#),
            ("iam.amazonaws.com", "CreateAccessKey", "{}", "access_key", "alice", r#""self":true"#),
            (
                "iam.amazonaws.com",
                "UpdateAssumeRolePolicy",
                r#"{"roleName":"r","policyDocument":"%7B%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Principal%22%3A%7B%22AWS%22%3A%22arn%3Aaws%3Aiam%3A%3A999988887777%3Aroot%22%7D%7D%5D%7D"}"#,
                "update_trust",
                "r",
                r#""foreign":["arn:aws:iam::999988887777:root"]"#,
            ),
            (
                "iam.amazonaws.com",
                "CreateRole",
                r#"{"roleName":"r","assumeRolePolicyDocument":"{\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":{\"Service\":\"lambda.amazonaws.com\"}}]}"}"#,
                "create_role",
                "r",
                r#""foreign":[]"#,
            ),
            (
                "lambda.amazonaws.com",
                "AddPermission20150331v2",
                r#"{"functionName":"f:live","principal":"*","action":"lambda:InvokeFunction"}"#,
                "add_permission",
                "arn:aws:lambda:eu-west-1:111122223333:function:f",
                r#""public":true"#,
            ),
            (
                "lambda.amazonaws.com",
                "AddPermission20150331v2",
                r#"{"functionName":"444455556666:function:f","principal":"999988887777"}"#,
                "add_permission",
                "arn:aws:lambda:eu-west-1:444455556666:function:f",
                r#""foreign":true"#,
            ),
            (
                "lambda.amazonaws.com",
                "UpdateFunctionConfiguration20150331v2",
                r#"{"functionName":"f","layers":["arn:aws:lambda:eu-west-1:999988887777:layer:x:1"]}"#,
                "update_configuration",
                "arn:aws:lambda:eu-west-1:111122223333:function:f",
                "foreign_layers",
            ),
            (
                "sts.amazonaws.com",
                "AssumeRole",
                r#"{"roleSessionName":"s","roleArn": "arn:aws:iam::1:role/r"}"#,
                "assume_role",
                "arn:aws:iam::1:role/r",
                "",
            ),
        ] {
            let step = step_of(&call(source, name, request)).unwrap();
            assert_eq!(step.kind.as_str(), kind, "{name}");
            assert_eq!(StepKind::parse(kind), Some(step.kind));
            assert_eq!(step.target.as_deref(), Some(target), "{name}");
            assert!(step.detail.as_deref().unwrap_or("").contains(detail), "{name}: {:?}", step.detail);
        }
    }

    #[test]
    fn other_calls_are_no_steps_and_odd_ones_survive() {
        assert_eq!(step_of(&call("s3.amazonaws.com", "GetObject", "{}")), None);
        assert_eq!(step_of(&call("sts.amazonaws.com", "AssumeRole", r#"{"roleArn":7}"#)), None);
        for request in ["", "[]", "{\"userName\":7}", "{\"userName\":", "{\"omitted\":true}", "null"] {
            let step = step_of(&call("iam.amazonaws.com", "AttachUserPolicy", request)).unwrap();
            assert_eq!((step.target, step.dry_run), (None, false), "{request}");
        }
        let mut denied = call("iam.amazonaws.com", "CreateAccessKey", "");
        denied.error_code = Some("AccessDenied".into());
        denied.error_message = Some("User: arn:aws:iam::1:user/alice is not authorized to perform: iam:CreateAccessKey on resource: user bob because no identity-based policy".into());
        let step = step_of(&denied).unwrap();
        assert_eq!(step.target.as_deref(), Some("bob"));
        assert!(step.detail.unwrap().contains(r#""self":false"#));
        assert!(
            step_of(&call("lambda.amazonaws.com", "UpdateFunctionCode20150331v2", r#"{"functionName":"f","dryRun":true}"#))
                .unwrap()
                .dry_run
        );
    }
}
