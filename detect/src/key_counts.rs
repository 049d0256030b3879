//! How many entities know each key: sums by key, for millions of keys.
//!
//! Keys are hashes, so each lands anywhere. What is added is therefore only noted, and now and then sorted and merged into the
//! sums: a few sequential passes instead of a random access a key.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// Notes are merged into the sums when they are as many as these, and at least this many.
const NOTES_MIN: usize = 1 << 10;
/// What is set aside for sums before they are read, at most: a length in a damaged file is no reason for more.
const AHEAD_MAX: usize = 1 << 12;

/// Sums by key; a key whose sum is zero is not there.
#[derive(Clone, Debug, Default)]
pub struct KeyCounts {
    /// Sorted.
    keys: Vec<u64>,
    /// Of the key at the same place.
    counts: Vec<i32>,
    /// Not yet in the sums, in any order.
    notes: Vec<(u64, i32)>,
}

impl KeyCounts {
    /// Adds to a key's sum, which stays within 32 bits.
    #[inline]
    pub fn add(&mut self, key: u64, by: i32) {
        if self.notes.len() >= self.keys.len().max(NOTES_MIN) {
            self.settle();
        }
        self.notes.push((key, by));
    }

    /// Adds all of another's sums.
    pub fn merge(&mut self, other: &Self) {
        other.keys.iter().zip(&other.counts).for_each(|(key, count)| self.add(*key, *count));
        other.notes.iter().for_each(|(key, by)| self.add(*key, *by));
    }

    /// Merges what was noted into the sums: they answer fast then.
    pub fn settle(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        self.notes.sort_unstable_by_key(|n| n.0);
        self.add_to_known();
        self.take_in_new();
        self.notes.clear();
        if self.counts.contains(&0) {
            let mut kept = 0;
            for at in 0..self.keys.len() {
                if self.counts[at] != 0 {
                    (self.keys[kept], self.counts[kept]) = (self.keys[at], self.counts[at]);
                    kept += 1;
                }
            }
            self.keys.truncate(kept);
            self.counts.truncate(kept);
        }
    }

    /// Adds sorted notes to the sums of their keys; those of keys without one stay, one of each.
    fn add_to_known(&mut self) {
        let (mut next, mut left, mut at) = (0, 0, 0);
        while let Some(&(key, _)) = self.notes.get(next) {
            let same = self.notes[next..].iter().take_while(|n| n.0 == key);
            let (many, by) = (same.clone().count(), total(same.map(|n| n.1)));
            next += many;
            at += self.keys[at..].iter().take_while(|k| **k < key).count();
            if self.keys.get(at) == Some(&key) {
                self.counts[at] = within(i64::from(self.counts[at]) + i64::from(by));
            } else {
                self.notes[left] = (key, by);
                left += 1;
            }
        }
        self.notes.truncate(left);
    }

    /// Merges sorted notes of new keys into the sums from behind: each place is free before it is filled, and no second copy
    /// of all sums is needed.
    fn take_in_new(&mut self) {
        let mut old = self.keys.len();
        let all = old + self.notes.len();
        self.keys.reserve_exact(self.notes.len());
        self.counts.reserve_exact(self.notes.len());
        self.keys.resize(all, 0);
        self.counts.resize(all, 0);
        for (before, &(key, by)) in self.notes.iter().enumerate().rev() {
            while let Some(last) = old.checked_sub(1).filter(|last| self.keys[*last] > key) {
                (self.keys[last + before + 1], self.counts[last + before + 1]) = (self.keys[last], self.counts[last]);
                old = last;
            }
            (self.keys[old + before], self.counts[old + before]) = (key, by);
        }
    }

    /// A key's sum.
    #[must_use]
    pub fn get(&self, key: u64) -> i32 {
        let settled = self.keys.binary_search(&key).map_or(0, |at| self.counts[at]);
        if self.notes.is_empty() {
            return settled;
        }
        let noted = self.notes.iter().filter(|n| n.0 == key).map(|n| n.1);
        within(i64::from(settled) + i64::from(total(noted)))
    }

    fn settled<T>(&self, ask: impl FnOnce(&Self) -> T) -> T {
        if self.notes.is_empty() {
            return ask(self);
        }
        let mut settled = self.clone();
        settled.settle();
        ask(&settled)
    }
}

fn within(sum: i64) -> i32 {
    sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

fn total(all: impl Iterator<Item = i32>) -> i32 {
    within(all.map(i64::from).sum())
}

impl PartialEq for KeyCounts {
    fn eq(&self, other: &Self) -> bool {
        self.settled(|a| other.settled(|b| a.keys == b.keys && a.counts == b.counts))
    }
}

impl Eq for KeyCounts {}

/// As a map, by key: equal sums make equal bytes.
impl Serialize for KeyCounts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.settled(|sums| to.collect_map(sums.keys.iter().zip(&sums.counts)))
    }
}

impl<'de> Deserialize<'de> for KeyCounts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Sums;
        impl<'de> Visitor<'de> for Sums {
            type Value = KeyCounts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of sums")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeyCounts, A::Error> {
                let mut sums = KeyCounts::default();
                let ahead = map.size_hint().unwrap_or(0).min(AHEAD_MAX);
                sums.keys.reserve(ahead);
                sums.counts.reserve(ahead);
                while let Some((key, count)) = map.next_entry()? {
                    // In order they are the sums; what is not is no less welcome.
                    if count != 0 && sums.keys.last().is_none_or(|last| *last < key) {
                        sums.keys.push(key);
                        sums.counts.push(count);
                    } else {
                        sums.notes.push((key, count));
                    }
                }
                sums.settle();
                sums.keys.shrink_to_fit();
                sums.counts.shrink_to_fit();
                Ok(sums)
            }
        }
        from.deserialize_map(Sums)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_those_of_a_map(added in prop::collection::vec((0u64..3000, -2i32..3), 0..6000), cut in 0usize..6000, asked in 0usize..6000) {
            let mut map: BTreeMap<u64, i32> = BTreeMap::new();
            let (mut sums, mut first) = (KeyCounts::default(), KeyCounts::default());
            for (at, (key, by)) in added.iter().enumerate() {
                *map.entry(*key).or_default() += by;
                if at < cut { first.add(*key, *by) } else { sums.add(*key, *by) }
                if at == asked {
                    sums.settle();
                }
            }
            sums.merge(&first);
            map.retain(|_, count| *count != 0);
            prop_assert_eq!(sums == KeyCounts::default(), map.is_empty());
            for key in 0..3000 {
                prop_assert_eq!(sums.get(key), map.get(&key).copied().unwrap_or(0));
            }
            let bytes = postcard::to_stdvec(&sums).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_stdvec(&map).unwrap());
            let read: KeyCounts = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&read, &sums);
            sums.settle();
            prop_assert_eq!(&read, &sums);
            sums.add(7, 1);
            prop_assert_ne!(&read, &sums);
        }
    }

    #[test]
    fn what_does_not_come_in_order_is_summed() {
        let read: KeyCounts =
            postcard::from_bytes(&postcard::to_stdvec(&[(5u64, 1i32), (3, 2), (5, 3), (9, 0)].to_vec()).unwrap()).unwrap();
        assert_eq!([3, 5, 9].map(|key| read.get(key)), [2, 4, 0]);
        assert!(postcard::from_bytes::<KeyCounts>(&postcard::to_stdvec(&u64::MAX).unwrap()).is_err());
    }

    #[test]
    fn sums_stay_within_their_bounds() {
        let mut sums = KeyCounts::default();
        for _ in 0..3 {
            sums.add(1, i32::MAX);
            sums.settle();
        }
        assert_eq!(sums.get(1), i32::MAX);
    }
}
