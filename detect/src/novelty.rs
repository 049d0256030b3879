//! The novelty engine (detectors.md 0.3): what an entity is known to do, and how unlikely something new is.

use flowtrail_ingest::{Day, Hour, Ip};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::fleet::{FleetDelta, FleetView};
use crate::surprise::decay;

/// Keys an entity may know; over it, the smallest hashes stay and the entity counts as dynamic.
pub const KNOWN_MAX: usize = 512;
/// A key not seen for this long is forgotten.
pub const FORGET_DAYS: u16 = 30;
/// Half-life of `T` and `R`, in hours.
const HALF_LIFE_HOURS: f64 = 30.0 * 24.0;
/// In its first week an entity meets its regular peers: such hours say nothing about how often it meets new ones.
pub const SETTLING_HOURS: i32 = 7 * 24;
/// Names kept to be shown to people.
const NAMES_MAX: usize = 24;
/// Characters of such a name.
const NAME_CHARS_MAX: usize = 120;
const SCALE: f64 = 65_536.0;

/// What kind of key: each has tables of its own.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Space {
    /// Peers of network entities.
    Peer = 0,
    /// Actions of functions.
    Action = 1,
    /// Ports of network entities.
    Port = 2,
}

/// Number of [`Space`]s.
pub const SPACES: usize = 3;
/// Classes of `(R, T, deploy)`.
pub const CLASSES: usize = 7 * 5 * 2;

/// A key of one space: XXH3-64 of its level and text.
#[must_use]
pub fn key_of(space: Space, level: &str, text: &str) -> u64 {
    let mut bytes: smallvec::SmallVec<[u8; 96]> = smallvec::SmallVec::new();
    bytes.push(space as u8);
    bytes.extend_from_slice(level.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(text.as_bytes());
    XxHash3_64::oneshot(&bytes)
}

/// A key of bytes, for addresses and ports.
#[must_use]
pub fn key_of_bytes(space: Space, level: u8, text: &[u8], more: &[u8]) -> u64 {
    let mut bytes = [0u8; 64];
    bytes[..3].copy_from_slice(&[space as u8, 0xff, level]);
    let end = 3 + text.len();
    let all = end + more.len();
    // Addresses and ports are far shorter than this.
    if all > bytes.len() {
        return XxHash3_64::oneshot(&[&bytes[..3], text, more].concat());
    }
    bytes[3..end].copy_from_slice(text);
    bytes[end..all].copy_from_slice(more);
    XxHash3_64::oneshot(&bytes[..all])
}

/// [`key_of_bytes`] of an address and `N` bytes more, up to 12: lengths that are known beforehand are copied at once.
#[must_use]
#[inline]
pub fn key_of_ip<const N: usize>(space: Space, level: u8, ip: Ip, more: [u8; N]) -> u64 {
    let mut bytes = [0u8; 31];
    bytes[..3].copy_from_slice(&[space as u8, 0xff, level]);
    bytes[3..19].copy_from_slice(&ip.0.to_be_bytes());
    bytes[19..19 + N].copy_from_slice(&more);
    XxHash3_64::oneshot(&bytes[..19 + N])
}

/// One known key, 16 bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownKey {
    /// XXH3-64 of the key.
    pub key: u64,
    /// First day, from 1970.
    pub first: u16,
    /// Last day.
    pub last: u16,
    /// Hours in which it was seen.
    pub hours: u16,
    /// Bits of [`flags`].
    pub flags: u16,
}

/// Bits of [`KnownKey::flags`].
pub mod flags {
    /// The address was learned while nobody was known to hold it.
    pub const UNNAMED: u16 = 1;
    /// People would count it: a peer or an action, not a neighbourhood or a service.
    pub const COUNTED: u16 = 2;
}

/// A key to learn, 16 bytes.
#[derive(Copy, Clone, Debug)]
pub struct Learned {
    /// The key.
    pub key: u64,
    /// What [`Novelty::learn`]'s `shown` is asked for a name to show, for keys that people should see; else [`NAMELESS`].
    pub name: u32,
    /// Bits of [`flags`].
    pub flags: u16,
}

/// A key that is not shown.
pub const NAMELESS: u32 = u32::MAX;

/// Known keys of one space, and how often new ones come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Novelty {
    /// Sorted by key.
    #[serde(with = "crate::packed")]
    known: Vec<KnownKey>,
    /// Names of the most recently seen, sorted by key.
    names: Vec<(u64, Box<str>)>,
    /// `T`: decayed active hours, in 1/65536.
    active: u32,
    /// `R`: decayed hours with a new key, in 1/65536.
    novel: u32,
    /// The hour both are decayed to.
    at: Hour,
    /// Last day on which a key did not fit.
    full: u16,
}

/// `T` and `R` at some hour.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Decayed active hours.
    pub t: f64,
    /// Decayed hours with at least one new key.
    pub r: f64,
}

impl Rates {
    /// The class that the fleet counts this entity's hour in.
    #[must_use]
    pub fn class(self, deployed: bool) -> usize {
        let bucket = |x: f64, edges: &[f64]| edges.iter().take_while(|e| x >= **e).count();
        let r = bucket(self.r, &[0.05, 0.6, 2.0, 5.0, 15.0, 50.0]);
        let t = bucket(self.t, &[24.0, 72.0, 168.0, 336.0]);
        (r * 5 + t) * 2 + usize::from(deployed)
    }
}

/// A day as the 16 bits that keys keep of it.
#[must_use]
pub fn day16(day: Day) -> u16 {
    day.0.clamp(0, i32::from(u16::MAX)) as u16
}

/// Where hashes stand among sorted ones, for many questions.
///
/// They are read once, in order, as the processor reads ahead best: an entity's keys lie in no cache when its hour comes.
/// Keys are hashes, so their highest bits tell within a few steps where they are. Whoever chooses keys that are not spread
/// evenly makes it a walk over at most [`KNOWN_MAX`] of them.
pub(crate) struct HashIndex<'k, T> {
    items: &'k [T],
    /// What is left of a key after this is below [`STARTS`].
    shift: u32,
    /// By the highest bits of a key: how many of the items have smaller ones.
    starts: [u16; STARTS + 1],
}

/// So many different highest bits: few of up to [`KNOWN_MAX`] keys have the same.
const STARTS: usize = 256;

/// What is kept sorted by a hash.
pub(crate) trait Hashed {
    fn key(&self) -> u64;
}

impl Hashed for KnownKey {
    fn key(&self) -> u64 {
        self.key
    }
}

impl<'k, T: Hashed> HashIndex<'k, T> {
    pub fn new(items: &'k [T]) -> Self {
        let bits = u64::BITS - items.last().map_or(0, Hashed::key).leading_zeros();
        let shift = bits.saturating_sub(STARTS.ilog2());
        let mut starts = [0; STARTS + 1];
        for (item, upto) in items.iter().zip(1..) {
            if let Some(start) = starts.get_mut((item.key() >> shift) as usize + 1) {
                *start = upto;
            }
        }
        let mut most = 0;
        for start in &mut starts {
            most = most.max(*start);
            *start = most;
        }
        Self { items, shift, starts }
    }

    /// The item of a key, and its place.
    #[inline]
    pub fn find(&self, key: u64) -> Option<(usize, &'k T)> {
        // Full lists hold the smallest hashes: most of what is not in one lies beyond its end.
        let start = usize::from(*self.starts[..STARTS].get((key >> self.shift) as usize)?);
        let at = start + self.items.get(start..)?.iter().take_while(|item| item.key() < key).count();
        self.items.get(at).filter(|item| item.key() == key).map(|item| (at, item))
    }
}

/// The known keys of one space, to be asked for many of them on one day.
pub struct KnownIndex<'k> {
    keys: HashIndex<'k, KnownKey>,
    day: u16,
}

impl<'k> KnownIndex<'k> {
    fn new(known: &'k [KnownKey], day: Day) -> Self {
        Self { keys: HashIndex::new(known), day: day16(day) }
    }

    /// Where a key stands that is not forgotten, for [`Novelty::touch`].
    #[must_use]
    pub fn place(&self, key: u64) -> Option<(usize, &'k KnownKey)> {
        self.keys.find(key).filter(|(_, found)| self.day <= found.last.saturating_add(FORGET_DAYS))
    }

    /// True if `key` is known.
    #[must_use]
    pub fn knows(&self, key: u64) -> bool {
        self.place(key).is_some()
    }
}

/// Where a key is among sorted keys, or would be.
fn find(known: &[KnownKey], key: u64) -> Result<usize, usize> {
    known.binary_search_by_key(&key, |k| k.key)
}

impl Novelty {
    /// The known key, unless it is forgotten by `day`.
    #[must_use]
    pub fn get(&self, key: u64, day: Day) -> Option<&KnownKey> {
        let found = &self.known[find(&self.known, key).ok()?];
        (day16(day) <= found.last.saturating_add(FORGET_DAYS)).then_some(found)
    }

    /// For many questions on `day`.
    #[must_use]
    pub fn index(&self, day: Day) -> KnownIndex<'_> {
        KnownIndex::new(&self.known, day)
    }

    /// Notes that the key at `place` was seen in an hour of `day`; once an hour, before [`Novelty::learn`]. True if it
    /// was the first time that day.
    pub fn touch(&mut self, place: usize, key: u64, day: Day) -> bool {
        let Some(known) = self.known.get_mut(place).filter(|k| k.key == key) else { return false };
        let first_today = known.last < day16(day);
        known.last = known.last.max(day16(day));
        known.hours = known.hours.saturating_add(1);
        first_today
    }

    /// True if `key` is known on `day`.
    #[must_use]
    pub fn knows(&self, key: u64, day: Day) -> bool {
        self.get(key, day).is_some()
    }

    /// True if `key` is in the map or could come in: there is room, or its hash is among the smallest.
    #[must_use]
    pub fn admits(&self, key: u64) -> bool {
        self.known.len() < KNOWN_MAX || self.known.last().is_some_and(|k| key <= k.key)
    }

    /// A key did not fit on `day`.
    pub fn overflow(&mut self, day: Day) {
        self.full = day16(day).max(1);
    }

    /// Keys known on `day`.
    #[must_use]
    pub fn len(&self, day: Day) -> usize {
        self.known.iter().filter(|k| day16(day) <= k.last.saturating_add(FORGET_DAYS)).count()
    }

    /// Keys known on `day` that people would count.
    #[must_use]
    pub fn counted(&self, day: Day) -> u64 {
        self.known.iter().filter(|k| k.flags & flags::COUNTED != 0 && day16(day) <= k.last.saturating_add(FORGET_DAYS)).count() as u64
    }

    /// The most recent known keys that have a name: (name, first day, last day, hours), the most recent first.
    #[must_use]
    pub fn named(&self, day: Day) -> Vec<(&str, KnownKey)> {
        let mut named: Vec<(&str, KnownKey)> =
            self.names.iter().filter_map(|(key, name)| Some((name.as_ref(), *self.get(*key, day)?))).collect();
        named.sort_by(|a, b| b.1.last.cmp(&a.1.last).then_with(|| b.1.hours.cmp(&a.1.hours)).then_with(|| a.0.cmp(b.0)));
        named
    }

    /// True if it knows too many keys for a new one to mean anything.
    #[must_use]
    pub fn is_dynamic(&self, day: Day) -> bool {
        self.full != 0 && day16(day) <= self.full.saturating_add(FORGET_DAYS)
    }

    /// `T` and `R` as of the start of `hour`.
    #[must_use]
    pub fn rates(&self, hour: Hour) -> Rates {
        let left = decay(f64::from(hour.0) - f64::from(self.at.0), HALF_LIFE_HOURS);
        Rates { t: f64::from(self.active) / SCALE * left, r: f64::from(self.novel) / SCALE * left }
    }

    /// Learns an active hour: the keys seen in it, and whether `novel` of them were new (0 if that is not to count).
    /// What enters or leaves the map goes into the fleet's `delta`. `shown` makes the names of those that need one.
    pub fn learn(
        &mut self,
        space: Space,
        hour: Hour,
        mut keys: Vec<Learned>,
        shown: &dyn Fn(u32) -> String,
        novel: usize,
        delta: &mut FleetDelta,
    ) {
        let day = day16(hour.day());
        let rates = self.rates(hour);
        self.active = ((rates.t + 1.0) * SCALE) as u32;
        self.novel = ((rates.r + if novel > 0 { 1.0 } else { 0.0 }) * SCALE) as u32;
        let learned_before = day16(self.at.day());
        self.at = hour;
        // What is not too old for a day was not so in an earlier hour of it.
        if learned_before != day {
            self.forget(day, delta);
        }
        keys.sort_unstable_by_key(|learned| learned.key);
        // Many are gone through side by side with what is known, few are looked for in it.
        let many = 8 * keys.len() > self.known.len();
        let smaller = |known: &[KnownKey], key: u64| {
            if many { known.iter().take_while(|k| k.key < key).count() } else { known.partition_point(|k| k.key < key) }
        };
        // Those that are not known move to the front: more than fit need not be looked at, of those that would come in only
        // the smallest hashes can stay.
        let (mut next, mut added, mut at) = (0, 0, 0);
        while let Some(first) = keys.get(next) {
            let mut learned = *first;
            let start = next;
            next += 1;
            while let Some(again) = keys.get(next).filter(|again| again.key == learned.key) {
                learned.flags &= again.flags;
                next += 1;
            }
            at += smaller(&self.known[at..], learned.key);
            match self.known.get_mut(at).filter(|known| known.key == learned.key) {
                Some(known) => {
                    known.last = known.last.max(day);
                    known.hours = known.hours.saturating_add(1);
                    known.flags &= learned.flags;
                }
                None if added > KNOWN_MAX => self.full = day.max(1),
                None => {
                    learned.name = best_name(&keys[start..next], shown);
                    keys[added] = learned;
                    added += 1;
                }
            }
        }
        keys.truncate(added);
        let kept = self.take_in(space, &keys, day, delta);
        // When each of the names was last seen, for the choice of those to keep.
        let last_seen = |key: u64| find(&self.known, key).map_or(0, |at| self.known[at].last);
        let mut named: Option<Vec<u16>> = None;
        // Of equally recent ones the largest keys keep their names: those first, so that the others need none.
        for learned in keys[..kept].iter().rev().filter(|learned| learned.name != NAMELESS) {
            let named = named.get_or_insert_with(|| self.names.iter().map(|n| last_seen(n.0)).collect());
            if !keep_name(&mut self.names, named, learned.key, day, || shown(learned.name)) {
                break;
            }
        }
    }

    /// Merges sorted keys that it does not know into the map, of which the smallest stay. Returns how many of them do.
    fn take_in(&mut self, space: Space, added: &[Learned], day: u16, delta: &mut FleetDelta) -> usize {
        let (mut old, mut new) = (self.known.len(), added.len());
        while old + new > KNOWN_MAX {
            self.full = day.max(1);
            let drops_new = match (self.known[..old].last(), added[..new].last()) {
                (Some(known), Some(learned)) => known.key < learned.key,
                (known, _) => known.is_none(),
            };
            if drops_new {
                new -= 1;
                continue;
            }
            old -= 1;
            let dropped = self.known[old].key;
            if let Ok(at) = self.names.binary_search_by_key(&dropped, |n| n.0) {
                self.names.remove(at);
            }
            delta.key(space, dropped, -1);
        }
        // From behind: each place is free before it is filled.
        let entry = |learned: &Learned| KnownKey { key: learned.key, first: day, last: day, hours: 1, flags: learned.flags };
        self.known.truncate(old);
        self.known.extend(added[..new].iter().map(entry));
        for (before, learned) in added[..new].iter().enumerate().rev() {
            let larger = self.known[..old].iter().rev().take_while(|known| known.key > learned.key).count();
            self.known.copy_within(old - larger..old, old - larger + before + 1);
            old -= larger;
            self.known[old + before] = entry(learned);
            delta.key(space, learned.key, 1);
        }
        new
    }

    fn forget(&mut self, day: u16, delta: &mut FleetDelta) {
        let gone = |k: &KnownKey| day > k.last.saturating_add(FORGET_DAYS);
        if !self.known.iter().any(gone) {
            return;
        }
        for key in self.known.iter().filter(|k| gone(k)) {
            // The fleet's counts do not tell spaces apart: keys are hashed with theirs.
            delta.key(Space::Peer, key.key, -1);
        }
        self.known.retain(|k| !gone(k));
        let known = &self.known;
        self.names.retain(|(key, _)| find(known, *key).is_ok());
    }

    /// Takes everything this entity knows out of the fleet's counts, when the entity itself is forgotten.
    pub fn leave(&self, delta: &mut FleetDelta) {
        for key in &self.known {
            delta.key(Space::Peer, key.key, -1);
        }
    }
}

/// Of several that are learned under one key the name that people see, the last by its text.
fn best_name(same: &[Learned], shown: &dyn Fn(u32) -> String) -> u32 {
    match same {
        [one] => one.name,
        _ => same.iter().map(|l| l.name).filter(|name| *name != NAMELESS).max_by_key(|name| shown(*name)).unwrap_or(NAMELESS),
    }
}

/// Keeps the name of a key last seen on `day` if it is among the most recently seen; `named` tells of each name the day it
/// was last seen on. False if it is not: then no smaller key of that day is.
fn keep_name(names: &mut Vec<(u64, Box<str>)>, named: &mut Vec<u16>, key: u64, day: u16, name: impl FnOnce() -> String) -> bool {
    if names.binary_search_by_key(&key, |n| n.0).is_ok() {
        return true;
    }
    if names.len() >= NAMES_MAX {
        let oldest = (0..names.len()).min_by_key(|at| (named[*at], names[*at].0));
        match oldest {
            Some(at) if (named[at], names[at].0) < (day, key) => {
                names.remove(at);
                named.remove(at);
            }
            _ => return false,
        }
    }
    if let Err(at) = names.binary_search_by_key(&key, |n| n.0) {
        let mut name = name();
        if let Some((end, _)) = name.char_indices().nth(NAME_CHARS_MAX) {
            name.truncate(end);
        }
        names.insert(at, (key, name.into()));
        named.insert(at, day);
    }
    true
}

/// How unlikely an hour with something new is, and where the number comes from.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct NoveltyOdds {
    /// Chance of an hour with at least so many new keys.
    pub p: f64,
    /// The fleet is too small to ask: the entity's own history was.
    pub small_fleet: bool,
    /// The entity's own numbers.
    pub rates: Rates,
    /// Active hours of the fleet that the chance rests on, 0 for a small fleet.
    pub fleet_hours: f64,
}

impl NoveltyOdds {
    /// Chance of an hour with `new` new keys for an entity of these rates (detectors.md 0.3).
    #[must_use]
    pub fn of(rates: Rates, deployed: bool, space: Space, new: usize, fleet: &FleetView<'_>) -> Self {
        let (novel, active) = fleet.class(space, rates.class(deployed));
        let small = fleet.entities(space) < 200 || active < 2000.0;
        let one = if small { (rates.r + 0.5) / (rates.t + 1.0) } else { (novel + 0.5) / (active + 500.0) };
        let share = if new > 1 { fleet.share_with_at_least(space, new) } else { 1.0 };
        Self { p: (one * share).min(1.0), small_fleet: small, rates, fleet_hours: if small { 0.0 } else { active } }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learned(keys: &[u64]) -> Vec<Learned> {
        keys.iter().map(|k| Learned { key: *k, flags: 0, name: (k % 1000) as u32 }).collect()
    }

    fn name(of: u32) -> String {
        format!("k{of}")
    }

    #[test]
    fn keys_are_known_until_thirty_days_after_they_were_last_seen() {
        let (mut novelty, mut delta) = (Novelty::default(), FleetDelta::default());
        novelty.learn(Space::Peer, Hour(24_000), learned(&[7, 9]), &name, 2, &mut delta);
        assert!(novelty.knows(7, Day(1030)) && !novelty.knows(7, Day(1031)) && !novelty.knows(8, Day(1000)));
        novelty.learn(Space::Peer, Hour(24_000 + 20 * 24), learned(&[9]), &name, 0, &mut delta);
        novelty.learn(Space::Peer, Hour(24_000 + 32 * 24), learned(&[]), &name, 0, &mut delta);
        assert_eq!(novelty.len(Day(1032)), 1);
        assert_eq!(novelty.named(Day(1032)).len(), 1);
        assert_eq!((delta.count_of(7), delta.count_of(9)), (0, 1));
    }

    #[test]
    fn rates_halve_in_thirty_days() {
        let mut novelty = Novelty::default();
        novelty.learn(Space::Peer, Hour(0), learned(&[1]), &name, 1, &mut FleetDelta::default());
        let later = novelty.rates(Hour(720));
        assert!((later.t - 0.5).abs() < 1e-4 && (later.r - 0.5).abs() < 1e-4);
        assert_ne!(Rates { t: 100.0, r: 0.0 }.class(false), Rates { t: 100.0, r: 0.0 }.class(true));
        assert!(Rates { t: 1e9, r: 1e9 }.class(true) < CLASSES);
    }

    #[test]
    fn a_small_fleet_asks_the_entity_itself() {
        let fleet = crate::fleet::Fleet::default();
        let odds = NoveltyOdds::of(Rates { t: 399.0, r: 0.0 }, false, Space::Peer, 1, &fleet.view(Day(0)));
        assert!(odds.small_fleet && (odds.p - 0.5 / 400.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn a_key_is_found_where_halving_finds_it(mut keys in prop::collection::vec(any::<u64>(), 0..600), near in prop::collection::vec(0u64..40, 0..40), asked in any::<u64>()) {
            // Also what is not spread evenly, and the ends.
            keys.extend(near.iter().map(|n| n * n));
            keys.push(u64::MAX - 1);
            let rest = keys.split_off(keys.len() / 2);
            for mut some in [Vec::new(), keys, rest] {
                some.sort_unstable();
                some.dedup();
                let known: Vec<KnownKey> = some.iter().map(|key| KnownKey { key: *key, first: 0, last: 9, hours: 0, flags: 0 }).collect();
                let (index, too_late) = (KnownIndex::new(&known, Day(9)), KnownIndex::new(&known, Day(40)));
                for key in some.iter().copied().chain([asked, 0, 1, 9, u64::MAX, asked % 1600]) {
                    prop_assert_eq!(index.place(key).map(|p| p.0), some.binary_search(&key).ok());
                    prop_assert!(index.place(key).is_none_or(|p| p.1.key == key) && !too_late.knows(key));
                }
            }
        }

        #[test]
        fn a_key_of_an_address_is_that_of_its_bytes(ip in any::<u128>(), level in any::<u8>(), more in any::<[u8; 12]>()) {
            let of_bytes = |more: &[u8]| key_of_bytes(Space::Port, level, &ip.to_be_bytes(), more);
            prop_assert_eq!(key_of_ip(Space::Port, level, Ip(ip), []), of_bytes(&[]));
            prop_assert_eq!(key_of_ip(Space::Port, level, Ip(ip), [more[0], more[1], more[2]]), of_bytes(&more[..3]));
            prop_assert_eq!(key_of_ip(Space::Port, level, Ip(ip), more), of_bytes(&more));
        }

        #[test]
        fn the_smallest_hashes_stay_and_the_fleet_counts_what_is_known(keys in prop::collection::btree_set(any::<u64>(), 0..1500)) {
            let keys: Vec<u64> = keys.into_iter().collect();
            let (mut novelty, mut delta) = (Novelty::default(), FleetDelta::default());
            for part in keys.chunks(400) {
                novelty.learn(Space::Peer, Hour(0), learned(part), &name, 1, &mut delta);
            }
            let kept = keys.len().min(KNOWN_MAX);
            prop_assert!(keys[..kept].iter().all(|k| novelty.knows(*k, Day(0)) && delta.count_of(*k) == 1));
            prop_assert!(keys[kept..].iter().all(|k| !novelty.knows(*k, Day(0)) && delta.count_of(*k) == 0));
            prop_assert_eq!(novelty.is_dynamic(Day(0)), keys.len() > KNOWN_MAX);
            let bytes = postcard::to_stdvec(&novelty).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Novelty>(&bytes).unwrap(), novelty);
        }
    }
}
