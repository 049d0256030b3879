//! `flowtrail explain` and `flowtrail entity`: what is stored, for people, in at most 100 columns.
//!
//! Names come from logs and are hostile: everything is escaped before it is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use flowtrail_detect::Finding;
use flowtrail_ingest::escaped;
use flowtrail_sink::tables::findings::{FindingRow, Status, read_findings};
use flowtrail_sink::tables::read_rows;
use flowtrail_sink::{Store, StoreOptions, Table, store};
use serde_json::{Map, Value};

use super::{EntityArgs, ExplainArgs, Failure};
use crate::config::AwsConfig;
use crate::input::Inputs;
use crate::wrap::wrap;

fn open(out: &str) -> Result<Arc<dyn Store>, Failure> {
    if !out.contains("://") && !std::path::Path::new(out).is_dir() {
        return Err(Failure::Work(format!("there is no folder {out}: give the --out that replay or run wrote to")));
    }
    store::open(out, &StoreOptions::default()).map_err(|e| Failure::Work(e.to_string()))
}

fn files(store: &dyn Store, table: Table) -> Result<Vec<String>, Failure> {
    let keys = store.list(&format!("{}/", table.name())).map_err(|e| Failure::Work(e.to_string()))?;
    Ok(keys.into_iter().map(|(key, _)| key).filter(|k| k.ends_with(".parquet")).collect())
}

fn get(store: &dyn Store, key: &str) -> Result<Vec<u8>, Failure> {
    let bytes = store.get(key).map_err(|e| Failure::Work(e.to_string()))?;
    bytes.ok_or_else(|| Failure::Work(format!("{key} in {} has gone while it was read: try again", store.describe())))
}

/// Every finding's last revision.
fn findings(store: &dyn Store) -> Result<BTreeMap<String, FindingRow>, Failure> {
    let mut last: BTreeMap<String, FindingRow> = BTreeMap::new();
    for key in files(store, Table::Findings)? {
        let rows = read_findings(get(store, &key)?).map_err(|e| Failure::Work(format!("{key}: {e}")))?;
        for row in rows {
            match last.get(&row.finding.finding_id) {
                Some(old) if old.revision >= row.revision => {}
                _ => {
                    last.insert(row.finding.finding_id.clone(), row);
                }
            }
        }
    }
    Ok(last)
}

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
    field(&mut out, "subject", &format!("{} {} ({})", f.subject_kind, f.subject, f.subject_name));
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
        let object = listed.objects.iter().find(|o| {
            o.meta.key == evidence.key || (id.is_some() && flowtrail_ingest::UnitId::of_key(&o.meta.key) == id)
        });
        let Some(object) = object else {
            missing.push(evidence.key.clone());
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

/// Prints what is known of an entity. Exit 1 when nothing is.
///
/// # Errors
/// See [`Failure`].
pub fn entity(args: &EntityArgs) -> Result<i32, Failure> {
    let name = args.name.trim();
    if name.is_empty() {
        return Err(Failure::Usage("the NAME is empty: give an ARN, function name, interface, address or principal".to_owned()));
    }
    let store = open(&args.out)?;
    let mut out = String::new();
    let owners = latest_owners(rows(store.as_ref(), Table::EniOwners)?);
    let text = |row: &Map<String, Value>, column: &str| row.get(column).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is = |value: &str| value == name || value.rsplit([':', '/']).next() == Some(name);
    let lists = |row: &Map<String, Value>| {
        row.get("candidates")
            .and_then(Value::as_array)
            .is_some_and(|c| c.iter().any(|c| c.get("arn").and_then(Value::as_str).is_some_and(is)))
    };
    let mut held: Vec<&Map<String, Value>> = owners
        .iter()
        .filter(|r| ["eni_id", "ip", "owner", "owner_name"].iter().any(|c| is(&text(r, c))) || lists(r))
        .collect();
    held.sort_by_key(|r| (text(r, "account_id"), text(r, "eni_id"), text(r, "valid_from")));
    if !held.is_empty() {
        let _ = writeln!(out, "interfaces ({})", held.len());
        for row in held.iter().take(40) {
            let until = Some(text(row, "valid_to")).filter(|t| !t.is_empty()).unwrap_or_else(|| "now".to_owned());
            let since = Some(text(row, "valid_from")).filter(|t| !t.is_empty()).unwrap_or_else(|| "the beginning".to_owned());
            para(
                &mut out,
                "  ",
                &format!(
                    "{} {} in {} {} {}: {} {} ({}), from {since} to {until}: {}",
                    text(row, "eni_id"),
                    text(row, "ip"),
                    text(row, "account_id"),
                    text(row, "region"),
                    text(row, "vpc_id"),
                    text(row, "owner_kind"),
                    text(row, "owner_name"),
                    text(row, "attribution"),
                    text(row, "evidence"),
                ),
            );
            for c in row.get("candidates").and_then(Value::as_array).into_iter().flatten() {
                let share = c.get("weight").and_then(Value::as_f64).unwrap_or_default() * 100.0;
                let arn = c.get("arn").and_then(Value::as_str).unwrap_or_default();
                para(&mut out, "      ", &format!("{share:.0} %  {arn}"));
            }
        }
        if held.len() > 40 {
            let _ = writeln!(out, "  … and {} more in the table eni_owners", held.len() - 40);
        }
    }
    let profiles = rows(store.as_ref(), Table::Profiles)?;
    let newest = profiles.iter().map(|r| text(r, "dt")).max().unwrap_or_default();
    let known: Vec<&Map<String, Value>> =
        profiles.iter().filter(|r| text(r, "dt") == newest && (is(&text(r, "entity_id")) || is(&text(r, "entity_name")))).collect();
    for row in &known {
        let _ = writeln!(out, "what is normal");
        para(&mut out, "  ", &format!("{} {} ({})", text(row, "entity_kind"), text(row, "entity_name"), text(row, "entity_id")));
        let number = |column: &str| row.get(column).and_then(Value::as_i64).unwrap_or_default();
        para(
            &mut out,
            "  ",
            &format!("{}: {} days old, {} active hours", text(row, "state"), number("age_days"), number("active_hours")),
        );
        for column in ["peers", "actions", "ports", "rates"] {
            let value = text(row, column);
            if !value.is_empty() && value != "{}" && value != "[]" && value != "null" {
                para(&mut out, "  ", &format!("{column}: {value}"));
            }
        }
    }
    let all = findings(store.as_ref())?;
    let mut about: Vec<&FindingRow> = all
        .values()
        .filter(|r| {
            let f = &r.finding;
            r.status != Status::Withdrawn
                && (is(&f.entity_id)
                    || is(&f.entity_name)
                    || is(&f.subject)
                    || f.peer_ip.is_some_and(|ip| ip.to_string() == name)
                    || f.candidates.iter().any(|c| is(&c.arn)))
        })
        .collect();
    about.sort_by_key(|r| (r.finding.window_start, r.finding.finding_id.clone()));
    if !about.is_empty() {
        let _ = writeln!(out, "findings ({})", about.len());
        for row in about.iter().rev().take(20) {
            let f = &row.finding;
            para(&mut out, "  ", &format!("{} {} {}: {}", f.window_start, f.severity.as_str(), f.title, f.finding_id));
        }
    }
    if out.is_empty() {
        return Err(Failure::Work(format!(
            "nothing is known of {:?} in {}: give an ARN, function name, interface, address or principal as the tables have it",
            name,
            store.describe()
        )));
    }
    let seen: BTreeSet<&str> = about.iter().map(|r| r.finding.entity_id.as_str()).collect();
    if known.is_empty() && !seen.is_empty() {
        // A network entity's profile goes by its group.
        for id in seen {
            para(&mut out, "", &format!("its behaviour is learned for {id}: ask for that entity"));
        }
    }
    para(
        &mut out,
        "",
        "Functions outside a VPC have no flow logs: of those only API calls are visible. Names marked candidates are not proven.",
    );
    print!("{out}");
    Ok(0)
}

/// All rows of a table with `dt` from the folder's name.
fn rows(store: &dyn Store, table: Table) -> Result<Vec<Map<String, Value>>, Failure> {
    let mut all = Vec::new();
    for key in files(store, table)? {
        let day = key.split('/').find_map(|p| p.strip_prefix("dt=")).unwrap_or_default().to_owned();
        for mut row in read_rows(get(store, &key)?).map_err(|e| Failure::Work(format!("{key}: {e}")))? {
            row.insert("dt".to_owned(), Value::String(day.clone()));
            all.push(row);
        }
    }
    Ok(all)
}

/// Of a full snapshot per account and day the latest wins.
fn latest_owners(rows: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
    let text = |row: &Map<String, Value>, column: &str| row.get(column).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut latest: BTreeMap<String, String> = BTreeMap::new();
    for row in &rows {
        let day = latest.entry(text(row, "account_id")).or_default();
        *day = text(row, "dt").max(std::mem::take(day));
    }
    rows.into_iter().filter(|r| latest.get(&text(r, "account_id")) == Some(&text(r, "dt"))).collect()
}

fn field(out: &mut String, name: &str, value: &str) {
    let first = format!("{name:<12} ");
    wrap(out, &first, &" ".repeat(first.len().min(24)), value);
}

fn para(out: &mut String, indent: &str, text: &str) {
    wrap(out, indent, indent, text);
}

/// A text of several lines: each is wrapped by itself. Names in it were escaped line by line when it was made.
fn paras(out: &mut String, indent: &str, text: &str) {
    for line in text.lines() {
        para(out, indent, line);
    }
}
