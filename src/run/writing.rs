//! Commits: when there is one, and what the end of a day and of the process add to it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use flowtrail_ingest::{Day, Hour};
use flowtrail_sink::Table;

use super::{Live, Run};
use crate::judging::Judge;
use crate::lane::{Changes, Learned};
use crate::publish::{self, Rows};
use crate::setup::now;
use crate::summary::Learning;

/// Commits between two roll-ups.
const ROLL_UP_EVERY: u64 = 256;
/// Profiles are written to the state when hours were sealed since, but not more often than this.
const PROFILES_EVERY: Duration = Duration::from_secs(300);
/// Contributions that wait for a commit, at most, bytes.
const PENDING_MAX: usize = 64 << 20;
/// Everything before this hour, and there is none after it.
const ALL: Hour = Hour(i32::MAX);

impl Run {
    /// Commits what was read if it is time.
    pub(super) fn commit_if_due(&self, live: &mut Live) -> Result<()> {
        let due = live.committed.elapsed() >= self.commit_every;
        if due || live.pending_bytes >= PENDING_MAX { self.commit(live) } else { Ok(()) }
    }

    /// Commits what was read. Facts are known to judging from here on.
    pub(super) fn commit(&self, live: &mut Live) -> Result<()> {
        let mut changes = std::mem::take(&mut live.pending);
        self.set_aside_late(live, &mut changes)?;
        let facts: BTreeSet<_> = std::mem::take(&mut changes.facts).into_iter().collect();
        changes.facts = facts.into_iter().filter(|fact| !live.lane.known.facts.contains(fact)).collect();
        changes.facts_since = live.sealed_before;
        live.dirty |= !changes.blocks.is_empty() || !changes.facts.is_empty();
        let nothing = changes.is_empty() && live.rows_empty();
        live.pending = changes;
        live.committed = Instant::now();
        if nothing {
            return Ok(());
        }
        if !live.pending.facts.is_empty() {
            live.timelines.update(live.pending.facts.iter().cloned());
        }
        self.write(live)?;
        self.acknowledge(live);
        Ok(())
    }

    /// Writes rows and what is pending in one commit.
    pub(super) fn write(&self, live: &mut Live) -> Result<()> {
        let roll_up = (live.commits + 1).is_multiple_of(ROLL_UP_EVERY);
        let sealed_since = live.sealed_before > live.learned_before;
        if roll_up || (sealed_since && live.profiles_written.elapsed() >= PROFILES_EVERY) {
            self.keep_learned(live);
        }
        self.write_with(live, Rows::default(), roll_up)
    }

    /// The end of a day: profiles, owners and coverage are written, and what is not asked for again is put by.
    pub(super) fn write_day(&self, live: &mut Live, day: Day) -> Result<()> {
        let mut rows = self.day_rows(live, day);
        self.cover(live, &mut rows, day.next().first_hour());
        self.keep_learned(live);
        if let Some(horizon) = live.horizon(self.ledger_days) {
            let read = &live.listings.read;
            let keep = |unit: &crate::lane::UnitRecord| {
                // A partition goes on; a file without a time in its name is known by its content as long as it lies there.
                unit.source == "kafka" || (unit.delivered_at.is_none() && read.keys().any(|place| place.1 == unit.key))
            };
            live.lane.put_by(day.next(), horizon, &keep)?;
        }
        self.write_with(live, rows, true)
    }

    /// What is known at the end of a day.
    fn day_rows(&self, live: &Live, day: Day) -> Rows {
        let known_until = live.lane.known.facts.iter().filter_map(|f| f.at).max().unwrap_or_else(now);
        let end = day.next().start();
        Rows {
            profiles: Some((day, live.judge.profiles.iter().flat_map(|(account, p)| p.rows(account, day)).collect())),
            eni_owners: Some((day, live.timelines.owner_rows(known_until.min(end)))),
            ..Rows::default()
        }
    }

    /// Coverage of the hours before `hour` that has no rows yet.
    fn cover(&self, live: &mut Live, rows: &mut Rows, hour: Hour) {
        let mut all = live.lane.known.coverage.clone();
        all.absorb(live.pending.coverage.clone());
        let coverage = all.rows_before(hour);
        if !coverage.is_empty() {
            rows.coverage = Some(coverage);
            live.pending.covered = Some(hour);
        }
    }

    /// The one place from which `run` commits.
    fn write_with(&self, live: &mut Live, more: Rows, roll_up: bool) -> Result<()> {
        let mut rows = std::mem::take(&mut live.rows);
        (rows.profiles, rows.eni_owners, rows.coverage) = (more.profiles, more.eni_owners, more.coverage);
        let mut changes = std::mem::take(&mut live.pending);
        live.pending_bytes = 0;
        live.fresh = 0..0;
        changes.findings = rows.findings.iter().map(|r| r.finding.finding_id.clone()).collect();
        let observations = std::mem::take(&mut live.said.observations);
        rows.observations = (!observations.is_empty()).then_some(observations);
        let (files, _) = publish::encode(rows, &self.setup.tables)?;
        changes.files = live.lane.stage(&files)?;
        for table in [Table::Profiles, Table::EniOwners] {
            live.replace_snapshot(table, &mut changes);
        }
        live.commits += 1;
        // What is learned may be most of the memory: it is lent to the commit, not copied.
        if changes.learned {
            live.lend_learned();
        }
        let committed = live.lane.commit(changes, self.setup.config_hash, now(), roll_up);
        live.take_learned_back();
        committed?;
        self.gauges.committed(now());
        Ok(())
    }

    /// The next commit says what is learned.
    fn keep_learned(&self, live: &mut Live) {
        live.pending.learned = true;
        live.learned_before = live.sealed_before;
        live.profiles_written = Instant::now();
    }

    /// An orderly end: what was read is committed, and all tables are as they stand.
    pub(super) fn finish(&self, live: &mut Live) -> Result<()> {
        self.commit(live)?;
        if live.dirty {
            self.look(live)?;
        }
        let known_until = live.lane.known.facts.iter().filter_map(|f| f.at).max().unwrap_or_else(now);
        let day = live.sealed_before.map_or(known_until.day(), |h| Hour(h.0.saturating_sub(1)).day()).min(known_until.day());
        let learning = live.judge.learning(day);
        if !self.stands(live, day, &learning) {
            let mut rows = self.day_rows(live, day);
            self.cover(live, &mut rows, ALL);
            self.keep_learned(live);
            live.lane.known.judged.learning = learning;
            live.pending.judged = true;
            self.write_with(live, rows, true)?;
        }
        self.sum_up(live);
        Ok(())
    }

    /// True when the last commit was an orderly end, too, and nothing was read, learned or sealed since: writing tables and
    /// profiles would only write them again.
    fn stands(&self, live: &Live, day: Day, learning: &[flowtrail_detect::Learning]) -> bool {
        let written =
            [Table::Profiles, Table::EniOwners].into_iter().filter(|t| self.setup.tables.iter().any(|w| w == t.name())).all(|table| {
                let folder = format!("{}/dt={day}/", table.name());
                live.lane.last_files.iter().any(|key| key.starts_with(&folder))
            });
        let quiet = live.pending.is_empty() && live.rows_empty() && live.said.observations.is_empty();
        let learned = live.sealed_before == live.learned_before && !live.again && live.lane.known.judged.learning == learning;
        live.commits == 0 && live.lane.rolled_up && written && quiet && learned && live.lane.known.coverage.rows_before(ALL).is_empty()
    }

    /// The summary's parts that tell how things stand.
    fn sum_up(&self, live: &mut Live) {
        for one in &live.lane.known.judged.learning {
            let learning = Learning { entities: one.entities, ready: one.ready, day: one.day, of: one.of };
            live.summary.learning.insert(one.detector.clone(), learning);
        }
        live.summary.findings = publish::count(&live.lane.known);
        live.summary.loudest = publish::loudest(&live.lane.known.findings);
        live.summary.records.api = live.said.api + live.looks.values().map(|look| look.calls.0).sum::<u64>();
        live.summary.records.api_duplicate = live.said.api_duplicate + live.looks.values().map(|look| look.calls.1).sum::<u64>();
        let mut attribution = live.said.attribution_new;
        for look in live.looks.values() {
            attribution.iter_mut().zip(look.attribution).for_each(|(mine, theirs)| *mine += theirs);
        }
        let [exact, candidates, other, unheld, unknown] = attribution;
        live.summary.attribution = crate::summary::AttributionCounts { exact, candidates, other, unheld, unknown };
    }
}

impl Live {
    /// Puts what is learned where commits take it from.
    fn lend_learned(&mut self) {
        self.lane.known.learned = Some(Learned {
            sealed_before: self.sealed_before,
            profiles: std::mem::take(&mut self.judge.profiles),
            fleet: std::mem::take(&mut self.judge.fleet),
            deltas: std::mem::take(&mut self.judge.deltas),
            open_day: self.open_day,
            incidents: std::mem::take(&mut self.judge.incidents),
        });
    }

    /// Judging has it again.
    fn take_learned_back(&mut self) {
        if let Some(learned) = self.lane.known.learned.take() {
            self.judge = Judge::from(learned);
        }
    }

    /// A snapshot written again for the same day replaces the one before; that of another day stays.
    fn replace_snapshot(&mut self, table: Table, changes: &mut Changes) {
        let prefix = format!("{}/", table.name());
        let keys: Vec<String> = changes.files.iter().filter(|f| f.key.starts_with(&prefix)).map(|f| f.key.clone()).collect();
        let Some(folder) = keys.first().and_then(|key| key.rsplit_once('/')).map(|(folder, _)| folder.to_owned()) else { return };
        let before = self.lane.known.snapshots.insert(table.name().to_owned(), keys).unwrap_or_default();
        changes.retired.extend(before.into_iter().filter(|key| key.rsplit_once('/').is_some_and(|(f, _)| f == folder)));
        changes.snapshots = true;
    }
}
