//! The hours of an account's entities: the account-hour, oriented, grouped and owned.
//!
//! Everything that asks who held an address is asked here, once per interface or distinct address. Built from a merged
//! [`AccountHour`] and [`Facts`] alone, and for both drivers alike. It runs over every conversation there is, so it
//! works by runs of one interface and makes no text per conversation.

use std::borrow::Cow;
use std::cell::OnceCell;

use flowtrail_enrich::{Attributed, Attribution, Candidate, PeerKind, PeerName};
use flowtrail_ingest::{EventTime, Ip};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::contact::{Contact, Outcome};
use crate::entity::{EntityId, EntityKind, short_name};
use crate::escalation::StepKind;
use crate::event_id::EventId;
use crate::finding::EvidenceRef;
use crate::hour::{AccountHour, ApiRow, Conversation, NONE, call_marks};
use crate::judge::Facts;

/// An account-hour as its entities' hours.
pub struct Window<'a> {
    /// What it was made from.
    pub hour: &'a AccountHour,
    /// Network entities, sorted by id.
    pub networks: Vec<NetworkHour<'a>>,
    /// Functions by what their code called, sorted by ARN.
    pub functions: Vec<FunctionHour<'a>>,
    /// Principals that made a step (see [`crate::escalation`]), sorted.
    pub principals: Vec<PrincipalHour<'a>>,
    /// Flow records by attribution of their own end: exact, candidates, other, unheld, unknown.
    pub attribution: [u64; 5],
    /// … of those new in this call.
    pub attribution_new: [u64; 5],
}

/// One interface in an entity's hour.
#[derive(Clone, Debug)]
pub struct EniHour<'a> {
    /// `eni-…`
    pub eni: &'a str,
    /// Who held it over its conversations of the hour.
    pub owner: Attributed,
}

/// The hour of a network entity.
pub struct NetworkHour<'a> {
    /// The account-hour.
    pub hour: &'a AccountHour,
    facts: &'a Facts<'a>,
    /// Identity.
    pub id: EntityId,
    /// Name for people.
    pub name: String,
    /// Region, where known.
    pub region: Option<String>,
    /// Its interfaces, sorted by id.
    pub enis: Vec<EniHour<'a>>,
    /// The interfaces are Lambda's.
    pub lambda: bool,
    /// It forwards what others send (NAT and transit gateways): its peers say nothing about itself.
    pub forwards: bool,
    /// Contacts that the entity opened, sorted by (peer, port, protocol, …).
    pub outbound: Vec<Contact>,
    /// Contacts that others opened, sorted by (port, protocol, peer, …).
    pub inbound: Vec<Contact>,
    /// The peers of `outbound`, sorted.
    pub peers: Vec<PeerHour>,
}

/// All of one peer's contacts, opened by the entity.
pub struct PeerHour {
    /// The address.
    pub ip: Ip,
    /// Range in [`NetworkHour::outbound`].
    pub contacts: std::ops::Range<u32>,
    /// The best outcome of its contacts.
    pub outcome: Outcome,
    /// Some contact had a packet back.
    pub answered: bool,
    /// All contacts were rejected.
    pub rejected: bool,
    /// Flow records both ways.
    pub flows: u64,
    /// Bytes to the peer.
    pub sent: u64,
    /// Bytes from the peer.
    pub received: u64,
    /// First second.
    pub first: EventTime,
    /// Last second.
    pub last: EventTime,
    kind: OnceCell<PeerKind>,
    name: OnceCell<Box<PeerName>>,
}

/// The hour of a function: what its code called.
pub struct FunctionHour<'a> {
    /// ARN without qualifier.
    pub arn: &'a str,
    /// Calls by (service, action), sorted.
    pub actions: Vec<ActionHour<'a>>,
}

/// One action of a function in an hour.
pub struct ActionHour<'a> {
    /// `iam`
    pub service: &'a str,
    /// `CreateAccessKey`
    pub action: &'a str,
    /// Region of the first call.
    pub region: Option<&'a str>,
    /// Calls.
    pub count: u64,
    /// Calls with an error.
    pub errors: u64,
    /// Calls that were denied.
    pub denied: u64,
    /// Some call was no read.
    pub write: bool,
    /// First call.
    pub first: EventTime,
    /// Last call.
    pub last: EventTime,
    /// The role of a first AssumeRole into another account.
    pub foreign_role: Option<&'a str>,
    /// Principal of the first call.
    pub principal: &'a str,
    /// The first rows, up to 10.
    pub rows: SmallVec<[u32; 4]>,
}

/// The steps of a principal in an hour.
pub struct PrincipalHour<'a> {
    /// Role or user ARN.
    pub principal: &'a str,
    /// Rows with a step, by (time, id).
    pub rows: Vec<u32>,
}

impl<'a> Window<'a> {
    /// Orients, groups and names one account-hour.
    #[must_use]
    pub fn build(hour: &'a AccountHour, facts: &'a Facts<'a>) -> Self {
        let mut window = Self {
            hour,
            networks: Vec::new(),
            functions: functions(hour),
            principals: principals(hour),
            attribution: [0; 5],
            attribution_new: [0; 5],
        };
        window.add_conversations(facts);
        window
    }

    fn add_conversations(&mut self, facts: &'a Facts<'a>) {
        let hour = self.hour;
        let mut index: HashMap<EntityId, usize> = HashMap::new();
        let mut start = 0;
        while let Some(head) = hour.conversations.get(start) {
            let (scan, length) = RunScan::of(head, &hour.conversations[start..]);
            let run = &hour.conversations[start..start + length];
            let eni = hour.text(head.eni);
            let (first, last) = (scan.first, scan.last);
            let owner = facts.timelines.attribute(&hour.account, eni, first, last);
            let slot = slot_of(owner.attribution);
            self.attribution[slot] += scan.flows;
            self.attribution_new[slot] += scan.new_flows;

            let id = EntityId::of_network(&facts.timelines.entity(&hour.account, eni, last));
            let at = *index.entry(id.clone()).or_insert_with(|| {
                self.networks.push(NetworkHour::new(hour, facts, id));
                self.networks.len() - 1
            });
            let network = &mut self.networks[at];
            if network.region.is_none() {
                let by_key = hour.eni_region.binary_search_by_key(&head.eni, |r| r.0).ok().and_then(|n| hour.opt(hour.eni_region[n].1));
                network.region = by_key.map(str::to_owned).or_else(|| facts.timelines.place(&hour.account, eni, last).map(|p| p.0));
            }
            network.lambda |= owner.lambda;
            network.forwards |= owner
                .owner
                .as_ref()
                .is_some_and(|o| matches!(o.kind.as_str(), "nat_gateway" | "transit_gateway" | "gateway_load_balancer"));
            network.enis.push(EniHour { eni, owner });
            network.add_run(run, start as u32, &scan);
            start += length;
        }
        for network in &mut self.networks {
            network.finish();
        }
        self.networks.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

fn slot_of(attribution: Attribution) -> usize {
    match attribution {
        Attribution::Exact => 0,
        Attribution::Candidates => 1,
        Attribution::Other => 2,
        Attribution::Unheld => 3,
        Attribution::Unknown => 4,
    }
}

impl<'a> NetworkHour<'a> {
    fn new(hour: &'a AccountHour, facts: &'a Facts<'a>, id: EntityId) -> Self {
        Self {
            hour,
            facts,
            id,
            name: String::new(),
            region: None,
            enis: Vec::new(),
            lambda: false,
            forwards: false,
            outbound: Vec::new(),
            inbound: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Adds the conversations of its newest interface.
    fn add_run(&mut self, run: &[Conversation], base: u32, scan: &RunScan) {
        let eni = self.enis.len() as u32 - 1;
        let (first, last) = (scan.first, scan.last);
        let chosen = scan.chosen_flow_logs(self.hour);
        let sides = Sides::of(self.hour, self.facts, self.enis[eni as usize].eni, scan);
        let lambda = self.enis[eni as usize].owner.lambda;
        let mut holders = Holders { known: self.enis[eni as usize].owner.attribution != Attribution::Unknown, ..Holders::default() };
        let ends = if lambda || scan.unsettled == 0 { HashMap::new() } else { unsettled_ends(run) };
        self.outbound.reserve(run.len());
        self.inbound.reserve(run.len());
        for (at, c) in run.iter().enumerate() {
            if chosen[usize::from(c.rejected)] != Some(c.flow_log) {
                continue;
            }
            let Some(own_client) = sides.own_client(self, eni, c, &mut holders, first, last) else { continue };
            let peer = if own_client { c.server } else { c.client };
            let (outbound, port) = if c.settled {
                (own_client, c.server_port)
            } else {
                let (own, other) = if own_client {
                    ((c.client, c.client_port), (c.server, c.server_port))
                } else {
                    ((c.server, c.server_port), (c.client, c.client_port))
                };
                // Hyperplane picks the ports of Lambda's interfaces from 1024 up: port numbers say nothing there.
                let serves = !lambda && (self.peer_is_lambda(eni, peer, c) || own_end_serves(c, own_client, own, other, &ends));
                (!serves, if serves { own.1 } else { other.1 })
            };
            let mut contact =
                Contact { peer, port, protocol: c.protocol, own_client, eni, conversation: base + at as u32, outcome: Outcome::Unclear };
            contact.outcome = contact.went(c, outbound);
            if outbound { self.outbound.push(contact) } else { self.inbound.push(contact) }
        }
    }

    fn peer_is_lambda(&self, eni: u32, peer: Ip, c: &Conversation) -> bool {
        peer.is_private()
            && self
                .facts
                .timelines
                .peer(&self.hour.account, self.enis[eni as usize].eni, peer, c.first, c.last)
                .is_some_and(|p| p.kind_word == "lambda")
    }

    fn finish(&mut self) {
        // Both come in long sorted stretches, one per interface and action, which the stable sort merges.
        self.outbound.sort();
        self.inbound.sort_by_key(|c| (c.port, c.protocol, c.peer, c.eni, c.conversation));
        self.peers = peers_of(self.hour, &self.outbound);
        self.name = self.name_for_people();
        if self.region.is_none() && self.id.kind == EntityKind::Network {
            self.region = self.id.id.split('/').next().map(str::to_owned).filter(|r| !r.is_empty());
        }
    }

    fn name_for_people(&self) -> String {
        let (_, candidates) = self.attribution(0..self.enis.len() as u32);
        if let [one] = candidates.as_slice() {
            return short_name(&one.arn).to_owned();
        }
        match self.id.kind {
            EntityKind::Network => self.id.id.split_once('/').map_or_else(|| self.id.id.to_string(), |(_, place)| place.to_owned()),
            _ => {
                let owner = self.enis.first().and_then(|e| e.owner.owner.as_ref());
                owner.map(|o| o.name.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| self.id.id.to_string())
            }
        }
    }

    /// Its name in a sentence: where a few functions share the interfaces, theirs, as `vpc-…/sg-…` wakes nobody's memory.
    #[must_use]
    pub fn said(&self) -> String {
        let (_, candidates) = self.attribution(0..self.enis.len() as u32);
        match candidates.as_slice() {
            [a, b] => format!("{} or {}", short_name(&a.arn), short_name(&b.arn)),
            [a, b, c] => format!("{}, {} or {}", short_name(&a.arn), short_name(&b.arn), short_name(&c.arn)),
            _ => self.name.clone(),
        }
    }

    /// The conversation behind a contact.
    #[must_use]
    pub fn conversation(&self, contact: Contact) -> &'a Conversation {
        // A contact is only ever made from an index into these conversations.
        &self.hour.conversations[contact.conversation as usize]
    }

    /// Its records say REJECT.
    #[must_use]
    pub fn was_rejected(&self, contact: &Contact) -> bool {
        // Such a contact has failed; to look at the conversation costs more.
        contact.outcome == Outcome::Failed && self.conversation(*contact).rejected
    }

    /// The contacts of a peer.
    #[must_use]
    pub fn contacts(&self, peer: &PeerHour) -> &[Contact] {
        &self.outbound[peer.contacts.start as usize..peer.contacts.end as usize]
    }

    /// The peer's name, looked up when first asked for: most peers are known by their address, and names cost text.
    #[must_use]
    pub fn peer_name<'p>(&self, peer: &'p PeerHour) -> &'p PeerName {
        // An owner's name is there when its kind is known; all others are named by their address alone.
        let _ = self.peer_kind(peer);
        peer.name.get_or_init(|| Box::new(self.facts.book.name(peer.ip)))
    }

    /// What the peer is; no text is made for those that nobody holds.
    #[must_use]
    pub fn peer_kind(&self, peer: &PeerHour) -> PeerKind {
        *peer.kind.get_or_init(|| {
            let eni = self.outbound.get(peer.contacts.start as usize).and_then(|c| self.enis.get(c.eni as usize)).map_or("", |e| e.eni);
            match self.facts.timelines.peer(&self.hour.account, eni, peer.ip, peer.first, peer.last) {
                Some(name) => peer.name.get_or_init(|| Box::new(name)).kind,
                None => self.facts.book.kind(peer.ip),
            }
        })
    }

    /// Names an address as seen from one of the entity's interfaces.
    #[must_use]
    pub fn name_of(&self, eni: &str, ip: Ip, first: EventTime, last: EventTime) -> PeerName {
        self.facts.timelines.peer(&self.hour.account, eni, ip, first, last).unwrap_or_else(|| self.facts.book.name(ip))
    }

    /// There are threat lists at all.
    #[must_use]
    pub fn has_lists(&self) -> bool {
        self.facts.book.has_lists()
    }

    /// Threat-list entries that hold `ip` at `at`.
    #[must_use]
    pub fn listed(&self, ip: Ip, at: EventTime) -> Vec<flowtrail_enrich::ListHit> {
        self.facts.book.listed(ip, at)
    }

    /// Threat-list entries that hold `ip` at `at` or begin to within `secs` after it.
    #[must_use]
    pub fn listed_within(&self, ip: Ip, at: EventTime, secs: i64) -> Vec<flowtrail_enrich::ListHit> {
        self.facts.book.listed_within(ip, at, secs)
    }

    /// How sure it is who did what was seen at these interfaces, and who may have: the union of their candidates, each
    /// weighted by its mean over the interfaces.
    #[must_use]
    pub fn attribution(&self, enis: impl IntoIterator<Item = u32>) -> (Attribution, Vec<Candidate>) {
        let mut seen: SmallVec<[u32; 8]> = SmallVec::new();
        for eni in enis {
            // Contacts of one interface come together.
            if seen.last() != Some(&eni) {
                seen.push(eni);
            }
        }
        seen.sort_unstable();
        seen.dedup();
        let owners: Vec<&Attributed> = seen.iter().filter_map(|e| self.enis.get(*e as usize)).map(|e| &e.owner).collect();
        let Some(head) = owners.first() else { return (Attribution::Unknown, Vec::new()) };
        if owners.iter().all(|o| o.attribution == head.attribution && o.candidates == head.candidates) {
            return (head.attribution, head.candidates.clone());
        }
        let (kind, candidates) = union(owners.iter().map(|o| (o.attribution == Attribution::Exact, o.candidates.as_slice())));
        (kind.unwrap_or_else(|| owners.iter().map(|o| o.attribution).max().unwrap_or_default()), candidates)
    }

    /// Where the records of these contacts are: at most [`EVIDENCE_MAX`], the smallest by (time, place).
    #[must_use]
    pub fn evidence(&self, contacts: &[Contact]) -> Vec<EvidenceRef> {
        // Always sorted; most of what comes is later than all that is there.
        let mut places: SmallVec<[(EventTime, u32, u32); EVIDENCE_MAX + 1]> = SmallVec::new();
        for contact in contacts {
            let c = self.conversation(*contact);
            for (unit, line) in c.seen.iter() {
                let place = (c.first, *unit, *line);
                if places.len() == EVIDENCE_MAX && places.last().is_some_and(|last| place >= *last) {
                    continue;
                }
                if let Err(at) = places.binary_search(&place) {
                    places.insert(at, place);
                    places.truncate(EVIDENCE_MAX);
                }
            }
        }
        places.into_iter().map(|(_, unit, line)| evidence_at(self.hour, unit, u64::from(line), EventId::None)).collect()
    }
}

/// Records that a finding points to, at most.
const EVIDENCE_MAX: usize = 10;

/// The pointer to a record of a unit.
#[must_use]
pub fn evidence_at(hour: &AccountHour, unit: u32, position: u64, event_id: EventId) -> EvidenceRef {
    let unit = hour.units.get(unit as usize);
    EvidenceRef {
        source: unit.map(|u| u.source.clone()).unwrap_or_default(),
        key: unit.map(|u| u.key.clone()).unwrap_or_default(),
        position,
        event_id: event_id.text(hour).map(Cow::into_owned),
    }
}

/// The pointers to API rows, in their order.
#[must_use]
pub fn evidence_of_rows<'r>(hour: &AccountHour, rows: impl IntoIterator<Item = &'r u32>) -> Vec<EvidenceRef> {
    let rows = rows.into_iter().filter_map(|r| hour.calls.get(*r as usize));
    rows.take(EVIDENCE_MAX).map(|r| evidence_at(hour, r.unit, r.position, r.event_id)).collect()
}

/// The peers of contacts that are sorted by them.
fn peers_of(hour: &AccountHour, outbound: &[Contact]) -> Vec<PeerHour> {
    let changes = outbound.windows(2).filter(|pair| pair[0].peer != pair[1].peer).count();
    let mut peers: Vec<PeerHour> = Vec::with_capacity(changes + 1);
    for (contact, at) in outbound.iter().zip(0..) {
        let c = &hour.conversations[contact.conversation as usize];
        match peers.last_mut().filter(|peer| peer.ip == contact.peer) {
            Some(peer) => peer.add(contact, c),
            None => peers.push(PeerHour::new(contact, at, c)),
        }
    }
    peers
}

/// What one pass over an interface's conversations tells: the hour can hold millions, and each pass costs memory traffic.
struct RunScan {
    first: EventTime,
    last: EventTime,
    flows: u64,
    new_flows: u64,
    unsettled: u64,
    /// Records by flow log and action.
    logs: SmallVec<[(u32, bool, u64); 4]>,
    /// The ends of the first conversation, as long as all others have them too.
    common: [Option<Ip>; 2],
}

impl RunScan {
    /// Scans the conversations of the first one's interface, which stand together, and says how many they are.
    fn of(head: &Conversation, conversations: &[Conversation]) -> (Self, usize) {
        let mut scan = Self {
            first: EventTime::MAX,
            last: EventTime::MIN,
            flows: 0,
            new_flows: 0,
            unsettled: 0,
            logs: SmallVec::new(),
            common: [None; 2],
        };
        let ends = [head.client, head.server];
        let mut common = [true; 2];
        let mut length = 0;
        // Those of one flow log and action stand together, too.
        let (mut log, mut of_log) = ((head.flow_log, head.rejected), 0);
        for c in conversations.iter().take_while(|c| c.eni == head.eni) {
            if log != (c.flow_log, c.rejected) {
                scan.add_flows(log, of_log);
                (log, of_log) = ((c.flow_log, c.rejected), 0);
            }
            scan.first = scan.first.min(c.first);
            scan.last = scan.last.max(c.last);
            of_log += c.flows();
            scan.new_flows += u64::from(c.new_flows);
            scan.unsettled += u64::from(!c.settled);
            for (common, ip) in common.iter_mut().zip(ends) {
                *common &= (ip == c.client) | (ip == c.server);
            }
            length += 1;
        }
        scan.add_flows(log, of_log);
        scan.common = [0, 1].map(|end| common[end].then_some(ends[end]));
        (scan, length)
    }

    fn add_flows(&mut self, of: (u32, bool), flows: u64) {
        self.flows += flows;
        match self.logs.iter_mut().find(|log| (log.0, log.1) == of) {
            Some(log) => log.2 += flows,
            None => self.logs.push((of.0, of.1, flows)),
        }
    }

    /// Per action (accepted, rejected) the flow log of this interface with the most records; ties go to the smallest id.
    /// Two flow logs over one interface tell the same traffic twice (design/guarantees.md section 4).
    fn chosen_flow_logs(&self, hour: &AccountHour) -> [Option<u32>; 2] {
        [false, true].map(|rejected| {
            let of_action = self.logs.iter().filter(|s| s.1 == rejected);
            of_action.max_by(|a, b| a.2.cmp(&b.2).then_with(|| hour.text(b.0).cmp(hour.text(a.0)))).map(|s| s.0)
        })
    }
}

/// How many unsettled conversations of a run each end, address and port, takes part in.
fn unsettled_ends(run: &[Conversation]) -> HashMap<(Ip, u16), u32> {
    let mut ends = HashMap::new();
    for c in run.iter().filter(|c| !c.settled) {
        *ends.entry((c.client, c.client_port)).or_default() += 1;
        *ends.entry((c.server, c.server_port)).or_default() += 1;
    }
    ends
}

/// Whether the interface's own end of an unsettled conversation serves: not if nothing but it spoke; else the end that
/// takes part in more conversations, as a service does with its many clients' ports; else the lower port.
fn own_end_serves(c: &Conversation, own_client: bool, own: (Ip, u16), other: (Ip, u16), ends: &HashMap<(Ip, u16), u32>) -> bool {
    let (sent, received) = if own_client { (c.ahead.packets, c.back.packets) } else { (c.back.packets, c.ahead.packets) };
    if sent == 0 || received == 0 {
        return sent == 0;
    }
    if own.1 == other.1 {
        // ICMP and the like have no ports. Whoever asked first is not in the records; visitors are the commoner case.
        return own.1 == 0;
    }
    let count = |end| ends.get(&end).copied().unwrap_or(0);
    match count(own).cmp(&count(other)) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => own.1 < other.1,
    }
}

/// Which addresses the timeline gives to an interface, each asked for once.
#[derive(Default)]
struct Holders {
    /// The timeline has heard of the interface at all.
    known: bool,
    /// The last two answers: conversations of one server stand together, and our own address is in most of them.
    last: [Option<(Ip, bool)>; 2],
    answers: HashMap<Ip, bool>,
}

impl Holders {
    fn get(&mut self, ip: Ip, ask: impl FnOnce() -> bool) -> bool {
        if let Some((_, held)) = self.last.iter().flatten().find(|l| l.0 == ip) {
            return *held;
        }
        let held = *self.answers.entry(ip).or_insert_with(ask);
        self.last = [Some((ip, held)), self.last[0]];
        held
    }
}

/// Which addresses of a run of conversations are the interface's own.
struct Sides {
    /// The one address that all conversations share, where there is one.
    shared: Option<Ip>,
    /// The timeline gives that address to the interface.
    held: bool,
}

impl Sides {
    fn of(hour: &AccountHour, facts: &Facts<'_>, eni: &str, scan: &RunScan) -> Self {
        let (common, first, last) = (scan.common, scan.first, scan.last);
        let held = |ip: Ip| facts.timelines.holds(&hour.account, eni, ip, first, last);
        let (shared, held) = match common {
            [Some(a), Some(b)] if a != b => match (held(a), held(b)) {
                (true, false) => (Some(a), true),
                (false, true) => (Some(b), true),
                // An interface's own address in a flow log is its private one.
                _ => (a.only_private(b), false),
            },
            [Some(a), _] | [None, Some(a)] => (Some(a), held(a)),
            [None, None] => (None, false),
        };
        Self { shared, held }
    }

    /// True if the conversation's client is the interface's own end: by the timeline, else by `flow-direction`, else by
    /// the address that all conversations share; `None` when nothing tells.
    fn own_client(
        &self,
        network: &NetworkHour<'_>,
        eni: u32,
        c: &Conversation,
        holders: &mut Holders,
        first: EventTime,
        last: EventTime,
    ) -> Option<bool> {
        if self.held {
            return self.shared.map(|ip| c.client == ip);
        }
        if holders.known {
            let name = network.enis.get(eni as usize)?.eni;
            let mut held = |ip| holders.get(ip, || network.facts.timelines.holds(&network.hour.account, name, ip, first, last));
            match (held(c.client), held(c.server)) {
                (true, false) => return Some(true),
                (false, true) => return Some(false),
                _ => {}
            }
        }
        match (c.ours_client, c.ours_server) {
            (true, false) => return Some(true),
            (false, true) => return Some(false),
            _ => {}
        }
        self.shared.map(|ip| c.client == ip)
    }
}

/// Calls that a function's code made itself: without those of the Lambda service, dry runs and calls made for others.
fn functions(hour: &AccountHour) -> Vec<FunctionHour<'_>> {
    const NOT_ITS_OWN: u16 = call_marks::SERVICE_CALL | call_marks::DRY_RUN | call_marks::NETWORK_ACTIVITY;
    let mut index: HashMap<(u32, u32, u32), usize> = HashMap::new();
    let mut groups: Vec<(&str, ActionHour<'_>)> = Vec::new();
    for (at, row) in hour.calls.iter().enumerate() {
        if row.function == NONE || row.marks & NOT_ITS_OWN != 0 {
            continue;
        }
        let group = *index.entry((row.function, row.service, row.action)).or_insert_with(|| {
            let action = ActionHour {
                service: hour.text(row.service),
                action: hour.text(row.action),
                region: hour.opt(row.region),
                count: 0,
                errors: 0,
                denied: 0,
                write: false,
                first: row.time,
                last: row.time,
                foreign_role: None,
                principal: hour.text(row.principal),
                rows: SmallVec::new(),
            };
            groups.push((hour.text(row.function), action));
            groups.len() - 1
        });
        let action = &mut groups[group].1;
        action.count += 1;
        if let Some(error) = hour.opt(row.error) {
            action.errors += 1;
            action.denied += u64::from(is_denied(error));
        }
        action.write |= !is_read(row, action.action);
        action.first = action.first.min(row.time);
        action.last = action.last.max(row.time);
        if action.foreign_role.is_none() && row.target != NONE && hour.opt(row.step) == Some(StepKind::AssumeRole.as_str()) {
            let role = hour.text(row.target);
            action.foreign_role = role.split(':').nth(4).is_some_and(|a| !a.is_empty() && a != hour.account).then_some(role);
        }
        if action.rows.len() < 10 {
            action.rows.push(at as u32);
        }
    }
    groups.sort_by(|a, b| (a.0, a.1.service, a.1.action).cmp(&(b.0, b.1.service, b.1.action)));
    let mut functions: Vec<FunctionHour<'_>> = Vec::new();
    for (arn, action) in groups {
        match functions.last_mut() {
            Some(function) if function.arn == arn => function.actions.push(action),
            _ => functions.push(FunctionHour { arn, actions: vec![action] }),
        }
    }
    functions
}

/// Read or write: CloudTrail's own word, else the action's name.
fn is_read(row: &ApiRow, action: &str) -> bool {
    row.marks & call_marks::READ_ONLY != 0
        || ["Get", "List", "Describe", "Head", "BatchGet", "Query", "Scan", "Search", "Lookup", "Select"]
            .iter()
            .any(|p| action.starts_with(p))
}

/// The error codes that mean "you may not".
#[must_use]
pub fn is_denied(error: &str) -> bool {
    error.contains("AccessDenied") || error.contains("UnauthorizedOperation") || error.contains("NotAuthorized") || error == "Forbidden"
}

fn principals(hour: &AccountHour) -> Vec<PrincipalHour<'_>> {
    const NOT_THEIRS: u16 = call_marks::SERVICE_CALL | call_marks::DRY_RUN;
    // The order of indices is that of the texts.
    let mut rows: Vec<(u32, u32)> = Vec::new();
    for (row, at) in hour.calls.iter().zip(0..) {
        if row.step != NONE && row.principal != NONE && row.marks & NOT_THEIRS == 0 {
            rows.push((row.principal, at));
        }
    }
    rows.sort_unstable();
    let mut principals: Vec<PrincipalHour<'_>> = Vec::new();
    for one in rows.chunk_by(|a, b| a.0 == b.0) {
        principals.push(PrincipalHour { principal: hour.text(one[0].0), rows: one.iter().map(|row| row.1).collect() });
    }
    principals
}

impl PeerHour {
    /// Of one contact, which stands at `at` in [`NetworkHour::outbound`].
    fn new(contact: &Contact, at: u32, c: &Conversation) -> Self {
        let (sent, received) = (contact.sent(c), contact.received(c));
        Self {
            ip: contact.peer,
            contacts: at..at + 1,
            outcome: contact.outcome,
            answered: !c.rejected && received.packets > 0,
            rejected: c.rejected,
            flows: c.flows(),
            sent: sent.bytes,
            received: received.bytes,
            first: c.first,
            last: c.last,
            kind: OnceCell::new(),
            name: OnceCell::new(),
        }
    }

    /// Adds the next contact.
    fn add(&mut self, contact: &Contact, c: &Conversation) {
        let (sent, received) = (contact.sent(c), contact.received(c));
        self.contacts.end += 1;
        self.outcome = self.outcome.max(contact.outcome);
        self.answered |= !c.rejected && received.packets > 0;
        self.rejected &= c.rejected;
        self.flows += c.flows();
        self.sent = self.sent.saturating_add(sent.bytes);
        self.received = self.received.saturating_add(received.bytes);
        self.first = self.first.min(c.first);
        self.last = self.last.max(c.last);
    }

    /// The peer lies outside: neither private nor known as the organisation's or AWS's own.
    #[must_use]
    pub fn is_outside(&self, name: &PeerName) -> bool {
        name.kind == PeerKind::Internet && !self.ip.is_private()
    }
}

/// Who may have done what several answers speak of, each with whether it is exact: the union of their candidates, and how sure it
/// is, or `None` if there is no candidate. Weights are added up and scaled to 1000, so that an answer without candidates has no
/// say. Of what speaks for one, the first is kept.
pub(crate) fn union<'c>(answers: impl Iterator<Item = (bool, &'c [Candidate])>) -> (Option<Attribution>, Vec<Candidate>) {
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut exact = true;
    for (is_exact, of_answer) in answers {
        exact &= is_exact;
        for candidate in of_answer {
            match candidates.iter_mut().find(|c| c.arn == candidate.arn) {
                Some(known) => known.weight_milli += candidate.weight_milli,
                None => candidates.push(candidate.clone()),
            }
        }
    }
    let total: u32 = candidates.iter().map(|c| c.weight_milli).sum();
    for candidate in &mut candidates {
        candidate.weight_milli = (u64::from(candidate.weight_milli) * 1000 / u64::from(total.max(1))) as u32;
    }
    candidates.sort_by(|a, b| b.weight_milli.cmp(&a.weight_milli).then_with(|| a.arn.cmp(&b.arn)));
    let rest = 1000u32.saturating_sub(candidates.iter().map(|c| c.weight_milli).sum());
    if let Some(first) = candidates.first_mut() {
        first.weight_milli += rest;
    }
    let kind = match candidates.len() {
        0 => None,
        1 if exact => Some(Attribution::Exact),
        _ => Some(Attribution::Candidates),
    };
    (kind, candidates)
}

#[cfg(test)]
mod tests;
