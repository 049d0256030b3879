//! Who holds an address, over all accounts.

use std::sync::Arc;

use flowtrail_ingest::Ip;
use hashbrown::HashMap;

use crate::fact::Word;
use crate::interfaces::{InterfaceHistory, masked};
use crate::names::PeerName;

/// One interface's hold on an address over `[from, to)`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Hold {
    from: i64,
    to: i64,
    interface: u32,
}

/// The read-only index of all interfaces by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerIndex {
    interfaces: Vec<Arc<InterfaceHistory>>,
    /// By private address, and by delegated prefix and its length. Every VPC's holds together: few share an address.
    addresses: HashMap<Ip, Vec<Hold>>,
    prefixes: HashMap<(Ip, u8), Vec<Hold>>,
    /// Lengths that occur among the prefixes, sorted.
    lengths: Vec<u8>,
    /// By public address.
    public: HashMap<Ip, Vec<Hold>>,
    /// When a VPC was first known to have an address in an IPv4 /16. A VPC's blocks are /16 at most, so an address in one
    /// of them that nobody is known to hold belongs to this VPC and not to a namesake elsewhere.
    blocks: HashMap<(Word, Ip), i64>,
}

impl PeerIndex {
    /// Indexes interfaces, given in a fixed order.
    pub(crate) fn new(interfaces: impl Iterator<Item = Arc<InterfaceHistory>>) -> Self {
        let mut index = Self::default();
        for history in interfaces {
            let number = index.interfaces.len() as u32;
            let (certain_from, certain_to) = history.certain;
            for (at, spell) in history.spells.iter().enumerate() {
                let from = spell.from.max(certain_from);
                let to = history.spells.get(at + 1).map_or(i64::MAX, |s| s.from).min(certain_to);
                if from >= to {
                    continue;
                }
                let hold = Hold { from, to, interface: number };
                for ip in &spell.interface().addresses {
                    push(index.addresses.entry(*ip).or_default(), hold);
                    if let Some(vpc) = history.vpc.as_ref().filter(|_| ip.is_v4()) {
                        let since = index.blocks.entry((vpc.clone(), masked(*ip, 16))).or_insert(from);
                        *since = (*since).min(from);
                    }
                }
                for prefix in &spell.interface().prefixes {
                    push(index.prefixes.entry(*prefix).or_default(), hold);
                    if !index.lengths.contains(&prefix.1) {
                        index.lengths.push(prefix.1);
                    }
                }
                for ip in &spell.interface().public {
                    push(index.public.entry(*ip).or_default(), hold);
                }
            }
            index.interfaces.push(history);
        }
        index.lengths.sort_unstable();
        index
    }

    /// True if anybody ever held `ip`; else [`Self::peer`] knows nobody, whoever asks.
    pub(crate) fn has(&self, ip: Ip) -> bool {
        let most = if ip.is_v4() { 32 } else { 128 };
        let by_prefix = |length: &u8| *length <= most && self.prefixes.contains_key(&(masked(ip, *length), *length));
        self.addresses.contains_key(&ip) || self.public.contains_key(&ip) || self.lengths.iter().any(by_prefix)
    }

    /// The one holder of `ip` over all of `[first, last]`, seen from a VPC: its own first, then, where it is unambiguous,
    /// the whole organisation. An address is a name only if one holder has it all the time and nobody else meanwhile.
    pub(crate) fn peer(&self, vpc: Option<&Word>, ip: Ip, first: i64, last: i64) -> Option<PeerName> {
        let mut holds: Vec<Hold> = Vec::new();
        let overlapping = |list: Option<&Vec<Hold>>, holds: &mut Vec<Hold>| {
            holds.extend(list.into_iter().flatten().filter(|h| h.from <= last && h.to > first));
        };
        overlapping(self.addresses.get(&ip), &mut holds);
        for length in &self.lengths {
            if *length <= if ip.is_v4() { 32 } else { 128 } {
                overlapping(self.prefixes.get(&(masked(ip, *length), *length)), &mut holds);
            }
        }
        if let Some(vpc) = vpc {
            let own = |h: &Hold| self.interfaces.get(h.interface as usize).is_some_and(|i| i.vpc.as_ref() == Some(vpc));
            if holds.iter().any(own) {
                holds.retain(own);
                return self.single(&holds, first, last);
            }
            let ours = ip.is_v4() && self.blocks.get(&(vpc.clone(), masked(ip, 16))).is_some_and(|since| *since <= last);
            if ours {
                return None;
            }
        }
        overlapping(self.public.get(&ip), &mut holds);
        self.single(&holds, first, last)
    }

    fn single(&self, holds: &[Hold], first: i64, last: i64) -> Option<PeerName> {
        let interface = holds.first()?.interface;
        if holds.iter().any(|h| h.interface != interface) {
            return None;
        }
        // Spells of one interface touch: together they must reach from the first to the last second.
        let covers = holds.iter().map(|h| h.from).min()? <= first && holds.iter().map(|h| h.to).max()? > last;
        let history = self.interfaces.get(interface as usize)?;
        covers.then(|| history.at(last).map(|s| history.peer(s)))?
    }
}

/// Adds a hold, joining it to one of the same interface that it touches.
fn push(holds: &mut Vec<Hold>, hold: Hold) {
    match holds.last_mut() {
        Some(before) if before.interface == hold.interface && before.to == hold.from => before.to = hold.to,
        Some(before) if *before == hold => {}
        _ => holds.push(hold),
    }
}
