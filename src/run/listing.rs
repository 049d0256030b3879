//! Folders and buckets: what is listed, what of it is new, and what must wait.
//!
//! Nothing is remembered here that a listing does not show: what was read is in the lane's ledger, what lies before the
//! ledger's memory is not listed any more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use flowtrail_ingest::{Day, EventTime, UnitId};

use super::clock::Stand;
use super::{Live, Run};
use crate::config::Clock;
use crate::input::{Announced, Inputs};
use crate::lane::Ended;
use crate::reader::{ReadSettings, UnitReport};
use crate::setup::now;
use crate::summary::Quarantined;

/// A file is taken once it has not changed for this long, seconds.
const STABLE_SECS: i64 = 2;
/// Tries of a unit whose fault will not pass by itself, before it is quarantined.
pub const TRIES_MAX: u32 = 4;
/// Longest rest between two tries.
const REST_MAX: Duration = Duration::from_secs(64);

/// A listing source: folders or prefixes, with how to read them.
pub struct Listing {
    /// Name in positions and metrics.
    pub name: String,
    /// Where.
    pub inputs: Inputs,
    /// How.
    pub read: ReadSettings,
    /// Nothing older, by delivery time.
    pub start: EventTime,
}

/// A unit that waits to be read.
pub struct Waiting {
    pub listing: usize,
    pub object: Announced,
}

/// A path or key of a listing.
pub type Place = (usize, String);

/// A unit that was announced and cannot be taken yet: it holds its source's clock.
pub struct Held {
    object: Announced,
    /// Since when.
    pub since: Instant,
    /// Failed tries; 0 for a file that is still being written.
    pub tries: u32,
    /// Not tried again before this.
    next: Instant,
    reason: String,
}

/// What is known of all listings.
pub struct Listings {
    /// Per listing: the mark of the last listing that succeeded, and when that was or something of it was read.
    stands: Vec<(Option<EventTime>, Instant)>,
    /// Units to be read, in order of delivery; those without a delivery time (snapshots) first.
    pub waiting: std::collections::VecDeque<Waiting>,
    /// Units that cannot be taken yet.
    pub held: HashMap<Place, Held>,
    /// Files without a name of AWS's that were read, with their length: what the ledger knows by content only.
    pub read: HashMap<Place, u64>,
    /// Copies of known units, and folders that cannot be looked into, that were counted.
    counted: HashSet<Place>,
    /// Listings so far.
    rounds: u64,
}

impl Listings {
    pub fn new(count: usize) -> Self {
        Self {
            stands: vec![(None, Instant::now()); count],
            waiting: std::collections::VecDeque::new(),
            held: HashMap::new(),
            read: HashMap::new(),
            counted: HashSet::new(),
            rounds: 0,
        }
    }

    /// Something of a listing was read just now.
    pub fn was_read(&mut self, listing: usize) {
        if let Some(stand) = self.stands.get_mut(listing) {
            stand.1 = Instant::now();
        }
    }

    /// How many places are remembered, for tests of its bounds.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.held.len() + self.read.len() + self.counted.len() + self.waiting.len()
    }
}

impl Run {
    /// Lists all sources; new units wait in `live.listings`. `mark`: taken before this began.
    ///
    /// Returns how many units are new, those that cannot be taken yet included.
    pub(super) fn list(&self, live: &mut Live, mark: Option<EventTime>) -> Result<usize> {
        let horizon = live.horizon(self.ledger_days);
        let first = live.listings.rounds == 0;
        live.listings.rounds += 1;
        let mut found = 0;
        let mut waiting: Vec<Waiting> = live.listings.waiting.drain(..).collect();
        let queued: HashSet<Place> = waiting.iter().map(|w| (w.listing, w.object.meta.key.clone())).collect();
        for (index, listing) in self.listings.iter().enumerate() {
            let listed = match listing.inputs.list_since(horizon) {
                Ok(listed) => listed,
                Err(error) if !self.once => {
                    tracing::warn!(source = %listing.name, error = format!("{error:#}"), "listing failed; it is tried again");
                    self.gauges.trouble(&listing.name);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut present: HashSet<String> = HashSet::new();
            for problem in listed.problems {
                present.insert(problem.path.clone());
                if live.listings.counted.insert((index, problem.path.clone())) {
                    live.summary.units.quarantined += 1;
                    live.summary.set_aside(Quarantined { source: problem.path, reason: problem.reason });
                }
            }
            let oldest = listing.start.max(horizon.map_or(EventTime::MIN, Day::start));
            for object in listed.objects {
                if object.meta.delivered_at.is_some_and(|t| t < oldest) {
                    continue;
                }
                let place = (index, object.meta.key.clone());
                if self.is_known(live, &place, &object, first) {
                    present.insert(place.1);
                    continue;
                }
                live.newest.hear(object.meta.delivered_at);
                present.insert(place.1.clone());
                found += 1;
                if queued.contains(&place) {
                    continue;
                }
                if let Some(held) = live.listings.held.get_mut(&place).filter(|h| h.tries > 0) {
                    held.object = object.clone();
                    if held.next > Instant::now() {
                        continue;
                    }
                } else if object.bucket.is_none() && object.modified.is_some_and(|m| now().0 - m.0 < STABLE_SECS) {
                    let fresh =
                        || Held { object: object.clone(), since: Instant::now(), tries: 0, next: Instant::now(), reason: String::new() };
                    live.listings.held.entry(place).or_insert_with(fresh);
                    continue;
                } else {
                    live.listings.held.remove(&place);
                }
                waiting.push(Waiting { listing: index, object });
            }
            self.forget_absent(live, index, &present);
            if let Some(stand) = live.listings.stands.get_mut(index) {
                *stand = (mark.max(stand.0), Instant::now());
            }
        }
        waiting.sort_by(|a, b| {
            let order = |w: &Waiting| (w.object.meta.delivered_at.unwrap_or(EventTime::MIN), w.object.meta.key.clone());
            order(a).cmp(&order(b))
        });
        live.listings.waiting = waiting.into();
        Ok(found)
    }

    /// True when nothing more is to be done about an object. Copies of what is known are counted, once.
    fn is_known(&self, live: &mut Live, place: &Place, object: &Announced, first: bool) -> bool {
        let Some(id) = UnitId::of_key(&object.meta.key) else {
            return live.listings.read.get(place) == Some(&object.size);
        };
        let Some(known) = live.lane.known.ledger.get(&id) else { return false };
        if known.bytes != object.size && known.ended != Ended::Quarantined {
            return false;
        }
        let copy = known.key != object.meta.key && live.listings.counted.insert(place.clone());
        if first || copy {
            live.summary.units.duplicate += 1;
        }
        true
    }

    /// Forgets what is no longer there. A unit that was announced and is gone before it could be read is said.
    fn forget_absent(&self, live: &mut Live, index: usize, present: &HashSet<String>) {
        let there = |place: &Place| place.0 != index || present.contains(&place.1);
        live.listings.read.retain(|place, _| there(place));
        live.listings.counted.retain(there);
        let gone: Vec<Place> = live.listings.held.keys().filter(|place| !there(place)).cloned().collect();
        for place in gone {
            if let Some(held) = live.listings.held.remove(&place).filter(|held| held.tries > 0) {
                let id = UnitId::of_key(&place.1).unwrap_or_default();
                let reason = format!("it is gone; before that: {}", held.reason);
                self.admit(live, UnitReport::unreadable(id, &held.object.meta, reason));
            }
        }
    }

    /// A unit cannot be fetched. It rests and is tried again as long as the fault may pass: for `stall_limit`, with `once` for
    /// some seconds. Returns true when it is given up.
    pub(super) fn hold(&self, live: &mut Live, unit: &Waiting, reason: &str, may_pass: bool) -> bool {
        let place = (unit.listing, unit.object.meta.key.clone());
        let fresh = || Held { object: unit.object.clone(), since: Instant::now(), tries: 0, next: Instant::now(), reason: String::new() };
        let held = live.listings.held.entry(place.clone()).or_insert_with(fresh);
        if held.tries == 0 {
            held.since = Instant::now();
        }
        held.tries += 1;
        let given_up = if may_pass && !self.once { held.since.elapsed() >= self.stall_limit } else { held.tries >= TRIES_MAX };
        if given_up {
            live.listings.held.remove(&place);
            return true;
        }
        // 1, 4, 16, 64 s: a fault that passes soon has passed by then.
        held.next = Instant::now() + Duration::from_secs(4u64.pow(held.tries.min(4) - 1)).min(REST_MAX);
        reason.clone_into(&mut held.reason);
        tracing::warn!(key = %unit.object.meta.key, reason, "a unit cannot be fetched; it is tried again");
        self.gauges.trouble(self.listings.get(unit.listing).map_or("", |l| l.name.as_str()));
        false
    }

    /// A listing's clock: the mark of its last listing, held back by units that are announced and not read.
    pub(super) fn listing_stands_at(&self, live: &Live, index: usize) -> Stand {
        let (mark, answered) = live.listings.stands.get(index).copied().unwrap_or((None, Instant::now()));
        // A file without a time in its name that is still being written: its modification, or whatever comes first in history.
        let undated = |object: &Announced| match self.clock {
            Clock::Wall => object.modified.unwrap_or(EventTime::MIN),
            Clock::Delivery => EventTime::MIN,
        };
        let of_waiting =
            live.listings.waiting.iter().find(|w| w.listing == index).map(|w| w.object.meta.delivered_at.unwrap_or(EventTime::MIN));
        let of_held = live
            .listings
            .held
            .iter()
            .filter(|(place, held)| place.0 == index && held.since.elapsed() <= self.stall_limit)
            .map(|(_, held)| held.object.meta.delivered_at.unwrap_or_else(|| undated(&held.object)))
            .min();
        let at = mark.map(|mark| of_waiting.into_iter().chain(of_held).fold(mark, EventTime::min));
        Stand { source: self.listings.get(index).map_or_else(String::new, |l| l.name.clone()), at, answered }
    }
}
