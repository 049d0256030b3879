//! Records as trees and as single lines, where the raw bytes are not enough.

use std::borrow::Cow;

use serde_json::Value;

use super::quoted::quoted;
use super::scan::is_json;

/// The tree of a record or of one of its raw parts ([`super::ApiCall::request`] and the like); `None` if it is no JSON
/// or nests deeper than [`super::DEPTH_MAX`]. Of a key that comes twice the last one counts.
#[must_use]
pub fn tree(raw: &[u8]) -> Option<Value> {
    // The parsers below use the stack for nesting; this check does not.
    if !is_json(raw) {
        return None;
    }
    // simd-json overwrites its input.
    let mut copy = raw.to_vec();
    simd_json::serde::from_slice(&mut copy).ok().or_else(|| build(raw))
}

/// Builds the tree of checked JSON that simd-json refuses, because of a number over `u64` or half a surrogate pair:
/// neither may hide the rest of a record from the detectors.
fn build(raw: &[u8]) -> Option<Value> {
    enum Open {
        List(Vec<Value>),
        Object(serde_json::Map<String, Value>, String),
    }
    let mut stack: Vec<Open> = Vec::new();
    let mut at = 0;
    let skip_space = |at: &mut usize| {
        while raw.get(*at).is_some_and(|c| matches!(c, b' ' | b'\n' | b'\r' | b'\t')) {
            *at += 1;
        }
    };
    let string = |at: &mut usize| {
        let (string, after) = quoted(raw, *at + 1).ok()?;
        *at = after;
        Some(string.text().into_owned())
    };
    // The key before the value at hand, for the object on top of the stack.
    loop {
        skip_space(&mut at);
        let mut value = match raw.get(at)? {
            b'{' | b'[' => {
                let object = raw.get(at) == Some(&b'{');
                at += 1;
                skip_space(&mut at);
                match (object, raw.get(at)?) {
                    (true, b'}') | (false, b']') => {
                        at += 1;
                        if object { Value::Object(serde_json::Map::new()) } else { Value::Array(Vec::new()) }
                    }
                    (true, _) => {
                        let key = string(&mut at)?;
                        skip_space(&mut at);
                        at += 1; // the colon
                        stack.push(Open::Object(serde_json::Map::new(), key));
                        continue;
                    }
                    (false, _) => {
                        stack.push(Open::List(Vec::new()));
                        continue;
                    }
                }
            }
            b'"' => Value::String(string(&mut at)?),
            _ => {
                let rest = raw.get(at..)?;
                let end = rest.iter().position(|c| matches!(c, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')).unwrap_or(rest.len());
                at += end;
                match rest.get(..end)? {
                    b"true" => Value::Bool(true),
                    b"false" => Value::Bool(false),
                    b"null" => Value::Null,
                    // Over what an `f64` holds: the number as written, as text.
                    digits => {
                        serde_json::from_slice(digits).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(digits).into_owned()))
                    }
                }
            }
        };
        loop {
            skip_space(&mut at);
            match stack.pop() {
                None => return Some(value),
                Some(Open::List(mut list)) => {
                    list.push(value);
                    let next = *raw.get(at)?;
                    at += 1;
                    if next == b',' {
                        stack.push(Open::List(list));
                        break;
                    }
                    value = Value::Array(list);
                }
                Some(Open::Object(mut object, key)) => {
                    object.insert(key, value);
                    let next = *raw.get(at)?;
                    at += 1;
                    if next == b',' {
                        skip_space(&mut at);
                        let key = string(&mut at)?;
                        skip_space(&mut at);
                        at += 1; // the colon
                        stack.push(Open::Object(object, key));
                        break;
                    }
                    value = Value::Object(object);
                }
            }
        }
    }
}

/// A record on one line: white space between tokens taken out, nothing else touched. Borrowed if there is none.
#[must_use]
pub fn one_line(raw: &[u8]) -> Cow<'_, [u8]> {
    let space = |c: u8| matches!(c, b' ' | b'\n' | b'\r' | b'\t');
    let mut out: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(&c) = raw.get(at) {
        // What is no closed string (the bytes are no record then) is taken byte by byte.
        let end = if c == b'"' { quoted(raw, at + 1).map_or(at + 1, |(_, after)| after) } else { at + 1 };
        if space(c) {
            out.get_or_insert_with(|| raw[..at].to_vec());
        } else if let Some(out) = &mut out {
            out.extend_from_slice(&raw[at..end]);
        }
        at = end;
    }
    out.map_or(Cow::Borrowed(raw), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_survive_what_simd_json_refuses() {
        for (raw, want) in [
            (r#" {"a":[1,{"b":null}],"a":{"c":true}} "#, Some(r#"{"a":{"c":true}}"#)),
            (
                r#"{"n":18446744073709551616,"d":[[],{},[{"e":"f"}]],"t":false}"#,
                Some(r#"{"n":1.8446744073709552e+19,"d":[[],{},[{"e":"f"}]],"t":false}"#),
            ),
            (r#"[1e999, "\ud800", -0.5]"#, Some("[\"1e999\",\"\u{fffd}\",-0.5]")),
            (r#""text""#, Some(r#""text""#)),
            (r#"{"a":1"#, None),
            (r#"{"a":1} x"#, None),
            ("", None),
        ] {
            assert_eq!(tree(raw.as_bytes()).map(|t| t.to_string()).as_deref(), want, "{raw}");
        }
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(tree(nested(crate::cloudtrail::DEPTH_MAX).as_bytes()).is_some());
        assert!(tree(nested(crate::cloudtrail::DEPTH_MAX + 1).as_bytes()).is_none());
        assert!(tree(nested(1_000_000).as_bytes()).is_none());
    }

    #[test]
    fn one_line_takes_out_white_space_between_tokens() {
        assert_eq!(&*one_line(b"{ \"a b\" :\t[ 1,\r\n \"c\\\" d\" ] }"), b"{\"a b\":[1,\"c\\\" d\"]}");
        assert!(matches!(one_line(br#"{"a b":"c  d"}"#), Cow::Borrowed(_)));
        assert_eq!(&*one_line(b"\" open  string"), b"\"openstring");
    }
}
