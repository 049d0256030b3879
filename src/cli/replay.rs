//! `flowtrail replay`

use flowtrail_ingest::EventTime;
use flowtrail_ingest::flow::layout::Layout;
use flowtrail_ingest::inflate::Limits;

use super::{Failure, ReplayArgs};
use crate::config::Config;
use crate::input::Inputs;
use crate::reader::ReadSettings;
use crate::replay::Replay;
use crate::setup::{Setup, now};

/// Runs it; prints the summary. Exit 1 when a unit was quarantined.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &ReplayArgs) -> Result<i32, Failure> {
    let began = std::time::Instant::now();
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    config.rules.folders.extend(args.rules.iter().cloned());
    if let Some(folder) = config.rules.folders.first() {
        return Err(Failure::Usage(format!("Sigma rules are not evaluated yet ({}): leave --rules and [rules] out", folder.display())));
    }
    // Told now rather than after an hour of reading.
    if !args.out.contains("://") && std::path::Path::new(&args.out).is_file() {
        return Err(Failure::Usage(format!("--out {}: this is a file; give a folder", args.out)));
    }
    if let Some(file) = args.json_findings.as_deref().filter(|file| *file != "-")
        && let Some(folder) = std::path::Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    {
        return Err(Failure::Usage(format!("--json-findings {file}: there is no folder {}", folder.display())));
    }
    let seen_at = now();
    let setup = Setup::open(&config, Some(&args.out), &args.list, &args.tables)?;
    let inputs = Inputs::open(&args.inputs, &config.aws)?;
    let as_of = args.as_of.unwrap_or(seen_at);
    let read = ReadSettings {
        format: args.format.as_deref().map(layout).transpose()?,
        from: args.from.unwrap_or(EventTime::MIN),
        to: args.to.unwrap_or(EventTime::MAX),
        now: as_of,
        facts_at: args.facts_at,
        limits: Limits::default(),
        cells: setup.tables.iter().any(|t| t == "flows"),
    };
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).clamp(1, 256);
    let replay = Replay { setup, inputs, read, as_of, seen_at, threads, json_findings: args.json_findings.clone() };
    let mut summary = replay.run()?;
    summary.measure(began.elapsed().as_secs_f64());
    let quiet = args.json_findings.as_deref() == Some("-");
    match (args.json, quiet) {
        (true, false) => println!("{}", summary.json()),
        // Standard output is the findings': the summary goes beside it.
        (true, true) => eprintln!("{}", summary.json()),
        (false, true) => eprint!("{}", summary.table()),
        (false, false) => {
            print!("{}", summary.table());
            if summary.units.total() == 0 {
                println!("{:<12} no file: nothing lies in {}", "nothing read", args.inputs.join(", "));
            }
            println!("{:<12} {}", "tables", args.out);
        }
    }
    Ok(i32::from(summary.units.quarantined > 0))
}

/// Compiles `--format`.
///
/// # Errors
/// `Failure::Usage` in words.
pub fn layout(format: &str) -> Result<Layout, Failure> {
    Layout::compile(format).map_err(|e| Failure::Usage(format!("--format {format:?}: {e}")))
}
