//! Incidents: the hours of one UTC day that ask the same question, joined into one finding.
//!
//! The join is a fold over a set of (hour, finding): which hour was judged first, or judged again, does not show. So
//! `replay`, which judges an hour once, and `run`, which looks several times, end with the same row.

use std::collections::{BTreeMap, BTreeSet};

use flowtrail_enrich::{Attribution, Candidate};
use flowtrail_ingest::{Day, EventTime, Hour};
use serde::{Deserialize, Serialize};

use crate::entity::short_name;
use crate::finding::{EvidenceRef, Finding, Severity};
use crate::window::union;

/// The id of what is asked: BLAKE3-128 of (detector, account and entity, subject, UTC day), in hex.
#[must_use]
pub fn finding_id(detector: &str, account: &str, entity: &str, subject: &str, day: Day) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [detector, account, entity, subject] {
        // With its length before it, no part can run into the next.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&day.0.to_le_bytes());
    hasher.finalize().to_hex().as_str().get(..32).unwrap_or_default().to_owned()
}

/// Findings of hours, kept apart so that an hour can be judged again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Incidents {
    /// By id, by hour: that hour's part.
    parts: BTreeMap<String, BTreeMap<Hour, Part>>,
    /// Which ids an account's hour took part in.
    hours: BTreeMap<(String, Hour), Vec<String>>,
}

/// What one hour says under an id: what a join asks of every hour, and the finding that it takes from the loudest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    severity: Severity,
    score_milli: i64,
    window: (EventTime, EventTime),
    seen: (EventTime, EventTime),
    count: i64,
    bytes_out: i64,
    bytes_in: i64,
    coverage_milli: i64,
    attribution: String,
    candidates: Vec<Candidate>,
    #[serde(with = "crate::finding::by_object")]
    evidence: Vec<EvidenceRef>,
    /// All the rest of it. `None` when another hour speaks louder for good: the texts of a day's hours are
    /// most of what there is to keep, and no join would show them.
    finding: Option<Box<Finding>>,
}

impl From<Finding> for Part {
    fn from(mut finding: Finding) -> Self {
        Self {
            severity: finding.severity,
            score_milli: finding.score_milli,
            window: (finding.window_start, finding.window_end),
            seen: (finding.first_seen, finding.last_seen),
            count: finding.count,
            bytes_out: finding.bytes_out,
            bytes_in: finding.bytes_in,
            coverage_milli: finding.coverage_milli,
            attribution: std::mem::take(&mut finding.attribution),
            candidates: std::mem::take(&mut finding.candidates),
            evidence: std::mem::take(&mut finding.evidence),
            finding: Some(Box::new(finding)),
        }
    }
}

impl Incidents {
    /// Adds one hour's finding, in place of what that hour said before under the same id.
    pub fn add(&mut self, finding: Finding) {
        let hour = finding.window_start.hour();
        self.note(&finding.account_id, hour, &finding.finding_id);
        self.parts.entry(finding.finding_id.clone()).or_default().insert(hour, finding.into());
    }

    fn note(&mut self, account: &str, hour: Hour, id: &str) {
        let ids = self.hours.entry((account.to_owned(), hour)).or_default();
        if let Err(at) = ids.binary_search_by(|other| other.as_str().cmp(id)) {
            ids.insert(at, id.to_owned());
        }
    }

    /// Adds all that another one holds.
    pub fn absorb(&mut self, other: Self) {
        for ((account, hour), ids) in other.hours {
            ids.iter().for_each(|id| self.note(&account, hour, id));
        }
        for (id, parts) in other.parts {
            self.parts.entry(id).or_default().extend(parts);
        }
    }

    /// Replaces all that one account's hour said. Returns the ids whose joined finding may have changed, sorted; one
    /// that no longer stands has nothing left to join.
    pub fn replace_hour(&mut self, account: &str, hour: Hour, findings: Vec<Finding>) -> Vec<String> {
        let mut touched = self.hours.remove(&(account.to_owned(), hour)).unwrap_or_default();
        for id in &touched {
            if let Some(parts) = self.parts.get_mut(id) {
                parts.remove(&hour);
                if parts.is_empty() {
                    self.parts.remove(id);
                }
            }
        }
        for finding in findings {
            touched.push(finding.finding_id.clone());
            self.add(finding);
        }
        touched.sort();
        touched.dedup();
        touched
    }

    /// [`Self::replace_hour`] for the last time: this hour is sealed, and so is every one before it.
    pub fn seal_hour(&mut self, account: &str, hour: Hour, findings: Vec<Finding>) {
        for id in self.replace_hour(account, hour, findings) {
            let Some(parts) = self.parts.get_mut(&id) else { continue };
            let loudest = loudest(parts.range(..=hour)).map(|p| p.0);
            parts.range_mut(..=hour).filter(|(at, _)| Some(**at) != loudest).for_each(|(_, part)| part.finding = None);
        }
    }

    /// The joined finding of an id, if it stands.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Finding> {
        self.parts.get(id).and_then(join)
    }

    /// All findings that stand, joined, by id.
    pub fn standing(&self) -> impl Iterator<Item = Finding> + '_ {
        self.parts.values().filter_map(join)
    }

    /// [`Self::standing`] of what nobody asks for again.
    #[must_use]
    pub fn into_standing(self) -> Vec<Finding> {
        self.parts
            .into_values()
            .filter_map(|mut parts| {
                let joined = Joined::of(&parts)?;
                let finding = parts.get_mut(&joined.loudest)?.finding.take()?;
                Some(joined.said_by(*finding))
            })
            .collect()
    }

    /// Number of findings that stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Nothing stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Forgets the days before `day`: nothing can be added to them any more.
    pub fn forget_before(&mut self, day: Day) {
        let first = day.first_hour();
        self.hours.retain(|(_, hour), _| *hour >= first);
        self.parts.retain(|_, parts| {
            parts.retain(|hour, _| *hour >= first);
            !parts.is_empty()
        });
    }
}

/// The strongest hour speaks; ties: the earliest.
fn loudest<'p>(parts: impl Iterator<Item = (&'p Hour, &'p Part)>) -> Option<(Hour, &'p Part)> {
    let rank = |part: &Part| (part.severity, part.score_milli);
    parts.max_by(|a, b| rank(a.1).cmp(&rank(b.1)).then_with(|| b.0.cmp(a.0))).map(|(hour, part)| (*hour, part))
}

fn join(parts: &BTreeMap<Hour, Part>) -> Option<Finding> {
    let joined = Joined::of(parts)?;
    let finding = parts.get(&joined.loudest)?.finding.as_deref()?.clone();
    Some(joined.said_by(finding))
}

/// Hours joined: counters are summed, the span is the whole, evidence the earliest, and who may have done it is whoever may have
/// in one of them.
struct Joined {
    loudest: Hour,
    hours: usize,
    sum: Part,
    /// Names of candidates that the loudest hour has not.
    others: Vec<String>,
    /// The loudest hour has candidates.
    named: bool,
    /// The loudest hour's name is proven, and another hour's is not.
    unproven: bool,
}

impl Joined {
    fn of(parts: &BTreeMap<Hour, Part>) -> Option<Self> {
        let (loudest, speaker) = loudest(parts.iter())?;
        let mut sum = Part {
            attribution: speaker.attribution.clone(),
            candidates: speaker.candidates.clone(),
            evidence: Vec::new(),
            finding: None,
            ..*speaker
        };
        if parts.len() == 1 {
            sum.evidence.clone_from(&speaker.evidence);
            return Some(Self { loudest, hours: 1, sum, others: Vec::new(), named: false, unproven: false });
        }
        let (mut others, mut unproven) = (Vec::new(), false);
        let alike = |part: &Part| {
            let arns = |part: &'_ Part| part.candidates.iter().map(|c| c.arn.clone()).collect::<BTreeSet<_>>();
            part.attribution == speaker.attribution && (part.candidates == speaker.candidates || arns(part) == arns(speaker))
        };
        if !parts.values().all(alike) {
            // The loudest first, so that what it says of its own candidates stays.
            let answers = std::iter::once(speaker).chain(parts.iter().filter(|(hour, _)| **hour != loudest).map(|(_, part)| part));
            let exact = Attribution::Exact.as_str();
            let (kind, candidates) = union(answers.map(|part| (part.attribution == exact, part.candidates.as_slice())));
            if let Some(kind) = kind {
                kind.as_str().clone_into(&mut sum.attribution);
            }
            sum.candidates = candidates;
            unproven = speaker.attribution == exact && kind != Some(Attribution::Exact);
            let news = sum.candidates.iter().filter(|c| speaker.candidates.iter().all(|known| known.arn != c.arn));
            others = news.map(|c| short_name(&c.arn).to_owned()).collect();
        }
        (sum.count, sum.bytes_out, sum.bytes_in) = (0, 0, 0);
        for part in parts.values() {
            sum.window = (sum.window.0.min(part.window.0), sum.window.1.max(part.window.1));
            sum.seen = (sum.seen.0.min(part.seen.0), sum.seen.1.max(part.seen.1));
            sum.count = sum.count.saturating_add(part.count);
            sum.bytes_out = sum.bytes_out.saturating_add(part.bytes_out);
            sum.bytes_in = sum.bytes_in.saturating_add(part.bytes_in);
            sum.coverage_milli = sum.coverage_milli.min(part.coverage_milli);
            for evidence in &part.evidence {
                // Hours come in order and each brings its own earliest first.
                if sum.evidence.len() < 10 && !sum.evidence.contains(evidence) {
                    sum.evidence.push(evidence.clone());
                }
            }
        }
        Some(Self { loudest, hours: parts.len(), sum, others, named: !speaker.candidates.is_empty(), unproven })
    }

    /// The finding of the loudest hour, with what all of them say.
    fn said_by(self, mut finding: Finding) -> Finding {
        (finding.window_start, finding.window_end) = self.sum.window;
        (finding.first_seen, finding.last_seen) = self.sum.seen;
        (finding.count, finding.bytes_out, finding.bytes_in) = (self.sum.count, self.sum.bytes_out, self.sum.bytes_in);
        finding.coverage_milli = self.sum.coverage_milli;
        (finding.attribution, finding.candidates) = (self.sum.attribution, self.sum.candidates);
        finding.evidence = self.sum.evidence;
        if self.hours > 1 {
            let noted = format!("\nSeen in {} hours of that day; the numbers above are those of the hour that spoke loudest.", self.hours);
            finding.explanation.push_str(&noted);
        }
        if !self.others.is_empty() {
            let names = crate::text::listed(self.others.iter().map(String::as_str), 6);
            // The loudest hour's interface may be known to have been no function's.
            let also = if self.named { "also " } else { "" };
            finding.explanation.push_str(&format!(" In other hours it may {also}have been {names}."));
        } else if self.unproven {
            finding.explanation.push_str(" Not every hour proves that it was this function.");
        }
        finding
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(id: u8, hour: i32, severity: u8, score: i64) -> Finding {
        Finding {
            finding_id: format!("id{id}"),
            account_id: "1".into(),
            severity: if severity == 0 { Severity::Low } else { Severity::High },
            score_milli: score,
            title: format!("{hour} {score}"),
            window_start: Hour(hour).start(),
            window_end: Hour(hour).end(),
            first_seen: Hour(hour).start().plus(score),
            last_seen: Hour(hour).end(),
            count: score,
            evidence: (0..6).map(|n| EvidenceRef { position: hour as u64 * 100 + n, ..EvidenceRef::default() }).collect(),
            ..Finding::default()
        }
    }

    #[test]
    fn ids_tell_their_parts_apart() {
        let id = |d: &str, a: &str, e: &str, s: &str, day| finding_id(d, a, e, s, Day(day));
        let base = id("scan", "1", "ab", "c", 7);
        assert_eq!((base.len(), base.clone()), (32, id("scan", "1", "ab", "c", 7)));
        for other in
            [id("scan", "1", "a", "bc", 7), id("scan", "1", "ab", "c", 8), id("scan", "2", "ab", "c", 7), id("new_peer", "1", "ab", "c", 7)]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_strongest_hour_speaks_and_counters_are_summed() {
        let mut incidents = Incidents::default();
        for (hour, severity, score) in [(26, 0, 9), (24, 1, 5), (25, 1, 5)] {
            incidents.add(part(1, hour, severity, score));
        }
        let joined = incidents.get("id1").unwrap();
        assert_eq!((joined.severity, joined.title.as_str(), joined.count), (Severity::High, "24 5", 19));
        assert_eq!((joined.window_start, joined.window_end), (Hour(24).start(), Hour(26).end()));
        assert_eq!(
            joined.evidence.iter().map(|e| e.position).collect::<Vec<_>>(),
            [2400, 2401, 2402, 2403, 2404, 2405, 2500, 2501, 2502, 2503]
        );
        assert_eq!(incidents.replace_hour("1", Hour(24), Vec::new()), ["id1"]);
        assert_eq!(incidents.get("id1").unwrap().title, "25 5");
        incidents.replace_hour("1", Hour(25), Vec::new());
        incidents.replace_hour("1", Hour(26), Vec::new());
        assert!(incidents.is_empty() && incidents.hours.is_empty());
    }

    #[test]
    fn whoever_may_have_done_it_in_one_hour_is_a_candidate() {
        let said = |hour: i32, score: i64, attribution: &str, names: &[&str]| {
            let each =
                |name: &&str| Candidate { arn: format!("f:{name}"), weight_milli: 1000 / names.len() as u32, evidence: hour.to_string() };
            Finding { attribution: attribution.into(), candidates: names.iter().map(each).collect(), ..part(1, hour, 1, score) }
        };
        let joined = |hours: Vec<Finding>| {
            let mut incidents = Incidents::default();
            for finding in hours {
                incidents.seal_hour("1", finding.window_start.hour(), vec![finding]);
            }
            let finding = incidents.get("id1").unwrap();
            let names: Vec<_> = finding.candidates.iter().map(|c| format!("{} {} {}", &c.arn[2..], c.weight_milli, c.evidence)).collect();
            let told = finding.explanation.split_once("loudest.").map(|(_, told)| told.trim().to_owned());
            (finding.attribution, names.join(", "), told.unwrap_or_default())
        };
        let of = |attribution: &str, names: &str, told: &str| (attribution.to_owned(), names.to_owned(), told.to_owned());
        assert_eq!(
            joined(vec![said(24, 1, "candidates", &["a", "b", "c", "d"]), said(25, 9, "candidates", &["a", "b"])]),
            of("candidates", "a 375 25, b 375 25, c 125 24, d 125 24", "In other hours it may also have been c and d.")
        );
        // Proven twice, but not of one function.
        assert_eq!(
            joined(vec![said(24, 9, "exact", &["a"]), said(25, 1, "exact", &["b"])]),
            of("candidates", "a 500 24, b 500 25", "In other hours it may also have been b.")
        );
        let unproven = "Not every hour proves that it was this function.";
        assert_eq!(joined(vec![said(24, 9, "exact", &["a"]), said(25, 1, "unknown", &[])]), of("candidates", "a 1000 24", unproven));
        assert_eq!(
            joined(vec![said(24, 9, "other", &[]), said(25, 1, "exact", &["a"])]),
            of("candidates", "a 1000 25", "In other hours it may have been a.")
        );
        assert_eq!(joined(vec![said(24, 1, "exact", &["a"]), said(25, 9, "exact", &["a"])]), of("exact", "a 1000 25", ""));
        assert_eq!(joined(vec![said(24, 1, "unknown", &[]), said(25, 9, "unknown", &[])]), of("unknown", "", ""));
    }

    #[test]
    fn what_is_taken_out_is_what_stands() {
        let mut incidents = Incidents::default();
        for one in [part(1, 5, 0, 3), part(1, 6, 1, 2), part(2, 6, 0, 9)] {
            incidents.add(one);
        }
        let standing: Vec<Finding> = incidents.standing().collect();
        assert_eq!(standing.len(), 2);
        assert_eq!(incidents.into_standing(), standing);
    }

    proptest! {
        #[test]
        fn looks_in_any_order_end_alike(
            looks in prop::collection::vec((24i32..30, prop::collection::vec((0u8..3, 0u8..2, 0i64..5), 0..4)), 1..12),
            turn in any::<prop::sample::Index>(),
            seal in 0i32..7,
        ) {
            // The last look at each hour counts, whatever was said before and in whatever order the hours come.
            let last: BTreeMap<i32, Vec<Finding>> = looks.iter().map(|(hour, said)| {
                let findings: BTreeMap<u8, Finding> = said.iter().map(|(id, severity, score)| (*id, part(*id, *hour, *severity, *score))).collect();
                (*hour, findings.into_values().collect())
            }).collect();
            let mut live = Incidents::default();
            for (hour, said) in &looks {
                live.replace_hour("1", Hour(*hour), said.iter().map(|(id, severity, score)| part(*id, *hour, *severity, *score)).collect());
            }
            for (hour, findings) in &last {
                live.replace_hour("1", Hour(*hour), findings.clone());
            }
            let mut hours: Vec<_> = last.clone().into_iter().collect();
            let by = turn.index(hours.len());
            hours.rotate_left(by);
            let mut once = Incidents::default();
            hours.into_iter().flat_map(|h| h.1).for_each(|f| once.add(f));
            prop_assert_eq!(live.standing().collect::<Vec<_>>(), once.standing().collect::<Vec<_>>());
            let bytes = postcard::to_stdvec(&once).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<Incidents>(&bytes).unwrap(), &once);
            // Sealed up to some hour, and looked at again after it.
            let mut sealed = Incidents::default();
            for (hour, findings) in last {
                if hour < 24 + seal {
                    sealed.seal_hour("1", Hour(hour), findings);
                } else {
                    sealed.replace_hour("1", Hour(hour), vec![part(0, hour, 1, 9)]);
                    sealed.replace_hour("1", Hour(hour), findings);
                }
            }
            let kept = sealed.parts.values().map(|parts| parts.range(..Hour(24 + seal)).filter(|p| p.1.finding.is_some()).count());
            prop_assert!(kept.max().unwrap_or_default() <= 1);
            let sealed: Incidents = postcard::from_bytes(&postcard::to_stdvec(&sealed).unwrap()).unwrap();
            prop_assert_eq!(sealed.standing().collect::<Vec<_>>(), once.standing().collect::<Vec<_>>());
            prop_assert_eq!(sealed.into_standing(), once.into_standing());
        }
    }
}
