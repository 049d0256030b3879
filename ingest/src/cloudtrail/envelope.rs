//! The envelopes CloudTrail records come in, and one walk through all of them.
//!
//! An object or message holds JSON values one after the other (with newlines, commas or nothing between them). Each
//! value is a record, a list of such values, a string that holds such values, or an object that carries one under a
//! key: `{"Records":[…]}` of S3, `detail` of EventBridge, `logEvents[].message` of CloudWatch Logs, `CloudTrailEvent`
//! of LookupEvents, `payload` of Kafka Connect, `message` of log shippers. An object that has the three fields a record
//! must have is a record, whatever else it holds.
//!
//! A fault in one value costs that value: the walk goes on behind it, by brackets in a list and by lines outside.
//! Every record that goes in comes out as exactly one [`Item`].

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::call::ApiCall;
use super::fast;
use super::index::Index;
use super::marks::{Isa, Token};
use super::scan::{Fault, Scanner, Shape, Wrap};
use crate::time::EventTime;
use crate::unit::Reject;

/// Envelopes within envelopes that are opened: a record in a CloudWatch message in a Kafka Connect payload takes three.
const LEVEL_MAX: u8 = 8;

/// Bytes that a compressed message inside an envelope may inflate to; CloudTrail's largest object has 50 MB.
const INFLATED_BYTES_MAX: u64 = 256 << 20;

/// One thing found in the text.
#[derive(Debug)]
pub enum Item<'a> {
    /// An API call or other event that happened.
    Call(&'a ApiCall<'a>),
    /// A record that says nothing of one event (Insight, Aggregated), or a message that is none of CloudTrail's.
    Ignored {
        /// The `eventType`, the `detail-type` of a foreign EventBridge event, or `CONTROL_MESSAGE`.
        kind: &'a str,
        /// As [`ApiCall::index`].
        index: u64,
    },
    /// A record that could not be read.
    Reject(Reject),
}

/// What [`read`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Items handed out: records in = calls + ignored + rejects.
    pub items: u64,
    /// Digest files (they hold no records and make no item).
    pub digests: u64,
}

/// Walks through all records of an object, file or message, in their order. Items are numbered from 0 as they come:
/// for `{"Records":[…]}` the index in the list, for one record a line the line (empty ones left out).
pub fn read(text: &[u8], on: &mut dyn FnMut(Item<'_>)) -> Outcome {
    read_with(Some(Isa::best()), text, on)
}

/// As [`read`], with the fast path on one instruction set, or without it.
fn read_with(isa: Option<Isa>, text: &[u8], on: &mut dyn FnMut(Item<'_>)) -> Outcome {
    let mut reader = Reader { isa, on, outcome: Outcome::default(), memory: Vec::new(), last_time: None };
    reader.text(text, 0);
    reader.outcome
}

struct Reader<'f> {
    isa: Option<Isa>,
    on: &'f mut dyn FnMut(Item<'_>),
    outcome: Outcome,
    /// Of indices that are not in use: texts lie within texts.
    memory: Vec<Vec<Token>>,
    /// The last `eventTime` in the usual form: neighbours are often of one second.
    last_time: Option<([u8; 20], EventTime)>,
}

/// A text on its way through, and the index of the piece at hand.
struct Walk<'a> {
    s: Scanner<'a>,
    /// `None` without the fast path.
    index: Option<Index<'a>>,
    /// The last record: setting its fields anew is cheaper than to make and drop one for each record.
    call: ApiCall<'a>,
}

impl Reader<'_> {
    fn emit(&mut self, item: Item<'_>) {
        self.outcome.items += 1;
        (self.on)(item);
    }

    fn reject(&mut self, reason: impl Into<String>, raw: &[u8]) {
        self.emit(Item::Reject(Reject::new(self.outcome.items, reason, raw)));
    }

    fn fault(&mut self, fault: Fault, from: usize, raw: &[u8]) {
        self.reject(format!("{}, at byte {} of the record", fault.what, fault.at.saturating_sub(from)), raw);
    }

    fn walk<'a>(&mut self, text: &'a [u8]) -> Walk<'a> {
        let index = self.isa.map(|isa| Index::new(isa, self.memory.pop().unwrap_or_default()));
        Walk { s: Scanner::new(text), index, call: ApiCall::default() }
    }

    fn end(&mut self, walk: Walk<'_>) {
        self.memory.extend(walk.index.map(Index::into_memory));
    }

    /// Values one after the other.
    fn text(&mut self, text: &[u8], level: u8) {
        if text.starts_with(&[0x1f, 0x8b]) {
            return self.gzip(text, level);
        }
        let mut walk = self.walk(text);
        self.values(&mut walk, level);
        self.end(walk);
    }

    fn values(&mut self, walk: &mut Walk<'_>, level: u8) {
        let text = walk.s.text;
        if text.starts_with("\u{feff}".as_bytes()) {
            walk.s.at = 3;
        }
        // Whether a loose walk to the end of a faulty value may be tried; one that found no end has seen all the rest.
        let mut by_brackets = true;
        loop {
            let first = walk.s.token();
            let from = walk.s.at;
            if from >= text.len() {
                return;
            }
            let result = match first {
                b',' => {
                    walk.s.at += 1;
                    Ok(())
                }
                b'[' => {
                    self.list(walk, level);
                    Ok(())
                }
                b'H' if text[from..].starts_with(b"H4sI") => {
                    let end = text[from..].iter().position(u8::is_ascii_whitespace).map_or(text.len(), |n| from + n);
                    walk.s.at = end;
                    self.base64(&text[from..end], level);
                    Ok(())
                }
                _ => self.value(walk, level),
            };
            if let Err(fault) = result {
                walk.s.at = resume(text, from, fault.at, &mut by_brackets);
                self.fault(fault, from, text[from..walk.s.at].trim_ascii_end());
            }
        }
    }

    /// At a `[`: every element is a value. What cannot be read any more is one reject, and the scanner stands at the end.
    fn list(&mut self, walk: &mut Walk<'_>, level: u8) {
        let text = walk.s.text;
        walk.s.at += 1;
        if walk.s.token() == b']' {
            walk.s.at += 1;
            return;
        }
        loop {
            walk.s.token();
            let from = walk.s.at;
            let value = self.value(walk, level);
            let s = &mut walk.s;
            if let Err(fault) = value {
                s.at = from;
                let found = s.skip_loosely();
                self.fault(fault, from, text.get(from..s.at).unwrap_or_default());
                if !found {
                    s.at = text.len();
                    return;
                }
            }
            match s.token() {
                b',' => s.at += 1,
                b']' => {
                    s.at += 1;
                    return;
                }
                b'{' => {}
                _ => {
                    if s.at < text.len() {
                        self.reject("a comma or ] is expected after a record", &text[s.at..]);
                    } else {
                        self.reject("the list of records is cut off", &[]);
                    }
                    s.at = text.len();
                    return;
                }
            }
        }
    }

    /// At a value: a record, an envelope or a string with either in it. A fault has emitted nothing for this value, unless it
    /// stands behind a list of records.
    fn value(&mut self, walk: &mut Walk<'_>, level: u8) -> Result<(), Fault> {
        let Walk { s, index, call } = walk;
        let (first, from) = (s.token(), s.at);
        match first {
            b'{' => {
                let mut wrap = Wrap::default();
                let end = index.as_mut().and_then(|index| fast::record(index, s.text, from, call, &mut wrap));
                let shape = match end {
                    Some(end) => {
                        s.at = end;
                        Shape::Object
                    }
                    None => {
                        *call = ApiCall::default();
                        s.record(call, &mut wrap)?
                    }
                };
                match shape {
                    Shape::Object => {
                        call.raw = s.text.get(from..s.at).unwrap_or_default();
                        self.object(call, &wrap, level);
                    }
                    Shape::List if level >= LEVEL_MAX => {
                        s.skip(1)?;
                        s.finish_object()?;
                        self.reject("too many envelopes within each other", &s.text[from..s.at]);
                    }
                    Shape::List => {
                        self.list(walk, level + 1);
                        let s = &mut walk.s;
                        if s.at < s.text.len() {
                            s.finish_object()?;
                        } else if s.text.last() == Some(&b']') {
                            // The list was whole, its object was not.
                            self.reject("the text ends inside an object", &[]);
                        }
                    }
                }
            }
            b'"' => {
                let string = s.string()?.text();
                if !self.string(&string, level) {
                    self.reject("a record is not an object", &s.text[from..s.at]);
                }
            }
            _ => {
                s.skip(0)?;
                self.reject("a record is not an object", &s.text[from..s.at]);
            }
        }
        Ok(())
    }

    /// What a string holds, if that looks like records; false if not.
    fn string(&mut self, string: &str, level: u8) -> bool {
        let inside = string.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']);
        let like_records = inside.starts_with(['{', '[', '"']) || inside.starts_with("H4sI");
        if !like_records || level >= LEVEL_MAX {
            return false;
        }
        self.text(inside.as_bytes(), level + 1);
        true
    }

    /// Judges an object that was read: a record, an envelope around something, or neither.
    fn object(&mut self, call: &mut ApiCall<'_>, wrap: &Wrap<'_>, level: u8) {
        call.index = self.outcome.items;
        if let Some(kind) = ignored_kind(call) {
            return self.emit(Item::Ignored { kind, index: call.index });
        }
        let whole = ![&call.event_source, &call.event_name, &call.time_text].iter().any(|text| text.is_empty());
        if whole {
            match self.time(&call.time_text) {
                Some(time) => {
                    call.time = time;
                    self.emit(Item::Call(call));
                }
                None => self.reject(format!("eventTime is not a time: {:?}", cut(&call.time_text)), call.raw),
            }
            return;
        }
        if wrap.digest {
            self.outcome.digests += 1;
            return;
        }
        if wrap.control {
            return self.emit(Item::Ignored { kind: "CONTROL_MESSAGE", index: call.index });
        }
        match wrap.inner {
            Some((_, inner)) if level < LEVEL_MAX => {
                if let Some(kind) = wrap.detail_type.as_deref().filter(|kind| !kind.contains("CloudTrail"))
                    && super::scan::record(inner).is_some_and(|call| !missing_fields(&call).is_empty() && ignored_kind(&call).is_none())
                {
                    return self.emit(Item::Ignored { kind, index: call.index });
                }
                let mut walk = self.walk(inner);
                if inner.starts_with(b"[") {
                    self.list(&mut walk, level + 1);
                } else if let Err(fault) = self.value(&mut walk, level + 1) {
                    self.fault(fault, 0, call.raw);
                }
                self.end(walk);
            }
            Some(_) => self.reject("too many envelopes within each other", call.raw),
            None => self.reject(format!("record has no {}", missing_fields(call).join(", no ")), call.raw),
        }
    }

    fn time(&mut self, text: &str) -> Option<EventTime> {
        if let Some((last, time)) = &self.last_time
            && text.as_bytes() == last
        {
            return Some(*time);
        }
        let time = EventTime::parse(text)?;
        if let Ok(text) = text.as_bytes().try_into() {
            self.last_time = Some((text, time));
        }
        Some(time)
    }

    fn base64(&mut self, text: &[u8], level: u8) {
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
        );
        match LENIENT.decode(text) {
            Ok(bytes) if bytes.starts_with(&[0x1f, 0x8b]) => self.gzip(&bytes, level),
            Ok(_) => self.reject("base64 without gzip in it", text),
            Err(error) => self.reject(format!("base64 is broken: {error}"), text),
        }
    }

    /// Members of gzip. What came before a break is read; the break is one reject.
    fn gzip(&mut self, bytes: &[u8], level: u8) {
        if level >= LEVEL_MAX {
            return self.reject("too many envelopes within each other", bytes);
        }
        let mut text = Vec::new();
        let mut inflate = flate2::bufread::MultiGzDecoder::new(bytes).take(INFLATED_BYTES_MAX + 1);
        let result = inflate.read_to_end(&mut text);
        if text.len() as u64 > INFLATED_BYTES_MAX {
            return self.reject(format!("message inflates to more than {INFLATED_BYTES_MAX} bytes"), bytes);
        }
        self.text(&text, level + 1);
        if let Err(error) = result {
            self.reject(format!("gzip is broken after {} bytes of text: {error}", text.len()), bytes);
        }
    }
}

/// The kind of a record that tells of no single event (domain/cloudtrail.md section 7).
fn ignored_kind<'c>(call: &'c ApiCall<'_>) -> Option<&'c str> {
    let (kind, category) = (call.event_type.as_deref(), call.category.as_deref());
    let of_type = kind.filter(|kind| matches!(*kind, "AwsCloudTrailInsight" | "AwsAggregatedEvent"));
    of_type.or_else(|| category.filter(|category| matches!(*category, "Insight" | "Aggregated")).map(|category| kind.unwrap_or(category)))
}

fn missing_fields(call: &ApiCall<'_>) -> Vec<&'static str> {
    [("eventSource", &call.event_source), ("eventName", &call.event_name), ("eventTime", &call.time_text)]
        .into_iter()
        .filter(|(_, text)| text.is_empty())
        .map(|(name, _)| name)
        .collect()
}

/// The first characters of a text, for a message.
fn cut(text: &str) -> &str {
    text.char_indices().nth(64).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Where to go on after a value of `text` that began at `from` and was found faulty at `fault`: outside of a list
/// nothing says where the next value begins, so lines do.
fn resume(text: &[u8], from: usize, fault: usize, by_brackets: &mut bool) -> usize {
    let fault = fault.clamp(from, text.len());
    // The fault is the first brace of the next line: the line before was cut.
    let before = text[from..fault].trim_ascii_end().len();
    let line_starts = text[from + before..fault].contains(&b'\n') && matches!(text.get(fault), Some(b'{' | b'['));
    if line_starts {
        return fault;
    }
    // It ran into the end: a line that opens and never closes swallows none of the records on the lines after it.
    if fault == text.len()
        && let Some(n) = memchr::memmem::find(&text[from.min(text.len())..], b"\n{")
    {
        return from + n + 1;
    }
    if *by_brackets && matches!(text.get(from), Some(b'{')) && text.get(fault) != Some(&b'\n') {
        let mut s = Scanner { text, at: from };
        if s.skip_loosely() && s.at > from {
            return s.at;
        }
        *by_brackets = false;
    }
    memchr::memchr(b'\n', &text[fault..]).map_or(text.len(), |n| fault + n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"eventVersion":"1.08","eventTime":"2023-11-14T22:13:20Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","eventID":"id","eventType":"AwsApiCall"}"#;

    /// What comes out: `c` a call, `i:kind` ignored, `r` a reject; indices must count up from 0.
    fn items(text: &[u8]) -> Vec<String> {
        let alone = items_with(None, text);
        for isa in Isa::all() {
            assert_eq!(items_with(Some(isa), text), alone, "{isa:?} {}", text[..text.len().min(300)].escape_ascii());
        }
        alone
    }

    fn items_with(isa: Option<Isa>, text: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        let outcome = read_with(isa, text, &mut |item| {
            let (said, index) = match item {
                Item::Call(call) => {
                    assert!(call.raw.starts_with(b"{") && call.raw.ends_with(b"}"), "{}", call.raw.escape_ascii());
                    assert!(super::super::tree(call.raw).is_some());
                    ("c".to_owned(), call.index)
                }
                Item::Ignored { kind, index } => (format!("i:{kind}"), index),
                Item::Reject(reject) => ("r".to_owned(), reject.position.0),
            };
            assert_eq!(index, seen.len() as u64);
            seen.push(said);
        });
        assert_eq!(outcome.items, seen.len() as u64);
        seen
    }

    fn check(text: impl AsRef<[u8]>, want: &str) {
        let text = text.as_ref();
        assert_eq!(items(text).join(" "), want, "{}", text[..text.len().min(300)].escape_ascii());
    }

    fn quote(text: &str) -> String {
        serde_json::Value::from(text).to_string()
    }

    fn gz(text: &str) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut out, text.as_bytes()).and_then(|()| out.finish()).unwrap_or_default()
    }

    #[test]
    fn every_envelope_is_opened() {
        let r = RECORD;
        let pretty = serde_json::from_str::<serde_json::Value>(r).and_then(|v| serde_json::to_string_pretty(&v)).unwrap_or_default();
        let cloudwatch = format!(
            r#"{{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logStream":"s","logEvents":[{{"id":"1","timestamp":1,"message":{}}},{{"id":"2","timestamp":1,"message":{}}}]}}"#,
            quote(r),
            quote(&pretty)
        );
        let base64 = base64::engine::general_purpose::STANDARD.encode(gz(&cloudwatch));
        for (text, want) in [
            (r.to_owned(), "c"),
            (format!(r#"{{"Records":[{r},{r}]}}"#), "c c"),
            (format!("\u{feff} {{ \"a\" : 1, \"Records\" : [ {r} , {pretty} ] , \"b\" : [] }} \n"), "c c"),
            (format!("[{r},\n{r}]"), "c c"),
            (format!("{r}\n{r}\r\n\n{r}"), "c c c"),
            (format!("{r}{r},{pretty}{{\"Records\":[{r}]}}"), "c c c c"),
            (
                format!(
                    r#"{{"version":"0","id":"x","detail-type":"AWS API Call via CloudTrail","source":"aws.s3","resources":[],"detail":{r}}}"#
                ),
                "c",
            ),
            (cloudwatch.clone(), "c c"),
            (format!("{cloudwatch}{cloudwatch}"), "c c c c"),
            (
                r#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE: Checking health of destination Firehose."}]}"#.to_owned(),
                "i:CONTROL_MESSAGE",
            ),
            (base64.clone(), "c c"),
            (format!("{base64}\n{base64}\n"), "c c c c"),
            (format!(r#"{{"awslogs":{{"data":"{base64}"}}}}"#), "c c"),
            (format!(r#"{{"EventId":"x","EventName":"GetObject","Resources":[],"CloudTrailEvent":{}}}"#, quote(r)), "c"),
            (
                format!(
                    r#"{{"Events":[{{"EventId":"x","CloudTrailEvent":{0}}},{{"EventId":"y","CloudTrailEvent":{0}}}],"NextToken":"t"}}"#,
                    quote(r)
                ),
                "c c",
            ),
            (format!(r#"{{"schema":{{"type":"string"}},"payload":{r}}}"#), "c"),
            (format!(r#"{{"schema":{{"type":"string"}},"payload":{}}}"#, quote(&cloudwatch)), "c c"),
            (format!(r#"{{"@timestamp":"2023-11-14","message":{}}}"#, quote(r)), "c"),
            (format!(r#"{{"event":{{"original":{}}}}}"#, quote(r)), "c"),
            (quote(r), "c"),
            (quote(&quote(&format!(r#"{{"Records":[{r},{r}]}}"#))), "c c"),
            (format!("{}\n{}", quote(r), quote(r)), "c c"),
            (r#"{"Records":[]}"#.to_owned(), ""),
            (r#"{"awsAccountId":"1","digestStartTime":"2023-11-14T21:13:20Z","logFiles":[]}"#.to_owned(), ""),
            (String::new(), ""),
            (" \r\n".to_owned(), ""),
        ] {
            check(&text, want);
        }
        check(gz(r), "c");
        check([gz(r), gz(&cloudwatch)].concat(), "c c c");
        let digest = read(br#"{"digestStartTime":"2023-11-14T21:13:20Z","logFiles":[]}"#, &mut |_| {});
        assert_eq!(digest, Outcome { items: 0, digests: 1 });
    }

    #[test]
    fn records_take_nothing_from_those_before_them() {
        let full = super::super::fuzzing::RECORD;
        let bare = r#"{"eventTime":"2023-11-14T22:13:20Z","eventSource":"iam.amazonaws.com","eventName":"x"}"#;
        let spaced = bare.replace("\":", "\" :");
        let text = format!("{{\"Records\":[{full},{bare},{full},{spaced},{full},{bare}]}}");
        for isa in std::iter::once(None).chain(Isa::all().into_iter().map(Some)) {
            let mut calls = 0;
            read_with(isa, text.as_bytes(), &mut |item| {
                let Item::Call(call) = item else { panic!("{item:?}") };
                let alone = ApiCall { index: 0, ..call.clone() };
                assert_eq!(super::super::plain::record(call.raw), Some(alone), "{isa:?}");
                calls += 1;
            });
            assert_eq!(calls, 6);
        }
    }

    #[test]
    fn records_longer_than_a_piece_and_across_two_are_read() {
        for length in [1_000, 20_000, 32_700, 40_000] {
            let records: Vec<String> = (0..12).map(|n| RECORD.replace("GetObject", &format!("Get{n}{}", "x".repeat(length)))).collect();
            let text = format!("{{\"Records\":[{}]}}", records.join(","));
            for isa in Isa::all() {
                let mut names = Vec::new();
                read_with(Some(isa), text.as_bytes(), &mut |item| {
                    let Item::Call(call) = item else { panic!("{item:?}") };
                    names.push(call.raw.to_vec());
                });
                assert!(names.iter().map(Vec::as_slice).eq(records.iter().map(String::as_bytes)), "{isa:?} {length}");
            }
        }
    }

    #[test]
    fn every_event_has_its_own_time() {
        let at = |time: &str| RECORD.replace("2023-11-14T22:13:20Z", time);
        let nul = r"\u0000".repeat(20);
        let all = [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:21Z",
            "2023-11-14 22:13:21",
            &nul,
            "2023-11-14T22:13:2xZ",
            "2023-11-14T22:13:20Z",
        ];
        let mut times = Vec::new();
        read(all.map(at).join("\n").as_bytes(), &mut |item| times.push(if let Item::Call(call) = item { call.time.0 } else { -1 }));
        let first = 1_700_000_000;
        assert_eq!(times, [first, first, first + 1, first + 1, -1, -1, first]);
        // Nothing is remembered before there was a time.
        check(at(&nul), "r");
    }

    #[test]
    fn kinds_are_told_apart() {
        let r = RECORD;
        let kind =
            |kind: &str, category: &str| r.replace("AwsApiCall", kind).replacen('{', &format!(r#"{{"eventCategory":"{category}","#), 1);
        check(kind("AwsVpceEvent", "NetworkActivity"), "c");
        check(kind("AwsServiceEvent", "Management"), "c");
        check(kind("NeverHeardOf", "Odd"), "c");
        check(kind("AwsCloudTrailInsight", "Insight"), "i:AwsCloudTrailInsight");
        check(r#"{"eventType":"AwsCloudTrailInsight","insightDetails":{}}"#, "i:AwsCloudTrailInsight");
        check(
            r#"{"eventVersion":"1.0","eventId":"x","eventCategory":"Aggregated","eventType":"AwsAggregatedEvent","summary":{}}"#,
            "i:AwsAggregatedEvent",
        );
        check(r#"{"eventCategory":"Aggregated"}"#, "i:Aggregated");
        check(
            r#"{"detail-type":"EC2 Instance State-change Notification","detail":{"instance-id":"i-1"}}"#,
            "i:EC2 Instance State-change Notification",
        );
        check(r#"{"detail-type":"AWS API Call via CloudTrail","detail":{"instance-id":"i-1"}}"#, "r");
        check(r#"{"detail-type":"AWS Insight via CloudTrail","detail":{"eventType":"AwsCloudTrailInsight"}}"#, "i:AwsCloudTrailInsight");
        check(format!(r#"{{"detail-type":"resent by us","detail":{r}}}"#), "c");
    }

    #[test]
    fn odd_records_cost_only_themselves() {
        let r = RECORD;
        for (text, want) in [
            (r#"{"Records":[1,null,"x",[],{}]}"#.to_owned(), "r r r r r"),
            (format!(r#"{{"Records":[{r},{{"a":tru}},{r}]}}"#), "c r c"),
            (format!("{{\"Records\":[{r},{{\"a\":\"tab\t\"}},{r},{{\"a\":\"\\x\"}},{r},{{\"a\":01}},{r}]}}"), "c r c r c r c"),
            (format!(r#"{{"Records":[{r},{{"a":1]}},{r}]}}"#), "c r c"),
            (format!(r#"{{"Records":[{r},{{"a" 1}},tru,{r},]}}"#), "c r r c r"),
            (format!(r#"{{"Records":[{r}{r}]}}"#), "c c"),
            (format!(r#"{{"Records":[{r},{{"eventSource":"s3","eventName":"x"}},{r}]}}"#), "c r c"),
            (format!(r#"{{"Records":[{r},{}]}}"#, r.replace("2023-11-14T22:13:20Z", "yesterday")), "c r"),
            (format!(r#"{{"Records":[{r},{}"#, &r[..r.len() - 20]), "c r"),
            (format!(r#"{{"Records":[{r},{r}"#), "c c r"),
            (format!(r#"{{"Records":[{r},{r}]"#), "c c r"),
            (format!(r#"{{"Records":[{r},"#), "c r"),
            (r#"{"Records":["#.to_owned(), "r"),
            (r#"{"Records""#.to_owned(), "r"),
            (format!(r#"{{"Records":[{{"a":{}1{}}},{r}]}}"#, "{\"a\":".repeat(100_000), "}".repeat(100_000)), "r c"),
            (format!("{r}\n{}\n{r}\n{{\"a\":tru}}\n{r}\nnot json at all\n{r}", &r[..60]), "c r c r c r c"),
            (format!("{}\n{r}\n{}\n{r}", &r[..r.len() - 1], &r[..r.len() - 1]), "r c r c"),
            (format!("{r}\n\"text\"\n5\n{r}"), "c r r c"),
            (format!("{r}]{r}\n{r}"), "c r c"),
            (format!(r#"{{"message":"two\nlines"}}{r}"#), "r c"),
            (
                r#"{"message":{"message":{"message":{"message":{"message":{"message":{"message":{"message":{"message":{}}}}}}}}}}"#
                    .to_owned(),
                "r",
            ),
            ("H4sIAAAA!".to_owned(), "r"),
        ] {
            check(&text, want);
        }
        let bad = [b"{\"Records\":[{\"eventName\":\"Get\xff\"},".as_slice(), r.as_bytes(), b"]}"].concat();
        check(&bad, "r c");
        let mut cut = gz(&format!("{r}\n").repeat(2000));
        cut.truncate(cut.len() - 9);
        let seen = items(&cut);
        assert!(
            seen.len() > 2 && seen.last().is_some_and(|last| last == "r") && seen.first().is_some_and(|first| first == "c"),
            "{}",
            seen.len()
        );
    }

    #[test]
    fn hostile_texts_take_linear_time() {
        // Each of these was or could be quadratic: every line looks for its end to the end of the text.
        let started = std::time::Instant::now();
        for line in [
            "{\"a\":tru\n",
            " {\"a\":tru\n",
            "{\"\n",
            "[[{\n",
            "{\"a\":[\n",
            "\"\\\n",
            "{\"Records\":[",
            "{\"Records\":[{}",
            "[",
            "{\"message\":",
            "{\"a\":\"b\\",
        ] {
            read(line.repeat(2_000_000 / line.len()).as_bytes(), &mut |_| {});
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
