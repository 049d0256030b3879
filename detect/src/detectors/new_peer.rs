//! Detector 1, new peer of a static entity: one that always talks to the same few peers talks to another one.

use std::cell::OnceCell;

use flowtrail_enrich::{PeerKind, PeerName};
use flowtrail_ingest::{Hour, Ip};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::contact::Outcome;
use crate::detectors::scan::{Alarm, Pair, ScanBaseline, Tally, Tried, lateral_pairs};
use crate::detectors::{Context, Detector, attribute, closing, draft};
use crate::finding::{Finding, Severity};
use crate::fleet::FleetDelta;
use crate::novelty::{
    HashIndex, KNOWN_MAX, KnownIndex, Learned, NAMELESS, Novelty, NoveltyOdds, SETTLING_HOURS, Space, flags, key_of, key_of_bytes,
    key_of_ip,
};
use crate::profile::{Age, warm_up_of};
use crate::surprise::{self, Evidence, KIND_CAP, LOW, is_signal, level, milli, of_normal, of_p};
use crate::text;
use crate::window::{NetworkHour, PeerHour};

/// Findings of one entity and hour; more new peers than that are one story, told by the strongest.
const FINDINGS_MAX: usize = 8;
/// Failed attempts in one hour from which on they are the scan detector's business.
const ATTEMPTS_MAX: usize = 5;
/// An entity with more peers in one hour than this is dynamic, whatever its profile says; they are not even named.
const PEERS_MAX: usize = 4 * KNOWN_MAX;
/// Less than this to a new peer says nothing about amounts.
const BYTES_OF_INTEREST: u64 = 1_000_000;
/// An upload from this size on that is beyond anything remembered is at least medium (floor of interest of detectors.md 4).
const UPLOAD: u64 = 10_000_000;
/// Ports from this one on are one.
const EPHEMERAL: u16 = 32_768;
/// Below this `R` an entity counts as steady in a small fleet: at most about one hour with a new peer in a month.
/// (detectors.md says 0.6; with that, one earlier incident would blind the rule for three weeks.)
const STEADY: f64 = 1.5;

/// The profile of a network entity: the baseline of detectors 1, 6 and 8.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkProfile {
    /// Active time.
    pub age: Age,
    /// Known peers.
    pub peers: Novelty,
    /// Known service ports of peers.
    pub ports: Novelty,
    /// Bytes to outside in an active hour.
    pub bytes: Level,
    /// Detector 8's part.
    pub scan: ScanBaseline,
    /// Listed peers met before: (address hash, last day), sorted. Detector 6's part.
    pub listed: Vec<(u64, u16)>,
}

/// Mean and variance of `ln(1 + x)` over active hours, half-life 7 days of them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    hours: u32,
    mean: f64,
    variance: f64,
    /// The highest hour remembered: of this month and of the last.
    highest: [u64; 2],
    /// The month, of 30 days, that `highest[0]` belongs to.
    month: i32,
}

impl Level {
    fn learn(&mut self, x: u64, hour: Hour) {
        let month = hour.day().0.div_euclid(30);
        if month != self.month {
            self.highest = [0, if month == self.month + 1 { self.highest[0] } else { 0 }];
            self.month = month;
        }
        self.highest[0] = self.highest[0].max(x);
        let value = surprise::ln_1p(x as f64);
        self.hours = self.hours.saturating_add(1);
        // The plain mean at first, then an exponential one: 1 - 2^(-1/168).
        let a = (1.0 / f64::from(self.hours)).max(0.004_117);
        let off = value - self.mean;
        self.mean += a * off;
        self.variance = (1.0 - a) * (self.variance + a * off * off);
    }

    /// Surprise of `x` in one hour; `None` while too little is known.
    fn surprise(&self, x: u64) -> Option<f64> {
        // A floor under the deviation, so that an hour twice the usual is no surprise to an entity of constant hours.
        let deviation = libm::sqrt(self.variance).max(0.5);
        (self.hours >= 24).then(|| of_normal((surprise::ln_1p(x as f64) - self.mean) / deviation))
    }

    /// `x` is more than three times the highest hour of one to two months (detectors.md 0.4).
    fn is_beyond(&self, x: u64) -> bool {
        self.hours >= 24 && x / 3 > self.highest[0].max(self.highest[1])
    }

    fn usual(&self) -> u64 {
        (libm::exp(self.mean) - 1.0).max(0.0) as u64
    }
}

impl NetworkProfile {
    /// For the `rates` column.
    #[must_use]
    pub fn rates_json(&self, active: u64) -> Value {
        json!({ "active_hours": active, "bytes_out_usual_hour": self.bytes.usual(), "first_contacts_answered": self.scan.good, "first_contacts_failed": self.scan.bad })
    }
}

/// How well a peer is known.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Familiarity {
    /// At some level: its address, its neighbourhood, its service or owner.
    Known,
    /// Only from attempts that failed.
    Tried,
    /// Not at all.
    New,
}

/// A network entity's hour, looked at with its profile: each peer classified once for all detectors.
pub struct NetworkLook<'w, 'a> {
    /// The hour.
    pub network: &'w NetworkHour<'a>,
    /// One per peer of the hour.
    pub peers: Vec<PeerLook>,
    /// Distinct (peer, port, protocol) not known before.
    pub pairs: Vec<Pair>,
    /// The ports of all contacts.
    ports: PortLooks,
    /// A candidate function was deployed within a day.
    pub deployed: bool,
    /// It has too many peers for a new one to mean anything: they are known by address alone.
    crowded: bool,
    /// What detectors found when they judged the hour, for when they learn it.
    pub(crate) found: Found,
}

/// What detectors found in an hour.
#[derive(Default)]
pub(crate) struct Found {
    /// Peers that detector 1 told of at medium or more.
    loud: OnceCell<Vec<Ip>>,
    /// Detector 8's counts.
    pub tally: OnceCell<Tally>,
    /// Detector 8's alarm.
    pub alarm: OnceCell<Option<Alarm>>,
}

/// A peer, classified.
pub struct PeerLook {
    /// How well it is known.
    pub familiarity: Familiarity,
    /// The key that is new, or known: of the coarsest level.
    pub key: u64,
    /// The key of its address.
    address: u64,
    /// It goes into the map when learned.
    learnable: bool,
    /// Its address is private.
    private: bool,
    /// Where its address stands in the map, if it is known by that and learning it again changes nothing but the day.
    place: Option<u32>,
}

/// A service port of an hour; those above the ephemeral boundary are one.
struct PortLook {
    port: u16,
    protocol: u8,
    key: u64,
    /// It was known before the hour.
    known: bool,
    /// A peer that is to be learned was met at it.
    learnable: bool,
}

/// The service ports of an hour, each looked up in the profile once.
struct PortLooks {
    all: Vec<PortLook>,
    /// Indices of `all`, by port and protocol.
    index: HashMap<(u16, u8), u32>,
    /// The last answers, at places that port and protocol say: they serve nearly all contacts.
    last: [u32; 64],
}

impl PortLooks {
    fn new() -> Self {
        Self { all: Vec::with_capacity(16), index: HashMap::with_capacity(16), last: [0; 64] }
    }

    fn of(&mut self, port: u16, protocol: u8, known: impl FnOnce(u64) -> bool) -> &mut PortLook {
        let port = port.min(EPHEMERAL);
        let last = &mut self.last[usize::from((port ^ u16::from(protocol) << 8).wrapping_mul(0x9e37) >> 10)];
        if self.all.get(*last as usize).is_none_or(|look| (look.port, look.protocol) != (port, protocol)) {
            let all = &mut self.all;
            *last = *self.index.entry((port, protocol)).or_insert_with(|| {
                let key = port_key(port, protocol);
                all.push(PortLook { port, protocol, key, known: known(key), learnable: false });
                (all.len() - 1) as u32
            });
        }
        &mut self.all[*last as usize]
    }
}

fn address_key(ip: Ip, private: bool, account: &str) -> u64 {
    // Private ranges repeat between accounts: 10.0.0.5 here is not 10.0.0.5 there.
    if !private {
        return key_of_ip(Space::Peer, 0, ip, []);
    }
    match <[u8; 12]>::try_from(account.as_bytes()) {
        Ok(account) => key_of_ip(Space::Peer, 0, ip, account),
        Err(_) => key_of_bytes(Space::Peer, 0, &ip.0.to_be_bytes(), account.as_bytes()),
    }
}

fn neighbourhood_key(ip: Ip) -> u64 {
    key_of_ip(Space::Peer, 1, ip.neighbourhood(), [])
}

fn port_key(port: u16, protocol: u8) -> u64 {
    key_of_bytes(Space::Port, 0, &port.to_be_bytes(), &[protocol])
}

fn name_key(name: &PeerName) -> u64 {
    key_of(Space::Peer, "name", &name.key)
}

impl<'w, 'a> NetworkLook<'w, 'a> {
    /// Classifies an entity's peers by what its profile knew before the hour.
    #[must_use]
    pub fn new(network: &'w NetworkHour<'a>, profile: &NetworkProfile, deployed: bool) -> Self {
        let day = network.hour.hour.day();
        let crowded = network.peers.len() > PEERS_MAX || profile.peers.is_dynamic(day);
        let mut peers = Vec::with_capacity(network.peers.len());
        let mut pairs = Vec::with_capacity(network.outbound.len());
        let mut ports = PortLooks::new();
        let (known, tried) = (profile.peers.index(day), profile.scan.tried());
        for (at, peer) in network.peers.iter().enumerate() {
            let look = classify(network, peer, &known, &tried, crowded);
            for contact in network.contacts(peer) {
                let outcome = contact.outcome;
                let port = ports.of(contact.port, contact.protocol, |key| profile.ports.knows(key, day));
                port.learnable |= look.learnable && outcome != Outcome::Failed;
                let port_known = port.known;
                if look.familiarity == Familiarity::Known && port_known {
                    continue;
                }
                match pairs.last_mut() {
                    Some(Pair { peer, port, protocol, outcome: best, .. })
                        if (*peer, *port, *protocol) == (at as u32, contact.port, contact.protocol) =>
                    {
                        *best = outcome.max(*best);
                    }
                    _ => {
                        let (port, protocol) = (contact.port, contact.protocol);
                        let key = if outcome == Outcome::Failed { pair_key(contact.peer, port, protocol) } else { 0 };
                        let tried = outcome == Outcome::Failed && tried.find(key).is_some();
                        pairs.push(Pair { peer: at as u32, port, protocol, outcome, port_known, tried, key });
                    }
                }
            }
            peers.push(look);
        }
        Self { network, peers, pairs, ports, deployed, crowded, found: Found::default() }
    }
}

/// The hash of a (peer, port, protocol) that was tried.
fn pair_key(ip: Ip, port: u16, protocol: u8) -> u64 {
    let [high, low] = port.to_be_bytes();
    key_of_ip(Space::Peer, 3, ip, [high, low, protocol])
}

/// The hash of a peer that was tried.
pub(crate) fn tried_key(ip: Ip) -> u64 {
    key_of_ip(Space::Peer, 4, ip, [])
}

fn classify(network: &NetworkHour<'_>, peer: &PeerHour, peers: &KnownIndex<'_>, tried: &HashIndex<'_, Tried>, crowded: bool) -> PeerLook {
    let learnable = peer.answered && peer.outcome != Outcome::Failed;
    let private = peer.ip.is_private();
    let address = address_key(peer.ip, private, &network.hour.account);
    let look = |familiarity, key| PeerLook { familiarity, key, address, learnable, private, place: None };
    let place = peers.place(address);
    // Most peers are known public addresses: they need no name.
    if let Some((at, _)) = place.filter(|_| !private) {
        return PeerLook { place: Some(at as u32), ..look(Familiarity::Known, address) };
    }
    let known_address = place.map(|p| p.1);
    let known_place = place.map(|p| p.0 as u32);
    if crowded {
        let familiarity = match known_address {
            Some(_) => Familiarity::Known,
            None if !learnable && tried.find(tried_key(peer.ip)).is_some() => Familiarity::Tried,
            None => Familiarity::New,
        };
        return PeerLook { place: known_place, ..look(familiarity, address) };
    }
    let named_key = || name_key(network.peer_name(peer));
    let (known, key) = match network.peer_kind(peer) {
        PeerKind::Owner => {
            let key = named_key();
            // An address learned before anybody was known to hold it is the same peer with a name now.
            (peers.knows(key) || known_address.is_some_and(|k| k.flags & flags::UNNAMED != 0), key)
        }
        PeerKind::AwsService | PeerKind::Network => {
            let key = named_key();
            (peers.knows(key) || known_address.is_some(), key)
        }
        PeerKind::Private if known_place.is_some() => return PeerLook { place: known_place, ..look(Familiarity::Known, address) },
        PeerKind::AwsRented | PeerKind::Private => (known_address.is_some(), address),
        PeerKind::Internet => (peers.knows(neighbourhood_key(peer.ip)), address),
    };
    if known {
        look(Familiarity::Known, key)
    } else if !learnable && tried.find(tried_key(peer.ip)).is_some() {
        look(Familiarity::Tried, key)
    } else {
        look(Familiarity::New, key)
    }
}

/// Detector 1.
pub struct NewPeer;

impl Detector for NewPeer {
    const NAME: &'static str = "new_peer";
    const VERSION: i32 = 2;
    type Baseline = NetworkProfile;
    type Hour<'h> = NetworkLook<'h, 'h>;

    fn judge(&self, profile: &NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Vec<Finding> {
        let network = look.network;
        if network.forwards || look.crowded || !profile.age.past(warm_up_of(Self::NAME), context.hour) {
            return Vec::new();
        }
        let mut fresh = fresh(look);
        if fresh.is_empty() {
            return Vec::new();
        }
        let attempts = fresh.iter().filter(|at| !look.peers[**at].learnable).count();
        if attempts >= ATTEMPTS_MAX {
            fresh.retain(|at| look.peers[*at].learnable);
        }
        let new = fresh.len();
        // Several neighbours at once are one story, told as lateral movement by detector 8.
        let lateral = lateral_pairs(look);
        fresh.retain(|at| !lateral.iter().any(|pair| pair.peer as usize == *at));
        let mut findings: Vec<(i64, Finding)> = fresh.iter().filter_map(|at| self.finding(profile, look, *at, new, context)).collect();
        findings.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.subject.cmp(&b.1.subject)));
        findings.truncate(FINDINGS_MAX);
        let findings: Vec<Finding> = findings.into_iter().map(|f| f.1).collect();
        let loud = findings.iter().filter(|f| f.severity >= Severity::Medium).filter_map(|f| f.peer_ip);
        // A second time is as the first: the same hour and profile.
        let _ = look.found.loud.set(loud.collect());
        findings
    }

    fn learn(&self, profile: &mut NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>, delta: &mut FleetDelta) {
        let network = look.network;
        let settled = profile.age.first.is_some() && profile.age.hours(context.hour) >= SETTLING_HOURS;
        let fresh = if look.crowded { Vec::new() } else { fresh(look) };
        let new_keys = fresh.iter().filter(|at| look.peers[**at].learnable).count();
        if new_keys > 0 && !look.crowded {
            if look.found.loud.get().is_none() {
                self.judge(profile, look, context);
            }
            let loud = look.found.loud.get().map_or(&[][..], Vec::as_slice);
            for at in fresh.iter().filter(|at| look.peers[**at].learnable) {
                if !loud.contains(&network.peers[*at].ip) {
                    delta.benign(Space::Peer, context.fleet.prevalence(look.peers[*at].key));
                }
            }
        }
        let day = context.hour.day();
        let mut keys = Vec::with_capacity(2 * network.peers.len());
        let mut outside = 0u64;
        let mut left_out = false;
        for (at, (peer, seen)) in network.peers.iter().zip(&look.peers).enumerate() {
            if !seen.private {
                outside = outside.saturating_add(peer.sent);
            }
            if !seen.learnable {
                continue;
            }
            if let Some(place) = seen.place {
                // The neighbourhood of one outside lives on with it; once a day is enough for that.
                let first_today = profile.peers.touch(place as usize, seen.key, day);
                if first_today && !look.crowded && !seen.private {
                    keys.push(Learned { key: neighbourhood_key(peer.ip), flags: 0, name: NAMELESS });
                }
                continue;
            }
            let address = seen.address;
            if look.crowded {
                if profile.peers.admits(address) {
                    let flags = if seen.private { flags::UNNAMED | flags::COUNTED } else { flags::COUNTED };
                    keys.push(Learned { key: address, flags, name: NAMELESS });
                } else {
                    left_out = true;
                }
                continue;
            }
            let named_key = || name_key(network.peer_name(peer));
            let name = at as u32;
            match network.peer_kind(peer) {
                PeerKind::Owner => {
                    keys.push(Learned { key: named_key(), flags: flags::COUNTED, name });
                    keys.push(Learned { key: address, flags: 0, name: NAMELESS });
                }
                PeerKind::AwsService | PeerKind::Network => keys.push(Learned { key: named_key(), flags: flags::COUNTED, name }),
                PeerKind::AwsRented => keys.push(Learned { key: address, flags: flags::COUNTED, name }),
                PeerKind::Private => keys.push(Learned { key: address, flags: flags::UNNAMED | flags::COUNTED, name }),
                PeerKind::Internet => {
                    keys.push(Learned { key: address, flags: flags::COUNTED, name });
                    keys.push(Learned { key: neighbourhood_key(peer.ip), flags: 0, name: NAMELESS });
                }
            }
        }
        let shown = |at: u32| {
            let Some(peer) = network.peers.get(at as usize) else { return String::new() };
            // Their names are their addresses, and the commonest to be shown.
            if matches!(network.peer_kind(peer), PeerKind::Private | PeerKind::Internet) {
                return peer.ip.to_string();
            }
            let name = network.peer_name(peer);
            match name.kind {
                PeerKind::AwsService | PeerKind::Network => name.name.clone(),
                _ if name.name == name.key => name.name.clone(),
                _ => format!("{} ({})", name.name, peer.ip),
            }
        };
        let met = look.ports.all.iter().zip(0u32..).filter(|(port, _)| port.learnable);
        let new_ports = met.clone().filter(|(port, _)| !port.known).count();
        let ports = met.map(|(port, at)| Learned { key: port.key, flags: flags::COUNTED, name: at }).collect();
        let port_shown = |at: u32| look.ports.all.get(at as usize).map_or_else(String::new, |p| text::port(p.port, p.protocol));
        let shown: [(_, _, _, _, &dyn Fn(u32) -> String); 2] =
            [(Space::Peer, &mut profile.peers, keys, new_keys, &shown), (Space::Port, &mut profile.ports, ports, new_ports, &port_shown)];
        for (space, map, keys, new, shown) in shown {
            if settled {
                delta.hour(space, map.rates(context.hour).class(look.deployed), new);
            }
            map.learn(space, context.hour, keys, shown, if settled { new } else { 0 }, delta);
        }
        if left_out {
            profile.peers.overflow(day);
        }
        profile.bytes.learn(outside, context.hour);
        profile.age.learn(context.hour, 0);
    }
}

/// Indices of the peers that are new, one for each new key: the first met, then the smallest address.
fn fresh(look: &NetworkLook<'_, '_>) -> Vec<usize> {
    let new = |(at, peer): (usize, &PeerLook)| (peer.familiarity == Familiarity::New).then_some(at);
    let mut fresh: Vec<usize> = Vec::with_capacity(look.peers.len());
    fresh.extend(look.peers.iter().enumerate().filter_map(new));
    // Who is known by its address has that key alone.
    let mut named: Vec<usize> = fresh.extract_if(.., |at| look.peers[*at].key != look.peers[*at].address).collect();
    if !named.is_empty() {
        let order = |at: &usize| {
            let peer = &look.network.peers[*at];
            (look.peers[*at].key, !look.peers[*at].learnable, peer.first, peer.ip)
        };
        named.sort_unstable_by_key(order);
        named.dedup_by_key(|at| look.peers[*at].key);
        fresh.extend(named);
        fresh.sort_unstable();
    }
    fresh
}

impl NewPeer {
    /// Judges one new peer; `new` is the number of new keys in the hour.
    fn finding(
        &self,
        profile: &NetworkProfile,
        look: &NetworkLook<'_, '_>,
        at: usize,
        new: usize,
        context: &Context<'_>,
    ) -> Option<(i64, Finding)> {
        let network = look.network;
        let (peer, seen) = (network.peers.get(at)?, look.peers.get(at)?);
        let day = context.hour.day();
        let name = network.peer_name(peer);
        let contacts = network.contacts(peer);
        let first = *contacts.iter().min_by_key(|c| (network.conversation(**c).first, c.port, c.protocol))?;
        let rates = profile.peers.rates(context.hour);
        let odds = NoveltyOdds::of(rates, look.deployed, Space::Peer, new, context.fleet);
        let mut evidence = Evidence::default();
        evidence.add("novelty", of_p(odds.p), novelty_words(&odds, look.deployed, new));
        let known_to = context.fleet.prevalence(seen.key);
        let entities = context.fleet.entities(Space::Peer).max(0) as u64;
        let rarity = of_p(context.fleet.rarity(Space::Peer, known_to));
        evidence.add("prevalence", rarity, prevalence_words(known_to, entities));
        let odd_port = look.pairs.iter().filter(|p| p.peer as usize == at && !p.port_known).map(|p| (p.port, p.protocol)).min();
        if let Some((port, protocol)) = odd_port {
            let port_odds = NoveltyOdds::of(profile.ports.rates(context.hour), look.deployed, Space::Port, 1, context.fleet);
            evidence.add(
                "port",
                of_p(port_odds.p),
                format!(
                    "port {} is new for it too, after {}",
                    text::port(port, protocol),
                    text::count(profile.ports.len(day) as u64, "known port")
                ),
            );
        }
        let upload = peer.sent as f64 - peer.received as f64 > 0.7 * (peer.sent as f64 + peer.received as f64);
        if peer.sent >= BYTES_OF_INTEREST
            && let Some(s) = profile.bytes.surprise(peer.sent)
        {
            // Mostly sending is upload: producer/consumer ratio over 0.7 adds one (detectors.md 4).
            let s = (s.min(KIND_CAP) + if upload { 1.0 } else { 0.0 }).min(KIND_CAP);
            let direction = if upload { "; it received only " } else { "; it received " };
            evidence.add(
                "bytes",
                s,
                format!(
                    "{} out, usually {} an hour to all of outside{direction}{}",
                    text::bytes(peer.sent),
                    text::bytes(profile.bytes.usual()),
                    text::bytes(peer.received)
                ),
            );
        }
        let listed = network.listed(peer.ip, peer.first);
        if let Some(hit) = listed.first() {
            evidence.add("list", KIND_CAP, format!("the address is on list `{}` as {}", hit.list, hit.category));
        }
        let refused = !seen.learnable;
        let mut s = evidence.surprise();
        if refused {
            s = (s - 1.0).max(0.0);
        }
        let mut severity = level(s, context.config);
        let mut rule = "";
        if evidence.kinds() < 2 && listed.is_empty() {
            severity = severity.map(|l| l.min(Severity::Low));
        }
        // A small fleet has too little history for numbers alone to speak (detectors.md 0.3).
        if odds.small_fleet && severity.is_none() && rates.r < STEADY && peer.is_outside(name) {
            severity = Some(Severity::Low);
            s = s.max(LOW);
            rule = "\nThe fleet is small, so a rule speaks: a steady entity met an address outside all known ranges.";
        }
        if upload
            && peer.sent >= UPLOAD
            && !look.deployed
            && peer.is_outside(name)
            && profile.bytes.is_beyond(peer.sent)
            && severity.is_some_and(|l| l < Severity::Medium)
        {
            severity = Some(Severity::Medium);
            s = s.max(surprise::MEDIUM);
            rule =
                "\nA rule speaks: an upload to a new address, more than three times the highest hour to all of outside that is remembered.";
        }
        let severity = severity.or(is_signal(s, context.config).then_some(Severity::Informational))?;

        let enis: Vec<u32> = contacts.iter().map(|c| c.eni).collect();
        let mut finding = draft::<Self>(context, &network.id, &network.name, network.region.as_deref());
        attribute(&mut finding, network, enis);
        finding.severity = severity;
        finding.score_milli = milli(s);
        finding.subject_kind = "peer".into();
        finding.subject = peer.ip.to_string();
        finding.subject_name = name.name.clone();
        finding.peer_ip = Some(peer.ip);
        finding.peer_port = Some(i32::from(first.port));
        finding.protocol = Some(i32::from(first.protocol));
        finding.direction = Some("out".into());
        finding.first_seen = peer.first;
        finding.last_seen = peer.last;
        finding.count = peer.flows.min(i64::MAX as u64) as i64;
        finding.bytes_out = peer.sent.min(i64::MAX as u64) as i64;
        finding.bytes_in = peer.received.min(i64::MAX as u64) as i64;
        finding.tactics = vec!["TA0011".into(), "TA0010".into()];
        finding.techniques = vec!["T1071".into(), "T1041".into()];
        finding.evidence = network.evidence(contacts);
        let days = profile.age.days(context.hour);
        finding.learned = json!({
            "days": days, "active_hours": profile.age.active, "known_peers": profile.peers.counted(day), "hours_with_new_peer": (rates.r * 100.0) as u64 as f64 / 100.0,
            "known_ports": profile.ports.len(day), "bytes_out_usual_hour": profile.bytes.usual(), "fleet_entities": entities,
        })
        .to_string();
        let called = if name.name == finding.subject { String::new() } else { format!(" ({})", name.name) };
        let ports = text::port(first.port, first.protocol);
        let target = if peer.ip.is_v4() { format!("{}:{ports}", peer.ip) } else { format!("[{}]:{ports}", peer.ip) };
        let did = match (refused, peer.rejected) {
            (false, _) => "talked to",
            (true, true) => "tried to reach (refused)",
            (true, false) => "tried to reach (no answer)",
        };
        let said = network.said();
        finding.title = format!("{said} {did} {target}{called} for the first time");
        let usual: Vec<&str> = profile.peers.named(day).into_iter().map(|n| n.0).collect();
        let peers_known = text::count(profile.peers.counted(day), "peer");
        finding.explanation = format!(
            "`{said}` {did} {target}{called} {}: {} out, {} in, {}.\n\
             Learned: in {} and {} it had {}{}, and {} with a new one in the last month.\n\
             Unusual because {}.{rule}\n\
             It would have stayed silent had the peer been met in the last 30 days, lain in a known neighbourhood or service, or in the first 14 days.\n{}",
            text::at(peer.first),
            text::bytes(peer.sent),
            text::bytes(peer.received),
            text::count(peer.flows, "flow record"),
            text::count(days.max(0) as u64, "day"),
            text::count(u64::from(profile.age.active), "active hour"),
            peers_known,
            if usual.is_empty() { String::new() } else { format!(" (most recently {})", text::listed(usual, 3)) },
            match (rates.r + 0.5) as u64 {
                0 => "no hour".to_owned(),
                hours => format!("about {}", text::count(hours, "hour")),
            },
            evidence.words(),
            closing(&finding),
        );
        finding.next_steps = format!(
            "1. Ask the owner of {said} whether {} is expected; look for a deploy, a new dependency or a changed endpoint.\n\
             2. Look the address up (reverse DNS, passive DNS, threat intelligence) and query `flows` for other interfaces that talk to it.\n\
             3. If it is not expected: block the address in the security group or network ACL, set the function's reserved concurrency to 0, \
             rotate its role's credentials, and keep the code package for analysis.",
            peer.ip,
        );
        finding.evidence_terms = evidence.terms;
        Some((finding.score_milli, finding))
    }
}

fn novelty_words(odds: &NoveltyOdds, deployed: bool, new: usize) -> String {
    let deploy = if deployed { "it was deployed within the last 24 h" } else { "none was deployed" };
    let several = if new > 1 { format!("; this hour has {new} new ones") } else { String::new() };
    if odds.small_fleet {
        format!("it met a new peer in about {} active hours{several}; {deploy}", text::one_in(odds.p))
    } else {
        format!("entities this steady meet a new peer in {} hours{several}; {deploy}", text::one_in(odds.p))
    }
}

fn prevalence_words(known_to: u32, entities: u64) -> String {
    match known_to {
        0 if entities > 0 => format!("nobody else among {} knows this peer", text::count(entities, "entity")),
        0 => "no other entity is known to talk to this peer".to_owned(),
        n => {
            let knows = if n == 1 { "knows" } else { "know" };
            format!("{} of {} {knows} this peer", text::thousands(u64::from(n)), text::count(entities.max(u64::from(n)), "entity"))
        }
    }
}
