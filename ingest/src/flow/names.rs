//! The dictionaries of one unit while they grow.

use hashbrown::HashTable;
use twox_hash::XxHash3_64;

use super::batch::{ABSENT, Names};

/// Finds names in [`Names`] by hash. Kept beside it, so that what consumers see stays two plain lists.
#[derive(Default)]
pub(crate) struct NameIndex {
    interfaces: Dictionary,
    accounts: Dictionary,
}

#[derive(Default)]
struct Dictionary {
    table: HashTable<u32>,
    /// What was asked for last; neighbouring records mostly have the same names.
    last: u32,
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

fn intern(list: &mut Vec<Box<str>>, index: &mut Dictionary, name: &str) -> u32 {
    let at = |number: u32| list.get(number as usize).map_or("", |n| &**n);
    if !name.is_empty() && at(index.last) == name {
        return index.last;
    }
    let hash = |name: &str| XxHash3_64::oneshot(name.as_bytes());
    let Dictionary { table, last } = index;
    // Another reader of the same unit may have added names.
    if table.len() != list.len() {
        table.clear();
        for number in 0..list.len() as u32 {
            table.insert_unique(hash(at(number)), number, |n| hash(at(*n)));
        }
    }
    let wanted = hash(name);
    *last = match table.find(wanted, |n| at(*n) == name) {
        Some(found) => *found,
        None => {
            let number = list.len() as u32;
            table.insert_unique(wanted, number, |n| hash(at(*n)));
            list.push(name.into());
            number
        }
    };
    *last
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
