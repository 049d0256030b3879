//! The command line: arguments to a configuration to a command, one file a command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use flowtrail_ingest::EventTime;

pub mod athena;
pub mod check;
pub mod collect;
pub mod compact;
pub mod entity;
pub mod explain;
pub mod generate;
pub mod inspect;
pub mod replay;
pub mod requeue;
pub mod run;
mod stored;

/// Finds what AWS Lambda functions never did before, from VPC Flow Logs and CloudTrail alone.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read logs from files, folders or S3, and write findings: the main job, once
    Replay(Box<ReplayArgs>),
    /// Read sources for ever and write findings as hours close
    Run(RunArgs),
    /// Print the records of one file as JSON lines, rejects on standard error
    Inspect(InspectArgs),
    /// Make an organisation's logs with attacks and their truth, to try and test with
    Generate(GenerateArgs),
    /// Snapshot interfaces and functions of every configured account
    Collect(CollectArgs),
    /// Read a configuration, try its sources and targets, print the IAM policy it needs
    Check(ConfigArg),
    /// Print a finding: what is stored, and with --raw the records it cites
    Explain(ExplainArgs),
    /// Print what is known of a function, interface, address or principal
    Entity(EntityArgs),
    /// Print the DDL of all tables for Athena
    Athena(AthenaArgs),
    /// Put quarantined units back, to be read again
    Requeue(ConfigArg),
    /// Merge small output files and roll up the state
    Compact(ConfigArg),
}

/// `--config`
#[derive(Debug, Args)]
pub struct ConfigArg {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Files, folders or s3://bucket/prefix
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Folder or s3://bucket/prefix for the tables
    #[arg(long, value_name = "DIR")]
    pub out: String,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Nothing that ends before this time (RFC 3339)
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub from: Option<EventTime>,
    /// Nothing that ends at or after this time
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub to: Option<EventTime>,
    /// The replay's now (default: when it began)
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub as_of: Option<EventTime>,
    /// The date of snapshots that carry none
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub facts_at: Option<EventTime>,
    /// A folder of Sigma rules
    #[arg(long, value_name = "DIR")]
    pub rules: Vec<PathBuf>,
    /// A threat list
    #[arg(long, value_name = "NAME=FILE")]
    pub list: Vec<String>,
    /// Fields of flow-log text without header (default: the 14 of version 2)
    #[arg(long, value_name = "FIELDS")]
    pub format: Option<String>,
    /// Tables to write, with commas
    #[arg(long, value_name = "TABLES", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Threads (default: one a core)
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write new findings as JSON lines to a file, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub json_findings: Option<String>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// End when every source is at its end
    #[arg(long)]
    pub once: bool,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// File, or - for standard input
    pub file: String,
    /// Fields of flow-log text without header
    #[arg(long, value_name = "FIELDS")]
    pub format: Option<String>,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Accounts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub accounts: u32,
    /// Functions over all accounts
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub functions: u32,
    /// Days
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=3_660))]
    pub days: u32,
    /// First moment
    #[arg(long, value_parser = time, default_value = "2026-01-05T00:00:00Z", value_name = "TIME")]
    pub start: EventTime,
    /// Kinds of attack, with commas; all or none
    #[arg(long, default_value = "all", value_name = "NAME,...")]
    pub attacks: String,
    /// About how many flow records
    #[arg(long, value_name = "N")]
    pub records: Option<u64>,
}

/// Arguments of `collect`.
#[derive(Debug, Args)]
pub struct CollectArgs {
    /// Folder or s3://bucket/prefix for the snapshots
    #[arg(long, value_name = "DIR")]
    pub out: String,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The finding_id, or the beginning of it
    pub finding_id: String,
    /// Where the tables are
    #[arg(long, value_name = "DIR")]
    pub out: String,
    /// Also print the cited records, found in these inputs
    #[arg(long, num_args = 1.., value_name = "INPUT")]
    pub raw: Vec<String>,
}

/// Arguments of `entity`.
#[derive(Debug, Args)]
pub struct EntityArgs {
    /// ARN, function name, interface, address or principal
    pub name: String,
    /// Where the tables are
    #[arg(long, value_name = "DIR")]
    pub out: String,
}

/// Arguments of `athena`.
#[derive(Debug, Args)]
pub struct AthenaArgs {
    /// s3://bucket/prefix of the tables
    #[arg(long, value_name = "S3")]
    pub location: String,
    /// Tables, with commas (default: all)
    #[arg(long, value_name = "TABLES", value_delimiter = ',')]
    pub tables: Vec<String>,
}

fn time(text: &str) -> Result<EventTime, String> {
    EventTime::parse(text).ok_or_else(|| format!("{text:?} is not a time; write it like 2026-01-05T10:00:00Z"))
}

/// How a command failed: decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// Exit 1: a unit was quarantined, an INPUT is missing, an id is unknown, the outside world failed.
    Work(String),
    /// Exit 2: wrong usage or configuration.
    Usage(String),
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Work(format!("{error:#}"))
    }
}
