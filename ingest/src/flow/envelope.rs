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
