//! Flow-log records that came through CloudWatch Logs or Firehose: subscription envelopes, `{"message": …}` objects,
//! records run together without line ends, base64 and gzip around any of them.
//!
//! The records have no header; their fields come from configuration, else from the default formats.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::FlowRows;
use super::batch::{FlowBatch, Names};
use super::layout::{Hot, Layout};
use super::plain::Ask;
use super::text::TextReader;
use crate::inflate::{InflateError, Inflater, Limits, is_gzip};
use crate::unit::Reject;

/// JSON in strings in JSON, at most this deep.
const DEPTH: u8 = 4;

/// What an envelope held besides its records.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Log events, readable or not: the index of the next one.
    pub events: u64,
    /// CloudWatch control messages, dropped.
    pub control: u64,
}

/// Reads the records of all envelopes in `content`. Their position is the index of their log event in the object, from 0.
/// Batches come as from [`TextReader`]; JSON that breaks is one reject, and what came before it counts.
pub fn parse_envelope(
    content: &[u8],
    format: Option<&Layout>,
    ask: Ask,
    names: &mut Names,
    batch: &mut FlowBatch,
    on_batch: &mut dyn FnMut(FlowRows<'_>),
    on_reject: &mut dyn FnMut(Reject),
) -> Envelope {
    let mut lines = Lines { format, text: Vec::new(), runs: Vec::new(), events: 0, control: 0 };
    let mut broken = None;
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    if matches!(content.trim_ascii_start().first(), Some(b'{' | b'[' | b'"')) {
        let mut values = serde_json::Deserializer::from_slice(content).into_iter::<&RawValue>();
        while let Some(value) = values.next() {
            let error = match value {
                Ok(value) => lines.value(value.get(), DEPTH).err(),
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                let at = values.byte_offset().min(content.len());
                broken = Some((lines.events, error.to_string(), at));
                lines.events += 1;
                break;
            }
        }
    } else {
        for line in content.split(|b| *b == b'\n') {
            lines.glued(line);
        }
    }
    for (at, (layout, first, from)) in lines.runs.iter().enumerate() {
        let to = lines.runs.get(at + 1).map_or(lines.text.len(), |(_, _, from)| *from);
        TextReader::new(layout.clone(), *first, ask).read(&lines.text[*from..to], names, batch, on_batch, on_reject);
    }
    if let Some((index, error, at)) = broken {
        on_reject(Reject::new(index, format!("envelope is broken at byte {at}: {error}"), &content[at..]));
    }
    Envelope { events: lines.events, control: lines.control }
}

/// The messages of an object as lines of text, one to a log event.
struct Lines<'f> {
    format: Option<&'f Layout>,
    text: Vec<u8>,
    /// Layout, index of the first event and offset in `text` of each run of lines with one layout.
    runs: Vec<(Layout, u64, usize)>,
    events: u64,
    control: u64,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(rename = "messageType")]
    message_type: Option<String>,
    #[serde(borrow, rename = "logEvents")]
    log_events: Option<Vec<&'a RawValue>>,
    message: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LogEvent {
    message: Option<String>,
}

impl Lines<'_> {
    fn value(&mut self, json: &str, depth: u8) -> serde_json::Result<()> {
        if depth == 0 {
            self.line(json.as_bytes());
            return Ok(());
        }
        match json.as_bytes().first() {
            Some(b'{') => {
                let document: Document<'_> = serde_json::from_str(json)?;
                if document.message_type.as_deref() == Some("CONTROL_MESSAGE") {
                    self.control += 1;
                } else if let Some(events) = document.log_events {
                    for event in events {
                        match serde_json::from_str::<LogEvent>(event.get()).ok().and_then(|e| e.message) {
                            Some(message) => self.line(message.as_bytes()),
                            // Not an event: its reader will set it aside.
                            None => self.line(event.get().as_bytes()),
                        }
                    }
                } else if let Some(message) = document.message {
                    self.string(&message, depth)?;
                } else if let Some(payload) = document.payload {
                    self.value(payload.get(), depth - 1)?;
                } else {
                    self.line(json.as_bytes());
                }
            }
            Some(b'[') => {
                for value in serde_json::from_str::<Vec<&RawValue>>(json)? {
                    self.value(value.get(), depth - 1)?;
                }
            }
            Some(b'"') => self.string(&serde_json::from_str::<String>(json)?, depth)?,
            _ => self.line(json.as_bytes()),
        }
        Ok(())
    }

    fn string(&mut self, text: &str, depth: u8) -> serde_json::Result<()> {
        match text.trim_start().as_bytes().first() {
            Some(b'{' | b'"') => self.value(text.trim(), depth - 1),
            _ => {
                self.line(text.as_bytes());
                Ok(())
            }
        }
    }

    /// Adds one event. Line ends inside it become spaces, so that one event stays one line.
    fn line(&mut self, message: &[u8]) {
        let message = message.trim_ascii();
        let layout = self.format.cloned().unwrap_or_else(|| Layout::default_for(message));
        if self.runs.last().is_none_or(|(last, _, _)| *last != layout) {
            self.runs.push((layout, self.events, self.text.len()));
        }
        self.text.extend(message.iter().map(|b| if *b == b'\n' { b' ' } else { *b }));
        self.text.push(b'\n');
        self.events += 1;
    }

    /// Adds a line that may be several records run together.
    fn glued(&mut self, line: &[u8]) {
        let layout = self.format.cloned().unwrap_or_else(|| Layout::default_for(line));
        let mut rest = line;
        while let Some(at) = seam(rest, &layout) {
            let (record, after) = rest.split_at(at);
            self.line(record);
            rest = after;
        }
        if !rest.trim_ascii().is_empty() {
            self.line(rest);
        }
    }
}

/// True if a line is version-2 records run together without line ends.
pub(crate) fn is_glued(line: &[u8]) -> bool {
    let record = &line[..line.len().min(1024)];
    seam(record, &Layout::version_2()).is_some_and(|at| crate::sniff::is_flow_line(&record[..at], None))
}

/// Where the second record begins: inside the field that is the first record's log status and the second's version.
fn seam(line: &[u8], layout: &Layout) -> Option<usize> {
    let last = layout.len() - 1;
    if last == 0 || layout.hot(Hot::Version) != Some(0) || layout.hot(Hot::LogStatus) != Some(last) {
        return None;
    }
    let mut at = 0;
    for _ in 0..last {
        at += memchr::memchr(b' ', line.get(at..)?)? + 1;
    }
    let word = &line[at..at + memchr::memchr(b' ', line.get(at..)?)?];
    let status = [b"OK".as_slice(), b"NODATA", b"SKIPDATA", b"-"].into_iter().find(|s| word.starts_with(s))?;
    let version = &word[status.len()..];
    (!version.is_empty() && version.len() <= 2 && version.iter().all(u8::is_ascii_digit)).then_some(at + status.len())
}

/// Why an envelope could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PeelError {
    /// Not base64, or JSON of another shape.
    #[error("envelope cannot be opened: {0}")]
    Shape(String),
    /// What it holds is too large.
    #[error(transparent)]
    Inflate(#[from] InflateError),
}

/// Opens what [`crate::sniff::Kind::Wrapped`] stands for: base64 of gzip, `{"awslogs":{"data":…}}` (Lambda),
/// `{"records":[{"data":…}]}` (Firehose over HTTP). Several contents are joined by line ends.
///
/// # Errors
/// When it is not of these shapes, or its content is over `limits.whole`.
pub fn peel(content: &[u8], limits: Limits) -> Result<Vec<u8>, PeelError> {
    let shape = |e: &dyn std::fmt::Display| PeelError::Shape(e.to_string());
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content).trim_ascii();
    let mut data: Vec<String> = Vec::new();
    if content.starts_with(b"{") {
        for value in serde_json::Deserializer::from_slice(content).into_iter::<serde_json::Value>() {
            let value = value.map_err(|e| shape(&e))?;
            let records = value.get("records").and_then(|r| r.as_array()).into_iter().flatten();
            let found = records.chain(value.get("awslogs")).filter_map(|r| r.get("data")?.as_str());
            data.extend(found.map(str::to_owned));
        }
    } else {
        data.extend(content.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).map(|w| String::from_utf8_lossy(w).into_owned()));
    }
    if data.is_empty() {
        return Err(PeelError::Shape("it holds no data".to_owned()));
    }
    // Some relays cut the padding off.
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let base64 = GeneralPurpose::new(&alphabet::STANDARD, lenient);
    let (mut inflater, mut inflated, mut out) = (Inflater::default(), Vec::new(), Vec::new());
    for text in data {
        let bytes = base64.decode(text.trim()).map_err(|e| shape(&e))?;
        let inner = if is_gzip(&bytes) {
            if let Some(broken) = inflater.inflate(&bytes, &mut inflated, limits)?.broken {
                return Err(PeelError::Shape(broken));
            }
            inflated.as_slice()
        } else {
            &bytes
        };
        if out.len() + inner.len() > limits.whole {
            return Err(InflateError::OverWhole(limits.whole).into());
        }
        out.extend_from_slice(inner.trim_ascii_end());
        out.push(b'\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::sniff::{Kind, sniff};
    use crate::time::EventTime;

    const A: &str = "2 123456789010 eni-a 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK";
    const B: &str = "2 123456789010 eni-b - - - - - - - 1431280876 1431280934 - NODATA";

    /// Positions and interfaces of the records, then positions and reasons of the rejects.
    #[track_caller]
    fn check(content: &str, format: Option<&str>, wanted: &str) -> Envelope {
        let format = format.map(|f| Layout::compile(f).unwrap());
        assert_eq!(sniff(content.as_bytes(), format.as_ref()), Kind::FlowEnvelope, "{content}");
        let (mut names, mut batch, mut seen, mut rejects) = (Names::default(), FlowBatch::default(), Vec::new(), Vec::new());
        let mut on_batch = |rows: FlowRows<'_>| {
            for row in 0..rows.batch.rows() {
                let interface = rows.names.interfaces.get(rows.batch.interface[row] as usize);
                seen.push(format!("{} {}", rows.batch.line[row], interface.map_or("-", |i| i)));
            }
        };
        let mut on_reject = |reject: Reject| rejects.push(format!("{} {}", reject.position.0, reject.reason));
        let ask = Ask::hot(EventTime::MAX);
        let envelope = parse_envelope(content.as_bytes(), format.as_ref(), ask, &mut names, &mut batch, &mut on_batch, &mut on_reject);
        seen.extend(rejects);
        assert_eq!(seen.join(", "), wanted, "{content}");
        envelope
    }

    fn data(messages: &[&str]) -> String {
        let events: Vec<_> = messages.iter().map(|m| serde_json::json!({"id": "1", "timestamp": 1, "message": m})).collect();
        serde_json::json!({"messageType": "DATA_MESSAGE", "owner": "1", "logEvents": events}).to_string()
    }

    #[test]
    fn every_coat_a_record_comes_in() {
        let control = r#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"id":"","message":"CWL CONTROL MESSAGE: Checking health"}]}"#;
        let done = check(
            &format!("{control}{}\n{}", data(&[A, B]), data(&["2 eni-x", A])),
            None,
            "0 eni-a, 1 eni-b, 3 eni-a, 2 line has 2 fields, its header names 14",
        );
        assert_eq!(done, Envelope { events: 4, control: 1 });
        check(&format!(r#"{{"message":"{A}\n"}}{{"message":"{B}"}}"#), None, "0 eni-a, 1 eni-b");
        check(&format!(r#"[{{"message":"{A}"}},{{"message":"{B}"}}]"#), None, "0 eni-a, 1 eni-b");
        check(&format!(r#"{{"schema":null,"payload":"{A}"}}"#), None, "0 eni-a");
        check(&serde_json::to_string(&data(&[A])).unwrap(), None, "0 eni-a");
        check(&format!("{A}{B}{A}\n{B}{A}"), None, "0 eni-a, 1 eni-b, 2 eni-a, 3 eni-b, 4 eni-a");
        check(&data(&["10.0.0.1 eni-z"]), Some("srcaddr interface-id"), "0 eni-z");
        check(&data(&[A, "6 TransitGateway 1 tgw-1"]), None, "0 eni-a, 1 line has 4 fields, its header names 36");
    }

    #[test]
    fn what_comes_before_a_break_counts() {
        let whole = format!("{}{}", data(&[A]), data(&[B, B]));
        check(
            &whole[..whole.len() - 20],
            None,
            &format!(
                "0 eni-a, 1 envelope is broken at byte {}: EOF while parsing a string at line 1 column {}",
                data(&[A]).len(),
                whole.len() - 20
            ),
        );
        check(
            &format!(r#"{}{{"logEvents":[1,{{"message":2}}]}}"#, data(&[A])),
            None,
            "0 eni-a, 1 line has 1 fields, its header names 14, 2 line has 1 fields, its header names 14",
        );
    }

    #[test]
    fn wrapped_content_is_opened() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(data(&[A]).as_bytes()).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap());
        let plain = base64::engine::general_purpose::STANDARD.encode(data(&[A]));
        for wrapped in [
            text.clone(),
            text.trim_end_matches('=').to_owned(),
            format!(r#"{{"awslogs":{{"data":"{text}"}}}}"#),
            format!(r#"{{"requestId":"1","timestamp":1,"records":[{{"data":"{text}"}}]}}"#),
            format!(r#"{{"requestId":"1","timestamp":1,"records":[{{"data":"{plain}"}}]}}"#),
        ] {
            assert_eq!(sniff(wrapped.as_bytes(), None), Kind::Wrapped, "{wrapped}");
            let opened = peel(wrapped.as_bytes(), Limits::default()).unwrap();
            assert_eq!(String::from_utf8(opened).unwrap(), data(&[A]) + "\n");
        }
        for broken in ["H4sI!", "H4sI", r#"{"awslogs":{"data":5}}"#, r#"{"awslogs":"#] {
            assert!(peel(broken.as_bytes(), Limits::default()).is_err(), "{broken}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(content: Vec<u8>, at: u16, byte: u8) {
            let mut damaged = format!("{}{}", data(&[A, B]), data(&[A])).into_bytes();
            let at = usize::from(at) % damaged.len();
            damaged[at] = byte;
            for content in [content, damaged] {
                let (mut names, mut batch) = (Names::default(), FlowBatch::default());
                parse_envelope(&content, None, Ask::all(EventTime::MAX), &mut names, &mut batch, &mut |_| {}, &mut |_| {});
                let _ = peel(&content, Limits::default());
            }
        }
    }
}
