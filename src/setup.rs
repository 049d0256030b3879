//! From arguments and configuration to what a driver needs: stores, lists and names, settings, and the hash of all that
//! changes findings.

use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use flowtrail_detect::{JudgeConfig, Suppression};
use flowtrail_enrich::AddressBook;
use flowtrail_ingest::EventTime;
use flowtrail_sink::{Store, StoreOptions, store};
use twox_hash::XxHash3_128;

use crate::cli::Failure;
use crate::config::{Config, check_table, datetime};

/// What a driver is made of.
pub struct Setup {
    /// Where tables go.
    pub output: Arc<dyn Store>,
    /// Where state lies.
    pub state: Arc<dyn Store>,
    /// Tables to write.
    pub tables: Vec<String>,
    /// The detectors' settings.
    pub judge: JudgeConfig,
    /// Names and lists.
    pub book: AddressBook,
    /// R, in seconds.
    pub retention: i64,
    /// Bytes that reading may hold: what is fetched ahead, and sums that are not written out yet.
    pub memory: u64,
    /// Hash of all that changes findings.
    pub config_hash: u128,
}

impl Setup {
    /// Opens stores, reads lists and files named by the configuration.
    ///
    /// `lists` are `NAME=FILE` of the command line; `tables` replaces the configured ones when it is not empty.
    ///
    /// # Errors
    /// `Failure::Usage` for what the user has to mend in arguments or configuration, `Failure::Work` for what cannot be read.
    pub fn open(config: &Config, out: Option<&str>, lists: &[String], tables: &[String]) -> Result<Self, Failure> {
        let location = out.or(config.output.location.as_deref()).ok_or_else(|| {
            Failure::Usage("no place for the tables: give --out, or location under [output] in the configuration".to_owned())
        })?;
        let options = StoreOptions { region: config.aws.region.clone(), endpoint_url: config.aws.endpoint_url.clone() };
        let open = |location: &str| store::open(location, &options).map_err(|e| Failure::Work(e.to_string()));
        let state = config.state.location.clone().unwrap_or_else(|| format!("{}/.state", location.trim_end_matches('/')));
        let tables = if tables.is_empty() { config.output.tables.clone() } else { tables.to_vec() };
        for table in &tables {
            check_table(table).map_err(Failure::Usage)?;
        }
        let judge = JudgeConfig {
            sensitivity: config.detect.sensitivity,
            suppressions: config
                .suppression
                .iter()
                .map(|s| Suppression {
                    detector: s.detector.clone(),
                    entity: s.entity.clone(),
                    until: datetime(&s.until).unwrap_or(EventTime::MIN),
                    reason: s.reason.clone(),
                    owner: s.owner.clone(),
                })
                .collect(),
        };
        let mut hash = XxHash3_128::new();
        hash.write(&postcard::to_stdvec(&judge).map_err(|e| Failure::Work(e.to_string()))?);
        hash.write(&config.state.retention.0.to_le_bytes());
        let book = book(config, lists, &mut hash)?;
        Ok(Self {
            output: open(location)?,
            state: open(&state)?,
            tables,
            judge,
            book,
            retention: config.state.retention.0,
            memory: config.state.memory.0,
            config_hash: hash.finish_128(),
        })
    }
}

/// Reads a file that the user named.
fn read(path: &std::path::Path, what: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::Work(format!("cannot read {what} {}: {e}", path.display())))
}

/// Names and lists; what they say is part of the hash.
fn book(config: &Config, lists: &[String], hash: &mut XxHash3_128) -> Result<AddressBook, Failure> {
    let mut builder = AddressBook::builder();
    if let Some(path) = &config.enrich.ip_ranges {
        let bytes = read(path, "AWS's ranges")?;
        hash.write(&bytes);
        builder.aws_ranges(&bytes).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    }
    for network in &config.network {
        hash.write(format!("{}={}\n", network.cidr, network.name).as_bytes());
        builder.network(&network.cidr, &network.name).map_err(|e| Failure::Usage(e.to_string()))?;
    }
    let mut named: Vec<(String, PathBuf, Option<String>)> =
        config.list.iter().map(|l| (l.name.clone(), l.file.clone(), l.category.clone())).collect();
    for list in lists {
        let (name, file) = list
            .split_once('=')
            .filter(|(name, file)| !name.is_empty() && !file.is_empty())
            .ok_or_else(|| Failure::Usage(format!("--list {list:?}: write NAME=FILE, such as c2=lists/c2.csv")))?;
        named.push((name.to_owned(), PathBuf::from(file), None));
    }
    for (name, file, category) in named {
        let report = builder.list(&name, category.as_deref(), &read(&file, "the list")?);
        hash.write(format!("{name}={category:?} {}\n", report.version).as_bytes());
        if report.entries == 0 {
            eprintln!("list {name}: {} holds no address or range: nothing will be found with it", file.display());
        }
        if report.bad > 0 {
            let first = report.samples.first().map(|b| format!("; line {}: {}", b.line, b.reason)).unwrap_or_default();
            eprintln!("list {name}: {} of {} lines are left out{first}", report.bad, report.entries + report.bad);
        }
    }
    Ok(builder.build())
}

/// A seed for tables in memory: random, and nothing but speed hangs on it.
#[must_use]
pub fn random_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// The one place where the clock is read.
#[must_use]
pub fn now() -> EventTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    EventTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
