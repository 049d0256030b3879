//! x86-64 with AVX2. With [`super::avx512`] the only place of the parser with `unsafe`.
//!
//! Every function here reads and writes its arguments only: arrays of known length, behind references. So the one
//! obligation is that the machine has the instructions, and a value of [`Avx2`] is the proof: only `detect` makes one.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Job, Lanes, ROWS, Run, Slot, bytes};

/// Proof that the machine has AVX2, BMI1, BMI2, LZCNT and POPCNT.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) struct Avx2(());

impl Avx2 {
    pub(in crate::flow) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        has.then_some(Self(()))
    }

    /// Does a job with all that is inlined into it compiled for these instructions.
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
    fn classify(self, block: &[u8; 64]) -> (u64, u64, u64) {
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe { classify(block) }
    }

    #[inline(always)]
    fn positions(self, bits: u64, base: u32, out: &mut [u32; 80]) {
        // Lines of flow logs have a separator every eight bytes: mostly up to twelve in 64. Writing more than there are
        // is cheaper than a branch that is often guessed wrong.
        let mut left = bits;
        let mut next = 0;
        loop {
            for slot in &mut out[next..next + 12] {
                *slot = base.wrapping_add(left.trailing_zeros());
                left &= left.wrapping_sub(1);
            }
            next += 12;
            if left == 0 || next + 12 > out.len() {
                return;
            }
        }
    }

    #[inline(always)]
    fn same(self, a: &[u8; 64], b: &[u8; 64], len: usize) -> bool {
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe { same(a, b, len) }
    }

    #[inline(always)]
    fn addresses(self, run: Run<'_>, column: usize, out: &mut [u32; ROWS]) -> u64 {
        // SAFETY: `self` proves that the machine has AVX2, and so all of SSE.
        unsafe { addresses(run, column, out) }
    }

    #[inline(always)]
    fn column(self, words: &[u64; ROWS], lens: &[u8; ROWS], slot: &Slot, out: &mut [u64; ROWS]) -> (u64, u64) {
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe { column(words, lens, slot, out) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn classify(block: &[u8; 64]) -> (u64, u64, u64) {
    // SAFETY: both loads lie in the 64 bytes of the block and need no alignment.
    let (a, b) = unsafe { (_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().add(32).cast())) };
    let mask = |a: __m256i, b: __m256i| u64::from(_mm256_movemask_epi8(a) as u32) | u64::from(_mm256_movemask_epi8(b) as u32) << 32;
    let equal = |byte: u8| {
        let wanted = _mm256_set1_epi8(byte as i8);
        mask(_mm256_cmpeq_epi8(a, wanted), _mm256_cmpeq_epi8(b, wanted))
    };
    let highest = _mm256_set1_epi8(0x1f);
    let low = mask(_mm256_cmpeq_epi8(_mm256_min_epu8(a, highest), a), _mm256_cmpeq_epi8(_mm256_min_epu8(b, highest), b));
    let (spaces, newlines) = (equal(b' '), equal(b'\n'));
    (spaces, newlines, low & !newlines)
}

#[target_feature(enable = "avx2")]
fn addresses(run: Run<'_>, column: usize, out: &mut [u32; ROWS]) -> u64 {
    let mut failed = 0;
    run.each(column, column, |row, from, to| {
        let (address, ok) = ipv4(&bytes(run.text, from), (to - from) as u32);
        out[row] = address;
        failed |= u64::from(!ok | (to - from > 15)) << row;
    });
    failed
}

/// The address in the first `len` bytes, at most 15.
#[inline]
#[target_feature(enable = "avx2")]
fn ipv4(bytes: &[u8; 16], len: u32) -> (u32, bool) {
    let input = load16(bytes);
    let dots = _mm_movemask_epi8(_mm_cmpeq_epi8(input, _mm_set1_epi8(b'.' as i8))) as u32;
    // The dots inside the field and one behind it say how long each octet is: 81 patterns.
    let end = 1u32 << (len & 31);
    let shape = (dots & (end - 1)) | end;
    let pattern = &PATTERNS[hash(shape)];
    let digits = _mm_shuffle_epi8(_mm_sub_epi8(input, _mm_set1_epi8(b'0' as i8)), load16(&pattern.shuffle));
    // Octets as (tens, ones) pairs in the lower half, hundreds in the upper.
    let weights = _mm_setr_epi8(10, 1, 10, 1, 10, 1, 10, 1, 100, 0, 100, 0, 100, 0, 100, 0);
    let sums = _mm_maddubs_epi16(digits, weights);
    let octets = _mm_add_epi16(sums, _mm_srli_si128(sums, 8));
    // The least value of an octet with so many digits rules out leading zeros.
    let least = load16(&pattern.least);
    let most = _mm_setr_epi16(255, 255, 255, 255, i16::MAX, i16::MAX, i16::MAX, i16::MAX);
    let range = _mm_or_si128(_mm_cmpgt_epi16(least, octets), _mm_cmpgt_epi16(octets, most));
    let wrong = _mm_or_si128(range, _mm_subs_epu8(digits, _mm_set1_epi8(9)));
    let packed = _mm_cvtsi128_si32(_mm_packus_epi16(octets, octets)) as u32;
    (packed.swap_bytes(), _mm_testz_si128(wrong, wrong) != 0 && u32::from(pattern.shape) == shape)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn same(a: &[u8; 64], b: &[u8; 64], len: usize) -> bool {
    let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
    let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(load32(a0), load32(b0))) as u32;
    let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(load32(a1), load32(b1))) as u32;
    _bzhi_u64(!(u64::from(low) | u64::from(high) << 32), len as u32) == 0
}

#[inline(always)]
fn halves(bytes: &[u8; 64]) -> [&[u8; 32]; 2] {
    let (chunks, _) = bytes.as_chunks::<32>();
    [&chunks[0], &chunks[1]]
}

/// One slot of all rows, four rows at a time.
#[target_feature(enable = "avx2")]
fn column(words: &[u64; ROWS], lens: &[u8; ROWS], slot: &Slot, out: &mut [u64; ROWS]) -> (u64, u64) {
    let all = |value: u64| _mm256_set1_epi64x(value as i64);
    let (most, zero) = (all(u64::from(slot.most) * 8), _mm256_setzero_si256());
    let top = all(64 + u64::from(slot.skip) * 8);
    let bit_each = |lanes: __m256i| _mm256_movemask_pd(_mm256_castsi256_pd(lanes)) as u32;
    let (mut failed, mut second) = (0u64, 0u64);
    let inputs = words.as_chunks::<4>().0.iter().zip(lens.as_chunks::<4>().0).zip(out.as_chunks_mut::<4>().0);
    for (at, ((words, lens), out)) in inputs.enumerate() {
        // SAFETY: the reference is to 32 readable bytes; the load needs no alignment.
        let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
        let bits = _mm256_slli_epi64(_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(*lens))), 3);
        let long = _mm256_cmpgt_epi64(bits, most);
        let keep = _mm256_sllv_epi64(_mm256_set1_epi64x(-1), _mm256_subs_epu16(top, bits));
        let good = if let Some([a, b]) = slot.words {
            let word = _mm256_and_si256(words, keep);
            let is_b = _mm256_cmpeq_epi64(word, all(b));
            second |= u64::from(bit_each(is_b)) << (at * 4);
            _mm256_andnot_si256(long, _mm256_or_si256(is_b, _mm256_cmpeq_epi64(word, all(a))))
        } else {
            let digits = _mm256_and_si256(_mm256_sub_epi8(words, _mm256_set1_epi8(b'0' as i8)), keep);
            let wrong = _mm256_subs_epu8(digits, _mm256_set1_epi8(9));
            let twos = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010a));
            let fours = _mm256_madd_epi16(twos, _mm256_set1_epi32(0x0001_0064));
            let number = _mm256_add_epi64(_mm256_mul_epu32(fours, _mm256_set1_epi64x(10_000)), _mm256_srli_epi64(fours, 32));
            // SAFETY: the reference is to 32 writable bytes; the store needs no alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), number) };
            _mm256_andnot_si256(long, _mm256_cmpeq_epi64(wrong, zero))
        };
        failed |= u64::from(!bit_each(good) & 15) << (at * 4);
    }
    (failed, second)
}

/// How the digits of an address with octets of certain lengths are laid out.
#[derive(Copy, Clone)]
#[repr(C, align(16))]
struct Pattern {
    /// Where each digit comes from; 0x80 gives zero.
    shuffle: [u8; 16],
    /// The least value of each octet, as four 16-bit numbers; the least there is behind them.
    least: [u8; 16],
    /// A bit for each dot and one behind the last octet; 0 in unused places.
    shape: u16,
}

/// A number below 256, different for each of the 81 shapes (D. Lemire, "Parsing IP addresses crazily fast", whose
/// multiplier this is; [`PATTERNS`] checks it when compiled).
const fn hash(shape: u32) -> usize {
    (shape.wrapping_mul(6639) >> 13) as usize & 255
}

static PATTERNS: [Pattern; 256] = {
    let mut patterns = [Pattern { shuffle: [0x80; 16], least: [0; 16], shape: 0 }; 256];
    let mut n = 0;
    while n < 81 {
        let lens = [n / 27 % 3 + 1, n / 9 % 3 + 1, n / 3 % 3 + 1, n % 3 + 1];
        let mut pattern = Pattern { shuffle: [0x80; 16], least: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80], shape: 0 };
        let (mut octet, mut at) = (0, 0);
        while octet < 4 {
            let len = lens[octet];
            let last = at + len - 1;
            pattern.shuffle[octet * 2 + 1] = last as u8;
            if len > 1 {
                pattern.shuffle[octet * 2] = last as u8 - 1;
                pattern.least[octet * 2] = 10;
            }
            if len > 2 {
                pattern.shuffle[8 + octet * 2] = last as u8 - 2;
                pattern.least[octet * 2] = 100;
            }
            at += len;
            pattern.shape |= 1 << at;
            at += 1;
            octet += 1;
        }
        let slot = hash(pattern.shape as u32);
        assert!(patterns[slot].shape == 0, "two shapes share a slot");
        patterns[slot] = pattern;
        n += 1;
    }
    patterns
};
