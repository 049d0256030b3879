//! The commit: the one atomic step by which a lane's work becomes visible (design/guarantees.md section 6).
//!
//! ```text
//! state:  {lane}/{epoch:020}.commit        created only if absent
//!         {lane}/{epoch:020}-{hash}.seg    what the commit names
//! output: TABLE/dt=…/{lane}-{epoch}-{hash}.parquet, before that in .staging/
//! ```
//! Order: segments and staged files first, then the record, then the final names. Whoever is killed in between leaves
//! either files that no record names (swept), or a record whose files are published by whoever opens the lane next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use flowtrail_ingest::EventTime;
use serde::{Deserialize, Serialize};
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::segment::{SegmentError, SegmentReader, SegmentWriter};
use crate::store::{Store, StoreError};
use crate::tables::TableFile;

/// Where files wait for their commit. Athena and other readers skip names that begin with a dot.
pub const STAGING: &str = ".staging/";

const KIND_COMMIT: u8 = 1;

/// A file of state that a commit names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentRef {
    /// Key in the state store.
    pub key: String,
    /// Length in bytes.
    pub bytes: u64,
    /// XXH3-128 of the file.
    pub hash: u128,
    /// The driver's word for what is in it: `journal`, `profiles`, `runs`, …
    pub purpose: String,
}

/// A file of the output that a commit names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutputFile {
    /// Final key in the output store: `findings/dt=2026-01-05/0-17-….parquet`.
    pub key: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
}

impl OutputFile {
    /// Where it waits until its commit is there.
    #[must_use]
    pub fn staged(&self) -> String {
        // One flat folder: nothing to tidy up, and one flush for all files of an epoch.
        format!("{STAGING}{}", self.key.replace('/', "~"))
    }
}

/// What a lane wants to commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// Hash of the configuration that changes findings.
    pub config_hash: u128,
    /// Per source: where to go on reading, in the source's own words.
    pub positions: BTreeMap<String, String>,
    /// Per source: the time up to which it says "all that AWS had delivered by then, you have".
    pub clocks: BTreeMap<String, EventTime>,
    /// Segments that are new with this commit; with `roll_up` all that are alive.
    pub segments: Vec<SegmentRef>,
    /// Keys of segments that later loads need not read; ignored with `roll_up`.
    pub dropped: Vec<String>,
    /// True: whoever loads needs no commit before this one.
    pub roll_up: bool,
    /// Staged output files.
    pub files: Vec<OutputFile>,
    /// Published files that `files` replace (compaction, a snapshot taken again); removed once `files` are visible.
    pub retired: Vec<String>,
    /// The one reading of the clock of this commit.
    pub seen_at: EventTime,
    /// Small things that the driver wants back, in its own encoding.
    pub driver: Vec<u8>,
}

/// One commit record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Counts from 1, without gaps.
    pub epoch: u64,
    /// XXH3-128 of the bytes of the record before; 0 for the first.
    pub previous: u128,
    /// Token of the owner that made it.
    pub owner: u128,
    /// Every file of this epoch and those before is under its final name.
    pub published_through: u64,
    /// What was committed.
    pub draft: Draft,
}

/// What a lane has, as its commits say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// From the newest roll-up (or the first commit) to the newest commit, in order; empty for a new lane.
    pub commits: Vec<Commit>,
    /// Segments that are alive, in the order they were committed.
    pub segments: Vec<SegmentRef>,
}

impl Loaded {
    /// The newest commit.
    #[must_use]
    pub fn latest(&self) -> Option<&Commit> {
        self.commits.last()
    }
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[allow(clippy::large_enum_variant)] // One a commit.
pub enum Outcome {
    /// The record is there and it is ours.
    Committed(Commit),
    /// Another owner took this epoch: drop the lane and reload.
    Superseded,
}

/// Why a commit, or reading one, failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The store failed. After this from `commit` the outcome is "not committed" unless a reload says otherwise.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record or segment is damaged.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The chain of records is broken.
    #[error("{key} in {store}: {why}")]
    Broken {
        /// Key of the record or segment.
        key: String,
        /// The store.
        store: String,
        /// What is wrong.
        why: String,
    },
}

/// The commits of one lane.
pub struct CommitLog {
    state: Arc<dyn Store>,
    output: Arc<dyn Store>,
    lane: u32,
    owner: u128,
    /// Epoch and hash of the newest record that we know.
    head: (u64, u128),
    /// Epoch of the newest roll-up that we know.
    roll_up: u64,
    /// Commits of ours or of former owners whose files may not have their final names yet.
    unpublished: Vec<Commit>,
    /// Alive segments: key → (order, reference).
    live: Vec<SegmentRef>,
    /// Final keys staged for the epoch under way, so that equal files get different names.
    staged: BTreeSet<String>,
}

impl CommitLog {
    /// Over the stores of state and output, which may be one. Reads and writes nothing yet.
    #[must_use]
    pub fn open(state: Arc<dyn Store>, output: Arc<dyn Store>, lane: u32) -> Self {
        Self {
            state,
            output,
            lane,
            owner: owner_token(),
            head: (0, 0),
            roll_up: 0,
            unpublished: Vec::new(),
            live: Vec::new(),
            staged: BTreeSet::new(),
        }
    }

    /// With a token of the caller's choice: simulations want the same bytes every time.
    #[must_use]
    pub fn with_owner(mut self, owner: u128) -> Self {
        self.owner = owner;
        self
    }

    /// Epoch of the newest commit known here; 0 for none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.head.0
    }

    /// The store of output files.
    #[must_use]
    pub fn output(&self) -> &Arc<dyn Store> {
        &self.output
    }

    /// Reads the records from the newest back to the newest roll-up, and checks the chain. Writes nothing.
    ///
    /// # Errors
    /// When a record is missing, damaged, or does not follow from the one before.
    pub fn load(&mut self) -> Result<Loaded, CommitError> {
        let mut epochs = self.epochs()?;
        let mut commits: Vec<Commit> = Vec::new();
        let newest = epochs.pop();
        let mut wanted = newest;
        let mut head = (0, 0);
        let mut expected_hash = None;
        while let Some(epoch) = wanted {
            let key = self.record_key(epoch);
            let bytes = self.state.get(&key)?.ok_or_else(|| self.broken(&key, "is missing: the state folder is not complete"))?;
            let hash = XxHash3_128::oneshot(&bytes);
            if expected_hash.is_some_and(|h| h != hash) {
                return Err(self.broken(&key, "is not the record that the next one followed: state folders were mixed"));
            }
            let commit = decode(&key, &bytes)?;
            if commit.epoch != epoch {
                return Err(self.broken(&key, &format!("holds epoch {}", commit.epoch)));
            }
            if commits.is_empty() {
                head = (epoch, hash);
            }
            wanted = (!commit.draft.roll_up && epoch > 1).then(|| epoch - 1);
            expected_hash = Some(commit.previous);
            commits.push(commit);
        }
        commits.reverse();
        self.head = head;
        self.roll_up = commits.first().filter(|c| c.draft.roll_up).map_or(0, |c| c.epoch);
        self.live.clear();
        for commit in &commits {
            apply(&mut self.live, commit);
        }
        let through = commits.last().map_or(0, |c| c.published_through);
        self.unpublished = commits.iter().filter(|c| c.epoch > through).cloned().collect();
        self.staged.clear();
        Ok(Loaded { segments: self.live.clone(), commits })
    }

    /// Takes the lane over: publishes what the last owner could not, then commits an empty record, so that an owner that
    /// was only asleep loses its next race. After `load`.
    ///
    /// # Errors
    /// When a store fails.
    pub fn claim(&mut self, config_hash: u128, seen_at: EventTime) -> Result<Outcome, CommitError> {
        let before = self.latest_draft()?;
        let mut draft = Draft { config_hash, seen_at, ..Draft::default() };
        if let Some(last) = before {
            // A claim changes nothing: whoever reads only the newest record finds positions and clocks in it.
            (draft.positions, draft.clocks, draft.driver) = (last.positions, last.clocks, last.driver);
        }
        self.commit(draft)
    }

    fn latest_draft(&self) -> Result<Option<Draft>, CommitError> {
        if self.head.0 == 0 {
            return Ok(None);
        }
        let key = self.record_key(self.head.0);
        Ok(self.state.get(&key)?.map(|bytes| decode(&key, &bytes)).transpose()?.map(|c| c.draft))
    }

    /// Writes output files under temporary names, for the next commit. Durable on return.
    ///
    /// # Errors
    /// When the store fails; what was written is swept later.
    pub fn stage(&mut self, files: &[TableFile]) -> Result<Vec<OutputFile>, CommitError> {
        let epoch = self.head.0 + 1;
        let mut staged = Vec::with_capacity(files.len());
        for file in files {
            let name = format!("{}/{}-{epoch}-{:016x}", file.folder, self.lane, XxHash3_64::oneshot(&file.bytes));
            let mut key = format!("{name}.parquet");
            let mut copy = 1;
            // Two files of equal rows are two files.
            while !self.staged.insert(key.clone()) {
                copy += 1;
                key = format!("{name}-{copy}.parquet");
            }
            staged.push(OutputFile { key, bytes: file.bytes.len() as u64, rows: file.rows });
        }
        let views: Vec<(String, &[u8])> = staged.iter().zip(files).map(|(o, f)| (o.staged(), f.bytes.as_slice())).collect();
        self.output.put_many(&views)?;
        Ok(staged)
    }

    /// Writes a segment of state for the next commit, of parts that follow one another. Durable on return.
    ///
    /// # Errors
    /// When the store fails; what was written is swept later.
    pub fn segment(&self, purpose: &str, parts: &[&[u8]]) -> Result<SegmentRef, CommitError> {
        let mut hasher = XxHash3_128::new();
        parts.iter().for_each(|part| hasher.write(part));
        let (epoch, hash) = (self.head.0 + 1, hasher.finish_128());
        let key = format!("{}/{epoch:020}-{hash:032x}.seg", self.lane);
        self.state.put_parts(&key, parts)?;
        Ok(SegmentRef { key, bytes: parts.iter().map(|part| part.len() as u64).sum(), hash, purpose: purpose.to_owned() })
    }

    /// Reads a segment back; length and hash are checked.
    ///
    /// # Errors
    /// When it is missing or not what was committed.
    pub fn read(&self, segment: &SegmentRef) -> Result<Vec<u8>, CommitError> {
        let bytes = self.state.get(&segment.key)?.ok_or_else(|| self.broken(&segment.key, "is missing, though a commit names it"))?;
        if bytes.len() as u64 != segment.bytes || XxHash3_128::oneshot(&bytes) != segment.hash {
            return Err(self.broken(
                &segment.key,
                &format!("is damaged: {} bytes, committed were {} with another hash or length", bytes.len(), segment.bytes),
            ));
        }
        Ok(bytes)
    }

    /// The atomic step. Publishes what is still unpublished, creates the record, and leaves publishing its files to
    /// [`Self::publish`], so that the caller can do it before it acknowledges its sources.
    ///
    /// # Errors
    /// When a store fails and the record is not there; the same draft may be committed again.
    pub fn commit(&mut self, draft: Draft) -> Result<Outcome, CommitError> {
        self.publish()?;
        let epoch = self.head.0 + 1;
        let commit = Commit { epoch, previous: self.head.1, owner: self.owner, published_through: self.head.0, draft };
        let bytes = encode(&commit)?;
        let key = self.record_key(epoch);
        let ours = match self.state.put_if_absent(&key, &bytes) {
            Ok(true) => self.still_first(epoch, &key)?,
            // Ours after all, if an attempt before this one ended unknown.
            Ok(false) => self.state.get(&key)?.as_deref() == Some(&bytes),
            // Unknown outcome: the record itself knows.
            Err(error) => match self.state.get(&key) {
                Ok(Some(found)) => found == bytes,
                Ok(None) | Err(_) => return Err(error.into()),
            },
        };
        if !ours {
            return Ok(Outcome::Superseded);
        }
        self.head = (epoch, XxHash3_128::oneshot(&bytes));
        if commit.draft.roll_up {
            self.roll_up = epoch;
        }
        apply(&mut self.live, &commit);
        self.staged.clear();
        self.unpublished.push(commit.clone());
        Ok(Outcome::Committed(commit))
    }

    /// An owner asleep for so long that records were pruned would find its epoch free again. Pruning goes upwards from
    /// the oldest, so then the record before is gone, too; for a lane's first epoch, later ones are there.
    fn still_first(&self, epoch: u64, key: &str) -> Result<bool, CommitError> {
        let first = if epoch > 1 { self.state.get(&self.record_key(epoch - 1))?.is_some() } else { self.epochs()?.last() == Some(&epoch) };
        if !first {
            self.state.delete(key)?;
        }
        Ok(first)
    }

    /// Gives the files of all commits their final names and removes what they replace. Doing it twice is doing it once.
    ///
    /// # Errors
    /// When the store fails; the next call goes on.
    pub fn publish(&mut self) -> Result<(), CommitError> {
        for commit in &self.unpublished {
            let moves: Vec<(String, String)> = commit.draft.files.iter().map(|f| (f.staged(), f.key.clone())).collect();
            self.output.publish_many(&moves)?;
            self.output.delete_many(&moves.into_iter().map(|(staged, _)| staged).collect::<Vec<_>>())?;
            self.output.delete_many(&commit.draft.retired)?;
        }
        self.unpublished.clear();
        Ok(())
    }

    /// Removes what no record names: staged files and segments of epochs up to the newest commit, and records before
    /// the newest roll-up. Only after a claim. Returns how many objects went.
    ///
    /// # Errors
    /// When a store fails; nothing that is needed is touched.
    pub fn sweep(&mut self) -> Result<usize, CommitError> {
        self.publish()?;
        let live: BTreeSet<&str> = self.live.iter().map(|s| s.key.as_str()).collect();
        let (head, lane) = (self.head.0, format!("{}/", self.lane));
        let mut gone: Vec<String> = Vec::new();
        let mut records: Vec<String> = Vec::new();
        for (key, _) in self.state.list(&lane)? {
            let name = &key[lane.len()..];
            let Some(epoch) = name.get(..20).and_then(|e| e.parse::<u64>().ok()) else { continue };
            if name.ends_with(".seg") && epoch <= head && !live.contains(key.as_str()) {
                gone.push(key);
            } else if name.ends_with(".commit") && epoch < self.roll_up {
                records.push(key);
            }
        }
        // Everything staged up to the head is published by now or was never committed.
        let mut staged: Vec<String> = Vec::new();
        for (key, _) in self.output.list(STAGING)? {
            let mut parts = key.rsplit('~').next().unwrap_or("").splitn(3, '-');
            let of_lane = parts.next().and_then(|n| n.parse::<u32>().ok()) == Some(self.lane);
            if of_lane && parts.next().and_then(|n| n.parse::<u64>().ok()).is_some_and(|epoch| epoch <= head) {
                staged.push(key);
            }
        }
        self.state.delete_many(&gone)?;
        self.output.delete_many(&staged)?;
        // One after the other and upwards: `still_first` relies on it.
        for key in &records {
            self.state.delete(key)?;
        }
        Ok(gone.len() + staged.len() + records.len())
    }

    fn record_key(&self, epoch: u64) -> String {
        format!("{}/{epoch:020}.commit", self.lane)
    }

    fn epochs(&self) -> Result<Vec<u64>, CommitError> {
        let lane = format!("{}/", self.lane);
        let keys = self.state.list(&lane)?;
        Ok(keys.iter().filter_map(|(key, _)| key[lane.len()..].strip_suffix(".commit")?.parse().ok()).collect())
    }

    fn broken(&self, key: &str, why: &str) -> CommitError {
        CommitError::Broken { key: key.to_owned(), store: self.state.describe(), why: why.to_owned() }
    }
}

fn apply(live: &mut Vec<SegmentRef>, commit: &Commit) {
    if commit.draft.roll_up {
        live.clear();
    } else if !commit.draft.dropped.is_empty() {
        let dropped: BTreeSet<&str> = commit.draft.dropped.iter().map(String::as_str).collect();
        live.retain(|s| !dropped.contains(s.key.as_str()));
    }
    live.extend(commit.draft.segments.iter().cloned());
}

pub(crate) fn encode(commit: &Commit) -> Result<Vec<u8>, SegmentError> {
    let mut writer = SegmentWriter::new();
    writer.value(KIND_COMMIT, commit)?;
    Ok(writer.finish())
}

pub(crate) fn decode(key: &str, bytes: &[u8]) -> Result<Commit, SegmentError> {
    let mut reader = SegmentReader::new(key, bytes)?;
    let bad = |why: &str| SegmentError::Frame { file: key.to_owned(), frame: 0, why: why.to_owned() };
    let record = reader.next().ok_or_else(|| bad("an empty commit record"))??;
    if record.kind != KIND_COMMIT {
        return Err(bad(&format!("kind {} instead of a commit record", record.kind)));
    }
    let commit = reader.value(&record)?;
    if reader.next().transpose()?.is_some() {
        return Err(bad("more than a commit record"));
    }
    Ok(commit)
}

/// Unlike any other owner's: from the process, the clock and the system's randomness.
fn owner_token() -> u128 {
    let mut seed = Vec::with_capacity(32);
    seed.extend_from_slice(&std::process::id().to_le_bytes());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    seed.extend_from_slice(&now.as_nanos().to_le_bytes());
    seed.extend_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    XxHash3_128::oneshot(&seed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "commit_tests.rs"]
mod tests;
