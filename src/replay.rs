//! `replay`: the input is all there is. Read everything, then judge day by day, then commit once.
//!
//! Readers flush contributions into run files along the way, so that memory is bounded and a killed replay goes on with
//! the units it had committed. Judging starts when reading is done, from the first hour: the outcome is that of one pass
//! over all that was ever read. The same input again finds nothing new and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender};
use dashmap::{DashMap, Entry};
use flowtrail_detect::{Block, Facts, Incidents};
use flowtrail_enrich::Timelines;
use flowtrail_ingest::{Day, EventTime, Hour, UnitId};
use flowtrail_sink::tables::findings::{FindingRow, finding_json};
use flowtrail_sink::{OutputFile, Table, TableFile};

use crate::coverage::Coverage;
use crate::feed::{Feed, Taken};
use crate::flows::FlowsTable;
use crate::input::{Announced, Inputs};
use crate::judging::{Bench, Judge, Said};
use crate::lane::{Changes, Depth, Ended, Judged, Lane, Learned};
use crate::progress::Progress;
use crate::publish::{self, Rows};
use crate::reader::{ReadSettings, Reader, UnitReport};
use crate::setup::Setup;
use crate::stored::StoredDay;
use crate::summary::{Learning, Quarantined, Summary};

/// Commit what is read at least this often, so that a killed replay goes on from there.
const COMMIT_EVERY: Duration = Duration::from_secs(20);
/// … or when this many bytes of contributions wait.
const COMMIT_BYTES: usize = 8 << 20;

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
    /// Files of the `flows` table: rows of these units and of no other.
    files: Vec<TableFile>,
    /// What no input should bring about: ends the call.
    failed: Option<anyhow::Error>,
}

impl Replay {
    /// Does it.
    ///
    /// # Errors
    /// When a store fails, the state is damaged, or another process writes it.
    pub fn run(mut self) -> Result<Summary> {
        let mut lane = Lane::open(self.setup.state.clone(), self.setup.output.clone(), self.seen_at, Depth::All)?;
        let mut summary = Summary::default();
        let mut rows = Rows::default();
        let (changed, objects) = self.read_all(&mut lane, &mut summary)?;
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
        let told: Vec<FindingRow> = if self.json_findings.is_some() { rows.findings.clone() } else { Vec::new() };
        let mut calls = Vec::new();
        if said.is_some() {
            if self.setup.tables.iter().any(|t| t == "api_calls") {
                calls = crate::api_calls::write(&mut lane, &objects, &self.inputs, &self.read, self.threads)?;
            }
            lane.known.runs.iter_mut().for_each(|run| run.unwritten = false);
        }
        self.commit(&mut lane, rows, calls, said.is_some())?;
        summary.findings = publish::count(&lane.known);
        summary.loudest = publish::loudest(&lane.known.findings);
        self.tell(&told)?;
        // The call ends here: millions of small pieces need not be given back one by one.
        std::mem::forget(std::mem::take(&mut lane.known));
        Ok(summary)
    }

    /// Reads every unit that is not known; commits along the way. True when anything came that judging has not seen; and
    /// what was listed.
    fn read_all(&mut self, lane: &mut Lane, summary: &mut Summary) -> Result<(bool, Vec<Announced>)> {
        let listed = self.inputs.list()?;
        for problem in &listed.problems {
            summary.set_aside(Quarantined { source: problem.path.clone(), reason: problem.reason.clone() });
            summary.units.quarantined += 1;
        }
        let claimed = Claims::new(lane);
        let progress = Progress::new(&listed.objects);
        let mut changed = false;
        let all: Vec<usize> = (0..listed.objects.len()).collect();
        let pass = Pass {
            settings: &self.read,
            objects: &listed.objects,
            inputs: &self.inputs,
            claimed: &claimed,
            progress: &progress,
            threads: self.threads,
            flows: None,
        };
        let outcome = if self.read.cells {
            // The flows table bears names: all that tells of them is read before the first flow record.
            let flow_logs = Mutex::new(Vec::new());
            self.read_pass(&pass, &all, Some(&flow_logs), lane, summary, &mut changed).and_then(|()| {
                let mut flow_logs = flow_logs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
                flow_logs.sort_unstable();
                let timelines = Timelines::build(&lane.known.facts);
                let table = FlowsTable { timelines: &timelines, book: &self.setup.book, from: self.read.from, to: self.read.to };
                self.read_pass(&Pass { flows: Some(&table), ..pass }, &flow_logs, None, lane, summary, &mut changed)
            })
        } else {
            self.read_pass(&pass, &all, None, lane, summary, &mut changed)
        };
        progress.finish();
        outcome?;
        Ok((changed, listed.objects))
    }

    /// Reads the objects that `which` names; with `later`, flow logs are put there instead.
    #[allow(clippy::too_many_arguments)]
    fn read_pass(
        &self,
        pass: &Pass<'_>,
        which: &[usize],
        later: Option<&Mutex<Vec<usize>>>,
        lane: &mut Lane,
        summary: &mut Summary,
        changed: &mut bool,
    ) -> Result<()> {
        let (sender, receiver) = crossbeam_channel::bounded::<Flush>(1);
        let stop = AtomicBool::new(false);
        // What is known by its key, or left for the second pass, is not fetched.
        let wanted = |object: &Announced| {
            let flow_log = object.meta.facts.service.as_deref() == Some("vpcflowlogs");
            !(later.is_some() && flow_log || pass.claimed.is_known(object))
        };
        let units = which.iter().filter_map(|at| Some((pass.inputs, pass.objects.get(*at)?)));
        let feed = Feed::new(units, wanted, self.setup.memory / 4);
        std::thread::scope(|scope| -> Result<()> {
            for thread in 0..pass.threads.clamp(1, which.len().max(1)) {
                let (sender, feed, stop) = (sender.clone(), &feed, &stop);
                scope.spawn(move || read_units(thread, pass, which, feed, later, stop, &sender));
            }
            drop(sender);
            let collected = self.collect(lane, &receiver, summary, changed);
            if collected.is_err() {
                stop.store(true, Ordering::Relaxed);
                // Readers may wait for room in the queue: let them end.
                while receiver.recv().is_ok() {}
            }
            collected
        })
    }

    /// Takes flushes, and commits them as whole sets of units.
    fn collect(&self, lane: &mut Lane, receiver: &Receiver<Flush>, summary: &mut Summary, changed: &mut bool) -> Result<()> {
        let mut waiting = Changes::default();
        // What was set aside is said by the commit that knows its unit: a killed replay neither loses a row nor writes it twice.
        let mut aside = Rows::default();
        let mut waiting_bytes = 0;
        let mut last = Instant::now();
        while let Ok(flush) = receiver.recv() {
            if let Some(error) = flush.failed {
                return Err(error);
            }
            waiting.files.extend(lane.stage(&flush.files)?);
            summary.units.duplicate += flush.duplicates;
            waiting_bytes += flush.blocks.iter().map(|b| b.bytes.len()).sum::<usize>();
            *changed |= !flush.blocks.is_empty();
            waiting.blocks.extend(flush.blocks);
            for mut report in flush.reports {
                add_to_summary(summary, &report);
                let is_quarantined = report.record.ended == Ended::Quarantined;
                let is_told = is_quarantined && lane.known.ledger.get(&report.record.id).is_some_and(|u| u.reason == report.record.reason);
                if !is_told {
                    publish::set_aside(&mut aside, &report, self.as_of);
                }
                let facts = std::mem::take(&mut report.facts);
                let new: Vec<_> = facts.into_iter().filter(|f| !lane.known.facts.contains(f)).collect();
                *changed |= !new.is_empty() || report.record.ended == Ended::Applied;
                waiting.facts.extend(new);
                if !is_told {
                    waiting.units.push(report.record);
                }
            }
            if waiting_bytes >= COMMIT_BYTES || last.elapsed() >= COMMIT_EVERY {
                self.commit_read(lane, std::mem::take(&mut waiting), std::mem::take(&mut aside))?;
                (waiting_bytes, last) = (0, Instant::now());
            }
        }
        self.commit_read(lane, waiting, aside)
    }

    fn commit_read(&self, lane: &mut Lane, mut changes: Changes, aside: Rows) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        changes.files.extend(lane.stage(&publish::encode(aside, &self.setup.tables)?.0)?);
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
        let mut open_incidents: BTreeMap<String, Incidents> = BTreeMap::new();
        for day in days.iter().copied() {
            // Days without a record age the fleet's tables too. Shortly after midnight the day before is open still.
            while let Some(before) = open.filter(|b| *b < day && b.next().start() <= sealed_until) {
                judge.close_day(before);
                open = Some(before.next());
            }
            open.get_or_insert(day);
            said.absorb(judge.day(&bench, &StoredDay::of(lane, day, &|_, _| true))?);
            let findings = if day.next().start() > sealed_until || Some(&day) == days.last() {
                // `run` may go on here: these incidents can still grow.
                let (findings, incidents) = judge.take_open_findings();
                for (account, of_day) in incidents {
                    open_incidents.entry(account).or_default().absorb(of_day);
                }
                findings
            } else {
                judge.take_findings()
            };
            standing.extend(findings.into_iter().map(|f| {
                let sealed = f.window_end <= sealed_until;
                (f, sealed)
            }));
        }
        let last_day = days.last().copied();
        let learning = judge.learning(last_day.unwrap_or_default());
        let unsealed = last_day.is_some_and(|d| d.next().start() > sealed_until);
        rows.findings = publish::revise(&mut lane.known.findings, standing, None, self.seen_at);
        said.observations.sort_by(|a, b| {
            (a.time, &a.account_id, &a.entity_id, &a.kind, &a.subject).cmp(&(b.time, &b.account_id, &b.entity_id, &b.kind, &b.subject))
        });
        rows.observations = Some(std::mem::take(&mut said.observations));
        let known_until = lane.known.facts.iter().filter_map(|f| f.at).max().map_or(self.as_of, |t| t.min(self.as_of));
        let snapshot_day = last_day.unwrap_or_else(|| known_until.day());
        rows.eni_owners = Some((snapshot_day, timelines.owner_rows(known_until)));
        let profiles = judge.profiles.iter().flat_map(|(account, p)| p.rows(account, snapshot_day)).collect();
        rows.profiles = Some((snapshot_day, profiles));
        let sealed_before = Hour(i32::try_from(sealed_until.0.div_euclid(3600)).unwrap_or(i32::MAX));
        let sealed_before = last_day.map(|d| d.next().first_hour().min(sealed_before));
        let coverage = publish::coverage(&lane.known, &said.attribution);
        let (sealed, open_hours) = coverage.into_iter().partition(|row| sealed_before.is_some_and(|sealed| row.hour < sealed));
        (rows.coverage, rows.open_coverage) = (Some(sealed), open_hours);
        lane.known.coverage = Coverage::default();
        lane.known.learned = Some(Learned {
            sealed_before,
            profiles: judge.profiles,
            fleet: judge.fleet,
            deltas: judge.deltas,
            open_day: open,
            incidents: open_incidents,
        });
        lane.known.judged = Judged { config_hash: self.setup.config_hash, unsealed, stale: false, learning, sealed_before: None };
        Ok(Some(said))
    }

    fn commit(&self, lane: &mut Lane, mut rows: Rows, calls: Vec<OutputFile>, judged: bool) -> Result<()> {
        let open = if self.setup.tables.iter().any(|t| t == Table::Coverage.name()) {
            std::mem::take(&mut rows.open_coverage)
        } else {
            Vec::new()
        };
        let (files, replaced) = publish::encode(rows, &self.setup.tables)?;
        if files.is_empty() && !judged {
            return Ok(());
        }
        let mut staged = lane.stage(&files)?;
        staged.extend(calls);
        if judged {
            let open = lane.stage(&flowtrail_sink::tables::files(open)?)?;
            lane.known.snapshots.insert(publish::OPEN_COVERAGE.to_owned(), open.iter().map(|f| f.key.clone()).collect());
            staged.extend(open);
        }
        let mut changes = Changes { files: staged, judged: true, learned: true, snapshots: true, ..Changes::default() };
        for table in replaced {
            let prefix = format!("{}/", table.name());
            let now: Vec<String> = changes.files.iter().filter(|f| f.key.starts_with(&prefix)).map(|f| f.key.clone()).collect();
            // All files of it, `run` may have written some.
            changes.retired.extend(lane.files_of(table.name())?.into_iter().filter(|key| !now.contains(key)));
            lane.known.snapshots.insert(table.name().to_owned(), now);
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

    /// True when the unit need not be fetched: its key says that it was read.
    fn is_known(&self, object: &Announced) -> bool {
        UnitId::of_key(&object.meta.key).is_some_and(|id| self.taken.contains_key(&id))
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

/// What the reader threads of one pass share.
#[derive(Copy, Clone)]
struct Pass<'a> {
    settings: &'a ReadSettings,
    objects: &'a [Announced],
    inputs: &'a Inputs,
    claimed: &'a Claims,
    progress: &'a Progress,
    threads: usize,
    /// The flows table, if it is wanted and this pass is the one of flow logs.
    flows: Option<&'a FlowsTable<'a>>,
}

fn read_units(
    thread: usize,
    pass: &Pass<'_>,
    which: &[usize],
    feed: &Feed<'_>,
    later: Option<&Mutex<Vec<usize>>>,
    stop: &AtomicBool,
    sender: &Sender<Flush>,
) {
    let mut reader = Reader::new(pass.settings.clone(), crate::setup::random_seed() ^ thread as u64);
    let mut flows = pass.flows.map(FlowsTable::writer);
    let mut flush = Flush::default();
    let mut bytes = Vec::new();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let Some(mut unit) = feed.take() else { break };
        let Some(&at) = which.get(unit.index) else { continue };
        let Some(object) = pass.objects.get(at) else { continue };
        if let Some(later) = later {
            let is_flow_log = match object.meta.facts.service.as_deref() {
                Some(service) => service == "vpcflowlogs",
                None => unit.bytes().as_ref().is_ok_and(|bytes| reader.is_flow_log(bytes)),
            };
            if is_flow_log {
                later.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(at);
                continue;
            }
        }
        let report = read_unit(pass, &mut reader, flows.as_mut(), object, &mut unit, &mut bytes);
        pass.progress.unit(object.size, report.as_ref().map_or(0, |r| r.record.records));
        match report {
            None => flush.duplicates += 1,
            Some(report) => flush.reports.push(report),
        }
        if reader.is_full() || last.elapsed() >= COMMIT_EVERY || flows.as_ref().is_some_and(crate::flows::ThreadFlows::is_full) {
            end_flush(&mut flush, &mut reader, flows.as_mut());
            last = Instant::now();
            if sender.send(std::mem::take(&mut flush)).is_err() {
                return;
            }
        }
    }
    end_flush(&mut flush, &mut reader, flows.as_mut());
    // The receiver is gone only when the call has failed and says why itself.
    let _ = sender.send(flush);
}

fn end_flush(flush: &mut Flush, reader: &mut Reader, flows: Option<&mut crate::flows::ThreadFlows<'_>>) {
    flush.blocks = reader.flush();
    match flows.map(crate::flows::ThreadFlows::take) {
        None => {}
        Some(Ok(files)) => flush.files = files,
        Some(Err(error)) => flush.failed = Some(error),
    }
}

/// Reads one unit; `None` when it is known already.
fn read_unit(
    pass: &Pass<'_>,
    reader: &mut Reader,
    flows: Option<&mut crate::flows::ThreadFlows<'_>>,
    object: &Announced,
    unit: &mut Taken<'_>,
    bytes: &mut Vec<u8>,
) -> Option<UnitReport> {
    let by_key = UnitId::of_key(&object.meta.key);
    if let Some(id) = by_key {
        match pass.claimed.claim(id, object.size) {
            Claim::Known => return None,
            Claim::OtherLength(known) => return Some(other_length(object, known)),
            Claim::Mine => {}
        }
    }
    if let Err(error) = unit.read(bytes) {
        return Some(UnitReport::unreadable(by_key.unwrap_or_else(|| place(object)), &object.meta, error.to_string()));
    }
    let bytes = &*bytes;
    let id = by_key.unwrap_or_else(|| UnitId::of_bytes(bytes));
    if by_key.is_none() && !matches!(pass.claimed.claim(id, bytes.len() as u64), Claim::Mine) {
        return None;
    }
    Some(match flows {
        None => reader.read(id, &object.meta, bytes, None),
        Some(flows) => {
            flows.begin(&object.meta, pass.settings.now);
            reader.read(id, &object.meta, bytes, Some(&mut |meta: &_, rows: flowtrail_ingest::flow::FlowRows<'_>| flows.push(meta, rows)))
        }
    })
}

fn other_length(object: &Announced, known: u64) -> UnitReport {
    let reason = format!("the same object came before with {known} bytes, now it has {}: not counted again", object.size);
    UnitReport::unreadable(place(object), &object.meta, reason)
}

/// Stands for a unit that has no identity of its own: unread, or beside the one that was read first.
fn place(object: &Announced) -> UnitId {
    UnitId::of_bytes(format!("at {} {}", object.meta.source, object.meta.key).as_bytes())
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
                summary.not_recognised(source());
            }
        }
        Ended::Quarantined | Ended::Salvaged => {
            summary.units.quarantined += 1;
            summary.set_aside(Quarantined { source: source(), reason: record.reason.clone() });
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
