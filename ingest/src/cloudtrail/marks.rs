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
    /// `{` `}` `[` `]` `:` `,`
    pub structure: u64,
    /// A space.
    pub spaces: u64,
    /// What [`Rare`] tells apart.
    pub rare: u64,
}

/// What few blocks have.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rare {
    /// `\`
    pub backslashes: u64,
    /// Below 0x20.
    pub controls: u64,
    /// From 0x80 on.
    pub wide: u64,
}

/// Room for the tokens of a block, and some to spare.
pub(super) const ROOM: usize = 64 + 16;

/// A byte of a text and its place, in one word: the byte above, the place in the lower 24 bits.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Token(u32);

impl Token {
    /// `place` is below 2^24.
    #[inline(always)]
    pub(super) fn new(place: u32, byte: u8) -> Self {
        Self(u32::from(byte) << 24 | place)
    }

    #[inline(always)]
    pub(super) fn byte(self) -> u8 {
        (self.0 >> 24) as u8
    }

    #[inline(always)]
    pub(super) fn place(self) -> u32 {
        self.0 & 0xff_ffff
    }
}

/// The operations that differ. Equal results on every instruction set.
pub(super) trait Lanes: Copy {
    /// Tells what the bytes are.
    fn marks(self, block: &[u8; 64]) -> Marks;

    /// Tells what the rare ones among them are.
    fn rare(self, block: &[u8; 64]) -> Rare;

    /// For each bit whether the number of bits up to and with it is odd.
    fn parity(self, bits: u64) -> u64;

    /// Writes a token for each bit that is set to the front of `out`, in order: the block's byte of that number, at `base`
    /// plus the number. May write anything behind.
    fn note(self, bits: u64, base: u32, block: &[u8; 64], out: &mut [Token; ROOM]);
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

const ONES: u64 = 0x0101_0101_0101_0101;

/// The eight words of a block.
fn words(block: &[u8; 64]) -> impl Iterator<Item = (usize, u64)> + '_ {
    block.as_chunks::<8>().0.iter().enumerate().map(|(at, bytes)| (at * 8, u64::from_le_bytes(*bytes)))
}

/// One bit for each byte of the word that is zero.
#[inline(always)]
fn zeros(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let tops = !(((word & LOW) + LOW) | word | LOW);
    (tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// One bit for each byte of the word that is `byte`.
#[inline(always)]
fn equal(word: u64, byte: u8) -> u64 {
    zeros(word ^ (ONES * u64::from(byte)))
}

impl Lanes for Portable {
    #[inline(always)]
    fn marks(self, block: &[u8; 64]) -> Marks {
        let mut marks = Marks::default();
        for (shift, word) in words(block) {
            // `[` and `{`, `]` and `}` differ in one bit.
            let folded = word | (ONES * 0x20);
            marks.quotes |= equal(word, b'"') << shift;
            marks.structure |= (equal(folded, b'{') | equal(folded, b'}') | equal(word, b':') | equal(word, b',')) << shift;
            marks.spaces |= equal(word, b' ') << shift;
        }
        let Rare { backslashes, controls, wide } = self.rare(block);
        Marks { rare: backslashes | controls | wide, ..marks }
    }

    #[inline(always)]
    fn rare(self, block: &[u8; 64]) -> Rare {
        let mut rare = Rare::default();
        for (shift, word) in words(block) {
            rare.backslashes |= equal(word, b'\\') << shift;
            rare.controls |= zeros(word & (ONES * 0xe0)) << shift;
            rare.wide |= (zeros(word & (ONES * 0x80)) ^ 0xff) << shift;
        }
        rare
    }

    #[inline(always)]
    fn parity(self, mut bits: u64) -> u64 {
        bits ^= bits << 1;
        bits ^= bits << 2;
        bits ^= bits << 4;
        bits ^= bits << 8;
        bits ^= bits << 16;
        bits ^ bits << 32
    }

    #[inline(always)]
    fn note(self, bits: u64, base: u32, block: &[u8; 64], out: &mut [Token; ROOM]) {
        let mut left = bits;
        for token in out.iter_mut().take(bits.count_ones() as usize) {
            let number = left.trailing_zeros();
            *token = Token::new(base + number, block[number as usize % 64]);
            left &= left - 1;
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::{Job, Lanes, Marks, ROOM, Rare, Token};

    /// Proof that the machine has AVX2, BMI1, BMI2, LZCNT, PCLMULQDQ and POPCNT.
    #[derive(Copy, Clone, Debug)]
    pub(in crate::cloudtrail) struct Avx2(());

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("pclmulqdq")
                && is_x86_feature_detected!("popcnt");
            has.then_some(Self(()))
        }

        #[inline]
        pub(super) fn run<J: Job>(self, job: J) -> J::Done {
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,pclmulqdq,popcnt")]
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
        fn rare(self, block: &[u8; 64]) -> Rare {
            // SAFETY: `self` proves that the machine has AVX2.
            unsafe { rare(block) }
        }

        #[inline(always)]
        fn parity(self, bits: u64) -> u64 {
            // SAFETY: `self` proves that the machine has PCLMULQDQ.
            unsafe { parity(bits) }
        }

        #[inline(always)]
        fn note(self, bits: u64, base: u32, block: &[u8; 64], out: &mut [Token; ROOM]) {
            // JSON of CloudTrail has seven in a block. Writing more than there are is cheaper than a branch that is often
            // guessed wrong.
            let mut left = bits;
            for tokens in out.as_chunks_mut::<8>().0 {
                for token in tokens {
                    let number = left.trailing_zeros();
                    *token = Token::new(base.wrapping_add(number), block[number as usize % 64]);
                    left &= left.wrapping_sub(1);
                }
                if left == 0 {
                    return;
                }
            }
        }
    }

    /// A block in two halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(block: &[u8; 64]) -> [__m256i; 2] {
        // SAFETY: both loads lie in the 64 bytes of the block and need no alignment.
        unsafe { [_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().add(32).cast())] }
    }

    /// The highest bit of each byte.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn mask([a, b]: [__m256i; 2]) -> u64 {
        u64::from(_mm256_movemask_epi8(a) as u32) | u64::from(_mm256_movemask_epi8(b) as u32) << 32
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn equal(bytes: __m256i, byte: u8) -> __m256i {
        _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8))
    }

    /// Bytes below 0x20.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn controls(bytes: __m256i) -> __m256i {
        _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn marks(block: &[u8; 64]) -> Marks {
        let halves = halves(block);
        let structure = |bytes: __m256i| {
            // `[` and `{`, `]` and `}` differ in one bit.
            let folded = _mm256_or_si256(bytes, _mm256_set1_epi8(0x20));
            let brackets = _mm256_or_si256(equal(folded, b'{'), equal(folded, b'}'));
            _mm256_or_si256(brackets, _mm256_or_si256(equal(bytes, b':'), equal(bytes, b',')))
        };
        // Bytes from 0x80 on have the highest bit themselves.
        let rare = |bytes: __m256i| _mm256_or_si256(_mm256_or_si256(equal(bytes, b'\\'), controls(bytes)), bytes);
        Marks {
            quotes: mask(halves.map(|bytes| equal(bytes, b'"'))),
            structure: mask(halves.map(structure)),
            spaces: mask(halves.map(|bytes| equal(bytes, b' '))),
            rare: mask(halves.map(rare)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rare(block: &[u8; 64]) -> Rare {
        let halves = halves(block);
        Rare {
            backslashes: mask(halves.map(|bytes| equal(bytes, b'\\'))),
            controls: mask(halves.map(|bytes| controls(bytes))),
            wide: mask(halves),
        }
    }

    /// A product without carries by all ones is the sum of all lower bits.
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn parity(bits: u64) -> u64 {
        let product = _mm_clmulepi64_si128::<0>(_mm_cvtsi64_si128(bits as i64), _mm_set1_epi8(-1));
        _mm_cvtsi128_si64(product) as u64
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::avx2::Avx2;
    use super::{Job, Lanes, Marks, ROOM, Rare, Token};

    /// Proof that the machine has all that [`Avx2`] proves, and AVX-512 F, BW, VL, VBMI, VBMI2.
    #[derive(Copy, Clone, Debug)]
    pub(in crate::cloudtrail) struct Avx512(());

    impl Avx512 {
        pub(super) fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("avx512vbmi2")
                && Avx2::detect().is_some();
            has.then_some(Self(()))
        }

        #[inline]
        pub(super) fn run<J: Job>(self, job: J) -> J::Done {
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,pclmulqdq,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2")]
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
            // SAFETY: `self` proves that the machine has AVX-512 F, BW and VBMI.
            unsafe { marks(block) }
        }

        #[inline(always)]
        fn rare(self, block: &[u8; 64]) -> Rare {
            // SAFETY: `self` proves that the machine has AVX-512 F and BW.
            unsafe { rare(block) }
        }

        #[inline(always)]
        fn parity(self, bits: u64) -> u64 {
            // SAFETY: `self` proves that the machine has what `Avx2` proves, PCLMULQDQ among it.
            unsafe { super::avx2::parity(bits) }
        }

        #[inline(always)]
        fn note(self, bits: u64, base: u32, block: &[u8; 64], out: &mut [Token; ROOM]) {
            // SAFETY: `self` proves that the machine has AVX-512 F and VBMI2.
            unsafe { note(bits, base, block, out) }
        }
    }

    const QUOTE: u8 = 1;
    const STRUCTURE: u8 = 1 << 1;
    const SPACE: u8 = 1 << 2;
    const RARE: u8 = 1 << 3;

    /// What each byte below 0x80 is.
    static KINDS: [u8; 128] = {
        let mut kinds = [0; 128];
        let mut byte = 0;
        while byte < 128 {
            kinds[byte] = match byte as u8 {
                b'"' => QUOTE,
                b'{' | b'}' | b'[' | b']' | b':' | b',' => STRUCTURE,
                b' ' => SPACE,
                b'\\' | ..0x20 => RARE,
                _ => 0,
            };
            byte += 1;
        }
        kinds
    };

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(block: &[u8; 64]) -> __m512i {
        // SAFETY: the load lies in the 64 bytes of the block and needs no alignment.
        unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn marks(block: &[u8; 64]) -> Marks {
        let bytes = load(block);
        let ([low, high], _) = KINDS.as_chunks::<64>() else { return Marks::default() };
        // The look-up takes the lower seven bits of a byte: one beyond 0x7f is rare, whatever they look like.
        let kinds = _mm512_permutex2var_epi8(load(low), bytes, load(high));
        let kinds = _mm512_mask_mov_epi8(kinds, _mm512_movepi8_mask(bytes), _mm512_set1_epi8(RARE as i8));
        let are = |kind: u8| _mm512_test_epi8_mask(kinds, _mm512_set1_epi8(kind as i8));
        Marks { quotes: are(QUOTE), structure: are(STRUCTURE), spaces: are(SPACE), rare: are(RARE) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn rare(block: &[u8; 64]) -> Rare {
        let bytes = load(block);
        Rare {
            backslashes: _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(b'\\' as i8)),
            controls: _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(0x20)),
            wide: _mm512_movepi8_mask(bytes),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi2")]
    fn note(bits: u64, base: u32, block: &[u8; 64], out: &mut [Token; ROOM]) {
        const NUMBERS: [u8; 64] = {
            let mut numbers = [0; 64];
            let mut n = 0;
            while n < 64 {
                numbers[n] = n as u8;
                n += 1;
            }
            numbers
        };
        let (numbers, bytes) = (_mm512_maskz_compress_epi8(bits, load(&NUMBERS)), _mm512_maskz_compress_epi8(bits, load(block)));
        let base = _mm512_set1_epi32(base as i32);
        let mut store = |at: usize, numbers: __m128i, bytes: __m128i| {
            let places = _mm512_add_epi32(_mm512_cvtepu8_epi32(numbers), base);
            let tokens = _mm512_or_si512(places, _mm512_slli_epi32::<24>(_mm512_cvtepu8_epi32(bytes)));
            let Some(out) = out.get_mut(at..).and_then(<[Token]>::first_chunk_mut::<16>) else { return };
            // SAFETY: the store lies in the sixteen words of `out` and needs no alignment.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), tokens) };
        };
        store(0, _mm512_castsi512_si128(numbers), _mm512_castsi512_si128(bytes));
        let count = bits.count_ones();
        if count > 16 {
            store(16, _mm512_extracti32x4_epi32::<1>(numbers), _mm512_extracti32x4_epi32::<1>(bytes));
            if count > 32 {
                store(32, _mm512_extracti32x4_epi32::<2>(numbers), _mm512_extracti32x4_epi32::<2>(bytes));
                store(48, _mm512_extracti32x4_epi32::<3>(numbers), _mm512_extracti32x4_epi32::<3>(bytes));
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
        type Done = (Marks, Rare, u64, Vec<Token>);
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Done {
            let mut out = [Token::default(); ROOM];
            lanes.note(self.1, 1000, self.0, &mut out);
            let noted = out.into_iter().take(self.1.count_ones() as usize).collect();
            (lanes.marks(self.0), lanes.rare(self.0), lanes.parity(self.1), noted)
        }
    }

    /// By the meaning of the words.
    fn by_definition(block: &[u8; 64]) -> (Marks, Rare) {
        let bits = |is: fn(&u8) -> bool| block.iter().enumerate().filter(|(_, c)| is(c)).fold(0, |bits, (at, _)| bits | 1 << at);
        let rare = Rare { backslashes: bits(|c| *c == b'\\'), controls: bits(|c| *c < 0x20), wide: bits(|c| *c >= 0x80) };
        let marks = Marks {
            quotes: bits(|c| *c == b'"'),
            structure: bits(|c| b"{}[]:,".contains(c)),
            spaces: bits(|c| *c == b' '),
            rare: rare.backslashes | rare.controls | rare.wide,
        };
        (marks, rare)
    }

    #[test]
    fn every_byte_is_told_everywhere() {
        for isa in Isa::all() {
            for byte in 0..=255u8 {
                let block: [u8; 64] = std::array::from_fn(|at| byte.wrapping_add(at as u8));
                let (marks, rare, ..) = isa.run(Both(&block, 0));
                assert_eq!((marks, rare), by_definition(&block), "{isa:?} {byte}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_twins_agree(bytes in proptest::collection::vec(any::<u8>(), 64), bits in prop_oneof![any::<u64>(), any::<(u64, u64, u64)>().prop_map(|(a, b, c)| a & b & c), Just(u64::MAX), Just(0)]) {
            let block: &[u8; 64] = bytes.first_chunk().unwrap();
            let noted: Vec<Token> = (0..64).filter(|at| bits >> at & 1 == 1).map(|at| Token::new(1000 + at, bytes[at as usize])).collect();
            for isa in Isa::all() {
                let (marks, rare, parity, got) = isa.run(Both(block, bits));
                prop_assert_eq!((marks, rare), by_definition(block), "{:?}", isa);
                let odd = (0..64).filter(|at| (bits << (63 - at)).count_ones() % 2 == 1).fold(0, |all, at| all | 1 << at);
                prop_assert_eq!(parity, odd, "{:?}", isa);
                prop_assert_eq!(&got, &noted, "{:?}", isa);
            }
        }
    }
}
