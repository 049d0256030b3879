//! The `flows` table, when asked for: every record, written by the reader straight from the batch, with the names that
//! are known when flow logs are read. `replay` has read every fact by then.
//!
//! A thread's writer is emptied with every flush, so that a file holds rows of the units of that flush only and goes
//! into the commit that has those units: a crash neither loses rows nor writes them twice.

mod table;

use std::borrow::Cow;

use anyhow::Result;
use flowtrail_enrich::{AddressBook, Attribution, Timelines};
use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::batch::{ABSENT, marks};
use flowtrail_ingest::{EventTime, FlowBatch, Ip};
use flowtrail_sink::TableFile;
use flowtrail_sink::tables::{FlowNames, FlowsWriter, Pairs, Symbol, Symbols};
use hashbrown::HashMap;

use self::table::{Table, Vacant};
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
        let seen = Seen::of(rows, meta.facts.account.as_deref());
        let (names, table) = (&mut self.names, self.table);
        let pushed = self.writer.push(rows, &mut |pairs, into| {
            // Only now, since the writer may have begun its strings anew: numbers given before that are void.
            names.begin(table, &seen, rows, pairs);
            names.pairs(table, &seen, rows, pairs, into);
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
    /// No time at all.
    const NEVER: Self = Self { first: i32::MAX, last: i32::MIN };

    fn of(start: i64, end: i64) -> Self {
        // No time that a record may bear is too large; see `SECONDS_MAX` of the parser.
        let minute = |time: i64| time.div_euclid(60).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Self { first: minute(start.min(end)), last: minute(end) }
    }

    fn with(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// What lies in both.
    fn within(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    fn covers(self, other: Self) -> bool {
        self.first <= other.first && self.last >= other.last
    }

    fn ends(self) -> (EventTime, EventTime) {
        (EventTime(i64::from(self.first) * 60), EventTime(i64::from(self.last) * 60 + 59))
    }
}

/// Rows whose memory is asked for at once.
const AT_ONCE: usize = 32;

/// "No such thing" among indices.
const NOWHERE: u32 = u32::MAX;

/// What one batch says of an interface in an hour.
struct SeenInterface {
    /// Number of the interface, and the hour.
    key: (u32, i32),
    /// Account of the first record that names one, else `ABSENT`.
    account: u32,
    /// Of all its records, seconds.
    first: i64,
    last: i64,
    /// Addresses that all its records share: its own, where only one is left.
    shared: [Option<Ip>; 2],
}

impl SeenInterface {
    fn span(&self) -> Span {
        Span::of(self.first, self.last)
    }

    /// Its own address, as far as its records tell.
    fn own(&self) -> Option<Ip> {
        match self.shared {
            // An interface's own address in a flow log is its private one.
            [Some(a), Some(b)] if a != b => a.only_private(b),
            [Some(a), _] | [None, Some(a)] => Some(a),
            [None, None] => None,
        }
    }
}

/// What one batch says of its interfaces, hour by hour.
struct Seen<'k> {
    interfaces: Vec<SeenInterface>,
    /// For each row its place in `interfaces`, or `NOWHERE` for what is not placed.
    of_row: Vec<u32>,
    /// The account of the key, for records that name none.
    account: Option<&'k str>,
}

/// True for a record that something can be said of: it has addresses, times and an interface, as all that is judged.
fn is_placed(batch: &FlowBatch, row: usize) -> bool {
    const WANTED: u16 = marks::ADDRS | marks::TIMES;
    batch.marks[row] & (WANTED | marks::NODATA | marks::SKIPDATA) == WANTED && batch.interface[row] != ABSENT
}

impl<'k> Seen<'k> {
    fn of(rows: FlowRows<'_>, account: Option<&'k str>) -> Self {
        let batch = rows.batch;
        let mut seen = Self { interfaces: Vec::new(), of_row: Vec::with_capacity(batch.rows()), account };
        let mut places: HashMap<(u32, i32), u32> = HashMap::new();
        // Records of one interface come in runs, and so do those of one hour: mostly no division and no look-up.
        let (mut place, mut interface, mut hour) = (NOWHERE, ABSENT, 0..0);
        for row in 0..batch.rows() {
            if !is_placed(batch, row) {
                seen.of_row.push(NOWHERE);
                continue;
            }
            let (start, end) = (batch.start[row], batch.end[row]);
            if interface != batch.interface[row] || !hour.contains(&end) {
                let of_end = EventTime(end).hour();
                interface = batch.interface[row];
                hour = of_end.start().0..of_end.start().0.saturating_add(3600);
                let key = (interface, of_end.0);
                place = *places.entry(key).or_insert_with(|| {
                    let shared = [Some(batch.src_ip(row)), Some(batch.dst_ip(row))];
                    seen.interfaces.push(SeenInterface { key, account: ABSENT, first: start, last: end, shared });
                    seen.interfaces.len() as u32 - 1
                });
            }
            seen.of_row.push(place);
            let Some(known) = seen.interfaces.get_mut(place as usize) else { continue };
            known.first = known.first.min(start).min(end);
            known.last = known.last.max(end);
            if known.account == ABSENT {
                known.account = batch.account[row];
            }
            if known.shared != [None, None] {
                let (src, dst) = (batch.src_ip(row), batch.dst_ip(row));
                for slot in &mut known.shared {
                    if slot.is_some_and(|ip| ip != src && ip != dst) {
                        *slot = None;
                    }
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
#[derive(Copy, Clone, PartialEq, Eq)]
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
    /// As text; none for IPv6, which is written as the record has it.
    address: Symbol,
    /// The timeline gives it to the interface itself.
    held: bool,
    name: Symbol,
    kind: Symbol,
}

/// An interface in an hour.
struct Group {
    own: OwnEnd,
    /// Its own address, by the records of the batch at hand.
    own_ip: Option<Ip>,
    /// Grows when one of these two says something else: pairs found before are looked up again.
    version: u32,
    /// The address that its records share, which is half of all that is asked for.
    shared: Option<(Ip, OtherEnd)>,
}

/// An address outside, whoever asks: name and kind, and whether somebody in the organisation may hold it.
#[derive(Copy, Clone)]
struct Loose {
    there: bool,
    address: Symbol,
    name: Symbol,
    kind: Symbol,
    held: bool,
}

impl Vacant for Loose {
    const VACANT: Self = Self { there: false, address: Symbol::NONE, name: Symbol::NONE, kind: Symbol::NONE, held: false };

    fn is_vacant(&self) -> bool {
        !self.there
    }
}

/// Two addresses that speak over an interface.
#[derive(Copy, Clone)]
struct KnownPair {
    /// Number of the pair with the lower address as source; `NOWHERE` where there is none.
    number: u32,
    /// Of its group, when it was named.
    version: u32,
    /// The names hold for this time.
    span: Span,
}

impl Vacant for KnownPair {
    const VACANT: Self = Self { number: NOWHERE, version: 0, span: Span::NEVER };

    fn is_vacant(&self) -> bool {
        self.number == NOWHERE
    }
}

/// Names of one unit: looked up once for each two addresses that speak over an interface in an hour.
#[derive(Default)]
struct UnitNames {
    /// Of the pairs and of the strings that are numbered here.
    generations: [u64; 2],
    by_key: HashMap<(u32, i32), u32>,
    groups: Vec<Group>,
    pairs: Table<(u64, u64), KnownPair>,
    /// What an address is for a group, for rows whose pair is not remembered.
    ends: HashMap<(u32, Ip), OtherEnd>,
    /// The same for every unit.
    loose: HashMap<Ip, Loose>,
    loose_v4: Table<u32, Loose>,
    /// For each interface seen in the batch at hand its place in `groups`, and the time it was seen at.
    of_seen: Vec<(u32, Span)>,
    /// Rows of the batch at hand whose pair is not known yet.
    missing: Vec<u32>,
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
        self.pairs.clear();
    }

    fn is_full(&self) -> bool {
        self.ends.len().max(self.pairs.len()) > NAMES_MAX
    }

    /// Takes up the interfaces of a batch.
    fn begin(&mut self, table: &FlowsTable<'_>, seen: &Seen<'_>, rows: FlowRows<'_>, pairs: &mut Pairs) {
        let generations = [pairs.generation(), pairs.symbols().generation()];
        if generations != self.generations || self.is_full() {
            self.clear();
        }
        if generations[1] != self.generations[1] || self.loose.len().max(self.loose_v4.len()) > NAMES_MAX {
            self.loose.clear();
            self.loose_v4.clear();
        }
        self.generations = generations;
        let symbols = pairs.symbols();
        (self.src, self.dst) = (symbols.intern("src"), symbols.intern("dst"));
        self.of_seen.clear();
        for interface in &seen.interfaces {
            let place = match account(rows, seen, interface.account) {
                Some(account) => self.group(table, account, eni(rows, interface.key.0), interface, symbols),
                None => NOWHERE,
            };
            if let Some(group) = self.groups.get_mut(place as usize) {
                let own = interface.own();
                group.version += u32::from(group.own_ip != own);
                group.own_ip = own;
            }
            self.of_seen.push((place, interface.span()));
        }
    }

    fn group(&mut self, table: &FlowsTable<'_>, account: &str, eni: &str, seen: &SeenInterface, symbols: &mut Symbols) -> u32 {
        let known = self.by_key.get(&seen.key).copied();
        let span = match known.and_then(|at| self.groups.get(at as usize)) {
            Some(group) if group.own.span.covers(seen.span()) => return known.unwrap_or(NOWHERE),
            Some(group) => group.own.span.with(seen.span()),
            None => seen.span(),
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
                    group.version += u32::from(own != OwnEnd { span, ..group.own });
                    group.own = own;
                }
                at
            }
            None => {
                let at = self.groups.len() as u32;
                self.groups.push(Group { own, own_ip: None, version: 0, shared: None });
                self.by_key.insert(seen.key, at);
                at
            }
        }
    }

    /// Appends the pairs of the rows of a batch.
    fn pairs(&mut self, table: &FlowsTable<'_>, seen: &Seen<'_>, rows: FlowRows<'_>, pairs: &mut Pairs, into: &mut Vec<u32>) {
        into.clear();
        let batch = rows.batch;
        // First those that are known, a few rows at a time: the tables are larger than the caches, and memory that is asked
        // for early comes while other rows are dealt with.
        let mut keys = [None; AT_ONCE];
        let mut missing = std::mem::take(&mut self.missing);
        missing.clear();
        for from in (0..batch.rows()).step_by(AT_ONCE) {
            let run = from..batch.rows().min(from + AT_ONCE);
            for (slot, row) in keys.iter_mut().zip(run.clone()) {
                *slot = self.key(seen, rows, row, pairs).map(|key| (key, self.pairs.seek(key.bits)));
            }
            for (slot, row) in keys.iter().zip(run) {
                let known = slot.and_then(|(key, hash)| self.known(key, hash));
                into.push(known.unwrap_or(NOWHERE));
                if known.is_none() {
                    missing.push(row as u32);
                }
            }
        }
        for some in missing.chunks(AT_ONCE) {
            for row in some.iter().map(|row| *row as usize).filter(|row| batch.marks[*row] & marks::V6 == 0) {
                self.loose_v4.seek(batch.src[row]);
                self.loose_v4.seek(batch.dst[row]);
            }
            for row in some.iter().map(|row| *row as usize) {
                let number = match self.key(seen, rows, row, pairs) {
                    // One of the rows before may have been the first.
                    Some(key) => match self.known(key, self.pairs.seek(key.bits)) {
                        Some(known) => known,
                        None => self.add(table, seen, rows, row, key, pairs),
                    },
                    None => {
                        let (names, _) = self.of(table, seen, rows, row, false, pairs.symbols());
                        pairs.find(rows, row, names)
                    }
                };
                into[row] = number;
            }
        }
        self.missing = missing;
    }

    /// Names the pair of a row anew, and returns its number.
    fn add(&mut self, table: &FlowsTable<'_>, seen: &Seen<'_>, rows: FlowRows<'_>, row: usize, key: PairKey, pairs: &mut Pairs) -> u32 {
        let (there, span) = self.of(table, seen, rows, row, true, pairs.symbols());
        let own_side = match there.own_side {
            side if side == self.src => self.dst,
            side if side == self.dst => self.src,
            side => side,
        };
        let number = pairs.add(rows, row, there, FlowNames { own_side, ..there.turned() });
        let version = self.groups.get(key.group()).map_or(0, |group| group.version);
        self.pairs.insert(key.bits, KnownPair { number: number ^ u32::from(key.turned), version, span });
        number
    }

    /// The key of the pair of a row; `None` for rows whose pair is not remembered.
    #[inline]
    fn key(&self, seen: &Seen<'_>, rows: FlowRows<'_>, row: usize, pairs: &Pairs) -> Option<PairKey> {
        let (group, span) = self.of_seen.get(*seen.of_row.get(row)? as usize).copied()?;
        if group == NOWHERE || !pairs.told_by_numbers(rows.batch, row) {
            return None;
        }
        PairKey::of(rows.batch, row, group, span)
    }

    #[inline]
    fn known(&self, key: PairKey, hash: u64) -> Option<u32> {
        let pair = self.pairs.get_at(hash, key.bits)?;
        let group = self.groups.get(key.group())?;
        (pair.version == group.version && pair.span.covers(key.span)).then_some(pair.number ^ u32::from(key.turned))
    }

    /// The names of a row, and the time they hold for.
    fn of(
        &mut self,
        table: &FlowsTable<'_>,
        seen: &Seen<'_>,
        rows: FlowRows<'_>,
        row: usize,
        remembered: bool,
        symbols: &mut Symbols,
    ) -> (FlowNames, Span) {
        let batch = rows.batch;
        if batch.marks[row] & marks::ADDRS == 0 {
            return (FlowNames::default(), Span::NEVER);
        }
        let (src, dst) = (batch.src_ip(row), batch.dst_ip(row));
        let at = seen.of_row[row] as usize;
        let (place, _) = self.of_seen.get(at).copied().unwrap_or((NOWHERE, Span::NEVER));
        let (Some(interface), Some(account), Some(group)) =
            (seen.interfaces.get(at), account(rows, seen, batch.account[row]), self.groups.get(place as usize))
        else {
            // Not placed: an address means the same everywhere or nothing.
            let [src, dst] = [src, dst].map(|ip| self.loose(table, ip, symbols));
            let names =
                FlowNames { src_name: src.name, src_kind: src.kind, dst_name: dst.name, dst_kind: dst.kind, ..FlowNames::default() };
            return (names, Span::NEVER);
        };
        let (own, own_ip) = (group.own, group.own_ip);
        let asker = Asker { account, eni: eni(rows, interface.key.0), group: place, span: own.span };
        let [a, b] = [src, dst].map(|ip| self.end(table, asker, interface, ip, remembered, symbols));
        let side = side(a.held, b.held, batch.marks[row], src, dst, own_ip);
        let named = |end: OtherEnd, ours: bool| if ours && own.kind != Symbol::NONE { (own.name, own.kind) } else { (end.name, end.kind) };
        let (src_name, src_kind) = named(a, side == Some(Side::Src));
        let (dst_name, dst_kind) = named(b, side == Some(Side::Dst));
        let own_side = match side {
            Some(Side::Src) => self.src,
            Some(Side::Dst) => self.dst,
            None => Symbol::NONE,
        };
        let (src, dst, function_arn, attribution) = (a.address, b.address, own.function, own.attribution);
        let names = FlowNames { src, dst, src_name, src_kind, dst_name, dst_kind, own_side, function_arn, attribution };
        (names, a.span.within(b.span))
    }

    /// What `ip` is for the asker.
    fn end(
        &mut self,
        table: &FlowsTable<'_>,
        asker: Asker<'_>,
        seen: &SeenInterface,
        ip: Ip,
        remembered: bool,
        symbols: &mut Symbols,
    ) -> OtherEnd {
        let shared = self.groups.get(asker.group as usize).and_then(|g| g.shared);
        if let Some((own, end)) = shared
            && own == ip
            && end.span.covers(asker.span)
        {
            return end;
        }
        let key = (asker.group, ip);
        let known = if remembered { None } else { self.ends.get(&key).copied() };
        let end = match known {
            Some(known) if known.span.covers(asker.span) => known,
            known => {
                let span = known.map_or(asker.span, |known| known.span.with(asker.span));
                let end = self.look_up(table, Asker { span, ..asker }, ip, symbols);
                if !remembered {
                    self.ends.insert(key, end);
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
            Some(peer) => {
                OtherEnd { span, address: loose.address, held, name: symbols.intern(&peer.name), kind: symbols.intern(&peer.kind_word) }
            }
            None => OtherEnd { span, address: loose.address, held, name: loose.name, kind: loose.kind },
        }
    }

    fn loose(&mut self, table: &FlowsTable<'_>, ip: Ip, symbols: &mut Symbols) -> Loose {
        let mut look_up = || {
            let name = table.book.name(ip);
            let address = ip.as_v4().map_or(Symbol::NONE, |bits| symbols.dotted(bits));
            let kind = symbols.intern(&name.kind_word);
            // An address that has no other name goes by itself.
            let name = if symbols.text(address) == name.name { address } else { symbols.intern(&name.name) };
            Loose { there: true, address, name, kind, held: table.timelines.peer_exists(ip) }
        };
        match ip.as_v4() {
            Some(bits) => match self.loose_v4.get(bits) {
                Some(known) => *known,
                None => {
                    let new = look_up();
                    self.loose_v4.insert(bits, new);
                    new
                }
            },
            None => *self.loose.entry(ip).or_insert_with(look_up),
        }
    }
}

/// What tells a pair of addresses of a unit, whichever speaks.
#[derive(Copy, Clone)]
struct PairKey {
    /// The lower and the higher address; the group, and what else names depend on.
    bits: (u64, u64),
    /// The higher address is the source.
    turned: bool,
    /// The time its names must hold for.
    span: Span,
}

impl PairKey {
    /// `None` for an account number that has no room.
    #[inline]
    fn of(batch: &FlowBatch, row: usize, group: u32, span: Span) -> Option<Self> {
        const DIRECTION: u32 = 2;
        // `ABSENT` becomes 0.
        let account = batch.account[row].wrapping_add(1);
        if account >> (u32::BITS - DIRECTION) != 0 {
            return None;
        }
        let (src, dst) = (batch.src[row], batch.dst[row]);
        let turned = src > dst;
        let (egress, ingress) = (batch.marks[row] & marks::EGRESS != 0, batch.marks[row] & marks::INGRESS != 0);
        let (egress, ingress) = if turned { (ingress, egress) } else { (egress, ingress) };
        let rest = account << DIRECTION | u32::from(egress) << 1 | u32::from(ingress);
        let ends = u64::from(src.min(dst)) << 32 | u64::from(src.max(dst));
        Some(Self { bits: (ends, u64::from(group) << 32 | u64::from(rest)), turned, span })
    }

    /// Its place among the groups.
    fn group(&self) -> usize {
        (self.bits.1 >> 32) as usize
    }
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
fn side(src_held: bool, dst_held: bool, mark: u16, src: Ip, dst: Ip, own: Option<Ip>) -> Option<Side> {
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
    let own = own?;
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

    /// What is remembered of a pair against nothing remembered: every record in a unit of its own.
    #[test]
    fn a_record_is_named_as_if_it_were_alone() {
        let facts = json!({"NetworkInterfaces": [
            interface("eni-1", "10.0.0.5", "AWS Lambda VPC ENI-f-8d7a3a3c-1b2e-4f5a-9d3e-6a7b8c9d0e1f", "lambda"),
            interface("eni-2", "10.0.0.9", "RDSNetworkInterface", "interface"),
        ]})
        .to_string();
        let mut random = 7u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let mut lines = Vec::new();
        for n in 0..9000 {
            let (eni, own) = [("eni-1", "10.0.0.5"), ("eni-2", "10.0.0.9")][below(2) as usize];
            let peer = match below(5) {
                0 => "10.0.0.9".to_owned(),
                1 => format!("2001:db8::{:x}", below(9)),
                2 => format!("10.0.1.{}", below(40)),
                _ => format!("203.0.113.{}", below(200)),
            };
            let (src, dst) = if below(2) == 0 { (own, peer.as_str()) } else { (peer.as_str(), own) };
            let account = if below(50) == 0 { "unknown" } else { "111122223333" };
            // Hours change now and then, so that minutes seen grow.
            let end = T + n / 30 + below(60) as i64 + 3600 * (n / 6000);
            lines.push(match below(100) {
                0 => format!("2 {account} {eni} - - - - - - - {} {end} - NODATA", end - 60),
                _ => format!("2 {account} {eni} {src} {dst} {} 443 6 10 840 {} {end} ACCEPT OK", n % 50_000, end - 60),
            });
        }
        let sorted = |mut rows: Vec<Map<String, Value>>| {
            rows.iter_mut().for_each(|row| drop(row.remove("position")));
            let mut rows: Vec<String> = rows.into_iter().map(|row| Value::Object(row).to_string()).collect();
            rows.sort_unstable();
            rows
        };
        let together = sorted(rows(&facts, &lines, EventTime::MIN, EventTime::MAX));
        let some = lines.iter().step_by(37);
        let alone = some.clone().flat_map(|line| rows(&facts, std::slice::from_ref(line), EventTime::MIN, EventTime::MAX)).collect();
        let mut left = together.clone();
        for row in sorted(alone) {
            let at = left.binary_search(&row).unwrap_or_else(|_| panic!("not among all: {row}"));
            left.remove(at);
        }
        assert_eq!((together.len(), left.len()), (9000, 9000 - some.len()));
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
