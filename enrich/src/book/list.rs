//! One threat list as text: CSV with a header, or one range a line.

use std::borrow::Cow;

use flowtrail_ingest::{EventTime, Ip, escaped};

use super::range::{RangeError, parse};

/// What reading a list gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListReport {
    /// The list's name.
    pub name: String,
    /// Hash of its content (XXH3-128, hexadecimal): what was in force, for the commit.
    pub version: String,
    /// Entries taken.
    pub entries: u64,
    /// Lines that could not be read, all of them counted.
    pub bad: u64,
    /// The first of them.
    pub samples: Vec<BadLine>,
}

/// A line of a list that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: u64,
    /// Why, in lower case.
    pub reason: String,
}

/// How many bad lines are kept as samples.
const SAMPLES: usize = 20;

/// Confidence of an entry whose list says nothing of it, in thousandths: whoever gives the list stands for it.
const CONFIDENCE: u32 = 1000;

/// What goes with a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Says<'t> {
    pub(super) category: Cow<'t, str>,
    pub(super) confidence_milli: u32,
    pub(super) valid_from: Option<EventTime>,
    pub(super) valid_to: Option<EventTime>,
}

/// Where a CSV's columns stand.
#[derive(Copy, Clone)]
struct Columns {
    range: usize,
    category: Option<usize>,
    confidence: Option<usize>,
    valid_from: Option<usize>,
    valid_to: Option<usize>,
}

const PLAIN: Columns = Columns { range: 0, category: Some(1), confidence: Some(2), valid_from: Some(3), valid_to: Some(4) };

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LineError {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error("line has no column {0}")]
    Short(usize),
    #[error("confidence is not between 0 and 1 or 0 and 100: {0:?}")]
    Confidence(String),
    #[error("not a time: {0:?}")]
    Time(String),
    #[error("valid_to is not after valid_from")]
    Empty,
    #[error("not UTF-8")]
    NotText,
}

/// Reads a list line by line. `category` is that of entries that name none. Bad lines are counted in `report`.
pub(super) fn read<'t>(text: &'t [u8], category: &'t str, report: &mut ListReport, mut take: impl FnMut(Ip, Ip, Says<'t>)) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut columns = None;
    for (number, raw) in text.split(|b| *b == b'\n').enumerate() {
        let line = std::str::from_utf8(raw).map(str::trim);
        if matches!(line, Ok(l) if l.is_empty() || l.starts_with(['#', ';']) || l.starts_with("//")) {
            continue;
        }
        let result = match (line, columns) {
            (Err(_), _) => Err(LineError::NotText),
            (Ok(line), None) => {
                let found = header(line);
                columns = Some(found.unwrap_or(PLAIN));
                if found.is_some() {
                    continue;
                }
                entry(line, PLAIN, category)
            }
            (Ok(line), Some(columns)) => entry(line, columns, category),
        };
        match result {
            Ok((first, last, says)) => {
                report.entries += 1;
                take(first, last, says);
            }
            Err(error) => {
                report.bad += 1;
                if report.samples.len() < SAMPLES {
                    report.samples.push(BadLine { line: number as u64 + 1, reason: escaped(error.to_string().as_bytes()) });
                }
            }
        }
    }
}

/// The columns of a header line; `None` if it is none.
fn header(line: &str) -> Option<Columns> {
    let names: Vec<String> = fields(line).map(|f| f.trim().to_ascii_lowercase()).collect();
    let find = |wanted: &[&str]| names.iter().position(|n| wanted.contains(&n.as_str()));
    Some(Columns {
        range: find(&["range", "cidr", "ip", "address", "ip_address", "dst_ip", "network", "indicator", "ioc"])?,
        category: find(&["category", "type", "threat"]),
        confidence: find(&["confidence"]),
        valid_from: find(&["valid_from", "first_seen", "first_seen_utc"]),
        valid_to: find(&["valid_to", "valid_until", "expires"]),
    })
}

/// The fields of a CSV line; a quoted one may hold commas and doubled quotes.
fn fields(line: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let trimmed = text.trim_start();
        if let Some(quoted) = trimmed.strip_prefix('"') {
            let mut from = 0;
            let end = loop {
                match quoted.get(from..).and_then(|q| q.find('"')) {
                    Some(at) if quoted.as_bytes().get(from + at + 1) == Some(&b'"') => from += at + 2,
                    Some(at) => break from + at,
                    None => break quoted.len(),
                }
            };
            let value = &quoted[..end];
            rest = quoted.get(end + 1..).and_then(|after| after.find(',').and_then(|comma| after.get(comma + 1..)));
            return Some(if value.contains("\"\"") { Cow::Owned(value.replace("\"\"", "\"")) } else { Cow::Borrowed(value) });
        }
        let (field, after) = match text.split_once(',') {
            Some((field, after)) => (field, Some(after)),
            None => (text, None),
        };
        rest = after;
        Some(Cow::Borrowed(field.trim()))
    })
}

fn entry<'t>(line: &'t str, columns: Columns, category: &'t str) -> Result<(Ip, Ip, Says<'t>), LineError> {
    let mut says = Says { category: Cow::Borrowed(category), confidence_milli: CONFIDENCE, valid_from: None, valid_to: None };
    let mut range: Option<(Ip, Ip)> = None;
    // Most lists are one address a line.
    for (at, field) in fields(line).enumerate() {
        let at = Some(at);
        if at == Some(columns.range) {
            // Some lists put a remark behind the range.
            let bare = field.split(['#', ';']).next().unwrap_or("").trim();
            let bare = if bare.contains(" - ") { bare } else { bare.split_whitespace().next().unwrap_or("") };
            range = Some(parse(bare)?);
        } else if field.is_empty() {
            continue;
        } else if at == columns.category {
            says.category = match field {
                Cow::Borrowed(text) if !text.contains(|c: char| c.is_control()) => Cow::Borrowed(text),
                other => Cow::Owned(escaped(other.as_bytes())),
            };
        } else if at == columns.confidence {
            says.confidence_milli = confidence(&field)?;
        } else if at == columns.valid_from {
            says.valid_from = Some(moment(&field)?);
        } else if at == columns.valid_to {
            says.valid_to = Some(moment(&field)?);
        }
    }
    if says.valid_from.zip(says.valid_to).is_some_and(|(from, to)| from >= to) {
        return Err(LineError::Empty);
    }
    let (first, last) = range.ok_or(LineError::Short(columns.range + 1))?;
    Ok((first, last, says))
}

/// A share (`0.9`) or a percentage (`90`) in thousandths. `1` is certain.
fn confidence(text: &str) -> Result<u32, LineError> {
    let wrong = || LineError::Confidence(text.chars().take(40).collect());
    let value: f64 = text.trim().trim_end_matches('%').parse().map_err(|_| wrong())?;
    let milli = if value <= 1.0 { value * 1000.0 } else { value * 10.0 };
    if !(0.0..=1000.0).contains(&milli) {
        return Err(wrong());
    }
    Ok(milli.round() as u32)
}

fn moment(text: &str) -> Result<EventTime, LineError> {
    EventTime::parse(text)
        .or_else(|| text.parse::<i64>().ok().filter(|secs| secs.abs() < 1 << 40).map(EventTime))
        .ok_or_else(|| LineError::Time(text.chars().take(40).collect()))
}
