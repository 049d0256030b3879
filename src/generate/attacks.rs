//! Attacks: what kinds there are, and whom and when they hit. The traces they leave are in [`super::traces`].
//!
//! An attack stands on its own: its target runs steadily and was known for two weeks, nothing was deployed there for a day,
//! and its addresses are nobody else's.

use super::archetype::{Action, LOOKING_AROUND, SENSITIVE};
use super::flow::dotted;
use super::rng::Rng;
use super::world::{DAY, Target, World, internet};

const HOUR: i64 = 3600;
const MINUTE: i64 = 60;

/// A kind of attack.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A function talks to an address that nobody talked to.
    NewPeer,
    /// One long connection with small packets to port 4444.
    ReverseShell,
    /// Many megabytes to a new address.
    Exfil,
    /// Log-ins at several hosts of the network that served.
    Lateral,
    /// A function asks a listed address what to do.
    C2,
    PortScan,
    HostSweep,
    /// A sensitive action that the function never called.
    NewApiCall,
    /// Many read actions that it never called.
    ApiEnumeration,
    /// A user makes another one administrator.
    PrivilegeEscalation,
    /// A user makes keys for another one.
    BackdoorUser,
    /// A role that a foreign account may take, with all rights.
    BackdoorRole,
    /// Everybody may invoke a function.
    BackdoorPermission,
    /// A function makes its own role administrator.
    FunctionRoleEscalation,
    /// A function's credentials are used from somewhere else.
    StolenCredentials,
    /// A short contact every five minutes, for hours.
    Beacon,
    /// Steady small traffic to a mining pool.
    Mining,
    /// Far more than ever to a partner it knows.
    BulkUpload,
    /// Code uploaded by somebody who never did, and a new peer after it.
    CodeSwap,
}

impl Kind {
    pub(crate) const ALL: [Self; 19] = [
        Self::NewPeer,
        Self::ReverseShell,
        Self::Exfil,
        Self::Lateral,
        Self::C2,
        Self::PortScan,
        Self::HostSweep,
        Self::NewApiCall,
        Self::ApiEnumeration,
        Self::PrivilegeEscalation,
        Self::BackdoorUser,
        Self::BackdoorRole,
        Self::BackdoorPermission,
        Self::FunctionRoleEscalation,
        Self::StolenCredentials,
        Self::Beacon,
        Self::Mining,
        Self::BulkUpload,
        Self::CodeSwap,
    ];

    /// Name in `truth.json` and of `--attacks`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NewPeer => "new_peer",
            Self::ReverseShell => "reverse_shell",
            Self::Exfil => "exfil",
            Self::Lateral => "lateral",
            Self::C2 => "c2",
            Self::PortScan => "port_scan",
            Self::HostSweep => "host_sweep",
            Self::NewApiCall => "new_api_call",
            Self::ApiEnumeration => "api_enumeration",
            Self::PrivilegeEscalation => "privilege_escalation",
            Self::BackdoorUser => "backdoor_user",
            Self::BackdoorRole => "backdoor_role",
            Self::BackdoorPermission => "backdoor_permission",
            Self::FunctionRoleEscalation => "function_role_escalation",
            Self::StolenCredentials => "stolen_credentials",
            Self::Beacon => "beacon",
            Self::Mining => "mining",
            Self::BulkUpload => "bulk_upload",
            Self::CodeSwap => "code_swap",
        }
    }

    /// The detector whose question it is.
    pub(crate) fn detector(self) -> &'static str {
        match self {
            Self::NewPeer | Self::ReverseShell | Self::Exfil => "new_peer",
            Self::Lateral | Self::PortScan | Self::HostSweep => "scan",
            Self::C2 => "threat_list",
            Self::NewApiCall | Self::ApiEnumeration => "new_api_call",
            Self::PrivilegeEscalation
            | Self::BackdoorUser
            | Self::BackdoorRole
            | Self::BackdoorPermission
            | Self::FunctionRoleEscalation => "privilege_escalation",
            Self::StolenCredentials => "stolen_credentials",
            Self::Beacon => "beacon",
            Self::Mining => "cryptomining",
            Self::BulkUpload => "bytes_out",
            Self::CodeSwap => "change",
        }
    }

    /// Where the traces are.
    pub(crate) fn ground(self) -> Ground {
        match self {
            Self::NewPeer
            | Self::ReverseShell
            | Self::Exfil
            | Self::Lateral
            | Self::C2
            | Self::PortScan
            | Self::HostSweep
            | Self::Beacon
            | Self::Mining
            | Self::BulkUpload
            | Self::CodeSwap => Ground::Network,
            Self::NewApiCall | Self::ApiEnumeration | Self::FunctionRoleEscalation | Self::StolenCredentials => Ground::Function,
            Self::PrivilegeEscalation | Self::BackdoorUser | Self::BackdoorRole | Self::BackdoorPermission => Ground::Account,
        }
    }

    /// Length in seconds, at least and at most. What counts within an hour stays in one.
    fn length(self) -> (i64, i64) {
        match self {
            Self::Beacon => (12 * HOUR, 16 * HOUR),
            Self::Mining => (2 * HOUR, 4 * HOUR),
            Self::C2 => (30 * MINUTE, 3 * HOUR),
            Self::CodeSwap => (40 * MINUTE, 50 * MINUTE),
            Self::ReverseShell => (6 * MINUTE, 14 * MINUTE),
            Self::PortScan | Self::HostSweep | Self::ApiEnumeration => (4 * MINUTE, 20 * MINUTE),
            Self::PrivilegeEscalation | Self::BackdoorUser | Self::BackdoorRole | Self::BackdoorPermission => (2 * MINUTE, 9 * MINUTE),
            _ => (10 * MINUTE, 35 * MINUTE),
        }
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    Network,
    Function,
    Account,
}

#[derive(Clone, Debug)]
pub(crate) struct Attack {
    pub(crate) kind: Kind,
    pub(crate) site: usize,
    pub(crate) function: Option<usize>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) subject: String,
    /// How far beyond the least that must be found (1): contacts, ports, hosts or actions against the detector's gate.
    pub(crate) strength: f64,
    /// Number among the attacks of this world.
    pub(crate) number: usize,
    /// Address it goes to or comes from.
    pub(crate) address: u32,
    /// The other end's interface, if it is one of ours.
    pub(crate) target: Option<usize>,
    pub(crate) port: u16,
    /// Contacts, ports, hosts or actions.
    pub(crate) count: u64,
    pub(crate) action: Action,
}

impl Attack {
    pub(crate) fn dice(&self, world: &World) -> Rng {
        Rng::new(world.seed, &[40, self.number as u64])
    }
}

/// Chooses targets and times for `kinds`. The first comes after day 15; in shorter worlds in their last third.
pub(crate) fn plan(world: &World, kinds: &[Kind]) -> Vec<Attack> {
    let mut rng = Rng::new(world.seed, &[41]);
    let first = world.start + if world.days() > 16 { 15 * DAY + HOUR } else { world.days() * DAY * 7 / 10 };
    let last = (world.end - 8 * HOUR).max(first + 1);
    let mut steady: Vec<usize> = (0..world.functions.len()).filter(|&f| world.functions[f].steady).collect();
    rng.shuffle(&mut steady);
    let mut network: Vec<usize> = steady.iter().copied().filter(|&f| world.functions[f].home.is_some()).collect();
    // Accounts take turns.
    network.sort_by_key(|&f| (rank_in_site(world, &steady, f), world.functions[f].site));
    let mut calling = steady.clone();
    calling.sort_by_key(|&f| (rank_in_site(world, &steady, f), usize::MAX - world.functions[f].site));
    let (mut network, mut calling) = (turns(&network), turns(&calling));
    let mut slots: Vec<usize> = (0..kinds.len()).collect();
    rng.shuffle(&mut slots);
    let mut attacks = Vec::new();
    for (number, &kind) in kinds.iter().enumerate() {
        let function = match kind.ground() {
            Ground::Network => network.next(),
            Ground::Function => calling.next(),
            Ground::Account => None,
        };
        if function.is_none() && kind.ground() != Ground::Account {
            continue;
        }
        let site = function.map_or_else(|| rng.below(world.sites.len() as u64) as usize, |f| world.functions[f].site);
        let (least, most) = kind.length();
        let secs = rng.range(least, most);
        let slot = (last - first) / kinds.len() as i64;
        let at = first + slot * slots[number] as i64 + rng.range(0, slot.max(1));
        let at = at.min(world.end - 2 * HOUR - secs).max(first);
        let start = if secs < HOUR { hour_of(at) + rng.range(2 * MINUTE, HOUR - secs - MINUTE) } else { at };
        let end = (start + secs).min(world.end - 1);
        let address = internet::ATTACKERS + ((number as u32 + 1) << 8) + 10 + rng.below(200) as u32;
        let mut attack = Attack {
            kind,
            site,
            function,
            start,
            end,
            subject: String::new(),
            strength: 1.0,
            number,
            address,
            target: None,
            port: 443,
            count: 1,
            action: SENSITIVE[0],
        };
        if describe(world, &mut attack, &mut rng) {
            attacks.push(attack);
        }
    }
    attacks.sort_by_key(|a| (a.start, a.number));
    attacks
}

/// Every target once, and then the last ones again and again: what comes first among the kinds leans on a calm target.
fn turns(targets: &[usize]) -> impl Iterator<Item = usize> {
    let again = &targets[targets.len() * 2 / 3..];
    targets.iter().chain(again.iter().rev().cycle()).copied()
}

fn rank_in_site(world: &World, order: &[usize], function: usize) -> usize {
    order.iter().take_while(|&&f| f != function).filter(|&&f| world.functions[f].site == world.functions[function].site).count()
}

pub(crate) fn hour_of(at: i64) -> i64 {
    at - at.rem_euclid(HOUR)
}

/// Fills in what the attack does; false if this world has no target for it.
fn describe(world: &World, attack: &mut Attack, rng: &mut Rng) -> bool {
    let home = attack.function.and_then(|f| world.functions[f].home).map(|(vpc, _)| &world.vpcs[vpc]);
    attack.subject = dotted(attack.address);
    match attack.kind {
        Kind::NewPeer => {
            attack.count = 5 + rng.below(12);
            attack.strength = attack.count as f64 / 3.0;
        }
        Kind::ReverseShell => attack.port = 4444,
        Kind::Exfil => {
            attack.count = 8 + rng.below(20);
            attack.strength = attack.count as f64 / 8.0;
        }
        Kind::C2 => {
            attack.address = internet::LISTED + 20 + rng.below(200) as u32;
            attack.subject = dotted(attack.address);
            attack.count = 3 + rng.below(6);
        }
        Kind::Beacon => attack.count = ((attack.end - attack.start) / 300) as u64,
        Kind::Mining => {
            attack.port = 3333;
            attack.count = 3;
        }
        Kind::CodeSwap => {
            attack.count = 6;
            attack.subject = attack.function.map_or_else(String::new, |f| world.functions[f].arn.clone());
        }
        Kind::BulkUpload => {
            let Some(function) = attack.function else { return false };
            let peers = &world.functions[function].peers;
            // The partner outside that it knows best, else the region's S3, else the database.
            let peer = peers.iter().max_by_key(|p| match p.to {
                Target::Net { hosts, .. } => 1_000 - hosts,
                Target::Eni(_) => 0,
            });
            let Some(peer) = peer else { return false };
            match peer.to {
                Target::Net { base, .. } => attack.address = base,
                Target::Eni(eni) => (attack.address, attack.target) = (world.enis[eni].ip, Some(eni)),
            }
            attack.port = peer.port;
            attack.subject = dotted(attack.address);
            attack.count = 12;
        }
        Kind::PortScan => {
            let Some(&host) = home.filter(|v| !v.instances.is_empty()).map(|v| rng.pick(&v.instances)) else { return false };
            (attack.address, attack.target) = (world.enis[host].ip, Some(host));
            attack.subject = dotted(attack.address);
            attack.count = 25 + rng.below(60);
            attack.strength = attack.count as f64 / 15.0;
        }
        Kind::HostSweep => {
            attack.port = *rng.pick(&[22, 445, 3389, 6379, 9200]);
            attack.subject = format!("port {}/tcp", attack.port);
            attack.count = 30 + rng.below(70);
            attack.strength = attack.count as f64 / 25.0;
        }
        Kind::Lateral => {
            let Some(vpc) = home.filter(|v| v.instances.len() >= 3) else { return false };
            attack.port = 22;
            attack.subject = "port 22/tcp".to_owned();
            attack.count = vpc.instances.len() as u64;
            attack.strength = attack.count as f64 / 3.0;
        }
        Kind::NewApiCall => {
            let Some(function) = attack.function else { return false };
            let unknown: Vec<Action> = SENSITIVE.into_iter().filter(|a| !world.functions[function].actions.contains(a)).collect();
            attack.action = *rng.pick(&unknown);
            attack.subject = format!("{}:{}", attack.action.service, attack.action.base_name());
            attack.count = 1 + rng.below(3);
        }
        Kind::ApiEnumeration => {
            attack.count = 9 + rng.below(LOOKING_AROUND.len() as u64 - 8);
            attack.strength = attack.count as f64 / 8.0;
            attack.subject = attack.function.map_or_else(String::new, |f| world.functions[f].arn.clone());
        }
        Kind::FunctionRoleEscalation => {
            let Some(function) = attack.function else { return false };
            attack.subject = world.functions[function].role.clone();
        }
        Kind::PrivilegeEscalation => attack.subject = "svc-backup".to_owned(),
        Kind::BackdoorUser => attack.subject = world.account_of(attack.site).users[1].0.clone(),
        Kind::BackdoorRole => attack.subject = "support-access".to_owned(),
        Kind::BackdoorPermission => {
            let Some(&function) = world.sites[attack.site].functions.first() else { return false };
            attack.subject = world.functions[function].arn.clone();
        }
        Kind::StolenCredentials => {}
    }
    true
}

/// Rows of `lists/c2.csv`: what attacks use, others that nobody meets, and one that a partner's address was long ago.
pub(crate) fn listed(world: &World, attacks: &[Attack]) -> String {
    let mut rng = Rng::new(world.seed, &[42]);
    let mut lines = vec!["range,category,confidence,valid_from,valid_to".to_owned()];
    let day = |offset: i64| flowtrail_ingest::EventTime(world.start + offset * DAY).to_string();
    for attack in attacks.iter().filter(|a| a.kind == Kind::C2) {
        lines.push(format!("{},c2,0.9,{},", dotted(attack.address), day(-30)));
    }
    for n in 0..40 {
        // Between 203.0.113.224 and .255 and in 198.51.100.0/24 nobody of ours ever goes.
        lines.push(format!("198.51.100.{},c2,0.{},{},", 3 + n * 6, 5 + n % 5, day(-100 - n)));
    }
    lines.push(format!("203.0.113.{}/28,c2,0.7,,", 224));
    lines.push("2001:db8:bad::/48,c2,0.8,,".to_owned());
    // Listed once, and clean again before the first day.
    let known: Vec<u32> = world
        .functions
        .iter()
        .flat_map(|f| &f.peers)
        .filter_map(|p| match p.to {
            Target::Net { base, .. } if base >> 16 == internet::PARTNERS >> 16 => Some(base),
            _ => None,
        })
        .collect();
    if !known.is_empty() {
        lines.push(format!("{},c2,0.8,{},{}", dotted(*rng.pick(&known)), day(-400), day(-300)));
    }
    lines.join("\n") + "\n"
}

/// Spans in which a target must not change by itself: `(function, from, to)`.
pub(crate) fn busy(attacks: &[Attack]) -> Vec<(usize, i64, i64)> {
    attacks.iter().filter_map(|a| a.function.map(|f| (f, a.start - 30 * HOUR, a.end + 2 * HOUR))).collect()
}
