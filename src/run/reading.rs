//! Listed units to contributions: read in parallel, taken in in an order that no thread decides.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use flowtrail_detect::Block;
use flowtrail_ingest::{Hour, UnitId};
use flowtrail_sink::tables::set_aside::LateRow;

use super::listing::Waiting;
use super::{Live, Run, lock};
use crate::feed::Feed;
use crate::input::may_pass;
use crate::lane::Ended;
use crate::publish;
use crate::reader::{Reader, UnitReport};
use crate::replay::add_to_summary;
use crate::setup::now;

/// Units that are read at a time, at most.
pub const CHUNK: usize = 512;

/// What a thread made of a unit.
enum Outcome {
    /// Its bytes were read before, under another name.
    Duplicate,
    Read(Box<UnitReport>),
    Failed {
        reason: String,
        may_pass: bool,
    },
}

impl Run {
    /// Reads the next units that wait. True if there were some.
    pub(super) fn read_chunk(&self, live: &mut Live) -> bool {
        let count = live.listings.waiting.len().min(CHUNK);
        let chunk: Vec<Waiting> = live.listings.waiting.drain(..count).collect();
        let todo = self.claim(live, &chunk);
        let (outcomes, blocks) = self.read_units(live, &todo);
        for ((unit, _), outcome) in todo.iter().zip(outcomes) {
            let place = (unit.listing, unit.object.meta.key.clone());
            let id = UnitId::of_key(&place.1);
            let done = match outcome {
                Outcome::Duplicate => {
                    live.summary.units.duplicate += 1;
                    true
                }
                Outcome::Read(report) => {
                    self.admit(live, *report);
                    true
                }
                Outcome::Failed { reason, may_pass } => {
                    let given_up = self.hold(live, unit, &reason, may_pass);
                    if given_up {
                        self.admit(live, UnitReport::unreadable(id.unwrap_or_default(), &unit.object.meta, reason));
                    }
                    given_up
                }
            };
            live.listings.was_read(unit.listing);
            if done {
                live.listings.held.remove(&place);
                if id.is_none() {
                    live.listings.read.insert(place, unit.object.size);
                }
            }
        }
        live.take_blocks(blocks);
        count > 0
    }

    /// Leaves out what is known, and says what changed after it was read.
    fn claim<'c>(&self, live: &mut Live, chunk: &'c [Waiting]) -> Vec<(&'c Waiting, Option<UnitId>)> {
        let mut todo = Vec::new();
        let mut claimed: BTreeSet<UnitId> = BTreeSet::new();
        for unit in chunk {
            let object = &unit.object;
            let place = (unit.listing, object.meta.key.clone());
            let Some(id) = UnitId::of_key(&object.meta.key) else {
                if let std::collections::hash_map::Entry::Occupied(mut e) = live.listings.read.entry(place) {
                    e.insert(object.size);
                    let reason = "the file changed after it was read: what it holds now is not counted".to_owned();
                    self.admit(live, UnitReport::unreadable(UnitId::default(), &object.meta, reason));
                } else {
                    todo.push((unit, None));
                }
                continue;
            };
            match live.lane.known.ledger.get(&id) {
                Some(known) if known.bytes != object.size && known.ended != Ended::Quarantined => {
                    let reason = format!("it came before with {} bytes, now it has {}: not counted again", known.bytes, object.size);
                    self.admit(live, UnitReport::unreadable(id, &object.meta, reason));
                }
                Some(_) => live.summary.units.duplicate += 1,
                None if !claimed.insert(id) => live.summary.units.duplicate += 1,
                None => todo.push((unit, Some(id))),
            }
        }
        todo
    }

    /// Reads in as many threads as there are; outcomes in the order of `todo`.
    fn read_units(&self, live: &Live, todo: &[(&Waiting, Option<UnitId>)]) -> (Vec<Outcome>, Vec<Block>) {
        let units = todo.iter().map(|(unit, _)| (&self.listings[unit.listing].inputs, &unit.object));
        let feed = Feed::new(units, |_| true, self.memory / 4);
        let ledger = &live.lane.known.ledger;
        let seen: Mutex<HashSet<UnitId>> = Mutex::new(HashSet::new());
        let results: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
        let blocks: Mutex<Vec<Block>> = Mutex::new(Vec::new());
        let work = || {
            let mut readers: HashMap<usize, Reader> = HashMap::new();
            let mut bytes = Vec::new();
            while let Some(mut taken) = feed.take() {
                let Some((unit, id)) = todo.get(taken.index) else { break };
                let listing = &self.listings[unit.listing];
                let reader = readers.entry(unit.listing).or_insert_with(|| {
                    let mut settings = listing.read.clone();
                    settings.now = now();
                    Reader::new(settings, crate::setup::random_seed())
                });
                let outcome = match taken.read(&mut bytes) {
                    Err(error) => Outcome::Failed { reason: format!("{error:#}"), may_pass: may_pass(&error) },
                    Ok(()) => {
                        let identity = id.unwrap_or_else(|| UnitId::of_bytes(&bytes));
                        if id.is_none() && (ledger.contains_key(&identity) || !lock(&seen).insert(identity)) {
                            Outcome::Duplicate
                        } else {
                            Outcome::Read(Box::new(reader.read(identity, &unit.object.meta, &bytes, None)))
                        }
                    }
                };
                lock(&results).push((taken.index, outcome));
                if reader.is_full() {
                    lock(&blocks).extend(reader.flush());
                }
            }
            for reader in readers.values_mut() {
                lock(&blocks).extend(reader.flush());
            }
        };
        let threads = self.threads.clamp(1, todo.len().max(1));
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        let blocks = blocks.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        (results.into_iter().map(|(_, outcome)| outcome).collect(), blocks)
    }

    /// Takes in what a unit said beside its contributions; the next commit has it.
    pub(super) fn admit(&self, live: &mut Live, mut report: UnitReport) {
        if live.sealed_before.is_some_and(|sealed| report.hours.is_some_and(|(_, newest)| newest < sealed))
            && report.record.ended == Ended::Applied
        {
            let record = &mut report.record;
            record.ended = Ended::Late;
            record.reason = "all of its hours are sealed".to_owned();
            live.rows.late.push(LateRow {
                time: record.hour.map_or_else(now, Hour::start),
                source: record.source.clone(),
                key: record.key.clone(),
                position: None,
                reason: format!("all of its {} records: its hours are sealed", record.records),
                sample: String::new(),
            });
        }
        add_to_summary(&mut live.summary, &report);
        live.summary.records.api += report.api;
        publish::set_aside(&mut live.rows, &report, now());
        live.pending.facts.append(&mut report.facts);
        if report.record.source != "kafka" {
            // Of a partition that goes on, every message is counted where it is read.
            live.pending.coverage.add_unit(&report.record);
        }
        if report.record.id != UnitId::default() {
            if let Some(before) = live.lane.known.ledger.get(&report.record.id) {
                // A partition is one unit that goes on.
                report.record.absorb(before);
            }
            live.lane.known.ledger.insert(report.record.id, report.record.clone());
            live.pending.units.push(report.record);
        }
    }
}
