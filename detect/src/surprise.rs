//! Surprise and levels (detectors.md 0.2): how unlikely, and how loud.

use libm::{erfc, exp2, log, log10, pow};

use crate::finding::{Severity, Term};
use crate::judge::JudgeConfig;

/// Surprise of a single hourly test is capped here.
pub const CAP: f64 = 40.0;
/// Each kind of evidence counts for at most this much.
pub const KIND_CAP: f64 = 4.0;
/// Evidence weaker than this is what happens one hour in ten: it neither adds nor dilutes.
pub const KIND_FLOOR: f64 = 1.0;
/// From here on it is kept in the entity's timeline, without a finding.
pub const SIGNAL: f64 = 3.0;
/// Level low.
pub const LOW: f64 = 4.0;
/// Level medium.
pub const MEDIUM: f64 = 5.7;
/// Level high.
pub const HIGH: f64 = 7.0;

/// `-log10 p`, capped.
#[must_use]
pub fn of_p(p: f64) -> f64 {
    if p > 0.0 { (-log10(p)).clamp(0.0, CAP) } else { CAP }
}

/// Surprise of `k` pieces of evidence of different kinds whose surprises sum to `x`: under chance `x ln 10` is a sum of
/// `k` exponentials, so `p = 10^-x sum_{j<k} (x ln 10)^j / j!`.
#[must_use]
pub fn combined(x: f64, k: usize) -> f64 {
    let y = x * core::f64::consts::LN_10;
    let (mut term, mut sum) = (1.0, 1.0);
    for j in 1..k {
        term *= y / j as f64;
        sum += term;
    }
    (x - log10(sum)).clamp(0.0, CAP)
}

/// Terms about one subject in one hour, of different kinds.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The terms, strongest first after [`Evidence::surprise`].
    pub terms: Vec<Term>,
}

impl Evidence {
    /// Adds a term of `kind`; of two terms of one kind the stronger one counts.
    pub fn add(&mut self, kind: &str, s: f64, says: String) {
        let s_milli = milli(s.min(KIND_CAP));
        match self.terms.iter_mut().find(|t| t.kind == kind) {
            Some(term) if term.s_milli >= s_milli => {}
            Some(term) => *term = Term { kind: kind.to_owned(), s_milli, says },
            None => self.terms.push(Term { kind: kind.to_owned(), s_milli, says }),
        }
    }

    /// The kinds that count.
    #[must_use]
    pub fn kinds(&self) -> usize {
        self.terms.iter().filter(|t| t.s_milli >= milli(KIND_FLOOR)).count()
    }

    /// The terms in words, after [`Evidence::surprise`]: those that count with their surprise, then those too weak to.
    #[must_use]
    pub fn words(&self) -> String {
        let (strong, weak): (Vec<&Term>, Vec<&Term>) = self.terms.iter().partition(|t| t.s_milli >= milli(KIND_FLOOR));
        let with_surprise = |t: &&Term| format!("{} (surprise {}.{})", t.says, t.s_milli / 1000, t.s_milli % 1000 / 100);
        let says = |terms: &[&Term]| terms.iter().map(|t| t.says.clone()).collect::<Vec<_>>().join("; ");
        match (strong.as_slice(), weak.as_slice()) {
            ([], weak) => says(weak),
            (strong, []) => strong.iter().map(with_surprise).collect::<Vec<_>>().join("; "),
            (strong, weak) => {
                let strong: Vec<String> = strong.iter().map(with_surprise).collect();
                format!("{}. Not counted, as it is common here: {}", strong.join("; "), says(weak))
            }
        }
    }

    /// Surprise of all terms together. Of the kinds above the floor the best leading group counts, so that a weak term
    /// never takes away from strong ones; the looking for the best costs at most a factor of the number of kinds.
    pub fn surprise(&mut self) -> f64 {
        self.terms.sort_by(|a, b| b.s_milli.cmp(&a.s_milli).then_with(|| a.kind.cmp(&b.kind)));
        let (mut x, mut best) = (0.0, 0.0f64);
        for (k, term) in self.terms.iter().enumerate() {
            if k > 0 && term.s_milli < milli(KIND_FLOOR) {
                break;
            }
            x += term.s_milli as f64 / 1000.0;
            best = best.max(combined(x, k + 1));
        }
        best
    }
}

/// Thousandths, as surprise is kept.
#[must_use]
pub fn milli(s: f64) -> i64 {
    (s.clamp(0.0, CAP) * 1000.0 + 0.5) as i64
}

/// The level of a surprise; `None` below low. Sensitivity shifts all thresholds.
#[must_use]
pub fn level(s: f64, config: &JudgeConfig) -> Option<Severity> {
    let s = s + f64::from(config.sensitivity.clamp(-1, 1));
    if s >= HIGH {
        Some(Severity::High)
    } else if s >= MEDIUM {
        Some(Severity::Medium)
    } else if s >= LOW {
        Some(Severity::Low)
    } else {
        None
    }
}

/// True from the level of a signal on: kept in the entity's timeline, without a finding.
#[must_use]
pub fn is_signal(s: f64, config: &JudgeConfig) -> bool {
    s + f64::from(config.sensitivity.clamp(-1, 1)) >= SIGNAL
}

/// Surprise of a standard normal variable being at least `z`.
#[must_use]
pub fn of_normal(z: f64) -> f64 {
    of_p(0.5 * erfc(z / core::f64::consts::SQRT_2))
}

/// What is left of a weight after `hours`, with this half-life.
#[must_use]
pub fn decay(hours: f64, half_life_hours: f64) -> f64 {
    exp2(-hours.max(0.0) / half_life_hours)
}

/// Natural logarithm of `1 + x`, on every platform alike.
#[must_use]
pub fn ln_1p(x: f64) -> f64 {
    log(1.0 + x)
}

/// `10^-s`.
#[must_use]
pub fn p_of(s: f64) -> f64 {
    pow(10.0, -s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn raw_sums_reach_medium_by_chance_as_often_as_the_design_says() {
        // detectors.md 0.2: sums of 2, 3, 4 kinds reach 5.7 with 7e-4, 5e-3, 2e-2 per entity-day of 24 tests.
        for (k, per_day) in [(2, 7e-4), (3, 5e-3), (4, 2e-2)] {
            let p = 24.0 * p_of(combined(5.7, k));
            assert!((0.7..1.6).contains(&(p / per_day)), "{k} kinds: {p}");
        }
        assert_eq!(combined(5.0, 1), 5.0);
    }

    #[test]
    fn levels_shift_with_sensitivity() {
        let with = |sensitivity| JudgeConfig { sensitivity, ..JudgeConfig::default() };
        assert_eq!(level(5.8, &with(0)), Some(Severity::Medium));
        assert_eq!(level(5.8, &with(-1)), Some(Severity::Low));
        assert_eq!(level(6.1, &with(1)), Some(Severity::High));
        assert_eq!(level(3.9, &with(0)), None);
        assert!(is_signal(3.0, &with(0)) && !is_signal(3.9, &with(-1)) && is_signal(2.0, &with(1)));
    }

    proptest! {
        #[test]
        fn more_evidence_never_says_less(mut parts in prop::collection::vec(0.0f64..4.0, 1..6), extra in 0.0f64..4.0) {
            let sum = |parts: &[f64]| {
                let mut evidence = Evidence::default();
                for (n, s) in parts.iter().enumerate() {
                    evidence.add(&n.to_string(), *s, String::new());
                }
                evidence.surprise()
            };
            let before = sum(&parts);
            parts.push(extra);
            prop_assert!(sum(&parts) >= before - 1e-9);
        }
    }
}
