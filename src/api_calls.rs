//! The `api_calls` table, when asked for: every API call once, written when repeats are known.
//!
//! The merged hours say which copy of a call stands; those units are read once more, and their records of those
//! positions become rows. Only calls of runs that no commit has written rows for are asked for, so that a replay that
//! was killed between reading and judging writes them when it goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use flowtrail_detect::api_row::{function_of, principal_of};
use flowtrail_detect::{BlockView, merge};
use flowtrail_ingest::UnitId;
use flowtrail_sink::tables::{ApiCallRow, ApiCallsWriter};
use flowtrail_sink::{OutputFile, TableFile};

use crate::input::{Announced, Inputs};
use crate::lane::Lane;
use crate::reader::{ReadSettings, Reader};
use crate::stored::StoredDay;

/// Bytes of units that are worth one more thread, and with it one more file to an hour.
const BYTES_A_THREAD: u64 = 64 << 20;

/// Units with the positions of their calls that stand, sorted.
type Standing = BTreeMap<UnitId, Vec<u64>>;

/// Writes and stages the rows of all calls that have none yet. `objects` is where units can be read again.
///
/// # Errors
/// When a store fails, the state is damaged, or a unit that was read before cannot be read any more.
pub fn write(lane: &mut Lane, objects: &[Announced], inputs: &Inputs, settings: &ReadSettings, threads: usize) -> Result<Vec<OutputFile>> {
    let standing = standing(lane)?;
    let mut by_key: HashMap<(&str, &str), Vec<&Announced>> = HashMap::new();
    for object in objects {
        by_key.entry((object.meta.source, object.meta.key.as_str())).or_default().push(object);
    }
    let mut work: Vec<(UnitId, Vec<u64>, Vec<&Announced>)> = Vec::new();
    let mut lost = 0;
    for (id, positions) in standing {
        let known = lane.known.ledger.get(&id).map(|u| (u.source.as_str(), u.key.as_str()));
        match known.and_then(|key| by_key.get(&key)) {
            Some(places) => work.push((id, positions, places.clone())),
            None => lost += positions.len(),
        }
    }
    if lost > 0 {
        eprintln!("flowtrail: {lost} API calls of an earlier, killed replay are not in api_calls: their units are not among these inputs");
    }
    // In order of keys, which is that of time: hours are finished one after the other.
    work.sort_by(|a, b| a.2.first().map(|o| &o.meta.key).cmp(&b.2.first().map(|o| &o.meta.key)));
    let bytes: u64 = work.iter().filter_map(|w| w.2.first()).map(|o| o.size).sum();
    let threads = threads.clamp(1, usize::try_from(bytes / BYTES_A_THREAD).unwrap_or(usize::MAX).saturating_add(1));
    let (sender, receiver) = crossbeam_channel::bounded::<Result<Vec<TableFile>>>(threads * 2);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                let mut reader = Reader::new(settings.clone(), 0);
                let mut writer = ApiCallsWriter::default();
                while let Some((id, positions, places)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let files = unit_rows(&mut reader, &mut writer, *id, positions, places, inputs);
                    let failed = files.is_err();
                    // Nothing full is nothing to send. The receiver is gone only when the call has failed.
                    if files.as_ref().map_or(true, |f| !f.is_empty()) && sender.send(files).is_err() || failed {
                        return;
                    }
                }
                let _ = sender.send(writer.finish().map_err(Into::into));
            });
        }
        drop(sender);
        let mut staged = Vec::new();
        let mut outcome = Ok(());
        for files in &receiver {
            match files.and_then(|files| lane.stage(&files)) {
                Ok(files) => staged.extend(files),
                Err(error) => {
                    next.store(work.len(), Ordering::Relaxed);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome.map(|()| staged)
    })
}

/// Which copy of each call stands, for calls that have no row yet.
fn standing(lane: &Lane) -> Result<Standing> {
    let unwritten = lane.known.runs.iter().filter(|r| r.unwritten);
    let days: BTreeSet<_> = unwritten.flat_map(|r| r.blocks.iter().map(|b| b.hour.day())).collect();
    let mut standing = Standing::new();
    for day in days {
        StoredDay::of(lane, day, &|_, _| true).each(&mut |of| {
            let is_written = |b: &(&BlockView<'_>, &bool)| !*b.1;
            let written: Vec<_> = of.blocks.iter().zip(&of.unwritten).filter(is_written).map(|b| *b.0).collect();
            if written.len() == of.blocks.len() {
                return Ok(());
            }
            let before: BTreeSet<_> = merge(&written)?.0.calls.iter().map(|c| (c.time, c.id)).collect();
            let (merged, _) = merge(&of.blocks)?;
            for call in merged.calls.iter().filter(|c| !before.contains(&(c.time, c.id))) {
                let unit = merged.units.get(call.unit as usize);
                let unit = unit.with_context(|| format!("a call of {} {:?} names no unit", merged.account, of.hour))?;
                standing.entry(unit.id).or_default().push(call.position);
            }
            Ok(())
        })?;
    }
    for positions in standing.values_mut() {
        positions.sort_unstable();
        positions.dedup();
    }
    Ok(standing)
}

fn unit_rows(
    reader: &mut Reader,
    writer: &mut ApiCallsWriter,
    id: UnitId,
    positions: &[u64],
    places: &[&Announced],
    inputs: &Inputs,
) -> Result<Vec<TableFile>> {
    for object in places {
        let bytes = inputs.fetch(object).with_context(|| format!("reading {} again for api_calls", object.meta.key))?;
        if UnitId::of_key(&object.meta.key).unwrap_or_else(|| UnitId::of_bytes(&bytes)) != id {
            continue;
        }
        let mut files = Vec::new();
        let mut failed = None;
        reader.calls(&bytes, &mut |call| {
            if positions.binary_search(&call.index).is_err() {
                return;
            }
            let principal = principal_of(call).map(std::borrow::Cow::into_owned);
            match writer.push(ApiCallRow::new(call, function_of(call).map(str::to_owned), principal, &object.meta.key)) {
                Ok(full) => files.extend(full),
                Err(error) => failed = Some(error),
            }
        });
        return failed.map_or(Ok(files), |error| Err(error.into()));
    }
    anyhow::bail!(
        "{} is not what it was when it was read: its API calls cannot be written",
        places.first().map_or("a unit", |o| &o.meta.key)
    )
}
