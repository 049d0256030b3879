//! `profiles`: what is normal for an entity, as of the end of a day.

use flowtrail_detect::ProfileRow;

use super::{Columns, Row, Table};

impl Row for ProfileRow {
    const TABLE: Table = Table::Profiles;

    fn sort(rows: &mut [Self]) {
        rows.sort_by(|a, b| {
            (&a.account_id, &a.region, &a.entity_kind, &a.entity_id).cmp(&(&b.account_id, &b.region, &b.entity_kind, &b.entity_id))
        });
    }

    fn columns(rows: &[Self]) -> Columns {
        let mut c = Columns::new();
        c.text("account_id", rows.iter().map(|r| r.account_id.as_str()))
            .maybe_text("region", rows.iter().map(|r| r.region.as_deref()))
            .text("entity_kind", rows.iter().map(|r| r.entity_kind.as_str()))
            .text("entity_id", rows.iter().map(|r| r.entity_id.as_str()))
            .text("entity_name", rows.iter().map(|r| r.entity_name.as_str()))
            .int("age_days", rows.iter().map(|r| Some(r.age_days)))
            .long("active_hours", rows.iter().map(|r| Some(r.active_hours)))
            .text("state", rows.iter().map(|r| r.state.as_str()))
            .text("peers", rows.iter().map(|r| r.peers.as_str()))
            .text("actions", rows.iter().map(|r| r.actions.as_str()))
            .text("ports", rows.iter().map(|r| r.ports.as_str()))
            .text("rates", rows.iter().map(|r| r.rates.as_str()));
        c
    }
}
