//! `run` driven by hand over a folder: what it remembers, what it writes at the end of a day, and what a crash leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowtrail_ingest::inflate::Limits;
use flowtrail_ingest::{Day, EventTime, Hour};
use flowtrail_sink::tables::read_rows;

use super::{Listing, Live, Run};
use crate::config::{Clock, Config};
use crate::input::Inputs;
use crate::lane::{Depth, Lane};
use crate::metrics::Gauges;
use crate::reader::ReadSettings;
use crate::setup::{Setup, now};

/// 2026-01-05, a Monday.
const FIRST: Day = Day(20_458);
const HEADER: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        let world = Self { folder };
        let snapshot = r#"{"NetworkInterfaces":[{"NetworkInterfaceId":"eni-0a","Description":"AWS Lambda VPC ENI-f-1","InterfaceType":"lambda",
            "Status":"in-use","SubnetId":"subnet-1","VpcId":"vpc-1","OwnerId":"111122223333","PrivateIpAddress":"10.0.0.5","Groups":[{"GroupId":"sg-1"}],
            "PrivateIpAddresses":[{"PrivateIpAddress":"10.0.0.5"}]}]}"#;
        world.put("in/interfaces.json", snapshot);
        world
    }

    /// Moved in whole, and at rest for long.
    fn put(&self, path: &str, text: &str) {
        let whole = self.folder.path().join("new");
        std::fs::write(&whole, text).unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(86_400);
        std::fs::File::options().write(true).open(&whole).unwrap().set_modified(long_ago).unwrap();
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::rename(whole, path).unwrap();
    }

    /// AWS delivers the log of an hour, `after` seconds after its end.
    fn deliver(&self, hour: Hour, after: i64) {
        let (from, at) = (hour.start(), hour.end().plus(after));
        let mut text = format!("{HEADER}\n");
        for n in 0..4 {
            let start = from.0 + n * 600;
            text.push_str(&format!("2 111122223333 eni-0a 10.0.0.5 203.0.113.{n} 40000 443 6 10 1000 {start} {} ACCEPT OK\n", start + 60));
        }
        let stamp: String = at.to_string().chars().filter(|c| c.is_ascii_alphanumeric()).take(13).collect();
        let day = hour.day().to_string().replace('-', "/");
        let name = format!("111122223333_vpcflowlogs_us-east-1_fl-0a_{stamp}Z_{}", hour.0);
        self.put(&format!("in/AWSLogs/111122223333/vpcflowlogs/us-east-1/{day}/{name}.log"), &text);
    }

    fn run(&self) -> Run {
        let text = format!("[output]\nlocation = {:?}\n[run]\nclock = \"delivery\"\n", self.folder.path().join("out"));
        let config = Config::parse(&text).unwrap();
        let input = self.folder.path().join("in").display().to_string();
        let read = ReadSettings {
            format: None,
            from: EventTime::MIN,
            to: EventTime::MAX,
            now: now(),
            facts_at: None,
            limits: Limits::default(),
            cells: false,
        };
        Run {
            setup: Setup::open(&config, None, &[], &[]).unwrap_or_else(|_| panic!("a setup")),
            listings: vec![Listing { name: input.clone(), inputs: inputs(&input), read, start: EventTime::MIN }],
            #[cfg(feature = "kafka")]
            topics: Vec::new(),
            #[cfg(feature = "collect")]
            collecting: None,
            threads: 1,
            clock: Clock::Delivery,
            look_every: Duration::from_secs(3600),
            commit_every: Duration::ZERO,
            list_every: Duration::ZERO,
            stall_limit: Duration::from_secs(3600),
            ledger_days: 3,
            memory: 1 << 20,
            once: true,
            gauges: Gauges::default(),
        }
    }

    fn rows(&self, table: &str) -> Vec<serde_json::Map<String, serde_json::Value>> {
        files(&self.folder.path().join("out").join(table)).into_iter().flat_map(|f| read_rows(std::fs::read(f).unwrap()).unwrap()).collect()
    }

    /// Records and judged flow records by hour, as `coverage` tells them.
    fn covered(&self) -> BTreeMap<String, (u64, u64)> {
        let mut hours: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for row in self.rows("coverage") {
            let hour = hours.entry(row["hour"].as_str().unwrap().to_owned()).or_default();
            hour.0 += row["records"].as_u64().unwrap();
            hour.1 += row.iter().filter(|(name, _)| name.starts_with("attribution_")).map(|(_, n)| n.as_u64().unwrap()).sum::<u64>();
        }
        hours
    }
}

fn inputs(folder: &str) -> Inputs {
    Inputs::open(&[folder.to_owned()], &crate::config::AwsConfig::default()).unwrap_or_else(|_| panic!("a folder"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lists anew, and steps until a round found nothing new.
fn to_the_end(run: &Run, live: &mut Live) {
    run.begin_round(live).unwrap();
    while run.step(live).unwrap() {}
}

/// What grows, if anything does.
fn remembered(live: &Live) -> [usize; 7] {
    let known = &live.lane.known;
    [
        known.ledger.len(),
        known.runs.iter().map(|run| run.blocks.len()).sum(),
        known.days().len(),
        known.findings.len(),
        known.coverage.len(),
        live.listings.remembered(),
        live.looks.len() + live.said.observations.len() + live.said.attribution.len(),
    ]
}

#[test]
fn what_is_remembered_does_not_grow_with_history() {
    let world = World::new();
    let run = world.run();
    let mut live = run.open().unwrap();
    let mut after_a_week = [0; 7];
    for day in 0..30 {
        let first = Day(FIRST.0 + day).first_hour();
        (0..24).for_each(|n| world.deliver(Hour(first.0 + n), 300));
        // A third of the days, somebody stopped it in good order or pulled the plug.
        match day % 6 {
            2 => {
                run.finish(&mut live).unwrap();
                live = run.open().unwrap();
            }
            4 => live = run.open().unwrap(),
            _ => {}
        }
        to_the_end(&run, &mut live);
        if day == 7 {
            after_a_week = remembered(&live);
        }
    }
    let bound = after_a_week.map(|n| n + n / 4 + 2);
    let at_the_end = remembered(&live);
    assert!(at_the_end.iter().zip(bound).all(|(n, bound)| *n <= bound), "after a week {after_a_week:?}, after a month {at_the_end:?}");
    assert!(at_the_end[0] >= 3 * 24, "the last days are remembered");
    assert_eq!(live.summary.late_records, 0);
    run.finish(&mut live).unwrap();
    drop(live);

    // All of it is there for a replay.
    let setup = run.setup;
    let lane = Lane::open(setup.state, setup.output, now(), Depth::All).unwrap();
    assert_eq!((lane.known.days().len(), lane.known.ledger.len()), (30, 30 * 24 + 1));

    let covered = world.covered();
    assert_eq!(covered.len(), 30 * 24, "every hour has its rows");
    let last_sealed = covered.iter().filter(|(_, counts)| **counts == (4, 4)).count();
    assert_eq!(last_sealed, 30 * 24 - 2, "records and verdicts of every sealed hour are told once: {covered:?}");
    assert!(covered.values().all(|(records, _)| *records == 4));
    for table in ["profiles", "eni_owners"] {
        let days = std::fs::read_dir(world.folder.path().join("out").join(table)).unwrap().count();
        assert!((29..=30).contains(&days), "{table} of {days} days");
        for day in std::fs::read_dir(world.folder.path().join("out").join(table)).unwrap() {
            assert_eq!(files(&day.unwrap().path()).len(), 1, "one file a day");
        }
    }
}

#[test]
fn a_unit_that_comes_after_the_seal_is_late_and_nothing_else_is() {
    let world = World::new();
    let run = world.run();
    let mut live = run.open().unwrap();
    let first = FIRST.first_hour();
    (0..6).for_each(|n| world.deliver(Hour(first.0 + n), 300));
    to_the_end(&run, &mut live);
    // Delivered an hour and a half after its end, which R allows; found after everything else.
    world.deliver(Hour(first.0 + 6), 5400);
    to_the_end(&run, &mut live);
    assert_eq!((live.summary.units.late, live.summary.late_records), (0, 0));
    let sealed = live.sealed_before.unwrap();
    assert_eq!(sealed, Hour(first.0 + 6), "the newest delivery was at 08:30");
    // One more file of a sealed hour.
    let name = "in/AWSLogs/111122223333/vpcflowlogs/us-east-1/2026/01/05/111122223333_vpcflowlogs_us-east-1_fl-0b_20260105T0830Z_x.log";
    let start = Hour(first.0 + 1).start().0;
    world
        .put(name, &format!("{HEADER}\n2 111122223333 eni-0a 10.0.0.5 203.0.113.9 40000 443 6 10 1000 {start} {} ACCEPT OK\n", start + 60));
    to_the_end(&run, &mut live);
    assert_eq!((live.summary.units.late, live.summary.late_records), (1, 1));
    run.finish(&mut live).unwrap();
    let late = world.rows("late");
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(late[0]["key"].as_str().unwrap().ends_with("20260105T0830Z_x.log"));
}

/// Two files of one hour, and the second is being written while a listing is under way: it must not be late.
#[test]
fn what_comes_during_a_listing_is_not_overtaken_by_it() {
    let world = World::new();
    let run = world.run();
    let mut live = run.open().unwrap();
    let first = FIRST.first_hour();
    (0..3).for_each(|n| world.deliver(Hour(first.0 + n), 300));
    to_the_end(&run, &mut live);
    let mark = run.mark(&live);
    assert_eq!(mark, Some(Hour(first.0 + 2).end().plus(300)));
    // Another source hears of much later deliveries while this one is listed.
    let later = Hour(first.0 + 12).start();
    live.newest.hear(Some(later));
    run.list(&mut live, mark).unwrap();
    assert_eq!(run.clock_now(&mut live), mark, "the listing knows of nothing that came after it began");
    run.begin_round(&mut live).unwrap();
    assert_eq!(run.clock_now(&mut live), Some(later));
}

#[test]
fn it_goes_on_from_what_a_replay_left() {
    goes_on_from(60, 2);
}

/// Two days are open then.
#[test]
fn it_goes_on_from_what_a_replay_left_shortly_after_midnight() {
    goes_on_from(49, 1);
}

/// After a replay of so many hours of which the day with this number is the first that is open.
fn goes_on_from(hours: i32, open_day: i32) {
    let world = World::new();
    let first = FIRST.first_hour();
    (0..hours).for_each(|n| world.deliver(Hour(first.0 + n), 300));
    let run = world.run();
    let input = world.folder.path().join("in").display().to_string();
    let as_of = Hour(first.0 + hours).start();
    crate::replay::Replay {
        setup: world.run().setup,
        inputs: inputs(&input),
        read: ReadSettings { now: as_of, ..run.listings[0].read.clone() },
        as_of,
        seen_at: now(),
        threads: 1,
        json_findings: None,
    }
    .run()
    .unwrap();
    let mut live = run.open().unwrap();
    assert_eq!((live.sealed_before, live.open_day), (Some(Hour(first.0 + hours - 2)), Some(Day(FIRST.0 + open_day))));
    (hours..100).for_each(|n| world.deliver(Hour(first.0 + n), 300));
    to_the_end(&run, &mut live);
    run.finish(&mut live).unwrap();
    assert_eq!((live.summary.units.late, live.summary.units.applied), (0, 100 - hours as u64));
    let covered = world.covered();
    assert_eq!(covered.len(), 100);
    let told_once = covered.values().filter(|counts| **counts == (4, 4)).count();
    assert_eq!(told_once, 98, "the hours that replay left open are told once, too: {covered:?}");
}

#[test]
fn a_source_that_stands_still_is_left_behind_after_the_stall_limit() {
    let world = World::new();
    let mut run = world.run();
    run.once = false;
    run.stall_limit = Duration::from_millis(300);
    let gone = world.folder.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let name = gone.display().to_string();
    run.listings.push(Listing { name: name.clone(), inputs: inputs(&name), read: run.listings[0].read.clone(), start: EventTime::MIN });
    std::fs::remove_dir(&gone).unwrap();
    let first = FIRST.first_hour();
    (0..8).for_each(|n| world.deliver(Hour(first.0 + n), 300));
    let mut live = run.open().unwrap();
    run.begin_round(&mut live).unwrap();
    while run.read_chunk(&mut live) {}
    run.seal(&mut live).unwrap();
    assert_eq!(live.sealed_before, None, "a source that has said nothing holds sealing");
    std::thread::sleep(Duration::from_millis(350));
    run.begin_round(&mut live).unwrap();
    run.seal(&mut live).unwrap();
    assert_eq!(live.sealed_before, Some(Hour(first.0 + 6)), "and is left behind in the end");
    assert_eq!(live.still.iter().collect::<Vec<_>>(), [&name]);
    // It comes back with what it held: late.
    std::fs::create_dir(&gone).unwrap();
    std::fs::rename(world.folder.path().join("in/AWSLogs"), gone.join("AWSLogs")).unwrap();
    live.lane.known.ledger.clear();
    run.begin_round(&mut live).unwrap();
    while run.read_chunk(&mut live) {}
    run.commit(&mut live).unwrap();
    run.clock_now(&mut live);
    assert!(live.still.is_empty());
    assert_eq!(live.summary.units.late, 6);
}

#[test]
fn an_end_after_which_nothing_came_writes_nothing() {
    let world = World::new();
    for hour in 0..30 {
        world.deliver(Hour(FIRST.first_hour().0 + hour), 300);
    }
    let once = || {
        let run = world.run();
        let mut live = run.open().unwrap();
        to_the_end(&run, &mut live);
        run.finish(&mut live).unwrap();
        // Beside commits, of claims, and the locks of who is at work.
        let is_table = |f: &std::path::PathBuf| f.extension().is_none_or(|e| e != "commit") && f.iter().all(|part| part != ".tmp");
        let tables = files(&world.folder.path().join("out")).into_iter().filter(is_table);
        (tables.collect::<Vec<_>>(), live.summary.findings, live.summary.learning.len(), live.sealed_before)
    };
    let first = once();
    // Commits of claims are all that is new: no segment, no table, and the same is told.
    assert_eq!(once(), first);
    assert_eq!(once(), first);
    world.deliver(Hour(FIRST.first_hour().0 + 30), 300);
    let more = once();
    assert_ne!(more.0, first.0, "what came later was not written");
    assert_eq!(once(), more);
}
