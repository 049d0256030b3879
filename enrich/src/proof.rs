//! When the functions of a region are completely known.
//!
//! A list of all functions is knowledge of one moment. It is carried on by management events: as long as they were
//! delivered, no function was created, changed or deleted unseen. Delivery is taken as given for [`QUIET`] after each
//! management event and after the list itself. So whether a moment is proven depends on events up to the end of its
//! hour, and on later lists where those speak backwards.

use std::collections::BTreeSet;

use crate::spans::Spans;

/// How long a region may be without a management event and still count as covered, in seconds. Accounts with VPC
/// functions have several an hour (role sessions, agents); three hours without one mean that the trail was off.
pub(crate) const QUIET: i64 = 3 * 3600;

/// What is known of the completeness of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    /// Hours (since 1970) with a management event.
    pub(crate) hours: BTreeSet<i32>,
    /// Times of complete function lists and whether they held published versions; sorted.
    pub(crate) function_lists: Vec<(i64, bool)>,
    /// Times of complete interface snapshots, sorted.
    pub(crate) interface_lists: Vec<i64>,
    /// Spans at whose every moment some function may have had any configuration.
    pub(crate) unknown: Spans,
    /// Before this some function's configuration is not known to a later list.
    pub(crate) unknown_before: i64,
    covered: Spans,
    proven: Spans,
}

impl Region {
    /// Works out coverage and proof anew, after hours, lists or functions changed.
    pub(crate) fn settle(&mut self) {
        let hour = |h: &i32| i64::from(*h) * 3600;
        self.covered = Spans::union(self.hours.iter().map(|h| (hour(h), hour(h) + 3600 + QUIET)).collect());
        let forward = self.function_lists.iter().map(|(list, _)| (*list, self.carried_to(*list))).collect();
        let backward = self
            .function_lists
            .iter()
            .map(|(list, _)| (self.carried_from(*list).max(self.unknown_before), list.saturating_add(1)))
            .collect();
        let both = [Spans::union(forward), Spans::union(backward)].iter().flat_map(Spans::iter).collect();
        self.proven = Spans::union(both).without(&self.unknown);
    }

    /// Knowledge of `at` holds until then.
    fn carried_to(&self, at: i64) -> i64 {
        let quiet_end = at.saturating_add(QUIET);
        self.covered.around(quiet_end).map_or(quiet_end, |(_, to)| to)
    }

    /// Knowledge of `at` holds since then, as far as no event told of a change.
    pub(crate) fn carried_from(&self, at: i64) -> i64 {
        self.covered.around(at).map_or(at, |(from, _)| from).saturating_sub(QUIET)
    }

    /// Spans in which every function's configuration is known.
    pub(crate) fn proven(&self) -> &Spans {
        &self.proven
    }

    /// The complete function lists around `[from, to]`, if there are both.
    pub(crate) fn lists_around(&self, from: i64, to: i64) -> Option<(i64, i64)> {
        let before = self.function_lists.partition_point(|(l, _)| *l <= from).checked_sub(1)?;
        let after = self.function_lists.partition_point(|(l, _)| *l < to);
        Some((self.function_lists.get(before)?.0, self.function_lists.get(after)?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hours as numbers, lists as seconds; proven spans in hours.
    fn proven(hours: &[i32], lists: &[i64], unknown_before: i64) -> Vec<(f64, f64)> {
        let mut region = Region {
            hours: hours.iter().copied().collect(),
            function_lists: lists.iter().map(|l| (*l * 3600, false)).collect(),
            unknown_before,
            ..Region::default()
        };
        region.settle();
        region.proven().iter().map(|(f, t)| (f as f64 / 3600.0, ((t - 1) as f64 / 3600.0).ceil())).collect()
    }

    #[test]
    fn a_list_is_carried_by_management_events() {
        // Without events: three hours to both sides.
        assert_eq!(proven(&[], &[100], i64::MIN), [(97.0, 103.0)]);
        // Every second hour an event, until 110: carried to 111 and three hours more.
        assert_eq!(proven(&[100, 102, 104, 106, 108, 110], &[100], i64::MIN), [(97.0, 114.0)]);
        // A hole of more than three hours ends it.
        assert_eq!(proven(&[100, 101, 110, 111], &[100], i64::MIN), [(97.0, 105.0)]);
        // Backwards as far as events reach, less what a function's past hides.
        assert_eq!(proven(&[90, 92, 94, 96, 98, 100], &[100], i64::MIN), [(87.0, 104.0)]);
        assert_eq!(proven(&[90, 92, 94, 96, 98, 100], &[100], 95 * 3600), [(95.0, 104.0)]);
    }
}
