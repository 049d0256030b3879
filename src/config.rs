//! Configuration: the TOML file of design, with defaults that work on a laptop. Unknown keys are errors with line and caret.
//!
//! What changes findings ([`Config::judging_hash`]) and what only changes where and how fast are told apart there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowtrail_ingest::EventTime;
use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where tables go.
    pub output: OutputConfig,
    /// Where state lives and how much of it is held in memory.
    pub state: StateConfig,
    /// How `run` paces itself.
    pub run: RunConfig,
    /// AWS access, when it is not the usual chain.
    pub aws: AwsConfig,
    /// Where records come from.
    pub source: Vec<SourceConfig>,
    /// Snapshots.
    pub collect: CollectConfig,
    /// Threat lists.
    pub list: Vec<ListConfig>,
    /// Names of outside ranges.
    pub enrich: EnrichConfig,
    /// Names of the user's own ranges.
    pub network: Vec<NetworkConfig>,
    /// Mutes.
    pub suppression: Vec<SuppressionConfig>,
    /// Sigma rules.
    pub rules: RulesConfig,
    /// Prometheus, health and readiness.
    pub metrics: MetricsConfig,
    /// The detectors' one knob.
    pub detect: DetectConfig,
}

/// `[output]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// A folder or `s3://bucket/prefix`.
    pub location: Option<String>,
    /// Tables to write.
    pub tables: Vec<String>,
}

/// Tables written when nothing else is said.
pub const TABLES: [&str; 8] = ["findings", "observations", "profiles", "eni_owners", "coverage", "rejects", "late", "quarantine"];
/// Tables written only when asked for: one row a record.
pub const OPTIONAL_TABLES: [&str; 2] = ["flows", "api_calls"];

impl Default for OutputConfig {
    fn default() -> Self {
        Self { location: None, tables: TABLES.iter().map(|t| (*t).to_owned()).collect() }
    }
}

/// `[state]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// A folder or `s3://…`; default: `OUT/.state`.
    pub location: Option<String>,
    /// How long after its end an hour stays open (R).
    pub retention: Span,
    /// Memory that contributions may take before they are read back from the state.
    pub memory: Size,
    /// How long a source that stands still may hold sealing back.
    pub stall_limit: Span,
    /// For how many days of delivery `run` remembers what it read; what is older is neither remembered nor listed.
    pub ledger_days: u16,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { location: None, retention: Span(7200), memory: Size(2 << 30), stall_limit: Span(6 * 3600), ledger_days: 14 }
    }
}

/// What an idle source's clock stands at.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Now.
    #[default]
    Wall,
    /// The newest delivery time of all sources: for history fed through `run`.
    Delivery,
}

/// `[run]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// What an idle source stands at.
    pub clock: Clock,
    /// How often an open hour is looked at, at most.
    pub look_every: Span,
    /// How often there is a commit, at most.
    pub commit_every: Span,
    /// How often prefixes and folders are listed.
    pub list_every: Span,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { clock: Clock::Wall, look_every: Span(60), commit_every: Span(10), list_every: Span(10) }
    }
}

/// `[aws]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsConfig {
    /// Region.
    pub region: Option<String>,
    /// Any S3-compatible store.
    pub endpoint_url: Option<String>,
}

/// `[[source]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceConfig {
    /// A prefix, listed.
    S3 {
        /// `s3://bucket/prefix`.
        location: String,
        /// Nothing older (by key time, else by modification).
        start: Option<toml::value::Datetime>,
        /// Fields of text without header.
        format: Option<String>,
    },
    /// Notifications of new objects.
    Sqs {
        /// The queue.
        queue_url: String,
    },
    /// CloudTrail.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code))] // Read only where topics are.
    Kafka {
        /// `host:port`s.
        brokers: Vec<String>,
        /// Topics.
        topics: Vec<String>,
        /// Consumer group, for lag tools; positions are in the commits.
        #[serde(default = "default_group")]
        group: String,
        /// Passed to librdkafka as they are.
        #[serde(default)]
        options: BTreeMap<String, toml::Value>,
        /// Logs in to MSK with IAM, by the usual chain of credentials.
        #[serde(default)]
        aws_msk_iam: bool,
    },
    /// A folder, walked.
    Folder {
        /// Path.
        location: PathBuf,
        /// Fields of text without header.
        format: Option<String>,
    },
}

fn default_group() -> String {
    "flowtrail".to_owned()
}

/// `[collect]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectConfig {
    /// Account ids.
    pub accounts: Vec<String>,
    /// All accounts of the organisation instead.
    pub organization: bool,
    /// Regions.
    pub regions: Vec<String>,
    /// Role to assume in each account: a name or an ARN. None: the credentials at hand.
    pub role: Option<String>,
    /// How often `run` collects.
    pub every: Span,
    /// The section is there: `run` collects.
    #[serde(skip)]
    pub on: bool,
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self { accounts: Vec::new(), organization: false, regions: Vec::new(), role: None, every: Span(900), on: false }
    }
}

/// `[[list]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListConfig {
    /// Name that findings give.
    pub name: String,
    /// CSV or plain text.
    pub file: PathBuf,
    /// Category of rows that name none.
    pub category: Option<String>,
}

/// `[enrich]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrichConfig {
    /// AWS's published ip-ranges.json, as downloaded.
    pub ip_ranges: Option<PathBuf>,
}

/// `[[network]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Range.
    pub cidr: String,
    /// Name.
    pub name: String,
}

/// `[[suppression]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuppressionConfig {
    /// Detector, or `*`.
    pub detector: String,
    /// Pattern over entity ids and ARNs.
    pub entity: String,
    /// Last day or moment; it must end.
    pub until: toml::value::Datetime,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    #[serde(default)]
    pub owner: String,
}

/// `[rules]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// Folders of Sigma rules.
    pub folders: Vec<PathBuf>,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// `host:port`.
    pub listen: Option<String>,
}

/// `[detect]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {
    /// -1, 0 or 1: shifts all thresholds.
    pub sensitivity: i8,
}

/// A length of time, in seconds: `90`, `"60s"`, `"15m"`, `"2h"`, `"14d"`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Span(pub i64);

/// A number of bytes: `1048576`, `"512MiB"`, `"2GiB"`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        let bad = |text: &str| {
            serde::de::Error::custom(format!("{text:?} is not a length of time: write seconds or \"60s\", \"15m\", \"2h\", \"14d\""))
        };
        match Written::deserialize(deserializer)? {
            Written::Number(secs) if secs >= 0 => Ok(Self(secs)),
            Written::Number(secs) => Err(bad(&secs.to_string())),
            Written::Text(text) => {
                let (n, unit) = number_and_unit(&text).ok_or_else(|| bad(&text))?;
                let factor = match unit {
                    "" | "s" => 1,
                    "m" | "min" => 60,
                    "h" => 3600,
                    "d" => 86_400,
                    _ => return Err(bad(&text)),
                };
                i64::try_from(n).ok().and_then(|n| n.checked_mul(factor)).map(Self).ok_or_else(|| bad(&text))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let bad = |text: &str| serde::de::Error::custom(format!("{text:?} is not a size: write bytes or \"512MiB\", \"2GiB\""));
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => {
                let (n, unit) = number_and_unit(&text).ok_or_else(|| bad(&text))?;
                let shift = match unit.to_ascii_lowercase().as_str() {
                    "" | "b" => 0,
                    "k" | "kb" | "kib" => 10,
                    "m" | "mb" | "mib" => 20,
                    "g" | "gb" | "gib" => 30,
                    "t" | "tb" | "tib" => 40,
                    _ => return Err(bad(&text)),
                };
                n.checked_mul(1 << shift).map(Self).ok_or_else(|| bad(&text))
            }
        }
    }
}

/// What is wrong with a configuration, in words for people (line and caret where there is one). Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A message with file, line and caret for what TOML or the keys' meaning forbid.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|e| ConfigError(format!("cannot read the configuration {}: {e}", path.display())))?;
        let mut config = Self::parse(&text).map_err(|e| ConfigError(format!("in {}: {}", path.display(), e.0)))?;
        // Files named in a configuration lie beside it.
        let base = path.parent().unwrap_or(Path::new("."));
        for list in &mut config.list {
            list.file = base.join(&list.file);
        }
        if let Some(file) = &mut config.enrich.ip_ranges {
            *file = base.join(&*file);
        }
        for folder in &mut config.rules.folders {
            *folder = base.join(&*folder);
        }
        Ok(config)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// As [`Self::load`], without the file's name.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|e| ConfigError(e.to_string()))?;
        config.collect.on = toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("collect"));
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |message: String| Err(ConfigError(message));
        for table in &self.output.tables {
            check_table(table).map_err(ConfigError)?;
        }
        if !(-1..=1).contains(&self.detect.sensitivity) {
            return fail(format!("detect.sensitivity is {}: it takes -1, 0 or 1", self.detect.sensitivity));
        }
        if self.state.ledger_days == 0 {
            return fail("state.ledger_days is 0: it takes at least 1, and 14 is what others remember, too".to_owned());
        }
        for account in &self.collect.accounts {
            if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
                return fail(format!("collect.accounts: {account:?} is not an account id, which has 12 digits"));
            }
        }
        for network in &self.network {
            if network.cidr.parse::<ipnet_check::Cidr>().is_err() {
                return fail(format!("network {:?}: {:?} is not a CIDR such as 10.20.0.0/16", network.name, network.cidr));
            }
        }
        for s in &self.suppression {
            datetime(&s.until)
                .ok_or_else(|| ConfigError(format!("suppression of {:?}: until = {} is not a date or time", s.entity, s.until)))?;
            if s.reason.trim().is_empty() {
                return fail(format!("suppression of {:?} gives no reason", s.entity));
            }
        }
        for source in &self.source {
            match source {
                SourceConfig::S3 { location, start, .. } => {
                    if !location.starts_with("s3://") {
                        return fail(format!("source {location:?}: an s3 source's location begins with s3://"));
                    }
                    if let Some(start) = start
                        && datetime(start).is_none()
                    {
                        return fail(format!("source {location:?}: start = {start} is not a date or time"));
                    }
                }
                SourceConfig::Kafka { brokers, topics, .. } => {
                    if brokers.is_empty() || topics.is_empty() {
                        return fail("a kafka source needs at least one broker and one topic".to_owned());
                    }
                }
                SourceConfig::Sqs { queue_url } => {
                    return fail(format!(
                        "source {queue_url:?}: notifications through SQS are not read yet; list the bucket with kind = \"s3\", which finds the same objects"
                    ));
                }
                SourceConfig::Folder { .. } => {}
            }
        }
        Ok(())
    }
}

/// Says whether `table` is a table, in words when not.
///
/// # Errors
/// The message for the user.
pub fn check_table(table: &str) -> Result<(), String> {
    if TABLES.contains(&table) || OPTIONAL_TABLES.contains(&table) {
        return Ok(());
    }
    Err(format!("there is no table {table:?}; the tables are {}, {}", TABLES.join(", "), OPTIONAL_TABLES.join(", ")))
}

/// A TOML date or date-time as event time; a day means its end, as `until` is inclusive of the day it names.
#[must_use]
pub fn datetime(value: &toml::value::Datetime) -> Option<EventTime> {
    let text = value.to_string();
    let time = EventTime::parse(&text)?;
    Some(if value.time.is_none() { time.plus(86_400) } else { time })
}

mod ipnet_check {
    use std::net::IpAddr;
    use std::str::FromStr;

    /// A CIDR or a single address, only checked.
    pub(super) struct Cidr;

    impl FromStr for Cidr {
        type Err = ();
        fn from_str(text: &str) -> Result<Self, ()> {
            let (addr, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
            let addr: IpAddr = addr.parse().map_err(|_| ())?;
            let most = if addr.is_ipv4() { 32 } else { 128 };
            match bits.map(str::parse::<u8>) {
                None => Ok(Self),
                Some(Ok(bits)) if bits <= most => Ok(Self),
                Some(_) => Err(()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        let error = Config::parse("[output]\nlocation = \"x\"\nlocatoin = \"y\"\n").unwrap_err().to_string();
        assert!(error.contains("locatoin") && error.contains('3') && error.contains('^'), "{error}");
    }

    #[test]
    fn spans_and_sizes_as_people_write_them() {
        let config = Config::parse("[state]\nretention = \"90m\"\nmemory = \"512MiB\"\n[run]\nlook_every = 5\n").unwrap();
        assert_eq!((config.state.retention, config.state.memory, config.run.look_every), (Span(5400), Size(512 << 20), Span(5)));
        assert!(Config::parse("[state]\nretention = \"soon\"\n").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (text, word) in [
            ("[output]\ntables = [\"flow\"]\n", "flow"),
            ("[[source]]\nkind = \"s3\"\nlocation = \"bucket\"\n", "s3://"),
            ("[[network]]\ncidr = \"10.0.0.0/64\"\nname = \"x\"\n", "CIDR"),
            ("[[suppression]]\ndetector = \"*\"\nentity = \"*\"\nuntil = 2027-01-01\nreason = \" \"\n", "reason"),
            ("[detect]\nsensitivity = 3\n", "sensitivity"),
            ("[state]\nledger_days = 0\n", "ledger_days"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
