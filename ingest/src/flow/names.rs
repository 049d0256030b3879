//! The dictionaries of one unit while they grow.

use hashbrown::HashTable;
use twox_hash::XxHash3_64;

use super::batch::{ABSENT, Names};

/// Finds names in [`Names`] by hash. Kept beside it, so that what consumers see stays two plain lists.
#[derive(Default)]
pub(crate) struct NameIndex {
    interfaces: HashTable<u32>,
    accounts: HashTable<u32>,
}

/// [`Names`] with its index: gives every name a number, the same for the same name.
pub(crate) struct Interner<'a> {
    pub names: &'a mut Names,
    pub index: &'a mut NameIndex,
}

impl Interner<'_> {
    pub(crate) fn interface(&mut self, name: Option<&str>) -> u32 {
        name.map_or(ABSENT, |name| intern(&mut self.names.interfaces, &mut self.index.interfaces, name))
    }

    pub(crate) fn account(&mut self, name: Option<&str>) -> u32 {
        name.map_or(ABSENT, |name| intern(&mut self.names.accounts, &mut self.index.accounts, name))
    }
}

fn intern(list: &mut Vec<Box<str>>, table: &mut HashTable<u32>, name: &str) -> u32 {
    let hash = |name: &str| XxHash3_64::oneshot(name.as_bytes());
    // Another reader of the same unit may have added names.
    if table.len() != list.len() {
        table.clear();
        for (at, name) in list.iter().enumerate() {
            table.insert_unique(hash(name), at as u32, |i| hash(list.get(*i as usize).map_or("", |n| n)));
        }
    }
    let wanted = hash(name);
    if let Some(found) = table.find(wanted, |i| list.get(*i as usize).is_some_and(|n| **n == *name)) {
        return *found;
    }
    let number = list.len() as u32;
    list.push(name.into());
    table.insert_unique(wanted, number, |i| hash(list.get(*i as usize).map_or("", |n| n)));
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let (mut names, mut index) = (Names::default(), NameIndex::default());
        let mut interner = Interner { names: &mut names, index: &mut index };
        assert_eq!([Some("b"), Some("a"), None, Some("b")].map(|n| interner.interface(n)), [0, 1, ABSENT, 0]);
        interner.names.interfaces.push("c".into());
        assert_eq!(["c", "a", "d"].map(|n| interner.interface(Some(n))), [2, 1, 3]);
    }
}
