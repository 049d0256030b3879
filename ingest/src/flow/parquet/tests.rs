use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use proptest::prelude::*;

use super::super::batch::ABSENT;
use super::super::layout::{Column as Named, Type};
use super::super::text::TextReader;
use super::*;
use crate::time::EventTime;

/// A Parquet file of lines of text, integers in the width given.
fn file(layout: &Layout, lines: &[Vec<String>], wide: bool, dash: bool, dictionary: bool) -> Bytes {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(dictionary);
    file_with(layout, lines, wide, dash, properties)
}

fn file_with(layout: &Layout, lines: &[Vec<String>], wide: bool, dash: bool, properties: WriterPropertiesBuilder) -> Bytes {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (at, named) in layout.columns().iter().enumerate() {
        let cells = lines.iter().map(|line| line[at].as_str());
        let ty = named.field().map_or(Type::Text, |f| f.ty);
        let array: ArrayRef = match ty {
            Type::Text => Arc::new(cells.map(|c| (dash || c != "-").then_some(c)).collect::<StringArray>()),
            Type::Int32 if !wide => Arc::new(cells.map(|c| c.parse().ok()).collect::<Int32Array>()),
            _ => Arc::new(cells.map(|c| c.parse().ok()).collect::<Int64Array>()),
        };
        columns.push((named.table_name().to_owned(), array));
    }
    let records = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), Some(properties.build())).unwrap();
    writer.write(&records).unwrap();
    writer.into_inner().unwrap().into()
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    batches: Vec<FlowBatch>,
    cells: Vec<String>,
    rejects: Vec<String>,
    names: Names,
}

impl Seen {
    fn take(&mut self, rows: FlowRows<'_>, first_line: u32) {
        if !rows.batch.cells.is_empty() {
            for row in 0..rows.batch.rows() {
                self.cells.extend((0..rows.layout.len()).map(|c| String::from_utf8_lossy(rows.cell(row, c)).into_owned()));
            }
        }
        let mut batch = rows.batch.clone();
        batch.cells.clear();
        batch.line.iter_mut().for_each(|line| *line -= first_line);
        self.batches.push(batch);
    }
}

fn from_parquet(object: Bytes, ask: Ask) -> Result<Seen, FlowError> {
    let (mut seen, mut names, mut batch, mut rejects) = (Seen::default(), Names::default(), FlowBatch::default(), Vec::new());
    parse_parquet(&object, ask, &mut names, &mut batch, &mut |r| seen.take(r, 0), &mut |r| {
        rejects.push(format!("{} {}", r.position.0, r.reason))
    })?;
    Ok(Seen { rejects, names, ..seen })
}

/// Read by one of the two ways, names written out so that their numbers do not matter. The error, if it ended in one.
fn by_way(plain: bool, object: &[u8], ask: Ask) -> (Seen, Option<String>) {
    let (mut seen, mut names, mut batch, mut rejects) = (Seen::default(), Names::default(), FlowBatch::default(), Vec::new());
    let (on_batch, on_reject) = (&mut |r: FlowRows<'_>| seen.take(r, 0), &mut |r: Reject| rejects.push(format!("{r:?}")));
    let mut reader = ParquetReader::default();
    let error = reader.read_by(plain, object, ask, &mut Out { names: &mut names, batch: &mut batch, on_batch, on_reject }).err();
    // Whether a name is there is in the batch; which one it is, here.
    for batch in &mut seen.batches {
        for (column, list) in [(&mut batch.interface, &names.interfaces), (&mut batch.account, &names.accounts)] {
            for number in column {
                seen.cells.push(list.get(*number as usize).map_or_else(String::new, |n| n.to_string()));
                *number = u32::from(*number == ABSENT);
            }
        }
    }
    (Seen { rejects, names: Names::default(), ..seen }, error.map(|e| e.to_string()))
}

fn from_text(layout: &Layout, lines: &[Vec<String>], ask: Ask) -> Seen {
    let (mut seen, mut names, mut batch, mut rejects) = (Seen::default(), Names::default(), FlowBatch::default(), Vec::new());
    let text: String = lines.iter().map(|l| l.join(" ") + "\n").collect();
    let mut reader = TextReader::new(layout.clone(), 0, ask);
    let on_reject = &mut |r: Reject| rejects.push(format!("{} {}", r.position.0, r.reason));
    reader.read(text.as_bytes(), &mut names, &mut batch, &mut |r| seen.take(r, 0), on_reject);
    Seen { rejects, names, ..seen }
}

fn lines(layout: &Layout, rows: usize, seed: u64) -> Vec<Vec<String>> {
    let mut state = seed;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut one_of = |words: &[&str]| words[below(words.len() as u64) as usize].to_owned();
    let mut cell = |named: &Named| {
        let odd = one_of(&["", "", "", "", "", "", "", "", "", "", "", "", "odd", "-"]);
        match named.table_name() {
            _ if odd == "-" => odd,
            "srcport" | "dstport" => one_of(&["0", "443", "65535", "40001", if odd.is_empty() { "22" } else { "65536" }]),
            "protocol" => one_of(&["6", "17", "255", "256"]),
            "start" | "end" if odd.is_empty() => "1700000000".to_owned(),
            "start" | "end" => one_of(&["1700000060000", "1900000000", "1700000001"]),
            "action" => one_of(&["ACCEPT", "REJECT", if odd.is_empty() { "ACCEPT" } else { "ODD" }]),
            "log_status" => one_of(&["OK", "NODATA", "SKIPDATA"]),
            "flow_direction" => one_of(&["ingress", "egress", "up"]),
            name if name.ends_with("addr") && odd.is_empty() => one_of(&["10.0.0.1", "10.0.0.2", "192.168.100.200"]),
            name if name.ends_with("addr") => one_of(&["2001:db8::1", "300.1.1.1"]),
            "account_id" => one_of(&["123456789012", "unknown"]),
            _ => match named.field().map(|f| f.ty) {
                Some(Type::Int32 | Type::Int64) => one_of(&["0", "1", "17", "1000"]),
                _ => one_of(&["eni-1", "eni-2", "eni-3"]),
            },
        }
    };
    (0..rows).map(|_| layout.columns().iter().map(&mut cell).collect()).collect()
}

const COLUMNS: &str = "version account_id interface_id srcaddr dstaddr srcport dstport protocol packets bytes start end action log_status \
                       tcp_flags pkt_srcaddr pkt_dstaddr flow_direction brand_new";

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_those_of_the_same_text(rows in 1usize..300, seed: u64, wide: bool, dash: bool, dictionary: bool, cells: bool) {
        let layout = Layout::compile(COLUMNS).unwrap();
        let lines = lines(&layout, rows, seed);
        let mut ask = Ask { cells, not_after: EventTime(1_800_000_000) };
        let mut text = from_text(&layout, &lines, ask);
        let mut parquet = from_parquet(file(&layout, &lines, wide, dash, dictionary), ask).unwrap();
        // Names are numbered as they are met, which differs.
        for seen in [&mut text, &mut parquet] {
            for batch in &mut seen.batches {
                batch.interface.iter_mut().for_each(|n| *n = seen.names.interfaces.get(*n as usize).map_or(0, |n| n.len() as u32 * 100 + u32::from(n.as_bytes()[4])));
                batch.account.iter_mut().for_each(|n| *n = u32::from(*n == ABSENT));
            }
            seen.names = Names::default();
        }
        prop_assert_eq!(&parquet, &text);
        ask.cells = false;
        prop_assert_eq!(from_parquet(file(&layout, &lines, wide, dash, dictionary), ask).unwrap().rejects, text.rejects);
    }

    #[test]
    fn damage_is_an_error_or_rows(seed: u64, flips in prop::collection::vec((any::<u32>(), any::<u8>()), 1..8), cut in 0usize..5000) {
        let layout = Layout::compile(COLUMNS).unwrap();
        let whole = file(&layout, &lines(&layout, 40, seed), false, true, true).to_vec();
        let _ = from_parquet(whole[..cut % whole.len()].to_vec().into(), Ask::all(EventTime::MAX));
        let mut damaged = whole;
        for (at, byte) in flips {
            let at = at as usize % damaged.len();
            damaged[at] = byte;
        }
        let _ = from_parquet(damaged.into(), Ask::all(EventTime::MAX));
    }
}

/// Files of every shape that writers are known to make.
fn shapes() -> impl Strategy<Value = WriterPropertiesBuilder> {
    let codec = prop_oneof![
        Just(Compression::UNCOMPRESSED),
        Just(Compression::SNAPPY),
        Just(Compression::GZIP(GzipLevel::default())),
        Just(Compression::ZSTD(ZstdLevel::default())),
        Just(Compression::LZ4_RAW),
    ];
    let version = prop_oneof![Just(WriterVersion::PARQUET_1_0), Just(WriterVersion::PARQUET_2_0)];
    (codec, version, any::<bool>(), 1usize..6000, 1usize..3000, prop_oneof![Just(40usize), Just(1 << 20)]).prop_map(
        |(codec, version, dictionary, group, page, dictionary_bytes)| {
            WriterProperties::builder()
                .set_compression(codec)
                .set_writer_version(version)
                .set_dictionary_enabled(dictionary)
                .set_max_row_group_row_count(Some(group))
                .set_data_page_row_count_limit(page)
                .set_write_batch_size(64)
                // Past it a column goes on without its dictionary.
                .set_dictionary_page_size_limit(dictionary_bytes)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_ways_read_the_same(rows in 1usize..9000, seed: u64, wide: bool, dash: bool, odd: bool, missing in 0usize..19, shape in shapes()) {
        let names: Vec<&str> = COLUMNS.split_whitespace().enumerate().filter(|(at, _)| *at != missing).map(|(_, name)| name).collect();
        let layout = Layout::compile(&names.join(" ")).unwrap();
        let mut lines = lines(&layout, rows, seed);
        if !odd {
            // Such as AWS writes: nothing that becomes a reject.
            lines.iter_mut().flatten().for_each(|cell| {
                if matches!(cell.as_str(), "65536" | "256" | "ODD" | "300.1.1.1" | "1700000060000" | "1900000000") {
                    *cell = "-".to_owned();
                }
            });
        }
        let object = file_with(&layout, &lines, wide, dash, shape);
        let ask = Ask::hot(EventTime(1_800_000_000));
        let (plain, fast) = (by_way(true, &object, ask), by_way(false, &object, ask));
        prop_assert_eq!(&plain.1, &None);
        prop_assert!(odd || plain.0.rejects.is_empty());
        prop_assert!(plain == fast, "{:?}", (plain.0.rejects.len(), fast.0.rejects.len(), fast.1));
    }

    #[test]
    fn where_the_plain_way_reads_a_damaged_file_the_fast_one_reads_the_same(seed: u64, flips in prop::collection::vec((any::<u32>(), any::<u8>()), 1..4), shape in shapes()) {
        let layout = Layout::compile(COLUMNS).unwrap();
        let mut object = file_with(&layout, &lines(&layout, 200, seed), false, true, shape).to_vec();
        // The pages; what a footer says of them is taken from it by both ways.
        let footer = u32::from_le_bytes(*object[..object.len() - 4].last_chunk().unwrap()) as usize;
        let pages = object.len() - 8 - footer;
        for (at, byte) in flips {
            object[at as usize % pages] = byte;
        }
        let ask = Ask::hot(EventTime(1_800_000_000));
        let (plain, fast) = (by_way(true, &object, ask), by_way(false, &object, ask));
        if plain.1.is_none() {
            prop_assert!(plain == fast, "{:?}", (plain.0.rejects.len(), fast.0.rejects.len(), fast.1));
        }
    }
}

/// Rows of one kind, so that nothing but what the test is about is odd.
fn ordinary(rows: usize) -> (Layout, Vec<Vec<String>>) {
    let layout = Layout::compile(super::super::layout::DEFAULT_FORMAT).unwrap();
    let line = |n: usize| {
        format!(
            "2 111122223333 eni-{} 10.0.{}.{} 10.9.0.1 {} 443 6 {n} {} 1700000000 1700000060 ACCEPT OK",
            n / 900,
            n / 200 % 9,
            n % 200,
            n % 60_000,
            n * 7
        )
    };
    (layout, (0..rows).map(|n| line(n).split(' ').map(str::to_owned).collect()).collect())
}

#[test]
fn ordinary_files_go_the_fast_way_to_their_end() {
    let (layout, lines) = ordinary(10_000);
    let properties =
        WriterProperties::builder().set_compression(Compression::GZIP(GzipLevel::default())).set_max_row_group_row_count(Some(6000));
    let object = file_with(&layout, &lines, false, false, properties);
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&Whole(&object)).unwrap();
    let ask = Ask::hot(EventTime(1_800_000_000));
    let asked = Asked::of(&metadata, ask).unwrap();
    let (mut columns, mut names, mut batch, mut rows) = (Columns::default(), Names::default(), FlowBatch::default(), Vec::new());
    assert!(columns.prepare(&metadata, &asked, ask));
    let mut index = NameIndex::default();
    let mut on_batch = |r: FlowRows<'_>| rows.push((r.batch.rows(), r.batch.bytes.iter().sum::<u64>()));
    let mut out = Out { names: &mut names, batch: &mut batch, on_batch: &mut on_batch, on_reject: &mut |r| panic!("{r:?}") };
    let mut first = 0;
    for group in metadata.row_groups() {
        assert!(columns.group(&object, group, first, &asked.layout, &mut index, &mut out).is_ok());
        first += group.num_rows() as u64;
    }
    assert_eq!(rows.iter().map(|r| r.0).collect::<Vec<_>>(), [4096, 1904, 4000]);
    assert_eq!(rows.iter().map(|r| r.1).sum::<u64>(), (0..10_000u64).map(|n| n * 7).sum::<u64>());
    assert_eq!(names.interfaces.len(), 12);
}

#[test]
fn a_file_cannot_claim_what_it_does_not_hold() {
    // A column of nulls alone takes a few bytes, whatever its length: so does a claim of two billion rows.
    let nulls: Int32Array = std::iter::repeat_n(None::<i32>, 20_000_000).collect();
    let records = RecordBatch::try_from_iter_with_nullable([("srcport", Arc::new(nulls) as ArrayRef, true)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    let object = writer.into_inner().unwrap();
    assert!(object.len() < 100_000, "{}", object.len());
    let error = from_parquet(object.into(), Ask::hot(EventTime::MAX)).unwrap_err().to_string();
    assert!(error.ends_with("claim 20000000 rows, too much for an honest file"), "{error}");
}

#[test]
fn what_lies_before_a_damaged_row_group_is_read() {
    let (layout, lines) = ordinary(9000);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(5000));
    let mut object = file_with(&layout, &lines, false, false, properties).to_vec();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&Whole(&object)).unwrap();
    let column = metadata.row_group(1).column(9);
    let from = column.data_page_offset() as usize;
    object[from..from + 40].fill(0xff);
    let (seen, error) = by_way(false, &object, Ask::hot(EventTime(1_800_000_000)));
    assert!(error.is_some_and(|e| e.starts_with("parquet file cannot be read")));
    assert_eq!(seen.batches.iter().map(FlowBatch::rows).sum::<usize>(), 5000);
}

#[test]
fn other_tables_are_no_flow_logs() {
    let names: StringArray = ["a"].iter().map(Some).collect();
    let records =
        RecordBatch::try_from_iter([("finding_id", Arc::new(names.clone()) as ArrayRef), ("start", Arc::new(names) as ArrayRef)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    let object = writer.into_inner().unwrap();
    assert!(matches!(from_parquet(object.into(), Ask::hot(EventTime::MAX)), Err(FlowError::NotFlowLog(_))));
    assert!(matches!(from_parquet(Bytes::from_static(b"PAR1 nonsense PAR1"), Ask::hot(EventTime::MAX)), Err(FlowError::Parquet(_))));
}
