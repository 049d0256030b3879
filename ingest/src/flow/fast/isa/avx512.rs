//! x86-64 with AVX-512. With [`super::avx2`] the only place of the parser with `unsafe`.
//!
//! Here, too, a value of [`Avx512`] is the proof that the machine has the instructions. Loads and stores go through
//! references to arrays, but for two kinds, whose masks keep them inside a slice: of separators, and gathers of text.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::{Fields, Job, Lanes, ROWS, Run, SLOTS, Slot, Slots};

/// Proof that the machine has all that [`Avx2`] proves, and AVX-512 F, BW, DQ, VL, VBMI and VBMI2.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) struct Avx512(Avx2);

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

impl Lanes for Avx512 {
    #[inline(always)]
    fn classify(self, block: &[u8; 64]) -> (u64, u64, u64) {
        // SAFETY: `self` proves that the machine has AVX-512 BW.
        unsafe { classify(block) }
    }

    #[inline(always)]
    fn positions(self, bits: u64, base: u32, out: &mut [u32; 80]) {
        // SAFETY: `self` proves that the machine has AVX-512 F and VBMI2.
        unsafe { self::positions(bits, base, out) }
    }

    #[inline(always)]
    fn same(self, a: &[u8; 64], b: &[u8; 64], len: usize) -> bool {
        // SAFETY: `self` proves that the machine has AVX-512 BW.
        unsafe { self::same(a, b, len) }
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
    fn address_pairs(self, run: Run<'_>, column: usize, rows: u64, first: &mut [u32; ROWS], second: &mut [u32; ROWS]) -> u64 {
        // SAFETY: `self` proves that the machine has AVX-512 F, BW, VL, VBMI and VBMI2, and BMI2.
        unsafe { self::address_pairs(run, column, rows, first, second) }
    }

    #[inline(always)]
    fn fields(self, run: Run<'_>, slots: &Slots, fields: &mut Fields) {
        // SAFETY: `self` proves that the machine has AVX-512 F, BW, DQ, VL and VBMI, and BMI2.
        unsafe { self::fields(run, slots, fields) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn classify(block: &[u8; 64]) -> (u64, u64, u64) {
    let bytes = load64(block);
    let newlines = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(b'\n' as i8));
    let spaces = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(b' ' as i8));
    let low = _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(b' ' as i8));
    (spaces, newlines, low & !newlines)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn positions(bits: u64, base: u32, out: &mut [u32; 80]) {
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
fn same(a: &[u8; 64], b: &[u8; 64], len: usize) -> bool {
    _bzhi_u64(_mm512_cmpneq_epi8_mask(load64(a), load64(b)), len as u32) == 0
}

/// Two addresses of a row at once: with dots and spaces as ends, a pair is eight numbers of one to three digits.
#[target_feature(enable = "avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2")]
fn address_pairs(run: Run<'_>, column: usize, rows: u64, first: &mut [u32; ROWS], second: &mut [u32; ROWS]) -> u64 {
    let mut failed = 0;
    // Each of eight bytes four times; the four places before it; weights of hundreds, tens and ones.
    let spread = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
    let back = _mm256_set1_epi32(0x0102_0304);
    let weights = _mm256_set1_epi32(0x010a_6400);
    run.each(column, column + 1, |row, from, to| {
        if rows >> row & 1 == 0 {
            return;
        }
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

/// What [`fields`] needs to know of the slots, in the order of its lanes: made once for a layout.
#[derive(Clone, Debug)]
pub(in crate::flow::fast) struct Tables {
    /// For each slot the separator before its field, that behind it, and the most bytes of the field, plus one.
    before: [u32; SLOTS],
    after: [u32; SLOTS],
    most: [u32; SLOTS],
    low: EightTable,
    high: EightTable,
}

impl Tables {
    pub(in crate::flow::fast) fn of(slots: &[Slot]) -> Self {
        let each = |value: &dyn Fn(&Slot) -> u32| std::array::from_fn(|at| slots.get(at).map_or(0, value));
        Self {
            before: each(&|s| s.column),
            after: each(&|s| s.column + 1),
            most: each(&|s| s.most + 1),
            low: EightTable::of(slots, 0),
            high: EightTable::of(slots, 8),
        }
    }
}

/// [`Eight`] in memory.
#[derive(Clone, Debug)]
struct EightTable {
    spread: [u8; 64],
    places: [u8; 64],
    numbers: u64,
    words: u8,
    known: [[u64; 8]; 2],
    used: u8,
    back: [u32; 8],
    column: usize,
}

impl EightTable {
    /// Of the eight slots from `first` on.
    fn of(slots: &[Slot], first: usize) -> Self {
        let slot = |at: usize| slots.get(first + at);
        let bits = |of: &dyn Fn(&Slot) -> bool| (0..8).fold(0, |bits, at| bits | u8::from(slot(at).is_some_and(of)) << at);
        let known = |n: usize| std::array::from_fn(|at| slot(at).and_then(|s| s.words).map_or(0, |w| w[n]));
        Self {
            spread: std::array::from_fn(|at| (first + at / 8) as u8),
            // In a slot that is not in use no byte belongs to the field.
            places: std::array::from_fn(|at| slot(at / 8).map_or(255, |s| 8 + s.skip as u8 - at as u8 % 8)),
            numbers: (0..64).fold(0, |bits, at| bits | u64::from(slot(at / 8).is_some_and(|s| s.words.is_none())) << at),
            words: bits(&|s| s.words.is_some()),
            known: [known(0), known(1)],
            used: bits(&|_| true),
            back: std::array::from_fn(|at| 8 + slot(at).map_or(0, |s| s.skip)),
            column: slot(0).map_or(0, |s| s.column as usize),
        }
    }
}

/// Constants of eight slots, eight bytes each.
#[derive(Copy, Clone)]
struct Eight {
    /// Which of sixteen bytes each byte's field is.
    spread: __m512i,
    /// Each byte's place before the end of its field, counted from 1.
    places: __m512i,
    /// Bytes that should be digits.
    numbers: __mmask64,
    /// Slots of words, and these.
    words: __mmask8,
    known: [__m512i; 2],
    /// Slots in use.
    used: __mmask8,
    /// Bytes from the start of the eight to the end of the field.
    back: __m256i,
    /// The first column.
    column: usize,
}

#[inline]
#[target_feature(enable = "avx512f")]
fn eight(table: &EightTable) -> Eight {
    // SAFETY: the references are to 64 and to 32 readable bytes; the loads need no alignment.
    let (words, narrow) = unsafe {
        let words = |words: &[u64; 8]| _mm512_loadu_si512(words.as_ptr().cast());
        ([words(&table.known[0]), words(&table.known[1])], _mm256_loadu_si256(table.back.as_ptr().cast()))
    };
    Eight {
        spread: load64(&table.spread),
        places: load64(&table.places),
        numbers: table.numbers,
        words: table.words,
        known: words,
        used: table.used,
        back: narrow,
        column: table.column,
    }
}

/// Eight slots of one row on the way.
#[derive(Copy, Clone)]
struct Half {
    /// Two numbers of four digits for each.
    fours: __m512i,
    /// Bytes that should be digits and are not.
    wrong: __mmask64,
    /// Slots whose word is not known.
    strange: __mmask8,
    /// Slots with the second of the words.
    second: __mmask8,
}

/// Reads eight slots of a row. `near`: their fields end within 64 bytes of `from`, at the bytes `ends`; else the full
/// positions `far` count. `lens` are the lengths of the fields and one more.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn half(text: &[u8], from: usize, near: bool, ends: __m128i, far: __m256i, lens: __m128i, is: &Eight) -> Half {
    let block = text.get(from..from + 64).and_then(<[u8]>::first_chunk).filter(|_| near);
    let words = match block {
        // All 64 bytes picked out of one load. Places before `from` wrap around to bytes that belong to no field.
        Some(block) => {
            let ends = _mm512_permutexvar_epi8(is.spread, _mm512_castsi128_si512(ends));
            _mm512_permutexvar_epi8(_mm512_sub_epi8(ends, is.places), load64(block))
        }
        None => {
            let starts = _mm256_sub_epi32(far, is.back);
            // Offsets are signed; beyond two billion bytes nothing is read.
            let room = text.len().min(i32::MAX as usize).saturating_sub(8) as i32;
            let inside = if text.len() < 8 { 0 } else { _mm256_mask_cmple_epu32_mask(is.used, starts, _mm256_set1_epi32(room)) };
            // SAFETY: lanes outside the mask are not read. Those inside read eight bytes at an offset of at most
            // `text.len() - 8`, so inside the text.
            unsafe { _mm512_mask_i32gather_epi64::<1>(_mm512_setzero_si512(), inside, starts, text.as_ptr().cast()) }
        }
    };
    let keep = _mm512_cmplt_epu8_mask(is.places, _mm512_permutexvar_epi8(is.spread, _mm512_castsi128_si512(lens)));
    let digits = _mm512_maskz_sub_epi8(keep, words, _mm512_set1_epi8(b'0' as i8));
    let wrong = _mm512_mask_cmpgt_epu8_mask(is.numbers, digits, _mm512_set1_epi8(9));
    let twos = _mm512_maddubs_epi16(digits, _mm512_set1_epi16(0x010a));
    let fours = _mm512_madd_epi16(twos, _mm512_set1_epi32(0x0001_0064));
    let (mut strange, mut second) = (0, 0);
    if is.words != 0 {
        let words = _mm512_maskz_mov_epi8(keep, words);
        second = _mm512_mask_cmpeq_epi64_mask(is.words, words, is.known[1]);
        strange = is.words & !second & !_mm512_cmpeq_epi64_mask(words, is.known[0]);
    }
    Half { fours, wrong, strange, second }
}

/// Slots with a byte that is wrong.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn slots_of(wrong: __mmask64) -> u16 {
    let mut slots = 0;
    for at in 0..8 {
        slots |= u16::from(wrong >> (at * 8) & 0xff != 0) << at;
    }
    slots
}

/// All slots, row by row: a line's separators lie side by side, so that one permutation finds the ends of 16 fields, and
/// mostly the bytes of eight fields come out of one load with another.
#[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn fields(run: Run<'_>, slots: &Slots, out: &mut Fields) {
    /// Where packing puts the slots' numbers.
    const PACKED: [usize; SLOTS] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];
    let rows = run.rows.min(ROWS);
    // SAFETY: the array has 64 readable bytes; the load needs no alignment.
    let indices = |values: &[u32; SLOTS]| unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
    let tables = &slots.tables;
    let (before, after, most) = (indices(&tables.before), indices(&tables.after), indices(&tables.most));
    let (low, high) = (eight(&tables.low), eight(&tables.high));
    let used = u16::from(low.used) | u16::from(high.used) << 8;
    let position = |line: &[u32], column: usize| line.get(column).map_or(0, |at| at.wrapping_add(1));
    let lower = |lanes: __m512i| _mm512_castsi512_si256(lanes);
    let upper = |lanes: __m512i| _mm512_extracti32x8_epi32::<1>(lanes);
    let (mut failed, mut second) = ([0u16; ROWS], [0u16; ROWS]);
    for first in (0..rows).step_by(8) {
        let mut numbers = [_mm512_setzero_si512(); 8];
        for row in first..(first + 8).min(rows) {
            let Some(line) = run.separators.get(row * run.columns..=(row + 1) * run.columns) else { return };
            let (start, end) = ends_of(line, before, after);
            // One more than the length, as the separators say it.
            let lens = _mm512_sub_epi32(end, start);
            let (from, from_high) = (position(line, low.column), position(line, high.column));
            let base = _mm512_mask_set1_epi32(_mm512_set1_epi32(from as i32), 0xff00, from_high as i32);
            let near = _mm512_sub_epi32(end, base);
            let far = used & _mm512_cmpgt_epu32_mask(near, _mm512_set1_epi32(64));
            let (near, short) = (_mm512_cvtepi32_epi8(near), _mm512_cvtusepi32_epi8(lens));
            let a = half(run.text, from as usize, far & 0xff == 0, near, lower(end), short, &low);
            let mut b = Half { fours: _mm512_setzero_si512(), wrong: 0, strange: 0, second: 0 };
            if high.used != 0 {
                b = half(run.text, from_high as usize, far >> 8 == 0, near, upper(end), short, &high);
            }
            numbers[row & 7] = _mm512_madd_epi16(_mm512_packus_epi32(a.fours, b.fours), _mm512_set1_epi32(0x0001_2710));
            failed[row] = _mm512_cmpgt_epu32_mask(lens, most) | u16::from(a.strange) | u16::from(b.strange) << 8;
            if a.wrong | b.wrong != 0 {
                failed[row] |= slots_of(a.wrong) | slots_of(b.wrong) << 8;
            }
            second[row] = u16::from(a.second) | u16::from(b.second) << 8;
        }
        for (numbers, slots) in [(numbers.map(lower), &PACKED[..8]), (numbers.map(upper), &PACKED[8..])] {
            let columns = transposed(numbers.map(|n| _mm512_cvtepu32_epi64(n)));
            for (values, slot) in columns.into_iter().zip(slots) {
                if let Some(out) = out.values[*slot].get_mut(first..first + 8).and_then(<[u64]>::first_chunk_mut::<8>) {
                    // SAFETY: the reference is to 64 writable bytes; the store needs no alignment.
                    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) };
                }
            }
        }
    }
    let rows_with = |rows: &[u16; ROWS], slot: usize| {
        let (rows, _) = rows.as_chunks::<32>();
        let bit = _mm512_set1_epi16(1 << slot);
        // SAFETY: the reference is to 64 readable bytes; the load needs no alignment.
        let bits = |rows: &[u16; 32]| u64::from(_mm512_test_epi16_mask(unsafe { _mm512_loadu_si512(rows.as_ptr().cast()) }, bit));
        bits(&rows[0]) | bits(&rows[1]) << 32
    };
    for slot in 0..slots.list.len().min(SLOTS) {
        (out.failed[slot], out.second[slot]) = (rows_with(&failed, slot), rows_with(&second, slot));
    }
}

/// The separators with these numbers.
#[inline]
#[target_feature(enable = "avx512f,bmi2")]
fn ends_of(line: &[u32], before: __m512i, after: __m512i) -> (__m512i, __m512i) {
    let all = _bzhi_u32(u32::MAX, line.len().min(32) as u32);
    let start = line.as_ptr().cast::<i32>();
    // SAFETY: of 32 numbers the masks admit as many as the line has, from its start.
    let load = |mask: u32, at: usize| unsafe { _mm512_maskz_loadu_epi32((mask >> at) as u16, start.wrapping_add(at)) };
    match line.len() {
        0..=16 => {
            let low = load(all, 0);
            (_mm512_permutexvar_epi32(before, low), _mm512_permutexvar_epi32(after, low))
        }
        17..=32 => {
            let (low, high) = (load(all, 0), load(all, 16));
            (_mm512_permutex2var_epi32(low, before, high), _mm512_permutex2var_epi32(low, after, high))
        }
        len => {
            let gather = |numbers: __m512i| {
                let inside = _mm512_cmplt_epu32_mask(numbers, _mm512_set1_epi32(len.min(i32::MAX as usize) as i32));
                // SAFETY: lanes outside the mask are not read; those inside read a number of the line.
                unsafe { _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), inside, numbers, start) }
            };
            (gather(before), gather(after))
        }
    }
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
