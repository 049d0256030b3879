//! The entries of all threat lists by address: ten million single addresses take some 80 MB.

use flowtrail_ingest::{EventTime, Ip};
use hashbrown::HashMap;

use super::ListHit;
use super::list::Says;
use super::range::shown;
use super::sweep::sweep;

/// What an entry says, shared by all entries that say the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tag {
    list: u32,
    category: Box<str>,
    confidence_milli: u32,
    valid_from: Option<EventTime>,
    valid_to: Option<EventTime>,
}

/// An entry that shares its addresses with others, or that was cut.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    tag: u32,
    first: Ip,
    last: Ip,
}

/// Set in a payload that is the number of a set of entries; else it is a tag, and the segment is the entry's range.
const SET: u32 = 1 << 31;

/// Segments by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    tags: Vec<Tag>,
    sets: Vec<Vec<Entry>>,
    /// For each upper half of an IPv4 address, where its segments begin; one more at the end.
    upper: Vec<u32>,
    /// Lower halves of first and last address. Segments do not cross upper halves.
    lower: Vec<(u16, u16)>,
    payload: Vec<u32>,
    v6: Vec<(u128, u128, u32)>,
}

/// Gathers entries.
#[derive(Debug, Default)]
pub(super) struct Builder {
    tags: Vec<Tag>,
    numbers: HashMap<Tag, u32>,
    v4: Vec<(u32, u32, u32)>,
    v6: Vec<(u128, u128, u32)>,
}

impl Builder {
    /// Adds an entry of list number `list`.
    pub(super) fn add(&mut self, list: u32, first: Ip, last: Ip, says: &Says<'_>) {
        let tag = Tag {
            list,
            category: says.category.as_ref().into(),
            confidence_milli: says.confidence_milli,
            valid_from: says.valid_from,
            valid_to: says.valid_to,
        };
        let number = match self.numbers.get(&tag) {
            Some(number) => *number,
            None => {
                let number = self.tags.len() as u32;
                self.tags.push(tag.clone());
                self.numbers.insert(tag, number);
                number
            }
        };
        match (first.as_v4(), last.as_v4()) {
            (Some(first), Some(last)) => self.v4.push((first, last, number)),
            _ => self.v6.push((first.0, last.0, number)),
        }
    }

    pub(super) fn build(mut self) -> Index {
        self.v4.sort_unstable();
        self.v4.dedup();
        self.v6.sort_unstable();
        self.v6.dedup();
        drop(self.numbers);
        let mut index = Index { tags: self.tags, ..Index::default() };
        let mut sets = Sets::default();
        if !self.v4.is_empty() {
            index.lower.reserve_exact(self.v4.len());
            index.payload.reserve_exact(self.v4.len());
            index.upper.push(0);
        }
        sweep(&self.v4, |first, last, over| {
            let whole = |n: &usize| self.v4.get(*n).map(|(a, b, tag)| Entry { tag: *tag, first: Ip::v4(*a), last: Ip::v4(*b) });
            let one = match over {
                [n] => self.v4.get(*n).filter(|(a, b, _)| (*a, *b) == (first, last) && first >> 16 == last >> 16).map(|(_, _, tag)| *tag),
                _ => None,
            };
            let payload = one.unwrap_or_else(|| sets.number(over.iter().filter_map(whole).collect()));
            for upper in first >> 16..=last >> 16 {
                while index.upper.len() <= upper as usize {
                    index.upper.push(index.lower.len() as u32);
                }
                let from = first.max(upper << 16) as u16;
                let to = last.min(upper << 16 | 0xffff) as u16;
                index.lower.push((from, to));
                index.payload.push(payload);
            }
        });
        while !index.upper.is_empty() && index.upper.len() <= 1 << 16 {
            index.upper.push(index.lower.len() as u32);
        }
        sweep(&self.v6, |first, last, over| {
            let entries = over.iter().filter_map(|n| self.v6.get(*n)).map(|(a, b, tag)| Entry { tag: *tag, first: Ip(*a), last: Ip(*b) });
            let payload = sets.number(entries.collect());
            index.v6.push((first, last, payload));
        });
        index.sets = sets.list;
        index
    }
}

#[derive(Default)]
struct Sets {
    list: Vec<Vec<Entry>>,
    numbers: HashMap<Vec<Entry>, u32>,
}

impl Sets {
    fn number(&mut self, entries: Vec<Entry>) -> u32 {
        if let Some(number) = self.numbers.get(&entries) {
            return *number;
        }
        let number = SET | self.list.len() as u32;
        self.list.push(entries.clone());
        self.numbers.insert(entries, number);
        number
    }
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.lower.is_empty() && self.v6.is_empty()
    }

    /// Calls `take` with every entry over `ip`.
    pub(super) fn at(
        &self,
        ip: Ip,
        lists: &[String],
        mut keep: impl FnMut(&Option<EventTime>, &Option<EventTime>) -> bool,
    ) -> Vec<ListHit> {
        let found = match ip.as_v4() {
            Some(v4) => self.v4(v4),
            None => {
                let after = self.v6.partition_point(|(first, _, _)| *first <= ip.0);
                after.checked_sub(1).and_then(|n| self.v6.get(n)).filter(|(_, last, _)| ip.0 <= *last).map(|s| (s.2, ip, ip))
            }
        };
        let Some((payload, first, last)) = found else { return Vec::new() };
        let single = [Entry { tag: payload, first, last }];
        let entries: &[Entry] =
            if payload & SET == 0 { &single } else { self.sets.get((payload & !SET) as usize).map(Vec::as_slice).unwrap_or_default() };
        let mut hits: Vec<ListHit> = Vec::new();
        for entry in entries {
            let Some(tag) = self.tags.get(entry.tag as usize) else { continue };
            if !keep(&tag.valid_from, &tag.valid_to) {
                continue;
            }
            hits.push(ListHit {
                list: lists.get(tag.list as usize).cloned().unwrap_or_default(),
                category: tag.category.to_string(),
                confidence_milli: tag.confidence_milli,
                range: shown(entry.first, entry.last),
                valid_from: tag.valid_from,
                valid_to: tag.valid_to,
            });
        }
        hits.sort_by(|a, b| {
            (&a.list, &a.range, &a.category, a.valid_from, a.valid_to, a.confidence_milli).cmp(&(
                &b.list,
                &b.range,
                &b.category,
                b.valid_from,
                b.valid_to,
                b.confidence_milli,
            ))
        });
        hits
    }

    /// The payload over an address and the ends of its segment.
    fn v4(&self, ip: u32) -> Option<(u32, Ip, Ip)> {
        let (upper, lower) = (ip >> 16, ip as u16);
        let start = *self.upper.get(upper as usize)? as usize;
        let end = *self.upper.get(upper as usize + 1)? as usize;
        let segments = self.lower.get(start..end)?;
        let at = segments.partition_point(|(first, _)| *first <= lower).checked_sub(1)?;
        let (first, last) = *segments.get(at)?;
        let whole = |half: u16| Ip::v4(upper << 16 | u32::from(half));
        (lower <= last).then_some(())?;
        Some((*self.payload.get(start + at)?, whole(first), whole(last)))
    }
}
