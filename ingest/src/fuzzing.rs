//! What is fuzzed in this crate: each body stands beside the code it tries, is written once, and runs under libFuzzer
//! (`fuzz/`) and, on damaged seeds, as an ordinary test.
#![allow(missing_docs)]

use crate::{cloudtrail, flow, inflate};

/// A name, what is run on every input, and inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

pub const TARGETS: [Target; 8] = [
    ("flow_line", flow::fuzzing::line, flow::fuzzing::line_seeds),
    ("flow_text", flow::fuzzing::text, flow::fuzzing::text_seeds),
    ("flow_made", flow::fuzzing::made, flow::fuzzing::made_seeds),
    ("flow_envelope", flow::fuzzing::envelope, flow::fuzzing::envelope_seeds),
    ("flow_parquet", flow::fuzzing::parquet, flow::fuzzing::parquet_seeds),
    ("trail_record", cloudtrail::fuzzing::record, cloudtrail::fuzzing::record_seeds),
    ("trail_text", cloudtrail::fuzzing::text, cloudtrail::fuzzing::text_seeds),
    ("gzip", inflate::fuzzing::members, inflate::fuzzing::member_seeds),
];

/// Damaged seeds of each target, in ordinary tests.
#[cfg(test)]
const ROUNDS: usize = 1500;

#[cfg(test)]
#[path = "../../fuzz/batter.rs"]
mod batter;
