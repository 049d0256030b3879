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
        match self.addr() {
            IpAddr::V4(ip) => {
                let o = ip.octets();
                ip.is_private() || ip.is_loopback() || ip.is_link_local() || (o[0] == 100 && (64..128).contains(&o[1]))
            }
            IpAddr::V6(ip) => ip.is_loopback() || (ip.segments()[0] & 0xfe00) == 0xfc00 || (ip.segments()[0] & 0xffc0) == 0xfe80,
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
        self.addr().fmt(f)
    }
}
