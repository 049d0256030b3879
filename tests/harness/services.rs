//! The services that `tests/services/services` started, and clients of our own to fill them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// What the services printed when they started: from the environment, else from those that run.
fn settings() -> &'static BTreeMap<String, String> {
    static SETTINGS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let mut found = BTreeMap::new();
        if let Ok(out) = Command::new(script("services")).arg("env").output() {
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            found.extend(text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        for key in ["KAFKA_BROKERS", "S3_ENDPOINT", "S3_DATA", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "MOTO_ENDPOINT"]
        {
            if let Ok(value) = std::env::var(key) {
                found.insert(key.to_owned(), value);
            }
        }
        found
    })
}

/// A script of `tests/services`.
pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(name)
}

/// One setting of a service. Without it the test is skipped, and says so; in CI it fails.
fn setting(key: &str) -> Option<String> {
    let found = settings().get(key).cloned();
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{key} is not set: no service runs");
        println!("skipped: {key} is not set; `tests/services/services start` brings it");
    }
    found
}

/// An S3 server with conditional writes.
pub struct S3 {
    pub endpoint: String,
    /// The server keeps its objects here as files, so that tables can be read without another client.
    pub data: PathBuf,
    access_key: String,
    secret_key: String,
    region: String,
    client: aws_sdk_s3::Client,
    runtime: tokio::runtime::Runtime,
}

impl S3 {
    pub fn connect() -> Option<Self> {
        let endpoint = setting("S3_ENDPOINT")?;
        let (access_key, secret_key, region) = (setting("AWS_ACCESS_KEY_ID")?, setting("AWS_SECRET_ACCESS_KEY")?, setting("AWS_REGION")?);
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .endpoint_url(&endpoint)
            .credentials_provider(Credentials::new(&access_key, &secret_key, None, None, "tests"))
            .force_path_style(true)
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = aws_sdk_s3::Client::from_conf(config);
        Some(Self { endpoint, data: setting("S3_DATA")?.into(), access_key, secret_key, region, client, runtime })
    }

    /// A new bucket of a name that no other test has.
    pub fn bucket(&self, name: &str) -> String {
        let bucket = format!("{name}-{}", unique());
        self.runtime.block_on(self.client.create_bucket().bucket(&bucket).send()).unwrap();
        bucket
    }

    pub fn put(&self, bucket: &str, key: &str, body: Vec<u8>) {
        self.runtime.block_on(self.client.put_object().bucket(bucket).key(key).body(body.into()).send()).unwrap();
    }

    /// The environment of a process that may use it.
    pub fn env(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("AWS_REGION", self.region.clone()),
        ]
    }

    /// The `[aws]` part of a configuration for it.
    pub fn config(&self) -> String {
        format!("[aws]\nregion = {:?}\nendpoint_url = {:?}\n", self.region, self.endpoint)
    }
}

/// A Kafka broker.
pub struct Kafka {
    pub brokers: String,
    producer: BaseProducer,
}

impl Kafka {
    pub fn connect() -> Option<Self> {
        let brokers = setting("KAFKA_BROKERS")?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &brokers).set("linger.ms", "5").set("compression.type", "zstd").set("message.max.bytes", "4000000");
        Some(Self { brokers, producer: config.create().unwrap() })
    }

    /// A new topic of a name that no other test has.
    pub fn topic(&self, name: &str, partitions: i32) -> String {
        let topic = format!("{name}-{}", unique());
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let new =
            NewTopic::new(&topic, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", "4000000").set("retention.ms", "-1");
        let made = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
            // Answered only when the topic has a leader, so that nothing has to be tried again.
            admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))),
        );
        made.unwrap().into_iter().for_each(|result| drop(result.unwrap()));
        topic
    }

    /// Sends one message with the broker time `at` (seconds since 1970); `flush` waits for all.
    pub fn send(&self, topic: &str, partition: i32, at: i64, value: &[u8]) {
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).timestamp(at * 1000).payload(value);
        while let Err((error, back)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::error::RDKafkaErrorCode::QueueFull), "{error}");
            self.producer.poll(Duration::from_millis(10));
            record = back;
        }
    }

    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(self.producer.in_flight_count(), 0);
    }
}

/// moto, which stands for EC2, Lambda and STS.
#[cfg(feature = "collect")]
pub fn moto() -> Option<String> {
    setting("MOTO_ENDPOINT")
}

/// The Python of the venv that `tests/services/services install` made.
#[cfg(feature = "collect")]
pub fn python() -> PathBuf {
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("venv/bin/python")
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let micros = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{:x}-{}-{}", micros & 0xffff_ffff_ffff, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
