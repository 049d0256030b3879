//! The lane: what is known so far, and how it is kept. One process is one lane with one commit stream.
//!
//! State is a chain of commits. Each names *run* files (blocks of contributions, back to back, read by range) and
//! *journal* segments (units, facts, findings, what else changed). Loading plays the journals in order.
//!
//! What `run` will not ask for again (contributions of closed days, units older than `ledger_days`, their findings) is put
//! by in *archive* segments ([`Lane::put_by`]): a later `replay` over the same state reads them, `run` does not, so that what
//! it holds and goes through does not grow with history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use flowtrail_detect::{AccountProfiles, Block, Finding, Fleet, Learning};
use flowtrail_enrich::{Fact, Words};
use flowtrail_ingest::{Day, EventTime, Hour, UnitId};
use flowtrail_sink::{CommitLog, Draft, Outcome, OutputFile, SegmentReader, SegmentRef, SegmentWriter, Store, TableFile};
use serde::{Deserialize, Serialize};

use crate::coverage::Coverage;

/// How a unit ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ended {
    /// Read and counted.
    Applied,
    /// By rule, or not recognised.
    Ignored,
    /// After the seal: written to `late`.
    Late,
    /// Broken in the middle: what came before is counted, the rest is in `quarantine`.
    Salvaged,
    /// Could not be read: nothing of it is counted.
    Quarantined,
}

/// One unit in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// Identity.
    pub id: UnitId,
    /// `folder`, `s3`, `kafka`.
    pub source: String,
    /// Path, key or `topic/partition`.
    pub key: String,
    /// Length of the object.
    pub bytes: u64,
    /// How it ended.
    pub ended: Ended,
    /// Why, when it was not simply applied.
    pub reason: String,
    /// Flow-log id, or what the unit is.
    pub stream: String,
    /// Account of the key.
    pub account: String,
    /// Region of the key.
    pub region: String,
    /// Hour of the newest record, else of the key.
    pub hour: Option<Hour>,
    /// When AWS wrote it.
    pub delivered_at: Option<EventTime>,
    /// Records that parsed.
    pub records: u64,
    /// Lines and records that did not.
    pub rejects: u64,
    /// NODATA.
    pub nodata: u64,
    /// SKIPDATA.
    pub skipdata: u64,
}

/// A finding as it was last published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The row.
    pub finding: Arc<Finding>,
    /// Revisions so far.
    pub revision: i32,
    /// It was withdrawn.
    pub withdrawn: bool,
    /// The hours it speaks of are sealed.
    pub sealed: bool,
}

/// Where one block lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Account.
    pub account: String,
    /// Hour.
    pub hour: Hour,
    /// First byte in the run file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A run file and what lies in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Key in the state store.
    pub key: String,
    /// Its blocks, in the order of the file: by (day, account, hour).
    pub blocks: Vec<BlockRef>,
    /// Its calls have no rows in `api_calls` yet; said until the judging that follows is committed.
    pub unwritten: bool,
    /// Came with this call: not stored.
    #[serde(skip)]
    pub new: bool,
    /// The file's bytes, while they are held in memory.
    #[serde(skip)]
    pub held: Option<Arc<Vec<u8>>>,
}

impl Run {
    /// The error for a file that ends before its blocks do.
    pub fn too_short(&self, state: &dyn Store) -> anyhow::Error {
        let state = state.describe();
        anyhow!("{} in {state} is shorter than its index says: the state is damaged; delete it and replay the logs", self.key)
    }

    fn bytes(&self) -> u64 {
        self.blocks.iter().map(|b| b.len).sum()
    }
}

/// What `run` goes on from: profiles through the last sealed hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Every hour before this one is sealed and learned.
    pub sealed_before: Option<Hour>,
    /// Profiles by account.
    pub profiles: BTreeMap<String, AccountProfiles>,
    /// The fleet's tables.
    pub fleet: Fleet,
    /// Deltas of the day that is not closed yet, by account.
    pub deltas: BTreeMap<String, flowtrail_detect::FleetDelta>,
    /// The day that is not closed yet.
    pub open_day: Option<Day>,
    /// Findings of the hours of days that may still get some, as joined parts.
    pub incidents: BTreeMap<String, flowtrail_detect::Incidents>,
}

/// What the last judging was made of: the same again changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Hash of all configuration that changes findings, lists included.
    pub config_hash: u128,
    /// Hours at its end that were not sealed yet.
    pub unsealed: bool,
    /// Something came that it has not seen.
    pub stale: bool,
    /// Warm-up as it stood.
    pub learning: Vec<Learning>,
    /// `run` has sealed every hour before this one, though profiles may have been written earlier.
    pub sealed_before: Option<Hour>,
}

impl UnitRecord {
    /// Adds what was read of the same unit before, for units that go on (Kafka partitions).
    pub fn absorb(&mut self, before: &Self) {
        self.bytes += before.bytes;
        self.records += before.records;
        self.rejects += before.rejects;
        self.nodata += before.nodata;
        self.skipdata += before.skipdata;
    }
}

const JOURNAL: &str = "journal";
const RUN: &str = "run";
const ARCHIVE: &str = "archive";

/// Run files of closed days that are smaller are put together.
const SMALL_RUN: u64 = 8 << 20;
/// A run file holds about this many bytes at most.
const RUN_BYTES_MAX: usize = 64 << 20;

const UNITS: u8 = 1;
const FACTS: u8 = 2;
const RUNS: u8 = 3;
const FINDINGS: u8 = 4;
const SNAPSHOTS: u8 = 5;
const LEARNED: u8 = 6;
const JUDGED: u8 = 7;
const FACTS_SINCE: u8 = 8;
const COVERAGE: u8 = 9;
const COVERED: u8 = 10;
const TALLY: u8 = 11;

/// All that is known.
#[derive(Default)]
pub struct Known {
    /// Units by identity.
    pub ledger: HashMap<UnitId, UnitRecord>,
    /// Facts.
    pub facts: BTreeSet<Fact>,
    /// Contributions.
    pub runs: Vec<Run>,
    /// Findings by id.
    pub findings: BTreeMap<String, Kept>,
    /// Output files in force of tables that are replaced whole: table to keys.
    pub snapshots: BTreeMap<String, Vec<String>>,
    /// Profiles.
    pub learned: Option<Learned>,
    /// What the last judging saw.
    pub judged: Judged,
    /// Facts that came after `learned` was written, with the hour before which all was sealed then: those hours were judged
    /// without them. Only what loading found.
    pub facts_since: Vec<(Option<Hour>, Vec<Fact>)>,
    /// What was read and has no rows in `coverage` yet (`run`).
    pub coverage: Coverage,
    /// Findings that stand and were put by, by severity.
    pub tally: [u64; 5],
}

/// What changed since the last commit.
#[derive(Default)]
pub struct Changes {
    /// Units that ended.
    pub units: Vec<UnitRecord>,
    /// Facts learned.
    pub facts: Vec<Fact>,
    /// Every hour before this was sealed when `facts` came (`run`).
    pub facts_since: Option<Hour>,
    /// Blocks, not yet in a run file.
    pub blocks: Vec<Block>,
    /// Ids of findings that changed.
    pub findings: Vec<String>,
    /// `snapshots` changed.
    pub snapshots: bool,
    /// `learned` changed.
    pub learned: bool,
    /// `judged` changed.
    pub judged: bool,
    /// What was read and sealed, for `coverage`.
    pub coverage: Coverage,
    /// The files of this commit hold all of `coverage` before this hour.
    pub covered: Option<Hour>,
    /// Output files staged for this commit.
    pub files: Vec<OutputFile>,
    /// Output files that they replace.
    pub retired: Vec<String>,
    /// Where each source goes on.
    pub positions: BTreeMap<String, String>,
    /// Source clocks.
    pub clocks: BTreeMap<String, EventTime>,
}

impl Changes {
    /// True when a commit would say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
            && self.facts.is_empty()
            && self.blocks.is_empty()
            && self.findings.is_empty()
            && !self.snapshots
            && !self.learned
            && !self.judged
            && self.coverage.is_empty()
            && self.covered.is_none()
            && self.files.is_empty()
    }
}

/// The lane of this process.
pub struct Lane {
    /// Where state lies.
    pub state: Arc<dyn Store>,
    /// Where tables lie.
    pub output: Arc<dyn Store>,
    log: CommitLog,
    /// All that is known.
    pub known: Known,
    /// Where each source goes on, as committed.
    pub positions: BTreeMap<String, String>,
    /// Source clocks, as committed.
    pub clocks: BTreeMap<String, EventTime>,
    /// Run files.
    alive: Vec<SegmentRef>,
    /// What was put by and is not in `known`.
    archives: Vec<SegmentRef>,
    /// Bytes of run files that may be held in memory.
    pub held_max: u64,
    /// The newest commit that said anything before this process, and no claim since, said all again.
    pub rolled_up: bool,
    /// Table files of that commit.
    pub last_files: Vec<String>,
}

/// How much of the state is loaded.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What `run` needs.
    Open,
    /// What was put by, too.
    All,
}

impl Lane {
    /// Opens the lane, publishes what a killed owner left committed and unpublished, and loads what is known.
    ///
    /// # Errors
    /// When a store fails or the state is damaged.
    pub fn open(state: Arc<dyn Store>, output: Arc<dyn Store>, seen_at: EventTime, depth: Depth) -> Result<Self> {
        let mut log = CommitLog::open(Arc::clone(&state), Arc::clone(&output), 0);
        let loaded = log.load().context("opening the state")?;
        let mut known = Known::default();
        let mut archives: Vec<SegmentRef> = loaded.segments.iter().filter(|s| s.purpose == ARCHIVE).cloned().collect();
        if depth == Depth::All {
            // Older than anything in the journals. The next roll-up writes it with the rest.
            for segment in std::mem::take(&mut archives) {
                known.play(&log.read(&segment)?, &segment.key)?;
            }
        }
        for segment in loaded.segments.iter().filter(|s| s.purpose == JOURNAL) {
            known.play(&log.read(segment)?, &segment.key)?;
        }
        if depth == Depth::All {
            known.tally = [0; 5];
        }
        let alive = loaded.segments.iter().filter(|s| s.purpose == RUN).cloned().collect();
        let (positions, clocks) = loaded.latest().map(|c| (c.draft.positions.clone(), c.draft.clocks.clone())).unwrap_or_default();
        // Claims say nothing.
        let last = loaded.commits.iter().rev().map(|c| &c.draft).find(|draft| !draft.segments.is_empty() || !draft.files.is_empty());
        let rolled_up = last.is_some_and(|draft| draft.roll_up);
        let last_files = last.map(|draft| draft.files.iter().map(|f| f.key.clone()).collect()).unwrap_or_default();
        if loaded.latest().is_some() && log.claim(known.judged.config_hash, seen_at)? == Outcome::Superseded {
            bail!("{} is being written by another process; start again when it has ended", state.describe());
        }
        log.publish()?;
        log.sweep()?;
        Ok(Self { state, output, log, known, positions, clocks, alive, archives, held_max: 0, rolled_up, last_files })
    }

    /// Writes output files under temporary names, for the next commit.
    ///
    /// # Errors
    /// When the store fails.
    pub fn stage(&mut self, files: &[TableFile]) -> Result<Vec<OutputFile>> {
        Ok(self.log.stage(files)?)
    }

    /// Commits what changed: run file, journal, record, then the final names. Nothing to say, no commit.
    ///
    /// # Errors
    /// When a store fails, or another process owns this state now.
    pub fn commit(&mut self, changes: Changes, config_hash: u128, seen_at: EventTime, roll_up: bool) -> Result<()> {
        if changes.is_empty() && !roll_up {
            return Ok(());
        }
        let mut segments = Vec::new();
        let mut new_runs: Vec<Run> = Vec::new();
        let mut held: u64 = self.known.runs.iter().filter_map(|r| r.held.as_ref()).map(|bytes| bytes.len() as u64).sum();
        for blocks in run_files(changes.blocks) {
            let parts: Vec<&[u8]> = blocks.iter().map(|b| b.bytes.as_slice()).collect();
            let segment = self.log.segment(RUN, &parts)?;
            held += segment.bytes;
            let held = (held <= self.held_max).then(|| Arc::new(parts.concat()));
            new_runs.push(Run { key: segment.key.clone(), blocks: places(&blocks), unwritten: true, new: true, held });
            segments.push(segment);
        }
        let mut journal = SegmentWriter::new();
        if roll_up {
            let mut units: Vec<&UnitRecord> = self.known.ledger.values().chain(&changes.units).collect();
            units.sort_by_key(|u| u.id);
            units.dedup_by_key(|u| u.id);
            journal.value(UNITS, &units)?;
            journal.value(FACTS, &self.known.facts.iter().chain(&changes.facts).collect::<BTreeSet<_>>())?;
            let runs: Vec<&Run> = self.known.runs.iter().chain(&new_runs).collect();
            journal.value(RUNS, &runs)?;
            journal.value(FINDINGS, &self.known.findings.iter().collect::<Vec<_>>())?;
            journal.value(COVERAGE, &self.known.coverage)?;
            journal.value(TALLY, &self.known.tally)?;
        } else {
            if !changes.units.is_empty() {
                journal.value(UNITS, &changes.units)?;
            }
            if !changes.facts.is_empty() {
                journal.value(FACTS, &changes.facts)?;
                if changes.facts_since.is_some() && !changes.learned {
                    journal.value(FACTS_SINCE, &(changes.facts_since, &changes.facts))?;
                }
            }
            if !new_runs.is_empty() {
                journal.value(RUNS, &new_runs)?;
            }
            if !changes.findings.is_empty() {
                let changed: Vec<_> = changes.findings.iter().filter_map(|id| self.known.findings.get_key_value(id)).collect();
                journal.value(FINDINGS, &changed)?;
            }
        }
        if !changes.coverage.is_empty() {
            journal.value(COVERAGE, &changes.coverage)?;
        }
        if let Some(hour) = changes.covered {
            journal.value(COVERED, &hour)?;
        }
        if changes.snapshots || roll_up {
            journal.value(SNAPSHOTS, &self.known.snapshots)?;
        }
        if changes.learned || roll_up {
            journal.value(LEARNED, &self.known.learned)?;
        }
        if changes.judged || roll_up {
            journal.value(JUDGED, &self.known.judged)?;
        }
        if roll_up && !changes.learned {
            for since in &self.known.facts_since {
                journal.value(FACTS_SINCE, since)?;
            }
        }
        let bytes = journal.finish();
        let runs_written = segments.clone();
        segments.push(self.log.segment(JOURNAL, &[&bytes])?);
        if roll_up {
            // Runs live on: all of them are named again.
            segments.extend(self.alive.iter().cloned());
            segments.extend(self.archives.iter().cloned());
        }
        self.positions.extend(changes.positions);
        self.clocks.extend(changes.clocks);
        let draft = Draft {
            config_hash,
            positions: self.positions.clone(),
            clocks: self.clocks.clone(),
            segments,
            dropped: Vec::new(),
            roll_up,
            files: changes.files,
            retired: changes.retired,
            seen_at,
            driver: Vec::new(),
        };
        match self.log.commit(draft)? {
            Outcome::Committed(_) => self.log.publish()?,
            Outcome::Superseded => bail!(
                "another process has committed to this state meanwhile ({}): only one may write it; start again when the other has ended",
                self.state.describe()
            ),
        }
        self.alive.extend(runs_written);
        if roll_up {
            self.log.sweep()?;
        }
        self.known.ledger.extend(changes.units.into_iter().map(|u| (u.id, u)));
        self.known.facts.extend(changes.facts);
        self.known.runs.extend(new_runs);
        self.known.coverage.absorb(changes.coverage);
        if let Some(hour) = changes.covered {
            self.known.coverage.forget_before(hour);
        }
        Ok(())
    }

    /// Puts by what `run` will not ask for again: contributions of the days before `closed` and their findings, and units
    /// delivered before `horizon` but those that `keep` wants. The next commit must be a roll-up.
    ///
    /// # Errors
    /// When the state store fails.
    pub fn put_by(&mut self, closed: Day, horizon: Day, keep: &dyn Fn(&UnitRecord) -> bool) -> Result<()> {
        let mut archive = SegmentWriter::new();
        let old = |u: &UnitRecord| u.delivered_at.or(u.hour.map(Hour::start)).is_some_and(|at| at < horizon.start()) && !keep(u);
        let mut units: Vec<UnitRecord> = self.known.ledger.extract_if(|_, u| old(u)).map(|(_, u)| u).collect();
        units.sort_by_key(|u| u.id);
        let findings: Vec<(String, Kept)> =
            self.known.findings.extract_if(.., |_, kept| kept.finding.window_start.day() < closed).collect();
        for kept in findings.iter().map(|(_, kept)| kept).filter(|kept| !kept.withdrawn) {
            self.known.tally[crate::publish::rank(kept.finding.severity)] += 1;
        }
        let runs = self.put_runs_by(closed)?;
        if units.is_empty() && findings.is_empty() && runs.is_empty() {
            return Ok(());
        }
        archive.value(UNITS, &units)?;
        archive.value(FINDINGS, &findings)?;
        archive.value(RUNS, &runs)?;
        self.archives.push(self.log.segment(ARCHIVE, &[&archive.finish()])?);
        Ok(())
    }

    /// Takes the blocks of days before `closed` out of the runs. Large files of nothing else stay as they are, of the others
    /// the blocks are copied into new ones.
    fn put_runs_by(&mut self, closed: Day) -> Result<Vec<Run>> {
        let mut put_by = Vec::new();
        let mut kept = Vec::new();
        // With rows in `api_calls` and without: told apart in the new files, too.
        let mut copied: [Vec<Block>; 2] = [Vec::new(), Vec::new()];
        let mut bytes = [0usize; 2];
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for mut run in std::mem::take(&mut self.known.runs) {
            let split = run.blocks.partition_point(|b| b.hour.day() < closed);
            let rest = run.blocks.split_off(split);
            if !run.blocks.is_empty() {
                if rest.is_empty() && run.bytes() >= SMALL_RUN {
                    put_by.push(Run { held: None, new: false, ..run.clone() });
                } else {
                    let which = usize::from(run.unwritten);
                    bytes[which] += run.bytes() as usize;
                    copied[which].extend(self.blocks_of(&run)?);
                    if rest.is_empty() {
                        gone.insert(run.key.clone());
                    }
                }
            }
            if !rest.is_empty() {
                kept.push(Run { blocks: rest, ..run });
            }
            for which in 0..2 {
                if bytes[which] >= RUN_BYTES_MAX {
                    bytes[which] = 0;
                    self.write_runs_by(std::mem::take(&mut copied[which]), which == 1, &mut put_by)?;
                }
            }
        }
        for (which, blocks) in copied.into_iter().enumerate() {
            self.write_runs_by(blocks, which == 1, &mut put_by)?;
        }
        self.known.runs = kept;
        self.alive.retain(|segment| !gone.contains(&segment.key));
        Ok(put_by)
    }

    /// All blocks that a run names, which lie side by side.
    fn blocks_of(&self, run: &Run) -> Result<Vec<Block>> {
        let (Some(first), Some(last)) = (run.blocks.first(), run.blocks.last()) else { return Ok(Vec::new()) };
        let (offset, len) = (first.offset, last.offset + last.len - first.offset);
        let read;
        let bytes = match &run.held {
            Some(held) => held.get(offset as usize..).unwrap_or_default(),
            None => {
                read = self.state.get_range(&run.key, offset, len)?;
                read.as_slice()
            }
        };
        let block = |r: &BlockRef| {
            let from = (r.offset - offset) as usize;
            let bytes = bytes.get(from..from + r.len as usize)?.to_vec();
            Some(Block { account: r.account.clone(), hour: r.hour, bytes })
        };
        let blocks: Option<Vec<Block>> = run.blocks.iter().map(block).collect();
        blocks.ok_or_else(|| run.too_short(&*self.state))
    }

    fn write_runs_by(&mut self, blocks: Vec<Block>, unwritten: bool, put_by: &mut Vec<Run>) -> Result<()> {
        for blocks in run_files(blocks) {
            let parts: Vec<&[u8]> = blocks.iter().map(|b| b.bytes.as_slice()).collect();
            let segment = self.log.segment(RUN, &parts)?;
            put_by.push(Run { key: segment.key.clone(), blocks: places(&blocks), unwritten, new: false, held: None });
            self.alive.push(segment);
        }
        Ok(())
    }

    /// Keys of a table's files of this lane in the output.
    ///
    /// # Errors
    /// When the store fails.
    pub fn files_of(&self, table: &str) -> Result<Vec<String>> {
        let ours = |key: &String| key.rsplit('/').next().is_some_and(|name| name.starts_with("0-") && name.ends_with(".parquet"));
        Ok(self.output.list(&format!("{table}/"))?.into_iter().map(|(key, _)| key).filter(ours).collect())
    }
}

/// Blocks sorted by (day, account, hour), as many as go into one run file of at most about 64 MiB.
fn run_files(mut blocks: Vec<Block>) -> Vec<Vec<Block>> {
    blocks.sort_by(|a, b| (a.hour.day(), &a.account, a.hour, &a.bytes).cmp(&(b.hour.day(), &b.account, b.hour, &b.bytes)));
    let mut files: Vec<Vec<Block>> = Vec::new();
    let mut bytes = 0;
    for block in blocks {
        bytes += block.bytes.len();
        match files.last_mut().filter(|_| bytes <= RUN_BYTES_MAX) {
            Some(file) => file.push(block),
            None => {
                bytes = block.bytes.len();
                files.push(vec![block]);
            }
        }
    }
    files
}

/// Where blocks lie in a file that has one behind the other.
fn places(blocks: &[Block]) -> Vec<BlockRef> {
    let mut offset = 0;
    let place = |block: &Block| {
        let len = block.bytes.len() as u64;
        offset += len;
        BlockRef { account: block.account.clone(), hour: block.hour, offset: offset - len, len }
    };
    blocks.iter().map(place).collect()
}

impl Known {
    fn play(&mut self, bytes: &[u8], key: &str) -> Result<()> {
        let mut reader = SegmentReader::new(key, bytes)?;
        while let Some(record) = reader.next().transpose()? {
            match record.kind {
                UNITS => self.ledger.extend(reader.value::<Vec<UnitRecord>>(&record)?.into_iter().map(|u| (u.id, u))),
                FACTS => {
                    let mut facts = reader.value::<Vec<Fact>>(&record)?;
                    let mut words = Words::default();
                    facts.iter_mut().for_each(|fact| fact.share_words(&mut words));
                    if self.facts.is_empty() {
                        // Made in one go: half the nodes of one that grows in order.
                        self.facts = facts.into_iter().collect();
                    } else {
                        self.facts.extend(facts);
                    }
                }
                FACTS_SINCE => self.facts_since.push(reader.value(&record)?),
                RUNS => self.runs.extend(reader.value::<Vec<Run>>(&record)?),
                FINDINGS => self.findings.extend(reader.value::<Vec<(String, Kept)>>(&record)?),
                SNAPSHOTS => self.snapshots = reader.value(&record)?,
                LEARNED => {
                    self.learned = reader.value(&record)?;
                    self.facts_since.clear();
                }
                COVERAGE => self.coverage.absorb(reader.value(&record)?),
                COVERED => self.coverage.forget_before(reader.value(&record)?),
                TALLY => self.tally = reader.value(&record)?,
                JUDGED => self.judged = reader.value(&record)?,
                other => {
                    bail!("{key} holds a record of kind {other}, which this version does not know: it was written by a newer flowtrail")
                }
            }
        }
        Ok(())
    }

    /// The first hour that has contributions.
    #[must_use]
    pub fn first_hour(&self) -> Option<Hour> {
        self.runs.iter().flat_map(|r| r.blocks.iter().map(|b| b.hour)).min()
    }

    /// Days that have contributions, in order.
    #[must_use]
    pub fn days(&self) -> Vec<Day> {
        let days: BTreeSet<Day> = self.runs.iter().flat_map(|r| r.blocks.iter().map(|b| b.hour.day())).collect();
        days.into_iter().collect()
    }
}

/// Where each source goes on, as the newest commit says. Reads only.
///
/// # Errors
/// When the state cannot be read.
#[cfg(feature = "kafka")]
pub fn positions(state: &Arc<dyn Store>) -> Result<BTreeMap<String, String>> {
    let loaded = CommitLog::open(Arc::clone(state), Arc::clone(state), 0).load().context("opening the state")?;
    Ok(loaded.latest().map(|c| c.draft.positions.clone()).unwrap_or_default())
}
