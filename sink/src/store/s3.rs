//! A prefix of an S3 bucket (or of any server that speaks S3) as a store.
//!
//! A blocking face over the SDK: it brings its own small runtime, so callers are ordinary threads.

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Store, StoreError, StoreOptions, check_key};

/// Requests in flight for batches.
const AT_ONCE: usize = 16;
/// How often a conditional write whose outcome is unknown is tried before the caller hears of it.
const TRIES: u32 = 5;

/// See the module.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Without a slash at the end; may be empty.
    prefix: String,
    runtime: Runtime,
}

/// What a conditional write came to.
enum Conditional {
    Created,
    Taken,
    /// The service asks to try again (409), or nobody knows what happened.
    Unknown(StoreError),
}

impl S3Store {
    /// Connects to nothing yet: the first request does.
    ///
    /// # Errors
    /// Without a region, or when threads cannot be started.
    pub fn open(bucket: &str, prefix: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let location = format!("s3://{bucket}/{prefix}");
        let failed = |why: String| StoreError::Location { location: location.clone(), why };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("flowtrail-s3")
            .enable_all()
            .build()
            .map_err(|e| failed(format!("no threads for it: {e}")))?;
        let client = runtime.block_on(client(options)).ok_or_else(|| failed("no region: set [aws] region or AWS_REGION".to_owned()))?;
        Ok(Self { client, bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned(), runtime })
    }

    /// Runs a request to its end. Through a channel, so that it also works on a thread that belongs to another runtime.
    fn wait<T: Send + 'static>(
        &self,
        doing: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let _ = sender.send(work.await);
        });
        receiver.recv().unwrap_or_else(|_| Err(StoreError::Other { doing, at: self.at(key), why: "the request was dropped".to_owned() }))
    }

    /// Runs requests to their ends, `AT_ONCE` of them at a time; the first error ends it.
    fn wait_all<F>(&self, doing: &'static str, requests: Vec<F>) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let at = self.describe();
        let dropped = move |()| StoreError::Other { doing, at: at.clone(), why: "the request was dropped".to_owned() };
        self.wait(doing, "", async move {
            let mut waiting = requests.into_iter();
            let mut running: JoinSet<Result<(), StoreError>> = waiting.by_ref().take(AT_ONCE).collect();
            while let Some(done) = running.join_next().await {
                done.unwrap_or_else(|_| Err(dropped(())))?;
                if let Some(next) = waiting.next() {
                    running.spawn(next);
                }
            }
            Ok(())
        })
    }

    fn full(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    fn at(&self, key: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.full(key))
    }

    fn put_request(&self, key: &str, bytes: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let at = self.at(key);
        let request = self.client.put_object().bucket(&self.bucket).key(self.full(key)).body(ByteStream::from(bytes.to_vec()));
        async move { request.send().await.map(drop).map_err(|e| error("writing", at, &e)) }
    }

    fn publish_request(&self, from: &str, to: &str) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let (at, source_at) = (self.at(to), self.at(from));
        let source = format!("{}/{}", self.bucket, self.full(from));
        let copy = self.client.copy_object().bucket(&self.bucket).key(self.full(to)).copy_source(escaped(&source));
        let head = self.client.head_object().bucket(&self.bucket).key(self.full(to));
        async move {
            match copy.send().await {
                Ok(_) => Ok(()),
                Err(e) if status(&e) == Some(404) && code(&e) != Some("NoSuchBucket") => match head.send().await {
                    // It was published and its staged copy removed before.
                    Ok(_) => Ok(()),
                    Err(e) if status(&e) == Some(404) => Err(StoreError::Missing {
                        at,
                        hint: format!(
                            ", nor does {source_at}, which it was to be published from: it was removed by hand or by another owner"
                        ),
                    }),
                    Err(e) => Err(error("publishing", at, &e)),
                },
                Err(e) => Err(error("publishing", at, &e)),
            }
        }
    }

    fn conditional(&self, key: &str, bytes: &[u8]) -> Result<Conditional, StoreError> {
        let at = self.at(key);
        // The SDK must not try again by itself: a second try after a lost answer would find our own object "taken".
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .if_none_match("*")
            .body(ByteStream::from(bytes.to_vec()))
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().retry_config(RetryConfig::disabled()));
        self.wait("writing", key, async move {
            Ok(match request.send().await {
                Ok(_) => Conditional::Created,
                Err(e) if status(&e) == Some(412) => Conditional::Taken,
                Err(e) if matches!(status(&e), Some(s) if (400..500).contains(&s) && !matches!(s, 408 | 409 | 429)) => {
                    return Err(error("writing", at, &e));
                }
                Err(e) => Conditional::Unknown(error("writing", at, &e)),
            })
        })
    }
}

impl Store for S3Store {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key)?;
        let at = self.at(key);
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(key));
        self.wait("reading", key, async move {
            let mut last = None;
            // A body can break off after the answer has begun, which the SDK does not repeat.
            for _ in 0..3 {
                match request.clone().send().await {
                    Ok(object) => match object.body.collect().await {
                        Ok(bytes) => return Ok(Some(bytes.to_vec())),
                        Err(e) => last = Some(StoreError::Other { doing: "reading", at: at.clone(), why: e.to_string() }),
                    },
                    Err(e) if status(&e) == Some(404) && code(&e) != Some("NoSuchBucket") => return Ok(None),
                    Err(e) => return Err(error("reading", at, &e)),
                }
            }
            last.map_or(Ok(None), Err)
        })
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_key(key)?;
        self.wait("writing", key, self.put_request(key, bytes))
    }

    fn put_many(&self, files: &[(String, &[u8])]) -> Result<(), StoreError> {
        files.iter().try_for_each(|(key, _)| check_key(key))?;
        // In portions, because each request needs its own copy of the bytes.
        for some in files.chunks(AT_ONCE) {
            let requests: Vec<_> = some.iter().map(|(key, bytes)| self.put_request(key, bytes)).collect();
            self.wait_all("writing", requests)?;
        }
        Ok(())
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        check_key(key)?;
        let mut unknown = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(100 << attempt));
            }
            match self.conditional(key, bytes)? {
                Conditional::Created => return Ok(true),
                Conditional::Taken if unknown.is_none() => return Ok(false),
                // Taken after an attempt whose answer was lost: by us or by another? The object knows.
                Conditional::Taken => return Ok(self.get(key)?.as_deref() == Some(bytes)),
                Conditional::Unknown(error) => {
                    if let Ok(Some(found)) = self.get(key) {
                        return Ok(found == bytes);
                    }
                    unknown = Some(error);
                }
            }
        }
        Err(unknown.unwrap_or_else(|| StoreError::Other { doing: "writing", at: self.at(key), why: "no answer".to_owned() }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let at = self.at(prefix);
        let root = self.full("");
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.full(prefix)).into_paginator().send();
        self.wait("listing", prefix, async move {
            let mut found = Vec::new();
            while let Some(page) = pages.next().await {
                for object in page.map_err(|e| error("listing", at.clone(), &e))?.contents.unwrap_or_default() {
                    let key = object.key.unwrap_or_default();
                    let size = u64::try_from(object.size.unwrap_or_default()).unwrap_or_default();
                    // Consoles make "folders" as empty objects with a slash at the end: no keys of ours.
                    if let Some(key) = key.strip_prefix(&root).filter(|k| !k.is_empty() && !k.ends_with('/')) {
                        found.push((key.to_owned(), size));
                    }
                }
            }
            found.sort_unstable();
            Ok(found)
        })
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        let at = self.at(key);
        let request = self.client.delete_object().bucket(&self.bucket).key(self.full(key));
        self.wait("removing", key, async move {
            match request.send().await {
                Ok(_) => Ok(()),
                // Some servers say 404 where S3 says nothing.
                Err(e) if status(&e) == Some(404) && code(&e) != Some("NoSuchBucket") => Ok(()),
                Err(e) => Err(error("removing", at, &e)),
            }
        })
    }

    fn publish(&self, from: &str, to: &str) -> Result<(), StoreError> {
        check_key(from)?;
        check_key(to)?;
        self.wait("publishing", to, self.publish_request(from, to))
    }

    fn publish_many(&self, moves: &[(String, String)]) -> Result<(), StoreError> {
        moves.iter().try_for_each(|(from, to)| check_key(from).and_then(|()| check_key(to)))?;
        let requests: Vec<_> = moves.iter().map(|(from, to)| self.publish_request(from, to)).collect();
        self.wait_all("publishing", requests)
    }

    fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| check_key(key))?;
        // S3 takes a thousand keys a request.
        for some in keys.chunks(1000) {
            let at = self.describe();
            let ids: Result<Vec<_>, _> = some.iter().map(|key| ObjectIdentifier::builder().key(self.full(key)).build()).collect();
            let delete = ids.and_then(|ids| Delete::builder().set_objects(Some(ids)).quiet(true).build());
            let delete = delete.map_err(|e| StoreError::Other { doing: "removing", at: at.clone(), why: e.to_string() })?;
            let request = self.client.delete_objects().bucket(&self.bucket).delete(delete);
            self.wait("removing", "", async move {
                let answer = request.send().await.map_err(|e| error("removing", at.clone(), &e))?;
                let refused = answer.errors.unwrap_or_default().into_iter().find(|e| e.code.as_deref() != Some("NoSuchKey"));
                match refused {
                    None => Ok(()),
                    Some(e) if e.code.as_deref() == Some("AccessDenied") => Err(StoreError::Denied {
                        at: e.key.unwrap_or(at),
                        why: "s3:DeleteObject was refused: allow it to this role".to_owned(),
                    }),
                    Some(e) => {
                        Err(StoreError::Other { doing: "removing", at: e.key.unwrap_or(at), why: e.message.or(e.code).unwrap_or_default() })
                    }
                }
            })?;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        self.at("").trim_end_matches('/').to_owned()
    }
}

async fn client(options: &StoreOptions) -> Option<Client> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(
        TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).operation_attempt_timeout(Duration::from_secs(120)).build(),
    );
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(url) = &options.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    let shared = loader.load().await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared).retry_config(RetryConfig::standard().with_max_attempts(5));
    if shared.endpoint_url().is_some() {
        // Other servers know buckets by path, rarely the newer checksums, and need no region.
        config = config
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if shared.region().is_none() {
            config = config.region(Region::new("us-east-1"));
        }
    } else if shared.region().is_none() {
        return None;
    }
    Some(Client::from_conf(config.build()))
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|r| r.status().as_u16())
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The store's error for the SDK's, in words that say what to do.
fn error<E>(doing: &'static str, at: String, error: &SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let (status, code) = (status(error), code(error));
    match (status, code) {
        (_, Some("NoSuchBucket")) => {
            StoreError::Missing { at, hint: ": there is no such bucket, create it or correct the location".to_owned() }
        }
        (_, Some(code @ ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "InvalidClientTokenId"))) => {
            StoreError::Denied { at, why: format!("the credentials were not accepted ({code}): check the keys, profile or role in use") }
        }
        (Some(401 | 403), code) => StoreError::Denied {
            at,
            why: format!("{doing} was refused ({}): `flowtrail check` prints the policy it needs", code.unwrap_or("403")),
        },
        (Some(301), _) | (_, Some("PermanentRedirect" | "AuthorizationHeaderMalformed")) => {
            StoreError::Other { doing, at, why: "the bucket is in another region: set [aws] region".to_owned() }
        }
        (_, Some("EntityTooLarge")) => StoreError::TooLarge { at },
        (_, Some("QuotaExceeded" | "XMinioStorageFull")) => StoreError::Full { at },
        (None, _) => StoreError::Other { doing, at, why: unreachable_words(error) },
        _ => StoreError::Other { doing, at, why: DisplayErrorContext(error).to_string() },
    }
}

fn unreachable_words<E: std::error::Error + Send + Sync + 'static>(error: &SdkError<E>) -> String {
    let context = DisplayErrorContext(error).to_string();
    if context.contains("credentials") {
        format!("no usable AWS credentials: set AWS_PROFILE, AWS_ACCESS_KEY_ID or a role ({context})")
    } else {
        format!("no answer from the service ({context})")
    }
}

/// `bucket/key` for `x-amz-copy-source`, which is a URL path.
fn escaped(path: &str) -> String {
    flowtrail_ingest::source::percent_encoded(path, b"/")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn nowhere() -> S3Store {
        let options = StoreOptions { region: Some("eu-west-1".into()), endpoint_url: Some("http://127.0.0.1:9".into()) };
        S3Store::open("b", "p/", &options).unwrap()
    }

    #[test]
    fn names_and_copy_sources() {
        let store = nowhere();
        assert_eq!(store.describe(), "s3://b/p");
        assert_eq!(store.at("t/dt=2026-01-05/x"), "s3://b/p/t/dt=2026-01-05/x");
        assert_eq!(escaped("b/p/dt=2026-01-05/x y+z%.parquet"), "b/p/dt%3D2026-01-05/x%20y%2Bz%25.parquet");
        assert!(matches!(store.put("../x", b""), Err(StoreError::BadKey { .. })));
    }

    /// Runs on a server when one is given: `FLOWTRAIL_TEST_S3=http://127.0.0.1:PORT/BUCKET` and credentials in the environment.
    #[test]
    fn a_bucket_keeps_the_laws() {
        let Ok(url) = std::env::var("FLOWTRAIL_TEST_S3") else { return println!("skipped: no FLOWTRAIL_TEST_S3") };
        let (endpoint, bucket) = url.rsplit_once('/').unwrap();
        let options = StoreOptions { region: Some("us-east-1".into()), endpoint_url: Some(endpoint.into()) };
        let prefix = format!("laws/{}", std::process::id());
        super::super::laws::check_store(&S3Store::open(bucket, &prefix, &options).unwrap());
        let missing = S3Store::open("no-such-bucket-here", "", &options).unwrap();
        let error = missing.put("a", b"x").unwrap_err().to_string();
        assert!(error.contains("no such bucket"), "{error}");
    }
}
