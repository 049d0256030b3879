//! x86-64 with AVX2, and with AVX-512. The only place of the parser with `unsafe`.
//!
//! Every function here reads and writes its arguments only: arrays of known length, behind references. So the one
//! obligation is that the machine has the instructions, and a value of [`Avx2`] or [`Avx512`] is the proof: only their
//! `detect` makes one.

use std::arch::x86_64::*;

use super::{Fields, Job, Lanes, ROWS, Run, SLOTS, Slot, bytes};

/// Proof that the machine has AVX2, BMI1, BMI2, LZCNT and POPCNT.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) struct Avx2(());

/// Proof that the machine has all that [`Avx2`] proves, and AVX-512 F, BW, DQ, VL, VBMI and VBMI2.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) struct Avx512(Avx2);

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

impl Avx512 {
    pub(in crate::flow) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2");
        Avx2::detect().filter(|_| has).map(Self)
    }

    /// Does a job with all that is inlined into it compiled for these instructions.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Done {
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
        fn compiled<J: Job>(lanes: Avx512, job: J) -> J::Done {
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

impl Lanes for Avx512 {
    #[inline(always)]
    fn classify(self, block: &[u8; 64]) -> (u64, u64, u64) {
        // SAFETY: `self` proves that the machine has AVX-512 BW.
        unsafe { classify_512(block) }
    }

    #[inline(always)]
    fn positions(self, bits: u64, base: u32, out: &mut [u32; 80]) {
        // SAFETY: `self` proves that the machine has AVX-512 F and VBMI2.
        unsafe { positions_512(bits, base, out) }
    }

    #[inline(always)]
    fn same(self, a: &[u8; 64], b: &[u8; 64], len: usize) -> bool {
        // SAFETY: `self` proves that the machine has AVX-512 BW.
        unsafe { same_512(a, b, len) }
    }

    #[inline(always)]
    fn addresses(self, run: Run<'_>, column: usize, out: &mut [u32; ROWS]) -> u64 {
        self.0.addresses(run, column, out)
    }

    #[inline(always)]
    fn column(self, words: &[u64; ROWS], lens: &[u8; ROWS], slot: &Slot, out: &mut [u64; ROWS]) -> (u64, u64) {
        self.0.column(words, lens, slot, out)
    }

    #[inline(always)]
    fn address_pairs(self, run: Run<'_>, column: usize, first: &mut [u32; ROWS], second: &mut [u32; ROWS]) -> u64 {
        // SAFETY: `self` proves that the machine has AVX-512 F, BW, VL, VBMI and VBMI2, and BMI2.
        unsafe { address_pairs_512(run, column, first, second) }
    }

    #[inline(always)]
    fn fields(self, run: Run<'_>, slots: &[Slot], fields: &mut Fields) {
        // SAFETY: `self` proves that the machine has AVX-512 F, BW, DQ, VL and VBMI, and BMI2.
        unsafe { fields_512(run, slots, fields) }
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
    let (max, most, factor, zero) = (all(slot.max), all(u64::from(slot.most) * 8), all(slot.factor), _mm256_setzero_si256());
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
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_mul_epu32(number, factor)) };
            _mm256_andnot_si256(_mm256_or_si256(long, _mm256_cmpgt_epi64(number, max)), _mm256_cmpeq_epi64(wrong, zero))
        };
        failed |= u64::from(!bit_each(good) & 15) << (at * 4);
    }
    (failed, second)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn classify_512(block: &[u8; 64]) -> (u64, u64, u64) {
    let bytes = load64(block);
    let newlines = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(b'\n' as i8));
    let spaces = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(b' ' as i8));
    let low = _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(b' ' as i8));
    (spaces, newlines, low & !newlines)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn positions_512(bits: u64, base: u32, out: &mut [u32; 80]) {
    let packed = _mm512_maskz_compress_epi8(bits, load64(&COUNT));
    let wide = |bytes: __m128i| _mm512_add_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(base as i32));
    // SAFETY: each store writes 16 of the 80 numbers, from number 0, 16, 32 and 48; none needs alignment.
    unsafe {
        let out = out.as_mut_ptr();
        _mm512_storeu_si512(out.cast(), wide(_mm512_castsi512_si128(packed)));
        if bits.count_ones() > 16 {
            _mm512_storeu_si512(out.add(16).cast(), wide(_mm512_extracti32x4_epi32::<1>(packed)));
            _mm512_storeu_si512(out.add(32).cast(), wide(_mm512_extracti32x4_epi32::<2>(packed)));
            _mm512_storeu_si512(out.add(48).cast(), wide(_mm512_extracti32x4_epi32::<3>(packed)));
        }
    }
}

/// 0 to 63.
static COUNT: [u8; 64] = {
    let mut count = [0; 64];
    let mut at = 0;
    while at < 64 {
        count[at] = at as u8;
        at += 1;
    }
    count
};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
fn same_512(a: &[u8; 64], b: &[u8; 64], len: usize) -> bool {
    _bzhi_u64(_mm512_cmpneq_epi8_mask(load64(a), load64(b)), len as u32) == 0
}

/// Two addresses of a row at once: with dots and spaces as ends, a pair is eight numbers of one to three digits.
#[target_feature(enable = "avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2")]
fn address_pairs_512(run: Run<'_>, column: usize, first: &mut [u32; ROWS], second: &mut [u32; ROWS]) -> u64 {
    let mut failed = 0;
    // Each of eight bytes four times; the four places before it; weights of hundreds, tens and ones.
    let spread = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
    let back = _mm256_set1_epi32(0x0102_0304);
    let weights = _mm256_set1_epi32(0x010a_6400);
    run.each(column, column + 1, |row, from, to| {
        let Some(block) = run.text.get(from..from + 64).and_then(<[u8]>::first_chunk) else {
            failed |= 1 << row;
            return;
        };
        let (block, len) = (load64(block), (to - from) as u32);
        let dots = _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(b'.' as i8));
        let spaces = _mm512_cmple_epu8_mask(block, _mm512_set1_epi8(b' ' as i8));
        let ends = _bzhi_u64(dots | spaces, len + 1);
        let packed = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(ends, load64(&COUNT)));
        let positions = _mm_cvtsi128_si64(packed) as u64;
        // Two spaces, the fourth and the eighth of eight ends, are the ends of two addresses.
        let fourth = 1u64 << ((positions >> 24) & 63);
        let two = _bzhi_u64(spaces, len + 1) == (fourth | 1u64 << (len & 63)) && ends.count_ones() == 8 && len < 64;

        // The length of a number: its end less the end before, less one.
        let before = _mm_cvtsi64_si128((positions << 8 | 0xff) as i64);
        let lens = _mm_sub_epi8(_mm_sub_epi8(packed, before), _mm_set1_epi8(1));
        let each = |bytes: __m128i| _mm256_shuffle_epi8(_mm256_broadcastq_epi64(bytes), spread);
        let (end, len) = (each(packed), each(lens));
        let digits = _mm512_castsi512_si256(_mm512_permutexvar_epi8(_mm512_castsi256_si512(_mm256_sub_epi8(end, back)), block));
        let digits = _mm256_sub_epi8(digits, _mm256_set1_epi8(b'0' as i8));
        let keep = _mm256_cmple_epu8_mask(back, len);
        let wrong = keep & _mm256_cmpgt_epu8_mask(digits, _mm256_set1_epi8(9));
        // The first digit of several is not zero.
        let leading = keep & !(keep << 1) & 0x7777_7777 & _mm256_cmpeq_epi8_mask(digits, _mm256_setzero_si256());
        let octets = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_maskz_mov_epi8(keep, digits), weights), _mm256_set1_epi16(1));
        let over = _mm256_cmpgt_epi32_mask(octets, _mm256_set1_epi32(255));
        let lengths = _mm256_cmpgt_epu8_mask(len, _mm256_set1_epi8(3)) | _mm256_cmpeq_epi8_mask(len, _mm256_setzero_si256());
        let pair = (_mm_cvtsi128_si64(_mm256_cvtepi32_epi8(octets)) as u64).swap_bytes();
        (first[row], second[row]) = ((pair >> 32) as u32, pair as u32);
        failed |= u64::from(!two | ((wrong | leading | lengths | u32::from(over)) != 0)) << row;
    });
    failed
}

/// Constants of eight slots, one to a lane.
#[derive(Copy, Clone)]
struct Eight {
    /// The lanes in use.
    used: __mmask8,
    /// For each byte its place before the end of its lane's field.
    places: __m512i,
    /// The first column.
    first: usize,
    top: __m512i,
    most: __m512i,
    max: __m512i,
    factor: __m512i,
    words: [__m512i; 2],
    numbers: __mmask8,
}

#[inline]
#[target_feature(enable = "avx512f")]
fn eight(slots: &[Slot], first: usize) -> Eight {
    let slot = |at: usize| slots.get(first + at);
    let lanes = |value: &dyn Fn(&Slot) -> u64, other: u64| {
        let values: [u64; 8] = std::array::from_fn(|at| slot(at).map_or(other, value));
        // SAFETY: the array has 64 readable bytes; the load needs no alignment.
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    };
    let places: [u8; 64] = std::array::from_fn(|at| slot(at / 8).map_or(0, |s| (8 + s.skip - at as u32 % 8) as u8));
    Eight {
        used: (0..8).fold(0, |bits, at| bits | u8::from(slot(at).is_some()) << at),
        places: load64(&places),
        first: slot(0).map_or(0, |s| s.column as usize),
        top: lanes(&|s| 64 + u64::from(s.skip) * 8, 0),
        most: lanes(&|s| u64::from(s.most) * 8, 0),
        max: lanes(&|s| s.max, 0),
        factor: lanes(&|s| s.factor, 0),
        words: [0, 1].map(|n| lanes(&|s| s.words.map_or(0, |w| w[n]), 0)),
        numbers: (0..8).fold(0, |bits, at| bits | u8::from(slot(at).is_some_and(|s| s.words.is_none())) << at),
    }
}

/// The eight bytes of each of eight slots that begin no more than 64 bytes after `from`: picked out of one load.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn near_512(text: &[u8], from: usize, ends: __m256i, is: &Eight) -> Option<__m512i> {
    let block = text.get(from..from + 64)?.first_chunk()?;
    let ends = _mm256_sub_epi32(ends, _mm256_set1_epi32(from as i32));
    if _mm256_mask_cmpgt_epu32_mask(is.used, ends, _mm256_set1_epi32(64)) != 0 {
        return None;
    }
    let low = _mm512_set1_epi64(0x0808_0808_0808_0808);
    let spread = _mm512_shuffle_epi8(_mm512_cvtepu32_epi64(ends), _mm512_and_si512(low, _mm512_set_epi64(-1, 0, -1, 0, -1, 0, -1, 0)));
    // Places before `from` wrap around to other bytes; they belong to no field of these.
    Some(_mm512_permutexvar_epi8(_mm512_sub_epi8(spread, is.places), load64(block)))
}

/// The eight bytes of each of eight slots, wherever.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn gathered_512(text: &[u8], ends: __m256i, back: __m256i, is: &Eight) -> __m512i {
    let starts = _mm256_sub_epi32(ends, back);
    // Offsets are signed; beyond two billion bytes nothing is read.
    let room = text.len().min(i32::MAX as usize).saturating_sub(8) as i32;
    let inside = if text.len() < 8 { 0 } else { _mm256_mask_cmple_epu32_mask(is.used, starts, _mm256_set1_epi32(room)) };
    // SAFETY: lanes outside the mask are not read. Those inside read eight bytes at an offset of at most
    // `text.len() - 8`, so inside the text.
    unsafe { _mm512_mask_i32gather_epi64::<1>(_mm512_setzero_si512(), inside, starts, text.as_ptr().cast()) }
}

/// Eight slots of one row: their values, which failed, and which have the second word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn convert_512(words: __m512i, lens: __m256i, is: &Eight) -> (__m512i, __mmask8, __mmask8) {
    let bits = _mm512_slli_epi64::<3>(_mm512_cvtepu32_epi64(lens));
    let keep = _mm512_sllv_epi64(_mm512_set1_epi64(-1), _mm512_subs_epu16(is.top, bits));
    let word = _mm512_and_si512(words, keep);
    let (is_a, is_b) = (_mm512_cmpeq_epi64_mask(word, is.words[0]), _mm512_cmpeq_epi64_mask(word, is.words[1]));
    let digits = _mm512_and_si512(_mm512_sub_epi8(words, _mm512_set1_epi8(b'0' as i8)), keep);
    let wrong = _mm512_subs_epu8(digits, _mm512_set1_epi8(9));
    let twos = _mm512_maddubs_epi16(digits, _mm512_set1_epi16(0x010a));
    let fours = _mm512_madd_epi16(twos, _mm512_set1_epi32(0x0001_0064));
    let number = _mm512_add_epi64(_mm512_mul_epu32(fours, _mm512_set1_epi64(10_000)), _mm512_srli_epi64::<32>(fours));
    let long = _mm512_cmpgt_epu64_mask(bits, is.most);
    let no_number = _mm512_test_epi64_mask(wrong, wrong) | _mm512_cmpgt_epu64_mask(number, is.max);
    let failed = long | (is.numbers & no_number) | !(is.numbers | is_a | is_b);
    (_mm512_mul_epu32(number, is.factor), failed, is_b)
}

/// All slots, row by row: a line's separators lie side by side, so that one permutation finds the ends of 16 fields, and
/// their bytes are gathered together.
#[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn fields_512(run: Run<'_>, slots: &[Slot], fields: &mut Fields) {
    let rows = run.rows.min(ROWS);
    let indices = |value: &dyn Fn(&Slot) -> u32| {
        let values: [u32; SLOTS] = std::array::from_fn(|at| slots.get(at).map_or(0, value));
        // SAFETY: the array has 64 readable bytes; the load needs no alignment.
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    };
    let (before, after) = (indices(&|s| s.column), indices(&|s| s.column + 1));
    let (low, high) = (eight(slots, 0), eight(slots, 8));
    let halves = |lanes: __m512i| (_mm512_castsi512_si256(lanes), _mm512_extracti32x8_epi32::<1>(lanes));
    let back = halves(indices(&|s| 8 + s.skip));
    let (mut failed, mut second) = ([[0u8; ROWS]; 2], [[0u8; ROWS]; 2]);
    let wide = run.columns >= 32;
    for first in (0..rows).step_by(8) {
        let (mut low_values, mut high_values) = ([_mm512_setzero_si512(); 8], [_mm512_setzero_si512(); 8]);
        for row in first..(first + 8).min(rows) {
            let Some(line) = run.separators.get(row * run.columns..=(row + 1) * run.columns) else { return };
            let (from, to) = if wide { gather_ends(line, before, after) } else { permute_ends(line, before, after) };
            let lens = halves(_mm512_sub_epi32(_mm512_sub_epi32(to, from), _mm512_set1_epi32(1)));
            let ends = halves(to);
            let words = |ends: __m256i, back: __m256i, is: &Eight| {
                let from = line.get(is.first).map_or(0, |at| at.wrapping_add(1) as usize);
                near_512(run.text, from, ends, is).unwrap_or_else(|| gathered_512(run.text, ends, back, is))
            };
            (low_values[row & 7], failed[0][row], second[0][row]) = convert_512(words(ends.0, back.0, &low), lens.0, &low);
            if high.used != 0 {
                (high_values[row & 7], failed[1][row], second[1][row]) = convert_512(words(ends.1, back.1, &high), lens.1, &high);
            }
        }
        for (values, at) in [(low_values, 0), (high_values, 8)] {
            for (column, values) in transposed(values).into_iter().enumerate() {
                if let Some(out) = fields.values[at + column].get_mut(first..first + 8).and_then(<[u64]>::first_chunk_mut::<8>) {
                    // SAFETY: the reference is to 64 writable bytes; the store needs no alignment.
                    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) };
                }
            }
        }
    }
    for at in 0..SLOTS {
        let bit = _mm512_set1_epi8(1 << (at & 7));
        fields.failed[at] = _mm512_test_epi8_mask(load64(&failed[at / 8]), bit);
        fields.second[at] = _mm512_test_epi8_mask(load64(&second[at / 8]), bit);
    }
}

/// The separators with these numbers, of a line with at most 32.
#[inline]
#[target_feature(enable = "avx512f,bmi2")]
fn permute_ends(line: &[u32], before: __m512i, after: __m512i) -> (__m512i, __m512i) {
    let all = _bzhi_u32(u32::MAX, line.len() as u32);
    // SAFETY: of 32 numbers the masks admit the first `line.len()`, which lie in the line.
    let (low, high) = unsafe {
        let start = line.as_ptr().cast::<i32>();
        (_mm512_maskz_loadu_epi32(all as u16, start), _mm512_maskz_loadu_epi32((all >> 16) as u16, start.wrapping_add(16)))
    };
    (_mm512_permutex2var_epi32(low, before, high), _mm512_permutex2var_epi32(low, after, high))
}

/// The separators with these numbers, of a longer line.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather_ends(line: &[u32], before: __m512i, after: __m512i) -> (__m512i, __m512i) {
    let gather = |numbers: __m512i| {
        let inside = _mm512_cmplt_epu32_mask(numbers, _mm512_set1_epi32(line.len().min(i32::MAX as usize) as i32));
        // SAFETY: lanes outside the mask are not read; those inside read a number of the line.
        unsafe { _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), inside, numbers, line.as_ptr().cast()) }
    };
    (gather(before), gather(after))
}

/// Rows and columns of an 8 by 8 square exchanged.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let pairs = |x, y| [_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y)];
    let ([a, b], [c, d], [e, f], [g, h]) = (pairs(a, b), pairs(c, d), pairs(e, f), pairs(g, h));
    let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let quads = |x, y| [_mm512_permutex2var_epi64(x, even, y), _mm512_permutex2var_epi64(x, odd, y)];
    let ([a, c], [b, d], [e, g], [f, h]) = (quads(a, c), quads(b, d), quads(e, g), quads(f, h));
    let eights = |x, y| [_mm512_shuffle_i64x2::<0x44>(x, y), _mm512_shuffle_i64x2::<0xee>(x, y)];
    let ([a, e], [b, f], [c, g], [d, h]) = (eights(a, e), eights(b, f), eights(c, g), eights(d, h));
    [a, b, c, d, e, f, g, h]
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
