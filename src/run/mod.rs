//! `run`: for ever. Units are read in the order of their delivery; an hour is looked at while it is open, and sealed when
//! every source's clock has passed its end + R.
//!
//! The clock decides when we look, never what we find: a verdict is made by the same pure code, from the same merged
//! hours and the profile through the hour before, as in `replay`. Reading commits contributions first; sealing works
//! from what is committed, so that a crash anywhere means doing the same again.
//!
//! Read in this order: the loop here, [`clock`] (how far sources are), [`listing`], [`topics`] and [`collecting`] (what comes),
//! [`reading`] (units to contributions), [`sealing`] (looks and seals), [`writing`] (commits and tables).

mod clock;
mod collecting;
mod listing;
mod reading;
mod sealing;
#[cfg(test)]
mod tests;
mod topics;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use flowtrail_detect::Block;
use flowtrail_enrich::{Fact, Timelines};
use flowtrail_ingest::{Day, EventTime, Hour};

use crate::config::Clock;
use crate::judging::{Judge, Said};
use crate::lane::{Changes, Depth, Lane};
use crate::metrics::Gauges;
use crate::publish::{self, Rows};
use crate::setup::{Setup, now};
use crate::summary::Summary;

#[cfg(feature = "collect")]
pub use collecting::Collecting;
pub use listing::Listing;
#[cfg(feature = "kafka")]
pub use topics::KafkaTopic;

/// `once`: brokers that do not answer are waited for this long.
const BROKERS_MAX: Duration = Duration::from_secs(60);

/// What `run` is told.
pub struct Run {
    /// Stores, lists, settings.
    pub setup: Setup,
    /// Folders and buckets.
    pub listings: Vec<Listing>,
    /// Topics.
    #[cfg(feature = "kafka")]
    pub topics: Vec<KafkaTopic>,
    /// Snapshots to be taken.
    #[cfg(feature = "collect")]
    pub collecting: Option<Collecting>,
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
    /// How long a source that stands still, or a unit that cannot be fetched, holds sealing back.
    pub stall_limit: Duration,
    /// How many days of delivery units are remembered for.
    pub ledger_days: i32,
    /// Bytes of open contributions that are held in memory.
    pub memory: u64,
    /// Ends when every source is at its end.
    pub once: bool,
    /// Health, readiness, metrics.
    pub gauges: Gauges,
}

/// What is kept between steps of the loop.
pub(crate) struct Live {
    lane: Lane,
    timelines: Timelines,
    judge: Judge,
    listings: listing::Listings,
    #[cfg_attr(not(feature = "kafka"), allow(dead_code))]
    partitions: topics::Partitions,
    round: Option<Round>,
    /// Collections as they are finished, and how many were taken.
    #[cfg(feature = "collect")]
    collected: Option<crossbeam_channel::Receiver<collecting::Collected>>,
    #[cfg(feature = "collect")]
    collections: u64,
    /// Verdicts on hours that are still open, from the last look.
    looks: BTreeMap<sealing::AccountHour, sealing::Look>,
    looked: Instant,
    /// Every hour before this one is sealed.
    sealed_before: Option<Hour>,
    /// The first day whose findings and fleet tables may still grow.
    open_day: Option<Day>,
    /// The last day of which hours were sealed.
    active_day: Option<Day>,
    /// Something was committed since the last look.
    dirty: bool,
    /// Read, and not committed yet.
    pending: Changes,
    pending_bytes: usize,
    /// Of the pending blocks, those that nobody has looked at.
    fresh: Range<usize>,
    rows: Rows,
    said: Said,
    summary: Summary,
    newest: clock::Newest,
    /// Sources that stand still, and were told of.
    still: BTreeSet<String>,
    committed: Instant,
    commits: u64,
    /// Profiles in the state know the hours before this one.
    learned_before: Option<Hour>,
    profiles_written: Instant,
    /// When something was last read.
    read_at: Instant,
    /// Hours are learned again that were sealed before a crash: nothing is said of them twice.
    again: bool,
}

/// One round over all sources: a mark, then listings, and questions for the ends of partitions.
struct Round {
    mark: Option<EventTime>,
    began: Instant,
    /// Units that listings found, beyond what was known.
    found: usize,
}

impl Run {
    /// Runs until every source is at its end (`once`), or until it is asked to stop.
    ///
    /// # Errors
    /// When a store fails or another process owns the state: nothing half is visible, and starting again goes on.
    pub fn run(self) -> Result<Summary> {
        let mut live = self.open()?;
        self.gauges.ready();
        crate::process::note_signals();
        while self.step(&mut live)? && !crate::process::asked_to_stop() {}
        self.finish(&mut live)?;
        Ok(live.summary)
    }

    /// One turn of the loop. False when `once` is at its end.
    pub(crate) fn step(&self, live: &mut Live) -> Result<bool> {
        if self.once && self.at_end(live)? {
            // The last answer of a broker may be newer than the last look at the clocks.
            self.seal(live)?;
            return Ok(false);
        }
        if self.round_is_due(live) {
            self.begin_round(live)?;
        }
        let listed = self.read_chunk(live);
        let heard = self.read_topics(live)?;
        self.take_collected(live);
        self.hurry(live)?;
        self.commit_if_due(live)?;
        self.seal(live)?;
        if live.dirty && live.looked.elapsed() >= self.look_every {
            self.look(live)?;
            live.looked = Instant::now();
        }
        self.observe(live);
        if listed || heard {
            live.read_at = Instant::now();
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(if self.once { 50 } else { 500 }));
        Ok(true)
    }

    fn round_is_due(&self, live: &mut Live) -> bool {
        let began = live.round.as_ref().map(|round| round.began);
        live.listings.waiting.is_empty()
            && began.is_none_or(|began| began.elapsed() >= self.list_every || (self.once && self.topics_are_read(live)))
    }

    /// Takes the mark, asks brokers for ends and lists: in this order, see [`clock`].
    pub(crate) fn begin_round(&self, live: &mut Live) -> Result<()> {
        let began = Instant::now();
        let mut mark = self.mark(live);
        self.ask_ends(live, mark);
        let mut found = self.list(live, mark)?;
        // History that was never listed: what it holds is known now, and a second listing may stand at it.
        let far = mark.map_or(EventTime::MIN, |mark| mark.plus(self.setup.retention));
        if self.clock == Clock::Delivery && live.newest.0.is_some_and(|newest| newest > far) {
            mark = self.mark(live);
            self.ask_ends(live, mark);
            found = self.list(live, mark)?;
        }
        live.round = Some(Round { mark, began, found });
        Ok(())
    }

    /// True when a whole round found nothing, with everything read that was there when it began.
    fn at_end(&self, live: &mut Live) -> Result<bool> {
        let read = self.topics_are_read(live);
        if !read
            && live.read_at.elapsed() > BROKERS_MAX
            && let Some(trouble) = self.trouble_of_topics()
        {
            bail!("brokers have not answered for {} s: {trouble}", BROKERS_MAX.as_secs());
        }
        let Some(round) = live.round.as_ref().filter(|_| self.has_collected(live)) else { return Ok(false) };
        let quiet = round.found == 0 && live.listings.waiting.is_empty() && live.listings.held.is_empty();
        let newest = live.newest.0;
        Ok(read && quiet && (self.clock == Clock::Wall || (round.mark == newest && self.topics_were_asked_at(live, newest))))
    }

    /// Loads the state; hours that were sealed before a crash and not learned are learned again.
    pub(crate) fn open(&self) -> Result<Live> {
        let mut lane = Lane::open(self.setup.state.clone(), self.setup.output.clone(), now(), Depth::Open)?;
        lane.held_max = self.memory;
        let learned = lane.known.learned.take();
        let from = learned.as_ref().and_then(|l| l.sealed_before);
        let sealed_before = lane.known.judged.sealed_before.max(from);
        // Facts that came after hours were sealed which are to be learned again: those were judged without them.
        let later: BTreeSet<&Fact> = lane.known.facts_since.iter().filter(|(at, _)| *at > from).flat_map(|(_, facts)| facts).collect();
        let timelines = if later.is_empty() {
            Timelines::build(&lane.known.facts)
        } else {
            Timelines::build(&lane.known.facts.iter().filter(|fact| !later.contains(fact)).cloned().collect())
        };
        let mut judge = Judge::default();
        let mut open_day = None;
        if let Some(learned) = learned {
            open_day = learned.open_day;
            judge = Judge::from(learned);
        }
        // What a replay said of open hours is a first look: it is looked at again.
        if let Some(before) = from {
            for (account, incidents) in &mut judge.incidents {
                for hour in (before.0..before.0.saturating_add(48)).map(Hour) {
                    incidents.replace_hour(account, hour, Vec::new());
                }
            }
        }
        let mut newest = clock::Newest::default();
        lane.clocks.values().for_each(|at| newest.hear(Some(*at)));
        lane.known.ledger.values().for_each(|unit| newest.hear(unit.delivered_at));
        let mut live = Live {
            lane,
            timelines,
            judge,
            listings: listing::Listings::new(self.listings.len()),
            partitions: topics::Partitions::default(),
            round: None,
            #[cfg(feature = "collect")]
            collected: self.collecting.as_ref().map(Collecting::begin),
            #[cfg(feature = "collect")]
            collections: 0,
            looks: BTreeMap::new(),
            looked: Instant::now(),
            sealed_before: from,
            open_day,
            active_day: open_day,
            dirty: true,
            pending: Changes::default(),
            pending_bytes: 0,
            fresh: 0..0,
            rows: Rows::default(),
            said: Said::default(),
            summary: Summary::default(),
            newest,
            still: BTreeSet::new(),
            committed: Instant::now(),
            commits: 0,
            learned_before: from,
            profiles_written: Instant::now(),
            read_at: Instant::now(),
            again: false,
        };
        if let Some(limit) = sealed_before.filter(|_| sealed_before > from) {
            self.learn_again(&mut live, limit)?;
        } else {
            live.lane.known.facts_since.clear();
        }
        self.take_over(&mut live)?;
        Ok(live)
    }

    /// What a replay wrote of hours that are still open is written anew when they are sealed.
    fn take_over(&self, live: &mut Live) -> Result<()> {
        let Some(open) = live.lane.known.snapshots.remove(publish::OPEN_COVERAGE).filter(|files| !files.is_empty()) else { return Ok(()) };
        let from = live.sealed_before.unwrap_or(Hour(i32::MIN));
        for unit in live.lane.known.ledger.values().filter(|unit| unit.hour.is_some_and(|hour| hour >= from)) {
            live.pending.coverage.add_unit(unit);
        }
        live.pending.retired = open;
        live.pending.snapshots = true;
        self.write(live)
    }

    fn observe(&self, live: &Live) {
        let waiting = live.listings.waiting.len() + live.listings.held.len();
        self.gauges.update(&live.summary, waiting as u64, live.sealed_before, publish::count(&live.lane.known));
        self.observe_topics();
    }
}

impl Live {
    /// Takes contributions in; the next commit has them.
    fn take_blocks(&mut self, blocks: Vec<Block>) {
        if self.fresh.is_empty() {
            self.fresh = self.pending.blocks.len()..self.pending.blocks.len();
        }
        self.pending_bytes += blocks.iter().map(|b| b.bytes.len()).sum::<usize>();
        self.pending.blocks.extend(blocks);
        self.fresh.end = self.pending.blocks.len();
    }

    /// Units delivered before this day are not asked for again: what the ledger forgets is not listed either.
    fn horizon(&self, ledger_days: i32) -> Option<Day> {
        self.sealed_before.map(|sealed| Day(sealed.day().0.saturating_sub(ledger_days)))
    }

    fn rows_empty(&self) -> bool {
        self.rows.findings.is_empty() && self.rows.rejects.is_empty() && self.rows.late.is_empty() && self.rows.quarantine.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
