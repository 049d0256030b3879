//! A range of addresses as people write it.

use flowtrail_ingest::Ip;

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// None of address, CIDR, `first-last`.
    #[error("no address, CIDR or range: {0:?}")]
    NotARange(String),
    /// The last address comes before the first, or is of the other family.
    #[error("range ends before it begins: {0:?}")]
    Backwards(String),
}

/// Reads one address, a CIDR (its host bits are cleared), or `first-last`; an IPv4 port (`192.0.2.1:443`) is cut off.
/// Gives the first and the last address.
pub(crate) fn parse(text: &str) -> Result<(Ip, Ip), RangeError> {
    let text = text.trim();
    let wrong = || RangeError::NotARange(text.chars().take(80).collect());
    if let Some(ip) = Ip::parse(text) {
        return Ok((ip, ip));
    }
    if let Some((address, length)) = text.split_once('/') {
        let ip = Ip::parse(address.trim()).ok_or_else(wrong)?;
        let length: u32 = length.trim().parse().ok().filter(|_| !length.contains('+')).ok_or_else(wrong)?;
        let bits = if ip.is_v4() { 32 } else { 128 };
        if length > bits {
            return Err(wrong());
        }
        let host = u128::MAX.checked_shr(128 - (bits - length)).unwrap_or(0);
        return Ok((Ip(ip.0 & !host), Ip(ip.0 | host)));
    }
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = Ip::parse(first.trim()).zip(Ip::parse(last.trim())).ok_or_else(wrong)?;
        if last < first || first.is_v4() != last.is_v4() {
            return Err(RangeError::Backwards(text.chars().take(80).collect()));
        }
        return Ok((first, last));
    }
    if let Some((address, port)) = text.split_once(':')
        && port.parse::<u16>().is_ok()
        && let Some(ip) = Ip::parse(address)
    {
        return Ok((ip, ip));
    }
    Err(wrong())
}

/// A range as text: the address, its CIDR, or `first-last`.
pub(crate) fn shown(first: Ip, last: Ip) -> String {
    if first == last {
        return first.to_string();
    }
    let size = last.0.wrapping_sub(first.0).wrapping_add(1);
    // A power of two on its own boundary is a CIDR; the whole of IPv6 wraps to 0.
    if size == 0 || (size.is_power_of_two() && first.0 & (size - 1) == 0) {
        let host = if size == 0 { 128 } else { size.trailing_zeros() };
        let bits = if first.is_v4() { 32 } else { 128 };
        if host <= bits {
            return format!("{first}/{}", bits - host);
        }
    }
    format!("{first}-{last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_people_write_them() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.77/24", Some("192.0.2.0/24")),
            ("192.0.2.1/32", Some("192.0.2.1")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("192.0.2.4-192.0.2.7", Some("192.0.2.4/30")),
            ("192.0.2.4 - 192.0.2.9", Some("192.0.2.4-192.0.2.9")),
            ("192.0.2.1:443", Some("192.0.2.1")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("::/0", Some("::/0")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("192.0.2.9-192.0.2.4", None),
            ("192.0.2.1-2001:db8::1", None),
            ("192.0.2.0/33", None),
            ("192.0.2.0/+8", None),
            ("300.0.0.1", None),
            ("example.com", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok().map(|(a, b)| shown(a, b)).as_deref(), expected, "{text}");
        }
    }
}
