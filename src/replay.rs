//! `replay`: the input is all there is. Read everything, then judge day by day, then commit once.
//!
//! Readers flush contributions into run files along the way, so that memory is bounded and a killed replay goes on with
//! the units it had committed. Judging starts when reading is done, from the first hour: the outcome is that of one pass
//! over all that was ever read. The same input again finds nothing new and changes nothing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender};
use dashmap::{DashMap, Entry};
use flowtrail_detect::{Block, Facts};
use flowtrail_enrich::Timelines;
use flowtrail_ingest::{Day, EventTime, Hour, UnitId};
use flowtrail_sink::tables::findings::{FindingRow, finding_json};

use crate::input::{Announced, Inputs};
use crate::judging::{Bench, Judge, Said};
use crate::lane::{Changes, DayBlocks, Ended, Judged, Lane, Learned};
use crate::progress::Progress;
use crate::publish::{self, Rows};
use crate::reader::{ReadSettings, Reader, UnitReport};
use crate::setup::Setup;
use crate::summary::{Learning, Quarantined, Summary};

/// Commit what is read at least this often, so that a killed replay goes on from there.
const COMMIT_EVERY: Duration = Duration::from_secs(20);
/// … or when this many bytes of contributions wait.
const COMMIT_BYTES: usize = 96 << 20;

/// What one replay is told.
pub struct Replay {
    /// Stores, lists, settings.
    pub setup: Setup,
    /// Where records come from.
    pub inputs: Inputs,
    /// How units are read.
    pub read: ReadSettings,
    /// The replay's now.
    pub as_of: EventTime,
    /// The one reading of the clock.
    pub seen_at: EventTime,
    /// Threads.
    pub threads: usize,
    /// Where new findings are written as JSON lines.
    pub json_findings: Option<String>,
}

/// A flush of one reader thread: contributions and the units that they are all of.
#[derive(Default)]
struct Flush {
    blocks: Vec<Block>,
    reports: Vec<UnitReport>,
    duplicates: u64,
}

impl Replay {
    /// Does it.
    ///
    /// # Errors
    /// When a store fails, the state is damaged, or another process writes it.
    pub fn run(mut self) -> Result<Summary> {
        let mut lane = Lane::open(self.setup.state.clone(), self.setup.output.clone(), self.seen_at)?;
        let mut summary = Summary::default();
        let mut rows = Rows::default();
        let changed = self.read_all(&mut lane, &mut summary, &mut rows)?;
        let said = self.judge_all(&mut lane, &mut rows, changed)?;
        if let Some(said) = &said {
            summary.records.api = said.api;
            summary.records.api_duplicate = said.api_duplicate;
            let [exact, candidates, other, unheld, unknown] = said.attribution_new;
            summary.attribution = crate::summary::AttributionCounts { exact, candidates, other, unheld, unknown };
        }
        for learning in &lane.known.judged.learning {
            let one = Learning { entities: learning.entities, ready: learning.ready, day: learning.day, of: learning.of };
            summary.learning.insert(learning.detector.clone(), one);
        }
        let told: Vec<FindingRow> = rows.findings.clone();
        self.commit(&mut lane, rows, said.is_some())?;
        summary.findings = publish::count(&lane.known.findings);
        summary.loudest = publish::loudest(&lane.known.findings);
        self.tell(&told)?;
        Ok(summary)
    }

    /// Reads every unit that is not known; commits along the way. True when anything came that judging has not seen.
    fn read_all(&mut self, lane: &mut Lane, summary: &mut Summary, rows: &mut Rows) -> Result<bool> {
        let listed = self.inputs.list()?;
        for problem in &listed.problems {
            summary.quarantined.push(Quarantined { source: problem.path.clone(), reason: problem.reason.clone() });
            summary.units.quarantined += 1;
        }
        let claimed = Claims::new(lane);
        let progress = Progress::new(&listed.objects);
        let (sender, receiver) = crossbeam_channel::bounded::<Flush>(self.threads * 2);
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let threads = self.threads.clamp(1, listed.objects.len().max(1));
        let flows = crate::flows::FlowsTable::of(&self.setup, lane)?;
        let mut changed = false;
        let outcome = std::thread::scope(|scope| -> Result<()> {
            for thread in 0..threads {
                let (sender, claimed, next, stop, objects, inputs, progress) =
                    (sender.clone(), &claimed, &next, &stop, &listed.objects, &self.inputs, &progress);
                let settings = self.read.clone();
                let flows = flows.as_ref();
                scope.spawn(move || read_units(thread, settings, objects, inputs, claimed, next, stop, &sender, progress, flows));
            }
            drop(sender);
            let collected = self.collect(lane, &receiver, summary, rows, &mut changed);
            if collected.is_err() {
                stop.store(true, Ordering::Relaxed);
                // Readers may wait for room in the queue: let them end.
                while receiver.recv().is_ok() {}
            }
            collected
        });
        progress.finish();
        outcome?;
        Ok(changed)
    }

    /// Takes flushes, and commits them as whole sets of units.
    fn collect(&self, lane: &mut Lane, receiver: &Receiver<Flush>, summary: &mut Summary, rows: &mut Rows, changed: &mut bool) -> Result<()> {
        let mut waiting = Changes::default();
        let mut waiting_bytes = 0;
        let mut last = Instant::now();
        while let Ok(flush) = receiver.recv() {
            summary.units.duplicate += flush.duplicates;
            waiting_bytes += flush.blocks.iter().map(|b| b.bytes.len()).sum::<usize>();
            *changed |= !flush.blocks.is_empty();
            waiting.blocks.extend(flush.blocks);
            for mut report in flush.reports {
                add_to_summary(summary, &report);
                publish::set_aside(rows, &report, self.as_of);
                let facts = std::mem::take(&mut report.facts);
                let new: Vec<_> = facts.into_iter().filter(|f| !lane.known.facts.contains(f)).collect();
                *changed |= !new.is_empty() || report.record.ended == Ended::Applied;
                waiting.facts.extend(new);
                if report.record.ended != Ended::Quarantined {
                    waiting.units.push(report.record);
                }
            }
            if waiting_bytes >= COMMIT_BYTES || last.elapsed() >= COMMIT_EVERY {
                self.commit_read(lane, std::mem::take(&mut waiting))?;
                (waiting_bytes, last) = (0, Instant::now());
            }
        }
        self.commit_read(lane, waiting)
    }

    fn commit_read(&self, lane: &mut Lane, mut changes: Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        // Flushes arrive in any order; what is stored does not show it.
        changes.units.sort_by_key(|u| u.id);
        changes.facts = changes.facts.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        if !lane.known.judged.stale {
            lane.known.judged.stale = true;
            changes.judged = true;
        }
        lane.commit(changes, self.setup.config_hash, self.seen_at, false)
    }

    /// Judges everything from the first hour, if there is anything to judge anew.
    fn judge_all(&self, lane: &mut Lane, rows: &mut Rows, changed: bool) -> Result<Option<Said>> {
        let judged = &lane.known.judged;
        let same_settings = judged.config_hash == self.setup.config_hash;
        if !changed && !judged.stale && same_settings && !judged.unsealed {
            return Ok(None);
        }
        let sealed_until = self.as_of.plus(-self.setup.retention);
        let timelines = Timelines::build(&lane.known.facts);
        let bench = Bench {
            config: &self.setup.judge,
            facts: Facts { timelines: &timelines, book: &self.setup.book },
            ledger: &lane.known.ledger,
            sealed_until,
            threads: self.threads,
        };
        let mut judge = Judge::default();
        let mut said = Said::default();
        let mut standing = Vec::new();
        let days = lane.known.days();
        let mut open: Option<Day> = None;
        let mut last_judged: Option<(Day, Learned)> = None;
        for day in days.iter().copied() {
            // Days without a record age the fleet's tables too.
            while let Some(before) = open.filter(|b| *b < day) {
                if before.next().start() <= sealed_until {
                    judge.close_day(before);
                }
                open = Some(before.next());
            }
            open = Some(day);
            let blocks = DayBlocks::read(lane, day)?;
            said.absorb(judge.day(&bench, &blocks.by_account())?);
            if day.next().start() > sealed_until || Some(&day) == days.last() {
                // `run` may go on here: these incidents can still grow.
                let incidents = judge.incidents.clone();
                last_judged = Some((day, Learned { incidents, ..Learned::default() }));
            }
            standing.extend(judge.take_findings().into_iter().map(|f| {
                let sealed = f.window_end <= sealed_until;
                (f, sealed)
            }));
        }
        let last_day = days.last().copied();
        let learning = judge.learning(last_day.unwrap_or_default());
        let unsealed = last_day.is_some_and(|d| d.next().start() > sealed_until);
        rows.findings = publish::revise(&mut lane.known.findings, standing, None, self.seen_at);
        said.observations.sort_by(|a, b| (a.time, &a.account_id, &a.entity_id, &a.kind, &a.subject).cmp(&(b.time, &b.account_id, &b.entity_id, &b.kind, &b.subject)));
        rows.observations = Some(std::mem::take(&mut said.observations));
        rows.coverage = Some(publish::coverage(&lane.known, &said.attribution));
        let known_until = lane.known.facts.iter().filter_map(|f| f.at).max().map_or(self.as_of, |t| t.min(self.as_of));
        let snapshot_day = last_day.unwrap_or_else(|| known_until.day());
        rows.eni_owners = Some((snapshot_day, timelines.owner_rows(known_until)));
        let profiles = judge.profiles.iter().flat_map(|(account, p)| p.rows(account, snapshot_day)).collect();
        rows.profiles = Some((snapshot_day, profiles));
        let sealed_before = Hour(i32::try_from(sealed_until.0.div_euclid(3600)).unwrap_or(i32::MAX));
        lane.known.learned = Some(Learned {
            sealed_before: last_day.map(|d| d.next().first_hour().min(sealed_before)),
            profiles: judge.profiles,
            fleet: judge.fleet,
            deltas: judge.deltas,
            open_day: open,
            incidents: last_judged.map(|l| l.1.incidents).unwrap_or_default(),
        });
        lane.known.judged = Judged { config_hash: self.setup.config_hash, unsealed, stale: false, learning, sealed_before: None };
        Ok(Some(said))
    }

    fn commit(&self, lane: &mut Lane, rows: Rows, judged: bool) -> Result<()> {
        let (files, replaced) = publish::encode(rows, &self.setup.tables)?;
        if files.is_empty() && !judged {
            return Ok(());
        }
        let staged = lane.stage(&files)?;
        let mut changes = Changes { files: staged, judged: true, learned: true, snapshots: true, ..Changes::default() };
        for table in replaced {
            let prefix = format!("{}/", table.name());
            let now: Vec<String> = changes.files.iter().filter(|f| f.key.starts_with(&prefix)).map(|f| f.key.clone()).collect();
            changes.retired.extend(lane.known.snapshots.insert(table.name().to_owned(), now).unwrap_or_default());
        }
        lane.commit(changes, self.setup.config_hash, self.seen_at, true)
    }

    /// `--json-findings`
    fn tell(&self, rows: &[FindingRow]) -> Result<()> {
        let Some(target) = &self.json_findings else { return Ok(()) };
        let mut text = String::new();
        for row in rows {
            text.push_str(&finding_json(row));
            text.push('\n');
        }
        if target == "-" {
            std::io::stdout().write_all(text.as_bytes()).context("writing findings to standard output")
        } else {
            std::fs::write(target, text).with_context(|| format!("writing findings to {target}"))
        }
    }
}

/// Which units are known or taken by another thread of this call. Asked once a unit, never per record.
struct Claims {
    taken: DashMap<UnitId, u64>,
}

enum Claim {
    Mine,
    Known,
    OtherLength(u64),
}

impl Claims {
    fn new(lane: &Lane) -> Self {
        Self { taken: lane.known.ledger.values().filter(|u| u.ended != Ended::Quarantined).map(|u| (u.id, u.bytes)).collect() }
    }

    fn claim(&self, id: UnitId, bytes: u64) -> Claim {
        match self.taken.entry(id) {
            Entry::Vacant(free) => {
                free.insert(bytes);
                Claim::Mine
            }
            Entry::Occupied(known) if *known.get() == bytes => Claim::Known,
            Entry::Occupied(known) => Claim::OtherLength(*known.get()),
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn read_units(
    thread: usize,
    settings: ReadSettings,
    objects: &[Announced],
    inputs: &Inputs,
    claimed: &Claims,
    next: &AtomicUsize,
    stop: &AtomicBool,
    sender: &Sender<Flush>,
    progress: &Progress,
    flows: Option<&crate::flows::FlowsTable>,
) {
    let mut reader = Reader::new(settings, crate::setup::random_seed() ^ thread as u64);
    let mut flush = Flush::default();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
        let by_key = UnitId::of_key(&object.meta.key);
        let claim = by_key.map(|id| claimed.claim(id, object.size));
        let report = match claim {
            Some(Claim::Known) => None,
            Some(Claim::OtherLength(known)) => Some(other_length(by_key.unwrap_or_default(), object, known)),
            Some(Claim::Mine) | None => match inputs.fetch(object) {
                Err(error) => Some(UnitReport::unreadable(by_key.unwrap_or_default(), &object.meta, error.to_string())),
                Ok(bytes) => {
                    let id = by_key.unwrap_or_else(|| UnitId::of_bytes(&bytes));
                    if by_key.is_none() && !matches!(claimed.claim(id, bytes.len() as u64), Claim::Mine) {
                        None
                    } else {
                        let mut on_rows = flows.map(|f| f.writer(id));
                        Some(reader.read(id, &object.meta, &bytes, on_rows.as_mut().map(|w| w as &mut crate::reader::OnRows<'_>)))
                    }
                }
            },
        };
        progress.unit(object.size, report.as_ref().map_or(0, |r| r.record.records));
        match report {
            None => flush.duplicates += 1,
            Some(report) => flush.reports.push(report),
        }
        if reader.is_full() || last.elapsed() >= COMMIT_EVERY {
            flush.blocks = reader.flush();
            last = Instant::now();
            if sender.send(std::mem::take(&mut flush)).is_err() {
                return;
            }
        }
    }
    flush.blocks = reader.flush();
    // The receiver is gone only when the call has failed and says why itself.
    let _ = sender.send(flush);
}

fn other_length(id: UnitId, object: &Announced, known: u64) -> UnitReport {
    let reason = format!("the same object came before with {known} bytes, now it has {}: not counted again", object.size);
    UnitReport::unreadable(id, &object.meta, reason)
}

/// Adds one unit to the summary.
pub fn add_to_summary(summary: &mut Summary, report: &UnitReport) {
    let record = &report.record;
    let source = || if record.source == "folder" { record.key.clone() } else { format!("{}:{}", record.source, record.key) };
    match record.ended {
        Ended::Applied => summary.units.applied += 1,
        Ended::Late => summary.units.late += 1,
        Ended::Ignored => {
            summary.units.ignored += 1;
            if report.unrecognised {
                summary.unrecognised.push(source());
            }
        }
        Ended::Quarantined | Ended::Salvaged => {
            summary.units.quarantined += 1;
            summary.quarantined.push(Quarantined { source: source(), reason: record.reason.clone() });
        }
    }
    summary.records.flow += report.flow.records;
    summary.records.nodata += report.flow.nodata;
    summary.records.skipdata += report.flow.skipdata;
    summary.records.unplaced += report.flow.unplaced;
    summary.records.api_ignored += report.api_ignored;
    summary.records.facts += report.facts_counted;
    summary.flow_packets = summary.flow_packets.saturating_add(report.flow.packets);
    summary.flow_bytes = summary.flow_bytes.saturating_add(report.flow.bytes);
    summary.rejects += record.rejects;
    summary.out_of_range += report.flow.out_of_range + report.api_out_of_range;
    for (kind, count) in &report.api_kinds {
        *summary.api_kinds.entry(kind.clone()).or_default() += count;
    }
}
