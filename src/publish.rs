//! From verdicts to table files: which findings are new, revised or withdrawn, and the rows of every table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use flowtrail_detect::{Finding, Observation, ProfileRow, Severity};
use flowtrail_enrich::EniOwnerRow;
use flowtrail_ingest::{Day, EventTime, Hour, KeyFacts, escaped};
use flowtrail_sink::tables::coverage::CoverageRow;
use flowtrail_sink::tables::findings::{FindingRow, Status};
use flowtrail_sink::tables::set_aside::{QuarantineRow, RejectRow};
use flowtrail_sink::tables::{files, snapshot};
use flowtrail_sink::{Table, TableFile};

use crate::coverage::Coverage;
use crate::judging::Attribution;
use crate::lane::{Ended, Kept, Known, UnitRecord};
use crate::reader::UnitReport;
use crate::summary::{Findings, Loudest};

/// Compares what stands with what was published: rows for what is new, changed or gone. Updates `kept`.
///
/// `within`: only findings of these days are judged anew; others stay as they are. `None`: all.
pub fn revise(
    kept: &mut BTreeMap<String, Kept>,
    standing: Vec<(Finding, bool)>,
    within: Option<&dyn Fn(&Finding) -> bool>,
    seen_at: EventTime,
) -> Vec<FindingRow> {
    let mut rows = Vec::new();
    let mut stand = BTreeSet::new();
    for (finding, sealed) in standing {
        stand.insert(finding.finding_id.clone());
        let (revision, status) = match kept.get(&finding.finding_id) {
            None => (1, Status::New),
            Some(old) if *old.finding == finding && old.sealed == sealed && !old.withdrawn => continue,
            Some(old) => (old.revision.saturating_add(1), Status::Updated),
        };
        let finding = Arc::new(finding);
        kept.insert(finding.finding_id.clone(), Kept { finding: Arc::clone(&finding), revision, withdrawn: false, sealed });
        rows.push(row(finding, revision, status, sealed, seen_at));
    }
    for (id, old) in kept.iter_mut() {
        if old.withdrawn || stand.contains(id) || within.is_some_and(|within| !within(&old.finding)) {
            continue;
        }
        old.withdrawn = true;
        old.revision = old.revision.saturating_add(1);
        rows.push(row(Arc::clone(&old.finding), old.revision, Status::Withdrawn, old.sealed, seen_at));
    }
    rows
}

fn row(finding: Arc<Finding>, revision: i32, status: Status, sealed: bool, seen_at: EventTime) -> FindingRow {
    // The evidence's objects say by their names when AWS had written them.
    let objects = finding.evidence.chunk_by(|a, b| a.key == b.key);
    let delivered_at = objects.filter_map(|same| KeyFacts::of_key(&same[0].key).time).max();
    FindingRow { finding, revision, status, sealed, delivered_at, seen_at }
}

/// Findings that stand, by severity.
#[must_use]
pub fn count(known: &Known) -> Findings {
    let mut counts = known.tally;
    for kept in known.findings.values().filter(|k| !k.withdrawn) {
        counts[rank(kept.finding.severity)] += 1;
    }
    let [informational, low, medium, high, critical] = counts;
    Findings { informational, low, medium, high, critical }
}

/// A severity's place in counts by severity.
#[must_use]
pub fn rank(severity: Severity) -> usize {
    match severity {
        Severity::Informational => 0,
        Severity::Low => 1,
        Severity::Medium => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

/// How many findings the summary names.
const LOUDEST: usize = 10;

/// Of the findings that stand and are medium or more, the gravest and then the latest ones; what a suppression mutes is left out.
#[must_use]
pub fn loudest(kept: &BTreeMap<String, Kept>) -> Vec<Loudest> {
    let mut loud: Vec<&Finding> = kept
        .values()
        .filter(|k| !k.withdrawn && k.finding.severity >= Severity::Medium && k.finding.suppressed_by.is_none())
        .map(|k| &*k.finding)
        .collect();
    loud.sort_by(|a, b| (b.severity, b.first_seen, &b.finding_id).cmp(&(a.severity, a.first_seen, &a.finding_id)));
    loud.into_iter()
        .take(LOUDEST)
        .map(|f| Loudest {
            severity: f.severity.as_str(),
            first_seen: f.first_seen,
            title: f.title.clone(),
            finding_id: f.finding_id.clone(),
        })
        .collect()
}

/// Rows of one commit, by table.
#[derive(Default)]
pub struct Rows {
    /// Appended.
    pub findings: Vec<FindingRow>,
    /// Replaced whole.
    pub observations: Option<Vec<Observation>>,
    /// Replaced whole.
    pub profiles: Option<(Day, Vec<ProfileRow>)>,
    /// Replaced whole.
    pub eni_owners: Option<(Day, Vec<EniOwnerRow>)>,
    /// Replaced whole.
    pub coverage: Option<Vec<CoverageRow>>,
    /// … of hours that are not sealed, in files of their own: `run` writes these hours anew.
    pub open_coverage: Vec<CoverageRow>,
    /// Appended.
    pub rejects: Vec<RejectRow>,
    /// Appended.
    pub late: Vec<flowtrail_sink::tables::set_aside::LateRow>,
    /// Appended.
    pub quarantine: Vec<QuarantineRow>,
}

/// Where the state names the files of `coverage` that a replay wrote of hours that are not sealed.
pub const OPEN_COVERAGE: &str = "coverage of open hours";

/// Encodes rows into files, of the tables that are wanted. The second part names the tables that are replaced whole.
///
/// # Errors
/// When rows cannot be encoded.
pub fn encode(rows: Rows, wanted: &[String]) -> Result<(Vec<TableFile>, Vec<Table>)> {
    let on = |table: Table| wanted.iter().any(|w| w == table.name());
    let mut out = Vec::new();
    let mut replaced = Vec::new();
    if on(Table::Findings) {
        out.extend(files(rows.findings)?);
    }
    if let Some(observations) = rows.observations
        && on(Table::Observations)
    {
        out.extend(files(observations)?);
        replaced.push(Table::Observations);
    }
    if let Some((day, profiles)) = rows.profiles
        && on(Table::Profiles)
    {
        out.extend(snapshot(day, profiles)?);
        replaced.push(Table::Profiles);
    }
    if let Some((day, owners)) = rows.eni_owners
        && on(Table::EniOwners)
    {
        out.extend(snapshot(day, owners)?);
        replaced.push(Table::EniOwners);
    }
    if let Some(coverage) = rows.coverage
        && on(Table::Coverage)
    {
        out.extend(files(coverage)?);
        replaced.push(Table::Coverage);
    }
    if on(Table::Rejects) {
        out.extend(files(rows.rejects)?);
    }
    if on(Table::Late) {
        out.extend(files(rows.late)?);
    }
    if on(Table::Quarantine) {
        out.extend(files(rows.quarantine)?);
    }
    Ok((out, replaced))
}

/// The time that a unit's rows are filed under.
#[must_use]
pub fn unit_time(record: &UnitRecord, otherwise: EventTime) -> EventTime {
    record.delivered_at.or(record.hour.map(Hour::start)).unwrap_or(otherwise)
}

/// What a unit set aside: its rejects, and itself when it is quarantined or was salvaged.
pub fn set_aside(rows: &mut Rows, report: &UnitReport, now: EventTime) {
    let record = &report.record;
    let time = unit_time(record, now);
    for reject in &report.rejects {
        rows.rejects.push(RejectRow {
            time,
            source: record.source.clone(),
            key: record.key.clone(),
            position: Some(reject.position.0),
            reason: escaped(reject.reason.as_bytes()),
            sample: reject.sample.clone(),
        });
    }
    let unsaid = record.rejects.saturating_sub(report.rejects.len() as u64);
    if unsaid > 0 {
        rows.rejects.push(RejectRow {
            time,
            source: record.source.clone(),
            key: record.key.clone(),
            position: None,
            reason: format!("{unsaid} more rejects of this unit are counted and not listed"),
            sample: String::new(),
        });
    }
    if matches!(record.ended, Ended::Quarantined | Ended::Salvaged) {
        rows.quarantine.push(QuarantineRow {
            time,
            source: record.source.clone(),
            key: record.key.clone(),
            position: None,
            reason: escaped(record.reason.as_bytes()),
            sample: String::new(),
        });
    }
}

/// Coverage from the ledger: units by (hour, stream, account, region), with attribution by account and hour.
#[must_use]
pub fn coverage(known: &Known, attribution: &BTreeMap<(String, Hour), Attribution>) -> Vec<CoverageRow> {
    let mut coverage = Coverage::default();
    known.ledger.values().for_each(|unit| coverage.add_unit(unit));
    for ((account, hour), counts) in attribution {
        coverage.add_attribution(account, *hour, counts);
    }
    coverage.rows_before(Hour(i32::MAX))
}
