//! Where `replay` and `run` find units: files, folders and S3 prefixes, listed and fetched alike.

use flowtrail_ingest::source::{Object, folder};
use flowtrail_ingest::{EventTime, KeyFacts};

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

    /// Lists everything, sorted.
    ///
    /// # Errors
    /// When a bucket cannot be listed.
    pub fn list(&self) -> anyhow::Result<Listed> {
        let paths: Vec<&String> = self.places.iter().filter_map(|p| if let Place::Path(path) = p { Some(path) } else { None }).collect();
        let walk = folder::walk(&paths);
        let mut listed = Listed {
            objects: walk.objects.into_iter().map(|o| Announced::of(o, None)).collect(),
            problems: walk.problems.into_iter().map(|p| Problem { path: p.path, reason: p.reason }).collect(),
        };
        #[cfg(feature = "s3")]
        for place in &self.places {
            if let (Place::S3 { bucket, prefix }, Some(s3)) = (place, &self.s3) {
                for page in s3.list(bucket, prefix, None) {
                    listed.objects.extend(page?.into_iter().map(|o| Announced::of(o, Some(bucket.clone()))));
                }
            }
        }
        listed.objects.sort_by(|a, b| (&a.bucket, &a.meta.key).cmp(&(&b.bucket, &b.meta.key)));
        listed.objects.dedup_by(|a, b| a.bucket == b.bucket && a.meta.key == b.meta.key);
        Ok(listed)
    }

    /// The bytes of a unit.
    ///
    /// # Errors
    /// In words.
    pub fn fetch(&self, announced: &Announced) -> anyhow::Result<Vec<u8>> {
        match &announced.bucket {
            None => folder::read(&announced.object.key).map_err(|e| anyhow::anyhow!("cannot be read: {e}")),
            #[cfg(feature = "s3")]
            Some(bucket) => match &self.s3 {
                Some(s3) => Ok(s3.get_listed(bucket, &announced.object)?.into()),
                None => anyhow::bail!("no S3 client"),
            },
            #[cfg(not(feature = "s3"))]
            Some(_) => anyhow::bail!("this build cannot read s3://: build it with --features s3"),
        }
    }
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
