//! `eni_owners`: who held an interface when. A full snapshot per account and day; the latest `dt` wins.

use flowtrail_enrich::EniOwnerRow;

use super::findings::candidates;
use super::{Columns, Row, Table};

impl Row for EniOwnerRow {
    const TABLE: Table = Table::EniOwners;

    fn sort(rows: &mut [Self]) {
        rows.sort();
    }

    fn columns(rows: &[Self]) -> Columns {
        let mut c = Columns::new();
        c.text("account_id", rows.iter().map(|r| r.account_id.as_str()))
            .text("region", rows.iter().map(|r| r.region.as_str()))
            .maybe_text("vpc_id", rows.iter().map(|r| r.vpc_id.as_deref()))
            .maybe_text("subnet_id", rows.iter().map(|r| r.subnet_id.as_deref()))
            .text("eni_id", rows.iter().map(|r| r.eni_id.as_str()))
            .maybe_text("ip", rows.iter().map(|r| r.ip.map(|ip| ip.to_string())))
            .text("owner_kind", rows.iter().map(|r| r.owner_kind.as_str()))
            .maybe_text("owner", rows.iter().map(|r| r.owner.as_deref()))
            .maybe_text("owner_name", rows.iter().map(|r| r.owner_name.as_deref()))
            .text("attribution", rows.iter().map(|r| r.attribution.as_str()))
            .structs("candidates", rows.iter().map(|r| r.candidates.as_slice()), candidates)
            .time("valid_from", rows.iter().map(|r| r.valid_from))
            .time("valid_to", rows.iter().map(|r| r.valid_to))
            .text("evidence", rows.iter().map(|r| r.evidence.as_str()));
        c
    }
}
