//! Sets of moments as sorted, disjoint, half-open spans of seconds.

/// Sorted, disjoint spans `[from, to)`; touching ones are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// The union of spans in any order; empty ones vanish.
    pub(crate) fn union(mut spans: Vec<(i64, i64)>) -> Self {
        spans.retain(|(from, to)| from < to);
        spans.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    /// The span that holds `at`.
    pub(crate) fn around(&self, at: i64) -> Option<(i64, i64)> {
        let after = self.0.partition_point(|(from, _)| *from <= at);
        self.0[..after].last().copied().filter(|(_, to)| at < *to)
    }

    /// What of `[from, to)` is in none of the spans.
    pub(crate) fn gaps(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut at = from;
        let first = self.0.partition_point(|(_, end)| *end <= from);
        for (start, end) in &self.0[first..] {
            if *start >= to {
                break;
            }
            if at < *start {
                gaps.push((at, *start));
            }
            at = at.max(*end);
        }
        if at < to {
            gaps.push((at, to));
        }
        gaps
    }

    /// These moments without those of `others`.
    pub(crate) fn without(&self, others: &Self) -> Self {
        Self(self.0.iter().flat_map(|(from, to)| others.gaps(*from, *to)).collect())
    }

    /// The spans in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn has(spans: &Spans, at: i64) -> bool {
        spans.around(at).is_some()
    }

    proptest! {
        #[test]
        fn spans_are_sets_of_moments(a in prop::collection::vec((0i64..40, 0i64..40), 0..8), b in prop::collection::vec((0i64..40, 0i64..40), 0..8)) {
            let (left, right) = (Spans::union(a.clone()), Spans::union(b.clone()));
            let rest = left.without(&right);
            let gaps = Spans(left.gaps(5, 30));
            for at in 0..40 {
                let in_a = a.iter().any(|(f, t)| (*f..*t).contains(&at));
                let in_b = b.iter().any(|(f, t)| (*f..*t).contains(&at));
                prop_assert_eq!(has(&left, at), in_a);
                prop_assert_eq!(has(&rest, at), in_a && !in_b);
                prop_assert_eq!(has(&gaps, at), (5..30).contains(&at) && !in_a);
            }
        }
    }
}
