//! Judging days: merge, judge once, learn, hour by hour, account by account; accounts are spread over threads.
//!
//! All parallelism sits outside the pure code: an account's hours are judged by one thread in order, days follow one
//! another, and what accounts have in common (the fleet's tables) is summed between days.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use flowtrail_detect::{
    AccountHour, AccountProfiles, BlockView, Conversation, Facts, Finding, Fleet, FleetDelta, Incidents, JudgeConfig, Learning,
    Observation, Window, judge_and_learn_window, judge_window, merge_into,
};
use flowtrail_ingest::{Day, EventTime, Hour, UnitId};

use crate::lane::{Learned, UnitRecord};
use crate::stored::{HourBlocks, StoredDay};

/// Flow records by the owner of their own end, in the order exact, candidates, other, unheld, unknown.
pub type Attribution = [u64; 5];

/// What judging gave besides profiles.
#[derive(Default)]
pub struct Said {
    /// Observations.
    pub observations: Vec<Observation>,
    /// Flow records that came with this call.
    pub attribution_new: Attribution,
    /// All flow records, by account and hour.
    pub attribution: BTreeMap<(String, Hour), Attribution>,
    /// Calls of this call of `replay`, admitted once.
    pub api: u64,
    /// Repeats among them.
    pub api_duplicate: u64,
}

impl Said {
    /// Adds what another part said.
    pub fn absorb(&mut self, other: Self) {
        self.observations.extend(other.observations);
        for (mine, theirs) in self.attribution_new.iter_mut().zip(other.attribution_new) {
            *mine += theirs;
        }
        self.attribution.extend(other.attribution);
        self.api += other.api;
        self.api_duplicate += other.api_duplicate;
    }
}

/// Profiles, the fleet's tables and the findings of days that may still get some.
#[derive(Default)]
pub struct Judge {
    /// Profiles by account.
    pub profiles: BTreeMap<String, AccountProfiles>,
    /// The fleet's tables.
    pub fleet: Fleet,
    /// What accounts add to the fleet on the day under way.
    pub deltas: BTreeMap<String, FleetDelta>,
    /// Findings, by account, joined per day.
    pub incidents: BTreeMap<String, Incidents>,
    spare: Mutex<Vec<Scratch>>,
}

/// What decides verdicts, and who knows the units by name.
pub struct Bench<'a> {
    /// The user's settings.
    pub config: &'a JudgeConfig,
    /// Names and lists.
    pub facts: Facts<'a>,
    /// Units by identity, for evidence.
    pub ledger: &'a HashMap<UnitId, UnitRecord>,
    /// Hours that end at or before this moment are sealed: judged for good and learned.
    pub sealed_until: EventTime,
    /// Threads.
    pub threads: usize,
}

/// What one thread judges, piece by piece.
struct GroupWork<'a> {
    pieces: Range<usize>,
    accounts: Vec<AccountWork<'a>>,
}

/// Memory that judging uses again and again.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    conversations: Vec<Conversation>,
}

struct AccountWork<'a> {
    account: &'a str,
    profiles: AccountProfiles,
    incidents: Incidents,
    delta: FleetDelta,
    said: Said,
}

impl From<Learned> for Judge {
    fn from(Learned { profiles, fleet, deltas, incidents, .. }: Learned) -> Self {
        Self { profiles, fleet, deltas, incidents, spare: Mutex::default() }
    }
}

impl Judge {
    /// Judges the hours of one day (or of a part of one) and learns those that are sealed.
    ///
    /// # Errors
    /// When a stored block does not decode.
    pub fn day(&mut self, bench: &Bench<'_>, day: &StoredDay<'_>) -> Result<Said> {
        let mut work: Vec<Mutex<GroupWork<'_>>> = Vec::new();
        for pieces in day.groups() {
            let accounts = day.accounts(&pieces).map(|account| AccountWork {
                account,
                profiles: self.profiles.remove(account).unwrap_or_default(),
                incidents: self.incidents.remove(account).unwrap_or_default(),
                delta: self.deltas.remove(account).unwrap_or_default(),
                said: Said::default(),
            });
            let accounts = accounts.collect();
            work.push(Mutex::new(GroupWork { pieces, accounts }));
        }
        let next = AtomicUsize::new(0);
        let (fleet, spare) = (&self.fleet, &self.spare);
        let run = || -> Result<()> {
            let mut scratch = spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            while let Some(item) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                item.lock().unwrap_or_else(PoisonError::into_inner).judge(bench, fleet, day, &mut scratch)?;
            }
            spare.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
            Ok(())
        };
        let threads = bench.threads.clamp(1, work.len().max(1));
        // One thread, too: the C library hands it the memory that a reader thread left behind.
        std::thread::scope(|scope| -> Result<()> {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            for handle in handles {
                handle.join().map_err(|_| anyhow::anyhow!("a judging thread failed: this is a bug"))??;
            }
            Ok(())
        })?;
        let mut said = Said::default();
        for item in work.into_iter().flat_map(|group| group.into_inner().unwrap_or_else(PoisonError::into_inner).accounts) {
            self.profiles.insert(item.account.to_owned(), item.profiles);
            self.incidents.insert(item.account.to_owned(), item.incidents);
            self.deltas.insert(item.account.to_owned(), item.delta);
            said.absorb(item.said);
        }
        Ok(said)
    }

    /// Ends a day: the fleet takes in what accounts added.
    pub fn close_day(&mut self, day: Day) {
        let deltas: Vec<FleetDelta> = std::mem::take(&mut self.deltas).into_values().collect();
        self.fleet.close_day(day, &deltas);
    }

    /// Takes the joined findings of all accounts out, for days that get no more.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.incidents).into_values().flat_map(Incidents::into_standing).collect()
    }

    /// Takes the findings of all accounts out, joined and as parts, for days that may get more.
    pub fn take_open_findings(&mut self) -> (Vec<Finding>, BTreeMap<String, Incidents>) {
        let incidents = std::mem::take(&mut self.incidents);
        (incidents.values().flat_map(Incidents::standing).collect(), incidents)
    }

    /// Warm-up over all accounts.
    #[must_use]
    pub fn learning(&self, day: Day) -> Vec<Learning> {
        let mut all: BTreeMap<String, Learning> = BTreeMap::new();
        for one in self.profiles.values().flat_map(|p| p.learning(day)) {
            let sum = all.entry(one.detector.clone()).or_insert_with(|| Learning { detector: one.detector.clone(), ..Learning::default() });
            sum.entities += one.entities;
            sum.ready += one.ready;
            sum.day = sum.day.max(one.day);
            sum.of = sum.of.max(one.of);
        }
        all.into_values().collect()
    }
}

impl GroupWork<'_> {
    fn judge(&mut self, bench: &Bench<'_>, fleet: &Fleet, day: &StoredDay<'_>, scratch: &mut Scratch) -> Result<()> {
        let mut at = 0;
        for piece in self.pieces.clone() {
            for hour in day.read(piece, &mut scratch.bytes)? {
                // Accounts come in the order that they are in here.
                while self.accounts.get(at).is_some_and(|work| work.account != hour.account) {
                    at += 1;
                }
                if let Some(work) = self.accounts.get_mut(at) {
                    work.judge(bench, fleet, &hour, &mut scratch.conversations)?;
                }
            }
        }
        Ok(())
    }
}

impl AccountWork<'_> {
    /// Judges the next hour. `conversations` is memory to work in.
    fn judge(&mut self, bench: &Bench<'_>, fleet: &Fleet, of: &HourBlocks<'_>, conversations: &mut Vec<Conversation>) -> Result<()> {
        let hour = of.hour;
        let (merged, counts) = merge_named(&of.blocks, bench.ledger, std::mem::take(conversations))?;
        let window = Window::build(&merged, &bench.facts);
        let sealed = hour.end() <= bench.sealed_until;
        let verdict = if sealed {
            judge_and_learn_window(bench.config, &mut self.profiles, fleet, &mut self.delta, &window)
        } else {
            judge_window(bench.config, &self.profiles, fleet, &window)
        };
        drop(window);
        *conversations = merged.conversations;
        self.said.api += counts.admitted;
        self.said.api_duplicate += counts.repeats;
        for (mine, theirs) in self.said.attribution_new.iter_mut().zip(verdict.attribution_new) {
            *mine += theirs;
        }
        self.said.attribution.insert((self.account.to_owned(), hour), verdict.attribution);
        self.said.observations.extend(verdict.observations);
        if sealed {
            self.incidents.seal_hour(self.account, hour, verdict.findings);
        } else {
            self.incidents.replace_hour(self.account, hour, verdict.findings);
        }
        Ok(())
    }
}

/// Merges an hour's blocks and gives its units their names. `spare` is used for its conversations.
///
/// # Errors
/// When a stored block does not decode.
pub fn merge_named(
    blocks: &[BlockView<'_>],
    ledger: &HashMap<UnitId, UnitRecord>,
    spare: Vec<Conversation>,
) -> Result<(AccountHour, flowtrail_detect::CallCounts)> {
    let (mut hour, counts) = merge_into(blocks, spare)?;
    for unit in &mut hour.units {
        if let Some(record) = ledger.get(&unit.id) {
            (unit.source, unit.key) = (record.source.as_str().into(), record.key.as_str().into());
        }
    }
    Ok((hour, counts))
}
