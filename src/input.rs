//! Where `replay` and `run` find units: files, folders and S3 prefixes, listed and fetched alike.

use flowtrail_ingest::source::{Object, folder};
use flowtrail_ingest::{Day, EventTime, KeyFacts};

use crate::cli::Failure;
use crate::config::AwsConfig;
use crate::reader::UnitMeta;

/// One unit, announced by a listing.
#[derive(Clone, Debug)]
pub struct Announced {
    /// What the reader is told.
    pub meta: UnitMeta,
    /// Length as listed.
    pub size: u64,
    /// When it was last written.
    pub modified: Option<EventTime>,
    /// As listed, for fetching.
    pub object: Object,
    /// Bucket, for S3.
    pub bucket: Option<String>,
}

/// A path that could not be listed.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The path.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What a listing gave.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Sorted by source and key.
    pub objects: Vec<Announced>,
    /// What could not be looked into.
    pub problems: Vec<Problem>,
}

/// One place to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file or folder.
    Path(String),
    /// A bucket and prefix.
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix, may be empty.
        prefix: String,
    },
}

/// The inputs of a call.
pub struct Inputs {
    places: Vec<Place>,
    #[cfg(feature = "s3")]
    s3: Option<flowtrail_ingest::source::s3::S3Client>,
}

impl Inputs {
    /// Checks that every INPUT is there.
    ///
    /// # Errors
    /// `Failure::Work` naming the inputs that are missing; `Failure::Usage` for what is none.
    pub fn open(inputs: &[String], aws: &AwsConfig) -> Result<Self, Failure> {
        let mut places = Vec::new();
        let mut missing = Vec::new();
        for input in inputs {
            let place = Place::parse(input)?;
            if let Place::Path(path) = &place
                && let Err(error) = std::fs::metadata(path)
            {
                missing.push(format!("{input}: {error}"));
            }
            places.push(place);
        }
        if !missing.is_empty() {
            return Err(Failure::Work(format!("there is no such input: {}", missing.join("; "))));
        }
        #[cfg(feature = "s3")]
        {
            let s3 = if places.iter().any(|p| matches!(p, Place::S3 { .. })) { Some(s3_client(aws)?) } else { None };
            Ok(Self { places, s3 })
        }
        #[cfg(not(feature = "s3"))]
        {
            let _ = aws;
            if places.iter().any(|p| matches!(p, Place::S3 { .. })) {
                return Err(Failure::Usage("this build cannot read s3://: build it with --features s3 (or full)".to_owned()));
            }
            Ok(Self { places })
        }
    }

    /// The client for buckets, if there are any among the inputs.
    #[cfg(feature = "s3")]
    pub fn s3(&self) -> Option<&flowtrail_ingest::source::s3::S3Client> {
        self.s3.as_ref()
    }

    /// Lists everything, sorted.
    ///
    /// # Errors
    /// When a bucket cannot be listed.
    pub fn list(&self) -> anyhow::Result<Listed> {
        self.list_from(None)
    }

    /// Lists what may have come since `horizon`, sorted: folders of earlier days are not looked into where AWS's names say the
    /// day (`AWSLogs/…/2026/01/05/`), so that a listing does not grow with history.
    ///
    /// # Errors
    /// When a bucket or a folder cannot be listed.
    pub fn list_since(&self, horizon: Option<Day>) -> anyhow::Result<Listed> {
        for place in &self.places {
            if let Place::Path(path) = place {
                // A folder that is gone is not an empty one.
                std::fs::metadata(path).map_err(|e| anyhow::anyhow!("{path}: {e}"))?;
            }
        }
        self.list_from(horizon)
    }

    fn list_from(&self, horizon: Option<Day>) -> anyhow::Result<Listed> {
        let paths: Vec<&String> = self.places.iter().filter_map(|p| if let Place::Path(path) = p { Some(path) } else { None }).collect();
        let walk = folder::walk_where(&paths, &|folder| match (horizon, folder.to_str()) {
            (Some(horizon), Some(folder)) => day_of_folder(folder).is_none_or(|day| day >= horizon),
            _ => true,
        });
        let mut listed = Listed {
            objects: walk.objects.into_iter().map(|o| Announced::of(o, None)).collect(),
            problems: walk.problems.into_iter().map(|p| Problem { path: p.path, reason: p.reason }).collect(),
        };
        #[cfg(feature = "s3")]
        for place in &self.places {
            if let (Place::S3 { bucket, prefix }, Some(s3)) = (place, &self.s3) {
                let mut found = Vec::new();
                match horizon {
                    None => list_all(s3, bucket, prefix, None, &mut found)?,
                    Some(horizon) => list_recent(s3, bucket, prefix, horizon, 0, &mut found)?,
                }
                listed.objects.extend(found.into_iter().map(|o| Announced::of(o, Some(bucket.clone()))));
            }
        }
        listed.objects.sort_by(|a, b| (&a.bucket, &a.meta.key).cmp(&(&b.bucket, &b.meta.key)));
        listed.objects.dedup_by(|a, b| a.bucket == b.bucket && a.meta.key == b.meta.key);
        Ok(listed)
    }

    /// The bytes of a unit, in place of what `into` holds: its memory is used where that helps.
    ///
    /// # Errors
    /// In words.
    pub fn fetch_into(&self, announced: &Announced, into: &mut Vec<u8>) -> anyhow::Result<()> {
        match &announced.bucket {
            None => folder::read_into(&announced.object.key, into).map_err(Unreadable)?,
            #[cfg(feature = "s3")]
            Some(bucket) => match &self.s3 {
                Some(s3) => *into = s3.get_listed(bucket, &announced.object)?.into(),
                None => anyhow::bail!("no S3 client"),
            },
            #[cfg(not(feature = "s3"))]
            Some(_) => anyhow::bail!("this build cannot read s3://: build it with --features s3"),
        }
        Ok(())
    }

    /// The bytes of a unit.
    ///
    /// # Errors
    /// In words.
    pub fn fetch(&self, announced: &Announced) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.fetch_into(announced, &mut bytes)?;
        Ok(bytes)
    }
}

/// A file that the file system does not hand out.
#[derive(Debug, thiserror::Error)]
#[error("cannot be read: {0}")]
struct Unreadable(std::io::Error);

/// True when the same fetch may work later without anybody's doing: a store that is away or asks to slow down, credentials
/// that are to be renewed, a file system that stumbles.
#[must_use]
pub fn may_pass(error: &anyhow::Error) -> bool {
    if let Some(Unreadable(error)) = error.downcast_ref() {
        return !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied);
    }
    #[cfg(feature = "s3")]
    {
        use flowtrail_ingest::source::s3::S3Error;
        if let Some(error) = error.downcast_ref::<S3Error>() {
            return error.retryable() || matches!(error, S3Error::NoSuchBucket { .. } | S3Error::Credentials { .. });
        }
    }
    false
}

/// The day that AWS's names give to a folder: `AWSLogs/…/2026/01/05` or `AWSLogs/…/year=2026/month=01/day=05`.
fn day_of_folder(folder: &str) -> Option<Day> {
    let folder = folder.trim_end_matches('/');
    let mut parts = folder.rsplit('/');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |part: &str, name: &str, digits: usize| {
        let part = part.strip_prefix(name).unwrap_or(part);
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.to_owned())
    };
    let (day, month, year) = (number(day, "day=", 2)?, number(month, "month=", 2)?, number(year, "year=", 4)?);
    parts.any(|part| part == "AWSLogs").then(|| EventTime::parse(&format!("{year}-{month}-{day}"))).flatten().map(EventTime::day)
}

/// All objects under a prefix, after a key.
#[cfg(feature = "s3")]
fn list_all(
    s3: &flowtrail_ingest::source::s3::S3Client,
    bucket: &str,
    prefix: &str,
    after: Option<&str>,
    found: &mut Vec<Object>,
) -> anyhow::Result<()> {
    for page in s3.list(bucket, prefix, after) {
        found.extend(page?);
    }
    Ok(())
}

/// Levels that are walked before a day is looked for no longer: `AWSLogs/o-…/ACCOUNT/SERVICE/REGION` below a prefix of one's own.
#[cfg(feature = "s3")]
const LEVELS_MAX: u32 = 9;
/// Prefixes of one level that are walked one by one.
#[cfg(feature = "s3")]
const PREFIXES_MAX: usize = 1000;

/// Objects under a prefix, from a day on where keys have days; others all. Keys of a year begin where the day's begin.
#[cfg(feature = "s3")]
fn list_recent(
    s3: &flowtrail_ingest::source::s3::S3Client,
    bucket: &str,
    prefix: &str,
    horizon: Day,
    level: u32,
    found: &mut Vec<Object>,
) -> anyhow::Result<()> {
    if level == LEVELS_MAX || !(prefix.is_empty() || prefix.ends_with('/')) {
        return list_all(s3, bucket, prefix, None, found);
    }
    let (objects, folders) = s3.level(bucket, prefix)?;
    if folders.len() > PREFIXES_MAX {
        return list_all(s3, bucket, prefix, None, found);
    }
    let is_year = |folder: &String| {
        let name = folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let digits = name.strip_prefix("year=").unwrap_or(name);
        digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit())
    };
    if prefix.split('/').any(|part| part == "AWSLogs") && folders.iter().any(is_year) {
        let date = horizon.to_string();
        let (year, month_day) = date.split_at(4);
        let (month, day) = (&month_day[1..3], &month_day[4..6]);
        let hive = folders.iter().any(|folder| folder.contains("/year="));
        let after = if hive { format!("{prefix}year={year}/month={month}/day={day}/") } else { format!("{prefix}{year}/{month}/{day}/") };
        return list_all(s3, bucket, prefix, Some(&after), found);
    }
    found.extend(objects);
    for folder in folders {
        list_recent(s3, bucket, &folder, horizon, level + 1, found)?;
    }
    Ok(())
}

impl Place {
    /// `s3://bucket/prefix`, or a path.
    ///
    /// # Errors
    /// For another scheme, or no bucket.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Failure::Usage(format!("{text:?} names no bucket: write s3://bucket/prefix")));
            }
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(Failure::Usage(format!("{text:?}: {scheme}:// is not read; give a path or s3://bucket/prefix"))),
            None => Ok(Self::Path(text.to_owned())),
        }
    }
}

impl Announced {
    /// From a listing's object.
    #[must_use]
    pub fn of(object: Object, bucket: Option<String>) -> Self {
        let facts = KeyFacts::of_key(&object.key);
        let delivered_at = facts.time.or(object.modified.filter(|_| bucket.is_some()));
        let meta = UnitMeta { source: object.source, key: object.key.clone(), delivered_at, facts, offset: None };
        Self { meta, size: object.size, modified: object.modified, object, bucket }
    }
}

/// A client of the configured store.
///
/// # Errors
/// `Failure::Work` without credentials.
#[cfg(feature = "s3")]
pub fn s3_client(aws: &AwsConfig) -> Result<flowtrail_ingest::source::s3::S3Client, Failure> {
    use flowtrail_ingest::source::s3::{S3Client, S3Options};
    let options = S3Options { region: aws.region.clone(), endpoint_url: aws.endpoint_url.clone() };
    S3Client::connect(&options, runtime()).map_err(|e| Failure::Work(e.to_string()))
}

/// The one runtime of the async rim.
#[cfg(feature = "s3")]
pub fn runtime() -> tokio::runtime::Handle {
    use std::sync::OnceLock;
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            #[allow(clippy::expect_used)] // Without threads of the operating system there is nothing to go on with.
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .thread_name("rim")
                .build()
                .expect("threads for the network")
        })
        .handle()
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_aws_tell_their_day() {
        let day = |folder: &str| day_of_folder(folder).map(|day| day.to_string());
        let some = Some("2026-01-05".to_owned());
        assert_eq!(day("/in/AWSLogs/111122223333/vpcflowlogs/eu-west-1/2026/01/05"), some);
        assert_eq!(day("AWSLogs/aws-account-id=1/aws-service=vpcflowlogs/aws-region=x/year=2026/month=01/day=05/"), some);
        for none in ["/in/2026/01/05", "/in/AWSLogs/1/vpcflowlogs/x/2026/01", "/in/AWSLogs/1/x/2026/01/32", "05", ""] {
            assert_eq!(day(none), None, "{none}");
        }
    }
}
