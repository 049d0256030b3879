//! Detector 8, port scan and lateral movement: is it looking for hosts or services, or moving to neighbours?
//!
//! An order-free random walk over the hour's first contacts (Jung et al. 2004): each failure speaks for a scanner, each
//! success against. It is a function of the two counts, so it does not matter in which order the contacts came.

use std::cmp::Reverse;

use flowtrail_enrich::PeerKind;
use flowtrail_ingest::{EventTime, Hour, Ip};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::contact::{Contact, Outcome};
use crate::detectors::new_peer::{Familiarity, NetworkLook, NetworkProfile, tried_key};
use crate::detectors::{Context, Detector, attribute, closing, draft, surprise_of};
use crate::finding::{Finding, Severity};
use crate::fleet::FleetDelta;
use crate::novelty::{HashIndex, Hashed, NoveltyOdds, Space, day16};
use crate::profile::warm_up_of;
use crate::surprise::{CAP, Evidence, MEDIUM, level, milli, of_p};
use crate::text;
use crate::window::{NetworkHour, PeerHour};

/// `ln(.99 / 1e-6)`: detection .99, one false alarm in a million.
const ALARM: f64 = 13.8;
/// Hosts on one port that make a sweep, ports on one host that make a scan (Zeek's scan policy).
pub(crate) const SWEEP_HOSTS: usize = 25;
const SCAN_PORTS: usize = 15;
/// Hosts that must fail for a sweep that others answer: as many as alarm by themselves at the usual success of .8.
const HALF_FAILED: usize = 10;
/// An entity that fails more often than this says nothing by failing at a third of its contacts.
const HALF_SUCCESS: f64 = 0.75;
/// First contacts (answered, failed) that an entity is taken to have made before it was known.
const PRIOR: (f64, f64) = (31.0, 3.0);
/// Tried keys kept, by smallest hash.
const TRIED_MAX: usize = 256;
/// Tried keys are forgotten like known ones.
const TRIED_DAYS: u16 = 30;
/// Hourly pairs kept for slow scans.
const PAIRS_HOURS: i32 = 24;
/// New internal peers on such ports in one hour that make lateral movement.
const LATERAL_PEERS: usize = 3;
/// Administration and data ports (detectors.md 8).
const LATERAL_PORTS: [u16; 16] = [22, 23, 135, 139, 445, 1433, 2375, 3306, 3389, 5432, 5985, 6379, 9200, 10250, 11211, 27017];

/// A (peer, port, protocol) that the profile did not know, with the best outcome of the hour.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Index of the peer in the hour.
    pub peer: u32,
    /// Service port.
    pub port: u16,
    /// IANA protocol.
    pub protocol: u8,
    /// How it went.
    pub outcome: Outcome,
    /// The port is known from other peers.
    pub port_known: bool,
    /// It was tried in vain before.
    pub tried: bool,
    /// If it failed: what it is remembered by as tried.
    pub key: u64,
}

/// What detector 8 remembers of an entity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanBaseline {
    /// First contacts that were answered, up to a day ago: what is being judged must not count as the usual.
    pub good: u32,
    /// First contacts that failed, up to a day ago.
    pub bad: u32,
    /// The last 24 hours.
    hours: Vec<ScanHour>,
    /// What was tried in vain, sorted, the smallest hashes.
    #[serde(with = "crate::packed")]
    tried: Vec<Tried>,
}

/// What was tried in vain: (hash, last day).
pub(crate) type Tried = (u64, u16);

impl Hashed for Tried {
    fn key(&self) -> u64 {
        self.0
    }
}

/// First contacts of one hour.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ScanHour {
    hour: Hour,
    answered: u16,
    failed: u16,
    /// It was told as a scan: no example of the usual.
    alarmed: bool,
}

impl ScanBaseline {
    /// The peers, and peers and ports, that failed before.
    pub(crate) fn tried(&self) -> HashIndex<'_, Tried> {
        HashIndex::new(&self.tried)
    }

    /// The usual share of first contacts that are answered: 5 % lower bound (Wilson), between .3 and .95.
    ///
    /// It starts from [`PRIOR`], at .8: a steady entity makes so few first contacts that a bound from those alone would
    /// let it scan 30 ports unseen.
    #[must_use]
    pub fn usual_success(&self) -> f64 {
        let (n, z) = (f64::from(self.good) + f64::from(self.bad) + PRIOR.0 + PRIOR.1, 1.645);
        let p = (f64::from(self.good) + PRIOR.0) / n;
        let centre = p + z * z / (2.0 * n);
        let spread = z * libm::sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n));
        ((centre - spread) / (1.0 + z * z / n)).clamp(0.3, 0.95)
    }

    fn forget(&mut self, day: u16) {
        self.tried.retain(|(_, last)| day <= last.saturating_add(TRIED_DAYS));
    }

    /// True if `key` is among what was tried, or would come in.
    fn admits(&self, key: u64) -> bool {
        self.tried.len() < TRIED_MAX || self.tried.last().is_some_and(|last| key <= last.0)
    }

    /// Takes in keys that were tried in vain on `day`, in any order: the smallest stay.
    fn remember(&mut self, keys: &mut Vec<u64>, day: u16) {
        keys.sort_unstable();
        keys.dedup();
        let known = self.tried.len();
        let mut at = 0;
        for key in keys.iter() {
            while self.tried[at..known].first().is_some_and(|t| t.0 < *key) {
                at += 1;
            }
            match self.tried[at..known].first_mut() {
                Some(tried) if tried.0 == *key => tried.1 = day,
                _ => self.tried.push((*key, day)),
            }
        }
        if self.tried.len() > known {
            // Two sorted stretches, which the stable sort merges.
            self.tried.sort_by_key(|t| t.0);
            self.tried.truncate(TRIED_MAX);
        }
    }
}

/// Log-likelihood that `s` answered and `f` failed contacts are a scanner's, against an entity whose first contacts
/// are usually answered with probability `t0`.
fn walk(s: f64, f: f64, t0: f64) -> f64 {
    let t1 = t0 / 4.0;
    f * libm::log((1.0 - t1) / (1.0 - t0)) + s * libm::log(t1 / t0)
}

/// Detector 8.
pub struct Scan;

/// First contacts of an hour that count.
#[derive(Copy, Clone, Default)]
pub(crate) struct Tally {
    answered: usize,
    failed: usize,
    /// Failed and not tried in vain before: a dead neighbour that is asked every hour is one failure, not one an hour.
    failed_first: usize,
}

/// Which first contacts a finding is made of.
enum Wanted {
    /// Those to one port of a protocol.
    Port(u16, u8),
    /// Those to one host.
    Host(Ip),
    /// Those that failed.
    Failed,
}

/// Why an hour alarms.
#[derive(Copy, Clone)]
pub(crate) struct Alarm {
    tally: Tally,
    /// Past warm-up.
    warm: bool,
    /// The usual share of first contacts that are answered.
    t0: f64,
    /// Log-likelihoods of the hour, and of the last 24.
    now: f64,
    slow: f64,
    /// Failed in the 23 hours before.
    failed_before: u64,
    is_slow: bool,
    /// As [`half_answered`] and [`shape`] give them, where they are wide or deep enough.
    half: Option<(usize, (u16, u8))>,
    sweep: Option<(usize, (u16, u8))>,
    scan: Option<(usize, Ip)>,
}

/// A first contact that counts: answered, or failed for another reason than that nobody reaches the peer.
fn counts(look: &NetworkLook<'_, '_>, outage: &[Ip], pair: &Pair) -> bool {
    match pair.outcome {
        Outcome::Succeeded => true,
        Outcome::Unclear => false,
        Outcome::Failed => {
            outage.is_empty() || look.network.peers.get(pair.peer as usize).is_some_and(|p| outage.binary_search(&p.ip).is_err())
        }
    }
}

fn tally(look: &NetworkLook<'_, '_>, outage: &[Ip]) -> Tally {
    *look.found.tally.get_or_init(|| {
        let mut tally = Tally::default();
        for pair in look.pairs.iter().filter(|p| counts(look, outage, p)) {
            if pair.outcome == Outcome::Succeeded {
                tally.answered += 1;
            } else {
                tally.failed += 1;
                tally.failed_first += usize::from(!pair.tried);
            }
        }
        tally
    })
}

/// A sweep that many answer: at least [`SWEEP_HOSTS`] new hosts on one port, of which at least [`HALF_FAILED`] and a
/// third failed. Who works through a list of hosts that mostly live is answered too often for the walk to alarm, which
/// weighs an answer as much as several failures. (hosts, port); ties go to the smaller port.
fn half_answered(look: &NetworkLook<'_, '_>, outage: &[Ip]) -> Option<(usize, (u16, u8))> {
    let failed_first = |p: &Pair| p.outcome == Outcome::Failed && !p.tried;
    let counted = look.pairs.iter().filter(|p| counts(look, outage, p));
    // The lowest bit tells those that failed.
    let mut ports: Vec<u32> = Vec::with_capacity(look.pairs.len());
    ports.extend(counted.map(|p| port_number(p) << 1 | u32::from(failed_first(p))));
    ports.sort_unstable();
    let hosts = ports.chunk_by(|a, b| a >> 1 == b >> 1).map(|of| (of[0] >> 1, of.len(), of.iter().filter(|p| **p & 1 != 0).count()));
    let swept = hosts.filter(|(_, n, failed)| *n >= SWEEP_HOSTS && *failed >= HALF_FAILED && failed * 3 >= *n);
    swept.max_by_key(|(port, n, failed)| (*n, *failed, Reverse(*port))).map(|(port, n, _)| (n, port_of_number(port)))
}

/// Port and protocol as one number in the same order, which sorts fast.
fn port_number(pair: &Pair) -> u32 {
    u32::from(pair.port) << 8 | u32::from(pair.protocol)
}

fn port_of_number(number: u32) -> (u16, u8) {
    ((number >> 8) as u16, number as u8)
}

/// The port with the most hosts, and the host with the most ports. A scan that finds something is still one: answered
/// contacts count towards its shape. Ties go to the smaller port or address.
#[allow(clippy::type_complexity)]
fn shape(look: &NetworkLook<'_, '_>, outage: &[Ip]) -> (Option<(usize, (u16, u8))>, Option<(usize, Ip)>) {
    let counted = || look.pairs.iter().filter(|p| counts(look, outage, p));
    let mut ports: Vec<u32> = Vec::with_capacity(look.pairs.len());
    ports.extend(counted().map(port_number));
    ports.sort_unstable();
    let widest = most(ports.into_iter()).map(|(n, port)| (n, port_of_number(port)));
    // Pairs come peer by peer, and peers by address.
    let deepest = most(counted().map(|p| p.peer));
    let ip = |peer: u32| look.network.peers.get(peer as usize).map(|p| p.ip);
    (widest, deepest.and_then(|(n, peer)| Some((n, ip(peer)?))))
}

/// What occurs most often among sorted items, and how often; ties go to the smaller one.
fn most<T: PartialEq + Copy>(items: impl Iterator<Item = T>) -> Option<(usize, T)> {
    let mut best: Option<(usize, T)> = None;
    let mut run: Option<(usize, T)> = None;
    for item in items {
        let length = run.filter(|r| r.1 == item).map_or(1, |r| r.0 + 1);
        run = Some((length, item));
        if best.is_none_or(|b| b.0 < length) {
            best = run;
        }
    }
    best
}

impl Detector for Scan {
    const NAME: &'static str = "scan";
    const VERSION: i32 = 2;
    type Baseline = NetworkProfile;
    type Hour<'h> = NetworkLook<'h, 'h>;

    fn judge(&self, profile: &NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !look.network.forwards {
            findings.extend(self.scanning(profile, look, context));
            findings.extend(self.lateral(profile, look, context));
        }
        findings.extend(self.scanned(look, context));
        findings
    }

    fn learn(&self, profile: &mut NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>, _delta: &mut FleetDelta) {
        let tally = tally(look, context.outage);
        let alarm = alarm_of(profile, look, context).is_some();
        let scan = &mut profile.scan;
        let oldest = context.hour.0.saturating_sub(PAIRS_HOURS - 1);
        for past in scan.hours.iter().filter(|h| h.hour.0 < oldest && !h.alarmed) {
            scan.good = scan.good.saturating_add(u32::from(past.answered));
            scan.bad = scan.bad.saturating_add(u32::from(past.failed));
        }
        scan.hours.retain(|h| h.hour.0 >= oldest);
        if scan.good.saturating_add(scan.bad) > 100_000 {
            scan.good /= 2;
            scan.bad /= 2;
        }
        if tally.answered + tally.failed_first > 0 {
            let short = |n: usize| n.min(usize::from(u16::MAX)) as u16;
            scan.hours.push(ScanHour {
                hour: context.hour,
                answered: short(tally.answered),
                failed: short(tally.failed_first),
                alarmed: alarm,
            });
        }
        let network = look.network;
        let day = day16(context.hour.day());
        // What is not too old for a day was not so in an earlier hour of it.
        if day16(profile.age.last.day()) != day {
            scan.forget(day);
        }
        let mut tried: Vec<u64> = Vec::with_capacity(TRIED_MAX);
        let mut add = |key: u64| {
            if scan.admits(key) {
                tried.push(key);
            }
        };
        look.pairs.iter().filter(|p| p.outcome == Outcome::Failed).for_each(|pair| add(pair.key));
        for (peer, seen) in network.peers.iter().zip(&look.peers) {
            if seen.familiarity != Familiarity::Known && (peer.outcome == Outcome::Failed || !peer.answered) {
                add(tried_key(peer.ip));
            }
        }
        scan.remember(&mut tried, day);
    }
}

/// What `scanning` tells of, if anything: numbers alone, for learning asks it of every hour, too.
fn alarm_of(profile: &NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Option<Alarm> {
    *look.found.alarm.get_or_init(|| Scan.alarm(profile, look, context))
}

impl Scan {
    fn alarm(&self, profile: &NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Option<Alarm> {
        let tally = tally(look, context.outage);
        if tally.failed == 0 {
            return None;
        }
        let warm = profile.age.past(warm_up_of(Self::NAME), context.hour);
        let t0 = if warm { profile.scan.usual_success() } else { 0.8 };
        let now = walk(tally.answered as f64, tally.failed as f64, t0);
        let oldest = context.hour.0.saturating_sub(PAIRS_HOURS - 1);
        let past = profile.scan.hours.iter().filter(|h| h.hour.0 >= oldest && h.hour < context.hour);
        let (s, f) = past.fold((0u64, 0u64), |(s, f), h| (s + u64::from(h.answered), f + u64::from(h.failed)));
        let slow = walk(s as f64 + tally.answered as f64, f as f64 + tally.failed_first as f64, t0);
        let is_slow = now < ALARM && slow >= ALARM && tally.failed_first > 0 && f > 0;
        let may_be_half = now < ALARM && !is_slow && t0 >= HALF_SUCCESS && tally.failed_first >= HALF_FAILED;
        let half = if may_be_half { half_answered(look, context.outage) } else { None };
        if now < ALARM && !is_slow && half.is_none() {
            return None;
        }
        let (sweep, scan) = shape(look, context.outage);
        let sweep = half.or_else(|| sweep.filter(|s| s.0 >= SWEEP_HOSTS));
        let scan = scan.filter(|s| s.0 >= SCAN_PORTS && half.is_none());
        if !warm && sweep.is_none() && scan.is_none() {
            return None;
        }
        Some(Alarm { tally, warm, t0, now, slow, failed_before: f, is_slow, half, sweep, scan })
    }

    fn scanning(&self, profile: &NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Option<Finding> {
        let Alarm { tally, warm, t0, now, slow, failed_before: f, is_slow, half, sweep, scan } = alarm_of(profile, look, context)?;
        let network = look.network;
        let said = network.said();
        let ip_of = |peer: u32| network.peers.get(peer as usize).map(|p| p.ip);
        let l = if is_slow { slow } else { now };
        let mut s_walk = (l / core::f64::consts::LN_10).min(CAP);
        let (subject_kind, subject, title, severity, technique, wanted);
        let tries = |n: usize| text::count(n as u64, "failed first contact");
        match (sweep, scan) {
            (Some((hosts, (port, protocol))), other) if other.is_none_or(|o| o.0 < hosts) => {
                wanted = Wanted::Port(port, protocol);
                let port = text::port(port, protocol);
                (subject_kind, subject) = ("port", format!("port {port}"));
                title = format!("{said} swept {} on port {port}", text::count(hosts as u64, "host"));
                (severity, s_walk) = match half {
                    Some(_) => (Severity::Low, surprise_of(Severity::Low)),
                    None => (level(s_walk, context.config).unwrap_or(Severity::Medium).max(Severity::Medium), s_walk),
                };
                technique = "T1018";
            }
            (_, Some((ports, ip))) => {
                wanted = Wanted::Host(ip);
                (subject_kind, subject) = ("host", ip.to_string());
                title = format!("{said} scanned {} of {ip}", text::count(ports as u64, "port"));
                severity = level(s_walk, context.config).unwrap_or(Severity::Medium).max(Severity::Medium);
                technique = "T1046";
            }
            _ => {
                wanted = Wanted::Failed;
                (subject_kind, subject) = ("contacts", "many failed contacts".to_owned());
                title = if is_slow {
                    format!("{said} failed to reach new peers again and again over 24 hours")
                } else {
                    format!("{said} had {}", tries(tally.failed))
                };
                severity = Severity::Low;
                s_walk = s_walk.min(MEDIUM - 0.001);
                technique = "T1046";
            }
        }
        let wanted = |pair: &Pair| match wanted {
            Wanted::Port(port, protocol) => text::same_port((pair.port, pair.protocol), (port, protocol)),
            Wanted::Host(ip) => ip_of(pair.peer) == Some(ip),
            Wanted::Failed => pair.outcome == Outcome::Failed,
        };
        let mut pairs: Vec<&Pair> = Vec::with_capacity(look.pairs.len());
        pairs.extend(look.pairs.iter().filter(|p| wanted(p)));
        let contacts: Vec<Contact> = contacts_of(look, &pairs);
        let mut finding = draft::<Self>(context, &network.id, &network.name, network.region.as_deref());
        fill(&mut finding, look, &contacts);
        finding.severity = severity;
        finding.score_milli = milli(s_walk);
        finding.subject_kind = subject_kind.to_owned();
        finding.subject_name.clone_from(&subject);
        finding.subject = subject;
        finding.direction = Some("out".into());
        if subject_kind == "port" {
            finding.peer_port = pairs.first().map(|p| i32::from(p.port));
            finding.protocol = pairs.first().map(|p| i32::from(p.protocol));
        } else if subject_kind == "host" {
            finding.peer_ip = pairs.first().and_then(|p| ip_of(p.peer));
        }
        finding.tactics = vec!["TA0007".into()];
        finding.techniques = if technique == "T1018" { vec!["T1046".into(), "T1018".into()] } else { vec!["T1046".into()] };
        let usual = profile.scan.good + profile.scan.bad;
        finding.learned = json!({
            "days": profile.age.days(context.hour), "active_hours": profile.age.active, "first_contacts_answered": profile.scan.good,
            "first_contacts_failed": profile.scan.bad, "usual_success_milli": milli(t0), "failed_in_24_hours": f,
        })
        .to_string();
        finding.evidence_terms.push(crate::finding::Term {
            kind: "walk".into(),
            s_milli: milli(s_walk),
            says: match half {
                Some((hosts, _)) => format!("{hosts} new hosts on one port, at least a third of which failed"),
                None => format!("{} and {} answered weigh L = {l:.1} against a limit of {ALARM}", tries(tally.failed), tally.answered),
            },
        });
        let refused = pairs.iter().filter(|p| p.outcome == Outcome::Failed).count();
        let answered = pairs.iter().filter(|p| p.outcome == Outcome::Succeeded).count();
        // Pairs come peer by peer.
        let hosts = pairs.chunk_by(|a, b| a.peer == b.peer).count();
        let ports = distinct(pairs.iter().map(|p| port_number(p)));
        let slow_words =
            if is_slow { format!(" Together with {f} failed ones of the 23 hours before it is a slow scan.") } else { String::new() };
        let learned = match usual {
            0 => "no first contact of it was seen before".to_owned(),
            _ => format!(
                "in {} {} of its {} failed ({} %)",
                text::count(profile.age.days(context.hour).max(0) as u64, "day"),
                profile.scan.bad,
                text::count(u64::from(usual), "first contact"),
                u64::from(profile.scan.bad) * 100 / u64::from(usual)
            ),
        };
        let unusual = match half {
            Some((hosts, _)) => format!(
                "{hosts} hosts it never met on one port within an hour, a third or more of them in vain, is how a list of targets is worked through; \
                 so many answered that it may also be a crawler, hence only low"
            ),
            None => format!(
                "the first contacts of this entity are answered at least {:.0} % of the time, and so many failures are e^{l:.1} times likelier from a scanner",
                t0 * 100.0
            ),
        };
        let silent = match half {
            Some(_) => format!("below {SWEEP_HOSTS} new hosts on a port or {HALF_FAILED} failures among them"),
            None => {
                format!("below about {:.0} more failures than answers", (ALARM / libm::log((1.0 - t0 / 4.0) / (1.0 - t0))).max(1.0))
            }
        };
        finding.explanation = format!(
            "`{said}` tried {} on {} it did not know, {}: {refused} were refused or never answered, {answered} were answered.{slow_words}\n\
             Learned: {learned}.\n\
             Unusual because {unusual}.\n\
             It would have stayed silent {silent}, or had the peers been known{}.\n{}",
            text::count(ports as u64, "port"),
            text::count(hosts as u64, "host"),
            text::during(context.hour),
            if warm { "" } else { ", and in its first 3 days below 25 hosts on a port or 15 ports of a host" },
            closing(&finding),
        );
        finding.title = title;
        finding.next_steps = format!(
            "1. Find out what {said} ran in that hour: a scanner, a health check with a wrong list, or somebody's shell.\n\
             2. Look in `flows` at the contacts that were answered: they are what was found.\n\
             3. If nobody can explain it: cut the security group's outbound rules to the known peers, set reserved concurrency to 0, and rotate the role's credentials.",
        );
        Some(finding)
    }

    /// Answered by several new internal peers on administration or data ports.
    fn lateral(&self, profile: &NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Option<Finding> {
        let network = look.network;
        if !profile.age.past(warm_up_of(Self::NAME), context.hour) || profile.peers.is_dynamic(context.hour.day()) {
            return None;
        }
        let pairs = lateral_pairs(look);
        let peers = distinct(pairs.iter().map(|p| p.peer));
        if peers == 0 {
            return None;
        }
        let rates = profile.peers.rates(context.hour);
        let odds = NoveltyOdds::of(rates, look.deployed, Space::Peer, peers, context.fleet);
        let mut evidence = Evidence::default();
        evidence.add(
            "pattern",
            3.0,
            format!("{} on administration or data ports answered in one hour", text::count(peers as u64, "new internal peer")),
        );
        evidence.add("novelty", of_p(odds.p), format!("so many new peers at once come in about {} of its hours", text::one_in(odds.p)));
        let s = evidence.surprise().max(surprise_of(Severity::Low));
        let contacts = contacts_of(look, &pairs);
        let mut finding = draft::<Self>(context, &network.id, &network.name, network.region.as_deref());
        fill(&mut finding, look, &contacts);
        finding.severity = level(s, context.config).unwrap_or(Severity::Low);
        finding.score_milli = milli(s);
        finding.subject_kind = "lateral".into();
        finding.subject = "lateral movement".into();
        finding.subject_name = "lateral movement".into();
        finding.direction = Some("out".into());
        finding.tactics = vec!["TA0008".into()];
        finding.techniques = vec!["T1021".into(), "T1210".into()];
        let ports: Vec<String> = {
            let mut ports: Vec<u16> = pairs.iter().map(|p| p.port).collect();
            ports.sort_unstable();
            ports.dedup();
            ports.into_iter().map(|p| p.to_string()).collect()
        };
        let names: Vec<String> = {
            let mut seen: Vec<u32> = pairs.iter().map(|p| p.peer).collect();
            seen.dedup();
            seen.into_iter().filter_map(|p| network.peers.get(p as usize)).map(|p| shown(&network.peer_name(p).name, p.ip)).collect()
        };
        let said = network.said();
        finding.title = format!(
            "{said} reached {} on port {}",
            text::count(peers as u64, "new internal peer"),
            text::listed(ports.iter().map(String::as_str), 4)
        );
        finding.learned = json!({ "days": profile.age.days(context.hour), "active_hours": profile.age.active, "known_peers": profile.peers.counted(context.hour.day()) }).to_string();
        finding.explanation = format!(
            "`{said}` was answered by {} it never talked to before, on port {}, {}: {}.\n\
             Learned: in {} and {} it had {}.\n\
             Unusual because {}.\n\
             It would have stayed silent with fewer than {LATERAL_PEERS} such peers, or had it met them before.\n{}",
            text::count(peers as u64, "internal peer"),
            text::listed(ports.iter().map(String::as_str), 6),
            text::during(context.hour),
            text::listed(names.iter().map(String::as_str), 6),
            text::count(profile.age.days(context.hour).max(0) as u64, "day"),
            text::count(u64::from(profile.age.active), "active hour"),
            text::count(profile.peers.counted(context.hour.day()), "known peer"),
            evidence.words(),
            closing(&finding),
        );
        finding.evidence_terms = evidence.terms;
        finding.next_steps = "1. Ask whether a new database, cache or host was meant to be used; look for a deploy in the day before.\n\
             2. Look at the reached hosts' own logs for logins and queries at that time.\n\
             3. If it is not explained: take the security group's access to these ports away, set the function's reserved concurrency to 0, and change the credentials it could read."
            .into();
        Some(finding)
    }

    /// Many sources or ports refused at one of our addresses: somebody scans us. One finding per target.
    fn scanned(&self, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Vec<Finding> {
        let network = look.network;
        let own = |c: &Contact| own_address(network, c);
        let rejected = || network.inbound.iter().filter(|c| network.was_rejected(c));
        let mut refused: Vec<(Ip, Contact)> = Vec::with_capacity(rejected().count());
        refused.extend(rejected().map(|c| (own(c), *c)));
        // Most interfaces have one address; contacts of one keep their order.
        refused.sort_by_key(|r| r.0);
        let mut findings = Vec::new();
        for target in refused.chunk_by(|a, b| a.0 == b.0).filter(|target| target.len() >= SCAN_PORTS.min(SWEEP_HOSTS)) {
            let ip = target[0].0;
            let contacts: Vec<Contact> = target.iter().map(|t| t.1).collect();
            let mut sources: Vec<Ip> = contacts.iter().map(|c| c.peer).collect();
            let mut ports: Vec<(u16, u8)> = contacts.iter().map(|c| (c.port, c.protocol)).collect();
            sources.sort_unstable();
            // Who was refused at many ports and answered at another has found something.
            let busy: Vec<Ip> = sources.chunk_by(|a, b| a == b).filter(|tries| tries.len() >= SCAN_PORTS).map(|tries| tries[0]).collect();
            sources.dedup();
            ports.sort_unstable();
            ports.dedup();
            if sources.len() < SWEEP_HOSTS && ports.len() < SCAN_PORTS {
                continue;
            }
            let mut answered: Vec<Contact> = Vec::new();
            if !busy.is_empty() {
                let good = network.inbound.iter().filter(|c| c.outcome == Outcome::Succeeded && busy.binary_search(&c.peer).is_ok());
                answered.extend(good.filter(|c| own(c) == ip).copied());
            }
            let severity = if answered.is_empty() { Severity::Informational } else { Severity::Low };
            let mut finding = draft::<Self>(context, &network.id, &network.name, network.region.as_deref());
            fill(&mut finding, look, &contacts);
            finding.severity = severity;
            finding.score_milli = milli(surprise_of(severity));
            finding.subject_kind = "target".into();
            finding.subject = ip.to_string();
            finding.subject_name = network.name.clone();
            finding.direction = Some("in".into());
            finding.tactics = vec!["TA0007".into()];
            finding.techniques = vec!["T1046".into()];
            let (by, at) = (text::count(sources.len() as u64, "source"), text::count(ports.len() as u64, "port"));
            let who = list_of_sources(network, &contacts, context);
            finding.title = format!("{} was scanned: {at} refused to {by} at {ip}", network.name);
            finding.evidence_terms.push(crate::finding::Term {
                kind: "walk".into(),
                s_milli: milli(surprise_of(severity)),
                says: format!("{} on {} refused", text::count(sources.len() as u64, "source"), text::count(ports.len() as u64, "port")),
            });
            finding.explanation = format!(
                "{by} tried {at} at {ip} of `{}` and {} refused, {}: {who}.{}\n\
                 Learned: nothing is learned of refused visitors; this counts from {SWEEP_HOSTS} sources or {SCAN_PORTS} ports on.\n\
                 Unusual {}.\n\
                 It would have stayed silent below {SWEEP_HOSTS} sources and {SCAN_PORTS} ports.\n{}",
                network.name,
                if sources.len() == 1 { "was" } else { "were" },
                text::during(context.hour),
                if answered.is_empty() {
                    String::new()
                } else {
                    format!(" One that was refused at many ports was answered at {}.", text::count(answered.len() as u64, "other contact"))
                },
                if sources.iter().any(|ip| ip.is_private()) {
                    "in number; a private source is a neighbour, whose own flow records say what else it tried"
                } else {
                    "only in number: addresses that the internet can reach see this every day"
                },
                closing(&finding),
            );
            finding.next_steps =
                "1. Check that the interface is meant to be reachable from there.\n2. If something answered, look at that port first."
                    .into();
            findings.push(finding);
        }
        findings
    }
}

/// What makes lateral movement: answers of at least [`LATERAL_PEERS`] new internal peers on administration or data ports.
/// Empty below that.
pub(crate) fn lateral_pairs<'l>(look: &'l NetworkLook<'_, '_>) -> Vec<&'l Pair> {
    let network = look.network;
    let internal = |peer: &PeerHour| peer.ip.is_private() || network.peer_kind(peer) == PeerKind::Owner;
    let pairs: Vec<&Pair> = look
        .pairs
        .iter()
        .filter(|p| p.outcome == Outcome::Succeeded && p.protocol == 6 && LATERAL_PORTS.contains(&p.port))
        .filter(|p| look.peers.get(p.peer as usize).is_some_and(|l| l.familiarity != Familiarity::Known))
        .filter(|p| network.peers.get(p.peer as usize).is_some_and(internal))
        .collect();
    if distinct(pairs.iter().map(|p| p.peer)) < LATERAL_PEERS { Vec::new() } else { pairs }
}

/// The interface's own address in a contact.
pub(crate) fn own_address(network: &NetworkHour<'_>, contact: &Contact) -> Ip {
    let conversation = network.conversation(*contact);
    if contact.own_client { conversation.client } else { conversation.server }
}

/// A few of those who were refused, the busiest first.
fn list_of_sources(network: &NetworkHour<'_>, contacts: &[Contact], context: &Context<'_>) -> String {
    let mut sources: Vec<Ip> = contacts.iter().map(|c| c.peer).collect();
    sources.sort_unstable();
    let mut tries: Vec<(std::cmp::Reverse<usize>, Ip)> =
        sources.chunk_by(|a, b| a == b).map(|same| (std::cmp::Reverse(same.len()), same[0])).collect();
    tries.sort_unstable();
    let eni = contacts.first().and_then(|c| network.enis.get(c.eni as usize)).map_or("", |e| e.eni);
    let names: Vec<String> = tries
        .iter()
        .take(4)
        .map(|(_, ip)| shown(&network.name_of(eni, *ip, context.hour.start(), context.hour.start()).name, *ip))
        .collect();
    let more = tries.len().saturating_sub(names.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", names.join(", "))
}

fn shown(name: &str, ip: Ip) -> String {
    let address = ip.to_string();
    if name == address { address } else { format!("{name} ({address})") }
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> usize {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items.len()
}

/// The contacts of these pairs.
fn contacts_of(look: &NetworkLook<'_, '_>, pairs: &[&Pair]) -> Vec<Contact> {
    let mut contacts = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let Some(peer) = look.network.peers.get(pair.peer as usize) else { continue };
        contacts.extend(look.network.contacts(peer).iter().filter(|c| c.port == pair.port && c.protocol == pair.protocol));
    }
    contacts
}

/// Times, counts, bytes, who and where of a finding, from its contacts.
pub(crate) fn fill(finding: &mut Finding, look: &NetworkLook<'_, '_>, contacts: &[Contact]) {
    let network = look.network;
    attribute(finding, network, contacts.iter().map(|c| c.eni));
    let (mut first, mut last, mut flows, mut sent, mut received) = (EventTime::MAX, EventTime::MIN, 0u64, 0u64, 0u64);
    for contact in contacts {
        let c = network.conversation(*contact);
        let (out, back) = (contact.sent(c), contact.received(c));
        first = first.min(c.first);
        last = last.max(c.last);
        flows += u64::from(out.flows) + u64::from(back.flows);
        sent = sent.saturating_add(out.bytes);
        received = received.saturating_add(back.bytes);
    }
    finding.first_seen = first;
    finding.last_seen = last;
    finding.count = flows.min(i64::MAX as u64) as i64;
    finding.bytes_out = sent.min(i64::MAX as u64) as i64;
    finding.bytes_in = received.min(i64::MAX as u64) as i64;
    finding.evidence = network.evidence(contacts);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_net_failures_alarm_at_a_usual_success_of_eighty_percent() {
        assert!(walk(0.0, 9.0, 0.8) < ALARM && walk(0.0, 10.0, 0.8) >= ALARM);
        assert!(walk(5.0, 14.0, 0.8) < ALARM && walk(0.0, 58.0, 0.95) > ALARM);
    }

    #[test]
    fn what_occurs_most_wins_and_ties_go_to_the_smaller() {
        assert_eq!(most::<u8>([].into_iter()), None);
        assert_eq!(most([1, 2, 3, 3].into_iter()), Some((2, 3)));
        assert_eq!(most([1, 1, 2, 3, 3].into_iter()), Some((2, 1)));
    }

    #[test]
    fn usual_success_stays_in_its_bounds() {
        let with = |good, bad| ScanBaseline { good, bad, ..ScanBaseline::default() }.usual_success();
        assert!((0.795..0.805).contains(&with(0, 0)), "{}", with(0, 0));
        assert_eq!(with(0, 500), 0.3);
        assert_eq!(with(100_000, 0), 0.95);
        assert!(with(2, 0) > with(0, 0) && (0.45..0.53).contains(&with(500, 500)));
    }

    #[test]
    fn what_was_tried_is_capped_by_hash_and_forgotten() {
        let has_tried = |scan: &ScanBaseline, key| scan.tried().find(key).is_some();
        let mut scan = ScanBaseline::default();
        let keys: Vec<u64> = (0..1000).map(|k| k * 7).collect();
        scan.remember(&mut keys.iter().rev().copied().collect(), 100);
        assert!(has_tried(&scan, 0) && has_tried(&scan, 255 * 7) && !has_tried(&scan, 256 * 7) && !has_tried(&scan, 1));
        assert!(scan.admits(255 * 7) && scan.admits(1) && !scan.admits(256 * 7));
        scan.remember(&mut vec![3, 7, 3], 120);
        assert!(has_tried(&scan, 3) && has_tried(&scan, 254 * 7) && !has_tried(&scan, 255 * 7));
        scan.forget(131);
        assert!(has_tried(&scan, 3) && has_tried(&scan, 7) && !has_tried(&scan, 0) && scan.tried.len() == 2);
    }
}
