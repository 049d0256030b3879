//! Seeded chance: one stream per object, so that objects can be made in any order on any thread.

/// A stream of numbers (SplitMix64: Steele, Lea and Flood 2014), enough for inputs, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The finalizer of SplitMix64: spreads every input bit over the output.
pub fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of one thing: the parts (seed, account, object number ...) name it.
    pub fn of(parts: &[u64]) -> Self {
        Self(parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| mix(state ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15)))))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Evenly in `0..bound` (bias below 2⁻³², the bounds here are small).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Evenly in `(0, 1]`.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// True `per_mille` times in a thousand.
    pub fn per_mille(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A length of at least 1 with the given mean, geometrically distributed.
    pub fn run_length(&mut self, mean: f64) -> usize {
        if mean <= 1.0 {
            return 1;
        }
        1 + (libm::log(self.unit()) / libm::log(1.0 - 1.0 / mean)) as usize
    }

    /// A heavy tail (Pareto) from `least` on: the smaller `alpha`, the heavier. Cut at a million times `least`.
    pub fn heavy(&mut self, least: u64, alpha: f64) -> u64 {
        let factor = libm::pow(self.unit(), -1.0 / alpha).min(1e6);
        (least as f64 * factor) as u64
    }
}

/// Ranks `0..n` with probability falling as `1 / (rank + 1)^s`, drawn in constant time (Walker's alias method).
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Per slot: below this (of 2³²) the slot itself is meant, else its alias.
    slots: Vec<(u32, u32)>,
}

impl Zipf {
    /// A table for `n` ranks (at least one) with exponent `s`.
    pub fn new(n: usize, s: f64) -> Self {
        let n = n.max(1);
        let weights: Vec<f64> = (1..=n).map(|rank| libm::pow(rank as f64, -s)).collect();
        let mean = weights.iter().sum::<f64>() / n as f64;
        let mut share: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let mut slots = vec![(u32::MAX, 0u32); n];
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&slot| share[slot] < 1.0);
        while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
            slots[low] = ((share[low] * f64::from(u32::MAX)) as u32, high as u32);
            share[high] -= 1.0 - share[low];
            if share[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { slots }
    }

    /// The rank that `bits` (64 even random bits) choose.
    pub fn rank(&self, bits: u64) -> usize {
        let slot = (((bits >> 32) * self.slots.len() as u64) >> 32) as usize;
        let (keep, alias) = self.slots[slot];
        if (bits as u32) <= keep { slot } else { alias as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_comes_as_often_as_zipf_says() {
        let zipf = Zipf::new(1000, 1.0);
        let harmonic: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut random = Random::of(&[1]);
        let hits = (0..1_000_000).filter(|_| zipf.rank(random.bits()) == 0).count() as f64;
        assert!((hits / 1e6 - 1.0 / harmonic).abs() < 0.002, "{hits}");
    }

    #[test]
    fn equal_names_make_equal_streams_and_others_do_not() {
        assert_eq!(Random::of(&[7, 1, 2]).bits(), Random::of(&[7, 1, 2]).bits());
        assert_ne!(Random::of(&[7, 1, 2]).bits(), Random::of(&[7, 2, 1]).bits());
    }

    #[test]
    fn runs_have_the_mean_that_was_asked_for() {
        let mut random = Random::of(&[2]);
        let sum: usize = (0..100_000).map(|_| random.run_length(12.0)).sum();
        assert!((sum as f64 / 100_000.0 - 12.0).abs() < 0.3, "{sum}");
    }
}
