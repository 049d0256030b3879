//! Parquet's hybrid of runs and bit-packed groups (parquet-format, Encodings.md): dictionary indices and levels.

/// Bytes behind the content that may be looked at: one load of eight bytes.
pub(super) const SLACK: usize = 8;

/// A place in a hybrid sequence of a page's content. The content is given with every call and is the same each time.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Hybrid {
    at: usize,
    end: usize,
    width: u32,
    run: Run,
}

/// What is under way, with the values left in it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The same value.
    Same { value: u32, left: usize },
    /// Bit-packed, the next value at this bit of the content.
    Packed { bit: usize, left: usize },
}

impl Default for Run {
    fn default() -> Self {
        Self::Same { value: 0, left: 0 }
    }
}

impl Hybrid {
    /// The sequence of values of `width` bits, at most 32, that lies at `at..end`.
    pub(super) fn new(at: usize, end: usize, width: u32) -> Self {
        Self { at, end, width, run: Run::default() }
    }

    /// Up to `most` values of the run under way, begun anew if need be. `None` at the end or for what is damaged.
    pub(super) fn next(&mut self, content: &[u8], most: usize) -> Option<Run> {
        loop {
            match &mut self.run {
                Run::Same { left: 0, .. } | Run::Packed { left: 0, .. } => self.begin(content)?,
                Run::Same { value, left } => {
                    let taken = most.min(*left);
                    *left -= taken;
                    return Some(Run::Same { value: *value, left: taken });
                }
                Run::Packed { bit, left } => {
                    let taken = most.min(*left);
                    let run = Run::Packed { bit: *bit, left: taken };
                    *left -= taken;
                    *bit += taken * self.width as usize;
                    return Some(run);
                }
            }
        }
    }

    fn begin(&mut self, content: &[u8]) -> Option<()> {
        let (mut head, mut shift) = (0u64, 0);
        loop {
            let byte = *content.get(self.at).filter(|_| self.at < self.end && shift < 35)?;
            self.at += 1;
            head |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let count = usize::try_from(head >> 1).ok()?;
        if head & 1 == 0 {
            let length = self.width.div_ceil(8) as usize;
            let bytes = content.get(self.at..self.end)?.get(..length)?;
            let value = bytes.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
            self.at += length;
            self.run = Run::Same { value, left: count };
        } else {
            let length = count.checked_mul(self.width as usize)?;
            let bit = self.at.checked_mul(8)?;
            // Writers may leave out the end of the last group.
            let there = self.end.saturating_sub(self.at).min(length);
            let values = if self.width == 0 { count.checked_mul(8)? } else { (there * 8 / self.width as usize).min(count * 8) };
            self.at += there;
            if values == 0 {
                return None;
            }
            self.run = Run::Packed { bit, left: values };
        }
        Some(())
    }

    /// Hands on `count` values from bit `bit` of the content on, each with its place.
    #[inline(always)]
    pub(super) fn unpack(&self, content: &[u8], bit: usize, count: usize, mut take: impl FnMut(usize, u32)) -> Option<()> {
        let width = self.width as usize;
        let mask = if width == 32 { u64::from(u32::MAX) } else { (1u64 << width) - 1 };
        // Eight bytes hold a value of 32 bits wherever it begins; the slack makes the last of them readable.
        let bytes = content.get(bit / 8..(bit + count * width).div_ceil(8) + SLACK)?;
        let load = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let mut n = 0;
        if bit.is_multiple_of(8) && width <= 16 {
            // Eight values fill `width` bytes; four of them, wherever they begin, are within one load.
            let (half_byte, half_bit) = (width / 2, width % 2 * 4);
            for group in 0..count / 8 {
                let (first, second) = (load(group * width)?, load(group * width + half_byte)? >> half_bit);
                for four in 0..4 {
                    take(n + four, (first >> (four * width) & mask) as u32);
                }
                for four in 0..4 {
                    take(n + 4 + four, (second >> (four * width) & mask) as u32);
                }
                n += 8;
            }
        }
        let mut at = bit % 8 + n * width;
        for n in n..count {
            take(n, (load(at / 8)? >> (at % 8) & mask) as u32);
            at += width;
        }
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All values, `step` at a time.
    fn all(content: &[u8], width: u32, step: usize) -> Vec<u32> {
        let mut padded = content.to_vec();
        padded.extend([0; SLACK]);
        let mut hybrid = Hybrid::new(0, content.len(), width);
        let mut values = Vec::new();
        while let Some(run) = hybrid.next(&padded, step) {
            match run {
                Run::Same { value, left } => values.extend(std::iter::repeat_n(value, left)),
                Run::Packed { bit, left } => hybrid.unpack(&padded, bit, left, |_, v| values.push(v)).unwrap(),
            }
            assert!(values.len() < 1 << 20, "without end");
        }
        values
    }

    #[test]
    fn the_example_of_the_specification() {
        // 0 to 7 in three bits, then a run of five fours.
        assert_eq!(all(&[3, 0x88, 0xc6, 0xfa, 10, 4], 3, 3), [0, 1, 2, 3, 4, 5, 6, 7, 4, 4, 4, 4, 4]);
        assert_eq!(all(&[], 3, 3), Vec::<u32>::new());
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(runs in proptest::collection::vec((any::<u32>(), 1usize..30), 0..20), width in 1u32..=32, step in 1usize..50) {
            let (mut content, mut wanted) = (Vec::new(), Vec::new());
            for (n, (value, count)) in runs.into_iter().enumerate() {
                let mask = if width == 32 { u32::MAX } else { (1 << width) - 1 };
                if n % 2 == 0 {
                    content.push((count << 1) as u8);
                    content.extend_from_slice(&(value & mask).to_le_bytes()[..width.div_ceil(8) as usize]);
                    wanted.extend(std::iter::repeat_n(value & mask, count));
                } else {
                    let groups = count.div_ceil(8);
                    content.push((groups << 1 | 1) as u8);
                    let values: Vec<u32> = (0..groups as u32 * 8).map(|n| value.wrapping_mul(n.wrapping_add(7)) & mask).collect();
                    // One bit after the other: the plain twin.
                    let mut bits = vec![0u8; groups * width as usize];
                    for (n, value) in values.iter().enumerate() {
                        for b in 0..width as usize {
                            let at = n * width as usize + b;
                            bits[at / 8] |= ((value >> b & 1) as u8) << (at % 8);
                        }
                    }
                    content.extend(bits);
                    wanted.extend(values);
                }
            }
            prop_assert_eq!(all(&content, width, step), wanted);
        }

        #[test]
        fn hostile_sequences_end(content in proptest::collection::vec(any::<u8>(), 0..40), width in 0u32..=32) {
            let mut padded = content.clone();
            padded.extend([0; SLACK]);
            let mut hybrid = Hybrid::new(0, content.len(), width);
            for _ in 0..1000 {
                match hybrid.next(&padded, 100) {
                    None => break,
                    Some(Run::Packed { bit, left }) => drop(hybrid.unpack(&padded, bit, left, |_, _| {})),
                    Some(Run::Same { .. }) => {}
                }
            }
        }
    }
}
