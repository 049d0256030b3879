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

/// Where a value begins and ends in the piece; 0 and 0 if there is none.
type Span = (u32, u32);

/// A walk over the tokens of a record. A step that fails gives the number of the token it failed at.
struct Walk<'i> {
    piece: &'i [u8],
    /// The piece and what follows it, to look at keys by words.
    text: &'i [u8],
    tokens: &'i [u32],
    first_escape: usize,
    spans: [Span; SLOTS],
}

/// Reads the record whose `{` stands at `from` in `text`, and gives the place after its `}`. `None` if it is for
/// [`super::scan`] to read; nothing is changed then. As there, `raw`, `time` and `index` are for the caller to set.
pub(super) fn record<'a>(index: &mut Index<'a>, text: &'a [u8], from: usize, call: &mut ApiCall<'a>, wrap: &mut Wrap<'a>) -> Option<usize> {
    loop {
        let Some(first) = index.token_at(from) else {
            index.fill(text, from);
            index.token_at(from)?;
            continue;
        };
        let mut walk = Walk {
            piece: index.piece.as_bytes(),
            text: text.get(index.from..)?,
            tokens: index.tokens(),
            first_escape: index.first_escape,
            spans: [(0, 0); SLOTS],
        };
        match walk.object(Place::Record, first) {
            Ok(after) => {
                let end = walk.place(after - 1) as usize + 1;
                let spans = walk.spans;
                Values { piece: index.piece, first_escape: index.first_escape, spans: &spans }.take(call, wrap);
                index.next = after;
                return Some(index.from + end);
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
    /// The place of a token; behind the last one a place where nothing is.
    #[inline(always)]
    fn place(&self, token: usize) -> u32 {
        self.tokens.get(token).copied().unwrap_or(u32::MAX)
    }

    /// The first byte of a token; 0 behind the piece.
    #[inline(always)]
    fn byte(&self, place: u32) -> u8 {
        self.piece.get(place as usize).copied().unwrap_or(0)
    }

    /// At the `{` of an object: the number of the token after its `}`.
    fn object(&mut self, of: Place, brace: usize) -> Result<usize, usize> {
        let slots = &SLOT_OF[of as usize];
        let mut at = brace + 1;
        if self.byte(self.place(at)) == b'}' {
            return Ok(at + 1);
        }
        loop {
            let Some(&[key, colon, value, next]) = self.tokens.get(at..).and_then(<[u32]>::first_chunk::<4>) else { return Err(at) };
            if self.byte(key) != b'"' || self.byte(colon) != b':' {
                return Err(at);
            }
            let slot = slots[self.word(key as usize + 1, colon as usize - 1).ok_or(at)? as usize];
            let end;
            match self.byte(value) {
                b'"' => {
                    at += 3;
                    end = next;
                }
                open @ (b'{' | b'[') => {
                    let inside = WITHIN[slot as usize];
                    at = if open == b'{' && inside != Place::Elsewhere {
                        self.object(inside, at + 2)?
                    } else if open == b'[' && matches!(slot, Slot::Records | Slot::Events | Slot::EventsUpper) {
                        // A list of records, not a record.
                        return Err(at);
                    } else {
                        self.skip(at + 2)?
                    };
                    end = self.place(at - 1) + 1;
                }
                _ => {
                    if !self.piece.get(value as usize..next as usize).is_some_and(is_scalar) {
                        return Err(at);
                    }
                    at += 3;
                    end = next;
                }
            }
            let span = &mut self.spans[slot as usize];
            if slot != Slot::Nothing && span.1 != 0 {
                return Err(at);
            }
            *span = (value, end);
            match self.byte(self.place(at)) {
                b',' => at += 1,
                b'}' => return Ok(at + 1),
                _ => return Err(at),
            }
        }
    }

    /// The key between two quotes; `None` if it has an escape.
    #[inline(always)]
    fn word(&self, from: usize, to: usize) -> Option<Word> {
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
    fn skip(&self, bracket: usize) -> Result<usize, usize> {
        // One bit a level, the lowest the innermost: 1 is an object.
        let (mut objects, mut level, mut at) = (0u64, 0, bracket);
        loop {
            // A value.
            match self.byte(self.place(at)) {
                b'"' => at += 1,
                open @ (b'{' | b'[') => {
                    if level == u64::BITS {
                        return Err(at);
                    }
                    level += 1;
                    objects = objects << 1 | u64::from(open == b'{');
                    at += 1;
                    let first = self.byte(self.place(at));
                    if open == b'{' && first != b'}' {
                        at = self.key(at)?;
                        continue;
                    }
                    if open == b'[' && first != b']' {
                        continue;
                    }
                }
                _ => {
                    let (from, to) = (self.place(at) as usize, self.place(at + 1) as usize);
                    if !self.piece.get(from..to).is_some_and(is_scalar) {
                        return Err(at);
                    }
                    at += 1;
                }
            }
            // After it.
            loop {
                match (self.byte(self.place(at)), objects & 1) {
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

    /// At a key: the number of the token of its value.
    #[inline(always)]
    fn key(&self, at: usize) -> Result<usize, usize> {
        let is_key = self.byte(self.place(at)) == b'"' && self.byte(self.place(at + 1)) == b':';
        if is_key { Ok(at + 2) } else { Err(at) }
    }
}

/// The spans of a record that was walked through to its end.
struct Values<'i, 'a> {
    piece: &'a str,
    first_escape: usize,
    spans: &'i [Span; SLOTS],
}

impl<'a> Values<'_, 'a> {
    /// The value as written; empty if there is none.
    #[inline(always)]
    fn raw(&self, slot: Slot) -> &'a [u8] {
        let (from, to) = self.spans[slot as usize];
        self.piece.as_bytes().get(from as usize..to as usize).unwrap_or_default()
    }

    /// The value if it is a string.
    #[inline(always)]
    fn text(&self, slot: Slot) -> Option<Text<'a>> {
        let (from, to) = self.spans[slot as usize];
        if to == 0 || self.piece.as_bytes().get(from as usize) != Some(&b'"') {
            return None;
        }
        let inside = self.piece.get(from as usize + 1..to as usize - 1)?;
        if self.first_escape < to as usize && inside.contains('\\') {
            return Some(Cow::Owned(unescape(inside)));
        }
        Some(Cow::Borrowed(inside))
    }

    #[inline(always)]
    fn object(&self, slot: Slot) -> Option<&'a [u8]> {
        Some(self.raw(slot)).filter(|raw| raw.starts_with(b"{"))
    }

    #[inline(always)]
    fn boolean(&self, slot: Slot) -> Option<bool> {
        match self.raw(slot) {
            b"true" | b"\"true\"" => Some(true),
            b"false" | b"\"false\"" => Some(false),
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
        call.resources = Some(self.raw(Slot::Resources)).filter(|raw| raw.starts_with(b"["));
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
        let carriers = ENVELOPES.iter().map(|slot| self.raw(*slot)).zip(0u8..);
        wrap.inner = carriers.filter(|(raw, _)| matches!(raw.first(), Some(b'{' | b'[' | b'"'))).map(|(raw, rank)| (rank, raw)).next();
    }
}
