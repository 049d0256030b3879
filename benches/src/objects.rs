//! Objects under AWS's keys, made by all cores, each from its own seed.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use flowtrail_ingest::time::EventTime;

use crate::columns::Columns;
use crate::flows::{Record, Shape, Sums, object_records};
use crate::random::Random;
use crate::text::{Lines, header};
use crate::trail::object_events;
use crate::world::{REGION, World};

/// What kind of objects to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Flow logs as gzip text.
    Flows(Shape),
    /// The records of [`Shape::Plain`] as Parquet.
    Parquet,
    /// CloudTrail events.
    Trail,
}

/// How much of it.
#[derive(Clone, Debug)]
pub struct Amount {
    /// Records or events over all objects.
    pub records: u64,
    /// Records or events in one object (the last of each account may have fewer).
    pub per_object: u64,
    /// Days, from `start` on, over which the objects are spread evenly.
    pub days: u32,
    /// Seconds since 1970, a full day.
    pub start: i64,
    /// Threads that make objects; changes nothing but the time it takes.
    pub threads: usize,
}

/// What was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// Objects.
    pub objects: u64,
    /// Bytes of text, or of JSON, before gzip; of Parquet, its own size.
    pub raw_bytes: u64,
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// What the records add up to (events count as records).
    pub sums: Sums,
}

impl Made {
    fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.raw_bytes += other.raw_bytes;
        self.stored_bytes += other.stored_bytes;
        self.sums.add(&other.sums);
    }
}

type Failure = Box<dyn Error + Send + Sync>;

/// Writes all objects below `folder`.
pub fn make(world: &World, kind: Kind, amount: &Amount, folder: &Path) -> Result<Made, Failure> {
    let accounts = world.size.accounts.max(1) as u64;
    let objects = amount.records.div_ceil(amount.per_object.max(1)).max(1);
    let (next, total) = (AtomicU64::new(0), Mutex::new(Ok(Made::default())));
    std::thread::scope(|scope| {
        for _ in 0..amount.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= objects {
                        return;
                    }
                    let count = amount.per_object.min(amount.records - number * amount.per_object);
                    let per_account = objects.div_ceil(accounts);
                    let place = Place { account: (number % accounts) as usize, number: number / accounts, of: per_account };
                    let made = object(world, kind, amount, place, count, folder);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *total, made) {
                        (Ok(sum), Ok(made)) => sum.add(&made),
                        (Ok(_), Err(error)) => {
                            *total = Err(error);
                            return;
                        }
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Which object of its account.
#[derive(Clone, Copy)]
struct Place {
    account: usize,
    number: u64,
    of: u64,
}

fn object(world: &World, kind: Kind, amount: &Amount, place: Place, count: u64, folder: &Path) -> Result<Made, Failure> {
    let span = i64::from(amount.days.max(1)) * 86_400;
    let window = amount.start + (span * place.number as i64 / place.of.max(1) as i64) / 300 * 300;
    let parts = [world.size.seed, place.account as u64, place.number];
    // Parquet holds the very records of the text, so that the two can be compared.
    let random = &mut Random::of(&parts);
    let (raw, stored, sums) = match kind {
        Kind::Flows(shape) => {
            let mut raw = Vec::with_capacity(count as usize * 120 + 512);
            raw.extend_from_slice(header(shape).as_bytes());
            raw.push(b'\n');
            let mut lines = Lines::new(world, shape);
            let mut each = |record: &Record<'_>| lines.write(record, &mut raw);
            let sums = object_records(world, shape, place.account, window, count, random, &mut each);
            (raw.len(), gzip(&raw)?, sums)
        }
        Kind::Parquet => {
            let mut columns = Columns::new(world);
            let mut each = |record: &Record<'_>| columns.write(record);
            let sums = object_records(world, Shape::Plain, place.account, window, count, random, &mut each);
            let stored = columns.finish()?;
            (stored.len(), stored, sums)
        }
        Kind::Trail => {
            let mut raw = Vec::with_capacity(count as usize * 1900);
            object_events(world, place.account, window, count, random, &mut raw);
            (raw.len(), gzip(&raw)?, Sums { records: count, ..Sums::default() })
        }
    };
    let path = folder.join(key(world, kind, place.account, window, &mut Random::of(&[parts[0], parts[1], parts[2], 77])));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, &stored).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Made { objects: 1, raw_bytes: raw as u64, stored_bytes: stored.len() as u64, sums })
}

/// The key that AWS gives such an object.
fn key(world: &World, kind: Kind, account: usize, window: i64, random: &mut Random) -> String {
    let account_id = world.account_id(account);
    let time = EventTime(window).to_string();
    let (year, month, day) = (&time[0..4], &time[5..7], &time[8..10]);
    let stamp = format!("{year}{month}{day}T{}{}Z", &time[11..13], &time[14..16]);
    let unique = random.bits();
    match kind {
        Kind::Trail => format!(
            "AWSLogs/{account_id}/CloudTrail/{REGION}/{year}/{month}/{day}/{account_id}_CloudTrail_{REGION}_{stamp}_{unique:016X}.json.gz"
        ),
        Kind::Flows(_) | Kind::Parquet => {
            let ending = if kind == Kind::Parquet { "log.parquet" } else { "log.gz" };
            let flow_log = crate::random::mix(account as u64 ^ 0x5000);
            format!(
                "AWSLogs/{account_id}/vpcflowlogs/{REGION}/{year}/{month}/{day}/{account_id}_vpcflowlogs_{REGION}_fl-0{flow_log:016x}_{stamp}_{:08x}.{ending}",
                unique as u32
            )
        }
    }
}

fn gzip(raw: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(raw.len() / 6), Compression::new(6));
    encoder.write_all(raw)?;
    Ok(encoder.finish()?)
}

/// Writes the snapshots that name the world's interfaces, one pair a account.
pub fn write_facts(world: &World, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    for account in 0..world.size.accounts.max(1) {
        let account_id = world.account_id(account);
        fs::write(folder.join(format!("{account_id}-interfaces.json")), world.network_interfaces_json(account).to_string())?;
        fs::write(folder.join(format!("{account_id}-functions.json")), world.functions_json(account).to_string())?;
    }
    Ok(())
}
