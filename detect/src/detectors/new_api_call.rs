//! Detector 2, new API call of a function: its code calls an API it never called, above all a sensitive one.

use flowtrail_enrich::{Attribution, Candidate};
use flowtrail_ingest::EventTime;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::detectors::{Context, Detector, closing, draft};
use crate::entity::{EntityId, EntityKind, short_name};
use crate::finding::{Finding, Severity};
use crate::fleet::FleetDelta;
use crate::hour::AccountHour;
use crate::novelty::{Learned, NAMELESS, Novelty, NoveltyOdds, SETTLING_HOURS, Space, flags, key_of};
use crate::profile::{Age, warm_up_of};
use crate::surprise::{Evidence, LOW, is_signal, level, milli, of_p};
use crate::text;
use crate::window::{ActionHour, FunctionHour, evidence_of_rows};

/// Distinct new read actions in an hour that are an enumeration.
const BURST: usize = 8;
/// Distinct new actions denied in an hour that are trying doors.
const DENIED: usize = 3;
/// Findings of one function and hour.
const FINDINGS_MAX: usize = 8;

/// The profile of a function: the baseline of detector 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionProfile {
    /// Active time and calls.
    pub age: Age,
    /// Known services, actions, and services written to.
    pub actions: Novelty,
}

/// A function's hour with what the account knows of it.
pub struct FunctionLook<'w, 'a> {
    /// The account-hour.
    pub hour: &'a AccountHour,
    /// What it called.
    pub function: &'w FunctionHour<'a>,
    /// It was deployed within a day.
    pub deployed: bool,
}

/// How sensitive an action is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Read,
    Other,
    /// A write in a service it never wrote to.
    FirstWrite,
    /// Identity, secrets, keys, logging, code.
    Sensitive,
}

fn service_key(service: &str) -> u64 {
    key_of(Space::Action, "service", service)
}

fn write_key(service: &str) -> u64 {
    key_of(Space::Action, "write", service)
}

fn full_name(service: &str, action: &str) -> String {
    let mut name = String::with_capacity(service.len() + action.len() + 1);
    name.push_str(service);
    name.push(':');
    name.push_str(action);
    name
}

fn action_key(service: &str, action: &str) -> u64 {
    key_of(Space::Action, "action", &full_name(service, action))
}

/// The key of an action that was only ever denied. It is no news when denied again, but it is when it is allowed: an
/// attempt must not make the deed ordinary.
fn tried_key(service: &str, action: &str) -> u64 {
    key_of(Space::Action, "tried", &full_name(service, action))
}

/// Every call of it in this hour was denied.
fn only_tried(call: &ActionHour<'_>) -> bool {
    call.count > 0 && call.denied == call.count
}

/// Tier 1 of detectors.md 2.
fn is_sensitive(call: &ActionHour<'_>) -> bool {
    let action = call.action;
    match call.service {
        "iam" => true,
        "sts" => action == "AssumeRole" && call.foreign_role.is_some() || action.starts_with("GetFederationToken"),
        "kms" => action.starts_with("Schedule") || action.starts_with("Disable") || action == "PutKeyPolicy" || action == "CreateGrant",
        "cloudtrail" | "guardduty" | "config" | "securityhub" | "access-analyzer" => call.write,
        "lambda" => {
            action.starts_with("Update")
                || action.starts_with("AddPermission")
                || action.starts_with("AddLayer")
                || action == "CreateFunctionUrlConfig"
        }
        "secretsmanager" => matches!(action, "GetSecretValue" | "BatchGetSecretValue" | "PutResourcePolicy"),
        "ssm" => action.starts_with("GetParameter") || action == "SendCommand" || action == "StartSession",
        "organizations" => call.write,
        _ => false,
    }
}

fn tier(call: &ActionHour<'_>, profile: &FunctionProfile, context: &Context<'_>) -> Tier {
    if is_sensitive(call) {
        Tier::Sensitive
    } else if call.write && !profile.actions.knows(write_key(call.service), context.hour.day()) {
        Tier::FirstWrite
    } else if call.write {
        Tier::Other
    } else {
        Tier::Read
    }
}

struct Fresh<'f, 'a> {
    call: &'f ActionHour<'a>,
    tier: Tier,
    new_service: bool,
}

fn fresh<'f, 'a>(profile: &FunctionProfile, look: &'f FunctionLook<'_, 'a>, context: &Context<'_>) -> Vec<Fresh<'f, 'a>> {
    let day = context.hour.day();
    let known = |c: &ActionHour<'_>| {
        profile.actions.knows(action_key(c.service, c.action), day)
            || only_tried(c) && profile.actions.knows(tried_key(c.service, c.action), day)
    };
    let new = look.function.actions.iter().filter(|c| !known(c));
    new.map(|call| Fresh { call, tier: tier(call, profile, context), new_service: !profile.actions.knows(service_key(call.service), day) })
        .collect()
}

/// Detector 2.
pub struct NewApiCall;

impl Detector for NewApiCall {
    const NAME: &'static str = "new_api_call";
    const VERSION: i32 = 2;
    type Baseline = FunctionProfile;
    type Hour<'h> = FunctionLook<'h, 'h>;

    fn judge(&self, profile: &FunctionProfile, look: &FunctionLook<'_, '_>, context: &Context<'_>) -> Vec<Finding> {
        let day = context.hour.day();
        if profile.actions.is_dynamic(day) || !profile.age.past(warm_up_of(Self::NAME), context.hour) {
            return Vec::new();
        }
        let fresh = fresh(profile, look, context);
        if fresh.is_empty() {
            return Vec::new();
        }
        let burst = fresh.iter().filter(|f| f.tier == Tier::Read).count() >= BURST;
        let mut findings: Vec<Finding> = Vec::new();
        if burst {
            findings.extend(self.enumeration(profile, look, &fresh, context));
        }
        let single = fresh.iter().filter(|f| !(burst && f.tier == Tier::Read));
        findings.extend(single.filter_map(|f| self.single(profile, look, f, &fresh, context)));
        findings.sort_by(|a, b| b.score_milli.cmp(&a.score_milli).then_with(|| a.subject.cmp(&b.subject)));
        findings.truncate(FINDINGS_MAX);
        findings
    }

    fn learn(&self, profile: &mut FunctionProfile, look: &FunctionLook<'_, '_>, context: &Context<'_>, delta: &mut FleetDelta) {
        let settled = profile.age.first.is_some() && profile.age.hours(context.hour) >= SETTLING_HOURS;
        let new: Vec<u64> = fresh(profile, look, context).iter().map(|f| action_key(f.call.service, f.call.action)).collect();
        if !new.is_empty() {
            let loud = self.judge(profile, look, context).iter().any(|f| f.severity >= Severity::Medium);
            if !loud {
                new.iter().for_each(|key| delta.benign(Space::Action, context.fleet.prevalence(*key)));
            }
        }
        let mut keys = Vec::new();
        let mut calls = 0;
        for (at, call) in look.function.actions.iter().enumerate() {
            calls += call.count;
            if only_tried(call) {
                keys.push(Learned { key: tried_key(call.service, call.action), flags: 0, name: NAMELESS });
                continue;
            }
            keys.push(Learned { key: service_key(call.service), flags: 0, name: NAMELESS });
            keys.push(Learned { key: action_key(call.service, call.action), flags: flags::COUNTED, name: at as u32 });
            if call.write {
                keys.push(Learned { key: write_key(call.service), flags: 0, name: NAMELESS });
            }
        }
        if settled {
            delta.hour(Space::Action, profile.actions.rates(context.hour).class(look.deployed), new.len());
        }
        let shown = |at: u32| look.function.actions.get(at as usize).map_or_else(String::new, |c| format!("{}:{}", c.service, c.action));
        profile.actions.learn(Space::Action, context.hour, keys, &shown, if settled { new.len() } else { 0 }, delta);
        profile.age.learn(context.hour, calls);
    }
}

impl NewApiCall {
    fn odds(profile: &FunctionProfile, look: &FunctionLook<'_, '_>, new: usize, context: &Context<'_>) -> NoveltyOdds {
        NoveltyOdds::of(profile.actions.rates(context.hour), look.deployed, Space::Action, new, context.fleet)
    }

    /// One new action.
    fn single(
        &self,
        profile: &FunctionProfile,
        look: &FunctionLook<'_, '_>,
        fresh: &Fresh<'_, '_>,
        all: &[Fresh<'_, '_>],
        context: &Context<'_>,
    ) -> Option<Finding> {
        let call = fresh.call;
        let odds = Self::odds(profile, look, all.len(), context);
        let name = format!("{}:{}", call.service, call.action);
        let mut evidence = Evidence::default();
        evidence.add("novelty", of_p(odds.p), novelty_words(&odds, look, all.len()));
        let known_to = context.fleet.prevalence(action_key(call.service, call.action));
        evidence.add("prevalence", of_p(context.fleet.rarity(Space::Action, known_to)), prevalence_words(known_to, context));
        let denied = all.iter().filter(|f| f.call.denied > 0).count();
        let mut identity = 0.0;
        let mut says: Vec<String> = Vec::new();
        match fresh.tier {
            Tier::Sensitive => {
                identity += 2.0;
                says.push(match call.foreign_role {
                    Some(role) => format!("it takes a role of another account ({role})"),
                    None => "the action is a sensitive one (identity, secrets, keys, logging or code)".to_owned(),
                });
            }
            Tier::FirstWrite => {
                identity += 1.0;
                says.push(format!("it never wrote to {} before", call.service));
            }
            Tier::Other | Tier::Read => {}
        }
        if call.denied > 0 && denied >= DENIED {
            identity += 1.0;
            says.push(format!("{denied} distinct new actions were denied in this hour"));
        }
        if identity > 0.0 {
            evidence.add("identity", identity, says.join(" and "));
        }
        let mut s = evidence.surprise();
        let mut severity = level(s, context.config);
        if evidence.kinds() < 2 {
            severity = severity.map(|l| l.min(Severity::Low));
        }
        let mut rule = "";
        // A small fleet has too little history for numbers alone to speak (detectors.md 0.3).
        if odds.small_fleet && severity.is_none() && fresh.tier == Tier::Sensitive {
            severity = Some(Severity::Low);
            s = s.max(LOW);
            rule = "\nThe fleet is small, so a rule speaks: a sensitive action was never called before.";
        }
        let allowed = if only_tried(call) {
            "denied".to_owned()
        } else if call.errors == call.count {
            "failed".to_owned()
        } else {
            "allowed".to_owned()
        };
        let mut finding = self.draft(profile, look, &[call], context);
        finding.severity = severity.or(is_signal(s, context.config).then_some(Severity::Informational))?;
        finding.score_milli = milli(s);
        finding.subject_kind = "action".into();
        finding.subject_name.clone_from(&name);
        finding.subject.clone_from(&name);
        finding.event_source = Some(format!("{}.amazonaws.com", call.service));
        finding.event_name = Some(call.action.to_owned());
        let (tactics, techniques) = attack_ids(call, fresh.tier);
        finding.tactics = tactics.iter().map(|t| (*t).to_owned()).collect();
        finding.techniques = techniques.iter().map(|t| (*t).to_owned()).collect();
        let function = short_name(look.function.arn);
        finding.title = format!("{function} called {name} for the first time ({allowed})");
        let service = if fresh.new_service { format!(" The service {} is new to it as well.", call.service) } else { String::new() };
        finding.explanation = format!(
            "`{function}` called {name} {}{} ({allowed}), as {}.{service}\n{}\n\
             Unusual because {}.{rule}\n\
             It would have stayed silent had the function called this action in the last 30 days, or in its first 14 days or 50 calls.\n{}",
            if call.count == 1 { String::new() } else { format!("{}, first ", text::count(call.count, "time")) },
            text::at(call.first),
            call.principal,
            learned_words(profile, look, context),
            evidence.words(),
            closing(&finding),
        );
        finding.next_steps = next_steps(function, &name);
        finding.evidence_terms = evidence.terms;
        Some(finding)
    }

    /// Many new reads at once: somebody looks around.
    fn enumeration(
        &self,
        profile: &FunctionProfile,
        look: &FunctionLook<'_, '_>,
        fresh: &[Fresh<'_, '_>],
        context: &Context<'_>,
    ) -> Option<Finding> {
        let reads: Vec<&ActionHour<'_>> = fresh.iter().filter(|f| f.tier == Tier::Read).map(|f| f.call).collect();
        let odds = Self::odds(profile, look, fresh.len(), context);
        let mut evidence = Evidence::default();
        evidence.add("novelty", of_p(odds.p), novelty_words(&odds, look, fresh.len()));
        let denied = fresh.iter().filter(|f| f.call.denied > 0).count();
        let tried = if denied >= DENIED { format!(", {denied} new actions were denied") } else { String::new() };
        evidence.add(
            "identity",
            if denied >= DENIED { 3.0 } else { 2.0 },
            format!("{} at once is how somebody looks around{tried}", text::count(reads.len() as u64, "new read action")),
        );
        let mut s = evidence.surprise();
        let mut severity = level(s, context.config);
        let mut rule = "";
        if odds.small_fleet && severity.is_none() {
            severity = Some(Severity::Low);
            s = s.max(LOW);
            rule = "\nThe fleet is small, so a rule speaks: eight or more read actions that it never called, in one hour.";
        }
        let mut finding = self.draft(profile, look, &reads, context);
        finding.severity = severity.or(is_signal(s, context.config).then_some(Severity::Informational))?;
        finding.score_milli = milli(s);
        finding.subject_kind = "action".into();
        finding.subject = "enumeration".into();
        finding.subject_name = format!("{} read actions", reads.len());
        finding.tactics = vec!["TA0007".into()];
        finding.techniques = vec!["T1526".into(), "T1580".into()];
        let function = short_name(look.function.arn);
        let names: Vec<String> = reads.iter().map(|c| format!("{}:{}", c.service, c.action)).collect();
        finding.title = format!("{function} called {} it never called before", text::count(reads.len() as u64, "read action"));
        finding.explanation = format!(
            "`{function}` called {} for the first time {}: {}. {} in all, as {}.\n{}\n\
             Unusual because {}.{rule}\n\
             It would have stayed silent below {BURST} new read actions in one hour.\n{}",
            text::count(reads.len() as u64, "read action"),
            text::during(context.hour),
            text::listed(names.iter().map(String::as_str), 10),
            text::count(finding.count.max(0) as u64, "call"),
            reads.first().map_or("", |c| c.principal),
            learned_words(profile, look, context),
            evidence.words(),
            closing(&finding),
        );
        finding.next_steps = next_steps(function, "these actions");
        finding.evidence_terms = evidence.terms;
        Some(finding)
    }

    fn draft(&self, profile: &FunctionProfile, look: &FunctionLook<'_, '_>, calls: &[&ActionHour<'_>], context: &Context<'_>) -> Finding {
        let arn = look.function.arn;
        let region = arn.split(':').nth(3).filter(|r| !r.is_empty());
        let mut finding = draft::<Self>(context, &EntityId::new(EntityKind::Function, arn), short_name(arn), region);
        finding.attribution = Attribution::Exact.as_str().into();
        finding.candidates =
            vec![Candidate { arn: arn.to_owned(), weight_milli: 1000, evidence: "credentials issued to it (inScopeOf)".into() }];
        finding.first_seen = calls.iter().map(|c| c.first).min().unwrap_or(EventTime(0));
        finding.last_seen = calls.iter().map(|c| c.last).max().unwrap_or(EventTime(0));
        finding.count = calls.iter().map(|c| c.count).sum::<u64>().min(i64::MAX as u64) as i64;
        let mut rows: Vec<u32> = calls.iter().flat_map(|c| c.rows.iter().copied()).collect();
        rows.sort_unstable();
        finding.evidence = evidence_of_rows(look.hour, &rows);
        let day = context.hour.day();
        let rates = profile.actions.rates(context.hour);
        finding.learned = json!({
            "days": profile.age.days(context.hour), "active_hours": profile.age.active, "calls": profile.age.calls, "known_actions": profile.actions.counted(day),
            "hours_with_new_action": (rates.r * 100.0) as u64 as f64 / 100.0, "fleet_entities": context.fleet.entities(Space::Action),
        })
        .to_string();
        finding
    }
}

fn novelty_words(odds: &NoveltyOdds, look: &FunctionLook<'_, '_>, new: usize) -> String {
    let deploy = if look.deployed { "it was deployed within the last 24 h" } else { "no deploy in the last 24 h" };
    let several = if new > 1 { format!("; this hour has {new} new ones") } else { String::new() };
    let whose = if odds.small_fleet { "it calls something new in about" } else { "functions this steady call something new in" };
    format!("{whose} {} active hours{several}; {deploy}", text::one_in(odds.p))
}

fn prevalence_words(known_to: u32, context: &Context<'_>) -> String {
    match known_to {
        0 => "no other function is known to call it".to_owned(),
        1 => "one other function calls it".to_owned(),
        n => format!("{} of {} call it", n, text::count(context.fleet.entities(Space::Action).max(i64::from(n)) as u64, "function")),
    }
}

fn learned_words(profile: &FunctionProfile, look: &FunctionLook<'_, '_>, context: &Context<'_>) -> String {
    let named = profile.actions.named(context.hour.day());
    let mut services: Vec<&str> = named.iter().filter_map(|n| n.0.split(':').next()).collect();
    services.sort_unstable();
    services.dedup();
    let usual: Vec<&str> = named.iter().map(|n| n.0).collect();
    format!(
        "Learned: in {} and {} it used {} and {}{}.{}",
        text::count(profile.age.days(context.hour).max(0) as u64, "day"),
        text::count(profile.age.calls, "call"),
        text::count(services.len() as u64, "service"),
        text::count(profile.actions.counted(context.hour.day()), "action"),
        if usual.is_empty() { String::new() } else { format!(" (most recently {})", text::listed(usual, 4)) },
        if look.deployed { " It was deployed within the last 24 h." } else { " No deploy in the last 24 h." },
    )
}

fn attack_ids(call: &ActionHour<'_>, tier: Tier) -> (&'static [&'static str], &'static [&'static str]) {
    match call.service {
        "iam" if call.write => (&["TA0003", "TA0004"], &["T1098"]),
        "iam" | "sts" if tier < Tier::Sensitive || !call.write => (&["TA0007"], &["T1087.004", "T1580"]),
        "secretsmanager" => (&["TA0006"], &["T1555.006"]),
        "ssm" if call.action.starts_with("GetParameter") => (&["TA0006"], &["T1552"]),
        "cloudtrail" | "guardduty" | "config" | "securityhub" if call.write => (&["TA0005"], &["T1562.008"]),
        "lambda" if tier == Tier::Sensitive => (&["TA0003", "TA0002"], &["T1648", "T1546"]),
        _ if tier == Tier::Read => (&["TA0007"], &["T1526", "T1580"]),
        _ => (&["TA0001", "TA0003", "TA0004", "TA0005"], &["T1078.004"]),
    }
}

fn next_steps(function: &str, what: &str) -> String {
    format!(
        "1. Ask the owner of {function} whether its code should call {what}; look for a deploy or a new dependency.\n\
         2. Look in `api_calls` at everything its role did in the hours around, and from which addresses: calls from outside the function's own exit mean stolen credentials.\n\
         3. If it is not expected: set reserved concurrency to 0, revoke the role's sessions, and undo what the calls changed."
    )
}
