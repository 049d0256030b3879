//! Everyday connections, and how a connection becomes flow records at each interface that sees it.

use std::collections::BTreeSet;

use super::flow::{Row, Status};
use super::history::History;
use super::rng::Rng;
use super::world::{Eni, Holder, Peer, Target, World, internet};

const HOUR: i64 = 3600;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
/// SYN, SYN-ACK, FIN, RST as flow logs have them.
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const FIN: u8 = 1;
const RST: u8 = 4;

/// How a connection ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    /// The server answers with a reset.
    Refused,
    /// The server's security groups drop it, or nobody is there: no answer.
    Dropped,
    /// The client's own network ACL forbids it.
    Blocked,
}

/// One connection from an interface of ours.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) eni: usize,
    pub(crate) peer: u32,
    /// The peer's interface, if it is one of ours.
    pub(crate) peer_eni: Option<usize>,
    pub(crate) port: u16,
    pub(crate) start: i64,
    pub(crate) secs: i64,
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) outcome: Outcome,
    /// Opened before `start`, goes on after its end.
    pub(crate) kept: (bool, bool),
    /// The client's port, where it must be the same every hour.
    pub(crate) client_port: Option<u16>,
}

/// The flow records of one site in one hour, and whose traffic was put on which interface.
pub(crate) struct Traffic<'a> {
    pub(crate) world: &'a World,
    pub(crate) history: &'a History,
    pub(crate) site: usize,
    /// First second of the hour.
    pub(crate) hour: i64,
    pub(crate) rows: Vec<Row>,
    /// (holding, function).
    pub(crate) did: BTreeSet<(usize, usize)>,
}

impl<'a> Traffic<'a> {
    pub(crate) fn new(world: &'a World, history: &'a History, site: usize, hour: i64) -> Self {
        Self { world, history, site, hour, rows: Vec::new(), did: BTreeSet::new() }
    }

    /// Everyday life of all functions and hosts of the site.
    pub(crate) fn everyday(&mut self, scale: f64) {
        let number = ((self.hour - self.world.start) / HOUR) as u64;
        for &function in &self.world.sites[self.site].functions {
            let mut rng = Rng::new(self.world.seed, &[10, function as u64, number]);
            self.function(function, scale, &mut rng);
        }
        for &vpc in &self.world.sites[self.site].vpcs {
            let mut rng = Rng::new(self.world.seed, &[11, vpc as u64, number]);
            self.hosts(vpc, scale, &mut rng);
        }
        let mut rng = Rng::new(self.world.seed, &[12, self.site as u64, number]);
        self.quiet_interfaces(&mut rng);
    }

    fn function(&mut self, index: usize, scale: f64, rng: &mut Rng) {
        let function = &self.world.functions[index];
        if function.peers.is_empty() {
            return;
        }
        let mean = function.archetype.connections(self.hour / HOUR + 72, function.phase, rng);
        let mut count = rng.count(mean * scale);
        // A function that runs steadily is there every hour; thinned out, in most.
        if count == 0 && mean >= 2.0 && (scale >= 1.0 || rng.chance(0.6)) {
            count = 1;
        }
        // In its first days it shows everything it does.
        let born = function.lives.iter().map(|l| l.0).filter(|&b| b <= self.hour).max().unwrap_or(self.hour).max(self.world.start);
        if count > 0 && self.hour - born < 3 * 24 * HOUR {
            for peer in &function.peers {
                self.one(index, peer, rng);
            }
        }
        let deployed: Vec<Peer> = function.deploys.iter().filter_map(|d| d.peer.clone()).filter(|p| p.from <= self.hour).collect();
        let peers: Vec<&Peer> = function.peers.iter().chain(&deployed).collect();
        let weights: u64 = peers.iter().map(|p| p.weight).sum();
        for _ in 0..count {
            let mut at = rng.below(weights);
            let peer = peers.iter().find(|p| {
                let hit = at < p.weight;
                at = at.saturating_sub(p.weight);
                hit
            });
            if let Some(peer) = peer {
                self.one(index, peer, rng);
            }
        }
        if function.sociable && count > 0 && rng.chance(0.06) {
            let base = internet::PARTNERS + ((rng.below(120) as u32) << 8) + 100 + rng.below(100) as u32;
            let stranger = Peer { to: Target::Net { base, hosts: 1 }, port: 443, weight: 1, up: 2_000, down: 5_000, from: self.hour };
            self.one(index, &stranger, rng);
        }
        if scale >= 1.0 || rng.chance(scale) {
            self.pooled(index, rng);
        }
    }

    /// One connection of a function to a peer, at some time of the hour.
    fn one(&mut self, function: usize, peer: &Peer, rng: &mut Rng) {
        let start = self.hour + rng.range(0, HOUR - 5);
        if !self.world.alive(function, start) {
            return;
        }
        let Some(eni) = self.world.eni_of(function, start, rng) else { return };
        let (ip, peer_eni) = self.address(peer, rng);
        let down_now = peer_eni.is_some_and(|e| self.history.refuses(e, start));
        // A contact fails now and then; whoever is refused tries again.
        let outcome = if down_now || rng.chance(0.001) { Outcome::Refused } else { Outcome::Served };
        let tries = if outcome == Outcome::Served { 1 } else { 3 };
        for n in 0..tries {
            let connection = Connection {
                eni,
                peer: ip,
                peer_eni,
                port: peer.port,
                start: start + n,
                // Shorter than the pause around changes.
                secs: (1 + rng.size(4) as i64).min(60),
                up: rng.size(peer.up),
                down: rng.size(peer.down),
                outcome,
                kept: (false, false),
                client_port: None,
            };
            self.connect(&connection, rng);
        }
        self.mark(function, eni, start);
    }

    /// Some functions keep a database connection open for hours.
    fn pooled(&mut self, index: usize, rng: &mut Rng) {
        let function = &self.world.functions[index];
        let keeps = matches!(function.archetype, super::archetype::Archetype::Api | super::archetype::Archetype::Queue);
        let Some(peer) = function.peers.iter().find(|p| matches!(p.port, 5432 | 3306)) else { return };
        // Twelve hours at a time, with the same port; then a new one.
        let spell = self.hour.div_euclid(12 * HOUR);
        let mut dice = Rng::new(self.world.seed, &[13, index as u64, spell as u64]);
        if !keeps || !function.phase.is_multiple_of(3) || !dice.chance(0.8) {
            return;
        }
        let port = 1_024 + dice.below(64_000) as u16;
        let choice = dice.clone();
        let Some(eni) = self.world.eni_of(index, self.hour, &mut choice.clone()) else { return };
        let (begin, close) = (self.hour.rem_euclid(12 * HOUR) == 0, self.hour.rem_euclid(12 * HOUR) == 11 * HOUR);
        // An interface that goes within the hour takes the connection with it.
        if self.world.eni_of(index, self.hour + HOUR - 1, &mut choice.clone()) != Some(eni)
            || !self.world.alive(index, self.hour + HOUR - 1)
        {
            return;
        }
        let (ip, peer_eni) = self.address(peer, rng);
        if peer_eni.is_some_and(|e| self.history.outages.iter().any(|o| o.eni == e && o.from < self.hour + HOUR && self.hour < o.to)) {
            return;
        }
        let connection = Connection {
            eni,
            peer: ip,
            peer_eni,
            port: peer.port,
            start: self.hour + if begin { rng.range(1, 300) } else { 0 },
            secs: if close { rng.range(600, 3_000) } else { HOUR },
            up: rng.size(peer.up * 6),
            down: rng.size(peer.down * 6),
            outcome: Outcome::Served,
            kept: (!begin, !close),
            client_port: Some(port),
        };
        self.connect(&connection, rng);
        self.mark(index, eni, self.hour);
    }

    pub(crate) fn address(&self, peer: &Peer, rng: &mut Rng) -> (u32, Option<usize>) {
        match peer.to {
            Target::Eni(eni) => (self.world.enis[eni].ip, Some(eni)),
            Target::Net { base, hosts } => (base + rng.below(u64::from(hosts)) as u32, None),
        }
    }

    /// Notes that `function`'s traffic was put on `eni`.
    pub(crate) fn mark(&mut self, function: usize, eni: usize, at: i64) {
        if let Some(holding) = self.history.holding(eni, at) {
            self.did.insert((holding, function));
        }
    }

    fn hosts(&mut self, vpc: usize, scale: f64, rng: &mut Rng) {
        for host in &self.world.vpcs[vpc].hosts {
            let people = 0.5 + f64::from(u8::from((7..19).contains(&(self.hour / HOUR % 24))));
            let count = if host.peers.is_empty() { 0 } else { rng.count(host.level * people * scale).max(u64::from(scale >= 1.0)) };
            for _ in 0..count {
                let peer = if host.crawler && rng.chance(0.7) {
                    let base = internet::PARTNERS + 0x7800 + rng.below(0x0700) as u32;
                    Peer {
                        to: Target::Net { base, hosts: 1 },
                        port: *rng.pick(&[80, 443]),
                        weight: 1,
                        up: 700,
                        down: 60_000,
                        from: self.hour,
                    }
                } else {
                    rng.pick(&host.peers).clone()
                };
                let (ip, peer_eni) = self.address(&peer, rng);
                let start = self.hour + rng.range(0, HOUR - 5);
                let refused = peer_eni.is_some_and(|e| self.history.refuses(e, start));
                let connection = Connection {
                    eni: host.eni,
                    peer: ip,
                    peer_eni,
                    port: peer.port,
                    start,
                    secs: 1 + rng.size(6) as i64,
                    up: rng.size(peer.up),
                    down: rng.size(peer.down),
                    outcome: if refused { Outcome::Refused } else { Outcome::Served },
                    kept: (false, false),
                    client_port: None,
                };
                self.connect(&connection, rng);
            }
            for _ in 0..rng.count(host.visitors * people * scale) {
                self.visit(host.eni, rng);
            }
        }
        for &eni in &self.world.vpcs[vpc].resources {
            if self.world.enis[eni].public_ip.is_some() {
                for _ in 0..rng.count(2.0 * scale.min(4.0)) {
                    self.knock(eni, rng);
                }
            }
        }
    }

    /// Somebody from the internet is served at a public interface.
    fn visit(&mut self, eni: usize, rng: &mut Rng) {
        let (ours, client) = (self.world.enis[eni].ip, internet::PARTNERS + 0x8000 + rng.below(0x6000) as u32);
        let start = self.hour + rng.range(0, HOUR - 5);
        let end = (start + 1 + rng.size(5) as i64).min(self.hour + HOUR - 1);
        let port = 1_024 + rng.below(64_000) as u16;
        let (asks, answers) = (rng.size(1_200), rng.size(9_000));
        self.push(eni, (client, port), (ours, 443), (asks, SYN | FIN), (start, end), false);
        self.push(eni, (ours, 443), (client, port), (answers, SYN_ACK | FIN), (start, end), false);
    }

    /// Somebody from the internet tries a port that is closed.
    fn knock(&mut self, eni: usize, rng: &mut Rng) {
        let (ours, client) = (self.world.enis[eni].ip, internet::NOISE + 1 + rng.below(200) as u32);
        let start = self.hour + rng.range(0, HOUR - 5);
        let client_port = 1_024 + rng.below(64_000) as u16;
        let (protocol, client_port, port) = match rng.below(8) {
            0 => (ICMP, 0, 0),
            1 => (UDP, client_port, *rng.pick(&[53, 123, 161, 1900])),
            _ => (TCP, client_port, *rng.pick(&[22, 23, 80, 445, 1433, 2375, 3389, 5060, 5900, 6379, 8080, 8443, 9200])),
        };
        self.push(eni, (client, client_port), (ours, port), (44, SYN), (start, start + 1), true);
        if let Some(row) = self.rows.last_mut().filter(|_| protocol != TCP) {
            (row.protocol, row.flags) = (protocol, 0);
        }
    }

    /// Interfaces without traffic say so; once in a while records were lost.
    fn quiet_interfaces(&mut self, rng: &mut Rng) {
        let busy: BTreeSet<u32> = self.rows.iter().map(|r| r.eni).collect();
        for (index, eni) in self.world.enis.iter().enumerate() {
            let here = self.world.vpcs[eni.vpc].site == self.site && eni.from <= self.hour && self.hour + HOUR <= eni.to;
            if !here {
                continue;
            }
            let lost = rng.chance(0.000_5);
            if lost || (!busy.contains(&(index as u32)) && rng.chance(0.2)) {
                let window = self.world.sites[self.site].window_secs;
                let start = self.hour + rng.range(0, HOUR / window) * window;
                let status = if lost { Status::SkipData } else { Status::NoData };
                let mut row = blank(index, start, start + window - 1);
                row.status = status;
                self.rows.push(row);
            }
        }
    }

    /// Adds the records of a connection: at its own interface, at the peer's if that is one of ours, and at the NAT gateway's.
    /// What would last beyond the hour is cut off at its end.
    pub(crate) fn connect(&mut self, c: &Connection, rng: &mut Rng) {
        let world = self.world;
        let own = &world.enis[c.eni];
        let last = self.hour + HOUR - 1;
        if c.start < self.hour || c.start > last {
            return;
        }
        let end = (c.start + c.secs.max(1)).min(last);
        let client_port = c.client_port.unwrap_or_else(|| 1_024 + rng.below(64_000) as u16);
        let (client, server) = ((own.ip, client_port), (c.peer, c.port));
        let peer_eni = c.peer_eni.filter(|&e| world.vpcs[world.enis[e].vpc].site == self.site);
        match c.outcome {
            Outcome::Served => {
                self.spread(c, client, server, end, peer_eni);
                if peer_eni.is_none() && self.through_nat(own, c.peer) {
                    self.nat(c, own, client, end, rng);
                }
            }
            Outcome::Refused => {
                for eni in [Some(c.eni), peer_eni].into_iter().flatten() {
                    self.push(eni, client, server, (60, SYN), (c.start, c.start), false);
                    self.push(eni, server, client, (40, RST), (c.start, c.start), false);
                }
            }
            Outcome::Dropped => {
                self.push(c.eni, client, server, (180, SYN), (c.start, (c.start + 3).min(last)), false);
                if let Some(eni) = peer_eni {
                    self.push(eni, client, server, (180, SYN), (c.start, (c.start + 3).min(last)), true);
                }
            }
            Outcome::Blocked => self.push(c.eni, client, server, (60, SYN), (c.start, c.start), true),
        }
    }

    /// Private subnets reach the internet through the NAT gateway, the region's S3 through a gateway endpoint.
    fn through_nat(&self, own: &Eni, peer: u32) -> bool {
        let site = &self.world.sites[self.site];
        site.nat_logged && own.public_ip.is_none() && peer >> 24 != 10 && !(site.region.s3..=site.region.s3 + 0xffff).contains(&peer)
    }

    fn spread(&mut self, c: &Connection, client: (u32, u16), server: (u32, u16), end: i64, peer_eni: Option<usize>) {
        let window = self.world.sites[self.site].window_secs;
        let first = (c.start - self.hour) / window;
        let parts = (end - self.hour) / window - first + 1;
        for part in 0..parts {
            let from = c.start.max(self.hour + (first + part) * window);
            let to = end.min(self.hour + (first + part + 1) * window - 1);
            let opens = if part == 0 && !c.kept.0 { (SYN, SYN_ACK) } else { (0, 0) };
            let closes = if part + 1 == parts && !c.kept.1 { FIN } else { 0 };
            let share = |bytes: u64| bytes / parts as u64 + if part == 0 { bytes % parts as u64 } else { 0 };
            for eni in [Some(c.eni), peer_eni].into_iter().flatten() {
                self.push(eni, client, server, (share(c.up), opens.0 | closes), (from, to), false);
                self.push(eni, server, client, (share(c.down), opens.1 | closes), (from, to), false);
            }
        }
    }

    /// At the NAT gateway's interface: from the client to it, from it to the peer, and both ways back.
    fn nat(&mut self, c: &Connection, own: &Eni, client: (u32, u16), end: i64, rng: &mut Rng) {
        let nat = self.world.vpcs[own.vpc].nat;
        let inner = self.world.enis[nat].ip;
        let outer = (inner, 1_024 + rng.below(64_000) as u16);
        let server = (c.peer, c.port);
        let span = (c.start, end);
        let (up, down) = ((c.up, SYN | FIN), (c.down, SYN_ACK | FIN));
        self.push(nat, client, (inner, c.port), up, span, false);
        self.inside_packet(client.0, c.peer);
        self.push(nat, outer, server, up, span, false);
        self.push(nat, server, outer, down, span, false);
        self.push(nat, (inner, c.port), client, down, span, false);
        self.inside_packet(c.peer, client.0);
    }

    fn inside_packet(&mut self, src: u32, dst: u32) {
        if let Some(row) = self.rows.last_mut() {
            (row.packet_src, row.packet_dst) = (src, dst);
        }
    }

    /// One record: `volume` is (payload bytes, TCP flags).
    fn push(&mut self, eni: usize, src: (u32, u16), dst: (u32, u16), volume: (u64, u8), span: (i64, i64), rejected: bool) {
        let ours = self.world.enis[eni].ip;
        let shakes = volume.1 & (SYN | RST) != 0;
        let bare = shakes && volume.0 <= 180 && volume.1 & FIN == 0;
        let packets = if bare { volume.0.div_ceil(60) } else { 2 + volume.0 / 1_100 + if shakes { 2 } else { 0 } };
        let mut row = blank(eni, span.0, span.1);
        (row.src, row.src_port, row.dst, row.dst_port) = (src.0, src.1, dst.0, dst.1);
        (row.packet_src, row.packet_dst) = (src.0, dst.0);
        row.flags = volume.1;
        row.packets = packets;
        row.bytes = if bare { volume.0 } else { volume.0 + 40 * packets };
        row.rejected = rejected;
        row.egress = src.0 == ours;
        row.path = if self.world.enis[eni].public_ip.is_some() && dst.0 >> 24 != 10 { 8 } else { 1 };
        self.rows.push(row);
    }
}

fn blank(eni: usize, start: i64, end: i64) -> Row {
    Row {
        eni: eni as u32,
        status: Status::Ok,
        src: 0,
        dst: 0,
        packet_src: 0,
        packet_dst: 0,
        src_port: 0,
        dst_port: 0,
        protocol: TCP,
        flags: 0,
        rejected: false,
        egress: false,
        path: 1,
        packets: 0,
        bytes: 0,
        start,
        end: end.max(start),
    }
}

impl Eni {
    /// The instance's id, for those of instances.
    pub(crate) fn instance(&self) -> Option<&str> {
        match &self.holder {
            Holder::Instance(id) => Some(id),
            _ => None,
        }
    }
}
