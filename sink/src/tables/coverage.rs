//! `coverage`: what was there to be read, hour by hour; what is missing in it is missing in the findings.

use flowtrail_ingest::{EventTime, Hour};
use serde::{Deserialize, Serialize};

use super::{Columns, Row, Table, Timed};

/// One hour of one source in one account and region.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CoverageRow {
    /// The hour, by record time.
    pub hour: Hour,
    /// Flow-log id, trail, or the kind of source where the key says no more.
    pub source: String,
    /// Account.
    pub account_id: String,
    /// Region, where known.
    pub region: Option<String>,
    /// Units with a record in this hour.
    pub units: u64,
    /// Bytes as delivered.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// Lines and records that could not be read.
    pub rejects: u64,
    /// Records that came after the seal.
    pub late: u64,
    /// SKIPDATA records: holes that AWS itself reports.
    pub skipdata: u64,
    /// NODATA records.
    pub nodata: u64,
    /// Flow records by attribution of their own end: exact, candidates, other, unheld, unknown.
    pub attribution: [u64; 5],
    /// Seconds from the end of a record to its delivery: 50th, 90th and 99th percentile, where delivery times are known.
    pub delay_secs: Option<[i64; 3]>,
}

impl Row for CoverageRow {
    const TABLE: Table = Table::Coverage;

    fn sort(rows: &mut [Self]) {
        rows.sort();
    }

    fn columns(rows: &[Self]) -> Columns {
        let mut c = Columns::new();
        c.time("hour", rows.iter().map(|r| Some(r.hour.start())))
            .text("source", rows.iter().map(|r| r.source.as_str()))
            .text("account_id", rows.iter().map(|r| r.account_id.as_str()))
            .maybe_text("region", rows.iter().map(|r| r.region.as_deref()))
            .count("units", rows.iter().map(|r| r.units))
            .count("bytes", rows.iter().map(|r| r.bytes))
            .count("records", rows.iter().map(|r| r.records))
            .count("rejects", rows.iter().map(|r| r.rejects))
            .count("late", rows.iter().map(|r| r.late))
            .count("skipdata", rows.iter().map(|r| r.skipdata))
            .count("nodata", rows.iter().map(|r| r.nodata));
        for (n, name) in ["attribution_exact", "attribution_candidates", "attribution_other", "attribution_unheld", "attribution_unknown"]
            .into_iter()
            .enumerate()
        {
            c.count(name, rows.iter().map(|r| r.attribution[n]));
        }
        for (n, name) in ["delay_p50_secs", "delay_p90_secs", "delay_p99_secs"].into_iter().enumerate() {
            c.long(name, rows.iter().map(|r| r.delay_secs.map(|d| d[n])));
        }
        c
    }
}

impl Timed for CoverageRow {
    fn time(&self) -> EventTime {
        self.hour.start()
    }
}
