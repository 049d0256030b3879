//! The lane: what is known so far, and how it is kept. One process is one lane with one commit stream.
//!
//! State is a chain of commits. Each names *run* files (blocks of contributions, back to back, read by range) and
//! *journal* segments (units, facts, findings, what else changed). Loading plays the journals in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use flowtrail_detect::{AccountProfiles, Block, Finding, Fleet, Learning};
use flowtrail_enrich::Fact;
use flowtrail_ingest::{Day, EventTime, Hour, UnitId};
use flowtrail_sink::{CommitLog, Draft, Outcome, OutputFile, SegmentReader, SegmentRef, SegmentWriter, Store, TableFile};
use serde::{Deserialize, Serialize};

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
    pub finding: Finding,
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
    /// Came with this call: not stored.
    #[serde(skip)]
    pub new: bool,
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

const UNITS: u8 = 1;
const FACTS: u8 = 2;
const RUNS: u8 = 3;
const FINDINGS: u8 = 4;
const SNAPSHOTS: u8 = 5;
const LEARNED: u8 = 6;
const JUDGED: u8 = 7;

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
}

/// What changed since the last commit.
#[derive(Default)]
pub struct Changes {
    /// Units that ended.
    pub units: Vec<UnitRecord>,
    /// Facts learned.
    pub facts: Vec<Fact>,
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
}

impl Lane {
    /// Opens the lane, publishes what a killed owner left committed and unpublished, and loads what is known.
    ///
    /// # Errors
    /// When a store fails or the state is damaged.
    pub fn open(state: Arc<dyn Store>, output: Arc<dyn Store>, seen_at: EventTime) -> Result<Self> {
        let mut log = CommitLog::open(Arc::clone(&state), Arc::clone(&output), 0);
        let loaded = log.load().context("opening the state")?;
        let mut known = Known::default();
        for segment in loaded.segments.iter().filter(|s| s.purpose == JOURNAL) {
            known.play(&log.read(segment)?, &segment.key)?;
        }
        let alive = loaded.segments.iter().filter(|s| s.purpose == RUN).cloned().collect();
        let (positions, clocks) = loaded.latest().map(|c| (c.draft.positions.clone(), c.draft.clocks.clone())).unwrap_or_default();
        if loaded.latest().is_some() && log.claim(known.judged.config_hash, seen_at)? == Outcome::Superseded {
            bail!("{} is being written by another process; start again when it has ended", state.describe());
        }
        log.publish()?;
        log.sweep()?;
        Ok(Self { state, output, log, known, positions, clocks, alive })
    }

    /// Writes output files under temporary names, for the next commit.
    ///
    /// # Errors
    /// When the store fails.
    pub fn stage(&mut self, files: &[TableFile]) -> Result<Vec<OutputFile>> {
        Ok(self.log.stage(files)?)
    }

    /// Epoch of the newest commit.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.log.epoch()
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
        for (bytes, blocks) in run_files(changes.blocks) {
            let written = self.log.segments(&[(RUN, &bytes)])?;
            new_runs.extend(written.iter().map(|s| Run { key: s.key.clone(), blocks: blocks.clone(), new: true }));
            segments.extend(written);
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
        } else {
            if !changes.units.is_empty() {
                journal.value(UNITS, &changes.units)?;
            }
            if !changes.facts.is_empty() {
                journal.value(FACTS, &changes.facts)?;
            }
            if !new_runs.is_empty() {
                journal.value(RUNS, &new_runs)?;
            }
            if !changes.findings.is_empty() {
                let changed: Vec<_> = changes.findings.iter().filter_map(|id| self.known.findings.get_key_value(id)).collect();
                journal.value(FINDINGS, &changed)?;
            }
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
        let bytes = journal.finish();
        let runs_written = segments.clone();
        segments.extend(self.log.segments(&[(JOURNAL, &bytes)])?);
        if roll_up {
            // Runs live on: all of them are named again.
            segments.extend(self.alive.iter().cloned());
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
        Ok(())
    }
}

/// Cuts blocks into run files of at most about 64 MiB, sorted by (day, account, hour).
fn run_files(mut blocks: Vec<Block>) -> Vec<(Vec<u8>, Vec<BlockRef>)> {
    const RUN_BYTES_MAX: usize = 64 << 20;
    blocks.sort_by(|a, b| (a.hour.day(), &a.account, a.hour, &a.bytes).cmp(&(b.hour.day(), &b.account, b.hour, &b.bytes)));
    let mut files: Vec<(Vec<u8>, Vec<BlockRef>)> = Vec::new();
    for block in blocks {
        if !files.last().is_some_and(|(bytes, _)| bytes.len() + block.bytes.len() <= RUN_BYTES_MAX) {
            files.push((Vec::new(), Vec::new()));
        }
        if let Some((bytes, refs)) = files.last_mut() {
            refs.push(BlockRef { account: block.account, hour: block.hour, offset: bytes.len() as u64, len: block.bytes.len() as u64 });
            bytes.extend_from_slice(&block.bytes);
        }
    }
    files
}

impl Known {
    fn play(&mut self, bytes: &[u8], key: &str) -> Result<()> {
        let mut reader = SegmentReader::new(key, bytes)?;
        while let Some(record) = reader.next().transpose()? {
            match record.kind {
                UNITS => self.ledger.extend(reader.value::<Vec<UnitRecord>>(&record)?.into_iter().map(|u| (u.id, u))),
                FACTS => self.facts.extend(reader.value::<Vec<Fact>>(&record)?),
                RUNS => self.runs.extend(reader.value::<Vec<Run>>(&record)?),
                FINDINGS => self.findings.extend(reader.value::<Vec<(String, Kept)>>(&record)?),
                SNAPSHOTS => self.snapshots = reader.value(&record)?,
                LEARNED => self.learned = reader.value(&record)?,
                JUDGED => self.judged = reader.value(&record)?,
                other => {
                    bail!("{key} holds a record of kind {other}, which this version does not know: it was written by a newer flowtrail")
                }
            }
        }
        Ok(())
    }

    /// Days that have contributions, in order.
    #[must_use]
    pub fn days(&self) -> Vec<Day> {
        let days: BTreeSet<Day> = self.runs.iter().flat_map(|r| r.blocks.iter().map(|b| b.hour.day())).collect();
        days.into_iter().collect()
    }
}

/// The contributions of one day, read from the run files.
pub struct DayBlocks {
    parts: Vec<(Vec<u8>, u64, Vec<BlockRef>, bool)>,
}

impl DayBlocks {
    /// Reads one day's blocks: one range of each run file that has some.
    ///
    /// # Errors
    /// When the state store fails or a run file is shorter than its index says.
    pub fn read(lane: &Lane, day: Day) -> Result<Self> {
        let mut parts = Vec::new();
        for run in &lane.known.runs {
            let from = run.blocks.partition_point(|b| b.hour.day() < day);
            let to = run.blocks.partition_point(|b| b.hour.day() <= day);
            let refs = &run.blocks[from..to];
            let (Some(first), Some(last)) = (refs.first(), refs.last()) else { continue };
            let (offset, len) = (first.offset, last.offset + last.len - first.offset);
            let bytes = lane.state.get_range(&run.key, offset, len)?;
            if bytes.len() as u64 != len {
                bail!(
                    "{} in {} is shorter than its index says: the state is damaged; delete it and replay the logs",
                    run.key,
                    lane.state.describe()
                );
            }
            parts.push((bytes, offset, refs.to_vec(), run.new));
        }
        Ok(Self { parts })
    }

    /// The blocks by account and hour.
    #[must_use]
    pub fn by_account(&self) -> BTreeMap<&str, BTreeMap<Hour, Vec<flowtrail_detect::BlockView<'_>>>> {
        let mut accounts: BTreeMap<&str, BTreeMap<Hour, Vec<flowtrail_detect::BlockView<'_>>>> = BTreeMap::new();
        for (bytes, offset, refs, new) in &self.parts {
            for r in refs {
                let from = (r.offset - offset) as usize;
                let view = flowtrail_detect::BlockView {
                    account: &r.account,
                    hour: r.hour,
                    bytes: &bytes[from..from + r.len as usize],
                    new: *new,
                };
                accounts.entry(&r.account).or_default().entry(r.hour).or_default().push(view);
            }
        }
        accounts
    }
}

/// Where each source goes on, as the newest commit says. Reads only.
///
/// # Errors
/// When the state cannot be read.
pub fn positions(state: &Arc<dyn Store>) -> Result<BTreeMap<String, String>> {
    let loaded = CommitLog::open(Arc::clone(state), Arc::clone(state), 0).load().context("opening the state")?;
    Ok(loaded.latest().map(|c| c.draft.positions.clone()).unwrap_or_default())
}
