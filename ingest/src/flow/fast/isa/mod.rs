//! The few operations that differ by instruction set, and which sets this machine has.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// An instruction set the machine has.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) enum Isa {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
}

impl Isa {
    /// The best there is.
    pub(in crate::flow) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = x86::Avx2::detect() {
            return Self::Avx2(avx2);
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
        }
    }

    /// All there are.
    #[cfg(test)]
    pub(in crate::flow) fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable(portable::Portable)];
        #[cfg(target_arch = "x86_64")]
        all.extend(x86::Avx2::detect().map(Self::Avx2));
        all
    }
}

/// A loop over [`Lanes`], compiled once for each instruction set. Its `run` has to be `#[inline(always)]`: only what is
/// inlined is compiled for the set.
pub(super) trait Job {
    type Done;
    fn run<L: Lanes>(self, lanes: L) -> Self::Done;
}

/// Operations on a handful of bytes. Equal results on every instruction set.
pub(super) trait Lanes: Copy {
    /// One bit for each byte of the block: is it a space; a line end; another control character (below 0x20).
    fn classify(self, block: &[u8; 64]) -> (u64, u64, u64);

    /// The address in the first `len` bytes, the first octet most significant, and whether it is one: four numbers
    /// without leading zeros, as the standard library demands. If not, the number means nothing.
    fn ipv4(self, bytes: &[u8; 16], len: u32) -> (u32, bool);

    /// The number in the last `len` bytes, 1 to 16 digits, and whether it is one. If not, the number means nothing.
    fn digits16(self, bytes: &[u8; 16], len: u32) -> (u64, bool);
}

/// The number in the last `len` bytes, 1 to 8 digits, and whether it is one.
///
/// The digits of a little-endian word are paired up in three multiplications (as in D. Lemire, "Quickly parsing eight
/// digits"); bytes before the number become leading zeros.
#[inline(always)]
pub(super) fn digits8(bytes: [u8; 8], len: u32) -> (u64, bool) {
    let shift = 64u32.wrapping_sub(len.wrapping_mul(8)) & 63;
    let word = (u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030) & (u64::MAX << shift);
    // A byte over 9 either has its top bit set already or gets it from adding 0x76. A carry out of a byte can only come
    // from one that has it set.
    let wrong = (word | word.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080;
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    (low.wrapping_add(high) >> 32, wrong == 0 && len.wrapping_sub(1) < 8)
}
