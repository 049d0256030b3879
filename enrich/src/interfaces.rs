//! One interface over time.

use std::sync::Arc;

use flowtrail_ingest::Ip;

use crate::fact::{Interface, Word};
use crate::functions::LISTING_LAG;
use crate::holder::{LambdaMark, holder, lambda_mark};
use crate::names::{NetworkEntity, Owner, PeerKind, PeerName};
use crate::proof::Region;

/// What one dated fact says of an interface. The order is that of facts of the same second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Created(Arc<Interface>),
    Seen(Arc<Interface>),
    Groups(Vec<Word>),
    Added(Vec<(Ip, u8)>),
    Removed(Vec<(Ip, u8)>),
    Attached(Word),
    Deleted,
}

/// When an interface ceased to be.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It still is, as far as is known.
    Open,
    /// Deleted at that second.
    At(i64),
    /// Last heard of at the first, missing from a complete snapshot at the second.
    Between(i64, i64),
}

/// An interface as it was from `from` until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spell {
    /// `i64::MIN` for the first: what is known first is taken for the time before too, as an interface's id, subnet and
    /// purpose do not change.
    pub(crate) from: i64,
    /// The fact's own copy, where nothing had to be added to it.
    interface: Arc<Interface>,
    /// Owner and name of what is not Lambda's: reading its marks takes time. Lambda's follow from the groups and would be
    /// most of the memory of an organisation with many functions.
    holder: Option<Box<(Owner, PeerName)>>,
}

/// All that is known of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceHistory {
    pub(crate) eni: Word,
    pub(crate) account: Word,
    pub(crate) region: Word,
    pub(crate) vpc: Option<Word>,
    pub(crate) subnet: Option<Word>,
    /// The mark of a Lambda interface.
    pub(crate) lambda: Option<LambdaMark>,
    /// At least one, by time.
    pub(crate) spells: Vec<Spell>,
    /// Other sets of security groups that undated snapshots claim.
    pub(crate) disputed: Vec<Vec<Word>>,
    pub(crate) created: Option<i64>,
    /// First and last dated fact; `None` when only undated snapshots know it.
    pub(crate) heard: Option<(i64, i64)>,
    /// The last complete snapshot before `heard` that did not show it.
    pub(crate) absent_before: Option<i64>,
    pub(crate) end: End,
    /// Over `[from, to)` it is certain to have existed: its addresses are names.
    pub(crate) certain: (i64, i64),
}

/// Puts together the history of one interface from dated facts in any order and undated snapshots. `None` without any.
pub(crate) fn history(
    eni: &Word,
    account: &Word,
    region: &Word,
    mut told: Vec<(i64, Told)>,
    mut undated: Vec<Arc<Interface>>,
    place: &Region,
) -> Option<InterfaceHistory> {
    told.sort();
    told.dedup();
    undated.sort();
    undated.dedup();
    // Ids are not reused: a deletion is final, and a snapshot that still shows it afterwards was read before.
    let deleted = told.iter().find(|(_, t)| matches!(t, Told::Deleted)).map(|(at, _)| *at);
    if let Some(end) = deleted {
        told.retain(|(at, t)| *at <= end && !matches!(t, Told::Deleted));
    }
    let mut states: Vec<(i64, Interface)> = Vec::new();
    let mut disputed = Vec::new();
    // Whoever was heard of before its creation was not created then.
    let created = told.first().filter(|(_, t)| matches!(t, Told::Created(_))).map(|(at, _)| *at);
    let knows_dated = told.iter().any(|(_, t)| matches!(t, Told::Created(_) | Told::Seen(_)));
    if !knows_dated {
        for seen in &undated {
            match states.last_mut() {
                None => states.push((i64::MIN, (**seen).clone())),
                Some((_, first)) => fill(first, seen),
            }
        }
    }
    if states.is_empty() && !knows_dated {
        // Known by a change or its deletion alone.
        states.push((i64::MIN, Interface { eni: eni.clone(), ..Interface::default() }));
        if told.is_empty() && deleted.is_none() {
            return None;
        }
    }
    for (at, what) in &told {
        let mut next = states.last().map(|(_, s)| s.clone()).unwrap_or_else(|| Interface { eni: eni.clone(), ..Interface::default() });
        match what {
            Told::Created(shown) | Told::Seen(shown) => {
                let before = std::mem::replace(&mut next, (**shown).clone());
                fill(&mut next, &before);
            }
            Told::Groups(groups) => next.groups = Some(groups.clone()),
            Told::Added(ranges) => add(&mut next, ranges),
            Told::Removed(ranges) => remove(&mut next, ranges),
            Told::Attached(instance) => next.instance = Some(instance.clone()),
            Told::Deleted => {}
        }
        if states.last().is_none_or(|(_, s)| *s != next) {
            states.push((*at, next));
        }
    }
    // What is known first is taken for the time before too.
    if let Some(first) = states.first_mut() {
        first.0 = i64::MIN;
    }
    // What never changes is filled in from wherever it is known.
    let mut fixed = Interface::default();
    for other in states.iter().map(|(_, s)| s).chain(undated.iter().map(|u| &**u)) {
        fix(&mut fixed, other);
    }
    for (_, state) in &mut states {
        fix(state, &fixed);
    }
    for seen in &undated {
        if let Some(groups) = &seen.groups
            && !states.iter().any(|(_, s)| s.groups.as_ref() == Some(groups))
        {
            disputed.push(groups.clone());
        }
    }
    states.dedup_by(|later, earlier| later.1 == earlier.1);
    let lambda = states.iter().find_map(|(_, s)| lambda_mark(s));
    let first = states.first()?;
    let (vpc, subnet) = (first.1.vpc.clone(), first.1.subnet.clone());
    let heard = told.first().map(|(at, _)| *at).zip(told.last().map(|(at, _)| *at));
    let end = match (deleted, heard) {
        (Some(at), _) => End::At(at),
        (None, Some((_, last))) => {
            let next = place.interface_lists.partition_point(|l| *l <= last.saturating_add(LISTING_LAG));
            place.interface_lists.get(next).map_or(End::Open, |list| End::Between(last, *list))
        }
        (None, None) => place.interface_lists.first().map_or(End::Open, |list| End::Between(list.saturating_sub(1), *list)),
    };
    let absent_before = heard.and_then(|(first, _)| {
        let before = place.interface_lists.partition_point(|l| *l < first);
        before.checked_sub(1).and_then(|i| place.interface_lists.get(i)).copied()
    });
    let certain_from = match (created, heard) {
        (Some(at), _) => at,
        (None, None) => i64::MIN,
        (None, Some((first, _))) => {
            let attached = states.iter().filter_map(|(_, s)| s.attached_at).map(|t| t.0).min().unwrap_or(first);
            let by_events = match absent_before {
                // It came in between without an event that we know.
                Some(_) => first,
                None if !undated.is_empty() => i64::MIN,
                None => place.carried_from(first),
            };
            first.min(attached).min(by_events)
        }
    };
    let certain_to = match end {
        End::Open => i64::MAX,
        End::At(at) => at,
        End::Between(last, _) => last.saturating_add(1),
    };
    let shown: Vec<&Arc<Interface>> = told
        .iter()
        .filter_map(|(_, t)| match t {
            Told::Created(shown) | Told::Seen(shown) => Some(shown),
            _ => None,
        })
        .chain(&undated)
        .collect();
    let mut spells: Vec<Spell> = states
        .into_iter()
        .map(|(from, interface)| {
            let holder = lambda.is_none().then(|| Box::new(names_of(&interface, region)));
            let interface = shown.iter().find(|s| ****s == interface).map_or_else(|| Arc::new(interface), |s| Arc::clone(s));
            Spell { from, interface, holder }
        })
        .collect();
    spells.shrink_to_fit();
    Some(InterfaceHistory {
        eni: eni.clone(),
        account: account.clone(),
        region: region.clone(),
        vpc,
        subnet,
        lambda,
        spells,
        disputed,
        created,
        heard,
        absent_before,
        end,
        certain: (certain_from, certain_to),
    })
}

impl Spell {
    /// The interface as it was.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Who held it, if not Lambda.
    pub(crate) fn owner(&self) -> Option<&Owner> {
        self.holder.as_ref().map(|h| &h.0)
    }
}

impl InterfaceHistory {
    /// The entity that its behaviour is learned for.
    pub(crate) fn entity(&self, spell: &Spell) -> NetworkEntity {
        entity_of(&spell.interface, &self.region, self.lambda.is_some())
    }

    /// What others see at its addresses.
    pub(crate) fn peer(&self, spell: &Spell) -> PeerName {
        spell.holder.as_ref().map_or_else(|| lambda_name(&self.entity(spell)), |h| h.1.clone())
    }

    /// What it was at a moment.
    pub(crate) fn at(&self, at: i64) -> Option<&Spell> {
        let after = self.spells.partition_point(|s| s.from <= at);
        self.spells.get(after.saturating_sub(1))
    }

    /// Everything it was at some time in `[first, last]`.
    pub(crate) fn over(&self, first: i64, last: i64) -> &[Spell] {
        let start = self.spells.partition_point(|s| s.from <= first).saturating_sub(1);
        let end = self.spells.partition_point(|s| s.from <= last).max(start + 1).min(self.spells.len());
        self.spells.get(start..end).unwrap_or_default()
    }

    /// True when it is known not to have existed at any time in `[first, last]`.
    pub(crate) fn unheld(&self, first: i64, last: i64) -> bool {
        let gone = match self.end {
            End::Open => false,
            End::At(at) => first >= at,
            End::Between(_, list) => first >= list,
        };
        gone || self.created.is_some_and(|at| last < at)
    }

    /// True if it has this address or a prefix that holds it.
    pub(crate) fn has(&self, ip: Ip, first: i64, last: i64) -> bool {
        self.over(first, last).iter().any(|s| s.interface.addresses.contains(&ip) || s.interface.prefixes.iter().any(|p| within(ip, *p)))
    }
}

/// True if an address lies in a prefix of its own family.
pub(crate) fn within(ip: Ip, (base, length): (Ip, u8)) -> bool {
    ip.is_v4() == base.is_v4() && masked(ip, length) == base
}

/// An address with the bits after the prefix cleared; `length` is of its family.
pub(crate) fn masked(ip: Ip, length: u8) -> Ip {
    let bits = u32::from(length) + if ip.is_v4() { 96 } else { 0 };
    Ip(ip.0 & u128::MAX.checked_shl(128u32.saturating_sub(bits)).unwrap_or(0))
}

/// Fills what `next` does not say from what was known before. Addresses count as said when there is any.
fn fill(next: &mut Interface, before: &Interface) {
    fix(next, before);
    next.groups = next.groups.take().or_else(|| before.groups.clone());
    next.instance = next.instance.take().or_else(|| before.instance.clone());
    next.instance_owner = next.instance_owner.take().or_else(|| before.instance_owner.clone());
    next.name = next.name.take().or_else(|| before.name.clone());
    next.attached_at = next.attached_at.or(before.attached_at);
    if next.addresses.is_empty() {
        next.addresses.clone_from(&before.addresses);
        next.prefixes.clone_from(&before.prefixes);
    }
}

/// Fills what never changes about an interface.
fn fix(next: &mut Interface, other: &Interface) {
    for (mine, theirs) in [
        (&mut next.vpc, &other.vpc),
        (&mut next.subnet, &other.subnet),
        (&mut next.description, &other.description),
        (&mut next.interface_type, &other.interface_type),
        (&mut next.requester, &other.requester),
    ] {
        if mine.is_none() {
            mine.clone_from(theirs);
        }
    }
}

fn add(next: &mut Interface, ranges: &[(Ip, u8)]) {
    for (ip, length) in ranges {
        if *length == if ip.is_v4() { 32 } else { 128 } {
            if !next.addresses.contains(ip) {
                next.addresses.push(*ip);
            }
        } else if !next.prefixes.contains(&(*ip, *length)) {
            next.prefixes.push((*ip, *length));
        }
    }
    // The primary address stays first.
    if let Some((_, rest)) = next.addresses.split_first_mut() {
        rest.sort_by_key(|ip| (!ip.is_v4(), *ip));
    }
    next.prefixes.sort();
}

fn remove(next: &mut Interface, ranges: &[(Ip, u8)]) {
    next.addresses.retain(|ip| !ranges.iter().any(|r| within(*ip, *r)));
    next.prefixes.retain(|p| !ranges.contains(p));
}

fn entity_of(interface: &Interface, region: &str, lambda: bool) -> NetworkEntity {
    match &interface.groups {
        Some(groups) if lambda && !groups.is_empty() => NetworkEntity::Group {
            region: region.to_owned(),
            vpc: interface.vpc.as_deref().unwrap_or("").to_owned(),
            security_groups: groups.iter().map(|g| g.to_string()).collect(),
        },
        _ => NetworkEntity::Interface { eni: interface.eni.to_string() },
    }
}

fn names_of(interface: &Interface, region: &str) -> (Owner, PeerName) {
    let holder = holder(interface, region);
    let peer = PeerName { kind: PeerKind::Owner, key: holder.key, name: holder.spoken, kind_word: holder.owner.kind.clone() };
    (holder.owner, peer)
}

/// A Lambda interface as others see it.
fn lambda_name(entity: &NetworkEntity) -> PeerName {
    let (key, shown) = match entity {
        NetworkEntity::Group { region, vpc, security_groups } => {
            let groups = security_groups.join(",");
            (format!("group:{region}/{vpc}/{groups}"), groups)
        }
        NetworkEntity::Interface { eni } => (format!("lambda:{eni}"), eni.clone()),
    };
    PeerName { kind: PeerKind::Owner, key, name: format!("Lambda functions of {shown}"), kind_word: "lambda".to_owned() }
}
