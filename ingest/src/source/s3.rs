//! S3 and compatible stores: a small blocking client.
//!
//! The SDK is asynchronous; the calls here run on the runtime whose handle is given and wait for the outcome. They must
//! not be called on that runtime's own threads. Throttling, time-outs and 5xx are retried by the SDK (5 attempts); what
//! comes out as an error has been tried.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::Object as Listed;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::aws::{self, AwsOptions, NoCredentials};
use super::{Object, percent_encoded};
use crate::time::EventTime;

/// Which store, and how to speak to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Options {
    /// The region; default: the usual chain, else `us-east-1`.
    pub region: Option<String>,
    /// A compatible store; buckets are then part of the path and not of the host name.
    pub endpoint_url: Option<String>,
}

/// What went wrong, as far as a caller acts on the difference. Each message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum S3Error {
    /// The bucket is not there.
    #[error("bucket `{bucket}` does not exist: check its name, and `endpoint_url` if it is not at AWS")]
    NoSuchBucket {
        /// Its name.
        bucket: String,
    },
    /// The object is not there (any more).
    #[error("s3://{bucket}/{key} does not exist")]
    NoSuchKey {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// Credentials were good, but may not do this.
    #[error("not allowed to {action} {location}: grant {permission} to the role or user in use ({reason})")]
    AccessDenied {
        /// `list`, `read`, `write`, `delete`.
        action: &'static str,
        /// The IAM action that allows it.
        permission: &'static str,
        /// `s3://bucket/key`.
        location: String,
        /// What the store said.
        reason: String,
    },
    /// No credentials, or expired or unknown ones.
    #[error("{reason}")]
    Credentials {
        /// The advice.
        reason: String,
    },
    /// The bucket is in another region.
    #[error("bucket `{bucket}` is in {region}: set `region` under [aws], or AWS_REGION")]
    WrongRegion {
        /// The bucket.
        bucket: String,
        /// Its region, or `another region`.
        region: String,
    },
    /// Length or ETag of what came are not those that were listed, several times over.
    #[error("s3://{bucket}/{key} is not what was listed: {reason}")]
    Changed {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Both values.
        reason: String,
    },
    /// The store could not be reached, was too slow or too busy.
    #[error("cannot reach the store for {location}, try again later: {reason}")]
    Network {
        /// `s3://bucket/key`.
        location: String,
        /// What the last attempt said.
        reason: String,
    },
    /// Anything else.
    #[error("{location}: {reason}")]
    Other {
        /// `s3://bucket/key`.
        location: String,
        /// The store's code and message.
        reason: String,
    },
}

impl S3Error {
    /// True if the same call may work later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Network { .. } | Self::Changed { .. })
    }
}

impl From<NoCredentials> for S3Error {
    fn from(error: NoCredentials) -> Self {
        Self::Credentials { reason: error.to_string() }
    }
}

/// How often an object is fetched when it comes broken or is not what was listed.
const FETCHES_MAX: u32 = 3;

/// A client of one store. Clones share the connections.
#[derive(Clone, Debug)]
pub struct S3Client {
    client: Client,
    runtime: Handle,
}

/// An object that [`S3Client::fetch_many`] fetched. Its share of the memory budget is free again when it is dropped.
#[derive(Debug)]
pub struct Fetched {
    /// The object, as listed.
    pub object: Object,
    /// Its bytes.
    pub bytes: Result<Bytes, S3Error>,
    _budget: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Fetched {
    /// The bytes, leaving none; the share of the budget stays taken until the drop.
    ///
    /// # Errors
    /// What kept the object from being fetched.
    pub fn take_bytes(&mut self) -> Result<Bytes, S3Error> {
        std::mem::replace(&mut self.bytes, Ok(Bytes::new()))
    }
}

impl S3Client {
    /// Finds credentials and prepares the client; asks the store nothing yet. `runtime` must be one with threads of its own.
    ///
    /// # Errors
    /// [`S3Error::Credentials`] if there are none, within seconds.
    pub fn connect(options: &S3Options, runtime: Handle) -> Result<Self, S3Error> {
        let aws = AwsOptions { region: options.region.clone(), endpoint_url: options.endpoint_url.clone() };
        let shared = runtime.block_on(aws::config(&aws))?;
        Ok(Self::of(&shared, runtime))
    }

    fn of(shared: &SdkConfig, runtime: Handle) -> Self {
        let mut config = aws_sdk_s3::config::Builder::from(shared);
        // The environment can name an endpoint too.
        if shared.endpoint_url().is_some() {
            // Compatible stores have no host name per bucket, and not all of them know the newer checksum headers.
            config = config
                .force_path_style(true)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        Self { client: Client::from_conf(config.build()), runtime }
    }

    /// The objects whose keys begin with `prefix` and come after `start_after`, in order of keys, page by page (at most
    /// 1,000 each). Keys that end in `/` and are empty are folders that consoles make; they are left out.
    pub fn list(&self, bucket: &str, prefix: &str, start_after: Option<&str>) -> Pages<'_> {
        Pages { client: self, bucket: bucket.to_owned(), prefix: prefix.to_owned(), next: Next::After(start_after.map(str::to_owned)) }
    }

    /// The folders directly under `prefix`, which must be empty or end in `/`; each with the prefix and a `/` at its end.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub fn folders(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, S3Error> {
        self.level(bucket, prefix).map(|(_, folders)| folders)
    }

    /// One level: the objects right below a prefix, and the prefixes up to the next `/`.
    ///
    /// # Errors
    /// [`S3Error`].
    pub fn level(&self, bucket: &str, prefix: &str) -> Result<(Vec<Object>, Vec<String>), S3Error> {
        let at = Place { bucket, key: prefix, action: Action::List };
        self.runtime.block_on(async {
            let (mut objects, mut folders) = (Vec::new(), Vec::new());
            let mut token = None;
            loop {
                let request = self.client.list_objects_v2().bucket(bucket).prefix(prefix).delimiter("/").set_continuation_token(token);
                let page = request.send().await.map_err(|e| at.error(&e))?;
                objects.extend(page.contents().iter().filter_map(listed));
                folders.extend(page.common_prefixes().iter().filter_map(|p| p.prefix().map(str::to_owned)));
                token = page.next_continuation_token;
                if token.is_none() {
                    return Ok((objects, folders));
                }
            }
        })
    }

    /// The bytes of a key, whatever its length and ETag.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub fn get(&self, bucket: &str, key: &str) -> Result<Bytes, S3Error> {
        self.runtime.block_on(self.fetch(bucket, key, None))
    }

    /// The bytes of a listed object: fetched again if they are not of the length and ETag that were listed.
    ///
    /// # Errors
    /// [`S3Error::Changed`] if that does not help; see [`S3Error`] for the rest.
    pub fn get_listed(&self, bucket: &str, object: &Object) -> Result<Bytes, S3Error> {
        self.runtime.block_on(self.fetch(bucket, &object.key, Some(object)))
    }

    async fn fetch(&self, bucket: &str, key: &str, listed: Option<&Object>) -> Result<Bytes, S3Error> {
        let mut attempt = 1;
        loop {
            match self.fetch_once(bucket, key, listed).await {
                Err(error) if error.retryable() && attempt < FETCHES_MAX => {
                    tracing::debug!(%error, attempt, "fetching again");
                    tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn fetch_once(&self, bucket: &str, key: &str, listed: Option<&Object>) -> Result<Bytes, S3Error> {
        let at = Place { bucket, key, action: Action::Read };
        let output = self.client.get_object().bucket(bucket).key(key).send().await.map_err(|e| at.error(&e))?;
        let changed = |reason| S3Error::Changed { bucket: bucket.to_owned(), key: key.to_owned(), reason };
        let etag = output.e_tag;
        if let Some(wanted) = listed.and_then(|object| object.etag.as_ref())
            && etag.as_ref().is_some_and(|got| got != wanted)
        {
            return Err(changed(format!("ETag {} and not {wanted}", etag.unwrap_or_default())));
        }
        let wanted = listed.map(|object| object.size).or(output.content_length.and_then(|n| u64::try_from(n).ok()));
        let bytes = output.body.collect().await.map_err(|error| at.network(DisplayErrorContext(&error)))?.into_bytes();
        match wanted {
            Some(wanted) if wanted != bytes.len() as u64 => Err(changed(format!("{} bytes and not {wanted}", bytes.len()))),
            _ => Ok(bytes),
        }
    }

    /// Fetches objects with up to `in_flight` downloads and results waiting or being worked on, of together at most about
    /// `bytes_max` (at least one object, however large). They come in no particular order, each once. Dropping the
    /// receiver ends it. A result holds its share until it is dropped, so `in_flight` must be above the number of readers.
    pub fn fetch_many<I>(&self, bucket: &str, objects: I, in_flight: usize, bytes_max: u64) -> crossbeam_channel::Receiver<Fetched>
    where
        I: IntoIterator<Item = Object>,
        I::IntoIter: Send + 'static,
    {
        const UNIT_BYTES: u64 = 4096;
        let (client, bucket, objects) = (self.clone(), bucket.to_owned(), objects.into_iter());
        // The two budgets bound what is in it.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let units = u32::try_from(bytes_max / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let (count, memory) = (Arc::new(Semaphore::new(in_flight.max(1))), Arc::new(Semaphore::new(units as usize)));
        self.runtime.spawn(async move {
            for object in objects {
                let share = u32::try_from(object.size.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, units);
                let (Ok(one), Ok(share)) = (count.clone().acquire_owned().await, memory.clone().acquire_many_owned(share).await) else {
                    return;
                };
                let (client, bucket, sender) = (client.clone(), bucket.clone(), sender.clone());
                let fetch = async move {
                    let bytes = client.fetch(&bucket, &object.key, Some(&object)).await;
                    sender.send(Fetched { object, bytes, _budget: (one, share) }).is_ok()
                };
                tokio::spawn(fetch);
            }
        });
        receiver
    }

    /// Writes an object, replacing what is there.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> Result<(), S3Error> {
        let at = Place { bucket, key, action: Action::Write };
        let request = self.client.put_object().bucket(bucket).key(key).body(ByteStream::from(bytes));
        self.runtime.block_on(request.send()).map(|_| ()).map_err(|e| at.error(&e))
    }

    /// Writes an object if there is none under the key; `false` if there is one. After a fault on the wire that one can be
    /// ours, written by an attempt whose answer was lost: who must know reads it back.
    ///
    /// # Errors
    /// See [`S3Error`]; after [`S3Error::Network`] the outcome is unknown.
    pub fn put_if_absent(&self, bucket: &str, key: &str, bytes: Bytes) -> Result<bool, S3Error> {
        let at = Place { bucket, key, action: Action::Write };
        self.runtime.block_on(async {
            let mut attempt = 1;
            loop {
                let request = self.client.put_object().bucket(bucket).key(key).if_none_match("*");
                let Err(error) = request.body(ByteStream::from(bytes.clone())).send().await else {
                    return Ok(true);
                };
                match status(&error) {
                    412 => return Ok(false),
                    // Somebody else was writing at the same moment: either they have written by now, or nobody has.
                    409 if attempt < 10 => {
                        if self.head_async(bucket, key).await?.is_some() {
                            return Ok(false);
                        }
                        tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                        attempt += 1;
                    }
                    _ => return Err(at.error(&error)),
                }
            }
        })
    }

    /// Copies an object within the bucket.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub fn copy(&self, bucket: &str, from: &str, to: &str) -> Result<(), S3Error> {
        let at = Place { bucket, key: from, action: Action::Write };
        // `CopySource` is a path of a URL.
        let source = format!("{bucket}/{}", percent_encoded(from, b"/"));
        let request = self.client.copy_object().bucket(bucket).key(to).copy_source(source);
        self.runtime.block_on(request.send()).map(|_| ()).map_err(|e| at.error(&e))
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub fn delete(&self, bucket: &str, key: &str) -> Result<(), S3Error> {
        let at = Place { bucket, key, action: Action::Delete };
        let result = self.runtime.block_on(self.client.delete_object().bucket(bucket).key(key).send());
        match result.map_err(|e| at.error(&e)) {
            Ok(_) | Err(S3Error::NoSuchKey { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is known of an object without its bytes; `None` if there is none. (A missing bucket looks the same: a HEAD
    /// answer has no body to tell them apart.)
    ///
    /// # Errors
    /// See [`S3Error`].
    pub fn head(&self, bucket: &str, key: &str) -> Result<Option<Object>, S3Error> {
        self.runtime.block_on(self.head_async(bucket, key))
    }

    async fn head_async(&self, bucket: &str, key: &str) -> Result<Option<Object>, S3Error> {
        let at = Place { bucket, key, action: Action::Read };
        match self.client.head_object().bucket(bucket).key(key).send().await {
            Ok(head) => Ok(Some(Object {
                source: "s3",
                key: key.to_owned(),
                size: head.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                etag: head.e_tag,
                modified: head.last_modified.map(|time| EventTime(time.secs())),
            })),
            Err(error) if status(&error) == 404 => Ok(None),
            Err(error) => Err(at.error(&error)),
        }
    }
}

/// Pages of a listing; see [`S3Client::list`]. After an error there is nothing more.
#[derive(Debug)]
pub struct Pages<'c> {
    client: &'c S3Client,
    bucket: String,
    prefix: String,
    next: Next,
}

#[derive(Debug)]
enum Next {
    After(Option<String>),
    Token(String),
    Done,
}

impl Iterator for Pages<'_> {
    type Item = Result<Vec<Object>, S3Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut request = self.client.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix);
        match std::mem::replace(&mut self.next, Next::Done) {
            Next::After(key) => request = request.set_start_after(key),
            Next::Token(token) => request = request.continuation_token(token),
            Next::Done => return None,
        }
        let at = Place { bucket: &self.bucket, key: &self.prefix, action: Action::List };
        Some(self.client.runtime.block_on(request.send()).map_err(|e| at.error(&e)).map(|page| {
            let objects = page.contents().iter().filter_map(listed).collect();
            if let Some(token) = page.next_continuation_token {
                self.next = Next::Token(token);
            }
            objects
        }))
    }
}

fn listed(object: &Listed) -> Option<Object> {
    let (key, size) = (object.key()?, u64::try_from(object.size().unwrap_or(0)).unwrap_or(0));
    (size > 0 || !key.ends_with('/')).then(|| Object {
        source: "s3",
        key: key.to_owned(),
        size,
        etag: object.e_tag().map(str::to_owned),
        modified: object.last_modified().map(|time| EventTime(time.secs())),
    })
}

#[derive(Copy, Clone)]
enum Action {
    List,
    Read,
    Write,
    Delete,
}

/// What was asked of which key: the context of an error.
#[derive(Copy, Clone)]
struct Place<'p> {
    bucket: &'p str,
    key: &'p str,
    action: Action,
}

/// The HTTP status of an answer; 0 if there was none.
fn status<E>(error: &SdkError<E>) -> u16 {
    error.raw_response().map_or(0, |raw| raw.status().as_u16())
}

impl Place<'_> {
    fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    fn network(&self, reason: impl ToString) -> S3Error {
        S3Error::Network { location: self.location(), reason: reason.to_string() }
    }

    fn error<E: ProvideErrorMetadata + std::error::Error + 'static>(&self, error: &SdkError<E>) -> S3Error {
        let SdkError::ServiceError(service) = error else {
            let reason = DisplayErrorContext(error).to_string();
            // The chain worked when the client was made and does no longer.
            return if matches!(error, SdkError::DispatchFailure(_)) && reason.contains("credentials") {
                S3Error::Credentials { reason: format!("AWS credentials can no longer be loaded: {reason}") }
            } else {
                self.network(reason)
            };
        };
        let (code, status) = (service.err().code().unwrap_or_default(), status(error));
        let message = service.err().message().unwrap_or("no message");
        let said = if code.is_empty() { format!("HTTP {status}, {message}") } else { format!("{code}, {message}") };
        let bucket = self.bucket.to_owned();
        match code {
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "RequestTimeTooSkewed" => {
                return S3Error::Credentials { reason: format!("the store refuses the credentials, renew them ({said})") };
            }
            "NoSuchBucket" => return S3Error::NoSuchBucket { bucket },
            "InvalidObjectState" => {
                return S3Error::Other { location: self.location(), reason: format!("the object is archived, restore it first ({said})") };
            }
            "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                let region = service.raw().headers().get("x-amz-bucket-region").unwrap_or("another region").to_owned();
                return S3Error::WrongRegion { bucket, region };
            }
            _ => {}
        }
        match status {
            301 | 307 => {
                let region = service.raw().headers().get("x-amz-bucket-region").unwrap_or("another region").to_owned();
                S3Error::WrongRegion { bucket, region }
            }
            403 | 401 => {
                let (action, permission) = match self.action {
                    Action::List => ("list", "s3:ListBucket"),
                    // Without the right to list, S3 says 403 of a key that is not there.
                    Action::Read => ("read", "s3:GetObject (and s3:ListBucket, kms:Decrypt if the bucket is encrypted)"),
                    Action::Write => ("write", "s3:PutObject"),
                    Action::Delete => ("delete", "s3:DeleteObject"),
                };
                S3Error::AccessDenied { action, permission, location: self.location(), reason: said }
            }
            404 if matches!(self.action, Action::List) => S3Error::NoSuchBucket { bucket },
            404 => S3Error::NoSuchKey { bucket, key: self.key.to_owned() },
            429 | 500..=599 => self.network(said),
            _ => S3Error::Other { location: self.location(), reason: said },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;

    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};

    /// A store that answers what the test says: request line and headers in, status, headers and body out.
    fn store(answer: impl Fn(&str) -> (u16, &'static str, Vec<u8>) + Send + Sync + 'static) -> (S3Client, tokio::runtime::Runtime) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, answer) = (stream.unwrap(), answer.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    loop {
                        let (mut head, mut line) = (String::new(), String::new());
                        while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                            head.push_str(&line);
                            line.clear();
                        }
                        if head.is_empty() {
                            return;
                        }
                        let length =
                            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse().ok()));
                        let mut body = vec![0; length.unwrap_or(0)];
                        reader.read_exact(&mut body).unwrap();
                        let (status, headers, body) = answer(&head);
                        let length =
                            if headers.contains("Content-Length") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                        write!(stream, "HTTP/1.1 {status} x\r\n{length}{headers}\r\n").unwrap();
                        if !head.starts_with("HEAD") {
                            stream.write_all(&body).unwrap();
                        }
                        if headers.contains("close") {
                            return;
                        }
                    }
                });
            }
        });
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(url)
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("id", "secret", None, None, "test")))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        (S3Client::of(&config, runtime.handle().clone()), runtime)
    }

    fn object(key: &str, size: u64, etag: &str) -> Object {
        Object { source: "s3", key: key.to_owned(), size, etag: Some(etag.to_owned()), modified: None }
    }

    fn refusal(code: &str) -> Vec<u8> {
        format!("<Error><Code>{code}</Code><Message>no</Message></Error>").into_bytes()
    }

    #[test]
    fn listings_come_in_pages() {
        let (client, _runtime) = store(|head| {
            let page = |rest: &str, keys: &[&str]| {
                let keys: String = keys.iter().map(|key| format!("<Contents><Key>{key}</Key><Size>{}</Size><ETag>&quot;e&quot;</ETag><LastModified>2023-07-10T11:45:12.000Z</LastModified></Contents>", key.len() % 3)).collect();
                (200, "", format!("<ListBucketResult>{rest}{keys}</ListBucketResult>").into_bytes())
            };
            assert!(head.contains("/bucket"), "{head}");
            if head.contains("delimiter") {
                page("<CommonPrefixes><Prefix>p/a/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>p/b/</Prefix></CommonPrefixes>", &[])
            } else if head.contains("continuation-token=two") {
                page("", &["p/c1"])
            } else {
                assert!(head.contains("start-after=p%2F0") && head.contains("prefix=p%2F"), "{head}");
                page("<IsTruncated>true</IsTruncated><NextContinuationToken>two</NextContinuationToken>", &["p/a", "p/b", "p/folder/"])
            }
        });
        let pages: Vec<_> =
            client.list("bucket", "p/", Some("p/0")).map(|page| page.unwrap().into_iter().map(|o| o.key).collect::<Vec<_>>()).collect();
        assert_eq!(pages, [vec!["p/a", "p/b"], vec!["p/c1"]]);
        let first = client.list("bucket", "p/", Some("p/0")).next().unwrap().unwrap().remove(0);
        assert_eq!(first, Object { modified: EventTime::parse("2023-07-10T11:45:12Z"), ..object("p/a", 0, "\"e\"") });
        assert_eq!(client.folders("bucket", "p/").unwrap(), ["p/a/", "p/b/"]);
    }

    #[test]
    fn an_object_must_be_the_one_that_was_listed() {
        let asked = Arc::new(Mutex::new(std::collections::BTreeMap::<String, u32>::new()));
        let (client, _runtime) = store(move |head| {
            let key = head.split([' ', '?']).nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
            let mut asked = asked.lock().unwrap();
            let n = asked.entry(key.clone()).or_default();
            *n += 1;
            match (key.as_str(), *n) {
                ("good", _) | ("later", 3) => (200, "ETag: \"1\"\r\n", b"12345".to_vec()),
                ("later", 1) => (200, "ETag: \"0\"\r\n", b"12345".to_vec()),
                ("later", _) => (200, "ETag: \"1\"\r\nContent-Length: 5\r\nConnection: close\r\n", b"12".to_vec()),
                ("short", _) => (200, "ETag: \"1\"\r\n", b"1234".to_vec()),
                ("busy", _) => (503, "", refusal("SlowDown")),
                _ => (404, "", refusal("NoSuchKey")),
            }
        });
        let get = |key: &str| client.get_listed("bucket", &object(key, 5, "\"1\""));
        assert_eq!(get("good").unwrap(), "12345");
        assert_eq!(get("later").unwrap(), "12345");
        assert!(matches!(get("short").unwrap_err(), S3Error::Changed { reason, .. } if reason == "4 bytes and not 5"));
        assert!(get("busy").unwrap_err().retryable());
        assert_eq!(get("gone").unwrap_err(), S3Error::NoSuchKey { bucket: "bucket".to_owned(), key: "gone".to_owned() });
        assert_eq!(client.get("bucket", "short").unwrap(), "1234");

        let objects: Vec<_> = (0..50).map(|n| object(if n % 10 == 0 { "gone" } else { "good" }, 5, "\"1\"")).collect();
        let fetched = client.fetch_many("bucket", objects, 4, 1);
        assert!(fetched.len() <= 4);
        let fetched: Vec<_> = fetched.iter().map(|f| f.bytes.is_ok()).collect();
        assert_eq!((fetched.len(), fetched.iter().filter(|ok| **ok).count()), (50, 45));
    }

    #[test]
    fn writes_say_who_was_first() {
        let tries = Mutex::new(0);
        let (client, _runtime) = store(move |head| {
            let conditional = head.to_lowercase().contains("if-none-match: *");
            if head.starts_with("PUT /bucket/new") {
                (if conditional { 200 } else { 400 }, "", vec![])
            } else if head.starts_with("PUT /bucket/taken") {
                (if conditional { 412 } else { 200 }, "", if conditional { refusal("PreconditionFailed") } else { vec![] })
            } else if head.starts_with("PUT /bucket/race") {
                let mut tries = tries.lock().unwrap();
                *tries += 1;
                if *tries < 3 { (409, "", refusal("ConditionalRequestConflict")) } else { (200, "", vec![]) }
            } else if head.starts_with("PUT /bucket/lost") {
                (409, "", refusal("ConditionalRequestConflict"))
            } else if head.starts_with("HEAD /bucket/lost") {
                (200, "ETag: \"1\"\r\n", b"123".to_vec())
            } else if head.starts_with("PUT /bucket/copy") {
                assert!(head.to_lowercase().contains("x-amz-copy-source: bucket/a%20b%2b%c3%a9/c"), "{head}");
                (200, "", b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>".to_vec())
            } else {
                (404, "", if head.starts_with("HEAD") { vec![] } else { refusal("NoSuchKey") })
            }
        });
        let put = |key| client.put_if_absent("bucket", key, Bytes::from_static(b"x"));
        assert_eq!((put("new"), put("taken"), put("race"), put("lost")), (Ok(true), Ok(false), Ok(true), Ok(false)));
        client.put("bucket", "taken", Bytes::from_static(b"x")).unwrap();
        client.copy("bucket", "a b+\u{e9}/c", "copy").unwrap();
        client.delete("bucket", "gone").unwrap();
        assert_eq!(client.head("bucket", "gone").unwrap(), None);
        assert_eq!(client.head("bucket", "lost").unwrap(), Some(object("lost", 3, "\"1\"")));
    }

    #[test]
    fn missing_credentials_are_said_soon() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let started = std::time::Instant::now();
        // Where the tests run with credentials this connects; without, the chain ends at instance metadata.
        if let Err(error) = S3Client::connect(&S3Options::default(), runtime.handle().clone()) {
            assert!(matches!(error, S3Error::Credentials { .. }) && error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }

    #[test]
    fn refusals_say_what_to_do() {
        let (client, _runtime) = store(|head| {
            let path = head.split(['/', '?', ' ']).nth(2).unwrap();
            match path {
                "missing" => (404, "", refusal("NoSuchBucket")),
                "denied" => (403, "", refusal("AccessDenied")),
                "expired" => (400, "", refusal("ExpiredToken")),
                "elsewhere" => (301, "x-amz-bucket-region: eu-west-1\r\n", refusal("PermanentRedirect")),
                "ill" => (500, "", refusal("InternalError")),
                _ => (400, "", refusal("Odd")),
            }
        });
        for (bucket, words, retryable) in [
            ("missing", "bucket `missing` does not exist: check", false),
            ("denied", "not allowed to list s3://denied/p: grant s3:ListBucket", false),
            ("expired", "refuses the credentials, renew them (ExpiredToken", false),
            ("elsewhere", "is in eu-west-1: set `region`", false),
            ("ill", "try again later: InternalError", true),
            ("odd", "s3://odd/p: Odd, no", false),
        ] {
            let mut pages = client.list(bucket, "p", None);
            let error = pages.next().unwrap().unwrap_err();
            assert!(error.to_string().contains(words) && error.retryable() == retryable, "{error}");
            assert!(pages.next().is_none());
        }
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (client, _runtime) = {
            let (client, runtime) = store(|_| (200, "", vec![]));
            let config = client.client.config().to_builder().endpoint_url(format!("http://{closed}")).build();
            (S3Client { client: Client::from_conf(config), runtime: runtime.handle().clone() }, runtime)
        };
        let error = client.get("bucket", "key").unwrap_err();
        assert!(matches!(&error, S3Error::Network { location, .. } if location == "s3://bucket/key") && error.retryable(), "{error}");
    }
}
