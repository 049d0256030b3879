//! Summing: flow records into conversations, API calls into rows, as the reader thread parses them.
//!
//! This is the hot path between the parser and the account-hour. Records of many units are added to one table per
//! thread; [`Summer::flush`] turns it into [`Block`]s, one per account and hour, sorted inside, which are merged when
//! the hour is judged. Sums, minima, maxima, ORs and "the three smallest" are all that is kept, so it shows neither how
//! the units were spread over threads nor in which order they came.
//!
//! Per record there is no allocation, no string and no hashing of strings: a record is found by (interface and hour,
//! two addresses, ports, protocol), the table is prefetched a few records ahead, and a batch is walked twice.

use std::hash::BuildHasher as _;

use flowtrail_ingest::flow::batch::{ABSENT, marks};
use flowtrail_ingest::{EventTime, FlowBatch, Hour, Ip, Names, UnitId};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::block::{Block, Scratch};
use crate::hour::{ApiRow, NONE};
use crate::ports::is_service;
use crate::prefetch::prefetch;

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

/// Table of one reader thread.
#[derive(Debug)]
pub struct Summer {
    seed: u64,
    strings: Interner,
    groups: Vec<Group>,
    group_of: HashMap<Group, u32>,
    slots: Vec<Slot>,
    /// Open addressing over `slots`: index + 1, 0 is free. A power of two long, at most half full.
    table: Vec<u32>,
    v6: Pool<u128>,
    packet_addrs: Pool<(Ip, Ip)>,
    units: Vec<UnitId>,
    /// API calls by (account index, hour).
    calls: Vec<((u32, i32), Vec<ApiRow>)>,
    calls_of: HashMap<(u32, i32), usize>,
    /// Index into `calls`, where the last one was added.
    calls_recent: usize,
    calls_held: usize,
    // Scratch of `add`: one entry a row.
    keys: Vec<Key>,
    hashes: Vec<u64>,
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
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Key {
    group: u32,
    /// IPv4 bits, or an index into `v6`.
    client: u32,
    server: u32,
    /// `client_port << 16 | server_port`.
    ports: u32,
    /// Index into `packet_addrs` + 1, or 0.
    packet_addrs: u32,
    /// protocol | SETTLED | REJECTED | V6, and FROM_SERVER, OURS_* which are not part of the identity.
    misc: u32,
}

const SETTLED: u32 = 1 << 8;
const REJECTED: u32 = 1 << 9;
const V6: u32 = 1 << 10;
const FROM_SERVER: u32 = 1 << 16;
const OURS_CLIENT: u32 = 1 << 17;
const OURS_SERVER: u32 = 1 << 18;
const IDENTITY: u32 = 0xffff;
/// A row that belongs to no conversation (NODATA, unplaced, out of range).
const NO_GROUP: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Slot {
    key: Key,
    ahead_packets: u64,
    ahead_bytes: u64,
    back_packets: u64,
    back_bytes: u64,
    ahead_flows: u32,
    back_flows: u32,
    first: u32,
    last: u32,
    /// (index into `units`, first line), the smallest by unit identity; `seen_count` are in use.
    seen: [(u32, u32); 3],
    ahead_flags: u8,
    back_flags: u8,
    ours: u8,
    seen_count: u8,
    last_unit: u32,
}

/// Slots after which a flush keeps the table in bounds (about 64 MiB with its index).
pub const SLOTS_MAX: usize = 1 << 19;
/// API rows after which a flush keeps memory in bounds.
pub const CALLS_MAX: usize = 1 << 18;

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
            table: vec![0; 1 << 12],
            v6: Pool::default(),
            packet_addrs: Pool::default(),
            units: Vec::new(),
            calls: Vec::new(),
            calls_of: HashMap::new(),
            calls_recent: 0,
            calls_held: 0,
            keys: Vec::new(),
            hashes: Vec::new(),
            recent: Vec::new(),
            recent_of: None,
        }
    }

    /// True when a flush is due. Asked between units.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.len() >= SLOTS_MAX || self.calls_held >= CALLS_MAX || self.groups.len() >= 1 << 20
    }

    /// True when there is nothing to flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.calls_held == 0
    }

    /// Adds a batch of flow records of one unit.
    pub fn add(&mut self, unit: &UnitContext, batch: &FlowBatch, names: &Names, counts: &mut FlowCounts) {
        let unit_index = self.unit_index(unit);
        self.key_rows(unit, batch, names, counts);
        const AHEAD: usize = 12;
        let mut previous = (Key { group: NO_GROUP, ..Key::default() }, 0usize);
        for row in 0..batch.rows() {
            if let Some(&hash) = self.hashes.get(row + AHEAD) {
                // The index line was asked for while keys were made; its slot is asked for now.
                let at = self.table[hash as usize & (self.table.len() - 1)];
                prefetch(&self.slots, at.wrapping_sub(1) as usize);
            }
            let key = self.keys[row];
            if key.group == NO_GROUP {
                continue;
            }
            let identity = Key { misc: key.misc & IDENTITY, ..key };
            let at = if identity == previous.0 { previous.1 } else { self.slot(identity, self.hashes[row]) };
            previous = (identity, at);
            let Some(slot) = self.slots.get_mut(at) else { continue };
            let (packets, bytes, flags) = (batch.packets[row], batch.bytes[row], batch.tcp_flags[row]);
            if key.misc & FROM_SERVER == 0 {
                slot.ahead_flows = slot.ahead_flows.saturating_add(1);
                slot.ahead_packets = slot.ahead_packets.saturating_add(packets);
                slot.ahead_bytes = slot.ahead_bytes.saturating_add(bytes);
                slot.ahead_flags |= flags;
            } else {
                slot.back_flows = slot.back_flows.saturating_add(1);
                slot.back_packets = slot.back_packets.saturating_add(packets);
                slot.back_bytes = slot.back_bytes.saturating_add(bytes);
                slot.back_flags |= flags;
            }
            slot.first = slot.first.min(seconds(batch.start[row].min(batch.end[row])));
            slot.last = slot.last.max(seconds(batch.end[row]));
            slot.ours |= (key.misc >> 17 & 3) as u8;
            if slot.last_unit != unit_index {
                slot.last_unit = unit_index;
                slot.see(&self.units, unit_index, batch.line[row]);
            }
        }
    }

    /// First walk over a batch: which conversation each row belongs to, and the counts.
    fn key_rows(&mut self, unit: &UnitContext, batch: &FlowBatch, names: &Names, counts: &mut FlowCounts) {
        let rows = batch.rows();
        self.keys.clear();
        self.hashes.clear();
        if self.recent_of != Some(unit.id) {
            self.recent.clear();
            self.recent_of = Some(unit.id);
        }
        self.recent.resize(names.interfaces.len(), (ABSENT, 0, NO_GROUP));
        let mut packet_addrs = batch.packet_addrs.iter().peekable();
        for row in 0..rows {
            let mark = batch.marks[row];
            let end = batch.end[row];
            let packet_pair = if mark & marks::PKT == 0 {
                None
            } else {
                while packet_addrs.peek().is_some_and(|p| (p.0 as usize) < row) {
                    packet_addrs.next();
                }
                packet_addrs.peek().filter(|p| p.0 as usize == row).map(|p| (p.1, p.2))
            };
            if mark & marks::TIMES != 0 && (end < unit.from.0 || end >= unit.to.0) {
                counts.out_of_range += 1;
                self.skip_row();
                continue;
            }
            counts.records += 1;
            counts.packets = counts.packets.saturating_add(batch.packets[row]);
            counts.bytes = counts.bytes.saturating_add(batch.bytes[row]);
            counts.newest = counts.newest.max(end);
            if mark & (marks::NODATA | marks::SKIPDATA) != 0 {
                counts.nodata += u64::from(mark & marks::NODATA != 0);
                counts.skipdata += u64::from(mark & marks::NODATA == 0);
                self.skip_row();
                continue;
            }
            let group = if mark & (marks::ADDRS | marks::TIMES) == marks::ADDRS | marks::TIMES && batch.interface[row] != ABSENT {
                self.group(unit, names, batch.interface[row], batch.account[row], EventTime(end).hour().0)
            } else {
                NO_GROUP
            };
            if group == NO_GROUP {
                counts.unplaced += 1;
                self.skip_row();
                continue;
            }
            let (mut src, mut dst) = (batch.src[row], batch.dst[row]);
            let mut misc = u32::from(batch.protocol[row]);
            if mark & marks::V6 != 0 {
                misc |= V6;
                src = self.v6.index(batch.v6[src as usize]);
                dst = self.v6.index(batch.v6[dst as usize]);
            }
            if mark & marks::REJECT != 0 {
                misc |= REJECTED;
            }
            let (src_port, dst_port) = ((batch.ports[row] >> 16) as u16, batch.ports[row] as u16);
            let from_server = match self.side(mark, batch.protocol[row], batch.tcp_flags[row], src_port, dst_port) {
                Some(from_server) => {
                    misc |= SETTLED;
                    from_server
                }
                None if mark & marks::V6 == 0 => (dst, dst_port) < (src, src_port),
                None => (self.v6.items[dst as usize], dst_port) < (self.v6.items[src as usize], src_port),
            };
            let (client, server, client_port, server_port) =
                if from_server { (dst, src, dst_port, src_port) } else { (src, dst, src_port, dst_port) };
            let ports = if misc & SETTLED != 0 { u32::from(server_port) } else { u32::from(client_port) << 16 | u32::from(server_port) };
            if from_server {
                misc |= FROM_SERVER;
            }
            if mark & (marks::EGRESS | marks::INGRESS) != 0 {
                // Egress: the source is ours; the source is the server when the record came from it.
                misc |= if (mark & marks::EGRESS != 0) == from_server { OURS_SERVER } else { OURS_CLIENT };
            }
            let pair = packet_pair.map_or(0, |(a, b)| self.packet_addrs.index(if from_server { (b, a) } else { (a, b) }) + 1);
            let key = Key { group, client, server, ports, packet_addrs: pair, misc };
            let hash = key.hash(self.seed);
            prefetch(&self.table, hash as usize & (self.table.len() - 1));
            self.keys.push(key);
            self.hashes.push(hash);
        }
    }

    fn skip_row(&mut self) {
        self.keys.push(Key { group: NO_GROUP, ..Key::default() });
        self.hashes.push(0);
    }

    /// Whether the record came from the serving side; `None` when that is to be settled at the look.
    #[inline]
    fn side(&self, mark: u16, protocol: u8, flags: u8, src_port: u16, dst_port: u16) -> Option<bool> {
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

    #[inline]
    fn slot(&mut self, key: Key, hash: u64) -> usize {
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.table[at] {
                0 => break,
                index if self.slots[index as usize - 1].key == key => return index as usize - 1,
                _ => at = (at + 1) & mask,
            }
        }
        self.slots.push(Slot {
            key,
            ahead_packets: 0,
            ahead_bytes: 0,
            back_packets: 0,
            back_bytes: 0,
            ahead_flows: 0,
            back_flows: 0,
            first: u32::MAX,
            last: 0,
            seen: [(0, 0); 3],
            ahead_flags: 0,
            back_flags: 0,
            ours: 0,
            seen_count: 0,
            last_unit: u32::MAX,
        });
        self.table[at] = self.slots.len() as u32;
        if self.slots.len() * 2 > self.table.len() {
            self.grow();
        }
        self.slots.len() - 1
    }

    #[cold]
    fn grow(&mut self) {
        let mask = self.table.len() * 2 - 1;
        self.table = vec![0; mask + 1];
        for (index, slot) in self.slots.iter().enumerate() {
            let mut at = slot.key.hash(self.seed) as usize & mask;
            while self.table[at] != 0 {
                at = (at + 1) & mask;
            }
            self.table[at] = index as u32 + 1;
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
        let key = (account, row.time.hour().0);
        if self.calls.get(self.calls_recent).is_none_or(|recent| recent.0 != key) {
            self.calls_recent = *self.calls_of.entry(key).or_insert_with(|| {
                self.calls.push((key, Vec::new()));
                self.calls.len() - 1
            });
        }
        self.calls[self.calls_recent].1.push(row);
        self.calls_held += 1;
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
        let mut starts: Vec<u32> = Vec::new();
        let mut ranked: Vec<Group> = Vec::new();
        for &group in &by_text {
            let g = self.groups[group as usize];
            if !ranked.last().is_some_and(|r: &Group| (r.account, r.hour, r.eni, r.flow_log) == (g.account, g.hour, g.eni, g.flow_log)) {
                ranked.push(g);
                starts.push(0);
            }
            rank[group as usize] = ranked.len() as u32 - 1;
        }
        for slot in &self.slots {
            starts[rank[slot.key.group as usize] as usize] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        let mut order = vec![0u32; self.slots.len()];
        let mut fill = starts.clone();
        for (index, slot) in self.slots.iter().enumerate() {
            let at = &mut fill[rank[slot.key.group as usize] as usize];
            order[*at as usize] = index as u32;
            *at += 1;
        }
        let mut calls: HashMap<(u32, i32), Vec<ApiRow>> = std::mem::take(&mut self.calls).into_iter().collect();
        let mut scratch = Scratch::default();
        let mut blocks = Vec::new();
        let mut group = 0;
        while group < ranked.len() {
            let (account, hour) = (ranked[group].account, ranked[group].hour);
            let first = group;
            while group < ranked.len() && (ranked[group].account, ranked[group].hour) == (account, hour) {
                let range = starts[group] as usize..fill[group] as usize;
                self.sort_group(&mut order[range]);
                group += 1;
            }
            let rows = calls.remove(&(account, hour)).unwrap_or_default();
            let range = starts[first] as usize..fill[group - 1] as usize;
            blocks.push(self.block(account, hour, &order[range], &rank, &ranked, rows, &mut scratch));
        }
        for ((account, hour), rows) in calls {
            blocks.push(self.block(account, hour, &[], &rank, &ranked, rows, &mut scratch));
        }
        blocks.sort_by(|a, b| (a.hour.day(), &a.account, a.hour).cmp(&(b.hour.day(), &b.account, b.hour)));
        self.clear();
        blocks
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.group_of.clear();
        self.slots.clear();
        self.table.fill(0);
        self.v6 = Pool::default();
        self.packet_addrs = Pool::default();
        self.units.clear();
        self.calls_held = 0;
        self.calls_of.clear();
        self.calls_recent = 0;
        self.recent.clear();
        self.recent_of = None;
        self.strings = Interner::default();
    }

    /// Sorts the conversations of one (interface, flow log, hour) as [`crate::hour::Conversation::order`] does.
    fn sort_group(&self, order: &mut [u32]) {
        let ip = |key: &Key, value: u32| if key.misc & V6 == 0 { Ip::v4(value) } else { Ip(self.v6.items[value as usize]) };
        order.sort_unstable_by_key(|&index| {
            let key = &self.slots[index as usize].key;
            (
                key.misc & (V6 | REJECTED),
                // IPv4, by far the most, is settled by one integer.
                if key.misc & V6 == 0 {
                    u128::from(key.server) << 73
                        | u128::from(key.ports & 0xffff) << 57
                        | u128::from(key.misc & 0xff) << 49
                        | u128::from(key.misc & SETTLED != 0) << 48
                        | u128::from(key.client) << 16
                        | u128::from(key.ports >> 16)
                } else {
                    ip(key, key.server).0
                },
                if key.misc & V6 == 0 {
                    (0, 0, false, Ip(0), 0)
                } else {
                    (key.ports as u16, (key.misc & 0xff) as u8, key.misc & SETTLED != 0, ip(key, key.client), (key.ports >> 16) as u16)
                },
                key.packet_addrs.checked_sub(1).map(|p| self.packet_addrs.items[p as usize]),
            )
        });
    }

    fn block(
        &self,
        account: u32,
        hour: i32,
        order: &[u32],
        rank: &[u32],
        ranked: &[Group],
        rows: Vec<ApiRow>,
        scratch: &mut Scratch,
    ) -> Block {
        let mut writer = crate::block::BlockWriter::new(&self.strings.items, &self.units, scratch);
        for &index in order {
            let slot = &self.slots[index as usize];
            let key = &slot.key;
            let group = &ranked[rank[key.group as usize] as usize];
            let region = self.groups[key.group as usize].region;
            let ip = |value: u32| if key.misc & V6 == 0 { Ip::v4(value) } else { Ip(self.v6.items[value as usize]) };
            writer.conversation(&crate::block::Row {
                eni: group.eni,
                flow_log: group.flow_log,
                region,
                rejected: key.misc & REJECTED != 0,
                protocol: key.misc as u8,
                settled: key.misc & SETTLED != 0,
                client: ip(key.client),
                server: ip(key.server),
                client_port: (key.ports >> 16) as u16,
                server_port: key.ports as u16,
                packet_addrs: key.packet_addrs.checked_sub(1).map(|p| self.packet_addrs.items[p as usize]),
                ahead: crate::hour::Traffic {
                    flows: slot.ahead_flows,
                    flags: slot.ahead_flags,
                    packets: slot.ahead_packets,
                    bytes: slot.ahead_bytes,
                },
                back: crate::hour::Traffic {
                    flows: slot.back_flows,
                    flags: slot.back_flags,
                    packets: slot.back_packets,
                    bytes: slot.back_bytes,
                },
                first: slot.first,
                last: slot.last,
                ours_client: slot.ours & 1 != 0,
                ours_server: slot.ours & 2 != 0,
                seen: &slot.seen[..usize::from(slot.seen_count)],
            });
        }
        writer.calls(rows);
        writer.finish(self.strings.items.get(account as usize).map_or("", |a| a), Hour(hour))
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
        let c = u64::from(self.packet_addrs) << 32 | u64::from(self.misc & IDENTITY);
        let h = fold(a ^ 0x9e37_79b9_7f4a_7c15 ^ seed, b ^ 0xd1b5_4a32_d192_ed03 ^ c.rotate_left(17));
        fold(h ^ seed, 0xa24b_aed4_963e_e407)
    }
}

impl Slot {
    /// Notes that unit `index` has this conversation from `line` on; keeps the three smallest by unit identity.
    fn see(&mut self, units: &[UnitId], index: u32, line: u32) {
        let count = usize::from(self.seen_count);
        if let Some(mine) = self.seen[..count].iter_mut().find(|s| units[s.0 as usize] == units[index as usize]) {
            mine.1 = mine.1.min(line);
            return;
        }
        let at = self.seen[..count].iter().position(|s| units[index as usize] < units[s.0 as usize]).unwrap_or(count);
        if at < 3 {
            let end = count.min(2);
            self.seen.copy_within(at..end, at + 1);
            self.seen[at] = (index, line);
            self.seen_count = (count + 1).min(3) as u8;
        }
    }
}

/// Seconds as the slot keeps them: 1970 to 2106, clamped.
fn seconds(time: i64) -> u32 {
    time.clamp(0, i64::from(u32::MAX)) as u32
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
    recent: Vec<u32>,
}

/// Texts that are remembered as recent; a power of two.
const RECENT: usize = 1 << 12;

impl Interner {
    fn index(&mut self, text: &str) -> u32 {
        let (Some(first), Some(last)) = (text.as_bytes().first_chunk(), text.as_bytes().last_chunk()) else {
            return self.hashed(text);
        };
        if self.recent.is_empty() {
            self.recent.resize(RECENT, NONE);
        }
        let ends = u64::from_le_bytes(*first).rotate_left(29) ^ u64::from_le_bytes(*last) ^ text.len() as u64;
        let place = (ends.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % RECENT;
        let known = self.recent[place];
        if self.items.get(known as usize).is_some_and(|item| &**item == text) {
            return known;
        }
        let index = self.hashed(text);
        self.recent[place] = index;
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

/// Distinct values, numbered in order of first sight.
#[derive(Debug)]
struct Pool<T> {
    items: Vec<T>,
    of: HashMap<T, u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { items: Vec::new(), of: HashMap::new() }
    }
}

impl<T: Copy + Eq + std::hash::Hash> Pool<T> {
    fn index(&mut self, value: T) -> u32 {
        *self.of.entry(value).or_insert_with(|| {
            self.items.push(value);
            (self.items.len() - 1) as u32
        })
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
            0..1000u64,
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
        let mut blocks = Vec::new();
        for n in order {
            let of_unit: Vec<&Record> = records.iter().filter(|r| r.unit == *n).collect();
            let mut names = Names::default();
            let batch = batch(&of_unit, &mut names);
            summer.add(&unit(*n), &batch, &names, &mut FlowCounts::default());
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
            let packet = r.packet.then(|| if from_server { (201, 200) } else { (200, 201) });
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
            *(if from_server { &mut sum.1 } else { &mut sum.0 }) += r.bytes;
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
                    let packet = c.packet_addrs.map(|(a, b)| (a.0 as u8, b.0 as u8));
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
    fn texts_with_equal_ends_are_told_apart() {
        let mut texts = Interner::default();
        // Of one length and with one beginning and end: all in one place of the recent ones. Short texts have none.
        let text = |n: u32| if n % 2 == 0 { format!("arn:aws:{n:06}:function") } else { format!("{n}") };
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
