//! One pass over the text of a record: every byte checked, the fields of [`ApiCall`] picked out, no tree built.
//!
//! The scanner walks the text once, token by token. Keys it knows hand their value to a field, as borrowed text or as
//! the raw slice of a checked object; every other value is skipped, but checked as strictly: what a record holds is
//! valid JSON (RFC 8259) nested at most [`DEPTH_MAX`] deep, or the record is none. Numbers are checked for their
//! grammar only, so one that fits no machine type survives in a field nobody reads. Of a key that comes twice the last
//! one counts. There is no recursion over the input: how deep it nests is kept as bits in a small array.
//!
//! [`super::plain`] does the same the simple way, and tests hold the two against each other.

use super::call::{ApiCall, Identity, Text};
use super::index::Index;
use super::marks::Isa;
use super::quoted::{Quoted, quoted};
use crate::time::EventTime;

/// The deepest nesting a record may have; real ones stay under 30.
pub const DEPTH_MAX: usize = 512;

/// What is wrong with the text, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: usize,
    pub what: &'static str,
}

/// What an object holds besides a record's fields: the marks of the envelopes (domain/cloudtrail.md section 8).
#[derive(Clone, Debug, Default)]
pub(super) struct Wrap<'a> {
    /// The value that carries the record or records, as raw JSON, with the rank of its key (lower is surer).
    pub inner: Option<(u8, &'a [u8])>,
    /// `detail-type` of EventBridge.
    pub detail_type: Option<Text<'a>>,
    /// `digestStartTime` is there: a digest file.
    pub digest: bool,
    /// `messageType` is `CONTROL_MESSAGE`: CloudWatch Logs trying out the subscription.
    pub control: bool,
}

/// How [`Scanner::record`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The whole object was read.
    Object,
    /// The object has a list of records under a key like `Records`; the scanner stands at its `[`.
    List,
}

/// A place in a text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        let what = if self.at >= self.text.len() { "the text ends inside a value" } else { what };
        Err(Fault { at: self.at, what })
    }

    /// The next byte that is not white space, or 0 at the end of the text. Stays before it.
    #[inline]
    pub(super) fn token(&mut self) -> u8 {
        while let Some(&c) = self.text.get(self.at) {
            if c > b' ' || !matches!(c, b' ' | b'\n' | b'\r' | b'\t') {
                return c;
            }
            self.at += 1;
        }
        0
    }

    /// At a `"`: the string.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, Fault> {
        match quoted(self.text, self.at + 1) {
            Ok((string, after)) => {
                self.at = after;
                Ok(string)
            }
            Err((at, what)) => Err(Fault { at, what }),
        }
    }

    /// At a `{`: goes in; true if it has a member.
    #[inline]
    fn open(&mut self) -> Result<bool, Fault> {
        self.at += 1;
        if self.token() == b'}' {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Before a member: its key. Stands at its value then.
    #[inline]
    fn key(&mut self) -> Result<Quoted<'a>, Fault> {
        if self.token() != b'"' {
            return self.fault("a key is expected");
        }
        let key = self.string()?;
        if self.token() != b':' {
            return self.fault("a colon is expected");
        }
        self.at += 1;
        self.token();
        Ok(key)
    }

    /// After a member: true if there is another one; false when the object was closed.
    #[inline]
    fn more(&mut self) -> Result<bool, Fault> {
        match self.token() {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            b'}' => {
                self.at += 1;
                Ok(false)
            }
            _ => self.fault("a comma or } is expected"),
        }
    }

    /// At a value: past it, checked. `depth` is how deep the value itself lies in the record.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), Fault> {
        // One bit a level: 1 is an object. Level `depth` is the first one this call opens.
        let mut objects = [0u64; DEPTH_MAX / 64];
        let mut level = depth;
        loop {
            // A value.
            match self.token() {
                b'"' => {
                    self.string()?;
                }
                open @ (b'{' | b'[') => {
                    let Some(word) = objects.get_mut(level / 64) else { return self.fault("nested too deep") };
                    let bit = 1u64 << (level % 64);
                    self.at += 1;
                    if open == b'{' {
                        if self.token() != b'}' {
                            *word |= bit;
                            level += 1;
                            self.key()?;
                            continue;
                        }
                    } else if self.token() != b']' {
                        *word &= !bit;
                        level += 1;
                        continue;
                    }
                    self.at += 1;
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => return self.fault("a value is expected"),
            }
            // After it.
            loop {
                if level == depth {
                    return Ok(());
                }
                let top = level - 1;
                let object = objects.get(top / 64).is_some_and(|word| word >> (top % 64) & 1 == 1);
                match (self.token(), object) {
                    (b',', true) => {
                        self.at += 1;
                        self.key()?;
                        break;
                    }
                    (b',', false) => {
                        self.at += 1;
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        self.at += 1;
                        level = top;
                    }
                    (_, true) => return self.fault("a comma or } is expected"),
                    (_, false) => return self.fault("a comma or ] is expected"),
                }
            }
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Fault> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            Ok(())
        } else {
            // A literal cut off by the end of the text is a cut text, not a bad value.
            let rest = self.text.get(self.at..).unwrap_or_default();
            if word.starts_with(rest) {
                return Err(Fault { at: self.text.len(), what: "the text ends inside a value" });
            }
            self.fault("a value is expected")
        }
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let from = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == from { self.fault("a digit is expected") } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
            if self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
                return self.fault("a number begins with 0");
            }
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At a value: its text if it is a string.
    #[inline]
    fn text_or_skip(&mut self, depth: usize) -> Result<Option<Text<'a>>, Fault> {
        if self.token() == b'"' {
            return Ok(Some(self.string()?.text()));
        }
        self.skip(depth)?;
        Ok(None)
    }

    /// At a value: its raw JSON if it begins with `open`.
    fn raw_or_skip(&mut self, depth: usize, open: u8) -> Result<Option<&'a [u8]>, Fault> {
        let wanted = self.token() == open;
        let from = self.at;
        self.skip(depth)?;
        Ok(if wanted { self.text.get(from..self.at) } else { None })
    }

    /// At a value: a JSON boolean, or the word as a string.
    fn boolean_or_skip(&mut self, depth: usize) -> Result<Option<bool>, Fault> {
        let from = self.at;
        self.skip(depth)?;
        Ok(match self.text.get(from..self.at) {
            Some(b"true" | b"\"true\"") => Some(true),
            Some(b"false" | b"\"false\"") => Some(false),
            _ => None,
        })
    }

    /// At a `{`: reads the object as a record into `call`, and what marks an envelope into `wrap`. `raw`, `time` and
    /// `index` of the call are for the caller to set.
    pub(super) fn record(&mut self, call: &mut ApiCall<'a>, wrap: &mut Wrap<'a>) -> Result<Shape, Fault> {
        let mut open = self.open()?;
        while open {
            let key = self.key()?;
            let spelled;
            let name = match key.plain() {
                Some(name) => name,
                None => {
                    spelled = key.text();
                    spelled.as_bytes()
                }
            };
            match name {
                b"eventVersion" => call.version = self.text_or_skip(1)?,
                b"userIdentity" => {
                    let from = self.at;
                    call.identity = Identity::default();
                    call.identity_raw = None;
                    if self.token() == b'{' {
                        self.identity(&mut call.identity)?;
                        call.identity_raw = self.text.get(from..self.at);
                    } else {
                        self.skip(1)?;
                    }
                }
                b"eventTime" => call.time_text = self.text_or_skip(1)?.unwrap_or_default(),
                b"eventSource" => call.event_source = self.text_or_skip(1)?.unwrap_or_default(),
                b"eventName" => call.event_name = self.text_or_skip(1)?.unwrap_or_default(),
                b"awsRegion" => call.region = self.text_or_skip(1)?,
                b"sourceIPAddress" => call.source_address = self.text_or_skip(1)?,
                b"userAgent" => call.user_agent = self.text_or_skip(1)?,
                b"errorCode" => call.error_code = self.text_or_skip(1)?,
                b"errorMessage" => call.error_message = self.text_or_skip(1)?,
                b"requestParameters" => call.request = self.raw_or_skip(1, b'{')?,
                b"responseElements" => call.response = self.raw_or_skip(1, b'{')?,
                b"additionalEventData" => call.additional = self.raw_or_skip(1, b'{')?,
                b"serviceEventDetails" => call.service_details = self.raw_or_skip(1, b'{')?,
                b"resources" => call.resources = self.raw_or_skip(1, b'[')?,
                b"requestID" => call.request_id = self.text_or_skip(1)?,
                b"eventID" => call.event_id = self.text_or_skip(1)?,
                b"eventType" => call.event_type = self.text_or_skip(1)?,
                b"eventCategory" => call.category = self.text_or_skip(1)?,
                b"recipientAccountId" => call.recipient_account = self.text_or_skip(1)?,
                b"sharedEventID" => call.shared_event_id = self.text_or_skip(1)?,
                b"vpcEndpointId" => call.vpc_endpoint = self.text_or_skip(1)?,
                b"readOnly" => call.read_only = self.boolean_or_skip(1)?,
                b"managementEvent" => call.management = self.boolean_or_skip(1)?,
                b"addendum" => call.replaces = self.member(1, b"originalEventID")?,
                b"Records" | b"Events" | b"events" if self.token() == b'[' => return Ok(Shape::List),
                other => self.envelope(other, wrap)?,
            }
            open = self.more()?;
        }
        Ok(Shape::Object)
    }

    /// At the value of a key that no record has: perhaps an envelope's.
    fn envelope(&mut self, key: &[u8], wrap: &mut Wrap<'a>) -> Result<(), Fault> {
        let rank = match key {
            b"logEvents" => 0,
            b"CloudTrailEvent" => 1,
            b"detail" => 2,
            b"payload" => 3,
            b"event" => 4,
            b"original" => 5,
            b"message" => 6,
            b"awslogs" => 7,
            b"data" => 8,
            b"detail-type" => {
                wrap.detail_type = self.text_or_skip(1)?;
                return Ok(());
            }
            b"messageType" => {
                wrap.control = self.text_or_skip(1)?.as_deref() == Some("CONTROL_MESSAGE");
                return Ok(());
            }
            b"digestStartTime" => {
                wrap.digest = true;
                return self.skip(1);
            }
            _ => return self.skip(1),
        };
        let (first, from) = (self.token(), self.at);
        self.skip(1)?;
        if matches!(first, b'{' | b'[' | b'"') && wrap.inner.is_none_or(|(other, _)| rank <= other) {
            wrap.inner = self.text.get(from..self.at).map(|raw| (rank, raw));
        }
        Ok(())
    }

    /// At a value: the text under `wanted` if the value is an object that has it.
    fn member(&mut self, depth: usize, wanted: &[u8]) -> Result<Option<Text<'a>>, Fault> {
        let mut found = None;
        if self.token() != b'{' {
            self.skip(depth)?;
            return Ok(None);
        }
        let mut open = self.open()?;
        while open {
            let key = self.key()?;
            if key.text().as_bytes() == wanted {
                found = self.text_or_skip(depth + 1)?;
            } else {
                self.skip(depth + 1)?;
            }
            open = self.more()?;
        }
        Ok(found)
    }

    /// At the `{` of `userIdentity`.
    fn identity(&mut self, identity: &mut Identity<'a>) -> Result<(), Fault> {
        let mut open = self.open()?;
        while open {
            let key = self.key()?.text();
            match key.as_bytes() {
                b"type" => identity.kind = self.text_or_skip(2)?,
                b"principalId" => identity.principal_id = self.text_or_skip(2)?,
                b"arn" => identity.arn = self.text_or_skip(2)?,
                b"accountId" => identity.account = self.text_or_skip(2)?,
                b"accessKeyId" => identity.access_key = self.text_or_skip(2)?.filter(|key| !key.is_empty()),
                b"userName" => identity.user_name = self.text_or_skip(2)?,
                b"invokedBy" => identity.invoked_by = self.text_or_skip(2)?,
                b"sessionContext" => self.session(identity)?,
                b"inScopeOf" => (identity.scope_issuer, identity.scope_issued_to) = self.pair(2, b"issuerType", b"credentialsIssuedTo")?,
                _ => self.skip(2)?,
            }
            open = self.more()?;
        }
        Ok(())
    }

    /// At the value of `sessionContext`.
    fn session(&mut self, identity: &mut Identity<'a>) -> Result<(), Fault> {
        (identity.issuer_arn, identity.issuer_name) = (None, None);
        if self.token() != b'{' {
            return self.skip(2);
        }
        let mut open = self.open()?;
        while open {
            if self.key()?.text().as_bytes() == b"sessionIssuer" {
                (identity.issuer_arn, identity.issuer_name) = self.pair(3, b"arn", b"userName")?;
            } else {
                self.skip(3)?;
            }
            open = self.more()?;
        }
        Ok(())
    }

    /// At a value: the texts under two keys if the value is an object that has them.
    #[allow(clippy::type_complexity)]
    fn pair(&mut self, depth: usize, one: &[u8], two: &[u8]) -> Result<(Option<Text<'a>>, Option<Text<'a>>), Fault> {
        let mut found = (None, None);
        if self.token() != b'{' {
            self.skip(depth)?;
            return Ok(found);
        }
        let mut open = self.open()?;
        while open {
            let key = self.key()?.text();
            if key.as_bytes() == one {
                found.0 = self.text_or_skip(depth + 1)?;
            } else if key.as_bytes() == two {
                found.1 = self.text_or_skip(depth + 1)?;
            } else {
                self.skip(depth + 1)?;
            }
            open = self.more()?;
        }
        Ok(found)
    }

    /// After a list in an object: the rest of the object, unread.
    pub(super) fn finish_object(&mut self) -> Result<(), Fault> {
        while self.more()? {
            self.key()?;
            self.skip(1)?;
        }
        Ok(())
    }

    /// From the start of a faulty value: goes past it by quotes and by its own kind of bracket alone, so that what
    /// follows can be read. False if no end is in sight.
    pub(super) fn skip_loosely(&mut self) -> bool {
        let (open, close) = match self.text.get(self.at) {
            Some(b'{') => (b'{', b'}'),
            Some(b'[') => (b'[', b']'),
            // A bare word ends where the list goes on.
            _ => (0, 0),
        };
        let mut depth = 0usize;
        while let Some(&c) = self.text.get(self.at) {
            self.at += 1;
            if c == b'"' {
                if !self.skip_string_loosely() {
                    return false;
                }
            } else if open == 0 {
                if matches!(c, b',' | b']' | b'}') {
                    self.at -= 1;
                    return true;
                }
            } else if c == open {
                depth += 1;
            } else if c == close {
                depth -= 1;
                if depth == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// After an opening quote: past the closing one. False if there is none.
    fn skip_string_loosely(&mut self) -> bool {
        while let Some(rest) = self.text.get(self.at..) {
            match memchr::memchr2(b'"', b'\\', rest) {
                Some(n) if rest[n] == b'"' => {
                    self.at += n + 1;
                    return true;
                }
                Some(n) => self.at += n + 2,
                None => break,
            }
        }
        self.at = self.text.len();
        false
    }
}

/// Reads one record that stands alone in `raw`: checked JSON with nothing after it. Its `index` is 0; a record that has
/// no readable `eventTime` has `time` 0.
#[must_use]
pub fn record(raw: &[u8]) -> Option<ApiCall<'_>> {
    alone(raw, None)
}

/// As [`record`], read by the fast path on every instruction set that the machine has. For tests and fuzzers.
#[must_use]
pub fn record_on_each(raw: &[u8]) -> Vec<Option<ApiCall<'_>>> {
    Isa::all().into_iter().map(|isa| alone(raw, Some(isa))).collect()
}

fn alone(raw: &[u8], isa: Option<Isa>) -> Option<ApiCall<'_>> {
    let mut scanner = Scanner::new(raw);
    if scanner.token() != b'{' {
        return None;
    }
    let from = scanner.at;
    let mut call = ApiCall::default();
    let mut wrap = Wrap::default();
    match isa.and_then(|isa| super::fast::record(&mut Index::new(isa, Vec::new()), raw, from, &mut call, &mut wrap)) {
        Some(end) => scanner.at = end,
        None if scanner.record(&mut call, &mut wrap).ok()? == Shape::List => return None,
        None => {}
    }
    call.raw = raw.get(from..scanner.at)?;
    call.time = EventTime::parse(&call.time_text).unwrap_or_default();
    scanner.token();
    (scanner.at == raw.len()).then_some(call)
}

/// True if `raw` is a number, `true`, `false` or `null`, and nothing else.
pub(super) fn is_scalar(raw: &[u8]) -> bool {
    if matches!(raw, b"true" | b"false" | b"null") {
        return true;
    }
    let mut scanner = Scanner::new(raw);
    matches!(raw.first(), Some(b'-' | b'0'..=b'9')) && scanner.number().is_ok() && scanner.at == raw.len()
}

/// True if `raw` is one JSON value of at most [`DEPTH_MAX`] levels, and nothing else.
#[must_use]
pub(super) fn is_json(raw: &[u8]) -> bool {
    let mut scanner = Scanner::new(raw);
    let valid = scanner.skip(0).is_ok();
    scanner.token();
    valid && scanner.at == raw.len()
}
