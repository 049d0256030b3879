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
        let notes = self.notes.chunk_by(|a, b| a.0 == b.0).map(|same| (same[0].0, total(same.iter().map(|n| n.1))));
        let mut keys = Vec::with_capacity(self.keys.len() + self.notes.len());
        let mut counts = Vec::with_capacity(keys.capacity());
        let mut push = |key: u64, count: i32| {
            if count != 0 {
                keys.push(key);
                counts.push(count);
            }
        };
        let mut at = 0;
        for (key, by) in notes {
            let smaller = self.keys[at..].iter().take_while(|k| **k < key).count();
            self.keys[at..at + smaller].iter().zip(&self.counts[at..]).for_each(|(key, count)| push(*key, *count));
            at += smaller;
            let mut count = i64::from(by);
            if self.keys.get(at) == Some(&key) {
                count += i64::from(self.counts[at]);
                at += 1;
            }
            push(key, within(count));
        }
        self.keys[at..].iter().zip(&self.counts[at..]).for_each(|(key, count)| push(*key, *count));
        self.notes.clear();
        (self.keys, self.counts) = (keys, counts);
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
