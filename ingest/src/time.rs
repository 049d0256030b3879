//! Event time: whole seconds of UTC since 1970, and the hours and days that judging is done by.
//!
//! AWS stamps flow records and API calls in whole seconds; nothing here reads the machine's clock.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment of event time, in seconds since 1970-01-01T00:00:00Z.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventTime(pub i64);

/// One UTC hour, counted from 1970-01-01T00:00Z.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hour(pub i32);

/// One UTC day, counted from 1970-01-01.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub i32);

impl EventTime {
    /// Before every other time.
    pub const MIN: Self = Self(i64::MIN);
    /// After every other time; stands for "still".
    pub const MAX: Self = Self(i64::MAX);

    /// The hour this moment lies in. Times beyond what an `i32` of hours holds are clamped.
    #[must_use]
    #[inline]
    pub fn hour(self) -> Hour {
        Hour(self.0.div_euclid(3600).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
    }

    /// The day this moment lies in.
    #[must_use]
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(86_400).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
    }

    /// This moment moved by `secs`, saturating.
    #[must_use]
    pub fn plus(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs))
    }

    /// Microseconds since 1970, as the tables store time; saturating.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0.saturating_mul(1_000_000)
    }

    /// Reads RFC 3339 and what AWS services write in its place: a space for the `T`, fractions (cut off),
    /// an offset (`+02:00`, `+0000`), no zone at all (taken as UTC), and the compact `20131102T010628Z`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_rfc3339(text.trim().as_bytes())
    }
}

impl Hour {
    /// The first second of the hour.
    #[must_use]
    pub fn start(self) -> EventTime {
        EventTime(i64::from(self.0) * 3600)
    }
    /// The first second after the hour.
    #[must_use]
    pub fn end(self) -> EventTime {
        EventTime((i64::from(self.0) + 1) * 3600)
    }
    /// The day the hour belongs to.
    #[must_use]
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(24))
    }
    /// The hour after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Day {
    /// The first second of the day.
    #[must_use]
    pub fn start(self) -> EventTime {
        EventTime(i64::from(self.0) * 86_400)
    }
    /// The first hour of the day.
    #[must_use]
    pub fn first_hour(self) -> Hour {
        Hour(self.0.saturating_mul(24))
    }
    /// The day after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

fn parse_rfc3339(b: &[u8]) -> Option<EventTime> {
    fn digits(b: &[u8]) -> Option<i64> {
        if b.is_empty() || b.len() > 9 {
            return None;
        }
        b.iter().try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
    }
    // 20131102T010628Z
    if b.len() == 16 && b[8] == b'T' && b[15] == b'Z' {
        return civil(
            (digits(&b[0..4])?, digits(&b[4..6])?, digits(&b[6..8])?),
            (digits(&b[9..11])?, digits(&b[11..13])?, digits(&b[13..15])?),
        );
    }
    if b.len() < 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    let date = (digits(&b[0..4])?, digits(&b[5..7])?, digits(&b[8..10])?);
    if b.len() == 10 {
        return civil(date, (0, 0, 0));
    }
    if b.len() < 16 || !matches!(b[10], b'T' | b't' | b' ') || b[13] != b':' {
        return None;
    }
    let (hour, minute) = (digits(&b[11..13])?, digits(&b[14..16])?);
    let mut rest = &b[16..];
    let mut second = 0;
    if rest.first() == Some(&b':') {
        second = digits(rest.get(1..3)?)?;
        rest = &rest[3..];
        if matches!(rest.first(), Some(b'.' | b',')) {
            let end = rest[1..].iter().position(|c| !c.is_ascii_digit()).map_or(rest.len(), |n| n + 1);
            if end == 1 {
                return None;
            }
            rest = &rest[end..];
        }
    }
    let offset = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), zone @ ..] => {
            let (h, m) = match zone.len() {
                2 => (digits(zone)?, 0),
                4 => (digits(&zone[..2])?, digits(&zone[2..])?),
                5 if zone[2] == b':' => (digits(&zone[..2])?, digits(&zone[3..])?),
                _ => return None,
            };
            let secs = h * 3600 + m * 60;
            if *sign == b'-' { -secs } else { secs }
        }
        _ => return None,
    };
    civil(date, (hour, minute, second)).map(|t| t.plus(-offset))
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn civil((year, month, day): (i64, i64, i64), (hour, minute, second): (i64, i64, i64)) -> Option<EventTime> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second (:60) is taken as the second after.
    if !(1..=longest).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(EventTime(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second))
}

impl fmt::Display for EventTime {
    /// RFC 3339, e.g. `2026-01-05T10:02:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(86_400).clamp(-4_000_000, 4_000_000));
        let s = self.0.rem_euclid(86_400);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
    }
}

impl fmt::Display for Day {
    /// `2026-01-05`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(i64::from(self.0).clamp(-4_000_000, 4_000_000));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_as_aws_writes_them() {
        for (text, secs) in [
            ("2023-07-10T11:45:12Z", Some(1_688_989_512)),
            ("2023-07-10 11:45:12", Some(1_688_989_512)),
            ("2023-07-10T11:45:12.895+0000", Some(1_688_989_512)),
            ("2023-07-10T13:45:12+02:00", Some(1_688_989_512)),
            ("20131102T010628Z", Some(1_383_354_388)),
            ("1970-01-01", Some(0)),
            ("2023-02-29T00:00:00Z", None),
            ("yesterday-ish", None),
            ("2023-07-10T11:45:12.Z", None),
            ("", None),
        ] {
            assert_eq!(EventTime::parse(text).map(|t| t.0), secs, "{text}");
        }
        assert_eq!(EventTime(1_688_989_512).to_string(), "2023-07-10T11:45:12Z");
        assert_eq!(EventTime(1_688_989_512).day().to_string(), "2023-07-10");
        assert_eq!(EventTime(-1).hour(), Hour(-1));
    }
}
