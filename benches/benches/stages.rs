//! Time of every stage between an object's bytes and a verdict: `cargo bench -p flowtrail-benches --bench stages [-- NAME]`.
//!
//! `STAGE_RECORDS` sets the size (default 200,000 records, a twentieth of it events).
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use criterion::{Criterion, Throughput};
use flowtrail_benches::stages::{STAGES, Stage};

fn main() {
    let records = std::env::var("STAGE_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let mut criterion = Criterion::default().configure_from_args().sample_size(20).measurement_time(Duration::from_secs(3));
    let mut group = criterion.benchmark_group("stages");
    for name in STAGES {
        let mut stage = Stage::of(name, records).unwrap();
        stage.run();
        let throughput = if stage.unit == "byte" { Throughput::Bytes(stage.count) } else { Throughput::Elements(stage.count) };
        group.throughput(throughput);
        group.bench_function(name, |b| b.iter(|| stage.run()));
    }
    group.finish();
    criterion.final_summary();
}
