//! Flow logs that other readers were tested with, read as `inspect` reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;

use flowtrail_ingest::flow::batch::{FlowBatch, Names};
use flowtrail_ingest::flow::envelope::parse_envelope;
use flowtrail_ingest::flow::json::row_json;
use flowtrail_ingest::flow::layout::{DEFAULT_FORMAT, Layout};
use flowtrail_ingest::flow::parquet::parse_parquet;
use flowtrail_ingest::flow::plain::Ask;
use flowtrail_ingest::flow::text::parse_text;
use flowtrail_ingest::sniff::{Kind, sniff};
use flowtrail_ingest::{EventTime, Reject};
use serde_json::Value;

/// The folder of shared test data; missing data fails in CI and skips elsewhere.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var("FLOWTRAIL_SHARED").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").to_owned());
    let path = PathBuf::from(root).join("data/flowlogs").join(path);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

/// Records as JSON, and rejects.
fn inspect(content: &[u8], format: Option<&str>) -> (Vec<Value>, Vec<Reject>) {
    let format = format.map(|f| Layout::compile(f).unwrap());
    let (mut rows, mut rejects) = (Vec::new(), Vec::new());
    let (mut names, mut batch, ask) = (Names::default(), FlowBatch::default(), Ask::all(EventTime::MAX));
    let on_batch =
        &mut |r: flowtrail_ingest::flow::FlowRows<'_>| rows.extend((0..r.batch.rows()).map(|row| Value::Object(row_json(&r, row))));
    let on_reject = &mut |r| rejects.push(r);
    match sniff(content, format.as_ref()) {
        Kind::FlowText => {
            let layout = format.unwrap_or_else(|| Layout::default_for(content.split(|b| *b == b'\n').next().unwrap()));
            parse_text(content, 1, &layout, ask, &mut names, &mut batch, on_batch, on_reject);
        }
        Kind::FlowEnvelope => drop(parse_envelope(content, format.as_ref(), ask, &mut names, &mut batch, on_batch, on_reject)),
        Kind::FlowParquet => drop(parse_parquet(content, ask, &mut names, &mut batch, on_batch, on_reject).unwrap()),
        kind => panic!("sniffed {kind:?}"),
    }
    (rows, rejects)
}

fn json_lines(path: &std::path::Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn every_line_of_the_vrl_vectors_parses_with_and_without_header() {
    let Some(path) = shared("vrl_lines.jsonl") else { return };
    for row in json_lines(&path) {
        let (format, line) = (row["format"].as_str(), row["line"].as_str().unwrap());
        let (rows, rejects) = inspect(format!("{line}\n").as_bytes(), format);
        assert_eq!((rows.len(), rejects.len()), (1, 0), "{line}: {rejects:?}");
        let headed = format!("{}\n{line}", format.unwrap_or(DEFAULT_FORMAT).replace('_', "-"));
        assert_eq!(inspect(headed.as_bytes(), None).0, rows);
    }
}

#[test]
fn the_values_are_those_of_vrl() {
    let Some(path) = shared("vrl_expected.jsonl") else { return };
    for vector in json_lines(&path) {
        let (rows, _) = inspect(vector["line"].as_str().unwrap().as_bytes(), vector["format"].as_str());
        let mut wanted = vector["expected"].as_object().unwrap().clone();
        wanted.retain(|_, v| !v.is_null());
        let mut got = rows[0].as_object().unwrap().clone();
        got.retain(|k, _| vector["expected"].get(k).is_some());
        assert_eq!(Value::Object(got), Value::Object(wanted), "{}", vector["title"]);
    }
}

#[test]
fn the_values_are_those_of_flowlogs_reader() {
    let Some(path) = shared("flowlogs_reader/expected.jsonl") else { return };
    for vector in json_lines(&path) {
        let name = vector["file"].as_str().unwrap();
        let (rows, rejects) = inspect(&std::fs::read(path.with_file_name(name)).unwrap(), None);
        let got = rows.get(vector["row"].as_u64().unwrap() as usize).unwrap_or_else(|| panic!("{name}: {rejects:?}"));
        for (field, wanted) in vector["expected"].as_object().unwrap() {
            let wanted = match field.as_str() {
                "start" | "end" => EventTime::parse(wanted.as_str().unwrap()).unwrap().0.into(),
                _ => wanted.clone(),
            };
            assert_eq!(got[field], wanted, "{name} {vector}");
        }
    }
    let folder = path.parent().unwrap();
    for (name, records, rejects) in [("v2.txt", 5, 0), ("v5.txt", 2, 1), ("flows.parquet", 3, 0)] {
        let (rows, set_aside) = inspect(&std::fs::read(folder.join(name)).unwrap(), None);
        assert_eq!((rows.len(), set_aside.len()), (records, rejects), "{name}");
    }
}

#[test]
fn envelopes_and_wrong_field_counts_of_the_collector() {
    let tgw = "version account-id tgw-id tgw-attachment-id tgw-src-vpc-id tgw-dst-vpc-id tgw-src-subnet-id tgw-dst-subnet-id tgw-src-eni tgw-dst-eni tgw-src-az-id \
               tgw-dst-az-id tgw-pair-attachment-id srcaddr dstaddr srcport dstport protocol packets bytes start end log-status type tcp-flags flow-direction region";
    for (name, format, records, rejects) in [
        ("valid_vpc_flow_log.log", None, 1, 0),
        ("valid_vpc_flow_log_ecs.log", None, 1, 0),
        ("valid_vpc_flow_log_multi.log", None, 2, 0),
        ("valid_tgw_flow_log.log", None, 1, 0),
        ("valid_vpc_flow_cw.json", None, 2, 0),
        ("valid_vpc_flow_cw_custom.json", Some("version interface-id srcaddr dstaddr"), 2, 0),
        ("valid_tgw_flow_cw.json", Some(tgw), 1, 0),
        ("vpc_flow_log_too_few_fields.log", None, 0, 1),
        ("vpc_flow_log_too_many_fields.log", None, 0, 1),
    ] {
        let Some(path) = shared(&format!("otel/{name}")) else { return };
        let (rows, set_aside) = inspect(&std::fs::read(path).unwrap(), format);
        assert_eq!((rows.len(), set_aside.len()), (records, rejects), "{name}: {set_aside:?}");
    }
    let Some(path) = shared("otel/cloudtrail_log_cw.json") else { return };
    assert_eq!(sniff(&std::fs::read(path).unwrap(), None), Kind::CloudTrail);
}
