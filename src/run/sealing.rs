//! Looks and seals: provisional verdicts on open hours, and the final one, hour after hour.
//!
//! A seal works from what is committed, in steps of at most a day, each one commit: a crash anywhere means doing the same
//! again. What facts were known at a seal is in the commits, too, so that an hour that is learned again after a crash is
//! learned from the same facts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use flowtrail_detect::{Block, BlockView, Facts, Finding, Incidents, Verdict, Window};
use flowtrail_ingest::{Day, EventTime, Hour};

use super::{Live, Run};
use crate::judging::{Attribution, Bench};
use crate::lane::{Changes, Ended};
use crate::publish;
use crate::setup::now;
use crate::stored::StoredDay;

/// Detectors whose hits can only grow: said at once.
const AT_ONCE: [&str; 3] = ["threat_list", "privilege_escalation", "rule"];

/// What the last look at an open hour saw.
#[derive(Default)]
pub struct Look {
    findings: Vec<Finding>,
    /// Calls that came with this process, admitted and repeats.
    pub calls: (u64, u64),
    /// Flow records that came with this process, by attribution.
    pub attribution: Attribution,
}

/// An account's hour.
pub type AccountHour = (String, Hour);

impl Run {
    /// Seals what the sources' clocks allow.
    pub(super) fn seal(&self, live: &mut Live) -> Result<()> {
        let Some(clock) = self.clock_now(live) else { return Ok(()) };
        let limit = clock.plus(-self.setup.retention).0.div_euclid(3600);
        let Ok(limit) = i32::try_from(limit).map(Hour) else { return Ok(()) };
        if live.sealed_before.is_some_and(|sealed| limit <= sealed) {
            return Ok(());
        }
        // What was read by now belongs to these hours, too.
        self.commit(live)?;
        self.seal_until(live, limit)
    }

    /// Judges for good and learns every open hour before `limit`, in order.
    pub(super) fn seal_until(&self, live: &mut Live, limit: Hour) -> Result<()> {
        while live.sealed_before.is_none_or(|sealed| sealed < limit) {
            let Some(from) = live.sealed_before.or_else(|| live.lane.known.first_hour()).filter(|from| *from < limit) else {
                live.sealed_before = Some(limit);
                break;
            };
            self.seal_step(live, from, limit.min(from.day().next().first_hour()))?;
        }
        Ok(())
    }

    /// Seals `from..until`, which lie in one day, and the day if it ends there.
    fn seal_step(&self, live: &mut Live, from: Hour, until: Hour) -> Result<()> {
        let day = from.day();
        self.close_days(live, day);
        let mut any = false;
        let stored = StoredDay::of(&live.lane, day, &|_, hour| hour >= from && hour < until);
        if !stored.is_empty() {
            any = true;
            let mut judge = std::mem::take(&mut live.judge);
            let judged = judge.day(&self.bench(live, until.start()), &stored);
            live.judge = judge;
            let mut said = judged?;
            live.open_day.get_or_insert(day);
            live.active_day = Some(day);
            if !live.again {
                for ((account, hour), counts) in std::mem::take(&mut said.attribution) {
                    live.pending.coverage.add_attribution(&account, hour, &counts);
                }
                live.said.absorb(said);
            }
        }
        live.sealed_before = Some(until);
        live.looks.retain(|(_, hour), _| *hour >= until);
        if live.again {
            return Ok(());
        }
        let day_ends = until == day.next().first_hour() && live.active_day == Some(day);
        if any || day_ends {
            live.lane.known.judged.sealed_before = live.lane.known.judged.sealed_before.max(Some(until));
            live.pending.judged = true;
            live.dirty = true;
            self.revise(live);
            if day_ends {
                self.close_days(live, day.next());
                self.write_day(live, day)?;
            } else {
                self.write(live)?;
            }
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

    /// Ends the days before `day`: the fleet's tables take them in, their findings stand.
    fn close_days(&self, live: &mut Live, day: Day) {
        let Some(mut open) = live.open_day.filter(|open| *open < day) else { return };
        self.revise(live);
        while open < day {
            live.judge.close_day(open);
            open = open.next();
        }
        for incidents in live.judge.incidents.values_mut() {
            incidents.forget_before(day);
        }
        live.open_day = Some(day);
    }

    /// A provisional verdict on every open hour, with the profiles through the last sealed one.
    pub(super) fn look(&self, live: &mut Live) -> Result<()> {
        let from = live.sealed_before;
        let mut looks = BTreeMap::new();
        for day in live.lane.known.days().into_iter().filter(|d| from.is_none_or(|f| *d >= f.day())) {
            self.look_at(live, day, &|_, hour| from.is_none_or(|f| hour >= f), &mut looks)?;
        }
        live.looks = looks;
        live.dirty = false;
        self.revise(live);
        if !live.rows_empty() { self.write(live) } else { Ok(()) }
    }

    /// A look at some hours at once.
    fn look_at_once(&self, live: &mut Live, hot: &BTreeSet<AccountHour>) -> Result<()> {
        let mut looks = std::mem::take(&mut live.looks);
        let days: BTreeSet<Day> = hot.iter().map(|(_, hour)| hour.day()).collect();
        for day in days {
            self.look_at(live, day, &|account, hour| hot.iter().any(|(a, h)| a == account && *h == hour), &mut looks)?;
        }
        live.looks = looks;
        self.revise(live);
        if !live.rows_empty() { self.write(live) } else { Ok(()) }
    }

    fn look_at(&self, live: &Live, day: Day, wanted: &dyn Fn(&str, Hour) -> bool, looks: &mut BTreeMap<AccountHour, Look>) -> Result<()> {
        StoredDay::of(&live.lane, day, wanted).each(&mut |of| {
            looks.insert((of.account.to_owned(), of.hour), self.look_at_hour(live, of.account, &of.blocks)?);
            Ok(())
        })
    }

    fn look_at_hour(&self, live: &Live, account: &str, blocks: &[BlockView<'_>]) -> Result<Look> {
        let bench = self.bench(live, EventTime::MIN);
        let nobody = flowtrail_detect::AccountProfiles::default();
        let profiles = live.judge.profiles.get(account).unwrap_or(&nobody);
        let (merged, counts) = crate::judging::merge_named(blocks, bench.ledger, Vec::new())?;
        let window = Window::build(&merged, &bench.facts);
        let Verdict { findings, attribution_new, .. } = flowtrail_detect::judge_window(bench.config, profiles, &live.judge.fleet, &window);
        Ok(Look { findings, calls: (counts.admitted, counts.repeats), attribution: attribution_new })
    }

    /// Says at once what only grows: if the newest contributions alone hit a list or an escalation that was not said yet, they
    /// are committed and their hours looked at. Only for what has just come, not while history is read.
    pub(super) fn hurry(&self, live: &mut Live) -> Result<()> {
        let fresh = std::mem::take(&mut live.fresh);
        if fresh.is_empty() || !live.listings.waiting.is_empty() {
            return Ok(());
        }
        let mut hours: BTreeMap<AccountHour, Vec<&Block>> = BTreeMap::new();
        for block in live.pending.blocks.get(fresh).unwrap_or_default() {
            if live.sealed_before.is_none_or(|sealed| block.hour >= sealed) {
                hours.entry((block.account.clone(), block.hour)).or_default().push(block);
            }
        }
        let mut hot = BTreeSet::new();
        for (of, blocks) in hours {
            let views: Vec<BlockView<'_>> = blocks.iter().map(|b| b.view(true)).collect();
            let look = self.look_at_hour(live, &of.0, &views)?;
            let unsaid = |f: &Finding| {
                AT_ONCE.contains(&f.detector.as_str()) && live.lane.known.findings.get(&f.finding_id).is_none_or(|known| known.withdrawn)
            };
            if look.findings.iter().any(unsaid) {
                hot.insert(of);
            }
        }
        if hot.is_empty() {
            return Ok(());
        }
        self.commit(live)?;
        self.look_at_once(live, &hot)
    }

    /// New revisions of the findings of days that are not closed, from sealed verdicts and the last look.
    pub(super) fn revise(&self, live: &mut Live) {
        if live.again {
            return;
        }
        let mut all = Incidents::default();
        for incidents in live.judge.incidents.values() {
            all.absorb(incidents.clone());
        }
        for finding in live.looks.values().flat_map(|look| &look.findings) {
            all.add(finding.clone());
        }
        let open_day = live.open_day;
        let sealed_until = live.sealed_before.map_or(EventTime::MIN, Hour::start);
        let standing: Vec<(Finding, bool)> = all
            .standing()
            .map(|f| {
                let sealed = f.window_end <= sealed_until;
                (f, sealed)
            })
            .collect();
        let open = move |f: &Finding| open_day.is_none_or(|d| f.window_start.day() >= d);
        let rows = publish::revise(&mut live.lane.known.findings, standing, Some(&open), now());
        live.rows.findings.extend(rows);
    }

    /// Learns again, after a crash, the hours that were sealed and whose profiles were not written yet. Nothing is said again.
    pub(super) fn learn_again(&self, live: &mut Live, limit: Hour) -> Result<()> {
        let since = std::mem::take(&mut live.lane.known.facts_since);
        live.again = true;
        for (known_at, facts) in since {
            // Facts that came when these hours were sealed already: the verdicts were made without them.
            if let Some(known_at) = known_at.filter(|at| live.sealed_before.is_none_or(|sealed| *at > sealed)) {
                self.seal_until(live, known_at.min(limit))?;
            }
            live.timelines.update(facts.into_iter());
        }
        self.seal_until(live, limit)?;
        live.again = false;
        self.revise(live);
        Ok(())
    }

    /// What belongs to a sealed hour is late: said, not counted.
    pub(super) fn set_aside_late(&self, live: &mut Live, changes: &mut Changes) -> Result<()> {
        let Some(sealed) = live.sealed_before else { return Ok(()) };
        let (late, kept): (Vec<Block>, Vec<Block>) = std::mem::take(&mut changes.blocks).into_iter().partition(|b| b.hour < sealed);
        changes.blocks = kept;
        for block in late {
            let (hour, _) = flowtrail_detect::merge(&[block.view(true)])?;
            let records = hour.conversations.iter().map(flowtrail_detect::Conversation::flows).sum::<u64>() + hour.calls.len() as u64;
            live.summary.late_records += records;
            changes.coverage.add_late(&block.account, block.hour, records);
            for unit in &hour.units {
                let named = live.lane.known.ledger.get(&unit.id);
                if named.is_some_and(|record| record.ended == Ended::Late) {
                    // It has a row of its own.
                    continue;
                }
                let (source, key) =
                    named.map_or_else(|| (String::new(), unit.id.to_string()), |record| (record.source.clone(), record.key.clone()));
                live.rows.late.push(flowtrail_sink::tables::set_aside::LateRow {
                    time: block.hour.start(),
                    source,
                    key,
                    position: None,
                    reason: format!("of {records} records of account {} for the hour of {}, which is sealed", block.account, block.hour),
                    sample: String::new(),
                });
            }
        }
        Ok(())
    }
}
