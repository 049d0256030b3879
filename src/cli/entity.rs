//! `flowtrail entity`: what is known of a function, interface, address or principal, for people, in at most 100 columns.
//!
//! Names come from logs and are hostile: everything is escaped before it is printed (see [`crate::wrap`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use flowtrail_sink::tables::findings::{FindingRow, Status};
use flowtrail_sink::{Store, Table};
use serde_json::Value;

use super::stored::{self, Row, text};
use super::{EntityArgs, Failure};
use crate::wrap::{para, wrap};

/// Interfaces, findings and changes that are shown; how many more there are is said.
const SHOWN: usize = 40;

/// Prints what is known of an entity. Exit 1 when nothing is.
///
/// # Errors
/// See [`Failure`].
pub fn entity(args: &EntityArgs) -> Result<i32, Failure> {
    let name = args.name.trim();
    if name.is_empty() {
        return Err(Failure::Usage("the NAME is empty: give an ARN, function name, interface, address or principal".to_owned()));
    }
    let store = stored::open(&args.out)?;
    let asked = Asked(name);
    let mut out = String::new();
    asked.interfaces(store.as_ref(), &mut out)?;
    let has_profile = asked.profiles(store.as_ref(), &mut out)?;
    asked.changes(store.as_ref(), &mut out)?;
    let others = asked.findings(store.as_ref(), &mut out)?;
    if out.is_empty() {
        return Err(Failure::Work(format!(
            "nothing is known of {name:?} in {}: give an ARN, function name, interface, address or principal as the tables have it",
            store.describe()
        )));
    }
    out.push('\n');
    if !has_profile {
        // A network entity's profile goes by its group.
        for id in others {
            para(&mut out, "", &format!("Its behaviour is learned for {id}: ask for that entity."));
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

/// The name that was asked for.
struct Asked<'a>(&'a str);

impl Asked<'_> {
    /// The value is that name, or an ARN or path that ends with it.
    fn is(&self, value: &str) -> bool {
        value == self.0 || value.rsplit([':', '/']).next() == Some(self.0)
    }

    fn among_candidates(&self, row: &Row) -> bool {
        candidates(row).any(|(arn, _)| self.is(arn))
    }

    /// Who held its interfaces, or the interfaces that it held: one heading an interface, one line a period.
    fn interfaces(&self, store: &dyn Store, out: &mut String) -> Result<(), Failure> {
        let rows = latest(stored::rows(store, Table::EniOwners)?, |row| text(row, "account_id").to_owned());
        let mut held: BTreeMap<[&str; 5], Vec<&Row>> = BTreeMap::new();
        let named =
            |row: &&Row| ["eni_id", "ip", "owner", "owner_name"].iter().any(|c| self.is(text(row, c))) || self.among_candidates(row);
        for row in rows.iter().filter(named) {
            held.entry(["account_id", "region", "vpc_id", "eni_id", "ip"].map(|c| text(row, c))).or_default().push(row);
        }
        if held.is_empty() {
            return Ok(());
        }
        heading(out, &format!("interfaces ({})", held.len()));
        for ([account, region, vpc, eni, ip], periods) in held.iter_mut().take(SHOWN) {
            para(out, "  ", &format!("{eni}  {ip}  account {account} {region} {vpc}"));
            periods.sort_by_key(|row| text(row, "valid_from"));
            for row in periods.iter() {
                let when = match (text(row, "valid_from"), text(row, "valid_to")) {
                    ("", "") => "always".to_owned(),
                    ("", to) => format!("until {to}"),
                    (from, "") => format!("since {from}"),
                    (from, to) => format!("{from} to {to}"),
                };
                let owner = [text(row, "owner_kind"), text(row, "owner_name")].join(" ");
                let how = format!("{when}: {} ({}): {}", owner.trim(), text(row, "attribution"), text(row, "evidence"));
                wrap(out, "    ", "      ", &how);
                for (arn, weight) in candidates(row) {
                    wrap(out, "      ", "             ", &format!("{:>4.0} %  {arn}", weight * 100.0));
                }
            }
        }
        and_more(out, held.len(), "eni_owners");
        Ok(())
    }

    /// What is normal. True if there is a profile.
    fn profiles(&self, store: &dyn Store, out: &mut String) -> Result<bool, Failure> {
        let id = |row: &Row| format!("{}\0{}", text(row, "entity_kind"), text(row, "entity_id"));
        let rows = latest(stored::rows(store, Table::Profiles)?, id);
        let known: Vec<&Row> = rows.iter().filter(|r| self.is(text(r, "entity_id")) || self.is(text(r, "entity_name"))).collect();
        for row in &known {
            let number = |column: &str| row.get(column).and_then(Value::as_i64).unwrap_or_default();
            heading(out, &format!("what is normal for the {} {}", text(row, "entity_kind"), text(row, "entity_name")));
            para(out, "  ", text(row, "entity_id"));
            let (age, hours) = (counted(number("age_days"), "day"), counted(number("active_hours"), "active hour"));
            para(out, "  ", &format!("{}: known for {age}, with {hours}, as of {}", text(row, "state"), text(row, "dt")));
            for column in ["actions", "peers", "ports", "rates"] {
                if let Ok(Value::Object(what)) = serde_json::from_str(text(row, column)) {
                    learned(out, column, &what);
                }
            }
        }
        Ok(!known.is_empty())
    }

    /// Changes of it, and signals below a finding.
    fn changes(&self, store: &dyn Store, out: &mut String) -> Result<(), Failure> {
        let mut rows = stored::rows(store, Table::Observations)?;
        rows.retain(|r| self.is(text(r, "entity_id")) || self.is(text(r, "entity_name")) || self.is(text(r, "subject")));
        rows.sort_by(|a, b| text(b, "time").cmp(text(a, "time")));
        if rows.is_empty() {
            return Ok(());
        }
        heading(out, &format!("changes and signals ({}), newest first", rows.len()));
        for row in rows.iter().take(SHOWN) {
            let (kind, subject) = (text(row, "kind"), text(row, "subject_name"));
            let subject = if subject.is_empty() { text(row, "subject") } else { subject };
            let first = format!("  {}  ", text(row, "time"));
            wrap(out, &first, &" ".repeat(first.len()), &format!("{kind}: {subject}"));
        }
        and_more(out, rows.len(), "observations");
        Ok(())
    }

    /// Findings about it, newest first. Returns the entities they are about.
    fn findings(&self, store: &dyn Store, out: &mut String) -> Result<BTreeSet<String>, Failure> {
        let all = stored::findings(store)?;
        let mut about: Vec<&FindingRow> = all.values().filter(|r| r.status != Status::Withdrawn && self.is_told_of(r)).collect();
        about.sort_by_key(|r| (std::cmp::Reverse(r.finding.window_start), r.finding.finding_id.clone()));
        if !about.is_empty() {
            heading(out, &format!("findings ({}), newest first; all of one: flowtrail explain ID --out DIR", about.len()));
        }
        for row in about.iter().take(SHOWN) {
            let f = &row.finding;
            let id = f.finding_id.get(..12).unwrap_or(&f.finding_id);
            let first = format!("  {}  {:<13} {id}  ", f.window_start, f.severity.as_str());
            wrap(out, &first, &" ".repeat(first.len()), &f.title);
        }
        and_more(out, about.len(), "findings");
        Ok(about.iter().map(|r| r.finding.entity_id.to_string()).collect())
    }

    fn is_told_of(&self, row: &FindingRow) -> bool {
        let f = &row.finding;
        self.is(&f.entity_id)
            || self.is(&f.entity_name)
            || self.is(&f.subject)
            || f.peer_ip.is_some_and(|ip| ip.to_string() == self.0)
            || f.candidates.iter().any(|c| self.is(&c.arn))
    }
}

fn heading(out: &mut String, line: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    para(out, "", line);
}

fn and_more(out: &mut String, all: usize, table: &str) {
    if all > SHOWN {
        let _ = writeln!(out, "  … and {} more in the table {table}", all - SHOWN);
    }
}

fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// One column of a profile: a list of what is known with how often and since when, or plain numbers.
fn learned(out: &mut String, column: &str, what: &Row) {
    if what.is_empty() {
        return;
    }
    let Some(keys) = what.get("most_recent").and_then(Value::as_array) else {
        let numbers: Vec<String> = what.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
        wrap(out, &format!("  {column}: "), "    ", &numbers.join(", "));
        return;
    };
    let number = |name: &str| what.get(name).and_then(Value::as_f64).unwrap_or_default();
    let dynamic = if what.get("dynamic") == Some(&Value::Bool(true)) { ", more than are kept: new ones are only counted" } else { "" };
    let first = format!("  {column}: ");
    let known = number("known");
    wrap(out, &first, "    ", &format!("{known:.0} known, {:.1} recent hours with a new one{dynamic}", number("hours_with_new")));
    for key in keys {
        let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
        let hours = key.get("hours").and_then(Value::as_i64).unwrap_or_default();
        let lead = format!("    {:<10}  {} to {}  {hours:>5} h  ", text("seen"), text("first"), text("last"));
        wrap(out, &lead, &" ".repeat(lead.len()), text("name"));
    }
    if known > keys.len() as f64 {
        let _ = writeln!(out, "    … and {:.0} more", known - keys.len() as f64);
    }
}

/// (ARN, weight) of each candidate.
fn candidates(row: &Row) -> impl Iterator<Item = (&str, f64)> {
    row.get("candidates").and_then(Value::as_array).into_iter().flatten().filter_map(|c| {
        let weight = c.get("weight").and_then(Value::as_f64).unwrap_or_default();
        Some((c.get("arn")?.as_str()?, weight))
    })
}

/// Of full snapshots, one a day, those rows that are of the latest day of their kind.
fn latest(rows: Vec<Row>, kind: impl Fn(&Row) -> String) -> Vec<Row> {
    let mut newest: BTreeMap<String, String> = BTreeMap::new();
    for row in &rows {
        let day = newest.entry(kind(row)).or_default();
        if text(row, "dt") > day.as_str() {
            text(row, "dt").clone_into(day);
        }
    }
    rows.into_iter().filter(|row| newest.get(&kind(row)).map(String::as_str) == Some(text(row, "dt"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_snapshots_the_latest_counts() {
        let row = |account: &str, dt: &str| {
            let fields = [("account_id", account), ("dt", dt)];
            fields.into_iter().map(|(k, v)| (k.to_owned(), Value::String(v.to_owned()))).collect::<Row>()
        };
        let rows = vec![row("1", "2026-01-02"), row("1", "2026-01-03"), row("2", "2026-01-01"), row("1", "2026-01-03")];
        let kept = latest(rows, |r| text(r, "account_id").to_owned());
        assert_eq!(kept, [row("1", "2026-01-03"), row("2", "2026-01-01"), row("1", "2026-01-03")]);
    }

    #[test]
    fn what_is_learned_is_a_list_and_keeps_to_the_width() {
        let peers = r#"{"known":3,"dynamic":false,"hours_with_new":5.62,"most_recent":[
            {"name":"cache \u001b[31m","first":"2026-01-05","last":"2026-01-25","hours":150,"seen":"frequent"}]}"#;
        let mut out = String::new();
        learned(&mut out, "peers", &serde_json::from_str(peers).unwrap_or_default());
        learned(&mut out, "rates", &serde_json::from_str(r#"{"active_hours":404,"calls":965}"#).unwrap_or_default());
        assert_eq!(
            out,
            "  peers: 3 known, 5.6 recent hours with a new one\n    \
             frequent    2026-01-05 to 2026-01-25    150 h  cache \\u{1b}[31m\n    \
             … and 2 more\n  rates: active hours 404, calls 965\n"
        );
    }
}
