//! What an organisation consists of: accounts, networks, interfaces, functions and what each of them talks to.

use super::archetype::{Action, Archetype};
use super::flow::Layout;
use super::rng::Rng;

/// For interfaces and functions that were there before the first day.
pub(crate) const ALWAYS: i64 = i64::MIN / 4;
/// For what lasts beyond the last day.
pub(crate) const STILL: i64 = i64::MAX / 4;

pub(crate) const DAY: i64 = 86_400;

/// Address ranges of the generated internet. The benchmark range of RFC 2544 and the documentation ranges of RFC 5737 belong to
/// nobody, so no real address is ever accused.
pub(crate) mod internet {
    /// Partners that functions talk to: 198.18.0.0/17.
    pub(crate) const PARTNERS: u32 = 0xc612_0000;
    /// Public addresses of the organisation's own gateways: 198.18.240.0/20.
    pub(crate) const OWN: u32 = 0xc612_f000;
    /// Where attacks come from and go to, one /24 each: 198.19.0.0/16.
    pub(crate) const ATTACKERS: u32 = 0xc613_0000;
    /// Listed addresses: 203.0.113.0/24.
    pub(crate) const LISTED: u32 = 0xcb00_7100;
    /// Who knocks at every public address: 192.0.2.0/24.
    pub(crate) const NOISE: u32 = 0xc000_0200;
}

/// An AWS region with a range of its S3 (ip-ranges.json) and the prefix of its zone ids.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) zone_prefix: &'static str,
    pub(crate) s3: u32,
}

pub(crate) const REGIONS: [Region; 4] = [
    Region { name: "eu-west-1", zone_prefix: "euw1", s3: 0x34da_0000 },
    Region { name: "us-east-1", zone_prefix: "use1", s3: 0x34d8_0000 },
    Region { name: "eu-central-1", zone_prefix: "euc1", s3: 0x0305_8800 },
    Region { name: "us-west-2", zone_prefix: "usw2", s3: 0x345c_8000 },
];

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: String,
    /// IAM users with their unique ids: an operator and an administrator.
    pub(crate) users: [(String, String); 2],
    pub(crate) ci_role_id: String,
    pub(crate) monitor_role_id: String,
}

/// One region of one account: what has its own flow log and trail objects.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) account: usize,
    pub(crate) region: &'static Region,
    pub(crate) vpcs: Vec<usize>,
    pub(crate) functions: Vec<usize>,
    pub(crate) layout: Layout,
    /// Aggregation interval of the flow log, in seconds.
    pub(crate) window_secs: i64,
    pub(crate) flow_log: String,
    /// One that somebody else sets up for a day.
    pub(crate) second_flow_log: String,
    /// Whether the NAT gateway's interface is logged, too.
    pub(crate) nat_logged: bool,
    /// Whether the trail records data events of Lambda.
    pub(crate) data_events: bool,
    /// Days between snapshots; 0: only at the beginning and on the last day.
    pub(crate) snapshot_days: i64,
}

#[derive(Debug)]
pub(crate) struct Subnet {
    pub(crate) id: String,
    pub(crate) zone: char,
    pub(crate) base: u32,
    /// Addresses in the subnet.
    pub(crate) size: u32,
}

#[derive(Debug)]
pub(crate) struct Vpc {
    pub(crate) site: usize,
    pub(crate) id: String,
    /// Two private subnets, then a public one.
    pub(crate) subnets: [Subnet; 3],
    pub(crate) nat: usize,
    pub(crate) nat_public: u32,
    /// Interfaces that are no function's: databases, endpoints, instances.
    pub(crate) resources: Vec<usize>,
    /// Instances among them.
    pub(crate) instances: Vec<usize>,
    pub(crate) hosts: Vec<Host>,
}

#[derive(Clone, Debug)]
pub(crate) enum Holder {
    /// Lambda's, for every function with the group and this subnet.
    Lambda {
        group: usize,
    },
    Instance(String),
    /// An AWS service's.
    Service(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Eni {
    pub(crate) id: String,
    pub(crate) vpc: usize,
    pub(crate) subnet: usize,
    pub(crate) security_groups: Vec<String>,
    pub(crate) ip: u32,
    pub(crate) public_ip: Option<u32>,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) holder: Holder,
    pub(crate) description: String,
    pub(crate) interface_type: &'static str,
    pub(crate) requester_id: Option<String>,
    pub(crate) requester_managed: bool,
    pub(crate) name_tag: Option<String>,
    /// The function whose creation or change made it.
    pub(crate) made_for: Option<usize>,
    /// Port that it serves; 0 for those that serve nobody.
    pub(crate) port: u16,
}

/// Where a connection may go.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) to: Target,
    pub(crate) port: u16,
    pub(crate) weight: u64,
    /// Median bytes of a connection, to the peer and back.
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// Not before.
    pub(crate) from: i64,
}

#[derive(Clone, Debug)]
pub(crate) enum Target {
    Eni(usize),
    /// One of the first `hosts` addresses from the base on.
    Net {
        base: u32,
        hosts: u32,
    },
}

/// Something with an interface that is no function and talks, too.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) eni: usize,
    pub(crate) peers: Vec<Peer>,
    /// Connections in an hour.
    pub(crate) level: f64,
    /// Meets new addresses all the time.
    pub(crate) crawler: bool,
    /// Connections from the internet in an hour that are served on 443.
    pub(crate) visitors: f64,
}

/// A function's network configuration over `[from, to)`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) group: usize,
    /// Indices of the VPC's subnets.
    pub(crate) subnets: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Deploy {
    pub(crate) at: i64,
    /// Something small is different afterwards.
    pub(crate) peer: Option<Peer>,
    pub(crate) action: Option<Action>,
}

/// What the years hold for a function.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    /// Created at that time.
    Comes(i64),
    /// Deleted at the first time, created again under its name at the second (if before the end).
    Goes(i64, i64),
    /// Gets other security groups at that time.
    Moves(i64),
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) site: usize,
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) role: String,
    pub(crate) role_id: String,
    pub(crate) runtime: &'static str,
    pub(crate) archetype: Archetype,
    pub(crate) phase: u8,
    /// VPC and first group; `None` outside any VPC.
    pub(crate) home: Option<(usize, usize)>,
    pub(crate) fate: Fate,
    /// Known well after two weeks, and nothing about it or its group changes: an attack on it must show.
    pub(crate) steady: bool,
    /// Meets a new partner now and then.
    pub(crate) sociable: bool,
    pub(crate) lives: Vec<(i64, i64)>,
    pub(crate) configs: Vec<Config>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) actions: Vec<Action>,
    pub(crate) deploys: Vec<Deploy>,
    /// Times at which code or configuration was last modified, in any order; the first lies before the first day.
    pub(crate) modified: Vec<i64>,
}

/// Lambda's interfaces of one VPC and one set of security groups.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) vpc: usize,
    /// Sorted.
    pub(crate) security_groups: Vec<String>,
    pub(crate) enis: Vec<usize>,
    /// The function of a pre-2019 interface.
    pub(crate) legacy: bool,
    pub(crate) members: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) accounts: Vec<Account>,
    pub(crate) sites: Vec<Site>,
    pub(crate) vpcs: Vec<Vpc>,
    pub(crate) enis: Vec<Eni>,
    pub(crate) groups: Vec<Group>,
    pub(crate) functions: Vec<Function>,
}

impl World {
    pub(crate) fn account_of(&self, site: usize) -> &Account {
        &self.accounts[self.sites[site].account]
    }

    pub(crate) fn days(&self) -> i64 {
        (self.end - self.start) / DAY
    }

    /// The interface that connections of `function` leave through at `at`: one of its subnets', by chance. `None` when it does
    /// not exist then, is being changed, or has no VPC.
    pub(crate) fn eni_of(&self, function: usize, at: i64, rng: &mut Rng) -> Option<usize> {
        // Connections keep away from every change by this much, so that the truth has no blurred edges.
        const PAUSE: i64 = 75;
        let config = self.functions[function].configs.iter().find(|c| c.from + PAUSE <= at && at < c.to - PAUSE)?;
        let first = rng.below(config.subnets.len() as u64) as usize;
        let enis = &self.groups[config.group].enis;
        (0..config.subnets.len()).find_map(|n| {
            let subnet = config.subnets[(first + n) % config.subnets.len()];
            enis.iter().copied().find(|&e| {
                let eni = &self.enis[e];
                eni.subnet == subnet && eni.from + PAUSE <= at && at < eni.to - PAUSE
            })
        })
    }

    pub(crate) fn alive(&self, function: usize, at: i64) -> bool {
        self.functions[function].lives.iter().any(|&(from, to)| from + 60 <= at && at < to - 60)
    }
}
