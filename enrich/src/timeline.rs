//! ENI timelines: who held which interface and address when, from dated facts.
//!
//! Invariant: equal sets of facts make equal timelines, in whatever order they were learned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowtrail_ingest::{EventTime, Ip};
use hashbrown::{HashMap, HashSet};

use crate::account::{Account, Invocations, Kept};
use crate::fact::{Fact, FactKind, FunctionState, Interface, Word};
use crate::interfaces::InterfaceHistory;
use crate::names::{Attributed, EniOwnerRow, NetworkEntity, PeerName};
use crate::peers::PeerIndex;

/// All that is known about interfaces and functions of the organisation, ready to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timelines {
    accounts: BTreeMap<Word, Known>,
    /// Facts of interfaces that name no account; they go to whoever knows the interface or its subnet.
    loose: BTreeMap<Word, BTreeSet<Kept>>,
    /// Accounts that know an interface, sorted.
    holders: HashMap<Word, Vec<Word>>,
    peers: PeerIndex,
    /// One copy of each description, however many snapshots showed it.
    interfaces: HashSet<Arc<Interface>>,
    functions: HashSet<Arc<FunctionState>>,
}

/// One account: the facts and what they make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    facts: BTreeSet<Kept>,
    hours: BTreeMap<Word, BTreeSet<i32>>,
    invocations: Invocations,
    account: Account,
}

/// What a new fact asks to be built anew.
#[derive(Default)]
struct Touched {
    accounts: BTreeSet<Word>,
    loose: bool,
    /// Regions met: few, and every fact names one.
    regions: HashSet<Word>,
    /// Facts that are not in their accounts yet.
    fresh: BTreeMap<Word, Vec<Kept>>,
}

impl Timelines {
    /// Builds the timelines from a set of facts.
    #[must_use]
    pub fn build(facts: &BTreeSet<Fact>) -> Self {
        let mut timelines = Self::default();
        timelines.update(facts.iter().cloned());
        timelines
    }

    /// Takes in further facts: afterwards all is as if built from all facts at once. Only accounts that learned something
    /// are built anew; facts known already cost a look-up.
    pub fn update(&mut self, new: impl Iterator<Item = Fact>) {
        let mut touched = Touched::default();
        for fact in new {
            self.keep(fact, &mut touched);
        }
        self.settle(&mut touched);
        if !touched.accounts.is_empty() || touched.loose {
            self.rebuild(touched);
        }
    }

    fn keep(&mut self, fact: Fact, touched: &mut Touched) {
        let region =
            fact.region.as_deref().filter(|r| !r.is_empty()).map(|r| touched.regions.get_or_insert_with(r, |r| Word::from(r)).clone());
        let Some(account) = fact.account.as_deref().filter(|a| !a.is_empty()) else {
            if let Some(eni) = fact.kind.eni().cloned() {
                let kept = Kept { at: fact.at.map(|t| t.0), region, kind: fact.kind };
                touched.loose |= self.loose.entry(eni).or_default().insert(kept);
            }
            return;
        };
        let account = match self.accounts.get_key_value(account) {
            Some((name, _)) => name.clone(),
            None => Word::from(account),
        };
        let known = self.accounts.entry(account.clone()).or_default();
        match (fact.kind, fact.at) {
            (FactKind::ManagementDelivered, at) => {
                let Some((at, region)) = at.zip(region) else { return };
                if known.hours.entry(region).or_default().insert(at.hour().0) {
                    touched.accounts.insert(account);
                }
            }
            (FactKind::Invoked { eni, function }, at) => {
                // Only weighs candidates: nothing is built from it.
                let Some(at) = at else { return };
                known.invocations.entry(eni).or_default().entry(function).or_default().insert(at.0.div_euclid(60).saturating_mul(60));
            }
            (kind, at) => {
                let kind = match kind {
                    FactKind::InterfaceSeen(shown) => FactKind::InterfaceSeen(shared(&mut self.interfaces, shown)),
                    FactKind::FunctionSeen(shown) => FactKind::FunctionSeen(shared(&mut self.functions, shown)),
                    kind => kind,
                };
                touched.fresh.entry(account).or_default().push(Kept { at: at.map(|t| t.0), region, kind });
            }
        }
    }

    /// Puts fresh facts into their accounts.
    fn settle(&mut self, touched: &mut Touched) {
        for (account, fresh) in std::mem::take(&mut touched.fresh) {
            let known = self.accounts.entry(account.clone()).or_default();
            let before = known.facts.len();
            if before == 0 {
                // Made in one go: a set that grows in order has its nodes half empty.
                known.facts = fresh.into_iter().collect();
            } else {
                known.facts.extend(fresh);
            }
            if known.facts.len() > before {
                touched.accounts.insert(account);
            }
        }
    }

    fn rebuild(&mut self, touched: Touched) {
        let homeless = Word::from("");
        let loose = std::mem::take(&mut self.loose);
        let everybody = touched.loose;
        let names: Vec<Word> =
            self.accounts.keys().filter(|a| **a != homeless && (everybody || touched.accounts.contains(*a))).cloned().collect();
        for name in names {
            let Some(known) = self.accounts.get_mut(&name) else { continue };
            // First by its own facts, then with those facts without an account that turn out to be of its interfaces.
            known.account = Account::build(&name, known.facts.iter(), &known.hours);
            let ours: Vec<&Kept> = loose.iter().filter(|(eni, facts)| is_of(&known.account, eni, facts)).flat_map(|(_, f)| f).collect();
            if !ours.is_empty() {
                known.account = Account::build(&name, known.facts.iter().chain(ours), &known.hours);
            }
        }
        if !loose.is_empty() {
            let accounts = &self.accounts;
            let rest = loose
                .iter()
                .filter(|(eni, facts)| !accounts.iter().any(|(name, known)| **name != *homeless && is_of(&known.account, eni, facts)));
            let account = Account::build(&homeless, rest.flat_map(|(_, facts)| facts), &BTreeMap::new());
            self.accounts.entry(homeless).or_default().account = account;
        }
        self.loose = loose;
        self.index();
    }

    fn index(&mut self) {
        self.holders.clear();
        let mut all: Vec<Arc<InterfaceHistory>> = Vec::new();
        for (name, known) in &self.accounts {
            let mut of_account: Vec<&Arc<InterfaceHistory>> = known.account.interfaces.values().collect();
            of_account.sort_by(|a, b| a.eni.cmp(&b.eni));
            for history in of_account {
                self.holders.entry(history.eni.clone()).or_default().push(name.clone());
                all.push(history.clone());
            }
        }
        self.peers = PeerIndex::new(all.into_iter());
    }

    /// The interface as `account` knows it, else as the only account that does: in a shared VPC, and with facts that name
    /// no account, records and facts may differ in it.
    fn find(&self, account: &str, eni: &str) -> Option<(&Known, &InterfaceHistory)> {
        let of = |name: &str| {
            let known = self.accounts.get(name)?;
            known.account.interfaces.get(eni).map(|history| (known, &**history))
        };
        of(account).or_else(|| match self.holders.get(eni)?.as_slice() {
            [only] => of(only),
            _ => None,
        })
    }

    /// Who held `eni` of `account` over `[first, last]`: for Lambda over `[first - 15 min, last]`, as an invocation can last 15 min.
    #[must_use]
    pub fn attribute(&self, account: &str, eni: &str, first: EventTime, last: EventTime) -> Attributed {
        let Some((known, history)) = self.find(account, eni) else { return Attributed::default() };
        known.account.answer(history, &known.invocations, first.0, last.0.max(first.0)).weighed(eni, &known.invocations, last.0)
    }

    /// The entity that the behaviour of `eni` at `at` is learned for.
    #[must_use]
    pub fn entity(&self, account: &str, eni: &str, at: EventTime) -> NetworkEntity {
        let known = self.find(account, eni).and_then(|(_, history)| Some(history.entity(history.at(at.0)?)));
        known.unwrap_or_else(|| NetworkEntity::Interface { eni: eni.to_owned() })
    }

    /// True if the timeline gives `ip` to `eni` at some time in `[first, last]` (primary, secondary or by prefix).
    #[must_use]
    pub fn holds(&self, account: &str, eni: &str, ip: Ip, first: EventTime, last: EventTime) -> bool {
        self.find(account, eni).is_some_and(|(_, history)| history.has(ip, first.0, last.0))
    }

    /// Region and VPC of an interface at `at`, where known.
    #[must_use]
    pub fn place(&self, account: &str, eni: &str, _at: EventTime) -> Option<(String, String)> {
        let (_, history) = self.find(account, eni)?;
        Some((history.region.to_string(), history.vpc.as_ref()?.to_string()))
    }

    /// The one holder of `ip`, seen from `eni` of `account` (its VPC first, then the organisation where unambiguous),
    /// over all of `[first, last]`.
    #[must_use]
    pub fn peer(&self, account: &str, eni: &str, ip: Ip, first: EventTime, last: EventTime) -> Option<PeerName> {
        // Nearly nobody's address is: that needs no look at who asks.
        if !self.peers.has(ip) {
            return None;
        }
        let vpc = self.find(account, eni).and_then(|(_, history)| history.vpc.as_ref());
        self.peers.peer(vpc, ip, first.0, last.0.max(first.0))
    }

    /// False if nobody is known to have held `ip` at any time: then [`Self::peer`] is `None` for it, whoever asks and when.
    #[must_use]
    pub fn peer_exists(&self, ip: Ip) -> bool {
        self.peers.has(ip)
    }

    /// Every function ARN heard of in `account`, sorted.
    #[must_use]
    pub fn functions(&self, account: &str) -> Vec<&str> {
        self.accounts.get(account).into_iter().flat_map(|known| known.account.functions.keys()).map(|arn| &**arn).collect()
    }

    /// The rows of `eni_owners`: every interface's holders over time, as of `as_of`.
    #[must_use]
    pub fn owner_rows(&self, as_of: EventTime) -> Vec<EniOwnerRow> {
        let mut rows = Vec::new();
        for known in self.accounts.values() {
            for history in known.account.interfaces.values() {
                crate::rows::rows(&known.account, history, &known.invocations, as_of.0, &mut rows);
            }
        }
        rows.sort_by(|a, b| {
            let key = |r: &EniOwnerRow| (r.valid_from.unwrap_or(EventTime::MIN), r.valid_to.unwrap_or(EventTime::MAX));
            (&a.account_id, &a.eni_id, key(a)).cmp(&(&b.account_id, &b.eni_id, key(b)))
        });
        rows
    }
}

fn is_of(account: &Account, eni: &Word, facts: &BTreeSet<Kept>) -> bool {
    let in_subnet = |fact: &Kept| match &fact.kind {
        FactKind::InterfaceSeen(shown) | FactKind::InterfaceCreated(shown) => {
            shown.subnet.as_ref().is_some_and(|s| account.knows_subnet(s))
        }
        _ => false,
    };
    account.interfaces.contains_key(eni) || facts.iter().any(in_subnet)
}

fn shared<T: std::hash::Hash + Eq>(copies: &mut HashSet<Arc<T>>, one: Arc<T>) -> Arc<T> {
    copies.get_or_insert(one).clone()
}

impl FactKind {
    /// The interface it speaks of.
    fn eni(&self) -> Option<&Word> {
        match self {
            Self::InterfaceSeen(shown) | Self::InterfaceCreated(shown) => Some(&shown.eni),
            Self::InterfaceDeleted { eni }
            | Self::InterfaceGroups { eni, .. }
            | Self::AddressesAdded { eni, .. }
            | Self::AddressesRemoved { eni, .. }
            | Self::InterfaceAttached { eni, .. } => Some(eni),
            _ => None,
        }
    }
}
