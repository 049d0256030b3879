//! The generator's own dice: small, seeded, the same on every platform.
//!
//! Every part of the world rolls its own dice, derived from the seed and a few tags (which function, which hour), so that
//! hours can be made in any order and on any number of threads and still come out as the same bytes.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// Dice for one part of the world. Equal seed and tags roll equally.
    pub(crate) fn new(seed: u64, tags: &[u64]) -> Self {
        Self(tags.iter().fold(mix(seed.wrapping_add(GOLDEN)), |state, tag| mix(state.wrapping_add(GOLDEN) ^ mix(tag.wrapping_add(1)))))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `from..to`; `from` when the range is empty.
    pub(crate) fn range(&mut self, from: i64, to: i64) -> i64 {
        from + self.below(u64::try_from(to.saturating_sub(from)).unwrap_or(0)) as i64
    }

    /// A number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// A count around `mean` with a relative spread of about 0.3, rounded by chance so that small means stay true.
    pub(crate) fn count(&mut self, mean: f64) -> u64 {
        let level = (0..4).map(|_| self.unit()).sum::<f64>() * mean / 2.0;
        level as u64 + u64::from(self.chance(level.fract()))
    }

    /// A size around `median` with a heavy tail: doubled again with a chance of one in five, at most 6 times.
    pub(crate) fn size(&mut self, median: u64) -> u64 {
        let doublings = (0..6).take_while(|_| self.chance(0.2)).count();
        (median / 2 + self.below(median.max(1))) << doublings
    }

    /// `n` letters out of `alphabet`.
    pub(crate) fn text(&mut self, n: usize, alphabet: &[u8]) -> String {
        (0..n).map(|_| char::from(*self.pick(alphabet))).collect()
    }

    pub(crate) fn hex(&mut self, n: usize) -> String {
        self.text(n, b"0123456789abcdef")
    }

    pub(crate) fn alphanumeric(&mut self, n: usize) -> String {
        self.text(n, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    }

    /// Letters as in AWS's unique ids and access keys.
    pub(crate) fn base32(&mut self, n: usize) -> String {
        self.text(n, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    }

    pub(crate) fn uuid(&mut self) -> String {
        format!("{}-{}-4{}-a{}-{}", self.hex(8), self.hex(4), self.hex(3), self.hex(3), self.hex(12))
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tags_roll_equally_and_others_do_not() {
        let roll = |tags: &[u64]| {
            let mut rng = Rng::new(7, tags);
            (0..8).map(|_| rng.next()).collect::<Vec<_>>()
        };
        assert_eq!(roll(&[1, 2]), roll(&[1, 2]));
        assert_ne!(roll(&[1, 2]), roll(&[2, 1]));
        assert_ne!(roll(&[1]), roll(&[1, 0]));
    }

    #[test]
    fn counts_keep_their_mean() {
        let mut rng = Rng::new(1, &[]);
        for mean in [0.2, 1.0, 7.5, 300.0] {
            let sum: u64 = (0..20_000).map(|_| rng.count(mean)).sum();
            let got = sum as f64 / 20_000.0;
            assert!((got - mean).abs() < 0.05 * mean, "{mean}: {got}");
        }
    }
}
