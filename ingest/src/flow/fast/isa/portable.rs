//! Any machine: eight bytes in a word.

use super::{Lanes, ROWS, Run, Slot, bytes, digits8, keep};

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
    fn positions(self, bits: u64, base: u32, out: &mut [u32; 80]) {
        let mut left = bits;
        for slot in out.iter_mut().take(bits.count_ones() as usize) {
            *slot = base + left.trailing_zeros();
            left &= left - 1;
        }
    }

    #[inline(always)]
    fn same(self, a: &[u8; 64], b: &[u8; 64], len: usize) -> bool {
        a.get(..len) == b.get(..len)
    }

    #[inline(always)]
    fn addresses(self, run: Run<'_>, column: usize, out: &mut [u32; ROWS]) -> u64 {
        let mut failed = 0;
        run.each(column, column, |row, from, to| {
            let (address, ok) = ipv4(&bytes(run.text, from), to - from);
            out[row] = address;
            failed |= u64::from(!ok) << row;
        });
        failed
    }

    #[inline(always)]
    fn column(self, words: &[u64; ROWS], lens: &[u8; ROWS], slot: &Slot, out: &mut [u64; ROWS]) -> (u64, u64) {
        let (mut failed, mut second) = (0, 0);
        for row in 0..ROWS {
            let keep = keep(lens[row], slot);
            let long = u32::from(lens[row]) > slot.most;
            let wrong = match slot.words {
                Some([a, b]) => {
                    let word = words[row] & keep;
                    second |= u64::from(word == b) << row;
                    word != a && word != b
                }
                None => {
                    let (number, ok) = digits8(words[row], keep);
                    out[row] = number;
                    !ok
                }
            };
            failed |= u64::from(wrong | long) << row;
        }
        (failed, second)
    }
}

/// The address in the first `len` bytes.
#[inline(always)]
fn ipv4(bytes: &[u8; 16], len: usize) -> (u32, bool) {
    let Some(text) = bytes.get(..len) else { return (0, false) };
    let (mut address, mut octet, mut digits, mut octets) = (0u32, 0u32, 0u32, 1u32);
    for byte in text {
        let digit = u32::from(byte.wrapping_sub(b'0'));
        if digit <= 9 {
            // A digit after a lone zero is a leading zero; a fourth digit is one too many.
            if digits == 3 || (digits == 1 && octet == 0) {
                return (0, false);
            }
            octet = octet * 10 + digit;
            digits += 1;
        } else {
            if *byte != b'.' || digits == 0 || octet > 255 || octets == 4 {
                return (0, false);
            }
            address = address << 8 | octet;
            (octet, digits, octets) = (0, 0, octets + 1);
        }
    }
    (address << 8 | (octet & 255), octets == 4 && digits > 0 && octet <= 255)
}
