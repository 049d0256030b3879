//! The judge of one lane: profiles of every entity, the fleet's tables, the day's findings.
//!
//! `judge = pure(profiles through the hour before, merged hour, facts)`. The drivers only decide when to call it.

use flowtrail_enrich::{AddressBook, Timelines};
use flowtrail_ingest::{EventTime, Hour, Ip};
use serde::{Deserialize, Serialize};

use crate::contact::Outcome;
use crate::detectors::change::{Change, changes};
use crate::detectors::new_api_call::{FunctionLook, FunctionProfile, NewApiCall};
use crate::detectors::new_peer::{NetworkLook, NetworkProfile, NewPeer};
use crate::detectors::privilege_escalation::{PrincipalLook, PrincipalProfile, PrivilegeEscalation};
use crate::detectors::scan::Scan;
use crate::detectors::swept::swept;
use crate::detectors::threat_list::ThreatList;
use crate::detectors::{Context, Detector};
use crate::entity::{EntityId, EntityKind, short_name};
use crate::finding::{Finding, Observation, Severity};
use crate::fleet::FleetView;
pub use crate::fleet::{Fleet, FleetDelta};
use crate::hour::AccountHour;
use crate::incident::finding_id;
pub use crate::profile::AccountProfiles;
use crate::profile::Behaviour;
use crate::suppression::muted_by;
use crate::text::{clean, is_clean};
use crate::tries::Tries;
use crate::window::{NetworkHour, Window};

/// `[[suppression]]`: mutes the notice, keeps the signal; must end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// Detector, or `*`.
    pub detector: String,
    /// Pattern over entity ids and candidates' ARNs, `*` matches any run of characters.
    pub entity: String,
    /// First moment at which it no longer mutes, by the finding's `first_seen`.
    pub until: EventTime,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
}

/// What changes findings and is the user's to set. Written into every commit by its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeConfig {
    /// -1, 0 or +1: shifts all thresholds (detectors.md 0.2).
    pub sensitivity: i8,
    /// Mutes.
    pub suppressions: Vec<Suppression>,
}

/// Everything outside the hour that judging may ask.
pub struct Facts<'a> {
    /// Who held what.
    pub timelines: &'a Timelines,
    /// Names of addresses, lists.
    pub book: &'a AddressBook,
}

/// What judging one account-hour gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Findings of this hour alone; [`crate::incident`] joins those of one day.
    pub findings: Vec<Finding>,
    /// Observations.
    pub observations: Vec<Observation>,
    /// Flow records by attribution of their own end: exact, candidates, other, unheld, unknown; of all and of those marked new.
    pub attribution: [u64; 5],
    /// … of those that are new in this call.
    pub attribution_new: [u64; 5],
}

/// Per detector with a warm-up: how many entities it knows and how many are past it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learning {
    /// `new_peer`, …
    pub detector: String,
    /// Entities known.
    pub entities: u64,
    /// Entities past warm-up.
    pub ready: u64,
    /// Oldest entity's day of warm-up, and the days it takes, for the sentence "day 1 of 14".
    pub day: u32,
    /// Days of warm-up.
    pub of: u32,
}

/// Judges one hour of one account against its profiles. Changes nothing.
#[must_use]
pub fn judge(config: &JudgeConfig, profiles: &AccountProfiles, fleet: &Fleet, hour: &AccountHour, facts: &Facts<'_>) -> Verdict {
    judge_window(config, profiles, fleet, &Window::build(hour, facts))
}

/// Learns one hour: once, at the seal, hour after hour. `fleet` is the one that the hour was judged with.
pub fn learn(
    config: &JudgeConfig,
    profiles: &mut AccountProfiles,
    fleet: &Fleet,
    delta: &mut FleetDelta,
    hour: &AccountHour,
    facts: &Facts<'_>,
) {
    learn_window(config, profiles, fleet, delta, &Window::build(hour, facts));
}

/// [`judge`] and then [`learn`], with the window built once: the way of `replay`, and of the seal.
#[must_use]
pub fn judge_and_learn(
    config: &JudgeConfig,
    profiles: &mut AccountProfiles,
    fleet: &Fleet,
    delta: &mut FleetDelta,
    hour: &AccountHour,
    facts: &Facts<'_>,
) -> Verdict {
    judge_and_learn_window(config, profiles, fleet, delta, &Window::build(hour, facts))
}

/// [`judge`] for a window that was built already.
#[must_use]
pub fn judge_window(config: &JudgeConfig, profiles: &AccountProfiles, fleet: &Fleet, window: &Window<'_>) -> Verdict {
    let hour = Judged::new(window);
    let view = fleet.view(window.hour.hour.day());
    let context = hour.context(config, profiles, &view);
    let mut findings = Vec::new();
    for network in &window.networks {
        findings.extend(judge_network(profiles, &hour.look(profiles, network), &context));
    }
    hour.verdict(profiles, findings, &context)
}

/// [`learn`] for a window that was built already.
pub fn learn_window(config: &JudgeConfig, profiles: &mut AccountProfiles, fleet: &Fleet, delta: &mut FleetDelta, window: &Window<'_>) {
    let hour = Judged::new(window);
    let view = fleet.view(window.hour.hour.day());
    let context = hour.context(config, profiles, &view);
    let looks: Vec<NetworkLook<'_, '_>> = window.networks.iter().map(|network| hour.look(profiles, network)).collect();
    profiles.clean(context.hour, delta);
    looks.iter().for_each(|look| learn_network(profiles, look, &context, delta));
    hour.learn_others(profiles, &context, delta);
}

/// [`judge_and_learn`] for a window that was built already: each peer is looked up in its profile once.
#[must_use]
pub fn judge_and_learn_window(
    config: &JudgeConfig,
    profiles: &mut AccountProfiles,
    fleet: &Fleet,
    delta: &mut FleetDelta,
    window: &Window<'_>,
) -> Verdict {
    let hour = Judged::new(window);
    let view = fleet.view(window.hour.hour.day());
    let context = hour.context(config, profiles, &view);
    let mut findings = Vec::new();
    // What was looked at is still in the processor's caches: so each is learned before the next one is looked at. Only when
    // profiles are about to be forgotten, all have to be judged before.
    let mut later = Vec::new();
    let cleans = profiles.is_to_clean(context.hour);
    for network in &window.networks {
        let look = hour.look(profiles, network);
        findings.extend(judge_network(profiles, &look, &context));
        if cleans {
            later.push(look);
        } else {
            learn_network(profiles, &look, &context, delta);
        }
    }
    let verdict = hour.verdict(profiles, findings, &context);
    profiles.clean(context.hour, delta);
    later.iter().for_each(|look| learn_network(profiles, look, &context, delta));
    hour.learn_others(profiles, &context, delta);
    verdict
}

/// The function was changed within a day, or in this hour.
fn deployed(profiles: &AccountProfiles, changes: &[Change<'_>], function: &str, hour: Hour) -> bool {
    profiles.deployed(function, hour) || changes.iter().any(|c| c.is_deploy() && c.function == function)
}

fn judge_network(profiles: &AccountProfiles, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Vec<Finding> {
    let stranger;
    let profile = match profiles.network(&look.network.id) {
        Some((_, profile)) => profile,
        None => {
            stranger = NetworkProfile::default();
            &stranger
        }
    };
    let mut findings = NewPeer.judge(profile, look, context);
    findings.extend(ThreatList.judge(profile, look, context));
    findings.extend(Scan.judge(profile, look, context));
    findings
}

fn learn_network(profiles: &mut AccountProfiles, look: &NetworkLook<'_, '_>, context: &Context<'_>, delta: &mut FleetDelta) {
    let network = look.network;
    if network.outbound.is_empty() && network.inbound.is_empty() {
        return;
    }
    let entry = profiles.entry(&network.id, &network.name, network.region.as_deref(), delta);
    if let Behaviour::Network(profile) = &mut entry.behaviour {
        // Scan asks which contacts are first ones, so it learns before the peers are known.
        Scan.learn(profile, look, context, delta);
        ThreatList.learn(profile, look, context, delta);
        NewPeer.learn(profile, look, context, delta);
        entry.age = profile.age;
    }
}

/// What is worked out once for all of a window's entities.
struct Judged<'w, 'a> {
    window: &'w Window<'a>,
    changes: Vec<Change<'w>>,
    outage: Vec<Ip>,
}

impl<'w, 'a> Judged<'w, 'a> {
    fn new(window: &'w Window<'a>) -> Self {
        Self { window, changes: changes(window.hour), outage: outage_peers(window) }
    }

    fn context<'c>(&'c self, config: &'c JudgeConfig, profiles: &AccountProfiles, fleet: &'c FleetView<'c>) -> Context<'c> {
        let hour = self.window.hour;
        Context { config, fleet, account: &hour.account, hour: hour.hour, since: profiles.since, outage: &self.outage }
    }

    /// A network entity looked at with its profile of the hours before.
    fn look(&self, profiles: &AccountProfiles, network: &'w NetworkHour<'a>) -> NetworkLook<'w, 'a> {
        let changed = |function: &str| deployed(profiles, &self.changes, function, self.window.hour.hour);
        let deployed = network.enis.iter().any(|e| e.owner.candidates.iter().any(|c| changed(&c.arn)));
        match profiles.network(&network.id) {
            Some((_, profile)) => NetworkLook::new(network, profile, deployed),
            None => NetworkLook::new(network, &NetworkProfile::default(), deployed),
        }
    }

    /// The verdict, with the findings of the network entities.
    fn verdict(&self, profiles: &AccountProfiles, findings: Vec<Finding>, context: &Context<'_>) -> Verdict {
        let (window, hour, config) = (self.window, self.window.hour, context.config);
        let mut verdict =
            Verdict { findings, attribution: window.attribution, attribution_new: window.attribution_new, ..Verdict::default() };
        verdict.findings.extend(swept(window, context));
        let silent = FunctionProfile::default();
        for function in &window.functions {
            let known = profiles.function(&EntityId::new(EntityKind::Function, function.arn));
            let look = FunctionLook { hour, function, deployed: deployed(profiles, &self.changes, function.arn, hour.hour) };
            verdict.findings.extend(NewApiCall.judge(known.map_or(&silent, |p| p.1), &look, context));
        }
        let nobody = PrincipalProfile::default();
        for principal in &window.principals {
            let known = profiles.principal(&EntityId::new(EntityKind::Principal, principal.principal));
            let look = PrincipalLook { hour, principal };
            verdict.findings.extend(PrivilegeEscalation.judge(known.map_or(&nobody, |p| p.1), &look, context));
        }
        for finding in &mut verdict.findings {
            finish(finding, config);
        }
        verdict.observations = self.changes.iter().map(|c| c.observation(hour)).collect();
        // What a statistical detector calls informational is a signal: kept in the entity's timeline, no finding.
        let is_signal =
            |f: &Finding| f.severity == Severity::Informational && matches!(f.detector.as_str(), NewPeer::NAME | NewApiCall::NAME);
        verdict.observations.extend(verdict.findings.iter().filter(|f| is_signal(f)).map(signal));
        verdict.findings.retain(|f| !is_signal(f));
        verdict.findings.sort_by(|a, b| a.finding_id.cmp(&b.finding_id));
        verdict.observations.extend(outage_observation(window, &self.outage));
        verdict
    }

    /// Learns what is no network entity.
    fn learn_others(&self, profiles: &mut AccountProfiles, context: &Context<'_>, delta: &mut FleetDelta) {
        let (window, hour) = (self.window, self.window.hour);
        for function in &window.functions {
            let deployed = deployed(profiles, &self.changes, function.arn, hour.hour);
            let id = EntityId::new(EntityKind::Function, function.arn);
            let entry = profiles.entry(&id, short_name(function.arn), function.arn.split(':').nth(3), delta);
            if let Behaviour::Function(profile) = &mut entry.behaviour {
                NewApiCall.learn(profile, &FunctionLook { hour, function, deployed }, context, delta);
                entry.age = profile.age;
            }
        }
        for principal in &window.principals {
            let id = EntityId::new(EntityKind::Principal, principal.principal);
            let entry = profiles.entry(&id, short_name(principal.principal), None, delta);
            if let Behaviour::Principal(profile) = &mut entry.behaviour {
                PrivilegeEscalation.learn(profile, &PrincipalLook { hour, principal }, context, delta);
                entry.age.learn(hour.hour, principal.rows.len() as u64);
            }
        }
        for change in self.changes.iter().filter(|c| c.is_deploy()) {
            profiles.deploys.insert(change.function.into(), hour.hour);
        }
    }
}

/// A signal as it is kept.
fn signal(finding: &Finding) -> Observation {
    Observation {
        time: finding.first_seen,
        account_id: finding.account_id.clone(),
        region: finding.region.clone(),
        entity_kind: finding.entity_kind.clone(),
        entity_id: finding.entity_id.clone(),
        entity_name: finding.entity_name.clone(),
        kind: "signal".into(),
        subject_kind: finding.subject_kind.clone(),
        subject: finding.subject.clone(),
        subject_name: finding.title.clone(),
        score_milli: finding.score_milli,
        evidence: finding.evidence.clone(),
    }
}

/// What holds for every finding: its id, text that may be shown, and whether its notice is muted.
fn finish(finding: &mut Finding, config: &JudgeConfig) {
    finding.finding_id =
        finding_id(&finding.detector, &finding.account_id, &finding.entity_id, &finding.subject, finding.window_start.day());
    // Subjects and entities are named in logs by whoever calls; what cannot be shown is escaped, after the id is made.
    for text in [
        &mut finding.subject,
        &mut finding.entity_id,
        &mut finding.title,
        &mut finding.explanation,
        &mut finding.next_steps,
        &mut finding.entity_name,
        &mut finding.subject_name,
    ] {
        if !is_clean(text) {
            *text = clean(text);
        }
    }
    if finding.title.contains('\n') {
        finding.title = finding.title.replace('\n', " ");
    }
    finding.suppressed_by = muted_by(finding, &config.suppressions);
}

/// Peers that at least this many entities fail against, while nobody reaches them, are down.
const OUTAGE_ENTITIES: usize = 3;
/// More such peers than this are no outage but somebody's list of targets.
const OUTAGE_PEERS: usize = 10;

/// Peers that several entities failed to reach in this hour and none did: an outage, sorted.
fn outage_peers(window: &Window<'_>) -> Vec<Ip> {
    let mut failing: Vec<Ip> = Vec::new();
    let mut tries = Tries::default();
    for network in &window.networks {
        for peer in network.peers.iter().filter(|p| p.outcome == Outcome::Failed) {
            tries.add(peer.ip);
            failing.push(peer.ip);
        }
    }
    // Nearly all fail for one alone.
    failing.retain(|ip| tries.at_most(*ip) >= OUTAGE_ENTITIES);
    failing.sort_unstable();
    let mut down: Vec<Ip> = failing.chunk_by(|a, b| a == b).filter(|c| c.len() >= OUTAGE_ENTITIES).map(|c| c[0]).collect();
    let reached = |ip: &Ip| {
        let of = |n: &NetworkHour<'_>| n.peers.binary_search_by_key(ip, |p| p.ip).is_ok_and(|at| n.peers[at].outcome != Outcome::Failed);
        window.networks.iter().any(of)
    };
    down.retain(|ip| !reached(ip));
    if down.len() > OUTAGE_PEERS { Vec::new() } else { down }
}

fn outage_observation(window: &Window<'_>, outage: &[Ip]) -> Option<Observation> {
    let first = outage.first()?;
    let hour = window.hour;
    let at = |n: &NetworkHour<'_>| n.peers.binary_search_by_key(first, |p| p.ip).ok();
    let network = window.networks.iter().find(|n| at(n).is_some())?;
    let contacts = network.contacts(network.peers.get(at(network)?)?).to_vec();
    let entities = window.networks.iter().filter(|n| at(n).is_some()).count();
    let peers: Vec<String> = outage.iter().map(ToString::to_string).collect();
    Some(Observation {
        time: hour.hour.start(),
        account_id: hour.account.clone(),
        region: network.region.clone(),
        entity_kind: EntityKind::Account.as_str().into(),
        entity_id: hour.account.clone(),
        entity_name: hour.account.clone(),
        kind: "outage".into(),
        subject_kind: "peer".into(),
        subject: peers.join(", "),
        subject_name: format!("{entities} entities failed to reach {}", crate::text::count(peers.len() as u64, "peer")),
        score_milli: 0,
        evidence: network.evidence(&contacts),
    })
}
