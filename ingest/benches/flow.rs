//! Flow logs from gzip to columns: records a second, and CPU against bare inflation of the same objects.
//!
//! `cargo bench -p flowtrail-ingest --bench flow`. The ratio is printed first, both sides from one run; `FLOW_RECORDS` sets the
//! size (default 1,000,000).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use flowtrail_ingest::EventTime;
use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::batch::{FlowBatch, Names};
use flowtrail_ingest::flow::layout::{Column, DEFAULT_FORMAT, Layout, Type};
use flowtrail_ingest::flow::parquet::parse_parquet;
use flowtrail_ingest::flow::plain::Ask;
use flowtrail_ingest::flow::text::TextReader;
use flowtrail_ingest::inflate::{Inflater, Limits};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// 29 columns, as in the AWS user guide's example of a custom format.
const CUSTOM: &str = "version srcaddr dstaddr srcport dstport protocol start end type packets bytes account-id vpc-id subnet-id instance-id interface-id \
                      region az-id sublocation-type sublocation-id action tcp-flags pkt-srcaddr pkt-dstaddr pkt-src-aws-service pkt-dst-aws-service \
                      traffic-path flow-direction log-status";

const PER_OBJECT: usize = 20_000;

/// xorshift64*: seeded, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
    /// Small numbers often, large ones seldom: close to Zipf's law over `0..n`.
    fn zipf(&mut self, n: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((n as f64 + 1.0).powf(unit) - 1.0) as u64 % n
    }
}

/// What was generated, to check what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    records: u64,
    rejects: u64,
    bytes: u64,
}

struct Data {
    objects: Vec<Vec<u8>>,
    text: u64,
    gzip: u64,
    sums: Sums,
}

/// Hundreds of interfaces in runs, Zipf peers, heavy-tailed bytes; gzip level 6.
fn generate(records: usize, custom: bool) -> Data {
    let mut random = Random(0x5eed);
    let (mut data, mut left) = (Data { objects: Vec::new(), text: 0, gzip: 0, sums: Sums::default() }, records);
    let mut start = 1_767_571_200u64;
    while left > 0 {
        let mut text = format!("{}\n", if custom { CUSTOM } else { DEFAULT_FORMAT });
        let mut in_object = left.min(PER_OBJECT);
        left -= in_object;
        while in_object > 0 {
            let interface = random.below(300);
            let own = format!("10.{}.{}.{}", interface % 7, interface % 31 + 16, interface % 200 + 20);
            // Both directions of a connection follow each other, at the same times.
            let (mut peer, mut service, mut client, mut at, mut took) = (String::new(), 0, 0, 0, 0);
            for n in 0..in_object.min(2 * (20 + random.below(40) as usize)) {
                in_object -= 1;
                if n % 2 == 0 {
                    let number = random.zipf(2_000);
                    peer = format!("{}.{}.{}.{}", 13 + number % 180, number / 7 % 256, number % 256, number / 3 % 256);
                    (service, client) = ([443, 443, 443, 5432, 80, 53, 6379][random.below(7) as usize], 1024 + random.below(60_000));
                    (at, took) = (start + random.below(60), 59 - random.zipf(59));
                }
                let packets = 1 + random.zipf(400);
                let bytes = packets * (52 + random.zipf(1_448));
                let (src, dst, sport, dport) = if n % 2 == 0 { (&own, &peer, client, service) } else { (&peer, &own, service, client) };
                let protocol = if service == 53 { 17 } else { 6 };
                let reject = random.below(100) < 3;
                let action = if reject { "REJECT" } else { "ACCEPT" };
                let end = at + took;
                if custom {
                    let way = if std::ptr::eq(src, &raw const own) { ("egress", "S3", "-", "8") } else { ("ingress", "-", "S3", "-") };
                    let _ = writeln!(
                        text,
                        "5 {src} {dst} {sport} {dport} {protocol} {at} {end} IPv4 {packets} {bytes} 123456789012 vpc-abcdefab012345678 \
                         subnet-aaaaaaaa012345678 - eni-{interface:017x} ap-southeast-2 apse2-az3 - - {action} {} {src} {dst} {} {} {} {} OK",
                        if protocol == 6 { 19 } else { 0 },
                        way.2,
                        way.1,
                        way.3,
                        way.0
                    );
                } else {
                    let _ = writeln!(
                        text,
                        "2 123456789012 eni-{interface:017x} {src} {dst} {sport} {dport} {protocol} {packets} {bytes} {at} {end} {action} OK"
                    );
                }
                data.sums.records += 1;
                data.sums.bytes += bytes;
                data.sums.rejects += u64::from(reject);
            }
        }
        start += 60;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        (data.text, data.gzip) = (data.text + text.len() as u64, data.gzip + gzip.len() as u64);
        data.objects.push(gzip);
    }
    data
}

/// Parses one object's text; returns what it saw.
fn parse(text: &[u8], names: &mut Names, batch: &mut FlowBatch) -> Sums {
    let mut sums = Sums::default();
    let mut reader = TextReader::new(Layout::version_2(), 1, Ask::hot(EventTime::MAX));
    reader.read(
        text,
        names,
        batch,
        &mut |rows| {
            sums.records += rows.batch.rows() as u64;
            sums.bytes += rows.batch.bytes.iter().sum::<u64>();
            sums.rejects += rows.batch.marks.iter().map(|m| u64::from(m >> 3 & 1)).sum::<u64>();
        },
        &mut |reject| panic!("{reject:?}"),
    );
    sums
}

/// The time of inflating every object, and of inflating and parsing it. Each object counts with its best of several tries,
/// the two taken in turn: what else the machine does shows little.
fn ratio(name: &str, data: &Data) {
    let (mut inflater, mut text) = (Inflater::default(), Vec::new());
    let (mut names, mut batch) = (Names::default(), FlowBatch::default());
    let (mut inflating, mut parsing, mut sums) = (Duration::ZERO, Duration::ZERO, Sums::default());
    for object in &data.objects {
        let (mut best, mut seen) = ([Duration::MAX; 2], Sums::default());
        for _ in 0..9 {
            let began = Instant::now();
            inflater.inflate(black_box(object), &mut text, Limits::default()).unwrap();
            let inflated = Instant::now();
            seen = parse(black_box(&text), &mut names, &mut batch);
            best = [best[0].min(inflated - began), best[1].min(inflated.elapsed())];
        }
        sums = Sums { records: sums.records + seen.records, rejects: sums.rejects + seen.rejects, bytes: sums.bytes + seen.bytes };
        (inflating, parsing) = (inflating + best[0], parsing + best[1]);
    }
    assert_eq!(sums, data.sums);
    let each = |d: Duration| d.as_secs_f64() * 1e9 / data.sums.records as f64;
    println!(
        "{name}: {} records of {:.0} bytes, {:.1}:1; a record inflates in {:.1} ns and parses in {:.1} ns: {:.2} I",
        data.sums.records,
        data.text as f64 / data.sums.records as f64,
        data.text as f64 / data.gzip as f64,
        each(inflating),
        each(parsing),
        1.0 + parsing.as_secs_f64() / inflating.as_secs_f64(),
    );
}

/// One object's text as Parquet, as AWS writes it: typed columns, dictionaries, snappy.
fn as_parquet(text: &str) -> Bytes {
    let mut lines = text.lines();
    let layout = Layout::compile(lines.next().unwrap()).unwrap();
    let cells: Vec<Vec<&str>> = lines.map(|l| l.split(' ').collect()).collect();
    let column = |(at, column): (usize, &Column)| {
        let cells = cells.iter().map(|line| line[at]);
        let array: ArrayRef = match column.field().map(|f| f.ty) {
            Some(Type::Int32) => Arc::new(cells.map(|c| c.parse().ok()).collect::<Int32Array>()),
            Some(Type::Int64) => Arc::new(cells.map(|c| c.parse().ok()).collect::<Int64Array>()),
            _ => Arc::new(cells.map(Some).collect::<StringArray>()),
        };
        (column.table_name().to_owned(), array, true)
    };
    let records = RecordBatch::try_from_iter_with_nullable(layout.columns().iter().enumerate().map(column)).unwrap();
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), Some(properties)).unwrap();
    writer.write(&records).unwrap();
    writer.into_inner().unwrap().into()
}

/// The time of reading the same records from Parquet.
fn parquet_time(name: &str, data: &Data) {
    let (mut inflater, mut text, mut names, mut batch) = (Inflater::default(), Vec::new(), Names::default(), FlowBatch::default());
    let (mut reading, mut records, mut bytes) = (Duration::ZERO, 0, 0);
    for object in data.objects.iter().take(5) {
        inflater.inflate(object, &mut text, Limits::default()).unwrap();
        let object = as_parquet(std::str::from_utf8(&text).unwrap());
        bytes += object.len();
        let (mut best, mut seen) = (Duration::MAX, 0);
        for _ in 0..9 {
            let began = Instant::now();
            seen = 0;
            let on_batch = &mut |rows: FlowRows<'_>| seen += rows.batch.rows();
            let on_reject = &mut |reject| panic!("{reject:?}");
            parse_parquet(&object, Ask::hot(EventTime::MAX), &mut names, &mut batch, on_batch, on_reject).unwrap();
            best = best.min(began.elapsed());
        }
        records += seen;
        reading += best;
    }
    let per = records as f64;
    println!("{name} in Parquet: {:.1} bytes a record; reads in {:.1} ns", bytes as f64 / per, reading.as_secs_f64() * 1e9 / per);
}

fn main() {
    let records = std::env::var("FLOW_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let default = generate(records, false);
    let custom = generate(records / 3, true);
    ratio("version 2", &default);
    ratio("29 columns", &custom);
    parquet_time("version 2", &default);
    parquet_time("29 columns", &custom);
    if std::env::var_os("FLOW_RATIO_ONLY").is_some() {
        return;
    }

    let mut criterion = Criterion::default().configure_from_args().sample_size(20).measurement_time(Duration::from_secs(3));
    for (name, data) in [("version 2", &default), ("29 columns", &custom)] {
        let (mut inflater, mut text) = (Inflater::default(), Vec::new());
        let object = &data.objects[0];
        inflater.inflate(object, &mut text, Limits::default()).unwrap();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut again = Vec::new();
        group.bench_function("inflate", |b| b.iter(|| inflater.inflate(black_box(object), &mut again, Limits::default()).unwrap()));
        let (mut names, mut batch) = (Names::default(), FlowBatch::default());
        group.bench_function("parse", |b| b.iter(|| parse(black_box(&text), &mut names, &mut batch)));
        group.finish();
    }
    criterion.final_summary();
}
