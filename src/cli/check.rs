//! `flowtrail check`: reads the configuration, tries each source and target, says what it may do and what it needs.

use std::path::Path;

use flowtrail_ingest::source::folder;
use flowtrail_sink::{StoreOptions, store};
use serde_json::{Value, json};

use super::{ConfigArg, Failure};
use crate::config::{Config, SourceConfig};
use crate::input::Place;
use crate::setup::Setup;

/// Written, read and deleted again where tables and state go.
const PROBE: &str = ".flowtrail-check";

/// Runs it. Exit 1 when something cannot be reached, 2 when the configuration is wrong.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &ConfigArg) -> Result<i32, Failure> {
    let config = Config::load(&args.config)?;
    let mut trials = Trials::default();
    let state = state_location(&config);
    for (what, location) in [("output", config.output.location.clone()), ("state", state)] {
        match location {
            Some(location) => trials.try_target(what, &location, &config),
            None => return Err(Failure::Usage(format!("no place for the {what}: give location under [output]"))),
        }
    }
    for source in &config.source {
        trials.try_source(source, &config);
    }
    if config.source.is_empty() {
        println!("no [[source]]: replay names its inputs itself, run needs at least one");
    }
    for list in &config.list {
        trials.try_file(&format!("list {}", list.name), &list.file);
    }
    if let Some(file) = &config.enrich.ip_ranges {
        trials.try_file("ip_ranges", file);
    }
    for folder in &config.rules.folders {
        trials.say(&format!("rules {}", folder.display()), Err("Sigma rules are not evaluated yet: leave [rules] out".to_owned()));
    }
    if trials.failed == 0 {
        // Lists that parse, networks that are ranges: what only opening them says.
        trials.say("lists and names", Setup::open(&config, None, &[], &[]).map(|_| "understood".to_owned()).map_err(|e| words(&e)));
    }
    say_collect(&config);
    println!("\nthe least IAM policy for what is configured here:");
    println!("{}", serde_json::to_string_pretty(&policy(&config)).unwrap_or_default());
    if let Some(member) = member_policy(&config) {
        println!(
            "\n… and for the role {} in every account that is collected:",
            config.collect.role.as_deref().unwrap_or("of the credentials")
        );
        println!("{}", serde_json::to_string_pretty(&member).unwrap_or_default());
    }
    Ok(i32::from(trials.failed > 0))
}

fn words(failure: &Failure) -> String {
    match failure {
        Failure::Work(message) | Failure::Usage(message) => message.clone(),
    }
}

/// Where state lies: as named, else below the output.
fn state_location(config: &Config) -> Option<String> {
    let below = || config.output.location.as_ref().map(|l| format!("{}/.state", l.trim_end_matches('/')));
    config.state.location.clone().or_else(below)
}

#[derive(Default)]
struct Trials {
    failed: usize,
}

impl Trials {
    fn say(&mut self, what: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(may) => println!("ok      {what}: {may}"),
            Err(why) => {
                self.failed += 1;
                println!("FAILED  {what}: {why}");
            }
        }
    }

    fn try_target(&mut self, what: &str, location: &str, config: &Config) {
        let options = StoreOptions { region: config.aws.region.clone(), endpoint_url: config.aws.endpoint_url.clone() };
        let probe = || -> Result<String, String> {
            let store = store::open(location, &options).map_err(|e| e.to_string())?;
            let step = |verb: &str, e: &dyn std::fmt::Display| format!("may not {verb}: {e}");
            store.put(PROBE, b"flowtrail check").map_err(|e| step("write", &e))?;
            let back = store.get(PROBE).map_err(|e| step("read", &e))?;
            store.list(PROBE).map_err(|e| step("list", &e))?;
            store.delete(PROBE).map_err(|e| step("delete", &e))?;
            match back.as_deref() {
                Some(b"flowtrail check") => Ok(format!("may write, read, list and delete ({})", store.describe())),
                _ => Err(format!("what was written to {} does not come back", store.describe())),
            }
        };
        self.say(what, probe());
    }

    fn try_source(&mut self, source: &SourceConfig, config: &Config) {
        match source {
            SourceConfig::Folder { location, .. } => self.say(&format!("source {}", location.display()), try_folder(location)),
            SourceConfig::S3 { location, .. } => self.say(&format!("source {location}"), try_s3(location, config)),
            SourceConfig::Kafka { brokers, topics, .. } => {
                let what = format!("source kafka {} {}", brokers.join(","), topics.join(","));
                self.say(&what, try_kafka(source, config));
            }
            SourceConfig::Sqs { queue_url } => {
                self.say(&format!("source {queue_url}"), Err("notifications through SQS are not read yet; list the bucket".to_owned()));
            }
        }
    }

    fn try_file(&mut self, what: &str, path: &Path) {
        let read = std::fs::read(path).map(|b| format!("may read {} ({} bytes)", path.display(), b.len()));
        self.say(what, read.map_err(|e| format!("cannot read {}: {e}", path.display())));
    }
}

fn try_folder(location: &Path) -> Result<String, String> {
    std::fs::read_dir(location).map_err(|e| format!("cannot be listed: {e}"))?;
    let walk = folder::walk(&[location]);
    if let Some(problem) = walk.problems.first() {
        return Err(format!("{}: {} ({} such)", problem.path, problem.reason, walk.problems.len()));
    }
    match walk.objects.first() {
        None => Ok("may list; it is empty".to_owned()),
        Some(object) => {
            std::fs::File::open(&object.key).map_err(|e| format!("may list, but not read {}: {e}", object.key))?;
            Ok(format!("may list and read; {} files", walk.objects.len()))
        }
    }
}

#[cfg(feature = "s3")]
fn try_s3(location: &str, config: &Config) -> Result<String, String> {
    let Ok(Place::S3 { bucket, prefix }) = Place::parse(location) else { return Err("not s3://bucket/prefix".to_owned()) };
    let client = crate::input::s3_client(&config.aws).map_err(|e| words(&e))?;
    let Some(page) = client.list(&bucket, &prefix, None).next() else { return Ok("may list; it is empty".to_owned()) };
    let page = page.map_err(|e| format!("may not list: {e}"))?;
    let Some(object) = page.iter().filter(|o| o.size > 0).min_by_key(|o| o.size) else { return Ok("may list; it is empty".to_owned()) };
    client.get(&bucket, &object.key).map_err(|e| format!("may list, but not read: {e}"))?;
    Ok(format!("may list and read; the first page has {} objects", page.len()))
}

#[cfg(not(feature = "s3"))]
fn try_s3(_: &str, _: &Config) -> Result<String, String> {
    Err("this build cannot read s3://: build it with --features s3 (or full)".to_owned())
}

#[cfg(feature = "kafka")]
fn try_kafka(source: &SourceConfig, config: &Config) -> Result<String, String> {
    use flowtrail_ingest::source::kafka::{KafkaOptions, KafkaReader};
    // Connecting asks for topics, partitions and positions; what is read ahead is thrown away.
    let options = super::run::kafka_options(config, source).map_err(|e| words(&e))?;
    let reader = KafkaReader::connect(&KafkaOptions { queue_max: 1, ..options }).map_err(|e| e.to_string())?;
    Ok(format!("may read; {} partitions", reader.lag().len()))
}

#[cfg(not(feature = "kafka"))]
fn try_kafka(_: &SourceConfig, _: &Config) -> Result<String, String> {
    Err("this build cannot read Kafka: build it with --features kafka (or full)".to_owned())
}

fn collects(config: &Config) -> bool {
    let collect = &config.collect;
    collect.organization || !collect.accounts.is_empty() || !collect.regions.is_empty() || collect.role.is_some()
}

/// Snapshots are not tried here: `collect` says by itself what fails.
fn say_collect(config: &Config) {
    if !collects(config) {
        return;
    }
    let collect = &config.collect;
    let accounts = match (collect.organization, collect.accounts.as_slice()) {
        (true, _) => "all accounts of the organisation".to_owned(),
        (false, []) => "the account of the credentials".to_owned(),
        (false, accounts) => format!("accounts {}", accounts.join(", ")),
    };
    let role = collect.role.as_deref().map_or_else(|| "the credentials at hand".to_owned(), |r| format!("the role {r}"));
    println!("        collect: {accounts}, regions {}, as {role}; try it with `flowtrail collect`", collect.regions.join(", "));
}

/// Bucket and prefix as the resources of a policy, the prefix without its last `/`.
fn s3_place(location: &str) -> Option<(String, String)> {
    match Place::parse(location) {
        Ok(Place::S3 { bucket, prefix }) => Some((bucket, prefix.trim_end_matches('/').to_owned())),
        _ => None,
    }
}

fn list_statement(bucket: &str, prefix: &str) -> Value {
    let mut statement = json!({"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [format!("arn:aws:s3:::{bucket}")]});
    if !prefix.is_empty() {
        statement["Condition"] = json!({"StringLike": {"s3:prefix": [prefix, format!("{prefix}/*")]}});
    }
    statement
}

fn objects_statement(bucket: &str, prefix: &str, actions: &[&str]) -> Value {
    let below = if prefix.is_empty() { "*".to_owned() } else { format!("{prefix}/*") };
    json!({"Effect": "Allow", "Action": actions, "Resource": [format!("arn:aws:s3:::{bucket}/{below}")]})
}

/// What flowtrail's own identity needs, and no more.
fn policy(config: &Config) -> Value {
    let mut statements: Vec<Value> = Vec::new();
    let mut add = |statement: Value| {
        if !statements.contains(&statement) {
            statements.push(statement);
        }
    };
    for source in &config.source {
        if let SourceConfig::S3 { location, .. } = source
            && let Some((bucket, prefix)) = s3_place(location)
        {
            add(list_statement(&bucket, &prefix));
            add(objects_statement(&bucket, &prefix, &["s3:GetObject"]));
        }
    }
    for location in [config.output.location.clone(), state_location(config)].into_iter().flatten() {
        if let Some((bucket, prefix)) = s3_place(&location) {
            add(list_statement(&bucket, &prefix));
            add(objects_statement(&bucket, &prefix, &["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]));
        }
    }
    if config.collect.organization {
        add(json!({"Effect": "Allow", "Action": ["organizations:ListAccounts"], "Resource": ["*"]}));
    }
    if let Some(role) = &config.collect.role {
        add(json!({"Effect": "Allow", "Action": ["sts:AssumeRole"], "Resource": role_arns(role, config)}));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// The role in each account that is named; in every account of the organisation, any.
fn role_arns(role: &str, config: &Config) -> Vec<String> {
    let name = role.split_once(":role/").map_or(role, |(_, name)| name);
    let partition = role.strip_prefix("arn:").and_then(|r| r.split(':').next()).unwrap_or("aws");
    let of = |account: &str| format!("arn:{partition}:iam::{account}:role/{name}");
    match (config.collect.organization, config.collect.accounts.as_slice()) {
        (true, _) | (false, []) => vec![of("*")],
        (false, accounts) => accounts.iter().map(|a| of(a)).collect(),
    }
}

/// What the collecting role needs in the accounts.
fn member_policy(config: &Config) -> Option<Value> {
    collects(config).then(|| {
        json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["ec2:DescribeNetworkInterfaces", "lambda:ListFunctions"], "Resource": ["*"]}
        ]})
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_is_configured_and_no_more() {
        let config = Config::parse(
            r#"
            [output]
            location = "s3://out/tables/"
            [[source]]
            kind = "s3"
            location = "s3://logs/AWSLogs/"
            [collect]
            accounts = ["111122223333"]
            role = "flowtrail-read"
            "#,
        )
        .unwrap();
        let text = policy(&config).to_string();
        for wanted in [
            r#""Action":["s3:GetObject"],"Resource":["arn:aws:s3:::logs/AWSLogs/*"]"#,
            r#""Resource":["arn:aws:s3:::out/tables/*"]"#,
            r#""Resource":["arn:aws:s3:::out/tables/.state/*"]"#,
            r#""Action":["sts:AssumeRole"],"Resource":["arn:aws:iam::111122223333:role/flowtrail-read"]"#,
        ] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
        assert!(!text.contains("sqs:") && !text.contains(r#"s3:*"#) && !text.contains("organizations:"), "{text}");
        assert!(member_policy(&config).unwrap().to_string().contains("ec2:DescribeNetworkInterfaces"));
        let folders = Config::parse("[output]\nlocation = \"/data/out\"").unwrap();
        assert_eq!((policy(&folders)["Statement"].clone(), member_policy(&folders)), (json!([]), None));
    }
}
