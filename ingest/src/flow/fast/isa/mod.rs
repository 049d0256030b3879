//! The few operations that differ by instruction set, and which sets this machine has.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::ROWS;

/// An instruction set the machine has.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) enum Isa {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
}

impl Isa {
    /// The best there is.
    pub(in crate::flow) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx512) = x86::Avx512::detect() {
                return Self::Avx512(avx512);
            }
            if let Some(avx2) = x86::Avx2::detect() {
                return Self::Avx2(avx2);
            }
        }
        Self::Portable(portable::Portable)
    }

    /// Does a job, compiled for this instruction set.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Done {
        match self {
            Self::Portable(lanes) => job.run(lanes),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(lanes) => lanes.run(job),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(lanes) => lanes.run(job),
        }
    }

    /// All there are.
    #[cfg(test)]
    pub(in crate::flow) fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable(portable::Portable)];
        #[cfg(target_arch = "x86_64")]
        all.extend(x86::Avx2::detect().map(Self::Avx2).into_iter().chain(x86::Avx512::detect().map(Self::Avx512)));
        all
    }
}

/// A loop over [`Lanes`], compiled once for each instruction set. Its `run` has to be `#[inline(always)]`: only what is
/// inlined is compiled for the set.
pub(super) trait Job {
    type Done;
    fn run<L: Lanes>(self, lanes: L) -> Self::Done;
}

/// Operations on some bytes, or on a column of 64. Equal results on every instruction set.
pub(super) trait Lanes: Copy {
    /// One bit for each byte of the block: is it a space; a line end; another control character (below 0x20).
    fn classify(self, block: &[u8; 64]) -> (u64, u64, u64);

    /// Writes `base` plus the number of each bit that is set to the front of `out`, in order, and may write anything
    /// behind; `out` has room for 64 and 16 more.
    fn positions(self, bits: u64, base: u32, out: &mut [u32; 80]);

    /// True if the first `len` bytes, at most 64, are the same.
    fn same(self, a: &[u8; 64], b: &[u8; 64], len: usize) -> bool;

    /// The address in the first `len` bytes, the first octet most significant, and whether it is one: four numbers
    /// without leading zeros, as the standard library demands. If not, the number means nothing.
    fn ipv4(self, bytes: &[u8; 16], len: u32) -> (u32, bool);

    /// The numbers in the last `lens` bytes of each word (as text in memory), up to 8 digits; one bit for each word that
    /// is none or over `max`. Where a bit is set, the number means nothing.
    fn numbers8(self, words: &[u64; ROWS], lens: &[u8; ROWS], max: u64, out: &mut [u64; ROWS]) -> u64;

    /// Likewise up to 16 digits, the eight before the last in `high`; `max` is below 2^63.
    fn numbers16(self, high: &[u64; ROWS], low: &[u64; ROWS], lens: &[u8; ROWS], max: u64, out: &mut [u64; ROWS]) -> u64;
}

/// Eight digits are paired up to one number in three steps; before them the bytes that do not belong to it are cleared.
/// `len` may be 0 (no digits: 0) to 8.
#[inline(always)]
fn digits8(word: u64, len: u32) -> (u64, bool) {
    let keep = u64::MAX.checked_shl(64 - len.min(8) * 8).unwrap_or(0);
    let word = (word ^ 0x3030_3030_3030_3030) & keep;
    // A byte over 9 either has its top bit set already or gets it from adding 0x76. A carry out of a byte can only come
    // from one that has it set.
    let wrong = (word | word.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080;
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    (low.wrapping_add(high) >> 32, wrong == 0)
}
