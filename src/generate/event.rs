//! CloudTrail records as AWS writes them: who called, what, from where, and what came back.

use flowtrail_ingest::EventTime;
use serde_json::{Map, Value, json};

use super::archetype::Action;
use super::flow::dotted;
use super::rng::Rng;
use super::world::{Account, Function, World};

/// One API call, before it becomes JSON.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: i64,
    pub(crate) account: usize,
    pub(crate) region: &'static str,
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) identity: Value,
    pub(crate) source: String,
    pub(crate) agent: String,
    pub(crate) request: Value,
    pub(crate) response: Value,
    pub(crate) read_only: bool,
    pub(crate) error: Option<(&'static str, String)>,
    /// Data event, with these additional members.
    pub(crate) data: Option<Map<String, Value>>,
}

/// Agents of the people and machines that look after the accounts.
const CONSOLE_AGENT: &str = "aws-cli/2.22.7 md/awscrt#0.23.4 ua/2.0 os/linux#6.8 md/arch#x86_64 lang/python#3.12.6";
const TERRAFORM_AGENT: &str = "APN/1.0 HashiCorp/1.0 Terraform/1.9.8 terraform-provider-aws/5.80.0 aws-sdk-go-v2/1.32.5";
const MONITOR_AGENT: &str = "Boto3/1.35.71 md/Botocore#1.35.71 ua/2.0 os/linux#6.1 lang/python#3.11.9";

impl Event {
    /// A call by one of the account's users, from the office.
    pub(crate) fn by_user(world: &World, account: usize, user: usize, at: i64) -> Self {
        let owner = &world.accounts[account];
        let (name, id) = &owner.users[user];
        let identity = json!({
            "type": "IAMUser", "principalId": id, "arn": format!("arn:aws:iam::{}:user/{name}", owner.id), "accountId": owner.id,
            "accessKeyId": access_key(world, "AKIA", &[50, account as u64, user as u64]), "userName": name,
        });
        Self::new(account, at, identity, &format!("198.18.255.{}", 10 + user), CONSOLE_AGENT)
    }

    /// A call by the pipeline that deploys.
    pub(crate) fn by_pipeline(world: &World, account: usize, at: i64) -> Self {
        let owner = &world.accounts[account];
        let identity = role_session(world, owner, "ci-deploy", &owner.ci_role_id, &format!("run-{}", at / 3600), at);
        Self::new(account, at, identity, "198.18.255.40", TERRAFORM_AGENT)
    }

    /// A call by what watches the account.
    pub(crate) fn by_monitor(world: &World, account: usize, at: i64) -> Self {
        let owner = &world.accounts[account];
        let identity = role_session(world, owner, "monitoring", &owner.monitor_role_id, "inventory", at);
        Self::new(account, at, identity, "198.18.255.41", MONITOR_AGENT)
    }

    /// A call by a function's code.
    pub(crate) fn by_function(world: &World, function: usize, at: i64) -> Self {
        let subject = &world.functions[function];
        let owner = world.account_of(subject.site);
        let mut identity = function_session(world, owner, function, &subject.name, at);
        identity["inScopeOf"] = json!({
            "issuerType": "AWS::Lambda::Function", "credentialsIssuedTo": subject.arn,
            "credentialsIssuedToVersion": format!("{}:$LATEST", subject.arn),
        });
        let agent = format!("Boto3/1.35.71 md/Botocore#1.35.71 exec-env/AWS_Lambda_{} lang/python#3.12.6", subject.runtime);
        Self::new(world.sites[subject.site].account, at, identity, &outside_address(world, subject), &agent)
    }

    /// A call that the Lambda service makes with a function's role.
    pub(crate) fn by_lambda_with_role(world: &World, function: usize, session: &str, at: i64) -> Self {
        let subject = &world.functions[function];
        let owner = world.account_of(subject.site);
        let identity = function_session(world, owner, function, session, at);
        let agent = "awslambda-worker/1.0 rusoto/0.48.0 rust/1.82.0 linux";
        Self::new(world.sites[subject.site].account, at, identity, &outside_address(world, subject), agent)
    }

    /// A call by an AWS service itself.
    pub(crate) fn by_service(account: usize, service: &str, at: i64) -> Self {
        Self::new(account, at, json!({"type": "AWSService", "invokedBy": service}), service, service)
    }

    fn new(account: usize, at: i64, identity: Value, source: &str, agent: &str) -> Self {
        Self {
            at,
            account,
            region: "us-east-1",
            service: String::new(),
            name: String::new(),
            identity,
            source: source.to_owned(),
            agent: agent.to_owned(),
            request: Value::Null,
            response: Value::Null,
            read_only: true,
            error: None,
            data: None,
        }
    }

    /// What is called; `region` does not count for global services.
    pub(crate) fn calls(mut self, region: &'static str, action: Action) -> Self {
        self.region = if action.global() { "us-east-1" } else { region };
        self.service = action.service.to_owned();
        self.name = action.name.to_owned();
        self.read_only = action.read_only;
        self
    }

    /// A call that changes something, with its request and response.
    pub(crate) fn changes(self, region: &'static str, service: &'static str, name: &'static str, request: Value, response: Value) -> Self {
        let mut event = self.calls(region, Action { service, name, read_only: false });
        (event.request, event.response) = (request, response);
        event
    }

    pub(crate) fn denied(mut self, principal: &str) -> Self {
        let base = self.name.split("2015").next().unwrap_or(&self.name);
        let message = format!("User: {principal} is not authorized to perform: {}:{base}", self.service);
        self.error = Some(("AccessDenied", message));
        self.response = Value::Null;
        self
    }

    pub(crate) fn json(&self, world: &World, rng: &mut Rng) -> Value {
        let account = &world.accounts[self.account].id;
        let scoped = self.identity.get("inScopeOf").is_some();
        let mut record = Map::new();
        let mut put = |name: &str, value: Value| {
            record.insert(name.to_owned(), value);
        };
        put("eventVersion", json!(if scoped { "1.11" } else { "1.10" }));
        put("userIdentity", self.identity.clone());
        put("eventTime", json!(EventTime(self.at).to_string()));
        put("eventSource", json!(format!("{}.amazonaws.com", self.service)));
        put("eventName", json!(self.name));
        put("awsRegion", json!(self.region));
        put("sourceIPAddress", json!(self.source));
        put("userAgent", json!(self.agent));
        if let Some((code, message)) = &self.error {
            put("errorCode", json!(code));
            put("errorMessage", json!(message));
        }
        put("requestParameters", self.request.clone());
        put("responseElements", self.response.clone());
        put("requestID", json!(rng.uuid()));
        put("eventID", json!(rng.uuid()));
        put("readOnly", json!(self.read_only));
        put("eventType", json!("AwsApiCall"));
        put("managementEvent", json!(self.data.is_none()));
        put("recipientAccountId", json!(account));
        put("eventCategory", json!(if self.data.is_none() { "Management" } else { "Data" }));
        for (name, value) in self.data.iter().flatten() {
            put(name, value.clone());
        }
        Value::Object(record)
    }
}

fn role_session(world: &World, owner: &Account, role: &str, role_id: &str, session: &str, at: i64) -> Value {
    // Credentials last an hour.
    let issued = at - at.rem_euclid(3600);
    let tag = role_id.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    session_identity(owner, role, role_id, session, issued, &access_key(world, "ASIA", &[51, tag, issued as u64]))
}

fn function_session(world: &World, owner: &Account, function: usize, session: &str, at: i64) -> Value {
    let subject = &world.functions[function];
    // Lambda renews a function's credentials every few hours.
    let issued = at - at.rem_euclid(4 * 3600);
    let key = function_key(world, function, at);
    session_identity(owner, &subject.role, &subject.role_id, session, issued, &key)
}

/// The access key that a function's code has at a time.
pub(crate) fn function_key(world: &World, function: usize, at: i64) -> String {
    access_key(world, "ASIA", &[52, function as u64, at.div_euclid(4 * 3600) as u64])
}

pub(crate) fn access_key(world: &World, prefix: &str, tags: &[u64]) -> String {
    format!("{prefix}{}", Rng::new(world.seed, tags).base32(16))
}

fn session_identity(owner: &Account, role: &str, role_id: &str, session: &str, issued: i64, key: &str) -> Value {
    json!({
        "type": "AssumedRole", "principalId": format!("{role_id}:{session}"),
        "arn": format!("arn:aws:sts::{}:assumed-role/{role}/{session}", owner.id), "accountId": owner.id, "accessKeyId": key,
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role", "principalId": role_id, "arn": format!("arn:aws:iam::{}:role/{role}", owner.id), "accountId": owner.id,
                "userName": role,
            },
            "attributes": {"creationDate": EventTime(issued).to_string(), "mfaAuthenticated": "false"},
        },
    })
}

/// What API calls of a function's code come from: its network's NAT gateway, or Lambda's own addresses.
fn outside_address(world: &World, function: &Function) -> String {
    match function.home {
        Some((vpc, _)) => dotted(world.vpcs[vpc].nat_public),
        None => format!("198.18.200.{}", 10 + function.phase),
    }
}
