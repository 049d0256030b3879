//! Just enough JSON to look at the first keys of a text that may be cut off, broken or hostile.
//!
//! No recursion and no tree: nesting is counted, nothing is checked beyond what finding the next key needs.

/// The first byte at or after `at` that is no white space.
pub(super) fn blank(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + (rest.len() - rest.trim_ascii_start().len())
}

/// The index after the string whose opening quote is at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The string at `at`, unescaped; `None` if there is none or it is broken.
pub(super) fn string(text: &[u8], at: usize) -> Option<String> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    serde_json::from_slice(text.get(at..string_end(text, at)?)?).ok()
}

/// The index after the value at `at`; `None` if the text ends inside it.
pub(super) fn skip(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = at;
            loop {
                match text.get(at)? {
                    b'"' => at = string_end(text, at)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let rest = &text[at..];
            let end = rest.iter().position(|b| b.is_ascii_whitespace() || b",]}{[\"".contains(b)).unwrap_or(rest.len());
            (end > 0).then_some(at + end)
        }
    }
}

/// Keys (as written) of the object at `at`, each with the place of its value. A value is passed over only when the key
/// after it is asked for: the first one may be a whole object's list of records.
pub(super) fn members(text: &[u8], at: usize) -> impl Iterator<Item = (&[u8], usize)> {
    let mut places = places(text, at, b'{');
    std::iter::from_fn(move || {
        let key = places.next(text)?;
        if text.get(key) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(text, key)?;
        let colon = blank(text, key_end);
        if text.get(colon) != Some(&b':') {
            return None;
        }
        let value = blank(text, colon + 1);
        text.get(value)?;
        places.before = Some(value);
        Some((&text[key + 1..key_end - 1], value))
    })
}

/// Places of the elements of the array at `at`.
pub(super) fn elements(text: &[u8], at: usize) -> impl Iterator<Item = usize> {
    let mut places = places(text, at, b'[');
    std::iter::from_fn(move || {
        let value = places.next(text)?;
        if matches!(text.get(value)?, b']') {
            return None;
        }
        places.before = Some(value);
        Some(value)
    })
}

/// Where members or elements begin, one after the other.
struct Places {
    first: Option<usize>,
    /// The value that lies before the next place.
    before: Option<usize>,
}

fn places(text: &[u8], at: usize, open: u8) -> Places {
    Places { first: (text.get(at) == Some(&open)).then(|| blank(text, at + 1)), before: None }
}

impl Places {
    fn next(&mut self, text: &[u8]) -> Option<usize> {
        if let Some(value) = self.before.take() {
            let comma = blank(text, skip(text, value)?);
            return (text.get(comma) == Some(&b',')).then(|| blank(text, comma + 1));
        }
        self.first.take()
    }
}
