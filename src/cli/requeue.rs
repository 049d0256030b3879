//! `flowtrail requeue`: units that could not be read are forgotten, so that the next `run` or `replay` tries them again.

use crate::config::Config;
use crate::lane::{Changes, Ended, Lane, UnitRecord};
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
    let mut lane = Lane::open(setup.state.clone(), setup.output.clone(), seen_at)?;
    let mut gone: Vec<UnitRecord> = lane.known.ledger.values().filter(|u| u.ended == Ended::Quarantined).cloned().collect();
    gone.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
    let mut kept: Vec<&UnitRecord> = lane.known.ledger.values().filter(|u| u.ended == Ended::Salvaged).collect();
    kept.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
    for unit in &gone {
        println!("again  {}", line(unit));
    }
    for unit in &kept {
        println!("kept   {}", line(unit));
    }
    println!("{} units will be read again", gone.len());
    if !kept.is_empty() {
        println!("{} units broke in the middle: what came before the break is counted, so they are not read again", kept.len());
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
