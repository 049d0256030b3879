//! What is fuzzed in this crate; see `flowtrail_ingest`'s module of the same name.
#![allow(missing_docs, clippy::unwrap_used)]

use crate::commit::{Commit, Draft, OutputFile, SegmentRef, decode, encode};
use crate::segment::{FRAME_BYTES_MAX, SegmentReader, SegmentWriter};

/// A name, what is run on every input, and inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

pub const TARGETS: [Target; 2] = [("segment", segment, segment_seeds), ("commit", commit, commit_seeds)];

/// A segment as it lies in the store, and honest frames (their hash is right) around hostile claims and payload.
fn segment(data: &[u8]) {
    if let Ok(reader) = SegmentReader::new("fuzzed", data) {
        let records: Vec<_> = reader.collect();
        assert!(records.iter().rev().skip(1).all(Result::is_ok), "nothing follows an error");
        if records.iter().all(Result::is_ok) {
            let mut writer = SegmentWriter::new();
            let records: Vec<_> = records.into_iter().map(Result::unwrap).collect();
            records.iter().for_each(|r| writer.bytes(r.kind, &r.bytes));
            let again = writer.finish();
            let again: Vec<_> =
                SegmentReader::new("again", &again).unwrap().map(|r| r.map(|r| (r.kind, r.bytes.into_owned())).unwrap()).collect();
            assert_eq!(again, records.into_iter().map(|r| (r.kind, r.bytes.into_owned())).collect::<Vec<_>>());
        }
    }
    let [kind, flags, a, b, c, payload @ ..] = data else { return };
    let mut writer = SegmentWriter::new();
    writer.frame(*kind, flags & 7, payload, u32::from_le_bytes([*a, *b, *c, 0]) as usize);
    writer.frame(kind.wrapping_add(flags >> 7), flags >> 4 & 3, payload, payload.len());
    let bytes = writer.finish();
    for record in SegmentReader::new("framed", &bytes).unwrap().flatten() {
        assert!(record.bytes.len() <= 3 * FRAME_BYTES_MAX);
    }
}

/// The record of a commit: what decodes is written again as it was read.
fn commit(data: &[u8]) {
    let mut writer = SegmentWriter::new();
    writer.bytes(1, data);
    for bytes in [data.to_vec(), writer.finish()] {
        if let Ok(commit) = decode("0/1.commit", &bytes) {
            let again = encode(&commit).unwrap();
            assert_eq!(decode("0/1.commit", &again).unwrap(), commit);
        }
    }
}

fn segment_seeds() -> Vec<Vec<u8>> {
    let mut writer = SegmentWriter::new();
    writer.bytes(1, &[7; 3000]);
    writer.raw(2, b"as it is");
    writer.bytes(3, &[]);
    let packed = zstd::bulk::compress(&[9; 2000], 1).unwrap();
    let framed = |flags: u8, len: u32, payload: &[u8]| [&[4, flags], &len.to_le_bytes()[..3], payload].concat();
    vec![
        writer.finish(),
        SegmentWriter::new().finish(),
        framed(1, 2000, &packed),
        framed(3, 2000, &packed),
        framed(2, 5, b"plain"),
        framed(0, 5, b"plain"),
    ]
}

fn commit_seeds() -> Vec<Vec<u8>> {
    let file = OutputFile { key: "findings/dt=2026-01-05/0-17-ab.parquet".to_owned(), bytes: 4000, rows: 17 };
    let segment = SegmentRef { key: "0/1-ab.seg".to_owned(), bytes: 70_000, hash: u128::MAX / 3, purpose: "runs".to_owned() };
    let draft = Draft {
        config_hash: 1 << 100,
        positions: [("s3".to_owned(), "AWSLogs/x".to_owned())].into(),
        clocks: [("s3".to_owned(), flowtrail_ingest::EventTime(1_767_571_200))].into(),
        segments: vec![segment],
        dropped: vec!["0/0-cd.seg".to_owned()],
        files: vec![file],
        driver: vec![1, 2, 3],
        ..Draft::default()
    };
    let commits = [Commit::default(), Commit { epoch: 17, previous: 5, owner: 6, published_through: 16, draft }];
    commits.iter().flat_map(|commit| [encode(commit).unwrap(), postcard::to_stdvec(commit).unwrap()]).collect()
}

/// Damaged seeds of each target, in ordinary tests.
#[cfg(test)]
const ROUNDS: usize = 3000;

#[cfg(test)]
#[path = "../../fuzz/batter.rs"]
mod batter;
