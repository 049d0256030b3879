//! Makes bench inputs: `flowtrail-bench-data --kind plain --records 10000000 --out target/bench/plain`.
//!
//! OUT/logs holds objects under AWS's keys, OUT/facts the snapshots that name the interfaces; OUT/about.json says what is there and is
//! printed. The same arguments again make nothing new.

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use flowtrail_benches::flows::Shape;
use flowtrail_benches::objects::{Amount, Kind, make, write_facts};
use flowtrail_benches::world::{World, WorldSize};
use flowtrail_ingest::time::EventTime;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Default v2 format, gzip about 7.5:1, some four records a conversation and object.
    Plain,
    /// Many short connections, 22 fields, gzip over 9:1.
    Traffic,
    /// 29 fields.
    Wide,
    /// CloudTrail events of about 1.8 kB.
    Trail,
    /// The records of `plain`, in Parquet.
    Parquet,
}

#[derive(Parser, Debug)]
#[command(about = "Makes seeded bench inputs under AWS's S3 keys")]
struct Arguments {
    /// Folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// What to make.
    #[arg(long, value_enum)]
    kind: What,
    /// Records (events for `trail`) over all objects.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Days the objects are spread over.
    #[arg(long, default_value_t = 1)]
    days: u32,
    /// First day.
    #[arg(long, default_value = "2026-01-05T00:00:00Z")]
    start: String,
    /// AWS accounts.
    #[arg(long, default_value_t = 4)]
    accounts: usize,
    /// Interfaces over all accounts.
    #[arg(long, default_value_t = 400)]
    interfaces: usize,
    /// (peer, port) pairs of one interface; by default 2000, for `traffic` 6000.
    #[arg(long)]
    conversations: Option<usize>,
    /// Records in one object; by default 200,000 (about 22 MB of text), for `trail` 4,000.
    #[arg(long)]
    object_records: Option<u64>,
    /// Equal seeds make equal bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; changes only the time it takes.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse();
    let start = EventTime::parse(&arguments.start).ok_or_else(|| format!("--start is no time: {:?}", arguments.start))?;
    let (kind, conversations, per_object) = match arguments.kind {
        What::Plain => (Kind::Flows(Shape::Plain), 2000, 200_000),
        What::Traffic => (Kind::Flows(Shape::Traffic), 6000, 200_000),
        What::Wide => (Kind::Flows(Shape::Wide), 2000, 100_000),
        What::Trail => (Kind::Trail, 600, 4_000),
        What::Parquet => (Kind::Parquet, 2000, 200_000),
    };
    let size = WorldSize {
        seed: arguments.seed,
        accounts: arguments.accounts,
        interfaces: arguments.interfaces,
        conversations: arguments.conversations.unwrap_or(conversations),
        habit: if kind == Kind::Flows(Shape::Traffic) { 0.6 } else { 1.0 },
    };
    let amount = Amount {
        records: arguments.records,
        per_object: arguments.object_records.unwrap_or(per_object),
        days: arguments.days,
        start: start.0,
        threads: arguments.threads,
    };
    let asked = format!("{kind:?} {size:?} {:?}", Amount { threads: 0, ..amount.clone() });
    let about_path = arguments.out.join("about.json");
    if let Ok(about) = std::fs::read_to_string(&about_path) {
        let known: serde_json::Value = serde_json::from_str(&about)?;
        if known["asked"] == asked.as_str() {
            println!("{}", about.trim_end());
            return Ok(());
        }
        return Err(format!("{} holds other data; remove it first", arguments.out.display()).into());
    }
    let world = World::new(size);
    let made = make(&world, kind, &amount, &arguments.out.join("logs"))?;
    write_facts(&world, &arguments.out.join("facts"))?;
    let sums = made.sums;
    let about = serde_json::json!({
        "asked": asked, "objects": made.objects, "records": sums.records, "raw_bytes": made.raw_bytes, "stored_bytes": made.stored_bytes,
        "bytes_per_record": made.raw_bytes as f64 / sums.records.max(1) as f64,
        "ratio": made.raw_bytes as f64 / made.stored_bytes.max(1) as f64,
        "records_per_conversation": if sums.conversations == 0 { 0.0 } else { (sums.records - sums.nodata) as f64 / sums.conversations as f64 },
        "nodata": sums.nodata, "rejected": sums.rejected, "flow_packets": sums.packets, "flow_bytes": sums.bytes,
    });
    // Last, so that half of a folder is not taken for the whole.
    std::fs::write(&about_path, format!("{about}\n"))?;
    println!("{about}");
    Ok(())
}
