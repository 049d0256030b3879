//! Judging days: merge, judge once, learn, hour by hour, account by account; accounts are spread over threads.
//!
//! All parallelism sits outside the pure code: an account's hours are judged by one thread in order, days follow one
//! another, and what accounts have in common (the fleet's tables) is summed between days.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use flowtrail_detect::{
    AccountHour, AccountProfiles, BlockView, Facts, Finding, Fleet, FleetDelta, Incidents, JudgeConfig, Learning, Observation, Window,
    judge_and_learn_window, judge_window, merge,
};
use flowtrail_ingest::{Day, EventTime, Hour, UnitId};

use crate::lane::UnitRecord;

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

struct AccountWork<'a> {
    account: &'a str,
    hours: &'a BTreeMap<Hour, Vec<BlockView<'a>>>,
    profiles: AccountProfiles,
    incidents: Incidents,
    delta: FleetDelta,
    said: Said,
}

impl Judge {
    /// Judges the hours of one day (or of a part of one) and learns those that are sealed.
    ///
    /// # Errors
    /// When a stored block does not decode.
    pub fn day(&mut self, bench: &Bench<'_>, blocks: &BTreeMap<&str, BTreeMap<Hour, Vec<BlockView<'_>>>>) -> Result<Said> {
        let work: Vec<Mutex<AccountWork<'_>>> = blocks
            .iter()
            .map(|(account, hours)| {
                Mutex::new(AccountWork {
                    account,
                    hours,
                    profiles: self.profiles.remove(*account).unwrap_or_default(),
                    incidents: self.incidents.remove(*account).unwrap_or_default(),
                    delta: self.deltas.remove(*account).unwrap_or_default(),
                    said: Said::default(),
                })
            })
            .collect();
        let next = AtomicUsize::new(0);
        let fleet = &self.fleet;
        let run = || -> Result<()> {
            while let Some(item) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut item = item.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                item.judge(bench, fleet)?;
            }
            Ok(())
        };
        let threads = bench.threads.clamp(1, work.len().max(1));
        if threads == 1 {
            run()?;
        } else {
            std::thread::scope(|scope| -> Result<()> {
                let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
                for handle in handles {
                    handle.join().map_err(|_| anyhow::anyhow!("a judging thread failed: this is a bug"))??;
                }
                Ok(())
            })?;
        }
        let mut said = Said::default();
        for item in work {
            let item = item.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
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

impl AccountWork<'_> {
    fn judge(&mut self, bench: &Bench<'_>, fleet: &Fleet) -> Result<()> {
        for (hour, blocks) in self.hours {
            let (merged, counts) = merge_named(blocks, bench.ledger)?;
            let window = Window::build(&merged, &bench.facts);
            let verdict = if hour.end() <= bench.sealed_until {
                judge_and_learn_window(bench.config, &mut self.profiles, fleet, &mut self.delta, &window)
            } else {
                judge_window(bench.config, &self.profiles, fleet, &window)
            };
            self.said.api += counts.admitted;
            self.said.api_duplicate += counts.repeats;
            for (mine, theirs) in self.said.attribution_new.iter_mut().zip(verdict.attribution_new) {
                *mine += theirs;
            }
            self.said.attribution.insert((self.account.to_owned(), *hour), verdict.attribution);
            self.said.observations.extend(verdict.observations);
            self.incidents.replace_hour(self.account, *hour, verdict.findings);
        }
        Ok(())
    }
}

/// Merges an hour's blocks and gives its units their names.
///
/// # Errors
/// When a stored block does not decode.
pub fn merge_named(blocks: &[BlockView<'_>], ledger: &HashMap<UnitId, UnitRecord>) -> Result<(AccountHour, flowtrail_detect::CallCounts)> {
    let (mut hour, counts) = merge(blocks)?;
    for unit in &mut hour.units {
        if let Some(record) = ledger.get(&unit.id) {
            unit.source.clone_from(&record.source);
            unit.key.clone_from(&record.key);
        }
    }
    Ok((hour, counts))
}
