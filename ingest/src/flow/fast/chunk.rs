//! Up to 64 lines, column by column.

use std::ops::Range;

use super::ROWS;
use super::isa::{Isa, Job, Lanes, digits8};
use super::plan::{Plan, THERE};
use crate::flow::batch::{ABSENT, FlowBatch, marks};
use crate::flow::layout::{HOT, Hot};
use crate::flow::names::Interner;
use crate::ip::Ip;

/// The lines of a run as the parser sees them.
#[derive(Copy, Clone)]
pub(in crate::flow) struct Run<'a> {
    /// The text that positions refer to.
    pub text: &'a [u8],
    /// The separator before the first line, then those of all lines: `rows * columns + 1` positions.
    pub separators: &'a [u32],
    /// Lines, at most [`ROWS`].
    pub rows: usize,
}

impl<'a> Run<'a> {
    /// Where the columns `first..=last` of all lines begin and end.
    #[inline(always)]
    fn spans(self, columns: usize, first: usize, last: usize) -> impl Iterator<Item = (usize, usize)> + 'a {
        let starts = self.separators.iter().skip(first).step_by(columns);
        let ends = self.separators.iter().skip(last + 1).step_by(columns);
        starts.zip(ends).take(self.rows.min(ROWS)).map(|(a, b)| (a.wrapping_add(1) as usize, *b as usize))
    }

    /// Where one column of one line begins and ends.
    pub(in crate::flow) fn span(self, columns: usize, row: usize, column: usize) -> (usize, usize) {
        let at = row * columns + column;
        let position = |at: usize| self.separators.get(at).copied().unwrap_or_default();
        (position(at).wrapping_add(1) as usize, position(at + 1) as usize)
    }

    /// Where every column of some lines begins and ends.
    pub(in crate::flow) fn cells(self, columns: usize, rows: Range<usize>, cells: &mut Vec<(u32, u32)>) {
        let inside = self.separators.get(rows.start * columns..=rows.end * columns).unwrap_or_default();
        cells.extend(inside.windows(2).map(|pair| (pair[0].wrapping_add(1), pair[1])));
    }

    fn field(self, columns: usize, row: usize, column: usize) -> &'a [u8] {
        let (from, to) = self.span(columns, row, column);
        self.text.get(from..to).unwrap_or_default()
    }
}

/// The columns of one run.
pub(in crate::flow) struct Chunk {
    /// Rows that the plain path has to read.
    pub bad: u64,
    /// Per hot column the rows that have no value there.
    absent: [u64; HOT],
    /// Rows whose sticky columns have the very bytes of the row before.
    same: u64,
    numbers: [[u64; ROWS]; 8],
    addresses: [[u32; ROWS]; 4],
    /// Rows that bear a word: see `marks` of the same names.
    reject: u64,
    nodata: u64,
    skipdata: u64,
    egress: u64,
    ingress: u64,
    /// Account and interface of the row appended last.
    last: (u32, u32),
}

/// Index into `Chunk::numbers`.
const fn number_slot(hot: Hot) -> usize {
    match hot {
        Hot::SrcPort => 0,
        Hot::DstPort => 1,
        Hot::Protocol => 2,
        Hot::Packets => 3,
        Hot::Bytes => 4,
        Hot::Start => 5,
        Hot::End => 6,
        _ => 7, // tcp-flags
    }
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

/// `N` bytes of the text; zeros, which are no value of any kind, where it has not so many.
#[inline(always)]
fn bytes<const N: usize>(text: &[u8], at: usize) -> [u8; N] {
    text.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

impl Chunk {
    pub(in crate::flow) fn new() -> Self {
        Self {
            bad: 0,
            absent: [0; HOT],
            same: 0,
            numbers: [[0; ROWS]; 8],
            addresses: [[0; ROWS]; 4],
            reject: 0,
            nodata: 0,
            skipdata: 0,
            egress: 0,
            ingress: 0,
            last: (ABSENT, ABSENT),
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
        self.sticky(plan, run);
        for (hot, column) in &plan.work {
            match hot {
                Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst => self.address(lanes, plan, run, *hot, *column),
                Hot::Start | Hot::End => self.time(lanes, plan, run, *hot, *column, limit),
                Hot::SrcPort | Hot::DstPort | Hot::TcpFlags => self.number(plan, run, *hot, *column, u64::from(u16::MAX)),
                Hot::Protocol => self.number(plan, run, *hot, *column, u64::from(u8::MAX)),
                Hot::Packets | Hot::Bytes => self.number(plan, run, *hot, *column, i64::MAX as u64),
                Hot::Action => self.action(plan, run, *column),
                Hot::LogStatus => self.log_status(plan, run, *column),
                Hot::Direction => self.direction(plan, run, *column),
                Hot::Version | Hot::Account | Hot::Interface => {}
            }
        }
    }

    /// Which rows repeat the sticky columns of the row before; the version of the others is checked.
    #[inline(always)]
    fn sticky(&mut self, plan: &Plan, run: Run<'_>) {
        self.same = u64::MAX << 1;
        for (first, last) in &plan.sticky {
            let mut before: &[u8] = &[];
            for (row, (from, to)) in run.spans(plan.columns, *first, *last).enumerate() {
                let bytes = run.text.get(from..to).unwrap_or_default();
                self.same &= !(u64::from(!equal(bytes, before)) << row);
                before = bytes;
            }
        }
        if let Some(column) = plan.version {
            let mut differ = !self.same & all(run.rows);
            while differ != 0 {
                let row = differ.trailing_zeros() as usize;
                differ &= differ - 1;
                let version = run.field(plan.columns, row, column);
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

    #[inline(always)]
    fn address<L: Lanes>(&mut self, lanes: L, plan: &Plan, run: Run<'_>, hot: Hot, column: usize) {
        let out = &mut self.addresses[address_slot(hot)];
        let mut failed = 0u64;
        for ((row, (from, to)), out) in run.spans(plan.columns, column, column).enumerate().zip(out.iter_mut()) {
            let (address, ok) = lanes.ipv4(&bytes(run.text, from), (to - from) as u32);
            *out = address;
            failed |= u64::from(!ok | (to - from > 15)) << row;
        }
        if failed != 0 {
            self.failures(plan, run, hot, column, failed);
        }
    }

    #[inline(always)]
    fn number(&mut self, plan: &Plan, run: Run<'_>, hot: Hot, column: usize, max: u64) {
        let out = &mut self.numbers[number_slot(hot)];
        let mut failed = 0u64;
        for ((row, (from, to)), out) in run.spans(plan.columns, column, column).enumerate().zip(out.iter_mut()) {
            let (number, ok) = digits8(bytes(run.text, to - 8), (to - from) as u32);
            *out = number;
            failed |= u64::from(!ok | (number > max)) << row;
        }
        // Longer numbers are rare: more than 100 MB in one record.
        let mut left = if max > u64::from(u16::MAX) { failed } else { 0 };
        while left != 0 {
            let row = left.trailing_zeros() as usize;
            if let Some(number) = exact(run.field(plan.columns, row, column), max) {
                self.numbers[number_slot(hot)][row] = number;
                failed &= !(1 << row);
            }
            left &= left - 1;
        }
        if failed != 0 {
            self.failures(plan, run, hot, column, failed);
        }
    }

    #[inline(always)]
    fn time<L: Lanes>(&mut self, lanes: L, plan: &Plan, run: Run<'_>, hot: Hot, column: usize, limit: i64) {
        // Milliseconds, and what is out of range, are left to the plain path.
        let limit = limit.clamp(-1, crate::flow::plain::SECONDS_MAX);
        let out = &mut self.numbers[number_slot(hot)];
        let mut failed = 0u64;
        for ((row, (from, to)), out) in run.spans(plan.columns, column, column).enumerate().zip(out.iter_mut()) {
            let (number, ok) = lanes.digits16(&bytes(run.text, to - 16), (to - from) as u32);
            *out = number;
            failed |= u64::from(!ok | (number as i64 > limit)) << row;
        }
        if failed != 0 {
            self.failures(plan, run, hot, column, failed);
        }
    }

    #[inline(always)]
    fn action(&mut self, plan: &Plan, run: Run<'_>, column: usize) {
        let (mut reject, mut failed) = (0u64, 0u64);
        for (row, (from, to)) in run.spans(plan.columns, column, column).enumerate() {
            let word = u64::from_le_bytes(bytes(run.text, from)) & 0xffff_ffff_ffff;
            let is_reject = word == u64::from_le_bytes(*b"REJECT\0\0");
            let is_accept = word == u64::from_le_bytes(*b"ACCEPT\0\0");
            reject |= u64::from(is_reject) << row;
            failed |= u64::from(!(is_accept | is_reject) | (to - from != 6)) << row;
        }
        self.reject = reject & !failed;
        if failed != 0 {
            self.failures(plan, run, Hot::Action, column, failed);
        }
    }

    #[inline(always)]
    fn log_status(&mut self, plan: &Plan, run: Run<'_>, column: usize) {
        let mut failed = 0u64;
        for (row, (from, to)) in run.spans(plan.columns, column, column).enumerate() {
            let ok = bytes(run.text, from) == *b"OK";
            failed |= u64::from(!ok | (to - from != 2)) << row;
        }
        let mut left = failed;
        while left != 0 {
            let bit = left & left.wrapping_neg();
            match run.field(plan.columns, left.trailing_zeros() as usize, column) {
                b"NODATA" => (self.nodata, failed) = (self.nodata | bit, failed & !bit),
                b"SKIPDATA" => (self.skipdata, failed) = (self.skipdata | bit, failed & !bit),
                _ => {}
            }
            left &= left - 1;
        }
        if failed != 0 {
            self.failures(plan, run, Hot::LogStatus, column, failed);
        }
    }

    #[inline(always)]
    fn direction(&mut self, plan: &Plan, run: Run<'_>, column: usize) {
        let (mut egress, mut ingress) = (0u64, 0u64);
        for (row, (from, to)) in run.spans(plan.columns, column, column).enumerate() {
            let word = u64::from_le_bytes(bytes(run.text, from));
            let is_egress = (word & 0xffff_ffff_ffff == u64::from_le_bytes(*b"egress\0\0")) & (to - from == 6);
            let is_ingress = (word & 0xff_ffff_ffff_ffff == u64::from_le_bytes(*b"ingress\0")) & (to - from == 7);
            egress |= u64::from(is_egress) << row;
            ingress |= u64::from(is_ingress) << row;
        }
        (self.egress, self.ingress) = (egress, ingress);
    }

    /// Tells values that are `-` from those the plain path has to look at.
    #[cold]
    #[inline(never)]
    fn failures(&mut self, plan: &Plan, run: Run<'_>, hot: Hot, column: usize, failed: u64) {
        let mut left = failed;
        while left != 0 {
            let row = left.trailing_zeros() as usize;
            if run.field(plan.columns, row, column) == b"-" {
                self.absent[hot as usize] |= 1 << row;
                match hot {
                    Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst => self.addresses[address_slot(hot)][row] = 0,
                    Hot::Action | Hot::LogStatus => {}
                    _ => self.numbers[number_slot(hot)][row] = 0,
                }
            } else {
                self.bad |= 1 << row;
            }
            left &= left - 1;
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
        for row in rows.clone() {
            if row == rows.start || self.same >> row & 1 == 0 {
                match self.names(plan, run, row, names) {
                    Some(found) => self.last = found,
                    None => break,
                }
            }
            batch.account.push(self.last.0);
            batch.interface.push(self.last.1);
        }
        let taken = batch.account.len() - before;
        let rows = rows.start..rows.start + taken;
        let base = batch.marks.len();
        self.marks(rows.clone(), batch);
        batch.line.extend((0..taken as u64).map(|n| u32::try_from(line + n).unwrap_or(u32::MAX)));
        batch.src.extend_from_slice(&self.addresses[0][rows.clone()]);
        batch.dst.extend_from_slice(&self.addresses[1][rows.clone()]);
        let number = |hot: Hot| &self.numbers[number_slot(hot)][rows.clone()];
        batch.ports.extend(number(Hot::SrcPort).iter().zip(number(Hot::DstPort)).map(|(s, d)| (*s as u32) << 16 | *d as u32));
        batch.protocol.extend(number(Hot::Protocol).iter().map(|n| *n as u8));
        batch.tcp_flags.extend(number(Hot::TcpFlags).iter().map(|n| *n as u8));
        batch.packets.extend_from_slice(number(Hot::Packets));
        batch.bytes.extend_from_slice(number(Hot::Bytes));
        batch.start.extend(number(Hot::Start).iter().map(|n| *n as i64));
        batch.end.extend(number(Hot::End).iter().map(|n| *n as i64));
        self.packet_addresses(rows, base, batch);
        taken
    }

    /// Account and interface of a row; `None` if they are no text.
    fn names(&self, plan: &Plan, run: Run<'_>, row: usize, names: &mut Interner<'_>) -> Option<(u32, u32)> {
        let text = |column: Option<usize>| match column.map(|c| run.field(plan.columns, row, c)) {
            None | Some(b"-") => Some(None),
            Some(bytes) => std::str::from_utf8(bytes).ok().map(Some),
        };
        let (account, interface) = (text(plan.account)?, text(plan.interface)?);
        Some((names.account(account.filter(|a| *a != "unknown")), names.interface(interface)))
    }

    /// Appends the marks of some rows, and blanks the addresses of those that have only one.
    fn marks(&mut self, rows: Range<usize>, batch: &mut FlowBatch) {
        let some = all(rows.len()) << rows.start;
        let mut every = 0;
        let mut mixed: [(u16, u64); 10] = [(0, 0); 10];
        let words = [(marks::REJECT, self.reject), (marks::NODATA, self.nodata), (marks::SKIPDATA, self.skipdata)];
        let ways = [(marks::EGRESS, self.egress), (marks::INGRESS, self.ingress)];
        let there = THERE.map(|(mark, a, b)| (mark, !(self.absent[a as usize] | self.absent[b as usize])));
        let mut count = 0;
        for (mark, bits) in words.into_iter().chain(ways).chain(there) {
            match bits & some {
                0 => {}
                bits if bits == some => every |= mark,
                bits => {
                    mixed[count] = (mark, bits);
                    count += 1;
                }
            }
        }
        let base = batch.marks.len();
        batch.marks.resize(base + rows.len(), every);
        for (mark, bits) in &mixed[..count] {
            for (row, marks) in rows.clone().zip(&mut batch.marks[base..]) {
                *marks |= mark * (bits >> row & 1) as u16;
            }
        }
        let mut half = (self.absent[Hot::Src as usize] | self.absent[Hot::Dst as usize]) & some;
        while half != 0 {
            let row = half.trailing_zeros() as usize;
            (self.addresses[0][row], self.addresses[1][row]) = (0, 0);
            half &= half - 1;
        }
    }

    /// Inner addresses that differ from the outer ones.
    fn packet_addresses(&self, rows: Range<usize>, base: usize, batch: &mut FlowBatch) {
        let absent = |hot: Hot| self.absent[hot as usize];
        if absent(Hot::PktSrc) & absent(Hot::PktDst) == u64::MAX {
            return;
        }
        let [src, dst, pkt_src, pkt_dst] = &self.addresses;
        for (at, row) in rows.enumerate() {
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

/// Equality of short byte strings, without a call: names and ids have 12 to 40 bytes.
#[inline(always)]
fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.last_chunk::<16>(), b.last_chunk::<16>()) {
        (Some(x), Some(y)) => {
            let (heads, _) = a.as_chunks::<16>();
            let (others, _) = b.as_chunks::<16>();
            let mut differ = u128::from_ne_bytes(*x) ^ u128::from_ne_bytes(*y);
            for (x, y) in heads.iter().zip(others) {
                differ |= u128::from_ne_bytes(*x) ^ u128::from_ne_bytes(*y);
            }
            differ == 0
        }
        _ => a == b,
    }
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
