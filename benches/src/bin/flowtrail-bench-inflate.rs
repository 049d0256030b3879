//! The floor: `flowtrail-bench-inflate FOLDER` inflates every .gz below it, one after another, and says what that cost.

use std::error::Error;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Parser;
use flowtrail_benches::inflate::Inflater;

#[derive(Parser, Debug)]
#[command(about = "Inflates all gzip objects of a folder with bare libdeflate and prints the CPU seconds it took")]
struct Arguments {
    /// Walked for files that end in .gz.
    folder: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut paths = Vec::new();
    walk(&arguments.folder, &mut paths)?;
    paths.sort();
    let mut inflater = Inflater::new().ok_or("no memory")?;
    let mut object = Vec::new();
    let (mut stored, mut raw) = (0u64, 0u64);
    for path in &paths {
        object.clear();
        std::fs::File::open(path)?.read_to_end(&mut object)?;
        stored += object.len() as u64;
        let bytes = inflater.inflate(&object).map_err(|error| format!("{}: {error}", path.display()))?;
        raw += bytes.len() as u64;
    }
    println!(
        "{}",
        serde_json::json!({ "objects": paths.len(), "stored_bytes": stored, "raw_bytes": raw, "records": null, "cpu_seconds": cpu_seconds() })
    );
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

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is large enough and all zero bytes are a valid rusage, so it is readable whatever the call returns.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
