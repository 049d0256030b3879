//! Flow logs under fuzzing: bodies that hold every fast path against its plain twin, and the texts they begin with.
//!
//! Read by [`crate::fuzzing`]. A body takes any bytes and panics where something is wrong; it knows no expected value but
//! what the plain twin says.

#![allow(clippy::unwrap_used)]

use super::FlowRows;
use super::batch::{ABSENT, BATCH_ROWS, FlowBatch, Names, marks};
use super::envelope::{parse_envelope, peel};
use super::fast::Isa;
use super::json::row_json;
use super::layout::{Column, DEFAULT_FORMAT, FIELDS, Field, Layout, Type, field};
use super::parquet::parse_parquet;
use super::plain::Ask;
use super::text::TextReader;
use crate::inflate::Limits;
use crate::sniff::{Kind, sniff};
use crate::time::EventTime;
use crate::unit::Reject;

/// One line between good ones, so that it stands in the middle of a run of the fast path. The first byte chooses the
/// layout, the second how much stands before it and what is asked for; the rest is the line.
pub(crate) fn line(data: &[u8]) {
    let [choice, options, line @ ..] = data else { return };
    let layout = one_of(*choice);
    let mut source = Source::seeded(u64::from(*choice));
    let mut good = |lines: usize| source.text(&mut layout.clone(), lines, false);
    let mut text = good(1 + usize::from(options >> 1 & 0x3f));
    text.extend([b"\n", line, b"\n"].concat());
    text.extend(good(70));
    let not_after = if options & 0x80 == 0 { EventTime::MAX } else { EventTime(1_750_000_000) };
    same_everywhere(&text, &layout, Ask { cells: options & 1 == 1, not_after });
}

/// A whole text, header or not, whole and in two pieces. The first byte says how often it is repeated and what is asked
/// for, the second where it is cut.
pub(crate) fn text(data: &[u8]) {
    let [options, cut, text @ ..] = data else { return };
    let text = text.repeat(1 + usize::from(options >> 1 & 7));
    let ask = Ask { cells: options & 1 == 1, not_after: EventTime(1_800_000_000) };
    let whole = same_everywhere(&text, &Layout::version_2(), ask);
    let cut = text.len() * usize::from(*cut) / 256;
    let cut = text.get(..cut).and_then(|t| t.iter().rposition(|b| *b == b'\n')).map_or(0, |at| at + 1);
    let (mut names, mut batch, mut lines, mut rejects) = (Names::default(), FlowBatch::default(), Vec::new(), Vec::new());
    let mut reader = TextReader::new(Layout::version_2(), 1, ask);
    for piece in [&text[..cut], &text[cut..]] {
        reader.read(piece, &mut names, &mut batch, &mut |r| lines.extend_from_slice(&r.batch.line), &mut |r| rejects.push(r));
    }
    let wanted: Vec<u32> = whole.batches.iter().flat_map(|(b, _)| b.line.iter().copied()).collect();
    assert_eq!((lines, rejects, names, reader.next_line()), (wanted, whole.rejects, whole.names, whole.next_line));
}

/// A text made from `data` as a row of choices: formats, fields and their faults. What random bytes would take years to
/// spell, this meets at once.
pub(crate) fn made(data: &[u8]) {
    let mut source = Source::of(data);
    let mut layout = source.layout();
    let (lines, stress, cells) = (1 + source.below(300), !source.one_in(4), source.one_in(2));
    let text = source.text(&mut layout, lines, stress);
    same_everywhere(&text, &layout, Ask { cells, not_after: EventTime(if source.one_in(2) { i64::MAX } else { 1_750_000_000 }) });
}

/// Envelopes of CloudWatch, Firehose and shippers, and what recognises them. Every event is a record, a reject or empty.
pub(crate) fn envelope(data: &[u8]) {
    let opened = peel(data, Limits { whole: 1 << 22, total: 1 << 22 }).ok();
    assert_eq!(sniff(data, None) == Kind::FlowParquet, data.starts_with(b"PAR1"));
    for content in [Some(data), opened.as_deref()].into_iter().flatten() {
        let (mut names, mut batch, mut rows, mut rejects) = (Names::default(), FlowBatch::default(), 0, 0);
        let mut on_batch = |r: FlowRows<'_>| {
            sound(r);
            rows += r.batch.rows() as u64;
        };
        let ask = Ask::all(EventTime::MAX);
        let done = parse_envelope(content, None, ask, &mut names, &mut batch, &mut on_batch, &mut |_| rejects += 1);
        assert!(rows + rejects <= done.events, "{rows} records and {rejects} rejects of {} events", done.events);
    }
}

/// A Parquet object: an error or sound rows, the same number of them whatever is asked for.
pub(crate) fn parquet(data: &[u8]) {
    let read = |ask: Ask| {
        let (mut names, mut batch, mut seen, mut rejects) = (Names::default(), FlowBatch::default(), Vec::new(), 0u64);
        // The reader catches panics of its library, and would catch those of a callback: so rows are looked at afterwards.
        let mut keep = |r: FlowRows<'_>| seen.push((r.batch.clone(), r.names.clone(), r.layout.clone(), r.text.to_vec()));
        let result = parse_parquet(data, ask, &mut names, &mut batch, &mut keep, &mut |_| rejects += 1);
        for (batch, names, layout, text) in &seen {
            sound(FlowRows { batch, names, layout, text });
        }
        let rows: usize = seen.iter().map(|s| s.0.rows()).sum();
        result.is_ok().then_some((rows, rejects))
    };
    let (hot, all) = (read(Ask::hot(EventTime::MAX)), read(Ask::all(EventTime::MAX)));
    // Damage in a column that judging does not read may stop only the reader of all columns.
    assert!(hot == all || all.is_none(), "{hot:?} of the hot columns, {all:?} of all");
}

/// Panics unless every index in a batch leads somewhere, and every record can be written out.
fn sound(rows: FlowRows<'_>) {
    let FlowRows { batch, names, layout, .. } = rows;
    let count = batch.rows();
    assert!(count > 0 && count <= BATCH_ROWS);
    for len in [batch.line.len(), batch.interface.len(), batch.account.len(), batch.src.len(), batch.dst.len(), batch.ports.len()] {
        assert_eq!(len, count);
    }
    for len in [batch.protocol.len(), batch.tcp_flags.len(), batch.packets.len(), batch.bytes.len(), batch.start.len(), batch.end.len()] {
        assert_eq!(len, count);
    }
    assert!(batch.cells.is_empty() || batch.cells.len() == count * layout.len());
    assert!(batch.interface.iter().all(|n| *n == ABSENT || (*n as usize) < names.interfaces.len()));
    assert!(batch.account.iter().all(|n| *n == ABSENT || (*n as usize) < names.accounts.len()));
    let with_inner: Vec<u32> = (0..count as u32).filter(|row| batch.marks[*row as usize] & marks::PKT != 0).collect();
    assert_eq!(batch.packet_addrs.iter().map(|p| p.0).collect::<Vec<_>>(), with_inner);
    for row in 0..count {
        if batch.marks[row] & marks::ADDRS != 0 {
            let _ = (batch.src_ip(row), batch.dst_ip(row));
        }
        if !batch.cells.is_empty() {
            let _ = row_json(&rows, row);
        }
    }
}

/// 29 columns, as in the AWS user guide's example of a custom format.
const CUSTOM: &str = "version srcaddr dstaddr srcport dstport protocol start end type packets bytes account-id vpc-id subnet-id instance-id interface-id \
                      region az-id sublocation-type sublocation-id action tcp-flags pkt-srcaddr pkt-dstaddr pkt-src-aws-service pkt-dst-aws-service \
                      traffic-path flow-direction log-status";

/// The layout of a number.
fn one_of(choice: u8) -> Layout {
    match choice % 6 {
        0 => Layout::version_2(),
        1 => Layout::compile(CUSTOM).unwrap(),
        2 => Layout::compile("srcaddr dstaddr").unwrap(),
        3 => Layout::compile("interface-id account-id action flow-direction end start").unwrap(),
        4 => Layout::compile("version log-status packets bytes").unwrap(),
        _ => Layout::transit_gateway(),
    }
}

pub(crate) fn line_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for choice in 0..6u8 {
        let mut layout = one_of(choice);
        for n in 0..12u64 {
            let mut source = Source::seeded(n * 7 + u64::from(choice));
            let line = source.text(&mut layout, 1, n > 2);
            seeds.push([&[choice, (n * 23) as u8], line.trim_ascii_end()].concat());
        }
    }
    seeds
}

pub(crate) fn text_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..24u64 {
        let mut source = Source::seeded(n);
        let mut layout = source.layout();
        let header = layout.to_string().replace('_', "-").into_bytes();
        let ends: &[u8] = if n % 4 == 3 { b"\r\n" } else { b"\n" };
        let text = source.text(&mut layout, 8 + n as usize, n % 3 == 0);
        let lines = text.split(|b| *b == b'\n').fold(header, |all, line| [&all, ends, line].concat());
        seeds.push([&[n as u8, (n * 11) as u8], &lines[..]].concat());
    }
    seeds
}

pub(crate) fn made_seeds() -> Vec<Vec<u8>> {
    (0..16usize).map(|n| (0..64 * n).map(|at| (at * 37 + n * 91) as u8).collect()).collect()
}

pub(crate) fn envelope_seeds() -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let record = "2 1 eni-a 10.0.0.5 203.0.113.9 40000 443 6 10 1000 1700000000 1700000060 ACCEPT OK";
    let events: Vec<_> = (0..3).map(|n| serde_json::json!({"id": n.to_string(), "timestamp": 1, "message": record})).collect();
    let data = serde_json::json!({"messageType": "DATA_MESSAGE", "owner": "1", "logEvents": events}).to_string();
    let control = r#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"id":"","message":"CWL CONTROL MESSAGE"}]}"#;
    let coded = base64::engine::general_purpose::STANDARD.encode(crate::inflate::fuzzing::gzip(data.as_bytes()));
    let quoted = serde_json::Value::from(data.as_str()).to_string();
    [
        data.clone(),
        format!("{control}{data}\n{data}"),
        format!(r#"[{{"message":"{record}"}},{{"message":"{record}\n"}}]"#),
        format!(r#"{{"schema":null,"payload":{quoted}}}"#),
        quoted,
        format!("{record}{record}\n{record}"),
        coded.clone(),
        format!(r#"{{"awslogs":{{"data":"{coded}"}}}}"#),
        format!(r#"{{"requestId":"1","timestamp":1,"records":[{{"data":"{coded}"}}]}}"#),
        "range,category\n10.0.0.1,c2\n".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

pub(crate) fn parquet_seeds() -> Vec<Vec<u8>> {
    use std::sync::Arc;

    use ::parquet::arrow::ArrowWriter;
    use ::parquet::basic::Compression;
    use ::parquet::file::properties::WriterProperties;
    use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};

    let names = DEFAULT_FORMAT.split(' ').chain(["pkt-srcaddr", "flow-direction"]);
    let columns: Vec<&Field> = names.map(|name| field(name).unwrap()).collect();
    let mut seeds = Vec::new();
    for (rows, dictionary, compression) in
        [(1, true, Compression::UNCOMPRESSED), (40, true, Compression::SNAPPY), (40, false, Compression::UNCOMPRESSED)]
    {
        let mut source = Source::seeded(rows as u64);
        let mut array = |column: &'static Field| -> ArrayRef {
            let cells: Vec<String> = (0..rows).map(|_| String::from_utf8(source.field(&Column::Known(column), false)).unwrap()).collect();
            match column.ty {
                Type::Int32 => Arc::new(cells.iter().map(|c| c.parse().ok()).collect::<Int32Array>()),
                Type::Int64 => Arc::new(cells.iter().map(|c| c.parse().ok()).collect::<Int64Array>()),
                Type::Text => Arc::new(cells.iter().map(Some).collect::<StringArray>()),
            }
        };
        let arrays = columns.iter().map(|column| (column.column, array(column), true));
        let records = RecordBatch::try_from_iter_with_nullable(arrays).unwrap();
        let properties = WriterProperties::builder().set_compression(compression).set_dictionary_enabled(dictionary).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), Some(properties)).unwrap();
        writer.write(&records).unwrap();
        seeds.push(writer.into_inner().unwrap());
    }
    seeds
}

/// All that a consumer sees of a text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub batches: Vec<(FlowBatch, Layout)>,
    pub rejects: Vec<Reject>,
    pub names: Names,
    pub next_line: u64,
}

/// Reads a text with the fast path of an instruction set, or by the plain path alone.
pub(super) fn read(text: &[u8], layout: &Layout, ask: Ask, isa: Option<Isa>) -> Seen {
    let (mut seen, mut names, mut batch) = (Seen::default(), Names::default(), FlowBatch::default());
    let mut reader = TextReader::with(layout.clone(), 1, ask, isa);
    let Seen { batches, rejects, .. } = &mut seen;
    let mut on_batch = |r: FlowRows<'_>| {
        sound(r);
        batches.push((r.batch.clone(), r.layout.clone()));
    };
    reader.read(text, &mut names, &mut batch, &mut on_batch, &mut |r| rejects.push(r));
    seen.names = names;
    seen.next_line = reader.next_line();
    seen
}

/// Panics unless every instruction set of this machine reads what the plain path reads; returns that.
#[track_caller]
pub(super) fn same_everywhere(text: &[u8], layout: &Layout, ask: Ask) -> Seen {
    let plain = read(text, layout, ask, None);
    for isa in Isa::all() {
        let fast = read(text, layout, ask, Some(isa));
        if fast != plain {
            let differ = fast.batches.iter().zip(&plain.batches).find(|(a, b)| a != b);
            panic!(
                "{isa:?} differs from plain on {:?}\nfast, plain: {differ:#?}\n{:?}\n{:?}",
                String::from_utf8_lossy(text),
                fast.rejects,
                plain.rejects
            );
        }
    }
    plain
}

/// A source of texts that are mostly right: what it chooses is read from bytes, then from a seeded stream.
pub(super) struct Source<'a> {
    choices: &'a [u8],
    state: u64,
}

impl<'a> Source<'a> {
    pub(super) fn seeded(seed: u64) -> Self {
        Self { choices: &[], state: seed }
    }

    fn of(choices: &'a [u8]) -> Self {
        Self { choices, state: choices.len() as u64 }
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        if let [first, second, rest @ ..] = self.choices {
            // One byte where it is enough, so that a change of one choice leaves the later ones alone.
            let (value, left) =
                if n <= 256 { (usize::from(*first), &self.choices[1..]) } else { (usize::from(*first) << 8 | usize::from(*second), rest) };
            self.choices = left;
            return value % n;
        }
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn digits(&mut self, most: usize) -> String {
        (0..=self.below(most)).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn address(&mut self) -> String {
        let octet = |s: &mut Self| [0, 9, 10, 99, 100, 199, 249, 255][s.below(8)].min(s.below(1000)).min(255);
        format!("{}.{}.{}.{}", octet(self), octet(self), octet(self), octet(self))
    }

    fn field(&mut self, column: &Column, stress: bool) -> Vec<u8> {
        const ODD: [&[u8]; 54] = [
            b"-",
            b"--",
            b"0",
            b"00",
            b"007",
            b"65535",
            b"65536",
            b"255",
            b"256",
            b"-5",
            b"+5",
            b"1e3",
            b"12345678",
            b"123456789",
            b"1234567890123456",
            b"12345678901234567",
            b"99999999999999999999",
            b"9223372036854775807",
            b"9223372036854775808",
            b"18446744073709551615",
            b"18446744073709551616",
            b"4294967296",
            b"2147483648",
            b"1:",
            b"1/",
            b"300.0.0.5",
            b"1.2.3",
            b"1.2.3.4.5",
            b"01.2.3.4",
            b"1.2.3.00",
            b"1.2.3.4.",
            b".1.2.3.4",
            b"1..2.3",
            b"255.255.255.255",
            b"255.255.255.2550",
            b"256.1.1.1",
            b"1.2.3.999",
            b"::1",
            b"2001:db8::1",
            b"::ffff:1.2.3.4",
            b"ACCEPT",
            b"REJECT",
            b"ACCEPTX",
            b"accept",
            b"OK",
            b"OKAY",
            b"NODATA",
            b"SKIPDATA",
            b"egress",
            b"ingress",
            b"unknown",
            b"1418530010000",
            b"4070908800",
            b"99999999999",
        ];
        const WILD: [&[u8]; 6] = [b"eni-\xc3\xa9", b"eni-\xff", b"a\0b", b"a\tb", b"\r", b"srcaddr"];
        if stress && self.one_in(12) {
            return ODD[self.below(ODD.len())].to_vec();
        }
        if stress && self.one_in(200) {
            return WILD[self.below(WILD.len())].to_vec();
        }
        match column.table_name() {
            "version" => b"2".to_vec(),
            "account_id" => format!("12345678901{}", self.below(2)).into(),
            "interface_id" => if self.one_in(9) { format!("eni-{}", self.digits(17)) } else { "eni-0123456789abcdef0".to_owned() }.into(),
            name if name.ends_with("addr") => self.address().into(),
            "srcport" | "dstport" => self.below(66_000).min(65_535).to_string().into(),
            "protocol" => [1, 6, 17, 255][self.below(4)].to_string().into(),
            "tcp_flags" => [0, 2, 18, 256, 511][self.below(5)].to_string().into(),
            "packets" | "bytes" => self.digits(10).into(),
            "start" | "end" => format!("17{:08}", self.below(100_000_000)).into(),
            "action" => ["ACCEPT", "REJECT"][self.below(2)].into(),
            "log_status" => ["OK", "OK", "OK", "NODATA"][self.below(4)].into(),
            "flow_direction" => ["ingress", "egress", "-", "sideways"][self.below(4)].into(),
            _ => format!("x{}", self.digits(4)).into(),
        }
    }

    pub(super) fn layout(&mut self) -> Layout {
        match self.below(4) {
            0 => Layout::version_2(),
            1 => Layout::transit_gateway(),
            _ => {
                let mut names = vec![FIELDS[self.below(14)].column];
                for _ in 0..self.below(30) {
                    let among = [29, FIELDS.len()][self.below(2)];
                    names.push(FIELDS[self.below(among)].column);
                }
                if self.one_in(3) {
                    names.push("brand-new-field");
                }
                Layout::compile(&names.join(" ")).unwrap()
            }
        }
    }

    /// Lines of the layout, with a header that changes it now and then; all of them right without `stress`.
    pub(super) fn text(&mut self, layout: &mut Layout, lines: usize, stress: bool) -> Vec<u8> {
        let first = layout.clone();
        let mut text = Vec::new();
        for _ in 0..lines {
            if stress && self.one_in(150) {
                if self.one_in(2) {
                    *layout = self.layout();
                }
                text.extend(layout.to_string().replace('_', "-").bytes());
            } else {
                let mut fields: Vec<Vec<u8>> = layout.columns().iter().map(|c| self.field(c, stress)).collect();
                if stress && self.one_in(30) {
                    fields.truncate(self.below(fields.len() + 1));
                } else if stress && self.one_in(30) {
                    fields.push(b"more".to_vec());
                }
                text.extend(fields.join(if stress && self.one_in(120) { &b"  "[..] } else { b" " }));
                if stress && self.one_in(150) {
                    text.extend(b" ");
                }
            }
            text.extend(if stress && self.one_in(200) { b"\r\n".as_slice() } else { b"\n" });
        }
        if self.one_in(2) {
            text.pop();
        }
        *layout = first;
        text
    }
}
