//! What changes over the days: functions come, go and move, interfaces are deleted and made again, addresses change hands,
//! code is deployed, databases fail for a while. Each dated change later appears as the API call that AWS records of it.
//!
//! Planned as a whole before any traffic is made, so that the truth about names is settled first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::archetype::EVERYDAY;
use super::rng::Rng;
use super::world::{ALWAYS, Config, DAY, Deploy, Eni, Fate, Holder, Peer, STILL, Target, World};

#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Also makes the role, half a minute before; `retried`: a first attempt failed.
    FunctionCreated {
        function: usize,
        config: Option<usize>,
        retried: bool,
    },
    FunctionDeleted {
        function: usize,
    },
    /// New subnets and security groups: index into the function's configs.
    FunctionMoved {
        function: usize,
        config: usize,
    },
    CodeDeployed {
        function: usize,
    },
    /// Memory or time-out; the network configuration stays.
    Tuned {
        function: usize,
    },
    EniCreated {
        eni: usize,
    },
    EniDeleted {
        eni: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Dated {
    pub(crate) at: i64,
    pub(crate) site: usize,
    pub(crate) what: Change,
}

/// One interface over a span in which the set of functions that may use it stays the same.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) eni: usize,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Every function with that subnet and those security groups then.
    pub(crate) could: Vec<usize>,
}

/// A database that refuses for a while.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub(crate) eni: usize,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

#[derive(Debug)]
pub(crate) struct History {
    /// By time.
    pub(crate) changes: Vec<Dated>,
    pub(crate) holdings: Vec<Holding>,
    /// Holdings of each interface.
    of_eni: Vec<Range<usize>>,
    pub(crate) outages: Vec<Outage>,
}

impl History {
    /// Changes in `[from, to)`.
    pub(crate) fn changes_in(&self, from: i64, to: i64) -> &[Dated] {
        let first = self.changes.partition_point(|c| c.at < from);
        let last = self.changes.partition_point(|c| c.at < to);
        &self.changes[first..last]
    }

    /// The holding that `at` lies in.
    pub(crate) fn holding(&self, eni: usize, at: i64) -> Option<usize> {
        self.of_eni[eni].clone().find(|&h| self.holdings[h].from <= at && at < self.holdings[h].to)
    }

    pub(crate) fn refuses(&self, eni: usize, at: i64) -> bool {
        self.outages.iter().any(|o| o.eni == eni && o.from <= at && at < o.to)
    }
}

/// What is to be done at a time, while planning.
#[derive(Clone, Debug)]
enum Step {
    Create {
        function: usize,
    },
    Delete {
        function: usize,
    },
    Move {
        function: usize,
    },
    /// Lambda replaces its interface of a group in a subnet; `reuse`: the new one takes an address given up lately.
    Replace {
        group: usize,
        subnet: usize,
        reuse: bool,
    },
    /// The last function is gone and Lambda deletes the interface, if still nobody uses it.
    Release {
        eni: usize,
    },
    /// An instance's interface, at an address given up lately.
    Runner {
        vpc: usize,
        subnet: usize,
    },
}

struct Planner<'a> {
    world: &'a mut World,
    rng: Rng,
    queue: BTreeMap<(i64, usize), Step>,
    /// Addresses given up, by (VPC, subnet), with the group that had them.
    freed: BTreeMap<(usize, usize), Vec<(u32, usize)>>,
    changes: Vec<Dated>,
}

/// Plans everything. `busy` are spans in which a function must not be deployed, so that an attack stands on its own:
/// `(function, from, to)`.
pub(crate) fn plan(world: &mut World, busy: &[(usize, i64, i64)]) -> History {
    let rng = Rng::new(world.seed, &[2]);
    let mut planner = Planner { world, rng, queue: BTreeMap::new(), freed: BTreeMap::new(), changes: Vec::new() };
    planner.begin();
    planner.schedule_replacements();
    while let Some(((at, _), step)) = planner.queue.pop_first() {
        if at < planner.world.end {
            planner.take(at, step);
        }
    }
    planner.deploy(busy);
    let mut changes = planner.changes;
    changes.sort_by_key(|c| c.at);
    let outages = outages(world);
    let (holdings, of_eni) = holdings(world);
    History { changes, holdings, of_eni, outages }
}

impl Planner<'_> {
    fn later(&mut self, at: i64, step: Step) {
        let mut key = (at, 0);
        while self.queue.contains_key(&key) {
            key.1 += 1;
        }
        self.queue.insert(key, step);
    }

    fn note(&mut self, at: i64, site: usize, what: Change) {
        match what {
            Change::FunctionCreated { function, .. }
            | Change::FunctionMoved { function, .. }
            | Change::CodeDeployed { function }
            | Change::Tuned { function } => self.world.functions[function].modified.push(at),
            _ => {}
        }
        self.changes.push(Dated { at, site, what });
    }

    /// Functions that were there before the first day, and the times of the others.
    fn begin(&mut self) {
        for function in 0..self.world.functions.len() {
            match self.world.functions[function].fate {
                Fate::Comes(at) => self.later(at, Step::Create { function }),
                fate => {
                    self.settle(function, ALWAYS);
                    match fate {
                        Fate::Goes(gone, again) => {
                            self.later(gone, Step::Delete { function });
                            self.later(again, Step::Create { function });
                        }
                        Fate::Moves(at) => self.later(at, Step::Move { function }),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Lambda replaces interfaces now and then, and two pairs of groups hand an address on to each other.
    fn schedule_replacements(&mut self) {
        let (start, days) = (self.world.start, self.world.days());
        for vpc in 0..self.world.vpcs.len() {
            let groups: Vec<usize> = (0..self.world.groups.len()).filter(|&g| self.world.groups[g].vpc == vpc).collect();
            if groups.is_empty() {
                continue;
            }
            for round in 0..2 {
                let mut order = groups.clone();
                self.rng.shuffle(&mut order);
                let subnet = self.rng.below(2) as usize;
                let at = start + (days * DAY / 20) + self.rng.range(0, days * DAY * 17 / 20);
                self.later(at, Step::Replace { group: order[0], subnet, reuse: false });
                let next = at + self.rng.range(20 * 60, 90 * 60);
                match order.get(1) {
                    // The same address, another function's, within the hour or so.
                    Some(&other) if round == 0 => self.later(next, Step::Replace { group: other, subnet, reuse: true }),
                    _ => self.later(next, Step::Runner { vpc, subnet }),
                }
            }
            let (group, subnet) = (*self.rng.pick(&groups), self.rng.below(2) as usize);
            let at = start + self.rng.range(DAY / 2, (days * DAY - DAY / 4).max(DAY / 2 + 1));
            self.later(at, Step::Replace { group, subnet, reuse: false });
        }
    }

    fn take(&mut self, at: i64, step: Step) {
        match step {
            Step::Create { function } => {
                let config = self.settle(function, at);
                let site = self.world.functions[function].site;
                let retried = self.rng.chance(0.5);
                self.note(at, site, Change::FunctionCreated { function, config, retried });
            }
            Step::Delete { function } => {
                let site = self.world.functions[function].site;
                if let Some(life) = self.world.functions[function].lives.last_mut() {
                    life.1 = at;
                }
                self.note(at, site, Change::FunctionDeleted { function });
                self.leave(function, at);
            }
            Step::Move { function } => {
                let Some((vpc, _)) = self.world.functions[function].home else { return };
                self.leave(function, at);
                let group = self.world.add_group(vpc, 2, &mut self.rng);
                let config = self.join(function, group, vec![0, 1], at);
                self.note(at, self.world.functions[function].site, Change::FunctionMoved { function, config });
            }
            Step::Replace { group, subnet, reuse } => {
                let Some(old) = self.living(group, subnet) else { return };
                // The pre-2019 interface of a function goes with the function only.
                if self.world.groups[group].legacy {
                    return;
                }
                let made_for = self.world.enis[old].made_for;
                self.delete_eni(old, at);
                let again = at + self.rng.range(40, 200);
                self.make_eni(group, subnet, made_for, again, reuse);
            }
            Step::Release { eni } => {
                let Holder::Lambda { group } = self.world.enis[eni].holder else { return };
                let subnet = self.world.enis[eni].subnet;
                if self.world.enis[eni].to == STILL && !self.used(group, subnet, at) {
                    self.delete_eni(eni, at);
                }
            }
            Step::Runner { vpc, subnet } => {
                let Some((ip, _)) = self.freed.get_mut(&(vpc, subnet)).and_then(Vec::pop) else { return };
                let eni = Eni {
                    id: format!("eni-0{}", self.rng.hex(16)),
                    vpc,
                    subnet,
                    security_groups: vec![format!("sg-0{}", self.rng.hex(16))],
                    ip,
                    public_ip: None,
                    from: at,
                    to: STILL,
                    holder: Holder::Instance(format!("i-0{}", self.rng.hex(16))),
                    description: "batch runner".to_owned(),
                    interface_type: "interface",
                    requester_id: None,
                    requester_managed: false,
                    name_tag: Some("runner".to_owned()),
                    made_for: None,
                    port: 0,
                };
                self.world.enis.push(eni);
                let eni = self.world.enis.len() - 1;
                self.world.vpcs[vpc].resources.push(eni);
                self.note(at, self.world.vpcs[vpc].site, Change::EniCreated { eni });
            }
        }
    }

    /// A function begins to live, with its first configuration.
    fn settle(&mut self, function: usize, at: i64) -> Option<usize> {
        self.world.functions[function].lives.push((at, STILL));
        let (_, group) = self.world.functions[function].home?;
        // Of those that share, one uses a single subnet: the other subnet's interface is not its.
        let subnets = if matches!(self.world.functions[function].fate, Fate::Moves(_)) { vec![0] } else { vec![0, 1] };
        Some(self.join(function, group, subnets, at))
    }

    fn join(&mut self, function: usize, group: usize, subnets: Vec<usize>, at: i64) -> usize {
        for &subnet in &subnets {
            if self.living(group, subnet).is_none() {
                let made = if at == ALWAYS { ALWAYS } else { at + self.rng.range(5, 40) };
                self.make_eni(group, subnet, Some(function), made, false);
            }
        }
        self.world.groups[group].members.push(function);
        let configs = &mut self.world.functions[function].configs;
        configs.push(Config { from: at, to: STILL, group, subnets });
        configs.len() - 1
    }

    /// A function leaves its configuration; interfaces that nobody is left to use go within the half hour.
    fn leave(&mut self, function: usize, at: i64) {
        let Some(config) = self.world.functions[function].configs.last_mut() else { return };
        config.to = at;
        let (group, subnets) = (config.group, config.subnets.clone());
        for subnet in subnets {
            if !self.used(group, subnet, at)
                && let Some(eni) = self.living(group, subnet)
            {
                let release = at + self.rng.range(8 * 60, 28 * 60);
                self.later(release, Step::Release { eni });
            }
        }
    }

    /// The interface of a group in a subnet, living or about to be.
    fn living(&self, group: usize, subnet: usize) -> Option<usize> {
        self.world.groups[group].enis.iter().copied().find(|&e| self.world.enis[e].subnet == subnet && self.world.enis[e].to == STILL)
    }

    fn used(&self, group: usize, subnet: usize, at: i64) -> bool {
        self.world.groups[group].members.iter().any(|&f| {
            self.world.functions[f].configs.iter().any(|c| c.group == group && c.subnets.contains(&subnet) && c.from <= at && at < c.to)
        })
    }

    fn delete_eni(&mut self, eni: usize, at: i64) {
        self.world.enis[eni].to = at;
        let (vpc, subnet, ip) = (self.world.enis[eni].vpc, self.world.enis[eni].subnet, self.world.enis[eni].ip);
        if let Holder::Lambda { group } = self.world.enis[eni].holder {
            self.freed.entry((vpc, subnet)).or_default().push((ip, group));
        }
        self.note(at, self.world.vpcs[vpc].site, Change::EniDeleted { eni });
    }

    fn make_eni(&mut self, group: usize, subnet: usize, made_for: Option<usize>, at: i64, reuse: bool) {
        let vpc = self.world.groups[group].vpc;
        let freed = self.freed.get_mut(&(vpc, subnet));
        let lately = freed.filter(|_| reuse).and_then(|f| f.iter().rposition(|&(_, g)| g != group).map(|n| f.remove(n).0));
        let ip = match lately {
            Some(ip) => ip,
            None => self.world.fresh_ip(vpc, subnet, &mut self.rng),
        };
        let legacy = self.world.groups[group].legacy;
        let uuid = self.rng.uuid();
        let name = made_for.map_or("", |f| self.world.functions[f].name.as_str());
        let role_id = made_for.map_or("AROA", |f| self.world.functions[f].role_id.as_str());
        let session = if legacy { name.to_owned() } else { self.rng.text(12, b"0123456789") };
        let eni = Eni {
            id: format!("eni-0{}", self.rng.hex(16)),
            vpc,
            subnet,
            security_groups: self.world.groups[group].security_groups.clone(),
            ip,
            public_ip: None,
            from: at,
            to: STILL,
            holder: Holder::Lambda { group },
            description: if legacy { format!("AWS Lambda VPC ENI: {uuid}") } else { format!("AWS Lambda VPC ENI-{name}-{uuid}") },
            interface_type: if legacy { "interface" } else { "lambda" },
            requester_id: Some(format!("{role_id}:{session}")),
            requester_managed: false,
            name_tag: None,
            made_for,
            port: 0,
        };
        self.world.enis.push(eni);
        let index = self.world.enis.len() - 1;
        self.world.groups[group].enis.push(index);
        if at > ALWAYS {
            self.note(at, self.world.vpcs[vpc].site, Change::EniCreated { eni: index });
        }
    }

    /// Code is deployed on working days; now and then something small is different afterwards.
    fn deploy(&mut self, busy: &[(usize, i64, i64)]) {
        let (start, days) = (self.world.start, self.world.days());
        for function in 0..self.world.functions.len() {
            let site = self.world.functions[function].site;
            let group = self.world.functions[function].home.map(|(_, group)| group);
            // An attack on a neighbour with the same interfaces counts, too.
            let blocked = |world: &World, from: i64, to: i64| {
                busy.iter().any(|&(f, a, b)| {
                    (f == function || (group.is_some() && world.functions[f].home.map(|h| h.1) == group)) && a < to && from < b
                })
            };
            let changes_nothing = blocked(self.world, i64::MIN, i64::MAX);
            for _ in 0..self.rng.below(days.max(7) as u64 / 7 + 1) {
                let day = self.rng.range(0, days);
                let at = start + day * DAY + self.rng.range(8 * 3600, 17 * 3600);
                let weekend = (start / DAY + day + 3).rem_euclid(7) >= 5;
                let tuned = self.rng.chance(0.25);
                if weekend || !self.world.alive(function, at) || blocked(self.world, at, at + 30 * 3600) {
                    continue;
                }
                if tuned {
                    self.note(at, site, Change::Tuned { function });
                    continue;
                }
                let mut deploy = Deploy { at, peer: None, action: None };
                if !changes_nothing && self.rng.chance(0.25) {
                    self.small_change(function, &mut deploy);
                }
                self.world.functions[function].deploys.push(deploy);
                self.note(at, site, Change::CodeDeployed { function });
            }
            self.world.functions[function].deploys.sort_by_key(|d| d.at);
        }
    }

    fn small_change(&mut self, function: usize, deploy: &mut Deploy) {
        let home = self.world.functions[function].home;
        if let Some((vpc, _)) = home
            && self.rng.chance(0.5)
        {
            let inside: Vec<usize> = self.world.vpcs[vpc]
                .resources
                .iter()
                .copied()
                .filter(|&e| matches!(self.world.enis[e].holder, Holder::Service(_)) && self.world.enis[e].port > 0)
                .collect();
            let eni = *self.rng.pick(&inside);
            let port = self.world.enis[eni].port;
            deploy.peer = Some(Peer { to: Target::Eni(eni), port, weight: 2, up: 1_500, down: 4_000, from: deploy.at + 1_800 });
        } else {
            let known = &self.world.functions[function].actions;
            let near: Vec<_> = EVERYDAY.into_iter().filter(|a| a.read_only && !known.contains(a)).collect();
            deploy.action = Some(*self.rng.pick(&near));
        }
    }
}

/// Once in the time a database of each big network refuses for 20 minutes.
fn outages(world: &World) -> Vec<Outage> {
    let mut outages = Vec::new();
    for (number, vpc) in world.vpcs.iter().enumerate() {
        let mut rng = Rng::new(world.seed, &[3, number as u64]);
        let databases: Vec<usize> = vpc.resources.iter().copied().filter(|&e| matches!(world.enis[e].port, 3306 | 5432)).collect();
        if databases.len() > 1 {
            let from = world.start + rng.range(0, (world.days() - 1).max(1)) * DAY + rng.range(7 * 3600, 18 * 3600);
            outages.push(Outage { eni: *rng.pick(&databases), from, to: from + 20 * 60 });
        }
    }
    outages
}

/// Cuts the life of every Lambda interface, and of every interface at an address that a Lambda interface had, wherever the
/// set of functions with its configuration changes.
fn holdings(world: &World) -> (Vec<Holding>, Vec<Range<usize>>) {
    let lambda: BTreeSet<(usize, u32)> =
        world.enis.iter().filter(|e| matches!(e.holder, Holder::Lambda { .. })).map(|e| (e.vpc, e.ip)).collect();
    let mut holdings = Vec::new();
    let mut of_eni = Vec::new();
    for (index, eni) in world.enis.iter().enumerate() {
        let first = holdings.len();
        let (from, to) = (eni.from.max(world.start), eni.to);
        match eni.holder {
            Holder::Lambda { group } => {
                let members: Vec<(usize, &Config)> = world.groups[group]
                    .members
                    .iter()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .flat_map(|&f| world.functions[f].configs.iter().map(move |c| (f, c)))
                    .filter(|(_, c)| c.group == group && c.subnets.contains(&eni.subnet))
                    .collect();
                let mut cuts: BTreeSet<i64> = members.iter().flat_map(|(_, c)| [c.from, c.to]).filter(|&t| from < t && t < to).collect();
                cuts.insert(from);
                cuts.insert(to);
                let cuts: Vec<i64> = cuts.into_iter().collect();
                for span in cuts.windows(2) {
                    let could = members.iter().filter(|(_, c)| c.from <= span[0] && span[0] < c.to).map(|&(f, _)| f).collect();
                    holdings.push(Holding { eni: index, from: span[0], to: span[1], could });
                }
            }
            _ if lambda.contains(&(eni.vpc, eni.ip)) => holdings.push(Holding { eni: index, from, to, could: Vec::new() }),
            _ => {}
        }
        of_eni.push(first..holdings.len());
    }
    (holdings, of_eni)
}
