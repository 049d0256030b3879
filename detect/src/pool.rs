//! Distinct values, numbered in order of first sight.

use std::hash::{BuildHasher as _, Hash};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

#[derive(Debug)]
pub(crate) struct Pool<T> {
    /// By number.
    pub items: Vec<T>,
    /// Indices of `items`, by hash.
    of: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { items: Vec::new(), of: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<T: Copy + Eq + Hash> Pool<T> {
    /// The number of a value, given if it has none.
    pub fn index(&mut self, value: T) -> u32 {
        let Self { items, of, hasher } = self;
        match of.entry(hasher.hash_one(value), |at| items[*at as usize] == value, |at| hasher.hash_one(items[*at as usize])) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let index = items.len() as u32;
                free.insert(index);
                items.push(value);
                index
            }
        }
    }

    /// Takes all values out.
    pub fn take(&mut self) -> Vec<T> {
        self.of.clear();
        std::mem::take(&mut self.items)
    }

    /// The place of each value among all, sorted.
    pub fn ranks(&self) -> Vec<u32>
    where
        T: Ord,
    {
        let mut order: Vec<u32> = (0..self.items.len() as u32).collect();
        order.sort_unstable_by_key(|i| self.items[*i as usize]);
        let mut ranks = vec![0; order.len()];
        for (rank, index) in order.iter().enumerate() {
            ranks[*index as usize] = rank as u32;
        }
        ranks
    }
}
