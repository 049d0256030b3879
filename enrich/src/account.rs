//! One account: its interfaces, its functions, and the answer to "who held this interface then".

use std::collections::BTreeMap;
use std::sync::Arc;

use flowtrail_ingest::EventTime;
use hashbrown::HashMap;

use crate::arn::{name_of, partition_of, region_of};
use crate::fact::{FactKind, Interface, VpcConfig, Word};
use crate::functions::{self, Said, Why};
use crate::interfaces::{self, InterfaceHistory, Told};
use crate::names::{Attributed, Attribution, Candidate, Owner};
use crate::proof::Region;
use crate::spans::Spans;

/// An invocation can last this long (Lambda's quota): traffic can come from an earlier configuration's invocation. Seconds.
pub(crate) const LONGEST_INVOCATION: i64 = 900;

/// Invocations seen this long before a span's end weigh its candidates, in seconds.
pub(crate) const WEIGHING: i64 = 86_400;

/// A fact as an account keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept {
    pub(crate) at: Option<i64>,
    pub(crate) region: Option<Word>,
    pub(crate) kind: FactKind,
}

/// Minutes (first second, sorted) in which functions used an interface.
pub(crate) type Invocations = HashMap<Word, BTreeMap<Word, std::collections::BTreeSet<i64>>>;

/// A function that may have a (subnet, security groups) pair, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    function: Word,
    /// All of it.
    spans: Spans,
    /// Piece by piece with the reason, by start.
    spells: Vec<(i64, i64, Why)>,
}

type Pair = (Word, Vec<Word>);

/// What is known of one account. Equal facts make equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) interfaces: HashMap<Word, Arc<InterfaceHistory>>,
    pairs: HashMap<Pair, Vec<Member>>,
    pub(crate) regions: BTreeMap<Word, Region>,
    /// Every function ever heard of, with its first dated fact. An undated one: `None`.
    pub(crate) functions: BTreeMap<Word, Option<i64>>,
    /// Regions of subnets that function configurations name.
    subnet_regions: HashMap<Word, Word>,
}

/// One answer before weights: who may have done it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) attribution: Attribution,
    pub(crate) owner: Option<Owner>,
    /// Function and evidence, sorted by function.
    pub(crate) functions: Vec<(Word, String)>,
    pub(crate) lambda: bool,
}

impl Account {
    /// Puts an account together. `hours` are its delivered management hours by region.
    pub(crate) fn build<'f>(
        name: &Word,
        facts: impl Iterator<Item = &'f Kept>,
        hours: &BTreeMap<Word, std::collections::BTreeSet<i32>>,
    ) -> Self {
        let mut account = Self::default();
        let mut said: BTreeMap<Word, (Vec<(i64, Said)>, Vec<VpcConfig>)> = BTreeMap::new();
        let mut told: BTreeMap<Word, ToldOf> = BTreeMap::new();
        let mut terminated: HashMap<Word, Vec<i64>> = HashMap::new();
        for (region, hours) in hours {
            account.regions.entry(region.clone()).or_default().hours.clone_from(hours);
        }
        for fact in facts {
            account.sort_in(fact, &mut said, &mut told, &mut terminated);
        }
        for region in account.regions.values_mut() {
            region.function_lists.sort_unstable();
            // Of two lists dated the same, one with versions counts.
            region.function_lists.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                earlier.1 |= same && later.1;
                same
            });
            region.interface_lists.sort_unstable();
            region.interface_lists.dedup();
            region.unknown_before = i64::MIN;
        }
        account.put_functions(said);
        for region in account.regions.values_mut() {
            region.settle();
        }
        account.put_interfaces(name, told, &terminated);
        account
    }

    /// Puts one fact where it belongs.
    fn sort_in(
        &mut self,
        fact: &Kept,
        said: &mut BTreeMap<Word, (Vec<(i64, Said)>, Vec<VpcConfig>)>,
        told: &mut BTreeMap<Word, ToldOf>,
        terminated: &mut HashMap<Word, Vec<i64>>,
    ) {
        let mut function = |name: &Word, what: Said| {
            let entry = said.entry(name.clone()).or_default();
            match (fact.at, what) {
                (Some(at), what) => entry.0.push((at, what)),
                (None, Said::Seen { vpc: Some(vpc), .. }) => {
                    if !entry.1.contains(&vpc) {
                        entry.1.push(vpc);
                    }
                }
                (None, _) => {}
            }
        };
        let mut interface = |eni: &Word, what: Told| {
            let entry = told.entry(eni.clone()).or_default();
            if entry.region.is_none() || fact.region.is_some() && fact.region < entry.region {
                entry.region.clone_from(&fact.region);
            }
            match (fact.at, what) {
                (Some(at), what) => entry.dated.push((at, what)),
                (None, Told::Seen(shown) | Told::Created(shown)) => entry.undated.push(shown),
                (None, _) => {}
            }
        };
        match &fact.kind {
            FactKind::ManagementDelivered | FactKind::Invoked { .. } => {}
            FactKind::InterfacesComplete => {
                if let (Some(at), Some(region)) = (fact.at, &fact.region) {
                    self.regions.entry(region.clone()).or_default().interface_lists.push(at);
                }
            }
            FactKind::FunctionsComplete { all_versions } => {
                if let (Some(at), Some(region)) = (fact.at, &fact.region) {
                    self.regions.entry(region.clone()).or_default().function_lists.push((at, *all_versions));
                }
            }
            FactKind::InterfaceSeen(shown) => interface(&shown.eni, Told::Seen(shown.clone())),
            FactKind::InterfaceCreated(shown) => interface(&shown.eni, Told::Created(shown.clone())),
            FactKind::InterfaceDeleted { eni } => interface(eni, Told::Deleted),
            FactKind::InterfaceGroups { eni, groups } => interface(eni, Told::Groups(groups.clone())),
            FactKind::AddressesAdded { eni, ranges } => interface(eni, Told::Added(ranges.clone())),
            FactKind::AddressesRemoved { eni, ranges } => interface(eni, Told::Removed(ranges.clone())),
            FactKind::InterfaceAttached { eni, instance } => interface(eni, Told::Attached(instance.clone())),
            FactKind::InstanceTerminated { instance } => {
                if let Some(at) = fact.at {
                    terminated.entry(instance.clone()).or_default().push(at);
                }
            }
            FactKind::FunctionSeen(state) => {
                let modified = state.modified.map(|m| m.0);
                function(&state.function, Said::Seen { version: state.version.clone(), vpc: state.vpc.clone(), modified });
            }
            FactKind::FunctionCreated { function: name, vpc, published } => {
                function(name, Said::Created { vpc: vpc.clone(), published: *published });
            }
            FactKind::FunctionChanged { function: name, vpc } => function(name, Said::Changed(vpc.clone())),
            FactKind::FunctionPublished { function: name, version } => function(name, Said::Published { version: version.clone() }),
            FactKind::FunctionDeleted { function: name, version } => function(name, Said::Deleted { version: version.clone() }),
        }
    }

    fn put_functions(&mut self, said: BTreeMap<Word, (Vec<(i64, Said)>, Vec<VpcConfig>)>) {
        let mut unknown: BTreeMap<Word, Vec<(i64, i64)>> = BTreeMap::new();
        for (function, (mut dated, mut undated)) in said {
            let region = Word::from(region_of(&function).unwrap_or(""));
            let lists = self.regions.get(&region).map(|r| r.function_lists.as_slice()).unwrap_or_default();
            undated.sort();
            self.functions.insert(function.clone(), dated.iter().map(|(at, _)| *at).min());
            let history = functions::history(&mut dated, &undated, lists);
            let place = self.regions.entry(region.clone()).or_default();
            place.unknown_before = place.unknown_before.max(history.unknown_before);
            unknown.entry(region.clone()).or_default().extend(history.unknown);
            let mut of_pair: BTreeMap<Pair, Vec<(i64, i64, Why)>> = BTreeMap::new();
            for spell in history.spells {
                for subnet in &spell.config.subnets {
                    self.subnet_regions.entry(subnet.clone()).or_insert_with(|| region.clone());
                    let pair = (subnet.clone(), spell.config.groups.clone());
                    of_pair.entry(pair).or_default().push((spell.from, spell.to, spell.why.clone()));
                }
            }
            for (pair, mut spells) in of_pair {
                spells.sort_by_key(|(from, to, _)| (*from, *to));
                let spans = Spans::union(spells.iter().map(|(from, to, _)| (*from, *to)).collect());
                // Functions come in order, so members are sorted by ARN.
                self.pairs.entry(pair).or_default().push(Member { function: function.clone(), spans, spells });
            }
        }
        for (region, spans) in unknown {
            self.regions.entry(region).or_default().unknown = Spans::union(spans);
        }
    }

    fn put_interfaces(&mut self, name: &Word, told: BTreeMap<Word, ToldOf>, terminated: &HashMap<Word, Vec<i64>>) {
        let nothing = Region::default();
        for (eni, mut of) in told {
            of.end_with_instances(terminated);
            let subnet = of.shown().find_map(|i| i.subnet.clone());
            let region = of.region.clone().or_else(|| subnet.and_then(|s| self.subnet_regions.get(&s).cloned())).unwrap_or_default();
            let place = self.regions.get(&region).unwrap_or(&nothing);
            if let Some(history) = interfaces::history(&eni, name, &region, of.dated, of.undated, place) {
                self.interfaces.insert(eni, Arc::new(history));
            }
        }
    }

    /// True if some function configuration names the subnet.
    pub(crate) fn knows_subnet(&self, subnet: &Word) -> bool {
        self.subnet_regions.contains_key(subnet)
    }

    /// Members of the pairs an interface had up to `last`, and whether it had one pair only.
    fn members<'a>(&'a self, history: &InterfaceHistory, last: i64) -> (Vec<&'a Member>, bool) {
        let Some(subnet) = &history.subnet else { return (Vec::new(), false) };
        // Somebody who changes the groups by hand changes nothing about who uses the interface; so all groups it ever had count.
        let mut groups: Vec<&Vec<Word>> = history
            .spells
            .iter()
            .filter(|s| s.from <= last)
            .filter_map(|s| s.interface().groups.as_ref())
            .chain(&history.disputed)
            .collect();
        groups.sort();
        groups.dedup();
        let members = groups.iter().filter_map(|g| self.pairs.get(&(subnet.clone(), (*g).clone()))).flatten().collect();
        (members, groups.len() == 1)
    }

    /// Who held the interface over `[first, last]`, not yet weighed.
    pub(crate) fn answer(&self, history: &InterfaceHistory, invocations: &Invocations, first: i64, last: i64) -> Answer {
        let lambda = history.lambda.as_ref();
        let unheld = Answer { attribution: Attribution::Unheld, owner: None, functions: Vec::new(), lambda: lambda.is_some() };
        if history.unheld(first, last) {
            return unheld;
        }
        let Some(mark) = lambda else {
            let spell = history.at(last);
            let known = spell.filter(|s| *s.interface() != Interface { eni: history.eni.clone(), ..Interface::default() });
            return match known {
                Some(spell) => Answer { attribution: Attribution::Other, owner: spell.owner().cloned(), ..unheld },
                // Heard of by its deletion alone.
                None => Answer { attribution: Attribution::Unknown, ..unheld },
            };
        };
        if let Some(name) = &mark.legacy {
            let function = self.arn(history, name);
            return exact(function, "named by its RequesterId".to_owned());
        }
        let (from, to) = (first.saturating_sub(LONGEST_INVOCATION), last.saturating_add(1));
        let (members, one_pair) = self.members(history, last);
        let mut functions: BTreeMap<Word, String> = BTreeMap::new();
        for member in &members {
            if let Some((_, _, why)) = member.spells.iter().find(|(start, end, _)| *start < to && *end > from) {
                functions.entry(member.function.clone()).or_insert_with(|| because(why));
            }
        }
        let proven = one_pair && functions.len() == 1 && self.proven(history, &members, from, to);
        let mut used = false;
        for (function, minutes) in invocations.get(&history.eni).into_iter().flatten() {
            // Whole minutes only, so that no event after `last` counts.
            let (since, until) = (from.saturating_sub(59), last.saturating_sub(59));
            if !functions.contains_key(function) && since <= until && minutes.range(since..=until).next().is_some() {
                functions.insert(function.clone(), "invoked with this interface".to_owned());
                used = true;
            }
        }
        if proven && !used {
            if let Some((function, evidence)) = functions.into_iter().next() {
                return exact(function, evidence);
            }
            return unheld;
        }
        if functions.is_empty() {
            // Nobody is configured so any more: published versions or what was last configured may still use it.
            for member in &members {
                if let Some((_, end, _)) = member.spells.iter().rev().find(|(start, _, _)| *start < to) {
                    functions.insert(member.function.clone(), format!("configured so until {}", EventTime(*end)));
                }
            }
        }
        if let Some(name) = &mark.described {
            let function = self.arn(history, name);
            let configured_otherwise = self.functions.get(&function).is_some_and(|since| since.is_some_and(|s| s <= last));
            if functions.is_empty() || !configured_otherwise {
                functions.entry(function).or_insert_with(|| "named in the description".to_owned());
            }
        }
        let attribution = if functions.is_empty() { Attribution::Unknown } else { Attribution::Candidates };
        Answer { attribution, owner: None, functions: functions.into_iter().collect(), lambda: true }
    }

    /// True if the functions of the interface's pair are completely known over `[from, to)`: by lists and management
    /// events, else by lists before and after that agree.
    fn proven(&self, history: &InterfaceHistory, members: &[&Member], from: i64, to: i64) -> bool {
        let region =
            if history.region.is_empty() { members.first().and_then(|m| region_of(&m.function)).unwrap_or("") } else { &*history.region };
        let Some(region) = self.regions.get(region) else { return false };
        region.proven().gaps(from, to).into_iter().all(|(from, to)| {
            region.lists_around(from, to).is_some_and(|(before, after)| {
                let whole = (before, after.saturating_add(1));
                members.iter().map(|m| m.spans.gaps(whole.0, whole.1)).all(|gaps| gaps.is_empty() || gaps == [whole])
            })
        })
    }

    fn arn(&self, history: &InterfaceHistory, name: &str) -> Word {
        let region = &*history.region;
        Word::from(format!("arn:{}:lambda:{region}:{}:function:{name}", partition_of(region), history.account))
    }

    /// Moments at which an answer about the interface may change: at each of them and of them plus one invocation.
    pub(crate) fn edges(&self, history: &InterfaceHistory, invocations: &Invocations) -> Vec<i64> {
        let mut edges: Vec<i64> = history.spells.iter().map(|s| s.from).chain(history.created).collect();
        edges.extend(match history.end {
            interfaces::End::Open => vec![],
            interfaces::End::At(at) => vec![at],
            interfaces::End::Between(last, list) => vec![last.saturating_add(1), list],
        });
        edges.extend(history.heard.map(|(first, _)| first));
        if history.lambda.as_ref().is_none_or(|l| l.legacy.is_some()) {
            return edges;
        }
        let (members, _) = self.members(history, i64::MAX);
        for member in &members {
            edges.extend(member.spells.iter().flat_map(|(from, to, _)| [*from, *to]));
        }
        if let Some(region) = self.regions.get(&history.region) {
            for (from, to) in region.proven().iter() {
                edges.extend([from, to]);
            }
            // Between lists that agree there is proof too: their times matter where events give none.
            for (from, to) in region.proven().gaps(i64::MIN, i64::MAX) {
                let start = region.function_lists.partition_point(|(l, _)| *l < from);
                edges.extend(region.function_lists[start..].iter().map(|(l, _)| *l).take_while(|l| *l <= to));
            }
        }
        for (function, minutes) in invocations.get(&history.eni).into_iter().flatten() {
            if !members.iter().any(|m| m.function == *function) {
                edges.extend(minutes.iter().flat_map(|m| [*m, m.saturating_add(60)]));
            }
        }
        let lasting: Vec<i64> = edges.iter().map(|e| e.saturating_add(LONGEST_INVOCATION)).collect();
        edges.extend(lasting);
        edges
    }
}

/// Facts of one interface.
#[derive(Default)]
struct ToldOf {
    region: Option<Word>,
    dated: Vec<(i64, Told)>,
    undated: Vec<Arc<Interface>>,
}

impl ToldOf {
    fn shown(&self) -> impl Iterator<Item = &Arc<Interface>> {
        let dated = self.dated.iter().filter_map(|(_, t)| match t {
            Told::Created(shown) | Told::Seen(shown) => Some(shown),
            _ => None,
        });
        dated.chain(&self.undated)
    }

    /// A terminated instance takes its interfaces along, but for those that are heard of later.
    fn end_with_instances(&mut self, terminated: &HashMap<Word, Vec<i64>>) {
        let last = self.dated.iter().map(|(at, _)| *at).max();
        let held = self.dated.iter().filter_map(|(at, t)| match t {
            Told::Created(shown) | Told::Seen(shown) => Some((*at, shown.instance.as_ref()?)),
            Told::Attached(instance) => Some((*at, instance)),
            _ => None,
        });
        let ends = held.flat_map(|(at, instance)| terminated.get(instance).into_iter().flatten().filter(move |t| **t >= at));
        if let Some(end) = ends.copied().filter(|t| last.is_none_or(|l| l <= *t)).min() {
            self.dated.push((end, Told::Deleted));
        }
    }
}

fn exact(function: Word, evidence: String) -> Answer {
    let owner = Owner { kind: "lambda".to_owned(), id: function.to_string(), name: name_of(&function).to_owned() };
    Answer { attribution: Attribution::Exact, owner: Some(owner), functions: vec![(function, evidence)], lambda: true }
}

fn because(why: &Why) -> String {
    match why {
        Why::Since(i64::MIN) => "configuration".to_owned(),
        Why::Since(at) => format!("configuration since {}", EventTime(*at)),
        Why::Later(i64::MIN) => "configuration".to_owned(),
        Why::Later(at) => format!("configuration of {}, before it not known", EventTime(*at)),
        Why::Undated => "configuration in a snapshot without a date".to_owned(),
        Why::Version(version) => format!("published version {version} has the configuration"),
    }
}

impl Answer {
    /// Weighs the candidates by the invocations seen on the interface in the 24 hours up to `last`. Each candidate counts
    /// one more than was seen: data events are logged per function, so none seen excludes nobody.
    pub(crate) fn weighed(self, eni: &str, invocations: &Invocations, last: i64) -> Attributed {
        let seen = invocations.get(eni);
        let since = last.saturating_sub(WEIGHING);
        let counts: Vec<u64> = self
            .functions
            .iter()
            .map(|(function, _)| {
                // Whole minutes only, so that no event after `last` counts.
                let minutes = seen.and_then(|s| s.get(function)).map(|m| m.range(since..=last.saturating_sub(59).max(since)).count());
                1 + minutes.unwrap_or(0) as u64
            })
            .collect();
        let total: u64 = counts.iter().sum();
        let mut candidates: Vec<Candidate> = self
            .functions
            .into_iter()
            .zip(&counts)
            .map(|((function, evidence), count)| Candidate {
                arn: function.to_string(),
                weight_milli: (count * 1000 / total.max(1)) as u32,
                evidence,
            })
            .collect();
        candidates.sort_by(|a, b| b.weight_milli.cmp(&a.weight_milli).then_with(|| a.arn.cmp(&b.arn)));
        let given: u32 = candidates.iter().map(|c| c.weight_milli).sum();
        if let Some(first) = candidates.first_mut() {
            first.weight_milli += 1000u32.saturating_sub(given);
        }
        Attributed { attribution: self.attribution, owner: self.owner, candidates, lambda: self.lambda }
    }
}
