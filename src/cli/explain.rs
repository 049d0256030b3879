//! `flowtrail explain`: one finding as it is stored, for people, in at most 100 columns.
//!
//! Names come from logs and are hostile: everything is escaped before it is printed.

use std::fmt::Write as _;

use flowtrail_detect::Finding;
use flowtrail_ingest::escaped;
use flowtrail_sink::tables::findings::{FindingRow, Status};

use super::stored::{findings, open};
use super::{ExplainArgs, Failure};
use crate::config::AwsConfig;
use crate::input::Inputs;
use crate::wrap::{field, para, paras};

/// Prints a finding. Exit 1 when there is none with that id.
///
/// # Errors
/// See [`Failure`].
pub fn explain(args: &ExplainArgs) -> Result<i32, Failure> {
    if args.finding_id.trim().is_empty() {
        return Err(Failure::Usage("the FINDING_ID is empty: give it, or its beginning".to_owned()));
    }
    let store = open(&args.out)?;
    let all = findings(store.as_ref())?;
    let wanted = args.finding_id.trim().to_ascii_lowercase();
    let hits: Vec<&FindingRow> = all.values().filter(|r| r.finding.finding_id.starts_with(&wanted)).collect();
    let row = match hits.as_slice() {
        [row] => *row,
        [] => {
            return Err(Failure::Work(format!(
                "there is no finding {:?} in {}; its {} findings are in the table findings",
                args.finding_id,
                store.describe(),
                all.len()
            )));
        }
        several => {
            return Err(Failure::Work(format!("{} findings begin with {:?}: give more of the id", several.len(), args.finding_id)));
        }
    };
    print!("{}", finding_text(row));
    if !args.raw.is_empty() {
        print!("{}", raw(&row.finding, &args.raw)?);
    }
    Ok(0)
}

fn finding_text(row: &FindingRow) -> String {
    let f = &row.finding;
    let mut out = String::new();
    para(&mut out, "", &f.title);
    out.push('\n');
    let state = match (row.status, row.sealed) {
        (Status::Withdrawn, _) => "withdrawn",
        (_, true) => "final",
        (_, false) => "a first look, may still be withdrawn",
    };
    field(&mut out, "severity", &format!("{} (surprise {:.1})", f.severity.as_str(), f.score_milli as f64 / 1000.0));
    field(&mut out, "state", &format!("revision {}, {state}", row.revision));
    field(&mut out, "when", &format!("{} to {} (hours {} to {})", f.first_seen, f.last_seen, f.window_start, f.window_end));
    let place = f.region.as_deref().map(|r| format!(", {r}")).unwrap_or_default();
    field(&mut out, "account", &format!("{}{place}", f.account_id));
    field(&mut out, f.entity_kind.as_str(), &format!("{} ({})", f.entity_name, f.entity_id));
    field(&mut out, "attribution", &f.attribution);
    for c in &f.candidates {
        field(&mut out, "", &format!("{:>3} %  {}: {}", c.weight_milli / 10, c.arn, c.evidence));
    }
    let name = if f.subject_name == f.subject { String::new() } else { format!(" ({})", f.subject_name) };
    field(&mut out, "subject", &format!("{} {}{name}", f.subject_kind, f.subject));
    if let Some(ip) = f.peer_ip {
        let port = f.peer_port.map(|p| format!(" port {p}")).unwrap_or_default();
        let protocol = f.protocol.map(|p| format!(" protocol {p}")).unwrap_or_default();
        field(&mut out, "peer", &format!("{ip}{port}{protocol}"));
    }
    field(&mut out, "counts", &format!("{} events, {} bytes out, {} bytes in", f.count, f.bytes_out, f.bytes_in));
    if !f.tactics.is_empty() || !f.techniques.is_empty() {
        field(&mut out, "ATT&CK", &format!("{} {}", f.tactics.join(" "), f.techniques.join(" ")));
    }
    out.push('\n');
    paras(&mut out, "", &f.explanation);
    if !f.evidence_terms.is_empty() {
        out.push_str("\nwhy\n");
        for term in &f.evidence_terms {
            para(&mut out, "  ", &format!("{:.1} {}: {}", term.s_milli as f64 / 1000.0, term.kind, term.says));
        }
    }
    out.push_str("\nnext steps\n");
    paras(&mut out, "  ", &f.next_steps);
    out.push_str("\nevidence\n");
    for e in &f.evidence {
        let event = e.event_id.as_deref().map(|id| format!(", event {id}")).unwrap_or_default();
        para(&mut out, "  ", &format!("{}:{} position {}{event}", e.source, e.key, e.position));
    }
    field(&mut out, "learned", &f.learned);
    field(&mut out, "thresholds", &f.parameters);
    field(&mut out, "coverage", &format!("{:.0} %", f.coverage_milli as f64 / 10.0));
    if let Some(by) = &f.suppressed_by {
        field(&mut out, "muted by", by);
    }
    field(&mut out, "id", &format!("{} ({} version {})", f.finding_id, f.detector, f.detector_version));
    out
}

/// The cited records, found in the inputs.
fn raw(finding: &Finding, inputs: &[String]) -> Result<String, Failure> {
    use flowtrail_ingest::inflate::{Inflater, Limits, is_gzip};
    let inputs = Inputs::open(inputs, &AwsConfig::default())?;
    let listed = inputs.list()?;
    let mut out = "\nrecords\n".to_owned();
    let mut missing = Vec::new();
    for evidence in &finding.evidence {
        // The same object may lie elsewhere now: its identity is the key from AWSLogs/ on.
        let id = flowtrail_ingest::UnitId::of_key(&evidence.key);
        let object = listed
            .objects
            .iter()
            .find(|o| *o.meta.key == *evidence.key || (id.is_some() && flowtrail_ingest::UnitId::of_key(&o.meta.key) == id));
        let Some(object) = object else {
            missing.push(evidence.key.to_string());
            continue;
        };
        let mut bytes = inputs.fetch(object)?;
        if is_gzip(&bytes) {
            let mut content = Vec::new();
            Inflater::default()
                .inflate(&bytes, &mut content, Limits::default())
                .map_err(|e| Failure::Work(format!("{}: {e}", object.meta.key)))?;
            bytes = content;
        }
        let record = match &evidence.event_id {
            Some(event_id) => event(&bytes, event_id),
            None => usize::try_from(evidence.position)
                .ok()
                .and_then(|line| bytes.split(|b| *b == b'\n').nth(line.checked_sub(1)?))
                .map(<[u8]>::to_vec),
        };
        match record {
            // Raw records are shown whole: they are for copying, so they are not wrapped.
            Some(record) => {
                let _ = writeln!(out, "{}", escaped(&record));
            }
            None => missing.push(format!("{} position {}", evidence.key, evidence.position)),
        }
    }
    for key in missing {
        para(&mut out, "  ", &format!("not found in the inputs: {key}"));
    }
    Ok(out)
}

fn event(bytes: &[u8], event_id: &str) -> Option<Vec<u8>> {
    let mut found = None;
    flowtrail_ingest::cloudtrail::read(bytes, &mut |item| {
        if let flowtrail_ingest::Item::Call(call) = item
            && call.event_id.as_deref() == Some(event_id)
        {
            found = Some(flowtrail_ingest::cloudtrail::one_line(call.raw).into_owned());
        }
    });
    found
}
