//! Runs one stage of the hot path once, for `benches/instructions`: `flowtrail-bench-stages parse`. Without a name it
//! lists the stages.

use std::io::Write as _;

use flowtrail_benches::stages::{STAGES, Stage};

/// What callgrind counts: everything in here, and nothing of the preparation.
#[inline(never)]
fn counted_stage(stage: &mut Stage) {
    stage.run();
    // Keeps the call from being the last thing, which would make it a jump out of this function.
    std::hint::black_box(stage.count);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let Some(name) = std::env::args().nth(1) else {
        writeln!(out, "{}", STAGES.join("\n"))?;
        return Ok(());
    };
    let mut stage = Stage::of(&name, 20_000).ok_or_else(|| format!("no stage {name:?}; there are {}", STAGES.join(", ")))?;
    // Memory that a first run takes is there for the second, as in a process that reads object after object.
    stage.run();
    counted_stage(&mut stage);
    writeln!(out, "{} {} {}", stage.name, stage.count, stage.unit)?;
    Ok(())
}
