//! Words for findings: numbers, times and frequencies as people read them.

use flowtrail_ingest::{EventTime, Hour, escaped};

/// `1,900`
#[must_use]
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 peer`, `3 peers`
#[must_use]
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 {
        return ["1 ", noun].concat();
    }
    let (stem, ending) = match noun.as_bytes() {
        [.., b'y'] if !noun.ends_with("ay") && !noun.ends_with("ey") => (&noun[..noun.len() - 1], "ies"),
        [.., b's' | b'h'] => (noun, "es"),
        _ => (noun, "s"),
    };
    [&thousands(n), " ", stem, ending].concat()
}

/// `12 KB`, in powers of 1,000.
#[must_use]
pub fn bytes(n: u64) -> String {
    for (unit, size) in [("TB", 1_000_000_000_000u64), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000)] {
        if n >= size {
            let tenths = n / (size / 10);
            return if tenths < 100 {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            } else {
                format!("{} {unit}", thousands(tenths / 10))
            };
        }
    }
    count(n, "byte")
}

/// `10:02`
#[must_use]
pub fn clock(at: EventTime) -> String {
    let minute = at.0.div_euclid(60).rem_euclid(24 * 60);
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// `on 2026-01-20 between 10:00 and 11:00 UTC`
#[must_use]
pub fn during(hour: Hour) -> String {
    format!("on {} between {} and {} UTC", hour.day(), clock(hour.start()), clock(hour.end()))
}

/// `at 10:02 UTC on 2026-01-20`
#[must_use]
pub fn at(time: EventTime) -> String {
    format!("at {} UTC on {}", clock(time), time.day())
}

/// `1 of 1,900`
#[must_use]
pub fn one_in(p: f64) -> String {
    if p >= 0.5 { "1 of 2".to_owned() } else { format!("1 of {}", thousands((1.0 / p.max(1e-9) + 0.5) as u64)) }
}

/// Words for how often: unseen, rare (under 1 % of active hours), infrequent (under 10 %), frequent.
#[must_use]
pub fn frequency(hours: u64, active: u64) -> &'static str {
    match (hours, active) {
        (0, _) => "unseen",
        (h, a) if h * 100 < a => "rare",
        (h, a) if h * 10 < a => "infrequent",
        _ => "frequent",
    }
}

/// `443/tcp`
#[must_use]
pub fn port(port: u16, protocol: u8) -> String {
    match protocol {
        6 => format!("{port}/tcp"),
        17 => format!("{port}/udp"),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        other if port == 0 => format!("protocol {other}"),
        other => format!("{port}/protocol {other}"),
    }
}

/// True when [`port`] writes both alike: (port, protocol).
#[must_use]
pub fn same_port(a: (u16, u8), b: (u16, u8)) -> bool {
    a.1 == b.1 && (a.0 == b.0 || matches!(a.1, 1 | 58))
}

/// `a, b and 3 more`
#[must_use]
pub fn listed<'a>(items: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    let items: Vec<&str> = items.into_iter().collect();
    let shown = items.iter().take(most).copied().collect::<Vec<_>>();
    match (items.len(), shown.as_slice()) {
        (_, []) => String::new(),
        (n, shown) if n > shown.len() => format!("{} and {} more", shown.join(", "), n - shown.len()),
        (_, [one]) => (*one).to_owned(),
        (_, [head @ .., last]) => format!("{} and {last}", head.join(", ")),
    }
}

/// True of text that [`clean`] leaves as it is, as nearly all is.
#[must_use]
pub fn is_clean(text: &str) -> bool {
    // Without an end at the first that is not: so many bytes are looked at in one step.
    text.bytes().fold(true, |clean, b| clean & matches!(b, b' '..=b'~' | b'\n'))
}

/// Text as it may be stored and shown: names in logs are hostile, so control characters are escaped, line by line.
#[must_use]
pub fn clean(text: &str) -> String {
    if is_clean(text) {
        return text.to_owned();
    }
    text.split('\n').map(|line| escaped(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_same_when_they_read_the_same() {
        let all: Vec<(u16, u8)> = [0, 8, 443].iter().flat_map(|port| [1, 6, 17, 58, 132].map(|protocol| (*port, protocol))).collect();
        for a in &all {
            for b in &all {
                assert_eq!(same_port(*a, *b), port(a.0, a.1) == port(b.0, b.1), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!((thousands(7), thousands(1900), thousands(1_234_567)), ("7".into(), "1,900".into(), "1,234,567".into()));
        assert_eq!(
            (count(1, "peer"), count(2, "day"), count(3, "entity"), count(2, "address")),
            ("1 peer".into(), "2 days".into(), "3 entities".into(), "2 addresses".into())
        );
        assert_eq!((bytes(512), bytes(12_000), bytes(2_340_000_000)), ("512 bytes".into(), "12 KB".into(), "2.3 GB".into()));
        assert_eq!((one_in(1.0 / 1900.0), one_in(0.7)), ("1 of 1,900".into(), "1 of 2".into()));
        assert_eq!(at(EventTime(1_767_571_200 + 36_120)), "at 10:02 UTC on 2026-01-05");
        assert_eq!(listed(["a", "b", "c"], 2), "a, b and 1 more");
        assert_eq!(listed(["a", "b", "c"], 3), "a, b and c");
        assert_eq!((frequency(0, 9), frequency(1, 500), frequency(1, 50), frequency(9, 20)), ("unseen", "rare", "infrequent", "frequent"));
        assert_eq!(clean("a\u{1b}[31m\nb"), "a\\u{1b}[31m\nb");
    }
}
