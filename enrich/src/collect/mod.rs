//! Snapshots of interfaces and functions of every configured account and region, in the AWS CLI's own shape, so that
//! [`crate::facts_of_file`] reads them like anything else.
//!
//! A snapshot proves absence too, so it is written only when it is complete; what fails is told for its account and
//! region, and the rest goes on.

mod pages;
mod shape;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ec2::error::ProvideErrorMetadata;
use flowtrail_ingest::source::aws::{self, AwsOptions, NoCredentials};
use flowtrail_ingest::{EventTime, escaped};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use crate::arn::{account_of, partition_of};

/// What to collect, and as whom.
#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// Accounts. Empty and no `organization`: the account of the credentials.
    pub accounts: Vec<String>,
    /// All active accounts of the organisation as well.
    pub organization: bool,
    /// Regions. Empty: the region of the configuration.
    pub regions: Vec<String>,
    /// Name or ARN of the role to assume in each account; an ARN's account is replaced. The account of the credentials is
    /// read with them as they are. `None`: every account is read with the credentials as they are.
    pub role: Option<String>,
    /// The external id that the role asks for.
    pub external_id: Option<String>,
    /// Another endpoint for all services, for tests and compatible ones.
    pub endpoint_url: Option<String>,
    /// Region for STS and Organizations, and for `regions` when that is empty. `None`: the first of `regions`, else the
    /// environment's.
    pub region: Option<String>,
    /// Date of the snapshots. Taken before anything is asked, so that what they show held from then on.
    pub taken_at: EventTime,
    /// How many (account, region) pairs are asked at once.
    pub parallel: usize,
    /// How often a call is tried when AWS throttles or fails, with back-off and jitter.
    pub attempts: u32,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            organization: false,
            regions: Vec::new(),
            role: None,
            external_id: None,
            endpoint_url: None,
            region: None,
            taken_at: EventTime(0),
            parallel: 8,
            attempts: 8,
        }
    }
}

/// What was collected and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Snapshots handed out.
    pub snapshots: u64,
    /// Interfaces in them.
    pub interfaces: u64,
    /// Functions and published versions in them.
    pub functions: u64,
    /// What could not be read, sorted.
    pub failures: Vec<CollectFailure>,
}

/// One snapshot that is missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CollectFailure {
    /// Account.
    pub account: String,
    /// Region.
    pub region: String,
    /// `role`, `interfaces` or `functions`.
    pub what: &'static str,
    /// What AWS said.
    pub reason: String,
}

/// Why nothing, or nothing more, can be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// There are no credentials.
    #[error(transparent)]
    Credentials(#[from] NoCredentials),
    /// The credentials are refused.
    #[error("caller's identity cannot be read: {0}")]
    Identity(String),
    /// The organisation's accounts cannot be listed.
    #[error("organisation's accounts cannot be listed: {0}")]
    Organization(String),
    /// A snapshot could not be written.
    #[error("snapshot {name} cannot be written: {error}")]
    Write {
        /// Its name.
        name: String,
        /// Why.
        error: std::io::Error,
    },
}

/// One (account, region) to be asked.
#[derive(Clone)]
struct Place {
    account: String,
    region: String,
    /// `None`: the credentials as they are.
    role: Option<Arc<Role>>,
}

/// A role, assumed when the first of its account's regions is asked.
struct Role {
    arn: String,
    external_id: Option<String>,
    credentials: OnceCell<Result<Credentials, String>>,
}

/// A finished snapshot or what went wrong.
type Taken = Result<(Vec<u8>, String, &'static str, u64), CollectFailure>;

/// Collects a snapshot of interfaces and one of functions for every account and region, and hands each to `out` with a
/// name like `111122223333_eu-west-1_20260105T100000Z_eni.json`, as they are finished.
///
/// # Errors
/// When nothing can be asked at all, or `out` fails. What fails for one account or region is in the report.
pub async fn collect(
    options: &CollectOptions,
    out: &mut (dyn FnMut(&str, &[u8]) -> std::io::Result<()> + Send),
) -> Result<CollectReport, CollectError> {
    let base = configuration(options).await?;
    let home = base.region().map(ToString::to_string).unwrap_or_default();
    let places = places(options, &base, &home).await?;
    let gate = Arc::new(Semaphore::new(options.parallel.max(1)));
    let mut tasks: JoinSet<Vec<Taken>> = JoinSet::new();
    for place in places {
        let (base, gate, taken_at) = (base.clone(), gate.clone(), options.taken_at);
        tasks.spawn(async move {
            // The gate is never closed.
            let _turn = gate.acquire_owned().await;
            snapshots(&base, &place, taken_at).await
        });
    }
    let mut report = CollectReport::default();
    while let Some(done) = tasks.join_next().await {
        let taken = match done {
            Ok(taken) => taken,
            // A task is never cancelled here: it can only have broken an invariant, and that is no partial failure.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        for one in taken {
            match one {
                Ok((bytes, name, what, count)) => {
                    out(&name, &bytes).map_err(|error| CollectError::Write { name, error })?;
                    report.snapshots += 1;
                    *(if what == "interfaces" { &mut report.interfaces } else { &mut report.functions }) += count;
                }
                Err(failure) => report.failures.push(failure),
            }
        }
    }
    report.failures.sort();
    Ok(report)
}

async fn configuration(options: &CollectOptions) -> Result<SdkConfig, CollectError> {
    let region = options.region.clone().or_else(|| options.regions.first().cloned());
    let base = aws::config(&AwsOptions { region, endpoint_url: options.endpoint_url.clone() }).await?;
    Ok(base.into_builder().retry_config(retries(options.attempts)).build())
}

/// The SDK's standard retries: throttling (RequestLimitExceeded, TooManyRequestsException, …), time-outs and 5xx, with
/// exponential back-off and full jitter.
fn retries(attempts: u32) -> RetryConfig {
    RetryConfig::standard().with_max_attempts(attempts.max(1)).with_max_backoff(Duration::from_secs(20))
}

/// Every account and region to ask, sorted.
async fn places(options: &CollectOptions, base: &SdkConfig, home: &str) -> Result<Vec<Place>, CollectError> {
    let mut accounts = options.accounts.clone();
    let mut own = None;
    if options.organization || options.role.is_some() || accounts.is_empty() {
        let caller = aws_sdk_sts::Client::new(base).get_caller_identity().send().await;
        let caller = caller.map_err(|e| CollectError::Identity(reason(&e)))?;
        own = caller.account().map(str::to_owned).or_else(|| caller.arn().and_then(account_of).map(str::to_owned));
    }
    if options.organization {
        accounts.extend(pages::accounts(&aws_sdk_organizations::Client::new(base)).await.map_err(CollectError::Organization)?);
    }
    if accounts.is_empty() {
        accounts.extend(own.clone());
    }
    accounts.sort();
    accounts.dedup();
    let mut regions = if options.regions.is_empty() { vec![home.to_owned()] } else { options.regions.clone() };
    regions.sort();
    regions.dedup();
    let mut places = Vec::new();
    for account in accounts {
        let role = options.role.as_deref().filter(|_| own.as_deref() != Some(&account)).map(|role| {
            let arn = role_arn(role, &account, home);
            Arc::new(Role { arn, external_id: options.external_id.clone(), credentials: OnceCell::new() })
        });
        places.extend(regions.iter().map(|region| Place { account: account.clone(), region: region.clone(), role: role.clone() }));
    }
    Ok(places)
}

/// The ARN of a role, given by name, path and name, or ARN, in `account`.
fn role_arn(role: &str, account: &str, region: &str) -> String {
    if role.starts_with("arn:") {
        let mut parts: Vec<&str> = role.splitn(6, ':').collect();
        if let Some(part) = parts.get_mut(4) {
            *part = account;
        }
        return parts.join(":");
    }
    let name = role.trim_start_matches('/');
    format!("arn:{}:iam::{account}:role/{name}", partition_of(region))
}

/// The configuration to ask a place with.
async fn configured(base: &SdkConfig, place: &Place) -> Result<SdkConfig, String> {
    let builder = base.to_builder().region(Region::new(place.region.clone()));
    let Some(role) = &place.role else { return Ok(builder.build()) };
    let credentials = role
        .credentials
        .get_or_init(|| async {
            let mut assume = AssumeRoleProvider::builder(&role.arn).session_name("flowtrail-collect").configure(base);
            if let Some(id) = &role.external_id {
                assume = assume.external_id(id);
            }
            assume.build().await.provide_credentials().await.map_err(|e| causes(&e))
        })
        .await;
    Ok(builder.credentials_provider(SharedCredentialsProvider::new(credentials.clone()?)).build())
}

async fn snapshots(base: &SdkConfig, place: &Place, taken_at: EventTime) -> Vec<Taken> {
    let failure = |what, reason| CollectFailure { account: place.account.clone(), region: place.region.clone(), what, reason };
    let config = match configured(base, place).await {
        Ok(config) => config,
        Err(reason) => return vec![Err(failure("role", reason))],
    };
    let (ec2, lambda) = (aws_sdk_ec2::Client::new(&config), aws_sdk_lambda::Client::new(&config));
    let (interfaces, functions) = tokio::join!(pages::interfaces(&ec2), pages::functions(&lambda));
    let taken = |what, member: &str, file: &str, list: Result<Vec<Value>, String>| {
        let list = list.map_err(|reason| failure(what, reason))?;
        let count = list.len() as u64;
        Ok((snapshot(place, taken_at, member, list), file_name(place, taken_at, file), what, count))
    };
    vec![taken("interfaces", "NetworkInterfaces", "eni", interfaces), taken("functions", "Functions", "functions", functions)]
}

fn snapshot(place: &Place, taken_at: EventTime, member: &str, list: Vec<Value>) -> Vec<u8> {
    let mut snapshot = json!({
        "flowtrail_snapshot": 1, "account_id": place.account, "region": place.region, "taken_at": taken_at.to_string(),
    });
    snapshot[member] = Value::Array(list);
    snapshot.to_string().into_bytes()
}

fn file_name(place: &Place, taken_at: EventTime, what: &str) -> String {
    let time: String = taken_at.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    // Both come from the configuration or from AWS, and go into a path.
    let safe = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-");
    format!("{}_{}_{time}_{what}.json", safe(&place.account), safe(&place.region))
}

/// What AWS said, safe to print: its code and message, else the chain of causes.
fn reason<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &E) -> String {
    match (error.code(), error.message()) {
        (Some(code), message) => escaped(format!("{code}: {}", message.unwrap_or("no message")).as_bytes()),
        (None, _) => causes(error),
    }
}

/// An error and its causes in a line, without the debugging text that some of them print.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string);
    escaped(chain.collect::<Vec<_>>().join(": ").as_bytes())
}
