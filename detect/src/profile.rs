//! Profiles: what is known of every entity of an account. Changed only by learning, hour after hour.

use std::collections::BTreeMap;

use flowtrail_ingest::{Day, Hour};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::detectors::new_api_call::FunctionProfile;
use crate::detectors::new_peer::NetworkProfile;
use crate::detectors::privilege_escalation::PrincipalProfile;
use crate::entity::{EntityId, EntityKind};
use crate::finding::ProfileRow;
use crate::fleet::FleetDelta;
use crate::judge::Learning;
use crate::novelty::{Novelty, Space};
use crate::text::frequency;

/// An entity not seen for this many days is forgotten.
const FORGET_ENTITY_DAYS: i32 = 90;
/// How long a deploy explains new behaviour.
pub const DEPLOY_HOURS: i32 = 24;

/// One account's profiles. Owned by one thread at a time; no account reads another's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountProfiles {
    /// By identity.
    #[serde(deserialize_with = "crate::full_map::read")]
    pub entities: BTreeMap<EntityId, EntityProfile>,
    /// Functions changed in the last day, and when.
    pub deploys: BTreeMap<Box<str>, Hour>,
    /// First hour learned.
    pub since: Option<Hour>,
    /// The day of the last clean-up.
    cleaned: Day,
}

/// One entity's profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntityProfile {
    /// Name for people, as last known.
    pub name: Box<str>,
    /// Region, as last known.
    pub region: Option<Box<str>>,
    /// How long and how much it was active.
    pub age: Age,
    /// What it does.
    pub behaviour: Behaviour,
}

/// An entity's own active time, by event time: warm-ups count it, nothing shortens it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    /// First active hour; `None` before the first.
    pub first: Option<Hour>,
    /// Last active hour.
    pub last: Hour,
    /// Active hours.
    pub active: u32,
    /// Calls, for functions.
    pub calls: u64,
}

/// What is learned depends on what an entity is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Behaviour {
    /// Of network entities and interfaces.
    Network(Box<NetworkProfile>),
    /// Of functions.
    Function(Box<FunctionProfile>),
    /// Of principals.
    Principal(Box<PrincipalProfile>),
}

/// How long a detector only learns.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Days since the first active hour.
    pub days: i32,
    /// Active hours.
    pub hours: u32,
    /// Calls.
    pub calls: u64,
}

/// The warm-ups, by detector (detectors.md 1, 2, 8).
pub const WARM_UPS: [(&str, WarmUp); 3] = [
    ("new_peer", WarmUp { days: 14, hours: 72, calls: 0 }),
    ("new_api_call", WarmUp { days: 14, hours: 0, calls: 50 }),
    ("scan", WarmUp { days: 3, hours: 0, calls: 0 }),
];

impl Age {
    /// Counts an active hour.
    pub fn learn(&mut self, hour: Hour, calls: u64) {
        self.first = Some(self.first.map_or(hour, |f| f.min(hour)));
        self.last = self.last.max(hour);
        self.active = self.active.saturating_add(1);
        self.calls = self.calls.saturating_add(calls);
    }

    /// Whole days between the first active hour and `hour`.
    #[must_use]
    pub fn days(self, hour: Hour) -> i32 {
        self.first.map_or(0, |f| hour.0.saturating_sub(f.0).max(0) / 24)
    }

    /// Hours since the first active one; 0 before it.
    #[must_use]
    pub fn hours(self, hour: Hour) -> i32 {
        self.first.map_or(0, |f| hour.0.saturating_sub(f.0).max(0))
    }

    /// The detector may speak at `hour`.
    #[must_use]
    pub fn past(self, warm_up: WarmUp, hour: Hour) -> bool {
        self.first.is_some() && self.days(hour) >= warm_up.days && self.active >= warm_up.hours && self.calls >= warm_up.calls
    }
}

/// The warm-up of a detector; none for the others.
#[must_use]
pub fn warm_up_of(detector: &str) -> WarmUp {
    WARM_UPS.iter().find(|w| w.0 == detector).map_or(WarmUp { days: 0, hours: 0, calls: 0 }, |w| w.1)
}

impl Behaviour {
    /// An empty one for an entity of this kind.
    #[must_use]
    pub fn of(kind: EntityKind) -> Self {
        match kind {
            EntityKind::Function => Self::Function(Box::default()),
            EntityKind::Principal => Self::Principal(Box::default()),
            EntityKind::Network | EntityKind::Interface | EntityKind::Account => Self::Network(Box::default()),
        }
    }
}

impl AccountProfiles {
    /// The profile of a network entity.
    #[must_use]
    pub fn network(&self, id: &EntityId) -> Option<(&EntityProfile, &NetworkProfile)> {
        self.entities.get(id).and_then(|e| if let Behaviour::Network(n) = &e.behaviour { Some((e, n.as_ref())) } else { None })
    }

    /// The profile of a function.
    #[must_use]
    pub fn function(&self, id: &EntityId) -> Option<(&EntityProfile, &FunctionProfile)> {
        self.entities.get(id).and_then(|e| if let Behaviour::Function(f) = &e.behaviour { Some((e, f.as_ref())) } else { None })
    }

    /// The profile of a principal.
    #[must_use]
    pub fn principal(&self, id: &EntityId) -> Option<(&EntityProfile, &PrincipalProfile)> {
        self.entities.get(id).and_then(|e| if let Behaviour::Principal(p) = &e.behaviour { Some((e, p.as_ref())) } else { None })
    }

    /// The profile to learn into, made when there is none. `came` tells the fleet of a new one.
    pub fn entry(&mut self, id: &EntityId, name: &str, region: Option<&str>, delta: &mut FleetDelta) -> &mut EntityProfile {
        let profile = self.entities.entry(id.clone()).or_insert_with(|| {
            for space in spaces(id.kind) {
                delta.entity(*space, 1);
            }
            EntityProfile { name: name.into(), region: None, age: Age::default(), behaviour: Behaviour::of(id.kind) }
        });
        if profile.name.as_ref() != name {
            profile.name = name.into();
        }
        if region.is_some() && profile.region.as_deref() != region {
            profile.region = region.map(Into::into);
        }
        profile
    }

    /// True if the function was changed within a day before `hour` ends.
    #[must_use]
    pub fn deployed(&self, function: &str, hour: Hour) -> bool {
        self.deploys.get(function).is_some_and(|at| (0..=DEPLOY_HOURS).contains(&hour.0.saturating_sub(at.0)))
    }

    /// [`Self::clean`] may forget something in this hour: it is the first of its day.
    #[must_use]
    pub fn is_to_clean(&self, hour: Hour) -> bool {
        hour.day() > self.cleaned
    }

    /// Forgets what is long gone, once a day.
    pub fn clean(&mut self, hour: Hour, delta: &mut FleetDelta) {
        self.since.get_or_insert(hour);
        if !self.is_to_clean(hour) {
            return;
        }
        let day = hour.day();
        self.cleaned = day;
        self.deploys.retain(|_, at| hour.0.saturating_sub(at.0) <= 2 * DEPLOY_HOURS);
        self.entities.retain(|id, profile| {
            let stays = profile.age.last.day().0.saturating_add(FORGET_ENTITY_DAYS) >= day.0;
            if !stays {
                match &profile.behaviour {
                    Behaviour::Network(n) => {
                        n.peers.leave(delta);
                        n.ports.leave(delta);
                    }
                    Behaviour::Function(f) => f.actions.leave(delta),
                    Behaviour::Principal(_) => {}
                }
                for space in spaces(id.kind) {
                    delta.entity(*space, -1);
                }
            }
            stays
        });
    }

    /// Warm-up state per detector at the end of `day`.
    #[must_use]
    pub fn learning(&self, day: Day) -> Vec<Learning> {
        let hour = day.next().first_hour();
        WARM_UPS
            .iter()
            .map(|(detector, warm_up)| {
                let mut state = Learning { detector: (*detector).to_owned(), of: warm_up.days as u32, ..Learning::default() };
                for (_, profile) in self.entities.iter().filter(|(id, _)| judged_by(detector, id.kind)) {
                    state.entities += 1;
                    state.ready += u64::from(profile.age.past(*warm_up, hour));
                    state.day = state.day.max((profile.age.days(hour).max(0) as u32).min(state.of));
                }
                state
            })
            .collect()
    }

    /// Rows of the `profiles` table as of the end of `day`.
    #[must_use]
    pub fn rows(&self, account: &str, day: Day) -> Vec<ProfileRow> {
        let end = day.next().first_hour();
        let mut days = DayTexts::default();
        self.entities
            .iter()
            .map(|(id, profile)| {
                let mut row = ProfileRow {
                    account_id: account.to_owned(),
                    region: profile.region.as_deref().map(str::to_owned),
                    entity_kind: id.kind.as_str().to_owned(),
                    entity_id: id.id.to_string(),
                    entity_name: crate::text::clean(&profile.name),
                    age_days: profile.age.days(end),
                    active_hours: i64::from(profile.age.active),
                    state: state(id.kind, profile.age, end),
                    peers: "{}".to_owned(),
                    actions: "{}".to_owned(),
                    ports: "{}".to_owned(),
                    rates: String::new(),
                };
                let active = u64::from(profile.age.active);
                match &profile.behaviour {
                    Behaviour::Network(network) => {
                        row.peers = keys_json(&network.peers, end, active, &mut days);
                        row.ports = keys_json(&network.ports, end, active, &mut days);
                        row.rates = network.rates_json(active).to_string();
                    }
                    Behaviour::Function(function) => row.actions = keys_json(&function.actions, end, active, &mut days),
                    Behaviour::Principal(principal) => row.actions = principal.done_json().to_string(),
                }
                if row.rates.is_empty() {
                    row.rates = json!({ "active_hours": profile.age.active, "calls": profile.age.calls }).to_string();
                }
                row
            })
            .collect()
    }
}

/// The key spaces that entities of a kind have.
fn spaces(kind: EntityKind) -> &'static [Space] {
    match kind {
        EntityKind::Network | EntityKind::Interface => &[Space::Peer, Space::Port],
        EntityKind::Function => &[Space::Action],
        EntityKind::Principal | EntityKind::Account => &[],
    }
}

fn judged_by(detector: &str, kind: EntityKind) -> bool {
    match detector {
        "new_api_call" => kind == EntityKind::Function,
        _ => matches!(kind, EntityKind::Network | EntityKind::Interface),
    }
}

/// `learning n of m`, by the longest warm-up that the entity has before it, or `active`.
fn state(kind: EntityKind, age: Age, at: Hour) -> String {
    let ahead = WARM_UPS.iter().filter(|(detector, warm_up)| judged_by(detector, kind) && !age.past(*warm_up, at));
    match ahead.map(|(_, warm_up)| warm_up.days).max() {
        Some(days) if kind != EntityKind::Principal => format!("learning {} of {days}", age.days(at).min(days)),
        _ => "active".to_owned(),
    }
}

/// Days as text: few of them are told of many keys.
type DayTexts = BTreeMap<u16, String>;

/// Known keys as JSON, written straight: a table has many profiles, and a profile many keys.
#[derive(Serialize)]
struct KeysJson<'a> {
    known: u64,
    dynamic: bool,
    hours_with_new: f64,
    most_recent: Vec<KeyJson<'a>>,
}

#[derive(Serialize)]
struct KeyJson<'a> {
    name: String,
    first: &'a str,
    last: &'a str,
    hours: u16,
    seen: &'static str,
}

fn keys_json(novelty: &Novelty, end: Hour, active: u64, days: &mut DayTexts) -> String {
    let day = Day(end.day().0 - 1);
    let rates = novelty.rates(end);
    let named = novelty.named(day);
    for day in named.iter().flat_map(|(_, key)| [key.first, key.last]) {
        days.entry(day).or_insert_with(|| Day(i32::from(day)).to_string());
    }
    let text = |day: u16| days.get(&day).map_or("", String::as_str);
    let most_recent = named
        .into_iter()
        .map(|(name, key)| KeyJson {
            name: crate::text::clean(name),
            first: text(key.first),
            last: text(key.last),
            hours: key.hours,
            seen: frequency(u64::from(key.hours), active),
        })
        .collect();
    let hours_with_new = (rates.r * 100.0 + 0.5) as u64 as f64 / 100.0;
    let keys = KeysJson { known: novelty.counted(day), dynamic: novelty.is_dynamic(day), hours_with_new, most_recent };
    serde_json::to_string(&keys).unwrap_or_default()
}
