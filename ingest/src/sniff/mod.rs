//! What an object is, told from its content, whatever its name.
//!
//! Looks at the beginning only: the first line of a text, the first keys of a JSON value. Being recognised says nothing
//! of being whole; the reader of that kind finds out, and says what is broken.

mod peek;

use crate::flow::layout::{Layout, field, is_transit_gateway};
use crate::flow::plain;

/// The kinds of content flowtrail tells apart.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Flow-log text, with a header line or in the configured format: [`crate::flow::text`].
    FlowText,
    /// Parquet; whether it is a flow log its columns say: [`crate::flow::parquet`].
    FlowParquet,
    /// Flow-log records inside CloudWatch or Firehose envelopes, or run together without line ends: [`crate::flow::envelope`].
    FlowEnvelope,
    /// CloudTrail records, in any of their envelopes: [`crate::cloudtrail`].
    CloudTrail,
    /// describe-network-interfaces, list-functions, a snapshot of `collect`, AWS Config items.
    Facts,
    /// Base64 or gzip in JSON around one of the others: [`crate::flow::envelope::peel`], then sniff again.
    Wrapped,
    /// Known, and by rule not read; says what it is.
    Ignored(&'static str),
    /// Nothing in it.
    Empty,
    /// None of the above.
    Unknown,
}

/// Lines of a text without header that are looked at, JSON values of a stream, events of an envelope.
const LOOKS: usize = 8;

/// JSON in strings in JSON, at most this deep.
const DEPTH: u8 = 4;

/// Says what `content` (inflated; the whole or at least the first records) is. `format` is the configured format of
/// flow-log text without header; without one the default formats are tried.
#[must_use]
pub fn sniff(content: &[u8], format: Option<&Layout>) -> Kind {
    if content.starts_with(b"PAR1") {
        return Kind::FlowParquet;
    }
    look(content, format, 0)
}

fn look(content: &[u8], format: Option<&Layout>, depth: u8) -> Kind {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content).trim_ascii_start();
    match content.first() {
        None => Kind::Empty,
        _ if depth > DEPTH => Kind::Unknown,
        Some(b'{' | b'[' | b'"') => stream(content, format, depth),
        // Base64 of gzip's first bytes 1f 8b 08.
        Some(b'H') if content.starts_with(b"H4sI") => Kind::Wrapped,
        Some(_) => text(content, format),
    }
}

fn text(content: &[u8], format: Option<&Layout>) -> Kind {
    let mut lines = content.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty());
    if let Some(first) = lines.clone().next() {
        if first.starts_with(b"range") && matches!(first.get(5), None | Some(b',')) {
            return Kind::Ignored("address list");
        }
        // One word alone can be anything, unless it is a name only flow logs have.
        if let Some(header) = Layout::of_header(first)
            && (header.len() > 1 || std::str::from_utf8(first).is_ok_and(|w| w.len() > 6 && field(w).is_some()))
        {
            return Kind::FlowText;
        }
        if crate::flow::envelope::is_glued(first) {
            return Kind::FlowEnvelope;
        }
    }
    if lines.by_ref().take(LOOKS).any(|line| is_flow_line(line, format)) { Kind::FlowText } else { Kind::Unknown }
}

/// True if a line without header is a flow-log record: it parses, or has the marks of one and the wrong length.
pub(crate) fn is_flow_line(line: &[u8], format: Option<&Layout>) -> bool {
    // No record is that long, and this is asked of every unknown file.
    if line.len() > 16 * 1024 {
        return false;
    }
    let mut fields = Vec::new();
    plain::split(line, &mut fields);
    let parses = |layout: &Layout| fields.len() == layout.len() && plain::parses(line, &fields, layout);
    if format.is_some_and(parses) || parses(&Layout::version_2()) {
        return true;
    }
    let words = || fields.iter().map(|(a, b)| &line[*a as usize..*b as usize]);
    let version = words().next().is_some_and(|v| v.len() <= 2 && v.iter().all(u8::is_ascii_digit));
    let marks = |w: &[u8]| w.starts_with(b"eni-") || w.starts_with(b"tgw-") || matches!(w, b"NODATA" | b"SKIPDATA" | b"ACCEPT" | b"REJECT");
    (version && fields.len() >= 3 && words().any(marks)) || is_transit_gateway(line)
}

/// One or more JSON values, one after another, with or without line ends.
fn stream(content: &[u8], format: Option<&Layout>, depth: u8) -> Kind {
    let mut found = Kind::Unknown;
    let mut at = 0;
    for _ in 0..LOOKS {
        at = peek::blank(content, at);
        let kind = value(content, at, format, depth);
        match kind {
            Kind::Unknown | Kind::Empty => {}
            // A control message says nothing of what comes after it.
            Kind::Ignored(_) => found = kind,
            _ => return kind,
        }
        match peek::skip(content, at) {
            Some(next) if next > at && next < content.len() => at = next,
            _ => break,
        }
    }
    found
}

fn value(text: &[u8], at: usize, format: Option<&Layout>, depth: u8) -> Kind {
    match text.get(at) {
        Some(b'{') => object(text, at, format, depth),
        Some(b'[') => {
            let first = peek::elements(text, at).next();
            match first.map(|at| (at, text.get(at))) {
                Some((at, Some(b'{'))) => match object(text, at, format, depth) {
                    // A list of anything else is not a list of its kind: `[{"NetworkInterfaces":…}]` is nobody's output.
                    kind @ (Kind::CloudTrail | Kind::FlowEnvelope) => kind,
                    _ => Kind::Unknown,
                },
                _ => Kind::Unknown,
            }
        }
        Some(b'"') => inner(text, at, format, depth),
        _ => Kind::Unknown,
    }
}

/// What a JSON string holds.
fn inner(text: &[u8], at: usize, format: Option<&Layout>, depth: u8) -> Kind {
    let Some(string) = peek::string(text, at) else { return Kind::Unknown };
    let line = string.trim();
    match line.as_bytes().first() {
        Some(b'{' | b'[' | b'"') if depth < DEPTH => look(line.as_bytes(), format, depth + 1),
        Some(_) if is_flow_line(line.as_bytes(), format) => Kind::FlowEnvelope,
        _ => Kind::Unknown,
    }
}

fn object(text: &[u8], at: usize, format: Option<&Layout>, depth: u8) -> Kind {
    let first_is_object = |at: usize| peek::elements(text, at).next().filter(|at| text.get(*at) == Some(&b'{'));
    let has = |at: usize, wanted: &[&[u8]]| peek::members(text, at).take(64).any(|(key, _)| wanted.contains(&key));
    let (mut version, mut source, mut name, mut time) = (false, false, false, false);
    for (key, at) in peek::members(text, at).take(64) {
        let array = text.get(at) == Some(&b'[');
        match key {
            b"Records" if array => {
                return match first_is_object(at) {
                    Some(record) if has(record, &[b"s3"]) && !has(record, &[b"eventID"]) => Kind::Ignored("S3 event notification"),
                    _ => Kind::CloudTrail,
                };
            }
            b"Events" if array && first_is_object(at).is_some_and(|at| has(at, &[b"CloudTrailEvent"])) => return Kind::CloudTrail,
            b"CloudTrailEvent" => return Kind::CloudTrail,
            b"flowtrail_snapshot" | b"NetworkInterfaces" | b"Functions" => return Kind::Facts,
            b"configurationItems" | b"configurationItem" | b"configurationItemCaptureTime" | b"configurationItemStatus" => {
                return Kind::Facts;
            }
            b"digestStartTime" | b"digestEndTime" | b"digestS3Object" => return Kind::Ignored("CloudTrail digest"),
            b"awslogs" if text.get(at) == Some(&b'{') => return Kind::Wrapped,
            b"records" if array && first_is_object(at).is_some_and(|at| has(at, &[b"data"])) => return Kind::Wrapped,
            b"messageType" if peek::string(text, at).is_some_and(|m| m == "CONTROL_MESSAGE") => {
                return Kind::Ignored("CloudWatch control message");
            }
            b"logEvents" if array => {
                for event in peek::elements(text, at).take(LOOKS) {
                    let message = peek::members(text, event).find(|(key, _)| *key == b"message");
                    let kind = message.map_or(Kind::Unknown, |(_, at)| inner(text, at, format, depth));
                    if kind != Kind::Unknown {
                        return kind;
                    }
                }
            }
            b"detail" | b"payload" | b"message" => {
                let kind = value(text, at, format, depth + 1);
                if kind != Kind::Unknown {
                    return kind;
                }
            }
            b"eventVersion" => version = true,
            b"eventSource" => source = true,
            b"eventName" => name = true,
            b"eventTime" => time = true,
            _ => {}
        }
    }
    if version || (usize::from(source) + usize::from(name) + usize::from(time) >= 2) { Kind::CloudTrail } else { Kind::Unknown }
}

#[cfg(test)]
mod tests;
