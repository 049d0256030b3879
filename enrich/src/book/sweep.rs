//! Overlapping ranges into disjoint segments, each with what lies over it.

use std::collections::BTreeSet;

/// An address as a number that can be counted on from.
pub(super) trait Address: Copy + Ord {
    /// The next address, unless it is the last.
    fn next(self) -> Option<Self>;
    /// The address before; of the first, itself.
    fn before(self) -> Self;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn before(self) -> Self {
        self.saturating_sub(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn before(self) -> Self {
        self.saturating_sub(1)
    }
}

/// Walks the segments of ranges `(first, last, payload)` in order; both ends are in the range, and the ranges are sorted. `emit` gets
/// a segment and the numbers of the ranges over it, sorted. Ranges that overlap no other cost nothing extra.
pub(super) fn sweep<A: Address, P>(ranges: &[(A, A, P)], mut emit: impl FnMut(A, A, &[usize])) {
    let mut at = 0;
    while let Some((first, last, _)) = ranges.get(at) {
        // A cluster: ranges that hang together.
        let (start, mut reach) = (at, *last);
        at += 1;
        while let Some((next, end, _)) = ranges.get(at)
            && *next <= reach
        {
            reach = reach.max(*end);
            at += 1;
        }
        if at - start == 1 {
            emit(*first, *last, &[start]);
        } else {
            cluster(ranges, start..at, &mut emit);
        }
    }
}

fn cluster<A: Address, P>(ranges: &[(A, A, P)], numbers: std::ops::Range<usize>, emit: &mut impl FnMut(A, A, &[usize])) {
    let mut edges: Vec<A> =
        numbers.clone().filter_map(|n| ranges.get(n)).flat_map(|(first, last, _)| [Some(*first), last.next()]).flatten().collect();
    edges.sort_unstable();
    edges.dedup();
    let mut over: BTreeSet<(A, usize)> = BTreeSet::new();
    let mut next = numbers.start;
    for (number, edge) in edges.iter().enumerate() {
        while let Some((last, _)) = over.first()
            && last < edge
        {
            over.pop_first();
        }
        while let Some((first, last, _)) = ranges.get(next)
            && next < numbers.end
            && first == edge
        {
            over.insert((*last, next));
            next += 1;
        }
        // Past the last edge lies nothing, or what reaches to the last address of all.
        let end = edges.get(number + 1).map(|e| e.before()).or_else(|| over.last().map(|(last, _)| *last));
        if let Some(end) = end
            && !over.is_empty()
        {
            let mut here: Vec<usize> = over.iter().map(|(_, n)| *n).collect();
            here.sort_unstable();
            emit(*edge, end, &here);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn segments_say_of_every_address_what_lies_over_it(raw in prop::collection::vec((0u32..60, 0u32..60), 0..12), high in any::<bool>()) {
            // Both ends of the number line, where counting on would overflow.
            let lift = |x: u32| if high { u32::MAX - 59 + x } else { x };
            let mut ranges: Vec<(u32, u32, ())> = raw.iter().map(|(a, b)| (lift(*a.min(b)), lift(*a.max(b)), ())).collect();
            ranges.sort_unstable();
            let mut seen: Vec<(u32, u32, Vec<usize>)> = Vec::new();
            sweep(&ranges, |first, last, over| seen.push((first, last, over.to_vec())));
            for pair in seen.windows(2) {
                prop_assert!(pair[0].1 < pair[1].0);
            }
            for x in (0..60).map(lift) {
                let expected: Vec<usize> = (0..ranges.len()).filter(|n| (ranges[*n].0..=ranges[*n].1).contains(&x)).collect();
                let got = seen.iter().find(|(first, last, _)| (*first..=*last).contains(&x)).map(|s| s.2.clone()).unwrap_or_default();
                prop_assert_eq!(got, expected, "{}", x);
            }
        }
    }
}
