//! The contributions of one day, read from the run files piece by piece: a day of a large organisation is more than memory
//! holds.
//!
//! A *piece* is some hours of an account, or some accounts one after the other: a few megabytes. A *group* is the pieces that
//! one thread goes through in order, because they are of the same account.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use flowtrail_detect::BlockView;
use flowtrail_ingest::{Day, Hour};
use flowtrail_sink::Store;

use crate::lane::{Lane, Run};

/// A day makes about so many groups, so that threads find work.
const GROUPS: u64 = 16;
/// Pieces are at most this large, unless there are so many run files that their ranges would be too short to ask for.
const PIECE_BYTES: u64 = 4 << 20;
/// … and in any case.
const PIECE_BYTES_MAX: u64 = 256 << 20;

/// Where one day's blocks lie.
pub struct StoredDay<'a> {
    state: &'a Arc<dyn Store>,
    /// By (account, hour).
    entries: Vec<Entry<'a>>,
    /// Ranges of `entries`.
    pieces: Vec<Range<usize>>,
    /// Ranges of `pieces`.
    groups: Vec<Range<usize>>,
}

/// Where one block lies.
struct Entry<'a> {
    account: &'a str,
    hour: Hour,
    run: &'a Run,
    offset: u64,
    len: u64,
}

/// The blocks of one account's hour.
pub struct HourBlocks<'b> {
    /// Account.
    pub account: &'b str,
    /// The hour.
    pub hour: Hour,
    /// Its blocks.
    pub blocks: Vec<BlockView<'b>>,
    /// For each block: its calls have no rows in `api_calls` yet.
    pub unwritten: Vec<bool>,
}

impl<'a> StoredDay<'a> {
    /// The blocks of the hours of `day` that are `wanted`.
    #[must_use]
    pub fn of(lane: &'a Lane, day: Day, wanted: &dyn Fn(&str, Hour) -> bool) -> Self {
        let mut entries = Vec::new();
        let mut runs = 0;
        for run in &lane.known.runs {
            let from = run.blocks.partition_point(|b| b.hour.day() < day);
            let to = run.blocks.partition_point(|b| b.hour.day() <= day);
            let before = entries.len();
            let of_day = run.blocks[from..to].iter().filter(|b| wanted(&b.account, b.hour));
            entries.extend(of_day.map(|b| Entry { account: &b.account, hour: b.hour, run, offset: b.offset, len: b.len }));
            runs += u64::from(entries.len() > before && run.held.is_none());
        }
        // The sort is stable: blocks of one hour stay in the order of their runs.
        entries.sort_by(|a, b| (a.account, a.hour).cmp(&(b.account, b.hour)));
        let total: u64 = entries.iter().map(|e| e.len).sum();
        let bytes_max = (total / GROUPS).min(PIECE_BYTES).max(runs * lane.state.request_bytes()).min(PIECE_BYTES_MAX);
        let mut cuts = Cuts::default();
        for account in entries.chunk_by(|a, b| a.account == b.account) {
            let of_account: u64 = account.iter().map(|e| e.len).sum();
            if cuts.bytes + of_account > bytes_max {
                cuts.end_group();
            }
            for hour in account.chunk_by(|a, b| a.hour == b.hour) {
                let of_hour: u64 = hour.iter().map(|e| e.len).sum();
                if cuts.bytes + of_hour > bytes_max {
                    cuts.end_piece();
                }
                cuts.bytes += of_hour;
                cuts.at += hour.len();
            }
            if of_account > bytes_max {
                cuts.end_group();
            }
        }
        cuts.end_group();
        Self { state: &lane.state, entries, pieces: cuts.pieces, groups: cuts.groups }
    }

    /// There is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Groups, each to be gone through by one thread: its pieces in order.
    pub fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        self.groups.iter().cloned()
    }

    /// The accounts of some pieces, in order.
    pub fn accounts(&self, pieces: &Range<usize>) -> impl Iterator<Item = &'a str> {
        let of_pieces = self.pieces.get(pieces.clone()).unwrap_or_default();
        let (from, to) = (of_pieces.first().map_or(0, |p| p.start), of_pieces.last().map_or(0, |p| p.end));
        self.entries.get(from..to).unwrap_or_default().chunk_by(|a, b| a.account == b.account).map(|of| of[0].account)
    }

    /// Reads a piece, into `buffer` what is not in memory: its hours by (account, hour).
    ///
    /// # Errors
    /// When the state store fails or a run file is shorter than its index says.
    pub fn read<'b>(&'b self, piece: usize, buffer: &'b mut Vec<u8>) -> Result<Vec<HourBlocks<'b>>> {
        let entries = self.pieces.get(piece).and_then(|p| self.entries.get(p.clone())).unwrap_or_default();
        let mut in_file: Vec<&Entry<'_>> = entries.iter().filter(|e| e.run.held.is_none()).collect();
        in_file.sort_by(|a, b| (&a.run.key, a.offset).cmp(&(&b.run.key, b.offset)));
        buffer.clear();
        // Where in the buffer each stretch begins that was read: (run file, first byte, place).
        let mut stretches: Vec<(&str, u64, usize)> = Vec::new();
        let gap_max = self.state.request_bytes();
        for near in in_file.chunk_by(|a, b| a.run.key == b.run.key && b.offset.saturating_sub(a.offset + a.len) <= gap_max) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
            let (place, len) = (buffer.len(), last.offset + last.len - first.offset);
            self.state.append_range(&first.run.key, first.offset, len, buffer)?;
            if (buffer.len() - place) as u64 != len {
                return Err(first.run.too_short(&**self.state));
            }
            stretches.push((&first.run.key, first.offset, place));
        }
        let buffer = &*buffer;
        let mut hours: Vec<HourBlocks<'b>> = Vec::new();
        for entry in entries {
            let bytes = match &entry.run.held {
                Some(held) => held.get(entry.offset as usize..(entry.offset + entry.len) as usize),
                None => {
                    let after = stretches.partition_point(|s| (s.0, s.1) <= (entry.run.key.as_str(), entry.offset));
                    let stretch = after.checked_sub(1).and_then(|at| stretches.get(at));
                    stretch.and_then(|s| {
                        let from = s.2 + (entry.offset - s.1) as usize;
                        buffer.get(from..from + entry.len as usize)
                    })
                }
            };
            let Some(bytes) = bytes else { return Err(entry.run.too_short(&**self.state)) };
            let view = BlockView { account: entry.account, hour: entry.hour, bytes, new: entry.run.new };
            match hours.last_mut() {
                Some(last) if (last.account, last.hour) == (entry.account, entry.hour) => {
                    last.blocks.push(view);
                    last.unwritten.push(entry.run.unwritten);
                }
                _ => hours.push(HourBlocks {
                    account: entry.account,
                    hour: entry.hour,
                    blocks: vec![view],
                    unwritten: vec![entry.run.unwritten],
                }),
            }
        }
        Ok(hours)
    }

    /// Reads piece by piece.
    ///
    /// # Errors
    /// As [`Self::read`], and what `each` returns.
    pub fn each(&self, each: &mut dyn FnMut(HourBlocks<'_>) -> Result<()>) -> Result<()> {
        let mut buffer = Vec::new();
        for piece in 0..self.pieces.len() {
            self.read(piece, &mut buffer)?.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }
}

/// Where pieces and groups end, while entries are gone through.
#[derive(Default)]
struct Cuts {
    /// Entries so far.
    at: usize,
    /// Bytes since the last cut.
    bytes: u64,
    pieces: Vec<Range<usize>>,
    groups: Vec<Range<usize>>,
}

impl Cuts {
    fn end_piece(&mut self) {
        let start = self.pieces.last().map_or(0, |p| p.end);
        if start < self.at {
            self.pieces.push(start..self.at);
        }
        self.bytes = 0;
    }

    fn end_group(&mut self) {
        self.end_piece();
        let start = self.groups.last().map_or(0, |g| g.end);
        if start < self.pieces.len() {
            self.groups.push(start..self.pieces.len());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use flowtrail_detect::Block;
    use flowtrail_ingest::EventTime;
    use flowtrail_sink::store::FolderStore;

    use super::*;
    use crate::lane::{Changes, Depth};

    const DAY: Day = Day(20_000);

    /// The bytes of a block: they say whose they are.
    fn block(account: u32, hour: i32, run: u8, len: usize) -> Block {
        let mut bytes = format!("{account} {hour} {run} ").into_bytes();
        bytes.resize(len.max(bytes.len()), run);
        Block { account: format!("{account:012}"), hour: Hour(DAY.0 * 24 + hour), bytes }
    }

    /// Some hours of many small accounts and of a large one, in three runs, with the days before and after; `held_max` bytes
    /// stay in memory.
    fn lane(folder: &std::path::Path, held_max: u64) -> (Lane, BTreeSet<(String, Hour, Vec<u8>)>) {
        let store = Arc::new(FolderStore::new(folder));
        let mut lane = Lane::open(store.clone(), store, EventTime(0), Depth::All).unwrap();
        lane.held_max = held_max;
        let mut all = BTreeSet::new();
        for run in 0..3 {
            let small = (0..300).flat_map(|account| [-1, 0, 7, 23, 24].map(|hour| block(account, hour + i32::from(run) % 2, run, 900)));
            let large = (0..24).map(|hour| block(777, hour, run, 400_000));
            let blocks: Vec<Block> = small.chain(large).collect();
            let of_day = blocks.iter().filter(|b| b.hour.day() == DAY);
            all.extend(of_day.map(|b| (b.account.clone(), b.hour, b.bytes.clone())));
            lane.commit(Changes { blocks, ..Changes::default() }, 0, EventTime(0), false).unwrap();
        }
        (lane, all)
    }

    #[test]
    fn every_block_of_the_day_is_read_once_and_no_account_by_two_threads() {
        let folder = tempfile::tempdir().unwrap();
        // None in memory, the first run, all of them.
        for held_max in [0, 12_000_000, u64::MAX] {
            let (lane, all) = lane(&folder.path().join(held_max.to_string()), held_max);
            let day = StoredDay::of(&lane, DAY, &|_, _| true);
            let mut buffer = Vec::new();
            let (mut read, mut accounts, mut hours_before) = (BTreeSet::new(), BTreeSet::new(), 0);
            let groups: Vec<_> = day.groups().collect();
            assert!(groups.len() >= 3, "threads find work: {groups:?}");
            for group in groups {
                let said: Vec<&str> = day.accounts(&group).collect();
                let mut seen: Vec<String> = Vec::new();
                for piece in group {
                    let mut last = None;
                    let mut bytes = 0;
                    for of in day.read(piece, &mut buffer).unwrap() {
                        assert!(last.replace((of.account.to_owned(), of.hour)) < Some((of.account.to_owned(), of.hour)), "in order");
                        assert_eq!(of.blocks.len(), of.unwritten.len());
                        if seen.last().is_none_or(|s| s != of.account) {
                            seen.push(of.account.to_owned());
                        }
                        for view in &of.blocks {
                            assert_eq!((view.account, view.hour), (of.account, of.hour));
                            bytes += view.bytes.len();
                            assert!(read.insert((of.account.to_owned(), of.hour, view.bytes.to_vec())), "twice");
                        }
                        hours_before += 1;
                    }
                    assert!(bytes as u64 <= PIECE_BYTES, "a piece of {bytes} bytes");
                }
                assert_eq!(said, seen);
                assert!(seen.into_iter().all(|account| accounts.insert(account)), "an account in two groups");
            }
            assert_eq!((read.len(), hours_before), (all.len(), 1524));
            assert!(read == all);
            let some = StoredDay::of(&lane, DAY, &|account, hour| account.ends_with("77") && hour.0 % 24 == 7);
            let mut hours = Vec::new();
            some.each(&mut |of| {
                hours.push((of.account.trim_start_matches('0').to_owned(), of.blocks.len()));
                Ok(())
            })
            .unwrap();
            assert_eq!(hours, [("77".to_owned(), 2), ("177".to_owned(), 2), ("277".to_owned(), 2), ("777".to_owned(), 3)]);
            assert!(StoredDay::of(&lane, Day(1), &|_, _| true).is_empty());
        }
    }

    #[test]
    fn a_run_that_was_cut_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (lane, _) = lane(folder.path(), 0);
        let run = &lane.known.runs[1].key;
        let file = std::fs::OpenOptions::new().write(true).open(folder.path().join(run)).unwrap();
        file.set_len(5_000_000).unwrap();
        let error = StoredDay::of(&lane, DAY, &|_, _| true).each(&mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(run) && error.contains("replay the logs"), "{error}");
    }
}
