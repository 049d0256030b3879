//! `flowtrail requeue`: units that could not be read are forgotten, so that the next `run` or `replay` tries them again.

use crate::config::Config;
use crate::lane::{Changes, Depth, Ended, Lane, UnitRecord};
use crate::setup::{Setup, now};

use super::{ConfigArg, Failure};

/// Runs it. Nothing that was counted is dropped: a unit that broke in the middle keeps what came before the break.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &ConfigArg) -> Result<i32, Failure> {
    let config = Config::load(&args.config)?;
    let setup = Setup::open(&config, None, &[], &[])?;
    let seen_at = now();
    let mut lane = Lane::open(setup.state.clone(), setup.output.clone(), seen_at, Depth::All)?;
    // An object that came a second time with another length stands as quarantined, though its first copy is counted.
    let is_uncounted = |u: &&UnitRecord| u.ended == Ended::Quarantined && u.records == 0 && u.rejects == 0;
    let mut gone: Vec<UnitRecord> = lane.known.ledger.values().filter(is_uncounted).cloned().collect();
    gone.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
    let is_counted = |u: &&UnitRecord| u.ended == Ended::Salvaged || u.ended == Ended::Quarantined && !is_uncounted(u);
    let mut kept: Vec<UnitRecord> = lane.known.ledger.values().filter(is_counted).cloned().collect();
    kept.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
    for unit in &gone {
        println!("again  {}", line(unit));
    }
    for unit in &kept {
        println!("kept   {}", line(unit));
    }
    println!("{} units will be read again", gone.len());
    if !kept.is_empty() {
        println!("{} units are counted as far as they could be read, and reading them again would count twice", kept.len());
    }
    if !gone.is_empty() {
        for unit in &gone {
            lane.known.ledger.remove(&unit.id);
        }
        // A roll-up writes the ledger whole: it is how something leaves it.
        let config_hash = lane.known.judged.config_hash;
        lane.commit(Changes::default(), config_hash, seen_at, true)?;
    }
    Ok(0)
}

/// One unit on one line that is safe on a terminal.
fn line(unit: &UnitRecord) -> String {
    flowtrail_ingest::escaped(format!("{}:{}  {}", unit.source, unit.key, unit.reason).as_bytes())
}
