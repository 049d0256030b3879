//! Merging: the blocks of one account and hour into the account-hour that is judged.
//!
//! Law: any split of the records over units, any order of the blocks and any grouping of merges give an equal
//! [`AccountHour`]; a call counts once however often it was delivered.

use crate::block::{BlockError, BlockView, decode, decode_into};
use crate::event_id::EventId;
use crate::hour::{AccountHour, ApiRow, Conversation, NONE, UnitRef, call_marks, place_of};

/// How many calls of the merged blocks were new to the hour, and how many were repeats; of blocks marked new.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// New calls admitted once.
    pub admitted: u64,
    /// New calls that repeat another one.
    pub repeats: u64,
}

/// Merges the blocks of one account and hour.
///
/// # Errors
/// When a stored block does not decode.
pub fn merge(blocks: &[BlockView<'_>]) -> Result<(AccountHour, CallCounts), BlockError> {
    merge_into(blocks, Vec::new())
}

/// [`merge`], with the memory of `spare` for the conversations: an hour can take many megabytes.
///
/// # Errors
/// When a stored block does not decode.
pub fn merge_into(blocks: &[BlockView<'_>], mut spare: Vec<Conversation>) -> Result<(AccountHour, CallCounts), BlockError> {
    spare.clear();
    let mut merged = match blocks {
        [] => AccountHour { conversations: spare, ..AccountHour::default() },
        [one] => decode_into(*one, spare)?,
        several => join(several.iter().map(|block| decode(*block)).collect::<Result<_, _>>()?, spare),
    };
    let counts = settle_calls(&mut merged);
    Ok((merged, counts))
}

/// Puts several decoded hours over one dictionary and adds equal conversations.
fn join(hours: Vec<AccountHour>, mut spare: Vec<Conversation>) -> AccountHour {
    let mut strings: Vec<Box<str>> = hours.iter().flat_map(|h| h.strings.iter().cloned()).collect();
    strings.sort_unstable();
    strings.dedup();
    let mut units: Vec<UnitRef> = hours.iter().flat_map(|h| h.units.iter().cloned()).collect();
    units.sort_unstable();
    units.dedup();
    let mut packet_addrs: Vec<_> = hours.iter().flat_map(|h| h.packet_addrs.iter().copied()).collect();
    packet_addrs.sort_unstable();
    packet_addrs.dedup();
    spare.reserve(hours.iter().map(|h| h.conversations.len()).sum());
    let mut merged = AccountHour {
        account: hours[0].account.clone(),
        hour: hours[0].hour,
        conversations: spare,
        calls: Vec::with_capacity(hours.iter().map(|h| h.calls.len()).sum()),
        ..AccountHour::default()
    };
    for hour in hours {
        let text_at: Vec<u32> = hour.strings.iter().map(|s| strings.binary_search(s).unwrap_or(0) as u32).collect();
        let unit_at: Vec<u32> = hour.units.iter().map(|u| units.binary_search_by_key(&u.id, |x| x.id).unwrap_or(0) as u32).collect();
        let text = |index: u32| text_at.get(index as usize).copied().unwrap_or(NONE);
        merged.eni_region.extend(hour.eni_region.iter().map(|(eni, region)| (text(*eni), text(*region))));
        for mut conversation in hour.conversations {
            conversation.eni = text(conversation.eni);
            conversation.flow_log = text(conversation.flow_log);
            conversation.seen = conversation.seen.map(|unit| unit_at.get(unit as usize).copied().unwrap_or(0));
            if let Some(pair) = conversation.packet_addrs.checked_sub(1) {
                conversation.packet_addrs = hour.packet_addrs.get(pair as usize).map_or(0, |p| place_of(&packet_addrs, p));
            }
            merged.conversations.push(conversation);
        }
        for mut row in hour.calls {
            for index in row.texts_mut() {
                *index = text(*index);
            }
            if let Some(index) = row.event_id.index_mut() {
                *index = text(*index);
            }
            row.unit = unit_at.get(row.unit as usize).copied().unwrap_or(0);
            merged.calls.push(row);
        }
    }
    merged.packet_addrs = packet_addrs;
    merged.strings = strings;
    merged.units = units;
    merged.eni_region.sort_unstable();
    merged.eni_region.dedup();
    // The blocks are sorted runs, which the standard library's stable sort finds and merges.
    merged.conversations.sort_by_key(|a| a.order());
    merged.conversations.dedup_by(|later, earlier| {
        let same = later.order() == earlier.order();
        if same {
            earlier.add(later);
        }
        same
    });
    merged
}

/// One row of each call id, the one from the smallest (unit, position); events that an addendum replaces are gone.
fn settle_calls(hour: &mut AccountHour) -> CallCounts {
    // Old rows first among equals: what an earlier call admitted is not new.
    let newness = |row: &ApiRow| row.marks & call_marks::NEW != 0;
    let calls = &hour.calls;
    let start = hour.hour.start().0;
    // Rows are large and stay where they are; the first bits of (time, id) tell nearly all of them apart.
    let mut order: Vec<(u64, u32)> = calls.iter().zip(0..).map(|(row, at)| (sort_key(row, start), at)).collect();
    let whole = |at: u32| calls.get(at as usize).map(|a| (a.time, a.id, newness(a), a.unit, a.position));
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| whole(a.1).cmp(&whole(b.1))));
    let mut counts = CallCounts::default();
    let mut kept: Vec<ApiRow> = Vec::with_capacity(calls.len());
    for row in order.iter().filter_map(|(_, at)| calls.get(*at as usize)) {
        match kept.last_mut() {
            Some(last) if last.id == row.id && last.time == row.time => {
                counts.repeats += u64::from(newness(row));
                // Which of the copies is cited must not depend on which call brought it.
                if (row.unit, row.position) < (last.unit, last.position) {
                    (last.unit, last.position) = (row.unit, row.position);
                }
            }
            _ => {
                counts.admitted += u64::from(newness(row));
                kept.push(*row);
            }
        }
    }
    let of_index = |index: u32| hour.opt(index).map(|text| EventId::of(text, |_| index));
    let mut replaced: Vec<EventId> = kept.iter().filter_map(|row| of_index(row.replaces)).collect();
    if !replaced.is_empty() {
        replaced.sort_unstable();
        // The event's own correction bears the same eventID where AWS sends it so; only rows that correct nothing go.
        kept.retain(|row| row.replaces != NONE || row.event_id == EventId::None || replaced.binary_search(&row.event_id).is_err());
    }
    hour.calls = kept;
    counts
}

/// The second of the hour and the first bits of the id: of two rows the one with the smaller key has the smaller (time, id).
fn sort_key(row: &ApiRow, start: i64) -> u64 {
    match row.time.0.saturating_sub(start) {
        ..0 => 0,
        second @ 0..4095 => (second as u64) << 52 | (row.id >> 76) as u64,
        _ => u64::MAX,
    }
}
