//! Any machine: eight bytes in a word.

use super::{Lanes, digits8};

#[derive(Copy, Clone, Debug)]
pub(in crate::flow) struct Portable;

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// The top bit of each byte that is zero.
#[inline(always)]
fn zero_bytes(word: u64) -> u64 {
    !(((word & LOW) + LOW) | word | LOW)
}

/// The top bits of eight bytes, as one byte.
#[inline(always)]
fn top_bits(word: u64) -> u64 {
    (word >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

impl Lanes for Portable {
    #[inline(always)]
    fn classify(self, block: &[u8; 64]) -> (u64, u64, u64) {
        let (mut spaces, mut newlines, mut controls) = (0, 0, 0);
        for (at, bytes) in block.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*bytes);
            let newline = zero_bytes(word ^ (ONES * u64::from(b'\n')));
            let control = zero_bytes(word & (ONES * 0xe0)) & !newline;
            spaces |= top_bits(zero_bytes(word ^ (ONES * u64::from(b' ')))) << (at * 8);
            newlines |= top_bits(newline) << (at * 8);
            controls |= top_bits(control) << (at * 8);
        }
        (spaces, newlines, controls)
    }

    #[inline(always)]
    fn ipv4(self, bytes: &[u8; 16], len: u32) -> (u32, bool) {
        let text = bytes.get(..len as usize).unwrap_or_default();
        let (mut address, mut octet, mut digits, mut octets) = (0u32, 0u32, 0u32, 1u32);
        let mut ok = true;
        for byte in text {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            if digit <= 9 {
                // A digit after a lone zero is a leading zero; a fourth digit is one too many.
                ok &= digits < 3 && !(digits == 1 && octet == 0);
                octet = octet * 10 + digit;
                digits += 1;
            } else {
                ok &= *byte == b'.' && digits > 0 && octet <= 255 && octets < 4;
                address = address << 8 | (octet & 255);
                (octet, digits, octets) = (0, 0, octets + 1);
            }
            if !ok {
                return (0, false);
            }
        }
        (address << 8 | (octet & 255), octets == 4 && digits > 0 && octet <= 255)
    }

    #[inline(always)]
    fn digits16(self, bytes: &[u8; 16], len: u32) -> (u64, bool) {
        let &[a, b, c, d, e, f, g, h, ref low @ ..] = bytes;
        if len <= 8 {
            return digits8(*low, len);
        }
        let (high, high_ok) = digits8([a, b, c, d, e, f, g, h], len - 8);
        let (low, low_ok) = digits8(*low, 8);
        (high.wrapping_mul(100_000_000).wrapping_add(low), high_ok && low_ok)
    }
}
