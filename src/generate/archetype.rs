//! What kinds of functions there are, when they run and what they talk to.

use super::rng::Rng;

/// A function's way of life.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Archetype {
    /// Behind an API: follows people's day.
    Api,
    /// Every few minutes, always.
    Cron,
    /// Works off a queue: people's day, in bursts.
    Queue,
    /// Loads data at night.
    Etl,
    /// Called by partners, few at a time.
    Webhook,
    /// Once a week for some hours.
    Batch,
    /// Hardly ever.
    Idle,
}

/// Share of the daily peak by UTC hour, for what follows people.
const PEOPLE: [u8; 24] = [2, 2, 1, 1, 1, 2, 4, 7, 11, 14, 15, 15, 14, 14, 15, 15, 14, 12, 10, 8, 7, 6, 4, 3];

impl Archetype {
    /// Those that run often enough to be known well after two weeks.
    pub(crate) const STEADY: [Self; 4] = [Self::Api, Self::Cron, Self::Queue, Self::Webhook];
    /// Those that run every day.
    pub(crate) const DAILY: [Self; 5] = [Self::Api, Self::Cron, Self::Queue, Self::Webhook, Self::Etl];
    pub(crate) const ALL: [Self; 7] = [Self::Api, Self::Cron, Self::Queue, Self::Etl, Self::Webhook, Self::Batch, Self::Idle];

    /// Connections in the hour that begins `hour` hours after Monday 00:00 UTC (any week), before chance; 0 when it does not run.
    /// `phase` (0 to 23) shifts what does not follow people's day, so that two functions are not twins.
    pub(crate) fn connections(self, hour: i64, phase: u8, rng: &mut Rng) -> f64 {
        let (of_day, day) = (hour.rem_euclid(24), hour.div_euclid(24).rem_euclid(7));
        let shifted = (of_day + i64::from(phase)).rem_euclid(24);
        let people = f64::from(PEOPLE[of_day as usize]) / 10.0 * if day >= 5 { 0.4 } else { 1.0 };
        match self {
            Self::Api => 9.0 * people,
            Self::Cron => 4.0,
            Self::Queue => 7.0 * people.max(0.2) * if rng.chance(0.05) { 3.0 } else { 1.0 },
            Self::Etl => {
                if (1..4).contains(&shifted) {
                    16.0
                } else {
                    0.0
                }
            }
            Self::Webhook => 2.0 + 2.0 * people,
            Self::Batch => {
                if day == i64::from(phase) % 7 && (2..6).contains(&shifted) {
                    24.0
                } else {
                    0.0
                }
            }
            Self::Idle => {
                if rng.chance(0.01) {
                    2.0
                } else {
                    0.0
                }
            }
        }
    }

    /// Words for the second half of a function's name.
    pub(crate) fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Api => &["api", "gateway", "lookup", "query"],
            Self::Cron => &["poller", "cleanup", "sync", "refresh"],
            Self::Queue => &["worker", "consumer", "dispatch", "handler"],
            Self::Etl => &["loader", "etl", "transform", "export"],
            Self::Webhook => &["webhook", "notify", "callback", "hook"],
            Self::Batch => &["batch", "report", "archive", "settle"],
            Self::Idle => &["repair", "migrate", "admin", "backfill"],
        }
    }
}

/// First halves of function names.
pub(crate) const SUBJECTS: [&str; 24] = [
    "orders", "billing", "stock", "users", "search", "media", "audit", "mail", "pricing", "returns", "carts", "claims", "ledger", "tax",
    "routes", "fleet", "leads", "coupons", "reviews", "sessions", "tickets", "quotes", "parcels", "alerts",
];

/// An API action as CloudTrail names it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) read_only: bool,
}

const fn read(service: &'static str, name: &'static str) -> Action {
    Action { service, name, read_only: true }
}
const fn write(service: &'static str, name: &'static str) -> Action {
    Action { service, name, read_only: false }
}

/// What functions call in everyday life.
pub(crate) const EVERYDAY: [Action; 16] = [
    read("dynamodb", "DescribeTable"),
    read("sqs", "GetQueueAttributes"),
    read("kms", "Decrypt"),
    read("sts", "GetCallerIdentity"),
    read("s3", "GetBucketLocation"),
    read("glue", "GetTable"),
    read("monitoring", "DescribeAlarms"),
    read("states", "DescribeExecution"),
    read("events", "ListRules"),
    read("ecs", "DescribeServices"),
    write("sns", "Publish"),
    write("states", "StartExecution"),
    write("athena", "StartQueryExecution"),
    write("kms", "GenerateDataKey"),
    write("ses", "SendEmail"),
    write("events", "PutEvents"),
];

/// Read actions of somebody who looks around.
pub(crate) const LOOKING_AROUND: [Action; 16] = [
    read("s3", "ListBuckets"),
    read("ec2", "DescribeInstances"),
    read("ec2", "DescribeSecurityGroups"),
    read("ec2", "DescribeVpcs"),
    read("ec2", "DescribeSnapshots"),
    read("rds", "DescribeDBInstances"),
    read("rds", "DescribeDBSnapshots"),
    read("lambda", "ListFunctions20150331"),
    read("secretsmanager", "ListSecrets"),
    read("kms", "ListKeys"),
    read("organizations", "DescribeOrganization"),
    read("ecr", "DescribeRepositories"),
    read("cloudtrail", "DescribeTrails"),
    read("iam", "ListUsers"),
    read("iam", "ListRoles"),
    read("iam", "GetAccountAuthorizationDetails"),
];

/// Actions that no function of ours calls in everyday life and that matter when one does.
pub(crate) const SENSITIVE: [Action; 6] = [
    read("secretsmanager", "GetSecretValue"),
    read("ssm", "GetParametersByPath"),
    write("iam", "CreateUser"),
    write("kms", "ScheduleKeyDeletion"),
    write("cloudtrail", "StopLogging"),
    write("lambda", "UpdateFunctionConfiguration20150331v2"),
];

impl Action {
    /// IAM and Organizations are recorded in us-east-1, whatever the caller's region.
    pub(crate) fn global(self) -> bool {
        matches!(self.service, "iam" | "organizations")
    }

    /// The name without the date suffix of Lambda's actions.
    pub(crate) fn base_name(self) -> &'static str {
        self.name.split("2015").next().unwrap_or(self.name)
    }
}
