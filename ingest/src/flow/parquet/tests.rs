use arrow::array::{Int32Array, Int64Array, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;

use super::super::layout::{Column as Named, Type};
use super::super::text::TextReader;
use super::*;
use crate::time::EventTime;

/// A Parquet file of lines of text, integers in the width given.
fn file(layout: &Layout, lines: &[Vec<String>], wide: bool, dash: bool, dictionary: bool) -> Bytes {
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
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(dictionary).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), Some(properties)).unwrap();
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
    parse_parquet(object, ask, &mut names, &mut batch, &mut |r| seen.take(r, 0), &mut |r| {
        rejects.push(format!("{} {}", r.position.0, r.reason))
    })?;
    Ok(Seen { rejects, names, ..seen })
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
