//! One record read token by token, from an [`Index`]: the fast path of [`super::scan`].
//!
//! The walk steps over every token once and holds it against the grammar; what lies between two tokens is a string that
//! the index has checked, or a number or word that is checked here. The values of keys that mean something are noted as
//! *spans*, two numbers each, in one small table; the record is made from the table at the end.
//!
//! This path decides nothing but how fast: whatever it does not like (white space, a key twice or with escapes, nesting
//! beyond 64, a list of records, faults of all kinds) is read again by [`super::scan`]. So it never says what is wrong.

use std::borrow::Cow;

use super::call::{ApiCall, Identity, Text};
use super::index::Index;
use super::marks::Token;
use super::quoted::unescape;
use super::scan::{Wrap, is_scalar};
use super::words::{LONGEST, Word, word};

/// The objects of a record whose keys mean something.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Place {
    /// Keys mean nothing here.
    Elsewhere,
    Record,
    UserIdentity,
    SessionContext,
    SessionIssuer,
    InScopeOf,
    Addendum,
}

const PLACES: usize = 7;

macro_rules! slots {
    ($($slot:ident = $place:ident / $word:ident,)*) => {
        /// What a span holds.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        #[repr(u8)]
        enum Slot { Nothing, $($slot,)* }
        const SLOTS: usize = [Slot::Nothing, $(Slot::$slot,)*].len();
        /// By place and key: the slot of its value.
        static SLOT_OF: [[Slot; 64]; PLACES] = {
            let mut slots = [[Slot::Nothing; 64]; PLACES];
            $(slots[Place::$place as usize][Word::$word as usize] = Slot::$slot;)*
            slots
        };
    };
}

slots! {
    Version = Record / EventVersion,
    User = Record / UserIdentity,
    Time = Record / EventTime,
    Source = Record / EventSource,
    Name = Record / EventName,
    Region = Record / AwsRegion,
    Address = Record / SourceIpAddress,
    Agent = Record / UserAgent,
    ErrorCode = Record / ErrorCode,
    ErrorMessage = Record / ErrorMessage,
    Request = Record / RequestParameters,
    Response = Record / ResponseElements,
    Additional = Record / AdditionalEventData,
    ServiceDetails = Record / ServiceEventDetails,
    Resources = Record / Resources,
    RequestId = Record / RequestId,
    EventId = Record / EventId,
    Kind = Record / EventType,
    Category = Record / EventCategory,
    Recipient = Record / RecipientAccountId,
    SharedEventId = Record / SharedEventId,
    VpcEndpoint = Record / VpcEndpointId,
    ReadOnly = Record / ReadOnly,
    Management = Record / ManagementEvent,
    Addendum = Record / Addendum,
    // Envelopes. The order of these is the order of their ranks (scan.rs).
    LogEvents = Record / LogEvents,
    CloudTrailEvent = Record / CloudTrailEvent,
    Detail = Record / Detail,
    Payload = Record / Payload,
    Event = Record / Event,
    Original = Record / Original,
    Message = Record / Message,
    AwsLogs = Record / AwsLogs,
    Data = Record / Data,
    DetailType = Record / DetailType,
    MessageType = Record / MessageType,
    Digest = Record / DigestStartTime,
    Records = Record / Records,
    Events = Record / Events,
    EventsUpper = Record / EventsUpper,
    UserKind = UserIdentity / Type,
    UserPrincipalId = UserIdentity / PrincipalId,
    UserArn = UserIdentity / Arn,
    UserAccount = UserIdentity / AccountId,
    UserAccessKey = UserIdentity / AccessKeyId,
    UserName = UserIdentity / UserName,
    UserInvokedBy = UserIdentity / InvokedBy,
    UserSession = UserIdentity / SessionContext,
    UserScope = UserIdentity / InScopeOf,
    SessionIssuer = SessionContext / SessionIssuer,
    IssuerArn = SessionIssuer / Arn,
    IssuerName = SessionIssuer / UserName,
    ScopeIssuer = InScopeOf / IssuerType,
    ScopeIssuedTo = InScopeOf / CredentialsIssuedTo,
    Replaces = Addendum / OriginalEventId,
}

/// By slot: the place that an object in it is.
static WITHIN: [Place; SLOTS] = {
    let mut places = [Place::Elsewhere; SLOTS];
    places[Slot::User as usize] = Place::UserIdentity;
    places[Slot::UserSession as usize] = Place::SessionContext;
    places[Slot::SessionIssuer as usize] = Place::SessionIssuer;
    places[Slot::UserScope as usize] = Place::InScopeOf;
    places[Slot::Addendum as usize] = Place::Addendum;
    places
};

const ENVELOPES: [Slot; 9] = [
    Slot::LogEvents,
    Slot::CloudTrailEvent,
    Slot::Detail,
    Slot::Payload,
    Slot::Event,
    Slot::Original,
    Slot::Message,
    Slot::AwsLogs,
    Slot::Data,
];

/// Where a value begins and ends in the piece; 0 and 0 if there is none. Of a string what is between the quotes, with
/// [`STRING`] added to where it begins.
type Span = (u32, u32);
const STRING: u32 = 1 << 31;

/// A walk over the tokens of a record. A step that fails gives the number of the token it failed at.
#[derive(Copy, Clone)]
struct Walk<'i> {
    piece: &'i [u8],
    /// The piece and what follows it, to look at keys by words.
    text: &'i [u8],
    tokens: &'i [Token],
    first_escape: usize,
}

/// Reads the record whose `{` stands at `from` in `text`, and gives the place after its `}`. `None` if it is for
/// [`super::scan`] to read; nothing is changed then. Else every field of `call` is set but `raw`, `time` and `index`, which
/// are for the caller to set.
pub(super) fn record<'a>(index: &mut Index<'a>, text: &'a [u8], from: usize, call: &mut ApiCall<'a>, wrap: &mut Wrap<'a>) -> Option<usize> {
    loop {
        let Some(first) = index.token_at(from) else {
            index.fill(text, from);
            index.token_at(from)?;
            continue;
        };
        let walk =
            Walk { piece: index.piece.as_bytes(), text: text.get(index.from..)?, tokens: index.tokens(), first_escape: index.first_escape };
        let mut spans = [(0, 0); SLOTS];
        match walk.object(Place::Record, first, &mut spans) {
            Ok(after) => {
                let end = walk.end(after);
                if index.first_escape >= end as usize {
                    Values::<false> { piece: index.piece, spans: &spans }.take(call, wrap);
                } else {
                    Values::<true> { piece: index.piece, spans: &spans }.take(call, wrap);
                }
                index.next = after;
                return Some(index.from + end as usize);
            }
            // It began in an earlier piece's last part.
            Err(at) if index.is_last(at) && index.from != from => {
                index.fill(text, from);
            }
            Err(_) => return None,
        }
    }
}

impl Walk<'_> {
    /// A token; behind the last one something that is none.
    #[inline(always)]
    fn token(&self, number: usize) -> Token {
        self.tokens.get(number).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn four(&self, number: usize) -> Option<&[Token; 4]> {
        self.tokens.get(number..)?.first_chunk()
    }

    /// The place behind the bracket that is the token before `after`.
    #[inline(always)]
    fn end(&self, after: usize) -> u32 {
        self.token(after - 1).place() + 1
    }

    /// At the `{` of an object: the number of the token after its `}`.
    fn object(self, of: Place, brace: usize, spans: &mut [Span; SLOTS]) -> Result<usize, usize> {
        let slots = &SLOT_OF[of as usize];
        let mut at = brace + 1;
        if self.token(at).byte() == b'}' {
            return Ok(at + 1);
        }
        loop {
            let Some(&[key, colon, value, next]) = self.four(at) else { return Err(at) };
            if (key.byte(), colon.byte()) != (b'"', b':') {
                return Err(at);
            }
            let slot = slots[self.word(key.place() + 1, colon.place() - 1).ok_or(at)? as usize];
            let (mut after, mut span) = (next.byte(), (value.place(), next.place()));
            match value.byte() {
                b'"' => {
                    at += 3;
                    span = ((span.0 + 1) | STRING, span.1 - 1);
                }
                open @ (b'{' | b'[') => {
                    let inside = WITHIN[slot as usize];
                    at = if open == b'{' && inside != Place::Elsewhere {
                        self.object(inside, at + 2, spans)?
                    } else if open == b'[' && matches!(slot, Slot::Records | Slot::Events | Slot::EventsUpper) {
                        // A list of records, not a record.
                        return Err(at);
                    } else {
                        self.skip(at + 2)?
                    };
                    span.1 = self.end(at);
                    after = self.token(at).byte();
                }
                _ => {
                    if !self.is_scalar(value, next) {
                        return Err(at);
                    }
                    at += 3;
                }
            }
            let place = &mut spans[slot as usize];
            if slot != Slot::Nothing && place.1 != 0 {
                return Err(at);
            }
            *place = span;
            match after {
                b',' => at += 1,
                b'}' => return Ok(at + 1),
                _ => return Err(at),
            }
        }
    }

    /// True if what begins at a token and ends before the next one is a number or a word.
    #[inline(always)]
    fn is_scalar(&self, token: Token, next: Token) -> bool {
        self.piece.get(token.place() as usize..next.place() as usize).is_some_and(is_scalar)
    }

    /// The key between two quotes; `None` if it has an escape.
    #[inline(always)]
    fn word(&self, from: u32, to: u32) -> Option<Word> {
        let (from, to) = (from as usize, to as usize);
        if self.first_escape < to && self.piece.get(from..to)?.contains(&b'\\') {
            return None;
        }
        let rest = self.text.get(from..)?;
        Some(match rest.first_chunk::<LONGEST>() {
            Some(bytes) => word(bytes, to - from),
            None => {
                let mut padded = [0; LONGEST];
                padded.get_mut(..rest.len())?.copy_from_slice(rest);
                word(&padded, to - from)
            }
        })
    }

    /// At a `{` or `[`: the number of the token after the bracket that closes it.
    #[inline(never)]
    fn skip(self, bracket: usize) -> Result<usize, usize> {
        // One bit a level, the lowest the innermost: 1 is an object.
        let (mut objects, mut level, mut at) = (0u64, 0, bracket);
        loop {
            // A value.
            let value = self.token(at);
            match value.byte() {
                b'"' => at += 1,
                open @ (b'{' | b'[') => {
                    if level == u64::BITS {
                        return Err(at);
                    }
                    level += 1;
                    objects = objects << 1 | u64::from(open == b'{');
                    at += 1;
                    let first = self.token(at).byte();
                    if open == b'{' && first != b'}' {
                        at = self.key(at)?;
                        continue;
                    }
                    if open == b'[' && first != b']' {
                        continue;
                    }
                }
                _ => {
                    if !self.is_scalar(value, self.token(at + 1)) {
                        return Err(at);
                    }
                    at += 1;
                }
            }
            // After it.
            loop {
                match (self.token(at).byte(), objects & 1) {
                    (b',', 1) => {
                        at = self.key(at + 1)?;
                        break;
                    }
                    (b',', _) => {
                        at += 1;
                        break;
                    }
                    (b'}', 1) | (b']', 0) => {
                        at += 1;
                        level -= 1;
                        objects >>= 1;
                        if level == 0 {
                            return Ok(at);
                        }
                    }
                    _ => return Err(at),
                }
            }
        }
    }

    /// At a key: the number of the token of a value. Members that are strings and have another one behind them, which most
    /// are, are stepped over.
    #[inline(always)]
    fn key(&self, mut at: usize) -> Result<usize, usize> {
        while let Some(member) = self.four(at) {
            let [key, colon, value, comma] = member.map(Token::byte);
            if (key, colon) != (b'"', b':') {
                break;
            }
            if (value, comma) != (b'"', b',') {
                return Ok(at + 2);
            }
            at += 4;
        }
        Err(at)
    }
}

/// The spans of a record that was walked through to its end. With `ESCAPES` its strings may have some.
struct Values<'i, 'a, const ESCAPES: bool> {
    piece: &'a str,
    spans: &'i [Span; SLOTS],
}

impl<'a, const ESCAPES: bool> Values<'_, 'a, ESCAPES> {
    /// The value as written, a string without its quotes; empty if there is none.
    #[inline(always)]
    fn raw(&self, slot: Slot) -> &'a [u8] {
        let (from, to) = self.spans[slot as usize];
        self.piece.as_bytes().get((from & !STRING) as usize..to as usize).unwrap_or_default()
    }

    /// The value as written if it may have a record in it.
    fn carrier(&self, slot: Slot) -> Option<&'a [u8]> {
        let (from, to) = self.spans[slot as usize];
        let with_quotes = if from & STRING == 0 { from..to } else { (from & !STRING) - 1..to + 1 };
        let raw = self.piece.as_bytes().get(with_quotes.start as usize..with_quotes.end as usize)?;
        matches!(raw.first(), Some(b'{' | b'[' | b'"')).then_some(raw)
    }

    /// The value if it is a string.
    #[inline(always)]
    fn text(&self, slot: Slot) -> Option<Text<'a>> {
        let (from, to) = self.spans[slot as usize];
        if from & STRING == 0 {
            return None;
        }
        let inside = self.piece.get((from & !STRING) as usize..to as usize)?;
        if ESCAPES && inside.contains('\\') {
            return Some(Cow::Owned(unescape(inside)));
        }
        Some(Cow::Borrowed(inside))
    }

    #[inline(always)]
    fn object(&self, slot: Slot) -> Option<&'a [u8]> {
        self.bracketed(slot, b'{')
    }

    /// The value as written if it begins with this bracket.
    #[inline(always)]
    fn bracketed(&self, slot: Slot, bracket: u8) -> Option<&'a [u8]> {
        let raw = self.raw(slot);
        (self.spans[slot as usize].0 & STRING == 0 && raw.first() == Some(&bracket)).then_some(raw)
    }

    #[inline(always)]
    fn boolean(&self, slot: Slot) -> Option<bool> {
        match self.raw(slot) {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    fn has(&self, slot: Slot) -> bool {
        self.spans[slot as usize].1 != 0
    }

    /// Makes the record of them.
    #[inline]
    fn take(&self, call: &mut ApiCall<'a>, wrap: &mut Wrap<'a>) {
        let marked = self.spans[Slot::LogEvents as usize..=Slot::Digest as usize].iter().any(|span| span.1 != 0);
        if marked {
            self.envelope(wrap);
        }
        call.version = self.text(Slot::Version);
        call.time_text = self.text(Slot::Time).unwrap_or_default();
        call.event_source = self.text(Slot::Source).unwrap_or_default();
        call.event_name = self.text(Slot::Name).unwrap_or_default();
        call.region = self.text(Slot::Region);
        call.source_address = self.text(Slot::Address);
        call.user_agent = self.text(Slot::Agent);
        call.error_code = self.text(Slot::ErrorCode);
        call.error_message = self.text(Slot::ErrorMessage);
        call.request = self.object(Slot::Request);
        call.response = self.object(Slot::Response);
        call.additional = self.object(Slot::Additional);
        call.service_details = self.object(Slot::ServiceDetails);
        call.resources = self.bracketed(Slot::Resources, b'[');
        call.request_id = self.text(Slot::RequestId);
        call.event_id = self.text(Slot::EventId);
        call.event_type = self.text(Slot::Kind);
        call.category = self.text(Slot::Category);
        call.recipient_account = self.text(Slot::Recipient);
        call.shared_event_id = self.text(Slot::SharedEventId);
        call.vpc_endpoint = self.text(Slot::VpcEndpoint);
        call.read_only = self.boolean(Slot::ReadOnly);
        call.management = self.boolean(Slot::Management);
        call.replaces = self.text(Slot::Replaces);
        call.identity_raw = self.object(Slot::User);
        call.identity = Identity {
            kind: self.text(Slot::UserKind),
            arn: self.text(Slot::UserArn),
            account: self.text(Slot::UserAccount),
            principal_id: self.text(Slot::UserPrincipalId),
            access_key: self.text(Slot::UserAccessKey).filter(|key| !key.is_empty()),
            user_name: self.text(Slot::UserName),
            invoked_by: self.text(Slot::UserInvokedBy),
            issuer_arn: self.text(Slot::IssuerArn),
            issuer_name: self.text(Slot::IssuerName),
            scope_issuer: self.text(Slot::ScopeIssuer),
            scope_issued_to: self.text(Slot::ScopeIssuedTo),
        };
    }

    #[cold]
    fn envelope(&self, wrap: &mut Wrap<'a>) {
        wrap.detail_type = self.text(Slot::DetailType);
        wrap.control = self.text(Slot::MessageType).as_deref() == Some("CONTROL_MESSAGE");
        wrap.digest = self.has(Slot::Digest);
        wrap.inner = ENVELOPES.iter().zip(0u8..).find_map(|(slot, rank)| Some((rank, self.carrier(*slot)?)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain;
    use super::super::scan::record_on_each;

    fn alike(text: &str) {
        let want = plain::record(text.as_bytes());
        for got in record_on_each(text.as_bytes()) {
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn every_bracket_is_closed_by_its_own_kind_however_deep() {
        // Around 64 levels, which is where the path gives up.
        for depth in [1, 2, 3, 62, 63, 64, 65, 66, 67] {
            for objects in [0u128, u128::MAX, 0xaaaa_aaaa_aaaa_aaaa_aaaa, 1] {
                let is_object = |level: usize| objects >> level & 1 == 1;
                let open: String = (0..depth).map(|level| if is_object(level) { "{\"a\":" } else { "[" }).collect();
                let close = |wrong: Option<usize>| -> String {
                    (0..depth).rev().map(|level| if is_object(level) != (wrong == Some(level)) { '}' } else { ']' }).collect()
                };
                for wrong in std::iter::once(None).chain((0..depth).map(Some)) {
                    alike(&format!("{{\"requestParameters\":{open}1{},\"eventName\":\"x\"}}", close(wrong)));
                }
            }
        }
    }

    #[test]
    fn keys_count_once_and_as_they_are_spelled() {
        for member in [
            r#""eventName":"a","eventName":"b""#,
            r#""eventName":"a","event\u004eame":"b""#,
            r#""event\u004eame":"b""#,
            r#""userIdentity":{"arn":"a"},"userIdentity":{"type":"t"}"#,
            r#""userIdentity":{"arn":"a","arn":"b"}"#,
            r#""eventName":"\u0061\"b","eventSource":"a\\""#,
            r#""requestParameters":{"a","b"}"#,
            r#""requestParameters":{"a":"b","c","d","e":"f"}"#,
            r#""requestParameters":{"a":"b","c":tru}"#,
            r#""requestParameters":{"a":"b",}"#,
            r#""requestParameters":["a","b",]"#,
            r#""requestParameters":{"a":"b" "c":"d"}"#,
            r#""readOnly":"true","managementEvent":truex"#,
        ] {
            for pad in [0, 1, 40, 63, 64, 65] {
                let pad = "p".repeat(pad);
                alike(&format!("{{\"x\":\"{pad}\",{member},\"eventID\":\"e\"}}"));
                alike(&format!("{{{member},\"x\":\"{pad}\"}}"));
            }
        }
    }
}
