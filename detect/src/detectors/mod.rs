//! The detectors: each one question about one entity and one hour, one file each.
//!
//! To add one: a file here, a line in [`crate::judge`], a case in its tests, a call of [`check_laws`] there.

use flowtrail_enrich::{Attribution, Candidate};
use flowtrail_ingest::Hour;
use serde::Serialize;

use crate::entity::{EntityId, EntityKind};
use crate::finding::{Finding, Severity};
use crate::fleet::{FleetDelta, FleetView};
use crate::judge::JudgeConfig;
use crate::surprise::{HIGH, LOW, MEDIUM, SIGNAL};
use crate::text;
use crate::window::NetworkHour;

pub mod change;
pub mod new_api_call;
pub mod new_peer;
pub mod privilege_escalation;
pub mod scan;
pub mod swept;
pub mod threat_list;

#[cfg(test)]
mod tests;

/// What a detector may read beside its baseline and the entity's hour.
pub struct Context<'a> {
    /// The user's settings.
    pub config: &'a JudgeConfig,
    /// The fleet as of two days ago.
    pub fleet: &'a FleetView<'a>,
    /// Account.
    pub account: &'a str,
    /// The hour.
    pub hour: Hour,
    /// First hour learned of the account.
    pub since: Option<Hour>,
    /// Peers that many entities fail against in this hour, sorted: an outage, nobody's scan.
    pub outage: &'a [flowtrail_ingest::Ip],
}

/// A question asked of one entity about one hour.
///
/// # Laws
/// - `judge` and `learn` read only their arguments: no clock, no other entity, no earlier verdict.
/// - Judging never changes the baseline. Learning happens once an hour, at the seal, in the order of hours.
/// - Equal hours give equal findings: an hour is a merged set, so nothing may depend on how it was put together.
/// - A baseline that went through its encoding judges and learns as before.
///
/// Detectors of one kind of entity share its profile as baseline; each learns only its own part of it.
pub trait Detector {
    /// As in the `detector` column.
    const NAME: &'static str;
    /// Version of the formula; goes up when equal hours may be judged otherwise than before.
    const VERSION: i32;
    /// What is remembered of the hours before.
    type Baseline: Clone + Default + PartialEq;
    /// The entity's hour.
    type Hour<'h>;

    /// What this hour says.
    fn judge(&self, baseline: &Self::Baseline, hour: &Self::Hour<'_>, context: &Context<'_>) -> Vec<Finding>;
    /// Takes the hour into the baseline and, where it is new to the fleet, into `delta`.
    fn learn(&self, baseline: &mut Self::Baseline, hour: &Self::Hour<'_>, context: &Context<'_>, delta: &mut FleetDelta);
}

/// A finding of `D` with everything that does not depend on the question filled in.
#[must_use]
pub fn draft<D: Detector>(context: &Context<'_>, entity: &EntityId, name: &str, region: Option<&str>) -> Finding {
    Finding {
        detector: D::NAME.to_owned(),
        detector_version: D::VERSION,
        account_id: context.account.to_owned(),
        region: region.map(str::to_owned),
        entity_kind: entity.kind.as_str().to_owned(),
        entity_id: entity.id.to_string(),
        entity_name: name.to_owned(),
        attribution: Attribution::Unknown.as_str().to_owned(),
        window_start: context.hour.start(),
        window_end: context.hour.end(),
        learned: "{}".to_owned(),
        parameters: parameters(context),
        coverage_milli: 1000,
        ..Finding::default()
    }
}

/// The thresholds that held, as every finding bears them.
#[derive(Serialize)]
struct Parameters {
    sensitivity: i8,
    signal: f64,
    low: f64,
    medium: f64,
    high: f64,
}

fn parameters(context: &Context<'_>) -> String {
    let sensitivity = context.config.sensitivity;
    let shift = f64::from(sensitivity.clamp(-1, 1));
    let of = Parameters { sensitivity, signal: SIGNAL - shift, low: LOW - shift, medium: MEDIUM - shift, high: HIGH - shift };
    serde_json::to_string(&of).unwrap_or_default()
}

/// Says who may have done it, from the interfaces that it was seen at.
pub fn attribute(finding: &mut Finding, network: &NetworkHour<'_>, enis: impl IntoIterator<Item = u32>) {
    let (attribution, candidates) = network.attribution(enis);
    finding.attribution = attribution.as_str().to_owned();
    finding.candidates = candidates;
}

/// "Who": the sentence on candidates.
#[must_use]
pub fn who(finding: &Finding) -> String {
    let name = |c: &Candidate| crate::entity::short_name(&c.arn).to_owned();
    match (finding.attribution.as_str(), finding.candidates.as_slice()) {
        ("exact", [one]) => format!("Who: function {}, proven: {}.", name(one), one.evidence),
        (_, []) if finding.entity_kind == EntityKind::Interface.as_str() => match finding.attribution.as_str() {
            "other" => format!("Who: {}, no function.", finding.entity_name),
            "unheld" => "Who: nobody is known to have held this interface then.".to_owned(),
            _ => format!("Who: not known; no snapshot or event names the holder of {}.", finding.entity_id),
        },
        (_, []) => "Who: not known; no function with this configuration is known.".to_owned(),
        (_, [one]) => format!("Who: most likely function {} ({}).", name(one), one.evidence),
        (_, several) => {
            let names: Vec<String> = several.iter().map(|c| format!("{} ({} %)", name(c), c.weight_milli / 10)).collect();
            format!("Who: one of {}: they share these interfaces.", text::listed(names.iter().map(String::as_str), 6))
        }
    }
}

/// "Where": the sentence on raw records.
#[must_use]
pub fn pointers(finding: &Finding) -> String {
    match finding.evidence.first() {
        Some(first) => {
            let more = finding.evidence.len() - 1;
            let rest = if more > 0 { format!(" and {}", text::count(more as u64, "further record")) } else { String::new() };
            // Where it was read differs between copies of the same history: an event has its id wherever it lies, an object
            // its key from AWSLogs/ on, or its name.
            if let Some(id) = &first.event_id {
                return format!("Records: event {id}{rest}.");
            }
            let key = first.key.find("AWSLogs/").map_or_else(|| first.key.rsplit('/').next().unwrap_or_default(), |at| &first.key[at..]);
            format!("Records: {key} line {}{rest}.", first.position)
        }
        None => "Records: none could be pointed to.".to_owned(),
    }
}

/// "Coverage": the share of the expected input that was there.
#[must_use]
pub fn coverage(finding: &Finding) -> String {
    match finding.coverage_milli {
        // Holes that AWS itself reports (SKIPDATA) are counted by flow log, not by entity: they are not known here.
        1000.. => "Coverage: what AWS left out of this hour, if anything, is counted in `coverage`.".to_owned(),
        part => format!("Coverage: {} % of the expected input was there.", part / 10),
    }
}

/// The end of every explanation: coverage, who, pointers.
#[must_use]
pub fn closing(finding: &Finding) -> String {
    format!("{}\n{}\n{}", coverage(finding), who(finding), pointers(finding))
}

/// The lowest surprise of a level, for findings that a rule sets.
#[must_use]
pub fn surprise_of(severity: Severity) -> f64 {
    match severity {
        Severity::Informational => SIGNAL,
        Severity::Low => LOW,
        Severity::Medium => MEDIUM,
        Severity::High => HIGH,
        Severity::Critical => 10.0,
    }
}

/// Checks the laws of a detector on a sequence of hours: judging changes nothing and repeats itself, equal sequences
/// make equal baselines, and a baseline survives its encoding.
#[cfg(test)]
pub(crate) fn check_laws<D: Detector>(detector: &D, hours: &[D::Hour<'_>], contexts: &[Context<'_>])
where
    D::Baseline: serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let (mut straight, mut encoded) = (D::Baseline::default(), D::Baseline::default());
    let (mut delta, mut again) = (FleetDelta::default(), FleetDelta::default());
    for (hour, context) in hours.iter().zip(contexts) {
        let before = straight.clone();
        let findings = detector.judge(&straight, hour, context);
        assert_eq!(straight, before, "judging changed the baseline");
        assert_eq!(findings, detector.judge(&encoded, hour, context), "an equal baseline judged otherwise");
        detector.learn(&mut straight, hour, context, &mut delta);
        detector.learn(&mut encoded, hour, context, &mut again);
        #[allow(clippy::unwrap_used)]
        let decoded = postcard::from_bytes(&postcard::to_stdvec(&encoded).unwrap()).unwrap();
        encoded = decoded;
        assert_eq!(straight, encoded, "a baseline changed in its encoding");
    }
    assert_eq!(delta, again, "equal hours told the fleet different things");
}
