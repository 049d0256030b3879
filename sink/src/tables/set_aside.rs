//! `rejects`, `late`, `quarantine`: what was left out, with its place and the reason. Three tables of one shape.

use flowtrail_ingest::EventTime;
use serde::{Deserialize, Serialize};

use super::{Columns, Row, Table, Timed};

macro_rules! set_aside {
    ($row:ident, $table:expr, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $row {
            /// The record's own time where it has one, else that of its unit.
            pub time: EventTime,
            /// `folder`, `s3`, `kafka`.
            pub source: String,
            /// Key, path or `topic/partition`.
            pub key: String,
            /// Line, index in `Records`, row or offset; `None` for a whole unit.
            pub position: Option<u64>,
            /// Lower case, with the values.
            pub reason: String,
            /// The first 256 bytes, control characters escaped.
            pub sample: String,
        }

        impl Row for $row {
            const TABLE: Table = $table;

            fn sort(rows: &mut [Self]) {
                rows.sort();
            }

            fn columns(rows: &[Self]) -> Columns {
                let mut c = Columns::new();
                c.time("time", rows.iter().map(|r| Some(r.time)))
                    .text("source", rows.iter().map(|r| r.source.as_str()))
                    .text("key", rows.iter().map(|r| r.key.as_str()))
                    .long("position", rows.iter().map(|r| r.position.map(|n| i64::try_from(n).unwrap_or(i64::MAX))))
                    .text("reason", rows.iter().map(|r| r.reason.as_str()))
                    .text("sample", rows.iter().map(|r| r.sample.as_str()));
                c
            }
        }

        impl Timed for $row {
            fn time(&self) -> EventTime {
                self.time
            }
        }
    };
}

set_aside!(RejectRow, Table::Rejects, "A line or record that could not be read.");
set_aside!(LateRow, Table::Late, "A unit, or a part of one, that came after its hour was sealed.");
set_aside!(QuarantineRow, Table::Quarantine, "A unit that could not be read; `flowtrail requeue` puts it back.");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tables::{files, read_rows};

    #[test]
    fn rows_go_to_their_days() {
        let row = |secs: i64, n: u64| RejectRow {
            time: EventTime(secs),
            key: "k".into(),
            position: Some(n),
            reason: "r".into(),
            ..RejectRow::default()
        };
        let all = files(vec![row(90_000, 2), row(0, 1), row(86_399, 3), row(i64::MAX, 4), row(i64::MIN, 5)]).unwrap();
        let folders: Vec<(&str, u64)> = all.iter().map(|f| (f.folder.as_str(), f.rows)).collect();
        assert_eq!(
            folders,
            [("rejects/dt=0001-01-01", 1), ("rejects/dt=1970-01-01", 2), ("rejects/dt=1970-01-02", 1), ("rejects/dt=9999-12-31", 1)]
        );
        let rows = read_rows(all[1].bytes.clone()).unwrap();
        assert_eq!(rows.iter().map(|r| r["position"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(rows[1]["time"], "1970-01-01T23:59:59Z");
    }
}
