//! Detector 13, privilege escalation: do a principal's calls, in event-time order within 24 h, form a known one?
//!
//! Rules, not statistics: no warm-up, and a pattern that is complete stays complete whatever else arrives.

use std::collections::BTreeMap;

use flowtrail_enrich::{Attribution, Candidate};
use flowtrail_ingest::{EventTime, Hour};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use crate::detectors::{Context, Detector, closing, draft, surprise_of};
use crate::entity::{EntityId, EntityKind, short_name};
use crate::escalation::StepKind;
use crate::finding::{EvidenceRef, Finding, Severity, Term};
use crate::fleet::FleetDelta;
use crate::hour::{AccountHour, ApiRow, NONE};
use crate::novelty::day16;
use crate::surprise::milli;
use crate::text;
use crate::window::{PrincipalHour, evidence_at, is_denied};

/// How far apart the steps of one escalation may lie.
const SPAN_SECS: i64 = 24 * 3600;
/// Steps of one hour that are looked at, by (rank, hash): a principal can make more than could be compared with each other.
const HOUR_STEPS_MAX: usize = 256;
/// Steps remembered of a principal, the latest.
const STEPS_MAX: usize = 64;
/// Functions remembered as deployed by a principal, by smallest hash.
const DEPLOYED_MAX: usize = 256;
/// A deployer that did the same so often in [`DONE_DAYS`] is told as information only.
const USUAL: u32 = 5;
const DONE_DAYS: u16 = 30;
/// Before an account is known this long, nobody can be called new to a function.
const ACCOUNT_DAYS: i32 = 7;

/// The profile of a principal: the baseline of detector 13.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PrincipalProfile {
    /// First halves of two-step patterns, of the last 24 h, by time.
    steps: Vec<Remembered>,
    /// (pattern, day, times), sorted.
    done: Vec<(u8, u16, u32)>,
    /// Functions it deployed: (hash of the ARN, last day), sorted.
    deployed: Vec<(u64, u16)>,
    /// First hour with a step.
    since: Option<Hour>,
}

/// A step of an earlier hour that a later one may complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Remembered {
    time: EventTime,
    step: String,
    target: String,
    detail: String,
    at: EvidenceRef,
}

/// A principal's hour.
pub struct PrincipalLook<'w, 'a> {
    /// The account-hour.
    pub hour: &'a AccountHour,
    /// Its steps.
    pub principal: &'w PrincipalHour<'a>,
}

/// The patterns, by their place in profiles.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pattern {
    AdminPolicy = 0,
    DefaultVersion = 1,
    AdminGroup = 2,
    Credentials = 3,
    TrustChanged = 4,
    BackdoorRole = 5,
    TrustTaken = 6,
    ForeignRole = 7,
    Door = 8,
    OpenUrl = 9,
    ForeignLayer = 10,
    OpenLayer = 11,
    PassRole = 12,
    Hijack = 13,
}

impl Pattern {
    /// What it is, after "which is".
    fn words(self) -> &'static str {
        match self {
            Self::AdminPolicy => "giving administrator rights",
            Self::DefaultVersion => "switching a policy to another version, which may give more rights than the current one",
            Self::AdminGroup => "putting a user into a group that is named for administrators",
            Self::Credentials => "making credentials for another user",
            Self::TrustChanged => "letting an outside account or anybody take the role",
            Self::BackdoorRole => "a backdoor role: outsiders may take it, and it was given rights",
            Self::TrustTaken => "changing who may take a role and then taking it",
            Self::ForeignRole => "a new role that an outside account may take",
            Self::Door => "letting anybody or an outside account use the function",
            Self::OpenUrl => "a public address for the function without authentication",
            Self::ForeignLayer => "running code of another account inside the function",
            Self::OpenLayer => "sharing a layer with anybody or an outside account",
            Self::PassRole => "handing a role to a new function and setting it off",
            Self::Hijack => "changing what runs in a function that it never deployed before, with that function's role",
        }
    }

    /// What it comes to, in a title.
    fn short(self) -> &'static str {
        match self {
            Self::AdminPolicy => "administrator rights",
            Self::DefaultVersion => "another version of a policy",
            Self::AdminGroup => "a group of administrators",
            Self::Credentials => "credentials for another user",
            Self::TrustChanged | Self::ForeignRole => "outsiders may take the role",
            Self::BackdoorRole => "a backdoor role",
            Self::TrustTaken => "trust changed and the role taken",
            Self::Door => "outsiders may use the function",
            Self::OpenUrl => "a public address without authentication",
            Self::ForeignLayer => "code of another account",
            Self::OpenLayer => "a layer shared with outsiders",
            Self::PassRole => "a role handed to a new function",
            Self::Hijack => "a function new to it",
        }
    }

    /// A part of `other`, which says it too.
    fn is_told_by(self, other: Self) -> bool {
        match other {
            Self::BackdoorRole => matches!(self, Self::ForeignRole | Self::TrustChanged),
            Self::TrustTaken => self == Self::TrustChanged,
            _ => false,
        }
    }

    fn attack(self) -> (&'static [&'static str], &'static [&'static str]) {
        const BOTH: &[&str] = &["TA0003", "TA0004"];
        match self {
            Self::AdminPolicy | Self::DefaultVersion | Self::AdminGroup => (BOTH, &["T1098.003"]),
            Self::Credentials => (BOTH, &["T1098.001", "T1078.004"]),
            Self::TrustChanged | Self::ForeignRole | Self::BackdoorRole => (BOTH, &["T1098.003", "T1136.003"]),
            Self::TrustTaken => (BOTH, &["T1098.003", "T1548.005"]),
            Self::Door | Self::OpenUrl | Self::OpenLayer => (BOTH, &["T1098", "T1546"]),
            Self::ForeignLayer | Self::Hijack => (&["TA0002", "TA0003", "TA0004"], &["T1648", "T1546"]),
            Self::PassRole => (&["TA0002", "TA0003", "TA0004"], &["T1648", "T1548.005"]),
        }
    }
}

/// One step of the hour or remembered, read.
struct Step<'a> {
    time: EventTime,
    kind: StepKind,
    target: &'a str,
    detail: Value,
    action: &'a str,
    denied: bool,
    failed: bool,
    function: Option<&'a str>,
    source: &'a str,
    access_key: &'a str,
    at: EvidenceRef,
    now: bool,
}

/// A pattern that a step of this hour completed.
struct Match<'s, 'a> {
    pattern: Pattern,
    severity: Severity,
    /// The completing step last.
    steps: Vec<&'s Step<'a>>,
}

/// Detector 13.
pub struct PrivilegeEscalation;

impl Detector for PrivilegeEscalation {
    const NAME: &'static str = "privilege_escalation";
    const VERSION: i32 = 2;
    type Baseline = PrincipalProfile;
    type Hour<'h> = PrincipalLook<'h, 'h>;

    fn judge(&self, profile: &PrincipalProfile, look: &PrincipalLook<'_, '_>, context: &Context<'_>) -> Vec<Finding> {
        let steps = steps(profile, look);
        // One story per target: an administrator's new user and that user's key are one finding.
        let mut by_target: BTreeMap<&str, Vec<Match<'_, '_>>> = BTreeMap::new();
        for found in matches(profile, look, &steps, context) {
            let target = found.steps.last().map_or("", |s| s.target);
            by_target.entry(target).or_default().push(found);
        }
        by_target.into_iter().filter_map(|(target, found)| self.finding(profile, look, target, found, context)).collect()
    }

    fn learn(&self, profile: &mut PrincipalProfile, look: &PrincipalLook<'_, '_>, context: &Context<'_>, _delta: &mut FleetDelta) {
        let day = day16(context.hour.day());
        let mut done: Vec<(u8, u32)> = Vec::new();
        let mut kept: Vec<Remembered> = Vec::new();
        let mut deployed: Vec<u64> = Vec::new();
        {
            let steps = steps(profile, look);
            for found in matches(profile, look, &steps, context) {
                match done.iter_mut().find(|d| d.0 == found.pattern as u8) {
                    Some(known) => known.1 += 1,
                    None => done.push((found.pattern as u8, 1)),
                }
            }
            let since = context.hour.end().plus(-SPAN_SECS);
            for step in steps.iter().filter(|s| !s.denied && !s.failed) {
                if step.time >= since && matches!(step.kind, StepKind::CreateRole | StepKind::UpdateTrust | StepKind::CreateFunction) {
                    kept.push(Remembered {
                        time: step.time,
                        step: step.kind.as_str().to_owned(),
                        target: step.target.to_owned(),
                        detail: step.detail.to_string(),
                        at: step.at.clone(),
                    });
                }
                if step.now && is_deploy(step.kind) {
                    deployed.push(hash(step.target));
                }
            }
        }
        kept.sort_by(|a, b| (b.time, &b.step, &b.target, &b.at).cmp(&(a.time, &a.step, &a.target, &a.at)));
        kept.truncate(STEPS_MAX);
        profile.steps = kept;
        profile.done.retain(|d| day <= d.1.saturating_add(DONE_DAYS));
        for (pattern, times) in done {
            match profile.done.binary_search_by_key(&(pattern, day), |d| (d.0, d.1)) {
                Ok(at) => profile.done[at].2 = profile.done[at].2.saturating_add(times),
                Err(at) => profile.done.insert(at, (pattern, day, times)),
            }
        }
        profile.deployed.retain(|d| day <= d.1.saturating_add(90));
        for key in deployed {
            match profile.deployed.binary_search_by_key(&key, |d| d.0) {
                Ok(at) => profile.deployed[at].1 = day,
                Err(at) => profile.deployed.insert(at, (key, day)),
            }
            profile.deployed.truncate(DEPLOYED_MAX);
        }
        profile.since.get_or_insert(context.hour);
    }
}

fn hash(text: &str) -> u64 {
    XxHash3_64::oneshot(text.as_bytes())
}

fn is_deploy(kind: StepKind) -> bool {
    matches!(kind, StepKind::CreateFunction | StepKind::UpdateCode | StepKind::UpdateConfiguration | StepKind::PublishVersion)
}

impl PrincipalProfile {
    /// How often it did what, for the `actions` column.
    #[must_use]
    pub fn done_json(&self) -> Value {
        let mut sums: BTreeMap<u8, u32> = BTreeMap::new();
        for (pattern, _, times) in &self.done {
            *sums.entry(*pattern).or_default() += times;
        }
        json!({ "escalation_patterns_in_30_days": sums.values().sum::<u32>(), "kinds": sums.len(), "functions_deployed": self.deployed.len() })
    }

    fn times(&self, pattern: Pattern, day: u16) -> u32 {
        self.done.iter().filter(|d| d.0 == pattern as u8 && day <= d.1.saturating_add(DONE_DAYS)).map(|d| d.2).sum()
    }
}

/// The remembered steps and those of the hour, by time.
fn steps<'a>(profile: &'a PrincipalProfile, look: &PrincipalLook<'_, 'a>) -> Vec<Step<'a>> {
    let read = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let mut steps: Vec<Step<'a>> = Vec::new();
    for step in &profile.steps {
        let Some(kind) = StepKind::parse(&step.step) else { continue };
        steps.push(Step {
            time: step.time,
            kind,
            target: &step.target,
            detail: read(&step.detail),
            action: "",
            denied: false,
            failed: false,
            function: None,
            source: "",
            access_key: "",
            at: step.at.clone(),
            now: false,
        });
    }
    let hour = look.hour;
    for (kind, row) in rows_that_matter(profile, look) {
        let error = hour.opt(row.error);
        let denied = error.is_some_and(is_denied);
        steps.push(Step {
            time: row.time,
            kind,
            target: hour.text(row.target),
            detail: read(hour.text(row.detail)),
            action: hour.text(row.action),
            denied,
            failed: error.is_some() && !denied,
            function: hour.opt(row.function),
            source: hour.text(row.source),
            access_key: hour.text(row.access_key),
            at: evidence_at(hour, row.unit, row.position, row.event_id),
            now: true,
        });
    }
    // Calls of one second have no order among themselves; their evidence settles it the same way everywhere.
    steps.sort_by(|a, b| (a.time, a.kind, a.target, &a.at).cmp(&(b.time, b.kind, b.target, &b.at)));
    steps
}

/// The hour's rows, at most [`HOUR_STEPS_MAX`]. Taking a role is everyday life and matters only where its trust was changed
/// within the day, so a busy role's thousands of calls push nothing else out.
fn rows_that_matter<'a>(profile: &PrincipalProfile, look: &PrincipalLook<'_, 'a>) -> Vec<(StepKind, &'a ApiRow)> {
    let hour = look.hour;
    let mut rows: Vec<(StepKind, &'a ApiRow)> = Vec::new();
    let mut taken: Vec<(StepKind, &'a ApiRow)> = Vec::new();
    for row in look.principal.rows.iter().filter_map(|r| hour.calls.get(*r as usize)) {
        match StepKind::parse(hour.text(row.step)) {
            Some(StepKind::AssumeRole) => taken.push((StepKind::AssumeRole, row)),
            Some(kind) => rows.push((kind, row)),
            None => {}
        }
    }
    let remembered = profile.steps.iter().filter(|s| s.step == StepKind::UpdateTrust.as_str()).map(|s| s.target.as_str());
    let mut trusted: Vec<&str> = rows.iter().filter(|r| r.0 == StepKind::UpdateTrust).map(|r| hour.text(r.1.target)).collect();
    trusted.extend(remembered);
    let changed = |row: &ApiRow| trusted.iter().any(|t| !t.is_empty() && short_name(t) == short_name(hour.text(row.target)));
    taken.retain(|(_, row)| changed(row));
    rows.extend(taken);
    if rows.len() > HOUR_STEPS_MAX {
        // Deploys are the many; what gives rights comes first.
        let rank = |kind: StepKind| u8::from(is_deploy(kind) || matches!(kind, StepKind::AssumeRole | StepKind::Alias));
        rows.sort_unstable_by_key(|(kind, row)| (rank(*kind), row.id));
        rows.truncate(HOUR_STEPS_MAX);
    }
    rows
}

/// Every pattern that a step of this hour completes.
fn matches<'s, 'a>(
    profile: &PrincipalProfile,
    look: &PrincipalLook<'_, 'a>,
    steps: &'s [Step<'a>],
    context: &Context<'_>,
) -> Vec<Match<'s, 'a>> {
    let mut found: Vec<Match<'s, 'a>> = Vec::new();
    let known_account = context.since.is_some_and(|since| context.hour.0.saturating_sub(since.0) >= ACCOUNT_DAYS * 24);
    for step in steps.iter().filter(|s| s.now && !s.failed) {
        let flag = |key: &str| step.detail.get(key).and_then(Value::as_bool).unwrap_or(false);
        let number = |key: &str| step.detail.get(key).and_then(Value::as_u64);
        let has = |key: &str| step.detail.get(key).is_some();
        let mut say = |pattern, severity, before: Option<&'s Step<'a>>| {
            let steps = before.into_iter().chain(std::iter::once(step)).collect();
            // A denied call is a first step that was stopped.
            let severity = if step.denied { Severity::Low } else { severity };
            found.push(Match { pattern, severity, steps });
        };
        let before = |kind: StepKind, same: &dyn Fn(&Step<'_>) -> bool| {
            steps.iter().find(|s| {
                s.kind == kind && !s.denied && !s.failed && s.time <= step.time && s.time >= step.time.plus(-SPAN_SECS) && same(s)
            })
        };
        match step.kind {
            StepKind::AttachPolicy | StepKind::PutPolicy => {
                match number("admin") {
                    Some(2..) => say(Pattern::AdminPolicy, Severity::High, None),
                    Some(1) => say(Pattern::AdminPolicy, Severity::Medium, None),
                    // A denied call may come without its request.
                    None if step.denied => say(Pattern::AdminPolicy, Severity::Low, None),
                    _ => {}
                }
                if !step.denied {
                    let outsiders = |s: &Step<'_>| s.target == step.target && lets_in_outsiders(s);
                    for kind in [StepKind::CreateRole, StepKind::UpdateTrust] {
                        if let Some(trust) = before(kind, &outsiders) {
                            say(Pattern::BackdoorRole, Severity::High, Some(trust));
                        }
                    }
                }
            }
            StepKind::PolicyVersion if flag("default") || step.denied => match number("admin") {
                Some(2..) => say(Pattern::AdminPolicy, Severity::High, None),
                None => say(Pattern::DefaultVersion, Severity::Medium, None),
                _ => {}
            },
            StepKind::DefaultVersion => say(Pattern::DefaultVersion, Severity::Medium, None),
            StepKind::AddToGroup
                if step.detail.get("group").and_then(Value::as_str).is_some_and(|g| g.to_ascii_lowercase().contains("admin")) =>
            {
                say(Pattern::AdminGroup, Severity::Medium, None);
            }
            StepKind::AccessKey | StepKind::LoginProfile if has("self") && !flag("self") => say(Pattern::Credentials, Severity::High, None),
            StepKind::UpdateTrust if lets_in_outsiders(step) => {
                let severity = if flag("public") && !flag("conditional") { Severity::High } else { Severity::Medium };
                say(Pattern::TrustChanged, severity, None);
            }
            StepKind::UpdateTrust if step.denied => say(Pattern::TrustChanged, Severity::Low, None),
            StepKind::CreateRole if lets_in_outsiders(step) => {
                // Roles for service providers look like this too, mostly with an external id.
                let severity = match (flag("public"), flag("conditional")) {
                    (true, false) => Severity::High,
                    (_, false) => Severity::Low,
                    (_, true) => Severity::Informational,
                };
                say(Pattern::ForeignRole, severity, None);
                // Calls of one second have no order: rights given in the same second complete it.
                let attach = |s: &&Step<'_>| matches!(s.kind, StepKind::AttachPolicy | StepKind::PutPolicy) && s.target == step.target;
                if let Some(attached) = steps.iter().filter(|s| s.now && !s.denied && !s.failed && s.time == step.time).find(attach) {
                    found.push(Match { pattern: Pattern::BackdoorRole, severity: Severity::High, steps: vec![attached, step] });
                }
            }
            StepKind::AssumeRole if !step.denied => {
                let taken = |s: &Step<'_>| !s.target.is_empty() && short_name(step.target) == short_name(s.target);
                if let Some(trust) = before(StepKind::UpdateTrust, &taken) {
                    say(Pattern::TrustTaken, Severity::High, Some(trust));
                }
            }
            StepKind::AddPermission if flag("public") || flag("foreign") => {
                // Limited to the organisation or to one source, it is no door for strangers.
                let limited = has("organization") || flag("public") && has("source");
                say(Pattern::Door, if limited { Severity::Low } else { Severity::High }, None);
            }
            StepKind::FunctionUrl if step.detail.get("auth").and_then(Value::as_str) == Some("NONE") => {
                say(Pattern::OpenUrl, Severity::High, None)
            }
            StepKind::LayerPermission if flag("public") || flag("foreign") => say(Pattern::OpenLayer, Severity::Low, None),
            StepKind::CreateFunction | StepKind::UpdateConfiguration if has("foreign_layers") && !step.denied => {
                say(Pattern::ForeignLayer, Severity::Low, None)
            }
            StepKind::EventSource if !step.denied && known_account => {
                let deployer = profile.deployed.len() as u32 >= USUAL;
                let made = |s: &Step<'_>| s.target == step.target && s.detail.get("role").is_some();
                if let Some(created) = before(StepKind::CreateFunction, &made).filter(|_| !deployer) {
                    say(Pattern::PassRole, Severity::Low, Some(created));
                }
            }
            StepKind::UpdateCode | StepKind::UpdateConfiguration
                if !step.denied && known_account && !step.target.is_empty() && (step.kind == StepKind::UpdateCode || flag("runs")) =>
            {
                let day = day16(context.hour.day());
                let key = hash(step.target);
                let deployed =
                    profile.deployed.binary_search_by_key(&key, |d| d.0).is_ok_and(|at| day <= profile.deployed[at].1.saturating_add(90));
                // One that deploys many functions is a pipeline; a function new to it is its everyday work.
                if !deployed
                    && (profile.deployed.len() as u32) < USUAL
                    && before(StepKind::CreateFunction, &|s| s.target == step.target).is_none()
                {
                    say(Pattern::Hijack, Severity::Low, None);
                }
            }
            _ => {}
        }
    }
    // Invocations are far too many to be steps; they are asked for only where a function was made within the day.
    if known_account && (profile.deployed.len() as u32) < USUAL {
        for created in
            steps.iter().filter(|s| s.kind == StepKind::CreateFunction && !s.denied && !s.failed && s.detail.get("role").is_some())
        {
            let invoked = steps.iter().any(|s| s.now && s.kind == StepKind::EventSource && s.target == created.target);
            if !invoked && created.now && called_invoke(look, created) {
                found.push(Match { pattern: Pattern::PassRole, severity: Severity::Low, steps: vec![created] });
            }
        }
    }
    found
}

/// The principal invoked a function after it had made one.
fn called_invoke(look: &PrincipalLook<'_, '_>, created: &Step<'_>) -> bool {
    let hour = look.hour;
    let later = hour.calls.partition_point(|row| row.time < created.time);
    hour.calls[later..].iter().any(|row| {
        row.principal != NONE
            && hour.text(row.principal) == look.principal.principal
            && hour.text(row.service) == "lambda"
            && hour.text(row.action) == "Invoke"
    })
}

fn lets_in_outsiders(step: &Step<'_>) -> bool {
    step.detail.get("foreign").and_then(Value::as_array).is_some_and(|f| !f.is_empty())
}

impl PrivilegeEscalation {
    fn finding(
        &self,
        profile: &PrincipalProfile,
        look: &PrincipalLook<'_, '_>,
        target: &str,
        mut found: Vec<Match<'_, '_>>,
        context: &Context<'_>,
    ) -> Option<Finding> {
        let day = day16(context.hour.day());
        let mut usual = 0;
        for one in &mut found {
            let times = profile.times(one.pattern, day);
            if times >= USUAL {
                one.severity = Severity::Informational;
                usual = usual.max(times);
            }
        }
        found.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.pattern.cmp(&b.pattern)).then_with(|| time_of(a).cmp(&time_of(b))));
        let strongest = found.first()?;
        let mut severity = strongest.severity;
        let denied = strongest.steps.iter().all(|s| s.denied);
        // A function's own role has no business with rights: its code or its credentials are in other hands.
        let own_role = strongest.steps.iter().find_map(|s| s.function);
        if own_role.is_some() && !denied {
            severity = match severity {
                Severity::High | Severity::Critical => Severity::Critical,
                Severity::Medium => Severity::High,
                Severity::Low => Severity::Medium,
                Severity::Informational => Severity::Informational,
            };
        }
        let mut steps: Vec<&Step<'_>> = found.iter().flat_map(|m| m.steps.iter().copied()).collect();
        steps.sort_by(|a, b| (a.time, a.kind, a.target, &a.at).cmp(&(b.time, b.kind, b.target, &b.at)));
        steps.dedup_by(|a, b| a.time == b.time && a.kind == b.kind && a.at == b.at);
        let last = *steps.last()?;
        let first = *steps.first()?;
        let principal = look.principal.principal;
        let name = short_name(principal);
        let region = look.hour.calls.get(*look.principal.rows.first()? as usize).and_then(|r| look.hour.opt(r.region));
        let mut finding = draft::<Self>(context, &EntityId::new(EntityKind::Principal, principal), name, region);
        if let Some(function) = own_role {
            finding.attribution = Attribution::Exact.as_str().into();
            finding.candidates =
                vec![Candidate { arn: function.to_owned(), weight_milli: 1000, evidence: "credentials issued to it (inScopeOf)".into() }];
        }
        let action = strongest.steps.last().map_or("", |s| s.action);
        let shown_target = if target.is_empty() { "an unnamed target" } else { target };
        finding.severity = severity;
        finding.subject_kind = "target".into();
        finding.subject = if target.is_empty() { action.to_owned() } else { target.to_owned() };
        finding.subject_name = short_name(shown_target).to_owned();
        finding.event_source = Some(source_of(last.kind).to_owned());
        finding.event_name = Some(action.to_owned());
        finding.first_seen = first.time;
        finding.last_seen = last.time;
        finding.count = steps.len() as i64;
        for one in &found {
            let (tactics, techniques) = one.pattern.attack();
            for (list, ids) in [(&mut finding.tactics, tactics), (&mut finding.techniques, techniques)] {
                for id in ids {
                    if !list.iter().any(|known| known == id) {
                        list.push((*id).to_owned());
                    }
                }
            }
            if !finding.evidence_terms.iter().any(|t| t.says.contains(one.pattern.words())) {
                let said: Vec<&str> = one.steps.iter().map(|s| step_name(s)).collect();
                finding.evidence_terms.push(Term {
                    kind: "pattern".into(),
                    s_milli: milli(surprise_of(one.severity)),
                    says: format!("{}: {}", text::listed(said, 3), one.pattern.words()),
                });
            }
        }
        finding.tactics.sort();
        finding.techniques.sort();
        finding.score_milli = milli(surprise_of(severity));
        finding.evidence = steps.iter().map(|s| s.at.clone()).take(10).collect();
        finding.learned = json!({
            "times_in_30_days": found.iter().map(|m| profile.times(m.pattern, day)).max().unwrap_or(0), "functions_deployed": profile.deployed.len(),
            "known_since": profile.since.map(|h| h.start().to_string()),
        })
        .to_string();
        let tried = if denied { " (denied)" } else { "" };
        let whose = if own_role.is_some() { " with a function's own role" } else { "" };
        finding.title = format!("{name} ran {action} on {}{tried}{whose}: {}", short_name(shown_target), strongest.pattern.short());
        let told: Vec<String> = steps
            .iter()
            .map(|s| {
                let about = about(s);
                let of = if s.target.is_empty() { String::new() } else { format!(" on {}", short_name(s.target)) };
                format!("{}{of} ({}{}{about})", step_name(s), text::clock(s.time), if s.denied { ", denied" } else { "" })
            })
            .collect();
        let from = match (last.source, last.access_key) {
            ("", _) => String::new(),
            (source, "") => format!(" from {source}"),
            (source, key) => format!(" from {source} with key {key}"),
        };
        let mut patterns: Vec<&str> = Vec::new();
        for one in found.iter().map(|m| m.pattern) {
            if !patterns.contains(&one.words()) && !found.iter().any(|m| one.is_told_by(m.pattern)) {
                patterns.push(one.words());
            }
        }
        let times = found.iter().map(|m| profile.times(m.pattern, day)).max().unwrap_or(0);
        let history = match times {
            0 => "it did not do the same in the last 30 days".to_owned(),
            n => format!("it did the same {} in the last 30 days", text::count(u64::from(n), "time")),
        };
        let history = if usual > 0 { format!("{history}, so this is told as information only") } else { history };
        finding.explanation = format!(
            "`{principal}` ran {}{from}, on {} (UTC). {} {}.\n\
             Learned: {history}{}.\n\
             Unusual because {} a published way to more rights{}{}.\n\
             It would have been information only had this principal done the same at least {USUAL} times in 30 days.\n\
             {}",
            text::listed(told.iter().map(String::as_str), 8),
            context.hour.day(),
            if told.len() == 1 { "This is" } else { "Together this is" },
            patterns.join("; and "),
            profile.since.map_or_else(
                || "; no call of this kind is known of it from before".to_owned(),
                |h| format!("; its first call of this kind was on {}", h.day())
            ),
            if told.len() == 1 { "this call is" } else { "these calls form" },
            if denied { ", and were denied: somebody tried" } else { "" },
            own_role.map_or_else(String::new, |f| format!(
                "; made by the code of function {} itself, or by whoever holds its credentials",
                short_name(f)
            )),
            closing_of_principal(&finding),
        );
        finding.next_steps = format!(
            "1. Ask the person or team behind {name} whether they did this, by a way that does not use this account.\n\
             2. Read every call of {name}{} in `api_calls` for the day before and since.\n\
             3. If it is not theirs: undo the change to {} (detach, delete the key, restore the trust or resource policy), deactivate the caller's credentials, \
             and look for what was done with what they gained.",
            if last.access_key.is_empty() { String::new() } else { format!(" and of key {}", last.access_key) },
            short_name(shown_target),
        );
        Some(finding)
    }
}

fn time_of(found: &Match<'_, '_>) -> Option<EventTime> {
    found.steps.last().map(|s| s.time)
}

fn step_name<'s>(step: &'s Step<'_>) -> &'s str {
    if step.action.is_empty() { step.kind.as_str() } else { step.action }
}

fn source_of(kind: StepKind) -> &'static str {
    match kind {
        StepKind::AssumeRole => "sts.amazonaws.com",
        StepKind::AttachPolicy
        | StepKind::PutPolicy
        | StepKind::PolicyVersion
        | StepKind::DefaultVersion
        | StepKind::AddToGroup
        | StepKind::AccessKey
        | StepKind::LoginProfile
        | StepKind::CreateUser
        | StepKind::CreateRole
        | StepKind::UpdateTrust => "iam.amazonaws.com",
        _ => "lambda.amazonaws.com",
    }
}

/// What the step's content adds, after its time.
fn about(step: &Step<'_>) -> String {
    let word = |key: &str| step.detail.get(key).and_then(Value::as_str);
    let list = |key: &str| {
        step.detail
            .get(key)
            .and_then(Value::as_array)
            .map(|a| a.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
            .filter(|t| !t.is_empty())
    };
    let said = [
        word("policy").map(|p| format!("policy {}", short_name(p))),
        word("group").map(|g| format!("group {g}")),
        word("principal").map(|p| format!("principal {p}")),
        word("auth").map(|a| format!("authentication {a}")),
        word("key").map(|k| format!("key {k}")),
        list("foreign").map(|f| format!("lets in {f}")),
        list("foreign_layers").map(|f| format!("layers {f}")),
        word("role").map(|r| format!("role {}", short_name(r))),
    ];
    said.into_iter().flatten().map(|s| format!(", {s}")).collect()
}

/// Principals have no interfaces: "who" is the principal itself, or the function whose credentials were used.
fn closing_of_principal(finding: &Finding) -> String {
    if finding.candidates.is_empty() {
        format!("{}\nWho: {}, as CloudTrail names the caller.\n{}", super::coverage(finding), finding.entity_name, super::pointers(finding))
    } else {
        closing(finding)
    }
}
