//! `run`: for ever. Units are read in the order of their delivery; an hour is looked at while it is open, and sealed when
//! every source's clock has passed its end + R.
//!
//! The clock decides when we look, never what we find: a verdict is made by the same pure code, from the same merged
//! hours and the profile through the hour before, as in `replay`. Reading commits contributions first; sealing works
//! from what is committed, so that a crash anywhere means doing the same again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use flowtrail_detect::{Block, Facts, Finding, Incidents};
use flowtrail_enrich::Timelines;
use flowtrail_ingest::{Day, EventTime, Hour, UnitId};
use flowtrail_sink::tables::set_aside::LateRow;

use crate::config::Clock;
use crate::input::{Announced, Inputs};
use crate::judging::{Bench, Judge, Said};
use crate::lane::{Changes, DayBlocks, Ended, Lane, Learned};
use crate::metrics::Gauges;
use crate::publish::{self, Rows};
use crate::reader::{ReadSettings, Reader, UnitReport};
use crate::replay::add_to_summary;
use crate::setup::{Setup, now};
use crate::summary::{Learning, Quarantined, Summary};

/// Units that are read between two commits, at most.
const CHUNK: usize = 512;
/// A file is taken once it has not changed for this long, seconds.
const STABLE_SECS: i64 = 2;
/// Tries of a unit that cannot be fetched, before it is quarantined.
const TRIES_MAX: u32 = 4;
/// Commits between two roll-ups.
const ROLL_UP_EVERY: u64 = 256;
/// Profiles are written to the state at least this often.
const PROFILES_EVERY: Duration = Duration::from_secs(300);

/// A listing source: folders or prefixes, with how to read them.
pub struct Listing {
    /// Name in positions and metrics.
    pub name: String,
    /// Where.
    pub inputs: Inputs,
    /// How.
    pub read: ReadSettings,
    /// Nothing older, by delivery time.
    pub start: EventTime,
}

/// What `run` is told.
pub struct Run {
    /// Stores, lists, settings.
    pub setup: Setup,
    /// Folders and buckets.
    pub listings: Vec<Listing>,
    /// Topics.
    #[cfg(feature = "kafka")]
    pub topics: Vec<KafkaTopic>,
    /// Threads that read.
    pub threads: usize,
    /// What idle sources stand at.
    pub clock: Clock,
    /// Between two looks.
    pub look_every: Duration,
    /// Between two commits.
    pub commit_every: Duration,
    /// Between two listings.
    pub list_every: Duration,
    /// How long a source that stands still holds sealing back, seconds.
    pub stall_limit: i64,
    /// Ends when every source is at its end.
    pub once: bool,
    /// Health, readiness, metrics.
    pub gauges: Gauges,
}

/// One Kafka source.
#[cfg(feature = "kafka")]
pub struct KafkaTopic {
    /// Name in positions and metrics.
    pub name: String,
    /// The reader.
    pub reader: flowtrail_ingest::source::kafka::KafkaReader,
    /// How records are read.
    pub read: ReadSettings,
}

/// A unit that waits to be read.
struct Waiting {
    listing: usize,
    object: Announced,
}

/// What is kept between steps of the loop.
struct Live {
    lane: Lane,
    timelines: Timelines,
    judge: Judge,
    /// Verdicts on hours that are still open, from the last look.
    looks: Vec<Finding>,
    /// Calls of open hours, admitted and repeats, and flow records by attribution, as of the last look.
    open: (u64, u64, [u64; 5]),
    /// Every hour before this one is sealed.
    sealed_before: Option<Hour>,
    /// Something came since the last look.
    dirty: bool,
    rows: Rows,
    said: Said,
    summary: Summary,
    /// Paths and keys that were taken, with their length.
    taken: HashMap<(usize, String), u64>,
    tries: HashMap<(usize, String), (u32, Instant)>,
    newest_delivery: Option<EventTime>,
    profiles_written: Instant,
    sealed_days: BTreeSet<Day>,
    commits: u64,
    /// Hours are sealed again that were sealed before a crash: nothing is said of them twice.
    again: bool,
}

impl Run {
    /// Runs until every source is at its end (`once`), or for ever.
    ///
    /// # Errors
    /// When a store fails or another process owns the state: nothing half is visible, and starting again goes on.
    pub fn run(self) -> Result<Summary> {
        let mut live = self.open()?;
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut listed: Option<Instant> = None;
        let mut looked = Instant::now();
        self.gauges.ready();
        crate::process::note_signals();
        loop {
            if waiting.is_empty() && listed.is_none_or(|at| at.elapsed() >= self.list_every || self.once) {
                waiting = self.list(&mut live)?;
                listed = Some(Instant::now());
            }
            let mut changes = Changes::default();
            let chunk: Vec<Waiting> = waiting.drain(..waiting.len().min(CHUNK)).collect();
            let read_any = !chunk.is_empty();
            self.read_chunk(&mut live, &chunk, &mut changes);
            let kafka_any = self.read_kafka(&mut live, &mut changes)?;
            self.commit(&mut live, changes)?;
            self.seal(&mut live, &waiting)?;
            let at_end = waiting.is_empty() && !read_any && !kafka_any;
            if live.dirty && (looked.elapsed() >= self.look_every || (at_end && self.once)) {
                self.look(&mut live)?;
                looked = Instant::now();
            }
            self.observe(&live, waiting.len());
            if crate::process::asked_to_stop() {
                break;
            }
            if at_end {
                if self.once && self.kafka_at_end() && !self.more_to_come(&mut live)? {
                    break;
                }
                std::thread::sleep(Duration::from_millis(if self.once { 200 } else { 500 }));
            }
        }
        self.finish(&mut live)?;
        Ok(live.summary)
    }

    fn open(&self) -> Result<Live> {
        let mut lane = Lane::open(self.setup.state.clone(), self.setup.output.clone(), now())?;
        let timelines = Timelines::build(&lane.known.facts);
        let learned = lane.known.learned.take();
        let sealed_before = lane.known.judged.sealed_before.max(learned.as_ref().and_then(|l| l.sealed_before));
        let mut judge = Judge::default();
        let from = learned.as_ref().and_then(|l| l.sealed_before);
        let mut sealed_days = BTreeSet::new();
        if let Some(learned) = learned {
            judge = Judge { profiles: learned.profiles, fleet: learned.fleet, deltas: learned.deltas, incidents: learned.incidents };
            sealed_days.extend(learned.open_day);
        }
        // What a replay said of open hours is a first look: it is looked at again.
        if let Some(before) = from {
            for (account, incidents) in &mut judge.incidents {
                let later: Vec<Hour> = (before.0..before.0.saturating_add(48)).map(Hour).collect();
                for hour in later {
                    incidents.replace_hour(account, hour, Vec::new());
                }
            }
        }
        let mut live = Live {
            lane,
            timelines,
            judge,
            looks: Vec::new(),
            open: (0, 0, [0; 5]),
            sealed_before: from,
            dirty: true,
            rows: Rows::default(),
            said: Said::default(),
            summary: Summary::default(),
            taken: HashMap::new(),
            tries: HashMap::new(),
            newest_delivery: None,
            profiles_written: Instant::now(),
            sealed_days,
            commits: 0,
            again: false,
        };
        // Hours sealed before a crash, after the profiles were last written: learned again, said already.
        if sealed_before > from
            && let Some(limit) = sealed_before
        {
            live.again = true;
            self.seal_until(&mut live, limit)?;
            live.again = false;
            live.said = Said::default();
            self.revise(&mut live);
        }
        Ok(live)
    }

    /// New units of all listings, in order of delivery: those without a delivery time (snapshots) first.
    fn list(&self, live: &mut Live) -> Result<Vec<Waiting>> {
        let mut waiting = Vec::new();
        for (index, listing) in self.listings.iter().enumerate() {
            let listed = match listing.inputs.list() {
                Ok(listed) => listed,
                Err(error) if !self.once => {
                    tracing::warn!(source = %listing.name, %error, "listing failed; it is tried again");
                    self.gauges.trouble(&listing.name);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for problem in listed.problems {
                if live.taken.insert((index, problem.path.clone()), 0).is_none() {
                    live.summary.units.quarantined += 1;
                    live.summary.quarantined.push(Quarantined { source: problem.path, reason: problem.reason });
                }
            }
            for object in listed.objects {
                let key = (index, object.meta.key.clone());
                if object.meta.delivered_at.is_some_and(|t| t < listing.start) || live.taken.get(&key) == Some(&object.size) {
                    continue;
                }
                let young = object.bucket.is_none() && object.modified.is_some_and(|m| now().0 - m.0 < STABLE_SECS);
                let resting = live.tries.get(&key).is_some_and(|(_, next)| *next > Instant::now());
                if young || resting {
                    continue;
                }
                waiting.push(Waiting { listing: index, object });
            }
        }
        waiting.sort_by(|a, b| {
            let order = |w: &Waiting| (w.object.meta.delivered_at.unwrap_or(EventTime::MIN), w.object.meta.key.clone());
            order(a).cmp(&order(b))
        });
        Ok(waiting)
    }

    /// With `once`: files that were too young or rest after a failure still count as to come.
    fn more_to_come(&self, live: &mut Live) -> Result<bool> {
        let young = |object: &Announced| object.bucket.is_none() && object.modified.is_some_and(|m| now().0 - m.0 < STABLE_SECS);
        for (index, listing) in self.listings.iter().enumerate() {
            for object in listing.inputs.list()?.objects {
                let key = (index, object.meta.key.clone());
                let old = object.meta.delivered_at.is_some_and(|t| t < listing.start);
                if !old && live.taken.get(&key) != Some(&object.size) && (young(&object) || live.tries.contains_key(&key)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Reads units in parallel; what they gave goes to `changes`, in an order that does not depend on threads.
    fn read_chunk(&self, live: &mut Live, chunk: &[Waiting], changes: &mut Changes) {
        let mut todo: Vec<(&Waiting, Option<UnitId>)> = Vec::new();
        let mut claimed: BTreeSet<UnitId> = BTreeSet::new();
        for unit in chunk {
            let object = &unit.object;
            let key = (unit.listing, object.meta.key.clone());
            live.newest_delivery = live.newest_delivery.max(object.meta.delivered_at);
            let id = UnitId::of_key(&object.meta.key);
            if let Some(id) = id {
                if let Some(known) = live.lane.known.ledger.get(&id) {
                    live.taken.insert(key, object.size);
                    if known.bytes == object.size || known.ended == Ended::Quarantined {
                        live.summary.units.duplicate += 1;
                    } else {
                        let reason = format!("it came before with {} bytes, now it has {}: not counted again", known.bytes, object.size);
                        self.admit(live, UnitReport::unreadable(id, &object.meta, reason), changes);
                    }
                    continue;
                }
                if !claimed.insert(id) {
                    live.taken.insert(key, object.size);
                    live.summary.units.duplicate += 1;
                    continue;
                }
            } else if live.taken.contains_key(&key) {
                live.taken.insert(key, object.size);
                let reason = "the file changed after it was read: what it holds now is not counted".to_owned();
                self.admit(live, UnitReport::unreadable(UnitId::default(), &object.meta, reason), changes);
                continue;
            }
            todo.push((unit, id));
        }
        let next = AtomicUsize::new(0);
        let seen: Mutex<HashMap<UnitId, u64>> =
            Mutex::new(live.lane.known.ledger.values().filter(|u| UnitId::of_key(&u.key).is_none()).map(|u| (u.id, u.bytes)).collect());
        let results: Mutex<Vec<(usize, Option<Result<UnitReport, String>>)>> = Mutex::new(Vec::new());
        let blocks: Mutex<Vec<Block>> = Mutex::new(Vec::new());
        let threads = self.threads.clamp(1, todo.len().max(1));
        let work = || {
            let mut readers: HashMap<usize, Reader> = HashMap::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((unit, id)) = todo.get(index) else { break };
                let listing = &self.listings[unit.listing];
                let reader = readers.entry(unit.listing).or_insert_with(|| {
                    let mut settings = listing.read.clone();
                    settings.now = now();
                    Reader::new(settings, crate::setup::random_seed())
                });
                let outcome = match listing.inputs.fetch(&unit.object) {
                    Err(error) => Some(Err(format!("{error:#}"))),
                    Ok(bytes) => {
                        let identity = id.unwrap_or_else(|| UnitId::of_bytes(&bytes));
                        let mut seen = lock(&seen);
                        if id.is_none() && seen.insert(identity, bytes.len() as u64).is_some() {
                            None
                        } else {
                            drop(seen);
                            Some(Ok(reader.read(identity, &unit.object.meta, &bytes, None)))
                        }
                    }
                };
                lock(&results).push((index, outcome));
                if reader.is_full() {
                    lock(&blocks).extend(reader.flush());
                }
            }
            for reader in readers.values_mut() {
                lock(&blocks).extend(reader.flush());
            }
        };
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(&work);
                }
            });
        }
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        for (index, outcome) in results {
            let unit = todo[index].0;
            let key = (unit.listing, unit.object.meta.key.clone());
            match outcome {
                None => {
                    live.taken.insert(key, unit.object.size);
                    live.summary.units.duplicate += 1;
                }
                Some(Ok(report)) => {
                    live.taken.insert(key.clone(), unit.object.size);
                    live.tries.remove(&key);
                    self.admit(live, report, changes);
                }
                Some(Err(reason)) => {
                    let tries = live.tries.entry(key.clone()).or_insert((0, Instant::now()));
                    tries.0 += 1;
                    if tries.0 < TRIES_MAX {
                        // 1, 4, 16 s: a fault that passes has passed by then.
                        tries.1 = Instant::now() + Duration::from_secs(4u64.pow(tries.0 - 1));
                        tracing::warn!(key = %unit.object.meta.key, reason, "a unit cannot be fetched; it is tried again");
                    } else {
                        live.tries.remove(&key);
                        live.taken.insert(key, unit.object.size);
                        let id = UnitId::of_key(&unit.object.meta.key).unwrap_or_default();
                        self.admit(live, UnitReport::unreadable(id, &unit.object.meta, reason), changes);
                    }
                }
            }
        }
        changes.blocks.extend(blocks.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// Takes in what a unit said beside its contributions.
    fn admit(&self, live: &mut Live, mut report: UnitReport, changes: &mut Changes) {
        add_to_summary(&mut live.summary, &report);
        live.summary.records.api += report.api;
        publish::set_aside(&mut live.rows, &report, now());
        changes.facts.append(&mut report.facts);
        if report.record.id != UnitId::default() {
            if let Some(before) = live.lane.known.ledger.get(&report.record.id) {
                // A partition is one unit that goes on.
                report.record.absorb(before);
            }
            changes.units.push(report.record);
        }
    }

    #[cfg(not(feature = "kafka"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn read_kafka(&self, _live: &mut Live, _changes: &mut Changes) -> Result<bool> {
        Ok(false)
    }

    /// Takes what topics have for us, at most one commit's worth. True if there was something.
    #[cfg(feature = "kafka")]
    fn read_kafka(&self, live: &mut Live, changes: &mut Changes) -> Result<bool> {
        use crate::reader::UnitMeta;
        use flowtrail_ingest::KeyFacts;
        use flowtrail_ingest::source::kafka::KafkaEvent;
        let mut any = false;
        for topic in &self.topics {
            let mut reader: Option<Reader> = None;
            let mut reports: BTreeMap<String, UnitReport> = BTreeMap::new();
            let deadline = Instant::now() + self.commit_every.min(Duration::from_secs(2));
            let mut taken = 0usize;
            while let Ok(event) = topic.reader.events().try_recv() {
                match event {
                    KafkaEvent::Message(message) => {
                        any = true;
                        taken += 1;
                        let key = format!("{}/{}", message.partition.0, message.partition.1);
                        let id = UnitId::of_bytes(format!("kafka:{key}").as_bytes());
                        let delivered_at = message.timestamp_ms.map(|ms| EventTime(ms.div_euclid(1000)));
                        live.newest_delivery = live.newest_delivery.max(delivered_at);
                        let offset = u64::try_from(message.offset).unwrap_or_default();
                        changes.positions.insert(format!("{}/{key}", topic.name), (message.offset + 1).to_string());
                        if let Some(at) = delivered_at {
                            changes.clocks.insert(format!("{}/{key}", topic.name), at);
                        }
                        let meta =
                            UnitMeta { source: "kafka", key: key.clone(), facts: KeyFacts::default(), offset: Some(offset), delivered_at };
                        let reader = reader.get_or_insert_with(|| {
                            Reader::new(ReadSettings { now: now(), ..topic.read.clone() }, crate::setup::random_seed())
                        });
                        let mut report = reader.read(id, &meta, &message.payload, None);
                        for reject in &mut report.rejects {
                            reject.position = flowtrail_ingest::Position(offset);
                        }
                        match report.record.ended {
                            // The partition is the ledger's unit, its positions tell what was read of it; a record that cannot be
                            // read is set aside with its offset.
                            Ended::Quarantined | Ended::Salvaged | Ended::Ignored => {
                                report.record.key = format!("{key}@{offset}");
                                report.record.id = UnitId::default();
                                self.admit(live, report, changes);
                            }
                            _ => match reports.get_mut(&key) {
                                None => {
                                    reports.insert(key, report);
                                }
                                Some(sum) => {
                                    live.summary.units.applied += 1;
                                    sum.absorb(report);
                                }
                            },
                        }
                        if reader.is_full() {
                            changes.blocks.extend(reader.flush());
                        }
                    }
                    KafkaEvent::End { partition, .. } => {
                        changes.clocks.remove(&format!("{}/{}/{}", topic.name, partition.0, partition.1));
                    }
                    KafkaEvent::Gap { partition, from, to } => {
                        let lost = format!("{}/{} from offset {from} to {to}", partition.0, partition.1);
                        tracing::error!(%lost, "records were deleted by the brokers before they were read");
                        let reason = "deleted by the brokers' retention before it was read".to_owned();
                        live.summary.units.quarantined += 1;
                        live.summary.quarantined.push(Quarantined { source: format!("kafka:{lost}"), reason });
                    }
                    KafkaEvent::Failed(error) => return Err(anyhow::Error::new(error).context(format!("source {}", topic.name))),
                }
                if taken >= 50_000 || Instant::now() > deadline {
                    break;
                }
            }
            if let Some(mut reader) = reader {
                changes.blocks.extend(reader.flush());
            }
            for report in reports.into_values() {
                self.admit(live, report, changes);
            }
        }
        Ok(any)
    }

    fn kafka_at_end(&self) -> bool {
        #[cfg(feature = "kafka")]
        {
            self.topics.iter().all(|t| t.reader.events().is_empty() && t.reader.lag().values().all(|l| l.at_end))
        }
        #[cfg(not(feature = "kafka"))]
        true
    }

    /// Commits contributions and facts. What belongs to a sealed hour is late: said, not counted.
    fn commit(&self, live: &mut Live, mut changes: Changes) -> Result<()> {
        if let Some(sealed) = live.sealed_before {
            let (late, kept): (Vec<Block>, Vec<Block>) = changes.blocks.into_iter().partition(|b| b.hour < sealed);
            changes.blocks = kept;
            for block in late {
                self.set_aside_late(live, &block, &mut changes)?;
            }
        }
        changes.facts =
            changes.facts.into_iter().collect::<BTreeSet<_>>().into_iter().filter(|f| !live.lane.known.facts.contains(f)).collect();
        live.dirty |= !changes.blocks.is_empty() || !changes.facts.is_empty();
        if changes.is_empty() && live.rows_empty() {
            return Ok(());
        }
        if !changes.facts.is_empty() {
            live.timelines.update(changes.facts.iter().cloned());
        }
        self.write(live, changes)?;
        #[cfg(feature = "kafka")]
        for topic in &self.topics {
            let next = live.lane.positions.iter().filter_map(|(key, offset)| {
                let (name, partition) = key.strip_prefix(&format!("{}/", topic.name))?.rsplit_once('/')?;
                Some(((name.to_owned(), partition.parse().ok()?), offset.parse().ok()?))
            });
            topic.reader.acknowledge(&next.collect());
        }
        Ok(())
    }

    fn set_aside_late(&self, live: &mut Live, block: &Block, changes: &mut Changes) -> Result<()> {
        let (hour, _) = flowtrail_detect::merge(&[block.view(true)])?;
        let records = hour.conversations.iter().map(flowtrail_detect::Conversation::flows).sum::<u64>() + hour.calls.len() as u64;
        live.summary.late_records += records;
        for unit in &hour.units {
            let record = changes.units.iter_mut().find(|u| u.id == unit.id);
            let (source, key) =
                record.as_ref().map_or_else(|| ("kafka".to_owned(), unit.id.to_string()), |r| (r.source.clone(), r.key.clone()));
            live.rows.late.push(LateRow {
                time: block.hour.start(),
                source,
                key,
                position: None,
                reason: format!("{records} records of account {} for the hour of {}, which is sealed", block.account, block.hour),
                sample: String::new(),
            });
        }
        Ok(())
    }

    /// The time up to which every source says "all that AWS had delivered by then, you have".
    fn clock_now(&self, live: &Live, waiting: &[Waiting]) -> Option<EventTime> {
        let idle = match self.clock {
            Clock::Wall => Some(now()),
            Clock::Delivery => live.newest_delivery,
        };
        // Units without a delivery time go first, so the next one's time is that of all that are still to come.
        let listing = waiting.first().map_or(idle, |w| Some(w.object.meta.delivered_at.unwrap_or(EventTime::MIN)));
        let mut clock = listing;
        // A unit that rests after a failure holds its source back, for as long as stall_limit.
        if !live.tries.is_empty() {
            clock = clock.min(live.newest_delivery.map(|t| t.plus(-self.stall_limit)));
        }
        #[cfg(feature = "kafka")]
        for topic in &self.topics {
            for (partition, lag) in topic.reader.lag() {
                let at_end = lag.at_end && topic.reader.events().is_empty();
                let key = format!("{}/{}/{}", topic.name, partition.0, partition.1);
                let here = if at_end { idle } else { live.lane.clocks.get(&key).copied() };
                clock = clock.min(here);
            }
        }
        clock
    }

    fn seal(&self, live: &mut Live, waiting: &[Waiting]) -> Result<()> {
        let Some(clock) = self.clock_now(live, waiting) else { return Ok(()) };
        let limit = clock.plus(-self.setup.retention).0.div_euclid(3600);
        let Ok(limit) = i32::try_from(limit) else { return Ok(()) };
        if live.sealed_before.is_some_and(|s| Hour(limit) <= s) {
            return Ok(());
        }
        self.seal_until(live, Hour(limit))
    }

    /// Judges for good and learns every open hour before `limit`, in order.
    fn seal_until(&self, live: &mut Live, limit: Hour) -> Result<()> {
        let from = live.sealed_before;
        let said_before = live.lane.known.judged.sealed_before;
        let days: Vec<Day> =
            live.lane.known.days().into_iter().filter(|d| from.is_none_or(|f| *d >= f.day()) && d.first_hour() < limit).collect();
        let mut any = false;
        for day in days {
            self.close_days(live, day)?;
            let blocks = DayBlocks::read(&live.lane, day)?;
            let mut hours = blocks.by_account();
            for of_account in hours.values_mut() {
                of_account.retain(|hour, _| *hour < limit && from.is_none_or(|f| *hour >= f));
            }
            hours.retain(|_, of_account| !of_account.is_empty());
            if hours.is_empty() {
                continue;
            }
            any = true;
            let mut judge = std::mem::take(&mut live.judge);
            let judged = judge.day(&self.bench(live, limit.start()), &hours);
            live.judge = judge;
            let mut said = judged?;
            live.sealed_days.insert(day);
            // What was said before a crash is not said again.
            said.observations.retain(|o| said_before.is_none_or(|s| o.time.hour() >= s));
            live.said.absorb(said);
        }
        if live.sealed_days.iter().next_back().is_some_and(|d| d.next().first_hour() <= limit) {
            self.close_days(live, limit.day())?;
        }
        live.sealed_before = live.sealed_before.max(Some(limit));
        if (any || live.lane.known.judged.sealed_before.is_none()) && !live.again {
            live.lane.known.judged.sealed_before = live.lane.known.judged.sealed_before.max(Some(limit));
            live.dirty = true;
            live.looks.retain(|f| f.window_start.hour() >= limit);
            let changes = Changes { judged: true, ..Changes::default() };
            self.revise(live);
            self.write(live, changes)?;
        }
        Ok(())
    }

    fn bench<'a>(&'a self, live: &'a Live, sealed_until: EventTime) -> Bench<'a> {
        Bench {
            config: &self.setup.judge,
            facts: Facts { timelines: &live.timelines, book: &self.setup.book },
            ledger: &live.lane.known.ledger,
            sealed_until,
            threads: self.threads,
        }
    }

    /// Ends the sealed days before `day`: the fleet's tables take them in, their findings stand.
    fn close_days(&self, live: &mut Live, day: Day) -> Result<()> {
        let Some(mut open) = live.sealed_days.first().copied().filter(|open| *open < day) else { return Ok(()) };
        self.revise(live);
        while open < day {
            live.judge.close_day(open);
            live.sealed_days.remove(&open);
            open = open.next();
        }
        for incidents in live.judge.incidents.values_mut() {
            incidents.forget_before(day);
        }
        live.sealed_days.insert(day);
        Ok(())
    }

    /// A provisional verdict on every open hour, with the profiles through the last sealed one.
    fn look(&self, live: &mut Live) -> Result<()> {
        let from = live.sealed_before;
        let mut found = Vec::new();
        let mut open = (0, 0, [0u64; 5]);
        for day in live.lane.known.days().into_iter().filter(|d| from.is_none_or(|f| *d >= f.day())) {
            let blocks = DayBlocks::read(&live.lane, day)?;
            let mut hours = blocks.by_account();
            for of_account in hours.values_mut() {
                of_account.retain(|hour, _| from.is_none_or(|f| *hour >= f));
            }
            hours.retain(|_, of_account| !of_account.is_empty());
            let bench = self.bench(live, EventTime::MIN);
            for (account, of_account) in &hours {
                let nobody = flowtrail_detect::AccountProfiles::default();
                let profiles = live.judge.profiles.get(*account).unwrap_or(&nobody);
                for blocks in of_account.values() {
                    let (merged, counts) = crate::judging::merge_named(blocks, bench.ledger)?;
                    let window = flowtrail_detect::Window::build(&merged, &bench.facts);
                    let verdict = flowtrail_detect::judge_window(bench.config, profiles, &live.judge.fleet, &window);
                    open.0 += counts.admitted;
                    open.1 += counts.repeats;
                    open.2.iter_mut().zip(verdict.attribution_new).for_each(|(mine, theirs)| *mine += theirs);
                    found.extend(verdict.findings);
                }
            }
        }
        live.looks = found;
        live.open = open;
        live.dirty = false;
        self.revise(live);
        if !live.rows_empty() {
            self.write(live, Changes::default())?;
        }
        Ok(())
    }

    /// New revisions of the findings of days that are not closed, from sealed verdicts and the last look.
    fn revise(&self, live: &mut Live) {
        if live.again {
            return;
        }
        let mut all = Incidents::default();
        let mut first_day: Option<Day> = None;
        for incidents in live.judge.incidents.values() {
            all.absorb(incidents.clone());
        }
        for finding in &live.looks {
            all.add(finding.clone());
        }
        if let Some(day) = live.sealed_days.first() {
            first_day = Some(*day);
        }
        let sealed_until = live.sealed_before.map_or(EventTime::MIN, Hour::start);
        let standing = all.standing().map(|f| {
            let sealed = f.window_end <= sealed_until;
            (f, sealed)
        });
        let open = move |f: &Finding| first_day.is_none_or(|d| f.window_start.day() >= d);
        let standing: Vec<(Finding, bool)> = standing.collect();
        let rows = publish::revise(&mut live.lane.known.findings, standing, Some(&open), now());
        live.rows.findings.extend(rows);
    }

    /// Writes rows and changes in one commit.
    fn write(&self, live: &mut Live, mut changes: Changes) -> Result<()> {
        let mut rows = std::mem::take(&mut live.rows);
        changes.findings = rows.findings.iter().map(|r| r.finding.finding_id.clone()).collect();
        let observations = std::mem::take(&mut live.said.observations);
        rows.observations = (!observations.is_empty()).then_some(observations);
        let (files, _) = publish::encode(rows, &self.setup.tables)?;
        changes.files = live.lane.stage(&files)?;
        live.commits += 1;
        let roll_up = live.commits.is_multiple_of(ROLL_UP_EVERY);
        if live.profiles_written.elapsed() >= PROFILES_EVERY || roll_up {
            self.keep_learned(live, &mut changes);
        }
        live.lane.commit(changes, self.setup.config_hash, now(), roll_up)?;
        self.gauges.committed(now());
        Ok(())
    }

    fn keep_learned(&self, live: &mut Live, changes: &mut Changes) {
        live.lane.known.learned = Some(Learned {
            sealed_before: live.sealed_before,
            profiles: live.judge.profiles.clone(),
            fleet: live.judge.fleet.clone(),
            deltas: live.judge.deltas.clone(),
            open_day: live.sealed_days.first().copied(),
            incidents: live.judge.incidents.clone(),
        });
        changes.learned = true;
        live.profiles_written = Instant::now();
    }

    /// The last commit of `--once`: profiles, owners and coverage as they stand.
    fn finish(&self, live: &mut Live) -> Result<()> {
        if live.dirty {
            self.look(live)?;
        }
        let known_until = live.lane.known.facts.iter().filter_map(|f| f.at).max().unwrap_or_else(now);
        let day = live.sealed_before.map_or(known_until.day(), |h| Hour(h.0.saturating_sub(1)).day()).min(known_until.day());
        let profiles = live.judge.profiles.iter().flat_map(|(account, p)| p.rows(account, day)).collect();
        let rows = Rows {
            profiles: Some((day, profiles)),
            eni_owners: Some((day, live.timelines.owner_rows(known_until))),
            coverage: Some(publish::coverage(&live.lane.known, &live.said.attribution)),
            ..Rows::default()
        };
        let (files, replaced) = publish::encode(rows, &self.setup.tables)?;
        let mut changes = Changes { files: live.lane.stage(&files)?, judged: true, snapshots: true, ..Changes::default() };
        for table in replaced {
            let prefix = format!("{}/", table.name());
            let keys = changes.files.iter().filter(|f| f.key.starts_with(&prefix)).map(|f| f.key.clone()).collect();
            changes.retired.extend(live.lane.known.snapshots.insert(table.name().to_owned(), keys).unwrap_or_default());
        }
        self.keep_learned(live, &mut changes);
        live.lane.known.judged.learning = live.judge.learning(day);
        live.lane.commit(changes, self.setup.config_hash, now(), true)?;
        for one in &live.lane.known.judged.learning {
            let learning = Learning { entities: one.entities, ready: one.ready, day: one.day, of: one.of };
            live.summary.learning.insert(one.detector.clone(), learning);
        }
        live.summary.findings = publish::count(&live.lane.known.findings);
        live.summary.loudest = publish::loudest(&live.lane.known.findings);
        live.summary.records.api = live.said.api + live.open.0;
        live.summary.records.api_duplicate = live.said.api_duplicate + live.open.1;
        let mut attribution = live.said.attribution_new;
        attribution.iter_mut().zip(live.open.2).for_each(|(mine, theirs)| *mine += theirs);
        let [exact, candidates, other, unheld, unknown] = attribution;
        live.summary.attribution = crate::summary::AttributionCounts { exact, candidates, other, unheld, unknown };
        Ok(())
    }

    fn observe(&self, live: &Live, waiting: usize) {
        self.gauges.update(&live.summary, waiting as u64, live.sealed_before, publish::count(&live.lane.known.findings));
        #[cfg(feature = "kafka")]
        for topic in &self.topics {
            for (partition, lag) in topic.reader.lag() {
                self.gauges.lag(&format!("{}/{}", partition.0, partition.1), lag.messages());
            }
        }
    }
}

impl Live {
    fn rows_empty(&self) -> bool {
        self.rows.findings.is_empty() && self.rows.rejects.is_empty() && self.rows.late.is_empty() && self.rows.quarantine.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
