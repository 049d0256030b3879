//! The floor: `flowtrail-bench-inflate FOLDER` inflates every .gz below it, one after another, and says what that cost.
//! With `--parse` each object is also parsed to columns by the product's parser, and the rows are counted.

use std::error::Error;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Parser;
use flowtrail_benches::inflate::Inflater;
use flowtrail_benches::process::cpu_seconds;
use flowtrail_ingest::flow::batch::{FlowBatch, Names};
use flowtrail_ingest::flow::layout::Layout;
use flowtrail_ingest::flow::plain::Ask;
use flowtrail_ingest::flow::{FlowRows, text::parse_text};
use flowtrail_ingest::time::EventTime;

#[derive(Parser, Debug)]
#[command(about = "Inflates all gzip objects of a folder with bare libdeflate and prints the CPU seconds it took")]
struct Arguments {
    /// Walked for files that end in .gz.
    folder: PathBuf,
    /// Also parse flow-log text to validated columns.
    #[arg(long)]
    parse: bool,
}

/// What was parsed.
#[derive(Default)]
struct Parsed {
    records: u64,
    bytes: u64,
    rejects: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut paths = Vec::new();
    walk(&arguments.folder, &mut paths)?;
    paths.sort();
    let mut inflater = Inflater::new().ok_or("no memory")?;
    let (mut object, mut batch) = (Vec::new(), FlowBatch::default());
    let (mut stored, mut raw, mut parsed) = (0u64, 0u64, Parsed::default());
    let ask = Ask::hot(EventTime(i64::from(u32::MAX)));
    for path in &paths {
        object.clear();
        std::fs::File::open(path)?.read_to_end(&mut object)?;
        stored += object.len() as u64;
        let text = inflater.inflate(&object).map_err(|error| format!("{}: {error}", path.display()))?;
        raw += text.len() as u64;
        if arguments.parse {
            let (records, bytes) = (&mut parsed.records, &mut parsed.bytes);
            let mut on_batch = |rows: FlowRows<'_>| {
                *records += rows.batch.rows() as u64;
                *bytes += rows.batch.bytes.iter().sum::<u64>();
            };
            let rejects = &mut parsed.rejects;
            parse_text(text, 1, &Layout::version_2(), ask, &mut Names::default(), &mut batch, &mut on_batch, &mut |_| *rejects += 1);
        }
    }
    let mut said = serde_json::json!({ "objects": paths.len(), "stored_bytes": stored, "raw_bytes": raw, "cpu_seconds": cpu_seconds() });
    if arguments.parse {
        said["records"] = parsed.records.into();
        said["flow_bytes"] = parsed.bytes.into();
        said["rejects"] = parsed.rejects.into();
    }
    println!("{said}");
    Ok(())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending == "gz") {
            found.push(path);
        }
    }
    Ok(())
}
