//! How often addresses were seen, at most: cheap to count for everybody, where only the few that come often matter.

use flowtrail_ingest::Ip;

/// Counts at a place that the address says. Others may have the same place: a count is never less than the address's own.
pub(crate) struct Tries([u32; 1 << PLACE_BITS]);

const PLACE_BITS: u32 = 12;

impl Default for Tries {
    fn default() -> Self {
        Self([0; 1 << PLACE_BITS])
    }
}

impl Tries {
    fn place(ip: Ip) -> usize {
        ((ip.0 as u64 ^ (ip.0 >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACE_BITS)) as usize
    }

    /// Counts an address once more.
    pub fn add(&mut self, ip: Ip) {
        let count = &mut self.0[Self::place(ip)];
        *count = count.saturating_add(1);
    }

    /// It was counted no more often than this.
    pub fn at_most(&self, ip: Ip) -> usize {
        self.0[Self::place(ip)] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_never_too_small_and_seldom_too_large() {
        let mut tries = Tries::default();
        for n in 0..1000u32 {
            (0..=n % 3).for_each(|_| tries.add(Ip::v4(n * 7919)));
        }
        let too_large = (0..1000u32).filter(|n| {
            let (own, counted) = ((n % 3 + 1) as usize, tries.at_most(Ip::v4(n * 7919)));
            assert!(counted >= own);
            counted > own
        });
        assert!(too_large.count() < 300);
    }
}
