//! The few operations that differ by instruction set, and which sets this machine has.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::ROWS;
use super::plan::Slot;
use super::run::{Run, bytes};

/// Numbers and words of a line that are converted together: no layout has more.
pub(super) const SLOTS: usize = 16;

/// An instruction set the machine has.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) enum Isa {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Isa {
    /// The best there is.
    pub(in crate::flow) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx512) = avx512::Avx512::detect() {
                return Self::Avx512(avx512);
            }
            if let Some(avx2) = avx2::Avx2::detect() {
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
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::flow) fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable(portable::Portable)];
        #[cfg(target_arch = "x86_64")]
        all.extend(avx2::Avx2::detect().map(Self::Avx2).into_iter().chain(avx512::Avx512::detect().map(Self::Avx512)));
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

    /// The IPv4 addresses in one column, the first octet most significant; one bit for each row that has none (four
    /// numbers without leading zeros, as the standard library demands). Where a bit is set, the number means nothing.
    fn addresses(self, run: Run<'_>, column: usize, out: &mut [u32; ROWS]) -> u64;

    /// The addresses in two neighbouring columns of `rows`, of which `column` is the first; one bit for each row where one
    /// of them is none, or for other reasons was not read. Of other rows neither the numbers nor the bits mean anything.
    #[inline(always)]
    fn address_pairs(self, run: Run<'_>, column: usize, rows: u64, first: &mut [u32; ROWS], second: &mut [u32; ROWS]) -> u64 {
        let _ = rows;
        self.addresses(run, column, first) | self.addresses(run, column + 1, second)
    }

    /// Converts the same eight bytes of a field in many rows, as `slot` says. `lens` are the fields' lengths, 255 for all
    /// that are longer. Returns which rows failed and which had the second word; where one failed, its number means
    /// nothing.
    fn column(self, words: &[u64; ROWS], lens: &[u8; ROWS], slot: &Slot, out: &mut [u64; ROWS]) -> (u64, u64);

    /// Converts all slots of a run.
    #[inline(always)]
    fn fields(self, run: Run<'_>, slots: &Slots, fields: &mut Fields) {
        for (at, slot) in slots.list.iter().enumerate().take(SLOTS) {
            let (words, lens) = (&mut fields.words, &mut fields.lens);
            run.each(slot.column as usize, slot.column as usize, |row, from, to| {
                words[row] = u64::from_le_bytes(bytes(run.text, to.wrapping_sub(8 + slot.skip as usize)));
                lens[row] = (to - from).min(255) as u8;
            });
            (fields.failed[at], fields.second[at]) = self.column(words, lens, slot, &mut fields.values[at]);
        }
    }
}

/// The slots of a layout.
#[derive(Debug)]
pub(super) struct Slots {
    pub list: Vec<Slot>,
    #[cfg(target_arch = "x86_64")]
    tables: avx512::Tables,
}

impl Slots {
    pub(super) fn new(list: Vec<Slot>) -> Self {
        #[cfg(target_arch = "x86_64")]
        let tables = avx512::Tables::of(&list);
        Self {
            list,
            #[cfg(target_arch = "x86_64")]
            tables,
        }
    }
}

/// The slots of a run, converted.
pub(super) struct Fields {
    /// For each slot its value in every row. One more that is always 0, for what a layout lacks.
    pub values: [[u64; ROWS]; SLOTS + 1],
    /// For each slot the rows that failed. Rows beyond the run mean nothing.
    pub failed: [u64; SLOTS],
    /// For each slot of words the rows that have the second.
    pub second: [u64; SLOTS],
    words: [u64; ROWS],
    lens: [u8; ROWS],
}

impl Fields {
    pub(super) fn new() -> Self {
        Self { values: [[0; ROWS]; SLOTS + 1], failed: [0; SLOTS], second: [0; SLOTS], words: [0; ROWS], lens: [0; ROWS] }
    }
}

/// The number that the bytes of `keep` are, and whether they are digits. Without any it is 0.
///
/// Digits are paired up to one number in three steps; the bytes before them become zeros.
#[inline(always)]
fn digits8(word: u64, keep: u64) -> (u64, bool) {
    let word = (word ^ 0x3030_3030_3030_3030) & keep;
    // A byte over 9 either has its top bit set already or gets it from adding 0x76. A carry out of a byte can only come
    // from one that has it set.
    let wrong = (word | word.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080;
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    (low.wrapping_add(high) >> 32, wrong == 0)
}

/// Which of the eight bytes of a slot belong to a field of so many bytes.
#[inline(always)]
fn keep(len: u8, slot: &Slot) -> u64 {
    let len = u32::from(len).saturating_sub(slot.skip).min(8);
    u64::MAX.checked_shl(64 - len * 8).unwrap_or(0)
}
