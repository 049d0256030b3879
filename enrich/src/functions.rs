//! One function's network configuration over time, from what lists and events say of it.
//!
//! Events tell the state from their second on and nothing about before, except that a creation tells "not before". A
//! list also speaks backwards, as far as its `LastModified`. Where both leave a hole, the neighbours' configurations
//! stay possible ("keep both ends") and the hole is remembered as unknown, so that nothing is proven over it.

use std::collections::BTreeMap;

use crate::fact::{VpcChange, VpcConfig, Word};

/// Invocations use the old interface until a changed network configuration is in force; the `Pending` state lasts up
/// to some minutes (domain/lambda-enis.md section 1). Seconds.
pub(crate) const CHANGE_GRACE: i64 = 900;

/// How far what AWS lists may lag behind what was done, in seconds: a list this soon after an event proves no absence.
pub(crate) const LISTING_LAG: i64 = 60;

/// `LastModified` and the event that set it differ by seconds.
const SAME_CHANGE: i64 = 10;

/// What one dated fact says of a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    Deleted { version: Option<Word> },
    Created { vpc: VpcChange, published: bool },
    Changed(VpcChange),
    Published { version: Word },
    Seen { version: Option<Word>, vpc: Option<VpcConfig>, modified: Option<i64> },
}

/// Why a function may have a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Configured so since then.
    Since(i64),
    /// A list says so from then on; before it, it is likely.
    Later(i64),
    /// A snapshot without a date.
    Undated,
    /// A published version keeps it.
    Version(Word),
}

/// A configuration that a function may have had over `[from, to)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spell {
    pub(crate) config: VpcConfig,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) why: Why,
}

/// All that is known of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FunctionHistory {
    pub(crate) spells: Vec<Spell>,
    /// Spans over which it may have had any configuration.
    pub(crate) unknown: Vec<(i64, i64)>,
    /// Before this nothing is known of it: a later list proves nothing there. `i64::MIN`: known for as long as events were.
    pub(crate) unknown_before: i64,
}

enum State {
    Nothing,
    Is { config: VpcConfig, from: i64, why: Why },
    Gone { since: i64 },
    Unsaid { since: i64, before: Option<(VpcConfig, i64, Why)> },
}

struct Version {
    config: VpcConfig,
    from: i64,
    seen: i64,
    to: i64,
}

struct Walk<'l> {
    history: FunctionHistory,
    state: State,
    /// Last moment at which a fact spoke of it as existing.
    last: i64,
    /// Last change that left the configuration alone, while nothing else was known.
    unchanged: Option<i64>,
    versions: BTreeMap<Word, Version>,
    /// Lists that showed it as it was later.
    early: Vec<i64>,
    /// Times of complete lists of its region, sorted, and whether each held published versions.
    lists: &'l [(i64, bool)],
}

/// Puts together the history of one function. `said` in any order; `undated` from snapshots without a date; `lists` are
/// the complete lists of its region, sorted by time.
pub(crate) fn history(said: &mut Vec<(i64, Said)>, undated: &[VpcConfig], lists: &[(i64, bool)]) -> FunctionHistory {
    // A list is read after the moment it is dated with: what it shows as modified later is true from then on.
    let mut facts: Vec<(i64, Said, i64)> = said
        .drain(..)
        .map(|(at, what)| match &what {
            Said::Seen { version: None, modified: Some(m), .. } if *m > at && *m <= at.saturating_add(3600) => (*m, what, at),
            _ => (at, what, at),
        })
        .collect();
    facts.sort();
    facts.dedup();
    let mut walk = Walk {
        history: FunctionHistory { spells: Vec::new(), unknown: Vec::new(), unknown_before: i64::MIN },
        state: State::Nothing,
        last: i64::MIN,
        unchanged: None,
        versions: BTreeMap::new(),
        early: facts.iter().filter(|(at, _, seen_at)| at != seen_at).map(|(_, _, seen_at)| *seen_at).collect(),
        lists,
    };
    let first = facts.iter().find(|(_, s, _)| !matches!(s, Said::Seen { version: Some(_), .. })).map(|(_, _, seen)| *seen);
    let absent_at = match first {
        Some(first) => lists.partition_point(|(l, _)| *l < first).checked_sub(1).and_then(|i| lists.get(i)),
        None => lists.first(),
    };
    if first.is_some()
        && let Some((since, _)) = absent_at
    {
        walk.state = State::Gone { since: *since };
    }
    for config in undated {
        let to = absent_at.map(|(l, _)| *l).or(first).unwrap_or(i64::MAX);
        walk.spell(config.clone(), i64::MIN, to, Why::Undated);
    }
    for (at, what, seen_at) in facts {
        if let Said::Seen { version: Some(version), vpc, modified } = what {
            walk.version_seen(version, vpc, modified.filter(|m| *m <= at).unwrap_or(at), at);
            continue;
        }
        if let Some(list) = walk.missed(seen_at) {
            walk.absent(list);
        }
        walk.take(at, what);
        if !matches!(walk.state, State::Gone { .. } | State::Nothing) {
            walk.last = at.max(seen_at);
        }
    }
    if let Some(list) = walk.missed(i64::MAX) {
        walk.absent(list);
    }
    walk.finish()
}

impl Walk<'_> {
    fn spell(&mut self, config: VpcConfig, from: i64, to: i64, why: Why) {
        if from < to && !config.subnets.is_empty() {
            self.history.spells.push(Spell { config, from, to, why });
        }
    }

    fn unknown(&mut self, from: i64, to: i64) {
        if from < to {
            self.history.unknown.push((from, to));
        }
    }

    /// The first complete list after the last sign of life and before `before`: it did not show the function.
    fn missed(&self, before: i64) -> Option<i64> {
        if !matches!(self.state, State::Is { .. } | State::Unsaid { .. }) {
            return None;
        }
        let next = self.lists.partition_point(|(l, _)| *l <= self.last.saturating_add(LISTING_LAG));
        self.lists[next..].iter().map(|(l, _)| *l).find(|l| !self.early.contains(l)).filter(|l| *l < before)
    }

    /// A complete list did not show it: it went between the last sign of life and the list.
    fn absent(&mut self, list: i64) {
        let from = self.last.saturating_add(1);
        self.unknown(from, list);
        self.end(list);
        self.state = State::Gone { since: list };
    }

    /// Ends whatever the function was at `to`, and its versions.
    fn end(&mut self, to: i64) {
        match std::mem::replace(&mut self.state, State::Nothing) {
            State::Is { config, from, why } => self.spell(config, from, to, why),
            State::Unsaid { since, before } => {
                self.unknown(since, to);
                if let Some((config, from, why)) = before {
                    self.spell(config, from, to, why);
                }
            }
            State::Nothing | State::Gone { .. } => {}
        }
        for version in self.versions.values_mut() {
            version.to = version.to.min(to);
        }
    }

    fn take(&mut self, at: i64, what: Said) {
        match what {
            Said::Deleted { version: Some(version) } => {
                if let Some(version) = self.versions.get_mut(&version) {
                    version.to = version.to.min(at);
                }
            }
            Said::Deleted { version: None } => {
                if matches!(self.state, State::Nothing) {
                    self.history.unknown_before = at;
                }
                self.end(at);
                self.state = State::Gone { since: at };
            }
            Said::Created { vpc, published } => {
                let publish = match (&vpc, published) {
                    (VpcChange::Now(config), true) => Some(config.clone()),
                    _ => None,
                };
                self.unchanged = None;
                match vpc {
                    VpcChange::Now(config) => self.becomes(config, at, at),
                    VpcChange::Unchanged | VpcChange::Unsaid => self.unsaid(at),
                }
                if let Some(config) = publish {
                    self.versions.insert("1".into(), Version { config, from: at, seen: at, to: i64::MAX });
                }
            }
            Said::Changed(VpcChange::Now(config)) => {
                if matches!(self.state, State::Nothing) {
                    self.history.unknown_before = at;
                }
                self.becomes(config, at, at);
            }
            Said::Changed(VpcChange::Unsaid) => {
                if matches!(self.state, State::Nothing) {
                    self.history.unknown_before = at;
                }
                self.unsaid(at);
            }
            Said::Changed(VpcChange::Unchanged) => match self.state {
                State::Nothing => self.unchanged = Some(at),
                // Its creation was missed.
                State::Gone { .. } => self.state = State::Unsaid { since: at, before: None },
                State::Is { .. } | State::Unsaid { .. } => {}
            },
            Said::Published { version } => {
                if let State::Is { config, .. } = &self.state {
                    let name = if version.is_empty() { Word::from(format!("published {at}")) } else { version };
                    self.versions.entry(name).or_insert(Version { config: config.clone(), from: at, seen: at, to: i64::MAX });
                }
            }
            Said::Seen { vpc, modified, .. } => {
                if let Some(config) = vpc {
                    self.seen(config, at, modified.filter(|m| *m <= at));
                } else if let State::Gone { .. } = self.state {
                    self.state = State::Unsaid { since: at, before: None };
                }
            }
        }
    }

    /// The configuration is `config` from `at` on; the one before stays possible until the change is in force.
    fn becomes(&mut self, config: VpcConfig, at: i64, since: i64) {
        match std::mem::replace(&mut self.state, State::Nothing) {
            State::Is { config: old, from, why } if old == config => {
                self.state = State::Is { config, from, why };
                return;
            }
            State::Is { config: old, from, why } => self.spell(old, from, since.saturating_add(CHANGE_GRACE), why),
            State::Unsaid { since: unsaid, before } => {
                self.unknown(unsaid, since);
                if let Some((old, from, why)) = before {
                    self.spell(old, from, since.saturating_add(CHANGE_GRACE), why);
                }
            }
            State::Nothing | State::Gone { .. } => {}
        }
        self.state = State::Is { config, from: at, why: Why::Since(since) };
    }

    fn unsaid(&mut self, at: i64) {
        self.state = match std::mem::replace(&mut self.state, State::Nothing) {
            State::Is { config, from, why } => State::Unsaid { since: at, before: Some((config, from, why)) },
            unsaid @ State::Unsaid { .. } => unsaid,
            State::Nothing | State::Gone { .. } => State::Unsaid { since: at, before: None },
        };
    }

    /// A list shows `config` at `at`, unmodified since `modified`.
    fn seen(&mut self, config: VpcConfig, at: i64, modified: Option<i64>) {
        let known = modified.unwrap_or(at);
        match &self.state {
            State::Is { config: old, .. } if *old == config => {}
            State::Is { .. } => {
                // It changed after the last fact without an event: both ends stay possible up to the known change.
                let from = self.last.saturating_add(1);
                let known = known.max(from);
                self.unknown(from, known);
                self.becomes(config, from, known);
            }
            State::Nothing => {
                let explained = self.unchanged.is_some_and(|u| known <= u.saturating_add(SAME_CHANGE));
                let known = if explained { i64::MIN } else { known };
                self.history.unknown_before = known;
                self.spell(config.clone(), i64::MIN, known, Why::Later(known));
                self.state = State::Is { config, from: known, why: Why::Since(if explained { modified.unwrap_or(at) } else { known }) };
            }
            State::Gone { since } => {
                let since = *since;
                // A list read while the function was being deleted.
                if at <= since.saturating_add(LISTING_LAG) && known < since {
                    return;
                }
                let from = since.saturating_add(1);
                let known = known.max(from);
                self.unknown(from, known);
                self.spell(config.clone(), from, known, Why::Later(known));
                self.state = State::Is { config, from: known, why: Why::Since(known) };
            }
            State::Unsaid { since, .. } => {
                let since = *since;
                let known = if known <= since.saturating_add(SAME_CHANGE) { since } else { known };
                self.becomes(config, since, known);
            }
        }
    }

    fn version_seen(&mut self, version: Word, vpc: Option<VpcConfig>, from: i64, at: i64) {
        let Some(config) = vpc else { return };
        let known = self.versions.entry(version).or_insert(Version { config: config.clone(), from, seen: at, to: i64::MAX });
        known.from = known.from.min(from);
        known.seen = known.seen.max(at);
        known.config = config;
    }

    fn finish(mut self) -> FunctionHistory {
        for (name, version) in std::mem::take(&mut self.versions) {
            // Only a list with published versions can miss one.
            let start = self.lists.partition_point(|(l, _)| *l <= version.seen.saturating_add(LISTING_LAG));
            let missed = self.lists[start..].iter().find(|(_, all)| *all).map_or(i64::MAX, |(l, _)| *l);
            self.spell(version.config, version.from, version.to.min(missed), Why::Version(name));
        }
        // The state is open at the end; versions were settled above.
        self.end(i64::MAX);
        self.history.unknown.sort_unstable();
        self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str) -> VpcConfig {
        VpcConfig { subnets: vec![subnet.into()], groups: vec!["sg".into()] }
    }

    fn seen(subnet: &str, modified: Option<i64>) -> Said {
        Said::Seen { version: None, vpc: Some(config(subnet)), modified }
    }

    fn now(subnet: &str) -> VpcChange {
        VpcChange::Now(config(subnet))
    }

    /// `a 100..200` for each spell, then `?100..200` for what is unknown and `<100` for the time before.
    fn told(history: &FunctionHistory) -> String {
        let edge = |t: i64| match t {
            i64::MIN => String::new(),
            i64::MAX => String::new(),
            t => t.to_string(),
        };
        let mut parts: Vec<String> =
            history.spells.iter().map(|s| format!("{} {}..{}", s.config.subnets[0], edge(s.from), edge(s.to))).collect();
        parts.extend(history.unknown.iter().map(|(from, to)| format!("?{}..{}", edge(*from), edge(*to))));
        if history.unknown_before > i64::MIN {
            parts.push(format!("<{}", history.unknown_before));
        }
        parts.join(" | ")
    }

    #[test]
    fn histories() {
        let list = |times: &[i64]| times.iter().map(|t| (*t, false)).collect::<Vec<_>>();
        let created = |s| Said::Created { vpc: now(s), published: false };
        let deleted = || Said::Deleted { version: None };
        for (name, said, lists, expected) in [
            ("created and deleted", vec![(5000, created("a")), (9000, deleted())], vec![], "a 5000..9000"),
            ("changed by an event", vec![(5000, created("a")), (9000, Said::Changed(now("b")))], vec![], "a 5000..9900 | b 9000.."),
            ("a deploy changes nothing", vec![(5000, created("a")), (9000, Said::Changed(VpcChange::Unchanged))], vec![], "a 5000.."),
            ("a list speaks back to its LastModified", vec![(9000, seen("a", Some(5000)))], vec![9000], "a ..5000 | a 5000.. | <5000"),
            (
                "and further where only deploys were",
                vec![(5000, Said::Changed(VpcChange::Unchanged)), (9000, seen("a", Some(5002)))],
                vec![9000],
                "a ..",
            ),
            ("two lists agree", vec![(1000, seen("a", Some(0))), (9000, seen("a", Some(5000)))], vec![1000, 9000], "a ..0 | a 0.. | <0"),
            (
                "two lists differ: both ends stay",
                vec![(1000, seen("a", Some(0))), (9000, seen("b", Some(5000)))],
                vec![1000, 9000],
                "a ..0 | a 0..5900 | b 1001.. | ?1001..5000 | <0",
            ),
            ("new in a list", vec![(9000, seen("a", Some(5000)))], vec![1000, 9000], "a 1001..5000 | a 5000.. | ?1001..5000"),
            ("gone from a list", vec![(1000, seen("a", Some(0)))], vec![1000, 9000], "a ..0 | a 0..9000 | ?1001..9000 | <0"),
            (
                "changed to nobody knows what",
                vec![(1000, created("a")), (5000, Said::Changed(VpcChange::Unsaid)), (9000, seen("b", Some(5001)))],
                vec![9000],
                "a 1000..5900 | b 5000..",
            ),
            ("first heard of when deleted", vec![(9000, deleted())], vec![], "<9000"),
            ("first heard of when changed", vec![(9000, Said::Changed(now("a")))], vec![], "a 9000.. | <9000"),
            (
                "a list read while it was changed",
                vec![(1000, created("a")), (5003, Said::Changed(now("b"))), (5000, seen("b", Some(5003)))],
                vec![5000],
                "a 1000..5903 | b 5003..",
            ),
            (
                "a published version keeps its configuration",
                vec![(1000, created("a")), (2000, Said::Published { version: "1".into() }), (5000, Said::Changed(now("b")))],
                vec![],
                "a 1000..5900 | a 2000.. | b 5000..",
            ),
        ] {
            let got = told(&history(&mut said.clone(), &[], &list(&lists)));
            let sorted = |s: &str| {
                let mut parts: Vec<String> = s.split(" | ").map(str::to_owned).collect();
                parts.sort();
                parts
            };
            assert_eq!(sorted(&got), sorted(expected), "{name}");
        }
    }

    #[test]
    fn undated_configurations_yield_to_dated_lists() {
        for (lists, expected) in [(vec![], "u .."), (vec![(5000, false)], "u ..5000")] {
            assert_eq!(told(&history(&mut Vec::new(), &[config("u")], &lists)), expected);
        }
    }
}
