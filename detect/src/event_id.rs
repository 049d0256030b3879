//! `eventID` of an API call: nearly always a UUID, which no dictionary has to hold.
//!
//! Every event has its own, so that as text they would be the larger part of an hour's dictionary.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::hour::AccountHour;

/// An event id. Equal ids of one account-hour are equal values: a UUID as CloudTrail writes it is never kept as text.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventId {
    /// The event has none.
    #[default]
    None,
    /// A UUID in lower case with hyphens: its 16 bytes, high half first.
    Uuid(u64, u64),
    /// Anything else: an index into the dictionary.
    Text(u32),
}

impl EventId {
    /// The id of a text; `intern` gives odd ones their index.
    pub fn of(text: &str, intern: impl FnOnce(&str) -> u32) -> Self {
        match text {
            "" => Self::None,
            text => uuid(text.as_bytes()).unwrap_or_else(|| Self::Text(intern(text))),
        }
    }

    /// The id as text, as it was written. `hour` is the one whose dictionary it points into.
    #[must_use]
    pub fn text(self, hour: &AccountHour) -> Option<Cow<'_, str>> {
        match self {
            Self::None => None,
            Self::Text(index) => hour.opt(index).map(Cow::Borrowed),
            Self::Uuid(high, low) => {
                let mut text = String::with_capacity(36);
                // Writing to a String does not fail.
                let _ = write!(
                    text,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    high >> 32,
                    high >> 16 & 0xffff,
                    high & 0xffff,
                    low >> 48,
                    low & 0xffff_ffff_ffff
                );
                Some(Cow::Owned(text))
            }
        }
    }

    /// The index, for whoever moves the id to another dictionary.
    pub fn index_mut(&mut self) -> Option<&mut u32> {
        if let Self::Text(index) = self { Some(index) } else { None }
    }
}

/// `0a1b2c3d-…` in 36 bytes: lower case, hyphens where they belong. Whatever else has another spelling or none.
fn uuid(text: &[u8]) -> Option<EventId> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if text[8] != b'-' || text[13] != b'-' || text[18] != b'-' || text[23] != b'-' {
        return None;
    }
    let mut digits = [0u8; 32];
    digits[..8].copy_from_slice(&text[..8]);
    digits[8..12].copy_from_slice(&text[9..13]);
    digits[12..16].copy_from_slice(&text[14..18]);
    digits[16..20].copy_from_slice(&text[19..23]);
    digits[20..].copy_from_slice(&text[24..]);
    // Two loops without branches, which the compiler turns into vectors.
    let mut wrong = false;
    for digit in &mut digits {
        let (number, letter) = (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a'));
        wrong |= number >= 10 && letter >= 6;
        *digit = if number < 10 { number } else { letter.wrapping_add(10) };
    }
    if wrong {
        return None;
    }
    let half = |digits: &[u8]| digits.iter().fold(0u64, |all, digit| all << 4 | u64::from(*digit));
    Some(EventId::Uuid(half(&digits[..16]), half(&digits[16..])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dictionary(text: &str) -> AccountHour {
        AccountHour { strings: vec![text.into()], ..AccountHour::default() }
    }

    #[test]
    fn only_the_usual_spelling_is_a_uuid() {
        let id = |text: &str| EventId::of(text, |_| 0);
        assert_eq!(id("00112233-4455-6677-8899-aabbccddeeff"), EventId::Uuid(0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff));
        assert_eq!(id(""), EventId::None);
        for odd in [
            "00112233-4455-6677-8899-aabbccddeefF",
            "00112233-4455-6677-8899-aabbccddeeg0",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff0",
            "00112233+4455-6677-8899-aabbccddeeff",
            "0011223344556677-8899-aabb-ccdd-eeff",
            "00112233-4455-6677-8899-aabbccddee\u{e9}",
            "/0112233-4455-6677-8899-aabbccddeeff",
            "`0112233-4455-6677-8899-aabbccddeeff",
            "x",
        ] {
            assert_eq!(id(odd), EventId::Text(0), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn an_id_comes_out_as_it_went_in(text in prop_oneof!["[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[0-9a-gA-F-]{36}", ".{0,40}"]) {
            let id = EventId::of(&text, |_| 0);
            let hour = dictionary(&text);
            let out = id.text(&hour).map(Cow::into_owned);
            prop_assert_eq!(out, Some(text).filter(|t| !t.is_empty()));
        }
    }
}
