//! The `flows` table, when asked for: every record, written by the reader straight from the batch, with the names that
//! are known when flow logs are read. `replay` has read every fact by then.
//!
//! A thread's writer is emptied with every flush, so that a file holds rows of the units of that flush only and goes
//! into the commit that has those units: a crash neither loses rows nor writes them twice.

use std::borrow::Cow;
use std::ops::Range;

use anyhow::Result;
use flowtrail_enrich::{AddressBook, Attribution, Timelines};
use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::batch::{ABSENT, marks};
use flowtrail_ingest::{EventTime, FlowBatch, Ip};
use flowtrail_sink::TableFile;
use flowtrail_sink::tables::{FlowNames, FlowsWriter, Symbol, Symbols};
use hashbrown::HashMap;

use crate::reader::UnitMeta;

/// Finished files that a thread holds before it flushes.
const FILES_BYTES_MAX: usize = 64 << 20;
/// Names of one unit that are remembered; beyond, they are looked up again.
const NAMES_MAX: usize = 1 << 18;

/// The table of one call: what names are looked up in.
pub struct FlowsTable<'a> {
    /// Who held what, from every fact known when flow logs are read.
    pub timelines: &'a Timelines,
    /// Names of addresses outside.
    pub book: &'a AddressBook,
    /// Records that end before are left out, as from all else.
    pub from: EventTime,
    /// Records that end at this moment or later are left out.
    pub to: EventTime,
}

impl<'a> FlowsTable<'a> {
    /// The writer of one thread.
    #[must_use]
    pub fn writer(&'a self) -> ThreadFlows<'a> {
        ThreadFlows { table: self, writer: FlowsWriter::default(), names: UnitNames::default(), files: Vec::new(), bytes: 0, failed: None }
    }
}

/// The rows of one reader thread between two flushes.
pub struct ThreadFlows<'a> {
    table: &'a FlowsTable<'a>,
    writer: FlowsWriter,
    names: UnitNames,
    files: Vec<TableFile>,
    bytes: usize,
    failed: Option<anyhow::Error>,
}

impl ThreadFlows<'_> {
    /// The batches that follow are of this unit.
    pub fn begin(&mut self, meta: &UnitMeta, otherwise: EventTime) {
        self.writer.begin(&meta.key, meta.delivered_at.unwrap_or(otherwise));
        self.names.clear();
    }

    /// Takes in a batch that was read with all cells.
    pub fn push(&mut self, meta: &UnitMeta, rows: FlowRows<'_>) {
        let batch = within(rows, self.table.from, self.table.to);
        let rows = FlowRows { batch: &batch, ..rows };
        if self.names.ends.len() > NAMES_MAX {
            self.names.clear();
        }
        let seen = Seen::of(rows, meta.facts.account.as_deref());
        let (names, table) = (&mut self.names, self.table);
        // The writer may begin its strings anew before it takes the first row; numbers given before that are void.
        let mut begun = false;
        let pushed = self.writer.push(rows, &mut |run, symbols, into| {
            if !std::mem::replace(&mut begun, true) {
                names.begin(table, &seen, rows, symbols);
            }
            names.find(&seen, rows, run.clone());
            into.extend(run.map(|row| names.of(table, &seen, rows, row, symbols)));
        });
        match pushed {
            Ok(files) => self.keep(files),
            Err(error) => self.failed = self.failed.take().or(Some(error.into())),
        }
    }

    fn keep(&mut self, files: Vec<TableFile>) {
        self.bytes += files.iter().map(|f| f.bytes.len()).sum::<usize>();
        self.files.extend(files);
    }

    /// True when the files at hand should go.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= FILES_BYTES_MAX || self.failed.is_some()
    }

    /// All rows since the last call, as files.
    ///
    /// # Errors
    /// When a file could not be encoded, which no input should bring about.
    pub fn take(&mut self) -> Result<Vec<TableFile>> {
        let open = self.writer.finish();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.keep(open?);
        self.bytes = 0;
        Ok(std::mem::take(&mut self.files))
    }
}

/// The records that end within `[from, to)` or at no known time: the same that are counted.
fn within<'b>(rows: FlowRows<'b>, from: EventTime, to: EventTime) -> Cow<'b, FlowBatch> {
    let batch = rows.batch;
    let outside = |row: &usize| batch.marks[*row] & marks::TIMES != 0 && (batch.end[*row] < from.0 || batch.end[*row] >= to.0);
    if (from, to) == (EventTime::MIN, EventTime::MAX) || !(0..batch.rows()).any(|row| outside(&row)) {
        return Cow::Borrowed(batch);
    }
    let kept: Vec<usize> = (0..batch.rows()).filter(|row| !outside(row)).collect();
    fn pick<T: Copy>(column: &[T], kept: &[usize]) -> Vec<T> {
        kept.iter().map(|row| column[*row]).collect()
    }
    let width = rows.layout.len();
    let cells = if batch.cells.is_empty() {
        Vec::new()
    } else {
        kept.iter().flat_map(|row| batch.cells[row * width..(row + 1) * width].iter().copied()).collect()
    };
    let packet_addrs = batch.packet_addrs.iter().filter_map(|p| Some((kept.binary_search(&(p.0 as usize)).ok()? as u32, p.1, p.2)));
    Cow::Owned(FlowBatch {
        line: pick(&batch.line, &kept),
        marks: pick(&batch.marks, &kept),
        interface: pick(&batch.interface, &kept),
        account: pick(&batch.account, &kept),
        src: pick(&batch.src, &kept),
        dst: pick(&batch.dst, &kept),
        ports: pick(&batch.ports, &kept),
        protocol: pick(&batch.protocol, &kept),
        tcp_flags: pick(&batch.tcp_flags, &kept),
        packets: pick(&batch.packets, &kept),
        bytes: pick(&batch.bytes, &kept),
        start: pick(&batch.start, &kept),
        end: pick(&batch.end, &kept),
        packet_addrs: packet_addrs.collect(),
        v6: batch.v6.clone(),
        cells,
    })
}

/// A span of whole minutes, both included: coarse, so that the next batch mostly lies within it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Span {
    first: i32,
    last: i32,
}

impl Span {
    fn of(start: i64, end: i64) -> Self {
        // No time that a record may bear is too large; see `SECONDS_MAX` of the parser.
        let minute = |time: i64| time.div_euclid(60).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Self { first: minute(start.min(end)), last: minute(end) }
    }

    fn with(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    fn covers(self, other: Self) -> bool {
        self.first <= other.first && self.last >= other.last
    }

    fn ends(self) -> (EventTime, EventTime) {
        (EventTime(i64::from(self.first) * 60), EventTime(i64::from(self.last) * 60 + 59))
    }
}

/// "No such thing" among indices.
const NOWHERE: u32 = u32::MAX;

/// What one batch says of an interface in an hour.
struct SeenInterface {
    /// Number of the interface, and the hour.
    key: (u32, i32),
    /// Account of the first record that names one, else `ABSENT`.
    account: u32,
    span: Span,
    /// Addresses that all its records share: its own, where only one is left.
    shared: [Option<Ip>; 2],
}

/// What one batch says of its interfaces, hour by hour.
struct Seen<'k> {
    interfaces: Vec<SeenInterface>,
    /// For each row its place in `interfaces`, or `NOWHERE` for what is not placed.
    of_row: Vec<u32>,
    /// The account of the key, for records that name none.
    account: Option<&'k str>,
}

/// The key of a record that something can be said of: it has addresses, times and an interface, as all that is judged.
fn placed(batch: &FlowBatch, row: usize) -> Option<(u32, i32)> {
    let mark = batch.marks[row];
    let whole = mark & (marks::ADDRS | marks::TIMES) == marks::ADDRS | marks::TIMES && mark & (marks::NODATA | marks::SKIPDATA) == 0;
    (whole && batch.interface[row] != ABSENT).then(|| (batch.interface[row], EventTime(batch.end[row]).hour().0))
}

impl<'k> Seen<'k> {
    fn of(rows: FlowRows<'_>, account: Option<&'k str>) -> Self {
        let batch = rows.batch;
        let mut seen = Self { interfaces: Vec::new(), of_row: Vec::with_capacity(batch.rows()), account };
        let mut places: HashMap<(u32, i32), u32> = HashMap::new();
        // Records of one interface come in runs.
        let mut last = NOWHERE;
        for row in 0..batch.rows() {
            let Some(key) = placed(batch, row) else {
                seen.of_row.push(NOWHERE);
                continue;
            };
            let (src, dst) = (batch.src_ip(row), batch.dst_ip(row));
            let span = Span::of(batch.start[row], batch.end[row]);
            if seen.interfaces.get(last as usize).is_none_or(|known| known.key != key) {
                last = *places.entry(key).or_insert_with(|| {
                    seen.interfaces.push(SeenInterface { key, account: ABSENT, span, shared: [Some(src), Some(dst)] });
                    seen.interfaces.len() as u32 - 1
                });
            }
            seen.of_row.push(last);
            let Some(known) = seen.interfaces.get_mut(last as usize) else { continue };
            known.span = known.span.with(span);
            if known.account == ABSENT {
                known.account = batch.account[row];
            }
            for slot in &mut known.shared {
                if slot.is_some_and(|ip| ip != src && ip != dst) {
                    *slot = None;
                }
            }
        }
        seen
    }
}

/// The interface's side of a record.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Side {
    Src,
    Dst,
}

/// What is known of an interface in an hour.
#[derive(Copy, Clone)]
struct OwnEnd {
    span: Span,
    attribution: Symbol,
    function: Symbol,
    /// Name and kind of its owner, where there is one.
    name: Symbol,
    kind: Symbol,
}

/// What an address is, seen from an interface.
#[derive(Copy, Clone)]
struct OtherEnd {
    span: Span,
    /// The timeline gives it to the interface itself.
    held: bool,
    name: Symbol,
    kind: Symbol,
}

/// An interface in an hour.
struct Group {
    own: OwnEnd,
    /// The address that its records share, which is half of all that is asked for.
    shared: Option<(Ip, OtherEnd)>,
}

/// An address outside, whoever asks: name and kind, and whether somebody in the organisation may hold it.
#[derive(Copy, Clone)]
struct Loose {
    name: Symbol,
    kind: Symbol,
    held: bool,
}

/// Names of one unit: looked up once for each distinct interface and address of an hour.
#[derive(Default)]
struct UnitNames {
    generation: u64,
    by_key: HashMap<(u32, i32), u32>,
    groups: Vec<Group>,
    ends: Vec<OtherEnd>,
    /// Where in `ends` an address seen from a group is; IPv4 addresses, which are most, by group and bits in one number.
    end_of: HashMap<(u32, Ip), u32>,
    end_of_v4: HashMap<u64, u32>,
    /// For rows from `found_from` on, where the ends of source and destination are, if they were known before the first.
    found: Vec<[u32; 2]>,
    found_from: usize,
    /// The same for every unit.
    loose: HashMap<Ip, Loose>,
    /// For each interface seen in the batch at hand its place in `groups`.
    of_seen: Vec<u32>,
    src: Symbol,
    dst: Symbol,
}

/// Whom a question about an address is asked for.
#[derive(Copy, Clone)]
struct Asker<'a> {
    account: &'a str,
    eni: &'a str,
    group: u32,
    span: Span,
}

impl UnitNames {
    /// Forgets what was said of interfaces: the next unit numbers them anew.
    fn clear(&mut self) {
        self.by_key.clear();
        self.groups.clear();
        self.ends.clear();
        self.end_of.clear();
        self.end_of_v4.clear();
        self.found.clear();
    }

    /// Takes up the interfaces of a batch.
    fn begin(&mut self, table: &FlowsTable<'_>, seen: &Seen<'_>, rows: FlowRows<'_>, symbols: &mut Symbols) {
        if symbols.generation() != self.generation || self.ends.len() > NAMES_MAX {
            self.clear();
        }
        if symbols.generation() != self.generation || self.loose.len() > NAMES_MAX {
            self.loose.clear();
        }
        self.generation = symbols.generation();
        (self.src, self.dst) = (symbols.intern("src"), symbols.intern("dst"));
        self.of_seen.clear();
        for interface in &seen.interfaces {
            let place = match account(rows, seen, interface.account) {
                Some(account) => self.group(table, account, eni(rows, interface.key.0), interface, symbols),
                None => NOWHERE,
            };
            self.of_seen.push(place);
        }
    }

    fn group(&mut self, table: &FlowsTable<'_>, account: &str, eni: &str, seen: &SeenInterface, symbols: &mut Symbols) -> u32 {
        let known = self.by_key.get(&seen.key).copied();
        let span = match known.and_then(|at| self.groups.get(at as usize)) {
            Some(group) if group.own.span.covers(seen.span) => return known.unwrap_or(NOWHERE),
            Some(group) => group.own.span.with(seen.span),
            None => seen.span,
        };
        let (first, last) = span.ends();
        let found = table.timelines.attribute(account, eni, first, last);
        let exact = found.attribution == Attribution::Exact;
        let function = found.candidates.first().filter(|_| exact).map(|c| c.arn.as_str());
        let name = found.owner.as_ref().map(|o| if o.name.is_empty() { o.id.as_str() } else { o.name.as_str() }).filter(|n| !n.is_empty());
        let kind = found.owner.as_ref().map(|o| o.kind.as_str()).filter(|k| !k.is_empty());
        let own = OwnEnd {
            span,
            attribution: symbols.intern(found.attribution.as_str()),
            function: symbols.maybe(function),
            name: symbols.maybe(name),
            kind: symbols.maybe(kind),
        };
        match known {
            Some(at) => {
                if let Some(group) = self.groups.get_mut(at as usize) {
                    group.own = own;
                }
                at
            }
            None => {
                let at = self.groups.len() as u32;
                self.groups.push(Group { own, shared: None });
                self.by_key.insert(seen.key, at);
                at
            }
        }
    }

    /// Finds the ends of a run of rows that are known already. By itself, since the table is larger than the caches: one
    /// row does not wait for another, so their misses overlap.
    fn find(&mut self, seen: &Seen<'_>, rows: FlowRows<'_>, run: Range<usize>) {
        let batch = rows.batch;
        self.found.clear();
        self.found_from = run.start;
        for row in run {
            let mut places = [NOWHERE; 2];
            let group = self.of_seen.get(seen.of_row[row] as usize).copied().unwrap_or(NOWHERE);
            if batch.marks[row] & marks::V6 == 0
                && let Some(of_group) = self.groups.get(group as usize)
            {
                let shared = of_group.shared.and_then(|(ip, _)| ip.as_v4());
                for (place, bits) in places.iter_mut().zip([batch.src[row], batch.dst[row]]) {
                    if shared != Some(bits) {
                        *place = self.end_of_v4.get(&key_v4(group, bits)).copied().unwrap_or(NOWHERE);
                    }
                }
            }
            self.found.push(places);
        }
    }

    fn of(&mut self, table: &FlowsTable<'_>, seen: &Seen<'_>, rows: FlowRows<'_>, row: usize, symbols: &mut Symbols) -> FlowNames {
        let batch = rows.batch;
        if batch.marks[row] & marks::ADDRS == 0 {
            return FlowNames::default();
        }
        let (src, dst) = (batch.src_ip(row), batch.dst_ip(row));
        let at = seen.of_row[row] as usize;
        let group = self.of_seen.get(at).copied().unwrap_or(NOWHERE);
        let (Some(interface), Some(account), Some(own)) =
            (seen.interfaces.get(at), account(rows, seen, batch.account[row]), self.groups.get(group as usize).map(|g| g.own))
        else {
            // Not placed: an address means the same everywhere or nothing.
            let [src, dst] = [src, dst].map(|ip| self.loose(table, ip, symbols));
            return FlowNames { src_name: src.name, src_kind: src.kind, dst_name: dst.name, dst_kind: dst.kind, ..FlowNames::default() };
        };
        let asker = Asker { account, eni: eni(rows, interface.key.0), group, span: interface.span };
        let [src_at, dst_at] = self.found.get(row - self.found_from).copied().unwrap_or([NOWHERE; 2]);
        let a = self.end(table, asker, interface, src, src_at, symbols);
        let b = self.end(table, asker, interface, dst, dst_at, symbols);
        let side = side(a.held, b.held, batch.marks[row], src, dst, interface);
        let named = |end: OtherEnd, ours: bool| if ours && own.kind != Symbol::NONE { (own.name, own.kind) } else { (end.name, end.kind) };
        let (src_name, src_kind) = named(a, side == Some(Side::Src));
        let (dst_name, dst_kind) = named(b, side == Some(Side::Dst));
        let own_side = match side {
            Some(Side::Src) => self.src,
            Some(Side::Dst) => self.dst,
            None => Symbol::NONE,
        };
        FlowNames { src_name, src_kind, dst_name, dst_kind, own_side, function_arn: own.function, attribution: own.attribution }
    }

    /// What `ip` is for the asker; `place` is where that is known to stand, or `NOWHERE`.
    fn end(
        &mut self,
        table: &FlowsTable<'_>,
        asker: Asker<'_>,
        seen: &SeenInterface,
        ip: Ip,
        place: u32,
        symbols: &mut Symbols,
    ) -> OtherEnd {
        let shared = self.groups.get(asker.group as usize).and_then(|g| g.shared);
        if let Some((own, end)) = shared
            && own == ip
            && end.span.covers(asker.span)
        {
            return end;
        }
        let place = match ip.as_v4() {
            _ if place != NOWHERE => place,
            Some(bits) => self.end_of_v4.get(&key_v4(asker.group, bits)).copied().unwrap_or(NOWHERE),
            None => self.end_of.get(&(asker.group, ip)).copied().unwrap_or(NOWHERE),
        };
        let end = match self.ends.get(place as usize).copied() {
            Some(known) if known.span.covers(asker.span) => known,
            known => {
                let span = known.map_or(asker.span, |known| known.span.with(asker.span));
                let end = self.look_up(table, Asker { span, ..asker }, ip, symbols);
                match (self.ends.get_mut(place as usize), ip.as_v4()) {
                    (Some(known), _) => *known = end,
                    (None, v4) => {
                        let place = self.ends.len() as u32;
                        self.ends.push(end);
                        match v4 {
                            Some(bits) => drop(self.end_of_v4.insert(key_v4(asker.group, bits), place)),
                            None => drop(self.end_of.insert((asker.group, ip), place)),
                        }
                    }
                }
                end
            }
        };
        if seen.shared.contains(&Some(ip))
            && let Some(group) = self.groups.get_mut(asker.group as usize)
        {
            group.shared = Some((ip, end));
        }
        end
    }

    fn look_up(&mut self, table: &FlowsTable<'_>, asker: Asker<'_>, ip: Ip, symbols: &mut Symbols) -> OtherEnd {
        let Asker { account, eni, span, .. } = asker;
        let (first, last) = span.ends();
        let held = table.timelines.holds(account, eni, ip, first, last);
        let loose = self.loose(table, ip, symbols);
        // Most addresses are nobody's here, and mean the same to all.
        let peer = if loose.held { table.timelines.peer(account, eni, ip, first, last) } else { None };
        match peer {
            Some(peer) => OtherEnd { span, held, name: symbols.intern(&peer.name), kind: symbols.intern(&peer.kind_word) },
            None => OtherEnd { span, held, name: loose.name, kind: loose.kind },
        }
    }

    fn loose(&mut self, table: &FlowsTable<'_>, ip: Ip, symbols: &mut Symbols) -> Loose {
        *self.loose.entry(ip).or_insert_with(|| {
            let name = table.book.name(ip);
            Loose { name: symbols.intern(&name.name), kind: symbols.intern(&name.kind_word), held: table.timelines.peer_exists(ip) }
        })
    }
}

fn key_v4(group: u32, bits: u32) -> u64 {
    u64::from(group) << 32 | u64::from(bits)
}

/// The account a record is of: its own, else the key's.
fn account<'a>(rows: FlowRows<'a>, seen: &Seen<'a>, number: u32) -> Option<&'a str> {
    match number {
        ABSENT => seen.account,
        number => rows.names.accounts.get(number as usize).map(|a| &**a).or(seen.account),
    }
}

fn eni(rows: FlowRows<'_>, number: u32) -> &str {
    rows.names.interfaces.get(number as usize).map_or("", |e| &**e)
}

/// Which side is the interface's: by the timeline, else by `flow-direction`, else by the address that its records share
/// (design/architecture.md section 2.5; here of the records of one batch).
fn side(src_held: bool, dst_held: bool, mark: u16, src: Ip, dst: Ip, interface: &SeenInterface) -> Option<Side> {
    match (src_held, dst_held) {
        (true, false) => return Some(Side::Src),
        (false, true) => return Some(Side::Dst),
        _ => {}
    }
    match (mark & marks::EGRESS != 0, mark & marks::INGRESS != 0) {
        (true, false) => return Some(Side::Src),
        (false, true) => return Some(Side::Dst),
        _ => {}
    }
    let own = match interface.shared {
        // An interface's own address in a flow log is its private one.
        [Some(a), Some(b)] if a != b => match (a.is_private(), b.is_private()) {
            (true, false) => a,
            (false, true) => b,
            _ => return None,
        },
        [Some(a), _] | [None, Some(a)] => a,
        [None, None] => return None,
    };
    match (own == src, own == dst) {
        (true, false) => Some(Side::Src),
        (false, true) => Some(Side::Dst),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use flowtrail_ingest::KeyFacts;
    use flowtrail_ingest::Names;
    use flowtrail_ingest::flow::layout::Layout;
    use flowtrail_ingest::flow::plain::Ask;
    use flowtrail_ingest::flow::text::parse_text;
    use flowtrail_sink::tables::read_rows;
    use serde_json::{Map, Value, json};

    use super::*;

    const T: i64 = 1_767_607_200;

    fn rows(facts: &str, lines: &[String], from: EventTime, to: EventTime) -> Vec<Map<String, Value>> {
        let facts: BTreeSet<_> = if facts.is_empty() {
            BTreeSet::new()
        } else {
            flowtrail_enrich::facts_of_file(facts.as_bytes(), "snapshot.json", Some(EventTime(T - 7200))).unwrap().into_iter().collect()
        };
        let timelines = Timelines::build(&facts);
        let book = AddressBook::builder().build();
        let table = FlowsTable { timelines: &timelines, book: &book, from, to };
        let mut flows = table.writer();
        let key = "AWSLogs/111122223333/vpcflowlogs/eu-west-1/2026/01/05/x.log".to_owned();
        let meta = UnitMeta { source: "folder", facts: KeyFacts::of_key(&key), key, offset: None, delivered_at: None };
        flows.begin(&meta, EventTime(T));
        let text = lines.join("\n");
        let ask = Ask { cells: true, not_after: EventTime(T + 86_400) };
        let (mut names, mut batch) = (Names::default(), FlowBatch::default());
        let layout = Layout::default_for(text.lines().next().unwrap_or_default().as_bytes());
        parse_text(text.as_bytes(), 1, &layout, ask, &mut names, &mut batch, &mut |rows| flows.push(&meta, rows), &mut |r| panic!("{r:?}"));
        flows.take().unwrap().into_iter().flat_map(|f| read_rows(f.bytes).unwrap()).collect()
    }

    fn line(src: &str, dst: &str, start: i64, end: i64) -> String {
        format!("2 111122223333 eni-1 {src} {dst} 40000 443 6 10 840 {start} {end} ACCEPT OK")
    }

    fn interface(id: &str, ip: &str, description: &str, kind: &str) -> Value {
        json!({
            "NetworkInterfaceId": id, "OwnerId": "111122223333", "VpcId": "vpc-1", "SubnetId": "subnet-1", "InterfaceType": kind,
            "AvailabilityZone": "eu-west-1a", "Description": description, "PrivateIpAddress": ip, "Status": "in-use",
            "RequesterManaged": true, "Groups": [{"GroupId": "sg-1"}],
            "PrivateIpAddresses": [{"Primary": true, "PrivateIpAddress": ip}]
        })
    }

    #[test]
    fn both_ends_are_named() {
        let facts = json!({"NetworkInterfaces": [
            interface("eni-1", "10.0.0.5", "AWS Lambda VPC ENI-f-8d7a3a3c-1b2e-4f5a-9d3e-6a7b8c9d0e1f", "lambda"),
            interface("eni-2", "10.0.0.9", "RDSNetworkInterface", "interface"),
        ]})
        .to_string();
        let lines = [line("10.0.0.5", "10.0.0.9", T, T + 50), line("203.0.113.9", "10.0.0.5", T, T + 50)];
        let got = rows(&facts, &lines, EventTime::MIN, EventTime::MAX);
        let of = |row: usize, column: &str| got[row][column].as_str().map(str::to_owned);
        let at = |src: &str| got.iter().position(|r| r["srcaddr"] == src).unwrap();
        let (out, back) = (at("10.0.0.5"), at("203.0.113.9"));
        assert_eq!((of(out, "own_side"), of(back, "own_side")), (Some("src".into()), Some("dst".into())));
        assert_eq!(of(out, "dst_kind").as_deref(), Some("rds"));
        assert_eq!(of(out, "src_kind").as_deref(), Some("lambda"));
        assert_eq!((of(back, "src_kind").as_deref(), of(back, "src_name").as_deref()), (Some("internet"), Some("203.0.113.9")));
        // A description is a hint and no proof.
        assert_eq!((of(out, "attribution").as_deref(), of(out, "function_arn")), (Some("candidates"), None));
        assert_eq!(got[out]["position"], 1);
        assert!(of(out, "source_key").unwrap().ends_with("x.log"));
    }

    #[test]
    fn without_facts_the_shared_address_is_the_own_one() {
        let lines =
            [line("10.0.0.5", "10.0.0.9", T, T + 50), line("10.0.0.7", "10.0.0.5", T, T + 50), line("10.0.0.5", "10.0.0.8", T, T + 9)];
        let got = rows("", &lines, EventTime::MIN, EventTime::MAX);
        for row in &got {
            assert_eq!(row["own_side"] == "src", row["srcaddr"] == "10.0.0.5", "{row:?}");
            assert_eq!(row["attribution"], "unknown");
        }
        assert_eq!(got.len(), 3);
    }

    #[test]
    fn what_is_out_of_range_is_left_out() {
        let lines: Vec<String> = (0..5).map(|n| line("10.0.0.5", &format!("10.0.1.{n}"), T, T + 10 * n)).collect();
        let got = rows("", &lines, EventTime(T + 10), EventTime(T + 30));
        let peers: Vec<&str> = got.iter().filter_map(|r| r["dstaddr"].as_str()).collect();
        assert_eq!(peers, ["10.0.1.1", "10.0.1.2"]);
        assert_eq!(got.iter().filter_map(|r| r["position"].as_u64()).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn nodata_has_no_names() {
        let got =
            rows("", &["2 111122223333 eni-1 - - - - - - - 1767607200 1767607260 - NODATA".to_owned()], EventTime::MIN, EventTime::MAX);
        assert_eq!((&got[0]["attribution"], &got[0]["own_side"], &got[0]["src_name"]), (&Value::Null, &Value::Null, &Value::Null));
        assert_eq!(got[0]["interface_id"], "eni-1");
    }
}
