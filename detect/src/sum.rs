//! Summing: flow records into conversations, API calls into rows, as the reader thread parses them.
//!
//! This is the hot path between the parser and the account-hour. Records of many units are added to one table per
//! thread; [`Summer::flush`] turns it into [`Block`]s, one per account and hour, sorted inside, which are merged when
//! the hour is judged. Sums, minima, maxima, ORs and "the three smallest" are all that is kept, so it shows neither how
//! the units were spread over threads nor in which order they came.
//!
//! Per record there is no allocation, no string and no hashing of strings: a record is found by (interface and hour,
//! two addresses, ports, protocol). Memory decides the speed, so a conversation is one cache line, and a few hundred
//! records at a time are walked three times: make their keys, find their lines, add them up. Each walk asks for the
//! memory that the next one needs.

use std::hash::BuildHasher as _;
use std::ops::Range;

use flowtrail_ingest::flow::batch::{ABSENT, marks};
use flowtrail_ingest::prefetch::prefetch;
use flowtrail_ingest::{EventTime, FlowBatch, Hour, Ip, Names, UnitId};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::block::{Block, Scratch};
use crate::calls::{CallGroup, Calls, Forms};
use crate::hour::{ApiRow, NONE};
use crate::pool::Pool;
use crate::ports::is_service;

/// What the reader knows of the unit whose records it adds.
#[derive(Clone, Debug)]
pub struct UnitContext {
    /// Identity.
    pub id: UnitId,
    /// `fl-…` of the object's key.
    pub flow_log: Option<String>,
    /// Account of the key, for records without one.
    pub account: Option<String>,
    /// Region of the key.
    pub region: Option<String>,
    /// `--from`: flows that end before are out of range.
    pub from: EventTime,
    /// `--to`: flows that end here or later are out of range.
    pub to: EventTime,
}

/// What was counted while adding flow records.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Records that parsed, all kinds.
    pub records: u64,
    /// NODATA among them.
    pub nodata: u64,
    /// SKIPDATA among them.
    pub skipdata: u64,
    /// Without a time, interface, address or account.
    pub unplaced: u64,
    /// Outside `--from`, `--to`; not among `records`.
    pub out_of_range: u64,
    /// Sum of packets.
    pub packets: u64,
    /// Sum of bytes.
    pub bytes: u64,
    /// Latest end of a record, seconds since 1970.
    pub newest: i64,
}

impl FlowCounts {
    /// Counts a record.
    #[inline]
    fn count(&mut self, packets: u64, bytes: u64, end: i64) {
        self.records += 1;
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
        self.newest = self.newest.max(end);
    }

    /// Adds what was counted elsewhere.
    fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.nodata += other.nodata;
        self.skipdata += other.skipdata;
        self.unplaced += other.unplaced;
        self.out_of_range += other.out_of_range;
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.newest = self.newest.max(other.newest);
    }
}

/// Table of one reader thread.
#[derive(Debug)]
pub struct Summer {
    seed: u64,
    strings: Interner,
    groups: Vec<Group>,
    group_of: HashMap<Group, u32>,
    slots: Vec<Slot>,
    /// Where each slot was seen: (index into `units`, first line), the smallest by unit identity; `seen_count` are in use.
    seen: Vec<[(u32, u32); 3]>,
    /// Open addressing over `slots`: index + 1 and above it [`TAG`] bits of the hash; 0 is free. A power of two long, at
    /// most half full.
    table: Vec<u32>,
    /// What does not fit into the words of a slot, by slot and direction: nearly nothing.
    carries: HashMap<(u32, bool), Carry>,
    v6: Pool<u128>,
    packet_addrs: Pool<(Ip, Ip)>,
    units: Vec<UnitId>,
    calls: Calls,
    /// What did not fit into the table any more in the middle of a unit.
    spilled: Vec<Block>,
    /// [`SPILL`], but for tests.
    spill: usize,
    // Scratch of `add` and `flush`.
    entries: Vec<Incoming>,
    sorted: Vec<Sorted>,
    scratch: Scratch,
    /// Group last used for each interface of the unit at hand: (account index, hour, group).
    recent: Vec<(u32, i32, u32)>,
    recent_of: Option<UnitId>,
}

/// One (account, interface, flow log, hour); indices into `strings`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    account: u32,
    eni: u32,
    flow_log: u32,
    region: u32,
    hour: i32,
}

/// What makes records one conversation.
#[derive(Copy, Clone, Debug, Default, Eq)]
#[repr(C)]
struct Key {
    group: u32,
    /// IPv4 bits, or an index into `v6`.
    client: u32,
    server: u32,
    /// `client_port << 16 | server_port`.
    ports: u32,
    /// protocol | SETTLED | REJECTED | V6 | (index into `packet_addrs` + 1, or 0) << PAIR.
    misc: u32,
}

const SETTLED: u32 = 1 << 8;
const REJECTED: u32 = 1 << 9;
const V6: u32 = 1 << 10;
const PAIR: u32 = 11;
/// What a row needs to belong to one.
const PLACED: u16 = marks::ADDRS | marks::TIMES;
/// A row that belongs to no conversation (NODATA, unplaced, out of range).
const NO_GROUP: u32 = u32::MAX;

const FROM_SERVER: u32 = 1;
const OURS_CLIENT: u32 = 1 << 1;
const OURS_SERVER: u32 = 1 << 2;

/// One record on its way into the table.
#[derive(Copy, Clone, Debug)]
struct Incoming {
    hash: u64,
    key: Key,
    row: u32,
    /// Most likely slot.
    slot: u32,
    /// FROM_SERVER, OURS_*: not part of the identity.
    side: u32,
}

/// One conversation: a cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Slot {
    key: Key,
    first: u32,
    last: u32,
    last_unit: u32,
    /// Client to server, server to client.
    sums: [Sum; 2],
    flags: [u8; 2],
    ours: u8,
    seen_count: u8,
}

/// The low words of sums; what goes over is in `carries`.
#[derive(Copy, Clone, Debug, Default)]
#[repr(C)]
struct Sum {
    packets: u32,
    bytes: u32,
    flows: u32,
}

/// The high words.
#[derive(Copy, Clone, Debug, Default)]
struct Carry {
    packets: u64,
    bytes: u64,
}

/// A conversation in the order of a block, addresses by rank where they are not IPv4.
#[derive(Copy, Clone, Debug)]
struct Sorted {
    /// IPv6, rejected, server, its port, protocol.
    high: u64,
    /// Settled, client, its port.
    low: u64,
    pair: u32,
    slot: u32,
}

/// Rows walked at a step: their lines fit into the first-level cache.
const STEP: usize = 256;
/// Bits of an entry of the table that are of the hash.
const TAG: u32 = 11;
const INDEX: u32 = u32::MAX >> TAG;
/// A table that is larger spills, whether or not a unit is at its end: an index has 21 bits.
const SPILL: usize = 1 << 20;

/// Slots after which a flush keeps the table in bounds: about 3 MiB with its index, or what one object holds, and some 2 MiB
/// of blocks. Conversations are summed again when their blocks are merged, so that a larger table would save little.
pub const SLOTS_MAX: usize = 1 << 15;
/// API rows after which a flush keeps memory in bounds.
pub const CALLS_MAX: usize = 1 << 16;

impl Summer {
    /// An empty table. `seed` decides where entries lie in memory and nothing else; a random one keeps whoever can choose
    /// addresses from choosing collisions.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            strings: Interner::default(),
            groups: Vec::new(),
            group_of: HashMap::new(),
            slots: Vec::new(),
            seen: Vec::new(),
            table: vec![0; 1 << 12],
            carries: HashMap::new(),
            v6: Pool::default(),
            packet_addrs: Pool::default(),
            units: Vec::new(),
            calls: Calls::default(),
            spilled: Vec::new(),
            spill: SPILL,
            entries: Vec::new(),
            sorted: Vec::new(),
            scratch: Scratch::default(),
            recent: Vec::new(),
            recent_of: None,
        }
    }

    /// True when a flush is due. Asked between units.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.len() >= SLOTS_MAX || self.calls.held() >= CALLS_MAX || self.groups.len() >= 1 << 20
    }

    /// True when there is nothing to flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.calls.held() == 0 && self.spilled.is_empty()
    }

    /// Adds a batch of flow records of one unit.
    pub fn add(&mut self, unit: &UnitContext, batch: &FlowBatch, names: &Names, counts: &mut FlowCounts) {
        // A batch is far smaller than what the index still has room for.
        if self.slots.len().max(self.packet_addrs.items.len()) >= self.spill {
            self.spilled = self.flush();
        }
        let unit_index = self.unit_index(unit);
        if self.recent_of != Some(unit.id) {
            self.recent.clear();
            self.recent_of = Some(unit.id);
        }
        self.recent.resize(names.interfaces.len(), (ABSENT, 0, NO_GROUP));
        let mut entries = std::mem::take(&mut self.entries);
        let mut start = 0;
        while start < batch.rows() {
            let end = batch.rows().min(start + STEP);
            entries.clear();
            self.reserve(end - start);
            self.key_rows(start..end, unit, batch, names, counts, &mut entries);
            self.find_rows(&mut entries, unit_index, &batch.line);
            self.sum_rows(&entries, unit_index, batch);
            start = end;
        }
        self.entries = entries;
    }

    /// First walk: which conversation each row belongs to, and the counts.
    fn key_rows(
        &mut self,
        rows: Range<usize>,
        unit: &UnitContext,
        batch: &FlowBatch,
        names: &Names,
        counts: &mut FlowCounts,
        entries: &mut Vec<Incoming>,
    ) {
        let mut here = FlowCounts::default();
        // Rows of one hour come together, and so do those of one interface.
        let (mut hour, mut hour_start) = (0, i64::MAX);
        let mut last = (ABSENT, ABSENT, i64::MAX, NO_GROUP);
        // Columns of one known length: their bounds are looked at once.
        let (first_row, count) = (rows.start, rows.len());
        fn part<'c, T>(column: &'c [T], rows: &Range<usize>) -> &'c [T] {
            &column[rows.start..rows.start + rows.len()]
        }
        let (marks, ends) = (part(&batch.marks, &rows), part(&batch.end, &rows));
        let (packets, bytes) = (part(&batch.packets, &rows), part(&batch.bytes, &rows));
        let (interfaces, accounts) = (part(&batch.interface, &rows), part(&batch.account, &rows));
        let (srcs, dsts, both_ports) = (part(&batch.src, &rows), part(&batch.dst, &rows), part(&batch.ports, &rows));
        let (protocols, tcp_flags) = (part(&batch.protocol, &rows), part(&batch.tcp_flags, &rows));
        let mask = self.table.len() - 1;
        for at in 0..count {
            let row = first_row + at;
            let mark = marks[at];
            let end = ends[at];
            // Nearly all rows pass this, and then need none of the other questions.
            let timely = (unit.from.0..unit.to.0).contains(&end);
            if mark & (PLACED | marks::NODATA | marks::SKIPDATA) != PLACED || !timely || interfaces[at] == ABSENT {
                if mark & marks::TIMES != 0 && !timely {
                    here.out_of_range += 1;
                    continue;
                }
                here.count(packets[at], bytes[at], end);
                match mark & (marks::NODATA | marks::SKIPDATA) {
                    0 => here.unplaced += 1,
                    marks::SKIPDATA => here.skipdata += 1,
                    _ => here.nodata += 1,
                }
                continue;
            }
            here.count(packets[at], bytes[at], end);
            if end.wrapping_sub(hour_start) as u64 >= 3600 {
                hour = EventTime(end).hour().0;
                hour_start = i64::from(hour) * 3600;
            }
            if (interfaces[at], accounts[at], hour_start) != (last.0, last.1, last.2) {
                last = (interfaces[at], accounts[at], hour_start, self.group(unit, names, interfaces[at], accounts[at], hour));
            }
            let group = last.3;
            if group == NO_GROUP {
                here.unplaced += 1;
                continue;
            }
            let (mut src, mut dst) = (srcs[at], dsts[at]);
            let mut misc = u32::from(protocols[at]);
            if mark & marks::V6 != 0 {
                let ends = [Ip(batch.v6[src as usize]), Ip(batch.v6[dst as usize])];
                // Two IPv4 addresses written the IPv6 way are what they are.
                if let [Some(a), Some(b)] = ends.map(Ip::as_v4) {
                    (src, dst) = (a, b);
                } else {
                    misc |= V6;
                    [src, dst] = ends.map(|ip| self.v6.index(ip.0));
                }
            }
            if mark & marks::REJECT != 0 {
                misc |= REJECTED;
            }
            let (src_port, dst_port) = ((both_ports[at] >> 16) as u16, both_ports[at] as u16);
            let from_server = match side_of(mark, protocols[at], tcp_flags[at], src_port, dst_port) {
                Some(from_server) => {
                    misc |= SETTLED;
                    from_server
                }
                None if misc & V6 == 0 => (dst, dst_port) < (src, src_port),
                None => (self.v6.items[dst as usize], dst_port) < (self.v6.items[src as usize], src_port),
            };
            let (client, server, client_port, server_port) =
                if from_server { (dst, src, dst_port, src_port) } else { (src, dst, src_port, dst_port) };
            let ports = if misc & SETTLED != 0 { u32::from(server_port) } else { u32::from(client_port) << 16 | u32::from(server_port) };
            let mut side = u32::from(from_server);
            if mark & (marks::EGRESS | marks::INGRESS) != 0 {
                // Egress: the source is ours; the source is the server when the record came from it.
                side |= if (mark & marks::EGRESS != 0) == from_server { OURS_SERVER } else { OURS_CLIENT };
            }
            if mark & marks::PKT != 0 {
                misc |= self.packet_pair(batch, row, from_server);
            }
            let key = Key { group, client, server, ports, misc };
            let hash = key.hash(self.seed);
            prefetch(&self.table, hash as usize & mask);
            entries.push(Incoming { hash, key, row: row as u32, slot: 0, side });
        }
        counts.add(&here);
    }

    /// What stands in `misc` for the inner addresses of a row that has some.
    #[cold]
    fn packet_pair(&mut self, batch: &FlowBatch, row: usize, from_server: bool) -> u32 {
        match batch.packet_addrs.binary_search_by_key(&row, |pair| pair.0 as usize).map(|at| batch.packet_addrs[at]) {
            Ok((_, a, b)) => (self.packet_addrs.index(if from_server { (b, a) } else { (a, b) }) + 1) << PAIR,
            Err(_) => 0,
        }
    }

    /// Second walk: where each row's conversation most likely stands. One that the table has not gets its slot here, so that
    /// the third walk finds all and seldom has to look again.
    fn find_rows(&mut self, entries: &mut [Incoming], unit: u32, lines: &[u32]) {
        let mask = self.table.len() - 1;
        for entry in entries {
            let mut at = entry.hash as usize & mask;
            let tag = tag_of(entry.hash);
            loop {
                let found = self.table[at];
                if found == 0 {
                    let line = lines.get(entry.row as usize).copied().unwrap_or(u32::MAX);
                    entry.slot = self.new_slot(at, tag, entry.key, (unit, line)) as u32;
                    break;
                }
                if found & !INDEX == tag {
                    entry.slot = (found & INDEX) - 1;
                    break;
                }
                at = (at + 1) & mask;
            }
            prefetch(&self.slots, entry.slot as usize);
        }
    }

    /// Third walk: adds the rows up.
    fn sum_rows(&mut self, entries: &[Incoming], unit: u32, batch: &FlowBatch) {
        let rows = batch.rows();
        let (packets, bytes, tcp_flags) = (&batch.packets[..rows], &batch.bytes[..rows], &batch.tcp_flags[..rows]);
        let (starts, ends) = (&batch.start[..rows], &batch.end[..rows]);
        for entry in entries.iter().filter(|e| (e.row as usize) < rows) {
            let likely = entry.slot as usize;
            let at = match self.slots.get(likely) {
                Some(slot) if slot.key == entry.key => likely,
                _ => self.slot(entry, (unit, batch.line[entry.row as usize])),
            };
            let Some(slot) = self.slots.get_mut(at) else { continue };
            let row = entry.row as usize;
            let (packets, bytes) = (packets[row], bytes[row]);
            let way = (entry.side & FROM_SERVER) as usize;
            let sum = &mut slot.sums[way];
            sum.flows = sum.flows.saturating_add(1);
            let (all_packets, all_bytes) = (packets.saturating_add(u64::from(sum.packets)), bytes.saturating_add(u64::from(sum.bytes)));
            (sum.packets, sum.bytes) = (all_packets as u32, all_bytes as u32);
            slot.flags[way] |= tcp_flags[row];
            let [first, last] = seconds([starts[row].min(ends[row]), ends[row]]);
            slot.first = slot.first.min(first);
            slot.last = slot.last.max(last);
            slot.ours |= (entry.side >> 1) as u8;
            if slot.last_unit != unit {
                slot.last_unit = unit;
                see(&mut self.seen[at], &mut slot.seen_count, &self.units, unit, batch.line[row]);
            }
            if (all_packets | all_bytes) >> 32 != 0 {
                let carry = self.carries.entry((at as u32, way == 1)).or_default();
                carry.packets = carry.packets.saturating_add(all_packets >> 32);
                carry.bytes = carry.bytes.saturating_add(all_bytes >> 32);
            }
        }
    }

    #[inline]
    fn group(&mut self, unit: &UnitContext, names: &Names, interface: u32, account: u32, hour: i32) -> u32 {
        let recent = self.recent[interface as usize];
        if recent.0 == account && recent.1 == hour && recent.2 != NO_GROUP {
            return recent.2;
        }
        let group = self.find_group(unit, names, interface, account, hour);
        self.recent[interface as usize] = (account, hour, group);
        group
    }

    #[cold]
    fn find_group(&mut self, unit: &UnitContext, names: &Names, interface: u32, account: u32, hour: i32) -> u32 {
        // `unknown` is what AWS writes for some service-made interfaces; the key then says whose log it is.
        let of_record = names.accounts.get(account as usize).map(|a| &**a).filter(|a| *a != "unknown");
        let Some(account) = of_record.or(unit.account.as_deref()) else { return NO_GROUP };
        let Some(eni) = names.interfaces.get(interface as usize) else { return NO_GROUP };
        let group = Group {
            account: self.strings.index(account),
            eni: self.strings.index(eni),
            flow_log: unit.flow_log.as_deref().map_or(NONE, |f| self.strings.index(f)),
            region: unit.region.as_deref().map_or(NONE, |r| self.strings.index(r)),
            hour,
        };
        *self.group_of.entry(group).or_insert_with(|| {
            self.groups.push(group);
            (self.groups.len() - 1) as u32
        })
    }

    fn unit_index(&mut self, unit: &UnitContext) -> u32 {
        if self.units.last() != Some(&unit.id) {
            self.units.push(unit.id);
        }
        (self.units.len() - 1) as u32
    }

    /// The slot of a conversation that another one's tag was taken for, made if there is none.
    #[cold]
    fn slot(&mut self, entry: &Incoming, seen: (u32, u32)) -> usize {
        let mask = self.table.len() - 1;
        let mut at = entry.hash as usize & mask;
        let tag = tag_of(entry.hash);
        loop {
            let found = self.table[at];
            let index = (found & INDEX).wrapping_sub(1) as usize;
            if found == 0 {
                return self.new_slot(at, tag, entry.key, seen);
            } else if found & !INDEX == tag && self.slots[index].key == entry.key {
                return index;
            }
            at = (at + 1) & mask;
        }
    }

    /// Makes a slot, told of at a free place of the table; `seen` is its first unit and line. The table has room.
    #[inline]
    fn new_slot(&mut self, at: usize, tag: u32, key: Key, seen: (u32, u32)) -> usize {
        self.slots.push(Slot {
            key,
            first: u32::MAX,
            last: 0,
            last_unit: seen.0,
            sums: [Sum::default(); 2],
            flags: [0; 2],
            ours: 0,
            seen_count: 1,
        });
        self.seen.push([seen, (0, 0), (0, 0)]);
        self.table[at] = tag | self.slots.len() as u32;
        self.slots.len() - 1
    }

    /// Makes room for so many more conversations.
    fn reserve(&mut self, more: usize) {
        while (self.slots.len() + more) * 2 > self.table.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mask = self.table.len() * 2 - 1;
        self.table = vec![0; mask + 1];
        for (index, slot) in self.slots.iter().enumerate() {
            let hash = slot.key.hash(self.seed);
            let mut at = hash as usize & mask;
            while self.table[at] != 0 {
                at = (at + 1) & mask;
            }
            self.table[at] = tag_of(hash) | (index as u32 + 1);
        }
    }

    /// The index of a text in this table's dictionary, for [`ApiRow`]s.
    pub fn intern(&mut self, text: &str) -> u32 {
        self.strings.index(text)
    }

    /// Adds an API call of `account`. Its text indices are those of [`Self::intern`]; `unit` and `position` are set here.
    pub fn add_call(&mut self, unit: &UnitContext, account: &str, mut row: ApiRow, position: u64) {
        row.unit = self.unit_index(unit);
        row.position = position;
        let account = self.strings.index(account);
        self.calls.add(account, &row);
    }

    /// Empties the table into blocks, sorted by (day, account, hour).
    pub fn flush(&mut self) -> Vec<Block> {
        // Order by text, once per group, not per conversation.
        let strings = &self.strings.items;
        let mut by_text: Vec<u32> = (0..self.groups.len() as u32).collect();
        let text = |index: u32| strings.get(index as usize).map(|s| &**s);
        // An absent flow log sorts last, as NONE does in a block.
        let rank_key = |g: &Group| (text(g.account), g.hour, text(g.eni), text(g.flow_log).is_none(), text(g.flow_log), text(g.region));
        by_text.sort_by(|a, b| rank_key(&self.groups[*a as usize]).cmp(&rank_key(&self.groups[*b as usize])));
        // Groups that differ only in region are one to a block: same rank.
        let mut rank = vec![0u32; self.groups.len()];
        let mut ranked: Vec<Group> = Vec::new();
        for &group in &by_text {
            let g = self.groups[group as usize];
            if ranked.last().is_none_or(|r: &Group| (r.account, r.hour, r.eni, r.flow_log) != (g.account, g.hour, g.eni, g.flow_log)) {
                ranked.push(g);
            }
            rank[group as usize] = ranked.len() as u32 - 1;
        }
        let (starts, sorted) = self.sorted(&rank, ranked.len());
        let (groups, forms) = self.calls.take();
        let mut calls: HashMap<(u32, i32), CallGroup> = groups.into_iter().map(|group| (group.key, group)).collect();
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut blocks = std::mem::take(&mut self.spilled);
        let mut group = 0;
        while let Some(head) = ranked.get(group) {
            let (account, hour) = (head.account, head.hour);
            let first = group;
            group += ranked[first..].iter().take_while(|g| (g.account, g.hour) == (account, hour)).count();
            let of_hour = calls.remove(&(account, hour)).unwrap_or_default();
            let range = starts[first] as usize..starts[group] as usize;
            blocks.push(self.block(account, hour, &sorted[range], &rank, &ranked, (&of_hour, &forms), &mut scratch));
        }
        for ((account, hour), group) in calls {
            blocks.push(self.block(account, hour, &[], &rank, &ranked, (&group, &forms), &mut scratch));
        }
        blocks.sort_by(|a, b| (a.hour.day(), &a.account, a.hour).cmp(&(b.hour.day(), &b.account, b.hour)));
        (self.sorted, self.scratch) = (sorted, scratch);
        self.clear();
        blocks
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.group_of.clear();
        self.slots.clear();
        self.seen.clear();
        self.carries.clear();
        self.table.fill(0);
        self.v6 = Pool::default();
        self.packet_addrs = Pool::default();
        self.units.clear();
        self.recent.clear();
        self.recent_of = None;
        self.strings.clear();
    }

    /// All conversations by rank of their group (where each begins is told, and the end), in each as
    /// [`crate::hour::Conversation::order`] says.
    fn sorted(&mut self, rank: &[u32], ranks: usize) -> (Vec<u32>, Vec<Sorted>) {
        let mut starts = vec![0u32; ranks + 1];
        for slot in &self.slots {
            starts[rank[slot.key.group as usize] as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        // One integer stands for each address, so that nothing is looked up while sorting.
        let (v6, pairs) = (self.v6.ranks(), self.packet_addrs.ranks());
        let mut sorted = std::mem::take(&mut self.sorted);
        sorted.clear();
        sorted.resize(self.slots.len(), Sorted { high: 0, low: 0, pair: 0, slot: 0 });
        let mut fill = starts.clone();
        for (index, slot) in self.slots.iter().enumerate() {
            let Key { client, server, ports, misc, .. } = slot.key;
            let wide = misc & V6 != 0;
            let address = |value: u32| u64::from(if wide { v6[value as usize] } else { value });
            let flag = |bit: u32| u64::from(misc & bit != 0);
            let at = &mut fill[rank[slot.key.group as usize] as usize];
            sorted[*at as usize] = Sorted {
                high: u64::from(wide) << 57
                    | flag(REJECTED) << 56
                    | address(server) << 24
                    | u64::from(ports & 0xffff) << 8
                    | u64::from(misc & 0xff),
                low: flag(SETTLED) << 48 | address(client) << 16 | u64::from(ports >> 16),
                pair: (misc >> PAIR).checked_sub(1).map_or(0, |p| pairs[p as usize] + 1),
                slot: index as u32,
            };
            *at += 1;
        }
        for range in starts.windows(2) {
            sorted[range[0] as usize..range[1] as usize].sort_unstable_by_key(|s| (s.high, s.low, s.pair));
        }
        (starts, sorted)
    }

    #[allow(clippy::too_many_arguments)] // All that one block is written from.
    fn block(
        &self,
        account: u32,
        hour: i32,
        sorted: &[Sorted],
        rank: &[u32],
        ranked: &[Group],
        calls: (&CallGroup, &Forms),
        scratch: &mut Scratch,
    ) -> Block {
        let mut writer = crate::block::BlockWriter::new(&self.strings.items, &self.units, scratch);
        // They lie in the order they came in.
        const AHEAD: usize = 8;
        for (at, one) in sorted.iter().enumerate() {
            if let Some(next) = sorted.get(at + AHEAD) {
                prefetch(&self.slots, next.slot as usize);
                prefetch(&self.seen, next.slot as usize);
            }
            let slot = &self.slots[one.slot as usize];
            let key = &slot.key;
            let group = &ranked[rank[key.group as usize] as usize];
            let ip = |value: u32| if key.misc & V6 == 0 { Ip::v4(value) } else { Ip(self.v6.items[value as usize]) };
            writer.conversation(&crate::block::Row {
                eni: group.eni,
                flow_log: group.flow_log,
                region: self.groups[key.group as usize].region,
                rejected: key.misc & REJECTED != 0,
                protocol: key.misc as u8,
                settled: key.misc & SETTLED != 0,
                client: ip(key.client),
                server: ip(key.server),
                client_port: (key.ports >> 16) as u16,
                server_port: key.ports as u16,
                packet_addrs: (key.misc >> PAIR).checked_sub(1).map(|p| self.packet_addrs.items[p as usize]),
                ahead: self.traffic(one.slot, false),
                back: self.traffic(one.slot, true),
                first: slot.first,
                last: slot.last,
                ours_client: slot.ours & 1 != 0,
                ours_server: slot.ours & 2 != 0,
                seen: &self.seen[one.slot as usize][..usize::from(slot.seen_count)],
            });
        }
        writer.calls(calls.0, calls.1);
        writer.finish(self.strings.items.get(account as usize).map_or("", |a| a), Hour(hour))
    }

    /// One direction of a conversation, with what its slot has no room for.
    #[inline]
    fn traffic(&self, index: u32, back: bool) -> crate::hour::Traffic {
        let slot = &self.slots[index as usize];
        let (sum, flags) = (slot.sums[usize::from(back)], slot.flags[usize::from(back)]);
        let carry = if self.carries.is_empty() { Carry::default() } else { self.carries.get(&(index, back)).copied().unwrap_or_default() };
        let whole = |high: u64, low: u32| if high >> 32 == 0 { high << 32 | u64::from(low) } else { u64::MAX };
        crate::hour::Traffic { flows: sum.flows, flags, packets: whole(carry.packets, sum.packets), bytes: whole(carry.bytes, sum.bytes) }
    }
}

/// Whether the record came from the serving side; `None` when that is to be settled at the look.
#[inline]
fn side_of(mark: u16, protocol: u8, flags: u8, src_port: u16, dst_port: u16) -> Option<bool> {
    if mark & marks::TCP_FLAGS != 0 && protocol == 6 {
        match flags & 0x12 {
            0x02 => return Some(false),
            0x12 => return Some(true),
            _ => {}
        }
    }
    match (is_service(src_port), is_service(dst_port)) {
        (false, true) => Some(false),
        (true, false) => Some(true),
        _ => None,
    }
}

/// The part of a hash that stands in the table: its highest bits, as the lowest say where.
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32 & !INDEX
}

impl PartialEq for Key {
    /// All at once: a branch for each field costs more than it saves.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let differ = (self.group ^ other.group) | (self.client ^ other.client) | (self.server ^ other.server);
        (differ | (self.ports ^ other.ports) | (self.misc ^ other.misc)) == 0
    }
}

impl Key {
    #[inline]
    fn hash(&self, seed: u64) -> u64 {
        // Folded multiplication, as in wyhash and foldhash: two 64-bit halves of the product mixed.
        fn fold(a: u64, b: u64) -> u64 {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        }
        let a = u64::from(self.client) << 32 | u64::from(self.server);
        let b = u64::from(self.ports) << 32 | u64::from(self.group);
        let h = fold(a ^ 0x9e37_79b9_7f4a_7c15 ^ seed, b ^ 0xd1b5_4a32_d192_ed03 ^ u64::from(self.misc).rotate_left(17));
        fold(h ^ seed, 0xa24b_aed4_963e_e407)
    }
}

/// Notes that unit `index` has a conversation from `line` on; keeps the three smallest by unit identity.
fn see(seen: &mut [(u32, u32); 3], seen_count: &mut u8, units: &[UnitId], index: u32, line: u32) {
    let count = usize::from(*seen_count);
    if let Some(mine) = seen[..count].iter_mut().find(|s| units[s.0 as usize] == units[index as usize]) {
        mine.1 = mine.1.min(line);
        return;
    }
    let at = seen[..count].iter().position(|s| units[index as usize] < units[s.0 as usize]).unwrap_or(count);
    if at < 3 {
        let end = count.min(2);
        seen.copy_within(at..end, at + 1);
        seen[at] = (index, line);
        *seen_count = (count + 1).min(3) as u8;
    }
}

/// Seconds as the slot keeps them: 1970 to 2106, clamped. Both at once, as hardly any time is outside.
#[inline]
fn seconds(times: [i64; 2]) -> [u32; 2] {
    let clamped = if (times[0] | times[1]) as u64 >> 32 == 0 { times } else { times.map(|time| time.clamp(0, i64::from(u32::MAX))) };
    clamped.map(|time| time as u32)
}

/// Distinct texts, numbered in order of first sight.
#[derive(Debug, Default)]
struct Interner {
    items: Vec<Box<str>>,
    /// Indices of `items`, by hash.
    of: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Texts seen of late, at a place that their length and ends say: most texts of a record were in one just before, and
    /// need no real hash then.
    recent: Vec<Recent>,
}

/// A text that was seen of late; a copy lies here, so that a look at it is one at memory that was just used.
#[derive(Clone, Debug)]
struct Recent {
    index: u32,
    len: u32,
    /// Its bytes, if there is room.
    bytes: [u8; RECENT_BYTES],
}

/// Texts that are remembered as recent; a power of two.
const RECENT: usize = 1 << 10;
/// Longest text that is compared in place.
const RECENT_BYTES: usize = 120;

impl Interner {
    /// Forgets all and keeps the memory.
    fn clear(&mut self) {
        self.items.clear();
        self.of.clear();
        self.recent.iter_mut().for_each(|recent| (recent.index, recent.len) = (NONE, NONE));
    }

    fn index(&mut self, text: &str) -> u32 {
        let bytes = text.as_bytes();
        if self.recent.is_empty() {
            self.recent.resize(RECENT, Recent { index: NONE, len: NONE, bytes: [0; RECENT_BYTES] });
        }
        let ends = match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => u64::from_le_bytes(*first).rotate_left(29) ^ u64::from_le_bytes(*last),
            _ => bytes.iter().fold(0, |ends, byte| ends << 8 | u64::from(*byte)),
        };
        let place = ((ends ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % RECENT;
        let recent = &self.recent[place];
        if recent.len as usize == bytes.len() {
            let known = match recent.bytes.get(..bytes.len()) {
                Some(known) => known == bytes,
                None => self.items.get(recent.index as usize).is_some_and(|item| &**item == text),
            };
            if known {
                return recent.index;
            }
        }
        let index = self.hashed(text);
        let recent = &mut self.recent[place];
        (recent.index, recent.len) = (index, u32::try_from(bytes.len()).unwrap_or(NONE));
        if let Some(room) = recent.bytes.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        index
    }

    fn hashed(&mut self, text: &str) -> u32 {
        let Self { items, of, hasher, .. } = self;
        let entry = of.entry(hasher.hash_one(text), |at| &*items[*at as usize] == text, |at| hasher.hash_one(&*items[*at as usize]));
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let index = items.len() as u32;
                free.insert(index);
                items.push(text.into());
                index
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hour::AccountHour;
    use crate::merge::merge;
    use proptest::prelude::*;

    /// One record of a small world in which collisions, both directions and both families are frequent.
    #[derive(Clone, Debug)]
    struct Record {
        unit: u8,
        eni: u8,
        src: u8,
        dst: u8,
        ports: (u16, u16),
        protocol: u8,
        flags: Option<u8>,
        egress: Option<bool>,
        reject: bool,
        v6: bool,
        packet: bool,
        end: i64,
        bytes: u64,
    }

    fn record() -> impl Strategy<Value = Record> {
        let port = prop::sample::select(vec![443u16, 5432, 40000, 40001, 0, 53]);
        (
            (0..4u8, 0..3u8, 0..4u8, 0..4u8),
            (port.clone(), port),
            prop::sample::select(vec![6u8, 17, 1]),
            prop::option::of(prop::sample::select(vec![0u8, 2, 18, 3, 4])),
            prop::option::of(any::<bool>()),
            (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.1)),
            7000..11000i64,
            // Amounts beside the bounds of 32 and 64 bits, too.
            prop_oneof![6 => 0..1000u64, 2 => u64::from(u32::MAX) - 1000..1 << 33, 1 => u64::MAX / 2 - 1000..u64::MAX / 2],
        )
            .prop_map(|((unit, eni, src, dst), ports, protocol, flags, egress, (reject, v6, packet), end, bytes)| Record {
                unit,
                eni,
                src,
                dst,
                ports,
                protocol,
                flags,
                egress,
                reject,
                v6,
                packet,
                end,
                bytes,
            })
    }

    fn ip(n: u8, v6: bool) -> Ip {
        if v6 { Ip(0x2001 << 112 | u128::from(n)) } else { Ip::v4(0x0a00_0000 | u32::from(n)) }
    }

    fn batch(records: &[&Record], names: &mut Names) -> FlowBatch {
        let mut b = FlowBatch::default();
        for (row, r) in records.iter().enumerate() {
            let eni = format!("eni-{}", r.eni);
            let at = names.interfaces.iter().position(|n| **n == *eni).unwrap_or_else(|| {
                names.interfaces.push(eni.into());
                names.interfaces.len() - 1
            });
            let mut mark = marks::ADDRS | marks::TIMES | marks::PORTS;
            if r.v6 {
                mark |= marks::V6;
                b.src.push(b.v6.len() as u32);
                b.v6.push(ip(r.src, true).0);
                b.dst.push(b.v6.len() as u32);
                b.v6.push(ip(r.dst, true).0);
            } else {
                b.src.push(ip(r.src, false).as_v4().unwrap());
                b.dst.push(ip(r.dst, false).as_v4().unwrap());
            }
            if r.flags.is_some() {
                mark |= marks::TCP_FLAGS;
            }
            match r.egress {
                Some(true) => mark |= marks::EGRESS,
                Some(false) => mark |= marks::INGRESS,
                None => {}
            }
            if r.reject {
                mark |= marks::REJECT;
            }
            if r.packet {
                mark |= marks::PKT;
                b.packet_addrs.push((row as u32, ip(200, false), ip(201, false)));
            }
            b.line.push(row as u32 + 2);
            b.marks.push(mark);
            b.interface.push(at as u32);
            b.account.push(ABSENT);
            b.ports.push(u32::from(r.ports.0) << 16 | u32::from(r.ports.1));
            b.protocol.push(r.protocol);
            b.tcp_flags.push(r.flags.unwrap_or(0));
            b.packets.push(1);
            b.bytes.push(r.bytes);
            b.start.push(r.end - 10);
            b.end.push(r.end);
        }
        b
    }

    fn unit(n: u8) -> UnitContext {
        UnitContext {
            // Identities in another order than the numbers.
            id: UnitId(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_0c8a_1d3b_55a7)),
            flow_log: (n != 3).then(|| format!("fl-{}", n % 2)),
            account: Some("111122223333".to_owned()),
            region: Some("eu-west-1".to_owned()),
            from: EventTime::MIN,
            to: EventTime::MAX,
        }
    }

    /// Sums the records unit by unit in the given order, flushing after each unit with a set bit, then merges all.
    fn hours(records: &[Record], order: &[u8], flush: u8, seed: u64) -> Vec<AccountHour> {
        let mut summer = Summer::new(seed);
        if flush >> 7 == 1 {
            // Too many conversations in the middle of a unit.
            summer.spill = 3;
        }
        let mut blocks = Vec::new();
        for n in order {
            let of_unit: Vec<&Record> = records.iter().filter(|r| r.unit == *n).collect();
            let mut names = Names::default();
            // In two batches, so that a unit can spill between them. Line numbers go on.
            let (whole, cut) = (batch(&of_unit, &mut names), of_unit.len() / 2);
            let mut counts = FlowCounts::default();
            for part in [0..cut, cut..of_unit.len()] {
                let mut some = batch(&of_unit[part.clone()], &mut names);
                some.line.clone_from_slice(&whole.line[part]);
                summer.add(&unit(*n), &some, &names, &mut counts);
            }
            assert_eq!(counts.records, of_unit.len() as u64);
            if flush >> n & 1 == 1 {
                blocks.extend(summer.flush());
            }
        }
        blocks.extend(summer.flush());
        let mut keys: Vec<(String, Hour)> = blocks.iter().map(|b| (b.account.clone(), b.hour)).collect();
        keys.sort();
        keys.dedup();
        keys.iter()
            .map(|key| {
                let of_hour: Vec<_> = blocks.iter().filter(|b| (&b.account, b.hour) == (&key.0, key.1)).map(|b| b.view(true)).collect();
                merge(&of_hour).unwrap().0
            })
            .collect()
    }

    /// The same, one record at a time over a sorted map: the page that says what a conversation is.
    fn naive(records: &[Record]) -> Vec<(String, u64, u64, u32, i64, i64)> {
        let mut sums: std::collections::BTreeMap<String, (u64, u64, u32, i64, i64)> = std::collections::BTreeMap::new();
        for r in records {
            let (src, dst) = ((ip(r.src, r.v6), r.ports.0), (ip(r.dst, r.v6), r.ports.1));
            let by_flags = match r.flags.filter(|_| r.protocol == 6).map(|f| f & 0x12) {
                Some(2) => Some(false),
                Some(18) => Some(true),
                _ => match (is_service(src.1), is_service(dst.1)) {
                    (false, true) => Some(false),
                    (true, false) => Some(true),
                    _ => None,
                },
            };
            let from_server = by_flags.unwrap_or(dst < src);
            let (client, server) = if from_server { (dst, src) } else { (src, dst) };
            let client_port = if by_flags.is_some() { 0 } else { client.1 };
            let flow_log = unit(r.unit).flow_log;
            let packet = r.packet.then_some(if from_server { (201, 200) } else { (200, 201) });
            let key = format!(
                "{} {} {flow_log:?} {} {} {} {client_port} {} {} {} {} {packet:?}",
                EventTime(r.end).hour(),
                r.eni,
                r.reject,
                r.protocol,
                client.0,
                server.0,
                server.1,
                by_flags.is_some(),
                r.v6
            );
            let sum = sums.entry(key).or_insert((0, 0, 0, i64::MAX, 0));
            let bytes = if from_server { &mut sum.1 } else { &mut sum.0 };
            *bytes = bytes.saturating_add(r.bytes);
            sum.2 += 1;
            sum.3 = sum.3.min(r.end - 10);
            sum.4 = sum.4.max(r.end);
        }
        sums.into_iter().map(|(k, v)| (k, v.0, v.1, v.2, v.3, v.4)).collect()
    }

    fn told(hours: &[AccountHour]) -> Vec<(String, u64, u64, u32, i64, i64)> {
        let mut rows: Vec<_> = hours
            .iter()
            .flat_map(|h| {
                h.conversations.iter().map(|c| {
                    let packet = c.packet_addrs.checked_sub(1).map(|p| h.packet_addrs[p as usize]).map(|(a, b)| (a.0 as u8, b.0 as u8));
                    let key = format!(
                        "{} {} {:?} {} {} {} {} {} {} {} {} {packet:?}",
                        h.hour,
                        h.text(c.eni).trim_start_matches("eni-"),
                        h.opt(c.flow_log).map(str::to_owned),
                        c.rejected,
                        c.protocol,
                        c.client,
                        c.client_port,
                        c.server,
                        c.server_port,
                        c.settled,
                        !c.client.is_v4()
                    );
                    (key, c.ahead.bytes, c.back.bytes, c.ahead.flows + c.back.flows, c.first.0, c.last.0)
                })
            })
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn conversations_of_one_tag_are_told_apart() {
        // So many that dozens meet another one of their tag on the way, once when they are new and once when they are not.
        let record = |n: u16| Record {
            unit: 0,
            eni: 0,
            src: (n % 200) as u8,
            dst: 250,
            ports: (20_000 + n / 200, 40_003),
            protocol: 17,
            flags: None,
            egress: None,
            reject: false,
            v6: false,
            packet: false,
            end: 7200,
            bytes: u64::from(n),
        };
        let records: Vec<Record> = (0..60_000).chain(0..60_000).map(record).collect();
        let summed = told(&hours(&records, &[0], 0, 3));
        assert_eq!(summed.len(), 60_000);
        assert!(summed == naive(&records), "a conversation has another one's records");
    }

    #[test]
    fn seconds_end_in_1970_and_2106() {
        assert_eq!(seconds([-5, 1 << 40]), [0, u32::MAX]);
        assert_eq!(seconds([i64::from(u32::MAX), 1 << 32]), [u32::MAX, u32::MAX]);
        assert_eq!(seconds([1_700_000_000, 0]), [1_700_000_000, 0]);
    }

    #[test]
    fn texts_with_equal_ends_are_told_apart() {
        let mut texts = Interner::default();
        // Of one length and with one beginning and end: all in one place of the recent ones. Short texts have none.
        let text = |n: u32| if n.is_multiple_of(2) { format!("arn:aws:{n:06}:function") } else { format!("{n}") };
        for round in 0..3 {
            for n in 0..2000 {
                let n = if round == 1 { 1999 - n } else { n };
                assert_eq!((texts.index(&text(n)), texts.index(&text(n))), (n, n));
            }
        }
        assert_eq!(texts.items.len(), 2000);
    }

    proptest! {
        #[test]
        fn neither_order_nor_flushes_nor_seed_show(records in prop::collection::vec(record(), 0..80), flush in any::<u8>(), seed in any::<u64>()) {
            let one = hours(&records, &[0, 1, 2, 3], 0, 1);
            let other = hours(&records, &[3, 1, 0, 2], flush, seed);
            prop_assert_eq!(&one, &other);
            prop_assert_eq!(told(&one), naive(&records));
        }

        #[test]
        fn hostile_bytes_never_decode_into_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), records in prop::collection::vec(record(), 1..20), at in any::<usize>()) {
            let view = |bytes: &[u8]| crate::block::decode(crate::block::BlockView { account: "1", hour: Hour(2), bytes, new: false }).map(|_| ());
            let _ = view(&bytes);
            let mut summer = Summer::new(7);
            let of_unit: Vec<&Record> = records.iter().collect();
            let mut names = Names::default();
            let flows = batch(&of_unit, &mut names);
            summer.add(&unit(0), &flows, &names, &mut FlowCounts::default());
            for block in summer.flush() {
                bytes = block.bytes;
                let at = at % bytes.len();
                bytes[at] ^= 0x55;
                let _ = view(&bytes);
                prop_assert!(view(&bytes[..at]).is_err());
            }
        }
    }
}
