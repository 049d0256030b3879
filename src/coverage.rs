//! What was there to be read, hour by hour, before it becomes rows of `coverage`.
//!
//! Counts only add up: rows of the same hour and source written at different times are read as their sum. So what was
//! written can be forgotten, and what comes later (a late unit) is a row of its own.

use std::collections::BTreeMap;

use flowtrail_ingest::Hour;
use flowtrail_sink::tables::coverage::CoverageRow;
use serde::{Deserialize, Serialize};

use crate::judging::Attribution;
use crate::lane::{Ended, UnitRecord};

/// Hour by record time, flow-log id or kind of source, account, region.
type Key = (Hour, String, String, String);

/// Source of the rows that tell of judging: attribution and late records, by account and not by flow log.
const JUDGED: &str = "judged";

/// Sums by hour and source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    hours: BTreeMap<Key, Cover>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cover {
    units: u64,
    bytes: u64,
    records: u64,
    rejects: u64,
    late: u64,
    nodata: u64,
    skipdata: u64,
    attribution: Attribution,
    /// Seconds from the hour's start to delivery: how many units.
    delays: BTreeMap<i64, u64>,
}

impl Coverage {
    /// Adds a unit, or a message of one that goes on.
    pub fn add_unit(&mut self, unit: &UnitRecord) {
        let Some(hour) = unit.hour.filter(|_| matches!(unit.ended, Ended::Applied | Ended::Salvaged | Ended::Late)) else { return };
        let cover = self.hours.entry((hour, unit.stream.clone(), unit.account.clone(), unit.region.clone())).or_default();
        cover.units += 1;
        cover.bytes += unit.bytes;
        cover.records += unit.records;
        cover.rejects += unit.rejects;
        cover.nodata += unit.nodata;
        cover.skipdata += unit.skipdata;
        if let Some(delivered) = unit.delivered_at {
            *cover.delays.entry(delivered.0 - hour.start().0).or_default() += 1;
        }
    }

    /// Adds the flow records of an account's hour by the owner of their own end.
    pub fn add_attribution(&mut self, account: &str, hour: Hour, counts: &Attribution) {
        if counts.iter().any(|n| *n > 0) {
            self.judged(account, hour).attribution.iter_mut().zip(counts).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    /// Adds records of an account's hour that came after its seal.
    pub fn add_late(&mut self, account: &str, hour: Hour, records: u64) {
        self.judged(account, hour).late += records;
    }

    fn judged(&mut self, account: &str, hour: Hour) -> &mut Cover {
        self.hours.entry((hour, JUDGED.to_owned(), account.to_owned(), String::new())).or_default()
    }

    /// Adds all that another one holds.
    pub fn absorb(&mut self, other: Self) {
        for (key, theirs) in other.hours {
            let mine = self.hours.entry(key).or_default();
            mine.units += theirs.units;
            mine.bytes += theirs.bytes;
            mine.records += theirs.records;
            mine.rejects += theirs.rejects;
            mine.late += theirs.late;
            mine.nodata += theirs.nodata;
            mine.skipdata += theirs.skipdata;
            mine.attribution.iter_mut().zip(theirs.attribution).for_each(|(mine, theirs)| *mine += theirs);
            for (delay, count) in theirs.delays {
                *mine.delays.entry(delay).or_default() += count;
            }
        }
    }

    /// Forgets the hours before `hour`: they are written.
    pub fn forget_before(&mut self, hour: Hour) {
        self.hours.retain(|key, _| key.0 >= hour);
    }

    /// The rows of the hours before `hour`.
    #[must_use]
    pub fn rows_before(&self, hour: Hour) -> Vec<CoverageRow> {
        self.hours.iter().filter(|(key, _)| key.0 < hour).map(|(key, cover)| cover.row(key)).collect()
    }

    /// Nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }

    /// Hours and sources held.
    #[cfg(test)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.hours.len()
    }
}

impl Cover {
    fn row(&self, (hour, source, account, region): &Key) -> CoverageRow {
        CoverageRow {
            hour: *hour,
            source: source.clone(),
            account_id: account.clone(),
            region: Some(region.clone()).filter(|r| !r.is_empty()),
            units: self.units,
            bytes: self.bytes,
            records: self.records,
            rejects: self.rejects,
            late: self.late,
            skipdata: self.skipdata,
            nodata: self.nodata,
            attribution: self.attribution,
            delay_secs: self.percentile(50).zip(self.percentile(90)).zip(self.percentile(99)).map(|((a, b), c)| [a, b, c]),
        }
    }

    fn percentile(&self, share: u64) -> Option<i64> {
        let count: u64 = self.delays.values().sum();
        let rank = (count * share / 100).min(count.saturating_sub(1));
        let mut before = 0;
        self.delays.iter().find_map(|(delay, n)| {
            before += n;
            (before > rank).then_some(*delay)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowtrail_ingest::{EventTime, UnitId};

    fn unit(hour: i32, delivered: i64, records: u64) -> UnitRecord {
        UnitRecord {
            id: UnitId(records.into()),
            source: "s3".into(),
            key: String::new(),
            bytes: 10,
            ended: Ended::Applied,
            reason: String::new(),
            stream: "fl-1".into(),
            account: "1".into(),
            region: String::new(),
            hour: Some(Hour(hour)),
            delivered_at: Some(EventTime(delivered)),
            records,
            rejects: 1,
            nodata: 0,
            skipdata: 2,
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let units: Vec<UnitRecord> = (0..100).map(|n| unit(5, Hour(5).start().0 + n, 3)).chain([unit(6, 0, 7)]).collect();
        let mut whole = Coverage::default();
        units.iter().for_each(|u| whole.add_unit(u));
        whole.add_attribution("1", Hour(5), &[1, 0, 0, 0, 2]);
        whole.add_late("1", Hour(5), 4);
        let mut parts = Coverage::default();
        for chunk in units.chunks(7) {
            let mut part = Coverage::default();
            chunk.iter().for_each(|u| part.add_unit(u));
            parts.absorb(part);
        }
        parts.add_late("1", Hour(5), 4);
        parts.add_attribution("1", Hour(5), &[1, 0, 0, 0, 2]);
        assert_eq!(parts, whole);
        let rows = whole.rows_before(Hour(6));
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!((rows[0].units, rows[0].records, rows[0].rejects, rows[0].skipdata), (100, 300, 100, 200));
        assert_eq!(rows[0].delay_secs, Some([50, 90, 99]));
        assert_eq!((rows[1].source.as_str(), rows[1].late, rows[1].attribution), ("judged", 4, [1, 0, 0, 0, 2]));
        whole.forget_before(Hour(6));
        assert_eq!((whole.len(), whole.rows_before(Hour(i32::MAX))[0].records), (1, 7));
    }
}
