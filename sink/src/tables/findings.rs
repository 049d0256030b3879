//! `findings`: one row per revision.

use std::sync::Arc;

use flowtrail_detect::{EvidenceRef, Finding, Severity, Term};
use flowtrail_enrich::Candidate;
use flowtrail_ingest::{EventTime, Ip};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::columns::{from_milli, to_milli};
use super::{Columns, Row, Table, TableError, Timed, read_rows, rows_json};

/// What a revision says about its finding.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Said for the first time.
    #[default]
    New,
    /// Said again with other content.
    Updated,
    /// Taken back.
    Withdrawn,
}

impl Status {
    /// The word of the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Updated => "updated",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// One revision of a finding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FindingRow {
    /// The finding; who keeps it for the next run shares it.
    pub finding: Arc<Finding>,
    /// Counts from 1.
    pub revision: i32,
    /// New, updated or withdrawn.
    pub status: Status,
    /// False: a first look, may still be withdrawn.
    pub sealed: bool,
    /// When AWS had written the last record it rests on.
    pub delivered_at: Option<EventTime>,
    /// When we looked: the commit's one reading of the clock.
    pub seen_at: EventTime,
}

impl Row for FindingRow {
    const TABLE: Table = Table::Findings;

    fn sort(rows: &mut [Self]) {
        rows.sort_by(|a, b| {
            (a.finding.window_start, &a.finding.finding_id, a.revision).cmp(&(b.finding.window_start, &b.finding.finding_id, b.revision))
        });
    }

    fn columns(rows: &[Self]) -> Columns {
        let of = || rows.iter().map(|r| &r.finding);
        let mut c = Columns::new();
        c.text("finding_id", of().map(|f| f.finding_id.as_str()))
            .int("revision", rows.iter().map(|r| Some(r.revision)))
            .text("status", rows.iter().map(|r| r.status.as_str()))
            .flag("sealed", rows.iter().map(|r| r.sealed))
            .text("detector", of().map(|f| f.detector.as_str()))
            .int("detector_version", of().map(|f| Some(f.detector_version)))
            .maybe_text("rule_id", of().map(|f| f.rule_id.as_deref()))
            .text("severity", of().map(|f| f.severity.as_str()))
            .int("severity_id", of().map(|f| Some(f.severity as i32)))
            .milli("score", of().map(|f| f.score_milli))
            .text("title", of().map(|f| f.title.as_str()))
            .text("explanation", of().map(|f| f.explanation.as_str()))
            .text("next_steps", of().map(|f| f.next_steps.as_str()))
            .text("account_id", of().map(|f| f.account_id.as_str()))
            .maybe_text("account_name", of().map(|f| f.account_name.as_deref()))
            .maybe_text("region", of().map(|f| f.region.as_deref()))
            .text("entity_kind", of().map(|f| f.entity_kind.as_str()))
            .text("entity_id", of().map(|f| f.entity_id.as_str()))
            .text("entity_name", of().map(|f| f.entity_name.as_str()))
            .text("attribution", of().map(|f| f.attribution.as_str()))
            .structs("candidates", of().map(|f| f.candidates.as_slice()), candidates)
            .text("subject_kind", of().map(|f| f.subject_kind.as_str()))
            .text("subject", of().map(|f| f.subject.as_str()))
            .text("subject_name", of().map(|f| f.subject_name.as_str()))
            .maybe_text("peer_ip", of().map(|f| f.peer_ip.map(|ip| ip.to_string())))
            .int("peer_port", of().map(|f| f.peer_port))
            .int("protocol", of().map(|f| f.protocol))
            .maybe_text("direction", of().map(|f| f.direction.as_deref()))
            .maybe_text("event_source", of().map(|f| f.event_source.as_deref()))
            .maybe_text("event_name", of().map(|f| f.event_name.as_deref()))
            .time("window_start", of().map(|f| Some(f.window_start)))
            .time("window_end", of().map(|f| Some(f.window_end)))
            .time("first_seen", of().map(|f| Some(f.first_seen)))
            .time("last_seen", of().map(|f| Some(f.last_seen)))
            .long("count", of().map(|f| Some(f.count)))
            .long("bytes_out", of().map(|f| Some(f.bytes_out)))
            .long("bytes_in", of().map(|f| Some(f.bytes_in)))
            .texts("tactics", of().map(|f| f.tactics.as_slice()))
            .texts("techniques", of().map(|f| f.techniques.as_slice()))
            .text("learned", of().map(|f| f.learned.as_str()))
            .maybe_text("evidence_terms", of().map(|f| Some(terms_json(&f.evidence_terms))))
            .text("parameters", of().map(|f| f.parameters.as_str()))
            .structs("evidence", of().map(|f| f.evidence.as_slice()), evidence)
            .milli("coverage", of().map(|f| f.coverage_milli))
            .time("delivered_at", rows.iter().map(|r| r.delivered_at))
            .time("seen_at", rows.iter().map(|r| Some(r.seen_at)))
            .maybe_text("suppressed_by", of().map(|f| f.suppressed_by.as_deref()));
        c
    }
}

impl Timed for FindingRow {
    fn time(&self) -> EventTime {
        self.finding.window_start
    }
}

/// Members of `candidates`, which `eni_owners` has, too.
pub(super) fn candidates(all: &[&Candidate]) -> Columns {
    let mut c = Columns::new();
    c.text("arn", all.iter().map(|x| x.arn.as_str()))
        .milli("weight", all.iter().map(|x| i64::from(x.weight_milli)))
        .text("evidence", all.iter().map(|x| x.evidence.as_str()));
    c
}

/// Members of `evidence`, which `observations` has, too.
pub(super) fn evidence(all: &[&EvidenceRef]) -> Columns {
    let mut c = Columns::new();
    c.text("source", all.iter().map(|x| &*x.source))
        .text("key", all.iter().map(|x| &*x.key))
        .count("position", all.iter().map(|x| x.position))
        .maybe_text("event_id", all.iter().map(|x| x.event_id.as_deref()));
    c
}

fn terms_json(terms: &[Term]) -> String {
    terms.iter().map(|t| json!({"kind": t.kind, "s": from_milli(t.s_milli), "says": t.says})).collect::<Value>().to_string()
}

/// One JSON object on one line, with the columns of the table: for whoever feeds a SIEM from `--json-findings`.
#[must_use]
pub fn finding_json(row: &FindingRow) -> String {
    // Through the table's own columns, so that the two can never say different things.
    let batch = FindingRow::columns(std::slice::from_ref(row)).batch(Table::Findings);
    batch.ok().and_then(|b| rows_json(&b).pop()).map_or_else(|| "{}".to_owned(), |object| Value::Object(object).to_string())
}

/// The findings of a file, in its order. Columns that a file does not have are empty.
///
/// # Errors
/// When the bytes are not a table file.
pub fn read_findings(bytes: Vec<u8>) -> Result<Vec<FindingRow>, TableError> {
    Ok(read_rows(bytes)?.iter().map(|row| of_json(&Fields(row))).collect())
}

/// Typed access to a row by column name.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn opt(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(str::to_owned)
    }
    fn text(&self, name: &str) -> String {
        self.opt(name).unwrap_or_default()
    }
    fn long(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }
    fn int(&self, name: &str) -> Option<i32> {
        self.long(name)?.try_into().ok()
    }
    fn milli(&self, name: &str) -> i64 {
        self.0.get(name).and_then(Value::as_f64).map_or(0, to_milli)
    }
    fn time(&self, name: &str) -> Option<EventTime> {
        EventTime::parse(self.0.get(name)?.as_str()?)
    }
    fn objects<T>(&self, name: &str, make: impl Fn(&Fields<'_>) -> T) -> Vec<T> {
        let items = self.0.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().filter_map(Value::as_object).map(|o| make(&Fields(o))).collect()
    }
    fn texts(&self, name: &str) -> Vec<String> {
        let items = self.0.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

fn of_json(row: &Fields<'_>) -> FindingRow {
    let terms = row.opt("evidence_terms").and_then(|t| serde_json::from_str::<Vec<Map<String, Value>>>(&t).ok()).unwrap_or_default();
    let finding = Finding {
        finding_id: row.text("finding_id"),
        detector: row.text("detector"),
        detector_version: row.int("detector_version").unwrap_or_default(),
        rule_id: row.opt("rule_id"),
        severity: match row.long("severity_id") {
            Some(2) => Severity::Low,
            Some(3) => Severity::Medium,
            Some(4) => Severity::High,
            Some(5) => Severity::Critical,
            _ => Severity::Informational,
        },
        score_milli: row.milli("score"),
        title: row.text("title"),
        explanation: row.text("explanation"),
        next_steps: row.text("next_steps"),
        account_id: row.text("account_id"),
        account_name: row.opt("account_name"),
        region: row.opt("region"),
        entity_kind: row.text("entity_kind"),
        entity_id: row.text("entity_id"),
        entity_name: row.text("entity_name"),
        attribution: row.text("attribution"),
        candidates: row.objects("candidates", |c| Candidate {
            arn: c.text("arn"),
            weight_milli: u32::try_from(c.milli("weight")).unwrap_or_default(),
            evidence: c.text("evidence"),
        }),
        subject_kind: row.text("subject_kind"),
        subject: row.text("subject"),
        subject_name: row.text("subject_name"),
        peer_ip: row.opt("peer_ip").and_then(|ip| Ip::parse(&ip)),
        peer_port: row.int("peer_port"),
        protocol: row.int("protocol"),
        direction: row.opt("direction"),
        event_source: row.opt("event_source"),
        event_name: row.opt("event_name"),
        window_start: row.time("window_start").unwrap_or_default(),
        window_end: row.time("window_end").unwrap_or_default(),
        first_seen: row.time("first_seen").unwrap_or_default(),
        last_seen: row.time("last_seen").unwrap_or_default(),
        count: row.long("count").unwrap_or_default(),
        bytes_out: row.long("bytes_out").unwrap_or_default(),
        bytes_in: row.long("bytes_in").unwrap_or_default(),
        tactics: row.texts("tactics"),
        techniques: row.texts("techniques"),
        learned: row.text("learned"),
        evidence_terms: terms
            .iter()
            .map(Fields)
            .map(|t| Term { kind: t.text("kind"), s_milli: t.milli("s"), says: t.text("says") })
            .collect(),
        parameters: row.text("parameters"),
        evidence: row.objects("evidence", |e| EvidenceRef {
            source: e.text("source").into(),
            key: e.text("key").into(),
            position: e.long("position").and_then(|n| n.try_into().ok()).unwrap_or_default(),
            event_id: e.opt("event_id"),
        }),
        coverage_milli: row.milli("coverage"),
        suppressed_by: row.opt("suppressed_by"),
    };
    FindingRow {
        finding: Arc::new(finding),
        revision: row.int("revision").unwrap_or_default(),
        status: match row.opt("status").as_deref() {
            Some("updated") => Status::Updated,
            Some("withdrawn") => Status::Withdrawn,
            _ => Status::New,
        },
        sealed: row.0.get("sealed").and_then(Value::as_bool).unwrap_or_default(),
        delivered_at: row.time("delivered_at"),
        seen_at: row.time("seen_at").unwrap_or_default(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::encode;

    fn row(n: i64) -> FindingRow {
        let finding = Finding {
            finding_id: format!("{n:032x}"),
            detector: "new_peer".into(),
            detector_version: 1,
            severity: [Severity::Informational, Severity::Low, Severity::Medium, Severity::High, Severity::Critical][n as usize % 5],
            score_milli: 5_700 + n,
            title: "orders-worker met 203.0.113.5 → \"first time\"".into(),
            explanation: "line one\nline two".into(),
            account_id: "111122223333".into(),
            region: Some("eu-west-1".into()),
            candidates: vec![
                Candidate {
                    arn: "arn:aws:lambda:eu-west-1:111122223333:function:a".into(),
                    weight_milli: 667,
                    evidence: "configuration".into(),
                },
                Candidate { arn: "arn:aws:lambda:eu-west-1:111122223333:function:b".into(), weight_milli: 333, evidence: String::new() },
            ],
            peer_ip: Ip::parse("203.0.113.5"),
            peer_port: Some(443),
            window_start: EventTime(1_767_600_000 - n * 60),
            tactics: vec!["TA0011".into(), "TA0010".into()],
            learned: r#"{"peers":3}"#.into(),
            evidence_terms: vec![Term { kind: "novelty".into(), s_milli: 4_001, says: "never before in 14 days".into() }],
            evidence: vec![EvidenceRef { source: "folder".into(), key: "a.log.gz".into(), position: 17, event_id: None }],
            coverage_milli: 1000,
            ..Finding::default()
        };
        FindingRow {
            finding: Arc::new(finding),
            revision: 1 + n as i32,
            status: Status::Updated,
            sealed: n % 2 == 0,
            delivered_at: (n > 1).then_some(EventTime(n)),
            seen_at: EventTime(9),
        }
    }

    #[test]
    fn rows_come_back_sorted_by_time() {
        let bytes = encode((0..50).map(row).collect()).unwrap();
        let mut wanted: Vec<FindingRow> = (0..50).map(row).collect();
        wanted.reverse();
        assert_eq!(read_findings(bytes).unwrap(), wanted);
    }

    #[test]
    fn equal_rows_make_equal_bytes() {
        let once = encode((0..50).map(row).collect()).unwrap();
        let shuffled = encode((0..50).map(|n| row(n * 7 % 50)).collect()).unwrap();
        assert!(once == shuffled);
        assert!(once != encode((0..49).map(row).collect()).unwrap());
    }

    #[test]
    fn json_has_the_columns_of_the_table() {
        let object: Map<String, Value> = serde_json::from_str(&finding_json(&row(2))).unwrap();
        let schema = Table::Findings.schema();
        assert_eq!(object.keys().collect::<Vec<_>>(), schema.fields().iter().map(|f| f.name()).collect::<Vec<_>>());
        assert_eq!(object["score"], json!(5.702));
        assert_eq!(object["candidates"][0]["weight"], json!(0.667));
        assert_eq!(object["window_start"], json!("2026-01-05T07:58:00Z"));
        assert_eq!(object["evidence_terms"], json!(r#"[{"kind":"novelty","s":4.001,"says":"never before in 14 days"}]"#));
        assert_eq!(object["rule_id"], Value::Null);
        assert!(!finding_json(&row(2)).contains('\n'));
    }

    #[test]
    fn damaged_files_are_errors() {
        let good = encode((0..20).map(row).collect()).unwrap();
        for at in (0..good.len()).step_by(37) {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            let _ = read_findings(bad);
            assert!(read_findings(good[..at].to_vec()).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_finding_round_trips(score in -40_000i64..400_000, count in 0i64.., text in "\\PC{0,40}", start in -62_135_596_800i64..253_402_300_799, weights in proptest::collection::vec(0u32..1001, 0..4)) {
            let mut wanted = row(1);
            let finding = Arc::make_mut(&mut wanted.finding);
            finding.score_milli = score;
            finding.count = count;
            finding.title = text.clone();
            finding.suppressed_by = Some(text);
            finding.window_start = EventTime(start);
            finding.candidates = weights.iter().map(|w| Candidate { arn: format!("f{w}"), weight_milli: *w, evidence: String::new() }).collect();
            prop_assert_eq!(read_findings(encode(vec![wanted.clone()]).unwrap()).unwrap(), vec![wanted]);
        }
    }
}
