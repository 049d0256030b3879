//! The keys that mean something, told apart by one multiplication.
//!
//! Each key has one number for all the objects it may stand in; [`super::fast`] says what it means where. The table is
//! made when the program is compiled, from the list alone; a list without a table does not compile.

/// Keys are compared as three words of eight bytes; known ones are shorter.
pub(super) const LONGEST: usize = 24;

macro_rules! words {
    ($($name:ident = $text:literal,)*) => {
        /// A key, or none of those that mean something.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Word { Unknown, $($name,)* }
        /// Every key with its text.
        const WORDS: &[(Word, &[u8])] = &[(Word::Unknown, b""), $((Word::$name, $text),)*];
    };
}

words! {
    AccessKeyId = b"accessKeyId",
    AccountId = b"accountId",
    Addendum = b"addendum",
    AdditionalEventData = b"additionalEventData",
    Arn = b"arn",
    AwsLogs = b"awslogs",
    AwsRegion = b"awsRegion",
    CloudTrailEvent = b"CloudTrailEvent",
    CredentialsIssuedTo = b"credentialsIssuedTo",
    Data = b"data",
    Detail = b"detail",
    DetailType = b"detail-type",
    DigestStartTime = b"digestStartTime",
    ErrorCode = b"errorCode",
    ErrorMessage = b"errorMessage",
    Event = b"event",
    EventCategory = b"eventCategory",
    EventId = b"eventID",
    EventName = b"eventName",
    EventSource = b"eventSource",
    EventTime = b"eventTime",
    EventType = b"eventType",
    EventVersion = b"eventVersion",
    Events = b"events",
    EventsUpper = b"Events",
    InScopeOf = b"inScopeOf",
    InvokedBy = b"invokedBy",
    IssuerType = b"issuerType",
    LogEvents = b"logEvents",
    ManagementEvent = b"managementEvent",
    Message = b"message",
    MessageType = b"messageType",
    Original = b"original",
    OriginalEventId = b"originalEventID",
    Payload = b"payload",
    PrincipalId = b"principalId",
    ReadOnly = b"readOnly",
    RecipientAccountId = b"recipientAccountId",
    Records = b"Records",
    RequestId = b"requestID",
    RequestParameters = b"requestParameters",
    Resources = b"resources",
    ResponseElements = b"responseElements",
    ServiceEventDetails = b"serviceEventDetails",
    SessionContext = b"sessionContext",
    SessionIssuer = b"sessionIssuer",
    SharedEventId = b"sharedEventID",
    SourceIpAddress = b"sourceIPAddress",
    Type = b"type",
    UserAgent = b"userAgent",
    UserIdentity = b"userIdentity",
    UserName = b"userName",
    VpcEndpointId = b"vpcEndpointId",
}

/// A key as three words, zeros behind it.
type Packed = [u64; 3];

const BITS: u32 = 9;

struct Table {
    /// What the hash multiplies by.
    factor: u64,
    /// By hash: the key that has it, packed.
    keys: [(Packed, Word); 1 << BITS],
}

const fn hash(first: u64, len: usize, factor: u64) -> usize {
    ((first ^ (len as u64).rotate_right(5)).wrapping_mul(factor) >> (64 - BITS)) as usize
}

static TABLE: Table = table();
const FACTOR: u64 = table().factor;

/// By length: the bits of three words that a text of that length fills.
static KEEP: [Packed; LONGEST + 1] = {
    let mut keep = [[0; 3]; LONGEST + 1];
    let mut len = 0;
    while len <= LONGEST {
        let mut at = 0;
        while at < len {
            keep[len][at / 8] |= 0xff << (at % 8 * 8);
            at += 1;
        }
        len += 1;
    }
    keep
};

const fn table() -> Table {
    // A factor under which no two keys have one hash is found within some tries.
    let mut factor = 0x9e37_79b9_7f4a_7c15u64;
    'tries: loop {
        factor = factor.wrapping_mul(0x5851_f42d_4c95_7f2d) | 1;
        let mut keys = [([0; 3], Word::Unknown); 1 << BITS];
        let mut n = 1;
        while n < WORDS.len() {
            let (word, text) = WORDS[n];
            let mut packed = [0; 3];
            let mut at = 0;
            assert!(text.len() < LONGEST);
            while at < text.len() {
                packed[at / 8] |= (text[at] as u64) << (at % 8 * 8);
                at += 1;
            }
            let place = hash(packed[0], text.len(), factor);
            if !matches!(keys[place].1, Word::Unknown) {
                continue 'tries;
            }
            keys[place] = (packed, word);
            n += 1;
        }
        return Table { factor, keys };
    }
}

/// The key that stands in the first `len` of these bytes.
#[inline(always)]
pub(super) fn word(bytes: &[u8; LONGEST], len: usize) -> Word {
    let (words, _) = bytes.as_chunks::<8>();
    let (&[a, b, c], [keep_a, keep_b, keep_c]) = (words, &KEEP[len.min(LONGEST)]) else { return Word::Unknown };
    let a = u64::from_le_bytes(a) & keep_a;
    let (known, word) = &TABLE.keys[hash(a, len, FACTOR)];
    let (b, c) = (u64::from_le_bytes(b) & keep_b, u64::from_le_bytes(c) & keep_c);
    // A text that is longer than three words has no zero byte where every known key has one. (One with zero bytes in it
    // is no checked string.)
    if (a ^ known[0]) | (b ^ known[1]) | (c ^ known[2]) == 0 { *word } else { Word::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &[u8], behind: u8) -> Word {
        let mut bytes = [behind; LONGEST];
        let kept = text.len().min(LONGEST);
        bytes[..kept].copy_from_slice(&text[..kept]);
        word(&bytes, text.len())
    }

    #[test]
    fn every_key_is_known_whatever_follows() {
        for (word, text) in &WORDS[1..] {
            assert!(!text.is_empty() && text.len() < LONGEST);
            for behind in [0, b'"', 0xff] {
                assert_eq!(of(text, behind), *word);
                assert_eq!(
                    of(&text[..text.len() - 1], behind),
                    WORDS.iter().find(|w| w.1 == &text[..text.len() - 1]).map_or(Word::Unknown, |w| w.0)
                );
                assert_eq!(of(&[text, &b"x"[..]].concat(), behind), Word::Unknown);
            }
        }
        assert_eq!(of(b"", b'"'), Word::Unknown);
    }

    proptest! {
        #[test]
        fn others_are_unknown(text in "[a-zA-Z-]{0,30}", known in 1..WORDS.len(), at in any::<prop::sample::Index>(), byte in 1u8..) {
            let want = |text: &[u8]| WORDS[1..].iter().find(|w| w.1 == text).map_or(Word::Unknown, |w| w.0);
            prop_assert_eq!(of(text.as_bytes(), b'"'), want(text.as_bytes()));
            let mut near = WORDS[known].1.to_vec();
            let at = at.index(near.len());
            near[at] = byte;
            prop_assert_eq!(of(&near, b'"'), want(&near));
        }
    }
}
