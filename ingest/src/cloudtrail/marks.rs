//! Sixty-four bytes of JSON at a step: which of them are quotes, brackets and the like, one bit each.
//!
//! The only part of the scanner that differs by instruction set. [`super::quoted`] and [`super::index`] have an `unsafe` each
//! for bytes that were checked to be text; all others are here.
//! Everything here reads and writes its arguments only, arrays of known length behind references; so the one obligation
//! is that the machine has the instructions, and a value of [`avx2::Avx2`] or [`avx512::Avx512`] is the proof: only its
//! `detect` makes one. [`Portable`] is the plain twin; tests hold all of them against each other.

#![allow(unsafe_code)]

/// What the bytes of a block are, bit 0 the first.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// `"`
    pub quotes: u64,
    /// `\`
    pub backslashes: u64,
    /// `{` `}` `[` `]` `:` `,`
    pub structure: u64,
    /// A space.
    pub spaces: u64,
    /// Below 0x20.
    pub controls: u64,
    /// From 0x80 on.
    pub wide: u64,
}

/// Room for the positions of a block, and some to spare.
pub(super) const POSITIONS: usize = 64 + 16;

/// The operations that differ. Equal results on every instruction set.
pub(super) trait Lanes: Copy {
    /// Tells what the bytes are.
    fn marks(self, block: &[u8; 64]) -> Marks;

    /// Writes `base` plus the number of each bit that is set to the front of `out`, in order, and may write anything
    /// behind.
    fn positions(self, bits: u64, base: u32, out: &mut [u32; POSITIONS]);
}

/// Work that is compiled once for each instruction set. Its `run` has to be `#[inline(always)]`: only what is inlined is
/// compiled for the set.
pub(super) trait Job {
    type Done;
    fn run<L: Lanes>(self, lanes: L) -> Self::Done;
}

/// An instruction set the machine has.
#[derive(Copy, Clone, Debug)]
pub(super) enum Isa {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Isa {
    /// The best there is.
    pub(super) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx512) = avx512::Avx512::detect() {
                return Self::Avx512(avx512);
            }
            if let Some(avx2) = avx2::Avx2::detect() {
                return Self::Avx2(avx2);
            }
        }
        Self::Portable(Portable)
    }

    /// All there are, for tests and fuzzers.
    pub(super) fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        all.extend(avx2::Avx2::detect().map(Self::Avx2).into_iter().chain(avx512::Avx512::detect().map(Self::Avx512)));
        all
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
}

/// Any machine: eight bytes in a word.
#[derive(Copy, Clone, Debug)]
pub(super) struct Portable;

impl Lanes for Portable {
    #[inline(always)]
    fn marks(self, block: &[u8; 64]) -> Marks {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        // One bit for each byte that is zero.
        let zeros = |word: u64| {
            let tops = !(((word & LOW) + LOW) | word | LOW);
            (tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
        };
        let mut marks = Marks::default();
        for (at, bytes) in block.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*bytes);
            let equal = |word: u64, byte: u8| zeros(word ^ (ONES * u64::from(byte)));
            // `[` and `{`, `]` and `}` differ in one bit.
            let folded = word | (ONES * 0x20);
            let shift = at * 8;
            marks.quotes |= equal(word, b'"') << shift;
            marks.backslashes |= equal(word, b'\\') << shift;
            marks.structure |= (equal(folded, b'{') | equal(folded, b'}') | equal(word, b':') | equal(word, b',')) << shift;
            marks.spaces |= equal(word, b' ') << shift;
            marks.controls |= zeros(word & (ONES * 0xe0)) << shift;
            marks.wide |= (zeros(word & (ONES * 0x80)) ^ 0xff) << shift;
        }
        marks
    }

    #[inline(always)]
    fn positions(self, bits: u64, base: u32, out: &mut [u32; POSITIONS]) {
        let mut left = bits;
        for slot in out.iter_mut().take(bits.count_ones() as usize) {
            *slot = base + left.trailing_zeros();
            left &= left - 1;
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::{Job, Lanes, Marks, POSITIONS};

    /// Proof that the machine has AVX2, BMI1, BMI2, LZCNT and POPCNT.
    #[derive(Copy, Clone, Debug)]
    pub(in crate::cloudtrail) struct Avx2(());

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            has.then_some(Self(()))
        }

        #[inline]
        pub(super) fn run<J: Job>(self, job: J) -> J::Done {
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
            fn compiled<J: Job>(lanes: Avx2, job: J) -> J::Done {
                job.run(lanes)
            }
            // SAFETY: `self` proves that the machine has the features.
            unsafe { compiled(self, job) }
        }
    }

    impl Lanes for Avx2 {
        #[inline(always)]
        fn marks(self, block: &[u8; 64]) -> Marks {
            // SAFETY: `self` proves that the machine has AVX2.
            unsafe { marks(block) }
        }

        #[inline(always)]
        fn positions(self, bits: u64, base: u32, out: &mut [u32; POSITIONS]) {
            // JSON of CloudTrail has seven in a block. Writing more than there are is cheaper than a branch that is often
            // guessed wrong.
            let mut left = bits;
            let mut next = 0;
            loop {
                for slot in &mut out[next..next + 8] {
                    *slot = base.wrapping_add(left.trailing_zeros());
                    left &= left.wrapping_sub(1);
                }
                next += 8;
                if left == 0 || next + 8 > out.len() {
                    return;
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn marks(block: &[u8; 64]) -> Marks {
        // SAFETY: both loads lie in the 64 bytes of the block and need no alignment.
        let (a, b) = unsafe { (_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().add(32).cast())) };
        let mask = |a: __m256i, b: __m256i| u64::from(_mm256_movemask_epi8(a) as u32) | u64::from(_mm256_movemask_epi8(b) as u32) << 32;
        let equal = |byte: u8| {
            let wanted = _mm256_set1_epi8(byte as i8);
            mask(_mm256_cmpeq_epi8(a, wanted), _mm256_cmpeq_epi8(b, wanted))
        };
        // `[` and `{`, `]` and `}` differ in one bit.
        let structure = |bytes: __m256i| {
            let folded = _mm256_or_si256(bytes, _mm256_set1_epi8(0x20));
            let brackets = _mm256_or_si256(
                _mm256_cmpeq_epi8(folded, _mm256_set1_epi8(b'{' as i8)),
                _mm256_cmpeq_epi8(folded, _mm256_set1_epi8(b'}' as i8)),
            );
            let others = _mm256_or_si256(
                _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b':' as i8)),
                _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b',' as i8)),
            );
            _mm256_or_si256(brackets, others)
        };
        let highest = _mm256_set1_epi8(0x1f);
        Marks {
            quotes: equal(b'"'),
            backslashes: equal(b'\\'),
            structure: mask(structure(a), structure(b)),
            spaces: equal(b' '),
            controls: mask(_mm256_cmpeq_epi8(_mm256_min_epu8(a, highest), a), _mm256_cmpeq_epi8(_mm256_min_epu8(b, highest), b)),
            wide: mask(a, b),
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::avx2::Avx2;
    use super::{Job, Lanes, Marks, POSITIONS};

    /// Proof that the machine has all that [`Avx2`] proves, and AVX-512 F, BW, VL, VBMI2.
    #[derive(Copy, Clone, Debug)]
    pub(in crate::cloudtrail) struct Avx512(());

    impl Avx512 {
        pub(super) fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi2")
                && Avx2::detect().is_some();
            has.then_some(Self(()))
        }

        #[inline]
        pub(super) fn run<J: Job>(self, job: J) -> J::Done {
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi2")]
            fn compiled<J: Job>(lanes: Avx512, job: J) -> J::Done {
                job.run(lanes)
            }
            // SAFETY: `self` proves that the machine has the features.
            unsafe { compiled(self, job) }
        }
    }

    impl Lanes for Avx512 {
        #[inline(always)]
        fn marks(self, block: &[u8; 64]) -> Marks {
            // SAFETY: `self` proves that the machine has AVX-512 F and BW.
            unsafe { marks(block) }
        }

        #[inline(always)]
        fn positions(self, bits: u64, base: u32, out: &mut [u32; POSITIONS]) {
            // SAFETY: `self` proves that the machine has AVX-512 F and VBMI2.
            unsafe { positions(bits, base, out) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn marks(block: &[u8; 64]) -> Marks {
        // SAFETY: the load lies in the 64 bytes of the block and needs no alignment.
        let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        let equal = |bytes: __m512i, byte: u8| _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte as i8));
        // `[` and `{`, `]` and `}` differ in one bit.
        let folded = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
        Marks {
            quotes: equal(bytes, b'"'),
            backslashes: equal(bytes, b'\\'),
            structure: equal(folded, b'{') | equal(folded, b'}') | equal(bytes, b':') | equal(bytes, b','),
            spaces: equal(bytes, b' '),
            controls: _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(0x20)),
            wide: _mm512_movepi8_mask(bytes),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi2")]
    fn positions(bits: u64, base: u32, out: &mut [u32; POSITIONS]) {
        const NUMBERS: [u8; 64] = {
            let mut numbers = [0; 64];
            let mut n = 0;
            while n < 64 {
                numbers[n] = n as u8;
                n += 1;
            }
            numbers
        };
        // SAFETY: the load lies in the 64 bytes of the table and needs no alignment.
        let numbers = unsafe { _mm512_loadu_si512(NUMBERS.as_ptr().cast()) };
        let packed = _mm512_maskz_compress_epi8(bits, numbers);
        let base = _mm512_set1_epi32(base as i32);
        let count = bits.count_ones();
        let mut store = |at: usize, numbers: __m128i| {
            let wide = _mm512_add_epi32(_mm512_cvtepu8_epi32(numbers), base);
            let Some(place) = out.get_mut(at..).and_then(<[u32]>::first_chunk_mut::<16>) else { return };
            // SAFETY: the store lies in the sixteen numbers of `place` and needs no alignment.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), wide) };
        };
        store(0, _mm512_castsi512_si128(packed));
        if count > 16 {
            store(16, _mm512_extracti32x4_epi32::<1>(packed));
            if count > 32 {
                store(32, _mm512_extracti32x4_epi32::<2>(packed));
                store(48, _mm512_extracti32x4_epi32::<3>(packed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Both<'a>(&'a [u8; 64], u64);

    impl Job for Both<'_> {
        type Done = (Marks, Vec<u32>);
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Done {
            let mut out = [0; POSITIONS];
            lanes.positions(self.1, 1000, &mut out);
            (lanes.marks(self.0), out[..self.1.count_ones() as usize].to_vec())
        }
    }

    /// By the meaning of the words.
    fn by_definition(block: &[u8; 64]) -> Marks {
        let bits = |is: fn(&u8) -> bool| block.iter().enumerate().filter(|(_, c)| is(c)).fold(0, |bits, (at, _)| bits | 1 << at);
        Marks {
            quotes: bits(|c| *c == b'"'),
            backslashes: bits(|c| *c == b'\\'),
            structure: bits(|c| b"{}[]:,".contains(c)),
            spaces: bits(|c| *c == b' '),
            controls: bits(|c| *c < 0x20),
            wide: bits(|c| *c >= 0x80),
        }
    }

    #[test]
    fn every_byte_is_told_everywhere() {
        for isa in Isa::all() {
            for byte in 0..=255u8 {
                let block: [u8; 64] = std::array::from_fn(|at| byte.wrapping_add(at as u8));
                assert_eq!(isa.run(Both(&block, 0)).0, by_definition(&block), "{isa:?} {byte}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_twins_agree(bytes in proptest::collection::vec(any::<u8>(), 64), bits in prop_oneof![any::<u64>(), any::<(u64, u64, u64)>().prop_map(|(a, b, c)| a & b & c), Just(u64::MAX), Just(0)]) {
            let block: &[u8; 64] = bytes.first_chunk().unwrap();
            let places: Vec<u32> = (0..64).filter(|at| bits >> at & 1 == 1).map(|at| 1000 + at).collect();
            for isa in Isa::all() {
                let (marks, positions) = isa.run(Both(block, bits));
                prop_assert_eq!(marks, by_definition(block), "{:?}", isa);
                prop_assert_eq!(&positions, &places, "{:?}", isa);
            }
        }
    }
}
