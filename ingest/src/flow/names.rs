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

    /// Account and interface of a record. `None`, and nothing is added, if one of them is no text. What equals a known name is
    /// text, so that only new ones are looked at.
    pub(super) fn both(&mut self, account: Option<&[u8]>, interface: Option<&[u8]>) -> Option<(u32, u32)> {
        let Self { names, index } = self;
        let known_account = account.map_or(Some(ABSENT), |name| find(&names.accounts, &mut index.accounts, name));
        let known_interface = interface.map_or(Some(ABSENT), |name| find(&names.interfaces, &mut index.interfaces, name));
        if let (Some(account), Some(interface)) = (known_account, known_interface) {
            return Some((account, interface));
        }
        let text = |name: Option<&'_ [u8]>| name.map(|n| std::str::from_utf8(n).map(str::to_owned)).transpose().ok();
        let (account, interface) = (text(account)?, text(interface)?);
        Some((self.account(account.as_deref()), self.interface(interface.as_deref())))
    }
}

fn hash(name: &[u8]) -> u64 {
    XxHash3_64::oneshot(name)
}

fn at(list: &[Box<str>], number: u32) -> &[u8] {
    list.get(number as usize).map_or(b"", |name| name.as_bytes())
}

/// The number of a name, if it has one.
#[inline]
fn find(list: &[Box<str>], index: &mut Dictionary, name: &[u8]) -> Option<u32> {
    if !name.is_empty() && at(list, index.last) == name {
        return Some(index.last);
    }
    // Another reader of the same unit may have added names.
    if index.table.len() != list.len() {
        index.table.clear();
        for number in 0..list.len() as u32 {
            index.table.insert_unique(hash(at(list, number)), number, |n| hash(at(list, *n)));
        }
    }
    let found = *index.table.find(hash(name), |n| at(list, *n) == name)?;
    index.last = found;
    Some(found)
}

fn intern(list: &mut Vec<Box<str>>, index: &mut Dictionary, name: &str) -> u32 {
    find(list, index, name.as_bytes()).unwrap_or_else(|| {
        let number = list.len() as u32;
        list.push(name.into());
        index.table.insert_unique(hash(name.as_bytes()), number, |n| hash(at(list, *n)));
        index.last = number;
        number
    })
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
        // What is no text leaves nothing behind, be it account or interface.
        assert_eq!((interner.both(Some(b"1"), Some(b"\xff")), interner.both(Some(b"\xff"), Some(b"e"))), (None, None));
        assert_eq!((interner.both(Some(b"2"), Some(b"")), interner.both(None, Some(b"d"))), (Some((0, 4)), Some((ABSENT, 3))));
        assert_eq!(interner.names.accounts, ["2"].map(Box::from));
        assert_eq!(interner.names.interfaces, ["b", "a", "c", "d", ""].map(Box::from));
    }
}
