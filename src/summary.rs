//! The summary at the end of a replay or run: a table for people, or one JSON object (design/interface.md section 1).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use flowtrail_ingest::{EventTime, escaped};
use serde::Serialize;

use crate::wrap::wrap;

/// Everything that is said at the end. Units, records and rejects are of this call; findings and learning as they stand.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Units by how they ended.
    pub units: Units,
    /// Records by kind.
    pub records: Records,
    /// Sum over all flow records.
    pub flow_packets: u64,
    /// Sum over all flow records.
    pub flow_bytes: u64,
    /// Lines or records that could not be read.
    pub rejects: u64,
    /// Records that came after their hour was sealed.
    pub late_records: u64,
    /// Flow records with addresses by the owner of their own end.
    pub attribution: AttributionCounts,
    /// Outside `--from`, `--to`.
    pub out_of_range: u64,
    /// CloudTrail events by `eventType`.
    pub api_kinds: BTreeMap<String, u64>,
    /// Findings that stand, by severity.
    pub findings: Findings,
    /// Warm-up by detector.
    pub learning: BTreeMap<String, Learning>,
    /// Files that are none of AWS's logs or facts.
    pub unrecognised: Vec<String>,
    /// Units set aside.
    pub quarantined: Vec<Quarantined>,
    /// The gravest findings that stand, for the table.
    #[serde(skip)]
    pub loudest: Vec<Loudest>,
    /// Of this process.
    pub cpu_seconds: f64,
    /// Since the command began.
    pub wall_seconds: f64,
    /// Largest resident set.
    pub peak_rss_bytes: u64,
}

/// See [`Summary::units`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Units {
    /// Read and counted.
    pub applied: u64,
    /// Known already.
    pub duplicate: u64,
    /// After the seal.
    pub late: u64,
    /// Could not be read.
    pub quarantined: u64,
    /// By rule, or not recognised.
    pub ignored: u64,
}

impl Units {
    /// All of this call.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.applied + self.duplicate + self.late + self.quarantined + self.ignored
    }
}

/// See [`Summary::records`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Records {
    /// Flow records that parsed.
    pub flow: u64,
    /// … with log-status NODATA.
    pub nodata: u64,
    /// … with log-status SKIPDATA.
    pub skipdata: u64,
    /// … without time, interface, address or account.
    pub unplaced: u64,
    /// CloudTrail events admitted once.
    pub api: u64,
    /// Repeats of them.
    pub api_duplicate: u64,
    /// Insight, Aggregated and foreign events.
    pub api_ignored: u64,
    /// Facts learned from files.
    pub facts: u64,
}

/// See [`Summary::attribution`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct AttributionCounts {
    /// Proven.
    pub exact: u64,
    /// One of several, or a hint.
    pub candidates: u64,
    /// Not a function.
    pub other: u64,
    /// Nobody held it.
    pub unheld: u64,
    /// Nothing is known.
    pub unknown: u64,
}

/// See [`Summary::findings`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// OCSF 1.
    pub informational: u64,
    /// OCSF 2.
    pub low: u64,
    /// OCSF 3.
    pub medium: u64,
    /// OCSF 4.
    pub high: u64,
    /// OCSF 5.
    pub critical: u64,
}

/// See [`Summary::learning`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Learning {
    /// Entities known.
    pub entities: u64,
    /// Past warm-up.
    pub ready: u64,
    /// Day of warm-up of the oldest entity.
    #[serde(skip)]
    pub day: u32,
    /// Days that warm-up takes.
    #[serde(skip)]
    pub of: u32,
}

/// See [`Summary::quarantined`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Quarantined {
    /// Path, key or topic/partition@offset.
    pub source: String,
    /// Why.
    pub reason: String,
}

/// See [`Summary::loudest`].
#[derive(Clone, Debug, Default)]
pub struct Loudest {
    /// `medium`, `high` or `critical`.
    pub severity: &'static str,
    /// First record that speaks for it.
    pub first_seen: EventTime,
    /// One line; hostile.
    pub title: String,
    /// Whole id.
    pub finding_id: String,
}

/// Units that are named in the summary, of each kind; all are counted. `run` goes on for ever.
const NAMED_MAX: usize = 10_000;

impl Summary {
    /// Names a unit that was set aside.
    pub fn set_aside(&mut self, unit: Quarantined) {
        if self.quarantined.len() < NAMED_MAX {
            self.quarantined.push(unit);
        }
    }

    /// Names a unit that is neither logs nor facts.
    pub fn not_recognised(&mut self, source: String) {
        if self.unrecognised.len() < NAMED_MAX {
            self.unrecognised.push(source);
        }
    }

    /// Fills in what the process used.
    pub fn measure(&mut self, wall_seconds: f64) {
        let usage = crate::process::usage();
        self.cpu_seconds = usage.cpu_seconds;
        self.peak_rss_bytes = usage.peak_rss_bytes;
        self.wall_seconds = wall_seconds;
    }

    /// One JSON object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, parts: &[(&str, u64)]| {
            let shown: Vec<String> = parts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{} {what}", grouped(*n))).collect();
            let _ = writeln!(out, "{name:<12} {}", if shown.is_empty() { "none".to_owned() } else { shown.join(", ") });
        };
        let (u, r, a, f) = (&self.units, &self.records, &self.attribution, &self.findings);
        line(
            "units",
            &[
                ("applied", u.applied),
                ("known already", u.duplicate),
                ("late", u.late),
                ("quarantined", u.quarantined),
                ("ignored", u.ignored),
            ],
        );
        line("flow logs", &[("records", r.flow), ("NODATA", r.nodata), ("SKIPDATA", r.skipdata), ("unplaced", r.unplaced)]);
        line("traffic", &[("packets", self.flow_packets), ("bytes", self.flow_bytes)]);
        line("API calls", &[("admitted", r.api), ("repeats", r.api_duplicate), ("ignored", r.api_ignored)]);
        line("facts", &[("learned", r.facts)]);
        line(
            "attribution",
            &[("exact", a.exact), ("candidates", a.candidates), ("other owners", a.other), ("unheld", a.unheld), ("unknown", a.unknown)],
        );
        if self.rejects + self.late_records + self.out_of_range > 0 {
            line("left out", &[("rejects", self.rejects), ("late records", self.late_records), ("out of range", self.out_of_range)]);
        }
        line(
            "findings",
            &[("critical", f.critical), ("high", f.high), ("medium", f.medium), ("low", f.low), ("informational", f.informational)],
        );
        for (detector, learning) in &self.learning {
            if learning.entities == 0 {
                continue;
            }
            let state = if learning.ready == learning.entities {
                format!("active, {} entities", grouped(learning.entities))
            } else if learning.ready == 0 {
                format!("learning, day {} of {}, {} entities", learning.day, learning.of, grouped(learning.entities))
            } else {
                format!("active for {} of {} entities", grouped(learning.ready), grouped(learning.entities))
            };
            let _ = writeln!(out, "  {detector:<20} {state}");
        }
        if !self.loudest.is_empty() {
            let loud = f.critical + f.high + f.medium;
            let shown = self.loudest.len() as u64;
            let title =
                if loud > shown { format!("the {shown} gravest and latest of {}", grouped(loud)) } else { "the gravest".to_owned() };
            let _ = writeln!(out, "{title}");
            for one in &self.loudest {
                let time: String = one.first_seen.to_string().chars().take(16).collect();
                let id: String = one.finding_id.chars().take(12).collect();
                let head = format!("  {:<8} {time} {id} ", one.severity);
                wrap(&mut out, &head, &" ".repeat(head.len()), &one.title);
            }
            let _ = writeln!(out, "  all of one: flowtrail explain ID --out DIR");
        }
        let few = |out: &mut String, title: &str, items: Vec<String>| {
            if items.is_empty() {
                return;
            }
            let _ = writeln!(out, "{title}");
            for item in items.iter().take(5) {
                let _ = writeln!(out, "  {item}");
            }
            if items.len() > 5 {
                let _ = writeln!(out, "  … and {} more (--json lists all)", items.len() - 5);
            }
        };
        few(&mut out, "not recognised (neither logs nor facts):", self.unrecognised.iter().map(|s| escaped(s.as_bytes())).collect());
        few(
            &mut out,
            "quarantined (could not be read):",
            self.quarantined.iter().map(|q| format!("{}: {}", escaped(q.source.as_bytes()), escaped(q.reason.as_bytes()))).collect(),
        );
        let _ = writeln!(
            out,
            "{:<12} {:.1} s CPU, {:.1} s, {} MB memory at most",
            "took",
            self.cpu_seconds,
            self.wall_seconds,
            self.peak_rss_bytes / 1_000_000
        );
        out
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_learning() {
        let mut summary = Summary::default();
        summary.learning.insert("new_peer".to_owned(), Learning { entities: 212, ready: 0, day: 1, of: 14 });
        assert!(summary.table().contains("learning, day 1 of 14, 212 entities"), "{}", summary.table());
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn the_table_names_the_loudest_findings() {
        let title = format!("\u{1b}[31m{} scanned 29 ports of 10.0.0.1", "vpc-1/sg-2 ".repeat(9));
        let one = Loudest { severity: "high", first_seen: EventTime(1_768_995_623), title, finding_id: "12daeb04".repeat(4) };
        let summary = Summary { findings: Findings { high: 1, ..Findings::default() }, loudest: vec![one], ..Summary::default() };
        let table = summary.table();
        assert!(table.contains("  high     2026-01-21T11:40 12daeb0412da \\u{1b}[31mvpc-1/sg-2"), "{table}");
        assert!(table.lines().all(|l| l.chars().count() <= crate::wrap::WIDTH) && !table.contains('\u{1b}'), "{table}");
        assert!(!summary.json().contains("loudest"));
    }
}
