//! One JSON string: found, checked and borrowed from the text.
//!
//! Most of a CloudTrail object is strings, so this is the inner loop of [`super::scan`]. Strings are walked 16 bytes at
//! a time with SSE2 (part of every x86-64) or 8 at a time with plain arithmetic elsewhere; both look for the first byte
//! that is not ordinary: a quote, a backslash, a control character, or the start of something that is not ASCII.
//! [`super::fast`] finds strings by itself; with it this is the path of what is odd.

#![allow(unsafe_code)]

use std::borrow::Cow;

/// The inside of a JSON string.
///
/// Invariant, set by [`quoted`] alone: `raw` is valid UTF-8 without control characters, and every backslash in it
/// begins one of JSON's escapes.
#[derive(Copy, Clone, Debug)]
pub(super) struct Quoted<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// The string itself: borrowed where it has no escapes. A surrogate without its other half becomes U+FFFD, because
    /// CloudTrail cuts long fields at a length and the cut can fall between two halves.
    pub(super) fn text(self) -> Cow<'a, str> {
        // SAFETY: `raw` is valid UTF-8 by the invariant of this type.
        let raw = unsafe { std::str::from_utf8_unchecked(self.raw) };
        if self.escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }

    /// The bytes between the quotes when they need no unescaping; a key with escapes has to go through [`Self::text`].
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        (!self.escaped).then_some(self.raw)
    }
}

/// Why a string is none, and where.
pub(super) type Broken = (usize, &'static str);

/// Reads the string whose first byte after the opening quote is at `from`. Gives it with the place after its closing
/// quote.
#[inline]
pub(super) fn quoted(text: &[u8], from: usize) -> Result<(Quoted<'_>, usize), Broken> {
    let at = special(text, from);
    if let (Some(b'"'), Some(raw)) = (text.get(at), text.get(from..at)) {
        return Ok((Quoted { raw, escaped: false }, at + 1));
    }
    odd(text, from, at)
}

/// The rest of [`quoted`], for strings with escapes or letters outside ASCII. `at` is the first special byte.
#[cold]
fn odd(text: &[u8], from: usize, mut at: usize) -> Result<(Quoted<'_>, usize), Broken> {
    let (mut escaped, mut wide) = (false, false);
    loop {
        match text.get(at) {
            None => return Err((text.len(), "the text ends inside a string")),
            Some(b'"') => break,
            Some(b'\\') => {
                escaped = true;
                at = escape(text, at)?;
            }
            Some(0..0x20) => return Err((at, "a string holds a control character")),
            Some(_) => {
                wide = true;
                at += 1;
                while text.get(at).is_some_and(|c| *c >= 0x80) {
                    at += 1;
                }
            }
        }
        at = special(text, at);
    }
    let raw = text.get(from..at).unwrap_or_default();
    if wide && let Err(error) = std::str::from_utf8(raw) {
        return Err((from + error.valid_up_to(), "a string is not UTF-8"));
    }
    Ok((Quoted { raw, escaped }, at + 1))
}

/// Checks the escape whose backslash is at `at` and gives the place after it.
pub(super) fn escape(text: &[u8], at: usize) -> Result<usize, Broken> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match text.get(at + 2..at + 6) {
            Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
            Some(_) => Err((at, "a string holds a bad escape")),
            None => Err((text.len(), "the text ends inside a string")),
        },
        Some(_) => Err((at, "a string holds a bad escape")),
        None => Err((text.len(), "the text ends inside a string")),
    }
}

/// Resolves the escapes of a checked string. Whole records come as strings (CloudWatch Logs), with an escape every nine
/// bytes: so eight bytes are copied at a step, and those from the next backslash on taken back.
pub(super) fn unescape(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len() + 8);
    let mut at = 0;
    while at < bytes.len() {
        if let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let plain = zeros(u64::from_le_bytes(*block) ^ (ONES * u64::from(b'\\'))).trailing_zeros() as usize / 8;
            let copied = out.len() + plain;
            out.extend_from_slice(block);
            out.truncate(copied);
            at += plain;
            if plain == 8 {
                continue;
            }
        } else if bytes[at] != b'\\' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        at += escaped_char(raw.get(at + 1..).unwrap_or_default(), &mut out);
    }
    // Text with escapes resolved is text.
    String::from_utf8(out).unwrap_or_default()
}

/// Adds what the backslash before `after` stands for; gives the length of the escape.
fn escaped_char(after: &str, out: &mut Vec<u8>) -> usize {
    let plain = match after.as_bytes().first() {
        Some(b'u') => {
            let (first, mut used) = (hex4(after.get(1..5)), 6);
            let c = match first {
                0xd800..0xdc00 => {
                    let low = after.get(5..7).filter(|s| *s == "\\u").map_or(0, |_| hex4(after.get(7..11)));
                    if (0xdc00..0xe000).contains(&low) {
                        used = 12;
                        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00))
                    } else {
                        None
                    }
                }
                unit => char::from_u32(unit),
            };
            out.extend_from_slice(c.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]).as_bytes());
            return used;
        }
        Some(b'b') => 0x8,
        Some(b'f') => 0xc,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(other) => *other,
        None => return 1,
    };
    out.push(plain);
    2
}

fn hex4(digits: Option<&str>) -> u32 {
    digits.and_then(|d| u32::from_str_radix(d, 16).ok()).unwrap_or(0)
}

/// The first place from `from` on with a quote, a backslash, a control character or a byte beyond ASCII; the length of
/// the text if there is none.
#[cfg(target_arch = "x86_64")]
#[inline]
fn special(text: &[u8], mut from: usize) -> usize {
    use std::arch::x86_64::*;
    while let Some(block) = text.get(from..).and_then(|rest| rest.first_chunk::<16>()) {
        // SAFETY: SSE2 is part of the x86-64 baseline, and `block` is 16 readable bytes; the load needs no alignment.
        let mask = unsafe {
            let bytes = _mm_loadu_si128(block.as_ptr().cast());
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            // Signed: bytes from 0x80 on are negative, so one comparison finds them and the control characters.
            let odd = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), odd)) as u32
        };
        if mask != 0 {
            return from + mask.trailing_zeros() as usize;
        }
        from += 16;
    }
    special_plain(text, from)
}

/// As above, for other machines.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn special(text: &[u8], from: usize) -> usize {
    special_plain(text, from)
}

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// The high bit of every zero byte; a byte above a true zero may be marked too, which the lowest bit does not see.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

/// The twin without vector instructions: 8 bytes at a time, then one by one.
fn special_plain(text: &[u8], mut from: usize) -> usize {
    while let Some(block) = text.get(from..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*block);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | control | (word & HIGH);
        if found != 0 {
            return from + found.trailing_zeros() as usize / 8;
        }
        from += 8;
    }
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().position(|c| matches!(c, b'"' | b'\\' | 0..0x20 | 0x80..)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_and_their_faults() {
        for (text, want) in [
            (&b"plain\" rest"[..], Some("plain")),
            (b"\"", Some("")),
            (b"a\\\"b\\\\\\/\\b\\f\\n\\r\\t\"", Some("a\"b\\/\u{8}\u{c}\n\r\t")),
            (b"\\u00e9\\ud83d\\ude00!\"", Some("\u{e9}\u{1f600}!")),
            (b"cut \\ud83d\"", Some("cut \u{fffd}")),
            (b"\\ud83d\\u0041\\udc00x\"", Some("\u{fffd}A\u{fffd}x")),
            ("déjà vu, 東京, and more than sixteen bytes\"".as_bytes(), Some("déjà vu, 東京, and more than sixteen bytes")),
            (b"no end", None),
            (b"bad \\x\"", None),
            (b"bad \\u12g4\"", None),
            (b"bad \\u12", None),
            (b"tab\there\"", None),
            (b"\xff\"", None),
            (b"\xed\xa0\x80\"", None),
            (b"\\", None),
        ] {
            assert_eq!(quoted(text, 0).ok().map(|(s, _)| s.text()).as_deref(), want, "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn escapes_are_resolved_as_serde_does(text in r#"([a-zé東]{0,9}|\\["\\/bfnrt]|\\u[0-9a-cA-C][0-9a-fA-F]{3}|\\ud83d\\ude00){0,12}"#) {
            let json = format!("\"{text}\"");
            let want: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(quoted(json.as_bytes(), 1).ok().map(|(s, _)| s.text().into_owned()), Some(want));
        }

        #[test]
        fn the_twins_agree(bytes in proptest::collection::vec(prop_oneof![8 => 0x20u8..0x7f, 1 => any::<u8>()], 0..80), from in 0usize..20) {
            let plain = bytes.iter().enumerate().skip(from).find(|(_, c)| matches!(c, b'"' | b'\\' | 0..0x20 | 0x80..));
            let want = plain.map_or(bytes.len().max(from), |(n, _)| n);
            prop_assert_eq!(special(&bytes, from), want);
            prop_assert_eq!(special_plain(&bytes, from), want);
        }
    }
}
