//! API calls on their way into a block, and out of it.
//!
//! A call is its own by identity, time and place. Who made it and what was done it has in common with many others: that is
//! kept once per block, so that a call takes some 40 bytes and is written when it comes. Who and what are kept apart, as
//! there are few of either and many of both: what is looked up for each call stays in the processor's cache.
//!
//! Layout in a block, integers LEB128 unless said: the number of calls; if there are any, the units they come from (count,
//! numbers in the block's list), odd event ids (count, numbers of texts), who (count, then five texts each, 0 for none,
//! else the number + 1), what (count, then marks as two bytes and seven texts each), for each call in the order they came
//! the number of its who and of its what; then all else of each: id as 16 bytes, seconds since the hour began, event id (0
//! none, 1 and 16 bytes, else the number among the odd ones + 2), unit, position.

use std::hash::{Hash, Hasher};

use flowtrail_ingest::leb128::put;
use flowtrail_ingest::{EventTime, Hour};
use hashbrown::HashMap;

use crate::block::Reader;
use crate::event_id::EventId;
use crate::hour::{ApiRow, NONE, call_marks};
use crate::pool::Pool;

/// Who made a call, and from where; texts as in [`ApiRow`].
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Who {
    texts: [u32; 5],
}

/// What was done.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct What {
    texts: [u32; 7],
    marks: u16,
}

impl Who {
    fn of(row: &ApiRow) -> Self {
        Self { texts: [row.principal, row.function, row.region, row.source, row.access_key] }
    }

    fn set(self, row: &mut ApiRow) {
        [row.principal, row.function, row.region, row.source, row.access_key] = self.texts;
    }
}

impl What {
    fn of(row: &ApiRow) -> Self {
        Self { texts: [row.service, row.action, row.error, row.step, row.target, row.detail, row.replaces], marks: row.marks }
    }

    fn set(self, row: &mut ApiRow) {
        [row.service, row.action, row.error, row.step, row.target, row.detail, row.replaces] = self.texts;
        row.marks = self.marks;
    }
}

// Hashed as whole words, which is quicker than as slices.
impl Hash for Who {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e] = self.texts.map(u64::from);
        [a << 32 | b, c << 32 | d, e].into_iter().for_each(|word| state.write_u64(word));
    }
}

impl Hash for What {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g] = self.texts.map(u64::from);
        [a << 32 | b, c << 32 | d, e << 32 | f, g << 16 | u64::from(self.marks)].into_iter().for_each(|word| state.write_u64(word));
    }
}

/// All there is of who and what, to be pointed into.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    who: Vec<Who>,
    what: Vec<What>,
}

/// The calls of one account and hour.
#[derive(Debug, Default)]
pub(crate) struct CallGroup {
    /// Account and hour.
    pub key: (u32, i32),
    /// Of each call, by number in [`Forms`].
    who_and_what: Vec<(u32, u32)>,
    /// By number in the writer's dictionary: the units they come from, and event ids that are no UUID.
    units: Vec<u32>,
    odd_ids: Vec<u32>,
    /// All else of each call, encoded.
    bytes: Vec<u8>,
}

/// All calls of a writer.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    groups: Vec<CallGroup>,
    group_of: HashMap<(u32, i32), usize>,
    /// The group that the last call was added to.
    recent: usize,
    who: Pool<Who>,
    what: Pool<What>,
    held: usize,
}

impl Calls {
    /// Calls that were added.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Adds a call of an account.
    pub(crate) fn add(&mut self, account: u32, row: &ApiRow) {
        let hour = row.time.hour();
        let key = (account, hour.0);
        if self.groups.get(self.recent).is_none_or(|recent| recent.key != key) {
            self.recent = *self.group_of.entry(key).or_insert_with(|| {
                self.groups.push(CallGroup { key, ..CallGroup::default() });
                self.groups.len() - 1
            });
        }
        let who_and_what = (self.who.index(Who::of(row)), self.what.index(What::of(row)));
        self.groups[self.recent].add(who_and_what, hour, row);
        self.held += 1;
    }

    /// Takes all groups out, and what they point into.
    pub(crate) fn take(&mut self) -> (Vec<CallGroup>, Forms) {
        self.group_of.clear();
        (self.recent, self.held) = (0, 0);
        (std::mem::take(&mut self.groups), Forms { who: self.who.take(), what: self.what.take() })
    }
}

impl CallGroup {
    fn add(&mut self, who_and_what: (u32, u32), hour: Hour, row: &ApiRow) {
        if self.units.last() != Some(&row.unit) {
            self.units.push(row.unit);
        }
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(&row.id.to_le_bytes());
        put(bytes, row.time.0.wrapping_sub(hour.start().0) as u64);
        match row.event_id {
            EventId::None => bytes.push(0),
            EventId::Uuid(high, low) => {
                bytes.push(1);
                bytes.extend_from_slice(&high.to_le_bytes());
                bytes.extend_from_slice(&low.to_le_bytes());
            }
            EventId::Text(index) => {
                self.odd_ids.push(index);
                put(bytes, self.odd_ids.len() as u64 + 1);
            }
        }
        put(bytes, self.units.len() as u64 - 1);
        put(bytes, row.position);
        self.who_and_what.push(who_and_what);
    }

    /// Writes the group as it stands in a block, where `numbers` are given.
    pub(crate) fn put(&self, out: &mut Vec<u8>, forms: &Forms, local: &mut [Locals; 2], numbers: &mut impl Numbers) {
        put(out, self.who_and_what.len() as u64);
        if self.who_and_what.is_empty() {
            return;
        }
        put(out, self.units.len() as u64);
        for &unit in &self.units {
            put(out, u64::from(numbers.unit(unit)));
        }
        put(out, self.odd_ids.len() as u64);
        for &text in &self.odd_ids {
            put(out, u64::from(numbers.text(text)));
        }
        let mut of_calls = Vec::with_capacity(self.who_and_what.len() * 3);
        let [who, what] = local;
        for of_call in &self.who_and_what {
            put(&mut of_calls, u64::from(who.number(of_call.0)));
            put(&mut of_calls, u64::from(what.number(of_call.1)));
        }
        let who: Vec<&Who> = who.take().filter_map(|index| forms.who.get(index as usize)).collect();
        put(out, who.len() as u64);
        for who in who {
            who.texts.iter().for_each(|text| put(out, u64::from(numbers.text(*text).wrapping_add(1))));
        }
        let what: Vec<&What> = what.take().filter_map(|index| forms.what.get(index as usize)).collect();
        put(out, what.len() as u64);
        for what in what {
            out.extend_from_slice(&what.marks.to_le_bytes());
            what.texts.iter().for_each(|text| put(out, u64::from(numbers.text(*text).wrapping_add(1))));
        }
        out.extend_from_slice(&of_calls);
        out.extend_from_slice(&self.bytes);
    }
}

/// The numbers in a block of things that have one in all.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    /// By number in all; [`NONE`] where the block has none.
    of: Vec<u32>,
    /// The numbers in all of those that the block has, in its order.
    all: Vec<u32>,
}

impl Locals {
    fn number(&mut self, index: u32) -> u32 {
        let at = index as usize;
        if self.of.len() <= at {
            self.of.resize(at + 1, NONE);
        }
        if self.of[at] == NONE {
            self.of[at] = self.all.len() as u32;
            self.all.push(index);
        }
        self.of[at]
    }

    /// What the block has; it has nothing then.
    fn take(&mut self) -> impl Iterator<Item = u32> + '_ {
        let Self { of, all } = self;
        all.drain(..).inspect(|index| of[*index as usize] = NONE)
    }
}

/// Who gives the numbers in a block for those in the writer's dictionary.
pub(crate) trait Numbers {
    /// Of a unit.
    fn unit(&mut self, index: u32) -> u32;
    /// Of a text; [`NONE`] has itself.
    fn text(&mut self, index: u32) -> u32;
}

/// Reads the calls of a block. `text` and `units` turn numbers of the block into indices of the account-hour.
pub(crate) fn read(r: &mut Reader<'_>, hour: Hour, new: bool, text: &impl Fn(u32) -> Option<u32>, units: &[u32]) -> Option<Vec<ApiRow>> {
    let count = r.count()?;
    if count == 0 {
        return Some(Vec::new());
    }
    let of_calls = list(r, |r| units.get(r.index()? as usize).copied())?;
    let odd_ids = list(r, |r| text(r.index()?))?;
    let texts = |r: &mut Reader<'_>, texts: &mut [u32]| -> Option<()> {
        for index in texts {
            *index = match r.int()? {
                0 => NONE,
                local => text(u32::try_from(local - 1).ok()?)?,
            };
        }
        Some(())
    };
    let who = list(r, |r| {
        let mut who = Who::default();
        texts(r, &mut who.texts)?;
        Some(who)
    })?;
    let what = list(r, |r| {
        let marks = u16::from_le_bytes(r.array()?) & !call_marks::NEW | if new { call_marks::NEW } else { 0 };
        let mut what = What { marks, ..What::default() };
        texts(r, &mut what.texts)?;
        Some(what)
    })?;
    let mut calls: Vec<ApiRow> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut call = ApiRow::default();
        who.get(r.index()? as usize)?.set(&mut call);
        what.get(r.index()? as usize)?.set(&mut call);
        calls.push(call);
    }
    for call in &mut calls {
        call.id = u128::from_le_bytes(r.array()?);
        call.time = EventTime(hour.start().0.wrapping_add(r.int()? as i64));
        call.event_id = match r.int()? {
            0 => EventId::None,
            1 => EventId::Uuid(u64::from_le_bytes(r.array()?), u64::from_le_bytes(r.array()?)),
            local => EventId::Text(*odd_ids.get(usize::try_from(local - 2).ok()?)?),
        };
        call.unit = *of_calls.get(r.index()? as usize)?;
        call.position = r.int()?;
    }
    Some(calls)
}

/// A count, and so many of what `one` reads.
fn list<'a, T>(r: &mut Reader<'a>, one: impl Fn(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
    let count = r.count()?;
    (0..count).map(|_| one(r)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::block::decode;
    use crate::sum::{Summer, UnitContext};
    use flowtrail_ingest::UnitId;
    use proptest::prelude::*;

    /// A call with words for its texts: what has to come out.
    type Told = (i64, u128, Option<String>, Vec<Option<String>>, u16, UnitId, u64);

    fn told() -> impl Strategy<Value = Told> {
        let word = || prop_oneof![2 => Just(None), 3 => "[a-c]{1,2}".prop_map(Some)];
        let event_id = prop_oneof![
            Just(None),
            "[a-c]{1,3}".prop_map(Some),
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(Some)
        ];
        let texts = proptest::collection::vec(word(), 12);
        (0..3 * 3600i64, 0..9u128, event_id, texts, 0..4u16, (0..3u128).prop_map(UnitId), prop_oneof![0..9u64, any::<u64>()])
    }

    fn unit(id: UnitId) -> UnitContext {
        UnitContext { id, flow_log: None, account: None, region: None, from: EventTime::MIN, to: EventTime::MAX }
    }

    proptest! {
        #[test]
        fn calls_come_out_as_they_went_in(mut told in proptest::collection::vec(told(), 0..60)) {
            const START: i64 = 1_767_571_200;
            let mut summer = Summer::new(1);
            for _ in 0..2 {
                // The second time with what the first left behind.
                for (second, id, event_id, texts, marks, of, position) in &told {
                    let time = EventTime(START + second);
                    let event_id = EventId::of(event_id.as_deref().unwrap_or_default(), |text| summer.intern(text));
                    let mut row = ApiRow { time, id: *id, event_id, marks: *marks, ..ApiRow::default() };
                    for (index, text) in row.texts_mut().into_iter().zip(texts) {
                        *index = text.as_ref().map_or(NONE, |text| summer.intern(text));
                    }
                    summer.add_call(&unit(*of), "1", row, *position);
                }
                let mut got: Vec<Told> = Vec::new();
                for block in summer.flush() {
                    let hour = decode(block.view(true)).unwrap();
                    for mut call in hour.calls.clone() {
                        prop_assert_eq!(call.time.hour(), block.hour);
                        prop_assert!(call.marks & call_marks::NEW != 0);
                        let of = |index: u32| hour.opt(index).map(str::to_owned);
                        let texts = call.texts_mut().into_iter().map(|index| of(*index)).collect();
                        let event_id = call.event_id.text(&hour).map(|text| text.into_owned());
                        let unit = hour.units[call.unit as usize].id;
                        got.push((call.time.0 - START, call.id, event_id, texts, call.marks & !call_marks::NEW, unit, call.position));
                    }
                }
                got.sort();
                told.sort();
                prop_assert_eq!(&got, &told);
            }
        }
    }
}
