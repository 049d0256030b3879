//! Rows in the order of the file: by the second they end in, those of one second as they came.
//!
//! A batch is put in order while it is in the nearest caches, and leaves one [`Span`] of the buffer for each of its seconds.
//! To order an hour is then to order its spans, and every column is copied span by span.

use std::ops::Range;

use flowtrail_ingest::{EventTime, FlowBatch};

use super::super::clamped;

/// Keys of an hour: the second plus one, and 0 for rows without an end.
const HOUR_KEYS: i64 = 3601;
/// Batches whose keys lie no further apart are ordered by counting.
const COUNTED_MAX: i64 = 4 * HOUR_KEYS;

/// Rows of a buffer that end in the same second, one after the other.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Second of the hour plus one; 0 for rows without an end.
    pub(super) second: u32,
    pub(super) first: u32,
    pub(super) rows: u32,
}

impl Span {
    pub(super) fn range(self) -> Range<usize> {
        self.first as usize..self.first as usize + self.rows as usize
    }
}

/// Puts batches in order. Its memory is used again.
#[derive(Default)]
pub(super) struct Order {
    keys: Vec<i64>,
    counts: Vec<u32>,
    rows: Vec<u32>,
}

/// The hour of a key, and its second as in [`Span`].
fn split(key: i64) -> (i64, u32) {
    (key.div_euclid(HOUR_KEYS), key.rem_euclid(HOUR_KEYS) as u32)
}

impl Order {
    /// Orders the rows of a batch by hour and second; `fallback` is the time of those that have none.
    pub(super) fn put(&mut self, batch: &FlowBatch, fallback: EventTime) {
        let Self { keys, counts, rows } = self;
        keys.clear();
        // Most rows are of the hour of the one before: no division then.
        let (mut from, mut key_from) = (0, 0);
        keys.extend(batch.end.iter().zip(&batch.start).map(|(end, start)| {
            if *end != 0 && (from..from + 3600).contains(end) {
                return key_from + 1 + (end - from);
            }
            let time = match (*end, *start) {
                (0, 0) => fallback.0,
                (0, start) => start,
                (end, _) => end,
            };
            let time = clamped(EventTime(time)).0;
            let hour = time.div_euclid(3600);
            if *end == 0 {
                return hour * HOUR_KEYS;
            }
            (from, key_from) = (hour * 3600, hour * HOUR_KEYS);
            key_from + 1 + (time - from)
        }));
        rows.clear();
        let (least, most) = keys.iter().fold((i64::MAX, i64::MIN), |(least, most), key| (least.min(*key), most.max(*key)));
        if keys.is_sorted() {
            rows.extend(0..keys.len() as u32);
        } else if most - least <= COUNTED_MAX {
            counts.clear();
            counts.resize((most - least) as usize + 2, 0);
            for key in &*keys {
                counts[(key - least) as usize + 1] += 1;
            }
            let mut before = 0;
            for count in counts.iter_mut() {
                before += *count;
                *count = before;
            }
            rows.resize(keys.len(), 0);
            for (row, key) in keys.iter().enumerate() {
                let at = &mut counts[(key - least) as usize];
                rows[*at as usize] = row as u32;
                *at += 1;
            }
        } else {
            rows.extend(0..keys.len() as u32);
            rows.sort_by_key(|row| keys[*row as usize]);
        }
    }

    /// The hours of the batch and their rows, in order.
    pub(super) fn hours(&self) -> impl Iterator<Item = (i64, &[u32])> {
        let hour = |row: u32| split(self.keys[row as usize]).0;
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = hour(*self.rows.get(from)?);
            let rest = &self.rows[from..];
            let rows = &rest[..rest.partition_point(|row| hour(*row) == first)];
            from += rows.len();
            Some((first, rows))
        })
    }

    /// The spans of these rows of one hour, which the buffer takes in from row `base` on.
    pub(super) fn spans(&self, rows: &[u32], base: usize, into: &mut Vec<Span>) {
        let mut first = base as u32;
        for run in rows.chunk_by(|a, b| self.keys[*a as usize] == self.keys[*b as usize]) {
            let second = split(self.keys[run[0] as usize]).1;
            into.push(Span { second, first, rows: run.len() as u32 });
            first += run.len() as u32;
        }
    }
}

/// Spans of a buffer in the order of the file.
pub(super) fn by_second(spans: &[Span]) -> Vec<Span> {
    let mut spans = spans.to_vec();
    // Stable: those of one second stay as they came.
    spans.sort_by_key(|span| span.second);
    spans
}

/// Rows that are copied as one: spans are mostly short, and a call for each would cost more than what is copied in vain.
const STEP: usize = 8;

/// A column in the order of the file; rows past its end have no value.
pub(super) fn gather<T: Copy + PartialEq>(column: &mut Vec<T>, spans: &[Span], rows: usize, absent: T, out: &mut Vec<T>) {
    column.resize(rows, absent);
    out.clear();
    match column.first() {
        // Whatever the order: a version, an account, a status.
        Some(first) if column.iter().all(|value| value == first) => out.extend_from_slice(column),
        _ => {
            // Room for the last step to reach beyond the end.
            column.resize(rows + STEP, absent);
            out.resize(rows + STEP, absent);
            let mut to = 0;
            for span in spans {
                let range = span.range();
                for (n, from) in range.clone().step_by(STEP).enumerate() {
                    let to = to + n * STEP;
                    out[to..to + STEP].copy_from_slice(&column[from..from + STEP]);
                }
                to += range.len();
            }
            out.truncate(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain stable sort, over batches of near and far times, with and without ends.
        #[test]
        fn rows_come_in_order(
            batches in proptest::collection::vec(proptest::collection::vec((prop_oneof![Just(0i64), 7200..14_500i64, 0..9_000_000i64, Just(i64::MAX)], 0..20_000i64), 1..80), 1..5)
        ) {
            let fallback = EventTime(5000);
            let mut order = Order::default();
            let mut hours: std::collections::BTreeMap<i64, (Vec<Span>, Vec<usize>)> = std::collections::BTreeMap::new();
            let mut plain = Vec::new();
            let mut number = 0;
            for times in batches {
                let (end, start): (Vec<i64>, Vec<i64>) = times.iter().copied().unzip();
                let batch = FlowBatch { end, start, ..FlowBatch::default() };
                order.put(&batch, fallback);
                let mut seen = 0;
                for (hour, rows) in order.hours() {
                    let (spans, column) = hours.entry(hour).or_default();
                    order.spans(rows, column.len(), spans);
                    column.extend(rows.iter().map(|row| number + *row as usize));
                    seen += rows.len();
                }
                prop_assert_eq!(seen, times.len());
                for (end, start) in &times {
                    let time = if *end != 0 { *end } else if *start != 0 { *start } else { fallback.0 };
                    let time = clamped(EventTime(time)).0;
                    plain.push((time.div_euclid(3600), if *end == 0 { -1 } else { time }, number));
                    number += 1;
                }
            }
            plain.sort_unstable();
            let mut got = Vec::new();
            for (hour, (spans, mut column)) in hours {
                let (mut out, rows) = (Vec::new(), column.len());
                gather(&mut column, &by_second(&spans), rows, usize::MAX, &mut out);
                got.extend(out.into_iter().map(|n| (hour, n)));
            }
            prop_assert_eq!(got, plain.into_iter().map(|(hour, _, n)| (hour, n)).collect::<Vec<_>>());
        }
    }
}
