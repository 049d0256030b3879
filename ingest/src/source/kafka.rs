//! Messages of Kafka topics, from positions that we keep.
//!
//! One consumer and one thread to a topic (librdkafka does not say which topic an end of partition belongs to). All
//! partitions are assigned by hand at the positions given; consumer groups do not move them, and offsets committed to the
//! group are for lag tools only ([`KafkaReader::acknowledge`]). Brokers may come and go: librdkafka reconnects for ever,
//! and [`KafkaReader::trouble`] says what it is waiting for. What brokers deleted before we read it is reported as
//! [`KafkaEvent::Gap`], never skipped silently.
//!
//! TLS and SASL come with the cargo feature `kafka-ssl`, logins to MSK with IAM with `kafka-msk-iam`; SCRAM works with MSK
//! as it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as Native, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};

/// A partition: topic and number.
pub type Partition = (Arc<str>, i32);

/// Where to read, and how.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port` of some brokers.
    pub brokers: Vec<String>,
    /// Topics; all of their partitions are read, those that are added later too.
    pub topics: Vec<String>,
    /// The group whose committed offsets lag tools look at.
    pub group: String,
    /// Passed to librdkafka as they are. `auto.offset.reset` says where partitions without a position begin (default
    /// `earliest`).
    pub options: BTreeMap<String, String>,
    /// The next offset to read of each partition that was read before.
    pub start: BTreeMap<(String, i32), i64>,
    /// Messages that may wait for the reader before librdkafka is left to wait too.
    pub queue_max: usize,
    /// Logins with IAM.
    #[cfg(feature = "kafka-msk-iam")]
    pub msk_iam: Option<super::msk::MskIam>,
}

/// What comes out of a [`KafkaReader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaEvent {
    /// A message.
    Message(KafkaMessage),
    /// All of a partition was read, for now: `offset` is the next one to come.
    End {
        /// The partition.
        partition: Partition,
        /// The next offset.
        offset: i64,
    },
    /// Messages `from..to` were deleted by the brokers (retention) before they were read.
    Gap {
        /// The partition.
        partition: Partition,
        /// The position that was wanted.
        from: i64,
        /// The first offset that is still there.
        to: i64,
    },
    /// The reading of a topic ended and does not go on by itself.
    Failed(KafkaError),
}

/// One record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaMessage {
    /// Topic and partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: i64,
    /// The broker's or producer's time, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The value; empty for a tombstone.
    pub payload: Bytes,
}

/// How far the reading of a partition is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// The next offset to hand out.
    pub next: i64,
    /// The offset the next message written will get, as last heard (every 5 s).
    pub high: i64,
    /// All was read when we last looked. Transactions end in records that nobody is handed, so `next` can stay below
    /// `high` then.
    pub at_end: bool,
    /// Where reading of it began.
    pub first: i64,
    /// The answer to the newest [`KafkaReader::ask_ends`].
    pub end: Option<EndOf>,
    /// Everything before this offset is in [`KafkaReader::events`] or was taken from there. Asked before the queue is found
    /// empty, it tells that reading has passed records that nobody is handed.
    pub passed: i64,
}

/// Where a partition ended at a moment after it was asked for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct EndOf {
    /// The ticket of [`KafkaReader::ask_ends`].
    pub ticket: u64,
    /// The offset that the next record gets.
    pub offset: i64,
}

impl Lag {
    /// Messages that wait.
    #[must_use]
    pub fn messages(self) -> u64 {
        if self.at_end { 0 } else { u64::try_from(self.high.saturating_sub(self.next)).unwrap_or(0) }
    }
}

/// What went wrong, as far as a caller acts on the difference. Each message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// An option that librdkafka does not take, or that is ours to set.
    #[error("kafka option: {reason}")]
    Option {
        /// Key and reason.
        reason: String,
    },
    /// No broker answers.
    #[error("no broker of {brokers} answers: check that they run and can be reached from here ({reason})")]
    Unreachable {
        /// As configured.
        brokers: String,
        /// What librdkafka said last.
        reason: String,
    },
    /// The brokers refuse the credentials, or speak another protocol than we.
    #[error("the brokers of {brokers} refuse the login: check security.protocol, sasl.mechanisms, user and password ({reason})")]
    Login {
        /// As configured.
        brokers: String,
        /// What librdkafka said.
        reason: String,
    },
    /// The topic is not there.
    #[error("topic `{topic}` does not exist at {brokers}: create it, or correct `topics`")]
    NoTopic {
        /// The topic.
        topic: String,
        /// As configured.
        brokers: String,
    },
    /// The topic is there but not for us.
    #[error("not allowed to read topic `{topic}`: grant Read and Describe on it, and Read on the group")]
    Denied {
        /// The topic.
        topic: String,
    },
    /// The position lies beyond what the topic holds.
    #[error(
        "topic `{topic}` partition {partition} ends at {end}, but was read up to {position}: was it made anew? read it under another state"
    )]
    BeyondEnd {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where reading was to go on.
        position: i64,
        /// The partition's end.
        end: i64,
    },
    /// Anything else.
    #[error("kafka: {reason}")]
    Other {
        /// What librdkafka said.
        reason: String,
    },
}

impl KafkaError {
    /// True if the same may work later without anybody's doing.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Other { .. })
    }
}

/// How long brokers may take to answer at the start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long brokers may take to say where a partition ends.
const ENDS_TIMEOUT: Duration = Duration::from_secs(5);
/// When brokers did not say it, they are asked again after this long.
const ENDS_AGAIN: Duration = Duration::from_secs(1);
/// How often the threads look whether they are to stop.
const POLL: Duration = Duration::from_millis(100);
/// How often topics are looked at for new partitions.
const REFRESH: Duration = Duration::from_secs(120);

/// Options that positions of our own need.
const OURS: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    // A position that is gone must become a gap that is said.
    ("auto.offset.reset", "error"),
];

#[derive(Debug, Default)]
struct Progress {
    next: AtomicI64,
    high: AtomicI64,
    at_end: AtomicBool,
    first: AtomicI64,
    passed: AtomicI64,
    end: Mutex<Option<EndOf>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The newest ticket of [`KafkaReader::ask_ends`].
    asked: AtomicU64,
    /// Messages may be waiting, so that only the thread may poll.
    reading: AtomicBool,
    stop: AtomicBool,
    progress: Mutex<BTreeMap<Partition, Arc<Progress>>>,
    trouble: Mutex<Option<(Code, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears what librdkafka says beside the messages.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    #[cfg(feature = "kafka-msk-iam")]
    msk_iam: Option<super::msk::MskIam>,
}

impl ClientContext for Watch {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = cfg!(feature = "kafka-msk-iam");

    #[cfg(feature = "kafka-msk-iam")]
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<rdkafka::client::OAuthToken, Box<dyn std::error::Error>> {
        let iam = self.msk_iam.as_ref().ok_or("OAUTHBEARER without aws_msk_iam = true: there is no other source of tokens")?;
        let token = iam.token()?;
        Ok(rdkafka::client::OAuthToken { token: token.text, principal_name: "flowtrail".to_owned(), lifetime_ms: token.ends_ms })
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, message, "librdkafka");
            }
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let progress = lock(&self.shared.progress);
        for (partition, progress) in progress.iter() {
            let known = statistics.topics.get(&*partition.0).and_then(|topic| topic.partitions.get(&partition.1));
            if let Some(known) = known.filter(|known| known.hi_offset >= 0) {
                progress.high.store(known.hi_offset, Ordering::Relaxed);
                // Nothing waits in librdkafka, and what it had handed out before it counted is in our queue by now: both
                // are done by the one thread that polls.
                if known.fetchq_cnt == 0 {
                    progress.passed.fetch_max(known.eof_offset, Ordering::Release);
                }
            }
        }
    }

    fn error(&self, error: Native, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if code == Code::PartitionEOF {
            return;
        }
        let mut trouble = lock(&self.shared.trouble);
        // "All brokers are down" follows on the reason why; keep the reason.
        if trouble.is_none() || code != Code::AllBrokersDown {
            if trouble.is_none() {
                tracing::warn!(%code, reason, "kafka");
            }
            *trouble = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Watch {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(%error, "offsets were not committed to the group; positions of our own are not touched");
        }
    }
}

type Consumer = BaseConsumer<Watch>;

/// Reads topics; ends when dropped.
#[derive(Debug)]
pub struct KafkaReader {
    events: Receiver<KafkaEvent>,
    topics: Vec<Topic>,
    threads: Vec<JoinHandle<()>>,
}

/// One topic and its consumer.
#[derive(Clone)]
struct Topic {
    name: Arc<str>,
    brokers: String,
    from_end: bool,
    consumer: Arc<Consumer>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl KafkaReader {
    /// Connects, checks topics and positions, and begins to read.
    ///
    /// # Errors
    /// [`KafkaError`], within some ten seconds a topic.
    pub fn connect(options: &KafkaOptions) -> Result<Self, KafkaError> {
        let (sender, events) = crossbeam_channel::bounded(options.queue_max.max(1));
        let mut reader = Self { events, topics: Vec::new(), threads: Vec::new() };
        let mut ready = Vec::new();
        for name in &options.topics {
            let topic = Topic::open(options, name)?;
            let start = options.start.iter().filter(|((topic, _), _)| topic == name).map(|((_, partition), next)| (*partition, *next));
            let (positions, gaps) = topic.positions(&start.collect())?;
            topic.shared.reading.store(true, Ordering::Relaxed);
            topic.assign(&positions)?;
            reader.topics.push(topic.clone());
            ready.push((topic, gaps));
        }
        for (topic, gaps) in ready {
            let (sender, name) = (sender.clone(), format!("kafka-{}", topic.name));
            let thread = std::thread::Builder::new().name(name).spawn(move || topic.read(&sender, gaps));
            reader.threads.push(thread.map_err(|error| KafkaError::Other { reason: format!("no thread to read with: {error}") })?);
        }
        Ok(reader)
    }

    /// Messages and what happens to partitions. In order within a partition. It is disconnected when every topic failed.
    #[must_use]
    pub fn events(&self) -> &Receiver<KafkaEvent> {
        &self.events
    }

    /// How far each partition is read.
    #[must_use]
    pub fn lag(&self) -> BTreeMap<Partition, Lag> {
        let mut all = BTreeMap::new();
        for topic in &self.topics {
            for (partition, progress) in lock(&topic.shared.progress).iter() {
                let lag = Lag {
                    next: progress.next.load(Ordering::Relaxed),
                    high: progress.high.load(Ordering::Relaxed),
                    at_end: progress.at_end.load(Ordering::Relaxed),
                    first: progress.first.load(Ordering::Relaxed),
                    end: *lock(&progress.end),
                    passed: progress.passed.load(Ordering::Acquire),
                };
                all.insert(partition.clone(), lag);
            }
        }
        all
    }

    /// Asks the brokers where partitions end now. The answer comes soon after as [`Lag::end`], with the ticket that is
    /// returned here or a later one; that a partition *was* at its end says nothing about what came since.
    pub fn ask_ends(&self) -> u64 {
        let mut ticket = 0;
        for topic in &self.topics {
            ticket = topic.shared.asked.fetch_add(1, Ordering::AcqRel) + 1;
        }
        ticket
    }

    /// What librdkafka complains about, if nothing has come since: for health pages.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.topics.iter().find_map(|topic| lock(&topic.shared.trouble).clone()).map(|(code, reason)| format!("{code}: {reason}"))
    }

    /// Tells the group how far we are, for lag tools; `next` is the next offset to read of each partition. Does not wait;
    /// a failure is logged and harms nothing.
    pub fn acknowledge(&self, next: &BTreeMap<(String, i32), i64>) {
        for topic in &self.topics {
            let mut list = TopicPartitionList::new();
            for ((name, partition), offset) in next.iter().filter(|((name, _), _)| **name == *topic.name) {
                if let Err(error) = list.add_partition_offset(name, *partition, Offset::Offset(*offset)) {
                    tracing::warn!(%error, topic = %name, partition, offset, "offset cannot be committed to the group");
                }
            }
            if list.count() > 0
                && let Err(error) = topic.consumer.commit(&list, CommitMode::Async)
            {
                tracing::warn!(%error, "offsets were not committed to the group; positions of our own are not touched");
            }
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        for topic in &self.topics {
            topic.shared.stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            // A panic there was reported by the disconnected channel.
            let _ = thread.join();
        }
    }
}

impl Topic {
    fn open(options: &KafkaOptions, name: &str) -> Result<Self, KafkaError> {
        let brokers = options.brokers.join(",");
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (key, value) in [
            ("client.id", "flowtrail"),
            ("statistics.interval.ms", "5000"),
            ("isolation.level", "read_committed"),
            ("queued.max.messages.kbytes", "32768"),
            // A broker answers a connection's requests in their order: where partitions end is told after a fetch has ended.
            ("fetch.wait.max.ms", "100"),
            ("socket.keepalive.enable", "true"),
            ("allow.auto.create.topics", "false"),
        ] {
            config.set(key, value);
        }
        let mut from_end = false;
        for (key, value) in &options.options {
            if key == "auto.offset.reset" {
                from_end = match value.as_str() {
                    "latest" | "largest" | "end" => true,
                    "earliest" | "smallest" | "beginning" => false,
                    _ => return Err(KafkaError::Option { reason: format!("auto.offset.reset is {value:?}: give earliest or latest") }),
                };
            } else if let Some((_, ours)) = OURS.iter().find(|(ours, _)| ours == key) {
                if value != ours {
                    return Err(KafkaError::Option { reason: format!("{key} must stay {ours}: flowtrail keeps positions itself") });
                }
            } else {
                config.set(key, value);
            }
        }
        config.set("bootstrap.servers", &brokers).set("group.id", &options.group);
        for (key, value) in OURS {
            config.set(key, value);
        }
        #[cfg(feature = "kafka-msk-iam")]
        if options.msk_iam.is_some() {
            for (key, value) in [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "OAUTHBEARER")] {
                if config.get(key).is_none() {
                    config.set(key, value);
                }
            }
        }
        let shared = Arc::new(Shared::default());
        let watch = Watch {
            shared: shared.clone(),
            #[cfg(feature = "kafka-msk-iam")]
            msk_iam: options.msk_iam.clone(),
        };
        let consumer = config.create_with_context::<_, Consumer>(watch).map_err(|error| {
            let mut reason = match &error {
                Native::ClientConfig(_, description, key, _) => format!("{key}: {description}"),
                error => error.to_string(),
            };
            if reason.contains("OpenSSL") || reason.contains("SSL") || reason.contains("SASL") || reason.contains("SCRAM") {
                reason.push_str("; TLS and SASL need a build with the cargo feature kafka-ssl");
            }
            KafkaError::Option { reason }
        })?;
        #[cfg(feature = "kafka-msk-iam")]
        if options.msk_iam.is_some() {
            // librdkafka asks for the first token through the queue that is polled, and connects to nobody before it has it.
            // Nothing is assigned yet, so no message can come.
            let _ = consumer.poll(POLL);
        }
        Ok(Self { name: name.into(), brokers, from_end, consumer: Arc::new(consumer), shared })
    }

    /// The numbers of the topic's partitions.
    fn partitions(&self) -> Result<Vec<i32>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.name), START_TIMEOUT).map_err(|error| self.error(&error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == &*self.name);
        match topic.map(|topic| (topic.error().map(Code::from), topic.partitions())) {
            Some((None, partitions)) if !partitions.is_empty() => Ok(partitions.iter().map(|partition| partition.id()).collect()),
            Some((Some(code), _)) => Err(self.error_of(code, String::new())),
            _ => Err(KafkaError::NoTopic { topic: self.name.to_string(), brokers: self.brokers.clone() }),
        }
    }

    /// Where to read each partition from: the position known of it if the brokers still have that, and the gaps if not.
    #[allow(clippy::type_complexity)]
    fn positions(&self, known: &BTreeMap<i32, i64>) -> Result<(BTreeMap<i32, i64>, Vec<KafkaEvent>), KafkaError> {
        let (mut positions, mut gaps) = (BTreeMap::new(), Vec::new());
        for partition in self.partitions()? {
            let (low, high) = self.consumer.fetch_watermarks(&self.name, partition, START_TIMEOUT).map_err(|error| self.error(&error))?;
            let next = match known.get(&partition) {
                None if self.from_end => high,
                None => low,
                Some(&position) if position > high => {
                    return Err(KafkaError::BeyondEnd { topic: self.name.to_string(), partition, position, end: high });
                }
                Some(&position) if position < low => {
                    gaps.push(KafkaEvent::Gap { partition: (self.name.clone(), partition), from: position, to: low });
                    low
                }
                Some(&position) => position,
            };
            positions.insert(partition, next);
            let mut all = lock(&self.shared.progress);
            let known = all.contains_key(&(self.name.clone(), partition));
            let progress = all.entry((self.name.clone(), partition)).or_default();
            if !known {
                progress.first.store(next, Ordering::Relaxed);
            }
            progress.next.store(next, Ordering::Relaxed);
            progress.high.store(high, Ordering::Relaxed);
        }
        Ok((positions, gaps))
    }

    fn assign(&self, positions: &BTreeMap<i32, i64>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in positions {
            list.add_partition_offset(&self.name, *partition, Offset::Offset(*next)).map_err(|error| self.error(&error))?;
        }
        self.consumer.assign(&list).map_err(|error| self.error(&error))
    }

    /// The thread: hands out messages until it is told to stop.
    fn read(self, sender: &Sender<KafkaEvent>, gaps: Vec<KafkaEvent>) {
        let result = gaps.into_iter().try_for_each(|gap| self.send(sender, gap)).and_then(|()| self.read_all(sender));
        if let Err(Ended::By(error)) = result {
            // The reader may be gone, then nobody needs to know.
            let _ = self.send(sender, KafkaEvent::Failed(error));
        }
    }

    fn read_all(&self, sender: &Sender<KafkaEvent>) -> Result<(), Ended> {
        let mut progress: BTreeMap<i32, Arc<Progress>> = self.progress();
        let mut refreshed = Instant::now();
        let mut answered = 0;
        let mut failed: Option<Instant> = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let asked = self.shared.asked.load(Ordering::Acquire);
            if asked > answered && failed.is_none_or(|at| at.elapsed() > ENDS_AGAIN) {
                failed = (!self.answer_ends(asked, &progress)).then(Instant::now);
                if failed.is_none() {
                    answered = asked;
                }
            }
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let event = KafkaEvent::Message(KafkaMessage {
                        partition: (self.name.clone(), partition),
                        offset,
                        timestamp_ms: message.timestamp().to_millis(),
                        payload: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
                    });
                    drop(message);
                    self.well();
                    self.send(sender, event)?;
                    if let Some(progress) = progress.get(&partition) {
                        progress.at_end.store(false, Ordering::Relaxed);
                        progress.next.store(offset + 1, Ordering::Relaxed);
                        progress.high.fetch_max(offset + 1, Ordering::Relaxed);
                    }
                }
                Some(Err(Native::PartitionEOF(partition))) => {
                    self.well();
                    if let Some(progress) = progress.get(&partition) {
                        progress.at_end.store(true, Ordering::Relaxed);
                        let offset = progress.next.load(Ordering::Relaxed);
                        self.send(sender, KafkaEvent::End { partition: (self.name.clone(), partition), offset })?;
                    }
                }
                Some(Err(Native::MessageConsumptionFatal(code))) => {
                    return Err(Ended::By(self.error_of(code, "fatal".to_owned())));
                }
                // What we stood at was deleted while we read.
                Some(Err(error)) if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) => self.begin_again(sender)?,
                // Everything else librdkafka tries again by itself; `Watch` has heard of it.
                Some(Err(_)) => {}
            }
            if refreshed.elapsed() > REFRESH {
                refreshed = Instant::now();
                if self.partitions().is_ok_and(|now| now.len() != progress.len()) {
                    self.begin_again(sender)?;
                    progress = self.progress();
                }
            }
        }
        Ok(())
    }

    /// Asks where each partition ends. False when brokers did not answer for all of them: then it is asked again.
    fn answer_ends(&self, ticket: u64, progress: &BTreeMap<i32, Arc<Progress>>) -> bool {
        for (partition, progress) in progress {
            let Ok((_, offset)) = self.consumer.fetch_watermarks(&self.name, *partition, ENDS_TIMEOUT) else { return false };
            *lock(&progress.end) = Some(EndOf { ticket, offset });
        }
        true
    }

    fn progress(&self) -> BTreeMap<i32, Arc<Progress>> {
        lock(&self.shared.progress).iter().map(|((_, partition), progress)| (*partition, progress.clone())).collect()
    }

    /// Assigns all partitions anew from where they were read to. Brokers that are away now are tried again later.
    fn begin_again(&self, sender: &Sender<KafkaEvent>) -> Result<(), Ended> {
        let known = self.progress().into_iter().map(|(n, progress)| (n, progress.next.load(Ordering::Relaxed))).collect();
        let assigned = self.positions(&known).and_then(|(positions, gaps)| self.assign(&positions).map(|()| gaps));
        match assigned {
            Ok(gaps) => gaps.into_iter().try_for_each(|gap| self.send(sender, gap)),
            Err(error) if error.retryable() => {
                tracing::warn!(%error, topic = %self.name, "partitions could not be assigned anew");
                Ok(())
            }
            Err(error) => Err(Ended::By(error)),
        }
    }

    /// Waits for room, but not longer than the reader wants us to run.
    fn send(&self, sender: &Sender<KafkaEvent>, mut event: KafkaEvent) -> Result<(), Ended> {
        loop {
            match sender.send_timeout(event, POLL) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) if !self.shared.stop.load(Ordering::Relaxed) => event = back,
                Err(_) => return Err(Ended::Wanted),
            }
        }
    }

    fn well(&self) {
        let mut trouble = lock(&self.shared.trouble);
        if trouble.take().is_some() {
            tracing::info!(topic = %self.name, "kafka answers again");
        }
    }

    fn error(&self, error: &Native) -> KafkaError {
        // The reason lies in librdkafka's queue of events.
        for _ in 0..20 {
            if self.shared.reading.load(Ordering::Relaxed) || lock(&self.shared.trouble).is_some() {
                break;
            }
            let _ = self.consumer.poll(Duration::from_millis(10));
        }
        self.error_of(error.rdkafka_error_code().unwrap_or(Code::Unknown), error.to_string())
    }

    fn error_of(&self, code: Code, said: String) -> KafkaError {
        let (brokers, topic) = (self.brokers.clone(), self.name.to_string());
        let heard = lock(&self.shared.trouble).clone();
        let reason = heard
            .as_ref()
            .map(|(_, reason)| reason.clone())
            .or(Some(said).filter(|said| !said.is_empty()))
            .unwrap_or_else(|| code.to_string());
        // A failed login shows as time-outs of whatever was asked.
        let login =
            |code| matches!(code, Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL | Code::UnsupportedSASLMechanism);
        if login(code) || heard.is_some_and(|(code, _)| login(code)) {
            return KafkaError::Login { brokers, reason };
        }
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
                KafkaError::NoTopic { topic, brokers }
            }
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                KafkaError::Denied { topic }
            }
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut | Code::RequestTimedOut => {
                KafkaError::Unreachable { brokers, reason }
            }
            _ => KafkaError::Other { reason },
        }
    }
}

/// Why a thread ended.
enum Ended {
    /// Nobody reads any more.
    Wanted,
    By(KafkaError),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    fn options(brokers: &str, topics: &[&str]) -> KafkaOptions {
        KafkaOptions {
            brokers: vec![brokers.to_owned()],
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            group: "flowtrail-test".to_owned(),
            options: BTreeMap::new(),
            start: BTreeMap::new(),
            queue_max: 4,
            #[cfg(feature = "kafka-msk-iam")]
            msk_iam: None,
        }
    }

    fn produce(brokers: &str, topic: &str, partition: i32, values: std::ops::Range<i32>) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        for value in values {
            let value = value.to_string();
            producer.send(BaseRecord::<(), _>::to(topic).partition(partition).payload(&value)).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }

    /// Reads until every partition was at its end; the payloads, sorted, and the next positions.
    fn read(reader: &KafkaReader, partitions: usize) -> (Vec<i32>, BTreeMap<(String, i32), i64>) {
        let (mut values, mut ends, mut next) = (Vec::new(), std::collections::BTreeSet::new(), BTreeMap::new());
        while ends.len() < partitions {
            match reader.events().recv_timeout(Duration::from_secs(20)).unwrap() {
                KafkaEvent::Message(message) => {
                    values.push(std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
                    assert!(message.timestamp_ms.is_some_and(|ms| ms > 1_600_000_000_000));
                    ends.remove(&message.partition);
                    let position = next.entry((message.partition.0.to_string(), message.partition.1)).or_insert(message.offset);
                    assert_eq!(*position, message.offset);
                    *position += 1;
                }
                KafkaEvent::End { partition, .. } => {
                    ends.insert(partition);
                }
                other => panic!("{other:?}"),
            }
        }
        values.sort_unstable();
        (values, next)
    }

    #[test]
    fn everything_is_read_once_from_where_one_stood() {
        let cluster = MockCluster::new(1).unwrap();
        let brokers = cluster.bootstrap_servers();
        cluster.create_topic("a", 2, 1).unwrap();
        cluster.create_topic("b", 1, 1).unwrap();
        produce(&brokers, "a", 0, 0..50);
        produce(&brokers, "a", 1, 50..60);
        produce(&brokers, "b", 0, 60..100);

        let mut options = options(&brokers, &["a", "b"]);
        let reader = KafkaReader::connect(&options).unwrap();
        let (values, next) = read(&reader, 3);
        assert_eq!(values, (0..100).collect::<Vec<_>>());
        let lag = reader.lag();
        assert_eq!(lag.len(), 3);
        assert!(lag.values().all(|lag| lag.messages() == 0), "{lag:?}");
        assert_eq!(lag[&(Arc::from("a"), 0)].next, 50);
        assert_eq!(reader.trouble(), None);
        reader.acknowledge(&next);
        produce(&brokers, "b", 0, 100..110);
        assert_eq!(read(&reader, 1).0, (100..110).collect::<Vec<_>>());
        drop(reader);

        options.start = next;
        let reader = KafkaReader::connect(&options).unwrap();
        assert_eq!(read(&reader, 3).0, (100..110).collect::<Vec<_>>());
        drop(reader);

        // A reader that nobody listens to can be dropped.
        options.start.clear();
        drop(KafkaReader::connect(&options).unwrap());

        options.options.insert("auto.offset.reset".to_owned(), "latest".to_owned());
        let reader = KafkaReader::connect(&options).unwrap();
        assert_eq!(read(&reader, 3).0, Vec::<i32>::new());
        drop(reader);

        options.start.insert(("a".to_owned(), 1), 11);
        assert_eq!(
            KafkaReader::connect(&options).unwrap_err(),
            KafkaError::BeyondEnd { topic: "a".to_owned(), partition: 1, position: 11, end: 10 }
        );
    }

    #[test]
    fn an_end_is_told_anew_when_it_is_asked_for() {
        let cluster = MockCluster::new(1).unwrap();
        let brokers = cluster.bootstrap_servers();
        cluster.create_topic("a", 2, 1).unwrap();
        produce(&brokers, "a", 0, 0..3);
        let reader = KafkaReader::connect(&options(&brokers, &["a"])).unwrap();
        assert_eq!(read(&reader, 2).0, [0, 1, 2]);
        let ends = |ticket: u64| {
            let until = Instant::now() + Duration::from_secs(20);
            loop {
                let lag = reader.lag();
                if lag.values().all(|lag| lag.end.is_some_and(|end| end.ticket >= ticket)) {
                    return lag.values().map(|lag| (lag.first, lag.end.unwrap().offset)).collect::<Vec<_>>();
                }
                assert!(Instant::now() < until, "{lag:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        assert_eq!(ends(reader.ask_ends()), [(0, 3), (0, 0)]);
        // Whatever the reader has heard by now: the brokers know of two more.
        produce(&brokers, "a", 1, 3..5);
        assert_eq!(ends(reader.ask_ends()), [(0, 3), (0, 2)]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let down = KafkaReader::connect(&options("127.0.0.1:1", &["a"])).unwrap_err();
        assert!(matches!(&down, KafkaError::Unreachable { .. }) && down.retryable() && down.to_string().contains("127.0.0.1:1"), "{down}");

        let cluster = MockCluster::new(1).unwrap();
        let mut options = options(&cluster.bootstrap_servers(), &["not-there"]);
        cluster.topic_error("not-there", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        let unknown = KafkaReader::connect(&options).unwrap_err();
        assert!(matches!(&unknown, KafkaError::NoTopic { topic, .. } if topic == "not-there"), "{unknown}");

        for (key, value, word) in [
            ("no.such.option", "1", "no.such.option"),
            ("enable.auto.commit", "true", "keeps positions itself"),
            ("auto.offset.reset", "sometimes", "earliest or latest"),
            #[cfg(not(feature = "kafka-ssl"))]
            ("security.protocol", "SASL_SSL", "kafka-ssl"),
        ] {
            options.options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            let error = KafkaReader::connect(&options).unwrap_err();
            assert!(matches!(&error, KafkaError::Option { .. }) && error.to_string().contains(word), "{error}");
        }
    }
}
