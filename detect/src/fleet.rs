//! The fleet's tables (detectors.md 0.3): integer sums over all accounts of one day, used from two days later.
//!
//! Integers, so that the sum is the same in whatever order the accounts' parts come; two days later, so that every
//! worker judges with the same table.

use std::collections::BTreeMap;

use flowtrail_ingest::Day;
use serde::{Deserialize, Serialize};

use crate::key_counts::KeyCounts;
use crate::novelty::{CLASSES, SPACES, Space};

/// Steps of "at least so many new keys in one hour".
const AT_LEAST: [usize; 6] = [1, 2, 3, 5, 8, 16];
/// Prevalence buckets: known to 0, 1, 2-9, 10-99, 100 entities and more.
pub const BUCKETS: usize = 5;
/// Counts are kept in 1/1024, so that decay does not eat small ones at once.
const SCALE: u64 = 1024;
/// `2^(-1/30)` in 1/65536: a half-life of 30 days, day by day.
const DAILY: u64 = 64_039;

/// The bucket of a number of entities.
#[must_use]
pub fn bucket(entities: u32) -> usize {
    match entities {
        0 => 0,
        1 => 1,
        2..=9 => 2,
        10..=99 => 3,
        _ => 4,
    }
}

/// Sums that decay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sums {
    /// (hours with novelty, active hours) by space and class, in 1/1024.
    classes: BTreeMap<u16, (u64, u64)>,
    /// Novelty hours by space and step of [`AT_LEAST`], in 1/1024.
    at_least: BTreeMap<u16, u64>,
    /// Benign novelties by space and prevalence bucket, in 1/1024.
    benign: BTreeMap<u16, u64>,
}

/// What one account adds to the fleet's tables on one day. Merging is commutative.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetDelta {
    sums: Sums,
    /// Entities that learned a key less those that lost it.
    keys: KeyCounts,
    /// Entities that came less those that went, by space.
    entities: [i32; SPACES],
}

/// The fleet's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Days up to this one are in `sums`, `keys` and `entities`.
    through: Day,
    sums: Sums,
    keys: KeyCounts,
    entities: [i64; SPACES],
    /// Newer days, not yet everybody's.
    pending: BTreeMap<Day, FleetDelta>,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        for (class, (novel, active)) in &other.classes {
            let slot = self.classes.entry(*class).or_default();
            slot.0 += novel;
            slot.1 += active;
        }
        for (mine, theirs) in [(&mut self.at_least, &other.at_least), (&mut self.benign, &other.benign)] {
            for (slot, count) in theirs {
                *mine.entry(*slot).or_default() += count;
            }
        }
    }

    fn decay(&mut self, days: i32) {
        let each = |x: &mut u64| *x = decayed(*x, days);
        self.classes.values_mut().for_each(|(a, b)| {
            each(a);
            each(b);
        });
        self.at_least.values_mut().for_each(each);
        self.benign.values_mut().for_each(each);
        self.classes.retain(|_, v| *v != (0, 0));
        self.at_least.retain(|_, v| *v != 0);
        self.benign.retain(|_, v| *v != 0);
    }
}

fn decayed(mut x: u64, days: i32) -> u64 {
    for _ in 0..days.clamp(0, 2000) {
        if x == 0 {
            break;
        }
        x = ((u128::from(x) * u128::from(DAILY)) >> 16) as u64;
    }
    x
}

fn slot(space: Space, index: usize, width: usize) -> u16 {
    (space as usize * width + index) as u16
}

impl FleetDelta {
    /// An active hour of an entity, in which `novel` keys were new to it.
    pub fn hour(&mut self, space: Space, class: usize, novel: usize) {
        let counts = self.sums.classes.entry(slot(space, class.min(CLASSES - 1), CLASSES)).or_default();
        counts.1 += SCALE;
        if novel > 0 {
            counts.0 += SCALE;
            for (step, least) in AT_LEAST.iter().enumerate().filter(|(_, least)| novel >= **least) {
                debug_assert!(*least >= 1);
                *self.sums.at_least.entry(slot(space, step, AT_LEAST.len())).or_default() += SCALE;
            }
        }
    }

    /// A novelty that no finding of medium or more speaks of; its key was known to `entities`.
    pub fn benign(&mut self, space: Space, entities: u32) {
        *self.sums.benign.entry(slot(space, bucket(entities), BUCKETS)).or_default() += SCALE;
    }

    /// An entity learned (+1) or lost (-1) a key.
    #[inline]
    pub fn key(&mut self, _space: Space, key: u64, by: i32) {
        self.keys.add(key, by);
    }

    /// An entity came (+1) or went (-1).
    pub fn entity(&mut self, space: Space, by: i32) {
        self.entities[space as usize] += by;
    }

    /// Takes in another account's part.
    pub fn merge(&mut self, other: &Self) {
        self.sums.add(&other.sums);
        self.keys.merge(&other.keys);
        for (mine, theirs) in self.entities.iter_mut().zip(other.entities) {
            *mine += theirs;
        }
    }

    /// Nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[cfg(test)]
    pub(crate) fn count_of(&self, key: u64) -> i32 {
        self.keys.get(key)
    }
}

impl Fleet {
    /// Takes in day `day`'s parts of all accounts; they are used from `day + 2` on.
    pub fn close_day(&mut self, day: Day, deltas: &[FleetDelta]) {
        let pending = self.pending.entry(day).or_default();
        for delta in deltas {
            pending.merge(delta);
        }
        pending.keys.settle();
        // Hours of `day` and the day before are judged without them; the older ones are everybody's.
        while let Some(entry) = self.pending.first_entry().filter(|e| *e.key() < day) {
            let (closed, delta) = entry.remove_entry();
            self.sums.decay(closed.0.saturating_sub(self.through.0));
            self.sums.add(&delta.sums);
            self.keys.merge(&delta.keys);
            self.keys.settle();
            for (mine, theirs) in self.entities.iter_mut().zip(delta.entities) {
                *mine += i64::from(theirs);
            }
            self.through = self.through.max(closed);
        }
    }

    /// The tables as hours of `day` are judged with: everything through `day - 2`.
    #[must_use]
    pub fn view(&self, day: Day) -> FleetView<'_> {
        let last = Day(day.0.saturating_sub(2));
        FleetView { fleet: self, pending: self.pending.range(..=last).map(|(d, delta)| (*d, delta)).collect() }
    }
}

/// The fleet's tables as of one day.
pub struct FleetView<'a> {
    fleet: &'a Fleet,
    pending: Vec<(Day, &'a FleetDelta)>,
}

impl FleetView<'_> {
    /// A decaying sum as it will stand when the pending days are taken in.
    fn sum(&self, of: impl Fn(&Sums) -> u64) -> f64 {
        let (mut total, mut through) = (of(&self.fleet.sums), self.fleet.through);
        for (day, delta) in &self.pending {
            total = decayed(total, day.0.saturating_sub(through.0)) + of(&delta.sums);
            through = *day;
        }
        total as f64 / SCALE as f64
    }

    /// `F_c` and `G_c`: hours with novelty and active hours of a class.
    #[must_use]
    pub fn class(&self, space: Space, class: usize) -> (f64, f64) {
        let at = slot(space, class.min(CLASSES - 1), CLASSES);
        let part = |s: &Sums| s.classes.get(&at).copied().unwrap_or_default();
        (self.sum(|s| part(s).0), self.sum(|s| part(s).1))
    }

    /// Entities known.
    #[must_use]
    pub fn entities(&self, space: Space) -> i64 {
        self.fleet.entities[space as usize] + self.pending.iter().map(|(_, d)| i64::from(d.entities[space as usize])).sum::<i64>()
    }

    /// Share of novelty hours with at least `new` new keys, with half an hour added to either side.
    #[must_use]
    pub fn share_with_at_least(&self, space: Space, new: usize) -> f64 {
        let step = AT_LEAST.iter().rposition(|least| new >= *least).unwrap_or(0);
        let count = |step: usize| self.sum(|s| s.at_least.get(&slot(space, step, AT_LEAST.len())).copied().unwrap_or(0));
        ((count(step) + 0.5) / (count(0) + 1.0)).min(1.0)
    }

    /// Entities that know `key`.
    #[must_use]
    pub fn prevalence(&self, key: u64) -> u32 {
        let base = i64::from(self.fleet.keys.get(key));
        let more: i64 = self.pending.iter().map(|(_, d)| i64::from(d.keys.get(key))).sum();
        (base + more).clamp(0, i64::from(u32::MAX)) as u32
    }

    /// `pi_b`: chance that a benign novelty's key is known to as few entities as this one or the next bucket's.
    #[must_use]
    pub fn rarity(&self, space: Space, entities: u32) -> f64 {
        let count = |b: usize| self.sum(|s| s.benign.get(&slot(space, b, BUCKETS)).copied().unwrap_or(0));
        let all: f64 = (0..BUCKETS).map(count).sum();
        let few: f64 = (0..BUCKETS).filter(|b| *b <= bucket(entities) + 1).map(count).sum();
        (few + 1.0) / (all + 5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delta(seed: u64) -> FleetDelta {
        let mut delta = FleetDelta::default();
        for n in 0..seed % 7 + 1 {
            delta.hour(Space::Peer, (seed as usize + n as usize) % CLASSES, (n % 4) as usize);
            delta.key(Space::Peer, seed % 5 + n, if n % 3 == 2 { -1 } else { 1 });
            delta.benign(Space::Action, n as u32 * 7);
            delta.entity(Space::Port, 1);
        }
        delta
    }

    proptest! {
        #[test]
        fn merging_does_not_see_the_order(seeds in prop::collection::vec(any::<u64>(), 1..8)) {
            let sum = |seeds: &[u64]| {
                let mut all = FleetDelta::default();
                seeds.iter().for_each(|s| all.merge(&delta(*s)));
                all
            };
            let mut turned = seeds.clone();
            turned.reverse();
            prop_assert_eq!(sum(&seeds), sum(&turned));
        }

        /// Whether a day was already taken in when an hour is judged must not show.
        #[test]
        fn a_view_does_not_depend_on_when_days_are_closed(days in prop::collection::vec((0i32..3, any::<u64>()), 1..8)) {
            let mut fleet = Fleet::default();
            let mut day = 100;
            let mut views = Vec::new();
            for (gap, seed) in days {
                day += 1 + gap;
                fleet.close_day(Day(day), &[delta(seed)]);
                views.push((day, fleet.clone()));
            }
            let last = views.last().map_or(0, |v| v.0);
            // Hours of `last + 1` use days through `last - 1`, hours of `last + 2` all of them.
            let mut later = fleet.clone();
            later.close_day(Day(last + 1), &[delta(99)]);
            for class in 0..CLASSES {
                prop_assert_eq!(fleet.view(Day(last + 2)).class(Space::Peer, class), later.view(Day(last + 2)).class(Space::Peer, class));
            }
            for key in 0..12 {
                prop_assert_eq!(fleet.view(Day(last + 2)).prevalence(key), later.view(Day(last + 2)).prevalence(key));
            }
            prop_assert_eq!(fleet.view(Day(last + 2)).share_with_at_least(Space::Peer, 3), later.view(Day(last + 2)).share_with_at_least(Space::Peer, 3));
            prop_assert_eq!(fleet.view(Day(last + 2)).rarity(Space::Action, 1), later.view(Day(last + 2)).rarity(Space::Action, 1));
        }
    }

    #[test]
    fn a_day_counts_from_the_second_day_after_it() {
        let mut fleet = Fleet::default();
        let mut day = FleetDelta::default();
        day.hour(Space::Peer, 3, 1);
        day.key(Space::Peer, 42, 1);
        fleet.close_day(Day(10), &[day.clone(), day]);
        assert_eq!(fleet.view(Day(11)).class(Space::Peer, 3), (0.0, 0.0));
        assert_eq!(fleet.view(Day(12)).class(Space::Peer, 3), (2.0, 2.0));
        assert_eq!((fleet.view(Day(11)).prevalence(42), fleet.view(Day(12)).prevalence(42)), (0, 2));
        fleet.close_day(Day(40), &[]);
        let (_, left) = fleet.view(Day(42)).class(Space::Peer, 3);
        assert!((0.9..1.1).contains(&left), "thirty days halve a sum: {left}");
    }
}
