//! `observations`: worth keeping, not worth waking anybody.

use flowtrail_detect::Observation;
use flowtrail_ingest::EventTime;

use super::findings::evidence;
use super::{Columns, Row, Table, Timed};

impl Row for Observation {
    const TABLE: Table = Table::Observations;

    fn sort(rows: &mut [Self]) {
        type Key<'a> = (EventTime, [&'a str; 6], i64, &'a [flowtrail_detect::EvidenceRef], Option<&'a str>, [&'a str; 2]);
        fn key(r: &Observation) -> Key<'_> {
            let ids = [&r.account_id, &r.entity_kind, &r.entity_id, &r.kind, &r.subject_kind, &r.subject].map(|s| s.as_str());
            (r.time, ids, r.score_milli, &r.evidence, r.region.as_deref(), [&r.entity_name, &r.subject_name])
        }
        rows.sort_by(|a, b| key(a).cmp(&key(b)));
    }

    fn columns(rows: &[Self]) -> Columns {
        let mut c = Columns::new();
        c.time("time", rows.iter().map(|r| Some(r.time)))
            .text("account_id", rows.iter().map(|r| r.account_id.as_str()))
            .maybe_text("region", rows.iter().map(|r| r.region.as_deref()))
            .text("entity_kind", rows.iter().map(|r| r.entity_kind.as_str()))
            .text("entity_id", rows.iter().map(|r| r.entity_id.as_str()))
            .text("entity_name", rows.iter().map(|r| r.entity_name.as_str()))
            .text("kind", rows.iter().map(|r| r.kind.as_str()))
            .text("subject_kind", rows.iter().map(|r| r.subject_kind.as_str()))
            .text("subject", rows.iter().map(|r| r.subject.as_str()))
            .text("subject_name", rows.iter().map(|r| r.subject_name.as_str()))
            .milli("score", rows.iter().map(|r| r.score_milli))
            .structs("evidence", rows.iter().map(|r| r.evidence.as_slice()), evidence);
        c
    }
}

impl Timed for Observation {
    fn time(&self) -> EventTime {
        self.time
    }
}
