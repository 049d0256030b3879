//! `flowtrail generate`: options on the command line, and what is said at the end.

use std::path::PathBuf;

use clap::Args;
use flowtrail_ingest::EventTime;

use crate::generate::{GenerateOptions, run as generate};

/// Makes an organisation with attacks in it: flow logs, CloudTrail, snapshots, a threat list, and the truth about them.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Accounts; every third works in two regions.
    #[arg(long, default_value_t = 3)]
    accounts: usize,
    /// Functions, over all accounts.
    #[arg(long, default_value_t = 24)]
    functions: usize,
    /// Days of logs.
    #[arg(long, default_value_t = 21)]
    days: u32,
    /// The first moment, UTC; cut to the hour.
    #[arg(long, value_name = "TIME", default_value = "2026-01-05", value_parser = time)]
    start: EventTime,
    /// Kinds of attack, or `all`, or `none`. The first comes after day 15; with fewer than 17 days in the last third.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "all")]
    attacks: Vec<String>,
    /// About how many flow records there shall be; by default what the functions give (some 24,000 each in three weeks).
    #[arg(long, value_name = "N")]
    records: Option<u64>,
}

fn time(text: &str) -> Result<EventTime, String> {
    EventTime::parse(text).ok_or_else(|| format!("{text:?} is not a time such as 2026-01-05 or 2026-01-05T10:00:00Z"))
}

impl GenerateArgs {
    /// Makes it and says what was made.
    ///
    /// # Errors
    /// See [`crate::generate::run`].
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let options = GenerateOptions {
            out: self.out,
            seed: self.seed,
            accounts: self.accounts,
            functions: self.functions,
            days: self.days,
            start: self.start,
            attacks: self.attacks,
            records: self.records,
        };
        let made = generate(&options)?;
        println!(
            "{} objects: {} flow records, {} API calls; {} attacks and {} holdings of interfaces in {}",
            made.objects,
            made.flow_records,
            made.api_calls,
            made.attacks,
            made.holdings,
            options.out.join("truth.json").display()
        );
        Ok(())
    }
}
