//! The `flows` table, when asked for: every record, written by the reader straight from the batch, with the names that
//! are known when flow logs are read. `replay` has read every fact by then.
//!
//! A thread's writer is emptied with every flush, so that a file holds rows of the units of that flush only and goes
//! into the commit that has those units: a crash neither loses rows nor writes them twice.

use std::borrow::Cow;

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
        let generation = self.writer.symbols().generation();
        if generation != self.names.generation || self.names.ends.len() > NAMES_MAX {
            self.names.clear();
            self.names.generation = generation;
        }
        let seen = Seen::of(rows, meta.facts.account.as_deref());
        let (names, table) = (&mut self.names, self.table);
        // The writer may begin its strings anew before it takes the first row; numbers given before that are void.
        let mut begun = false;
        let pushed = self.writer.push(rows, &mut |row, symbols| {
            if !begun {
                begun = true;
                if symbols.generation() != names.generation {
                    names.clear();
                    names.generation = symbols.generation();
                }
            }
            names.of(table, &seen, rows, row, symbols)
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

/// A span of time, both ends included, cut to whole minutes so that the next batch mostly lies within it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Span {
    first: i64,
    last: i64,
}

impl Span {
    fn of(start: i64, end: i64) -> Self {
        let (first, last) = (start.min(end), end);
        Self { first: first.div_euclid(60).saturating_mul(60), last: last.div_euclid(60).saturating_mul(60).saturating_add(59) }
    }

    fn with(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    fn covers(self, other: Self) -> bool {
        self.first <= other.first && self.last >= other.last
    }

    fn ends(self) -> (EventTime, EventTime) {
        (EventTime(self.first), EventTime(self.last))
    }
}

/// What one batch says of an interface in an hour.
struct SeenInterface {
    span: Span,
    /// Addresses that all its records share: its own, where only one is left.
    shared: [Option<Ip>; 2],
}

/// What one batch says of its interfaces, by (interface, hour).
struct Seen<'k> {
    interfaces: HashMap<(u32, i32), SeenInterface>,
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
        let mut interfaces: HashMap<(u32, i32), SeenInterface> = HashMap::new();
        for row in 0..batch.rows() {
            let Some(key) = placed(batch, row) else { continue };
            let (src, dst) = (batch.src_ip(row), batch.dst_ip(row));
            let span = Span::of(batch.start[row], batch.end[row]);
            let seen = interfaces.entry(key).or_insert(SeenInterface { span, shared: [Some(src), Some(dst)] });
            seen.span = seen.span.with(span);
            for slot in &mut seen.shared {
                if slot.is_some_and(|ip| ip != src && ip != dst) {
                    *slot = None;
                }
            }
        }
        Self { interfaces, account }
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

/// Names of one unit: looked up once for each distinct interface and address of an hour.
#[derive(Default)]
struct UnitNames {
    generation: u64,
    owners: HashMap<(u32, i32), OwnEnd>,
    ends: HashMap<(u32, i32, Ip), OtherEnd>,
    loose: HashMap<Ip, (Symbol, Symbol)>,
}

impl UnitNames {
    fn clear(&mut self) {
        self.owners.clear();
        self.ends.clear();
        self.loose.clear();
    }

    fn of(&mut self, table: &FlowsTable<'_>, seen: &Seen<'_>, rows: FlowRows<'_>, row: usize, symbols: &mut Symbols) -> FlowNames {
        let batch = rows.batch;
        if batch.marks[row] & marks::ADDRS == 0 {
            return FlowNames::default();
        }
        let (src, dst) = (batch.src_ip(row), batch.dst_ip(row));
        let by_record = match batch.account[row] {
            ABSENT => None,
            number => rows.names.accounts.get(number as usize).map(|a| &**a),
        };
        let known = placed(batch, row).and_then(|key| Some((key, seen.interfaces.get(&key)?)));
        let (Some((key, interface)), Some(account)) = (known, by_record.or(seen.account)) else {
            // Not placed: an address means the same everywhere or nothing.
            let [(src_name, src_kind), (dst_name, dst_kind)] = [src, dst].map(|ip| self.loose(table, ip, symbols));
            return FlowNames { src_name, src_kind, dst_name, dst_kind, ..FlowNames::default() };
        };
        let eni = rows.names.interfaces.get(key.0 as usize).map_or("", |e| &**e);
        let own = self.owner(table, account, eni, key, interface.span, symbols);
        let a = self.end(table, account, eni, key, interface.span, src, symbols);
        let b = self.end(table, account, eni, key, interface.span, dst, symbols);
        let side = side(a.held, b.held, batch.marks[row], src, dst, interface);
        let named = |end: OtherEnd, ours: bool| if ours && own.kind != Symbol::NONE { (own.name, own.kind) } else { (end.name, end.kind) };
        let (src_name, src_kind) = named(a, side == Some(Side::Src));
        let (dst_name, dst_kind) = named(b, side == Some(Side::Dst));
        let own_side = match side {
            Some(Side::Src) => symbols.intern("src"),
            Some(Side::Dst) => symbols.intern("dst"),
            None => Symbol::NONE,
        };
        FlowNames { src_name, src_kind, dst_name, dst_kind, own_side, function_arn: own.function, attribution: own.attribution }
    }

    fn owner(&mut self, table: &FlowsTable<'_>, account: &str, eni: &str, key: (u32, i32), span: Span, symbols: &mut Symbols) -> OwnEnd {
        let span = match self.owners.get(&key) {
            Some(known) if known.span.covers(span) => return *known,
            Some(known) => known.span.with(span),
            None => span,
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
        self.owners.insert(key, own);
        own
    }

    #[allow(clippy::too_many_arguments)] // One question with the place it is asked at.
    fn end(
        &mut self,
        table: &FlowsTable<'_>,
        account: &str,
        eni: &str,
        key: (u32, i32),
        span: Span,
        ip: Ip,
        symbols: &mut Symbols,
    ) -> OtherEnd {
        let at = (key.0, key.1, ip);
        let span = match self.ends.get(&at) {
            Some(known) if known.span.covers(span) => return *known,
            Some(known) => known.span.with(span),
            None => span,
        };
        let (first, last) = span.ends();
        let peer = table.timelines.peer(account, eni, ip, first, last).unwrap_or_else(|| table.book.name(ip));
        let end = OtherEnd {
            span,
            held: table.timelines.holds(account, eni, ip, first, last),
            name: symbols.intern(&peer.name),
            kind: symbols.intern(&peer.kind_word),
        };
        self.ends.insert(at, end);
        end
    }

    fn loose(&mut self, table: &FlowsTable<'_>, ip: Ip, symbols: &mut Symbols) -> (Symbol, Symbol) {
        if let Some(known) = self.loose.get(&ip) {
            return *known;
        }
        let name = table.book.name(ip);
        let named = (symbols.intern(&name.name), symbols.intern(&name.kind_word));
        self.loose.insert(ip, named);
        named
    }
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
    use flowtrail_ingest::flow::layout::Layout;
    use flowtrail_ingest::flow::plain::Ask;
    use flowtrail_ingest::flow::text::parse_text;
    use flowtrail_ingest::Names;
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
        let lines = [line("10.0.0.5", "10.0.0.9", T, T + 50), line("10.0.0.7", "10.0.0.5", T, T + 50), line("10.0.0.5", "10.0.0.8", T, T + 9)];
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
        let got = rows("", &["2 111122223333 eni-1 - - - - - - - 1767607200 1767607260 - NODATA".to_owned()], EventTime::MIN, EventTime::MAX);
        assert_eq!((&got[0]["attribution"], &got[0]["own_side"], &got[0]["src_name"]), (&Value::Null, &Value::Null, &Value::Null));
        assert_eq!(got[0]["interface_id"], "eni-1");
    }
}
