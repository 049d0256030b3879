//! One address, IPv4 or IPv6, in 16 bytes that sort, hash and store alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An IP address; IPv4 is kept as `::ffff:a.b.c.d`, so that one order holds over both families.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ip(pub u128);

const V4: u128 = 0xffff_0000_0000;

impl Ip {
    /// From the four bytes of an IPv4 address, the first byte most significant.
    #[must_use]
    #[inline]
    pub const fn v4(bits: u32) -> Self {
        Self(V4 | bits as u128)
    }
    /// The four bytes of an IPv4 address, or `None` for IPv6.
    #[must_use]
    #[inline]
    pub const fn as_v4(self) -> Option<u32> {
        if self.0 >> 32 == 0xffff { Some(self.0 as u32) } else { None }
    }
    /// True for IPv4.
    #[must_use]
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.0 >> 32 == 0xffff
    }
    /// Reads either family as text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<IpAddr>().ok().map(Self::from)
    }
    /// As the standard library's type.
    #[must_use]
    pub fn addr(self) -> IpAddr {
        match self.as_v4() {
            Some(bits) => IpAddr::V4(Ipv4Addr::from(bits)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
    /// The /24 (IPv4) or /48 (IPv6) this address lies in, as its first address.
    #[must_use]
    pub fn neighbourhood(self) -> Self {
        if self.is_v4() { Self(self.0 & !0xff) } else { Self(self.0 >> 80 << 80) }
    }
    /// The private one of two addresses, if the other is none.
    #[must_use]
    pub fn only_private(self, other: Self) -> Option<Self> {
        match (self.is_private(), other.is_private()) {
            (true, false) => Some(self),
            (false, true) => Some(other),
            _ => None,
        }
    }
    /// Private, loopback, link-local, shared or unique-local: never routed on the internet.
    #[must_use]
    #[inline]
    pub fn is_private(self) -> bool {
        match self.as_v4() {
            // 10/8, 172.16/12, 192.168/16, 127/8, 169.254/16, 100.64/10: compared without branches, for every record asks it.
            Some(ip) => {
                (ip >> 24 == 10)
                    | (ip >> 20 == 0xac1)
                    | (ip >> 16 == 0xc0a8)
                    | (ip >> 24 == 127)
                    | (ip >> 16 == 0xa9fe)
                    | (ip >> 22 == 0x191)
            }
            // ::1, fc00::/7, fe80::/10
            None => self.0 == 1 || self.0 >> 121 == 0x7e || self.0 >> 118 == 0x3fa,
        }
    }
}

impl From<IpAddr> for Ip {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(ip) => Self::v4(u32::from(ip)),
            IpAddr::V6(ip) => Self(u128::from(ip)),
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bits) = self.as_v4() else { return self.addr().fmt(f) };
        // As the standard library writes it, in a quarter of the instructions: findings and profiles are full of addresses.
        let mut text = [0; 15];
        let mut length = 0;
        let mut push = |byte: u8| {
            text[length] = byte;
            length += 1;
        };
        for (n, part) in bits.to_be_bytes().into_iter().enumerate() {
            if n > 0 {
                push(b'.');
            }
            if part > 99 {
                push(b'0' + part / 100);
            }
            if part > 9 {
                push(b'0' + part / 10 % 10);
            }
            push(b'0' + part % 10);
        }
        f.pad(std::str::from_utf8(&text[..length]).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Addresses at and around the ends of the private ranges, and any.
    fn address() -> impl Strategy<Value = IpAddr> {
        let ends = [10u32 << 24, 0xac10_0000, 0xc0a8_0000, 127 << 24, 0xa9fe_0000, 0x6440_0000];
        let v4 = (prop::sample::select(ends.to_vec()), prop::sample::select(vec![8, 10, 12, 16, 24]), -1i64..2, any::<u32>());
        let near = v4.prop_map(|(end, length, off, any)| {
            let in_range = if off == 0 { any >> length } else { 0 };
            IpAddr::from(Ipv4Addr::from((i64::from(end | in_range) + off) as u32))
        });
        let v6 = (prop::sample::select(vec![0xfc00u16, 0xfdff, 0xfe00, 0xfe80, 0xfebf, 0xfec0, 0]), any::<u64>(), any::<bool>());
        let v6 = v6.prop_map(|(first, any, zero)| {
            let rest = if zero { any & 3 } else { any };
            IpAddr::from(Ipv6Addr::from(u128::from(first) << 112 | u128::from(rest)))
        });
        prop_oneof![near, any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))), v6]
    }

    proptest! {
        #[test]
        fn private_and_text_are_as_the_standard_library_has_them(addr in address()) {
            let private = match addr {
                IpAddr::V4(ip) => {
                    let shared = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
                    ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared
                }
                IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
            };
            let ip = Ip::from(addr);
            prop_assert_eq!(ip.is_private(), private);
            prop_assert_eq!(ip.to_string(), addr.to_string());
            prop_assert_eq!(format!("{ip:>20}|{ip:<20}"), format!("{addr:>20}|{addr:<20}"));
        }
    }
}
