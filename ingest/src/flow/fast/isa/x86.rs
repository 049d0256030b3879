//! x86-64 with AVX2. The only place of the parser with `unsafe`.
//!
//! Every function here reads its arguments only: arrays of known length, behind references. So the one obligation is
//! that the machine has the instructions, and a value of [`Avx2`] is the proof: it is made by [`Avx2::detect`] alone.

use std::arch::x86_64::*;

use super::{Job, Lanes};

/// Proof that the machine has AVX2, BMI1, BMI2 and POPCNT.
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
    fn ipv4(self, bytes: &[u8; 16], len: u32) -> (u32, bool) {
        // SAFETY: `self` proves that the machine has AVX2, and so all of SSE.
        unsafe { ipv4(bytes, len) }
    }

    #[inline(always)]
    fn digits16(self, bytes: &[u8; 16], len: u32) -> (u64, bool) {
        // SAFETY: `self` proves that the machine has AVX2, and so all of SSE.
        unsafe { digits16(bytes, len) }
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
fn digits16(bytes: &[u8; 16], len: u32) -> (u64, bool) {
    let (keep, fits) = match KEEP.get(len as usize) {
        Some(keep) => (keep, len > 0),
        None => (&KEEP[0], false),
    };
    let digits = _mm_and_si128(_mm_sub_epi8(load16(bytes), _mm_set1_epi8(b'0' as i8)), load16(keep));
    let wrong = _mm_subs_epu8(digits, _mm_set1_epi8(9));
    let twos = _mm_maddubs_epi16(digits, _mm_set1_epi16(0x010a));
    let fours = _mm_madd_epi16(twos, _mm_set1_epi32(0x0001_0064));
    let eights = _mm_madd_epi16(_mm_packus_epi32(fours, fours), _mm_set1_epi32(0x0001_2710));
    let both = _mm_cvtsi128_si64(eights) as u64;
    let value = (both & 0xffff_ffff) * 100_000_000 + (both >> 32);
    (value, fits && _mm_testz_si128(wrong, wrong) != 0)
}

/// For each length, the last so many bytes.
static KEEP: [[u8; 16]; 17] = {
    let mut keep = [[0; 16]; 17];
    let mut len = 0;
    while len <= 16 {
        let mut at = 16 - len;
        while at < 16 {
            keep[len][at] = 0xff;
            at += 1;
        }
        len += 1;
    }
    keep
};

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
