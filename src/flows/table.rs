//! Where pairs and addresses are found: one probe, and mostly one cache line, for each question.

use std::hash::{BuildHasher, Hash};

use flowtrail_ingest::prefetch::prefetch;
use hashbrown::DefaultHashBuilder;

/// A value that can say that it is none.
pub(super) trait Vacant: Copy {
    const VACANT: Self;
    fn is_vacant(&self) -> bool;
}

/// A hash table that is emptied as a whole. At most half full, so that the next place is free after a step or two.
pub(super) struct Table<K, V> {
    places: Vec<(K, V)>,
    len: usize,
    // Seeded at random: addresses are chosen by strangers.
    hasher: DefaultHashBuilder,
}

const PLACES_MIN: usize = 1 << 10;

impl<K: Copy + Default + Eq + Hash, V: Vacant> Default for Table<K, V> {
    fn default() -> Self {
        Self { places: vec![(K::default(), V::VACANT); PLACES_MIN], len: 0, hasher: DefaultHashBuilder::default() }
    }
}

impl<K: Copy + Default + Eq + Hash, V: Vacant> Table<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Forgets everything, and keeps room for as much.
    pub(super) fn clear(&mut self) {
        let places = (2 * self.len).next_power_of_two().max(PLACES_MIN);
        self.places.truncate(places);
        self.places.fill((K::default(), V::VACANT));
        self.len = 0;
    }

    /// Asks for the memory of a key that will be looked for soon. The answer holds until the next [`Self::insert`].
    #[inline]
    pub(super) fn seek(&self, key: K) -> u64 {
        let hash = self.hasher.hash_one(key);
        prefetch(&self.places, self.first(hash));
        hash
    }

    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.get_at(self.hasher.hash_one(key), key)
    }

    /// With the answer of [`Self::seek`].
    #[inline]
    pub(super) fn get_at(&self, hash: u64, key: K) -> Option<&V> {
        let (_, value) = &self.places[self.place(hash, key)];
        (!value.is_vacant()).then_some(value)
    }

    /// Adds a value, or puts it into the place of the one with the same key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if 2 * self.len >= self.places.len() {
            let more = vec![(K::default(), V::VACANT); 2 * self.places.len()];
            for (key, value) in std::mem::replace(&mut self.places, more) {
                if !value.is_vacant() {
                    let place = self.place(self.hasher.hash_one(key), key);
                    self.places[place] = (key, value);
                }
            }
        }
        let place = self.place(self.hasher.hash_one(key), key);
        self.len += usize::from(self.places[place].1.is_vacant());
        self.places[place] = (key, value);
    }

    fn first(&self, hash: u64) -> usize {
        hash as usize & (self.places.len() - 1)
    }

    /// Where the key stands, or would.
    #[inline]
    fn place(&self, hash: u64, key: K) -> usize {
        let mut at = self.first(hash);
        while !self.places[at].1.is_vacant() && self.places[at].0 != key {
            at = (at + 1) & (self.places.len() - 1);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    impl Vacant for u16 {
        const VACANT: Self = Self::MAX;
        fn is_vacant(&self) -> bool {
            *self == Self::MAX
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_map_finds(units in proptest::collection::vec(proptest::collection::vec((0u64..4000, 0u64..2, 0..u16::MAX), 0..4000), 1..4)) {
            let mut table = Table::default();
            for pairs in units {
                let mut map = HashMap::new();
                for (ends, rest, number) in pairs {
                    let key = (ends << 32 | 7, rest);
                    prop_assert_eq!(table.get(key), map.get(&key));
                    table.insert(key, number);
                    map.insert(key, number);
                    prop_assert_eq!(table.len(), map.len());
                }
                for (key, number) in &map {
                    prop_assert_eq!(table.get_at(table.seek(*key), *key), Some(number));
                }
                table.clear();
                prop_assert!(map.keys().all(|key| table.get(*key).is_none()));
            }
        }
    }
}
