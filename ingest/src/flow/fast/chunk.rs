//! Up to 64 lines, column by column.

use std::ops::Range;

use super::ROWS;
use super::isa::{Fields, Isa, Job, Lanes, SLOTS};
use super::plan::{Plan, Slot};
use super::run::Run;
use crate::flow::batch::{FlowBatch, marks};
use crate::flow::layout::{HOT, Hot, THERE};
use crate::flow::names::Interner;
use crate::flow::plain::SECONDS_MAX;
use crate::ip::Ip;

/// The columns of one run.
pub(in crate::flow) struct Chunk {
    /// Rows that the plain path has to read.
    pub bad: u64,
    /// Per hot column the rows that have no value there.
    absent: [u64; HOT],
    /// Rows whose inner addresses have the very bytes of the outer ones.
    inner_same: u64,
    /// Rows whose sticky columns have the very bytes of the row before.
    same: u64,
    fields: Fields,
    addresses: [[u32; ROWS]; 4],
    /// As in a batch.
    marks: [u16; ROWS],
    ports: [u32; ROWS],
    protocol: [u8; ROWS],
    tcp_flags: [u8; ROWS],
    /// Rows that bear a word: see `marks` of the same names.
    reject: u64,
    nodata: u64,
    skipdata: u64,
    egress: u64,
    ingress: u64,
}

/// Index into `Chunk::addresses`.
const fn address_slot(hot: Hot) -> usize {
    match hot {
        Hot::Src => 0,
        Hot::Dst => 1,
        Hot::PktSrc => 2,
        _ => 3,
    }
}

impl Chunk {
    pub(in crate::flow) fn new() -> Self {
        Self {
            bad: 0,
            absent: [0; HOT],
            inner_same: 0,
            same: 0,
            fields: Fields::new(),
            addresses: [[0; ROWS]; 4],
            marks: [0; ROWS],
            ports: [0; ROWS],
            protocol: [0; ROWS],
            tcp_flags: [0; ROWS],
            reject: 0,
            nodata: 0,
            skipdata: 0,
            egress: 0,
            ingress: 0,
        }
    }

    /// Converts the columns of a run. `limit` is the last second a record may bear.
    pub(in crate::flow) fn convert(&mut self, isa: Isa, plan: &Plan, run: Run<'_>, limit: i64) {
        isa.run(Convert { chunk: self, plan, run, limit });
    }

    #[inline(always)]
    fn convert_with<L: Lanes>(&mut self, lanes: L, plan: &Plan, run: Run<'_>, limit: i64) {
        self.bad = 0;
        self.absent = plan.lacking;
        (self.reject, self.nodata, self.skipdata, self.egress, self.ingress) = (0, 0, 0, 0, 0);
        self.sticky(lanes, plan, run);
        for (hot, column) in &plan.addresses {
            let failed = lanes.addresses(run, *column, &mut self.addresses[address_slot(*hot)]);
            self.failures(plan, run, *hot, *column, failed);
        }
        for (pair, column) in &plan.pairs {
            self.pair(lanes, plan, run, *pair, *column, all(run.rows));
        }
        self.inner(lanes, plan, run);
        lanes.fields(run, &plan.slots, &mut self.fields);
        self.settle(plan, run, limit);
        self.finish(plan);
    }

    /// Converts two neighbouring columns of addresses in some rows.
    #[inline(always)]
    fn pair<L: Lanes>(&mut self, lanes: L, plan: &Plan, run: Run<'_>, [first, second]: [Hot; 2], column: usize, rows: u64) {
        if let Ok([a, b]) = self.addresses.get_disjoint_mut([address_slot(first), address_slot(second)]) {
            let failed = lanes.address_pairs(run, column, rows, a, b) & rows;
            self.failures(plan, run, first, column, failed);
            self.failures(plan, run, second, column + 1, failed);
        }
    }

    /// Inner addresses: those that repeat the outer ones, which were read before, are not read again.
    #[inline(always)]
    fn inner<L: Lanes>(&mut self, lanes: L, plan: &Plan, run: Run<'_>) {
        self.inner_same = 0;
        let Some([outer, inner]) = plan.inner else { return };
        let mut same = 0u64;
        run.each(outer, outer + 1, |row, from, to| {
            let (inner_from, _) = run.span(row, inner);
            let (_, inner_to) = run.span(row, inner + 1);
            let alike = (to - from == inner_to.wrapping_sub(inner_from))
                & (to - from <= 64)
                & lanes.same(run.block(from), run.block(inner_from), to - from);
            same |= u64::from(alike) << row;
        });
        // Also where the outer ones are no IPv4 addresses: such a row is bad, or has none.
        self.inner_same = same & all(run.rows);
        let rest = all(run.rows) & !self.inner_same;
        if rest != 0 {
            self.pair(lanes, plan, run, [Hot::PktSrc, Hot::PktDst], inner, rest);
        }
    }

    /// What follows from the values of numbers and words.
    #[inline(always)]
    fn settle(&mut self, plan: &Plan, run: Run<'_>, limit: i64) {
        let rows = all(run.rows);
        for (at, slot) in plan.slots.list.iter().enumerate().take(SLOTS) {
            let (mut failed, second) = (self.fields.failed[at] & rows, self.fields.second[at] & rows);
            match slot.hot {
                // The upper half of a time: the lower half has its failures.
                _ if slot.skip > 0 => {
                    let lower = plan.slot_of[slot.hot as usize];
                    self.times(plan, run, slot, [lower, at], limit, failed | (self.fields.failed[lower] & rows));
                    continue;
                }
                Hot::Start | Hot::End => continue,
                Hot::Direction => {
                    // Metadata is best effort: another word is as good as none.
                    (self.egress, self.ingress) = (second & !failed, !second & !failed & rows);
                    continue;
                }
                Hot::Action => self.reject = second & !failed,
                Hot::LogStatus => self.nodata = second & !failed,
                _ => failed |= over(&self.fields.values[at], slot.max) & rows,
            }
            self.failures(plan, run, slot.hot, slot.column as usize, failed);
        }
    }

    /// Puts the halves of a time together, in the place of the lower one.
    #[inline(always)]
    fn times(&mut self, plan: &Plan, run: Run<'_>, slot: &Slot, [lower, upper]: [usize; 2], limit: i64, mut failed: u64) {
        if let Ok([lower, upper]) = self.fields.values.get_disjoint_mut([lower, upper]) {
            for (time, upper) in lower.iter_mut().zip(upper) {
                *time += *upper * 100_000_000;
            }
            // Milliseconds, and what is out of range, are left to the plain path.
            // (Not `map_or`: a closure given to a function of the library would be compiled for any machine.)
            failed |= match u64::try_from(limit.min(SECONDS_MAX)) {
                Ok(limit) => over(lower, limit) & all(run.rows),
                Err(_) => all(run.rows),
            };
        }
        self.failures(plan, run, slot.hot, slot.column as usize, failed);
    }

    /// Which rows repeat the sticky columns of the row before; the version of the others is checked.
    #[inline(always)]
    fn sticky<L: Lanes>(&mut self, lanes: L, plan: &Plan, run: Run<'_>) {
        self.same = u64::MAX << 1;
        for (first, last) in &plan.sticky {
            let (mut before, mut before_len, mut differ) = (&[0; 64], 0, 0u64);
            run.each(*first, *last, |row, from, to| {
                let here = run.block(from);
                let same = (to - from == before_len) & (to - from <= 64) & lanes.same(here, before, to - from);
                differ |= u64::from(!same) << row;
                (before, before_len) = (here, to - from);
            });
            self.same &= !differ;
        }
        if let Some(column) = plan.version {
            let mut differ = !self.same & all(run.rows);
            while differ != 0 {
                let row = differ.trailing_zeros() as usize;
                differ &= differ - 1;
                let version = run.field(row, column);
                if version != b"-" && exact(version, i32::MAX as u64).is_none() {
                    self.bad |= 1 << row;
                }
            }
            // A row like a bad one is bad itself.
            let mut bad = self.bad;
            while bad != 0 {
                let row = bad.trailing_zeros();
                let alike = (self.same >> row >> 1).trailing_ones();
                self.bad |= (u64::MAX >> (63 - alike.min(63 - row))) << row;
                bad &= bad - 1;
            }
        }
    }

    /// Tells what failed rows have in a column: nothing (`-`), something rare that is read here, or something for the plain
    /// path.
    #[inline(always)]
    fn failures(&mut self, plan: &Plan, run: Run<'_>, hot: Hot, column: usize, failed: u64) {
        if failed != 0 {
            self.look_at(plan, run, hot, column, failed);
        }
    }

    #[cold]
    #[inline(never)]
    fn look_at(&mut self, plan: &Plan, run: Run<'_>, hot: Hot, column: usize, mut failed: u64) {
        while failed != 0 {
            let row = failed.trailing_zeros() as usize;
            failed &= failed - 1;
            let bit = 1 << row;
            let value = run.field(row, column);
            if value == b"-" {
                self.absent[hot as usize] |= bit;
                match hot {
                    Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst => self.addresses[address_slot(hot)][row] = 0,
                    _ => self.fields.values[plan.slot_of[hot as usize]][row] = 0,
                }
                continue;
            }
            match hot {
                Hot::LogStatus if value == b"SKIPDATA" => self.skipdata |= bit,
                // More than eight digits: 100 MB in one record.
                Hot::Packets | Hot::Bytes => match exact(value, i64::MAX as u64) {
                    Some(number) => self.fields.values[plan.slot_of[hot as usize]][row] = number,
                    None => self.bad |= bit,
                },
                _ => self.bad |= bit,
            }
        }
    }

    /// Appends rows without a bad one among them to the batch, up to the first whose names are no text: that is one for
    /// the plain path. Returns how many.
    pub(in crate::flow) fn append(
        &mut self,
        plan: &Plan,
        run: Run<'_>,
        rows: Range<usize>,
        line: u64,
        names: &mut Interner<'_>,
        batch: &mut FlowBatch,
    ) -> usize {
        let before = batch.account.len();
        let mut row = rows.start;
        while row < rows.end {
            let Some((account, interface)) = self.names(plan, run, row, names) else { break };
            let alike = 1 + (self.same >> row >> 1).trailing_ones() as usize;
            let alike = alike.min(rows.end - row);
            batch.account.resize(batch.account.len() + alike, account);
            batch.interface.resize(batch.interface.len() + alike, interface);
            row += alike;
        }
        let taken = batch.account.len() - before;
        let rows = rows.start..rows.start + taken;
        let base = batch.marks.len();
        batch.marks.extend_from_slice(&self.marks[rows.clone()]);
        batch.line.extend((0..taken as u64).map(|n| u32::try_from(line + n).unwrap_or(u32::MAX)));
        batch.src.extend_from_slice(&self.addresses[0][rows.clone()]);
        batch.dst.extend_from_slice(&self.addresses[1][rows.clone()]);
        let number = |hot: Hot| &self.fields.values[plan.slot_of[hot as usize]][rows.clone()];
        batch.ports.extend_from_slice(&self.ports[rows.clone()]);
        batch.protocol.extend_from_slice(&self.protocol[rows.clone()]);
        batch.tcp_flags.extend_from_slice(&self.tcp_flags[rows.clone()]);
        batch.packets.extend_from_slice(number(Hot::Packets));
        batch.bytes.extend_from_slice(number(Hot::Bytes));
        batch.start.extend(number(Hot::Start).iter().map(|n| *n as i64));
        batch.end.extend(number(Hot::End).iter().map(|n| *n as i64));
        self.packet_addresses(rows, base, batch);
        taken
    }

    /// Account and interface of a row; `None` if they are no text.
    fn names(&self, plan: &Plan, run: Run<'_>, row: usize, names: &mut Interner<'_>) -> Option<(u32, u32)> {
        let field = |column: Option<usize>| column.map(|c| run.field(row, c)).filter(|bytes| *bytes != b"-");
        names.both(field(plan.account).filter(|account| *account != b"unknown"), field(plan.interface))
    }

    /// Marks and small numbers of all rows, as a batch has them.
    #[inline(always)]
    fn finish(&mut self, plan: &Plan) {
        let words = [(marks::REJECT, self.reject), (marks::NODATA, self.nodata), (marks::SKIPDATA, self.skipdata)];
        let ways = [(marks::EGRESS, self.egress), (marks::INGRESS, self.ingress)];
        let there = THERE.map(|(mark, a, b)| (mark, !(self.absent[a as usize] | self.absent[b as usize])));
        let every =
            words.iter().chain(&ways).chain(&there).fold(0, |every, (mark, rows)| every | if *rows == u64::MAX { *mark } else { 0 });
        self.marks = [every; ROWS];
        for (mark, rows) in words.into_iter().chain(ways).chain(there).filter(|(_, rows)| *rows != 0 && *rows != u64::MAX) {
            for (row, marks) in self.marks.iter_mut().enumerate() {
                *marks |= mark * (rows >> row & 1) as u16;
            }
        }
        // An address without the other is none.
        let mut half = self.absent[Hot::Src as usize] | self.absent[Hot::Dst as usize];
        while half != 0 {
            let row = half.trailing_zeros() as usize;
            (self.addresses[0][row], self.addresses[1][row]) = (0, 0);
            half &= half - 1;
        }
        let number = |hot: Hot| &self.fields.values[plan.slot_of[hot as usize]];
        let (src, dst) = (number(Hot::SrcPort), number(Hot::DstPort));
        for (ports, (src, dst)) in self.ports.iter_mut().zip(src.iter().zip(dst)) {
            *ports = (*src as u32) << 16 | *dst as u32;
        }
        for (small, hot) in [(&mut self.protocol, Hot::Protocol), (&mut self.tcp_flags, Hot::TcpFlags)] {
            for (small, number) in small.iter_mut().zip(number(hot)) {
                *small = *number as u8;
            }
        }
    }

    /// Inner addresses that differ from the outer ones.
    fn packet_addresses(&self, rows: Range<usize>, base: usize, batch: &mut FlowBatch) {
        let absent = |hot: Hot| self.absent[hot as usize];
        if absent(Hot::PktSrc) & absent(Hot::PktDst) == u64::MAX {
            return;
        }
        let [src, dst, pkt_src, pkt_dst] = &self.addresses;
        let mut left = all(rows.len()) << rows.start & !self.inner_same;
        while left != 0 {
            let row = left.trailing_zeros() as usize;
            left &= left - 1;
            let at = row - rows.start;
            let inner = |outer: u32, inner: u32, hot: Hot| if absent(hot) >> row & 1 == 1 { outer } else { inner };
            let pair = (inner(src[row], pkt_src[row], Hot::PktSrc), inner(dst[row], pkt_dst[row], Hot::PktDst));
            if pair != (src[row], dst[row]) && (absent(Hot::Src) | absent(Hot::Dst)) >> row & 1 == 0 {
                batch.marks[base + at] |= marks::PKT;
                batch.packet_addrs.push(((base + at) as u32, Ip::v4(pair.0), Ip::v4(pair.1)));
            }
        }
    }
}

struct Convert<'a> {
    chunk: &'a mut Chunk,
    plan: &'a Plan,
    run: Run<'a>,
    limit: i64,
}

impl Job for Convert<'_> {
    type Done = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        self.chunk.convert_with(lanes, self.plan, self.run, self.limit);
    }
}

/// The lowest `rows` bits.
fn all(rows: usize) -> u64 {
    if rows >= 64 { u64::MAX } else { (1 << rows) - 1 }
}

/// The rows with a greater value. There is mostly none, which is quickly known.
#[inline(always)]
fn over(values: &[u64; ROWS], max: u64) -> u64 {
    if values.iter().fold(0, |most, value| most.max(*value)) <= max {
        return 0;
    }
    values.iter().enumerate().fold(0, |rows, (row, value)| rows | u64::from(*value > max) << row)
}

/// A whole number of at most 19 digits, up to `max`.
fn exact(digits: &[u8], max: u64) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number = 0u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    (number <= max).then_some(number)
}
