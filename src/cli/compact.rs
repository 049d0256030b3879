//! `flowtrail compact`: merges the small files of tables that only grow, and rolls the state up into one commit.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use flowtrail_sink::tables::merge_files;
use flowtrail_sink::{Table, TableFile};

use crate::config::Config;
use crate::lane::{Changes, Depth, Lane};
use crate::setup::{Setup, now};

use super::{ConfigArg, Failure};

/// Tables that grow by a file a commit. The others are replaced whole, or written in large files from the start.
const TABLES: [Table; 4] = [Table::Findings, Table::Rejects, Table::Late, Table::Quarantine];
/// Larger files stay as they are.
const SMALL: u64 = 32 << 20;
/// A merged file grows to about this many bytes.
const MERGED: u64 = 64 << 20;
/// Bytes staged before there is a commit: a full disk then costs little.
const COMMIT_BYTES: u64 = 512 << 20;

/// Runs it. Only what is published is touched; the rows stay the same.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &ConfigArg) -> Result<i32, Failure> {
    let config = Config::load(&args.config)?;
    let setup = Setup::open(&config, None, &[], &[])?;
    let seen_at = now();
    // Publishes what was committed and not published, so that what is listed is what is committed.
    let mut lane = Lane::open(setup.state.clone(), setup.output.clone(), seen_at, Depth::Open)?;
    let config_hash = lane.known.judged.config_hash;
    let mut changes = Changes::default();
    let (mut before, mut after, mut waiting) = (0, 0, 0);
    for table in TABLES {
        for (folder, groups) in small_files(&lane, table)? {
            for keys in groups {
                let mut files = Vec::with_capacity(keys.len());
                for key in &keys {
                    files.push(
                        lane.output.get(key).map_err(anyhow::Error::from)?.ok_or_else(|| anyhow!("{key} went away while it was read"))?,
                    );
                }
                for (bytes, rows) in merge_files(table, files).with_context(|| format!("merging {folder}"))? {
                    waiting += bytes.len() as u64;
                    changes.files.extend(lane.stage(&[TableFile { folder: folder.clone(), bytes, rows }])?);
                    after += 1;
                }
                before += keys.len();
                changes.retired.extend(keys);
                if waiting >= COMMIT_BYTES {
                    lane.commit(std::mem::take(&mut changes), config_hash, seen_at, false)?;
                    waiting = 0;
                }
            }
        }
    }
    lane.commit(changes, config_hash, seen_at, true)?;
    println!("{before} small files are {after} now; the state is one roll-up of {} units", lane.known.ledger.len());
    Ok(0)
}

/// Groups of small files that belong together, by folder; a file that would stay alone is left out.
fn small_files(lane: &Lane, table: Table) -> anyhow::Result<BTreeMap<String, Vec<Vec<String>>>> {
    let mut folders: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for (key, size) in lane.output.list(&format!("{table}/"))? {
        let Some((folder, name)) = key.rsplit_once('/') else { continue };
        // Files of another name are not ours.
        if size >= SMALL || !name.ends_with(".parquet") || !name.starts_with("0-") {
            continue;
        }
        let groups = folders.entry(folder.to_owned()).or_default();
        let held = sizes.entry(folder.to_owned()).or_default();
        match groups.last_mut().filter(|_| *held + size <= MERGED) {
            Some(group) => {
                group.push(key);
                *held += size;
            }
            None => {
                groups.push(vec![key]);
                *held = size;
            }
        }
    }
    for groups in folders.values_mut() {
        groups.retain(|g| g.len() > 1);
    }
    folders.retain(|_, groups| !groups.is_empty());
    Ok(folders)
}
