//! The organisation before anything happens. Everything here is decided by the seed; [`super::history`] adds what changes.

use super::archetype::{Archetype, EVERYDAY, SENSITIVE, SUBJECTS};
use super::flow::Layout;
use super::rng::Rng;
use super::world::{
    ALWAYS, Account, DAY, Eni, Fate, Function, Group, Holder, Host, Peer, REGIONS, Region, STILL, Site, Subnet, Target, Vpc, World,
    internet,
};

impl World {
    pub(crate) fn build(seed: u64, start: i64, days: i64, accounts: usize, functions: usize) -> Self {
        let mut world = Self {
            seed,
            start,
            end: start + days * DAY,
            accounts: Vec::new(),
            sites: Vec::new(),
            vpcs: Vec::new(),
            enis: Vec::new(),
            groups: Vec::new(),
            functions: Vec::new(),
        };
        let mut rng = Rng::new(seed, &[1]);
        let home_region = rng.below(REGIONS.len() as u64) as usize;
        for number in 0..accounts {
            let share = functions / accounts + usize::from(number < functions % accounts);
            world.add_account(number, share, home_region, &mut rng);
        }
        world
    }

    fn add_account(&mut self, number: usize, functions: usize, home_region: usize, rng: &mut Rng) {
        let id = loop {
            let id = format!("{}{}", 1 + rng.below(9), rng.text(11, b"0123456789"));
            if self.accounts.iter().all(|a| a.id != id) {
                break id;
            }
        };
        let names = [["alice", "omar"], ["bea", "piotr"], ["carol", "quinn"], ["deniz", "rosa"]][number % 4];
        let account = self.accounts.len();
        self.accounts.push(Account {
            id,
            users: names.map(|name| (name.to_owned(), format!("AIDA{}", rng.base32(17)))),
            ci_role_id: format!("AROA{}", rng.base32(17)),
            monitor_role_id: format!("AROA{}", rng.base32(17)),
        });
        // Every third account works in two regions.
        let split = if number % 3 == 2 && functions >= 6 { functions - functions / 3 } else { functions };
        for (n, share) in [split, functions - split].into_iter().enumerate() {
            if n == 0 || share > 0 {
                self.add_site(account, &REGIONS[(home_region + n) % REGIONS.len()], share, rng);
            }
        }
    }

    fn add_site(&mut self, account: usize, region: &'static Region, functions: usize, rng: &mut Rng) {
        let site = self.sites.len();
        self.sites.push(Site {
            account,
            region,
            vpcs: Vec::new(),
            functions: Vec::new(),
            layout: [Layout::Wide, Layout::Default, Layout::Custom][account % 3],
            window_secs: if account.is_multiple_of(3) { 60 } else { 600 },
            flow_log: format!("fl-{}", rng.hex(17)),
            second_flow_log: format!("fl-{}", rng.hex(17)),
            nat_logged: account.is_multiple_of(3),
            data_events: account.is_multiple_of(3),
            snapshot_days: [1, 7, 0][account % 3],
        });
        // Two networks in the first place, both 10.0.0.0/16, as in every other account.
        let count = if site == 0 && functions >= 6 { 2 } else { 1 };
        for n in 0..count {
            self.add_vpc(site, n == 0, rng);
        }
        self.add_functions(site, functions, rng);
    }

    fn add_vpc(&mut self, site: usize, main: bool, rng: &mut Rng) {
        let vpc = self.vpcs.len();
        let subnet = |rng: &mut Rng, n: u32, zone| Subnet {
            id: format!("subnet-0{}", rng.hex(16)),
            zone,
            base: 0x0a00_0000 + (n << 12),
            size: 1 << 12,
        };
        let subnets = [subnet(rng, 1, 'a'), subnet(rng, 2, 'b'), subnet(rng, 3, 'a')];
        let nat_public = internet::OWN + (vpc as u32 % 0x0f00) + 5;
        self.vpcs.push(Vpc {
            site,
            id: format!("vpc-0{}", rng.hex(16)),
            subnets,
            nat: 0,
            nat_public,
            resources: Vec::new(),
            instances: Vec::new(),
            hosts: Vec::new(),
        });
        self.sites[site].vpcs.push(vpc);

        let nat_id = format!("nat-0{}", rng.hex(16));
        let nat = self.add_service_eni(vpc, 2, 0, &format!("Interface for NAT Gateway {nat_id}"), "nat_gateway", "amazon-nat", rng);
        self.enis[nat].public_ip = Some(nat_public);
        self.vpcs[vpc].nat = nat;
        let engine = *rng.pick(&[5432, 3306]);
        let endpoint = |rng: &mut Rng| format!("VPC Endpoint Interface vpce-0{}", rng.hex(16));
        let secrets = endpoint(rng);
        let queue = endpoint(rng);
        self.add_service_eni(vpc, 0, engine, "RDSNetworkInterface", "interface", "amazon-rds", rng);
        self.add_service_eni(vpc, 1, 443, &secrets, "vpc_endpoint", "amazon-vpce", rng);
        if !main {
            self.add_instance(vpc, "app-1", 0, rng);
            return;
        }
        self.add_service_eni(vpc, 0, 443, &queue, "vpc_endpoint", "amazon-vpce", rng);
        self.add_service_eni(vpc, 1, engine, "RDSNetworkInterface", "interface", "amazon-rds", rng);
        let cache = format!("ElastiCache sessions-{}", rng.hex(4));
        self.add_service_eni(vpc, 0, 6379, &cache, "interface", "amazon-elasticache", rng);
        self.add_service_eni(vpc, 1, 5439, "RedshiftNetworkInterface", "interface", "amazon-redshift", rng);
        let mount = format!("EFS mount target for fs-0{} (fsmt-0{})", rng.hex(16), rng.hex(16));
        self.add_service_eni(vpc, 0, 2049, &mount, "efs", "amazon-efs", rng);
        for n in 1..=3 {
            self.add_instance(vpc, &format!("app-{n}"), n % 2, rng);
        }
        self.add_instance(vpc, "patches", 1, rng);
        let bastion = self.add_instance(vpc, "bastion", 2, rng);
        self.enis[bastion].public_ip = Some(internet::OWN + 0x800 + (vpc as u32 % 0x700));
        let balancer = format!("ELB app/front/{}", rng.hex(16));
        let balancer = self.add_service_eni(vpc, 2, 443, &balancer, "interface", "amazon-elb", rng);
        self.enis[balancer].public_ip = Some(internet::OWN + 0x200 + (vpc as u32 % 0x0500));
        self.add_hosts(vpc, balancer, bastion, rng);
    }

    /// An address of the subnet that no interface ever had.
    pub(crate) fn fresh_ip(&self, vpc: usize, subnet: usize, rng: &mut Rng) -> u32 {
        let net = &self.vpcs[vpc].subnets[subnet];
        loop {
            // AWS keeps the first four and the last address.
            let ip = net.base + 4 + rng.below(u64::from(net.size) - 5) as u32;
            if self.enis.iter().all(|e| e.vpc != vpc || e.ip != ip) {
                return ip;
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add_service_eni(
        &mut self,
        vpc: usize,
        subnet: usize,
        port: u16,
        description: &str,
        kind: &'static str,
        requester: &'static str,
        rng: &mut Rng,
    ) -> usize {
        let eni = Eni {
            id: format!("eni-0{}", rng.hex(16)),
            vpc,
            subnet,
            security_groups: vec![format!("sg-0{}", rng.hex(16))],
            ip: self.fresh_ip(vpc, subnet, rng),
            public_ip: None,
            from: ALWAYS,
            to: STILL,
            holder: Holder::Service(requester),
            description: description.to_owned(),
            interface_type: kind,
            requester_id: Some(if kind == "nat_gateway" { rng.text(12, b"0123456789") } else { requester.to_owned() }),
            requester_managed: true,
            name_tag: None,
            made_for: None,
            port,
        };
        self.enis.push(eni);
        self.vpcs[vpc].resources.push(self.enis.len() - 1);
        self.enis.len() - 1
    }

    fn add_instance(&mut self, vpc: usize, name: &str, subnet: usize, rng: &mut Rng) -> usize {
        let eni = Eni {
            id: format!("eni-0{}", rng.hex(16)),
            vpc,
            subnet,
            security_groups: vec![format!("sg-0{}", rng.hex(16))],
            ip: self.fresh_ip(vpc, subnet, rng),
            public_ip: None,
            from: ALWAYS,
            to: STILL,
            holder: Holder::Instance(format!("i-0{}", rng.hex(16))),
            description: String::new(),
            interface_type: "interface",
            requester_id: None,
            requester_managed: false,
            name_tag: Some(name.to_owned()),
            made_for: None,
            port: 8080,
        };
        self.enis.push(eni);
        let index = self.enis.len() - 1;
        self.vpcs[vpc].resources.push(index);
        self.vpcs[vpc].instances.push(index);
        index
    }

    /// The interface of a VPC that serves `port`; the `nth` of them, round robin.
    fn serving(&self, vpc: usize, port: impl Fn(u16) -> bool, nth: usize) -> Option<usize> {
        let found: Vec<usize> = self.vpcs[vpc].resources.iter().copied().filter(|&e| port(self.enis[e].port)).collect();
        (!found.is_empty()).then(|| found[nth % found.len()])
    }

    fn add_hosts(&mut self, vpc: usize, balancer: usize, bastion: usize, rng: &mut Rng) {
        let s3 = self.sites[self.vpcs[vpc].site].region.s3;
        let region_s3 = Peer { to: Target::Net { base: s3 + 0x100, hosts: 40 }, port: 443, weight: 2, up: 900, down: 20_000, from: ALWAYS };
        let inside = |world: &Self, port: fn(u16) -> bool, weight| {
            let eni = world.serving(vpc, port, 0)?;
            Some(Peer { to: Target::Eni(eni), port: world.enis[eni].port, weight, up: 1_500, down: 9_000, from: ALWAYS })
        };
        let instances = self.vpcs[vpc].instances.clone();
        let mut hosts = Vec::new();
        let mut front = Vec::new();
        for &eni in &instances {
            let name = self.enis[eni].name_tag.clone().unwrap_or_default();
            if name.starts_with("app-") {
                front.push(Peer { to: Target::Eni(eni), port: 8080, weight: 1, up: 1_200, down: 6_000, from: ALWAYS });
                let peers = [inside(self, |p| p == 5432 || p == 3306, 4), inside(self, |p| p == 6379, 3), Some(region_s3.clone())];
                hosts.push(Host { eni, peers: peers.into_iter().flatten().collect(), level: 2.0, crawler: false, visitors: 0.0 });
            } else if name == "patches" {
                // In the first network it meets whatever mirror is nearest, all day long.
                let crawler = vpc == 0;
                hosts.push(Host { eni, peers: vec![region_s3.clone()], level: if crawler { 4.0 } else { 1.0 }, crawler, visitors: 0.0 });
            }
        }
        let visitors = 3.0 + 4.0 * rng.unit();
        hosts.push(Host { eni: balancer, peers: front, level: 4.0, crawler: false, visitors });
        hosts.push(Host { eni: bastion, peers: Vec::new(), level: 0.0, crawler: false, visitors: 0.0 });
        self.vpcs[vpc].hosts = hosts;
    }

    /// A group of `count` new security groups.
    pub(crate) fn add_group(&mut self, vpc: usize, count: usize, rng: &mut Rng) -> usize {
        let mut security_groups: Vec<String> = (0..count).map(|_| format!("sg-0{}", rng.hex(16))).collect();
        security_groups.sort();
        self.groups.push(Group { vpc, security_groups, enis: Vec::new(), legacy: false, members: Vec::new() });
        self.groups.len() - 1
    }

    fn add_functions(&mut self, site: usize, count: usize, rng: &mut Rng) {
        let mut subjects: Vec<&str> = SUBJECTS.to_vec();
        rng.shuffle(&mut subjects);
        let days = self.days() as f64;
        let mut shared = 0;
        for n in 0..count {
            let seat = n % 8;
            let vpc = self.sites[site].vpcs[usize::from(seat == 7 && self.sites[site].vpcs.len() > 1)];
            if seat == 0 {
                shared = self.add_group(self.sites[site].vpcs[0], 1, rng);
            }
            // Seats 0 to 2 share their interfaces, 6 is outside any VPC, the others have interfaces of their own.
            let home = match seat {
                0..=2 => Some((vpc, shared)),
                6 => None,
                _ => Some((vpc, self.add_group(vpc, 1 + n % 2, rng))),
            };
            let mut moment = |from: f64, to: f64| self.start + ((from + (to - from) * rng.unit()) * days * DAY as f64) as i64;
            // Early times lie well within the two weeks of learning, late ones anywhere after.
            let fate = match (seat, site % 2) {
                (1, 1) => Fate::Comes(moment(0.07, 0.3)),
                (2, _) => Fate::Moves(moment(0.45, 0.92)),
                (5, _) => Fate::Comes(moment(0.1, 0.35)),
                (7, 1) => {
                    let gone = moment(0.3, 0.8);
                    Fate::Goes(gone, gone + moment(0.03, 0.15) - self.start)
                }
                _ => Fate::Stays,
            };
            // Who shares interfaces with a steady function must have shown all its peers within the two weeks of learning.
            let archetype = match seat {
                0 | 3 | 4 | 6 => *rng.pick(&Archetype::STEADY),
                1 | 2 => *rng.pick(&Archetype::DAILY),
                _ => *rng.pick(&Archetype::ALL),
            };
            let sociable = seat == 7 && site.is_multiple_of(2);
            self.add_function(site, subjects[n % subjects.len()], n / subjects.len(), home, fate, archetype, sociable, rng);
            let function = self.functions.len() - 1;
            self.functions[function].steady = matches!(seat, 0 | 3 | 4 | 6);
            if seat == 3
                && site % 2 == 1
                && let Some((_, group)) = home
            {
                self.groups[group].legacy = true;
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add_function(
        &mut self,
        site: usize,
        subject: &str,
        round: usize,
        home: Option<(usize, usize)>,
        fate: Fate,
        archetype: Archetype,
        sociable: bool,
        rng: &mut Rng,
    ) {
        let verb = rng.pick(archetype.verbs());
        let name = if round == 0 { format!("{subject}-{verb}") } else { format!("{subject}-{verb}-{round}") };
        let arn = format!("arn:aws:lambda:{}:{}:function:{name}", self.sites[site].region.name, self.account_of(site).id);
        let mut everyday = EVERYDAY.to_vec();
        rng.shuffle(&mut everyday);
        everyday.truncate(3 + rng.below(3) as usize);
        // For some, reading a secret is everyday life.
        if rng.chance(0.3) {
            everyday.push(SENSITIVE[0]);
        }
        let peers = home.map_or_else(Vec::new, |(vpc, _)| self.peers_of(archetype, vpc, sociable, rng));
        let function = Function {
            site,
            role: format!("{name}-role"),
            role_id: format!("AROA{}", rng.base32(17)),
            runtime: ["python3.12", "nodejs22.x", "java21", "provided.al2023"][rng.below(4) as usize],
            name,
            arn,
            archetype,
            phase: rng.below(24) as u8,
            home,
            fate,
            steady: false,
            sociable,
            lives: Vec::new(),
            configs: Vec::new(),
            peers,
            actions: everyday,
            deploys: Vec::new(),
            modified: vec![self.start - rng.range(3, 200) * DAY - rng.range(0, DAY)],
        };
        self.functions.push(function);
        self.sites[site].functions.push(self.functions.len() - 1);
    }

    fn peers_of(&self, archetype: Archetype, vpc: usize, sociable: bool, rng: &mut Rng) -> Vec<Peer> {
        let nth = rng.below(4) as usize;
        let s3 = self.sites[self.vpcs[vpc].site].region.s3;
        let inside = |port: fn(u16) -> bool, weight, up, down| {
            let eni = self.serving(vpc, port, nth)?;
            Some(Peer { to: Target::Eni(eni), port: self.enis[eni].port, weight, up, down, from: ALWAYS })
        };
        let database = inside(|p| p == 5432 || p == 3306, 6, 2_000, 12_000);
        let cache = inside(|p| p == 6379, 5, 600, 1_500);
        let endpoint = inside(|p| p == 443, 2, 1_800, 3_500);
        let warehouse = inside(|p| p == 5439, 5, 60_000, 20_000);
        let files = inside(|p| p == 2049, 3, 80_000, 40_000);
        let buckets = Some(Peer { to: Target::Net { base: s3, hosts: 60 }, port: 443, weight: 3, up: 20_000, down: 30_000, from: ALWAYS });
        let partner = |rng: &mut Rng| {
            // Half of the partners stand behind a small farm of addresses in one /24.
            let base = internet::PARTNERS + ((rng.below(120) as u32) << 8) + 10;
            let hosts = if rng.chance(0.5) { 1 } else { 6 };
            Some(Peer { to: Target::Net { base, hosts }, port: 443, weight: 3, up: 2_500, down: 7_000, from: ALWAYS })
        };
        let mut peers: Vec<Peer> = match archetype {
            Archetype::Api => vec![database, cache, endpoint, partner(rng)],
            Archetype::Cron => vec![database, buckets],
            Archetype::Queue => vec![endpoint, database, partner(rng)],
            Archetype::Etl => vec![warehouse, buckets, database],
            Archetype::Webhook => vec![partner(rng), partner(rng), endpoint],
            Archetype::Batch => vec![database, files, buckets],
            Archetype::Idle => vec![database],
        }
        .into_iter()
        .flatten()
        .collect();
        if sociable {
            peers.extend(partner(rng));
        }
        peers
    }
}
